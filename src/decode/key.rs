//! The keys of records, where they name rows (`PRIMARY KEY`).

use arrow::{
    array::{Array, ArrayRef, UInt32Array},
    compute::take_arrays,
};

use super::{
    BadRecord, Reason,
    drift::Retyped,
    payload::{PayloadColumn, Payloads},
};
use crate::{
    catalog::{Format, KeyDef, KeyFormat, SourceDef},
    error::{Error, Result},
    source::Records,
};

/// Reads the columns of a primary key.
#[derive(Debug)]
pub(super) struct KeyReader {
    /// The key's columns.
    columns: Vec<PayloadColumn>,
    /// Reads the key as if it were a payload.
    reader: Payloads,
}

/// The keys of a run of records.
#[derive(Debug)]
pub(super) struct Keys {
    /// The key's columns; a row for each key that can be read.
    columns: Vec<ArrayRef>,
    /// For each record its key's row, or why it has none.
    pub(super) of: Vec<Result<u32, Reason>>,
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
        let reader = match &key.format {
            KeyFormat::Json => Payloads::new(&Format::Json, &source.kafka.link, &columns, None)?,
            KeyFormat::As(format) => Payloads::new(format, &source.kafka.link, &columns, None)?,
            // All of the key is the one column, whatever its path says of payloads.
            KeyFormat::Text => {
                let whole: Vec<PayloadColumn> = columns.iter().map(|column| PayloadColumn { path: vec![column.name.clone()], ..column.clone() }).collect();
                Payloads::new(&Format::Text, &source.kafka.link, &whole, None)?
            }
        };
        Ok(Self { reader, columns })
    }

    /// Reads the keys of records.
    pub(super) fn read(&mut self, records: &Records) -> Result<Keys> {
        match &self.reader {
            Payloads::Batch(_) => self.read_batch(records),
            Payloads::Json(_) => self.read_json(records),
        }
    }

    /// Reads keys that are JSON.
    fn read_json(&mut self, records: &Records) -> Result<Keys> {
        let Payloads::Json(reader) = &mut self.reader else { return Err(Error::Internal("these keys are no JSON".into())) };
        let mut of = Vec::with_capacity(records.len());
        let mut rows = 0;
        for record in records.iter() {
            let read = match (record.key, record.key_at) {
                (Some(bytes), Some((base, _))) => reader.read_key(bytes, base).map_err(unreadable),
                _ => Err(no_key()),
            };
            if read.is_ok() {
                rows += 1;
            } else {
                reader.truncate(rows as usize);
            }
            of.push(read.map(|()| rows - 1));
        }
        let columns: Vec<Result<ArrayRef>> = (0..self.columns.len()).map(|column| reader.finish(column, records.bytes())).collect();
        Ok(Keys { columns: columns.into_iter().collect::<Result<_>>()?, of })
    }

    /// Reads keys of another format: as payloads, of which each must be one row that has all columns.
    fn read_batch(&mut self, records: &Records) -> Result<Keys> {
        let Payloads::Batch(reader) = &mut self.reader else { return Err(Error::Internal("these keys are JSON".into())) };
        let keys = records.keys_as_values();
        let read = reader.read(&keys, &|record| keys.get(record).value.is_some())?;
        let mut of: Vec<Result<u32, Reason>> =
            keys.iter().map(|key| Err(if key.value.is_some() { unreadable("it holds no row".into()) } else { no_key() })).collect();
        for BadRecord { record, reason, retyped } in read.errors {
            of[record as usize] = Err(unreadable(Reason { text: reason, retyped }));
        }
        for (row, &record) in (0u32..).zip(&read.record_of) {
            let null = self.columns.iter().zip(&read.columns).find(|(_, values)| values.is_null(row as usize));
            let again = row > 0 && read.record_of[row as usize - 1] == record;
            of[record as usize] = match null {
                _ if again => Err(unreadable("it holds several rows".into())),
                Some((column, _)) => Err(unreadable(format!("column {} is NULL", column.name).into())),
                None => Ok(row),
            };
        }
        Ok(Keys { columns: read.columns, of })
    }
}

fn no_key() -> Reason {
    "the record has no key, and the source's PRIMARY KEY is read from it".into()
}

fn unreadable(reason: Reason) -> Reason {
    let in_key = |mut retyped: Box<Retyped>| {
        retyped.path.in_key = true;
        retyped
    };
    Reason { text: format!("the key can't be read: {}", reason.text.replace("the payload", "it")), retyped: reason.retyped.map(in_key) }
}
