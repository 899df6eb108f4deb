//! Batch equivalence of what views make of relations: views over two sources and over one another, from one epoch to the next, with
//! restarts, and views that come late. Each view's answer at each epoch is that of its query as a batch over the rows read so far.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{AsArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    datatypes::{Int64Type, Schema, SchemaRef},
};
use datafusion::{
    datasource::MemTable,
    execution::SessionState,
    prelude::{SessionConfig, SessionContext},
};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    batch::{Bag, bag, same},
    check::{open, snapshot},
    grammar::{Grammar, Kind, Query, Relation, Style, Type, closing},
    mutants::{self, Mutant},
    oracle::each_seed,
};
use crate::{
    catalog::{Definition, SourceDef, ViewDef},
    source::{RecordsBuilder, Slice},
    sql::{self, Statement},
    stream::{
        pipeline::{EpochCut, Pipeline},
        plan::{ViewPlan, plan_view, planning_state},
        published::Board,
        slice::StreamTable,
        view::{PublishedView, ViewRuntime},
    },
};

/// One row of a source.
#[derive(Debug, Clone)]
pub struct Row {
    pub id: i64,
    pub k: Option<&'static str>,
    pub g: Option<i64>,
    pub x: Option<i64>,
    pub f: Option<f64>,
    /// Seconds.
    pub ts: i64,
}

/// What is read in one epoch, by source, and what becomes of the process.
#[derive(Debug, Clone, Default)]
pub struct Step {
    pub rows: BTreeMap<&'static str, Vec<Row>>,
    pub checkpoint: bool,
    pub restart: bool,
}

/// A view of a world.
#[derive(Debug, Clone)]
pub struct WorldView {
    /// Its statement.
    pub text: String,
    /// What it has to hold is the answer to this, see [`Query::batch`]. `None`: that is not asked, and no view reads it.
    pub batch: Option<String>,
    /// Whether it holds a window's rows when that closes.
    pub on_close: bool,
}

/// Views, and what they read.
#[derive(Debug, Clone)]
pub struct World {
    /// A view may read those before it.
    pub views: Vec<WorldView>,
    /// Epochs after which each view comes; one that reads a source comes before the first.
    pub come: Vec<usize>,
    pub steps: Vec<Step>,
    /// Seconds that watermarks trail.
    pub bound: i64,
}

pub const SOURCES: [&str; 2] = ["a", "b"];

/// Seconds that watermarks trail where nothing is to be late and no window to close.
pub const NEVER: i64 = 3_600;

pub fn source(name: &str, bound: i64) -> Arc<SourceDef> {
    let text = format!(
        "CREATE SOURCE {name} (id BIGINT, k TEXT, g BIGINT, x BIGINT, f DOUBLE, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '{bound} seconds')
         WITH (connector = 'kafka', topic = '{name}', 'bootstrap.servers' = 'b:1', format = 'json')"
    );
    let Definition::Source(def) = sql::parse_definition(&text).unwrap() else { panic!("no source") };
    def
}

pub fn view_def(text: &str) -> Arc<ViewDef> {
    let Statement::CreateContinuousView { def, .. } = sql::parse_one(text).unwrap_or_else(|e| panic!("{text}: {e}")) else { panic!("no view: {text}") };
    Arc::new(def)
}

impl Row {
    pub fn random(rng: &mut ChaCha8Rng, id: i64) -> Self {
        Self {
            id,
            k: if rng.random_bool(0.85) { Some(["a", "b", "c", "d"].choose(rng).copied().unwrap()) } else { None },
            g: if rng.random_bool(0.9) { Some(rng.random_range(0..4)) } else { None },
            x: if rng.random_bool(0.9) { Some(rng.random_range(-3..9)) } else { None },
            // Of which every sum is exact.
            f: if rng.random_bool(0.9) { Some(rng.random_range(-8..32i64) as f64 / 4.0) } else { None },
            ts: rng.random_range(0..60),
        }
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        let row = serde_json::json!({
            "id": self.id, "k": self.k, "g": self.g, "x": self.x, "f": self.f, "ts": format!("2024-01-01T00:{:02}:{:02}Z", self.ts / 60, self.ts % 60)
        });
        row.to_string().into_bytes()
    }
}

