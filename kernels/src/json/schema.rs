//! Which paths are read as which type, compiled into the tree that the kernel walks.

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `true` and `false`.
    Boolean,
    /// Integers of 8 bits. Like all of up to 32 bits they come in words of 32.
    Int8,
    /// Integers of 16 bits.
    Int16,
    /// Integers of 32 bits.
    Int32,
    /// Integers of 64 bits.
    Int64,
    /// Integers of 8 bits without sign.
    UInt8,
    /// Integers of 16 bits without sign.
    UInt16,
    /// Integers of 32 bits without sign.
    UInt32,
    /// Floats of 64 bits.
    Float64,
    /// Text, as views into the payload.
    Text,
    /// Points in time, as counts of a unit since 1970.
    Timestamp(Unit),
    /// Values of any other type. Their structure is checked, and the rest is the caller's: it is told where they lie.
    Raw,
}

/// A column with the keys that lead to its value.
#[derive(Debug, Clone)]
pub struct Declared<P> {
    /// Keys from the top.
    pub path: P,
    /// What the value is read as.
    pub data_type: Type,
    /// Whether its values are wanted. Those of a column that isn't wanted are judged all the same. [`Type::Raw`] ones are always given, since it
    /// is the caller who judges them.
    pub wanted: bool,
}

/// What is asked of rows beside their columns. Nothing, unless it is said.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// Keys at the top in the order in which rows mostly have them, which is that in which they are found fastest. Those that begin no declared
    /// path are noted: their values are stepped over like any that nobody declared, but they are seen.
    pub keys: Vec<String>,
    /// Whether it is told which keys a row has.
    pub seen: bool,
    /// Whether a row is left that has a key at the top which is neither declared nor noted ([`super::Status::UnknownKey`]).
    pub leave_unknown: bool,
    /// Whether a row is left where something on the way to a declared value is no object, but null or a number, say
    /// ([`super::Status::Blocked`]).
    pub leave_blocked: bool,
}

/// Where in what a row has it stands that it has a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeenBit {
    /// Which of the row's words.
    pub word: usize,
    /// That bit of it.
    pub mask: u64,
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Seconds.
    Second,
    /// Milliseconds.
    Millisecond,
    /// Microseconds.
    Microsecond,
    /// Nanoseconds.
    Nanosecond,
}

impl Unit {
    /// How many of it make a second, as a power of ten.
    pub(super) fn digits(self) -> u32 {
        match self {
            Unit::Second => 0,
            Unit::Millisecond => 3,
            Unit::Microsecond => 6,
            Unit::Nanosecond => 9,
        }
    }
}

/// Why paths can't be read on a device. They can be by another decoder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaFault {
    /// A path without keys, or of more than can be followed.
    #[error("path {path} has {parts} keys; 1 to {MOST_PARTS} can be followed")]
    Parts {
        /// The path's number, from 0.
        path: usize,
        /// Its keys.
        parts: usize,
    },
    /// Two columns of one path, or a column whose value another column's path leads through.
    #[error("path {path} and an earlier one are the same, or one leads through the other's value")]
    Overlap {
        /// The later path's number.
        path: usize,
    },
    /// Too much for the tree in a block's shared memory.
    #[error("the paths and the noted keys are {nodes} keys of {bytes} bytes in all; {MOST_NODES} of {MOST_KEY_BYTES} can be kept")]
    Size {
        /// Keys, the root among them.
        nodes: usize,
        /// Their bytes.
        bytes: usize,
    },
}

const MOST_PARTS: usize = 8;
const MOST_NODES: usize = 128;
/// With the nodes and the largest part of a payload they fit the shared memory that any device gives a block.
const MOST_KEY_BYTES: usize = 4096;
/// Bytes of a node as the kernel reads it.
pub(super) const NODE_BYTES: usize = 12;

/// Paths and types, compiled.
#[derive(Debug, Clone)]
pub struct Schema {
    /// The root first; the children of one are neighbours.
    pub(super) nodes: Vec<Node>,
    /// The columns in their order.
    pub(super) columns: Vec<Compiled>,
    /// For each of the notes' keys its node.
    noted: Vec<usize>,
    pub(super) seen: bool,
    pub(super) leave_unknown: bool,
    pub(super) leave_blocked: bool,
}

/// A key on some path, or the root.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) key: Vec<u8>,
    /// The column whose value it has; none: an object that leads on, or, without children, a key that is noted.
    pub(super) column: Option<usize>,
    pub(super) children: std::ops::Range<usize>,
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compiled {
    pub(super) data_type: Type,
    /// The node that its path ends at.
    node: usize,
    /// Where its values go; `None`: nobody wants them.
    pub(super) place: Option<Place>,
}

