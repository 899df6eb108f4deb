//! Asks the driver once what there is. Whatever the driver does or lacks, the answer is a value.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use super::{GpuUnavailable, driver::Driver};

/// How long the driver may take. Starting eight GPUs without the persistence daemon takes more than ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// One GPU, as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its number among the devices that the driver shows to this process, from 0.
    pub ordinal: usize,
    /// Its maker's name for it.
    pub name: String,
    /// Compute capability, major and minor: (9, 0) is an H100.
    pub compute_capability: (u32, u32),
    /// Its memory in bytes.
    pub memory_total: u64,
    /// Its free memory in bytes when it was asked. An error if no context can be made on it, for instance since another process holds
    /// it exclusively: then it can't be used.
    pub memory_free: Result<u64, GpuUnavailable>,
    /// The CUDA version that the driver supports, major and minor.
    pub driver_version: (u32, u32),
    /// Whether NVRTC is found, the compiler that kernels are built with for just this device. Without it prebuilt ones are taken.
    pub has_nvrtc: bool,
}

/// What a probe found: at least one GPU, or why there is none.
pub type GpuStatus = Result<Vec<GpuInfo>, GpuUnavailable>;

/// Asks the driver for its devices. Never panics, and ends within a minute even if the driver hangs.
///
/// Takes a moment where there is a GPU (it makes and gives up a context on each); [`status`] asks once only.
pub fn probe() -> GpuStatus {
    let (sender, receiver) = mpsc::channel();
    // A thread of its own, since making a context changes the thread that does it, and a wedged driver never comes back.
    let asked = thread::Builder::new().name("device-probe".into()).spawn(move || {
        // Every symbol is checked before it is called, so nothing here is known to panic; should it all the same, that is an answer too.
        let answer = catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|panic| Err(GpuUnavailable::Probe(panic_text(&*panic))));
        // Nobody listens any more once the patience is used up.
        let _ = sender.send(answer);
    });
    if let Err(error) = asked {
        return Err(GpuUnavailable::Probe(format!("no thread could be started ({error})")));
    }
    match receiver.recv_timeout(PATIENCE) {
        Ok(answer) => answer,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(GpuUnavailable::Silent(PATIENCE)),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(GpuUnavailable::Probe("its thread ended without an answer".into())),
    }
}

/// The answer of the first [`probe`] of this process. Free memory is what was free then.
pub fn status() -> &'static GpuStatus {
    static STATUS: OnceLock<GpuStatus> = OnceLock::new();
    STATUS.get_or_init(probe)
}

fn ask() -> GpuStatus {
    let driver = Driver::load()?;
    // SAFETY: opens a library by its well-known name, which runs its initialisers, and closes it again.
    let has_nvrtc = unsafe { cudarc::nvrtc::sys::is_culib_present() };
    let driver_version = (driver.version as u32 / 1000, driver.version as u32 % 1000 / 10);
    (0..driver.count()?)
        .map(|ordinal| {
            let device = driver.device(ordinal)?;
            Ok(GpuInfo {
                ordinal,
                name: driver.name(device)?,
                compute_capability: driver.capability(device)?,
                memory_total: driver.memory_total(device)?,
                memory_free: driver.memory_free(device),
                driver_version,
                has_nvrtc,
            })
        })
        .collect()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string())).unwrap_or_else(|| "panicked".into())
}
