//! A running view: its plan, its state, what it holds.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::{
    array::Int64Array,
    datatypes::{Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    changes::{ChangeLog, EpochChanges, consolidate},
    checkpoint::{Image, Restored},
    contents::{Contents, StagedChange},
    epoch::{OperatorId, States},
    figures::ViewFigures,
    hidden::weight_field,
    outbox::Outbox,
    plan::{ViewPlan, states},
    replace::{Kept, Replaced, Swap},
    segments::{Segment, SegmentLog, Snapshot, StoredSegment},
    side_rows::late_schema,
};
use crate::{
    catalog::{Emit, SourceDef, ViewDef},
    error::{Error, Result},
};

/// `<view>$late` keeps this many rows unless the view says otherwise.
const LATE_ROWS: usize = 100_000;

/// So many rows wait for `EMIT EVERY` before those that cancel out are looked for.
const PENDING_ROWS: usize = 65_536;

/// The rows of tables, by name.
pub type Tables = Arc<HashMap<String, Vec<RecordBatch>>>;

/// Why a view stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The epoch that could not be run.
    pub epoch: u64,
    /// Why, as a sentence.
    pub reason: String,
}

/// Under which name a log of an operator is checkpointed.
fn operator_part(id: OperatorId, log: usize) -> String {
    if log == 0 { format!("operator-{id}") } else { format!("operator-{id}-{log}") }
}

/// Under which name the outbox of a sink is checkpointed.
fn outbox_part(sink: u64) -> String {
    format!("outbox-{sink}")
}

/// What an epoch would make of a view.
#[derive(Debug)]
pub struct StagedView {
    /// The plan's output.
    pub output: Vec<RecordBatch>,
    /// What it changes in the contents.
    pub change: Option<StagedChange>,
    /// Late rows.
    pub late: Vec<RecordBatch>,
    /// What the view takes another one's place with, in its first epoch.
    pub swap: Option<Swap>,
}

/// A running view.
#[derive(Debug)]
pub struct ViewRuntime {
    /// Its declaration.
    pub def: Arc<ViewDef>,
    /// Its number in the catalog: names its parts in checkpoints.
    pub id: u64,
    /// What runs once an epoch.
    pub plan: Arc<ViewPlan>,
    /// Its operators.
    pub states: Arc<States>,
    /// Why it stands still, if it does.
    pub failure: Option<Failure>,
    /// Where the view began to read, by source and partition.
    pub start: BTreeMap<String, BTreeMap<i32, i64>>,
    /// It reads views, and has not been given what those hold.
    pub waits_for_views: bool,
    /// It reads tables, and has not been given their rows.
    pub waits_for_tables: bool,
    /// Those rows.
    pub tables: Tables,
    /// Who follows it.
    pub changes: Arc<ChangeLog>,
    /// What its sinks have still to write.
    pub outboxes: Vec<Arc<Outbox>>,
    /// The view whose place it takes with its first epoch, and that stands there until then.
    pub replaces: Option<Box<Replaced>>,
    /// `None` for a subscription, which hands its changes on and holds nothing.
    contents: Option<Contents>,
    late: SegmentLog,
    late_total: u64,
    every: Option<Every>,
}

/// `EMIT EVERY`: what is shown trails the contents until the next time to emit.
#[derive(Debug)]
struct Every {
    interval_ms: i64,
    /// When it emitted last, in milliseconds since 1970; what a restart finds is emitted at once.
    last_ms: Option<i64>,
    /// What readers see.
    shown: Option<Snapshot>,
    /// What has changed since.
    pending: Vec<RecordBatch>,
    /// Rows in `pending` after it was consolidated last.
    consolidated: usize,
}

/// A view as readers see it at one epoch.
#[derive(Debug, Clone)]
pub struct PublishedView {
    /// Its number in the catalog: another definition of the same name has another one.
    pub id: u64,
    /// Its rows.
    pub contents: Snapshot,
    /// Its late rows, as many as are kept.
    pub late: Snapshot,
    /// How many rows came late, ever.
    pub late_total: u64,
    /// Why it stands still, if it does.
    pub failure: Option<Failure>,
    /// Who follows it.
    pub changes: Arc<ChangeLog>,
    /// What its sinks have still to write.
    pub outboxes: Vec<Arc<Outbox>>,
    /// Its plan.
    pub plan: Arc<ViewPlan>,
    /// Bytes that operators and contents hold.
    pub bytes: usize,
    /// Keys that its operators hold.
    pub state_rows: usize,
    /// What its operators have done.
    pub figures: Arc<ViewFigures>,
    /// Where the view began to read, by source and partition.
    pub start: BTreeMap<String, BTreeMap<i32, i64>>,
}

