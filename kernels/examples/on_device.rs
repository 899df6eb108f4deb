//! Runs every kernel against its CPU reference on a real device, with large random inputs, and measures both. Needs nothing beside itself.
//!
//! Prints a line of JSON per finding: `check` lines (equal or not), then `rate` lines. Ends with 1 if something is not equal.
//! `on_device [SCALE]`: 1 is for a real device; less, for instance 0.002, for the emulated one.

#[path = "../tests/common/expressions.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod expressions;
#[path = "../tests/common/random.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod random;

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use random::{BoostedArrays, Declaration, Payload, Random, TreeArrays};
use tidegate_kernels::{
    aggregate::{self, Aggregates, Batch, DeviceAggregator, Groups, Input, Values, Windows},
    device::{self, DeviceError, Gpu, Options, Timing},
    expr::{self, Arithmetic, Comparison, DeviceProgram, Expr, Program, Type, Unit},
    json::{self, Cells, Column, Declared, Decoded, DeviceDecoder, Notes, Rows, Schema},
    score::{Boosted, Compare, DeviceModel, Forest, Linear, LinearForm, Link, Model},
};

type Failure = Box<dyn std::error::Error>;

/// How often each measurement repeats its batch.
const REPEATS: usize = 12;

fn main() -> Result<(), Failure> {
    let scale: f64 = std::env::args().nth(1).map_or(Ok(1.0), |text| text.parse())?;
    let sized = |rows: usize| ((rows as f64 * scale) as usize).max(100);
    println!("{{\"probe\": {:?}}}", format!("{:?}", device::probe()));
    let wrong = AtomicUsize::new(0);
    // Each kernel on a device opened anew, so that one that fails doesn't take the others with it.
    let kernels: [(&str, Section); 6] =
        [("json", json), ("forest", forest), ("boosted", boosted), ("linear", linear), ("aggregation", aggregation), ("expressions", expressions)];
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
    let gpu = Gpu::open(0, Options { slots: 3, memory_limit: 16 << 30, cache: Some(std::env::temp_dir().join("tidegate-kernels")), ..Options::default() })?;
    println!("{{\"open_ms\": {}, \"processors\": {}, \"kernels\": {:?}}}", begun.elapsed().as_millis(), gpu.processors(), format!("{:?}", gpu.kernels()));
    Ok(gpu)
}

fn check(wrong: &AtomicUsize, what: &str, equal: bool) {
    println!("{{\"check\": \"{what}\", \"equal\": {equal}}}");
    wrong.fetch_add(usize::from(!equal), Ordering::Relaxed);
}

/// A way to do a batch on the device.
type Run<'a> = &'a (dyn Fn() -> Result<Timing, Failure> + Sync);

/// Measures batches one after the other, and by as many callers at once as there are slots; both with the input copied from ordinary
/// memory, and (`in_place`) with input that is where the device takes it from. `cpu` is how many rows the reference did, and how long it took.
fn measure(what: &str, rows: usize, bytes: usize, run: Run<'_>, in_place: Option<Run<'_>>, cpu: (usize, Duration)) -> Result<(), Failure> {
    run()?;
    let mut least = Timing { copy_in: Duration::MAX, compute: Duration::MAX, copy_out: Duration::MAX };
    let begun = Instant::now();
    for _ in 0..REPEATS {
        let timing = run()?;
        least.copy_in = least.copy_in.min(timing.copy_in);
        least.compute = least.compute.min(timing.compute);
        least.copy_out = least.copy_out.min(timing.copy_out);
    }
    let alone = begun.elapsed() / REPEATS as u32;
    let together = together(run)?;
    let in_place = in_place.map(|run| Ok::<_, Failure>((one_after_the_other(run)?, crate::together(run)?))).transpose()?;
    let rate = |time: Duration, rows: usize, bytes: usize| {
        let seconds = time.as_secs_f64().max(1e-9);
        format!("{{\"us\": {:.1}, \"mrows_s\": {:.2}, \"gb_s\": {:.3}}}", seconds * 1e6, rows as f64 / seconds / 1e6, bytes as f64 / seconds / 1e9)
    };
    let all = |time: Duration| rate(time, rows, bytes);
    let (in_place_alone, in_place_together) = in_place.map_or(("null".into(), "null".into()), |(alone, together)| (all(alone), all(together)));
    println!(
        "{{\"rate\": \"{what}\", \"rows\": {rows}, \"bytes\": {bytes}, \"resident\": {}, \"copy_in\": {}, \"copy_out_us\": {:.1}, \"one_caller\": {}, \
         \"three_callers\": {}, \"in_place_one\": {in_place_alone}, \"in_place_three\": {in_place_together}, \"cpu_one_core\": {}}}",
        all(least.compute),
        all(least.copy_in),
        least.copy_out.as_secs_f64() * 1e6,
        all(alone),
        all(together),
        rate(cpu.1, cpu.0, bytes * cpu.0 / rows.max(1))
    );
    Ok(())
}

