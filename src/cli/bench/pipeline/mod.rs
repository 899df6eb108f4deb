//! `tidegate bench pipeline`: the main job from memory, against DataFusion's batch reader of newline-delimited JSON;
//! and from a topic, against a consumer that only counts bytes.

mod kafka;

use std::{
    collections::BTreeMap,
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::{
    arrow::{
        array::RecordBatch,
        datatypes::{DataType, Field, Schema, TimeUnit},
    },
    prelude::{JsonReadOptions, SessionConfig, SessionContext},
};

use super::{
    answer::comparable,
    definitions,
    machine::cores,
    match_events::{self, TEAM_MINUTE},
    memory::{Topic, rows},
    report::{Figure, Report, ReportArgs, Unit, progress, quantile},
};
use crate::{
    source::matches::MatchEvent,
    sql,
    stream::{
        driver::now_ms,
        pipeline::{EpochCut, Pipeline},
        plan::{plan_view, standalone_state},
        published::Board,
        view::ViewRuntime,
    },
};

/// The question of the view to DataFusion over the same bytes.
const BATCH: &str = "SELECT date_bin(INTERVAL '1 minute', event_time) AS window_start, match_id, team['name'] AS team, count(*) AS events,
  count(*) FILTER (WHERE type['name'] = 'Pass') AS passes, count(*) FILTER (WHERE type['name'] = 'Shot') AS shots, sum(shot['statsbomb_xg']) AS xg
  FROM events GROUP BY 1, 2, 3";
const PARTITIONS: usize = 4;
/// So many epochs of one record are run to learn what one takes,
const SINGLES: usize = 2000;
/// after so many that warm up.
const WARM_UP: usize = 200;

/// The main job from memory: decode simulated events, one-minute windows a match and team, every epoch published.
///
/// 'memory': events a second. The baseline is DataFusion's batch reader of newline-delimited JSON: same bytes, same needed columns, same threads, one answer at the
/// end. Runs alternate; each figure is the best of its runs. Both must give the same rows, sums compared
/// to nine significant digits, since they add in another order.
///
/// 'one-record-epoch': what an epoch with one record takes, from its payload to the published view; the median, and with it the 99th percentile. There is no log and no broker in it.
///
/// 'recording': what an epoch's figures of the system tables and metrics cost, with its share of the epochs of this run and of those with one record.
///
/// 'kafka', with --bootstrap-servers: the same job from a topic, beside a consumer with a source's settings that only counts bytes; and the most memory that was resident meanwhile.
///
/// Then latency, as 'bench latency' prints it, at 3,000 events a second.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many events
    #[arg(long, default_value_t = 300_000)]
    events: usize,
    /// Records an epoch
    #[arg(long, default_value_t = 65_536)]
    epoch_rows: usize,
    /// Threads for both
    #[arg(long, default_value_t = cores())]
    threads: usize,
    /// Runs of each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// How long to measure latency at the end (0: don't)
    #[arg(long, default_value_t = 10)]
    latency_seconds: u64,
    /// A broker: the events are sent to a topic there (tidegate-bench-…, deleted at the end), and read from it; latency is measured there as well
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap_servers: Option<String>,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the benchmark.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report::new("pipeline", &args.report);
    let answer = from_memory(&args, &mut report).await?;
    if let Some(brokers) = &args.bootstrap_servers {
        kafka::measure(&args, brokers, &answer, &mut report).await?;
    }
    if args.latency_seconds > 0 {
        super::latency::measure(3000, args.latency_seconds, args.bootstrap_servers.as_deref(), &mut report).await?;
    }
    report.finish();
    Ok(())
}

/// Measures the job without a broker; its answer.
async fn from_memory(args: &Args, report: &mut Report) -> anyhow::Result<Vec<String>> {
    let events: Vec<_> = match_events::simulated(args.events).collect();
    let bytes: usize = events.iter().map(|e| e.payload.len()).sum();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("events.json");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&file)?);
    for event in &events {
        out.write_all(&event.payload)?;
        out.write_all(b"\n")?;
    }
    out.into_inner()?.sync_all()?;
    let cuts = cut(&events, args.epoch_rows);
    let singles = cut(&events[..events.len().min(WARM_UP + SINGLES)], 1);
    drop(events);
    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    let mut answer = vec![];
    let bar = progress(args.runs.into(), "events from memory");
    for _ in 0..args.runs {
        let (took, view) = stream(&cuts, args.threads).await?;
        ours = ours.min(took.iter().sum());
        let (took, batch) = batch(&file.to_string_lossy(), args.threads).await?;
        theirs = theirs.min(took);
        answer = comparable(&view)?;
        anyhow::ensure!(answer == comparable(&batch)?, "the view and the batch answer differ: the figures are worth nothing");
        bar.inc(1);
    }
    bar.finish_and_clear();
    let rate = |took: Duration| args.events as f64 / took.as_secs_f64();
    report.add(
        Figure::new("pipeline", "memory", rate(ours), Unit::rate("events/s"))
            .against("datafusion-ndjson", rate(theirs))
            .more("gb_per_second", bytes as f64 / ours.as_secs_f64() / 1e9)
            .more("events_per_second_per_core", rate(ours) / args.threads as f64)
            .more("events", args.events)
            .more("bytes", bytes)
            .more("rows", answer.len())
            .more("epochs", cuts.len())
            .more("threads", args.threads)
            .more("runs", args.runs),
    )?;
    let mut single = stream(&singles, args.threads).await?.0;
    single.drain(..WARM_UP.min(single.len() / 2));
    single.sort_unstable();
    let micros = |share: f64| quantile(&single, share).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6);
    report.add(Figure::new("pipeline", "one-record-epoch", micros(0.5), Unit::MICROSECONDS).more("p99", micros(0.99)).more("epochs", single.len()))?;
    let recording = super::overhead::recording().await;
    let percent = |epochs: usize, took: Duration| recording.as_secs_f64() * epochs as f64 / took.as_secs_f64() * 100.0;
    report.add(
        Figure::new("pipeline", "recording", recording.as_nanos() as f64, Unit::cost("ns"))
            .more("percent_of_epochs", percent(cuts.len(), ours))
            .more("percent_of_epochs_of_one_record", percent(single.len(), single.iter().sum())),
    )?;
    Ok(answer)
}

