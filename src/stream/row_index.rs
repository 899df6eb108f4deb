//! Finds rows of a log by their values, so that a change that takes a row away finds the one it means.

use std::collections::HashMap;

use arrow::{
    datatypes::SchemaRef,
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};

use super::segments::RowId;
use crate::error::Result;

/// Where each row is, by a 128-bit hash of its bytes.
#[derive(Debug)]
pub struct RowIndex {
    converter: RowConverter,
    rows: HashMap<u128, Rows>,
}

/// Equal rows may stand several times: SQL tables are multisets.
#[derive(Debug)]
enum Rows {
    One(RowId),
    Many(Vec<RowId>),
}

impl RowIndex {
    /// An empty index over rows of these columns.
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        Ok(Self { converter: RowConverter::new(fields)?, rows: HashMap::new() })
    }

    /// The hashes of rows.
    pub fn hashes(&self, rows: &RecordBatch) -> Result<Vec<u128>> {
        if rows.num_columns() == 0 {
            return Ok(vec![0; rows.num_rows()]);
        }
        let encoded = self.converter.convert_columns(rows.columns())?;
        Ok(encoded.iter().map(|row| xxhash_rust::xxh3::xxh3_128(row.data())).collect())
    }

    /// Where the n-th of the rows with this hash is.
    pub fn nth(&self, hash: u128, n: usize) -> Option<RowId> {
        match self.rows.get(&hash)? {
            Rows::One(id) => (n == 0).then_some(*id),
            Rows::Many(ids) => ids.get(n).copied(),
        }
    }

    /// A row is there.
    pub fn add(&mut self, hash: u128, id: RowId) {
        self.rows
            .entry(hash)
            .and_modify(|rows| match rows {
                Rows::One(first) => *rows = Rows::Many(vec![*first, id]),
                Rows::Many(ids) => ids.push(id),
            })
            .or_insert(Rows::One(id));
    }

    /// A row is there no longer.
    pub fn take(&mut self, hash: u128, id: RowId) {
        if let Some(rows) = self.rows.get_mut(&hash) {
            match rows {
                Rows::One(_) => {
                    self.rows.remove(&hash);
                }
                Rows::Many(ids) => {
                    ids.retain(|other| *other != id);
                    if let [last] = ids.as_slice() {
                        *rows = Rows::One(*last);
                    }
                }
            }
        }
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.rows.len() * 40
    }
}
