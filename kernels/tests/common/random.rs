//! Random inputs for the kernels, malformed and adversarial ones included. The same seed gives the same ones everywhere.

use tidegate_kernels::json::{Declared, Notes, Schema, Type, Unit};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// One time in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// In 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Any float, also those that are hard to add: all magnitudes, subnormal ones, infinities, NaN, both zeros.
    pub fn float(&mut self) -> f64 {
        match self.below(12) {
            0 => f64::from_bits(self.next()),
            1 => 0.0,
            2 => -0.0,
            3 => f64::from_bits(self.next() & ((1 << 52) - 1)),
            4 if self.once_in(20) => *[f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN].get(self.below(4)).unwrap(),
            5 => (self.unit() - 0.5) * 1e300,
            _ => (self.unit() - 0.5) * 1e4,
        }
    }

    /// A bitmap of so many bits, most of them set.
    pub fn bitmap(&mut self, bits: usize) -> Vec<u8> {
        (0..bits.div_ceil(8)).map(|_| (self.next() | self.next()) as u8).collect()
    }
}

/// The arrays of one tree.
#[derive(Default)]
pub struct TreeArrays {
    pub feature: Vec<i32>,
    pub threshold: Vec<f64>,
    pub left: Vec<u32>,
    pub missing_left: Vec<u32>,
    pub shares: Vec<f64>,
}

impl TreeArrays {
    /// A random tree of up to `depth` levels below its root.
    pub fn random(random: &mut Random, width: usize, classes: usize, depth: usize) -> Self {
        let mut tree = Self::default();
        let mut levels = vec![0];
        let mut free = 1;
        let mut node = 0;
        while node < levels.len() {
            if levels[node] == depth || (node > 0 && random.once_in(12)) {
                tree.feature.push(-1);
                tree.threshold.push(0.0);
                tree.left.push(0);
                let parts: Vec<f64> = (0..classes).map(|_| random.unit()).collect();
                let sum: f64 = parts.iter().sum();
                tree.shares.extend(parts.iter().map(|part| part / sum));
            } else {
                tree.feature.push(random.below(width) as i32);
                tree.threshold.push((random.unit() - 0.5) * 4.0);
                tree.left.push(free);
                if random.once_in(2) {
                    tree.missing_left.push(node as u32);
                }
                levels.extend([levels[node] + 1; 2]);
                free += 2;
            }
            node += 1;
        }
        tree
    }

    pub fn tree(&self) -> tidegate_kernels::score::Tree<'_> {
        tidegate_kernels::score::Tree {
            feature: &self.feature,
            threshold: &self.threshold,
            left: &self.left,
            missing_left: &self.missing_left,
            shares: &self.shares,
        }
    }
}

/// The arrays of one boosted tree.
#[derive(Default)]
pub struct BoostedArrays {
    pub feature: Vec<i32>,
    pub threshold: Vec<f64>,
    pub left: Vec<u32>,
    pub missing_left: Vec<u32>,
    pub values: Vec<f64>,
    pub output: usize,
}

impl BoostedArrays {
    /// A random tree of up to `depth` levels below its root, for one of so many outputs.
    pub fn random(random: &mut Random, width: usize, outputs: usize, depth: usize) -> Self {
        let TreeArrays { feature, threshold, left, missing_left, shares } = TreeArrays::random(random, width, 1, depth);
        let values = shares.iter().map(|_| random.unit() - 0.5).collect();
        Self { feature, threshold, left, missing_left, values, output: random.below(outputs) }
    }

    pub fn tree(&self) -> tidegate_kernels::score::BoostedTree<'_> {
        tidegate_kernels::score::BoostedTree {
            feature: &self.feature,
            threshold: &self.threshold,
            left: &self.left,
            missing_left: &self.missing_left,
            categorical: &[],
            values: &self.values,
            output: self.output,
        }
    }
}

