//! What a view holds: its rows, kept up to date by change sets, published by sharing.

use std::collections::HashMap;

use arrow::{
    array::{AsArray, BooleanArray},
    compute::{concat_batches, filter_record_batch},
    datatypes::{Int64Type, SchemaRef},
    record_batch::RecordBatch,
};

use super::{
    key_map::KeyHash,
    row_index::RowIndex,
    segments::{RowId, SegmentLog, Snapshot},
};
use crate::error::{Error, Result};

/// The rows of a view.
#[derive(Debug)]
pub struct Contents {
    log: SegmentLog,
    /// Where each row is, by a 128-bit hash of its bytes; only for views whose rows can go again.
    index: Option<RowIndex>,
}

/// An epoch's change, checked against the contents but not yet part of them.
#[derive(Debug)]
pub struct StagedChange {
    insert: RecordBatch,
    hashes: Vec<KeyHash>,
    delete: Vec<RowId>,
}

impl Contents {
    /// No rows. `changing`: rows can go again.
    pub fn new(schema: SchemaRef, changing: bool) -> Result<Self> {
        let index = if changing { Some(RowIndex::new(&schema)?) } else { None };
        Ok(Self { log: SegmentLog::new(schema), index })
    }

    /// The rows of a checkpoint.
    pub fn restore(log: SegmentLog, changing: bool) -> Result<Self> {
        let mut index = if changing { Some(RowIndex::new(log.schema())?) } else { None };
        if let Some(index) = &mut index {
            for part in log.live() {
                let (ids, rows) = part?;
                for (id, hash) in ids.into_iter().zip(index.hashes(&rows)?) {
                    index.add(hash, id);
                }
            }
        }
        Ok(Self { log, index })
    }

    /// The log behind it, for checkpoints.
    pub fn log(&self) -> &SegmentLog {
        &self.log
    }

    /// What readers hold from now on.
    pub fn snapshot(&self) -> Snapshot {
        self.log.snapshot()
    }

    /// Checks an epoch's output. For a changing view the last column is the weight.
    pub fn stage(&self, output: &[RecordBatch]) -> Result<StagedChange> {
        let schema = self.log.schema();
        let Some(index) = &self.index else {
            let insert = concat_batches(schema, output)?;
            return Ok(StagedChange { insert, hashes: vec![], delete: vec![] });
        };
        let width = schema.fields().len();
        let mut insert = vec![];
        let mut hashes: Vec<KeyHash> = vec![];
        let mut delete = vec![];
        let mut taking = index.taking();
        // Rows that the epoch has added so far and that nothing has taken away again, and how many it has taken away.
        let mut pending: HashMap<KeyHash, usize> = HashMap::new();
        let mut cancelled: HashMap<KeyHash, usize> = HashMap::new();
        for batch in output {
            let rows = RecordBatch::try_new(schema.clone(), batch.columns()[..width].to_vec())?;
            let weights = batch.column(width).as_primitive::<Int64Type>();
            let batch_hashes = index.hashes(&rows)?;
            for (row, hash) in batch_hashes.iter().enumerate() {
                if weights.value(row) > 0 {
                    *pending.entry(*hash).or_default() += 1;
                    continue;
                }
                if let Some(id) = taking.take(*hash) {
                    delete.push(id);
                    continue;
                }
                // Not held: then an earlier change of this very epoch must have added it.
                let Some(added) = pending.get_mut(hash).filter(|added| **added > 0) else {
                    return Err(Error::Internal("a view was told to take away a row that it does not hold".into()));
                };
                *added -= 1;
                *cancelled.entry(*hash).or_default() += 1;
            }
            let added: BooleanArray = weights.iter().map(|w| Some(w.is_some_and(|w| w > 0))).collect();
            hashes.extend(batch_hashes.iter().zip(added.values()).filter(|(_, keep)| *keep).map(|(hash, _)| *hash));
            insert.push(filter_record_batch(&rows, &added)?);
        }
        let mut insert = concat_batches(schema, &insert)?;
        if !cancelled.is_empty() {
            let keep: BooleanArray = hashes
                .iter()
                .map(|hash| {
                    let left = cancelled.get_mut(hash).filter(|left| **left > 0);
                    Some(left.map(|left| *left -= 1).is_none())
                })
                .collect();
            insert = filter_record_batch(&insert, &keep)?;
            hashes = hashes.into_iter().zip(keep.values()).filter(|(_, keep)| *keep).map(|(hash, _)| hash).collect();
        }
        Ok(StagedChange { insert, hashes, delete })
    }

