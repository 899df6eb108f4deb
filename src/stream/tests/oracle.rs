//! Batch equivalence: at every epoch each view equals the same query run as a batch over the records read so far, less the late and
//! the bad ones; one that emits on window close equals that answer restricted to windows that the watermark has passed. Data,
//! disorder, partitions, cuts, lateness, quiet times, restarts are random; a failure names its seed.
//!
//! Beside the contents, the changes that followers get are added up and must give the same rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    compute::filter_record_batch,
    datatypes::{Int32Type, Int64Type, TimestampNanosecondType},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{datasource::MemTable, prelude::SessionContext};
use futures::FutureExt;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::mutants::Mutant;
use crate::{
    catalog::{Close, Definition, Emit, SourceDef, ViewDef},
    source::{RecordsBuilder, Slice},
    sql::{self, Statement},
    stream::{
        changes::Follower,
        checkpoint::{CheckpointRoot, CheckpointStore},
        pipeline::{EpochCut, Pipeline},
        plan::{plan_view, standalone_state},
        published::Board,
        segments::Snapshot,
        view::ViewRuntime,
    },
};

const SECOND: i64 = 1_000_000_000;

/// A view, and what its windows are.
struct Case {
    sql: &'static str,
    windows: Windows,
    /// The view's column that holds its window's end, or its start.
    column: &'static str,
}

#[derive(Clone, Copy)]
enum Windows {
    None,
    /// Length in seconds.
    Tumble(i64),
    /// Slide and length in seconds.
    Hop(i64, i64),
    /// Step and length in seconds.
    Cumulate(i64, i64),
    /// Gap in seconds; by the column k, or of all rows.
    Session(i64, bool),
}

impl Windows {
    /// Ends of the windows that hold a row, worked out by trying.
    fn ends(self, ts: i64) -> Vec<i64> {
        let seconds = |starts_every: i64, lengths: Vec<i64>| {
            let mut ends = vec![];
            let longest = lengths.iter().copied().max().unwrap_or_default();
            let first = (ts / SECOND - longest).div_euclid(starts_every) - 1;
            for k in first..=first + longest / starts_every + 4 {
                for length in &lengths {
                    let (start, end) = (k * starts_every * SECOND, (k * starts_every + length) * SECOND);
                    if start <= ts && ts < end {
                        ends.push(end);
                    }
                }
            }
            ends.sort_unstable();
            ends
        };
        match self {
            Windows::Tumble(size) => seconds(size, vec![size]),
            Windows::Hop(slide, size) => seconds(slide, vec![size]),
            Windows::Cumulate(step, size) => seconds(size, (1..=size / step).map(|n| n * step).collect()),
            Windows::None | Windows::Session(..) => vec![],
        }
    }
}

const fn case(windows: Windows, column: &'static str, sql: &'static str) -> Case {
    Case { sql, windows, column }
}

