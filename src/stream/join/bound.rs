//! When a row of a join can match nothing any more. A join's conditions are solved for time: `r.ts <= l.ts + INTERVAL '5 minutes'` says
//! that a left row is done with when the watermark of the right side is past `l.ts + 5 minutes`, since no right row that is not late can
//! match it from then on. What limits one side makes rows of the other late: they could have matched what is gone.

use std::fmt;

use datafusion::{
    arrow::datatypes::{DataType, IntervalUnit, TimeUnit},
    common::{DFSchema, ScalarValue},
    logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, expr::Between, utils::split_conjunction},
};
use tidegate_udfs::window::interval_ns;

use crate::stream::{
    lineage::{self, Followed, unaliased},
    time::{Timeline, told},
};

/// What follows a side's watermark: for each row that is still to come and not late, `at + shift >= watermark - lag`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clock {
    /// A column of the side.
    pub at: Expr,
    /// Nanoseconds to add to it: of a window, the last instant counts.
    pub shift: i64,
    /// Whose watermark.
    pub timeline: Timeline,
    /// Nanoseconds that the column trails it, as rows of another join do.
    pub lag: i64,
    /// The window that the column is a bound of, with its length in nanoseconds.
    pub window: Option<(String, i64)>,
}

/// Until when a row can match: a row is done with when `at + offset` is before the watermark of the other side (less its lag).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expiry {
    /// An instant worked out from the row.
    pub at: Expr,
    /// Nanoseconds to add to it.
    pub offset: i64,
    /// Whether a row for which `at` is NULL can match; it is never done with then.
    pub null_matches: bool,
}

/// What bounds the two sides of a join, left and right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// When a side's rows are done with.
    pub expiry: [Option<Expiry>; 2],
    /// What tells that a side's row is late. There where the other side's rows are done with some time.
    pub clock: [Option<Clock>; 2],
}

/// One thing that a condition says: rows of a side are done with, by the clock of the other.
struct Found {
    side: usize,
    expiry: Expiry,
    /// Of the other side.
    clock: Clock,
}

impl Bounds {
    /// What the conditions of a join between two plans say of time.
    pub fn of(on: &[(Expr, Expr)], filter: Option<&Expr>, null_equals_null: bool, inputs: [&LogicalPlan; 2]) -> Self {
        let mut found = vec![];
        for (left, right) in on {
            compare(left, Operator::Eq, right, null_equals_null, inputs, &mut found);
        }
        for condition in filter.into_iter().flat_map(split_conjunction) {
            match condition {
                Expr::BinaryExpr(BinaryExpr { left, op, right }) => compare(left, *op, right, false, inputs, &mut found),
                Expr::Between(Between { expr, negated: false, low, high }) => {
                    compare(expr, Operator::GtEq, low, false, inputs, &mut found);
                    compare(expr, Operator::LtEq, high, false, inputs, &mut found);
                }
                _ => {}
            }
        }
        let mut bounds = Self::default();
        for (side, input) in inputs.iter().enumerate() {
            // The side's own clock rather than any other instant: then both sides' bounds speak of the same columns.
            let own = |f: &&Found| clock_of(&f.expiry.at, input).is_none();
            if let Some(best) = found.iter().filter(|f| f.side == side).min_by_key(|f| (own(f), f.expiry.offset)) {
                bounds.expiry[side] = Some(best.expiry.clone());
                bounds.clock[1 - side] = Some(best.clock.clone());
            }
        }
        bounds
    }

    /// How the time of a side goes on above the join: a row that is still to come has `clock + shift >= watermark - lag`, by the watermark
    /// of both sides. `None`: old rows of the side may be joined for ever.
    pub fn above(&self, side: usize) -> Option<(&Clock, Timeline, i64)> {
        let (own, other, expiry) = (self.clock[side].as_ref()?, self.clock[1 - side].as_ref()?, self.expiry[side].as_ref()?);
        if expiry.at != own.at {
            return None;
        }
        let timeline = own.timeline.clone().and(other.timeline.clone())?;
        let by_the_other = other.lag.checked_add(expiry.offset)?.checked_sub(own.shift)?;
        Some((own, timeline, own.lag.max(by_the_other).max(0)))
    }

