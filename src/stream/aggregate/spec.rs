//! What a streaming aggregate computes, and the partial aggregation of one epoch's rows with DataFusion's own accumulators.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatchOptions, UInt64Array},
    compute::{cast, filter_record_batch, take_record_batch},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, UInt64Type},
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};
use datafusion::{
    catalog::Session,
    common::Result,
    execution::SendableRecordBatchStream,
    logical_expr::{EmitTo, GroupsAccumulator, physical_planning_context::PhysicalPlanningContext},
    physical_expr::{
        GroupsAccumulatorAdapter, PhysicalExpr,
        aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder},
    },
    physical_plan::aggregates::{group_values::new_group_values, order::GroupOrdering},
    physical_planner::PhysicalPlanner,
};
use futures::StreamExt;
use parking_lot::Mutex;

use tidegate_udfs::window::Bound;

use super::{
    node::{Emission, Panes, Sessions, StreamAggregate, WindowKey, scale_of},
    sessions::SessionState,
    state::GroupState,
};
use crate::{
    error::Error,
    stream::{
        epoch::{LateRow, OperatorState},
        hidden::ROW,
        time::Timeline,
    },
};

/// The accumulators of all functions of one aggregate.
pub type Accumulators = Vec<Box<dyn GroupsAccumulator>>;

/// What is computed. Schemas: `key` are the group columns, `partial` adds the accumulators' states, `stored` adds,
/// where rows go again, the values emitted last, and for sessions the times of their first and last row in nanoseconds, `output` is what the operator gives.
#[derive(Debug)]
pub struct AggregateSpec {
    pub(super) groups: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) aggregates: Vec<Arc<AggregateFunctionExpr>>,
    pub(super) filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// How many state columns each function has.
    pub(super) state_widths: Vec<usize>,
    /// The input's schema.
    pub input: SchemaRef,
    /// The group columns.
    pub key: SchemaRef,
    /// The group columns and the states.
    pub partial: SchemaRef,
    /// What the state log holds.
    pub stored: SchemaRef,
    /// What the operator gives.
    pub output: SchemaRef,
    /// What bounds the state.
    pub window: Option<WindowKey>,
    /// The window as the state log holds it: where rows go again panes have been made windows before.
    pub kept: Option<WindowKey>,
    /// Windows that the rows make themselves.
    pub sessions: Option<Sessions>,
    /// When rows are emitted.
    pub emission: Emission,
    /// The first function is the sum of the rows' weights: a group without rows is none.
    pub counted: bool,
    /// Its open windows close when the sources have been quiet for long.
    pub closes_when_quiet: bool,
    /// Nanoseconds after which a group that no row has come for is forgotten.
    pub idle_after: Option<i64>,
}

/// What an [`AggregateSpec`] is made of, under the same names; the rest of it follows.
pub(super) struct Computed {
    pub(super) groups: Vec<Arc<dyn PhysicalExpr>>,
    pub(super) aggregates: Vec<Arc<AggregateFunctionExpr>>,
    pub(super) filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    pub(super) input: SchemaRef,
    pub(super) output: SchemaRef,
    pub(super) window: Option<WindowKey>,
    pub(super) sessions: Option<Sessions>,
    pub(super) emission: Emission,
    pub(super) counted: bool,
    pub(super) closes_when_quiet: bool,
    pub(super) idle_after: Option<i64>,
}

