//! Rows as records of a source or a sink: JSON that the source's own declaration reads back as the same values.
//!
//! NULL is left out. A column's path makes the objects around it. The columns of a primary key make the record's key, too.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Decimal256Type, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type,
        UInt16Type, UInt32Type, UInt64Type,
    },
    record_batch::RecordBatch,
};

use crate::{
    catalog::{ColumnDef, KeyFormat, Origin, SourceDef, TimeFormat},
    error::{Error, Result},
};

/// A record to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its payload; `None`: a tombstone.
    pub payload: Option<Vec<u8>>,
}

/// Makes records of rows of some of a source's columns.
#[derive(Debug)]
pub struct RecordEncoder {
    /// Whose records they are, as in "source events".
    owner: String,
    /// The columns of the batches.
    columns: Vec<ColumnDef>,
    payload: Object,
    key: Option<(KeyFormat, Object)>,
    /// The columns of the key as positions in `columns`.
    key_columns: Vec<usize>,
    /// The column of event time as a position in `columns`; a record without one would be an error row.
    time_column: Option<usize>,
    /// How many rows came before, to say which one is wrong.
    before: u64,
}

/// An object of JSON as columns fill it.
#[derive(Debug, Default)]
struct Object {
    fields: BTreeMap<String, Field>,
}

#[derive(Debug)]
enum Field {
    /// The column at this position.
    Column(usize),
    Object(Object),
}

impl RecordEncoder {
    /// For rows of these columns, as positions in the source's declaration.
    pub fn new(source: &SourceDef, columns: &[usize]) -> Result<Self> {
        let name = &source.name;
        let mut payload = Object::default();
        let taken: Vec<ColumnDef> = columns.iter().map(|&at| source.columns[at].clone()).collect();
        for (at, column) in taken.iter().enumerate() {
            let Origin::Payload { path, .. } = &column.origin else { return Err(not_written(name, &column.name)) };
            payload.put(path, at).map_err(|()| clash(name, &column.name))?;
        }
        let mut key_columns = vec![];
        let key = match &source.key {
            None => None,
            Some(key) => {
                let mut object = Object::default();
                for &column in &key.columns {
                    let column = &source.columns[column];
                    let at = taken.iter().position(|taken| taken.name == column.name).ok_or_else(|| {
                        Error::Invalid(format!("column {} is part of the primary key of source {name}: give it a value in every row", column.name))
                    })?;
                    let Origin::Payload { path, .. } = &column.origin else { return Err(not_written(name, &column.name)) };
                    object.put(path, at).map_err(|()| clash(name, &column.name))?;
                    key_columns.push(at);
                }
                Some((key.format, object))
            }
        };
        Ok(Self { owner: format!("source {name}"), columns: taken, payload, key, key_columns, time_column: None, before: 0 })
    }

    /// For rows of a sink: an object of these columns, and under these positions those of the key, whose values may be NULL.
    pub fn of_sink(sink: &str, fields: &Fields, key: Option<(KeyFormat, &[usize])>) -> Result<Self> {
        let column = |field: &Arc<arrow::datatypes::Field>| {
            let origin = Origin::Payload { path: vec![field.name().clone()], time: TimeFormat::Rfc3339 };
            ColumnDef { name: field.name().clone(), data_type: field.data_type().clone(), origin }
        };
        let columns: Vec<ColumnDef> = fields.iter().map(column).collect();
        let object = |positions: &mut dyn Iterator<Item = usize>| {
            let mut object = Object::default();
            for at in positions {
                let name = &columns[at].name;
                object
                    .put(std::slice::from_ref(name), at)
                    .map_err(|()| Error::Invalid(format!("sink {sink} would have two columns called {name}: rename one, as in SELECT a AS b")))?;
            }
            Ok::<_, Error>(object)
        };
        let payload = object(&mut (0..columns.len()))?;
        let key = key.map(|(format, positions)| Ok::<_, Error>((format, positions, object(&mut positions.iter().copied())?))).transpose()?;
        let text_column = key.as_ref().filter(|(format, ..)| *format == KeyFormat::Text).and_then(|(_, positions, _)| positions.first().copied());
        let key = key.map(|(format, _, object)| (format, object));
        // A key of text has no way to say NULL.
        Ok(Self { owner: format!("sink {sink}"), columns, payload, key, key_columns: text_column.into_iter().collect(), time_column: None, before: 0 })
    }

