//! Joins in views: at every epoch a view equals DataFusion's batch join over the rows read so far, less the late ones. Which sources
//! bring how much in an epoch is random, one may be far ahead of the others; keys repeat and are NULL, rows are late, the process dies
//! with or without a checkpoint. A failure names its seed and query.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use arrow::{
    array::{AsArray, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    compute::filter_record_batch,
    datatypes::TimestampNanosecondType,
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
    catalog::{Definition, SourceDef, ViewDef},
    source::{RecordsBuilder, Slice},
    sql::{self, Statement},
    stream::{
        pipeline::{EpochCut, Pipeline},
        plan::{ViewPlan, plan_view, standalone_state},
        published::Board,
        view::ViewRuntime,
    },
};

const SECOND: i64 = 1_000_000_000;
const SOURCES: [&str; 3] = ["a", "b", "c"];

/// What tells that a row is late.
#[derive(Debug, Clone, Copy)]
enum Judge {
    /// Its time,
    Time,
    /// or the end of its window of so many seconds.
    Window(i64),
}

#[derive(Debug, Clone)]
struct Case {
    sql: String,
    /// Which sources' rows can be late.
    judged: Vec<(&'static str, Judge)>,
    /// Seconds.
    lateness: i64,
    /// Seconds that watermarks trail.
    bound: i64,
    /// The view shows windows that the slowest of these sources' watermarks has passed by so many seconds.
    closed: Option<(Vec<&'static str>, i64)>,
    /// Whether its state is bounded.
    bounded: bool,
}

fn case(sql: impl Into<String>) -> Case {
    Case { sql: sql.into(), judged: vec![], lateness: 0, bound: 5, closed: None, bounded: false }
}

impl Case {
    fn judged(mut self, sources: &[&'static str], judge: Judge) -> Self {
        self.judged.extend(sources.iter().map(|source| (*source, judge)));
        self
    }

    fn bounded(self) -> Self {
        Self { bounded: true, ..self }
    }

    /// The watermark trails by more than any row.
    fn punctual(self) -> Self {
        Self { bound: 12, ..self }
    }

    fn late_by(self, lateness: i64) -> Self {
        Self { lateness, ..self }
    }

    fn closed(self, sources: &[&'static str], lag: i64) -> Self {
        Self { closed: Some((sources.to_vec(), lag)), ..self }
    }
}

#[derive(Debug, Clone)]
struct Row {
    id: i64,
    ts: i64,
    k: Option<&'static str>,
    x: Option<i64>,
    e: Option<i64>,
}

/// What has been read, and what must have come of it.
#[derive(Debug, Clone, Default)]
struct Model {
    rows: BTreeMap<&'static str, Vec<Row>>,
    greatest: BTreeMap<&'static str, i64>,
    watermarks: BTreeMap<&'static str, i64>,
    late: usize,
    offsets: BTreeMap<&'static str, i64>,
}

impl Model {
    fn watermark(&self, source: &str) -> i64 {
        self.watermarks.get(source).copied().unwrap_or(i64::MIN)
    }

    fn step(&mut self, case: &Case, records: &BTreeMap<&'static str, Vec<Row>>) {
        let before = self.watermarks.clone();
        for (source, rows) in records {
            for row in rows {
                let judge = case.judged.iter().find(|(judged, _)| judged == source).map(|(_, judge)| *judge);
                let own = match judge {
                    None => i64::MAX,
                    Some(Judge::Time) => row.ts,
                    Some(Judge::Window(size)) => row.ts.div_euclid(size * SECOND) * size * SECOND + size * SECOND - 1,
                };
                let floor = before.get(source).copied().unwrap_or(i64::MIN).saturating_sub(case.lateness * SECOND);
                if own < floor {
                    self.late += 1;
                } else {
                    self.rows.entry(source).or_default().push(row.clone());
                }
                let greatest = self.greatest.entry(source).or_insert(row.ts);
                *greatest = row.ts.max(*greatest);
            }
            *self.offsets.entry(source).or_default() += rows.len() as i64;
            if let Some(greatest) = self.greatest.get(source) {
                self.watermarks.insert(source, greatest - case.bound * SECOND);
            }
        }
    }
}

fn source(name: &str, bound: i64) -> Arc<SourceDef> {
    let text = format!(
        "CREATE SOURCE {name} (id BIGINT, ts TIMESTAMP, k TEXT, x BIGINT, e TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '{bound} seconds')
         WITH (connector = 'kafka', topic = '{name}', 'bootstrap.servers' = 'b:1', format = 'json')"
    );
    let Definition::Source(source) = sql::parse_definition(&text).unwrap() else { panic!("no source") };
    source
}

fn view_def(case: &Case) -> ViewDef {
    let text = format!("CREATE CONTINUOUS VIEW v AS {}", case.sql);
    let Statement::CreateContinuousView { mut def, .. } = sql::parse_one(&text).unwrap() else { panic!("no view") };
    def.options.unbounded_state = !case.bounded;
    def.options.lateness = Duration::from_secs(case.lateness as u64);
    def
}

struct Engine {
    sources: Vec<Arc<SourceDef>>,
    def: Arc<ViewDef>,
    board: Arc<Board>,
    pipeline: Pipeline,
    plan: Arc<ViewPlan>,
}

impl Engine {
    async fn new(case: &Case) -> Self {
        let sources: Vec<_> = SOURCES.iter().map(|name| source(name, case.bound)).collect();
        let (def, board) = (Arc::new(view_def(case)), Arc::new(Board::default()));
        let plan = Arc::new(plan(&sources, &def).await.unwrap_or_else(|e| panic!("{}: {e}", case.sql)));
        let mut engine = Self { pipeline: pipeline(&sources, &board), sources, def, board, plan };
        let view = engine.view();
        engine.pipeline.attach(view).unwrap();
        engine
    }

    fn view(&self) -> ViewRuntime {
        let sources: Vec<&SourceDef> = self.sources.iter().map(Arc::as_ref).collect();
        ViewRuntime::new(self.def.clone(), 7, self.plan.clone(), &sources, BTreeMap::new(), 0).unwrap()
    }
}

fn pipeline(sources: &[Arc<SourceDef>], board: &Arc<Board>) -> Pipeline {
    let mut pipeline = Pipeline::new(sources.iter().cloned().zip(1..).collect(), board.clone(), 1).unwrap();
    SOURCES.iter().for_each(|name| pipeline.assign(name, [0]));
    pipeline
}

async fn plan(sources: &[Arc<SourceDef>], def: &ViewDef) -> crate::error::Result<ViewPlan> {
    let state = standalone_state(&sources.iter().map(Arc::as_ref).collect::<Vec<_>>()).unwrap();
    plan_view(&state, sql::parse_query(&def.query).unwrap(), def.emit, &def.options).await
}

/// DataFusion's answer.
async fn batch(def: &ViewDef, sources: &[Arc<SourceDef>], model: &Model) -> Vec<RecordBatch> {
    let mut context = SessionContext::new_with_config(datafusion::prelude::SessionConfig::new().with_target_partitions(1));
    tidegate_udfs::register(&mut context).unwrap();
    for source in sources {
        let rows = model.rows.get(source.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let columns = RecordBatch::try_new(
            source.schema(),
            vec![
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
                Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.ts))),
                Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r.k))),
                Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.x))),
                Arc::new(TimestampNanosecondArray::from_iter(rows.iter().map(|r| r.e))),
            ],
        )
        .unwrap();
        context.register_table(source.name.as_str(), Arc::new(MemTable::try_new(source.schema(), vec![vec![columns]]).unwrap())).unwrap();
    }
    let plan = context.state().statement_to_plan(sql::query_statement(sql::parse_query(&def.query).unwrap())).await.unwrap();
    context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()
}

