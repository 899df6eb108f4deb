//! The text that Prometheus reads, made from the engine's figures when it asks. Labels are names of sources, views, pipelines, partitions
//! and phases: as many as have been declared, whatever the records hold.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};

use super::process::Process;
use crate::session::{BUCKETS, Histogram, Overview, PHASES};

/// All metrics; without an engine those of the process alone.
pub fn text(overview: Option<Overview>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures { overview, process: Process::now(), now_ns: now_ns() }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

#[derive(Debug)]
struct Figures {
    overview: Option<Overview>,
    process: Process,
    now_ns: i64,
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Out(encoder);
        out.process(&self.process)?;
        let Some(overview) = &self.overview else { return Ok(()) };
        out.pipelines(overview)?;
        out.sources(overview, self.now_ns)?;
        out.views(overview)?;
        out.gauge("tidegate_queries_running", "Statements and subscriptions that run", [(vec![], overview.queries_running as f64)])?;
        let subscribed = [(vec![], overview.subscribed as f64)];
        out.gauge("tidegate_subscribed_queries", "Queries over views' changes, each run once for all who subscribe with it", subscribed)?;
        out.counter("tidegate_queries", "Statements and subscriptions since the server started", [(vec![], overview.queries_begun as f64)])?;
        for (name, help, value) in [
            ("tidegate_connections", "Open connections of clients", overview.connections),
            ("tidegate_sessions", "Sessions that are kept for clients", overview.sessions),
            ("tidegate_prepared_statements", "Prepared statements that are kept for clients", overview.prepared),
            ("tidegate_bound_bytes", "Bytes of bound parameters that are kept for clients", overview.bound_bytes),
        ] {
            out.gauge(name, help, [(vec![], value as f64)])?;
        }
        out.counter("tidegate_refused", "Calls and connections refused since a limit of clients was reached", [(vec![], overview.refused as f64)])?;
        out.gauge("tidegate_ready", "1 while all pipelines run, as /readyz says", [(vec![], f64::from(u8::from(overview.unready.is_empty())))])
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn process(&mut self, process: &Process) -> fmt::Result {
        let known = |value: Option<f64>| value.map(|value| (vec![], value));
        self.counter("process_cpu_seconds", "CPU time used", known(process.cpu_seconds))?;
        self.gauge("process_resident_memory_bytes", "Resident memory", known(process.resident_bytes.map(|n| n as f64)))?;
        self.gauge("process_open_fds", "Open file descriptors", known(process.open_fds.map(|n| n as f64)))?;
        self.gauge("process_start_time_seconds", "When the server started, in seconds since 1970", known(Some(process.started)))
    }

    fn pipelines(&mut self, overview: &Overview) -> fmt::Result {
        let pipelines = &overview.pipelines;
        let of = |value: fn(&crate::session::PipelineOverview) -> u64| pipelines.iter().map(move |p| (vec![("pipeline", p.name.as_str())], value(p) as f64));
        self.gauge("tidegate_pipeline_up", "1 while the pipeline runs, 0 when it stands still", of(|p| u64::from(p.failure.is_none())))?;
        self.gauge("tidegate_epoch", "The last epoch", of(|p| p.epoch))?;
        self.counter("tidegate_epochs", "Epochs since the server started", of(|p| p.totals.epochs))?;
        self.counter("tidegate_input_records", "Records read since the server started, bad ones among them", of(|p| p.totals.records))?;
        self.counter("tidegate_input_bytes", "Payload bytes read since the server started", of(|p| p.totals.bytes))?;
        self.counter("tidegate_checkpoints", "Checkpoints written since the server started", of(|p| p.totals.checkpoints))?;
        self.counter("tidegate_checkpoint_failures", "Checkpoints that could not be written", of(|p| p.totals.failed_checkpoints))?;
        self.counter("tidegate_checkpoint_bytes", "Bytes of checkpoints written since the server started", of(|p| p.totals.checkpoint_bytes))?;
        let written = pipelines.iter().filter_map(|p| Some((vec![("pipeline", p.name.as_str())], p.checkpoint? as f64)));
        self.gauge("tidegate_checkpoint_epoch", "The epoch of the last checkpoint written since the server started", written)?;
        let phases = pipelines.iter().flat_map(|p| {
            let labels = move |phase| vec![("pipeline", p.name.as_str()), ("phase", phase)];
            PHASES.iter().zip(&p.totals.phases).map(move |(phase, histogram)| (labels(phase), histogram)).chain([(labels("all"), &p.totals.duration)])
        });
        self.histogram("tidegate_epoch_duration_seconds", "How long epochs take, by phase", phases)?;
        let checkpoints = pipelines.iter().map(|p| (vec![("pipeline", p.name.as_str())], &p.totals.checkpoint_duration));
        self.histogram("tidegate_checkpoint_duration_seconds", "How long checkpoints take, beside the epochs", checkpoints)
    }

    fn sources(&mut self, overview: &Overview, now_ns: i64) -> fmt::Result {
        let sources = &overview.sources;
        let of = |value: fn(&crate::session::SourceOverview) -> u64| sources.iter().map(move |s| (vec![("source", s.name.as_str())], value(s) as f64));
        self.counter("tidegate_source_records", "Rows read from the source, ever", of(|s| s.rows))?;
        self.counter("tidegate_source_errors", "Bad records of the source, ever", of(|s| s.errors))?;
        self.counter("tidegate_source_new_fields", "Records with fields that the source does not declare, since the server started", of(|s| s.drift.new))?;
        self.counter("tidegate_source_missing_fields", "Records that lack declared fields, since the server started", of(|s| s.drift.missing))?;
        self.counter("tidegate_source_retyped_fields", "Bad records with a field of another type, since the server started", of(|s| s.drift.retyped))?;
        let lag = |s: &crate::session::SourceOverview| s.watermark.map(|watermark| now_ns.saturating_sub(watermark) as f64 / 1e9);
        let lags = sources.iter().filter_map(|s| Some((vec![("source", s.name.as_str())], lag(s)?)));
        self.gauge("tidegate_watermark_lag_seconds", "How far the source's watermark is behind the clock", lags)?;
        // The encoder takes labels by reference: numbers become text here.
        let partitions: Vec<(&str, String, &crate::session::PartitionOverview)> =
            sources.iter().flat_map(|s| s.partitions.iter().map(|p| (s.name.as_str(), p.partition.to_string(), p))).collect();
        let labels = |source, number| vec![("source", source), ("partition", number)];
        let lags = partitions.iter().filter_map(|(source, number, p)| Some((labels(*source, number.as_str()), p.lag()? as f64)));
        self.gauge("tidegate_partition_lag", "Records of the partition that no epoch has read", lags)?;
        let idle = partitions.iter().map(|(source, number, p)| (labels(*source, number.as_str()), f64::from(u8::from(p.idle))));
        self.gauge("tidegate_partition_idle", "1 while the partition is left out of its source's watermark", idle)
    }

    fn views(&mut self, overview: &Overview) -> fmt::Result {
        let of = |value: fn(&crate::session::ViewOverview) -> u64| overview.views.iter().map(move |v| (vec![("view", v.name.as_str())], value(v) as f64));
        self.gauge("tidegate_view_up", "1 while the view is kept up to date, 0 after it failed", of(|v| u64::from(!v.failed)))?;
        self.gauge("tidegate_view_rows", "Rows that the view holds", of(|v| v.rows as u64))?;
        self.gauge("tidegate_view_state_rows", "Keys that the view's operators hold", of(|v| v.state_rows as u64))?;
        self.gauge("tidegate_view_state_bytes", "Bytes that the view's operators and its rows hold", of(|v| v.bytes as u64))?;
        self.counter("tidegate_view_late_rows", "Rows that came too late for the view, ever", of(|v| v.late))
    }

    /// A counter; OpenMetrics puts `_total` behind its name.
    fn counter<'l>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels<'l>, f64)>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            match labels.is_empty() {
                true => metric.encode_counter::<NoLabelSet, f64, f64>(&value, None)?,
                false => metric.encode_family(&escaped(&labels))?.encode_counter::<NoLabelSet, f64, f64>(&value, None)?,
            }
        }
        Ok(())
    }

    fn gauge<'l>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels<'l>, f64)>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            match labels.is_empty() {
                true => metric.encode_gauge(&value)?,
                false => metric.encode_family(&escaped(&labels))?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    fn histogram<'l>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels<'l>, &'l Histogram)>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, histogram) in values {
            let bounds = BUCKETS.iter().copied().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts).collect();
            metric.encode_family(&escaped(&labels))?.encode_histogram::<NoLabelSet>(histogram.sum, histogram.count(), &buckets, None)?;
        }
        Ok(())
    }
}

