//! What lies around the payload: metadata columns, event time, and which columns are needed.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

use super::*;
use crate::source::Header;

const NANOS: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

#[test]
fn metadata_columns() {
    let fields = Fields::from(vec![Field::new("key", DataType::Utf8, true), Field::new("value", DataType::Binary, true)]);
    let headers = DataType::List(Arc::new(Field::new("item", DataType::Struct(fields), true)));
    let columns = vec![
        metadata("p", DataType::Int32, Metadata::Partition),
        metadata("p8", DataType::Int64, Metadata::Partition),
        metadata("o", DataType::Int64, Metadata::Offset),
        metadata("t", DataType::Timestamp(TimeUnit::Millisecond, None), Metadata::Timestamp),
        metadata("tn", NANOS, Metadata::Timestamp),
        metadata("k", DataType::Utf8View, Metadata::Key),
        metadata("kb", DataType::Binary, Metadata::Key),
        metadata("h", headers, Metadata::Headers),
        column("a", DataType::Int64),
    ];
    let mut builder = RecordsBuilder::new();
    let header = |key: &str, value: Option<&[u8]>| Header { key: key.into(), value: value.map(Vec::from) };
    builder.push(10, Some(1500), Some("ключ und mehr".as_bytes()), Some(b"[{\"a\":1},{\"a\":2}]"), vec![header("x", Some(b"\xff")), header("y", None)]);
    builder.push(12, Some(1600), None, Some(b"{\"a\":\"bad\"}"), vec![header("lost", None)]);
    builder.push(15, None, Some(b"\xff"), Some(b"{\"a\":3}"), Vec::new());
    builder.push(16, Some(i64::MAX / 1000), None, Some(b"{}"), Vec::new());
    let all: Vec<usize> = (0..columns.len()).collect();
    let mut decoder = Decoder::new(&source(columns, None), &all).unwrap();
    let decoded = decoder.decode(7, &builder.finish(), 0).unwrap();
    let pair = |key: &str, value| Cell::List(vec![text(key), value]);
    let first = |a| {
        let headers = Cell::List(vec![pair("x", Cell::Bytes(vec![255])), pair("y", Cell::Null)]);
        let key = "ключ und mehr";
        let [p, o, ms, ns] = [7, 10, 1500, 1_500_000_000].map(Cell::Int);
        vec![p.clone(), p, o, ms, ns, text(key), Cell::Bytes(key.into()), headers, Cell::Int(a)]
    };
    let third =
        vec![Cell::Int(7), Cell::Int(7), Cell::Int(15), Cell::Null, Cell::Null, Cell::Null, Cell::Bytes(vec![255]), Cell::List(Vec::new()), Cell::Int(3)];
    assert_eq!(rows(&decoded), [first(1), first(2), third]);
    assert_eq!(decoded.errors.iter().map(|bad| bad.record).collect::<Vec<_>>(), [1, 3]);
    assert!(decoded.errors[1].reason.starts_with("column tn can't hold the record's timestamp"), "{:?}", decoded.errors);
    for (data_type, origin) in [(DataType::Utf8, Metadata::Offset), (DataType::Int64, Metadata::Timestamp), (DataType::Int64, Metadata::Headers)] {
        assert!(Decoder::new(&source(vec![metadata("m", data_type, origin)], None), &[0]).is_err());
    }
}

#[test]
fn a_null_payload_is_bad() {
    let mut builder = RecordsBuilder::new();
    builder.push(0, None, Some(b"key"), None, Vec::new());
    let mut decoder = Decoder::new(&source(vec![column("a", DataType::Int64)], None), &[0]).unwrap();
    let decoded = decoder.decode(0, &builder.finish(), 0).unwrap();
    assert_eq!(decoded.batch.num_rows(), 0);
    assert_eq!(decoded.errors, [super::super::BadRecord { record: 0, reason: "the payload is NULL".into(), retyped: None }]);
}

#[test]
fn a_record_needs_its_event_time() {
    let mut builder = RecordsBuilder::new();
    let day = 86_400_000;
    let at = |seconds: i64| format!("{{\"ts\":{seconds}}}");
    // Kafka timestamp 0 allows event times up to one day; without one, `now` (one day) allows up to two days.
    for (timestamp, payload) in [
        (Some(0), at(5)),
        (Some(0), "{}".into()),
        (Some(0), at(86_400)),
        (Some(0), at(86_401)),
        (None, at(86_401)),
        (None, at(2 * 86_400)),
        (None, at(2 * 86_400 + 1)),
        (Some(0), "{\"ts\":1.0}\n{\"ts\":null}".into()),
        (Some(0), at(10_000_000_000)),
        (Some(-day), at(-10_000_000_000)),
        (Some(0), at(7)),
    ] {
        builder.push(0, timestamp, None, Some(payload.as_bytes()), Vec::new());
    }
    let ts = at_seconds("ts", TimeUnit::Second);
    let records = builder.finish();
    // Whether the column is needed changes nothing.
    for needed in [vec![0, 1], vec![0]] {
        let mut decoder = Decoder::new(&source(vec![column("a", DataType::Int64), ts.clone()], Some("ts")), &needed).unwrap();
        let decoded = decoder.decode(0, &records, day).unwrap();
        let seconds: Vec<i64> = decoded.event_time.iter().map(|nanos| nanos / 1_000_000_000).collect();
        assert_eq!(seconds, [5, 86_400, 86_401, 2 * 86_400, 7]);
        assert_eq!(decoded.record_of, [0, 2, 4, 5, 10]);
        assert_eq!(decoded.batch.num_rows(), 5);
        assert_eq!(decoded.errors.iter().map(|bad| bad.record).collect::<Vec<_>>(), [1, 3, 6, 7, 8, 9]);
        assert_eq!(decoded.errors[0].reason, "the record has no value for its watermark column ts");
        assert!(decoded.errors[1].reason.contains("more than max.future.skew"), "{:?}", decoded.errors[1]);
        assert!(decoded.errors[5].reason.contains("outside the years"), "{:?}", decoded.errors[5]);
    }
}

