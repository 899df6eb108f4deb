//! Decoding on a GPU gives what decoding on the CPU gives, record by record: rows, errors, drift. The GPU is the kernels' emulator, behind a stand-in for
//! NVIDIA's driver; that the kernels did the work, and not the CPU, is counted.
#![allow(clippy::unwrap_used)]

#[path = "../kernels/tests/common/emulator.rs"]
mod emulator;

use std::sync::{Arc, atomic::Ordering};

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tidegate::{
    catalog::{Definition, SourceDef},
    decode::{Decoded, Decoder, Drift},
    device::Devices,
    source::{
        RecordsBuilder, Slice,
        matches::{SimulateOptions, SimulatedMatches},
    },
    sql,
    stream::decoding::{SourceDecoding, Wanted},
};
use tidegate_kernels::device::Device;

const PARTITIONS: usize = 4;

fn source(columns: &str, more: &str) -> Arc<SourceDef> {
    let text = format!("CREATE SOURCE s ({columns}) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json'{more})");
    let Definition::Source(source) = sql::parse_definition(&text).unwrap() else { panic!("no source") };
    source
}

/// What the demo declares of match events.
fn match_events() -> Arc<SourceDef> {
    source(
        "match_id BIGINT, team TEXT PATH '$.team.name', player TEXT PATH '$.player.name', type_name TEXT PATH '$.type.name', minute INT, period INT,
         under_pressure BOOLEAN, xg DOUBLE PATH '$.shot.statsbomb_xg', event_time TIMESTAMP, part INT METADATA FROM 'partition',
         WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds'",
        "",
    )
}

