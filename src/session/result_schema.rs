//! The columns of a query's result, told before it is optimized and run.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::{
    common::{
        config::ConfigOptions,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result as DataFusionResult,
    logical_expr::{Expr, LogicalPlan},
    optimizer::analyzer::{Analyzer, type_coercion::TypeCoercion},
};

/// A plan whose types are settled. Before that a UNION has the types of its first query, and a CASE those of its first branch.
pub(super) fn coerced(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    Analyzer::with_rules(vec![Arc::new(TypeCoercion::new())]).execute_and_check(plan, &ConfigOptions::default(), |_, _| {})
}

/// The columns that a query gives. Where parameters have no types yet (`is_open`), they are those that the text tells.
pub(super) fn result_schema(plan: &LogicalPlan, is_open: bool) -> DataFusionResult<SchemaRef> {
    let schema = match coerced(plan.clone()) {
        Ok(settled) => Arc::new(settled.schema().as_arrow().clone()),
        Err(_) if is_open => Arc::new(plan.schema().as_arrow().clone()),
        Err(error) => return Err(error),
    };
    Ok(if has_scalar_subquery(plan)? { nullable(&schema) } else { schema })
}

/// A scalar subquery that finds no row is NULL, whatever its column says; plans know that only when they have made a join of it.
fn has_scalar_subquery(plan: &LogicalPlan) -> DataFusionResult<bool> {
    let mut found = false;
    plan.apply(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                found |= matches!(part, Expr::ScalarSubquery(_));
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    Ok(found)
}

fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}
