//! The declared columns of a run of records under construction, record by record.

use super::{
    super::{
        BadRecord, Reason,
        drift::Drift,
        payload::{PayloadColumn, ReadBatch},
    },
    ValueColumn, new_column,
};
use crate::error::Result;

/// The declared columns of a run of records under construction. A record that turns out bad on the way leaves no trace but its reason.
#[derive(Debug)]
pub(in crate::decode) struct RowColumns {
    columns: Vec<Box<dyn ValueColumn>>,
    names: Vec<String>,
    record_of: Vec<u32>,
    errors: Vec<BadRecord>,
}

impl RowColumns {
    /// Empty columns as declared; `format` is the format's name, for errors.
    pub(in crate::decode) fn new(format: &str, declared: &[PayloadColumn]) -> Result<Self> {
        let columns = declared.iter().map(|column| new_column(format, &column.name, &column.data_type, &column.time)).collect::<Result<_>>()?;
        Ok(Self { columns, names: declared.iter().map(|column| column.name.clone()).collect(), record_of: vec![], errors: vec![] })
    }

    /// A column, to be given at most one value of the row at hand.
    pub(in crate::decode) fn column(&mut self, at: usize) -> &mut dyn ValueColumn {
        self.columns[at].as_mut()
    }

    /// What is wrong with a column's value, as a whole sentence.
    pub(in crate::decode) fn reason(&self, at: usize, misfit: &str) -> String {
        format!("column {} {misfit}", self.names[at])
    }

    /// Ends a row of a record: columns that were given nothing are NULL in it.
    pub(in crate::decode) fn end_row(&mut self, record: u32) {
        let row = self.record_of.len();
        self.columns.iter_mut().filter(|column| column.len() == row).for_each(|column| column.put_null());
        self.record_of.push(record);
    }

    /// A record is bad: its rows go, those that were ended too.
    pub(in crate::decode) fn fail(&mut self, record: u32, reason: Reason) {
        while self.record_of.last() == Some(&record) {
            self.record_of.pop();
        }
        let rows = self.record_of.len();
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.errors.push(reason.of(record));
    }

    /// All rows so far; the columns are empty then.
    pub(in crate::decode) fn finish(&mut self) -> Result<ReadBatch> {
        // All are emptied, also if one fails, so that the next call begins afresh.
        let columns: Vec<Result<_>> = self.columns.iter_mut().map(|column| column.finish()).collect();
        let (record_of, errors) = (std::mem::take(&mut self.record_of), std::mem::take(&mut self.errors));
        Ok(ReadBatch { columns: columns.into_iter().collect::<Result<_>>()?, record_of, errors, drift: Drift::default() })
    }
}
