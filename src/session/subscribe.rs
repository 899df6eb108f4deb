//! Subscriptions: results that never end. Over a view: its rows at one epoch, then every change. Over a source: a pipeline of the
//! subscription's own, from the source's start on. `_op` and `_epoch` come last.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, StringViewArray, new_null_array},
    compute::concat_batches,
    datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
    row::{RowConverter, SortField},
};
use datafusion::{
    execution::{SendableRecordBatchStream, TaskContext, runtime_env::RuntimeEnv},
    physical_plan::{collect, execution_plan::reset_plan_states, stream::RecordBatchStreamAdapter},
    prelude::SessionConfig,
};
use tokio::sync::mpsc;

use super::{
    engine::{Engine, object_name},
    names::{Names, Purpose},
    queries::Running,
};
use crate::{
    access::Caller,
    catalog::{Definition, Emit, Object, ViewOptions},
    error::{Error, Result},
    source::FeedState,
    sql,
    stream::{
        changes::{ChangeLog, EpochChanges, Follower, consolidate},
        driver::Driver,
        epoch::{EpochInput, States},
        hidden::{PAIR, WEIGHT, pair_field, weight_field},
        plan::{ViewPlan, plan_view, planning_state},
        published::Board,
        time::{BEGINNING, WatermarkStep},
        view::Tables,
    },
};

/// A planned subscription.
#[derive(Debug)]
pub struct Subscription {
    plan: ViewPlan,
    /// The rows of the tables that it reads.
    tables: Tables,
    over: Over,
    emit: Emit,
    /// The objects that its query names.
    pub reads: BTreeSet<String>,
    /// The result's columns: the query's, `_op`, `_epoch`.
    pub schema: SchemaRef,
}

#[derive(Debug)]
enum Over {
    /// A continuous view's changes.
    View(String),
    /// A source.
    Source,
}

impl Subscription {
    /// Plans a query, without any effect.
    pub async fn plan(engine: &Arc<Engine>, caller: &Caller, query: &str, emit: Emit) -> Result<Self> {
        let state = planning_state(&Names::state(engine.clone(), Purpose::Changes, caller));
        let query = sql::parse_query(query)?;
        // Its state goes with the subscription, so the user need not say that nothing bounds it.
        let options = ViewOptions { unbounded_state: true, ..ViewOptions::default() };
        let named = state.resolve_table_references(&sql::query_statement(query.clone()))?;
        let reads = engine.objects_named(named.iter().filter_map(object_name).map(String::from));
        let reads_view = reads_a_view(engine, &state, &query)?;
        let plan = plan_view(&state, query, if reads_view { None } else { Some(emit) }, &options).await?;
        let views: Vec<&String> =
            plan.inputs.keys().filter(|name| matches!(engine.catalog().get(name), Some(Object { definition: Definition::View(_), .. }))).collect();
        let over = match views.as_slice() {
            [] if plan.inputs.is_empty() => return Err(Error::Invalid("a subscription reads a view or a source".into())),
            [] => Over::Source,
            [view] if plan.inputs.len() == 1 => Over::View(view.to_string()),
            _ => return Err(Error::Unsupported("a subscription reads one view, or one source: subscribe to each alone".into())),
        };
        if let Over::View(name) = &over
            && (!plan.operators.is_empty() || plan.times)
        {
            return Err(Error::Unsupported(format!(
                "a subscription over view {name} can filter and compute, but not aggregate or follow the clock (now(), proctime()), yet: do that in a continuous view, or in a plain SELECT"
            )));
        }
        if let (Over::View(name), Emit::OnWindowClose) = (&over, emit)
            && let Some((board, _)) = engine.board_of(name)
            && board.current().views.get(name).is_some_and(|v| v.plan.emit != Emit::OnWindowClose)
        {
            return Err(Error::Invalid(format!("view {name} emits changes: subscribe to it with EMIT CHANGES")));
        }
        let mut fields = plan.schema.fields().to_vec();
        fields.push(Arc::new(Field::new("_op", DataType::Utf8View, false)));
        fields.push(Arc::new(Field::new("_epoch", DataType::Int64, false)));
        let schema = Arc::new(Schema::new(fields));
        let tables = plan.table_rows().await?;
        Ok(Self { plan, tables, over, emit, reads, schema })
    }

