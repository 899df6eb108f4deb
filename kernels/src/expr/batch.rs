//! What a program reads and what it gives, in Arrow's layout.

use std::fmt;

use super::{
    program::Program,
    value::{Type, Value, bitmap_bytes},
};
use crate::{device::DeviceError, plain::bit};

/// A column's values, one a row; those of rows that are NULL may be anything.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Bits, the first row's lowest.
    Boolean(&'a [u8]),
    /// Integers of 32 bits.
    Int32(&'a [i32]),
    /// Integers of 64 bits.
    Int64(&'a [i64]),
    /// Floats.
    Float64(&'a [f64]),
}

/// One column of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// Its values.
    pub values: Values<'a>,
    /// Which of them there are, a bit each, the first row's lowest; without it, all.
    pub valid: Option<&'a [u8]>,
}

impl Column<'_> {
    /// Its type.
    pub fn data_type(&self) -> Type {
        match self.values {
            Values::Boolean(_) => Type::Boolean,
            Values::Int32(_) => Type::Int32,
            Values::Int64(_) => Type::Int64,
            Values::Float64(_) => Type::Float64,
        }
    }

    /// Whether its arrays hold so many rows.
    fn holds(&self, rows: usize) -> bool {
        let values = match self.values {
            Values::Boolean(bits) => bits.len().saturating_mul(8) >= rows,
            Values::Int32(values) => values.len() == rows,
            Values::Int64(values) => values.len() == rows,
            Values::Float64(values) => values.len() == rows,
        };
        values && self.valid.is_none_or(|bits| bits.len().saturating_mul(8) >= rows)
    }

    pub(super) fn value(&self, row: usize) -> Value {
        if !bit(self.valid, row) {
            return Value::Null(self.data_type());
        }
        match self.values {
            Values::Boolean(bits) => Value::Boolean(bit(Some(bits), row)),
            Values::Int32(values) => Value::Int32(values[row]),
            Values::Int64(values) => Value::Int64(values[row]),
            Values::Float64(values) => Value::Float64(values[row]),
        }
    }
}

/// Rows to compute with.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// How many there are.
    pub rows: usize,
    /// All columns; those that a program doesn't read are not looked at.
    pub columns: &'a [Column<'a>],
}

impl Batch<'_> {
    /// Whether the columns are those that the program reads.
    pub(super) fn check(&self, program: &Program) -> Result<(), EvaluateError> {
        for &(number, expected) in program.columns() {
            let wrong = |what: String| Err(EvaluateError::Batch(format!("column {number} {what}")));
            match self.columns.get(number) {
                None => return wrong(format!("is read, and the batch has {}", self.columns.len())),
                Some(column) if column.data_type() != expected => return wrong(format!("is {} and should be {expected}", column.data_type())),
                Some(column) if !column.holds(self.rows) => return wrong(format!("has another length than the batch's {} rows", self.rows)),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// A result's values. Where the row is NULL they are zero.
#[derive(Debug, Clone)]
pub enum Buffer {
    /// Bits, the first row's lowest; those beyond the last row are zero.
    Boolean(Vec<u8>),
    /// Integers of 32 bits.
    Int32(Vec<i32>),
    /// Integers of 64 bits.
    Int64(Vec<i64>),
    /// Floats.
    Float64(Vec<f64>),
}

/// Floats are the same if their bits are.
impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Buffer::Boolean(one), Buffer::Boolean(other)) => one == other,
            (Buffer::Int32(one), Buffer::Int32(other)) => one == other,
            (Buffer::Int64(one), Buffer::Int64(other)) => one == other,
            (Buffer::Float64(one), Buffer::Float64(other)) => one.iter().map(|value| value.to_bits()).eq(other.iter().map(|value| value.to_bits())),
            _ => false,
        }
    }
}

/// One projection's result, a value a row. Rows that the filter leaves out are NULL.
#[derive(Debug, Clone, PartialEq)]
pub struct Projected {
    /// The values.
    pub values: Buffer,
    /// Which of them there are, as a bitmap whose further bits are zero.
    pub valid: Vec<u8>,
}

impl Projected {
    pub(super) fn with_capacity(of: Type, rows: usize) -> Self {
        let values = match of {
            Type::Boolean => Buffer::Boolean(vec![0; bitmap_bytes(rows)]),
            Type::Int32 => Buffer::Int32(Vec::with_capacity(rows)),
            Type::Int64 => Buffer::Int64(Vec::with_capacity(rows)),
            Type::Float64 => Buffer::Float64(Vec::with_capacity(rows)),
        };
        Self { values, valid: vec![0; bitmap_bytes(rows)] }
    }

    pub(super) fn push(&mut self, row: usize, value: Value) {
        let bit = 1 << (row % 8);
        if !value.is_null() {
            self.valid[row / 8] |= bit;
        }
        match (&mut self.values, value) {
            (Buffer::Boolean(bits), Value::Boolean(true)) => bits[row / 8] |= bit,
            (Buffer::Boolean(_), _) => {}
            (Buffer::Int32(values), Value::Int32(value)) => values.push(value),
            (Buffer::Int32(values), _) => values.push(0),
            (Buffer::Int64(values), Value::Int64(value)) => values.push(value),
            (Buffer::Int64(values), _) => values.push(0),
            (Buffer::Float64(values), Value::Float64(value)) => values.push(value),
            (Buffer::Float64(values), _) => values.push(0.0),
        }
    }
}

/// What a program gives for a batch. Bitmaps are of whole 32-bit words.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// The rows for which the filter is true, a bit each; without a filter there is none, and all pass.
    pub selected: Option<Vec<u8>>,
    /// The projections' results.
    pub results: Vec<Projected>,
}

/// Why a batch is given back: what is or may be wrong with some of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults(u32);

impl Faults {
    /// None.
    pub const NONE: Faults = Faults(0);
    /// An integer is out of its type's range.
    pub const OVERFLOW: Faults = Faults(1);
    /// An integer is divided by zero.
    pub const DIVISION_BY_ZERO: Faults = Faults(2);
    /// A cast's target doesn't hold the value.
    pub const CAST: Faults = Faults(4);
    /// A NaN arises whose bits are the processor's own affair.
    pub const NAN: Faults = Faults(8);

    const SENTENCES: [(Faults, &'static str); 4] = [
        (Faults::OVERFLOW, "an integer is out of its type's range"),
        (Faults::DIVISION_BY_ZERO, "an integer is divided by zero"),
        (Faults::CAST, "a number can't be cast to the type that is asked for"),
        (Faults::NAN, "a NaN arises whose bits are up to the processor"),
    ];

    pub(super) fn of_bits(bits: u32) -> Self {
        Faults(bits)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Whether all of those are among these.
    pub fn contains(self, those: Faults) -> bool {
        self.0 & those.0 == those.0
    }
}

impl std::ops::BitOrAssign for Faults {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentences = Self::SENTENCES.iter().filter(|(fault, _)| self.contains(*fault));
        f.write_str(&sentences.map(|(_, sentence)| *sentence).collect::<Vec<_>>().join(", "))
    }
}

/// Why a batch wasn't evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// The columns are not those that the program reads.
    #[error("the batch is not the program's: {0}")]
    Batch(String),
    /// Rows whose fate is the CPU's.
    #[error("the batch is given back to the CPU: in some row {0}")]
    GivenBack(Faults),
    /// The device didn't do it.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