fn cut(events: &[MatchEvent], epoch_rows: usize) -> Vec<EpochCut> {
    let mut topic = Topic::new(PARTITIONS);
    (1..)
        .zip(events.chunks(epoch_rows.max(1)))
        .map(|(epoch, chunk)| {
            for event in chunk {
                topic.push(event.match_id as usize % PARTITIONS, Some(event.event_time_ms), Some(event.key().as_bytes()), &event.payload);
            }
            EpochCut { epoch, now_ms: now_ms(), slices: BTreeMap::from([("match_events".into(), topic.cut())]), ..EpochCut::default() }
        })
        .collect()
}

/// Runs the job; how long each epoch took, and the view's rows.
async fn stream(cuts: &[EpochCut], threads: usize) -> anyhow::Result<(Vec<Duration>, Vec<RecordBatch>)> {
    let source = definitions::source(&match_events::source("memory:0", "memory"))?;
    let def = definitions::view(TEAM_MINUTE)?;
    let state = standalone_state(&[&source])?;
    let plan = plan_view(&state, sql::parse_query(&def.query)?, def.emit, &def.options).await?;
    let board = Arc::new(Board::default());
    let mut pipeline = Pipeline::new(vec![(source.clone(), 1)], board.clone(), threads)?;
    pipeline.attach(ViewRuntime::new(Arc::new(def), 2, Arc::new(plan), &[&source], BTreeMap::new(), 0)?)?;
    let mut took = Vec::with_capacity(cuts.len());
    let mut ahead = None;
    for (position, cut) in cuts.iter().enumerate() {
        let started = Instant::now();
        let begun = ahead.take();
        // As a running pipeline does it behind a full epoch: the next one is decoded while this one runs.
        if let Some(next) = cuts.get(position + 1).filter(|_| threads > 1 && cut.records() > 1) {
            ahead = Some(pipeline.decode_ahead(next)?);
        }
        pipeline.run_decoded(cut, begun).await?;
        took.push(started.elapsed());
    }
    Ok((took, rows(&board)?))
}

async fn batch(file: &str, threads: usize) -> anyhow::Result<(Duration, Vec<RecordBatch>)> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(threads));
    let named = |field: &str, inner: &str, data_type: DataType| Field::new(field, DataType::Struct(vec![Field::new(inner, data_type, true)].into()), true);
    let schema = Schema::new(vec![
        Field::new("match_id", DataType::Int64, true),
        named("team", "name", DataType::Utf8),
        named("type", "name", DataType::Utf8),
        named("shot", "statsbomb_xg", DataType::Float64),
        Field::new("event_time", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
    ]);
    let options = JsonReadOptions::default().schema(&schema);
    context.register_json("events", file, options).await?;
    let started = Instant::now();
    let answer = context.sql(BATCH).await?.collect().await?;
    Ok((started.elapsed(), answer))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_small_one_runs() {
        let args = Args { events: 1000, epoch_rows: 400, threads: 2, runs: 1, latency_seconds: 0, bootstrap_servers: None, report: ReportArgs::default() };
        let mut report = Report::new("pipeline", &args.report);
        from_memory(&args, &mut report).await.unwrap();
        let lines = report.lines();
        assert_eq!(lines.iter().map(|line| &line["case"]).collect::<Vec<_>>(), ["memory", "one-record-epoch", "recording"]);
        assert!(lines[0]["ratio"].as_f64() > Some(0.0) && lines[0]["epochs"] == 3, "{}", lines[0]);
        assert!(lines[1]["unit"] == "µs" && lines[1]["p99"].as_f64() >= lines[1]["ours"].as_f64() && lines[1]["epochs"] == 800, "{}", lines[1]);
    }
}
