//! How records differ from what is declared: case by case, and for random records against a plain count with `serde_json`; that it is the same
//! however records are cut into batches and whatever columns are needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Deserializer, Map, Value};

use super::{
    super::{Drift, Drifted, DriftedField, MOST_FIELDS},
    property::{columns, payload},
    *,
};
use crate::catalog::{CsvDef, Framing, KeyDef, KeyFormat, ProtobufDef, compile_proto, message_of};

/// Records, and by field how many and the example; fields of a key have `key` before them.
type Told = (u64, BTreeMap<String, (u64, Option<String>)>);

fn told(drifted: &Drifted) -> Told {
    let field = |DriftedField { path, records, example }: &DriftedField| {
        let name = format!("{}{}", if path.in_key { "key " } else { "" }, path.parts.join("/"));
        (name, (*records, example.clone()))
    };
    (drifted.records, drifted.fields.iter().map(field).collect())
}

fn some(records: u64, fields: &[(&str, u64, &str)]) -> Told {
    let field = |&(name, records, example): &(&str, u64, &str)| (name.to_string(), (records, (!example.is_empty()).then(|| example.to_string())));
    (records, fields.iter().map(field).collect())
}

fn drift_of(source: &SourceDef, payloads: &[&str]) -> Drift {
    let needed: Vec<usize> = (0..source.columns.len()).collect();
    Decoder::new(source, &needed).unwrap().decode(0, &records(payloads), 0).unwrap().drift
}

fn nested_source() -> SourceDef {
    let columns = vec![
        column("id", DataType::Int64),
        column("name", DataType::Utf8View),
        at("team", DataType::Utf8View, &["team", "name"], TimeFormat::Rfc3339),
        at("again", DataType::Utf8View, &["team", "name"], TimeFormat::Rfc3339),
    ];
    source(columns, None)
}

