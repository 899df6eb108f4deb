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
mod time;
mod values;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, UInt32Array},
    compute::take,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    datatypes::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
    record_batch::{RecordBatch, RecordBatchOptions},
};

pub use self::{
    drift::{Drift, DriftKind, Drifted, DriftedField, FieldPath, MOST_FIELDS, Retyped},
    infer::{Sampled, can_be_sampled, columns_of_json_schema, columns_of_sample},
};
use self::{
    event_time::EventTime,
    json::JsonReader,
    key::{KeyReader, Keys},
    metadata::MetadataColumn,
    payload::{BatchReader, PayloadColumn, Payloads, ReadBatch, known_fields},
    prepare::Prepare,
};
use crate::{
    catalog::{ColumnDef, Format, Origin, SourceDef},
    error::{Error, Result},
    source::{Record, Records},
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
}

/// What a source declares of a record beside its payload and key.
#[derive(Debug)]
struct Around {
    /// All declared metadata columns.
    metadata: Vec<MetadataColumn>,
    /// What the watermark demands, if there is one.
    event_time: Option<EventTime>,
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
        Ok(Self {
            schema: Arc::new(Schema::new(needed.iter().map(field).collect::<Vec<_>>())),
            output,
            payload: Payloads::new(&source.format, &source.kafka.link, &payload, Some(&known_fields(source)))?,
            key: source.key.as_ref().map(|key| KeyReader::new(source, key)).transpose()?,
            around: Around { metadata, event_time: EventTime::new(source)? },
            prepare: Prepare::of(source)?,
        })
    }

    /// Decodes the records of `partition`. Never fails on data: what can't be read is in `errors`. `now_ms` is the epoch's
    /// logged time, by which the event time of records without a Kafka timestamp is judged.
    pub fn decode(&mut self, partition: i32, records: &Records, now_ms: i64) -> Result<Decoded> {
        let Some(prepare) = &mut self.prepare else { return self.decode_prepared(partition, records, now_ms) };
        let prepared = prepare.apply(records);
        let mut decoded = self.decode_prepared(partition, &prepared.records, now_ms)?;
        decoded.record_of.iter_mut().for_each(|record| *record = prepared.of[*record as usize]);
        decoded.errors.iter_mut().for_each(|bad| bad.record = prepared.of[bad.record as usize]);
        if !prepared.errors.is_empty() {
            decoded.errors.extend(prepared.errors);
            decoded.errors.sort_by_key(|bad| bad.record);
        }
        Ok(decoded)
    }

    fn decode_prepared(&mut self, partition: i32, records: &Records, now_ms: i64) -> Result<Decoded> {
        let keys = self.key.as_mut().map(|key| key.read(records)).transpose()?;
        let run = Run { records, keys: keys.as_ref(), around: &self.around, now_ms };
        let mut rows = Rows::default();
        let mut errors = Vec::new();
        let mut drift;
        let payload: Vec<Result<ArrayRef>> = match &mut self.payload {
            Payloads::Json(reader) => {
                run.read_json(reader, &mut rows, &mut errors);
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

/// A run of records that is being decoded.
struct Run<'a> {
    records: &'a Records,
    keys: Option<&'a Keys>,
    around: &'a Around,
    now_ms: i64,
}

impl Run<'_> {
    /// Reads JSON, a record at a time: the rows stand in the reader's columns then.
    fn read_json(&self, reader: &mut JsonReader, rows: &mut Rows, errors: &mut Vec<BadRecord>) {
        reader.reserve(self.records.len());
        for (index, record) in (0u32..).zip(self.records.iter()) {
            let before = rows.record_of.len();
            if let Err(reason) = self.read_json_record(reader, index, &record, rows) {
                rows.truncate(before);
                reader.truncate(before);
                errors.push(reason.of(index));
            }
            reader.forget_unneeded();
        }
    }

    /// Appends a record's rows; `Err` is the reason why it is bad.
    fn read_json_record(&self, reader: &mut JsonReader, at: u32, record: &Record<'_>, rows: &mut Rows) -> Result<(), Reason> {
        let key = self.keys.map(|keys| keys.of[at as usize].clone()).transpose()?;
        let (Some(bytes), Some((base, _))) = (record.value, record.value_at) else {
            let key = key.ok_or("the payload is NULL")?;
            reader.put_nulls();
            self.push_gone(at, key, rows);
            return Ok(());
        };
        let before = rows.record_of.len();
        reader.read(bytes, base, |reader| self.push_row(at, record, |column| reader.last_timestamp(column), rows))?;
        Ok(self.finish_record(key, rows.record_of.len() - before, rows)?)
    }

    /// Reads all payloads with a reader of batches: what it read, and for each row that is kept which of its rows that is.
    fn read_batch(&self, reader: &mut dyn BatchReader, rows: &mut Rows, errors: &mut Vec<BadRecord>) -> Result<(ReadBatch, Vec<Option<u32>>)> {
        let has_key = |index: usize| self.keys.is_none_or(|keys| keys.of[index].is_ok());
        let mut read = reader.read(self.records, &|index| self.records.get(index).value.is_some() && has_key(index))?;
        let mut bad = std::mem::take(&mut read.errors).into_iter().peekable();
        let mut taken = Vec::with_capacity(read.record_of.len());
        let mut row = 0;
        for (index, record) in (0u32..).zip(self.records.iter()) {
            let (before, first) = (rows.record_of.len(), row);
            while read.record_of.get(row) == Some(&index) {
                row += 1;
            }
            let judged = match bad.next_if(|bad| bad.record == index) {
                Some(bad) => Err(Reason { text: bad.reason, retyped: bad.retyped }),
                None => self.judge_rows(&read, index, &record, first..row, rows),
            };
            match judged {
                Ok(true) => taken.push(None),
                Ok(false) => taken.extend((first..row).map(|row| Some(row as u32))),
                Err(reason) => {
                    rows.truncate(before);
                    errors.push(reason.of(index));
                }
            }
        }
        Ok((read, taken))
    }

    /// Judges the rows that a record gave; whether it says instead that its key's row is gone.
    fn judge_rows(&self, read: &ReadBatch, at: u32, record: &Record<'_>, range: std::ops::Range<usize>, rows: &mut Rows) -> Result<bool, Reason> {
        let key = self.keys.map(|keys| keys.of[at as usize].clone()).transpose()?;
        if record.value.is_none() {
            self.push_gone(at, key.ok_or("the payload is NULL")?, rows);
            return Ok(true);
        }
        for row in range.clone() {
            self.push_row(at, record, |column| timestamp_at(&read.columns[column], row), rows)?;
        }
        self.finish_record(key, range.len(), rows)?;
        Ok(false)
    }

    /// Judges a row of the payload by what lies around it, and counts it. `payload` gives its value in a timestamp column.
    fn push_row(&self, at: u32, record: &Record<'_>, payload: impl FnOnce(usize) -> Option<i64>, rows: &mut Rows) -> Result<(), String> {
        if let Some(reason) = self.around.metadata.iter().find_map(|column| column.misfit(record)) {
            return Err(reason);
        }
        if let Some(event_time) = &self.around.event_time {
            rows.event_time.push(event_time.of_row(payload, record, self.now_ms)?);
        }
        rows.record_of.push(at);
        Ok(())
    }

    /// Counts a row that says that its key's row is gone.
    fn push_gone(&self, at: u32, key: u32, rows: &mut Rows) {
        if self.around.event_time.is_some() {
            rows.event_time.push(i64::MIN);
        }
        rows.record_of.push(at);
        rows.gone.push(true);
        rows.key_of.push(key);
    }

    /// Where there is a primary key, a record is one row, of its key.
    fn finish_record(&self, key: Option<u32>, count: usize, rows: &mut Rows) -> Result<(), String> {
        let Some(key) = key else { return Ok(()) };
        if count != 1 {
            return Err(format!("the payload holds {count} objects, and a record of a source with PRIMARY KEY is one row: send one object"));
        }
        rows.gone.push(false);
        rows.key_of.push(key);
        Ok(())
    }
}

/// The rows so far, beside their columns.
#[derive(Debug, Default)]
struct Rows {
    record_of: Vec<u32>,
    event_time: Vec<i64>,
    /// Where there is a primary key: whether the row is gone,
    gone: Vec<bool>,
    /// and the row of [`Keys`].
    key_of: Vec<u32>,
}

impl Rows {
    fn truncate(&mut self, len: usize) {
        self.record_of.truncate(len);
        self.event_time.truncate(len);
        self.gone.truncate(len);
        self.key_of.truncate(len);
    }
}

/// The value of a timestamp column in its unit.
fn timestamp_at(column: &ArrayRef, row: usize) -> Option<i64> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => Some(column.as_primitive::<TimestampSecondType>().value(row)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Some(column.as_primitive::<TimestampMillisecondType>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Some(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(column.as_primitive::<TimestampNanosecondType>().value(row)),
        _ => None,
    }
}
