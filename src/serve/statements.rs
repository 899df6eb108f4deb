//! Statements between their calls: prepared, executed once, told as a ticket, fetched.
//!
//! A statement that is not a query takes effect when its `FlightInfo` is asked for, exactly once; its ticket stands for the finished execution.
//! (Executed at `DoGet` it might never run: ADBC cancels a `DoGet` whose cursor is used again.) A query only runs at `DoGet`, and may run again there.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
    ipc::CompressionType,
};
use arrow_flight::{
    FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc, Ticket,
    sql::{ProstMessageExt, TicketStatementQuery},
};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use parking_lot::Mutex;
use prost::{Message, bytes::Bytes};
use tokio::sync::watch;
use tonic::Status;

use super::{
    kept::{self, Keeper, Kept, Place},
    parameters::Bound,
    parts::Parts,
    registry::{ID_BYTES, Registry},
    rows::Rows,
    sessions::{ClientSession, InUse},
    status::{invalid, status, status_of},
    wire::wire_schema,
};
use crate::{
    access::Who,
    error::{Error, Result},
    session::{Compression, Delivery, Outcome, Prepared},
};

/// How long a ticket that nobody uses can be redeemed.
const TICKET_IDLE: Duration = Duration::from_secs(600);
/// The most tickets; the oldest go first.
const MAX_TICKETS: usize = 65_536;
/// The most prepared statements of all sessions; the oldest go first.
const MAX_PREPARED: usize = 65_536;

/// A statement that a client has prepared.
pub(crate) struct PreparedStatement {
    /// The session that prepared it, and runs it whoever holds the handle.
    pub session: Arc<ClientSession>,
    /// What is known of it.
    pub prepared: Prepared,
    /// The values that were bound last.
    pub bound: Mutex<Option<Bound>>,
    /// Count it for as long as it is there.
    _counted: (Place, Kept),
}

impl PreparedStatement {
    /// One more of a session's, if it may have that many.
    pub fn new(session: Arc<ClientSession>, prepared: Prepared, keeper: &Keeper) -> Result<Self, Status> {
        let bytes = prepared.sql.len() + kept::schema_bytes(&prepared.schema) + kept::schema_bytes(&prepared.parameters);
        let _counted = (keeper.place(&session)?, keeper.keep(bytes)?);
        Ok(Self { session, prepared, bound: Mutex::new(None), _counted })
    }
}

/// What a ticket stands for.
pub(crate) struct Execution {
    session: Arc<ClientSession>,
    /// The schema that the client was told.
    schema: SchemaRef,
    /// The query to run; `None` for a statement that has already taken effect.
    query: Option<Query>,
    /// The parts that its rows come in, where the client has asked for several.
    parts: Option<Parts>,
    compression: Option<CompressionType>,
    cancelled: watch::Sender<bool>,
    _kept: Kept,
}

struct Query {
    sql: String,
    bound: Bound,
    is_unbounded: bool,
}

/// Prepared statements and tickets of all sessions.
pub(crate) struct Statements {
    /// Prepared statements by handle.
    pub prepared: Registry<PreparedStatement>,
    /// Executions by the id in their ticket.
    tickets: Registry<Execution>,
    /// Counts what they keep.
    pub keeper: Keeper,
    heartbeat: Duration,
    stopping: watch::Receiver<bool>,
}

impl Statements {
    /// None yet.
    pub fn new(heartbeat: Duration, keeper: Keeper, stopping: watch::Receiver<bool>) -> Self {
        let (prepared, tickets) = (Registry::new(MAX_PREPARED, keeper.limits.session_timeout), Registry::new(MAX_TICKETS, TICKET_IDLE));
        Self { prepared, tickets, keeper, heartbeat, stopping }
    }

    /// The prepared statement of a handle.
    /// To others than those whose it is, it is unknown.
    pub fn prepared(&self, handle: &[u8], who: &Who) -> Result<Arc<PreparedStatement>, Status> {
        self.prepared
            .get_if(handle, |prepared| prepared.session.who() == who)
            .ok_or_else(|| Status::not_found("the prepared statement is closed or unknown: prepare it again"))
    }

