//! A session: prepares statements without any effect, and runs them.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{ParamValues, ScalarValue},
    execution::{SendableRecordBatchStream, SessionState},
    logical_expr::{DdlStatement, LogicalPlan},
    physical_plan::{execute_stream, stream::RecordBatchStreamAdapter},
    sql::parser::Statement as DataFusionStatement,
};
use futures::StreamExt;
use parking_lot::Mutex;

use super::{
    connections, draft,
    engine::{Engine, object_name},
    engine_options, explain,
    limits::{Deadline, MAX_SQL_BYTES},
    queries::Killable,
    result_schema::result_schema,
    settings::{self, Delivery, Settings},
    show,
    subscribe::Subscription,
    system::{SYSTEM, Table},
    tables::{dml, many},
    users,
};
use crate::{
    access::{self, Caller, audit},
    catalog::{Definition, Object, ObjectKind},
    error::{Error, Result},
    sql::{self, ExplainView, Statement, SubscribeOptions},
};

/// One client's session.
#[derive(Debug, Clone)]
pub struct Session {
    pub(super) engine: Arc<Engine>,
    /// Whom its statements are run for.
    pub(super) caller: Caller,
    settings: Arc<Mutex<Settings>>,
}

/// What a statement is, known without running it.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The statement's text.
    pub sql: String,
    /// Columns of the result, as the session will deliver them; empty for a statement that is not a query.
    pub schema: SchemaRef,
    /// Types of its parameters (`?` or `$n`) in order, all nullable; empty if there are none.
    pub parameters: Arc<Schema>,
    /// A query gives rows; anything else is executed for its effect.
    pub is_query: bool,
    /// The result never ends by itself (`EMIT CHANGES`).
    pub is_unbounded: bool,
    /// Its rows may come in any order, and so in several streams.
    pub is_divisible: bool,
}

/// What running a statement gave.
pub enum Outcome {
    /// A query's rows; dropping the stream stops the work. A batch without rows in an unbounded result is a heartbeat.
    Rows(SendableRecordBatchStream),
    /// The statement has taken effect, on this many rows if that is known.
    Done(Option<u64>),
}

/// One table as a client's catalog tree shows it.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Always `tidegate`.
    pub catalog: String,
    /// `public`, or `system`.
    pub schema: String,
    /// The table's name.
    pub name: String,
    /// `BASE TABLE`, `VIEW` or `SYSTEM TABLE`.
    pub kind: &'static str,
    /// Its columns, as the session delivers them.
    pub columns: SchemaRef,
}

impl Session {
    pub(super) fn new(engine: Arc<Engine>, caller: Caller) -> Self {
        let settings = Settings { device: engine.config().device, ..Settings::default() };
        Self { engine, caller, settings: Arc::new(Mutex::new(settings)) }
    }

