//! Random declarations and random payloads, whole and damaged, against the oracle; and what must not depend on how
//! records are cut into batches or on which columns are needed.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use rand::{RngExt, SeedableRng, seq::IndexedRandom, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    oracle::{No, read_payload},
    *,
};

const SCHEMAS: u64 = 1500;
const PAYLOADS: usize = 24;

/// Paths that meet in many ways: prefixes of each other, long and odd keys.
const PATHS: [&[&str]; 14] = [
    &["a"],
    &["b"],
    &["ab"],
    &["a", "b"],
    &["a", "a"],
    &["a", "b", "c"],
    &["b", "b"],
    &["c", "d", "e", "f"],
    &["é🦤"],
    &["a \"quoted\" \\ key\n"],
    &["a key that is longer than eight bytes"],
    &["a key that is longer than eight bytes", "a key that is longer than eight bytez"],
    &[""],
    &["k\u{e9}y"],
];

fn data_type(random: &mut ChaCha8Rng, depth: usize) -> DataType {
    match random.random_range(0..if depth < 3 { 19 } else { 15 }) {
        0 => DataType::Boolean,
        1 => DataType::Int8,
        2 => DataType::Int32,
        3 | 4 => DataType::Int64,
        5 => DataType::UInt64,
        6 => DataType::Float32,
        7 => DataType::Float64,
        8 => DataType::Decimal128(random.random_range(1..=38), random.random_range(0..=6)),
        9 | 10 => DataType::Utf8View,
        11 => DataType::Utf8,
        12 => DataType::Binary,
        13 => DataType::Date32,
        14 => {
            let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
            DataType::Timestamp(*units.choose(random).unwrap(), random.random_bool(0.5).then(|| "+00:00".into()))
        }
        15 | 16 => DataType::List(Arc::new(Field::new("item", data_type(random, depth + 1), true))),
        _ => {
            let count = random.random_range(0..4);
            let fields = ["a", "b", "é"][..count.min(3)].iter().map(|name| Field::new(*name, data_type(random, depth + 1), true));
            DataType::Struct(fields.collect())
        }
    }
}

pub(super) fn columns(random: &mut ChaCha8Rng) -> Vec<ColumnDef> {
    let count = random.random_range(1..7);
    let column = |index: usize| {
        let data_type = data_type(random, 0);
        let formats = [TimeFormat::Rfc3339, TimeFormat::EpochSeconds, TimeFormat::EpochMillis, TimeFormat::EpochMicros];
        let time = formats[random.random_range(0..4)].clone();
        at(&format!("c{index}"), data_type, PATHS.choose(random).unwrap(), time)
    };
    (0..count).map(column).collect()
}

/// A column and what is left of its path.
type OnPath<'a> = (&'a [String], &'a ColumnDef);

/// Writes random JSON.
struct Writer<'a> {
    random: &'a mut ChaCha8Rng,
    out: String,
}

