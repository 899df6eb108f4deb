//! Cases for each rule, and random records against an oracle.

#![allow(clippy::unwrap_used)]

mod avro;
mod cases;
mod context;
mod drift;
mod keys;
mod oracle;
mod property;
mod suite;

use std::time::Duration;

use arrow::{
    array::{Array, AsArray},
    datatypes::*,
};

use super::{Decoded, Decoder};
use crate::{
    catalog::{ColumnDef, Format, KafkaDef, Metadata, Origin, SourceDef, Startup, TimeFormat, WatermarkDef},
    source::{Records, RecordsBuilder},
};

/// A value of any type, for comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    /// Integers, and dates, timestamps and decimals as they count.
    Int(i128),
    /// The bits of a double; a float is widened.
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
}

fn text(text: &str) -> Cell {
    Cell::Text(text.into())
}

fn float(value: f64) -> Cell {
    Cell::Float(value.to_bits())
}

pub(super) fn cell(array: &dyn Array, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    macro_rules! int {
        ($type:ty) => {
            Cell::Int(array.as_primitive::<$type>().value(row).into())
        };
    }
    match array.data_type() {
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        DataType::Int8 => int!(Int8Type),
        DataType::Int16 => int!(Int16Type),
        DataType::Int32 => int!(Int32Type),
        DataType::Int64 => int!(Int64Type),
        DataType::UInt8 => int!(UInt8Type),
        DataType::UInt16 => int!(UInt16Type),
        DataType::UInt32 => int!(UInt32Type),
        DataType::UInt64 => int!(UInt64Type),
        DataType::Decimal128(..) => int!(Decimal128Type),
        DataType::Date32 => int!(Date32Type),
        DataType::Timestamp(TimeUnit::Second, _) => int!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => int!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => int!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => int!(TimestampNanosecondType),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::Utf8View => text(array.as_string_view().value(row)),
        DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row).into()),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Cell::List((0..items.len()).map(|item| cell(&items, item)).collect())
        }
        DataType::Struct(_) => Cell::List(array.as_struct().columns().iter().map(|column| cell(column, row)).collect()),
        other => panic!("no cell for {other}"),
    }
}

/// All rows of a batch.
fn rows(decoded: &Decoded) -> Vec<Vec<Cell>> {
    (0..decoded.batch.num_rows()).map(|row| decoded.batch.columns().iter().map(|column| cell(column, row)).collect()).collect()
}

fn column(name: &str, data_type: DataType) -> ColumnDef {
    at(name, data_type, &[name], TimeFormat::Rfc3339)
}

fn at(name: &str, data_type: DataType, path: &[&str], time: TimeFormat) -> ColumnDef {
    let path = path.iter().map(|part| part.to_string()).collect();
    ColumnDef { name: name.into(), data_type, origin: Origin::Payload { path, time } }
}

fn metadata(name: &str, data_type: DataType, origin: Metadata) -> ColumnDef {
    ColumnDef { name: name.into(), data_type, origin: Origin::Metadata(origin) }
}

fn source(columns: Vec<ColumnDef>, watermark: Option<&str>) -> SourceDef {
    SourceDef {
        name: "s".into(),
        columns,
        watermark: watermark.map(|column| WatermarkDef { column: column.into(), bound: Duration::from_secs(5) }),
        kafka: KafkaDef {
            topic: "t".into(),
            brokers: "b".into(),
            startup: Startup::Earliest,
            on_data_loss: Default::default(),
            properties: Default::default(),
            link: Default::default(),
            throttle: Default::default(),
        },
        format: Format::Json,
        header_filter: None,
        key: None,
        idle_timeout: Duration::from_secs(30),
        max_future_skew: Duration::from_secs(86_400),
        max_drift: Duration::from_secs(3_600),
        error_rows: 100,
        text: String::new(),
    }
}

/// Records with these payloads, offsets from 0 and no timestamp; binary keys lie between them.
fn records<P: AsRef<[u8]>>(payloads: &[P]) -> Records {
    let mut builder = RecordsBuilder::new();
    for (offset, payload) in (0..).zip(payloads) {
        builder.push(offset, None, Some(b"\xff\"{["), Some(payload.as_ref()), Vec::new());
    }
    builder.finish()
}

/// Decodes payloads into all columns.
fn decode<P: AsRef<[u8]>>(columns: Vec<ColumnDef>, payloads: &[P]) -> Decoded {
    let all: Vec<usize> = (0..columns.len()).collect();
    let mut decoder = Decoder::new(&source(columns, None), &all).unwrap();
    decoder.decode(0, &records(payloads), 0).unwrap()
}

/// What becomes of a payload's value under key "v": its cell, or the reason against it.
fn read(data_type: DataType, value: &str) -> Result<Cell, String> {
    read_time(data_type, TimeFormat::Rfc3339, value)
}

fn read_time(data_type: DataType, time: TimeFormat, value: &str) -> Result<Cell, String> {
    let columns = vec![at("v", data_type, &["v"], time)];
    // A good record on either side must come through whatever happens between them.
    let decoded = decode(columns, &["{}".into(), format!("{{\"v\":{value}}}"), "{\"v\":null}".into()]);
    let mut rows = rows(&decoded);
    assert_eq!(rows.remove(0), [Cell::Null]);
    assert_eq!(rows.pop().unwrap(), [Cell::Null]);
    match decoded.errors.as_slice() {
        [] => Ok(rows.pop().unwrap().pop().unwrap()),
        [bad] => {
            assert!(rows.is_empty());
            assert_eq!(bad.record, 1);
            Err(bad.reason.clone())
        }
        more => panic!("{more:?}"),
    }
}
