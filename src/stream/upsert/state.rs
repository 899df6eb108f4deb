//! The newest row of each key.

use std::{
    any::Any,
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, UInt32Array},
    compute::{concat_batches, interleave_record_batch, take_record_batch},
    datatypes::{FieldRef, Schema, SchemaRef},
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    error::{Error, Result},
    stream::{
        epoch::{OperatorState, only_log},
        hidden::GONE,
        key_map::KeyHash,
        row_index::RowIndex,
        segments::{RowId, SegmentLog},
    },
};

#[cfg(test)]
use crate::stream::tests::mutants::Mutant;

/// Which columns of the input are what, as positions in it. The last column of the input is [`GONE`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// They name a row; never empty.
    pub key: Vec<usize>,
    /// They are given on, in this order.
    pub output: Vec<usize>,
}

/// The rows between epochs.
#[derive(Debug)]
pub struct UpsertState {
    shape: Shape,
    /// The key's columns.
    key: SchemaRef,
    /// Tells whether a row that takes another's place differs from it.
    compare: Option<RowConverter>,
    /// The columns of the input less [`GONE`]; a row for each key.
    log: SegmentLog,
    /// Where the row of each key is.
    index: RowIndex,
    staged: Option<Staged>,
}

/// One epoch's work, not yet part of the state.
#[derive(Debug)]
struct Staged {
    gone: Vec<RowId>,
    fresh: RecordBatch,
    /// For each fresh row its key's hash and the row whose place it takes.
    keys: Vec<(KeyHash, Option<RowId>)>,
}

/// What an epoch makes of a key.
struct Touched {
    hash: KeyHash,
    held: Option<RowId>,
    /// Where its newest record is among the epoch's batches; `None`: it says that the row is gone.
    newest: Option<(usize, usize)>,
}

impl UpsertState {
    /// No rows. `input` are the columns of what comes in.
    pub fn new(input: &SchemaRef, shape: Shape) -> Result<Self> {
        let fields: Vec<FieldRef> = input.fields().iter().filter(|field| field.name() != GONE).cloned().collect();
        if fields.len() + 1 != input.fields().len() {
            return Err(Error::Internal("the rows of a source with a primary key do not tell which of them are gone".into()));
        }
        let key = Arc::new(input.project(&shape.key)?);
        let compared = shape.output.iter().map(|&column| SortField::new(input.field(column).data_type().clone())).collect::<Vec<_>>();
        Ok(Self {
            compare: if compared.is_empty() { None } else { Some(RowConverter::new(compared)?) },
            log: SegmentLog::new(Arc::new(Schema::new(fields))),
            index: RowIndex::new(&key)?,
            key,
            shape,
            staged: None,
        })
    }

