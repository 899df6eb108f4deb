//! The declared paths as a tree, and the walk that finds their values in an object.
//!
//! A walk remembers where the last value of each path is (a [`Slot`] per node of the tree); judging comes after, so a
//! key that comes twice simply moves its slot, and takes what was found below the former value with it.

use std::ops::Range;

use super::{
    fault::Judged,
    fault::malformed,
    order::{BEGINNING, Order, Place, STRAY},
    value::{Payload, Text, unescape},
};
use crate::error::{Error, Result};

/// A walk recurses once per part of a path.
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
    /// Of the object walked last: where keys at its top begin that lead nowhere and have no bit.
    strays: Vec<u32>,
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
    /// Its first byte.
    pub(super) start: u32,
    /// One past its last byte.
    pub(super) end: u32,
}

impl Slot {
    /// No value.
    pub(super) const EMPTY: Slot = Slot { start: u32::MAX, end: 0 };

    /// Whether there is a value.
    #[inline(always)]
    pub(super) fn is_set(self) -> bool {
        self.start != u32::MAX
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
        let mut tree = Self { nodes: Vec::new(), keys: Vec::new(), orders: Vec::new(), strays: Vec::new() };
        let mut ends = vec![0; paths.len()];
        tree.grow(paths.iter().copied().enumerate().collect(), &mut ends);
        tree.orders.resize_with(tree.nodes.len(), Order::default);
        Ok((tree, ends))
    }

    fn grow(&mut self, paths: Numbered<'_>, ends: &mut [usize]) -> usize {
        let node = self.nodes.len();
        self.nodes.push(Node { keys: 0..0, lengths: 0, end: 0 });
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
            keys.push(Key { length: text.len(), prefix: prefix(&text), text, node: self.grow(below, ends) });
        }
        keys.sort();
        let lengths = keys.iter().fold(0, |bits, key| bits | length_bit(key.length));
        let first = self.keys.len();
        self.keys.extend(keys);
        self.nodes[node] = Node { keys: first..self.keys.len(), lengths, end: self.nodes.len() };
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
    pub(super) fn unknown(&self) -> u64 {
        let passed = self.orders[0].passed();
        if self.strays.is_empty() { passed } else { passed | STRAY }
    }

    /// Of the object walked last: where keys at its top begin that lead nowhere and have no bit.
    pub(super) fn strays(&self) -> &[u32] {
        &self.strays
    }

    /// The number of the bit that a key at the top has, by its name.
    pub(super) fn bit_of(&self, name: &[u8]) -> Option<u32> {
        self.orders.first()?.bit_of(name)
    }

    /// The name of the key at the top that has a bit.
    pub(super) fn name_of(&self, bit: u32) -> Option<&[u8]> {
        self.orders.first()?.name_of(bit)
    }

    /// Finds the values of all paths in the object that begins at `open`, itself the `depth`th bracket from the top:
    /// where it ends. All slots must be empty.
    pub(super) fn walk(&mut self, payload: &Payload<'_>, open: usize, depth: usize, rest: Rest, slots: &mut [Slot]) -> Judged<usize> {
        self.orders[0].begin();
        self.strays.clear();
        self.walk_object(payload, 0, open, depth, rest, slots)
    }

    fn walk_object(&mut self, payload: &Payload<'_>, node: usize, open: usize, depth: usize, rest: Rest, slots: &mut [Slot]) -> Judged<usize> {
        let mut pos = payload.blank(open + 1);
        if payload.at(pos) == b'}' {
            return Ok(pos + 1);
        }
        let mut place = BEGINNING;
        loop {
            let (found, start) = match self.orders[node].guess(place, payload.bytes, pos) {
                Some(guess) => {
                    place = guess.place;
                    (guess.node, payload.blank(guess.end))
                }
                None => self.look_up(payload, node, pos, &mut place)?,
            };
            let end = match found {
                Some(child) => self.take(payload, child, start, depth, rest, slots)?,
                None => {
                    self.orders[node].pass(place);
                    let end = payload.skip(start, depth)?;
                    if rest == Rest::Checked {
                        payload.check(start, end)?;
                    }
                    end
                }
            };
            pos = payload.blank(end);
            match payload.at(pos) {
                b',' => pos = payload.blank(pos + 1),
                b'}' => return Ok(pos + 1),
                _ => return malformed(pos, "a comma or a closing bracket is missing"),
            }
        }
    }

    /// Reads the key at `pos`: the node it leads to and where its value begins.
    #[inline(never)]
    fn look_up(&mut self, payload: &Payload<'_>, node: usize, pos: usize, place: &mut Place) -> Judged<(Option<usize>, usize)> {
        let (key, start) = payload.key(pos)?;
        let (found, learnt) = match key {
            Text::Plain(key) => {
                let found = self.find(node, key);
                let after = pos + key.len() + 2;
                let learnt = match payload.at(after) {
                    b':' => self.orders[node].learn(*place, &payload.bytes[pos..=after], found),
                    _ => self.orders[node].learn(*place, &plainly(key), found),
                };
                (found, learnt)
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
            None if node == 0 && found.is_none() => self.strays.push(pos as u32),
            None => {}
        }
        Ok((found, start))
    }

    /// Puts the value at `start` into the slot of `node`, and what it holds into those below: where it ends.
    #[inline]
    fn take(&mut self, payload: &Payload<'_>, node: usize, start: usize, depth: usize, rest: Rest, slots: &mut [Slot]) -> Judged<usize> {
        let former = slots[node];
        if former.is_set() {
            if rest == Rest::Checked {
                payload.check(former.start as usize, former.end as usize)?;
            }
            slots[node..self.nodes[node].end].fill(Slot::EMPTY);
        }
        let leads_on = !self.nodes[node].keys.is_empty();
        let end =
            if leads_on && payload.at(start) == b'{' { self.walk_object(payload, node, start, depth + 1, rest, slots)? } else { payload.skip(start, depth)? };
        slots[node] = Slot { start: start as u32, end: end as u32 };
        Ok(end)
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
pub(super) fn prefix(text: &[u8]) -> u64 {
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
    use super::{super::scan::Index, *};

    /// What a walk finds at each path.
    fn find(paths: &[&str], json: &str) -> Vec<Option<String>> {
        let paths: Vec<Vec<String>> = paths.iter().map(|path| path.split('.').map(String::from).collect()).collect();
        let (mut tree, ends) = Paths::compile(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        let mut index = Index::default();
        index.mark(json.as_bytes());
        let payload = Payload { bytes: json.as_bytes(), index: &index, base: 0 };
        let mut slots = vec![Slot::EMPTY; tree.len()];
        let end = tree.walk(&payload, 0, 1, Rest::Skipped, &mut slots).unwrap();
        assert_eq!(end, json.len());
        ends.iter().map(|&node| slots[node]).map(|slot| slot.is_set().then(|| json[slot.start as usize..slot.end as usize].into())).collect()
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
        let names: Vec<String> = (0..300).map(|i| format!("{}{i}", "k".repeat(i % 90))).collect();
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
