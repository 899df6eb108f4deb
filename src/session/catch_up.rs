//! A view that comes late reads what its pipeline has read already, in a private pipeline on a thread of its own, and then joins: between two
//! epochs, at just the offsets of the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use datafusion::execution::memory_pool::MemoryPool;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::engine::{Engine, EngineConfig};
use crate::{
    catalog::{DataLoss, SourceDef, ViewDef},
    error::{Error, Result},
    source::{
        RecordsBuilder, Slice,
        kafka::{Loss, Pace, Partitions, ScanRange, describe, partitions_of, ranges_of, scan},
    },
    stream::{
        changes::ChangeLog,
        checkpoint::{CheckpointRoot, CheckpointStore, Written},
        driver::{CatchUp, Driver, now_ms},
        pipeline::{EpochCut, Pipeline},
        plan::ViewPlan,
        published::Board,
        view::{Tables, ViewRuntime},
    },
};

/// A source that a view reads.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The source.
    pub def: Arc<SourceDef>,
    /// The same as the view sees it: without columns that were added later.
    pub seen: Arc<SourceDef>,
    /// Its number in the catalog.
    pub id: u64,
    /// Where it starts, by partition.
    pub start: BTreeMap<i32, i64>,
}

/// What became of a try to catch up.
#[derive(Debug, Clone)]
pub(super) enum Tried {
    /// The view has joined, or nobody wants it any more.
    Done,
    /// It is tried again.
    Later,
    /// The view can't go on from where it was paused, and why.
    Stuck(String),
    /// The view can't take another one's place, and why.
    Refused(String),
}

/// A view that has to catch up with its pipeline.
pub(super) struct Behind {
    pub(super) def: Arc<ViewDef>,
    pub(super) id: u64,
    pub(super) plan: Arc<ViewPlan>,
    /// The rows of the tables that it reads.
    pub(super) tables: Tables,
    /// The sources that it reads itself.
    pub(super) readings: Vec<Reading>,
    /// Knows the pipeline that the view is to join: it may become another one.
    pub(super) engine: Weak<Engine>,
    pub(super) config: EngineConfig,
    pub(super) handle: Handle,
    pub(super) checkpoints: Arc<CheckpointRoot>,
    /// What it takes memory from.
    pub(super) memory: Arc<dyn MemoryPool>,
    /// Where it began to read, by source and partition.
    pub(super) begin: Begin,
    /// It is to take the place of the view of its name, and why that one's state can't be kept.
    pub(super) replaces: Option<String>,
}

/// Where a view began to read, by source and partition.
pub(super) type Begin = Arc<Mutex<BTreeMap<String, BTreeMap<i32, i64>>>>;

/// A private pipeline that has read nothing, and its view, not yet in it.
pub(super) struct Blank {
    pipeline: Pipeline,
    view: ViewRuntime,
}

impl Blank {
    pub(super) fn pipeline_board(self) -> Arc<Board> {
        let board = self.pipeline.board().clone();
        self.attached().map_or(board, |pipeline| pipeline.board().clone())
    }

    fn attached(mut self) -> Result<Pipeline> {
        self.pipeline.attach(self.view)?;
        Ok(self.pipeline)
    }
}

pub(super) fn blank(
    readings: &[Reading],
    view: &Arc<ViewDef>,
    id: u64,
    plan: &Arc<ViewPlan>,
    config: &EngineConfig,
    memory: &Arc<dyn MemoryPool>,
) -> Result<Blank> {
    let pipeline =
        Pipeline::new(readings.iter().map(|r| (r.def.clone(), r.id)).collect(), Arc::default(), config.threads)?.within(memory.clone()).on(config.device);
    let starts = readings.iter().map(|r| (r.def.name.clone(), r.start.clone())).collect();
    let sources: Vec<&SourceDef> = readings.iter().map(|r| r.seen.as_ref()).collect();
    Ok(Blank { pipeline, view: ViewRuntime::new(view.clone(), id, plan.clone(), &sources, starts, 0)? })
}

