//! `INSERT`, `DELETE`, `UPDATE`, `TRUNCATE`: DataFusion plans which rows, and the table's store makes the change.
//!
//! A DELETE or UPDATE is the query for the rows that it touches, with the place where each stands: so its WHERE means what it means in a SELECT,
//! subqueries included. Files that have such rows are written anew without them.

use std::sync::Arc;

use arrow::{
    array::AsArray,
    datatypes::{DataType, Int64Type, UInt64Type},
    record_batch::RecordBatch,
};
use datafusion::{
    common::DFSchema,
    datasource::DefaultTableSource,
    execution::{SendableRecordBatchStream, SessionState},
    logical_expr::{
        DmlStatement, Expr, LogicalPlan, LogicalPlanBuilder, Projection, WriteOp, col,
        dml::InsertOp,
        logical_plan::{Filter, Limit, SubqueryAlias, Values},
    },
    physical_plan::execute_stream,
    scalar::ScalarValue,
};
use futures::TryStreamExt;

use super::produce;
use crate::{
    catalog::SourceDef,
    error::{Error, Result},
    session::{
        engine::{Engine, blocking},
        queries::Running,
        snapshot::UnreadableTable,
        topic::TopicTable,
    },
    tables::{Change, Conform, DataFile, FILE, Marks, ROW, RowWriter, StoredTable, TableStore, Turn, compact, without},
};

/// Whether rows of the statement's table can be changed in this way.
pub(in crate::session) fn check(dml: &DmlStatement) -> Result<()> {
    target(dml).map(|_| ())
}

/// What a statement changes.
enum Target {
    Table(StoredTable),
    Source(Arc<SourceDef>),
}

fn target(dml: &DmlStatement) -> Result<Target> {
    let provider = dml.target.downcast_ref::<DefaultTableSource>().map(|source| &source.table_provider);
    let name = dml.table_name.table();
    if let WriteOp::MergeInto(_) = dml.op {
        return Err(Error::Unsupported("MERGE is not supported: write UPDATE and INSERT".into()));
    }
    if let WriteOp::Insert(InsertOp::Replace) = dml.op {
        return Err(Error::Unsupported(format!("REPLACE INTO is not supported, since a table has no key: write DELETE FROM {name} WHERE … and INSERT")));
    }
    // A table, say, that another statement has dropped since its name was looked up.
    if let Some(table) = provider.and_then(|provider| provider.downcast_ref::<UnreadableTable>()) {
        return Err(Error::NotFound(table.reason().into()));
    }
    match provider {
        Some(provider) if provider.is::<StoredTable>() => {
            let table = provider.downcast_ref::<StoredTable>().cloned();
            table.map(Target::Table).ok_or_else(|| Error::Internal("a table became something else".into()))
        }
        Some(provider) if provider.is::<TopicTable>() => match (&dml.op, provider.downcast_ref::<TopicTable>().and_then(TopicTable::rows_of)) {
            (WriteOp::Insert(InsertOp::Append) | WriteOp::Delete, Some(source)) => Ok(Target::Source(source.clone())),
            (WriteOp::Update, Some(source)) if source.key.is_some() => Err(Error::Unsupported(format!(
                "a record of source {name} is not changed but followed by another one: INSERT the row with its key and its new values"
            ))),
            _ => Err(Error::Unsupported(format!("the topic of source {name} is only appended to: {} is for tables (CREATE TABLE)", dml.op))),
        },
        _ => Err(Error::Invalid(format!("the rows of {name} are not there to be changed: {} is for tables (CREATE TABLE)", dml.op))),
    }
}

/// Runs a statement that was planned, perhaps planning it `again`; how many rows it touched.
pub(in crate::session) async fn run<F: Future<Output = Result<(SessionState, LogicalPlan)>>>(
    engine: &Arc<Engine>,
    state: SessionState,
    plan: LogicalPlan,
    again: impl Fn() -> F,
    running: &Running,
) -> Result<u64> {
    let LogicalPlan::Dml(dml) = &plan else { return Err(Error::Internal("a query was to be run as a change".into())) };
    let table = match target(dml)? {
        Target::Table(table) => table,
        Target::Source(source) => {
            return match dml.op {
                WriteOp::Delete => running.unless_killed(produce::delete(dml, &source)).await?,
                _ => running.unless_killed(produce::insert(&state, dml, &source)).await?,
            };
        }
    };
    if let WriteOp::Insert(InsertOp::Append) = dml.op {
        let (add, count) = running.unless_killed(written(engine, &state, dml, &table)).await??;
        if count > 0 {
            let turn = running.unless_killed(table.store().turn()).await?;
            commit(engine, table.store(), turn, Change { add, remove: vec![] }).await?;
        }
        return Ok(count);
    }
    // Everything else looks at the rows that are there: they must stay what they are meanwhile.
    let turn = running.unless_killed(table.store().turn()).await?;
    let (state, plan) = match Arc::ptr_eq(table.snapshot(), &table.store().snapshot()) {
        true => (state, plan),
        false => again().await?,
    };
    let LogicalPlan::Dml(dml) = &plan else { return Err(Error::Internal("a change became a query".into())) };
    let now = match target(dml)? {
        Target::Table(now) if Arc::ptr_eq(now.store(), table.store()) => now,
        _ => return Err(Error::NotFound(format!("table {} was dropped meanwhile: nothing was changed", table.store().name()))),
    };
    let (change, count) = running.unless_killed(change(engine, &state, dml, &now)).await??;
    if !change.add.is_empty() || !change.remove.is_empty() {
        commit(engine, now.store(), turn, change).await?;
    }
    Ok(count)
}

