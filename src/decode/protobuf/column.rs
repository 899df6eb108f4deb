//! Typed columns under construction. Each judges what a field was given; what it can't hold is a fault of the record.

use std::fmt::Debug;

use arrow::{array::ArrayRef, buffer::Buffer, datatypes::DataType};
use prost_reflect::{FieldDescriptor, Kind, Value};

use super::{
    fault::{Fault, Judged},
    fixed::scalar_column,
    json::Json,
    nested::{List, Map, Struct},
    scalar::Scalar,
    well_known::{Moment, Wrapped, is_wrapper},
    wire::Raw,
};
use crate::{
    catalog::TimeFormat,
    error::{Error, Result},
};

/// What values are read from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Payload<'a> {
    pub(super) bytes: &'a [u8],
    /// Where it lies in the buffer of all records, for views into that; `None` if it lies elsewhere.
    pub(super) base: Option<usize>,
}

/// A column under construction.
pub(super) trait Column: Debug + Send {
    /// Appends what the field was given: one value, the parts of a message, or the values of a repeated field. After a fault the column
    /// may hold parts of it: the caller truncates it.
    fn put(&mut self, payload: &Payload<'_>, raws: &[Raw]) -> Judged;

    /// Appends NULL.
    fn put_null(&mut self);

    /// Rows so far.
    fn len(&self) -> usize;

    /// Forgets all rows from `len` on, and what a fault left behind.
    fn truncate(&mut self, len: usize);

    /// The rows so far as an array; the column is empty then. `records` is the buffer that payloads lie in.
    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef>;
}

/// A column and what stands in it for a field that a message does not have.
#[derive(Debug)]
pub(super) struct Field {
    column: Box<dyn Column>,
    absent: Absent,
    /// Whether a value is a message.
    message: bool,
}

/// What stands for a field that a message does not have.
#[derive(Debug)]
enum Absent {
    Null,
    /// Nothing is no value as well: an empty list.
    Empty,
    /// What the `.proto` says, or zero where the field can't say that it has none.
    Default {
        bytes: Vec<u8>,
        raw: Raw,
    },
    /// A fault: proto2's `required`.
    Fault,
}

impl Field {
    /// For a field that a column is declared to be read from.
    pub(super) fn new(name: &str, field: &FieldDescriptor, data_type: &DataType, time: &TimeFormat) -> Result<Self> {
        let absent = if field.is_list() || field.is_map() {
            Absent::Empty
        } else if field.is_required() {
            Absent::Fault
        } else if matches!(field.kind(), Kind::Message(_)) || (says_presence(field) && field.field_descriptor_proto().default_value.is_none()) {
            Absent::Null
        } else {
            default_of(field)
        };
        let message = matches!(field.kind(), Kind::Message(_)) && !field.is_list() && !field.is_map();
        Ok(Self { column: column(name, field, data_type, time)?, absent, message })
    }

    /// Appends what the field was given; nothing is what its absence means.
    #[inline]
    pub(super) fn append(&mut self, payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        if !raws.is_empty() {
            return self.column.put(payload, raws);
        }
        match &self.absent {
            Absent::Null => self.column.put_null(),
            Absent::Empty => self.column.put(payload, &[])?,
            Absent::Default { bytes, raw } => self.column.put(&Payload { bytes, base: None }, std::slice::from_ref(raw))?,
            Absent::Fault => return Err(Box::new(Fault::Absent)),
        }
        Ok(())
    }

    /// The column.
    pub(super) fn column(&mut self) -> &mut dyn Column {
        self.column.as_mut()
    }

    /// Whether a value is a message.
    pub(super) fn is_message(&self) -> bool {
        self.message
    }

