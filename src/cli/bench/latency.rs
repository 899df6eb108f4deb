//! `tidegate bench latency`: from produce to visible in a view, at a steady rate, and what that costs.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampNanosecondType},
};
use futures::StreamExt;

use super::{
    engine::FreshEngine,
    match_events::{TEAM_MINUTE, source_with},
    place::Place,
    process::{Process, cpu_time},
    report::{Figure, Report, ReportArgs, Unit, progress},
};

/// From produce to visible, at a steady rate.
///
/// For each rate it prints the median, the 99th percentile and the 99.9th of all records' latencies, and the cores that the server uses. 'events_per_second'
/// is how many records came: where that is less than was asked for, sender, broker or machine can't do more.
///
/// A record counts as produced at its Kafka timestamp, which the producer sets when it is given the record, and as visible when a follower of a view has it. What
/// lies between is included: the producer (which sends at once, with no linger), the broker, reading, the pause before an epoch, the epoch, its publication and
/// the follower's wake-up. The follower is in the server's process and waits without polling; Flight SQL is not included. A timestamp's part of a
/// millisecond is lost, which counts against us: up to 1 ms too much.
///
/// The view is the main job, one-minute windows a match and team. A second view of the same source, published with it, counts records by their
/// timestamps, so that every record is measured and not only the newest of each window.
///
/// Broker and sender are processes of their own, so that the CPU time is the server's alone. Without --bootstrap-servers the broker is the embedded one. It does not wake a fetch that
/// waits, so the reader asks anew when one came back empty: what is measured then is mostly that. It keeps 5 MiB of a partition, and what it drops unread is printed as 'lost'.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Events per second; several, as in 3000,100000, are measured one after the other
    #[arg(long = "rate", value_name = "RATE", value_delimiter = ',', default_values_t = [3000, 100_000], value_parser = clap::value_parser!(u32).range(1..))]
    rates: Vec<u32>,
    /// Seconds to measure for each rate
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// A broker, as host:port; a topic tidegate-bench-… is made there, and deleted at the end
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap_servers: Option<String>,
    #[command(flatten)]
    report: ReportArgs,
}

/// Partitions of the topic.
const PARTITIONS: i32 = 8;
/// How long the first record may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The view that is followed.
const ARRIVALS: &str =
    "CREATE CONTINUOUS VIEW arrivals WITH (unbounded_state = true) AS SELECT sent_at, count(*) AS events FROM match_events GROUP BY sent_at EMIT CHANGES";

/// Runs the benchmark.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report::new("latency", &args.report);
    for &rate in &args.rates {
        measure(rate, args.seconds, args.bootstrap_servers.as_deref(), &mut report).await?;
    }
    report.finish();
    Ok(())
}

/// Measures one rate for so many seconds, at these brokers or an embedded one.
pub(super) async fn measure(rate: u32, seconds: u64, brokers: Option<&str>, report: &mut Report) -> anyhow::Result<()> {
    let place = Place::apart(brokers, &[("events", PARTITIONS)]).await?;
    let measured = at_place(rate, seconds, &place).await;
    place.end().await?;
    let Measured { latencies, cores, lost } = measured?;
    let events = latencies.count();
    let figure = |name: &str, value: f64, unit: Unit| {
        let figure = Figure::new("latency", format!("{rate}-{name}"), value, unit).more("rate", rate).more("seconds", seconds).more("broker", place.name());
        let figure = figure.more("events_per_second", events / seconds);
        if lost > 0 { figure.more("lost", lost) } else { figure }
    };
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        report.add(figure(name, latencies.at(share), Unit::MILLISECONDS))?;
    }
    report.add(figure("max", latencies.at(1.0), Unit::MILLISECONDS))?;
    report.add(figure("server", cores, Unit::CORES))
}

/// What was found at one rate.
struct Measured {
    latencies: Latencies,
    cores: f64,
    /// Records that the broker had dropped before they were read.
    lost: u64,
}

async fn at_place(rate: u32, seconds: u64, place: &Place) -> anyhow::Result<Measured> {
    let fresh = FreshEngine::start().await?;
    let measured = follow(rate, seconds, place, &fresh).await;
    let lost = fresh.engine.overview().sources.iter().flat_map(|source| &source.partitions).map(|partition| partition.lost).sum();
    fresh.stop().await?;
    let (latencies, cores) = measured?;
    anyhow::ensure!(latencies.count() > 0, "no record became visible");
    Ok(Measured { latencies, cores, lost })
}

