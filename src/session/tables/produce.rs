//! `INSERT INTO` a source, `DELETE FROM` one with a primary key, and uploads into one: records for its topic.
//!
//! A topic is only ever appended to: an INSERT returns when the broker has acknowledged every record, and what fails tells how many it had. A DELETE sends
//! a tombstone for each key that it names, whether a row of that key is there or not.

use std::sync::Arc;

use arrow::{
    datatypes::{Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::{
    execution::SessionState,
    logical_expr::{BinaryExpr, DmlStatement, Expr, LogicalPlan, Operator, Projection, utils::split_conjunction},
    scalar::ScalarValue,
    sql::parser::Statement as DataFusionStatement,
};
use futures::{StreamExt, stream::BoxStream};

use super::dml::{check_values, execute, nullable_values, without_cast};
use crate::{
    catalog::{Origin, SourceDef, TableColumn, TableDef},
    error::{Error, Result},
    session::engine::Engine,
    source::{RecordEncoder, RecordProducer, not_written, ready_to_write},
    sql,
    tables::Conform,
};

/// A DELETE that would send more tombstones than this is more likely a mistake.
const MOST_KEYS: usize = 1_000_000;

/// The columns of a source that records can be given, if it has others, too: those that an INSERT without a list of columns means.
fn insertable(source: &SourceDef) -> Option<Vec<String>> {
    let given: Vec<String> = source.columns.iter().filter(|column| matches!(column.origin, Origin::Payload { .. })).map(|c| c.name.clone()).collect();
    (given.len() < source.columns.len()).then_some(given)
}

impl Engine {
    /// An INSERT into a source that names no columns means those that a record can be given.
    pub(in crate::session) fn name_insert_columns(&self, statement: &mut DataFusionStatement) {
        sql::name_insert_columns(statement, |name| insertable(&*self.source_def(name)?));
    }
}

/// `INSERT INTO` a source; how many records were written.
pub(super) async fn insert(state: &SessionState, dml: &DmlStatement, source: &SourceDef) -> Result<u64> {
    let LogicalPlan::Projection(projection) = &*dml.input else {
        return Err(Error::Unsupported("this form of INSERT is not supported: write INSERT INTO t (a, b) VALUES … or SELECT …".into()));
    };
    // A column that the statement does not name is a constant NULL here.
    let given = |expr: &&Expr| !matches!(without_cast(expr).unalias(), Expr::Literal(value, _) if value.is_null());
    let exprs: Vec<Expr> = projection.expr.iter().filter(given).map(without_cast).collect();
    let names: Vec<String> = exprs.iter().map(|expr| expr.schema_name().to_string()).collect();
    let columns = positions(source, names.iter().map(String::as_str))?;
    let wanted = schema_of(source, &columns);
    check_values(&dml.input, &format!("source {}", source.name), &|name| wanted.field_with_name(name).ok().map(|field| field.data_type().clone()))?;
    let input = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(nullable_values(&projection.input)?))?);
    let rows = execute(state, &input).await?.map(|batch| batch.map_err(Error::from));
    let conform = Conform::by_position(&format!("source {}", source.name), &wanted);
    produce(source, &columns, conform, rows.boxed()).await
}

/// The rows of an upload as records; how many were written.
pub(super) async fn upload(source: &SourceDef, given: &SchemaRef, rows: BoxStream<'static, Result<RecordBatch>>) -> Result<u64> {
    let columns = positions(source, given.fields().iter().map(|field| field.name().as_str()))?;
    let column = |&at: &usize| {
        let column = &source.columns[at];
        TableColumn { name: column.name.clone(), data_type: column.data_type.clone(), nullable: true, default: None }
    };
    let def = TableDef { name: source.name.clone(), columns: columns.iter().map(column).collect(), text: String::new() };
    produce(source, &columns, Conform::by_name("source", &def, given)?, rows).await
}

async fn produce(source: &SourceDef, columns: &[usize], mut conform: Conform, mut rows: BoxStream<'static, Result<RecordBatch>>) -> Result<u64> {
    ready_to_write(source).await?;
    let mut encoder = RecordEncoder::of_rows(source, columns)?;
    let mut producer = RecordProducer::start(&source.kafka);
    let outcome = loop {
        let encoded = match rows.next().await {
            None => break Ok(()),
            Some(batch) => batch.and_then(|batch| encoder.encode(&conform.rows(&batch)?)),
        };
        match encoded {
            Ok(records) => producer.send(records).await?,
            Err(error) => break Err(error),
        }
    };
    // What was given to the producer is written also where a later row is wrong.
    let written = producer.finish().await?;
    match outcome {
        Ok(()) => Ok(written),
        Err(error) if written == 0 => Err(error),
        Err(Error::Invalid(why)) => Err(Error::Invalid(format!("{why}; {written} rows before it were written to the topic, which can't be undone"))),
        Err(error) => Err(Error::External(format!("{error}; {written} rows before it were written to the topic, which can't be undone"))),
    }
}

