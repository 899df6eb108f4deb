//! Schema `system`: what the server is doing, as tables like any other. `docs/system-tables.md` describes every column, and a test
//! below holds the page to it.
//!
//! Each table is made when a statement reads it. History (`epochs`, `checkpoints`) is in memory and bounded.

mod devices;
mod drift;
mod overview;
mod pipelines;
mod server;
mod sources;
mod tables;
mod views;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float64Array},
    datatypes::{DataType, Field, SchemaRef, TimeUnit},
    record_batch::RecordBatch,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{SchemaProvider, Session, TableProvider},
    common::{DataFusionError, Result as DataFusionResult},
    datasource::memory::MemorySourceConfig,
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};

pub use overview::{Overview, PartitionOverview, PipelineOverview, SourceOverview, ViewOverview};
pub use server::Setting;

use super::{engine::Engine, settings::Settings, show};
use crate::{access::Who, error::Result, sql::Show};

/// The schema's name.
pub const SYSTEM: &str = "system";

/// A table of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Sources with their state.
    Sources,
    /// Their partitions.
    Partitions,
    /// Running pipelines.
    Pipelines,
    /// Views with their state.
    Views,
    /// Sinks with how far they are.
    Sinks,
    /// Tables with what they hold.
    Tables,
    /// The pipelines' last epochs.
    Epochs,
    /// Stateful operators of running views.
    Operators,
    /// The pipelines' last checkpoints.
    Checkpoints,
    /// The CPU and the GPUs, and what was done on them.
    Devices,
    /// Running statements and subscriptions.
    Queries,
    /// Bad records of all sources that views read.
    Errors,
    /// Fields in which their records differ from the declaration.
    Drift,
    /// What the server and the session were told.
    Settings,
}

impl Table {
    /// All of them.
    pub const ALL: [Table; 14] = [
        Table::Sources,
        Table::Partitions,
        Table::Pipelines,
        Table::Views,
        Table::Sinks,
        Table::Tables,
        Table::Epochs,
        Table::Operators,
        Table::Checkpoints,
        Table::Devices,
        Table::Queries,
        Table::Errors,
        Table::Drift,
        Table::Settings,
    ];

    /// Its name within the schema.
    pub fn name(self) -> &'static str {
        match self {
            Table::Sources => "sources",
            Table::Partitions => "partitions",
            Table::Pipelines => "pipelines",
            Table::Views => "views",
            Table::Sinks => "sinks",
            Table::Tables => "tables",
            Table::Epochs => "epochs",
            Table::Operators => "operators",
            Table::Checkpoints => "checkpoints",
            Table::Devices => "devices",
            Table::Queries => "queries",
            Table::Errors => "errors",
            Table::Drift => "drift",
            Table::Settings => "settings",
        }
    }

    /// Its columns.
    pub fn schema(self) -> SchemaRef {
        match self {
            Table::Sources => show::schema(Show::Sources),
            Table::Views => show::schema(Show::Views),
            Table::Sinks => show::schema(Show::Sinks),
            Table::Queries => show::schema(Show::Queries),
            Table::Partitions => sources::partitions_schema(),
            Table::Devices => devices::schema(),
            Table::Errors => sources::errors_schema(),
            Table::Drift => drift::schema(),
            Table::Pipelines => pipelines::schema(),
            Table::Tables => tables::schema(),
            Table::Epochs => pipelines::epochs_schema(),
            Table::Checkpoints => pipelines::checkpoints_schema(),
            Table::Operators => views::operators_schema(),
            Table::Settings => server::settings_schema(),
        }
    }

    /// Its rows now.
    async fn rows(self, engine: &Arc<Engine>, who: &Who, session: &Settings) -> Result<Vec<RecordBatch>> {
        let columns = match self {
            Table::Sources => return Ok(vec![show::rows(engine, who, Show::Sources).await?]),
            Table::Views => return Ok(vec![show::rows(engine, who, Show::Views).await?]),
            Table::Sinks => return Ok(vec![show::rows(engine, who, Show::Sinks).await?]),
            Table::Queries => return Ok(vec![show::rows(engine, who, Show::Queries).await?]),
            Table::Errors => return sources::errors(engine, who),
            Table::Devices => devices::rows().await?,
            Table::Drift => drift::rows(engine, who),
            Table::Partitions => sources::partitions(engine, who),
            Table::Pipelines => pipelines::rows(engine, who),
            Table::Tables => tables::rows(engine, who),
            Table::Epochs => pipelines::epochs(engine, who),
            Table::Checkpoints => pipelines::checkpoints(engine, who),
            Table::Operators => views::operators(engine, who),
            Table::Settings => server::settings(engine, who, session),
        };
        Ok(vec![RecordBatch::try_new(self.schema(), columns)?])
    }
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn whole(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn real(name: &str) -> Field {
    Field::new(name, DataType::Float64, true)
}

fn flag(name: &str) -> Field {
    Field::new(name, DataType::Boolean, true)
}

/// A moment of the server's clock.
fn moment(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), true)
}

