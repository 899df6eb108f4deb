//! Sources with a primary key: what the record's key says, and records without a payload.

use super::*;
use crate::catalog::{KeyDef, KeyFormat};

/// What becomes of records, as (key, payload).
fn keyed(columns: Vec<ColumnDef>, key: &[usize], format: KeyFormat, sent: &[(Option<&[u8]>, Option<&str>)]) -> Decoded {
    let all: Vec<usize> = (0..columns.len()).collect();
    let watermark = columns.iter().any(|column| column.name == "ts").then_some("ts");
    let source = SourceDef { key: Some(KeyDef { columns: key.to_vec(), format }), ..source(columns, watermark) };
    let mut builder = RecordsBuilder::new();
    for (offset, (key, value)) in (0..).zip(sent) {
        builder.push(offset, Some(0), *key, value.map(str::as_bytes), vec![]);
    }
    Decoder::new(&source, &all).unwrap().decode(0, &builder.finish(), 0).unwrap()
}

/// What a key of one column is read as: its cell, or the reason against it.
fn key(data_type: DataType, format: KeyFormat, key: &str) -> Result<Cell, String> {
    // A good key on either side must come through whatever happens between them.
    let good = match (&data_type, &format) {
        (DataType::Int64, _) => "7",
        (_, KeyFormat::Text) => "a value that is longer than a view holds inline",
        _ => "\"a value that is longer than a view holds inline\"",
    };
    let columns = vec![at("v", data_type, &["a", "v"], TimeFormat::Rfc3339)];
    let decoded = keyed(columns, &[0], format, &[good, key, good].map(|key| (Some(key.as_bytes()), Some("{}"))));
    let mut read = rows(&decoded);
    assert_eq!(read.first(), read.last());
    match decoded.errors.as_slice() {
        [] => Ok(read.remove(1).remove(0)),
        [bad] => {
            assert_eq!((bad.record, read.len()), (1, 2));
            Err(bad.reason.clone())
        }
        more => panic!("{more:?}"),
    }
}

#[test]
fn keys_in_json() {
    let json = |data_type, text| key(data_type, KeyFormat::Json, text);
    let text = |text: &str| Ok(Cell::Text(text.into()));
    for bare in ["5", " 5 ", "{\"a\":{\"v\":5}}", "{\"b\":1,\"a\":{\"v\":5,\"w\":[{}]}} "] {
        assert_eq!(json(DataType::Int64, bare), Ok(Cell::Int(5)), "{bare}");
    }
    assert_eq!(json(DataType::Utf8View, "\"x\\ny\""), text("x\ny"));
    assert_eq!(json(DataType::Utf8View, "\"a key that is longer than a view holds\""), text("a key that is longer than a view holds"));
    for (data_type, bad, reason) in [
        (DataType::Int64, "{}", "the key can't be read: column v is NULL"),
        (DataType::Int64, "null", "the key can't be read: column v is NULL"),
        (DataType::Int64, "{\"a\":{\"v\":null}}", "the key can't be read: column v is NULL"),
        (DataType::Int64, "{\"v\":5}", "the key can't be read: column v is NULL"),
        (DataType::Int64, "\"5\"", "the key can't be read: column v has \"5\" where BIGINT is expected"),
        (DataType::Int64, "[5]", "the key can't be read: column v has [5] where BIGINT is expected"),
        (DataType::Int64, "5 6", "the key can't be read: malformed JSON at byte 2: the key has something after it"),
        (DataType::Int64, "{\"a\":{\"v\":5}}{\"a\":{\"v\":5}}", "the key has something after it"),
        (DataType::Int64, "", "the key can't be read: it is empty"),
        (DataType::Int64, "{\"a\":{\"v\":5}", "the key can't be read: malformed JSON"),
        (DataType::Utf8View, "abc", "the key can't be read: malformed JSON"),
    ] {
        let found = json(data_type, bad).unwrap_err();
        assert!(found.contains(reason), "{bad}: {found}");
    }
}

