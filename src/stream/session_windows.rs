//! Sessions in a view's plan: the window functions that `SESSION` in FROM becomes give way to the event time, and the aggregate above
//! finds the sessions itself.

use std::sync::Arc;

use datafusion::logical_expr::{Expr, LogicalPlan, Projection, SubqueryAlias};
use tidegate_udfs::window::SessionCall;

use super::{aggregate::Sessions, lineage::unaliased};
use crate::error::{Error, Result};

/// The input of an aggregate whose groups are sessions, with the event time in the place of a session's bounds; `None`: it has none.
pub fn rewrite(group: &[Expr], input: &LogicalPlan) -> Result<Option<(LogicalPlan, Sessions)>> {
    let mut columns = vec![];
    let mut plain = vec![];
    let mut found: Option<SessionCall> = None;
    for (index, expr) in group.iter().enumerate() {
        match below(expr, input) {
            Below::Session(call) => {
                if found.as_ref().is_some_and(|known| (known.gap_ns, known.time, known.partition_by) != (call.gap_ns, call.time, call.partition_by)) {
                    return Err(Error::Unsupported("a continuous view groups by one kind of session: make a view for each".into()));
                }
                columns.push((index, call.bound));
                found = Some(call);
            }
            Below::Expr(expr) => plain.push(Some(expr)),
            Below::Unknown => plain.push(None),
        }
    }
    let Some(call) = found else { return Ok(None) };
    let listed =
        call.partition_by.iter().all(|key| plain.contains(&Some(key))) && plain.iter().all(|expr| expr.is_some_and(|expr| call.partition_by.contains(expr)));
    if !listed {
        return Err(Error::Unsupported(
            "GROUP BY of sessions must list the window's bounds and just the columns of PARTITION BY: write SESSION(t PARTITION BY a, b, ts, INTERVAL '5 minutes') with GROUP BY window_start, window_end, a, b".into(),
        ));
    }
    Ok(Some((with_times(input)?, Sessions { gap: call.gap_ns, columns })))
}

enum Below<'a> {
    /// A bound of a session.
    Session(SessionCall<'a>),
    /// This expression over the rows that the sessions are made of.
    Expr(&'a Expr),
    /// Something else.
    Unknown,
}

/// What an expression is at the window functions below.
fn below<'a>(expr: &'a Expr, input: &'a LogicalPlan) -> Below<'a> {
    match unaliased(expr) {
        expr @ Expr::Column(c) => match input.schema().index_of_column(c) {
            Ok(column) => column_below(expr, input, column),
            Err(_) => Below::Unknown,
        },
        _ => Below::Unknown,
    }
}

fn column_below<'a>(expr: &'a Expr, plan: &'a LogicalPlan, column: usize) -> Below<'a> {
    match plan {
        LogicalPlan::Projection(p) => p.expr.get(column).map_or(Below::Unknown, |expr| below(expr, &p.input)),
        LogicalPlan::Filter(f) => column_below(expr, &f.input, column),
        LogicalPlan::SubqueryAlias(s) => column_below(expr, &s.input, column),
        LogicalPlan::Window(w) => match column.checked_sub(w.input.schema().fields().len()) {
            Some(function) => w.window_expr.get(function).and_then(SessionCall::of).map_or(Below::Unknown, Below::Session),
            None => Below::Expr(expr),
        },
        _ => Below::Unknown,
    }
}

fn with_times(plan: &LogicalPlan) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Projection(p) => LogicalPlan::Projection(Projection::try_new(p.expr.clone(), Arc::new(with_times(&p.input)?))?),
        LogicalPlan::SubqueryAlias(s) => LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(with_times(&s.input)?), s.alias.clone())?),
        LogicalPlan::Window(w) => {
            let mut exprs: Vec<Expr> = w.input.schema().columns().into_iter().map(Expr::Column).collect();
            let fields = w.schema.iter().skip(exprs.len());
            for (expr, (qualifier, field)) in w.window_expr.iter().zip(fields) {
                let Some(call) = SessionCall::of(expr) else {
                    return Err(Error::Unsupported("OVER beside SESSION is not supported in a continuous view: apply it when reading the view".into()));
                };
                exprs.push(call.time.clone().alias_qualified(qualifier.cloned(), field.name()));
            }
            LogicalPlan::Projection(Projection::try_new(exprs, w.input.clone())?)
        }
        LogicalPlan::Filter(f) => {
            return Err(Error::Unsupported(format!(
                "{} comes after the sessions were made, which a continuous view can't do: put it into the table, as in SESSION((SELECT … WHERE …) …)",
                f.predicate
            )));
        }
        other => return Err(Error::Unsupported(format!("{} between SESSION and its GROUP BY is not supported in a continuous view", other.display()))),
    })
}
