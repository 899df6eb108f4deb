//! Batch equivalence of what views make of relations: views over two sources and over one another, from one epoch to the next, with
//! restarts, and views that come late. Each view's answer at each epoch is that of its query as a batch over the rows read so far.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    datatypes::{Schema, SchemaRef},
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
    grammar::{Grammar, Kind, Relation, Type},
    mutants::Mutant,
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
        view::ViewRuntime,
    },
};

/// One row of a source.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) k: Option<&'static str>,
    pub(super) g: Option<i64>,
    pub(super) x: Option<i64>,
    pub(super) f: Option<f64>,
    /// Seconds.
    pub(super) ts: i64,
}

/// What is read in one epoch, by source, and what becomes of the process.
#[derive(Debug, Clone, Default)]
pub(super) struct Step {
    pub(super) rows: BTreeMap<&'static str, Vec<Row>>,
    pub(super) checkpoint: bool,
    pub(super) restart: bool,
}

/// Views, and what they read.
#[derive(Debug, Clone)]
struct World {
    /// Statements; a view may read those before it.
    views: Vec<String>,
    /// Epochs after which each view comes; one that reads a source comes before the first.
    come: Vec<usize>,
    steps: Vec<Step>,
}

pub(super) const SOURCES: [&str; 2] = ["a", "b"];

pub(super) fn source(name: &str) -> Arc<SourceDef> {
    let text = format!(
        "CREATE SOURCE {name} (id BIGINT, k TEXT, g BIGINT, x BIGINT, f DOUBLE, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 hour')
         WITH (connector = 'kafka', topic = '{name}', 'bootstrap.servers' = 'b:1', format = 'json')"
    );
    let Definition::Source(def) = sql::parse_definition(&text).unwrap() else { panic!("no source") };
    def
}

pub(super) fn view(text: &str) -> Arc<ViewDef> {
    let Statement::CreateContinuousView { def, .. } = sql::parse_one(text).unwrap_or_else(|e| panic!("{text}: {e}")) else { panic!("no view: {text}") };
    Arc::new(def)
}

impl Row {
    pub(super) fn random(rng: &mut ChaCha8Rng, id: i64) -> Self {
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
            "id": self.id, "k": self.k, "g": self.g, "x": self.x, "f": self.f, "ts": format!("2024-01-01T00:00:{:02}Z", self.ts)
        });
        row.to_string().into_bytes()
    }
}

/// 2024-01-01.
pub(super) const DAY: i64 = 1_704_067_200_000_000_000;

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
pub(super) struct Planner {
    context: SessionContext,
}

