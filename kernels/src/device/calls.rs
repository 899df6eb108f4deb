//! The driver functions that work on a device takes, each looked up by name once, before any is called.
//!
//! Like the probe's, these are not called through `cudarc`, whose enum of results can't hold a code that a newer driver invents.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::driver::{error_name, lookup};

/// A call that the driver answered with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) call: &'static str,
    /// The driver's `CUresult`.
    pub(super) code: i32,
    /// The driver's own name for it, if it has one.
    pub(super) name: Option<String>,
}

/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub(super) const OUT_OF_MEMORY: i32 = 2;
/// `CUDA_ERROR_NOT_READY`: no error, the answer to asking whether something is done.
const NOT_READY: c_int = 600;

/// Declares the table: for each function a field with its address and a method that turns its answer into a `Result`.
macro_rules! calls {
    ($($method:ident = $symbol:literal ($($argument:ident: $type:ty),*);)*) => {
        /// The functions' addresses.
        #[allow(clippy::too_many_arguments)]
        pub(super) struct Calls {
            $($method: unsafe extern "C" fn($($type),*) -> c_int,)*
        }

        /// Their names, for the probe: a driver that lacks one is too old.
        pub(super) const NAMES: &[&str] = &[$($symbol),*];

        #[allow(clippy::too_many_arguments)]
        impl Calls {
            /// Looks all of them up, or names one that the driver lacks. The driver must have been found and initialised.
            pub(super) fn load() -> Result<Self, &'static str> {
                Ok(Self { $($method: lookup($symbol).ok_or($symbol)?,)* })
            }

            $(
                /// Calls it.
                ///
                /// # Safety
                ///
                /// As the driver API's documentation of the function says.
                pub(super) unsafe fn $method(&self, $($argument: $type),*) -> Result<(), Failure> {
                    // SAFETY: the signature is the driver API's; the rest is the caller's.
                    match unsafe { (self.$method)($($argument),*) } {
                        0 => Ok(()),
                        code => Err(Failure { call: $symbol, code, name: lookup("cuGetErrorName").and_then(|ask| error_name(ask, code)) }),
                    }
                }
            )*
        }
    };
}

calls! {
    get_device = "cuDeviceGet" (handle: *mut c_int, ordinal: c_int);
    device_attribute = "cuDeviceGetAttribute" (value: *mut c_int, attribute: c_int, device: c_int);
    retain_context = "cuDevicePrimaryCtxRetain" (context: *mut *mut c_void, device: c_int);
    release_context = "cuDevicePrimaryCtxRelease_v2" (device: c_int);
    set_context = "cuCtxSetCurrent" (context: *mut c_void);
    create_stream = "cuStreamCreate" (stream: *mut *mut c_void, flags: c_uint);
    destroy_stream = "cuStreamDestroy_v2" (stream: *mut c_void);
    wait_stream = "cuStreamSynchronize" (stream: *mut c_void);
    create_event = "cuEventCreate" (event: *mut *mut c_void, flags: c_uint);
    destroy_event = "cuEventDestroy_v2" (event: *mut c_void);
    record_event = "cuEventRecord" (event: *mut c_void, stream: *mut c_void);
    query_event = "cuEventQuery" (event: *mut c_void);
    event_time = "cuEventElapsedTime" (milliseconds: *mut f32, from: *mut c_void, to: *mut c_void);
    allocate = "cuMemAlloc_v2" (pointer: *mut u64, bytes: usize);
    free = "cuMemFree_v2" (pointer: u64);
    allocate_host = "cuMemHostAlloc" (pointer: *mut *mut c_void, bytes: usize, flags: c_uint);
    free_host = "cuMemFreeHost" (pointer: *mut c_void);
    copy_in = "cuMemcpyHtoDAsync_v2" (to: u64, from: *const c_void, bytes: usize, stream: *mut c_void);
    copy_in_now = "cuMemcpyHtoD_v2" (to: u64, from: *const c_void, bytes: usize);
    copy_out = "cuMemcpyDtoHAsync_v2" (to: *mut c_void, from: u64, bytes: usize, stream: *mut c_void);
    fill = "cuMemsetD8Async" (to: u64, value: u8, bytes: usize, stream: *mut c_void);
    load_module = "cuModuleLoadData" (module: *mut *mut c_void, image: *const c_void);
    unload_module = "cuModuleUnload" (module: *mut c_void);
    find_function = "cuModuleGetFunction" (function: *mut *mut c_void, module: *mut c_void, name: *const c_char);
    launch = "cuLaunchKernel" (
        function: *mut c_void, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared: c_uint, stream: *mut c_void, arguments: *mut *mut c_void, extra: *mut *mut c_void
    );
}

impl Calls {
    /// Whether the work before an event is done.
    ///
    /// # Safety
    ///
    /// The event exists.
    pub(super) unsafe fn is_done(&self, event: *mut c_void) -> Result<bool, Failure> {
        // SAFETY: the caller's.
        match unsafe { self.query_event(event) } {
            Ok(()) => Ok(true),
            Err(Failure { code: NOT_READY, .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}