impl Writer<'_> {
    fn chance(&mut self, share: f64) -> bool {
        self.random.random_bool(share)
    }

    fn pick<'b>(&mut self, options: &[&'b str]) -> &'b str {
        options.choose(self.random).unwrap()
    }

    fn blank(&mut self) {
        while self.chance(0.1) {
            let blank = self.pick(&[" ", "\t", "\n", "\r", "  "]);
            self.out.push_str(blank);
        }
    }

    /// A string; now and then with escapes.
    fn string(&mut self, content: &str) {
        let plain = self.chance(0.9);
        self.out.push('"');
        for character in content.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                _ if plain || self.chance(0.7) => self.out.push(character),
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
            }
        }
        self.out.push('"');
    }

    /// An object with these members to begin with; `write` writes the value of each.
    fn object<T>(&mut self, mut members: Vec<(String, T)>, depth: usize, mut write: impl FnMut(&mut Self, T)) {
        if self.chance(0.3) {
            members.shuffle(self.random);
        }
        self.out.push('{');
        self.blank();
        let mut first = true;
        for (key, value) in members {
            if self.chance(0.3) {
                self.comma(&mut first);
                let key = self.pick(&["x", "a", "b", "other", "y z", "é🦤", ""]);
                self.key(key);
                self.anything(depth + 1);
            }
            self.comma(&mut first);
            self.key(&key);
            write(self, value);
        }
        self.blank();
        self.out.push('}');
    }

    fn comma(&mut self, first: &mut bool) {
        if !std::mem::take(first) {
            self.blank();
            self.out.push(',');
            self.blank();
        }
    }

    fn key(&mut self, key: &str) {
        self.string(key);
        self.blank();
        self.out.push(':');
        self.blank();
    }

    /// A record that mostly fits the columns.
    fn record(&mut self, columns: &[OnPath<'_>], depth: usize) {
        let mut members: Vec<(String, Vec<OnPath<'_>>)> = Vec::new();
        for (path, column) in columns {
            match members.iter_mut().find(|(key, _)| *key == path[0]) {
                Some((_, below)) => below.push((&path[1..], column)),
                None => members.push((path[0].clone(), vec![(&path[1..], column)])),
            }
        }
        members.retain(|_| self.random.random_bool(0.9));
        if self.chance(0.1)
            && let Some(twice) = members.choose(self.random).cloned()
        {
            members.push(twice);
        }
        self.object(members, depth, |writer, columns| {
            let ends: Vec<&ColumnDef> = columns.iter().filter(|(path, _)| path.is_empty()).map(|(_, column)| *column).collect();
            let on: Vec<OnPath<'_>> = columns.into_iter().filter(|(path, _)| !path.is_empty()).collect();
            match ends.choose(writer.random) {
                Some(column) if on.is_empty() || writer.chance(0.5) => writer.fitting(&column.data_type, &column.origin, depth + 1),
                _ if writer.chance(0.95) => writer.record(&on, depth + 1),
                _ => writer.anything(depth + 1),
            }
        });
    }

    fn integer(&mut self) -> String {
        let value = match self.random.random_range(0..6) {
            0 => self.random.random_range(-130..260),
            1 => self.random.random::<i32>().into(),
            2 => self.random.random::<i64>().into(),
            3 => self.random.random::<u64>().into(),
            4 => i128::from(self.random.random::<u64>()) * i128::from(self.random.random::<i32>()),
            _ => self.random.random_range(-10..100),
        };
        value.to_string()
    }

    fn number(&mut self) -> String {
        let mut text = self.integer();
        if self.chance(0.5) {
            let fraction = ["0", "00", "5", "25", "125", "000000001", "1234567890123456789"];
            text = format!("{text}.{}", self.pick(&fraction));
        }
        if self.chance(0.2) {
            text = format!("{text}{}", self.pick(&["e0", "E+2", "e-2", "e3", "e-1", "e17", "e-30", "e300"]));
        }
        text
    }

    /// A value of the type, nearly always.
    fn fitting(&mut self, data_type: &DataType, origin: &Origin, depth: usize) {
        if self.chance(0.04) {
            return self.anything(depth);
        }
        if self.chance(0.05) {
            return self.out.push_str("null");
        }
        let rfc3339 = Origin::Payload { path: Vec::new(), time: TimeFormat::Rfc3339 };
        match data_type {
            DataType::Boolean => {
                let flag = self.pick(&["true", "false"]);
                self.out.push_str(flag);
            }
            DataType::Int8 | DataType::Int32 | DataType::Int64 | DataType::UInt64 => {
                let text = match self.random.random_range(0..10) {
                    0 => self.integer(),
                    1 => self.number(),
                    2 => format!("{}.000", self.random.random_range(0..128)),
                    3 => format!("{}0e-1", self.random.random_range(0..128)),
                    _ => self.random.random_range(0..128).to_string(),
                };
                self.out.push_str(&text);
            }
            DataType::Float32 | DataType::Float64 => {
                let text = self.number();
                self.out.push_str(&text);
            }
            DataType::Decimal128(precision, scale) => {
                let scaled = self.random.random_range(0..10i128.pow((*precision).into()));
                let unit = 10i128.pow(u32::from(scale.unsigned_abs()));
                let mut text = format!("{}.{:0width$}0", scaled / unit, scaled % unit, width = *scale as usize);
                if self.chance(0.1) {
                    text = self.number();
                }
                if self.chance(0.5) { self.string(&text) } else { self.out.push_str(&text) }
            }
            DataType::Utf8 | DataType::Utf8View | DataType::Binary => self.text(),
            DataType::Date32 => {
                let text = format!("{:04}-{:02}-{:02}", self.random.random_range(0..3000), self.random.random_range(1..13), self.random.random_range(1..30));
                self.string(&text);
            }
            DataType::Timestamp(unit, _) => self.timestamp(*unit, origin),
            DataType::List(item) => {
                let count = self.random.random_range(0..4);
                self.out.push('[');
                self.blank();
                let mut first = true;
                for _ in 0..count {
                    self.comma(&mut first);
                    self.fitting(item.data_type(), &rfc3339, depth + 1);
                }
                self.blank();
                self.out.push(']');
            }
            DataType::Struct(fields) => {
                let mut members: Vec<(String, DataType)> = fields.iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
                members.retain(|_| self.random.random_bool(0.8));
                if self.chance(0.1)
                    && let Some(twice) = members.first().cloned()
                {
                    members.push(twice);
                }
                self.object(members, depth, |writer, data_type| writer.fitting(&data_type, &rfc3339, depth + 1));
            }
            other => unreachable!("{other} is not generated"),
        }
    }

    fn timestamp(&mut self, unit: TimeUnit, origin: &Origin) {
        let Origin::Payload { time, .. } = origin else { unreachable!() };
        if !matches!(time, TimeFormat::Rfc3339) {
            let text = if self.chance(0.2) { self.number() } else { (self.random.random_range(0..9_000_000i64) * 1_000_000).to_string() };
            return self.out.push_str(&text);
        }
        let fraction = match unit {
            TimeUnit::Second => "",
            TimeUnit::Millisecond => self.pick(&["", ".5", ".123", ".0001"]),
            _ => self.pick(&["", ".000001", ".123456", ".123456789", ".000000"]),
        };
        let text = format!(
            "{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}{fraction}{}",
            self.random.random_range(1670..2270),
            self.random.random_range(1..13),
            self.random.random_range(1..30),
            self.pick(&["T", "T", " ", "t"]),
            self.random.random_range(0..24),
            self.random.random_range(0..60),
            self.random.random_range(0..60),
            self.pick(&["Z", "Z", "z", "+02:00", "-11:30"]),
        );
        self.string(&text);
    }

    fn text(&mut self) {
        if self.chance(0.1) {
            return self.anything(0);
        }
        let length = self.random.random_range(0..30);
        let content: String = (0..length).map(|_| *['a', 'b', 'ñ', '🦤', '"', '\\', '\n', '{', ']', ',', ':', ' '].choose(self.random).unwrap()).collect();
        self.string(&content);
    }

    /// Any JSON.
    fn anything(&mut self, depth: usize) {
        match self.random.random_range(0..if depth < 5 { 9 } else { 6 }) {
            0 => self.out.push_str("null"),
            1 => self.out.push_str("true"),
            2 | 3 => {
                let text = self.number();
                self.out.push_str(&text);
            }
            4 | 5 => {
                let text = self.pick(&["", "x", "null", "12", "2020-01-01", "}{", "\\\"", "a text with some length to it", "ñ"]);
                self.string(text);
            }
            6 | 7 => {
                let count = self.random.random_range(0..4);
                let members = (0..count).map(|_| (self.pick(&["a", "b", "c", "d", "x"]).to_string(), ())).collect();
                self.object(members, depth, |writer, ()| writer.anything(depth + 1));
            }
            _ => {
                let count = self.random.random_range(0..4);
                self.out.push('[');
                let mut first = true;
                for _ in 0..count {
                    self.comma(&mut first);
                    self.anything(depth + 1);
                }
                self.out.push(']');
            }
        }
    }
}

pub(super) fn payload(random: &mut ChaCha8Rng, columns: &[ColumnDef]) -> Vec<u8> {
    let paths: Vec<OnPath<'_>> = columns
        .iter()
        .map(|column| match &column.origin {
            Origin::Payload { path, .. } => (path.as_slice(), column),
            _ => unreachable!(),
        })
        .collect();
    let mut writer = Writer { random, out: String::new() };
    let (open, between, close) = *[("", " ", ""), ("", "\n", "\n"), ("[", ",", "]"), ("[ ", " ,\n", "]\n")].choose(writer.random).unwrap();
    let count = if writer.chance(0.2) { writer.random.random_range(0..4) } else { 1 };
    writer.out.push_str(open);
    for object in 0..count {
        if object > 0 {
            writer.out.push_str(between);
        }
        writer.record(&paths, 0);
    }
    writer.out.push_str(close);
    let mut bytes = writer.out.into_bytes();
    if random.random_bool(0.4) {
        damage(random, &mut bytes);
    }
    bytes
}

fn damage(random: &mut ChaCha8Rng, bytes: &mut Vec<u8>) {
    const TELLING: &[u8] = b"{}[]\",:\\ \n0159.-+eEtfnu\x00\x1f\x7f\x80\xc3\xff/T";
    for _ in 0..random.random_range(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.random_range(0..bytes.len());
        let byte = *TELLING.choose(random).unwrap();
        match random.random_range(0..5) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            _ => {
                let other = random.random_range(0..bytes.len());
                bytes.swap(at, other);
            }
        }
    }
}

