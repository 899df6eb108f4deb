//! What may run from epoch to epoch. Two allowlists: over logical nodes, where the reason and the advice are given, and over
//! physical operators by name, as a second net. DataFusion's own check on unbounded inputs accepts plans that forget.

use std::sync::Arc;

use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    logical_expr::{Expr, LogicalPlan, Volatility},
    physical_plan::ExecutionPlan,
};

use super::clock;
use crate::error::{Error, Result};

/// Physical operators that keep nothing from epoch to epoch, and ours.
const STATELESS: &[&str] = &[
    "SliceExec",
    "StreamAggregateExec",
    "StreamJoinExec",
    "TemporalFilterExec",
    "RecomputeExec",
    "UpsertExec",
    "ExpiryExec",
    "TemporalJoinExec",
    "FilterExec",
    "ProjectionExec",
    "UnnestExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "UnionExec",
    "CooperativeExec",
];

/// Why a node that the rewrite does not know can't stand in a continuous view, and what to write instead.
pub fn refusal(plan: &LogicalPlan) -> Error {
    let sentence = match plan {
        LogicalPlan::Unnest(_) => "unnest of a struct is not supported in a continuous view: name its fields",
        LogicalPlan::RecursiveQuery(_) => "recursive queries are not supported in a continuous view",
        other => return Error::Unsupported(format!("{} is not supported in a continuous view", other.display())),
    };
    Error::Unsupported(sentence.into())
}

/// Why a view's rows can't be ordered.
pub fn ordered() -> Error {
    Error::Unsupported("ORDER BY has no meaning in a continuous view: order the rows when reading it".into())
}

/// Refuses functions whose value is not a function of the row: a view planned once would freeze them, a replay would not repeat them.
pub fn check_functions(plan: &LogicalPlan) -> Result<()> {
    let mut culprit: Option<String> = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarFunction(f) = e
                    && !clock::is_epoch_time(e)
                    && f.func.signature().volatility != Volatility::Immutable
                {
                    culprit = Some(f.name().to_string());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match culprit {
        Some(name) => Err(Error::Unsupported(format!(
            "{name}() is not supported in a continuous view: its value changes without any record, so the view could not be repeated; apply it when reading the view"
        ))),
        None => Ok(()),
    }
}

/// The second net: refuses a physical plan that has an operator we do not know to forget nothing.
pub fn check_physical(plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    if !STATELESS.contains(&plan.name()) {
        return Err(Error::Unsupported(format!("the view would need {}, which keeps its rows only within one epoch: write the query without it", plan.name())));
    }
    plan.children().into_iter().try_for_each(check_physical)
}
