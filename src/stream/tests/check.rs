//! Runs a case through the engine and compares after every epoch: what the view holds, what a follower has added up, the late and the
//! bad records.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::AsArray,
    datatypes::{Int32Type, Int64Type, TimestampNanosecondType},
    record_batch::RecordBatch,
};

use super::{
    batch::{Bag, Batch, bag, same},
    case::{Case, Epoch, Record},
    follow::Followed,
    model::{Late, Model, Row},
};
use crate::{
    catalog::{Emit, SourceDef, ViewDef},
    source::{RecordsBuilder, Slice},
    sql,
    stream::{
        checkpoint::{CheckpointRoot, CheckpointStore},
        pipeline::{EpochCut, Pipeline},
        plan::{plan_view, standalone_state},
        published::Board,
        segments::Snapshot,
        view::ViewRuntime,
    },
};

/// What a run went through, and what it ended with.
#[derive(Debug, Default)]
pub struct Seen {
    pub epochs: usize,
    pub quiet: usize,
    pub restarts: usize,
    pub contents: Bag,
    /// What followers have added up.
    pub followed: Bag,
    pub late: Late,
    pub bad: BTreeSet<(i32, i64)>,
}

/// Runs a case; a difference or a panic is a sentence.
pub fn outcome(case: &Case) -> Result<Seen, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(check(case)))) {
        Ok(outcome) => outcome,
        Err(panic) => Err(panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or("a panic".into())),
    }
}

async fn check(case: &Case) -> Result<Seen, String> {
    let mut run = Run::start(case).await;
    for epoch in &case.epochs {
        run.epoch(epoch).await.map_err(|e| format!("epoch {}: {e}", run.number))?;
        if epoch.then.checkpoints() {
            run.checkpoint().await;
        }
        if epoch.then.restarts() {
            run.restart().await.map_err(|e| format!("restart after epoch {}: {e}", run.number))?;
        }
    }
    run.finish()
}

/// What has been read, and what must have come of it.
#[derive(Debug, Clone)]
struct Expected {
    model: Model,
    bad: BTreeSet<(i32, i64)>,
    offsets: Vec<i64>,
    last_input_ms: Option<i64>,
    /// All rows that came, where none may go again.
    answered: Bag,
}

struct Run<'a> {
    case: &'a Case,
    source: Arc<SourceDef>,
    view: Arc<ViewDef>,
    batch: Batch,
    folder: tempfile::TempDir,
    store: CheckpointStore,
    board: Arc<Board>,
    pipeline: Pipeline,
    /// Of the last epoch; never used again.
    number: u64,
    now: Expected,
    saved: Expected,
    /// Records that were read since the last checkpoint.
    since_checkpoint: Vec<Record>,
    /// Records that a restart has to read again.
    again: Vec<Record>,
    followed: Followed,
    /// What `EMIT EVERY` shows, and since when.
    shown: Bag,
    last_emitted_ms: Option<i64>,
    seen: Seen,
}

impl<'a> Run<'a> {
    async fn start(case: &'a Case) -> Self {
        let (source, view) = (case.source(), case.view());
        let folder = tempfile::tempdir().unwrap();
        let board = Arc::new(Board::default());
        let mut pipeline = pipeline(case, &source, &board);
        pipeline.attach(runtime(&source, &view).await).unwrap();
        let now =
            Expected { model: Model::new(case), bad: BTreeSet::new(), offsets: vec![0; case.partitions as usize], last_input_ms: None, answered: Bag::new() };
        Self {
            case,
            batch: Batch::new(case, &source, &view),
            source,
            view,
            store: open(folder.path()).await,
            folder,
            pipeline,
            number: 0,
            saved: now.clone(),
            now,
            since_checkpoint: vec![],
            again: vec![],
            followed: Followed::from(&board.current().views["v"], 0, &Bag::new()),
            board,
            shown: Bag::new(),
            last_emitted_ms: None,
            seen: Seen::default(),
        }
    }

    /// Whether a window is answered once and for all.
    fn answers_once(&self) -> bool {
        self.case.emit == Emit::OnWindowClose && self.case.lateness == 0
    }

