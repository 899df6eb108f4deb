//! Is there a GPU, what is it, and which device does `SET tidegate.device` mean.
//!
//! [`probe`] asks the driver, [`status`] remembers its first answer, [`Device::resolve`] turns a session's wish into a device.

mod choice;
mod driver;
mod probe;
mod reason;

pub use self::{
    choice::{Chosen, Device, DeviceRefused, UnknownDevice},
    probe::{GpuInfo, GpuStatus, probe, status},
    reason::GpuUnavailable,
};
