//! The keys of records, where they name rows (`PRIMARY KEY`).

use arrow::{array::ArrayRef, compute::take_arrays, datatypes::DataType, record_batch::RecordBatch};

use super::{
    Decoder,
    column::append,
    fault::{Judged, malformed, shorten},
    path::Slot,
    value::{Payload, Value},
};
use crate::{
    catalog::{KeyDef, KeyFormat, Origin, SourceDef, TimeFormat},
    error::Result,
    source::{Records, RecordsBuilder},
};

/// Reads the columns of a primary key.
#[derive(Debug)]
pub(super) struct KeyReader {
    /// Of the key's columns alone.
    decoder: Box<Decoder>,
    /// For a key that is text: how its column's values stand in JSON.
    text: Option<Text>,
}

/// How the text of a key becomes a JSON value of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// In quotes.
    Quoted,
    /// As it is.
    Bare,
}

/// The keys of a run of records.
#[derive(Debug)]
pub(super) struct Keys {
    /// The key's columns; a row for each key that can be read.
    batch: RecordBatch,
    /// For each record its key's row, or why it has none.
    pub(super) of: Vec<Result<u32, String>>,
}

impl Keys {
    /// The key's columns for rows of these keys.
    pub(super) fn columns(&self, rows: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(take_arrays(self.batch.columns(), &arrow::array::UInt32Array::from(rows.to_vec()), None)?)
    }
}

impl KeyReader {
    /// What reads the key of a source's records.
    pub(super) fn new(source: &SourceDef, key: &KeyDef) -> Result<Self> {
        let columns: Vec<_> = key.columns.iter().map(|&column| source.columns[column].clone()).collect();
        let text = (key.format == KeyFormat::Text).then(|| match (&columns[0].data_type, &columns[0].origin) {
            (DataType::Timestamp(..), Origin::Payload { time: TimeFormat::EpochSeconds | TimeFormat::EpochMillis | TimeFormat::EpochMicros, .. }) => Text::Bare,
            (DataType::Utf8View | DataType::Utf8 | DataType::Binary | DataType::Date32 | DataType::Timestamp(..), _) => Text::Quoted,
            _ => Text::Bare,
        });
        let all: Vec<usize> = (0..columns.len()).collect();
        let keys_alone = SourceDef { columns, key: None, watermark: None, ..source.clone() };
        Ok(Self { decoder: Box::new(Decoder::new(&keys_alone, &all)?), text })
    }

    /// Reads the keys of records.
    pub(super) fn read(&mut self, records: &Records) -> Result<Keys> {
        let quoted;
        let source = match self.text {
            None => records,
            Some(text) => {
                quoted = as_json(records, text);
                &quoted
            }
        };
        let mut of = Vec::with_capacity(records.len());
        let mut rows = 0;
        for (record, original) in source.iter().zip(records.iter()) {
            let read = match (record.key, record.key_at) {
                (Some(bytes), Some((base, _))) => self.decoder.read_key(bytes, base),
                _ if original.key.is_some() => Err("it is not valid UTF-8".into()),
                _ => Err(String::new()),
            };
            of.push(match read {
                Ok(()) => {
                    rows += 1;
                    Ok(rows - 1)
                }
                Err(reason) => {
                    self.decoder.payload.iter_mut().for_each(|column| column.column.truncate(rows as usize));
                    Err(match original.key {
                        None => "the record has no key, and the source's PRIMARY KEY is read from it".into(),
                        Some(key) if self.text.is_some() => {
                            let column = &self.decoder.schema.field(0);
                            format!("the key can't be read: it is {} where column {} of type {} is expected", shorten(key), column.name(), column.data_type())
                        }
                        Some(_) => format!("the key can't be read: {reason}"),
                    })
                }
            });
        }
        let columns = self.decoder.payload.iter_mut().map(|column| column.column.finish(source.bytes())).collect::<Vec<_>>();
        let batch = RecordBatch::try_new(self.decoder.schema.clone(), columns.into_iter().collect::<Result<_>>()?)?;
        Ok(Keys { batch, of })
    }
}

impl Decoder {
    /// Appends a key to the columns; `Err` is the reason why it can't be read.
    fn read_key(&mut self, bytes: &[u8], base: usize) -> Result<(), String> {
        let mut index = std::mem::take(&mut self.index);
        index.mark(bytes);
        let key = Payload { bytes, index: &index, base: base as u32 };
        let result = super::check_whole(&key).map_err(|reason| reason.replace("the payload", "it")).and_then(|()| {
            let mut column = None;
            let read = self.read_key_value(&key, &mut column);
            read.map_err(|fault| fault.reason(bytes, column.map(|column: usize| self.payload[column].name.as_str())))?;
            let is_null = |slot: Slot| !slot.is_set() || Value { payload: key, start: slot.start as usize, end: slot.end as usize }.is_null();
            match self.payload.iter().find(|column| is_null(self.slots[column.node])) {
                Some(column) => Err(format!("column {} is NULL", column.name)),
                None => Ok(()),
            }
        });
        self.index = index;
        result
    }

    fn read_key_value(&mut self, key: &Payload<'_>, judged: &mut Option<usize>) -> Judged {
        let start = key.blank(0);
        let end = match (key.at(start), self.payload.as_mut_slice()) {
            (b'{', _) => self.read_row(key, start, 1, judged)?,
            (_, [only]) => {
                let end = key.skip(start, 0)?;
                let slot = Slot { start: start as u32, end: end as u32 };
                self.slots.fill(Slot::EMPTY);
                self.slots[only.node] = slot;
                *judged = Some(0);
                append(only.column.as_mut(), *key, slot)?;
                *judged = None;
                end
            }
            _ => return malformed(start, "an object with the columns of the primary key is expected"),
        };
        let end = key.blank(end);
        if end < key.bytes.len() {
            return malformed(end, "the key has something after it");
        }
        Ok(())
    }
}

/// The same keys as JSON values; those that can be none are left out.
fn as_json(records: &Records, text: Text) -> Records {
    let mut builder = RecordsBuilder::new();
    for record in records.iter() {
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let json = key.and_then(|key| match text {
            Text::Quoted => serde_json::to_string(key).ok(),
            // Nothing that could be a bracket, a quote or white space.
            Text::Bare => key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')).then(|| key.to_string()),
        });
        builder.push(record.offset, None, json.as_deref().map(str::as_bytes), None, vec![]);
    }
    builder.finish()
}
