//! Which paths are read as which type, compiled into the tree that the kernel walks.

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `true` and `false`.
    Boolean,
    /// Integers of 64 bits.
    Int64,
    /// Floats of 64 bits.
    Float64,
    /// Text, as views into the payload.
    Text,
    /// Points in time, as counts of a unit since 1970.
    Timestamp(Unit),
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
    #[error("the paths have {nodes} keys of {bytes} bytes in all; {MOST_NODES} of {MOST_KEY_BYTES} can be kept")]
    Size {
        /// Keys, the root among them.
        nodes: usize,
        /// Their bytes.
        bytes: usize,
    },
}

const MOST_PARTS: usize = 8;
const MOST_NODES: usize = 64;
const MOST_KEY_BYTES: usize = 2048;

/// Paths and types, compiled.
#[derive(Debug, Clone)]
pub struct Schema {
    /// The root first; the children of one are neighbours.
    pub(super) nodes: Vec<Node>,
    /// The columns in their order.
    pub(super) columns: Vec<Type>,
}

/// A key on some path, or the root.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) key: Vec<u8>,
    /// The column whose value it has; none: an object that leads on.
    pub(super) column: Option<usize>,
    pub(super) children: std::ops::Range<usize>,
}

impl Schema {
    /// Compiles columns, each with the keys that lead to its value.
    pub fn new<P: AsRef<[K]>, K: AsRef<str>>(columns: &[(P, Type)]) -> Result<Self, SchemaFault> {
        let paths: Vec<Vec<&[u8]>> = columns.iter().map(|(path, _)| path.as_ref().iter().map(|key| key.as_ref().as_bytes()).collect()).collect();
        for (number, path) in paths.iter().enumerate() {
            if path.is_empty() || path.len() > MOST_PARTS {
                return Err(SchemaFault::Parts { path: number, parts: path.len() });
            }
            if paths[..number].iter().any(|earlier| earlier.starts_with(path) || path.starts_with(earlier)) {
                return Err(SchemaFault::Overlap { path: number });
            }
        }
        let mut nodes = vec![Node { key: vec![], column: None, children: 0..0 }];
        // For each node the paths that lead through it, and how many keys they are in.
        let mut through: Vec<(usize, Vec<usize>)> = vec![(0, (0..paths.len()).collect())];
        let mut at = 0;
        while at < nodes.len() {
            let (depth, paths_here) = through[at].clone();
            let first = nodes.len();
            for path in paths_here {
                let Some(&key) = paths[path].get(depth) else { continue };
                let known = (first..nodes.len()).find(|&node| nodes[node].key == key);
                let node = known.unwrap_or_else(|| {
                    nodes.push(Node { key: key.to_vec(), column: None, children: 0..0 });
                    through.push((depth + 1, vec![]));
                    nodes.len() - 1
                });
                through[node].1.push(path);
                if paths[path].len() == depth + 1 {
                    nodes[node].column = Some(path);
                }
            }
            nodes[at].children = first..nodes.len();
            at += 1;
        }
        let bytes = nodes.iter().map(|node| node.key.len()).sum();
        if nodes.len() > MOST_NODES || bytes > MOST_KEY_BYTES {
            return Err(SchemaFault::Size { nodes: nodes.len(), bytes });
        }
        Ok(Self { nodes, columns: columns.iter().map(|(_, data_type)| *data_type).collect() })
    }

    /// The columns' types.
    pub fn columns(&self) -> &[Type] {
        &self.columns
    }

    /// The kernel's number of a type.
    pub(super) fn kind(data_type: Type) -> u8 {
        match data_type {
            Type::Boolean => 1,
            Type::Int64 => 2,
            Type::Float64 => 3,
            Type::Text => 4,
            Type::Timestamp(_) => 5,
        }
    }

    /// How many columns before `column` are kept in the same place: as words, views or bits.
    pub(super) fn place(&self, column: usize) -> usize {
        let group = |data_type: &Type| match data_type {
            Type::Boolean => 0,
            Type::Text => 1,
            _ => 2,
        };
        self.columns[..column].iter().filter(|other| group(other) == group(&self.columns[column])).count()
    }

    /// The nodes as the kernel reads them, and their keys.
    pub(super) fn tree(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut nodes, mut keys) = (Vec::new(), Vec::new());
        for node in &self.nodes {
            let data_type = node.column.map(|column| self.columns[column]);
            let digits = match data_type {
                Some(Type::Timestamp(unit)) => unit.digits() as u8,
                _ => 0,
            };
            let place = node.column.map_or(0, |column| self.place(column)) as u8;
            nodes.extend((keys.len() as u32).to_le_bytes());
            nodes.extend((node.key.len() as u16).to_le_bytes());
            nodes.extend([data_type.map_or(0, Self::kind), node.column.unwrap_or(0) as u8, place, digits]);
            nodes.extend([node.children.start as u8, node.children.len() as u8]);
            keys.extend(&node.key);
        }
        (nodes, keys)
    }
}