/// The change that a statement makes to the rows that are there, and how many rows it touches.
async fn change(engine: &Arc<Engine>, state: &SessionState, dml: &DmlStatement, table: &StoredTable) -> Result<(Change, u64)> {
    let all = || table.snapshot().files().to_vec();
    match &dml.op {
        WriteOp::Insert(InsertOp::Overwrite) => {
            let (add, count) = written(engine, state, dml, table).await?;
            Ok((Change { add, remove: all() }, count))
        }
        WriteOp::Truncate => Ok((Change { add: vec![], remove: all() }, table.snapshot().rows())),
        WriteOp::Delete => delete(engine, state, dml, table).await,
        WriteOp::Update => update(engine, state, dml, table).await,
        other => Err(Error::Unsupported(format!("{other} is not supported"))),
    }
}

/// Writes the rows of an INSERT into files that are not part of the table yet.
async fn written(engine: &Arc<Engine>, state: &SessionState, dml: &DmlStatement, table: &StoredTable) -> Result<(Vec<Arc<DataFile>>, u64)> {
    check_values(&dml.input, &owner(table), &|name| table.store().schema().field_with_name(name).ok().map(|field| field.data_type().clone()))?;
    let mut rows = execute(state, &uncast(&dml.input)?).await?;
    let mut conform = Conform::by_position(&owner(table), table.store().schema());
    let mut writer = RowWriter::start(table.store().clone(), engine.memory());
    while let Some(batch) = rows.try_next().await? {
        writer.write(conform.rows(&batch)?).await?;
    }
    writer.finish().await
}

async fn delete(engine: &Arc<Engine>, state: &SessionState, dml: &DmlStatement, table: &StoredTable) -> Result<(Change, u64)> {
    let placed = with_places(&dml.input, dml, table)?;
    let places = LogicalPlanBuilder::from(placed).project(vec![col(FILE), col(ROW)])?.build()?;
    let mut rows = execute(state, &places).await?;
    let mut marks = Marks::default();
    while let Some(batch) = rows.try_next().await? {
        mark(&mut marks, &batch, table)?;
    }
    drop(rows);
    take_out(engine, table, marks, vec![]).await
}

async fn update(engine: &Arc<Engine>, state: &SessionState, dml: &DmlStatement, table: &StoredTable) -> Result<(Change, u64)> {
    let LogicalPlan::Projection(projection) = &*dml.input else {
        return Err(Error::Unsupported("this form of UPDATE is not supported: write UPDATE t SET a = … WHERE …".into()));
    };
    let placed = with_places(&projection.input, dml, table)?;
    let exprs = projection.expr.iter().map(without_cast).chain([col(FILE), col(ROW)]).collect::<Vec<_>>();
    let changed = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(placed))?);
    let mut rows = execute(state, &changed).await?;
    let mut conform = Conform::by_position(&owner(table), table.store().schema());
    let mut writer = RowWriter::start(table.store().clone(), engine.memory());
    let mut marks = Marks::default();
    while let Some(batch) = rows.try_next().await? {
        let width = batch.num_columns() - 2;
        mark(&mut marks, &batch.project(&[width, width + 1])?, table)?;
        writer.write(conform.rows(&batch)?).await?;
    }
    drop(rows);
    let (add, _) = writer.finish().await?;
    take_out(engine, table, marks, add).await
}

/// The change that takes marked rows out of a table and adds files; how many are marked.
async fn take_out(engine: &Arc<Engine>, table: &StoredTable, marks: Marks, add: Vec<Arc<DataFile>>) -> Result<(Change, u64)> {
    let count = marks.count();
    if count == 0 {
        return Ok((Change::default(), 0));
    }
    let (store, snapshot, room) = (table.store().clone(), table.snapshot().clone(), engine.memory().clone());
    let mut change = blocking(move || without(&store, &snapshot, &marks, &room)).await??;
    change.add.extend(add);
    Ok((change, count))
}

