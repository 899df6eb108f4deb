//! The aggregation on a device: a batch goes in, its groups come out.

use super::{AggregateError, Aggregates, Batch, Groups, Values, float_sum};
use crate::{
    device::{Arg, DeviceError, Finished, Gpu, Kernel, Plan, Region, Ticket, Timing, row_count},
    plain::{bytes, copy_bitmap, numbers},
};

/// Threads of a block.
const BLOCK: u32 = 256;
/// Blocks per multiprocessor: as many as it holds at once.
const BLOCKS_EACH: u32 = 8;
/// Words of the kernels' common state, and their meaning.
const STATE_WORDS: usize = 4;
const FULL: usize = 0;
const RANGE: usize = 1;
const GROUPS: usize = 3;

/// Aggregates batches on a device.
#[derive(Debug, Clone)]
pub struct DeviceAggregator {
    gpu: Gpu,
    /// Groups that there is room for.
    most: u32,
}

/// A batch being aggregated.
#[derive(Debug)]
pub struct Aggregating {
    ticket: Ticket,
    most: u32,
    layout: Layout,
}

/// Where a batch's results are.
#[derive(Debug)]
struct Layout {
    state: Region,
    keys: Region,
    bins: Region,
    rows: Region,
    inputs: Vec<InputLayout>,
}

/// Where one input's results are.
#[derive(Debug)]
struct InputLayout {
    count: Region,
    low: Region,
    high: Region,
    least: Region,
    greatest: Region,
    /// Of floats: their flags and greatest exponents.
    float: Option<(Region, Region)>,
}

impl DeviceAggregator {
    /// For batches of at most `most` groups. What comes back from the device is proportional to it.
    pub fn new(gpu: &Gpu, most: u32) -> Self {
        Self { gpu: gpu.clone(), most: most.clamp(1, 1 << 24) }
    }

    /// Aggregates a batch: what [`super::aggregate`] gives, to the bit.
    pub fn aggregate(&self, batch: &Batch<'_>) -> Result<Groups, AggregateError> {
        Ok(self.begin(batch)?.wait()?.0)
    }

    /// Begins to aggregate a batch.
    pub fn begin(&self, batch: &Batch<'_>) -> Result<Aggregating, AggregateError> {
        let rows = batch.rows()?;
        let count = row_count(rows)?;
        let most = self.most.min(count.max(1));
        // At most half full, and one more bit to keep runs short.
        let slots = (u64::from(most) * 4).next_power_of_two();
        let mask = u32::try_from(slots - 1).map_err(|_| DeviceError::Batch(format!("it has {most} groups")))?;
        let blocks = count.div_ceil(BLOCK).clamp(1, self.gpu.processors() * BLOCKS_EACH);
        let (mut plan, cells) = (Plan::default(), most as usize * 8);
        let bitmap = |plan: &mut Plan, bits: Option<&[u8]>| bits.map(|_| plan.input(rows.div_ceil(32) * 4));
        let or_null = |region: Option<Region>| region.map_or(Arg::Null, Arg::Region);

        let keys = plan.input(rows * 8);
        let times = batch.times.map(|_| plan.input(rows * 8));
        let selected = bitmap(&mut plan, batch.selected);
        let inputs: Vec<(Region, Option<Region>)> = batch.inputs.iter().map(|input| (plan.input(rows * 8), bitmap(&mut plan, input.valid))).collect();
        let output = |plan: &mut Plan, bytes| {
            let region = plan.output(bytes);
            plan.zero(region);
            region
        };
        let state = output(&mut plan, STATE_WORDS * 4);
        let (group_keys, group_bins, group_rows) = (plan.output(cells), plan.output(cells), output(&mut plan, cells));
        let scratch_bins = plan.scratch(rows * 8);
        let slot_of = plan.scratch(rows * 4);
        let table = plan.scratch(slots as usize * 4);
        plan.zero(table);
        let group_of = plan.scratch(slots as usize * 4);

        let [width, shift] = batch.times.map_or([1, 0], |(_, windows)| [windows.width, windows.shift]);
        let bins = vec![or_null(times), or_null(selected), Arg::U32(count), Arg::I64(width), Arg::I64(shift), Arg::Region(scratch_bins), Arg::Region(state)];
        let find = vec![
            Arg::Region(keys),
            Arg::Region(scratch_bins),
            or_null(selected),
            Arg::U32(count),
            Arg::U32(most),
            Arg::U32(mask),
            Arg::Region(table),
            Arg::Region(slot_of),
            Arg::Region(state),
        ];
        let number = vec![
            Arg::Region(table),
            Arg::U32(mask),
            Arg::U32(most),
            Arg::Region(keys),
            Arg::Region(scratch_bins),
            Arg::Region(group_of),
            Arg::Region(group_keys),
            Arg::Region(group_bins),
            Arg::Region(state),
        ];
        let count_rows = vec![Arg::U32(count), Arg::Region(slot_of), Arg::Region(group_of), Arg::Region(state), Arg::Region(group_rows)];
        let number_blocks = (mask / BLOCK + 1).min(self.gpu.processors() * BLOCKS_EACH);
        // SAFETY: as the kernels' contract says: these are their arguments, in their order, and the sizes are those it names.
        unsafe {
            plan.launch(Kernel::AggregateBins, blocks, BLOCK, 0, bins);
            plan.launch(Kernel::AggregateSlots, blocks, BLOCK, 0, find);
            plan.launch(Kernel::AggregateNumber, number_blocks, BLOCK, 0, number);
            plan.launch(Kernel::AggregateRows, blocks, BLOCK, 0, count_rows);
        }
        let mut layouts = Vec::with_capacity(inputs.len());
        for (input, &(values, valid)) in batch.inputs.iter().zip(&inputs) {
            let [total, low, high, least, greatest] = std::array::from_fn(|_| output(&mut plan, cells));
            let sums = [total, low, high, least, greatest].map(Arg::Region);
            let common = [Arg::Region(values), or_null(valid), Arg::U32(count), Arg::Region(slot_of), Arg::Region(group_of), Arg::Region(state)];
            let float = match input.values {
                Values::Int64(_) => {
                    // SAFETY: as above.
                    unsafe { plan.launch(Kernel::AggregateI64, blocks, BLOCK, 0, common.into_iter().chain(sums).collect()) };
                    None
                }
                Values::Float64(_) => {
                    let (flags, exponents) = (output(&mut plan, cells / 2), output(&mut plan, cells / 2));
                    let scale = common.iter().cloned().chain([Arg::Region(exponents)]).collect();
                    let add = common.into_iter().chain([Arg::Region(exponents)]).chain(sums).chain([Arg::Region(flags)]).collect();
                    // SAFETY: as above.
                    unsafe {
                        plan.launch(Kernel::AggregateScale, blocks, BLOCK, 0, scale);
                        plan.launch(Kernel::AggregateF64, blocks, BLOCK, 0, add);
                    }
                    Some((flags, exponents))
                }
            };
            layouts.push(InputLayout { count: total, low, high, least, greatest, float });
        }

        let mut slot = self.gpu.slot(plan)?;
        let mut parts = vec![(keys, 0, bytes(batch.keys))];
        parts.extend(times.zip(batch.times).map(|(region, (times, _))| (region, 0, bytes(times))));
        parts.extend(batch.inputs.iter().zip(&inputs).map(|(input, &(region, _))| match input.values {
            Values::Int64(values) => (region, 0, bytes(values)),
            Values::Float64(values) => (region, 0, bytes(values)),
        }));
        slot.fill(&parts)?;
        let bitmaps = batch.inputs.iter().zip(&inputs).map(|(input, &(_, valid))| (valid, input.valid));
        for (region, bits) in bitmaps.chain([(selected, batch.selected)]) {
            if let (Some(region), Some(bits)) = (region, bits) {
                copy_bitmap(bits, rows, slot.write(region));
            }
        }
        let layout = Layout { state, keys: group_keys, bins: group_bins, rows: group_rows, inputs: layouts };
        Ok(Aggregating { ticket: slot.submit()?, most, layout })
    }
}

