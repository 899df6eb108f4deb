//! Very many subscribers of one view.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;

use super::{Args, Served, connect};
use crate::cli::bench::{
    match_events,
    place::Place,
    process::{Process, cpu_time},
    report::{Figure, Report, Unit},
};

const SUBSCRIPTION: &str = "SELECT * FROM team_minute EMIT CHANGES";
/// So many subscriptions share a connection.
const PER_CONNECTION: usize = 100;

pub(super) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let place = Place::apart(None, &[("events", 4)]).await?;
    let (brokers, topic) = (place.brokers(), place.topic("events"));
    let served = Served::start().await?;
    served.fresh.execute(&match_events::source(brokers, &topic)).await?;
    let view = "CREATE CONTINUOUS VIEW team_minute AS SELECT window_start, match_id, team, count(*) AS events, sum(xg) AS xg
        FROM TUMBLE(match_events, event_time, INTERVAL '1 minute') GROUP BY window_start, window_end, match_id, team EMIT CHANGES";
    served.fresh.execute(view).await?;
    let _sender = Process::events(brokers, &topic, args.rate, 3 * args.seconds + 20)?;
    served.fresh.wait_for("SELECT count(*) FROM team_minute", 1).await?;
    let time = Duration::from_secs(args.seconds);
    let alone = cores(time).await;
    let count = args.subscribers.to_string();
    let (readers, mut told) = Process::heard(&["bench", "serve", "--subscribe-at", &served.url, "--subscribers", &count])?;
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
    report.add(
        Figure::new("serve", "subscribers", with, Unit::CORES)
            .against("no subscribers", alone)
            .more("subscribers", args.subscribers)
            .more("events_per_second", args.rate)
            .more("messages_per_second", (after - before) as f64 / time.as_secs_f64()),
    )
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
