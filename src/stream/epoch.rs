//! What one epoch brings to a plan. Plans hold neither data nor state: both travel in the task context, so that one plan runs
//! for every epoch and nothing is lost when it is reset.

use std::{any::Any, collections::HashMap, sync::Arc};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    common::{Result as DataFusionResult, internal_err},
    execution::TaskContext,
};
use parking_lot::Mutex;

use super::{
    figures::ViewFigures,
    segments::SegmentLog,
    time::{Timeline, WatermarkStep},
};
use crate::error::{Error, Result};

/// Which operator of a view: stable across restarts, since the plan numbers them in the same order each time.
pub type OperatorId = u32;

/// Everything that one execution of one view's plan needs.
#[derive(Debug)]
pub struct EpochInput {
    /// For each source the rows of this epoch, in partition and offset order.
    pub rows: Arc<HashMap<String, Vec<RecordBatch>>>,
    /// For each source with event time its watermark before and after the epoch.
    pub watermarks: Arc<HashMap<String, WatermarkStep>>,
    /// Where the clock stood in the epoch before, and where it stands in this one.
    pub time: WatermarkStep,
    /// The sources have been quiet for as long as the view waits: all open windows close.
    pub quiet: bool,
    /// The view's operators.
    pub states: Arc<States>,
}

impl EpochInput {
    /// The epoch that a task runs in.
    pub fn of(context: &TaskContext) -> DataFusionResult<Arc<EpochInput>> {
        match context.session_config().get_extension::<EpochInput>() {
            Some(epoch) => Ok(epoch),
            None => internal_err!("a streaming operator was executed outside an epoch"),
        }
    }

    /// How far windows move along: with several sources the slowest decides.
    pub fn step_of(&self, timeline: &Timeline) -> WatermarkStep {
        let sources = match timeline {
            Timeline::Event(sources) => sources,
            Timeline::Processing => return self.time,
        };
        let steps = sources.iter().map(|s| self.watermarks.get(s).copied().unwrap_or(WatermarkStep { before: i64::MIN, after: i64::MIN }));
        steps
            .reduce(|a, b| WatermarkStep { before: a.before.min(b.before), after: a.after.min(b.after) })
            .unwrap_or(WatermarkStep { before: i64::MIN, after: i64::MIN })
    }
}

/// What an operator remembers from epoch to epoch. An epoch's work is staged and takes effect only with `commit`, so that a view
/// that fails in mid-epoch stays at its last epoch.
pub trait OperatorState: Send + std::fmt::Debug {
    /// Makes the staged epoch part of the state.
    fn commit(&mut self) -> Result<()>;
    /// Forgets the staged epoch.
    fn abort(&mut self);
    /// The state's rows, for checkpoints: always as many logs, in the same order.
    fn logs(&self) -> Vec<&SegmentLog>;
    /// The rest of the state, small, for checkpoints.
    fn meta(&self) -> serde_json::Value;
    /// Takes the state from a checkpoint: the logs in the order of [`logs`](Self::logs).
    fn restore(&mut self, logs: Vec<SegmentLog>, meta: &serde_json::Value) -> Result<()>;
    /// Whether it holds windows of event time that nothing but further records closes.
    fn has_open_windows(&self) -> bool;
    /// The end of the last window of event time that it holds, in nanoseconds since 1970.
    fn last_window(&self) -> Option<i64> {
        None
    }
    /// When the clock alone will change what it gives, in nanoseconds since 1970.
    fn due(&self) -> Option<i64>;
    /// All that it has given so far, where its state tells that: as rows of its output, added. `None`: rows that were part of it are gone.
    fn answer(&self) -> Result<Option<Vec<RecordBatch>>> {
        Ok(None)
    }
    /// Keys held.
    fn rows(&self) -> usize;
    /// Bytes held.
    fn bytes(&self) -> usize;
    /// The operator itself, for the one that knows its type.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// A physical operator that keeps a state from epoch to epoch.
pub trait Operator {
    /// Its number within the view.
    fn id(&self) -> OperatorId;
    /// A state that holds nothing yet.
    fn state(&self) -> DataFusionResult<Arc<Mutex<dyn OperatorState>>>;
    /// Everything that it is made of beside its inputs, as text: operators over the same inputs that have the same do the same.
    fn spec(&self) -> Result<String>;
    /// Whether its state always tells all that it has given: see [`OperatorState::answer`].
    fn holds_its_answer(&self) -> bool {
        false
    }
    /// Whether neither a watermark nor the clock matters to it.
    fn is_timeless(&self) -> bool {
        false
    }
}

/// A row that came after its window had closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LateRow {
    /// Which row of the epoch's input: see [`row_locator`].
    pub row: u64,
    /// Start of the window it would have belonged to, in nanoseconds since 1970.
    pub window_start: i64,
    /// End of that window.
    pub window_end: i64,
    /// The watermark that had closed the window.
    pub watermark: i64,
}

