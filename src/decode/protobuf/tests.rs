//! Messages as another reader of Protobuf encodes them, read back; cases of the format's rules; and what is broken.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field as ArrowField, Fields, TimeUnit};
use proptest::prelude::*;
use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    super::{
        payload::{BatchReader, PayloadColumn, ReadBatch},
        tests::{Cell, cell},
    },
    ProtobufReader,
};
use crate::{
    catalog::{Framing, ProtobufDef, TimeFormat, compile_proto, message_of},
    source::RecordsBuilder,
};

const SCHEMA: &str = r#"
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum State { UNKNOWN = 0; OPEN = 1; A_STATE_WITH_A_LONG_NAME = 2; BELOW = -1; }

message Order {
  int32 i32 = 1; int64 i64 = 2; uint32 u32 = 3; uint64 u64 = 4; sint32 s32 = 5; sint64 s64 = 6;
  fixed32 f32 = 7; fixed64 f64 = 8; sfixed32 sf32 = 9; sfixed64 sf64 = 10;
  bool flag = 11; float single = 12; double number = 13; string text = 14; bytes raw = 15;
  State state = 16;
  optional int64 maybe = 17;
  repeated sint64 many = 18; repeated string texts = 19; repeated State states = 300; repeated double apart = 21 [packed = false];
  Item item = 22; repeated Item items = 23;
  map<string, int64> counts = 24; map<int32, Item> by_id = 25;
  oneof choice { int64 a = 26; string b = 27; Item c = 28; }
  google.protobuf.Timestamp at = 29;
  google.protobuf.Int64Value wrapped = 30; google.protobuf.StringValue wrapped_text = 31;
  repeated google.protobuf.DoubleValue wrapped_many = 32;
}

message Item { string name = 1; int32 count = 2; Item inner = 3; repeated fixed32 sizes = 4; map<bool, string> notes = 5; State state = 6; }
"#;

const SCHEMA_2: &str = r#"
syntax = "proto2";
message Old {
  required int64 id = 1;
  optional string name = 2 [default = "nobody"];
  optional int32 plain = 3;
  optional group Part = 4 { optional int32 x = 1; repeated string s = 2; }
  repeated int32 loose = 5;
  repeated int32 tight = 6 [packed = true];
  optional sint64 low = 7 [default = -5];
  optional Color color = 8 [default = RED];
}
enum Color { GREEN = 0; RED = 1; }
"#;

fn message(schema: &str, name: &str) -> MessageDescriptor {
    let file = compile_proto(schema, &BTreeMap::new()).unwrap();
    message_of(file.parent_pool(), name).unwrap()
}

fn column(name: &str, path: &str, data_type: DataType) -> PayloadColumn {
    let path = path.split('.').map(String::from).collect();
    PayloadColumn { name: name.into(), data_type, path, known: vec![], time: TimeFormat::default(), needed: true }
}

fn field(name: &str, data_type: DataType) -> ArrowField {
    ArrowField::new(name, data_type, true)
}

fn list(item: DataType) -> DataType {
    DataType::new_list(item, true)
}

/// The type in which a column of a field loses nothing; messages nest so deep.
fn natural(field: &prost_reflect::FieldDescriptor, depth: usize) -> DataType {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { panic!() };
        let entry = [entry.map_entry_key_field(), entry.map_entry_value_field()].map(|field| self::field(field.name(), natural(&field, depth)));
        return list(DataType::Struct(Fields::from(entry.to_vec())));
    }
    let one = match field.kind() {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => DataType::Int32,
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => DataType::Int64,
        Kind::Uint32 | Kind::Fixed32 => DataType::UInt32,
        Kind::Uint64 | Kind::Fixed64 => DataType::UInt64,
        Kind::Bool => DataType::Boolean,
        Kind::Float => DataType::Float32,
        Kind::Double => DataType::Float64,
        Kind::String | Kind::Enum(_) => DataType::Utf8View,
        Kind::Bytes => DataType::Binary,
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" => DataType::Timestamp(TimeUnit::Nanosecond, None),
            _ if super::well_known::is_wrapper(&message) => natural(&message.get_field_by_name("value").unwrap(), depth),
            _ => {
                let within = message.fields().filter(|field| depth > 0 || !matches!(field.kind(), Kind::Message(_)) || field.is_map());
                DataType::Struct(within.map(|field| self::field(field.name(), natural(&field, depth.saturating_sub(1)))).collect())
            }
        },
    };
    if field.is_list() { list(one) } else { one }
}