/// What a pause has left of a view, as a pipeline that stands where it was paused.
/// `is_sink`: whether there is still a sink of this number.
pub(super) async fn wake(
    checkpoints: &Arc<CheckpointRoot>,
    blank: Blank,
    is_sink: &(dyn Fn(u64) -> bool + Sync),
) -> Result<std::result::Result<Pipeline, Blank>> {
    let Blank { mut pipeline, mut view } = blank;
    let mut store = CheckpointStore::new(checkpoints.clone(), &resting_place(view.id))?;
    let Some(mut restored) = store.newest().await? else { return Ok(Err(Blank { pipeline, view })) };
    pipeline.restore(&mut restored)?;
    if !view.restore(&mut restored)? {
        return Err(Error::Internal(format!("the checkpoint of the paused view {} is another one's", view.def.name)));
    }
    view.changes = Arc::new(ChangeLog::new(restored.epoch));
    view.outboxes.retain(|outbox| is_sink(outbox.sink));
    pipeline.attach(view)?;
    Ok(Ok(pipeline))
}

/// Under which name a paused view's checkpoint is kept.
pub(super) fn resting_place(view_id: u64) -> String {
    format!("paused-{view_id}")
}

/// The last stretch before a view joins: just up to the others' offsets.
pub(super) fn last_stretch(stretches: Vec<Advance>) -> CatchUp {
    Box::new(move |mut private: Pipeline, upto: BTreeMap<String, BTreeMap<i32, i64>>| {
        for advance in &stretches {
            advance.run(&mut private, upto.get(&advance.source.name).unwrap_or(&BTreeMap::new()))?;
        }
        Ok(private)
    })
}

impl Behind {
    pub(super) fn blank(&self) -> Result<Blank> {
        let blank = blank(&self.readings, &self.def, self.id, &self.plan, &self.config, &self.memory)?;
        Ok(Blank { view: blank.view.with_tables(self.tables.clone()), ..blank })
    }

    /// The pipeline that reads the view's sources.
    pub(super) fn driver(&self) -> Result<Arc<Driver>> {
        let engine = self.engine.upgrade().ok_or_else(|| Error::Cancelled("the server is stopping".into()))?;
        let source = self.readings.first().map(|reading| reading.def.name.clone()).unwrap_or_default();
        engine.pipeline(&source).ok_or_else(|| Error::External(format!("the pipeline of {source} does not run: SHOW SOURCES says why")))
    }

    /// A private pipeline that stands where the view was paused, or that has read nothing; and whether it was paused.
    fn begin(&self) -> Result<(Pipeline, bool)> {
        let blank = self.blank()?;
        // What other views have given since a pause is not kept.
        if blank.view.waits_for_views {
            return Ok((blank.attached()?, false));
        }
        let engine = self.engine.upgrade().ok_or_else(|| Error::Cancelled("the server is stopping".into()))?;
        match self.handle.block_on(wake(&self.checkpoints, blank, &|sink| engine.is_sink(sink)))? {
            Ok(pipeline) => Ok((pipeline, true)),
            Err(blank) => Ok((blank.attached()?, false)),
        }
    }

    /// Why a view can't go on from where it was paused, if so: its pipeline does not go on either, or what comes next is gone.
    fn stuck(&self, private: &Pipeline) -> Result<Option<String>> {
        if let Some(reason) = self.driver()?.status().standstill() {
            return Ok(Some(reason));
        }
        for Reading { def, .. } in &self.readings {
            if def.kafka.on_data_loss == DataLoss::Continue {
                continue;
            }
            let losses = losses_of(&private.offsets(&def.name), &partitions_of(&def.kafka)?);
            if !losses.is_empty() {
                return Ok(Some(format!(
                    "{}; drop it and create it again to start at what is there, or declare the source with 'on.data.loss' = 'continue'",
                    describe(&def.kafka, &losses)
                )));
            }
        }
        Ok(None)
    }

    /// Why a view can't go on, if it holds more than it may. One that was not paused before is kept as far as it has come.
    fn over_budget(&self, private: &mut Pipeline, paused: bool) -> Result<Option<String>> {
        let Some(over) = private.over_budget().into_iter().next() else { return Ok(None) };
        if !paused {
            self.handle.block_on(self.store(private))?;
        }
        Ok(Some(format!("{}, then RESUME VIEW {}", over.reason, over.view)))
    }