    /// What ends a side's rows, told.
    pub fn told(&self, side: usize) -> Option<String> {
        let (expiry, clock) = (self.expiry[side].as_ref()?, self.clock[1 - side].as_ref()?);
        Some(format!("when {} passes {expiry}{}", clock.timeline, if clock.lag > 0 { format!(" by {}", told(clock.lag)) } else { String::new() }))
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // The last nanosecond of a window, or before a bound that is not part of it, is nobody's concern.
        let ns = if self.offset.rem_euclid(1_000) == 999 { self.offset + 1 } else { self.offset };
        match ns {
            0 => write!(f, "{}", self.at.human_display()),
            ns => write!(f, "{} {} {}", self.at.human_display(), if ns > 0 { '+' } else { '-' }, told(ns)),
        }
    }
}

/// What follows a watermark in a column of a plan.
fn clock_of(expr: &Expr, plan: &LogicalPlan) -> Option<Clock> {
    let at = unaliased(expr);
    if !matches!(at, Expr::Column(_)) {
        return None;
    }
    let told = |timeline: &Timeline| *timeline == Timeline::Processing || lineage::tells_late_rows(plan);
    if let Ok(Followed { timeline, lag }) = lineage::timeline_of_expr(at, plan) {
        return told(&timeline).then(|| Clock { at: at.clone(), shift: 0, timeline, lag, window: None });
    }
    let window = lineage::window_of_expr(at, plan).ok().filter(|window| told(&window.timeline))?;
    Some(Clock { at: at.clone(), shift: window.to_end.checked_sub(1)?, timeline: window.timeline, lag: window.lag, window: Some((window.window, window.size)) })
}

/// A sum of at most one term of each side, with its sign, and a constant.
#[derive(Debug, Default)]
struct Sum {
    terms: [Option<(i64, Expr)>; 2],
    offset: i64,
    /// Durations were made intervals, which compare by days first and nanoseconds last.
    as_intervals: bool,
    has_days: bool,
}

/// `left op right`, solved for the right side: right is at most, or at least, left plus something.
fn compare(left: &Expr, op: Operator, right: &Expr, null_matches: bool, inputs: [&LogicalPlan; 2], found: &mut Vec<Found>) {
    let schemas = [inputs[0].schema().as_ref(), inputs[1].schema().as_ref()];
    let difference = sum_of(left, schemas).zip(sum_of(right, schemas)).and_then(|(left, right)| left.plus(right, -1));
    let Some(Sum { terms: [Some((left_sign, l)), Some((right_sign, r))], offset, as_intervals, has_days }) = difference else { return };
    if left_sign == right_sign || (as_intervals && has_days) {
        return;
    }
    // r - l + offset op 0
    let (op, offset) = if right_sign > 0 { (Some(op), Some(offset)) } else { (op.swap(), offset.checked_neg()) };
    let (Some(op), Some(offset)) = (op, offset) else { return };
    let at_most = |strict: i64| offset.checked_neg()?.checked_sub(strict);
    let at_least = |strict: i64| offset.checked_sub(strict);
    let (of_left, of_right) = match op {
        Operator::LtEq => (at_most(0), None),
        Operator::Lt => (at_most(1), None),
        Operator::GtEq => (None, at_least(0)),
        Operator::Gt => (None, at_least(1)),
        Operator::Eq => (at_most(0), at_least(0)),
        _ => (None, None),
    };
    let ats = [l, r];
    for (side, offset) in [of_left, of_right].into_iter().enumerate() {
        let Some(offset) = offset else { continue };
        let is_instant = matches!(ats[side].get_type(schemas[side]), Ok(DataType::Timestamp(..) | DataType::Date32 | DataType::Date64));
        if let Some(clock) = clock_of(&ats[1 - side], inputs[1 - side])
            && let Some(offset) = offset.checked_add(clock.shift)
            && is_instant
        {
            found.push(Found { side, expiry: Expiry { at: ats[side].clone(), offset, null_matches }, clock });
        }
    }
}

