//! A device that fails: every driver call in turn, and what its callers see. One test after the other, since they share the driver.

#![allow(clippy::unwrap_used)]

#[path = "common/emulator.rs"]
mod emulator;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use tidegate_kernels::{
    device::{DeviceError, Gpu, GpuUnavailable, Nvrtc, Options, Origin, Plan, SOURCES},
    expr::{Batch, Buffer, DeviceProgram, EvaluateError, Expr, Program, Value},
    score::{DeviceModel, Forest, Model, Tree},
};

/// The driver as it should be, for one test alone.
struct Turn(#[allow(dead_code)] MutexGuard<'static, ()>);

impl Turn {
    fn begin() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        emulator::fail("", 0, -1);
        Self(turn)
    }
}

/// Nothing of a closed device is left.
fn nothing_is_held() {
    assert_eq!(emulator::live(), 0);
}

fn forest() -> Forest {
    let tree = Tree { feature: &[0, -1, -1], threshold: &[0.5, 0.0, 0.0], left: &[1, 0, 0], missing_left: &[], shares: &[1.0, 0.0, 0.25, 0.75] };
    Forest::new(1, 2, [tree, tree]).unwrap()
}

const ROWS: [f64; 3] = [0.0, 1.0, f64::NAN];

#[test]
fn a_device_is_opened_and_closed() {
    let _turn = Turn::begin();
    let gpu = emulator::open(2);
    assert_eq!((gpu.ordinal(), gpu.processors()), (0, 2));
    assert_eq!(gpu.kernels().len(), SOURCES.len());
    let scorer = DeviceModel::new(&gpu, &forest()).unwrap();
    assert_eq!(scorer.score(&[&ROWS]).unwrap(), forest().score(&[&ROWS]));
    let held = gpu.held();
    assert_eq!((held.slots, held.busy), (2, 0));
    assert!(held.device_bytes > held.host_bytes && held.host_bytes == 1 << 16, "{held:?}");
    let scoring = scorer.begin(&[&ROWS]).unwrap();
    assert_eq!(gpu.held().busy, 1);
    let scored = scoring.wait().unwrap();
    assert_eq!(gpu.held().busy, 1, "who reads the result has the slot");
    drop(scored);
    assert_eq!(gpu.held().busy, 0);
    // A batch that nobody waits for gives its slot back all the same.
    drop(scorer.begin(&[&ROWS]).unwrap());
    assert_eq!(gpu.held().busy, 0);
    drop(scorer);
    drop(gpu);
    nothing_is_held();
}

#[test]
fn a_device_that_is_not_there() {
    let _turn = Turn::begin();
    emulator::driver();
    let error = Gpu::open(1, emulator::options(1)).unwrap_err();
    assert!(matches!(error, DeviceError::Unavailable(GpuUnavailable::Driver { call: "cuDeviceGet", code: 101, .. })), "{error}");
}

#[test]
fn opening_fails_wherever_it_may() {
    let _turn = Turn::begin();
    for call in ["cuDevicePrimaryCtxRetain", "cuStreamCreate", "cuEventCreate"] {
        emulator::driver();
        emulator::fail(call, 46, 0);
        let error = Gpu::open(0, emulator::options(3)).unwrap_err();
        assert!(matches!(error, DeviceError::Unavailable(_)) && error.to_string().contains(call), "{error}");
        emulator::fail("", 0, -1);
        nothing_is_held();
    }
    for call in ["cuModuleLoadData", "cuModuleGetFunction"] {
        emulator::fail(call, 218, 0);
        match Gpu::open(0, emulator::options(1)) {
            // Where there is NVRTC: what it made was refused, the prebuilt PTX was not.
            Ok(gpu) => assert!(matches!(&gpu.kernels()[0].1, Origin::Prebuilt(reason) if reason.contains(call))),
            Err(error) => assert!(matches!(error, DeviceError::Kernels { .. }) && error.to_string().contains(call), "{error}"),
        }
        emulator::fail("", 0, -1);
    }
    assert!(emulator::open(1).slot(Plan::default()).is_ok());
}