/// 2024-01-01.
pub const DAY: i64 = 1_704_067_200_000_000_000;

pub(super) fn steps(rng: &mut ChaCha8Rng, most: usize) -> Vec<Step> {
    let mut id = 0;
    let mut kept: Vec<Row> = vec![];
    (0..rng.random_range(3..=most))
        .map(|_| {
            let mut step = Step { checkpoint: rng.random_bool(0.3), restart: rng.random_bool(0.15), ..Step::default() };
            for source in SOURCES {
                let rows = (0..rng.random_range(0..9)).map(|_| {
                    // Some rows come twice.
                    if let Some(row) = kept.choose(rng).filter(|_| id % 11 == 10) {
                        id += 1;
                        return row.clone();
                    }
                    let row = Row::random(rng, id);
                    id += 1;
                    kept.push(row.clone());
                    row
                });
                step.rows.insert(source, rows.collect());
            }
            step
        })
        .collect()
}

/// Plans views one after the other, each over those before it.
pub struct Planner {
    context: SessionContext,
}

impl Planner {
    pub fn new(bound: i64) -> Self {
        mutants::next_process();
        let mut context = SessionContext::new();
        tidegate_udfs::register(&mut context).unwrap();
        for name in SOURCES {
            context.register_table(name, Arc::new(StreamTable::over(&source(name, bound)))).unwrap();
        }
        Self { context }
    }

    pub(super) async fn plan(&self, def: &ViewDef) -> crate::error::Result<Arc<ViewPlan>> {
        let plan = plan_view(&planning_state(&self.context.state()), sql::parse_query(&def.query)?, def.emit, &def.options).await?;
        self.context.register_table(def.name.as_str(), Arc::new(StreamTable::over_view(&def.name, &plan)))?;
        Ok(Arc::new(plan))
    }
}

/// DataFusion with the functions that views have.
static STATE: LazyLock<SessionState> = LazyLock::new(|| {
    let mut context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    tidegate_udfs::register(&mut context).unwrap();
    context.state()
});

fn table(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
            Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r.k))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.g))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.x))),
            Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.f))),
            Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| DAY + r.ts * 1_000_000_000))),
        ],
    )
    .unwrap()
}

/// A query with functions in the place of windows in FROM.
fn rewritten(text: &str) -> String {
    view_def(&format!("CREATE CONTINUOUS VIEW v AS {text} EMIT CHANGES")).query.clone()
}

/// With this begins the sentence about a query that DataFusion itself can't answer.
const UNANSWERED: &str = "the batch answer can't be had";

/// What has been read of the sources.
#[derive(Debug, Clone, Default)]
pub struct Read {
    pub rows: BTreeMap<&'static str, Vec<Row>>,
    /// Seconds; what windows are judged by and closed with.
    pub watermarks: BTreeMap<&'static str, i64>,
}

impl Read {
    /// The end of the last window that the slowest of some sources has passed by some seconds, as SQL.
    fn passed(&self, sources: &[&str], lag: i64) -> String {
        let slowest = sources.iter().map(|source| self.watermarks.get(source).copied().unwrap_or(-NEVER)).min().unwrap_or(-NEVER) - lag;
        let at = chrono::DateTime::from_timestamp_nanos(DAY + slowest * 1_000_000_000).naive_utc();
        format!("TIMESTAMP '{}'", at.format("%Y-%m-%dT%H:%M:%S"))
    }
}

