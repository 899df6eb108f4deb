//! Figures of running pipelines and views: what `system` tables, metrics and `EXPLAIN ANALYZE VIEW` read.
//!
//! Recording must not be felt: an epoch costs one push under a short lock and a few atomic additions, and makes no text. What costs
//! more (the figures that DataFusion's own operators keep) is gathered only while somebody asks.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    common::Result as DataFusionResult,
    execution::{RecordBatchStream, SendableRecordBatchStream},
    physical_plan::{ExecutionPlan, displayable},
};
use futures::Stream;
use parking_lot::{Mutex, RwLock};

use super::{
    epoch::{EpochInput, Operator, OperatorId},
    pipeline::EpochReport,
    plan::operator,
    slice::SliceExec,
};

/// So many epochs of a pipeline are remembered.
const EPOCHS: usize = 1000;
/// So many checkpoints of a pipeline are remembered.
const CHECKPOINTS: usize = 1000;

/// The phases of an epoch, in the order in which they run.
pub const PHASES: [&str; 6] = ["fetch", "decode", "execute", "state", "publish", "checkpoint"];

/// Upper bounds of the histogram's buckets, in seconds; what is longer falls into one more.
pub const BUCKETS: [f64; 14] = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// One epoch of a pipeline.
#[derive(Debug, Default, Clone, Copy)]
pub struct EpochFigures {
    /// Its number.
    pub epoch: u64,
    /// When it began, in milliseconds since 1970.
    pub started_ms: i64,
    /// What it read and how long it took to.
    pub report: EpochReport,
    /// How long it took in all.
    pub duration: Duration,
    /// From the start of the epoch before to its own; `None` for the first.
    pub since_last: Option<Duration>,
    /// How much later it began than it was due: there was input, and the pause after the epoch before was over.
    pub delay: Duration,
    /// Time to take the slices.
    pub fetch: Duration,
    /// Time for what makes it durable while the next epoch waits: the epoch log, and taking a checkpoint's image after it.
    pub checkpoint: Duration,
}

impl EpochFigures {
    /// The time of each of the [`PHASES`].
    pub fn phases(&self) -> [Duration; 6] {
        [self.fetch, self.report.decode, self.report.execute, self.report.state, self.report.publish, self.checkpoint]
    }
}

/// One checkpoint of a pipeline.
#[derive(Debug, Clone)]
pub struct CheckpointFigures {
    /// The epoch that it holds.
    pub epoch: u64,
    /// When it began, in milliseconds since 1970.
    pub started_ms: i64,
    /// How long it took, beside the epochs.
    pub duration: Duration,
    /// Bytes written.
    pub bytes: u64,
    /// Files written.
    pub parts: u64,
    /// Why it does not count, if it does not.
    pub failure: Option<String>,
}

/// How often something took how long.
#[derive(Debug, Default, Clone, Copy)]
pub struct Histogram {
    /// By [`BUCKETS`], the last one for what is longer than all of them.
    pub counts: [u64; BUCKETS.len() + 1],
    /// All of it together, in seconds.
    pub sum: f64,
}

impl Histogram {
    fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.counts[BUCKETS.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }

    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Sums since the process started.
#[derive(Debug, Default, Clone)]
pub struct Totals {
    /// Epochs.
    pub epochs: u64,
    /// Records read.
    pub records: u64,
    /// Payload bytes read.
    pub bytes: u64,
    /// Bad records.
    pub errors: u64,
    /// Rows that came late, view by view.
    pub late: u64,
    /// Checkpoints that count.
    pub checkpoints: u64,
    /// Checkpoints that could not be written.
    pub failed_checkpoints: u64,
    /// Bytes of checkpoints.
    pub checkpoint_bytes: u64,
    /// By [`PHASES`].
    pub phases: [Histogram; PHASES.len()],
    /// Whole epochs.
    pub duration: Histogram,
    /// Checkpoints, beside the epochs.
    pub checkpoint_duration: Histogram,
}

#[derive(Debug, Default)]
struct Recorded {
    totals: Totals,
    epochs: VecDeque<EpochFigures>,
    checkpoints: VecDeque<CheckpointFigures>,
    /// See [`PipelineFigures::held_up`].
    held_up: Duration,
}

/// What one pipeline has done lately, and in all.
#[derive(Debug, Default)]
pub struct PipelineFigures {
    recorded: Mutex<Recorded>,
}

impl PipelineFigures {
    /// An epoch is done.
    pub fn record(&self, figures: EpochFigures) {
        let mut recorded = self.recorded.lock();
        let held_up = std::mem::take(&mut recorded.held_up);
        let totals = &mut recorded.totals;
        totals.epochs += 1;
        totals.records += figures.report.records as u64;
        totals.bytes += figures.report.bytes as u64;
        totals.errors += figures.report.errors as u64;
        totals.late += figures.report.late as u64;
        totals.duration.observe(figures.duration + held_up);
        let counted = EpochFigures { checkpoint: figures.checkpoint + held_up, ..figures };
        for (histogram, duration) in totals.phases.iter_mut().zip(counted.phases()) {
            histogram.observe(duration);
        }
        if recorded.epochs.len() == EPOCHS {
            recorded.epochs.pop_front();
        }
        recorded.epochs.push_back(figures);
    }

