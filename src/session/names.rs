//! How a statement's table names are resolved. Each statement has a resolver of its own, so that all of its names mean the same
//! epoch: the first view of a pipeline that is named pins it, and a topic beside it is read up to just there.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableProvider},
    common::{DataFusionError, Result as DataFusionResult},
    datasource::ViewTable,
    execution::{FunctionRegistry, SessionState},
    logical_expr::ScalarUDF,
    prelude::SessionContext,
    sql::parser::Statement,
};
use parking_lot::Mutex;

use super::{
    current_user::CurrentUser,
    engine::Engine,
    files,
    result_schema::coerced,
    snapshot::{SnapshotTable, UnreadableTable},
    system::{SYSTEM, SystemSchema},
    topic::{Read, TopicTable},
};
use crate::{
    access::{Caller, Privilege, Who},
    catalog::{ColumnDef, Definition, Object, TableDef},
    error::{Error, Result},
    source::kafka::ScanRange,
    sql,
    stream::{
        hidden::{pair_field, weight_field},
        published::{Board, Published},
        segments::Snapshot,
        side_rows::error_schema,
        slice::StreamTable,
        temporal_join::VersionsTable,
        view::PublishedView,
    },
    tables::{LatestTable, Snapshot as TableSnapshot, StoredTable},
};

/// What names are resolved for.
#[derive(Debug, Clone)]
pub enum Purpose {
    /// An ordinary query: bounded, at one epoch.
    Query(Arc<Pins>),
    /// A continuous view: sources are streams, with the columns that they had when the view of this number was made; with all of them for one
    /// that is not made yet.
    Stream(Option<u64>),
    /// A subscription: sources are streams, and views are streams of changes.
    Changes,
}

impl Purpose {
    /// A query that has not named anything yet; `as_of` is the epoch that it says, if any.
    pub fn query(as_of: Option<u64>) -> Self {
        Purpose::Query(Arc::new(Pins { as_of, ..Pins::default() }))
    }
}

/// Which epoch of each pipeline a statement sees, by the source that the pipeline consumes.
#[derive(Debug, Default)]
pub struct Pins {
    /// The epoch that the statement says.
    as_of: Option<u64>,
    pinned: Mutex<BTreeMap<String, Arc<Published>>>,
    /// What the statement sees of each topic: one answer, however often it is named.
    ranges: tokio::sync::Mutex<BTreeMap<String, Ranges>>,
    /// What it sees of each table, by the table's number.
    tables: Mutex<BTreeMap<u64, Arc<TableSnapshot>>>,
}

type Ranges = BTreeMap<i32, ScanRange>;

impl Pins {
    /// The offsets of a topic that the statement sees; `resolve` is asked once.
    pub async fn ranges(&self, source: &str, resolve: impl Future<Output = Result<Ranges>>) -> Result<Ranges> {
        let mut known = self.ranges.lock().await;
        if let Some(ranges) = known.get(source) {
            return Ok(ranges.clone());
        }
        let ranges = resolve.await?;
        known.insert(source.to_string(), ranges.clone());
        Ok(ranges)
    }

    /// The epoch that the statement has pinned for a source's pipeline.
    pub fn get(&self, source: &str) -> Option<Arc<Published>> {
        self.pinned.lock().get(source).cloned()
    }

    /// The epoch of a board that the statement sees.
    fn look(&self, board: &Board) -> Result<Arc<Published>> {
        let Some(epoch) = self.as_of else { return Ok(board.current()) };
        board.at(epoch).map_err(|kept| {
            Error::NotFound(match kept {
                Some((oldest, newest)) => format!("epoch {epoch} is not kept: {oldest} to {newest} can be read; SHOW VIEWS tells the newest"),
                None => format!("epoch {epoch} is not kept: nothing was published yet"),
            })
        })
    }

    fn pin(&self, published: Arc<Published>) -> Result<Arc<Published>> {
        let mut pinned = self.pinned.lock();
        let known = published.sources.keys().find_map(|source| pinned.get(source)).cloned();
        if self.as_of.is_some() && known.is_none() && !pinned.is_empty() {
            let (one, other): (Vec<_>, Vec<_>) = (pinned.keys().cloned().collect(), published.sources.keys().cloned().collect());
            return Err(Error::Invalid(format!(
                "AS OF EPOCH holds for one source's views, since each source counts epochs of its own: the statement reads {} and {}",
                one.join(", "),
                other.join(", ")
            )));
        }
        let chosen = known.unwrap_or(published);
        for source in chosen.sources.keys() {
            pinned.entry(source.clone()).or_insert_with(|| chosen.clone());
        }
        Ok(chosen)
    }
}

