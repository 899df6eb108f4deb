//! The logical node of a streaming join, and how it becomes a physical operator.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{DFSchemaRef, JoinType, Result, internal_err},
    logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, physical_planning_context::PhysicalPlanningContext},
    physical_plan::ExecutionPlan,
    physical_planner::{ExtensionPlanner, PhysicalPlanner},
};

use super::{bound::Bounds, exec::StreamJoinExec, spec::JoinSpec};
use crate::stream::{
    epoch::OperatorId,
    hidden::{WEIGHT, has, is_hidden},
};

/// A join whose sides live from epoch to epoch.
#[derive(Debug, Clone)]
pub struct StreamJoin {
    /// Its number within the view.
    pub id: OperatorId,
    /// Left and right: append-only, or changing with a weight.
    pub inputs: [LogicalPlan; 2],
    /// What is equal on both sides: an expression of each.
    pub on: Vec<(Expr, Expr)>,
    /// What else must hold.
    pub filter: Option<Expr>,
    /// Which join.
    pub kind: JoinType,
    /// NULL equals NULL.
    pub null_equals_null: bool,
    /// `NOT IN`, for which a NULL is neither in nor out.
    pub null_aware: bool,
    /// What bounds the state.
    pub bounds: Bounds,
    /// Nanoseconds for which rows are taken after the watermark has passed them.
    pub lateness: i64,
    /// All rows that match each other come in one epoch, each side's when a window of both closes: nothing is kept.
    pub complete: bool,
    /// The join's columns and, if its rows go again, the weight.
    pub schema: DFSchemaRef,
}

impl StreamJoin {
    /// Whether a row of a side is shown depending on what it matches.
    pub fn preserves(&self, side: usize) -> bool {
        use JoinType::{Full, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
        match side {
            0 => matches!(self.kind, Left | Full | LeftSemi | LeftAnti | LeftMark),
            _ => matches!(self.kind, Right | Full | RightSemi | RightAnti | RightMark),
        }
    }

    /// Whether a side's columns are NULL where a row of the other matches none.
    pub fn pads(&self, side: usize) -> bool {
        match side {
            0 => matches!(self.kind, JoinType::Right | JoinType::Full),
            _ => matches!(self.kind, JoinType::Left | JoinType::Full),
        }
    }

    /// Which column of which side an output column is.
    pub fn below(&self, column: usize) -> Option<(usize, usize)> {
        use JoinType::{Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi};
        let visible = |side: usize| -> Vec<usize> {
            self.inputs[side].schema().fields().iter().enumerate().filter(|(_, f)| !is_hidden(f.name())).map(|(at, _)| at).collect()
        };
        let left = visible(0);
        match self.kind {
            Inner | Left | Right | Full => match left.get(column) {
                Some(at) => Some((0, *at)),
                None => visible(1).get(column - left.len()).map(|at| (1, *at)),
            },
            LeftSemi | LeftAnti | LeftMark => left.get(column).map(|at| (0, *at)),
            RightSemi | RightAnti | RightMark => visible(1).get(column).map(|at| (1, *at)),
        }
    }

    /// What it does, told: keys, condition, what it takes and gives.
    pub fn told(&self) -> String {
        let takes = |side: usize| if has(self.inputs[side].schema(), WEIGHT) { "changing" } else { "append-only" };
        let keys: Vec<String> = self.on.iter().map(|(left, right)| format!("{} = {}", left.human_display(), right.human_display())).collect();
        let conditions: Vec<String> = keys.into_iter().chain(self.filter.iter().map(|filter| filter.human_display().to_string())).collect();
        format!(
            "{} join{}{}, takes {} and {} rows, gives {} rows{}",
            match self.kind {
                JoinType::Inner if self.on.is_empty() && self.filter.is_none() => "cross".to_string(),
                JoinType::LeftAnti if self.null_aware => "NOT IN".into(),
                JoinType::LeftSemi => "left semi".into(),
                JoinType::RightSemi => "right semi".into(),
                JoinType::LeftAnti => "left anti".into(),
                JoinType::RightAnti => "right anti".into(),
                JoinType::LeftMark => "left mark".into(),
                JoinType::RightMark => "right mark".into(),
                kind => kind.to_string().to_lowercase(),
            },
            if conditions.is_empty() { String::new() } else { format!(" on [{}]", conditions.join(" AND ")) },
            if self.null_equals_null { " where NULL equals NULL" } else { "" },
            takes(0),
            takes(1),
            if has(&self.schema, WEIGHT) { "changing" } else { "append-only" },
            if self.complete { ", window by window" } else { "" },
        )
    }
}

impl PartialEq for StreamJoin {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.on == other.on && self.filter == other.filter && self.kind == other.kind && self.inputs == other.inputs
    }
}

impl Eq for StreamJoin {}

impl Hash for StreamJoin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
        self.on.hash(state);
        self.filter.hash(state);
    }
}

impl PartialOrd for StreamJoin {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self == other).then_some(std::cmp::Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for StreamJoin {
    fn name(&self) -> &str {
        "StreamJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.on.iter().flat_map(|(left, right)| [left, right]).chain(&self.filter).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "StreamJoin: {}", self.told())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        let mut on = vec![];
        for _ in &self.on {
            on.extend(exprs.next().zip(exprs.next()));
        }
        let Ok(inputs) = inputs.try_into() else { return internal_err!("a join has two inputs") };
        Ok(Self { on, filter: exprs.next(), inputs, ..self.clone() })
    }
}

/// Plans [`StreamJoin`] nodes.
#[derive(Debug)]
pub struct JoinPlanner;

#[async_trait]
impl ExtensionPlanner for JoinPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<StreamJoin>() else { return Ok(None) };
        let [left, right] = inputs else { return internal_err!("a join has two inputs") };
        let spec = JoinSpec::plan(planner, node, [left.schema(), right.schema()], session, context)?;
        Ok(Some(Arc::new(StreamJoinExec::new(node.id, [left.clone(), right.clone()], Arc::new(spec), node.told()))))
    }
}
