//! Whole records that look like one that was seen before: where their values are is known without a walk.
//!
//! What a walk finds depends on two things only: the kinds of the record's tokens, and the texts of the keys in the objects that it looks into. Both
//! make a record's *shape*. Shapes that come often are kept, each with what the walk found; a record that has one of them is recognised by comparing
//! all its kinds and all those keys, which takes a few vector operations and no branch a key. Whatever is not exactly as it was is walked.
//!
//! The numbers of tokens say where things are, so nothing here depends on how long values are, or on white space other than that between a key and its
//! colon, of which there must be none. Keys with escapes, and objects with keys that have no bit (see [`super::order`]), are left to the walk.
//!
//! A shape is kept once it has come a few times, and where records hardly ever have one, few are looked at: a stream whose records all differ is not
//! held up.
//!
//! Safety: the only unsafe code calls the comparison that is compiled for AVX-512 after asking the processor for it.

use std::collections::HashMap;

use super::{
    path::{Outcome, Paths, Slot},
    same,
    scan::END,
    value::Payload,
};

/// Kinds are compared so many at a time.
const CHUNK: usize = 64;
/// A record of more tokens than these chunks have has no shape.
const MOST_CHUNKS: usize = 16;
/// Where this many paths are declared, what is kept would be mostly slots.
const MOST_SLOTS: usize = 1024;
/// Keys are compared in pieces of so many bytes,
const PIECE: usize = 32;
/// and longer ones, with their quotes and the colon, are not: objects that have them are walked.
const LONGEST: usize = 2 * PIECE;
/// So many pieces are kept; when there are more, all is forgotten.
const MOST_PIECES: usize = 2048;

/// Shapes whose digests begin alike share a set of so many places,
const WAYS: usize = 4;
/// and there are so many sets.
const SETS: usize = 128;
/// So many digests of records that had no shape are remembered.
const SEEN: usize = 1024;
/// Keeping a shape costs as much as some walks: it must have come so often.
const OFTEN: u32 = 4;

/// A record that has a shape makes up for so many that have none.
const WORTH: u32 = 16;
/// After so many more without one,
const PATIENCE: u32 = 4096;
/// only one record of so many is looked at.
const PAUSE: u32 = 16;

/// The shapes that came often.
#[derive(Debug)]
pub(super) struct Shapes {
    /// The digests of those in each set, and 0 where there is none.
    sets: Vec<[u64; WAYS]>,
    /// The shapes, set by set.
    shapes: Vec<Shape>,
    pieces: Pieces,
    /// Digests of records that had no shape, each in the place that it says, and how often it came.
    seen: Vec<(u64, u32)>,
    /// How many more records without a shape are put up with.
    patience: u32,
    /// How many records were passed over since.
    passed_over: u32,
}

/// What records of one shape have in common.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// The kinds of all tokens, with [`END`] behind them.
    kinds: Vec<[u8; CHUNK]>,
    /// The keys, piece by piece.
    keys: Vec<KeyPiece>,
    /// What the walk found.
    outcome: Outcome,
    slots: Vec<Slot>,
    /// How many tokens there are.
    count: usize,
    /// How often it came lately.
    uses: u32,
}

/// That a piece of a key stands somewhere.
#[derive(Debug, Clone, Copy)]
struct KeyPiece {
    /// The key's token.
    token: u32,
    /// How far behind its first byte the piece begins.
    behind: u16,
    /// Its number among [`Pieces`].
    piece: u16,
}

/// Pieces of keys with their quotes and colons, each once.
#[derive(Debug, Default)]
struct Pieces {
    all: Vec<Piece>,
    by_text: HashMap<[u8; PIECE], u16>,
}

/// Up to so many bytes.
#[derive(Debug)]
struct Piece {
    /// Zeros after the end.
    text: [u8; PIECE],
    /// All ones where there is text.
    mask: [u8; PIECE],
}

impl Default for Shapes {
    fn default() -> Self {
        Self { sets: vec![], shapes: vec![], pieces: Pieces::default(), seen: vec![], patience: PATIENCE, passed_over: 0 }
    }
}

impl Shape {
    /// What the walk found beside the values.
    #[inline(always)]
    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Where the values are.
    #[inline(always)]
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// One past the object's last token.
    #[inline(always)]
    pub(super) fn past(&self) -> usize {
        self.count
    }
}

