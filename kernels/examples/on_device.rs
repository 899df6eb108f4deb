//! Runs every kernel against its CPU reference on a real device, with large random inputs, and measures both. Needs nothing beside itself.
//!
//! Prints a line of JSON per finding: `check` lines (equal or not), then `rate` lines. Ends with 1 if something is not equal.
//! `on_device [SCALE]`: 1 is for a real device; less, for instance 0.002, for the emulated one.

#[path = "../tests/common/random.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod random;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use random::{Payload, Random, TreeArrays};
use tidegate_kernels::{
    aggregate::{self, Batch, DeviceAggregator, Input, Values, Windows},
    device::{self, Gpu, Options, Timing},
    forest::{DeviceForest, Forest},
    json::{self, DeviceDecoder, Schema},
};

type Failure = Box<dyn std::error::Error>;

/// How often each measurement repeats its batch.
const REPEATS: usize = 24;

fn main() -> Result<(), Failure> {
    let scale: f64 = std::env::args().nth(1).map_or(Ok(1.0), |text| text.parse())?;
    let sized = |rows: usize| ((rows as f64 * scale) as usize).max(100);
    println!("{{\"probe\": {:?}}}", format!("{:?}", device::probe()));
    let wrong = AtomicUsize::new(0);
    // Each kernel on a device opened anew, so that one that fails doesn't take the others with it.
    let kernels: [(&str, Section); 3] = [("forest", forest), ("aggregation", aggregation), ("json", json)];
    for (name, section) in kernels {
        if let Err(error) = open().and_then(|gpu| section(&gpu, &wrong, &sized)) {
            println!("{{\"failed\": {name:?}, \"error\": {:?}}}", error.to_string());
            wrong.fetch_add(1, Ordering::Relaxed);
        }
    }
    println!("{{\"wrong\": {}}}", wrong.load(Ordering::Relaxed));
    if wrong.into_inner() > 0 { Err("some results are not equal".into()) } else { Ok(()) }
}

/// What runs one kernel: on this device, counting what is wrong, with batches sized like this.
type Section = fn(&Gpu, &AtomicUsize, &dyn Fn(usize) -> usize) -> Result<(), Failure>;

fn open() -> Result<Gpu, Failure> {
    let begun = Instant::now();
    let gpu = Gpu::open(0, Options { slots: 3, memory_limit: 16 << 30, cache: Some(std::env::temp_dir().join("tidegate-kernels")) })?;
    println!("{{\"open_ms\": {}, \"processors\": {}, \"kernels\": {:?}}}", begun.elapsed().as_millis(), gpu.processors(), format!("{:?}", gpu.kernels()));
    Ok(gpu)
}

fn check(wrong: &AtomicUsize, what: &str, equal: bool) {
    println!("{{\"check\": \"{what}\", \"equal\": {equal}}}");
    wrong.fetch_add(usize::from(!equal), Ordering::Relaxed);
}

/// Measures batches one after the other, and by as many callers at once as there are slots; then the reference, once.
fn measure<E: Into<Failure> + Send>(
    what: &str,
    rows: usize,
    bytes: usize,
    run: impl Fn() -> Result<Timing, E> + Sync,
    reference: impl FnOnce(),
) -> Result<(), Failure> {
    run().map_err(Into::into)?;
    let mut least = Timing { copy_in: Duration::MAX, compute: Duration::MAX, copy_out: Duration::MAX };
    let begun = Instant::now();
    for _ in 0..REPEATS {
        let timing = run().map_err(Into::into)?;
        least.copy_in = least.copy_in.min(timing.copy_in);
        least.compute = least.compute.min(timing.compute);
        least.copy_out = least.copy_out.min(timing.copy_out);
    }
    let alone = begun.elapsed() / REPEATS as u32;
    let begun = Instant::now();
    thread::scope(|scope| {
        let callers: Vec<_> = (0..3).map(|_| scope.spawn(|| (0..REPEATS).try_for_each(|_| run().map(|_| ())))).collect();
        callers.into_iter().try_for_each(|caller| caller.join().map_err(|_| Failure::from("a caller panicked"))?.map_err(Into::into))
    })?;
    let together = begun.elapsed() / (3 * REPEATS as u32);
    let begun = Instant::now();
    reference();
    let cpu = begun.elapsed();
    let rate = |time: Duration| {
        let seconds = time.as_secs_f64().max(1e-9);
        format!("{{\"us\": {:.1}, \"mrows_s\": {:.2}, \"gb_s\": {:.3}}}", seconds * 1e6, rows as f64 / seconds / 1e6, bytes as f64 / seconds / 1e9)
    };
    println!(
        "{{\"rate\": \"{what}\", \"rows\": {rows}, \"bytes\": {bytes}, \"resident\": {}, \"copy_in\": {}, \"copy_out_us\": {:.1}, \"one_caller\": {}, \
         \"three_callers\": {}, \"cpu_one_core\": {}}}",
        rate(least.compute),
        rate(least.copy_in),
        least.copy_out.as_secs_f64() * 1e6,
        rate(alone),
        rate(together),
        rate(cpu)
    );
    Ok(())
}