/// Names a row of an epoch's input: source and batch by position, row within the batch.
pub fn row_locator(source: usize, batch: usize) -> u64 {
    (source as u64) << 56 | (batch as u64) << 32
}

/// The parts of a [`row_locator`] plus a row: source, batch, row.
pub fn locate(locator: u64) -> (usize, usize, usize) {
    ((locator >> 56) as usize, (locator >> 32 & 0x00ff_ffff) as usize, (locator & 0xffff_ffff) as usize)
}

/// The operators of one view, by id.
#[derive(Debug, Default)]
pub struct States {
    operators: HashMap<OperatorId, Arc<Mutex<dyn OperatorState>>>,
    late: Mutex<Vec<LateRow>>,
    figures: Arc<ViewFigures>,
}

impl States {
    /// Adds an operator.
    pub fn insert(&mut self, id: OperatorId, state: Arc<Mutex<dyn OperatorState>>) {
        self.operators.insert(id, state);
        self.figures.insert(id);
    }

    /// What the operators have done, for whoever looks inside.
    pub fn figures(&self) -> &Arc<ViewFigures> {
        &self.figures
    }

    /// An operator goes on with the state that it had under another number, or in another view.
    pub fn adopt(&mut self, id: OperatorId, state: Arc<Mutex<dyn OperatorState>>) {
        self.operators.insert(id, state);
    }

    /// The operator with this id.
    pub fn get(&self, id: OperatorId) -> DataFusionResult<&Arc<Mutex<dyn OperatorState>>> {
        match self.operators.get(&id) {
            Some(state) => Ok(state),
            None => internal_err!("operator {id} has no state"),
        }
    }

    /// All operators in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (OperatorId, &Arc<Mutex<dyn OperatorState>>)> {
        let mut ids: Vec<_> = self.operators.iter().map(|(id, state)| (*id, state)).collect();
        ids.sort_by_key(|(id, _)| *id);
        ids.into_iter()
    }

    /// An operator reports rows as late.
    pub fn report_late(&self, rows: impl IntoIterator<Item = LateRow>) {
        self.late.lock().extend(rows);
    }

    /// The rows reported since the last call, each once a window, however many branches of a plan met it.
    pub fn take_late(&self) -> Vec<LateRow> {
        let mut late = std::mem::take(&mut *self.late.lock());
        late.sort_unstable();
        late.dedup();
        late
    }

    /// When the clock alone will change what an operator gives, in nanoseconds since 1970.
    pub fn due(&self) -> Option<i64> {
        self.operators.values().filter_map(|state| state.lock().due()).min()
    }

    /// The end of the last window of event time that an operator holds, in nanoseconds since 1970.
    pub fn last_window(&self) -> Option<i64> {
        self.operators.values().filter_map(|state| state.lock().last_window()).max()
    }

    /// Whether an operator holds windows of event time that nothing but further records closes.
    pub fn has_open_windows(&self) -> bool {
        self.operators.values().any(|state| state.lock().has_open_windows())
    }

    /// Makes the staged epoch of every operator part of its state.
    pub fn commit(&self) -> Result<()> {
        self.operators.values().try_for_each(|state| state.lock().commit())
    }

    /// Forgets the staged epoch of every operator.
    pub fn abort(&self) {
        self.operators.values().for_each(|state| state.lock().abort());
        self.late.lock().clear();
    }
}

/// The state of an operator under the type that the operator knows.
pub fn state_as<T: 'static>(state: &mut dyn OperatorState) -> DataFusionResult<&mut T> {
    match state.as_any_mut().downcast_mut::<T>() {
        Some(state) => Ok(state),
        None => internal_err!("an operator found another one's state under its number"),
    }
}

/// The one log of a state that has one.
pub fn only_log(mut logs: Vec<SegmentLog>) -> Result<SegmentLog> {
    match (logs.pop(), logs.is_empty()) {
        (Some(log), true) => Ok(log),
        _ => Err(Error::Internal("a checkpoint's operator has another number of logs than it should".into())),
    }
}

/// The columns of a batch that a schema names, in its order.
pub fn select(batch: &RecordBatch, schema: &SchemaRef) -> DataFusionResult<RecordBatch> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| match batch.schema_ref().index_of(field.name()) {
            Ok(index) => Ok(batch.column(index).clone()),
            Err(_) => internal_err!("the epoch does not carry column {}", field.name()),
        })
        .collect::<DataFusionResult<Vec<_>>>()?;
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
