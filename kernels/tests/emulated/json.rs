use std::collections::HashMap;

use tidegate_kernels::json::{Cells, Column, Declared, Decoded, DeviceDecoder, Notes, Rows, Schema, SchemaFault, SeenBit, Status, Type, Unit, decode};

use super::{
    emulator,
    random::{self, Declaration, Payload, Random},
};

#[test]
fn columns_are_the_references() {
    let gpu = emulator::open(2);
    let schema = Schema::new(&random::columns()).unwrap();
    let decoder = DeviceDecoder::new(&gpu, &schema).unwrap();
    let mut random = Random(6);
    let mut seen: HashMap<Status, usize> = HashMap::new();
    for round in 0..110 {
        emulator::seed(round);
        let rows = [1, 31, 128, 129, 300][random.below(5)];
        let mut payload = Payload::default();
        (0..rows).for_each(|_| {
            let damage = !random.once_in(4);
            payload.push(&random::row(&mut random, damage));
        });
        let expected = decode(&schema, &payload.rows());
        let found = decoder.decode(&payload.rows()).unwrap();
        if found != expected {
            let row = (0..rows).find(|&row| found.status[row] != expected.status[row]);
            panic!("round {round}, row {:?}\n{found:?}\n{expected:?}", row.map(|row| show(&payload, row)));
        }
        expected.status.iter().for_each(|status| *seen.entry(*status).or_default() += 1);
    }
    // The random rows reach everything that this schema can.
    let out_of_reach = [Status::TooDeep, Status::UnknownKey, Status::Blocked];
    let mut reachable = Status::ALL.iter().filter(|status| !out_of_reach.contains(status));
    assert!(reachable.all(|status| seen.get(status).is_some_and(|count| *count > 20)), "{seen:?}");
}

#[test]
fn any_schema_gives_what_the_reference_gives() {
    let gpu = emulator::open(2);
    let mut random = Random(16);
    let mut statuses: HashMap<Status, usize> = HashMap::new();
    // Of each type how many values there were; of the schemas, how many had two words of keys.
    let mut values = [0; random::TYPES.len()];
    let mut rows_of_two_words = 0;
    for round in 0..160 {
        emulator::seed(round);
        let declaration = Declaration::random(&mut random);
        let schema = declaration.schema();
        let rows = if schema.columns() > 20 { 1 + random.below(60) } else { [1, 31, 128, 129, 200][random.below(5)] };
        let mut payload = Payload::default();
        (0..rows).for_each(|_| {
            let damage = random.once_in(3);
            payload.push(&declaration.row(&mut random, damage));
        });
        let expected = decode(&schema, &payload.rows());
        let found = DeviceDecoder::new(&gpu, &schema).unwrap().decode(&payload.rows()).unwrap();
        if found != expected {
            let row = (0..rows).find(|&row| found.status[row] != expected.status[row]);
            let row = row.or_else(|| (0..rows).find(|&row| found.seen.iter().zip(&expected.seen).any(|(found, expected)| found[row] != expected[row])));
            panic!("round {round}, row {:?}\n{found:?}\n{expected:?}\n{:?}", row.map(|row| show(&payload, row)), declaration.columns);
        }
        expected.status.iter().for_each(|status| *statuses.entry(*status).or_default() += 1);
        rows_of_two_words += if schema.seen_words() == 2 { rows - expected.left_over().count() } else { 0 };
        for (number, column) in expected.columns.iter().enumerate() {
            let declared = &declaration.columns[number];
            assert_eq!(column.is_some(), declared.wanted || declared.data_type == Type::Raw);
            assert_eq!((schema.is_given(number), schema.data_type(number)), (column.is_some(), declared.data_type));
            let of = random::TYPES.iter().position(|data_type| *data_type == declared.data_type).unwrap();
            values[of] += column.as_ref().map_or(0, |column| column.valid.iter().map(|byte| byte.count_ones()).sum());
        }
    }
    println!("{statuses:?}, values {values:?}, {rows_of_two_words} rows of two words");
    let all: usize = statuses.values().sum();
    assert!(statuses[&Status::Decoded] * 3 > all * 2, "most rows are decoded: {statuses:?}");
    assert!(
        Status::ALL.iter().filter(|status| **status != Status::TooDeep).all(|status| statuses.get(status).is_some_and(|count| *count > 20)),
        "{statuses:?}"
    );
    assert!(values.iter().all(|count| *count > 1000), "{values:?}");
    assert!(rows_of_two_words > 100, "{rows_of_two_words}");
}

