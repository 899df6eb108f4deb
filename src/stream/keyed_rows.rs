//! Rows by key: a multiset that gives back, for the keys that an epoch touches, the rows before and after it.

use std::collections::{HashMap, HashSet};

use arrow::{
    array::{ArrayRef, Int64Array},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};

use super::{
    key_map::KeyHash,
    row_index::RowIndex,
    segments::{RowId, SegmentLog, gathered},
};
use crate::error::{Error, Result};

/// A key as comparable bytes.
pub type Key = Box<[u8]>;

/// Rows that an epoch brings, and takes away.
#[derive(Debug)]
pub struct Delta {
    /// The rows, as they are held.
    pub rows: RecordBatch,
    /// Each row's key.
    pub keys: Vec<Key>,
    /// `1` for a row that comes, `-1` for one that goes.
    pub weights: Int64Array,
}

/// The rows of the keys that an epoch touches.
#[derive(Debug)]
pub struct Touched {
    /// The keys, in order of appearance.
    pub keys: Vec<Key>,
    /// What was there of them.
    pub before: RecordBatch,
    /// What is there of them with the epoch.
    pub after: RecordBatch,
    /// For each row of `after` its key's number.
    pub after_keys: Vec<usize>,
    change: Change,
}

/// What an epoch makes of the rows.
#[derive(Debug)]
pub struct Change {
    gone: Vec<(Key, RowId)>,
    come: RecordBatch,
    keys: Vec<Key>,
}

/// The rows.
#[derive(Debug)]
pub struct KeyedRows {
    log: SegmentLog,
    by_key: HashMap<Key, Vec<RowId>>,
    /// Where rows may go: finds the one that is meant.
    index: RowIndex,
    changing: bool,
}

impl KeyedRows {
    /// No rows yet. `changing`: rows may be taken away by what they are.
    pub fn new(schema: SchemaRef, changing: bool) -> Result<Self> {
        Ok(Self { index: RowIndex::new(&schema)?, log: SegmentLog::new(schema), by_key: HashMap::new(), changing })
    }

    /// The rows' columns.
    pub fn schema(&self) -> &SchemaRef {
        self.log.schema()
    }

    /// What is held, for checkpoints.
    pub fn log(&self) -> &SegmentLog {
        &self.log
    }

    /// Takes the rows from a checkpoint; `keys` tells each row's key.
    pub fn restore(&mut self, log: SegmentLog, keys: impl Fn(&RecordBatch) -> Result<Vec<Key>>) -> Result<()> {
        self.index.clear();
        self.by_key.clear();
        for part in log.live() {
            let (ids, rows) = part?;
            self.enter(&ids, keys(&rows)?, &rows)?;
        }
        self.log = log;
        Ok(())
    }

    fn enter(&mut self, ids: &[RowId], keys: Vec<Key>, rows: &RecordBatch) -> Result<()> {
        if self.changing {
            for (id, hash) in ids.iter().zip(self.index.hashes(rows)?) {
                self.index.add(hash, *id);
            }
        }
        for (id, key) in ids.iter().zip(keys) {
            self.by_key.entry(key).or_default().push(*id);
        }
        Ok(())
    }

