//! The server as a client meets it: real gRPC on a free port, over a backend on plain DataFusion.
#![allow(clippy::unwrap_used)]

mod double;
mod results;
mod sessions;
mod statements;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema},
    util::pretty::pretty_format_batches,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, FlightDescriptor, FlightInfo, IpcMessage, Ticket,
    sql::{
        CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetTables,
        CommandGetXdbcTypeInfo, CommandStatementQuery, ProstMessageExt, TicketStatementQuery, client::FlightSqlServiceClient,
    },
};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{Code, transport::Channel};

use self::double::Double;
use super::{
    Options, Server,
    session_options::{GetSessionOptionsResult, OneOption, OptionValue, SetSessionOptionsRequest, SetSessionOptionsResult},
};
use crate::error::Result;

type Client = FlightSqlServiceClient<Channel>;

struct Running {
    backend: Arc<Double>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<()>>,
}

impl Running {
    async fn start() -> Self {
        let backend = Double::new();
        let server = Server::bind(backend.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let server = server.with_options(Options { heartbeat: Duration::from_millis(100), ..Options::default() });
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async { drop(stopped.await) }));
        Self { backend, address, stop: Some(stop), task }
    }

    async fn client(&self) -> Client {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        let inner = arrow_flight::flight_service_client::FlightServiceClient::new(channel).max_decoding_message_size(16 << 20);
        Client::new_from_inner(inner)
    }

    fn executed(&self) -> usize {
        self.backend.executed.load(Ordering::SeqCst)
    }

    async fn until_alive(&self, count: usize) {
        let reached = async {
            while self.backend.alive.load(Ordering::SeqCst) != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reached).await.expect("the number of live streams is reached");
    }
}

fn ticket(info: &FlightInfo) -> Ticket {
    assert_eq!(info.endpoint.len(), 1, "some clients want exactly one endpoint");
    assert!(info.endpoint[0].location.is_empty());
    info.endpoint[0].ticket.clone().unwrap()
}

/// Fetches a result, checking that its schema is the one that was told.
async fn fetch(client: &mut Client, info: FlightInfo) -> Vec<RecordBatch> {
    let told = info.clone().try_decode_schema().unwrap();
    let mut stream = client.do_get(ticket(&info)).await.unwrap();
    let batches: Vec<RecordBatch> = (&mut stream).try_collect().await.unwrap();
    assert_eq!(stream.schema().unwrap().as_ref(), &told);
    batches
}

async fn query(client: &mut Client, sql: &str) -> Vec<RecordBatch> {
    let info = client.execute(sql.into(), None).await.unwrap();
    fetch(client, info).await
}

async fn check(client: &mut Client, sql: &str, expected: &str) {
    let shown = pretty_format_batches(&query(client, sql).await).unwrap().to_string();
    let trimmed: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), trimmed);
}

fn one_row(columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_from_iter(columns.into_iter().enumerate().map(|(at, column)| (at.to_string(), column))).unwrap()
}

fn code(error: arrow_flight::error::FlightError) -> (Code, String) {
    match error {
        arrow_flight::error::FlightError::Tonic(status) => (status.code(), status.message().to_owned()),
        other => panic!("not a status: {other}"),
    }
}
