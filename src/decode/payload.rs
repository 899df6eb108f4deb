//! What every format's reader is given and gives: the declared columns of the payload, and the rows of a run of records.

use std::fmt::Debug;

use arrow::{array::ArrayRef, datatypes::DataType};

use super::{
    BadRecord,
    csv::CsvReader,
    json::JsonReader,
    plain::{BytesReader, TextReader},
    protobuf::ProtobufReader,
};
use crate::{
    catalog::{ColumnDef, Format, Origin, TimeFormat},
    error::Result,
    source::Records,
};

/// A declared column whose values lie in the payload.
#[derive(Debug, Clone)]
pub(super) struct PayloadColumn {
    /// Its name.
    pub(super) name: String,
    /// The type that its array must have.
    pub(super) data_type: DataType,
    /// Names of fields from the top of the payload; never empty.
    pub(super) path: Vec<String>,
    /// How a timestamp is written, where the format has none of its own.
    pub(super) time: TimeFormat,
    /// Whether its rows are wanted. One that is not is judged all the same.
    pub(super) needed: bool,
}

impl PayloadColumn {
    /// The column, if its values lie in the payload.
    pub(super) fn of(declared: &ColumnDef, needed: bool) -> Option<Self> {
        let Origin::Payload { path, time } = &declared.origin else { return None };
        Some(Self { name: declared.name.clone(), data_type: declared.data_type.clone(), path: path.clone(), time: time.clone(), needed })
    }
}

/// Reads the payloads of a format other than JSON, a run of records at a time.
pub(super) trait BatchReader: Debug + Send {
    /// Reads the payloads of those records for which `wanted` is true; they have one. Never fails on data.
    fn read(&mut self, records: &Records, wanted: &dyn Fn(usize) -> bool) -> Result<ReadBatch>;
}

/// What became of a run of payloads.
#[derive(Debug)]
pub(super) struct ReadBatch {
    /// All declared columns of the payload, in order and in their declared types.
    pub(super) columns: Vec<ArrayRef>,
    /// For each row the record that it came from; rises, repeats where one record gave several rows.
    pub(super) record_of: Vec<u32>,
    /// The bad records, in order, one entry each; none of them has a row.
    pub(super) errors: Vec<BadRecord>,
}

/// What reads payloads. JSON, which is most of what streams carry, is read into the columns a record at a time.
#[derive(Debug)]
pub(super) enum Payloads {
    /// JSON.
    Json(Box<JsonReader>),
    /// All other formats.
    Batch(Box<dyn BatchReader>),
}

impl Payloads {
    /// What reads these columns of a format.
    pub(super) fn new(format: &Format, columns: &[PayloadColumn]) -> Result<Self> {
        Ok(match format {
            Format::Json => Payloads::Json(Box::new(JsonReader::new(columns, false)?)),
            Format::RegistryJson => Payloads::Json(Box::new(JsonReader::new(columns, true)?)),
            Format::DebeziumJson => Payloads::Json(Box::new(JsonReader::new(columns, false)?)),
            Format::Csv(csv) => Payloads::Batch(Box::new(CsvReader::new(csv, columns)?)),
            Format::Text => Payloads::Batch(Box::new(TextReader::new(columns)?)),
            Format::Bytes => Payloads::Batch(Box::new(BytesReader::new(columns)?)),
            Format::Protobuf(protobuf) => Payloads::Batch(Box::new(ProtobufReader::new(protobuf, columns)?)),
            Format::Avro(_) => return Err(crate::Error::Unsupported("Avro can't be read yet".into())),
        })
    }
}
