//! The declared paths through a message type as a tree of its fields, and the walk that finds their values in a message.
//!
//! A walk remembers what a field was given ([`Slots`], a list per node of the tree); judging comes after. So the rules of the format are
//! here: of a plain field the last value counts, the parts of a message that comes in several are one, a repeated field gathers, and
//! a member of a `oneof` puts out the others.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::{
    fault::{Fault, Judged},
    wire::{Raw, Wire, WireType},
};
use crate::error::{Error, Result};

/// A walk recurses once per part of a path.
const MAX_PARTS: usize = 64;

/// Paths of field names, compiled.
#[derive(Debug)]
pub(super) struct Tree {
    /// In preorder, so that what lies below a node follows it.
    nodes: Vec<Node>,
    levels: Vec<Level>,
    /// For each `oneof` that matters its members among the nodes.
    oneofs: Vec<Vec<usize>>,
}

/// A field on some path, or at its end, or both.
#[derive(Debug)]
struct Node {
    /// Its name and number, for sentences.
    name: String,
    /// The names of the fields that lead to it.
    path: Vec<String>,
    gathers: Gathers,
    wire_type: WireType,
    /// One past the last node below it.
    end: usize,
    /// The fields of its message that paths lead on to.
    level: Option<usize>,
}

/// What a field that comes several times means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gathers {
    /// The last value counts.
    Last,
    /// The parts of one message.
    Parts,
    /// Each is a value; some may be packed.
    All { packable: bool },
}

/// The fields of one message that matter, by their numbers.
#[derive(Debug, Default)]
struct Level {
    entries: Vec<Entry>,
    /// For small numbers the entry's position plus one.
    small: Vec<u8>,
    /// All numbers that the message has, where somebody wants to know of others.
    known: Option<Numbers>,
}

/// Some fields' numbers.
#[derive(Debug, Default)]
struct Numbers {
    /// Those below 256, as bits.
    small: [u64; 4],
    /// The others, sorted.
    large: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    number: u32,
    /// Its node, unless it is only here because it puts out others.
    node: Option<usize>,
    wire_type: WireType,
    oneof: Option<usize>,
}

/// Where a path ends.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) node: usize,
    /// The node of the message that the field is in, if that isn't the whole one.
    pub(super) parent: Option<usize>,
    pub(super) field: FieldDescriptor,
}

/// What a walk has found for each node.
#[derive(Debug, Default)]
pub(super) struct Slots {
    nodes: Vec<Vec<Raw>>,
    /// Fields that the message type doesn't know, where somebody wants to know of them.
    unknown: Vec<(u32, Raw)>,
}

impl Slots {
    /// For the nodes of a tree.
    pub(super) fn of(tree: &Tree) -> Self {
        Self { nodes: vec![vec![]; tree.nodes.len()], unknown: vec![] }
    }

    /// What the field at a node was given.
    #[inline]
    pub(super) fn get(&self, node: usize) -> &[Raw] {
        &self.nodes[node]
    }

    /// Fields that the message type doesn't know, each as often as it came.
    pub(super) fn unknown(&self) -> &[(u32, Raw)] {
        &self.unknown
    }

    /// Forgets what was found.
    pub(super) fn clear(&mut self) {
        self.nodes.iter_mut().for_each(Vec::clear);
        self.unknown.clear();
    }

    /// Gives back what a record of unusual size took.
    pub(super) fn shrink(&mut self) {
        self.nodes.iter_mut().for_each(|slot| slot.shrink_to(1024));
        self.unknown.shrink_to(1024);
    }
}

/// What is left of paths, each with the number of the path.
type Numbered<'a> = Vec<(usize, &'a [String])>;

