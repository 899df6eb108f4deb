//! Uploads of a client's rows: into a table, as a new one, or into a source as records of its topic.

use std::collections::BTreeSet;

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use futures::{StreamExt, stream::BoxStream};

use super::{create::Columns, dml::commit, produce};
use crate::{
    catalog::{Definition, Object, TableDef},
    error::{Error, Result},
    session::statement::Session,
    sql::Taken,
    tables::{Change, Conform, RowWriter},
};

/// Rows that a client uploads.
pub struct Upload {
    /// The table's name, as it is.
    pub table: String,
    /// Whether the table is made where there is none.
    pub create: bool,
    /// What is done where there is one.
    pub there: There,
    /// The columns of the rows.
    pub schema: SchemaRef,
    /// The rows. One that ends with an error leaves nothing.
    pub rows: BoxStream<'static, Result<RecordBatch>>,
}

/// What an upload does where there is a table of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// It fails.
    Refuse,
    /// Its rows come behind those of the table.
    Append,
    /// A table of its rows takes the table's place.
    Replace,
}

impl Session {
    /// Takes an upload; how many rows it had.
    pub async fn ingest(&self, upload: Upload) -> Result<u64> {
        let name = upload.table.clone();
        let running = self.engine.queries.begin(&self.caller, &format!("upload into {name}"), false, BTreeSet::from([name.clone()]));
        running.unless_killed(self.take(upload)).await?
    }

    async fn take(&self, upload: Upload) -> Result<u64> {
        let Upload { table: name, create, there, schema, rows } = upload;
        // Who may only read it may not add to it, and is told so; to whom it is not there it is not there.
        let object = match there {
            There::Append => self.engine.insertable(&self.caller, &name)?,
            There::Refuse | There::Replace => self.engine.seen(&self.caller.who, &name),
        };
        match object {
            None if !create => {
                Err(Error::NotFound(format!("there is no table {name} to upload into: use the mode 'create' or 'create_append', or CREATE TABLE it first")))
            }
            None => self.upload_as(&name, Taken::Refused, &schema, rows).await,
            Some(_) if there == There::Refuse => {
                Err(Error::AlreadyExists(format!("{name} exists already: use the mode 'append' or 'replace', or another name")))
            }
            Some(_) if there == There::Replace => self.upload_as(&name, Taken::Replaced, &schema, rows).await,
            Some(Object { id, definition: Definition::Table(def), .. }) => self.upload_into(&def, id, &schema, rows).await,
            Some(Object { definition: Definition::Source(def), .. }) => produce::upload(&def, &schema, rows).await,
            Some(object) => Err(Error::Invalid(format!("{name} is a {}: rows are uploaded into tables and sources", object.definition.kind()))),
        }
    }

    async fn upload_as(&self, name: &str, taken: Taken, schema: &SchemaRef, rows: BoxStream<'static, Result<RecordBatch>>) -> Result<u64> {
        let count = self.engine.table_of_rows(&self.caller, name, taken, Columns::Of(schema), rows).await?;
        count.ok_or_else(|| Error::Internal(format!("table {name} was left although it was to be made")))
    }

    async fn upload_into(&self, def: &TableDef, id: u64, schema: &SchemaRef, mut rows: BoxStream<'static, Result<RecordBatch>>) -> Result<u64> {
        let store = self.engine.tables.get(id)?;
        let mut conform = Conform::by_name("table", def, schema)?;
        let mut writer = RowWriter::start(store.clone(), self.engine.memory());
        while let Some(batch) = rows.next().await {
            writer.write(conform.rows(&batch?)?).await?;
        }
        let (add, count) = writer.finish().await?;
        if count > 0 {
            let turn = store.turn().await;
            commit(&self.engine, &store, turn, Change { add, remove: vec![] }).await?;
        }
        Ok(count)
    }
}
