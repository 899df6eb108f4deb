//! What a statement of the dialect becomes.

use std::time::Duration;

use datafusion::sql::parser::Statement as DataFusionStatement;

use super::subscribe::SubscribeOptions;
pub use crate::catalog::ObjectKind;
use crate::catalog::{
    ConnectionDef, Emit, Format, HeaderFilter, KafkaDef, KeyFormat, OptionValue, PlainViewDef, SecretDef, SinkDef, SourceDef, Subject, TableDef, ViewDef,
};

pub use super::{
    format_options::SchemaWanted,
    grants::GrantStatement,
    users::{Secret, UserStatement},
};

/// One parsed statement.
#[derive(Debug, Clone)]
pub enum Statement {
    /// `CREATE SOURCE [IF NOT EXISTS] …`, or `CREATE [UNBOUNDED] EXTERNAL TABLE … STORED AS KAFKA …`.
    CreateSource {
        /// The declaration, valid.
        def: SourceDef,
        /// A taken name is no error.
        if_not_exists: bool,
    },
    /// The same where a schema or the columns are to be found out first.
    DraftSource(SourceDraft),
    /// `CREATE SOURCE … ERRORS TO KAFKA (…)`.
    SourceAndSink {
        /// The source: one of the two above.
        source: Box<Statement>,
        /// The sink of its bad records.
        sink: SinkDef,
    },
    /// `EXPLAIN CREATE SOURCE …`: the statement that would be run, with all that is found out (nothing is created).
    ExplainSource(Box<Statement>),
    /// `CREATE [OR REPLACE] CONTINUOUS VIEW | MATERIALIZED VIEW [IF NOT EXISTS] … [clauses]`.
    CreateContinuousView {
        /// The declaration; its query is syntactically valid but not planned yet.
        def: ViewDef,
        /// A taken name is no error.
        if_not_exists: bool,
        /// A view of that name is replaced.
        or_replace: bool,
    },
    /// `CREATE [OR REPLACE] VIEW [IF NOT EXISTS] … AS …`: a name for a query, expanded where it is used.
    CreateView {
        /// The declaration.
        def: PlainViewDef,
        /// A taken name is no error.
        if_not_exists: bool,
        /// A view of that name is replaced.
        or_replace: bool,
    },
    /// `CREATE SINK [IF NOT EXISTS] name INTO … AS …`.
    CreateSink {
        /// The declaration; its query is syntactically valid but not planned yet.
        def: SinkDef,
        /// A taken name is no error.
        if_not_exists: bool,
    },
    /// `CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name (columns)`.
    CreateTable {
        /// The declaration, valid.
        def: TableDef,
        /// What becomes of a table of that name.
        taken: Taken,
    },
    /// `CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name [(columns)] AS query`.
    CreateTableAs {
        /// The table's name, one that can be given.
        name: String,
        /// What becomes of a table of that name.
        taken: Taken,
        /// The columns that the query's are put into, by their place; else the table has the query's.
        declared: Option<TableDef>,
        /// The query, as under [`Statement::DataFusion`].
        query: Box<DataFusionStatement>,
    },
    /// `CREATE CONNECTION [IF NOT EXISTS] name TO KAFKA (…) [WITH (validate = …)]`.
    CreateConnection {
        /// The declaration, valid.
        def: ConnectionDef,
        /// A taken name is no error.
        if_not_exists: bool,
        /// The broker has to answer first.
        validate: bool,
    },
    /// `ALTER CONNECTION name SET (…) | RESET (…) [WITH (validate = …)]`.
    AlterConnection {
        /// The connection.
        name: String,
        /// Options that it is to have.
        set: Vec<(String, OptionValue)>,
        /// Options that it is no longer to have.
        reset: Vec<String>,
        /// The broker has to answer first.
        validate: bool,
    },
    /// `CREATE SECRET [IF NOT EXISTS] name AS '…'`.
    CreateSecret {
        /// The declaration.
        def: SecretDef,
        /// A taken name is no error.
        if_not_exists: bool,
    },
    /// `ALTER SECRET name AS '…'`.
    AlterSecret {
        /// What it is to be.
        def: SecretDef,
    },
    /// `SHOW TOPICS FROM CONNECTION name`.
    ShowTopics {
        /// The connection.
        connection: String,
    },
    /// `DESCRIBE TOPIC 'topic' FROM CONNECTION name`.
    DescribeTopic {
        /// The topic.
        topic: String,
        /// The connection.
        connection: String,
    },
    /// `ALTER SOURCE name ADD COLUMN [IF NOT EXISTS] …`.
    AlterSource {
        /// The source.
        name: String,
        /// The new column's name.
        column: String,
        /// The column as it was written.
        declaration: String,
        /// A column that is there is no error.
        if_not_exists: bool,
    },
    /// `DROP SOURCE | TABLE | SINK | [CONTINUOUS | MATERIALIZED] VIEW [IF EXISTS] name [CASCADE | RESTRICT]`.
    Drop {
        /// What is to go.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// An unknown name is no error.
        if_exists: bool,
        /// What depends on it goes too.
        cascade: bool,
    },
    /// `ALTER VIEW name SET (memory_limit = '…')`.
    AlterView {
        /// The view.
        name: String,
        /// How many bytes it may hold.
        memory_limit: usize,
    },
    /// `PAUSE VIEW | SINK name`, `RESUME VIEW | SINK name`.
    Pause {
        /// Whether it is a view or a sink.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// Whether it is to go on.
        resume: bool,
    },
    /// `SHOW SOURCES | VIEWS | …`.
    Show(Show),
    /// `SHOW CREATE SOURCE | VIEW | TABLE name`; `None`: `TABLE`, whatever has the name.
    ShowCreate {
        /// What kind was named.
        kind: Option<ObjectKind>,
        /// Its name.
        name: String,
    },
    /// `EXPLAIN VIEW name` or `EXPLAIN CREATE CONTINUOUS VIEW …` (nothing is created).
    ExplainView(ExplainView),
    /// `EXPLAIN ANALYZE VIEW name [FOR INTERVAL …]`: what a running view's operators do meanwhile.
    AnalyzeView {
        /// The view.
        name: String,
        /// How long to look.
        duration: Duration,
    },
    /// `CREATE | ALTER | DROP USER | ROLE …`.
    User(UserStatement),
    /// `GRANT …`, `REVOKE …`.
    Grant(GrantStatement),
    /// `ALTER SOURCE | TABLE | VIEW name OWNER TO user`.
    AlterOwner {
        /// What was named.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// Who is to own it.
        owner: String,
    },
    /// `SHOW USERS`.
    ShowUsers,
    /// `SHOW GRANTS [FOR name]`.
    ShowGrants {
        /// Whose; `None`: all that one may see.
        of: Option<String>,
    },
    /// `KILL QUERY id`.
    Kill {
        /// The query's number, as `SHOW QUERIES` lists it.
        id: u64,
    },
    /// A query that ends in `EMIT …`: a subscription.
    Subscribe {
        /// The query as text, window functions rewritten, without its EMIT clause.
        query: String,
        /// What was asked for.
        emit: Emit,
        /// How it begins and ends.
        options: SubscribeOptions,
    },
    /// `SET name = value` for names that begin with `tidegate.`.
    Set {
        /// The setting, with its `tidegate.` prefix, in lower case.
        name: String,
        /// Its value as text.
        value: String,
    },
    /// `SHOW tidegate.name`.
    ShowSetting(String),
    /// `SELECT … AS OF EPOCH n`, or its EXPLAIN: all names in it mean that epoch.
    AsOf {
        /// The epoch.
        epoch: u64,
        /// The query without the clause, as under [`Statement::DataFusion`].
        statement: Box<DataFusionStatement>,
    },
    /// Everything else is DataFusion's, with window functions in FROM rewritten and `?` numbered as `$1`, `$2`, ….
    DataFusion(Box<DataFusionStatement>),
}