/// Rows that a view has found to be late: of a source, by offset.
pub type Late = BTreeSet<(&'static str, usize)>;

/// What each view has to hold, over the sources' rows less those that are late for it.
pub async fn batch(views: &[WorldView], names: &[Arc<ViewDef>], read: &Read, late: &[Late]) -> Result<Vec<Option<Bag>>, String> {
    let state = datafusion::execution::session_state::SessionStateBuilder::new_from_existing(STATE.clone())
        .with_catalog_list(Arc::new(datafusion::catalog::MemoryCatalogProviderList::new()))
        .with_config(SessionConfig::new().with_target_partitions(1))
        .build();
    let context = SessionContext::new_with_state(state);
    let mut answers = vec![];
    for ((view, def), late) in views.iter().zip(names).zip(late) {
        let Some(text) = &view.batch else {
            answers.push(None);
            continue;
        };
        for name in SOURCES {
            let schema = source(name, NEVER).schema();
            let rows = read.rows.get(name).map(Vec::as_slice).unwrap_or_default();
            let rows: Vec<Row> = rows.iter().enumerate().filter(|(offset, _)| !late.contains(&(name, *offset))).map(|(_, row)| row.clone()).collect();
            let rows = table(&schema, &rows);
            context.deregister_table(name).unwrap();
            context.register_table(name, Arc::new(MemTable::try_new(schema, vec![vec![rows]]).unwrap())).unwrap();
        }
        let passed = |sources: &[&str], lag: i64| read.passed(sources, lag);
        let text = if view.on_close { Query::batch(text, passed) } else { Query::unmarked(text) };
        let statement = sql::query_statement(sql::parse_query(&rewritten(&text)).unwrap());
        let plan = context.state().statement_to_plan(statement).await.unwrap();
        let frame = context.execute_logical_plan(plan).await.unwrap();
        let planned = frame.schema().as_arrow().clone();
        let rows = frame.collect().await.map_err(|e| format!("{UNANSWERED}: {e}"))?;
        answers.push(Some(bag(rows.clone())));
        // What it gives may be NULL where its plan says that it is not.
        let given = rows.first().map_or(planned, |batch| batch.schema().as_ref().clone());
        let schema = Arc::new(Schema::new(given.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()));
        let rows = rows.into_iter().map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap()).collect::<Vec<_>>();
        // A table, and no nested query: what DataFusion makes of the whole would be another thing to trust.
        context.register_table(def.name.as_str(), Arc::new(MemTable::try_new(schema, vec![rows]).unwrap())).unwrap();
    }
    Ok(answers)
}

/// A world as it runs.
struct Run {
    defs: Vec<Arc<ViewDef>>,
    plans: Vec<Arc<ViewPlan>>,
    pipeline: Pipeline,
    board: Arc<Board>,
}

fn runtime(def: &Arc<ViewDef>, id: usize, plan: &Arc<ViewPlan>, epoch: u64, bound: i64) -> ViewRuntime {
    let sources: Vec<Arc<SourceDef>> = SOURCES.iter().filter(|name| plan.inputs.contains_key(**name)).map(|name| source(name, bound)).collect();
    let sources: Vec<&SourceDef> = sources.iter().map(Arc::as_ref).collect();
    ViewRuntime::new(def.clone(), id as u64, plan.clone(), &sources, BTreeMap::new(), epoch).unwrap()
}

pub fn pipeline(board: &Arc<Board>, bound: i64) -> Pipeline {
    let mut pipeline = Pipeline::new(SOURCES.iter().zip(1..).map(|(name, id)| (source(name, bound), id)).collect(), board.clone(), 1).unwrap();
    SOURCES.iter().for_each(|name| pipeline.assign(name, 0..1));
    pipeline
}