/// A payload changed so that it is read in another way, or not at all.
fn changed(payload: &[u8], random: &mut ChaCha8Rng) -> Option<Vec<u8>> {
    let text = String::from_utf8(payload.to_vec()).unwrap();
    let at = random.random_range(0..text.len());
    let within = |more: &str| Some(format!("{{{more},{}", &text[1..]).into_bytes());
    match random.random_range(0..14) {
        0 => None,
        1 => Some(payload[..at].to_vec()),
        2 => Some([&payload[..at], &[random.random_range(0..=255)], &payload[at..]].concat()),
        3 => within(r#""minute":3000000000"#),
        4 => within(r#""minute":1e1"#),
        5 => within(r#""period":"one""#),
        6 => within(r#""player":{"name":"a \u00e9 \"quoted\" name that is long"}"#),
        7 => within(&format!(r#""new_{}":[1,{{"a":"b"}}]"#, random.random_range(0..5))),
        8 => within(r#""team":null"#),
        9 => Some(format!("[{text},{text}]").into_bytes()),
        10 => Some(format!(" {text} \n").into_bytes()),
        11 => within(r#""event_time":"2999-01-01T00:00:00Z""#),
        12 => within(r#""shot":{"statsbomb_xg":0.12345678901234567890123}"#),
        _ => Some(text.replace(r#""match_id""#, r#""match\u005fid""#).into_bytes()),
    }
}

/// Slices of match events, of which one in so many is changed.
fn slices(events: usize, one_in: u32, seed: u64) -> Vec<Slice> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let options = SimulateOptions { seed, ..SimulateOptions::default() };
    let begin = |piece: usize| (piece / PARTITIONS) as i64 * 1_000_000;
    let mut pieces: Vec<(RecordsBuilder, i64)> = (0..PARTITIONS * 3).map(|piece| (RecordsBuilder::new(), begin(piece))).collect();
    for event in SimulatedMatches::new(&options).take(events) {
        // Several pieces a partition, as a reader makes them.
        let piece = event.match_id as usize % PARTITIONS + PARTITIONS * random.random_range(0..3);
        let payload = if random.random_range(0..one_in) == 0 { changed(&event.payload, &mut random) } else { Some(event.payload.clone()) };
        let (builder, offset) = &mut pieces[piece];
        builder.push(*offset, Some(event.event_time_ms), Some(event.key().as_bytes()), payload.as_deref(), vec![]);
        *offset += random.random_range(1..3);
    }
    let slice = |(piece, (builder, end)): (usize, (RecordsBuilder, i64))| Slice {
        partition: (piece % PARTITIONS) as i32,
        begin: begin(piece),
        end,
        records: builder.finish(),
    };
    pieces.into_iter().enumerate().map(slice).collect()
}

fn decoding(source: &Arc<SourceDef>, needed: &[usize], device: Device) -> SourceDecoding {
    SourceDecoding::new(Wanted { def: source.clone(), needed: needed.to_vec(), device }).unwrap()
}

#[track_caller]
fn same(on_gpu: &[Decoded], on_cpu: &[Decoded]) {
    assert_eq!(on_gpu.len(), on_cpu.len());
    for (gpu, cpu) in on_gpu.iter().zip(on_cpu) {
        assert_eq!(gpu.errors, cpu.errors);
        assert_eq!((&gpu.record_of, &gpu.event_time, &gpu.gone), (&cpu.record_of, &cpu.event_time, &cpu.gone));
        assert_eq!(gpu.batch, cpu.batch);
        assert_eq!(in_order(&gpu.drift), in_order(&cpu.drift));
    }
}

/// In which order a decoder tells of fields depends on which it met first.
fn in_order(drift: &Drift) -> Drift {
    let mut drift = drift.clone();
    for fields in [&mut drift.new.fields, &mut drift.missing.fields, &mut drift.retyped.fields] {
        fields.sort_by_key(|field| format!("{:?}", field.path));
    }
    drift
}

fn rows_on_gpu() -> u64 {
    Devices::get().totals.rows.load(Ordering::Relaxed)
}

fn left_over() -> u64 {
    Devices::get().totals.left_over.load(Ordering::Relaxed)
}

/// One after the other: they share the process's GPU, and the last loses it.
#[test]
fn a_gpu_changes_nothing() {
    emulator::driver();
    events_as_they_are();
    events_of_all_kinds();
    rows_of_keys();
    more_keys_than_a_gpu_is_told_of();
    what_is_not_for_a_gpu();
    batches_that_fail();
    a_gpu_that_is_lost();
}

fn events_as_they_are() {
    let source = match_events();
    let (gpu, cpu) = (decoding(&source, &[0, 1, 3, 7, 8, 9], Device::Gpu), decoding(&source, &[0, 1, 3, 7, 8, 9], Device::Cpu));
    for seed in 0..3 {
        let slices = slices(3000, u32::MAX, seed);
        let (rows, left) = (rows_on_gpu(), left_over());
        same(&gpu.decode(&slices, 0, 2).unwrap(), &cpu.decode(&slices, 0, 2).unwrap());
        let (rows, left) = (rows_on_gpu() - rows, left_over() - left);
        let all: usize = slices.iter().map(|slice| slice.records.len()).sum();
        assert_eq!(rows as usize, all);
        assert!(left * 20 < rows, "{left} of {rows} were left to the CPU");
    }
}

fn events_of_all_kinds() {
    let source = match_events();
    for (seed, needed) in [(3, vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), (4, vec![]), (5, vec![1, 6]), (6, vec![8]), (7, vec![2, 4, 7])] {
        let (gpu, cpu) = (decoding(&source, &needed, Device::Gpu), decoding(&source, &needed, Device::Cpu));
        for round in 0..3 {
            let slices = slices(1500, 4, seed * 10 + round);
            let (on_gpu, on_cpu) = (gpu.decode(&slices, 0, 1).unwrap(), cpu.decode(&slices, 0, 1).unwrap());
            same(&on_gpu, &on_cpu);
            let errors: usize = on_cpu.iter().map(|decoded| decoded.errors.len()).sum();
            assert!(errors > 50 && on_cpu.iter().any(|decoded| decoded.drift.new.records > 0), "{errors} errors");
        }
    }
}

fn rows_of_keys() {
    let source = source("id INT PRIMARY KEY, name TEXT, n BIGINT", "");
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let (gpu, cpu) = (decoding(&source, &[0, 1, 2], Device::Gpu), decoding(&source, &[0, 1, 2], Device::Cpu));
    for _ in 0..3 {
        let mut records = RecordsBuilder::new();
        for offset in 0..2000 {
            let key = [format!("{}", offset % 50), format!(r#"{{"id":{}}}"#, offset % 50), "none".into()].choose(&mut random).unwrap().clone();
            let value = match random.random_range(0..10) {
                0 => None,
                1 => Some(r#"[{"name":"a"},{"name":"b"}]"#.to_string()),
                _ => Some(format!(r#"{{"id":{offset},"name":"a name of more than twelve bytes {offset}","n":{offset}}}"#)),
            };
            records.push(offset, None, Some(key.as_bytes()), value.as_deref().map(str::as_bytes), vec![]);
        }
        let slices = [Slice { partition: 0, begin: 0, end: 2000, records: records.finish() }];
        let before = rows_on_gpu();
        same(&gpu.decode(&slices, 0, 1).unwrap(), &cpu.decode(&slices, 0, 1).unwrap());
        assert_eq!(rows_on_gpu(), before + 2000);
    }
}

fn more_keys_than_a_gpu_is_told_of() {
    let source = source("id BIGINT, text TEXT", "");
    let (gpu, cpu) = (decoding(&source, &[0, 1], Device::Gpu), decoding(&source, &[0, 1], Device::Cpu));
    for round in 0..3 {
        let mut records = RecordsBuilder::new();
        for offset in 0..3000 {
            // Most records have none of 400 keys, some have one, some one that is too long to be told of.
            let more = match offset % 10 {
                0 => format!(r#","key {}":1"#, offset / 10 + round * 50),
                1 => format!(r#","{}":1"#, "k".repeat(70 + offset as usize % 3)),
                _ => String::new(),
            };
            records.push(
                offset,
                None,
                None,
                Some(format!(r#"{{"id":{offset},"text":"some text of more than twelve bytes {offset}"{more}}}"#).as_bytes()),
                vec![],
            );
        }
        let slices = [Slice { partition: 0, begin: 0, end: 3000, records: records.finish() }];
        let (rows, left) = (rows_on_gpu(), left_over());
        same(&gpu.decode(&slices, 0, 1).unwrap(), &cpu.decode(&slices, 0, 1).unwrap());
        assert_eq!(rows_on_gpu(), rows + 3000);
        assert!((300..=600).contains(&(left_over() - left)), "{}", left_over() - left);
    }
}

fn what_is_not_for_a_gpu() {
    let reason = |source: Arc<SourceDef>| Decoder::new(&source, &[]).unwrap().not_on_device().map(String::from);
    assert_eq!(reason(match_events()), None);
    for (columns, more, part) in [
        ("a BIGINT, b STRUCT<c DOUBLE>", "", "column b is of type Struct"),
        ("a TIMESTAMP FORMAT 'epoch_ms'", "", "column a is a timestamp in another notation"),
        ("a BIGINT, b TEXT METADATA FROM 'unknown'", "", "column b is METADATA FROM 'unknown'"),
        ("a BIGINT", ", 'headers.filter' = 'x=y'", "a filter on headers"),
        ("a BIGINT, b BIGINT PATH '$.a'", "", "path 1 and an earlier one are the same"),
    ] {
        let reason = reason(source(columns, more)).unwrap();
        assert!(reason.contains(part), "{reason}");
    }
    // And is done by the CPU.
    let twice = source("a BIGINT, b BIGINT PATH '$.a'", "");
    let before = rows_on_gpu();
    let slices = slices(200, 3, 9);
    same(&decoding(&twice, &[0, 1], Device::Gpu).decode(&slices, 0, 1).unwrap(), &decoding(&twice, &[0, 1], Device::Cpu).decode(&slices, 0, 1).unwrap());
    assert_eq!(rows_on_gpu(), before);
}

fn batches_that_fail() {
    let source = match_events();
    let (gpu, cpu) = (decoding(&source, &[0, 1, 8], Device::Gpu), decoding(&source, &[0, 1, 8], Device::Cpu));
    let failed = || Devices::get().totals.failed.load(Ordering::Relaxed);
    let small = slices(300, 10, 10);
    same(&gpu.decode(&small, 0, 1).unwrap(), &cpu.decode(&small, 0, 1).unwrap());
    // There is no memory for a larger batch; later there is.
    let large = slices(6000, 10, 11);
    let (before, rows) = (failed(), rows_on_gpu());
    emulator::fail("cuMemAlloc_v2", 2, 0);
    same(&gpu.decode(&large, 0, 1).unwrap(), &cpu.decode(&large, 0, 1).unwrap());
    emulator::fail("", 0, -1);
    assert_eq!(failed(), before + 1);
    same(&gpu.decode(&large, 0, 1).unwrap(), &cpu.decode(&large, 0, 1).unwrap());
    assert!(failed() == before + 1 && rows_on_gpu() > rows);
}

fn a_gpu_that_is_lost() {
    let source = match_events();
    let (gpu, cpu) = (decoding(&source, &[0, 1, 8], Device::Gpu), decoding(&source, &[0, 1, 8], Device::Cpu));
    let slices = slices(3000, 10, 12);
    same(&gpu.decode(&slices, 0, 1).unwrap(), &cpu.decode(&slices, 0, 1).unwrap());
    // CUDA_ERROR_ILLEGAL_ADDRESS, in the middle of an epoch.
    emulator::fail("cuLaunchKernel", 700, 0);
    let rows = rows_on_gpu();
    same(&gpu.decode(&slices, 0, 1).unwrap(), &cpu.decode(&slices, 0, 1).unwrap());
    emulator::fail("", 0, -1);
    assert_eq!(Devices::get().totals.lost.load(Ordering::Relaxed), 1);
    let reason = Devices::get().gpu().unwrap_err();
    assert!(reason.contains("is lost") && reason.contains("700"), "{reason}");
    // For a while nobody asks it again.
    same(&gpu.decode(&slices, 0, 1).unwrap(), &cpu.decode(&slices, 0, 1).unwrap());
    assert_eq!(rows_on_gpu(), rows);
    // Then it is opened anew, and has the source's columns put there again.
    std::thread::sleep(std::time::Duration::from_secs(11));
    same(&gpu.decode(&slices, 0, 1).unwrap(), &cpu.decode(&slices, 0, 1).unwrap());
    assert!(rows_on_gpu() > rows);
}