#[test]
fn a_device_is_lost_in_the_middle_and_opened_again() {
    let _turn = Turn::begin();
    let calls = ["cuEventRecord", "cuMemcpyHtoDAsync_v2", "cuLaunchKernel", "cuMemcpyDtoHAsync_v2", "cuEventQuery", "cuEventElapsedTime"];
    for (call, code) in calls.into_iter().flat_map(|call| [(call, 719), (call, 1)]) {
        for after in 0..2 {
            let gpu = emulator::open(2);
            let scorer = DeviceModel::new(&gpu, &forest()).unwrap();
            assert!(scorer.score(&[&ROWS]).is_ok());
            emulator::fail(call, code, after);
            // One batch fails, or with a call of which each batch has one, the next.
            let error = (0..2).find_map(|_| scorer.score(&[&ROWS]).err()).unwrap();
            assert!(matches!(&error, DeviceError::Lost { call: failed, code: answer, .. } if *failed == call && *answer == code), "{error}");
            assert!(error.is_lost() && error.to_string().contains("its work is redone on the CPU"), "{error}");
            // From then on nothing is even tried.
            emulator::fail("", 0, -1);
            assert_eq!(scorer.score(&[&ROWS]), Err(error.clone()));
            assert_eq!(gpu.upload(vec![1]).err(), Some(error.clone()));
            assert_eq!(DeviceModel::new(&gpu, &forest()).err(), Some(error));
            assert_eq!(gpu.held().busy, 0);
            drop((gpu, scorer));
            nothing_is_held();
        }
    }
    let gpu = emulator::open(2);
    assert_eq!(DeviceModel::new(&gpu, &forest()).unwrap().score(&[&ROWS]).unwrap(), forest().score(&[&ROWS]));
}