/// The rows that a view has found to be late.
fn late_rows(view: &PublishedView, read: &Read) -> Result<Late, String> {
    let mut late = Late::new();
    for batch in snapshot(&view.late) {
        let column = |name| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>();
        for (id, offset) in column("id").values().iter().zip(column("_offset").values()) {
            let source = SOURCES.into_iter().find(|source| read.rows.get(source).and_then(|rows| rows.get(*offset as usize)).is_some_and(|row| row.id == *id));
            let source = source.ok_or_else(|| format!("the late row {id} at {offset} is none that was read"))?;
            let row = &read.rows[source][*offset as usize];
            if read.watermarks.get(source).is_none_or(|watermark| row.ts >= *watermark) {
                return Err(format!("a row is late that is ahead of the watermark: {row:?}"));
            }
            late.insert((source, *offset as usize));
        }
    }
    Ok(late)
}

/// What a run went through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ran {
    /// Answers that were compared.
    pub compared: usize,
    /// Rows that were there in them.
    pub rows: usize,
    /// Rows that were late for some view.
    pub late: usize,
    pub restarts: usize,
}

/// Runs a world; a difference is a sentence, as is the reason why a view was refused.
async fn run(world: &World) -> Result<(Ran, Vec<Bag>), String> {
    let bound = world.bound;
    let planner = Planner::new(bound);
    let defs: Vec<Arc<ViewDef>> = world.views.iter().map(|view| view_def(&view.text)).collect();
    let mut plans = vec![];
    for def in &defs {
        plans.push(planner.plan(def).await.map_err(|e| format!("{} {REFUSED}{e}", def.name))?);
    }
    let board = Arc::new(Board::default());
    let mut run = Run { pipeline: pipeline(&board, bound), board, defs, plans };
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    let mut read = Read::default();
    // What a restart goes back to.
    let (mut saved, mut saved_views) = (read.clone(), BTreeSet::<usize>::new());
    let mut here = BTreeSet::<usize>::new();
    let mut again: BTreeMap<&'static str, Vec<Row>> = BTreeMap::new();
    let mut since: BTreeMap<&'static str, Vec<Row>> = BTreeMap::new();
    let mut ran = Ran::default();
    let mut held = vec![];
    for (number, step) in world.steps.iter().enumerate() {
        let epoch = run.pipeline.epoch() + 1;
        for at in 0..run.defs.len() {
            let reads_source = SOURCES.iter().any(|name| run.plans[at].inputs.contains_key(*name));
            let ready = run.plans[at]
                .inputs
                .keys()
                .all(|input| SOURCES.contains(&input.as_str()) || run.defs.iter().position(|d| d.name == *input).is_some_and(|p| here.contains(&p)));
            if !here.contains(&at) && ready && (world.come[at] <= number || reads_source) {
                let tables = run.plans[at].table_rows().await.map_err(|e| e.to_string())?;
                let view = runtime(&run.defs[at], at, &run.plans[at], epoch - 1, bound).with_tables(tables);
                run.pipeline.attach(view).map_err(|e| e.to_string())?;
                here.insert(at);
            }
        }
        let mut slices = BTreeMap::new();
        for name in SOURCES {
            let mut rows = again.remove(name).unwrap_or_default();
            rows.extend(step.rows.get(name).cloned().unwrap_or_default());
            let begin = read.rows.get(name).map_or(0, Vec::len) as i64;
            let mut builder = RecordsBuilder::new();
            rows.iter().enumerate().for_each(|(at, row)| builder.push(begin + at as i64, Some(DAY / 1_000_000), None, Some(&row.payload()), vec![]));
            let end = begin + rows.len() as i64;
            if let Some(greatest) = rows.iter().map(|row| row.ts).max() {
                slices.insert(name.to_string(), vec![Slice { partition: 0, begin, end, records: builder.finish() }]);
                let watermark = read.watermarks.entry(name).or_insert(greatest - bound);
                *watermark = (greatest - bound).max(*watermark);
            }
            since.entry(name).or_default().extend(rows.iter().cloned());
            read.rows.entry(name).or_default().extend(rows);
        }
        let cut = EpochCut { epoch, now_ms: DAY / 1_000_000 + number as i64 * 100, slices, ..EpochCut::default() };
        run.pipeline.run(&cut).await.map_err(|e| e.to_string())?;
        let published = run.board.current();
        let mut late = vec![Late::new(); run.defs.len()];
        for at in &here {
            let def = &run.defs[*at];
            let view = published.views.get(def.name.as_str()).ok_or_else(|| format!("epoch {epoch}: {} is not there", def.name))?;
            if let Some(failure) = &view.failure {
                return Err(format!("epoch {epoch}: {} failed: {}\n{}", def.name, failure.reason, def.text));
            }
            late[*at] = late_rows(view, &read)?;
        }
        let wants = batch(&world.views, &run.defs, &read, &late).await?;
        held = vec![Bag::new(); run.defs.len()];
        for (at, want) in wants.iter().enumerate().filter(|(at, _)| here.contains(at)) {
            let def = &run.defs[at];
            held[at] = bag(snapshot(&published.views[def.name.as_str()].contents));
            let Some(want) = want else { continue };
            same(&held[at], want, ["the view", "the batch answer"]).map_err(|e| format!("epoch {epoch}: {}\n{}\n{e}", def.name, def.text))?;
            ran.compared += 1;
            ran.rows += want.values().sum::<usize>();
        }
        ran.late = late.iter().map(BTreeSet::len).sum();
        if step.checkpoint {
            store.write(run.pipeline.image().unwrap()).await.unwrap();
            (saved, saved_views) = (read.clone(), here.clone());
            since.clear();
        }
        if step.restart {
            ran.restarts += 1;
            store = open(folder.path()).await;
            let before = run.pipeline.epoch();
            run.pipeline = pipeline(&run.board, bound);
            (read, again) = (saved.clone(), std::mem::take(&mut since));
            // A new process plans anew.
            let planner = Planner::new(bound);
            for (def, plan) in run.defs.iter().zip(&mut run.plans) {
                *plan = planner.plan(def).await.map_err(|e| e.to_string())?;
            }
            let restored = store.newest().await.unwrap();
            here = if restored.is_some() { saved_views.clone() } else { BTreeSet::new() };
            if let Some(mut restored) = restored {
                run.pipeline.restore(&mut restored).map_err(|e| e.to_string())?;
                for at in &here {
                    let mut view = runtime(&run.defs[*at], *at, &run.plans[*at], before, bound);
                    if !view.restore(&mut restored).map_err(|e| e.to_string())? {
                        return Err(format!("the checkpoint does not know {}", run.defs[*at].name));
                    }
                    run.pipeline.attach(view).map_err(|e| e.to_string())?;
                }
            }
            run.pipeline.skip_to(before);
        }
    }
    Ok((ran, held))
}

