//! The logical node, and how it becomes a physical operator.

use std::{
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{Column, DFSchemaRef, Result},
    datasource::provider_as_source,
    logical_expr::{
        Expr, LogicalPlan, Projection, TableScanBuilder, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, physical_planning_context::PhysicalPlanningContext,
    },
    physical_plan::ExecutionPlan,
    physical_planner::{ExtensionPlanner, PhysicalPlanner},
};

use super::exec::{RecomputeExec, RecomputeSpec};
use crate::stream::{aggregate::WindowKey, codec, epoch::OperatorId, hidden, lineage, slice::StreamTable};

/// Under which name the query finds the rows.
pub const ROWS: &str = "__rows";

/// A query over rows that come and go, answered anew for each key that an epoch touches.
#[derive(Debug, Clone)]
pub struct Recompute {
    /// Its number within the view.
    pub id: OperatorId,
    /// What it reads.
    pub input: LogicalPlan,
    /// What the query answers for alone, over the input's columns.
    pub keys: Vec<Expr>,
    /// The query, over [`leaf`].
    pub query: LogicalPlan,
    /// The query's columns and, unless it gives whole windows, the weight.
    pub schema: DFSchemaRef,
    /// The key that is a window, by its position, and what closes it.
    pub window: Option<WindowKey>,
    /// Every window comes whole and once: no row is held, and what is given stays.
    pub whole: bool,
    /// A row that the query leaves out never comes back: those that it gives are all that is held. Its first columns are the input's.
    pub shrinks: bool,
    /// The query gives a row over nothing.
    pub over_nothing: bool,
    /// Its open windows close when the sources have been quiet for long.
    pub closes_when_quiet: bool,
    /// Nanoseconds after which a key that no row has come for is forgotten.
    pub idle_after: Option<i64>,
    /// What it is, for display.
    pub what: String,
}

impl PartialEq for Recompute {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.keys == other.keys && self.query == other.query && self.input == other.input
    }
}

impl Eq for Recompute {}

impl Hash for Recompute {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
        self.keys.hash(state);
        self.query.hash(state);
    }
}

impl PartialOrd for Recompute {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self == other).then_some(std::cmp::Ordering::Equal)
    }
}

/// The rows of a plan, as a query over them sees them: the same columns under the same names, without hidden ones.
pub fn leaf(input: &LogicalPlan) -> Result<LogicalPlan> {
    let visible: Vec<usize> = visible(input);
    let fields = visible.iter().enumerate().map(|(at, column)| input.schema().field(*column).as_ref().clone().with_name(position(at)));
    let windows: HashMap<String, lineage::WindowColumn> =
        visible.iter().enumerate().filter_map(|(at, column)| Some((position(at), lineage::window_of(input, *column).ok()?))).collect();
    let table = StreamTable {
        name: ROWS.into(),
        schema: Arc::new(Schema::new(fields.collect::<Vec<Field>>())),
        hidden: vec![],
        records: false,
        key: vec![],
        event_time: None,
        windows,
        whole_windows: false,
        on_close: false,
        bounded: true,
        table: None,
    };
    let scan = LogicalPlan::TableScan(TableScanBuilder::new(ROWS, provider_as_source(Arc::new(table))).build()?);
    let exprs = visible.iter().enumerate().map(|(at, column)| {
        let (qualifier, field) = input.schema().qualified_field(*column);
        let expr = Expr::Column(Column::new(Some(ROWS), position(at)));
        expr.alias_qualified(qualifier.cloned(), field.name())
    });
    Ok(LogicalPlan::Projection(Projection::try_new(exprs.collect(), Arc::new(scan))?))
}

/// Two inputs may have a column of one name: the leaf's are named by position.
fn position(column: usize) -> String {
    format!("c{column}")
}

fn visible(input: &LogicalPlan) -> Vec<usize> {
    (0..input.schema().fields().len()).filter(|column| !hidden::is_hidden(input.schema().field(*column).name())).collect()
}

impl UserDefinedLogicalNodeCore for Recompute {
    fn name(&self) -> &str {
        "Recompute"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.keys.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let keys = self.keys.iter().map(|key| key.to_string()).collect::<Vec<_>>().join(", ");
        write!(f, "Recompute: {} by [{keys}]", self.what)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self { keys: exprs, input: inputs.swap_remove(0), ..self.clone() })
    }
}

/// Plans [`Recompute`] nodes.
#[derive(Debug)]
pub struct RecomputePlanner;

#[async_trait]
impl ExtensionPlanner for RecomputePlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<Recompute>() else { return Ok(None) };
        // Over the columns as they are held: without hidden ones.
        let held = leaf(&node.input)?;
        let keys = node.keys.iter().map(|key| planner.create_physical_expr(key, held.schema(), session, context)).collect::<Result<Vec<_>>>()?;
        let spec = RecomputeSpec {
            keys,
            query: planner.create_physical_plan(&node.query, session).await?,
            filters: codec::filters(&node.query, |filter, columns| planner.create_physical_expr(filter, columns, session, context))?,
            visible: visible(&node.input),
            changing: hidden::has(node.input.schema(), hidden::WEIGHT),
            rows: Arc::new(Schema::new(
                visible(&node.input)
                    .into_iter()
                    .enumerate()
                    .map(|(at, column)| inputs[0].schema().field(column).clone().with_name(position(at)))
                    .collect::<Vec<_>>(),
            )),
            output: node.schema.inner().clone(),
            window: node.window.clone(),
            whole: node.whole,
            shrinks: node.shrinks,
            over_nothing: node.over_nothing,
            closes_when_quiet: node.closes_when_quiet,
            idle_after: node.idle_after,
            what: node.what.clone(),
        };
        Ok(Some(Arc::new(RecomputeExec::new(node.id, inputs[0].clone(), Arc::new(spec)))))
    }
}