/// Where the sources stand, and how they go on.
struct Producer {
    rng: ChaCha8Rng,
    next_id: i64,
    clocks: BTreeMap<&'static str, i64>,
    used: Vec<&'static str>,
}

impl Producer {
    fn records(&mut self) -> BTreeMap<&'static str, Vec<Row>> {
        let rng = &mut self.rng;
        let mut records = BTreeMap::new();
        for source in &self.used {
            let clock = self.clocks.entry(source).or_default();
            let count = if rng.random_bool(0.3) { 0 } else { rng.random_range(1..7) };
            // Sometimes a source leaps ahead, or catches up.
            if rng.random_bool(0.1) {
                *clock += rng.random_range(0..30) * SECOND;
            }
            let rows: Vec<Row> = (0..count)
                .map(|_| {
                    *clock += rng.random_range(0..4) * SECOND / 2;
                    let ts = *clock - if rng.random_bool(0.3) { rng.random_range(0..20) * SECOND / 2 } else { 0 };
                    self.next_id += 1;
                    Row {
                        // Some rows are equal to others.
                        id: if rng.random_bool(0.2) { 0 } else { self.next_id },
                        ts,
                        k: [None, Some("p"), Some("q"), Some("a key that is longer than a view holds inline"), Some("r")][rng.random_range(0..5)],
                        x: (!rng.random_bool(0.15)).then(|| rng.random_range(0..8)),
                        e: (!rng.random_bool(0.2)).then(|| ts + rng.random_range(-4..20) * SECOND / 2),
                    }
                })
                .collect();
            if !rows.is_empty() {
                records.insert(*source, rows);
            }
        }
        records
    }
}

#[derive(Default)]
struct Seen {
    /// What followers were given, in order.
    changes: Vec<(String, i64)>,
    epochs: usize,
    restarts: usize,
    late: usize,
    rows: usize,
    retracted: usize,
}

