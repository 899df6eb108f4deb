//! The groups of a streaming aggregate between epochs.
//!
//! Rows of the state log are (key, accumulator states[, values emitted last]). An epoch is staged first: everything that can fail
//! happens before anything changes. `commit` then only moves rows.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, RecordBatchOptions},
    compute::{filter_record_batch, interleave_record_batch},
    datatypes::{FieldRef, Fields},
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};
use datafusion::common::Result;
use serde_json::json;

use super::{node::Emission, spec::AggregateSpec};
use crate::{
    error::{Error, Result as TidegateResult},
    stream::{
        epoch::OperatorState,
        segments::{RowId, SegmentLog},
        time::BEGINNING,
    },
};

type Key = Box<[u8]>;

/// The groups.
#[derive(Debug)]
pub struct GroupState {
    spec: Arc<AggregateSpec>,
    keys: Option<RowConverter>,
    values: Option<RowConverter>,
    log: SegmentLog,
    index: HashMap<Key, RowId>,
    /// Groups by the end of their window: what closing drops.
    windows: BTreeMap<i64, Vec<RowId>>,
    /// Windows that end at or before it are closed for good.
    closed: i64,
    /// A global aggregate has given its row over nothing.
    started: bool,
    staged: Option<Staged>,
}

/// One epoch's work, not yet part of the state.
#[derive(Debug)]
struct Staged {
    /// Rows to write, one per slot.
    rows: RecordBatch,
    slots: Vec<Slot>,
    /// Groups that closed: their rows and keys go.
    closed_groups: Vec<(RowId, Key)>,
    closed: i64,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    row: Option<RowId>,
    window_end: Option<i64>,
}

fn converter(fields: &[FieldRef]) -> Result<Option<RowConverter>> {
    if fields.is_empty() {
        return Ok(None);
    }
    Ok(Some(RowConverter::new(fields.iter().map(|f| SortField::new(f.data_type().clone())).collect())?))
}

impl GroupState {
    /// No groups yet.
    pub fn new(spec: Arc<AggregateSpec>) -> Result<Self> {
        let stored_values: &Fields = spec.stored.fields();
        let values = converter(&stored_values[spec.key_width() + spec.state_width()..])?;
        Ok(Self {
            keys: converter(spec.key.fields())?,
            values,
            log: SegmentLog::new(spec.stored.clone()),
            spec,
            index: HashMap::new(),
            windows: BTreeMap::new(),
            closed: BEGINNING,
            started: false,
            staged: None,
        })
    }

    /// Windows that end at or before it are closed for good.
    pub fn closed(&self) -> i64 {
        self.closed
    }

    fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Key>> {
        match &self.keys {
            None => Ok(vec![Key::default(); rows]),
            Some(converter) => {
                let encoded = converter.convert_columns(columns)?;
                Ok((0..rows).map(|row| encoded.row(row).data().into()).collect())
            }
        }
    }

    /// Merges an epoch's partial results, closes windows up to `close`, and returns what is emitted. Takes effect with `commit`.
    pub fn stage(&mut self, partials: &[RecordBatch], close: Option<i64>) -> Result<Option<RecordBatch>> {
        let spec = self.spec.clone();
        let first = if spec.key_width() == 0 && !self.started && partials.is_empty() { Some(spec.nothing()?) } else { None };
        let partials = first.as_ref().map_or(partials, std::slice::from_ref);
        let touched = self.merge(partials)?;
        let close = close.unwrap_or(BEGINNING).max(self.closed);
        let (emitted, staged) = match spec.emission {
            Emission::Changes => {
                let emitted = self.differences(&touched)?;
                (emitted, self.drop_closed(touched, close)?.0)
            }
            Emission::OnClose => {
                let (staged, closing) = self.drop_closed(touched, close)?;
                (self.evaluate_closed(&closing)?, staged)
            }
        };
        self.staged = Some(staged);
        Ok(emitted)
    }