fn one_after_the_other(run: Run<'_>) -> Result<Duration, Failure> {
    let begun = Instant::now();
    (0..REPEATS).try_for_each(|_| run().map(|_| ()))?;
    Ok(begun.elapsed() / REPEATS as u32)
}

fn together(run: Run<'_>) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let repeat = || (0..REPEATS).try_for_each(|_| run().map(|_| ()).map_err(|error| error.to_string()));
    thread::scope(|scope| {
        let callers: Vec<_> = (0..3).map(|_| scope.spawn(repeat)).collect();
        callers.into_iter().try_for_each(|caller| caller.join().map_err(|_| Failure::from("a caller panicked"))?.map_err(Failure::from))
    })?;
    Ok(begun.elapsed() / (3 * REPEATS as u32))
}

/// Whether `same` holds for all ranges of rows, each a multiple of 8 but for the last; asked by all cores.
fn all_ranges(rows: usize, same: impl Fn(Range<usize>) -> bool + Sync) -> bool {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = rows.div_ceil(cores * 4).next_multiple_of(8).max(8);
    let next = AtomicUsize::new(0);
    let ask = || {
        loop {
            let start = next.fetch_add(share, Ordering::Relaxed);
            if start >= rows {
                return true;
            }
            if !same(start..rows.min(start + share)) {
                return false;
            }
        }
    };
    thread::scope(|scope| {
        let cores: Vec<_> = (0..cores).map(|_| scope.spawn(ask)).collect();
        cores.into_iter().all(|core| core.join().unwrap_or(false))
    })
}

/// How long the reference takes for the first rows.
fn time_reference(rows: usize, reference: impl FnOnce(usize)) -> (usize, Duration) {
    let begun = Instant::now();
    reference(rows);
    (rows, begun.elapsed())
}

fn forest(gpu: &Gpu, wrong: &AtomicUsize, sized: &dyn Fn(usize) -> usize) -> Result<(), Failure> {
    let mut random = Random(11);
    for (trees, depth, width, classes, rows) in [(100, 8, 16, 3, 1 << 20), (300, 12, 40, 2, 1 << 18), (50, 6, 100, 9, 1 << 17), (100, 8, 16, 3, 1 << 13)] {
        let arrays: Vec<TreeArrays> = (0..trees).map(|_| TreeArrays::random(&mut random, width, classes, depth)).collect();
        let model = Forest::new(width, classes, arrays.iter().map(TreeArrays::tree))?;
        let what = format!("forest, {trees} trees of depth {depth}, {width} features, {classes} classes");
        score(gpu, wrong, &what, &model, &random::features(&mut random, width, sized(rows)))?;
    }
    Ok(())
}

