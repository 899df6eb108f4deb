//! The kernels' sources and what is prebuilt of them: the same, and compilable.
//!
//! NVRTC is looked for in the folder that TIDEGATE_NVRTC names, in the Python environments of the other tests, and where the loader looks.
//! (`pip install nvidia-cuda-nvrtc-cu12==12.0.*` brings the one that the prebuilt PTX is made with.) To make it anew after a change of a
//! source: `TIDEGATE_NVRTC=… TIDEGATE_WRITE_PTX=1 cargo test -p tidegate-kernels --test nvrtc`.

#![allow(clippy::unwrap_used)]

#[path = "common/emulator.rs"]
mod emulator;
#[allow(dead_code)]
#[path = "common/expressions.rs"]
mod expressions;
#[allow(dead_code)]
#[path = "common/random.rs"]
mod random;

use std::{
    fs,
    path::{Path, PathBuf},
};

use tidegate_kernels::{
    device::{Gpu, Nvrtc, Options, Origin, SOURCES, Target},
    expr::{Arithmetic, Expr, Program, Type},
};

/// What is prebuilt runs on devices from here on.
const OLDEST: Target = Target::Ptx(8, 0);

#[test]
fn prebuilt_kernels_are_made_of_these_sources() {
    if std::env::var_os("TIDEGATE_WRITE_PTX").is_some() {
        return;
    }
    for source in &SOURCES {
        let header = source.ptx.lines().next().unwrap_or_default();
        assert_eq!(header, source.ptx_header(), "cuda/ptx/{}.ptx is made of another text; see the top of this file", source.name);
        for kernel in source.kernels {
            let entry = format!(".entry {}(", kernel.name().to_str().unwrap());
            assert!(source.ptx.contains(&entry), "{}.ptx lacks {entry}", source.name);
        }
    }
}

#[test]
fn nvrtc_compiles_every_kernel() {
    load_nvrtc();
    let nvrtc = match Nvrtc::load() {
        Ok(nvrtc) => nvrtc,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let version = format!("// NVRTC {}.{}", nvrtc.version.0, nvrtc.version.1);
    for source in &SOURCES {
        let ptx = String::from_utf8(nvrtc.compile(source.name, source.text, OLDEST).unwrap()).unwrap();
        let whole = format!("{}\n{version}\n{}", source.ptx_header(), ptx.trim_end_matches('\0'));
        if std::env::var_os("TIDEGATE_WRITE_PTX").is_some() {
            fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("cuda/ptx/{}.ptx", source.name)), whole).unwrap();
        } else if source.ptx.lines().nth(1) == Some(&version) {
            assert!(whole == source.ptx, "cuda/ptx/{}.ptx is not what NVRTC makes of the source", source.name);
        }
        // What is made at a start, for an H100.
        assert!(nvrtc.compile(source.name, source.text, Target::Cubin(9, 0)).unwrap().starts_with(b"\x7fELF"));
    }
    let error = nvrtc.compile("wrong.cu", "__global__ void wrong() { nonsense; }", OLDEST).unwrap_err();
    assert!(error.contains("wrong.cu") && error.contains("nonsense"), "{error}");
}

#[test]
fn nvrtc_compiles_what_is_generated() {
    load_nvrtc();
    let nvrtc = match Nvrtc::load() {
        Ok(nvrtc) => nvrtc,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let mut random = random::Random(9);
    for _ in 0..20 {
        let program = expressions::program(&mut random, 8);
        let ptx = nvrtc.compile("expr.cu", program.text(), OLDEST).unwrap_or_else(|error| panic!("{error}\n{}", program.text()));
        assert!(String::from_utf8(ptx).unwrap().contains(".entry evaluate("));
    }
    // Rounded one by one: no product goes into a sum unrounded, and a quotient is not made of what is only near.
    let (x, y) = (Expr::column(0, Type::Float64), Expr::column(1, Type::Float64));
    let compute = |arithmetic, left: &Expr, right: &Expr| Expr::arithmetic(arithmetic, left.clone(), right.clone()).unwrap();
    let sum = compute(Arithmetic::Add, &compute(Arithmetic::Multiply, &x, &y), &compute(Arithmetic::Divide, &x, &y));
    let ptx = nvrtc.compile("expr.cu", Program::new(None, vec![sum]).unwrap().text(), OLDEST).unwrap();
    let ptx = String::from_utf8(ptx).unwrap();
    assert!(["mul.rn.f64", "add.rn.f64", "div.rn.f64"].iter().all(|instruction| ptx.contains(instruction)) && !ptx.contains("fma."), "{ptx}");
    assert!(nvrtc.compile("expr.cu", expressions::program(&mut random, 8).text(), Target::Cubin(9, 0)).unwrap().starts_with(b"\x7fELF"));
}

#[test]
fn what_is_compiled_is_kept() {
    load_nvrtc();
    if let Err(reason) = Nvrtc::load() {
        return println!("skipped: {reason}");
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kernels-{}", std::process::id()));
    let open = || {
        emulator::driver();
        let gpu = Gpu::open(0, Options { cache: Some(cache.clone()), ..emulator::options(1) }).unwrap();
        gpu.kernels().iter().map(|(_, origin)| origin.clone()).collect::<Vec<_>>()
    };
    let kept = || {
        let mut files: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    assert_eq!(open(), [Origin::Compiled, Origin::Compiled, Origin::Compiled]);
    assert_eq!(kept().len(), SOURCES.len());
    assert!(kept().iter().all(|path| path.to_string_lossy().contains("-sm_90-nvrtc-")), "{:?}", kept());
    assert_eq!(open(), [Origin::Cached, Origin::Cached, Origin::Cached]);
    // A kept one that the driver refuses (the first, of scores) is made anew; so is one that is empty (JSON's, the second by name).
    fs::write(&kept()[1], "").unwrap();
    emulator::fail("cuModuleLoadData", 200, 0);
    assert_eq!(open(), [Origin::Compiled, Origin::Compiled, Origin::Cached]);
    emulator::fail("", 0, -1);
    assert!(kept().iter().all(|path| fs::read(path).unwrap().starts_with(b"\x7fELF")));
    // A folder that can't be written costs nothing but the next start's time.
    fs::remove_dir_all(&cache).unwrap();
    fs::write(&cache, "a file").unwrap();
    assert_eq!(open(), [Origin::Compiled, Origin::Compiled, Origin::Compiled]);
    fs::remove_file(&cache).unwrap();
}

/// Puts NVRTC, wherever it is, where it is found by its name.
fn load_nvrtc() {
    let Some(folder) = nvrtc_folders().into_iter().find(|folder| !libraries(folder, "libnvrtc.so").is_empty()) else { return };
    for path in libraries(&folder, "libnvrtc-builtins.so").into_iter().chain(libraries(&folder, "libnvrtc.so")) {
        // SAFETY: NVIDIA's own library.
        std::mem::forget(unsafe { libloading::Library::new(&path) }.unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    }
}

fn libraries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))).collect()
}

fn nvrtc_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("TIDEGATE_NVRTC").map(PathBuf::from).into_iter().collect();
    let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let caches = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/tidegate"));
    for environment in caches.into_iter().flat_map(below) {
        for python in below(environment.join("lib")) {
            folders.extend(below(python.join("site-packages/nvidia")).map(|package| package.join("lib")));
        }
    }
    folders
}
