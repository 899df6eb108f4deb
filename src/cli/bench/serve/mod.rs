//! `tidegate bench serve`: results, point queries and subscribers over Flight SQL on loopback.

mod bare;
mod points;
mod rows;
mod subscribers;

use std::time::Duration;

use arrow_flight::sql::client::FlightSqlServiceClient;
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

use super::{
    engine::FreshEngine,
    place::CHUNK,
    report::{Report, ReportArgs, progress},
};
use crate::{
    serve::{Options, Server},
    source::broker::EmbeddedBroker,
};

/// Results, point queries and subscribers over Flight SQL on loopback.
///
/// 'rows-1-stream', 'rows-4-streams': all rows of a large view through one stream, and through four; the baseline is a bare Arrow Flight server that sends the same batches
/// from memory through as many. Best of several runs, each side by turns.
///
/// 'points': prepared queries a second for one key of a large view, each client with a connection of its own, and how long one takes; the baseline is the same question asked so that
/// all rows have to be looked at.
///
/// 'subscribers': the cores that a server uses at a steady rate of events with subscribers, which run in a process of their own; the baseline is the same server without them, so a ratio
/// of 0.5 says that subscribers double its work.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rows of the large view
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
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the benchmark.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(url) = &args.subscribe_at {
        return subscribers::read(url, args.subscribers).await;
    }
    let mut report = Report::new("serve", &args.report);
    measure(&args, &mut report).await?;
    report.finish();
    Ok(())
}

async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let wanted = |part: &str| args.parts.is_empty() || args.parts.iter().any(|wanted| wanted == part);
    if wanted("rows") {
        rows::run(args, report).await?;
    }
    if wanted("points") {
        points::run(args, report).await?;
    }
    if wanted("subscribers") {
        subscribers::run(args, report).await?;
    }
    Ok(())
}

/// A server over an empty data directory, which ends with it.
struct Served {
    fresh: FreshEngine,
    url: String,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<crate::Result<()>>,
}

impl Served {
    async fn start() -> anyhow::Result<Self> {
        let fresh = FreshEngine::start().await?;
        let server = Server::bind(fresh.engine.clone(), ([127, 0, 0, 1], 0).into()).await?.with_options(Options::default());
        let url = format!("http://{}", server.local_addr());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.run(async move {
            // Whoever held the other end has gone, which is the end as well.
            let _ = stopped.await;
        }));
        Ok(Self { fresh, url, stop, serving })
    }

    /// One with a view of `events`, a source of these columns, as soon as it has a row for each of so many records; and the broker that they were sent to.
    async fn with_view(view: &str, query: &str, columns: &str, records: u64, payload: impl Fn(u64) -> String) -> anyhow::Result<(EmbeddedBroker, Self)> {
        let broker = EmbeddedBroker::start(&[("events", 1)])?;
        let brokers = broker.bootstrap_servers();
        let served = Self::start().await?;
        let options = format!("connector = 'kafka', topic = 'events', 'bootstrap.servers' = '{brokers}', format = 'json'");
        served.fresh.execute(&format!("CREATE SOURCE events ({columns}) WITH ({options})")).await?;
        served.fresh.execute(&format!("CREATE CONTINUOUS VIEW {view} WITH (unbounded_state = true) AS {query}")).await?;
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).set("linger.ms", "5").create()?;
        let bar = progress(records, &format!("filling view {view} with records"));
        for begin in (0..records).step_by(CHUNK as usize) {
            let end = (begin + u64::from(CHUNK)).min(records);
            for record in begin..end {
                let payload = payload(record);
                while producer.send(BaseRecord::<(), _>::to("events").partition(0).payload(&payload)).is_err() {
                    producer.poll(Duration::from_millis(5));
                }
            }
            producer.flush(Duration::from_secs(30))?;
            served.fresh.wait_for(&format!("SELECT count(*) FROM {view}"), end as i64).await?;
            bar.set_position(end);
        }
        bar.finish_and_clear();
        Ok((broker, served))
    }

    async fn end(self) -> anyhow::Result<()> {
        // It may have ended by itself.
        let _ = self.stop.send(());
        self.serving.await??;
        self.fresh.stop().await
    }
}

async fn connect(url: &str) -> anyhow::Result<FlightSqlServiceClient<Channel>> {
    let channel = Endpoint::from_shared(url.to_string())?.tcp_nodelay(true).connect().await?;
    Ok(FlightSqlServiceClient::new(channel))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_small_one_runs() {
        // Without subscribers: those are this program once more, which in a test is another.
        let args = Args {
            rows: 5000,
            runs: 1,
            keys: 1000,
            clients: 2,
            subscribers: 0,
            rate: 0,
            seconds: 1,
            parts: vec!["rows".into(), "points".into()],
            subscribe_at: None,
            report: ReportArgs::default(),
        };
        let mut report = Report::new("serve", &args.report);
        measure(&args, &mut report).await.unwrap();
        let lines = report.lines();
        assert_eq!(lines.iter().map(|line| &line["case"]).collect::<Vec<_>>(), ["rows-1-stream", "rows-4-streams", "points"]);
        assert!(lines.iter().all(|line| line["ratio"].as_f64() > Some(0.0)), "{lines:?}");
    }
}
