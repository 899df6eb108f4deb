//! How fast decoding is, as a ratio to arrow-json's reader over the same bytes and columns:
//! `CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test --workspace --lib -- decode::tests::measure --ignored --nocapture`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Events in the shape of StatsBomb's, about 600 bytes each: nested names, coordinates, some text beyond ASCII.
fn events(count: usize) -> Vec<String> {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let teams = ["Red Star United", "Atlético Example", "FC Somewhere"];
    let players = ["José Ñandú Pérez", "Max Mustermann", "Example Player Junior", "Ivan Ivić"];
    let kinds = ["Pass", "Ball Receipt*", "Carry", "Pressure", "Duel"];
    let event = |index: usize| {
        let id = format!("{:08x}-{:04x}-4000-8000-{:012x}", random.random::<u32>(), index & 0xffff, random.random::<u32>());
        let team = teams.choose(&mut random).unwrap();
        let player = players.choose(&mut random).unwrap();
        let mate = players.choose(&mut random).unwrap();
        let kind = kinds.choose(&mut random).unwrap();
        let (x, y) = (f64::from(random.random_range(0..1200)) / 10.0, f64::from(random.random_range(0..800)) / 10.0);
        let (minute, second) = (index / 60 % 90, index % 60);
        let more = match *kind {
            "Pass" => format!(
                r#","pass":{{"recipient":{{"id":5213,"name":"{mate}"}},"length":35.902645,"angle":1.7955076,"height":{{"id":1,"name":"Ground Pass"}},"end_location":[64.0,47.0],"body_part":{{"id":40,"name":"Right Foot"}}}}"#
            ),
            "Duel" => format!(
                r#","shot":{{"statsbomb_xg":{},"end_location":[120.0,38.1,1.2],"outcome":{{"id":97,"name":"Goal"}}}}"#,
                random.random_range(0.0..1.0f64)
            ),
            _ => String::new(),
        };
        format!(
            r#"{{"id":"{id}","index":{index},"period":1,"timestamp":"00:{minute:02}:{second:02}.042","minute":{minute},"second":{second},"type":{{"id":30,"name":"{kind}"}},"possession":6,"possession_team":{{"id":217,"name":"{team}"}},"play_pattern":{{"id":1,"name":"Regular Play"}},"team":{{"id":217,"name":"{team}"}},"player":{{"id":5470,"name":"{player}"}},"position":{{"id":15,"name":"Left Center Midfield"}},"location":[{x:.1},{y:.1}],"duration":2.286,"related_events":["3302d870-b256-4f0d-bc25-766578f645b5"]{more},"match_id":15946,"home_team":"{team}","away_team":"FC Somewhere","event_time":"2018-06-14T15:{:02}:{second:02}.042Z"}}"#,
            minute % 60
        )
    };
    (0..count).map(event).collect()
}

/// The best of several runs, in bytes per second.
fn rate(bytes: usize, mut run: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..15 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed());
    }
    bytes as f64 / best.as_secs_f64()
}

#[test]
#[ignore = "a measurement; run it optimised"]
fn against_arrow_json() {
    let events = events(20_000);
    let bytes: usize = events.iter().map(String::len).sum();
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let nested = |name: &str, path: &[&str], data_type| at(name, data_type, path, TimeFormat::Rfc3339);
    let columns = vec![
        column("match_id", DataType::Int64),
        column("minute", DataType::Int32),
        column("second", DataType::Int32),
        nested("type_name", &["type", "name"], DataType::Utf8View),
        nested("team", &["team", "name"], DataType::Utf8View),
        nested("player", &["player", "name"], DataType::Utf8View),
        nested("xg", &["shot", "statsbomb_xg"], DataType::Float64),
        column("event_time", time.clone()),
    ];
    let records = records(&events);
    let mut decoder = Decoder::new(&source(columns, Some("event_time")), &[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    let ours = rate(bytes, || {
        let decoded = decoder.decode(0, &records, i64::MAX / 1_000_000).unwrap();
        assert_eq!((decoded.batch.num_rows(), decoded.errors.len()), (events.len(), 0));
    });

    let object = |name: &str, field: &str, data_type| Field::new(name, DataType::Struct(vec![Field::new(field, data_type, true)].into()), true);
    let schema = Arc::new(Schema::new(vec![
        Field::new("match_id", DataType::Int64, true),
        Field::new("minute", DataType::Int32, true),
        Field::new("second", DataType::Int32, true),
        object("type", "name", DataType::Utf8View),
        object("team", "name", DataType::Utf8View),
        object("player", "name", DataType::Utf8View),
        object("shot", "statsbomb_xg", DataType::Float64),
        Field::new("event_time", time, true),
    ]));
    let lines = events.join("\n").into_bytes();
    let theirs = rate(bytes, || {
        let reader = arrow::json::ReaderBuilder::new(schema.clone()).with_batch_size(8192).build(lines.as_slice()).unwrap();
        assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), events.len());
    });
    let mut index = super::super::json::scan::Index::default();
    let marks = rate(bytes, || events.iter().for_each(|event| index.mark(event.as_bytes())));
    println!(
        "{} bytes an event; decode {:.0} MB/s, arrow-json {:.0} MB/s: {:.2} times as fast; marks alone {:.0} MB/s",
        bytes / events.len(),
        ours / 1e6,
        theirs / 1e6,
        ours / theirs,
        marks / 1e6
    );
}
