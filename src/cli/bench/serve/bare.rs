//! A Flight server that sends batches from memory and does nothing else: what `arrow-flight` itself can do.

use arrow::array::RecordBatch;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult,
    Ticket,
    encode::FlightDataEncoderBuilder,
    flight_service_server::{FlightService, FlightServiceServer},
};
use futures::{StreamExt, stream::BoxStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

struct Bare {
    batches: Vec<RecordBatch>,
}

/// Serves these batches on a free port of loopback; the address.
pub(super) async fn serve(batches: Vec<RecordBatch>) -> anyhow::Result<(String, tokio::task::JoinHandle<()>)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let incoming = TcpListenerStream::new(listener).inspect(|stream| {
        // A failure only costs latency.
        let _ = stream.as_ref().map(|stream| stream.set_nodelay(true));
    });
    let serving = tokio::spawn(async move {
        let service = FlightServiceServer::new(Bare { batches });
        if let Err(error) = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await {
            tracing::error!("the bare server failed: {error}");
        }
    });
    Ok((url, serving))
}

fn nothing<T>() -> Result<T, Status> {
    Err(Status::unimplemented("this server sends batches and does nothing else"))
}

#[tonic::async_trait]
impl FlightService for Bare {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn do_get(&self, ticket: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let streams = std::str::from_utf8(&ticket.get_ref().ticket).ok().and_then(|ticket| ticket.split_once('/'));
        let part = streams.and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok().filter(|parts| *parts > 0)?)));
        let (part, parts): (usize, usize) = part.ok_or_else(|| Status::invalid_argument("a ticket says which part of how many it stands for, as in 0/4"))?;
        let batches = futures::stream::iter(self.batches.clone().into_iter().skip(part).step_by(parts)).map(Ok);
        Ok(Response::new(FlightDataEncoderBuilder::new().build(batches).map(|message| message.map_err(Status::from)).boxed()))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        nothing()
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        nothing()
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        nothing()
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        nothing()
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        nothing()
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        nothing()
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        nothing()
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        nothing()
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        nothing()
    }
}
