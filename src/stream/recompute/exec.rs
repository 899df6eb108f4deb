//! The physical operator.

use std::{collections::HashMap, fmt, sync::Arc, time::Instant};

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, Int64Array, UInt64Array},
    compute::{filter, filter_record_batch},
    datatypes::{Int64Type, SchemaRef, UInt64Type},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    common::{DataFusionError, Result, internal_err, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, ReplaceChildrenOptions, collect,
        execution_plan::{EmissionType, reset_plan_states},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{TryStreamExt, stream};
use parking_lot::Mutex;

use super::{
    node::ROWS,
    state::{Arriving, RecomputeState},
};
use crate::error::Result as TidegateResult;
use crate::stream::{
    aggregate::WindowKey,
    changes::consolidate,
    codec::WindowFilter,
    epoch::{EpochInput, LateRow, Operator, OperatorId, OperatorState, States, state_as},
    figures::Below,
    hidden::{ROW, WEIGHT},
    replace::fingerprint,
    time::BEGINNING,
};

/// What is computed.
#[derive(Debug)]
pub struct RecomputeSpec {
    /// What the query answers for alone, over `rows`.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The query over the rows.
    pub query: Arc<dyn ExecutionPlan>,
    /// The conditions of its window functions: its plan has them and does not give them back.
    pub filters: Vec<WindowFilter>,
    /// Which of the input's columns are held.
    pub visible: Vec<usize>,
    /// Whether rows of the input go again.
    pub changing: bool,
    /// The rows as they are held.
    pub rows: SchemaRef,
    /// What the operator gives.
    pub output: SchemaRef,
    /// See [`Recompute`](super::Recompute).
    pub window: Option<WindowKey>,
    /// See [`Recompute`](super::Recompute).
    pub whole: bool,
    /// See [`Recompute`](super::Recompute).
    pub shrinks: bool,
    /// See [`Recompute`](super::Recompute).
    pub over_nothing: bool,
    /// See [`Recompute`](super::Recompute).
    pub closes_when_quiet: bool,
    /// See [`Recompute`](super::Recompute).
    pub idle_after: Option<i64>,
    /// What it is, for display.
    pub what: String,
}

impl RecomputeSpec {
    /// The key columns of rows as they are held.
    pub fn key_columns(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.keys.iter().map(|key| key.evaluate(rows)?.into_array(rows.num_rows())).collect()
    }

    /// The types of the key's columns.
    pub fn key_types(&self) -> Result<Vec<arrow::datatypes::DataType>> {
        self.keys.iter().map(|key| key.data_type(&self.rows)).collect()
    }

    /// The ends of the windows that key columns name.
    pub fn ends(&self, keys: &[ArrayRef]) -> Result<Option<Int64Array>> {
        self.window.as_ref().map(|window| window.ends(&keys[window.group])).transpose()
    }

    /// An input batch as rows that come and go; those of windows that end at or before `judged` are late.
    fn arrive(&self, batch: RecordBatch, judged: i64, late: &mut Vec<LateRow>) -> Result<Arriving> {
        let count = batch.num_rows();
        let held = |batch: &RecordBatch| -> Result<RecordBatch> {
            renamed(&self.rows, &self.visible.iter().map(|column| batch.column(*column).clone()).collect::<Vec<_>>(), batch.num_rows())
        };
        let weights = match batch.schema_ref().index_of(WEIGHT) {
            Ok(weight) => batch.column(weight).as_primitive::<Int64Type>().clone(),
            Err(_) => Int64Array::from_value(1, count),
        };
        let rows = held(&batch)?;
        let keys = self.key_columns(&rows)?;
        let Some((window, ends)) = self.window.as_ref().zip(self.ends(&keys)?) else { return Ok(Arriving { rows, weights, keys, ends: None }) };
        let keep: BooleanArray = ends.iter().map(|end| Some(end.is_none_or(|end| end > judged))).collect();
        if keep.true_count() == count {
            return Ok(Arriving { rows, weights, keys, ends: Some(ends) });
        }
        let Ok(locators) = batch.schema_ref().index_of(ROW) else {
            return internal_err!("a row came to a window that had closed already, and it is no record's");
        };
        let locators: &UInt64Array = batch.column(locators).as_primitive::<UInt64Type>();
        late.extend((0..count).filter(|row| !keep.value(*row)).map(|row| {
            let window_end = ends.value(row);
            LateRow { row: locators.value(row), window_start: window_end.saturating_sub(window.size), window_end, watermark: judged }
        }));
        let rows = filter_record_batch(&rows, &keep)?;
        let keys = keys.iter().map(|key| filter(key, &keep)).collect::<Result<_, _>>()?;
        let weights = filter(&weights, &keep)?.as_primitive::<Int64Type>().clone();
        let ends = filter(&ends, &keep)?.as_primitive::<Int64Type>().clone();
        Ok(Arriving { rows, weights, keys, ends: Some(ends) })
    }

    /// The query's answer over rows.
    async fn answer(&self, rows: Vec<RecordBatch>, context: &TaskContext) -> Result<Vec<RecordBatch>> {
        let outer = EpochInput::of(context)?;
        let input = EpochInput {
            rows: Arc::new(HashMap::from([(ROWS.to_string(), rows)])),
            watermarks: outer.watermarks.clone(),
            time: outer.time,
            quiet: false,
            states: Arc::new(States::default()),
        };
        let config = context.session_config().clone().with_extension(Arc::new(input));
        let none = HashMap::new;
        let context = TaskContext::new(None, context.session_id(), config, none(), HashMap::new(), HashMap::new(), HashMap::new(), context.runtime_env());
        collect(reset_plan_states(self.query.clone())?, Arc::new(context)).await
    }

    /// Batches with a weight.
    fn weighted(&self, batches: Vec<RecordBatch>, weight: i64) -> Result<Vec<RecordBatch>> {
        batches
            .into_iter()
            .filter(|batch| batch.num_rows() > 0)
            .map(|batch| {
                let mut columns = batch.columns().to_vec();
                columns.push(Arc::new(Int64Array::from_value(weight, batch.num_rows())));
                Ok(RecordBatch::try_new(self.output.clone(), columns)?)
            })
            .collect()
    }
}

/// Columns under the names of a schema.
pub(super) fn renamed(schema: &SchemaRef, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns.to_vec(), &RecordBatchOptions::new().with_row_count(Some(rows)))?)
}

