//! Where a column comes from, by walking definitions on the optimized logical plan. Only bare columns and aliases pass a column
//! on; any other expression loses it. (Field metadata can't be used for this: it survives casts and `first_value`.)

use datafusion::{
    datasource::source_as_provider,
    logical_expr::{Expr, LogicalPlan, Unnest},
};
use tidegate_udfs::window::{Bound, Role, WindowCall, Windows};

use super::{
    aggregate::{Emission, StreamAggregate},
    expiry::Expiry,
    hidden::{NOW, ROW, has},
    join::StreamJoin,
    recompute::Recompute,
    slice::StreamTable,
    temporal::{Side, TemporalFilter},
    temporal_join::TemporalJoin,
    time::Timeline,
    upsert::Upsert,
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
    /// Nanoseconds that rows may trail the timeline by, since they have waited for others to be joined with.
    pub lag: i64,
    /// The call that made it, without start or end: two columns of one window share it.
    pub window: String,
}

/// What follows a column of times: rows that are still to come lie at `timeline - lag` or later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Event time, or the clock.
    pub timeline: Timeline,
    /// Nanoseconds.
    pub lag: i64,
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
                return match of_panes(node, column) {
                    Some(window) => Ok(window),
                    None => node.group.get(column).ok_or(NotAWindow::Ordinary).and_then(|e| window_of_expr(e, &node.input)),
                };
            }
            if let Some(join) = x.node.as_any().downcast_ref::<StreamJoin>() {
                return window_above(join, column);
            }
            if let Some(node) = x.node.as_any().downcast_ref::<Recompute>() {
                if column >= node.query.schema().fields().len() {
                    return Err(NotAWindow::Ordinary);
                }
                let found = window_of(&node.query, column)?;
                // What is answered anew for other keys than a window changes rows of windows that have closed.
                let own = node.window.as_ref().and_then(|window| window_of_expr(node.keys.get(window.group)?, &node.input).ok());
                return match own {
                    Some(own) if own.window == found.window => Ok(found),
                    _ => Err(NotAWindow::NoWatermark(format!(
                        "the rows of windows that have closed may still change below ({} looks beyond one window)",
                        node.what
                    ))),
                };
            }
            if let Some(join) = x.node.as_any().downcast_ref::<TemporalJoin>() {
                let below = join.left_below(column).ok_or(NotAWindow::Ordinary)?;
                let found = window_of(&join.inputs[0], below)?;
                let (timeline, lag) = join.timeline().ok_or_else(|| NotAWindow::NoWatermark("no watermark follows it".into()))?;
                return Ok(WindowColumn { timeline, lag: lag.max(found.lag), ..found });
            }
            if x.node.as_any().is::<Expiry>() {
                return Err(NotAWindow::NoWatermark("its rows leave again after a time".into()));
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
                all.lag = all.lag.max(branch.lag);
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

/// Whether rows that come when their window has closed can be told, or can't come: records say which they are, aggregates and joins let none
/// through. Rows that another view passes on as it reads them, or that the clock lets in, may come at any time.
pub fn tells_late_rows(plan: &LogicalPlan) -> bool {
    has(plan.schema(), ROW) || lets_none_through(plan)
}

fn lets_none_through(plan: &LogicalPlan) -> bool {
    match plan {
        // Records that do not say which they are any more.
        LogicalPlan::Projection(p) => !has(p.input.schema(), ROW) && lets_none_through(&p.input),
        LogicalPlan::Filter(f) => lets_none_through(&f.input),
        LogicalPlan::SubqueryAlias(s) => lets_none_through(&s.input),
        LogicalPlan::Unnest(u) => lets_none_through(&u.input),
        LogicalPlan::Union(u) => u.inputs.iter().all(|input| lets_none_through(input)),
        LogicalPlan::Extension(x) => {
            let node = x.node.as_any();
            node.is::<StreamAggregate>() || node.is::<Recompute>() || node.is::<StreamJoin>() || node.is::<TemporalJoin>()
        }
        LogicalPlan::TableScan(scan) => {
            source_as_provider(&scan.source).is_ok_and(|provider| provider.downcast_ref::<StreamTable>().is_some_and(|table| !table.records))
        }
        _ => false,
    }
}

/// The window that bounds the state of what is kept by this expression: of rows that could come late unnoticed nothing does.
pub fn bounding_window(expr: &Expr, input: &LogicalPlan) -> Result<WindowColumn, NotAWindow> {
    let window = window_of_expr(expr, input)?;
    if window.timeline == Timeline::Processing || tells_late_rows(input) {
        return Ok(window);
    }
    Err(NotAWindow::NoWatermark("rows come together there of which it can't be told whether they are late".into()))
}

/// Whether no row of a window comes any more when the sources have been quiet for long. Rows that were joined can't be told to be late: their
/// windows wait for the watermark.
pub fn closes_when_quiet(plan: &LogicalPlan) -> bool {
    gives_whole_windows(plan) || !reads_join(plan)
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
            x.node.as_any().downcast_ref().is_some_and(whole)
                || x.node.as_any().downcast_ref().is_some_and(|node: &Recompute| node.whole)
                || x.node.as_any().downcast_ref().is_some_and(|node: &StreamJoin| node.complete)
        }
        LogicalPlan::TableScan(scan) => {
            source_as_provider(&scan.source).is_ok_and(|provider| provider.downcast_ref::<StreamTable>().is_some_and(|table| table.whole_windows))
        }
        _ => false,
    }
}