/// Labels as the text format wants them; the encoder leaves quotes and line ends in values as they are.
fn escaped<'a>(labels: &[(&'a str, &str)]) -> Vec<(&'a str, String)> {
    labels.iter().map(|(name, value)| (*name, value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::session::{DriftTotals, PartitionOverview, PipelineOverview, SourceOverview, Totals, ViewOverview};

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut totals = Totals { epochs: 3, ..Totals::default() };
        totals.phases[1].counts = [0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        totals.phases[1].sum = 9.5;
        let overview = Overview {
            pipelines: vec![PipelineOverview { name: "events".into(), failure: None, epoch: 7, checkpoint: None, views: 1, totals }],
            sources: vec![SourceOverview {
                name: "events".into(),
                topic: "t".into(),
                rows: 11,
                errors: 2,
                drift: DriftTotals { new: 8, missing: 7, retyped: 1 },
                watermark: Some(1_000_000_000),
                partitions: vec![PartitionOverview { partition: 4, offset: Some(5), end: Some(9), watermark: None, idle: true, lost: 0 }],
            }],
            views: vec![ViewOverview {
                // A name may hold whatever can be quoted.
                name: "odd \"name\"\n".into(),
                epoch: 7,
                failed: false,
                catching_up: false,
                rows: 1,
                late: 6,
                state_rows: 2,
                bytes: 300,
            }],
            queries_running: 1,
            subscribed: 2,
            ..Overview::default()
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Figures { overview: Some(overview), process: Process::default(), now_ns: 3_000_000_000 }));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "# TYPE tidegate_epochs counter",
            "tidegate_epochs_total{pipeline=\"events\"} 3.0",
            "tidegate_source_records_total{source=\"events\"} 11.0",
            "tidegate_source_errors_total{source=\"events\"} 2.0",
            "tidegate_source_new_fields_total{source=\"events\"} 8.0",
            "tidegate_source_missing_fields_total{source=\"events\"} 7.0",
            "tidegate_source_retyped_fields_total{source=\"events\"} 1.0",
            "tidegate_view_late_rows_total{view=\"odd \\\"name\\\"\\n\"} 6.0",
            "tidegate_view_state_bytes{view=\"odd \\\"name\\\"\\n\"} 300.0",
            "tidegate_partition_lag{source=\"events\",partition=\"4\"} 4.0",
            "tidegate_partition_idle{source=\"events\",partition=\"4\"} 1.0",
            "tidegate_watermark_lag_seconds{source=\"events\"} 2.0",
            "tidegate_queries_running 1.0",
            "tidegate_subscribed_queries 2.0",
            "tidegate_ready 1.0",
            "tidegate_epoch_duration_seconds_bucket{le=\"0.0001\",pipeline=\"events\",phase=\"decode\"} 2",
            "tidegate_epoch_duration_seconds_bucket{le=\"+Inf\",pipeline=\"events\",phase=\"decode\"} 3",
            "tidegate_epoch_duration_seconds_sum{pipeline=\"events\",phase=\"decode\"} 9.5",
            "tidegate_epoch_duration_seconds_count{pipeline=\"events\",phase=\"decode\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
        }
        assert!(!text.contains("tidegate_checkpoint_epoch{"), "there was no checkpoint\n{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn before_the_engine_is_there_the_process_is() {
        let text = text(None).unwrap();
        assert!(text.contains("process_resident_memory_bytes ") && !text.contains("tidegate_"), "{text}");
    }
}