/// Answers a query anew for the keys that an epoch touches.
#[derive(Debug)]
pub struct RecomputeExec {
    id: OperatorId,
    input: Arc<dyn ExecutionPlan>,
    spec: Arc<RecomputeSpec>,
    properties: Arc<PlanProperties>,
}

impl RecomputeExec {
    /// An operator over its input; its state is found in the epoch by `id`.
    pub fn new(id: OperatorId, input: Arc<dyn ExecutionPlan>, spec: Arc<RecomputeSpec>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(spec.output.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            input.boundedness(),
        );
        Self { id, input, spec, properties: Arc::new(properties) }
    }

    /// What it computes.
    pub fn spec(&self) -> &Arc<RecomputeSpec> {
        &self.spec
    }
}

impl Operator for RecomputeExec {
    fn id(&self) -> OperatorId {
        self.id
    }

    fn state(&self) -> Result<Arc<Mutex<dyn OperatorState>>> {
        Ok(Arc::new(Mutex::new(RecomputeState::new(self.spec.clone())?)))
    }

    fn spec(&self) -> TidegateResult<String> {
        let RecomputeSpec {
            keys,
            query,
            filters: _,
            visible,
            changing,
            rows: _,
            output: _,
            window,
            whole,
            shrinks,
            over_nothing,
            closes_when_quiet,
            idle_after,
            what: _,
        } = self.spec.as_ref();
        // The query counts what it does, and that is no part of what it is.
        let query = fingerprint(query)?;
        Ok(format!("{keys:?} {query} {visible:?} {changing} {window:?} {whole} {shrinks} {over_nothing} {closes_when_quiet} {idle_after:?}"))
    }

    fn is_timeless(&self) -> bool {
        self.spec.window.is_none() && self.spec.idle_after.is_none()
    }
}

impl DisplayAs for RecomputeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let keys = self.spec.keys.iter().map(|key| key.to_string()).collect::<Vec<_>>().join(", ");
        write!(f, "RecomputeExec: id={}, {} by [{keys}]", self.id, self.spec.what)
    }
}

impl ExecutionPlan for RecomputeExec {
    fn name(&self) -> &str {
        "RecomputeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
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
            return internal_err!("an operator that recomputes has one partition");
        }
        let epoch = EpochInput::of(&context)?;
        let (spec, id) = (self.spec.clone(), self.id);
        let inputs = (0..self.input.output_partitioning().partition_count()).map(|p| self.input.execute(p, context.clone())).collect::<Result<Vec<_>>>()?;
        let run = async move {
            let (started, below) = (Instant::now(), Arc::new(Below::default()));
            let state = epoch.states.get(id)?.clone();
            let window = spec.window.as_ref().map(|window| (window, epoch.step_of(&window.timeline)));
            let quiet = (epoch.quiet && spec.closes_when_quiet).then(|| epoch.states.last_window().unwrap_or(BEGINNING));
            let advance = state_as::<RecomputeState>(&mut *state.lock())?.progress().advance(window, quiet);
            let (mut arriving, mut late) = (vec![], vec![]);
            for input in inputs {
                for batch in below.counted(input).try_collect::<Vec<_>>().await? {
                    arriving.push(spec.arrive(batch, advance.judged, &mut late)?);
                }
            }
            epoch.states.report_late(late);
            let output = if spec.whole {
                let rows: Vec<RecordBatch> = arriving.into_iter().map(|part| part.rows).filter(|rows| rows.num_rows() > 0).collect();
                if rows.is_empty() { vec![] } else { spec.answer(rows, &context).await? }
            } else {
                let touched = state_as::<RecomputeState>(&mut *state.lock())?.touch(arriving, epoch.time.after)?;
                match touched {
                    None => vec![],
                    Some(touched) => {
                        let before = match &touched.before {
                            Some(rows) => spec.answer(vec![rows.clone()], &context).await?,
                            None => vec![],
                        };
                        let after = match &touched.after {
                            Some(rows) => spec.answer(vec![rows.clone()], &context).await?,
                            None => vec![],
                        };
                        state_as::<RecomputeState>(&mut *state.lock())?.keep(touched, &after)?;
                        let mut changes = spec.weighted(before, -1)?;
                        changes.extend(spec.weighted(after, 1)?);
                        consolidate(changes, true, None)?
                    }
                }
            };
            // Windows that close with this epoch have had their say.
            state_as::<RecomputeState>(&mut *state.lock())?.close(advance);
            // The query's nullability may be stricter than what was planned.
            let output = output.iter().map(|batch| renamed(&spec.output, batch.columns(), batch.num_rows())).collect::<Result<Vec<_>>>()?;
            let rows_out = output.iter().map(|batch| batch.num_rows() as u64).sum();
            epoch.states.figures().record(id, below.rows(), rows_out, started.elapsed().saturating_sub(below.time()));
            Ok::<_, DataFusionError>(stream::iter(output.into_iter().map(Ok)))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.spec.output.clone(), stream::once(run).try_flatten())))
    }
}