/// Columns of features; some values are missing, some lie on the spot where trees decide.
pub fn features(random: &mut Random, width: usize, rows: usize) -> Vec<Vec<f64>> {
    (0..width).map(|_| (0..rows).map(|_| if random.once_in(15) { f64::NAN } else { (random.unit() - 0.5) * 4.0 }).collect()).collect()
}

/// Rows of JSON in one payload.
#[derive(Default)]
pub struct Payload {
    pub bytes: Vec<u8>,
    pub ranges: Vec<[u32; 2]>,
}

impl Payload {
    pub fn push(&mut self, row: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(row);
        self.ranges.push([start, self.bytes.len() as u32]);
    }

    pub fn rows(&self) -> tidegate_kernels::json::Rows<'_> {
        tidegate_kernels::json::Rows { payload: &self.bytes, ranges: &self.ranges }
    }
}

/// A number as JSON writes it, ordinary or not.
pub fn number(random: &mut Random) -> String {
    match random.below(12) {
        0 => random.next().to_string(),
        1 => (random.next() as i64).to_string(),
        2 => format!("{:?}", f64::from_bits(random.next() & !(1 << 62))),
        3 => format!("{}", random.unit()),
        4 => format!("-{:.3}", random.unit() * 1000.0),
        5 => format!("{}e{}", random.below(100_000), random.below(700) as i64 - 350),
        6 => format!("{}{}.{}{}E+{}", random.next(), random.next(), random.next(), random.next(), random.below(5)),
        7 => random
            .pick(&["0", "-0", "0.0", "-0.0e0", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "1e309", "4.9e-324", "2.5e-324"])
            .into(),
        8 => random
            .pick(&["01", "-", "1.", ".5", "1e", "1e+", "+1", "0x1", "1_0", "NaN", "Infinity", "1.5.5", "--1", "1a", "9007199254740993", "9007199254740993.0"])
            .into(),
        _ => random.below(10_000).to_string(),
    }
}

/// A timestamp, ordinary or not.
pub fn time(random: &mut Random) -> String {
    let two = |random: &mut Random, most: usize| format!("{:02}", random.below(most));
    let year = if random.once_in(6) { random.below(10_000) } else { 1900 + random.below(200) };
    let mut text = format!("{year:04}-{}-{}", two(random, 14), two(random, 33));
    text.push_str(random.pick(&["T", "T", "T", "t", " ", "_"]));
    text += &format!("{}:{}:{}", two(random, 25), two(random, 61), two(random, 61));
    if random.once_in(2) {
        text.push('.');
        let count = [3, 6, 9, random.below(12)][random.below(4)];
        (0..count).for_each(|_| text.push(char::from(b'0' + if random.once_in(2) { 0 } else { random.below(10) as u8 })));
    }
    text.push_str(random.pick(&["Z", "Z", "z", "+02:00", "-11:30", "+24:00", "", "+2:00", "Zz"]));
    text
}

/// A string's content, ordinary or not. (What comes of it may not be UTF-8 once it is mutated.)
pub fn text(random: &mut Random) -> String {
    let mut text = String::new();
    let most = if random.once_in(8) { 60 } else { 8 };
    for _ in 0..random.below(most) {
        let kinds = if random.once_in(3) { 40 } else { 12 };
        match random.below(kinds) {
            12 => text.push_str(random.pick(&["\\n", "\\\"", "\\\\", "\\u00e9", "\\ud83d\\ude00", "\\x", "\\u12"])),
            13 => text.push(random.pick(&["\u{1}", "\t"]).chars().next().unwrap()),
            14..=16 => text.push_str(random.pick(&["é", "ß", "漢字", "😀", "\u{7ff}", "\u{800}", "\u{ffff}", "\u{10ffff}"])),
            17 => text.push_str(random.pick(&["{", "}", "[", "]", ",", ":", "\u{7f}"])),
            _ => text.push(char::from(b'a' + random.below(26) as u8)),
        }
    }
    text
}

