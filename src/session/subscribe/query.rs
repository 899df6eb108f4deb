//! A query over a view's rows, as it runs for subscriptions: over what the view holds, and over each of its changes.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    compute::concat_batches,
    datatypes::{Int64Type, Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    execution::{TaskContext, runtime_env::RuntimeEnv},
    physical_plan::{collect, execution_plan::reset_plan_states},
    prelude::SessionConfig,
};

use super::ops::{pair_up, with_ops, with_weights};
use crate::{
    error::Result,
    stream::{
        changes::EpochChanges,
        epoch::{EpochInput, States},
        hidden::{pair_field, weight_field},
        plan::ViewPlan,
        published::Board,
        time::{BEGINNING, WatermarkStep},
    },
};

/// A query over one view.
pub(super) struct ViewQuery {
    /// The view.
    pub view: String,
    /// Where it publishes.
    pub board: Arc<Board>,
    /// The columns of its rows.
    pub columns: SchemaRef,
    /// The query's plan: filters and projections, no operator with a state.
    pub plan: ViewPlan,
    /// The result's columns.
    pub schema: SchemaRef,
    /// What plans run in.
    pub runtime: Arc<RuntimeEnv>,
}

impl ViewQuery {
    /// What the query gives of rows that are there.
    pub async fn rows(&self, rows: &RecordBatch, epoch: u64) -> Result<Option<RecordBatch>> {
        let weights = Int64Array::from(vec![1; rows.num_rows()]);
        let pairs = Int64Array::from(vec![-1; rows.num_rows()]);
        self.run(rows, weights, pairs, epoch).await
    }

    /// What the query gives of an epoch's changes; one batch for each of theirs, so that no update is torn at a border.
    pub async fn changes(&self, changes: &EpochChanges) -> Result<Vec<RecordBatch>> {
        let mut results = vec![];
        let key = self.key();
        for batch in changes.batches.iter() {
            let batch = with_weights(&self.columns, batch)?;
            let width = self.columns.fields().len();
            let rows = batch.project(&(0..width).collect::<Vec<_>>())?;
            let weights = batch.column(width).as_primitive::<Int64Type>().clone();
            let pairs = pair_up(&rows, Some(&weights), key.as_deref())?;
            results.extend(self.run(&rows, weights, pairs, changes.epoch).await?);
        }
        Ok(results)
    }

    /// What names a row of the view: another definition may have taken its place.
    pub fn key(&self) -> Option<Vec<usize>> {
        self.board.current().views.get(&self.view)?.plan.key.clone()
    }

    async fn run(&self, rows: &RecordBatch, weights: Int64Array, pairs: Int64Array, epoch: u64) -> Result<Option<RecordBatch>> {
        let Some(given) = run_over(&self.plan, &self.view, rows, weights, pairs, &self.runtime).await? else { return Ok(None) };
        let batch = with_ops(&given, &self.schema, epoch)?;
        Ok((batch.num_rows() > 0).then_some(batch))
    }
}

/// What a plan of filters and projections gives over rows of a view; each row it gives has the weight and the pair of the one that it came from.
pub(in crate::session) async fn run_over(
    plan: &ViewPlan,
    view: &str,
    rows: &RecordBatch,
    weights: Int64Array,
    pairs: Int64Array,
    runtime: &Arc<RuntimeEnv>,
) -> Result<Option<RecordBatch>> {
    let mut fields = rows.schema_ref().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    fields.extend([weight_field(), pair_field()]);
    columns.extend([Arc::new(weights) as ArrayRef, Arc::new(pairs)]);
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
    let input = EpochInput {
        rows: Arc::new(HashMap::from([(view.to_string(), vec![batch])])),
        watermarks: Arc::default(),
        // No operator of its plan asks for the time.
        time: WatermarkStep { before: BEGINNING, after: BEGINNING },
        quiet: false,
        states: Arc::new(States::default()),
    };
    let config = SessionConfig::new().with_target_partitions(1).with_extension(Arc::new(input));
    let none = HashMap::new;
    let context = TaskContext::new(None, "subscription".into(), config, none(), HashMap::new(), HashMap::new(), HashMap::new(), runtime.clone());
    let results = collect(reset_plan_states(plan.physical.clone())?, Arc::new(context)).await?;
    let Some(first) = results.first() else { return Ok(None) };
    Ok(Some(concat_batches(first.schema_ref(), &results)?))
}