/// Stands in the sentence about a view that was refused, before the reason.
pub const REFUSED: &str = "is refused: ";

/// Runs a world: what it went through, and what the views hold in the end.
pub fn ends(world: &World) -> Result<(Ran, Vec<Bag>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(world)))) {
        Ok(outcome) => outcome,
        Err(panic) => Err(panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or("a panic".into())),
    }
}

/// Runs a world.
pub fn outcome(world: &World) -> Result<Ran, String> {
    ends(world).map(|(ran, _)| ran)
}

/// A view of a query, and how it emits.
pub fn statement(name: &str, query: &Query, emit: &str) -> WorldView {
    WorldView {
        text: format!("CREATE CONTINUOUS VIEW {name} WITH (unbounded_state = true) AS {} {emit}", Query::unmarked(&query.sql)),
        batch: Some(query.sql.clone()),
        on_close: emit.contains("ON WINDOW CLOSE"),
    }
}

/// The fewest steps and rows that still fail.
pub fn shrink(world: &World, fails: impl Fn(&World) -> bool) -> World {
    let mut small = world.clone();
    let mut again = true;
    while again {
        again = false;
        for at in (0..small.steps.len()).rev() {
            let mut fewer = small.clone();
            fewer.steps.remove(at);
            if fails(&fewer) {
                (small, again) = (fewer, true);
                continue;
            }
            for name in SOURCES {
                for row in (0..small.steps[at].rows.get(name).map_or(0, Vec::len)).rev() {
                    let mut fewer = small.clone();
                    fewer.steps[at].rows.get_mut(name).unwrap().remove(row);
                    if fails(&fewer) {
                        (small, again) = (fewer, true);
                    }
                }
            }
        }
    }
    small
}

