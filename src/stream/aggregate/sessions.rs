//! Aggregates by session: windows that are made by the rows themselves. Rows of one key that follow each other closer than the gap are
//! one session; a row between two sessions makes them one.
//!
//! An epoch's rows are cut into sessions by themselves and aggregated, then each is merged with the stored sessions that it touches.
//! Two sessions touch where the half-open stretches `[first row, last row + gap)` overlap. Ends are counted in 128 bits: the last one may lie
//! beyond what a timestamp holds. Such a session has no bounds, as in a batch, and never closes.
//!
//! A row from before the closing time is late unless it falls into a session that is still open: further left it might touch one that
//! has closed already. So the answer is that of a batch over the rows that were not late.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatchOptions, UInt64Array},
    compute::{concat_batches, filter_record_batch, interleave, interleave_record_batch},
    datatypes::{Int64Type, UInt64Type},
    record_batch::RecordBatch,
    row::RowConverter,
};
use datafusion::common::{Result, internal_err};
use tidegate_udfs::window::Bound;

use super::{
    node::{Emission, Sessions},
    progress::{Advance, Progress},
    spec::{AggregateSpec, behind_its_window, converter},
};
use crate::{
    error::{Error, Result as TidegateResult},
    stream::{
        epoch::{LateRow, OperatorState, only_log},
        hidden::ROW,
        keyed_rows::Key,
        segments::{RowId, SegmentLog},
    },
};

/// How the log holds a session: behind its values its start, and the time of its last row. It once was the end of it.
const LAYOUT: &str = "start, last";

/// The sessions between epochs.
#[derive(Debug)]
pub struct SessionState {
    spec: Arc<AggregateSpec>,
    sessions: Sessions,
    /// Positions of the group columns that are no bound of the session.
    plain: Vec<usize>,
    keys: Option<RowConverter>,
    values: Option<RowConverter>,
    log: SegmentLog,
    /// For each key its open sessions: by start the end, and where the row is.
    index: HashMap<Key, BTreeMap<i64, (i128, RowId)>>,
    /// Open sessions by their end, with key and start.
    ends: BTreeMap<(i128, RowId), (Key, i64)>,
    progress: Progress,
    staged: Option<Staged>,
}

/// One epoch's work, not yet part of the state.
#[derive(Debug)]
struct Staged {
    /// Sessions that were merged into others, or have closed: their ends and rows.
    gone: Vec<(i128, RowId)>,
    /// Rows of sessions that are new or have grown.
    rows: RecordBatch,
    sessions: Vec<(Key, i64, i128)>,
    progress: Progress,
}

/// A session of an epoch's own rows.
struct Fresh {
    key: Key,
    start: i64,
    end: i128,
    /// One of its rows.
    row: usize,
}

/// A session after the epoch.
struct Merged {
    key: Key,
    start: i64,
    end: i128,
    /// Stored sessions that went into it: start, end, row.
    olds: Vec<(i64, i128, RowId)>,
    /// Sessions of the epoch that went into it, by position.
    fresh: Vec<usize>,
}

/// The new rows of a set of sessions, and the stored ones that they replace, session by session.
struct Touched {
    merged: Vec<Merged>,
    old: RecordBatch,
    rows: RecordBatch,
}

impl SessionState {
    /// No sessions yet.
    pub fn new(spec: Arc<AggregateSpec>, sessions: Sessions) -> Result<Self> {
        let plain: Vec<usize> = (0..spec.key_width()).filter(|c| sessions.columns.iter().all(|(bound, _)| bound != c)).collect();
        let key_fields: Vec<_> = plain.iter().map(|c| spec.key.fields()[*c].clone()).collect();
        let values = spec.key_width() + spec.state_width()..spec.stored.fields().len() - 2;
        Ok(Self {
            keys: converter(&key_fields)?,
            values: converter(&spec.stored.fields()[values])?,
            log: SegmentLog::new(spec.stored.clone()),
            plain,
            sessions,
            spec,
            index: HashMap::new(),
            ends: BTreeMap::new(),
            progress: Progress::NONE,
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
                let encoded = converter.convert_columns(&self.plain.iter().map(|c| columns[*c].clone()).collect::<Vec<_>>())?;
                Ok((0..rows).map(|row| encoded.row(row).data().into()).collect())
            }
        }
    }