fn boosted(gpu: &Gpu, wrong: &AtomicUsize, sized: &dyn Fn(usize) -> usize) -> Result<(), Failure> {
    let mut random = Random(14);
    for (trees, depth, width, margins, rows) in [(100, 6, 16, 1, 1 << 20), (600, 8, 40, 3, 1 << 18), (1000, 6, 100, 1, 1 << 17), (100, 6, 16, 1, 1 << 13)] {
        let arrays: Vec<BoostedArrays> = (0..trees).map(|_| BoostedArrays::random(&mut random, width, margins, depth)).collect();
        let base: Vec<f64> = (0..margins).map(|_| random.unit() - 0.5).collect();
        let model = Boosted::new(width, Compare::Less, &base, link(margins), arrays.iter().map(BoostedArrays::tree))?;
        let what = format!("boosted, {trees} trees of depth {depth}, {width} features, {margins} margins");
        score(gpu, wrong, &what, &model, &random::features(&mut random, width, sized(rows)))?;
    }
    Ok(())
}

fn linear(gpu: &Gpu, wrong: &AtomicUsize, sized: &dyn Fn(usize) -> usize) -> Result<(), Failure> {
    let mut random = Random(15);
    for (width, margins, prepared, rows) in
        [(16, 1, false, 1 << 20), (16, 1, true, 1 << 20), (100, 3, true, 1 << 18), (100, 20, false, 1 << 17), (16, 1, false, 1 << 13)]
    {
        let mut numbers = |count: usize| (0..count).map(|_| random.unit() * 2.0 - 1.0).collect::<Vec<f64>>();
        let (coefficients, intercepts, fill) = (numbers(width * margins), numbers(margins), numbers(width));
        let (centre, scale) = if prepared { (numbers(width), numbers(width)) } else { (vec![], vec![]) };
        let form = LinearForm { coefficients: &coefficients, intercepts: &intercepts, link: link(margins), fill: &fill, centre: &centre, scale: &scale };
        let model = Linear::new(width, &form)?;
        let what = format!("linear, {width} features{}, {margins} margins", if prepared { " standardised" } else { "" });
        score(gpu, wrong, &what, &model, &random::features(&mut random, width, sized(rows)))?;
    }
    // What stays missing, and the exponential at every kind of number.
    let values: Vec<f64> = (0..sized(1 << 20)).map(|row| if row % 4 == 0 { random.float() } else { (random.unit() - 0.5) * 1500.0 }).collect();
    let one = LinearForm { coefficients: &[1.0], intercepts: &[0.0], link: Link::Sigmoid, fill: &[], centre: &[], scale: &[] };
    score(gpu, wrong, "sigmoid alone", &Linear::new(1, &one)?, std::slice::from_ref(&values))?;
    let two = LinearForm { coefficients: &[1.0, 0.25], intercepts: &[0.0, 1.0], link: Link::Softmax, ..one };
    score(gpu, wrong, "softmax of two alone", &Linear::new(1, &two)?, &[values])
}

fn link(margins: usize) -> Link {
    if margins == 1 { Link::Sigmoid } else { Link::Softmax }
}

/// Compares and measures a model on these rows.
fn score(gpu: &Gpu, wrong: &AtomicUsize, what: &str, model: &(dyn Model + Sync), columns: &[Vec<f64>]) -> Result<(), Failure> {
    let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    let (width, outputs, rows) = (model.width(), model.outputs(), columns[0].len());
    let on_device = DeviceModel::new(gpu, model)?;
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let found = on_device.score(&columns)?;
    let part = |range: Range<usize>| columns.iter().map(|column| &column[range.clone()]).collect::<Vec<_>>();
    let same = |range: Range<usize>| bits(&found[range.start * outputs..range.end * outputs]) == bits(&model.score(&part(range)));
    check(wrong, what, all_ranges(rows, same));
    let run = || Ok(on_device.begin(&columns)?.wait()?.timing());
    let in_place = || Ok(on_device.begin_in_place(rows, |_, _| {})?.wait()?.timing());
    let cpu = time_reference(rows.min(1 << 13), |rows| drop(model.score(&part(0..rows))));
    measure(what, rows, rows * width * 8, &run, Some(&in_place), cpu)
}

