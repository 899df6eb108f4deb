//! `now()` and `proctime()` in views: at every epoch a view equals the batch answer in which `now()` is the epoch's time and
//! `proctime()` the time of the epoch that read the row. Rows, cuts, clocks, restarts are random; a failure names its seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{AsArray, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    compute::filter_record_batch,
    datatypes::{DataType, Field, Schema, TimeUnit, TimestampNanosecondType},
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
const SECOND: i64 = 1_000 * MS;
/// The watermark trails by so much that no row is late.
const BOUND: i64 = 60 * SECOND;

/// When windows of a view that emits on window close are shown.
#[derive(Clone, Copy, PartialEq)]
enum Closed {
    /// At once.
    Never,
    /// When the watermark has passed them.
    ByWatermark,
    /// When the clock has.
    ByClock,
}

const CASES: &[(Closed, &str)] = &[
    (Closed::Never, "SELECT id, ts, x FROM events WHERE ts > now() - INTERVAL '30 seconds' AND x > 2"),
    (Closed::Never, "SELECT k, id FROM events WHERE now() - ts >= INTERVAL '20 seconds'"),
    (
        Closed::Never,
        "SELECT id, k FROM (SELECT id, k, ts AS t FROM events WHERE x > 0) WHERE t BETWEEN now() - INTERVAL '25 seconds' AND now() - INTERVAL '5 seconds'",
    ),
    // Equal rows, which come and go one by one.
    (Closed::Never, "SELECT k FROM events WHERE ts >= now() - INTERVAL '15 seconds'"),
    (
        Closed::Never,
        "SELECT id FROM events WHERE ts + (CASE WHEN x > 3 THEN INTERVAL '12 seconds' ELSE INTERVAL '2 seconds' END) < now() AND now() < ts + INTERVAL '40 seconds'",
    ),
    (Closed::Never, "SELECT id FROM events WHERE now() > TIMESTAMP '1970-01-01T02:00:30'"),
    (
        Closed::Never,
        "SELECT id, 'young' AS age FROM events WHERE ts > now() - INTERVAL '10 seconds' UNION ALL SELECT id, k FROM events WHERE ts <= now() - INTERVAL '10 seconds'",
    ),
    // Over a changing input.
    (
        Closed::Never,
        "SELECT window_start, window_end, k, count(*) AS c, sum(x) AS s FROM TUMBLE(events, ts, INTERVAL '10 seconds')
         GROUP BY window_start, window_end, k HAVING window_end > now() - INTERVAL '40 seconds' EMIT CHANGES",
    ),
    (Closed::Never, "SELECT * FROM (SELECT k, count(*) AS c, max(ts) AS newest FROM events GROUP BY k) WHERE newest < now() - INTERVAL '6 seconds' AND c > 1"),
    (
        Closed::ByWatermark,
        "SELECT window_start, window_end, count(*) AS c FROM TUMBLE(events, ts, INTERVAL '10 seconds')
         GROUP BY window_start, window_end HAVING window_end > now() - INTERVAL '90 seconds' EMIT ON WINDOW CLOSE",
    ),
    // Aggregates over rows that leave again.
    (Closed::Never, "SELECT k, count(*) AS c, sum(x) AS s FROM events WHERE ts > now() - INTERVAL '15 seconds' GROUP BY k"),
    (Closed::Never, "SELECT count(*) AS c, max(x) AS m, min(k) AS k FROM events WHERE ts > now() - INTERVAL '15 seconds'"),
    (Closed::Never, "SELECT id, now() AS seen, proctime() AS p, proctime() - ts AS late_by FROM events"),
    (Closed::Never, "SELECT id FROM events WHERE proctime() - ts < INTERVAL '3 seconds'"),
    (Closed::Never, "SELECT k, count(*) AS c, min(proctime()) AS first_seen FROM events GROUP BY k"),
    (
        Closed::Never,
        "SELECT window_start, window_end, k, count(*) AS c, max(proctime()) AS m FROM TUMBLE(events, proctime(), INTERVAL '10 seconds')
         GROUP BY window_start, window_end, k EMIT CHANGES",
    ),
    (
        Closed::ByClock,
        "SELECT window_start, window_end, k, count(*) AS c FROM TUMBLE(events, proctime(), INTERVAL '10 seconds')
         GROUP BY window_start, window_end, k EMIT ON WINDOW CLOSE",
    ),
    (
        Closed::ByClock,
        "SELECT window_start, window_end, count(*) AS c FROM (SELECT *, proctime() AS p FROM events WHERE x > 1) AS e
         GROUP BY window(p, '10 seconds') EMIT ON WINDOW CLOSE",
    ),
    (
        Closed::ByClock,
        "SELECT window_start, window_end, count(*) AS c, sum(x) AS s FROM HOP(events, proctime(), INTERVAL '4 seconds', INTERVAL '10 seconds')
         GROUP BY window_start, window_end EMIT ON WINDOW CLOSE",
    ),
    // Lateness means nothing here: no row comes before its time.
    (
        Closed::ByClock,
        "SELECT window_start, window_end, k, count(*) AS c FROM TUMBLE(events, proctime(), INTERVAL '5 seconds')
         GROUP BY window_start, window_end, k EMIT ON WINDOW CLOSE ALLOW LATENESS INTERVAL '1 hour'",
    ),
    (
        Closed::ByClock,
        "SELECT window_start, window_end, k, count(*) AS c FROM SESSION(events PARTITION BY k, proctime(), INTERVAL '8 seconds')
         GROUP BY window_start, window_end, k EMIT ON WINDOW CLOSE",
    ),
];

