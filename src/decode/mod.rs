//! Payload bytes to Arrow columns, for just the columns that are needed. One bad record costs one error row.
//!
//! A record's fate depends only on the source's declaration: every declared column is parsed and judged for every record,
//! and only the needed ones are materialised. The declaration says what is read:
//!
//! * the objects on declared paths, key by key, and the declared values in them, to the whole of JSON's grammar;
//! * of all else the structure: UTF-8 is valid, strings are closed, brackets balance and match, no backslash stands outside
//!   strings, nesting stays within 128, nothing follows the end. A value that a later equal key replaces counts as such.
//!
//! A payload is one object, objects with white space between them, or one array of objects; each object is a row. If one
//! of a payload's objects is bad, so is the record: it gives no rows and one error. An empty array gives no rows and no error.
//!
//! Where the source has a `PRIMARY KEY`, its columns are read from the record's key (`key`), a payload is one object, and a record
//! without a payload gives a row that says that the key's row is gone.
//!
//! How a record is read: `scan` marks its strings and brackets, `path` walks the marks to where the declared values
//! are (guided by `order`), `column` judges and appends them. A record that turns out bad on the way is cut off all columns again.

mod cells;
mod column;
mod event_time;
mod fault;
mod key;
mod metadata;
mod nested;
mod nulls;
mod number;
mod order;
mod path;
mod scan;
mod text;
mod time;
mod value;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::{
    array::ArrayRef,
    datatypes::{Field, Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};

use self::{
    column::{Column, append, new_column},
    event_time::EventTime,
    fault::{Judged, malformed},
    key::{KeyReader, Keys},
    metadata::MetadataColumn,
    path::{Paths, Rest, Slot},
    scan::Index,
    value::Payload,
};
use crate::{
    catalog::{Origin, SourceDef},
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
    /// The paths of all declared payload columns.
    paths: Paths,
    /// All declared payload columns.
    payload: Vec<PayloadColumn>,
    /// All declared metadata columns.
    metadata: Vec<MetadataColumn>,
    /// What reads the primary key, if there is one.
    key: Option<KeyReader>,
    /// What the watermark demands, if there is one.
    event_time: Option<EventTime>,
    /// The marks of the record at hand.
    index: Index,
    /// Where the values of the row at hand are.
    slots: Vec<Slot>,
}

/// A declared column whose values lie in the payload.
#[derive(Debug)]
struct PayloadColumn {
    name: String,
    /// Its path's node.
    node: usize,
    column: Box<dyn Column>,
    /// Whether its rows are kept for the batch.
    needed: bool,
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
}

/// A record that can't be read as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Which record, as an index into the records.
    pub record: u32,
    /// Why, as a sentence without a full stop.
    pub reason: String,
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
        let (mut payload, mut paths, mut metadata, mut output) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let in_key = |position: usize| source.key.as_ref().and_then(|key| key.columns.iter().position(|&column| column == position));
        for (position, declared) in source.columns.iter().enumerate() {
            if let Some(at) = in_key(position) {
                if needed.binary_search(&position).is_ok() {
                    output.push(Output::Key(at));
                }
                continue;
            }
            let needed = needed.binary_search(&position).is_ok();
            let name = &declared.name;
            let place = match &declared.origin {
                Origin::Payload { path, time } => {
                    let column = new_column(name, &declared.data_type, time)?;
                    paths.push(path.as_slice());
                    payload.push(PayloadColumn { name: name.clone(), node: 0, column, needed });
                    Output::Payload(payload.len() - 1)
                }
                Origin::Metadata(origin) => {
                    metadata.push(MetadataColumn::new(name, *origin, &declared.data_type)?);
                    Output::Metadata(metadata.len() - 1)
                }
            };
            if needed {
                output.push(place);
            }
        }
        let (paths, nodes) = Paths::compile(&paths)?;
        payload.iter_mut().zip(nodes).for_each(|(column, node)| column.node = node);
        let field = |&position: &usize| Field::new(&source.columns[position].name, source.columns[position].data_type.clone(), true);
        Ok(Self {
            schema: Arc::new(Schema::new(needed.iter().map(field).collect::<Vec<_>>())),
            output,
            slots: vec![Slot::EMPTY; paths.len()],
            paths,
            payload,
            metadata,
            key: source.key.as_ref().map(|key| KeyReader::new(source, key)).transpose()?,
            event_time: EventTime::new(source)?,
            index: Index::default(),
        })
    }

    /// Decodes the records of `partition`. Never fails on data: what can't be read is in `errors`. `now_ms` is the epoch's
    /// logged time, by which the event time of records without a Kafka timestamp is judged.
    pub fn decode(&mut self, partition: i32, records: &Records, now_ms: i64) -> Result<Decoded> {
        let mut rows = Rows::default();
        let mut errors = Vec::new();
        let keys = self.key.as_mut().map(|key| key.read(records)).transpose()?;
        self.payload.iter_mut().filter(|column| column.needed).for_each(|column| column.column.reserve(records.len()));
        for (index, record) in (0u32..).zip(records.iter()) {
            let before = rows.record_of.len();
            let read = match &keys {
                None => self.read_record(index, &record, now_ms, &mut rows),
                Some(keys) => self.read_keyed(index, &record, keys, now_ms, &mut rows),
            };
            if let Err(reason) = read {
                rows.truncate(before);
                self.payload.iter_mut().filter(|column| column.needed).for_each(|column| column.column.truncate(before));
                errors.push(BadRecord { record: index, reason });
            }
            self.payload.iter_mut().filter(|column| !column.needed).for_each(|column| column.column.truncate(0));
        }
        let batch = self.finish(partition, records, keys, &rows)?;
        Ok(Decoded { batch, record_of: rows.record_of, event_time: rows.event_time, gone: rows.gone, errors })
    }

    fn finish(&mut self, partition: i32, records: &Records, keys: Option<Keys>, rows: &Rows) -> Result<RecordBatch> {
        let key_columns = keys.map(|keys| keys.columns(&rows.key_of));
        let mut column = |place: &Output| -> Result<ArrayRef> {
            match place {
                Output::Key(at) => match &key_columns {
                    Some(Ok(columns)) => Ok(columns[*at].clone()),
                    Some(Err(error)) => Err(Error::Internal(error.to_string())),
                    None => Err(Error::Internal("the key of some records was not read".into())),
                },
                Output::Payload(at) => self.payload[*at].column.finish(records.bytes()),
                Output::Metadata(at) => self.metadata[*at].build(partition, records, &rows.record_of),
            }
        };
        // All columns are emptied, also if one fails, so that the next call begins afresh.
        let columns: Vec<Result<ArrayRef>> = self.output.iter().map(&mut column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.record_of.len()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns.into_iter().collect::<Result<_>>()?, &options)?)
    }

    /// Appends a record's rows; `Err` is the reason why it is bad.
    fn read_record(&mut self, at: u32, record: &Record<'_>, now_ms: i64, rows: &mut Rows) -> Result<(), String> {
        let (Some(bytes), Some((base, _))) = (record.value, record.value_at) else {
            return Err("the payload is NULL".into());
        };
        // Taken out for the while, so that the payload can refer to it while columns change.
        let mut index = std::mem::take(&mut self.index);
        index.mark(bytes);
        let payload = Payload { bytes, index: &index, base: base as u32 };
        let result = check_whole(&payload).and_then(|()| {
            // From here on a fault may concern a column.
            let mut column = None;
            let read = self.read_rows(&payload, &mut column, |decoder| decoder.finish_row(at, record, now_ms, rows));
            read.map_err(|stop| match stop {
                Stop::Fault(fault) => fault.reason(bytes, column.map(|column: usize| self.payload[column].name.as_str())),
                Stop::Reason(reason) => reason,
            })
        });
        self.index = index;
        result
    }

    /// Appends the row of a record that has a key, or that its key's row is gone.
    fn read_keyed(&mut self, at: u32, record: &Record<'_>, keys: &Keys, now_ms: i64, rows: &mut Rows) -> Result<(), String> {
        let key = keys.of[at as usize].clone()?;
        let before = rows.record_of.len();
        if record.value.is_none() {
            self.payload.iter_mut().for_each(|column| column.column.put_null());
            if self.event_time.is_some() {
                rows.event_time.push(i64::MIN);
            }
            rows.record_of.push(at);
        } else {
            self.read_record(at, record, now_ms, rows)?;
            let count = rows.record_of.len() - before;
            if count != 1 {
                return Err(format!("the payload holds {count} objects, and a record of a source with PRIMARY KEY is one row: send one object"));
            }
        }
        rows.gone.push(record.value.is_none());
        rows.key_of.push(key);
        Ok(())
    }

    /// Reads each object of a payload as a row. `judged` is the column at hand when a fault comes up.
    fn read_rows(
        &mut self,
        payload: &Payload<'_>,
        judged: &mut Option<usize>,
        mut finish_row: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), Stop> {
        let length = payload.bytes.len();
        let mut pos = payload.blank(0);
        if payload.at(pos) != b'[' {
            loop {
                let end = self.read_row(payload, pos, 1, judged)?;
                finish_row(self)?;
                pos = payload.blank(end);
                if pos == length {
                    return Ok(());
                }
                if pos == end {
                    malformed(pos, "an object has something after it")?;
                }
            }
        }
        pos = payload.blank(pos + 1);
        if payload.at(pos) != b']' {
            loop {
                let end = self.read_row(payload, pos, 2, judged)?;
                finish_row(self)?;
                pos = payload.blank(end);
                match payload.at(pos) {
                    b',' => pos = payload.blank(pos + 1),
                    b']' => break,
                    _ => malformed(pos, "a comma or a closing bracket is missing")?,
                }
            }
        }
        pos = payload.blank(pos + 1);
        if pos != length {
            malformed(pos, "the array has something after it")?;
        }
        Ok(())
    }

    /// Appends the object at `open` to the payload columns: where it ends.
    fn read_row(&mut self, payload: &Payload<'_>, open: usize, depth: usize, judged: &mut Option<usize>) -> Judged<usize> {
        *judged = None;
        if payload.at(open) != b'{' {
            return malformed(open, "an object is expected");
        }
        self.slots.fill(Slot::EMPTY);
        let end = self.paths.walk(payload, open, depth, Rest::Skipped, &mut self.slots)?;
        for (position, column) in self.payload.iter_mut().enumerate() {
            *judged = Some(position);
            append(column.column.as_mut(), *payload, self.slots[column.node])?;
        }
        *judged = None;
        Ok(end)
    }

    /// Judges the row just appended by what lies around the payload, and counts it.
    fn finish_row(&mut self, at: u32, record: &Record<'_>, now_ms: i64, rows: &mut Rows) -> Result<(), String> {
        if let Some(reason) = self.metadata.iter().find_map(|column| column.misfit(record)) {
            return Err(reason);
        }
        if let Some(event_time) = &self.event_time {
            rows.event_time.push(event_time.of_row(|column| self.payload[column].column.as_ref(), record, now_ms)?);
        }
        rows.record_of.push(at);
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

/// Why reading a payload stopped.
enum Stop {
    /// At something in the payload.
    Fault(Box<fault::Fault>),
    /// At something around it; the sentence is ready.
    Reason(String),
}

impl From<Box<fault::Fault>> for Stop {
    fn from(fault: Box<fault::Fault>) -> Self {
        Stop::Fault(fault)
    }
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Stop::Reason(reason)
    }
}

/// What can be told of a payload from its marks alone.
fn check_whole(payload: &Payload<'_>) -> Result<(), String> {
    if payload.blank(0) == payload.bytes.len() {
        return Err("the payload is empty".into());
    }
    // ASCII needs no check. What doesn't pass the fast one is looked at again for the place.
    if payload.index.high
        && simdutf8::basic::from_utf8(payload.bytes).is_err()
        && let Err(error) = simdutf8::compat::from_utf8(payload.bytes)
    {
        return Err(format!("the payload is not valid UTF-8 at byte {}", error.valid_up_to()));
    }
    if payload.index.open_string {
        return Err("malformed JSON: a string is not closed".into());
    }
    if payload.index.stray_backslash {
        return Err("malformed JSON: a backslash stands outside strings".into());
    }
    Ok(())
}
