//! What records have beside the declared fields, and what they lack of them.
//!
//! A record is two sets of bits: which unknown keys it has (bits of the root's `Order`), and which declared paths lead nowhere in it. Most records
//! have the same few sets, so what is done per record is to compare two numbers. Names and values are looked at for a bit's first record, and
//! for keys that have no bit.

use std::{borrow::Cow, collections::HashMap};

use super::{
    super::drift::{Drift, Drifted, FieldPath, MOST_FIELDS, shown},
    order::{Keys, STRAY},
    path::{Paths, Slot},
    value::{Payload, Text, unescape},
};

/// What has been seen of a run of records.
#[derive(Debug)]
pub(super) struct Notes {
    new: Sets,
    /// Keys whose value has been looked at.
    known: Keys,
    /// That value, by the key's bit.
    examples: Vec<(u32, String)>,
    /// Keys that have no bit.
    strays: HashMap<Vec<u8>, Stray>,
    /// How often such keys came beyond the first of them.
    others: u64,
    /// The declared paths, each once.
    missing: Vec<Lacking>,
    /// Records that lack any, and all records.
    lacking: u64,
    record: u64,
    /// Of the record at hand: the first tokens of objects that have a key that was not looked at,
    unseen: Vec<u32>,
    /// and the keys that have no bit.
    stray_keys: Vec<u32>,
}

/// What a record of one object has, told by somebody else than a walk over it.
#[derive(Debug, Clone, Default)]
pub(super) struct Has {
    /// The unknown keys at its top, each its bit.
    pub(super) unknown: Keys,
    /// The nodes that have a value, each a bit, 64 to a word.
    pub(super) found: Vec<u64>,
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

/// The declared paths that end at one of 64 nodes; each has its node's bit.
#[derive(Debug, Default)]
struct Lacking {
    leaves: Vec<Leaf>,
    /// The bits of all of them,
    all: u64,
    /// and of those that have several parts.
    nested: u64,
    sets: Sets,
}

/// A key that has no bit.
#[derive(Debug)]
struct Stray {
    records: u64,
    /// The last record that had it.
    last: u64,
    example: String,
}

/// How many sets are remembered until their bits are counted; there are mostly fewer than these.
const SETS: usize = 16;

/// Counts how many records have each bit of a set. Most sets come again, so they are counted as wholes.
#[derive(Debug)]
struct Sets {
    /// The set of the record at hand.
    now: Keys,
    /// Some sets, each in the place that its bits say, and how often they came.
    lately: [(Keys, u64); SETS],
    /// Records by bit, but for those.
    counts: [u64; Keys::BITS as usize],
    /// Records whose set isn't empty.
    records: u64,
}

impl Notes {
    /// For these declared paths and the nodes that they end at.
    pub(super) fn new(declared: &[&[String]], nodes: &[usize], paths: &Paths) -> Self {
        let mut missing: Vec<Lacking> = vec![];
        missing.resize_with(paths.len().div_ceil(64), Lacking::default);
        for (parts, &node) in declared.iter().zip(nodes) {
            let lacking = &mut missing[node / 64];
            if lacking.all & 1 << (node % 64) == 0 {
                let above = paths.above(node);
                lacking.all |= 1 << (node % 64);
                lacking.nested |= u64::from(!above.is_empty()) << (node % 64);
                lacking.leaves.push(Leaf { parts: parts.to_vec(), node, above });
            }
        }
        Self {
            missing,
            new: Sets::default(),
            known: 0,
            examples: vec![],
            strays: HashMap::new(),
            others: 0,
            lacking: 0,
            record: 0,
            unseen: vec![],
            stray_keys: vec![],
        }
    }

    /// Notes what an object has and lacks, which was just walked.
    #[inline]
    pub(super) fn walked(&mut self, payload: &Payload<'_>, open: usize, paths: &Paths, slots: &[Slot]) {
        let unknown = paths.unknown();
        self.new.now |= unknown;
        if unknown & !self.known != 0 {
            self.unseen.push(open as u32);
            self.stray_keys.extend_from_slice(paths.strays());
        }
        for (word, missing) in self.missing.iter_mut().enumerate() {
            let mut lacking = missing.all & !paths.found(word);
            if paths.cut() && lacking & missing.nested != 0 {
                lacking &= !below_null(lacking & missing.nested, &missing.leaves, payload, slots);
            }
            missing.sets.now |= Keys::from(lacking);
        }
    }

    /// Whether all unknown keys of a record have been looked at already, so that it can be noted without being looked at.
    #[inline]
    pub(super) fn knows(&self, has: &Has) -> bool {
        has.unknown & !self.known == 0
    }

    /// Notes a record without looking at it.
    #[inline]
    pub(super) fn note(&mut self, has: &Has) {
        self.new.now = has.unknown;
        for (missing, found) in self.missing.iter_mut().zip(&has.found) {
            missing.sets.now = Keys::from(missing.all & !found);
        }
        self.count();
    }

    /// The record has been read, as far as it can be.
    #[inline]
    pub(super) fn end(&mut self, payload: &Payload<'_>, paths: &Paths) {
        if !self.unseen.is_empty() {
            self.look(payload, paths);
        }
        self.count();
    }

