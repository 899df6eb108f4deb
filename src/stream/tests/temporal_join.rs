//! `JOIN … FOR SYSTEM_TIME AS OF …`: at every epoch a view equals the batch answer over all versions, however rows and versions are cut,
//! whichever side is ahead, over restarts; and what no row needs any more is let go.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{BooleanArray, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    datatypes::{DataType, Field, Schema, TimeUnit},
};
use datafusion::{datasource::MemTable, execution::SessionState, prelude::SessionContext};
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

const CASES: &[&str] = &[
    "SELECT o.id, o.k, r.rate FROM orders AS o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.k = r.k",
    "SELECT o.id, r.k, r.rate, r.at FROM orders o LEFT JOIN rates FOR SYSTEM_TIME AS OF o.ts r ON r.k = o.k",
    "SELECT o.id, r.rate FROM orders AS o LEFT JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.k = r.k AND r.rate > 2",
    "SELECT o.id, r.rate * o.x AS total FROM orders AS o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.k = r.k WHERE r.rate > 1 AND o.x <> 3",
    "SELECT r.k, count(*) AS n, sum(r.rate * o.x) AS s FROM orders AS o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.k = r.k GROUP BY r.k",
    "SELECT o.id, r.rate, q.rate AS before FROM orders AS o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.k = r.k
     JOIN rates AS q ON q.k = o.k",
    "SELECT window_start, count(r.rate) AS n, count(*) AS c FROM TUMBLE(orders, ts, INTERVAL '10 seconds') AS o
     LEFT JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.k = r.k GROUP BY window_start, window_end",
];

struct Order {
    id: i64,
    ts: i64,
    k: Option<&'static str>,
    x: i64,
}

struct Rate {
    k: &'static str,
    at: i64,
    /// `None`: there is none from then on.
    rate: Option<i64>,
}

fn sources() -> [Arc<SourceDef>; 2] {
    let parsed = |text: &str| {
        let Definition::Source(source) = sql::parse_definition(text).unwrap() else { panic!("no source") };
        source
    };
    let with = |topic: &str| format!("WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = 'b:1', format = 'json')");
    [
        parsed(&format!("CREATE SOURCE orders (id BIGINT, ts TIMESTAMP, k TEXT, x BIGINT, WATERMARK FOR ts AS ts - INTERVAL '30 seconds') {}", with("orders"))),
        parsed(&format!(
            "CREATE SOURCE rates (k TEXT, rate BIGINT, at TIMESTAMP METADATA FROM 'timestamp', WATERMARK FOR at AS at - INTERVAL '30 seconds', PRIMARY KEY (k)) {}",
            with("rates").replace("format = 'json'", "format = 'json', 'key.format' = 'text'")
        )),
    ]
}

fn state(sources: &[Arc<SourceDef>; 2]) -> SessionState {
    standalone_state(&sources.each_ref().map(Arc::as_ref)).unwrap()
}

fn view_def(query: &str) -> Arc<ViewDef> {
    let text = format!("CREATE CONTINUOUS VIEW v WITH (unbounded_state = true) AS {query} EMIT CHANGES");
    let Statement::CreateContinuousView { def, .. } = sql::parse_one(&text).unwrap() else { panic!("no view") };
    Arc::new(def)
}

async fn view(def: &Arc<ViewDef>, sources: &[Arc<SourceDef>; 2]) -> ViewRuntime {
    let plan = plan_view(&state(sources), sql::parse_query(&def.query).unwrap(), def.emit, &def.options).await.unwrap();
    let own: Vec<&SourceDef> = sources.iter().map(Arc::as_ref).collect();
    ViewRuntime::new(def.clone(), 7, Arc::new(plan), &own, BTreeMap::new(), 0).unwrap()
}

