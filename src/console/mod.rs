//! HTTP beside Flight SQL: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever keeps the server running.
//!
//! Knows what a session's engine tells of itself and nothing of how it runs. Where there are users, `/metrics`
//! asks who is there and tells what they may see; health is told to everybody, its reasons are not.

mod metrics;
mod process;

use std::{
    future::IntoFuture,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::{
        State,
        connect_info::{ConnectInfo, Connected},
    },
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
    routing::get,
    serve::IncomingStream,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    access::{Credentials, Refused, Who},
    error::{Error, Result},
    session::Engine,
    tls::{Incoming, Tls},
};

/// What OpenMetrics calls itself.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The engine, from when it is ready on.
type Shown = Arc<OnceLock<Arc<Engine>>>;

/// The HTTP side of a server; ends when it goes.
#[derive(Debug)]
pub struct Console {
    address: SocketAddr,
    scheme: &'static str,
    shown: Shown,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Console {
    /// Takes a port (0: any free one) and answers on it, over TLS if there is any. The server is not ready before [`Self::show`].
    pub async fn start(address: SocketAddr, tls: Option<Arc<Tls>>) -> Result<Self> {
        let failed = |error: std::io::Error| Error::External(format!("can't serve HTTP on {address}: {error}; choose another port with --http"));
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shown = Shown::default();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let incoming = Incoming::new(listener, tls, b"http/1.1").map_err(failed)?;
        let service = routes(shown.clone()).into_make_service_with_connect_info::<Peer>();
        let serving = tokio::spawn(axum::serve(incoming, service).into_future());
        Ok(Self { address, scheme, shown, serving })
    }

    /// The engine has been started and its clients are answered: it is what is shown from now on. Where others reach the port, there have to be
    /// users, unless it is to be `insecure`.
    pub fn show(&self, engine: Arc<Engine>, insecure: bool) -> Result<()> {
        let address = self.address;
        if !address.ip().is_loopback() {
            if engine.access().is_open() && !insecure {
                return Err(Error::Invalid(format!(
                    "can't serve HTTP on {address}: without users only loopback addresses (127.0.0.1, ::1) are served; make one with `tidegate user add NAME --admin`, or say --insecure"
                )));
            }
            if self.scheme == "http" {
                tracing::warn!(%address, "INSECURE: without TLS passwords and tokens for HTTP can be read on the way");
            }
        }
        // A second one would be the same.
        let _ = self.shown.set(engine);
        Ok(())
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn routes(shown: Shown) -> Router {
    Router::new()
        .route(
            "/",
            get(|| async { "Tidegate\n\n/metrics  figures for Prometheus\n/healthz  200 while the process works\n/readyz   200 while all pipelines run\n" }),
        )
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is /metrics, /healthz and /readyz\n") })
        .with_state(shown)
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
struct Peer(SocketAddr);

impl Connected<IncomingStream<'_, Incoming>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        Peer(*stream.remote_addr())
    }
}

/// Whom a request is made for; what to answer if they are not let in.
async fn admit(engine: &Engine, peer: Peer, headers: &HeaderMap) -> Result<Who, Response> {
    let admitted = match Credentials::read(headers.get(AUTHORIZATION).map(|header| header.as_bytes())) {
        Ok(credentials) => engine.access().admit(credentials, Some(peer.0.ip().to_canonical())).await,
        Err(refused) => Err(refused),
    };
    admitted.map(|admitted| admitted.who).map_err(|refused| match refused {
        Refused::Throttled => (StatusCode::TOO_MANY_REQUESTS, format!("{refused}\n")).into_response(),
        Refused::Broken => (StatusCode::INTERNAL_SERVER_ERROR, format!("{refused}\n")).into_response(),
        _ => (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Basic realm=\"tidegate\", Bearer")], format!("{refused}\n")).into_response(),
    })
}

async fn metrics(State(shown): State<Shown>, ConnectInfo(peer): ConnectInfo<Peer>, headers: HeaderMap) -> Response {
    let overview = match shown.get() {
        None => None,
        Some(engine) => match admit(engine, peer, &headers).await {
            Ok(who) => Some(engine.overview_for(&who)),
            Err(refusal) => return refusal,
        },
    };
    match metrics::text(overview) {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("the metrics could not be written: {error}\n"))
                .into_response()
        }
    }
}

async fn ready(State(shown): State<Shown>, ConnectInfo(peer): ConnectInfo<Peer>, headers: HeaderMap) -> (StatusCode, String) {
    let Some(engine) = shown.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is still starting: it restores its views and runs its scripts\n".into());
    };
    let mut reasons = engine.overview().unready;
    // They name what there is: whether the server is ready is for everybody, why not is for those who are let in.
    if !reasons.is_empty() && !engine.access().is_open() {
        reasons = match headers.contains_key(AUTHORIZATION) {
            true => match admit(engine, peer, &headers).await {
                Ok(who) => engine.overview_for(&who).unready,
                Err(_) => vec!["not all pipelines run".into()],
            },
            false => vec!["not all pipelines run: who gives credentials is told why".into()],
        };
    }
    match reasons.is_empty() {
        true => (StatusCode::OK, "ready\n".into()),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    }
}