impl Shapes {
    /// The shape of a payload, or its digest; 0 where it can't have one.
    #[inline]
    pub(super) fn find(&mut self, payload: &Payload<'_>) -> Result<&Shape, u64> {
        if self.patience == 0 {
            self.passed_over += 1;
            if self.passed_over < PAUSE {
                return Err(0);
            }
            self.passed_over = 0;
        }
        #[cfg(target_arch = "x86_64")]
        if same::is_wide() {
            // SAFETY: the processor has what the function needs.
            return unsafe { self.find_wide(payload) };
        }
        self.find_with(payload)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
    fn find_wide(&mut self, payload: &Payload<'_>) -> Result<&Shape, u64> {
        self.find_with(payload)
    }

    #[inline(always)]
    fn find_with(&mut self, payload: &Payload<'_>) -> Result<&Shape, u64> {
        let Some(kinds) = chunks_of(payload) else { return Err(0) };
        let digest = digest(kinds);
        let set = set_of(digest);
        if let Some(digests) = self.sets.get(set) {
            for way in 0..WAYS {
                if digests[way] == digest {
                    let place = set * WAYS + way;
                    let shape = &self.shapes[place];
                    if same_kinds(&shape.kinds, kinds) && self.pieces.stand_in(payload, &shape.keys) {
                        let shape = &mut self.shapes[place];
                        shape.uses = shape.uses.saturating_add(1);
                        self.patience = (self.patience + WORTH).min(PATIENCE);
                        return Ok(shape);
                    }
                }
            }
        }
        self.patience = self.patience.saturating_sub(1);
        Err(digest)
    }

    /// Keeps the shape of a payload that is one object, which was just walked, if it is time to. The digest is what [`Shapes::find`] gave.
    #[inline]
    pub(super) fn learn(&mut self, digest: u64, payload: &Payload<'_>, paths: &Paths, slots: &[Slot]) {
        if self.seen.is_empty() {
            self.seen.resize(SEEN, (0, 0));
        }
        let (seen, times) = &mut self.seen[(digest >> 32) as usize % SEEN];
        if *seen != digest {
            (*seen, *times) = (digest, 0);
        }
        *times += 1;
        if *times == OFTEN {
            *times = 0;
            self.keep(digest, payload, paths, slots);
        }
    }

    #[cold]
    fn keep(&mut self, digest: u64, payload: &Payload<'_>, paths: &Paths, slots: &[Slot]) {
        let Some(kinds) = chunks_of(payload) else { return };
        let mut tokens = vec![];
        let Some(count) = paths.plain_keys(payload, &mut tokens) else { return };
        let length = |&token: &usize| payload.text_of(token, token + 2).len();
        if payload.kind(count) != END || slots.len() > MOST_SLOTS || tokens.iter().map(length).max() > Some(LONGEST) {
            return;
        }
        if self.pieces.all.len() > MOST_PIECES || self.sets.is_empty() {
            (self.pieces, self.sets) = (Pieces::default(), vec![[0; WAYS]; SETS]);
            self.shapes.clear();
            self.shapes.resize_with(SETS * WAYS, Shape::default);
        }
        let mut keys = vec![];
        for token in tokens {
            for (number, text) in payload.text_of(token, token + 2).chunks(PIECE).enumerate() {
                let (Ok(behind), Some(piece)) = (u16::try_from(number * PIECE), self.pieces.number_of(text)) else { return };
                keys.push(KeyPiece { token: token as u32, behind, piece });
            }
        }
        let set = set_of(digest);
        let ways = &mut self.shapes[set * WAYS..][..WAYS];
        // The one that came least lately makes room, if there is none.
        let Some((way, least)) = ways.iter_mut().enumerate().min_by_key(|(_, shape)| shape.uses) else { return };
        self.sets[set][way] = digest;
        *least = Shape { kinds: kinds.to_vec(), keys, outcome: paths.outcome().clone(), slots: slots.to_vec(), count, uses: 1 };
        ways.iter_mut().for_each(|shape| shape.uses = shape.uses.div_ceil(2));
    }
}

impl Pieces {
    /// Whether a payload has these pieces of keys where they are expected. No piece decides: most payloads have them all.
    #[inline(always)]
    fn stand_in(&self, payload: &Payload<'_>, keys: &[KeyPiece]) -> bool {
        let mut differ = [0; PIECE];
        for key in keys {
            let place = payload.place(key.token as usize) + usize::from(key.behind);
            let piece = &self.all[usize::from(key.piece)];
            match payload.bytes.get(place..place + PIECE).and_then(<[u8]>::first_chunk) {
                Some(text) => piece.add_difference(text, &mut differ),
                None => piece.add_difference(&filled(payload.bytes.get(place..).unwrap_or_default()), &mut differ),
            }
        }
        differ == [0; PIECE]
    }

