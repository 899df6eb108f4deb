//! What every format's reader is given and gives: the declared columns of the payload, and the rows of a run of records.

use std::fmt::Debug;

use arrow::{array::ArrayRef, datatypes::DataType};

use super::{
    BadRecord,
    avro::AvroReader,
    csv::CsvReader,
    drift::Drift,
    json::JsonReader,
    plain::{BytesReader, TextReader},
    protobuf::ProtobufReader,
};
use crate::{
    catalog::{ColumnDef, Format, Link, Origin, SourceDef, TimeFormat},
    error::{Error, Result},
    source::Records,
};

/// A declared column whose values lie in the payload.
#[derive(Debug, Clone)]
pub(super) struct PayloadColumn {
    /// Its name.
    pub(super) name: String,
    /// The type that its array must have.
    pub(super) data_type: DataType,
    /// Names of fields from the top of the payload; empty for the column of all that no other column names.
    pub(super) path: Vec<String>,
    /// For that column: the fields at the top of the payload that it leaves out.
    pub(super) known: Vec<String>,
    /// How a timestamp is written, where the format has none of its own.
    pub(super) time: TimeFormat,
    /// Whether its rows are wanted. One that is not is judged all the same.
    pub(super) needed: bool,
}

/// How deep the types nest that a schema tells; what lies deeper is TEXT, as JSON.
pub(super) const DEEPEST: usize = 8;
/// How many parts they have at most, of all columns: types that name one another have soon more than there is memory for.
pub(super) const MOST_PARTS: usize = 10_000;

/// The schema of this type has more.
pub(super) fn too_many_parts(of: &str) -> Error {
    Error::Invalid(format!("{of}, with all that is in it, has more than {MOST_PARTS} parts: declare the columns that you need"))
}

impl PayloadColumn {
    /// The column, if its values lie in the payload.
    pub(super) fn of(declared: &ColumnDef, needed: bool) -> Option<Self> {
        let Origin::Payload { path, time } = &declared.origin else { return None };
        Some(Self { name: declared.name.clone(), data_type: declared.data_type.clone(), path: path.clone(), known: vec![], time: time.clone(), needed })
    }

    /// The column of what the payload has beside the fields that the source's columns name.
    pub(super) fn unknown(source: &SourceDef, declared: &ColumnDef, needed: bool) -> Self {
        let known = known_fields(source);
        let (name, data_type) = (declared.name.clone(), declared.data_type.clone());
        Self { name, data_type, path: vec![], known, time: TimeFormat::default(), needed }
    }
}

/// The fields at the top of the payload that a source's columns name, those of its primary key among them.
pub(super) fn known_fields(source: &SourceDef) -> Vec<String> {
    let first = |column: &ColumnDef| if let Origin::Payload { path, .. } = &column.origin { path.first().cloned() } else { None };
    source.columns.iter().filter_map(first).collect()
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
    /// What payloads have beside the declared fields, and lack of them.
    pub(super) drift: Drift,
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
    /// What reads these columns of a format; `link` knows where its registry is. `known` are the fields at the top that the declaration knows,
    /// where it matters which are new.
    pub(super) fn new(format: &Format, link: &Link, columns: &[PayloadColumn], known: Option<&[String]>) -> Result<Self> {
        let json = matches!(format, Format::Json | Format::RegistryJson | Format::DebeziumJson);
        if let (Some(unknown), false) = (columns.iter().find(|column| column.path.is_empty()), json) {
            return Err(Error::Unsupported(format!(
                "column {} is METADATA FROM 'unknown', which format '{}' can't tell: leave it out",
                unknown.name,
                format.name()
            )));
        }
        Ok(match format {
            // An envelope is opened before this.
            Format::Json | Format::DebeziumJson => Payloads::Json(Box::new(JsonReader::new(columns, false, known)?)),
            Format::RegistryJson => Payloads::Json(Box::new(JsonReader::new(columns, true, known)?)),
            Format::Csv(csv) => Payloads::Batch(Box::new(CsvReader::new(csv, columns)?)),
            Format::Text => Payloads::Batch(Box::new(TextReader::new(columns)?)),
            Format::Bytes => Payloads::Batch(Box::new(BytesReader::new(columns)?)),
            Format::Protobuf(protobuf) => Payloads::Batch(Box::new(ProtobufReader::new(protobuf, columns)?)),
            Format::Avro(def) => Payloads::Batch(Box::new(AvroReader::new(def, link, columns)?)),
        })
    }
}