    /// Answers `GetFlightInfo`: executes what is not a query, and tells a query's schema and ticket.
    pub async fn info(
        &self,
        session: Arc<ClientSession>,
        prepared: &Prepared,
        bound: Option<Bound>,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let bound = required(prepared, bound)?;
        // Before anything takes effect.
        let kept = self.keeper.keep(if prepared.is_query { prepared.sql.len() + kept::schema_bytes(&prepared.schema) } else { 0 })?;
        let (schema, query, touched) = if prepared.is_query {
            if prepared.is_unbounded && bound.rows.len() != 1 {
                return Err(invalid("a subscription takes one row of parameters"));
            }
            let schema = result_schema(&session, prepared, &bound).await?;
            (schema, Some(Query { sql: prepared.sql.clone(), bound, is_unbounded: prepared.is_unbounded }), None)
        } else {
            let touched = execute_whole(session.clone(), prepared.clone(), bound).await?;
            (Arc::new(Schema::empty()), None, touched)
        };
        let (cancelled, _) = watch::channel(false);
        let Delivery { endpoints, compression } = session.frontend.delivery();
        let parts = (prepared.is_divisible && query.is_some() && endpoints > 1).then(|| Parts::new(endpoints));
        let compression = match compression {
            Compression::None => None,
            Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
            Compression::Zstd => Some(CompressionType::ZSTD),
        };
        let count = parts.as_ref().map_or(1, Parts::count);
        let execution = Execution { session, schema: schema.clone(), query, parts, compression, cancelled, _kept: kept };
        let id = self.tickets.insert(Arc::new(execution));
        let tickets = (0..count).map(|part| TicketStatementQuery { statement_handle: handle(&id, part) }.as_any().encode_to_vec());
        // Where rows were touched, ADBC takes their number from here.
        Ok(info(&schema, tickets, descriptor)?.with_total_records(touched.unwrap_or(-1)))
    }

    /// What a ticket stands for, now just used; to others than those whose it is, it is unknown.
    pub fn ticket(&self, id: &[u8], who: &Who) -> Option<Arc<Execution>> {
        self.tickets.get_if(named(id)?.0, |execution| execution.session.who() == who)
    }

    /// Whether a ticket stands for a statement that has taken effect, and gives no rows.
    pub fn has_taken_effect(&self, id: &[u8], who: &Who) -> bool {
        self.ticket(id, who).is_some_and(|execution| execution.query.is_none())
    }

    /// Answers `DoGet`: runs the query, or gives the empty result of what was executed before.
    pub fn rows(&self, ticket: &[u8], who: &Who) -> Result<Rows, Status> {
        let unknown = || Status::not_found("the ticket is unknown or has expired: execute the statement again");
        let execution = self.ticket(ticket, who).ok_or_else(unknown)?;
        if *execution.cancelled.borrow() {
            return Err(Status::cancelled("the statement was cancelled"));
        }
        let (batches, heartbeat) = match (&execution.query, &execution.parts) {
            (None, _) => (futures::stream::empty().boxed(), None),
            (Some(query), None) => (run(execution.session.clone(), query), query.is_unbounded.then_some(self.heartbeat)),
            (Some(query), Some(parts)) => {
                let (_, part) = named(ticket).ok_or_else(unknown)?;
                (parts.fetch(part, || run(execution.session.clone(), query))?, None)
            }
        };
        let (cancelled, stopping) = (execution.cancelled.subscribe(), self.stopping.clone());
        Ok(Rows { batches, schema: execution.schema.clone(), compression: execution.compression, heartbeat, cancelled, stopping })
    }

    /// Cancels the executions that a `FlightInfo` names; says whether there were any.
    pub fn cancel(&self, info: &FlightInfo, who: &Who) -> bool {
        let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
        let executions = tickets.filter_map(|ticket| self.ticket(&ticket_id(&ticket.ticket)?, who));
        let mut any = false;
        for execution in executions {
            execution.cancelled.send_replace(true);
            any = true;
        }
        any
    }

    /// Forgets what has been idle too long.
    pub fn sweep(&self) {
        self.prepared.sweep();
        self.tickets.sweep();
    }
}

/// What names a part of a result: the id, and behind it the part, but for the first.
fn handle(id: &[u8], part: u16) -> Bytes {
    match part {
        0 => Bytes::copy_from_slice(id),
        _ => [id, &part.to_be_bytes()].concat().into(),
    }
}

