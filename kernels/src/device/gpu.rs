//! A device that is open for work: its slots, and a batch's way through one.
//!
//! A caller takes a [`Slot`] with [`Gpu::slot`], writes the input straight into its pinned memory, submits it, and waits for the
//! [`Ticket`] or first fills another slot. There are a fixed number of slots, so a device's memory is bounded, and who comes when all are
//! taken waits. All of this blocks: call it from threads that may.

use std::{
    ffi::CString,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
};

use super::{
    DeviceError,
    image::{Images, Origin, Text},
    made::{MadeKernel, MadeKernels, Maker},
    plan::{Arg, Plan, Region, Run},
    resident::Resident,
    worker::{Arena, Call, Function, Opened, Request, Timing, Work, Worker},
};

/// A slot has at least this much memory.
const SMALLEST: usize = 1 << 16;

/// How a device is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many batches can be under way at once. Three overlap copying in, computing and copying out.
    pub slots: usize,
    /// How many bytes may be held on the device, and how many of pinned memory on the host.
    pub memory_limit: usize,
    /// Where compiled kernels are kept; `None` keeps none.
    pub cache: Option<PathBuf>,
    /// How many kernels that are made at run time may be loaded at once. Beyond that those go which nobody uses.
    pub made_kernels: usize,
    /// How many threads copy a large batch into pinned memory. One core copies about a tenth of what the bus carries.
    pub copiers: usize,
}

impl Default for Options {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { slots: 3, memory_limit: 4 << 30, cache: default_cache(), made_kernels: 256, copiers: cores.min(8) }
    }
}

/// The user's own cache folder, if there is one.
fn default_cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("tidegate").join("kernels"))
}

/// What a device is used for at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Bytes on the device.
    pub device_bytes: usize,
    /// Bytes of pinned memory on the host.
    pub host_bytes: usize,
    /// Slots there are.
    pub slots: usize,
    /// Slots that somebody has.
    pub busy: usize,
    /// Kernels that were made at run time.
    pub made_kernels: usize,
}

/// Counts what is held.
#[derive(Debug, Default)]
pub(super) struct Usage {
    device: AtomicUsize,
    host: AtomicUsize,
}

