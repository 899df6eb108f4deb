//! The rows that may be answered again, and the versions that rows may still need.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, new_null_array},
    compute::{concat_batches, filter_record_batch},
    datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use serde_json::json;

use super::exec::TemporalJoinSpec;
use crate::{
    error::{Error, Result},
    stream::{
        epoch::OperatorState,
        keyed_rows::{Key, KeyEncoder},
        segments::{RowId, SegmentLog, gathered},
    },
};

#[cfg(test)]
use crate::stream::tests::mutants::Mutant;

/// Rows of one side, each with its time in nanoseconds since 1970, as the operator takes them.
#[derive(Debug)]
pub struct Arriving {
    /// The side's visible columns.
    pub rows: RecordBatch,
    /// Each row's key columns.
    pub keys: Vec<ArrayRef>,
    /// When each row asks, or from when each version is valid; `None`: never.
    pub times: Int64Array,
}

/// A version: when it begins, the number of its arrival, where it is, and whether it says that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    from: i64,
    arrival: i64,
    row: Place,
    gone: bool,
}

/// Where a row is: in the state, or among those that the epoch brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Stored(RowId),
    Fresh(u32),
}

/// The state.
#[derive(Debug)]
pub struct TemporalJoinState {
    spec: Arc<TemporalJoinSpec>,
    encoder: KeyEncoder,
    /// The left side's columns and each row's time.
    rows: SegmentLog,
    /// Stored rows by key and time.
    by_key: HashMap<Key, BTreeSet<(i64, RowId)>>,
    /// Stored rows by time.
    by_time: BTreeMap<i64, Vec<(RowId, Key)>>,
    /// The right side's columns, from when, the number of the arrival, and whether it is a deletion.
    versions: SegmentLog,
    /// Stored versions by key, the oldest first.
    of_key: HashMap<Key, BTreeSet<Version>>,
    /// When a version is the last but one of its key that a time may need: keys by when their second version begins.
    seconds: BTreeSet<(i64, Key)>,
    arrivals: i64,
    staged: Option<Staged>,
}

/// One epoch's work, not yet part of the state.
#[derive(Debug)]
struct Staged {
    rows: RecordBatch,
    row_keys: Vec<(Key, i64)>,
    versions: RecordBatch,
    version_keys: Vec<(Key, i64, i64, bool)>,
    /// Rows from before it are answered for good.
    answered: i64,
    /// No row from before it will ask any more.
    floor: i64,
    arrivals: i64,
}

/// What a row is shown with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    row: Place,
    version: Option<Place>,
    weight: i64,
}

fn with_columns(rows: &SchemaRef, names: &[(&str, DataType)]) -> SchemaRef {
    let more = names.iter().map(|(name, data_type)| Arc::new(Field::new(*name, data_type.clone(), true)) as FieldRef);
    Arc::new(Schema::new(rows.fields().iter().cloned().chain(more).collect::<Vec<_>>()))
}

impl TemporalJoinState {
    /// No rows, no versions.
    pub fn new(spec: Arc<TemporalJoinSpec>) -> Result<Self> {
        Ok(Self {
            encoder: KeyEncoder::new(spec.key_types()?)?,
            rows: SegmentLog::new(with_columns(&spec.left, &[("__time", DataType::Int64)])),
            versions: SegmentLog::new(with_columns(
                &spec.right,
                &[("__from", DataType::Int64), ("__arrival", DataType::Int64), ("__is_gone", DataType::Boolean)],
            )),
            spec,
            by_key: HashMap::new(),
            by_time: BTreeMap::new(),
            of_key: HashMap::new(),
            seconds: BTreeSet::new(),
            arrivals: 0,
            staged: None,
        })
    }

