//! The thread that drives a pipeline: it cuts epochs, logs them, runs them, and takes checkpoints beside them.
//!
//! An epoch is cut as soon as there is input and the shortest interval since the last one has passed (a little longer at a trickle),
//! at most so many bytes and records at a time; a partition that falls idle cuts an empty one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    panic::AssertUnwindSafe,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, oneshot},
};

use super::{
    checkpoint::{CheckpointRoot, CheckpointStore, Written},
    decoding::Ahead,
    epoch_log::{EpochEntry, EpochLog},
    failpoints::{self, Point},
    figures::{CheckpointFigures, EpochFigures},
    pipeline::{EpochCut, EpochReport, OutboxChange, OverBudget, Pipeline},
    published::Board,
    replace::Kept,
    view::ViewRuntime,
};
use crate::{
    catalog::{SourceDef, ViewDef},
    error::{Error, Result},
    source::{Feed, FeedState, FeedStatus, Start},
};

/// At a trickle an epoch costs far more than its few records: it is followed by a pause of so many times what it took, so that a
/// pipeline spends at most about a twenty-fifth of a core on them,
const PAUSE: u32 = 25;
/// but never by a longer one than this.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
/// An epoch of so many records is no trickle: the next one follows at once.
const TRICKLE: usize = 1000;
/// A private pipeline waits while its follower has so many bytes of changes before it.
const FOLLOWER_BYTES: usize = 8 << 20;

/// So long a pipeline that stops waits for its brokers to say good-bye.
const CLOSING: Duration = Duration::from_secs(5);
/// So long epochs wait for a view that holds more than it may to leave.
const HOLD: Duration = Duration::from_secs(5);

/// What could not be written is tried again after so long.
const RETRY: Duration = Duration::from_millis(500);

/// How a pipeline is driven.
#[derive(Debug, Clone)]
pub struct DriverSettings {
    /// The shortest time between the starts of two epochs.
    pub min_epoch_interval: Duration,
    /// An epoch takes at most this many payload bytes (a larger record is an epoch of its own).
    pub max_epoch_bytes: usize,
    /// An epoch takes at most this many records.
    pub max_epoch_rows: usize,
    /// How often state is checkpointed.
    pub checkpoint_interval: Duration,
}

/// What outlives the process: where, and what was found there.
#[derive(Debug)]
pub struct Durable {
    /// The checkpoints.
    pub checkpoints: CheckpointStore,
    /// The epoch log.
    pub log: EpochLog,
}

/// Makes a feed: source, where to start, whom to tell of input.
pub type OpenFeed = Arc<dyn Fn(&SourceDef, Start, Arc<Notify>) -> Result<Box<dyn Feed>> + Send + Sync>;

/// Runs a private pipeline on to just these offsets: the last stretch before its view joins.
pub type CatchUp = Box<dyn FnOnce(Pipeline, BTreeMap<String, BTreeMap<i32, i64>>) -> Result<Pipeline> + Send>;

/// A pipeline to drive, and all that it takes.
pub struct Drive<'a> {
    /// What its thread is called.
    pub name: &'a str,
    /// The pipeline, at its last epoch.
    pub pipeline: Pipeline,
    /// Its sources.
    pub sources: &'a [Arc<SourceDef>],
    /// For each source where to start; partitions that the pipeline has read go on where it is.
    pub start: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Where it publishes.
    pub board: Arc<Board>,
    /// How it is driven.
    pub settings: DriverSettings,
    /// What outlives the process; without it nothing does.
    pub durable: Option<Durable>,
    /// Makes the feeds.
    pub open: &'a OpenFeed,
    /// Is told of views that hold more than they may, and then pauses them; the pipeline waits for that. Without it the pipeline
    /// ends.
    pub over_budget: Option<mpsc::UnboundedSender<OverBudget>>,
    /// Runs what waits for disks.
    pub handle: Handle,
}

/// A view that takes another one's place, and what it begins with.
pub enum Beginning {
    /// What the other one has come to, or some of it.
    Kept(Box<ViewRuntime>, Kept),
    /// What the views that it reads hold.
    Views(Box<ViewRuntime>),
    /// What a private pipeline has read, in which it is the view of this name and number, and how that is run on to the others' offsets.
    Private(Box<Pipeline>, CatchUp, String, u64),
}

