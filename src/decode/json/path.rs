//! The declared paths as a tree, and the walk that finds their values in an object.
//!
//! A walk remembers where the last value of each path is (a [`Slot`] per node of the tree); judging comes after, so a
//! key that comes twice simply moves its slot, and takes what was found below the former value with it.
//!
//! It is one loop over keys, also those of objects within objects: where a nested object ends, the node above says where it goes on.
//!
//! Safety: the only unsafe code calls the walk that needs AVX-512 after asking the processor for it.

use std::ops::Range;

use super::{
    fault::Judged,
    order::{BEGINNING, Keys, Order, Place, STRAY},
    same::{self, WIDEST},
    scan::WORD,
    value::{Payload, Text, unescape},
};
use crate::error::{Error, Result};

/// So many parts of a path, and what is guessed below, nest no deeper than JSON may.
const MAX_PARTS: usize = 64;

/// Below this many keys a node is searched from end to end.
const FEW: usize = 8;

/// Paths of object keys, compiled.
#[derive(Debug)]
pub(super) struct Paths {
    /// In preorder, so that what lies below a node follows it.
    nodes: Vec<Node>,
    /// The keys of each node together, sorted.
    keys: Vec<Key>,
    /// For each node the order in which its object's keys came lately.
    orders: Vec<Order>,
    /// Of the object walked last: what was found out,
    outcome: Outcome,
    /// and where keys at its top begin that lead nowhere and have no bit.
    strays: Vec<u32>,
}

/// What a walk finds out beside where values are.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// Which keys at the top were passed over, each a bit.
    passed: Keys,
    /// Whether a value on the way to a path's end is no object.
    cut: bool,
    /// Which nodes have a value, each a bit, 64 to a word.
    found: Vec<u64>,
}

/// An object on some path (if it has keys) or a path's end (or both).
#[derive(Debug)]
struct Node {
    /// Its keys, as a range of [`Paths::keys`].
    keys: Range<usize>,
    /// Which lengths its keys have; bit 63 stands for all from 63 on.
    lengths: u64,
    /// One past the last node below it.
    end: usize,
    /// The node above it.
    above: usize,
    /// While its object is walked: the object's first token,
    first: u32,
    /// and the place of its key in the object around it.
    place: Place,
}

/// A key that leads on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    length: usize,
    /// See [`prefix`].
    prefix: u64,
    text: Vec<u8>,
    node: usize,
}

/// What is left of paths, each with the number of the path.
type Numbered<'a> = Vec<(usize, &'a [String])>;

/// Where in the payload a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its first token.
    pub(super) first: u32,
    /// One past its last token.
    pub(super) past: u32,
}

impl Slot {
    /// No value.
    pub(super) const EMPTY: Slot = Slot { first: u32::MAX, past: 0 };

    /// Whether there is a value.
    #[inline(always)]
    pub(super) fn is_set(self) -> bool {
        self.first != u32::MAX
    }
}

/// What becomes of values that no path ends at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Only their structure is checked.
    Skipped,
    /// They are held to the whole grammar, as part of a declared value.
    Checked,
}

impl Paths {
    /// Compiles paths; also gives the node that each ends at.
    pub(super) fn compile(paths: &[&[String]]) -> Result<(Self, Vec<usize>)> {
        for path in paths {
            if path.is_empty() || path.len() > MAX_PARTS {
                let message = format!("a column's PATH has {} parts; write one of 1 to {MAX_PARTS}", path.len());
                return Err(Error::Unsupported(message));
            }
        }
        let mut tree = Self { nodes: Vec::new(), keys: Vec::new(), orders: Vec::new(), outcome: Outcome::default(), strays: Vec::new() };
        let mut ends = vec![0; paths.len()];
        tree.grow(0, paths.iter().copied().enumerate().collect(), &mut ends);
        tree.orders.resize_with(tree.nodes.len(), Order::default);
        tree.outcome.found.resize(tree.nodes.len().div_ceil(64), 0);
        Ok((tree, ends))
    }