    /// The rows of the touched keys before and after an epoch's changes (where one row comes and goes, it may be named in any order).
    /// Of the keys `forgotten` only what the changes bring is there after. Nothing changes before [`KeyedRows::apply`].
    pub fn touch(&self, delta: Vec<Delta>, forgotten: &[Key]) -> Result<Touched> {
        let mut keys: Vec<Key> = vec![];
        let mut numbers: HashMap<&Key, usize> = HashMap::new();
        for key in delta.iter().flat_map(|part| &part.keys).chain(forgotten) {
            numbers.entry(key).or_insert_with(|| {
                keys.push(key.clone());
                keys.len() - 1
            });
        }
        let held: Vec<(usize, RowId)> =
            keys.iter().enumerate().flat_map(|(number, key)| self.by_key.get(key).into_iter().flatten().map(move |id| (number, *id))).collect();
        let before = self.log.gather(&held.iter().map(|(_, id)| *id).collect::<Vec<_>>())?;
        let mut come: Vec<Option<(usize, usize)>> = vec![];
        let mut gone: Vec<(Key, RowId)> = vec![];
        if !self.changing {
            come.extend(delta.iter().enumerate().flat_map(|(at, part)| (0..part.rows.num_rows()).map(move |row| Some((at, row)))));
        } else {
            // Of equal rows any may be taken: one that comes with this epoch, or the next that is held.
            let mut fresh: HashMap<KeyHash, Vec<usize>> = HashMap::new();
            let mut goes: Vec<(KeyHash, &Key)> = vec![];
            for (at, part) in delta.iter().enumerate() {
                for (row, hash) in self.index.hashes(&part.rows)?.into_iter().enumerate() {
                    let weight = part.weights.value(row);
                    for _ in 0..weight.unsigned_abs() {
                        if weight > 0 {
                            fresh.entry(hash).or_default().push(come.len());
                            come.push(Some((at, row)));
                        } else {
                            goes.push((hash, &part.keys[row]));
                        }
                    }
                }
            }
            let mut taking = self.index.taking();
            for (hash, key) in goes {
                if let Some(at) = fresh.get_mut(&hash).and_then(Vec::pop) {
                    come[at] = None;
                    continue;
                }
                let id = taking.take(hash).ok_or_else(|| Error::Internal("a row that is not there was to be taken away".into()))?;
                gone.push((key.clone(), id));
            }
        }
        if !forgotten.is_empty() {
            let forgotten: HashSet<usize> = forgotten.iter().map(|key| numbers[key]).collect();
            let named: HashSet<RowId> = gone.iter().map(|(_, id)| *id).collect();
            let all = held.iter().filter(|(number, id)| forgotten.contains(number) && !named.contains(id));
            gone.extend(all.map(|(number, id)| (keys[*number].clone(), *id)));
        }
        let come: Vec<(usize, usize)> = come.into_iter().flatten().collect();
        let parts: Vec<&RecordBatch> = delta.iter().map(|part| &part.rows).collect();
        let come_keys: Vec<Key> = come.iter().map(|(at, row)| delta[*at].keys[*row].clone()).collect();
        let come = gathered(self.schema(), &parts, &come)?;
        let leaving: HashSet<RowId> = gone.iter().map(|(_, id)| *id).collect();
        // What stays, then what comes.
        let mut places: Vec<(usize, usize)> = vec![];
        let mut after_keys = vec![];
        for (row, (number, id)) in held.iter().enumerate() {
            if !leaving.contains(id) {
                places.push((0, row));
                after_keys.push(*number);
            }
        }
        for (row, key) in come_keys.iter().enumerate() {
            places.push((1, row));
            after_keys.push(numbers[key]);
        }
        let after = gathered(self.schema(), &[&before, &come], &places)?;
        drop(numbers);
        Ok(Touched { keys, before, after, after_keys, change: Change { gone, come, keys: come_keys } })
    }

    /// In place of a change: of the touched keys nothing stays but these rows.
    pub fn instead(&self, touched: &[Key], rows: RecordBatch, keys: Vec<Key>) -> Change {
        let gone = touched.iter().flat_map(|key| self.by_key.get(key).into_iter().flatten().map(|id| (key.clone(), *id))).collect();
        Change { gone, come: rows, keys }
    }

    /// Makes a change part of the rows.
    pub fn apply(&mut self, change: Change) -> Result<()> {
        let Change { gone, come, keys } = change;
        self.remove(gone);
        let ids = self.log.append(come.clone());
        self.enter(&ids, keys, &come)?;
        self.log.compact()
    }

    fn remove(&mut self, gone: Vec<(Key, RowId)>) {
        let mut by_key: HashMap<Key, HashSet<RowId>> = HashMap::new();
        for (key, id) in gone {
            if self.changing {
                self.index.take(id);
            }
            self.log.remove(id);
            by_key.entry(key).or_default().insert(id);
        }
        for (key, ids) in by_key {
            if let Some(held) = self.by_key.get_mut(&key) {
                held.retain(|id| !ids.contains(id));
                if held.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
    }

    /// Forgets all rows of a key.
    pub fn forget(&mut self, key: &Key) {
        let ids = self.by_key.get(key).cloned().unwrap_or_default();
        self.remove(ids.into_iter().map(|id| (key.clone(), id)).collect());
    }

    /// The keys that have rows.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_key.keys()
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.log.rows()
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.log.bytes() + self.by_key.len() * 72 + self.log.rows() * 4 + self.index.bytes()
    }
}

impl Touched {
    /// What becomes of the rows.
    pub fn into_change(self) -> Change {
        self.change
    }
}

/// Makes keys of columns.
#[derive(Debug)]
pub struct KeyEncoder(Option<RowConverter>);

impl KeyEncoder {
    /// For columns of these types.
    pub fn new(types: impl IntoIterator<Item = arrow::datatypes::DataType>) -> Result<Self> {
        let fields: Vec<SortField> = types.into_iter().map(SortField::new).collect();
        Ok(Self(if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) }))
    }

    /// The keys of `rows` rows.
    pub fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Key>> {
        match &self.0 {
            None => Ok(vec![Key::default(); rows]),
            Some(converter) => Ok(converter.convert_columns(columns)?.iter().map(|row| row.data().into()).collect()),
        }
    }
}