/// Which rows count.
#[derive(Clone, Copy)]
enum Live {
    /// All.
    Always,
    /// Those that were read in the last so many seconds.
    Rows(i64),
    /// Those of a key for which rows have come all the time, without a pause of so many seconds, and until now.
    Keys(i64, fn(&Row) -> String),
}

impl Live {
    fn rows(self, rows: &[Row], now: i64) -> Vec<&Row> {
        match self {
            Live::Always => rows.iter().collect(),
            Live::Rows(ttl) => rows.iter().filter(|row| row.read > now - ttl * SECOND).collect(),
            Live::Keys(ttl, key) => {
                let mut by_key: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
                for row in rows {
                    let of_key = by_key.entry(key(row)).or_default();
                    if of_key.last().is_some_and(|last| row.read - last.read >= ttl * SECOND) {
                        of_key.clear();
                    }
                    of_key.push(row);
                }
                by_key.into_values().filter(|of_key| of_key.last().is_some_and(|last| last.read > now - ttl * SECOND)).flatten().collect()
            }
        }
    }
}

fn by_k(row: &Row) -> String {
    format!("{:?}", row.k)
}

fn by_k_and_x(row: &Row) -> String {
    format!("{:?} {:?}", row.k, row.x)
}

/// Views whose state has an end.
const BOUNDED: &[(Live, &str)] = &[
    (Live::Keys(12, by_k), "WITH (state_ttl = '12 seconds') AS SELECT k, count(*) AS c, sum(x) AS s, max(id) AS m FROM events GROUP BY k"),
    (Live::Keys(4, by_k_and_x), "WITH (state_ttl = '4 seconds') AS SELECT DISTINCT k, x FROM events"),
    // What is above sees groups go.
    (
        Live::Keys(4, by_k_and_x),
        "WITH (state_ttl = '4 seconds') AS SELECT c, count(*) AS n, min(x) AS m FROM (SELECT k, x, count(*) AS c FROM events GROUP BY k, x) GROUP BY c",
    ),
    (
        Live::Keys(6, by_k_and_x),
        "WITH (state_ttl = '6 seconds') AS SELECT k, x, id FROM (SELECT *, row_number() OVER (PARTITION BY k, x ORDER BY ts DESC, id) AS n FROM events) WHERE n <= 2",
    ),
    (Live::Keys(5, by_k_and_x), "WITH (state_ttl = '5 seconds') AS SELECT DISTINCT ON (k, x) k, x, id FROM events ORDER BY k, x, id"),
    // Operators that hold rows.
    (Live::Rows(9), "WITH (state_ttl = '9 seconds') AS SELECT id, k, sum(x) OVER (PARTITION BY k ORDER BY id) AS s FROM events"),
    (Live::Rows(7), "WITH (state_ttl = '7 seconds') AS SELECT l.id, r.id AS other FROM events l JOIN events r ON l.k = r.k AND l.x = r.x WHERE l.id < r.id"),
    (Live::Rows(7), "WITH (state_ttl = '7 seconds') AS SELECT l.id, r.id AS other FROM events l LEFT JOIN events r ON l.id = r.id + 3 AND r.x > 2"),
    (
        Live::Rows(7),
        "WITH (state_ttl = '7 seconds') AS SELECT l.k, count(*) AS c FROM events l JOIN events r ON l.x = r.x WHERE NOT EXISTS (SELECT 1 FROM events o WHERE o.id = r.id + 1) GROUP BY l.k",
    ),
    // Rows of the view.
    (Live::Rows(8), "WITH (retention = '8 seconds') AS SELECT id, k, x FROM events WHERE x > 2"),
    (Live::Rows(8), "WITH (retention = '8 seconds') AS SELECT k FROM events"),
];