/// Views, by what they try: many aggregates, windows by start or end, filters above and below, no window at all.
const CASES: &[Case] = &[
    case(
        Windows::Tumble(10),
        "window_end",
        "SELECT window_start, window_end, k, count(*) AS c, count(x) AS cx, sum(x) AS s, avg(x) AS a, min(f) AS mn, max(k) AS mx, sum(f) AS sf,
           count(DISTINCT x) AS d, count(*) FILTER (WHERE x > 3) AS fc, sum(f) FILTER (WHERE k = 'b') AS ff, bool_or(x > 5) AS bo, min(k) AS mk
         FROM TUMBLE(events, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k",
    ),
    case(
        Windows::Tumble(10),
        "window_start",
        "SELECT window_start, k, count(*) AS c, sum(f) AS s, max(x) AS m FROM TUMBLE(events, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k",
    ),
    case(
        Windows::Tumble(7),
        "window_end",
        "SELECT window_end, count(*) AS c, array_agg(x) AS xs, first_value(id) AS f, last_value(id ORDER BY k) AS l, approx_distinct(k) AS ad
         FROM TUMBLE(events, ts, INTERVAL '7 seconds') GROUP BY window_end",
    ),
    case(
        Windows::Tumble(7),
        "window_start",
        "SELECT window_start, upper(k) AS kk, c * 2 AS c2 FROM (
           SELECT window_start, k, count(*) AS c, sum(x) AS sx FROM TUMBLE(events, ts, INTERVAL '7 seconds') GROUP BY window_start, k) WHERE c > 1 AND sx < 20",
    ),
    case(
        Windows::Tumble(10),
        "window_start",
        "WITH e AS (SELECT *, x + 1 AS y FROM TUMBLE(events, ts, INTERVAL '10 seconds'))
         SELECT window_start, sum(y) AS sy, count(*) AS n FROM e GROUP BY window_start HAVING count(*) > 1",
    ),
    case(
        Windows::Hop(5, 15),
        "window_end",
        "SELECT window_start, window_end, k, count(*) AS c, sum(x) AS s, max(f) AS m, count(DISTINCT x) AS d
         FROM HOP(events, ts, INTERVAL '5 seconds', INTERVAL '15 seconds') GROUP BY window_start, window_end, k",
    ),
    // Slides that don't divide the length: panes are shorter than both.
    case(
        Windows::Hop(4, 10),
        "window_start",
        "SELECT window_start, count(*) AS c, sum(f) AS s, avg(x) AS a FROM HOP(events, ts, INTERVAL '4 seconds', INTERVAL '10 seconds')
         GROUP BY window_start HAVING count(*) > 1",
    ),
    // Rows between the windows are in none.
    case(
        Windows::Hop(10, 4),
        "window_end",
        "SELECT window_end, k, count(*) AS c, min(x) AS m FROM HOP(events, ts, INTERVAL '10 seconds', INTERVAL '4 seconds') GROUP BY window_end, k",
    ),
    // Looks at the window's bounds: the rows are copied.
    case(
        Windows::Hop(5, 15),
        "window_start",
        "SELECT window_start, count(*) AS c, max(ts - window_start) AS newest FROM HOP(events, ts, INTERVAL '5 seconds', INTERVAL '15 seconds') GROUP BY window_start",
    ),
    case(
        Windows::Cumulate(5, 20),
        "window_end",
        "SELECT window_start, window_end, k, count(*) AS c, sum(x) AS s FROM CUMULATE(events, ts, INTERVAL '5 seconds', INTERVAL '20 seconds')
         GROUP BY window_start, window_end, k",
    ),
    case(
        Windows::Session(3, true),
        "window_end",
        "SELECT window_start, window_end, k, count(*) AS c, sum(x) AS s, max(f) AS m, count(DISTINCT x) AS d
         FROM SESSION(events PARTITION BY k, ts, INTERVAL '3 seconds') GROUP BY window_start, window_end, k",
    ),
    case(
        Windows::Session(1, false),
        "window_end",
        "SELECT window_end, count(*) AS c, avg(f) AS a FROM SESSION(events, ts, INTERVAL '1 second') GROUP BY window_end",
    ),
    case(Windows::None, "", "SELECT id, ts, k, x * 2 AS xx FROM events WHERE x % 3 = 0 OR k IS NULL"),
    case(Windows::None, "", "SELECT k, count(*) AS c, sum(x) AS s, max(f) AS m FROM events GROUP BY k"),
    case(Windows::None, "", "SELECT count(*) AS c, sum(f) AS s, min(x) AS m FROM events WHERE x > 2"),
    case(Windows::None, "", "SELECT DISTINCT k, x FROM events"),
    case(Windows::None, "", "SELECT id, k FROM events WHERE x > 3 UNION ALL SELECT id, upper(k) FROM events WHERE x < 6"),
    case(
        Windows::Tumble(10),
        "window_start",
        "SELECT window_start, k, count(*) AS c, sum(x) AS s FROM (
           SELECT window_start, window_end, k, x FROM TUMBLE(events, ts, INTERVAL '10 seconds') WHERE x > 3
           UNION ALL SELECT window_start, window_end, 'rest', x FROM TUMBLE(events, ts, INTERVAL '10 seconds') WHERE x <= 3
           UNION ALL SELECT window_start, window_end, 'none', x FROM TUMBLE(events, ts, INTERVAL '10 seconds') WHERE x IS NULL)
         GROUP BY window_start, window_end, k",
    ),
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

pub(super) type Bag = BTreeMap<String, usize>;