/// DataFusion's answer over all records.
async fn batch(query: &str, orders: &[Order], rates: &[Rate]) -> Vec<RecordBatch> {
    let mut context = SessionContext::new();
    tidegate_udfs::register(&mut context).unwrap();
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let table = |fields: Vec<Field>, columns| {
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap())
    };
    let orders = table(
        vec![
            Field::new("id", DataType::Int64, true),
            Field::new("ts", time.clone(), true),
            Field::new("k", DataType::Utf8View, true),
            Field::new("x", DataType::Int64, true),
        ],
        vec![
            Arc::new(Int64Array::from_iter_values(orders.iter().map(|o| o.id))),
            Arc::new(TimestampNanosecondArray::from_iter_values(orders.iter().map(|o| o.ts))),
            Arc::new(StringViewArray::from_iter(orders.iter().map(|o| o.k))),
            Arc::new(Int64Array::from_iter_values(orders.iter().map(|o| o.x))),
        ],
    );
    let rate_columns = |rates: &[&Rate]| -> Vec<arrow::array::ArrayRef> {
        vec![
            Arc::new(StringViewArray::from_iter_values(rates.iter().map(|r| r.k))),
            Arc::new(Int64Array::from_iter(rates.iter().map(|r| r.rate))),
            Arc::new(TimestampNanosecondArray::from_iter_values(rates.iter().map(|r| r.at))),
        ]
    };
    let rate_fields = || vec![Field::new("k", DataType::Utf8View, true), Field::new("rate", DataType::Int64, true), Field::new("at", time.clone(), true)];
    let all: Vec<&Rate> = rates.iter().collect();
    let mut columns = rate_columns(&all);
    columns.push(Arc::new(BooleanArray::from_iter(rates.iter().map(|r| Some(r.rate.is_none())))));
    columns.push(Arc::new(Int64Array::from_iter_values(0..rates.len() as i64)));
    let mut fields = rate_fields();
    fields.extend([Field::new("_deleted", DataType::Boolean, false), Field::new("_offset", DataType::Int64, false)]);
    let records = table(fields, columns);
    let mut newest: BTreeMap<&str, &Rate> = BTreeMap::new();
    rates.iter().for_each(|rate| _ = newest.insert(rate.k, rate));
    let newest: Vec<&Rate> = newest.into_values().filter(|rate| rate.rate.is_some()).collect();
    context.register_table("orders", orders).unwrap();
    context.register_table("rates", table(rate_fields(), rate_columns(&newest))).unwrap();
    context.register_table("records", records).unwrap();
    let versions = context
        .sql("SELECT k, rate, at, _deleted, at AS _valid_from, lead(at) OVER (PARTITION BY k ORDER BY at, _offset) AS _valid_to FROM records")
        .await
        .unwrap();
    context.register_table("\"rates$versions\"", versions.into_view()).unwrap();
    let plan = context.state().statement_to_plan(sql::query_statement(sql::parse_query(query).unwrap())).await.unwrap();
    context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()
}

#[derive(Default)]
struct Seen {
    epochs: usize,
    corrected: usize,
    restarts: usize,
}

