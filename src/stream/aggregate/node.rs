//! The logical node of a streaming aggregate, and how it becomes a physical operator.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    compute::cast,
    datatypes::{DataType, Int64Type, TimeUnit},
};
use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{DFSchemaRef, Result},
    logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, physical_planning_context::PhysicalPlanningContext},
    physical_plan::ExecutionPlan,
    physical_planner::{ExtensionPlanner, PhysicalPlanner},
};

use serde::{Deserialize, Serialize};
use tidegate_udfs::window::{Bound, Windows};

use super::{exec::StreamAggregateExec, spec::AggregateSpec};
use crate::stream::{epoch::OperatorId, time::Timeline};

/// When a group's row is emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Emission {
    /// In every epoch that changes it: the old row with weight -1, the new one with +1.
    Changes,
    /// Once, when the watermark has passed its window's end.
    OnClose,
    /// When the watermark has passed its window's end, and then like [`Emission::Changes`] while allowed lateness lasts.
    Corrected,
}

impl Emission {
    /// Whether rows go again: then the output's last column is the weight, and the state log holds the values emitted last.
    pub fn changing(self) -> bool {
        self != Emission::OnClose
    }
}

/// The group column that holds a window.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WindowKey {
    /// Its position among the group columns.
    pub group: usize,
    /// Nanoseconds to add to its value to get the window's end.
    pub to_end: i64,
    /// The window's length in nanoseconds.
    pub size: i64,
    /// What closes it.
    pub timeline: Timeline,
    /// Nanoseconds that rows may trail it by, since they have waited for others to be joined with.
    pub lag: i64,
    /// Nanoseconds that it takes rows for after the watermark has passed its end.
    pub lateness: i64,
    /// The rows below carry panes, not windows: what several windows share is aggregated once.
    pub panes: Option<Panes>,
}

impl WindowKey {
    /// The ends of windows, in nanoseconds since 1970, from the column that holds them; `None` where it is NULL.
    pub fn ends(&self, column: &ArrayRef) -> Result<Int64Array> {
        let scale = scale_of(column.data_type());
        let raw = cast(column, &DataType::Int64)?;
        Ok(raw.as_primitive::<Int64Type>().unary(|t| t.saturating_mul(scale).saturating_add(self.to_end)))
    }
}

/// Nanoseconds in one unit of a timestamp.
pub(super) fn scale_of(data_type: &DataType) -> i64 {
    match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        _ => 1,
    }
}

/// How panes make up windows. A pane is the longest stretch of time that every window holds whole or not at all; where a group column
/// would hold one of a window's bounds, it holds the pane's end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Panes {
    /// The windows.
    pub windows: Windows,
    /// The group columns that hold one bound of the window, and which.
    pub columns: Vec<(usize, Bound)>,
}

impl Panes {
    /// Ends of the windows that a pane is part of, ascending.
    pub fn ends(&self, pane_end: i64) -> impl Iterator<Item = i64> + use<> {
        self.windows.ends_of(pane_end.saturating_sub(1))
    }

    /// The end of the last window that a pane is part of.
    pub fn last_end(&self, pane_end: i64) -> Option<i64> {
        self.windows.last_end_of(pane_end.saturating_sub(1))
    }
}

/// Windows that rows make themselves: those of one key that follow each other closer than the gap are one session.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sessions {
    /// Nanoseconds.
    pub gap: i64,
    /// The group columns that hold a bound of the session, and which; the rows below carry their event time in them.
    pub columns: Vec<(usize, Bound)>,
}

/// An aggregate whose groups live from epoch to epoch.
#[derive(Debug, Clone)]
pub struct StreamAggregate {
    /// Its number within the view.
    pub id: OperatorId,
    /// What it reads.
    pub input: LogicalPlan,
    /// The group columns.
    pub group: Vec<Expr>,
    /// The aggregate functions.
    pub aggregates: Vec<Expr>,
    /// Group columns, aggregates and, if its rows go again, the weight.
    pub schema: DFSchemaRef,
    /// What bounds the state.
    pub window: Option<WindowKey>,
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

impl PartialEq for StreamAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.group == other.group && self.aggregates == other.aggregates && self.input == other.input
    }
}

impl Eq for StreamAggregate {}

impl Hash for StreamAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
        self.group.hash(state);
        self.aggregates.hash(state);
    }
}

impl PartialOrd for StreamAggregate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self == other).then_some(std::cmp::Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for StreamAggregate {
    fn name(&self) -> &str {
        "StreamAggregate"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.group.iter().chain(&self.aggregates).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names = |exprs: &[Expr]| exprs.iter().map(|e| e.to_string()).collect::<Vec<_>>().join(", ");
        write!(f, "StreamAggregate: groupBy=[[{}]], aggr=[[{}]], emit={:?}", names(&self.group), names(&self.aggregates), self.emission)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let aggregates = exprs.split_off(self.group.len());
        Ok(Self { group: exprs, aggregates, input: inputs.swap_remove(0), ..self.clone() })
    }
}

/// Plans [`StreamAggregate`] nodes.
#[derive(Debug)]
pub struct AggregatePlanner;

#[async_trait]
impl ExtensionPlanner for AggregatePlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<StreamAggregate>() else { return Ok(None) };
        let spec = AggregateSpec::plan(planner, node, inputs[0].schema(), session, context)?;
        Ok(Some(Arc::new(StreamAggregateExec::new(node.id, inputs[0].clone(), Arc::new(spec)))))
    }
}
