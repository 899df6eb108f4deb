//! A plain value as a format has it.

use arrow::datatypes::TimeUnit;

use super::super::{number, quote::shorten, time::digits_of};

/// A plain value as a format has it, borrowed from the payload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::decode) enum Natural<'a> {
    Bool(bool),
    /// An integer of any width.
    Int(i128),
    /// A number with a binary exponent.
    Float(f32),
    /// The same in double precision.
    Double(f64),
    /// A decimal number: digits, and how many of them stand after the point.
    Decimal(i128, i32),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Days since 1970.
    Date(i32),
    /// A count since 1970.
    Timestamp(i64, TimeUnit),
    /// A count since midnight.
    TimeOfDay(i64, TimeUnit),
}

impl Natural<'_> {
    /// The value as an integer, if it is one.
    pub(super) fn integer(&self) -> Option<i128> {
        match self {
            Natural::Int(value) => Some(*value),
            Natural::Decimal(digits, scale) => rescale(*digits, *scale, 0),
            _ => None,
        }
    }

    /// The value with so many digits after the point, if it needs no rounding.
    pub(super) fn scaled(&self, scale: i32) -> Option<i128> {
        match self {
            Natural::Int(value) => rescale(*value, 0, scale),
            Natural::Decimal(digits, has) => rescale(*digits, *has, scale),
            Natural::Text(text) => number::Number::parse(text.as_bytes())?.scaled(scale.into()),
            _ => None,
        }
    }

    /// The nearest double.
    pub(super) fn double(&self) -> Option<f64> {
        match self {
            Natural::Int(value) => Some(*value as f64),
            Natural::Float(value) => Some((*value).into()),
            Natural::Double(value) => Some(*value),
            // The parser rounds once.
            Natural::Decimal(digits, scale) => format!("{digits}e{}", -i64::from(*scale)).parse().ok().filter(|value: &f64| value.is_finite()),
            _ => None,
        }
    }

    /// The nearest float; `None` if it lies beyond all floats.
    pub(super) fn float(&self) -> Option<f32> {
        match self {
            Natural::Float(value) => Some(*value),
            Natural::Int(value) => Some(*value as f32),
            Natural::Decimal(digits, scale) => format!("{digits}e{}", -i64::from(*scale)).parse().ok().filter(|value: &f32| value.is_finite()),
            _ => {
                let double = self.double()?;
                let single = double as f32;
                // What is infinite or no number stays so; what becomes infinite doesn't fit.
                (single.is_finite() || !double.is_finite()).then_some(single)
            }
        }
    }

    /// The value as text: what stands between the quotes, if JSON would have some. `None` for bytes that are no text.
    pub(in crate::decode) fn written(&self) -> Option<String> {
        Some(match self {
            Natural::Bool(value) => value.to_string(),
            Natural::Int(value) => value.to_string(),
            Natural::Float(value) => value.to_string(),
            Natural::Double(value) => value.to_string(),
            Natural::Decimal(digits, scale) => written_decimal(*digits, *scale),
            Natural::Text(text) => (*text).into(),
            Natural::Bytes(_) => return None,
            Natural::Date(days) => match chrono::NaiveDate::from_epoch_days(*days) {
                Some(date) => date.to_string(),
                None => format!("day {days} since 1970"),
            },
            Natural::Timestamp(count, unit) => {
                let each = 10i64.pow(digits_of(*unit));
                let nanos = count.rem_euclid(each) * (1_000_000_000 / each);
                match chrono::DateTime::from_timestamp(count.div_euclid(each), nanos as u32) {
                    Some(moment) => moment.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
                    None => format!("{count} {} since 1970", unit_name(*unit)),
                }
            }
            Natural::TimeOfDay(count, unit) => {
                let each = 10i64.pow(digits_of(*unit));
                let (seconds, nanos) = (count.div_euclid(each), count.rem_euclid(each) * (1_000_000_000 / each));
                let time = u32::try_from(seconds).ok().and_then(|seconds| chrono::NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos as u32));
                match time {
                    Some(time) => time.to_string(),
                    None => format!("{count} {} since midnight", unit_name(*unit)),
                }
            }
        })
    }

    /// Why it is no value of a column: the end of a sentence that begins with the column's name.
    pub(super) fn misfit(&self, expected: &str) -> String {
        format!("has {} where {expected} is expected", self.shown())
    }

    fn shown(&self) -> String {
        match (self, self.written()) {
            (Natural::Bytes(bytes), _) => format!("{} bytes", bytes.len()),
            (Natural::Text(_), Some(text)) => shorten(format!("\"{text}\"").as_bytes()).into_owned(),
            (_, text) => shorten(text.unwrap_or_default().as_bytes()).into_owned(),
        }
    }
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

/// Digits with another number of them after the point; `None` if that needs rounding or more than 38 of them.
fn rescale(digits: i128, has: i32, wanted: i32) -> Option<i128> {
    if digits == 0 {
        return Some(0);
    }
    let more = i64::from(wanted) - i64::from(has);
    let power = 10i128.checked_pow(u32::try_from(more.abs()).ok()?)?;
    let scaled = if more >= 0 { digits.checked_mul(power)? } else { (digits % power == 0).then(|| digits / power)? };
    (scaled.unsigned_abs() < 10u128.pow(38)).then_some(scaled)
}

fn written_decimal(digits: i128, scale: i32) -> String {
    let sign = if digits < 0 { "-" } else { "" };
    let text = digits.unsigned_abs().to_string();
    match usize::try_from(scale) {
        Ok(0) => format!("{sign}{text}"),
        Ok(scale) if scale <= 76 => {
            let text = format!("{text:0>width$}", width = scale + 1);
            let (whole, fraction) = text.split_at(text.len() - scale);
            format!("{sign}{whole}.{fraction}")
        }
        _ => format!("{sign}{text}e{}", -i64::from(scale)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        assert_eq!(rescale(125, 2, 3), Some(1250));
        assert_eq!(rescale(1250, 3, 2), Some(125));
        assert_eq!(rescale(125, 2, 1), None);
        assert_eq!(rescale(0, 5, 0), Some(0));
        assert_eq!(rescale(i128::MAX, 0, 1), None);
        assert_eq!(rescale(10i128.pow(38), 0, 0), None);
        assert_eq!(written_decimal(-5, 2), "-0.05");
        assert_eq!(written_decimal(12_345, 2), "123.45");
        assert_eq!(written_decimal(7, 0), "7");
        assert_eq!(Natural::Decimal(1, 1).double(), Some(0.1));
    }

    #[test]
    fn values_are_written_as_people_read_them() {
        let written = |value: Natural<'_>| value.written().unwrap();
        assert_eq!(written(Natural::Timestamp(1_500, TimeUnit::Millisecond)), "1970-01-01T00:00:01.500Z");
        assert_eq!(written(Natural::Timestamp(-1, TimeUnit::Microsecond)), "1969-12-31T23:59:59.999999Z");
        assert_eq!(written(Natural::Date(0)), "1970-01-01");
        assert_eq!(written(Natural::TimeOfDay(3_661_000, TimeUnit::Millisecond)), "01:01:01");
        assert_eq!(written(Natural::TimeOfDay(-1, TimeUnit::Microsecond)), "-1 us since midnight");
        assert_eq!(Natural::Text("a\nb").misfit("INT"), "has \"a b\" where INT is expected");
        assert_eq!(Natural::Bytes(&[0, 255]).misfit("INT"), "has 2 bytes where INT is expected");
        assert!(written(Natural::Timestamp(i64::MAX, TimeUnit::Second)).ends_with("s since 1970"));
    }
}
