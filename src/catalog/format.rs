//! How the payloads (and keys) of a topic are written.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::Link;
use super::OptionValue;
use crate::error::{Error, Result};

use super::ProtobufDef;

/// How a payload is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object, an array of objects, or newline-separated objects.
    Json,
    /// The same behind a schema registry's header (a zero byte and the id of a schema), which is taken off.
    RegistryJson,
    /// Avro's binary encoding of one record.
    Avro(Arc<AvroDef>),
    /// One message of Protobuf.
    Protobuf(Arc<ProtobufDef>),
    /// Lines of comma-separated values.
    Csv(CsvDef),
    /// The whole payload is the text of one column.
    Text,
    /// The whole payload is the one column's bytes.
    Bytes,
    /// Debezium's envelopes in JSON: what became of a row, and the row as an object.
    DebeziumJson,
}

/// How CSV is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvDef {
    /// What stands between cells. `WITH ('csv.delimiter' = ',')`.
    pub delimiter: char,
    /// What stands around a cell that has a delimiter or a line's end in it. `WITH ('csv.quote' = '"')`.
    pub quote: char,
    /// How NULL is written; in quotes it is that text. `WITH ('csv.null' = '')`.
    pub null: String,
}

impl Default for CsvDef {
    fn default() -> Self {
        Self { delimiter: ',', quote: '"', null: String::new() }
    }
}

impl CsvDef {
    /// A column's position in a line, from 0: what its path says, counted from 1, or `next`, the one behind the column before.
    pub fn position(name: &str, path: &[String], next: usize) -> Result<usize, String> {
        match path {
            [own] if own == name => Ok(next),
            [number] => match number.parse::<u16>() {
                Ok(number) if number > 0 => Ok(usize::from(number) - 1),
                _ => Err(Self::no_position(name, path)),
            },
            path => Err(Self::no_position(name, path)),
        }
    }

    fn no_position(name: &str, path: &[String]) -> String {
        format!(
            "column {name} has the path {}, but CSV has positions: write PATH '$.3' for the third cell of a line, or leave PATH out for the one behind the \
             column before",
            path.join(".")
        )
    }
}

/// Which records of a topic are read: those that have a header of this name and value. `WITH ('headers.filter' = 'name=value')`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderFilter {
    /// The header's name.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
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
#[derive(Clone, PartialEq, Eq)]
pub struct Subject {
    /// The subject's name in the registry.
    pub name: String,
    /// What the statement itself says of the registry, as text: options that begin with `schema.registry.`. The rest is its connection's and secrets'.
    pub options: BTreeMap<String, String>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("name", &self.name).field("options", &self.options.keys().collect::<Vec<_>>()).finish()
    }
}

impl Subject {
    /// The registry as connection and secrets say it now.
    pub fn registry(&self, link: &Link) -> Result<RegistryDef> {
        // Who names an address names all: a connection's password goes nowhere but where its owner sends it.
        let mut options = if self.options.contains_key(RegistryDef::URL) { link.own_registry()? } else { link.registry()? };
        options.extend(self.options.clone());
        RegistryDef::of(&options).map_err(Error::Invalid)
    }
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

impl RegistryDef {
    /// The address of a registry.
    pub const URL: &'static str = "schema.registry.url";
    /// The user of HTTP's basic authentication.
    pub const USER: &'static str = "schema.registry.username";
    /// That user's password.
    pub const PASSWORD: &'static str = "schema.registry.password";
    /// Both as `user:password`, as Confluent's clients have them.
    pub const BOTH: &'static str = "schema.registry.basic.auth.user.info";

    /// Whether options can declare one, secrets among them, which can't be looked at. The error is a sentence about them.
    pub fn check(options: &BTreeMap<String, OptionValue>) -> Result<(), String> {
        let text = |(name, value): (&String, &OptionValue)| match value {
            OptionValue::Secret(_) if name == Self::URL => Err(format!("the option '{name}' can't be a SECRET: write its value in single quotes")),
            OptionValue::Secret(_) => Ok((name.clone(), "a:b".into())),
            OptionValue::Text(text) => Ok((name.clone(), text.clone())),
        };
        Self::of(&options.iter().map(text).collect::<Result<_, _>>()?).map(drop)
    }

    /// The registry that options declare. The error is a sentence about them.
    pub fn of(options: &BTreeMap<String, String>) -> Result<Self, String> {
        let get = |name: &str| options.get(name).cloned();
        let Some(url) = get(Self::URL) else { return Err(format!("no schema registry is named: add '{}' = 'http://localhost:8081'", Self::URL)) };
        let url = url.trim().trim_end_matches('/').to_string();
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if !rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || c == '?' || c == '#')) {
            return Err(format!("'{}' is an address like 'http://localhost:8081', not '{url}'", Self::URL));
        }
        if rest.is_some_and(|rest| rest.split('/').next().unwrap_or_default().contains('@')) {
            return Err(format!("'{}' holds a user, and addresses are shown: write '{}' and '{}' instead", Self::URL, Self::USER, Self::PASSWORD));
        }
        let (user, password) = match (get(Self::BOTH), get(Self::USER), get(Self::PASSWORD)) {
            (None, user, password) => (user, password),
            // As it is shown.
            (Some(both), None, None) if both == "***" => (Some(both.clone()), Some(both)),
            (Some(both), None, None) => match both.split_once(':') {
                Some((user, password)) => (Some(user.into()), Some(password.into())),
                None => return Err(format!("'{}' is written user:password", Self::BOTH)),
            },
            (Some(_), ..) => return Err(format!("'{}' says user and password already: leave '{}' and '{}' out", Self::BOTH, Self::USER, Self::PASSWORD)),
        };
        match user.is_none() && password.is_some() {
            true => Err(format!("'{}' needs '{}': add that", Self::PASSWORD, Self::USER)),
            false => Ok(Self { url, user, password }),
        }
    }
}

impl Format {
    /// Its name in `'format' = '…'`.
    pub fn name(&self) -> &'static str {
        match self {
            Format::Json | Format::RegistryJson => "json",
            Format::Avro(_) => "avro",
            Format::Protobuf(_) => "protobuf",
            Format::Csv(_) => "csv",
            Format::Text => "text",
            Format::Bytes => "bytes",
            Format::DebeziumJson => "debezium_json",
        }
    }

    /// The subject of the registry whose schemas must be known before records can be read.
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Format::Json | Format::RegistryJson | Format::Protobuf(_) | Format::Csv(_) | Format::Text | Format::Bytes | Format::DebeziumJson => None,
            Format::Avro(avro) => avro.registry.as_ref(),
        }
    }
}
