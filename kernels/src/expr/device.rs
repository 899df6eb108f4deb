//! Programs on a device.

use super::{
    batch::{Batch, Buffer, Column, EvaluateError, Evaluated, Faults, Projected, Values},
    generate::{BLOCK, KERNEL},
    program::Program,
    value::{Type, bitmap_bytes},
};
use crate::{
    device::{Arg, DeviceError, Finished, Gpu, MadeKernel, Plan, Region, Slot, Ticket, Timing, row_count},
    plain::{bytes, copy_bitmap, numbers},
};

/// Blocks per multiprocessor: as many as it holds at once.
const BLOCKS_EACH: u32 = 8;

/// A program whose kernel is on a device.
#[derive(Debug, Clone)]
pub struct DeviceProgram {
    program: Program,
    kernel: MadeKernel,
    gpu: Gpu,
}

/// A batch being evaluated.
#[derive(Debug)]
pub struct Evaluating {
    ticket: Ticket,
    rows: usize,
    faults: Region,
    selected: Option<Region>,
    results: Vec<(Type, Region, Region)>,
}

impl DeviceProgram {
    /// Has a program's kernel compiled, unless the device has it. This takes a part of a second, so it is for when a query begins.
    /// Without a compiler on this machine it is [`DeviceError::NoCompiler`].
    pub fn new(gpu: &Gpu, program: &Program) -> Result<Self, DeviceError> {
        let kernel = gpu.make("expr", program.text(), KERNEL)?;
        Ok(Self { program: program.clone(), kernel, gpu: gpu.clone() })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Evaluates a batch: what [`super::evaluate`] gives, to the bit.
    pub fn evaluate(&self, batch: &Batch<'_>) -> Result<Evaluated, EvaluateError> {
        Ok(self.begin(batch)?.wait()?.0)
    }

    /// Begins to evaluate a batch.
    pub fn begin(&self, batch: &Batch<'_>) -> Result<Evaluating, EvaluateError> {
        batch.check(&self.program)?;
        let (rows, count) = (batch.rows, row_count(batch.rows)?);
        let (mut plan, bitmap) = (Plan::default(), bitmap_bytes(rows));
        let columns: Vec<&Column<'_>> = self.program.columns().iter().map(|&(number, _)| &batch.columns[number]).collect();
        let inputs: Vec<(Region, Option<Region>)> =
            columns.iter().map(|column| (plan.input(column.data_type().bytes(rows)), column.valid.map(|_| plan.input(bitmap)))).collect();
        let faults = plan.output(4);
        plan.zero(faults);
        let selected = self.program.filter().map(|_| plan.output(bitmap));
        let projections = self.program.projections().iter().map(|projection| projection.data_type());
        let results: Vec<(Type, Region, Region)> = projections.map(|of| (of, plan.output(of.bytes(rows)), plan.output(bitmap))).collect();

        let mut args = vec![Arg::U32(count), Arg::Region(faults)];
        args.extend(selected.map(Arg::Region));
        for &(values, valid) in &inputs {
            args.extend([Arg::Region(values), valid.map_or(Arg::Null, Arg::Region)]);
        }
        args.extend(results.iter().flat_map(|&(_, values, valid)| [Arg::Region(values), Arg::Region(valid)]));
        let blocks = count.div_ceil(BLOCK).clamp(1, self.gpu.processors() * BLOCKS_EACH);
        // SAFETY: these are the arguments of the generated kernel in its order, and the sizes are those that its contract names.
        unsafe { plan.launch(self.kernel.clone(), blocks, BLOCK, 0, args) };

        let mut slot = self.gpu.slot(plan)?;
        let parts = columns.iter().zip(&inputs).filter_map(|(column, &(region, _))| match column.values {
            Values::Boolean(_) => None,
            Values::Int32(values) => Some((region, 0, bytes(values))),
            Values::Int64(values) => Some((region, 0, bytes(values))),
            Values::Float64(values) => Some((region, 0, bytes(values))),
        });
        slot.fill(&parts.collect::<Vec<_>>())?;
        let copy = |slot: &mut Slot, bits: &[u8], region| copy_bitmap(bits, rows, slot.write(region));
        for (column, &(values, valid)) in columns.iter().zip(&inputs) {
            if let Values::Boolean(bits) = column.values {
                copy(&mut slot, bits, values);
            }
            if let (Some(bits), Some(region)) = (column.valid, valid) {
                copy(&mut slot, bits, region);
            }
        }
        Ok(Evaluating { ticket: slot.submit()?, rows, faults, selected, results })
    }
}

impl Evaluating {
    /// Waits for the results.
    pub fn wait(self) -> Result<(Evaluated, Timing), EvaluateError> {
        let finished = self.ticket.wait()?;
        let faults = Faults::of_bits(numbers::<u32>(finished.output(self.faults)).first().copied().unwrap_or(0));
        if !faults.is_empty() {
            return Err(EvaluateError::GivenBack(faults));
        }
        let selected = self.selected.map(|region| finished.output(region).to_vec());
        let results = self.results.iter().map(|&(of, values, valid)| read(&finished, self.rows, of, values, valid)).collect();
        Ok((Evaluated { selected, results }, finished.timing()))
    }
}

fn read(finished: &Finished, rows: usize, of: Type, values: Region, valid: Region) -> Projected {
    let values = finished.output(values);
    let values = match of {
        Type::Boolean => Buffer::Boolean(values.to_vec()),
        Type::Int32 => Buffer::Int32(numbers(values)[..rows].to_vec()),
        Type::Int64 => Buffer::Int64(numbers(values)[..rows].to_vec()),
        Type::Float64 => Buffer::Float64(numbers(values)[..rows].to_vec()),
    };
    Projected { values, valid: finished.output(valid).to_vec() }
}