impl Aggregating {
    /// Waits for the groups.
    pub fn wait(self) -> Result<(Groups, Timing), AggregateError> {
        let (finished, layout) = (self.ticket.wait()?, &self.layout);
        let state: &[u32] = numbers(finished.output(layout.state));
        if state[RANGE] != 0 {
            return Err(AggregateError::Range);
        }
        if state[FULL] != 0 || state[GROUPS] > self.most {
            return Err(AggregateError::TooManyGroups(self.most));
        }
        let groups = state[GROUPS] as usize;
        let inputs = layout.inputs.iter().map(|input| input.read(&finished, groups)).collect();
        let result = Groups {
            keys: read(&finished, layout.keys, groups),
            bins: read(&finished, layout.bins, groups),
            rows: read(&finished, layout.rows, groups),
            inputs,
        };
        Ok((result.sorted(), finished.timing()))
    }
}

fn read<T: crate::plain::Plain>(finished: &Finished, region: Region, groups: usize) -> Vec<T> {
    numbers(finished.output(region))[..groups].to_vec()
}

impl InputLayout {
    fn read(&self, finished: &Finished, groups: usize) -> Aggregates {
        let cells = |region| -> Vec<u64> { read(finished, region, groups) };
        let (count, low, high) = (cells(self.count), cells(self.low), cells(self.high));
        let (least, greatest) = (cells(self.least), cells(self.greatest));
        let sum: Vec<i128> = low.iter().zip(&high).map(|(&low, &high)| (u128::from(low) | u128::from(high) << 64) as i128).collect();
        // Where there is no value, what the picture of no value stands for doesn't matter.
        let pick = |values: &[u64], of: fn(u64) -> u64| -> Vec<u64> {
            values.iter().zip(&count).map(|(&value, &count)| if count == 0 { 0 } else { of(value) }).collect()
        };
        match self.float {
            None => {
                let of = |picture: u64| picture ^ 1 << 63;
                let signed = |values: Vec<u64>| values.into_iter().map(|value| value as i64).collect();
                let (min, max) = (signed(pick(&least, |picture| !picture ^ 1 << 63)), signed(pick(&greatest, of)));
                Aggregates::Int64 { count, sum, min, max }
            }
            Some((flags, exponents)) => {
                let (flags, exponents): (Vec<u32>, Vec<u32>) = (read(finished, flags, groups), read(finished, exponents, groups));
                let sum = (0..groups).map(|group| float_sum::sum(sum[group], exponents[group], flags[group])).collect();
                let floats = |values: Vec<u64>| values.into_iter().map(f64::from_bits).collect();
                let (min, max) = (floats(pick(&least, |picture| float_bits(!picture))), floats(pick(&greatest, float_bits)));
                Aggregates::Float64 { count, sum, min, max }
            }
        }
    }
}

/// The bits of the float that an ascending picture stands for.
fn float_bits(picture: u64) -> u64 {
    if picture >> 63 == 1 { picture & !(1 << 63) } else { !picture }
}
