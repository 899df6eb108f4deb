//! `CREATE TABLE`: the rows are durable before the catalog has the name.

use std::sync::Arc;

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{logical_expr::LogicalPlan, physical_plan::execute_stream, scalar::ScalarValue, sql::parser::Statement as DataFusionStatement};
use futures::{Stream, StreamExt};

use super::hook;
use crate::{
    access::Caller,
    catalog::{Definition, ObjectKind, TableColumn, TableDef, kept_type},
    error::{Error, Result},
    session::{
        engine::{Engine, blocking, not_replaced},
        result_schema::result_schema,
        statement::Session,
    },
    sql::{self, Taken},
    stream::failpoints::{Point, pass},
    tables::{Change, Conform, RowWriter, TableStore},
};

impl Engine {
    /// Makes a table without rows.
    pub(in crate::session) async fn create_table(self: &Arc<Self>, caller: &Caller, def: TableDef, taken: Taken) -> Result<()> {
        if self.is_left(caller, &def.name, taken)? {
            return Ok(());
        }
        let (id, store) = self.new_table(&def).await?;
        self.declare_table(caller, def, id, store, Change::default(), taken).await.map(|_| ())
    }

    /// Whether a table of this name is there and stays; an error if the name is taken otherwise.
    pub(in crate::session) fn is_left(&self, caller: &Caller, name: &str, taken: Taken) -> Result<bool> {
        let replaced = if taken == Taken::Replaced { self.changeable(caller, name)? } else { None };
        if replaced.is_none() {
            self.check_create(caller, name)?;
        }
        match (replaced, taken) {
            (Some(object), Taken::Replaced) if object.definition.object_kind() != ObjectKind::Table => Err(not_replaced(&object, "table")),
            (Some(object), Taken::Replaced) => {
                let readers = self.catalog.dependents(object.definition.name());
                match readers.is_empty() {
                    true => Ok(false),
                    false => Err(Error::Invalid(format!("table {name} can't be replaced, since {} read it: drop what reads it first", readers.join(", ")))),
                }
            }
            (_, taken) => self.is_taken_for(caller, name, taken == Taken::Left),
        }
    }

    /// The files of a table that is not declared yet. They go unless it is.
    pub(in crate::session) async fn new_table(self: &Arc<Self>, def: &TableDef) -> Result<(u64, Arc<TableStore>)> {
        let (engine, name, schema) = (self.clone(), def.name.clone(), def.schema());
        blocking(move || {
            let id = engine.catalog.reserve()?;
            let store = TableStore::create(&name, schema, engine.tables.folder_of(id), hook())?;
            Ok((id, store))
        })
        .await?
    }

    /// Makes a table's first rows durable and declares it. Whether it was; not, where there is one that is left.
    pub(in crate::session) async fn declare_table(
        self: &Arc<Self>,
        caller: &Caller,
        def: TableDef,
        id: u64,
        store: Arc<TableStore>,
        rows: Change,
        taken: Taken,
    ) -> Result<bool> {
        let turn = store.turn().await;
        let committed = store.clone();
        blocking(move || committed.commit(&turn, rows)).await??;
        pass(Point::TableUndeclared);
        let _declaring = self.declare().await;
        if self.is_left(caller, &def.name, taken)? {
            return Ok(false);
        }
        let replaced = self.catalog.get(&def.name).map(|object| object.id);
        if replaced.is_none() {
            // What a crash has left of another one of this name.
            self.access.forget_object(&def.name)?;
        }
        self.catalog.create_reserved(id, caller.who.name(), Definition::Table(Arc::new(def)), vec![], taken == Taken::Replaced)?;
        store.keep();
        self.tables.add(id, store);
        if let Some(replaced) = replaced {
            self.tables.forget(replaced);
        }
        Ok(true)
    }

    /// Makes a table of rows, whose columns are as they come unless they are declared. How many rows there were; `None` where there is a table that
    /// is left.
    pub(in crate::session) async fn table_of_rows(
        self: &Arc<Self>,
        caller: &Caller,
        name: &str,
        taken: Taken,
        columns: Columns<'_>,
        rows: impl Stream<Item = Result<RecordBatch>> + Send,
    ) -> Result<Option<u64>> {
        sql::check_table_name(name)?;
        if self.is_left(caller, name, taken)? {
            return Ok(None);
        }
        let def = match columns {
            Columns::Declared(def) => def,
            Columns::Of(schema) => declared(name, schema)?,
        };
        let (id, store) = self.new_table(&def).await?;
        let mut conform = Conform::by_position(&format!("table {name}"), store.schema());
        let mut writer = RowWriter::start(store.clone(), self.memory());
        futures::pin_mut!(rows);
        while let Some(batch) = rows.next().await {
            writer.write(conform.rows(&batch?)?).await?;
        }
        let (add, count) = writer.finish().await?;
        let declared = self.declare_table(caller, def, id, store, Change { add, remove: vec![] }, taken).await?;
        Ok(declared.then_some(count))
    }
}

/// The columns that a table of rows has.
pub(in crate::session) enum Columns<'a> {
    /// Those of the rows.
    Of(&'a SchemaRef),
    /// These; the rows' are put into them by their place.
    Declared(TableDef),
}

/// The table that has the columns of a result.
fn declared(name: &str, schema: &SchemaRef) -> Result<TableDef> {
    let columns = schema.fields().iter().map(|field| {
        let data_type = kept_type(field.data_type()).map_err(|advice| Error::Unsupported(format!("table {name}, column {}: {advice}", field.name())))?;
        Ok(TableColumn { name: field.name().clone(), data_type, nullable: true, default: None })
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let text = sql::declaration(name, &columns)?;
    Ok(TableDef { name: name.into(), columns, text })
}

impl Session {
    /// `CREATE TABLE … AS`: how many rows it has, if it was made.
    pub(in crate::session) async fn create_table_as(
        &self,
        text: &str,
        name: &str,
        taken: Taken,
        declared: Option<TableDef>,
        query: DataFusionStatement,
        parameters: &[ScalarValue],
    ) -> Result<Option<u64>> {
        if self.engine.is_left(&self.caller, name, taken)? {
            return Ok(None);
        }
        let (state, plan, reads) = self.plan(query, None, parameters).await?;
        if matches!(plan, LogicalPlan::Dml(_)) {
            return Err(Error::Invalid("CREATE TABLE … AS takes a query: SELECT, VALUES or WITH".into()));
        }
        let running = self.engine.queries.begin(&self.caller, text, false, reads);
        let schema = result_schema(&plan, false)?;
        let columns = match declared {
            Some(def) if def.columns.len() != schema.fields().len() => {
                return Err(Error::Invalid(format!(
                    "table {name} is to have {} columns, and its query gives {}: name as many in both",
                    def.columns.len(),
                    schema.fields().len()
                )));
            }
            Some(def) => Columns::Declared(def),
            None => Columns::Of(&schema),
        };
        let work = async {
            let physical = state.create_physical_plan(&plan).await?;
            let rows = execute_stream(physical, state.task_ctx())?.map(|batch| batch.map_err(Error::from));
            self.engine.table_of_rows(&self.caller, name, taken, columns, rows).await
        };
        running.unless_killed(work).await?
    }
}
