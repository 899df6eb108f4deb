//! The commands of Flight SQL, each handed to the module that answers it.

use std::{pin::Pin, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    RenewFlightEndpointRequest, Ticket,
    flight_service_server::FlightService,
    sql::{
        ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest, ActionBeginTransactionResult, ActionCancelQueryRequest,
        ActionCancelQueryResult, ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
        ActionEndTransactionRequest, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
        CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery,
        CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery, CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt,
        SqlInfo, TicketStatementQuery,
        server::{DoPutError, FlightSqlService, PeekableFlightDataStream},
    },
};
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Options,
    frontend::Backend,
    ingest,
    kept::Keeper,
    metadata, parameters,
    rows::Rows,
    session_options::{self, CloseSessionResult, CloseSessionStatus},
    sessions::Sessions,
    sql_info::SQL_INFO,
    statements::{PreparedStatement, Statements, info, schema_bytes, ticket_id, update},
    status::{invalid, status},
    xdbc,
};
use crate::{access::Who, session::TableInfo};

type DoGetResponse = Response<<FlightSql as FlightService>::DoGetStream>;

/// What is shared by all connections.
pub(crate) struct FlightSql {
    /// Whose call it is.
    pub sessions: Arc<Sessions>,
    /// What was prepared and executed.
    pub statements: Arc<Statements>,
    stopping: watch::Receiver<bool>,
}

impl FlightSql {
    /// A service over a backend, whose results end when `stopping` turns true.
    pub fn new(backend: Arc<dyn Backend>, options: Options, stopping: watch::Receiver<bool>) -> Self {
        let keeper = Keeper::new(options.limits.clone(), backend.clients());
        let statements = Arc::new(Statements::new(options.heartbeat, keeper, stopping.clone()));
        Self { sessions: Sessions::new(backend, options.limits), statements, stopping }
    }

    async fn tables<T>(&self, request: &Request<T>) -> Result<Vec<TableInfo>, Status> {
        self.sessions.of(request)?.frontend.tables().await.map_err(status)
    }

    /// Sends a finished batch.
    fn batch(&self, batch: arrow_flight::error::Result<RecordBatch>) -> Result<DoGetResponse, Status> {
        let batch = batch.map_err(Status::from)?;
        let schema = batch.schema();
        // Nobody can cancel what is already there.
        let (_, cancelled) = watch::channel(false);
        let batches = futures::stream::iter([Ok(batch)]).boxed();
        respond(Rows { batches, schema, compression: None, heartbeat: None, cancelled, stopping: self.stopping.clone() })
    }

    fn cancel(&self, info: &FlightInfo, who: &Who) -> Result<(), Status> {
        if self.statements.cancel(info, who) { Ok(()) } else { Err(Status::not_found("no statement has this ticket: it has ended or expired")) }
    }
}

fn respond(rows: Rows) -> Result<DoGetResponse, Status> {
    Ok(Response::new(Box::pin(rows.into_messages()?)))
}

/// The `FlightInfo` of a metadata command: its ticket is the command itself, which says all there is to say.
fn told(command: &impl ProstMessageExt, schema: SchemaRef, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
    Ok(Response::new(info(&schema, [command.as_any().encode_to_vec()], request.into_inner())?))
}

/// One result message of an action.
fn acted(message: impl Message) -> Response<<FlightSql as FlightService>::DoActionStream> {
    let result = arrow_flight::Result { body: message.encode_to_vec().into() };
    Response::new(Box::pin(futures::stream::iter([Ok(result)])))
}

/// A statement that believes to be part of a transaction must not take effect by itself.
fn outside_transactions(id: Option<&[u8]>) -> Result<(), Status> {
    if id.is_some_and(|id| !id.is_empty()) { Err(no_transactions()) } else { Ok(()) }
}