    /// Makes a staged change part of the contents.
    pub fn commit(&mut self, change: StagedChange) -> Result<()> {
        self.log.remove_all(&change.delete);
        if let Some(index) = &mut self.index {
            change.delete.into_iter().for_each(|id| index.take(id));
        }
        if change.insert.num_rows() > 0 {
            let ids = self.log.append(change.insert);
            if let Some(index) = &mut self.index {
                for (id, hash) in ids.into_iter().zip(change.hashes) {
                    index.add(hash, id);
                }
            }
        }
        self.log.compact()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.log.bytes() + self.index.as_ref().map_or(0, |index| index.bytes())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use arrow::{
        array::{Int64Array, StringViewArray},
        datatypes::{DataType, Field, Schema},
    };
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8View, true), Field::new("v", DataType::Int64, true)]))
    }

    fn changes(rows: &[(i64, i64)]) -> RecordBatch {
        let mut fields = schema().fields().to_vec();
        fields.push(super::super::hidden::weight_field());
        RecordBatch::try_new(
            Arc::new(Schema::new(fields)),
            vec![
                Arc::new(StringViewArray::from_iter_values(rows.iter().map(|(v, _)| format!("key number {v}")))),
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|(v, _)| *v))),
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, w)| *w))),
            ],
        )
        .unwrap()
    }

    fn bag(snapshot: &Snapshot) -> BTreeMap<i64, i64> {
        let mut bag = BTreeMap::new();
        for batch in snapshot.batches() {
            for v in batch.unwrap().column(1).as_primitive::<Int64Type>().values() {
                *bag.entry(*v).or_default() += 1;
            }
        }
        bag
    }

    #[test]
    fn follows_random_changes_as_a_multiset() {
        for seed in 0..40 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut contents = Contents::new(schema(), true).unwrap();
            let mut model: BTreeMap<i64, i64> = BTreeMap::new();
            for _ in 0..60 {
                let mut output = vec![];
                for _ in 0..rng.random_range(0..3) {
                    let mut rows = vec![];
                    for _ in 0..rng.random_range(0..20) {
                        let v = rng.random_range(0..30);
                        let held = model.get(&v).copied().unwrap_or_default();
                        if held > 0 && rng.random_bool(0.5) {
                            rows.push((v, -1));
                            if held == 1 {
                                model.remove(&v);
                            } else {
                                model.insert(v, held - 1);
                            }
                        } else {
                            rows.push((v, 1));
                            *model.entry(v).or_default() += 1;
                        }
                    }
                    output.push(changes(&rows));
                }
                let staged = contents.stage(&output).unwrap();
                contents.commit(staged).unwrap();
                assert_eq!(bag(&contents.snapshot()), model, "seed {seed}");
                if rng.random_bool(0.1) {
                    let stored = contents
                        .log()
                        .segments()
                        .map(|(id, s)| super::super::segments::StoredSegment { id, batch: s.batch.clone(), tombstones: s.tombstones().to_vec() })
                        .collect();
                    contents = Contents::restore(SegmentLog::restore(schema(), stored).unwrap(), true).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_row_that_is_not_there_is_refused_and_nothing_changes() {
        let mut contents = Contents::new(schema(), true).unwrap();
        let staged = contents.stage(&[changes(&[(1, 1)])]).unwrap();
        contents.commit(staged).unwrap();
        assert!(contents.stage(&[changes(&[(2, -1)])]).is_err());
        assert_eq!(bag(&contents.snapshot()), BTreeMap::from([(1, 1)]));
    }
}
