//! `tidegate bench nexmark`: the queries of the Nexmark benchmark as continuous views, against DataFusion's batch run of the same.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::{
    arrow::{
        array::{RecordBatch, TimestampNanosecondArray},
        datatypes::{Field, Schema},
    },
    catalog::{MemTable, TableProvider},
    prelude::{CsvReadOptions, SessionConfig, SessionContext},
};
use nexmark::{EventGenerator, config::NexmarkConfig, event::Event};

use super::{
    answer::comparable,
    definitions,
    machine::cores,
    memory::{Topic, rows},
    report::{Figure, Report, ReportArgs, Unit, progress},
};
use crate::{
    catalog::{SourceDef, ViewDef},
    decode::Decoder,
    sql,
    stream::{
        pipeline::{EpochCut, Pipeline},
        plan::{plan_view, planning_state},
        published::Board,
        slice::StreamTable,
        view::ViewRuntime,
    },
};

const QUERIES: &str = include_str!("../../../sql/nexmark.sql");
/// 2015-07-15, in milliseconds: where the benchmark's time begins.
pub(super) const BASE_TIME: u64 = 1_436_918_400_000;
const COLUMNS: [(&str, &str); 3] = [
    ("person", "id BIGINT, name TEXT, email_address TEXT, credit_card TEXT, city TEXT, state TEXT"),
    (
        "auction",
        "id BIGINT, item_name TEXT, description TEXT, initial_bid BIGINT, reserve BIGINT, expires TIMESTAMP FORMAT 'epoch_ms', seller BIGINT, category BIGINT",
    ),
    ("bid", "auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT"),
];

/// The Nexmark queries q0 to q22 as continuous views, from memory, epoch by epoch.
///
/// It prints events a second and core for each query. The baseline is DataFusion's batch run of the same query over the same records, decoded by the same decoder, on as
/// many threads. Both must give the same rows. A ratio of 1 means that keeping the view up to date costs as much as asking once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many events: of 50, one is a person, three are auctions, the others bids
    #[arg(long, default_value_t = 500_000)]
    events: usize,
    /// Events an epoch
    #[arg(long, default_value_t = 100_000)]
    epoch_rows: usize,
    /// Events a second of the benchmark's own time
    #[arg(long, default_value_t = 10_000)]
    rate: usize,
    /// Each query runs so often, each side by turns; the fastest run of each counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Only these queries, as in q5,q7
    #[arg(long, value_delimiter = ',')]
    queries: Vec<String>,
    /// Threads for both
    #[arg(long, default_value_t = cores())]
    threads: usize,
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the benchmark.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report::new("nexmark", &args.report);
    measure(&args, &mut report).await?;
    report.finish();
    Ok(())
}

