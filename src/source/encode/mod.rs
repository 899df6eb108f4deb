//! Rows as records of a source or a sink: bytes that the source's own declaration reads back as the same values.
//!
//! One file a format. The columns of a primary key make the record's key, too.

mod avro;
mod json;
mod plain;
mod protobuf;

use std::fmt::Debug;

use arrow::{
    array::{Array, ArrayRef},
    datatypes::Fields,
    record_batch::RecordBatch,
};

use self::{
    avro::AvroWriter,
    json::{JsonWriter, TextWriter},
    plain::{CsvWriter, WholeWriter},
    protobuf::ProtobufWriter,
};
use crate::{
    catalog::{ColumnDef, Format, KeyFormat, Link, Origin, SourceDef, TimeFormat},
    error::{Error, Result},
    source::registry::Registry,
};

/// A record to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its payload; `None`: a tombstone.
    pub payload: Option<Vec<u8>>,
}

/// Writes rows in a format, one at a time.
trait RowWriter: Debug + Send + Sync {
    /// A row of the encoder's columns as bytes.
    fn write(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<u8>, Wrong>;
}

/// Why a row can't be written.
#[derive(Debug)]
struct Wrong {
    /// The column whose value can't be.
    column: usize,
    why: String,
}

/// A column that is written.
#[derive(Debug, Clone)]
struct WrittenColumn {
    /// Its position among the encoder's columns.
    at: usize,
    name: String,
    /// Where it stands in what is written.
    path: Vec<String>,
    /// How a timestamp is written, where the format has no form of its own.
    time: TimeFormat,
}

impl WrittenColumn {
    fn new(source: &str, at: usize, def: &ColumnDef) -> Result<Self> {
        match &def.origin {
            Origin::Payload { path, time } => Ok(Self { at, name: def.name.clone(), path: path.clone(), time: time.clone() }),
            Origin::Metadata(_) | Origin::Header(_) | Origin::Unknown => Err(not_written(source, &def.name)),
        }
    }

    fn clash(&self, owner: &str) -> Error {
        Error::Unsupported(format!(
            "column {} of {owner} and another column stand at one path, or one within the other: give a value to one of them",
            self.name
        ))
    }
}

/// Finds out what an encoder for a source must know: under which ids its schemas are registered.
pub async fn ready_to_write(source: &SourceDef) -> Result<()> {
    let key = match source.key.as_ref().map(|key| &key.format) {
        Some(KeyFormat::As(format)) => Some(format),
        _ => None,
    };
    for format in [Some(&source.format), key].into_iter().flatten() {
        if let Format::Avro(def) = format
            && let Some(subject) = &def.registry
        {
            Registry::of(&subject.registry(&source.kafka.link)?).register(&subject.name, &def.schema).await?;
        }
    }
    Ok(())
}

/// Makes records of rows of some of a source's columns.
#[derive(Debug)]
pub struct RecordEncoder {
    /// Whose records they are, as in "source events".
    owner: String,
    /// The columns of the batches.
    columns: Vec<ColumnDef>,
    /// Or why rows can't be written; tombstones can all the same.
    payload: Result<Box<dyn RowWriter>, String>,
    key: Option<Box<dyn RowWriter>>,
    /// The columns of the key as positions in `columns`.
    key_columns: Vec<usize>,
    /// The column of event time as a position in `columns`; a record without one would be an error row.
    time_column: Option<usize>,
    /// How many rows came before, to say which one is wrong.
    before: u64,
}

impl RecordEncoder {
    /// For rows of these columns, as positions in the source's declaration.
    pub fn new(source: &SourceDef, columns: &[usize]) -> Result<Self> {
        let (name, owner) = (&source.name, format!("source {}", source.name));
        let taken: Vec<ColumnDef> = columns.iter().map(|&at| source.columns[at].clone()).collect();
        let written = taken.iter().enumerate().map(|(at, column)| WrittenColumn::new(name, at, column)).collect::<Result<Vec<_>>>()?;
        let in_key = |at: usize| source.key.as_ref().is_some_and(|key| key.columns.contains(&columns[at]));
        let payload: Result<Box<dyn RowWriter>> = match &source.format {
            Format::Csv(csv) => Ok(Box::new(CsvWriter::new(source, csv, &written)?)),
            Format::Text | Format::Bytes => Ok(Box::new(WholeWriter::new(source, &written)?)),
            format => {
                // What a record's key says need not be said twice: a schema may have no place for it.
                let has_place = |column: &&WrittenColumn| !in_key(column.at) || has_path(format, &column.path);
                writer(&owner, format, &source.kafka.link, &written.iter().filter(has_place).cloned().collect::<Vec<_>>())
            }
        };
        let payload = match payload {
            Err(error) if (0..columns.len()).any(|at| !in_key(at)) => return Err(error),
            other => other.map_err(|error| error.to_string()),
        };
        let mut key_columns = vec![];
        let key = match &source.key {
            None => None,
            Some(key) => {
                let mut of_key = vec![];
                for &column in &key.columns {
                    let column = &source.columns[column];
                    let at = taken.iter().position(|taken| taken.name == column.name).ok_or_else(|| {
                        Error::Invalid(format!("column {} is part of the primary key of source {name}: give it a value in every row", column.name))
                    })?;
                    of_key.push(WrittenColumn::new(name, at, column)?);
                    key_columns.push(at);
                }
                Some(key_writer(&owner, &key.format, &source.kafka.link, &of_key)?)
            }
        };
        Ok(Self { owner, columns: taken, payload, key, key_columns, time_column: None, before: 0 })
    }

