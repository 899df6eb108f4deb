//! The session's setting `tidegate.device`, and what it means on this machine.

use std::{fmt, str::FromStr};

use super::{GpuInfo, GpuStatus, GpuUnavailable};

/// What a session asks for: `SET tidegate.device = 'auto' | 'cpu' | 'gpu'`. It changes speed, never results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The GPU where there is one that can be used, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU, or an error.
    Gpu,
}

/// A device that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// The CPU.
    Cpu,
    /// The GPU with this ordinal.
    Gpu(usize),
}

/// A text that names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no device: tidegate.device is 'auto', 'cpu' or 'gpu'")]
pub struct UnknownDevice(pub String);

/// A GPU was asked for and can't be had. Every text is a clause that fits behind "no GPU: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceRefused {
    /// There is none.
    #[error("{0}")]
    NoGpu(GpuUnavailable),
    /// There are some, but no context can be made on any; this is what the first of them said.
    #[error("GPU {ordinal} ({name}) can't be used: {reason}")]
    Unusable {
        /// The GPU's ordinal.
        ordinal: usize,
        /// The GPU's name.
        name: String,
        /// Why it can't be used.
        reason: GpuUnavailable,
    },
    /// The driver can't load the kernels that are part of this program, and there is no compiler to make others.
    #[error(
        "the NVIDIA driver (CUDA {}.{}) is too old for the prebuilt kernels, and NVRTC, the compiler for others, \
         is not found; install a driver for CUDA 12.0 or newer, or libnvrtc (part of the CUDA toolkit, or the Python package \
         nvidia-cuda-nvrtc-cu12) in a folder of LD_LIBRARY_PATH", .driver_version.0, .driver_version.1
    )]
    NoKernels {
        /// The CUDA version that the driver supports, major and minor.
        driver_version: (u32, u32),
    },
}

impl Device {
    /// What the setting means on this machine. `gpus` is what [`super::probe`] or [`super::status`] said.
    pub fn resolve(self, gpus: &GpuStatus) -> Result<Chosen, DeviceRefused> {
        match (self, usable_gpu(gpus)) {
            (Device::Cpu, _) | (Device::Auto, Err(_)) => Ok(Chosen::Cpu),
            (Device::Auto | Device::Gpu, Ok(ordinal)) => Ok(Chosen::Gpu(ordinal)),
            (Device::Gpu, Err(refused)) => Err(refused),
        }
    }
}

/// The oldest CUDA version whose drivers load the prebuilt kernels.
const PREBUILT_FOR: (u32, u32) = (12, 0);

