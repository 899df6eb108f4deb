//! Batch equivalence: at every epoch each view equals the same query run as a batch over the records read so far, less the late and
//! the bad ones; one that emits on window close equals that answer restricted to windows that the watermark has passed. Data,
//! disorder, partitions, cuts, restarts and views that come late are random; a failure names its seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{AsArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    datatypes::{Int32Type, Int64Type, TimestampNanosecondType},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{datasource::MemTable, prelude::SessionContext};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    catalog::{Definition, Emit, SourceDef, ViewDef},
    source::{RecordsBuilder, Slice},
    sql::{self, Statement},
    stream::{
        checkpoint::CheckpointStore,
        pipeline::{EpochCut, Pipeline},
        plan::{plan_view, standalone_state},
        published::Board,
        segments::Snapshot,
        view::ViewRuntime,
    },
};

const SECOND: i64 = 1_000_000_000;

/// Views, by what they try: many aggregates, windows by start or end, filters above and below, no window at all.
const VIEWS: &[&str] = &[
    "CREATE CONTINUOUS VIEW v AS SELECT window_start, window_end, k, count(*) AS c, count(x) AS cx, sum(x) AS s, avg(x) AS a, min(f) AS mn, max(k) AS mx, sum(f) AS sf,
       count(DISTINCT x) AS d, count(*) FILTER (WHERE x > 3) AS fc, sum(f) FILTER (WHERE k = 'b') AS ff, bool_or(x > 5) AS bo, min(k) AS mk
     FROM TUMBLE(events, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k EMIT CHANGES",
    "CREATE CONTINUOUS VIEW v AS SELECT window_start, k, count(*) AS c, sum(f) AS s, max(x) AS m
     FROM TUMBLE(events, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k EMIT ON WINDOW CLOSE",
    "CREATE CONTINUOUS VIEW v AS SELECT window_end AS until, count(*) AS c, array_agg(x ORDER BY id) AS xs, approx_distinct(k) AS ad
     FROM TUMBLE(events, ts, INTERVAL '7 seconds') WHERE x IS NOT NULL GROUP BY window_end EMIT CHANGES",
    "CREATE CONTINUOUS VIEW v AS SELECT window_start, upper(k) AS kk, c * 2 AS c2 FROM (
       SELECT window_start, k, count(*) AS c, sum(x) AS sx FROM TUMBLE(events, ts, INTERVAL '7 seconds') GROUP BY window_start, k) WHERE c > 1 AND sx < 20 EMIT CHANGES",
    "CREATE CONTINUOUS VIEW v AS WITH e AS (SELECT *, x + 1 AS y FROM TUMBLE(events, ts, INTERVAL '10 seconds'))
     SELECT window_start, sum(y) AS sy, count(*) AS n FROM e GROUP BY window_start HAVING count(*) > 1 EMIT ON WINDOW CLOSE",
    "CREATE CONTINUOUS VIEW v AS SELECT id, ts, k, x * 2 AS xx FROM events WHERE x % 3 = 0 OR k IS NULL EMIT CHANGES",
    "CREATE CONTINUOUS VIEW v WITH (unbounded_state = true) AS SELECT k, count(*) AS c, sum(x) AS s, max(f) AS m FROM events GROUP BY k EMIT CHANGES",
    "CREATE CONTINUOUS VIEW v WITH (unbounded_state = true) AS SELECT count(*) AS c, sum(f) AS s, min(x) AS m FROM events WHERE x > 2 EMIT CHANGES",
    "CREATE CONTINUOUS VIEW v WITH (unbounded_state = true) AS SELECT DISTINCT k, x FROM events EMIT CHANGES",
    "CREATE CONTINUOUS VIEW v AS SELECT id, k FROM events WHERE x > 3 UNION ALL SELECT id, upper(k) FROM events WHERE x < 6 EMIT CHANGES",
    "CREATE CONTINUOUS VIEW v AS SELECT window_start, k, count(*) AS c, sum(x) AS s FROM (
       SELECT window_start, window_end, k, x FROM TUMBLE(events, ts, INTERVAL '10 seconds') WHERE x IS NOT NULL AND x > 3
       UNION ALL SELECT window_start, window_end, 'rest', x FROM TUMBLE(events, ts, INTERVAL '10 seconds') WHERE x IS NOT NULL AND x <= 3)
     GROUP BY window_start, window_end, k EMIT CHANGES",
];

#[derive(Debug, Clone)]
struct Row {
    partition: i32,
    offset: i64,
    id: i64,
    ts: i64,
    k: Option<String>,
    x: Option<i64>,
    f: Option<f64>,
}

