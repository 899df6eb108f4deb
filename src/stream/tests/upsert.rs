//! Views over a source with a primary key: at every epoch a view equals the batch answer over the table of the newest row of each key.
//! Records, cuts, restarts are random; a failure names its seed.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use datafusion::{datasource::MemTable, prelude::SessionContext};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    batch::{bag, same},
    check::{open, snapshot},
    follow::Followed,
    mutants::Mutant,
};
use crate::{
    catalog::{Definition, SourceDef, ViewDef, ViewOptions},
    source::{RecordsBuilder, Slice},
    sql::{self, Statement},
    stream::{
        pipeline::{EpochCut, Pipeline},
        plan::{plan_view, standalone_state},
        published::Board,
        view::ViewRuntime,
    },
};

const MS: i64 = 1_000_000;

/// How many operators hold rows, and the query.
const CASES: &[(usize, &str)] = &[
    (1, "SELECT id, k, city, score, ts, off FROM users"),
    (1, "SELECT id, k, score FROM users"),
    // The key is not among the columns: equal rows of several keys.
    (1, "SELECT city FROM users WHERE score > 3"),
    (1, "SELECT upper(city) AS c, id FROM users WHERE city IS NOT NULL AND score % 2 = 0"),
    (1, "SELECT k, s + 1 AS s FROM (SELECT k, score AS s FROM users WHERE score BETWEEN 0 AND 6) WHERE s <> 2"),
    (1, "SELECT 1 AS one FROM users"),
    (2, "SELECT id, city FROM users WHERE score > 3 UNION ALL SELECT id, k FROM users WHERE score <= 6"),
    (2, "SELECT id, city FROM users WHERE ts > now() - INTERVAL '20 seconds'"),
    (1, "SELECT id, part, off, score FROM users WHERE part = 0"),
];

/// How the key is declared, and which of the columns it is.
const KEYS: &[(&str, &str, bool)] =
    &[("PRIMARY KEY (id)", "json", false), ("PRIMARY KEY (id) NOT ENFORCED", "text", false), ("PRIMARY KEY (k, id)", "json", true)];

#[derive(Debug, Clone)]
struct Row {
    city: Option<&'static str>,
    score: Option<i64>,
    ts: i64,
}

#[derive(Debug, Clone)]
enum Body {
    Row(Row),
    /// No payload.
    Gone,
    /// For `$errors`: of the payload, or of the key.
    Bad(Option<Vec<u8>>, &'static [u8]),
}

#[derive(Debug, Clone)]
struct Record {
    id: i64,
    k: &'static str,
    body: Body,
}

struct Run {
    key: (&'static str, &'static str, bool),
    partitions: i32,
    log: Vec<Vec<Record>>,
}

const CITIES: [Option<&str>; 4] = [None, Some("rome"), Some("oslo"), Some("a city whose name is longer than a view holds inline")];
const NAMES: [&str; 3] = ["a", "b", "a name that is longer than a view holds inline"];

impl Run {
    fn random(rng: &mut ChaCha8Rng) -> Self {
        Self { key: KEYS[rng.random_range(0..KEYS.len())], partitions: rng.random_range(1..4), log: vec![vec![]; 4] }
    }

    fn source(&self) -> Arc<SourceDef> {
        let (key, format, _) = self.key;
        let text = format!(
            "CREATE SOURCE users (id BIGINT, k TEXT PATH '$.k.name', city TEXT, score BIGINT, ts TIMESTAMP, part BIGINT METADATA FROM 'partition',
             off BIGINT METADATA FROM 'offset', WATERMARK FOR ts AS ts - INTERVAL '5 seconds', {key})
             WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json', 'key.format' = '{format}')"
        );
        let Definition::Source(source) = sql::parse_definition(&text).unwrap() else { panic!("no source") };
        source
    }

