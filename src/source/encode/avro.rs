//! Rows as Avro, by the source's schema; behind a registry's header where the source names a registry.
//!
//! Each field is given by the column whose path ends at it, or by the columns below it; what no column gives is the schema's default, or NULL.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit},
    datatypes::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
    datatypes::{UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use serde_json::Value;

use super::{RowWriter, WrittenColumn, Wrong};
use crate::{
    catalog::{AvroDef, Link, TimeFormat},
    error::{Error, Result},
    source::{
        avro::{AvroSchema, Kind, Logical, TypeId},
        framing,
        registry::Registry,
    },
};

/// Writes a record a row.
#[derive(Debug)]
pub(super) struct AvroWriter {
    schema: AvroSchema,
    header: Vec<u8>,
    top: Part,
    times: Vec<TimeFormat>,
}

/// Where a field's value comes from.
#[derive(Debug)]
enum Part {
    /// The column at this position.
    Column(usize, TypeId),
    /// Its own fields; in front of them which branch of a union it is.
    Record(Vec<u8>, Vec<Part>),
    /// Always the same bytes.
    Constant(Vec<u8>),
}

impl AvroWriter {
    /// Of these columns. Where there is a registry, [`crate::source::ready_to_write`] has asked for the schema's id.
    pub(super) fn new(owner: &str, def: &AvroDef, link: &Link, columns: &[WrittenColumn]) -> Result<Self> {
        let wrong = |why: String| Error::Invalid(format!("{owner} can't be written with its Avro schema: {why}"));
        let schema = AvroSchema::parse(&def.schema, []).map_err(wrong)?;
        let header = match &def.registry {
            None => vec![],
            Some(subject) => {
                let id = Registry::of(&subject.registry(link)?).written(&subject.name, &def.schema);
                framing::header(id.ok_or_else(|| Error::Internal(format!("the schema of {owner} has no id yet")))?).to_vec()
            }
        };
        let below: Vec<(&WrittenColumn, &[String])> = columns.iter().map(|column| (column, column.path.as_slice())).collect();
        let top = part(&schema, schema.root(), None, &below).map_err(wrong)?;
        // By position among the encoder's columns, of which a key has some.
        let mut times = vec![TimeFormat::default(); columns.iter().map(|column| column.at + 1).max().unwrap_or(0)];
        columns.iter().for_each(|column| times[column.at] = column.time.clone());
        Ok(Self { schema, header, top, times })
    }

    fn put(&self, part: &Part, columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> Result<(), Wrong> {
        match part {
            Part::Column(at, of) => write(&self.schema, *of, &columns[*at], row, &self.times[*at], out).map_err(|why| Wrong { column: *at, why }),
            Part::Record(branch, fields) => {
                out.extend(branch);
                fields.iter().try_for_each(|field| self.put(field, columns, row, out))
            }
            Part::Constant(bytes) => {
                out.extend(bytes);
                Ok(())
            }
        }
    }
}

/// Whether records of the schema have such a field. One that is no schema is refused elsewhere.
pub(super) fn has_path(def: &AvroDef, path: &[String]) -> bool {
    let Ok(schema) = AvroSchema::parse(&def.schema, []) else { return false };
    let found = path.iter().try_fold(schema.root(), |of, part| {
        let Kind::Record(record) = &schema.at(schema.nullable(of).unwrap_or(of)).kind else { return None };
        record.fields.iter().find(|field| field.name == *part).map(|field| field.of)
    });
    found.is_some()
}

impl RowWriter for AvroWriter {
    fn write(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<u8>, Wrong> {
        let mut out = self.header.clone();
        self.put(&self.top, columns, row, &mut out)?;
        Ok(out)
    }
}

/// What writes a value of a type of which these columns, with what is left of their paths, are the parts.
fn part(schema: &AvroSchema, of: TypeId, default: Option<&Value>, below: &[(&WrittenColumn, &[String])]) -> Result<Part, String> {
    match below {
        [] => {
            let mut bytes = vec![];
            let null = Value::Null;
            match default {
                Some(default) => constant(schema, of, default, &mut bytes)?,
                None => constant(schema, of, &null, &mut bytes).map_err(|_| "no column that is written gives it a value, and it has no default".to_string())?,
            }
            return Ok(Part::Constant(bytes));
        }
        [(column, [])] => return Ok(Part::Column(column.at, of)),
        _ if below.iter().any(|(_, path)| path.is_empty()) => return Err(format!("column {} and a part of it can't both be written", below[0].0.name)),
        _ => {}
    }
    let (branch, record) = match &schema.at(of).kind {
        Kind::Record(record) => (vec![], record),
        Kind::Union(branches) => {
            let records = branches.iter().enumerate().filter_map(|(at, &branch)| match &schema.at(branch).kind {
                Kind::Record(record) => Some((at, record)),
                _ => None,
            });
            let Some((at, record)) = records.into_iter().next() else { return Err(format!("{} has no fields", schema.name_of(of))) };
            let mut branch = vec![];
            long(at as i64, &mut branch);
            (branch, record)
        }
        _ => return Err(format!("{} has no fields", schema.name_of(of))),
    };
    if let Some((column, path)) = below.iter().find(|(_, path)| !record.fields.iter().any(|field| field.name == path[0])) {
        return Err(format!("record {} has no field {} for column {}", record.name.full, path[0], column.name));
    }
    let field = |field: &crate::source::avro::Field| {
        let within: Vec<(&WrittenColumn, &[String])> =
            below.iter().filter(|(_, path)| path[0] == field.name).map(|(column, path)| (*column, &path[1..])).collect();
        part(schema, field.of, field.default.as_ref(), &within).map_err(|why| format!("field {}: {why}", field.name))
    };
    Ok(Part::Record(branch, record.fields.iter().map(field).collect::<Result<_, _>>()?))
}

fn long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    long(bytes.len() as i64, out);
    out.extend(bytes);
}

/// The shortest big-endian two's complement.
fn decimal_bytes(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let fill = if value < 0 { 0xff } else { 0 };
    let needless = bytes.windows(2).take_while(|two| two[0] == fill && (two[1] ^ fill) < 0x80).count();
    bytes[needless..].to_vec()
}

/// Writes a default.
fn constant(schema: &AvroSchema, of: TypeId, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    let wrong = || format!("its default {value} is no {}", schema.name_of(of));
    let bytes_of = |text: &str| text.chars().map(|c| u8::try_from(u32::from(c)).map_err(|_| wrong())).collect::<Result<Vec<u8>, String>>();
    match (&schema.at(of).kind, value) {
        (Kind::Union(branches), _) => {
            for (at, &branch) in branches.iter().enumerate() {
                let before = out.len();
                long(at as i64, out);
                if constant(schema, branch, value, out).is_ok() {
                    return Ok(());
                }
                out.truncate(before);
            }
            return Err(wrong());
        }
        (Kind::Null, Value::Null) => {}
        (Kind::Boolean, Value::Bool(flag)) => out.push(u8::from(*flag)),
        (Kind::Int, Value::Number(number)) => long(number.as_i64().filter(|value| i32::try_from(*value).is_ok()).ok_or_else(wrong)?, out),
        (Kind::Long, Value::Number(number)) => long(number.as_i64().ok_or_else(wrong)?, out),
        (Kind::Float, Value::Number(number)) => out.extend((number.as_f64().ok_or_else(wrong)? as f32).to_le_bytes()),
        (Kind::Double, Value::Number(number)) => out.extend(number.as_f64().ok_or_else(wrong)?.to_le_bytes()),
        (Kind::String, Value::String(text)) => sized(text.as_bytes(), out),
        (Kind::Bytes, Value::String(text)) => sized(&bytes_of(text)?, out),
        (Kind::Fixed(fixed), Value::String(text)) => {
            let bytes = bytes_of(text)?;
            if bytes.len() != fixed.size {
                return Err(wrong());
            }
            out.extend(bytes);
        }
        (Kind::Enum(of), Value::String(text)) => long(of.symbols.iter().position(|symbol| symbol == text).ok_or_else(wrong)? as i64, out),
        (Kind::Array(items), Value::Array(values)) => {
            if !values.is_empty() {
                long(values.len() as i64, out);
                values.iter().try_for_each(|value| constant(schema, *items, value, out))?;
            }
            out.push(0);
        }
        (Kind::Map(of), Value::Object(entries)) => {
            if !entries.is_empty() {
                long(entries.len() as i64, out);
                for (key, value) in entries {
                    sized(key.as_bytes(), out);
                    constant(schema, *of, value, out)?;
                }
            }
            out.push(0);
        }
        (Kind::Record(record), Value::Object(object)) => {
            for field in &record.fields {
                constant(schema, field.of, object.get(&field.name).or(field.default.as_ref()).ok_or_else(wrong)?, out)?;
            }
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// Writes a row's value as one of a type; an error says why it can't be.
fn write(schema: &AvroSchema, of: TypeId, array: &ArrayRef, row: usize, time: &TimeFormat, out: &mut Vec<u8>) -> Result<(), String> {
    let described = schema.at(of);
    let cannot = || format!("it can't be written as Avro's {}, which the schema has there", schema.name_of(of));
    if let Kind::Union(branches) = &described.kind {
        let is_null = |branch: TypeId| matches!(schema.at(branch).kind, Kind::Null);
        let mut why = cannot();
        for (at, &branch) in branches.iter().enumerate().filter(|(_, branch)| is_null(**branch) == array.is_null(row)) {
            let before = out.len();
            long(at as i64, out);
            match write(schema, branch, array, row, time, out) {
                Ok(()) => return Ok(()),
                Err(other) => why = other,
            }
            out.truncate(before);
        }
        return Err(if array.is_null(row) { format!("it is NULL, and the schema has {} there", schema.name_of(of)) } else { why });
    }
    if array.is_null(row) {
        return match described.kind {
            Kind::Null => Ok(()),
            _ => Err(format!("it is NULL, and the schema has {} there", schema.name_of(of))),
        };
    }
    match (&described.kind, described.logical) {
        (Kind::Boolean, _) => match array.data_type() {
            DataType::Boolean => out.push(u8::from(array.as_boolean().value(row))),
            _ => return Err(cannot()),
        },
        (Kind::Int, logical) => {
            let value = whole(array, row, logical, time).ok_or_else(cannot)?;
            long(i32::try_from(value).map_err(|_| cannot())?.into(), out);
        }
        (Kind::Long, logical) => long(i64::try_from(whole(array, row, logical, time).ok_or_else(cannot)?).map_err(|_| cannot())?, out),
        (Kind::Float, _) => match array.data_type() {
            DataType::Float32 => out.extend(array.as_primitive::<Float32Type>().value(row).to_le_bytes()),
            // Only what comes back as it was.
            DataType::Float64 if f64::from(array.as_primitive::<Float64Type>().value(row) as f32) == array.as_primitive::<Float64Type>().value(row) => {
                out.extend((array.as_primitive::<Float64Type>().value(row) as f32).to_le_bytes());
            }
            _ => return Err(cannot()),
        },
        (Kind::Double, _) => match array.data_type() {
            DataType::Float32 => out.extend(f64::from(array.as_primitive::<Float32Type>().value(row)).to_le_bytes()),
            DataType::Float64 => out.extend(array.as_primitive::<Float64Type>().value(row).to_le_bytes()),
            _ => {
                let value = whole(array, row, Logical::Plain, time).filter(|value| value.unsigned_abs() <= 1 << 53).ok_or_else(cannot)?;
                out.extend((value as f64).to_le_bytes());
            }
        },
        (Kind::Bytes, Logical::Decimal(precision, scale)) => sized(&decimal_bytes(decimal(array, row, precision, scale).ok_or_else(cannot)?), out),
        (Kind::Fixed(fixed), Logical::Decimal(precision, scale)) => {
            let bytes = decimal_bytes(decimal(array, row, precision, scale).ok_or_else(cannot)?);
            let fill = if bytes[0] >= 0x80 { 0xff } else { 0 };
            let missing = fixed.size.checked_sub(bytes.len()).ok_or_else(cannot)?;
            out.extend(std::iter::repeat_n(fill, missing));
            out.extend(bytes);
        }
        (Kind::Bytes, _) => match array.data_type() {
            DataType::Binary => sized(array.as_binary::<i32>().value(row), out),
            _ => sized(text(array, row).ok_or_else(cannot)?.as_bytes(), out),
        },
        (Kind::Fixed(fixed), Logical::Uuid) => {
            let hex: String = text(array, row).ok_or_else(cannot)?.chars().filter(|c| *c != '-').collect();
            let number = u128::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == 32 && fixed.size == 16).ok_or_else(cannot)?;
            out.extend(number.to_be_bytes());
        }
        (Kind::Fixed(fixed), _) => match array.data_type() {
            DataType::Binary if array.as_binary::<i32>().value(row).len() == fixed.size => out.extend(array.as_binary::<i32>().value(row)),
            _ => return Err(cannot()),
        },
        (Kind::String, _) => sized(text(array, row).ok_or_else(cannot)?.as_bytes(), out),
        (Kind::Enum(of), _) => {
            let text = text(array, row).ok_or_else(cannot)?;
            let number = of.symbols.iter().position(|symbol| symbol == text);
            long(number.ok_or_else(|| format!("enum {} has no symbol {text}", of.name.full))? as i64, out);
        }
        (Kind::Array(items), _) => {
            let DataType::List(_) = array.data_type() else { return Err(cannot()) };
            let values = array.as_list::<i32>().value(row);
            if !values.is_empty() {
                long(values.len() as i64, out);
                (0..values.len()).try_for_each(|item| write(schema, *items, &values, item, time, out))?;
            }
            out.push(0);
        }
        (Kind::Map(of_values), _) => {
            let DataType::List(item) = array.data_type() else { return Err(cannot()) };
            let DataType::Struct(fields) = item.data_type() else { return Err(cannot()) };
            if fields.len() != 2 {
                return Err(cannot());
            }
            let entries = array.as_list::<i32>().value(row);
            if !entries.is_empty() {
                long(entries.len() as i64, out);
                let parts = entries.as_struct();
                for entry in 0..entries.len() {
                    let key = parts.column(0);
                    let key = if entries.is_null(entry) || key.is_null(entry) { None } else { text(key, entry) };
                    sized(key.ok_or_else(|| "a map has an entry without a key".to_string())?.as_bytes(), out);
                    write(schema, *of_values, parts.column(1), entry, time, out)?;
                }
            }
            out.push(0);
        }
        (Kind::Record(record), _) => {
            let DataType::Struct(_) = array.data_type() else { return Err(cannot()) };
            let parts = array.as_struct();
            for field in &record.fields {
                let within = |why: String| format!("field {}: {why}", field.name);
                match parts.column_by_name(&field.name) {
                    Some(part) => write(schema, field.of, part, row, &TimeFormat::Rfc3339, out).map_err(within)?,
                    None => {
                        let default = field.default.as_ref().ok_or_else(|| within("the STRUCT lacks it, and it has no default".into()))?;
                        constant(schema, field.of, default, out).map_err(within)?;
                    }
                }
            }
        }
        (Kind::Null, _) | (Kind::Union(_), _) => return Err(cannot()),
    }
    Ok(())
}

fn text(array: &ArrayRef, row: usize) -> Option<&str> {
    match array.data_type() {
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        _ => None,
    }
}

/// A value as the whole number that stands for it.
fn whole(array: &ArrayRef, row: usize, logical: Logical, time: &TimeFormat) -> Option<i128> {
    macro_rules! number {
        ($t:ty) => {
            (matches!(logical, Logical::Plain)).then(|| i128::from(array.as_primitive::<$t>().value(row)))
        };
    }
    match array.data_type() {
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Date32 if logical == Logical::Date => Some(array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Timestamp(unit, _) => {
            let (count, has) = match unit {
                TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().value(row), 0),
                TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().value(row), 3),
                TimeUnit::Microsecond => (array.as_primitive::<TimestampMicrosecondType>().value(row), 6),
                TimeUnit::Nanosecond => (array.as_primitive::<TimestampNanosecondType>().value(row), 9),
            };
            let wanted = match (logical, time) {
                (Logical::Timestamp(digits) | Logical::LocalTimestamp(digits), _) => digits,
                (Logical::Plain, TimeFormat::EpochSeconds) => 0,
                (Logical::Plain, TimeFormat::EpochMillis) => 3,
                (Logical::Plain, TimeFormat::EpochMicros) => 6,
                _ => return None,
            };
            rescaled(count.into(), has, wanted)
        }
        _ => None,
    }
}

/// A number with so many digits after the point, if it needs no rounding.
fn rescaled(value: i128, has: u32, wanted: u32) -> Option<i128> {
    let step = 10i128.checked_pow(wanted.abs_diff(has))?;
    if wanted >= has { value.checked_mul(step) } else { (value % step == 0).then(|| value / step) }
}

fn decimal(array: &ArrayRef, row: usize, precision: u32, scale: i32) -> Option<i128> {
    let value = match array.data_type() {
        DataType::Decimal128(_, has) => rescaled(array.as_primitive::<Decimal128Type>().value(row), u32::try_from(*has).ok()?, u32::try_from(scale).ok()?)?,
        _ => rescaled(whole(array, row, Logical::Plain, &TimeFormat::Rfc3339)?, 0, u32::try_from(scale).ok()?)?,
    };
    (precision > 38 || value.unsigned_abs() < 10u128.checked_pow(precision)?).then_some(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let written = |value: i64| {
            let mut out = vec![];
            long(value, &mut out);
            out
        };
        assert_eq!((written(0), written(-1), written(64), written(-65)), (vec![0], vec![1], vec![0x80, 1], vec![0x81, 1]));
        assert_eq!(written(i64::MIN).len(), 10);
        assert_eq!((decimal_bytes(0), decimal_bytes(-1), decimal_bytes(127), decimal_bytes(128)), (vec![0], vec![0xff], vec![0x7f], vec![0, 0x80]));
        assert_eq!((decimal_bytes(-128), decimal_bytes(-129)), (vec![0x80], vec![0xff, 0x7f]));
    }
}
