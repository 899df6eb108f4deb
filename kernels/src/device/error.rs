//! Why work on a device didn't come to its end, as sentences.

use super::{GpuUnavailable, calls::Failure};

/// Why a batch was not done on the device. Whatever the reason, the batch can be done by the kernel's CPU reference with the same result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is no device to be had.
    #[error("{0}")]
    Unavailable(GpuUnavailable),
    /// The device has stopped working for this process: a kernel failed, it fell off the bus, or its driver was restarted. What was on it is
    /// gone, and this handle answers everything with this error; another [`super::Gpu::open`] may succeed later.
    #[error("GPU {ordinal} is lost: the driver answered {call} with error {code}{}; its work is redone on the CPU", name_clause(.name))]
    Lost {
        /// The device.
        ordinal: usize,
        /// The driver function that showed it.
        call: &'static str,
        /// The driver's `CUresult`.
        code: i32,
        /// The driver's own name for it, if it has one.
        name: Option<String>,
    },
    /// The device's thread is gone, which is a fault of this program.
    #[error("the thread of GPU {0} has ended unexpectedly; please report it")]
    Ended(usize),
    /// The device or the host has not that much memory to give.
    #[error("GPU {ordinal} has no room for {bytes} bytes of {what}; make batches smaller, or give other programs on it less memory")]
    OutOfMemory {
        /// The device.
        ordinal: usize,
        /// How much was asked for.
        bytes: usize,
        /// What for.
        what: &'static str,
    },
    /// More memory than this program allows itself on the device.
    #[error("a batch needs {wanted} bytes on GPU {ordinal} beyond the {held} that are held, and {limit} are allowed; make batches smaller or raise the limit")]
    OverLimit {
        /// The device.
        ordinal: usize,
        /// How much more was asked for.
        wanted: usize,
        /// How much is held.
        held: usize,
        /// How much may be.
        limit: usize,
    },
    /// The kernels can't be loaded, neither compiled here nor as they were compiled beforehand.
    #[error("GPU {ordinal} can't load its kernels: {reason}")]
    Kernels {
        /// The device.
        ordinal: usize,
        /// What the driver or compiler said.
        reason: String,
    },
    /// A kernel that is made at run time can't be, for want of a compiler.
    #[error("GPU {ordinal} can't be given kernels that are made at run time: {reason}; install NVRTC, which is part of the CUDA toolkit")]
    NoCompiler {
        /// The device.
        ordinal: usize,
        /// Why there is none.
        reason: String,
    },
    /// More kernels that were made at run time are in use than may be loaded.
    #[error("GPU {ordinal} has {most} kernels in use that were made at run time, which is as many as may be")]
    TooManyKernels {
        /// The device.
        ordinal: usize,
        /// How many may be.
        most: usize,
    },
    /// The batch is larger than a kernel's numbers can count, or its parts don't fit together.
    #[error("a batch can't be done on a GPU: {0}")]
    Batch(String),
}

impl DeviceError {
    /// Whether the device is gone, so that its handle is of no more use.
    pub fn is_lost(&self) -> bool {
        matches!(self, DeviceError::Lost { .. } | DeviceError::Ended(_))
    }

    pub(super) fn lost(ordinal: usize, failure: Failure) -> Self {
        DeviceError::Lost { ordinal, call: failure.call, code: failure.code, name: failure.name }
    }
}

fn name_clause(name: &Option<String>) -> String {
    name.as_ref().map_or(String::new(), |name| format!(" ({name})"))
}
