//! What can be granted, and on what.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privilege {
    /// Read rows.
    Select,
    /// Add rows.
    Insert,
    /// Make sources and views.
    Create,
    /// Read files below the folders that the server allows.
    ReadFiles,
    /// Use a connection or a secret in what one makes.
    Usage,
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Privilege::Select => "SELECT",
            Privilege::Insert => "INSERT",
            Privilege::Create => "CREATE",
            Privilege::ReadFiles => "READ FILES",
            Privilege::Usage => "USAGE",
        })
    }
}

/// What it is granted on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// The source or view of this name.
    Object(String),
    /// Everything in schema `public`, what is made later included.
    Schema,
    /// The server's files.
    Files,
}

impl On {
    /// What there is to grant on it.
    pub fn privileges(&self) -> &'static [Privilege] {
        match self {
            On::Object(_) => &[Privilege::Select, Privilege::Insert, Privilege::Usage],
            On::Schema => &[Privilege::Select, Privilege::Insert, Privilege::Create],
            On::Files => &[Privilege::ReadFiles],
        }
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            On::Object(name) => f.write_str(name),
            On::Schema => f.write_str("schema public"),
            On::Files => f.write_str("files"),
        }
    }
}