    /// Takes an epoch's rows in, closes sessions, and returns what is emitted. Takes effect with `commit`.
    pub fn stage(&mut self, input: &[RecordBatch], advance: Advance, late: &mut Vec<LateRow>) -> Result<Option<RecordBatch>> {
        let touched = self.touch(input, advance.judged, late)?;
        let known = |end: i128| i64::try_from(end).ok();
        let last_stored = self.ends.keys().rev().find_map(|(end, _)| known(*end));
        let advance = advance.closing(last_stored.into_iter().chain(touched.merged.iter().filter_map(|m| known(m.end))).max());
        let replaced: BTreeSet<RowId> = touched.merged.iter().flat_map(|m| m.olds.iter().map(|(_, _, row)| *row)).collect();
        let untouched = |after: i64, upto: i64| -> Vec<(i128, RowId)> {
            let ends = self.ends.range((i128::from(after) + 1, 0)..);
            ends.map(|(end, _)| *end).take_while(|(end, _)| *end <= i128::from(upto)).filter(|(_, row)| !replaced.contains(row)).collect()
        };
        let emitted = match self.spec.emission {
            Emission::Changes | Emission::Corrected => {
                let first_shown = match self.spec.emission {
                    Emission::Corrected if advance.to.passed > self.progress.passed => untouched(self.progress.passed, advance.to.passed),
                    _ => vec![],
                };
                self.differences(&touched, &first_shown, advance.to.passed)?
            }
            Emission::OnClose => {
                let closing = if advance.to.closed > self.progress.closed { untouched(self.progress.closed, advance.to.closed) } else { vec![] };
                self.closing(&touched, &closing, advance.to.closed)?
            }
        };
        let closed = i128::from(advance.to.closed);
        let mut gone: Vec<(i128, RowId)> = touched.merged.iter().flat_map(|m| m.olds.iter().map(|(_, end, row)| (*end, *row))).collect();
        gone.extend(self.ends.keys().take_while(|(end, _)| *end <= closed).filter(|(_, row)| !replaced.contains(row)));
        let open: BooleanArray = touched.merged.iter().map(|m| Some(m.end > closed)).collect();
        let rows = filter_record_batch(&touched.rows, &open)?;
        let sessions = touched.merged.into_iter().filter(|m| m.end > closed).map(|m| (m.key, m.start, m.end)).collect();
        self.staged = Some(Staged { gone, rows, sessions, progress: advance.to });
        Ok(emitted)
    }

    /// The sessions that an epoch's rows make or extend.
    fn touch(&self, input: &[RecordBatch], judged: i64, late: &mut Vec<LateRow>) -> Result<Touched> {
        let spec = &self.spec;
        let nothing = || Touched { merged: vec![], old: RecordBatch::new_empty(spec.stored.clone()), rows: RecordBatch::new_empty(spec.stored.clone()) };
        let Some(first) = input.first() else { return Ok(nothing()) };
        let batch = concat_batches(first.schema_ref(), input)?;
        let Some((batch, columns)) = self.in_time(batch, judged, late)? else { return Ok(nothing()) };
        let times = self.times(&columns)?;
        let keys = self.encode(&columns, batch.num_rows())?;
        let mut order: Vec<usize> = (0..batch.num_rows()).collect();
        order.sort_by(|a, b| (&keys[*a], times[*a]).cmp(&(&keys[*b], times[*b])));
        let mut fresh: Vec<Fresh> = vec![];
        let mut group_of = vec![0; batch.num_rows()];
        for row in order {
            let (time, end) = (times[row], self.end(times[row]));
            match fresh.last_mut() {
                Some(last) if last.key == keys[row] && i128::from(time) < last.end => last.end = last.end.max(end),
                _ => fresh.push(Fresh { key: keys[row].clone(), start: time, end, row }),
            }
            group_of[row] = fresh.len() - 1;
        }
        let mut accumulators = spec.accumulators()?;
        spec.update(&mut accumulators, &batch, &group_of, fresh.len())?;
        let partial = spec.states(&mut accumulators)?;

        let mut merged = self.merge(&fresh);
        // Each merge may only count groups that it or an earlier one touched: those with a stored row first.
        merged.sort_by_key(|m| m.olds.is_empty());
        let with_old = merged.iter().filter(|m| !m.olds.is_empty()).count();
        let olds: Vec<RowId> = merged.iter().flat_map(|m| m.olds.iter().map(|(_, _, row)| *row)).collect();
        let old = self.log.gather(&olds)?;
        let states = spec.key_width()..spec.key_width() + spec.state_width();
        let mut accumulators = spec.accumulators()?;
        if with_old > 0 {
            let groups: Vec<usize> = merged.iter().enumerate().flat_map(|(group, m)| std::iter::repeat_n(group, m.olds.len())).collect();
            spec.merge(&mut accumulators, &old.columns()[states], &groups, with_old)?;
        }
        let mut session_of = vec![0; fresh.len()];
        merged.iter().enumerate().for_each(|(session, m)| m.fresh.iter().for_each(|f| session_of[*f] = session));
        spec.merge(&mut accumulators, &partial, &session_of, merged.len())?;
        let new_states = spec.states(&mut accumulators)?;
        let representatives = UInt64Array::from_iter_values(merged.iter().map(|m| fresh[m.fresh[0]].row as u64));
        let mut rows: Vec<ArrayRef> = columns.iter().map(|c| arrow::compute::take(c, &representatives, None)).collect::<Result<_, _>>()?;
        for (column, bound) in &self.sessions.columns {
            let instants = merged.iter().map(|m| match (bound, i64::try_from(m.end).ok()) {
                (Bound::Start, Some(_)) => Some(m.start),
                (_, end) => end,
            });
            rows[*column] = spec.instants(*column, instants)?;
        }
        rows.extend(new_states.iter().cloned());
        if spec.emission.changing() {
            // `state` has reset the accumulators, so they can be used again.
            spec.merge(&mut accumulators, &new_states, &(0..merged.len()).collect::<Vec<_>>(), merged.len())?;
            rows.extend(spec.values(&mut accumulators)?);
        }
        rows.push(Arc::new(Int64Array::from_iter_values(merged.iter().map(|m| m.start))));
        rows.push(Arc::new(Int64Array::from_iter_values(merged.iter().map(|m| (m.end - i128::from(self.sessions.gap)) as i64))));
        let rows = RecordBatch::try_new(spec.stored.clone(), rows)?;
        Ok(Touched { merged, old, rows })
    }

