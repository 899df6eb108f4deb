//! Defaults of the reader's schema: what a column has where the writer's schema lacks its field.

use arrow::datatypes::{DataType, TimeUnit};
use serde_json::Value;

use super::{
    super::values::{Natural, ValueColumn},
    read::decimal,
    resolve::{map_value, unit},
};
use crate::source::avro::{AvroSchema, Kind, Logical, TypeId};

/// A default, ready for its column.
#[derive(Debug, Clone)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    Int(i128),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Decimal(i128, i32),
    Date(i32),
    Timestamp(i64, TimeUnit),
    TimeOfDay(i64, TimeUnit),
    List(Vec<Constant>),
    /// The parts of a struct that have one.
    Parts(Vec<(usize, Constant)>),
}

impl Constant {
    /// What a default has at a path below it, for a column of a type.
    pub(super) fn below(schema: &AvroSchema, of: TypeId, default: &Value, path: &[String], target: &DataType) -> Result<Self, String> {
        let Some((first, rest)) = path.split_first() else { return Self::new(schema, of, default, target) };
        match &schema.at(of).kind {
            Kind::Union(branches) => first_of(branches, |branch| Self::below(schema, branch, default, path, target)),
            Kind::Null if default.is_null() => Ok(Constant::Null),
            Kind::Record(record) => {
                let field = record.fields.iter().find(|field| field.name == *first).ok_or_else(|| format!("it has no field {first}"))?;
                let object = default.as_object().ok_or_else(|| misfit(schema, of, default))?;
                let value = object.get(first).or(field.default.as_ref()).ok_or_else(|| format!("its default has no field {first}"))?;
                Self::below(schema, field.of, value, rest, target)
            }
            _ => Err(misfit(schema, of, default)),
        }
    }

    fn new(schema: &AvroSchema, of: TypeId, default: &Value, target: &DataType) -> Result<Self, String> {
        let wrong = || misfit(schema, of, default);
        let described = schema.at(of);
        // Nested values are JSON in a column of text, as read ones are.
        if matches!(described.kind, Kind::Record(_) | Kind::Array(_) | Kind::Map(_)) && matches!(target, DataType::Utf8View | DataType::Utf8) {
            return Ok(Constant::Text(default.to_string()));
        }
        Ok(match (&described.kind, default) {
            // The specification takes a union's first branch; which one it is shows in the value.
            (Kind::Union(branches), _) => return first_of(branches, |branch| Self::new(schema, branch, default, target)),
            (Kind::Null, Value::Null) => Constant::Null,
            (Kind::Boolean, Value::Bool(flag)) => Constant::Bool(*flag),
            (Kind::Int | Kind::Long, Value::Number(number)) => {
                let count = number.as_i64().ok_or_else(wrong)?;
                match described.logical {
                    Logical::Date => Constant::Date(i32::try_from(count).map_err(|_| wrong())?),
                    Logical::TimeMillis => Constant::TimeOfDay(count, TimeUnit::Millisecond),
                    Logical::TimeMicros => Constant::TimeOfDay(count, TimeUnit::Microsecond),
                    Logical::Timestamp(digits) | Logical::LocalTimestamp(digits) => Constant::Timestamp(count, unit(digits)),
                    _ => Constant::Int(count.into()),
                }
            }
            (Kind::Float | Kind::Double, Value::Number(number)) => Constant::Double(number.as_f64().ok_or_else(wrong)?),
            (Kind::String, Value::String(text)) => Constant::Text(text.clone()),
            (Kind::Enum(of), Value::String(symbol)) if of.symbols.contains(symbol) => Constant::Text(symbol.clone()),
            (Kind::Bytes | Kind::Fixed(_), Value::String(text)) => {
                // The specification writes bytes as the characters of those numbers.
                let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).map_err(|_| wrong())).collect::<Result<_, _>>()?;
                if matches!(&described.kind, Kind::Fixed(fixed) if fixed.size != bytes.len()) {
                    return Err(wrong());
                }
                match described.logical {
                    Logical::Decimal(_, scale) => Constant::Decimal(decimal(&bytes).ok_or_else(wrong)?, scale),
                    Logical::Uuid => Constant::Text(super::read::uuid(&bytes).ok_or_else(wrong)?),
                    _ => Constant::Bytes(bytes),
                }
            }
            (Kind::Array(items), Value::Array(values)) => {
                let DataType::List(item) = target else { return Err(wrong()) };
                Constant::List(values.iter().map(|value| Self::new(schema, *items, value, item.data_type())).collect::<Result<_, _>>()?)
            }
            (Kind::Map(of_values), Value::Object(entries)) => {
                let target = map_value(target).ok_or_else(wrong)?;
                let entry = |(key, value): (&String, &Value)| {
                    Ok(Constant::Parts(vec![(0, Constant::Text(key.clone())), (1, Self::new(schema, *of_values, value, target)?)]))
                };
                Constant::List(entries.iter().map(entry).collect::<Result<_, String>>()?)
            }
            (Kind::Record(_), Value::Object(_)) => {
                let DataType::Struct(fields) = target else { return Err(wrong()) };
                let part = |(at, field): (usize, &arrow::datatypes::FieldRef)| {
                    let path = [field.name().clone()];
                    Ok((at, Self::below(schema, of, default, &path, field.data_type())?))
                };
                Constant::Parts(fields.iter().enumerate().map(part).collect::<Result<_, String>>()?)
            }
            _ => return Err(wrong()),
        })
    }

    /// Appends it to a column.
    pub(super) fn put(&self, column: &mut dyn ValueColumn) -> Result<(), String> {
        let value = match self {
            Constant::Null => {
                column.put_null();
                return Ok(());
            }
            Constant::List(constants) => {
                let expected = column.expected();
                let items = column.items().ok_or_else(|| format!("has an array where {expected} is expected"))?;
                constants.iter().try_for_each(|constant| constant.put(items.item()))?;
                items.close();
                return Ok(());
            }
            Constant::Parts(constants) => {
                let expected = column.expected();
                let parts = column.parts().ok_or_else(|| format!("has a record where {expected} is expected"))?;
                constants.iter().try_for_each(|(at, constant)| constant.put(parts.part(*at)))?;
                parts.close();
                return Ok(());
            }
            Constant::Bool(flag) => Natural::Bool(*flag),
            Constant::Int(value) => Natural::Int(*value),
            Constant::Double(value) => Natural::Double(*value),
            Constant::Text(text) => Natural::Text(text),
            Constant::Bytes(bytes) => Natural::Bytes(bytes),
            Constant::Decimal(digits, scale) => Natural::Decimal(*digits, *scale),
            Constant::Date(days) => Natural::Date(*days),
            Constant::Timestamp(count, unit) => Natural::Timestamp(*count, *unit),
            Constant::TimeOfDay(count, unit) => Natural::TimeOfDay(*count, *unit),
        };
        column.put(&value)
    }
}

fn first_of(branches: &[TypeId], take: impl Fn(TypeId) -> Result<Constant, String>) -> Result<Constant, String> {
    let mut why = "a union has no branches".to_string();
    for &branch in branches {
        match take(branch) {
            Ok(constant) => return Ok(constant),
            Err(other) => why = other,
        }
    }
    Err(why)
}

fn misfit(schema: &AvroSchema, of: TypeId, default: &Value) -> String {
    format!("its default {default} is no {}", schema.name_of(of))
}
