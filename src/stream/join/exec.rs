//! The physical operator of a streaming join.

use std::{fmt, sync::Arc, time::Instant};

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

use super::{spec::JoinSpec, state::JoinState};
use crate::error::Result as TidegateResult;
use crate::stream::{
    epoch::{EpochInput, Operator, OperatorId, OperatorState, state_as},
    figures::Below,
};

/// Joins an epoch's rows with each other and with what the sides hold.
#[derive(Debug)]
pub struct StreamJoinExec {
    id: OperatorId,
    inputs: [Arc<dyn ExecutionPlan>; 2],
    pub(super) spec: Arc<JoinSpec>,
    pub(super) description: String,
    properties: Arc<PlanProperties>,
}

impl StreamJoinExec {
    /// An operator over its inputs, left and right; its state is found in the epoch by `id`.
    pub fn new(id: OperatorId, inputs: [Arc<dyn ExecutionPlan>; 2], spec: Arc<JoinSpec>, description: String) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(spec.output.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            inputs[0].boundedness(),
        );
        Self { id, inputs, spec, description, properties: Arc::new(properties) }
    }

    fn with_inputs(&self, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok(inputs) = inputs.try_into() else { return internal_err!("a join has two inputs") };
        Ok(Arc::new(Self::new(self.id, inputs, self.spec.clone(), self.description.clone())))
    }
}

impl Operator for StreamJoinExec {
    fn id(&self) -> OperatorId {
        self.id
    }

    fn state(&self) -> Result<Arc<Mutex<dyn OperatorState>>> {
        Ok(Arc::new(Mutex::new(JoinState::new(self.spec.clone())?)))
    }

    fn spec(&self) -> TidegateResult<String> {
        Ok(format!("{:?}", self.spec))
    }

    fn is_timeless(&self) -> bool {
        !self.spec.complete && self.spec.sides.iter().all(|side| side.expiry.is_none() && side.clock.is_none())
    }
}

impl DisplayAs for StreamJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StreamJoinExec: id={}, {}", self.id, self.description)
    }
}

impl ExecutionPlan for StreamJoinExec {
    fn name(&self) -> &str {
        "StreamJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // Rows must come in the source's order: no repartitioning below.
        vec![false, false]
    }

    fn apply_expressions(&self, f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        let exprs = self.spec.sides.iter().flat_map(|side| &side.keys).chain(self.spec.filter.iter().map(|filter| &filter.expr));
        exprs.into_iter().try_fold(TreeNodeRecursion::Continue, |_, expr| f(expr))
    }

    fn replace_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>, _: ReplaceChildrenOptions) -> Result<Arc<dyn ExecutionPlan>> {
        self.with_inputs(children)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.with_inputs(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a streaming join has one partition");
        }
        let epoch = EpochInput::of(&context)?;
        let (spec, id) = (self.spec.clone(), self.id);
        let of_side = |side: usize| {
            let input = &self.inputs[side];
            (0..input.output_partitioning().partition_count()).map(|p| input.execute(p, context.clone())).collect::<Result<Vec<_>>>()
        };
        let inputs = [of_side(0)?, of_side(1)?];
        let run = async move {
            let (started, below) = (Instant::now(), Arc::new(Below::default()));
            // One after the other, in partition order: the same input gives the same rows in the same order.
            let mut arriving = [vec![], vec![]];
            for (arriving, inputs) in arriving.iter_mut().zip(inputs) {
                for input in inputs {
                    arriving.extend(below.counted(input).try_collect::<Vec<_>>().await?);
                }
            }
            let steps = [0, 1].map(|side: usize| spec.sides[side].clock.as_ref().map(|clock| epoch.step_of(&clock.timeline)));
            let state = epoch.states.get(id)?.clone();
            let mut late = vec![];
            let output = {
                let mut state = state.lock();
                state_as::<JoinState>(&mut *state)?.stage(arriving, steps, &mut late)?
            };
            epoch.states.report_late(late);
            let rows_out: usize = output.iter().map(|batch| batch.num_rows()).sum();
            epoch.states.figures().record(id, below.rows(), rows_out as u64, started.elapsed().saturating_sub(below.time()));
            Ok::<_, datafusion::common::DataFusionError>(stream::iter(output.into_iter().map(Ok)))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.spec.output.clone(), stream::once(run).try_flatten())))
    }
}