#[test]
fn fields_of_json() {
    let drift = drift_of(
        &nested_source(),
        &[
            r#"{"id":1,"name":"a","team":{"name":"x","size":11}}"#,
            r#"{"id":2,"name":null,"team":null}"#,
            r#"{"id":3,"team":{},"colour":"red","odd \"key\"":{"a":[1]}}"#,
            r#"{"id":4,"name":"b","team":7,"\u0063olour":"blue","colour" : 5}"#,
            r#"[{"id":5,"name":"c","more":1},{"id":6,"more":2,"team":{"name":"y"}}]"#,
            "[]",
        ],
    );
    assert_eq!(told(&drift.new), some(3, &[("colour", 2, "\"red\""), ("odd \"key\"", 1, r#"{"a":[1]}"#), ("more", 1, "1")]));
    // Below what is null nothing is missing; below what is no object everything is.
    assert_eq!(told(&drift.missing), some(3, &[("name", 2, ""), ("team/name", 3, "")]));
    assert_eq!(drift.retyped, Drifted::default());
    assert!(drift_of(&nested_source(), &[]).is_empty());
}

#[test]
fn bad_records_of_json() {
    let long = format!("\"{}\"", "é".repeat(200));
    let drift = drift_of(
        &nested_source(),
        &[
            // Retyped, and new beside it; the second object is not read.
            r#"{"id":"1","new":true}{"id":2,"newer":1}"#,
            &format!(r#"{{"id":{long},"name":"x","team":{{"name":"x"}}}}"#),
            // None of these tells anything.
            r#"{"id":1,"new":2"#,
            r#"{"id":01,"new":2}"#,
            r#"{"id":1,"new":2}]"#,
            r#"{"id":1,"new":2} 5"#,
            "",
            r#"{"name":"good","id":7,"team":{"name":null}}"#,
        ],
    );
    assert_eq!(told(&drift.new), some(1, &[("new", 1, "true")]));
    assert_eq!(told(&drift.missing), some(1, &[("name", 1, ""), ("team/name", 1, "")]));
    assert_eq!(told(&drift.retyped), some(2, &[("id", 2, "\"1\"")]));
    let shown = drift_of(&nested_source(), &[&format!("{{\"id\":{long}}}")]).retyped.fields.remove(0).example.unwrap();
    assert_eq!(shown.chars().count(), 100);
    // A record without its event time is bad, since a field is missing.
    let timed = source(vec![column("ts", DataType::Timestamp(TimeUnit::Millisecond, None))], Some("ts"));
    let drift = drift_of(&timed, &["{}", r#"{"ts":null}"#]);
    assert_eq!((told(&drift.missing), drift.retyped.records), (some(1, &[("ts", 1, "")]), 0));
}

#[test]
fn more_fields_than_have_a_bit() {
    // Declared ones beyond a word, keys beyond the order, and keys too long for it.
    let declared: Vec<ColumnDef> = (0..150).map(|n| column(&format!("c{n}"), DataType::Int64)).collect();
    let declared = source(declared, None);
    let even = format!("{{{}}}", (0..150).step_by(2).map(|n| format!("\"c{n}\":1")).collect::<Vec<_>>().join(","));
    let drift = drift_of(&declared, &[&even, &even, "{\"c1\":null}"]);
    // c1 is missing twice, the other odd ones thrice, the even ones once.
    let told_apart: u64 = drift.missing.fields.iter().map(|field| field.records).sum();
    assert_eq!((drift.missing.records, drift.missing.fields.len(), told_apart, drift.missing.others), (3, MOST_FIELDS, 2 + 3 * 49 + 50, 3 * 25 + 25));

    let none = source(vec![column("id", DataType::Int64)], None);
    let long = "l".repeat(90);
    let many = |from: usize, to: usize| format!("{{\"id\":1,{},\"{long}\":0}}", (from..to).map(|n| format!("\"f{n}\":{n}")).collect::<Vec<_>>().join(","));
    let drift = drift_of(&none, &[&many(0, 90), &many(40, 99), &many(0, 1)]);
    assert_eq!((drift.new.records, drift.new.others, drift.new.fields.len()), (3, 0, 100));
    let (_, fields) = told(&drift.new);
    let of = |name: &str| fields[name].clone();
    assert_eq!((of(&long), of("f0"), of("f50"), of("f98")), ((3, Some("0".into())), (2, Some("0".into())), (2, Some("50".into())), (1, Some("98".into()))));
    let drift = drift_of(&none, &[&many(0, 300), &many(0, 300)]);
    assert_eq!((drift.new.records, drift.new.fields.len(), drift.new.others), (2, MOST_FIELDS, 2 * 201));
}

#[test]
fn keys_and_envelopes() {
    // A column of the key is known, and nobody misses it in the payload.
    let columns = vec![column("id", DataType::Int64), column("name", DataType::Utf8View)];
    let keyed = SourceDef { key: Some(KeyDef { columns: vec![0], format: KeyFormat::Json }), ..source(columns, None) };
    let mut builder = RecordsBuilder::new();
    let sent = [(&b"{\"id\":1}"[..], Some(r#"{"id":1,"name":"a"}"#)), (b"2", Some(r#"{"nickname":"b"}"#)), (b"3", None), (b"\"4\"", Some(r#"{"unread":1}"#))];
    for (offset, (key, value)) in (0..).zip(sent) {
        builder.push(offset, None, Some(key), value.map(str::as_bytes), vec![]);
    }
    let sent = builder.finish();
    let drift = Decoder::new(&keyed, &[]).unwrap().decode(0, &sent, 0).unwrap().drift;
    assert_eq!(told(&drift.new), some(1, &[("nickname", 1, "\"b\"")]));
    assert_eq!(told(&drift.missing), some(1, &[("name", 1, "")]));
    assert_eq!(told(&drift.retyped), some(1, &[("key id", 1, "\"4\"")]));

    let debezium = SourceDef { format: Format::DebeziumJson, ..nested_source() };
    let row = r#"{"id":1,"name":"a","team":{"name":"x"},"added":[]}"#;
    let (create, delete) = (format!(r#"{{"op":"c","before":null,"after":{row},"ts_ms":1}}"#), format!(r#"{{"op":"d","before":{row}}}"#));
    let drift = drift_of(&debezium, &[&create, &delete, "{}"]);
    assert_eq!((told(&drift.new), drift.missing.records, drift.retyped.records), (some(1, &[("added", 1, "[]")]), 0, 0));
}

#[test]
fn other_formats() {
    let csv = SourceDef { format: Format::Csv(CsvDef::default()), ..source(vec![column("a", DataType::Int64), column("b", DataType::Utf8View)], None) };
    let drift = drift_of(&csv, &["1,x", "2,", "3,x,\"more \"\"of it\"\"\"\n4,x,y,z\n", "5", "six,x,late", "7,x,\"open"]);
    assert_eq!(told(&drift.new), some(2, &[("3", 2, "more \"of it\""), ("4", 1, "z")]));
    assert_eq!((drift.missing.records, told(&drift.retyped)), (0, some(1, &[("1", 1, "\"six\"")])));

    let text = SourceDef { format: Format::Text, ..source(vec![column("n", DataType::Int64)], None) };
    let drift = drift_of(&text, &["1", "x", "y"]);
    assert_eq!((drift.new.records, drift.missing.records, told(&drift.retyped)), (0, 0, some(2, &[("", 2, "x")])));
}

fn protobuf(schema: &str, message: &str, columns: Vec<ColumnDef>) -> SourceDef {
    let file = compile_proto(schema, &BTreeMap::new()).unwrap();
    let def = ProtobufDef::new(message_of(file.parent_pool(), message).unwrap(), Framing::None);
    SourceDef { format: Format::Protobuf(Arc::new(def)), ..source(columns, None) }
}

#[test]
fn fields_of_protobuf() {
    let schema = r#"syntax = "proto3"; message Order { int64 id = 1; string name = 2; int32 unread = 300; Part part = 4; message Part { string of = 1; } }"#;
    let columns = vec![column("id", DataType::Int8), at("of", DataType::Utf8View, &["part", "of"], TimeFormat::Rfc3339)];
    let sent: Vec<&[u8]> = vec![
        &[0x08, 1, 0x12, 1, b'a', 0xe0, 0x12, 5],
        // Fields 7 (twice), 301 and 9, then 7 alone, of bytes.
        &[0x08, 2, 0x38, 5, 0x38, 6, 0xea, 0x12, 2, b'h', b'i', 0x4a, 1, 0xff],
        &[0x3a, 1, b'x'],
        // 300 in a TINYINT; part.of as a number; cut off.
        &[0x08, 0xac, 0x02, 0x50, 1],
        &[0x22, 2, 0x08, 1, 0x58, 1],
        &[0x58, 1, 0x08],
    ];
    let drift = Decoder::new(&protobuf(schema, "Order", columns), &[0]).unwrap().decode(0, &records(&sent), 0).unwrap().drift;
    assert_eq!(told(&drift.new), some(3, &[("7", 2, "5"), ("301", 1, "hi"), ("9", 1, ""), ("10", 1, "1")]));
    assert_eq!((drift.missing.records, told(&drift.retyped)), (0, some(2, &[("id", 1, "300"), ("part/of", 1, "")])));

    let old = r#"syntax = "proto2"; message Old { required int64 id = 1; optional string name = 2; }"#;
    let old = protobuf(old, "Old", vec![column("name", DataType::Utf8View), column("id", DataType::Int64)]);
    let drift = Decoder::new(&old, &[]).unwrap().decode(0, &records(&[&[0x12, 1, b'a'][..], &[0x08, 1]]), 0).unwrap().drift;
    assert_eq!((told(&drift.missing), drift.retyped.records, drift.new.records), (some(1, &[("id", 1, "")]), 0, 0));
}

/// A payload's objects, if it is nothing else and `serde_json` reads it all.
fn objects(payload: &[u8]) -> Option<Vec<Map<String, Value>>> {
    let all: Vec<Value> = Deserializer::from_slice(payload).into_iter().collect::<Result<_, _>>().ok()?;
    let all = match all.as_slice() {
        [Value::Array(items)] => items.clone(),
        _ => all,
    };
    all.into_iter().map(|value| if let Value::Object(object) = value { Some(object) } else { None }).collect()
}

/// Whether a path's key is absent; what lies below null is not.
fn is_absent(object: &Map<String, Value>, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    match object.get(first) {
        None => true,
        Some(Value::Object(below)) => is_absent(below, rest),
        Some(value) => !rest.is_empty() && !value.is_null(),
    }
}

/// By kind the fields in which a record differs, of those that `Drift` counts of it.
fn expected(objects: &[Map<String, Value>], columns: &[ColumnDef]) -> [BTreeSet<Vec<String>>; 2] {
    let path = |column: &ColumnDef| if let Origin::Payload { path, .. } = &column.origin { path.clone() } else { unreachable!() };
    let paths: Vec<Vec<String>> = columns.iter().map(path).collect();
    let new = objects.iter().flat_map(|object| object.keys()).filter(|key| paths.iter().all(|path| path[0] != **key)).map(|key| vec![key.clone()]);
    let missing = objects.iter().flat_map(|object| paths.iter().filter(|path| is_absent(object, path)).cloned());
    [new.collect(), missing.collect()]
}

/// Counts that don't depend on the order of fields.
fn counts(drifts: &[Drift]) -> [(u64, BTreeMap<Vec<String>, u64>); 3] {
    let mut sums: [(u64, BTreeMap<Vec<String>, u64>); 3] = Default::default();
    for drift in drifts {
        for (sum, (_, drifted)) in sums.iter_mut().zip(drift.kinds()) {
            assert_eq!(drifted.others, 0);
            sum.0 += drifted.records;
            drifted.fields.iter().for_each(|field| *sum.1.entry(field.path.parts.clone()).or_default() += field.records);
        }
    }
    sums
}

#[test]
fn random_records_differ_as_a_plain_count_has_it() {
    let (mut judged, mut differing, mut bad) = (0, 0, 0);
    for seed in 0..600 {
        let mut random = ChaCha8Rng::seed_from_u64(2_000_000 + seed);
        let columns = columns(&mut random);
        let payloads: Vec<Vec<u8>> = (0..24).map(|_| payload(&mut random, &columns)).collect();
        let all: Vec<usize> = (0..columns.len()).collect();
        let def = source(columns.clone(), None);
        let mut decoder = Decoder::new(&def, &all).unwrap();
        let alone: Vec<Decoded> = payloads.iter().map(|payload| decoder.decode(0, &records(&[payload]), 0).unwrap()).collect();
        for (payload, decoded) in payloads.iter().zip(&alone) {
            let found = counts(std::slice::from_ref(&decoded.drift));
            let reason = decoded.errors.first().map(|bad| bad.reason.as_str()).unwrap_or_default();
            let misfit = reason.starts_with("column ");
            assert_eq!(found[2].0, u64::from(misfit), "seed {seed}: {reason}");
            if !reason.is_empty() && !misfit {
                assert!(found[0].0 == 0 && found[1].0 == 0, "seed {seed}: {reason}, {found:?}");
                continue;
            }
            // Of several objects only those are known up to the one that is bad.
            let Some(objects) = objects(payload).filter(|objects| !misfit || objects.len() == 1) else { continue };
            for (found, fields) in found.iter().zip(expected(&objects, &columns)) {
                let want = (u64::from(!fields.is_empty()), fields.into_iter().map(|field| (field, 1)).collect());
                assert_eq!(*found, want, "seed {seed}: {}\n{columns:#?}", String::from_utf8_lossy(payload));
                differing += want.0;
            }
            judged += 1;
            bad += u64::from(misfit);
        }

        // The same in one batch, in other batches, and for other columns.
        let want = counts(&alone.into_iter().map(|decoded| decoded.drift).collect::<Vec<_>>());
        let whole = decoder.decode(0, &records(&payloads), 0).unwrap().drift;
        assert_eq!(counts(&[whole]), want, "seed {seed}");
        let needed: Vec<usize> = all.iter().copied().filter(|_| random.random_bool(0.5)).collect();
        let mut decoder = Decoder::new(&def, &needed).unwrap();
        let mut pieces = vec![];
        let mut rest = payloads.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.random_range(1..=rest.len().min(8)));
            pieces.push(decoder.decode(0, &records(piece), 0).unwrap().drift);
            rest = after;
        }
        assert_eq!(counts(&pieces), want, "seed {seed}, needed {needed:?}");
    }
    assert!(judged > 6_000 && differing > 4_000 && bad > 500, "{judged} judged, {differing} differ, {bad} bad");
}
