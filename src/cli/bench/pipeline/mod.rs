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
        array::{AsArray, RecordBatch},
        datatypes::{DataType, Field, Float64Type, Schema, TimeUnit},
        util::display::{ArrayFormatter, FormatOptions},
    },
    prelude::{JsonReadOptions, SessionConfig, SessionContext},
};
use serde_json::json;

use crate::{
    catalog::Definition,
    source::{
        RecordsBuilder, Slice,
        matches::{
            MatchEvent,
            simulate::{SimulateOptions, SimulatedMatches},
        },
    },
    sql::{self, Statement},
    stream::{
        decoding::Ahead,
        driver::now_ms,
        pipeline::{EpochCut, Pipeline},
        plan::{plan_view, standalone_state},
        published::Board,
        view::ViewRuntime,
    },
};

const SOURCE: &str = "CREATE SOURCE match_events (match_id BIGINT, team TEXT PATH '$.team.name', type_name TEXT PATH '$.type.name',
  xg DOUBLE PATH '$.shot.statsbomb_xg', event_time TIMESTAMP, WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds')
  WITH (connector = 'kafka', topic = 'memory', 'bootstrap.servers' = 'memory:0', format = 'json')";
const VIEW: &str = "CREATE CONTINUOUS VIEW team_minute AS SELECT window_start, match_id, team, count(*) AS events,
  count(*) FILTER (WHERE type_name = 'Pass') AS passes, count(*) FILTER (WHERE type_name = 'Shot') AS shots, sum(xg) AS xg
  FROM TUMBLE(match_events, event_time, INTERVAL '1 minute') GROUP BY window_start, window_end, match_id, team EMIT CHANGES";
/// The same question to DataFusion over the same bytes.
const BATCH: &str = "SELECT date_bin(INTERVAL '1 minute', event_time) AS window_start, match_id, team['name'] AS team, count(*) AS events,
  count(*) FILTER (WHERE type['name'] = 'Pass') AS passes, count(*) FILTER (WHERE type['name'] = 'Shot') AS shots, sum(shot['statsbomb_xg']) AS xg
  FROM events GROUP BY 1, 2, 3";
const PARTITIONS: usize = 4;
/// So many epochs of one record are run to learn what one takes.
const SINGLES: usize = 500;

/// The main job from memory: decode simulated events, one-minute windows a match and team, every epoch published.
///
/// The baseline is DataFusion's batch reader of newline-delimited JSON: same bytes, same needed columns, same threads, one answer at the
/// end. Runs alternate; each figure is the best of its runs. Both must give the same rows, sums compared
/// to nine significant digits, since they add in another order.
///
/// 'look_inside_overhead' is what recording the figures of the system tables and metrics costs, of this run and of epochs of one record.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many events
    #[arg(long, default_value_t = 300_000)]
    events: usize,
    /// Records an epoch
    #[arg(long, default_value_t = 65_536)]
    epoch_rows: usize,
    /// Threads for both
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, |n| n.get()))]
    threads: usize,
    /// Runs of each
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Then measure from produce to visible at 3,000 events a second for so long (0: don't); see 'bench latency'
    #[arg(long, default_value_t = 10)]
    latency_seconds: u64,
    /// Then send the events to a topic of this broker (tidegate-bench-…, deleted at the end), and read them from there: beside a consumer that only counts
    /// bytes, and with the most memory that was resident meanwhile
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap_servers: Option<String>,
}

/// Runs the benchmark; prints one JSON object a line.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let events: Vec<_> = simulated(args.events).collect();
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
    let singles = cut(&events[..events.len().min(SINGLES)], 1);
    drop(events);
    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    let mut answer = vec![];
    for _ in 0..args.runs.max(1) {
        let (took, view) = stream(&cuts, args.threads).await?;
        ours = ours.min(took);
        let (took, batch) = batch(&file.to_string_lossy(), args.threads).await?;
        theirs = theirs.min(took);
        answer = comparable(&view)?;
        anyhow::ensure!(answer == comparable(&batch)?, "the view and the batch answer differ: the figures are worth nothing");
    }
    let (single, recording) = (stream(&singles, args.threads).await?.0, super::overhead::recording().await);
    let overhead = |epochs: usize, took: Duration| (recording.as_secs_f64() * epochs as f64 / took.as_secs_f64() * 1e7).round() / 1e5;
    let figures = |took: Duration| {
        let seconds = took.as_secs_f64();
        json!({ "events_per_second": (args.events as f64 / seconds).round(), "events_per_second_per_core": (args.events as f64 / seconds / args.threads as f64).round(),
                "mb_per_second": (bytes as f64 / seconds / 1e6).round() })
    };
    println!(
        "{}",
        json!({ "bench": "pipeline", "events": args.events, "bytes": bytes, "rows": answer.len(), "epochs": cuts.len(), "threads": args.threads, "tidegate": figures(ours),
                "baseline": "datafusion-ndjson", "datafusion_ndjson": figures(theirs), "ratio": (theirs.as_secs_f64() / ours.as_secs_f64() * 100.0).round() / 100.0,
                "look_inside_overhead": { "recording_ns_per_epoch": recording.as_nanos() as u64, "percent": overhead(cuts.len(), ours),
                    "percent_of_epochs_of_one_record": overhead(singles.len(), single) } })
    );
    if let Some(brokers) = &args.bootstrap_servers {
        drop(cuts);
        println!("{}", kafka::measure(&args, brokers, &answer).await?);
    }
    if args.latency_seconds > 0 {
        super::latency::run(super::latency::Args { rate: 3000, seconds: args.latency_seconds }).await?;
    }
    Ok(())
}