    /// The touched groups with their old rows and their new ones.
    fn merge(&self, partials: &[RecordBatch]) -> Result<Touched> {
        let spec = &self.spec;
        let width = spec.key_width();
        // Groups get dense numbers: those with a stored row first, then new ones in order of appearance, since each merge may
        // only count groups that it or an earlier one touched (see `AggregateSpec::merge`).
        let mut olds: Vec<(Slot, (usize, usize))> = vec![];
        let mut news: Vec<(Slot, (usize, usize))> = vec![];
        let mut seen: HashMap<Key, (bool, usize)> = HashMap::new();
        let mut numbers: Vec<Vec<(bool, usize)>> = vec![];
        let mut new_totals = vec![];
        for (at, partial) in partials.iter().enumerate() {
            let ends = spec.window.as_ref().map(|w| spec.window_ends(w, partial.column(w.group))).transpose()?;
            let mut of_partial = Vec::with_capacity(partial.num_rows());
            for (row, key) in self.encode(&partial.columns()[..width], partial.num_rows())?.into_iter().enumerate() {
                if at > 0
                    && let Some(known) = seen.get(&key)
                {
                    of_partial.push(*known);
                    continue;
                }
                let stored = self.index.get(&key).copied();
                let window_end = ends.as_ref().and_then(|ends| arrow::array::Array::is_valid(ends, row).then(|| ends.value(row)));
                let into = if stored.is_some() { &mut olds } else { &mut news };
                let number = (stored.is_some(), into.len());
                if partials.len() > 1 {
                    seen.insert(key.clone(), number);
                }
                into.push((Slot { key, row: stored, window_end }, (at, row)));
                of_partial.push(number);
            }
            numbers.push(of_partial);
            new_totals.push(news.len());
        }
        let old_count = olds.len();
        let (slots, places): (Vec<Slot>, Vec<(usize, usize)>) = olds.into_iter().chain(news).unzip();
        if slots.is_empty() {
            let none = RecordBatch::new_empty(spec.stored.clone());
            return Ok(Touched { old: none.clone(), rows: none, slots });
        }
        let old = self.log.gather(&slots[..old_count].iter().filter_map(|s| s.row).collect::<Vec<_>>())?;
        let states = width..width + spec.state_width();
        let mut accumulators = spec.accumulators()?;
        if old_count > 0 {
            spec.merge(&mut accumulators, &old.columns()[states.clone()], &(0..old_count).collect::<Vec<_>>(), old_count)?;
        }
        for ((partial, of_partial), new_total) in partials.iter().zip(&numbers).zip(new_totals) {
            let groups: Vec<usize> = of_partial.iter().map(|(stored, n)| if *stored { *n } else { old_count + n }).collect();
            spec.merge(&mut accumulators, &partial.columns()[width..], &groups, old_count + new_total)?;
        }
        let new_states = spec.states(&mut accumulators)?;
        let keys = interleave_record_batch(&partials.iter().collect::<Vec<_>>(), &places)?;
        let mut columns = keys.columns()[..width].to_vec();
        columns.extend(new_states.iter().cloned());
        if spec.emission == Emission::Changes {
            // `state` has reset the accumulators, so they can be used again.
            spec.merge(&mut accumulators, &new_states, &(0..slots.len()).collect::<Vec<_>>(), slots.len())?;
            columns.extend(spec.values(&mut accumulators)?);
        }
        let rows = RecordBatch::try_new_with_options(spec.stored.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(slots.len())))?;
        Ok(Touched { old, rows, slots })
    }

    /// What changed: each group's old row with -1 directly before its new one with +1; nothing where the values are the same.
    fn differences(&self, touched: &Touched) -> Result<Option<RecordBatch>> {
        let (width, states) = (self.spec.key_width(), self.spec.state_width());
        let old_count = touched.old.num_rows();
        let same = |row: usize, pair: &Option<(arrow::row::Rows, arrow::row::Rows)>| match pair {
            Some((old, new)) => old.row(row) == new.row(row),
            None => true,
        };
        let values = match &self.values {
            Some(converter) => Some((
                converter.convert_columns(&touched.old.columns()[width + states..])?,
                converter.convert_columns(&touched.rows.columns()[width + states..])?,
            )),
            None => None,
        };
        let mut places = vec![];
        let mut weights = vec![];
        for row in 0..touched.rows.num_rows() {
            if row < old_count {
                if same(row, &values) {
                    continue;
                }
                places.push((0, row));
                weights.push(-1);
            }
            places.push((1, row));
            weights.push(1);
        }
        if places.is_empty() {
            return Ok(None);
        }
        let both = interleave_record_batch(&[&touched.old, &touched.rows], &places)?;
        let mut columns = both.columns()[..width].to_vec();
        columns.extend_from_slice(&both.columns()[width + states..]);
        columns.push(Arc::new(Int64Array::from(weights)));
        Ok(Some(RecordBatch::try_new(self.spec.output.clone(), columns)?))
    }

    /// Splits off the groups whose windows end at or before `close`: the staged epoch without them, and their rows in key order.
    fn drop_closed(&self, touched: Touched, close: i64) -> Result<(Staged, RecordBatch)> {
        let closes = |slot: &Slot| slot.window_end.is_some_and(|end| end <= close);
        let gone: Vec<RowId> = self.windows.range(..=close).flat_map(|(_, rows)| rows.iter().copied()).collect();
        if gone.is_empty() && !touched.slots.iter().any(closes) {
            let none = RecordBatch::new_empty(self.spec.stored.clone());
            return Ok((Staged { rows: touched.rows, slots: touched.slots, closed_groups: vec![], closed: close }, none));
        }
        let updated: std::collections::HashSet<RowId> = touched.slots.iter().filter_map(|s| s.row).collect();
        let untouched: Vec<RowId> = gone.iter().copied().filter(|row| !updated.contains(row)).collect();
        let stored = self.log.gather(&untouched)?;
        let mut closed_groups = untouched.into_iter().zip(self.encode(&stored.columns()[..self.spec.key_width()], stored.num_rows())?).collect::<Vec<_>>();
        let closing: BooleanArray = touched.slots.iter().map(|s| Some(closes(s))).collect();
        let fresh = filter_record_batch(&touched.rows, &closing)?;
        let rows = filter_record_batch(&touched.rows, &arrow::compute::not(&closing)?)?;
        // In key order: the same bytes whether or not a restart came between.
        let mut order: Vec<(Key, (usize, usize))> = closed_groups.iter().enumerate().map(|(i, (_, key))| (key.clone(), (0, i))).collect();
        let mut slots = vec![];
        let mut fresh_row = 0;
        for slot in touched.slots {
            if !closes(&slot) {
                slots.push(slot);
                continue;
            }
            order.push((slot.key.clone(), (1, fresh_row)));
            fresh_row += 1;
            if let Some(row) = slot.row {
                closed_groups.push((row, slot.key));
            }
        }
        order.sort_unstable();
        let places: Vec<(usize, usize)> = order.into_iter().map(|(_, place)| place).collect();
        let closed_rows =
            if places.is_empty() { RecordBatch::new_empty(self.spec.stored.clone()) } else { interleave_record_batch(&[&stored, &fresh], &places)? };
        Ok((Staged { rows, slots, closed_groups, closed: close }, closed_rows))
    }

    fn evaluate_closed(&self, rows: &RecordBatch) -> Result<Option<RecordBatch>> {
        let count = rows.num_rows();
        if count == 0 {
            return Ok(None);
        }
        let width = self.spec.key_width();
        let mut accumulators = self.spec.accumulators()?;
        self.spec.merge(&mut accumulators, &rows.columns()[width..width + self.spec.state_width()], &(0..count).collect::<Vec<_>>(), count)?;
        let mut columns = rows.columns()[..width].to_vec();
        columns.extend(self.spec.values(&mut accumulators)?);
        Ok(Some(RecordBatch::try_new(self.spec.output.clone(), columns)?))
    }

    fn index_rows(&mut self) -> TidegateResult<()> {
        self.index.clear();
        self.windows.clear();
        let width = self.spec.key_width();
        let parts = self.log.live().collect::<TidegateResult<Vec<_>>>()?;
        for (ids, rows) in parts {
            let ends = self.spec.window.as_ref().map(|w| self.spec.window_ends(w, rows.column(w.group))).transpose()?;
            let keys = self.encode(&rows.columns()[..width], rows.num_rows())?;
            for (row, (id, key)) in ids.into_iter().zip(keys).enumerate() {
                if let Some(ends) = &ends
                    && arrow::array::Array::is_valid(ends, row)
                {
                    self.windows.entry(ends.value(row)).or_default().push(id);
                }
                if self.index.insert(key, id).is_some() {
                    return Err(Error::Internal("a checkpoint holds one group twice".into()));
                }
            }
        }
        Ok(())
    }
}

