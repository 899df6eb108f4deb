//! The physical operator.

use std::{fmt, sync::Arc, time::Instant};

use arrow::{
    array::{AsArray, Int64Array},
    datatypes::{Int64Type, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
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

use super::state::{Arriving, ExpiryState};
use crate::error::Result as TidegateResult;
use crate::stream::{
    epoch::{EpochInput, Operator, OperatorId, OperatorState, state_as},
    figures::Below,
    hidden::{WEIGHT, is_hidden},
    time::told,
};

/// Lets rows go so long after they came.
#[derive(Debug)]
pub struct ExpiryExec {
    id: OperatorId,
    input: Arc<dyn ExecutionPlan>,
    /// Nanoseconds that a row stays.
    ttl: i64,
    output: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl ExpiryExec {
    /// An operator over its input; its state is found in the epoch by `id`. `output` are the input's visible columns and the weight.
    pub fn new(id: OperatorId, input: Arc<dyn ExecutionPlan>, ttl: i64, output: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(output.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            input.boundedness(),
        );
        Self { id, input, ttl, output, properties: Arc::new(properties) }
    }

    /// Nanoseconds that a row stays.
    pub fn ttl(&self) -> i64 {
        self.ttl
    }

    fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self::new(self.id, input, self.ttl, self.output.clone()))
    }
}

impl Operator for ExpiryExec {
    fn id(&self) -> OperatorId {
        self.id
    }

    fn spec(&self) -> TidegateResult<String> {
        Ok(format!("{} ns", self.ttl))
    }

    fn state(&self) -> Result<Arc<Mutex<dyn OperatorState>>> {
        let changing = self.input.schema().column_with_name(WEIGHT).is_some();
        Ok(Arc::new(Mutex::new(ExpiryState::new(self.output.clone(), self.ttl, changing)?)))
    }
}

impl DisplayAs for ExpiryExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ExpiryExec: id={}, {}", self.id, told(self.ttl))
    }
}

impl ExecutionPlan for ExpiryExec {
    fn name(&self) -> &str {
        "ExpiryExec"
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

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>, _: ReplaceChildrenOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.with_input(children.swap_remove(0)))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.with_input(children.swap_remove(0)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("an operator that lets rows expire has one partition");
        }
        let epoch = EpochInput::of(&context)?;
        let id = self.id;
        let inputs = (0..self.input.output_partitioning().partition_count()).map(|p| self.input.execute(p, context.clone())).collect::<Result<Vec<_>>>()?;
        let run = async move {
            let (started, below) = (Instant::now(), Arc::new(Below::default()));
            let mut arriving = vec![];
            for input in inputs {
                for batch in below.counted(input).try_collect::<Vec<_>>().await? {
                    arriving.push(arrive(&batch)?);
                }
            }
            let state = epoch.states.get(id)?.clone();
            let changes = {
                let mut state = state.lock();
                state_as::<ExpiryState>(&mut *state)?.stage(&arriving, epoch.time.after)?
            };
            let rows_out = changes.as_ref().map_or(0, |batch| batch.num_rows() as u64);
            epoch.states.figures().record(id, below.rows(), rows_out, started.elapsed().saturating_sub(below.time()));
            Ok::<_, datafusion::common::DataFusionError>(stream::iter(changes.into_iter().map(Ok)))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.output.clone(), stream::once(run).try_flatten())))
    }
}

fn arrive(batch: &RecordBatch) -> Result<Arriving> {
    let schema = batch.schema();
    let visible: Vec<usize> = (0..batch.num_columns()).filter(|column| !is_hidden(schema.field(*column).name())).collect();
    let weights = match schema.index_of(WEIGHT) {
        Ok(weight) => batch.column(weight).as_primitive::<Int64Type>().clone(),
        Err(_) => Int64Array::from_value(1, batch.num_rows()),
    };
    let rows = match visible.is_empty() {
        true => {
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(Arc::new(schema.project(&[])?), vec![], &options)?
        }
        false => batch.project(&visible)?,
    };
    Ok(Arriving { rows, weights })
}