impl AggregateSpec {
    /// Lowers the node's expressions.
    pub fn plan(
        planner: &dyn PhysicalPlanner,
        node: &StreamAggregate,
        input: SchemaRef,
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Self> {
        let logical = node.input.schema();
        let groups = node.group.iter().map(|e| planner.create_physical_expr(e, logical, session, context)).collect::<Result<Vec<_>>>()?;
        let lowered = node
            .aggregates
            .iter()
            .map(|e| LoweredAggregateBuilder::new(e, logical, &input, session.execution_props(), context).build())
            .collect::<Result<Vec<_>>>()?;
        Self::new(Computed {
            groups,
            filters: lowered.iter().map(|l| l.filter.clone()).collect(),
            aggregates: lowered.into_iter().map(|l| l.aggregate).collect(),
            input,
            output: node.schema.inner().clone(),
            window: node.window.clone(),
            sessions: node.sessions.clone(),
            emission: node.emission,
            counted: node.counted,
            closes_when_quiet: node.closes_when_quiet,
            idle_after: node.idle_after,
        })
    }

    /// The schemas that follow from what is computed.
    pub(super) fn new(computed: Computed) -> Result<Self> {
        let Computed { groups, aggregates, filters, input, output, window, sessions, emission, counted, closes_when_quiet, idle_after } = computed;
        let key: Vec<FieldRef> = output.fields()[..groups.len()].to_vec();
        let values: Vec<FieldRef> = output.fields()[groups.len()..groups.len() + aggregates.len()].to_vec();
        let mut partial = key.clone();
        let mut state_widths = vec![];
        for aggregate in &aggregates {
            let states = aggregate.state_fields()?;
            state_widths.push(states.len());
            // Some functions declare states as never NULL and then give NULL for a group without rows.
            partial.extend(states.into_iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(true))));
        }
        // Two functions may name a state alike; the log only needs positions, a file needs distinct names.
        let first_state = key.len();
        let partial: Vec<FieldRef> = partial
            .into_iter()
            .enumerate()
            .map(|(i, f)| if i < first_state { f } else { Arc::new(f.as_ref().clone().with_name(format!("{i}:{}", f.name()))) })
            .collect();
        let mut stored = partial.clone();
        if emission.changing() {
            stored.extend(values);
        }
        if sessions.is_some() {
            let bound = |name: &str| Arc::new(Field::new(name, DataType::Int64, false));
            stored.extend([bound("session_first"), bound("session_last")]);
        }
        Ok(Self {
            groups,
            filters,
            aggregates,
            state_widths,
            input,
            key: Arc::new(Schema::new(key)),
            partial: Arc::new(Schema::new(partial)),
            stored: Arc::new(Schema::new(stored)),
            output,
            kept: window.clone().map(|window| match &window.panes {
                Some(panes) if emission.changing() => {
                    let is_start = panes.columns.contains(&(window.group, Bound::Start));
                    WindowKey { to_end: if is_start { window.size } else { 0 }, panes: None, ..window }
                }
                _ => window,
            }),
            window,
            sessions,
            emission,
            counted,
            closes_when_quiet,
            idle_after,
        })
    }

    /// Whether the clock, and not a watermark, moves its windows along.
    pub fn follows_the_clock(&self) -> bool {
        self.window.as_ref().is_some_and(|window| window.timeline == Timeline::Processing)
    }

    /// Whether the clock alone makes it give something: where changes are emitted, a window that closes gives nothing.
    pub fn answers_by_the_clock(&self) -> bool {
        self.follows_the_clock() && self.emission != Emission::Changes
    }

    /// How many columns the key has.
    pub fn key_width(&self) -> usize {
        self.key.fields().len()
    }

    /// How many columns all states have together.
    pub fn state_width(&self) -> usize {
        self.state_widths.iter().sum()
    }

    /// The functions' names, for display.
    pub fn names(&self) -> String {
        self.aggregates.iter().map(|a| a.name()).collect::<Vec<_>>().join(", ")
    }

    /// Fresh accumulators. Never kept: `evaluate` and `state` consume, and the adapter costs by all groups at each call.
    pub fn accumulators(&self) -> Result<Accumulators> {
        self.aggregates
            .iter()
            .map(|aggregate| {
                if aggregate.groups_accumulator_supported() {
                    return aggregate.create_groups_accumulator();
                }
                let aggregate = aggregate.clone();
                Ok(Box::new(GroupsAccumulatorAdapter::new(move || aggregate.create_accumulator())) as Box<dyn GroupsAccumulator>)
            })
            .collect()
    }

    /// All states of all groups, as the `partial` schema wants them.
    pub fn states(&self, accumulators: &mut Accumulators) -> Result<Vec<ArrayRef>> {
        let mut columns = vec![];
        for accumulator in accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        fit(columns, &self.partial.fields()[self.key_width()..])
    }

    /// All values of all groups, as the `output` schema wants them.
    pub fn values(&self, accumulators: &mut Accumulators) -> Result<Vec<ArrayRef>> {
        let columns = accumulators.iter_mut().map(|a| a.evaluate(EmitTo::All)).collect::<Result<Vec<_>>>()?;
        fit(columns, &self.output.fields()[self.key_width()..self.key_width() + self.aggregates.len()])
    }

    /// Merges states. `total` must count only groups that this or an earlier call touched: an accumulator takes every group
    /// below it as seen, and would give 0 where NULL is right.
    pub fn merge(&self, accumulators: &mut Accumulators, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        let mut at = 0;
        for (accumulator, width) in accumulators.iter_mut().zip(&self.state_widths) {
            accumulator.merge_batch(&states[at..at + width], groups, total)?;
            at += width;
        }
        Ok(())
    }

    /// Nanoseconds since 1970 as a group column holds them.
    pub(super) fn instants(&self, column: usize, ns: impl IntoIterator<Item = Option<i64>>) -> Result<ArrayRef> {
        let data_type = self.key.field(column).data_type();
        let scale = scale_of(data_type);
        Ok(cast(&Int64Array::from_iter(ns.into_iter().map(|t| t.map(|t| t.div_euclid(scale)))), data_type)?)
    }

    /// The group columns of rows.
    pub(super) fn group_columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.groups.iter().map(|e| evaluate(e, batch)).collect()
    }

    /// An operator's state over nothing.
    pub fn state(self: &Arc<Self>) -> Result<Arc<Mutex<dyn OperatorState>>> {
        Ok(match &self.sessions {
            None => Arc::new(Mutex::new(GroupState::new(self.clone())?)),
            Some(sessions) => Arc::new(Mutex::new(SessionState::new(self.clone(), sessions.clone())?)),
        })
    }

    /// Rows of panes (their first columns are the key's) as rows of the windows that the panes are part of, each with its own bounds;
    /// only windows whose end `keep` accepts.
    pub fn expand(&self, window: &WindowKey, panes: &Panes, rows: &RecordBatch, keep: impl Fn(i64) -> bool) -> Result<RecordBatch> {
        let pane_ends = window.ends(rows.column(window.group))?;
        let mut from = vec![];
        let mut ends: Vec<i64> = vec![];
        for (row, pane_end) in pane_ends.iter().enumerate() {
            for end in pane_end.into_iter().flat_map(|pane_end| panes.ends(pane_end)).filter(|end| keep(*end)) {
                from.push(row as u64);
                ends.push(end);
            }
        }
        let mut columns = take_record_batch(rows, &UInt64Array::from(from))?.columns().to_vec();
        for (column, bound) in &panes.columns {
            let instants: Vec<Option<i64>> = match bound {
                Bound::End => ends.iter().map(|end| Some(*end)).collect(),
                Bound::Start => ends.iter().map(|end| panes.windows.start_of(*end)).collect(),
            };
            columns[*column] = self.instants(*column, instants)?;
        }
        Ok(RecordBatch::try_new_with_options(rows.schema(), columns, &RecordBatchOptions::new().with_row_count(Some(ends.len())))?)
    }

    /// Aggregates an epoch's rows alone. Rows of windows that end at or before `closed` go to `late` instead.
    pub async fn partial(&self, mut input: SendableRecordBatchStream, closed: i64, late: &mut Vec<LateRow>) -> Result<Option<RecordBatch>> {
        let width = self.key_width();
        let mut keys = (width > 0).then(|| new_group_values(self.key.clone(), &GroupOrdering::None)).transpose()?;
        let mut accumulators = self.accumulators()?;
        let mut groups = vec![];
        let mut any = false;
        while let Some(batch) = input.next().await {
            let mut batch = batch?;
            let mut columns = self.group_columns(&batch)?;
            if let Some(window) = &self.window
                && let Some(keep) = self.split_late(window, &batch, &columns, closed, late)?
            {
                batch = filter_record_batch(&batch, &keep)?;
                columns = self.group_columns(&batch)?;
            }
            if batch.num_rows() == 0 {
                continue;
            }
            any = true;
            groups.clear();
            let total = match &mut keys {
                Some(keys) => {
                    keys.intern(&columns, &mut groups)?;
                    keys.len()
                }
                None => {
                    groups.resize(batch.num_rows(), 0);
                    1
                }
            };
            self.update(&mut accumulators, &batch, &groups, total)?;
        }
        if !any {
            return Ok(None);
        }
        let mut columns = match &mut keys {
            Some(keys) => keys.emit(EmitTo::All)?,
            None => vec![],
        };
        columns = fit(columns, self.key.fields())?;
        columns.extend(self.states(&mut accumulators)?);
        Ok(Some(RecordBatch::try_new(self.partial.clone(), columns)?))
    }

    /// Updates accumulators with rows.
    pub(super) fn update(&self, accumulators: &mut Accumulators, batch: &RecordBatch, groups: &[usize], total: usize) -> Result<()> {
        for ((accumulator, aggregate), filter) in accumulators.iter_mut().zip(&self.aggregates).zip(&self.filters) {
            let mut arguments = aggregate.expressions().iter().map(|e| evaluate(e, batch)).collect::<Result<Vec<_>>>()?;
            for order in aggregate.order_bys() {
                arguments.push(evaluate(&order.expr, batch)?);
            }
            let filter = filter.as_ref().map(|f| evaluate(f, batch)).transpose()?;
            accumulator.update_batch(&arguments, groups, filter.as_ref().map(|f| f.as_boolean()), total)?;
        }
        Ok(())
    }

    /// Which rows to keep, if any are late; those are reported.
    fn split_late(&self, window: &WindowKey, batch: &RecordBatch, keys: &[ArrayRef], closed: i64, late: &mut Vec<LateRow>) -> Result<Option<BooleanArray>> {
        let ends = window.ends(&keys[window.group])?;
        // The first window that a row belongs to is the first to be closed.
        let first = |end: i64| match &window.panes {
            None => Some(end),
            Some(panes) => panes.ends(end).next(),
        };
        if ends.null_count() == 0 && ends.values().iter().all(|end| first(*end).is_some_and(|end| end > closed)) {
            return Ok(None);
        }
        let locators: Option<&UInt64Array> = batch.column_by_name(ROW).map(|column| column.as_primitive::<UInt64Type>());
        let mut untold = false;
        let mut report = |row: usize, window_end: i64, size: i64| {
            let told =
                |locators: &UInt64Array| LateRow { row: locators.value(row), window_start: window_end.saturating_sub(size), window_end, watermark: closed };
            untold |= locators.is_none();
            late.extend(locators.map(told));
        };
        let keep: BooleanArray = ends
            .iter()
            .enumerate()
            .map(|(row, end)| {
                // A window that the type can't hold is none, closed or open. A row of none groups as NULL; where windows overlap, and a row is
                // repeated once a window, it is in no group.
                let Some(end) = end else { return Some(window.panes.is_none()) };
                let Some(panes) = &window.panes else {
                    if end <= closed {
                        report(row, end, window.size);
                    }
                    return Some(end > closed);
                };
                // Late for some of its windows and in time for others.
                for end in panes.ends(end).take_while(|end| *end <= closed) {
                    report(row, end, end.saturating_sub(panes.windows.start_of(end).unwrap_or(end)));
                }
                Some(panes.last_end(end).is_some_and(|end| end > closed))
            })
            .collect();
        if untold {
            return Err(behind_its_window().into());
        }
        Ok((keep.true_count() < keep.len()).then_some(keep))
    }

    /// The partial result of no rows at all: a global aggregate has one row even then.
    pub fn nothing(&self) -> Result<RecordBatch> {
        let mut accumulators = self.accumulators()?;
        let none = RecordBatch::new_empty(self.input.clone());
        for (accumulator, aggregate) in accumulators.iter_mut().zip(&self.aggregates) {
            let mut arguments = aggregate.expressions().iter().map(|e| evaluate(e, &none)).collect::<Result<Vec<_>>>()?;
            for order in aggregate.order_bys() {
                arguments.push(evaluate(&order.expr, &none)?);
            }
            // Through a filter that keeps nothing: without one the accumulator would take the group as seen.
            accumulator.update_batch(&arguments, &[], Some(&BooleanArray::from(Vec::<bool>::new())), 1)?;
        }
        Ok(RecordBatch::try_new(self.partial.clone(), self.states(&mut accumulators)?)?)
    }
}

/// Rows without a locator are not a record's, and come only while their window is open.
pub(super) fn behind_its_window() -> Error {
    Error::Internal("a row that is no record's came to a window that has closed".into())
}

/// Rows of these columns as comparable bytes; `None` where there are no columns.
pub(super) fn converter(fields: &[FieldRef]) -> Result<Option<RowConverter>> {
    if fields.is_empty() {
        return Ok(None);
    }
    Ok(Some(RowConverter::new(fields.iter().map(|f| SortField::new(f.data_type().clone())).collect())?))
}

fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    expr.evaluate(batch)?.into_array(batch.num_rows())
}

/// Some accumulators return a type that differs from their declared field (views, dictionaries): cast rather than fail.
fn fit(columns: Vec<ArrayRef>, fields: &[FieldRef]) -> Result<Vec<ArrayRef>> {
    columns
        .into_iter()
        .zip(fields)
        .map(|(column, field)| if column.data_type() == field.data_type() { Ok(column) } else { Ok(cast(&column, field.data_type())?) })
        .collect()
}