    /// Takes an epoch's records in, in their order, and returns what they change: for each key at most its old row and its new one. `output`
    /// are the columns that are given on, and the weight. Takes effect with `commit`.
    pub fn stage(&mut self, arriving: &[RecordBatch], output: &SchemaRef) -> Result<Option<RecordBatch>> {
        let (touched, parts) = self.touched(arriving)?;
        let held: Vec<RowId> = touched.iter().filter_map(|key| key.held).collect();
        let old = self.log.gather(&held)?;
        let places: Vec<(usize, usize)> = touched.iter().filter_map(|key| key.newest).collect();
        let new = match places.is_empty() {
            true => RecordBatch::new_empty(self.log.schema().clone()),
            false => interleave_record_batch(&parts.iter().collect::<Vec<_>>(), &places)?,
        };
        let (old_out, new_out) = (old.project(&self.shape.output)?, new.project(&self.shape.output)?);
        let same = self.same(&old_out, &new_out)?;
        let (mut old_row, mut new_row) = (0, 0);
        let (mut changes, mut weights) = (vec![], vec![]);
        let (mut gone, mut kept, mut keys) = (vec![], vec![], vec![]);
        for key in &touched {
            let (old_at, new_at) = (old_row, new_row);
            old_row += usize::from(key.held.is_some());
            new_row += usize::from(key.newest.is_some());
            if key.held.is_some() && key.newest.is_some() && same(old_at, new_at) {
                continue;
            }
            if let Some(row) = key.held {
                changes.push((0, old_at));
                weights.push(-1);
                if key.newest.is_none() {
                    gone.push(row);
                }
            }
            if key.newest.is_some() {
                changes.push((1, new_at));
                weights.push(1);
                kept.push(new_at as u32);
                keys.push((key.hash, key.held));
            }
        }
        self.staged = Some(Staged { gone, fresh: take_record_batch(&new, &UInt32Array::from(kept))?, keys });
        if changes.is_empty() {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = match self.shape.output.is_empty() {
            true => vec![],
            false => interleave_record_batch(&[&old_out, &new_out], &changes)?.columns().to_vec(),
        };
        columns.push(Arc::new(Int64Array::from(weights)));
        Ok(Some(RecordBatch::try_new(output.clone(), columns)?))
    }

    /// Takes records in at once, where nobody asks what they change.
    pub fn absorb(&mut self, arriving: &RecordBatch) -> Result<()> {
        let (touched, parts) = self.touched(std::slice::from_ref(arriving))?;
        let gone = touched.iter().filter(|key| key.newest.is_none()).filter_map(|key| key.held).collect();
        let (rows, keys) = touched.iter().filter_map(|key| Some((key.newest?.1 as u32, (key.hash, key.held)))).unzip::<u32, _, Vec<_>, Vec<_>>();
        let fresh = concat_batches(self.log.schema(), &parts)?;
        self.staged = Some(Staged { gone, fresh: take_record_batch(&fresh, &UInt32Array::from(rows))?, keys });
        self.commit()
    }

    /// The rows as they stand, with the columns that are given on.
    pub fn held(&self) -> impl Iterator<Item = Result<RecordBatch>> {
        self.log.live().map(|part| Ok(part?.1.project(&self.shape.output)?))
    }

    /// Each key of some batches in the order of its first record, and the batches' columns less [`GONE`].
    fn touched(&self, arriving: &[RecordBatch]) -> Result<(Vec<Touched>, Vec<RecordBatch>)> {
        let columns: Vec<usize> = (0..self.log.schema().fields().len()).collect();
        let mut touched: Vec<Touched> = vec![];
        let mut known: HashMap<KeyHash, usize> = HashMap::new();
        let mut parts = vec![];
        for (part, batch) in arriving.iter().enumerate() {
            let key = batch.project(&self.shape.key)?;
            let gone = batch.column(columns.len()).as_boolean();
            for (row, hash) in self.index.hashes(&key)?.into_iter().enumerate() {
                let newest = (!gone.value(row)).then_some((part, row));
                #[cfg(test)]
                if newest.is_none() && Mutant::TombstoneIgnored.is_on() {
                    continue;
                }
                match known.entry(hash) {
                    Entry::Occupied(at) => {
                        #[cfg(test)]
                        if Mutant::OlderWins.is_on() {
                            continue;
                        }
                        touched[*at.get()].newest = newest;
                    }
                    Entry::Vacant(at) => {
                        at.insert(touched.len());
                        touched.push(Touched { hash, held: self.index.first(hash), newest });
                    }
                }
            }
            parts.push(batch.project(&columns)?.with_schema(self.log.schema().clone())?);
        }
        Ok((touched, parts))
    }

    /// Whether rows of two batches are the same.
    fn same(&self, old: &RecordBatch, new: &RecordBatch) -> Result<impl Fn(usize, usize) -> bool + use<>> {
        let rows = match &self.compare {
            Some(compare) => Some((compare.convert_columns(old.columns())?, compare.convert_columns(new.columns())?)),
            None => None,
        };
        Ok(move |old_at: usize, new_at: usize| rows.as_ref().is_none_or(|(old, new)| old.row(old_at) == new.row(new_at)))
    }
}

impl OperatorState for UpsertState {
    fn commit(&mut self) -> Result<()> {
        let Some(Staged { gone, fresh, keys }) = self.staged.take() else { return Ok(()) };
        self.log.remove_all(&gone);
        gone.into_iter().for_each(|row| self.index.take(row));
        let slots: Vec<Option<RowId>> = keys.iter().map(|(_, held)| *held).collect();
        for (row, (hash, held)) in self.log.upsert(fresh, &slots).into_iter().zip(keys) {
            if held.is_none() {
                self.index.add(hash, row);
            }
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
        json!({})
    }

    fn restore(&mut self, logs: Vec<SegmentLog>, _: &serde_json::Value) -> Result<()> {
        let log = only_log(logs)?;
        #[cfg(test)]
        if Mutant::StateForgotten.is_on() {
            return Ok(());
        }
        let mut index = RowIndex::new(&self.key)?;
        for part in log.live() {
            let (ids, rows) = part?;
            for (row, hash) in ids.into_iter().zip(self.index.hashes(&rows.project(&self.shape.key)?)?) {
                index.add(hash, row);
            }
        }
        (self.log, self.index, self.staged) = (log, index, None);
        Ok(())
    }

    fn has_open_windows(&self) -> bool {
        false
    }

    fn due(&self) -> Option<i64> {
        None
    }

    fn rows(&self) -> usize {
        self.log.rows()
    }

    fn bytes(&self) -> usize {
        self.log.bytes() + self.index.bytes()
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::{
        array::{BooleanArray, StringViewArray},
        datatypes::{DataType, Field, Int64Type},
    };
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::stream::{
        hidden::{gone_field, weight_field},
        segments::StoredSegment,
    };

    fn input() -> SchemaRef {
        let fields = [Field::new("v", DataType::Utf8View, true), Field::new("k", DataType::Int64, true), Field::new("w", DataType::Int64, true)];
        Arc::new(Schema::new(fields.into_iter().map(Arc::new).chain([gone_field()]).collect::<Vec<_>>()))
    }

    fn output(shape: &Shape) -> SchemaRef {
        let fields: Vec<FieldRef> = shape.output.iter().map(|&column| input().fields()[column].clone()).chain([weight_field()]).collect();
        Arc::new(Schema::new(fields))
    }

    /// Records as key and value, or key alone for one that is gone.
    fn records(records: &[(i64, Option<i64>)]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringViewArray::from_iter(records.iter().map(|(_, v)| v.map(|v| format!("a value that no view holds inline: {v}"))))),
            Arc::new(Int64Array::from_iter_values(records.iter().map(|(k, _)| *k))),
            Arc::new(Int64Array::from_iter(records.iter().map(|(_, v)| v.map(|v| v % 2)))),
            Arc::new(records.iter().map(|(_, v)| Some(v.is_none())).collect::<BooleanArray>()),
        ];
        RecordBatch::try_new(input(), columns).unwrap()
    }

