//! Which rows have a value.

use arrow::{array::NullBufferBuilder, buffer::NullBuffer};

/// Which rows of a column have a value; costs nothing until the first that has none.
#[derive(Debug)]
pub(super) struct Nulls(NullBufferBuilder);

impl Default for Nulls {
    fn default() -> Self {
        Self(NullBufferBuilder::new(0))
    }
}

impl Nulls {
    /// Appends a row.
    #[inline]
    pub(super) fn push(&mut self, valid: bool) {
        self.0.append(valid);
    }

    /// Appends the rows of a range, of which a bitmap says whether they have a value.
    pub(super) fn extend(&mut self, valid: &[u8], rows: std::ops::Range<usize>) {
        let is_valid = |row: usize| valid[row / 8] >> (row % 8) & 1 == 1;
        match rows.clone().all(is_valid) {
            true => self.0.append_n_non_nulls(rows.len()),
            false => rows.for_each(|row| self.0.append(is_valid(row))),
        }
    }

    /// Rows so far.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a row has a value.
    pub(super) fn is_valid(&self, row: usize) -> bool {
        self.0.is_valid(row)
    }

    /// Forgets the rows from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// The rows so far, none if all have values; empty then.
    pub(super) fn finish(&mut self) -> Option<NullBuffer> {
        self.0.finish()
    }
}
