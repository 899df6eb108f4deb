//! Rows as JSON. NULL is left out. A column's path makes the objects around it.

use std::{collections::BTreeMap, io::Write};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type,
        UInt16Type, UInt32Type, UInt64Type,
    },
};

use chrono::{Datelike, Timelike};

use super::{RowWriter, WrittenColumn, Wrong};
use crate::{catalog::TimeFormat, error::Result};

/// Room for a usual row, so that it is written without being moved.
const USUAL: usize = 256;

/// Writes an object a row.
#[derive(Debug)]
pub(super) struct JsonWriter {
    object: Object,
}

/// Writes the one column of a key as text: what stands between the quotes, if JSON would have some.
#[derive(Debug)]
pub(super) struct TextWriter {
    at: usize,
    time: TimeFormat,
}

/// An object of JSON as columns fill it.
#[derive(Debug, Default)]
struct Object {
    fields: BTreeMap<String, Member>,
}

/// What a name of an object stands before.
#[derive(Debug)]
struct Member {
    /// The name as it is written, with the colon.
    name: Vec<u8>,
    field: Field,
}

#[derive(Debug)]
enum Field {
    /// The column at this position.
    Column(usize, TimeFormat),
    Object(Object),
}

impl JsonWriter {
    /// Of these columns.
    pub(super) fn new(owner: &str, columns: &[WrittenColumn]) -> Result<Self> {
        let mut object = Object::default();
        for column in columns {
            object.put(&column.path, column).map_err(|()| column.clash(owner))?;
        }
        Ok(Self { object })
    }
}

impl RowWriter for JsonWriter {
    fn write(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<u8>, Wrong> {
        let mut out = Vec::with_capacity(USUAL);
        self.object.write(&mut out, columns, row)?;
        Ok(out)
    }
}

impl TextWriter {
    /// Of this column.
    pub(super) fn new(column: &WrittenColumn) -> Self {
        Self { at: column.at, time: column.time.clone() }
    }
}

impl RowWriter for TextWriter {
    fn write(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<u8>, Wrong> {
        plain_text(&columns[self.at], row, &self.time).map(String::into_bytes).map_err(|why| Wrong { column: self.at, why })
    }
}

/// A value that is not NULL as text: what stands between the quotes, if JSON would have some.
pub(super) fn plain_text(array: &ArrayRef, row: usize, time: &TimeFormat) -> Result<String, String> {
    let mut out = vec![];
    write(&mut out, array, row, time)?;
    match out.first() {
        Some(b'"') => serde_json::from_slice(&out).map_err(|error| error.to_string()),
        _ => String::from_utf8(out).map_err(|error| error.to_string()),
    }
}

impl Object {
    fn put(&mut self, path: &[String], column: &WrittenColumn) -> Result<(), ()> {
        match path {
            [] => Err(()),
            [last] => match self.fields.insert(last.clone(), Member::new(last, Field::Column(column.at, column.time.clone()))) {
                None => Ok(()),
                Some(_) => Err(()),
            },
            [first, rest @ ..] => match &mut self.fields.entry(first.clone()).or_insert_with(|| Member::new(first, Field::Object(Self::default()))).field {
                Field::Object(inner) => inner.put(rest, column),
                Field::Column(..) => Err(()),
            },
        }
    }

