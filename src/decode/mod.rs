//! Payload bytes to Arrow columns, for just the columns that are needed. One bad record costs one error row.
//!
//! A record's fate depends only on the source's declaration: every declared column is parsed and judged for every record. Of JSON only the
//! needed ones are materialised.
//!
//! There is one folder or file a format. `json` reads a record at a time into columns that grow; the others read a run of records at a time
//! (`payload::BatchReader`): CSV and text by way of JSON, so that a value means the same, Avro into the columns of `values`, Protobuf into
//! columns of its own. What lies around the payload is the same for all and is here: metadata, event time, and primary keys.
//!
//! The columns of a source that declares none are told by its format's schema, or by a sample of the topic (`infer`).
//!
//! Where the source has a `PRIMARY KEY`, its columns are read from the record's key (`key`), a payload is one row, and a record
//! without a payload gives a row that says that the key's row is gone.

mod avro;
mod cell;
mod csv;
mod debezium;
mod device;
mod drift;
mod event_time;
mod infer;
mod json;
mod key;
mod metadata;
mod nulls;
mod number;
mod payload;
mod plain;
mod prepare;
mod protobuf;
mod quote;
mod run;
mod time;
mod values;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, UInt32Array},
    compute::take,
    datatypes::{Field, Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};

pub use self::{
    device::{Landed, OnDevice},
    drift::{Drift, DriftKind, Drifted, DriftedField, FieldPath, MOST_FIELDS, Retyped},
    infer::{Sampled, can_be_sampled, columns_of_json_schema, columns_of_sample},
};
use self::{
    event_time::EventTime,
    json::{DeviceColumn, DeviceRows, device_column},
    key::{KeyReader, Keys},
    metadata::MetadataColumn,
    payload::{PayloadColumn, Payloads, known_fields},
    prepare::Prepare,
    run::{Around, Rows, Run},
};
use crate::{
    catalog::{ColumnDef, Format, Origin, SourceDef},
    error::{Error, Result},
    source::Records,
};

/// Turns the records of one source into columns.
#[derive(Debug)]
pub struct Decoder {
    /// The needed columns.
    schema: SchemaRef,
    /// For each needed column where it comes from.
    output: Vec<Output>,
    /// What reads the payload's columns.
    payload: Payloads,
    /// What reads the primary key, if there is one.
    key: Option<KeyReader>,
    /// What lies around the payload.
    around: Around,
    /// What is done with records first, if anything is.
    prepare: Option<Prepare>,
    /// The payload's columns as a device can read them; `Err`: why it can't, as a clause.
    on_device: Result<Vec<DeviceColumn>, String>,
}

/// Where a needed column comes from: a position among those of its kind.
#[derive(Debug)]
enum Output {
    Key(usize),
    Payload(usize),
    Metadata(usize),
}

/// What became of a run of records.
#[derive(Debug)]
pub struct Decoded {
    /// The good rows: the needed columns, in declaration order, named and typed as declared.
    pub batch: RecordBatch,
    /// For each row of `batch` the index (into the records) of the record it came from; rises, repeats where one record gave several rows.
    pub record_of: Vec<u32>,
    /// Event time of each row of `batch` in nanoseconds since 1970 (judged from the watermark column even if it isn't needed); empty if the source declares no watermark.
    /// A row that is gone has none: what stands in its place means nothing.
    pub event_time: Vec<i64>,
    /// For each row of `batch` whether it says that its key's row is gone; empty if the source has no primary key. Such a row has its key and metadata alone.
    pub gone: Vec<bool>,
    /// The bad records, in order.
    pub errors: Vec<BadRecord>,
    /// How the records differ from the declaration.
    pub drift: Drift,
}

/// A record that can't be read as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Which record, as an index into the records.
    pub record: u32,
    /// Why, as a sentence without a full stop.
    pub reason: String,
    /// The field that is none of its declared type, if that is why.
    pub retyped: Option<Box<Retyped>>,
}

