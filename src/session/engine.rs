//! The server's core: the catalog, the running pipelines, and what sessions share.
//!
//! Each source that a view reads has one pipeline, which consumes and decodes the topic once for all of its views. A view that is
//! created later first catches up in a private pipeline and then joins, between two epochs, at just the offsets of the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use datafusion::{
    common::TableReference,
    execution::{
        SessionState, SessionStateBuilder, TaskContext,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::MemoryPool,
        runtime_env::RuntimeEnvBuilder,
    },
    prelude::SessionConfig,
    sql::parser::Statement,
};
use parking_lot::RwLock;
use tidegate_kernels::device::Device;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use super::{
    catch_up::{Advance, Begin, Behind, Reading, Tried, blank, last_stretch, resting_place, wake},
    clients::{ClientLimits, Clients},
    compute::Compute,
    limits::{Gate, QueryPool, StatementLimits},
    memory,
    names::{Names, Purpose},
    queries::Queries,
    result_schema::coerced,
    settings::check_device,
    sinks::Sinks,
    subscribe::Hubs,
    system::{SYSTEM, Setting},
    tables::OpenTables,
};
use crate::{
    access::{Access, AccessConfig, Caller},
    catalog::{Catalog, Definition, KeySource, Object, ObjectKind, PlainViewDef, Sealing, SourceDef, Startup, ViewDef, ViewOptions},
    decode::Decoder,
    device::Devices,
    error::{Error, Result},
    source::{
        Feed,
        kafka::{KafkaReader, configure, partitions_of, resolve_start},
    },
    sql,
    stream::{
        changes::Follower,
        checkpoint::{CheckpointRoot, CheckpointStore, Restored, Written},
        driver::{Drive, Driver, DriverSettings, Durable, OpenFeed, Released, open_durable},
        epoch_log::EpochLog,
        pipeline::{OverBudget, Pipeline},
        plan::{ViewPlan, plan_view, planning_state},
        published::Board,
        view::{Failure, Tables, ViewRuntime},
    },
};

/// `CREATE CONTINUOUS VIEW` waits so long for a view that comes late to stand beside the others; one with more to read goes on alone.
const JOIN_WAIT: Duration = Duration::from_secs(5);

/// How an engine is started.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where the catalog, checkpoints and tables live; locked by one process.
    pub data_dir: PathBuf,
    /// Folders that SQL may read files below; none by default.
    pub allowed_paths: Vec<PathBuf>,
    /// The shortest time between two epochs that have input.
    pub min_epoch_interval: Duration,
    /// An epoch takes at most this many payload bytes (a larger record is an epoch of its own).
    pub max_epoch_bytes: usize,
    /// An epoch takes at most this many records.
    pub max_epoch_rows: usize,
    /// How often state is checkpointed.
    pub checkpoint_interval: Duration,
    /// Where checkpoints live, as a URL; below the data directory if nobody says.
    pub checkpoint_url: Option<String>,
    /// Threads that decode and execute.
    pub threads: usize,
    /// Where records are decoded, unless a session or a view says something else.
    pub device: Device,
    /// Bytes that all views and queries together may hold.
    pub memory_limit: usize,
    /// What a query may take.
    pub statements: StatementLimits,
    /// What clients may take beside queries.
    pub clients: ClientLimits,
    /// How access is checked.
    pub access: AccessConfig,
    /// Where the key is that secrets are encrypted with.
    pub secret_key: KeySource,
    /// Settings of the programme around the engine, for `system.settings`.
    pub around: Vec<Setting>,
}

impl EngineConfig {
    /// The defaults, over a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let memory_limit = memory::usual_limit();
        Self {
            data_dir: data_dir.into(),
            allowed_paths: vec![],
            min_epoch_interval: Duration::from_millis(5),
            max_epoch_bytes: 64 << 20,
            max_epoch_rows: 1 << 20,
            checkpoint_interval: Duration::from_secs(10),
            checkpoint_url: None,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            device: Device::Auto,
            memory_limit,
            statements: StatementLimits::of(memory_limit),
            clients: ClientLimits::of(memory_limit),
            access: AccessConfig::default(),
            secret_key: KeySource::default(),
            around: vec![],
        }
    }

    fn driver_settings(&self) -> DriverSettings {
        DriverSettings {
            min_epoch_interval: self.min_epoch_interval,
            max_epoch_bytes: self.max_epoch_bytes,
            max_epoch_rows: self.max_epoch_rows,
            checkpoint_interval: self.checkpoint_interval,
        }
    }
}

/// A view that has not joined its pipeline yet.
#[derive(Debug, Clone)]
struct CatchingUp {
    /// Where it publishes meanwhile.
    board: Arc<Board>,
    /// Why the last try failed; it is tried again.
    trouble: Option<String>,
    /// The view's number: another one of the same name is another view.
    id: u64,
    /// Where it began to read, once that is known.
    begin: Begin,
}

/// A paused view.
#[derive(Debug, Clone)]
struct Resting {
    /// Where it is to be seen.
    board: Arc<Board>,
    /// Why it could not be resumed, if that was tried.
    stuck: Option<String>,
}

/// The server's core. One per process and data directory.
pub struct Engine {
    config: EngineConfig,
    pub(super) catalog: Catalog,
    /// Users, roles and grants.
    pub(super) access: Arc<Access>,
    /// The pipeline of each source that a view reads; sources that one view reads, itself or through others, share one.
    pipelines: RwLock<BTreeMap<String, Arc<Driver>>>,
    /// Views that have not joined their pipeline yet, where they publish meanwhile.
    catching_up: RwLock<BTreeMap<String, CatchingUp>>,
    /// Definitions that are to take a view's place and have not caught up yet, by the view's name.
    replacing: RwLock<BTreeMap<String, CatchingUp>>,
    /// What became of the last `OR REPLACE` of a view.
    pub(super) replaced: RwLock<BTreeMap<String, String>>,
    /// Paused views, where they stand.
    paused: RwLock<BTreeMap<String, Resting>>,
    /// Where checkpoints live.
    checkpoints: Arc<CheckpointRoot>,
    /// The files of tables.
    pub(super) tables: OpenTables,
    /// What views and queries take memory from.
    memory: Arc<dyn MemoryPool>,
    /// Is told of views that hold more than they may.
    over_budget: mpsc::UnboundedSender<OverBudget>,
    /// Sources whose pipeline could not be started, paused views that could not be read back, and why.
    broken: RwLock<BTreeMap<String, String>>,
    /// Statements that run.
    pub(super) queries: Arc<Queries>,
    /// What clients have taken.
    pub(super) clients: Arc<Clients>,
    /// Queries that wait for others to end.
    pub(super) gate: Gate,
    /// Where queries run.
    pub(super) compute: Compute,
    /// Queries over views that are subscribed to.
    pub(super) hubs: Hubs,
    /// Sinks that run.
    pub(super) sinks: Sinks,
    /// Declarations change one at a time.
    pub(super) declaring: tokio::sync::Mutex<()>,
    base: SessionState,
    handle: Handle,
    open: OpenFeed,
    /// Held as long as the engine lives.
    _lock: File,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("data_dir", &self.config.data_dir).finish_non_exhaustive()
    }
}

impl Engine {
    /// What clients have taken.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// Opens the data directory, restores every view from its newest checkpoint and starts the pipelines.
    pub async fn start(config: EngineConfig) -> Result<Arc<Self>> {
        let folder = config.data_dir.clone();
        let lock = lock_folder(&folder)?.ok_or_else(|| {
            Error::External(format!(
                "the data directory {} is in use by another tidegate process: stop that one, or give this one another --data-dir",
                folder.display()
            ))
        })?;
        let access = Access::open(&folder, config.access.clone())?;
        let sealing = Sealing { key: config.secret_key.clone(), shown: sql::redacted };
        let catalog = Catalog::open_sealed(&folder, &sql::parse_definition, Some(sealing))?;
        let checkpoints = Arc::new(open_checkpoints(&config).await?);
        let tables = OpenTables::open(&folder, &catalog)?;
        let open: OpenFeed = Arc::new(|source, from, input| Ok(Box::new(KafkaReader::start(source, from, input)?) as Box<dyn Feed>));
        let memory = memory::pool(config.memory_limit);
        let (over_budget, told) = mpsc::unbounded_channel();
        let engine = Arc::new(Self {
            base: base_state(&config, &memory)?,
            catalog,
            access,
            pipelines: RwLock::default(),
            catching_up: RwLock::default(),
            replacing: RwLock::default(),
            replaced: RwLock::default(),
            paused: RwLock::default(),
            checkpoints,
            tables,
            memory,
            over_budget,
            broken: RwLock::default(),
            queries: Arc::default(),
            clients: Arc::default(),
            gate: Gate::new(config.statements.clone()),
            compute: Compute::new(config.threads)?,
            hubs: Hubs::default(),
            sinks: Sinks::open(&folder)?,
            declaring: tokio::sync::Mutex::new(()),
            handle: Handle::current(),
            open,
            _lock: lock,
            config,
        });
        check_device(engine.config.device).await?;
        if engine.config.device == Device::Auto {
            // Where there is a GPU, it is opened meanwhile.
            let _ = Devices::get().ready();
        }
        engine.watch_memory(told);
        engine.resume().await?;
        engine.resume_sinks();
        Ok(engine)
    }