impl ViewRuntime {
    /// A view that has read nothing yet.
    pub fn new(
        def: Arc<ViewDef>,
        id: u64,
        plan: Arc<ViewPlan>,
        sources: &[&SourceDef],
        start: BTreeMap<String, BTreeMap<i32, i64>>,
        epoch: u64,
    ) -> Result<Self> {
        let every = match plan.emit {
            Emit::Every(interval) => {
                let interval_ms = interval.as_millis().clamp(1, i64::MAX as u128) as i64;
                Some(Every { interval_ms, last_ms: None, shown: None, pending: vec![], consolidated: 0 })
            }
            Emit::Changes | Emit::OnWindowClose => None,
        };
        Ok(Self {
            every,
            contents: Some(Contents::new(plan.schema.clone(), plan.changing)?),
            late: SegmentLog::new(late_schema(sources)),
            late_total: 0,
            failure: None,
            waits_for_views: plan.inputs.keys().any(|input| !sources.iter().any(|source| source.name == *input)),
            start,
            waits_for_tables: !plan.tables.is_empty(),
            tables: Tables::default(),
            changes: Arc::new(ChangeLog::new(epoch)),
            outboxes: vec![],
            replaces: None,
            states: Arc::new(states(&plan.physical)?),
            def,
            id,
            plan,
        })
    }

    /// The same view with the rows of the tables that it reads, which it is given with its first epoch.
    pub fn with_tables(self, tables: Tables) -> Self {
        Self { tables, ..self }
    }

    /// The same view, holding nothing: its changes are all that is wanted.
    pub fn without_contents(self) -> Self {
        let changes = Arc::new(ChangeLog::for_one(self.changes.newest()));
        Self { contents: None, changes, ..self }
    }

    fn part(&self, name: &str) -> String {
        format!("view-{}/{name}", self.id)
    }

    /// Adds the view to a checkpoint.
    pub fn save(&self, image: &mut Image, metas: &mut BTreeMap<String, Value>) -> Result<()> {
        if let Some(contents) = &self.contents {
            image.logs.insert(self.part("contents"), contents.log().segments().collect());
        }
        image.logs.insert(self.part("late"), self.late.segments().collect());
        let mut operators = BTreeMap::new();
        for (id, state) in self.states.iter() {
            let state = state.lock();
            for (at, log) in state.logs().into_iter().enumerate() {
                image.logs.insert(self.part(&operator_part(id, at)), log.segments().collect());
            }
            operators.insert(id, state.meta());
        }
        let mut outboxes = BTreeMap::new();
        for outbox in &self.outboxes {
            let (meta, segments, sealed) = outbox.seal()?;
            image.logs.insert(self.part(&outbox_part(outbox.sink)), segments);
            image.sealed.push((outbox.clone(), sealed));
            outboxes.insert(outbox.sink.to_string(), meta);
        }
        metas.insert(
            self.id.to_string(),
            json!({ "outboxes": outboxes, "query": self.def.query, "statement": self.def.text, "operators": operators, "late_total": self.late_total, "failure": self.failure, "start": self.start, "waits_for_views": self.waits_for_views, "waits_for_tables": self.waits_for_tables }),
        );
        Ok(())
    }