    /// Taking a checkpoint's image held the epochs up for so long. It counts for the epoch before; in the sums, where what is counted can't
    /// be changed any more, with the one after.
    pub fn held_up(&self, duration: Duration) {
        let mut recorded = self.recorded.lock();
        recorded.held_up += duration;
        if let Some(last) = recorded.epochs.back_mut() {
            last.checkpoint += duration;
            last.duration += duration;
        }
    }

    /// A checkpoint is done.
    pub fn record_checkpoint(&self, figures: CheckpointFigures) {
        let mut recorded = self.recorded.lock();
        match figures.failure {
            None => recorded.totals.checkpoints += 1,
            Some(_) => recorded.totals.failed_checkpoints += 1,
        }
        recorded.totals.checkpoint_bytes += figures.bytes;
        recorded.totals.checkpoint_duration.observe(figures.duration);
        if recorded.checkpoints.len() == CHECKPOINTS {
            recorded.checkpoints.pop_front();
        }
        recorded.checkpoints.push_back(figures);
    }

    /// Sums since the process started.
    pub fn totals(&self) -> Totals {
        self.recorded.lock().totals.clone()
    }

    /// The last epochs, oldest first.
    pub fn epochs(&self) -> Vec<EpochFigures> {
        self.recorded.lock().epochs.iter().copied().collect()
    }

    /// The last checkpoints, oldest first.
    pub fn checkpoints(&self) -> Vec<CheckpointFigures> {
        self.recorded.lock().checkpoints.iter().cloned().collect()
    }
}

/// What one stateful operator has done since its view started here.
#[derive(Debug, Default)]
pub struct OperatorFigures {
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    nanos: AtomicU64,
    state_rows: AtomicUsize,
    state_bytes: AtomicUsize,
}

/// The figures of an [`OperatorFigures`] at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct OperatorTotals {
    /// Rows that it took.
    pub rows_in: u64,
    /// Rows that it gave.
    pub rows_out: u64,
    /// Time that it worked, without what is below it.
    pub time: Duration,
    /// Keys that it holds.
    pub state_rows: usize,
    /// Bytes that it holds.
    pub state_bytes: usize,
}

impl OperatorFigures {
    /// The operator has done its part of an epoch.
    pub fn record(&self, rows_in: u64, rows_out: u64, time: Duration) {
        self.rows_in.fetch_add(rows_in, Relaxed);
        self.rows_out.fetch_add(rows_out, Relaxed);
        self.nanos.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    /// What the operator holds now.
    pub fn holds(&self, rows: usize, bytes: usize) {
        self.state_rows.store(rows, Relaxed);
        self.state_bytes.store(bytes, Relaxed);
    }

    /// The figures now.
    pub fn totals(&self) -> OperatorTotals {
        OperatorTotals {
            rows_in: self.rows_in.load(Relaxed),
            rows_out: self.rows_out.load(Relaxed),
            time: Duration::from_nanos(self.nanos.load(Relaxed)),
            state_rows: self.state_rows.load(Relaxed),
            state_bytes: self.state_bytes.load(Relaxed),
        }
    }
}

/// What one view has done since it started here.
#[derive(Debug, Default)]
pub struct ViewFigures {
    operators: RwLock<BTreeMap<OperatorId, Arc<OperatorFigures>>>,
    /// So many look at the operators' figures now.
    watchers: AtomicUsize,
    watched: Mutex<Watched>,
}

/// What DataFusion's operators did in the epochs that somebody watched.
#[derive(Debug, Default, Clone)]
pub struct Watched {
    /// Epochs.
    pub epochs: u64,
    /// The view's plan, from request to last row.
    pub time: Duration,
    /// The plan's operators from the root on, each before what is below it.
    pub nodes: Vec<NodeFigures>,
}

/// One operator of a view's plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFigures {
    /// How deep it stands below the root.
    pub depth: usize,
    /// What it is, in one line.
    pub name: String,
    /// Its number, if it holds state.
    pub id: Option<OperatorId>,
    /// Rows that it took: those that the operators below it gave.
    pub rows_in: u64,
    /// Rows that it gave.
    pub rows_out: u64,
    /// Whether it counts what it gives; one that does not gives what it takes.
    counts: bool,
    /// Time that it worked, without what is below it; none for one that does not measure it.
    pub time: Option<Duration>,
}