impl Tree {
    /// Compiles paths of field names through a message type: the tree, and where each path ends.
    pub(super) fn compile(message: &MessageDescriptor, paths: &[&[String]]) -> Result<(Self, Vec<Leaf>)> {
        if let Some(path) = paths.iter().find(|path| path.is_empty() || path.len() > MAX_PARTS) {
            return Err(Error::Unsupported(format!("a path has {} parts; between 1 and {MAX_PARTS} are possible", path.len())));
        }
        let mut tree = Self { nodes: vec![], levels: vec![], oneofs: vec![] };
        let mut leaves: Vec<Option<Leaf>> = paths.iter().map(|_| None).collect();
        tree.level(message, None, paths.iter().copied().enumerate().collect(), &mut leaves)?;
        let leaves = leaves.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| Error::Internal("a path has no end".into()))?;
        Ok((tree, leaves))
    }

    fn level(&mut self, message: &MessageDescriptor, parent: Option<usize>, paths: Numbered<'_>, leaves: &mut [Option<Leaf>]) -> Result<usize> {
        let level = self.levels.len();
        self.levels.push(Level::default());
        let mut fields: Vec<(FieldDescriptor, Numbered<'_>)> = vec![];
        for (path, parts) in paths {
            let field = find(message, &parts[0])?;
            match fields.iter_mut().find(|(known, _)| known.number() == field.number()) {
                Some((_, paths)) => paths.push((path, &parts[1..])),
                None => fields.push((field, vec![(path, &parts[1..])])),
            }
        }
        let (mut entries, mut oneofs) = (vec![], vec![]);
        for (field, paths) in fields {
            let node = self.nodes.len();
            let wire_type = wire_type(&field);
            let (ends, on): (Vec<_>, Vec<_>) = paths.into_iter().partition(|(_, rest)| rest.is_empty());
            let above = parent.map(|parent| self.nodes[parent].path.as_slice()).unwrap_or_default();
            let path = above.iter().cloned().chain([field.name().to_string()]).collect();
            let name = format!("{} ({})", field.name(), field.number());
            self.nodes.push(Node { name, path, gathers: gathers(&field), wire_type, end: node + 1, level: None });
            for (path, _) in ends {
                leaves[path] = Some(Leaf { node, parent, field: field.clone() });
            }
            if let Some((_, rest)) = on.first() {
                let within = leads_on(&field, &rest[0])?;
                let below = self.level(&within, Some(node), on, leaves)?;
                self.nodes[node].level = Some(below);
                self.nodes[node].end = self.nodes.len();
            }
            let oneof = field.containing_oneof().map(|oneof| match oneofs.iter().position(|(name, _)| name == oneof.full_name()) {
                Some(at) => oneofs[at].1,
                None => {
                    oneofs.push((oneof.full_name().to_string(), self.oneofs.len()));
                    self.oneofs.push(vec![]);
                    self.oneofs.len() - 1
                }
            });
            if let Some(oneof) = oneof {
                self.oneofs[oneof].push(node);
            }
            entries.push(Entry { number: field.number(), node: Some(node), wire_type, oneof });
        }
        // The other members of those oneofs matter as well: they put out what is read.
        for oneof in message.oneofs() {
            let Some((_, at)) = oneofs.iter().find(|(name, _)| name == oneof.full_name()) else { continue };
            for field in oneof.fields() {
                if !entries.iter().any(|entry| entry.number == field.number()) {
                    entries.push(Entry { number: field.number(), node: None, wire_type: wire_type(&field), oneof: Some(*at) });
                }
            }
        }
        self.levels[level] = Level::new(entries);
        Ok(level)
    }

    /// Has walks remember fields that a message type, that of the tree, doesn't know.
    pub(super) fn watch(&mut self, message: &MessageDescriptor) {
        let mut known = Numbers::default();
        message.fields().map(|field| field.number()).chain(message.extensions().map(|field| field.number())).for_each(|number| known.insert(number));
        known.large.sort_unstable();
        if let Some(top) = self.levels.first_mut() {
            top.known = Some(known);
        }
    }

    /// Puts what lies between two places of a payload, a message of the tree's type, into the slots.
    pub(super) fn walk(&self, payload: &[u8], start: usize, end: usize, slots: &mut Slots) -> Judged {
        self.walk_level(0, payload, start, end, slots)
    }

    fn walk_level(&self, level: usize, payload: &[u8], start: usize, end: usize, slots: &mut Slots) -> Judged {
        let level = &self.levels[level];
        let mut wire = Wire::new(payload, start, end);
        while let Some((number, raw)) = wire.field()? {
            let Some(entry) = level.find(number) else {
                if level.known.as_ref().is_some_and(|known| !known.has(number)) {
                    slots.unknown.push((number, raw));
                }
                continue;
            };
            let Some(at) = entry.node else {
                if raw.wire_type() == entry.wire_type {
                    self.put_out(entry.oneof, None, slots);
                }
                continue;
            };
            let node = &self.nodes[at];
            if raw.wire_type() != node.wire_type && !(node.gathers == Gathers::All { packable: true } && raw.wire_type() == WireType::Bytes) {
                let what = format!("field {} is written as {} where {} is expected", node.name, written(raw.wire_type()), written(node.wire_type));
                return Err(Box::new(Fault::Rewritten { at: wire.at(), what, path: node.path.clone() }));
            }
            if entry.oneof.is_some() {
                self.put_out(entry.oneof, Some(at), slots);
            }
            let slot = &mut slots.nodes[at];
            if node.gathers == Gathers::Last {
                slot.clear();
            }
            slot.push(raw);
            if let (Some(below), Some((start, end))) = (node.level, raw.extent()) {
                self.walk_level(below, payload, start, end, slots)?;
            }
        }
        Ok(())
    }

    /// Empties the members of a `oneof` but one, and what lies below them.
    fn put_out(&self, oneof: Option<usize>, but: Option<usize>, slots: &mut Slots) {
        let Some(oneof) = oneof else { return };
        for &node in self.oneofs[oneof].iter().filter(|node| Some(**node) != but) {
            slots.nodes[node..self.nodes[node].end].iter_mut().for_each(Vec::clear);
        }
    }
}