/// What a column of that type must hold.
fn expected(message: &DynamicMessage, field: &prost_reflect::FieldDescriptor, data_type: &DataType) -> Cell {
    if !field.is_list() && !field.is_map() && !message.has_field(field) && field.supports_presence() {
        return Cell::Null;
    }
    let value = message.get_field(field);
    match value.as_ref() {
        Value::List(items) => {
            let DataType::List(item) = data_type else { panic!("{data_type}") };
            Cell::List(items.iter().map(|value| single(value, &field.kind(), item.data_type())).collect())
        }
        value => single(value, &field.kind(), data_type),
    }
}

fn single(value: &Value, kind: &Kind, data_type: &DataType) -> Cell {
    match value {
        Value::Bool(value) => Cell::Bool(*value),
        Value::I32(value) => Cell::Int((*value).into()),
        Value::I64(value) => Cell::Int((*value).into()),
        Value::U32(value) => Cell::Int((*value).into()),
        Value::U64(value) => Cell::Int((*value).into()),
        Value::F32(value) => Cell::Float(f64::from(*value).to_bits()),
        Value::F64(value) => Cell::Float(value.to_bits()),
        Value::String(value) => Cell::Text(value.clone()),
        Value::Bytes(value) => Cell::Bytes(value.to_vec()),
        Value::EnumNumber(number) => {
            Cell::Text(kind.as_enum().unwrap().get_value(*number).map_or_else(|| number.to_string(), |value| value.name().to_string()))
        }
        Value::Message(message) => match message.descriptor().full_name() {
            "google.protobuf.Timestamp" => {
                let number = |name: &str| match message.get_field_by_name(name).unwrap().as_ref() {
                    Value::I64(value) => i128::from(*value),
                    Value::I32(value) => i128::from(*value),
                    other => panic!("{other:?}"),
                };
                Cell::Int(number("seconds") * 1_000_000_000 + number("nanos"))
            }
            _ if super::well_known::is_wrapper(&message.descriptor()) => {
                expected(message, &message.descriptor().get_field_by_name("value").unwrap(), data_type)
            }
            _ => {
                let DataType::Struct(fields) = data_type else { panic!("{data_type}") };
                let descriptor = message.descriptor();
                Cell::List(fields.iter().map(|field| expected(message, &descriptor.get_field_by_name(field.name()).unwrap(), field.data_type())).collect())
            }
        },
        other => panic!("{other:?} of type {data_type}"),
    }
}

/// Maps have no order: their entries in one.
fn sorted(cell: Cell, data_type: &DataType, map: &dyn Fn(&DataType) -> bool) -> Cell {
    match (cell, data_type) {
        (Cell::List(items), DataType::List(item)) => {
            let mut items: Vec<Cell> = items.into_iter().map(|cell| sorted(cell, item.data_type(), map)).collect();
            if map(item.data_type()) {
                items.sort_by_key(|cell| format!("{cell:?}"));
            }
            Cell::List(items)
        }
        (Cell::List(cells), DataType::Struct(fields)) => {
            Cell::List(cells.into_iter().zip(fields).map(|(cell, field)| sorted(cell, field.data_type(), map)).collect())
        }
        (cell, _) => cell,
    }
}

fn is_entry(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Struct(fields) if fields.len() == 2 && fields[0].name() == "key" && fields[1].name() == "value")
}

