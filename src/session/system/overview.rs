//! The server at one moment, in plain numbers: what `system.partitions`, `system.pipelines` and the metrics are made of.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    access::Who,
    session::engine::Engine,
    source::FeedState,
    stream::{drift::DriftTotals, driver::Driver, figures::Totals},
};

/// The server at one moment.
#[derive(Debug, Default)]
pub struct Overview {
    /// Pipelines, by name.
    pub pipelines: Vec<PipelineOverview>,
    /// Sources that pipelines consume.
    pub sources: Vec<SourceOverview>,
    /// Views that run, those that catch up among them.
    pub views: Vec<ViewOverview>,
    /// Statements and subscriptions that run.
    pub queries_running: usize,
    /// Queries over views' changes, each run once for all who subscribe with it.
    pub subscribed: usize,
    /// Statements and subscriptions since the server started.
    pub queries_begun: u64,
    /// Open connections of clients.
    pub connections: usize,
    /// Sessions that are kept for them.
    pub sessions: usize,
    /// Prepared statements that are kept for them.
    pub prepared: usize,
    /// Bytes of bound parameters that are kept for them.
    pub bound_bytes: usize,
    /// What was refused them since the server started, since a limit was reached.
    pub refused: u64,
    /// What keeps the server from doing all of its work, a sentence each; empty while it does.
    pub unready: Vec<String>,
}

/// A pipeline at one moment.
#[derive(Debug)]
pub struct PipelineOverview {
    /// Its name: that of its source.
    pub name: String,
    /// Why it stands still, if it does.
    pub failure: Option<String>,
    /// Its last epoch.
    pub epoch: u64,
    /// The epoch of its last checkpoint since the server started.
    pub checkpoint: Option<u64>,
    /// How many views it has.
    pub views: usize,
    /// Sums since the server started.
    pub totals: Totals,
}

/// A source at one moment.
#[derive(Debug)]
pub struct SourceOverview {
    /// Its name.
    pub name: String,
    /// Its topic.
    pub topic: String,
    /// Rows read, ever.
    pub rows: u64,
    /// Bad records, ever.
    pub errors: u64,
    /// Records that differ from the declaration, since the server started.
    pub drift: DriftTotals,
    /// The watermark in nanoseconds since 1970.
    pub watermark: Option<i64>,
    /// Its partitions.
    pub partitions: Vec<PartitionOverview>,
}

/// A partition at one moment.
#[derive(Debug)]
pub struct PartitionOverview {
    /// Its number.
    pub partition: i32,
    /// Offset of the first record that no epoch has read.
    pub offset: Option<i64>,
    /// One past its newest record, as last heard.
    pub end: Option<i64>,
    /// Its own watermark in nanoseconds since 1970.
    pub watermark: Option<i64>,
    /// Whether it is left out of the source's watermark.
    pub idle: bool,
    /// Offsets that were deleted before its pipeline, or a view that caught up with that, had read them; since the server started.
    pub lost: u64,
}

impl PartitionOverview {
    /// Records that are there and not read.
    pub fn lag(&self) -> Option<i64> {
        Some((self.end? - self.offset?).max(0))
    }
}

/// A view at one moment.
#[derive(Debug)]
pub struct ViewOverview {
    /// Its name.
    pub name: String,
    /// Its last epoch.
    pub epoch: u64,
    /// Whether it stands still after an error.
    pub failed: bool,
    /// Whether it has not joined its pipeline yet.
    pub catching_up: bool,
    /// Rows that it holds.
    pub rows: usize,
    /// Rows that came late, ever.
    pub late: u64,
    /// Keys that its operators hold.
    pub state_rows: usize,
    /// Bytes that its operators and its contents hold.
    pub bytes: usize,
}