    /// A new session of the server's own, which may do everything.
    pub fn session(self: &Arc<Self>) -> super::Session {
        self.session_of(Caller::server())
    }

    /// A new session for one client.
    pub fn session_of(self: &Arc<Self>, caller: Caller) -> super::Session {
        super::Session::new(self.clone(), caller)
    }

    /// What has been declared.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// How the engine was started.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Takes a last checkpoint of every pipeline and stops them.
    pub async fn stop(&self) -> Result<()> {
        self.sinks.stop_all().await;
        let drivers = self.running_pipelines();
        self.pipelines.write().clear();
        let mut result = Ok(());
        for driver in drivers.into_values() {
            result = result.and(driver.stop(true).await);
        }
        result
    }

    /// Runs what waits.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What views and queries take memory from.
    pub(super) fn memory(&self) -> &Arc<dyn MemoryPool> {
        &self.memory
    }

    /// Waits until nobody else changes declarations.
    pub(super) async fn declare(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.declaring.lock().await
    }

    /// The functions and settings that every statement starts from.
    pub(super) fn base_state(&self) -> &SessionState {
        &self.base
    }

    /// The session state for one statement: every name in it resolves to the same epoch, which may be given.
    pub(super) fn query_state(self: &Arc<Self>, caller: &Caller, statement: &Statement, as_of: Option<u64>) -> SessionState {
        Names::state_for(self.clone(), Purpose::query(as_of), caller, statement)
    }

    /// What a query executes in: its own share of the server's memory.
    pub(super) fn query_context(&self, state: &SessionState) -> Result<Arc<TaskContext>> {
        let pool = Arc::new(QueryPool::new(self.memory.clone(), self.config.statements.memory));
        let runtime = RuntimeEnvBuilder::from_runtime_env(state.runtime_env()).with_memory_pool(pool).build_arc()?;
        Ok(Arc::new(TaskContext::from(state).with_runtime(runtime)))
    }

    /// The pipeline that consumes a source, if a view reads it.
    pub(super) fn pipeline(&self, source: &str) -> Option<Arc<Driver>> {
        self.pipelines.read().get(source).cloned()
    }

    /// All pipelines that run, by the names of their sources.
    pub(super) fn running_pipelines(&self) -> BTreeMap<String, Arc<Driver>> {
        let mut pipelines: Vec<(String, Arc<Driver>)> = vec![];
        for (source, driver) in self.pipelines.read().iter() {
            match pipelines.iter_mut().find(|(_, known)| Arc::ptr_eq(known, driver)) {
                Some((name, _)) => *name = format!("{name}+{source}"),
                None => pipelines.push((source.clone(), driver.clone())),
            }
        }
        pipelines.into_iter().collect()
    }

    /// Sources whose pipeline could not be started, and why.
    pub(super) fn broken_sources(&self) -> BTreeMap<String, String> {
        self.broken.read().clone()
    }

    /// The declaration of a source.
    pub(super) fn source_def(&self, name: &str) -> Option<Arc<SourceDef>> {
        match self.catalog.get(name)?.definition {
            Definition::Source(def) => Some(def),
            Definition::View(_) | Definition::PlainView(_) | Definition::Table(_) | Definition::Sink(_) | Definition::Connection(_) | Definition::Secret(_) => {
                None
            }
        }
    }

    /// Where a continuous view publishes, and whether it is still catching up.
    pub(super) fn board_of(&self, view: &str) -> Option<(Arc<Board>, bool)> {
        if let Some(resting) = self.paused.read().get(view) {
            return Some((resting.board.clone(), false));
        }
        if let Some(waiting) = self.catching_up.read().get(view)
            && waiting.board.current().views.contains_key(view)
            && !self.pipelines.read().values().any(|d| d.board().current().views.contains_key(view))
        {
            return Some((waiting.board.clone(), true));
        }
        self.pipelines.read().values().find(|d| d.board().current().views.contains_key(view)).map(|d| (d.board().clone(), false))
    }

    /// Why a view's last try to catch up failed.
    pub(super) fn trouble_of(&self, view: &str) -> Option<String> {
        self.catching_up.read().get(view).and_then(|waiting| waiting.trouble.clone())
    }

    /// Whether a view is still catching up, to be seen or not.
    pub(super) fn is_waiting(&self, view: &str) -> bool {
        self.catching_up.read().contains_key(view)
    }

    /// Whether a view was paused.
    pub(super) fn is_paused(&self, view: &str) -> bool {
        self.paused.read().contains_key(view)
    }

    /// Why a paused view could not be resumed, if that was tried.
    pub(super) fn stuck(&self, view: &str) -> Option<String> {
        self.paused.read().get(view)?.stuck.clone()
    }

    /// How many of how many offsets a view that catches up has passed.
    pub(super) fn progress_of(&self, view: &str) -> Option<(i64, i64)> {
        let waiting = self.catching_up.read().get(view).cloned()?;
        self.progress(&waiting)
    }

    /// How what is to take a view's place gets on: a sentence.
    pub(super) fn replacement_of(&self, view: &str) -> Option<String> {
        let waiting = self.replacing.read().get(view).cloned()?;
        let how = waiting.trouble.clone().unwrap_or_else(|| match self.progress(&waiting) {
            Some((read, all)) => format!("has read {read} of {all} records"),
            None => "begins to read what its sources hold".into(),
        });
        Some(format!("is being replaced, the new definition {how}"))
    }

    /// Nobody waits any more for what was to take a view's place under this number, or under any.
    pub(super) fn forget_replacing(&self, view: &str, id: Option<u64>) {
        let mut replacing = self.replacing.write();
        if replacing.get(view).is_some_and(|waiting| id.is_none_or(|id| waiting.id == id)) {
            replacing.remove(view);
        }
    }

    fn progress(&self, waiting: &CatchingUp) -> Option<(i64, i64)> {
        let begin = waiting.begin.lock();
        let here = waiting.board.current();
        let mut progress = None;
        for (source, begin) in begin.iter() {
            let upto = self.pipeline(source)?.board().current().sources.get(source)?.offsets.clone();
            let at = &here.sources.get(source)?.offsets;
            let passed = |to: &BTreeMap<i32, i64>| begin.iter().map(|(partition, from)| (to.get(partition).unwrap_or(from) - from).max(0)).sum::<i64>();
            let (read, all) = progress.unwrap_or_default();
            progress = Some((read + passed(at), all + passed(&upto)));
        }
        progress
    }

    /// Why a source's pipeline could not be started.
    pub(super) fn broken(&self, source: &str) -> Option<String> {
        self.broken.read().get(source).cloned()
    }

    /// The sources that an object reads, directly or through plain views.
    pub(super) fn sources_below(&self, name: &str) -> Vec<String> {
        match self.catalog.get(name) {
            Some(Object { definition: Definition::Source(def), .. }) => vec![def.name.clone()],
            Some(object) => {
                let mut sources: Vec<String> = object.reads.iter().flat_map(|read| self.sources_below(read)).collect();
                sources.sort();
                sources.dedup();
                sources
            }
            None => vec![],
        }
    }

    /// Plans a continuous view; `id` is its number, if it is made already.
    pub(super) async fn plan_view(self: &Arc<Self>, def: &ViewDef, id: Option<u64>) -> Result<ViewPlan> {
        self.plan_view_for(&Caller::server(), def, id).await
    }

    /// Plans a continuous view out of what somebody may read.
    pub(super) async fn plan_view_for(self: &Arc<Self>, caller: &Caller, def: &ViewDef, id: Option<u64>) -> Result<ViewPlan> {
        let state = planning_state(&Names::state(self.clone(), Purpose::Stream(id), caller));
        plan_view(&state, sql::parse_query(&def.query)?, def.emit, &def.options).await
    }

