//! JSON with a device's help: it reads most records of a run, and leaves the others to the reader here, whose word counts.
//!
//! A record that the device has read is what this reader would have made of it: the device leaves whatever it is not sure of. So where a record is
//! read changes nothing, neither rows nor errors nor drift.

use std::{collections::HashMap, ops::Range};

use arrow::datatypes::{DataType, TimeUnit};
use tidegate_kernels::json::{Cells, Decoded, Status, Type, Unit};

use super::{JsonReader, column::AnyColumn, drift::Has, order::Keys};
use crate::{catalog::TimeFormat, decode::payload::PayloadColumn};

/// A column as a device reads it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::decode) struct DeviceColumn {
    /// Names of fields from the top of the payload.
    pub(in crate::decode) path: Vec<String>,
    /// What its values are.
    pub(in crate::decode) data_type: Type,
    /// Whether they are wanted, or only judged.
    pub(in crate::decode) needed: bool,
}

/// What a device made of a run of records.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) struct DeviceRows<'a> {
    /// Its rows, those of other runs among them.
    pub(in crate::decode) rows: &'a Decoded,
    /// What the bits of [`Decoded::seen`] mean.
    pub(in crate::decode) bits: &'a Bits,
    /// The row of the run's first record; each record has one.
    pub(in crate::decode) first: usize,
    /// Where the run's buffer began in the payload that the device was given; may be less than 0, in two's complement.
    pub(in crate::decode) shift: u32,
}

/// What the bits of a row's seen set mean.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::decode) struct Bits {
    /// For each column its bit.
    pub(in crate::decode) columns: Vec<u32>,
    /// Keys at the top that no column has, each with its bit.
    pub(in crate::decode) noted: Vec<(Vec<u8>, u32)>,
}

impl DeviceRows<'_> {
    /// Whether the device has read a row.
    pub(in crate::decode) fn is_read(&self, row: usize) -> bool {
        self.rows.status[row] == Status::Decoded
    }

    /// The value of a timestamp column, in its unit.
    pub(in crate::decode) fn timestamp(&self, column: usize, row: usize) -> Option<i64> {
        let column = self.rows.columns[column].as_ref()?;
        match &column.cells {
            Cells::Timestamp(cells) if column.valid[row / 8] >> (row % 8) & 1 == 1 => Some(cells[row]),
            _ => None,
        }
    }
}

/// The column, as a device can read it; `Err`: why it can't.
pub(in crate::decode) fn device_column(column: &PayloadColumn) -> Result<DeviceColumn, String> {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => Unit::Second,
        TimeUnit::Millisecond => Unit::Millisecond,
        TimeUnit::Microsecond => Unit::Microsecond,
        TimeUnit::Nanosecond => Unit::Nanosecond,
    };
    let data_type = match &column.data_type {
        _ if column.path.is_empty() => return Err(format!("column {} is METADATA FROM 'unknown'", column.name)),
        DataType::Boolean => Type::Boolean,
        DataType::Int32 => Type::Int32,
        DataType::Int64 => Type::Int64,
        DataType::Float64 => Type::Float64,
        DataType::Utf8View => Type::Text,
        DataType::Timestamp(of, _) if column.time == TimeFormat::Rfc3339 => Type::Timestamp(unit(of)),
        DataType::Timestamp(..) => return Err(format!("column {} is a timestamp in another notation than RFC 3339", column.name)),
        other => return Err(format!("column {} is of type {other}", column.name)),
    };
    Ok(DeviceColumn { path: column.path.clone(), data_type, needed: column.needed })
}

impl JsonReader {
    /// Keys at the top of records that no column is read from: those that were met, and the primary key's columns.
    pub(in crate::decode) fn noted(&self) -> impl Iterator<Item = &[u8]> {
        let is_read = |nodes: &Range<usize>| self.columns.iter().any(|column| nodes.contains(&column.node));
        let known = self.paths.keys_on().filter(move |(_, nodes)| !is_read(nodes)).map(|(name, _)| name);
        known.chain(self.paths.keys_nowhere().map(|(name, _)| name))
    }

