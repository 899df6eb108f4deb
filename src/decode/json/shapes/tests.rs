//! Long-lived readers, which know shapes, beside fresh ones, which know none.

#![allow(clippy::unwrap_used)]

use arrow::{buffer::Buffer, datatypes::DataType};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    super::{super::payload::PayloadColumn, JsonReader, scan::Tokens},
    *,
};
use crate::catalog::TimeFormat;

const PATHS: [&[&str]; 6] = [&["id"], &["team", "name"], &["team", "id"], &["a", "b", "c"], &["a key that is longer than a piece of one"], &["last"]];

/// A reader of text at those paths, which wants to know what else there is.
fn reader() -> JsonReader {
    let column = |path: &&[&str]| PayloadColumn {
        name: path.join("."),
        data_type: if path[0] == "id" { DataType::Int64 } else { DataType::Utf8View },
        path: path.iter().map(|part| part.to_string()).collect(),
        known: vec![],
        time: TimeFormat::default(),
        needed: true,
    };
    let known: Vec<String> = PATHS.iter().map(|path| path[0].to_string()).collect();
    JsonReader::new(&PATHS.iter().map(column).collect::<Vec<_>>(), false, Some(&known)).unwrap()
}

/// All that comes of a payload.
fn read(reader: &mut JsonReader, payload: &[u8]) -> String {
    let fate = reader.read(payload, 0, |_| Ok(()));
    if fate.is_err() {
        reader.truncate(0);
    }
    let records = Buffer::from(payload);
    let columns: Vec<_> = (0..PATHS.len()).map(|column| reader.finish(column, &records).unwrap()).collect();
    let mut drift = reader.take_drift();
    // In which order keys were first seen tells of records before.
    drift.new.fields.sort_by(|a, b| a.path.parts.cmp(&b.path.parts));
    format!("{fate:?} {columns:?} {drift:?}")
}

/// Whether a reader knows the shape of a payload.
fn knows(reader: &mut JsonReader, payload: &[u8]) -> bool {
    let mut tokens = Tokens::default();
    tokens.list(payload);
    reader.shapes.find(&Payload::new(payload, &tokens, 0)).is_ok()
}

/// A reader that has seen some payloads often.
fn taught(payloads: &[&str]) -> JsonReader {
    let mut reader = reader();
    for payload in payloads.repeat(OFTEN as usize) {
        read(&mut reader, payload.as_bytes());
    }
    reader
}

const PLAIN: &str = r#"{"id":1,"team":{"id":7,"name":"x"},"other":[1,{"y":2}],"a":{"b":{"c":"d"}},"last":"l","extra":true}"#;

#[test]
fn a_shape_is_known_whatever_its_values() {
    let mut taught = taught(&[PLAIN]);
    for same in [
        r#"{"id":123456789,"team":{"id":70000,"name":"a longer name than before"},"other":[1.5e300,{"z":null}],"a":{"b":{"c":""}},"last":"","extra":1}"#,
        r#"{"id":1, "team": {"id":7 ,"name":"x" } ,"other":[1,{"y" :2}],"a":{"b":{"c":"d"}},"last":"l","extra":true} "#,
        r#"{"id":null,"team":{"id":7,"name":"\u0041"},"other":[nonsense,{"\n":0}],"a":{"b":{"c":"\n"}},"last":"\ud800","extra":+}"#,
        r#"{"id":1.5,"team":{"id":7,"name":"x"},"other":[1,{"y":2}],"a":{"b":{"c":"d"}},"last":"l","extra":true}"#,
    ] {
        assert!(knows(&mut taught, same.as_bytes()), "{same}");
        assert_eq!(read(&mut taught, same.as_bytes()), read(&mut reader(), same.as_bytes()), "{same}");
    }
}