    /// The sources that a view reads itself, as the one of this number sees them.
    pub(super) fn readings(&self, plan: &ViewPlan, view: Option<u64>) -> Vec<Reading> {
        let reading = |name: &String| {
            let object = self.catalog.get(name)?;
            let Definition::Source(def) = &object.definition else { return None };
            let seen = view.and_then(|view| object.source_seen_by(view)).unwrap_or_else(|| def.clone());
            Some(Reading { def: def.clone(), seen, id: object.id, start: object.start_offsets })
        };
        plan.inputs.keys().filter_map(reading).collect()
    }

    /// The continuous views that a view reads itself.
    pub(super) fn views_read(&self, plan: &ViewPlan) -> Vec<String> {
        let is_view = |name: &&String| matches!(self.catalog.get(name), Some(Object { definition: Definition::View(_), .. }));
        plan.inputs.keys().filter(is_view).cloned().collect()
    }

    /// Declares a source; whether there was none of its name.
    pub(super) async fn create_source(&self, caller: &Caller, def: SourceDef, if_not_exists: bool) -> Result<bool> {
        let _declaring = self.declaring.lock().await;
        self.check_create(caller, &def.name)?;
        if self.is_taken_for(caller, &def.name, if_not_exists)? {
            return Ok(false);
        }
        let links = self.usable_links(caller, def.kafka.link.connection.as_ref(), def.kafka.link.secrets.values().cloned())?;
        let def = SourceDef { kafka: self.catalog.kafka_asking(&def.kafka), ..def };
        configure::check(&def.kafka.settings()?, &format!("source {}", def.name))?;
        // What no record could be read by is refused now.
        Decoder::new(&def, &[])?;
        let kafka = def.kafka.clone();
        let looked = blocking(move || partitions_of(&kafka)).await?;
        if let Err(error) = looked {
            // A broker that is down may come back; only where the start must be asked for now is it needed now.
            if !matches!(error, Error::External(_)) || matches!(def.kafka.startup, Startup::Latest | Startup::Timestamp(_)) {
                return Err(error);
            }
            tracing::warn!(source = def.name, "declared, but not reachable yet: {error}");
        }
        let kafka = def.kafka.clone();
        let start = blocking(move || resolve_start(&kafka)).await??;
        self.create_object(caller, Definition::Source(Arc::new(def)), links, start)?;
        Ok(true)
    }

