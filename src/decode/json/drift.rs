//! What records have beside the declared fields, and what they lack of them.
//!
//! A record is a set of bits: which unknown keys it has (bits of the root's `Order`) and which declared paths lead nowhere in it. Neighbours
//! mostly have the same, so what is done per record is to compare two numbers. Names and values are looked at for a bit's first record, and
//! for keys that have no bit.

use std::{borrow::Cow, collections::HashMap};

use super::{
    super::drift::{Drift, Drifted, FieldPath, MOST_FIELDS, shown},
    order::STRAY,
    path::{Paths, Slot},
    value::{Payload, Text, unescape},
};

/// What has been seen of a run of records.
#[derive(Debug)]
pub(super) struct Notes {
    /// The declared paths, each once.
    leaves: Vec<Leaf>,
    /// Which of them have several parts, as bits, 64 to a word.
    nested: Vec<u64>,
    new: Sets,
    missing: Sets,
    /// Unknown keys whose value has been looked at.
    known: u64,
    /// That value, by the key's bit.
    examples: Vec<(u32, String)>,
    /// Keys that have no bit.
    strays: HashMap<Vec<u8>, Stray>,
    /// How often such keys came beyond the first of them.
    others: u64,
    /// How many records there were.
    record: u64,
    /// Of the record at hand: objects that have a key that was not looked at,
    unseen: Vec<u32>,
    /// and where keys begin that have no bit.
    stray_keys: Vec<u32>,
}

/// A declared path.
#[derive(Debug)]
struct Leaf {
    parts: Vec<String>,
    /// The node that it ends at,
    node: usize,
    /// and those on the way there.
    above: Vec<usize>,
}

/// A key that has no bit.
#[derive(Debug)]
struct Stray {
    records: u64,
    /// The last record that had it.
    last: u64,
    example: String,
}

/// Counts how many records have each bit of a set.
#[derive(Debug)]
struct Sets {
    /// The set of the record at hand.
    now: Vec<u64>,
    /// That of the record before, and of how many before it.
    last: Vec<u64>,
    run: u64,
    /// Records by bit.
    counts: Vec<u64>,
    /// Records whose set isn't empty.
    records: u64,
}

impl Notes {
    /// For these declared paths and the nodes that they end at.
    pub(super) fn new(declared: &[&[String]], nodes: &[usize], paths: &Paths) -> Self {
        let mut leaves: Vec<Leaf> = vec![];
        for (parts, &node) in declared.iter().zip(nodes) {
            if !leaves.iter().any(|leaf| leaf.node == node) {
                leaves.push(Leaf { parts: parts.to_vec(), node, above: paths.above(node) });
            }
        }
        let bits = |leaves: &[Leaf]| leaves.iter().enumerate().fold(0, |bits, (at, leaf)| bits | u64::from(!leaf.above.is_empty()) << at);
        let nested: Vec<u64> = leaves.chunks(64).map(bits).collect();
        Self {
            missing: Sets::new(nested.len()),
            new: Sets::new(1),
            nested,
            leaves,
            known: 0,
            examples: vec![],
            strays: HashMap::new(),
            others: 0,
            record: 0,
            unseen: vec![],
            stray_keys: vec![],
        }
    }

    /// Notes what an object has and lacks, which was just walked.
    #[inline]
    pub(super) fn walked(&mut self, payload: &Payload<'_>, open: usize, paths: &Paths, slots: &[Slot]) {
        let unknown = paths.unknown();
        self.new.now[0] |= unknown;
        if unknown & !self.known != 0 {
            self.unseen.push(open as u32);
            self.stray_keys.extend_from_slice(paths.strays());
        }
        for (word, leaves) in self.leaves.chunks(64).enumerate() {
            let mut lacking = 0;
            for (at, leaf) in leaves.iter().enumerate() {
                lacking |= u64::from(!slots[leaf.node].is_set()) << at;
            }
            let mut nested = lacking & self.nested[word];
            while nested != 0 {
                let at = nested.trailing_zeros();
                nested &= nested - 1;
                // What lies below null is null.
                let deepest = leaves[at as usize].above.iter().rev().find(|&&node| slots[node].is_set());
                if deepest.is_some_and(|&node| payload.bytes.get(slots[node].start as usize..slots[node].end as usize) == Some(b"null")) {
                    lacking &= !(1 << at);
                }
            }
            self.missing.now[word] |= lacking;
        }
    }

    /// The record has been read, as far as it can be.
    #[inline]
    pub(super) fn end(&mut self, payload: &Payload<'_>, paths: &Paths) {
        if !self.unseen.is_empty() {
            self.look(payload, paths);
        }
        self.record += 1;
        self.new.count();
        self.missing.count();
    }