    /// The number of a piece of text without zeros; `None`: there is no number left.
    fn number_of(&mut self, text: &[u8]) -> Option<u16> {
        let filled = filled(text);
        if let Some(&number) = self.by_text.get(&filled) {
            return Some(number);
        }
        let number = u16::try_from(self.all.len()).ok()?;
        self.all.push(Piece { text: filled, mask: std::array::from_fn(|at| if at < text.len() { 0xff } else { 0 }) });
        self.by_text.insert(filled, number);
        Some(number)
    }
}

impl Piece {
    /// Sets bits of `differ` where a text is not this one.
    #[inline(always)]
    fn add_difference(&self, text: &[u8; PIECE], differ: &mut [u8; PIECE]) {
        for at in 0..PIECE {
            differ[at] |= (text[at] ^ self.text[at]) & self.mask[at];
        }
    }
}

/// Some bytes with zeros behind them.
#[inline(never)]
fn filled(text: &[u8]) -> [u8; PIECE] {
    std::array::from_fn(|at| text.get(at).copied().unwrap_or_default())
}

/// The kinds of a payload with at least one [`END`] behind them.
#[inline(always)]
fn chunks_of<'a>(payload: &Payload<'a>) -> Option<&'a [[u8; CHUNK]]> {
    let (chunks, _) = payload.kinds.as_chunks();
    (chunks.len() <= MOST_CHUNKS).then_some(chunks)
}

/// A number by which kinds are told apart at a glance; it isn't 0.
#[inline(always)]
fn digest(kinds: &[[u8; CHUNK]]) -> u64 {
    const LANES: usize = CHUNK / 8;
    /// Any odd numbers.
    const TIMES: [[u64; LANES]; 2] = [
        [0x9e37_79b9, 0x85eb_ca6b, 0xc2b2_ae35, 0x27d4_eb2f, 0x1656_67b1, 0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d],
        [0x2545_f491, 0x4f6c_dd1d, 0xd1b5_4a33, 0xaef1_7503, 0x94d0_49bb, 0xbf58_476d, 0x1ce4_e5b9, 0x1331_11eb],
    ];
    let mut lanes = [0u64; LANES];
    for chunk in kinds {
        let (words, _) = chunk.as_chunks();
        for lane in 0..LANES {
            lanes[lane] = lanes[lane].rotate_left(7) ^ u64::from_le_bytes(words[lane]);
        }
    }
    let mut sum = 0u64;
    for lane in 0..LANES {
        let (low, high) = (lanes[lane] & 0xffff_ffff, lanes[lane] >> 32);
        sum = sum.wrapping_add(low.wrapping_mul(TIMES[0][lane])).wrapping_add(high.wrapping_mul(TIMES[1][lane]));
    }
    // All bits of the sum are to have a say in each bit that something is found by.
    let mixed = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32).max(1)
}

/// Whether kinds are the same; there are few chunks, and mostly they are.
#[inline(always)]
fn same_kinds(a: &[[u8; CHUNK]], b: &[[u8; CHUNK]]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut differ = [0; CHUNK];
    for at in 0..a.len() {
        for byte in 0..CHUNK {
            differ[byte] |= a[at][byte] ^ b[at][byte];
        }
    }
    differ == [0; CHUNK]
}

#[inline(always)]
fn set_of(digest: u64) -> usize {
    digest as usize % SETS
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{buffer::Buffer, datatypes::DataType};
    use rand::{RngExt, SeedableRng, seq::IndexedRandom};
    use rand_chacha::ChaCha8Rng;

    use super::{
        super::{super::payload::PayloadColumn, JsonReader, Tokens},
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
        let many: String = (0..100).map(|key| format!(",\"{key}\":0")).collect();
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
        assert!(shapes.sets.len() == SETS && shapes.shapes.len() == SETS * WAYS && shapes.pieces.all.len() <= MOST_PIECES + MOST_CHUNKS * CHUNK);
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
}
