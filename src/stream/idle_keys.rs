//! Keys for which nothing has come for long: what `state_ttl` lets an operator forget.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use arrow::{
    array::{AsArray, BinaryArray, Int64Array},
    datatypes::{DataType, Field, Int64Type, Schema},
    record_batch::RecordBatch,
};

use super::{
    keyed_rows::Key,
    segments::{RowId, SegmentLog},
};
use crate::error::Result;

/// When each key of an operator was touched last, by the epochs' clock.
#[derive(Debug)]
pub struct IdleKeys {
    /// Nanoseconds after which a key that nothing touches is forgotten.
    ttl: i64,
    /// Keys and when they were touched last, in nanoseconds since 1970.
    log: SegmentLog,
    rows: HashMap<Key, (RowId, i64)>,
    order: BTreeSet<(i64, Key)>,
    staged: Option<Staged>,
}

/// One epoch's work, not yet part of the state.
#[derive(Debug)]
struct Staged {
    now: i64,
    touched: Vec<Key>,
    forgotten: Vec<Key>,
}

impl IdleKeys {
    /// No keys yet.
    pub fn new(ttl: i64) -> Self {
        let fields = vec![Field::new("key", DataType::Binary, false), Field::new("touched", DataType::Int64, false)];
        Self { ttl, log: SegmentLog::new(Arc::new(Schema::new(fields))), rows: HashMap::new(), order: BTreeSet::new(), staged: None }
    }

    /// Whether a key's time was over before what an epoch brings for it: it begins anew then, whenever epochs were cut.
    pub fn is_over(&self, key: &Key, now: i64) -> bool {
        self.rows.get(key).is_some_and(|(_, at)| *at <= now.saturating_sub(self.ttl))
    }

    /// Stages an epoch that touches these keys (each once); the keys that are forgotten with it, those untouched for longest first. One that is
    /// touched may be among them: it begins anew.
    pub fn stage(&mut self, touched: Vec<Key>, now: i64) -> Vec<Key> {
        let before = now.saturating_sub(self.ttl);
        let forgotten: Vec<Key> = self.order.iter().take_while(|(at, _)| *at <= before).map(|(_, key)| key.clone()).collect();
        self.staged = Some(Staged { now, touched, forgotten: forgotten.clone() });
        forgotten
    }

    /// Makes the staged epoch part of the state.
    pub fn commit(&mut self) -> Result<()> {
        let Some(Staged { now, touched, forgotten }) = self.staged.take() else { return Ok(()) };
        for key in forgotten {
            if let Some((row, at)) = self.rows.remove(&key) {
                self.log.remove(row);
                self.order.remove(&(at, key));
            }
        }
        if !touched.is_empty() {
            let keys = BinaryArray::from_iter_values(touched.iter());
            let times = Int64Array::from_value(now, touched.len());
            let batch = RecordBatch::try_new(self.log.schema().clone(), vec![Arc::new(keys), Arc::new(times)])?;
            let slots: Vec<Option<RowId>> = touched.iter().map(|key| self.rows.get(key).map(|(row, _)| *row)).collect();
            for (key, row) in touched.into_iter().zip(self.log.upsert(batch, &slots)) {
                self.enter(key, row, now);
            }
        }
        self.log.compact()
    }

    /// Forgets the staged epoch.
    pub fn abort(&mut self) {
        self.staged = None;
    }

    fn enter(&mut self, key: Key, row: RowId, at: i64) {
        if let Some((_, before)) = self.rows.insert(key.clone(), (row, at)) {
            self.order.remove(&(before, key.clone()));
        }
        self.order.insert((at, key));
    }

    /// What a checkpoint holds.
    pub fn log(&self) -> &SegmentLog {
        &self.log
    }

    /// Takes the keys from a checkpoint.
    pub fn restore(&mut self, log: SegmentLog) -> Result<()> {
        (self.log, self.staged) = (log, None);
        self.rows.clear();
        self.order.clear();
        let parts = self.log.live().collect::<Result<Vec<_>>>()?;
        for (ids, rows) in parts {
            let (keys, times) = (rows.column(0).as_binary::<i32>(), rows.column(1).as_primitive::<Int64Type>());
            for (at, row) in ids.into_iter().enumerate() {
                self.enter(keys.value(at).into(), row, times.value(at));
            }
        }
        Ok(())
    }

    /// When the next key is to be forgotten, in nanoseconds since 1970.
    pub fn due(&self) -> Option<i64> {
        self.order.first().map(|(at, _)| at.saturating_add(self.ttl))
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.log.bytes() + self.rows.len() * 128
    }
}
