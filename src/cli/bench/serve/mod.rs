//! `tidegate bench serve`: results, point queries and subscribers over Flight SQL on loopback.

mod bare;
mod points;
mod rows;
mod subscribers;

use std::{sync::Arc, time::Duration};

use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::StreamExt;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

use crate::{
    serve::{Options, Server},
    session::{Engine, EngineConfig, Outcome},
};

/// Results, point queries and subscribers over Flight SQL on loopback.
///
/// 'rows': a large result through one stream; the baseline is a bare Arrow Flight server that sends the same batches from memory.
/// 'points': prepared queries for one key of a large view, each client with a connection of its own; the baseline is the same question asked so that
/// all rows have to be looked at. 'subscribers': what a server uses at a steady rate of events without and with subscribers, which run in a process
/// of their own. Best of several runs, each side by turns.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rows of the large result
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Runs of the large result
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Keys of the view that point queries read
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Clients that ask at once
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Subscribers of one view
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Events a second while they read
    #[arg(long, default_value_t = 3000)]
    rate: u32,
    /// Seconds to measure point queries, and subscribers, for
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only these parts, as in rows,points
    #[arg(long, value_delimiter = ',')]
    parts: Vec<String>,
    /// Subscribe to a server at this address and count what comes
    #[arg(long, hide = true)]
    subscribe_at: Option<String>,
}

/// Runs the benchmark; prints one JSON object a part.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(url) = &args.subscribe_at {
        return subscribers::read(url, args.subscribers).await;
    }
    let wanted = |part: &str| args.parts.is_empty() || args.parts.iter().any(|wanted| wanted == part);
    if wanted("rows") {
        println!("{}", rows::run(&args).await?);
    }
    if wanted("points") {
        println!("{}", points::run(&args).await?);
    }
    if wanted("subscribers") {
        println!("{}", subscribers::run(&args).await?);
    }
    Ok(())
}

/// A server over an empty data directory, which ends with it.
struct Served {
    engine: Arc<Engine>,
    url: String,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<crate::Result<()>>,
    _folder: tempfile::TempDir,
}

impl Served {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let engine = Engine::start(EngineConfig::new(folder.path())).await?;
        let server = Server::bind(engine.clone(), ([127, 0, 0, 1], 0).into()).await?.with_options(Options::default());
        let url = format!("http://{}", server.local_addr());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.run(async move {
            // Whoever held the other end has gone, which is the end as well.
            let _ = stopped.await;
        }));
        Ok(Self { engine, url, stop, serving, _folder: folder })
    }

    async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        self.engine.session().execute(sql, &[]).await?;
        Ok(())
    }

    /// The number that a query gives, once it is at least this.
    async fn wait_for(&self, sql: &str, least: i64) -> anyhow::Result<()> {
        loop {
            let Outcome::Rows(mut rows) = self.engine.session().execute(sql, &[]).await? else { anyhow::bail!("{sql} gave no rows") };
            while let Some(batch) = rows.next().await {
                let batch = batch?;
                let numbers = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(batch.column(0));
                if numbers.iter().flatten().next().is_some_and(|number| number >= least) {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) -> anyhow::Result<()> {
        // It may have ended by itself.
        let _ = self.stop.send(());
        self.serving.await??;
        self.engine.stop().await?;
        Ok(())
    }
}

async fn connect(url: &str) -> anyhow::Result<FlightSqlServiceClient<Channel>> {
    let channel = Endpoint::from_shared(url.to_string())?.tcp_nodelay(true).connect().await?;
    Ok(FlightSqlServiceClient::new(channel))
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
