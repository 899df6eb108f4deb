//! Rows as Protobuf messages. NULL is a field that the message lacks; where the format can't tell that from zero, it is read back as zero.

use std::collections::HashMap;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::DataType,
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value, prost::Message};

use super::{
    RowWriter, WrittenColumn, Wrong,
    json::{count_of, plain_text},
};
use crate::{
    catalog::{Framing, ProtobufDef, TimeFormat},
    error::{Error, Result},
};

/// Writes messages of one type.
#[derive(Debug)]
pub(super) struct ProtobufWriter {
    message: MessageDescriptor,
    columns: Vec<Written>,
}

#[derive(Debug)]
struct Written {
    at: usize,
    /// The messages on the way.
    way: Vec<FieldDescriptor>,
    field: FieldDescriptor,
    time: TimeFormat,
}

impl ProtobufWriter {
    /// Of these columns.
    pub(super) fn new(owner: &str, def: &ProtobufDef, columns: &[WrittenColumn]) -> Result<Self> {
        if def.framing() != Framing::None {
            return Err(Error::Unsupported(format!(
                "{owner} has format 'protobuf' behind a registry's frame, which holds a schema's id and can't be written: produce its records with another client"
            )));
        }
        let written = |column: &WrittenColumn| {
            let lacking = |part: &str| Error::Internal(format!("column {} of {owner} has no field {part}", column.name));
            let (mut message, mut way) = (def.message().clone(), vec![]);
            let Some((last, before)) = column.path.split_last() else { return Err(lacking("")) };
            for part in before {
                let field = field(&message, part).ok_or_else(|| lacking(part))?;
                let Kind::Message(inner) = field.kind() else { return Err(lacking(part)) };
                message = inner;
                way.push(field);
            }
            Ok(Written { at: column.at, way, field: field(&message, last).ok_or_else(|| lacking(last))?, time: column.time.clone() })
        };
        let taken: Vec<Written> = columns.iter().map(written).collect::<Result<_>>()?;
        for (at, one) in taken.iter().enumerate() {
            let steps = |written: &Written| written.way.iter().chain([&written.field]).map(|field| field.number()).collect::<Vec<_>>();
            let path = steps(one);
            if taken.iter().enumerate().any(|(other, written)| other != at && steps(written).starts_with(&path)) {
                return Err(columns[at].clash(owner));
            }
        }
        Ok(Self { message: def.message().clone(), columns: taken })
    }
}

/// Whether messages of the type have such a field.
pub(super) fn has_path(def: &ProtobufDef, path: &[String]) -> bool {
    let Some((last, before)) = path.split_last() else { return false };
    let within = before.iter().try_fold(def.message().clone(), |message, part| match field(&message, part)?.kind() {
        Kind::Message(inner) => Some(inner),
        _ => None,
    });
    within.is_some_and(|message| field(&message, last).is_some())
}

impl RowWriter for ProtobufWriter {
    fn write(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<u8>, Wrong> {
        let mut made = DynamicMessage::new(self.message.clone());
        for Written { at, way, field, time } in &self.columns {
            let array = &columns[*at];
            if array.is_null(row) {
                continue;
            }
            let value = whole(array, row, field, time).map_err(|why| Wrong { column: *at, why })?;
            let mut message = &mut made;
            for step in way {
                let Value::Message(inner) = message.get_field_mut(step) else {
                    return Err(Wrong { column: *at, why: format!("field {} is no message", step.name()) });
                };
                message = inner;
            }
            message.set_field(field, value);
        }
        if let Some(lacking) = self.message.fields().find(|field| field.is_required() && !made.has_field(field)) {
            let at = self.columns.iter().find(|column| column.field == lacking).map_or(0, |column| column.at);
            return Err(Wrong { column: at, why: format!("field {} is required and needs a value in every row", lacking.name()) });
        }
        Ok(made.encode_to_vec())
    }
}

fn field(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name))
}

/// All that a field is given.
fn whole(array: &ArrayRef, row: usize, field: &FieldDescriptor, time: &TimeFormat) -> Result<Value, String> {
    if !field.is_list() && !field.is_map() {
        return single(array, row, &field.kind(), time);
    }
    let DataType::List(_) = array.data_type() else { return Err("the JSON of a repeated field is read and not written: declare it as an ARRAY".into()) };
    let items = array.as_list::<i32>().value(row);
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        let [keys, values] = items.as_struct().columns() else { return Err("a map's entries have a key and a value".into()) };
        let mut entries = HashMap::new();
        for item in 0..items.len() {
            if items.is_null(item) || keys.is_null(item) || values.is_null(item) {
                return Err("an entry of a map can't be NULL, nor can its parts".into());
            }
            let key = match single(keys, item, &entry.map_entry_key_field().kind(), time)? {
                Value::Bool(key) => MapKey::Bool(key),
                Value::I32(key) => MapKey::I32(key),
                Value::I64(key) => MapKey::I64(key),
                Value::U32(key) => MapKey::U32(key),
                Value::U64(key) => MapKey::U64(key),
                Value::String(key) => MapKey::String(key),
                _ => return Err("a map has keys of another type".into()),
            };
            entries.insert(key, single(values, item, &entry.map_entry_value_field().kind(), time)?);
        }
        return Ok(Value::Map(entries));
    }
    let item = |item: usize| match items.is_null(item) {
        true => Err("an item of an array is NULL, and a repeated field has no such value".to_string()),
        false => single(&items, item, &field.kind(), time),
    };
    (0..items.len()).map(item).collect::<Result<_, _>>().map(Value::List)
}