#[test]
fn what_was_uploaded_is_of_one_opening() {
    let _turn = Turn::begin();
    let (first, second) = (emulator::open(1), emulator::open(1));
    let resident = first.upload(vec![0; 64]).unwrap();
    assert_eq!((resident.len(), resident.is_empty()), (64, false));
    let mut plan = Plan::default();
    let out = plan.output(64);
    // SAFETY: it is never run.
    unsafe {
        use tidegate_kernels::device::{Arg, Kernel};
        plan.launch(Kernel::AggregateBins, 1, 256, 0, vec![Arg::Resident(resident.clone()), Arg::Region(out)]);
    }
    let error = second.slot(plan).unwrap().submit().unwrap_err();
    assert!(matches!(error, DeviceError::Batch(_)) && error.to_string().contains("uploaded to another device"), "{error}");
    assert_eq!(second.held().busy, 0);
    // It may outlive the handle of its device.
    drop((first, second));
    assert_eq!(emulator::live(), 1);
    drop(resident);
    for _ in 0..1000 {
        if emulator::live() == 0 {
            return;
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    nothing_is_held();
}

#[test]
fn memory_runs_out() {
    let _turn = Turn::begin();
    let gpu = emulator::open(1);
    let scorer = DeviceModel::new(&gpu, &forest()).unwrap();
    assert!(scorer.score(&[&ROWS]).is_ok());
    let many = vec![0.25; 1 << 16];
    for (call, what) in [("cuMemAlloc_v2", "device memory"), ("cuMemHostAlloc", "pinned host memory")] {
        let before = gpu.held();
        emulator::fail(call, 2, 0);
        let error = scorer.score(&[&many]).unwrap_err();
        assert!(matches!(error, DeviceError::OutOfMemory { .. }) && !error.is_lost() && error.to_string().contains(what), "{error}");
        assert!(gpu.held().device_bytes <= before.device_bytes && gpu.held().host_bytes <= before.host_bytes);
        // It is no end: smaller batches go on, and so do large ones later.
        assert!(scorer.score(&[&ROWS]).is_ok());
    }
    assert_eq!(scorer.score(&[&many]).unwrap(), forest().score(&[&many]));
    assert!(gpu.upload(vec![0; 300 << 20]).unwrap_err().to_string().contains("268435456 are allowed"));
    drop((gpu, scorer));
    nothing_is_held();

    let small = Gpu::open(0, Options { memory_limit: 1 << 20, ..emulator::options(3) }).unwrap();
    let scorer = DeviceModel::new(&small, &forest()).unwrap();
    let error = scorer.score(&[&many]).unwrap_err();
    assert!(matches!(error, DeviceError::OverLimit { limit: 1_048_576, .. }), "{error}");
    assert!(scorer.score(&[&ROWS]).is_ok());
    assert!(small.held().device_bytes <= 1 << 20);
}

#[test]
fn many_callers_share_few_slots() {
    let _turn = Turn::begin();
    let gpu = emulator::open(3);
    let (scorer, forest) = (DeviceModel::new(&gpu, &forest()).unwrap(), forest());
    thread::scope(|scope| {
        for caller in 0..8 {
            let (scorer, forest, gpu) = (&scorer, &forest, &gpu);
            scope.spawn(move || {
                for batch in 0..30 {
                    let rows: Vec<f64> = (0..caller * 40 + batch).map(|row| f64::from((row * 7919 + batch) % 100) / 100.0).collect();
                    assert_eq!(scorer.score(&[&rows]).unwrap(), forest.score(&[&rows]));
                    let in_place = scorer.begin_in_place(rows.len(), |_, cells| cells.copy_from_slice(&rows)).unwrap().wait().unwrap();
                    assert_eq!(in_place.scores(), forest.score(&[&rows]));
                    assert!(gpu.held().busy <= 3);
                }
            });
        }
    });
    assert_eq!(gpu.held().busy, 0);
}

#[test]
fn callers_see_the_loss_of_a_device_that_many_use() {
    let _turn = Turn::begin();
    let gpu = emulator::open(3);
    let (scorer, forest) = (DeviceModel::new(&gpu, &forest()).unwrap(), forest());
    emulator::fail("cuLaunchKernel", 700, 40);
    let lost = thread::scope(|scope| {
        let callers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    // What a user of this crate does.
                    (0..30)
                        .filter(|_| match scorer.score(&[&ROWS]) {
                            Ok(scores) => scores != forest.score(&[&ROWS]),
                            Err(error) => error.is_lost(),
                        })
                        .count()
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum::<usize>()
    });
    // 40 launches went well; of those batches two more may have been under way.
    assert!((140..=142).contains(&lost), "{lost}");
    drop((gpu, scorer));
    nothing_is_held();
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let _turn = Turn::begin();
    let gpu = emulator::open(1);
    let mut plan = Plan::default();
    let (first, second, out, scratch) = (plan.input(100), plan.input(3 << 20), plan.output(8), plan.scratch(8));
    let mut slot = gpu.slot(plan).unwrap();
    let large: Vec<u8> = (0..3 << 20).map(|k| (k % 251) as u8).collect();
    assert!(slot.fill(&[(first, 96, &[1, 2, 3, 4]), (second, 0, &large), (first, 0, &[9]), (first, 5, &[])]).is_ok());
    assert_eq!((slot.write(first)[0], &slot.write(first)[96..]), (9, &[1, 2, 3, 4][..]));
    assert!(slot.write(second) == large);
    assert!(slot.fill(&[(first, 97, &[1, 2, 3, 4])]).is_err());
    assert!(slot.fill(&[(first, usize::MAX, &[1])]).is_err());
    assert!(slot.fill(&[(scratch, 0, &[1])]).is_err());
    assert!(slot.fill(&[(first, 0, &[1, 2]), (first, 1, &[1])]).is_err());
    assert!(slot.write(scratch).is_empty() && !out.is_empty());
}

/// A program that gives a number.
fn number(number: i64) -> Program {
    Program::new(None, vec![Expr::literal(Value::Int64(number))]).unwrap()
}

fn evaluate(program: &DeviceProgram) -> Result<Buffer, EvaluateError> {
    program.evaluate(&Batch { rows: 1, columns: &[] }).map(|mut evaluated| evaluated.results.remove(0).values)
}

#[test]
fn a_host_without_a_compiler_makes_no_kernels() {
    const CHILD: &str = "TIDEGATE_FAULTS_CHILD";
    if std::env::var_os(CHILD).is_none() {
        // In a process of its own, where no stand-in for NVRTC is loaded.
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "a_host_without_a_compiler_makes_no_kernels", "--nocapture"]).env(CHILD, "1").env(emulator::BUILT, emulator::library());
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    if Nvrtc::load().is_ok() {
        return println!("skipped: NVRTC is installed here");
    }
    let gpu = emulator::open(1);
    let error = DeviceProgram::new(&gpu, &number(1)).unwrap_err();
    assert!(matches!(error, DeviceError::NoCompiler { ordinal: 0, .. }) && !error.is_lost());
    let sentence = "GPU 0 can't be given kernels that are made at run time: NVRTC is not installed (libnvrtc is not found); \
                    install NVRTC, which is part of the CUDA toolkit";
    assert_eq!(error.to_string(), sentence);
    // The others are there all the same.
    assert!(DeviceModel::new(&gpu, &forest()).unwrap().score(&[&ROWS]).is_ok());
}

#[test]
fn made_kernels_are_loaded_once_and_a_bounded_number_of_them() {
    let _turn = Turn::begin();
    emulator::nvrtc();
    let gpu = Gpu::open(0, Options { made_kernels: 2, ..emulator::options(2) }).unwrap();
    let begun = emulator::compilations();
    let first = DeviceProgram::new(&gpu, &number(1)).unwrap();
    let again = DeviceProgram::new(&gpu, &number(1)).unwrap();
    let second = DeviceProgram::new(&gpu, &number(2)).unwrap();
    assert_eq!((emulator::compilations() - begun, gpu.held().made_kernels, emulator::loaded()), (2, 2, 2));
    let error = DeviceProgram::new(&gpu, &number(3)).unwrap_err();
    assert_eq!(error, DeviceError::TooManyKernels { ordinal: 0, most: 2 });
    // Half of the first one's handles are gone: it is still used.
    drop(first);
    assert_eq!(DeviceProgram::new(&gpu, &number(3)).unwrap_err(), error);
    assert_eq!(evaluate(&again), Ok(Buffer::Int64(vec![1])));
    // A kernel is kept as long as there is room, in case that it is asked for again, and who was asked for last stays longest.
    drop((again, second));
    drop(DeviceProgram::new(&gpu, &number(1)).unwrap());
    let third = DeviceProgram::new(&gpu, &number(3)).unwrap();
    let first = DeviceProgram::new(&gpu, &number(1)).unwrap();
    assert_eq!((emulator::compilations() - begun, gpu.held().made_kernels, emulator::loaded()), (3, 2, 2));
    drop(first);
    let second = DeviceProgram::new(&gpu, &number(2)).unwrap();
    assert_eq!((emulator::compilations() - begun, gpu.held().made_kernels, emulator::loaded()), (4, 2, 2));
    assert_eq!((evaluate(&second), evaluate(&third)), (Ok(Buffer::Int64(vec![2])), Ok(Buffer::Int64(vec![3]))));
    drop((second, third, gpu));
    assert_eq!(emulator::loaded(), 0);
    nothing_is_held();
}

#[test]
fn made_kernels_are_kept_on_disk() {
    let _turn = Turn::begin();
    emulator::nvrtc();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("made-{}", std::process::id()));
    let open = || Gpu::open(0, Options { cache: Some(cache.clone()), ..emulator::options(1) }).unwrap();
    let begun = emulator::compilations();
    let compiled = |value: i64, gpu: Gpu| {
        let before = emulator::compilations();
        assert_eq!(evaluate(&DeviceProgram::new(&gpu, &number(value)).unwrap()), Ok(Buffer::Int64(vec![value])));
        emulator::compilations() - before
    };
    let kept = || {
        let names = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<_> = names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("expr-")).collect();
        names.sort();
        names
    };
    assert_eq!((compiled(1, open()), compiled(1, open())), (1, 0));
    let name = kept().remove(0);
    assert!(name.to_string_lossy().ends_with("-sm_90-nvrtc-0.1.cubin"), "{name:?}");
    // One that the driver refuses is made anew.
    let gpu = open();
    emulator::fail("cuModuleLoadData", 200, 0);
    assert_eq!(compiled(1, gpu), 1);
    emulator::fail("", 0, -1);
    // So is one that is kept under the name of a text by which it wasn't made (as two may have), or that is cut short.
    assert_eq!(compiled(2, open()), 1);
    let other = kept().into_iter().find(|path| *path != name).unwrap();
    fs::copy(&other, &name).unwrap();
    assert_eq!((compiled(1, open()), compiled(1, open())), (1, 0));
    fs::write(&name, &fs::read(&name).unwrap()[..100]).unwrap();
    assert_eq!((compiled(1, open()), compiled(1, open())), (1, 0));
    assert_eq!(emulator::compilations() - begun, 5);
    fs::remove_dir_all(&cache).unwrap();
}

