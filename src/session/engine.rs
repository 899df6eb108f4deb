//! The server's core: the catalog, the running pipelines, and what sessions share.
//!
//! Each source that a view reads has one pipeline, which consumes and decodes the topic once for all of its views. A view that is
//! created later first catches up in a private pipeline and then joins, between two epochs, at just the offsets of the others.

use std::{collections::BTreeMap, fs::File, path::PathBuf, sync::Arc, time::Duration};

use datafusion::{
    common::TableReference,
    execution::{SessionState, SessionStateBuilder},
    prelude::SessionConfig,
    sql::parser::Statement,
};
use parking_lot::{Mutex, RwLock};
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    names::{Names, Purpose},
    queries::Queries,
    system::{SYSTEM, Setting},
};
use crate::{
    catalog::{Catalog, DataLoss, Definition, Object, PlainViewDef, SourceDef, Startup, ViewDef, ViewOptions},
    decode::Decoder,
    error::{Error, Result},
    source::{
        Feed, RecordsBuilder, Slice,
        kafka::{KafkaReader, Loss, Pace, Partitions, ScanRange, describe, partitions_of, ranges_of, resolve_start, scan},
    },
    sql,
    stream::{
        changes::{ChangeLog, Follower},
        checkpoint::{CheckpointRoot, CheckpointStore, Written},
        driver::{CatchUp, Drive, Driver, DriverSettings, Durable, OpenFeed, now_ms, open_durable},
        epoch_log::EpochLog,
        pipeline::{EpochCut, Pipeline},
        plan::{ViewPlan, plan_view, planning_state},
        published::Board,
        view::ViewRuntime,
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
    /// Settings of the programme around the engine, for `system.settings`.
    pub around: Vec<Setting>,
}

impl EngineConfig {
    /// The defaults, over a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            allowed_paths: vec![],
            min_epoch_interval: Duration::from_millis(5),
            max_epoch_bytes: 64 << 20,
            max_epoch_rows: 1 << 20,
            checkpoint_interval: Duration::from_secs(10),
            checkpoint_url: None,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
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
    /// Where it began to read, by partition, once that is known.
    begin: Arc<Mutex<BTreeMap<i32, i64>>>,
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
    catalog: Catalog,
    /// The pipeline of each source that a view reads.
    pipelines: RwLock<BTreeMap<String, Arc<Driver>>>,
    /// Views that have not joined their pipeline yet, where they publish meanwhile.
    catching_up: RwLock<BTreeMap<String, CatchingUp>>,
    /// Paused views, where they stand.
    paused: RwLock<BTreeMap<String, Resting>>,
    /// Where checkpoints live.
    checkpoints: Arc<CheckpointRoot>,
    /// Sources whose pipeline could not be started, paused views that could not be read back, and why.
    broken: RwLock<BTreeMap<String, String>>,
    /// Statements that run.
    pub(super) queries: Arc<Queries>,
    /// Declarations change one at a time.
    declaring: tokio::sync::Mutex<()>,
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
    /// Opens the data directory, restores every view from its newest checkpoint and starts the pipelines.
    pub async fn start(config: EngineConfig) -> Result<Arc<Self>> {
        let folder = config.data_dir.clone();
        let failed = |e: std::io::Error| Error::External(format!("the data directory {} can't be used: {e}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(failed)?;
        // Statements may hold passwords of brokers: nobody else's business.
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(failed)?;
        let lock = File::options().create(true).write(true).truncate(false).open(folder.join("LOCK")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(Error::External(format!(
                    "the data directory {} is in use by another tidegate process: stop that one, or give this one another --data-dir",
                    folder.display()
                )));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let catalog = Catalog::open(&folder, &sql::parse_definition)?;
        let checkpoints = Arc::new(open_checkpoints(&config).await?);
        let open: OpenFeed = Arc::new(|source, from, input| Ok(Box::new(KafkaReader::start(source, from, input)?) as Box<dyn Feed>));
        let engine = Arc::new(Self {
            base: base_state(&config)?,
            catalog,
            pipelines: RwLock::default(),
            catching_up: RwLock::default(),
            paused: RwLock::default(),
            checkpoints,
            broken: RwLock::default(),
            queries: Arc::default(),
            declaring: tokio::sync::Mutex::new(()),
            handle: Handle::current(),
            open,
            _lock: lock,
            config,
        });
        engine.resume().await?;
        Ok(engine)
    }

    /// A new session for one client.
    pub fn session(self: &Arc<Self>) -> super::Session {
        super::Session::new(self.clone())
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
        let drivers = std::mem::take(&mut *self.pipelines.write());
        let mut result = Ok(());
        for driver in drivers.into_values() {
            result = result.and(driver.stop(true).await);
        }
        result
    }

    /// The functions and settings that every statement starts from.
    pub(super) fn base_state(&self) -> &SessionState {
        &self.base
    }

    /// The session state for one statement: every name in it resolves to the same epoch, which may be given.
    pub(super) fn query_state(self: &Arc<Self>, statement: &Statement, as_of: Option<u64>) -> SessionState {
        Names::state_for(self.clone(), Purpose::query(as_of), statement)
    }

    /// The pipeline that consumes a source, if a view reads it.
    pub(super) fn pipeline(&self, source: &str) -> Option<Arc<Driver>> {
        self.pipelines.read().get(source).cloned()
    }

    /// All pipelines that run, by name.
    pub(super) fn running_pipelines(&self) -> BTreeMap<String, Arc<Driver>> {
        self.pipelines.read().clone()
    }

    /// Sources whose pipeline could not be started, and why.
    pub(super) fn broken_sources(&self) -> BTreeMap<String, String> {
        self.broken.read().clone()
    }

    /// The declaration of a source.
    pub(super) fn source_def(&self, name: &str) -> Option<Arc<SourceDef>> {
        match self.catalog.get(name)?.definition {
            Definition::Source(def) => Some(def),
            Definition::View(_) | Definition::PlainView(_) => None,
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
        let source = self.sources_below(view).into_iter().next()?;
        let upto = self.pipeline(&source)?.board().current().sources.get(&source)?.offsets.clone();
        let at = waiting.board.current().sources.get(&source)?.offsets.clone();
        let begin = waiting.begin.lock();
        let passed = |to: &BTreeMap<i32, i64>| begin.iter().map(|(partition, from)| (to.get(partition).unwrap_or(from) - from).max(0)).sum::<i64>();
        (!begin.is_empty()).then(|| (passed(&at), passed(&upto)))
    }

    /// Why a source's pipeline could not be started.
    pub(super) fn broken(&self, source: &str) -> Option<String> {
        self.broken.read().get(source).cloned()
    }

    /// The sources that an object reads, directly or through plain views.
    pub(super) fn sources_below(&self, name: &str) -> Vec<String> {
        match self.catalog.get(name) {
            Some(Object { definition: Definition::Source(def), .. }) => vec![def.name.clone()],
            Some(object) => object.reads.iter().flat_map(|read| self.sources_below(read)).collect(),
            None => vec![],
        }
    }

    /// Plans a continuous view; `id` is its number, if it is made already.
    pub(super) async fn plan_view(self: &Arc<Self>, def: &ViewDef, id: Option<u64>) -> Result<ViewPlan> {
        let state = planning_state(&Names::state(self.clone(), Purpose::Stream(id)));
        plan_view(&state, sql::parse_query(&def.query)?, def.emit, &def.options).await
    }

    /// A source as the view of this number sees it: without columns that were added later.
    fn seen_by(&self, source: &Arc<SourceDef>, view: u64) -> Arc<SourceDef> {
        self.catalog.get(&source.name).and_then(|object| object.source_seen_by(view)).unwrap_or_else(|| source.clone())
    }

    /// The one source that a view reads.
    pub(super) fn source_of(&self, plan: &ViewPlan) -> Result<(Arc<SourceDef>, u64)> {
        let mut names = plan.inputs.keys();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(Error::Unsupported(
                "a continuous view over several sources is not supported yet: make a view on each, and join or unite them when reading".into(),
            ));
        };
        match self.catalog.get(name) {
            Some(Object { id, definition: Definition::Source(def), .. }) => Ok((def, id)),
            _ => Err(Error::NotFound(format!("there is no source {name}"))),
        }
    }

    /// Declares a source.
    pub(super) async fn create_source(&self, def: SourceDef, if_not_exists: bool) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        if self.is_taken(&def.name, if_not_exists)? {
            return Ok(());
        }
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
        self.catalog.create(Definition::Source(Arc::new(def)), vec![], start)?;
        Ok(())
    }

    /// Adds a column to a source: for what is declared from now on. Views that are there keep their columns; all records that are read from
    /// now on are judged by it, too.
    pub(super) async fn add_column(&self, name: &str, column: &str, declaration: &str, if_not_exists: bool) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        let def = match self.catalog.get(name) {
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
        let Definition::Source(altered) = sql::parse_definition(&sql::with_column(&def.text, declaration)?)? else {
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
    pub(super) async fn create_plain_view(self: &Arc<Self>, def: PlainViewDef, if_not_exists: bool, or_replace: bool) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        match self.catalog.get(&def.name) {
            Some(Object { definition: Definition::PlainView(_), .. }) if or_replace => {
                let reads = self.check_plain_view(&def).await?;
                let name = def.name.clone();
                self.catalog.replace(&name, Definition::PlainView(Arc::new(def)), reads)?;
                return Ok(());
            }
            Some(object) if or_replace => return Err(not_replaced(&object, "plain view")),
            _ => {}
        }
        if self.is_taken(&def.name, if_not_exists)? {
            return Ok(());
        }
        let reads = self.check_plain_view(&def).await?;
        self.catalog.create(Definition::PlainView(Arc::new(def)), reads, BTreeMap::new())?;
        Ok(())
    }

    async fn check_plain_view(self: &Arc<Self>, def: &PlainViewDef) -> Result<Vec<String>> {
        let statement = sql::query_statement(sql::parse_query(&def.query)?);
        let state = self.query_state(&statement, None);
        let reads = state.resolve_table_references(&statement)?.into_iter().filter_map(|r| Some(self.object_behind(object_name(&r)?))).collect::<Vec<_>>();
        if reads.contains(&def.name) {
            return Err(Error::Invalid(format!("view {} can't read itself", def.name)));
        }
        state.statement_to_plan(statement).await?;
        Ok(reads.into_iter().filter(|name| self.catalog.get(name).is_some()).collect())
    }

    /// Declares a continuous view and starts it. Where its pipeline runs already, the view usually stands at the same epoch as the
    /// others when this returns; where it has much to read, it is still catching up.
    pub(super) async fn create_view(self: &Arc<Self>, def: ViewDef, if_not_exists: bool, or_replace: bool) -> Result<()> {
        if let Some(tried) = self.declare_view(def, if_not_exists, or_replace).await? {
            // Neither a broker that is down nor a long topic keeps the statement: SHOW VIEWS tells of both.
            let _ = tokio::time::timeout(JOIN_WAIT, tried).await;
        }
        Ok(())
    }

    /// Declares and starts a view; where it catches up, what tells that its first try has ended.
    async fn declare_view(self: &Arc<Self>, def: ViewDef, if_not_exists: bool, or_replace: bool) -> Result<Option<oneshot::Receiver<Tried>>> {
        let _declaring = self.declaring.lock().await;
        let replaced = match self.catalog.get(&def.name) {
            Some(object) if or_replace && matches!(object.definition, Definition::View(_)) => Some(object),
            Some(object) if or_replace => return Err(not_replaced(&object, "continuous view")),
            _ => None,
        };
        if replaced.is_none() && self.is_taken(&def.name, if_not_exists)? {
            return Ok(None);
        }
        if let Some(late) = &def.options.late_to
            && self.late_view(late).is_none_or(|view| view.name != def.name)
        {
            self.is_taken(late, false)?;
        }
        let plan = Arc::new(self.plan_view(&def, None).await?);
        let (source, _) = self.source_of(&plan)?;
        let def = Arc::new(def);
        let mut reads = self.named_objects(&def.query)?;
        reads.push(source.name.clone());
        reads.sort();
        reads.dedup();
        let replaces = replaced.is_some();
        let id = match replaced {
            None => self.catalog.create(Definition::View(def.clone()), reads, BTreeMap::new())?,
            Some(old) => {
                // One change of the catalog: after a crash there is the old view or the new one.
                let id = self.catalog.replace(&def.name, Definition::View(def.clone()), reads)?;
                self.stop_view(&old).await?;
                id
            }
        };
        let started = match self.pipeline(&source.name) {
            Some(driver) => self.catch_up(def.clone(), id, plan, driver, None).map(Some),
            None => self.start_pipeline(&source.name).await.map(|()| None),
        };
        if started.is_err() && !replaces {
            self.catalog.drop(&def.name)?;
        }
        started
    }

    fn named_objects(&self, query: &str) -> Result<Vec<String>> {
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
    fn object_behind(&self, table: &str) -> String {
        self.late_view(table).map_or_else(|| base_name(table).to_string(), |view| view.name.clone())
    }

    fn is_taken(&self, name: &str, if_not_exists: bool) -> Result<bool> {
        if let Some(view) = self.late_view(name) {
            return Err(Error::AlreadyExists(format!("{name} is the name of the late rows of view {}: choose another one", view.name)));
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
    pub(super) async fn drop_object(&self, name: &str, cascade: bool) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        let dependents = self.catalog.dependents(name);
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
        self.catalog.drop(name)?;
        match object.definition {
            Definition::PlainView(_) => {}
            Definition::View(_) => self.stop_view(&object).await?,
            Definition::Source(_) => {
                let driver = self.pipelines.write().remove(name);
                if let Some(driver) = driver {
                    driver.stop(false).await?;
                }
                self.forget(object.id).await?;
            }
        }
        Ok(())
    }

    /// Takes a view that the catalog no longer has out of wherever it runs or rests.
    async fn stop_view(&self, object: &Object) -> Result<()> {
        let name = object.definition.name();
        let waiting = self.catching_up.write().remove(name);
        let resting = self.paused.write().remove(name).map(|resting| resting.board);
        self.broken.write().remove(name);
        for board in waiting.map(|w| w.board).into_iter().chain(resting) {
            if let Some(view) = board.current().views.get(name) {
                view.changes.end(format!("view {name} was dropped"));
            }
        }
        let driver = self.pipelines.read().iter().find(|(_, d)| d.board().current().views.contains_key(name)).map(|(_, d)| d.clone());
        if let Some(driver) = driver {
            driver.detach(name, object.id, &format!("view {name} was dropped")).await?;
        }
        // What a pause has left, long ago or just now.
        self.checkpoints.remove(&resting_place(object.id)).await?;
        let unused: Vec<String> = self.pipelines.read().keys().filter(|source| object.reads.contains(source) && !self.has_views(source)).cloned().collect();
        for source in unused {
            let driver = self.pipelines.write().remove(&source);
            if let Some(driver) = driver {
                driver.stop(false).await?;
            }
            if let Some(object) = self.catalog.get(&source) {
                self.forget(object.id).await?;
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

    /// Starts a source's pipeline from its newest checkpoint, if there is one, with all of the source's views.
    async fn start_pipeline(self: &Arc<Self>, source: &str) -> Result<()> {
        let Some(Object { id: source_id, definition: Definition::Source(def), start_offsets, .. }) = self.catalog.get(source) else {
            return Err(Error::NotFound(format!("there is no source {source}")));
        };
        let (checkpoints, mut restored) = open_durable(self.checkpoints.clone(), &source_id.to_string()).await?;
        let checkpoint = restored.as_ref().map(|restored| restored.epoch);
        let board = Arc::new(Board::default());
        let mut pipeline = Pipeline::new(vec![(def.clone(), source_id)], board.clone(), self.config.threads)?;
        if let Some(restored) = &mut restored {
            pipeline.restore(restored)?;
        }
        let (log, greatest) = EpochLog::open(self.folder(source_id).join("epochs"), checkpoint)?;
        pipeline.skip_to(greatest);
        let mut behind = vec![];
        for name in self.catalog.dependents(source) {
            let Some(Object { id, definition: Definition::View(view), paused, .. }) = self.catalog.get(&name) else { continue };
            if paused {
                // One that can't be read back must not keep the others from it.
                match self.rest(&view, id, &def, source_id).await {
                    Ok(board) => _ = self.paused.write().insert(name, Resting { board, stuck: None }),
                    Err(error) => {
                        tracing::error!(view = name, "a paused view can't be read: {error}");
                        self.broken.write().insert(name, error.to_string());
                    }
                }
                continue;
            }
            let plan = Arc::new(self.plan_view(&view, Some(id)).await?);
            let start = BTreeMap::from([(source.to_string(), start_offsets.clone())]);
            let mut runtime = ViewRuntime::new(view.clone(), id, plan.clone(), &[&self.seen_by(&def, id)], start, pipeline.epoch())?;
            let known = restored.as_mut().map(|restored| runtime.restore(restored)).transpose()?;
            if known == Some(false) {
                behind.push((view, id, plan));
            } else {
                pipeline.attach(runtime)?;
            }
        }
        let start = BTreeMap::from([(source.to_string(), start_offsets)]);
        let durable = Durable { checkpoints, log };
        let driver = Arc::new(Driver::start(Drive {
            name: source,
            pipeline,
            sources: &[def],
            start,
            board,
            settings: self.config.driver_settings(),
            durable: Some(durable),
            open: &self.open,
            handle: self.handle.clone(),
        })?);
        self.pipelines.write().insert(source.to_string(), driver.clone());
        self.broken.write().remove(source);
        for (view, id, plan) in behind {
            // At start nobody waits for it.
            drop(self.catch_up(view, id, plan, driver.clone(), None)?);
        }
        Ok(())
    }

    /// Reads a paused view back, and shows it where it stands.
    async fn rest(self: &Arc<Self>, view: &Arc<ViewDef>, id: u64, source: &Arc<SourceDef>, source_id: u64) -> Result<Arc<Board>> {
        let plan = Arc::new(self.plan_view(view, Some(id)).await?);
        let blank = blank(source, source_id, &self.seen_by(source, id), view, id, &plan, BTreeMap::new(), self.config.threads)?;
        let rested = wake(&self.checkpoints, blank).await?;
        let pipeline = rested.map_err(|_| Error::External(format!("the state of the paused view {} is not at {}", view.name, self.checkpoints.place())))?;
        pipeline.publish();
        Ok(pipeline.board().clone())
    }

    /// `PAUSE VIEW`: the view leaves its pipeline, is made durable on its own, and stands still until it is resumed.
    pub(super) async fn pause_view(self: &Arc<Self>, name: &str) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        let object = self.continuous(name)?;
        if object.paused {
            return Ok(());
        }
        if self.catching_up.read().contains_key(name) {
            return Err(Error::Invalid(format!("view {name} is still catching up: pause it when it has joined its pipeline, SHOW VIEWS tells")));
        }
        let driver = self.pipelines.read().values().find(|d| d.board().current().views.contains_key(name)).cloned();
        let driver = driver.ok_or_else(|| Error::External(format!("view {name} is not running: SHOW VIEWS says why")))?;
        if let Some(failure) = driver.board().current().views.get(name).and_then(|view| view.failure.clone()) {
            return Err(Error::Invalid(format!("view {name} stands still already, it failed in epoch {}: {}", failure.epoch, failure.reason)));
        }
        let (stored, waiting) = oneshot::channel();
        let apart = driver.pause(name, object.id, waiting).await?;
        let board = apart.board().clone();
        self.paused.write().insert(name.into(), Resting { board, stuck: None });
        let image = apart.image();
        let written = async {
            let mut store = CheckpointStore::new(self.checkpoints.clone(), &resting_place(object.id))?;
            // An earlier pause may have left something: it is not read, but this one goes above it.
            store.newest().await?;
            match store.write(image?).await? {
                Written::Done { .. } => self.catalog.set_paused(name, true),
                Written::Fenced(sentence) => Err(Error::External(sentence)),
            }
        };
        let written = written.await;
        if let Err(error) = written {
            // It goes on where it was, with what came meanwhile.
            self.paused.write().remove(name);
            let Definition::View(def) = &object.definition else { return Err(error) };
            let (source, _) = self.source_of_view(&object)?;
            let advance = Advance {
                source,
                start: BTreeMap::new(),
                max_rows: self.config.max_epoch_rows,
                max_bytes: self.config.max_epoch_bytes,
                begin: Arc::default(),
                lost: Arc::default(),
            };
            driver.join(apart, last_stretch(advance)).await?;
            return Err(Error::External(format!("view {} was not paused and goes on: {error}", def.name)));
        }
        // Checkpoints may go on without the view. The driver may have gone.
        let _ = stored.send(());
        Ok(())
    }

    /// `RESUME VIEW`: the view reads what it has missed, from where it stands, and joins its pipeline again.
    pub(super) async fn resume_view(self: &Arc<Self>, name: &str) -> Result<()> {
        let tried = {
            let _declaring = self.declaring.lock().await;
            let object = self.continuous(name)?;
            if !object.paused {
                return Ok(());
            }
            let Definition::View(def) = &object.definition else { return Ok(()) };
            let plan = Arc::new(self.plan_view(def, Some(object.id)).await?);
            let (source, _) = self.source_of(&plan)?;
            let driver =
                self.pipeline(&source.name).ok_or_else(|| Error::External(format!("the pipeline of {} does not run: SHOW SOURCES says why", source.name)))?;
            let board = self.paused.read().get(name).map(|resting| resting.board.clone());
            let board = board.ok_or_else(|| {
                Error::External(format!("view {name} can't be resumed: {}", self.broken(name).unwrap_or_else(|| "its state could not be read".into())))
            })?;
            self.catalog.set_paused(name, false)?;
            let tried = self.catch_up(def.clone(), object.id, plan, driver, Some(board))?;
            self.paused.write().remove(name);
            tried
        };
        // As with CREATE: neither a broker that is down nor much to read keeps the statement.
        match tokio::time::timeout(JOIN_WAIT, tried).await {
            Ok(Ok(Tried::Stuck(reason))) => Err(Error::External(format!("view {name} can't be resumed and stays paused: {reason}"))),
            _ => Ok(()),
        }
    }

    /// A view that can't go on from where it was paused is paused again.
    async fn pause_again(self: &Arc<Self>, behind: &Behind, reason: &str) -> Result<()> {
        let _declaring = self.declaring.lock().await;
        let name = &behind.def.name;
        let board = self.rest(&behind.def, behind.id, &behind.source, behind.source_id).await?;
        let mut catching_up = self.catching_up.write();
        // It may have been dropped.
        let Some(waiting) = catching_up.get(name).filter(|waiting| waiting.id == behind.id) else { return Ok(()) };
        self.catalog.set_paused(name, true)?;
        for view in waiting.board.current().views.values() {
            view.changes.end(format!("view {name} is paused again: {reason}"));
        }
        self.paused.write().insert(name.clone(), Resting { board, stuck: Some(reason.into()) });
        catching_up.remove(name);
        Ok(())
    }

    fn continuous(&self, name: &str) -> Result<Object> {
        match self.catalog.get(name) {
            Some(object) if matches!(object.definition, Definition::View(_)) => Ok(object),
            Some(object) => Err(Error::Invalid(format!("{name} is a {}: only a continuous view can be paused", object.definition.kind()))),
            None => Err(Error::NotFound(format!("there is no view {name}"))),
        }
    }

    fn source_of_view(&self, view: &Object) -> Result<(Arc<SourceDef>, u64)> {
        let name = self.sources_below(view.definition.name()).into_iter().next().unwrap_or_default();
        match self.catalog.get(&name) {
            Some(Object { id, definition: Definition::Source(def), .. }) => Ok((def, id)),
            _ => Err(Error::NotFound(format!("view {} has lost its source", view.definition.name()))),
        }
    }

    /// A pipeline of its own for a subscription; nothing of it outlives the subscription.
    pub(super) fn start_private(&self, name: &str, plan: ViewPlan, options: ViewOptions) -> Result<(Arc<Driver>, Follower)> {
        let (source, id) = self.source_of(&plan)?;
        let start = self.catalog.get(&source.name).map(|o| o.start_offsets).unwrap_or_default();
        let board = Arc::new(Board::default());
        let mut pipeline = Pipeline::new(vec![(source.clone(), id)], board.clone(), 1)?;
        let def = ViewDef { name: name.into(), query: String::new(), emit: Some(plan.emit), options, text: String::new() };
        let starts = BTreeMap::from([(source.name.clone(), start)]);
        let view = ViewRuntime::new(Arc::new(def), 0, Arc::new(plan), &[&source], starts.clone(), 0)?.without_contents();
        // Before the first epoch, so that none is missed.
        let follower = view.changes.follow();
        pipeline.attach(view)?;
        let driver = Driver::start(Drive {
            name,
            pipeline,
            sources: &[source],
            start: starts,
            board,
            // Small epochs: a client takes them one by one, and may be slow.
            settings: DriverSettings { max_epoch_bytes: self.config.max_epoch_bytes.min(4 << 20), ..self.config.driver_settings() },
            durable: None,
            open: &self.open,
            handle: self.handle.clone(),
        })?;
        Ok((Arc::new(driver), follower))
    }

    /// Lets a new view read what its pipeline has read already, on a thread of its own, and then join it. A try that fails (a broker
    /// that is down) is made again; a view that can't go on from where it was paused is paused again. What became of the first try is told.
    /// `shown`: where the view is to be seen until then, if it stands somewhere already.
    fn catch_up(
        self: &Arc<Self>,
        def: Arc<ViewDef>,
        id: u64,
        plan: Arc<ViewPlan>,
        driver: Arc<Driver>,
        shown: Option<Arc<Board>>,
    ) -> Result<oneshot::Receiver<Tried>> {
        let (source, source_id) = self.source_of(&plan)?;
        let start = self.catalog.get(&source.name).map(|o| o.start_offsets).unwrap_or_default();
        let begin = Arc::default();
        let behind = Behind {
            def: def.clone(),
            id,
            plan,
            seen: self.seen_by(&source, id),
            source,
            source_id,
            start,
            driver,
            config: self.config.clone(),
            handle: self.handle.clone(),
            checkpoints: self.checkpoints.clone(),
            begin: Arc::clone(&begin),
        };
        let board = shown.map_or_else(|| behind.blank().map(|blank| blank.pipeline_board()), Ok)?;
        self.catching_up.write().insert(def.name.clone(), CatchingUp { board, trouble: None, id, begin });
        let engine = Arc::downgrade(self);
        let (ended, tried) = oneshot::channel();
        let mut ended = Some(ended);
        std::thread::Builder::new()
            .name(format!("catch up {}", def.name))
            .spawn(move || {
                let wanted = || engine.upgrade().is_some_and(|engine| engine.catching_up.read().get(&behind.def.name).is_some_and(|w| w.id == behind.id));
                let mut pause = Duration::from_millis(500);
                while wanted() {
                    let publish = |board: Arc<Board>| {
                        if let Some(engine) = engine.upgrade()
                            && let Some(waiting) = engine.catching_up.write().get_mut(&behind.def.name).filter(|w| w.id == behind.id)
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
                        Ok(Tried::Stuck(_)) => break,
                        Ok(_) => {
                            // Dropped while it joined: it must not stay.
                            if !wanted() {
                                let reason = format!("view {} was dropped", behind.def.name);
                                if let Err(error) = behind.handle.block_on(behind.driver.detach(&behind.def.name, behind.id, &reason)) {
                                    tracing::debug!("a dropped view's pipeline has gone: {error}");
                                }
                            }
                            break;
                        }
                        Err(error) => {
                            tracing::warn!(view = behind.def.name, "not caught up yet: {error}");
                            if let Some(engine) = engine.upgrade()
                                && let Some(waiting) = engine.catching_up.write().get_mut(&behind.def.name).filter(|w| w.id == behind.id)
                            {
                                waiting.trouble = Some(error.to_string());
                            }
                            std::thread::sleep(pause);
                            pause = (pause * 2).min(Duration::from_secs(5));
                        }
                    }
                }
                if let Some(engine) = engine.upgrade() {
                    let mut catching_up = engine.catching_up.write();
                    if catching_up.get(&behind.def.name).is_some_and(|w| w.id == behind.id) {
                        catching_up.remove(&behind.def.name);
                    }
                }
            })
            .map_err(|e| Error::External(format!("no thread for view {} to catch up: {e}", def.name)))?;
        Ok(tried)
    }
}

/// What became of a try to catch up.
#[derive(Debug, Clone)]
enum Tried {
    /// The view has joined, or nobody wants it any more.
    Done,
    /// It is tried again.
    Later,
    /// The view can't go on from where it was paused, and why.
    Stuck(String),
}

/// A view that has to catch up with its pipeline.
struct Behind {
    def: Arc<ViewDef>,
    id: u64,
    plan: Arc<ViewPlan>,
    /// The source as the view sees it.
    seen: Arc<SourceDef>,
    source: Arc<SourceDef>,
    source_id: u64,
    start: BTreeMap<i32, i64>,
    driver: Arc<Driver>,
    config: EngineConfig,
    handle: Handle,
    checkpoints: Arc<CheckpointRoot>,
    begin: Arc<Mutex<BTreeMap<i32, i64>>>,
}

/// A private pipeline that has read nothing, and its view, not yet in it.
struct Blank {
    pipeline: Pipeline,
    view: ViewRuntime,
}

impl Blank {
    fn pipeline_board(self) -> Arc<Board> {
        let board = self.pipeline.board().clone();
        self.attached().map_or(board, |pipeline| pipeline.board().clone())
    }

    fn attached(mut self) -> Result<Pipeline> {
        self.pipeline.attach(self.view)?;
        Ok(self.pipeline)
    }
}

/// `seen` is the source as the view sees it.
#[allow(clippy::too_many_arguments)]
fn blank(
    source: &Arc<SourceDef>,
    source_id: u64,
    seen: &SourceDef,
    view: &Arc<ViewDef>,
    id: u64,
    plan: &Arc<ViewPlan>,
    start: BTreeMap<i32, i64>,
    threads: usize,
) -> Result<Blank> {
    let pipeline = Pipeline::new(vec![(source.clone(), source_id)], Arc::default(), threads)?;
    let starts = BTreeMap::from([(source.name.clone(), start)]);
    Ok(Blank { pipeline, view: ViewRuntime::new(view.clone(), id, plan.clone(), &[seen], starts, 0)? })
}

/// What a pause has left of a view, as a pipeline that stands where it was paused.
async fn wake(checkpoints: &Arc<CheckpointRoot>, blank: Blank) -> Result<std::result::Result<Pipeline, Blank>> {
    let Blank { mut pipeline, mut view } = blank;
    let mut store = CheckpointStore::new(checkpoints.clone(), &resting_place(view.id))?;
    let Some(mut restored) = store.newest().await? else { return Ok(Err(Blank { pipeline, view })) };
    pipeline.restore(&mut restored)?;
    if !view.restore(&mut restored)? {
        return Err(Error::Internal(format!("the checkpoint of the paused view {} is another one's", view.def.name)));
    }
    view.changes = Arc::new(ChangeLog::new(restored.epoch));
    pipeline.attach(view)?;
    Ok(Ok(pipeline))
}

/// Under which name a paused view's checkpoint is kept.
fn resting_place(view_id: u64) -> String {
    format!("paused-{view_id}")
}

fn not_replaced(object: &Object, wanted: &str) -> Error {
    Error::AlreadyExists(format!("{} is a {} and no {wanted}: drop it first", object.definition.name(), object.definition.kind()))
}

/// The last stretch before a view joins: just up to the others' offsets.
fn last_stretch(advance: Advance) -> CatchUp {
    Box::new(move |mut private: Pipeline, upto: BTreeMap<String, BTreeMap<i32, i64>>| {
        advance.run(&mut private, upto.get(&advance.source.name).unwrap_or(&BTreeMap::new()))?;
        Ok(private)
    })
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

impl Behind {
    fn blank(&self) -> Result<Blank> {
        blank(&self.source, self.source_id, &self.seen, &self.def, self.id, &self.plan, self.start.clone(), self.config.threads)
    }

    /// A private pipeline that stands where the view was paused, or that has read nothing; and whether it was paused.
    fn begin(&self) -> Result<(Pipeline, bool)> {
        match self.handle.block_on(wake(&self.checkpoints, self.blank()?))? {
            Ok(pipeline) => Ok((pipeline, true)),
            Err(blank) => Ok((blank.attached()?, false)),
        }
    }

    /// Why a view can't go on from where it was paused, if so: its pipeline does not go on either, or what comes next is gone.
    fn stuck(&self, private: &Pipeline) -> Result<Option<String>> {
        if let Some(reason) = self.driver.status().standstill() {
            return Ok(Some(reason));
        }
        if self.source.kafka.on_data_loss == DataLoss::Continue {
            return Ok(None);
        }
        let losses = losses_of(&private.offsets(&self.source.name), &partitions_of(&self.source.kafka)?);
        let sentence =
            |what: String| format!("{what}; drop it and create it again to start at what is there, or declare the source with 'on.data.loss' = 'continue'");
        Ok((!losses.is_empty()).then(|| sentence(describe(&self.source.kafka, &losses))))
    }

    /// Reads from the start up to where the pipeline is, and joins.
    fn attempt(&self, publish: &dyn Fn(Arc<Board>), wanted: &dyn Fn() -> bool) -> Result<Tried> {
        let (mut private, paused) = self.begin()?;
        if paused && let Some(reason) = self.stuck(&private)? {
            return Ok(Tried::Stuck(reason));
        }
        publish(private.board().clone());
        self.begin.lock().clear();
        let advance = Advance {
            source: self.source.clone(),
            start: self.start.clone(),
            max_rows: self.config.max_epoch_rows,
            max_bytes: self.config.max_epoch_bytes,
            begin: self.begin.clone(),
            lost: Arc::default(),
        };
        loop {
            let current = self.driver.board().current();
            let (upto, partitions) = current.sources.get(&self.source.name).map(|s| (s.offsets.clone(), s.partitions.clone())).unwrap_or_default();
            // All of the topic's partitions hold the watermark back from the start, as they do in the pipeline.
            private.assign(&self.source.name, partitions.into_keys());
            let read = advance.run(&mut private, &upto)?;
            if !wanted() {
                return Ok(Tried::Done);
            }
            // A pipeline that was killed after the pause reads records again that the view has in it: joining now, it would count them twice.
            if private.is_beyond(&self.source.name, &upto) {
                if let Some(reason) = self.driver.status().standstill() {
                    return Ok(Tried::Stuck(reason));
                }
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            // What came meanwhile is little enough to hold the others up for.
            if read < 20_000 {
                break;
            }
        }
        let lost = advance.lost.clone();
        self.handle.block_on(self.driver.join(private, last_stretch(advance)))?;
        self.driver.lost_behind(&self.source.name, &lost.lock());
        // The view is in the pipeline's checkpoints from here on; what a pause has left goes when one of them counts.
        if let Err(error) = self.handle.block_on(async {
            self.driver.checkpoint().await?;
            self.checkpoints.remove(&resting_place(self.id)).await
        }) {
            tracing::warn!(view = self.def.name, "what its pause has left stays for now: {error}");
        }
        Ok(Tried::Done)
    }
}

/// Runs a private pipeline on to given offsets by a bounded scan.
struct Advance {
    source: Arc<SourceDef>,
    start: BTreeMap<i32, i64>,
    max_rows: usize,
    max_bytes: usize,
    /// Where the first stretch began.
    begin: Arc<Mutex<BTreeMap<i32, i64>>>,
    /// How many offsets of each partition were deleted before they were read, where it went on.
    lost: Arc<Mutex<BTreeMap<i32, u64>>>,
}

impl Advance {
    /// Returns how many records were read.
    fn run(&self, private: &mut Pipeline, upto: &BTreeMap<i32, i64>) -> Result<usize> {
        let held = partitions_of(&self.source.kafka)?;
        // The pipeline stands where the topic has nothing: it will find that out, and then this is tried again.
        if let Some(loss) = losses_of(upto, &held).into_iter().find(|loss| loss.offsets().is_none()) {
            return Err(Error::External(format!("topic {}: {loss}", self.source.kafka.topic)));
        }
        let mut from = self.start.clone();
        let read = private.offsets(&self.source.name);
        let losses = losses_of(&read, &held);
        from.extend(read);
        from.extend(losses.iter().map(|loss| (loss.partition, loss.oldest)));
        self.judge(&losses)?;
        let ranges: BTreeMap<i32, ScanRange> = ranges_of(&held, &from, Some(upto));
        private.assign(&self.source.name, ranges.keys().copied());
        for (partition, range) in &ranges {
            self.begin.lock().entry(*partition).or_insert(range.begin);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| Error::Internal(format!("no runtime to catch up in: {e}")))?;
        // Of a partition that holds nothing any more it is known all the same where the view stands.
        let skip = |loss: &Loss| Slice { partition: loss.partition, begin: loss.oldest, end: loss.oldest, records: RecordsBuilder::new().finish() };
        let mut slices: Vec<Slice> = losses.iter().map(skip).collect();
        let (mut bytes, mut records, mut total) = (0, 0, 0);
        let mut failure = None;
        let flush = |slices: &mut Vec<Slice>, private: &mut Pipeline| {
            slices.sort_by_key(|s| (s.partition, s.begin));
            let cut = EpochCut {
                epoch: private.epoch() + 1,
                now_ms: now_ms(),
                slices: BTreeMap::from([(self.source.name.clone(), std::mem::take(slices))]),
                ..EpochCut::default()
            };
            runtime.block_on(private.run(&cut)).map(|_| ())
        };
        let pace = Pace { records: usize::MAX, wanted: &|| true };
        let losses = scan(&self.source.kafka, &ranges, &pace, |slice| {
            bytes += slice.records.bytes().len();
            records += slice.records.len();
            total += slice.records.len();
            slices.push(slice);
            if records >= self.max_rows || bytes >= self.max_bytes {
                (bytes, records) = (0, 0);
                if let Err(error) = flush(&mut slices, private) {
                    failure = Some(error);
                    return false;
                }
            }
            true
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        // Where nothing of a partition was read before, the view begins at what is there.
        let begun = |loss: &Loss| {
            private.offsets(&self.source.name).contains_key(&loss.partition) || ranges.get(&loss.partition).is_some_and(|r| r.begin < loss.expected)
        };
        self.judge(&losses.into_iter().filter(begun).collect::<Vec<_>>())?;
        if !slices.is_empty() {
            flush(&mut slices, private)?;
        }
        Ok(total)
    }
}

/// What is gone of a topic that holds these offsets, for a reader that is to go on at those.
fn losses_of(offsets: &BTreeMap<i32, i64>, held: &Partitions) -> Vec<Loss> {
    offsets.iter().filter_map(|(partition, offset)| Loss::check(*partition, *offset, held.get(partition).copied().unwrap_or((0, 0)))).collect()
}

/// The name of a source or view that a query refers to; tables of schema `system` are neither.
pub(super) fn object_name(reference: &TableReference) -> Option<&str> {
    match reference.schema() {
        Some(SYSTEM | "information_schema") => None,
        _ => Some(reference.table()),
    }
}

impl Advance {
    /// Retention was faster than the view, which has read before and behind what is lost: the source's policy decides. Where it says
    /// 'fail', the view begins anew with what the topic holds by then.
    fn judge(&self, losses: &[Loss]) -> Result<()> {
        if losses.is_empty() {
            return Ok(());
        }
        let each: Vec<String> = losses.iter().map(Loss::to_string).collect();
        let what = format!("records of topic {} were lost while the view caught up ({})", self.source.kafka.topic, each.join("; "));
        match self.source.kafka.on_data_loss {
            DataLoss::Fail => Err(Error::External(format!("{what}; it begins anew with what is there"))),
            DataLoss::Continue => {
                tracing::error!("{what}; it went on, as 'on.data.loss' = 'continue' says");
                let mut lost = self.lost.lock();
                losses.iter().for_each(|loss| *lost.entry(loss.partition).or_default() += loss.offsets().unwrap_or(0).unsigned_abs());
                Ok(())
            }
        }
    }
}

/// `events$errors` belongs to `events`.
pub(super) fn base_name(table: &str) -> &str {
    table.strip_suffix("$errors").or_else(|| table.strip_suffix("$late")).unwrap_or(table)
}

/// Runs something that waits on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Internal(format!("a worker panicked: {e}")))
}

fn base_state(config: &EngineConfig) -> Result<SessionState> {
    let mut session = SessionConfig::new()
        .with_target_partitions(config.threads)
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema("tidegate", "public");
    session.options_mut().sql_parser.dialect = datafusion::config::Dialect::Generic;
    let mut state = SessionStateBuilder::new().with_config(session).with_default_features().build();
    tidegate_udfs::register(&mut state)?;
    Ok(state)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rdkafka::{
        ClientConfig,
        mocking::MockCluster,
        producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
    };

    use super::*;

    struct Broker {
        cluster: MockCluster<'static, DefaultProducerContext>,
        producer: BaseProducer,
    }

    impl Broker {
        fn start() -> Self {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic("t", 1, 1).unwrap();
            let producer = ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).set("linger.ms", "0").create().unwrap();
            Self { cluster, producer }
        }

        fn send(&self, count: usize, size: usize) {
            let payload = format!("{{\"n\": 1, \"fill\": \"{}\"}}", "x".repeat(size));
            for _ in 0..count {
                self.producer.send(BaseRecord::<(), _>::to("t").partition(0).payload(&payload)).unwrap();
                self.producer.flush(Duration::from_secs(30)).unwrap();
            }
        }

        /// A view that has read nothing, and how it reads on.
        fn behind(&self, policy: &str) -> (Pipeline, Advance) {
            let text = format!(
                "CREATE SOURCE s (n INT) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = '{}', format = 'json', 'on.data.loss' = '{policy}')",
                self.cluster.bootstrap_servers()
            );
            let Definition::Source(source) = sql::parse_definition(&text).unwrap() else { panic!() };
            let private = Pipeline::new(vec![(source.clone(), 1)], Arc::default(), 1).unwrap();
            (private, Advance { source, start: BTreeMap::new(), max_rows: 1000, max_bytes: 1 << 20, begin: Arc::default(), lost: Arc::default() })
        }

        fn end(&self, advance: &Advance) -> BTreeMap<i32, i64> {
            BTreeMap::from([(0, partitions_of(&advance.source.kafka).unwrap()[&0].1)])
        }
    }

    #[test]
    fn what_retention_takes_from_a_view_that_catches_up_is_told() {
        let broker = Broker::start();
        broker.send(5, 10);
        let (mut strict, advance) = broker.behind("fail");
        let (mut lax, go_on) = broker.behind("continue");
        for (private, advance) in [(&mut strict, &advance), (&mut lax, &go_on)] {
            assert_eq!(advance.run(private, &BTreeMap::from([(0, 5)])).unwrap(), 5);
        }
        broker.send(24, 400_000);
        let end = broker.end(&advance);
        let refused = advance.run(&mut strict, &end).unwrap_err().to_string();
        assert!(refused.contains("partition 0: offset 5 comes next") && refused.contains("begins anew"), "{refused}");
        let (oldest, _) = partitions_of(&advance.source.kafka).unwrap()[&0];
        assert_eq!(go_on.run(&mut lax, &end).unwrap() as i64, end[&0] - oldest);
        assert_eq!(lax.offsets("s"), end);
        assert_eq!(*go_on.lost.lock(), BTreeMap::from([(0, oldest as u64 - 5)]));
        // The next stretch finds nothing more.
        assert_eq!(go_on.run(&mut lax, &end).unwrap(), 0);
        assert_eq!(*go_on.lost.lock(), BTreeMap::from([(0, oldest as u64 - 5)]));
        // One that begins now has lost nothing.
        let (mut fresh, advance) = broker.behind("fail");
        assert_eq!(advance.run(&mut fresh, &end).unwrap() as i64, end[&0] - oldest);
    }

    #[test]
    fn a_view_does_not_catch_up_with_what_is_not_there() {
        let broker = Broker::start();
        broker.send(5, 10);
        for policy in ["fail", "continue"] {
            let (mut private, advance) = broker.behind(policy);
            let refused = advance.run(&mut private, &BTreeMap::from([(0, 50)])).unwrap_err().to_string();
            assert!(refused.contains("offset 50 comes next, but it ends at 5"), "{refused}");
        }
    }
}
