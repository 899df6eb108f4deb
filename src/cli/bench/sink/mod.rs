//! `tidegate bench sink`: what a sink writes to a topic, beside a bare producer of the same records.

mod bare;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{array::AsArray, datatypes::Int64Type};

use self::bare::{Bare, Sent};
use super::{
    engine::FreshEngine,
    place::{CHUNK, Place},
    report::{Figure, Report, ReportArgs, Unit, progress},
};
use crate::{
    catalog::{Definition, Delivery, KafkaDef, KafkaSink, SinkTarget},
    source::kafka::{Pace, resolve_ranges, scan},
    sql,
};

/// What a sink writes to a topic, beside a bare producer of the same records.
///
/// A view holds records; a sink writes them to a topic, with keys and headers, at least once, and then another one exactly once. The records are read back, and a bare librdkafka
/// producer with the sink's settings sends them again, its transactions as large as the sink's. Sink and producer run by turns. It prints records a second for each kind of delivery, the best of
/// the runs.
///
/// The sink's rate is that from the end of its first round of about 65,536 rows until it is behind by nothing: encoding, sending, and waiting for acknowledgements, but not connecting,
/// nor the checkpoint that has to hold the rows before. With fewer rows it is from the statement on. At least 0.7 of the bare producer is asked for.
///
/// Without --bootstrap-servers the broker is the embedded one, in the same process. It keeps 5 MiB of a partition, all of which have to hold what is to be read back.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many records
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u32).range(1..))]
    records: u32,
    /// Partitions of the topics that are written
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(i32).range(1..=1024))]
    partitions: i32,
    /// Runs of each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// A broker, as host:port; topics tidegate-bench-… are made there, and deleted at the end
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap_servers: Option<String>,
    #[command(flatten)]
    report: ReportArgs,
}

/// How often it is looked how far the sink is.
const LOOK: Duration = Duration::from_millis(20);
/// Kinds of delivery, each with its name and the topic that it writes.
const DELIVERIES: [(Delivery, &str, &str); 2] = [(Delivery::AtLeastOnce, "at_least_once", "written"), (Delivery::ExactlyOnce, "exactly_once", "committed")];

/// Runs the benchmark.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report::new("sink", &args.report);
    measure(args, &mut report).await?;
    report.finish();
    Ok(())
}

async fn measure(args: Args, report: &mut Report) -> anyhow::Result<()> {
    let topics = [("events", 8), ("bare", args.partitions), (DELIVERIES[0].2, args.partitions), (DELIVERIES[1].2, args.partitions)];
    let place = Place::start(args.bootstrap_servers.as_deref(), &topics).await?;
    let bench = Bench { args, place, fresh: FreshEngine::start().await? };
    let measured = bench.measure_all(report).await;
    bench.fresh.stop().await?;
    bench.place.end().await?;
    measured
}

struct Bench {
    args: Args,
    place: Place,
    fresh: FreshEngine,
}

impl Bench {
    async fn measure_all(&self, report: &mut Report) -> anyhow::Result<()> {
        self.fill().await?;
        for (delivery, name, topic) in DELIVERIES {
            report.add(self.measure(delivery, name, &self.place.topic(topic)).await?)?;
        }
        Ok(())
    }

