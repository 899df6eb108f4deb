//! The groups of a streaming aggregate between epochs.
//!
//! Rows of the state log are (key, accumulator states[, values emitted last]). An epoch is staged first: everything that can fail
//! happens before anything changes. `commit` then only moves rows.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatchOptions, UInt64Array},
    compute::{concat_batches, filter_record_batch, interleave_record_batch, take_record_batch},
    datatypes::{Fields, Int64Type},
    record_batch::RecordBatch,
    row::RowConverter,
};
use datafusion::common::Result;
use serde_json::json;

use super::{
    node::{Emission, Panes, WindowKey},
    progress::{Advance, Progress},
    spec::{AggregateSpec, converter},
};
use crate::{
    error::{Error, Result as TidegateResult},
    stream::{
        epoch::{OperatorState, only_log},
        hidden::ROW,
        idle_keys::IdleKeys,
        key_map::{KeyHash, KeyMap},
        keyed_rows::Key,
        segments::{RowId, SegmentLog},
        time::BEGINNING,
    },
};

#[cfg(test)]
use crate::stream::tests::mutants::Mutant;

/// The groups.
#[derive(Debug)]
pub struct GroupState {
    spec: Arc<AggregateSpec>,
    keys: Option<RowConverter>,
    values: Option<RowConverter>,
    log: SegmentLog,
    index: KeyMap<RowId>,
    /// Groups by the end of their window, or of their pane: what closing drops.
    windows: BTreeMap<i64, Vec<RowId>>,
    /// Groups that are forgotten when no row comes for them.
    idle: Option<IdleKeys>,
    progress: Progress,
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
    /// Groups that lost their last row.
    dead: Vec<Slot>,
    /// Groups up to this place in `windows` are gone.
    dropped: i64,
    progress: Progress,
}

/// Groups that no row has come for in a long time.
struct Forgotten {
    /// What takes their rows back.
    rows: RecordBatch,
    groups: Vec<(RowId, Key)>,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    row: Option<RowId>,
    window_end: Option<i64>,
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
            idle: spec.idle_after.map(IdleKeys::new),
            spec,
            index: KeyMap::default(),
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

    fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Key>> {
        match &self.keys {
            None => Ok(vec![Key::default(); rows]),
            Some(converter) => {
                let encoded = converter.convert_columns(columns)?;
                Ok((0..rows).map(|row| encoded.row(row).data().into()).collect())
            }
        }
    }

    /// Merges an epoch's partial results, closes windows, and returns what is emitted. `now` is the epoch's time in nanoseconds since 1970.
    /// Takes effect with `commit`.
    pub fn stage(&mut self, partials: Vec<RecordBatch>, advance: Advance, now: i64) -> Result<Option<RecordBatch>> {
        let spec = self.spec.clone();
        let panes = spec.window.as_ref().and_then(|window| Some((window, window.panes.as_ref()?)));
        let mut partials = partials;
        if spec.key_width() == 0 && !self.started && partials.is_empty() {
            partials.push(spec.nothing()?);
        }
        // Groups of windows that emit changes are kept by window: each epoch's partial result goes to all of its windows at once.
        if let Some((window, panes)) = panes
            && spec.emission.changing()
        {
            partials = partials.iter().map(|rows| spec.expand(window, panes, rows, |end| end > advance.judged)).collect::<Result<_>>()?;
        }
        #[cfg(test)]
        if Mutant::CountedTwice.is_on() {
            partials.extend(partials.first().cloned());
        }
        let mut touched = self.merge(&partials, now)?;
        let advance = advance.closing(self.last_end(&touched.slots));
        let changes = if spec.emission.changing() { self.differences(&touched, advance.to.passed)? } else { None };
        self.bury(&mut touched)?;
        let (emitted, staged) = match spec.emission {
            Emission::Changes | Emission::Corrected => {
                let forgotten = self.forget(&touched, now)?;
                let mut staged = self.drop_closed(touched, advance)?.0;
                let mut changes: Vec<RecordBatch> = changes.into_iter().collect();
                if let Some(Forgotten { rows, groups }) = forgotten {
                    changes.push(rows);
                    staged.closed_groups.extend(groups);
                }
                (if changes.is_empty() { None } else { Some(concat_batches(&spec.output, &changes)?) }, staged)
            }
            Emission::OnClose => match panes {
                None => {
                    let (staged, closing) = self.drop_closed(touched, advance)?;
                    (self.evaluate_closed(&closing)?, staged)
                }
                Some((window, panes)) => {
                    let emitted = self.closing_windows(window, panes, &touched, advance)?;
                    (emitted, self.drop_closed(touched, advance)?.0)
                }
            },
        };
        self.staged = Some(staged);
        Ok(emitted)
    }

