//! How the payloads (and keys) of a topic are written.

use std::{fmt, sync::Arc};

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
            Format::Protobuf(_) => "protobuf",
            Format::Csv(_) => "csv",
            Format::Text => "text",
            Format::Bytes => "bytes",
            Format::DebeziumJson => "debezium_json",
        }
    }

    /// The registry whose schemas must be known before records can be read.
    pub fn registry(&self) -> Option<&RegistryDef> {
        match self {
            Format::Json | Format::RegistryJson | Format::Protobuf(_) | Format::Csv(_) | Format::Text | Format::Bytes | Format::DebeziumJson => None,
            Format::Avro(avro) => avro.registry.as_ref().map(|subject| &subject.registry),
        }
    }
}