fn random(message: &MessageDescriptor, rng: &mut ChaCha8Rng, depth: usize) -> DynamicMessage {
    let mut made = DynamicMessage::new(message.clone());
    for field in message.fields() {
        let nested = matches!(field.kind(), Kind::Message(_));
        if rng.random_bool(0.4) || (nested && depth == 0) {
            continue;
        }
        let value = if field.is_map() {
            let Kind::Message(entry) = field.kind() else { panic!() };
            let count = rng.random_range(0..4);
            let key = |rng: &mut ChaCha8Rng| match random_value(&entry.map_entry_key_field().kind(), rng, depth) {
                Value::Bool(key) => MapKey::Bool(key),
                Value::I32(key) => MapKey::I32(key),
                Value::I64(key) => MapKey::I64(key),
                Value::String(key) => MapKey::String(key),
                other => panic!("{other:?}"),
            };
            Value::Map((0..count).map(|_| (key(rng), random_value(&entry.map_entry_value_field().kind(), rng, depth))).collect())
        } else if field.is_list() {
            let count = rng.random_range(0..5);
            Value::List((0..count).map(|_| random_value(&field.kind(), rng, depth)).collect())
        } else {
            random_value(&field.kind(), rng, depth)
        };
        made.set_field(&field, value);
    }
    made
}