    async fn epoch(&mut self, epoch: &Epoch) -> Result<(), String> {
        self.number += 1;
        self.seen.epochs += 1;
        let mut records = std::mem::take(&mut self.again);
        records.extend(epoch.records.iter().cloned());
        records.sort_by_key(|record| (record.partition, record.offset));
        let slices: Vec<Slice> = records.chunk_by(|a, b| a.partition == b.partition).map(|records| self.slice(records)).collect();
        let quiet = self.is_quiet(epoch, &records);
        if !records.is_empty() || self.now.last_input_ms.is_none() {
            self.now.last_input_ms = Some(epoch.now_ms);
        }
        let cut = EpochCut {
            epoch: self.number,
            now_ms: epoch.now_ms,
            slices: BTreeMap::from([("events".into(), slices)]),
            idle: BTreeMap::new(),
            caught_up: if epoch.caught_up { BTreeSet::from(["events".into()]) } else { BTreeSet::new() },
        };
        self.pipeline.run(&cut).await.map_err(|e| e.to_string())?;

        self.now.bad.extend(records.iter().filter(|r| r.event().is_none()).map(|r| (r.partition, r.offset)));
        let row = |r: &Record| r.event().map(|event| Row { partition: r.partition, offset: r.offset, event: event.clone() });
        self.now.model.step(records.iter().filter_map(row).collect(), quiet);
        self.since_checkpoint.extend(records);
        self.seen.quiet += usize::from(quiet);
        self.compare(epoch.now_ms).await
    }

    fn slice(&mut self, records: &[Record]) -> Slice {
        let mut builder = RecordsBuilder::new();
        records.iter().for_each(|r| builder.push(r.offset, Some(r.sent_ms), None, Some(&r.payload()), vec![]));
        let (first, last) = (&records[0], &records[records.len() - 1]);
        let begin = std::mem::replace(&mut self.now.offsets[first.partition as usize], last.offset + 1);
        Slice { partition: first.partition, begin, end: last.offset + 1, records: builder.finish() }
    }

    /// Whether the view closes its windows because nothing has come for so long.
    fn is_quiet(&self, epoch: &Epoch, records: &[Record]) -> bool {
        let wait = self.view.options.close.wait().map(|wait| wait.as_millis() as i64);
        let waited = wait.zip(self.now.last_input_ms).is_some_and(|(wait, last)| epoch.now_ms - last >= wait);
        records.is_empty() && epoch.caught_up && waited
    }

    async fn compare(&mut self, now_ms: i64) -> Result<(), String> {
        let published = self.board.current();
        let view = &published.views["v"];
        if let Some(failure) = &view.failure {
            return Err(format!("the view failed: {}", failure.reason));
        }
        self.seen.late = self.late_rows(&snapshot(&view.late))?;
        let model = &self.now.model;
        if self.seen.late != model.late || view.late_total as usize != model.late.len() {
            return Err(format!("late rows are {:?}, {} in all, and should be {:?}", self.seen.late, view.late_total, model.late));
        }
        self.seen.bad = snapshot(&published.sources["events"].errors)
            .iter()
            .flat_map(|b| b.column(1).as_primitive::<Int32Type>().values().to_vec().into_iter().zip(b.column(2).as_primitive::<Int64Type>().values().to_vec()))
            .collect();
        if self.seen.bad != self.now.bad {
            return Err(format!("bad records are {:?}, and should be {:?}", self.seen.bad, self.now.bad));
        }
        let due = match self.case.emit {
            Emit::Every(interval) => self.last_emitted_ms.is_none_or(|last| Duration::from_millis((now_ms - last) as u64) >= interval),
            Emit::Changes | Emit::OnWindowClose => true,
        };
        if due {
            self.last_emitted_ms = Some(now_ms);
            self.shown = self.batch.answer(model).await;
        }
        self.seen.contents = bag(snapshot(&view.contents));
        same(&self.seen.contents, &self.shown, ["the view", "the batch answer"])?;
        self.follow()?;
        same(&self.seen.followed, &self.seen.contents, ["the follower", "the view"])
    }