fn show(payload: &Payload, row: usize) -> String {
    let [start, end] = payload.ranges[row];
    payload.bytes[start as usize..end as usize].escape_ascii().to_string()
}

/// What a reader that knows nothing of ours makes of a row: its values by path, if the whole row is JSON.
fn other(bytes: &[u8]) -> Option<serde_json::Value> {
    serde_json::from_slice(bytes).ok()
}

#[test]
fn the_reference_reads_what_another_reader_reads() {
    let mut random = Random(7);
    let (mut rows, mut compared, mut left) = (0, 0, HashMap::new());
    for _ in 0..400 {
        let declaration = Declaration::random(&mut random);
        let schema = declaration.schema();
        let mut payload = Payload::default();
        (0..50).for_each(|_| {
            let damage = random.once_in(3);
            payload.push(&declaration.row(&mut random, damage));
        });
        let decoded = decode(&schema, &payload.rows());
        for row in 0..payload.ranges.len() {
            rows += 1;
            let [start, end] = payload.ranges[row].map(|at| at as usize);
            // What is skipped need not be JSON to the last byte.
            let Some(whole) = other(&payload.bytes[start..end]) else { continue };
            let told = Told { declaration: &declaration, schema: &schema, whole: &whole };
            match decoded.status[row] {
                Status::Decoded => {
                    compared += 1;
                    told.check_values(&payload, &decoded, row);
                    told.check_keys(&payload, &decoded, row);
                }
                Status::UnknownKey => assert!(told.has_unknown_key() && declaration.notes.leave_unknown, "{}", show(&payload, row)),
                Status::Blocked => assert!(told.is_blocked() && declaration.notes.leave_blocked, "{}", show(&payload, row)),
                _ => {}
            }
            *left.entry(decoded.status[row]).or_insert(0) += 1;
        }
    }
    assert!(compared * 3 > rows && left[&Status::UnknownKey] > 50 && left[&Status::Blocked] > 50, "{compared} of {rows}: {left:?}");
}

/// What another reader tells of a row.
struct Told<'a> {
    declaration: &'a Declaration,
    schema: &'a Schema,
    whole: &'a serde_json::Value,
}