async fn one_run(seed: u64) -> Seen {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let query = CASES[seed as usize % CASES.len()];
    let (sources, def) = (sources(), view_def(query));
    let what = format!("seed {seed}: {query}");
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    let board = Arc::new(Board::default());
    let all = || sources.iter().cloned().zip(1..).collect::<Vec<_>>();
    let mut pipeline = Pipeline::new(all(), board.clone(), 1).unwrap();
    pipeline.attach(view(&def, &sources).await).unwrap();
    let mut followed = Followed::from(&board.current().views["v"], 0, &bag([]));
    let (mut orders, mut rates, mut seen) = (vec![], vec![], Seen::default());
    let mut now_ms = 1_000_000_i64;
    let time = |ns: i64| chrono::DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    for _ in 0..rng.random_range(6..40) {
        let longest = if rng.random_bool(0.1) { 100_000 } else { 6_000 };
        now_ms += rng.random_range(1..longest);
        let mut slices = BTreeMap::new();
        let mut builder = RecordsBuilder::new();
        let begin = orders.len() as i64;
        // One side is often far ahead.
        for _ in 0..if rng.random_bool(0.3) { 0 } else { rng.random_range(0..10) } {
            let order = Order {
                id: orders.len() as i64,
                ts: (now_ms - rng.random_range(0..28) * 1000) * MS,
                k: [None, Some("a"), Some("b"), Some("a currency whose name is long")][rng.random_range(0..4)],
                x: rng.random_range(1..6),
            };
            let json = serde_json::json!({ "id": order.id, "ts": time(order.ts), "k": order.k, "x": order.x }).to_string();
            builder.push(order.id, Some(now_ms), None, Some(json.as_bytes()), vec![]);
            orders.push(order);
        }
        slices.insert("orders".to_string(), vec![Slice { partition: 0, begin, end: orders.len() as i64, records: builder.finish() }]);
        let mut builder = RecordsBuilder::new();
        let begin = rates.len() as i64;
        for _ in 0..if rng.random_bool(0.4) { 0 } else { rng.random_range(0..5) } {
            let rate = Rate {
                k: ["a", "b", "a currency whose name is long"][rng.random_range(0..3)],
                at: (now_ms - rng.random_range(0..28) * 1000) * MS,
                rate: (!rng.random_bool(0.15)).then(|| rng.random_range(0..6)),
            };
            let json = rate.rate.map(|rate| serde_json::json!({ "rate": rate }).to_string());
            builder.push(rates.len() as i64, Some(rate.at / MS), Some(rate.k.as_bytes()), json.as_ref().map(|json| json.as_bytes()), vec![]);
            rates.push(rate);
        }
        slices.insert("rates".to_string(), vec![Slice { partition: 0, begin, end: rates.len() as i64, records: builder.finish() }]);
        let cut = EpochCut { epoch: pipeline.epoch() + 1, now_ms, slices, ..EpochCut::default() };
        pipeline.run(&cut).await.unwrap();
        let published = board.current();
        let view_now = &published.views["v"];
        assert!(view_now.failure.is_none(), "{what}: {:?}", view_now.failure);
        assert_eq!(view_now.late_total, 0, "{what}");
        assert!(published.sources.values().all(|source| source.errors_total == 0), "{what}");
        let want = bag(batch(&def.query, &orders, &rates).await);
        let differs = |whose: &str, got| same(&got, &want, [whose, "the batch answer"]).map_err(|e| format!("{what}: epoch {}: {e}", cut.epoch));
        differs("the view", bag(snapshot(&view_now.contents))).unwrap();
        let changes = followed.take().unwrap();
        differs("the follower", followed.rows()).unwrap();
        seen.corrected += changes.iter().filter(|(_, weight)| *weight < 0).count();
        seen.epochs += 1;
        if rng.random_bool(0.2) {
            store.write(pipeline.image().unwrap()).await.unwrap();
            store = open(folder.path()).await;
            let mut restored = store.newest().await.unwrap().unwrap();
            pipeline = Pipeline::new(all(), board.clone(), 1).unwrap();
            pipeline.restore(&mut restored).unwrap();
            let mut again = view(&def, &sources).await;
            assert!(again.restore(&mut restored).unwrap());
            pipeline.attach(again).unwrap();
            followed = Followed::from(&board.current().views["v"], pipeline.epoch(), &bag(snapshot(&board.current().views["v"].contents)));
            seen.restarts += 1;
        }
    }
    seen
}