async fn one_run(case: &Case, seed: u64, epochs: usize) -> Seen {
    // Where no row is to be late, the bound is as it is.
    let bound = if case.bound == 5 { [5, 2, 0][seed as usize % 3] } else { case.bound };
    let case = &Case { bound, ..case.clone() };
    let what = format!("seed {seed}: {}", case.sql);
    let mut engine = Engine::new(case).await;
    let used: Vec<&'static str> = SOURCES.into_iter().filter(|name| engine.plan.inputs.contains_key(*name)).collect();
    let mut producer = Producer { rng: ChaCha8Rng::seed_from_u64(seed), next_id: 0, clocks: BTreeMap::new(), used };
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    let mut followed = Followed::from(&engine.board.current().views["v"], 0, &bag([]));
    let (mut model, mut seen) = (Model::default(), Seen::default());
    let mut saved: Option<Model> = None;
    let mut since: BTreeMap<&'static str, Vec<Row>> = BTreeMap::new();
    let mut again: BTreeMap<&'static str, Vec<Row>> = BTreeMap::new();
    for epoch in 1..=epochs as u64 {
        let mut records = std::mem::take(&mut again);
        for (source, rows) in producer.records() {
            records.entry(source).or_default().extend(rows);
        }
        let slices = records
            .iter()
            .map(|(source, rows)| {
                let begin = model.offsets.get(source).copied().unwrap_or_default();
                let mut builder = RecordsBuilder::new();
                for (offset, row) in (begin..).zip(rows) {
                    let time = |ns: i64| chrono::DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
                    let json = serde_json::json!({ "id": row.id, "ts": time(row.ts), "k": row.k, "x": row.x, "e": row.e.map(time) }).to_string();
                    builder.push(offset, Some(row.ts / 1_000_000), None, Some(json.as_bytes()), vec![]);
                }
                (source.to_string(), vec![Slice { partition: 0, begin, end: begin + rows.len() as i64, records: builder.finish() }])
            })
            .collect();
        let cut = EpochCut { epoch: engine.pipeline.epoch() + 1, now_ms: i64::MAX / 2_000_000, slices, ..EpochCut::default() };
        engine.pipeline.run(&cut).await.unwrap();
        model.step(case, &records);
        for (source, rows) in records {
            since.entry(source).or_default().extend(rows);
        }

        let published = engine.board.current();
        let view = &published.views["v"];
        assert!(view.failure.is_none(), "{what}: epoch {epoch}: {:?}", view.failure);
        assert_eq!(view.late_total as usize, model.late, "{what}: epoch {epoch}: late rows");
        let mut want = batch(&engine.def, &engine.sources, &model).await;
        if let Some((sources, lag)) = &case.closed {
            let passed = sources.iter().map(|source| model.watermark(source)).min().unwrap().saturating_sub(lag * SECOND);
            for batch in &mut want {
                let ends = batch.column_by_name("window_end").unwrap().as_primitive::<TimestampNanosecondType>();
                *batch = filter_record_batch(batch, &ends.iter().map(|end| end.map(|end| end <= passed)).collect()).unwrap();
            }
        }
        let want = bag(want);
        let got = bag(snapshot(&view.contents));
        same(&got, &want, ["the view", "the batch answer"]).map_err(|e| format!("{what}: epoch {epoch}: {e}\n{model:?}")).unwrap();
        for (row, weight) in followed.take().unwrap_or_else(|e| panic!("{what}: epoch {epoch}: {e}")) {
            assert!(weight > 0 || engine.plan.changing, "{what}: a row was taken away that was to stay: {row}");
            seen.retracted += usize::from(weight < 0);
            seen.changes.push((row, weight));
        }
        same(&followed.rows(), &want, ["the follower", "the batch answer"]).map_err(|e| format!("{what}: epoch {epoch}: {e}")).unwrap();
        seen.epochs += 1;
        seen.rows += want.values().sum::<usize>();
        seen.late = model.late;

        let checkpoints = producer.rng.random_bool(0.25);
        if checkpoints {
            store.write(engine.pipeline.image().unwrap()).await.unwrap();
            saved = Some(model.clone());
            since.clear();
        }
        if let Some(saved) = &saved
            && producer.rng.random_bool(if checkpoints { 0.5 } else { 0.1 })
        {
            store = open(folder.path()).await;
            let mut restored = store.newest().await.unwrap().unwrap();
            engine.pipeline = pipeline(&engine.sources, &engine.board);
            engine.pipeline.restore(&mut restored).unwrap();
            let mut view = engine.view();
            assert!(view.restore(&mut restored).unwrap());
            engine.pipeline.attach(view).unwrap();
            model = saved.clone();
            again = std::mem::take(&mut since);
            let view = &engine.board.current().views["v"];
            let held = bag(snapshot(&view.contents));
            followed = Followed::from(view, engine.pipeline.epoch(), &held);
            seen.restarts += 1;
        }
    }
    seen
}

/// Runs cases, each with so many seeds, on as many threads as there are.
fn all_pass(cases: &[Case], seeds: u64, epochs: usize) -> Seen {
    let seeds = std::env::var("TIDEGATE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(seeds);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let all = parking_lot::Mutex::new(Seen::default());
    let failed = parking_lot::Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                while let Some(case) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    for seed in 0..seeds {
                        match std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(one_run(case, seed, epochs)))) {
                            Ok(seen) => {
                                let mut all = all.lock();
                                all.epochs += seen.epochs;
                                all.restarts += seen.restarts;
                                all.late += seen.late;
                                all.rows += seen.rows;
                                all.retracted += seen.retracted;
                            }
                            Err(panic) => {
                                let text = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string()));
                                failed.lock().push(text.unwrap_or_else(|| case.sql.clone()));
                                break;
                            }
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "{} of {} cases fail, for one:\n{}", failed.len(), cases.len(), failed.join("\n\n"));
    let all = all.into_inner();
    println!(
        "{} epochs of {} cases equal the batch answer: {} rows, {} retractions, {} late, {} restarts",
        all.epochs,
        cases.len(),
        all.rows,
        all.retracted,
        all.late,
        all.restarts
    );
    all
}