impl Planner {
    pub(super) fn new() -> Self {
        let mut context = SessionContext::new();
        tidegate_udfs::register(&mut context).unwrap();
        for name in SOURCES {
            context.register_table(name, Arc::new(StreamTable::over(&source(name)))).unwrap();
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

/// With this begins the sentence about a query that DataFusion itself can't answer.
const UNANSWERED: &str = "the batch answer can't be had";

/// Each view's query as a batch over the sources' rows.
pub(super) async fn batch(views: &[Arc<ViewDef>], rows: &BTreeMap<&str, Vec<Row>>) -> Result<Vec<Bag>, String> {
    let state = datafusion::execution::session_state::SessionStateBuilder::new_from_existing(STATE.clone())
        .with_catalog_list(Arc::new(datafusion::catalog::MemoryCatalogProviderList::new()))
        .with_config(SessionConfig::new().with_target_partitions(1))
        .build();
    let context = SessionContext::new_with_state(state);
    for name in SOURCES {
        let schema = source(name).schema();
        let batch = table(&schema, rows.get(name).map(Vec::as_slice).unwrap_or_default());
        context.register_table(name, Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap())).unwrap();
    }
    let mut answers = vec![];
    for view in views {
        let statement = sql::query_statement(sql::parse_query(&view.query).unwrap());
        let plan = context.state().statement_to_plan(statement).await.unwrap();
        let frame = context.execute_logical_plan(plan).await.unwrap();
        let planned = frame.schema().as_arrow().clone();
        let rows = frame.collect().await.map_err(|e| format!("{UNANSWERED}: {e}"))?;
        answers.push(bag(rows.clone()));
        // What it gives may be NULL where its plan says that it is not.
        let given = rows.first().map_or(planned, |batch| batch.schema().as_ref().clone());
        let schema = Arc::new(Schema::new(given.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()));
        let rows = rows.into_iter().map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap()).collect::<Vec<_>>();
        // A table, and no nested query: what DataFusion makes of the whole would be another thing to trust.
        context.register_table(view.name.as_str(), Arc::new(MemTable::try_new(schema, vec![rows]).unwrap())).unwrap();
    }
    Ok(answers)
}

/// A world as it runs.
struct Run {
    defs: Vec<Arc<ViewDef>>,
    plans: Vec<Arc<ViewPlan>>,
    pipeline: Pipeline,
    board: Arc<Board>,
    offsets: BTreeMap<&'static str, i64>,
}

fn runtime(def: &Arc<ViewDef>, id: usize, plan: &Arc<ViewPlan>, epoch: u64) -> ViewRuntime {
    let sources: Vec<Arc<SourceDef>> = SOURCES.iter().filter(|name| plan.inputs.contains_key(**name)).map(|name| source(name)).collect();
    let sources: Vec<&SourceDef> = sources.iter().map(Arc::as_ref).collect();
    ViewRuntime::new(def.clone(), id as u64, plan.clone(), &sources, BTreeMap::new(), epoch).unwrap()
}

pub(super) fn pipeline(board: &Arc<Board>) -> Pipeline {
    let mut pipeline = Pipeline::new(SOURCES.iter().zip(1..).map(|(name, id)| (source(name), id)).collect(), board.clone(), 1).unwrap();
    SOURCES.iter().for_each(|name| pipeline.assign(name, 0..1));
    pipeline
}

/// Runs a world; a difference is a sentence. `Err(None)`: a view was refused, with the reason.
async fn run(world: &World) -> Result<usize, String> {
    let planner = Planner::new();
    let defs: Vec<Arc<ViewDef>> = world.views.iter().map(|text| view(text)).collect();
    let mut plans = vec![];
    for def in &defs {
        plans.push(planner.plan(def).await.map_err(|e| format!("{} is refused: {e}", def.name))?);
    }
    let board = Arc::new(Board::default());
    let mut run = Run { pipeline: pipeline(&board), board, defs, plans, offsets: BTreeMap::new() };
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path()).await;
    let mut read: BTreeMap<&'static str, Vec<Row>> = BTreeMap::new();
    // What a restart goes back to.
    let (mut saved_read, mut saved_offsets, mut saved_views) = (read.clone(), run.offsets.clone(), BTreeSet::<usize>::new());
    let mut here = BTreeSet::<usize>::new();
    let mut again: BTreeMap<&'static str, Vec<Row>> = BTreeMap::new();
    let mut since: BTreeMap<&'static str, Vec<Row>> = BTreeMap::new();
    let mut compared = 0;
    for (number, step) in world.steps.iter().enumerate() {
        let epoch = run.pipeline.epoch() + 1;
        for at in 0..run.defs.len() {
            let reads_source = SOURCES.iter().any(|name| run.plans[at].inputs.contains_key(*name));
            let ready = run.plans[at]
                .inputs
                .keys()
                .all(|input| SOURCES.contains(&input.as_str()) || run.defs.iter().position(|d| d.name == *input).is_some_and(|p| here.contains(&p)));
            if !here.contains(&at) && ready && (world.come[at] <= number || reads_source) {
                let view = runtime(&run.defs[at], at, &run.plans[at], epoch - 1).with_tables(run.plans[at].table_rows().await.map_err(|e| e.to_string())?);
                run.pipeline.attach(view).map_err(|e| e.to_string())?;
                here.insert(at);
            }
        }
        let mut slices = BTreeMap::new();
        for name in SOURCES {
            let mut rows = again.remove(name).unwrap_or_default();
            rows.extend(step.rows.get(name).cloned().unwrap_or_default());
            let begin = run.offsets.get(name).copied().unwrap_or_default();
            let mut builder = RecordsBuilder::new();
            rows.iter().enumerate().for_each(|(at, row)| builder.push(begin + at as i64, Some(DAY / 1_000_000), None, Some(&row.payload()), vec![]));
            let end = begin + rows.len() as i64;
            run.offsets.insert(name, end);
            if !rows.is_empty() {
                slices.insert(name.to_string(), vec![Slice { partition: 0, begin, end, records: builder.finish() }]);
            }
            since.entry(name).or_default().extend(rows.iter().cloned());
            read.entry(name).or_default().extend(rows);
        }
        let cut = EpochCut { epoch, now_ms: DAY / 1_000_000 + number as i64 * 100, slices, ..EpochCut::default() };
        run.pipeline.run(&cut).await.map_err(|e| e.to_string())?;
        let published = run.board.current();
        let wants = batch(&run.defs, &read).await?;
        for (at, want) in wants.iter().enumerate().filter(|(at, _)| here.contains(at)) {
            let def = &run.defs[at];
            let view = published.views.get(def.name.as_str()).ok_or_else(|| format!("epoch {epoch}: {} is not there", def.name))?;
            if let Some(failure) = &view.failure {
                return Err(format!("epoch {epoch}: {} failed: {}\n{}", def.name, failure.reason, def.text));
            }
            same(&bag(snapshot(&view.contents)), want, ["the view", "the batch answer"])
                .map_err(|e| format!("epoch {epoch}: {}\n{}\n{e}", def.name, def.text))?;
            compared += 1;
        }
        if step.checkpoint {
            store.write(run.pipeline.image().unwrap()).await.unwrap();
            (saved_read, saved_offsets, saved_views) = (read.clone(), run.offsets.clone(), here.clone());
            since.clear();
        }
        if step.restart {
            store = open(folder.path()).await;
            let before = run.pipeline.epoch();
            run.pipeline = pipeline(&run.board);
            (read, run.offsets, again) = (saved_read.clone(), saved_offsets.clone(), std::mem::take(&mut since));
            let restored = store.newest().await.unwrap();
            here = if restored.is_some() { saved_views.clone() } else { BTreeSet::new() };
            if let Some(mut restored) = restored {
                run.pipeline.restore(&mut restored).map_err(|e| e.to_string())?;
                for at in &here {
                    let mut view = runtime(&run.defs[*at], *at, &run.plans[*at], before);
                    if !view.restore(&mut restored).map_err(|e| e.to_string())? {
                        return Err(format!("the checkpoint does not know {}", run.defs[*at].name));
                    }
                    run.pipeline.attach(view).map_err(|e| e.to_string())?;
                }
            }
            run.pipeline.skip_to(before);
        }
    }
    Ok(compared)
}

