//! Rows at one epoch as a table: a view, its late rows, a source's bad records. Who asks for rows of a key gets those by an index.

use std::sync::Arc;

use arrow::{
    array::ArrayRef,
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Result, ScalarValue},
    datasource::memory::MemorySourceConfig,
    logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType, expr::InList},
    physical_plan::ExecutionPlan,
};

use crate::{error::Error, stream::segments::Snapshot};

/// Who names more values in an `IN (…)` than this looks at all rows.
const VALUES: usize = 1000;

/// A snapshot as a table.
#[derive(Debug)]
pub struct SnapshotTable {
    snapshot: Snapshot,
    /// The columns that name a row, if any do.
    key: Vec<usize>,
}

impl SnapshotTable {
    /// A table of these rows, which stay as they are.
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, key: vec![] }
    }

    /// The same, whose rows are named by these columns.
    pub fn with_key(self, key: Vec<usize>) -> Self {
        Self { key, ..self }
    }

    /// The column of the key and the values that it must have one of, where a condition says so.
    fn wanted(&self, filter: &Expr) -> Option<(usize, ArrayRef)> {
        let (column, values) = match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column)) => (column, vec![value.clone()]),
                _ => return None,
            },
            Expr::InList(InList { expr, list, negated: false }) if list.len() <= VALUES => {
                let Expr::Column(column) = expr.as_ref() else { return None };
                let value = |value: &Expr| if let Expr::Literal(value, _) = value { Some(value.clone()) } else { None };
                (column, list.iter().map(value).collect::<Option<Vec<_>>>()?)
            }
            _ => return None,
        };
        let at = self.snapshot.schema().index_of(&column.name).ok().filter(|at| self.key.contains(at))?;
        let data_type = self.snapshot.schema().field(at).data_type();
        // Floats have values that are equal and look different.
        let by_bytes = data_type.is_integer() || data_type.is_temporal() || data_type.is_string() || data_type.is_binary();
        let exact = values.iter().all(|value| value.data_type() == *data_type);
        let values = (by_bytes && exact && *data_type != DataType::Null).then(|| ScalarValue::iter_to_array(values))?;
        Some((at, values.ok()?))
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

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // What is found by hashes is looked at again.
        let of = |filter: &&Expr| if self.wanted(filter).is_some() { TableProviderFilterPushDown::Inexact } else { TableProviderFilterPushDown::Unsupported };
        Ok(filters.iter().map(of).collect())
    }

    async fn scan(&self, _: &dyn Session, projection: Option<&Vec<usize>>, filters: &[Expr], _: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.snapshot.schema().project(columns)?),
            None => self.snapshot.schema().clone(),
        };
        // Of several conditions the one that leaves the fewest rows.
        let mut best: Option<(usize, usize, ArrayRef)> = None;
        for (column, values) in filters.iter().filter_map(|filter| self.wanted(filter)) {
            let count = self.snapshot.count_having(column, &values)?;
            if best.as_ref().is_none_or(|(fewest, ..)| count < *fewest) {
                best = Some((count, column, values));
            }
        }
        let batches = match best {
            Some((_, column, values)) => self.snapshot.having(column, &values, projection)?,
            None => self.snapshot.batches_of(projection)?,
        };
        Ok(MemorySourceConfig::try_new_exec(&[batches], schema, None)?)
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

    /// Why it can't be read.
    pub fn reason(&self) -> &str {
        &self.reason
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
