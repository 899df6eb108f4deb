//! The thread of a sink: takes pieces from the outbox, writes them, and says so. Whatever fails outside is tried again, from where the
//! sink's cursor stands.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use arrow::{compute::concat_batches, record_batch::RecordBatch};
use tokio::runtime::Handle;

use super::{
    Running, State,
    maker::{LetterMaker, Maker, RowMaker, make_beside},
    plan::PlannedSink,
};
use crate::{
    access::Caller,
    catalog::{Definition, Delivery, FolderSink, KafkaSink, Object, SinkDef, SinkTarget},
    error::{Error, Result},
    session::engine::Engine,
    sink::{
        folder::FolderWriter,
        records::Shape,
        topic::{Failed, Identity, TopicWriter},
    },
    stream::outbox::{Next, Outbox, Piece},
};

/// How long a look for more takes; then it is seen whether the sink is to stop, or its view is elsewhere.
const LOOK: Duration = Duration::from_millis(200);
/// What failed is tried again after so long, and then after twice that,
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A consumer group that is not used is forgotten after a time, seven days unless the broker says otherwise: a cursor is committed again in time.
const REFRESH: Duration = Duration::from_secs(6 * 3600);

/// Pieces are written together to a topic up to about so many rows: what is written again at least once if the broker goes away, or is one transaction.
const ROUND: usize = 65_536;

/// What a sink reads.
struct Reads {
    /// The header that names it.
    header: &'static str,
    /// The view, or the source whose bad records it is about.
    name: String,
}

/// Why a round has ended.
enum Ended {
    /// Nobody wants it any more.
    Stopped,
    /// It is tried again.
    Later(Error),
    /// It would come to the same again.
    Failed(Error),
}

impl From<Failed> for Ended {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Later(error) => Self::Later(error),
            Failed::Unmade(error) => Self::Failed(error),
            Failed::Stopped => Self::Stopped,
        }
    }
}

impl Engine {
    /// Starts a sink. `resumed`: somebody has looked at it, and wants it to go on even if Kafka has forgotten its cursor.
    pub(super) fn start_sink(self: &Arc<Self>, object: &Object, resumed: bool) -> Result<()> {
        let Definition::Sink(def) = object.definition.clone() else { return Ok(()) };
        let running = Arc::new(Running::default());
        let mut worker = Worker {
            engine: Arc::downgrade(self),
            handle: self.handle().clone(),
            object: object.clone(),
            server: self.sinks.server.clone(),
            running: running.clone(),
            cursor: None,
            resumed,
            def,
        };
        let name = object.definition.name().to_string();
        let thread = std::thread::Builder::new().name(format!("sink {name}")).spawn(move || {
            if std::panic::catch_unwind(AssertUnwindSafe(|| worker.run())).is_err() {
                worker.running.set(State::Failed("the sink's thread panicked; please report it, and RESUME SINK".into()));
            }
        });
        *running.thread.lock() = Some(thread.map_err(|e| Error::External(format!("no thread for sink {name}: {e}")))?);
        self.sinks.running.lock().insert(object.id, running);
        Ok(())
    }
}

struct Worker {
    engine: Weak<Engine>,
    handle: Handle,
    object: Object,
    def: Arc<SinkDef>,
    /// The server's id.
    server: String,
    running: Arc<Running>,
    /// The number behind the last row that was written, if this worker knows.
    cursor: Option<u64>,
    resumed: bool,
}

