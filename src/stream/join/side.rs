//! One side's rows between epochs.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    datatypes::Int64Type,
    record_batch::RecordBatch,
};

use super::{
    delta::{Delta, batch_of},
    done::DoneAt,
    spec::SideSpec,
};
use crate::{
    error::Result,
    stream::{
        key_map::KeyHash,
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
    pub index: RowIndex,
    /// Finds a row that is taken away; only where the side's rows go again.
    pub by_value: Option<RowIndex>,
    /// Rows by when they are done with, where that is known. One that has gone before stands there until its time is over: `expiry_of` tells.
    done: DoneAt,
    /// When each row is done with.
    expiry_of: Vec<i64>,
    /// How many rows of the other side each matches, or has matched; where the side is preserved.
    counts: Vec<i64>,
    has_expiry: bool,
}

/// What an epoch does to a side, not yet part of it.
#[derive(Debug)]
pub struct StagedSide {
    /// Rows that go.
    pub removed: Vec<RowId>,
    /// Rows whose lost matches are counted anew.
    pub rewritten: Vec<RowId>,
    /// Those rows as the log is to hold them.
    pub rewritten_rows: RecordBatch,
    /// Rows that come.
    pub appended: RecordBatch,
    /// Their keys, hashes, expiries and counts.
    pub fresh: Vec<Fresh>,
    /// New counts of rows that stay.
    pub counts: Vec<(RowId, i64)>,
}

/// What is known of a row that comes, beside what it holds.
#[derive(Debug, Clone, Copy)]
pub struct Fresh {
    /// Stands for its key.
    pub key: KeyHash,
    /// Stands for the whole of it, where the side's rows go again.
    pub hash: Option<KeyHash>,
    /// When it is done with.
    pub expiry: i64,
    /// How many rows of the other side it matches, or has matched.
    pub count: i64,
}

impl Side {
    /// The rows of a log; [`Side::rebuild`] finds what there is beside it.
    pub fn new(spec: &SideSpec, log: SegmentLog) -> Result<Self> {
        let keys = spec.keys.iter().map(|key| key.data_type(&spec.rows)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            log,
            index: RowIndex::over(keys.into_iter())?,
            by_value: if spec.weight.is_some() { Some(RowIndex::new(&spec.rows)?) } else { None },
            done: DoneAt::default(),
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

    /// Rows that are done with before an instant, in order of their ids.
    pub fn expired(&self, before: i64) -> Vec<RowId> {
        let mut expired: Vec<RowId> = self.done.before(before).filter(|(at, row)| self.expiry(*row) == *at).map(|(_, row)| row).collect();
        expired.sort_unstable();
        // An id that was given again may stand there twice.
        expired.dedup();
        expired
    }

    /// Rows of the log, with what a join needs to know of them.
    pub fn described(&self, spec: &SideSpec, null_equals_null: bool, rows: &[RowId]) -> Result<Delta> {
        let visible: Vec<usize> = (0..spec.rows.fields().len()).collect();
        let batch = self.log.gather_columns(rows, &visible)?;
        Delta::of(spec, &self.index, self.by_value.as_ref(), null_equals_null, batch, vec![1; rows.len()])
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
        self.log.remove_all(&staged.removed);
        for row in staged.removed {
            self.index.take(row);
            if let Some(expiry) = self.expiry_of.get_mut(row as usize) {
                *expiry = i64::MAX;
            }
            if let Some(index) = &mut self.by_value {
                index.take(row);
            }
        }
        if !staged.rewritten.is_empty() {
            let slots: Vec<Option<RowId>> = staged.rewritten.into_iter().map(Some).collect();
            self.log.upsert(staged.rewritten_rows, &slots);
        }
        for (row, count) in staged.counts {
            self.set_count(row, count);
        }
        let expiry_of = &self.expiry_of;
        self.done.forget_while(|at, row| expiry_of[row as usize] != at);
        let rows = self.log.append(staged.appended);
        self.hold(&rows, &staged.fresh);
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

    fn hold(&mut self, rows: &[RowId], fresh: &[Fresh]) {
        if self.has_expiry {
            let ids = rows.iter().max().map_or(0, |last| *last as usize + 1);
            self.expiry_of.resize(self.expiry_of.len().max(ids), i64::MAX);
            self.done.add(fresh.iter().zip(rows).map(|(fresh, row)| (fresh.expiry, *row)).filter(|(at, _)| *at < i64::MAX).collect());
        }
        for (row, Fresh { key, hash, expiry, count }) in rows.iter().copied().zip(fresh.iter().copied()) {
            self.index.add(key, row);
            if let Some((index, hash)) = self.by_value.as_mut().zip(hash) {
                index.add(hash, row);
            }
            if self.has_expiry {
                self.expiry_of[row as usize] = expiry;
            }
            self.set_count(row, count);
        }
    }

    /// Finds everything again that is not in the log.
    pub fn rebuild(&mut self, spec: &SideSpec, null_equals_null: bool) -> Result<()> {
        let width = spec.rows.fields().len();
        let parts = self.log.live().collect::<Result<Vec<_>>>()?;
        for (ids, batch) in parts {
            let kept = (batch.num_columns() > width && spec.remembers).then(|| batch.column(width).as_primitive::<Int64Type>().clone());
            let rows = batch.project(&(0..width).collect::<Vec<_>>())?;
            let delta = Delta::of(spec, &self.index, self.by_value.as_ref(), null_equals_null, rows, vec![1; ids.len()])?;
            let known = (0..ids.len()).map(|at| delta.fresh(at, kept.as_ref().map_or(0, |kept| kept.value(at)))).collect::<Vec<_>>();
            self.hold(&ids, &known);
        }
        Ok(())
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.log.bytes()
            + self.index.bytes()
            + self.by_value.as_ref().map_or(0, RowIndex::bytes)
            + self.done.bytes()
            + (self.expiry_of.len() + self.counts.len()) * 8
    }
}
