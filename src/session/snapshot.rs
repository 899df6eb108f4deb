//! Rows at one epoch as a table: a view, its late rows, a source's bad records.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::Result,
    datasource::memory::MemorySourceConfig,
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};

use crate::{error::Error, stream::segments::Snapshot};

/// A snapshot as a table.
#[derive(Debug)]
pub struct SnapshotTable {
    snapshot: Snapshot,
}

impl SnapshotTable {
    /// A table of these rows, which stay as they are.
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot }
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        self.snapshot.schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(&self, _: &dyn Session, projection: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        let batches = self.snapshot.batches().collect::<crate::Result<Vec<_>>>()?;
        Ok(MemorySourceConfig::try_new_exec(&[batches], self.snapshot.schema().clone(), projection.cloned())?)
    }
}

/// A table that is known but can't be read now. Only reading it fails, so that whoever lists columns sees it like any other.
#[derive(Debug)]
pub struct UnreadableTable {
    schema: SchemaRef,
    reason: String,
}

impl UnreadableTable {
    /// A table of this schema; a query of it fails with this sentence.
    pub fn new(schema: SchemaRef, reason: String) -> Self {
        Self { schema, reason }
    }
}

#[async_trait]
impl TableProvider for UnreadableTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(&self, _: &dyn Session, _: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        Err(Error::External(self.reason.clone()).into())
    }
}