    /// Writes the object; whether anything is in it.
    fn write(&self, out: &mut Vec<u8>, columns: &[ArrayRef], row: usize) -> Result<bool, Wrong> {
        out.push(b'{');
        let empty = out.len();
        for Member { name, field } in self.fields.values() {
            if matches!(field, Field::Column(at, _) if columns[*at].is_null(row)) {
                continue;
            }
            let before = out.len();
            if before > empty {
                out.push(b',');
            }
            out.extend_from_slice(name);
            match field {
                Field::Column(at, time) => write(out, &columns[*at], row, time).map_err(|why| Wrong { column: *at, why })?,
                Field::Object(inner) => {
                    if !inner.write(out, columns, row)? {
                        out.truncate(before);
                    }
                }
            }
        }
        let anything = out.len() > empty;
        out.push(b'}');
        Ok(anything)
    }
}

impl Member {
    fn new(name: &str, field: Field) -> Self {
        let mut written = vec![];
        text(&mut written, name);
        written.push(b':');
        Self { name: written, field }
    }
}

/// Writes a value that is not NULL as JSON; an error says why it can't be.
fn write(out: &mut Vec<u8>, array: &ArrayRef, row: usize, time: &TimeFormat) -> Result<(), String> {
    macro_rules! number {
        ($t:ty) => {
            out.extend_from_slice(itoa::Buffer::new().format(array.as_primitive::<$t>().value(row)).as_bytes())
        };
    }
    match array.data_type() {
        DataType::Boolean => out.extend(if array.as_boolean().value(row) { b"true".as_slice() } else { b"false" }),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => float(out, array.as_primitive::<Float32Type>().value(row))?,
        DataType::Float64 => float(out, array.as_primitive::<Float64Type>().value(row))?,
        DataType::Decimal128(..) => out.extend(array.as_primitive::<Decimal128Type>().value_as_string(row).into_bytes()),
        DataType::Decimal256(..) => out.extend(array.as_primitive::<Decimal256Type>().value_as_string(row).into_bytes()),
        DataType::Utf8View => text(out, array.as_string_view().value(row)),
        DataType::Utf8 => text(out, array.as_string::<i32>().value(row)),
        DataType::Binary => match std::str::from_utf8(array.as_binary::<i32>().value(row)) {
            Ok(utf8) => text(out, utf8),
            Err(_) => return Err("its bytes are no UTF-8, and JSON has only text".into()),
        },
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>().value(row);
            let date = chrono::NaiveDate::from_epoch_days(days).filter(|date| (0..=9999).contains(&date.year()));
            match date {
                Some(date) => text(out, &date.format("%Y-%m-%d").to_string()),
                None => return Err("its date lies outside the years 0 to 9999".into()),
            }
        }
        DataType::Timestamp(unit, _) => timestamp(out, arrow_count(array, row), *unit, time)?,
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            out.push(b'[');
            for item in 0..items.len() {
                if item > 0 {
                    out.push(b',');
                }
                match items.is_null(item) {
                    true => out.extend(b"null"),
                    false => write(out, &items, item, time)?,
                }
            }
            out.push(b']');
        }
        DataType::Struct(fields) => {
            let parts = array.as_struct();
            out.push(b'{');
            let mut first = true;
            for (field, part) in fields.iter().zip(parts.columns()).filter(|(_, part)| part.is_valid(row)) {
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                text(out, field.name());
                out.push(b':');
                write(out, part, row, &TimeFormat::Rfc3339)?;
            }
            out.push(b'}');
        }
        other => return Err(format!("{other} can't be written as JSON")),
    }
    Ok(())
}

fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text has a form in JSON, and memory takes it");
}

fn put(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    write!(out, "{number}").expect("memory takes what is written");
}

fn float<T: Copy + Into<f64> + serde::Serialize>(out: &mut Vec<u8>, value: T) -> Result<(), String> {
    match value.into().is_finite() {
        true => serde_json::to_writer(out, &value).map_err(|error| error.to_string()),
        false => Err(format!("{} can't be written as JSON, which has no such number", value.into())),
    }
}

/// A timestamp as the count that it is.
fn arrow_count(array: &ArrayRef, row: usize) -> i64 {
    use arrow::datatypes::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType};
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => array.as_primitive::<TimestampSecondType>().value(row),
        DataType::Timestamp(TimeUnit::Millisecond, _) => array.as_primitive::<TimestampMillisecondType>().value(row),
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().value(row),
        _ => array.as_primitive::<TimestampNanosecondType>().value(row),
    }
}

/// A timestamp as a count, and how many of its unit make a second, as a power of ten.
pub(super) fn count_of(array: &ArrayRef, row: usize, unit: TimeUnit) -> (i64, u32) {
    (arrow_count(array, row), digits_of(unit))
}

fn digits_of(unit: TimeUnit) -> u32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

fn timestamp(out: &mut Vec<u8>, count: i64, unit: TimeUnit, format: &TimeFormat) -> Result<(), String> {
    let digits = digits_of(unit);
    let wanted: u32 = match format {
        TimeFormat::EpochSeconds => 0,
        TimeFormat::EpochMillis => 3,
        TimeFormat::EpochMicros => 6,
        // An offset in the text counts, whatever the zone of the column.
        TimeFormat::Rfc3339 | TimeFormat::Local(_) => {
            let second = 10i64.pow(digits);
            let nanos = count.rem_euclid(second) * 10i64.pow(9 - digits);
            let moment = chrono::DateTime::from_timestamp(count.div_euclid(second), nanos as u32).filter(|m| (0..=9999).contains(&m.year()));
            return match moment {
                Some(moment) => {
                    out.push(b'"');
                    rfc3339(out, &moment.naive_utc());
                    out.push(b'"');
                    Ok(())
                }
                None => Err("its time lies outside the years 0 to 9999".into()),
            };
        }
    };
    if wanted >= digits {
        put(out, i128::from(count) * 10i128.pow(wanted - digits));
        return Ok(());
    }
    let step = 10u64.pow(digits - wanted);
    let (whole, rest) = (count.unsigned_abs() / step, count.unsigned_abs() % step);
    let sign = if count < 0 { "-" } else { "" };
    let fraction = match rest {
        0 => String::new(),
        rest => format!(".{rest:0width$}", width = (digits - wanted) as usize).trim_end_matches('0').to_string(),
    };
    put(out, format_args!("{sign}{whole}{fraction}"));
    Ok(())
}

