//! The rows that time will still move: those whose time has not come yet, and those that will go. A row that stays for ever, or is gone
//! for ever, is not held.

use std::{
    any::Any,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use serde_json::json;

use crate::{
    error::{Error, Result},
    stream::{
        epoch::{OperatorState, only_log},
        hidden::WEIGHT,
        key_map::KeyHash,
        row_index::RowIndex,
        segments::{RowId, SegmentLog, gathered},
        time::BEGINNING,
    },
};

#[cfg(test)]
use crate::stream::tests::mutants::Mutant;

/// A batch of changes, each row with the time for which it is there: `from <= clock < until`, in nanoseconds since 1970.
#[derive(Debug)]
pub struct Arriving {
    /// The rows.
    pub rows: RecordBatch,
    /// `1` adds the row, `-1` takes one like it away.
    pub weights: Int64Array,
    /// When each is there first.
    pub from: Vec<i64>,
    /// When each is there no longer.
    pub until: Vec<i64>,
}

/// The rows between epochs.
#[derive(Debug)]
pub struct TemporalState {
    /// What it gives: the rows' columns and the weight.
    output: SchemaRef,
    rows: SchemaRef,
    /// The rows' columns, then `from` and `until`.
    log: SegmentLog,
    /// Finds a row that is taken away; only where the input is a changing one.
    index: Option<RowIndex>,
    /// Rows that are not there yet, by when they will be.
    coming: BTreeSet<(i64, RowId)>,
    /// Rows that go, by when.
    going: BTreeSet<(i64, RowId)>,
    /// Where the clock stood.
    now: i64,
    staged: Option<Staged>,
}

/// One epoch's work, not yet part of the state.
#[derive(Debug)]
struct Staged {
    now: i64,
    gone: Vec<RowId>,
    held: RecordBatch,
    limits: Vec<(i64, i64)>,
    hashes: Vec<Option<KeyHash>>,
}

/// A row of this epoch that is to be held.
struct Fresh {
    place: (usize, usize),
    limits: (i64, i64),
    hash: Option<KeyHash>,
}

impl TemporalState {
    /// No rows. `output` ends with the weight; `changing`: the input takes rows away.
    pub fn new(output: SchemaRef, changing: bool) -> Result<Self> {
        let rows: Vec<FieldRef> = output.fields().iter().filter(|f| f.name() != WEIGHT).cloned().collect();
        let rows = Arc::new(Schema::new(rows));
        let limit = |name: &str| Arc::new(Field::new(name, DataType::Int64, false));
        let stored: Vec<FieldRef> = rows.fields().iter().cloned().chain([limit("__from"), limit("__until")]).collect();
        Ok(Self {
            output,
            index: if changing { Some(RowIndex::new(&rows)?) } else { None },
            log: SegmentLog::new(Arc::new(Schema::new(stored))),
            rows,
            coming: BTreeSet::new(),
            going: BTreeSet::new(),
            now: BEGINNING,
            staged: None,
        })
    }

    /// Moves the clock, takes an epoch's rows in, and returns what comes and goes. Takes effect with `commit`.
    pub fn stage(&mut self, arriving: Vec<Arriving>, now: i64) -> Result<Option<RecordBatch>> {
        let now = self.now.max(now);
        let is_there = |(from, until): (i64, i64), at: i64| from <= at && at < until;
        // What time alone moves: first what goes, then what comes. A row whose time has come and gone since the last epoch does neither.
        let upto = |rows: &BTreeSet<(i64, RowId)>| rows.iter().take_while(|(at, _)| *at <= now).map(|(_, row)| *row).collect::<Vec<_>>();
        let (mut gone, come) = (upto(&self.going), upto(&self.coming));
        let (over, begun): (HashSet<RowId>, HashSet<RowId>) = (gone.iter().copied().collect(), come.iter().copied().collect());
        let mut moved: Vec<(RowId, i64)> = gone.iter().filter(|row| !begun.contains(*row)).map(|row| (*row, -1)).collect();
        #[cfg(test)]
        if Mutant::ClockForgotten.is_on() {
            moved.clear();
        }
        moved.extend(come.into_iter().filter(|row| !over.contains(row)).map(|row| (row, 1)));
        let stored = self.log.gather(&moved.iter().map(|(row, _)| *row).collect::<Vec<_>>())?;
        let mut places: Vec<(usize, usize)> = (0..moved.len()).map(|row| (0, row)).collect();
        let mut weights: Vec<i64> = moved.iter().map(|(_, weight)| *weight).collect();
        let stays = stored.column(self.rows.fields().len() + 1).as_primitive::<Int64Type>();
        gone.extend(moved.iter().enumerate().filter(|(at, (_, weight))| *weight > 0 && stays.value(*at) == i64::MAX).map(|(_, (row, _))| *row));

        // What the input brings.
        let mut fresh: Vec<Option<Fresh>> = vec![];
        let mut fresh_of: HashMap<Option<KeyHash>, Vec<usize>> = HashMap::new();
        let mut taking = self.index.as_ref().map(RowIndex::taking);
        let leaving: HashSet<RowId> = gone.iter().copied().collect();
        for (at, part) in arriving.iter().enumerate() {
            let hashes = self.index.as_ref().map(|index| index.hashes(&part.rows)).transpose()?;
            for row in 0..part.rows.num_rows() {
                let limits = (part.from[row], part.until[row]);
                let (weight, there) = (part.weights.value(row), is_there(limits, now));
                for _ in 0..weight.unsigned_abs() {
                    if there {
                        places.push((at + 1, row));
                        weights.push(weight.signum());
                    }
                    let held = limits.1 > limits.0 && now < limits.1 && (limits.1 < i64::MAX || now < limits.0);
                    if !held {
                        continue;
                    }
                    let hash = hashes.as_ref().map(|hashes| hashes[row]);
                    if weight > 0 {
                        fresh_of.entry(hash).or_default().push(fresh.len());
                        fresh.push(Some(Fresh { place: (at, row), limits, hash }));
                        continue;
                    }
                    // One of this epoch, or one that is held.
                    if let Some(of_hash) = fresh_of.get_mut(&hash)
                        && let Some(at) = of_hash.pop()
                    {
                        fresh[at] = None;
                        continue;
                    }
                    let held = taking.as_mut().zip(hash);
                    let row = held.and_then(|(taking, hash)| std::iter::from_fn(|| taking.take(hash)).find(|row| !leaving.contains(row)));
                    gone.push(row.ok_or_else(|| Error::Internal("a temporal filter was told to take away a row that it does not hold".into()))?);
                }
            }
        }
        let mut parts = vec![self.visible(&stored)?];
        parts.extend(arriving.into_iter().map(|part| part.rows));
        let held: Vec<Fresh> = fresh.into_iter().flatten().collect();
        self.staged = Some(Staged {
            now,
            gone,
            held: self.held(&parts[1..], &held)?,
            limits: held.iter().map(|fresh| fresh.limits).collect(),
            hashes: held.iter().map(|fresh| fresh.hash).collect(),
        });
        if places.is_empty() {
            return Ok(None);
        }
        let rows = gathered(&self.rows, &parts.iter().collect::<Vec<_>>(), &places)?;
        let mut columns: Vec<ArrayRef> = vec![];
        let mut visible = rows.columns().iter();
        for field in self.output.fields() {
            match field.name() == WEIGHT {
                true => columns.push(Arc::new(Int64Array::from(std::mem::take(&mut weights)))),
                false => columns.extend(visible.next().cloned()),
            }
        }
        Ok(Some(RecordBatch::try_new(self.output.clone(), columns)?))
    }

    /// Rows as the log holds them.
    fn held(&self, parts: &[RecordBatch], fresh: &[Fresh]) -> Result<RecordBatch> {
        let rows = gathered(&self.rows, &parts.iter().collect::<Vec<_>>(), &fresh.iter().map(|fresh| fresh.place).collect::<Vec<_>>())?;
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Int64Array::from_iter_values(fresh.iter().map(|fresh| fresh.limits.0))));
        columns.push(Arc::new(Int64Array::from_iter_values(fresh.iter().map(|fresh| fresh.limits.1))));
        Ok(RecordBatch::try_new(self.log.schema().clone(), columns)?)
    }

    fn hold(&mut self, row: RowId, (from, until): (i64, i64), hash: Option<KeyHash>) {
        if from > self.now {
            self.coming.insert((from, row));
        }
        if until < i64::MAX {
            self.going.insert((until, row));
        }
        if let (Some(index), Some(hash)) = (&mut self.index, hash) {
            index.add(hash, row);
        }
    }

    /// Rows of the log without their limits.
    fn visible(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        Ok(rows.project(&(0..self.rows.fields().len()).collect::<Vec<_>>())?)
    }

    fn limits_of(&self, rows: &RecordBatch) -> Vec<(i64, i64)> {
        let column = |at: usize| rows.column(self.rows.fields().len() + at).as_primitive::<Int64Type>().clone();
        column(0).values().iter().copied().zip(column(1).values().iter().copied()).collect()
    }
}