/// Every kind of join over sides that only grow and sides that change, with and without equal columns and conditions.
fn kinds() -> Vec<Case> {
    let plain = |table: &str| format!("(SELECT id, k, x FROM {table})");
    let groups = |table: &str| format!("(SELECT k, count(*) AS x, max(id) AS id FROM {table} GROUP BY k)");
    let sides = [(plain("a"), plain("b")), (groups("a"), plain("b")), (plain("a"), groups("b")), (groups("a"), groups("b")), (plain("a"), plain("a"))];
    let mut cases = vec![];
    for (left, right) in &sides {
        for kind in ["INNER", "LEFT", "RIGHT", "FULL", "LEFT SEMI", "LEFT ANTI", "RIGHT SEMI", "RIGHT ANTI"] {
            for on in
                ["l.k = r.k", "l.k = r.k AND l.x < r.x", "l.x + 3 < r.x", "l.k IS NOT DISTINCT FROM r.k", "l.k = r.k AND l.x % 3 = r.x % 3 AND l.id <> r.id"]
            {
                let columns = match kind {
                    "LEFT SEMI" | "LEFT ANTI" => "l.id, l.k, l.x",
                    "RIGHT SEMI" | "RIGHT ANTI" => "r.id, r.k, r.x",
                    _ => "l.id, l.k, l.x, r.id AS rid, r.k AS rk, r.x AS rx",
                };
                cases.push(case(format!("SELECT {columns} FROM {left} AS l {kind} JOIN {right} AS r ON {on} EMIT CHANGES")));
            }
        }
    }
    cases
}

/// Subqueries, which DataFusion makes joins of, set operations, and several joins in one query.
fn queries() -> Vec<Case> {
    [
        "SELECT a.id, b.x FROM a CROSS JOIN b WHERE b.x > 5",
        "SELECT id, k FROM a WHERE k IN (SELECT k FROM b WHERE x > 3)",
        "SELECT id, k FROM a WHERE k NOT IN (SELECT k FROM b WHERE x > 6)",
        "SELECT id, k FROM a WHERE k NOT IN (SELECT k FROM b WHERE k IS NOT NULL)",
        "SELECT id, k FROM a WHERE x NOT IN (SELECT max(x) FROM b GROUP BY k)",
        "SELECT id, k FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.x > a.x)",
        "SELECT id, k FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.x > a.x)",
        "SELECT id, k FROM a WHERE x > 6 OR k IN (SELECT k FROM b WHERE x > 5)",
        "SELECT id, k FROM a WHERE x > 6 OR EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.x > a.x)",
        "SELECT id, k FROM a WHERE x > 6 OR NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)",
        "SELECT k, x FROM (SELECT k, count(*) AS x FROM a GROUP BY k) AS g WHERE x > 6 OR EXISTS (SELECT 1 FROM b WHERE b.k = g.k AND b.x > g.x)",
        "SELECT k, x FROM a INTERSECT SELECT k, x FROM b",
        "SELECT k, x FROM a EXCEPT SELECT k, x FROM b",
        "SELECT k FROM a INTERSECT ALL SELECT k FROM b",
        "SELECT k FROM a EXCEPT ALL SELECT k FROM b",
        "SELECT k, x FROM a EXCEPT SELECT k, x FROM a WHERE x > 4",
        "SELECT id, x FROM a WHERE x > (SELECT avg(x) FROM b)",
        "SELECT id, (SELECT max(x) FROM b) AS m FROM a",
        "SELECT id, (SELECT max(x) FROM b WHERE b.k = a.k) AS m FROM a",
        "SELECT id, x FROM a WHERE x = (SELECT max(x) FROM b WHERE b.k = a.k)",
        "SELECT a.id, b.id AS bid, c.id AS cid FROM a JOIN b ON a.k = b.k AND a.x = b.x JOIN c ON b.k = c.k AND b.x = c.x",
        "SELECT a.id, b.id AS bid, c.id AS cid FROM a LEFT JOIN b ON a.k = b.k AND a.x = b.x LEFT JOIN c ON b.k = c.k AND c.x > 4",
        "SELECT a.id, b.id AS bid, c.id AS cid FROM a FULL JOIN b ON a.k = b.k AND a.x = b.x RIGHT JOIN c ON a.x = c.x AND a.k = c.k",
        "SELECT l.id, r.id AS rid FROM a AS l JOIN a AS r ON l.k = r.k AND l.x < r.x",
        "SELECT l.id, r.id AS rid FROM a AS l LEFT JOIN a AS r ON l.x = r.x + 1",
        "SELECT a.id, b.id AS bid FROM a LEFT JOIN b ON a.k = b.k AND b.x > 4 WHERE a.x > 2 AND (b.x IS NULL OR b.x < 7)",
        "SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE x > 6)",
        "SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE x > 6)",
        "SELECT a.id, g.n FROM a LEFT JOIN (SELECT k, count(*) AS n FROM b GROUP BY k HAVING count(*) > 2) AS g USING (k)",
        "SELECT id FROM a JOIN b USING (id, k) UNION ALL SELECT id FROM c",
        "SELECT l.k, l.n, r.m FROM (SELECT k, count(*) AS n FROM a GROUP BY k) AS l, (SELECT max(x) AS m FROM b) AS r WHERE l.n > r.m",
        "SELECT k, count(*) AS n, sum(bx) AS s FROM (SELECT a.k, b.x AS bx FROM a JOIN b ON a.k = b.k) GROUP BY k",
        "SELECT upper(l.k) AS k, l.x * r.x AS y FROM a AS l JOIN b AS r ON lower(l.k) = lower(r.k) AND l.x + r.x > 9",
    ]
    .into_iter()
    .map(case)
    .collect()
}