fn mark(marks: &mut Marks, places: &RecordBatch, table: &StoredTable) -> Result<()> {
    let (files, rows) = (places.column(0).as_primitive::<UInt64Type>(), places.column(1).as_primitive::<Int64Type>());
    for (file, row) in files.values().iter().zip(rows.values()) {
        marks.add(table.snapshot(), *file as usize, *row as usize)?;
    }
    Ok(())
}

/// Makes a change, and after it few files of many small ones. On a thread of its own: neither a client that hangs up nor a KILL stops it half way.
pub(super) async fn commit(engine: &Arc<Engine>, store: &Arc<TableStore>, turn: Turn, change: Change) -> Result<()> {
    let (store, room) = (store.clone(), engine.memory().clone());
    blocking(move || {
        store.commit(&turn, change)?;
        if let Err(error) = compact(&store, &turn, &room) {
            // The rows are there: the next change tries again.
            tracing::warn!(table = store.name(), "its small files stay many for now: {error}");
        }
        Ok(())
    })
    .await?
}

fn owner(table: &StoredTable) -> String {
    format!("table {}", table.store().name())
}

pub(super) async fn execute(state: &SessionState, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
    // Rows are written, and counted where one is wrong, in the order that they have at their source: dealing batches out to threads would lose it.
    let mut state = state.clone();
    state.config_mut().options_mut().optimizer.enable_round_robin_repartition = false;
    let physical = state.create_physical_plan(plan).await?;
    Ok(execute_stream(physical, state.task_ctx())?)
}

/// The plan of the touched rows, which also tells where they stand.
fn with_places(plan: &LogicalPlan, dml: &DmlStatement, table: &StoredTable) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::TableScan(scan) if scan.table_name == dml.table_name => {
            let source = Arc::new(DefaultTableSource::new(Arc::new(table.with_places())));
            LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?.build()?
        }
        LogicalPlan::Filter(filter) => LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::new(with_places(&filter.input, dml, table)?))?),
        LogicalPlan::SubqueryAlias(alias) => {
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(with_places(&alias.input, dml, table)?), alias.alias.clone())?)
        }
        LogicalPlan::Limit(limit) => {
            let input = Arc::new(with_places(&limit.input, dml, table)?);
            LogicalPlan::Limit(Limit { skip: limit.skip.clone(), fetch: limit.fetch.clone(), input })
        }
        _ => return Err(Error::Unsupported(format!("this form of {} is not supported: name the rows of one table in WHERE, perhaps with a subquery", dml.op))),
    })
}

/// The rows of an INSERT before they are cast to the table's types: whoever casts them can say which column was wrong.
fn uncast(plan: &LogicalPlan) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Projection(projection) => {
            let exprs = projection.expr.iter().map(without_cast).collect();
            LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(nullable_values(&projection.input)?))?)
        }
        other => other.clone(),
    })
}

/// VALUES in which NULL may stand: the planner gives them the table's own schema, and then NULL fails where nothing can name the column.
pub(super) fn nullable_values(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Values(values) = plan else { return Ok(plan.clone()) };
    let fields = values.schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(true)))).collect();
    let schema = Arc::new(DFSchema::new_with_metadata(fields, values.schema.metadata().clone())?);
    Ok(LogicalPlan::Values(Values { schema, values: values.values.clone() }))
}

/// A column of an INSERT or UPDATE without the planner's cast to the type of the table's column.
pub(super) fn without_cast(expr: &Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => match &*alias.expr {
            Expr::Cast(cast) => (*cast.expr).clone().alias(alias.name.clone()),
            _ => expr.clone(),
        },
        _ => expr.clone(),
    }
}

/// The rows of VALUES are cast where they stand: a constant that doesn't fit is told with its column.
pub(super) fn check_values(plan: &LogicalPlan, owner: &str, type_of: &dyn Fn(&str) -> Option<DataType>) -> Result<()> {
    let LogicalPlan::Projection(projection) = plan else { return Ok(()) };
    let LogicalPlan::Values(Values { values, .. }) = &*projection.input else { return Ok(()) };
    for expr in &projection.expr {
        let Expr::Alias(alias) = expr else { continue };
        let inner = match &*alias.expr {
            Expr::Cast(cast) => &*cast.expr,
            other => other,
        };
        let (Expr::Column(column), Some(data_type)) = (inner, type_of(&alias.name)) else { continue };
        // `columnN`, from 1.
        let Some(given) = column.name.strip_prefix("column").and_then(|number| number.parse::<usize>().ok()) else { continue };
        for (row, row_values) in values.iter().enumerate() {
            let Some(Expr::Cast(cast)) = row_values.get(given.wrapping_sub(1)) else { continue };
            let Expr::Literal(value, _) = &*cast.expr else { continue };
            if value.cast_to(&data_type).is_err() {
                return Err(Error::Invalid(format!("column {} of {owner} can't be '{}' in row {}, it is {data_type}", alias.name, shown(value), row + 1)));
            }
        }
    }
    Ok(())
}

fn shown(value: &ScalarValue) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