    /// The column's rows so far.
    pub(super) fn len(&self) -> usize {
        self.column.len()
    }
}

/// Whether a message can say that it has no value for the field. An entry of a map always has both of its own, whatever is left out of it.
fn says_presence(field: &FieldDescriptor) -> bool {
    field.supports_presence() && !field.parent_message().is_map_entry()
}

fn default_of(field: &FieldDescriptor) -> Absent {
    let (raw, bytes) = match field.default_value() {
        Value::Bool(value) => (Raw::Varint(value.into()), vec![]),
        Value::I32(value) | Value::EnumNumber(value) => match field.kind() {
            Kind::Sfixed32 => (Raw::Fixed32(value as u32), vec![]),
            Kind::Sint32 => (Raw::Varint(u64::from((value << 1 ^ value >> 31) as u32)), vec![]),
            _ => (Raw::Varint(i64::from(value) as u64), vec![]),
        },
        Value::I64(value) => match field.kind() {
            Kind::Sfixed64 => (Raw::Fixed64(value as u64), vec![]),
            Kind::Sint64 => (Raw::Varint((value << 1 ^ value >> 63) as u64), vec![]),
            _ => (Raw::Varint(value as u64), vec![]),
        },
        Value::U32(value) if field.kind() == Kind::Fixed32 => (Raw::Fixed32(value), vec![]),
        Value::U32(value) => (Raw::Varint(value.into()), vec![]),
        Value::U64(value) if field.kind() == Kind::Fixed64 => (Raw::Fixed64(value), vec![]),
        Value::U64(value) => (Raw::Varint(value), vec![]),
        Value::F32(value) => (Raw::Fixed32(value.to_bits()), vec![]),
        Value::F64(value) => (Raw::Fixed64(value.to_bits()), vec![]),
        Value::String(text) => (Raw::Bytes(0, text.len() as u32), text.into_bytes()),
        Value::Bytes(bytes) => (Raw::Bytes(0, bytes.len() as u32), bytes.to_vec()),
        Value::Message(_) | Value::List(_) | Value::Map(_) => return Absent::Null,
    };
    Absent::Default { bytes, raw }
}

/// An empty column of a type for what a field is given; `name` is the column's, for the error.
pub(super) fn column(name: &str, field: &FieldDescriptor, data_type: &DataType, time: &TimeFormat) -> Result<Box<dyn Column>> {
    let text = matches!(data_type, DataType::Utf8View | DataType::Utf8);
    if field.is_map() {
        return match data_type {
            DataType::List(_) => Ok(Box::new(Map::new(name, field, data_type)?)),
            _ if text => Ok(Box::new(Json::whole(field, data_type))),
            other => Err(unfit(name, field, other, "ARRAY<STRUCT<key …, value …>>, or TEXT for its JSON")),
        };
    }
    if field.is_list() {
        return match data_type {
            DataType::List(item) => Ok(Box::new(List::new(name, field, item)?)),
            _ if text => Ok(Box::new(Json::whole(field, data_type))),
            other => Err(unfit(name, field, other, "an ARRAY, since the field is repeated, or TEXT for its JSON")),
        };
    }
    one(name, field, data_type, time)
}

/// A column for one value of a field.
pub(super) fn one(name: &str, field: &FieldDescriptor, data_type: &DataType, time: &TimeFormat) -> Result<Box<dyn Column>> {
    let Kind::Message(message) = field.kind() else {
        let scalar = Scalar::of(&field.kind()).ok_or_else(|| Error::Internal(format!("field {} is a message", field.full_name())))?;
        return scalar_column(scalar, data_type, time)?.map_err(|advice| unfit(name, field, data_type, &advice));
    };
    match data_type {
        DataType::Struct(fields) => Ok(Box::new(Struct::new(name, &message, fields)?)),
        DataType::Timestamp(unit, _) if message.full_name() == "google.protobuf.Timestamp" => Ok(Box::new(Moment::new(*unit, data_type))),
        _ if is_wrapper(&message) => Ok(Box::new(Wrapped::new(name, &message, data_type, time)?)),
        DataType::Utf8View | DataType::Utf8 => Ok(Box::new(Json::each(field, data_type))),
        other => {
            let advice = match message.full_name() {
                "google.protobuf.Timestamp" => "TIMESTAMP",
                _ => "STRUCT<…> of the fields that you need, or TEXT for its JSON; or read a part of it with PATH",
            };
            Err(unfit(name, field, other, advice))
        }
    }
}

fn unfit(name: &str, field: &FieldDescriptor, data_type: &DataType, advice: &str) -> Error {
    let kind = match field.kind() {
        _ if field.is_map() => "a map".to_string(),
        kind if field.is_list() => format!("repeated {kind:?}"),
        Kind::Message(message) => format!("message {}", message.full_name()),
        Kind::Enum(kind) => format!("enum {}", kind.full_name()),
        kind => format!("{kind:?}").to_lowercase(),
    };
    Error::Unsupported(format!("column {name} has type {data_type}, which field {} ({kind}) can't be read as; declare it as {advice}", field.full_name()))
}