fn outcome(world: &World) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(world)))) {
        Ok(outcome) => outcome,
        Err(panic) => Err(panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or("a panic".into())),
    }
}

fn statement(name: &str, query: &str) -> String {
    format!("CREATE CONTINUOUS VIEW {name} WITH (unbounded_state = true) AS {query} EMIT CHANGES")
}

/// The fewest steps and rows that still fail.
fn shrink(world: &World, fails: impl Fn(&World) -> bool) -> World {
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

fn relation(name: &str) -> Relation {
    let columns = [("id", Type::Int), ("k", Type::Text), ("g", Type::Int), ("x", Type::Int), ("f", Type::Float)];
    Relation { name: name.into(), columns: columns.map(|(name, of)| (name.to_string(), of)).into() }
}

/// A world of up to three views of random queries; the last one is of this kind. The kinds that are in it.
fn random(seed: u64, kind: Kind) -> (World, BTreeSet<Kind>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut relations: Vec<Relation> = SOURCES.iter().map(|name| relation(name)).collect();
    let (mut views, mut kinds, mut come) = (vec![], BTreeSet::new(), vec![]);
    let count = rng.random_range(1..=3);
    for at in 0..count {
        let kind = if at + 1 == count { kind } else { *Kind::ALL.choose(&mut rng).unwrap() };
        let depth = rng.random_range(0..2);
        let query = Grammar { rng: &mut rng, relations: &relations }.query(kind, depth);
        kinds.extend(&query.kinds);
        let name = format!("v{at}");
        views.push(statement(&name, &query.sql));
        relations.push(Relation { name, columns: query.types.iter().enumerate().map(|(at, of)| (format!("c{at}"), *of)).collect() });
        come.push(if rng.random_bool(0.3) { rng.random_range(0..4) } else { 0 });
    }
    // A view over a source and a view has to see all of the source: what it reads is there from the beginning.
    let reads = |text: &str, names: &[&str]| names.iter().any(|name| text.contains(&format!("FROM {name}")));
    if views.iter().any(|text| reads(text, &SOURCES) && reads(text, &["v0", "v1"])) {
        come.fill(0);
    }
    let steps = steps(&mut rng, 8);
    (World { views, come, steps }, kinds)
}

#[derive(Default)]
struct Tally {
    accepted: BTreeMap<Kind, usize>,
    refused: BTreeMap<Kind, usize>,
    reasons: BTreeMap<String, usize>,
    /// DataFusion has faults of its own.
    unanswered: usize,
    compared: usize,
}

/// So many worlds for each kind of operator.
const WORLDS: u64 = 220;

#[test]
fn views_of_random_queries_equal_the_batch_answer() {
    let tally = Mutex::new(Tally::default());
    let seeds = each_seed(WORLDS * Kind::ALL.len() as u64, |seed| {
        let kind = Kind::ALL[(seed % Kind::ALL.len() as u64) as usize];
        let (world, kinds) = random(seed, kind);
        match outcome(&world) {
            Ok(compared) => {
                let mut tally = tally.lock();
                tally.compared += compared;
                kinds.into_iter().for_each(|kind| *tally.accepted.entry(kind).or_default() += 1);
            }
            Err(reason) if reason.contains("is refused") => {
                let mut tally = tally.lock();
                *tally.refused.entry(kind).or_default() += 1;
                let sentence: String = reason.split_once("is refused: ").map_or(reason.as_str(), |(_, r)| r).chars().take(110).collect();
                *tally.reasons.entry(sentence).or_default() += 1;
            }
            Err(reason) if reason.starts_with(UNANSWERED) => tally.lock().unanswered += 1,
            Err(first) => {
                let small = shrink(&world, |world| outcome(world).is_err());
                panic!("seed {seed} fails: {first}\n\nsmaller, it fails with: {}\n{small:#?}", outcome(&small).err().unwrap_or_default());
            }
        }
    });
    let Tally { accepted, refused, reasons, unanswered, compared } = tally.into_inner();
    println!("{compared} answers of views of {seeds} worlds equal the batch answer; {unanswered} worlds can't be asked as a batch");
    accepted.iter().for_each(|(kind, worlds)| {
        println!("{:>14} in {worlds:>5} worlds, {:>4} refused", format!("{kind:?}"), refused.get(kind).copied().unwrap_or_default())
    });
    reasons.iter().for_each(|(reason, times)| println!("{times:>5} × {reason}"));
    if seeds >= WORLDS * Kind::ALL.len() as u64 {
        for kind in Kind::ALL {
            assert!(accepted.get(&kind).is_some_and(|n| *n >= 200), "{kind:?} stood in too few accepted queries");
        }
        let refusals: usize = refused.values().sum();
        assert!(refusals * 5 <= seeds as usize, "{refusals} of {seeds} worlds were refused");
        assert!(unanswered * 50 <= seeds as usize, "{unanswered} of {seeds} worlds can't be asked as a batch");
    }
}

/// A fault in an operator is found.
#[test]
fn faults_in_relations_are_found() {
    for mutant in [Mutant::RetractionLost, Mutant::StateForgotten] {
        let _on = mutant.on();
        let found = (0..400).find(|seed| {
            let (world, _) = random(*seed, Kind::ALL[(*seed % Kind::ALL.len() as u64) as usize]);
            outcome(&world).is_err_and(|reason| !reason.contains("is refused"))
        });
        assert!(found.is_some(), "{mutant:?} was not found");
    }
}