struct Row {
    id: i64,
    ts: i64,
    k: Option<&'static str>,
    x: Option<i64>,
    /// When the epoch that read it was cut.
    read: i64,
}

fn source() -> Arc<SourceDef> {
    let text = format!(
        "CREATE SOURCE events (id BIGINT, ts TIMESTAMP, k TEXT, x BIGINT, WATERMARK FOR ts AS ts - INTERVAL '{} seconds')
         WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json')",
        BOUND / SECOND
    );
    let Definition::Source(source) = sql::parse_definition(&text).unwrap() else { panic!("no source") };
    source
}

fn view_def(query: &str) -> ViewDef {
    let mut def = declared(&format!("AS {query}"));
    def.options.unbounded_state = !query.contains("window");
    def
}

fn declared(rest: &str) -> ViewDef {
    let Statement::CreateContinuousView { def, .. } = sql::parse_one(&format!("CREATE CONTINUOUS VIEW v {rest}")).unwrap() else { panic!("no view") };
    def
}

async fn view(def: &Arc<ViewDef>, source: &Arc<SourceDef>) -> ViewRuntime {
    let state = standalone_state(&[source]).unwrap();
    let plan = plan_view(&state, sql::parse_query(&def.query).unwrap(), def.emit, &def.options).await.unwrap();
    ViewRuntime::new(def.clone(), 7, Arc::new(plan), &[source], BTreeMap::new(), 0).unwrap()
}

/// DataFusion's answer at a moment.
async fn batch(query: &str, rows: &[&Row], now: i64) -> Vec<RecordBatch> {
    let mut context = SessionContext::new();
    tidegate_udfs::register(&mut context).unwrap();
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("ts", time.clone(), true),
        Field::new("k", DataType::Utf8View, true),
        Field::new("x", DataType::Int64, true),
        Field::new("read_at", time, true),
    ]));
    let columns = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
            Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.ts))),
            Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r.k))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.x))),
            Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.read))),
        ],
    )
    .unwrap();
    context.register_table("events", Arc::new(MemTable::try_new(schema, vec![vec![columns]]).unwrap())).unwrap();
    let query = query
        .replace("now() AS seen", "read_at AS seen")
        .replace("now()", &format!("arrow_cast({now}, 'Timestamp(Nanosecond, None)')"))
        .replace("proctime()", "read_at");
    let plan = context.state().statement_to_plan(sql::query_statement(sql::parse_query(&query).unwrap())).await.unwrap();
    context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()
}

#[derive(Default)]
struct Seen {
    epochs: usize,
    /// Epochs without input that changed something.
    moved: usize,
    restarts: usize,
}

async fn one_run(seed: u64) -> Seen {
    let (closed, query) = CASES[seed as usize % CASES.len()];
    run(seed, closed, Live::Always, query, view_def(query)).await
}

async fn run_bounded(seed: u64) -> Seen {
    let (live, rest) = BOUNDED[seed as usize % BOUNDED.len()];
    run(seed, Closed::Never, live, rest, declared(rest)).await
}

