//! The rows by key between epochs.

use std::{
    any::Any,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, Int64Array, UInt64Array},
    compute::take_record_batch,
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};
use datafusion::common::Result;
use serde_json::json;

use super::exec::{RecomputeSpec, renamed};
use crate::{
    error::{Error, Result as TidegateResult},
    stream::{
        aggregate::{Advance, Progress},
        epoch::{OperatorState, only_log},
        idle_keys::IdleKeys,
        keyed_rows::{Change, Delta, Key, KeyEncoder, KeyedRows, Touched},
        segments::SegmentLog,
        time::Timeline,
    },
};

#[cfg(test)]
use crate::stream::tests::mutants::Mutant;

/// Rows that an epoch brings.
#[derive(Debug)]
pub struct Arriving {
    /// The rows, as they are held.
    pub rows: RecordBatch,
    /// Whether each comes or goes.
    pub weights: Int64Array,
    /// Their key columns.
    pub keys: Vec<ArrayRef>,
    /// The ends of their windows.
    pub ends: Option<Int64Array>,
}

/// What the query is to be asked.
#[derive(Debug)]
pub struct Asked {
    /// The rows before; `None` where the query gave nothing.
    pub before: Option<RecordBatch>,
    /// The rows after; `None` where the query gives nothing.
    pub after: Option<RecordBatch>,
    touched: Touched,
    ends: Vec<(i64, Key)>,
}

#[derive(Debug)]
struct Staged {
    change: Option<Change>,
    /// Windows that keys of this epoch stand for.
    ends: Vec<(i64, Key)>,
    progress: Progress,
}

/// The rows.
#[derive(Debug)]
pub struct RecomputeState {
    spec: Arc<RecomputeSpec>,
    encoder: KeyEncoder,
    /// Puts rows into an order of their own: the same rows give the same bits, wherever they lie.
    order: Option<RowConverter>,
    rows: KeyedRows,
    /// Keys by the end of their window: what closing drops.
    windows: BTreeMap<i64, HashSet<Key>>,
    /// Keys that are forgotten when no row comes for them.
    idle: Option<IdleKeys>,
    progress: Progress,
    /// The query has been asked over nothing.
    started: bool,
    staged: Option<Staged>,
}

impl RecomputeState {
    /// No rows yet.
    pub fn new(spec: Arc<RecomputeSpec>) -> Result<Self> {
        let fields: Vec<SortField> = spec.rows.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self {
            encoder: KeyEncoder::new(spec.key_types()?)?,
            order: if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) },
            // Where the query's answer is all that is held, rows go whatever the input.
            rows: KeyedRows::new(spec.rows.clone(), spec.changing)?,
            idle: spec.idle_after.map(IdleKeys::new),
            spec,
            windows: BTreeMap::new(),
            progress: Progress::NONE,
            started: false,
            staged: None,
        })
    }

    /// How far time has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Takes an epoch's rows; what the query is to be asked, if anything. `now` is the epoch's time in nanoseconds since 1970.
    pub fn touch(&mut self, arriving: Vec<Arriving>, now: i64) -> Result<Option<Asked>> {
        let mut ends = vec![];
        let mut delta = vec![];
        for part in arriving {
            let keys = self.encoder.encode(&part.keys, part.rows.num_rows())?;
            if let Some(of_part) = &part.ends {
                ends.extend(keys.iter().enumerate().filter(|(row, _)| of_part.is_valid(*row)).map(|(row, key)| (of_part.value(row), key.clone())));
            }
            delta.push(Delta { rows: part.rows, keys, weights: part.weights });
        }
        delta.retain(|part| part.rows.num_rows() > 0);
        #[cfg(test)]
        if Mutant::RetractionLost.is_on() {
            for part in &mut delta {
                part.weights = part.weights.unary(i64::abs);
            }
        }
        let forgotten = match &mut self.idle {
            None => vec![],
            Some(idle) => {
                let mut seen = HashSet::new();
                let touched = delta.iter().flat_map(|part| &part.keys).filter(|key| seen.insert(*key)).cloned().collect();
                idle.stage(touched, now)
            }
        };
        let first = self.spec.over_nothing && !self.started;
        if delta.is_empty() && forgotten.is_empty() && !first {
            return Ok(None);
        }
        ends.sort_unstable();
        ends.dedup();
        let touched = self.rows.touch(delta, &forgotten)?;
        let asked = |rows: &RecordBatch, over_nothing: bool| -> Result<Option<RecordBatch>> {
            Ok(if rows.num_rows() > 0 || over_nothing { Some(self.in_order(rows)?) } else { None })
        };
        let before = asked(&touched.before, self.spec.over_nothing && self.started)?;
        let after = asked(&touched.after, self.spec.over_nothing)?;
        Ok(Some(Asked { before, after, touched, ends }))
    }

    fn in_order(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let Some(converter) = &self.order else { return Ok(rows.clone()) };
        if rows.num_rows() < 2 {
            return Ok(rows.clone());
        }
        let encoded = converter.convert_columns(rows.columns())?;
        let mut order: Vec<u64> = (0..rows.num_rows() as u64).collect();
        order.sort_unstable_by(|a, b| encoded.row(*a as usize).cmp(&encoded.row(*b as usize)));
        Ok(take_record_batch(rows, &UInt64Array::from(order))?)
    }

    /// Stages the epoch's rows, or what the query left of them.
    pub fn keep(&mut self, asked: Asked, answer: &[RecordBatch]) -> Result<()> {
        let Asked { touched, ends, .. } = asked;
        let change = if self.spec.shrinks {
            let width = self.spec.rows.fields().len();
            let parts = answer.iter().map(|batch| renamed(&self.spec.rows, &batch.columns()[..width], batch.num_rows())).collect::<Result<Vec<_>>>()?;
            let rows = arrow::compute::concat_batches(&self.spec.rows, &parts)?;
            let keys = self.encoder.encode(&self.spec.key_columns(&rows)?, rows.num_rows())?;
            self.rows.instead(&touched.keys, rows, keys)
        } else {
            touched.into_change()
        };
        self.staged = Some(Staged { change: Some(change), ends, progress: self.progress });
        Ok(())
    }

    /// Stages how far time comes.
    pub fn close(&mut self, advance: Advance) {
        let progress = self.progress;
        let staged = self.staged.get_or_insert(Staged { change: None, ends: vec![], progress });
        let last = self.windows.keys().next_back().copied().into_iter().chain(staged.ends.iter().map(|(end, _)| *end)).max();
        staged.progress = advance.closing(last).to;
    }
}