impl Sum {
    fn plus(self, other: Sum, sign: i64) -> Option<Sum> {
        let mut terms = self.terms;
        for (mine, theirs) in terms.iter_mut().zip(other.terms) {
            match (&mine, theirs) {
                (Some(_), Some(_)) => return None,
                (None, Some((s, expr))) => *mine = Some((s * sign, expr)),
                (_, None) => {}
            }
        }
        Some(Sum {
            terms,
            offset: self.offset.checked_add(other.offset.checked_mul(sign)?)?,
            as_intervals: self.as_intervals || other.as_intervals,
            has_days: self.has_days || other.has_days,
        })
    }
}

/// Which side all columns of an expression are of.
fn side_of(expr: &Expr, schemas: [&DFSchema; 2]) -> Option<usize> {
    let columns = expr.column_refs();
    let all = |side: usize| columns.iter().all(|c| schemas[side].has_column(c));
    match (columns.is_empty(), all(0), all(1)) {
        (false, true, false) => Some(0),
        (false, false, true) => Some(1),
        _ => None,
    }
}

/// An expression as a sum; one of a single side that is none stands for itself.
fn sum_of(expr: &Expr, schemas: [&DFSchema; 2]) -> Option<Sum> {
    let parts = match expr {
        Expr::Alias(alias) => return sum_of(&alias.expr, schemas),
        Expr::Literal(value, _) => return constant(value),
        Expr::Cast(cast) => {
            let side = side_of(&cast.expr, schemas);
            let from = match side {
                Some(side) => cast.expr.get_type(schemas[side]).ok(),
                // The difference of two times.
                None => matches!(cast.expr.as_ref(), Expr::BinaryExpr(b) if b.op == Operator::Minus).then_some(DataType::Duration(TimeUnit::Nanosecond)),
            };
            match (from, cast.field.data_type()) {
                (Some(DataType::Timestamp(from, zone)), DataType::Timestamp(to, other))
                    if from <= *to && is_utc(zone.as_deref()) && is_utc(other.as_deref()) =>
                {
                    sum_of(&cast.expr, schemas)
                }
                (Some(DataType::Duration(_)), DataType::Interval(IntervalUnit::MonthDayNano)) => {
                    sum_of(&cast.expr, schemas).map(|sum| Sum { as_intervals: true, ..sum })
                }
                (Some(DataType::Duration(from)), DataType::Duration(to)) if from <= *to => sum_of(&cast.expr, schemas),
                _ => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
            let sign = if *op == Operator::Plus { 1 } else { -1 };
            let sum = sum_of(left, schemas).zip(sum_of(right, schemas)).and_then(|(left, right)| left.plus(right, sign));
            // A day is not always 24 hours long where clocks are set.
            sum.filter(|sum| !sum.has_days || sum.terms.iter().flatten().all(|(_, term)| in_utc(term, schemas)))
        }
        _ => None,
    };
    parts.or_else(|| {
        let mut sum = Sum::default();
        sum.terms[side_of(expr, schemas)?] = Some((1, expr.clone()));
        Some(sum)
    })
}

fn is_utc(zone: Option<&str>) -> bool {
    zone.is_none_or(|zone| matches!(zone, "UTC" | "+00:00" | "Z"))
}

fn in_utc(term: &Expr, schemas: [&DFSchema; 2]) -> bool {
    let Some(side) = side_of(term, schemas) else { return false };
    match term.get_type(schemas[side]) {
        Ok(DataType::Timestamp(_, zone)) => is_utc(zone.as_deref()),
        _ => true,
    }
}

fn constant(value: &ScalarValue) -> Option<Sum> {
    let has_days = match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => interval.days != 0,
        ScalarValue::IntervalDayTime(Some(interval)) => interval.days != 0,
        _ => false,
    };
    Some(Sum { offset: interval_ns(value)?, has_days, ..Sum::default() })
}