impl Row {
    fn json(&self) -> String {
        let time = chrono::DateTime::from_timestamp_nanos(self.ts).to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let mut value = serde_json::json!({ "id": self.id, "ts": time, "noise": {"deep": [1, {"x": "}\"]"}]} });
        // An absent field and a null are the same.
        if let Some(k) = &self.k {
            value["k"] = serde_json::json!({ "name": k });
        }
        if let Some(x) = self.x {
            value["x"] = x.into();
        }
        if let Some(f) = self.f {
            value["f"] = f.into();
        }
        value.to_string()
    }
}

type Bag = BTreeMap<String, usize>;

fn bag(batches: impl IntoIterator<Item = RecordBatch>) -> Bag {
    let options = FormatOptions::default().with_null("∅");
    let mut bag = Bag::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let text = columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|");
            *bag.entry(text).or_default() += 1;
        }
    }
    bag
}

fn snapshot(snapshot: &Snapshot) -> Vec<RecordBatch> {
    snapshot.batches().map(|b| b.unwrap()).collect()
}

/// DataFusion's answer over rows, with the same functions.
async fn batch(query: &str, source: &SourceDef, rows: &[&Row]) -> Vec<RecordBatch> {
    let context = SessionContext::new();
    for function in tidegate_udfs::functions() {
        context.register_udf(function.as_ref().clone());
    }
    for function in tidegate_udfs::window_functions() {
        context.register_udwf(function.as_ref().clone());
    }
    let columns = RecordBatch::try_new(
        source.schema(),
        vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
            Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.ts))),
            Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r.k.as_deref()))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.x))),
            Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.f))),
        ],
    )
    .unwrap();
    context.register_table("events", Arc::new(MemTable::try_new(source.schema(), vec![vec![columns]]).unwrap())).unwrap();
    let plan = context.state().statement_to_plan(sql::query_statement(sql::parse_query(query).unwrap())).await.unwrap();
    context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()
}

/// Which column of a view holds its window, and what to add to get the end.
fn window_column(def: &ViewDef) -> Option<(&'static str, i64)> {
    let size = if def.query.contains("7 seconds") { 7 } else { 10 } * SECOND;
    if def.query.contains("AS until") { Some(("until", 0)) } else { def.query.contains("window_start").then_some(("window_start", size)) }
}

fn only_closed(batches: Vec<RecordBatch>, (column, to_end): (&str, i64), watermark: i64) -> Vec<RecordBatch> {
    batches
        .into_iter()
        .map(|b| {
            let ends = b.column_by_name(column).unwrap().as_primitive::<TimestampNanosecondType>();
            let keep = ends.iter().map(|t| Some(t.unwrap() + to_end <= watermark)).collect();
            arrow::compute::filter_record_batch(&b, &keep).unwrap()
        })
        .collect()
}

/// The watermark as the documentation tells it, worked out a second time and in another way.
struct Model {
    bound: i64,
    /// For each partition all event times seen.
    seen: BTreeMap<i32, Vec<i64>>,
    watermark: i64,
}

impl Model {
    fn step(&mut self, rows: &[Row], partitions: i32) -> (i64, i64) {
        let before = self.watermark;
        for row in rows {
            self.seen.entry(row.partition).or_default().push(row.ts);
        }
        if self.seen.len() == partitions as usize {
            let slowest = self.seen.values().map(|times| times.iter().max().unwrap() - self.bound).min().unwrap();
            self.watermark = self.watermark.max(slowest);
        }
        (before, self.watermark)
    }
}

struct Run {
    source: Arc<SourceDef>,
    def: Arc<ViewDef>,
    partitions: i32,
    threads: usize,
}

impl Run {
    async fn pipeline(&self, board: &Arc<Board>) -> Pipeline {
        let mut pipeline = Pipeline::new(vec![(self.source.clone(), 1)], board.clone(), self.threads).unwrap();
        pipeline.assign("events", 0..self.partitions);
        pipeline
    }

    async fn view(&self) -> ViewRuntime {
        let state = standalone_state(&[&self.source]).unwrap();
        let plan = plan_view(&state, sql::parse_query(&self.def.query).unwrap(), self.def.emit, &self.def.options).await.unwrap();
        ViewRuntime::new(self.def.clone(), 7, Arc::new(plan), &[&self.source], BTreeMap::new(), 0).unwrap()
    }
}

