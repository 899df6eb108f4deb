//! Messages, maps and repeated fields as TEXT: their JSON, with fields named as in the `.proto`, numbers as numbers, enums by name, bytes in base64,
//! and Google's own messages as Protobuf's JSON has them.

use std::fmt::Write;

use arrow::{array::ArrayRef, buffer::Buffer, datatypes::DataType};
use base64::{Engine, engine::general_purpose::STANDARD};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};

use super::{
    super::json::{column::Column as _, text},
    column::{Column, Payload},
    fault::{Judged, malformed},
    texts::copy,
    well_known::is_wrapper,
    wire::Raw,
};
use crate::error::Result;

/// A column of the JSON of a field.
#[derive(Debug)]
pub(super) struct Json {
    field: FieldDescriptor,
    /// Of a repeated field each value is a row, not all of them.
    each: bool,
    column: Texts,
}

#[derive(Debug)]
enum Texts {
    View(text::TextView),
    Run(text::Bytes),
}

impl Json {
    /// An empty column of `Utf8View` or `Utf8`, whose rows are all that a field holds.
    pub(super) fn whole(field: &FieldDescriptor, data_type: &DataType) -> Self {
        let column = match data_type {
            DataType::Utf8View => Texts::View(text::TextView::default()),
            _ => Texts::Run(text::Bytes::text()),
        };
        Self { field: field.clone(), each: false, column }
    }

    /// The same, whose rows are single values of the field.
    pub(super) fn each(field: &FieldDescriptor, data_type: &DataType) -> Self {
        Self { each: true, ..Self::whole(field, data_type) }
    }
}

impl Column for Json {
    fn put(&mut self, payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        // A message of just this field, for the reflecting reader; it bounds the depth and checks UTF-8.
        let at = raws.first().and_then(|raw| raw.extent()).map_or(0, |(start, _)| start);
        let message = match DynamicMessage::decode(self.field.parent_message().clone(), alone(&self.field, payload, raws).as_slice()) {
            Ok(message) => message,
            Err(error) => return malformed(at, &error.to_string()),
        };
        let mut out = String::new();
        match (message.get_field(&self.field).as_ref(), self.each) {
            (Value::List(items), true) => items.iter().take(1).for_each(|item| single(&mut out, item, &self.field.kind())),
            (held, _) => value(&mut out, held, &self.field),
        }
        match &mut self.column {
            Texts::View(column) => copy(column, &out),
            Texts::Run(column) => {
                column.push(out.as_bytes());
                Ok(())
            }
        }
    }

    fn put_null(&mut self) {
        match &mut self.column {
            Texts::View(column) => column.put_null(),
            Texts::Run(column) => column.put_null(),
        }
    }

    fn len(&self) -> usize {
        match &self.column {
            Texts::View(column) => column.len(),
            Texts::Run(column) => column.len(),
        }
    }

    fn truncate(&mut self, len: usize) {
        match &mut self.column {
            Texts::View(column) => column.truncate(len),
            Texts::Run(column) => column.truncate(len),
        }
    }

    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef> {
        match &mut self.column {
            Texts::View(column) => column.finish(records),
            Texts::Run(column) => column.finish(records),
        }
    }
}

