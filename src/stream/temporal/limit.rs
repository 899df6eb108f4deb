//! Comparisons with `now()`, solved for it: `ts > now() - INTERVAL '5 minutes'` says `now() < ts + INTERVAL '5 minutes'`.

use std::fmt;

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    common::{DFSchema, ScalarValue},
    logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, cast, expr::Between, try_cast},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    stream::clock::{has_now, is_now},
};

/// Instants, whatever a column's unit and zone are; a time without a zone is UTC.
pub(super) fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()))
}

/// Which end of a row's time a limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Serialize, Deserialize)]
pub enum Side {
    /// The row is there from then on,
    From,
    /// and no longer from then on.
    Until,
}

/// One end of the time for which a row is there: `at + offset`, both in nanoseconds. A row for which `at` is NULL is never there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub struct Limit {
    /// Which end.
    pub side: Side,
    /// An instant worked out from the row.
    pub at: Expr,
    /// Nanoseconds to add to it; the sum stops at the ends of the type's range.
    pub offset: i64,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let at = match &self.at {
            Expr::Cast(cast) => &cast.expr,
            Expr::TryCast(cast) => &cast.expr,
            other => other,
        };
        let by = humantime::format_duration(std::time::Duration::from_nanos(self.offset.unsigned_abs() / 1000 * 1000));
        let op = if self.side == Side::From { ">=" } else { "<" };
        match self.offset / 1000 {
            0 => write!(f, "now() {op} {at}"),
            n => write!(f, "now() {op} {at} {} {by}", if n > 0 { '+' } else { '-' }),
        }
    }
}

impl Limit {
    /// The limits that a comparison with `now()` sets.
    pub fn of(comparison: Expr, schema: &DFSchema) -> Result<Vec<Self>> {
        let refused = || {
            Error::Unsupported(format!(
                "{comparison} can't be followed by the clock in a continuous view: compare a timestamp with now() on its own, as in ts > now() - INTERVAL '5 minutes', joined to other conditions by AND"
            ))
        };
        let solved = match comparison.clone() {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => solve(*left, op, *right).map(|limit| vec![limit]),
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let pairs = [(Operator::GtEq, low), (Operator::LtEq, high)];
                pairs.into_iter().map(|(op, bound)| solve(expr.as_ref().clone(), op, *bound)).collect()
            }
            _ => None,
        };
        let limits = solved.ok_or_else(refused)?;
        limits.into_iter().map(|limit| limit.typed(schema).ok_or_else(refused)).collect()
    }

    /// The same with `at` as an instant; `None` if it is none.
    fn typed(self, schema: &DFSchema) -> Option<Self> {
        let constant = self.at.column_refs().is_empty();
        let is_time = match self.at.get_type(schema).ok()? {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => true,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => constant,
            _ => false,
        };
        // A row's time beyond the range of nanoseconds is no time; a constant that is none is the user's mistake.
        let at = if constant { cast(self.at, instant()) } else { try_cast(self.at, instant()) };
        is_time.then_some(Self { at, ..self })
    }
}

/// An instant or a stretch of time without `now()`: `rest + offset`.
struct Known {
    rest: Option<Expr>,
    offset: i64,
}

impl Known {
    fn new(expr: Expr) -> Option<Self> {
        match constant_ns(&expr) {
            Some(offset) => Some(Self { rest: None, offset: offset? }),
            None => Some(Self { rest: Some(expr), offset: 0 }),
        }
    }

    fn plus(self, expr: Expr, sign: i64) -> Option<Self> {
        let other = Self::new(expr)?;
        let offset = self.offset.checked_add(other.offset.checked_mul(sign)?)?;
        let rest = match (self.rest, other.rest) {
            (rest, None) => rest,
            (None, Some(rest)) if sign > 0 => Some(rest),
            (None, Some(_)) => return None,
            (Some(rest), Some(other)) => Some(if sign > 0 { rest + other } else { rest - other }),
        };
        Some(Self { rest, offset })
    }

    /// `expr` less this.
    fn from(self, expr: Expr) -> Option<Self> {
        let rest = match self.rest {
            None => expr,
            Some(rest) => expr - rest,
        };
        Some(Self { rest: Some(rest), offset: self.offset.checked_neg()? })
    }
}

/// A constant stretch of time in nanoseconds; `Some(None)`: one whose length depends on where it stands, as a month's does.
fn constant_ns(expr: &Expr) -> Option<Option<i64>> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            let days = i64::from(interval.days).checked_mul(86_400_000_000_000);
            Some(days.and_then(|days| days.checked_add(interval.nanoseconds)).filter(|_| interval.months == 0))
        }
        ScalarValue::IntervalDayTime(Some(interval)) => {
            Some(i64::from(interval.days).checked_mul(86_400_000_000_000).and_then(|days| days.checked_add(i64::from(interval.milliseconds) * 1_000_000)))
        }
        ScalarValue::IntervalYearMonth(Some(months)) => Some((*months == 0).then_some(0)),
        ScalarValue::DurationNanosecond(Some(ns)) => Some(Some(*ns)),
        ScalarValue::DurationMicrosecond(Some(us)) => Some(us.checked_mul(1_000)),
        ScalarValue::DurationMillisecond(Some(ms)) => Some(ms.checked_mul(1_000_000)),
        ScalarValue::DurationSecond(Some(s)) => Some(s.checked_mul(1_000_000_000)),
        _ => None,
    }
}