/// Joins whose state time bounds: intervals in several spellings, one-sided ones, windows.
fn bounded() -> Vec<Case> {
    let interval = [
        "r.ts BETWEEN l.ts - INTERVAL '4 seconds' AND l.ts + INTERVAL '6 seconds'",
        "l.ts >= r.ts - INTERVAL '6 seconds' AND l.ts <= r.ts + INTERVAL '4 seconds'",
        "r.ts - INTERVAL '6 seconds' < l.ts AND r.ts + INTERVAL '4 seconds' > l.ts",
        "r.ts - l.ts <= INTERVAL '6 seconds' AND r.ts - l.ts >= INTERVAL '-4 seconds'",
        "l.ts = r.ts",
    ];
    let mut cases = vec![];
    for (n, time) in interval.into_iter().enumerate() {
        for kind in ["INNER", "LEFT", "RIGHT", "FULL", "LEFT SEMI", "LEFT ANTI", "RIGHT ANTI"] {
            for (m, on) in ["l.k = r.k", "l.x <> r.x"].into_iter().enumerate() {
                let columns = match kind {
                    "LEFT SEMI" | "LEFT ANTI" => "l.id, l.ts",
                    "RIGHT ANTI" => "r.id, r.ts",
                    _ => "l.id, l.ts, r.id AS rid, r.ts AS rts",
                };
                let sql = format!("SELECT {columns} FROM a AS l {kind} JOIN b AS r ON {on} AND {time}");
                cases.push(case(sql).judged(&["a", "b"], Judge::Time).bounded().late_by(if (n + m) % 2 == 0 { 0 } else { 3 }));
            }
        }
    }
    // One side lasts as long as it says itself, the other for ever.
    for kind in ["INNER", "LEFT", "FULL", "LEFT ANTI"] {
        let columns = if kind == "LEFT ANTI" { "l.id" } else { "l.id, r.id AS rid" };
        cases.push(case(format!("SELECT {columns} FROM a AS l {kind} JOIN b AS r ON l.k = r.k AND l.ts <= r.e")).judged(&["a"], Judge::Time));
        cases.push(case(format!("SELECT {columns} FROM a AS l {kind} JOIN b AS r ON l.k = r.k AND r.ts < l.e")).judged(&["b"], Judge::Time));
    }
    cases.push(
        case("SELECT l.id, r.id AS rid FROM a AS l LEFT JOIN a AS r ON l.k = r.k AND r.ts BETWEEN l.ts AND l.ts + INTERVAL '3 seconds'")
            .judged(&["a"], Judge::Time)
            .bounded(),
    );
    cases.push(
        case(
            "SELECT a.id, b.id AS bid, c.id AS cid FROM a JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '3 seconds' AND a.ts + INTERVAL '5 seconds'
             JOIN c ON a.k = c.k AND c.ts BETWEEN a.ts AND a.ts + INTERVAL '6 seconds'",
        )
        .judged(&["a", "b", "c"], Judge::Time)
        .bounded(),
    );
    cases.push(
        case(
            "SELECT id, ts FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.ts BETWEEN a.ts - INTERVAL '5 seconds' AND a.ts + INTERVAL '5 seconds')",
        )
        .judged(&["a", "b"], Judge::Time)
        .bounded(),
    );
    let windows = |table: &str, size: i64| format!("TUMBLE({table}, ts, INTERVAL '{size} seconds')");
    for kind in ["INNER", "LEFT", "FULL", "LEFT SEMI", "RIGHT ANTI"] {
        for (lateness, on) in [(0, "l.window_start = r.window_start"), (4, "l.window_end = r.window_end AND l.window_start = r.window_start AND l.x <> r.x")] {
            let columns = match kind {
                "LEFT SEMI" => "l.id, l.window_start",
                "RIGHT ANTI" => "r.id, r.window_start",
                _ => "l.id, l.window_start, r.id AS rid, r.window_start AS rstart",
            };
            let (left, right) = (windows("a", 10), windows("b", 10));
            let sql = format!("SELECT {columns} FROM {left} AS l {kind} JOIN {right} AS r ON l.k = r.k AND {on}");
            cases.push(case(sql).judged(&["a", "b"], Judge::Window(10)).bounded().late_by(lateness));
            // Aggregates of windows, which change.
            let groups = |table: &str| {
                format!("(SELECT window_start, window_end, k, count(*) AS x, max(id) AS id FROM {} GROUP BY window_start, window_end, k)", windows(table, 10))
            };
            for (left, right) in [(groups("a"), groups("b")), (groups("a"), windows("b", 10)), (windows("a", 10), groups("b"))] {
                let sql = format!("SELECT {columns} FROM {left} AS l {kind} JOIN {right} AS r ON l.k = r.k AND {on} EMIT CHANGES");
                cases.push(case(sql).judged(&["a", "b"], Judge::Window(10)).bounded().late_by(lateness));
            }
        }
    }
    cases
}

