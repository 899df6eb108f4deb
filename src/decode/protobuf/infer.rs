//! The columns that a message type tells: one for each field, nested ones as SQL's nested types.

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::{
    super::payload::{DEEPEST, MOST_PARTS, too_many_parts},
    well_known::is_wrapper,
};
use crate::{
    catalog::{ColumnDef, Origin, ProtobufDef, TimeFormat},
    error::{Error, Result},
};

/// The columns of messages of a type.
pub(in crate::decode) fn columns(def: &ProtobufDef) -> Result<Vec<ColumnDef>> {
    let message = def.message();
    if message.fields().len() == 0 {
        return Err(Error::Invalid(format!("message {} has no fields, and a source has columns: declare some", message.full_name())));
    }
    let mut left = MOST_PARTS;
    let column = |field: FieldDescriptor| ColumnDef {
        name: field.name().into(),
        data_type: data_type(&field, &mut vec![message.clone()], &mut left),
        origin: Origin::Payload { path: vec![field.name().into()], time: TimeFormat::default() },
    };
    let columns = message.fields().map(column).collect();
    match left {
        0 => Err(too_many_parts(message.full_name())),
        _ => Ok(columns),
    }
}

/// The SQL type that holds all that a field can be given; `within` are the messages around it.
fn data_type(field: &FieldDescriptor, within: &mut Vec<MessageDescriptor>, left: &mut usize) -> DataType {
    *left = left.saturating_sub(1);
    if *left == 0 || within.len() > DEEPEST {
        return DataType::Utf8View;
    }
    if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
        within.push(entry.clone());
        let mut part = |name: &str, field: FieldDescriptor| Field::new(name, data_type(&field, within, left), true);
        let (key, value) = (part("key", entry.map_entry_key_field()), part("value", entry.map_entry_value_field()));
        within.pop();
        return DataType::new_list(DataType::Struct(Fields::from(vec![key, value])), true);
    }
    let one = single(&field.kind(), within, left);
    if field.is_list() { DataType::new_list(one, true) } else { one }
}

fn single(kind: &Kind, within: &mut Vec<MessageDescriptor>, left: &mut usize) -> DataType {
    match kind {
        Kind::Bool => DataType::Boolean,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => DataType::Int32,
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => DataType::Int64,
        Kind::Uint32 | Kind::Fixed32 => DataType::UInt32,
        Kind::Uint64 | Kind::Fixed64 => DataType::UInt64,
        Kind::Float => DataType::Float32,
        Kind::Double => DataType::Float64,
        Kind::String | Kind::Enum(_) => DataType::Utf8View,
        Kind::Bytes => DataType::Binary,
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => DataType::Timestamp(TimeUnit::Nanosecond, None),
        Kind::Message(message) if is_wrapper(message) => {
            message.get_field_by_name("value").map_or(DataType::Utf8View, |value| single(&value.kind(), within, left))
        }
        // A message within itself has no type of SQL's, one without fields no parts, and some stand for JSON.
        Kind::Message(message) if within.contains(message) || message.fields().len() == 0 || stands_for_json(message) => DataType::Utf8View,
        Kind::Message(message) => {
            within.push(message.clone());
            let fields: Vec<Field> = message.fields().map(|field| Field::new(field.name(), data_type(&field, within, left), true)).collect();
            within.pop();
            DataType::Struct(Fields::from(fields))
        }
    }
}

fn stands_for_json(message: &MessageDescriptor) -> bool {
    matches!(message.full_name(), "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue")
}