    fn shape(output: &[usize]) -> Shape {
        Shape { key: vec![1], output: output.to_vec() }
    }

    /// Changes as key, last digit of the value and weight.
    fn changes(batch: Option<RecordBatch>) -> Vec<(i64, i64, i64)> {
        let Some(batch) = batch else { return vec![] };
        let (keys, weights) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(2).as_primitive::<Int64Type>());
        let last = |row: usize| batch.column(1).as_string_view().value(row).bytes().last().map(|byte| i64::from(byte - b'0')).unwrap();
        (0..batch.num_rows()).map(|row| (keys.value(row), last(row), weights.value(row))).collect()
    }

    #[test]
    fn an_epoch_changes_a_key_once_and_only_if_it_differs() {
        let shape = shape(&[1, 0]);
        let mut state = UpsertState::new(&input(), shape.clone()).unwrap();
        let mut run = |sent: &[&[(i64, Option<i64>)]], commit: bool| {
            let batches: Vec<RecordBatch> = sent.iter().map(|part| records(part)).collect();
            let out = changes(state.stage(&batches, &output(&shape)).unwrap());
            if commit {
                state.commit().unwrap()
            } else {
                state.abort()
            }
            out
        };
        assert_eq!(run(&[&[(1, Some(1)), (2, Some(1)), (1, Some(2)), (3, None)]], true), [(1, 2, 1), (2, 1, 1)]);
        assert_eq!(run(&[&[(2, Some(5))], &[(1, None), (2, Some(6))]], false), [(2, 1, -1), (2, 6, 1), (1, 2, -1)]);
        assert_eq!(run(&[&[(2, Some(5))], &[(1, None), (2, Some(6))]], true), [(2, 1, -1), (2, 6, 1), (1, 2, -1)], "an aborted epoch left nothing");
        assert_eq!(run(&[&[(2, None), (2, Some(6)), (1, Some(3)), (1, None)]], true), []);
        assert_eq!(run(&[], true), []);
        assert_eq!(state.rows(), 1);
    }

    #[test]
    fn random_records_against_a_map() {
        for seed in 0..30 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            // With all columns, without the key, and without any.
            let shape = shape([&[1, 0][..], &[2], &[]][seed as usize % 3]);
            let mut state = UpsertState::new(&input(), shape.clone()).unwrap();
            let mut model: BTreeMap<i64, i64> = BTreeMap::new();
            for _ in 0..60 {
                let sent: Vec<(i64, Option<i64>)> =
                    (0..rng.random_range(0..40)).map(|_| (rng.random_range(0..25), rng.random_bool(0.7).then(|| rng.random_range(0..6)))).collect();
                if rng.random_bool(0.2) {
                    sent.iter().for_each(|record| state.absorb(&records(&[*record])).unwrap());
                } else {
                    let out = state.stage(&[records(&sent)], &output(&shape)).unwrap();
                    let net: i64 = out.iter().flat_map(|out| out.column(out.num_columns() - 1).as_primitive::<Int64Type>().values().to_vec()).sum();
                    let before = state.rows() as i64;
                    state.commit().unwrap();
                    assert_eq!(state.rows() as i64 - before, net, "seed {seed}");
                }
                for (key, value) in sent {
                    match value {
                        Some(value) => _ = model.insert(key, value),
                        None => _ = model.remove(&key),
                    }
                }
                assert_eq!(state.rows(), model.len(), "seed {seed}");
                let rows: usize = state.held().map(|batch| batch.unwrap().num_rows()).sum();
                assert_eq!(rows, model.len(), "seed {seed}");
                if !shape.output.is_empty() {
                    let mut sums: Vec<i64> = state
                        .held()
                        .flat_map(|batch| {
                            let batch = batch.unwrap();
                            batch.column(0).as_primitive::<Int64Type>().values().to_vec()
                        })
                        .collect();
                    sums.sort_unstable();
                    let mut want: Vec<i64> = if shape.output.len() == 1 { model.values().map(|v| v % 2).collect() } else { model.keys().copied().collect() };
                    want.sort_unstable();
                    assert_eq!(sums, want, "seed {seed}");
                }
                if rng.random_bool(0.1) {
                    let stored =
                        state.log.segments().map(|(id, s)| StoredSegment { id, batch: s.batch.clone(), tombstones: s.tombstones().to_vec() }).collect();
                    let log = SegmentLog::restore(state.log.schema().clone(), stored).unwrap();
                    state = UpsertState::new(&input(), shape.clone()).unwrap();
                    state.restore(vec![log], &json!({})).unwrap();
                }
            }
        }
    }
}
