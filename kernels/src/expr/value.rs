//! Types and literals.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// The type of a column, a literal or an expression. Timestamps, dates and durations are the integers that Arrow keeps them as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// True or false, a bit a row.
    Boolean,
    /// 32 bits, signed; dates as days.
    Int32,
    /// 64 bits, signed; timestamps and durations of any unit, dates as milliseconds.
    Int64,
    /// 64 bits, floating.
    Float64,
}

impl Type {
    /// All of them.
    pub const ALL: [Type; 4] = [Type::Boolean, Type::Int32, Type::Int64, Type::Float64];

    /// Whether there is arithmetic on it.
    pub fn is_number(self) -> bool {
        self != Type::Boolean
    }

    /// Bytes of so many values in Arrow's layout, bitmaps in whole 32-bit words.
    pub(super) fn bytes(self, rows: usize) -> usize {
        match self {
            Type::Boolean => bitmap_bytes(rows),
            Type::Int32 => rows * 4,
            Type::Int64 | Type::Float64 => rows * 8,
        }
    }
}

/// Bytes of a bitmap as kernels write it: whole 32-bit words.
pub(super) fn bitmap_bytes(rows: usize) -> usize {
    rows.div_ceil(32) * 4
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Boolean => "Boolean",
            Type::Int32 => "Int32",
            Type::Int64 => "Int64",
            Type::Float64 => "Float64",
        })
    }
}

/// A literal, and what the reference computes with. Floats are the same if their bits are.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// NULL of a type.
    Null(Type),
    /// A truth value.
    Boolean(bool),
    /// An integer of 32 bits.
    Int32(i32),
    /// An integer of 64 bits.
    Int64(i64),
    /// A float.
    Float64(f64),
}

impl Value {
    /// Its type.
    pub fn data_type(self) -> Type {
        match self {
            Value::Null(of) => of,
            Value::Boolean(_) => Type::Boolean,
            Value::Int32(_) => Type::Int32,
            Value::Int64(_) => Type::Int64,
            Value::Float64(_) => Type::Float64,
        }
    }

    /// Whether it is NULL.
    pub fn is_null(self) -> bool {
        matches!(self, Value::Null(_))
    }

    /// Type and content as numbers that are the same for the same literals only.
    fn identity(self) -> (Type, Option<u64>) {
        let content = match self {
            Value::Null(_) => None,
            Value::Boolean(value) => Some(value.into()),
            Value::Int32(value) => Some(value as u64),
            Value::Int64(value) => Some(value as u64),
            Value::Float64(value) => Some(value.to_bits()),
        };
        (self.data_type(), content)
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null(_) => f.write_str("NULL"),
            Value::Boolean(value) => write!(f, "{value}"),
            Value::Int32(value) => write!(f, "{value}"),
            Value::Int64(value) => write!(f, "{value}"),
            Value::Float64(value) => write!(f, "{value:?}"),
        }
    }
}
