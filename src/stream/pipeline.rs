//! The core of a pipeline: sources and the views on them, taken from one epoch to the next. No clock, no Kafka, no files: slices
//! and decisions come in, published snapshots go out, so that a test can drive it with whatever cuts it likes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{BooleanArray, Int32Array, Int64Array, TimestampNanosecondArray, UInt64Array},
    datatypes::Schema,
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    execution::{
        TaskContext,
        memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation},
        runtime_env::RuntimeEnv,
    },
    physical_plan::{ExecutionPlan, collect, execution_plan::reset_plan_states},
    prelude::SessionConfig,
};
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_kernels::device::Device;

use super::{
    changes::{ChangeLog, EpochChanges},
    checkpoint::{Image, Restored},
    decoding::{Ahead, Decoding, Wanted},
    drift::DriftFigures,
    epoch::{EpochInput, LateRow, locate, row_locator},
    failpoints::{self, Point},
    hidden::{gone_field, now_field, position_fields, row_field},
    outbox::Outbox,
    published::{Board, Published, PublishedSource},
    replace::{Kept, Primed, Replaced, Swap, moved, prime, same_columns},
    segments::SegmentLog,
    side_rows::{LateOrigin, error_rows, error_schema, late_rows, letter_rows, letter_schema},
    time::{SourceClock, WatermarkStep, nanoseconds},
    view::{Failure, StagedView, ViewRuntime},
};
use crate::{
    catalog::{SourceDef, ViewDef},
    decode::{Decoded, Decoder},
    error::{Error, Result},
    source::Slice,
};

#[cfg(test)]
use super::tests::mutants::{Mutant, delayed};

const NS_PER_MS: i64 = 1_000_000;

/// What one epoch reads and what the clock said when it was cut.
#[derive(Debug, Default)]
pub struct EpochCut {
    /// The epoch's number.
    pub epoch: u64,
    /// The wall clock in milliseconds since 1970.
    pub now_ms: i64,
    /// For each source its slices, by partition and offset.
    pub slices: BTreeMap<String, Vec<Slice>>,
    /// For each source the partitions that are idle.
    pub idle: BTreeMap<String, BTreeSet<i32>>,
    /// Sources of which everything that there is has been read, with this epoch.
    pub caught_up: BTreeSet<String>,
}

impl EpochCut {
    /// How many records it has.
    pub fn records(&self) -> usize {
        self.slices.values().flatten().map(|slice| slice.records.len()).sum()
    }

    /// How many bytes their values and keys have.
    pub fn bytes(&self) -> usize {
        self.slices.values().flatten().map(|slice| slice.records.byte_len()).sum()
    }
}

/// Milliseconds by phase and rows of one epoch.
#[derive(Debug, Default, Clone, Copy)]
pub struct EpochReport {
    /// Payload bytes read.
    pub bytes: usize,
    /// Records read.
    pub records: usize,
    /// Rows decoded.
    pub rows: usize,
    /// Bad records.
    pub errors: usize,
    /// Rows that came late, view by view.
    pub late: usize,
    /// Time to decode, or to wait until that was done.
    pub decode: Duration,
    /// Time to run the views' plans and to stage what they change.
    pub execute: Duration,
    /// Time to make what they staged part of the views' and the sources' state.
    pub state: Duration,
    /// Time to publish.
    pub publish: Duration,
}

/// A source of a pipeline.
#[derive(Debug)]
struct SourceRuntime {
    def: Arc<SourceDef>,
    id: u64,
    /// Decodes all columns: made when the first row comes late.
    full: Option<Decoder>,
    clock: Option<SourceClock>,
    offsets: BTreeMap<i32, i64>,
    /// The id of the topic that the offsets are of, where it is known.
    topic: Option<String>,
    errors: SegmentLog,
    errors_total: u64,
    rows_total: u64,
    /// How records have differed from the declaration since the server started.
    drift: Arc<DriftFigures>,
    /// When the last epoch that read anything was cut, in milliseconds since 1970.
    last_input_ms: Option<i64>,
    /// What sinks of its bad records have still to write.
    outboxes: Vec<Arc<Outbox>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SourceMeta {
    clock: Option<SourceClock>,
    offsets: BTreeMap<i32, i64>,
    #[serde(default)]
    topic: Option<String>,
    errors_total: u64,
    rows_total: u64,
    last_input_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    outboxes: BTreeMap<u64, serde_json::Value>,
}

/// What becomes of an outbox of a view.
#[derive(Debug)]
pub enum OutboxChange {
    /// A sink comes, whose outbox begins with what the view holds if so said.
    Add(Arc<Outbox>, bool),
    /// The sink of this number goes.
    Remove(u64),
    /// The one of this number begins again with what the view holds.
    BeginAgain(u64),
}

/// A view that holds more than it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverBudget {
    /// Its name.
    pub view: String,
    /// Its number in the catalog.
    pub id: u64,
    /// What it holds and what it may, as a sentence about it.
    pub reason: String,
}

/// What views hold, out of what all views and queries of the server may hold.
#[derive(Debug)]
struct Budget {
    pool: Arc<dyn MemoryPool>,
    /// By the views' numbers.
    held: BTreeMap<u64, MemoryReservation>,
}

/// Sources and the views on them, at one epoch.
#[derive(Debug)]
pub struct Pipeline {
    sources: BTreeMap<String, SourceRuntime>,
    views: BTreeMap<String, ViewRuntime>,
    /// The views' names, each behind those that it reads.
    order: Vec<String>,
    /// Those that others read.
    read: BTreeSet<String>,
    /// Views that could not take another one's place, by their numbers, and why.
    refused: BTreeMap<u64, String>,
    /// Decodes what epochs read, for the columns that the views need.
    decoding: Arc<Decoding>,
    /// A view's place was taken: columns are decoded that nobody needs any more.
    stale: bool,
    epoch: u64,
    /// The last epoch's time, in milliseconds since 1970. It never steps back.
    now_ms: i64,
    board: Arc<Board>,
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
    threads: usize,
    /// Where it works, unless a view says something else.
    device: Device,
    budget: Option<Budget>,
}