/// Resolves names for one statement.
#[derive(Debug)]
pub struct Names {
    engine: Arc<Engine>,
    purpose: Purpose,
    /// Columns that the statement names and topics have without declaring them.
    named: Vec<ColumnDef>,
    /// Whose rights count: a plain view's names are its owner's.
    caller: Caller,
    /// Who runs the statement: `current_user`.
    invoker: Who,
    /// The table that the statement adds rows to and does not read: that is another right.
    inserted: Option<String>,
}

impl Names {
    /// A session state whose names resolve for this purpose.
    pub fn state(engine: Arc<Engine>, purpose: Purpose, caller: &Caller) -> SessionState {
        Self::with(engine, purpose, vec![], caller.clone(), caller.who.clone())
    }

    /// The same for a query: topics have what it names of their metadata.
    pub fn state_for(engine: Arc<Engine>, purpose: Purpose, caller: &Caller, statement: &Statement) -> SessionState {
        let inserted = Self::only_inserted(&engine, statement);
        Self::of(engine, purpose, sql::named_metadata(statement), caller.clone(), caller.who.clone(), inserted)
    }

    fn with(engine: Arc<Engine>, purpose: Purpose, named: Vec<ColumnDef>, caller: Caller, invoker: Who) -> SessionState {
        Self::of(engine, purpose, named, caller, invoker, None)
    }

    /// The table that a statement adds rows to, unless it reads it as well.
    fn only_inserted(engine: &Engine, statement: &Statement) -> Option<String> {
        let table = sql::inserted_into(statement)?;
        let read = sql::inserted_from(statement).map(|source| engine.base_state().resolve_table_references(&source));
        match read {
            None => Some(table),
            Some(Ok(read)) if read.iter().all(|reference| reference.table() != table) => Some(table),
            Some(_) => None,
        }
    }

    fn of(engine: Arc<Engine>, purpose: Purpose, named: Vec<ColumnDef>, caller: Caller, invoker: Who, inserted: Option<String>) -> SessionState {
        let user = matches!(purpose, Purpose::Query(_)).then(|| CurrentUser::new(invoker.name()));
        let catalogs = MemoryCatalogProviderList::new();
        let system = Arc::new(SystemSchema::new(engine.clone(), caller.who.clone()));
        // Not built from it: that would register every function anew, for each statement.
        let mut state = engine.base_state().clone();
        let names = Arc::new(Self { engine, purpose, named, caller, invoker, inserted });
        catalogs.register_catalog("tidegate".into(), Arc::new(Schemas { public: names, system }));
        state.register_catalog_list(Arc::new(catalogs));
        if let Some(user) = user {
            // There is none of this name, so nothing is in its way.
            let _ = state.register_udf(Arc::new(ScalarUDF::from(user)));
        }
        // The statement begins: now() is this moment in all of it.
        state.mark_start_execution();
        state
    }

    async fn resolve(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.engine.catalog().get(name) {
            Some(_) if self.inserted.as_deref() == Some(name) => match self.engine.insertable(&self.caller, name)? {
                Some(object) => self.object(object).await.map(Some),
                None => Ok(None),
            },
            Some(_) => match self.engine.readable(&self.caller, name)? {
                Some(object) => self.object(object).await.map(Some),
                None => Ok(None),
            },
            None => self.beside(name).await,
        }
    }