fn random_value(kind: &Kind, rng: &mut ChaCha8Rng, depth: usize) -> Value {
    let whole = |rng: &mut ChaCha8Rng| *[0, 1, -1, 127, 128, i64::MAX, i64::MIN, rng.random::<i64>(), i64::from(rng.random::<i16>())].choose(rng).unwrap();
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(whole(rng) as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(whole(rng)),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(whole(rng) as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(whole(rng) as u64),
        Kind::Bool => Value::Bool(rng.random()),
        // No -0.0: the other writer leaves it out, as if it were the default.
        Kind::Float => Value::F32(*[0.0, 1.5, f32::NAN, f32::INFINITY, rng.random()].choose(rng).unwrap()),
        Kind::Double => Value::F64(*[0.0, 1.5, f64::NAN, f64::NEG_INFINITY, rng.random()].choose(rng).unwrap()),
        Kind::String => {
            Value::String((*["", "a", "twelve bytes", "thirteen bytes", "é", "a longer text that is no inline view"].choose(rng).unwrap()).to_string())
        }
        Kind::Bytes => Value::Bytes((0..rng.random_range(0..20)).map(|_| rng.random::<u8>()).collect::<Vec<u8>>().into()),
        Kind::Enum(_) => Value::EnumNumber(*[0, 1, 2, -1, 77].choose(rng).unwrap()),
        Kind::Message(message) if message.full_name() == "google.protobuf.Timestamp" => {
            let mut time = DynamicMessage::new(message.clone());
            time.set_field_by_name("seconds", Value::I64(rng.random_range(-9_000_000_000..9_000_000_000)));
            time.set_field_by_name("nanos", Value::I32(rng.random_range(0..1_000_000_000)));
            Value::Message(time)
        }
        Kind::Message(message) => Value::Message(random(message, rng, depth - 1)),
    }
}

/// All fields of a message as columns.
fn all_columns(message: &MessageDescriptor) -> Vec<PayloadColumn> {
    message.fields().map(|field| column(field.name(), field.name(), natural(&field, 2))).collect()
}

fn read(def: &ProtobufDef, columns: &[PayloadColumn], payloads: &[&[u8]]) -> ReadBatch {
    let mut builder = RecordsBuilder::new();
    for (at, payload) in payloads.iter().enumerate() {
        builder.push(at as i64, None, None, Some(payload), vec![]);
    }
    let read = ProtobufReader::new(def, columns).unwrap().read(&builder.finish(), &|_| true).unwrap();
    for (array, column) in read.columns.iter().zip(columns) {
        assert_eq!((array.data_type(), array.len()), (&column.data_type, read.record_of.len()));
        array.to_data().validate_full().unwrap();
    }
    read
}

fn check(message: &DynamicMessage, bytes: &[u8]) {
    let columns = all_columns(&message.descriptor());
    let found = read(&ProtobufDef::new(message.descriptor(), Framing::None), &columns, &[bytes]);
    assert_eq!(found.errors, []);
    for (column, array) in columns.iter().zip(&found.columns) {
        let field = message.descriptor().get_field_by_name(&column.name).unwrap();
        let expected = match message.get_field(&field).as_ref() {
            Value::Map(_) => map_cells(message, &field, &column.data_type),
            _ => expected_deep(message, &field, &column.data_type),
        };
        let found = sorted(cell(array, 0), &column.data_type, &is_entry);
        assert_eq!(found, sorted(expected, &column.data_type, &is_entry), "{}", column.name);
    }
}

/// As [`expected`], with maps on the way.
fn expected_deep(message: &DynamicMessage, field: &prost_reflect::FieldDescriptor, data_type: &DataType) -> Cell {
    if !field.is_list() && !field.is_map() && !message.has_field(field) && field.supports_presence() {
        return Cell::Null;
    }
    let one = |value: &Value, data_type: &DataType| match (value, data_type) {
        (Value::Message(within), DataType::Struct(fields)) => {
            let descriptor = within.descriptor();
            Cell::List(fields.iter().map(|field| expected_deep(within, &descriptor.get_field_by_name(field.name()).unwrap(), field.data_type())).collect())
        }
        _ => single(value, &field.kind(), data_type),
    };
    match (message.get_field(field).as_ref(), data_type) {
        (Value::Map(_), _) => map_cells(message, field, data_type),
        (Value::List(items), DataType::List(item)) => Cell::List(items.iter().map(|value| one(value, item.data_type())).collect()),
        (Value::Message(_), DataType::Struct(_)) => one(&message.get_field(field), data_type),
        _ => expected(message, field, data_type),
    }
}

fn map_cells(message: &DynamicMessage, field: &prost_reflect::FieldDescriptor, data_type: &DataType) -> Cell {
    let value = message.get_field(field);
    let (Value::Map(entries), DataType::List(item), Kind::Message(entry)) = (value.as_ref(), data_type, field.kind()) else { panic!() };
    let DataType::Struct(fields) = item.data_type() else { panic!() };
    let mut wrapped = DynamicMessage::new(entry.clone());
    let cells = entries.iter().map(|(key, value)| {
        wrapped.set_field(&entry.map_entry_key_field(), Value::from(key.clone()));
        wrapped.set_field(&entry.map_entry_value_field(), value.clone());
        Cell::List(vec![
            expected_deep(&wrapped, &entry.map_entry_key_field(), fields[0].data_type()),
            expected_deep(&wrapped, &entry.map_entry_value_field(), fields[1].data_type()),
        ])
    });
    Cell::List(cells.collect())
}

fn encode(message: &DynamicMessage) -> Vec<u8> {
    use prost::Message;
    message.encode_to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_another_writer_encodes_is_read_back(seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let made = random(&message(SCHEMA, "shop.Order"), &mut rng, 3);
        check(&made, &encode(&made));
    }

    #[test]
    fn two_messages_behind_each_other_are_one(seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let descriptor = message(SCHEMA, "shop.Order");
        let bytes = [encode(&random(&descriptor, &mut rng, 3)), encode(&random(&descriptor, &mut rng, 3))].concat();
        check(&DynamicMessage::decode(descriptor, bytes.as_slice()).unwrap(), &bytes);
    }

    #[test]
    fn old_syntax(seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut made = random(&message(SCHEMA_2, "Old"), &mut rng, 3);
        made.set_field_by_name("id", Value::I64(7));
        for (name, value) in [("name", Value::String("nobody".into())), ("low", Value::I64(-5)), ("color", Value::EnumNumber(1))] {
            if !made.has_field_by_name(name) {
                made.set_field_by_name(name, value);
            }
        }
        check(&made, &encode(&made));
    }

    #[test]
    fn broken_messages_are_errors_or_what_another_reader_reads(seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let descriptor = message(SCHEMA, "shop.Order");
        let mut bytes = encode(&random(&descriptor, &mut rng, 3));
        for _ in 0..rng.random_range(1..4) {
            match (rng.random_range(0..3), bytes.len()) {
                (_, 0) => bytes.push(rng.random()),
                (0, length) => bytes[rng.random_range(0..length)] = rng.random(),
                (1, length) => bytes.truncate(rng.random_range(0..length)),
                (_, length) => bytes.insert(rng.random_range(0..=length), rng.random()),
            }
        }
        let columns = all_columns(&descriptor);
        let good = encode(&random(&descriptor, &mut rng, 1));
        let found = read(&ProtobufDef::new(descriptor.clone(), Framing::None), &columns, &[&good, &bytes, &good]);
        // The neighbours stay whole, whatever becomes of it.
        prop_assert!(found.record_of.starts_with(&[0]) && found.record_of.ends_with(&[2]));
        prop_assert_eq!(found.record_of.len() + found.errors.len(), 3);
        for array in &found.columns {
            prop_assert_eq!(cell(array, 0), cell(array, found.record_of.len() - 1));
        }
        // What another reader makes of it is made of it here, too, but for times that no column holds. Where that one fails, this one may not have looked.
        if let Ok(message) = DynamicMessage::decode(descriptor, bytes.as_slice()) {
            match found.errors.first() {
                None => check(&message, &bytes),
                Some(bad) => {
                    // The other reader takes the entries of a map however they are written.
                    let is_map = ["counts", "by_id", "notes"].iter().any(|name| bad.reason.contains(&format!("field {name} is written as")));
                    prop_assert!(is_map || bad.reason.contains("where TIMESTAMP(9) is expected"), "{}", bad.reason);
                }
            }
        }
    }
}

fn texts(found: &ReadBatch) -> Vec<Vec<String>> {
    let text = |cell: Cell| match cell {
        Cell::Text(text) => text,
        Cell::Int(number) => number.to_string(),
        Cell::Null => "NULL".into(),
        other => format!("{other:?}"),
    };
    (0..found.record_of.len()).map(|row| found.columns.iter().map(|array| text(cell(array, row))).collect()).collect()
}

#[test]
fn paths_go_through_messages_and_what_is_absent_is_null() {
    let order = message(SCHEMA, "shop.Order");
    let def = ProtobufDef::new(order, Framing::None);
    let columns = [
        column("name", "item.name", DataType::Utf8View),
        column("inner", "item.inner.count", DataType::Int64),
        column("a", "a", DataType::Int16),
        column("c", "c.count", DataType::Int32),
        column("i", "i32", DataType::Int64),
        column("json", "wrappedText", DataType::Utf8View),
    ];
    // item { name "x" inner {} } in two parts, then a = 300 put out by c { count 5 }.
    let parts: &[u8] = &[0xb2, 0x01, 3, 0x0a, 1, b'x', 0xb2, 0x01, 2, 0x1a, 0, 0xd0, 0x01, 0xac, 0x02, 0xe2, 0x01, 2, 0x10, 5];
    // The other way round: c put out by b, which nobody reads.
    let put_out: &[u8] = &[0xe2, 0x01, 2, 0x10, 5, 0xda, 0x01, 1, b'z', 0x08, 9];
    let found = read(&def, &columns, &[parts, put_out, &[], &[0xd0, 0x01, 0xff, 0xff, 0x7f]]);
    assert_eq!(
        texts(&found),
        [["x", "0", "NULL", "5", "0", "NULL"], ["NULL", "NULL", "NULL", "NULL", "9", "NULL"], ["NULL", "NULL", "NULL", "NULL", "0", "NULL"]]
    );
    assert_eq!(found.errors[0].reason, "column a has 2097151 where SMALLINT is expected");
}

#[test]
fn types_beside_the_natural_ones() {
    let order = message(SCHEMA, "shop.Order");
    let mut made = DynamicMessage::new(order.clone());
    made.set_field_by_name("text", Value::String("12.50".into()));
    made.set_field_by_name("i64", Value::I64(1_700_000_000_123));
    made.set_field_by_name("state", Value::EnumNumber(2));
    made.set_field_by_name("number", Value::F64(1e300));
    made.set_field_by_name("flag", Value::Bool(true));
    made.set_field_by_name("many", Value::List(vec![Value::I64(1), Value::I64(-2)]));
    made.set_field_by_name("counts", Value::Map([(MapKey::String("k\"".into()), Value::I64(3))].into()));
    let mut item = DynamicMessage::new(message_of(order.parent_pool(), "shop.Item").unwrap());
    item.set_field_by_name("name", Value::String("a".into()));
    item.set_field_by_name("state", Value::EnumNumber(1));
    made.set_field_by_name("items", Value::List(vec![Value::Message(item.clone()), Value::Message(item)]));
    let mut time = column("time", "i64", DataType::Timestamp(TimeUnit::Millisecond, None));
    time.time = TimeFormat::EpochMillis;
    let columns = [
        column("d", "text", DataType::Decimal128(10, 2)),
        time,
        column("n", "state", DataType::Int8),
        column("x", "number", DataType::Utf8View),
        column("y", "i64", DataType::Utf8View),
        column("f", "flag", DataType::Utf8),
        column("s", "state", DataType::Utf8),
        column("m", "many", DataType::Utf8View),
        column("k", "counts", DataType::Utf8View),
        column("o", "items", DataType::Utf8View),
    ];
    let found = read(&ProtobufDef::new(order, Framing::None), &columns, &[&encode(&made)]);
    let item = r#"{"name":"a","state":"OPEN"}"#;
    let expected = ["1250", "1700000000123", "2", "1e+300", "1700000000123", "true", "A_STATE_WITH_A_LONG_NAME", "[1,-2]", r#"{"k\"":3}"#];
    assert_eq!(texts(&found)[0][..9], expected);
    assert_eq!(texts(&found)[0][9], format!("[{item},{item}]"));
}

#[test]
fn frames_of_a_registry() {
    let pool = compile_proto("syntax = \"proto3\"; message A { message B { int32 x = 1; } } message C { int32 x = 1; }", &BTreeMap::new()).unwrap();
    let def = |name: &str| ProtobufDef::new(message_of(pool.parent_pool(), name).unwrap(), Framing::Confluent);
    let x = [column("x", "x", DataType::Int32)];
    let framed = |indexes: &[u8]| [&[0, 0, 0, 0, 7], indexes, &[0x08, 5]].concat();
    let (c, b, first) = (framed(&[2, 2]), framed(&[4, 0, 0]), framed(&[0]));
    assert_eq!(texts(&read(&def("C"), &x, &[&c])), [["5"]]);
    assert_eq!(texts(&read(&def("A.B"), &x, &[&b])), [["5"]]);
    let cases: [(&[u8], &str); 5] = [
        (&first, "the payload is a message with the indexes [0] of its schema, and C has [1]"),
        (&[1, 0, 0, 0, 7, 0], "begins with byte 1, not with a schema registry's header"),
        (&[0, 0, 0], "ends within a schema registry's header"),
        (&[0, 0, 0, 0, 7, 2], "indexes of a message that are cut off"),
        (&[0, 0, 0, 0, 7, 0xfe, 0xff, 0xff, 0xff, 0x0f], "make no sense"),
    ];
    for (payload, expected) in cases {
        let found = read(&def("C"), &x, &[payload]);
        assert!(found.errors[0].reason.contains(expected), "{}", found.errors[0].reason);
    }
}

#[test]
fn faults_say_where() {
    let order = message(SCHEMA, "shop.Order");
    let columns = all_columns(&order);
    let cases: [(&[u8], &str); 5] = [
        (&[0x0d, 1, 2, 3, 4], "malformed Protobuf at byte 5: field i32 (1) is written as a number of 4 bytes where a number of varying length is expected"),
        (&[0x72, 1, 0xff], "malformed Protobuf in column text at byte 2: text is not valid UTF-8"),
        (&[0x92, 0x01, 1, 0x80], "malformed Protobuf in column many at byte 3: a number is cut off"),
        (&[0xea, 0x01, 7, 0x08, 1, 0x10, 0x80, 0xf8, 0x7f], "malformed Protobuf at byte 2: a length reaches beyond"),
        (
            &[0xea, 0x01, 11, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            "column at has 0 s and -1 ns since 1970 where TIMESTAMP(9) is expected",
        ),
    ];
    for (payload, expected) in cases {
        let found = read(&ProtobufDef::new(order.clone(), Framing::None), &columns, &[payload]);
        assert!(found.errors[0].reason.starts_with(expected), "{}", found.errors[0].reason);
    }
    let old = message(SCHEMA_2, "Old");
    let found = read(&ProtobufDef::new(old.clone(), Framing::None), &all_columns(&old), &[&[]]);
    assert_eq!(found.errors[0].reason, "column id has no value where a required field is expected");
}

#[test]
fn entries_of_maps_have_their_zeros_and_each_key_once() {
    let schema = r#"syntax = "proto2"; message M { map<int32, int64> m = 1; map<string, string> s = 2; }"#;
    let message = message(schema, "M");
    let entry = |bytes: &[u8]| [&[0x0a, bytes.len() as u8], bytes].concat();
    let payload = [
        // -1 in ten bytes, in five, and nothing of an entry at all.
        entry(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x10, 0x01]),
        entry(&[0x08, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x10, 0x02]),
        entry(&[]),
        vec![0x12, 0x00],
    ]
    .concat();
    let found = read(&ProtobufDef::new(message.clone(), Framing::None), &all_columns(&message), &[&payload]);
    assert_eq!(found.errors, []);
    assert_eq!(cell(&found.columns[0], 0), Cell::List(vec![Cell::List(vec![Cell::Int(-1), Cell::Int(2)]), Cell::List(vec![Cell::Int(0), Cell::Int(0)])]));
    assert_eq!(cell(&found.columns[1], 0), Cell::List(vec![Cell::List(vec![Cell::Text(String::new()), Cell::Text(String::new())])]));
}

#[test]
fn declarations_that_do_not_fit_are_refused_with_advice() {
    let order = message(SCHEMA, "shop.Order");
    let cases = [
        (column("x", "nope", DataType::Int32), "message shop.Order has no field nope: it has i32, i64"),
        (column("x", "items.name", DataType::Utf8View), "which is repeated: declare the column as an ARRAY"),
        (column("x", "counts.a", DataType::Utf8View), "which is a map"),
        (column("x", "i32.a", DataType::Utf8View), "which is no message"),
        (column("x", "number", DataType::Int64), "declare it as DOUBLE, REAL or TEXT"),
        (column("x", "raw", DataType::Utf8View), "declare it as BYTEA"),
        (column("x", "many", DataType::Int64), "declare it as an ARRAY"),
        (column("x", "item", DataType::Int64), "declare it as STRUCT<…>"),
        (column("x", "at", DataType::Int64), "declare it as TIMESTAMP"),
        (column("x", "i64", DataType::Timestamp(TimeUnit::Millisecond, None)), "FORMAT 'epoch_s'"),
    ];
    for (column, expected) in cases {
        let error = ProtobufReader::new(&ProtobufDef::new(order.clone(), Framing::None), &[column]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn many_small_parts_take_no_more_room_than_they_warrant() {
    // A million empty items, two bytes each, and a million numbers, one byte each.
    let order = message(SCHEMA, "shop.Order");
    let items: Vec<u8> = [0xba, 0x01, 0].repeat(300_000);
    let mut numbers = vec![0x92, 0x01];
    let mut length = 1_000_000u32;
    while length >= 0x80 {
        numbers.push(length as u8 | 0x80);
        length >>= 7;
    }
    numbers.push(length as u8);
    numbers.extend(std::iter::repeat_n(2, 1_000_000));
    let columns =
        [column("items", "items", list(DataType::Struct(Fields::from(vec![field("count", DataType::Int64)])))), column("many", "many", list(DataType::Int64))];
    let found = read(&ProtobufDef::new(order, Framing::None), &columns, &[&items, &numbers]);
    let sizes: Vec<usize> = found.columns.iter().map(|array| array.get_array_memory_size()).collect();
    assert!(sizes[0] < 40 * items.len() && sizes[1] < 40 * numbers.len(), "{sizes:?}");
}
