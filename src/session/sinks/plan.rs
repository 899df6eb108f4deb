//! What a sink's query gives: filters and projections over one continuous view, and what names its rows.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, new_null_array},
    datatypes::{DataType, Field, Int64Type, Schema},
    record_batch::RecordBatch,
};
use datafusion::{
    execution::runtime_env::RuntimeEnv,
    logical_expr::{Expr, LogicalPlan},
};

use crate::{
    access::Caller,
    catalog::{Definition, Envelope, Object, SinkDef, SinkTarget, ViewOptions},
    error::{Error, Result},
    session::{
        engine::{Engine, object_name},
        names::{Names, Purpose},
        subscribe::run_over,
    },
    sink::records::{Given, RecordMaker, Shape},
    sql,
    stream::{
        hidden::{PAIR, WEIGHT},
        outbox::Piece,
        plan::{ViewPlan, plan_view, planning_state},
    },
};

/// A planned sink.
pub(in crate::session) struct PlannedSink {
    /// What it gives.
    pub shape: Shape,
    /// The columns, as positions, whose values are folders.
    pub partition_by: Vec<usize>,
    plan: ViewPlan,
    runtime: Arc<RuntimeEnv>,
}

impl Engine {
    /// Plans a sink out of what somebody may read, without any effect.
    pub(in crate::session) async fn plan_sink(self: &Arc<Self>, caller: &Caller, def: &SinkDef) -> Result<PlannedSink> {
        let name = &def.name;
        let state = planning_state(&Names::state(self.clone(), Purpose::Changes, caller));
        let query = sql::parse_query(&def.query)?;
        let named = state.resolve_table_references(&sql::query_statement(query.clone()))?;
        let is_view = |name: &str| matches!(self.catalog().get(name), Some(Object { definition: Definition::View(_), .. }));
        if !named.iter().filter_map(object_name).any(|named| self.catalog().get(named).is_some()) {
            return Err(Error::NotFound(format!("sink {name} reads a continuous view, and its query names none that there is")));
        }
        let plan = plan_view(&state, query, None, &ViewOptions { unbounded_state: true, ..ViewOptions::default() }).await?;
        let view = match plan.inputs.keys().collect::<Vec<_>>().as_slice() {
            [view] if is_view(view) => view.to_string(),
            _ => {
                return Err(Error::Unsupported(format!(
                    "sink {name} reads one continuous view: put its query into one (CREATE CONTINUOUS VIEW), and write that"
                )));
            }
        };
        if !plan.operators.is_empty() || plan.times || !plan.tables.is_empty() {
            return Err(Error::Unsupported(format!(
                "sink {name} can filter and compute, but not join, aggregate or follow the clock: do that in a continuous view (CREATE CONTINUOUS VIEW), and write that"
            )));
        }
        let standing = self.board_of(&view).and_then(|(board, _)| board.current().views.get(&view).map(|view| view.plan.clone()));
        let standing = standing.ok_or_else(|| Error::External(format!("view {view} is not running: SHOW VIEWS says why")))?;
        // A row that goes may have been NULL where none of those that come can be.
        let open: Vec<Field> = plan.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let schema = Arc::new(Schema::new(open));
        let position = |option: &str, column: &String| {
            schema.index_of(column).map_err(|_| {
                let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                Error::Invalid(format!("sink {name}: '{option}' names {column}, and its query gives {}: name one of those", known.join(", ")))
            })
        };
        let (mut key, mut partition_by) = (None, vec![]);
        let envelope = match &def.target {
            SinkTarget::Kafka(sink) => {
                key = sink.key.as_ref().map(|key| key.iter().map(|column| position("key", column)).collect::<Result<Vec<_>>>()).transpose()?;
                sink.envelope
            }
            SinkTarget::Folder(sink) => {
                partition_by = sink.partition_by.iter().map(|column| position("partition_by", column)).collect::<Result<Vec<_>>>()?;
                if partition_by.len() >= schema.fields().len() {
                    return Err(Error::Invalid(format!("sink {name}: 'partition_by' names all columns, and files must have one at least")));
                }
                if standing.changing && sink.envelope == Envelope::Rows {
                    return Err(Error::Invalid(format!(
                        "sink {name}: rows of view {view} change, and files can't: say envelope = 'changes' to have each change with _op and _epoch, or write a view that emits on window close"
                    )));
                }
                sink.envelope
            }
        };
        if standing.changing && envelope == Envelope::Rows {
            key = Some(unique_key(name, &view, &plan, &standing, key)?);
        }
        let shape = Shape { sink: name.clone(), view, schema, key, changing: standing.changing, envelope };
        if let SinkTarget::Kafka(sink) = &def.target {
            RecordMaker::new(shape.clone(), sink.key_format.clone())?;
        }
        if let Some(field) = plan.schema.fields().iter().find(|field| field.data_type() == &DataType::Null) {
            return Err(Error::Invalid(format!("sink {name}: column {} has no type: cast it, as in CAST(NULL AS TEXT)", field.name())));
        }
        Ok(PlannedSink { shape, partition_by, plan, runtime: Arc::default() })
    }
}

