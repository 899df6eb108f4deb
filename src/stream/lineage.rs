//! Where a column comes from, by walking definitions on the optimized logical plan. Only bare columns and aliases pass a column
//! on; any other expression loses it. (Field metadata can't be used for this: it survives casts and `first_value`.)

use datafusion::{
    datasource::source_as_provider,
    logical_expr::{Expr, LogicalPlan, Unnest},
};
use tidegate_udfs::window::{Role, WindowCall, Windows};

use super::{aggregate::StreamAggregate, hidden::NOW, slice::StreamTable, temporal::TemporalFilter, time::Timeline, upsert::Upsert};

/// A column that holds a window's start or end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowColumn {
    /// Nanoseconds to add to the column's value to get the window's end.
    pub to_end: i64,
    /// The window's length in nanoseconds.
    pub size: i64,
    /// What its timestamps are: event time, by each source's declared watermark column, or the clock.
    pub timeline: Timeline,
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
                all.timeline = all.timeline.and(branch.timeline).ok_or(NotAWindow::Ordinary)?;
            }
            Ok(all)
        }
        LogicalPlan::Unnest(u) => match below_unnest(u, column) {
            Some((below, true)) => {
                let (call, input) = ends_of(&u.input, below).ok_or(NotAWindow::Ordinary)?;
                window_over(call.argument, input, &call.windows, 0)
            }
            Some((below, false)) => window_of(&u.input, below),
            None => Err(NotAWindow::Ordinary),
        },
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
            match call.role {
                Role::Start => window_over(call.argument, input, &call.windows, call.windows.size_ns()),
                Role::End => window_over(call.argument, input, &call.windows, 0),
                // The start of a window that is named by its end.
                Role::StartOfEnd => {
                    let end = window_of_expr(call.argument, input)?;
                    // Windows that cumulate share their start: it does not name one.
                    let window = if matches!(call.windows, Windows::Cumulate { .. }) { format!("{}/start", end.window) } else { end.window };
                    Ok(WindowColumn { to_end: call.windows.size_ns(), window, ..end })
                }
                Role::Ends => Err(NotAWindow::Ordinary),
            }
        }
    }
}

/// The session that an expression over a plan stands for: the plan carries the event time in its place.
pub fn session_of_expr(expr: &Expr, input: &LogicalPlan, gap: i64) -> Result<WindowColumn, NotAWindow> {
    let timeline = timeline_of_expr(expr, input).map_err(|reason| NotAWindow::NoWatermark(format!("the time of SESSION {reason}")))?;
    Ok(WindowColumn { to_end: 0, size: gap, timeline, window: format!("session/{gap}") })
}

fn window_over(time: &Expr, input: &LogicalPlan, windows: &Windows, to_end: i64) -> Result<WindowColumn, NotAWindow> {
    let timeline = timeline_of_expr(time, input).map_err(|reason| NotAWindow::NoWatermark(format!("{time} {reason}")))?;
    Ok(WindowColumn { to_end, size: windows.size_ns(), timeline, window: format!("{time}/{windows:?}") })
}

/// The column below an `unnest` that an output column of it is made of, and whether it is a list that was taken apart.
pub fn below_unnest(unnest: &Unnest, column: usize) -> Option<(usize, bool)> {
    let below = *unnest.dependency_indices.get(column)?;
    Some((below, unnest.list_type_columns.iter().any(|(list, _)| *list == below)))
}

/// The call of `__hop_ends` or the like that defines a column.
fn ends_of(plan: &LogicalPlan, column: usize) -> Option<(WindowCall<'_>, &LogicalPlan)> {
    match plan {
        LogicalPlan::Projection(p) => match unaliased(p.expr.get(column)?) {
            Expr::Column(c) => ends_of(&p.input, p.input.schema().index_of_column(c).ok()?),
            expr => WindowCall::of(expr).filter(|call| call.role == Role::Ends).map(|call| (call, p.input.as_ref())),
        },
        LogicalPlan::Filter(f) => ends_of(&f.input, column),
        LogicalPlan::SubqueryAlias(s) => ends_of(&s.input, column),
        _ => None,
    }
}