    /// The producer sends some more.
    fn produce(&mut self, rng: &mut ChaCha8Rng, now_ms: i64) {
        for _ in 0..rng.random_range(0..25) {
            let id = rng.random_range(0..12);
            let k = NAMES[rng.random_range(0..NAMES.len())];
            let body = match rng.random_range(0..20) {
                0..4 => Body::Gone,
                4 => Body::Bad(None, b"{\"score\": \"many\"}"),
                5 => Body::Bad(Some(b"{\"id\": tru".to_vec()), b"{\"ts\": \"1970-01-01T00:00:00Z\"}"),
                6 => Body::Bad(Some(b"{\"id\": null, \"k\": {\"name\": \"a\"}}".to_vec()), b""),
                7 => Body::Bad(None, b"[]"),
                _ => Body::Row(Row {
                    city: CITIES[rng.random_range(0..CITIES.len())],
                    // Often the same row again.
                    score: (!rng.random_bool(0.2)).then(|| rng.random_range(-1..8)),
                    ts: if rng.random_bool(0.3) { 0 } else { (now_ms - rng.random_range(0..40_000)) * MS },
                }),
            };
            // A key lives in one partition.
            let partition = id as i32 % self.partitions;
            self.log[partition as usize].push(Record { id, k, body });
        }
    }

    fn push(&self, builder: &mut RecordsBuilder, offset: i64, record: &Record) {
        let (_, format, both) = self.key;
        let key = match (&record.body, format, both) {
            (Body::Bad(Some(key), _), _, _) => key.clone(),
            (_, "text", _) => record.id.to_string().into_bytes(),
            // The value alone, or an object that has it.
            (_, _, false) if record.id % 2 == 0 => format!(" {} ", record.id).into_bytes(),
            (_, _, false) => format!("{{\"id\": {}, \"more\": [1]}}", record.id).into_bytes(),
            (..) => serde_json::json!({ "k": { "name": record.k }, "id": record.id }).to_string().into_bytes(),
        };
        let value = match &record.body {
            Body::Gone => None,
            Body::Bad(_, value) => Some(value.to_vec()),
            Body::Row(row) => {
                let time = chrono::DateTime::from_timestamp_nanos(row.ts).to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
                // What the payload says of the key does not count.
                Some(serde_json::json!({ "id": -1, "k": { "name": record.k }, "city": row.city, "score": row.score, "ts": time }).to_string().into_bytes())
            }
        };
        builder.push(offset, Some(100_000_000), Some(&key), value.as_deref(), vec![]);
    }

    /// The table at these offsets, and how many records were bad.
    fn table(&self, offsets: &BTreeMap<i32, i64>) -> (Vec<(i32, i64, Record, Row)>, u64) {
        let mut rows: BTreeMap<(i64, &str), (i32, i64, Record, Row)> = BTreeMap::new();
        let mut bad = 0;
        for (partition, upto) in offsets {
            for (offset, record) in self.log[*partition as usize][..*upto as usize].iter().enumerate() {
                let key = (record.id, if self.key.2 { record.k } else { "" });
                match &record.body {
                    Body::Row(row) => _ = rows.insert(key, (*partition, offset as i64, record.clone(), row.clone())),
                    Body::Gone => _ = rows.remove(&key),
                    Body::Bad(..) => bad += 1,
                }
            }
        }
        (rows.into_values().collect(), bad)
    }
}

/// DataFusion's answer over the table.
async fn batch(query: &str, table: &[(i32, i64, Record, Row)], now: i64) -> Vec<RecordBatch> {
    let mut context = SessionContext::new();
    tidegate_udfs::register(&mut context).unwrap();
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("k", DataType::Utf8View, true),
        Field::new("city", DataType::Utf8View, true),
        Field::new("score", DataType::Int64, true),
        Field::new("ts", time, true),
        Field::new("part", DataType::Int64, true),
        Field::new("off", DataType::Int64, true),
    ]));
    let columns = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(Int64Array::from_iter_values(table.iter().map(|r| r.2.id))),
            Arc::new(StringViewArray::from_iter_values(table.iter().map(|r| r.2.k))),
            Arc::new(StringViewArray::from_iter(table.iter().map(|r| r.3.city))),
            Arc::new(Int64Array::from_iter(table.iter().map(|r| r.3.score))),
            Arc::new(TimestampNanosecondArray::from_iter_values(table.iter().map(|r| r.3.ts))),
            Arc::new(Int64Array::from_iter_values(table.iter().map(|r| i64::from(r.0)))),
            Arc::new(Int64Array::from_iter_values(table.iter().map(|r| r.1))),
        ],
    )
    .unwrap();
    context.register_table("users", Arc::new(MemTable::try_new(schema, vec![vec![columns]]).unwrap())).unwrap();
    let query = query.replace("now()", &format!("arrow_cast({now}, 'Timestamp(Nanosecond, None)')"));
    let plan = context.state().statement_to_plan(sql::query_statement(sql::parse_query(&query).unwrap())).await.unwrap();
    context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()
}