impl OperatorState for RecomputeState {
    fn commit(&mut self) -> TidegateResult<()> {
        self.idle.as_mut().map_or(Ok(()), IdleKeys::commit)?;
        let Some(Staged { change, ends, progress }) = self.staged.take() else { return Ok(()) };
        self.started = true;
        self.progress = progress;
        if let Some(change) = change {
            self.rows.apply(change)?;
        }
        for (end, key) in ends {
            self.windows.entry(end).or_default().insert(key);
        }
        let open = self.windows.split_off(&progress.closed.saturating_add(1));
        for key in std::mem::replace(&mut self.windows, open).into_values().flatten() {
            self.rows.forget(&key);
        }
        Ok(())
    }

    fn abort(&mut self) {
        self.staged = None;
        self.idle.iter_mut().for_each(IdleKeys::abort);
    }

    fn logs(&self) -> Vec<&SegmentLog> {
        std::iter::once(self.rows.log()).chain(self.idle.as_ref().map(IdleKeys::log)).collect()
    }

    fn meta(&self) -> serde_json::Value {
        let mut meta = self.progress.meta();
        meta["started"] = json!(self.started);
        meta
    }

    fn restore(&mut self, logs: Vec<SegmentLog>, meta: &serde_json::Value) -> TidegateResult<()> {
        self.progress = Progress::restore(meta)?;
        self.started = meta["started"].as_bool().ok_or_else(|| Error::Internal("a checkpoint's operator does not say whether it has started".into()))?;
        self.staged = None;
        self.windows.clear();
        let mut logs = logs;
        if let Some(idle) = &mut self.idle {
            idle.restore(logs.pop().ok_or_else(|| Error::Internal("a checkpoint's operator does not say when its keys were touched".into()))?)?;
        }
        let log = only_log(logs)?;
        #[cfg(test)]
        let log = if Mutant::StateForgotten.is_on() { SegmentLog::new(self.spec.rows.clone()) } else { log };
        let (spec, encoder, windows) = (&self.spec, &self.encoder, &mut self.windows);
        let mut found = vec![];
        for part in log.live() {
            let (_, rows) = part?;
            let columns = spec.key_columns(&rows)?;
            if let Some(ends) = spec.ends(&columns)? {
                let keys = encoder.encode(&columns, rows.num_rows())?;
                found.extend(keys.into_iter().enumerate().filter(|(row, _)| ends.is_valid(*row)).map(|(row, key)| (ends.value(row), key)));
            }
        }
        for (end, key) in found {
            windows.entry(end).or_default().insert(key);
        }
        self.rows.restore(log, |rows| encoder.encode(&spec.key_columns(rows)?, rows.num_rows()))
    }

    fn has_open_windows(&self) -> bool {
        !self.windows.is_empty() && self.spec.window.as_ref().is_some_and(|window| window.timeline != Timeline::Processing)
    }

    fn last_window(&self) -> Option<i64> {
        if self.has_open_windows() { self.windows.keys().next_back().copied() } else { None }
    }

    fn due(&self) -> Option<i64> {
        self.idle.as_ref()?.due()
    }

    fn rows(&self) -> usize {
        self.rows.rows()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.idle.as_ref().map_or(0, IdleKeys::bytes)
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