/// The bytes of a message that has this field alone.
fn alone(field: &FieldDescriptor, payload: &Payload<'_>, raws: &[Raw]) -> Vec<u8> {
    let mut out = vec![];
    let tag = |out: &mut Vec<u8>, wire_type: u32| varint(out, u64::from(field.number() << 3 | wire_type));
    for raw in raws {
        match *raw {
            Raw::Varint(value) => {
                tag(&mut out, 0);
                varint(&mut out, value);
            }
            Raw::Fixed64(value) => {
                tag(&mut out, 1);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Raw::Fixed32(value) => {
                tag(&mut out, 5);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Raw::Bytes(start, end) => {
                tag(&mut out, 2);
                varint(&mut out, u64::from(end - start));
                out.extend_from_slice(&payload.bytes[start as usize..end as usize]);
            }
            Raw::Group(start, end) => {
                tag(&mut out, 3);
                out.extend_from_slice(&payload.bytes[start as usize..end as usize]);
                tag(&mut out, 4);
            }
        }
    }
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes what a field holds.
pub(super) fn value(out: &mut String, held: &Value, field: &FieldDescriptor) {
    match held {
        Value::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                single(out, item, &field.kind());
            }
            out.push(']');
        }
        Value::Map(entries) => {
            let Kind::Message(entry) = field.kind() else { return out.push_str("null") };
            let kind = entry.map_entry_value_field().kind();
            let mut sorted: Vec<(&MapKey, &Value)> = entries.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (at, (key, held)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                let name = match key {
                    MapKey::Bool(key) => key.to_string(),
                    MapKey::I32(key) => key.to_string(),
                    MapKey::I64(key) => key.to_string(),
                    MapKey::U32(key) => key.to_string(),
                    MapKey::U64(key) => key.to_string(),
                    MapKey::String(key) => key.clone(),
                };
                quoted(out, &name);
                out.push(':');
                single(out, held, &kind);
            }
            out.push('}');
        }
        _ => single(out, held, &field.kind()),
    }
}

fn single(out: &mut String, held: &Value, kind: &Kind) {
    let mut put = |shown: &dyn std::fmt::Display| {
        // Writing to a string can't fail.
        let _ = write!(out, "{shown}");
    };
    match held {
        Value::Bool(held) => put(held),
        Value::I32(held) => put(held),
        Value::I64(held) => put(held),
        Value::U32(held) => put(held),
        Value::U64(held) => put(held),
        Value::F32(held) => float(out, (*held).into(), serde_json::to_string(held)),
        Value::F64(held) => float(out, *held, serde_json::to_string(held)),
        Value::String(held) => quoted(out, held),
        Value::Bytes(held) => quoted(out, &STANDARD.encode(held)),
        Value::EnumNumber(number) => match kind.as_enum().and_then(|kind| kind.get_value(*number)) {
            Some(named) => quoted(out, named.name()),
            None => put(number),
        },
        Value::Message(held) => message(out, held),
        Value::List(_) | Value::Map(_) => out.push_str("null"),
    }
}

fn float(out: &mut String, value: f64, shown: serde_json::Result<String>) {
    match value {
        value if value.is_nan() => out.push_str("\"NaN\""),
        value if value.is_infinite() => out.push_str(if value > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" }),
        _ => out.push_str(&shown.unwrap_or_else(|_| "null".into())),
    }
}

fn quoted(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// Writes a message as an object of the fields that it has.
pub(super) fn message(out: &mut String, held: &DynamicMessage) {
    let descriptor = held.descriptor();
    if well_known(out, held, &descriptor).is_some() {
        return;
    }
    out.push('{');
    let mut fields: Vec<(FieldDescriptor, &Value)> = held.fields().collect();
    fields.sort_by_key(|(field, _)| field.number());
    for (at, (field, held)) in fields.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        quoted(out, field.name());
        out.push(':');
        value(out, held, &field);
    }
    out.push('}');
}

/// Writes one of Google's messages that stand for something else.
fn well_known(out: &mut String, held: &DynamicMessage, descriptor: &MessageDescriptor) -> Option<()> {
    let number = |field: &str| match held.get_field_by_name(field)?.as_ref() {
        Value::I64(value) => Some(*value),
        Value::I32(value) => Some((*value).into()),
        _ => None,
    };
    let only = |out: &mut String, name: &str| {
        let field = descriptor.get_field_by_name(name)?;
        value(out, &held.get_field(&field), &field);
        Some(())
    };
    match descriptor.full_name() {
        _ if is_wrapper(descriptor) => only(out, "value"),
        "google.protobuf.Timestamp" => {
            let time = chrono::DateTime::from_timestamp(number("seconds")?, u32::try_from(number("nanos")?).ok()?)?;
            quoted(out, &time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
            Some(())
        }
        "google.protobuf.Struct" => only(out, "fields"),
        "google.protobuf.ListValue" => only(out, "values"),
        "google.protobuf.Value" => match held.fields().next() {
            Some((field, held)) if field.name() != "null_value" => {
                value(out, held, &field);
                Some(())
            }
            _ => {
                out.push_str("null");
                Some(())
            }
        },
        _ => None,
    }
}