    /// Adds a column to a source: for what is declared from now on. Views that are there keep their columns; all records that are read from
    /// now on are judged by it, too.
    pub(super) async fn add_column(&self, caller: &Caller, name: &str, column: &str, declaration: &str, if_not_exists: bool) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        let def = match self.changeable(caller, name)? {
            Some(Object { definition: Definition::Source(def), .. }) => def,
            Some(object) => return Err(Error::Invalid(format!("{name} is a {}: ALTER SOURCE changes sources", object.definition.kind()))),
            None => return Err(Error::NotFound(format!("there is no source {name}: nothing was changed"))),
        };
        match def.column_index(column) {
            Some(_) if if_not_exists => return Ok(()),
            Some(_) => {
                return Err(Error::AlreadyExists(format!("source {name} has a column {column} already: choose another name, or say IF NOT EXISTS")));
            }
            None => {}
        }
        // One that has joined already only has to be told so.
        let behind: Vec<String> = self.catching_up.read().keys().cloned().collect();
        let is_waiting = |view: &String| behind.contains(view) && self.board_of(view).is_none_or(|(_, catching_up)| catching_up);
        let waiting = self.catalog.dependents(name).into_iter().find(is_waiting);
        if let Some(view) = waiting {
            return Err(Error::Invalid(format!(
                "view {view} is still catching up with source {name}: change it when SHOW VIEWS says that the view is running"
            )));
        }
        if let Some(view) = self.catalog.dependents(name).into_iter().find(|view| self.catalog.get(view).is_some_and(|view| view.replacement.is_some())) {
            return Err(Error::Invalid(format!("view {view} is being replaced: change source {name} when SHOW VIEWS says that it was")));
        }
        let Definition::Source(altered) = self.catalog.asking(sql::parse_definition(&sql::with_column(&def.text, declaration)?)?) else {
            return Err(Error::Internal(format!("source {name} became something else")));
        };
        let last = altered.columns.last().filter(|last| last.name == column && altered.columns.len() == def.columns.len() + 1);
        if last.is_none() || altered.columns[..def.columns.len()] != def.columns[..] {
            return Err(Error::Internal(format!("source {name} could not be rewritten with column {column}")));
        }
        // What no decoder can read is said now, and not by a pipeline that stands still.
        Decoder::new(&altered, &[])?;
        self.catalog.add_column(altered.clone())?;
        match self.pipeline(name) {
            Some(driver) => driver.redeclare(altered).await,
            None => Ok(()),
        }
    }

    /// Declares a plain view.
    pub(super) async fn create_plain_view(self: &Arc<Self>, caller: &Caller, def: PlainViewDef, if_not_exists: bool, or_replace: bool) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        let replaced = if or_replace { self.changeable(caller, &def.name)? } else { None };
        match replaced {
            Some(Object { definition: Definition::PlainView(_), .. }) => {
                let reads = self.check_plain_view(caller, &def).await?;
                let name = def.name.clone();
                self.catalog.replace(&name, Definition::PlainView(Arc::new(def)), reads)?;
                return Ok(());
            }
            Some(object) => return Err(not_replaced(&object, "plain view")),
            None => {}
        }
        self.check_create(caller, &def.name)?;
        if self.is_taken_for(caller, &def.name, if_not_exists)? {
            return Ok(());
        }
        let reads = self.check_plain_view(caller, &def).await?;
        self.create_object(caller, Definition::PlainView(Arc::new(def)), reads, BTreeMap::new())?;
        Ok(())
    }

    async fn check_plain_view(self: &Arc<Self>, caller: &Caller, def: &PlainViewDef) -> Result<Vec<String>> {
        let statement = sql::query_statement(sql::parse_query(&def.query)?);
        let state = self.query_state(caller, &statement, None);
        let reads = state.resolve_table_references(&statement)?.into_iter().filter_map(|r| Some(self.object_behind(object_name(&r)?))).collect::<Vec<_>>();
        if reads.contains(&def.name) {
            return Err(Error::Invalid(format!("view {} can't read itself", def.name)));
        }
        let plan = state.statement_to_plan(statement).await?;
        sql::check_view_plan(&plan)?;
        let plan = coerced(plan)?;
        let names: Vec<&String> = plan.schema().fields().iter().map(|field| field.name()).collect();
        if let Some((_, twice)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(Error::Invalid(format!("view {} would have two columns called {twice}: rename one, as in SELECT a AS b", def.name)));
        }
        Ok(reads.into_iter().filter(|name| self.catalog.get(name).is_some()).collect())
    }

    /// Declares a continuous view and starts it. Where its pipeline runs already, the view usually stands at the same epoch as the
    /// others when this returns; where it has much to read, it is still catching up.
    pub(super) async fn create_view(self: &Arc<Self>, caller: &Caller, def: ViewDef, if_not_exists: bool, or_replace: bool) -> Result<()> {
        let name = def.name.clone();
        let Some(tried) = self.declare_view(caller, def, if_not_exists, or_replace).await? else { return Ok(()) };
        // Neither a broker that is down nor a long topic keeps the statement: SHOW VIEWS tells of both.
        match tokio::time::timeout(JOIN_WAIT, tried).await {
            Ok(Ok(Tried::Refused(reason))) => Err(Error::External(format!("view {name} was not replaced and stays as it is: {reason}"))),
            _ => Ok(()),
        }
    }

    /// Declares and starts a view; where it catches up, what tells that its first try has ended.
    async fn declare_view(self: &Arc<Self>, caller: &Caller, def: ViewDef, if_not_exists: bool, or_replace: bool) -> Result<Option<oneshot::Receiver<Tried>>> {
        let _declaring = self.declaring.lock().await;
        let replaced = if or_replace { self.changeable(caller, &def.name)? } else { None };
        if let Some(object) = replaced {
            check_device(def.options.device.unwrap_or_default()).await?;
            return match object.definition.clone() {
                Definition::View(old) => self.replace_view(caller, def, object, old).await,
                _ => Err(not_replaced(&object, "continuous view")),
            };
        }
        self.check_create(caller, &def.name)?;
        if self.is_taken_for(caller, &def.name, if_not_exists)? {
            return Ok(None);
        }
        check_device(def.options.device.unwrap_or_default()).await?;
        if let Some(late) = &def.options.late_to
            && self.late_view(late).is_none_or(|view| view.name != def.name)
        {
            self.is_taken_for(caller, late, false)?;
        }
        let plan = Arc::new(self.plan_view_for(caller, &def, None).await?);
        self.check_views_read(&def, &plan)?;
        let def = Arc::new(def);
        let reads = self.reads_of(&def, &plan)?;
        let id = self.create_object(caller, Definition::View(def.clone()), reads, BTreeMap::new())?;
        self.start_declared(def, id, plan, true).await
    }

    /// Puts another definition in the place of one whose view has not caught up: nothing of that is kept.
    pub(super) async fn replace_unfinished(
        self: &Arc<Self>,
        old: &Object,
        def: Arc<ViewDef>,
        plan: Arc<ViewPlan>,
        reads: Vec<String>,
    ) -> Result<Option<oneshot::Receiver<Tried>>> {
        // One change of the catalog: after a crash there is the old view or the new one.
        let id = self.catalog.replace(&def.name, Definition::View(def.clone()), reads)?;
        self.stop_view(old).await?;
        self.start_declared(def, id, plan, false).await
    }

    /// Views that are read must run as they are.
    pub(super) fn check_views_read(&self, def: &ViewDef, plan: &ViewPlan) -> Result<()> {
        for below in self.views_read(plan) {
            if self.is_paused(&below) {
                return Err(Error::Invalid(format!("view {below}, which {} reads, is paused: RESUME VIEW {below} first", def.name)));
            }
            if self.catalog.get(&below).is_some_and(|object| object.replacement.is_some()) {
                return Err(Error::Invalid(format!("view {below}, which {} reads, is being replaced: try again when SHOW VIEWS says that it was", def.name)));
            }
        }
        Ok(())
    }

    /// Names of all that a view reads.
    pub(super) fn reads_of(&self, def: &ViewDef, plan: &ViewPlan) -> Result<Vec<String>> {
        let mut reads = self.named_objects(&def.query)?;
        reads.extend(plan.inputs.keys().cloned());
        reads.sort();
        reads.dedup();
        Ok(reads)
    }

    /// The sources that a plan reads, itself or through views.
    pub(super) fn sources_of(&self, plan: &ViewPlan) -> Vec<String> {
        let mut sources: Vec<String> = plan.inputs.keys().flat_map(|name| self.sources_below(name)).collect();
        sources.sort();
        sources.dedup();
        sources
    }

    /// Starts a view that the catalog has; where that fails it may be dropped again.
    async fn start_declared(self: &Arc<Self>, def: Arc<ViewDef>, id: u64, plan: Arc<ViewPlan>, drop: bool) -> Result<Option<oneshot::Receiver<Tried>>> {
        let sources = self.sources_of(&plan);
        let started = match self.unite(&sources).await {
            Ok(()) => match self.pipeline(&sources[0]) {
                Some(driver) => self.start_view(def.clone(), id, plan, driver).await,
                None => self.begin_pipeline(&sources[0]).await.map(|()| None),
            },
            Err(error) => Err(error),
        };
        if started.is_err() && drop {
            self.catalog.drop(&def.name)?;
        }
        started
    }

    /// Starts a view on a running pipeline that reads all of its sources; where it catches up, what tells that its first try has ended.
    async fn start_view(self: &Arc<Self>, def: Arc<ViewDef>, id: u64, plan: Arc<ViewPlan>, driver: Arc<Driver>) -> Result<Option<oneshot::Receiver<Tried>>> {
        if !self.readings(&plan, Some(id)).is_empty() {
            let tables = plan.table_rows().await?;
            return self.catch_up(def, id, plan, tables, None, None).map(Some);
        }
        let tables = plan.table_rows().await?;
        self.attach_view(def, id, plan, tables, &driver).await.map(|()| None)
    }

    /// Lets a view that reads nothing but views run: what those hold is all that there is to catch up with.
    async fn attach_view(&self, def: Arc<ViewDef>, id: u64, plan: Arc<ViewPlan>, tables: Tables, driver: &Driver) -> Result<()> {
        let name = def.name.clone();
        let view = ViewRuntime::new(def, id, plan, &[], BTreeMap::new(), driver.board().current().epoch)?.with_tables(tables);
        driver.attach(view).await?;
        until(|| driver.board().current().views.contains_key(&name)).await;
        Ok(())
    }

    /// Starts the pipeline of a new view, and waits for its first epoch: an aggregate has its row over nothing from then on.
    async fn begin_pipeline(self: &Arc<Self>, source: &str) -> Result<()> {
        self.start_pipeline(source).await?;
        if let Some(driver) = self.pipeline(source) {
            until(|| driver.board().current().epoch > 0 || driver.status().standstill().is_some()).await;
        }
        Ok(())
    }

    /// Lets one pipeline read all of these sources: views that look at several of them see them at one epoch.
    pub(super) async fn unite(self: &Arc<Self>, sources: &[String]) -> Result<()> {
        let of = |source: &String| self.catalog.get(source).map(|object| object.pipeline);
        let mut pipelines: Vec<u64> = sources.iter().filter_map(of).collect();
        pipelines.sort_unstable();
        pipelines.dedup();
        if pipelines.len() < 2 {
            return Ok(());
        }
        let into = pipelines[0];
        let members: Vec<String> = pipelines.iter().flat_map(|p| self.catalog.sources_of_pipeline(*p)).map(|o| o.definition.name().to_string()).collect();
        let mut drivers: Vec<Arc<Driver>> = vec![];
        for driver in members.iter().filter_map(|source| self.pipeline(source)) {
            if !drivers.iter().any(|known| Arc::ptr_eq(known, &driver)) {
                drivers.push(driver);
            }
        }
        for driver in &drivers {
            if let Some(reason) = driver.status().standstill() {
                return Err(Error::External(format!("the sources can't be read together, since one of their pipelines stands still: {reason}")));
            }
        }
        self.catalog.unite(&pipelines, into)?;
        if drivers.is_empty() {
            return Ok(());
        }
        // From here on a restart would put them together from what each has left, and so does this.
        match self.put_together(into, &drivers).await {
            Ok(()) => self.forget_others(into).await,
            Err(error) => {
                tracing::error!("running pipelines could not be put together ({error}): they begin anew from their checkpoints");
                self.pipelines.write().retain(|source, _| !members.contains(source));
                for driver in drivers {
                    // One that has handed over what it drives is gone already.
                    if let Err(error) = driver.stop(false).await {
                        tracing::debug!("{error}");
                    }
                }
                self.start_pipeline(&sources[0]).await
            }
        }
    }

    /// Lets one pipeline go on with what these drive.
    async fn put_together(&self, into: u64, drivers: &[Arc<Driver>]) -> Result<()> {
        let mut pipeline = Pipeline::new(vec![], Arc::default(), self.config.threads)?.within(self.memory.clone()).on(self.config.device);
        for driver in drivers {
            // Each is durable by its own last checkpoint until the first of the united one counts.
            pipeline.absorb(driver.release().await?.pipeline)?;
        }
        let known: Vec<String> = pipeline.sources().map(String::from).collect();
        let fresh: Vec<(Arc<SourceDef>, u64)> = self
            .catalog
            .sources_of_pipeline(into)
            .into_iter()
            .filter_map(|object| match object.definition {
                Definition::Source(def) if !known.contains(&def.name) => Some((def, object.id)),
                _ => None,
            })
            .collect();
        pipeline.absorb(Pipeline::new(fresh, Arc::default(), self.config.threads)?)?;
        let (checkpoints, restored) = open_durable(self.checkpoints.clone(), &into.to_string()).await?;
        let (log, greatest) = EpochLog::open(self.folder(into).join("epochs"), restored.map(|restored| restored.epoch))?;
        pipeline.skip_to(greatest);
        self.drive(into, pipeline, Durable { checkpoints, log })?;
        Ok(())
    }

    /// Drives a pipeline with all sources that the catalog gives it.
    fn drive(&self, id: u64, pipeline: Pipeline, durable: Durable) -> Result<Arc<Driver>> {
        let objects = self.catalog.sources_of_pipeline(id);
        let names: Vec<String> = objects.iter().map(|object| object.definition.name().to_string()).collect();
        let start = objects.iter().map(|object| (object.definition.name().to_string(), object.start_offsets.clone())).collect();
        let sources: Vec<Arc<SourceDef>> = objects
            .into_iter()
            .filter_map(|object| match object.definition {
                Definition::Source(def) => Some(def),
                _ => None,
            })
            .collect();
        let board = pipeline.board().clone();
        let driver = Arc::new(Driver::start(Drive {
            name: &names.join("+"),
            pipeline,
            sources: &sources,
            start,
            board,
            settings: self.config.driver_settings(),
            durable: Some(durable),
            open: &self.open,
            over_budget: Some(self.over_budget.clone()),
            handle: self.handle.clone(),
        })?);
        let mut pipelines = self.pipelines.write();
        for name in names {
            self.broken.write().remove(&name);
            pipelines.insert(name, driver.clone());
        }
        Ok(driver)
    }

    /// Removes what the sources of a pipeline have left of pipelines of their own, once a checkpoint of this one holds all of them.
    async fn forget_others(&self, id: u64) -> Result<()> {
        let sources = self.catalog.sources_of_pipeline(id);
        let others: Vec<u64> = sources.iter().map(|object| object.id).filter(|other| *other != id).collect();
        let Some(driver) = sources.first().and_then(|object| self.pipeline(object.definition.name())) else { return Ok(()) };
        if others.is_empty() {
            return Ok(());
        }
        // A disk that is full now is tried again with the next start.
        match driver.checkpoint().await {
            Ok(()) => {
                for other in others {
                    self.forget(other).await?;
                }
            }
            Err(error) => tracing::warn!("the pipelines that were put together are kept for now: {error}"),
        }
        Ok(())
    }

    pub(super) fn named_objects(&self, query: &str) -> Result<Vec<String>> {
        let statement = sql::query_statement(sql::parse_query(query)?);
        let references = self.base.resolve_table_references(&statement)?;
        Ok(references.into_iter().filter_map(|r| Some(object_name(&r)?.to_string())).filter(|name| self.catalog.get(name).is_some()).collect())
    }

    /// The view whose late rows are read under this name: `LATE DATA TO name`.
    pub(super) fn late_view(&self, name: &str) -> Option<Arc<ViewDef>> {
        self.catalog.list().into_iter().find_map(|object| match object.definition {
            Definition::View(view) if view.options.late_to.as_deref() == Some(name) => Some(view),
            _ => None,
        })
    }

    /// The object that a table belongs to: `events$errors` to `events`, late rows to their view.
    pub(super) fn object_behind(&self, table: &str) -> String {
        self.late_view(table).map_or_else(|| base_name(table).to_string(), |view| view.name.clone())
    }

    /// As [`Self::is_taken`], but what they may not see is only told to have the name.
    pub(super) fn is_taken_for(&self, caller: &Caller, name: &str, if_not_exists: bool) -> Result<bool> {
        match self.is_taken(name, if_not_exists) {
            Err(Error::AlreadyExists(_)) if self.seen(&caller.who, &self.object_behind(name)).is_none() => {
                Err(Error::AlreadyExists(format!("the name {name} is taken: choose another one")))
            }
            taken => taken,
        }
    }

    /// Adds an object to the catalog, which belongs to whoever makes it.
    pub(super) fn create_object(&self, caller: &Caller, definition: Definition, reads: Vec<String>, start: BTreeMap<i32, i64>) -> Result<u64> {
        // What a crash has left of another one of this name.
        self.access.forget_object(definition.name())?;
        self.catalog.create_owned(caller.who.name(), definition, reads, start)
    }

    pub(super) fn is_taken(&self, name: &str, if_not_exists: bool) -> Result<bool> {
        if let Some(view) = self.late_view(name) {
            return Err(Error::AlreadyExists(format!("{name} is the name of the late rows of view {}: choose another one", view.name)));
        }
        let late_soon = |object: &Object| match object.replacement.as_ref().map(|replacement| &replacement.definition) {
            Some(Definition::View(view)) => view.options.late_to.as_deref() == Some(name),
            _ => false,
        };
        if let Some(object) = self.catalog.list().iter().find(|object| late_soon(object)) {
            let view = object.definition.name();
            return Err(Error::AlreadyExists(format!("{name} will be the name of the late rows of view {view}, which is being replaced: choose another one")));
        }
        match self.catalog.get(name) {
            None => Ok(false),
            Some(_) if if_not_exists => Ok(true),
            Some(object) => Err(Error::AlreadyExists(format!(
                "{} {name} exists already: choose another name, drop it first, or say IF NOT EXISTS",
                object.definition.kind()
            ))),
        }
    }

    /// Drops an object, and with `cascade` what depends on it.
    pub(super) async fn drop_object(&self, caller: &Caller, kind: ObjectKind, name: &str, if_exists: bool, cascade: bool) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        let (noun, word) = kind.words();
        let Some(object) = self.changeable(caller, name)? else {
            return if if_exists { Ok(()) } else { Err(Error::NotFound(format!("there is no {noun} {name}: nothing was dropped"))) };
        };
        let (_, right) = object.definition.object_kind().words();
        if right != word {
            return Err(Error::Invalid(format!("{name} is a {}: say DROP {right}, not DROP {word}", object.definition.kind())));
        }
        let dependents = self.catalog.dependents(name);
        if dependents.iter().any(|dependent| self.catalog.get(dependent).is_some_and(|dependent| !self.owns(&caller.who, &dependent))) {
            return Err(Error::Denied(format!("{name} can't be dropped: what others own depends on it, ask an admin")));
        }
        if !cascade && !dependents.is_empty() {
            return Err(Error::Invalid(format!(
                "{name} can't be dropped, {} depend{} on it: drop {} first, or say CASCADE",
                dependents.join(", "),
                if dependents.len() == 1 { "s" } else { "" },
                if dependents.len() == 1 { "it" } else { "them" }
            )));
        }
        // Those that nothing depends on first.
        for dependent in dependents.iter().rev() {
            self.drop_one(dependent).await?;
        }
        self.drop_one(name).await
    }

    async fn drop_one(&self, name: &str) -> Result<()> {
        let Some(object) = self.catalog.get(name) else { return Ok(()) };
        // First: a crash between the two leaves an object that fewer may read.
        self.access.forget_object(name)?;
        self.catalog.drop(name)?;
        match object.definition {
            Definition::PlainView(_) | Definition::Connection(_) | Definition::Secret(_) => {}
            Definition::Table(_) => self.tables.forget(object.id),
            Definition::Sink(_) => self.stop_sink(&object).await,
            Definition::View(_) => self.stop_view(&object).await?,
            Definition::Source(_) => {
                let driver = self.pipelines.write().remove(name);
                let rest = self.catalog.sources_of_pipeline(object.pipeline);
                if let (Some(driver), Some(first)) = (driver, rest.first()) {
                    // Others go on without it.
                    let Released { mut pipeline, durable } = driver.release().await?;
                    pipeline.remove_source(name);
                    let durable = durable.ok_or_else(|| Error::Internal("a source's pipeline was not durable".into()))?;
                    tracing::debug!(source = name, beside = first.definition.name(), "dropped from its pipeline");
                    self.drive(object.pipeline, pipeline, durable)?;
                } else if rest.is_empty() {
                    self.forget(object.pipeline).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes a view that the catalog no longer has out of wherever it runs or rests.
    async fn stop_view(&self, object: &Object) -> Result<()> {
        let name = object.definition.name();
        self.forget_replacing(name, None);
        self.replaced.write().remove(name);
        let waiting = self.catching_up.write().remove(name);
        let resting = self.paused.write().remove(name).map(|resting| resting.board);
        self.broken.write().remove(name);
        for board in waiting.map(|w| w.board).into_iter().chain(resting) {
            if let Some(view) = board.current().views.get(name) {
                view.changes.end(format!("view {name} was dropped"));
            }
        }
        let driver = self.driver_of(name);
        if let Some(driver) = driver {
            // It may have been replaced just now.
            for id in std::iter::once(object.id).chain(object.replacement.as_ref().map(|replacement| replacement.id)) {
                driver.detach(name, id, &format!("view {name} was dropped")).await?;
            }
        }
        // What a pause has left, long ago or just now.
        self.checkpoints.remove(&resting_place(object.id)).await?;
        let pipelines: BTreeSet<u64> =
            object.all_reads().flat_map(|read| self.sources_below(read)).filter_map(|s| Some(self.catalog.get(&s)?.pipeline)).collect();
        for id in pipelines {
            let sources: Vec<String> = self.catalog.sources_of_pipeline(id).iter().map(|o| o.definition.name().to_string()).collect();
            if sources.iter().any(|source| self.has_views(source)) {
                continue;
            }
            let mut drivers: Vec<Arc<Driver>> = sources.iter().filter_map(|source| self.pipelines.write().remove(source)).collect();
            if let Some(driver) = drivers.pop() {
                driver.stop(false).await?;
                self.forget(id).await?;
            }
            // Each may be read alone again.
            if sources.len() > 1 {
                self.catalog.disperse(id)?;
            }
        }
        Ok(())
    }

    fn has_views(&self, source: &str) -> bool {
        self.catalog.dependents(source).iter().any(|name| matches!(self.catalog.get(name), Some(Object { definition: Definition::View(_), .. })))
    }

    fn folder(&self, source_id: u64) -> PathBuf {
        self.config.data_dir.join("pipelines").join(source_id.to_string())
    }

    /// Removes all that a pipeline has written.
    async fn forget(&self, source_id: u64) -> Result<()> {
        self.checkpoints.remove(&source_id.to_string()).await?;
        let folder = self.folder(source_id);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::External(format!("{} could not be removed: {error}", folder.display()))),
            _ => Ok(()),
        }
    }

    /// Starts the pipelines of all sources that views read.
    async fn resume(self: &Arc<Self>) -> Result<()> {
        for object in self.catalog.list() {
            if let Definition::Source(def) = &object.definition
                && self.has_views(&def.name)
                && self.pipeline(&def.name).is_none()
            {
                // One that can't start must not keep the others from it.
                if let Err(error) = self.start_pipeline(&def.name).await {
                    tracing::error!(source = def.name, "its views stand still: {error}");
                    self.broken.write().insert(def.name.clone(), error.to_string());
                }
            }
        }
        Ok(())
    }

    /// Starts the pipeline of a source from its newest checkpoint, if there is one, with all of its sources and their views.
    async fn start_pipeline(self: &Arc<Self>, source: &str) -> Result<()> {
        let Some(Object { pipeline: id, .. }) = self.catalog.get(source) else {
            return Err(Error::NotFound(format!("there is no source {source}")));
        };
        let sources = self.catalog.sources_of_pipeline(id);
        let defs: Vec<(Arc<SourceDef>, u64)> = sources
            .iter()
            .filter_map(|object| match &object.definition {
                Definition::Source(def) => Some((def.clone(), object.id)),
                _ => None,
            })
            .collect();
        let mut pipeline = Pipeline::new(defs.clone(), Arc::default(), self.config.threads)?.within(self.memory.clone()).on(self.config.device);
        let (checkpoints, newest) = open_durable(self.checkpoints.clone(), &id.to_string()).await?;
        let (log, greatest) = EpochLog::open(self.folder(id).join("epochs"), newest.as_ref().map(|restored| restored.epoch))?;
        pipeline.skip_to(greatest);
        let known = |restored: &Restored, source: u64| !restored.meta["sources"][source.to_string()].is_null();
        let mut restored = vec![];
        // Sources that it has not read yet stand where they stood alone.
        for (_, other) in defs.iter().filter(|(_, other)| *other != id && !newest.as_ref().is_some_and(|newest| known(newest, *other))) {
            if let (_, Some(of_other)) = open_durable(self.checkpoints.clone(), &other.to_string()).await? {
                let (_, greatest) = EpochLog::open(self.folder(*other).join("epochs"), Some(of_other.epoch))?;
                pipeline.skip_to(greatest);
                restored.push(of_other);
            }
        }
        restored.extend(newest);
        for restored in &mut restored {
            pipeline.restore(restored)?;
        }
        pipeline.retain_outboxes(|sink| self.is_sink(sink));
        let mut names: Vec<String> = sources.iter().flat_map(|object| self.catalog.dependents(object.definition.name())).collect();
        names.sort();
        names.dedup();
        // A definition that a checkpoint holds has taken its place.
        for object in names.iter().filter_map(|name| self.catalog.get(name)) {
            if let Some(replacement) = &object.replacement
                && restored.iter().any(|restored| !restored.meta["views"][replacement.id.to_string()].is_null())
            {
                self.catalog.end_replacement(object.definition.name(), replacement.id, true)?;
            }
        }
        let (mut behind, mut unfinished) = (vec![], vec![]);
        for name in names {
            let Some(object) = self.catalog.get(&name) else { continue };
            let Definition::View(view) = object.definition.clone() else { continue };
            if object.replacement.is_some() {
                unfinished.push(name.clone());
            }
            let plan = Arc::new(self.plan_view(&view, Some(object.id)).await?);
            if object.paused {
                // One that can't be read back must not keep the others from it.
                match self.rest(&view, object.id, &plan, &self.readings(&plan, Some(object.id))).await {
                    Ok(board) => _ = self.paused.write().insert(name, Resting { board, stuck: object.paused_because.clone() }),
                    Err(error) => {
                        tracing::error!(view = name, "a paused view can't be read: {error}");
                        self.broken.write().insert(name, error.to_string());
                    }
                }
                continue;
            }
            let readings = self.readings(&plan, Some(object.id));
            let start = readings.iter().map(|reading| (reading.def.name.clone(), reading.start.clone())).collect();
            let own: Vec<&SourceDef> = readings.iter().map(|reading| reading.seen.as_ref()).collect();
            let mut runtime = ViewRuntime::new(view.clone(), object.id, plan.clone(), &own, start, pipeline.epoch())?;
            let mut found = restored.is_empty();
            for restored in &mut restored {
                found = found || runtime.restore(restored)?;
            }
            runtime.outboxes.retain(|outbox| self.is_sink(outbox.sink));
            // One that has them needs the files no more.
            let tables = if runtime.waits_for_tables { plan.table_rows().await? } else { Tables::default() };
            if found || readings.is_empty() {
                pipeline.attach(runtime.with_tables(tables))?;
            } else {
                behind.push((view, object.id, plan, tables));
            }
        }
        self.drive(id, pipeline, Durable { checkpoints, log })?;
        if restored.len() > 1 {
            self.forget_others(id).await?;
        }
        for (view, id, plan, tables) in behind {
            // At start nobody waits for it.
            drop(self.catch_up(view, id, plan, tables, None, None)?);
        }
        for name in unfinished {
            let engine = self.clone();
            tokio::spawn(async move { engine.replace_again(&name).await });
        }
        Ok(())
    }

    /// Reads a paused view back, and shows it where it stands.
    async fn rest(&self, view: &Arc<ViewDef>, id: u64, plan: &Arc<ViewPlan>, readings: &[Reading]) -> Result<Arc<Board>> {
        let blank = blank(readings, view, id, plan, &self.config, &self.memory)?;
        let rested = wake(&self.checkpoints, blank, &|sink| self.is_sink(sink)).await?;
        let pipeline = rested.map_err(|_| Error::External(format!("the state of the paused view {} is not at {}", view.name, self.checkpoints.place())))?;
        pipeline.publish();
        Ok(pipeline.board().clone())
    }

    /// `PAUSE VIEW`: the view leaves its pipeline, is made durable on its own, and stands still until it is resumed.
    pub(super) async fn pause_view(self: &Arc<Self>, caller: &Caller, name: &str) -> Result<()> {
        self.pause(Some(caller), name, None, None).await
    }

    /// Pauses a view, the one of this number if one is given; `because`, if not since somebody wished it.
    pub(super) async fn pause(self: &Arc<Self>, caller: Option<&Caller>, name: &str, id: Option<u64>, because: Option<&str>) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        let object = self.continuous(caller, name)?;
        if object.paused || id.is_some_and(|id| id != object.id) {
            return Ok(());
        }
        if object.replacement.is_some() {
            return Err(Error::Invalid(format!("view {name} is being replaced: pause it when SHOW VIEWS says that it was")));
        }
        if self.catching_up.read().contains_key(name) {
            return Err(Error::Invalid(format!("view {name} is still catching up: pause it when it has joined its pipeline, SHOW VIEWS tells")));
        }
        let driver = self.driver_of(name);
        let driver = driver.ok_or_else(|| Error::External(format!("view {name} is not running: SHOW VIEWS says why")))?;
        if let Some(failure) = self.failure_in(name) {
            return Err(Error::Invalid(format!("view {name} stands still already, it failed in epoch {}: {}", failure.epoch, failure.reason)));
        }
        let Definition::View(def) = &object.definition else { return Ok(()) };
        let plan = self.plan_view(def, Some(object.id)).await?;
        // The server itself pauses what holds too much, whatever reads it.
        if let Some(sink) = self.sinks_of(name).first().filter(|_| caller.is_some() && !self.views_read(&plan).is_empty()) {
            return Err(Error::Invalid(format!(
                "view {name} can't be paused: it reads views, so it would begin anew when it is resumed, and sink {sink} would write everything again; DROP SINK {sink} first"
            )));
        }
        if let Some(reader) = self.running_readers(name).first() {
            return Err(Error::Invalid(match caller.is_none_or(|caller| self.sees_name(&caller.who, reader)) {
                true => format!("view {name} can't be paused, since view {reader} reads it: PAUSE VIEW {reader} first"),
                false => format!("view {name} can't be paused, since another one's view reads it: ask an admin"),
            }));
        }
        let (stored, waiting) = oneshot::channel();
        let apart = driver.pause(name, object.id, waiting).await?;
        let board = apart.board().clone();
        self.paused.write().insert(name.into(), Resting { board, stuck: because.map(String::from) });
        let image = apart.image();
        let written = async {
            let mut store = CheckpointStore::new(self.checkpoints.clone(), &resting_place(object.id))?;
            // An earlier pause may have left something: it is not read, but this one goes above it.
            store.newest().await?;
            let mut image = image?;
            // A restart reads this only once the catalog says so: until then sinks are given nothing of it.
            let sealed = std::mem::take(&mut image.sealed);
            match store.write(image).await? {
                Written::Done { .. } => {
                    self.catalog.set_paused(name, true, because)?;
                    sealed.into_iter().for_each(|(outbox, sealed)| outbox.durable(sealed));
                    Ok(())
                }
                Written::Fenced(sentence) => Err(Error::External(sentence)),
            }
        };
        let written = written.await;
        if let Err(error) = written {
            self.paused.write().remove(name);
            if self.views_read(&plan).is_empty() {
                // It goes on where it was, with what came meanwhile.
                let readings = self.readings(&plan, Some(object.id));
                let stretches = readings.iter().map(|reading| Advance::new(reading, &self.config, Arc::default())).collect();
                driver.join(apart, last_stretch(stretches)).await?;
            } else {
                self.start_view(def.clone(), object.id, Arc::new(plan), driver).await?;
            }
            return Err(Error::External(format!("view {} was not paused and goes on: {error}", def.name)));
        }
        // Checkpoints may go on without the view. The driver may have gone.
        let _ = stored.send(());
        Ok(())
    }

    /// The continuous views that read a view, themselves or through others, and run; those that none of the others reads first.
    pub(super) fn running_readers(&self, name: &str) -> Vec<String> {
        let runs = |name: &String| {
            let object = self.catalog.get(name);
            object.is_some_and(|object| matches!(object.definition, Definition::View(_)) && !object.paused) && self.failure_in(name).is_none()
        };
        self.catalog.dependents(name).into_iter().rev().filter(runs).collect()
    }

    /// `RESUME VIEW`: the view reads what it has missed, from where it stands, and joins its pipeline again. What views that it reads have given
    /// meanwhile is not kept: one that reads views is computed anew from what those hold.
    pub(super) async fn resume_view(self: &Arc<Self>, caller: &Caller, name: &str) -> Result<()> {
        let tried = {
            let _declaring = self.declaring.lock().await;
            let object = self.continuous(Some(caller), name)?;
            if !object.paused {
                return Ok(());
            }
            let Definition::View(def) = &object.definition else { return Ok(()) };
            let plan = Arc::new(self.plan_view(def, Some(object.id)).await?);
            self.check_views_read(def, &plan)?;
            // One pipeline reads all of them since the view was made.
            let mut driver = None;
            for source in self.sources_of(&plan) {
                let running = self.pipeline(&source);
                driver = Some(running.ok_or_else(|| Error::External(format!("the pipeline of {source} does not run: SHOW SOURCES says why")))?);
            }
            let board = self.paused.read().get(name).map(|resting| resting.board.clone());
            let board = board.ok_or_else(|| {
                Error::External(format!("view {name} can't be resumed: {}", self.broken(name).unwrap_or_else(|| "its state could not be read".into())))
            })?;
            let reads_views = !self.views_read(&plan).is_empty();
            // What was read of tables is in its state, where that is used.
            let tables = if reads_views { plan.table_rows().await? } else { Tables::default() };
            if let Some(driver) = driver.as_ref().filter(|_| !self.sinks_of(name).is_empty()) {
                // The pipeline's newest checkpoint may still have the view as it was before, and with it rows that its sinks have written since.
                driver.checkpoint().await?;
            }
            self.catalog.set_paused(name, false, None)?;
            if let Some(driver) = driver.filter(|_| reads_views && self.readings(&plan, Some(object.id)).is_empty()) {
                // What the views that it reads hold is all that there is to catch up with.
                self.paused.write().remove(name);
                if let Some(view) = board.current().views.get(name) {
                    view.changes.end(format!("view {name} was resumed and is computed anew: subscribe again"));
                }
                self.attach_view(def.clone(), object.id, plan, tables, &driver).await?;
                self.forget_rest(&driver, name, object.id).await;
                return Ok(());
            }
            let tried = self.catch_up(def.clone(), object.id, plan, tables, Some(board), None)?;
            self.paused.write().remove(name);
            tried
        };
        // As with CREATE: neither a broker that is down nor much to read keeps the statement.
        match tokio::time::timeout(JOIN_WAIT, tried).await {
            Ok(Ok(Tried::Stuck(reason))) => Err(Error::External(format!("view {name} can't be resumed and stays paused: {reason}"))),
            _ => Ok(()),
        }
    }

    /// Removes what a pause has left of a view that runs again, once a checkpoint of its pipeline holds it.
    pub(super) async fn forget_rest(&self, driver: &Driver, name: &str, id: u64) {
        let removed = async {
            driver.checkpoint().await?;
            self.checkpoints.remove(&resting_place(id)).await
        };
        if let Err(error) = removed.await {
            tracing::warn!(view = name, "what its pause has left stays for now: {error}");
        }
    }

    /// A view that can't go on from where it was paused is paused again.
    async fn pause_again(self: &Arc<Self>, behind: &Behind, reason: &str) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        let name = &behind.def.name;
        let board = self.rest(&behind.def, behind.id, &behind.plan, &behind.readings).await?;
        let mut catching_up = self.catching_up.write();
        // It may have been dropped.
        let Some(waiting) = catching_up.get(name).filter(|waiting| waiting.id == behind.id) else { return Ok(()) };
        self.catalog.set_paused(name, true, Some(reason))?;
        for view in waiting.board.current().views.values() {
            view.changes.end(format!("view {name} is paused again: {reason}"));
        }
        self.paused.write().insert(name.clone(), Resting { board, stuck: Some(reason.into()) });
        catching_up.remove(name);
        Ok(())
    }

    /// A continuous view, to be paused or to go on; `None`: by the server itself.
    fn continuous(&self, caller: Option<&Caller>, name: &str) -> Result<Object> {
        let object = match caller {
            Some(caller) => self.changeable(caller, name)?,
            None => self.catalog.get(name),
        };
        match object {
            Some(object) if matches!(object.definition, Definition::View(_)) => Ok(object),
            Some(object) => Err(Error::Invalid(format!("{name} is a {}: only a continuous view can be paused", object.definition.kind()))),
            None => Err(Error::NotFound(format!("there is no view {name}"))),
        }
    }

    /// A pipeline of its own for a subscription; nothing of it outlives the subscription.
    pub(super) fn start_private(&self, name: &str, plan: ViewPlan, tables: Tables, options: ViewOptions) -> Result<(Arc<Driver>, Follower)> {
        let readings = self.readings(&plan, None);
        let board = Arc::new(Board::default());
        let mut pipeline =
            Pipeline::new(readings.iter().map(|r| (r.def.clone(), r.id)).collect(), board.clone(), 1)?.within(self.memory.clone()).on(self.config.device);
        let def = ViewDef { name: name.into(), query: String::new(), emit: Some(plan.emit), options, text: String::new() };
        let starts: BTreeMap<_, _> = readings.iter().map(|r| (r.def.name.clone(), r.start.clone())).collect();
        let sources: Vec<Arc<SourceDef>> = readings.iter().map(|r| r.def.clone()).collect();
        let own: Vec<&SourceDef> = sources.iter().map(Arc::as_ref).collect();
        let view = ViewRuntime::new(Arc::new(def), 0, Arc::new(plan), &own, starts.clone(), 0)?.without_contents().with_tables(tables);
        // Before the first epoch, so that none is missed.
        let follower = view.changes.follow();
        pipeline.attach(view)?;
        let driver = Driver::start(Drive {
            name,
            pipeline,
            sources: &sources,
            start: starts,
            board,
            // Small epochs: a client takes them one by one, and may be slow.
            settings: DriverSettings { max_epoch_bytes: self.config.max_epoch_bytes.min(4 << 20), ..self.config.driver_settings() },
            durable: None,
            open: &self.open,
            over_budget: None,
            handle: self.handle.clone(),
        })?;
        Ok((Arc::new(driver), follower))
    }

    /// Lets a new view read what its pipeline has read already, on a thread of its own, and then join it. A try that fails (a broker
    /// that is down) is made again; a view that can't go on from where it was paused is paused again. What became of the first try is told.
    /// `shown`: where the view is to be seen until then, if it stands somewhere already.
    /// `replaces`: it is to take the place of the view of its name, whose state can't be kept for this reason.
    pub(super) fn catch_up(
        self: &Arc<Self>,
        def: Arc<ViewDef>,
        id: u64,
        plan: Arc<ViewPlan>,
        tables: Tables,
        shown: Option<Arc<Board>>,
        replaces: Option<String>,
    ) -> Result<oneshot::Receiver<Tried>> {
        let begin = Arc::default();
        let behind = Behind {
            def: def.clone(),
            id,
            readings: self.readings(&plan, Some(id)),
            plan,
            tables,
            engine: Arc::downgrade(self),
            config: self.config.clone(),
            handle: self.handle.clone(),
            checkpoints: self.checkpoints.clone(),
            memory: self.memory.clone(),
            begin: Arc::clone(&begin),
            replaces,
        };
        let board = shown.map_or_else(|| behind.blank().map(|blank| blank.pipeline_board()), Ok)?;
        self.waiting(&behind).write().insert(def.name.clone(), CatchingUp { board, trouble: None, id, begin });
        let engine = Arc::downgrade(self);
        let (ended, tried) = oneshot::channel();
        let mut ended = Some(ended);
        std::thread::Builder::new()
            .name(format!("catch up {}", def.name))
            .spawn(move || {
                let wanted = || engine.upgrade().is_some_and(|engine| engine.waiting(&behind).read().get(&behind.def.name).is_some_and(|w| w.id == behind.id));
                let mut pause = Duration::from_millis(500);
                while wanted() {
                    let publish = |board: Arc<Board>| {
                        if let Some(engine) = engine.upgrade()
                            && let Some(waiting) = engine.waiting(&behind).write().get_mut(&behind.def.name).filter(|w| w.id == behind.id)
                        {
                            let old = std::mem::replace(&mut waiting.board, board);
                            for view in old.current().views.values() {
                                view.changes.end(format!("view {} catches up anew: subscribe again", behind.def.name));
                            }
                        }
                    };
                    let mut attempt = behind.attempt(&publish, &wanted);
                    if let Ok(Tried::Stuck(reason)) = &attempt
                        && let Some(engine) = engine.upgrade()
                    {
                        tracing::error!(view = behind.def.name, "not resumed: {reason}");
                        if let Err(error) = behind.handle.block_on(engine.pause_again(&behind, reason)) {
                            attempt = Err(error);
                        }
                    }
                    if let Some(ended) = ended.take() {
                        // Whoever waited may have gone.
                        let _ = ended.send(attempt.as_ref().map_or(Tried::Later, Clone::clone));
                    }
                    match attempt {
                        Ok(Tried::Stuck(_) | Tried::Refused(_)) => break,
                        Ok(_) if behind.replaces.is_some() => break,
                        Ok(_) => {
                            // Dropped while it joined: it must not stay.
                            if !wanted() {
                                let reason = format!("view {} was dropped", behind.def.name);
                                let detached = behind.driver().and_then(|driver| behind.handle.block_on(driver.detach(&behind.def.name, behind.id, &reason)));
                                if let Err(error) = detached {
                                    tracing::debug!("a dropped view's pipeline has gone: {error}");
                                }
                            }
                            break;
                        }
                        Err(error) => {
                            tracing::warn!(view = behind.def.name, "not caught up yet: {error}");
                            if let Some(engine) = engine.upgrade()
                                && let Some(waiting) = engine.waiting(&behind).write().get_mut(&behind.def.name).filter(|w| w.id == behind.id)
                            {
                                waiting.trouble = Some(error.to_string());
                            }
                            std::thread::sleep(pause);
                            pause = (pause * 2).min(Duration::from_secs(5));
                        }
                    }
                }
                if let Some(engine) = engine.upgrade() {
                    let mut catching_up = engine.waiting(&behind).write();
                    if catching_up.get(&behind.def.name).is_some_and(|w| w.id == behind.id) {
                        catching_up.remove(&behind.def.name);
                    }
                }
            })
            .map_err(|e| Error::External(format!("no thread for view {} to catch up: {e}", def.name)))?;
        Ok(tried)
    }
}