async fn one_run(seed: u64) -> (usize, usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let bound = rng.random_range(0..8) * SECOND;
    let partitions = rng.random_range(1..5);
    let text = format!(
        "CREATE SOURCE events (id BIGINT, ts TIMESTAMP, k TEXT PATH '$.k.name', x BIGINT, f DOUBLE, WATERMARK FOR ts AS ts - INTERVAL '{} seconds')
         WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json')",
        bound / SECOND
    );
    let Definition::Source(source) = sql::parse_definition(&text).unwrap() else { panic!("no source") };
    let Statement::CreateContinuousView { def, .. } = sql::parse_one(VIEWS[seed as usize % VIEWS.len()]).unwrap() else { panic!("no view") };
    let run = Run { source, def: Arc::new(def), partitions, threads: 1 + seed as usize % 2 };
    let folder = tempfile::tempdir().unwrap();
    let mut store = CheckpointStore::local(folder.path().into()).unwrap();
    let board = Arc::new(Board::default());
    let mut pipeline = run.pipeline(&board).await;
    pipeline.attach(run.view().await).unwrap();
    let on_close = run.def.emit == Some(Emit::OnWindowClose);

    let mut model = Model { bound, seen: BTreeMap::new(), watermark: i64::MIN };
    let mut all: Vec<Row> = vec![];
    let mut late_model: BTreeSet<(i32, i64)> = BTreeSet::new();
    let mut bad_model: BTreeSet<(i32, i64)> = BTreeSet::new();
    let mut offsets = vec![0i64; partitions as usize];
    let mut clock = 1_000 * SECOND;
    let (mut checks, mut id) = (0, 0);
    let epochs = if seed.is_multiple_of(5) { 60 } else { rng.random_range(3..14) };
    for _ in 0..epochs {
        let mut fresh: Vec<Row> = vec![];
        let mut slices = vec![];
        for partition in 0..partitions {
            let begin = offsets[partition as usize];
            let mut builder = RecordsBuilder::new();
            let count = match rng.random_range(0..4) {
                0 => 0,
                1 => rng.random_range(1..4),
                _ => rng.random_range(1..40),
            };
            for _ in 0..count {
                // Gaps in offsets are normal.
                offsets[partition as usize] += if rng.random_bool(0.1) { 3 } else { 1 };
                let offset = offsets[partition as usize] - 1;
                clock += rng.random_range(0..SECOND / 4);
                if rng.random_bool(0.03) {
                    let bad: &[u8] =
                        [&b"{\"id\": 1"[..], b"{\"ts\": \"2024-01-01T00:00:00Z\", \"x\": \"7\"}", b"{\"id\": 5}", b"\xff\xfe"][rng.random_range(0..4)];
                    builder.push(offset, Some(clock / 1_000_000), None, Some(bad), vec![]);
                    bad_model.insert((partition, offset));
                    continue;
                }
                let disorder = if rng.random_bool(0.1) { rng.random_range(0..40) * SECOND } else { rng.random_range(0..3 * SECOND) };
                id += 1;
                let row = Row {
                    partition,
                    offset,
                    id,
                    // Milliseconds, as the text holds them.
                    ts: (clock - disorder) / 1_000_000 * 1_000_000,
                    k: [None, Some("a"), Some("b"), Some("a key that is longer than a view holds inline")][rng.random_range(0..4)].map(String::from),
                    x: (!rng.random_bool(0.2)).then(|| rng.random_range(-3..12)),
                    // Sums of quarters are exact in any order.
                    f: (!rng.random_bool(0.2)).then(|| rng.random_range(-40..40) as f64 / 4.0),
                };
                builder.push(offset, Some(clock / 1_000_000), None, Some(row.json().as_bytes()), vec![]);
                fresh.push(row);
            }
            if count > 0 {
                slices.push(Slice { partition, begin, end: offsets[partition as usize], records: builder.finish() });
            }
        }
        let cut =
            EpochCut { epoch: pipeline.epoch() + 1, now_ms: clock / 1_000_000, slices: BTreeMap::from([("events".into(), slices)]), idle: BTreeMap::new() };
        pipeline.run(&cut).await.unwrap();
        let (before, after) = model.step(&fresh, partitions);
        if let Some((_, _)) = window_column(&run.def) {
            let size = if run.def.query.contains("7 seconds") { 7 } else { 10 } * SECOND;
            let filtered = run.def.query.contains("x IS NOT NULL");
            let late = fresh.iter().filter(|r| r.ts.div_euclid(size) * size + size <= before && !(filtered && r.x.is_none()));
            late_model.extend(late.map(|r| (r.partition, r.offset)));
        }
        all.extend(fresh);

        let published = board.current();
        let view = &published.views["v"];
        assert!(view.failure.is_none(), "seed {seed}: {:?}", view.failure);
        let late: BTreeSet<(i32, i64)> = snapshot(&view.late)
            .iter()
            .flat_map(|b| {
                let partitions = b.column_by_name("_partition").unwrap().as_primitive::<Int32Type>().values().to_vec();
                let offsets = b.column_by_name("_offset").unwrap().as_primitive::<Int64Type>().values().to_vec();
                let ids = b.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec();
                for ((partition, offset), id) in partitions.iter().zip(&offsets).zip(ids) {
                    assert!(all.iter().any(|r| (r.partition, r.offset, r.id) == (*partition, *offset, id)), "seed {seed}: a late row is another record");
                }
                partitions.into_iter().zip(offsets)
            })
            .collect();
        assert_eq!(late, late_model, "seed {seed}: late rows");
        assert_eq!(view.late_total as usize, late_model.len(), "seed {seed}: late count");
        let bad: BTreeSet<(i32, i64)> = snapshot(&published.sources["events"].errors)
            .iter()
            .flat_map(|b| b.column(1).as_primitive::<Int32Type>().values().to_vec().into_iter().zip(b.column(2).as_primitive::<Int64Type>().values().to_vec()))
            .collect();
        assert_eq!(bad, bad_model, "seed {seed}: bad records");
        let prefix: Vec<&Row> = all.iter().filter(|r| !late_model.contains(&(r.partition, r.offset))).collect();
        let mut want = batch(&run.def.query, &run.source, &prefix).await;
        if on_close {
            want = only_closed(want, window_column(&run.def).unwrap(), after);
        }
        assert_eq!(bag(snapshot(&view.contents)), bag(want), "seed {seed}, epoch {}: {}", cut.epoch, run.def.query);
        checks += 1;

        if rng.random_bool(0.25) {
            store.write(pipeline.image().unwrap()).await.unwrap();
            if rng.random_bool(0.6) {
                // A new process: everything from the folder.
                store = CheckpointStore::local(folder.path().into()).unwrap();
                let mut restored = store.newest().await.unwrap().unwrap();
                pipeline = run.pipeline(&board).await;
                pipeline.restore(&mut restored).unwrap();
                let mut view = run.view().await;
                assert!(view.restore(&mut restored).unwrap());
                pipeline.attach(view).unwrap();
            }
        }
    }
    (checks, late_model.len())
}

