//! `tidegate bench decode`: payloads to columns, by us and by other readers of the same bytes.

mod avro;
mod csv;
mod event;
mod json;
mod needed;
mod protobuf;
mod record;
mod rows;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StructArray},
    compute::{cast, concat, is_null, nullif},
};

use clap::ValueEnum;

use self::event::Event;
use super::{
    definitions, match_events,
    report::{Figure, Report, ReportArgs, Unit, progress},
};
use crate::{
    catalog::{ColumnDef, Origin, SourceDef},
    decode::Decoder,
    source::{Records, RecordsBuilder},
};

/// Payloads to columns, one thread, against other readers of the same bytes.
///
/// For each case and each other reader it prints gigabytes a second of both. A gigabyte is of payloads as they are on the topic. Ours judges each record by itself, as
/// a source does; the others stop at the first bad one. All have the payloads in memory, give batches of 8,192 rows, and are told to read the needed columns alone. Runs alternate; each figure is the best of
/// its runs. All must give the same rows.
///
/// JSON is read by arrow-json (lines, with the needed fields in its schema); by simd-json onto its tape, with its buffers kept, and by sonic-rs and serde_json into structs of the needed fields that borrow
/// their texts; what those three find is put into Arrow's builders. sonic-rs has the instructions that it was compiled for alone: for its best, build with RUSTFLAGS='-C
/// target-cpu=native'; the machine's line says what a build is for.
///
/// Avro is read by arrow-avro (bare records, of which it has no reader, in the blocks of an object container file), Protobuf by prost into structs of the needed fields whose values are put into
/// Arrow's builders, CSV by arrow-csv. Payloads are written by others: serde_json, arrow-avro, prost, arrow-csv.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many records
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    records: u32,
    /// Runs of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Only these cases, as in flat-12,csv
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Case>,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Case {
    /// JSON: match events of about twenty fields and nested objects, of which eight values are read
    #[value(name = "statsbomb-8")]
    Statsbomb,
    /// JSON: bids of the Nexmark benchmark, all seven fields
    NexmarkBid,
    /// JSON: a flat record of twelve fields, all of them
    #[value(name = "flat-12")]
    Flat,
    /// JSON: a flat record of a hundred fields, five of them
    #[value(name = "wide-100-5")]
    Wide,
    /// JSON: objects and lists within one another, six values of which most lie six levels deep
    Nested,
    /// Bare records in Avro: the events of statsbomb-8, as in all that follow
    Avro,
    /// Avro behind a schema registry's header
    AvroRegistry,
    /// Protobuf
    Protobuf,
    /// CSV, a line a record
    Csv,
}

/// So many records are decoded at once, by either.
const BATCH: usize = 8192;

/// A case, and who else reads it.
struct Contest {
    case: &'static str,
    source: Arc<SourceDef>,
    payloads: Vec<Vec<u8>>,
    rivals: Vec<Rival>,
}

/// Reads the payloads, or the same in its own way of holding them.
type Read = dyn Fn(&[Records]) -> anyhow::Result<Vec<RecordBatch>>;

/// Another reader.
struct Rival {
    name: &'static str,
    read: Box<Read>,
    layout: Layout,
}

/// What a reader gives.
enum Layout {
    /// The source's columns.
    Columns,
    /// Objects, with the columns at their paths.
    Objects,
}

/// Runs the benchmark.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report::new("decode", &args.report);
    measure(&args, &mut report).await?;
    report.finish();
    Ok(())
}

async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let cases = if args.cases.is_empty() { Case::value_variants() } else { &args.cases };
    let count = args.records as usize;
    for case in cases {
        let contest = match case {
            Case::Statsbomb => json::statsbomb::contest(&events(count)?)?,
            Case::NexmarkBid => json::bid::contest(count)?,
            Case::Flat => json::flat::contest(count)?,
            Case::Wide => json::wide::contest(count)?,
            Case::Nested => json::nested::contest(count)?,
            Case::Avro => avro::bare(&events(count)?)?,
            Case::AvroRegistry => avro::behind_a_header(&events(count)?).await?,
            Case::Protobuf => protobuf::contest(&events(count)?)?,
            Case::Csv => csv::contest(&events(count)?)?,
        };
        contest.run(args.runs, report)?;
    }
    Ok(())
}

/// Match events that can be written in every format.
fn events(count: usize) -> anyhow::Result<Vec<Event>> {
    Ok(match_events::simulated(count).map(|event| serde_json::from_slice(&event.payload)).collect::<Result<_, _>>()?)
}

