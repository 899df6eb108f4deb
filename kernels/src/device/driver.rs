//! The few driver functions that the probe calls, each looked up by name before it is called.
//!
//! `cudarc` finds the library but is not called through: its functions panic where the library or a symbol is missing, and its enum of
//! results can't hold a code that a newer driver invents. Here a missing symbol and any code are ordinary values.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::{GpuUnavailable, calls};

const SUCCESS: c_int = 0;
const STUB_LIBRARY: c_int = 34;
const NO_DEVICE: c_int = 100;

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
const CAPABILITY: [c_int; 2] = [75, 76];

/// A driver's handle of a device.
type DeviceHandle = c_int;

pub(super) type GetErrorName = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;

/// An initialised driver with at least the functions in it.
pub(super) struct Driver {
    get_count: unsafe extern "C" fn(*mut c_int) -> c_int,
    get_device: unsafe extern "C" fn(*mut DeviceHandle, c_int) -> c_int,
    get_name: unsafe extern "C" fn(*mut c_char, c_int, DeviceHandle) -> c_int,
    get_attribute: unsafe extern "C" fn(*mut c_int, c_int, DeviceHandle) -> c_int,
    total_memory: unsafe extern "C" fn(*mut usize, DeviceHandle) -> c_int,
    retain_context: unsafe extern "C" fn(*mut *mut c_void, DeviceHandle) -> c_int,
    release_context: unsafe extern "C" fn(DeviceHandle) -> c_int,
    set_current: unsafe extern "C" fn(*mut c_void) -> c_int,
    memory_info: unsafe extern "C" fn(*mut usize, *mut usize) -> c_int,
    get_error_name: GetErrorName,
    /// The CUDA version that the driver supports, as `major * 1000 + minor * 10`.
    pub(super) version: i32,
}

/// Looks a function up by name. `F` must be the type that CUDA's driver API gives that name.
pub(super) fn lookup<F: Copy>(symbol: &'static str) -> Option<F> {
    // SAFETY: `culib` is called only after the library was found; each caller names the documented type of the function.
    unsafe { cudarc::driver::sys::culib().get::<F>(symbol.as_bytes()).ok().map(|found| *found) }
}

impl Driver {
    /// Finds, checks and initialises the driver.
    pub(super) fn load() -> Result<Self, GpuUnavailable> {
        // SAFETY: opens a library by its well-known name, which runs its initialisers, and closes it again.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(GpuUnavailable::NoDriver);
        }
        let version = Self::ask_version();
        let too_old = |missing| GpuUnavailable::DriverTooOld { missing, version };