fn view_def(query: &str) -> Arc<ViewDef> {
    let Statement::CreateContinuousView { def, .. } = sql::parse_one(&format!("CREATE CONTINUOUS VIEW v AS {query}")).unwrap() else { panic!("no view") };
    Arc::new(def)
}

async fn view(def: &Arc<ViewDef>, source: &Arc<SourceDef>) -> ViewRuntime {
    let state = standalone_state(&[source]).unwrap();
    let plan = plan_view(&state, sql::parse_query(&def.query).unwrap(), def.emit, &def.options).await.unwrap();
    ViewRuntime::new(def.clone(), 7, Arc::new(plan), &[source], BTreeMap::new(), 0).unwrap()
}

#[derive(Default)]
struct Seen {
    epochs: usize,
    /// Epochs that left the view as it was although they read something.
    unmoved: usize,
    updates: usize,
    bad: u64,
    restarts: usize,
}

async fn one_run(seed: u64) -> Seen {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (operators, query) = CASES[seed as usize % CASES.len()];
    let mut run = Run::random(&mut rng);
    // Over a key of one column the other name is one of the payload's.
    let (source, def) = (run.source(), view_def(query));
    let what = format!("seed {seed}, {:?}: {query}", run.key);
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    let board = Arc::new(Board::default());
    let mut pipeline = Pipeline::new(vec![(source.clone(), 1)], board.clone(), rng.random_range(1..3)).unwrap();
    pipeline.attach(view(&def, &source).await).unwrap();
    let mut followed = Followed::from(&board.current().views["v"], 0, &bag([]));
    let mut seen = Seen::default();
    let mut now_ms = 100_000_i64;
    let mut before = bag([]);
    for _ in 0..rng.random_range(6..30) {
        now_ms += rng.random_range(1..8_000);
        run.produce(&mut rng, now_ms);
        let offsets = pipeline.offsets("users");
        let mut slices = vec![];
        for partition in 0..run.partitions {
            let log = &run.log[partition as usize];
            let mut begin = offsets.get(&partition).copied().unwrap_or_default();
            // Sometimes several slices of one partition.
            while (begin as usize) < log.len() && rng.random_bool(0.7) {
                let end = rng.random_range(begin + 1..=log.len() as i64);
                let mut builder = RecordsBuilder::new();
                (begin..end).for_each(|offset| run.push(&mut builder, offset, &log[offset as usize]));
                slices.push(Slice { partition, begin, end, records: builder.finish() });
                begin = end;
            }
        }
        let read = !slices.is_empty();
        let cut = EpochCut { epoch: pipeline.epoch() + 1, now_ms, slices: BTreeMap::from([("users".to_string(), slices)]), ..EpochCut::default() };
        pipeline.run(&cut).await.unwrap();
        let published = board.current();
        let view_now = &published.views["v"];
        assert!(view_now.failure.is_none(), "{what}: {:?}", view_now.failure);
        assert_eq!(view_now.late_total, 0, "{what}");
        let (table, bad) = run.table(&pipeline.offsets("users"));
        assert_eq!(published.sources["users"].errors_total, bad, "{what}: bad records at epoch {}", cut.epoch);
        let want = bag(batch(&def.query, &table, now_ms * MS).await);
        let differs = |whose: &str, got| same(&got, &want, [whose, "the batch answer"]).map_err(|e| format!("{what}: epoch {}: {e}", cut.epoch));
        differs("the view", bag(snapshot(&view_now.contents))).unwrap();
        let changes = followed.take().unwrap();
        differs("the follower", followed.rows()).unwrap();
        // Net of the epoch: nobody sees a row come that is gone again at its end, nor one go that is there.
        if operators == 1 {
            let mut net: BTreeMap<&str, i64> = BTreeMap::new();
            changes.iter().for_each(|(row, weight)| *net.entry(row).or_default() += weight);
            if query.starts_with("SELECT id, k") {
                assert!(net.values().all(|weight| *weight != 0), "{what}: a row went and came again: {changes:?}");
            }
            assert_eq!(view_now.state_rows, table.len(), "{what}");
        }
        seen.epochs += 1;
        seen.unmoved += usize::from(read && want == before);
        seen.updates += changes.len();
        seen.bad = seen.bad.max(bad);
        before = want;

        let checkpoint = rng.random_bool(0.25);
        if checkpoint {
            store.write(pipeline.image().unwrap()).await.unwrap();
        }
        if rng.random_bool(0.2) {
            store = open(folder.path()).await;
            let restored = store.newest().await.unwrap();
            let epoch = pipeline.epoch();
            pipeline = Pipeline::new(vec![(source.clone(), 1)], board.clone(), 1).unwrap();
            let mut again = view(&def, &source).await;
            if let Some(mut restored) = restored {
                pipeline.restore(&mut restored).unwrap();
                assert!(again.restore(&mut restored).unwrap());
            }
            pipeline.attach(again).unwrap();
            before = bag(snapshot(&board.current().views["v"].contents));
            followed = Followed::from(&board.current().views["v"], pipeline.epoch(), &before);
            pipeline.skip_to(epoch);
            seen.restarts += 1;
        }
    }
    seen
}