/// The usable GPU with the most free memory; the lower ordinal where two have the same.
fn usable_gpu(gpus: &GpuStatus) -> Result<usize, DeviceRefused> {
    let gpus = gpus.as_ref().map_err(|reason| DeviceRefused::NoGpu(reason.clone()))?;
    let free = |gpu: &GpuInfo| gpu.memory_free.as_ref().ok().copied();
    let best = gpus.iter().filter(|gpu| free(gpu).is_some()).max_by_key(|gpu| (free(gpu), std::cmp::Reverse(gpu.ordinal)));
    match (best, gpus.first()) {
        (Some(gpu), _) if gpu.has_nvrtc || gpu.driver_version >= PREBUILT_FOR => Ok(gpu.ordinal),
        (Some(gpu), _) => Err(DeviceRefused::NoKernels { driver_version: gpu.driver_version }),
        (None, Some(GpuInfo { ordinal, name, memory_free: Err(reason), .. })) => {
            Err(DeviceRefused::Unusable { ordinal: *ordinal, name: name.clone(), reason: reason.clone() })
        }
        (None, _) => Err(DeviceRefused::NoGpu(GpuUnavailable::NoDevice)),
    }
}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "gpu" => Ok(Device::Gpu),
            _ => Err(UnknownDevice(text.into())),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Auto => "auto",
            Device::Cpu => "cpu",
            Device::Gpu => "gpu",
        })
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chosen::Cpu => f.write_str("cpu"),
            Chosen::Gpu(ordinal) => write!(f, "gpu {ordinal}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn gpu(ordinal: usize, memory_free: Result<u64, GpuUnavailable>, has_nvrtc: bool) -> GpuInfo {
        let name = format!("card {ordinal}");
        GpuInfo { ordinal, name, compute_capability: (9, 0), memory_total: 80, memory_free, driver_version: (13, 0), has_nvrtc }
    }

    fn held() -> GpuUnavailable {
        GpuUnavailable::Driver { call: "cuDevicePrimaryCtxRetain", code: 46, name: Some("CUDA_ERROR_DEVICE_UNAVAILABLE".into()) }
    }

    #[test]
    fn texts_and_devices() {
        for device in [Device::Auto, Device::Cpu, Device::Gpu] {
            assert_eq!(device.to_string().parse(), Ok(device));
            assert_eq!(device.to_string().to_uppercase().parse(), Ok(device));
        }
        let error = "cuda".parse::<Device>().unwrap_err();
        assert_eq!(error.to_string(), "'cuda' is no device: tidegate.device is 'auto', 'cpu' or 'gpu'");
        assert_eq!(Device::default(), Device::Auto);
    }

    #[test]
    fn without_a_gpu_auto_is_the_cpu_and_gpu_says_why() {
        for reason in [GpuUnavailable::NoDriver, GpuUnavailable::NoDevice, GpuUnavailable::Stub, held()] {
            let gpus = Err(reason.clone());
            assert_eq!(Device::Auto.resolve(&gpus), Ok(Chosen::Cpu));
            assert_eq!(Device::Cpu.resolve(&gpus), Ok(Chosen::Cpu));
            let sentence = Device::Gpu.resolve(&gpus).unwrap_err().to_string();
            assert!(sentence.contains(&reason.to_string()), "{sentence}");
        }
        assert_eq!(Device::Gpu.resolve(&Ok(vec![])), Err(DeviceRefused::NoGpu(GpuUnavailable::NoDevice)));
    }

    #[test]
    fn the_freest_usable_gpu_is_chosen() {
        let gpus = Ok(vec![gpu(0, Err(held()), true), gpu(1, Ok(10), true), gpu(2, Ok(70), true), gpu(3, Ok(70), true)]);
        assert_eq!(Device::Gpu.resolve(&gpus), Ok(Chosen::Gpu(2)));
        assert_eq!(Device::Auto.resolve(&gpus), Ok(Chosen::Gpu(2)));
        assert_eq!(Device::Cpu.resolve(&gpus), Ok(Chosen::Cpu));
    }

    #[test]
    fn a_gpu_that_others_hold_is_not_used() {
        let gpus = Ok(vec![gpu(0, Err(held()), true)]);
        assert_eq!(Device::Auto.resolve(&gpus), Ok(Chosen::Cpu));
        let sentence = Device::Gpu.resolve(&gpus).unwrap_err().to_string();
        assert!(sentence.contains("GPU 0 (card 0)") && sentence.contains("CUDA_ERROR_DEVICE_UNAVAILABLE"), "{sentence}");
    }

    #[test]
    fn a_gpu_that_can_get_no_kernels_is_not_used() {
        let old = |has_nvrtc| Ok(vec![GpuInfo { driver_version: (11, 8), ..gpu(0, Ok(10), has_nvrtc) }]);
        assert_eq!(Device::Auto.resolve(&old(false)), Ok(Chosen::Cpu));
        let refused = Device::Gpu.resolve(&old(false)).unwrap_err();
        assert_eq!(refused, DeviceRefused::NoKernels { driver_version: (11, 8) });
        assert!(refused.to_string().contains("(CUDA 11.8) is too old for the prebuilt kernels"), "{refused}");
        // Either is enough: a compiler, or a driver that takes what is prebuilt.
        assert_eq!(Device::Gpu.resolve(&old(true)), Ok(Chosen::Gpu(0)));
        assert_eq!(Device::Gpu.resolve(&Ok(vec![gpu(0, Ok(10), false)])), Ok(Chosen::Gpu(0)));
    }
}
