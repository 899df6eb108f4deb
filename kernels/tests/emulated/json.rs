use std::collections::HashMap;

use tidegate_kernels::json::{Cells, DeviceDecoder, Rows, Schema, SchemaFault, Status, Type, Unit, decode};

use super::{
    emulator,
    random::{self, Payload, Random},
};

#[test]
fn columns_are_the_references() {
    let gpu = emulator::open(2);
    let schema = Schema::new(&random::columns()).unwrap();
    let decoder = DeviceDecoder::new(&gpu, &schema).unwrap();
    let mut random = Random(6);
    let mut seen: HashMap<Status, usize> = HashMap::new();
    for round in 0..150 {
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
    // The random rows reach everything.
    println!("{seen:?}");
    assert!(Status::ALL.iter().filter(|status| **status != Status::TooDeep).all(|status| seen.get(status).is_some_and(|count| *count > 20)), "{seen:?}");
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
    let schema = Schema::new(&random::columns()).unwrap();
    let mut random = Random(7);
    let mut payload = Payload::default();
    (0..20_000).for_each(|_| {
        let damage = !random.once_in(4);
        payload.push(&random::row(&mut random, damage));
    });
    let decoded = decode(&schema, &payload.rows());
    let mut compared = 0;
    for row in 0..payload.ranges.len() {
        if decoded.status[row] != Status::Decoded {
            continue;
        }
        let [start, end] = payload.ranges[row].map(|at| at as usize);
        // What is skipped need not be JSON to the last byte.
        let Some(whole) = other(&payload.bytes[start..end]) else { continue };
        compared += 1;
        for ((path, data_type), column) in random::columns().iter().zip(&decoded.columns) {
            let value = path.iter().try_fold(&whole, |value, key| value.get(key)).filter(|value| !value.is_null());
            let valid = column.valid[row / 8] >> (row % 8) & 1 == 1;
            assert_eq!(valid, value.is_some(), "{path:?} of {}", show(&payload, row));
            let Some(value) = value else { continue };
            match &column.cells {
                // That reader takes -0 for a float.
                Cells::Int64(cells) => assert_eq!(Some(cells[row]), value.as_i64().or((value.as_f64() == Some(0.0)).then_some(0)), "{}", show(&payload, row)),
                Cells::Boolean(bits) => assert_eq!(Some(bits[row / 8] >> (row % 8) & 1 == 1), value.as_bool()),
                Cells::Float64(cells) => {
                    // Its last digit may differ: that reader isn't exact by default.
                    let (ours, theirs) = (cells[row], value.as_f64().unwrap());
                    assert!((ours - theirs).abs() <= theirs.abs() * 1e-15, "{}", show(&payload, row));
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
                Cells::Timestamp(_) => assert!(matches!(data_type, Type::Timestamp(_)) && value.is_string()),
            }
        }
    }
    assert!(compared > 4000, "{compared}");
}

/// One row against one column.
fn one(path: &[&str], data_type: Type, row: &str) -> Result<Option<Cells>, Status> {
    let schema = Schema::new(&[(path, data_type)]).unwrap();
    let decoded = decode(&schema, &Rows { payload: row.as_bytes(), ranges: &[[0, row.len() as u32]] });
    match decoded.status[0] {
        Status::Decoded => Ok((decoded.columns[0].valid[0] == 1).then(|| decoded.columns[0].cells.clone())),
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
    assert_eq!(fault(&many(63)), None);
    assert!(matches!(fault(&many(64)), Some(SchemaFault::Size { nodes: 65, .. })));
    assert!(matches!(fault(&[vec!["x".repeat(2049)]]), Some(SchemaFault::Size { bytes: 2049, .. })));
}

#[test]
fn the_largest_schema_and_the_deepest_path() {
    let gpu = emulator::open(1);
    let mut columns: Vec<(Vec<String>, Type)> =
        (0..55).map(|number| (vec![format!("k{number}")], if number % 3 == 0 { Type::Boolean } else { Type::Float64 })).collect();
    columns.push((["p"; 8].map(String::from).to_vec(), Type::Text));
    let schema = Schema::new(&columns).unwrap();
    let mut payload = Payload::default();
    for row in 0..130 {
        let values =
            (0..55).rev().map(|number| format!("\"k{number}\":{}", if number % 3 == 0 { (row % 2 == 0).to_string() } else { format!("{row}e{number}") }));
        let deep = format!("{}\"text {row}, of some length\"{}", "{\"p\":".repeat(7), "}".repeat(7));
        payload.push(format!("{{{},\"p\":{deep}}}", values.collect::<Vec<_>>().join(",")).as_bytes());
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
    let Cells::Float64(cells) = &found.columns[0].cells else { panic!() };
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