impl Engine {
    /// Where a view that catches up is noted.
    fn waiting(&self, behind: &Behind) -> &RwLock<BTreeMap<String, CatchingUp>> {
        if behind.replaces.is_some() { &self.replacing } else { &self.catching_up }
    }

    /// Why a view in its pipeline stands still, if it does.
    pub(super) fn failure_in(&self, view: &str) -> Option<Failure> {
        self.driver_of(view)?.board().current().views.get(view)?.failure.clone()
    }

    /// The pipeline that a view runs in.
    pub(super) fn driver_of(&self, view: &str) -> Option<Arc<Driver>> {
        self.pipelines.read().values().find(|d| d.board().current().views.contains_key(view)).cloned()
    }
}

pub(super) fn not_replaced(object: &Object, wanted: &str) -> Error {
    Error::AlreadyExists(format!("{} is a {} and no {wanted}: drop it first", object.definition.name(), object.definition.kind()))
}

/// Makes a data directory its own user's alone and takes it for this process, as long as the file is open; `None`: another process has it.
pub fn lock_folder(folder: &Path) -> Result<Option<File>> {
    let failed = |e: std::io::Error| Error::External(format!("the data directory {} can't be used: {e}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    // Statements may hold passwords of brokers: nobody else's business.
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(failed)?;
    let lock = File::options().create(true).write(true).truncate(false).open(folder.join("LOCK")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Opens where checkpoints live. A data directory remembers the place: with another one its views would silently begin anew.
async fn open_checkpoints(config: &EngineConfig) -> Result<CheckpointRoot> {
    let own = config.data_dir.join("pipelines");
    let note = config.data_dir.join("checkpoints.at");
    let failed = |e: std::io::Error| Error::External(format!("{} can't be used: {e}", note.display()));
    let wanted = config.checkpoint_url.as_deref().map_or("", |url| url.trim_end_matches('/'));
    let noted = match std::fs::read_to_string(&note) {
        Ok(text) => text.trim().to_string(),
        // Nothing noted: below the data directory, or nowhere yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !own.exists() => wanted.to_string(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    if noted != wanted {
        let place = |url: &str| if url.is_empty() { own.display().to_string() } else { url.to_string() };
        return Err(Error::Invalid(format!(
            "the checkpoints of {} are at {}, but the server was told {}: start it with the first, or copy everything there to the second and then write '{wanted}' into {}",
            config.data_dir.display(),
            place(&noted),
            place(wanted),
            note.display()
        )));
    }
    let root = match &config.checkpoint_url {
        Some(url) => CheckpointRoot::at(url).await?,
        None => CheckpointRoot::local(own).await?,
    };
    std::fs::write(&note, wanted).map_err(failed)?;
    Ok(root)
}

/// The name of a source or view that a query refers to; tables of schema `system` are neither.
pub(super) fn object_name(reference: &TableReference) -> Option<&str> {
    match reference.schema() {
        Some(SYSTEM | "information_schema") => None,
        _ => Some(reference.table()),
    }
}

/// `events$errors` belongs to `events`.
pub(super) fn base_name(table: &str) -> &str {
    ["$errors", "$late", "$versions"].iter().find_map(|suffix| table.strip_suffix(suffix)).unwrap_or(table)
}

/// Waits for what a pipeline will do, though not for ever.
async fn until(done: impl Fn() -> bool) {
    let latest = std::time::Instant::now() + JOIN_WAIT;
    while !done() && std::time::Instant::now() < latest {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Runs something that waits on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Internal(format!("a worker panicked: {e}")))
}

fn base_state(config: &EngineConfig, memory: &Arc<dyn MemoryPool>) -> Result<SessionState> {
    let mut session = SessionConfig::new()
        .with_target_partitions(config.threads)
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema("tidegate", "public");
    session.options_mut().sql_parser.dialect = datafusion::config::Dialect::Generic;
    let spill = config.data_dir.join("spill");
    // What a crash has left of queries is of no use.
    if spill.exists() {
        std::fs::remove_dir_all(&spill).map_err(|e| Error::External(format!("{} can't be removed: {e}", spill.display())))?;
    }
    std::fs::create_dir_all(&spill).map_err(|e| Error::External(format!("{} can't be made: {e}", spill.display())))?;
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![spill])).with_max_temp_directory_size(config.statements.spill as u64);
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(memory.clone()).with_disk_manager_builder(disk).build_arc()?;
    let mut state = SessionStateBuilder::new().with_config(session).with_runtime_env(runtime).with_default_features().build();
    tidegate_udfs::register(&mut state)?;
    super::bounded::register(&mut state)?;
    Ok(state)
}
