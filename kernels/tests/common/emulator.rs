//! The emulated device: the kernels compiled for the CPU, and a stand-in for libcuda that runs them, built with the system's C++ compiler.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::{
    ffi::{CString, c_char, c_int, c_uint},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use libloading::{Library, Symbol};
use tidegate_kernels::device::{Gpu, Options};

/// Set in a child process: the stand-in driver that its parent has built.
pub const BUILT: &str = "TIDEGATE_EMULATOR";

/// Where the stand-in driver is.
pub fn library() -> PathBuf {
    driver_alone();
    std::env::var_os(BUILT).map_or_else(|| folder().join("libcuda.so"), PathBuf::from)
}

/// The stand-in driver, loaded into this process before anything looks for a driver: its name is the one that is looked for first. Where
/// every kernel is run, the stand-in for NVRTC comes with it, lest a real one be looked up before.
pub fn driver() -> &'static Library {
    let driver = driver_alone();
    if env!("CARGO_CRATE_NAME") == "emulated" {
        nvrtc();
    }
    driver
}

fn driver_alone() -> &'static Library {
    static DRIVER: OnceLock<Library> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let path = std::env::var_os(BUILT).map_or_else(build, PathBuf::from);
        // SAFETY: it was just built of our own sources.
        unsafe { Library::new(&path) }.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}

/// The stand-in NVRTC, loaded in front of a real one in the same way.
pub fn nvrtc() -> &'static Library {
    static NVRTC: OnceLock<Library> = OnceLock::new();
    NVRTC.get_or_init(|| {
        let path = build_nvrtc(&library());
        // SAFETY: it was just built of our own source.
        unsafe { Library::new(&path) }.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}

/// How many texts the stand-in NVRTC has compiled.
pub fn compilations() -> i32 {
    // SAFETY: the signature is the stand-in's.
    let ask: Symbol<'_, unsafe extern "C" fn() -> c_int> = unsafe { nvrtc().get(b"fake_compilations") }.unwrap();
    // SAFETY: as above.
    unsafe { ask() }
}

/// How many kernels made at run time are loaded.
pub fn loaded() -> i32 {
    // SAFETY: the signature is the stand-in's.
    let ask: Symbol<'_, unsafe extern "C" fn() -> c_int> = unsafe { driver().get(b"fake_loaded") }.unwrap();
    // SAFETY: as above.
    unsafe { ask() }
}

/// The emulated device, opened anew. Nothing is kept on disk.
pub fn open(slots: usize) -> Gpu {
    driver();
    Gpu::open(0, options(slots)).unwrap()
}

pub fn options(slots: usize) -> Options {
    Options { slots, memory_limit: 256 << 20, cache: None, made_kernels: 256, copiers: 3 }
}

/// In which order the emulator runs threads.
pub fn seed(seed: u32) {
    // SAFETY: the signature is the emulator's.
    let set: Symbol<'_, unsafe extern "C" fn(c_uint)> = unsafe { driver().get(b"emu_seed") }.unwrap();
    // SAFETY: as above.
    unsafe { set(seed) };
}

/// Has a call of the driver fail with a code, after so many that don't; less than 0 ends all failing.
pub fn fail(call: &str, code: i32, after: i32) {
    let call = CString::new(call).unwrap();
    // SAFETY: the signature is the stand-in's.
    let set: Symbol<'_, unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int> = unsafe { driver().get(b"fake_fail") }.unwrap();
    // SAFETY: as above; the text is copied.
    unsafe { set(call.as_ptr(), code, after) };
}

/// How many allocations there are, on the device and of pinned memory.
pub fn live() -> usize {
    // SAFETY: the signature is the stand-in's.
    let ask: Symbol<'_, unsafe extern "C" fn() -> usize> = unsafe { driver().get(b"fake_live") }.unwrap();
    // SAFETY: as above.
    unsafe { ask() }
}

/// A folder of this process's own: several test programs may build at once.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("emulator-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn sources() -> PathBuf {
    // Tests of other crates of the workspace use it, too.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ours = [manifest.to_path_buf(), manifest.join("kernels")].into_iter().map(|folder| folder.join("tests/emulator")).find(|folder| folder.is_dir());
    ours.unwrap()
}

fn build_nvrtc(driver: &Path) -> PathBuf {
    let (sources, folder, library) = (sources(), folder(), folder().join("libnvrtc.so"));
    let mut compiler = compiler();
    let compiler_name = compiler.get_program().to_string_lossy().into_owned();
    let define = |name: &str, value: &str| format!("-D{name}=\"{value}\"");
    compiler.args(["-std=c++17", "-O1", "-fPIC", "-Wall", "-shared", "-Wl,-soname,libnvrtc.so"]);
    compiler.arg(define("COMPILER", &compiler_name)).arg(define("SHIM", &sources.join("cuda_on_cpu.h").to_string_lossy()));
    compiler.arg(define("DRIVER", &driver.to_string_lossy())).arg(define("FOLDER", &folder.to_string_lossy()));
    compiler.arg(sources.join("nvrtc.cpp")).arg("-o").arg(&library);
    run(compiler);
    library
}

fn build() -> PathBuf {
    let (sources, folder) = (sources(), folder());
    let mut objects = Vec::new();
    let mut compile = |source: &str, object: &str, options: &[&str]| {
        let object = folder.join(object);
        let mut compiler = compiler();
        compiler.args(["-std=c++17", "-O1", "-g", "-fPIC", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas", "-c"]).args(options);
        compiler.arg(sources.join(source)).arg("-o").arg(&object);
        run(compiler);
        objects.push(object);
    };
    compile("runtime.cpp", "runtime.o", &[]);
    compile("driver.cpp", "driver.o", &[]);
    for kernel in ["score", "aggregate", "json_decode"] {
        // What C++ leaves undefined (shifts too far, overflow, misalignment) ends the process with a trap.
        let file = format!("-DKERNEL_FILE=\"../../cuda/{kernel}.cu\"");
        compile("kernel.cpp", &format!("{kernel}.o"), &[&file, "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", "-fno-sanitize=vptr"]);
    }
    let library = folder.join("libcuda.so");
    let mut linker = compiler();
    linker.args(["-shared", "-Wl,-soname,libcuda.so", "-o"]).arg(&library).args(&objects).arg("-ldl");
    run(linker);
    library
}

fn compiler() -> Command {
    Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()))
}

/// These tests are the only ones that run the kernels without a GPU, so they fail rather than be left out.
fn run(mut command: Command) {
    match command.output() {
        Err(error) => panic!("a C++ compiler is needed to run the kernels on the CPU; install g++ or set CXX ({:?}: {error})", command.get_program()),
        Ok(output) => assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr)),
    }
}