fn forest(gpu: &Gpu, wrong: &AtomicUsize, sized: &dyn Fn(usize) -> usize) -> Result<(), Failure> {
    let mut random = Random(11);
    for (trees, depth, width, classes, rows) in [(100, 8, 16, 3, 1 << 20), (300, 12, 40, 2, 1 << 18), (50, 6, 100, 9, 1 << 17), (100, 8, 16, 3, 1 << 13)] {
        let rows = sized(rows);
        let arrays: Vec<TreeArrays> = (0..trees).map(|_| TreeArrays::random(&mut random, width, classes, depth)).collect();
        let forest = Forest::new(width, classes, arrays.iter().map(TreeArrays::tree))?;
        let columns = random::features(&mut random, width, rows);
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let on_device = DeviceForest::new(gpu, &forest)?;
        let what = format!("forest, {trees} trees of depth {depth}, {width} features, {classes} classes");
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        check(wrong, &what, bits(&on_device.score(&columns)?) == bits(&forest.score(&columns)));
        let run = || on_device.begin(&columns)?.wait().map(|scored| scored.timing());
        measure(&what, rows, rows * width * 8, run, || drop(forest.score(&columns)))?;
    }
    Ok(())
}

fn aggregation(gpu: &Gpu, wrong: &AtomicUsize, sized: &dyn Fn(usize) -> usize) -> Result<(), Failure> {
    let mut random = Random(12);
    for (groups, rows) in [(1, 1 << 22), (100, 1 << 22), (10_000, 1 << 22), (100_000, 1 << 22), (1_000_000, 1 << 22), (100, 1 << 13)] {
        let rows = sized(rows);
        let keys: Vec<i64> = (0..rows).map(|_| random.below(groups) as i64 * 7 - 3).collect();
        let times: Vec<i64> = (0..rows).map(|_| random.next() as i64 >> 40).collect();
        let floats: Vec<f64> = (0..rows).map(|_| random.float()).collect();
        let integers: Vec<i64> = (0..rows).map(|_| random.next() as i64).collect();
        let (valid, selected) = (random.bitmap(rows), random.bitmap(rows));
        let inputs = [Input { values: Values::Float64(&floats), valid: Some(&valid) }, Input { values: Values::Int64(&integers), valid: None }];
        let windows = Windows::new(1 << 23, 5).ok_or("a width")?;
        let batch = Batch { keys: &keys, times: Some((&times, windows)), selected: Some(&selected), inputs: &inputs };
        let aggregator = DeviceAggregator::new(gpu, (groups as u32 * 5).next_power_of_two());
        let what = format!("aggregation, {groups} keys, 3 windows, a float and an integer");
        let same = format!("{:?}", aggregator.aggregate(&batch)?) == format!("{:?}", aggregate::aggregate(&batch)?);
        check(wrong, &what, same);
        let run = || aggregator.begin(&batch)?.wait().map(|(_, timing)| timing);
        measure(&what, rows, rows * 32, run, || drop(aggregate::aggregate(&batch)))?;
    }
    Ok(())
}

fn json(gpu: &Gpu, wrong: &AtomicUsize, sized: &dyn Fn(usize) -> usize) -> Result<(), Failure> {
    let mut random = Random(13);
    let schema = Schema::new(&random::columns())?;
    let decoder = DeviceDecoder::new(gpu, &schema)?;
    for (damage, rows) in [(true, 1 << 18), (false, 1 << 18), (false, 1 << 16), (false, 1 << 13), (false, 1 << 10)] {
        let rows = sized(rows);
        let mut payload = Payload::default();
        (0..rows).for_each(|_| payload.push(&random::row(&mut random, damage)));
        let what = format!("json, 9 columns, {} rows of {} bytes", if damage { "damaged" } else { "good" }, payload.bytes.len() / rows);
        let (found, expected) = (decoder.decode(&payload.rows())?, json::decode(&schema, &payload.rows()));
        println!("{{\"left_over\": {}, \"of\": {rows}}}", found.left_over().count());
        check(wrong, &what, found == expected);
        let run = || decoder.begin(&payload.rows())?.wait().map(|(_, timing)| timing);
        measure(&what, rows, payload.bytes.len(), run, || drop(json::decode(&schema, &payload.rows())))?;
    }
    Ok(())
}
