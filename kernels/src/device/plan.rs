//! What is to be done with one batch, as plain data: regions of memory, what is put where, which kernels run over them.
//!
//! A plan's memory is one stretch, `input | output | scratch`, the same on the host (without scratch) and on the device, so that a batch
//! is copied in by one call and out by one call however many arrays it has: a call costs as much as copying a few hundred KiB.

use super::{DeviceError, kernel::Kernel, made::MadeKernel, resident::Resident};

/// Regions begin at multiples of this: a warp's 32 lanes times eight bytes.
const ALIGNMENT: usize = 256;

/// A stretch of a plan's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    area: Area,
    offset: usize,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Area {
    Input,
    Output,
    Scratch,
}

/// An argument of a kernel.
#[derive(Debug, Clone)]
pub enum Arg {
    /// The device's address of a region.
    Region(Region),
    /// The device's address of something uploaded before.
    Resident(Resident),
    /// No address.
    Null,
    /// A 32-bit number.
    U32(u32),
    /// A 64-bit number.
    I64(i64),
}

/// A kernel to be run.
#[derive(Debug, Clone)]
pub enum Run {
    /// One that every device has.
    Fixed(Kernel),
    /// One that was made at run time.
    Made(MadeKernel),
}

impl From<Kernel> for Run {
    fn from(kernel: Kernel) -> Self {
        Run::Fixed(kernel)
    }
}

impl From<MadeKernel> for Run {
    fn from(kernel: MadeKernel) -> Self {
        Run::Made(kernel)
    }
}

/// One launch of a kernel.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) kernel: Run,
    pub(super) blocks: u32,
    pub(super) threads: u32,
    /// Bytes of dynamic shared memory.
    pub(super) shared: u32,
    pub(super) args: Vec<Arg>,
}

/// What is done with a batch, in order: the input is copied in, regions are zeroed, kernels run, the output is copied out.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    input: usize,
    output: usize,
    scratch: usize,
    pub(super) zeroed: Vec<Region>,
    pub(super) launches: Vec<Launch>,
}

impl Plan {
    /// A region that the caller fills and kernels read.
    pub fn input(&mut self, bytes: usize) -> Region {
        Self::region(Area::Input, &mut self.input, bytes)
    }

    /// A region that kernels fill and the caller reads.
    pub fn output(&mut self, bytes: usize) -> Region {
        Self::region(Area::Output, &mut self.output, bytes)
    }

    /// A region for kernels alone.
    pub fn scratch(&mut self, bytes: usize) -> Region {
        Self::region(Area::Scratch, &mut self.scratch, bytes)
    }

    fn region(area: Area, used: &mut usize, bytes: usize) -> Region {
        let region = Region { area, offset: *used, len: bytes };
        *used = used.saturating_add(bytes).saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        region
    }

    /// Has a region zeroed before the first launch. Without, it holds rubbish.
    pub fn zero(&mut self, region: Region) {
        self.zeroed.push(region);
    }

    /// Has a kernel run, after those launched before it.
    ///
    /// # Safety
    ///
    /// The arguments are those of the kernel, and its memory contract holds for what they point to. (A kernel that breaks out of its
    /// regions costs the device, or silently another batch's data.)
    pub unsafe fn launch(&mut self, kernel: impl Into<Run>, blocks: u32, threads: u32, shared: u32, args: Vec<Arg>) {
        self.launches.push(Launch { kernel: kernel.into(), blocks, threads, shared, args });
    }

    /// Bytes on the host.
    pub fn host_bytes(&self) -> usize {
        self.input.saturating_add(self.output)
    }

    /// Bytes on the device.
    pub fn device_bytes(&self) -> usize {
        self.host_bytes().saturating_add(self.scratch)
    }

    pub(super) fn input_bytes(&self) -> usize {
        self.input
    }

    pub(super) fn output_bytes(&self) -> usize {
        self.output
    }

    /// Where a region begins in the plan's memory.
    pub(super) fn place(&self, region: Region) -> usize {
        region.offset
            + match region.area {
                Area::Input => 0,
                Area::Output => self.input,
                Area::Scratch => self.host_bytes(),
            }
    }

    /// Where a region lies in the host's memory, if it is there and of this plan.
    pub(super) fn host_place(&self, region: Region) -> Option<std::ops::Range<usize>> {
        let within = match region.area {
            Area::Input => self.input,
            Area::Output => self.output,
            Area::Scratch => return None,
        };
        let place = self.place(region);
        (region.offset + region.len <= within).then_some(place..place + region.len)
    }
}

impl Region {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A batch's rows as kernels count them.
pub(crate) fn row_count(rows: usize) -> Result<u32, DeviceError> {
    u32::try_from(rows).ok().filter(|&rows| rows <= MOST_ROWS).ok_or_else(|| DeviceError::Batch(format!("it has {rows} rows, and at most {MOST_ROWS} fit")))
}

/// More rows are no batch; and sums of 2^32 values are what the aggregation's 128 bits hold.
const MOST_ROWS: u32 = 1 << 30;