impl Usage {
    pub(super) fn give_back_device(&self, bytes: usize) {
        self.device.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A device that is open. Copies are handles of the same one; it is closed when all of them, their slots and their residents are gone.
#[derive(Debug, Clone)]
pub struct Gpu(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ordinal: usize,
    /// Tells this opening's residents from another's.
    opening: u64,
    opened: Opened,
    options: Options,
    requests: Option<Sender<Request>>,
    /// Slots that nobody has.
    idle: Mutex<Vec<Idle>>,
    freed: Condvar,
    usage: Arc<Usage>,
    /// Who makes a kernel has the lock until it is loaded, so that none is made twice.
    made: Mutex<MadeKernels>,
    /// How many there are, for those who don't want to wait for that.
    made_count: AtomicUsize,
    thread: Option<JoinHandle<()>>,
}

/// A slot that nobody has.
#[derive(Debug)]
struct Idle {
    number: usize,
    arena: Arena,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Without a sender the thread ends, unless residents have one. It is not waited for then, nor if it has panicked.
        self.requests = None;
        if let Some(thread) = self.thread.take().filter(|_| self.usage.device.load(Ordering::Relaxed) == 0 || self.only_arenas()) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Whether all that is held on the device is its slots'.
    fn only_arenas(&self) -> bool {
        self.idle().iter().map(|idle| idle.arena.device_bytes).sum::<usize>() == self.usage.device.load(Ordering::Relaxed)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // A list of slots is whole whatever a panicking holder did.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and waits for its reply.
    fn ask<T>(&self, request: impl FnOnce(Sender<Result<T, DeviceError>>) -> Request) -> Result<T, DeviceError> {
        let receiver = self.send(request)?;
        receiver.recv().map_err(|_| DeviceError::Ended(self.ordinal))?
    }

    fn send<T>(&self, request: impl FnOnce(Sender<Result<T, DeviceError>>) -> Request) -> Result<Receiver<Result<T, DeviceError>>, DeviceError> {
        let (reply, receiver) = mpsc::channel();
        let requests = self.requests.as_ref().ok_or(DeviceError::Ended(self.ordinal))?;
        requests.send(request(reply)).map_err(|_| DeviceError::Ended(self.ordinal))?;
        Ok(receiver)
    }

    /// Counts so many bytes as held, if that is within the limit.
    fn reserve(&self, held: &AtomicUsize, bytes: usize) -> Result<(), DeviceError> {
        let limit = self.options.memory_limit;
        let fits = |held: usize| held.checked_add(bytes).filter(|&sum| sum <= limit);
        let over = |held| DeviceError::OverLimit { ordinal: self.ordinal, wanted: bytes, held, limit };
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map(|_| ()).map_err(over)
    }
}

impl Gpu {
    /// Opens a device by its ordinal: makes its context, compiles or loads the kernels, starts its thread.
    pub fn open(ordinal: usize, options: Options) -> Result<Self, DeviceError> {
        static OPENINGS: AtomicU64 = AtomicU64::new(0);
        let (sender, requests) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let (slots, cache) = (options.slots.max(1), options.cache.clone());
        let thread = thread::Builder::new().name(format!("gpu-{ordinal}")).spawn(move || match Worker::open(ordinal, slots, cache) {
            Err(error) => {
                let _ = tell.send(Err(error));
            }
            Ok((worker, opened)) => {
                let _ = tell.send(Ok(opened));
                worker.serve(&requests);
            }
        });
        let thread = thread.map_err(|error| DeviceError::Unavailable(super::GpuUnavailable::Probe(format!("no thread could be started ({error})"))))?;
        let opened = told.recv().map_err(|_| DeviceError::Ended(ordinal))??;
        Ok(Self(Arc::new(Shared {
            ordinal,
            opening: OPENINGS.fetch_add(1, Ordering::Relaxed),
            opened,
            requests: Some(sender),
            idle: Mutex::new((0..slots).map(|number| Idle { number, arena: Arena::default() }).collect()),
            freed: Condvar::new(),
            usage: Arc::default(),
            made: Mutex::default(),
            made_count: AtomicUsize::new(0),
            thread: Some(thread),
            options,
        })))
    }

    /// Whether both are handles of the same opening of a device.
    pub fn is(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Its ordinal.
    pub fn ordinal(&self) -> usize {
        self.0.ordinal
    }

    /// How many multiprocessors it has.
    pub fn processors(&self) -> u32 {
        self.0.opened.processors
    }

    /// Each source's name and where its kernels came from.
    pub fn kernels(&self) -> &[(&'static str, Origin)] {
        &self.0.opened.origins
    }

    /// What is held of it.
    pub fn held(&self) -> Held {
        let slots = self.0.options.slots.max(1);
        let busy = slots - self.0.idle().len().min(slots);
        let (device_bytes, host_bytes) = (self.0.usage.device.load(Ordering::Relaxed), self.0.usage.host.load(Ordering::Relaxed));
        Held { device_bytes, host_bytes, slots, busy, made_kernels: self.0.made_count.load(Ordering::Relaxed) }
    }

    /// A kernel by its text and its name in the text: the one that is loaded, or else it is compiled and loaded. `kind` is what files of
    /// such kernels are called by on disk. The text is all that the compiler gets; it begins with the shared prelude.
    pub fn make(&self, kind: &'static str, text: &str, name: &str) -> Result<MadeKernel, DeviceError> {
        let shared = &self.0;
        let name = CString::new(name).map_err(|_| DeviceError::Kernels { ordinal: shared.ordinal, reason: format!("a kernel is named {name:?}") })?;
        // As with slots, what a panicking holder left is whole.
        let mut made = shared.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = made.find(text, &name) {
            return Ok(kernel);
        }
        let requests = shared.requests.as_ref().ok_or(DeviceError::Ended(shared.ordinal))?;
        let maker = Maker { ordinal: shared.ordinal, opening: shared.opening, requests, most: shared.options.made_kernels };
        let result = made.make(&maker, &Images::new(shared.opened.capability, shared.options.cache.as_deref()), &Text { kind, text }, name);
        shared.made_count.store(made.len(), Ordering::Relaxed);
        result
    }

    /// Puts bytes on the device that stay there.
    pub fn upload(&self, bytes: Vec<u8>) -> Result<Resident, DeviceError> {
        let len = bytes.len();
        self.0.reserve(&self.0.usage.device, len)?;
        let uploaded = self.0.ask(|reply| Request::Upload { bytes, reply }).inspect_err(|_| self.0.usage.give_back_device(len))?;
        let requests = self.0.requests.clone().ok_or(DeviceError::Ended(self.0.ordinal))?;
        Ok(Resident::new(uploaded, len, self.0.opening, requests, self.0.usage.clone()))
    }

    /// A slot with room for a plan. Waits while all are taken: who holds one and asks for another must not be all there is.
    pub fn slot(&self, plan: Plan) -> Result<Slot, DeviceError> {
        let mut idle = self.0.idle();
        let taken = loop {
            match idle.pop() {
                Some(taken) => break taken,
                None => idle = self.0.freed.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(idle);
        let mut slot = Slot { gpu: self.clone(), number: taken.number, arena: taken.arena, plan };
        slot.fit()?;
        Ok(slot)
    }
}

/// A part of a device's memory with a stream of its own, held by one caller for one batch.
#[derive(Debug)]
pub struct Slot {
    gpu: Gpu,
    number: usize,
    arena: Arena,
    plan: Plan,
}

impl Slot {
    /// Sees to it that the plan fits.
    fn fit(&mut self) -> Result<(), DeviceError> {
        let (host, device) = (self.plan.host_bytes(), self.plan.device_bytes());
        if host <= self.arena.host_bytes && device <= self.arena.device_bytes {
            return Ok(());
        }
        // Doubling, so that batches that grow slowly don't cost an allocation each.
        let rounded = |bytes: usize, had: usize| if bytes <= had { Some(had) } else { bytes.max(SMALLEST).checked_next_power_of_two() };
        let (Some(host), Some(device)) = (rounded(host, self.arena.host_bytes), rounded(device, self.arena.device_bytes)) else {
            return Err(DeviceError::Batch(format!("it takes {device} bytes")));
        };
        let (shared, usage) = (&self.gpu.0, &self.gpu.0.usage);
        // What the slot has goes before the new is made.
        let had = std::mem::take(&mut self.arena);
        usage.give_back_device(had.device_bytes);
        usage.host.fetch_sub(had.host_bytes, Ordering::Relaxed);
        let grown = shared.reserve(&usage.host, host).and_then(|()| {
            shared.reserve(&usage.device, device).inspect_err(|_| {
                usage.host.fetch_sub(host, Ordering::Relaxed);
            })?;
            shared.ask(|reply| Request::Grow { slot: self.number, host, device, reply }).inspect_err(|_| {
                usage.host.fetch_sub(host, Ordering::Relaxed);
                usage.give_back_device(device);
            })
        });
        self.arena = match grown {
            Ok(arena) => arena,
            Err(error) => {
                if let DeviceError::OverLimit { .. } = error {
                    // Nothing was asked of the thread: what the slot had is still its own.
                    usage.host.fetch_add(had.host_bytes, Ordering::Relaxed);
                    usage.device.fetch_add(had.device_bytes, Ordering::Relaxed);
                    self.arena = had;
                }
                return Err(error);
            }
        };
        Ok(())
    }

    /// Where a region that has bytes lies on the host. (A slot of which none were ever asked has no memory to point to.)
    fn filled_place(&self, region: Region) -> Option<std::ops::Range<usize>> {
        self.plan.host_place(region).filter(|place| !place.is_empty())
    }

    /// The bytes of an input region, to be filled. They hold rubbish of earlier batches.
    pub fn write(&mut self, region: Region) -> &mut [u8] {
        match self.filled_place(region) {
            // SAFETY: the place is within the arena, which `fit` made large enough and which nobody else uses while the slot is held.
            Some(place) => unsafe { std::slice::from_raw_parts_mut(self.arena.host.add(place.start), place.len()) },
            None => &mut [],
        }
    }

    /// Copies bytes into input regions, each part to so many bytes after the region's beginning; with several threads if there are many.
    pub fn fill(&mut self, parts: &[(Region, usize, &[u8])]) -> Result<(), DeviceError> {
        let wrong = || DeviceError::Batch("its parts overlap, or are larger than the regions they are for".into());
        let mut placed = Vec::with_capacity(parts.len());
        for &(region, at, bytes) in parts {
            let place = self.plan.host_place(region).filter(|place| at.checked_add(bytes.len()).is_some_and(|end| end <= place.len()));
            placed.push((place.ok_or_else(wrong)?.start + at, bytes));
        }
        placed.sort_unstable_by_key(|(start, bytes)| (*start, bytes.len()));
        if placed.windows(2).any(|pair| pair[0].0 + pair[0].1.len() > pair[1].0) {
            return Err(wrong());
        }
        // SAFETY: as in `write`; the parts don't overlap.
        let copies = placed
            .into_iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(start, bytes)| unsafe { (std::slice::from_raw_parts_mut(self.arena.host.add(start), bytes.len()), bytes) });
        copy(copies.collect(), self.gpu.0.options.copiers);
        Ok(())
    }

    /// The bytes of a region of the host.
    fn read(&self, region: Region) -> &[u8] {
        match self.filled_place(region) {
            // SAFETY: as in `write`; and nothing is in flight.
            Some(place) => unsafe { std::slice::from_raw_parts(self.arena.host.add(place.start), place.len()) },
            None => &[],
        }
    }

    /// Sends the batch off.
    pub fn submit(self) -> Result<Ticket, DeviceError> {
        let work = self.work()?;
        let reply = self.gpu.0.send(|reply| Request::Run { slot: self.number, work, reply })?;
        Ok(Ticket { slot: Some(self), reply })
    }

    /// The plan with addresses in place of regions.
    fn work(&self) -> Result<Work, DeviceError> {
        let address = |region: Region| self.arena.device + self.plan.place(region) as u64;
        let lower = |arg: &Arg| match arg {
            Arg::Region(region) => Ok(address(*region)),
            Arg::Resident(resident) => {
                let other = || DeviceError::Batch("it refers to something that was uploaded to another device, or before this one was lost".into());
                resident.address(self.gpu.0.opening).ok_or_else(other)
            }
            Arg::Null => Ok(0),
            Arg::U32(number) => Ok(u64::from(*number)),
            Arg::I64(number) => Ok(*number as u64),
        };
        let call = |launch: &super::plan::Launch| {
            let args = launch.args.iter().map(lower).collect::<Result<_, _>>()?;
            let function = match &launch.kernel {
                Run::Fixed(kernel) => Function::Fixed(*kernel),
                Run::Made(kernel) => {
                    let other = || DeviceError::Batch("its kernel was made for another device, or before this one was lost".into());
                    Function::Made(kernel.number(self.gpu.0.opening).ok_or_else(other)?)
                }
            };
            Ok(Call { function, blocks: launch.blocks, threads: launch.threads, shared: launch.shared, args })
        };
        Ok(Work {
            copy_in: self.plan.input_bytes(),
            copy_out: (self.plan.input_bytes(), self.plan.output_bytes()),
            zeroed: self.plan.zeroed.iter().map(|region| (address(*region), region.len())).collect(),
            launches: self.plan.launches.iter().map(call).collect::<Result<_, DeviceError>>()?,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gpu.0.idle().push(Idle { number: self.number, arena: self.arena });
        self.gpu.0.freed.notify_one();
    }
}

/// Less than this is copied by the thread that has it: starting others would take longer.
const WORTH_SHARING: usize = 2 << 20;
/// What a thread copies before it asks for more.
const SHARE: usize = 1 << 20;

fn copy(parts: Vec<(&mut [u8], &[u8])>, threads: usize) {
    let total: usize = parts.iter().map(|(_, from)| from.len()).sum();
    if threads < 2 || total < WORTH_SHARING {
        parts.into_iter().for_each(|(to, from)| to.copy_from_slice(from));
        return;
    }
    let shares = parts.into_iter().flat_map(|(to, from)| to.chunks_mut(SHARE).zip(from.chunks(SHARE)));
    let shares = Mutex::new(shares);
    let work = || {
        loop {
            let share = shares.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((to, from)) = share else { return };
            to.copy_from_slice(from);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(total.div_ceil(SHARE)) {
            // A thread that can't be had is done without.
            let _ = thread::Builder::new().name("gpu-copy".into()).spawn_scoped(scope, work);
        }
        work();
    });
}

/// A batch under way. Dropping it waits for its end, since the device reads and writes the slot's memory until then.
#[derive(Debug)]
pub struct Ticket {
    slot: Option<Slot>,
    reply: Receiver<Result<Timing, DeviceError>>,
}

impl Ticket {
    /// Waits for the batch.
    pub fn wait(mut self) -> Result<Finished, DeviceError> {
        let slot = self.slot.take();
        let ordinal = slot.as_ref().map_or(0, |slot| slot.gpu.0.ordinal);
        match (self.reply.recv(), slot) {
            (Ok(Ok(timing)), Some(slot)) => Ok(Finished { slot, timing }),
            (Ok(Err(error)), _) => Err(error),
            _ => Err(DeviceError::Ended(ordinal)),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.slot.is_some() {
            let _ = self.reply.recv();
        }
    }
}

/// A batch that is done. It holds its slot until it is dropped.
#[derive(Debug)]
pub struct Finished {
    slot: Slot,
    timing: Timing,
}

impl Finished {
    /// The bytes of an output region.
    pub fn output(&self, region: Region) -> &[u8] {
        self.slot.read(region)
    }

    /// How long it took on the device.
    pub fn timing(&self) -> Timing {
        self.timing
    }
}
