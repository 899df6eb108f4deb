//! Rows of one side, with what a join needs to know of them.

use std::collections::HashMap;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatchOptions, UInt32Array},
    buffer::NullBuffer,
    compute::{concat_batches, filter_record_batch, take},
    datatypes::{Int64Type, SchemaRef, UInt64Type},
    record_batch::RecordBatch,
};

use super::{
    side::Fresh,
    spec::{SideSpec, evaluate},
};
use crate::{
    error::{Error, Result},
    stream::{epoch::LateRow, key_map::KeyHash, row_index::RowIndex},
};

/// Rows of one side, each with a weight, a key, and when it is done with.
#[derive(Debug)]
pub struct Delta {
    /// The columns that are not hidden.
    pub rows: RecordBatch,
    /// How often each comes, or goes: never 0.
    pub weights: Vec<i64>,
    /// Hashes of the rows, where the side's rows go again.
    pub hashes: Vec<KeyHash>,
    /// When each can match nothing any more; the end of time: never.
    pub expiries: Vec<i64>,
    /// Whether a row has a NULL in its key.
    pub null_keys: Vec<bool>,
    /// Whether it can match anything at all.
    pub matches: Vec<bool>,
    /// What stands for each row's key.
    pub keys: Vec<KeyHash>,
}

impl Delta {
    /// Rows with the weights of a side, `1` for all where there are none.
    pub fn of(side: &SideSpec, by_key: &RowIndex, by_value: Option<&RowIndex>, null_equals_null: bool, rows: RecordBatch, weights: Vec<i64>) -> Result<Self> {
        let count = rows.num_rows();
        let hashes = match by_value {
            Some(index) => index.hashes(&rows)?,
            None => vec![],
        };
        let keys = evaluate(&side.keys, &rows)?;
        let nulls = keys.iter().map(|key| key.logical_nulls()).fold(None, |all, nulls| NullBuffer::union(all.as_ref(), nulls.as_ref()));
        let null_keys: Vec<bool> = match nulls.filter(|_| !null_equals_null) {
            Some(nulls) => nulls.iter().map(|valid| !valid).collect(),
            None => vec![false; count],
        };
        let mut matches: Vec<bool> = null_keys.iter().map(|null| !null).collect();
        let keys = by_key.hashes_of(&keys, count)?;
        let mut expiries = vec![i64::MAX; count];
        if let Some(expiry) = &side.expiry {
            for (row, at) in expiry.of(&rows)?.into_iter().enumerate() {
                match at {
                    Some(at) => expiries[row] = at,
                    // The condition that bounds it is not true then.
                    None => matches[row] &= side.null_matches,
                }
            }
        }
        Ok(Self { rows, weights, hashes, expiries, null_keys, matches, keys })
    }

    /// What an epoch brings of a side. Rows whose time lies before `judged` are late; of a changing side, what comes and goes within the
    /// epoch is left out.
    pub fn arriving(
        side: &SideSpec,
        by_key: &RowIndex,
        by_value: Option<&RowIndex>,
        null_equals_null: bool,
        batches: &[RecordBatch],
        judged: i64,
        late: &mut Vec<LateRow>,
    ) -> Result<Self> {
        let batches = batches.iter().map(|batch| in_time(side, batch, judged, late)).collect::<Result<Vec<_>>>()?;
        let visible = batches.iter().map(|batch| batch.project(&side.visible)).collect::<Result<Vec<_>, _>>()?;
        let rows = concat_batches(&side.rows, &visible)?;
        let Some(weight) = side.weight else {
            let weights = vec![1; rows.num_rows()];
            return Self::of(side, by_key, by_value, null_equals_null, rows, weights);
        };
        let mut weights: Vec<i64> = vec![];
        for batch in &batches {
            weights.extend_from_slice(batch.column(weight).as_primitive::<Int64Type>().values());
        }
        let (rows, weights) = consolidated(rows, weights, by_value)?;
        Self::of(side, by_key, by_value, null_equals_null, rows, weights)
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// What is known of a row that matches so many.
    pub fn fresh(&self, row: usize, count: i64) -> Fresh {
        Fresh { key: self.keys[row], hash: self.hashes.get(row).copied(), expiry: self.expiries[row], count }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }
}

/// The net weight of each row, in order of first appearance; rows that come as often as they go are left out.
fn consolidated(rows: RecordBatch, weights: Vec<i64>, index: Option<&RowIndex>) -> Result<(RecordBatch, Vec<i64>)> {
    let Some(index) = index else { return Ok((rows, weights)) };
    let mut first: HashMap<KeyHash, usize> = HashMap::new();
    let mut net: Vec<(usize, i64)> = vec![];
    for (row, hash) in index.hashes(&rows)?.into_iter().enumerate() {
        let at = *first.entry(hash).or_insert_with(|| {
            net.push((row, 0));
            net.len() - 1
        });
        net[at].1 += weights[row];
    }
    net.retain(|(_, weight)| *weight != 0);
    if net.len() == rows.num_rows() {
        return Ok((rows, weights));
    }
    let places: Vec<u32> = net.iter().map(|(row, _)| *row as u32).collect();
    Ok((taken(&rows, &places)?, net.into_iter().map(|(_, weight)| weight).collect()))
}

/// The rows of a batch that are not late; the others are reported.
fn in_time(side: &SideSpec, batch: &RecordBatch, judged: i64, late: &mut Vec<LateRow>) -> Result<RecordBatch> {
    let Some(clock) = side.clock.as_ref().filter(|_| judged > i64::MIN) else { return Ok(batch.clone()) };
    let times = clock.time.of(&batch.project(&side.visible)?)?;
    // A row without a time matches nothing, and is never late.
    let is_late = |time: &Option<i64>| time.is_some_and(|time| time < judged);
    if !times.iter().any(is_late) {
        return Ok(batch.clone());
    }
    let Some(locator) = side.locator else {
        return Err(Error::Internal("a join was given a row behind the watermark by an operator that gives none".into()));
    };
    let locators = batch.column(locator).as_primitive::<UInt64Type>();
    for (row, time) in times.iter().enumerate() {
        if let Some(time) = time.filter(|time| *time < judged) {
            let (start, end) = if clock.size > 0 { (time.saturating_add(1).saturating_sub(clock.size), time.saturating_add(1)) } else { (time, time) };
            late.push(LateRow { row: locators.value(row), window_start: start, window_end: end, watermark: judged });
        }
    }
    let keep: BooleanArray = times.iter().map(|time| Some(!is_late(time))).collect();
    Ok(filter_record_batch(batch, &keep)?)
}

/// Rows of a batch in this order.
pub fn taken(rows: &RecordBatch, places: &[u32]) -> Result<RecordBatch> {
    if places.len() == rows.num_rows() && places.iter().enumerate().all(|(at, place)| *place as usize == at) {
        return Ok(rows.clone());
    }
    let places = UInt32Array::from(places.to_vec());
    let columns = rows.columns().iter().map(|column| take(column, &places, None)).collect::<Result<Vec<_>, _>>()?;
    batch_of(rows.schema(), columns, places.len())
}

/// A batch that may have no columns.
pub fn batch_of(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}