fn aggregation(gpu: &Gpu, wrong: &AtomicUsize, sized: &dyn Fn(usize) -> usize) -> Result<(), Failure> {
    let mut random = Random(12);
    for (groups, rows) in [(1, 1 << 22), (100, 1 << 22), (10_000, 1 << 22), (100_000, 1 << 22), (1_000_000, 1 << 20), (100, 1 << 13)] {
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
        let found = aggregator.aggregate(&batch)?;
        let begun = Instant::now();
        let expected = aggregate::aggregate(&batch)?;
        let cpu = (rows, begun.elapsed());
        check(wrong, &what, same_groups(&found, &expected));
        let run = || Ok(aggregator.begin(&batch)?.wait()?.1);
        measure(&what, rows, rows * 32, &run, None, cpu)?;
    }
    Ok(())
}

/// To the bit, but for NaNs, which are all one.
fn same_groups(a: &Groups, b: &Groups) -> bool {
    let same = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
    let inputs = a.inputs.iter().zip(&b.inputs).all(|(a, b)| match (a, b) {
        (Aggregates::Float64 { count, sum, min, max }, Aggregates::Float64 { count: other_count, sum: other_sum, min: other_min, max: other_max }) => {
            count == other_count && same(sum, other_sum) && same(min, other_min) && same(max, other_max)
        }
        _ => a == b,
    });
    (&a.keys, &a.bins, &a.rows, a.inputs.len()) == (&b.keys, &b.bins, &b.rows, b.inputs.len()) && inputs
}

fn json(gpu: &Gpu, wrong: &AtomicUsize, sized: &dyn Fn(usize) -> usize) -> Result<(), Failure> {
    let mut random = Random(13);
    let mut same = true;
    for _ in 0..40 {
        let declaration = Declaration::random(&mut random);
        let schema = declaration.schema();
        let mut payload = Payload::default();
        (0..sized(1 << 13)).for_each(|_| {
            let damage = random.once_in(3);
            payload.push(&declaration.row(&mut random, damage));
        });
        same &= DeviceDecoder::new(gpu, &schema)?.decode(&payload.rows())? == json::decode(&schema, &payload.rows());
    }
    check(wrong, "json, 40 schemas of all kinds", same);
    let columns = random::columns();
    let plain = Schema::new(&columns)?;
    let declared: Vec<_> = columns.iter().map(|(path, data_type)| Declared { path, data_type: *data_type, wanted: true }).collect();
    let notes = Notes { keys: vec!["extra".into()], seen: true, leave_unknown: true, leave_blocked: true };
    let noted = Schema::with_notes(&declared, &notes)?;
    let batches = [(&plain, true, 1 << 18), (&plain, false, 1 << 18), (&plain, false, 1 << 16), (&noted, false, 1 << 16), (&plain, false, 1 << 13)];
    for (schema, damage, rows) in batches.into_iter().chain([(&plain, false, 1 << 10)]) {
        let decoder = DeviceDecoder::new(gpu, schema)?;
        let rows = sized(rows);
        let mut payload = Payload::default();
        (0..rows).for_each(|_| payload.push(&random::row(&mut random, damage)));
        let what = format!(
            "json, 9 columns{}, {} rows of {} bytes",
            if schema.seen_words() > 0 { " and which keys" } else { "" },
            if damage { "damaged" } else { "good" },
            payload.bytes.len() / rows
        );
        let found = decoder.decode(&payload.rows())?;
        println!("{{\"left_over\": {}, \"of\": {rows}}}", found.left_over().count());
        let part = |range: Range<usize>| json::decode(schema, &Rows { payload: &payload.bytes, ranges: &payload.ranges[range] });
        check(wrong, &what, all_ranges(rows, |range| slice(&found, range.clone()) == part(range)));
        let run = || Ok(decoder.begin(&payload.rows())?.wait()?.1);
        let in_place = || Ok(decoder.begin_in_place(payload.bytes.len(), &payload.ranges, |_| {})?.wait_in_place()?.timing());
        let cpu = time_reference(rows.min(1 << 14), |rows| drop(part(0..rows)));
        measure(&what, rows, payload.bytes.len(), &run, Some(&in_place), cpu)?;
    }
    Ok(())
}