#[tokio::test]
async fn every_epoch_equals_the_batch_answer_over_all_versions() {
    let seeds: u64 = std::env::var("TIDEGATE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(84);
    let mut all = Seen::default();
    for seed in 0..seeds {
        let seen = one_run(seed).await;
        all.epochs += seen.epochs;
        all.corrected += seen.corrected;
        all.restarts += seen.restarts;
    }
    println!(
        "{} epochs of {seeds} seeds equal the batch answer over all versions; {} rows were taken back, {} restarts",
        all.epochs, all.corrected, all.restarts
    );
    assert!(seeds < 84 || (all.corrected > 200 && all.restarts > 50), "the data had too little in it to show anything");
}

#[test]
fn a_join_that_forgets_is_found() {
    for mutant in [Mutant::RetractionLost, Mutant::StateForgotten, Mutant::RowLost] {
        let found = (0..4 * CASES.len() as u64).any(|seed| {
            std::panic::catch_unwind(|| {
                let _on = mutant.on();
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(one_run(seed))
            })
            .is_err()
        });
        assert!(found, "{mutant:?} was not found");
    }
}

#[tokio::test]
async fn what_a_temporal_join_can_not_do_is_refused_with_the_reason() {
    let (sources, options) = (sources(), ViewOptions { unbounded_state: true, ..ViewOptions::default() });
    for (query, reason) in [
        ("SELECT o.id, r._valid_to FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.k = r.k", "can't tell until when a version will be valid"),
        ("SELECT o.id FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.x = r.rate", "looks a row of rates up by its primary key: add AND r.k = "),
        ("SELECT o.k FROM (SELECT k, max(ts) AS ts FROM orders GROUP BY k) o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.k = r.k", "for rows that change"),
        ("SELECT k FROM \"rates$versions\"", "only by JOIN table FOR SYSTEM_TIME AS OF"),
    ] {
        let def = view_def(query);
        let sentence = plan_view(&state(&sources), sql::parse_query(&def.query).unwrap(), def.emit, &options).await.unwrap_err().to_string();
        assert!(sentence.contains(reason), "{query}: {sentence}");
    }
    for (query, reason) in [
        ("SELECT * FROM rates FOR SYSTEM_TIME AS OF now() AS r", "expected"),
        ("SELECT * FROM rates FOR SYSTEM_TIME AS OF r.ts AS r", "stands behind a table that rows of a stream are joined with"),
        ("SELECT * FROM orders o RIGHT JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.k = r.k", "takes JOIN and LEFT JOIN"),
        ("SELECT * FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r USING (k)", "needs ON in place of USING"),
    ] {
        let sentence = sql::parse_one(&format!("CREATE CONTINUOUS VIEW v AS {query}")).unwrap_err().to_string();
        assert!(sentence.to_lowercase().contains(&reason.to_lowercase()), "{query}: {sentence}");
    }
}

/// Nothing is held that no row can ask for.
#[tokio::test]
async fn what_is_over_is_let_go() {
    let (sources, def) = (sources(), view_def(CASES[0]));
    let board = Arc::new(Board::default());
    let mut pipeline = Pipeline::new(sources.iter().cloned().zip(1..).collect(), board.clone(), 1).unwrap();
    pipeline.attach(view(&def, &sources).await).unwrap();
    let mut held = vec![];
    for second in 0..600_i64 {
        let now_ms = 1_000_000 + second * 1000;
        let mut slices = BTreeMap::new();
        let mut builder = RecordsBuilder::new();
        let ts = chrono::DateTime::from_timestamp_millis(now_ms).unwrap().to_rfc3339();
        (0..5).for_each(|at| {
            let json = format!(r#"{{"id":{},"ts":"{ts}","k":"k{}","x":1}}"#, second * 5 + at, at);
            builder.push(second * 5 + at, Some(now_ms), None, Some(json.as_bytes()), vec![]);
        });
        slices.insert("orders".to_string(), vec![Slice { partition: 0, begin: second * 5, end: second * 5 + 5, records: builder.finish() }]);
        let mut builder = RecordsBuilder::new();
        builder.push(second, Some(now_ms), Some(format!("k{}", second % 5).as_bytes()), Some(br#"{"rate": 3}"#), vec![]);
        slices.insert("rates".to_string(), vec![Slice { partition: 0, begin: second, end: second + 1, records: builder.finish() }]);
        pipeline.run(&EpochCut { epoch: pipeline.epoch() + 1, now_ms, slices, ..EpochCut::default() }).await.unwrap();
        held.push(board.current().views["v"].state_rows);
    }
    assert!(held[599] <= held[100] && held[599] < 31 * 5 + 5 * 8, "{} rows and versions are held after 100 epochs, {} after 600", held[100], held[599]);
}