/// Both sides close together, and aggregates above joins.
fn closing() -> Vec<Case> {
    let groups = |filter: &str| {
        format!(
            "(SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '10 seconds') WHERE {filter} GROUP BY window_start, window_end, k)"
        )
    };
    let mut cases = vec![];
    for kind in ["INNER", "LEFT", "LEFT SEMI", "LEFT ANTI"] {
        let columns = if kind.contains(' ') { "l.window_end, l.k, l.n" } else { "l.window_end, l.k, l.n, r.n AS m" };
        let sql = format!(
            "SELECT {columns} FROM {} AS l {kind} JOIN {} AS r ON l.window_end = r.window_end AND l.k = r.k",
            groups("x > 2 OR x IS NULL"),
            groups("x < 5 OR x IS NULL")
        );
        cases.push(case(format!("{sql} EMIT ON WINDOW CLOSE")).judged(&["a"], Judge::Window(10)).bounded().closed(&["a"], 0));
    }
    // Each row is in several windows; panes are put together below the join.
    let hops = |filter: &str| {
        format!(
            "(SELECT window_start, window_end, k, count(*) AS n FROM HOP(a, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') WHERE {filter} GROUP BY window_start, window_end, k)"
        )
    };
    for column in ["window_start", "window_end"] {
        let sql = format!(
            "SELECT l.window_end, l.k, l.n, r.n AS m FROM {} AS l LEFT JOIN {} AS r ON l.{column} = r.{column} AND l.k = r.k EMIT ON WINDOW CLOSE",
            hops("x > 2 OR x IS NULL"),
            hops("x < 5 OR x IS NULL")
        );
        cases.push(case(sql).punctual().bounded().closed(&["a"], 0));
        let hop = |table: &str| format!("HOP({table}, ts, INTERVAL '5 seconds', INTERVAL '10 seconds')");
        let sql = format!(
            "SELECT l.id, l.{column}, r.id AS rid FROM {} AS l FULL JOIN {} AS r ON l.{column} = r.{column} AND l.k = r.k AND l.x < r.x",
            hop("a"),
            hop("b")
        );
        cases.push(case(sql).punctual().bounded());
    }
    for (emit, closed) in [("CHANGES", false), ("ON WINDOW CLOSE", true)] {
        let joined =
            "SELECT a.ts, b.ts AS bts, a.k, b.x FROM a JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '4 seconds' AND a.ts + INTERVAL '6 seconds'";
        for (time, lag) in [("ts", 6), ("bts", 4)] {
            let sql = format!(
                "SELECT window_start, window_end, k, count(*) AS n, sum(x) AS s FROM TUMBLE(({joined}), {time}, INTERVAL '10 seconds')
                 GROUP BY window_start, window_end, k EMIT {emit}"
            );
            let case = case(sql).judged(&["a", "b"], Judge::Time).bounded();
            cases.push(if closed { case.closed(&["a", "b"], lag) } else { case.late_by(2) });
        }
        for windows in [
            format!("HOP(({joined}), ts, INTERVAL '5 seconds', INTERVAL '10 seconds')"),
            format!("SESSION(({joined}) PARTITION BY k, ts, INTERVAL '3 seconds')"),
        ] {
            let sql = format!("SELECT window_start, window_end, k, count(*) AS n FROM {windows} GROUP BY window_start, window_end, k EMIT {emit}");
            let case = case(sql).judged(&["a", "b"], Judge::Time).bounded();
            cases.push(if closed { case.closed(&["a", "b"], 6) } else { case });
        }
        let sql = format!(
            "SELECT l.window_start, l.window_end, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '10 seconds') AS l JOIN TUMBLE(b, ts, INTERVAL '10 seconds') AS r
             ON l.window_start = r.window_start AND l.k = r.k GROUP BY l.window_start, l.window_end EMIT {emit}"
        );
        let case = case(sql).judged(&["a", "b"], Judge::Window(10)).bounded();
        cases.push(if closed { case.closed(&["a", "b"], 0) } else { case });
    }
    cases
}

#[test]
fn every_kind_of_join_equals_the_batch_answer() {
    let seen = all_pass(&kinds(), 2, 10);
    assert!(seen.rows > 10_000 && seen.retracted > 1_000 && seen.restarts > 50, "the data had too little in it to show anything");
}

#[test]
fn subqueries_and_set_operations_equal_the_batch_answer() {
    let seen = all_pass(&queries(), 4, 12);
    assert!(seen.rows > 1_000 && seen.retracted > 100 && seen.restarts > 20, "the data had too little in it to show anything");
}