/// A moment of the years 0 to 9999 in UTC, with as many digits of its second as it needs, in threes: what `to_rfc3339_opts` makes of it, without its
/// formatting machinery, which took most of the time of a row.
fn rfc3339(out: &mut Vec<u8>, moment: &chrono::NaiveDateTime) {
    let year = moment.year() as u32;
    let [high, low] = [year / 100, year % 100].map(two_digits);
    let [month, day, hour, minute, second] = [moment.month(), moment.day(), moment.hour(), moment.minute(), moment.second()].map(two_digits);
    let whole = [
        high[0], high[1], low[0], low[1], b'-', month[0], month[1], b'-', day[0], day[1], b'T', hour[0], hour[1], b':', minute[0], minute[1], b':', second[0],
        second[1],
    ];
    out.extend_from_slice(&whole);
    let nanos = moment.nanosecond();
    if nanos != 0 {
        out.push(b'.');
        let threes = [nanos / 1_000_000, nanos / 1000 % 1000, nanos % 1000];
        let last = threes.iter().rposition(|three| *three != 0).unwrap_or(0);
        for three in &threes[..=last] {
            let [tens, ones] = two_digits(three % 100);
            out.extend_from_slice(&[b'0' + (three / 100) as u8, tens, ones]);
        }
    }
    out.push(b'Z');
}

fn two_digits(number: u32) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Float64Array, ListArray, StringViewArray};
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn time(count: i64, unit: TimeUnit, format: TimeFormat) -> Result<String, String> {
        let mut out = vec![];
        timestamp(&mut out, count, unit, &format).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn times_are_written_as_the_column_says() {
        use TimeFormat::*;
        assert_eq!(time(1_500, TimeUnit::Millisecond, Rfc3339).unwrap(), "\"1970-01-01T00:00:01.500Z\"");
        assert_eq!(time(-1, TimeUnit::Nanosecond, Local(chrono_tz::Europe::Madrid)).unwrap(), "\"1969-12-31T23:59:59.999999999Z\"");
        assert_eq!(time(1_234_567_890, TimeUnit::Nanosecond, EpochMillis).unwrap(), "1234.56789");
        assert_eq!(time(-1_500, TimeUnit::Millisecond, EpochSeconds).unwrap(), "-1.5");
        assert_eq!(time(-500, TimeUnit::Millisecond, EpochSeconds).unwrap(), "-0.5");
        assert_eq!(time(i64::MIN, TimeUnit::Second, EpochMicros).unwrap(), "-9223372036854775808000000");
        assert_eq!(time(7, TimeUnit::Second, EpochSeconds).unwrap(), "7");
        assert!(time(i64::MAX, TimeUnit::Second, Rfc3339).is_err());
        assert!(time(i64::MAX, TimeUnit::Nanosecond, Rfc3339).is_ok());
    }

    #[test]
    fn moments_are_written_as_chrono_writes_them() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for round in 0..20_000 {
            let seconds = random.random_range(-62_167_219_200i64..253_402_300_800);
            // Whole seconds, milliseconds, microseconds and nanoseconds.
            let unit = [1_000_000_000, 1_000_000, 1_000, 1][round % 4];
            let nanos = random.random_range(0..1_000_000_000u32) / unit * unit;
            let moment = chrono::DateTime::from_timestamp(seconds, nanos).unwrap();
            let mut out = vec![];
            rfc3339(&mut out, &moment.naive_utc());
            assert_eq!(String::from_utf8(out).unwrap(), moment.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
        }
    }

    #[test]
    fn values_are_json() {
        let written = |array: ArrayRef, row: usize| {
            let mut out = vec![];
            write(&mut out, &array, row, &TimeFormat::Rfc3339).map(|()| String::from_utf8(out).unwrap())
        };
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["a \"b\"\n\u{1}ä", ""]));
        assert_eq!(written(texts.clone(), 0).unwrap(), "\"a \\\"b\\\"\\n\\u0001ä\"");
        assert_eq!(written(texts, 1).unwrap(), "\"\"");
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1e300, 0.1, f64::NAN, f64::NEG_INFINITY]));
        assert_eq!(written(floats.clone(), 0).unwrap().parse::<f64>().unwrap(), 1e300);
        assert_eq!(written(floats.clone(), 1).unwrap(), "0.1");
        assert!(written(floats.clone(), 2).is_err() && written(floats, 3).is_err());
        let decimals: ArrayRef = Arc::new(Decimal128Array::from(vec![-5, 12_345]).with_precision_and_scale(10, 2).unwrap());
        assert_eq!((written(decimals.clone(), 0).unwrap(), written(decimals, 1).unwrap()), ("-0.05".to_string(), "123.45".to_string()));
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), Some(vec![])]));
        assert_eq!((written(list.clone(), 0).unwrap(), written(list, 1).unwrap()), ("[1,null]".to_string(), "[]".to_string()));
    }
}