        /// Looks up a function or returns what the driver lacks.
        macro_rules! need {
            ($symbol:literal) => {
                lookup($symbol).ok_or_else(|| too_old($symbol))?
            };
        }
        let init: unsafe extern "C" fn(c_uint) -> c_int = need!("cuInit");
        // Before anything else may be missing: a stub answers every call with this code.
        // SAFETY: the signature is the driver API's.
        let initialised = unsafe { init(0) };
        if initialised != SUCCESS {
            return Err(failure("cuInit", initialised, lookup("cuGetErrorName")));
        }
        let driver = Self {
            get_count: need!("cuDeviceGetCount"),
            get_device: need!("cuDeviceGet"),
            get_name: need!("cuDeviceGetName"),
            get_attribute: need!("cuDeviceGetAttribute"),
            total_memory: need!("cuDeviceTotalMem_v2"),
            retain_context: need!("cuDevicePrimaryCtxRetain"),
            release_context: need!("cuDevicePrimaryCtxRelease_v2"),
            set_current: need!("cuCtxSetCurrent"),
            memory_info: need!("cuMemGetInfo_v2"),
            get_error_name: need!("cuGetErrorName"),
            version: version.ok_or_else(|| too_old("cuDriverGetVersion"))?,
        };
        // What work takes beyond the probe's own calls: better told by the probe than by the first batch.
        match calls::NAMES.iter().find(|symbol| lookup::<unsafe extern "C" fn()>(symbol).is_none()) {
            Some(missing) => Err(too_old(missing)),
            None => Ok(driver),
        }
    }

    /// The driver's version, which it tells also when it is not initialised.
    fn ask_version() -> Option<i32> {
        let get_version: unsafe extern "C" fn(*mut c_int) -> c_int = lookup("cuDriverGetVersion")?;
        let mut version = 0;
        // SAFETY: the signature is the driver API's, and `version` outlives the call.
        (unsafe { get_version(&mut version) } == SUCCESS && version > 0).then_some(version)
    }

    /// How many devices there are; zero is [`GpuUnavailable::NoDevice`].
    pub(super) fn count(&self) -> Result<usize, GpuUnavailable> {
        let mut count = 0;
        // SAFETY: the driver is initialised; `count` outlives the call.
        self.check("cuDeviceGetCount", unsafe { (self.get_count)(&mut count) })?;
        usize::try_from(count).ok().filter(|&n| n > 0).ok_or(GpuUnavailable::NoDevice)
    }

    /// The handle of the device with this ordinal.
    pub(super) fn device(&self, ordinal: usize) -> Result<DeviceHandle, GpuUnavailable> {
        let (ordinal, mut handle) = (c_int::try_from(ordinal).unwrap_or(c_int::MAX), 0);
        // SAFETY: as in `count`.
        self.check("cuDeviceGet", unsafe { (self.get_device)(&mut handle, ordinal) })?;
        Ok(handle)
    }

    /// A device's name, as its maker writes it.
    pub(super) fn name(&self, device: DeviceHandle) -> Result<String, GpuUnavailable> {
        let mut text = [0u8; 256];
        // The last byte is kept from the driver, so that the text ends within the buffer whatever it writes.
        // SAFETY: the driver writes at most the length it is told.
        self.check("cuDeviceGetName", unsafe { (self.get_name)(text.as_mut_ptr().cast(), text.len() as c_int - 1, device) })?;
        Ok(CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy().into_owned())
    }

    /// A device's compute capability, major and minor.
    pub(super) fn capability(&self, device: DeviceHandle) -> Result<(u32, u32), GpuUnavailable> {
        let mut parts = [0u32; 2];
        for (part, attribute) in parts.iter_mut().zip(CAPABILITY) {
            let mut value = 0;
            // SAFETY: as in `count`.
            self.check("cuDeviceGetAttribute", unsafe { (self.get_attribute)(&mut value, attribute, device) })?;
            *part = u32::try_from(value).unwrap_or(0);
        }
        Ok((parts[0], parts[1]))
    }

    /// A device's memory in bytes.
    pub(super) fn memory_total(&self, device: DeviceHandle) -> Result<u64, GpuUnavailable> {
        let mut bytes = 0usize;
        // SAFETY: as in `count`.
        self.check("cuDeviceTotalMem_v2", unsafe { (self.total_memory)(&mut bytes, device) })?;
        Ok(bytes as u64)
    }

    /// The free bytes of a device. Makes the device's context and gives it up again, so it also tells whether work can be done at all.
    pub(super) fn memory_free(&self, device: DeviceHandle) -> Result<u64, GpuUnavailable> {
        let mut context = std::ptr::null_mut();
        // SAFETY: as in `count`; what is retained is released below, and the thread that calls this has no other context.
        self.check("cuDevicePrimaryCtxRetain", unsafe { (self.retain_context)(&mut context, device) })?;
        let (mut free, mut total) = (0usize, 0usize);
        let asked = self
            .check("cuCtxSetCurrent", unsafe { (self.set_current)(context) })
            .and_then(|()| self.check("cuMemGetInfo_v2", unsafe { (self.memory_info)(&mut free, &mut total) }));
        // SAFETY: as above. What these two answer changes nothing that is reported.
        unsafe {
            (self.set_current)(std::ptr::null_mut());
            (self.release_context)(device);
        }
        asked.map(|()| free as u64)
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<(), GpuUnavailable> {
        if code == SUCCESS { Ok(()) } else { Err(failure(call, code, Some(self.get_error_name))) }
    }
}

/// What a code other than success means.
fn failure(call: &'static str, code: c_int, get_error_name: Option<GetErrorName>) -> GpuUnavailable {
    match code {
        NO_DEVICE => GpuUnavailable::NoDevice,
        STUB_LIBRARY => GpuUnavailable::Stub,
        _ => GpuUnavailable::Driver { call, code, name: get_error_name.and_then(|ask| error_name(ask, code)) },
    }
}

/// The driver's own name of a code.
pub(super) fn error_name(get_error_name: GetErrorName, code: c_int) -> Option<String> {
    let mut text = std::ptr::null();
    // SAFETY: on success the driver points `text` at a static string that ends in NUL.
    unsafe {
        if get_error_name(code, &mut text) != SUCCESS || text.is_null() {
            return None;
        }
        Some(CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}