#[test]
fn joins_that_time_bounds_equal_the_batch_answer_less_the_late_rows() {
    let seen = all_pass(&bounded(), 3, 16);
    assert!(seen.rows > 1_000 && seen.late > 100 && seen.restarts > 50, "the data had too little in it to show anything");
}

#[test]
fn windows_above_and_below_joins_equal_the_batch_answer() {
    let seen = all_pass(&closing(), 3, 24);
    assert!(seen.rows > 1_000 && seen.late > 50 && seen.restarts > 50, "the data had too little in it to show anything");
}

/// The state of joins that time bounds stays as large as what time leaves in it, for however long they run.
#[test]
fn state_stays_flat() {
    for sql in [
        "SELECT l.id, r.id AS rid FROM a AS l JOIN b AS r ON l.k = r.k AND r.ts BETWEEN l.ts - INTERVAL '4 seconds' AND l.ts + INTERVAL '6 seconds'",
        "SELECT l.id, r.id AS rid FROM a AS l FULL JOIN b AS r ON l.x = r.x AND r.ts BETWEEN l.ts - INTERVAL '4 seconds' AND l.ts + INTERVAL '6 seconds'",
        "SELECT l.id FROM a AS l WHERE NOT EXISTS (SELECT 1 FROM b AS r WHERE l.k = r.k AND r.ts >= l.ts AND r.ts < l.ts + INTERVAL '10 seconds')",
        "SELECT l.id, r.id AS rid FROM TUMBLE(a, ts, INTERVAL '10 seconds') AS l LEFT JOIN TUMBLE(b, ts, INTERVAL '10 seconds') AS r ON l.window_start = r.window_start AND l.k = r.k",
    ] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let case = case(sql).bounded();
            let mut engine = Engine::new(&case).await;
            let mut most = [0; 2];
            for epoch in 0..600_i64 {
                let slices = ["a", "b"].map(|name| {
                    let mut builder = RecordsBuilder::new();
                    for row in 0..4 {
                        let id = epoch * 4 + row;
                        let time =
                            chrono::DateTime::from_timestamp_nanos(epoch * SECOND + row * SECOND / 4).to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
                        let json = serde_json::json!({ "id": id, "ts": time, "k": if id % 3 == 0 { "p" } else { "q" }, "x": id % 5 }).to_string();
                        builder.push(id, Some(epoch * 1000), None, Some(json.as_bytes()), vec![]);
                    }
                    (name.to_string(), vec![Slice { partition: 0, begin: epoch * 4, end: epoch * 4 + 4, records: builder.finish() }])
                });
                let cut = EpochCut { epoch: epoch as u64 + 1, now_ms: i64::MAX / 2_000_000, slices: BTreeMap::from(slices), ..EpochCut::default() };
                engine.pipeline.run(&cut).await.unwrap();
                let view = &engine.board.current().views["v"];
                assert!(view.failure.is_none(), "{sql}: {:?}", view.failure);
                let half = usize::from(epoch >= 300);
                most[half] = most[half].max(view.state_rows);
            }
            assert!(most[1] <= most[0] && most[0] < 4 * 2 * 30, "{sql}: at most {most:?} rows in the first and the second half of 600 epochs");
        });
    }
}

/// With each of these faults in a join some case fails.
#[test]
fn faults_of_joins_are_found() {
    let cases: Vec<Case> = queries().into_iter().chain(bounded()).chain(kinds().into_iter().step_by(7)).collect();
    for mutant in [Mutant::RetractionLost, Mutant::JoinDroppedEarly, Mutant::PadNotTakenBack, Mutant::StateForgotten] {
        let found = cases.iter().enumerate().any(|(seed, case)| {
            std::panic::catch_unwind(AssertUnwindSafe(|| {
                let _on = mutant.on();
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(one_run(case, seed as u64, 16))
            }))
            .is_err()
        });
        assert!(found, "{mutant:?} was not found");
    }
}

/// The same epochs give the same rows in the same order.
#[tokio::test]
async fn the_same_epochs_give_the_same_changes() {
    let cases: Vec<Case> = kinds().into_iter().step_by(6).chain(bounded().into_iter().step_by(9)).collect();
    for case in &cases {
        let [one, other] = [one_run(case, 3, 8).await.changes, one_run(case, 3, 8).await.changes];
        assert_eq!(one, other, "{}", case.sql);
    }
}