    /// Counts what was noted of the record at hand.
    #[inline]
    fn count(&mut self) {
        self.record += 1;
        self.new.count();
        let mut any = 0;
        for missing in &mut self.missing {
            any |= missing.sets.now;
            missing.sets.count();
        }
        self.lacking += u64::from(any != 0);
    }

    /// The record turned out to be no JSON: nothing is told of it.
    pub(super) fn forget(&mut self) {
        self.new.now = 0;
        self.missing.iter_mut().for_each(|missing| missing.sets.now = 0);
        self.unseen.clear();
        self.stray_keys.clear();
    }

    /// Looks for the values of keys that are seen for the first time, and at keys that have no bit.
    #[cold]
    fn look(&mut self, payload: &Payload<'_>, paths: &Paths) {
        for at in 0..self.unseen.len() {
            if self.new.now & !self.known & !STRAY != 0 {
                self.look_for_values(payload, self.unseen[at] as usize, paths);
            }
        }
        self.unseen.clear();
        for at in 0..self.stray_keys.len() {
            let Ok((key, value)) = payload.key(self.stray_keys[at] as usize) else { continue };
            let name = name_of(&key);
            let room = self.strays.len() < MOST_FIELDS;
            match self.strays.get_mut(name.as_ref()) {
                Some(stray) if stray.last == self.record => {}
                Some(stray) => (stray.records, stray.last) = (stray.records + 1, self.record),
                None if room => {
                    let Ok(past) = payload.skip(value, 0) else { continue };
                    let stray = Stray { records: 1, last: self.record, example: shown(payload.text_of(value, past)) };
                    self.strays.insert(name.into_owned(), stray);
                }
                None => self.others += 1,
            }
        }
        self.stray_keys.clear();
    }

    fn look_for_values(&mut self, payload: &Payload<'_>, open: usize, paths: &Paths) {
        let mut at = open + 1;
        // The object was walked, so none of this fails.
        while payload.kind(at) == b'"'
            && let Ok((key, value)) = payload.key(at)
            && let Ok(past) = payload.skip(value, 0)
        {
            if let Some(bit) = paths.bit_of(&name_of(&key))
                && self.new.now & !self.known & 1 << bit != 0
            {
                self.known |= 1 << bit;
                self.examples.push((bit, shown(payload.text_of(value, past))));
            }
            at = past + usize::from(payload.kind(past) == b',');
        }
    }

    /// What has been seen since the last call.
    pub(super) fn take(&mut self, paths: &Paths) -> Drift {
        let (counts, records) = self.new.take();
        let mut new = Drifted { records, others: std::mem::take(&mut self.others), ..Drifted::default() };
        let mut examples = std::mem::take(&mut self.examples);
        for (bit, &records) in (0..).zip(&counts) {
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
        let mut missing = Drifted { records: std::mem::take(&mut self.lacking), ..Drifted::default() };
        for lacking in &mut self.missing {
            let (counts, _) = lacking.sets.take();
            let records_of = lacking.leaves.iter().map(|leaf| (leaf, counts[leaf.node % 64]));
            for (leaf, records) in records_of.filter(|(_, records)| *records > 0) {
                missing.add(FieldPath::of(&leaf.parts), records, None);
            }
        }
        self.known = 0;
        self.record = 0;
        Drift { new, missing, ..Drift::default() }
    }
}

/// Which of some paths that lead nowhere, each its node's bit, do so since there is null on the way: what lies below null is null.
#[cold]
fn below_null(nested: u64, leaves: &[Leaf], payload: &Payload<'_>, slots: &[Slot]) -> u64 {
    let is_null = |leaf: &&Leaf| {
        let deepest = leaf.above.iter().rev().map(|&node| slots[node]).find(|slot| slot.is_set());
        deepest.is_some_and(|slot| payload.text_of(slot.first as usize, slot.past as usize) == b"null")
    };
    let bit = |leaf: &Leaf| 1 << (leaf.node % 64);
    leaves.iter().filter(|leaf| nested & bit(leaf) != 0).filter(is_null).fold(0, |null, leaf| null | bit(leaf))
}

impl Default for Sets {
    fn default() -> Self {
        Self { now: 0, lately: [(0, 0); SETS], counts: [0; Keys::BITS as usize], records: 0 }
    }
}

impl Sets {
    /// Counts the set at hand and begins an empty one.
    #[inline]
    fn count(&mut self) {
        let set = std::mem::take(&mut self.now);
        if set == 0 {
            return;
        }
        // The upper bits of the product depend on all of the set's.
        let place = (set as u64 ^ (set >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        self.records += 1;
        let lately = &mut self.lately[place as usize];
        if lately.0 == set {
            lately.1 += 1;
        } else {
            let (before, times) = std::mem::replace(lately, (set, 1));
            self.add(before, times);
        }
    }

    /// Counts the bits of a set that came so often.
    fn add(&mut self, mut set: Keys, times: u64) {
        while set != 0 {
            self.counts[set.trailing_zeros() as usize] += times;
            set &= set - 1;
        }
    }

    /// Records by bit, and those that have any; the next run begins.
    fn take(&mut self) -> ([u64; Keys::BITS as usize], u64) {
        let mut all = std::mem::take(self);
        for (set, times) in all.lately {
            all.add(set, times);
        }
        (all.counts, all.records)
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