    /// Makes a private pipeline durable where paused views are kept.
    async fn store(&self, private: &Pipeline) -> Result<()> {
        let mut store = CheckpointStore::new(self.checkpoints.clone(), &resting_place(self.id))?;
        store.newest().await?;
        match store.write(private.image()?).await? {
            Written::Done { .. } => Ok(()),
            Written::Fenced(sentence) => Err(Error::External(sentence)),
        }
    }

    /// Reads from the start up to where the pipeline is, and joins.
    pub(super) fn attempt(&self, publish: &dyn Fn(Arc<Board>), wanted: &(dyn Fn() -> bool + Sync)) -> Result<Tried> {
        let (mut private, paused) = self.begin()?;
        if paused && let Some(reason) = self.stuck(&private)? {
            return Ok(Tried::Stuck(reason));
        }
        if let Some(reason) = self.over_budget(&mut private, paused)? {
            return Ok(Tried::Stuck(reason));
        }
        publish(private.board().clone());
        self.begin.lock().clear();
        let stretches: Vec<Advance> = self.readings.iter().map(|reading| Advance::new(reading, &self.config, self.begin.clone())).collect();
        let driver = loop {
            let driver = self.driver()?;
            let current = driver.board().current();
            let mut read = 0;
            let mut beyond = false;
            for advance in &stretches {
                let name = &advance.source.name;
                let (upto, partitions) = current.sources.get(name).map(|s| (s.offsets.clone(), s.partitions.clone())).unwrap_or_default();
                // All of the topic's partitions hold the watermark back from the start, as they do in the pipeline.
                private.assign(name, partitions.into_keys());
                read += advance.run(&mut private, &upto)?;
                beyond |= private.is_beyond(name, &upto);
            }
            if !wanted() {
                return Ok(Tried::Done);
            }
            if let Some(reason) = self.over_budget(&mut private, paused)? {
                return Ok(Tried::Stuck(reason));
            }
            // A pipeline that was killed after the pause reads records again that the view has in it: joining now, it would count them twice.
            if beyond {
                if let Some(reason) = driver.status().standstill() {
                    return Ok(Tried::Stuck(reason));
                }
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            // What came meanwhile is little enough to hold the others up for.
            if read < 20_000 {
                break driver;
            }
        };
        if self.replaces.is_some() {
            let engine = self.engine.upgrade().ok_or_else(|| Error::Cancelled("the server is stopping".into()))?;
            return self.handle.block_on(engine.swap_in(self, private, stretches, wanted));
        }
        let lost: Vec<_> = stretches.iter().map(Advance::lost).collect();
        self.handle.block_on(driver.join(private, last_stretch(stretches)))?;
        lost.iter().for_each(|(source, lost)| driver.lost_behind(source, &lost.lock()));
        if let Some(engine) = self.engine.upgrade() {
            self.handle.block_on(engine.forget_rest(&driver, &self.def.name, self.id));
        }
        Ok(Tried::Done)
    }
}

/// Runs a private pipeline on to given offsets of one source by a bounded scan.
pub(super) struct Advance {
    source: Arc<SourceDef>,
    start: BTreeMap<i32, i64>,
    max_rows: usize,
    max_bytes: usize,
    /// Where the first stretch began.
    begin: Begin,
    /// How many offsets of each partition were deleted before they were read, where it went on.
    lost: Arc<Mutex<BTreeMap<i32, u64>>>,
}

impl Advance {
    pub(super) fn new(reading: &Reading, config: &EngineConfig, begin: Begin) -> Self {
        let (source, start) = (reading.def.clone(), reading.start.clone());
        Self { source, start, max_rows: config.max_epoch_rows, max_bytes: config.max_epoch_bytes, begin, lost: Arc::default() }
    }

    /// How many offsets of each partition were deleted before they were read, where it went on.
    pub(super) fn lost(&self) -> (String, Arc<Mutex<BTreeMap<i32, u64>>>) {
        (self.source.name.clone(), self.lost.clone())
    }

    /// What of the topic was gone when it was read first: how many offsets behind those that the view was to start at.
    pub(super) fn lacks(&self) -> Option<String> {
        let begin = self.begin.lock().get(&self.source.name).cloned().unwrap_or_default();
        let gone = |(partition, begin): (i32, i64)| {
            let missing = begin - self.start.get(&partition).copied().unwrap_or(0);
            (missing > 0).then(|| format!("{missing} offsets before offset {begin} of partition {partition}"))
        };
        let gone: Vec<String> = begin.into_iter().filter_map(gone).collect();
        (!gone.is_empty()).then(|| format!("topic {} no longer holds {}: what those records said is not in the view", self.source.kafka.topic, gone.join(", ")))
    }

