//! A table as it is whenever it is read. A plan that lives long, like a view's, holds no files with it; who reads holds them while reading.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Result as DataFusionResult, internal_err, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableType},
    physical_expr::PhysicalExpr,
    physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions, stream::RecordBatchStreamAdapter},
};
use futures::StreamExt;

use super::{
    scan::StoredTable,
    store::{Snapshot, TableStore},
};
use crate::catalog::TableDef;

/// A table as of the change that is the last one when it is read.
#[derive(Debug)]
pub struct LatestTable {
    def: Arc<TableDef>,
    store: Arc<TableStore>,
}

impl LatestTable {
    /// The table of this declaration and these files.
    pub fn new(def: Arc<TableDef>, store: Arc<TableStore>) -> Self {
        Self { def, store }
    }
}

#[async_trait]
impl TableProvider for LatestTable {
    fn schema(&self) -> SchemaRef {
        self.def.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let snapshot = self.store.snapshot();
        let scan = StoredTable::new(self.def.clone(), self.store.clone(), snapshot.clone()).scan(state, projection, filters, limit).await?;
        Ok(Arc::new(HoldExec { scan, snapshot }))
    }
}

/// Reads a snapshot, and holds it until all of it is read.
#[derive(Debug)]
struct HoldExec {
    scan: Arc<dyn ExecutionPlan>,
    snapshot: Arc<Snapshot>,
}

impl HoldExec {
    fn over(&self, mut children: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(scan), true) => Ok(Arc::new(Self { scan, snapshot: self.snapshot.clone() })),
            _ => internal_err!("a held scan has one child"),
        }
    }
}

impl DisplayAs for HoldExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HoldExec: change={}", self.snapshot.sequence())
    }
}

impl ExecutionPlan for HoldExec {
    fn name(&self) -> &str {
        "HoldExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.scan.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.scan]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>, _: ReplaceChildrenOptions) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let (rows, snapshot) = (self.scan.execute(partition, context)?, self.snapshot.clone());
        let schema = rows.schema();
        let held = rows.map(move |batch| {
            let _held = &snapshot;
            batch
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, held)))
    }
}