    /// The record turned out to be no JSON: nothing is told of it.
    pub(super) fn forget(&mut self) {
        self.new.now.fill(0);
        self.missing.now.fill(0);
        self.unseen.clear();
        self.stray_keys.clear();
    }

    /// Looks for the values of keys that are seen for the first time, and at keys that have no bit.
    #[cold]
    fn look(&mut self, payload: &Payload<'_>, paths: &Paths) {
        for at in 0..self.unseen.len() {
            if self.new.now[0] & !self.known & !STRAY != 0 {
                self.look_for_values(payload, self.unseen[at] as usize, paths);
            }
        }
        self.unseen.clear();
        for at in 0..self.stray_keys.len() {
            let Ok((key, start)) = payload.key(self.stray_keys[at] as usize) else { continue };
            let name = name_of(&key);
            let room = self.strays.len() < MOST_FIELDS;
            match self.strays.get_mut(name.as_ref()) {
                Some(stray) if stray.last == self.record => {}
                Some(stray) => (stray.records, stray.last) = (stray.records + 1, self.record),
                None if room => {
                    let Ok(end) = payload.skip(start, 0) else { continue };
                    let stray = Stray { records: 1, last: self.record, example: shown(&payload.bytes[start..end]) };
                    self.strays.insert(name.into_owned(), stray);
                }
                None => self.others += 1,
            }
        }
        self.stray_keys.clear();
    }

    fn look_for_values(&mut self, payload: &Payload<'_>, open: usize, paths: &Paths) {
        let mut pos = payload.blank(open + 1);
        // The object was walked, so none of this fails.
        while payload.at(pos) == b'"'
            && let Ok((key, start)) = payload.key(pos)
            && let Ok(end) = payload.skip(start, 0)
        {
            if let Some(bit) = paths.bit_of(&name_of(&key))
                && self.new.now[0] & !self.known & 1 << bit != 0
            {
                self.known |= 1 << bit;
                self.examples.push((bit, shown(&payload.bytes[start..end])));
            }
            pos = payload.blank(end);
            if payload.at(pos) == b',' {
                pos = payload.blank(pos + 1);
            }
        }
    }

    /// What has been seen since the last call.
    pub(super) fn take(&mut self, paths: &Paths) -> Drift {
        self.new.flush();
        self.missing.flush();
        let mut new = Drifted { records: std::mem::take(&mut self.new.records), others: std::mem::take(&mut self.others), ..Drifted::default() };
        let mut examples = std::mem::take(&mut self.examples);
        for (bit, records) in (0..).zip(&mut self.new.counts) {
            let records = std::mem::take(records);
            if records > 0
                && let Some(name) = paths.name_of(bit)
            {
                let example = examples.iter_mut().find(|(of, _)| *of == bit).map(|(_, example)| std::mem::take(example));
                new.add(FieldPath::top(String::from_utf8_lossy(name)), records, example);
            }
        }
        let mut strays: Vec<(Vec<u8>, Stray)> = self.strays.drain().collect();
        strays.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, stray) in strays {
            new.add(FieldPath::top(String::from_utf8_lossy(&name)), stray.records, Some(stray.example));
        }
        let mut missing = Drifted { records: std::mem::take(&mut self.missing.records), ..Drifted::default() };
        for (leaf, records) in self.leaves.iter().zip(&mut self.missing.counts) {
            let records = std::mem::take(records);
            if records > 0 {
                missing.add(FieldPath::of(&leaf.parts), records, None);
            }
        }
        self.known = 0;
        self.record = 0;
        Drift { new, missing, ..Drift::default() }
    }
}

impl Sets {
    fn new(words: usize) -> Self {
        Self { now: vec![0; words], last: vec![0; words], run: 0, counts: vec![0; words * 64], records: 0 }
    }

    /// Counts the set at hand and begins an empty one.
    #[inline]
    fn count(&mut self) {
        if self.now != self.last {
            self.flush();
            self.last.copy_from_slice(&self.now);
        }
        self.run += 1;
        self.now.fill(0);
    }

    fn flush(&mut self) {
        let run = std::mem::take(&mut self.run);
        let mut any = false;
        for (word, &bits) in self.last.iter().enumerate() {
            any |= bits != 0;
            let mut bits = bits;
            while bits != 0 {
                self.counts[word * 64 + bits.trailing_zeros() as usize] += run;
                bits &= bits - 1;
            }
        }
        self.records += if any { run } else { 0 };
    }
}

/// A key's name.
fn name_of<'a>(key: &Text<'a>) -> Cow<'a, [u8]> {
    match key {
        Text::Plain(key) => Cow::Borrowed(key),
        Text::Escaped(key) => {
            let mut plain = vec![];
            unescape(key, &mut plain);
            Cow::Owned(plain)
        }
    }
}
