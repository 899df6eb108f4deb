//! What a join emits: pairs, and rows of one side by whether they match anything. Rows that come as often as they go within an epoch are
//! left out; what goes stands before what comes.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, new_null_array},
    compute::concat_batches,
    datatypes::{Schema, SchemaRef},
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};

use super::{
    delta::{batch_of, taken},
    spec::JoinSpec,
};
use crate::{
    error::{Error, Result},
    stream::hidden::WEIGHT,
};

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// In the side's log, by its id,
    Stored,
    /// or among the rows of the epoch, by its place.
    Fresh,
}

/// Rows that match each other, left and right.
#[derive(Debug)]
pub struct Pairs {
    /// Where the rows of each side are.
    pub from: [From; 2],
    /// Which rows.
    pub rows: [Vec<u32>; 2],
    /// How often each pair comes or goes.
    pub weights: Vec<i64>,
}

impl Pairs {
    /// None.
    pub fn new(from: [From; 2]) -> Self {
        Self { from, rows: [vec![], vec![]], weights: vec![] }
    }

    /// Adds one.
    pub fn push(&mut self, left: u32, right: u32, weight: i64) {
        self.rows[0].push(left);
        self.rows[1].push(right);
        self.weights.push(weight);
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.weights.len()
    }
}

/// A row of a preserved side that comes or goes by what it matches.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// Where it is.
    pub from: From,
    /// Which it is.
    pub row: u32,
    /// Whether it matches anything.
    pub mark: bool,
    /// How often it comes or goes.
    pub weight: i64,
}

/// The columns of a row without a partner.
pub fn padding(spec: &JoinSpec, side: usize, rows: usize) -> Vec<ArrayRef> {
    spec.sides[side].rows.fields().iter().map(|field| new_null_array(field.data_type(), rows)).collect()
}

/// The column that says whether rows match anything.
pub fn marks(shown: &[&Shown]) -> ArrayRef {
    Arc::new(shown.iter().map(|shown| Some(shown.mark)).collect::<BooleanArray>())
}

/// An epoch's output.
#[derive(Debug)]
pub struct Output {
    /// The columns without the weight.
    visible: SchemaRef,
    batches: Vec<RecordBatch>,
    weights: Vec<i64>,
}

impl Output {
    /// Nothing.
    pub fn new(spec: &JoinSpec) -> Self {
        let fields: Vec<_> = spec.output.fields().iter().filter(|f| f.name() != WEIGHT).cloned().collect();
        Self { visible: Arc::new(Schema::new(fields)), batches: vec![], weights: vec![] }
    }

    /// Adds rows.
    pub fn push(&mut self, columns: Vec<ArrayRef>, weights: Vec<i64>) -> Result<()> {
        if !weights.is_empty() {
            self.batches.push(batch_of(self.visible.clone(), columns, weights.len())?);
            self.weights.extend(weights);
        }
        Ok(())
    }

    /// The rows to emit.
    pub fn finish(self, spec: &JoinSpec) -> Result<Vec<RecordBatch>> {
        if !spec.changing {
            if self.weights.iter().all(|weight| *weight == 1) {
                return Ok(self.batches);
            }
            return Err(Error::Internal("a join of rows that stay was told to take one away".into()));
        }
        if self.weights.is_empty() {
            return Ok(vec![]);
        }
        let rows = concat_batches(&self.visible, &self.batches)?;
        let net = consolidated(&rows, (0..).zip(self.weights).collect())?;
        let (mut places, mut weights) = (vec![], vec![]);
        for sign in [-1, 1] {
            for (row, weight) in net.iter().filter(|(_, weight)| weight.signum() == sign) {
                for _ in 0..weight.unsigned_abs() {
                    places.push(*row);
                    weights.push(sign);
                }
            }
        }
        if places.is_empty() {
            return Ok(vec![]);
        }
        let mut columns = taken(&rows, &places)?.columns().to_vec();
        columns.push(Arc::new(Int64Array::from(weights)));
        Ok(vec![RecordBatch::try_new(spec.output.clone(), columns)?])
    }
}

/// The net weights of equal rows, in the order of the rows' bytes.
fn consolidated(rows: &RecordBatch, weights: Vec<(u32, i64)>) -> Result<Vec<(u32, i64)>> {
    if rows.num_columns() == 0 {
        return Ok(vec![(0, weights.into_iter().map(|(_, weight)| weight).sum())]);
    }
    let converter = RowConverter::new(rows.schema_ref().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect())?;
    let encoded = converter.convert_columns(rows.columns())?;
    let mut sorted = weights;
    sorted.sort_by(|(a, _), (b, _)| encoded.row(*a as usize).cmp(&encoded.row(*b as usize)));
    let mut net: Vec<(u32, i64)> = vec![];
    for (row, weight) in sorted {
        match net.last_mut() {
            Some((last, sum)) if encoded.row(*last as usize) == encoded.row(row as usize) => *sum += weight,
            _ => net.push((row, weight)),
        }
    }
    net.retain(|(_, weight)| *weight != 0);
    Ok(net)
}