    /// Takes the view's state from a checkpoint; `false` if the checkpoint does not know the view.
    pub fn restore(&mut self, checkpoint: &mut Restored) -> Result<bool> {
        let meta = checkpoint.meta["views"][self.id.to_string()].clone();
        if meta.is_null() {
            return Ok(false);
        }
        // The statement, and not what the dialect makes of it: that may differ after an upgrade. The first format had only the latter.
        let same = if meta["statement"].is_null() { meta["query"] == json!(self.def.query) } else { meta["statement"] == json!(self.def.text) };
        if !same {
            return Err(Error::Internal(format!("the checkpoint of view {} was made for another query", self.def.name)));
        }
        let broken = |e: serde_json::Error| Error::Internal(format!("the checkpoint of view {} can't be understood: {e}", self.def.name));
        self.waits_for_tables = meta["waits_for_tables"].as_bool().unwrap_or_default();
        self.waits_for_views = meta["waits_for_views"].as_bool().unwrap_or_default();
        self.late_total = meta["late_total"].as_u64().unwrap_or_default();
        self.failure = serde_json::from_value(meta["failure"].clone()).map_err(broken)?;
        self.start = serde_json::from_value(meta["start"].clone()).map_err(broken)?;
        let mut take = |name: String| checkpoint.logs.remove(&name).unwrap_or_default();
        for (sink, meta) in meta["outboxes"].as_object().into_iter().flatten() {
            let sink = sink.parse().map_err(|_| Error::Internal(format!("the checkpoint of view {} names a sink {sink}", self.def.name)))?;
            let kept = Outbox::restore(sink, &self.plan.schema, meta, take(self.part(&outbox_part(sink))))?;
            self.outboxes.push(Arc::new(kept));
        }
        self.late = SegmentLog::restore(self.late.schema().clone(), take(self.part("late")))?;
        let (rows, schema, changing) = (take(self.part("contents")), self.plan.schema.clone(), self.plan.changing);
        let states: Vec<_> = self
            .states
            .iter()
            .map(|(id, state)| {
                let logs = state.lock().logs().len();
                let rows: Vec<_> = (0..logs).map(|at| take(self.part(&operator_part(id, at)))).collect();
                (state, rows, &meta["operators"][id.to_string()])
            })
            .collect();
        // Both build an index over all of their rows, which is most of what a restart with a large state waits for.
        let contents = std::thread::scope(|scope| {
            let contents = scope.spawn(|| Contents::restore(SegmentLog::restore(schema, rows)?, changing));
            for (state, rows, meta) in states {
                let mut state = state.lock();
                let logs = state.logs().into_iter().zip(rows).map(|(log, rows)| SegmentLog::restore(log.schema().clone(), rows)).collect::<Result<_>>()?;
                state.restore(logs, meta)?;
            }
            contents.join().map_err(|_| Error::Internal(format!("restoring view {} panicked", self.def.name)))?
        })?;
        self.contents = Some(contents);
        if let Some(every) = &mut self.every {
            // What had changed since the last time is shown with what a restart finds.
            every.shown = self.contents.as_ref().map(Contents::snapshot);
        }
        Ok(true)
    }