/// `DELETE FROM` a source with a primary key: a tombstone for each key that WHERE names.
pub(super) async fn delete(dml: &DmlStatement, source: &SourceDef) -> Result<u64> {
    let Some(key) = &source.key else {
        return Err(Error::Unsupported(format!(
            "source {0} is a log, nothing can be deleted from it: declare it with a PRIMARY KEY to have its records be rows that a tombstone deletes",
            source.name
        )));
    };
    let names = source.key_names();
    let refused = |why: &str| {
        Error::Unsupported(format!(
            "a DELETE from source {} names the rows by their whole key, as in WHERE {}: {why}",
            source.name,
            names.iter().map(|name| format!("{name} = …")).collect::<Vec<_>>().join(" AND ")
        ))
    };
    let LogicalPlan::Filter(filter) = &*dml.input else { return Err(refused("without a WHERE it would have to read the topic for its keys")) };
    let mut values: Vec<Option<Vec<ScalarValue>>> = vec![None; key.columns.len()];
    for condition in split_conjunction(&filter.predicate) {
        let (column, found) = named_values(condition).ok_or_else(|| refused(&format!("{condition} is neither an equality nor an IN of constants")))?;
        let at = names.iter().position(|name| *name == column).ok_or_else(|| refused(&format!("{column} is not part of it")))?;
        if values[at].replace(found).is_some() {
            return Err(refused(&format!("{column} is named twice")));
        }
    }
    let mut rows: Vec<Vec<ScalarValue>> = vec![vec![]];
    for (at, found) in values.into_iter().enumerate() {
        let Some(found) = found else { return Err(refused(&format!("{} is missing", names[at]))) };
        let column = &source.columns[key.columns[at]];
        let mut fitting: Vec<ScalarValue> = vec![];
        // Nothing equals NULL.
        for value in found.into_iter().filter(|value| !value.is_null()) {
            let cast = value.cast_to(&column.data_type);
            let cast =
                cast.map_err(|_| Error::Invalid(format!("column {} of source {} can't be '{value}', it is {}", column.name, source.name, column.data_type)))?;
            if !fitting.contains(&cast) {
                fitting.push(cast);
            }
        }
        if rows.len().saturating_mul(fitting.len()) > MOST_KEYS {
            return Err(refused(&format!("more than {MOST_KEYS} keys are named")));
        }
        rows = rows.iter().flat_map(|row| fitting.iter().map(move |value| row.iter().cloned().chain([value.clone()]).collect())).collect();
    }
    if rows.is_empty() {
        return Ok(0);
    }
    let columns = (0..key.columns.len()).map(|at| Ok(ScalarValue::iter_to_array(rows.iter().map(|row| row[at].clone()))?)).collect::<Result<Vec<_>>>()?;
    let batch = RecordBatch::try_new(schema_of(source, &key.columns), columns)?;
    ready_to_write(source).await?;
    let tombstones = RecordEncoder::new(source, &key.columns)?.tombstones(&batch)?;
    let mut producer = RecordProducer::start(&source.kafka);
    producer.send(tombstones).await?;
    producer.finish().await
}

/// The values that a condition lets a column have, if it is an equality or an IN of constants.
fn named_values(condition: &Expr) -> Option<(String, Vec<ScalarValue>)> {
    fn constant(expr: &Expr) -> Option<ScalarValue> {
        match expr {
            Expr::Literal(value, _) => Some(value.clone()),
            Expr::Negative(inner) => constant(inner)?.arithmetic_negate().ok(),
            Expr::Cast(cast) => constant(&cast.expr)?.cast_to(cast.field.data_type()).ok(),
            _ => None,
        }
    }
    fn column(expr: &Expr) -> Option<String> {
        match expr {
            Expr::Column(column) => Some(column.name.clone()),
            _ => None,
        }
    }
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (column(left), column(right)) {
            (Some(name), None) => Some((name, vec![constant(right)?])),
            (None, Some(name)) => Some((name, vec![constant(left)?])),
            _ => None,
        },
        Expr::InList(list) if !list.negated => Some((column(&list.expr)?, list.list.iter().map(constant).collect::<Option<Vec<_>>>()?)),
        _ => None,
    }
}

/// Where a source declares these columns, which a statement or upload gives.
fn positions<'a>(source: &SourceDef, names: impl Iterator<Item = &'a str>) -> Result<Vec<usize>> {
    let mut positions: Vec<usize> = vec![];
    for name in names {
        let known = || source.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let at = source.column_index(name).ok_or_else(|| Error::Invalid(format!("source {} has no column {name}: it has {}", source.name, known())))?;
        if !matches!(source.columns[at].origin, Origin::Payload { .. }) {
            return Err(not_written(&source.name, name));
        }
        if positions.contains(&at) {
            return Err(Error::Invalid(format!("the column {name} of source {} is given twice: leave one out", source.name)));
        }
        positions.push(at);
    }
    Ok(positions)
}

fn schema_of(source: &SourceDef, columns: &[usize]) -> SchemaRef {
    let field = |&at: &usize| Field::new(&source.columns[at].name, source.columns[at].data_type.clone(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}
