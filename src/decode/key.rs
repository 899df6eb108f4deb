//! The keys of records, where they name rows (`PRIMARY KEY`).

use arrow::{
    array::{Array, ArrayRef, UInt32Array},
    compute::take_arrays,
    datatypes::DataType,
};

use super::{
    BadRecord,
    payload::{PayloadColumn, Payloads},
    quote::shorten,
};
use crate::{
    catalog::{Format, KeyDef, KeyFormat, SourceDef, TimeFormat},
    error::{Error, Result},
    source::{Records, RecordsBuilder},
};

/// Reads the columns of a primary key.
#[derive(Debug)]
pub(super) struct KeyReader {
    /// The key's columns.
    columns: Vec<PayloadColumn>,
    /// Reads the key as if it were a payload.
    reader: Payloads,
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
    columns: Vec<ArrayRef>,
    /// For each record its key's row, or why it has none.
    pub(super) of: Vec<Result<u32, String>>,
}

impl Keys {
    /// The key's columns for rows of these keys.
    pub(super) fn columns(&self, rows: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(take_arrays(&self.columns, &UInt32Array::from(rows.to_vec()), None)?)
    }
}

impl KeyReader {
    /// What reads the key of a source's records.
    pub(super) fn new(source: &SourceDef, key: &KeyDef) -> Result<Self> {
        let column = |&column: &usize| {
            let declared = &source.columns[column];
            PayloadColumn::of(declared, true).ok_or_else(|| Error::Internal(format!("column {} of a primary key is metadata", declared.name)))
        };
        let columns = key.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        let text = (key.format == KeyFormat::Text).then(|| match (&columns[0].data_type, &columns[0].time) {
            (DataType::Timestamp(..), TimeFormat::EpochSeconds | TimeFormat::EpochMillis | TimeFormat::EpochMicros) => Text::Bare,
            (DataType::Utf8View | DataType::Utf8 | DataType::Binary | DataType::Date32 | DataType::Timestamp(..), _) => Text::Quoted,
            _ => Text::Bare,
        });
        let format = match &key.format {
            KeyFormat::Json | KeyFormat::Text => &Format::Json,
            KeyFormat::As(format) => format,
        };
        Ok(Self { reader: Payloads::new(format, &source.kafka.link, &columns)?, columns, text })
    }

    /// Reads the keys of records.
    pub(super) fn read(&mut self, records: &Records) -> Result<Keys> {
        match (&self.reader, self.text) {
            (Payloads::Batch(_), _) => self.read_batch(records),
            (Payloads::Json(_), None) => self.read_json(records, records),
            (Payloads::Json(_), Some(text)) => self.read_json(records, &as_json(records, text)),
        }
    }

    /// Reads keys that are JSON, or were made so.
    fn read_json(&mut self, originals: &Records, records: &Records) -> Result<Keys> {
        let Payloads::Json(reader) = &mut self.reader else { return Err(Error::Internal("these keys are no JSON".into())) };
        let mut of = Vec::with_capacity(records.len());
        let mut rows = 0;
        for (record, original) in records.iter().zip(originals.iter()) {
            let read = match (record.key, record.key_at) {
                (Some(bytes), Some((base, _))) => reader.read_key(bytes, base),
                _ if original.key.is_some() => Err("it is not valid UTF-8".into()),
                _ => Err(String::new()),
            };
            of.push(match read {
                Ok(()) => {
                    rows += 1;
                    Ok(rows - 1)
                }
                Err(reason) => {
                    reader.truncate(rows as usize);
                    Err(match original.key {
                        None => no_key(),
                        Some(key) if self.text.is_some() => {
                            let column = &self.columns[0];
                            format!("the key can't be read: it is {} where column {} of type {} is expected", shorten(key), column.name, column.data_type)
                        }
                        Some(_) => unreadable(&reason),
                    })
                }
            });
        }
        let columns: Vec<Result<ArrayRef>> = (0..self.columns.len()).map(|column| reader.finish(column, records.bytes())).collect();
        Ok(Keys { columns: columns.into_iter().collect::<Result<_>>()?, of })
    }

    /// Reads keys of another format: as payloads, of which each must be one row that has all columns.
    fn read_batch(&mut self, records: &Records) -> Result<Keys> {
        let Payloads::Batch(reader) = &mut self.reader else { return Err(Error::Internal("these keys are JSON".into())) };
        let keys = records.keys_as_values();
        let read = reader.read(&keys, &|record| keys.get(record).value.is_some())?;
        let mut of: Vec<Result<u32, String>> = keys.iter().map(|key| Err(if key.value.is_some() { unreadable("it holds no row") } else { no_key() })).collect();
        for BadRecord { record, reason } in read.errors {
            of[record as usize] = Err(unreadable(&reason.replace("the payload", "it")));
        }
        for (row, &record) in (0u32..).zip(&read.record_of) {
            let null = self.columns.iter().zip(&read.columns).find(|(_, values)| values.is_null(row as usize));
            let again = row > 0 && read.record_of[row as usize - 1] == record;
            of[record as usize] = match null {
                _ if again => Err(unreadable("it holds several rows")),
                Some((column, _)) => Err(unreadable(&format!("column {} is NULL", column.name))),
                None => Ok(row),
            };
        }
        Ok(Keys { columns: read.columns, of })
    }
}

fn no_key() -> String {
    "the record has no key, and the source's PRIMARY KEY is read from it".into()
}

fn unreadable(reason: &str) -> String {
    format!("the key can't be read: {reason}")
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
