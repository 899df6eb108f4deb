//! The classes of input that JSON's public test suite has (what all parsers must take, what none may, what is theirs to choose), as the value of a
//! column, as one within a column, and as one that nobody declared; and random values, whole and damaged, against `serde_json`.

use rand::{SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::{property::payload, *};

/// All parsers must take these.
const GOOD: [&str; 66] = [
    "[[] ]",
    "[\"\"]",
    "[]",
    "[\"a\"]",
    "[false]",
    "[null, 1, \"1\", {}]",
    "[null]",
    "[1\n]",
    " [1]",
    "[1,null,null,null,2]",
    "[2] ",
    "[123e65]",
    "[0e+1]",
    "[0e1]",
    "[ 4]",
    "[-0.000000000000000000000000000000000000000000000000000000000000000000000000000001]",
    "[20e1]",
    "[-0]",
    "[-123]",
    "[-1]",
    "[1E22]",
    "[1E-2]",
    "[1E+2]",
    "[123e45]",
    "[123.456e78]",
    "[1e-2]",
    "[1e+2]",
    "[123]",
    "[123.456789]",
    r#"{"asd":"sdf", "dfg":"fgh"}"#,
    r#"{"asd":"sdf"}"#,
    r#"{"a":"b","a":"c"}"#,
    r#"{"a":"b","a":"b"}"#,
    "{}",
    r#"{"":0}"#,
    r#"{"foo\u0000bar": 42}"#,
    r#"{ "min": -1.0e+28, "max": 1.0e+28 }"#,
    r#"{"x":[{"id": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}], "id": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#,
    r#"{"a":[]}"#,
    r#"{"title":"\u041f\u043e\u043b\u0442\u043e\u0440\u0430 \u0417\u0435\u043c\u043b\u0435\u043a\u043e\u043f\u0430" }"#,
    "{\n\"a\": \"b\"\n}",
    r#"["\u0060\u012a\u12AB"]"#,
    r#"["\uD801\udc37"]"#,
    r#"["\ud83d\ude39\ud83d\udc8d"]"#,
    r#"["\"\\\/\b\f\n\r\t"]"#,
    r#"["\\u0000"]"#,
    r#"["\""]"#,
    r#"["a/*b*/c/*d//e"]"#,
    r#"["\\a"]"#,
    r#"["\\n"]"#,
    r#"["\u0012"]"#,
    r#"["\uFFFF"]"#,
    r#"[ "asd"]"#,
    "[\"\u{10ffff}\"]",
    "[\"\u{ffff}\"]",
    r#"["\u0000"]"#,
    "[\"π\"]",
    "[\"\u{2028}\u{2029}\"]",
    "[\"\u{7f}\"]",
    "[\"€𝄞\"]",
    "42",
    "-0.1",
    "null",
    "\"asd\"",
    "true",
    "\t[\r\n]\t",
];

/// No parser may take these, wherever it looks.
const BAD: [&str; 92] = [
    "[1 true]",
    "[\"\": 1]",
    "[\"\"],",
    "[,1]",
    "[1,,2]",
    "[\"x\",,]",
    "[\"x\"]]",
    "[\"\",]",
    "[\"x\"",
    "[x",
    "[3[4]]",
    "[1:2]",
    "[,]",
    "[-]",
    "[   , \"\"]",
    "[\"a\",\n4\n,1,",
    "[1,]",
    "[\"\u{b}a\"\\f]",
    "[*]",
    "[1,\n1\n,1",
    "[{}",
    "[fals]",
    "[nul]",
    "[tru]",
    "[++1234]",
    "[+1]",
    "[+Inf]",
    "[-01]",
    "[-1.0.]",
    "[-2.]",
    "[-NaN]",
    "[.-1]",
    "[.2e-3]",
    "[0.1.2]",
    "[0.3e+]",
    "[0.3e]",
    "[0.e1]",
    "[0E+]",
    "[0E]",
    "[1.0e+]",
    "[1.0e-]",
    "[1.0e]",
    "[1 000.0]",
    "[1eE2]",
    "[2.e+3]",
    "[9.e+]",
    "[Inf]",
    "[NaN]",
    "[\u{ff11}]",
    "[1+2]",
    "[0x1]",
    "[0x42]",
    "[Infinity]",
    "[0e+-1]",
    "[-123.123foo]",
    "[-Infinity]",
    "[-foo]",
    "[- 1]",
    "[-012]",
    "[-.123]",
    "[-1x]",
    "[1ea]",
    "[1.]",
    "[.123]",
    "[1.2a-3]",
    "[1.8011670033376514H-308]",
    "[012]",
    "[\"x\", truth]",
    "{[: \"x\"}",
    r#"{"x", null}"#,
    r#"{"x"::"b"}"#,
    "{🇨🇭}",
    r#"{"a":"a" 123}"#,
    "{key: 'value'}",
    r#"{"a" b}"#,
    r#"{:"b"}"#,
    r#"{"a" "b"}"#,
    r#"{"a":"#,
    r#"{"a""#,
    "{1:1}",
    "{null:null,null:null}",
    r#"{"id":0,,,,,}"#,
    "{'a':0}",
    r#"{"id":0,}"#,
    r#"{"a":"b"}/**/"#,
    r#"{"a":"b"}//"#,
    r#"{"a":/*comment*/"b"}"#,
    r#"{"a":"b",,"c":"d"}"#,
    r#"{a: "b"}"#,
    r#"{"a":"a"#,
    "{ \"foo\" : \"bar\", \"a\" }",
    "<null>",
];

/// No parser may take these strings.
const BAD_STRINGS: [&str; 19] = [
    r#""\uD800\u""#,
    r#""\uD800\u1""#,
    r#""\uD800\u1x""#,
    r#""\x00""#,
    "\"\\\u{1f}\"",
    r#""\🌀""#,
    r#""\u00A""#,
    r#""\uD834\uDd""#,
    r#""\uD800\uD800\x""#,
    r#""\a""#,
    r#""\uqqqq""#,
    "\"new\nline\"",
    "\"\t\"",
    "\"\u{0}\"",
    r#""\U0041""#,
    // Theirs to choose: half of a pair is no character.
    r#""\uDADA""#,
    r#""\uD888\u1234""#,
    r#""\uDd1e\uD834""#,
    r#""\ud800abc""#,
];

fn accepted(columns: Vec<ColumnDef>, payload: String) -> bool {
    let decoded = decode(columns, &["{}".to_string(), payload, "{}".to_string()]);
    assert_eq!(decoded.errors.len() + decoded.batch.num_rows(), 3);
    decoded.errors.is_empty()
}

/// As the value of a column, and within those of a list and a struct.
fn within(value: &str) -> [bool; 3] {
    let text = || vec![column("v", DataType::Utf8View)];
    let list = || vec![column("v", DataType::List(std::sync::Arc::new(Field::new("item", DataType::Utf8View, true))))];
    let object = || vec![column("v", DataType::Struct(vec![Field::new("x", DataType::Utf8View, true)].into()))];
    [
        accepted(text(), format!("{{\"v\":{value}}}")),
        accepted(list(), format!("{{\"v\":[1,{value}]}}")),
        accepted(object(), format!("{{\"v\":{{\"y\":{value},\"x\":{value}}}}}")),
    ]
}

#[test]
fn what_all_parsers_must_take() {
    for value in GOOD {
        assert!(serde_json::from_str::<Value>(value).is_ok(), "{value}");
        assert_eq!(within(value), [true; 3], "{value}");
        assert!(accepted(vec![column("a", DataType::Int64)], format!("{{\"v\":{value},\"a\":1}}")), "{value}");
    }
}

#[test]
fn what_no_parser_may_take() {
    for value in BAD.into_iter().chain(BAD_STRINGS) {
        assert!(serde_json::from_str::<Value>(value).is_err(), "{value}");
        assert_eq!(within(value), [false; 3], "{value}");
    }
    for bytes in [&b"\xe5"[..], b"\xff", b"\x81", b"\xc0\xaf", b"\xfc\x80\x80\x80\x80\x80", b"\xed\xa0\x80", b"\xf4\xbf\xbf\xbf", b"\xc3", b"\xe2\x82"] {
        // Not UTF-8: bad wherever it stands.
        for (before, behind) in [("{\"v\":\"", "\"}"), ("{\"x\":\"", "\"}"), ("{\"v\":1}", ""), ("{\"x", "\":1}"), ("", "{}")] {
            let payload = [before.as_bytes(), bytes, behind.as_bytes()].concat();
            assert_eq!(decode(vec![column("v", DataType::Utf8View)], &[payload]).errors.len(), 1, "{before}{bytes:?}{behind}");
        }
    }
    // A byte order mark is no white space.
    assert!(!accepted(vec![column("v", DataType::Utf8View)], "\u{feff}{}".into()));
}

#[test]
fn numbers_beyond_all_doubles_are_json() {
    // Theirs to choose: a text column takes what is written.
    for value in
        ["123123e100000", "-1e+9999", "1.5e+9999", "100000000000000000000", "0.4e00669999999999999999999999999999999999999999969999999006", "123.456e-789"]
    {
        assert_eq!(within(value), [true; 3], "{value}");
    }
}

#[test]
fn what_nobody_declared_is_taken_if_its_structure_holds() {
    let columns = || vec![column("a", DataType::Int64)];
    for value in
        ["[1 true]", "[,1]", "[1,,2]", "[3[4]]", "[1:2]", "[*]", "[nul]", "[+1]", "{1:1}", "{\"a\" b}", "{a: \"b\"}", "[0x1]", "[-Infinity]", "[NaN]", "0x1"]
    {
        assert!(serde_json::from_str::<Value>(value).is_err(), "{value}");
        assert!(accepted(columns(), format!("{{\"x\":{value},\"a\":1}}")), "{value}");
    }
    for value in ["[1", "{]", "[}", "\"open", "[\\]", "1 2", "'a'", "", "*", "\u{b}1", "[1]]", "{}}", "\"a\"b", "<null>"] {
        assert!(!accepted(columns(), format!("{{\"x\":{value},\"a\":1}}")), "{value}");
    }
}

#[test]
fn shapes_that_came_before_excuse_nothing() {
    // Good records first, so that keys and shapes of values are expected; then each byte of one is made another.
    let columns = vec![at("b", DataType::Int64, &["a", "b"], TimeFormat::Rfc3339), column("d", DataType::Utf8View)];
    let good = r#"{"x":{"y":[1,{"z":"}"}]},"a":{"c":[true,"]"],"b":12},"e":[[],{}],"d":"text"}"#;
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut payloads = vec![];
    for at in 0..good.len() {
        for _ in 0..4 {
            payloads.push(good.as_bytes().to_vec());
            let mut bad = good.as_bytes().to_vec();
            bad[at] = *b"{}[]\",:\\ \n0a-\x01?\xc3".choose(&mut random).unwrap();
            payloads.push(bad);
        }
    }
    let together = decode(columns.clone(), &payloads);
    let all: Vec<usize> = (0..columns.len()).collect();
    let mut row = 0;
    let mut errors = together.errors.iter().peekable();
    for (record, payload) in (0u32..).zip(&payloads) {
        // Alone nothing is expected.
        let alone = Decoder::new(&source(columns.clone(), None), &all).unwrap().decode(0, &records(&[payload]), 0).unwrap();
        match errors.next_if(|bad| bad.record == record) {
            Some(bad) => assert_eq!(alone.errors.first().map(|bad| &bad.reason), Some(&bad.reason)),
            None => {
                assert_eq!(rows(&alone), [rows_at(&together, row)], "{}", String::from_utf8_lossy(payload));
                row += 1;
            }
        }
    }
    assert!(errors.next().is_none() && row > payloads.len() / 2 && !together.errors.is_empty());
}

fn rows_at(decoded: &Decoded, row: usize) -> Vec<Cell> {
    decoded.batch.columns().iter().map(|column| cell(column, row)).collect()
}

#[test]
fn text_of_any_value_is_judged_as_serde_json_judges_it() {
    let mut seen = [0; 2];
    for seed in 0..3000 {
        let mut random = ChaCha8Rng::seed_from_u64(7_000_000 + seed);
        let columns = super::property::columns(&mut random);
        // Any JSON, damaged now and then, as the one value of a record.
        let Ok(value) = String::from_utf8(payload(&mut random, &columns)) else { continue };
        let value = value.trim_matches([' ', '\t', '\r', '\n']);
        let expected = match serde_json::from_str::<Value>(value) {
            Ok(_) => true,
            // Numbers beyond all doubles are JSON, too.
            Err(error) if error.to_string().contains("number out of range") => continue,
            Err(_) => false,
        };
        let decoded = decode(vec![column("v", DataType::Utf8View)], &[format!("{{\"v\":{value}}}")]);
        let found = rows(&decoded);
        // What closes the record before its end, or goes on behind it, is another record's text.
        let whole = found.len() == 1 && (found[0][0] == text(value) || value.starts_with('"') || value == "null");
        assert_eq!(whole, expected, "seed {seed}: {value}");
        seen[usize::from(expected)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 500), "{seen:?}");
}
