//! Finding rows of an immutable batch by the value of a column, without looking at all of them. An index is made when it is first asked for, and
//! goes with its batch.

use std::sync::OnceLock;

use arrow::array::{Array, ArrayRef};
use datafusion::common::hash_utils::{RandomState, create_hashes};

use crate::error::Result;

/// A batch of fewer rows is looked at whole: that costs less than an index.
const SMALL: usize = 64;
/// Any value does: it is the same for all of them, since hashes are compared between batches.
const SEED: u64 = 0x7469_6465_6761_7465;

/// The indexes of one batch, by column.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    columns: OnceLock<Box<[OnceLock<ColumnIndex>]>>,
}

/// The rows of a column by their hashes.
#[derive(Debug)]
struct ColumnIndex {
    /// In order; so many bits tell almost all rows of a batch apart.
    hashes: Vec<u32>,
    /// The row of each.
    rows: Vec<u32>,
}

/// The hashes of values, as [`Lookups::rows`] takes them. No value that is NULL equals any.
pub(super) fn hashes(values: &ArrayRef) -> Result<Vec<u32>> {
    let mut buffer = vec![0; values.len()];
    create_hashes([values], &RandomState::with_seed(SEED), &mut buffer)?;
    Ok((0..values.len()).filter(|row| values.is_valid(*row)).map(|row| buffer[row] as u32).collect())
}

impl Lookups {
    /// Rows in which a column may have one of the values of these hashes, each once and in order; all others have not. `width`: how many columns
    /// the batch has.
    pub(super) fn rows(&self, column: usize, array: &ArrayRef, width: usize, wanted: &[u32]) -> Result<Vec<u32>> {
        if array.len() < SMALL {
            return Ok((0..array.len() as u32).collect());
        }
        let columns = self.columns.get_or_init(|| (0..width).map(|_| OnceLock::new()).collect());
        let index = match columns[column].get() {
            Some(index) => index,
            None => {
                // Two who come at once both make it; one of them is kept.
                let made = ColumnIndex::of(array)?;
                columns[column].get_or_init(|| made)
            }
        };
        let mut rows: Vec<u32> = wanted.iter().flat_map(|hash| index.rows(*hash)).copied().collect();
        rows.sort_unstable();
        rows.dedup();
        Ok(rows)
    }
}

impl ColumnIndex {
    fn of(array: &ArrayRef) -> Result<Self> {
        let mut buffer = vec![0; array.len()];
        create_hashes([array], &RandomState::with_seed(SEED), &mut buffer)?;
        let mut entries: Vec<(u32, u32)> = (0..array.len()).filter(|row| array.is_valid(*row)).map(|row| (buffer[row] as u32, row as u32)).collect();
        entries.sort_unstable();
        let (hashes, rows) = entries.into_iter().unzip();
        Ok(Self { hashes, rows })
    }

    fn rows(&self, hash: u32) -> &[u32] {
        let begin = self.hashes.partition_point(|known| *known < hash);
        let count = self.hashes[begin..].partition_point(|known| *known == hash);
        &self.rows[begin..begin + count]
    }
}