impl ViewFigures {
    /// Figures for one more operator.
    pub fn insert(&self, id: OperatorId) {
        self.operators.write().insert(id, Arc::default());
    }

    /// The figures of an operator.
    pub fn operator(&self, id: OperatorId) -> Option<Arc<OperatorFigures>> {
        self.operators.read().get(&id).cloned()
    }

    /// An operator has done its part of an epoch.
    pub fn record(&self, id: OperatorId, rows_in: u64, rows_out: u64, time: Duration) {
        if let Some(operator) = self.operators.read().get(&id) {
            operator.record(rows_in, rows_out, time);
        }
    }

    /// Starts to gather the figures of all operators of the view's plan; they are gathered until the guard goes.
    pub fn watch(self: &Arc<Self>) -> Watch {
        self.watchers.fetch_add(1, Relaxed);
        Watch { before: self.look(), figures: self.clone() }
    }

    /// Whether somebody watches.
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Relaxed) > 0
    }

    /// Adds what the operators of a plan say of the epoch that they have just run.
    pub fn gather(&self, plan: &Arc<dyn ExecutionPlan>, input: &EpochInput, time: Duration) {
        let mut nodes = vec![];
        gather_node(plan, Some(input), 0, &mut nodes);
        let mut watched = self.watched.lock();
        watched.epochs += 1;
        watched.time += time;
        if watched.nodes.len() != nodes.len() {
            watched.nodes = nodes;
            return;
        }
        for (sum, node) in watched.nodes.iter_mut().zip(nodes) {
            sum.rows_out += node.rows_out;
            sum.time = sum.time.zip(node.time).map(|(a, b)| a + b);
        }
    }

    fn look(&self) -> (Watched, BTreeMap<OperatorId, OperatorTotals>) {
        (self.watched.lock().clone(), self.operators.read().iter().map(|(id, figures)| (*id, figures.totals())).collect())
    }
}

/// The operators of a plan that nobody has run.
pub fn nodes_of(plan: &Arc<dyn ExecutionPlan>) -> Vec<NodeFigures> {
    let mut nodes = vec![];
    gather_node(plan, None, 0, &mut nodes);
    nodes
}

/// Appends a node and what is below it. Stateful operators' own figures are filled in by [`Watch`].
fn gather_node(plan: &Arc<dyn ExecutionPlan>, input: Option<&EpochInput>, depth: usize, nodes: &mut Vec<NodeFigures>) {
    let metrics = plan.metrics();
    let id = operator(plan).map(Operator::id);
    let rows_out = match plan.downcast_ref::<SliceExec>() {
        Some(slice) => Some(input.and_then(|input| input.rows.get(slice.input())).map_or(0, |batches| batches.iter().map(|b| b.num_rows() as u64).sum())),
        None => metrics.as_ref().and_then(|m| m.output_rows()).map(|rows| rows as u64),
    };
    nodes.push(NodeFigures {
        depth,
        name: displayable(plan.as_ref()).one_line().to_string().trim_end().to_string(),
        id,
        rows_in: 0,
        rows_out: rows_out.unwrap_or_default(),
        counts: rows_out.is_some() || id.is_some(),
        time: metrics.as_ref().and_then(|m| m.elapsed_compute()).map(|nanos| Duration::from_nanos(nanos as u64)),
    });
    plan.children().into_iter().for_each(|child| gather_node(child, input, depth + 1, nodes));
}

/// What each node took is what those directly below it gave; a leaf takes what it gives.
fn count_inputs(nodes: &mut [NodeFigures]) {
    for at in (0..nodes.len()).rev() {
        let depth = nodes[at].depth;
        let below = nodes[at + 1..].iter().take_while(|node| node.depth > depth).filter(|node| node.depth == depth + 1);
        let given = below.map(|node| node.rows_out).reduce(|a, b| a + b);
        let node = &mut nodes[at];
        node.rows_in = given.unwrap_or(node.rows_out);
        if !node.counts {
            node.rows_out = node.rows_in;
        }
    }
}

/// Looks at a view as long as it lives.
#[derive(Debug)]
pub struct Watch {
    figures: Arc<ViewFigures>,
    before: (Watched, BTreeMap<OperatorId, OperatorTotals>),
}

impl Watch {
    /// What the view's operators have done since the watch began.
    pub fn seen(&self) -> Watched {
        let (before, operators_before) = &self.before;
        let (mut seen, operators) = self.figures.look();
        seen.epochs -= before.epochs;
        seen.time -= before.time;
        for (at, node) in seen.nodes.iter_mut().enumerate() {
            if let Some(old) = before.nodes.get(at) {
                node.rows_out -= old.rows_out;
                node.time = node.time.map(|time| time - old.time.unwrap_or_default());
            }
            let Some(id) = node.id else { continue };
            let (old, new) = (operators_before.get(&id).copied().unwrap_or_default(), operators.get(&id).copied().unwrap_or_default());
            (node.rows_out, node.time) = (new.rows_out - old.rows_out, Some(new.time - old.time));
        }
        count_inputs(&mut seen.nodes);
        seen
    }