impl Level {
    fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(|entry| entry.number);
        let mut small = vec![];
        for (at, entry) in entries.iter().enumerate().take(255).filter(|(_, entry)| entry.number < 256) {
            small.resize(small.len().max(entry.number as usize + 1), 0);
            small[entry.number as usize] = at as u8 + 1;
        }
        Self { entries, small, known: None }
    }

    #[inline]
    fn find(&self, number: u32) -> Option<&Entry> {
        match self.small.get(number as usize) {
            Some(0) | None if number < 256 && self.entries.len() < 255 => None,
            Some(&at) if at > 0 => self.entries.get(usize::from(at) - 1),
            _ => self.entries.binary_search_by_key(&number, |entry| entry.number).ok().map(|at| &self.entries[at]),
        }
    }
}

impl Numbers {
    fn insert(&mut self, number: u32) {
        match self.small.get_mut(number as usize / 64) {
            Some(word) => *word |= 1 << (number % 64),
            None => self.large.push(number),
        }
    }

    #[inline]
    fn has(&self, number: u32) -> bool {
        match self.small.get(number as usize / 64) {
            Some(word) => word >> (number % 64) & 1 == 1,
            None => self.large.binary_search(&number).is_ok(),
        }
    }
}

/// The field that a part of a path names: by its name, or by the one it has in JSON.
pub(super) fn find(message: &MessageDescriptor, name: &str) -> Result<FieldDescriptor> {
    message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name)).ok_or_else(|| {
        let known: Vec<String> = message.fields().map(|field| field.name().to_string()).collect();
        Error::Invalid(format!("message {} has no field {name}: it has {}; name one of them with PATH", message.full_name(), known.join(", ")))
    })
}

/// The message type that a path goes on in.
fn leads_on(field: &FieldDescriptor, next: &str) -> Result<MessageDescriptor> {
    let refuse = |why: &str| Err(Error::Unsupported(format!("the path goes on with {next} behind {}, {why}", field.full_name())));
    match field.kind() {
        _ if field.is_map() => refuse("which is a map: declare the column as ARRAY<STRUCT<key …, value …>> and take the entry in the query"),
        _ if field.is_list() => refuse("which is repeated: declare the column as an ARRAY and take the element in the query"),
        Kind::Message(message) => Ok(message),
        _ => refuse("which is no message: end the path there"),
    }
}

fn gathers(field: &FieldDescriptor) -> Gathers {
    match field.kind() {
        _ if field.is_map() => Gathers::All { packable: false },
        kind if field.is_list() => Gathers::All { packable: !matches!(kind, Kind::String | Kind::Bytes | Kind::Message(_)) },
        Kind::Message(_) => Gathers::Parts,
        _ => Gathers::Last,
    }
}

/// How a field's values are written, where they aren't packed.
pub(super) fn wire_type(field: &FieldDescriptor) -> WireType {
    match field.kind() {
        _ if field.is_group() => WireType::Group,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::Fixed64,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::Fixed32,
        Kind::String | Kind::Bytes | Kind::Message(_) => WireType::Bytes,
        _ => WireType::Varint,
    }
}

fn written(wire_type: WireType) -> &'static str {
    match wire_type {
        WireType::Varint => "a number of varying length",
        WireType::Fixed64 => "a number of 8 bytes",
        WireType::Fixed32 => "a number of 4 bytes",
        WireType::Bytes => "bytes with a length",
        WireType::Group => "a group",
    }
}
