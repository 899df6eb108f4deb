//! The physical operator that keeps the newest row of each key.

use std::{fmt, sync::Arc, time::Instant};

use arrow::datatypes::SchemaRef;
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

use super::state::{Shape, UpsertState};
use crate::error::Result as TidegateResult;
use crate::stream::{
    epoch::{EpochInput, Operator, OperatorId, OperatorState, state_as},
    figures::Below,
};

/// Records as changes of the rows that they name.
#[derive(Debug)]
pub struct UpsertExec {
    id: OperatorId,
    input: Arc<dyn ExecutionPlan>,
    pub(super) shape: Shape,
    pub(super) output: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl UpsertExec {
    /// An operator over its input; its state is found in the epoch by `id`. `output` ends with the weight.
    pub fn new(id: OperatorId, input: Arc<dyn ExecutionPlan>, shape: Shape, output: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(output.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            input.boundedness(),
        );
        Self { id, input, shape, output, properties: Arc::new(properties) }
    }

    fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self::new(self.id, input, self.shape.clone(), self.output.clone()))
    }
}

impl Operator for UpsertExec {
    fn id(&self) -> OperatorId {
        self.id
    }

    fn state(&self) -> Result<Arc<Mutex<dyn OperatorState>>> {
        Ok(Arc::new(Mutex::new(UpsertState::new(&self.input.schema(), self.shape.clone())?)))
    }

    fn spec(&self) -> TidegateResult<String> {
        Ok(format!("{:?}", self.shape))
    }
}

impl DisplayAs for UpsertExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let input = self.input.schema();
        let key: Vec<&str> = self.shape.key.iter().map(|&column| input.field(column).name().as_str()).collect();
        write!(f, "UpsertExec: id={}, newest row by [{}]", self.id, key.join(", "))
    }
}

impl ExecutionPlan for UpsertExec {
    fn name(&self) -> &str {
        "UpsertExec"
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
            return internal_err!("the newest rows are one partition");
        }
        let epoch = EpochInput::of(&context)?;
        let (id, output) = (self.id, self.output.clone());
        let inputs = (0..self.input.output_partitioning().partition_count()).map(|p| self.input.execute(p, context.clone())).collect::<Result<Vec<_>>>()?;
        let run = async move {
            let (started, below) = (Instant::now(), Arc::new(Below::default()));
            let mut arriving = vec![];
            for input in inputs {
                arriving.extend(below.counted(input).try_collect::<Vec<_>>().await?);
            }
            let state = epoch.states.get(id)?.clone();
            let changes = {
                let mut state = state.lock();
                state_as::<UpsertState>(&mut *state)?.stage(&arriving, &output)?
            };
            let rows_out = changes.as_ref().map_or(0, |batch| batch.num_rows() as u64);
            epoch.states.figures().record(id, below.rows(), rows_out, started.elapsed().saturating_sub(below.time()));
            Ok::<_, datafusion::common::DataFusionError>(stream::iter(changes.into_iter().map(Ok)))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.output.clone(), stream::once(run).try_flatten())))
    }
}