impl Worker {
    fn run(&mut self) {
        let mut pause = FIRST_PAUSE;
        while !self.running.is_stopped() {
            let before = self.cursor;
            match self.round() {
                Ok(()) | Err(Ended::Stopped) => return,
                Err(Ended::Failed(error)) => {
                    tracing::error!(sink = self.def.name, "stands still: {error}");
                    self.running.set(State::Failed(error.to_string()));
                    return;
                }
                Err(Ended::Later(error)) => {
                    tracing::warn!(sink = self.def.name, "tries again: {error}");
                    self.running.set(State::Retrying(error.to_string()));
                }
            }
            if self.cursor != before {
                pause = FIRST_PAUSE;
            }
            let until = Instant::now() + pause;
            while Instant::now() < until && !self.running.is_stopped() {
                std::thread::sleep(Duration::from_millis(20));
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn engine(&self) -> std::result::Result<Arc<Engine>, Ended> {
        self.engine.upgrade().ok_or(Ended::Stopped)
    }

    /// Writes until something fails.
    fn round(&mut self) -> std::result::Result<(), Ended> {
        let def = self.def.clone();
        if let (Some(source), SinkTarget::Kafka(sink)) = (&def.errors_of, &def.target) {
            let topic = self.engine()?.source_def(source).map(|source| source.kafka.topic.clone()).ok_or(Ended::Stopped)?;
            let reads = Reads { header: "tidegate-source", name: source.clone() };
            return self.feed_topic(sink, &reads, &mut LetterMaker { topic });
        }
        let planned = {
            let engine = self.engine()?;
            // The right to read was asked when it was made.
            self.handle.block_on(engine.plan_sink(&Caller::server(), &self.def)).map_err(Ended::Later)?
        };
        let reads = Reads { header: "tidegate-view", name: planned.shape.view.clone() };
        match &def.target {
            SinkTarget::Kafka(sink) => {
                let mut maker = RowMaker::new(planned, sink).map_err(Ended::Failed)?;
                self.feed_topic(sink, &reads, &mut maker)
            }
            SinkTarget::Folder(sink) => self.feed_folder(sink, &reads, &planned),
        }
    }

    /// The outbox where the view is now, or the source; a new one if there is none for this sink.
    fn outbox(&mut self, reads: &Reads) -> std::result::Result<Arc<Outbox>, Ended> {
        let engine = self.engine()?;
        if let Some((_, outbox)) = engine.outbox_of(&self.object) {
            return Ok(outbox);
        }
        if self.running.is_stopped() {
            // One that was dropped meanwhile must not leave an outbox that nobody empties.
            return Err(Ended::Stopped);
        }
        let opened = self.handle.block_on(engine.open_outbox(&self.object, &self.def, &reads.name)).map_err(Ended::Later)?;
        // The numbers begin anew. What is durable elsewhere says where the sink is, or that this can't be.
        if matches!(&self.def.target, SinkTarget::Kafka(sink) if sink.delivery == Delivery::AtLeastOnce) {
            self.cursor = None;
        }
        Ok(opened)
    }

    /// The outbox, told where the sink stands if it is another one than before.
    fn look(&mut self, reads: &Reads, known: &mut Arc<Outbox>) -> std::result::Result<(), Ended> {
        let now = self.outbox(reads)?;
        if !Arc::ptr_eq(&now, known) {
            now.go_on(self.cursor).map_err(Ended::Failed)?;
            *known = now;
        }
        Ok(())
    }

    fn wrote(&mut self, outbox: &Outbox, cursor: u64, records: u64, bytes: u64) {
        self.cursor = Some(cursor);
        outbox.written(cursor);
        self.running.records.fetch_add(records, Ordering::Relaxed);
        self.running.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.running.set(State::Running);
    }

    fn feed_topic(&mut self, sink: &KafkaSink, reads: &Reads, maker: &mut dyn Maker) -> std::result::Result<(), Ended> {
        let identity = Identity {
            sink: self.def.name.clone(),
            reads: (reads.header, reads.name.clone()),
            transactional_id: format!("tidegate-{}-{}", self.server, self.object.id),
            group: format!("tidegate-sink-{}-{}-{}", self.def.name, self.server, self.object.id),
        };
        // Whatever is refused may be allowed later: a password is altered, a right is given.
        let (mut writer, durable) = TopicWriter::connect(sink, &identity).map_err(Ended::Later)?;
        let mut outbox = self.outbox(reads)?;
        let exactly = sink.delivery == Delivery::ExactlyOnce;
        if exactly && durable.is_none() && outbox.lag().cursor > 0 && !self.resumed {
            return Err(Ended::Failed(Error::External(format!(
                "Kafka has forgotten the cursor of sink {} (consumer group {}; offsets.retention.minutes says when): RESUME SINK {0} lets it go on at row {} of its view, where the server's checkpoint saw it; what was written behind that is written twice",
                self.def.name,
                identity.group,
                outbox.lag().cursor
            ))));
        }
        self.cursor = Some(outbox.go_on(if exactly { durable } else { self.cursor }).map_err(Ended::Failed)?);
        self.resumed = false;
        self.running.set(State::Running);
        let running = self.running.clone();
        let stopped = move || running.is_stopped();
        let mut alone = false;
        while !stopped() {
            self.look(reads, &mut outbox)?;
            match outbox.next(LOOK).map_err(Ended::Later)? {
                Next::Nothing => {
                    if exactly && writer.quiet_since().elapsed() > REFRESH {
                        let lag = outbox.lag();
                        writer.write(&mut std::iter::empty(), lag.epoch, lag.cursor, &stopped)?;
                    }
                }
                Next::Failed(reason) => return Err(Ended::Failed(Error::Exhausted(reason))),
                Next::Piece(piece) => {
                    // What else waits goes along: each round waits for the broker once.
                    let pieces = if alone { vec![piece] } else { gathered(piece, &outbox).map_err(Ended::Later)? };
                    let Some((epoch, end)) = pieces.last().map(|piece| (piece.epoch_of(piece.end() - 1), piece.end())) else { continue };
                    let written = match make_beside(maker, &self.handle, &pieces, |records| writer.write(records, epoch, end, &stopped)) {
                        Err(Failed::Unmade(_)) if pieces.len() > 1 => {
                            // What comes before the bad row is written all the same.
                            alone = true;
                            continue;
                        }
                        written => written?,
                    };
                    self.wrote(&outbox, end, written.records, written.bytes);
                }
            }
        }
        Ok(())
    }

    fn feed_folder(&mut self, sink: &FolderSink, reads: &Reads, planned: &PlannedSink) -> std::result::Result<(), Ended> {
        let written = planned.shape.written();
        let owner = format!("{}-{}", self.server, self.object.id);
        let mut outbox = self.outbox(reads)?;
        let next = outbox.lag().cursor;
        let opened = self.handle.block_on(FolderWriter::open(&sink.path, &owner, planned.partition_by.clone(), next, self.resumed));
        let mut writer = opened.map_err(|error| match error {
            Error::Invalid(_) => Ended::Failed(error),
            other => Ended::Later(other),
        })?;
        self.cursor = Some(outbox.go_on(Some(writer.cursor())).map_err(Ended::Failed)?);
        self.resumed = false;
        self.running.set(State::Running);
        let mut gathered = Gathered::default();
        while !self.running.is_stopped() {
            let before = outbox.clone();
            self.look(reads, &mut outbox)?;
            if !Arc::ptr_eq(&before, &outbox) {
                gathered = Gathered::default();
            }
            let from = gathered.end.or(self.cursor).unwrap_or_default();
            match outbox.next_from(from, LOOK).map_err(Ended::Later)? {
                Next::Nothing => {}
                Next::Failed(reason) => return Err(Ended::Failed(Error::Exhausted(reason))),
                Next::Piece(piece) => {
                    let given = self.handle.block_on(planned.given(&piece)).map_err(Ended::Later)?;
                    let rows = rows_of(&planned.shape, &given, &piece).map_err(Ended::Failed)?;
                    gathered.add(&piece, rows);
                }
            }
            if gathered.is_due(sink)
                && let Some(end) = gathered.end
            {
                let rows = concat_batches(&written, &gathered.rows).map_err(|e| Ended::Failed(e.into()))?;
                let bytes = self.handle.block_on(writer.write(&rows, gathered.epoch, end)).map_err(Ended::Later)?;
                self.wrote(&outbox, end, rows.num_rows() as u64, bytes);
                gathered = Gathered::default();
            }
        }
        Ok(())
    }
}

/// A piece with those behind it that are there already.
fn gathered(first: Piece, outbox: &Outbox) -> Result<Vec<Piece>> {
    let (mut rows, mut end) = (first.rows.num_rows(), first.end());
    let mut pieces = vec![first];
    while rows < ROUND
        && let Next::Piece(piece) = outbox.next_from(end, Duration::ZERO)?
    {
        (rows, end) = (rows + piece.rows.num_rows(), piece.end());
        pieces.push(piece);
    }
    Ok(pieces)
}

fn rows_of(shape: &Shape, given: &crate::sink::records::Given, piece: &Piece) -> Result<RecordBatch> {
    match shape.envelope {
        crate::catalog::Envelope::Changes => shape.with_ops(given, piece),
        crate::catalog::Envelope::Rows => {
            shape.check_append(given)?;
            Ok(given.rows.clone())
        }
    }
}

/// Rows that wait for others to share their file. They are still in the outbox.
#[derive(Default)]
struct Gathered {
    rows: Vec<RecordBatch>,
    count: usize,
    since: Option<Instant>,
    /// The number behind the last row.
    end: Option<u64>,
    epoch: u64,
}

impl Gathered {
    fn add(&mut self, piece: &Piece, rows: RecordBatch) {
        self.count += rows.num_rows();
        self.rows.push(rows);
        self.since.get_or_insert_with(Instant::now);
        self.end = Some(piece.end());
        self.epoch = piece.epoch_of(piece.end() - 1);
    }

    fn is_due(&self, sink: &FolderSink) -> bool {
        self.count >= sink.roll_rows || self.since.is_some_and(|since| since.elapsed() >= sink.roll_interval)
    }
}