    fn grow(&mut self, above: usize, paths: Numbered<'_>, ends: &mut [usize]) -> usize {
        let node = self.nodes.len();
        self.nodes.push(Node { keys: 0..0, lengths: 0, end: 0, above, first: 0, place: BEGINNING });
        // The first parts in order of appearance, each with what follows it.
        let mut parts: Vec<(&String, Numbered<'_>)> = Vec::new();
        for (index, path) in paths {
            let Some((first, rest)) = path.split_first() else {
                ends[index] = node;
                continue;
            };
            match parts.iter_mut().find(|(part, _)| *part == first) {
                Some((_, below)) => below.push((index, rest)),
                None => parts.push((first, vec![(index, rest)])),
            }
        }
        let mut keys: Vec<Key> = Vec::new();
        for (part, below) in parts {
            let text = part.as_bytes().to_vec();
            keys.push(Key { length: text.len(), prefix: prefix(&text), text, node: self.grow(node, below, ends) });
        }
        keys.sort();
        let lengths = keys.iter().fold(0, |bits, key| bits | length_bit(key.length));
        let first = self.keys.len();
        self.keys.extend(keys);
        let end = self.nodes.len();
        let grown = &mut self.nodes[node];
        (grown.keys, grown.lengths, grown.end) = (first..self.keys.len(), lengths, end);
        node
    }

    /// How many slots a walk fills.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes on the way to one, from the top, without the top.
    pub(super) fn above(&self, node: usize) -> Vec<usize> {
        (1..node).filter(|&above| self.nodes[above].end > node).collect()
    }

    /// Of the object walked last: the keys at its top that lead nowhere, each a bit; [`STRAY`] stands for those that have none.
    #[inline]
    pub(super) fn unknown(&self) -> Keys {
        let passed = self.outcome.passed & self.orders[0].nowhere();
        if self.strays.is_empty() { passed } else { passed | STRAY }
    }

    /// Of the object walked last: where keys at its top begin that lead nowhere and have no bit.
    pub(super) fn strays(&self) -> &[u32] {
        &self.strays
    }

    /// Of the object walked last: whether a value on the way to a path's end is no object.
    #[inline]
    pub(super) fn cut(&self) -> bool {
        self.outcome.cut
    }

    /// Of the object walked last: which of 64 nodes have a value, each a bit.
    #[inline]
    pub(super) fn found(&self, word: usize) -> u64 {
        self.outcome.found[word]
    }

    /// Of the object walked last: what was found out.
    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// As if an object had been walked of which this was found out, and which has no strays.
    #[inline]
    pub(super) fn recall(&mut self, outcome: &Outcome) {
        (self.outcome.passed, self.outcome.cut) = (outcome.passed, outcome.cut);
        self.outcome.found.copy_from_slice(&outcome.found);
        self.strays.clear();
    }

    /// Lists the tokens of all keys that the last walk looked at, which was one over the object at the payload's beginning: one past its last token. `None`
    /// if one of them has escapes, a space behind it, or no bit.
    pub(super) fn plain_keys(&self, payload: &Payload<'_>, tokens: &mut Vec<usize>) -> Option<usize> {
        if self.strays.is_empty() { self.plain_keys_of(payload, 0, 0, tokens) } else { None }
    }

    fn plain_keys_of(&self, payload: &Payload<'_>, node: usize, open: usize, tokens: &mut Vec<usize>) -> Option<usize> {
        let mut at = open + 1;
        while payload.kind(at) != b'}' {
            let Ok((Text::Plain(key), value)) = payload.key(at) else { return None };
            // What stands there is the key, two quotes and the colon, if there is no space.
            if payload.text_of(at, at + 2).len() != key.len() + 3 {
                return None;
            }
            tokens.push(at);
            let on_path = self.find(node, key).filter(|&child| !self.nodes[child].keys.is_empty() && payload.kind(value) == b'{');
            let past = match on_path {
                Some(child) => self.plain_keys_of(payload, child, value, tokens)?,
                None => payload.skip(value, 0).ok()?,
            };
            at = past + usize::from(payload.kind(past) == b',');
        }
        Some(at + 1)
    }

    /// The keys at the top that were met and lead nowhere, each with its bit's number.
    pub(super) fn keys_nowhere(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.orders.iter().take(1).flat_map(Order::keys_nowhere)
    }

    /// The keys at the top that lead on, each with its node and one past the last node below that.
    pub(super) fn keys_on(&self) -> impl Iterator<Item = (&[u8], std::ops::Range<usize>)> {
        let keys = self.nodes.first().map_or(0..0, |root| root.keys.clone());
        self.keys[keys].iter().map(|key| (key.text.as_slice(), key.node..self.nodes[key.node].end))
    }

    /// The number of the bit that a key at the top has, by its name.
    pub(super) fn bit_of(&self, name: &[u8]) -> Option<u32> {
        self.orders.first()?.bit_of(name)
    }

    /// The name of the key at the top that has a bit.
    pub(super) fn name_of(&self, bit: u32) -> Option<&[u8]> {
        self.orders.first()?.name_of(bit)
    }

    /// Finds the values of all paths in the object that begins at the token `open`, itself the `depth`th bracket from the top:
    /// one past its last token. All slots must be empty.
    #[inline]
    pub(super) fn walk(&mut self, payload: &Payload<'_>, open: usize, depth: usize, rest: Rest, slots: &mut [Slot]) -> Judged<usize> {
        (self.outcome.passed, self.outcome.cut) = (0, false);
        self.outcome.found.fill(0);
        self.strays.clear();
        #[cfg(target_arch = "x86_64")]
        if same::is_wide() {
            // SAFETY: the processor has what the function needs.
            return unsafe { self.walk_wide(payload, open, depth, rest, slots) };
        }
        self.walk_with(payload, open, depth, rest, slots, &same::plain)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi1,bmi2,lzcnt,popcnt")]
    fn walk_wide(&mut self, payload: &Payload<'_>, open: usize, depth: usize, rest: Rest, slots: &mut [Slot]) -> Judged<usize> {
        self.walk_with(payload, open, depth, rest, slots, &|bytes, text, length| same::wide(bytes, text, length))
    }

    #[inline(always)]
    fn walk_with(
        &mut self,
        payload: &Payload<'_>,
        open: usize,
        mut depth: usize,
        rest: Rest,
        slots: &mut [Slot],
        same: &impl Fn(&[u8], &[u8; WIDEST], usize) -> bool,
    ) -> Judged<usize> {
        // The node whose object is walked, where in it the walk is, and the token at hand.
        let (mut node, mut place, mut at) = (0, BEGINNING, open + 1);
        if payload.kind(at) == b'}' {
            return Ok(at + 1);
        }
        loop {
            let key = payload.place(at);
            // How long it is if it is one, with a colon behind it.
            let length = (payload.place(at + 1) + 1).saturating_sub(key);
            let (found, value) = match self.orders[node].guess(place, &payload.bytes[key..], length, same) {
                Some(guessed) => {
                    self.orders[node].expect(place, guessed);
                    place = guessed;
                    // The key is what it was, so it is one token, and so is the colon.
                    (self.orders[node].node(guessed), at + 2)
                }
                None => self.look_up(payload, node, at, &mut place)?,
            };
            let kind = payload.kind(value);
            if let Some(child) = found {
                if slots[child].is_set() {
                    self.replace(payload, child, rest, slots)?;
                }
                let leads_on = !self.nodes[child].keys.is_empty();
                if leads_on && kind == b'{' && payload.kind(value + 1) != b'}' {
                    let below = &mut self.nodes[child];
                    (below.first, below.place) = (value as u32, place);
                    (node, place, at, depth) = (child, BEGINNING, value + 1, depth + 1);
                    continue;
                }
                self.outcome.cut |= leads_on && kind != b'{';
            }
            at = match kind {
                b'"' | WORD => value + 1,
                _ => match self.orders[node].shape(place, &payload.kinds[value..], same) {
                    Some(length) => value + length,
                    None => self.skip(payload, node, place, value, depth)?,
                },
            };
            match found {
                Some(child) => self.put(child, Slot { first: value as u32, past: at as u32 }, slots),
                None => {
                    if rest == Rest::Checked {
                        payload.check(value, at)?;
                    }
                    self.outcome.passed |= if node == 0 { Order::bit(place) } else { 0 };
                }
            }
            // The value has ended; so may the objects around it.
            loop {
                at += 1;
                match payload.kind(at - 1) {
                    b',' => break,
                    b'}' if node == 0 => return Ok(at),
                    b'}' => {
                        let ended = &self.nodes[node];
                        let (slot, ended) = (Slot { first: ended.first, past: at as u32 }, (ended.above, ended.place));
                        self.put(node, slot, slots);
                        (node, place, depth) = (ended.0, ended.1, depth - 1);
                    }
                    _ => return payload.malformed(at - 1, "a comma or a closing bracket is missing"),
                }
            }
        }
    }

    /// Steps over a value whose shape was not expected, and expects it from now on.
    #[inline(never)]
    fn skip(&mut self, payload: &Payload<'_>, node: usize, place: Place, value: usize, depth: usize) -> Judged<usize> {
        let past = payload.skip(value, depth)?;
        self.orders[node].learn_shape(place, &payload.kinds[value..past]);
        Ok(past)
    }

    #[inline(always)]
    fn put(&mut self, node: usize, slot: Slot, slots: &mut [Slot]) {
        slots[node] = slot;
        self.outcome.found[node / 64] |= 1 << (node % 64);
    }

    /// A key has come again: forgets its former value and what was found below that.
    #[cold]
    fn replace(&mut self, payload: &Payload<'_>, node: usize, rest: Rest, slots: &mut [Slot]) -> Judged {
        let former = slots[node];
        if rest == Rest::Checked {
            payload.check(former.first as usize, former.past as usize)?;
        }
        let below = node..self.nodes[node].end;
        slots[below.clone()].fill(Slot::EMPTY);
        for gone in below {
            self.outcome.found[gone / 64] &= !(1 << (gone % 64));
        }
        Ok(())
    }

    /// Reads the key at a token: the node it leads to and where its value begins.
    #[inline(never)]
    fn look_up(&mut self, payload: &Payload<'_>, node: usize, at: usize, place: &mut Place) -> Judged<(Option<usize>, usize)> {
        let (key, value) = payload.key(at)?;
        let (found, learnt) = match key {
            Text::Plain(key) => {
                let found = self.find(node, key);
                (found, self.orders[node].learn(*place, &plainly(key), found))
            }
            Text::Escaped(key) => {
                let mut plain = Vec::new();
                unescape(key, &mut plain);
                let found = self.find(node, &plain);
                // One key has one bit, however it is spelled; what can't be spelled plainly has none.
                let odd = plain.iter().any(|&byte| byte < 0x20 || matches!(byte, b'"' | b'\\'));
                (found, if odd { None } else { self.orders[node].learn(*place, &plainly(&plain), found) })
            }
        };
        match learnt {
            Some(learnt) => *place = learnt,
            None if node == 0 && found.is_none() => self.strays.push(at as u32),
            None => {}
        }
        Ok((found, value))
    }

    /// The node that a key leads to.
    #[inline]
    fn find(&self, node: usize, text: &[u8]) -> Option<usize> {
        let node = &self.nodes[node];
        if node.lengths & length_bit(text.len()) == 0 {
            return None;
        }
        let keys = &self.keys[node.keys.clone()];
        let prefix = prefix(text);
        let same = |key: &&Key| key.length == text.len() && key.prefix == prefix && (text.len() <= 8 || key.text == text);
        if keys.len() <= FEW {
            return keys.iter().find(same).map(|key| key.node);
        }
        let at = keys.partition_point(|key| (key.length, key.prefix, key.text.as_slice()) < (text.len(), prefix, text));
        keys.get(at).filter(same).map(|key| key.node)
    }
}

/// A key as it mostly stands in an object.
fn plainly(key: &[u8]) -> Vec<u8> {
    [b"\"", key, b"\":"].concat()
}

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// The first eight bytes as a number; shorter text is filled up with zeros. Text of the same length up to eight is the
/// same if this is.
#[inline(always)]
fn prefix(text: &[u8]) -> u64 {
    if let Some(eight) = text.first_chunk() {
        return u64::from_le_bytes(*eight);
    }
    match (text.first_chunk(), text.last_chunk()) {
        (Some(low), Some(high)) => {
            let (low, high) = (u32::from_le_bytes(*low), u32::from_le_bytes(*high));
            u64::from(low) | u64::from(high) << ((text.len() - 4) * 8)
        }
        _ => text.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::scan::Tokens, *};

    /// What a walk finds at each path.
    fn find(paths: &[&str], json: &str) -> Vec<Option<String>> {
        let paths: Vec<Vec<String>> = paths.iter().map(|path| path.split('.').map(String::from).collect()).collect();
        let (mut tree, ends) = Paths::compile(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        let mut tokens = Tokens::default();
        tokens.list(json.as_bytes());
        let payload = Payload::new(json.as_bytes(), &tokens, 0);
        let mut slots = vec![Slot::EMPTY; tree.len()];
        let end = tree.walk(&payload, 0, 1, Rest::Skipped, &mut slots).unwrap();
        assert_eq!(payload.place(end), json.len());
        let text = |slot: Slot| json[payload.place(slot.first as usize)..payload.end_before(slot.past as usize)].to_string();
        ends.iter().map(|&node| slots[node].is_set().then(|| text(slots[node]))).collect()
    }

    #[test]
    fn finds_values_by_path() {
        let json = r#"{"a":1,"b":{"c":[1,{"d":2}],"d":"x}"},"e" : { "f" : {"g" : null} }}"#;
        let found = find(&["a", "b", "b.d", "b.c.d", "e.f.g", "e.x", "z"], json);
        let found: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
        assert_eq!(found, [Some("1"), Some(r#"{"c":[1,{"d":2}],"d":"x}"}"#), Some(r#""x}""#), None, Some("null"), None, None]);
    }

    #[test]
    fn the_last_of_equal_keys_replaces_what_was_below_the_former() {
        assert_eq!(find(&["a.b", "a.c"], r#"{"a":{"b":1},"a":{"c":2}}"#), [None, Some("2".into())]);
        assert_eq!(find(&["a.b"], r#"{"a":{"b":1},"a":5}"#), [None]);
        assert_eq!(find(&["a.b"], r#"{"a":5,"a":{"b":1,"b":2}}"#), [Some("2".into())]);
        assert_eq!(find(&["a"], r#"{"a":1,"\u0061":2}"#), [Some("2".into())]);
    }

    #[test]
    fn many_keys_of_all_lengths() {
        let names: Vec<String> = (0..if cfg!(miri) { 30 } else { 300 }).map(|i| format!("{}{i}", "k".repeat(i % 90))).collect();
        let json = format!("{{{}}}", names.iter().map(|name| format!("\"{name}\":\"{name}\",\"{name}x\":0")).collect::<Vec<_>>().join(","));
        let paths: Vec<&str> = names.iter().map(String::as_str).collect();
        for (name, value) in names.iter().zip(find(&paths, &json)) {
            assert_eq!(value, Some(format!("\"{name}\"")));
        }
    }

    #[test]
    fn a_prefix_tells_short_texts_apart() {
        for text in ["", "a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "abcdefgh", "abcdefghi"] {
            let mut bytes = [0; 8];
            let taken = text.len().min(8);
            bytes[..taken].copy_from_slice(&text.as_bytes()[..taken]);
            assert_eq!(prefix(text.as_bytes()), u64::from_le_bytes(bytes), "{text}");
        }
    }
}