/// Where a column's values go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its number among the columns that are kept.
    pub(super) kept: usize,
    /// Its number among those of them that are kept in the same way.
    pub(super) within: usize,
}

/// How values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Flags,
    Halves,
    Words,
    Views,
}

impl Type {
    pub(super) fn kept(self) -> Kept {
        match self {
            Type::Boolean => Kept::Flags,
            Type::Int8 | Type::Int16 | Type::Int32 | Type::UInt8 | Type::UInt16 | Type::UInt32 => Kept::Halves,
            Type::Int64 | Type::Float64 | Type::Timestamp(_) | Type::Raw => Kept::Words,
            Type::Text => Kept::Views,
        }
    }

    /// The kernel's number of it.
    pub(super) fn kind(self) -> u8 {
        match self {
            Type::Raw => RAW,
            Type::Boolean => 3,
            Type::Int64 => 4,
            Type::Int8 | Type::Int16 | Type::Int32 => 5,
            Type::UInt8 | Type::UInt16 | Type::UInt32 => 6,
            Type::Float64 => 7,
            Type::Text => 8,
            Type::Timestamp(_) => 9,
        }
    }

    /// What the kernel must know beside the kind: how many bits or digits.
    fn size(self) -> u8 {
        match self {
            Type::Int8 | Type::UInt8 => 8,
            Type::Int16 | Type::UInt16 => 16,
            Type::Int32 | Type::UInt32 => 32,
            Type::Timestamp(unit) => unit.digits() as u8,
            Type::Boolean | Type::Int64 | Type::Float64 | Type::Text | Type::Raw => 0,
        }
    }
}

/// The kernel's numbers of what is no column's type.
const NOTED: u8 = 0;
const OBJECT: u8 = 1;
const RAW: u8 = 2;
/// The kernel's place of what is not kept.
const NO_PLACE: u8 = 0xff;

impl Schema {
    /// Compiles columns, each with the keys that lead to its value. All are wanted, and nothing beside them.
    pub fn new<P: AsRef<[K]>, K: AsRef<str>>(columns: &[(P, Type)]) -> Result<Self, SchemaFault> {
        let columns: Vec<_> = columns.iter().map(|(path, data_type)| Declared { path: path.as_ref(), data_type: *data_type, wanted: true }).collect();
        Self::with_notes(&columns, &Notes::default())
    }

