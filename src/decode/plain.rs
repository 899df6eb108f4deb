//! Payloads without a structure: the whole of one is the value of the source's one column.

use std::sync::Arc;

use arrow::{array::BinaryBuilder, datatypes::DataType};

use super::{
    Reason,
    cell::Cell,
    drift::{Drift, FieldPath, Retyped, shown},
    json::JsonReader,
    payload::{BatchReader, PayloadColumn, ReadBatch},
    quote::shorten,
};
use crate::{
    error::{Error, Result},
    source::{Records, RecordsBuilder},
};

/// Reads payloads as text of one column, judged as JSON's values are.
#[derive(Debug)]
pub(super) struct TextReader {
    /// The column, unless all of the source's are metadata.
    column: Option<(PayloadColumn, Cell)>,
    json: JsonReader,
}

impl TextReader {
    /// What reads this one column.
    pub(super) fn new(columns: &[PayloadColumn]) -> Result<Self> {
        let column = match only("text", columns)? {
            Some(column) => Some((column.clone(), Cell::of(column).ok_or_else(|| refuse("text", column, "TEXT"))?)),
            None => None,
        };
        // As in CSV.
        let all: Vec<PayloadColumn> = columns.iter().map(|column| PayloadColumn { needed: true, ..column.clone() }).collect();
        Ok(Self { column, json: JsonReader::new(&all, false, None)? })
    }
}

impl BatchReader for TextReader {
    fn read(&mut self, records: &Records, wanted: &dyn Fn(usize) -> bool) -> Result<ReadBatch> {
        let (mut record_of, mut errors) = (vec![], vec![]);
        let mut builder = RecordsBuilder::new();
        let mut json = vec![];
        for (at, record) in records.iter().enumerate() {
            let Some(payload) = record.value.filter(|_| wanted(at)) else { continue };
            match (simdutf8::compat::from_utf8(payload), &self.column) {
                (Err(error), _) => errors.push(Reason::from(format!("the payload is not valid UTF-8 at byte {}", error.valid_up_to())).of(at as u32)),
                (Ok(_), None) => record_of.push(at as u32),
                (Ok(text), Some((_, cell))) => {
                    json.clear();
                    cell.write(text, &mut json);
                    builder.push(at as i64, None, None, Some(&json), vec![]);
                }
            }
        }
        let records_of_json = builder.finish();
        for record in records_of_json.iter() {
            let (Some(bytes), Some((base, _)), Some((column, _))) = (record.value, record.value_at, &self.column) else { continue };
            let at = record.offset as u32;
            match self.json.read_key(bytes, base) {
                Ok(()) => record_of.push(at),
                Err(_) => {
                    self.json.truncate(record_of.len());
                    let payload = records.get(at as usize).value.unwrap_or_default();
                    let text = format!("the payload is {} where column {} of type {} is expected", shorten(payload), column.name, column.data_type);
                    let retyped = Retyped { path: FieldPath::of(&[]), example: Some(shown(payload)) };
                    errors.push(Reason { text, retyped: Some(Box::new(retyped)) }.of(at));
                }
            }
        }
        errors.sort_by_key(|bad| bad.record);
        let columns = self.column.iter().map(|_| self.json.finish(0, records_of_json.bytes())).collect::<Result<_>>()?;
        Ok(ReadBatch { columns, record_of, errors, drift: Drift::default() })
    }
}

/// Takes payloads as they are.
#[derive(Debug)]
pub(super) struct BytesReader {
    /// Whether there is the column, or all of the source's are metadata.
    column: bool,
}

impl BytesReader {
    /// What reads this one column.
    pub(super) fn new(columns: &[PayloadColumn]) -> Result<Self> {
        match only("bytes", columns)? {
            Some(column) if column.data_type != DataType::Binary => Err(refuse("bytes", column, "BYTEA")),
            column => Ok(Self { column: column.is_some() }),
        }
    }
}

impl BatchReader for BytesReader {
    fn read(&mut self, records: &Records, wanted: &dyn Fn(usize) -> bool) -> Result<ReadBatch> {
        let mut record_of = vec![];
        let mut column = BinaryBuilder::new();
        let mut length = 0usize;
        for (at, record) in records.iter().enumerate() {
            let Some(payload) = record.value.filter(|_| wanted(at)) else { continue };
            record_of.push(at as u32);
            if self.column {
                length += payload.len();
                if length > i32::MAX as usize {
                    return Err(Error::Unsupported("a column of one batch is over 2 GiB; lower max_epoch_bytes".into()));
                }
                column.append_value(payload);
            }
        }
        let columns: Vec<arrow::array::ArrayRef> = if self.column { vec![Arc::new(column.finish())] } else { vec![] };
        Ok(ReadBatch { columns, record_of, errors: vec![], drift: Drift::default() })
    }
}

/// The one column that a payload without structure can be.
fn only<'a>(format: &str, columns: &'a [PayloadColumn]) -> Result<Option<&'a PayloadColumn>> {
    match columns {
        [] => Ok(None),
        [only] if only.path == [only.name.clone()] => Ok(Some(only)),
        [only] => Err(Error::Invalid(format!("column {} has a PATH, but with format = '{format}' it is the whole payload: leave PATH out", only.name))),
        [_, second, ..] => Err(Error::Invalid(format!(
            "column {} is one too many: with format = '{format}' the whole payload is one column; declare others as METADATA or in PRIMARY KEY",
            second.name
        ))),
    }
}

fn refuse(format: &str, column: &PayloadColumn, instead: &str) -> Error {
    Error::Unsupported(format!(
        "column {} has type {}, which a payload with format = '{format}' can't be read as; declare it as {instead}",
        column.name, column.data_type
    ))
}