fn simulated(events: usize) -> impl Iterator<Item = MatchEvent> {
    let options = SimulateOptions { matches: None, concurrent: 60, three_sixty: 0.0, late_receipts: false, ..SimulateOptions::default() };
    SimulatedMatches::new(&options).take(events)
}

fn cut(events: &[MatchEvent], epoch_rows: usize) -> Vec<EpochCut> {
    let mut offsets = [0i64; PARTITIONS];
    events
        .chunks(epoch_rows.max(1))
        .enumerate()
        .map(|(number, chunk)| {
            let mut builders: Vec<RecordsBuilder> = (0..PARTITIONS).map(|_| RecordsBuilder::new()).collect();
            let begins = offsets;
            for event in chunk {
                let partition = event.match_id as usize % PARTITIONS;
                builders[partition].push(offsets[partition], Some(event.event_time_ms), Some(event.key().as_bytes()), Some(&event.payload), vec![]);
                offsets[partition] += 1;
            }
            let slices = builders
                .into_iter()
                .enumerate()
                .filter(|(_, b)| !b.is_empty())
                .map(|(p, b)| Slice { partition: p as i32, begin: begins[p], end: offsets[p], records: b.finish() })
                .collect();
            EpochCut { epoch: number as u64 + 1, now_ms: now_ms(), slices: BTreeMap::from([("match_events".into(), slices)]), ..EpochCut::default() }
        })
        .collect()
}

async fn stream(cuts: &[EpochCut], threads: usize) -> anyhow::Result<(Duration, Vec<RecordBatch>)> {
    let Definition::Source(source) = sql::parse_definition(SOURCE)? else { anyhow::bail!("the benchmark's source is none") };
    let Statement::CreateContinuousView { def, .. } = sql::parse_one(VIEW)? else { anyhow::bail!("the benchmark's view is none") };
    let state = standalone_state(&[&source])?;
    let plan = plan_view(&state, sql::parse_query(&def.query)?, def.emit, &def.options).await?;
    let board = Arc::new(Board::default());
    let mut pipeline = Pipeline::new(vec![(source.clone(), 1)], board.clone(), threads)?;
    pipeline.attach(ViewRuntime::new(Arc::new(def), 2, Arc::new(plan), &[&source], BTreeMap::new(), 0)?)?;
    let started = Instant::now();
    // As a running pipeline does it: the next epoch is decoded while this one runs.
    let mut ahead = None;
    for (position, cut) in cuts.iter().enumerate() {
        let decoded = match ahead.take() {
            Some(ahead) => Some(Ahead::done(ahead).await?),
            None => None,
        };
        if threads > 1
            && let Some(next) = cuts.get(position + 1)
        {
            ahead = Some(pipeline.decode_ahead(next)?);
        }
        pipeline.run_decoded(cut, decoded).await?;
    }
    let took = started.elapsed();
    let published = board.current();
    let view = published.views.values().next().ok_or_else(|| anyhow::anyhow!("the view is gone"))?;
    anyhow::ensure!(view.failure.is_none(), "the view failed: {:?}", view.failure);
    Ok((took, view.contents.batches().collect::<crate::Result<_>>()?))
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

/// Rows as text, in an order that both answers share.
fn comparable(batches: &[RecordBatch]) -> anyhow::Result<Vec<String>> {
    let options = FormatOptions::default();
    let mut rows = vec![];
    for batch in batches {
        let (last, columns) = batch.columns().split_last().ok_or_else(|| anyhow::anyhow!("an answer without columns"))?;
        let columns = columns.iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<Vec<_>, _>>()?;
        for (row, xg) in last.as_primitive::<Float64Type>().iter().enumerate() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            rows.push(format!("{} {:?}", cells.join("|"), xg.map(|xg| format!("{xg:.8e}"))));
        }
    }
    rows.sort_unstable();
    Ok(rows)
}