#[tokio::test]
async fn every_epoch_equals_the_batch_answer() {
    let seeds: u64 = std::env::var("TIDEGATE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(110);
    let (mut checks, mut late) = (0, 0);
    for seed in 0..seeds {
        let (c, l) = one_run(seed).await;
        checks += c;
        late += l;
    }
    println!("{checks} epochs of {seeds} seeds equal the batch answer; {late} rows were late");
    assert!(late > 100, "the data had too few late rows to show anything");
}

/// A view that fails stands still at its last epoch; its neighbours go on.
#[tokio::test]
async fn a_failing_view_rolls_back_and_leaves_its_neighbours_alone() {
    let Definition::Source(source) = sql::parse_definition(
        "CREATE SOURCE events (id BIGINT, ts TIMESTAMP, x BIGINT, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json')",
    )
    .unwrap() else {
        panic!("no source")
    };
    let board = Arc::new(Board::default());
    let mut pipeline = Pipeline::new(vec![(source.clone(), 1)], board.clone(), 1).unwrap();
    for (id, (name, expression)) in [("good", "sum(x)"), ("bad", "10 / sum(x)")].into_iter().enumerate() {
        let text = format!(
            "CREATE CONTINUOUS VIEW {name} AS SELECT window_start, {expression} AS v FROM TUMBLE(events, ts, INTERVAL '10 seconds') GROUP BY window_start EMIT CHANGES"
        );
        let Statement::CreateContinuousView { def, .. } = sql::parse_one(&text).unwrap() else { panic!("no view") };
        let state = standalone_state(&[&source]).unwrap();
        let plan = plan_view(&state, sql::parse_query(&def.query).unwrap(), def.emit, &def.options).await.unwrap();
        pipeline.attach(ViewRuntime::new(Arc::new(def), id as u64, Arc::new(plan), &[&source], BTreeMap::new(), 0).unwrap()).unwrap();
    }
    for (epoch, x) in [5, -5, 7].into_iter().enumerate() {
        let mut builder = RecordsBuilder::new();
        builder.push(epoch as i64, Some(0), None, Some(format!("{{\"id\":1,\"ts\":\"1970-01-01T00:00:01Z\",\"x\":{x}}}").as_bytes()), vec![]);
        let slice = Slice { partition: 0, begin: epoch as i64, end: epoch as i64 + 1, records: builder.finish() };
        let cut = EpochCut { epoch: epoch as u64 + 1, now_ms: 0, slices: BTreeMap::from([("events".into(), vec![slice])]), idle: BTreeMap::new() };
        pipeline.run(&cut).await.unwrap();
    }
    let published = board.current();
    let value = |name: &str| {
        snapshot(&published.views[name].contents).iter().flat_map(|b| b.column(1).as_primitive::<Int64Type>().values().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(value("good"), [7]);
    assert_eq!(value("bad"), [2], "the failed view stands at epoch 1");
    let failure = published.views["bad"].failure.clone().unwrap();
    assert_eq!(failure.epoch, 2);
    assert!(failure.reason.to_lowercase().contains("divide by zero"), "{}", failure.reason);
}
