//! Whom a call is made for.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

/// Whose rights count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Who {
    /// The server itself: its start-up scripts, and what it does for objects that nobody owns.
    Server,
    /// Whoever reaches the port, as long as there are no users.
    Anyone,
    /// A user of this server.
    User {
        /// The user's name.
        name: Arc<str>,
        /// The user's number: one who is made anew under the same name is somebody else.
        id: u64,
    },
    /// Somebody whom an external issuer vouches for.
    External {
        /// The name that the issuer gives.
        name: Arc<str>,
        /// The roles that the token names.
        roles: Arc<BTreeSet<String>>,
    },
}

impl Who {
    /// The name under which they own things; `None` for those who are nobody in particular.
    pub fn name(&self) -> Option<&str> {
        match self {
            Who::Server | Who::Anyone => None,
            Who::User { name, .. } | Who::External { name, .. } => Some(name),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Server => f.write_str("the server"),
            Who::Anyone => f.write_str("anyone"),
            Who::User { name, .. } | Who::External { name, .. } => f.write_str(name),
        }
    }
}

/// Whom a call is made for, and where it comes from.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose rights count.
    pub who: Who,
    /// The client's address, if there is one.
    pub from: Option<IpAddr>,
}

impl Caller {
    /// The server itself.
    pub fn server() -> Self {
        Self { who: Who::Server, from: None }
    }
}
