//! What became of each key within one piece of changes.

use std::collections::HashMap;

use arrow::{
    array::{ArrayRef, Int64Array},
    record_batch::RecordBatch,
    row::{RowConverter, Rows, SortField},
};

use crate::error::Result;

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// A row of the key: the one that it has now, or one that it had.
    pub row: usize,
    /// Whether it has none any more.
    pub gone: bool,
    /// The last row that changed the key: what is told of it is told in the order of these.
    pub last: usize,
}

/// For each key that has changed what became of it, in the order in which the keys changed last. A row that comes and goes in between is
/// left out, and so is a key that is what it was.
pub fn newest(rows: &RecordBatch, weights: &Int64Array, key: &[usize]) -> Result<Vec<Newest>> {
    struct Group {
        last: usize,
        /// Different rows of the key with the sums of their weights, and where each stood last.
        rows: Vec<(usize, i64)>,
    }
    let whole = Encoded::new(rows.columns().to_vec())?;
    let keys = Encoded::new(key.iter().map(|at| rows.column(*at).clone()).collect())?;
    let mut groups: Vec<Group> = vec![];
    let mut group_of: HashMap<&[u8], usize> = HashMap::new();
    for row in 0..rows.num_rows() {
        let at = *group_of.entry(keys.row(row)).or_insert_with(|| {
            groups.push(Group { last: row, rows: vec![] });
            groups.len() - 1
        });
        let group = &mut groups[at];
        group.last = row;
        match group.rows.iter_mut().find(|(known, _)| whole.row(*known) == whole.row(row)) {
            Some((known, weight)) => (*known, *weight) = (row, *weight + weights.value(row)),
            None => group.rows.push((row, weights.value(row))),
        }
    }
    groups.sort_by_key(|group| group.last);
    let became = |group: Group| {
        let come = group.rows.iter().filter(|(_, weight)| *weight > 0).map(|(row, _)| *row).max();
        let gone = group.rows.iter().filter(|(_, weight)| *weight < 0).map(|(row, _)| *row).max();
        match (come, gone) {
            (Some(row), _) => Some(Newest { row, gone: false, last: group.last }),
            (None, Some(row)) => Some(Newest { row, gone: true, last: group.last }),
            (None, None) => None,
        }
    };
    Ok(groups.into_iter().filter_map(became).collect())
}

/// Rows as bytes that are equal where the rows are.
struct Encoded(Option<Rows>);

impl Encoded {
    fn new(columns: Vec<ArrayRef>) -> Result<Self> {
        if columns.is_empty() {
            return Ok(Self(None));
        }
        let converter = RowConverter::new(columns.iter().map(|column| SortField::new(column.data_type().clone())).collect())?;
        Ok(Self(Some(converter.convert_columns(&columns)?)))
    }

    fn row(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(row).data())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn became(rows: &[(i64, i64, i64)], key: &[usize]) -> Vec<(usize, bool)> {
        let schema = Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]);
        let column = |of: fn(&(i64, i64, i64)) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef;
        let batch = RecordBatch::try_new(Arc::new(schema), vec![column(|r| r.0), column(|r| r.1)]).unwrap();
        let weights = Int64Array::from_iter_values(rows.iter().map(|r| r.2));
        newest(&batch, &weights, key).unwrap().into_iter().map(|newest| (newest.row, newest.gone)).collect()
    }

    #[test]
    fn the_last_state_of_each_key_counts() {
        let rows = [(1, 10, 1), (2, 20, 1), (1, 10, -1), (1, 11, 1), (2, 20, -1), (3, 30, -1), (4, 40, -1), (4, 41, 1)];
        // 2 came and went, 3 went, 1 and 4 have new rows.
        assert_eq!(became(&rows, &[0]), [(3, false), (5, true), (7, false)]);
    }

    #[test]
    fn what_comes_before_its_old_row_goes_is_an_update_too() {
        assert_eq!(became(&[(1, 11, 1), (1, 10, -1)], &[0]), [(0, false)]);
        assert_eq!(became(&[(1, 10, -1), (1, 11, 1), (1, 11, -1), (1, 10, 1)], &[0]), []);
    }

    #[test]
    fn without_columns_there_is_one_key() {
        assert_eq!(became(&[(1, 10, -1), (2, 20, 1)], &[]), [(1, false)]);
        assert_eq!(became(&[(1, 10, -1)], &[]), [(0, true)]);
    }
}
