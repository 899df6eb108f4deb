//! The decoder on a device: payload bytes go in, columns come out.

use super::{
    columns::{Cells, Column, Decoded, Status},
    decimal::POWERS,
    schema::{Compiled, Kept, NODE_BYTES, Schema, Type},
};
use crate::{
    device::{Arg, DeviceError, Finished, Gpu, Kernel, Plan, Region, Resident, Slot, Ticket, Timing, row_count},
    plain::{bytes, numbers},
};

/// Rows that one block reads.
const BLOCK: usize = 128;
/// Shared memory for a block's part of the payload: as much as lets several blocks fit a multiprocessor.
const LARGEST_TILE: usize = 40 << 10;
/// The kernel reads whole 16 bytes, also the last.
const PADDING: usize = 16;
/// The kernel's numbers of the rows that it is to leave.
const LEAVE_UNKNOWN: u32 = 1;
const LEAVE_BLOCKED: u32 = 2;

/// Rows to decode.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// What the rows lie in.
    pub payload: &'a [u8],
    /// Each row's first byte and one past its last. Neighbours are read best if they lie side by side.
    pub ranges: &'a [[u32; 2]],
}

/// Decodes rows on a device.
#[derive(Debug, Clone)]
pub struct DeviceDecoder {
    schema: Schema,
    nodes: Resident,
    keys: Resident,
    kinds: Resident,
    powers: Resident,
    key_bytes: u32,
    /// Given up last: closing a device waits for its thread if nothing is left on it.
    gpu: Gpu,
}

/// Rows being decoded.
#[derive(Debug)]
pub struct Decoding {
    ticket: Ticket,
    prepared: Prepared,
}

/// How to read a batch's results.
#[derive(Debug)]
struct Prepared {
    columns: Vec<Compiled>,
    seen_words: usize,
    rows: usize,
    stride: usize,
    layout: Layout,
}

/// Where a batch's results are.
#[derive(Debug, Clone, Copy)]
struct Layout {
    words: Region,
    halves: Region,
    views: Region,
    flags: Region,
    valid: Region,
    seen: Region,
    status: Region,
}

impl DeviceDecoder {
    /// Puts a schema on a device.
    pub fn new(gpu: &Gpu, schema: &Schema) -> Result<Self, DeviceError> {
        let (nodes, keys) = schema.tree();
        let powers: Vec<u64> = POWERS.iter().flatten().copied().collect();
        Ok(Self {
            gpu: gpu.clone(),
            key_bytes: keys.len() as u32,
            nodes: gpu.upload(nodes)?,
            keys: gpu.upload(keys)?,
            kinds: gpu.upload(schema.kinds())?,
            powers: gpu.upload(bytes(&powers).to_vec())?,
            schema: schema.clone(),
        })
    }

    /// Begins to decode rows.
    pub fn begin(&self, rows: &Rows<'_>) -> Result<Decoding, DeviceError> {
        self.begin_parts(&[rows.payload], rows.ranges)
    }

    /// Begins to decode rows of a payload that is given in parts, which are put one behind the other.
    pub fn begin_parts(&self, parts: &[&[u8]], ranges: &[[u32; 2]]) -> Result<Decoding, DeviceError> {
        let len = parts.iter().map(|part| part.len()).sum();
        let (mut slot, payload, prepared) = self.prepare(len, ranges)?;
        let place = |at: &mut usize, part: &&[u8]| Some(std::mem::replace(at, *at + part.len()));
        let places = parts.iter().scan(0, place);
        slot.fill(&places.zip(parts).map(|(at, part)| (payload, at, *part)).collect::<Vec<_>>())?;
        slot.write(payload)[len..].fill(0);
        Ok(prepared.begun(slot.submit()?))
    }

    /// Begins to decode rows of a payload that `fill` writes where the device takes it from, which spares a copy. It holds rubbish before.
    pub fn begin_in_place(&self, len: usize, ranges: &[[u32; 2]], fill: impl FnOnce(&mut [u8])) -> Result<Decoding, DeviceError> {
        let (mut slot, payload, prepared) = self.prepare(len, ranges)?;
        let (written, padding) = slot.write(payload).split_at_mut(len);
        fill(written);
        padding.fill(0);
        Ok(prepared.begun(slot.submit()?))
    }