impl Told<'_> {
    fn at(&self, path: &[String]) -> Option<&serde_json::Value> {
        path.iter().try_fold(self.whole, |value, key| value.as_object()?.get(key))
    }

    fn has_unknown_key(&self) -> bool {
        let Declaration { columns, notes } = self.declaration;
        let known = |key: &String| notes.keys.contains(key) || columns.iter().any(|column| column.path[0] == *key);
        !self.whole.as_object().unwrap().keys().all(known)
    }

    fn is_blocked(&self) -> bool {
        let ways = self.declaration.columns.iter().flat_map(|column| (1..column.path.len()).map(|depth| &column.path[..depth]));
        ways.filter_map(|way| self.at(way)).any(|value| !value.is_object())
    }

    /// Holds the keys that a decoded row is said to have against those that it has.
    fn check_keys(&self, payload: &Payload, decoded: &Decoded, row: usize) {
        let Declaration { columns, notes } = self.declaration;
        assert!(!notes.leave_unknown || !self.has_unknown_key(), "{}", show(payload, row));
        assert!(!notes.leave_blocked || !self.is_blocked(), "{}", show(payload, row));
        assert_eq!(decoded.seen.len(), self.schema.seen_words());
        if !notes.seen {
            return assert!(decoded.seen.is_empty());
        }
        let is_seen = |bit: SeenBit| decoded.seen[bit.word][row] & bit.mask != 0;
        for (number, column) in columns.iter().enumerate() {
            assert_eq!(is_seen(self.schema.column_bit(number)), self.at(&column.path).is_some(), "{:?} of {}", column.path, show(payload, row));
        }
        for (number, key) in notes.keys.iter().enumerate() {
            assert_eq!(is_seen(self.schema.noted_bit(number)), self.whole.get(key).is_some(), "{key} of {}", show(payload, row));
        }
    }

    /// Holds the values of a decoded row against what they are.
    fn check_values(&self, payload: &Payload, decoded: &Decoded, row: usize) {
        for (declared, column) in self.declaration.columns.iter().zip(&decoded.columns) {
            let value = self.at(&declared.path).filter(|value| !value.is_null());
            // That reader takes -0 for a float.
            let integer = value.and_then(|value| value.as_i64().or((value.as_f64() == Some(0.0)).then_some(0)));
            if let (Some((least, most)), Some(_)) = (random::limits(declared.data_type), value) {
                assert!(integer.is_some_and(|integer| (least..=most).contains(&integer)), "{:?} of {}", declared.path, show(payload, row));
            }
            let Some(Column { valid, cells }) = column else { continue };
            assert_eq!(valid[row / 8] >> (row % 8) & 1 == 1, value.is_some(), "{:?} of {}", declared.path, show(payload, row));
            let Some(value) = value else { continue };
            match cells {
                Cells::Int32(cells) => assert_eq!(Some(i64::from(cells[row])), integer, "{}", show(payload, row)),
                Cells::UInt32(cells) => assert_eq!(Some(i64::from(cells[row])), integer, "{}", show(payload, row)),
                Cells::Int64(cells) => assert_eq!(Some(cells[row]), integer, "{}", show(payload, row)),
                Cells::Boolean(bits) => assert_eq!(Some(bits[row / 8] >> (row % 8) & 1 == 1), value.as_bool()),
                Cells::Float64(cells) => {
                    // Its last digit may differ: that reader isn't exact by default.
                    let (ours, theirs) = (cells[row], value.as_f64().unwrap());
                    assert!((ours - theirs).abs() <= theirs.abs() * 1e-15, "{}", show(payload, row));
                }
                Cells::Text(cells) => {
                    let view = cells[row].to_le_bytes();
                    let length = u32::from_le_bytes(view[..4].try_into().unwrap()) as usize;
                    let offset = u32::from_le_bytes(view[12..].try_into().unwrap()) as usize;
                    let text = if length <= 12 { &view[4..4 + length] } else { &payload.bytes[offset..offset + length] };
                    match value {
                        serde_json::Value::String(expected) => assert_eq!(text, expected.as_bytes()),
                        written => assert_eq!(other(text).as_ref(), Some(written)),
                    }
                    assert!(length <= 12 || view[4..8] == text[..4]);
                }
                Cells::Timestamp(_) => assert!(matches!(declared.data_type, Type::Timestamp(_)) && value.is_string()),
                Cells::Raw(cells) => {
                    let [offset, length] = cells[row].map(|number| number as usize);
                    let text = &payload.bytes[offset..offset + length];
                    assert_eq!(other(text).as_ref(), Some(value), "{}", show(payload, row));
                    assert_eq!(text.trim_ascii(), text);
                }
            }
        }
    }
}

/// One row against one column.
fn one(path: &[&str], data_type: Type, row: &str) -> Result<Option<Cells>, Status> {
    let schema = Schema::new(&[(path, data_type)]).unwrap();
    let decoded = decode(&schema, &Rows { payload: row.as_bytes(), ranges: &[[0, row.len() as u32]] });
    match decoded.status[0] {
        Status::Decoded => Ok(decoded.columns[0].as_ref().filter(|column| column.valid[0] == 1).map(|column| column.cells.clone())),
        status => Err(status),
    }
}

