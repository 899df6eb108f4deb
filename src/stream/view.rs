//! A running view: its plan, its state, what it holds.

use std::{collections::BTreeMap, sync::Arc};

use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    aggregate::GroupState,
    changes::{ChangeLog, EpochChanges},
    checkpoint::{Image, Restored},
    contents::{Contents, StagedChange},
    epoch::States,
    figures::ViewFigures,
    plan::{ViewPlan, aggregates},
    segments::{SegmentLog, Snapshot},
    side_rows::late_schema,
};
use crate::{
    catalog::{SourceDef, ViewDef},
    error::{Error, Result},
};

/// `<view>$late` keeps this many rows unless the view says otherwise.
const LATE_ROWS: usize = 100_000;

/// Why a view stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The epoch that could not be run.
    pub epoch: u64,
    /// Why, as a sentence.
    pub reason: String,
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
    /// Who follows it.
    pub changes: Arc<ChangeLog>,
    /// `None` for a subscription, which hands its changes on and holds nothing.
    contents: Option<Contents>,
    late: SegmentLog,
    late_total: u64,
}

/// A view as readers see it at one epoch.
#[derive(Debug, Clone)]
pub struct PublishedView {
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
        let mut states = States::default();
        let mut found = vec![];
        aggregates(&plan.physical, &mut found);
        for (operator, spec) in found {
            states.insert(operator, Arc::new(Mutex::new(GroupState::new(spec)?)));
        }
        Ok(Self {
            contents: Some(Contents::new(plan.schema.clone(), plan.changing)?),
            late: SegmentLog::new(late_schema(sources)),
            late_total: 0,
            failure: None,
            start,
            changes: Arc::new(ChangeLog::new(epoch)),
            states: Arc::new(states),
            def,
            id,
            plan,
        })
    }

    /// The same view, holding nothing: its changes are all that is wanted.
    pub fn without_contents(self) -> Self {
        Self { contents: None, ..self }
    }

    fn part(&self, name: &str) -> String {
        format!("view-{}/{name}", self.id)
    }

    /// Adds the view to a checkpoint.
    pub fn save(&self, image: &mut Image, metas: &mut BTreeMap<String, Value>) {
        if let Some(contents) = &self.contents {
            image.logs.insert(self.part("contents"), contents.log().segments().collect());
        }
        image.logs.insert(self.part("late"), self.late.segments().collect());
        let mut operators = BTreeMap::new();
        for (id, state) in self.states.iter() {
            let state = state.lock();
            image.logs.insert(self.part(&format!("operator-{id}")), state.log().segments().collect());
            operators.insert(id, state.meta());
        }
        metas.insert(
            self.id.to_string(),
            json!({ "query": self.def.query, "operators": operators, "late_total": self.late_total, "failure": self.failure, "start": self.start }),
        );
    }

    /// Takes the view's state from a checkpoint; `false` if the checkpoint does not know the view.
    pub fn restore(&mut self, checkpoint: &mut Restored) -> Result<bool> {
        let meta = checkpoint.meta["views"][self.id.to_string()].clone();
        if meta.is_null() {
            return Ok(false);
        }
        if meta["query"] != json!(self.def.query) {
            return Err(Error::Internal(format!("the checkpoint of view {} was made for another query", self.def.name)));
        }
        let broken = |e: serde_json::Error| Error::Internal(format!("the checkpoint of view {} can't be understood: {e}", self.def.name));
        self.late_total = meta["late_total"].as_u64().unwrap_or_default();
        self.failure = serde_json::from_value(meta["failure"].clone()).map_err(broken)?;
        self.start = serde_json::from_value(meta["start"].clone()).map_err(broken)?;
        let mut take = |name: String| checkpoint.logs.remove(&name).unwrap_or_default();
        self.contents = Some(Contents::restore(SegmentLog::restore(self.plan.schema.clone(), take(self.part("contents")))?, self.plan.changing)?);
        self.late = SegmentLog::restore(self.late.schema().clone(), take(self.part("late")))?;
        for (id, state) in self.states.iter() {
            let mut state = state.lock();
            let log = SegmentLog::restore(state.log().schema().clone(), take(self.part(&format!("operator-{id}"))))?;
            state.restore(log, &meta["operators"][id.to_string()])?;
        }
        Ok(true)
    }

    /// Checks an epoch's output against the contents.
    pub fn stage(&self, output: Vec<RecordBatch>) -> Result<StagedView> {
        let change = self.contents.as_ref().map(|contents| contents.stage(&output)).transpose()?;
        Ok(StagedView { output, change, late: vec![] })
    }

    /// Makes an epoch part of the view; returns what changed, for those who follow it.
    pub fn commit(&mut self, epoch: u64, staged: StagedView) -> Result<EpochChanges> {
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
        Ok(EpochChanges { epoch, batches: staged.output.into_iter().filter(|b| b.num_rows() > 0).collect() })
    }

    /// The schema of its late rows.
    pub fn late_schema(&self) -> arrow::datatypes::SchemaRef {
        self.late.schema().clone()
    }

    /// What readers see from now on.
    pub fn publish(&self) -> PublishedView {
        let (mut bytes, mut state_rows) = (self.contents.as_ref().map_or(0, Contents::bytes) + self.late.bytes(), 0);
        for (id, state) in self.states.iter() {
            let state = state.lock();
            if let Some(figures) = self.states.figures().operator(id) {
                figures.holds(state.rows(), state.bytes());
            }
            bytes += state.bytes();
            state_rows += state.rows();
        }
        PublishedView {
            contents: self.contents.as_ref().map_or_else(|| SegmentLog::new(self.plan.schema.clone()).snapshot(), Contents::snapshot),
            late: self.late.snapshot(),
            late_total: self.late_total,
            failure: self.failure.clone(),
            changes: self.changes.clone(),
            plan: self.plan.clone(),
            bytes,
            state_rows,
            figures: self.states.figures().clone(),
            start: self.start.clone(),
        }
    }
}