enum Command {
    Attach {
        view: Box<ViewRuntime>,
        reply: oneshot::Sender<Result<()>>,
    },
    Join {
        private: Box<Pipeline>,
        catch_up: CatchUp,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Lets a view take the place of the one of its name, in one epoch; answered when it has.
    Replace {
        beginning: Beginning,
        reply: oneshot::Sender<Result<u64>>,
    },
    Redeclare {
        def: Arc<SourceDef>,
        reply: oneshot::Sender<Result<()>>,
    },
    Limit {
        def: Arc<ViewDef>,
        reply: oneshot::Sender<Result<()>>,
    },
    Detach {
        name: String,
        id: u64,
        reason: String,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Takes a view out with its clock and offsets; no checkpoint is taken until `stored` is answered or dropped, since in between
    /// nothing durable holds the view.
    Pause {
        name: String,
        id: u64,
        stored: oneshot::Receiver<()>,
        reply: oneshot::Sender<Result<Pipeline>>,
    },
    /// A sink of a view comes or goes; a checkpoint follows at once.
    Outbox {
        view: String,
        change: OutboxChange,
        reply: oneshot::Sender<Result<()>>,
    },
    Checkpoint {
        reply: oneshot::Sender<Result<()>>,
    },
    /// Stops and hands over what it drives.
    Release {
        reply: oneshot::Sender<Result<Released>>,
    },
    Stop {
        checkpoint: bool,
        reply: oneshot::Sender<Result<()>>,
    },
}

/// What a driver was driving.
#[derive(Debug)]
pub struct Released {
    /// The pipeline, at its last epoch; its views are followed on.
    pub pipeline: Pipeline,
    /// What outlives the process.
    pub durable: Option<Durable>,
}

/// Figures of the last epoch, and of checkpoints.
#[derive(Debug, Clone, Default)]
pub struct DriverStatus {
    /// What each source's feed is doing.
    pub feeds: BTreeMap<String, FeedStatus>,
    /// The last epoch's figures.
    pub last: EpochReport,
    /// The epoch of the last durable checkpoint.
    pub checkpoint: Option<u64>,
    /// What it took.
    pub last_checkpoint: Option<CheckpointReport>,
    /// What could not be written and is tried again, if anything: as sentences.
    pub trouble: BTreeMap<&'static str, String>,
    /// Why the pipeline stands still, if it does.
    pub failure: Option<String>,
    /// For each source and partition how many offsets were deleted before views that joined had read them. A feed counts its own.
    pub lost_behind: BTreeMap<String, BTreeMap<i32, u64>>,
}

impl DriverStatus {
    /// Why nothing moves any more: the pipeline can't go on, or a source is not read any further.
    pub fn standstill(&self) -> Option<String> {
        let failed = |feed: &FeedStatus| match &feed.state {
            FeedState::Failed(reason) => Some(reason.clone()),
            FeedState::Connecting(_) | FeedState::Running => None,
        };
        self.failure.clone().or_else(|| self.feeds.values().find_map(failed))
    }
}

/// What a checkpoint took.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointReport {
    /// How long epochs were held up to take it.
    pub held: Duration,
    /// From taking it to when it counted; epochs go on meanwhile.
    pub took: Duration,
    /// Bytes written.
    pub bytes: u64,
}

/// A running pipeline, seen from outside.
#[derive(Debug)]
pub struct Driver {
    commands: mpsc::UnboundedSender<Command>,
    board: Arc<Board>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    feeds: Mutex<BTreeMap<String, Box<dyn Feed>>>,
    status: Mutex<DriverStatus>,
}

impl Shared {
    /// The pipeline can't go on: whoever looks or follows is told why.
    fn fail(&self, board: &Board, error: &Error) {
        self.stand(board, format!("{error}; the pipeline stands still, restart the server to go on at its last checkpoint"));
    }