async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let auction_house = AuctionHouse::new(args.events, args.epoch_rows, args.rate)?;
    let wanted = |name: &str| args.queries.is_empty() || args.queries.iter().any(|wanted| wanted == name);
    let queries: Vec<_> = queries().filter(|(name, _)| wanted(name)).collect();
    anyhow::ensure!(!queries.is_empty(), "there is no query {}", args.queries.join(", "));
    let bar = progress(queries.len() as u64, "queries");
    for (name, query) in queries {
        let (mut took, mut batch, mut count) = (Duration::MAX, Duration::MAX, 0);
        for run in 0..args.runs {
            let mut streamed = Duration::ZERO;
            let mut view = auction_house.view(query, args.threads).await?;
            for cut in &auction_house.cuts {
                let started = Instant::now();
                view.pipeline.run(cut).await?;
                streamed += started.elapsed();
            }
            let held = rows(&view.board)?;
            let started = Instant::now();
            let answer = auction_house.batch(query, auction_house.cuts.len(), args.threads).await?;
            (took, batch) = (took.min(streamed), batch.min(started.elapsed()));
            if run == 0 {
                count = held.iter().map(RecordBatch::num_rows).sum::<usize>();
                anyhow::ensure!(comparable(&held)? == comparable(&answer)?, "{name}: the view and the batch answer differ: the figures are worth nothing");
            }
        }
        let rate = |took: Duration| args.events as f64 / took.as_secs_f64() / args.threads as f64;
        report.add(
            Figure::new("nexmark", name, rate(took), Unit::rate("events/s a core"))
                .against("datafusion-batch", rate(batch))
                .more("seconds", took.as_secs_f64())
                .more("rows", count)
                .more("events", args.events)
                .more("epochs", auction_house.cuts.len())
                .more("threads", args.threads)
                .more("runs", args.runs),
        )?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// The queries with their names.
fn queries() -> impl Iterator<Item = (&'static str, &'static str)> {
    QUERIES.split("\n-- q").skip(1).filter_map(|part| {
        let (head, query) = part.split_once('\n')?;
        let (number, _) = head.split_once(':')?;
        let at = QUERIES.find(&format!("\n-- q{number}:"))? + 4;
        Some((&QUERIES[at..at + 1 + number.len()], query.trim()))
    })
}

fn source(name: &str, columns: &str) -> anyhow::Result<Arc<SourceDef>> {
    definitions::source(&format!(
        "CREATE SOURCE {name} ({columns}, date_time TIMESTAMP FORMAT 'epoch_ms', extra TEXT, WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds')
         WITH (connector = 'kafka', topic = '{name}', 'bootstrap.servers' = 'memory:0', format = 'json')"
    ))
}

fn definition(query: &str) -> anyhow::Result<ViewDef> {
    definitions::view(&format!("CREATE CONTINUOUS VIEW v WITH (unbounded_state = true) AS {query} EMIT CHANGES"))
}

/// People, auctions and bids, cut into epochs.
struct AuctionHouse {
    sources: Vec<Arc<SourceDef>>,
    cuts: Vec<EpochCut>,
    /// Holds the file that q13 reads.
    _folder: tempfile::TempDir,
    side_input: Arc<dyn TableProvider>,
}

/// A view as it runs.
struct Running {
    pipeline: Pipeline,
    board: Arc<Board>,
}

impl AuctionHouse {
    fn new(events: usize, epoch_rows: usize, rate: usize) -> anyhow::Result<Self> {
        let config = NexmarkConfig { base_time: BASE_TIME, first_rate: rate, next_rate: rate, ..NexmarkConfig::default() };
        let events: Vec<Event> = EventGenerator::new(config).take(events).collect();
        let mut topics = BTreeMap::from(COLUMNS.map(|(name, _)| (name, Topic::new(1))));
        let mut cuts = vec![];
        for (epoch, chunk) in (1..).zip(events.chunks(epoch_rows.max(1))) {
            let mut now_ms = 0;
            for event in chunk {
                let (name, payload) = match event {
                    Event::Person(person) => ("person", serde_json::to_vec(person)?),
                    Event::Auction(auction) => ("auction", serde_json::to_vec(auction)?),
                    Event::Bid(bid) => ("bid", serde_json::to_vec(bid)?),
                };
                now_ms = event.timestamp() as i64;
                if let Some(topic) = topics.get_mut(name) {
                    topic.push(0, Some(now_ms), None, &payload);
                }
            }
            let slices = topics.iter_mut().map(|(name, topic)| (name.to_string(), topic.cut())).filter(|(_, slices)| !slices.is_empty()).collect();
            cuts.push(EpochCut { epoch, now_ms, slices, ..EpochCut::default() });
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("side_input.csv");
        let lines: String = (0..10_000).map(|key| format!("{key},value {}\n", key % 97)).collect();
        std::fs::write(&file, format!("key,value\n{lines}"))?;
        let context = SessionContext::new();
        let side_input = futures::executor::block_on(async {
            context.register_csv("side_input", file.to_string_lossy(), CsvReadOptions::new()).await?;
            context.table_provider("side_input").await
        })?;
        let sources = COLUMNS.iter().map(|(name, columns)| source(name, columns)).collect::<anyhow::Result<_>>()?;
        Ok(Self { sources, cuts, _folder: folder, side_input })
    }

    async fn view(&self, query: &str, threads: usize) -> anyhow::Result<Running> {
        let mut context = SessionContext::new();
        tidegate_udfs::register(&mut context)?;
        for source in &self.sources {
            context.register_table(source.name.as_str(), Arc::new(StreamTable::over(source)))?;
        }
        context.register_table("side_input", Arc::new(StreamTable::over_table("side_input", self.side_input.clone())))?;
        let def = definition(query)?;
        let plan = plan_view(&planning_state(&context.state()), sql::parse_query(&def.query)?, def.emit, &def.options).await?;
        let board = Arc::new(Board::default());
        let sources: Vec<(Arc<SourceDef>, u64)> = self.sources.iter().cloned().zip(1..).collect();
        let mut pipeline = Pipeline::new(sources, board.clone(), threads)?;
        let tables = plan.table_rows().await?;
        let own: Vec<&SourceDef> = self.sources.iter().map(Arc::as_ref).filter(|source| plan.inputs.contains_key(&source.name)).collect();
        pipeline.attach(ViewRuntime::new(Arc::new(def), 9, Arc::new(plan), &own, BTreeMap::new(), 0)?.with_tables(tables))?;
        Ok(Running { pipeline, board })
    }

    /// DataFusion's answer over the records of the first epochs. `proctime()` is the time of the epoch that read the record.
    async fn batch(&self, query: &str, epochs: usize, threads: usize) -> anyhow::Result<Vec<RecordBatch>> {
        let mut context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(threads));
        tidegate_udfs::register(&mut context)?;
        for source in &self.sources {
            let mut decoder = Decoder::new(source, &(0..source.columns.len()).collect::<Vec<_>>())?;
            let mut fields = source.schema().fields().to_vec();
            fields.push(Arc::new(Field::new("read_at", tidegate_udfs::proctime::TYPE, false)));
            let schema = Arc::new(Schema::new(fields));
            let mut batches = vec![];
            for cut in &self.cuts[..epochs] {
                for slice in cut.slices.get(&source.name).into_iter().flatten() {
                    let decoded = decoder.decode(0, &slice.records, cut.now_ms)?;
                    anyhow::ensure!(decoded.errors.is_empty(), "a record of {} can't be read: {}", source.name, decoded.errors[0].reason);
                    let mut columns = decoded.batch.columns().to_vec();
                    columns.push(Arc::new(TimestampNanosecondArray::from_value(cut.now_ms * 1_000_000, decoded.batch.num_rows())));
                    batches.push(RecordBatch::try_new(schema.clone(), columns)?);
                }
            }
            context.register_table(source.name.as_str(), Arc::new(MemTable::try_new(schema, vec![batches])?))?;
        }
        context.register_table("side_input", self.side_input.clone())?;
        let statement = sql::query_statement(sql::parse_query(&definition(query)?.query.replace("proctime()", "read_at"))?);
        let plan = context.state().statement_to_plan(statement).await?;
        Ok(context.execute_logical_plan(plan).await?.collect().await?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Every query equals its batch answer at several epochs.
    #[tokio::test]
    async fn every_query_equals_the_batch_answer() {
        let auction_house = AuctionHouse::new(6_000, 500, 200).unwrap();
        let mut asked = 0;
        for (name, query) in queries() {
            let mut view = auction_house.view(query, 1).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            for (epoch, cut) in auction_house.cuts.iter().enumerate() {
                view.pipeline.run(cut).await.unwrap();
                if [0, 4, auction_house.cuts.len() - 1].contains(&epoch) {
                    let held = comparable(&rows(&view.board).unwrap_or_else(|e| panic!("{name}: {e}"))).unwrap();
                    let answer = comparable(&auction_house.batch(query, epoch + 1, 1).await.unwrap()).unwrap();
                    assert!(held == answer, "{name} differs at epoch {epoch}: {} rows, and should be {}", held.len(), answer.len());
                    assert!(epoch == 0 || name == "q2" || name == "q14" || !answer.is_empty(), "{name} has no rows, which shows nothing");
                }
            }
            asked += 1;
        }
        assert_eq!(asked, 23);
    }

    #[tokio::test]
    async fn a_small_one_runs() {
        let args =
            Args { events: 2000, epoch_rows: 500, rate: 200, runs: 1, queries: vec!["q1".into(), "q5".into()], threads: 1, report: ReportArgs::default() };
        let mut report = Report::new("nexmark", &args.report);
        measure(&args, &mut report).await.unwrap();
        let lines = report.lines();
        assert_eq!(lines.iter().map(|line| &line["case"]).collect::<Vec<_>>(), ["q1", "q5"]);
        assert!(lines.iter().all(|line| line["ratio"].as_f64() > Some(0.0) && line["rows"].as_u64() > Some(0)), "{lines:?}");
        let unknown = Args { queries: vec!["q99".into()], ..args };
        assert!(measure(&unknown, &mut report).await.is_err());
    }
}
