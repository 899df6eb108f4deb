//! The rules for one value, and for the grammar around it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

use super::*;

fn bad(data_type: DataType, values: &[&str]) {
    for value in values {
        let read = read(data_type.clone(), value);
        assert!(read.is_err(), "{data_type} {value}: {read:?}");
    }
}

fn good(data_type: DataType, cases: &[(&str, Cell)]) {
    for (value, expected) in cases {
        assert_eq!(read(data_type.clone(), value).as_ref(), Ok(expected), "{data_type} {value}");
    }
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn structure(fields: &[(&str, DataType)]) -> DataType {
    DataType::Struct(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Fields>())
}

#[test]
fn absent_and_null_are_null() {
    let columns = || vec![column("a", DataType::Int64), column("b", DataType::Utf8View), column("c", list(DataType::Int64))];
    let decoded = decode(columns(), &[r#"{}"#, r#"{"a":null,"b":null,"c":null}"#, r#"{"a":1,"b":"null","c":[null]}"#]);
    assert!(decoded.errors.is_empty());
    let null_row = vec![Cell::Null; 3];
    assert_eq!(rows(&decoded), [null_row.clone(), null_row, vec![Cell::Int(1), text("null"), Cell::List(vec![Cell::Null])]]);
    assert_eq!(decoded.record_of, [0, 1, 2]);
}

#[test]
fn a_reason_names_column_value_and_type() {
    assert_eq!(read(DataType::Int64, r#""abc""#).unwrap_err(), r#"column v has "abc" where BIGINT is expected"#);
    assert_eq!(read(DataType::Int32, "1.5").unwrap_err(), "column v has 1.5 where INT is expected");
    let long = read(DataType::Boolean, &format!("\"{}\"", "é".repeat(100))).unwrap_err();
    assert_eq!(long, format!("column v has \"{}… where BOOLEAN is expected", "é".repeat(29)));
    assert_eq!(read(DataType::Int64, "tru").unwrap_err(), "malformed JSON in column v at byte 5: this is no number, true, false or null");
    let reason = read(list(DataType::Date32), r#"["2020-02-02", "2020-02-30"]"#).unwrap_err();
    assert_eq!(reason, r#"column v has "2020-02-30" where DATE as 'YYYY-MM-DD' is expected"#);
    let reason = read_time(DataType::Timestamp(TimeUnit::Millisecond, None), TimeFormat::EpochMillis, "\"5\"").unwrap_err();
    assert_eq!(reason, r#"column v has "5" where TIMESTAMP(3) as milliseconds since 1970 is expected"#);
}

#[test]
fn integers() {
    good(DataType::Int64, &[("1", Cell::Int(1)), ("1.0", Cell::Int(1)), ("-0", Cell::Int(0)), ("12e2", Cell::Int(1200))]);
    good(DataType::Int64, &[("9223372036854775807", Cell::Int(i64::MAX.into())), ("-9223372036854775808", Cell::Int(i64::MIN.into()))]);
    bad(DataType::Int64, &["9223372036854775808", "-9223372036854775809", "1.5", "1e19", "1e-1", "\"1\"", "true", "{}", "[1]"]);
    bad(DataType::Int64, &["01", "+1", "1.", ".1", "1e", "-", "0x1", "NaN", "Infinity", "-Infinity", "nul", "TRUE"]);
    good(DataType::Int8, &[("-128", Cell::Int(-128)), ("127", Cell::Int(127))]);
    bad(DataType::Int8, &["128", "-129"]);
    bad(DataType::Int16, &["32768"]);
    bad(DataType::Int32, &["2147483648"]);
    good(DataType::UInt64, &[("18446744073709551615", Cell::Int(u64::MAX.into()))]);
    bad(DataType::UInt64, &["-1", "18446744073709551616"]);
    bad(DataType::UInt8, &["256"]);
    bad(DataType::UInt16, &["65536"]);
    bad(DataType::UInt32, &["4294967296"]);
}

#[test]
fn floats() {
    good(DataType::Float64, &[("1", float(1.0)), ("0.1", float(0.1)), ("-2.5e-3", float(-0.0025)), ("1e308", float(1e308))]);
    good(DataType::Float64, &[("123456789012345678901234567890", float(123456789012345678901234567890.0))]);
    bad(DataType::Float64, &["1e309", "\"1.5\"", "NaN", "Infinity", "true", "1.5.2", "1,5"]);
    good(DataType::Float32, &[("0.1", float(0.1f32.into()))]);
    bad(DataType::Float32, &["1e39", "\"1\""]);
}

#[test]
fn decimals_are_exact() {
    let decimal = DataType::Decimal128(6, 2);
    good(decimal.clone(), &[("1234.56", Cell::Int(123456)), ("\"1234.56\"", Cell::Int(123456)), ("1.5", Cell::Int(150))]);
    good(decimal.clone(), &[("-1e3", Cell::Int(-100000)), ("1.500", Cell::Int(150)), ("\"1\\u002e5\"", Cell::Int(150))]);
    bad(decimal, &["1.234", "10000", "\"1,5\"", "\"\"", "\" 1\"", "true", "\"NaN\"", "1e30"]);
    let widest = DataType::Decimal128(38, 0);
    good(widest.clone(), &[("99999999999999999999999999999999999999", Cell::Int(10i128.pow(38) - 1))]);
    bad(widest, &["100000000000000000000000000000000000000"]);
    good(DataType::Decimal128(3, -2), &[("12300", Cell::Int(123))]);
    bad(DataType::Decimal128(3, -2), &["12310"]);
}

#[test]
fn text_takes_anything() {
    for data_type in [DataType::Utf8View, DataType::Utf8] {
        good(data_type.clone(), &[(r#""""#, text("")), (r#""short""#, text("short")), (r#""exactly 12 b""#, text("exactly 12 b"))]);
        good(data_type.clone(), &[(r#""thirteen byte""#, text("thirteen byte")), (r#""ñandú 🦤 and then some""#, text("ñandú 🦤 and then some"))]);
        good(data_type.clone(), &[(r#""\"\\\/\b\f\n\r\t\u00e9\ud83e\udda4""#, text("\"\\/\u{8}\u{c}\n\r\té🦤"))]);
        good(data_type.clone(), &[(r#""a longer one with \u0041 in it""#, text("a longer one with A in it"))]);
        good(data_type.clone(), &[("1.50", text("1.50")), ("1e400", text("1e400")), ("true", text("true")), ("\"null\"", text("null"))]);
        good(data_type.clone(), &[(r#"{ "a" : [1, 2] }"#, text(r#"{ "a" : [1, 2] }"#)), ("[ ]", text("[ ]"))]);
        good(data_type.clone(), &[(r#"{"a":1,"a":"\n"}"#, text(r#"{"a":1,"a":"\n"}"#))]);
        bad(data_type.clone(), &[r#""\x""#, r#""\u12""#, r#""\ud800""#, r#""\ud800\u0041""#, r#""\udc00""#, "\"a\nb\"", "\"a\u{0}b\""]);
        bad(data_type, &["01", "tru", "[1,]", "{\"a\"}", "{\"a\":}", "{,}", "[1 2]", "{\"a\":1 \"b\":2}", "{a:1}", "[\"\\q\"]", "[nan]", "[\"\u{1}\"]"]);
    }
}

#[test]
fn bytes_come_from_text_alone() {
    good(DataType::Binary, &[(r#""é\n""#, Cell::Bytes("é\n".into())), (r#""""#, Cell::Bytes(Vec::new()))]);
    bad(DataType::Binary, &["1", "true", "[]", "{}"]);
}

#[test]
fn booleans() {
    good(DataType::Boolean, &[("true", Cell::Bool(true)), ("false", Cell::Bool(false))]);
    bad(DataType::Boolean, &["1", "0", "\"true\"", "True", "truex", "[]"]);
}

#[test]
fn dates_and_timestamps() {
    good(DataType::Date32, &[("\"1970-01-02\"", Cell::Int(1)), ("\"2024-02-29\"", Cell::Int(19_782)), ("\"1969-12-31\"", Cell::Int(-1))]);
    bad(DataType::Date32, &["\"2023-02-29\"", "\"2024-02-29T00:00:00Z\"", "1", "\"\""]);
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let zoned = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
    good(nanos.clone(), &[("\"1970-01-01T00:00:01.5Z\"", Cell::Int(1_500_000_000)), ("\"1970-01-01 01:00:00.000000001+01:00\"", Cell::Int(1))]);
    good(zoned.clone(), &[("\"1970-01-01T00:00:01.5Z\"", Cell::Int(1500)), ("\"1970-01-01T00:00:01\\u005a\"", Cell::Int(1000))]);
    bad(zoned, &["\"1970-01-01T00:00:00.0001Z\""]);
    bad(nanos.clone(), &["\"1970-01-01T00:00:00\"", "\"1970-01-01T00:00:00.1234567890Z\"", "\"2263-01-01T00:00:00Z\"", "0", "\"1970-01-01\""]);
    let madrid = TimeFormat::Local(chrono_tz::Europe::Madrid);
    assert_eq!(read_time(nanos.clone(), madrid.clone(), "\"1970-01-01 01:00:00\""), Ok(Cell::Int(0)));
    assert!(read_time(nanos.clone(), madrid, "\"2024-03-31 02:30:00\"").is_err());
    assert_eq!(read_time(nanos.clone(), TimeFormat::EpochSeconds, "1.000000001"), Ok(Cell::Int(1_000_000_001)));
    assert!(read_time(nanos.clone(), TimeFormat::EpochSeconds, "1.0000000001").is_err());
    assert!(read_time(nanos.clone(), TimeFormat::EpochSeconds, "1e10").is_err());
    assert!(read_time(nanos.clone(), TimeFormat::EpochSeconds, "\"1\"").is_err());
    assert_eq!(read_time(nanos.clone(), TimeFormat::EpochMillis, "-1"), Ok(Cell::Int(-1_000_000)));
    assert_eq!(read_time(nanos, TimeFormat::EpochMicros, "1"), Ok(Cell::Int(1000)));
}

#[test]
fn structs_and_lists() {
    let inner = structure(&[("x", DataType::Float64), ("at", DataType::Timestamp(TimeUnit::Second, None)), ("tags", list(DataType::Utf8View))]);
    let both = list(inner.clone());
    let item = |x, at, tags| Cell::List(vec![x, at, tags]);
    let json = r#"[ {"x":1,"extra":[{}],"at":"1970-01-01T00:00:05Z","tags":["a","\u0062",null]} , {} , null , {"x":1,"x":2} ]"#;
    let tags = Cell::List(vec![text("a"), text("b"), Cell::Null]);
    let expected = vec![item(float(1.0), Cell::Int(5), tags), item(Cell::Null, Cell::Null, Cell::Null), Cell::Null, item(float(2.0), Cell::Null, Cell::Null)];
    good(both.clone(), &[(json, Cell::List(expected)), ("[]", Cell::List(Vec::new())), ("[ ]", Cell::List(Vec::new()))]);
    bad(both, &["{}", "5", "\"[]\"", "[{\"x\":\"1\"}]", "[{\"at\":5}]", "[1]", "[[]]", "[{},]", "[,]", "[{} {}]", "[{\"tags\":{}}]"]);
    bad(inner, &["[]", "\"\"", "1", "{\"x\":1,\"y\":tru}", "{\"x\":tru,\"x\":1}", "{\"y\":[1,]}", "{\"x\":1,}", "{\"y\":\"\\q\"}", "{\"\\q\":1}"]);
    good(
        list(list(DataType::Int64)),
        &[("[[1,2],[],null]", { Cell::List(vec![Cell::List(vec![Cell::Int(1), Cell::Int(2)]), Cell::List(Vec::new()), Cell::Null]) })],
    );
}

#[test]
fn paths_through_scalars_and_arrays_are_null() {
    let columns = vec![at("v", DataType::Int64, &["a", "b"], TimeFormat::Rfc3339)];
    let payloads = [r#"{"a":{"b":1}}"#, r#"{"a":5}"#, r#"{"a":"b"}"#, r#"{"a":[{"b":1}]}"#, r#"{"a":null}"#, r#"{"a":{"b":1},"a":{"c":2}}"#];
    let decoded = decode(columns, &payloads);
    assert!(decoded.errors.is_empty());
    let mut expected = vec![vec![Cell::Null]; 6];
    expected[0] = vec![Cell::Int(1)];
    assert_eq!(rows(&decoded), expected);
}

#[test]
fn a_column_may_hold_what_others_look_into() {
    let columns = vec![
        column("a", DataType::Utf8View),
        at("b", DataType::Int64, &["a", "b"], TimeFormat::Rfc3339),
        at("b_text", DataType::Utf8, &["a", "b"], TimeFormat::Rfc3339),
    ];
    let decoded = decode(columns, &[r#"{"a":{"b":1.0}}"#]);
    assert_eq!(rows(&decoded), [vec![text(r#"{"b":1.0}"#), Cell::Int(1), text("1.0")]]);
}

#[test]
fn the_last_of_equal_keys_wins() {
    let columns = || vec![column("a", DataType::Int64)];
    let decoded = decode(columns(), &[r#"{"a":1,"a":2}"#, r#"{"a":"x","\u0061":3}"#, r#"{"a":4,"a":null}"#, r#"{"a":1,"a":"x"}"#]);
    assert_eq!(rows(&decoded), [vec![Cell::Int(2)], vec![Cell::Int(3)], vec![Cell::Null]]);
    assert_eq!(decoded.errors.len(), 1);
    assert_eq!(decoded.errors[0].record, 3);
}

#[test]
fn what_nobody_declared_is_checked_for_structure() {
    let columns = || vec![column("a", DataType::Int64)];
    let fine = [
        r#"{"a":1,"x":{"y":[1,2,{"z":"}]\""}]}}"#,
        r#"{"x":tru,"a":1}"#,
        r#"{"x":[1 2,,3],"a":1}"#,
        r#"{"x":{"\q":[nope]},"a":1}"#,
        "\t{ \"x\" : \"\u{1}\\q\" , \"a\"\r\n:\t1 }\n ",
    ];
    let decoded = decode(columns(), &fine);
    assert_eq!(decoded.errors, []);
    assert_eq!(rows(&decoded), vec![vec![Cell::Int(1)]; fine.len()]);
    let broken: [&[u8]; 22] = [
        b"",
        b" \n",
        br#"{"a":1,"x":"open}"#,
        br#"{"a":1,"x":[1}"#,
        br#"{"a":1,"x":{]}"#,
        br#"{"a":1,"x":[[]}"#,
        br#"{"a":1"#,
        br#"{"a":1}}"#,
        br#"{"a":1} x"#,
        br#"{"a":1},{"a":2}"#,
        br#"{"a":1}{"a":2}"#,
        br#"{"a":1,}"#,
        br#"{,"a":1}"#,
        br#"{"a" 1}"#,
        br#"{a:1}"#,
        br#"{"a":1 "x":2}"#,
        br#"{"x":1 2,"a":1}"#,
        br#"{"x":,"a":1}"#,
        br#"{"x":\,"a":1}"#,
        b"{\"a\":1,\"x\":\"\xff\"}",
        b"{\"a\":1,\"x\0\":\"\"}",
        b"\0",
    ];
    let decoded = decode(columns(), &broken);
    assert_eq!(decoded.batch.num_rows(), 0);
    assert_eq!(decoded.errors.len(), broken.len(), "{:?}", decoded.errors);
    assert_eq!(decoded.errors[0].reason, "the payload is empty");
    assert_eq!(decoded.errors[19].reason, "the payload is not valid UTF-8 at byte 12");
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let text = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let payloads = [nested(127), nested(128), nested(1_000_000), text(127), text(128), format!("[{}]", nested(126)), format!("[{}]", nested(127))];
    let decoded = decode(vec![column("a", DataType::Utf8View)], &payloads);
    assert_eq!(decoded.errors.iter().map(|bad| bad.record).collect::<Vec<_>>(), [1, 2, 4, 6]);
    let open = "[".repeat(5_000_000);
    assert_eq!(decode(vec![column("a", DataType::Utf8View)], &[open]).errors.len(), 1);
}

#[test]
fn one_payload_many_rows() {
    let columns = || vec![column("a", DataType::Int64)];
    let payloads = [
        r#"[{"a":1},{"a":2} , {"a":3}]"#,
        "{\"a\":4}\n{\"a\":5}\r\n\n{\"a\":6} {\"a\":7}\n",
        r#"[{"a":8},{"a":"x"},{"a":9}]"#,
        "{\"a\":10}\n{\"a\":11",
        " [ ] ",
        r#"[{"a":12}"#,
        r#"[{"a":13}] {"a":14}"#,
        r#"[{"a":15},]"#,
        r#"[{"a":16},5]"#,
        r#"[[{"a":17}]]"#,
        "5",
        "\"x\"",
        "null",
        r#"{"a":18}"#,
    ];
    let decoded = decode(columns(), &payloads);
    let values = [1, 2, 3, 4, 5, 6, 7, 18].map(|value| vec![Cell::Int(value)]);
    assert_eq!(rows(&decoded), values);
    assert_eq!(decoded.record_of, [0, 0, 0, 1, 1, 1, 1, 13]);
    assert_eq!(decoded.errors.iter().map(|bad| bad.record).collect::<Vec<_>>(), [2, 3, 5, 6, 7, 8, 9, 10, 11, 12]);
}

#[test]
fn types_that_json_lacks_are_refused() {
    for data_type in [DataType::Duration(TimeUnit::Second), DataType::Time64(TimeUnit::Nanosecond), list(DataType::Null), DataType::LargeUtf8] {
        let error = Decoder::new(&source(vec![column("v", data_type)], None), &[]).unwrap_err();
        assert!(matches!(error, crate::Error::Unsupported(_)), "{error}");
        assert!(error.to_string().starts_with("column v"), "{error}");
    }
    let deep = vec!["a"; 65];
    assert!(Decoder::new(&source(vec![at("v", DataType::Int64, &deep, TimeFormat::Rfc3339)], None), &[]).is_err());
}

#[test]
fn long_plain_text_is_shared_not_copied() {
    let payload = r#"{"a":"a text that is longer than twelve bytes","b":"a text with \n in it, also long"}"#;
    let records = records(&[payload]);
    let columns = vec![column("a", DataType::Utf8View), column("b", DataType::Utf8View)];
    let mut decoder = Decoder::new(&source(columns, None), &[0, 1]).unwrap();
    let decoded = decoder.decode(0, &records, 0).unwrap();
    let (a, b) = (decoded.batch.column(0).as_string_view(), decoded.batch.column(1).as_string_view());
    let shared = records.bytes().as_slice().as_ptr_range();
    assert!(shared.contains(&a.value(0).as_ptr()));
    assert!(!shared.contains(&b.value(0).as_ptr()));
}