/// Why a record is bad.
#[derive(Debug, Clone)]
struct Reason {
    /// A sentence without a full stop.
    text: String,
    /// The field that is none of its declared type, if that is why.
    retyped: Option<Box<Retyped>>,
}

impl Reason {
    /// The record that is bad for this reason.
    fn of(self, record: u32) -> BadRecord {
        BadRecord { record, reason: self.text, retyped: self.retyped }
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self { text, retyped: None }
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        text.to_string().into()
    }
}

/// The name of the vector instructions that JSON is read with on this processor.
pub fn instructions() -> &'static str {
    json::instructions()
}

/// The columns that a format's schema tells, for a source that declares none; `None`: it has no schema.
pub fn columns_of(format: &Format) -> Result<Option<Vec<ColumnDef>>> {
    match format {
        Format::Avro(def) => avro::columns(def).map(Some),
        Format::Protobuf(def) => protobuf::columns(def).map(Some),
        _ => Ok(None),
    }
}

impl Decoded {
    /// The greatest event time of rows that have one.
    pub fn latest_event_time(&self) -> Option<i64> {
        let is_gone = |row: usize| self.gone.get(row).copied().unwrap_or_default();
        self.event_time.iter().enumerate().filter(|(row, _)| !is_gone(*row)).map(|(_, time)| *time).max()
    }
}

impl Decoder {
    /// Compiles a source's declaration. `needed` are positions in `source.columns`, rising.
    pub fn new(source: &SourceDef, needed: &[usize]) -> Result<Self> {
        let rising = needed.is_sorted_by(|a, b| a < b) && needed.last().is_none_or(|&last| last < source.columns.len());
        if !rising {
            return Err(Error::Internal(format!("needed columns {needed:?} of source {}", source.name)));
        }
        let (mut payload, mut metadata, mut output) = (Vec::new(), Vec::new(), Vec::new());
        let in_key = |position: usize| source.key.as_ref().and_then(|key| key.columns.iter().position(|&column| column == position));
        for (position, declared) in source.columns.iter().enumerate() {
            let needed = needed.binary_search(&position).is_ok();
            let place = match (in_key(position), &declared.origin) {
                (Some(at), _) => Output::Key(at),
                (None, Origin::Payload { .. }) => {
                    payload.extend(PayloadColumn::of(declared, needed));
                    Output::Payload(payload.len() - 1)
                }
                (None, Origin::Unknown) => {
                    payload.push(PayloadColumn::unknown(source, declared, needed));
                    Output::Payload(payload.len() - 1)
                }
                (None, Origin::Metadata(_) | Origin::Header(_)) => {
                    metadata.push(MetadataColumn::new(declared)?);
                    Output::Metadata(metadata.len() - 1)
                }
            };
            if needed {
                output.push(place);
            }
        }
        let field = |&position: &usize| Field::new(&source.columns[position].name, source.columns[position].data_type.clone(), true);
        let event_time = EventTime::new(source)?;
        let on_device = match (&source.format, &source.header_filter) {
            (Format::Json, None) => {
                let mut columns: Result<Vec<DeviceColumn>, String> = payload.iter().map(device_column).collect();
                // Its values are asked for, whoever needs them.
                if let (Ok(columns), Some(column)) = (&mut columns, event_time.as_ref().and_then(EventTime::payload_column)) {
                    columns[column].needed = true;
                }
                columns.and_then(|columns| device::check_paths(&columns).map(|()| columns))
            }
            (Format::Json, Some(_)) => Err("the source has a filter on headers".into()),
            (other, _) => Err(format!("its format is '{}'", other.name())),
        };
        Ok(Self {
            on_device,
            schema: Arc::new(Schema::new(needed.iter().map(field).collect::<Vec<_>>())),
            output,
            payload: Payloads::new(&source.format, &source.kafka.link, &payload, Some(&known_fields(source)))?,
            key: source.key.as_ref().map(|key| KeyReader::new(source, key)).transpose()?,
            around: Around { metadata, event_time },
            prepare: Prepare::of(source)?,
        })
    }