    /// Parses and plans one statement without any effect.
    pub async fn prepare(&self, text: &str) -> Result<Prepared> {
        let query = |schema: SchemaRef, is_unbounded: bool| Prepared {
            sql: text.into(),
            schema,
            parameters: Arc::new(Schema::empty()),
            is_query: true,
            is_unbounded,
            is_divisible: false,
        };
        Ok(match parse(text)? {
            Statement::Subscribe { query: subscribed, emit, options } => {
                let options = self.with_limits(options);
                query(Subscription::plan(&self.engine, &self.caller, &subscribed, emit, &options).await?.schema, options.timeout.is_none())
            }
            Statement::Show(what) => query(show::schema(what), false),
            Statement::ShowCreate { .. } => query(show::create_schema(), false),
            Statement::ShowTopics { .. } => query(connections::topics_schema(), false),
            Statement::DescribeTopic { .. } => query(connections::topic_schema(), false),
            Statement::ShowUsers => query(users::users_schema(), false),
            Statement::ShowGrants { .. } => query(users::grants_schema(), false),
            Statement::ExplainView(_) => query(explain::schema(), false),
            Statement::ExplainSource(_) => query(show::create_schema(), false),
            Statement::AnalyzeView { .. } => query(explain::analyze_schema(), false),
            Statement::ShowSetting(name) => query(setting_schema(&name), false),
            Statement::DataFusion(statement) => self.prepare_query(text, *statement, None).await?,
            Statement::AsOf { epoch, statement } => self.prepare_query(text, *statement, Some(epoch)).await?,
            Statement::CreateTableAs { query, .. } => {
                let planned = self.prepare_query(text, *query, None).await?;
                if !planned.is_query {
                    return Err(Error::Invalid("CREATE TABLE … AS takes a query: SELECT, VALUES or WITH".into()));
                }
                Prepared { schema: Arc::new(Schema::empty()), is_query: false, ..planned }
            }
            Statement::CreateSource { .. }
            | Statement::DraftSource(_)
            | Statement::SourceAndSink { .. }
            | Statement::CreateTable { .. }
            | Statement::CreateContinuousView { .. }
            | Statement::CreateView { .. }
            | Statement::CreateConnection { .. }
            | Statement::AlterConnection { .. }
            | Statement::CreateSecret { .. }
            | Statement::AlterSecret { .. }
            | Statement::CreateSink { .. }
            | Statement::AlterSource { .. }
            | Statement::AlterView { .. }
            | Statement::AlterOwner { .. }
            | Statement::User(_)
            | Statement::Grant(_)
            | Statement::Drop { .. }
            | Statement::Kill { .. }
            | Statement::Pause { .. }
            | Statement::Set { .. } => Prepared {
                sql: text.into(),
                schema: Arc::new(Schema::empty()),
                parameters: Arc::new(Schema::empty()),
                is_query: false,
                is_unbounded: false,
                is_divisible: false,
            },
        })
    }

    /// Runs one statement. Rows have the columns that [`Self::prepare`] told.
    pub async fn execute(&self, text: &str, parameters: &[ScalarValue]) -> Result<Outcome> {
        let statement = parse(text)?;
        let declared = declared(&statement);
        let mut outcome = self.run(text, statement, parameters).await;
        if let Some((action, name)) = declared {
            outcome = outcome.map_err(|error| self.engine.without_names(&self.caller, &name, error));
            // Denials are told where they are found.
            match &outcome {
                Ok(_) => audit(&self.caller, action, &name, access::Outcome::Done),
                Err(Error::Denied(_)) => {}
                Err(_) => audit(&self.caller, action, &name, access::Outcome::Failed),
            }
        }
        outcome
    }

