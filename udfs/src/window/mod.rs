//! Window functions: which windows a timestamp lies in.
//!
//! | function | gives |
//! |---|---|
//! | `__window_start(ts, size [, offset])`, `__window_end(…)` | the bounds of the tumbling window that holds `ts` |
//! | `__hop_ends(ts, size, slide [, offset])`, `__cumulate_ends(ts, size, step [, offset])` | a list of the ends of all windows that hold `ts`, ascending |
//! | `__hop_start(end, size, slide [, offset])`, `__cumulate_start(end, size, step [, offset])` | the start of the window that ends there |
//! | `__session_start(ts, gap) OVER (PARTITION BY … ORDER BY ts)`, `__session_end(…)` | the bounds of the session that `ts` belongs to |
//!
//! Windows are half-open and aligned to 1970-01-01T00:00:00Z plus `offset`, also before 1970. Results have the type of `ts`. Lengths are
//! constants without months and whole in the unit of `ts`. A window that the type can't hold whole is no window: `__window_start` gives
//! NULL and `__hop_ends` leaves it out. NULL gives NULL, and as a list one with a NULL in it, so that unnesting it keeps the row, as a
//! tumbling window does.
//!
//! The names begin with `__` since users don't write them: they are what `TUMBLE`, `HOP`, `CUMULATE` and `SESSION` in FROM become, and
//! what a planner looks for when it asks which column is a window's bound ([`WindowCall::of`], [`SessionCall::of`]).

mod bounds;
mod call;
mod function;
mod lists;
mod session;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod windows;

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, IntervalUnit, TimeUnit},
    common::{Result, ScalarValue, plan_err},
    logical_expr::{ScalarUDF, WindowUDF},
};

use serde::{Deserialize, Serialize};

pub use call::{Role, SessionCall, WindowCall};
pub use windows::{Ends, InvalidWindows, MOST_WINDOWS, Windows};

/// The tumbling window's first instant.
pub const WINDOW_START: &str = "__window_start";
/// The instant at which the tumbling window has ended.
pub const WINDOW_END: &str = "__window_end";
/// The ends of the hopping windows.
pub const HOP_ENDS: &str = "__hop_ends";
/// The start of the hopping window that ends there.
pub const HOP_START: &str = "__hop_start";
/// The ends of the cumulating windows.
pub const CUMULATE_ENDS: &str = "__cumulate_ends";
/// The start of the cumulating window that ends there.
pub const CUMULATE_START: &str = "__cumulate_start";
/// The time of a session's first row.
pub const SESSION_START: &str = "__session_start";
/// The time of a session's last row plus the gap.
pub const SESSION_END: &str = "__session_end";

const DAY_NS: i64 = 86_400_000_000_000;

/// Which end of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Bound {
    /// The first instant of the window.
    Start,
    /// The first instant after the window.
    End,
}

/// The scalar functions, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    function::WindowFunction::all().into_iter().map(|f| Arc::new(ScalarUDF::new_from_impl(f))).collect()
}

/// The functions with OVER, to be registered with a session.
pub fn window_functions() -> Vec<Arc<WindowUDF>> {
    [Bound::Start, Bound::End].into_iter().map(|bound| Arc::new(WindowUDF::new_from_impl(session::SessionBound::new(bound)))).collect()
}

/// The length of an interval or duration in nanoseconds, a day being 24 hours; `None` if it is NULL, has months, or doesn't fit 64 bits.
pub fn interval_ns(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 => i64::from(i.days).checked_mul(DAY_NS)?.checked_add(i.nanoseconds),
        ScalarValue::IntervalDayTime(Some(i)) => i64::from(i.days).checked_mul(DAY_NS)?.checked_add(i64::from(i.milliseconds) * 1_000_000),
        ScalarValue::DurationSecond(Some(n)) => n.checked_mul(1_000_000_000),
        ScalarValue::DurationMillisecond(Some(n)) => n.checked_mul(1_000_000),
        ScalarValue::DurationMicrosecond(Some(n)) => n.checked_mul(1_000),
        ScalarValue::DurationNanosecond(Some(n)) => Some(*n),
        _ => None,
    }
}

/// The length that a function's constant argument stands for.
fn length_ns(what: &str, constant: Option<&ScalarValue>) -> Result<i64> {
    let Some(value) = constant else { return plan_err!("a window's {what} must be a constant like INTERVAL '1 minute'") };
    match interval_ns(value) {
        Some(ns) => Ok(ns),
        None => plan_err!("a window needs a fixed length without months, like INTERVAL '1 minute', not {value}"),
    }
}

/// Nanoseconds per step of a type that windows can be over.
fn unit_ns(time: &DataType) -> Option<i64> {
    match time {
        DataType::Timestamp(TimeUnit::Second, _) => Some(1_000_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Some(1_000_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Some(1_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(1),
        DataType::Date32 => Some(DAY_NS),
        _ => None,
    }
}

/// The types that a function of a time and lengths takes: a NULL is taken for a timestamp.
fn coerced(types: &[DataType]) -> Result<Vec<DataType>> {
    let time = match &types[0] {
        DataType::Null => DataType::Timestamp(TimeUnit::Nanosecond, None),
        other => other.clone(),
    };
    if unit_ns(&time).is_none() {
        return plan_err!("a window is over a TIMESTAMP or DATE column, not over {}: cast it, or name another column", types[0]);
    }
    for interval in &types[1..] {
        if !matches!(interval, DataType::Interval(IntervalUnit::MonthDayNano | IntervalUnit::DayTime) | DataType::Duration(_)) {
            return plan_err!("a window's size, slide, step, gap and offset are intervals like INTERVAL '1 minute', not {interval}");
        }
    }
    Ok([&[time], &types[1..]].concat())
}

/// Calls a function that is generic over the type of a column of times.
macro_rules! by_time_type {
    ($times:expr, $function:ident, $($argument:expr),+) => {
        match $times.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => $function::<TimestampSecondType>($times, $($argument),+),
            DataType::Timestamp(TimeUnit::Millisecond, _) => $function::<TimestampMillisecondType>($times, $($argument),+),
            DataType::Timestamp(TimeUnit::Microsecond, _) => $function::<TimestampMicrosecondType>($times, $($argument),+),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => $function::<TimestampNanosecondType>($times, $($argument),+),
            DataType::Date32 => $function::<Date32Type>($times, $($argument),+),
            other => exec_err!("a window is over a TIMESTAMP or DATE column, not over {other}"),
        }
    };
}
use by_time_type;