/// The declaration of a source that leaves something to be found out, which then is written into its statement: what is stored is whole.
#[derive(Debug, Clone)]
pub struct SourceDraft {
    /// The source's name, one that can be given.
    pub name: String,
    /// A taken name is no error.
    pub if_not_exists: bool,
    /// Schemas that are to be looked up.
    pub schemas: Vec<SchemaWanted>,
    /// Which columns are to be found out, if some are.
    pub open: Option<OpenColumns>,
    /// Its topic, and the connection and secrets that it names.
    pub kafka: KafkaDef,
    /// The statement.
    pub text: String,
}

/// Columns of a source that are to be found out.
#[derive(Debug, Clone)]
pub struct OpenColumns {
    /// How payloads are written, where that is known already.
    pub format: Option<Format>,
    /// How keys are written, where that is said and known.
    pub key_format: Option<KeyFormat>,
    /// The columns that the statement declares; the others stand beside them.
    pub declared: Vec<String>,
    /// The columns of the primary key.
    pub key: Vec<String>,
    /// Where JSON's schema is, if a registry has it.
    pub subject: Option<Subject>,
    /// Which records count.
    pub header_filter: Option<HeaderFilter>,
}

/// What a statement that makes a table does where there is one of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It fails.
    Refused,
    /// It leaves that one: `IF NOT EXISTS`.
    Left,
    /// It puts its own in that one's place: `OR REPLACE`.
    Replaced,
}

/// What `SHOW` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Sources with their state.
    Sources,
    /// Views with their state.
    Views,
    /// Sinks with their state.
    Sinks,
    /// Tables, views and sources that can be queried.
    Tables,
    /// Running statements and subscriptions.
    Queries,
    /// Connections.
    Connections,
    /// The names of secrets.
    Secrets,
}

/// Which view `EXPLAIN` is about.
#[derive(Debug, Clone)]
pub enum ExplainView {
    /// One that exists.
    Named(String),
    /// One that the statement declares.
    Declared {
        /// The declaration.
        def: ViewDef,
        /// It says `OR REPLACE`.
        or_replace: bool,
    },
}