    /// What an operator holds now.
    pub fn operator(&self, id: OperatorId) -> Option<OperatorTotals> {
        self.figures.operator(id).map(|figures| figures.totals())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.figures.watchers.fetch_sub(1, Relaxed);
    }
}

/// Counts the rows and the time of what is below a stateful operator, so that its own time can be told from theirs.
#[derive(Debug, Default)]
pub struct Below {
    rows: AtomicU64,
    nanos: AtomicU64,
}

impl Below {
    /// The same stream, counted.
    pub fn counted(self: &Arc<Self>, inner: SendableRecordBatchStream) -> SendableRecordBatchStream {
        Box::pin(Counted { inner, below: self.clone() })
    }

    /// Rows that came.
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Time that they took.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Relaxed))
    }
}

struct Counted {
    inner: SendableRecordBatchStream,
    below: Arc<Below>,
}

impl Stream for Counted {
    type Item = DataFusionResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let started = Instant::now();
        let polled = self.inner.as_mut().poll_next(context);
        self.below.nanos.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
        if let Poll::Ready(Some(Ok(batch))) = &polled {
            self.below.rows.fetch_add(batch.num_rows() as u64, Relaxed);
        }
        polled
    }
}

impl RecordBatchStream for Counted {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn history_is_bounded_and_totals_are_not() {
        let figures = PipelineFigures::default();
        for epoch in 1..=EPOCHS as u64 + 5 {
            let report = EpochReport { records: 2, decode: Duration::from_millis(3), ..EpochReport::default() };
            figures.record(EpochFigures { epoch, report, duration: Duration::from_millis(4), ..EpochFigures::default() });
            figures.record_checkpoint(CheckpointFigures {
                epoch,
                started_ms: 0,
                duration: Duration::from_secs(9),
                bytes: 10,
                parts: 2,
                failure: (epoch == 1).then(|| "no space".into()),
            });
        }
        figures.held_up(Duration::from_millis(1));
        let epochs = figures.epochs();
        assert_eq!((epochs.len(), epochs[0].epoch), (EPOCHS, 6));
        let last = epochs.last().unwrap();
        assert_eq!((last.checkpoint, last.duration), (Duration::from_millis(1), Duration::from_millis(5)));
        let totals = figures.totals();
        assert_eq!((totals.epochs, totals.records, totals.checkpoints, totals.failed_checkpoints), (1005, 2010, 1004, 1));
        assert_eq!(figures.checkpoints().len(), CHECKPOINTS);
        // 3 ms lies in the bucket up to 5 ms, 9 s beyond all.
        assert_eq!(totals.phases[1].counts[6], 1005);
        assert_eq!(totals.checkpoint_duration.counts[BUCKETS.len()], 1005);
        assert_eq!(totals.duration.count(), 1005);
        assert!((totals.duration.sum - 4.02).abs() < 1e-9);
        figures.record(EpochFigures::default());
        assert!((figures.totals().duration.sum - 4.021).abs() < 1e-9 && (figures.totals().phases[5].sum - 0.001).abs() < 1e-9);
    }

    #[test]
    fn what_a_node_takes_is_what_those_below_give() {
        let node = |depth, rows_out, counts| NodeFigures { depth, name: String::new(), id: None, rows_in: 0, rows_out, counts, time: None };
        // A union of two branches; the first has a node that counts nothing.
        let mut nodes = [node(0, 9, true), node(1, 0, false), node(2, 3, true), node(3, 5, true), node(1, 6, true)];
        count_inputs(&mut nodes);
        assert_eq!(nodes.map(|n| (n.rows_in, n.rows_out)), [(9, 9), (3, 3), (5, 3), (5, 5), (6, 6)]);
    }

    #[test]
    fn an_operators_figures_add_up() {
        let view = Arc::new(ViewFigures::default());
        view.insert(3);
        let operator = view.operator(3).unwrap();
        operator.record(10, 4, Duration::from_micros(7));
        assert!(!view.is_watched());
        let watch = view.watch();
        assert!(view.is_watched());
        operator.record(1, 1, Duration::from_micros(1));
        operator.holds(5, 500);
        let totals = OperatorTotals { rows_in: 11, rows_out: 5, time: Duration::from_micros(8), state_rows: 5, state_bytes: 500 };
        assert_eq!(watch.operator(3), Some(totals));
        drop(watch);
        assert!(!view.is_watched());
    }
}