    fn stand(&self, board: &Board, sentence: String) {
        tracing::error!("{sentence}");
        for view in board.current().views.values() {
            view.changes.end(sentence.clone());
        }
        self.status.lock().failure = Some(sentence);
    }
}

impl Driver {
    /// Starts to drive a pipeline.
    pub fn start(drive: Drive<'_>) -> Result<Self> {
        let Drive { name, pipeline, sources, start, board, settings, durable, open, over_budget, handle } = drive;
        let input = Arc::new(Notify::new());
        let mut feeds = BTreeMap::new();
        for source in sources {
            let mut offsets = start.get(&source.name).cloned().unwrap_or_default();
            let read = pipeline.offsets(&source.name);
            let fresh = offsets.keys().filter(|partition| !read.contains_key(partition)).copied().collect();
            offsets.extend(read);
            feeds.insert(source.name.clone(), open(source, Start { offsets, fresh, topic: pipeline.topic(&source.name) }, input.clone())?);
        }
        let shared = Arc::new(Shared { feeds: Mutex::new(feeds), status: Mutex::default() });
        let (commands, received) = mpsc::unbounded_channel();
        let defs = sources.iter().map(|s| (s.name.clone(), s.clone())).collect();
        // What aggregates give over nothing is there at once; a pipeline that goes on has had that.
        let force = pipeline.epoch() == 0;
        let runner = Runner {
            pipeline,
            defs,
            settings,
            durable: durable.map(Writer::idle),
            shared: shared.clone(),
            board: board.clone(),
            input,
            commands: received,
            over_budget,
            over: None,
            handle,
            dirty: false,
            force,
            committed: None,
            last_epoch: None,
            checkpoint_began: None,
            told: false,
            cut: None,
            paused: None,
            swaps: vec![],
        };
        // Whoever looks before the thread runs sees the pipeline as it was restored.
        runner.pipeline.publish();
        let (told, published) = (shared.clone(), board.clone());
        let thread = std::thread::Builder::new()
            .name(format!("pipeline {name}"))
            .spawn(move || {
                let ran = std::panic::catch_unwind(AssertUnwindSafe(|| match tokio::runtime::Builder::new_current_thread().enable_time().build() {
                    Ok(runtime) => runtime.block_on(runner.drive()),
                    Err(error) => told.fail(&published, &Error::External(format!("a pipeline has no runtime: {error}"))),
                }));
                if ran.is_err() {
                    told.fail(&published, &Error::Internal("the pipeline's thread panicked".into()));
                }
            })
            .map_err(|e| Error::External(format!("no thread for pipeline {name}: {e}")))?;
        Ok(Self { commands, board, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Where it publishes.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// What it is doing.
    pub fn status(&self) -> DriverStatus {
        let feeds = self.shared.feeds.lock().iter().map(|(name, feed)| (name.clone(), feed.status())).collect();
        DriverStatus { feeds, ..self.shared.status.lock().clone() }
    }

    /// Counts what was deleted before a view that joined had read it.
    pub fn lost_behind(&self, source: &str, lost: &BTreeMap<i32, u64>) {
        let mut status = self.shared.status.lock();
        let of_source = status.lost_behind.entry(source.into()).or_default();
        lost.iter().for_each(|(partition, offsets)| *of_source.entry(*partition).or_default() += offsets);
    }

    async fn ask(&self, make: impl FnOnce(oneshot::Sender<Result<()>>) -> Command) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Cancelled("the pipeline has stopped".into());
        self.commands.send(make(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Adds a view that has read just as far as the pipeline.
    pub async fn attach(&self, view: ViewRuntime) -> Result<()> {
        self.ask(|reply| Command::Attach { view: Box::new(view), reply }).await
    }

    /// Takes in the view of a private pipeline: between two epochs that one is run on to this one's offsets.
    pub async fn join(&self, private: Pipeline, catch_up: CatchUp) -> Result<()> {
        self.ask(|reply| Command::Join { private: Box::new(private), catch_up, reply }).await
    }

    /// Lets a view take the place of the one of its name: with the next epoch, whose number is returned. An error leaves the old one where it is.
    /// [`Error::Invalid`]: it would fail again.
    pub async fn replace(&self, beginning: Beginning) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Cancelled("the pipeline has stopped".into());
        self.commands.send(Command::Replace { beginning, reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Reads a source by another declaration, which has more columns, from the next epoch on.
    pub async fn redeclare(&self, def: Arc<SourceDef>) -> Result<()> {
        self.ask(|reply| Command::Redeclare { def, reply }).await
    }

    /// A view's declaration, which allows it another amount of memory.
    pub async fn limit(&self, def: Arc<ViewDef>) -> Result<()> {
        self.ask(|reply| Command::Limit { def, reply }).await
    }

    /// Takes the view of this name and number out; its followers end with the reason.
    pub async fn detach(&self, name: &str, id: u64, reason: &str) -> Result<()> {
        self.ask(|reply| Command::Detach { name: name.into(), id, reason: reason.into(), reply }).await
    }

    /// Takes the view of this name and number out, as a pipeline of its own that stands where this one stands; `stored` says when that
    /// one is durable.
    pub async fn pause(&self, name: &str, id: u64, stored: oneshot::Receiver<()>) -> Result<Pipeline> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Cancelled("the pipeline has stopped".into());
        self.commands.send(Command::Pause { name: name.into(), id, stored, reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Changes what a view has of outboxes.
    pub async fn outbox(&self, view: &str, change: OutboxChange) -> Result<()> {
        self.ask(|reply| Command::Outbox { view: view.into(), change, reply }).await
    }

    /// Takes a checkpoint now.
    pub async fn checkpoint(&self) -> Result<()> {
        self.ask(|reply| Command::Checkpoint { reply }).await
    }

    /// Stops, and hands over what it drives. A pipeline that stands still can't be handed over.
    pub async fn release(&self) -> Result<Released> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Cancelled("the pipeline has stopped".into());
        self.commands.send(Command::Release { reply }).map_err(|_| gone())?;
        let released = answer.await.map_err(|_| gone())??;
        self.join_threads().await?;
        Ok(released)
    }

    /// Stops, with a last checkpoint if wanted.
    pub async fn stop(&self, checkpoint: bool) -> Result<()> {
        let stopped = self.ask(|reply| Command::Stop { checkpoint, reply }).await;
        self.join_threads().await?;
        stopped
    }

    async fn join_threads(&self) -> Result<()> {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                return Err(Error::Internal("a pipeline's thread had panicked".into()));
            }
        }
        // A feed waits for its thread when it goes, and that for its broker: not on a thread that others wait for, and not for ever.
        let feeds = std::mem::take(&mut *self.shared.feeds.lock());
        let (closed, told) = oneshot::channel();
        let closing = std::thread::Builder::new().name("close feeds".into()).spawn(move || {
            drop(feeds);
            // Whoever waited may have gone.
            let _ = closed.send(());
        });
        closing.map_err(|e| Error::External(format!("no thread to stop reading with: {e}")))?;
        match tokio::time::timeout(CLOSING, told).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::Internal("a feed panicked while it stopped".into())),
            Err(_) => {
                tracing::warn!("a broker does not answer: connections to it are closed when it does");
                Ok(())
            }
        }
    }
}

/// Writes checkpoints beside the epochs.
enum Writer {
    Idle(Box<Durable>),
    /// A checkpoint of this epoch is being written; the store comes back with the result.
    Busy {
        epoch: u64,
        offsets: BTreeMap<String, BTreeMap<i32, i64>>,
        log: EpochLog,
        begun: Instant,
        held: Duration,
        written: oneshot::Receiver<(CheckpointStore, Result<Written>)>,
    },
    /// The store was lost with its task.
    Lost,
}

impl Writer {
    fn idle(durable: Durable) -> Self {
        Writer::Idle(Box::new(durable))
    }

    fn log(&mut self) -> Option<&mut EpochLog> {
        match self {
            Writer::Idle(durable) => Some(&mut durable.log),
            Writer::Busy { log, .. } => Some(log),
            Writer::Lost => None,
        }
    }
}

struct Runner {
    pipeline: Pipeline,
    defs: BTreeMap<String, Arc<SourceDef>>,
    settings: DriverSettings,
    durable: Option<Writer>,
    shared: Arc<Shared>,
    board: Arc<Board>,
    input: Arc<Notify>,
    commands: mpsc::UnboundedReceiver<Command>,
    over_budget: Option<mpsc::UnboundedSender<OverBudget>>,
    /// A view that holds more than it may: it is to leave before the next epoch.
    over: Option<(OverBudget, Instant)>,
    handle: Handle,
    /// Something happened since the last checkpoint.
    dirty: bool,
    /// An epoch is wanted, input or not.
    force: bool,
    committed: Option<Instant>,
    /// When the last epoch began.
    last_epoch: Option<Instant>,
    /// When the checkpoint that is being written began, also in milliseconds since 1970.
    checkpoint_began: Option<(Instant, i64)>,
    /// Followers know that a source is not read any further.
    told: bool,
    /// The next epoch, where it was cut already.
    cut: Option<Cut>,
    /// A paused view is being made durable: no checkpoint without it until then.
    paused: Option<oneshot::Receiver<()>>,
    /// Views that take another one's place with the next epoch, by number, and who waits for that.
    swaps: Vec<(u64, oneshot::Sender<Result<u64>>)>,
}

/// An epoch that has not run yet: it was cut while another one ran, or it could not be logged.
struct Cut {
    cut: EpochCut,
    /// For each source its partitions, and the topic that it reads, as they were then.
    sources: BTreeMap<String, (Vec<i32>, Option<String>)>,
    /// Its decoding, if that was begun.
    ahead: Option<Ahead>,
}

/// Where the sources' partitions stand, source by source.
#[derive(Default)]
struct Standing {
    /// Partitions that are idle by now.
    idle: BTreeMap<String, BTreeSet<i32>>,
    /// When the next one will be.
    next_idle: Option<Instant>,
    /// Sources that have been read to their end.
    caught_up: BTreeSet<String>,
    /// Partitions that have more to read than one epoch takes.
    behind: BTreeMap<String, BTreeSet<i32>>,
}

impl Runner {
    async fn drive(mut self) {
        let mut next_epoch: Option<Instant> = None;
        // Since when there is input; not known where it came while an epoch ran.
        let mut noticed: Option<Instant> = None;
        loop {
            self.collect_checkpoint().await;
            while let Ok(command) = self.commands.try_recv() {
                if self.obey(command).await {
                    return;
                }
            }
            let failed = self.shared.status.lock().failure.is_some();
            self.tell_of_failed_feeds();
            self.learn_topics();
            let standing = self.look();
            self.hold_back(&standing);
            let ready = next_epoch.is_none_or(|at| at <= Instant::now());
            let has_input = !failed && self.shared.feeds.lock().values().any(|feed| feed.has_input());
            let Standing { idle, caught_up, next_idle, .. } = standing;
            // One that has left, or failed, keeps nobody.
            let stays = |(over, since): &(OverBudget, Instant)| {
                // What keeps it from leaving may need an epoch itself.
                let waits = since.elapsed() < HOLD;
                waits && self.pipeline.views().get(&over.view).is_some_and(|view| view.id == over.id && view.failure.is_none())
            };
            self.over = self.over.take().filter(stays);
            let due = if self.over.is_some() { None } else { self.pipeline.due(&caught_up) };
            let due = due.map(|at| Duration::from_millis(at.saturating_sub(now_ms()).max(0) as u64));
            // A private pipeline's only follower may be slower than Kafka: it is waited for.
            let paused = self.durable.is_none() && self.pipeline.views().values().any(|view| view.changes.held_bytes() > FOLLOWER_BYTES);
            let has_input = has_input && !paused;
            let has_input = has_input && self.over.is_none();
            if !failed
                && self.over.is_none()
                && ready
                && (has_input || self.force || (self.cut.is_some() && !paused) || due.is_some_and(|wait| wait.is_zero()) || self.idleness_differs(&idle))
            {
                self.force = false;
                let started = Instant::now();
                let due = next_epoch.max(noticed.take());
                match self.epoch(idle, caught_up, due).await {
                    Ok(Some(records)) => {
                        self.tell_of_swaps();
                        let pause = if records < TRICKLE { (started.elapsed() * PAUSE).min(LONGEST_PAUSE) } else { Duration::ZERO };
                        next_epoch = Some(started + pause.max(self.settings.min_epoch_interval));
                    }
                    Ok(None) => next_epoch = Some(started + RETRY.max(self.settings.min_epoch_interval)),
                    // The taken slices can't be given back: a restart goes on at the checkpoint.
                    Err(error) => {
                        self.swaps.clear();
                        self.shared.fail(&self.board, &error);
                    }
                }
                continue;
            }
            if !failed && self.checkpoint_due() {
                self.begin_checkpoint();
            }
            // Wait for input, a command, or the next thing that time alone brings.
            let mut wake = Instant::now() + Duration::from_secs(1);
            if paused {
                wake = Instant::now() + Duration::from_millis(10);
            }
            if has_input || (self.cut.is_some() && !paused) {
                wake = next_epoch.unwrap_or(wake).min(wake);
            }
            wake = next_idle.unwrap_or(wake).min(wake);
            if self.dirty
                && let Some(committed) = self.committed
                && self.pipeline.outbox_interval().is_some()
            {
                // Not at once, where a checkpoint is still being written.
                wake = (committed + self.interval()).max(Instant::now() + Duration::from_millis(10)).min(wake);
            }
            wake = due.map_or(wake, |wait| (Instant::now() + wait).max(next_epoch.unwrap_or(wake)).min(wake));
            let command = tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => Some(command),
                    // Nobody is left who could ask for anything.
                    None => return,
                },
                () = self.input.notified(), if !has_input && !paused => None,
                () = tokio::time::sleep_until(wake.into()) => None,
            };
            if !has_input {
                noticed = Some(Instant::now());
            }
            if let Some(command) = command
                && self.obey(command).await
            {
                return;
            }
        }
    }

    /// A source that is not read any further brings no more changes: whoever follows is told why, and not left waiting.
    fn tell_of_failed_feeds(&mut self) {
        if self.told {
            return;
        }
        let reason = self.shared.feeds.lock().values().find_map(|feed| match feed.status().state {
            FeedState::Failed(reason) => Some(reason),
            FeedState::Connecting(_) | FeedState::Running => None,
        });
        if let Some(reason) = reason {
            self.pipeline.views().values().for_each(|view| view.changes.end(reason.clone()));
            self.told = true;
        }
    }

    /// A broker may have told which topic it is after the last epoch was cut: a restart has to know.
    fn learn_topics(&mut self) {
        let feeds = self.shared.feeds.lock();
        for (name, feed) in feeds.iter() {
            if self.pipeline.topic(name).is_none() && self.pipeline.learn_topic(name, feed.status().topic) {
                self.dirty = true;
            }
        }
    }

    /// Carries a command out; whether it was the last.
    async fn obey(&mut self, command: Command) -> bool {
        let (reply, result) = match command {
            Command::Attach { view, reply } => {
                self.changed();
                (reply, self.pipeline.attach(*view))
            }
            Command::Join { private, catch_up, reply } => {
                self.changed();
                (reply, self.join(*private, catch_up))
            }
            Command::Replace { beginning, reply } => {
                // Whoever asked may have gone: then nothing may have changed.
                if reply.is_closed() {
                    return false;
                }
                match self.replace(beginning).await {
                    Ok(id) => {
                        self.changed();
                        self.swaps.push((id, reply));
                    }
                    Err(error) => _ = reply.send(Err(error)),
                }
                return false;
            }
            Command::Redeclare { def, reply } => {
                // The checkpoint that follows at once keeps a restart from judging what was read before by the new declaration.
                self.changed();
                self.defs.insert(def.name.clone(), def.clone());
                (reply, self.pipeline.redeclare(def))
            }
            Command::Outbox { view, change, reply } => {
                self.changed();
                (reply, self.pipeline.change_outbox(&view, change))
            }
            Command::Limit { def, reply } => {
                self.over = None;
                self.pipeline.limit(def);
                self.keep_to_budget();
                (reply, Ok(()))
            }
            Command::Detach { name, id, reason, reply } => {
                // Another view of the same name is another view.
                if self.pipeline.views().get(&name).is_none_or(|view| view.id != id) {
                    let _ = reply.send(Ok(()));
                    return false;
                }
                self.dirty = true;
                let detached = self.pipeline.detach(&name).map(|view| {
                    if let Some(view) = view {
                        view.changes.end(reason);
                    }
                });
                (reply, detached)
            }
            Command::Pause { name, id, stored, reply } => {
                // Whoever asked may have gone: then nothing may have changed.
                if !reply.is_closed() {
                    let _ = reply.send(self.pause(&name, id, stored));
                }
                return false;
            }
            Command::Checkpoint { reply } => {
                let result = self.checkpoint_now().await;
                // Whoever asks relies on it.
                let missing = self.dirty || self.shared.status.lock().failure.is_some();
                let missing = missing.then(|| Error::External("no checkpoint could be taken: the server's log says why".into()));
                (reply, result.and_then(|()| missing.map_or(Ok(()), Err)))
            }
            Command::Release { reply } => {
                let released = self.release().await;
                let last = released.is_ok();
                // Whoever asked may have gone.
                let _ = reply.send(released);
                return last;
            }
            Command::Stop { checkpoint, reply } => {
                let result = if checkpoint {
                    self.checkpoint_now().await
                } else {
                    // Nobody may still write when the folder goes.
                    self.wait_for_checkpoint().await.or(Ok(()))
                };
                for view in self.pipeline.views().values() {
                    view.changes.end("the server is stopping".into());
                }
                if result.is_ok() && !self.dirty && matches!(self.durable, Some(Writer::Idle(_))) {
                    self.close_log();
                }
                // Whoever asked may have gone.
                let _ = reply.send(result);
                return true;
            }
        };
        // Whoever asked may have gone.
        let _ = reply.send(result);
        false
    }

    async fn release(&mut self) -> Result<Released> {
        if let Some(reason) = self.shared.status.lock().failure.clone() {
            return Err(Error::External(reason));
        }
        if let Err(error) = self.wait_for_checkpoint().await {
            tracing::error!("the last checkpoint could not be written: {error}");
        }
        if let Some(stored) = self.paused.take() {
            // Answered or dropped, it is over.
            let _ = stored.await;
        }
        let durable = match self.durable.take() {
            None => None,
            Some(Writer::Idle(durable)) => Some(*durable),
            Some(other) => {
                self.durable = Some(other);
                return Err(Error::Internal("a pipeline has lost its checkpoints: restart the server".into()));
            }
        };
        // An epoch that was cut and has not run is cut anew: its records are read again.
        let empty = Pipeline::new(vec![], Arc::default(), 1)?;
        Ok(Released { pipeline: std::mem::replace(&mut self.pipeline, empty), durable })
    }

    fn close_log(&mut self) {
        if let Some(Writer::Idle(durable)) = self.durable.take()
            && let Err(error) = durable.log.close()
        {
            tracing::warn!("{error}");
        }
    }

    fn pause(&mut self, name: &str, id: u64, stored: oneshot::Receiver<()>) -> Result<Pipeline> {
        if self.pipeline.views().get(name).is_none_or(|view| view.id != id) {
            return Err(Error::Cancelled(format!("view {name} has left its pipeline")));
        }
        let paused = self.pipeline.split(name)?;
        self.dirty = true;
        self.paused = Some(stored);
        Ok(paused)
    }

    /// Puts a view in line for another one's place; returns its number.
    async fn replace(&mut self, beginning: Beginning) -> Result<u64> {
        if let Some(reason) = self.shared.status.lock().failure.clone() {
            return Err(Error::External(reason));
        }
        match beginning {
            Beginning::Kept(view, kept) => {
                let id = view.id;
                self.pipeline.replace_keeping(*view, &kept).await.map(|()| id)
            }
            Beginning::Views(view) => {
                let id = view.id;
                self.pipeline.replace(*view, false).map(|()| id)
            }
            Beginning::Private(private, catch_up, name, id) => {
                let mut private = self.run_on(*private, catch_up)?;
                let view = private.take_view(&name).ok_or_else(|| Error::Internal("a view was to join that is not there".into()))?;
                self.pipeline.follow_on(&private);
                self.pipeline.replace(view, false).map(|()| id)
            }
        }
    }

    /// An epoch has run: views that were to take another one's place with it have, or can't.
    fn tell_of_swaps(&mut self) {
        for (id, reply) in std::mem::take(&mut self.swaps) {
            let told = match self.pipeline.take_refusal(id) {
                Some(reason) => Err(Error::Invalid(format!("the new definition failed in its first epoch, and the old one goes on: {reason}"))),
                None => Ok(self.pipeline.epoch()),
            };
            // Whoever asked may have gone.
            let _ = reply.send(told);
        }
    }

    fn join(&mut self, private: Pipeline, catch_up: CatchUp) -> Result<()> {
        let names: Vec<String> = private.views().keys().cloned().collect();
        let mut private = self.run_on(private, catch_up)?;
        // Epoch numbers and the clock rise for those who follow the view already.
        self.pipeline.follow_on(&private);
        for name in names {
            // The private board goes on showing the view until it stands here.
            if let Some(view) = private.take_view(&name) {
                self.pipeline.attach(view)?;
            }
        }
        Ok(())
    }

    /// Runs a private pipeline on to just this one's offsets.
    fn run_on(&self, private: Pipeline, catch_up: CatchUp) -> Result<Pipeline> {
        let offsets = self.pipeline.sources().map(|s| (s.to_string(), self.pipeline.offsets(s))).collect();
        // On a thread of its own: it waits for Kafka and runs epochs, which this thread's runtime can't do inside itself.
        let caught_up = std::thread::scope(|scope| scope.spawn(move || catch_up(private, offsets)).join());
        let private = caught_up.map_err(|_| Error::Internal("catching up panicked".into()))??;
        // A view that is ahead would be given records a second time.
        let ahead = self.pipeline.sources().find(|source| private.is_beyond(source, &self.pipeline.offsets(source)));
        if let Some(source) = ahead {
            return Err(Error::Internal(format!("a view was to join that has read further in {source} than its pipeline")));
        }
        Ok(private)
    }

    /// A view came: an empty epoch closes what the watermark has passed already, and a checkpoint holds the view at once.
    fn changed(&mut self) {
        self.dirty = true;
        self.force = true;
        self.committed = None;
    }

    /// Where the sources' partitions stand.
    fn look(&self) -> Standing {
        let now = Instant::now();
        let mut standing = Standing::default();
        for (name, feed) in self.shared.feeds.lock().iter() {
            let Some(def) = self.defs.get(name) else { continue };
            let status = feed.status();
            // A feed that has lost its broker can't know that a partition is at its end: what was idle stays so, nothing falls idle.
            let connected = status.state == FeedState::Running;
            if connected && !status.partitions.is_empty() && status.partitions.values().all(|p| p.at_end_since.is_some()) && !feed.has_input() {
                standing.caught_up.insert(name.clone());
            }
            let idle = standing.idle.entry(name.clone()).or_default();
            let behind = standing.behind.entry(name.clone()).or_default();
            for (number, partition) in status.partitions {
                if partition.end.is_some_and(|end| end.saturating_sub(partition.position) > self.settings.max_epoch_rows as i64) {
                    behind.insert(number);
                }
                if !connected {
                    if self.pipeline.is_idle(name, number) {
                        idle.insert(number);
                    }
                    continue;
                }
                let Some(since) = partition.at_end_since else { continue };
                let at = since + def.idle_timeout;
                if at <= now {
                    idle.insert(number);
                } else {
                    standing.next_idle = Some(standing.next_idle.map_or(at, |next| next.min(at)));
                }
            }
        }
        standing
    }

    /// Where partitions go at different paces, those that lead wait, so that the state between them stays small.
    fn hold_back(&self, standing: &Standing) {
        let leading = self.pipeline.leading(&standing.behind);
        for (name, feed) in self.shared.feeds.lock().iter() {
            feed.hold_back(leading.get(name).cloned().unwrap_or_default());
        }
    }

    fn idleness_differs(&self, idle: &BTreeMap<String, BTreeSet<i32>>) -> bool {
        idle.iter().any(|(source, set)| {
            // Only falling idle needs an epoch of its own: a partition wakes up with its records.
            self.pipeline.idleness_differs(source, set, set.iter().copied())
        })
    }

    /// Runs one epoch, which was due at this moment; how many records it read. `None`: it could not be logged, and waits.
    async fn epoch(&mut self, idle: BTreeMap<String, BTreeSet<i32>>, caught_up: BTreeSet<String>, due: Option<Instant>) -> Result<Option<usize>> {
        let (started, started_ms) = (Instant::now(), now_ms());
        let next = self.cut.take();
        let Cut { cut, sources, ahead } = next.unwrap_or_else(|| self.cut(idle, caught_up));
        // A view that joined meanwhile may have moved the numbers on.
        let cut = EpochCut { epoch: self.pipeline.epoch() + 1, ..cut };
        for (name, (partitions, topic)) in &sources {
            self.pipeline.assign(name, partitions.iter().copied());
            self.pipeline.set_topic(name, topic.clone());
        }
        let fetch = started.elapsed();
        if let Some(log) = self.durable.as_mut().and_then(Writer::log) {
            match log.append(&entry(&cut, self.pipeline.watermarks())) {
                Ok(()) => self.relieved("log"),
                // A full disk: the epoch waits with what it has taken, readers keep what they have.
                Err(error) => {
                    self.troubled("log", &error);
                    self.cut = Some(Cut { cut, sources, ahead: None });
                    return Ok(None);
                }
            }
            failpoints::pass(Point::LogAppended);
        }
        let checkpoint = started.elapsed() - fetch;
        self.cut_ahead(&cut)?;
        let report = self.pipeline.run_decoded(&cut, ahead).await?;
        self.board.figures().record(EpochFigures {
            epoch: cut.epoch,
            started_ms,
            report,
            duration: started.elapsed(),
            since_last: self.last_epoch.map(|last| started - last),
            delay: due.map_or(Duration::ZERO, |due| started.saturating_duration_since(due)),
            fetch,
            checkpoint,
        });
        self.keep_to_budget();
        self.last_epoch = Some(started);
        tracing::trace!(epoch = cut.epoch, records = report.records, "epoch");
        self.dirty = true;
        self.shared.status.lock().last = report;
        Ok(Some(report.records))
    }

    /// Behind an epoch that took as much as it may, the next one is cut at once, and decoded while that one runs.
    fn cut_ahead(&mut self, running: &EpochCut) -> Result<()> {
        let is_full = 2 * running.records() >= self.settings.max_epoch_rows || 2 * running.bytes() >= self.settings.max_epoch_bytes;
        if !is_full || !self.shared.feeds.lock().values().any(|feed| feed.has_input()) {
            return Ok(());
        }
        let Standing { idle, caught_up, .. } = self.look();
        let next = self.cut(idle, caught_up);
        let ahead = Some(self.pipeline.decode_ahead(&next.cut)?);
        self.cut = Some(Cut { ahead, ..next });
        Ok(())
    }

    /// Tells of a view that holds more than it may.
    fn keep_to_budget(&mut self) {
        let Some(over) = self.pipeline.over_budget().into_iter().next() else { return };
        match &self.over_budget {
            // Nobody is left who could pause it.
            Some(tell) if tell.send(over.clone()).is_err() => {}
            Some(_) => self.over = Some((over, Instant::now())),
            None => self.shared.stand(&self.board, format!("{} ends: {}", over.view, over.reason)),
        }
    }

    /// Something can't be written: it is tried again, and whoever asks is told. Said once in the log, not at each try.
    fn troubled(&self, what: &'static str, error: &Error) {
        let sentence = error.to_string();
        if self.shared.status.lock().trouble.insert(what, sentence.clone()).as_ref() != Some(&sentence) {
            tracing::error!("{sentence}; it is tried again");
        }
    }

    fn relieved(&self, what: &'static str) {
        if self.shared.status.lock().trouble.remove(what).is_some() {
            tracing::info!("the {what} can be written again");
        }
    }

    /// Takes what there is as an epoch.
    fn cut(&self, mut idle: BTreeMap<String, BTreeSet<i32>>, mut caught_up: BTreeSet<String>) -> Cut {
        let (mut slices, mut sources) = (BTreeMap::new(), BTreeMap::new());
        {
            let feeds = self.shared.feeds.lock();
            for (name, feed) in feeds.iter() {
                let status = feed.status();
                sources.insert(name.clone(), (status.partitions.into_keys().collect(), status.topic));
                // Several sources share an epoch's limits.
                let taken = feed.take(self.settings.max_epoch_bytes / feeds.len(), (self.settings.max_epoch_rows / feeds.len()).max(1));
                if let Some(idle) = idle.get_mut(name) {
                    taken.iter().for_each(|slice| {
                        idle.remove(&slice.partition);
                    });
                }
                // What came since the look is input, and more may be on its way.
                if !taken.is_empty() {
                    caught_up.remove(name);
                }
                slices.insert(name.clone(), taken);
            }
        }
        let cut = EpochCut { epoch: self.pipeline.epoch() + 1, now_ms: now_ms(), slices, idle, caught_up };
        Cut { cut, sources, ahead: None }
    }

    fn checkpoint_due(&mut self) -> bool {
        if let Some(stored) = &mut self.paused {
            if matches!(stored.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return false;
            }
            self.paused = None;
        }
        self.dirty |= self.pipeline.outboxes_moved();
        self.dirty && matches!(self.durable, Some(Writer::Idle(_))) && self.committed.is_none_or(|at| at.elapsed() >= self.interval())
    }

    /// How long after a checkpoint the next one begins. Sinks wait for theirs; but no more than a fifth of the time goes to writing them.
    fn interval(&self) -> Duration {
        let usual = self.settings.checkpoint_interval;
        let Some(wanted) = self.pipeline.outbox_interval() else { return usual };
        let took = self.shared.status.lock().last_checkpoint.map_or(Duration::ZERO, |last| last.took);
        wanted.max(took * 5).min(usual)
    }

    /// Starts to write a checkpoint; epochs go on meanwhile.
    fn begin_checkpoint(&mut self) {
        let begun = Instant::now();
        self.committed = Some(begun);
        let Some(Writer::Idle(durable)) = self.durable.take() else { return };
        let Durable { checkpoints, mut log } = *durable;
        let epoch = self.pipeline.epoch();
        let prepared = log.rotate(epoch + 1).and_then(|before| Ok((before, self.pipeline.image()?)));
        match prepared {
            Err(error) => {
                self.troubled("checkpoint", &Error::External(format!("no checkpoint could be taken: {error}")));
                self.durable = Some(Writer::idle(Durable { checkpoints, log }));
            }
            Ok((before, image)) => {
                self.dirty = false;
                let (done, written) = oneshot::channel();
                let offsets = self.pipeline.sources().map(|s| (s.to_string(), self.pipeline.offsets(s))).collect();
                self.handle.spawn(async move {
                    let mut checkpoints = checkpoints;
                    let result = match sync(before).await {
                        Ok(()) => checkpoints.write(image).await,
                        Err(error) => Err(error),
                    };
                    // The runner may have stopped; the checkpoint counts all the same.
                    let _ = done.send((checkpoints, result));
                });
                self.durable = Some(Writer::Busy { epoch, offsets, log, begun, held: begun.elapsed(), written });
                self.checkpoint_began = Some((begun, now_ms()));
            }
        }
        self.board.figures().held_up(begun.elapsed());
    }

    /// Takes the store back from a checkpoint that is done.
    async fn collect_checkpoint(&mut self) {
        if let Some(Writer::Busy { written, .. }) = &mut self.durable {
            match written.try_recv() {
                Ok((store, result)) => self.checkpoint_written(store, result),
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => {
                    tracing::error!("a checkpoint's writer panicked: no more checkpoints are taken, restart the server");
                    self.durable = Some(Writer::Lost);
                }
            }
        }
    }

    fn checkpoint_written(&mut self, checkpoints: CheckpointStore, result: Result<Written>) {
        let Some(Writer::Busy { epoch, offsets, mut log, begun, held, .. }) = self.durable.take() else { return };
        if let Some((began, started_ms)) = self.checkpoint_began.take() {
            let (bytes, parts, failure) = match &result {
                Ok(Written::Done { bytes, files }) => (*bytes, *files, None),
                Ok(Written::Fenced(sentence)) => (0, 0, Some(sentence.clone())),
                Err(error) => (0, 0, Some(error.to_string())),
            };
            self.board.figures().record_checkpoint(CheckpointFigures { epoch, started_ms, duration: began.elapsed(), bytes, parts, failure });
        }
        match result {
            Ok(Written::Fenced(sentence)) => self.shared.stand(&self.board, format!("{sentence}; the pipeline stands still")),
            Ok(Written::Done { bytes, .. }) => {
                self.relieved("checkpoint");
                log.checkpointed(epoch);
                {
                    let mut status = self.shared.status.lock();
                    status.checkpoint = Some(epoch);
                    status.last_checkpoint = Some(CheckpointReport { held, took: begun.elapsed(), bytes });
                }
                let feeds = self.shared.feeds.lock();
                for (source, offsets) in offsets {
                    if let Some(feed) = feeds.get(&source) {
                        feed.commit(offsets);
                    }
                }
            }
            Err(error) => {
                self.dirty = true;
                self.troubled("checkpoint", &Error::External(format!("the last checkpoint does not count, the one before does: {error}")));
            }
        }
        self.durable = Some(Writer::idle(Durable { checkpoints, log }));
    }

    async fn checkpoint_now(&mut self) -> Result<()> {
        if let Err(error) = self.wait_for_checkpoint().await {
            tracing::error!("the checkpoint before the last one could not be written: {error}");
        }
        if let Some(stored) = self.paused.take() {
            // Answered or dropped, it is over.
            let _ = stored.await;
        }
        let failed = self.shared.status.lock().failure.is_some();
        self.learn_topics();
        // So that a restart does not write again what was written.
        self.dirty |= self.pipeline.outboxes_moved();
        if self.dirty && matches!(self.durable, Some(Writer::Idle(_))) && !failed {
            self.begin_checkpoint();
            self.wait_for_checkpoint().await?;
        }
        Ok(())
    }

    async fn wait_for_checkpoint(&mut self) -> Result<()> {
        let Some(Writer::Busy { written, .. }) = &mut self.durable else { return Ok(()) };
        match written.await {
            Ok((store, result)) => {
                let failed = result.as_ref().err().map(ToString::to_string);
                self.checkpoint_written(store, result);
                failed.map_or(Ok(()), |sentence| Err(Error::External(sentence)))
            }
            Err(_) => {
                self.durable = Some(Writer::Lost);
                Err(Error::Internal("a checkpoint's writer panicked".into()))
            }
        }
    }
}

/// The wall clock in milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

fn entry(cut: &EpochCut, watermarks: BTreeMap<String, i64>) -> EpochEntry {
    let mut ranges: BTreeMap<String, BTreeMap<i32, (i64, i64)>> = BTreeMap::new();
    for (source, slices) in &cut.slices {
        let of_source = ranges.entry(source.clone()).or_default();
        for slice in slices {
            let range = of_source.entry(slice.partition).or_insert((slice.begin, slice.end));
            range.1 = slice.end;
        }
    }
    let idle = cut.idle.iter().map(|(source, set)| (source.clone(), set.iter().copied().collect())).collect();
    EpochEntry { epoch: cut.epoch, now_ms: cut.now_ms, ranges, idle, caught_up: cut.caught_up.iter().cloned().collect(), watermarks }
}

async fn sync(file: Option<File>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
    let synced = synced.map_err(|e| Error::Internal(format!("syncing the epoch log panicked: {e}")))?;
    synced.map_err(|e| Error::External(format!("the epoch log could not be synced: {e}")))
}

/// Opens the checkpoints of a pipeline.
pub async fn open_durable(root: Arc<CheckpointRoot>, name: &str) -> Result<(CheckpointStore, Option<super::checkpoint::Restored>)> {
    let mut checkpoints = CheckpointStore::new(root, name)?;
    let restored = checkpoints.newest().await?;
    Ok((checkpoints, restored))
}