    /// Takes an epoch's rows and versions in; what is shown differently. Rows from before `answered` are not answered again, versions that
    /// only rows from before `floor` could need are let go. Takes effect with `commit`.
    pub fn stage(&mut self, rows: Vec<Arriving>, versions: Vec<Arriving>, gone: &[BooleanArray], answered: i64, floor: i64) -> Result<Option<RecordBatch>> {
        let (mut fresh_versions, mut version_keys, mut touched): (Vec<RecordBatch>, Vec<_>, BTreeMap<Key, BTreeSet<Version>>) =
            (vec![], vec![], BTreeMap::new());
        let mut arrivals = self.arrivals;
        for (part, gone) in versions.iter().zip(gone) {
            // A version without a time is none.
            let keep = BooleanArray::from_iter(part.times.iter().map(|time| Some(time.is_some())));
            fresh_versions.push(filter_record_batch(&part.rows, &keep)?);
            for (row, key) in self.encoder.encode(&part.keys, part.rows.num_rows())?.into_iter().enumerate() {
                if part.times.is_null(row) {
                    continue;
                }
                let (from, is_gone) = (part.times.value(row), gone.value(row));
                let version = Version { from, arrival: arrivals, row: Place::Fresh(version_keys.len() as u32), gone: is_gone };
                touched.entry(key.clone()).or_default().insert(version);
                version_keys.push((key, from, arrivals, is_gone));
                arrivals += 1;
            }
        }
        let fresh_versions = concat_batches(&self.spec.right, &fresh_versions)?;
        let parts: Vec<RecordBatch> = rows.iter().map(|part| part.rows.clone()).collect();
        let fresh_rows = concat_batches(&self.spec.left, &parts)?;
        let mut shown: Vec<Shown> = vec![];
        // Rows that were answered before, where a version has come that was valid at their time.
        for (key, new) in &touched {
            let (Some(asking), Some(first)) = (self.by_key.get(key), new.first()) else { continue };
            let none = BTreeSet::new();
            let old = self.of_key.get(key).unwrap_or(&none);
            for (time, row) in asking.range((first.from, 0)..) {
                let before = valid_at(old, *time);
                let after = before.into_iter().chain(valid_at(new, *time)).max_by_key(|version| (version.from, version.arrival));
                if before == after {
                    continue;
                }
                let version = |version: Option<Version>| version.filter(|version| !version.gone).map(|version| version.row);
                let row = Place::Stored(*row);
                if version(before) != version(after) {
                    shown.push(Shown { row, version: version(before), weight: -1 });
                    shown.push(Shown { row, version: version(after), weight: 1 });
                }
            }
        }
        #[cfg(test)]
        if Mutant::RetractionLost.is_on() {
            shown.retain(|shown| shown.weight > 0);
        }
        // Rows that come.
        let (mut at, mut held, mut row_keys) = (0, vec![], vec![]);
        for part in &rows {
            for (row, key) in self.encoder.encode(&part.keys, part.rows.num_rows())?.into_iter().enumerate() {
                let place = Place::Fresh(at);
                at += 1;
                let has_key = part.keys.iter().all(|column| column.is_valid(row));
                if part.times.is_null(row) || !has_key {
                    shown.push(Shown { row: place, version: None, weight: 1 });
                    held.push(false);
                    continue;
                }
                let time = part.times.value(row);
                let of = |versions: Option<&BTreeSet<Version>>| versions.and_then(|versions| valid_at(versions, time));
                let version = [of(self.of_key.get(&key)), of(touched.get(&key))].into_iter().flatten().max_by_key(|version| (version.from, version.arrival));
                shown.push(Shown { row: place, version: version.filter(|version| !version.gone).map(|version| version.row), weight: 1 });
                held.push(time >= answered);
                if time >= answered {
                    row_keys.push((key, time));
                }
            }
        }
        let output = self.output(&shown, &fresh_rows, &fresh_versions)?;
        let kept = filter_record_batch(&fresh_rows, &BooleanArray::from(held))?;
        let times: ArrayRef = Arc::new(Int64Array::from_iter_values(row_keys.iter().map(|(_, time)| *time)));
        let froms: ArrayRef = Arc::new(Int64Array::from_iter_values(version_keys.iter().map(|(_, from, _, _)| *from)));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(version_keys.iter().map(|(_, _, arrival, _)| *arrival)));
        let are_gone: ArrayRef = Arc::new(BooleanArray::from_iter(version_keys.iter().map(|(_, _, _, gone)| Some(*gone))));
        self.staged = Some(Staged {
            rows: beside(self.rows.schema(), &kept, [times])?,
            row_keys,
            versions: beside(self.versions.schema(), &fresh_versions, [froms, numbers, are_gone])?,
            version_keys,
            answered,
            floor,
            arrivals,
        });
        Ok(output)
    }

    /// Rows with their versions, NULL where there is none, less those that the condition leaves out; what stays the same says nothing.
    fn output(&self, shown: &[Shown], fresh_rows: &RecordBatch, fresh_versions: &RecordBatch) -> Result<Option<RecordBatch>> {
        if shown.is_empty() {
            return Ok(None);
        }
        let left = pick(&self.rows, &self.spec.left, fresh_rows, shown.iter().map(|shown| Some(shown.row)))?;
        let right = pick(&self.versions, &self.spec.right, fresh_versions, shown.iter().map(|shown| shown.version))?;
        let mut matches: Vec<bool> = shown.iter().map(|shown| shown.version.is_some()).collect();
        let columns = |right: &RecordBatch| left.columns().iter().chain(right.columns()).cloned().collect::<Vec<_>>();
        if let Some(residual) = &self.spec.residual {
            let pairs = RecordBatch::try_new(self.spec.pairs.clone(), columns(&right))?;
            let holds = residual.evaluate(&pairs)?.into_array(pairs.num_rows())?;
            let holds = holds.as_boolean();
            for (row, matches) in matches.iter_mut().enumerate() {
                *matches &= holds.is_valid(row) && holds.value(row);
            }
        }
        // Where the condition does not hold the row stands alone, or not at all.
        let places: Vec<(usize, usize)> = matches.iter().enumerate().map(|(row, matches)| if *matches { (0, row) } else { (1, 0) }).collect();
        let nulls: Vec<ArrayRef> = right.columns().iter().map(|column| new_null_array(column.data_type(), 1)).collect();
        let nulls = RecordBatch::try_new_with_options(right.schema(), nulls, &RecordBatchOptions::new().with_row_count(Some(1)))?;
        let right = gathered(&right.schema(), &[&right, &nulls], &places)?;
        let mut keep: Vec<bool> = matches.iter().map(|matches| *matches || self.spec.outer).collect();
        // Alone before and alone after.
        for row in 1..shown.len() {
            let pair = shown[row - 1].weight < 0 && shown[row].weight > 0 && shown[row - 1].row == shown[row].row;
            if pair && !matches[row - 1] && !matches[row] {
                (keep[row - 1], keep[row]) = (false, false);
            }
        }
        let mut all = columns(&right);
        all.push(Arc::new(Int64Array::from_iter_values(shown.iter().map(|shown| shown.weight))));
        let output = filter_record_batch(&RecordBatch::try_new(self.spec.output.clone(), all)?, &BooleanArray::from(keep))?;
        Ok((output.num_rows() > 0).then_some(output))
    }

    /// Lets go what no time needs any more.
    fn let_go(&mut self, answered: i64, floor: i64) {
        let waiting = self.by_time.split_off(&answered);
        for (time, rows) in std::mem::replace(&mut self.by_time, waiting) {
            for (row, key) in rows {
                self.rows.remove(row);
                if let Some(of_key) = self.by_key.get_mut(&key) {
                    of_key.remove(&(time, row));
                    if of_key.is_empty() {
                        self.by_key.remove(&key);
                    }
                }
            }
        }
        while let Some((_, key)) = self.seconds.first().filter(|(second, _)| *second <= floor).cloned() {
            self.unlist(&key);
            if let Some(of_key) = self.of_key.get_mut(&key) {
                while of_key.iter().nth(1).is_some_and(|second| second.from <= floor) {
                    if let Some(Version { row: Place::Stored(row), .. }) = of_key.pop_first() {
                        self.versions.remove(row);
                    }
                }
            }
            self.list(&key);
        }
    }

    fn second(&self, key: &Key) -> Option<i64> {
        self.of_key.get(key)?.iter().nth(1).map(|second| second.from)
    }

    fn unlist(&mut self, key: &Key) {
        if let Some(second) = self.second(key) {
            self.seconds.remove(&(second, key.clone()));
        }
    }

    fn list(&mut self, key: &Key) {
        if let Some(second) = self.second(key) {
            self.seconds.insert((second, key.clone()));
        }
    }

    fn enter_version(&mut self, key: Key, version: Version) {
        self.unlist(&key);
        self.of_key.entry(key.clone()).or_default().insert(version);
        self.list(&key);
    }

    fn enter_row(&mut self, key: Key, time: i64, row: RowId) {
        self.by_key.entry(key.clone()).or_default().insert((time, row));
        self.by_time.entry(time).or_default().push((row, key));
    }
}