    /// The rows that are not late, with their group columns; `None` if there are none. Late ones are reported.
    fn in_time(&self, batch: RecordBatch, judged: i64, late: &mut Vec<LateRow>) -> Result<Option<(RecordBatch, Vec<ArrayRef>)>> {
        let columns = self.spec.group_columns(&batch)?;
        let times = self.times(&columns)?;
        if batch.num_rows() > 0 && times.iter().all(|time| *time >= judged) {
            return Ok(Some((batch, columns)));
        }
        let keys = self.encode(&columns, batch.num_rows())?;
        let locators: Option<&UInt64Array> = batch.column_by_name(ROW).map(|column| column.as_primitive::<UInt64Type>());
        let mut untold = false;
        let keep: BooleanArray = times
            .iter()
            .zip(keys)
            .enumerate()
            .map(|(row, (time, key))| {
                let open = || self.index.get(&key).and_then(|of_key| of_key.range(..=*time).next_back()).is_some_and(|(_, (end, _))| *end > i128::from(*time));
                let keep = *time >= judged || open();
                if !keep {
                    let window_end = time.saturating_add(self.sessions.gap);
                    let told = locators.map(|locators| LateRow { row: locators.value(row), window_start: *time, window_end, watermark: judged });
                    untold |= told.is_none();
                    late.extend(told);
                }
                Some(keep)
            })
            .collect();
        if untold {
            return Err(behind_its_window().into());
        }
        let batch = filter_record_batch(&batch, &keep)?;
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let columns = self.spec.group_columns(&batch)?;
        Ok(Some((batch, columns)))
    }

    /// The rows' event times in nanoseconds since 1970.
    fn times(&self, columns: &[ArrayRef]) -> Result<Vec<i64>> {
        let Some(window) = &self.spec.window else { return internal_err!("a session aggregate has no window") };
        let times = window.ends(&columns[window.group])?;
        if times.null_count() > 0 {
            return internal_err!("a record without event time reached a session");
        }
        Ok(times.values().to_vec())
    }