/// When nothing has come for long, the windows on both sides of a join close together.
#[tokio::test]
async fn both_sides_close_together_when_it_is_quiet() {
    let groups = |filter: &str| format!("(SELECT window_end, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '10 seconds') WHERE {filter} GROUP BY window_end)");
    let sql = format!(
        "SELECT l.window_end, l.n, r.n AS m FROM {} AS l LEFT JOIN {} AS r ON l.window_end = r.window_end EMIT ON WINDOW CLOSE",
        groups("x > 2"),
        groups("x < 5")
    );
    let mut engine = Engine::new(&case(sql).bounded()).await;
    // Only the left side has a row in the second window.
    let epochs: [(&[(i64, i64)], i64); 3] = [(&[(1, 3), (12, 7)], 0), (&[], 3_600_000), (&[(13, 1)], 3_600_001)];
    let mut offset = 0;
    for (epoch, (rows, now_ms)) in epochs.into_iter().enumerate() {
        let mut builder = RecordsBuilder::new();
        let begin = offset;
        for (second, x) in rows {
            let json = format!("{{\"id\":{offset},\"ts\":\"1970-01-01T00:00:{second:02}Z\",\"x\":{x}}}");
            builder.push(offset, Some(second * 1_000), None, Some(json.as_bytes()), vec![]);
            offset += 1;
        }
        let slices = if rows.is_empty() { vec![] } else { vec![Slice { partition: 0, begin, end: offset, records: builder.finish() }] };
        let cut = EpochCut {
            epoch: epoch as u64 + 1,
            now_ms,
            slices: BTreeMap::from([("a".to_string(), slices)]),
            caught_up: SOURCES.iter().map(|name| name.to_string()).collect(),
            ..EpochCut::default()
        };
        engine.pipeline.run(&cut).await.unwrap();
    }
    let view = &engine.board.current().views["v"];
    assert_eq!(bag(snapshot(&view.contents)).into_keys().collect::<Vec<_>>(), ["1970-01-01T00:00:10|1|1", "1970-01-01T00:00:20|1|∅"]);
    assert_eq!(view.late_total, 1, "the right side's window has closed with the left one's");
}

/// The sentence with which a view is refused, or what its operators say of themselves.
async fn said(query: &str, unbounded: bool) -> String {
    let case = Case { bounded: !unbounded, ..case(query) };
    let sources: Vec<_> = SOURCES.iter().map(|name| source(name, 5)).collect();
    match plan(&sources, &view_def(&case)).await {
        Ok(plan) => plan.operators.iter().map(|o| format!("{}: {}", o.description, o.bound)).collect::<Vec<_>>().join("\n"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn what_bounds_a_join_is_told_and_what_nothing_bounds_is_refused() {
    for (query, unbounded, sentence) in [
        ("SELECT a.id FROM a JOIN b ON a.k = b.k", false, "nothing bounds the state of both sides of this join (inner join on [a.k = b.k]"),
        ("SELECT a.id FROM a JOIN b ON a.k = b.k AND a.ts <= b.e", false, "nothing bounds the state of the left side of this join"),
        ("SELECT a.id FROM a JOIN b ON a.k = b.k AND a.ts <= b.ts", false, "a row of the right side that is still to come could match a row of any age"),
        (
            "SELECT a.id FROM a JOIN b ON a.k = b.k AND a.ts <= b.e",
            true,
            "nothing bounds the left side (unbounded_state = true); right rows are dropped when the watermark of a passes b.e",
        ),
        (
            "SELECT a.id FROM a LEFT JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '5 seconds'",
            false,
            "left join on [a.k = b.k AND b.ts >= a.ts AND b.ts <= a.ts + ",
        ),
        (
            "SELECT a.id FROM a JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '1 minute' AND a.ts + INTERVAL '5 seconds'",
            false,
            "takes append-only and append-only rows, gives append-only rows: left rows are dropped when the watermark of b passes a.ts + 5s; right rows are dropped when the watermark of a passes b.ts + 1m",
        ),
        (
            "SELECT l.id FROM TUMBLE(a, ts, INTERVAL '10 seconds') AS l JOIN TUMBLE(b, ts, INTERVAL '10 seconds') AS r ON l.window_start = r.window_start",
            false,
            "left rows are dropped when the watermark of b passes l.window_start + 10s",
        ),
        (
            "SELECT l.id FROM TUMBLE(a, proctime(), INTERVAL '10 seconds') AS l JOIN TUMBLE(b, proctime(), INTERVAL '10 seconds') AS r ON l.window_end = r.window_end",
            false,
            "left rows are dropped when the clock passes l.window_end; right",
        ),
        (
            "SELECT a.id, g.n FROM a JOIN (SELECT k, count(*) AS n FROM b GROUP BY k) AS g ON a.k = g.k",
            true,
            "takes append-only and changing rows, gives changing rows",
        ),
        ("SELECT id FROM a WHERE x NOT IN (SELECT x FROM b WHERE b.k = a.k)", true, "NOT IN over a subquery that looks at the outer row"),
        ("SELECT a.k, count(*) AS n FROM a LEFT JOIN b ON a.k = b.k GROUP BY a.k", true, "aggregate [__sum_0] by [a.k], takes changing rows, emits changes"),
        (
            "SELECT window_start, count(*) AS n FROM TUMBLE((SELECT a.ts FROM a JOIN b ON a.k = b.k AND a.ts <= b.ts), ts, INTERVAL '10 seconds') GROUP BY window_start EMIT ON WINDOW CLOSE",
            true,
            "lets rows of any age match",
        ),
        ("SELECT a.id, now() AS n FROM a JOIN b ON a.k = b.k", true, "now() and proctime() tell when a row is read"),
    ] {
        let said = said(query, unbounded).await;
        assert!(said.contains(sentence), "{query}: {said}");
    }
}