/// Whether a plan gives nothing of a window before it closes. Of several inputs one decides: what the others have is joined to its rows, or
/// passed on beside them.
pub fn waits_for_closing(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Extension(x) => match x.node.as_any().downcast_ref::<StreamAggregate>() {
            Some(aggregate) => aggregate.emission != Emission::Changes,
            None => x.node.inputs().into_iter().any(waits_for_closing),
        },
        LogicalPlan::TableScan(scan) => {
            source_as_provider(&scan.source).is_ok_and(|provider| provider.downcast_ref::<StreamTable>().is_some_and(|table| table.on_close))
        }
        other => other.inputs().into_iter().any(waits_for_closing),
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
                return match node.idle_after {
                    _ if node.group.is_empty() => Some("one row".into()),
                    Some(_) => Some("groups that are forgotten when they are idle".into()),
                    None => bounded(&node.input),
                };
            }
            if let Some(node) = x.node.as_any().downcast_ref::<Recompute>() {
                return match node.keys.is_empty() && node.over_nothing {
                    true => Some("one row".into()),
                    false if node.keys.is_empty() && node.shrinks => Some(node.what.clone()),
                    false if node.idle_after.is_some() => Some("keys that are forgotten when they are idle".into()),
                    false => bounded(&node.input),
                };
            }
            if x.node.as_any().is::<Upsert>() {
                return Some("the topic's keys".into());
            }
            if let Some(expiry) = x.node.as_any().downcast_ref::<Expiry>() {
                return Some(bounded(&expiry.input).unwrap_or_else(|| "rows that leave after a time".into()));
            }
            if let Some(join) = x.node.as_any().downcast_ref::<StreamJoin>() {
                return Some(format!("pairs of {} and {}", bounded(&join.inputs[0])?, bounded(&join.inputs[1])?));
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

/// The window in a group column of an aggregate that puts panes together to windows.
fn of_panes(node: &StreamAggregate, column: usize) -> Option<WindowColumn> {
    let key = node.window.as_ref()?;
    let panes = key.panes.as_ref()?;
    let (_, bound) = panes.columns.iter().find(|(group, _)| *group == column)?;
    let to_end = if *bound == Bound::End { 0 } else { key.size };
    // Windows that cumulate share their start: it does not name one.
    let start = if *bound == Bound::Start && matches!(panes.windows, Windows::Cumulate { .. }) { "/start" } else { "" };
    Some(WindowColumn { to_end, size: key.size, timeline: key.timeline.clone(), lag: key.lag, window: format!("{:?}{start}", panes.windows) })
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
    let Followed { timeline, lag } = timeline_of_expr(expr, input).map_err(|reason| NotAWindow::NoWatermark(format!("the time of SESSION {reason}")))?;
    Ok(WindowColumn { to_end: 0, size: gap, timeline, lag, window: format!("session/{gap}") })
}

fn window_over(time: &Expr, input: &LogicalPlan, windows: &Windows, to_end: i64) -> Result<WindowColumn, NotAWindow> {
    let Followed { timeline, lag } = timeline_of_expr(time, input).map_err(|reason| NotAWindow::NoWatermark(format!("{time} {reason}")))?;
    Ok(WindowColumn { to_end, size: windows.size_ns(), timeline, lag, window: format!("{time}/{windows:?}") })
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
pub fn timeline_of_expr(expr: &Expr, input: &LogicalPlan) -> Result<Followed, String> {
    match expr {
        Expr::Alias(alias) => timeline_of_expr(&alias.expr, input),
        Expr::Column(c) => timeline_of(input, input.schema().index_of_column(c).map_err(|e| e.to_string())?),
        _ => Err("is computed, so no watermark follows it".into()),
    }
}

fn timeline_of(plan: &LogicalPlan, column: usize) -> Result<Followed, String> {
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
            let both = |all: Followed, branch: Followed| Some(Followed { timeline: all.timeline.and(branch.timeline)?, lag: all.lag.max(branch.lag) });
            let all = branches.into_iter().map(Some).reduce(|all, branch| both(all?, branch?));
            all.flatten().ok_or_else(|| "is the clock in one branch of UNION ALL and event time in another".into())
        }
        LogicalPlan::Extension(x) if x.node.as_any().is::<TemporalJoin>() => {
            let join: &TemporalJoin = x.node.as_any().downcast_ref().ok_or("is not a column of a source")?;
            let found = timeline_of(&join.inputs[0], join.left_below(column).ok_or("is not a column of a source")?)?;
            let (timeline, lag) = join.timeline().ok_or("is looked up at a time that no watermark follows")?;
            Ok(Followed { timeline, lag: lag.max(found.lag) })
        }
        LogicalPlan::Extension(x) => match x.node.as_any().downcast_ref::<StreamJoin>() {
            Some(join) => time_above(join, column),
            None => Err("is not a column of a source".into()),
        },
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).map_err(|e| e.to_string())?;
            let table = provider.downcast_ref::<StreamTable>().ok_or("is not a column of a source")?;
            let name = scan.projected_schema.field(column).name();
            match &table.event_time {
                _ if name == NOW => Ok(Followed { timeline: Timeline::Processing, lag: 0 }),
                Some(event_time) if event_time == name => Ok(Followed { timeline: Timeline::Event(vec![table.name.clone()]), lag: 0 }),
                Some(event_time) => Err(format!("is not the watermark column of source {}, which is {event_time}", table.name)),
                None => Err(format!("has no watermark: source {} declares none (WATERMARK FOR {name} AS {name} - INTERVAL '5 seconds')", table.name)),
            }
        }
        _ => Err("is not a column of a source".into()),
    }
}

