//! The thread that owns a device: its context, its streams, all its memory. Nothing else calls the driver for work.
//!
//! It takes requests from a channel and keeps several batches in flight, each on its slot's stream, so that one is copied in while
//! another is computed and a third copied out. It ends when nobody holds the device any more, and gives everything back then.

use std::{
    collections::{HashMap, VecDeque},
    ffi::{CStr, CString, c_int, c_void},
    path::PathBuf,
    ptr,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use super::{
    DeviceError, GpuUnavailable,
    calls::{Calls, Failure, OUT_OF_MEMORY},
    driver::Driver,
    image::{Images, Origin},
    kernel::{Kernel, SOURCES},
};

/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`, and those of the compute capability.
const PROCESSORS: c_int = 16;
const CAPABILITY: [c_int; 2] = [75, 76];
/// `CU_STREAM_NON_BLOCKING`: nothing waits for the default stream.
const NON_BLOCKING: u32 = 1;

/// What the driver answers when it has something against an image: `CUDA_ERROR_INVALID_IMAGE` and those after it.
const IMAGE_FAULTS: std::ops::Range<i32> = 200..300;
/// `CUDA_ERROR_NOT_FOUND`: the image has no such function.
const NOT_FOUND: i32 = 500;

/// For how long the thread asks without a pause whether a batch is done; after that it sleeps in between.
const EAGER: Duration = Duration::from_micros(200);
const PAUSE: Duration = Duration::from_micros(50);

/// What the thread is asked for. A reply that nobody waits for any more is dropped.
pub(super) enum Request {
    /// Memory for a slot, in place of what it had.
    Grow { slot: usize, host: usize, device: usize, reply: Sender<Result<Arena, DeviceError>> },
    /// A batch on a slot.
    Run { slot: usize, work: Work, reply: Sender<Result<Timing, DeviceError>> },
    /// Bytes that stay on the device: where they are.
    Upload { bytes: Vec<u8>, reply: Sender<Result<u64, DeviceError>> },
    /// Gives up what was uploaded.
    Forget(u64),
    /// A kernel that was made at run time, by its name in an image: its number.
    Load { image: Vec<u8>, name: CString, reply: Sender<Result<u64, DeviceError>> },
    /// Gives such a kernel up.
    Unload(u64),
}

/// A slot's memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arena {
    pub(super) host: *mut u8,
    pub(super) host_bytes: usize,
    pub(super) device: u64,
    pub(super) device_bytes: usize,
}

// SAFETY: addresses only. Who may use them when is the slot's business.
unsafe impl Send for Arena {}

impl Default for Arena {
    fn default() -> Self {
        Self { host: ptr::null_mut(), host_bytes: 0, device: 0, device_bytes: 0 }
    }
}

/// A plan with addresses in place of regions.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Bytes from the beginning of the arena.
    pub(super) copy_in: usize,
    /// Where the output begins and how long it is.
    pub(super) copy_out: (usize, usize),
    /// Device addresses and lengths.
    pub(super) zeroed: Vec<(u64, usize)>,
    pub(super) launches: Vec<Call>,
}

/// What a launch calls.
#[derive(Debug, Clone, Copy)]
pub(super) enum Function {
    Fixed(Kernel),
    /// The number that [`Request::Load`] gave.
    Made(u64),
}

/// A launch with its arguments, eight bytes each.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) function: Function,
    pub(super) blocks: u32,
    pub(super) threads: u32,
    pub(super) shared: u32,
    pub(super) args: Vec<u64>,
}

/// How long a batch took on the device, by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// Copying the input in.
    pub copy_in: Duration,
    /// Zeroing and kernels.
    pub compute: Duration,
    /// Copying the output out.
    pub copy_out: Duration,
}

/// What is known of a device once it is open.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) processors: u32,
    /// Its compute capability.
    pub(super) capability: (u32, u32),
    pub(super) origins: Vec<(&'static str, Origin)>,
}

/// One slot as the thread keeps it.
struct Lane {
    arena: Arena,
    stream: *mut c_void,
    /// Before the copy in, before the kernels, after them, after the copy out.
    events: [*mut c_void; 4],
}

/// A batch in flight.
struct Flight {
    slot: usize,
    reply: Sender<Result<Timing, DeviceError>>,
}

pub(super) struct Worker {
    ordinal: usize,
    calls: Calls,
    device: c_int,
    functions: Vec<*mut c_void>,
    modules: Vec<*mut c_void>,
    /// Kernels made at run time, by number: module and function.
    made: HashMap<u64, (*mut c_void, *mut c_void)>,
    /// How many were.
    ever_made: u64,
    lanes: Vec<Lane>,
    /// What is uploaded.
    residents: HashMap<u64, usize>,
    /// The failure that ended the device.
    lost: Option<DeviceError>,
}

impl Worker {
    /// Opens the device on this thread, which it is bound to from then on.
    pub(super) fn open(ordinal: usize, slots: usize, cache: Option<PathBuf>) -> Result<(Self, Opened), DeviceError> {
        let driver = Driver::load().map_err(DeviceError::Unavailable)?;
        let version = Some(driver.version);
        let calls = Calls::load().map_err(|missing| DeviceError::Unavailable(GpuUnavailable::DriverTooOld { missing, version }))?;
        let unavailable = |failure: Failure| DeviceError::Unavailable(GpuUnavailable::Driver { call: failure.call, code: failure.code, name: failure.name });
        let (mut device, mut context) = (0, ptr::null_mut());
        let number = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        // SAFETY: the driver is initialised; the places written to outlive the calls.
        unsafe {
            calls.get_device(&mut device, number).map_err(unavailable)?;
            calls.retain_context(&mut context, device).map_err(unavailable)?;
        }
        // From here on `drop` gives back what was made.
        let mut worker = Self {
            ordinal,
            calls,
            device,
            functions: vec![],
            modules: vec![],
            made: HashMap::new(),
            ever_made: 0,
            lanes: vec![],
            residents: HashMap::new(),
            lost: None,
        };
        // SAFETY: the context was just retained.
        unsafe { worker.calls.set_context(context) }.map_err(unavailable)?;
        let attribute = |attribute| -> Result<u32, DeviceError> {
            let mut value = 0;
            // SAFETY: the device is open; `value` outlives the call.
            unsafe { worker.calls.device_attribute(&mut value, attribute, device) }.map_err(unavailable)?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        let processors = attribute(PROCESSORS)?.max(1);
        let capability = (attribute(CAPABILITY[0])?, attribute(CAPABILITY[1])?);
        let origins = worker.load_kernels(&Images::new(capability, cache.as_deref()))?;
        for _ in 0..slots {
            worker.add_lane().map_err(unavailable)?;
        }
        Ok((worker, Opened { processors, capability, origins }))
    }

    fn load_kernels(&mut self, images: &Images<'_>) -> Result<Vec<(&'static str, Origin)>, DeviceError> {
        self.functions = vec![ptr::null_mut(); Kernel::COUNT];
        let mut origins = Vec::new();
        for source in &SOURCES {
            let mut image = images.get(source);
            loop {
                match self.load_image(&image.bytes, source.kernels) {
                    Ok(()) => break,
                    Err(failure) => {
                        let reason =
                            format!("{}: the driver answered {} with error {} {}", source.name, failure.call, failure.code, failure.name.unwrap_or_default());
                        let refused = DeviceError::Kernels { ordinal: self.ordinal, reason: reason.clone() };
                        image = images.instead(source, image, reason).ok_or(refused)?;
                    }
                }
            }
            origins.push((source.name, image.origin));
        }
        Ok(origins)
    }

    fn load_image(&mut self, image: &[u8], kernels: &[Kernel]) -> Result<(), Failure> {
        let mut module = ptr::null_mut();
        // SAFETY: an image is a cubin, which tells its own length, or PTX that ends in NUL.
        unsafe { self.calls.load_module(&mut module, image.as_ptr().cast())? };
        self.modules.push(module);
        for &kernel in kernels {
            // SAFETY: the module is loaded, the name ends in NUL.
            unsafe { self.calls.find_function(&mut self.functions[kernel as usize], module, kernel.name().as_ptr())? };
        }
        Ok(())
    }

    /// Loads a kernel that was made at run time. What the driver has against an image is no failure of the device.
    fn load_made(&mut self, image: &[u8], name: &CStr) -> Result<u64, DeviceError> {
        let (mut module, mut function) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: an image is a cubin, which tells its own length; the name ends in NUL; what is loaded is unloaded where it is of no use.
        let loaded = unsafe {
            self.calls.load_module(&mut module, image.as_ptr().cast()).and_then(|()| {
                self.calls.find_function(&mut function, module, name.as_ptr()).inspect_err(|_| {
                    let _ = self.calls.unload_module(module);
                })
            })
        };
        match loaded {
            Ok(()) => {
                self.ever_made += 1;
                self.made.insert(self.ever_made, (module, function));
                Ok(self.ever_made)
            }
            Err(failure) if failure.code == OUT_OF_MEMORY => Err(self.no_room(failure, image.len(), "device memory")),
            Err(failure) if IMAGE_FAULTS.contains(&failure.code) || failure.code == NOT_FOUND => {
                let reason = format!("the driver answered {} with error {} {}", failure.call, failure.code, failure.name.unwrap_or_default());
                Err(DeviceError::Kernels { ordinal: self.ordinal, reason })
            }
            Err(failure) => Err(self.lose(failure)),
        }
    }

    fn add_lane(&mut self) -> Result<(), Failure> {
        self.lanes.push(Lane { arena: Arena::default(), stream: ptr::null_mut(), events: [ptr::null_mut(); 4] });
        if let Some(lane) = self.lanes.last_mut() {
            // SAFETY: the context is current; the places written to outlive the calls.
            unsafe {
                self.calls.create_stream(&mut lane.stream, NON_BLOCKING)?;
                for event in &mut lane.events {
                    self.calls.create_event(event, 0)?;
                }
            }
        }
        Ok(())
    }

    /// Serves requests until nobody can send any more.
    pub(super) fn serve(mut self, requests: &Receiver<Request>) {
        let mut flights: VecDeque<Flight> = VecDeque::new();
        let mut quiet_since = Instant::now();
        loop {
            let request = if flights.is_empty() {
                requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else if quiet_since.elapsed() < EAGER {
                requests.try_recv().map_err(|error| match error {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                })
            } else {
                requests.recv_timeout(PAUSE)
            };
            match request {
                Ok(request) => {
                    quiet_since = Instant::now();
                    self.take(request, &mut flights);
                }
                Err(RecvTimeoutError::Disconnected) if flights.is_empty() => return,
                Err(_) => thread::yield_now(),
            }
            while let Some(flight) = flights.front() {
                let Some(result) = self.landed(flight.slot) else { break };
                quiet_since = Instant::now();
                let _ = flight.reply.send(result);
                flights.pop_front();
            }
        }
    }

    fn take(&mut self, request: Request, flights: &mut VecDeque<Flight>) {
        match request {
            Request::Grow { slot, host, device, reply } => {
                let grown = self.usable().and_then(|()| self.grow(slot, host, device));
                let _ = reply.send(grown);
            }
            Request::Upload { bytes, reply } => {
                let uploaded = self.usable().and_then(|()| self.upload(&bytes));
                let _ = reply.send(uploaded);
            }
            Request::Forget(address) => {
                if self.residents.remove(&address).is_some() {
                    // SAFETY: it was allocated by `upload` and nobody has it any more.
                    let freed = unsafe { self.calls.free(address) };
                    let _ = freed.map_err(|failure| self.lose(failure));
                }
            }
            Request::Load { image, name, reply } => {
                let loaded = self.usable().and_then(|()| self.load_made(&image, &name));
                let _ = reply.send(loaded);
            }
            Request::Unload(number) => {
                if let Some((module, _)) = self.made.remove(&number) {
                    // SAFETY: it was loaded by `load_made`, and nothing that calls it is under way.
                    let unloaded = unsafe { self.calls.unload_module(module) };
                    let _ = unloaded.map_err(|failure| self.lose(failure));
                }
            }
            Request::Run { slot, work, reply } => match self.usable().and_then(|()| self.start(slot, &work).map_err(|failure| self.lose(failure))) {
                Ok(()) => flights.push_back(Flight { slot, reply }),
                Err(error) => {
                    self.drain(slot);
                    let _ = reply.send(Err(error));
                }
            },
        }
    }

    /// Waits for what a failed batch has left on its slot's stream: whoever has the slot, or what the batch refers to, may give it up next.
    fn drain(&self, slot: usize) {
        // SAFETY: the stream exists. What the wait answers is that the device is lost, which is known.
        let _ = unsafe { self.calls.wait_stream(self.lanes[slot].stream) };
    }

    fn usable(&self) -> Result<(), DeviceError> {
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// The device is of no more use.
    fn lose(&mut self, failure: Failure) -> DeviceError {
        self.lost.get_or_insert(DeviceError::lost(self.ordinal, failure)).clone()
    }

    /// A failed allocation: no room, or the end of the device.
    fn no_room(&mut self, failure: Failure, bytes: usize, what: &'static str) -> DeviceError {
        if failure.code == OUT_OF_MEMORY { DeviceError::OutOfMemory { ordinal: self.ordinal, bytes, what } } else { self.lose(failure) }
    }

    fn grow(&mut self, slot: usize, host: usize, device: usize) -> Result<Arena, DeviceError> {
        // What was there goes first, so that the old and the new are never held together.
        self.release_arena(slot);
        let mut arena = Arena::default();
        let mut pinned = ptr::null_mut();
        // SAFETY: the context is current; the places written to outlive the calls. Flags 0: ordinary cached memory, which the CPU reads fast.
        unsafe {
            self.calls.allocate_host(&mut pinned, host, 0).map_err(|failure| self.no_room(failure, host, "pinned host memory"))?;
        }
        (arena.host, arena.host_bytes) = (pinned.cast(), host);
        // SAFETY: as above. No byte of it is ever read as something else than bytes, and none before it was written.
        unsafe { ptr::write_bytes(arena.host, 0, host) };
        self.lanes[slot].arena = arena;
        // SAFETY: as above.
        if let Err(failure) = unsafe { self.calls.allocate(&mut arena.device, device) } {
            self.release_arena(slot);
            return Err(self.no_room(failure, device, "device memory"));
        }
        arena.device_bytes = device;
        self.lanes[slot].arena = arena;
        Ok(arena)
    }

    fn release_arena(&mut self, slot: usize) {
        let arena = std::mem::take(&mut self.lanes[slot].arena);
        // SAFETY: both were allocated by `grow`, and the slot has nothing in flight.
        unsafe {
            if !arena.host.is_null() {
                let _ = self.calls.free_host(arena.host.cast()).map_err(|failure| self.lose(failure));
            }
            if arena.device != 0 {
                let _ = self.calls.free(arena.device).map_err(|failure| self.lose(failure));
            }
        }
    }

    fn upload(&mut self, bytes: &[u8]) -> Result<u64, DeviceError> {
        let (mut address, len) = (0, bytes.len().max(1));
        // SAFETY: the context is current, `address` outlives the call, and as much is copied as was allocated at most.
        unsafe {
            self.calls.allocate(&mut address, len).map_err(|failure| self.no_room(failure, len, "device memory"))?;
            self.residents.insert(address, len);
            if !bytes.is_empty() {
                self.calls.copy_in_now(address, bytes.as_ptr().cast(), bytes.len()).map_err(|failure| self.lose(failure))?;
            }
        }
        Ok(address)
    }

    /// Puts a batch on its slot's stream.
    fn start(&self, slot: usize, work: &Work) -> Result<(), Failure> {
        let Lane { arena, stream, events } = &self.lanes[slot];
        let (output, output_bytes) = work.copy_out;
        // SAFETY: the slot checked that the plan fits its arena; the arena stays until the batch has landed, since the slot is held until
        // then; the arguments are those of the kernels, as `Plan::launch` demands.
        unsafe {
            self.calls.record_event(events[0], *stream)?;
            if work.copy_in > 0 {
                self.calls.copy_in(arena.device, arena.host.cast(), work.copy_in, *stream)?;
            }
            self.calls.record_event(events[1], *stream)?;
            for &(address, bytes) in work.zeroed.iter().filter(|(_, bytes)| *bytes > 0) {
                self.calls.fill(address, 0, bytes, *stream)?;
            }
            for call in &work.launches {
                // The driver takes addresses of the arguments, and reads as many bytes there as each is long.
                let mut args: Vec<*mut c_void> = call.args.iter().map(|arg| ptr::from_ref(arg).cast_mut().cast()).collect();
                let function = match call.function {
                    Function::Fixed(kernel) => self.functions[kernel as usize],
                    // It is loaded as long as somebody has its handle, and the slot has one.
                    Function::Made(number) => self.made.get(&number).map_or(ptr::null_mut(), |(_, function)| *function),
                };
                self.calls.launch(function, call.blocks, 1, 1, call.threads, 1, 1, call.shared, *stream, args.as_mut_ptr(), ptr::null_mut())?;
            }
            self.calls.record_event(events[2], *stream)?;
            if output_bytes > 0 {
                self.calls.copy_out(arena.host.add(output).cast(), arena.device + output as u64, output_bytes, *stream)?;
            }
            self.calls.record_event(events[3], *stream)
        }
    }

    /// What became of a batch in flight; `None` while it is.
    fn landed(&mut self, slot: usize) -> Option<Result<Timing, DeviceError>> {
        let events = self.lanes[slot].events;
        // SAFETY: the events exist and were recorded.
        let timing = unsafe {
            match self.calls.is_done(events[3]) {
                Ok(false) => return None,
                Ok(true) => self.timing(events),
                Err(failure) => Err(failure),
            }
        };
        if timing.is_err() {
            self.drain(slot);
        }
        Some(timing.map_err(|failure| self.lose(failure)))
    }

    /// # Safety
    ///
    /// The events exist and have passed.
    unsafe fn timing(&self, events: [*mut c_void; 4]) -> Result<Timing, Failure> {
        let between = |from: usize, to: usize| {
            let mut milliseconds = 0f32;
            // SAFETY: the caller's.
            unsafe { self.calls.event_time(&mut milliseconds, events[from], events[to]) }?;
            Ok(Duration::try_from_secs_f64(f64::from(milliseconds) / 1000.0).unwrap_or_default())
        };
        Ok(Timing { copy_in: between(0, 1)?, compute: between(1, 2)?, copy_out: between(2, 3)? })
    }
}

impl Drop for Worker {
    /// Gives everything back. On a lost device the driver refuses most of it; giving up the context takes it all.
    fn drop(&mut self) {
        for slot in 0..self.lanes.len() {
            // SAFETY: what exists was made by `add_lane`.
            unsafe {
                if !self.lanes[slot].stream.is_null() {
                    // What is in flight reads and writes memory that goes next.
                    let _ = self.calls.wait_stream(self.lanes[slot].stream);
                }
            }
            self.release_arena(slot);
            let Lane { stream, events, .. } = &self.lanes[slot];
            // SAFETY: as above.
            unsafe {
                for event in events.iter().filter(|event| !event.is_null()) {
                    let _ = self.calls.destroy_event(*event);
                }
                if !stream.is_null() {
                    let _ = self.calls.destroy_stream(*stream);
                }
            }
        }
        // SAFETY: all of it was made by this worker.
        unsafe {
            for &address in self.residents.keys() {
                let _ = self.calls.free(address);
            }
            for (module, _) in self.made.values() {
                let _ = self.calls.unload_module(*module);
            }
            for &module in &self.modules {
                let _ = self.calls.unload_module(module);
            }
            let _ = self.calls.set_context(ptr::null_mut());
            let _ = self.calls.release_context(self.device);
        }
    }
}