/// Kernels that are made here, so only where NVRTC is.
fn expressions(gpu: &Gpu, wrong: &AtomicUsize, sized: &dyn Fn(usize) -> usize) -> Result<(), Failure> {
    let mut random = Random(14);
    for number in 0..12 {
        let program = expressions::program(&mut random, 8);
        let on_device = match DeviceProgram::new(gpu, &program) {
            Err(error @ DeviceError::NoCompiler { .. }) => {
                println!("{{\"skipped\": \"expressions\", \"reason\": {:?}}}", error.to_string());
                return Ok(());
            }
            made => made?,
        };
        let data = expressions::Data::random(&mut random, sized(1 << 12));
        let whole = data.with(|batch| on_device.evaluate(batch) == expr::evaluate(&program, batch));
        // Most batches of so many rows have a fault in one: the others are compared without it.
        let sound: Vec<bool> = (0..data.rows).map(|row| data.slice(row, 1).with(|batch| expr::evaluate(&program, batch).is_ok())).collect();
        let sound = data.filtered(&sound);
        let rest = sound.with(|batch| on_device.evaluate(batch) == expr::evaluate(&program, batch));
        check(wrong, &format!("expressions, random program {number}, {} rows, {} of them sound", data.rows, sound.rows), whole && rest);
    }

    let (price, size, time) = (Expr::column(1, Type::Float64), Expr::column(0, Type::Int64), Expr::column(4, Type::Int64));
    let large = Expr::compare(Comparison::Greater, price.clone(), Expr::literal(expr::Value::Float64(-1.0)))?;
    let filter = Expr::and(large, Expr::column(2, Type::Boolean))?;
    let value = Expr::case(vec![(Expr::is_not_null(size.clone())?, Expr::arithmetic(Arithmetic::AddWrapping, size.clone(), size)?)], None)?;
    let minute = Expr::date_bin(time, Unit::Millisecond, 60_000_000_000, 0)?;
    let program = Program::new(Some(filter), vec![Expr::negate(price)?, value, minute])?;
    let on_device = DeviceProgram::new(gpu, &program)?;
    for rows in [1 << 22, 1 << 18, 1 << 13] {
        let data = expressions::Data::random(&mut random, sized(rows));
        data.with(|batch| {
            let begun = Instant::now();
            let expected = expr::evaluate(&program, batch);
            let cpu = (batch.rows, begun.elapsed());
            let what = "expressions, a filter and three projections over four columns";
            check(wrong, what, on_device.evaluate(batch) == expected && expected.is_ok());
            let run = || Ok(on_device.begin(batch)?.wait()?.1);
            measure(what, batch.rows, batch.rows * 24, &run, None, cpu)
        })?;
    }
    Ok(())
}

/// Some rows of columns, from a multiple of 8 on.
fn slice(decoded: &Decoded, range: Range<usize>) -> Decoded {
    let bits = |bits: &[u8]| {
        let mut bits = bits[range.start / 8..range.end.div_ceil(8)].to_vec();
        if let (Some(last), rest @ 1..) = (bits.last_mut(), range.len() % 8) {
            *last &= (1 << rest) - 1;
        }
        bits
    };
    let columns = decoded.columns.iter().map(|column| {
        let Column { valid, cells } = column.as_ref()?;
        let cells = match cells {
            Cells::Boolean(flags) => Cells::Boolean(bits(flags)),
            Cells::Int32(cells) => Cells::Int32(cells[range.clone()].to_vec()),
            Cells::UInt32(cells) => Cells::UInt32(cells[range.clone()].to_vec()),
            Cells::Int64(cells) => Cells::Int64(cells[range.clone()].to_vec()),
            Cells::Float64(cells) => Cells::Float64(cells[range.clone()].to_vec()),
            Cells::Text(cells) => Cells::Text(cells[range.clone()].to_vec()),
            Cells::Timestamp(cells) => Cells::Timestamp(cells[range.clone()].to_vec()),
            Cells::Raw(cells) => Cells::Raw(cells[range.clone()].to_vec()),
        };
        Some(Column { valid: bits(valid), cells })
    });
    let seen = decoded.seen.iter().map(|words| words[range.clone()].to_vec());
    Decoded { status: decoded.status[range.clone()].to_vec(), columns: columns.collect(), seen: seen.collect() }
}