    async fn object(&self, object: Object) -> Result<Arc<dyn TableProvider>> {
        if let Purpose::Stream(Some(view)) = &self.purpose
            && let Some(seen) = object.source_seen_by(*view)
        {
            return Ok(Arc::new(StreamTable::over(&seen)));
        }
        let owned = object.clone();
        match (object.definition, &self.purpose) {
            (Definition::PlainView(view), purpose) => {
                let statement = sql::query_statement(sql::parse_query(&view.query)?);
                let (definer, named) = (self.engine.definer(&owned), sql::named_metadata(&statement));
                let state = Names::with(self.engine.clone(), purpose.clone(), named, definer, self.invoker.clone());
                let plan = state.statement_to_plan(statement).await.map_err(|error| self.in_view(&owned, error.into()))?;
                sql::check_view_plan(&plan).map_err(|error| self.in_view(&owned, error))?;
                let plan = coerced(plan).map_err(|error| self.in_view(&owned, error.into()))?;
                Ok(Arc::new(ViewTable::new(plan, Some(view.query.clone()))))
            }
            (Definition::Source(def), Purpose::Stream(_) | Purpose::Changes) => Ok(Arc::new(StreamTable::over(&def))),
            (Definition::Source(def), Purpose::Query(pins)) => {
                if pins.as_of.is_some() {
                    let none = || Error::NotFound(format!("source {} has no epochs: no continuous view reads it", def.name));
                    pins.pin(pins.look(self.engine.pipeline(&def.name).ok_or_else(none)?.board())?)?;
                }
                Ok(Arc::new(TopicTable::new(def, &self.named, object.start_offsets, pins.clone(), Read::Rows)))
            }
            (Definition::Sink(def), _) => Err(Error::Invalid(format!("{} is a sink: what it writes is read where it goes", def.name))),
            (Definition::Table(def), purpose) => self.table_rows(def, object.id, purpose),
            (Definition::Connection(def), _) => {
                Err(Error::Invalid(format!("{0} is a connection and has no rows: SHOW TOPICS FROM CONNECTION {0} tells what can be read there", def.name)))
            }
            (Definition::Secret(def), _) => Err(Error::Invalid(format!("{} is a secret, which can be used and not read", def.name))),
            (Definition::View(def), Purpose::Stream(_)) => {
                let plan = self.engine.plan_view(&def, Some(object.id)).await?;
                Ok(Arc::new(StreamTable::over_view(&def.name, &plan)))
            }
            (Definition::View(def), Purpose::Changes) => {
                let (board, _) = self.engine.board_of(&def.name).ok_or_else(|| not_running(&def.name))?;
                let plan = board.current().views.get(&def.name).map(|v| v.plan.clone()).ok_or_else(|| not_running(&def.name))?;
                let mut table = StreamTable::over_view(&def.name, &plan);
                // Rows that only come go again, too, when another definition takes the view's place.
                table.hidden = vec![weight_field(), pair_field()];
                Ok(Arc::new(table))
            }
            (Definition::View(def), Purpose::Query(pins)) => match self.published(&def.name, pins, |view| &view.contents) {
                Ok(table) => Ok(table),
                Err(error) => {
                    let plan = self.engine.plan_view(&def, Some(object.id)).await?;
                    Ok(Arc::new(UnreadableTable::new(plan.schema, error.to_string())))
                }
            },
        }
    }

    /// A view's rows, or its late ones, at the epoch that the statement pins. A view that has not joined its pipeline yet is at an epoch
    /// of its own, and can be read with its topic but with no other view of it.
    fn published(&self, name: &str, pins: &Pins, part: fn(&PublishedView) -> &Snapshot) -> Result<Arc<dyn TableProvider>> {
        let (board, _) = self.engine.board_of(name).ok_or_else(|| not_running(name))?;
        let current = pins.look(&board)?;
        if let Some(view) = pins.pin(current.clone())?.views.get(name) {
            let key = view.plan.key.clone().unwrap_or_default();
            let has_key = part(view).schema() == &view.plan.schema;
            return Ok(Arc::new(SnapshotTable::new(part(view).clone()).with_key(if has_key { key } else { vec![] })));
        }
        if let Some(epoch) = pins.as_of {
            return Err(Error::NotFound(format!("{name} was not there yet at epoch {epoch}: name a later one")));
        }
        let view = current.views.get(name).ok_or_else(|| not_running(name))?;
        Ok(Arc::new(UnreadableTable::new(
            part(view).schema().clone(),
            format!(
                "{name} and another view of its source stand at different epochs, since one of them is paused or still catching up: read it alone, or wait until SHOW VIEWS says that both are running"
            ),
        )))
    }

    /// `<source>$errors`, `<view>$late`, or a file.
    async fn beside(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(source) = name.strip_suffix("$versions")
            && self.engine.catalog().get(source).is_some()
        {
            let Some(object) = self.engine.readable(&self.caller, source)? else { return Ok(None) };
            return self.versions(object).await.map(Some);
        }
        let file = || async {
            self.engine.check_files(&self.caller, name)?;
            files::table(self.engine.base_state(), &self.engine.config().allowed_paths, name).await
        };
        let Purpose::Query(pins) = &self.purpose else {
            // A view gets a file's rows when it starts.
            return match files::looks_like_a_file(name) {
                true => Ok(Some(Arc::new(StreamTable::over_table(name, file().await?)))),
                false => Ok(None),
            };
        };
        if let Some(source) = name.strip_suffix("$errors")
            && let Some(Object { definition: Definition::Source(def), start_offsets, .. }) = self.engine.catalog().get(source)
        {
            if self.engine.readable(&self.caller, source)?.is_none() {
                return Ok(None);
            }
            // Where no view reads the source nobody has gathered its bad records: a scan finds the same ones.
            return Ok(Some(match self.engine.pipeline(source) {
                Some(driver) => {
                    let published = pins.pin(pins.look(driver.board())?)?;
                    let errors = published.sources.get(source).map(|s| s.errors.clone());
                    Arc::new(SnapshotTable::new(errors.unwrap_or_else(|| crate::stream::segments::SegmentLog::new(error_schema()).snapshot())))
                }
                None => Arc::new(TopicTable::new(def, &[], start_offsets, pins.clone(), Read::Errors)),
            }));
        }
        if let Some(view) = self.engine.late_view(name) {
            if self.engine.reads_late(&self.caller, &view.name)?.is_none() {
                return Ok(None);
            }
            return self.published(&view.name, pins, |view| &view.late).map(Some);
        }
        if let Some(view) = name.strip_suffix("$late")
            && let Some(Object { definition: Definition::View(_), .. }) = self.engine.catalog().get(view)
        {
            if self.engine.reads_late(&self.caller, view)?.is_none() {
                return Ok(None);
            }
            return self.published(view, pins, |view| &view.late).map(Some);
        }
        if files::looks_like_a_file(name) {
            return file().await.map(Some);
        }
        Ok(None)
    }
}