async fn run(seed: u64, closed: Closed, live: Live, query: &str, def: ViewDef) -> Seen {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (source, def) = (source(), Arc::new(def));
    let what = format!("seed {seed}: {query}");
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    let board = Arc::new(Board::default());
    let mut pipeline = Pipeline::new(vec![(source.clone(), 1)], board.clone(), 1).unwrap();
    pipeline.assign("events", [0]);
    pipeline.attach(view(&def, &source).await).unwrap();
    let mut followed = Followed::from(&board.current().views["v"], 0, &bag([]));
    let (mut rows, mut seen, mut offset) = (vec![], Seen::default(), 0);
    // The clock of the epochs never steps back, the machine's may.
    let (mut wall_ms, mut now_ms) = (7_200_000_i64, 0_i64);
    let mut before = bag([]);
    for _ in 0..rng.random_range(6..30) {
        // At the moment when something is due, just before it, or whenever.
        let due = pipeline.due(&BTreeSet::new());
        assert!(due.is_none_or(|due| due > now_ms), "{what}: at {now_ms} ms something is due that the epoch then did not do: {due:?}");
        let (silent, early) = match (rng.random_range(0..10), due) {
            (0 | 1, Some(due)) if due > now_ms => {
                wall_ms = due;
                (true, false)
            }
            (2, Some(due)) if due - 1 > now_ms => {
                wall_ms = due - 1;
                (true, true)
            }
            (3, _) => {
                wall_ms -= rng.random_range(0..5_000);
                (false, false)
            }
            (silent, _) => {
                wall_ms = wall_ms.max(now_ms) + rng.random_range(1..if silent == 4 { 60_000 } else { 3_000 });
                (silent == 5, false)
            }
        };
        now_ms = now_ms.max(wall_ms);
        let mut builder = RecordsBuilder::new();
        let begin = offset;
        for _ in 0..if silent { 0 } else { rng.random_range(1..12) } {
            let row = Row {
                id: offset,
                ts: (now_ms - rng.random_range(-10_000..45_000)) * MS,
                k: [None, Some("a"), Some("b")][rng.random_range(0..3)],
                x: (!rng.random_bool(0.2)).then(|| rng.random_range(-3..12)),
                read: now_ms * MS,
            };
            let time = chrono::DateTime::from_timestamp_nanos(row.ts).to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let json = serde_json::json!({ "id": row.id, "ts": time, "k": row.k, "x": row.x }).to_string();
            builder.push(offset, Some(now_ms), None, Some(json.as_bytes()), vec![]);
            offset += 1;
            rows.push(row);
        }
        let slices = if offset > begin { vec![Slice { partition: 0, begin, end: offset, records: builder.finish() }] } else { vec![] };
        let slices = BTreeMap::from([("events".to_string(), slices)]);
        let cut = EpochCut { epoch: pipeline.epoch() + 1, now_ms: wall_ms, slices, ..EpochCut::default() };
        pipeline.run(&cut).await.unwrap();

        let published = board.current();
        let view_now = &published.views["v"];
        assert!(view_now.failure.is_none(), "{what}: {:?}", view_now.failure);
        assert_eq!(view_now.late_total, 0, "{what}");
        let passed = match closed {
            Closed::Never => i64::MAX,
            Closed::ByWatermark => published.sources["events"].watermark.unwrap_or(i64::MIN),
            Closed::ByClock => now_ms * MS,
        };
        let mut want = batch(&def.query, &live.rows(&rows, now_ms * MS), now_ms * MS).await;
        if closed != Closed::Never {
            for batch in &mut want {
                let ends = batch.column_by_name("window_end").unwrap().as_primitive::<TimestampNanosecondType>();
                let keep = ends.iter().map(|end| end.map(|end| end <= passed)).collect();
                *batch = filter_record_batch(batch, &keep).unwrap();
            }
        }
        let want = bag(want);
        let differs = |whose: &str, got| same(&got, &want, [whose, "the batch answer"]).map_err(|e| format!("{what}: epoch {} at {now_ms} ms: {e}", cut.epoch));
        differs("the view", bag(snapshot(&view_now.contents))).unwrap();
        followed.take().unwrap();
        differs("the follower", followed.rows()).unwrap();
        if early {
            assert_eq!(want, before, "{what}: something changed before it was due");
        }
        seen.epochs += 1;
        seen.moved += usize::from(silent && want != before);
        before = want;

        if rng.random_bool(0.2) {
            store.write(pipeline.image().unwrap()).await.unwrap();
            store = open(folder.path()).await;
            let mut restored = store.newest().await.unwrap().unwrap();
            pipeline = Pipeline::new(vec![(source.clone(), 1)], board.clone(), 1).unwrap();
            pipeline.assign("events", [0]);
            pipeline.restore(&mut restored).unwrap();
            let mut again = view(&def, &source).await;
            assert!(again.restore(&mut restored).unwrap());
            pipeline.attach(again).unwrap();
            followed = Followed::from(&board.current().views["v"], pipeline.epoch(), &before);
            seen.restarts += 1;
        }
    }
    // Nothing is held that time will not move.
    let held = board.current().views["v"].state_rows;
    let bound = match live {
        Live::Always => rows.len() + 3,
        // By up to four operators, and above joins there are pairs.
        Live::Rows(_) | Live::Keys(..) => {
            let live = live.rows(&rows, now_ms * MS).len();
            4 * live + live * live
        }
    };
    assert!(held <= bound, "{what}: {held} rows are held of {}", rows.len());
    seen
}