    /// A slot for rows, their ranges written, with where the payload goes.
    fn prepare(&self, len: usize, ranges: &[[u32; 2]]) -> Result<(Slot, Region, Prepared), DeviceError> {
        let rows = ranges.len();
        let outside = |[start, end]: &&[u32; 2]| start > end || *end as usize > len;
        if let Some([start, end]) = ranges.iter().find(outside) {
            return Err(DeviceError::Batch(format!("a row is said to lie at {start}..{end} of {len} bytes")));
        }
        let count = row_count(rows)?;
        // Bits are written by whole words.
        let stride = rows.next_multiple_of(32);
        let (schema, seen_words) = (&self.schema, self.schema.seen_words());
        let kept = schema.kinds().len();
        let mut plan = Plan::default();
        let payload = plan.input(len + PADDING);
        let ranges_region = plan.input(rows * 8);
        let layout = Layout {
            words: plan.output(schema.count(Kept::Words) * stride * 8),
            halves: plan.output(schema.count(Kept::Halves) * stride * 4),
            views: plan.output(schema.count(Kept::Views) * stride * 16),
            flags: plan.output(schema.count(Kept::Flags) * stride / 8),
            valid: plan.output(kept * stride / 8),
            seen: plan.output(seen_words * stride * 8),
            status: plan.output(stride),
        };
        let tile = tile(ranges);
        let shared = tile + schema.nodes.len() * NODE_BYTES + self.key_bytes as usize;
        let leave = if schema.leave_unknown { LEAVE_UNKNOWN } else { 0 } | if schema.leave_blocked { LEAVE_BLOCKED } else { 0 };
        let args = vec![
            Arg::Region(payload),
            Arg::Region(ranges_region),
            Arg::U32(count),
            Arg::U32(tile as u32),
            Arg::Resident(self.nodes.clone()),
            Arg::U32(schema.nodes.len() as u32),
            Arg::Resident(self.keys.clone()),
            Arg::U32(self.key_bytes),
            Arg::Resident(self.powers.clone()),
            Arg::Resident(self.kinds.clone()),
            Arg::U32(kept as u32),
            Arg::U32(leave),
            Arg::U32(stride as u32),
            Arg::Region(layout.words),
            Arg::Region(layout.halves),
            Arg::Region(layout.views),
            Arg::Region(layout.flags),
            Arg::Region(layout.valid),
            if schema.seen { Arg::Region(layout.seen) } else { Arg::Null },
            Arg::Region(layout.status),
        ];
        if count > 0 {
            // SAFETY: as the kernel's contract says; the ranges were checked above.
            unsafe { plan.launch(Kernel::JsonDecode, count.div_ceil(BLOCK as u32), BLOCK as u32, shared as u32, args) };
        }
        let mut slot = self.gpu.slot(plan)?;
        slot.fill(&[(ranges_region, 0, bytes(ranges.as_flattened()))])?;
        Ok((slot, payload, Prepared { columns: schema.columns.clone(), seen_words, rows, stride, layout }))
    }

    /// Decodes rows: what [`super::decode`] gives, to the bit.
    pub fn decode(&self, rows: &Rows<'_>) -> Result<Decoded, DeviceError> {
        Ok(self.begin(rows)?.wait()?.0)
    }
}

/// How much shared memory the largest of the blocks' parts of the payload takes.
fn tile(ranges: &[[u32; 2]]) -> usize {
    let part = |rows: &[[u32; 2]]| match (rows.first(), rows.last()) {
        (Some(first), Some(last)) => (last[1] as usize).saturating_sub(first[0] as usize / PADDING * PADDING),
        _ => 0,
    };
    ranges.chunks(BLOCK).map(part).max().unwrap_or(0).next_multiple_of(PADDING).min(LARGEST_TILE)
}

impl Prepared {
    fn begun(self, ticket: Ticket) -> Decoding {
        Decoding { ticket, prepared: self }
    }
}

impl Decoding {
    /// Waits for the columns and copies them.
    pub fn wait(self) -> Result<(Decoded, Timing), DeviceError> {
        let columns = self.wait_in_place()?;
        Ok((columns.copied()?, columns.timing()))
    }

    /// Waits for the columns and leaves them where the device put them, which spares a copy, and holds a slot of the device.
    pub fn wait_in_place(self) -> Result<InPlace, DeviceError> {
        Ok(InPlace { finished: self.ticket.wait()?, prepared: self.prepared })
    }
}

/// Decoded rows in the device's pinned memory.
#[derive(Debug)]
pub struct InPlace {
    finished: Finished,
    prepared: Prepared,
}

