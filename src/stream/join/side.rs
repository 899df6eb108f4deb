//! One side's rows between epochs.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    datatypes::Int64Type,
    record_batch::RecordBatch,
    row::RowConverter,
};

use super::{
    delta::{Delta, batch_of},
    index::{Key, KeyIndex},
    spec::SideSpec,
};
use crate::{
    error::Result,
    stream::{
        row_index::RowIndex,
        segments::{RowId, SegmentLog},
    },
};

/// The rows of one side.
#[derive(Debug)]
pub struct Side {
    /// The rows, and how many matches of each are held no longer, where the side remembers.
    pub log: SegmentLog,
    /// Rows by key.
    pub index: KeyIndex,
    /// Finds a row that is taken away; only where the side's rows go again.
    pub by_value: Option<RowIndex>,
    /// Encodes keys; `None` where there are none.
    pub keys: Option<RowConverter>,
    /// Rows by when they are done with, where that is known. One that has gone before stands there until its time is over: `expiry_of` tells.
    expiries: BTreeMap<i64, Vec<RowId>>,
    /// When each row is done with.
    expiry_of: Vec<i64>,
    /// How many rows of the other side each matches, or has matched; where the side is preserved.
    counts: Vec<i64>,
    has_expiry: bool,
}

/// What an epoch does to a side, not yet part of it.
#[derive(Debug)]
pub struct StagedSide {
    /// Rows that go, with key and hash.
    pub removed: Vec<(RowId, Key, u128)>,
    /// Rows whose lost matches are counted anew.
    pub rewritten: Vec<RowId>,
    /// Those rows as the log is to hold them.
    pub rewritten_rows: RecordBatch,
    /// Rows that come.
    pub appended: RecordBatch,
    /// Their keys, hashes, expiries and counts.
    pub fresh: Vec<(Key, u128, i64, i64)>,
    /// New counts of rows that stay.
    pub counts: Vec<(RowId, i64)>,
}

impl Side {
    /// No rows.
    pub fn new(spec: &SideSpec, keys: Option<RowConverter>, log: SegmentLog) -> Result<Self> {
        Ok(Self {
            log,
            index: KeyIndex::default(),
            by_value: if spec.weight.is_some() { Some(RowIndex::new(&spec.rows)?) } else { None },
            keys,
            expiries: BTreeMap::new(),
            expiry_of: vec![],
            counts: vec![],
            has_expiry: spec.expiry.is_some(),
        })
    }

    /// How many rows of the other side a row matches, or has matched.
    pub fn count(&self, row: RowId) -> i64 {
        self.counts.get(row as usize).copied().unwrap_or_default()
    }

    /// When a row is done with.
    pub fn expiry(&self, row: RowId) -> i64 {
        self.expiry_of.get(row as usize).copied().unwrap_or(i64::MAX)
    }

    /// Rows that are done with before an instant, in time order.
    pub fn expired(&self, before: i64) -> Vec<RowId> {
        let mut expired = vec![];
        for (at, rows) in self.expiries.range(..before) {
            let mut rows: Vec<RowId> = rows.iter().copied().filter(|row| self.expiry(*row) == *at).collect();
            // A number that was given again stands there twice.
            rows.sort_unstable();
            rows.dedup();
            expired.extend(rows);
        }
        expired
    }

    /// Rows of the log, with what a join needs to know of them.
    pub fn described(&self, spec: &SideSpec, null_equals_null: bool, rows: &[RowId]) -> Result<Delta> {
        let visible: Vec<usize> = (0..spec.rows.fields().len()).collect();
        let batch = self.log.gather_columns(rows, &visible)?;
        Delta::of(spec, self.keys.as_ref(), self.by_value.as_ref(), null_equals_null, batch, vec![1; rows.len()])
    }

