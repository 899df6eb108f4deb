//! The Flight service: `arrow-flight`'s Flight SQL dispatch, plus what that hard-codes as unimplemented.

use arrow_flight::{
    Action, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, PollInfo, SchemaAsIpc, SchemaResult, Ticket,
    flight_service_server::FlightService,
    sql::{Any, Command},
};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::{
    flight_sql::FlightSql,
    parameters::Bound,
    statements::{result_schema, ticket_id},
    status::{invalid, status, status_of},
};

/// What is served on the port.
pub(crate) struct Service(pub FlightSql);

impl Service {
    /// Lets a call in or refuses it: whatever it asks for comes behind this. Gives the cookie to offer.
    fn enter<T>(&self, request: &mut Request<T>) -> Result<Option<String>, Status> {
        self.0.sessions.enter(request)
    }

    /// The same for calls that end a statement: whoever has just made the first user, or changed their own password, may still hear that it was
    /// done. Whether that is so is told: then nothing else may be done.
    fn enter_or_leave<T>(&self, request: &mut Request<T>) -> Result<bool, Status> {
        match self.enter(request) {
            Ok(_) => Ok(false),
            Err(refused) => match self.0.sessions.leaving(request) {
                Some(_) => Ok(true),
                None => Err(refused),
            },
        }
    }

    /// Answers a call and offers the session's cookie to a client that has no name for its session yet.
    fn with_cookie<T>(cookie: Option<String>, mut response: Response<T>) -> Response<T> {
        if let Some(Ok(cookie)) = cookie.map(|text| text.parse()) {
            response.metadata_mut().insert("set-cookie", cookie);
        }
        response
    }
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = <FlightSql as FlightService>::HandshakeStream;
    type ListFlightsStream = <FlightSql as FlightService>::ListFlightsStream;
    type DoGetStream = <FlightSql as FlightService>::DoGetStream;
    type DoPutStream = <FlightSql as FlightService>::DoPutStream;
    type DoActionStream = <FlightSql as FlightService>::DoActionStream;
    type ListActionsStream = <FlightSql as FlightService>::ListActionsStream;
    type DoExchangeStream = <FlightSql as FlightService>::DoExchangeStream;

    /// The one call that needs no session: it gives the token for one.
    async fn handshake(&self, request: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        self.0.handshake(request).await
    }

    /// Flights are made by statements: before one is executed there is nothing to list.
    async fn list_flights(&self, mut request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        self.enter(&mut request)?;
        Ok(Response::new(Box::pin(futures::stream::empty())))
    }

    async fn get_flight_info(&self, mut request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let cookie = self.enter(&mut request)?;
        Ok(Self::with_cookie(cookie, self.0.get_flight_info(request).await?))
    }

    /// `GetFlightInfo` never waits for rows, so the first poll already tells everything.
    async fn poll_flight_info(&self, mut request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        self.enter(&mut request)?;
        let info = self.0.get_flight_info(request).await?.into_inner();
        Ok(Response::new(PollInfo { info: Some(info), flight_descriptor: None, progress: Some(1.0), expiration_time: None }))
    }

    /// The schema of a result, without executing anything. ADBC's `ExecuteSchema` asks here.
    async fn get_schema(&self, mut request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        self.enter(&mut request)?;
        let session = self.0.sessions.of(&request)?;
        let any = Any::decode(&*request.get_ref().cmd).map_err(|error| invalid(format!("the command can't be read: {error}")))?;
        let schema = match Command::try_from(any).map_err(|error| invalid(error.to_string()))? {
            Command::CommandStatementQuery(command) => {
                let prepared = session.frontend.prepare(&command.query).await.map_err(status)?;
                result_schema(&session, &prepared, &Bound::none()).await?
            }
            Command::CommandPreparedStatementQuery(command) => {
                let statement = self.0.statements.prepared(&command.prepared_statement_handle, session.who())?;
                let bound = statement.bound.lock().clone().unwrap_or_else(Bound::none);
                result_schema(&statement.session, &statement.prepared, &bound).await?
            }
            Command::CommandStatementUpdate(_) | Command::CommandPreparedStatementUpdate(_) | Command::CommandStatementIngest(_) => {
                return Err(invalid("an update has no result to describe"));
            }
            // A metadata command's FlightInfo costs nothing and has no effect.
            _ => {
                let info = self.0.get_flight_info(request).await?.into_inner();
                return Ok(Response::new(SchemaResult { schema: info.schema }));
            }
        };
        let result = SchemaAsIpc::new(&schema, &Default::default()).try_into().map_err(status_of)?;
        Ok(Response::new(result))
    }

    async fn do_get(&self, mut request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        if self.enter_or_leave(&mut request)? {
            let session = self.0.sessions.of(&request)?;
            let done = ticket_id(&request.get_ref().ticket).is_some_and(|id| self.0.statements.has_taken_effect(&id, session.who()));
            if !done {
                self.enter(&mut request)?;
            }
        }
        self.0.do_get(request).await
    }

    async fn do_put(&self, mut request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        self.enter(&mut request)?;
        self.0.do_put(request).await
    }

    async fn do_action(&self, mut request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let ends = matches!(request.get_ref().r#type.as_str(), "ClosePreparedStatement" | "CloseSession");
        let cookie = match ends {
            true => {
                self.enter_or_leave(&mut request)?;
                None
            }
            false => self.enter(&mut request)?,
        };
        Ok(Self::with_cookie(cookie, self.0.do_action(request).await?))
    }

    async fn list_actions(&self, mut request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.enter(&mut request)?;
        self.0.list_actions(request).await
    }

    async fn do_exchange(&self, mut request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.enter(&mut request)?;
        self.0.do_exchange(request).await
    }
}