    /// Decodes the records of `partition`. Never fails on data: what can't be read is in `errors`. `now_ms` is the epoch's
    /// logged time, by which the event time of records without a Kafka timestamp is judged.
    pub fn decode(&mut self, partition: i32, records: &Records, now_ms: i64) -> Result<Decoded> {
        let Some(prepare) = &mut self.prepare else { return self.decode_prepared(None, partition, records, now_ms) };
        let prepared = prepare.apply(records);
        let mut decoded = self.decode_prepared(None, partition, &prepared.records, now_ms)?;
        decoded.record_of.iter_mut().for_each(|record| *record = prepared.of[*record as usize]);
        decoded.errors.iter_mut().for_each(|bad| bad.record = prepared.of[bad.record as usize]);
        if !prepared.errors.is_empty() {
            decoded.errors.extend(prepared.errors);
            decoded.errors.sort_by_key(|bad| bad.record);
        }
        Ok(decoded)
    }

    fn decode_prepared(&mut self, device: Option<&DeviceRows<'_>>, partition: i32, records: &Records, now_ms: i64) -> Result<Decoded> {
        let keys = self.key.as_mut().map(|key| key.read(records)).transpose()?;
        let run = Run { records, keys: keys.as_ref(), around: &self.around, now_ms };
        let mut rows = Rows::default();
        let mut errors = Vec::new();
        let mut drift;
        let payload: Vec<Result<ArrayRef>> = match &mut self.payload {
            Payloads::Json(reader) => {
                match device {
                    Some(device) => run.read_json_from(device, reader, &mut rows, &mut errors),
                    None => run.read_json(reader, &mut rows, &mut errors),
                }
                drift = reader.take_drift();
                let finish = |place: &Output| match place {
                    Output::Payload(at) => Some(reader.finish(*at, records.bytes())),
                    _ => None,
                };
                // All columns are emptied, also if one fails, so that the next call begins afresh.
                self.output.iter().filter_map(finish).collect()
            }
            Payloads::Batch(reader) => {
                let (mut read, taken) = run.read_batch(reader.as_mut(), &mut rows, &mut errors)?;
                drift = std::mem::take(&mut read.drift);
                let needed = self.output.iter().filter_map(|place| if let Output::Payload(at) = place { Some(*at) } else { None });
                // Where nothing was left out, the columns are what they are.
                match taken.len() == read.record_of.len() && (0u32..).zip(&taken).all(|(at, row)| *row == Some(at)) {
                    true => needed.map(|at| Ok(read.columns[at].clone())).collect(),
                    false => {
                        let taken = UInt32Array::from(taken);
                        needed.map(|at| Ok(take(&read.columns[at], &taken, None)?)).collect()
                    }
                }
            }
        };
        let batch = self.finish(partition, records, payload.into_iter().collect::<Result<_>>()?, keys.as_ref(), &rows)?;
        for Retyped { path, example } in errors.iter().filter_map(|bad| bad.retyped.as_deref()) {
            drift.retyped.records += 1;
            drift.retyped.add(path.clone(), 1, example.clone());
        }
        Ok(Decoded { batch, record_of: rows.record_of, event_time: rows.event_time, gone: rows.gone, errors, drift })
    }

    /// Puts the needed columns together; `payload` are those of the payload, in order.
    fn finish(&self, partition: i32, records: &Records, payload: Vec<ArrayRef>, keys: Option<&Keys>, rows: &Rows) -> Result<RecordBatch> {
        let key_columns = keys.map(|keys| keys.columns(&rows.key_of)).transpose()?;
        let mut payload = payload.into_iter();
        let mut column = |place: &Output| -> Result<ArrayRef> {
            match place {
                Output::Key(at) => match &key_columns {
                    Some(columns) => Ok(columns[*at].clone()),
                    None => Err(Error::Internal("the key of some records was not read".into())),
                },
                Output::Payload(_) => payload.next().ok_or_else(|| Error::Internal("a column of the payload was not read".into())),
                Output::Metadata(at) => self.around.metadata[*at].build(partition, records, &rows.record_of),
            }
        };
        let columns = self.output.iter().map(&mut column).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.record_of.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}
