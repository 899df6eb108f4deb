//! The physical operator of a streaming aggregate.

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

use super::{node::Emission, sessions::SessionState, spec::AggregateSpec, state::GroupState};
use crate::error::Result as TidegateResult;
use crate::stream::{
    epoch::{EpochInput, Operator, OperatorId, OperatorState, state_as},
    figures::Below,
    time::BEGINNING,
};

/// Aggregates an epoch's rows into the groups of its view.
#[derive(Debug)]
pub struct StreamAggregateExec {
    id: OperatorId,
    input: Arc<dyn ExecutionPlan>,
    spec: Arc<AggregateSpec>,
    properties: Arc<PlanProperties>,
}

impl StreamAggregateExec {
    /// An operator over its input; its state is found in the epoch by `id`.
    pub fn new(id: OperatorId, input: Arc<dyn ExecutionPlan>, spec: Arc<AggregateSpec>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(spec.output.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            input.boundedness(),
        );
        Self { id, input, spec, properties: Arc::new(properties) }
    }

    /// What it computes.
    pub fn spec(&self) -> &Arc<AggregateSpec> {
        &self.spec
    }
}

impl Operator for StreamAggregateExec {
    fn id(&self) -> OperatorId {
        self.id
    }

    fn state(&self) -> Result<Arc<Mutex<dyn OperatorState>>> {
        self.spec.state()
    }

    fn spec(&self) -> TidegateResult<String> {
        Ok(format!("{:?}", self.spec))
    }

    fn holds_its_answer(&self) -> bool {
        // Windows are dropped when they close.
        self.spec.emission == Emission::Changes && self.spec.window.is_none() && self.spec.sessions.is_none()
    }

    fn is_timeless(&self) -> bool {
        self.spec.window.is_none() && self.spec.sessions.is_none() && self.spec.idle_after.is_none()
    }
}

impl DisplayAs for StreamAggregateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StreamAggregateExec: id={}, emit={:?}, aggr=[{}]", self.id, self.spec.emission, self.spec.names())
    }
}

impl ExecutionPlan for StreamAggregateExec {
    fn name(&self) -> &str {
        "StreamAggregateExec"
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
        Ok(Arc::new(Self::new(self.id, children.swap_remove(0), self.spec.clone())))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(self.id, children.swap_remove(0), self.spec.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a streaming aggregate has one partition");
        }
        let epoch = EpochInput::of(&context)?;
        let (spec, id) = (self.spec.clone(), self.id);
        let inputs = (0..self.input.output_partitioning().partition_count()).map(|p| self.input.execute(p, context.clone())).collect::<Result<Vec<_>>>()?;
        let run = async move {
            let (started, below) = (Instant::now(), Arc::new(Below::default()));
            let state = epoch.states.get(id)?.clone();
            let window = spec.window.as_ref().map(|window| (window, epoch.step_of(&window.timeline)));
            // The clock never falls silent.
            let closes = epoch.quiet && !spec.follows_the_clock() && spec.closes_when_quiet;
            let quiet = closes.then(|| epoch.states.last_window().unwrap_or(BEGINNING));
            let mut late = vec![];
            // In partition order, one after the other: the same input gives the same bits.
            let changes = if spec.sessions.is_some() {
                let mut rows = vec![];
                for input in inputs {
                    rows.extend(below.counted(input).try_collect::<Vec<_>>().await?);
                }
                let mut state = state.lock();
                let state = state_as::<SessionState>(&mut *state)?;
                state.stage(&rows, state.progress().advance(window, quiet), &mut late)?
            } else {
                let advance = state_as::<GroupState>(&mut *state.lock())?.progress().advance(window, quiet);
                let mut partials = vec![];
                for input in inputs {
                    partials.extend(spec.partial(below.counted(input), advance.judged, &mut late).await?);
                }
                let mut state = state.lock();
                state_as::<GroupState>(&mut *state)?.stage(partials, advance, epoch.time.after)?
            };
            epoch.states.report_late(late);
            let rows_out = changes.as_ref().map_or(0, |batch| batch.num_rows() as u64);
            epoch.states.figures().record(id, below.rows(), rows_out, started.elapsed().saturating_sub(below.time()));
            Ok::<_, datafusion::common::DataFusionError>(stream::iter(changes.into_iter().map(Ok)))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.spec.output.clone(), stream::once(run).try_flatten())))
    }
}