async fn follow(rate: u32, seconds: u64, place: &Place, fresh: &FreshEngine) -> anyhow::Result<(Latencies, f64)> {
    let (topic, brokers) = (place.topic("events"), place.brokers());
    let source = source_with(brokers, &topic, "sent_at TIMESTAMP METADATA FROM 'timestamp',", ", 'on.data.loss' = 'continue'");
    for statement in [source.as_str(), TEAM_MINUTE, ARRIVALS] {
        fresh.execute(statement).await?;
    }
    let mut changes = fresh.stream("SELECT sent_at, events FROM arrivals EMIT CHANGES").await?;
    let _sender = Process::events(brokers, &topic, rate, seconds + 30)?;
    let bar = progress(seconds, &format!("{rate} events a second"));
    let mut latencies = Latencies::default();
    // The first second, from the first record on, warms up.
    match tokio::time::timeout(PATIENCE, changes.next()).await {
        Ok(Some(batch)) => latencies.take(&batch?),
        _ => anyhow::bail!("no record became visible within {} s", PATIENCE.as_secs()),
    }
    let warm = Instant::now() + Duration::from_secs(1);
    while let Ok(Some(batch)) = tokio::time::timeout_at(warm.into(), changes.next()).await {
        latencies.take(&batch?);
    }
    latencies.forget();
    let (before, deadline) = (cpu_time(), warm + Duration::from_secs(seconds));
    while let Ok(Some(batch)) = tokio::time::timeout_at(deadline.into(), changes.next()).await {
        latencies.take(&batch?);
        bar.set_position(warm.elapsed().as_secs());
    }
    let cores = (cpu_time() - before).as_secs_f64() / warm.elapsed().as_secs_f64();
    bar.finish_and_clear();
    Ok((latencies, cores))
}

/// How late records became visible.
#[derive(Debug, Default)]
struct Latencies {
    /// How many records of each timestamp were seen so far.
    seen: HashMap<i64, i64>,
    /// Latencies in nanoseconds, and how many records had each; in the order in which they were seen.
    found: Vec<(i64, u64)>,
}

impl Latencies {
    /// Takes changes of the second view, which became visible just now.
    fn take(&mut self, changes: &RecordBatch) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i64);
        self.take_at(changes, now);
    }

    fn take_at(&mut self, changes: &RecordBatch, now: i64) {
        let (sent, events) = (changes.column(0).as_primitive::<TimestampNanosecondType>(), changes.column(1).as_primitive::<Int64Type>());
        let ops = changes.column(2).as_string_view();
        for ((sent, events), op) in sent.values().iter().zip(events.values()).zip(ops) {
            if op == Some("update_before") {
                continue;
            }
            let seen = self.seen.entry(*sent).or_default();
            self.found.push((now - sent, (events - *seen).max(0) as u64));
            *seen = *events;
        }
    }

    /// Forgets what was found, but not which records were seen.
    fn forget(&mut self) {
        self.found.clear();
    }

    /// How many records there were.
    fn count(&self) -> u64 {
        self.found.iter().map(|(_, records)| records).sum()
    }

    /// The latency, in milliseconds, that this share of the records did not exceed.
    fn at(&self, share: f64) -> f64 {
        let mut found = self.found.clone();
        found.sort_unstable();
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut records = 0;
        let reached = found.iter().find(|(_, more)| {
            records += more;
            records >= wanted
        });
        reached.map_or(f64::NAN, |(latency, _)| *latency as f64 / 1e6)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringViewArray, TimestampNanosecondArray};

    use super::*;

    /// Rows of a timestamp in milliseconds, a count, and what became of it.
    fn changes(rows: &[(i64, i64, &str)]) -> RecordBatch {
        let sent: ArrayRef = Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.0 * 1_000_000)));
        let events: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
        let ops: ArrayRef = Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.2)));
        RecordBatch::try_from_iter([("sent_at", sent), ("events", events), ("_op", ops)]).unwrap()
    }

    #[test]
    fn each_record_counts_once_from_its_timestamp_to_its_epoch() {
        let mut latencies = Latencies::default();
        latencies.take_at(&changes(&[(100, 10, "insert")]), 103_000_000);
        latencies.forget();
        // Ten of these were seen before; 89 come 4 ms after they were sent, one comes 9 ms after.
        latencies.take_at(&changes(&[(100, 10, "update_before"), (100, 99, "update_after")]), 104_000_000);
        latencies.take_at(&changes(&[(100, 99, "update_before"), (100, 100, "update_after"), (108, 10, "insert")]), 109_000_000);
        assert_eq!(latencies.count(), 100);
        assert_eq!([0.1, 0.5, 0.99, 0.999, 1.0].map(|share| latencies.at(share)), [1.0, 4.0, 4.0, 9.0, 9.0]);
    }
}