pub(super) fn bag(batches: impl IntoIterator<Item = RecordBatch>) -> Bag {
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

pub(super) fn snapshot(snapshot: &Snapshot) -> Vec<RecordBatch> {
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
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.partition))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.offset))),
        ],
    )
    .unwrap();
    context.register_table("events", Arc::new(MemTable::try_new(source.schema(), vec![vec![columns]]).unwrap())).unwrap();
    // The order that a view takes where the query gives none.
    let query = query.replace("array_agg(x)", "array_agg(x ORDER BY part, off)").replace("first_value(id)", "first_value(id ORDER BY part, off)");
    let query = &query.replace("last_value(id ORDER BY k)", "last_value(id ORDER BY k, part, off)");
    let plan = context.state().statement_to_plan(sql::query_statement(sql::parse_query(query).unwrap())).await.unwrap();
    context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()
}

/// Late rows: partition, offset, and the end of the window that had closed.
type Late = BTreeSet<(i32, i64, i64)>;

/// Time as the documentation tells it, worked out a second time and in another way.
struct Model {
    windows: Windows,
    bound: i64,
    lateness: i64,
    /// For each partition all event times seen.
    seen: BTreeMap<i32, Vec<i64>>,
    watermark: i64,
    /// Windows up to it have been answered, up to `closed` for good.
    passed: i64,
    closed: i64,
    rows: Vec<Row>,
    late: Late,
}

impl Model {
    fn key<'a>(&self, row: &'a Row) -> Option<&'a str> {
        match self.windows {
            Windows::Session(_, true) => row.k.as_deref(),
            _ => None,
        }
    }

    /// Sessions of a row's key over the rows that were not late: first and last row's time.
    fn sessions(&self, key: Option<&str>) -> Vec<(i64, i64)> {
        let Windows::Session(gap, _) = self.windows else { return vec![] };
        let mut times: Vec<i64> = self.rows.iter().filter(|r| self.key(r) == key && !self.is_late(r)).map(|r| r.ts).collect();
        times.sort_unstable();
        let mut sessions: Vec<(i64, i64)> = vec![];
        for time in times {
            match sessions.last_mut() {
                Some((_, last)) if time - *last < gap * SECOND => *last = time,
                _ => sessions.push((time, time)),
            }
        }
        sessions
    }

    fn is_late(&self, row: &Row) -> bool {
        self.late.range((row.partition, row.offset, i64::MIN)..=(row.partition, row.offset, i64::MAX)).next().is_some()
    }

    fn step(&mut self, rows: &[Row], partitions: i32, quiet: bool) {
        let mut late = vec![];
        for row in rows {
            if let Windows::Session(gap, _) = self.windows {
                let end = |last: i64| last + gap * SECOND;
                let open = || self.sessions(self.key(row)).into_iter().any(|(first, last)| end(last) > self.closed && first <= row.ts && row.ts < end(last));
                if row.ts < self.closed && !open() {
                    late.push((row.partition, row.offset, end(row.ts)));
                }
            }
            late.extend(self.windows.ends(row.ts).into_iter().filter(|end| *end <= self.closed).map(|end| (row.partition, row.offset, end)));
        }
        self.late.extend(late);
        self.rows.extend(rows.iter().cloned());
        for row in rows {
            self.seen.entry(row.partition).or_default().push(row.ts);
        }
        if self.seen.len() == partitions as usize {
            let slowest = self.seen.values().map(|times| times.iter().max().unwrap() - self.bound).min().unwrap();
            self.watermark = self.watermark.max(slowest);
        }
        self.passed = self.passed.max(self.watermark);
        self.closed = self.closed.max(self.watermark.saturating_sub(self.lateness));
        if quiet {
            let last = match self.windows {
                Windows::Session(gap, _) => {
                    let keys: BTreeSet<Option<&str>> = self.rows.iter().map(|r| self.key(r)).collect();
                    keys.into_iter().flat_map(|key| self.sessions(key)).map(|(_, last)| last + gap * SECOND).max()
                }
                windows => {
                    let ends = |r: &Row| windows.ends(r.ts).into_iter().filter(|end| !self.late.contains(&(r.partition, r.offset, *end))).max();
                    self.rows.iter().filter_map(ends).max()
                }
            };
            self.passed = self.passed.max(last.unwrap_or(i64::MIN));
            self.closed = self.closed.max(last.unwrap_or(i64::MIN));
        }
    }
}