/// A moment of event time.
fn event_time(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Nanosecond, None), true)
}

/// A column of lengths of time, in milliseconds.
fn milliseconds(durations: impl Iterator<Item = std::time::Duration>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(durations.map(|duration| duration.as_secs_f64() * 1000.0)))
}

/// The schema as DataFusion sees it.
#[derive(Debug)]
pub struct SystemSchema {
    engine: Arc<Engine>,
    /// Whose rows they are.
    who: Who,
}

impl SystemSchema {
    /// The tables of this server, with the rows about what somebody may see.
    pub fn new(engine: Arc<Engine>, who: Who) -> Self {
        Self { engine, who }
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        Table::ALL.iter().map(|table| table.name().to_string()).collect()
    }

    async fn table(&self, name: &str) -> DataFusionResult<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let found = Table::ALL.into_iter().find(|table| table.name() == name);
        Ok(found.map(|table| Arc::new(SystemTable { table, engine: self.engine.clone(), who: self.who.clone() }) as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        Table::ALL.iter().any(|table| table.name() == name)
    }
}

#[derive(Debug)]
struct SystemTable {
    table: Table,
    engine: Arc<Engine>,
    who: Who,
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(&self, session: &dyn Session, projection: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let settings = session.config().get_extension::<Settings>().unwrap_or_default();
        let batches = self.table.rows(&self.engine, &self.who, &settings).await?;
        Ok(MemorySourceConfig::try_new_exec(&[batches], self.table.schema(), projection.cloned())?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sql_type(data_type: &DataType) -> &'static str {
        match data_type {
            DataType::Utf8 | DataType::Utf8View => "TEXT",
            DataType::Int64 => "BIGINT",
            DataType::Int32 => "INT",
            DataType::Float64 => "DOUBLE",
            DataType::Boolean => "BOOLEAN",
            DataType::Binary => "BYTEA",
            DataType::Timestamp(_, None) => "TIMESTAMP",
            other => panic!("say how {other} is written in docs/system-tables.md"),
        }
    }

    /// Under each table's heading the page lists the table's columns with their types, in order, each with a description.
    #[test]
    fn the_page_lists_the_columns_that_there_are() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/system-tables.md")).unwrap();
        let mut described: Vec<(String, Vec<(String, String)>)> = vec![];
        for line in page.lines() {
            if let Some(name) = line.strip_prefix("## `system.").and_then(|rest| rest.strip_suffix('`')) {
                described.push((name.to_string(), vec![]));
            } else if line.starts_with("## ") {
                described.push((String::new(), vec![]));
            } else if let (Some(row), Some((_, columns))) = (line.strip_prefix("| `"), described.last_mut()) {
                let cells: Vec<&str> = row.trim_end_matches('|').splitn(3, '|').map(str::trim).collect();
                assert!(cells.len() == 3 && cells[2].len() > 5, "no description: {line}");
                columns.push((cells[0].trim_end_matches('`').to_string(), cells[1].to_string()));
            }
        }
        described.retain(|(name, _)| !name.is_empty());
        let actual: Vec<(String, Vec<(String, String)>)> = Table::ALL
            .into_iter()
            .map(|table| {
                let columns = table.schema().fields().iter().map(|f| (f.name().clone(), sql_type(f.data_type()).to_string())).collect();
                (table.name().to_string(), columns)
            })
            .collect();
        assert_eq!(described, actual);
    }
}
