//! A model on a device, and a batch of rows on its way through it.

use super::Model;
use crate::{
    device::{Arg, DeviceError, Finished, Gpu, Kernel, Plan, Region, Slot, Ticket, Timing, row_count},
    plain::{bytes, numbers, numbers_mut},
};

/// Rows that one block of threads scores.
const BLOCK: u32 = 128;
/// Shared memory that a block of threads may use for its rows, so that several blocks fit a multiprocessor.
const MOST_STAGED: usize = 32 << 10;

/// What a model puts on a device. Only this crate's models can, since a kernel goes by what they have checked.
pub trait OnDevice {
    /// Puts it there.
    #[doc(hidden)]
    fn upload(&self, gpu: &Gpu) -> Result<Resources, DeviceError>;
}

/// A model's part of a launch.
#[derive(Debug, Clone)]
pub struct Resources {
    pub(super) kernel: Kernel,
    /// The kernel's arguments between the rows and where their scores go.
    pub(super) args: Vec<Arg>,
    /// Whether the kernel takes rows from shared memory if they fit, and so has an argument that says whether they do.
    pub(super) stages: bool,
}

/// A model on a device.
#[derive(Debug, Clone)]
pub struct DeviceModel {
    width: usize,
    outputs: usize,
    resources: Resources,
    /// Given up last: closing a device waits for its thread if nothing is left on it.
    gpu: Gpu,
}

/// Rows being scored.
#[derive(Debug)]
pub struct Scoring {
    ticket: Ticket,
    scores: Region,
}

/// Rows that were scored.
#[derive(Debug)]
pub struct Scored {
    finished: Finished,
    scores: Region,
}

/// Cells from one column's beginning to the next one's: a column begins at a multiple of 16 bytes.
fn stride(rows: usize) -> usize {
    rows.next_multiple_of(2)
}

impl DeviceModel {
    /// Puts a model on a device.
    pub fn new(gpu: &Gpu, model: &(impl Model + ?Sized)) -> Result<Self, DeviceError> {
        Ok(Self { gpu: gpu.clone(), width: model.width(), outputs: model.outputs(), resources: model.upload(gpu)? })
    }

    /// Begins to score rows, given as [`Model::score`] takes them.
    pub fn begin(&self, columns: &[&[f64]]) -> Result<Scoring, DeviceError> {
        let rows = columns.first().map_or(0, |column| column.len());
        if columns.len() != self.width || columns.iter().any(|column| column.len() != rows) {
            return Err(DeviceError::Batch(format!("the model takes {} columns of one length", self.width)));
        }
        let (mut slot, x, scores) = self.prepare(rows)?;
        let column_bytes = stride(rows) * 8;
        let parts: Vec<_> = columns.iter().enumerate().map(|(feature, column)| (x, feature * column_bytes, bytes(column))).collect();
        slot.fill(&parts)?;
        Ok(Scoring { ticket: slot.submit()?, scores })
    }

    /// Begins to score rows that `fill` writes where the device takes them from, which spares a copy: it is called for each feature with
    /// the cells of that feature's column, which hold rubbish.
    pub fn begin_in_place(&self, rows: usize, mut fill: impl FnMut(usize, &mut [f64])) -> Result<Scoring, DeviceError> {
        let (mut slot, x, scores) = self.prepare(rows)?;
        if rows > 0 {
            let cells: &mut [f64] = numbers_mut(slot.write(x));
            cells.chunks_exact_mut(stride(rows)).enumerate().for_each(|(feature, cells)| fill(feature, &mut cells[..rows]));
        }
        Ok(Scoring { ticket: slot.submit()?, scores })
    }

    /// A slot for so many rows, with where the features and the scores are.
    fn prepare(&self, rows: usize) -> Result<(Slot, Region, Region), DeviceError> {
        let (count, stride) = (row_count(rows)?, stride(rows));
        let mut plan = Plan::default();
        let x = plan.input(stride * self.width * 8);
        let scores = plan.output(rows * self.outputs * 8);
        let Resources { kernel, args: of_model, stages } = &self.resources;
        let mut args = vec![Arg::Region(x), Arg::U32(count), Arg::U32(stride as u32), Arg::U32(self.width as u32)];
        args.extend_from_slice(of_model);
        let mut shared = 0;
        if *stages {
            let bytes = self.width * BLOCK as usize * 8;
            let staged = bytes <= MOST_STAGED;
            args.push(Arg::U32(staged.into()));
            shared = if staged { bytes as u32 } else { 0 };
        }
        args.push(Arg::Region(scores));
        if count > 0 {
            // SAFETY: as the kernel's contract says; the model was checked when it was made.
            unsafe { plan.launch(*kernel, count.div_ceil(BLOCK), BLOCK, shared, args) };
        }
        Ok((self.gpu.slot(plan)?, x, scores))
    }

    /// Scores rows: what [`Model::score`] gives, to the bit.
    pub fn score(&self, columns: &[&[f64]]) -> Result<Vec<f64>, DeviceError> {
        Ok(self.begin(columns)?.wait()?.scores().to_vec())
    }
}

impl Scoring {
    /// Waits for the scores.
    pub fn wait(self) -> Result<Scored, DeviceError> {
        Ok(Scored { finished: self.ticket.wait()?, scores: self.scores })
    }
}

impl Scored {
    /// The scores, row after row.
    pub fn scores(&self) -> &[f64] {
        numbers(self.finished.output(self.scores))
    }

    /// How long it took on the device.
    pub fn timing(&self) -> Timing {
        self.finished.timing()
    }
}