impl OperatorState for TemporalState {
    fn commit(&mut self) -> Result<()> {
        let Some(Staged { now, gone, held, limits, hashes }) = self.staged.take() else { return Ok(()) };
        let rows = self.log.gather(&gone)?;
        self.log.remove_all(&gone);
        for (row, (from, until)) in gone.into_iter().zip(self.limits_of(&rows)) {
            self.coming.remove(&(from, row));
            self.going.remove(&(until, row));
            if let Some(index) = &mut self.index {
                index.take(row);
            }
        }
        self.now = now;
        self.coming = self.coming.split_off(&(now.saturating_add(1), 0));
        let ids = self.log.append(held);
        for ((row, limits), hash) in ids.into_iter().zip(limits).zip(hashes) {
            self.hold(row, limits, hash);
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
        json!({ "now": self.now })
    }

    fn restore(&mut self, logs: Vec<SegmentLog>, meta: &serde_json::Value) -> Result<()> {
        let broken = || Error::Internal("a checkpoint's temporal filter lacks its clock".into());
        self.now = meta["now"].as_i64().ok_or_else(broken)?;
        self.log = only_log(logs)?;
        self.staged = None;
        self.coming.clear();
        self.going.clear();
        #[cfg(test)]
        if Mutant::StateForgotten.is_on() {
            self.log = SegmentLog::new(self.log.schema().clone());
        }
        if let Some(index) = &mut self.index {
            index.clear();
        }
        let parts = self.log.live().collect::<Result<Vec<_>>>()?;
        for (ids, rows) in parts {
            let hashes = match &self.index {
                Some(index) => index.hashes(&self.visible(&rows)?)?,
                None => vec![],
            };
            for (at, (row, limits)) in ids.into_iter().zip(self.limits_of(&rows)).enumerate() {
                self.hold(row, limits, hashes.get(at).copied());
            }
        }
        Ok(())
    }

    fn has_open_windows(&self) -> bool {
        false
    }

    fn due(&self) -> Option<i64> {
        self.coming.first().into_iter().chain(self.going.first()).map(|(at, _)| *at).min()
    }

    fn rows(&self) -> usize {
        self.log.rows()
    }

    fn bytes(&self) -> usize {
        self.log.bytes() + (self.coming.len() + self.going.len()) * 24 + self.index.as_ref().map_or(0, RowIndex::bytes)
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
