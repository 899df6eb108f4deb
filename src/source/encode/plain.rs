//! CSV, text and bytes: what their readers make of a payload, the other way round.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::DataType,
};

use super::{RowWriter, WrittenColumn, Wrong, json::TextWriter};
use crate::{
    catalog::{CsvDef, Origin, SourceDef},
    error::{Error, Result},
};

/// Writes a line of CSV.
#[derive(Debug)]
pub(super) struct CsvWriter {
    def: CsvDef,
    /// For each cell of the line the column that is in it.
    cells: Vec<Option<(usize, TextWriter)>>,
}

/// Writes the whole payload as one column.
#[derive(Debug)]
pub(super) struct WholeWriter {
    at: usize,
    text: TextWriter,
}

impl CsvWriter {
    /// Of the columns that are written, at the positions that the source's declaration says.
    pub(super) fn new(source: &SourceDef, def: &CsvDef, written: &[WrittenColumn]) -> Result<Self> {
        let mut cells: Vec<Option<(usize, TextWriter)>> = vec![];
        let mut next = 0;
        for column in payload(source) {
            let Origin::Payload { path, .. } = &column.origin else { continue };
            let position = CsvDef::position(&column.name, path, next).map_err(Error::Invalid)?;
            next = position + 1;
            cells.resize_with(cells.len().max(next), || None);
            if let Some(written) = written.iter().find(|written| written.name == column.name) {
                cells[position] = Some((written.at, TextWriter::new(written)));
            }
        }
        Ok(Self { def: def.clone(), cells })
    }

    fn put(&self, text: &str, out: &mut String) {
        let CsvDef { delimiter, quote, null } = &self.def;
        let plain = text != null && !text.contains([*delimiter, *quote, '\n', '\r']) && !text.is_empty();
        match plain {
            true => out.push_str(text),
            false => {
                out.push(*quote);
                out.push_str(&text.replace(*quote, &format!("{quote}{quote}")));
                out.push(*quote);
            }
        }
    }
}

impl RowWriter for CsvWriter {
    fn write(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<u8>, Wrong> {
        let mut out = String::new();
        for (position, cell) in self.cells.iter().enumerate() {
            if position > 0 {
                out.push(self.def.delimiter);
            }
            match cell {
                Some((at, writer)) if !columns[*at].is_null(row) => {
                    let text = String::from_utf8(writer.write(columns, row)?).map_err(|_| Wrong { column: *at, why: "it is not UTF-8, as CSV is".into() })?;
                    self.put(&text, &mut out);
                }
                _ => out.push_str(&self.def.null),
            }
        }
        match (out.is_empty(), self.cells.as_slice()) {
            (true, [Some((at, _))]) => {
                Err(Wrong { column: *at, why: "it is the whole line and can't be NULL: set 'csv.null' to a text that stands for it".into() })
            }
            _ => Ok(out.into_bytes()),
        }
    }
}

impl WholeWriter {
    /// Of the one column of the payload, which must be written.
    pub(super) fn new(source: &SourceDef, written: &[WrittenColumn]) -> Result<Self> {
        let only = payload(source).next().and_then(|column| written.iter().find(|written| written.name == column.name));
        match only {
            Some(only) => Ok(Self { at: only.at, text: TextWriter::new(only) }),
            None => Err(Error::Invalid(format!("the payload of source {} is one column: give it a value in every row", source.name))),
        }
    }
}

impl RowWriter for WholeWriter {
    fn write(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<u8>, Wrong> {
        let column = &columns[self.at];
        if column.is_null(row) {
            return Err(Wrong { column: self.at, why: "it is the whole payload and can't be NULL".into() });
        }
        match column.data_type() {
            DataType::Binary => Ok(column.as_binary::<i32>().value(row).to_vec()),
            _ => self.text.write(columns, row),
        }
    }
}

/// The columns that are read from a source's payload.
fn payload(source: &SourceDef) -> impl Iterator<Item = &crate::catalog::ColumnDef> {
    let in_key = |at: usize| source.key.as_ref().is_some_and(|key| key.columns.contains(&at));
    source.columns.iter().enumerate().filter(move |(at, column)| !in_key(*at) && matches!(column.origin, Origin::Payload { .. })).map(|(_, column)| column)
}
