//! Lengths of time: `INTERVAL …` in a query or a watermark, and durations in options.

use std::time::Duration;

use arrow::compute::kernels::cast_utils::{IntervalParseConfig, IntervalUnit, parse_interval_month_day_nano_config};
use datafusion::{
    scalar::ScalarValue,
    sql::sqlparser::ast::{Expr, Interval, UnaryOperator, Value, ValueWithSpan},
};
use tidegate_udfs::window::interval_ns;

use crate::error::{Error, Result};

/// The length of an `INTERVAL` literal in nanoseconds, read as DataFusion reads it. `what` names the thing in messages.
pub(super) fn literal_ns(what: &str, expr: &Expr) -> Result<i64> {
    let form = || Error::Invalid(format!("{what} is written as INTERVAL '1 minute' or INTERVAL '1' MINUTE, not {expr}"));
    let Expr::Interval(interval) = expr else { return Err(form()) };
    let Interval { value, leading_field, leading_precision: None, last_field: None, fractional_seconds_precision: None } = interval else {
        return Err(form());
    };
    let amount = amount(value).ok_or_else(form)?;
    let text = match leading_field {
        Some(unit) => format!("{amount} {unit}"),
        None => amount,
    };
    text_ns(what, &text, IntervalUnit::Second)
}

fn amount(value: &Expr) -> Option<String> {
    match value {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text.clone()),
        Expr::Value(ValueWithSpan { value: Value::Number(number, false), .. }) => Some(number.to_string()),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match amount(expr)? {
            text if text.starts_with('-') => None,
            text => Some(format!("-{text}")),
        },
        _ => None,
    }
}

fn text_ns(what: &str, text: &str, default: IntervalUnit) -> Result<i64> {
    let value = parse_interval_month_day_nano_config(text, IntervalParseConfig::new(default))
        .map_err(|_| Error::Invalid(format!("{what} of '{text}' is no length of time: write a number and a unit, like '30 seconds' or '1 day'")))?;
    interval_ns(&ScalarValue::IntervalMonthDayNano(Some(value))).ok_or_else(|| match value.months {
        0 => Error::Invalid(format!("{what} of '{text}' is too long: at most 292 years fit")),
        _ => Error::Invalid(format!("{what} of '{text}' has months or years, which have no fixed length: write days")),
    })
}

/// A length as Spark writes it, `'10 minutes'`, or an `INTERVAL` literal; as an `INTERVAL` literal.
pub(super) fn spark(what: &str, expr: &Expr) -> Result<Expr> {
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = expr else {
        literal_ns(what, expr)?;
        return Ok(expr.clone());
    };
    if !text.chars().any(char::is_alphabetic) {
        return Err(Error::Invalid(format!("{what} needs a unit: write '{text} seconds'")));
    }
    text_ns(what, text, IntervalUnit::Second)?;
    let literal =
        Interval { value: Box::new(expr.clone()), leading_field: None, leading_precision: None, last_field: None, fractional_seconds_precision: None };
    Ok(Expr::Interval(literal))
}

/// A duration in an option, like `'30 seconds'`; positive.
pub fn option(what: &str, text: &str) -> Result<Duration> {
    if !text.chars().any(char::is_alphabetic) {
        return Err(Error::Invalid(format!("{what} needs a unit: write '{text} seconds'")));
    }
    match u64::try_from(text_ns(what, text, IntervalUnit::Second)?) {
        Ok(ns) if ns > 0 => Ok(Duration::from_nanos(ns)),
        _ => Err(Error::Invalid(format!("{what} must be longer than nothing, not '{text}'"))),
    }
}