    /// Merges an epoch's sessions (those of a key next to each other, in time order) with the stored ones that they touch.
    fn merge(&self, fresh: &[Fresh]) -> Vec<Merged> {
        let mut merged: Vec<Merged> = vec![];
        let mut base = 0;
        for of_key in fresh.chunk_by(|a, b| a.key == b.key) {
            let stored = self.index.get(&of_key[0].key);
            let mut parts: Vec<(i64, i128, Option<RowId>, Option<usize>)> =
                of_key.iter().enumerate().map(|(i, f)| (f.start, f.end, None, Some(base + i))).collect();
            #[cfg(test)]
            let stored = stored.filter(|_| !crate::stream::tests::mutants::Mutant::SessionTorn.is_on());
            let mut seen = BTreeSet::new();
            for f in of_key {
                let last = i64::try_from(f.end - 1).unwrap_or(i64::MAX);
                for (start, (end, row)) in stored.into_iter().flat_map(|s| s.range(..=last).rev()).take_while(|(_, (end, _))| *end > i128::from(f.start)) {
                    if seen.insert(*row) {
                        parts.push((*start, *end, Some(*row), None));
                    }
                }
            }
            parts.sort_unstable_by_key(|(start, end, row, at)| (*start, *end, *row, *at));
            let mut open: Option<Merged> = None;
            for (start, end, row, at) in parts {
                let session = match &mut open {
                    Some(session) if i128::from(start) < session.end => session,
                    _ => {
                        merged.extend(open.take());
                        open.insert(Merged { key: of_key[0].key.clone(), start, end, olds: vec![], fresh: vec![] })
                    }
                };
                session.end = session.end.max(end);
                session.olds.extend(row.map(|row| (start, end, row)));
                session.fresh.extend(at);
            }
            merged.extend(open);
            base += of_key.len();
        }
        merged
    }

    /// What changed: the sessions that went into one with -1, directly before it with +1; nothing where it is as it was.
    fn differences(&self, touched: &Touched, first_shown: &[(i128, RowId)], passed: i64) -> Result<Option<RecordBatch>> {
        let (width, states) = (self.spec.key_width(), self.spec.state_width());
        let corrected = self.spec.emission == Emission::Corrected;
        let (passed, passed_before) = (i128::from(passed), i128::from(self.progress.passed));
        let values = width + states..self.spec.stored.fields().len() - 2;
        let encoded = match &self.values {
            Some(converter) => {
                Some((converter.convert_columns(&touched.old.columns()[values.clone()])?, converter.convert_columns(&touched.rows.columns()[values])?))
            }
            None => None,
        };
        let fresh = self.log.gather(&first_shown.iter().map(|(_, row)| *row).collect::<Vec<_>>())?;
        let (mut places, mut weights, mut old_row) = (vec![], vec![], 0);
        for (row, session) in touched.merged.iter().enumerate() {
            let olds = old_row..old_row + session.olds.len();
            old_row = olds.end;
            let shown = !corrected || session.end <= passed;
            let same = matches!(session.olds.as_slice(), [(start, end, _)] if (*start, *end) == (session.start, session.end))
                && encoded.as_ref().is_none_or(|(old, new)| old.row(olds.start) == new.row(row));
            let was_shown = |end: i128| !corrected || end <= passed_before;
            if same && shown && was_shown(session.end) {
                continue;
            }
            for (at, (_, end, _)) in olds.zip(&session.olds) {
                if was_shown(*end) {
                    places.push((0, at));
                    weights.push(-1);
                }
            }
            if shown {
                places.push((1, row));
                weights.push(1);
            }
        }
        places.extend((0..fresh.num_rows()).map(|row| (2, row)));
        weights.resize(places.len(), 1);
        if places.is_empty() {
            return Ok(None);
        }
        let all = interleave_record_batch(&[&touched.old, &touched.rows, &fresh], &places)?;
        let last = all.num_columns() - 2;
        let mut columns = all.columns()[..width].to_vec();
        columns.extend_from_slice(&all.columns()[width + states..last]);
        columns.push(Arc::new(Int64Array::from(weights)));
        Ok(Some(RecordBatch::try_new(self.spec.output.clone(), columns)?))
    }

