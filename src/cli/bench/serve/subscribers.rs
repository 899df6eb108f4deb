//! Very many subscribers of one view.

use std::{
    io::BufRead,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use serde_json::json;

use super::{super::latency::cpu_time, Args, Served, connect, rounded};

const SUBSCRIPTION: &str = "SELECT * FROM team_minute EMIT CHANGES";
/// So many subscriptions share a connection.
const PER_CONNECTION: usize = 100;

/// A process that ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) async fn run(args: &Args) -> anyhow::Result<serde_json::Value> {
    let program = std::env::current_exe()?;
    let mut broker = Process(Command::new(&program).args(["broker", "--topic", "events:4"]).stdout(Stdio::piped()).spawn()?);
    let out = broker.0.stdout.take().ok_or_else(|| anyhow::anyhow!("the broker has no output"))?;
    let line = std::io::BufReader::new(out).lines().next().ok_or_else(|| anyhow::anyhow!("the broker said nothing"))??;
    let brokers = line.trim_start_matches("bootstrap.servers=").to_string();
    let served = Served::start().await?;
    served
        .execute(&format!(
            "CREATE SOURCE match_events (match_id BIGINT, team TEXT PATH '$.team.name', type_name TEXT PATH '$.type.name', xg DOUBLE PATH '$.shot.statsbomb_xg',
             event_time TIMESTAMP, WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds')
             WITH (connector = 'kafka', topic = 'events', 'bootstrap.servers' = '{brokers}', format = 'json')"
        ))
        .await?;
    let view = "CREATE CONTINUOUS VIEW team_minute AS SELECT window_start, match_id, team, count(*) AS events, sum(xg) AS xg
        FROM TUMBLE(match_events, event_time, INTERVAL '1 minute') GROUP BY window_start, window_end, match_id, team EMIT CHANGES";
    served.execute(view).await?;
    let (rate, seconds) = (args.rate.to_string(), format!("{}s", 3 * args.seconds + 20));
    let options = ["simulate", "--brokers", &brokers, "--topic", "events", "--rate", &rate, "--matches", "100000", "--concurrent", "60", "--for", &seconds];
    let _sender = Process(Command::new(&program).args(options).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    served.wait_for("SELECT count(*) FROM team_minute", 1).await?;
    let time = Duration::from_secs(args.seconds);
    let alone = cores(time).await;
    let count = args.subscribers.to_string();
    let options = ["bench", "serve", "--subscribe-at", &served.url, "--subscribers", &count];
    let mut readers = Process(Command::new(&program).args(options).stdout(Stdio::piped()).spawn()?);
    let out = readers.0.stdout.take().ok_or_else(|| anyhow::anyhow!("the subscribers have no output"))?;
    let mut told = std::io::BufReader::new(out).lines();
    // It says how many messages have come, first when everybody has had one.
    let mut messages = move || -> anyhow::Result<u64> { Ok(told.next().ok_or_else(|| anyhow::anyhow!("the subscribers have gone"))??.parse()?) };
    let (before, mut messages) = tokio::task::spawn_blocking(move || messages().map(|count| (count, messages))).await??;
    let with = cores(time).await;
    let after = tokio::task::spawn_blocking(move || {
        let mut last = before;
        for _ in 0..time.as_secs().max(1) {
            last = messages()?;
        }
        anyhow::Ok(last)
    })
    .await??;
    drop(readers);
    served.end().await?;
    Ok(json!({ "bench": "serve", "part": "subscribers", "subscribers": args.subscribers, "rate": args.rate, "server_cores": rounded(with),
               "messages_per_second": ((after - before) as f64 / time.as_secs_f64()).round(), "baseline": "no subscribers",
               "baseline_server_cores": rounded(alone), "over_baseline": rounded(with / alone) }))
}

/// How many cores this process uses.
async fn cores(time: Duration) -> f64 {
    let (before, started) = (cpu_time(), Instant::now());
    tokio::time::sleep(time).await;
    (cpu_time() - before).as_secs_f64() / started.elapsed().as_secs_f64()
}

/// Subscribes so many times, and prints once a second how many messages have come.
pub(super) async fn read(url: &str, subscribers: usize) -> anyhow::Result<()> {
    let received = Arc::new(AtomicU64::new(0));
    let begun = Arc::new(AtomicU64::new(0));
    let mut readers = tokio::task::JoinSet::new();
    for begin in (0..subscribers).step_by(PER_CONNECTION) {
        let mut client = connect(url).await?;
        for _ in begin..subscribers.min(begin + PER_CONNECTION) {
            let info = client.execute(SUBSCRIPTION.into(), None).await?;
            let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket).ok_or_else(|| anyhow::anyhow!("there is no ticket"))?;
            let mut messages = client.inner_mut().do_get(ticket).await?.into_inner();
            let (received, begun) = (received.clone(), begun.clone());
            readers.spawn(async move {
                let mut own = 0u64;
                while let Some(message) = messages.next().await {
                    message?;
                    received.fetch_add(1, Ordering::Relaxed);
                    own += 1;
                    if own == 2 {
                        // The schema, and rows.
                        begun.fetch_add(1, Ordering::Relaxed);
                    }
                }
                anyhow::Ok(())
            });
        }
    }
    while begun.load(Ordering::Relaxed) < subscribers as u64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let print = async {
        loop {
            println!("{}", received.load(Ordering::Relaxed));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = print => Ok(()),
        ended = readers.join_next() => match ended {
            Some(ended) => ended?,
            None => Ok(()),
        },
    }
}