/// The version that is valid at a time: the last one to begin, of those that begin together the last one to arrive.
fn valid_at(versions: &BTreeSet<Version>, time: i64) -> Option<Version> {
    let end = Version { from: time.saturating_add(1), arrival: i64::MIN, row: Place::Stored(0), gone: false };
    match time {
        i64::MAX => versions.last().copied(),
        _ => versions.range(..end).next_back().copied(),
    }
}

/// Rows with more columns.
fn beside<const N: usize>(schema: &SchemaRef, rows: &RecordBatch, more: [ArrayRef; N]) -> Result<RecordBatch> {
    let columns = rows.columns().iter().cloned().chain(more).collect();
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// Rows of the state and of the epoch, in this order; NULL where there is none.
fn pick(log: &SegmentLog, schema: &SchemaRef, fresh: &RecordBatch, places: impl Iterator<Item = Option<Place>>) -> Result<RecordBatch> {
    let nullable: Vec<FieldRef> = schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
    let nullable = Arc::new(Schema::new(nullable));
    let (mut ids, mut of) = (vec![], vec![]);
    for place in places {
        of.push(match place {
            Some(Place::Stored(id)) => {
                ids.push(id);
                (1, ids.len() - 1)
            }
            Some(Place::Fresh(row)) => (2, row as usize),
            None => (0, 0),
        });
    }
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    let stored = log.gather_columns(&ids, &columns)?;
    let nulls: Vec<ArrayRef> = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
    let nulls = RecordBatch::try_new_with_options(nullable.clone(), nulls, &RecordBatchOptions::new().with_row_count(Some(1)))?;
    // The first one's schema is that of all.
    gathered(&nullable, &[&nulls, &stored, fresh], &of)
}

impl OperatorState for TemporalJoinState {
    fn commit(&mut self) -> Result<()> {
        let Some(Staged { rows, row_keys, versions, version_keys, answered, floor, arrivals }) = self.staged.take() else { return Ok(()) };
        self.arrivals = arrivals;
        for (row, (key, time)) in self.rows.append(rows).into_iter().zip(row_keys) {
            self.enter_row(key, time, row);
        }
        for (row, (key, from, arrival, gone)) in self.versions.append(versions).into_iter().zip(version_keys) {
            self.enter_version(key, Version { from, arrival, row: Place::Stored(row), gone });
        }
        self.let_go(answered, floor);
        self.rows.compact()?;
        self.versions.compact()
    }

    fn abort(&mut self) {
        self.staged = None;
    }

    fn logs(&self) -> Vec<&SegmentLog> {
        vec![&self.rows, &self.versions]
    }

    fn meta(&self) -> serde_json::Value {
        json!({ "arrivals": self.arrivals })
    }

    fn restore(&mut self, logs: Vec<SegmentLog>, meta: &serde_json::Value) -> Result<()> {
        let broken = || Error::Internal("a checkpoint's temporal join can't be understood".into());
        let [rows, versions]: [SegmentLog; 2] = logs.try_into().map_err(|_| broken())?;
        self.arrivals = meta["arrivals"].as_i64().ok_or_else(broken)?;
        self.staged = None;
        self.by_key.clear();
        self.by_time.clear();
        self.of_key.clear();
        self.seconds.clear();
        (self.rows, self.versions) = (rows, versions);
        #[cfg(test)]
        if Mutant::StateForgotten.is_on() {
            self.versions = SegmentLog::new(self.versions.schema().clone());
        }
        let numbers = |batch: &RecordBatch, at: usize| batch.column(at).as_primitive::<Int64Type>().clone();
        let parts = self.rows.live().collect::<Result<Vec<_>>>()?;
        for (ids, batch) in parts {
            let width = self.spec.left.fields().len();
            let rows = batch.project(&(0..width).collect::<Vec<_>>())?;
            let keys = self.encoder.encode(&self.spec.left_keys(&rows)?, rows.num_rows())?;
            let times = numbers(&batch, width);
            for (at, (row, key)) in ids.into_iter().zip(keys).enumerate() {
                self.enter_row(key, times.value(at), row);
            }
        }
        let parts = self.versions.live().collect::<Result<Vec<_>>>()?;
        for (ids, batch) in parts {
            let width = self.spec.right.fields().len();
            let rows = batch.project(&(0..width).collect::<Vec<_>>())?;
            let keys = self.encoder.encode(&self.spec.right_keys(&rows)?, rows.num_rows())?;
            let (froms, arrivals, gone) = (numbers(&batch, width), numbers(&batch, width + 1), batch.column(width + 2).as_boolean().clone());
            for (at, (row, key)) in ids.into_iter().zip(keys).enumerate() {
                self.enter_version(key, Version { from: froms.value(at), arrival: arrivals.value(at), row: Place::Stored(row), gone: gone.value(at) });
            }
        }
        Ok(())
    }

    fn has_open_windows(&self) -> bool {
        false
    }

    fn due(&self) -> Option<i64> {
        None
    }

    fn rows(&self) -> usize {
        self.rows.rows() + self.versions.rows()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes() + self.versions.bytes() + self.rows.rows() * 120 + self.versions.rows() * 96
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
