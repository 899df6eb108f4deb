//! Is there a GPU, which device does `SET tidegate.device` mean, and how is work done on one.
//!
//! [`probe`] asks the driver, [`status`] remembers its first answer, [`Device::resolve`] turns a session's wish into a device.
//!
//! [`Gpu::open`] opens a device. What a kernel is to do is a [`Plan`]; its batch goes through a [`Slot`]. A device that fails is lost
//! ([`DeviceError::Lost`]): nothing of value was on it, the batch is redone on the CPU, and later the device may be opened again.

mod calls;
mod choice;
mod driver;
mod error;
mod gpu;
mod image;
mod kernel;
mod made;
mod nvrtc;
mod plan;
mod probe;
mod reason;
mod resident;
mod worker;

pub(crate) use self::plan::row_count;
pub use self::{
    choice::{Chosen, Device, DeviceRefused, UnknownDevice},
    error::DeviceError,
    gpu::{Finished, Gpu, Held, Options, Slot, Ticket},
    image::Origin,
    kernel::{Kernel, SOURCES, Source},
    made::MadeKernel,
    nvrtc::{Nvrtc, Target},
    plan::{Arg, Plan, Region, Run},
    probe::{GpuInfo, GpuStatus, probe, status},
    reason::GpuUnavailable,
    resident::Resident,
    worker::Timing,
};
