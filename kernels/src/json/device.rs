//! The decoder on a device: payload bytes go in, columns come out.

use super::{
    columns::{Cells, Column, Decoded, Status},
    decimal::POWERS,
    schema::{Schema, Type},
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
    columns: Vec<Type>,
    places: Vec<usize>,
    rows: usize,
    stride: usize,
    layout: Layout,
}

/// Where a batch's results are.
#[derive(Debug, Clone, Copy)]
struct Layout {
    words: Region,
    views: Region,
    flags: Region,
    valid: Region,
    status: Region,
}

impl DeviceDecoder {
    /// Puts a schema on a device.
    pub fn new(gpu: &Gpu, schema: &Schema) -> Result<Self, DeviceError> {
        let (nodes, keys) = schema.tree();
        let kinds = schema.columns.iter().map(|&data_type| Schema::kind(data_type)).collect();
        let powers: Vec<u64> = POWERS.iter().flatten().copied().collect();
        Ok(Self {
            gpu: gpu.clone(),
            key_bytes: keys.len() as u32,
            nodes: gpu.upload(nodes)?,
            keys: gpu.upload(keys)?,
            kinds: gpu.upload(kinds)?,
            powers: gpu.upload(bytes(&powers).to_vec())?,
            schema: schema.clone(),
        })
    }

    /// Begins to decode rows.
    pub fn begin(&self, rows: &Rows<'_>) -> Result<Decoding, DeviceError> {
        let (mut slot, payload, prepared) = self.prepare(rows.payload.len(), rows.ranges)?;
        slot.fill(&[(payload, 0, rows.payload)])?;
        slot.write(payload)[rows.payload.len()..].fill(0);
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
        let columns = &self.schema.columns;
        let kept = |wanted: fn(&Type) -> bool| columns.iter().filter(|data_type| wanted(data_type)).count();
        let (texts, booleans) = (kept(|data_type| *data_type == Type::Text), kept(|data_type| *data_type == Type::Boolean));
        let mut plan = Plan::default();
        let payload = plan.input(len + PADDING);
        let ranges_region = plan.input(rows * 8);
        let layout = Layout {
            words: plan.output((columns.len() - texts - booleans) * stride * 8),
            views: plan.output(texts * stride * 16),
            flags: plan.output(booleans * stride / 8),
            valid: plan.output(columns.len() * stride / 8),
            status: plan.output(stride),
        };
        let tile = tile(ranges);
        let args = vec![
            Arg::Region(payload),
            Arg::Region(ranges_region),
            Arg::U32(count),
            Arg::U32(tile as u32),
            Arg::Resident(self.nodes.clone()),
            Arg::U32(self.schema.nodes.len() as u32),
            Arg::Resident(self.keys.clone()),
            Arg::U32(self.key_bytes),
            Arg::Resident(self.powers.clone()),
            Arg::Resident(self.kinds.clone()),
            Arg::U32(columns.len() as u32),
            Arg::U32(stride as u32),
            Arg::Region(layout.words),
            Arg::Region(layout.views),
            Arg::Region(layout.flags),
            Arg::Region(layout.valid),
            Arg::Region(layout.status),
        ];
        if count > 0 {
            // SAFETY: as the kernel's contract says; the ranges were checked above.
            unsafe { plan.launch(Kernel::JsonDecode, count.div_ceil(BLOCK as u32), BLOCK as u32, (tile + PADDING) as u32, args) };
        }
        let mut slot = self.gpu.slot(plan)?;
        slot.fill(&[(ranges_region, 0, bytes(ranges.as_flattened()))])?;
        let places = (0..columns.len()).map(|column| self.schema.place(column)).collect();
        Ok((slot, payload, Prepared { columns: columns.clone(), places, rows, stride, layout }))
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
    /// Waits for the columns.
    pub fn wait(self) -> Result<(Decoded, Timing), DeviceError> {
        let finished = self.ticket.wait()?;
        let Prepared { columns, places, rows, stride, layout } = self.prepared;
        let status = &finished.output(layout.status)[..rows];
        let known = |&number: &u8| Status::ALL.get(usize::from(number)).copied();
        let status: Option<Vec<Status>> = status.iter().map(known).collect();
        let status = status.ok_or_else(|| DeviceError::Batch("the kernel gave a row a status that there isn't; please report it".into()))?;
        let bits = |region: Region, number: usize| part::<u8>(&finished, region, number * stride / 8, rows.div_ceil(8));
        let column = |number: usize| {
            let place = places[number];
            let at = place * stride;
            let cells = match columns[number] {
                Type::Boolean => Cells::Boolean(bits(layout.flags, place)),
                Type::Int64 => Cells::Int64(part(&finished, layout.words, at, rows)),
                Type::Float64 => Cells::Float64(part(&finished, layout.words, at, rows)),
                Type::Text => Cells::Text(part(&finished, layout.views, at, rows)),
                Type::Timestamp(_) => Cells::Timestamp(part(&finished, layout.words, at, rows)),
            };
            Column { valid: bits(layout.valid, number), cells }
        };
        let columns = (0..columns.len()).map(column).collect();
        Ok((Decoded { status, columns }, finished.timing()))
    }
}

/// Some numbers of an output region.
fn part<T: crate::plain::Plain>(finished: &Finished, region: Region, start: usize, len: usize) -> Vec<T> {
    numbers(finished.output(region))[start..start + len].to_vec()
}
