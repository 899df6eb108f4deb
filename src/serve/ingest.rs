//! Bulk ingestion: what a client uploads, and into which table.

use arrow::record_batch::RecordBatch;
use arrow_flight::{
    FlightData,
    error::FlightError,
    sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption},
};
use futures::{Stream, StreamExt, TryStreamExt};
use tonic::Status;

use super::{
    status::{invalid, status},
    uploads::{Batches, unreadable},
};
use crate::{
    error::Error,
    session::{There, Upload},
};

/// The most bytes that one batch takes, written out.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// So many rows of a batch go on at a time: a table may have many columns more than what is uploaded.
const ROWS_AT_ONCE: usize = 1 << 16;

/// The one catalog and the one schema that tables are in.
const PLACE: (&str, &str) = ("tidegate", "public");

/// The upload that a command and the messages behind it are. Reads up to the first rows, which tell the columns.
pub(crate) async fn upload<S>(command: &CommandStatementIngest, messages: S) -> Result<Upload, Status>
where
    S: Stream<Item = Result<FlightData, Status>> + Send + 'static,
{
    if command.temporary {
        return Err(Status::unimplemented("there are no temporary tables: upload into an ordinary one, and DROP TABLE it when it is no longer needed"));
    }
    for (what, given, there) in [("catalog", command.catalog.as_deref(), PLACE.0), ("schema", command.schema.as_deref(), PLACE.1)] {
        if let Some(other) = given.filter(|given| !given.is_empty() && *given != there) {
            return Err(Status::not_found(format!("there is no {what} '{other}' that tables could be in: leave it out, or say '{there}'")));
        }
    }
    if let Some(option) = command.options.keys().min() {
        return Err(invalid(format!("the option '{option}' of an upload is unknown: leave it out")));
    }
    let (create, there) = mode(command.table_definition_options.as_ref())?;
    let mut batches = Batches::new(messages, MAX_BATCH_BYTES);
    let first = batches.next().await.transpose().map_err(|error| status(unreadable(&error, sentence)))?;
    let schema = batches.schema().cloned().ok_or_else(|| invalid("the upload has no columns: its first message holds a schema"))?;
    let rest = batches.map_err(|error| unreadable(&error, sentence));
    let rows = futures::stream::iter(first.map(Ok::<RecordBatch, Error>)).chain(rest);
    let rows = rows.map_ok(|batch| futures::stream::iter(parts(batch).map(Ok))).try_flatten().boxed();
    Ok(Upload { table: command.table.clone(), create, there, schema, rows })
}

fn parts(batch: RecordBatch) -> impl Iterator<Item = RecordBatch> {
    (0..batch.num_rows()).step_by(ROWS_AT_ONCE).map(move |from| batch.slice(from, ROWS_AT_ONCE.min(batch.num_rows() - from)))
}

fn sentence(error: &FlightError) -> String {
    format!("the uploaded rows can't be read, or broke off: {error}; none of them was kept")
}

fn mode(options: Option<&TableDefinitionOptions>) -> Result<(bool, There), Status> {
    let unspecified =
        || invalid("the upload does not say what to do where the table is there, or where it is not: set the mode (create, append, replace, create_append)");
    let options = options.ok_or_else(unspecified)?;
    let create = match TableNotExistOption::try_from(options.if_not_exist) {
        Ok(TableNotExistOption::Create) => true,
        Ok(TableNotExistOption::Fail) => false,
        _ => return Err(unspecified()),
    };
    let there = match TableExistsOption::try_from(options.if_exists) {
        Ok(TableExistsOption::Fail) => There::Refuse,
        Ok(TableExistsOption::Append) => There::Append,
        Ok(TableExistsOption::Replace) => There::Replace,
        _ => return Err(unspecified()),
    };
    Ok((create, there))
}
