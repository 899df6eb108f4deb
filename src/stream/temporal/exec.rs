//! The physical operator of a temporal filter.

use std::{fmt, sync::Arc, time::Instant};

use arrow::{
    array::{Array, AsArray, Int64Array},
    datatypes::{Int64Type, SchemaRef, TimestampNanosecondType},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{Result, internal_err, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions, execution_plan::EmissionType,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{TryStreamExt, stream};
use parking_lot::Mutex;

use super::{
    limit::Side,
    state::{Arriving, TemporalState},
};
use crate::error::Result as TidegateResult;
use crate::stream::{
    epoch::{EpochInput, Operator, OperatorId, OperatorState, state_as},
    figures::Below,
    hidden::WEIGHT,
};

/// A [`Limit`](super::Limit) that can be evaluated.
#[derive(Debug, Clone)]
pub struct PhysicalLimit {
    /// Which end.
    pub side: Side,
    /// An instant worked out from the row.
    pub at: Arc<dyn PhysicalExpr>,
    /// Nanoseconds to add to it.
    pub offset: i64,
}

/// Lets rows in and out as the clock reaches their limits.
#[derive(Debug)]
pub struct TemporalFilterExec {
    id: OperatorId,
    input: Arc<dyn ExecutionPlan>,
    pub(super) limits: Arc<[PhysicalLimit]>,
    pub(super) description: String,
    pub(super) output: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl TemporalFilterExec {
    /// An operator over its input; its state is found in the epoch by `id`. `output` ends with the weight.
    pub fn new(id: OperatorId, input: Arc<dyn ExecutionPlan>, limits: Vec<PhysicalLimit>, description: String, output: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(output.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            input.boundedness(),
        );
        Self { id, input, limits: limits.into(), description, output, properties: Arc::new(properties) }
    }

    fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self::new(self.id, input, self.limits.to_vec(), self.description.clone(), self.output.clone()))
    }
}

impl Operator for TemporalFilterExec {
    fn id(&self) -> OperatorId {
        self.id
    }

    fn state(&self) -> Result<Arc<Mutex<dyn OperatorState>>> {
        let changing = self.input.schema().column_with_name(WEIGHT).is_some();
        Ok(Arc::new(Mutex::new(TemporalState::new(self.output.clone(), changing)?)))
    }

    fn spec(&self) -> TidegateResult<String> {
        Ok(format!("{:?}", self.limits))
    }
}

impl DisplayAs for TemporalFilterExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "TemporalFilterExec: id={}, {}", self.id, self.description)
    }
}

impl ExecutionPlan for TemporalFilterExec {
    fn name(&self) -> &str {
        "TemporalFilterExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // Rows must come in the source's order: no repartitioning below.
        vec![false]
    }

    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        self.limits.iter().try_fold(TreeNodeRecursion::Continue, |_, limit| f(&limit.at))
    }

    fn replace_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>, _: ReplaceChildrenOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.with_input(children.swap_remove(0)))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.with_input(children.swap_remove(0)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a temporal filter has one partition");
        }
        let epoch = EpochInput::of(&context)?;
        let (id, limits) = (self.id, self.limits.clone());
        let inputs = (0..self.input.output_partitioning().partition_count()).map(|p| self.input.execute(p, context.clone())).collect::<Result<Vec<_>>>()?;
        let run = async move {
            let (started, below) = (Instant::now(), Arc::new(Below::default()));
            let mut arriving = vec![];
            for input in inputs {
                for batch in below.counted(input).try_collect::<Vec<_>>().await? {
                    arriving.push(arrive(batch, &limits)?);
                }
            }
            let state = epoch.states.get(id)?.clone();
            let changes = {
                let mut state = state.lock();
                state_as::<TemporalState>(&mut *state)?.stage(arriving, epoch.time.after)?
            };
            let rows_out = changes.as_ref().map_or(0, |batch| batch.num_rows() as u64);
            epoch.states.figures().record(id, below.rows(), rows_out, started.elapsed().saturating_sub(below.time()));
            Ok::<_, datafusion::common::DataFusionError>(stream::iter(changes.into_iter().map(Ok)))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.output.clone(), stream::once(run).try_flatten())))
    }
}

/// An input batch with the limits of its rows.
fn arrive(batch: RecordBatch, limits: &[PhysicalLimit]) -> Result<Arriving> {
    let count = batch.num_rows();
    // A row without limits is there always, one whose limit is NULL never.
    let (mut from, mut until) = (vec![i64::MIN; count], vec![i64::MAX; count]);
    for PhysicalLimit { side, at, offset } in limits {
        let at = at.evaluate(&batch)?.into_array(count)?;
        let at = at.as_primitive::<TimestampNanosecondType>();
        for row in 0..count {
            let limit = at.is_valid(row).then(|| at.value(row).saturating_add(*offset));
            match side {
                Side::From => from[row] = from[row].max(limit.unwrap_or(i64::MAX)),
                Side::Until => until[row] = until[row].min(limit.unwrap_or(i64::MIN)),
            }
        }
    }
    let (rows, weights) = match batch.schema_ref().index_of(WEIGHT) {
        Ok(weight) => {
            let kept: Vec<usize> = (0..batch.num_columns()).filter(|column| *column != weight).collect();
            (batch.project(&kept)?, batch.column(weight).as_primitive::<Int64Type>().clone())
        }
        Err(_) => (batch, Int64Array::from_value(1, count)),
    };
    Ok(Arriving { rows, weights, from, until })
}
