//! The main job with Kafka's part in it: from a topic that holds everything, beside a consumer that only counts bytes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;

use super::Args;
use crate::{
    catalog::SourceDef,
    cli::bench::{
        answer::comparable,
        definitions,
        engine::FreshEngine,
        match_events::{self, TEAM_MINUTE},
        place::Place,
        process::{forget_peak, peak_bytes},
        report::{Figure, Report, Unit, progress},
    },
    source::{
        kafka::{count, resolve_ranges},
        producer::{SendOptions, Stop, send},
    },
};

/// How often it is looked how far the view is.
const LOOK: Duration = Duration::from_millis(5);
/// Partitions of the topic.
const PARTITIONS: i32 = 8;

/// Sends the events to a topic of these brokers, and reads them by turns: counting bytes, and as the main job. The view has to hold the rows of `expected`.
pub(super) async fn measure(args: &Args, brokers: &str, expected: &[String], report: &mut Report) -> anyhow::Result<()> {
    let place = Place::start(Some(brokers), &[("events", PARTITIONS)]).await?;
    let measured = runs(args, &place, expected).await;
    place.end().await?;
    report.add(measured?)
}

async fn runs(args: &Args, place: &Place, expected: &[String]) -> anyhow::Result<Figure> {
    fill(args, place).await?;
    let statement = match_events::source(place.brokers(), &place.topic("events"));
    let source = definitions::source(&statement)?;
    let (mut bare, mut ours, mut peak) = (Duration::MAX, Duration::MAX, 0);
    let bar = progress(args.runs.into(), "events from a topic");
    for _ in 0..args.runs {
        bare = bare.min(counted(args, source.clone()).await?);
        forget_peak();
        let (took, rows) = read(args, &statement).await?;
        peak = peak.max(peak_bytes().unwrap_or(0));
        ours = ours.min(took);
        anyhow::ensure!(comparable(&rows)? == expected, "the view over Kafka and the batch answer differ: the figures are worth nothing");
        bar.inc(1);
    }
    bar.finish_and_clear();
    let rate = |took: Duration| args.events as f64 / took.as_secs_f64();
    Ok(Figure::new("pipeline", "kafka", rate(ours), Unit::rate("events/s"))
        .against("a consumer that only counts bytes", rate(bare))
        .more("broker", place.name())
        .more("partitions", PARTITIONS)
        .more("events", args.events)
        .more("peak_resident_mib", peak >> 20)
        .more("runs", args.runs))
}

async fn fill(args: &Args, place: &Place) -> anyhow::Result<()> {
    let bar = progress(args.events as u64, "filling a topic with events");
    let (events, options) = (args.events, SendOptions::new(place.brokers(), place.topic("events")));
    let shown = bar.clone();
    let sent =
        tokio::task::spawn_blocking(move || send(match_events::simulated(events).map(Ok), &options, &Stop::default(), |sent| shown.set_position(sent.events)));
    anyhow::ensure!(sent.await??.events == events as u64, "not all events were sent");
    bar.finish_and_clear();
    Ok(())
}

/// From the making of a consumer on until it has seen everything.
async fn counted(args: &Args, source: Arc<SourceDef>) -> anyhow::Result<Duration> {
    let (took, records) = tokio::task::spawn_blocking(move || -> crate::Result<_> {
        let ranges = resolve_ranges(&source.kafka, &Default::default(), None)?;
        let started = Instant::now();
        let (records, _) = count(&source.kafka, &ranges)?;
        Ok((started.elapsed(), records))
    })
    .await??;
    anyhow::ensure!(records == args.events as u64, "the topic holds {records} records, not the {} that were sent", args.events);
    Ok(took)
}

/// From the making of the view on until it has read everything; and its rows.
async fn read(args: &Args, statement: &str) -> anyhow::Result<(Duration, Vec<RecordBatch>)> {
    let fresh = FreshEngine::start().await?;
    fresh.execute(statement).await?;
    let started = Instant::now();
    fresh.execute(TEAM_MINUTE).await?;
    while fresh.engine.overview().sources.iter().map(|source| source.rows + source.errors).sum::<u64>() < args.events as u64 {
        anyhow::ensure!(started.elapsed() < Duration::from_secs(600), "the view has not read everything after ten minutes");
        tokio::time::sleep(LOOK).await;
    }
    let took = started.elapsed();
    let rows = fresh.rows("SELECT * FROM team_minute").await?;
    fresh.stop().await?;
    Ok((took, rows))
}