/// What comes of each record: its rows, or the reason against it.
fn fates(decoded: &Decoded, records: usize) -> Vec<Result<Vec<Vec<Cell>>, String>> {
    let mut fates = vec![Ok(Vec::new()); records];
    for (row, &record) in rows(decoded).into_iter().zip(&decoded.record_of) {
        fates[record as usize].as_mut().unwrap().push(row);
    }
    for bad in &decoded.errors {
        assert_eq!(fates[bad.record as usize], Ok(Vec::new()), "a bad record has no rows");
        fates[bad.record as usize] = Err(bad.reason.clone());
    }
    fates
}

#[test]
fn agrees_with_the_oracle() {
    let (mut good, mut bad, mut malformed) = (0, 0, 0);
    for seed in 0..SCHEMAS {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let columns = columns(&mut random);
        let payloads: Vec<Vec<u8>> = (0..PAYLOADS).map(|_| payload(&mut random, &columns)).collect();
        let fates = fates(&decode(columns.clone(), &payloads), PAYLOADS);
        for (payload, fate) in payloads.iter().zip(&fates) {
            let expected = read_payload(&columns, payload);
            let agree = match (&expected, fate) {
                (Ok(rows), Ok(found)) => rows == found,
                (Err(No::Bad), Err(_)) | (Err(No::Unknown), _) => true,
                _ => false,
            };
            assert!(agree, "seed {seed}: {}\n{columns:#?}\nexpected {expected:?}\nfound {fate:?}", String::from_utf8_lossy(payload));
            good += usize::from(fate.is_ok());
            bad += usize::from(fate.is_err());
            malformed += usize::from(fate.as_ref().is_err_and(|reason| reason.starts_with("malformed")));
        }
    }
    // The generator does its work: there is plenty of each.
    let all = good + bad;
    assert!(good > all / 3 && bad > all / 5 && malformed > all / 20, "{good} good, {bad} bad, {malformed} of them malformed");
}