fn ends_of(batch: &RecordBatch, column: &str, windows: Windows) -> Vec<i64> {
    let to_end = match (windows, column) {
        (Windows::Tumble(size) | Windows::Hop(_, size), "window_start") => size * SECOND,
        _ => 0,
    };
    batch.column_by_name(column).unwrap().as_primitive::<TimestampNanosecondType>().iter().map(|t| t.unwrap() + to_end).collect()
}

fn only(batches: Vec<RecordBatch>, case: &Case, keep: impl Fn(i64) -> bool) -> Vec<RecordBatch> {
    let kept = |b: &RecordBatch| ends_of(b, case.column, case.windows).into_iter().map(|end| Some(keep(end))).collect();
    batches.iter().map(|b| filter_record_batch(b, &kept(b)).unwrap()).collect()
}

struct Run {
    case: &'static Case,
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

    /// What the view must hold.
    async fn want(&self, model: &Model) -> Vec<RecordBatch> {
        let query = &self.def.query;
        let (windows, rows) = (self.case.windows, &model.rows);
        let mut want = match windows {
            // Late for one window and in time for another: windows that miss a row are asked for one by one.
            Windows::Tumble(_) | Windows::Hop(..) | Windows::Cumulate(..) => {
                let incomplete: BTreeSet<i64> = model.late.iter().map(|(_, _, end)| *end).collect();
                let all = batch(query, &self.source, &rows.iter().collect::<Vec<_>>()).await;
                let mut want = only(all, self.case, |end| !incomplete.contains(&end));
                for end in incomplete {
                    let in_time: Vec<&Row> =
                        rows.iter().filter(|r| windows.ends(r.ts).contains(&end) && !model.late.contains(&(r.partition, r.offset, end))).collect();
                    if !in_time.is_empty() {
                        want.extend(only(batch(query, &self.source, &in_time).await, self.case, |e| e == end));
                    }
                }
                want
            }
            Windows::None | Windows::Session(..) => batch(query, &self.source, &rows.iter().filter(|r| !model.is_late(r)).collect::<Vec<_>>()).await,
        };
        if self.def.emit == Some(Emit::OnWindowClose) {
            want = only(want, self.case, |end| end <= model.passed);
        }
        want
    }
}

/// Fails with the rows that only one side has.
pub(super) fn same(got: &Bag, want: &Bag, what: impl FnOnce() -> String) {
    if got != want {
        let only =
            |a: &Bag, b: &Bag| a.iter().filter(|(row, n)| b.get(*row) != Some(n)).map(|(row, n)| format!("  {n} x {row}")).collect::<Vec<_>>().join("\n");
        panic!("{}\nonly the view has\n{}\nonly the batch answer has\n{}", what(), only(got, want), only(want, got));
    }
}

/// Adds up what a follower gets.
pub(super) fn follow(follower: &mut Follower, epoch: &mut u64, rows: &mut BTreeMap<String, i64>, columns: usize, seed: u64) {
    while let Some(changes) = follower.next(*epoch).now_or_never() {
        for change in changes.unwrap() {
            *epoch = change.epoch;
            for batch in change.batches.iter() {
                let weights = (batch.num_columns() > columns).then(|| batch.column(columns).as_primitive::<Int64Type>().clone());
                let visible = batch.project(&(0..columns).collect::<Vec<_>>()).unwrap();
                for row in 0..batch.num_rows() {
                    let (text, _) = bag([visible.slice(row, 1)]).into_iter().next().unwrap();
                    let held = rows.entry(text.clone()).or_default();
                    *held += weights.as_ref().map_or(1, |w| w.value(row));
                    assert!(*held >= 0, "seed {seed}: a row that nobody has was taken away: {text}");
                    if *held == 0 {
                        rows.remove(&text);
                    }
                }
            }
        }
    }
}

fn options(rng: &mut ChaCha8Rng, case: &Case, def: &mut ViewDef) {
    let windowed = !matches!(case.windows, Windows::None);
    def.emit = Some(match rng.random_range(0..if windowed { 5 } else { 3 }) {
        0 | 1 => Emit::Changes,
        2 => Emit::Every(Duration::from_secs(rng.random_range(1..20))),
        _ => Emit::OnWindowClose,
    });
    def.options.unbounded_state = !windowed;
    if windowed && rng.random_bool(0.4) {
        def.options.lateness = Duration::from_secs(rng.random_range(1..30));
    }
    if windowed && rng.random_bool(0.4) {
        def.options.close = Close::After(Duration::from_secs(60));
    }
}

