//! Overlapping windows by panes: where an aggregate looks at its windows only to group by them, the rows are not copied into each of
//! their windows. They are aggregated once, by pane, and what panes gave is put together to windows.

use datafusion::{
    common::ScalarValue,
    logical_expr::{Expr, Filter, LogicalPlan, Projection, SubqueryAlias, Unnest, expr::ScalarFunction, lit},
};
use std::sync::Arc;
use tidegate_udfs::window::{Bound, Role, WindowCall, Windows};

use super::{
    aggregate::Panes,
    lineage::{below_unnest, unaliased},
};
use crate::error::Result;

/// An aggregate's group columns and input with panes in the place of windows. `None` where the aggregate has no overlapping windows, or looks at
/// their bounds: then each row is copied into its windows.
pub fn rewrite(group: &[Expr], aggregates: &[Expr], input: &LogicalPlan) -> Result<Option<(Vec<Expr>, LogicalPlan, Panes)>> {
    let mut columns = vec![];
    let mut windows: Option<Windows> = None;
    for (index, expr) in group.iter().enumerate() {
        match bound_of(expr, input) {
            Some((bound, of)) => {
                if windows.is_some_and(|known| known != of) {
                    return Ok(None);
                }
                windows = Some(of);
                columns.push((index, bound));
            }
            None if uses_bounds(expr, input) => return Ok(None),
            None => {}
        }
    }
    let Some(windows) = windows else { return Ok(None) };
    // Windows that cumulate share their start: only the end names one.
    let named = matches!(windows, Windows::Hop { .. }) || columns.iter().any(|(_, bound)| *bound == Bound::End);
    if !named || aggregates.iter().any(|expr| uses_bounds(expr, input)) {
        return Ok(None);
    }
    let group = group.iter().map(start_as_end).collect();
    Ok(with_panes(input)?.map(|input| (group, input, Panes { windows, columns })))
}

/// Which bound of an overlapping window an expression is.
fn bound_of(expr: &Expr, input: &LogicalPlan) -> Option<(Bound, Windows)> {
    match unaliased(expr) {
        Expr::Column(c) => bound_of_column(input, input.schema().index_of_column(c).ok()?),
        expr => {
            let call = WindowCall::of(expr).filter(|call| call.role == Role::StartOfEnd)?;
            let (bound, windows) = bound_of(call.argument, input)?;
            (bound == Bound::End && windows == call.windows).then_some((Bound::Start, windows))
        }
    }
}

fn bound_of_column(plan: &LogicalPlan, column: usize) -> Option<(Bound, Windows)> {
    match plan {
        LogicalPlan::Projection(p) => bound_of(p.expr.get(column)?, &p.input),
        LogicalPlan::Filter(f) => bound_of_column(&f.input, column),
        LogicalPlan::SubqueryAlias(s) => bound_of_column(&s.input, column),
        LogicalPlan::Unnest(u) => match below_unnest(u, column)? {
            (below, true) => list_of_ends(u, below).map(|call| (Bound::End, call.windows)),
            (below, false) => bound_of_column(&u.input, below),
        },
        _ => None,
    }
}

/// The call that gives the list which an `unnest` takes apart, if it stands directly below.
fn list_of_ends(unnest: &Unnest, below: usize) -> Option<WindowCall<'_>> {
    let LogicalPlan::Projection(p) = unnest.input.as_ref() else { return None };
    WindowCall::of(p.expr.get(below)?).filter(|call| call.role == Role::Ends)
}

/// Where a window's start would be computed of its end, the pane's end takes its place under the same name.
fn start_as_end(expr: &Expr) -> Expr {
    match WindowCall::of(expr) {
        Some(call) if call.role == Role::StartOfEnd => {
            let (qualifier, name) = expr.qualified_name();
            call.argument.clone().alias_qualified(qualifier, name)
        }
        _ => expr.clone(),
    }
}

/// Whether an expression looks at a bound of an overlapping window.
fn uses_bounds(expr: &Expr, input: &LogicalPlan) -> bool {
    expr.column_refs().into_iter().any(|c| input.schema().index_of_column(c).is_ok_and(|column| bound_of_column(input, column).is_some()))
}

/// The plan with panes in the place of windows, if nothing in it looks at bounds.
fn with_panes(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    Ok(match plan {
        LogicalPlan::Projection(p) => {
            let passes = |expr: &Expr| bound_of(expr, &p.input).is_some() || !uses_bounds(expr, &p.input);
            if !p.expr.iter().all(passes) {
                return Ok(None);
            }
            let exprs = p.expr.iter().map(start_as_end).collect();
            with_panes(&p.input)?.map(|input| Projection::try_new(exprs, Arc::new(input))).transpose()?.map(LogicalPlan::Projection)
        }
        LogicalPlan::Filter(f) if !uses_bounds(&f.predicate, &f.input) => {
            with_panes(&f.input)?.map(|input| Filter::try_new(f.predicate.clone(), Arc::new(input))).transpose()?.map(LogicalPlan::Filter)
        }
        LogicalPlan::SubqueryAlias(s) => {
            with_panes(&s.input)?.map(|input| SubqueryAlias::try_new(Arc::new(input), s.alias.clone())).transpose()?.map(LogicalPlan::SubqueryAlias)
        }
        LogicalPlan::Unnest(u) => {
            let (LogicalPlan::Projection(p), [(list, _)]) = (u.input.as_ref(), u.list_type_columns.as_slice()) else { return Ok(None) };
            let Some(pane_end) = list_of_ends(u, *list).as_ref().and_then(pane_end) else { return Ok(None) };
            let exprs = u.schema.iter().enumerate().map(|(column, (qualifier, field))| {
                let below = u.dependency_indices[column];
                let expr = if below == *list { pane_end.clone() } else { unaliased(&p.expr[below]).clone() };
                expr.alias_qualified(qualifier.cloned(), field.name())
            });
            Some(LogicalPlan::Projection(Projection::try_new(exprs.collect(), p.input.clone())?))
        }
        _ => None,
    })
}

/// The end of the pane that a row falls in.
fn pane_end(call: &WindowCall) -> Option<Expr> {
    let interval = |ns: i64| lit(ScalarValue::new_interval_mdn(0, 0, ns));
    let Windows::Tumble { size_ns, offset_ns } = call.windows.panes() else { return None };
    let window_end = tidegate_udfs::window::functions().into_iter().find(|function| function.name() == "__window_end")?;
    Some(Expr::ScalarFunction(ScalarFunction::new_udf(window_end, vec![call.argument.clone(), interval(size_ns), interval(offset_ns)])))
}