#[tokio::test]
async fn every_epoch_equals_the_batch_answer_at_its_time() {
    let seeds: u64 = std::env::var("TIDEGATE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(144);
    let mut all = Seen::default();
    for seed in 0..seeds {
        let seen = one_run(seed).await;
        all.epochs += seen.epochs;
        all.moved += seen.moved;
        all.restarts += seen.restarts;
    }
    println!("{} epochs of {seeds} seeds equal the batch answer at their time; the clock alone changed {}, {} restarts", all.epochs, all.moved, all.restarts);
    assert!(seeds < 100 || (all.moved > 50 && all.restarts > 50), "the data had too little in it to show anything");
}

#[tokio::test]
async fn what_is_forgotten_and_what_is_not_is_exact() {
    let seeds: u64 = std::env::var("TIDEGATE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(88);
    let mut all = Seen::default();
    for seed in 0..seeds {
        let seen = run_bounded(seed).await;
        all.epochs += seen.epochs;
        all.moved += seen.moved;
        all.restarts += seen.restarts;
    }
    println!(
        "{} epochs of {seeds} seeds equal the batch answer over what is remembered; the clock alone changed {}, {} restarts",
        all.epochs, all.moved, all.restarts
    );
    assert!(seeds < 88 || (all.moved > 50 && all.restarts > 50), "the data had too little in it to show anything");
}

#[test]
fn a_filter_that_forgets_the_clock_or_its_rows_is_found() {
    for mutant in [Mutant::ClockForgotten, Mutant::StateForgotten] {
        let found = (0..3 * CASES.len() as u64).any(|seed| {
            std::panic::catch_unwind(|| {
                let _on = mutant.on();
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(one_run(seed))
            })
            .is_err()
        });
        assert!(found, "{mutant:?} was not found");
    }
    for mutant in [Mutant::ClockForgotten, Mutant::StateForgotten] {
        let found = (0..3 * BOUNDED.len() as u64).any(|seed| {
            std::panic::catch_unwind(|| {
                let _on = mutant.on();
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run_bounded(seed))
            })
            .is_err()
        });
        assert!(found, "{mutant:?} was not found where state has an end");
    }
}

/// The sentence with which a view is refused.
async fn refused(query: &str) -> String {
    let Statement::CreateContinuousView { def, .. } = sql::parse_one(&format!("CREATE CONTINUOUS VIEW v AS {query}")).unwrap() else { panic!("no view") };
    let (state, options) = (standalone_state(&[&source()]).unwrap(), ViewOptions { unbounded_state: true, ..ViewOptions::default() });
    plan_view(&state, sql::parse_query(&def.query).unwrap(), def.emit, &options).await.unwrap_err().to_string()
}

#[tokio::test]
async fn what_the_clock_can_not_do_is_refused_with_the_reason() {
    for (query, reason) in [
        ("SELECT id FROM events WHERE ts > now() - INTERVAL '5 seconds' OR x > 3", "compare a timestamp with now() on its own"),
        ("SELECT id FROM events WHERE ts > now() - INTERVAL '1 month'", "compare a timestamp with now() on its own"),
        ("SELECT count(*) FILTER (WHERE ts > now()) AS c FROM events", "write proctime() for the time at which a row is read"),
        ("SELECT k, count(*) AS c, now() AS n FROM events GROUP BY k", "above an aggregate, or of a source with PRIMARY KEY, there is no such row"),
        ("SELECT id, random() AS r FROM events", "random() is not supported"),
        ("SELECT id, uuid() AS r FROM events", "uuid() is not supported"),
        ("SELECT id, current_date() AS r FROM events", "current_date() is not supported"),
    ] {
        let sentence = refused(query).await;
        assert!(sentence.contains(reason), "{query}: {sentence}");
    }
}

#[tokio::test]
async fn explain_says_what_the_clock_does() {
    let state = standalone_state(&[&source()]).unwrap();
    let options = ViewOptions::default();
    for (query, description, bound) in [
        (
            "SELECT id FROM events WHERE ts > now() - INTERVAL '5 seconds'",
            "temporal filter [now() < events.ts + 5s]",
            "a row is dropped when it goes by the clock",
        ),
        (
            "SELECT window_end, count(*) AS c FROM TUMBLE(events, proctime(), INTERVAL '10 seconds') GROUP BY window_end",
            "emits on window close",
            "are dropped when the clock passes their end",
        ),
    ] {
        let plan = plan_view(&state, sql::parse_query(&view_def(query).query).unwrap(), None, &options).await.unwrap();
        assert!(plan.operators[0].description.contains(description), "{}", plan.operators[0].description);
        assert!(plan.operators[0].bound.contains(bound), "{}", plan.operators[0].bound);
    }
}
