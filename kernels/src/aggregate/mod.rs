//! Grouped aggregation by key and time window: count, sum, minimum, maximum. Exact, so that the order of rows and the device don't show.
//!
//! * Sums of integers are kept in 128 bits; whether one fits 64 is asked at the end ([`Aggregates::sum_i64`]).
//! * Sums of floats: each float is cut, toward zero, to a multiple of 2^-95 of the greatest (by magnitude, in binary places) of its group,
//!   the multiples are added as integers, and the sum is rounded once, to the nearest. The error is below that of adding in any order,
//!   and adding in any order gives the same bits.
//! * Minimum and maximum of floats are by IEEE 754's total order, as Arrow's: -0 is less than 0, and NaN greater than all numbers.
//!
//! [`aggregate`] is the reference; [`DeviceAggregator`] does the same on a device.

mod device;
mod float_sum;
mod reference;

pub use self::{device::DeviceAggregator, reference::aggregate};

use crate::device::DeviceError;

/// Tumbling windows. A row's bin is the start of the window that its time is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    width: i64,
    /// The start of some window, in `0..width`.
    shift: i64,
}

impl Windows {
    /// Windows of a width, one of which starts at `origin`; `None` if the width is not positive.
    pub fn new(width: i64, origin: i64) -> Option<Self> {
        (width > 0).then(|| Self { width, shift: origin.rem_euclid(width) })
    }

    /// The start of the window that a time is in; `None` if that lies before the first `i64`.
    pub fn start(self, time: i64) -> Option<i64> {
        let since = (time.rem_euclid(self.width) - self.shift).rem_euclid(self.width);
        time.checked_sub(since)
    }
}

/// Values to aggregate, one per row.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Integers.
    Int64(&'a [i64]),
    /// Floats.
    Float64(&'a [f64]),
}

/// A column of values.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The values; what stands in rows without one doesn't matter.
    pub values: Values<'a>,
    /// Which rows have a value, as an Arrow bitmap; `None`: all.
    pub valid: Option<&'a [u8]>,
}

/// Rows to aggregate.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Each row's key. Other keys than integers are numbered by the caller.
    pub keys: &'a [i64],
    /// Each row's time, and the windows; `None`: all rows are in one window, with bin 0.
    pub times: Option<(&'a [i64], Windows)>,
    /// Which rows count at all, as an Arrow bitmap; `None`: all.
    pub selected: Option<&'a [u8]>,
    /// What is aggregated.
    pub inputs: &'a [Input<'a>],
}

/// The groups of a batch, by bin and then by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Groups {
    /// Each group's key.
    pub keys: Vec<i64>,
    /// Each group's bin.
    pub bins: Vec<i64>,
    /// How many rows each group has.
    pub rows: Vec<u64>,
    /// For each input its aggregates.
    pub inputs: Vec<Aggregates>,
}

/// One input's aggregates, group by group. Where `count` is 0 the others mean nothing (and are 0).
#[derive(Debug, Clone, PartialEq)]
pub enum Aggregates {
    /// Of integers.
    Int64 {
        /// How many values.
        count: Vec<u64>,
        /// Their exact sum.
        sum: Vec<i128>,
        /// The least.
        min: Vec<i64>,
        /// The greatest.
        max: Vec<i64>,
    },
    /// Of floats.
    Float64 {
        /// How many values.
        count: Vec<u64>,
        /// Their sum, as this module's description defines it.
        sum: Vec<f64>,
        /// The least.
        min: Vec<f64>,
        /// The greatest.
        max: Vec<f64>,
    },
}

impl Aggregates {
    /// A group's sum of integers, if it fits 64 bits.
    pub fn sum_i64(&self, group: usize) -> Option<i64> {
        match self {
            Aggregates::Int64 { sum, .. } => i64::try_from(*sum.get(group)?).ok(),
            Aggregates::Float64 { .. } => None,
        }
    }
}

/// Why a batch was not aggregated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AggregateError {
    /// Columns of different length.
    #[error("{what} has {found} rows where the keys have {expected}")]
    Rows {
        /// Which column.
        what: &'static str,
        /// How many it has.
        found: usize,
        /// How many it must have.
        expected: usize,
    },
    /// A time so early that its window starts before all times.
    #[error("a time lies so early that its window has no start")]
    Range,
    /// More groups than the device was prepared for. The CPU does it, or a [`DeviceAggregator`] for more.
    #[error("the batch has more than {0} groups")]
    TooManyGroups(u32),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl Batch<'_> {
    /// How many rows there are, if all columns agree.
    fn rows(&self) -> Result<usize, AggregateError> {
        let expected = self.keys.len();
        let check = |what, found| if found == expected { Ok(()) } else { Err(AggregateError::Rows { what, found, expected }) };
        // A bitmap may be longer than it needs to be.
        let check_bits = |what, bits: &[u8]| if bits.len() >= expected.div_ceil(8) { Ok(()) } else { check(what, bits.len() * 8) };
        if let Some((times, _)) = self.times {
            check("the time column", times.len())?;
        }
        if let Some(selected) = self.selected {
            check_bits("the selection", selected)?;
        }
        for input in self.inputs {
            match input.values {
                Values::Int64(values) => check("an input", values.len())?,
                Values::Float64(values) => check("an input", values.len())?,
            }
            if let Some(valid) = input.valid {
                check_bits("an input's validity", valid)?;
            }
        }
        Ok(expected)
    }
}
