//! A snapshot as a table of a query: DataFusion's Parquet scan over its files, row counts exact.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Result as DataFusionResult, Statistics, stats::Precision},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource},
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    execution::object_store::ObjectStoreUrl,
    logical_expr::{Expr, TableType},
    parquet::arrow::RowNumber,
    physical_plan::{ExecutionPlan, empty::EmptyExec},
    scalar::ScalarValue,
};
use object_store::{ObjectMeta, path::Path};

use super::store::{Snapshot, TableStore};
use crate::{catalog::TableDef, error::Error};

/// The column that tells which file of the snapshot a row is from, where [`StoredTable::with_places`].
pub const FILE: &str = "__file";
/// The column that tells which row of the file it is.
pub const ROW: &str = "__row";

/// About so many bytes of files are worth a task.
const TASK_BYTES: u64 = 1 << 20;

/// A table as of one change.
#[derive(Debug, Clone)]
pub struct StoredTable {
    def: Arc<TableDef>,
    store: Arc<TableStore>,
    snapshot: Arc<Snapshot>,
    defaults: HashMap<String, Expr>,
    /// Rows tell where they stand.
    places: bool,
    schema: SchemaRef,
}

impl StoredTable {
    /// The table of this declaration with the rows of this snapshot.
    pub fn new(def: Arc<TableDef>, store: Arc<TableStore>, snapshot: Arc<Snapshot>) -> Self {
        let default = |column: &crate::catalog::TableColumn| Some((column.name.clone(), Expr::Literal(column.default.clone()?, None)));
        let defaults = def.columns.iter().filter_map(default).collect();
        let schema = def.schema();
        Self { def, store, snapshot, defaults, places: false, schema }
    }

    /// The same rows with the columns [`FILE`] and [`ROW`] behind the table's own.
    pub fn with_places(&self) -> Self {
        let fields = self.def.schema().fields().iter().cloned().chain([file_field(), row_field()]).collect::<Vec<_>>();
        Self { places: true, schema: Arc::new(Schema::new(fields)), ..self.clone() }
    }

    /// Its declaration.
    pub fn def(&self) -> &Arc<TableDef> {
        &self.def
    }

    /// Its files.
    pub fn store(&self) -> &Arc<TableStore> {
        &self.store
    }

    /// The rows that it has.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }
}

fn file_field() -> FieldRef {
    Arc::new(Field::new(FILE, DataType::UInt64, false))
}

fn row_field() -> FieldRef {
    Arc::new(Field::new(ROW, DataType::Int64, false).with_extension_type(RowNumber))
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_table_definition(&self) -> Option<&str> {
        Some(&self.def.text)
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.get(column)
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(counted(&self.schema, self.snapshot.rows()))
    }

    async fn scan(&self, state: &dyn Session, projection: Option<&Vec<usize>>, _: &[Expr], limit: Option<usize>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if self.snapshot.files().is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => self.schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let (mut files, mut bytes) = (vec![], 0);
        for (at, file) in self.snapshot.files().iter().enumerate() {
            let path = file.path();
            let location = Path::from_absolute_path(&path).map_err(|error| Error::External(format!("{} can't be named: {error}", path.display())))?;
            // A name is never used again, so what is remembered of a file by its name and time stays true.
            let meta = ObjectMeta { location, last_modified: chrono::DateTime::UNIX_EPOCH, size: file.bytes(), e_tag: None, version: None };
            bytes += file.bytes();
            let mut part = PartitionedFile::new_from_meta(meta);
            if self.places {
                part = part.with_partition_values(vec![ScalarValue::UInt64(Some(at as u64))]);
            }
            files.push(part.with_statistics(Arc::new(counted(&self.def.schema(), file.rows()))));
        }
        let mut columns = TableSchema::builder(self.def.schema());
        if self.places {
            columns = columns.with_table_partition_cols(vec![file_field()]).with_virtual_columns(vec![row_field()]);
        }
        let source = ParquetSource::new(columns.build()).with_table_parquet_options(state.table_options().parquet.clone());
        // What is small is read by one task, in the order in which it was written: more tasks would cost more than they read.
        let tasks = (bytes / TASK_BYTES + 1).min(state.config().target_partitions().max(1) as u64);
        let groups = match tasks {
            // Splitting sorts by name.
            1 => vec![FileGroup::new(files)],
            tasks => FileGroup::new(files).split_files(tasks as usize),
        };
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(counted(&self.schema, self.snapshot.rows()))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// So many rows, and nothing known of their columns: row groups and pages have their own figures, which the scan reads.
fn counted(schema: &Schema, rows: u64) -> Statistics {
    Statistics { num_rows: Precision::Exact(rows as usize), ..Statistics::new_unknown(schema) }
}