/// One value.
fn single(array: &ArrayRef, row: usize, kind: &Kind, time: &TimeFormat) -> Result<Value, String> {
    if let Kind::Message(message) = kind {
        return within(array, row, message, time);
    }
    match (kind, array.data_type()) {
        (Kind::Bytes, DataType::Binary) => return Ok(Value::Bytes(array.as_binary::<i32>().value(row).to_vec().into())),
        (Kind::Float | Kind::Double, DataType::Float64) => return real(array.as_primitive::<arrow::datatypes::Float64Type>().value(row), kind),
        (Kind::Float | Kind::Double, DataType::Float32) => return real(array.as_primitive::<arrow::datatypes::Float32Type>().value(row).into(), kind),
        _ => {}
    }
    let text = plain_text(array, row, time)?;
    let misfit = || format!("{text} does not fit a field of type {kind:?}");
    Ok(match kind {
        Kind::String => Value::String(text),
        Kind::Bytes => Value::Bytes(text.into_bytes().into()),
        Kind::Bool => Value::Bool(text.parse().map_err(|_| misfit())?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(integer(&text).and_then(|value| value.try_into().ok()).ok_or_else(misfit)?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(integer(&text).and_then(|value| value.try_into().ok()).ok_or_else(misfit)?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(integer(&text).and_then(|value| value.try_into().ok()).ok_or_else(misfit)?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(integer(&text).and_then(|value| value.try_into().ok()).ok_or_else(misfit)?),
        Kind::Float | Kind::Double => return real(text.parse().map_err(|_| misfit())?, kind),
        Kind::Enum(kind) => match (kind.get_value_by_name(&text), text.parse()) {
            (Some(value), _) => Value::EnumNumber(value.number()),
            (None, Ok(number)) => Value::EnumNumber(number),
            (None, Err(_)) => return Err(format!("'{text}' is no name of enum {}", kind.full_name())),
        },
        Kind::Message(_) => return Err(misfit()),
    })
}

/// A whole number as text, perhaps one of a DECIMAL's.
fn integer(text: &str) -> Option<i128> {
    let whole = text.split_once('.').map_or(text, |(whole, fraction)| if fraction.bytes().all(|digit| digit == b'0') { whole } else { text });
    whole.parse().ok()
}

fn real(value: f64, kind: &Kind) -> Result<Value, String> {
    match kind {
        Kind::Double => Ok(Value::F64(value)),
        _ if value.is_finite() && !(value as f32).is_finite() => Err(format!("{value} does not fit a field of type float")),
        _ => Ok(Value::F32(value as f32)),
    }
}

fn within(array: &ArrayRef, row: usize, message: &MessageDescriptor, time: &TimeFormat) -> Result<Value, String> {
    let mut made = DynamicMessage::new(message.clone());
    match array.data_type() {
        DataType::Struct(fields) => {
            for (part, values) in fields.iter().zip(array.as_struct().columns()) {
                let field = field(message, part.name()).ok_or_else(|| format!("message {} has no field {}", message.full_name(), part.name()))?;
                if values.is_valid(row) {
                    made.set_field(&field, whole(values, row, &field, &TimeFormat::default())?);
                }
            }
        }
        DataType::Timestamp(unit, _) if message.full_name() == "google.protobuf.Timestamp" => {
            let (count, digits) = count_of(array, row, *unit);
            let second = 10i64.pow(digits);
            made.set_field_by_name("seconds", Value::I64(count.div_euclid(second)));
            made.set_field_by_name("nanos", Value::I32((count.rem_euclid(second) * 10i64.pow(9 - digits)) as i32));
        }
        _ => match message.get_field_by_name("value").filter(|_| message.package_name() == "google.protobuf") {
            Some(value) if message.fields().len() == 1 => made.set_field(&value, single(array, row, &value.kind(), time)?),
            _ => return Err("the JSON of a message is read and not written: declare it as STRUCT<…>".into()),
        },
    }
    Ok(Value::Message(made))
}
