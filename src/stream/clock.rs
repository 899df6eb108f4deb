//! The clock in a view's query. A plan is made once and runs for ever, so `now()` and `proctime()` can't be what they are in a batch:
//!
//! * `proctime()` is the logged time of the epoch that reads a row; it stays with the row.
//! * A comparison with `now()` in WHERE or HAVING becomes a [`TemporalFilter`], whose rows come and go.
//! * In a SELECT list over rows that never go again `now()` is the same as `proctime()`.
//!
//! Anything else is refused. It happens before the optimizer, which would take `now()` for a constant; after it [`as_column`] puts the
//! hidden column that carries the time in the place of the stand-in.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::DataType,
    common::{
        Column, Result as DataFusionResult, internal_err,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        ColumnarValue, Expr, Extension, Filter, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        expr::ScalarFunction,
        expr_rewriter::NamePreserver,
        utils::{conjunction, split_conjunction_owned},
    },
};
use tidegate_udfs::proctime::{self, PROCTIME};

use super::{
    hidden::NOW,
    temporal::{Limit, TemporalFilter},
};
use crate::error::{Error, Result};

/// Stands for the time of the epoch that reads a row, until the optimizer is done. Volatile, so that it is taken for no constant.
#[derive(Debug, PartialEq, Eq, Hash)]
struct EpochTime {
    signature: Signature,
}

impl ScalarUDFImpl for EpochTime {
    fn name(&self) -> &str {
        PROCTIME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(proctime::TYPE)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        internal_err!("the time of an epoch was left in a plan as a function")
    }
}

fn epoch_time() -> Expr {
    let function = ScalarUDF::from(EpochTime { signature: Signature::nullary(Volatility::Volatile) });
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(function), vec![]))
}

/// Whether an expression is the stand-in for the epoch's time.
pub fn is_epoch_time(expr: &Expr) -> bool {
    let Expr::ScalarFunction(call) = expr else { return false };
    let function: &dyn std::any::Any = call.func.inner().as_ref();
    function.is::<EpochTime>()
}

fn is_call(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == name && call.args.is_empty())
}

/// Whether an expression is `now()`.
pub fn is_now(expr: &Expr) -> bool {
    is_call(expr, "now")
}

/// Whether `now()` stands in an expression.
pub fn has_now(expr: &Expr) -> bool {
    expr.exists(|e| Ok(is_now(e))).unwrap_or(true)
}

/// Takes `now()` and `proctime()` out of a query's plan.
pub fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut refused = None;
    let rewritten = plan.transform_up_with_subqueries(|node| match one(node) {
        Ok(node) => Ok(Transformed::yes(node)),
        Err(error) => {
            let sentence = error.to_string();
            refused = Some(error);
            datafusion::common::plan_err!("{sentence}")
        }
    });
    match refused {
        Some(error) => Err(error),
        None => Ok(rewritten?.data),
    }
}

fn one(node: LogicalPlan) -> Result<LogicalPlan> {
    match node {
        LogicalPlan::Filter(filter) if has_now(&filter.predicate) => {
            let (temporal, plain): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(filter.predicate).into_iter().partition(has_now);
            let plain = conjunction(plain.into_iter().map(|expr| with_epoch_time(expr, |e| is_call(e, PROCTIME))).collect::<DataFusionResult<Vec<_>>>()?);
            let input = match plain {
                Some(predicate) => Arc::new(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)),
                None => filter.input,
            };
            let mut limits = vec![];
            for comparison in temporal {
                limits.extend(Limit::of(comparison, input.schema())?);
            }
            Ok(LogicalPlan::Extension(Extension { node: Arc::new(TemporalFilter::found(Arc::unwrap_or_clone(input), limits)) }))
        }
        LogicalPlan::Projection(_) => replaced(node, |e| is_now(e) || is_call(e, PROCTIME)),
        node => {
            let mut found = false;
            node.apply_expressions(|expr| {
                found |= has_now(expr);
                Ok(TreeNodeRecursion::Continue)
            })?;
            if found {
                return Err(Error::Unsupported(
                    "now() in a continuous view is compared with in WHERE or HAVING, as in ts > now() - INTERVAL '5 minutes': write proctime() for the time at which a row is read".into(),
                ));
            }
            replaced(node, |e| is_call(e, PROCTIME))
        }
    }
}

/// The node with the stand-in in the place of these expressions, under the same names.
fn replaced(node: LogicalPlan, stands_for: fn(&Expr) -> bool) -> Result<LogicalPlan> {
    let names = NamePreserver::new(&node);
    let changed = node.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(Transformed::yes(name.restore(with_epoch_time(expr, stands_for)?)))
    })?;
    Ok(changed.data.recompute_schema()?)
}

fn with_epoch_time(expr: Expr, stands_for: fn(&Expr) -> bool) -> DataFusionResult<Expr> {
    Ok(expr.transform_up(|e| Ok(if stands_for(&e) { Transformed::yes(epoch_time()) } else { Transformed::no(e) }))?.data)
}

/// Whether a plan asks for the time of the epochs that read its rows.
pub fn is_asked(plan: &LogicalPlan) -> DataFusionResult<bool> {
    plan.exists(|node| {
        let mut found = false;
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| Ok(is_epoch_time(e)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    })
}

/// An expression with the hidden column in the place of the stand-in.
pub fn as_column(expr: Expr) -> DataFusionResult<Expr> {
    let column = || Expr::Column(Column::new_unqualified(NOW));
    let names = NamePreserver::new_for_projection();
    let name = names.save(&expr);
    let changed = expr.transform_up(|e| Ok(if is_epoch_time(&e) { Transformed::yes(column()) } else { Transformed::no(e) }))?;
    Ok(if changed.transformed { name.restore(changed.data) } else { changed.data })
}