const COLUMNS: [(&str, Type); 6] = [("id", Type::Int), ("k", Type::Text), ("g", Type::Int), ("x", Type::Int), ("f", Type::Float), ("ts", Type::Time)];

/// A source as a relation.
fn relation(source: &'static str) -> Relation {
    let columns = COLUMNS.map(|(name, of)| (name.to_string(), of)).into();
    Relation { name: source.into(), columns, windows: None, source: Some(source), below: [source].into(), lag: 0 }
}

/// The windows of a source.
pub fn windows(source: &'static str, kind: Kind, rng: &mut ChaCha8Rng) -> Relation {
    let size = [5, 10, 20].choose(rng).copied().unwrap();
    let name = match kind {
        Kind::Hop => format!("HOP({source}, ts, INTERVAL '{} seconds', INTERVAL '{size} seconds')", [5, 4, size].choose(rng).unwrap()),
        Kind::Cumulate => format!("CUMULATE({source}, ts, INTERVAL '5 seconds', INTERVAL '{size} seconds')"),
        Kind::Session => return sessions(source, rng.random_range(2..5)),
        _ => format!("TUMBLE({source}, ts, INTERVAL '{size} seconds')"),
    };
    let relation = relation(source);
    let bounds = [("window_start".to_string(), Type::Time), ("window_end".to_string(), Type::End)];
    Relation { name, columns: bounds.into_iter().chain(relation.columns).collect(), windows: Some(kind), ..relation }
}

/// What there is of the sessions of a source: rows that belong together have to be grouped by them.
fn sessions(source: &'static str, gap: i64) -> Relation {
    let name = format!(
        "(SELECT * FROM (SELECT window_start, window_end, k, count(*) AS n, sum(x) AS s, max(f) AS m
           FROM SESSION({source} PARTITION BY k, ts, INTERVAL '{gap} seconds') GROUP BY window_start, window_end, k){})",
        closing("window_end", source, 0)
    );
    let columns = [("window_start", Type::Time), ("window_end", Type::End), ("k", Type::Text), ("n", Type::Int), ("s", Type::Int), ("m", Type::Float)];
    Relation { name, columns: columns.map(|(name, of)| (name.to_string(), of)).into(), windows: Some(Kind::Session), ..relation(source) }
}

/// A view as a relation. `lag`: seconds for which it changes windows that have been passed.
pub fn relation_of(name: &str, query: &Query, lag: i64) -> Relation {
    let columns = query.types.iter().enumerate().map(|(at, of)| (format!("c{at}"), *of)).collect();
    Relation { name: name.into(), columns, windows: None, source: None, below: query.below.clone(), lag }
}

/// A world of up to three views of random queries; the last one is of this kind. The kinds that are in it.
fn random(seed: u64, kind: Kind) -> (World, BTreeSet<Kind>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut relations: Vec<Relation> = SOURCES.map(relation).into();
    // Some worlds look at windows, too.
    if rng.random_bool(0.4) {
        for source in SOURCES {
            let kind = *Kind::WINDOWS.choose(&mut rng).unwrap();
            relations.push(windows(source, kind, &mut rng));
        }
    }
    let (mut views, mut kinds, mut come) = (vec![], BTreeSet::new(), vec![]);
    let mut reads_both = false;
    let count = rng.random_range(1..=3);
    for at in 0..count {
        let kind = if at + 1 == count { kind } else { *Kind::ALL.choose(&mut rng).unwrap() };
        let depth = rng.random_range(0..2);
        let query = Grammar { rng: &mut rng, relations: &relations, style: Style::Free, closes: false }.query(kind, depth);
        kinds.extend(&query.kinds);
        reads_both |= !query.reads.is_empty() && (0..at).any(|below| query.sql.contains(&format!("FROM v{below}")));
        let name = format!("v{at}");
        views.push(statement(&name, &query, "EMIT CHANGES"));
        relations.push(relation_of(&name, &query, 0));
        come.push(if rng.random_bool(0.3) { rng.random_range(0..4) } else { 0 });
    }
    // A view over a source and a view has to see all of the source: what it reads is there from the beginning.
    if reads_both {
        come.fill(0);
    }
    let steps = steps(&mut rng, 8);
    (World { views, come, steps, bound: NEVER }, kinds)
}

