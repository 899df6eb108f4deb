//! How the payloads (and keys) of a topic are written.

use std::{fmt, sync::Arc};

/// How a payload is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object, an array of objects, or newline-separated objects.
    Json,
    /// The same behind a schema registry's header (a zero byte and the id of a schema), which is taken off.
    RegistryJson,
    /// Avro's binary encoding of one record.
    Avro(Arc<AvroDef>),
}

/// A topic in Avro.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvroDef {
    /// The reader's schema, JSON that names no type which it doesn't define: what columns and their paths mean.
    pub schema: String,
    /// Where the schemas are that records were written with, each behind a header with its schema's id; `None`: records have no header and
    /// were written with the reader's schema.
    pub registry: Option<Subject>,
}

/// A subject of a schema registry: the versions of one topic's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The registry.
    pub registry: RegistryDef,
    /// The subject's name there.
    pub name: String,
}

/// A schema registry that speaks Confluent's HTTP interface.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RegistryDef {
    /// Its address without a slash at the end: `https://registry:8081`.
    pub url: String,
    /// The user of HTTP's basic authentication.
    pub user: Option<String>,
    /// That user's password; a secret.
    pub password: Option<String>,
}

impl fmt::Debug for RegistryDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "***");
        f.debug_struct("RegistryDef").field("url", &self.url).field("user", &self.user).field("password", &password).finish()
    }
}

impl Format {
    /// Its name in `'format' = '…'`.
    pub fn name(&self) -> &'static str {
        match self {
            Format::Json | Format::RegistryJson => "json",
            Format::Avro(_) => "avro",
        }
    }

    /// The registry whose schemas must be known before records can be read.
    pub fn registry(&self) -> Option<&RegistryDef> {
        match self {
            Format::Json | Format::RegistryJson => None,
            Format::Avro(avro) => avro.registry.as_ref().map(|subject| &subject.registry),
        }
    }
}