/// Why a time can't be followed above a join.
const UNBOUNDED: &str = "has gone through a join that lets rows of any age match, so no watermark follows it: give the join a condition like \
                         r.ts BETWEEN l.ts - INTERVAL '1 minute' AND l.ts + INTERVAL '1 minute' between the watermark columns";

/// The time of a side's rows above a join.
fn time_above(join: &StreamJoin, column: usize) -> Result<Followed, String> {
    let (side, below) = join.below(column).ok_or("is not a column of a source")?;
    let input = &join.inputs[side];
    let mut found = timeline_of(input, below)?;
    if join.pads(side) {
        return Err("is NULL where a row was joined with none, so no watermark follows it".into());
    }
    let (clock, timeline, lag) = join.bounds.above(side).ok_or(UNBOUNDED)?;
    let same = matches!(&clock.at, Expr::Column(c) if input.schema().index_of_column(c).is_ok_and(|at| at == below));
    if !same && !has_one_time(input) {
        return Err(UNBOUNDED.into());
    }
    // A row may lie at the very start of a window.
    let within = clock.window.as_ref().map_or(0, |(_, size)| *size);
    found.lag = lag.checked_add(within).ok_or(UNBOUNDED)?;
    found.timeline = timeline;
    Ok(found)
}

/// The window of a side's rows above a join.
fn window_above(join: &StreamJoin, column: usize) -> Result<WindowColumn, NotAWindow> {
    let (side, below) = join.below(column).ok_or(NotAWindow::Ordinary)?;
    let input = &join.inputs[side];
    let found = window_of(input, below)?;
    let refused = |reason: &str| NotAWindow::NoWatermark(format!("its window {reason}"));
    if join.pads(side) {
        return Err(refused("is NULL where a row was joined with none"));
    }
    let (clock, timeline, lag) = join.bounds.above(side).ok_or_else(|| refused(UNBOUNDED))?;
    let within = match &clock.window {
        Some((window, _)) if *window == found.window => 0,
        _ if !has_one_time(input) => return Err(refused(UNBOUNDED)),
        Some((_, size)) => *size,
        None => 0,
    };
    let lag = lag.checked_add(within).ok_or_else(|| refused(UNBOUNDED))?;
    Ok(WindowColumn { timeline, lag, ..found })
}

/// Whether all times and windows in a plan's rows are of one event: rows that were joined have several.
fn has_one_time(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Extension(x) => {
            !x.node.as_any().is::<StreamJoin>() && (x.node.as_any().is::<StreamAggregate>() || x.node.inputs().iter().all(|p| has_one_time(p)))
        }
        other => other.inputs().iter().all(|p| has_one_time(p)),
    }
}

/// Whether all rows come out of joins, directly or through operators that keep none.
pub fn reads_join(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Extension(x) => x.node.as_any().is::<StreamJoin>() || x.node.as_any().is::<TemporalJoin>(),
        other => !other.inputs().is_empty() && other.inputs().iter().all(|p| reads_join(p)),
    }
}

/// The window of an aggregate that gives all of its rows at once, when it closes, if a column is a bound of it.
pub fn closing_window(plan: &LogicalPlan, expr: &Expr) -> Option<WindowColumn> {
    let Expr::Column(c) = unaliased(expr) else { return None };
    let column = plan.schema().index_of_column(c).ok()?;
    let aggregate = aggregate_below(plan).filter(|aggregate| aggregate.emission == Emission::OnClose && aggregate.sessions.is_none())?;
    group_column(plan, column)?;
    let found = window_of(plan, column).ok()?;
    let key = aggregate.window.as_ref()?;
    (key.timeline == found.timeline && key.lag == found.lag && !found.window.ends_with("/start")).then_some(found)
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