    /// Groups that no row has come for in a long time.
    fn forget(&mut self, touched: &Touched, now: i64) -> Result<Option<Forgotten>> {
        let Some(idle) = &mut self.idle else { return Ok(None) };
        let keys = idle.stage(touched.slots.iter().map(|slot| slot.key.clone()).collect(), now);
        let groups: Vec<(RowId, Key)> = keys.into_iter().filter_map(|key| Some((*self.index.get(KeyHash::of(&key))?, key))).collect();
        if groups.is_empty() {
            return Ok(None);
        }
        let rows = self.log.gather(&groups.iter().map(|(row, _)| *row).collect::<Vec<_>>())?;
        let (width, states) = (self.spec.key_width(), self.spec.state_width());
        let mut columns = rows.columns()[..width].to_vec();
        columns.extend_from_slice(&rows.columns()[width + states..]);
        columns.push(Arc::new(Int64Array::from_value(-1, rows.num_rows())));
        Ok(Some(Forgotten { rows: RecordBatch::try_new(self.spec.output.clone(), columns)?, groups }))
    }

    /// Whether a group has rows, where that is counted; a global aggregate is there without any.
    fn is_alive(&self, rows: &RecordBatch, row: usize) -> bool {
        let width = self.spec.key_width();
        !self.spec.counted || width == 0 || rows.column(width).as_primitive::<Int64Type>().value(row) > 0
    }

    /// Takes groups out that have lost their last row.
    fn bury(&self, touched: &mut Touched) -> Result<()> {
        if !self.spec.counted || (0..touched.rows.num_rows()).all(|row| self.is_alive(&touched.rows, row)) {
            return Ok(());
        }
        let alive: BooleanArray = (0..touched.rows.num_rows()).map(|row| Some(self.is_alive(&touched.rows, row))).collect();
        touched.rows = filter_record_batch(&touched.rows, &alive)?;
        let slots = std::mem::take(&mut touched.slots).into_iter().zip(alive.values().iter());
        let (alive, dead): (Vec<_>, Vec<_>) = slots.partition(|(_, alive)| *alive);
        touched.slots = alive.into_iter().map(|(slot, _)| slot).collect();
        touched.dead = dead.into_iter().map(|(slot, _)| slot).filter(|slot| slot.row.is_some()).collect();
        Ok(())
    }