    /// For rows of a sink: an object of these columns, and under these positions those of the key, whose values may be NULL.
    pub fn of_sink(sink: &str, fields: &Fields, key: Option<(&KeyFormat, &[usize])>) -> Result<Self> {
        let mut columns: Vec<ColumnDef> = vec![];
        for field in fields {
            if columns.iter().any(|column| column.name == *field.name()) {
                return Err(Error::Invalid(format!("sink {sink} would have two columns called {}: rename one, as in SELECT a AS b", field.name())));
            }
            let origin = Origin::Payload { path: vec![field.name().clone()], time: TimeFormat::Rfc3339 };
            columns.push(ColumnDef { name: field.name().clone(), data_type: field.data_type().clone(), origin });
        }
        let owner = format!("sink {sink}");
        let written = |at: usize| WrittenColumn::new(sink, at, &columns[at]);
        let link = Link::default();
        let payload = Ok(writer(&owner, &Format::Json, &link, &(0..columns.len()).map(written).collect::<Result<Vec<_>>>()?)?);
        // A key of text has no way to say NULL.
        let key_columns = key.filter(|(format, _)| **format == KeyFormat::Text).map(|(_, positions)| positions.to_vec()).unwrap_or_default();
        let of_key = |positions: &[usize]| positions.iter().map(|&at| written(at)).collect::<Result<Vec<_>>>();
        let key = key.map(|(format, positions)| key_writer(&owner, format, &link, &of_key(positions)?)).transpose()?;
        Ok(Self { owner, columns, payload, key, key_columns, time_column: None, before: 0 })
    }

    /// The same for whole rows: a record of a source with a watermark needs its time.
    pub fn of_rows(source: &SourceDef, columns: &[usize]) -> Result<Self> {
        let encoder = Self::new(source, columns)?;
        let time = source.watermark.as_ref().and_then(|watermark| source.columns.iter().find(|column| column.name == watermark.column));
        let Some(ColumnDef { name, origin: Origin::Payload { .. }, .. }) = time else { return Ok(encoder) };
        match encoder.columns.iter().position(|column| column.name == *name) {
            Some(at) => Ok(Self { time_column: Some(at), ..encoder }),
            None => Err(Error::Invalid(format!("column {name} is the watermark's of source {}: give it a value in every row", source.name))),
        }
    }

    /// A record for each row. The batch has the encoder's columns in their declared types.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<Outgoing>> {
        let records = self.records(batch, true)?;
        self.before += batch.num_rows() as u64;
        Ok(records)
    }

    /// A tombstone for each row.
    pub fn tombstones(&mut self, batch: &RecordBatch) -> Result<Vec<Outgoing>> {
        self.records(batch, false)
    }

    fn records(&self, batch: &RecordBatch, with_payload: bool) -> Result<Vec<Outgoing>> {
        let columns = batch.columns();
        (0..batch.num_rows())
            .map(|row| {
                let named = |Wrong { column, why }| {
                    Error::Invalid(format!("column {} of {} in row {}: {why}", self.columns[column].name, self.owner, self.before + row as u64 + 1))
                };
                if let Some(null) = self.key_columns.iter().find(|at| columns[**at].is_null(row)) {
                    return Err(named(Wrong { column: *null, why: "it is part of the key and can't be NULL".into() }));
                }
                if let Some(time) = self.time_column.filter(|at| columns[*at].is_null(row)) {
                    return Err(named(Wrong { column: time, why: "it is the watermark's and can't be NULL".into() }));
                }
                let key = self.key.as_ref().map(|key| key.write(columns, row)).transpose().map_err(named)?;
                let payload = match (with_payload, &self.payload) {
                    (false, _) => None,
                    (true, Ok(writer)) => Some(writer.write(columns, row).map_err(named)?),
                    (true, Err(why)) => return Err(Error::Invalid(why.clone())),
                };
                Ok(Outgoing { key, payload })
            })
            .collect()
    }
}

/// What writes these columns in a format.
fn writer(owner: &str, format: &Format, link: &Link, columns: &[WrittenColumn]) -> Result<Box<dyn RowWriter>> {
    Ok(match format {
        Format::Json => Box::new(JsonWriter::new(owner, columns)?),
        Format::Csv(_) | Format::Text | Format::Bytes => {
            return Err(Error::Internal(format!("format '{}' writes whole rows of {owner}", format.name())));
        }
        Format::DebeziumJson => {
            return Err(Error::Unsupported(format!(
                "{owner} is what Debezium tells of a table in a database: change the table there, and the records will come"
            )));
        }
        Format::Protobuf(def) => Box::new(ProtobufWriter::new(owner, def, columns)?),
        Format::Avro(def) => Box::new(AvroWriter::new(owner, def, link, columns)?),
        Format::RegistryJson => {
            let message = format!(
                "{owner} has JSON behind a registry's header, and rows have no schema of their own to register: write to one whose format is 'json' or 'avro'"
            );
            return Err(Error::Unsupported(message));
        }
    })
}

/// Whether payloads of a format have a place for a column of this path; those without a schema have one for any.
fn has_path(format: &Format, path: &[String]) -> bool {
    match format {
        Format::Avro(def) => avro::has_path(def, path),
        Format::Protobuf(def) => protobuf::has_path(def, path),
        _ => true,
    }
}

/// What writes these columns of a key.
fn key_writer(owner: &str, format: &KeyFormat, link: &Link, columns: &[WrittenColumn]) -> Result<Box<dyn RowWriter>> {
    match format {
        KeyFormat::Json => writer(owner, &Format::Json, link, columns),
        KeyFormat::Text => Ok(Box::new(TextWriter::new(&columns[0]))),
        KeyFormat::As(format) => writer(owner, format, link, columns),
    }
}

/// A column that no record can be given.
pub fn not_written(source: &str, column: &str) -> Error {
    Error::Invalid(format!("column {column} of source {source} is METADATA, which the broker gives its records: leave it out, and name the other columns"))
}
