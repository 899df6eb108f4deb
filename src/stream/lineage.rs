//! Where a column comes from, by walking definitions on the optimized logical plan. Only bare columns and aliases pass a column
//! on; any other expression loses it. (Field metadata can't be used for this: it survives casts and `first_value`.)

use datafusion::{
    datasource::source_as_provider,
    logical_expr::{Expr, LogicalPlan, Unnest},
};
use tidegate_udfs::window::{Role, WindowCall, Windows};

use super::{
    aggregate::{Emission, StreamAggregate},
    hidden::NOW,
    recompute::Recompute,
    slice::StreamTable,
    temporal::{Side, TemporalFilter},
    time::Timeline,
};

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
        LogicalPlan::Extension(x) => {
            if let Some(node) = x.node.as_any().downcast_ref::<StreamAggregate>() {
                return node.group.get(column).ok_or(NotAWindow::Ordinary).and_then(|e| window_of_expr(e, &node.input));
            }
            if let Some(node) = x.node.as_any().downcast_ref::<Recompute>() {
                return if column < node.query.schema().fields().len() { window_of(&node.query, column) } else { Err(NotAWindow::Ordinary) };
            }
            match x.node.as_any().downcast_ref::<TemporalFilter>() {
                Some(filter) if column < filter.input().schema().fields().len() => window_of(filter.input(), column),
                _ => Err(NotAWindow::Ordinary),
            }
        }
        LogicalPlan::Window(w) if column < w.input.schema().fields().len() => window_of(&w.input, column),
        LogicalPlan::Sort(s) => window_of(&s.input, column),
        LogicalPlan::Limit(l) => window_of(&l.input, column),
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).map_err(|_| NotAWindow::Ordinary)?;
            let table = provider.downcast_ref::<StreamTable>().ok_or(NotAWindow::Ordinary)?;
            table.windows.get(scan.projected_schema.field(column).name()).cloned().ok_or(NotAWindow::Ordinary)
        }
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

/// Whether all rows of a window come in one epoch, when it closes: nothing that looks at one window alone has to hold them.
pub fn gives_whole_windows(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(p) => gives_whole_windows(&p.input),
        LogicalPlan::Filter(f) => gives_whole_windows(&f.input),
        LogicalPlan::SubqueryAlias(s) => gives_whole_windows(&s.input),
        LogicalPlan::Union(u) => u.inputs.iter().all(|input| gives_whole_windows(input)),
        LogicalPlan::Extension(x) => {
            let whole = |node: &StreamAggregate| node.emission == Emission::OnClose;
            x.node.as_any().downcast_ref().is_some_and(whole) || x.node.as_any().downcast_ref().is_some_and(|node: &Recompute| node.whole)
        }
        LogicalPlan::TableScan(scan) => {
            source_as_provider(&scan.source).is_ok_and(|provider| provider.downcast_ref::<StreamTable>().is_some_and(|table| table.whole_windows))
        }
        _ => false,
    }
}

/// What bounds how many rows a plan's answer has, if something does.
pub fn bounded(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::Projection(p) => bounded(&p.input),
        LogicalPlan::Filter(f) => bounded(&f.input),
        LogicalPlan::SubqueryAlias(s) => bounded(&s.input),
        LogicalPlan::Union(u) => {
            let all = u.inputs.iter().map(|input| bounded(input)).collect::<Option<Vec<_>>>()?;
            Some(all.join(", "))
        }
        LogicalPlan::Extension(x) => {
            if let Some(node) = x.node.as_any().downcast_ref::<StreamAggregate>() {
                return if node.group.is_empty() { Some("one row".into()) } else { bounded(&node.input) };
            }
            if let Some(node) = x.node.as_any().downcast_ref::<Recompute>() {
                return match node.keys.is_empty() && node.over_nothing {
                    true => Some("one row".into()),
                    false if node.keys.is_empty() && node.shrinks => Some(node.what.clone()),
                    false => bounded(&node.input),
                };
            }
            let filter = x.node.as_any().downcast_ref::<TemporalFilter>()?;
            let goes = filter.limits().iter().any(|limit| limit.side == Side::Until);
            if goes { Some("rows that leave with the clock".into()) } else { bounded(filter.input()) }
        }
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            provider.downcast_ref::<StreamTable>()?.table.as_ref().map(|_| format!("the rows of {}", scan.table_name))
        }
        _ => None,
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