    /// The same for whole rows: a record of a source with a watermark needs its time.
    pub fn of_rows(source: &SourceDef, columns: &[usize]) -> Result<Self> {
        let encoder = Self::new(source, columns)?;
        let time = source.watermark.as_ref().and_then(|watermark| source.columns.iter().find(|column| column.name == watermark.column));
        let Some(ColumnDef { name, origin: Origin::Payload { .. }, .. }) = time else { return Ok(encoder) };
        match encoder.columns.iter().position(|column| column.name == *name) {
            Some(at) => Ok(Self { time_column: Some(at), ..encoder }),
            None => Err(Error::Invalid(format!("column {name} is the watermark's of source {}: give it a value in every row", source.name))),
        }
    }

    /// A record for each row. The batch has the encoder's columns in their declared types.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<Outgoing>> {
        let records = self.records(batch, true)?;
        self.before += batch.num_rows() as u64;
        Ok(records)
    }

    /// A tombstone for each row.
    pub fn tombstones(&mut self, batch: &RecordBatch) -> Result<Vec<Outgoing>> {
        self.records(batch, false)
    }

    fn records(&self, batch: &RecordBatch, with_payload: bool) -> Result<Vec<Outgoing>> {
        let columns = batch.columns();
        (0..batch.num_rows())
            .map(|row| {
                let wrong = |(column, why): (usize, String)| {
                    Error::Invalid(format!("column {} of {} in row {}: {why}", self.columns[column].name, self.owner, self.before + row as u64 + 1))
                };
                if let Some(null) = self.key_columns.iter().find(|at| columns[**at].is_null(row)) {
                    return Err(wrong((*null, "it is part of the key and can't be NULL".into())));
                }
                if let Some(time) = self.time_column.filter(|at| columns[*at].is_null(row)) {
                    return Err(wrong((time, "it is the watermark's and can't be NULL".into())));
                }
                let key = match &self.key {
                    None => None,
                    Some((KeyFormat::Text, _)) => Some(self.key_text(columns, row).map_err(wrong)?),
                    Some((KeyFormat::Json, object)) => Some(self.object(object, columns, row).map_err(wrong)?.unwrap_or_else(|| b"{}".to_vec())),
                };
                let payload = match with_payload {
                    true => Some(self.object(&self.payload, columns, row).map_err(wrong)?.unwrap_or_else(|| b"{}".to_vec())),
                    false => None,
                };
                Ok(Outgoing { key, payload })
            })
            .collect()
    }

    /// A key of one column as text: what stands between the quotes, if JSON would have some.
    fn key_text(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<u8>, (usize, String)> {
        let at = self.key_columns[0];
        let mut out = vec![];
        write(&mut out, &columns[at], row, self.time(at)).map_err(|why| (at, why))?;
        if out.first() != Some(&b'"') {
            return Ok(out);
        }
        let text: String = serde_json::from_slice(&out).map_err(|error| (at, error.to_string()))?;
        Ok(text.into_bytes())
    }

    /// An object; `None` if nothing is in it.
    fn object(&self, object: &Object, columns: &[ArrayRef], row: usize) -> Result<Option<Vec<u8>>, (usize, String)> {
        let mut out = vec![b'{'];
        for (name, field) in &object.fields {
            let value = match field {
                Field::Column(at) if columns[*at].is_null(row) => continue,
                Field::Column(at) => {
                    let mut value = vec![];
                    write(&mut value, &columns[*at], row, self.time(*at)).map_err(|why| (*at, why))?;
                    value
                }
                Field::Object(inner) => match self.object(inner, columns, row)? {
                    Some(value) => value,
                    None => continue,
                },
            };
            if out.len() > 1 {
                out.push(b',');
            }
            text(&mut out, name);
            out.push(b':');
            out.extend(value);
        }
        out.push(b'}');
        Ok((out.len() > 2).then_some(out))
    }

    fn time(&self, column: usize) -> &TimeFormat {
        match &self.columns[column].origin {
            Origin::Payload { time, .. } => time,
            Origin::Metadata(_) => &TimeFormat::Rfc3339,
        }
    }
}