    /// Makes a view that holds the records.
    async fn fill(&self) -> anyhow::Result<()> {
        let (topic, brokers) = (self.place.topic("events"), self.place.brokers());
        self.fresh
            .execute(&format!(
                "CREATE SOURCE events (id BIGINT, match_id BIGINT, team TEXT, player TEXT, kind TEXT, minute INT, xg DOUBLE, at TIMESTAMP(3))
             WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{brokers}', format = 'json')"
            ))
            .await?;
        self.fresh.execute("CREATE CONTINUOUS VIEW all_events AS SELECT * FROM events").await?;
        let records = self.args.records;
        let bar = progress(records.into(), "filling a view with records");
        for begin in (0..records).step_by(CHUNK as usize) {
            let end = records.min(begin.saturating_add(CHUNK));
            self.fresh.execute(&format!(
                "INSERT INTO events SELECT value AS id, 101000000 + value / 3500 AS match_id, 'Team ' || (value % 20) AS team, 'Some Player the ' || (value % 440) || 'th' AS player,
                   CASE value % 4 WHEN 0 THEN 'Pass' WHEN 1 THEN 'Ball Receipt*' WHEN 2 THEN 'Carry' ELSE 'Pressure' END AS kind, CAST(value % 90 AS INT) AS minute,
                   CASE value % 40 WHEN 0 THEN (value % 997) / 997.0 END AS xg, to_timestamp_millis(1514764800000 + value * 100) AS at
                 FROM generate_series({begin}, {})",
                end - 1
            ))
            .await?;
            self.fresh.wait_for("SELECT count(*) FROM all_events", end.into()).await?;
            bar.set_position(end.into());
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// A sink and a bare producer, by turns.
    async fn measure(&self, delivery: Delivery, name: &str, topic: &str) -> anyhow::Result<Figure> {
        let statement = format!(
            "CREATE SINK out INTO KAFKA (topic = '{topic}', 'bootstrap.servers' = '{}', key = 'id', delivery = '{name}')
             AS SELECT * FROM all_events",
            self.place.brokers()
        );
        let Definition::Sink(def) = sql::parse_definition(&statement)? else { anyhow::bail!("the benchmark's sink is none") };
        let SinkTarget::Kafka(sink) = &def.target else { anyhow::bail!("the benchmark's sink has no topic") };
        let (mut ours, mut theirs, mut began) = (0f64, 0f64, Duration::MAX);
        let mut bytes = 0;
        let mut bare: Option<Arc<Bare>> = None;
        let bar = progress(self.args.runs.into(), &format!("writing {name}"));
        for _ in 0..self.args.runs {
            self.fresh.execute(&statement).await?;
            let (rate, whole) = self.follow().await?;
            self.fresh.execute("DROP SINK out").await?;
            (ours, began) = (ours.max(rate), began.min(whole));
            let bare = match &bare {
                Some(bare) => bare.clone(),
                None => {
                    let records = self.written(sink).await?;
                    bytes = records.iter().map(Sent::bytes).sum();
                    bare.insert(Arc::new(Bare::new(sink, &self.place.topic("bare"), records)?)).clone()
                }
            };
            theirs = theirs.max(tokio::task::spawn_blocking(move || bare.send()).await??);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let size = bytes as f64 / f64::from(self.args.records);
        let baseline = if delivery == Delivery::ExactlyOnce { "a bare librdkafka producer with transactions" } else { "a bare librdkafka producer" };
        Ok(Figure::new("sink", name, ours, Unit::rate("records/s"))
            .against(baseline, theirs)
            .more("mb_per_second", ours * size / 1e6)
            .more("seconds_from_the_statement", began.as_secs_f64())
            .more("broker", self.place.name())
            .more("records", self.args.records)
            .more("bytes_per_record", size.round() as u64)
            .more("partitions", self.args.partitions)
            .more("runs", self.args.runs))
    }

    /// Waits until the sink has written everything: records a second behind its first round, and how long all took.
    async fn follow(&self) -> anyhow::Result<(f64, Duration)> {
        let (started, all) = (Instant::now(), i64::from(self.args.records));
        let (mut since, mut before) = (started, 0);
        loop {
            let sinks = self.fresh.rows("SELECT records, lag_rows, state, message FROM system.sinks WHERE name = 'out'").await?;
            let sinks = sinks.iter().find(|batch| batch.num_rows() > 0).ok_or_else(|| anyhow::anyhow!("the sink is gone"))?;
            let number = |column: usize| sinks.column(column).as_primitive::<Int64Type>().value(0);
            let text = |column: usize| sinks.column(column).as_string::<i32>().value(0);
            anyhow::ensure!(matches!(text(2), "starting" | "running"), "the sink is {}: {}", text(2), text(3));
            let written = number(0);
            if written >= all && number(1) == 0 {
                return Ok(((all - before) as f64 / since.elapsed().as_secs_f64(), started.elapsed()));
            }
            if before == 0 && written > 0 {
                (since, before) = (Instant::now(), written);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What the sink has written, in its order.
    async fn written(&self, sink: &KafkaSink) -> anyhow::Result<Vec<Sent>> {
        let kafka = sink.kafka.clone();
        let mut records = tokio::task::spawn_blocking(move || read(&kafka)).await??;
        records.sort_by_key(|(sequence, _)| *sequence);
        records.dedup_by_key(|(sequence, _)| *sequence);
        anyhow::ensure!(
            records.len() == self.args.records as usize,
            "the topic holds {} of the {} records that the sink has written to it: if the broker keeps so little, take fewer --records or more --partitions",
            records.len(),
            self.args.records
        );
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }
}

/// All records of a topic, with their numbers.
fn read(kafka: &KafkaDef) -> anyhow::Result<Vec<(u64, Sent)>> {
    let mut records = vec![];
    let mut strange = None;
    let ranges = resolve_ranges(kafka, &BTreeMap::new(), None)?;
    let lost = scan(kafka, &ranges, &Pace { records: 65_536, wanted: &|| true }, |slice| {
        for record in slice.records.iter() {
            match Sent::of(&record) {
                Some(sent) => records.push(sent),
                None => strange = Some(record.offset),
            }
        }
        strange.is_none()
    })?;
    anyhow::ensure!(lost.is_empty() && strange.is_none(), "topic {} holds other records than the sink's: {strange:?} {lost:?}", kafka.topic);
    Ok(records)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_small_one_runs() {
        let args = Args { records: 500, partitions: 2, runs: 1, bootstrap_servers: None, report: ReportArgs::default() };
        let mut report = Report::new("sink", &args.report);
        measure(args, &mut report).await.unwrap();
        let lines = report.lines();
        assert_eq!(lines.iter().map(|line| &line["case"]).collect::<Vec<_>>(), ["at_least_once", "exactly_once"]);
        assert!(lines.iter().all(|line| line["ratio"].as_f64() > Some(0.0) && line["broker"] == "embedded"), "{lines:?}");
    }
}