    async fn run(&self, text: &str, statement: Statement, parameters: &[ScalarValue]) -> Result<Outcome> {
        let (engine, caller) = (&self.engine, &self.caller);
        match statement {
            Statement::Subscribe { query, emit, options } => {
                let options = self.with_limits(options);
                let subscription = Subscription::plan(engine, caller, &query, emit, &options).await?;
                let running = self.engine.queries.begin(caller, text, options.timeout.is_none(), subscription.reads.clone());
                let (killed, device) = (running.killed(), self.settings.lock().device);
                Ok(Outcome::Rows(Box::pin(Killable::new(subscription.start(&self.engine, device, running)?, killed))))
            }
            Statement::Show(what) => Ok(rows(show::rows(&self.engine, &caller.who, what).await?)),
            Statement::ShowCreate { kind, name } => Ok(rows(show::create(&self.engine, &caller.who, kind, &name)?)),
            Statement::ShowTopics { connection } => engine.show_topics(caller, &connection).await.map(rows),
            Statement::DescribeTopic { topic, connection } => engine.describe_topic(caller, &topic, &connection).await.map(rows),
            Statement::CreateConnection { def, if_not_exists, validate } => {
                engine.create_connection(caller, def, if_not_exists, validate).await.map(|()| Outcome::Done(None))
            }
            Statement::AlterConnection { name, set, reset, validate } => {
                engine.alter_connection(caller, &name, &set, &reset, validate).await.map(|()| Outcome::Done(None))
            }
            Statement::CreateSecret { def, if_not_exists } => engine.create_secret(caller, def, if_not_exists).await.map(|()| Outcome::Done(None)),
            Statement::AlterSecret { def } => engine.alter_secret(caller, def).await.map(|()| Outcome::Done(None)),
            Statement::ShowUsers => users::users(engine, caller).map(rows),
            Statement::ShowGrants { of } => users::grants(engine, caller, of.as_deref()).map(rows),
            Statement::User(statement) => users::run(engine, caller, statement).await.map(|()| Outcome::Done(None)),
            Statement::Grant(statement) => users::grant(engine, caller, statement).await.map(|()| Outcome::Done(None)),
            Statement::AlterOwner { kind, name, owner } => users::set_owner(engine, caller, kind, &name, &owner).await.map(|()| Outcome::Done(None)),
            Statement::ExplainView(which) => self.explain(which).await.map(rows),
            Statement::AnalyzeView { name, duration } => {
                engine.readable(caller, &name)?.ok_or_else(|| Error::NotFound(format!("there is no view {name}")))?;
                let running = self.engine.queries.begin(caller, text, false, BTreeSet::from([name.clone()]));
                let (killed, engine) = (running.killed(), self.engine.clone());
                let looked = futures::stream::once(async move {
                    let _listed = running;
                    Ok(explain::analyze(&engine, &name, duration).await?)
                });
                let stream = RecordBatchStreamAdapter::new(explain::analyze_schema(), looked);
                Ok(Outcome::Rows(Box::pin(Killable::new(Box::pin(stream), killed))))
            }
            Statement::Kill { id } => {
                engine.queries.kill(id, |query| engine.access().is_admin(&caller.who) || query.caller.who == caller.who).map(|()| Outcome::Done(None))
            }
            Statement::ShowSetting(name) => self.setting(&name).map(rows),
            Statement::Set { name, value } => self.set(&name, &value).await.map(|()| Outcome::Done(None)),
            Statement::CreateSource { .. } | Statement::DraftSource(_) => draft::create(engine, caller, statement).await.map(|_| Outcome::Done(None)),
            Statement::SourceAndSink { source, sink } => draft::create_with_sink(engine, caller, *source, sink).await.map(|()| Outcome::Done(None)),
            Statement::ExplainSource(statement) => {
                engine.check_create(caller, "a source")?;
                draft::explain(engine, caller, *statement).await.map(rows)
            }
            Statement::CreateContinuousView { def, if_not_exists, or_replace } => {
                engine.create_view(caller, def, if_not_exists, or_replace).await.map(|()| Outcome::Done(None))
            }
            Statement::CreateView { def, if_not_exists, or_replace } => {
                engine.create_plain_view(caller, def, if_not_exists, or_replace).await.map(|()| Outcome::Done(None))
            }
            Statement::CreateTable { def, taken } => engine.create_table(caller, def, taken).await.map(|()| Outcome::Done(None)),
            Statement::CreateTableAs { name, taken, declared, query } => {
                self.create_table_as(text, &name, taken, declared, *query, parameters).await.map(Outcome::Done)
            }
            Statement::AlterSource { name, column, declaration, if_not_exists } => {
                engine.add_column(caller, &name, &column, &declaration, if_not_exists).await.map(|()| Outcome::Done(None))
            }
            Statement::AlterView { name, memory_limit } => engine.set_memory_limit(caller, &name, memory_limit).await.map(|()| Outcome::Done(None)),
            Statement::Drop { kind, name, if_exists, cascade } => {
                engine.drop_object(caller, kind, &name, if_exists, cascade).await.map(|()| Outcome::Done(None))
            }
            Statement::CreateSink { def, if_not_exists } => engine.create_sink(caller, def, if_not_exists).await.map(|()| Outcome::Done(None)),
            Statement::Pause { kind: ObjectKind::Sink, name, resume } => engine.pause_sink(caller, &name, !resume).await.map(|()| Outcome::Done(None)),
            Statement::Pause { name, resume: false, .. } => engine.pause_view(caller, &name).await.map(|()| Outcome::Done(None)),
            Statement::Pause { name, resume: true, .. } => engine.resume_view(caller, &name).await.map(|()| Outcome::Done(None)),
            Statement::DataFusion(statement) => match self.engine_option(&statement).await? {
                Some(change) => {
                    self.settings.lock().engine.make(change);
                    Ok(Outcome::Done(None))
                }
                None => self.query(text, *statement, None, parameters).await,
            },
            Statement::AsOf { epoch, statement } => self.query(text, *statement, Some(epoch), parameters).await,
        }
    }