    /// The late rows, each of which must be the record that it says it is.
    fn late_rows(&self, batches: &[RecordBatch]) -> Result<Late, String> {
        let ids: BTreeMap<(i32, i64), i64> = self.now.model.rows.iter().map(|r| ((r.partition, r.offset), r.event.id)).collect();
        let mut late = Late::new();
        for batch in batches {
            let column = |name| batch.column_by_name(name).unwrap();
            let (partitions, offsets) = (column("_partition").as_primitive::<Int32Type>(), column("_offset").as_primitive::<Int64Type>());
            let (ends, events) = (column("window_end").as_primitive::<TimestampNanosecondType>(), column("id").as_primitive::<Int64Type>());
            for row in 0..batch.num_rows() {
                let (partition, offset) = (partitions.value(row), offsets.value(row));
                if ids.get(&(partition, offset)) != Some(&events.value(row)) {
                    return Err(format!("the late row at {partition}/{offset} is another record"));
                }
                late.insert((partition, offset, ends.value(row)));
            }
        }
        Ok(late)
    }

    /// Adds up what a follower gets.
    fn follow(&mut self) -> Result<(), String> {
        let once = self.answers_once();
        for (row, weight) in self.followed.take()? {
            if weight < 0 && once {
                return Err(format!("a row was taken away that was final: {row}"));
            }
            if weight > 0 {
                *self.now.answered.entry(row).or_default() += weight as usize;
            }
        }
        self.seen.followed = self.followed.rows();
        Ok(())
    }

    async fn checkpoint(&mut self) {
        self.store.write(self.pipeline.image().unwrap()).await.unwrap();
        self.saved = self.now.clone();
        self.since_checkpoint.clear();
    }

    /// A new process: everything from the folder. What was read since the last checkpoint is read again.
    async fn restart(&mut self) -> Result<(), String> {
        self.store = open(self.folder.path()).await;
        self.pipeline = pipeline(self.case, &self.source, &self.board);
        let mut view = runtime(&self.source, &self.view).await;
        let newest = self.store.newest().await.unwrap();
        // Without one it begins anew, and nothing has been answered yet.
        let nothing = newest.is_none();
        if let Some(mut checkpoint) = newest {
            self.pipeline.restore(&mut checkpoint).map_err(|e| e.to_string())?;
            if !view.restore(&mut checkpoint).map_err(|e| e.to_string())? {
                return Err("the checkpoint does not know the view".into());
            }
        }
        self.pipeline.attach(view).map_err(|e| e.to_string())?;
        self.now = self.saved.clone();
        self.again = std::mem::take(&mut self.since_checkpoint);
        self.seen.restarts += 1;
        // What had not been emitted is shown with what a restart finds; followers begin anew with it.
        self.last_emitted_ms = None;
        self.shown = if nothing { Bag::new() } else { self.batch.answer(&self.now.model).await };
        let view = &self.board.current().views["v"];
        let contents = bag(snapshot(&view.contents));
        same(&contents, &self.shown, ["the view", "the batch answer"])?;
        self.seen.contents = contents.clone();
        self.followed = Followed::from(view, self.pipeline.epoch(), &contents);
        Ok(())
    }

    fn finish(self) -> Result<Seen, String> {
        if self.answers_once() {
            same(&self.now.answered, &self.seen.contents, ["the sum of all answers", "the view"]).map_err(|e| format!("at the end: {e}"))?;
        }
        Ok(self.seen)
    }
}

pub fn snapshot(snapshot: &Snapshot) -> Vec<RecordBatch> {
    snapshot.batches().map(|b| b.unwrap()).collect()
}

fn pipeline(case: &Case, source: &Arc<SourceDef>, board: &Arc<Board>) -> Pipeline {
    let mut pipeline = Pipeline::new(vec![(source.clone(), 1)], board.clone(), case.threads).unwrap();
    pipeline.assign("events", 0..case.partitions);
    pipeline
}

async fn runtime(source: &Arc<SourceDef>, view: &Arc<ViewDef>) -> ViewRuntime {
    let state = standalone_state(&[source]).unwrap();
    let plan = plan_view(&state, sql::parse_query(&view.query).unwrap(), view.emit, &view.options).await.unwrap();
    ViewRuntime::new(view.clone(), 7, Arc::new(plan), &[source], BTreeMap::new(), 0).unwrap()
}

pub async fn open(folder: &std::path::Path) -> CheckpointStore {
    CheckpointStore::new(Arc::new(CheckpointRoot::local(folder.into()).await.unwrap()), "1").unwrap()
}