struct Touched {
    /// Stored rows of the groups that had one, in slot order.
    old: RecordBatch,
    /// New rows of all touched groups, in slot order.
    rows: RecordBatch,
    slots: Vec<Slot>,
}

impl OperatorState for GroupState {
    fn commit(&mut self) -> TidegateResult<()> {
        let Some(Staged { rows, slots, closed_groups, closed }) = self.staged.take() else { return Ok(()) };
        self.started = true;
        self.closed = closed;
        for (row, key) in closed_groups {
            self.log.remove(row);
            self.index.remove(&key);
        }
        self.windows = self.windows.split_off(&closed.saturating_add(1));
        let ids = self.log.upsert(rows, &slots.iter().map(|s| s.row).collect::<Vec<_>>());
        for (slot, id) in slots.into_iter().zip(ids) {
            if slot.row.is_none() {
                if let Some(end) = slot.window_end {
                    self.windows.entry(end).or_default().push(id);
                }
                self.index.insert(slot.key, id);
            }
        }
        self.log.compact()
    }

    fn abort(&mut self) {
        self.staged = None;
    }

    fn log(&self) -> &SegmentLog {
        &self.log
    }

    fn meta(&self) -> serde_json::Value {
        json!({ "closed": self.closed, "started": self.started })
    }

    fn restore(&mut self, log: SegmentLog, meta: &serde_json::Value) -> TidegateResult<()> {
        let broken = || Error::Internal("a checkpoint's aggregate lacks its closing time".into());
        self.closed = meta["closed"].as_i64().ok_or_else(broken)?;
        self.started = meta["started"].as_bool().ok_or_else(broken)?;
        self.log = log;
        self.staged = None;
        self.index_rows()
    }

    fn rows(&self) -> usize {
        self.log.rows()
    }

    fn bytes(&self) -> usize {
        self.log.bytes() + self.index.len() * 64
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