    /// Runs one statement once for each row of parameters; how many rows all touched. An INSERT of VALUES is one change with all of them.
    pub async fn execute_many(&self, text: &str, rows: &[Vec<ScalarValue>]) -> Result<u64> {
        if let Statement::DataFusion(statement) = parse(text)? {
            let over_all = || async {
                let (state, plan, reads) = self.plan_open((*statement).clone(), None).await?;
                let parameters = parameters_of(&plan)?;
                Ok::<_, Error>(many::over_all(&plan, &parameters, rows)?.map(|plan| (state, plan, reads)))
            };
            if let Some((state, plan, reads)) = over_all().await? {
                let running = self.engine.queries.begin(&self.caller, text, false, reads);
                let changed = || Error::Internal("an INSERT became something else".into());
                let again = || async { over_all().await?.map(|(state, plan, _)| (state, plan)).ok_or_else(changed) };
                return dml::run(&self.engine, state, plan, again, &running).await;
            }
        }
        let mut touched = 0u64;
        for parameters in rows {
            match self.execute(text, parameters).await? {
                // What makes or drops things touches no rows.
                Outcome::Done(rows) => touched = touched.saturating_add(rows.unwrap_or(0)),
                Outcome::Rows(_) => return Err(Error::Internal("a query was to be executed for its effect".into())),
            }
        }
        Ok(touched)
    }

    /// How results travel to this session's client.
    pub fn delivery(&self) -> Delivery {
        self.settings.lock().delivery
    }

    /// The tables that this session sees.
    pub async fn tables(&self) -> Result<Vec<TableInfo>> {
        let mut tables = vec![];
        for object in self.engine.all_seen(&self.caller.who) {
            let (kind, columns) = match &object.definition {
                Definition::Source(def) => ("BASE TABLE", def.schema()),
                Definition::Table(def) => ("BASE TABLE", def.schema()),
                Definition::Connection(_) | Definition::Secret(_) => continue,
                Definition::View(def) => {
                    match self.engine.board_of(&def.name).and_then(|(board, _)| board.current().views.get(&def.name).map(|v| v.plan.schema.clone())) {
                        Some(schema) => ("VIEW", schema),
                        None => continue,
                    }
                }
                Definition::Sink(_) => continue,
                Definition::PlainView(def) => {
                    // One that no longer plans must not hide the others.
                    let statement = sql::query_statement(sql::parse_query(&def.query)?);
                    let definer = self.engine.definer(&object);
                    let Ok(plan) = self.engine.query_state(&definer, &statement, None).statement_to_plan(statement).await else { continue };
                    let Ok(columns) = result_schema(&plan, false) else { continue };
                    ("VIEW", columns)
                }
            };
            tables.push(TableInfo { catalog: "tidegate".into(), schema: "public".into(), name: object.definition.name().into(), kind, columns });
        }
        tables.extend(Table::ALL.into_iter().map(|table| TableInfo {
            catalog: "tidegate".into(),
            schema: SYSTEM.into(),
            name: table.name().into(),
            kind: "SYSTEM TABLE",
            columns: table.schema(),
        }));
        Ok(tables)
    }

    async fn prepare_query(&self, text: &str, mut statement: DataFusionStatement, as_of: Option<u64>) -> Result<Prepared> {
        self.check_insert(&statement)?;
        self.engine.name_insert_columns(&mut statement);
        if self.engine_option(&statement).await?.is_some() {
            let none = Arc::new(Schema::empty());
            return Ok(Prepared { sql: text.into(), schema: none.clone(), parameters: none, is_query: false, is_unbounded: false, is_divisible: false });
        }
        let plan = self.state_for(&statement, as_of)?.statement_to_plan(statement).await?;
        sql::check_plan(&plan)?;
        check_allowed(&plan)?;
        let parameters = parameters_of(&plan)?;
        if let LogicalPlan::Dml(dml) = &plan {
            dml::check(dml)?;
            return Ok(Prepared { sql: text.into(), schema: Arc::new(Schema::empty()), parameters, is_query: false, is_unbounded: false, is_divisible: false });
        }
        let schema = result_schema(&plan, !parameters.fields().is_empty())?;
        Ok(Prepared { sql: text.into(), schema, parameters, is_query: true, is_unbounded: false, is_divisible: !is_ordered(&plan) })
    }

