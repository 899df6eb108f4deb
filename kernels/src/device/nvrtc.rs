//! NVRTC, the library that compiles kernels, where it is installed.

use std::ffi::{CString, c_char, c_int, c_void};

type Handle = *mut c_void;
type AskSize = unsafe extern "C" fn(Handle, *mut usize) -> c_int;
type AskBytes = unsafe extern "C" fn(Handle, *mut c_char) -> c_int;

/// The functions of NVRTC that are used.
pub struct Nvrtc {
    create: unsafe extern "C" fn(*mut Handle, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int,
    compile: unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Handle) -> c_int,
    log_size: AskSize,
    log: AskBytes,
    ptx_size: AskSize,
    ptx: AskBytes,
    cubin_size: AskSize,
    cubin: AskBytes,
    /// Its version, major and minor.
    pub version: (i32, i32),
}

/// What to compile for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Text that a driver translates for its device, which has at least this compute capability.
    Ptx(u32, u32),
    /// What devices of this compute capability run.
    Cubin(u32, u32),
}

/// Looks a function up by name. `F` must be the type that NVRTC gives that name.
fn lookup<F: Copy>(symbol: &str) -> Result<F, String> {
    // SAFETY: `culib` is called only after the library was found; each caller names the documented type of the function.
    unsafe { cudarc::nvrtc::sys::culib().get::<F>(symbol.as_bytes()).map(|found| *found).map_err(|_| format!("NVRTC has no {symbol}")) }
}

impl Nvrtc {
    /// Finds the library; says why it can't be used where it can't.
    pub fn load() -> Result<Self, String> {
        // SAFETY: opens a library by its well-known name, which runs its initialisers, and closes it again.
        if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
            return Err("NVRTC is not installed (libnvrtc is not found)".into());
        }
        let ask_version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int = lookup("nvrtcVersion")?;
        let mut version = (0, 0);
        // SAFETY: the signature is NVRTC's, and `version` outlives the call.
        if unsafe { ask_version(&mut version.0, &mut version.1) } != 0 {
            return Err("NVRTC doesn't tell its version".into());
        }
        Ok(Self {
            create: lookup("nvrtcCreateProgram")?,
            compile: lookup("nvrtcCompileProgram")?,
            destroy: lookup("nvrtcDestroyProgram")?,
            log_size: lookup("nvrtcGetProgramLogSize")?,
            log: lookup("nvrtcGetProgramLog")?,
            ptx_size: lookup("nvrtcGetPTXSize")?,
            ptx: lookup("nvrtcGetPTX")?,
            cubin_size: lookup("nvrtcGetCUBINSize")?,
            cubin: lookup("nvrtcGetCUBIN")?,
            version,
        })
    }

    /// Compiles a text; `name` is for the compiler's messages. The error is what the compiler said.
    pub fn compile(&self, name: &str, text: &str, target: Target) -> Result<Vec<u8>, String> {
        let c_text = |text: &str| CString::new(text).map_err(|_| "a kernel's text holds a NUL".to_string());
        let (text, name) = (c_text(text)?, c_text(name)?);
        let architecture = match target {
            Target::Ptx(major, minor) => format!("--gpu-architecture=compute_{major}{minor}"),
            Target::Cubin(major, minor) => format!("--gpu-architecture=sm_{major}{minor}"),
        };
        // Products and sums are rounded one by one, as on the CPU.
        let options = [architecture.as_str(), "--std=c++17", "--fmad=false"].map(CString::new);
        let options = options.into_iter().collect::<Result<Vec<_>, _>>().map_err(|_| "an option holds a NUL".to_string())?;
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program: Handle = std::ptr::null_mut();
        // SAFETY: all texts end in NUL and outlive the calls; what is created is destroyed.
        unsafe {
            let none = std::ptr::null();
            let created = (self.create)(&mut program, text.as_ptr(), name.as_ptr(), 0, none, none);
            if created != 0 {
                return Err(format!("NVRTC can't begin (error {created})"));
            }
            let compiled = (self.compile)(program, options.len() as c_int, options.as_ptr());
            let result = match (compiled, target) {
                (0, Target::Ptx(..)) => self.fetch(program, self.ptx_size, self.ptx),
                (0, Target::Cubin(..)) => self.fetch(program, self.cubin_size, self.cubin),
                (code, _) => {
                    let log = self.fetch(program, self.log_size, self.log).unwrap_or_default();
                    Err(format!("NVRTC doesn't compile {} (error {code}): {}", name.to_string_lossy(), String::from_utf8_lossy(&log).trim_end_matches('\0')))
                }
            };
            (self.destroy)(&mut program);
            result
        }
    }

    /// # Safety
    ///
    /// The program exists, and the two functions belong together.
    unsafe fn fetch(&self, program: Handle, size: AskSize, bytes: AskBytes) -> Result<Vec<u8>, String> {
        let mut len = 0;
        // SAFETY: the second function writes as many bytes as the first one says.
        unsafe {
            let asked = size(program, &mut len);
            let mut result = vec![0u8; len];
            let got = bytes(program, result.as_mut_ptr().cast());
            if asked != 0 || got != 0 || len == 0 { Err(format!("NVRTC gives nothing out (errors {asked}, {got})")) } else { Ok(result) }
        }
    }
}