#[tokio::test]
async fn every_epoch_equals_the_batch_answer_over_the_newest_rows() {
    let seeds: u64 = std::env::var("TIDEGATE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(144);
    let mut all = Seen::default();
    for seed in 0..seeds {
        let seen = one_run(seed).await;
        all.epochs += seen.epochs;
        all.unmoved += seen.unmoved;
        all.updates += seen.updates;
        all.bad += seen.bad;
        all.restarts += seen.restarts;
    }
    println!(
        "{} epochs of {seeds} seeds equal the batch answer over the newest rows: {} changes, {} epochs that changed nothing, {} bad records, {} restarts",
        all.epochs, all.updates, all.unmoved, all.bad, all.restarts
    );
    assert!(seeds < 100 || (all.unmoved > 20 && all.bad > 100 && all.restarts > 50), "the data had too little in it to show anything");
}

#[test]
fn newest_rows_that_are_not_are_found() {
    for mutant in [Mutant::TombstoneIgnored, Mutant::OlderWins, Mutant::StateForgotten, Mutant::RowLost] {
        let found = (0..3 * CASES.len() as u64).any(|seed| {
            std::panic::catch_unwind(|| {
                let _on = mutant.on();
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(one_run(seed))
            })
            .is_err()
        });
        assert!(found, "{mutant:?} was not found");
    }
}

async fn planned(query: &str) -> crate::error::Result<crate::stream::plan::ViewPlan> {
    let source = Run { key: KEYS[2], partitions: 1, log: vec![] }.source();
    let (state, options) = (standalone_state(&[&source]).unwrap(), ViewOptions { unbounded_state: true, ..ViewOptions::default() });
    let def = view_def(query);
    plan_view(&state, sql::parse_query(&def.query).unwrap(), def.emit, &options).await
}

#[tokio::test]
async fn a_view_has_the_key_of_its_source_if_all_of_it_is_there() {
    for (query, key) in [
        ("SELECT score, id AS i, k FROM users", Some(vec![2, 1])),
        ("SELECT * FROM (SELECT k AS a, id AS b FROM users WHERE score > 1) WHERE a <> 'x'", Some(vec![0, 1])),
        ("SELECT id, score FROM users", None),
        ("SELECT id + 1 AS id, k FROM users", None),
    ] {
        let plan = planned(query).await.unwrap();
        let sorted = |key: Option<Vec<usize>>| {
            key.map(|mut key| {
                key.sort_unstable();
                key
            })
        };
        assert_eq!(sorted(plan.key), sorted(key), "{query}");
        assert!(plan.changing);
        assert_eq!(plan.operators[0].description, "newest row of users by [id, k], emits changes");
        assert!(plan.operators[0].bound.starts_with("the topic's keys"), "{}", plan.operators[0].bound);
    }
}

#[tokio::test]
async fn only_the_columns_that_a_view_needs_are_read() {
    let plan = planned("SELECT score FROM users WHERE city = 'rome'").await.unwrap();
    assert_eq!(plan.inputs["users"].iter().map(String::as_str).collect::<Vec<_>>(), ["city", "id", "k", "score"]);
}

#[tokio::test]
async fn what_rows_that_change_can_not_do_is_refused_with_the_reason() {
    for (query, reason) in [
        ("SELECT k, proctime() AS p FROM users", "of a source with PRIMARY KEY, there is no such row"),
        ("SELECT id FROM users EMIT ON WINDOW CLOSE", "needs a windowed aggregate"),
    ] {
        let sentence = planned(query).await.unwrap_err().to_string();
        assert!(sentence.contains(reason), "{query}: {sentence}");
    }
}