    /// Rows as the log holds them.
    pub fn stored(spec: &SideSpec, rows: &RecordBatch, kept: Vec<i64>) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        if spec.stored.fields().len() > columns.len() {
            columns.push(Arc::new(Int64Array::from(kept)) as ArrayRef);
        }
        batch_of(spec.stored.clone(), columns, rows.num_rows())
    }

    /// Rows of the log, each with so many more lost matches.
    pub fn rewritten(&self, spec: &SideSpec, changed: &[(RowId, i64)]) -> Result<(Vec<RowId>, RecordBatch)> {
        let ids: Vec<RowId> = changed.iter().map(|(row, _)| *row).collect();
        let rows = self.log.gather(&ids)?;
        let width = spec.rows.fields().len();
        let kept = rows.column(width).as_primitive::<Int64Type>().values().iter().zip(changed).map(|(kept, (_, more))| kept + more).collect();
        Ok((ids, Self::stored(spec, &rows.project(&(0..width).collect::<Vec<_>>())?, kept)?))
    }

    /// Makes a staged epoch part of the side.
    pub fn commit(&mut self, staged: StagedSide) -> Result<()> {
        for (row, key, hash) in staged.removed {
            self.log.remove(row);
            self.index.take(&key, row);
            if let Some(expiry) = self.expiry_of.get_mut(row as usize) {
                *expiry = i64::MAX;
            }
            if let Some(index) = &mut self.by_value {
                index.take(hash, row);
            }
        }
        if !staged.rewritten.is_empty() {
            let slots: Vec<Option<RowId>> = staged.rewritten.into_iter().map(Some).collect();
            self.log.upsert(staged.rewritten_rows, &slots);
        }
        for (row, count) in staged.counts {
            self.set_count(row, count);
        }
        while self.expiries.first_key_value().is_some_and(|(at, rows)| rows.iter().all(|row| self.expiry(*row) != *at)) {
            self.expiries.pop_first();
        }
        let rows = self.log.append(staged.appended);
        for (row, (key, hash, expiry, count)) in rows.into_iter().zip(staged.fresh) {
            self.hold(row, &key, hash, expiry);
            self.set_count(row, count);
        }
        self.log.compact()
    }

    fn set_count(&mut self, row: RowId, count: i64) {
        // Where nobody asks, all are 0.
        if self.counts.len() <= row as usize {
            if count == 0 {
                return;
            }
            self.counts.resize(row as usize + 1, 0);
        }
        self.counts[row as usize] = count;
    }

    /// Adds to a row's count.
    pub fn add_count(&mut self, row: RowId, more: i64) {
        self.set_count(row, self.count(row) + more);
    }

    fn hold(&mut self, row: RowId, key: &[u8], hash: u128, expiry: i64) {
        self.index.add(key, row);
        if let Some(index) = &mut self.by_value {
            index.add(hash, row);
        }
        if !self.has_expiry {
            return;
        }
        if self.expiry_of.len() <= row as usize {
            self.expiry_of.resize(row as usize + 1, i64::MAX);
        }
        self.expiry_of[row as usize] = expiry;
        if expiry < i64::MAX {
            self.expiries.entry(expiry).or_default().push(row);
        }
    }

    /// Finds everything again that is not in the log.
    pub fn rebuild(&mut self, spec: &SideSpec, null_equals_null: bool) -> Result<()> {
        let width = spec.rows.fields().len();
        let parts = self.log.live().collect::<Result<Vec<_>>>()?;
        for (ids, batch) in parts {
            let kept = (batch.num_columns() > width && spec.remembers).then(|| batch.column(width).as_primitive::<Int64Type>().clone());
            let rows = batch.project(&(0..width).collect::<Vec<_>>())?;
            let delta = Delta::of(spec, self.keys.as_ref(), self.by_value.as_ref(), null_equals_null, rows, vec![1; ids.len()])?;
            for (at, row) in ids.into_iter().enumerate() {
                self.hold(row, delta.key(at), delta.hashes.get(at).copied().unwrap_or_default(), delta.expiries[at]);
                self.set_count(row, kept.as_ref().map_or(0, |kept| kept.value(at)));
            }
        }
        Ok(())
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.log.bytes()
            + self.index.bytes()
            + self.by_value.as_ref().map_or(0, RowIndex::bytes)
            + self.expiries.len() * 64
            + self.expiry_of.len() * 4
            + (self.expiry_of.len() + self.counts.len()) * 8
    }
}