/// Any value.
pub fn value(random: &mut Random, depth: usize) -> String {
    match random.below(if depth == 0 { 6 } else { 9 }) {
        0 | 1 => number(random),
        2 => format!("\"{}\"", text(random)),
        3 => random.pick(&["true", "false", "null", "nul", "True", "truex"]).into(),
        4 => format!("\"{}\"", time(random)),
        5 => random.below(1000).to_string(),
        6 => {
            let items: Vec<String> = (0..random.below(4)).map(|_| value(random, depth - 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => object(random, depth - 1, &["a", "b", "x", "a.b", ""]),
    }
}

/// An object with some of these keys.
pub fn object(random: &mut Random, depth: usize, keys: &[&str]) -> String {
    let items: Vec<String> = (0..random.below(5)).map(|_| format!("\"{}\":{}", random.pick(keys), value(random, depth))).collect();
    format!("{{{}}}", items.join(","))
}

/// A row for the schema of [`columns`]: mostly of the right types, with other keys in between; then, sometimes, damaged.
pub fn row(random: &mut Random, damage: bool) -> Vec<u8> {
    let mut parts = Vec::new();
    for key in ["id", "price", "name", "ok", "at", "ms", "who", "extra", "a key that is rather long"] {
        if random.once_in(7) {
            continue;
        }
        let odd = damage && random.once_in(40);
        let value = match key {
            _ if odd => value(random, 3),
            _ if random.once_in(12) => "null".into(),
            "id" if damage && random.once_in(4) => number(random),
            "id" => (random.next() as i64 >> random.below(64)).to_string(),
            "price" if damage && random.once_in(3) => number(random),
            "price" => format!("{:?}", random.unit() * 10f64.powi(random.below(12) as i32 - 4)),
            "name" => format!("\"{}\"", if damage { text(random) } else { "x".repeat(random.below(30)) }),
            "ok" => random.pick(&["true", "false"]).into(),
            "at" | "ms" if damage => format!("\"{}\"", time(random)),
            "at" => format!(
                "\"20{:02}-0{}-1{}T0{}:1{}:2{}.{:03}Z\"",
                random.below(90) + 10,
                random.below(9) + 1,
                random.below(10),
                random.below(10),
                random.below(10),
                random.below(10),
                random.below(1000)
            ),
            "ms" => format!("\"1999-12-31T23:59:59.{:03}+01:00\"", random.below(1000)),
            "who" => format!(
                "{{\"team\":{{\"name\":\"{}\",\"no\":{}}},\"x\":{}}}",
                if damage { text(random) } else { "team".into() },
                random.below(100),
                if damage { value(random, 2) } else { "[1,{\"y\":\"}\"}]".into() }
            ),
            "extra" if damage => value(random, 3),
            _ if key != "extra" => random.pick(&["true", "false"]).into(),
            _ => format!("[{},\"{}\"]", random.below(1000), "skipped ".repeat(random.below(8))),
        };
        parts.push(format!("{}\"{key}\"{}:{}{value}{}", blank(random), blank(random), blank(random), blank(random)));
    }
    if random.once_in(3) {
        let at = random.below(parts.len().max(1));
        parts.rotate_left(at);
    }
    let mut row = format!("{}{{{}}}{}", blank(random), parts.join(","), blank(random)).into_bytes();
    if damage && random.once_in(3) {
        mutate(random, &mut row);
    }
    row
}

/// Damages some bytes.
fn mutate(random: &mut Random, row: &mut Vec<u8>) {
    for _ in 0..1 + random.below(3) {
        let at = random.below(row.len());
        match random.below(5) {
            0 => row[at] = random.next() as u8,
            1 => row.truncate(at.max(1)),
            2 => row.insert(at, *random.pick(&[b"\"", b"{", b"}", b"[", b"]", b"\\", b",", b":", b" ", b"\xc3"]).first().unwrap()),
            3 => {
                row.remove(at);
            }
            _ => {
                let copied = row[at..(at + 20).min(row.len())].to_vec();
                row.splice(at..at, copied);
            }
        }
        if row.is_empty() {
            break;
        }
    }
}

/// The schema that [`row`] makes rows for.
pub fn columns() -> Vec<(Vec<&'static str>, Type)> {
    vec![
        (vec!["id"], Type::Int64),
        (vec!["price"], Type::Float64),
        (vec!["name"], Type::Text),
        (vec!["ok"], Type::Boolean),
        (vec!["at"], Type::Timestamp(Unit::Nanosecond)),
        (vec!["who", "team", "name"], Type::Text),
        (vec!["who", "team", "no"], Type::Int64),
        (vec!["ms"], Type::Timestamp(Unit::Millisecond)),
        (vec!["a key that is rather long"], Type::Boolean),
    ]
}

/// Any columns, and what is asked beside them.
pub struct Declaration {
    pub columns: Vec<Declared<Vec<String>>>,
    pub notes: Notes,
}

impl Declaration {
    /// A few columns; some have more than a word has bits.
    pub fn random(random: &mut Random) -> Self {
        let wide = random.once_in(8);
        let count = if wide { 60 + random.below(50) } else { 1 + random.below(12) };
        let mut columns: Vec<Declared<Vec<String>>> = Vec::new();
        for number in 0..count {
            let mut path = vec![if wide || random.once_in(3) { format!("k{number}") } else { random.pick(&["a", "b", "who", "", "é"]).into() }];
            while random.once_in(2 + usize::from(wide) * 30) && path.len() < 8 {
                path.push(random.pick(&["a", "b", "c"]).into());
            }
            let overlaps = |other: &Declared<Vec<String>>| other.path.starts_with(&path) || path.starts_with(&other.path);
            if !columns.iter().any(overlaps) {
                columns.push(Declared { path, data_type: TYPES[random.below(TYPES.len())], wanted: !random.once_in(4) });
            }
        }
        let mut notes = Notes { seen: !random.once_in(4), leave_unknown: random.once_in(2), leave_blocked: random.once_in(2), ..Notes::default() };
        for number in 0..random.below(6) {
            notes.keys.push(format!("n{number}"));
            if random.once_in(2) {
                notes.keys.push(columns[random.below(columns.len())].path[0].clone());
            }
        }
        Self { columns, notes }
    }

    pub fn schema(&self) -> Schema {
        Schema::with_notes(&self.columns, &self.notes).unwrap()
    }

    /// A row: mostly all of the right types, with other keys in between; then, sometimes, damaged.
    pub fn row(&self, random: &mut Random, damage: bool) -> Vec<u8> {
        let mut row = format!("{}{}{}", blank(random), self.object(random, &[], damage), blank(random)).into_bytes();
        if damage && random.once_in(3) {
            mutate(random, &mut row);
        }
        row
    }

    /// An object that paths lead through.
    fn object(&self, random: &mut Random, at: &[String], damage: bool) -> String {
        let mut items: Vec<(String, String)> = Vec::new();
        for column in self.columns.iter().filter(|column| column.path.starts_with(at)) {
            let key = &column.path[at.len()];
            // A key that others lead through as well has come already, or is left out.
            if random.once_in(9) || items.iter().any(|(other, _)| other == key) {
                continue;
            }
            let value = match () {
                _ if damage && random.once_in(30) => value(random, 3),
                _ if column.path.len() > at.len() + 1 && random.once_in(60) => random.pick(&["null", "1", "[]", "\"{}\""]).into(),
                _ if column.path.len() > at.len() + 1 => self.object(random, &column.path[..=at.len()], damage),
                _ if random.once_in(12) => "null".into(),
                _ => of_type(random, column.data_type, damage),
            };
            items.push((key.clone(), value));
        }
        let top = at.is_empty();
        for key in self.notes.keys.iter().filter(|key| top && key.starts_with('n')) {
            for _ in 0..[0, 1, 1, 1, 1, 2][random.below(6)] {
                items.push((key.clone(), value(random, 2)));
            }
        }
        let rare = if top && self.notes.leave_unknown { 30 } else { 3 };
        if random.once_in(rare) {
            items.push((random.pick(&["x", "unknown", "n99", "nobody declared this"]).into(), value(random, 2)));
        }
        if damage && random.once_in(40) && !items.is_empty() {
            items.push(items[random.below(items.len())].clone());
        }
        if random.once_in(2) && !items.is_empty() {
            let (from, to) = (random.below(items.len()), random.below(items.len()));
            items.swap(from, to);
        }
        let item = |(key, value): (String, String)| format!("{}\"{key}\"{}:{}{value}{}", blank(random), blank(random), blank(random), blank(random));
        format!("{{{}}}", items.into_iter().map(item).collect::<Vec<_>>().join(","))
    }
}

fn blank(random: &mut Random) -> &'static str {
    random.pick(&["", "", "", "", " ", "\n", "\t ", "\r\n"])
}

pub const TYPES: [Type; 13] = [
    Type::Boolean,
    Type::Int8,
    Type::Int16,
    Type::Int32,
    Type::Int64,
    Type::UInt8,
    Type::UInt16,
    Type::UInt32,
    Type::Float64,
    Type::Text,
    Type::Timestamp(Unit::Millisecond),
    Type::Timestamp(Unit::Microsecond),
    Type::Raw,
];

/// The smallest and the greatest integer of a type.
pub fn limits(data_type: Type) -> Option<(i64, i64)> {
    Some(match data_type {
        Type::Int8 => (i8::MIN.into(), i8::MAX.into()),
        Type::Int16 => (i16::MIN.into(), i16::MAX.into()),
        Type::Int32 => (i32::MIN.into(), i32::MAX.into()),
        Type::Int64 => (i64::MIN, i64::MAX),
        Type::UInt8 => (0, u8::MAX.into()),
        Type::UInt16 => (0, u16::MAX.into()),
        Type::UInt32 => (0, u32::MAX.into()),
        _ => return None,
    })
}

/// A value of a type; one that is nearly of it if it may be bad.
fn of_type(random: &mut Random, data_type: Type, bad: bool) -> String {
    if let Some((least, most)) = limits(data_type) {
        let (least, most) = (i128::from(least), i128::from(most));
        let beyond = i128::from(bad && random.once_in(10));
        return match random.below(6) {
            0 => (least - beyond).to_string(),
            1 => (most + beyond).to_string(),
            2 if bad && random.once_in(10) => number(random),
            _ => (least + (random.next() as i128 >> random.below(64)) % (most - least + 1)).to_string(),
        };
    }
    match data_type {
        Type::Boolean => random.pick(&["true", "false"]).into(),
        Type::Float64 if bad && random.once_in(5) => number(random),
        Type::Float64 => format!("{:?}", random.unit() * 10f64.powi(random.below(12) as i32 - 4)),
        Type::Text if random.once_in(5) => {
            let as_written = [Type::Boolean, Type::Int32, Type::Float64][random.below(3)];
            of_type(random, as_written, bad)
        }
        Type::Text if bad && random.once_in(5) => format!("\"{}\"", text(random)),
        Type::Text => format!("\"{}{}\"", "x".repeat(random.below(20)), random.pick(&["", "", "é漢", "{", "\u{10ffff}"])),
        Type::Timestamp(_) if bad && random.once_in(5) => format!("\"{}\"", time(random)),
        Type::Timestamp(_) => {
            format!("\"{:04}-02-2{}T0{}:1{}:20.{:03}Z\"", random.below(9999), random.below(9), random.below(10), random.below(10), random.below(1000))
        }
        _ => value(random, 3),
    }
}