    async fn query(&self, text: &str, statement: DataFusionStatement, as_of: Option<u64>, parameters: &[ScalarValue]) -> Result<Outcome> {
        let (state, plan, reads) = self.plan(statement.clone(), as_of, parameters).await?;
        let running = self.engine.queries.begin(&self.caller, text, false, reads);
        if let LogicalPlan::Dml(dml) = &plan {
            self.engine.check_change(&self.caller, dml)?;
            let again = || async { self.plan(statement.clone(), as_of, parameters).await.map(|(state, plan, _)| (state, plan)) };
            return dml::run(&self.engine, state, plan, again, &running).await.map(|rows| Outcome::Done(Some(rows)));
        }
        let deadline = Deadline::after(self.settings.lock().statement_timeout.unwrap_or(self.engine.config().statements.timeout));
        let place = running.unless_killed(deadline.wait(self.engine.gate.enter())).await??;
        let context = self.engine.query_context(&state)?;
        // The plan holds the tables' files.
        let read = plan.clone();
        // A scan may wait for a broker already while it is planned.
        let planned = self.engine.compute.run(async move { Ok(execute_stream(state.create_physical_plan(&plan).await?, context)?) });
        let stream = running.unless_killed(deadline.wait(planned)).await??;
        let (schema, killed, over) = (stream.schema(), running.killed(), running.killed());
        // Held where the work is: given back when that ends, also while nobody reads.
        let stream = stream.map(move |batch| {
            let _held = (&running, &place, &read);
            batch
        });
        let until = async move {
            tokio::select! {
                why = over => why,
                why = deadline.over() => why,
            }
        };
        let stream = deadline.rows(self.engine.compute.rows(Box::pin(RecordBatchStreamAdapter::new(schema, stream)), until)?);
        Ok(Outcome::Rows(Box::pin(Killable::new(stream, killed))))
    }

    /// Plans a statement with its parameters; also which objects it names.
    pub(super) async fn plan(
        &self,
        statement: DataFusionStatement,
        as_of: Option<u64>,
        parameters: &[ScalarValue],
    ) -> Result<(SessionState, LogicalPlan, BTreeSet<String>)> {
        let (state, plan, reads) = self.plan_open(statement, as_of).await?;
        let wanted = parameters_of(&plan)?;
        if wanted.fields().len() != parameters.len() {
            return Err(Error::Invalid(format!("the statement has {} parameters, {} were given", wanted.fields().len(), parameters.len())));
        }
        let plan = if parameters.is_empty() {
            plan
        } else {
            let values = parameters
                .iter()
                .zip(wanted.fields())
                .map(|(value, field)| if field.data_type().is_null() { Ok(value.clone()) } else { Ok(value.cast_to(field.data_type())?) })
                .collect::<Result<Vec<ScalarValue>>>()?;
            plan.with_param_values(ParamValues::from(values))?
        };
        Ok((state, plan, reads))
    }

    /// Plans a statement whose parameters stay open.
    async fn plan_open(&self, mut statement: DataFusionStatement, as_of: Option<u64>) -> Result<(SessionState, LogicalPlan, BTreeSet<String>)> {
        // Planned here, and not taken from `prepare`: the names are pinned to an epoch when the statement runs.
        self.check_insert(&statement)?;
        self.engine.name_insert_columns(&mut statement);
        let mut state = self.state_for(&statement, as_of)?;
        let named = state.resolve_table_references(&statement)?;
        let reads = self.engine.objects_named(named.iter().filter_map(object_name).map(String::from));
        state.config_mut().set_extension(Arc::new(self.settings.lock().clone()));
        let plan = state.statement_to_plan(statement).await?;
        sql::check_plan(&plan)?;
        check_allowed(&plan)?;
        Ok((state, plan, reads))
    }

    /// The state that a statement is planned and run with: the engine's, and what this session has set.
    fn state_for(&self, statement: &DataFusionStatement, as_of: Option<u64>) -> Result<SessionState> {
        let mut state = self.engine.query_state(&self.caller, statement, as_of);
        self.settings.lock().engine.apply(&mut state)?;
        Ok(state)
    }