impl Pipeline {
    /// A pipeline over these sources (each with its number in the catalog) that has read nothing.
    pub fn new(sources: Vec<(Arc<SourceDef>, u64)>, board: Arc<Board>, threads: usize) -> Result<Self> {
        let sources = sources
            .into_iter()
            .map(|(def, id)| {
                let clock = def.watermark.as_ref().map(|w| SourceClock::new(nanoseconds(w.bound)));
                let source = SourceRuntime {
                    id,
                    full: None,
                    clock,
                    offsets: BTreeMap::new(),
                    topic: None,
                    errors: SegmentLog::new(error_schema()),
                    errors_total: 0,
                    rows_total: 0,
                    drift: Arc::default(),
                    last_input_ms: None,
                    outboxes: vec![],
                    def: def.clone(),
                };
                (def.name.clone(), source)
            })
            .collect();
        let mut pipeline = Self {
            sources,
            views: BTreeMap::new(),
            order: vec![],
            read: BTreeSet::new(),
            refused: BTreeMap::new(),
            decoding: Arc::new(Decoding::new([], threads)?),
            stale: false,
            epoch: 0,
            now_ms: 0,
            board,
            config: SessionConfig::new().with_target_partitions(1),
            runtime: Arc::new(RuntimeEnv::default()),
            threads,
            device: Device::Auto,
            budget: None,
        };
        pipeline.prepare_decoding()?;
        Ok(pipeline)
    }

    /// The same pipeline, which works on this device unless a view says something else.
    pub fn on(self, device: Device) -> Self {
        // Told with the next epoch.
        Self { device, stale: true, ..self }
    }

    /// The same pipeline, whose views take what they hold from a pool.
    pub fn within(self, pool: Arc<dyn MemoryPool>) -> Self {
        Self { budget: Some(Budget { pool, held: BTreeMap::new() }), ..self }
    }

    /// Accounts for what the views hold; those that hold more than they may, the largest first. They hold it already: nobody else is told that
    /// it is free.
    pub fn over_budget(&mut self) -> Vec<OverBudget> {
        let Some(budget) = &mut self.budget else { return vec![] };
        let ids: BTreeSet<u64> = self.views.values().map(|view| view.id).collect();
        budget.held.retain(|id, _| ids.contains(id));
        let mut over = vec![];
        for (name, view) in &self.views {
            let bytes = view.bytes();
            let held = budget.held.entry(view.id).or_insert_with(|| MemoryConsumer::new(format!("view {name}")).register(&budget.pool));
            let within = held.try_resize(bytes).is_ok();
            if !within {
                held.resize(bytes);
            }
            let size = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
            let reason = match view.def.options.memory_limit {
                _ if view.failure.is_some() => continue,
                Some(limit) if bytes > limit => {
                    format!("it holds {}, and its memory_limit is {}: raise that with ALTER VIEW {name} SET (memory_limit = '…')", size(bytes), size(limit))
                }
                _ if !within => format!(
                    "it holds {}, and with it all views and queries hold more than the server's memory_limit: drop or pause others, or start the server with a greater --memory-limit",
                    size(bytes)
                ),
                _ => continue,
            };
            over.push((bytes, OverBudget { view: name.clone(), id: view.id, reason }));
        }
        over.sort_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        over.into_iter().map(|(_, over)| over).collect()
    }

    /// A view may hold so much from now on.
    pub fn limit(&mut self, def: Arc<ViewDef>) {
        if let Some(view) = self.views.get_mut(&def.name) {
            view.def = def;
        }
    }

    /// The last epoch that was run.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its sources' names.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// Its views.
    pub fn views(&self) -> &BTreeMap<String, ViewRuntime> {
        &self.views
    }

    /// For each partition of a source the offset to go on at.
    pub fn offsets(&self, source: &str) -> BTreeMap<i32, i64> {
        self.sources.get(source).map(|s| s.offsets.clone()).unwrap_or_default()
    }

    /// Each source's watermark, for the epoch log.
    pub fn watermarks(&self) -> BTreeMap<String, i64> {
        self.sources.iter().filter_map(|(name, s)| Some((name.clone(), s.clock.as_ref()?.watermark()))).collect()
    }

    /// The id of the topic that a source's offsets are of, where it is known.
    pub fn topic(&self, source: &str) -> Option<String> {
        self.sources.get(source)?.topic.clone()
    }

    /// What is read from now on is of this topic. A broker that does not tell changes nothing.
    pub fn set_topic(&mut self, source: &str, topic: Option<String>) {
        if let (Some(source), Some(topic)) = (self.sources.get_mut(source), topic) {
            source.topic = Some(topic);
        }
    }

    /// What has been read is of this topic, if it is not known yet of which. Whether that is new.
    pub fn learn_topic(&mut self, source: &str, topic: Option<String>) -> bool {
        match (self.sources.get_mut(source), topic) {
            (Some(source), Some(topic)) if source.topic.is_none() && !source.offsets.is_empty() => source.topic.replace(topic).is_none(),
            _ => false,
        }
    }

    /// A partition exists and counts for the watermark from now on.
    pub fn assign(&mut self, source: &str, partitions: impl IntoIterator<Item = i32>) {
        if let Some(clock) = self.sources.get_mut(source).and_then(|s| s.clock.as_mut()) {
            partitions.into_iter().for_each(|p| clock.assign(p));
        }
    }

    /// Whether idleness as told would differ from what the clock has.
    pub fn idleness_differs(&self, source: &str, idle: &BTreeSet<i32>, partitions: impl IntoIterator<Item = i32>) -> bool {
        match self.sources.get(source).and_then(|s| s.clock.as_ref()) {
            Some(clock) => partitions.into_iter().any(|p| clock.partition(p).idle != idle.contains(&p)),
            None => false,
        }
    }