/// An expression without its names.
pub fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// What follows an expression that is a time.
fn timeline_of_expr(expr: &Expr, input: &LogicalPlan) -> Result<Timeline, String> {
    match expr {
        Expr::Alias(alias) => timeline_of_expr(&alias.expr, input),
        Expr::Column(c) => timeline_of(input, input.schema().index_of_column(c).map_err(|e| e.to_string())?),
        _ => Err("is computed, so no watermark follows it".into()),
    }
}

fn timeline_of(plan: &LogicalPlan, column: usize) -> Result<Timeline, String> {
    match plan {
        LogicalPlan::Projection(p) => p.expr.get(column).ok_or_else(|| "is unknown".into()).and_then(|e| timeline_of_expr(e, &p.input)),
        LogicalPlan::Filter(f) => timeline_of(&f.input, column),
        LogicalPlan::SubqueryAlias(s) => timeline_of(&s.input, column),
        LogicalPlan::Unnest(u) => match below_unnest(u, column) {
            Some((below, false)) => timeline_of(&u.input, below),
            _ => Err("is an element of a list, so no watermark follows it".into()),
        },
        LogicalPlan::Union(u) => {
            let branches = u.inputs.iter().map(|input| timeline_of(input, column)).collect::<Result<Vec<_>, _>>()?;
            let all = branches.into_iter().map(Some).reduce(|all, branch| all?.and(branch?));
            all.flatten().ok_or_else(|| "is the clock in one branch of UNION ALL and event time in another".into())
        }
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).map_err(|e| e.to_string())?;
            let table = provider.downcast_ref::<StreamTable>().ok_or("is not a column of a source")?;
            let name = scan.projected_schema.field(column).name();
            match &table.event_time {
                _ if name == NOW => Ok(Timeline::Processing),
                Some(event_time) if event_time == name => Ok(Timeline::Event(vec![table.name.clone()])),
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
            if let Some(filter) = x.node.as_any().downcast_ref::<TemporalFilter>() {
                return group_column(filter.input(), column);
            }
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
        LogicalPlan::Extension(x) => match x.node.as_any().downcast_ref::<TemporalFilter>() {
            Some(filter) => aggregate_below(filter.input()),
            None => x.node.as_any().downcast_ref::<StreamAggregate>(),
        },
        _ => None,
    }
}

/// The newest rows of a source with a primary key that a plan's rows are, through filters and projections.
pub fn upsert_below(plan: &LogicalPlan) -> Option<&Upsert> {
    match plan {
        LogicalPlan::Projection(p) => upsert_below(&p.input),
        LogicalPlan::Filter(f) => upsert_below(&f.input),
        LogicalPlan::SubqueryAlias(s) => upsert_below(&s.input),
        LogicalPlan::Extension(x) => match x.node.as_any().downcast_ref::<TemporalFilter>() {
            Some(filter) => upsert_below(filter.input()),
            None => x.node.as_any().downcast_ref::<Upsert>(),
        },
        _ => None,
    }
}

/// Which column of [`upsert_below`] an output column is, if it is one unchanged.
pub fn upsert_column(plan: &LogicalPlan, column: usize) -> Option<usize> {
    match plan {
        LogicalPlan::Projection(p) => match unaliased(p.expr.get(column)?) {
            Expr::Column(c) => upsert_column(&p.input, p.input.schema().index_of_column(c).ok()?),
            _ => None,
        },
        LogicalPlan::Filter(f) => upsert_column(&f.input, column),
        LogicalPlan::SubqueryAlias(s) => upsert_column(&s.input, column),
        LogicalPlan::Extension(x) => match x.node.as_any().downcast_ref::<TemporalFilter>() {
            Some(filter) => upsert_column(filter.input(), column),
            None => x.node.as_any().is::<Upsert>().then_some(column),
        },
        _ => None,
    }
}