    /// Returns how many records were read.
    fn run(&self, private: &mut Pipeline, upto: &BTreeMap<i32, i64>) -> Result<usize> {
        let held = partitions_of(&self.source.kafka)?;
        // The pipeline stands where the topic has nothing: it will find that out, and then this is tried again.
        if let Some(loss) = losses_of(upto, &held).into_iter().find(|loss| loss.offsets().is_none()) {
            return Err(Error::External(format!("topic {}: {loss}", self.source.kafka.topic)));
        }
        let mut from = self.start.clone();
        let read = private.offsets(&self.source.name);
        let losses = losses_of(&read, &held);
        from.extend(read);
        from.extend(losses.iter().map(|loss| (loss.partition, loss.oldest)));
        self.judge(&losses)?;
        let ranges: BTreeMap<i32, ScanRange> = ranges_of(&held, &from, Some(upto));
        private.assign(&self.source.name, ranges.keys().copied());
        for (partition, range) in &ranges {
            self.begin.lock().entry(self.source.name.clone()).or_default().entry(*partition).or_insert(range.begin);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|e| Error::Internal(format!("no runtime to catch up in: {e}")))?;
        // Of a partition that holds nothing any more it is known all the same where the view stands.
        let skip = |loss: &Loss| Slice { partition: loss.partition, begin: loss.oldest, end: loss.oldest, records: RecordsBuilder::new().finish() };
        let mut slices: Vec<Slice> = losses.iter().map(skip).collect();
        let (mut bytes, mut records, mut total) = (0, 0, 0);
        let mut failure = None;
        let flush = |slices: &mut Vec<Slice>, private: &mut Pipeline| {
            slices.sort_by_key(|s| (s.partition, s.begin));
            let cut = EpochCut {
                epoch: private.epoch() + 1,
                now_ms: now_ms(),
                slices: BTreeMap::from([(self.source.name.clone(), std::mem::take(slices))]),
                ..EpochCut::default()
            };
            runtime.block_on(private.run(&cut)).map(|_| ())
        };
        let pace = Pace { records: self.max_rows, wanted: &|| true };
        let losses = scan(&self.source.kafka, &ranges, &pace, |slice| {
            bytes += slice.records.byte_len();
            records += slice.records.len();
            total += slice.records.len();
            slices.push(slice);
            if records >= self.max_rows || bytes >= self.max_bytes {
                (bytes, records) = (0, 0);
                if let Err(error) = flush(&mut slices, private) {
                    failure = Some(error);
                    return false;
                }
                if !private.over_budget().is_empty() {
                    return false;
                }
            }
            true
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        // Where nothing of a partition was read before, the view begins at what is there.
        let begun = |loss: &Loss| {
            private.offsets(&self.source.name).contains_key(&loss.partition) || ranges.get(&loss.partition).is_some_and(|r| r.begin < loss.expected)
        };
        self.judge(&losses.into_iter().filter(begun).collect::<Vec<_>>())?;
        if !slices.is_empty() {
            flush(&mut slices, private)?;
        }
        Ok(total)
    }
}

/// What is gone of a topic that holds these offsets, for a reader that is to go on at those.
fn losses_of(offsets: &BTreeMap<i32, i64>, held: &Partitions) -> Vec<Loss> {
    offsets.iter().filter_map(|(partition, offset)| Loss::check(*partition, *offset, held.get(partition).copied().unwrap_or((0, 0)))).collect()
}

impl Advance {
    /// Retention was faster than the view, which has read before and behind what is lost: the source's policy decides. Where it says
    /// 'fail', the view begins anew with what the topic holds by then.
    fn judge(&self, losses: &[Loss]) -> Result<()> {
        if losses.is_empty() {
            return Ok(());
        }
        let each: Vec<String> = losses.iter().map(Loss::to_string).collect();
        let what = format!("records of topic {} were lost while the view caught up ({})", self.source.kafka.topic, each.join("; "));
        match self.source.kafka.on_data_loss {
            DataLoss::Fail => Err(Error::External(format!("{what}; it begins anew with what is there"))),
            DataLoss::Continue => {
                tracing::error!("{what}; it went on, as 'on.data.loss' = 'continue' says");
                let mut lost = self.lost.lock();
                losses.iter().for_each(|loss| *lost.entry(loss.partition).or_default() += loss.offsets().unwrap_or(0).unsigned_abs());
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rdkafka::{
        ClientConfig,
        mocking::MockCluster,
        producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
    };

    use super::*;
    use crate::{catalog::Definition, sql};

    struct Broker {
        cluster: MockCluster<'static, DefaultProducerContext>,
        producer: BaseProducer,
    }

    impl Broker {
        fn start() -> Self {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic("t", 1, 1).unwrap();
            let producer = ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).set("linger.ms", "0").create().unwrap();
            Self { cluster, producer }
        }

        fn send(&self, count: usize, size: usize) {
            let payload = format!("{{\"n\": 1, \"fill\": \"{}\"}}", "x".repeat(size));
            for _ in 0..count {
                self.producer.send(BaseRecord::<(), _>::to("t").partition(0).payload(&payload)).unwrap();
                self.producer.flush(Duration::from_secs(30)).unwrap();
            }
        }

        /// A view that has read nothing, and how it reads on.
        fn behind(&self, policy: &str) -> (Pipeline, Advance) {
            let text = format!(
                "CREATE SOURCE s (n INT) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = '{}', format = 'json', 'on.data.loss' = '{policy}')",
                self.cluster.bootstrap_servers()
            );
            let Definition::Source(source) = sql::parse_definition(&text).unwrap() else { panic!() };
            let private = Pipeline::new(vec![(source.clone(), 1)], Arc::default(), 1).unwrap();
            (private, Advance { source, start: BTreeMap::new(), max_rows: 1000, max_bytes: 1 << 20, begin: Arc::default(), lost: Arc::default() })
        }

        fn end(&self, advance: &Advance) -> BTreeMap<i32, i64> {
            BTreeMap::from([(0, partitions_of(&advance.source.kafka).unwrap()[&0].1)])
        }
    }

    #[test]
    fn what_retention_takes_from_a_view_that_catches_up_is_told() {
        let broker = Broker::start();
        broker.send(5, 10);
        let (mut strict, advance) = broker.behind("fail");
        let (mut lax, go_on) = broker.behind("continue");
        for (private, advance) in [(&mut strict, &advance), (&mut lax, &go_on)] {
            assert_eq!(advance.run(private, &BTreeMap::from([(0, 5)])).unwrap(), 5);
        }
        broker.send(24, 400_000);
        let end = broker.end(&advance);
        let refused = advance.run(&mut strict, &end).unwrap_err().to_string();
        assert!(refused.contains("partition 0: offset 5 comes next") && refused.contains("begins anew"), "{refused}");
        let (oldest, _) = partitions_of(&advance.source.kafka).unwrap()[&0];
        assert_eq!(go_on.run(&mut lax, &end).unwrap() as i64, end[&0] - oldest);
        assert_eq!(lax.offsets("s"), end);
        assert_eq!(*go_on.lost.lock(), BTreeMap::from([(0, oldest as u64 - 5)]));
        // The next stretch finds nothing more.
        assert_eq!(go_on.run(&mut lax, &end).unwrap(), 0);
        assert_eq!(*go_on.lost.lock(), BTreeMap::from([(0, oldest as u64 - 5)]));
        // One that begins now has lost nothing.
        let (mut fresh, advance) = broker.behind("fail");
        assert_eq!(advance.run(&mut fresh, &end).unwrap() as i64, end[&0] - oldest);
    }

    #[test]
    fn a_view_does_not_catch_up_with_what_is_not_there() {
        let broker = Broker::start();
        broker.send(5, 10);
        for policy in ["fail", "continue"] {
            let (mut private, advance) = broker.behind(policy);
            let refused = advance.run(&mut private, &BTreeMap::from([(0, 50)])).unwrap_err().to_string();
            assert!(refused.contains("offset 50 comes next, but it ends at 5"), "{refused}");
        }
    }
}
