//! HTTP beside Flight SQL: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever keeps the server running.
//!
//! Knows what a session's engine tells of itself and nothing of how it runs. Only loopback addresses are served: there is no
//! authentication.

mod metrics;
mod process;

use std::{
    future::IntoFuture,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    error::{Error, Result},
    session::Engine,
};

/// What OpenMetrics calls itself.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The engine, from when it is ready on.
type Shown = Arc<OnceLock<Arc<Engine>>>;

/// The HTTP side of a server; ends when it goes.
#[derive(Debug)]
pub struct Console {
    address: SocketAddr,
    shown: Shown,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Console {
    /// Takes a port (0: any free one) and answers on it. The server is not ready before [`Self::show`].
    pub async fn start(address: SocketAddr) -> Result<Self> {
        if !address.ip().is_loopback() {
            return Err(Error::Invalid(format!("can't serve HTTP on {address}: without authentication only loopback addresses (127.0.0.1, ::1) are served")));
        }
        let failed = |error: std::io::Error| Error::External(format!("can't serve HTTP on {address}: {error}; choose another port with --http"));
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shown = Shown::default();
        let serving = tokio::spawn(axum::serve(listener, routes(shown.clone())).into_future());
        Ok(Self { address, shown, serving })
    }

    /// The engine has been started and its clients are answered: it is what is shown from now on.
    pub fn show(&self, engine: Arc<Engine>) {
        // A second one would be the same.
        let _ = self.shown.set(engine);
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
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

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    match metrics::text(shown.get().map(|engine| engine.overview())) {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, OPEN_METRICS)], text),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("the metrics could not be written: {error}\n"))
        }
    }
}

async fn ready(State(shown): State<Shown>) -> (StatusCode, String) {
    let Some(engine) = shown.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is still starting: it restores its views and runs its scripts\n".into());
    };
    let reasons = engine.overview().unready;
    match reasons.is_empty() {
        true => (StatusCode::OK, "ready\n".into()),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n"),
    }
}