    /// Starts the numbering after this epoch.
    pub fn skip_to(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Epochs go on behind those of another pipeline, whose view joins this one.
    pub fn follow_on(&mut self, other: &Pipeline) {
        (self.epoch, self.now_ms) = (self.epoch.max(other.epoch), self.now_ms.max(other.now_ms));
    }

    /// Changes what a view has of outboxes, or a source for its bad records. A new one of a view begins with what the view holds, if it is to.
    pub fn change_outbox(&mut self, name: &str, change: OutboxChange) -> Result<()> {
        let epoch = self.epoch;
        let (outboxes, holds) = match (self.views.get_mut(name), self.sources.get_mut(name)) {
            (Some(view), _) => {
                let wanted = matches!(change, OutboxChange::Add(_, true) | OutboxChange::BeginAgain(_));
                let holds = if wanted { view.holds()? } else { vec![] };
                (&mut view.outboxes, holds)
            }
            (None, Some(source)) => (&mut source.outboxes, vec![]),
            (None, None) => return Err(Error::NotFound(format!("{name} is not in its pipeline"))),
        };
        match change {
            OutboxChange::Add(outbox, _) => {
                if !outboxes.iter().any(|known| known.sink == outbox.sink) {
                    outbox.push_snapshot(epoch, &holds)?;
                    outboxes.push(outbox);
                }
            }
            OutboxChange::Remove(sink) => outboxes.retain(|known| known.sink != sink),
            OutboxChange::BeginAgain(sink) => {
                if let Some(outbox) = outboxes.iter().find(|known| known.sink == sink) {
                    outbox.begin_again(epoch, &holds)?;
                }
            }
        }
        self.publish();
        Ok(())
    }

    fn outboxes(&self) -> impl Iterator<Item = &Arc<Outbox>> {
        self.views.values().flat_map(|view| &view.outboxes).chain(self.sources.values().flat_map(|source| &source.outboxes))
    }

    /// Forgets what sources have for sinks that there are no more.
    pub fn retain_outboxes(&mut self, is_sink: impl Fn(u64) -> bool) {
        self.sources.values_mut().for_each(|source| source.outboxes.retain(|outbox| is_sink(outbox.sink)));
    }

    /// How soon a checkpoint is to be taken for what waits in outboxes, if anything does.
    pub fn outbox_interval(&self) -> Option<Duration> {
        self.outboxes().filter(|outbox| outbox.wants_checkpoint()).map(|outbox| outbox.interval()).min()
    }

    /// Whether sinks have written what the newest checkpoint still holds for them.
    pub fn outboxes_moved(&self) -> bool {
        self.outboxes().any(|outbox| outbox.has_moved())
    }

    /// Adds a view that stands at the same offsets as the pipeline's sources. What the views that it reads hold already is given to it with
    /// the next epoch.
    pub fn attach(&mut self, view: ViewRuntime) -> Result<()> {
        view.changes.resumable_from(self.epoch);
        self.views.insert(view.def.name.clone(), view);
        self.put_in_order();
        self.prepare_decoding()?;
        self.publish();
        Ok(())
    }

    /// Takes a view out; its followers end with the reason.
    pub fn detach(&mut self, name: &str) -> Result<Option<ViewRuntime>> {
        let view = self.take_view(name);
        self.prepare_decoding()?;
        self.publish();
        Ok(view)
    }

    /// Takes a view out without a word: it goes on elsewhere.
    pub fn take_view(&mut self, name: &str) -> Option<ViewRuntime> {
        let view = self.views.remove(name);
        self.put_in_order();
        view
    }

    fn put_in_order(&mut self) {
        fn visit(name: &str, views: &BTreeMap<String, ViewRuntime>, order: &mut Vec<String>) {
            let Some(view) = views.get(name).filter(|_| !order.iter().any(|known| known == name)) else { return };
            let replaced = view.replaces.as_ref().map(|replaced| &replaced.old);
            std::iter::once(view).chain(replaced).flat_map(|view| view.plan.inputs.keys()).for_each(|input| visit(input, views, order));
            order.push(name.to_string());
        }
        self.order.clear();
        self.views.keys().for_each(|name| visit(name, &self.views, &mut self.order));
        self.read = self.with_replaced().flat_map(|view| view.plan.inputs.keys()).filter(|input| self.views.contains_key(*input)).cloned().collect();
    }

    /// Its views, and those whose places are about to be taken.
    fn with_replaced(&self) -> impl Iterator<Item = &ViewRuntime> {
        Self::of_all(&self.views)
    }

    fn of_all(views: &BTreeMap<String, ViewRuntime>) -> impl Iterator<Item = &ViewRuntime> {
        views.values().flat_map(|view| std::iter::once(view).chain(view.replaces.as_ref().map(|replaced| &replaced.old)))
    }

    /// Lets a view that stands at the same offsets take the place of the one of its name: with the next epoch. Until then, and if it can't run
    /// that, the old one stands.
    pub fn replace(&mut self, mut view: ViewRuntime, same_rows: bool) -> Result<()> {
        let name = view.def.name.clone();
        let Some(old) = self.views.remove(&name) else {
            return Err(Error::Internal(format!("view {name} was to be replaced and is not in its pipeline")));
        };
        if let Some(failure) = &view.failure {
            let sentence = format!("the new definition of view {name} fails with what it has read: {}", failure.reason);
            self.views.insert(name, old);
            return Err(Error::Invalid(sentence));
        }
        if old.replaces.is_some() {
            self.views.insert(name.clone(), old);
            return Err(Error::Internal(format!("view {name} is being replaced already")));
        }
        let same_columns = same_columns(&old.plan.schema, &view.plan.schema);
        view.changes = if same_columns { old.changes.clone() } else { Arc::new(ChangeLog::new(self.epoch)) };
        view.replaces = Some(Box::new(Replaced { old, same_columns, same_rows }));
        self.views.insert(name, view);
        self.put_in_order();
        self.prepare_decoding()
    }

    /// Lets a new definition of a view go on with what the one that runs has come to; nothing is read again. Takes effect with the next epoch.
    /// An error leaves everything as it is.
    pub async fn replace_keeping(&mut self, mut view: ViewRuntime, kept: &Kept) -> Result<()> {
        let name = view.def.name.clone();
        let gone = || Error::Internal(format!("view {name} was to be replaced and is not in its pipeline"));
        let old = self.views.get(&name).ok_or_else(gone)?;
        if old.failure.is_some() || old.waits_for_views || old.waits_for_tables {
            return Err(Error::External(format!("view {name} does not run: its state can't be kept")));
        }
        if *kept == Kept::Whole {
            view.take_over(old, kept, &moved(&old.plan, &view.plan))?;
            return self.replace(view, true);
        }
        let Primed { plan, moved } =
            prime(old, &view.plan)?.map_err(|reason| Error::Invalid(format!("the state of view {name} can't be kept, since {reason}")))?;
        view.take_over(old, kept, &moved)?;
        // What is new above the operators that go on has seen nothing, and for it nothing is late.
        let step = |source: &SourceRuntime| Some(WatermarkStep { before: super::time::BEGINNING, after: source.clock.as_ref()?.watermark() });
        let steps = Arc::new(self.sources.iter().filter_map(|(name, source)| Some((name.clone(), step(source)?))).collect());
        let now = self.now_ms.saturating_mul(NS_PER_MS);
        let output = self.execute(&view, plan, &Arc::default(), &steps, WatermarkStep { before: now, after: now }, false).await?;
        view.begin_with(&output)?;
        self.replace(view, false)
    }

    /// Why a view of this number could not take another one's place, if it could not; asked once.
    pub fn take_refusal(&mut self, id: u64) -> Option<String> {
        self.refused.remove(&id)
    }

    /// The views of this pipeline that a view reads.
    fn views_below<'a>(&'a self, view: &'a ViewRuntime) -> impl Iterator<Item = &'a ViewRuntime> {
        view.plan.inputs.keys().filter_map(|input| self.views.get(input))
    }

    /// The sources that a view reads, itself or through other views.
    fn sources_below(&self, view: &ViewRuntime) -> BTreeSet<String> {
        let own = view.plan.inputs.keys().filter(|input| self.sources.contains_key(*input)).cloned();
        own.chain(self.views_below(view).flat_map(|below| self.sources_below(below))).collect()
    }

    /// Whether a view waits for what the views that it reads hold, and those are here.
    fn is_fresh(&self, view: &ViewRuntime) -> bool {
        view.waits_for_views && view.plan.inputs.keys().all(|input| self.sources.contains_key(input) || self.views.contains_key(input))
    }

    /// Reads a source no longer, which no view reads.
    pub fn remove_source(&mut self, name: &str) {
        self.sources.remove(name);
    }

    /// Takes in another pipeline with its sources and views, at its own offsets: from here on they share epochs.
    pub fn absorb(&mut self, other: Pipeline) -> Result<()> {
        self.follow_on(&other);
        self.sources.extend(other.sources);
        self.views.extend(other.views);
        self.put_in_order();
        self.prepare_decoding()?;
        self.publish();
        Ok(())
    }

    /// Takes a view out as a pipeline of its own that stands where this one stands, with a board of its own; its followers end.
    pub fn split(&mut self, name: &str) -> Result<Pipeline> {
        let sources = self.sources.values().map(|s| (s.def.clone(), s.id)).collect();
        let mut apart = Pipeline::new(sources, Arc::default(), self.threads)?.on(self.device);
        for (name, source) in &mut apart.sources {
            let Some(own) = self.sources.get(name) else { continue };
            source.clock = own.clock.clone();
            source.offsets = own.offsets.clone();
            source.topic = own.topic.clone();
        }
        (apart.epoch, apart.now_ms) = (self.epoch, self.now_ms);
        let mut view = self.detach(name)?.ok_or_else(|| Error::Internal(format!("view {name} is not in its pipeline")))?;
        view.changes.end(format!("view {name} was paused: subscribe again when it runs"));
        view.changes = Arc::new(ChangeLog::new(self.epoch));
        apart.attach(view)?;
        Ok(apart)
    }

    /// Whether it has read further than these offsets in any partition.
    pub fn is_beyond(&self, source: &str, offsets: &BTreeMap<i32, i64>) -> bool {
        let own = self.sources.get(source).map(|s| &s.offsets);
        own.is_some_and(|own| own.iter().any(|(partition, at)| offsets.get(partition).is_none_or(|offset| at > offset)))
    }

    /// For each source the partitions that are to wait: their watermark leads the slowest one's among those that are `behind`, of
    /// whatever source, by more than their source allows. Where nobody is behind nobody waits: the slowest gets what it has to say in.
    pub fn leading(&self, behind: &BTreeMap<String, BTreeSet<i32>>) -> BTreeMap<String, BTreeSet<i32>> {
        let clocks = || self.sources.iter().filter_map(|(name, source)| Some((name, source, source.clock.as_ref()?)));
        let slowest =
            clocks().flat_map(|(name, _, clock)| behind.get(name).into_iter().flatten().filter_map(|partition| clock.partition_watermark(*partition))).min();
        let Some(slowest) = slowest else { return BTreeMap::new() };
        let leads = |source: &SourceRuntime, clock: &SourceClock, partition: i32| {
            let limit = slowest.saturating_add(nanoseconds(source.def.max_drift));
            clock.partition_watermark(partition).is_some_and(|watermark| watermark > limit)
        };
        clocks().map(|(name, source, clock)| (name.clone(), clock.partitions().into_iter().filter(|p| leads(source, clock, *p)).collect())).collect()
    }

    /// Where it publishes.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Whether a partition is left out of its source's watermark.
    pub fn is_idle(&self, source: &str, partition: i32) -> bool {
        self.sources.get(source).and_then(|s| s.clock.as_ref()).is_some_and(|clock| clock.partition(partition).idle)
    }

    /// A source is read by another declaration from now on: that of before with more columns.
    pub fn redeclare(&mut self, def: Arc<SourceDef>) -> Result<()> {
        if let Some(source) = self.sources.get_mut(&def.name) {
            (source.def, source.full) = (def, None);
        }
        self.prepare_decoding()
    }

    /// Decodes for the columns that the views need, from now on.
    fn prepare_decoding(&mut self) -> Result<()> {
        let needed = |(name, source): (&String, &SourceRuntime)| {
            let needed: BTreeSet<usize> = Self::of_all(&self.views)
                .filter_map(|view| view.plan.inputs.get(name))
                .flatten()
                .filter_map(|column| source.def.column_index(column))
                .collect();
            Wanted { def: source.def.clone(), needed: needed.into_iter().collect(), device: self.device_of(name) }
        };
        self.decoding = Arc::new(Decoding::new(self.sources.iter().map(needed), self.threads)?);
        Ok(())
    }

    /// Where a source's records are to be decoded: on the GPU if one of its views asks for it, on the CPU if all do.
    fn device_of(&self, source: &str) -> Device {
        let mut wishes = Self::of_all(&self.views).filter(|view| view.plan.inputs.contains_key(source)).map(|view| view.def.options.device);
        let (mut gpu, mut cpu) = (false, true);
        for wish in &mut wishes {
            let wish = wish.unwrap_or(self.device);
            (gpu, cpu) = (gpu || wish == Device::Gpu, cpu && wish == Device::Cpu);
        }
        match (gpu, cpu) {
            (true, _) => Device::Gpu,
            (false, true) => Device::Cpu,
            (false, false) => Device::Auto,
        }
    }

    /// Begins to decode an epoch that is to be run later, while others run.
    pub fn decode_ahead(&self, cut: &EpochCut) -> Result<Ahead> {
        self.decoding.begin(cut)
    }

    /// Runs one epoch. A view that fails is rolled back to its last epoch and marked; the others go on. An error of this call
    /// itself (a decoder, a bug) leaves the pipeline where it was before.
    pub async fn run(&mut self, cut: &EpochCut) -> Result<EpochReport> {
        self.run_decoded(cut, None).await
    }

    /// The same, for an epoch whose decoding may have begun.
    pub async fn run_decoded(&mut self, cut: &EpochCut, ahead: Option<Ahead>) -> Result<EpochReport> {
        if std::mem::take(&mut self.stale) {
            self.prepare_decoding()?;
        }
        let decoded = match ahead {
            Some(ahead) => Some(ahead.done().await?),
            None => None,
        };
        // Views may have come or gone since that began.
        let decoded = match decoded.filter(|decoded| decoded.is_by(&self.decoding)) {
            Some(decoded) => decoded,
            None => self.decoding.decode(cut)?,
        };
        let mut report = EpochReport { decode: decoded.waited, records: cut.records(), bytes: cut.bytes(), ..EpochReport::default() };
        let decoded = decoded.sources;
        report.rows = decoded.values().flatten().map(|d| d.batch.num_rows()).sum();
        report.errors = decoded.values().flatten().map(|d| d.errors.len()).sum();

        let started = std::time::Instant::now();
        let now_ms = cut.now_ms.max(self.now_ms);
        let time = WatermarkStep { before: self.now_ms.saturating_mul(NS_PER_MS), after: now_ms.saturating_mul(NS_PER_MS) };
        let mut clocks = BTreeMap::new();
        let mut steps = HashMap::new();
        let mut rows = HashMap::new();
        for (position, (name, source)) in self.sources.iter().enumerate() {
            let slices = cut.slices.get(name).map(Vec::as_slice).unwrap_or_default();
            let decoded = &decoded[name.as_str()];
            if let Some(mut clock) = source.clock.clone() {
                let idle = cut.idle.get(name);
                for (slice, decoded) in slices.iter().zip(decoded) {
                    clock.assign(slice.partition);
                    if let Some(latest) = decoded.latest_event_time() {
                        clock.observe(slice.partition, latest);
                    }
                }
                for partition in clock.partitions() {
                    clock.set_idle(partition, idle.is_some_and(|idle| idle.contains(&partition)));
                }
                steps.insert(name.clone(), clock.advance());
                clocks.insert(name.clone(), clock);
            }
            let positions = self.with_replaced().any(|view| view.plan.positions);
            let times = self.with_replaced().any(|view| view.plan.times).then_some(time.after);
            let located = decoded
                .iter()
                .zip(slices)
                .enumerate()
                .map(|(batch, (decoded, slice))| with_hidden(decoded, slice, row_locator(position, batch), source.def.key.is_some(), positions, times))
                .collect::<Result<Vec<_>>>()?;
            #[cfg(test)]
            let located = located.into_iter().map(|b| if Mutant::RowLost.is_on() { b.slice(0, b.num_rows().saturating_sub(1)) } else { b }).collect();
            rows.insert(name.clone(), located);
        }
        let (rows, steps) = (Arc::new(rows), Arc::new(steps));
        let mut staged: Vec<(String, Result<StagedView>)> = vec![];
        // What the views that others read give.
        let mut given: HashMap<String, Vec<RecordBatch>> = HashMap::new();
        // The same of those whose place another definition takes: from the old rows to the new ones.
        let mut swapped: HashMap<String, Vec<RecordBatch>> = HashMap::new();
        let mut refused: Vec<(String, String)> = vec![];
        let mut failed: BTreeMap<String, Failure> = self.views.iter().filter_map(|(name, view)| Some((name.clone(), view.failure.clone()?))).collect();
        for name in &self.order {
            let Some(mut view) = self.views.get(name).filter(|view| view.failure.is_none()) else { continue };
            let mut outcome = match below_failed(view, &failed) {
                Some(error) => Err(error),
                None => match self.input_of(view, &rows, &given, &swapped) {
                    Ok(rows) => self.run_view(view, &rows, &self.steps_of(view, &steps), time, self.is_quiet(view, cut)).await,
                    Err(error) => Err(error),
                },
            };
            if let (Err(error), Some(replaced)) = (&outcome, &view.replaces) {
                // One that can't run its first epoch takes nobody's place: the old one goes on.
                view.states.abort();
                refused.push((name.clone(), error.to_string()));
                view = &replaced.old;
                if view.failure.is_some() {
                    continue;
                }
                outcome = match self.input_of(view, &rows, &given, &swapped) {
                    Ok(rows) => self.run_view(view, &rows, &self.steps_of(view, &steps), time, self.is_quiet(view, cut)).await,
                    Err(error) => Err(error),
                };
            }
            if let Ok(stage) = &mut outcome {
                let late = view.states.take_late();
                report.late += late.len();
                if !late.is_empty() {
                    match late_of_view(&mut self.sources, view, late, cut, &decoded) {
                        Ok(batches) => stage.late = batches,
                        Err(error) => outcome = Err(error),
                    }
                }
            }
            match &outcome {
                Ok(StagedView { swap: Some(Swap { given: Some(rows), .. }), output, .. }) => {
                    swapped.insert(name.clone(), rows.clone());
                    given.insert(name.clone(), output.clone());
                }
                Ok(stage) if self.read.contains(name) => {
                    let output = stage.output.clone();
                    #[cfg(test)]
                    let output = if Mutant::ArmDelayed.is_on() { delayed(name, output) } else { output };
                    given.insert(name.clone(), output);
                }
                Ok(_) => {}
                Err(error) => _ = failed.insert(name.clone(), Failure { epoch: cut.epoch, reason: error.to_string() }),
            }
            staged.push((name.clone(), outcome));
        }
        report.execute = started.elapsed();

        let started = std::time::Instant::now();
        let (mut error_batches, mut letters) = (vec![], vec![]);
        for (name, source) in &self.sources {
            let slices = cut.slices.get(name).map(Vec::as_slice).unwrap_or_default();
            for (slice, decoded) in slices.iter().zip(&decoded[name.as_str()]) {
                if !decoded.errors.is_empty() {
                    error_batches.push((name.clone(), error_rows(&source.def.kafka.topic, slice, &decoded.errors)?));
                    if !source.outboxes.is_empty() {
                        letters.push((name.clone(), letter_rows(slice, &decoded.errors)?));
                    }
                }
            }
        }
        let decoded_rows: BTreeMap<String, u64> = decoded.iter().map(|(name, d)| (name.clone(), d.iter().map(|d| d.batch.num_rows() as u64).sum())).collect();
        // From here on nothing is left that data could make fail.
        (self.epoch, self.now_ms) = (cut.epoch, now_ms);
        for (name, reason) in refused {
            let Some(view) = self.views.remove(&name) else { continue };
            self.refused.insert(view.id, reason);
            if let Some(replaced) = view.replaces {
                self.views.insert(name, replaced.old);
            }
            self.stale = true;
        }
        let (mut changes, mut ended) = (vec![], vec![]);
        for (name, outcome) in staged {
            let fresh = self.views.get(&name).is_some_and(|view| self.is_fresh(view));
            let Some(view) = self.views.get_mut(&name) else { continue };
            let committed = match (outcome, below_failed(view, &failed)) {
                (Ok(mut staged), None) => {
                    let swap = staged.swap.take();
                    view.commit(cut.epoch, cut.now_ms, staged).map(|change| (change, swap))
                }
                (Err(error), _) | (Ok(_), Some(error)) => Err(error),
            };
            let replaced = view.replaces.take();
            self.stale |= replaced.is_some();
            if let Some(Replaced { old, same_columns: false, .. }) = replaced.as_deref() {
                ended.push((old.changes.clone(), format!("view {name} was replaced with epoch {} and has other columns now: subscribe again", cut.epoch)));
            }
            match committed {
                Ok((change, swap)) => {
                    view.waits_for_views &= !fresh;
                    let change = match (swap, replaced.is_some_and(|replaced| replaced.same_columns)) {
                        (Some(Swap { shown: Some(batches), .. }), true) => Some(EpochChanges { epoch: cut.epoch, batches: batches.into() }),
                        (_, true) => None,
                        (_, false) => Some(change),
                    };
                    changes.push((view.changes.clone(), change));
                }
                Err(error) => {
                    failed.insert(name.clone(), Failure { epoch: cut.epoch, reason: error.to_string() });
                    view.states.abort();
                    let reason = error.to_string();
                    tracing::error!(view = name, epoch = cut.epoch, "the view failed and stands still: {reason}");
                    view.failure = Some(Failure { epoch: cut.epoch, reason: reason.clone() });
                    view.changes.end(format!("view {name} failed in epoch {}: {reason}", cut.epoch));
                }
            }
        }
        for (name, clock) in clocks {
            if let Some(source) = self.sources.get_mut(&name) {
                source.clock = Some(clock);
            }
        }
        for (name, source) in &mut self.sources {
            let any = cut.slices.get(name).is_some_and(|slices| slices.iter().any(|slice| !slice.records.is_empty()));
            if any || source.last_input_ms.is_none() {
                source.last_input_ms = Some(cut.now_ms);
            }
            source.rows_total += decoded_rows.get(name).copied().unwrap_or_default();
            decoded.get(name).into_iter().flatten().for_each(|decoded| source.drift.add(&decoded.drift, now_ms));
            for slice in cut.slices.get(name).map(Vec::as_slice).unwrap_or_default() {
                // A topic that was made anew begins at lower offsets.
                source.offsets.insert(slice.partition, slice.end);
            }
        }
        for (name, rows) in letters {
            for outbox in self.sources.get(&name).into_iter().flat_map(|source| &source.outboxes) {
                outbox.push(cut.epoch, std::slice::from_ref(&rows))?;
                if outbox.is_over() {
                    outbox.give_up(cut.epoch, &[])?;
                }
            }
        }
        for (name, batch) in error_batches {
            if let Some(source) = self.sources.get_mut(&name) {
                source.errors_total += batch.num_rows() as u64;
                source.errors.append(batch);
                source.errors.keep_newest(source.def.error_rows);
                source.errors.compact()?;
            }
        }
        report.state = started.elapsed();
        let started = std::time::Instant::now();
        failpoints::pass(Point::BeforePublication);
        // Snapshots first, changes second: whoever follows from a snapshot's epoch on misses none.
        self.publish();
        for (log, change) in changes {
            match change {
                Some(change) => log.push(change),
                None => log.skip(cut.epoch),
            }
        }
        ended.into_iter().for_each(|(log, reason)| log.end(reason));
        failpoints::pass(Point::AfterPublication);
        report.publish = started.elapsed();
        Ok(report)
    }

    /// The rows that an epoch brings to a view: its sources', and what the views that it reads give; the first time, what those hold, too.
    fn input_of(
        &self,
        view: &ViewRuntime,
        rows: &Arc<HashMap<String, Vec<RecordBatch>>>,
        given: &HashMap<String, Vec<RecordBatch>>,
        swapped: &HashMap<String, Vec<RecordBatch>>,
    ) -> Result<Arc<HashMap<String, Vec<RecordBatch>>>> {
        if !view.waits_for_tables && view.plan.inputs.keys().all(|input| self.sources.contains_key(input)) {
            return Ok(rows.clone());
        }
        let fresh = self.is_fresh(view);
        let mut of_view = if view.waits_for_tables { view.tables.as_ref().clone() } else { HashMap::new() };
        for input in view.plan.inputs.keys() {
            let mut batches = vec![];
            if let Some(below) = self.views.get(input).filter(|_| fresh) {
                batches.extend(below.holds()?);
            }
            // One that is given what a view holds now needs no way there from what that held.
            let of_view_below = swapped.get(input).filter(|_| !fresh).or_else(|| given.get(input));
            batches.extend(rows.get(input).or(of_view_below).into_iter().flatten().cloned());
            of_view.insert(input.clone(), batches);
        }
        Ok(Arc::new(of_view))
    }

    /// How far time comes for a view. For one that waits for what other views hold nothing is late, and nothing closes before it has that.
    fn steps_of(&self, view: &ViewRuntime, steps: &Arc<HashMap<String, WatermarkStep>>) -> Arc<HashMap<String, WatermarkStep>> {
        if !view.waits_for_views {
            return steps.clone();
        }
        let fresh = self.is_fresh(view);
        let step = |step: &WatermarkStep| WatermarkStep { before: super::time::BEGINNING, after: if fresh { step.after } else { super::time::BEGINNING } };
        Arc::new(steps.iter().map(|(name, of_source)| (name.clone(), step(of_source))).collect())
    }

    async fn run_view(
        &self,
        view: &ViewRuntime,
        rows: &Arc<HashMap<String, Vec<RecordBatch>>>,
        steps: &Arc<HashMap<String, WatermarkStep>>,
        time: WatermarkStep,
        quiet: bool,
    ) -> Result<StagedView> {
        let output = self.execute(view, view.plan.physical.clone(), rows, steps, time, quiet).await?;
        view.stage(output, self.read.contains(&view.def.name))
    }

    /// What a plan gives over an epoch's input, with the operators of a view.
    async fn execute(
        &self,
        view: &ViewRuntime,
        plan: Arc<dyn ExecutionPlan>,
        rows: &Arc<HashMap<String, Vec<RecordBatch>>>,
        steps: &Arc<HashMap<String, WatermarkStep>>,
        time: WatermarkStep,
        quiet: bool,
    ) -> Result<Vec<RecordBatch>> {
        let input = EpochInput { rows: rows.clone(), watermarks: steps.clone(), time, quiet, states: view.states.clone() };
        let none = HashMap::new;
        let input = Arc::new(input);
        let config = self.config.clone().with_extension(input.clone());
        let context =
            Arc::new(TaskContext::new(None, view.def.name.clone(), config, none(), HashMap::new(), HashMap::new(), HashMap::new(), self.runtime.clone()));
        let plan = reset_plan_states(plan)?;
        // A function that panics on odd data fails its view, not the server.
        let started = std::time::Instant::now();
        match AssertUnwindSafe(collect(plan.clone(), context)).catch_unwind().await {
            Ok(output) => {
                let output = output?;
                if view.states.figures().is_watched() {
                    view.states.figures().gather(&plan, &input, started.elapsed());
                }
                Ok(output)
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Err(Error::Internal(format!("an operator panicked: {text}")))
            }
        }
    }

    /// Whether a view's sources have been quiet for as long as it waits before it closes its windows by the wall clock.
    fn is_quiet(&self, view: &ViewRuntime, cut: &EpochCut) -> bool {
        let silent = |name: &String| cut.slices.get(name).is_none_or(|slices| slices.iter().all(|slice| slice.records.is_empty()));
        let below = self.views_below(view).all(|below| self.is_quiet(below, cut) || !below.states.has_open_windows());
        let sources = self.sources_below(view);
        below
            && !view.waits_for_views
            && sources.iter().all(|name| cut.caught_up.contains(name) && silent(name))
            && self.quiet_from(view).is_some_and(|at| at <= cut.now_ms)
    }

    /// When a view closes its windows, if nothing comes until then; in milliseconds since 1970.
    fn quiet_from(&self, view: &ViewRuntime) -> Option<i64> {
        let wait = view.def.options.close.wait()?.as_millis().min(i64::MAX as u128) as i64;
        let last = self.sources_below(view).iter().map(|name| self.sources.get(name)?.last_input_ms).collect::<Option<Vec<_>>>()?;
        let own = last.into_iter().max()?.saturating_add(wait);
        // A view that it reads may still add to a window.
        self.views_below(view).filter(|below| below.states.has_open_windows()).try_fold(own, |at, below| Some(at.max(self.quiet_from(below)?)))
    }

    /// When an epoch is due without any input, since a view closes windows, emits or moves rows by the wall clock; in milliseconds since 1970.
    /// `caught_up` are the sources of which everything has been read.
    pub fn due(&self, caught_up: &BTreeSet<String>) -> Option<i64> {
        let of_view = |view: &ViewRuntime| {
            let waits = view.states.has_open_windows() && self.sources_below(view).iter().all(|name| caught_up.contains(name));
            let close = if waits { self.quiet_from(view) } else { None };
            let clock = view.states.due().map(|ns| ns.div_euclid(NS_PER_MS) + i64::from(ns.rem_euclid(NS_PER_MS) > 0));
            close.into_iter().chain(view.emits_at()).chain(clock).min()
        };
        self.views.values().filter(|view| view.failure.is_none()).filter_map(of_view).min()
    }

    /// Publishes the pipeline as it stands.
    pub fn publish(&self) {
        let sources = self
            .sources
            .iter()
            .map(|(name, source)| {
                let clock = source.clock.as_ref();
                let published = PublishedSource {
                    offsets: source.offsets.clone(),
                    watermark: clock.map(SourceClock::watermark).filter(|w| *w > super::time::BEGINNING),
                    partitions: clock
                        .map(|c| c.partitions().into_iter().map(|p| (p, (c.partition_watermark(p), c.partition(p).idle))).collect())
                        .unwrap_or_default(),
                    errors: source.errors.snapshot(),
                    errors_total: source.errors_total,
                    rows_total: source.rows_total,
                    drift: source.drift.clone(),
                    outboxes: source.outboxes.clone(),
                };
                (name.clone(), published)
            })
            .collect();
        // One that is about to get what others hold is not to be seen empty.
        let views = self
            .views
            .iter()
            .map(|(name, view)| (name, view.standing()))
            .filter(|(_, view)| !view.waits_for_views || view.failure.is_some())
            .map(|(name, view)| (name.clone(), view.publish()))
            .collect();
        self.board.publish(Published { epoch: self.epoch, sources, views });
    }

    /// Everything at the last epoch, by reference.
    pub fn image(&self) -> Result<Image> {
        let mut image = Image { epoch: self.epoch, meta: serde_json::Value::Null, logs: BTreeMap::new(), sealed: vec![] };
        let mut views = BTreeMap::new();
        for view in self.views.values() {
            view.standing().save(&mut image, &mut views)?;
        }
        let mut sources = BTreeMap::new();
        for source in self.sources.values() {
            image.logs.insert(format!("source-{}/errors", source.id), source.errors.segments().collect());
            let mut outboxes = BTreeMap::new();
            for outbox in &source.outboxes {
                let (meta, segments, sealed) = outbox.seal()?;
                image.logs.insert(outbox_part(source.id, outbox.sink), segments);
                image.sealed.push((outbox.clone(), sealed));
                outboxes.insert(outbox.sink, meta);
            }
            let meta = SourceMeta {
                outboxes,
                clock: source.clock.clone(),
                offsets: source.offsets.clone(),
                topic: source.topic.clone(),
                errors_total: source.errors_total,
                rows_total: source.rows_total,
                last_input_ms: source.last_input_ms,
            };
            sources.insert(
                source.id.to_string(),
                serde_json::to_value(meta).map_err(|e| Error::Internal(format!("a source's state could not be written as JSON: {e}")))?,
            );
        }
        image.meta = json!({ "views": views, "sources": sources, "now_ms": self.now_ms });
        Ok(image)
    }

    /// Takes the sources' state from a checkpoint.
    pub fn restore(&mut self, checkpoint: &mut Restored) -> Result<()> {
        self.epoch = self.epoch.max(checkpoint.epoch);
        // Older checkpoints have no time of their own.
        self.now_ms = self.now_ms.max(checkpoint.meta["now_ms"].as_i64().unwrap_or_default());
        for source in self.sources.values_mut() {
            let meta = checkpoint.meta["sources"][source.id.to_string()].clone();
            if meta.is_null() {
                continue;
            }
            let meta: SourceMeta =
                serde_json::from_value(meta).map_err(|e| Error::Internal(format!("the checkpoint of source {} can't be understood: {e}", source.def.name)))?;
            source.clock = meta.clock;
            source.offsets = meta.offsets;
            source.topic = meta.topic;
            source.errors_total = meta.errors_total;
            source.rows_total = meta.rows_total;
            source.last_input_ms = meta.last_input_ms;
            source.outboxes.clear();
            for (sink, meta) in meta.outboxes {
                let segments = checkpoint.logs.remove(&outbox_part(source.id, sink)).unwrap_or_default();
                source.outboxes.push(Arc::new(Outbox::restore(sink, &letter_schema(), &meta, segments)?));
            }
            source.errors = SegmentLog::restore(error_schema(), checkpoint.logs.remove(&format!("source-{}/errors", source.id)).unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Under which name what a sink has still to write of a source's bad records is checkpointed.
fn outbox_part(source: u64, sink: u64) -> String {
    format!("source-{source}/outbox-{sink}")
}

/// Why a view can't go on, where one that it reads has failed.
fn below_failed(view: &ViewRuntime, failed: &BTreeMap<String, Failure>) -> Option<Error> {
    let (name, failure) = view.plan.inputs.keys().find_map(|input| failed.get_key_value(input))?;
    Some(Error::External(format!("view {name}, which it reads, failed in epoch {}: {}", failure.epoch, failure.reason)))
}

/// A slice's rows with their locators, for a source with a primary key whether they are gone, and, if they are wanted, their records' positions and the epoch's time.
fn with_hidden(decoded: &Decoded, slice: &Slice, first: u64, keyed: bool, positions: bool, now: Option<i64>) -> Result<RecordBatch> {
    let batch = &decoded.batch;
    let mut fields = batch.schema_ref().fields().to_vec();
    fields.push(row_field());
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(UInt64Array::from_iter_values((0..batch.num_rows() as u64).map(|row| first | row))));
    if keyed {
        fields.push(gone_field());
        columns.push(Arc::new(BooleanArray::from(decoded.gone.clone())));
    }
    if positions {
        fields.extend(position_fields());
        columns.push(Arc::new(Int32Array::from(vec![slice.partition; batch.num_rows()])));
        columns.push(Arc::new(Int64Array::from_iter_values(decoded.record_of.iter().map(|record| slice.records.get(*record as usize).offset))));
    }
    if let Some(now) = now {
        fields.push(now_field());
        columns.push(Arc::new(TimestampNanosecondArray::from_value(now, batch.num_rows())));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// The late rows of one view, slice by slice, with all of their source's columns.
fn late_of_view(
    sources: &mut BTreeMap<String, SourceRuntime>,
    view: &ViewRuntime,
    late: Vec<LateRow>,
    cut: &EpochCut,
    decoded: &BTreeMap<String, Vec<Decoded>>,
) -> Result<Vec<RecordBatch>> {
    let schema = view.late_schema();
    let mut by_slice: BTreeMap<(usize, usize), Vec<(usize, LateRow)>> = BTreeMap::new();
    for row in late {
        let (source, slice, at) = locate(row.row);
        by_slice.entry((source, slice)).or_default().push((at, row));
    }
    let mut batches = vec![];
    for ((position, slice), mut rows) in by_slice {
        rows.sort_by_key(|(row, _)| *row);
        let lost = || Error::Internal("a late row points at no slice of its epoch".into());
        let (name, source) = sources.iter_mut().nth(position).ok_or_else(lost)?;
        let slices = cut.slices.get(name).ok_or_else(lost)?;
        let part = decoded.get(name.as_str()).and_then(|d| d.get(slice)).ok_or_else(lost)?;
        if source.full.is_none() {
            let all: Vec<usize> = (0..source.def.columns.len()).collect();
            source.full = Some(Decoder::new(&source.def, &all)?);
        }
        let Some(full) = &mut source.full else { return Err(lost()) };
        let origin = LateOrigin { slice: &slices[slice], record_of: &part.record_of, event_time: &part.event_time };
        batches.push(late_rows(&schema, full, &origin, &rows, cut.now_ms, cut.epoch)?);
    }
    Ok(batches)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sql::{self, Statement};

    const MINUTE: i64 = 60_000_000_000;

    fn source(name: &str, max_drift: &str) -> Arc<SourceDef> {
        let text = format!(
            "CREATE SOURCE {name} (ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 minute')
             WITH (connector = 'kafka', topic = '{name}', 'bootstrap.servers' = 'b:1', format = 'json', 'max.drift' = '{max_drift}')"
        );
        let Statement::CreateSource { def, .. } = sql::parse(&text).unwrap().remove(0) else { panic!("no source") };
        Arc::new(def)
    }

    #[test]
    fn who_leads_by_too_much_waits_for_those_who_are_behind() {
        let mut pipeline = Pipeline::new(vec![(source("a", "1 hour"), 1), (source("b", "10 minutes"), 2)], Arc::default(), 1).unwrap();
        for (name, times) in [("a", &[(0, 10), (1, 75), (2, 60)][..]), ("b", &[(0, 21), (1, 19)])] {
            let clock = pipeline.sources.get_mut(name).unwrap().clock.as_mut().unwrap();
            times.iter().for_each(|(partition, minute)| clock.observe(*partition, minute * MINUTE));
            clock.assign(7);
        }
        let leading = |behind: &[(&'static str, &[i32])]| {
            let behind = behind.iter().map(|(name, partitions)| (name.to_string(), partitions.iter().copied().collect())).collect();
            let leading = pipeline.leading(&behind);
            ["a", "b"].map(|name| leading.get(name).map(|p| p.iter().copied().collect::<Vec<_>>()).unwrap_or_default())
        };
        let nobody = [const { Vec::<i32>::new() }; 2];
        assert_eq!(leading(&[]), nobody, "nobody is behind");
        assert_eq!(leading(&[("a", &[0, 1])]), [vec![1], vec![0]], "each by what its own source allows");
        assert_eq!(leading(&[("b", &[1])]), nobody, "partition 0 of a has nothing more to say");
        assert_eq!(leading(&[("a", &[7]), ("b", &[])]), nobody, "nothing is known of a partition that has not spoken");
    }
}
