//! The physical operator.

use std::{fmt, sync::Arc, time::Instant};

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, Int64Array, UInt64Array},
    compute::{cast, filter, filter_record_batch},
    datatypes::{DataType, Int64Type, SchemaRef, TimeUnit, UInt64Type},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    common::{Result, internal_err, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{TryStreamExt, stream};
use parking_lot::Mutex;

use super::state::{Arriving, TemporalJoinState};
use crate::error::Result as TidegateResult;
use crate::stream::{
    epoch::{EpochInput, LateRow, Operator, OperatorId, OperatorState, state_as},
    figures::Below,
    hidden::ROW,
    time::{Timeline, WatermarkStep},
};

/// What is joined. Each side's expressions are over its visible columns.
#[derive(Debug)]
pub struct TemporalJoinSpec {
    /// The left side's visible columns, as the operator holds them.
    pub left: SchemaRef,
    /// The right side's.
    pub right: SchemaRef,
    /// Which of the inputs' columns those are.
    pub visible: [Vec<usize>; 2],
    /// What is equal.
    pub on: Vec<(Arc<dyn PhysicalExpr>, Arc<dyn PhysicalExpr>)>,
    /// At what time the left row asks.
    pub time: Arc<dyn PhysicalExpr>,
    /// The right column that says from when a version is valid, among the visible ones.
    pub from: usize,
    /// The right column that says that there is none from then on, among the visible ones.
    pub gone: usize,
    /// What else must hold, over [`pairs`](Self::pairs).
    pub residual: Option<Arc<dyn PhysicalExpr>>,
    /// The visible columns of both sides.
    pub pairs: SchemaRef,
    /// A left row that matches nothing is shown all the same.
    pub outer: bool,
    /// What moves the left side's time along, and nanoseconds that its rows may trail it by; `None`: nothing that is known.
    pub left_clock: Option<(Timeline, i64)>,
    /// What moves the versions' time along.
    pub right_clock: Timeline,
    /// Nanoseconds for which rows are taken after the watermark has passed them.
    pub lateness: i64,
    /// What the operator gives: [`pairs`](Self::pairs) and the weight.
    pub output: SchemaRef,
    /// What it is, for display.
    pub what: String,
}

impl TemporalJoinSpec {
    /// The types of the key's columns.
    pub fn key_types(&self) -> Result<Vec<DataType>> {
        self.on.iter().map(|(_, right)| right.data_type(&self.right)).collect()
    }

    /// The key columns of left rows.
    pub fn left_keys(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.on.iter().map(|(left, _)| left.evaluate(rows)?.into_array(rows.num_rows())).collect()
    }

    /// The key columns of versions.
    pub fn right_keys(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.on.iter().map(|(_, right)| right.evaluate(rows)?.into_array(rows.num_rows())).collect()
    }

    /// A batch of one side; rows from before `judged` are reported as late and left out.
    fn arrive(&self, side: usize, batch: &RecordBatch, judged: i64, late: &mut Vec<LateRow>) -> Result<Arriving> {
        let schema = if side == 0 { &self.left } else { &self.right };
        let columns = self.visible[side].iter().map(|column| batch.column(*column).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let mut rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
        let mut times = nanoseconds(&match side {
            0 => self.time.evaluate(&rows)?.into_array(rows.num_rows())?,
            _ => rows.column(self.from).clone(),
        })?;
        let is_late = |time: Option<i64>| time.is_some_and(|time| time < judged);
        // Where rows can't be told to be late, none is.
        if let Ok(locators) = batch.schema_ref().index_of(ROW)
            && times.iter().any(is_late)
        {
            let locators: &UInt64Array = batch.column(locators).as_primitive::<UInt64Type>();
            for (row, time) in times.iter().enumerate().filter(|(_, time)| is_late(*time)) {
                let time = time.unwrap_or_default();
                late.push(LateRow { row: locators.value(row), window_start: time, window_end: time, watermark: judged });
            }
            let keep: BooleanArray = times.iter().map(|time| Some(!is_late(time))).collect();
            rows = filter_record_batch(&rows, &keep)?;
            times = filter(&times, &keep)?.as_primitive::<Int64Type>().clone();
        }
        let keys = if side == 0 { self.left_keys(&rows)? } else { self.right_keys(&rows)? };
        Ok(Arriving { rows, keys, times })
    }
}

/// Times as nanoseconds since 1970.
fn nanoseconds(times: &ArrayRef) -> Result<Int64Array> {
    let times = cast(times, &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
    Ok(cast(&times, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Shows each row with the version that was valid at its time.
#[derive(Debug)]
pub struct TemporalJoinExec {
    id: OperatorId,
    inputs: [Arc<dyn ExecutionPlan>; 2],
    spec: Arc<TemporalJoinSpec>,
    properties: Arc<PlanProperties>,
}

impl TemporalJoinExec {
    /// An operator over its inputs; its state is found in the epoch by `id`.
    pub fn new(id: OperatorId, inputs: [Arc<dyn ExecutionPlan>; 2], spec: Arc<TemporalJoinSpec>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(spec.output.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Unbounded { requires_infinite_memory: false },
        );
        Self { id, inputs, spec, properties: Arc::new(properties) }
    }

    /// What it joins.
    pub fn spec(&self) -> &Arc<TemporalJoinSpec> {
        &self.spec
    }

    fn with_inputs(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 2]>::try_from(children) {
            Ok(inputs) => Ok(Arc::new(Self::new(self.id, inputs, self.spec.clone()))),
            Err(_) => internal_err!("a temporal join has two inputs"),
        }
    }
}

impl Operator for TemporalJoinExec {
    fn id(&self) -> OperatorId {
        self.id
    }

    fn state(&self) -> Result<Arc<Mutex<dyn OperatorState>>> {
        Ok(Arc::new(Mutex::new(TemporalJoinState::new(self.spec.clone())?)))
    }

    fn spec(&self) -> TidegateResult<String> {
        Ok(format!("{:?}", self.spec))
    }
}

impl DisplayAs for TemporalJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "TemporalJoinExec: id={}, {}", self.id, self.spec.what)
    }
}

impl ExecutionPlan for TemporalJoinExec {
    fn name(&self) -> &str {
        "TemporalJoinExec"
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

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>, _: ReplaceChildrenOptions) -> Result<Arc<dyn ExecutionPlan>> {
        self.with_inputs(children)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.with_inputs(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a temporal join has one partition");
        }
        let epoch = EpochInput::of(&context)?;
        let (spec, id) = (self.spec.clone(), self.id);
        let open = |input: &Arc<dyn ExecutionPlan>| {
            (0..input.output_partitioning().partition_count()).map(|p| input.execute(p, context.clone())).collect::<Result<Vec<_>>>()
        };
        let inputs = [open(&self.inputs[0])?, open(&self.inputs[1])?];
        let run = async move {
            let (started, below) = (Instant::now(), Arc::new(Below::default()));
            let right = epoch.step_of(&spec.right_clock);
            let left = match &spec.left_clock {
                Some((timeline, lag)) => {
                    let step = epoch.step_of(timeline);
                    WatermarkStep { before: step.before.saturating_sub(*lag), after: step.after.saturating_sub(*lag) }
                }
                None => WatermarkStep { before: i64::MIN, after: i64::MIN },
            };
            let behind = |watermark: i64| watermark.saturating_sub(spec.lateness);
            let (mut arriving, mut gone, mut late) = ([vec![], vec![]], vec![], vec![]);
            for (side, inputs) in inputs.into_iter().enumerate() {
                let judged = behind(if side == 0 { left.before } else { right.before });
                for input in inputs {
                    for batch in below.counted(input).try_collect::<Vec<_>>().await? {
                        let part = spec.arrive(side, &batch, judged, &mut late)?;
                        if side == 1 {
                            gone.push(part.rows.column(spec.gone).as_boolean().clone());
                        }
                        arriving[side].push(part);
                    }
                }
            }
            epoch.states.report_late(late);
            let [rows, versions] = arriving;
            let state = epoch.states.get(id)?.clone();
            let changes = {
                let mut state = state.lock();
                let answered = behind(right.after);
                state_as::<TemporalJoinState>(&mut *state)?.stage(rows, versions, &gone, answered, answered.min(behind(left.after)))?
            };
            let rows_out = changes.as_ref().map_or(0, |batch| batch.num_rows() as u64);
            epoch.states.figures().record(id, below.rows(), rows_out, started.elapsed().saturating_sub(below.time()));
            Ok::<_, datafusion::common::DataFusionError>(stream::iter(changes.into_iter().map(Ok)))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.spec.output.clone(), stream::once(run).try_flatten())))
    }
}
