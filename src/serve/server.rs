//! The listening server: bind, run until told to stop, stop within seconds.

use std::{future::Future, io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::{net::TcpListener, sync::watch};

use super::{connection::Door, flight_sql::FlightSql, frontend::Backend, guard::Guarded, service::Service};
use crate::{
    error::{Error, Result},
    session::ClientLimits,
    tls::{Incoming, Tls},
};

/// How long calls may go on after the server was told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// A connection has so many calls at once; others wait.
const CALLS: u32 = 4096;

/// How often idle sessions, statements and tickets are looked for, at least.
const SWEEP: Duration = Duration::from_secs(60);

/// How a server behaves towards its clients.
#[derive(Debug, Clone)]
pub struct Options {
    /// In an unbounded result, an empty batch is sent after this long without rows, so that both ends know the other is there.
    pub heartbeat: Duration,
    /// What clients may take.
    pub limits: ClientLimits,
    /// TLS, if it is spoken.
    pub tls: Option<Arc<Tls>>,
    /// Whoever reaches the port may be let in, wherever it is.
    pub insecure: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(5), limits: ClientLimits::default(), tls: None, insecure: false }
    }
}

/// A server that has its port.
pub struct Server {
    backend: Arc<dyn Backend>,
    listener: TcpListener,
    local_addr: SocketAddr,
    options: Options,
}

/// Takes a port; 0 takes any free one.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => Error::External(format!("can't listen on {address}: the port is in use; choose another with --listen, or stop its owner")),
        _ => Error::External(format!("can't listen on {address}: {error}")),
    })
}

impl Server {
    /// A server on a port of its own.
    pub async fn bind(backend: Arc<dyn Backend>, address: SocketAddr) -> Result<Self> {
        let server = Self::on(backend, listen(address).await?)?;
        server.check_reach()?;
        Ok(server)
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

    /// Whether it may listen where it does: where others reach it, only those who are known are let in.
    pub fn check_reach(&self) -> Result<()> {
        let address = self.local_addr;
        match address.ip().is_loopback() || self.options.insecure || !self.backend.access().is_open() {
            true => Ok(()),
            false => Err(Error::Invalid(format!(
                "can't listen on {address}: without users only loopback addresses (127.0.0.1, ::1) are served; make one with `tidegate user add NAME --admin`, or say --insecure"
            ))),
        }
    }

    fn warn_of_reach(&self) {
        let address = self.local_addr;
        if address.ip().is_loopback() {
            return;
        }
        if self.backend.access().is_open() {
            tracing::warn!(%address, "INSECURE: whoever reaches the port may do everything: make users, and leave --insecure out");
        }
        if self.options.tls.is_none() {
            tracing::warn!(%address, "INSECURE: without TLS passwords, tokens and rows can be read on the way: use --tls-cert and --tls-key, or --tls-self-signed");
        }
    }

    /// Serves until `shutdown` completes; then takes no more calls, ends all results, and returns within seconds.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        self.check_reach()?;
        self.warn_of_reach();
        let (stop, stopping) = watch::channel(false);
        let (tls, clients) = (self.options.tls.clone(), self.backend.clients());
        let mut limits = self.options.limits.clone();
        // Tables, checkpoints and brokers need files as well.
        if let Some(files) = open_files().map(|files| (files / 2).max(1)).filter(|files| *files < limits.connections) {
            tracing::info!("{files} connections are served at once: half of the files that the process may open (ulimit -n)");
            limits.connections = files;
        }
        let flight_sql = FlightSql::new(self.backend, self.options, stopping.clone());
        let (sessions, statements) = (flight_sql.sessions.clone(), flight_sql.statements.clone());
        let service = FlightServiceServer::new(Service(flight_sql)).max_decoding_message_size(limits.message);
        let service = Guarded::new(service, sessions.clone(), limits.clone(), clients.clone());

        let door = Door::new(&limits, sessions.clone(), clients);
        let incoming = Incoming::new(self.listener, tls, b"h2");
        let incoming = incoming.map_err(|error| Error::External(format!("can't accept connections on {}: {error}", self.local_addr)))?;
        let incoming = futures::stream::unfold((incoming, door), async |(mut incoming, door)| {
            loop {
                let (transport, peer) = incoming.next().await?;
                if let Some(connection) = door.enter(transport, peer.ip().to_canonical()) {
                    return Some((std::io::Result::Ok(connection), (incoming, door)));
                }
            }
        });

        let mut told = stopping.clone();
        // Headers are as long as HTTP/2 counts them: 32 bytes more each.
        let header = u32::try_from(limits.header).unwrap_or(u32::MAX);
        let mut builder = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(limits.keepalive_interval))
            .http2_keepalive_timeout(Some(limits.keepalive_interval))
            .http2_max_header_list_size(header)
            .max_concurrent_streams(CALLS);
        let serving = builder.add_service(service).serve_with_incoming_shutdown(incoming, async move {
            // An error means that this server is gone, which is the end too.
            let _ = told.wait_for(|yes| *yes).await;
        });
        let mut late = stopping;
        tokio::pin!(serving, shutdown);
        let mut sweep = tokio::time::interval(SWEEP.min(limits.session_timeout / 2));
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

/// How many files the process may have open at once, where the system tells.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
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