/// A column that no record can be given.
pub fn not_written(source: &str, column: &str) -> Error {
    Error::Invalid(format!("column {column} of source {source} is METADATA, which the broker gives its records: leave it out, and name the other columns"))
}

fn clash(source: &str, column: &str) -> Error {
    Error::Unsupported(format!("column {column} of source {source} and another column stand at one path, or one within the other: give a value to one of them"))
}

impl Object {
    fn put(&mut self, path: &[String], column: usize) -> Result<(), ()> {
        match path {
            [] => Err(()),
            [last] => match self.fields.insert(last.clone(), Field::Column(column)) {
                None => Ok(()),
                Some(_) => Err(()),
            },
            [first, rest @ ..] => match self.fields.entry(first.clone()).or_insert_with(|| Field::Object(Self::default())) {
                Field::Object(inner) => inner.put(rest, column),
                Field::Column(_) => Err(()),
            },
        }
    }
}

/// Writes a value that is not NULL as JSON; an error says why it can't be.
fn write(out: &mut Vec<u8>, array: &ArrayRef, row: usize, time: &TimeFormat) -> Result<(), String> {
    macro_rules! number {
        ($t:ty) => {
            out.extend(array.as_primitive::<$t>().value(row).to_string().into_bytes())
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
            let date = chrono::NaiveDate::from_epoch_days(days).filter(|date| (0..=9999).contains(&chrono::Datelike::year(date)));
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
    out.extend(serde_json::Value::from(text).to_string().into_bytes());
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

fn timestamp(out: &mut Vec<u8>, count: i64, unit: TimeUnit, format: &TimeFormat) -> Result<(), String> {
    let digits: u32 = match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    let wanted: u32 = match format {
        TimeFormat::EpochSeconds => 0,
        TimeFormat::EpochMillis => 3,
        TimeFormat::EpochMicros => 6,
        // An offset in the text counts, whatever the zone of the column.
        TimeFormat::Rfc3339 | TimeFormat::Local(_) => {
            let second = 10i64.pow(digits);
            let nanos = count.rem_euclid(second) * 10i64.pow(9 - digits);
            let moment = chrono::DateTime::from_timestamp(count.div_euclid(second), nanos as u32).filter(|m| (0..=9999).contains(&chrono::Datelike::year(m)));
            return match moment {
                Some(moment) => {
                    text(out, &moment.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
                    Ok(())
                }
                None => Err("its time lies outside the years 0 to 9999".into()),
            };
        }
    };
    if wanted >= digits {
        out.extend((i128::from(count) * 10i128.pow(wanted - digits)).to_string().into_bytes());
        return Ok(());
    }
    let step = 10u64.pow(digits - wanted);
    let (whole, rest) = (count.unsigned_abs() / step, count.unsigned_abs() % step);
    let sign = if count < 0 { "-" } else { "" };
    let fraction = match rest {
        0 => String::new(),
        rest => format!(".{rest:0width$}", width = (digits - wanted) as usize).trim_end_matches('0').to_string(),
    };
    out.extend(format!("{sign}{whole}{fraction}").into_bytes());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Decimal128Array, Float64Array, ListArray, StringViewArray};

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