/// What became of worlds.
#[derive(Default)]
pub struct Tally {
    accepted: BTreeMap<Kind, usize>,
    refused: usize,
    reasons: BTreeMap<String, usize>,
    /// DataFusion has faults of its own.
    unanswered: usize,
    ran: Ran,
}

/// Why a view of a random query may be refused: part of the sentence.
const REASONS: &[&str] = &[
    "ALLOW LATENESS is about windows",
    "EMIT ON WINDOW CLOSE is not possible",
    "EMIT ON WINDOW CLOSE needs a windowed aggregate",
    "SESSION over rows that change is not supported",
    "GROUP BY of sessions must list",
    "comes after the sessions were made",
    "a continuous view reads a source",
];

impl Tally {
    /// Runs a world that has these kinds in it. One that fails is made small and printed.
    pub fn take(tally: &Mutex<Tally>, seed: u64, world: &World, kinds: &BTreeSet<Kind>) {
        match outcome(world) {
            Ok(ran) => {
                let mut tally = tally.lock();
                tally.ran.compared += ran.compared;
                tally.ran.rows += ran.rows;
                tally.ran.late += ran.late;
                tally.ran.restarts += ran.restarts;
                kinds.iter().for_each(|kind| *tally.accepted.entry(*kind).or_default() += 1);
            }
            Err(reason) if reason.contains(REFUSED) => {
                let mut tally = tally.lock();
                tally.refused += 1;
                let sentence = reason.split_once(REFUSED).map_or(reason.as_str(), |(_, sentence)| sentence);
                let known = REASONS.iter().find(|reason| sentence.contains(**reason));
                let text = world.views.iter().map(|view| view.text.as_str()).collect::<Vec<_>>().join(";\n");
                assert!(known.is_some(), "seed {seed}: nobody has explained why this is refused: {sentence}\n{text}");
                *tally.reasons.entry(known.unwrap_or(&"").to_string()).or_default() += 1;
            }
            Err(reason) if reason.starts_with(UNANSWERED) => tally.lock().unanswered += 1,
            Err(first) => {
                let small = shrink(world, |world| outcome(world).is_err());
                panic!("seed {seed} fails: {first}\n\nsmaller, it fails with: {}\n{small:#?}", outcome(&small).err().unwrap_or_default());
            }
        }
    }

    /// Enough of everything was accepted, and little refused; of `seeds` worlds that were to have each of `kinds` so often.
    pub fn check(&self, seeds: u64, kinds: &[Kind], each: usize, complete: bool) -> Ran {
        let Self { accepted, refused, reasons, unanswered, ran } = self;
        println!(
            "{} answers of views of {seeds} worlds equal the batch answer: {} rows, {} late, {} restarts; {refused} worlds are refused, {unanswered} can't be asked as a batch",
            ran.compared, ran.rows, ran.late, ran.restarts
        );
        accepted.iter().for_each(|(kind, worlds)| println!("{:>14} in {worlds:>5} worlds", format!("{kind:?}")));
        reasons.iter().for_each(|(reason, times)| println!("{times:>5} × {reason}"));
        if complete {
            for kind in kinds {
                assert!(accepted.get(kind).is_some_and(|n| *n >= each), "{kind:?} stood in too few accepted queries");
            }
            assert!(refused * 5 <= seeds as usize, "{refused} of {seeds} worlds were refused");
            assert!(unanswered * 50 <= seeds as usize, "{unanswered} of {seeds} worlds can't be asked as a batch");
        }
        *ran
    }
}