/// The columns of the key of rows that come and go: such that no two rows have the same.
fn unique_key(sink: &str, view: &str, plan: &ViewPlan, standing: &ViewPlan, said: Option<Vec<usize>>) -> Result<Vec<usize>> {
    let given: Vec<Option<String>> = (0..plan.schema.fields().len()).map(|column| column_of_view(&plan.logical, column)).collect();
    let place = |column: &usize| given.iter().position(|given| given.as_deref() == Some(standing.schema.field(*column).name()));
    let own: Option<Vec<usize>> = standing.key.as_ref().and_then(|key| key.iter().map(place).collect());
    let names = |columns: &[usize]| columns.iter().map(|at| plan.schema.field(*at).name().as_str()).collect::<Vec<_>>().join(", ");
    match (&own, said) {
        (Some(own), None) => Ok(own.clone()),
        (Some(own), Some(said)) if own.iter().all(|at| said.contains(at)) => Ok(said),
        (Some(own), Some(said)) => Err(Error::Invalid(format!(
            "sink {sink}: several rows of view {view} may have the same ({}), and a record would take another row's place: say key = '{}'",
            names(&said),
            names(own)
        ))),
        (None, _) => Err(Error::Invalid(format!(
            "sink {sink}: rows of view {view} come and go, and its query gives nothing that names one: have it give all columns of the view's key (GROUP BY, PRIMARY KEY), or say envelope = 'changes' to have each change with _op and _epoch"
        ))),
    }
}

/// Which column of the view a column of the query is, if it is one as it stands, in rows that are the view's one by one.
fn column_of_view(plan: &LogicalPlan, column: usize) -> Option<String> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let mut expr = projection.expr.get(column)?;
            while let Expr::Alias(alias) = expr {
                expr = &alias.expr;
            }
            let Expr::Column(below) = expr else { return None };
            column_of_view(&projection.input, projection.input.schema().index_of_column(below).ok()?)
        }
        LogicalPlan::Filter(filter) => column_of_view(&filter.input, column),
        LogicalPlan::SubqueryAlias(alias) => column_of_view(&alias.input, column),
        LogicalPlan::TableScan(scan) => Some(scan.projected_schema.field(column).name().clone()),
        _ => None,
    }
}

impl PlannedSink {
    /// What the query gives of a piece.
    pub async fn given(&self, piece: &Piece) -> Result<Given> {
        let width = piece.rows.num_columns() - 1;
        let rows = piece.rows.project(&(0..width).collect::<Vec<_>>())?;
        let weights = piece.rows.column(width).as_primitive::<Int64Type>().clone();
        let numbers = Int64Array::from_iter_values((piece.begin..piece.end()).map(|number| number as i64));
        let Some(given) = run_over(&self.plan, &self.shape.view, &rows, weights, numbers, &self.runtime).await? else {
            let none = Int64Array::from(Vec::<i64>::new());
            return Ok(Given { rows: RecordBatch::new_empty(self.shape.schema.clone()), weights: none.clone(), numbers: none });
        };
        let hidden = |name: &str| {
            let column = given.column_by_name(name).ok_or_else(|| Error::Internal(format!("a sink's plan has lost column {name}")))?;
            Ok::<_, Error>(column.as_primitive::<Int64Type>().clone())
        };
        let columns = self.shape.schema.fields().iter().zip(given.columns()).map(|(field, column)| fitting(column, field)).collect::<Result<Vec<_>>>()?;
        Ok(Given { rows: RecordBatch::try_new(self.shape.schema.clone(), columns)?, weights: hidden(WEIGHT)?, numbers: hidden(PAIR)? })
    }
}

fn fitting(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Null => Ok(new_null_array(field.data_type(), column.len())),
        same if same == field.data_type() => Ok(column.clone()),
        _ => Ok(arrow::compute::cast(column, field.data_type())?),
    }
}