impl Engine {
    /// The server at this moment. Asks nobody outside.
    pub fn overview(&self) -> Overview {
        let clients = &self.clients;
        let mut overview = Overview {
            queries_running: self.queries.list().len(),
            subscribed: self.hubs.count(),
            queries_begun: self.queries.begun(),
            connections: clients.connections.load(Ordering::Relaxed),
            sessions: clients.sessions.load(Ordering::Relaxed),
            prepared: clients.prepared.load(Ordering::Relaxed),
            bound_bytes: clients.bound.load(Ordering::Relaxed),
            refused: clients.refused.load(Ordering::Relaxed),
            ..Overview::default()
        };
        for (source, reason) in self.broken_sources() {
            overview.unready.push(format!("the pipeline of source {source} could not be started: {reason}"));
        }
        for (name, driver) in self.running_pipelines() {
            self.pipeline_overview(name, &driver, &mut overview);
        }
        for object in self.catalog().list() {
            let name = object.definition.name();
            let Some((board, catching_up)) = self.board_of(name) else { continue };
            let published = board.current();
            let Some(view) = published.views.get(name) else { continue };
            overview.views.push(ViewOverview {
                name: name.to_string(),
                epoch: published.epoch,
                failed: view.failure.is_some(),
                catching_up,
                rows: view.contents.rows(),
                late: view.late_total,
                state_rows: view.state_rows,
                bytes: view.bytes,
            });
        }
        overview
    }

    /// The same as far as somebody may see it: what they see of pipelines, sources and views, and their own statements.
    pub fn overview_for(&self, who: &Who) -> Overview {
        let mut overview = self.overview();
        if self.access().is_admin(who) {
            return overview;
        }
        let pipelines = self.pipelines_seen(who);
        overview.pipelines.retain(|pipeline| pipelines.contains_key(&pipeline.name));
        overview.sources.retain(|source| self.sees_name(who, &source.name));
        overview.views.retain(|view| self.sees_name(who, &view.name));
        overview.queries_running = self.queries.list().iter().filter(|query| query.caller.who == *who).count();
        // The sentences name what they are about.
        if !overview.unready.is_empty() {
            overview.unready = vec!["not all pipelines run: an admin is told why".into()];
        }
        overview
    }

    /// Pipelines of which somebody sees all sources: their names are made of those.
    pub(super) fn pipelines_seen(&self, who: &Who) -> BTreeMap<String, Arc<Driver>> {
        let mut pipelines = self.running_pipelines();
        if !self.access().is_admin(who) {
            pipelines.retain(|_, driver| driver.board().current().sources.keys().all(|source| self.sees_name(who, source)));
        }
        pipelines
    }

    fn pipeline_overview(&self, name: String, driver: &Arc<Driver>, overview: &mut Overview) {
        let (status, published) = (driver.status(), driver.board().current());
        if let Some(reason) = &status.failure {
            overview.unready.push(format!("pipeline {name} stands still: {reason}"));
        }
        for (source, feed) in &status.feeds {
            match &feed.state {
                FeedState::Running => {}
                FeedState::Connecting(reason) => overview.unready.push(format!("source {source} is not connected: {reason}")),
                FeedState::Failed(reason) => overview.unready.push(format!("source {source} can't be read: {reason}")),
            }
        }
        for (source, seen) in &published.sources {
            let Some(def) = self.source_def(source) else { continue };
            let feed = status.feeds.get(source);
            let mut numbers: Vec<i32> = seen.offsets.keys().chain(seen.partitions.keys()).copied().collect();
            numbers.extend(feed.iter().flat_map(|feed| feed.partitions.keys()));
            numbers.sort_unstable();
            numbers.dedup();
            let partition = |partition: i32| {
                let live = feed.and_then(|feed| feed.partitions.get(&partition));
                let (watermark, idle) = seen.partitions.get(&partition).copied().unwrap_or_default();
                // Before a partition's first epoch it stands where its feed began to read.
                let offset = seen.offsets.get(&partition).copied().or(live.map(|live| live.position));
                let behind = status.lost_behind.get(source).and_then(|lost| lost.get(&partition)).copied().unwrap_or_default();
                let lost = live.map_or(0, |live| live.lost) + behind;
                PartitionOverview { partition, offset, end: live.and_then(|live| live.end), watermark, idle, lost }
            };
            overview.sources.push(SourceOverview {
                name: source.clone(),
                topic: def.kafka.topic.clone(),
                rows: seen.rows_total,
                errors: seen.errors_total,
                drift: seen.drift.totals(),
                watermark: seen.watermark,
                partitions: numbers.into_iter().map(partition).collect(),
            });
        }
        overview.pipelines.push(PipelineOverview {
            name,
            failure: status.failure,
            epoch: published.epoch,
            checkpoint: status.checkpoint,
            views: published.views.len(),
            totals: driver.board().figures().totals(),
        });
    }
}
