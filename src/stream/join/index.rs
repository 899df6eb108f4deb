//! Finds a side's rows by their key, and forgets one of them without looking at the others, however many have the key.

use crate::stream::{key_map::KeyMap, segments::RowId};

/// A join key as comparable bytes; empty where a join has no equal columns.
pub type Key = Box<[u8]>;

/// Rows by key.
#[derive(Debug, Default)]
pub struct KeyIndex {
    rows: KeyMap<Posting>,
    /// For each row of a key that several have, where it stands among them.
    slots: Vec<u32>,
}

#[derive(Debug)]
enum Posting {
    One(RowId),
    Many(Vec<RowId>),
}

impl KeyIndex {
    /// The rows with this key.
    pub fn get(&self, key: &[u8]) -> &[RowId] {
        match self.rows.get(key) {
            None => &[],
            Some(Posting::One(row)) => std::slice::from_ref(row),
            Some(Posting::Many(rows)) => rows,
        }
    }

    /// A row is there.
    pub fn add(&mut self, key: &[u8], row: RowId) {
        if self.slots.len() <= row as usize {
            self.slots.resize(row as usize + 1, 0);
        }
        match self.rows.get_mut(key) {
            None => {
                self.slots[row as usize] = 0;
                self.rows.insert(key, Posting::One(row));
            }
            Some(posting) => {
                if let Posting::One(first) = posting {
                    *posting = Posting::Many(vec![*first]);
                }
                if let Posting::Many(rows) = posting {
                    self.slots[row as usize] = rows.len() as u32;
                    rows.push(row);
                }
            }
        }
    }

    /// A row is there no longer.
    pub fn take(&mut self, key: &[u8], row: RowId) {
        let gone = match self.rows.get_mut(key) {
            None => false,
            Some(Posting::One(_)) => true,
            Some(Posting::Many(rows)) => {
                let slot = self.slots[row as usize] as usize;
                rows.swap_remove(slot);
                if let Some(moved) = rows.get(slot) {
                    self.slots[*moved as usize] = slot as u32;
                }
                rows.is_empty()
            }
        };
        if gone {
            self.rows.remove(key);
        }
    }

    /// All rows, key by key, in no order.
    pub fn rows(&self) -> impl Iterator<Item = RowId> + '_ {
        self.rows
            .values()
            .flat_map(|posting| match posting {
                Posting::One(row) => std::slice::from_ref(row),
                Posting::Many(rows) => rows,
            })
            .copied()
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.rows.bytes() + self.slots.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_a_hot_key_goes_alone() {
        let mut index = KeyIndex::default();
        for row in 0..100 {
            index.add(if row % 10 == 0 { b"cold" } else { b"hot" }, row);
        }
        assert_eq!((index.get(b"hot").len(), index.get(b"cold").len(), index.get(b"none").len()), (90, 10, 0));
        for row in (0..100).rev().filter(|row| row % 3 > 0) {
            index.take(if row % 10 == 0 { b"cold" } else { b"hot" }, row);
        }
        let mut rest: Vec<RowId> = index.get(b"hot").to_vec();
        rest.sort_unstable();
        assert_eq!(rest, (0..100).filter(|row| row % 3 == 0 && row % 10 > 0).collect::<Vec<_>>());
        let left: Vec<RowId> = index.rows().collect();
        left.into_iter().for_each(|row| index.take(if row % 10 == 0 { b"cold" } else { b"hot" }, row));
        assert_eq!(index.get(b"hot"), &[] as &[RowId]);
        assert_eq!(index.rows().count(), 0);
    }
}