    /// Starts it. Dropping the stream stops the work.
    pub fn start(self, engine: &Arc<Engine>, running: Running) -> Result<SendableRecordBatchStream> {
        let (output, mut input) = mpsc::channel::<Result<RecordBatch>>(4);
        let schema = self.schema.clone();
        match self.over {
            Over::View(name) => {
                let (board, _) = engine.board_of(&name).ok_or_else(|| Error::NotFound(format!("there is no view {name}")))?;
                let changes = board.current().views.get(&name).map(|v| v.changes.clone()).ok_or_else(|| Error::NotFound(format!("there is no view {name}")))?;
                let every = match self.emit {
                    Emit::Every(interval) => Some(interval),
                    Emit::Changes | Emit::OnWindowClose => None,
                };
                let follower = FollowView { name, board, changes, every, plan: self.plan, schema: schema.clone(), output, runtime: Arc::default() };
                tokio::spawn(async move {
                    follower.run().await;
                    drop(running);
                });
            }
            Over::Source => {
                let ops = Ops { schema: schema.clone(), changing: self.plan.changing, key: self.plan.key.clone() };
                let options = ViewOptions { unbounded_state: true, ..ViewOptions::default() };
                let (driver, follower) = engine.start_private("subscription", self.plan, self.tables, options)?;
                tokio::spawn(async move {
                    follow_source(&driver, follower, ops, output).await;
                    if let Err(error) = driver.stop(false).await {
                        tracing::warn!("a subscription's pipeline did not stop cleanly: {error}");
                    }
                    drop(running);
                });
            }
        }
        let stream = futures::stream::poll_fn(move |context| input.poll_recv(context).map(|next| next.map(|batch| batch.map_err(Into::into))));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

fn reads_a_view(engine: &Engine, state: &datafusion::execution::SessionState, query: &datafusion::sql::sqlparser::ast::Query) -> Result<bool> {
    let references = state.resolve_table_references(&sql::query_statement(query.clone()))?;
    Ok(references.iter().filter_map(object_name).any(|name| matches!(engine.catalog().get(name), Some(Object { definition: Definition::View(_), .. }))))
}

/// One who follows a view through a query over it.
struct FollowView {
    name: String,
    board: Arc<Board>,
    changes: Arc<ChangeLog>,
    /// Changes are given together, each time so much time has passed.
    every: Option<Duration>,
    plan: ViewPlan,
    schema: SchemaRef,
    output: mpsc::Sender<Result<RecordBatch>>,
    runtime: Arc<RuntimeEnv>,
}

impl FollowView {
    async fn run(self) {
        let output = self.output.clone();
        let work = self.follow();
        tokio::select! {
            result = work => if let Err(error) = result {
                // The client may have gone.
                let _ = output.send(Err(error)).await;
            },
            () = output.closed() => {}
        }
    }

    async fn follow(self) -> Result<()> {
        let gone = || Error::Cancelled(format!("view {} was dropped", self.name));
        // Follow first, then look: every change after the epoch that is seen is held from now on.
        let mut follower = self.changes.follow();
        let published = self.board.current();
        let view = published.views.get(&self.name).ok_or_else(gone)?;
        if let Some(failure) = &view.failure {
            return Err(Error::Cancelled(format!("view {} failed in epoch {}: {}", self.name, failure.epoch, failure.reason)));
        }
        let mut epoch = published.epoch;
        for rows in view.contents.batches() {
            let rows = rows?;
            let weights = Int64Array::from(vec![1; rows.num_rows()]);
            let pairs = Int64Array::from(vec![-1; rows.num_rows()]);
            if !self.give(&rows, weights, pairs, epoch).await? {
                return Ok(());
            }
        }
        let schema = view.plan.schema.clone();
        drop(published);
        let mut last = Instant::now();
        loop {
            let changes = match self.every {
                None => follower.next(epoch).await?,
                Some(interval) => {
                    let gathered = gather(&mut follower, epoch, last, interval).await?;
                    last = Instant::now();
                    let Some(newest) = gathered.last().map(|change| change.epoch) else { continue };
                    let batches = gathered.iter().flat_map(|change| change.batches.iter());
                    let batches = batches.map(|batch| with_weights(&schema, batch)).collect::<Result<Vec<_>>>()?;
                    vec![EpochChanges { epoch: newest, batches: consolidate(batches, true, self.key().as_deref())?.into() }]
                }
            };
            for change in changes {
                epoch = change.epoch;
                let key = self.key();
                for batch in change.batches.iter() {
                    let batch = with_weights(&schema, batch)?;
                    let width = schema.fields().len();
                    let rows = batch.project(&(0..width).collect::<Vec<_>>())?;
                    let weights = batch.column(width).as_primitive::<Int64Type>().clone();
                    let pairs = pair_up(&rows, Some(&weights), key.as_deref())?;
                    if !self.give(&rows, weights, pairs, epoch).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// What names a row of the view: another definition may have taken its place.
    fn key(&self) -> Option<Vec<usize>> {
        self.board.current().views.get(&self.name)?.plan.key.clone()
    }

    /// Runs the query over some of the view's rows; whether anybody still listens.
    async fn give(&self, rows: &RecordBatch, weights: Int64Array, pairs: Int64Array, epoch: u64) -> Result<bool> {
        let mut fields = rows.schema_ref().fields().to_vec();
        let mut columns = rows.columns().to_vec();
        fields.extend([weight_field(), pair_field()]);
        columns.extend([Arc::new(weights) as ArrayRef, Arc::new(pairs)]);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        let input = EpochInput {
            rows: Arc::new(HashMap::from([(self.name.clone(), vec![batch])])),
            watermarks: Arc::default(),
            // No operator of its plan asks for the time.
            time: WatermarkStep { before: BEGINNING, after: BEGINNING },
            quiet: false,
            states: Arc::new(States::default()),
        };
        let config = SessionConfig::new().with_target_partitions(1).with_extension(Arc::new(input));
        let none = HashMap::new;
        let context = TaskContext::new(None, "subscription".into(), config, none(), HashMap::new(), HashMap::new(), HashMap::new(), self.runtime.clone());
        let results = collect(reset_plan_states(self.plan.physical.clone())?, Arc::new(context)).await?;
        // In one batch, so that no update is torn at a border.
        if let Some(first) = results.first() {
            let result = concat_batches(first.schema_ref(), &results)?;
            let batch = with_ops(&result, &self.schema, epoch)?;
            if batch.num_rows() > 0 && self.output.send(Ok(batch)).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A view's changes with their weights, also where rows only come.
fn with_weights(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let width = schema.fields().len();
    // A row that goes may have been NULL where none of those that come can be.
    let mut fields: Vec<FieldRef> = schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
    fields.push(weight_field());
    let mut columns = batch.columns()[..width].to_vec();
    columns.push(match batch.columns().get(width) {
        Some(weights) => weights.clone(),
        None => Arc::new(Int64Array::from(vec![1; batch.num_rows()])),
    });
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The changes after an epoch until an interval since the last time is over, and on until there are any.
async fn gather(follower: &mut Follower, mut epoch: u64, last: Instant, interval: Duration) -> Result<Vec<EpochChanges>> {
    let due = tokio::time::Instant::from_std(last + interval);
    let mut gathered = vec![];
    loop {
        let Ok(changes) = tokio::time::timeout_at(due, follower.next(epoch)).await else {
            if gathered.is_empty() {
                gathered = follower.next(epoch).await?;
            }
            return Ok(gathered);
        };
        let changes = changes?;
        epoch = changes.last().map_or(epoch, |change| change.epoch);
        gathered.extend(changes);
    }
}

/// How a private pipeline's changes become rows of a subscription.
struct Ops {
    schema: SchemaRef,
    changing: bool,
    key: Option<Vec<usize>>,
}

async fn follow_source(driver: &Driver, mut follower: Follower, ops: Ops, output: mpsc::Sender<Result<RecordBatch>>) {
    let work = async {
        let mut epoch = 0;
        loop {
            for change in follower.next(epoch).await? {
                epoch = change.epoch;
                if !give_changes(&change, &ops, &output).await? {
                    return Ok::<(), Error>(());
                }
            }
        }
    };
    tokio::select! {
        result = work => if let Err(error) = result {
            // The client may have gone.
            let _ = output.send(Err(error)).await;
        },
        reason = failure_of(driver) => {
            // The client may have gone.
            let _ = output.send(Err(Error::External(reason))).await;
        },
        () = output.closed() => {}
    }
}

/// Waits until a private pipeline can't go on, and says why.
async fn failure_of(driver: &Driver) -> String {
    loop {
        let status = driver.status();
        let failed = status.feeds.into_values().find_map(|feed| match feed.state {
            FeedState::Failed(reason) => Some(reason),
            FeedState::Running | FeedState::Connecting(_) => None,
        });
        if let Some(reason) = status.failure.or(failed) {
            return reason;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

async fn give_changes(change: &EpochChanges, ops: &Ops, output: &mpsc::Sender<Result<RecordBatch>>) -> Result<bool> {
    // In one batch, so that no update is torn at a border.
    if let Some(first) = change.batches.first() {
        let batch = concat_batches(first.schema_ref(), change.batches.iter())?;
        let mut fields = batch.schema_ref().fields().to_vec();
        let mut columns = batch.columns().to_vec();
        if ops.changing {
            let width = batch.num_columns() - 1;
            let rows = batch.project(&(0..width).collect::<Vec<_>>())?;
            let pairs = pair_up(&rows, Some(batch.column(width).as_primitive::<Int64Type>()), ops.key.as_deref())?;
            fields.push(pair_field());
            columns.push(Arc::new(pairs));
        }
        let batch =
            RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &RecordBatchOptions::new().with_row_count(Some(batch.num_rows())))?;
        let batch = with_ops(&batch, &ops.schema, change.epoch)?;
        if batch.num_rows() > 0 && output.send(Ok(batch)).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which rows are the two halves of one update: a row taken away directly before one added under the same key.
fn pair_up(rows: &RecordBatch, weights: Option<&Int64Array>, key: Option<&[usize]>) -> Result<Int64Array> {
    let mut pairs = vec![-1; rows.num_rows()];
    if let (Some(weights), Some(key)) = (weights, key)
        && !key.is_empty()
    {
        let columns: Vec<ArrayRef> = key.iter().map(|c| rows.column(*c).clone()).collect();
        let converter = RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect())?;
        let keys = converter.convert_columns(&columns)?;
        for row in 1..rows.num_rows() {
            if weights.value(row - 1) < 0 && weights.value(row) > 0 && keys.row(row - 1) == keys.row(row) {
                (pairs[row - 1], pairs[row]) = (row as i64, row as i64);
            }
        }
    } else if let (Some(weights), Some([])) = (weights, key) {
        // A global aggregate has one row: any -1 before a +1 is its update.
        for row in 1..rows.num_rows() {
            if weights.value(row - 1) < 0 && weights.value(row) > 0 {
                (pairs[row - 1], pairs[row]) = (row as i64, row as i64);
            }
        }
    }
    Ok(Int64Array::from(pairs))
}

/// Replaces weight and pair by `_op` and `_epoch`. An update of which a filter kept only one half is an insert or a delete.
fn with_ops(batch: &RecordBatch, schema: &SchemaRef, epoch: u64) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let visible = schema.fields().len() - 2;
    let ops: StringViewArray = match (batch.column_by_name(WEIGHT), batch.column_by_name(PAIR)) {
        (Some(weights), Some(pairs)) => {
            let (weights, pairs) = (weights.as_primitive::<Int64Type>(), pairs.as_primitive::<Int64Type>());
            let same = |a: usize, b: usize| pairs.value(a) >= 0 && pairs.value(a) == pairs.value(b);
            (0..rows)
                .map(|row| {
                    Some(match weights.value(row) > 0 {
                        true if row > 0 && same(row - 1, row) => "update_after",
                        true => "insert",
                        false if row + 1 < rows && same(row, row + 1) => "update_before",
                        false => "delete",
                    })
                })
                .collect()
        }
        _ => (0..rows).map(|_| Some("insert")).collect(),
    };
    let mut columns: Vec<ArrayRef> = batch.columns()[..visible].to_vec();
    columns.push(Arc::new(ops));
    columns.push(Arc::new(Int64Array::from(vec![epoch as i64; rows])));
    for (column, field) in columns.iter_mut().zip(schema.fields()) {
        fit(column, field)?;
    }
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn fit(column: &mut ArrayRef, field: &FieldRef) -> Result<()> {
    if column.data_type() == &DataType::Null {
        *column = new_null_array(field.data_type(), column.len());
    } else if column.data_type() != field.data_type() {
        *column = arrow::compute::cast(column, field.data_type())?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn changes(rows: &[(&str, i64, i64)]) -> (RecordBatch, Int64Array) {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8View, true), Field::new("v", DataType::Int64, true)]));
        let batch = RecordBatch::try_new(
            schema,
            vec![Arc::new(StringViewArray::from_iter_values(rows.iter().map(|r| r.0))), Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)))],
        )
        .unwrap();
        (batch, Int64Array::from_iter_values(rows.iter().map(|r| r.2)))
    }

    fn ops(rows: &[(&str, i64, i64)], key: Option<&[usize]>, keep: &[usize]) -> Vec<String> {
        let (batch, weights) = changes(rows);
        let pairs = pair_up(&batch, Some(&weights), key).unwrap();
        let mut fields = batch.schema_ref().fields().to_vec();
        fields.extend([weight_field(), pair_field()]);
        let mut columns = batch.columns().to_vec();
        columns.extend([Arc::new(weights) as ArrayRef, Arc::new(pairs)]);
        let all = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let kept = arrow::compute::take_record_batch(&all, &arrow::array::UInt64Array::from_iter_values(keep.iter().map(|k| *k as u64))).unwrap();
        let mut out = batch.schema_ref().fields().to_vec();
        out.push(Arc::new(Field::new("_op", DataType::Utf8View, false)));
        out.push(Arc::new(Field::new("_epoch", DataType::Int64, false)));
        let result = with_ops(&kept, &Arc::new(Schema::new(out)), 7).unwrap();
        result.column(2).as_string_view().iter().map(|s| s.unwrap().to_string()).collect()
    }

    #[test]
    fn halves_of_an_update_are_told_from_inserts_and_deletes() {
        let rows = [("a", 1, -1), ("a", 2, 1), ("b", 1, 1), ("c", 1, -1), ("d", 1, 1)];
        assert_eq!(ops(&rows, Some(&[0]), &[0, 1, 2, 3, 4]), ["update_before", "update_after", "insert", "delete", "insert"]);
        assert_eq!(ops(&rows, None, &[0, 1, 2, 3, 4]), ["delete", "insert", "insert", "delete", "insert"]);
    }

    #[test]
    fn a_filter_that_keeps_one_half_makes_it_an_insert_or_a_delete() {
        let rows = [("a", 1, -1), ("a", 2, 1), ("b", 1, -1), ("b", 2, 1)];
        assert_eq!(ops(&rows, Some(&[0]), &[0, 3]), ["delete", "insert"], "halves of different updates are no update");
        assert_eq!(ops(&rows, Some(&[0]), &[1]), ["insert"]);
    }
}