    /// What it holds, as a change that brings it all.
    pub fn holds(&self) -> Result<Vec<RecordBatch>> {
        let Some(contents) = &self.contents else { return Ok(vec![]) };
        let batches = contents.snapshot().batches().collect::<Result<Vec<_>>>()?.into_iter().filter(|batch| batch.num_rows() > 0);
        if !self.plan.changing {
            return Ok(batches.collect());
        }
        let weighted = |batch: RecordBatch| {
            let mut fields = batch.schema_ref().fields().to_vec();
            fields.push(weight_field());
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(Int64Array::from_value(1, batch.num_rows())));
            Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
        };
        batches.map(weighted).collect()
    }

    /// Checks an epoch's output against the contents. `is_read`: by other views.
    pub fn stage(&self, output: Vec<RecordBatch>, is_read: bool) -> Result<StagedView> {
        let change = self.contents.as_ref().map(|contents| contents.stage(&output)).transpose()?;
        let swap = self.replaces.as_ref().map(|replaced| replaced.swap(self, &output, is_read)).transpose()?;
        Ok(StagedView { output, change, late: vec![], swap })
    }

    /// Makes an epoch part of the view; returns what changed, for those who follow it.
    pub fn commit(&mut self, epoch: u64, now_ms: i64, staged: StagedView) -> Result<EpochChanges> {
        self.states.commit()?;
        if let (Some(contents), Some(change)) = (&mut self.contents, staged.change) {
            contents.commit(change)?;
        }
        for late in staged.late {
            self.late_total += late.num_rows() as u64;
            self.late.append(late);
        }
        self.late.keep_newest(self.def.options.late_rows.unwrap_or(LATE_ROWS));
        self.late.compact()?;
        (self.waits_for_tables, self.tables) = (false, Tables::default());
        for outbox in &self.outboxes {
            outbox.push(epoch, &staged.output)?;
            if outbox.is_over() {
                outbox.give_up(epoch, &self.holds()?)?;
            }
        }
        let output = staged.output.into_iter().filter(|b| b.num_rows() > 0);
        let Some(every) = &mut self.every else { return Ok(EpochChanges { epoch, batches: output.collect() }) };
        every.pending.extend(output);
        // A clock that was set back must not keep it waiting.
        let due = every.last_ms.is_none_or(|last| now_ms >= last.saturating_add(every.interval_ms) || now_ms < last);
        let held: usize = every.pending.iter().map(RecordBatch::num_rows).sum();
        if due || held > 2 * every.consolidated + PENDING_ROWS {
            every.pending = consolidate(std::mem::take(&mut every.pending), self.plan.changing, self.plan.key.as_deref())?;
            every.consolidated = every.pending.iter().map(RecordBatch::num_rows).sum();
        }
        if !due {
            return Ok(EpochChanges { epoch, batches: Arc::new([]) });
        }
        every.last_ms = Some(now_ms);
        every.shown = self.contents.as_ref().map(Contents::snapshot);
        every.consolidated = 0;
        Ok(EpochChanges { epoch, batches: std::mem::take(&mut every.pending).into() })
    }

    /// When it emits what has changed; in milliseconds since 1970. `None`: there is nothing to wait for.
    pub fn emits_at(&self) -> Option<i64> {
        let every = self.every.as_ref().filter(|every| !every.pending.is_empty())?;
        Some(every.last_ms?.saturating_add(every.interval_ms))
    }

    /// What it holds now, whatever readers see.
    pub fn rows(&self) -> Snapshot {
        self.contents.as_ref().map_or_else(|| SegmentLog::new(self.plan.schema.clone()).snapshot(), Contents::snapshot)
    }

    /// What readers see.
    pub fn shown_rows(&self) -> Snapshot {
        match &self.every {
            Some(Every { shown: Some(shown), .. }) => shown.clone(),
            // It has not emitted yet.
            Some(Every { shown: None, .. }) => SegmentLog::new(self.plan.schema.clone()).snapshot(),
            None => self.rows(),
        }
    }

    /// What has changed since readers were told of changes.
    pub fn pending(&self) -> &[RecordBatch] {
        self.every.as_ref().map_or(&[], |every| &every.pending)
    }

    /// The view as readers and checkpoints know it: the one whose place it is about to take, if there is one.
    pub fn standing(&self) -> &ViewRuntime {
        self.replaces.as_ref().map_or(self, |replaced| &replaced.old)
    }

    /// Goes on with what another definition of the view has come to: operators with their states under other numbers, late rows,
    /// and, where all of it is kept, the rows. `moved`: the operators' numbers, before and after.
    pub fn take_over(&mut self, old: &ViewRuntime, kept: &Kept, moved: &[(OperatorId, OperatorId)]) -> Result<()> {
        let states = Arc::get_mut(&mut self.states).ok_or_else(|| Error::Internal("a view that has not run is running".into()))?;
        for (before, after) in moved {
            states.adopt(*after, old.states.get(*before)?.clone());
        }
        if self.late.schema() != old.late.schema() {
            return Err(Error::Invalid(format!("the late rows of view {} have other columns now", self.def.name)));
        }
        let stored = |schema: &SchemaRef, log: &SegmentLog| -> Result<SegmentLog> {
            let segment = |(id, segment): (u64, Arc<Segment>)| {
                let options = RecordBatchOptions::new().with_row_count(Some(segment.batch.num_rows()));
                let batch = RecordBatch::try_new_with_options(schema.clone(), segment.batch.columns().to_vec(), &options)?;
                Ok(StoredSegment { id, batch, tombstones: segment.tombstones().to_vec() })
            };
            SegmentLog::restore(schema.clone(), log.segments().map(segment).collect::<Result<Vec<_>>>()?)
        };
        self.late = stored(old.late.schema(), &old.late)?;
        self.late_total = old.late_total;
        if let (Kept::Whole, Some(held)) = (kept, &old.contents) {
            self.contents = Some(Contents::restore(stored(&self.plan.schema, held.log())?, self.plan.changing)?);
        }
        self.start = old.start.clone();
        (self.waits_for_views, self.waits_for_tables) = (false, false);
        Ok(())
    }

    /// Holds these rows from the start: what its plan gives over what operators that go on have answered. No epoch, and nothing that followers
    /// are told.
    pub fn begin_with(&mut self, output: &[RecordBatch]) -> Result<()> {
        self.states.commit()?;
        if let Some(contents) = &mut self.contents {
            contents.commit(contents.stage(output)?)?;
        }
        Ok(())
    }

    /// The schema of its late rows.
    pub fn late_schema(&self) -> arrow::datatypes::SchemaRef {
        self.late.schema().clone()
    }

    /// Bytes that its operators, its contents and its late rows hold, about.
    pub fn bytes(&self) -> usize {
        let operators: usize = self.states.iter().map(|(_, state)| state.lock().bytes()).sum();
        self.contents.as_ref().map_or(0, Contents::bytes) + self.late.bytes() + operators
    }

    /// What readers see from now on.
    pub fn publish(&self) -> PublishedView {
        let (bytes, mut state_rows) = (self.bytes(), 0);
        for (id, state) in self.states.iter() {
            let state = state.lock();
            if let Some(figures) = self.states.figures().operator(id) {
                figures.holds(state.rows(), state.bytes());
            }
            state_rows += state.rows();
        }
        PublishedView {
            id: self.id,
            contents: self.shown_rows(),
            late: self.late.snapshot(),
            late_total: self.late_total,
            failure: self.failure.clone(),
            changes: self.changes.clone(),
            outboxes: self.outboxes.clone(),
            plan: self.plan.clone(),
            bytes,
            state_rows,
            figures: self.states.figures().clone(),
            start: self.start.clone(),
        }
    }
}
