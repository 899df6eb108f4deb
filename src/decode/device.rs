//! Runs of records on their way over a GPU, which reads most of them; what it leaves, and all that lies around payloads, is the decoder's here.
//!
//! The device is given the bytes of several runs side by side, and each record as an extent of them. It gives columns for all of them together.

use tidegate_kernels::{
    device::{DeviceError, Gpu, Timing},
    json::{Declared, DeviceDecoder, Notes, Schema, SchemaFault, SeenBit},
};

use super::{
    Decoded, Decoder,
    json::{Bits, DeviceColumn, DeviceRows},
    payload::Payloads,
};
use crate::{error::Result, source::Slice};

/// A source's columns, put on a GPU.
#[derive(Debug)]
pub struct OnDevice {
    decoder: DeviceDecoder,
    bits: Bits,
}

/// What a GPU has read.
#[derive(Debug)]
pub struct Landed {
    rows: tidegate_kernels::json::Decoded,
    places: Vec<Place>,
    /// How long it took there.
    pub timing: Timing,
    /// How many bytes were given to it.
    pub bytes: usize,
}

/// Where a run lies among others.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The row of its first record.
    first: usize,
    /// Where its buffer would begin in the payload, in two's complement.
    shift: u32,
}

/// Whether paths can be followed on a GPU; `Err`: why not, as a clause.
pub(super) fn check_paths(columns: &[DeviceColumn]) -> Result<(), String> {
    Schema::with_notes(&declared(columns), &Notes::default()).map(|_| ()).map_err(|fault| fault.to_string())
}

fn declared(columns: &[DeviceColumn]) -> Vec<Declared<&[String]>> {
    columns.iter().map(|column| Declared { path: column.path.as_slice(), data_type: column.data_type, wanted: column.needed }).collect()
}

impl OnDevice {
    /// Puts columns there, whose paths were checked, and as many of the keys at the top of records as there is room for, which it is to tell of.
    fn new(gpu: &Gpu, columns: &[DeviceColumn], noted: Vec<String>) -> Result<Self, DeviceError> {
        let mut notes = Notes { keys: noted, seen: true, leave_unknown: true, leave_blocked: true };
        let schema = loop {
            match Schema::with_notes(&declared(columns), &notes) {
                Ok(schema) => break schema,
                // Records with other keys are left to the CPU.
                Err(SchemaFault::Size { .. }) if !notes.keys.is_empty() => notes.keys.truncate(notes.keys.len() * 7 / 8),
                Err(fault) => return Err(DeviceError::Batch(fault.to_string())),
            }
        };
        let columns = (0..columns.len()).map(|column| bit_index(schema.column_bit(column))).collect();
        let noted = notes.keys.into_iter().enumerate().map(|(key, name)| (name.into_bytes(), bit_index(schema.noted_bit(key)))).collect();
        Ok(Self { decoder: DeviceDecoder::new(gpu, &schema)?, bits: Bits { columns, noted } })
    }

    /// Has some runs read, and waits for that.
    pub fn read(&self, slices: &[Slice]) -> Result<Landed, DeviceError> {
        let (mut parts, mut places, mut ranges) = (Vec::with_capacity(slices.len()), Vec::with_capacity(slices.len()), vec![]);
        let mut length = 0usize;
        for slice in slices {
            let first = ranges.len();
            let values = || slice.records.iter().filter_map(|record| record.value_at);
            let (begin, end) = (values().map(|(start, _)| start).min().unwrap_or(0), values().map(|(_, end)| end).max().unwrap_or(0));
            if u32::try_from(length + (end - begin)).is_err() {
                return Err(DeviceError::Batch("it has more than 4 GiB".into()));
            }
            let shift = (length as u32).wrapping_sub(begin as u32);
            let here = |at: usize| (at as u32).wrapping_add(shift);
            // A record without a payload is an empty row, which the device leaves: beside its neighbours, which are read together.
            let mut last = begin;
            ranges.extend(slice.records.iter().map(|record| {
                let (start, end) = record.value_at.unwrap_or((last, last));
                last = end;
                [here(start), here(end)]
            }));
            places.push(Place { first, shift });
            parts.push(&slice.records.bytes().as_slice()[begin..end]);
            length += end - begin;
        }
        let (rows, timing) = self.decoder.begin_parts(&parts, &ranges)?.wait()?;
        Ok(Landed { rows, places, timing, bytes: length })
    }
}

/// Where a bit is in a row's words, one after the other.
fn bit_index(bit: SeenBit) -> u32 {
    bit.word as u32 * u64::BITS + bit.mask.trailing_zeros()
}

impl Landed {
    /// Rows that the GPU left.
    pub fn left_over(&self) -> usize {
        self.rows.left_over().count()
    }
}

impl Decoder {
    /// Why a GPU can't read the source's payloads, as a clause, if it can't.
    pub fn not_on_device(&self) -> Option<&str> {
        self.on_device.as_ref().err().map(String::as_str)
    }

    /// Puts the source's columns on a GPU, with the keys that it is to tell of, the most important first.
    pub fn put_on(&self, gpu: &Gpu, noted: Vec<String>) -> Result<OnDevice, DeviceError> {
        OnDevice::new(gpu, self.on_device.as_deref().unwrap_or_default(), noted)
    }

    /// The keys at the top of payloads that no column is read from, as far as they were met, in the order in which they were.
    pub fn noted(&self) -> Vec<String> {
        match &self.payload {
            // A payload with a key that is no text is none.
            Payloads::Json(reader) => reader.noted().filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect(),
            Payloads::Batch(_) => vec![],
        }
    }

    /// Decodes a run of which a GPU has read most: the one at a position among those that were given to it.
    pub fn decode_landed(&mut self, on_device: &OnDevice, landed: &Landed, position: usize, slice: &Slice, now_ms: i64) -> Result<Decoded> {
        let Place { first, shift } = landed.places[position];
        let rows = DeviceRows { rows: &landed.rows, bits: &on_device.bits, first, shift };
        self.decode_prepared(Some(&rows), slice.partition, &slice.records, now_ms)
    }
}