impl Contest {
    /// Adds a figure for each rival.
    fn run(self, runs: u8, report: &mut Report) -> anyhow::Result<()> {
        let (count, bytes) = (self.payloads.len() as f64, self.payloads.iter().map(Vec::len).sum::<usize>() as f64);
        let slices: Vec<Records> = self.payloads.chunks(BATCH).map(records).collect();
        let all: Vec<usize> = (0..self.source.columns.len()).collect();
        let mut decoder = Decoder::new(&self.source, &all)?;
        let mut ours = Duration::MAX;
        let mut theirs = vec![Duration::MAX; self.rivals.len()];
        let bar = progress(runs.into(), self.case);
        for run in 0..runs {
            let started = Instant::now();
            let mine = decode(&mut decoder, &slices)?;
            ours = ours.min(started.elapsed());
            for (rival, best) in self.rivals.iter().zip(&mut theirs) {
                let started = Instant::now();
                let other = (rival.read)(&slices)?;
                *best = started.elapsed().min(*best);
                if run == 0 {
                    self.compare(&mine, &other, rival)?;
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        let gb_per_second = |took: Duration| bytes / took.as_secs_f64() / 1e9;
        let records_per_second = |took: Duration| count / took.as_secs_f64();
        for (rival, theirs) in self.rivals.iter().zip(theirs) {
            report.add(
                Figure::new("decode", self.case, gb_per_second(ours), Unit::GB_PER_SECOND)
                    .against(rival.name, gb_per_second(theirs))
                    .more("records_per_second", records_per_second(ours))
                    .more("baseline_records_per_second", records_per_second(theirs))
                    .more("bytes_per_record", (bytes / count).round() as u64)
                    .more("records", self.payloads.len())
                    .more("runs", runs),
            )?;
        }
        Ok(())
    }

    /// Whether both have read the same.
    fn compare(&self, ours: &[RecordBatch], theirs: &[RecordBatch], rival: &Rival) -> anyhow::Result<()> {
        for (column, declared) in self.source.columns.iter().enumerate() {
            let their_column = |batch: &RecordBatch| match rival.layout {
                Layout::Columns => Ok(batch.column(column).clone()),
                Layout::Objects => at(batch, path(declared)?),
            };
            let mine = ours.iter().map(|batch| batch.column(column).clone()).collect::<Vec<_>>();
            let other = theirs.iter().map(|batch| Ok(cast(&their_column(batch)?, &declared.data_type)?)).collect::<anyhow::Result<Vec<_>>>()?;
            let [mine, other] = [mine, other].map(|arrays| concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>()));
            anyhow::ensure!(
                mine? == other?,
                "column {} of case {} is not what {} makes of it: the figures are worth nothing",
                declared.name,
                self.case,
                rival.name
            );
        }
        Ok(())
    }
}

fn records(payloads: &[Vec<u8>]) -> Records {
    let mut builder = RecordsBuilder::new();
    for (offset, payload) in (0..).zip(payloads) {
        builder.push(offset, None, None, Some(payload), vec![]);
    }
    builder.finish()
}

fn decode(decoder: &mut Decoder, slices: &[Records]) -> anyhow::Result<Vec<RecordBatch>> {
    let mut batches = Vec::with_capacity(slices.len());
    for records in slices {
        // However late it is said to be, no event is ahead of its time.
        let decoded = decoder.decode(0, records, i64::MAX / 1_000_000)?;
        if let Some(bad) = decoded.errors.first() {
            anyhow::bail!("record {} can't be read: {}", bad.record, bad.reason);
        }
        batches.push(decoded.batch);
    }
    Ok(batches)
}

/// What stands at a path in nested records; NULL where one on the way is.
fn at(batch: &RecordBatch, path: &[impl AsRef<str>]) -> anyhow::Result<ArrayRef> {
    let mut array: ArrayRef = Arc::new(StructArray::from(batch.clone()));
    for name in path.iter().map(AsRef::as_ref) {
        let part = array.as_struct().column_by_name(name).ok_or_else(|| anyhow::anyhow!("the other reader gives no {name}"))?;
        array = nullif(part, &is_null(&array)?)?;
    }
    Ok(array)
}

/// Where a column is in a payload.
fn path(column: &ColumnDef) -> anyhow::Result<&[String]> {
    match &column.origin {
        Origin::Payload { path, .. } => Ok(path),
        _ => anyhow::bail!("column {} is not of the payload", column.name),
    }
}

/// A source of these columns.
fn source(columns: &str, options: &str) -> anyhow::Result<Arc<SourceDef>> {
    definitions::source(&format!(
        "CREATE SOURCE match_events ({columns}) WITH (connector = 'kafka', topic = 'memory', 'bootstrap.servers' = 'memory:0', {options})"
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_readers_of_all_cases_agree() {
        let args = Args { records: 500, runs: 1, cases: vec![], report: ReportArgs::default() };
        let mut report = Report::new("decode", &args.report);
        measure(&args, &mut report).await.unwrap();
        let lines = report.lines();
        let found: Vec<[&str; 2]> = lines.iter().map(|line| [&line["case"], &line["baseline"]].map(|text| text.as_str().unwrap())).collect();
        let json = ["statsbomb-8", "nexmark-bid", "flat-12", "wide-100-5", "nested"];
        let mut wanted: Vec<[&str; 2]> = json.iter().flat_map(|case| json::RIVALS.map(|rival| [*case, rival])).collect();
        wanted.extend([["avro", "arrow-avro"], ["avro-registry", "arrow-avro"], ["protobuf", "prost"], ["csv", "arrow-csv"]]);
        assert_eq!(found, wanted);
    }
}
