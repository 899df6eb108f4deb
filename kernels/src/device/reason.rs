//! Why there is no GPU to be had, as sentences for the person who asked for one.

use std::time::Duration;

/// Why no GPU can be used. Every text is a clause that fits behind "no GPU: ".
///
/// Made of plain values only. It never holds `cudarc`'s `DriverError`: formatting that calls into the driver, and panics without one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuUnavailable {
    /// The loader finds no CUDA driver library.
    #[error("no NVIDIA driver is installed (libcuda is not found); install the driver, or in a container pass the GPU through")]
    NoDriver,
    /// The driver library is there but lacks a function that the kernels need.
    #[error("the NVIDIA driver{} is too old: it has no {missing}; install a newer driver", version_clause(*.version))]
    DriverTooOld {
        /// The function that is missing.
        missing: &'static str,
        /// The CUDA version that the driver supports, as `major * 1000 + minor * 10`, if it can tell.
        version: Option<i32>,
    },
    /// The driver works and sees no device.
    #[error("the NVIDIA driver sees no GPU; check nvidia-smi, CUDA_VISIBLE_DEVICES, and that a container was given one")]
    NoDevice,
    /// `libcuda` is the stub that CUDA toolkits ship for linking.
    #[error("the libcuda found is the linking stub of a CUDA toolkit, not a driver; take its folder out of LD_LIBRARY_PATH")]
    Stub,
    /// The driver answered a call with an error.
    #[error("the NVIDIA driver answered {call} with error {code}{}; check nvidia-smi and the kernel log", name_clause(.name))]
    Driver {
        /// The driver function that was called.
        call: &'static str,
        /// The driver's `CUresult`.
        code: i32,
        /// The driver's own name for it, if it has one.
        name: Option<String>,
    },
    /// The driver did not answer in time, as a wedged GPU does; the thread that asked is left behind.
    #[error("the NVIDIA driver did not answer within {} s; check nvidia-smi and the kernel log", .0.as_secs())]
    Silent(Duration),
    /// The probe itself failed.
    #[error("the device probe failed: {0}; please report it")]
    Probe(String),
}

fn version_clause(version: Option<i32>) -> String {
    version.map_or(String::new(), |v| format!(" (CUDA {}.{})", v / 1000, v % 1000 / 10))
}

fn name_clause(name: &Option<String>) -> String {
    name.as_ref().map_or(String::new(), |name| format!(" ({name})"))
}