/// So many worlds for each kind of operator.
const WORLDS: u64 = 220;

#[test]
fn views_of_random_queries_equal_the_batch_answer() {
    let tally = Mutex::new(Tally::default());
    let all = WORLDS * Kind::ALL.len() as u64;
    let seeds = each_seed(all, |seed| {
        let (world, kinds) = random(seed, Kind::ALL[(seed % Kind::ALL.len() as u64) as usize]);
        Tally::take(&tally, seed, &world, &kinds);
    });
    tally.into_inner().check(seeds, &[Kind::ALL.as_slice(), &Kind::WINDOWS].concat(), 200, seeds >= all);
}

/// In each world a view of a diamond: both arms, or one and the source.
fn diamond(seed: u64) -> World {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let arms =
        ["SELECT k, count(*) AS c, sum(x) AS s FROM a GROUP BY k", "SELECT k, x AS c, id AS s FROM a WHERE x > 2", "SELECT DISTINCT k, g AS c, g AS s FROM a"];
    let one = *arms.choose(&mut rng).unwrap();
    let other = if rng.random_bool(0.5) { "SELECT k, max(x) AS c, min(id) AS s FROM a GROUP BY k" } else { "SELECT k, x AS c, id AS s FROM a" };
    let top = [
        "SELECT l.k, l.c, r.s FROM v0 AS l FULL JOIN v1 AS r ON l.k = r.k",
        "SELECT k, sum(c) AS c, count(*) AS n FROM (SELECT k, c FROM v0 UNION ALL SELECT k, c FROM v1) GROUP BY k",
        "SELECT k, c FROM v0 EXCEPT SELECT k, c FROM v1",
        "SELECT l.k, l.c, r.id FROM v0 AS l LEFT JOIN a AS r ON l.k = r.k AND l.c <= r.x WHERE l.k IN (SELECT k FROM v1)",
    ];
    let view = |(at, sql): (usize, &str)| WorldView {
        text: format!("CREATE CONTINUOUS VIEW v{at} WITH (unbounded_state = true) AS {sql} EMIT CHANGES"),
        batch: Some(sql.into()),
        on_close: false,
    };
    let views = [one, other, top.choose(&mut rng).unwrap()].into_iter().enumerate().map(view).collect();
    World { views, come: vec![0; 3], steps: steps(&mut rng, 6), bound: NEVER }
}

#[test]
fn diamonds_equal_the_batch_answer() {
    let rows = std::sync::atomic::AtomicUsize::new(0);
    let seeds = each_seed(60, |seed| {
        let ran = outcome(&diamond(seed)).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        rows.fetch_add(ran.rows, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(seeds < 60 || rows.into_inner() > 2_000, "the diamonds were too small to show anything");
}

/// An arm of a diamond that comes an epoch late is found in nearly every world.
#[test]
fn an_arm_that_is_late_is_found() {
    let _on = Mutant::ArmDelayed.on();
    let found = (0..20).filter(|seed| outcome(&diamond(*seed)).is_err()).count();
    assert!(found >= 15, "found in {found} of 20 worlds");
}

/// A fault in an operator is found.
#[test]
fn faults_in_relations_are_found() {
    for mutant in [Mutant::RetractionLost, Mutant::StateForgotten] {
        let _on = mutant.on();
        let found = (0..400).find(|seed| {
            let (world, _) = random(*seed, Kind::ALL[(*seed % Kind::ALL.len() as u64) as usize]);
            outcome(&world).is_err_and(|reason| !reason.contains(REFUSED))
        });
        assert!(found.is_some(), "{mutant:?} was not found");
    }
}