#[test]
fn keys_as_text() {
    let read = |data_type, text| key(data_type, KeyFormat::Text, text);
    assert_eq!(read(DataType::Int64, "-5"), Ok(Cell::Int(-5)));
    for text in ["", "x", " \"quoted\" {", "ü\n", "null"] {
        assert_eq!(read(DataType::Utf8View, text), Ok(Cell::Text(text.into())), "{text}");
    }
    for bad in ["", " 5", "5 ", "x", "5,6", "{\"v\":5}", "[5]", "null", "\"5\"", "5.5", "99999999999999999999"] {
        let found = read(DataType::Int64, bad).unwrap_err();
        assert!(found.starts_with("the key can't be read: it is ") && found.ends_with(" where column v of type Int64 is expected"), "{bad}: {found}");
    }
}

#[test]
fn keys_of_several_columns_and_tombstones() {
    let columns = || {
        vec![
            column("n", DataType::Int64),
            column("v", DataType::Utf8View),
            at("id", DataType::Utf8View, &["k", "id"], TimeFormat::Rfc3339),
            column("ts", DataType::Timestamp(TimeUnit::Nanosecond, None)),
            metadata("off", DataType::Int64, Metadata::Offset),
        ]
    };
    let good = |n: i64, id: &str| format!("{{\"n\":{n},\"k\":{{\"id\":\"{id}\"}}}}").into_bytes();
    let (a, b, c) = (good(1, "x"), good(2, "a key that is longer than a view holds inline"), good(3, "z"));
    let payload = "{\"n\":99,\"v\":\"hello\",\"ts\":\"1970-01-01T00:00:01Z\"}";
    let decoded = keyed(
        columns(),
        &[0, 2],
        KeyFormat::Json,
        &[
            (Some(&a), Some(payload)),
            (Some(&b), None),
            (None, Some(payload)),
            (None, None),
            (Some(b"1"), Some(payload)),
            (Some(b"\xff"), None),
            (Some(&c), Some("{\"v\":7}")),
            (Some(&c), Some("")),
            (Some(&c), Some("[]")),
            (Some(&c), Some("{\"v\":\"no event time\"}")),
            (Some(&c), Some(&format!("{payload}\n{payload}"))),
            (Some(&c), Some(&format!("[{payload}]"))),
            (Some(b"{\"n\":1}"), None),
        ],
    );
    assert_eq!(
        rows(&decoded),
        [
            [Cell::Int(1), Cell::Text("hello".into()), Cell::Text("x".into()), Cell::Int(1_000_000_000), Cell::Int(0)],
            [Cell::Int(2), Cell::Null, Cell::Text("a key that is longer than a view holds inline".into()), Cell::Null, Cell::Int(1)],
            [Cell::Int(3), Cell::Text("hello".into()), Cell::Text("z".into()), Cell::Int(1_000_000_000), Cell::Int(11)],
        ]
    );
    assert_eq!((decoded.gone.clone(), decoded.record_of.clone()), (vec![false, true, false], vec![0, 1, 11]));
    assert_eq!(decoded.latest_event_time(), Some(1_000_000_000));
    let reasons: Vec<(u32, &str)> = decoded.errors.iter().map(|bad| (bad.record, bad.reason.as_str())).collect();
    let no_key = "the record has no key, and the source's PRIMARY KEY is read from it";
    assert_eq!(
        reasons,
        [
            (2, no_key),
            (3, no_key),
            (4, "the key can't be read: malformed JSON at byte 0: an object with the columns of the primary key is expected"),
            (5, "the key can't be read: it is not valid UTF-8 at byte 0"),
            (6, "the record has no value for its watermark column ts"),
            (7, "the payload is empty"),
            (8, "the payload holds 0 objects, and a record of a source with PRIMARY KEY is one row: send one object"),
            (9, "the record has no value for its watermark column ts"),
            (10, "the payload holds 2 objects, and a record of a source with PRIMARY KEY is one row: send one object"),
            (12, "the key can't be read: column id is NULL"),
        ]
    );
}

#[test]
fn without_a_primary_key_a_record_without_a_payload_is_bad() {
    let mut builder = RecordsBuilder::new();
    builder.push(0, None, Some(b"1"), None, vec![]);
    let decoded = Decoder::new(&source(vec![column("a", DataType::Int64)], None), &[0]).unwrap().decode(0, &builder.finish(), 0).unwrap();
    assert_eq!((decoded.batch.num_rows(), decoded.errors[0].reason.as_str()), (0, "the payload is NULL"));
    assert!(decoded.gone.is_empty());
}