/// The id and the part that a handle names.
fn named(handle: &[u8]) -> Option<(&[u8], u16)> {
    let (id, part) = handle.split_at_checked(ID_BYTES)?;
    match part {
        [] => Some((id, 0)),
        [0, 0] => None,
        [high, low] => Some((id, u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

/// The id in a statement's ticket.
pub(crate) fn ticket_id(ticket: &[u8]) -> Option<Bytes> {
    let any = arrow_flight::sql::Any::decode(ticket).ok()?;
    let statement: TicketStatementQuery = any.unpack().ok()??;
    Some(statement.statement_handle)
}

/// A `FlightInfo` whose endpoints, one a ticket, are all on this server.
pub(crate) fn info(schema: &Schema, tickets: impl IntoIterator<Item = Vec<u8>>, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
    let info = FlightInfo::new().try_with_schema(schema).map_err(status_of)?;
    let endpoints = tickets.into_iter().map(|ticket| FlightEndpoint::new().with_ticket(Ticket::new(ticket)));
    let info = endpoints.fold(info, FlightInfo::with_endpoint);
    Ok(info.with_descriptor(descriptor).with_total_records(-1).with_total_bytes(-1))
}

/// A schema as the bytes that actions carry it in.
pub(crate) fn schema_bytes(schema: &Schema) -> Result<Bytes, Status> {
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &Default::default()).try_into().map_err(status_of)?;
    Ok(bytes)
}

/// The schema under which a query's rows will come, given its parameters.
pub(crate) async fn result_schema(session: &ClientSession, prepared: &Prepared, bound: &Bound) -> Result<SchemaRef, Status> {
    if !prepared.is_query {
        return Ok(Arc::new(Schema::empty()));
    }
    let (true, Some(first)) = (bound.types_differ, bound.rows.first()) else {
        return Ok(wire_schema(&prepared.schema));
    };
    // The plan left types open that the values settle: only planning with the values tells. The stream does nothing before it is polled.
    match session.frontend.execute(&prepared.sql, first).await.map_err(status)? {
        Outcome::Rows(rows) => Ok(wire_schema(&rows.schema())),
        Outcome::Done(_) => Err(status(Error::Internal("a query gave no rows".into()))),
    }
}

/// The values to execute a statement with; an error if it needs some and has none.
fn required(prepared: &Prepared, bound: Option<Bound>) -> Result<Bound, Status> {
    match (bound, prepared.parameters.fields().len()) {
        (Some(bound), _) => Ok(bound),
        (None, 0) => Ok(Bound::none()),
        (None, count) => Err(invalid(format!("the statement has {count} parameters and no values are bound: prepare it and bind them"))),
    }
}

/// Executes a statement for its effect, once for each row of parameters; tells how many rows it touched.
/// Executions before one that fails have taken effect, but those of an INSERT of VALUES: there are no transactions.
pub(crate) async fn update(session: Arc<ClientSession>, prepared: &Prepared, bound: Option<Bound>) -> Result<i64, Status> {
    if prepared.is_unbounded {
        return Err(invalid("a subscription never ends, so it can't be executed as an update: read its rows"));
    }
    let bound = required(prepared, bound)?;
    // What makes or drops things touches no rows; Avatica would take -1 ("unknown") for a result set.
    Ok(execute_whole(session, prepared.clone(), bound).await?.unwrap_or(0))
}

/// Executes on a task of its own: a client that hangs up in the middle must not leave a statement half done.
async fn execute_whole(session: Arc<ClientSession>, prepared: Prepared, bound: Bound) -> Result<Option<i64>, Status> {
    let running = tokio::spawn(async move {
        let _in_use = InUse::of(session.clone());
        execute(&session, &prepared, &bound).await
    });
    running.await.unwrap_or_else(|_| Err(status(Error::Internal("the statement's execution panicked, see the server's log".into()))))
}

/// Executes once for each row of parameters; how many rows were touched, if the statement is of that kind.
async fn execute(session: &ClientSession, prepared: &Prepared, bound: &Bound) -> Result<Option<i64>, Status> {
    let count = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
    if !prepared.is_query && bound.rows.len() > 1 {
        return Ok(Some(count(session.frontend.execute_many(&prepared.sql, &bound.rows).await.map_err(status)?)));
    }
    let mut touched: Option<i64> = None;
    for values in bound.rows.iter() {
        let more = match session.frontend.execute(&prepared.sql, values).await.map_err(status)? {
            Outcome::Done(rows) => rows.map(count),
            Outcome::Rows(mut rows) => {
                let mut read = 0u64;
                while let Some(batch) = rows.try_next().await.map_err(status_of)? {
                    read = read.saturating_add(batch.num_rows() as u64);
                }
                Some(count(read))
            }
        };
        touched = touched.map_or(more, |before| Some(before.saturating_add(more.unwrap_or(0))));
    }
    Ok(touched)
}

/// The batches of a query; with several rows of parameters, one run follows the other.
/// Each run starts when it is polled for, so that heartbeats flow also while a start waits for a broker.
fn run(session: Arc<ClientSession>, query: &Query) -> BoxStream<'static, Result<RecordBatch>> {
    let (sql, bound, in_use) = (query.sql.clone(), query.bound.clone(), InUse::of(session.clone()));
    let runs = futures::stream::iter(0..bound.rows.len()).then(move |at| {
        let (session, sql, bound) = (session.clone(), sql.clone(), bound.clone());
        async move {
            match session.frontend.execute(&sql, &bound.rows[at]).await? {
                Outcome::Rows(rows) => Ok(rows.map_err(Error::from)),
                Outcome::Done(_) => Err(Error::Internal("a query gave no rows".into())),
            }
        }
    });
    let batches = runs.try_flatten().inspect(move |_| {
        let _held = &in_use;
    });
    batches.boxed()
}