/// A broker or a producer whose clock has jumped ahead by years makes no such time credible.
#[test]
fn a_timestamp_from_the_future_vouches_for_nothing() {
    let (now_s, far_s) = (1_700_000_000_i64, 4_102_444_800_i64);
    let ts = at_seconds("ts", TimeUnit::Second);
    let mut builder = RecordsBuilder::new();
    for (sent_s, event_s) in [(far_s, far_s), (far_s, now_s), (now_s, far_s)] {
        builder.push(0, Some(sent_s * 1000), None, Some(format!("{{\"ts\": {event_s}}}").as_bytes()), Vec::new());
    }
    let mut decoder = Decoder::new(&source(vec![ts], Some("ts")), &[0]).unwrap();
    let decoded = decoder.decode(0, &builder.finish(), now_s * 1000).unwrap();
    assert_eq!(decoded.record_of, [1]);
    let reasons: Vec<&str> = decoded.errors.iter().map(|bad| bad.reason.as_str()).collect();
    assert!(reasons[0].contains("after the time at which it was read"), "{reasons:?}");
    assert!(reasons[1].contains("after the record's timestamp"), "{reasons:?}");
}

fn at_seconds(name: &str, unit: TimeUnit) -> ColumnDef {
    at(name, DataType::Timestamp(unit, None), &[name], TimeFormat::EpochSeconds)
}

#[test]
fn the_records_timestamp_can_be_event_time() {
    let columns = vec![column("a", DataType::Int64), metadata("sent", NANOS, Metadata::Timestamp)];
    let mut builder = RecordsBuilder::new();
    builder.push(0, Some(3), None, Some(b"{}"), Vec::new());
    builder.push(1, None, None, Some(b"{}"), Vec::new());
    let mut decoder = Decoder::new(&source(columns, Some("sent")), &[0]).unwrap();
    let decoded = decoder.decode(0, &builder.finish(), 0).unwrap();
    assert_eq!(decoded.event_time, [3_000_000]);
    assert_eq!(decoded.errors.len(), 1);
}

#[test]
fn a_watermark_needs_a_timestamp_column() {
    for watermark in ["a", "missing"] {
        assert!(Decoder::new(&source(vec![column("a", DataType::Int64)], Some(watermark)), &[0]).is_err());
    }
}

#[test]
fn rows_without_any_needed_column_are_counted() {
    let mut decoder = Decoder::new(&source(vec![column("a", DataType::Int64)], None), &[]).unwrap();
    let decoded = decoder.decode(0, &records(&["{\"a\":1}", "{\"a\":\"x\"}", "{}"]), 0).unwrap();
    assert_eq!((decoded.batch.num_rows(), decoded.batch.num_columns()), (2, 0));
    assert_eq!(decoded.errors.len(), 1);
    assert_eq!(decoder.decode(0, &records::<&str>(&[]), 0).unwrap().batch.num_rows(), 0);
}

#[test]
fn event_time_is_the_same_whatever_is_needed() {
    let columns = || vec![column("at", DataType::Timestamp(TimeUnit::Nanosecond, None)), column("id", DataType::Int64)];
    let csv = SourceDef { format: Format::Csv(Default::default()), ..source(columns(), Some("at")) };
    let payloads = ["2024-01-01T00:00:00Z,x", "2024-01-02T00:00:00Z,1", "2024-01-03T00:00:00Z,x\n", "2024-01-04T00:00:00Z,2"];
    let decoded = |needed: &[usize]| Decoder::new(&csv, needed).unwrap().decode(0, &records(&payloads), i64::MAX / 2_000_000).unwrap();
    let all = decoded(&[0, 1]);
    assert_eq!((all.record_of.as_slice(), all.errors.len()), (&[1, 3][..], 2));
    for needed in [&[0][..], &[1], &[]] {
        let some = decoded(needed);
        assert_eq!((&some.event_time, &some.record_of, &some.errors), (&all.event_time, &all.record_of, &all.errors), "{needed:?}");
    }
}