    /// Compiles columns, and what is asked of rows beside them.
    pub fn with_notes<P: AsRef<[K]>, K: AsRef<str>>(columns: &[Declared<P>], notes: &Notes) -> Result<Self, SchemaFault> {
        let paths: Vec<Vec<&[u8]>> = columns.iter().map(|column| column.path.as_ref().iter().map(|key| key.as_ref().as_bytes()).collect()).collect();
        for (number, path) in paths.iter().enumerate() {
            if path.is_empty() || path.len() > MOST_PARTS {
                return Err(SchemaFault::Parts { path: number, parts: path.len() });
            }
            if paths[..number].iter().any(|earlier| earlier.starts_with(path) || path.starts_with(earlier)) {
                return Err(SchemaFault::Overlap { path: number });
            }
        }
        let mut tree = Tree::default();
        let noted: Vec<usize> = notes.keys.iter().map(|key| tree.child(0, 1, key.as_bytes())).collect();
        let ends = tree.grow(&paths);
        let nodes = tree.nodes;
        let bytes = nodes.iter().map(|node| node.key.len()).sum();
        if nodes.len() > MOST_NODES || bytes > MOST_KEY_BYTES {
            return Err(SchemaFault::Size { nodes: nodes.len(), bytes });
        }
        let mut compiled: Vec<Compiled> = Vec::new();
        for (column, node) in columns.iter().zip(ends) {
            let kept = || compiled.iter().filter(|other| other.place.is_some());
            let same = |other: &&Compiled| other.data_type.kept() == column.data_type.kept();
            let place = (column.wanted || column.data_type == Type::Raw).then(|| Place { kept: kept().count(), within: kept().filter(same).count() });
            compiled.push(Compiled { data_type: column.data_type, node, place });
        }
        let &Notes { seen, leave_unknown, leave_blocked, .. } = notes;
        Ok(Self { nodes, columns: compiled, noted, seen, leave_unknown, leave_blocked })
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// A column's type.
    ///
    /// # Panics
    ///
    /// If there is no such column.
    pub fn data_type(&self, column: usize) -> Type {
        self.columns[column].data_type
    }

    /// Whether a column's values are given.
    ///
    /// # Panics
    ///
    /// If there is no such column.
    pub fn is_given(&self, column: usize) -> bool {
        self.columns[column].place.is_some()
    }

    /// How many words there are to a row that tell which keys it has; none, if that wasn't asked for.
    pub fn seen_words(&self) -> usize {
        if self.seen { self.nodes.len().div_ceil(64) } else { 0 }
    }

    /// The bit that says that a row has the last key of a column's path, in the objects that lead there.
    ///
    /// # Panics
    ///
    /// If there is no such column.
    pub fn column_bit(&self, column: usize) -> SeenBit {
        SeenBit::of(self.columns[column].node)
    }

    /// The bit that says that a row has one of [`Notes::keys`], by its number there.
    ///
    /// # Panics
    ///
    /// If there is no such key.
    pub fn noted_bit(&self, key: usize) -> SeenBit {
        SeenBit::of(self.noted[key])
    }

    /// The kept columns whose values are kept in this way.
    pub(super) fn count(&self, kept: Kept) -> usize {
        self.columns.iter().filter(|column| column.place.is_some() && column.data_type.kept() == kept).count()
    }

    /// The kept columns' kinds.
    pub(super) fn kinds(&self) -> Vec<u8> {
        self.columns.iter().filter(|column| column.place.is_some()).map(|column| column.data_type.kind()).collect()
    }

    /// The nodes as the kernel reads them, and their keys.
    pub(super) fn tree(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut nodes, mut keys) = (Vec::new(), Vec::new());
        for node in &self.nodes {
            let column = node.column.map(|column| self.columns[column]);
            let place = column.and_then(|column| column.place);
            let kind = match column {
                Some(column) => column.data_type.kind(),
                None if node.children.is_empty() => NOTED,
                None => OBJECT,
            };
            nodes.extend((keys.len() as u32).to_le_bytes());
            nodes.extend((node.key.len() as u16).to_le_bytes());
            nodes.extend([kind, place.map_or(0, |place| place.kept as u8), place.map_or(NO_PLACE, |place| place.within as u8)]);
            nodes.extend([column.map_or(0, |column| column.data_type.size()), node.children.start as u8, node.children.len() as u8]);
            keys.extend(&node.key);
        }
        debug_assert_eq!(nodes.len(), self.nodes.len() * NODE_BYTES);
        (nodes, keys)
    }
}

impl SeenBit {
    fn of(node: usize) -> Self {
        Self { word: node / 64, mask: 1 << (node % 64) }
    }
}

/// Nodes under construction.
struct Tree {
    nodes: Vec<Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node { key: vec![], column: None, children: 0..0 }] }
    }
}

impl Tree {
    /// The child of `parent` that has a key. Children begin at `first`; a new one becomes the last node of all.
    fn child(&mut self, parent: usize, first: usize, key: &[u8]) -> usize {
        let known = (first..self.nodes.len()).find(|&node| self.nodes[node].key == key);
        let child = known.unwrap_or(self.nodes.len());
        if known.is_none() {
            self.nodes.push(Node { key: key.to_vec(), column: None, children: 0..0 });
        }
        self.nodes[parent].children = first..self.nodes.len();
        child
    }

    /// Puts paths into the tree, level by level, so that children are neighbours: for each path the node that it ends at.
    fn grow(&mut self, paths: &[Vec<&[u8]>]) -> Vec<usize> {
        let mut ends = vec![0; paths.len()];
        // For each node the paths that lead through it, and how many of their keys lead there.
        let mut through: Vec<(usize, Vec<usize>)> = vec![(0, vec![]); self.nodes.len()];
        through[0].1 = (0..paths.len()).collect();
        let mut at = 0;
        while at < self.nodes.len() {
            let (depth, paths_here) = std::mem::take(&mut through[at]);
            // Those of the root may be there already.
            let first = if at == 0 { 1 } else { self.nodes.len() };
            for path in paths_here {
                let Some(&key) = paths[path].get(depth) else { continue };
                let child = self.child(at, first, key);
                through.resize_with(self.nodes.len(), Default::default);
                through[child].0 = depth + 1;
                through[child].1.push(path);
                if paths[path].len() == depth + 1 {
                    self.nodes[child].column = Some(path);
                    ends[path] = child;
                }
            }
            at += 1;
        }
        ends
    }
}