#[test]
fn what_is_decoded_and_what_is_left() {
    let int = |row: &str| one(&["a"], Type::Int64, row);
    let is = |value| Ok(Some(Cells::Int64(vec![value])));
    assert_eq!(int(r#"{"a":-12}"#), is(-12));
    assert_eq!(int(r#" {"a" : 9223372036854775807 } "#), is(i64::MAX));
    assert_eq!(int(r#"{"a":-9223372036854775808}"#), is(i64::MIN));
    assert_eq!(int(r#"{"a":9223372036854775808}"#), Err(Status::Value));
    assert_eq!(int(r#"{"a":1.0}"#), Err(Status::Value));
    assert_eq!(int(r#"{"a":01}"#), Err(Status::Value));
    assert_eq!(int(r#"{"a":null}"#), Ok(None));
    assert_eq!(int(r#"{"b":[1,{"c":"}"}],"a":3}"#), is(3));
    assert_eq!(int(r#"{"b":{"a":1}}"#), Ok(None));
    assert_eq!(int("{}"), Ok(None));
    // What nobody reads need not be good.
    assert_eq!(int(r#"{"b":nonsense,"a":4}"#), is(4));
    assert_eq!(int(r#"{"b":[;;],"a":4}"#), is(4));
    assert_eq!(int(r#"{"b":"\x","a":4}"#), is(4));
    for (row, status) in [
        ("", Status::NotOneObject),
        ("  ", Status::NotOneObject),
        ("[{}]", Status::NotOneObject),
        ("{}{}", Status::NotOneObject),
        ("{} x", Status::NotOneObject),
        (r#"{"a":1"#, Status::Structure),
        (r#"{"a":1,}"#, Status::Structure),
        (r#"{"a" 1}"#, Status::Structure),
        (r#"{"b":}"#, Status::Structure),
        (r#"{"b":[}]}"#, Status::Structure),
        (r#"{"b":"x}"#, Status::Structure),
        (r#"{"a":1,"a":2}"#, Status::Twice),
        (r#"{"\u0061":1}"#, Status::Escape),
        (r#"{"b":[\]}"#, Status::Escape),
        ("{\"a\u{1}\":1}", Status::Control),
        ("{\"b\":[é]}", Status::Utf8),
    ] {
        assert_eq!(int(row), Err(status), "{row}");
    }
    let deep = |depth: usize| int(&format!("{{\"b\":{}{},\"a\":1}}", "[".repeat(depth), "]".repeat(depth)));
    assert_eq!((deep(64), deep(65)), (is(1), Err(Status::TooDeep)));
    let time = |text: &str| one(&["a", "b"], Type::Timestamp(Unit::Microsecond), &format!("{{\"a\":{{\"b\":\"{text}\"}}}}"));
    let at = |value| Ok(Some(Cells::Timestamp(vec![value])));
    assert_eq!(time("1970-01-01T00:00:01.5Z"), at(1_500_000));
    assert_eq!(time("0000-03-01 00:00:00z"), at(-62_162_035_200_000_000));
    assert_eq!(time("2024-02-29T23:59:59.000001+01:00"), at(1_709_247_599_000_001));
    assert_eq!(time("2023-02-29T00:00:00Z"), Err(Status::Value));
    assert_eq!(time("1970-01-01T00:00:00.0000001Z"), Err(Status::Value));
}

/// What the server's decoder accepts or rejects in a way of its own, and what looks as if it did: either both say the same, or the row is left.
#[test]
fn what_the_servers_decoder_reads_in_other_ways_is_left() {
    const TIME: Type = Type::Timestamp(Unit::Nanosecond);
    let left = [
        // Integers by their value, which need not be written as integers; text and objects are none.
        (Type::Int64, "1e3", Status::Value),
        (Type::Int32, "1.0", Status::Value),
        (Type::Int32, "-0.0", Status::Value),
        (Type::UInt8, "0e5", Status::Value),
        (Type::Int64, "\"1\"", Status::Value),
        (Type::Int64, "true", Status::Value),
        (Type::Int64, "{}", Status::Value),
        (Type::Int64, "9223372036854775808", Status::Value),
        (Type::Int64, "18446744073709551616", Status::Value),
        (Type::Int64, "100000000000000000000", Status::Value),
        (Type::Int8, "128", Status::Value),
        (Type::Int8, "-129", Status::Value),
        (Type::Int16, "32768", Status::Value),
        (Type::Int16, "-32769", Status::Value),
        (Type::Int32, "2147483648", Status::Value),
        (Type::Int32, "-2147483649", Status::Value),
        (Type::Int32, "4294967296", Status::Value),
        (Type::UInt8, "256", Status::Value),
        (Type::UInt16, "65536", Status::Value),
        (Type::UInt32, "4294967296", Status::Value),
        (Type::UInt32, "-1", Status::Value),
        // Bad there, too.
        (Type::Int64, "01", Status::Value),
        (Type::Int64, "+1", Status::Value),
        (Type::Int64, "nulL", Status::Value),
        (Type::Int64, "nullx", Status::Value),
        (Type::Float64, "1e309", Status::Value),
        (Type::Float64, "NaN", Status::Value),
        (Type::Float64, ".5", Status::Value),
        (Type::Boolean, "1", Status::Value),
        (Type::Boolean, "\"true\"", Status::Value),
        (Type::Text, "truex", Status::Value),
        (Type::Text, "01", Status::Value),
        (Type::Text, "\"a\u{1}\"", Status::Control),
        // More digits than the method can tell between two doubles.
        (Type::Float64, "9007199254740993.00000000000000001", Status::Value),
        // Objects and arrays as they are written; escapes undone.
        (Type::Text, "{\"x\":1}", Status::Value),
        (Type::Text, "[1]", Status::Value),
        (Type::Text, r#""\u0061""#, Status::Escape),
        (TIME, r#""2024-01-01T00:00:00\u005a""#, Status::Escape),
        (TIME, "0", Status::Value),
        (TIME, "\"2024-01-01\"", Status::Value),
        (TIME, "\"1677-09-21T00:12:43.145224192Z\"", Status::Value),
    ];
    for (data_type, value, status) in left {
        assert_eq!(one(&["a"], data_type, &format!("{{\"a\":{value}}}")), Err(status), "{data_type:?} {value}");
        // Nor does it matter whether anybody wants the value.
        let judged = Declared { path: ["a"], data_type, wanted: false };
        let schema = Schema::with_notes(&[judged], &Notes::default()).unwrap();
        let row = format!("{{\"a\":{value}}}");
        let decoded = decode(&schema, &Rows { payload: row.as_bytes(), ranges: &[[0, row.len() as u32]] });
        assert_eq!((decoded.status, decoded.columns), (vec![status], vec![None]), "{data_type:?} {value}");
    }
    // Several objects, arrays of them, a byte order mark, keys that are spelled otherwise or come again, deep nesting: all are the server's.
    for (row, status) in [
        ("", Status::NotOneObject),
        (" \n", Status::NotOneObject),
        ("\u{feff}{\"a\":1}", Status::NotOneObject),
        ("{\"a\":1} {\"a\":2}", Status::NotOneObject),
        ("[{\"a\":1}]", Status::NotOneObject),
        ("[]", Status::NotOneObject),
        ("null", Status::NotOneObject),
        ("{\"a\":1,\"a\":2}", Status::Twice),
        ("{\"a\":1,\"\\u0061\":2}", Status::Escape),
        ("{\"\\n\":1}", Status::Escape),
        ("{\"a\":1,\"b\":é}", Status::Structure),
        ("{\"b\":[é]}", Status::Utf8),
    ] {
        assert_eq!(one(&["a"], Type::Int64, row), Err(status), "{row}");
    }
    assert_eq!(one(&["a", "b"], Type::Int64, "{\"a\":{\"b\":1},\"a\":{}}"), Err(Status::Twice));
    for (data_type, value, cells) in [
        (Type::Int8, "-128", Cells::Int32(vec![-128])),
        (Type::Int8, "127", Cells::Int32(vec![127])),
        (Type::Int16, "-32768", Cells::Int32(vec![-32768])),
        (Type::Int32, "-2147483648", Cells::Int32(vec![i32::MIN])),
        (Type::Int32, "2147483647", Cells::Int32(vec![i32::MAX])),
        (Type::UInt8, "255", Cells::UInt32(vec![255])),
        (Type::UInt16, "65535", Cells::UInt32(vec![65535])),
        (Type::UInt32, "4294967295", Cells::UInt32(vec![u32::MAX])),
        // Zero has a sign as a float alone.
        (Type::UInt32, "-0", Cells::UInt32(vec![0])),
        (Type::Int64, "-0", Cells::Int64(vec![0])),
        (Type::Float64, "-0", Cells::Float64(vec![-0.0])),
        (Type::Float64, "-1e-400", Cells::Float64(vec![-0.0])),
        (Type::Float64, "9007199254740993", Cells::Float64(vec![9_007_199_254_740_992.0])),
        (TIME, "\"1970-01-01 00:00:01z\"", Cells::Timestamp(vec![1_000_000_000])),
        // The caller judges these, whatever they are, as long as their end can be told.
        (Type::Raw, "[1, {\"x\":\"]\"} ]  ", Cells::Raw(vec![[5, 15]])),
        (Type::Raw, r#""\x\"""#, Cells::Raw(vec![[5, 6]])),
        (Type::Raw, "nullx", Cells::Raw(vec![[5, 5]])),
        (Type::Raw, "\"null\"", Cells::Raw(vec![[5, 6]])),
        (Type::Raw, " 1e5 ", Cells::Raw(vec![[6, 3]])),
    ] {
        assert_eq!(one(&["a"], data_type, &format!("{{\"a\":{value}}}")), Ok(Some(cells)), "{data_type:?} {value}");
    }
    assert_eq!(one(&["a"], Type::Raw, "{\"a\": null }"), Ok(None));
    assert_eq!(one(&["a"], Type::Raw, "{\"b\":1}"), Ok(None));
    assert_eq!(one(&["a"], Type::Raw, "{\"a\":[}"), Err(Status::Structure));
}

#[test]
fn which_keys_a_row_has() {
    let path = |text: &str| text.split('.').map(String::from).collect::<Vec<_>>();
    let declared = |text: &str| Declared { path: path(text), data_type: Type::Int64, wanted: text != "b" };
    let columns = [declared("a"), declared("who.id"), declared("b")];
    let keys: Vec<String> = ["extra", "b", "who", "extra"].map(String::from).into();
    let schema = |leave: bool| {
        let notes = Notes { keys: keys.clone(), seen: true, leave_unknown: leave, leave_blocked: leave };
        Schema::with_notes(&columns, &notes).unwrap()
    };
    let strict = schema(true);
    assert_eq!((strict.noted_bit(0), strict.noted_bit(1)), (strict.noted_bit(3), strict.column_bit(2)), "a key has one bit");
    let bits = [strict.column_bit(0), strict.column_bit(1), strict.column_bit(2), strict.noted_bit(0), strict.noted_bit(2)];
    // a, who.id, b, extra, who
    let seen = |leave: bool, row: &str| {
        let decoded = decode(&schema(leave), &Rows { payload: row.as_bytes(), ranges: &[[0, row.len() as u32]] });
        let text = bits.iter().map(|bit| if decoded.seen[bit.word][0] & bit.mask != 0 { '1' } else { '0' }).collect::<String>();
        if decoded.status[0] == Status::Decoded { Ok(text) } else { Err(decoded.status[0]) }
    };
    for (row, expected) in [
        ("{}", "00000"),
        (r#"{"a":1,"b":2}"#, "10100"),
        (r#"{"a":null,"extra":[1,{"a":2}],"extra":0}"#, "10010"),
        (r#"{"who":{}}"#, "00001"),
        (r#"{"who":{"id":null,"a":1,"extra":1}}"#, "01001"),
        (r#"{"who":{"x":{"id":1}}}"#, "00001"),
    ] {
        assert_eq!(seen(true, row).as_deref(), Ok(expected), "{row}");
    }
    for (row, status, lenient) in [
        (r#"{"a":1,"x":1}"#, Status::UnknownKey, "10000"),
        (r#"{"id":1}"#, Status::UnknownKey, "00000"),
        (r#"{"who":null}"#, Status::Blocked, "00001"),
        (r#"{"a":1,"who":[]}"#, Status::Blocked, "10001"),
    ] {
        assert_eq!((seen(true, row), seen(false, row).as_deref()), (Err(status), Ok(lenient)), "{row}");
    }
}

#[test]
fn rows_lie_as_they_may() {
    let gpu = emulator::open(1);
    let schema = Schema::new(&[(["a"], Type::Text), (["n"], Type::Float64)]).unwrap();
    let decoder = DeviceDecoder::new(&gpu, &schema).unwrap();
    let equal = |payload: &[u8], ranges: &[[u32; 2]]| {
        let rows = Rows { payload, ranges };
        let found = decoder.decode(&rows).unwrap();
        assert_eq!(found, decode(&schema, &rows));
        // The same with the payload written, and the columns read, where the device has them.
        let in_place = decoder.begin_in_place(payload.len(), ranges, |place| place.copy_from_slice(payload)).unwrap().wait_in_place().unwrap();
        assert_eq!((in_place.rows(), in_place.copied().unwrap()), (ranges.len(), decode(&schema, &rows)));
        found.status.iter().filter(|status| **status == Status::Decoded).count()
    };
    assert_eq!(equal(b"", &[]), 0);
    assert_eq!(equal(b"x", &[[0, 0], [1, 1]]), 0);
    // Rows of more than a block's shared memory, among small ones; with gaps, backwards, and over one another.
    let mut random = Random(8);
    let mut payload = vec![b'#'; 5];
    let mut ranges = Vec::new();
    for row in 0..200 {
        let size = if row % 70 == 3 { 50_000 } else { random.below(400) };
        let start = payload.len() as u32;
        payload.extend(format!("{{\"n\":{row}.25,\"skipped\":\"{}\",\"a\":\"{}\"}}", "s".repeat(size), "é".repeat(size % 20)).bytes());
        ranges.push([start, payload.len() as u32]);
        payload.extend(vec![b'"'; random.below(40)]);
    }
    assert_eq!(equal(&payload, &ranges), 200);
    ranges.reverse();
    assert_eq!(equal(&payload, &ranges), 200);
    ranges.extend([[0, payload.len() as u32], [3, 9], [payload.len() as u32; 2]]);
    assert_eq!(equal(&payload, &ranges), 200);
    let outside = Rows { payload: b"{}", ranges: &[[0, 3]] };
    assert!(decoder.decode(&outside).unwrap_err().to_string().contains("a row is said to lie at 0..3 of 2 bytes"));
    assert!(decoder.decode(&Rows { payload: b"{}", ranges: &[[2, 1]] }).is_err());
}

#[test]
fn schemas() {
    let fault = |paths: &[Vec<String>]| Schema::new(&paths.iter().map(|path| (path.clone(), Type::Int64)).collect::<Vec<_>>()).err();
    let path = |text: &str| text.split('.').map(String::from).collect::<Vec<_>>();
    assert_eq!(fault(&[path("a"), path("b.c"), path("b.d")]), None);
    assert_eq!(fault(&[path("a"), path("a")]), Some(SchemaFault::Overlap { path: 1 }));
    assert_eq!(fault(&[path("a"), path("b.c"), path("b")]), Some(SchemaFault::Overlap { path: 2 }));
    assert_eq!(fault(&[vec![]]), Some(SchemaFault::Parts { path: 0, parts: 0 }));
    assert_eq!(fault(&[path("a.b.c.d.e.f.g.h")]), None);
    assert_eq!(fault(&[path("a.b.c.d.e.f.g.h.i")]), Some(SchemaFault::Parts { path: 0, parts: 9 }));
    let many = |count: usize| (0..count).map(|number| vec![format!("key {number}")]).collect::<Vec<_>>();
    assert_eq!(fault(&many(127)), None);
    assert!(matches!(fault(&many(128)), Some(SchemaFault::Size { nodes: 129, .. })));
    assert!(matches!(fault(&[vec!["x".repeat(4097)]]), Some(SchemaFault::Size { bytes: 4097, .. })));
    // Noted keys count as well.
    let noted = |count: usize| {
        let notes = Notes { keys: many(count).concat(), seen: true, ..Notes::default() };
        Schema::with_notes(&[Declared { path: ["key 5"], data_type: Type::Int64, wanted: true }], &notes)
    };
    assert_eq!((noted(63).unwrap().seen_words(), noted(64).unwrap().seen_words(), noted(127).unwrap().seen_words()), (1, 2, 2));
    assert!(matches!(noted(128), Err(SchemaFault::Size { nodes: 129, .. })));
    assert_eq!(Schema::new(&[(["a"], Type::Int64)]).unwrap().seen_words(), 0);
}

#[test]
fn the_largest_schema_and_the_deepest_path() {
    let gpu = emulator::open(1);
    let mut columns: Vec<(Vec<String>, Type)> =
        (0..119).map(|number| (vec![format!("k{number:030}")], if number % 3 == 0 { Type::Boolean } else { Type::Float64 })).collect();
    columns.push((["p"; 8].map(|key| key.repeat(35)).to_vec(), Type::Text));
    let declared: Vec<_> = columns.iter().map(|(path, data_type)| Declared { path, data_type: *data_type, wanted: true }).collect();
    let schema = Schema::with_notes(&declared, &Notes { seen: true, leave_unknown: true, leave_blocked: true, ..Notes::default() }).unwrap();
    let mut payload = Payload::default();
    for row in 0..130 {
        let values =
            (0..119).rev().map(|number| format!("\"k{number:030}\":{}", if number % 3 == 0 { (row % 2 == 0).to_string() } else { format!("{row}e{number}") }));
        let key = format!("\"{}\":", "p".repeat(35));
        let deep = format!("{}\"text {row}, of some length\"{}", format!("{{{key}").repeat(7), "}".repeat(7));
        payload.push(format!("{{{},{key}{deep}}}", values.collect::<Vec<_>>().join(",")).as_bytes());
    }
    let found = DeviceDecoder::new(&gpu, &schema).unwrap().decode(&payload.rows()).unwrap();
    assert_eq!(found.left_over().count(), 0);
    assert_eq!(found, decode(&schema, &payload.rows()));
}

#[test]
fn floats_that_are_hard_to_round() {
    let gpu = emulator::open(1);
    let schema = Schema::new(&[(["x"], Type::Float64)]).unwrap();
    let mut random = Random(9);
    let mut numbers: Vec<String> =
        ["4.9406564584124654e-324", "2.4703282292062327e-324", "2.4703282292062328e-324", "2.2250738585072011e-308", "2.2250738585072014e-308"]
            .into_iter()
            .chain(["1.7976931348623157e308", "1.7976931348623158e308", "1.7976931348623159e308", "1e308", "1e309", "1e-342", "1e-343", "0e999999", "-0"])
            .map(String::from)
            .collect();
    for _ in 0..1500 {
        // Just between two doubles, and one beside: to the even one, up, down; also with zeros behind the point, and as a multiple of a power of two.
        let halfway = (1u64 << 53) + (random.next() >> 12 << 1) + 1;
        numbers.push((halfway + random.below(3) as u64 - 1).to_string());
        numbers.push(format!("{halfway}.{}", "0".repeat(1 + random.below(5))));
        numbers.push(format!("{halfway}.{}1", "0".repeat(random.below(9))));
        numbers.push(format!("{}.5", (1u64 << 52) + (random.next() >> 12)));
        numbers.push(format!("{}e{}", random.next() >> random.below(64), random.below(690) as i64 - 345));
        let digits: String = (0..1 + random.below(40)).map(|_| char::from(b'0' + random.below(10) as u8)).collect();
        numbers.push(format!("{}.{digits}e{}", random.below(10), random.below(640) as i64 - 330));
        numbers.push(format!("{:?}", f64::from_bits(random.next() & !(1 << 62))));
    }
    let mut payload = Payload::default();
    numbers.iter().for_each(|number| payload.push(format!("{{\"x\":{number}}}").as_bytes()));
    let found = DeviceDecoder::new(&gpu, &schema).unwrap().decode(&payload.rows()).unwrap();
    assert_eq!(found, decode(&schema, &payload.rows()));
    let Some(Column { cells: Cells::Float64(cells), .. }) = &found.columns[0] else { panic!() };
    let mut left = 0;
    for ((number, cell), status) in numbers.iter().zip(cells).zip(&found.status) {
        let nearest: f64 = number.parse().unwrap();
        match status {
            Status::Decoded => assert_eq!(cell.to_bits(), nearest.to_bits(), "{number}"),
            _ if nearest.is_infinite() => {}
            _ => left += 1,
        }
    }
    // Nearly halfway numbers of more than 19 digits are the host's.
    assert!(left < numbers.len() / 10, "{left} of {}", numbers.len());
}