    /// The rows of sessions that close, by end and key.
    fn closing(&self, touched: &Touched, untouched: &[(i128, RowId)], closed: i64) -> Result<Option<RecordBatch>> {
        let stored = self.log.gather(&untouched.iter().map(|(_, row)| *row).collect::<Vec<_>>())?;
        let mut order = vec![];
        for (row, end) in untouched.iter().enumerate() {
            if let Some((key, _)) = self.ends.get(end) {
                order.push(((end.0, key), (0, row)));
            }
        }
        order.extend(touched.merged.iter().enumerate().filter(|(_, m)| m.end <= i128::from(closed)).map(|(row, m)| ((m.end, &m.key), (1, row))));
        if order.is_empty() {
            return Ok(None);
        }
        order.sort_unstable();
        let places: Vec<(usize, usize)> = order.into_iter().map(|(_, place)| place).collect();
        let (width, states) = (self.spec.key_width(), self.spec.state_width());
        let take = |column: usize| interleave(&[stored.column(column).as_ref(), touched.rows.column(column).as_ref()], &places);
        let gathered = (0..width + states).map(take).collect::<Result<Vec<_>, _>>()?;
        let mut accumulators = self.spec.accumulators()?;
        self.spec.merge(&mut accumulators, &gathered[width..], &(0..places.len()).collect::<Vec<_>>(), places.len())?;
        let mut columns = gathered[..width].to_vec();
        columns.extend(self.spec.values(&mut accumulators)?);
        let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
        Ok(Some(RecordBatch::try_new_with_options(self.spec.output.clone(), columns, &options)?))
    }

    /// Where a session ends whose last row is at this time.
    fn end(&self, last: i64) -> i128 {
        i128::from(last) + i128::from(self.sessions.gap)
    }

    fn insert(&mut self, key: Key, start: i64, end: i128, row: RowId) {
        self.ends.insert((end, row), (key.clone(), start));
        self.index.entry(key).or_default().insert(start, (end, row));
    }
}

impl OperatorState for SessionState {
    fn commit(&mut self) -> TidegateResult<()> {
        let Some(Staged { gone, rows, sessions, progress }) = self.staged.take() else { return Ok(()) };
        self.progress = progress;
        for session in gone {
            self.log.remove(session.1);
            if let Some((key, start)) = self.ends.remove(&session)
                && let Some(of_key) = self.index.get_mut(&key)
            {
                of_key.remove(&start);
                if of_key.is_empty() {
                    self.index.remove(&key);
                }
            }
        }
        let ids = self.log.append(rows);
        for ((key, start, end), id) in sessions.into_iter().zip(ids) {
            self.insert(key, start, end, id);
        }
        self.log.compact()
    }

    fn abort(&mut self) {
        self.staged = None;
    }

    fn logs(&self) -> Vec<&SegmentLog> {
        vec![&self.log]
    }

    fn meta(&self) -> serde_json::Value {
        let mut meta = self.progress.meta();
        meta["sessions"] = LAYOUT.into();
        meta
    }

    fn restore(&mut self, logs: Vec<SegmentLog>, meta: &serde_json::Value) -> TidegateResult<()> {
        let broken = || Error::Internal("a checkpoint's sessions lack their bounds".into());
        if meta["sessions"] != LAYOUT {
            return Err(Error::Unsupported(
                "a checkpoint holds sessions as an older version kept them, which this one can't read: drop their view and create it again".into(),
            ));
        }
        self.progress = Progress::restore(meta)?;
        self.log = only_log(logs)?;
        self.staged = None;
        self.index.clear();
        self.ends.clear();
        let parts = self.log.live().collect::<TidegateResult<Vec<_>>>()?;
        for (ids, rows) in parts {
            let [.., starts, lasts] = rows.columns() else { return Err(broken()) };
            let (starts, lasts) = (starts.as_primitive::<Int64Type>().clone(), lasts.as_primitive::<Int64Type>().clone());
            let keys = self.encode(rows.columns(), rows.num_rows())?;
            for (row, (id, key)) in ids.into_iter().zip(keys).enumerate() {
                self.insert(key, starts.value(row), self.end(lasts.value(row)), id);
            }
        }
        Ok(())
    }

    fn has_open_windows(&self) -> bool {
        // Above a join they wait for the watermark.
        !self.ends.is_empty() && !self.spec.follows_the_clock() && self.spec.input.column_with_name(ROW).is_some()
    }

    fn last_window(&self) -> Option<i64> {
        self.ends.keys().rev().find_map(|(end, _)| i64::try_from(*end).ok()).filter(|_| self.has_open_windows())
    }

    fn due(&self) -> Option<i64> {
        if !self.spec.answers_by_the_clock() {
            return None;
        }
        let after = i128::from(self.progress.passed) + 1;
        self.ends.range((after, 0)..).next().and_then(|((end, _), _)| i64::try_from(*end).ok())
    }

    fn rows(&self) -> usize {
        self.log.rows()
    }

    fn bytes(&self) -> usize {
        self.log.bytes() + self.ends.len() * 160
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