#[test]
fn what_is_only_alike_is_walked() {
    let mut taught = taught(&[PLAIN]);
    for (from, to) in [
        (r#""id":1"#, r#""ix":1"#),
        (r#""id":1"#, r#""id2":1"#),
        (r#""id":1"#, r#""i":1"#),
        (r#""id":1"#, r#""":1"#),
        (r#""id":1"#, r#""id" :1"#),
        (r#""id":1"#, r#""\u0069d":1"#),
        (r#""id":1"#, r#""last":"1""#),
        (r#""id":1"#, r#""id":{}"#),
        (r#""name":"x""#, r#""nane":"x""#),
        (r#""name":"x""#, r#""id":"x""#),
        (r#""name":"x""#, r#""name":"x","name":"y""#),
        (r#"{"c":"d"}"#, r#"{"d":"d"}"#),
        (r#"{"c":"d"}"#, r#"["c","d"]"#),
        (r#"{"b":{"c":"d"}}"#, r#"{"b":"c"}"#),
        (r#"{"b":{"c":"d"}}"#, r#"null"#),
        (r#""other""#, r#""otter""#),
        (r#""other""#, r#""team""#),
        (r#""extra":true"#, r#""extrb":true"#),
        (r#""extra":true"#, r#""id":2"#),
        (r#""extra":true"#, r#""extra":true,"#),
        (r#""extra":true}"#, r#""extra":true"#),
        (r#""extra":true}"#, r#""extra":true}}"#),
        (r#""extra":true}"#, r#""extra":true}{"id":2}"#),
        (r#""extra":true}"#, r#""extra":true]"#),
    ] {
        let alike = PLAIN.replacen(from, to, 1);
        assert_ne!(alike, PLAIN);
        assert!(!knows(&mut taught, alike.as_bytes()), "{alike}");
        assert_eq!(read(&mut taught, alike.as_bytes()), read(&mut reader(), alike.as_bytes()), "{alike}");
    }
}

#[test]
fn keys_at_the_end_and_long_keys() {
    let long = r#"{"a key that is longer than a piece of one":"1","id":2}"#;
    let longest = format!(r#"{{"id":1,"{}":2}}"#, "x".repeat(LONGEST - 3));
    let short = r#"{"id":1}"#;
    let mut taught = taught(&[long, &longest, short, "{}"]);
    for known in [long, &longest, short, "{}"] {
        assert!(knows(&mut taught, known.as_bytes()), "{known}");
    }
    for alike in [
        long.replace("of one", "of ons"),
        long.replace("of one", "of one2"),
        longest.replacen('x', "y", 1),
        longest.replace("x\"", "y\""),
        r#"{"il":1}"#.into(),
    ] {
        assert!(!knows(&mut taught, alike.as_bytes()), "{alike}");
        assert_eq!(read(&mut taught, alike.as_bytes()), read(&mut reader(), alike.as_bytes()), "{alike}");
    }
}

#[test]
fn equal_keys_have_shapes_and_what_is_odd_has_none() {
    let known = [r#"{"id":1,"id":2}"#, r#"{"a":{"b":{"c":"1"}},"a":5}"#, r#"{"a":5,"a":{"b":{"c":"1"},"b":{}}}"#, r#"{"team":null,"a":{"b":[]}}"#];
    let odd = [r#"{"\u0069d":1}"#, r#"{"id" :1}"#, r#"{"id":1}{"id":2}"#, r#"[{"id":1}]"#, r#"{"id":1,}"#, r#"{"id":1"#, ""];
    let mut taught = taught(&[known.as_slice(), odd.as_slice()].concat());
    for payload in known.iter().chain(&odd) {
        assert_eq!(knows(&mut taught, payload.as_bytes()), known.contains(payload), "{payload}");
        assert_eq!(read(&mut taught, payload.as_bytes()), read(&mut reader(), payload.as_bytes()), "{payload}");
    }
    let many: String = (0..150).map(|key| format!(",\"{key}\":0")).collect();
    let strays = format!(r#"{{"id":1{many}}}"#);
    let mut full = self::taught(&[&strays]);
    assert!(!knows(&mut full, strays.as_bytes()), "some of its keys have no bit");
    assert_eq!(read(&mut full, strays.as_bytes()), read(&mut self::taught(&[&strays]), strays.as_bytes()));
}

#[test]
fn damaged_records_come_out_as_without_shapes() {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let bases = [
        PLAIN,
        r#"{"id":1,"last":"x","team":{"name":"n","id":2}}"#,
        r#"{"team":{"name":"n","id":2},"a":{"b":{"c":"1"},"b":{"c":"2"}},"last":null}"#,
        r#"{"a key that is longer than a piece of one":"v","id":3,"other":{"id":4},"last":"é"}"#,
    ];
    let mut taught = taught(&bases);
    let mut recalled = 0;
    for _ in 0..60_000 {
        let mut payload = bases.choose(&mut random).unwrap().as_bytes().to_vec();
        for _ in 0..random.random_range(0..3) {
            let (at, other) = (random.random_range(0..payload.len()), random.random_range(0..payload.len()));
            let byte = *b"{}[]\",:\\ 01antid\x00\xc3".choose(&mut random).unwrap();
            match random.random_range(0..4) {
                0 => payload[at] = byte,
                1 => payload.insert(at, byte),
                2 => drop(payload.remove(at)),
                _ => payload.swap(at, other),
            }
        }
        recalled += usize::from(knows(&mut taught, &payload));
        assert_eq!(read(&mut taught, &payload), read(&mut reader(), &payload), "{}", String::from_utf8_lossy(&payload));
    }
    assert!(recalled > 20_000, "{recalled}");
}

#[test]
fn shapes_make_room_for_others() {
    let mut random = ChaCha8Rng::seed_from_u64(12);
    let mut reader = reader();
    let payload = |number: usize, value: u32| format!(r#"{{"key {number}":[{}],"id":{value}}}"#, "0,".repeat(number % 40) + "0");
    for number in 0..6000 {
        for _ in 0..OFTEN + 1 {
            let expected = read(&mut self::reader(), payload(number, 5).as_bytes());
            let found = read(&mut reader, payload(number, 5).as_bytes());
            // Beyond its bits a key has an example of its own; the values are what matters here.
            assert_eq!(found.split_once("Drift"), expected.split_once("Drift"), "{number}");
        }
        let before = payload(random.random_range(0..=number), 6);
        read(&mut reader, before.as_bytes());
    }
    let shapes = &reader.shapes;
    assert!(shapes.sets.len() == SETS && shapes.shapes.len() == SETS * WAYS && shapes.pieces.len() <= MOST_PIECES + kinds::MOST_CHUNKS * CHUNK);
}

#[test]
fn patience_ends_and_comes_back() {
    let mut reader = reader();
    for number in 0..2 * PATIENCE {
        let list: String = (0..14).map(|bit| if number >> bit & 1 == 1 { "0," } else { "[]," }).collect();
        read(&mut reader, format!(r#"{{"id":1,"list":[{list}0]}}"#).as_bytes());
    }
    assert_eq!(reader.shapes.patience, 0);
    for _ in 0..PATIENCE {
        read(&mut reader, PLAIN.as_bytes());
    }
    assert!(reader.shapes.patience > PATIENCE / 2 && knows(&mut reader, PLAIN.as_bytes()));
}