impl Names {
    /// What went wrong below a plain view, told to somebody who need not know what is there.
    fn in_view(&self, view: &Object, error: Error) -> Error {
        if self.engine.owns(&self.caller.who, view) {
            return error;
        }
        let name = view.definition.name();
        tracing::debug!(view = name, "a view can't be planned: {error}");
        Error::Invalid(format!("view {name} can't be read: its query is no longer possible, or its owner may no longer read what it reads"))
    }

    /// A table: one snapshot of it for all of a statement. A view gets the rows that it has when it starts.
    fn table_rows(&self, def: Arc<TableDef>, id: u64, purpose: &Purpose) -> Result<Arc<dyn TableProvider>> {
        let store = match self.engine.tables.get(id) {
            Ok(store) => store,
            Err(error) => return Ok(Arc::new(UnreadableTable::new(def.schema(), error.to_string()))),
        };
        let name = def.name.clone();
        match purpose {
            Purpose::Query(pins) => {
                let snapshot = pins.tables.lock().entry(id).or_insert_with(|| store.snapshot()).clone();
                Ok(Arc::new(StoredTable::new(def, store, snapshot)))
            }
            Purpose::Stream(_) | Purpose::Changes => Ok(Arc::new(StreamTable::over_table(&name, Arc::new(LatestTable::new(def, store))))),
        }
    }

    /// `<source>$versions`: all rows that a source with a primary key has had, and when each was valid.
    async fn versions(&self, object: Object) -> Result<Arc<dyn TableProvider>> {
        let name = object.definition.name().to_string();
        let (Definition::Source(def), seen) = (
            &object.definition,
            match self.purpose {
                Purpose::Stream(Some(view)) => object.source_seen_by(view),
                _ => None,
            },
        ) else {
            return Err(Error::Invalid(format!("{name} is a {}: only a source with a primary key has versions", object.definition.kind())));
        };
        let def = seen.unwrap_or_else(|| def.clone());
        let (Some(time), false) = (def.watermark.as_ref().map(|w| w.column.clone()), def.key_names().is_empty()) else {
            return Err(Error::Invalid(format!(
                "source {name} has no versions that FOR SYSTEM_TIME AS OF could look up: declare it with a PRIMARY KEY and a WATERMARK, which says from when a record counts"
            )));
        };
        let Purpose::Query(pins) = &self.purpose else { return Ok(Arc::new(VersionsTable::over(&def))) };
        let records = TopicTable::new(def.clone(), sql::offset_column().as_slice(), object.start_offsets, pins.clone(), Read::Versions);
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let list = |names: Vec<String>| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let (columns, key) = (list(def.columns.iter().map(|column| column.name.clone()).collect()), list(def.key_names()));
        let begins = format!("arrow_cast({}, 'Timestamp(Nanosecond, None)')", quoted(&time));
        let context = SessionContext::new();
        context.register_table("records", Arc::new(records))?;
        let text = format!(
            "SELECT {columns}, _deleted, {begins} AS _valid_from, lead({begins}) OVER (PARTITION BY {key} ORDER BY {begins}, _offset) AS _valid_to
             FROM records WHERE {begins} IS NOT NULL"
        );
        let plan = context.state().create_logical_plan(&text).await?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}

fn not_running(view: &str) -> Error {
    Error::External(format!("view {view} is not running: SHOW VIEWS says why"))
}

#[async_trait]
impl SchemaProvider for Names {
    fn table_names(&self) -> Vec<String> {
        self.engine.catalog().list().into_iter().filter(|o| self.engine.is_listed(&self.caller.who, o)).map(|o| o.definition.name().to_string()).collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>, DataFusionError> {
        self.resolve(name).await.map_err(DataFusionError::from)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.engine.catalog().get(name).is_some_and(|object| object.definition.has_rows() && self.engine.may(&self.caller.who, Privilege::Select, &object))
    }
}

#[derive(Debug)]
struct Schemas {
    public: Arc<Names>,
    system: Arc<SystemSchema>,
}

impl CatalogProvider for Schemas {
    fn schema_names(&self) -> Vec<String> {
        vec!["public".into(), SYSTEM.into()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            "public" => Some(self.public.clone()),
            SYSTEM => Some(self.system.clone()),
            _ => None,
        }
    }
}