#[derive(Default)]
struct Seen {
    checks: usize,
    late: usize,
    quiet: usize,
    restarts: usize,
}

async fn one_run(seed: u64) -> Seen {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let case = &CASES[seed as usize % CASES.len()];
    let bound = rng.random_range(0..8) * SECOND;
    let partitions = rng.random_range(1..5);
    let text = format!(
        "CREATE SOURCE events (id BIGINT, ts TIMESTAMP, k TEXT PATH '$.k.name', x BIGINT, f DOUBLE, part INT METADATA FROM 'partition', off BIGINT METADATA FROM 'offset', WATERMARK FOR ts AS ts - INTERVAL '{} seconds')
         WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json')",
        bound / SECOND
    );
    let Definition::Source(source) = sql::parse_definition(&text).unwrap() else { panic!("no source") };
    let Statement::CreateContinuousView { mut def, .. } = sql::parse_one(&format!("CREATE CONTINUOUS VIEW v AS {}", case.sql)).unwrap() else {
        panic!("no view")
    };
    options(&mut rng, case, &mut def);
    let run = Run { case, source, def: Arc::new(def), partitions, threads: 1 + seed as usize % 2 };
    let what = format!("seed {seed} ({:?}, {:?}): {}", run.def.emit, run.def.options, case.sql);
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    let board = Arc::new(Board::default());
    let mut pipeline = run.pipeline(&board).await;
    pipeline.attach(run.view().await).unwrap();
    let columns = board.current().views["v"].plan.schema.fields().len();
    let mut follower = board.current().views["v"].changes.follow();
    let (mut followed_to, mut followed) = (0, BTreeMap::new());

    let lateness = run.def.options.lateness.as_nanos() as i64;
    let mut model = Model {
        windows: case.windows,
        bound,
        lateness,
        seen: BTreeMap::new(),
        watermark: i64::MIN,
        passed: i64::MIN,
        closed: i64::MIN,
        rows: vec![],
        late: Late::new(),
    };
    let mut bad_model: BTreeSet<(i32, i64)> = BTreeSet::new();
    let mut offsets = vec![0i64; partitions as usize];
    let (mut clock, mut wall_ms) = (1_000 * SECOND, 5_000_000);
    let (mut seen, mut id) = (Seen::default(), 0);
    let (mut last_input, mut last_emitted, mut shown) = (None, None, Bag::new());
    let epochs = if seed.is_multiple_of(5) { 60 } else { rng.random_range(3..14) };
    for _ in 0..epochs {
        let mut fresh: Vec<Row> = vec![];
        let mut slices = vec![];
        let silent = rng.random_bool(0.12);
        wall_ms += if silent { rng.random_range(1_000..100_000) } else { rng.random_range(10..4_000) };
        for partition in 0..partitions {
            let begin = offsets[partition as usize];
            let mut builder = RecordsBuilder::new();
            let count = match rng.random_range(0..4) {
                _ if silent => 0,
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
        // A session may end between two rows that lie apart.
        if rng.random_bool(0.2) {
            clock += rng.random_range(0..20) * SECOND;
        }
        let any = !slices.is_empty();
        let caught_up = if rng.random_bool(0.8) { BTreeSet::from(["events".to_string()]) } else { BTreeSet::new() };
        let wait = run.def.options.close.wait().map_or(i64::MAX, |d| d.as_millis() as i64);
        let quiet = !any && !caught_up.is_empty() && last_input.is_some_and(|last: i64| wall_ms - last >= wait);
        if any || last_input.is_none() {
            last_input = Some(wall_ms);
        }
        let slices = BTreeMap::from([("events".into(), slices)]);
        let cut = EpochCut { epoch: pipeline.epoch() + 1, now_ms: wall_ms, slices, idle: BTreeMap::new(), caught_up };
        pipeline.run(&cut).await.unwrap();
        model.step(&fresh, partitions, quiet);
        seen.quiet += usize::from(quiet);

        let published = board.current();
        let view = &published.views["v"];
        assert!(view.failure.is_none(), "{what}: {:?}", view.failure);
        let late: Late = snapshot(&view.late)
            .iter()
            .flat_map(|b| {
                let partitions = b.column_by_name("_partition").unwrap().as_primitive::<Int32Type>().values().to_vec();
                let offsets = b.column_by_name("_offset").unwrap().as_primitive::<Int64Type>().values().to_vec();
                let ends = b.column_by_name("window_end").unwrap().as_primitive::<TimestampNanosecondType>().values().to_vec();
                let ids = b.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec();
                for ((partition, offset), id) in partitions.iter().zip(&offsets).zip(ids) {
                    assert!(model.rows.iter().any(|r| (r.partition, r.offset, r.id) == (*partition, *offset, id)), "{what}: a late row is another record");
                }
                partitions.into_iter().zip(offsets).zip(ends).map(|((p, o), e)| (p, o, e)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(late, model.late, "{what}: late rows in epoch {}", cut.epoch);
        assert_eq!(view.late_total as usize, model.late.len(), "{what}: late count");
        let bad: BTreeSet<(i32, i64)> = snapshot(&published.sources["events"].errors)
            .iter()
            .flat_map(|b| b.column(1).as_primitive::<Int32Type>().values().to_vec().into_iter().zip(b.column(2).as_primitive::<Int64Type>().values().to_vec()))
            .collect();
        assert_eq!(bad, bad_model, "{what}: bad records");
        let due = match run.def.emit {
            Some(Emit::Every(interval)) => last_emitted.is_none_or(|last: i64| wall_ms - last >= interval.as_millis() as i64),
            _ => true,
        };
        if due {
            last_emitted = Some(wall_ms);
            shown = bag(run.want(&model).await);
        }
        let time = |t: i64| chrono::DateTime::from_timestamp_nanos(t).to_rfc3339();
        same(&bag(snapshot(&view.contents)), &shown, || {
            format!("{what}: epoch {}, answered to {}, closed to {}", cut.epoch, time(model.passed), time(model.closed))
        });
        follow(&mut follower, &mut followed_to, &mut followed, columns, seed);
        same(&followed.iter().map(|(row, n)| (row.clone(), *n as usize)).collect(), &shown, || format!("{what}: followed to epoch {}", cut.epoch));
        seen.checks += 1;

        if rng.random_bool(0.25) {
            store.write(pipeline.image().unwrap()).await.unwrap();
            if rng.random_bool(0.6) {
                // A new process: everything from the folder.
                store = open(folder.path()).await;
                let mut restored = store.newest().await.unwrap().unwrap();
                pipeline = run.pipeline(&board).await;
                pipeline.restore(&mut restored).unwrap();
                let mut view = run.view().await;
                assert!(view.restore(&mut restored).unwrap());
                pipeline.attach(view).unwrap();
                seen.restarts += 1;
                // What had not been emitted is shown with what a restart finds.
                (last_emitted, shown) = (None, bag(run.want(&model).await));
                let view = &board.current().views["v"];
                same(&bag(snapshot(&view.contents)), &shown, || format!("{what}: after a restart at epoch {}", cut.epoch));
                follower = view.changes.follow();
                followed_to = pipeline.epoch();
                followed = shown.iter().map(|(row, n)| (row.clone(), *n as i64)).collect();
            }
        }
    }
    seen.late = model.late.len();
    seen
}

#[tokio::test]
async fn every_epoch_equals_the_batch_answer() {
    let seeds: u64 = std::env::var("TIDEGATE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(180);
    let first: u64 = std::env::var("TIDEGATE_FIRST_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut all = Seen::default();
    for seed in first..first + seeds {
        let seen = one_run(seed).await;
        all.checks += seen.checks;
        all.late += seen.late;
        all.quiet += seen.quiet;
        all.restarts += seen.restarts;
    }
    println!("{} epochs of {seeds} seeds equal the batch answer; {} late rows, {} quiet times, {} restarts", all.checks, all.late, all.quiet, all.restarts);
    assert!(seeds < 100 || (all.late > 100 && all.quiet > 5 && all.restarts > 20), "the data had too little in it to show anything");
}

/// The suite finds what it is there to find: with each of these faults in the engine some seed fails.
#[test]
fn every_mutant_is_found() {
    for mutant in Mutant::ALL {
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
        let cut = EpochCut { epoch: epoch as u64 + 1, now_ms: 0, slices: BTreeMap::from([("events".into(), vec![slice])]), ..EpochCut::default() };
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

pub(super) async fn open(folder: &std::path::Path) -> CheckpointStore {
    CheckpointStore::new(Arc::new(CheckpointRoot::local(folder.into()).await.unwrap()), "1").unwrap()
}