#[test]
fn made_kernels_fail() {
    let _turn = Turn::begin();
    emulator::nvrtc();
    let gpu = emulator::open(1);
    let error = gpu.make("expr", "nonsense;", "evaluate").unwrap_err();
    assert!(matches!(&error, DeviceError::Kernels { reason, .. } if reason.contains("expr.cu") && reason.contains("nonsense")), "{error}");
    assert!(gpu.make("expr", "", "a\0b").unwrap_err().to_string().contains("named"));
    // What is wrong with an image costs the device nothing.
    for (call, code) in [("cuModuleLoadData", 218), ("cuModuleLoadData", 2), ("cuModuleGetFunction", 500)] {
        emulator::fail(call, code, 0);
        let error = DeviceProgram::new(&gpu, &number(1)).unwrap_err();
        match code {
            2 => assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}"),
            _ => assert!(matches!(error, DeviceError::Kernels { .. }) && error.to_string().contains(call), "{error}"),
        }
        assert_eq!((gpu.held().made_kernels, emulator::loaded()), (0, 0));
    }
    emulator::fail("", 0, -1);
    let program = DeviceProgram::new(&gpu, &number(1)).unwrap();
    assert_eq!(evaluate(&program), Ok(Buffer::Int64(vec![1])));
    emulator::fail("cuLaunchKernel", 700, 0);
    let error = evaluate(&program).unwrap_err();
    assert!(matches!(&error, EvaluateError::Device(error) if error.is_lost()), "{error}");
    assert!(DeviceProgram::new(&gpu, &number(2)).unwrap_err().is_lost());
    drop((program, gpu));
    emulator::fail("", 0, -1);
    assert_eq!(emulator::loaded(), 0);
    nothing_is_held();

    // An answer that speaks of no image is the end of the device.
    let gpu = emulator::open(1);
    emulator::fail("cuModuleLoadData", 719, 0);
    assert!(DeviceProgram::new(&gpu, &number(1)).unwrap_err().is_lost());
    drop(gpu);
    emulator::fail("", 0, -1);
    nothing_is_held();
}