/// Solves `left op right` for `now()`, which stands on one side, alone or with something added or taken away.
fn solve(left: Expr, op: Operator, right: Expr) -> Option<Limit> {
    let (mut side, mut op, known) = match (has_now(&left), has_now(&right)) {
        (true, false) => (left, op, right),
        (false, true) => (right, op.swap()?, left),
        _ => return None,
    };
    let mut known = Known::new(known)?;
    while !is_now(&side) {
        side = match side {
            Expr::Alias(alias) => *alias.expr,
            Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _)) => *cast.expr,
            Expr::BinaryExpr(BinaryExpr { left, op: sign @ (Operator::Plus | Operator::Minus), right }) => match (has_now(&left), has_now(&right), sign) {
                (true, false, Operator::Plus) => {
                    known = known.plus(*right, -1)?;
                    *left
                }
                (true, false, _) => {
                    known = known.plus(*right, 1)?;
                    *left
                }
                (false, true, Operator::Plus) => {
                    known = known.plus(*left, -1)?;
                    *right
                }
                (false, true, _) => {
                    known = known.from(*left)?;
                    op = op.swap()?;
                    *right
                }
                _ => return None,
            },
            _ => return None,
        };
    }
    let Known { rest, offset } = known;
    let at = rest?;
    // Whole nanoseconds: after a moment is from the next one on.
    let (side, after) = match op {
        Operator::Lt => (Side::Until, 0),
        Operator::LtEq => (Side::Until, 1),
        Operator::GtEq => (Side::From, 0),
        Operator::Gt => (Side::From, 1),
        _ => return None,
    };
    Some(Limit { side, at, offset: offset.checked_add(after)? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use datafusion::{arrow::datatypes::Field, prelude::SessionContext};

    use super::*;

    /// A comparison as the limits that it sets.
    fn limits(comparison: &str) -> Result<String> {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let fields = vec![
            Field::new("ts", time.clone(), true),
            Field::new("other", time, true),
            Field::new("day", DataType::Date32, true),
            Field::new("wait", DataType::Duration(TimeUnit::Nanosecond), true),
            Field::new("x", DataType::Int64, true),
        ];
        let schema = DFSchema::from_unqualified_fields(fields.into_iter().map(std::sync::Arc::new).collect(), HashMap::new()).unwrap();
        let expr = SessionContext::new().parse_sql_expr(comparison, &schema).unwrap();
        let limits = Limit::of(expr, &schema)?;
        Ok(limits.iter().map(|limit| format!("{limit} [{}]", limit.offset)).collect::<Vec<_>>().join(" and "))
    }

    #[test]
    fn comparisons_are_solved_for_now() {
        for (comparison, expected) in [
            ("ts > now() - INTERVAL '5 minutes'", "now() < ts + 5m [300000000000]"),
            ("ts >= now() - INTERVAL '5 minutes'", "now() < ts + 5m [300000000001]"),
            ("now() - INTERVAL '5 minutes' < ts", "now() < ts + 5m [300000000000]"),
            (
                "ts + INTERVAL '5 minutes' > now()",
                "now() < ts + IntervalMonthDayNano(\"IntervalMonthDayNano { months: 0, days: 0, nanoseconds: 300000000000 }\") [0]",
            ),
            ("now() - ts < INTERVAL '1 day'", "now() < ts + 1day [86400000000000]"),
            ("now() - ts >= INTERVAL '2 seconds'", "now() >= ts + 2s [2000000000]"),
            ("ts - now() > INTERVAL '-3 seconds'", "now() < ts + 3s [3000000000]"),
            ("INTERVAL '1 second' + now() < other", "now() < other - 1s [-1000000000]"),
            ("current_timestamp < ts", "now() < ts [0]"),
            ("now()::timestamp <= ts", "now() < ts [1]"),
            ("now() - wait < ts", "now() < ts + wait [0]"),
            ("now() > TIMESTAMP '2030-01-01T00:00:00'", "now() >= CAST(Utf8(\"2030-01-01T00:00:00\") AS Timestamp(ns)) [1]"),
            ("ts BETWEEN now() - INTERVAL '1 minute' AND now() + INTERVAL '1 second'", "now() < ts + 1m [60000000001] and now() >= ts - 1s [-1000000000]"),
            ("day > now() - INTERVAL '1 hour'", "now() < day + 1h [3600000000000]"),
        ] {
            assert_eq!(limits(comparison).unwrap(), expected, "{comparison}");
        }
    }

    #[test]
    fn what_the_clock_can_not_follow_is_refused() {
        for comparison in [
            "ts = now()",
            "ts > now() OR x > 3",
            "date_trunc('day', now()) = ts",
            "ts > now() - INTERVAL '1 month'",
            "now() > now() - INTERVAL '1 second'",
            "NOT ts > now()",
            "now() IS NOT NULL",
            "now() - INTERVAL '1 second' > INTERVAL '1 second' - ts",
            "x > CAST(now() AS BIGINT)",
        ] {
            let refused = limits(comparison);
            assert!(refused.as_ref().is_err_and(|e| e.to_string().contains("on its own")), "{comparison}: {refused:?}");
        }
    }
}
