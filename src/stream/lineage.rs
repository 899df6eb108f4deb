//! Where a column comes from, by walking definitions on the optimized logical plan. Only bare columns and aliases pass a column
//! on; any other expression loses it. (Field metadata can't be used for this: it survives casts and `first_value`.)

use datafusion::{
    datasource::source_as_provider,
    logical_expr::{Expr, LogicalPlan},
};
use tidegate_udfs::window::{Role, WindowCall, Windows};

use super::{aggregate::StreamAggregate, slice::StreamTable};

/// A column that holds a window's start or end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowColumn {
    /// Nanoseconds to add to the column's value to get the window's end.
    pub to_end: i64,
    /// The window's length in nanoseconds.
    pub size: i64,
    /// Which sources the timestamps come from, each by its declared watermark column.
    pub sources: Vec<String>,
    /// The call that made it, without start or end: two columns of one window share it.
    pub window: String,
}

/// Why a column that looks like a window is none that a watermark can close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAWindow {
    /// It is an ordinary column.
    Ordinary,
    /// It is a window over something else than the source's watermark column.
    NoWatermark(String),
}

/// What window a column of a plan holds.
pub fn window_of(plan: &LogicalPlan, column: usize) -> Result<WindowColumn, NotAWindow> {
    match plan {
        LogicalPlan::Projection(p) => p.expr.get(column).ok_or(NotAWindow::Ordinary).and_then(|e| window_of_expr(e, &p.input)),
        LogicalPlan::Filter(f) => window_of(&f.input, column),
        LogicalPlan::SubqueryAlias(s) => window_of(&s.input, column),
        LogicalPlan::Aggregate(a) => a.group_expr.get(column).ok_or(NotAWindow::Ordinary).and_then(|e| window_of_expr(e, &a.input)),
        LogicalPlan::Extension(x) => match x.node.as_any().downcast_ref::<StreamAggregate>() {
            Some(node) => node.group.get(column).ok_or(NotAWindow::Ordinary).and_then(|e| window_of_expr(e, &node.input)),
            None => Err(NotAWindow::Ordinary),
        },
        LogicalPlan::Union(u) => {
            let mut branches = u.inputs.iter().map(|input| window_of(input, column));
            let mut all = branches.next().unwrap_or(Err(NotAWindow::Ordinary))?;
            for branch in branches {
                let branch = branch?;
                if (branch.to_end, branch.size) != (all.to_end, all.size) {
                    return Err(NotAWindow::Ordinary);
                }
                all.sources.extend(branch.sources);
            }
            Ok(all)
        }
        _ => Err(NotAWindow::Ordinary),
    }
}

/// What window an expression over a plan holds.
pub fn window_of_expr(expr: &Expr, input: &LogicalPlan) -> Result<WindowColumn, NotAWindow> {
    match expr {
        Expr::Alias(alias) => window_of_expr(&alias.expr, input),
        Expr::Column(c) => window_of(input, input.schema().index_of_column(c).map_err(|_| NotAWindow::Ordinary)?),
        _ => {
            let Some(call) = WindowCall::of(expr) else { return Err(NotAWindow::Ordinary) };
            let Windows::Tumble { size_ns: size, .. } = call.windows else { return Err(NotAWindow::Ordinary) };
            let to_end = match call.role {
                Role::Start => size,
                Role::End => 0,
                Role::Ends | Role::StartOfEnd => return Err(NotAWindow::Ordinary),
            };
            let sources = event_time_of_expr(call.argument, input).map_err(|reason| NotAWindow::NoWatermark(format!("{} {reason}", call.argument)))?;
            Ok(WindowColumn { to_end, size, sources, window: format!("{}/{:?}", call.argument, call.windows) })
        }
    }
}

/// The sources whose watermark column an expression is.
fn event_time_of_expr(expr: &Expr, input: &LogicalPlan) -> Result<Vec<String>, String> {
    match expr {
        Expr::Alias(alias) => event_time_of_expr(&alias.expr, input),
        Expr::Column(c) => event_time_of(input, input.schema().index_of_column(c).map_err(|e| e.to_string())?),
        _ => Err("is computed, so no watermark follows it".into()),
    }
}

fn event_time_of(plan: &LogicalPlan, column: usize) -> Result<Vec<String>, String> {
    match plan {
        LogicalPlan::Projection(p) => p.expr.get(column).ok_or_else(|| "is unknown".into()).and_then(|e| event_time_of_expr(e, &p.input)),
        LogicalPlan::Filter(f) => event_time_of(&f.input, column),
        LogicalPlan::SubqueryAlias(s) => event_time_of(&s.input, column),
        LogicalPlan::Union(u) => {
            let mut sources = vec![];
            for input in &u.inputs {
                sources.extend(event_time_of(input, column)?);
            }
            Ok(sources)
        }
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).map_err(|e| e.to_string())?;
            let table = provider.downcast_ref::<StreamTable>().ok_or("is not a column of a source")?;
            let name = scan.projected_schema.field(column).name();
            match &table.event_time {
                Some(event_time) if event_time == name => Ok(vec![table.name.clone()]),
                Some(event_time) => Err(format!("is not the watermark column of source {}, which is {event_time}", table.name)),
                None => Err(format!("has no watermark: source {} declares none (WATERMARK FOR {name} AS {name} - INTERVAL '5 seconds')", table.name)),
            }
        }
        _ => Err("is not a column of a source".into()),
    }
}

/// Which group column of the aggregate below an output column is, if it is one unchanged.
pub fn group_column(plan: &LogicalPlan, column: usize) -> Option<usize> {
    match plan {
        LogicalPlan::Projection(p) => {
            let mut expr = p.expr.get(column)?;
            while let Expr::Alias(alias) = expr {
                expr = &alias.expr;
            }
            let Expr::Column(c) = expr else { return None };
            group_column(&p.input, p.input.schema().index_of_column(c).ok()?)
        }
        LogicalPlan::Filter(f) => group_column(&f.input, column),
        LogicalPlan::SubqueryAlias(s) => group_column(&s.input, column),
        LogicalPlan::Extension(x) => {
            let node = x.node.as_any().downcast_ref::<StreamAggregate>()?;
            (column < node.group.len()).then_some(column)
        }
        _ => None,
    }
}

/// The aggregate that a plan's rows come from, through filters and projections.
pub fn aggregate_below(plan: &LogicalPlan) -> Option<&StreamAggregate> {
    match plan {
        LogicalPlan::Projection(p) => aggregate_below(&p.input),
        LogicalPlan::Filter(f) => aggregate_below(&f.input),
        LogicalPlan::SubqueryAlias(s) => aggregate_below(&s.input),
        LogicalPlan::Extension(x) => x.node.as_any().downcast_ref::<StreamAggregate>(),
        _ => None,
    }
}