    /// What a statement changes of the engine's options, if that is what it does.
    async fn engine_option(&self, statement: &DataFusionStatement) -> Result<Option<engine_options::Change>> {
        match engine_options::is_change(statement) {
            true => engine_options::change(self.state_for(statement, None)?.statement_to_plan(statement.clone()).await?),
            false => Ok(None),
        }
    }

    async fn explain(&self, which: ExplainView) -> Result<RecordBatch> {
        let (def, id) = match which {
            ExplainView::Declared { def, or_replace } => {
                // What it would replace has to be theirs, and what it reads readable.
                if or_replace && self.engine.changeable(&self.caller, &def.name)?.is_none() && self.engine.catalog().get(&def.name).is_some() {
                    return Err(Error::AlreadyExists(format!("the name {} is taken: choose another one", def.name)));
                }
                let plan = self.engine.plan_view_for(&self.caller, &def, None).await?;
                let replaces = or_replace.then(|| self.engine.would_replace(&def, &plan)).transpose();
                let replaces = replaces.map_err(|error| self.engine.without_names(&self.caller, &def.name, error))?;
                let devices = explain::devices(&self.engine, &def, &plan).await?;
                return explain::rows(&plan, devices, replaces);
            }
            ExplainView::Named(name) => match self.engine.readable(&self.caller, &name)? {
                Some(Object { id, definition: Definition::View(def), .. }) => (def, Some(id)),
                Some(_) => return Err(Error::Invalid(format!("{name} is not a continuous view: use EXPLAIN SELECT … for a query"))),
                None => return Err(Error::NotFound(format!("there is no view {name}"))),
            },
        };
        let plan = self.engine.plan_view(&def, id).await?;
        let devices = explain::devices(&self.engine, &def, &plan).await?;
        explain::rows(&plan, devices, None)
    }

    /// Who may not add rows to something is told the same as of anything else that they may not see.
    fn check_insert(&self, statement: &DataFusionStatement) -> Result<()> {
        let Some(table) = sql::inserted_into(statement) else { return Ok(()) };
        match self.engine.insertable(&self.caller, &table)? {
            None if self.engine.catalog().get(&table).is_some() => Err(Error::NotFound(format!("table 'tidegate.public.{table}' not found"))),
            _ => Ok(()),
        }
    }

    /// What the session says of subscriptions that say nothing themselves.
    fn with_limits(&self, options: SubscribeOptions) -> SubscribeOptions {
        let settings = self.settings.lock();
        SubscribeOptions { max_rows: options.max_rows.or(settings.stream_max_rows), timeout: options.timeout.or(settings.stream_timeout), ..options }
    }

    async fn set(&self, name: &str, value: &str) -> Result<()> {
        if name == settings::DEVICE {
            settings::check_device(value.parse().map_err(|e| Error::Invalid(format!("{e}")))?).await?;
        }
        self.settings.lock().set(name, value)
    }

    fn setting(&self, name: &str) -> Result<RecordBatch> {
        let value = self.settings.lock().get(name)?;
        Ok(RecordBatch::try_new(setting_schema(name), vec![Arc::new(arrow::array::StringArray::from(vec![value]))])?)
    }
}

/// The one statement of a text.
fn parse(text: &str) -> Result<Statement> {
    if text.len() > MAX_SQL_BYTES {
        return Err(Error::Invalid(format!(
            "the statement has {} bytes, more than the {MAX_SQL_BYTES} that are taken: bind values as parameters, or write rows to a table",
            text.len()
        )));
    }
    sql::parse_one(text)
}

