//! The GPU that this process uses, if there is one: opened once, given up when it is lost, tried again later, and what was done on it.
//!
//! Where work is placed is a matter of speed alone. Whoever places some asks here for a GPU, and does it on the CPU where there is none.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tidegate_kernels::device::{Chosen, Device, DeviceError, Gpu, Options, Timing, status};

/// A GPU that was lost, or could not be opened, is left alone for so long.
const RETRY: Duration = Duration::from_secs(10);

/// The GPU of this process.
#[derive(Debug, Default)]
pub struct Devices {
    state: Mutex<State>,
    /// Whether the last batch failed.
    failing: AtomicBool,
    /// What was done on it.
    pub totals: Totals,
}

#[derive(Debug, Default)]
enum State {
    /// Nobody has asked for it yet.
    #[default]
    Unopened,
    /// It works.
    Open(Gpu),
    /// It does not, for this reason, since then.
    Closed { reason: String, since: Instant },
}

/// What was done on the GPU since the server started.
#[derive(Debug, Default)]
pub struct Totals {
    /// Batches of records.
    pub batches: AtomicU64,
    /// Records in them.
    pub rows: AtomicU64,
    /// Payload bytes that were copied in.
    pub bytes: AtomicU64,
    /// Records that it left to the CPU.
    pub left_over: AtomicU64,
    /// Nanoseconds of copying in, by its own clock.
    pub copy_in_ns: AtomicU64,
    /// Nanoseconds of computing, by its own clock.
    pub compute_ns: AtomicU64,
    /// Nanoseconds of copying out, by its own clock.
    pub copy_out_ns: AtomicU64,
    /// Nanoseconds that threads have waited for it.
    pub wait_ns: AtomicU64,
    /// Batches that failed, and were done on the CPU.
    pub failed: AtomicU64,
    /// How often it was lost.
    pub lost: AtomicU64,
}

/// A batch that was done on the GPU.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Records in it.
    pub rows: usize,
    /// Payload bytes that were copied in.
    pub bytes: usize,
    /// Records that were left to the CPU.
    pub left_over: usize,
    /// How long it took there.
    pub timing: Timing,
    /// How long it was waited for.
    pub waited: Duration,
}

/// The ordinal of the GPU to use; `Err`: why there is none, as a clause. Asks the driver the first time.
fn chosen() -> Result<usize, String> {
    match Device::Gpu.resolve(status()) {
        Ok(Chosen::Gpu(ordinal)) => Ok(ordinal),
        Ok(Chosen::Cpu) => Err("there is none".into()),
        Err(refused) => Err(refused.to_string()),
    }
}

impl Devices {
    /// Those of this process.
    pub fn get() -> &'static Arc<Self> {
        static DEVICES: OnceLock<Arc<Devices>> = OnceLock::new();
        DEVICES.get_or_init(Arc::default)
    }

    /// The GPU, opened if it is not. `Err`: why there is none, as a clause. Takes seconds where kernels have to be compiled: call it from a thread that may wait.
    pub fn gpu(&self) -> Result<Gpu, String> {
        let mut state = self.state.lock();
        match &*state {
            State::Open(gpu) => return Ok(gpu.clone()),
            State::Closed { reason, since } if since.elapsed() < RETRY => return Err(reason.clone()),
            State::Unopened | State::Closed { .. } => {}
        }
        match chosen().and_then(|ordinal| Gpu::open(ordinal, Options::default()).map_err(|error| error.to_string())) {
            Ok(gpu) => {
                tracing::info!(ordinal = gpu.ordinal(), "GPU opened");
                *state = State::Open(gpu.clone());
                Ok(gpu)
            }
            Err(reason) => {
                *state = State::Closed { reason: reason.clone(), since: Instant::now() };
                Err(reason)
            }
        }
    }

    /// The GPU, if it is open; else it is opened meanwhile, for whoever asks later.
    pub fn ready(self: &Arc<Self>) -> Option<Gpu> {
        // Who holds the lock may be opening it.
        match &*self.state.try_lock()? {
            State::Open(gpu) => return Some(gpu.clone()),
            State::Closed { since, .. } if since.elapsed() < RETRY => return None,
            State::Unopened | State::Closed { .. } => {}
        }
        let devices = self.clone();
        // A thread that can't be had now can be later.
        let _ = std::thread::Builder::new().name("open GPU".into()).spawn(move || devices.gpu().map(|_| ()));
        None
    }

    /// What the GPU is doing, without opening it: `None` if nobody has used it yet.
    pub fn seen(&self) -> Option<Result<Gpu, String>> {
        match &*self.state.lock() {
            State::Unopened => None,
            State::Open(gpu) => Some(Ok(gpu.clone())),
            State::Closed { reason, .. } => Some(Err(reason.clone())),
        }
    }

    /// What a GPU would be called, if there is one to be had; `Err`: why there is none, as a clause. Asks the driver the first time.
    pub fn looked_for(&self) -> Result<String, String> {
        if let State::Closed { reason, .. } = &*self.state.lock() {
            return Err(reason.clone());
        }
        chosen().map(|ordinal| format!("gpu {ordinal}"))
    }

    /// A batch was done on it.
    pub fn done(&self, done: &Done) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the GPU works again");
        }
        let totals = &self.totals;
        let add = |total: &AtomicU64, more: u64| _ = total.fetch_add(more, Ordering::Relaxed);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        add(&totals.batches, 1);
        add(&totals.rows, done.rows as u64);
        add(&totals.bytes, done.bytes as u64);
        add(&totals.left_over, done.left_over as u64);
        add(&totals.copy_in_ns, nanos(done.timing.copy_in));
        add(&totals.compute_ns, nanos(done.timing.compute));
        add(&totals.copy_out_ns, nanos(done.timing.copy_out));
        add(&totals.wait_ns, nanos(done.waited));
    }

    /// Whether a GPU is no more, since it was lost.
    pub fn is_lost(&self, gpu: &Gpu) -> bool {
        self.totals.lost.load(Ordering::Relaxed) > 0 && !matches!(&*self.state.lock(), State::Open(open) if open.is(gpu))
    }

    /// A batch failed on it, and is done on the CPU. A GPU that is lost is given up, and opened again later.
    pub fn failed(&self, gpu: &Gpu, error: &DeviceError) {
        self.totals.failed.fetch_add(1, Ordering::Relaxed);
        if !error.is_lost() {
            // Said once, not with each batch until it works again.
            if !self.failing.swap(true, Ordering::Relaxed) {
                tracing::warn!("{error}; it is done on the CPU");
            }
            return;
        }
        let mut state = self.state.lock();
        // Several batches may have been on it.
        if matches!(&*state, State::Open(open) if open.is(gpu)) {
            tracing::error!("{error}; it is tried again in {} s", RETRY.as_secs());
            self.totals.lost.fetch_add(1, Ordering::Relaxed);
            *state = State::Closed { reason: error.to_string(), since: Instant::now() };
        }
    }
}
