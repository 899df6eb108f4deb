//! A topic with a primary key as a table of an ordinary query: the newest row of each key, once everything has been read.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::{Result as DataFusionResult, internal_err, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryConsumer},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::stream::{
    epoch::OperatorState,
    upsert::{Shape, UpsertState},
};

/// Keeps the newest row of each key of its input, whose last column tells which rows are gone.
#[derive(Debug)]
pub(super) struct NewestExec {
    input: Arc<dyn ExecutionPlan>,
    shape: Shape,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl NewestExec {
    /// The newest rows of an input.
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, shape: Shape) -> DataFusionResult<Self> {
        let schema: SchemaRef = Arc::new(input.schema().project(&shape.output)?);
        let properties =
            PlanProperties::new(EquivalenceProperties::new(schema.clone()), Partitioning::UnknownPartitioning(1), EmissionType::Final, Boundedness::Bounded);
        Ok(Self { input, shape, schema, properties: Arc::new(properties) })
    }
}

impl DisplayAs for NewestExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let input = self.input.schema();
        let key: Vec<&str> = self.shape.key.iter().map(|&column| input.field(column).name().as_str()).collect();
        write!(f, "NewestExec: newest row by [{}]", key.join(", "))
    }
}

impl ExecutionPlan for NewestExec {
    fn name(&self) -> &str {
        "NewestExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // A partition's records must come in their order.
        vec![false]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>, _: ReplaceChildrenOptions) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(children.swap_remove(0), self.shape.clone())?))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(children.swap_remove(0), self.shape.clone())?))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("the newest rows are one partition");
        }
        let readers = self.input.output_partitioning().partition_count();
        let inputs = (0..readers).map(|p| self.input.execute(p, context.clone())).collect::<DataFusionResult<Vec<_>>>()?;
        let mut state = UpsertState::new(&self.input.schema(), self.shape.clone())?;
        let memory = MemoryConsumer::new("NewestExec").register(context.memory_pool());
        let run = async move {
            // A key lives in one partition, and a partition is read in order by one reader: which reader comes first makes no difference.
            let mut arriving = stream::select_all(inputs);
            while let Some(batch) = arriving.next().await {
                state.absorb(&batch?)?;
                memory.try_resize(state.bytes())?;
            }
            let rows = state.held().map(|batch| Ok(batch?)).collect::<Vec<_>>();
            drop(memory);
            Ok::<_, datafusion::common::DataFusionError>(stream::iter(rows))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream::once(run).try_flatten())))
    }
}