fn no_transactions() -> Status {
    Status::unimplemented("there are no transactions: every statement takes effect by itself (autocommit)")
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>>, Status> {
        let token = self.sessions.token(&request).await?;
        // ADBC and JDBC read the token from the header, arrow-rs's client from either, others from the payload.
        let header = format!("Bearer {token}").parse().map_err(|_| invalid("the bearer token is not printable"))?;
        let answer = HandshakeResponse { protocol_version: 0, payload: token.into_bytes().into() };
        let mut response: Response<Pin<Box<dyn Stream<Item = _> + Send>>> = Response::new(Box::pin(futures::stream::iter([Ok(answer)])));
        response.metadata_mut().insert("authorization", header);
        Ok(response)
    }

    // Statements.

    async fn get_flight_info_statement(&self, command: CommandStatementQuery, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        outside_transactions(command.transaction_id.as_deref())?;
        let session = self.sessions.of(&request)?;
        let prepared = session.frontend.prepare(&command.query).await.map_err(status)?;
        Ok(Response::new(self.statements.info(session, &prepared, None, request.into_inner()).await?))
    }

    async fn get_flight_info_prepared_statement(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let statement = self.statements.prepared(&command.prepared_statement_handle, self.sessions.of(&request)?.who())?;
        let bound = statement.bound.lock().clone();
        Ok(Response::new(self.statements.info(statement.session.clone(), &statement.prepared, bound, request.into_inner()).await?))
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Result<DoGetResponse, Status> {
        let session = self.sessions.of(&request)?;
        respond(self.statements.rows(&ticket.statement_handle, session.who())?)
    }

    async fn do_put_statement_update(&self, command: CommandStatementUpdate, request: Request<PeekableFlightDataStream>) -> Result<i64, Status> {
        outside_transactions(command.transaction_id.as_deref())?;
        let session = self.sessions.of(&request)?;
        let prepared = session.frontend.prepare(&command.query).await.map_err(status)?;
        update(session, &prepared, None).await
    }

    async fn do_put_prepared_statement_query(
        &self,
        command: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let statement = self.statements.prepared(&command.prepared_statement_handle, self.sessions.of(&request)?.who())?;
        if let Some(batches) = parameters::read(request.into_inner()).await? {
            let bound = parameters::bind(&batches, &statement.prepared.parameters)?.kept(&self.statements.keeper)?;
            *statement.bound.lock() = Some(bound);
        }
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(command.prepared_statement_handle) })
    }

    async fn do_put_prepared_statement_update(
        &self,
        command: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let statement = self.statements.prepared(&command.prepared_statement_handle, self.sessions.of(&request)?.who())?;
        let bound = match parameters::read(request.into_inner()).await? {
            Some(batches) => Some(parameters::bind(&batches, &statement.prepared.parameters)?.kept(&self.statements.keeper)?),
            // arrow-rs's client binds by a call of its own before.
            None => statement.bound.lock().clone(),
        };
        update(statement.session.clone(), &statement.prepared, bound).await
    }

    async fn do_put_statement_ingest(&self, command: CommandStatementIngest, request: Request<PeekableFlightDataStream>) -> Result<i64, Status> {
        outside_transactions(command.transaction_id.as_deref())?;
        let session = self.sessions.of(&request)?;
        let upload = ingest::upload(&command, request.into_inner()).await?;
        let rows = session.frontend.ingest(upload).await.map_err(status)?;
        Ok(i64::try_from(rows).unwrap_or(i64::MAX))
    }

    async fn do_put_error_callback(
        &self,
        _request: Request<PeekableFlightDataStream>,
        error: DoPutError,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        Err(invalid(match error {
            DoPutError::MissingCommand => {
                "an upload begins with a message that holds its command, and there was none: where there is no batch of rows some drivers send nothing, so send one without rows"
            }
            DoPutError::MissingFlightDescriptor => "the first message of an upload holds a flight descriptor",
        }))
    }

    async fn do_action_create_prepared_statement(
        &self,
        command: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        outside_transactions(command.transaction_id.as_deref())?;
        let session = self.sessions.of(&request)?;
        let prepared = session.frontend.prepare(&command.query).await.map_err(status)?;
        let bound = parameters::Bound::none();
        // Without columns, JDBC executes the statement as an update.
        let dataset_schema = schema_bytes(&*super::statements::result_schema(&session, &prepared, &bound).await?)?;
        let parameter_schema = schema_bytes(&parameters::told(&prepared.parameters))?;
        let statement = PreparedStatement::new(session, prepared, &self.statements.keeper)?;
        let handle = self.statements.prepared.insert(Arc::new(statement));
        Ok(ActionCreatePreparedStatementResult { prepared_statement_handle: handle.into(), dataset_schema, parameter_schema })
    }

    async fn do_action_close_prepared_statement(&self, command: ActionClosePreparedStatementRequest, request: Request<Action>) -> Result<(), Status> {
        // Closing twice is no error: drivers do.
        if self.statements.prepared(&command.prepared_statement_handle, self.sessions.of(&request)?.who()).is_ok() {
            self.statements.prepared.remove(&command.prepared_statement_handle);
        }
        Ok(())
    }

    // Actions.

    async fn do_action_cancel_query(&self, command: ActionCancelQueryRequest, request: Request<Action>) -> Result<ActionCancelQueryResult, Status> {
        let session = self.sessions.of(&request)?;
        let info = FlightInfo::decode(command.info).map_err(|error| invalid(format!("the flight info can't be read: {error}")))?;
        self.cancel(&info, session.who())?;
        // 1: cancelled.
        Ok(ActionCancelQueryResult { result: 1 })
    }

    async fn do_action_begin_transaction(
        &self,
        _command: ActionBeginTransactionRequest,
        _request: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        Err(no_transactions())
    }

    async fn do_action_end_transaction(&self, _command: ActionEndTransactionRequest, _request: Request<Action>) -> Result<(), Status> {
        Err(no_transactions())
    }

    async fn do_action_begin_savepoint(&self, _command: ActionBeginSavepointRequest, _request: Request<Action>) -> Result<ActionBeginSavepointResult, Status> {
        Err(no_transactions())
    }

    async fn do_action_fallback(&self, request: Request<Action>) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let session = self.sessions.of(&request)?;
        let Action { r#type, body } = request.into_inner();
        match r#type.as_str() {
            "SetSessionOptions" => Ok(acted(session_options::set(&session, session_options::decode(&body)?).await)),
            "GetSessionOptions" => Ok(acted(session_options::get(&session))),
            "CloseSession" => {
                self.sessions.close(&session);
                Ok(acted(CloseSessionResult { status: CloseSessionStatus::Closed as i32 }))
            }
            "CancelFlightInfo" => {
                let request: CancelFlightInfoRequest = session_options::decode(&body)?;
                self.cancel(&request.info.unwrap_or_default(), session.who())?;
                Ok(acted(CancelFlightInfoResult::new(CancelStatus::Cancelled)))
            }
            "RenewFlightEndpoint" => {
                let request: RenewFlightEndpointRequest = session_options::decode(&body)?;
                let endpoint = request.endpoint.unwrap_or_default();
                let id = endpoint.ticket.as_ref().and_then(|ticket| ticket_id(&ticket.ticket));
                // A look at the ticket is a use of it, which renews it.
                match id.and_then(|id| self.statements.ticket(&id, session.who())) {
                    Some(_) => Ok(acted(endpoint)),
                    None => Err(Status::not_found("the ticket is unknown or has expired: execute the statement again")),
                }
            }
            other => Err(invalid(format!("there is no action '{other}': see ListActions"))),
        }
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let action = |name: &str, description: &str| Ok(ActionType { r#type: name.into(), description: description.into() });
        Some(vec![
            action("SetSessionOptions", "Sets options of the session"),
            action("GetSessionOptions", "Tells the options of the session"),
            action("CloseSession", "Ends the session"),
            action("CancelFlightInfo", "Cancels the statement of a FlightInfo"),
            action("RenewFlightEndpoint", "Keeps a ticket from expiring"),
        ])
    }

    // Metadata.

    async fn get_flight_info_catalogs(&self, command: CommandGetCatalogs, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        told(&command, command.into_builder().schema(), request)
    }

    async fn do_get_catalogs(&self, command: CommandGetCatalogs, request: Request<Ticket>) -> Result<DoGetResponse, Status> {
        self.batch(metadata::catalogs(command, &self.tables(&request).await?))
    }

    async fn get_flight_info_schemas(&self, command: CommandGetDbSchemas, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        told(&command, command.clone().into_builder().schema(), request)
    }

    async fn do_get_schemas(&self, command: CommandGetDbSchemas, request: Request<Ticket>) -> Result<DoGetResponse, Status> {
        self.batch(metadata::schemas(command, &self.tables(&request).await?))
    }

    async fn get_flight_info_tables(&self, command: CommandGetTables, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        told(&command, metadata::tables_schema(command.clone()), request)
    }

    async fn do_get_tables(&self, command: CommandGetTables, request: Request<Ticket>) -> Result<DoGetResponse, Status> {
        let base_table = metadata::base_table(&request)?;
        self.batch(metadata::tables(command, &self.tables(&request).await?, base_table))
    }

    async fn get_flight_info_table_types(&self, command: CommandGetTableTypes, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        told(&command, command.into_builder().schema(), request)
    }

    async fn do_get_table_types(&self, command: CommandGetTableTypes, request: Request<Ticket>) -> Result<DoGetResponse, Status> {
        self.batch(metadata::table_types(command, metadata::base_table(&request)?))
    }

    async fn get_flight_info_sql_info(&self, command: CommandGetSqlInfo, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        told(&command, SQL_INFO.schema(), request)
    }

    async fn do_get_sql_info(&self, command: CommandGetSqlInfo, _request: Request<Ticket>) -> Result<DoGetResponse, Status> {
        self.batch(command.into_builder(&SQL_INFO).build())
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        command: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        told(&command, xdbc::TYPES.schema(), request)
    }

    async fn do_get_xdbc_type_info(&self, command: CommandGetXdbcTypeInfo, _request: Request<Ticket>) -> Result<DoGetResponse, Status> {
        self.batch(command.into_builder(&xdbc::TYPES).build())
    }

    async fn get_flight_info_primary_keys(&self, command: CommandGetPrimaryKeys, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        told(&command, metadata::primary_keys().schema(), request)
    }

    async fn do_get_primary_keys(&self, _command: CommandGetPrimaryKeys, _request: Request<Ticket>) -> Result<DoGetResponse, Status> {
        self.batch(Ok(metadata::primary_keys()))
    }

    async fn get_flight_info_exported_keys(&self, command: CommandGetExportedKeys, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        told(&command, metadata::foreign_keys().schema(), request)
    }

    async fn do_get_exported_keys(&self, _command: CommandGetExportedKeys, _request: Request<Ticket>) -> Result<DoGetResponse, Status> {
        self.batch(Ok(metadata::foreign_keys()))
    }

    async fn get_flight_info_imported_keys(&self, command: CommandGetImportedKeys, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        told(&command, metadata::foreign_keys().schema(), request)
    }

    async fn do_get_imported_keys(&self, _command: CommandGetImportedKeys, _request: Request<Ticket>) -> Result<DoGetResponse, Status> {
        self.batch(Ok(metadata::foreign_keys()))
    }

    async fn get_flight_info_cross_reference(
        &self,
        command: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        told(&command, metadata::foreign_keys().schema(), request)
    }

    async fn do_get_cross_reference(&self, _command: CommandGetCrossReference, _request: Request<Ticket>) -> Result<DoGetResponse, Status> {
        self.batch(Ok(metadata::foreign_keys()))
    }

    /// What the server tells of itself is fixed (see [`SQL_INFO`]).
    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
