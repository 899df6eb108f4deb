//! Finds rows of a log by what they hold: by their keys, or by all their values, so that a change that takes a row away finds the one it means.
//!
//! Any number of rows may have the same values: SQL tables are multisets. A row is found and forgotten without a look at the others.

use std::collections::hash_map::Entry;

use arrow::{
    array::ArrayRef,
    datatypes::{DataType, SchemaRef},
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};

use super::{
    key_map::{KeyHash, KeyMap},
    segments::RowId,
};
use crate::error::Result;

/// Where each row is, by a hash of its values.
#[derive(Debug)]
pub struct RowIndex {
    /// Makes bytes of values; `None` where rows have none, and are all equal.
    converter: Option<RowConverter>,
    /// The oldest row with each hash.
    oldest: KeyMap<RowId>,
    links: Vec<Link>,
}

/// Rows with the same hash stand in a ring, in the order in which they came.
#[derive(Debug, Clone, Copy)]
struct Link {
    hash: KeyHash,
    next: RowId,
    before: RowId,
}

impl RowIndex {
    /// An empty index over rows of these columns.
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        Self::over(schema.fields().iter().map(|field| field.data_type().clone()))
    }

    /// An empty index over values of these types.
    pub fn over(types: impl Iterator<Item = DataType>) -> Result<Self> {
        let fields: Vec<SortField> = types.map(SortField::new).collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Self { converter, oldest: KeyMap::default(), links: vec![] })
    }

    /// The hashes of rows.
    pub fn hashes(&self, rows: &RecordBatch) -> Result<Vec<KeyHash>> {
        self.hashes_of(rows.columns(), rows.num_rows())
    }

    /// The hashes of so many values.
    pub fn hashes_of(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<KeyHash>> {
        let Some(converter) = &self.converter else { return Ok(vec![KeyHash::of(&[]); rows]) };
        let encoded = converter.convert_columns(columns)?;
        Ok(encoded.iter().map(|row| KeyHash::of(row.data())).collect())
    }

    /// The oldest row with this hash.
    pub fn first(&self, hash: KeyHash) -> Option<RowId> {
        self.oldest.get(hash).copied()
    }

    /// All rows with this hash, oldest first.
    pub fn get(&self, hash: KeyHash) -> impl Iterator<Item = RowId> + '_ {
        let first = self.first(hash);
        std::iter::successors(first, move |row| Some(self.links[*row as usize].next).filter(|next| Some(*next) != first))
    }

    /// Goes through rows by their hashes.
    pub fn taking(&self) -> Taking<'_> {
        Taking { index: self, next: KeyMap::default() }
    }

    /// A row is there.
    pub fn add(&mut self, hash: KeyHash, row: RowId) {
        if self.links.len() <= row as usize {
            let nobody = Link { hash, next: row, before: row };
            self.links.resize(row as usize + 1, nobody);
        }
        let (next, before) = match self.oldest.entry(hash) {
            Entry::Vacant(place) => {
                place.insert(row);
                (row, row)
            }
            Entry::Occupied(oldest) => (*oldest.get(), self.links[*oldest.get() as usize].before),
        };
        self.links[row as usize] = Link { hash, next, before };
        self.links[before as usize].next = row;
        self.links[next as usize].before = row;
    }

    /// A row that is there is no longer.
    pub fn take(&mut self, row: RowId) {
        let Link { hash, next, before } = self.links[row as usize];
        if next == row {
            self.oldest.remove(hash);
            return;
        }
        self.links[before as usize].next = next;
        self.links[next as usize].before = before;
        if let Some(oldest) = self.oldest.get_mut(hash).filter(|oldest| **oldest == row) {
            *oldest = next;
        }
    }

    /// All rows, in no order.
    pub fn rows(&self) -> impl Iterator<Item = RowId> + '_ {
        self.oldest
            .values()
            .flat_map(move |first| std::iter::successors(Some(*first), move |row| Some(self.links[*row as usize].next).filter(|next| next != first)))
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.oldest.clear();
        self.links.clear();
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.oldest.bytes() + self.links.capacity() * size_of::<Link>()
    }
}

/// Names rows for those that are to go: each once, of equal ones the oldest first.
#[derive(Debug)]
pub struct Taking<'a> {
    index: &'a RowIndex,
    next: KeyMap<Option<RowId>>,
}

impl Taking<'_> {
    /// The next row with this hash.
    pub fn take(&mut self, hash: KeyHash) -> Option<RowId> {
        let first = self.index.first(hash);
        let next = self.next.entry(hash).or_insert(first);
        let row = (*next)?;
        *next = Some(self.index.links[row as usize].next).filter(|next| Some(*next) != first);
        Some(row)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn equal_rows_are_found_oldest_first_and_go_alone() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let mut index = RowIndex::over(std::iter::empty()).unwrap();
        let hashes: Vec<KeyHash> = (0..7_u8).map(|key| KeyHash::of(&[key])).collect();
        let mut model: BTreeMap<KeyHash, Vec<RowId>> = BTreeMap::new();
        let mut free: BTreeSet<RowId> = (0..300).collect();
        for _ in 0..20_000 {
            let hash = hashes[rng.random_range(0..7) * rng.random_range(0..7) / 6];
            let held = model.entry(hash).or_default();
            if rng.random_bool(0.5) && !free.is_empty() {
                let row = *free.iter().nth(rng.random_range(0..free.len())).unwrap();
                free.remove(&row);
                held.push(row);
                index.add(hash, row);
            } else if !held.is_empty() {
                let row = held.remove(rng.random_range(0..held.len()));
                free.insert(row);
                index.take(row);
            }
            assert_eq!(index.get(hash).collect::<Vec<_>>(), *held);
            let mut taking = index.taking();
            assert_eq!(std::iter::from_fn(|| taking.take(hash)).collect::<Vec<_>>(), *held);
        }
        assert_eq!(index.rows().collect::<BTreeSet<_>>(), model.values().flatten().copied().collect());
    }
}
