//! The logical node of a streaming aggregate, and how it becomes a physical operator.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{DFSchemaRef, Result},
    logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, physical_planning_context::PhysicalPlanningContext},
    physical_plan::ExecutionPlan,
    physical_planner::{ExtensionPlanner, PhysicalPlanner},
};

use super::{exec::StreamAggregateExec, spec::AggregateSpec};
use crate::stream::epoch::OperatorId;

/// When a group's row is emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Emission {
    /// In every epoch that changes it: the old row with weight -1, the new one with +1.
    Changes,
    /// Once, when the watermark has passed its window's end.
    OnClose,
}

/// The group column that holds a window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WindowKey {
    /// Its position among the group columns.
    pub group: usize,
    /// Nanoseconds to add to its value to get the window's end.
    pub to_end: i64,
    /// The window's length in nanoseconds.
    pub size: i64,
    /// The sources whose watermarks close it: the slowest decides.
    pub sources: Vec<String>,
}

/// An aggregate whose groups live from epoch to epoch.
#[derive(Debug, Clone)]
pub struct StreamAggregate {
    /// Its number within the view.
    pub id: OperatorId,
    /// What it reads: append-only rows with their locators.
    pub input: LogicalPlan,
    /// The group columns.
    pub group: Vec<Expr>,
    /// The aggregate functions.
    pub aggregates: Vec<Expr>,
    /// Group columns, aggregates and, if it emits changes, the weight.
    pub schema: DFSchemaRef,
    /// What bounds the state.
    pub window: Option<WindowKey>,
    /// When rows are emitted.
    pub emission: Emission,
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