/// What a statement declares, for the audit; those about users and grants tell it themselves.
fn declared(statement: &Statement) -> Option<(&'static str, String)> {
    Some(match statement {
        Statement::CreateSource { def, .. } => ("create source", def.name.clone()),
        Statement::DraftSource(draft) => ("create source", draft.name.clone()),
        Statement::SourceAndSink { source, .. } => return declared(source),
        Statement::CreateContinuousView { def, .. } => ("create continuous view", def.name.clone()),
        Statement::CreateView { def, .. } => ("create view", def.name.clone()),
        Statement::CreateTable { def, .. } => ("create table", def.name.clone()),
        Statement::CreateTableAs { name, .. } => ("create table", name.clone()),
        Statement::CreateConnection { def, .. } => ("create connection", def.name.clone()),
        Statement::AlterConnection { name, .. } => ("alter connection", name.clone()),
        Statement::CreateSecret { def, .. } => ("create secret", def.name.clone()),
        Statement::AlterSecret { def } => ("alter secret", def.name.clone()),
        Statement::ShowTopics { connection } => ("look around", connection.clone()),
        Statement::DescribeTopic { connection, .. } => ("look around", connection.clone()),
        Statement::AlterSource { name, .. } => ("alter source", name.clone()),
        Statement::AlterView { name, .. } => ("alter view", name.clone()),
        Statement::Drop { name, .. } => ("drop", name.clone()),
        Statement::CreateSink { def, .. } => ("create sink", def.name.clone()),
        Statement::Pause { kind: ObjectKind::Sink, name, resume: false } => ("pause sink", name.clone()),
        Statement::Pause { kind: ObjectKind::Sink, name, resume: true } => ("resume sink", name.clone()),
        Statement::Pause { name, resume: false, .. } => ("pause view", name.clone()),
        Statement::Pause { name, resume: true, .. } => ("resume view", name.clone()),
        Statement::Kill { id } => ("kill query", id.to_string()),
        _ => return None,
    })
}

fn setting_schema(name: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, false)]))
}

fn rows(batch: RecordBatch) -> Outcome {
    Outcome::Rows(Box::pin(RecordBatchStreamAdapter::new(batch.schema(), futures::stream::iter([Ok(batch)]))))
}

/// Only queries: tables of our own, files to write and settings of the engine are refused.
fn check_allowed(plan: &LogicalPlan) -> Result<()> {
    let what = match plan {
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(_)) => {
            return Err(Error::Unsupported("CREATE EXTERNAL TABLE is not supported: name the file in FROM ('/data/teams.parquet'), below a folder that the server was started with (--allow-path)".into()));
        }
        LogicalPlan::Ddl(ddl) => ddl.name().to_string(),
        LogicalPlan::Copy(_) => "COPY".into(),
        LogicalPlan::Statement(statement) => statement.name().to_string(),
        LogicalPlan::Analyze(analyze) => return check_explained(&analyze.input),
        LogicalPlan::Explain(explain) => return check_explained(&explain.plan),
        _ => return Ok(()),
    };
    Err(Error::Unsupported(format!(
        "{what} is not supported: Tidegate has tables (CREATE TABLE), sources (CREATE SOURCE), continuous views (CREATE CONTINUOUS VIEW) and plain views (CREATE VIEW)"
    )))
}

fn check_explained(plan: &LogicalPlan) -> Result<()> {
    match plan {
        LogicalPlan::Dml(dml) => Err(Error::Unsupported(format!("{} can't be explained: explain the query in it", dml.op))),
        other => check_allowed(other),
    }
}

/// Whether a query says in which order its rows come; what a view of that kind says of its own rows is no promise to those who read it.
fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Limit(_) | LogicalPlan::Projection(_) => plan.inputs().into_iter().any(is_ordered),
        // What it tells is a text of some lines.
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => true,
        _ => false,
    }
}

/// A query's parameters in the order of their numbers. One whose type nothing tells is `Null`: the bound value decides.
fn parameters_of(plan: &LogicalPlan) -> Result<Arc<Schema>> {
    let types = plan.get_parameter_types()?;
    let mut numbered: Vec<(usize, DataType)> = vec![];
    for (name, data_type) in types {
        let number = name.trim_start_matches('$').parse().map_err(|_| Error::Invalid(format!("parameter {name} has no number: write ? or $1, $2, …")))?;
        numbered.push((number, data_type.unwrap_or(DataType::Null)));
    }
    numbered.sort_by_key(|(number, _)| *number);
    if let Some((at, (number, _))) = numbered.iter().enumerate().find(|(at, (number, _))| *number != at + 1) {
        return Err(Error::Invalid(format!("parameter ${number} is used, but ${} is not: number them without gaps", at + 1)));
    }
    let fields: Vec<Field> = numbered.into_iter().map(|(number, data_type)| Field::new(format!("${number}"), data_type, true)).collect();
    Ok(Arc::new(Schema::new(fields)))
}
