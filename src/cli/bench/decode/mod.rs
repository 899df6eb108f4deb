//! `tidegate bench decode`: the same rows in each format, decoded by us and by another reader.

mod avro;
mod csv;
mod event;
mod json;
mod protobuf;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StructArray},
    compute::{cast, concat, is_null, nullif},
};
use serde_json::json;

use self::event::Event;
use crate::{
    catalog::{Definition, SourceDef},
    decode::Decoder,
    source::{
        Records, RecordsBuilder,
        matches::simulate::{SimulateOptions, SimulatedMatches},
    },
    sql,
};

/// Payloads of each format to columns, one thread, against another reader of the same bytes.
///
/// The rows are simulated match events: about twenty fields and nested records, of which eight values are decoded. Ours judges each record by itself, as a source does.
/// The other readers are arrow-json, arrow-avro, prost and arrow-csv; each is told to read those eight values alone, and stops at the first bad record. arrow-avro
/// has no reader of bare records: it is given them in the blocks of an object container file. prost decodes into derived structs, whose values are put into Arrow's builders.
/// Payloads are written by others: serde_json, arrow-avro, prost, arrow-csv. Runs alternate; each figure is the best of its runs. Both must give the same rows.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many records
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    records: u32,
    /// Runs of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Only these formats, as in avro,protobuf
    #[arg(long, value_delimiter = ',')]
    formats: Vec<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// JSON
    Json,
    /// Bare records in Avro
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

/// What is decoded of each record, as a source in JSON, Avro or Protobuf declares it.
const COLUMNS: &str =
    "match_id BIGINT, minute INT, second INT, type_name TEXT PATH '$.type.name', team TEXT PATH '$.team.name', player TEXT PATH '$.player.name',
  xg DOUBLE PATH '$.shot.statsbomb_xg', event_time TIMESTAMP(3), WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds'";
/// Where another reader has the same, in the same order.
const PLACES: [&[&str]; 8] =
    [&["match_id"], &["minute"], &["second"], &["type", "name"], &["team", "name"], &["player", "name"], &["shot", "statsbomb_xg"], &["event_time"]];

/// One format, and who else reads it.
struct Contest {
    format: &'static str,
    source: Arc<SourceDef>,
    payloads: Vec<Vec<u8>>,
    baseline: &'static str,
    /// The other reader, from the same payloads in its own way of holding them.
    theirs: Box<dyn Fn() -> anyhow::Result<Vec<RecordBatch>>>,
    /// Where the columns are in what it gives.
    places: &'static [&'static [&'static str]],
}

/// Runs the benchmark; prints one JSON object a format.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let options = SimulateOptions { matches: None, concurrent: 60, three_sixty: 0.0, late_receipts: false, ..SimulateOptions::default() };
    let events = SimulatedMatches::new(&options).take(args.records as usize).map(|event| serde_json::from_slice(&event.payload));
    let events: Vec<Event> = events.collect::<Result<_, _>>()?;
    let wanted = |format: Format| args.formats.is_empty() || args.formats.contains(&format);
    if wanted(Format::Json) {
        println!("{}", json::contest(&events)?.run(args.runs)?);
    }
    if wanted(Format::Avro) {
        println!("{}", avro::bare(&events)?.run(args.runs)?);
    }
    if wanted(Format::AvroRegistry) {
        println!("{}", avro::behind_a_header(&events).await?.run(args.runs)?);
    }
    if wanted(Format::Protobuf) {
        println!("{}", protobuf::contest(&events)?.run(args.runs)?);
    }
    if wanted(Format::Csv) {
        println!("{}", csv::contest(&events)?.run(args.runs)?);
    }
    Ok(())
}

impl Contest {
    fn run(self, runs: u8) -> anyhow::Result<serde_json::Value> {
        let (count, bytes) = (self.payloads.len(), self.payloads.iter().map(Vec::len).sum::<usize>());
        let slices: Vec<Records> = self.payloads.chunks(BATCH).map(records).collect();
        let all: Vec<usize> = (0..self.source.columns.len()).collect();
        let mut decoder = Decoder::new(&self.source, &all)?;
        let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
        for run in 0..runs {
            let started = Instant::now();
            let mine = decode(&mut decoder, &slices)?;
            ours = ours.min(started.elapsed());
            let started = Instant::now();
            let other = (self.theirs)()?;
            theirs = theirs.min(started.elapsed());
            if run == 0 {
                self.compare(&mine, &other)?;
            }
        }
        let figures = |took: Duration| {
            let seconds = took.as_secs_f64();
            json!({ "records_per_second": (count as f64 / seconds).round(), "mb_per_second": (bytes as f64 / seconds / 1e6).round() })
        };
        Ok(
            json!({ "bench": "decode", "format": self.format, "records": count, "bytes_per_record": (bytes as f64 / count as f64).round(), "tidegate": figures(ours),
                   "baseline": self.baseline, "baseline_figures": figures(theirs), "ratio": (theirs.as_secs_f64() / ours.as_secs_f64() * 100.0).round() / 100.0, "runs": runs }),
        )
    }

    /// Whether both have read the same.
    fn compare(&self, ours: &[RecordBatch], theirs: &[RecordBatch]) -> anyhow::Result<()> {
        for (column, (declared, place)) in self.source.columns.iter().zip(self.places).enumerate() {
            let mine = ours.iter().map(|batch| batch.column(column).clone()).collect::<Vec<_>>();
            let other = theirs.iter().map(|batch| Ok(cast(&at(batch, place)?, &declared.data_type)?)).collect::<anyhow::Result<Vec<_>>>()?;
            let [mine, other] = [mine, other].map(|arrays| concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>()));
            anyhow::ensure!(
                mine? == other?,
                "column {} of format {} is not what {} makes of it: the figures are worth nothing",
                declared.name,
                self.format,
                self.baseline
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
fn at(batch: &RecordBatch, path: &[&str]) -> anyhow::Result<ArrayRef> {
    let mut array: ArrayRef = Arc::new(StructArray::from(batch.clone()));
    for name in path {
        let part = array.as_struct().column_by_name(name).ok_or_else(|| anyhow::anyhow!("the other reader gives no {name}"))?;
        array = nullif(part, &is_null(&array)?)?;
    }
    Ok(array)
}

fn source(columns: &str, options: &str) -> anyhow::Result<Arc<SourceDef>> {
    let text = format!("CREATE SOURCE match_events ({columns}) WITH (connector = 'kafka', topic = 'memory', 'bootstrap.servers' = 'memory:0', {options})");
    match sql::parse_definition(&text)? {
        Definition::Source(source) => Ok(source),
        _ => anyhow::bail!("the benchmark's source is none"),
    }
}
