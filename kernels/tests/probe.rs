//! The device probe against drivers of every kind that can be made here: none, stand-ins built with the C compiler, and the real one
//! where there is one. Each is probed in a process of its own, since a process loads its driver once.

#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tidegate_kernels::device;

/// Set in the child process that does the probing.
const CHILD: &str = "TIDEGATE_PROBE_CHILD";
/// Precedes the answer in the child's output.
const ANSWER: &str = "answer: ";

/// Not a test of its own: what the child process runs.
#[test]
fn probe_in_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let first = device::probe();
    // The second probe, and the remembered one, find the same: the first left nothing behind. (What is free may change meanwhile.)
    for again in [&device::probe(), device::status()] {
        match (&first, again) {
            (Ok(first), Ok(again)) => assert_eq!(first.len(), again.len()),
            _ => assert_eq!(&first, again),
        }
    }
    println!("{ANSWER}{first:?}");
    if let Err(reason) = first {
        println!("{ANSWER}{reason}");
    }
}

/// Runs the probe in a process whose loader looks into `library_path` first; gives the answer's two lines.
fn probe_with(library_path: &Path) -> (String, String) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "probe_in_child", "--nocapture"]).env(CHILD, "1").env("LD_LIBRARY_PATH", library_path);
    let Output { status, stdout, stderr } = child.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "the probe took its process down: {status}\n{stdout}\n{stderr}");
    assert_eq!(stderr, "", "the probe is quiet");
    let mut answers = stdout.lines().filter_map(|line| line.split_once(ANSWER).map(|(_, answer)| answer.to_string()));
    (answers.next().unwrap(), answers.next().unwrap_or_default())
}

/// Builds the stand-in driver with these definitions and probes it; `None` (said aloud) without a C compiler.
fn probe_fake(name: &str, definitions: &[&str]) -> Option<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fake_driver").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_driver/libcuda.c");
    // The first name that is looked for, so that it comes before a real driver's libcuda.so.1.
    let library = folder.join("libcuda.so");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).args([&library, &source]).args(definitions).output();
    match compiled {
        Err(error) => {
            println!("skipped: no C compiler to build a stand-in driver with (cc: {error})");
            return None;
        }
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
    Some(probe_with(&folder))
}

#[test]
fn this_machine_as_it_is() {
    let (answer, sentence) = probe_with(Path::new(""));
    match answer.as_str() {
        "Err(NoDriver)" => assert!(sentence.contains("no NVIDIA driver is installed"), "{sentence}"),
        found => println!("{found}"),
    }
}

#[test]
fn a_driver_without_a_device() {
    let Some((answer, sentence)) = probe_fake("no_device", &["-DINIT=100"]) else { return };
    assert_eq!(answer, "Err(NoDevice)");
    assert!(sentence.starts_with("the NVIDIA driver sees no GPU"), "{sentence}");
    assert_eq!(probe_fake("no_devices", &["-DDEVICES=0"]).unwrap().0, "Err(NoDevice)");
}

#[test]
fn the_stub_of_a_toolkit() {
    let Some((answer, sentence)) = probe_fake("stub", &["-DINIT=34"]) else { return };
    assert_eq!(answer, "Err(Stub)");
    assert!(sentence.contains("linking stub"), "{sentence}");
    assert_eq!(probe_fake("bare_stub", &["-DINIT=34", "-DONLY_INIT"]).unwrap().0, "Err(Stub)");
}

#[test]
fn a_driver_that_is_too_old() {
    let Some((answer, sentence)) = probe_fake("without_count", &["-DWITHOUT_COUNT"]) else { return };
    assert_eq!(answer, r#"Err(DriverTooOld { missing: "cuDeviceGetCount", version: Some(12040) })"#);
    assert_eq!(sentence, "the NVIDIA driver (CUDA 12.4) is too old: it has no cuDeviceGetCount; install a newer driver");
    let (answer, _) = probe_fake("without_launch", &["-DWITHOUT_LAUNCH"]).unwrap();
    assert_eq!(answer, r#"Err(DriverTooOld { missing: "cuLaunchKernel", version: Some(12040) })"#);
    let (answer, _) = probe_fake("only_init", &["-DONLY_INIT"]).unwrap();
    assert_eq!(answer, r#"Err(DriverTooOld { missing: "cuDeviceGetCount", version: None })"#);
}

#[test]
fn a_library_that_is_no_driver() {
    let Some((answer, _)) = probe_fake("no_driver", &["-DcuInit=somethingElse", "-DONLY_INIT"]) else { return };
    assert_eq!(answer, r#"Err(DriverTooOld { missing: "cuInit", version: None })"#);
}

#[test]
fn a_driver_that_fails() {
    let Some((answer, sentence)) = probe_fake("init_fails", &["-DINIT=999"]) else { return };
    assert_eq!(answer, r#"Err(Driver { call: "cuInit", code: 999, name: Some("CUDA_ERROR_UNKNOWN") })"#);
    assert!(sentence.contains("answered cuInit with error 999 (CUDA_ERROR_UNKNOWN)"), "{sentence}");
    // A code that no list of ours knows, and that the driver has no name for.
    let (answer, _) = probe_fake("count_fails", &["-DCOUNT=31337"]).unwrap();
    assert_eq!(answer, r#"Err(Driver { call: "cuDeviceGetCount", code: 31337, name: None })"#);
}

#[test]
fn devices_are_described() {
    let Some((answer, _)) = probe_fake("two_devices", &["-DDEVICES=2"]) else { return };
    for part in [
        r#"ordinal: 0, name: "fake device", compute_capability: (9, 1), memory_total: 80000000000, memory_free: Ok(70000000000), driver_version: (12, 4)"#,
        r#"ordinal: 1, name: "another fake device""#,
    ] {
        assert!(answer.starts_with("Ok([") && answer.contains(part), "{answer}");
    }
    // The second device's memory can be asked for only if the first one's context was given up.
    assert_eq!(answer.matches("memory_free: Ok(70000000000)").count(), 2, "{answer}");
    let (answer, _) = probe_fake("long_name", &["-DLONG_NAME"]).unwrap();
    assert!(answer.contains(&format!("name: \"{}\"", "x".repeat(255))), "{answer}");
}

#[test]
fn a_device_that_others_hold_is_described_all_the_same() {
    let Some((answer, _)) = probe_fake("held", &["-DCONTEXT=46"]) else { return };
    let held = r#"memory_free: Err(Driver { call: "cuDevicePrimaryCtxRetain", code: 46, name: Some("CUDA_ERROR_DEVICE_UNAVAILABLE") })"#;
    assert!(answer.contains(r#"name: "fake device""#) && answer.contains(held), "{answer}");
}