    /// The touched groups with their old rows and their new ones.
    fn merge(&self, partials: &[RecordBatch], now: i64) -> Result<Touched> {
        let spec = &self.spec;
        let width = spec.key_width();
        // Groups get dense numbers: those with a stored row first, then new ones in order of appearance, since each merge may
        // only count groups that it or an earlier one touched (see `AggregateSpec::merge`).
        let mut olds: Vec<(Slot, (usize, usize))> = vec![];
        let mut news: Vec<(Slot, (usize, usize))> = vec![];
        // Within one partial result a key stands once, except where panes were made windows.
        let repeats = partials.len() > 1 || spec.window.as_ref().is_some_and(|w| w.panes.is_some());
        let mut seen: HashMap<Key, (bool, usize)> = HashMap::new();
        let mut numbers: Vec<Vec<(bool, usize)>> = vec![];
        let mut new_totals = vec![];
        for (at, partial) in partials.iter().enumerate() {
            let ends = spec.kept.as_ref().map(|w| w.ends(partial.column(w.group))).transpose()?;
            let mut of_partial = Vec::with_capacity(partial.num_rows());
            for (row, key) in self.encode(&partial.columns()[..width], partial.num_rows())?.into_iter().enumerate() {
                if repeats && let Some(known) = seen.get(&key) {
                    of_partial.push(*known);
                    continue;
                }
                let is_over = self.idle.as_ref().is_some_and(|idle| idle.is_over(&key, now));
                let stored = if is_over { None } else { self.index.get(KeyHash::of(&key)).copied() };
                let window_end = ends.as_ref().and_then(|ends| arrow::array::Array::is_valid(ends, row).then(|| ends.value(row)));
                let into = if stored.is_some() { &mut olds } else { &mut news };
                let number = (stored.is_some(), into.len());
                if repeats {
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
            return Ok(Touched { old: none.clone(), rows: none, slots, dead: vec![] });
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
        if spec.emission.changing() {
            // `state` has reset the accumulators, so they can be used again.
            spec.merge(&mut accumulators, &new_states, &(0..slots.len()).collect::<Vec<_>>(), slots.len())?;
            columns.extend(spec.values(&mut accumulators)?);
        }
        let rows = RecordBatch::try_new_with_options(spec.stored.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(slots.len())))?;
        Ok(Touched { old, rows, slots, dead: vec![] })
    }

    /// What changed: each group's old row with -1 directly before its new one with +1; nothing where the values are the same. Groups
    /// of windows that the watermark has not passed say nothing where corrections only follow a first answer.
    fn differences(&self, touched: &Touched, passed: i64) -> Result<Option<RecordBatch>> {
        let (width, states) = (self.spec.key_width(), self.spec.state_width());
        let old_count = touched.old.num_rows();
        let corrected = self.spec.emission == Emission::Corrected;
        let shown = |row: usize, passed: i64| !corrected || touched.slots[row].window_end.is_some_and(|end| end <= passed);
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
        let fresh = if corrected { self.first_shown(touched, passed)? } else { RecordBatch::new_empty(self.spec.stored.clone()) };
        let mut places = vec![];
        let mut weights = vec![];
        for row in 0..touched.rows.num_rows() {
            if !shown(row, passed) {
                continue;
            }
            let was = row < old_count && shown(row, self.progress.passed) && self.is_alive(&touched.old, row);
            let is = self.is_alive(&touched.rows, row);
            if was && is && same(row, &values) {
                continue;
            }
            if was {
                places.push((0, row));
                weights.push(-1);
            }
            if is {
                places.push((1, row));
                weights.push(1);
            }
        }
        places.extend((0..fresh.num_rows()).map(|row| (2, row)));
        weights.resize(places.len(), 1);
        if places.is_empty() {
            return Ok(None);
        }
        let both = interleave_record_batch(&[&touched.old, &touched.rows, &fresh], &places)?;
        let mut columns = both.columns()[..width].to_vec();
        columns.extend_from_slice(&both.columns()[width + states..]);
        columns.push(Arc::new(Int64Array::from(weights)));
        Ok(Some(RecordBatch::try_new(self.spec.output.clone(), columns)?))
    }

    /// Stored rows of untouched groups whose windows the watermark passes with this epoch, in key order.
    fn first_shown(&self, touched: &Touched, passed: i64) -> Result<RecordBatch> {
        let updated = touched.stored();
        let after = self.progress.passed.saturating_add(1);
        let newly: Vec<RowId> = if after > passed {
            vec![]
        } else {
            self.windows.range(after..=passed).flat_map(|(_, rows)| rows).filter(|row| !updated.contains(row)).copied().collect()
        };
        let rows = self.log.gather(&newly)?;
        let mut order: Vec<(Key, u64)> = self.encode(&rows.columns()[..self.spec.key_width()], rows.num_rows())?.into_iter().zip(0..).collect();
        order.sort_unstable();
        Ok(take_record_batch(&rows, &UInt64Array::from_iter_values(order.into_iter().map(|(_, row)| row)))?)
    }

    /// The latest end of an open window.
    fn last_end<'a>(&self, touched: impl IntoIterator<Item = &'a Slot>) -> Option<i64> {
        let last = self.windows.keys().next_back().copied().into_iter().chain(touched.into_iter().filter_map(|s| s.window_end)).max()?;
        match self.kept_panes() {
            Some(panes) => panes.last_end(last),
            None => Some(last),
        }
    }

    /// Panes, where groups are kept by pane: the windows' rows are put together when they close.
    fn kept_panes(&self) -> Option<&Panes> {
        self.spec.kept.as_ref()?.panes.as_ref()
    }

    /// The rows of windows that close with this epoch, put together from their panes, in key order.
    fn closing_windows(&self, window: &WindowKey, panes: &Panes, touched: &Touched, advance: Advance) -> Result<Option<RecordBatch>> {
        let closing = |end: i64| end > advance.judged && end <= advance.to.closed;
        if advance.to.closed <= advance.judged {
            return Ok(None);
        }
        let updated = touched.stored();
        let stored: Vec<RowId> = self
            .windows
            .iter()
            .filter(|(pane_end, _)| panes.ends(**pane_end).any(closing))
            .flat_map(|(_, rows)| rows)
            .filter(|row| !updated.contains(row))
            .copied()
            .collect();
        let width = self.spec.key_width() + self.spec.state_width();
        let mut rows = vec![];
        for part in [self.log.gather(&stored)?, touched.rows.clone()] {
            rows.push(self.spec.expand(window, panes, &part, closing)?);
        }
        let rows = concat_batches(&self.spec.stored, &rows)?;
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        let keys = self.encode(&rows.columns()[..self.spec.key_width()], rows.num_rows())?;
        let mut groups: BTreeMap<&Key, (usize, u64)> = BTreeMap::new();
        for (row, key) in keys.iter().enumerate() {
            groups.entry(key).or_insert((0, row as u64));
        }
        let mut firsts = vec![];
        for (number, (group, first)) in groups.values_mut().enumerate() {
            *group = number;
            firsts.push(*first);
        }
        let numbers: Vec<usize> = keys.iter().map(|key| groups[key].0).collect();
        let mut accumulators = self.spec.accumulators()?;
        self.spec.merge(&mut accumulators, &rows.columns()[self.spec.key_width()..width], &numbers, firsts.len())?;
        let mut columns = take_record_batch(&rows, &UInt64Array::from(firsts))?.columns()[..self.spec.key_width()].to_vec();
        columns.extend(self.spec.values(&mut accumulators)?);
        Ok(Some(RecordBatch::try_new(self.spec.output.clone(), columns)?))
    }

    /// Splits off the groups that close: the staged epoch without them, and their rows in key order.
    fn drop_closed(&self, touched: Touched, advance: Advance) -> Result<(Staged, RecordBatch)> {
        let dropped = match self.kept_panes() {
            None => advance.to.closed,
            // The last window of a later pane ends later, or at the same time.
            Some(panes) => {
                let ends = self.windows.keys().copied().chain(touched.slots.iter().filter_map(|s| s.window_end));
                ends.filter(|end| panes.last_end(*end).is_none_or(|last| last <= advance.to.closed)).max().unwrap_or(BEGINNING)
            }
        };
        let staged = |rows, slots, closed_groups, dead| Staged { rows, slots, closed_groups, dead, dropped, progress: advance.to };
        let closes = |slot: &Slot| slot.window_end.is_some_and(|end| end <= dropped);
        let gone: Vec<RowId> = self.windows.range(..=dropped).flat_map(|(_, rows)| rows.iter().copied()).collect();
        if gone.is_empty() && !touched.slots.iter().any(closes) {
            return Ok((staged(touched.rows, touched.slots, vec![], touched.dead), RecordBatch::new_empty(self.spec.stored.clone())));
        }
        let updated = touched.stored();
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
        Ok((staged(rows, slots, closed_groups, touched.dead), closed_rows))
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
            let ends = self.spec.kept.as_ref().map(|w| w.ends(rows.column(w.group))).transpose()?;
            let keys = self.encode(&rows.columns()[..width], rows.num_rows())?;
            for (row, (id, key)) in ids.into_iter().zip(keys).enumerate() {
                if let Some(ends) = &ends
                    && arrow::array::Array::is_valid(ends, row)
                {
                    self.windows.entry(ends.value(row)).or_default().push(id);
                }
                if self.index.insert(KeyHash::of(&key), id).is_some() {
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
    /// Groups that have lost their last row.
    dead: Vec<Slot>,
}

impl Touched {
    /// The groups' rows that are stored.
    fn stored(&self) -> HashSet<RowId> {
        self.slots.iter().chain(&self.dead).filter_map(|slot| slot.row).collect()
    }
}

impl OperatorState for GroupState {
    fn commit(&mut self) -> TidegateResult<()> {
        let Some(Staged { rows, slots, closed_groups, dead, dropped, progress }) = self.staged.take() else { return Ok(()) };
        self.started = true;
        self.progress = progress;
        for (row, key) in closed_groups {
            self.log.remove(row);
            self.index.remove(KeyHash::of(&key));
        }
        for Slot { key, row, window_end } in dead {
            let Some(row) = row else { continue };
            self.log.remove(row);
            self.index.remove(KeyHash::of(&key));
            if let Some(of_window) = window_end.and_then(|end| self.windows.get_mut(&end)) {
                of_window.retain(|other| *other != row);
            }
        }
        self.windows = self.windows.split_off(&dropped.saturating_add(1));
        let ids = self.log.upsert(rows, &slots.iter().map(|s| s.row).collect::<Vec<_>>());
        for (slot, id) in slots.into_iter().zip(ids) {
            if slot.row.is_none() {
                if let Some(end) = slot.window_end {
                    self.windows.entry(end).or_default().push(id);
                }
                self.index.insert(KeyHash::of(&slot.key), id);
            }
        }
        self.idle.as_mut().map_or(Ok(()), IdleKeys::commit)?;
        self.log.compact()
    }

    fn abort(&mut self) {
        self.staged = None;
        self.idle.iter_mut().for_each(IdleKeys::abort);
    }

    fn logs(&self) -> Vec<&SegmentLog> {
        std::iter::once(&self.log).chain(self.idle.as_ref().map(IdleKeys::log)).collect()
    }

    fn meta(&self) -> serde_json::Value {
        let mut meta = self.progress.meta();
        meta["started"] = json!(self.started);
        meta
    }

    fn restore(&mut self, logs: Vec<SegmentLog>, meta: &serde_json::Value) -> TidegateResult<()> {
        self.progress = Progress::restore(meta)?;
        self.started = meta["started"].as_bool().ok_or_else(|| Error::Internal("a checkpoint's aggregate does not say whether it has started".into()))?;
        let mut logs = logs;
        if let Some(idle) = &mut self.idle {
            idle.restore(logs.pop().ok_or_else(|| Error::Internal("a checkpoint's aggregate does not say when its groups were touched".into()))?)?;
        }
        self.log = only_log(logs)?;
        self.staged = None;
        #[cfg(test)]
        if Mutant::StateForgotten.is_on() {
            self.log = SegmentLog::new(self.spec.stored.clone());
        }
        self.index_rows()
    }

    fn has_open_windows(&self) -> bool {
        // Above a join they wait for the watermark.
        !self.windows.is_empty() && !self.spec.follows_the_clock() && self.spec.input.column_with_name(ROW).is_some()
    }

    fn last_window(&self) -> Option<i64> {
        if self.has_open_windows() { self.last_end([]) } else { None }
    }

    fn due(&self) -> Option<i64> {
        if let Some(idle) = &self.idle {
            return idle.due();
        }
        if !self.spec.answers_by_the_clock() {
            return None;
        }
        match self.kept_panes() {
            // The earliest pane is part of the earliest window.
            Some(panes) => panes.ends(*self.windows.keys().next()?).find(|end| *end > self.progress.passed),
            None => self.windows.range(self.progress.passed.saturating_add(1)..).next().map(|(end, _)| *end),
        }
    }

    fn answer(&self) -> TidegateResult<Option<Vec<RecordBatch>>> {
        if self.spec.emission != Emission::Changes || self.spec.window.is_some() {
            return Ok(None);
        }
        let (width, states) = (self.spec.key_width(), self.spec.state_width());
        let given = |rows: TidegateResult<RecordBatch>| {
            let rows = rows?;
            // The values emitted last are held beside the states.
            let mut columns = rows.columns()[..width].to_vec();
            columns.extend_from_slice(&rows.columns()[width + states..]);
            columns.push(Arc::new(Int64Array::from_value(1, rows.num_rows())));
            Ok(RecordBatch::try_new(self.spec.output.clone(), columns)?)
        };
        self.log.snapshot().batches().map(given).collect::<TidegateResult<_>>().map(Some)
    }

    fn rows(&self) -> usize {
        self.log.rows()
    }

    fn bytes(&self) -> usize {
        self.log.bytes() + self.index.bytes() + self.windows.len() * 64 + self.log.rows() * 4 + self.idle.as_ref().map_or(0, IdleKeys::bytes)
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