#[test]
fn batches_and_needed_columns_change_nothing() {
    for seed in 0..SCHEMAS / 3 {
        let mut random = ChaCha8Rng::seed_from_u64(1_000_000 + seed);
        let columns = columns(&mut random);
        let payloads: Vec<Vec<u8>> = (0..PAYLOADS).map(|_| payload(&mut random, &columns)).collect();
        let whole = fates(&decode(columns.clone(), &payloads), PAYLOADS);

        // The same decoder over any cut.
        let all: Vec<usize> = (0..columns.len()).collect();
        let mut decoder = Decoder::new(&source(columns.clone(), None), &all).unwrap();
        let mut pieces = Vec::new();
        let mut rest = payloads.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.random_range(1..=rest.len().min(8)));
            pieces.extend(fates(&decoder.decode(0, &records(piece), 0).unwrap(), piece.len()));
            rest = after;
        }
        assert_eq!(pieces, whole, "seed {seed}");

        // Any choice of columns.
        let needed: Vec<usize> = all.iter().copied().filter(|_| random.random_bool(0.5)).collect();
        let mut decoder = Decoder::new(&source(columns.clone(), None), &needed).unwrap();
        let some = fates(&decoder.decode(0, &records(&payloads), 0).unwrap(), PAYLOADS);
        let chosen = |row: &Vec<Cell>| needed.iter().map(|&column| row[column].clone()).collect();
        let expected: Vec<Result<Vec<Vec<Cell>>, String>> =
            whole.iter().map(|fate| fate.as_ref().map(|rows| rows.iter().map(chosen).collect()).map_err(String::clone)).collect();
        assert_eq!(some, expected, "seed {seed}, needed {needed:?}");
    }
}

#[test]
fn records_that_come_again_are_what_they_are_alone() {
    for seed in 0..SCHEMAS / 10 {
        let mut random = ChaCha8Rng::seed_from_u64(2_000_000 + seed);
        let columns = columns(&mut random);
        let payloads: Vec<Vec<u8>> = (0..PAYLOADS).map(|_| payload(&mut random, &columns)).collect();
        let alone: Vec<_> = payloads.iter().flat_map(|payload| fates(&decode(columns.clone(), &[payload]), 1)).collect();
        let mut order: Vec<usize> = (0..PAYLOADS).flat_map(|at| [at; 8]).collect();
        order.shuffle(&mut random);
        let again: Vec<&Vec<u8>> = order.iter().map(|&at| &payloads[at]).collect();
        for (&at, fate) in order.iter().zip(fates(&decode(columns, &again), again.len())) {
            assert_eq!(fate, alone[at], "seed {seed}: {}", String::from_utf8_lossy(&payloads[at]));
        }
    }
}

#[test]
fn noise_never_panics() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..300 {
        let columns = columns(&mut random);
        let mut noise = || {
            let length = random.random_range(0..200);
            (0..length).map(|_| *b"{}[]\",:\\ 0a.-eu\n\xc3\xa9ab".choose(&mut random).unwrap()).collect::<Vec<u8>>()
        };
        let payloads: Vec<Vec<u8>> = (0..100).map(|_| noise()).collect();
        let decoded = decode(columns, &payloads);
        assert!(decoded.errors.len() + decoded.record_of.len() > 90);
    }
}
