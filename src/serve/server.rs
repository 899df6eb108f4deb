//! The listening server: bind, run until told to stop, stop within seconds.

use std::{future::Future, io::ErrorKind, net::{IpAddr, Ipv4Addr, SocketAddr}, sync::Arc, time::Duration};

use arrow_flight::flight_service_server::FlightServiceServer;
use futures::StreamExt;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;

use super::{flight_sql::FlightSql, frontend::Backend, service::Service, sessions::Connection, tls::Transport};
use crate::error::{Error, Result};

/// The largest message that is taken from a client.
const MAX_REQUEST_BYTES: usize = 64 << 20;

/// How long calls may go on after the server was told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// A client that answers no HTTP/2 ping for this long after one was sent is gone.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How often idle sessions, statements and tickets are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// How a server behaves towards its clients.
#[derive(Debug, Clone)]
pub struct Options {
    /// In an unbounded result, an empty batch is sent after this long without rows, so that both ends know the other is there.
    pub heartbeat: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(5) }
    }
}

/// A server that has its port.
pub struct Server {
    backend: Arc<dyn Backend>,
    listener: TcpListener,
    local_addr: SocketAddr,
    options: Options,
}

/// Takes a port; 0 takes any free one. Only on loopback addresses: there is no authentication yet.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(Error::Invalid(format!("can't listen on {address}: without authentication only loopback addresses (127.0.0.1, ::1) are served")));
    }
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => Error::External(format!("can't listen on {address}: the port is in use; choose another with --listen, or stop its owner")),
        _ => Error::External(format!("can't listen on {address}: {error}")),
    })
}

impl Server {
    /// A server on a port of its own, see [`listen`].
    pub async fn bind(backend: Arc<dyn Backend>, address: SocketAddr) -> Result<Self> {
        Self::on(backend, listen(address).await?)
    }

    /// A server on a port that was taken before.
    pub fn on(backend: Arc<dyn Backend>, listener: TcpListener) -> Result<Self> {
        let local_addr = listener.local_addr().map_err(|error| Error::External(format!("can't tell the port that was taken: {error}")))?;
        Ok(Self { backend, listener, local_addr, options: Options::default() })
    }

    /// Changes how it behaves.
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The address, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` completes; then takes no more calls, ends all results, and returns within seconds.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let (stop, stopping) = watch::channel(false);
        let flight_sql = FlightSql::new(self.backend, self.options, stopping.clone());
        let (sessions, statements) = (flight_sql.sessions.clone(), flight_sql.statements.clone());
        let service = FlightServiceServer::new(Service(flight_sql)).max_decoding_message_size(MAX_REQUEST_BYTES);

        let accepted = sessions.clone();
        let incoming = TcpListenerStream::new(self.listener).map(move |connection| {
            connection.map(|stream| {
                // Small answers must not wait for a full segment. A failure only costs latency.
                let _ = stream.set_nodelay(true);
                let address = stream.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
                Connection::new(Transport::Plain(stream), address, accepted.clone())
            })
        });

        let mut told = stopping.clone();
        let mut builder = tonic::transport::Server::builder().http2_keepalive_interval(Some(KEEPALIVE)).http2_keepalive_timeout(Some(KEEPALIVE));
        let serving = builder.add_service(service).serve_with_incoming_shutdown(incoming, async move {
            // An error means that this server is gone, which is the end too.
            let _ = told.wait_for(|yes| *yes).await;
        });
        let mut late = stopping;
        tokio::pin!(serving, shutdown);
        let mut sweep = tokio::time::interval(SWEEP);
        let mut is_running = true;
        loop {
            tokio::select! {
                served = &mut serving => return served.map_err(|error| Error::External(format!("the server on {} failed: {error}", self.local_addr))),
                () = &mut shutdown, if is_running => {
                    is_running = false;
                    stop.send_replace(true);
                }
                () = after_grace(&mut late) => {
                    tracing::warn!("some clients did not let go of their connections, closing them");
                    return Ok(());
                }
                _ = sweep.tick() => {
                    sessions.sweep();
                    statements.sweep();
                }
            }
        }
    }
}

async fn after_grace(stopping: &mut watch::Receiver<bool>) {
    if stopping.wait_for(|yes| *yes).await.is_ok() {
        tokio::time::sleep(GRACE).await;
    } else {
        std::future::pending::<()>().await;
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("local_addr", &self.local_addr).field("options", &self.options).finish_non_exhaustive()
    }
}