/// A column's values, as [`Cells`] has them, in pinned memory.
#[derive(Debug, Clone, Copy)]
pub enum CellsInPlace<'a> {
    /// A bitmap.
    Boolean(&'a [u8]),
    /// Integers of 8, 16 or 32 bits.
    Int32(&'a [i32]),
    /// The same without sign.
    UInt32(&'a [u32]),
    /// Integers of 64 bits.
    Int64(&'a [i64]),
    /// Floats.
    Float64(&'a [f64]),
    /// Arrow's views.
    Text(&'a [u128]),
    /// Counts of the column's unit since 1970.
    Timestamp(&'a [i64]),
    /// Where values lie in the payload: offset and length.
    Raw(&'a [[u32; 2]]),
}

impl InPlace {
    /// How many rows there are, decoded or not.
    pub fn rows(&self) -> usize {
        self.prepared.rows
    }

    /// Each row's status, by number: [`Status::Decoded`] is 0.
    pub fn status(&self) -> &[u8] {
        &self.finished.output(self.prepared.layout.status)[..self.prepared.rows]
    }

    /// Which rows have a value in a column; `None`: nobody wants it.
    ///
    /// # Panics
    ///
    /// If there is no such column.
    pub fn valid(&self, column: usize) -> Option<&[u8]> {
        self.prepared.columns[column].place.map(|place| self.bits(self.prepared.layout.valid, place.kept))
    }

    /// A column's values; `None`: nobody wants it.
    ///
    /// # Panics
    ///
    /// If there is no such column.
    pub fn cells(&self, column: usize) -> Option<CellsInPlace<'_>> {
        let Compiled { data_type, place, .. } = self.prepared.columns[column];
        let (layout, at) = (&self.prepared.layout, place?.within);
        Some(match data_type {
            Type::Boolean => CellsInPlace::Boolean(self.bits(layout.flags, at)),
            Type::Int8 | Type::Int16 | Type::Int32 => CellsInPlace::Int32(self.numbers(layout.halves, at)),
            Type::UInt8 | Type::UInt16 | Type::UInt32 => CellsInPlace::UInt32(self.numbers(layout.halves, at)),
            Type::Int64 => CellsInPlace::Int64(self.numbers(layout.words, at)),
            Type::Float64 => CellsInPlace::Float64(self.numbers(layout.words, at)),
            Type::Text => CellsInPlace::Text(self.numbers(layout.views, at)),
            Type::Timestamp(_) => CellsInPlace::Timestamp(self.numbers(layout.words, at)),
            Type::Raw => CellsInPlace::Raw(self.numbers(layout.words, at)),
        })
    }

    /// Which keys each row has, by [`super::SeenBit::word`]: that word of each row.
    ///
    /// # Panics
    ///
    /// If there is no such word ([`Schema::seen_words`]).
    pub fn seen(&self, word: usize) -> &[u64] {
        assert!(word < self.prepared.seen_words, "there are {} words", self.prepared.seen_words);
        self.numbers(self.prepared.layout.seen, word)
    }

    /// How long it took on the device.
    pub fn timing(&self) -> Timing {
        self.finished.timing()
    }

    /// The columns in memory of their own.
    pub fn copied(&self) -> Result<Decoded, DeviceError> {
        let known = |&number: &u8| Status::ALL.get(usize::from(number)).copied();
        let status: Option<Vec<Status>> = self.status().iter().map(known).collect();
        let status = status.ok_or_else(|| DeviceError::Batch("the kernel gave a row a status that there isn't; please report it".into()))?;
        let column = |number: usize| {
            let cells = match self.cells(number)? {
                CellsInPlace::Boolean(bits) => Cells::Boolean(bits.to_vec()),
                CellsInPlace::Int32(cells) => Cells::Int32(cells.to_vec()),
                CellsInPlace::UInt32(cells) => Cells::UInt32(cells.to_vec()),
                CellsInPlace::Int64(cells) => Cells::Int64(cells.to_vec()),
                CellsInPlace::Float64(cells) => Cells::Float64(cells.to_vec()),
                CellsInPlace::Text(cells) => Cells::Text(cells.to_vec()),
                CellsInPlace::Timestamp(cells) => Cells::Timestamp(cells.to_vec()),
                CellsInPlace::Raw(cells) => Cells::Raw(cells.to_vec()),
            };
            Some(Column { valid: self.valid(number)?.to_vec(), cells })
        };
        let columns = (0..self.prepared.columns.len()).map(column).collect();
        Ok(Decoded { status, columns, seen: (0..self.prepared.seen_words).map(|word| self.seen(word).to_vec()).collect() })
    }

    fn bits(&self, region: Region, place: usize) -> &[u8] {
        &self.finished.output(region)[place * self.prepared.stride / 8..][..self.prepared.rows.div_ceil(8)]
    }

    fn numbers<T: crate::plain::Plain>(&self, region: Region, place: usize) -> &[T] {
        &numbers(self.finished.output(region))[place * self.prepared.stride..][..self.prepared.rows]
    }
}