    /// What the bits of rows' seen sets are in this reader.
    pub(in crate::decode) fn translation(&self, bits: &Bits) -> Translation {
        let mut translation = Translation { unmet: 0, words: self.paths.len().div_ceil(64), of: vec![Meaning::Nothing; 128], last: None };
        for (column, &bit) in self.columns.iter().zip(&bits.columns) {
            translation.of[bit as usize] = Meaning::Node(column.node);
        }
        let own: HashMap<&[u8], u32> = self.paths.keys_nowhere().collect();
        for (name, bit) in &bits.noted {
            match own.get(name.as_slice()) {
                Some(own) => translation.of[*bit as usize] = Meaning::Key(*own),
                None if self.paths.keys_on().any(|(key, _)| key == name.as_slice()) => {}
                None => translation.unmet |= 1 << bit,
            }
        }
        translation
    }

    /// Whether a record that a device has read can be taken as it is; then it is noted as read.
    #[inline]
    pub(in crate::decode) fn takes(&mut self, device: &DeviceRows<'_>, translation: &mut Translation, row: usize) -> bool {
        if !device.is_read(row) {
            return false;
        }
        let Some(notes) = &mut self.notes else { return true };
        let seen = device.rows.seen.iter().rev().fold(0, |seen: u128, words| seen << 64 | u128::from(words[row]));
        let Some(has) = translation.has(seen) else { return false };
        let knows = notes.knows(has);
        if knows {
            notes.note(has);
        }
        knows
    }

    /// Appends rows that a device has read to the columns that are needed.
    pub(in crate::decode) fn extend(&mut self, device: &DeviceRows<'_>, rows: &Range<usize>) {
        if rows.is_empty() {
            return;
        }
        for (column, read) in self.columns.iter_mut().zip(&device.rows.columns).filter(|(column, _)| column.needed) {
            let Some(read) = read else { continue };
            let (valid, rows) = (read.valid.as_slice(), rows.clone());
            match (&mut column.column, &read.cells) {
                (AnyColumn::Flags(column), Cells::Boolean(cells)) => column.extend(cells, valid, rows),
                (AnyColumn::Int(column), Cells::Int32(cells)) => column.extend(&cells[rows.clone()], valid, rows),
                (AnyColumn::BigInt(column), Cells::Int64(cells)) => column.extend(&cells[rows.clone()], valid, rows),
                (AnyColumn::Double(column), Cells::Float64(cells)) => column.extend(&cells[rows.clone()], valid, rows),
                (AnyColumn::Times(column), Cells::Timestamp(cells)) => column.extend(&cells[rows.clone()], valid, rows),
                (AnyColumn::Text(column), Cells::Text(cells)) => column.extend(&cells[rows.clone()], valid, rows, device.shift),
                // `device_column` makes no other pairs.
                _ => unreachable!("a column is read as another type on a device"),
            }
        }
    }
}

/// What the bits of rows' seen sets are called by a reader.
#[derive(Debug)]
pub(in crate::decode) struct Translation {
    /// The bits of keys that the reader has yet to meet.
    unmet: u128,
    /// So many words the nodes have.
    words: usize,
    /// By bit.
    of: Vec<Meaning>,
    /// The last set, and what it was called: most rows have the same few.
    last: Option<(u128, Has)>,
}

#[derive(Debug, Clone, Copy)]
enum Meaning {
    Nothing,
    /// A node of the declared paths.
    Node(usize),
    /// A key that nobody declared.
    Key(u32),
}

impl Translation {
    /// What a set means; `None`: it has a key that the reader has yet to meet.
    fn has(&mut self, seen: u128) -> Option<&Has> {
        if seen & self.unmet != 0 {
            return None;
        }
        if self.last.as_ref().is_none_or(|(last, _)| *last != seen) {
            let mut has = Has { unknown: 0, found: vec![0; self.words] };
            let mut left = seen;
            while left != 0 {
                match self.of[left.trailing_zeros() as usize] {
                    Meaning::Nothing => {}
                    Meaning::Node(node) => has.found[node / 64] |= 1 << (node % 64),
                    Meaning::Key(bit) => has.unknown |= (1 as Keys) << bit,
                }
                left &= left - 1;
            }
            self.last = Some((seen, has));
        }
        self.last.as_ref().map(|(_, has)| has)
    }
}
