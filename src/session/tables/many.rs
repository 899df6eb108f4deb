//! One INSERT of VALUES with many rows of parameters: all of them are one change, made by one plan.

use std::sync::Arc;

use arrow::{
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use datafusion::{
    common::{
        Column,
        tree_node::{Transformed, TreeNode},
    },
    datasource::{DefaultTableSource, MemTable},
    logical_expr::{DmlStatement, Expr, LogicalPlan, LogicalPlanBuilder, Projection, WriteOp, dml::InsertOp, logical_plan::Values},
    scalar::ScalarValue,
};

use crate::error::{Error, Result};

/// The table of the parameters. Users can't write it: it begins as our reserved names do.
const GIVEN: &str = "__given";

/// The same statement over a table of its parameters, one row an execution; `None` if it is no INSERT of one row of VALUES.
pub(in crate::session) fn over_all(plan: &LogicalPlan, parameters: &Schema, rows: &[Vec<ScalarValue>]) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Dml(dml) = plan else { return Ok(None) };
    if dml.op != WriteOp::Insert(InsertOp::Append) {
        return Ok(None);
    }
    let LogicalPlan::Projection(projection) = &*dml.input else { return Ok(None) };
    let LogicalPlan::Values(Values { values, schema }) = &*projection.input else { return Ok(None) };
    let [row] = values.as_slice() else { return Ok(None) };
    let given = given(parameters, rows)?;
    let table = MemTable::try_new(given.schema(), vec![vec![given]])?;
    let scan = LogicalPlanBuilder::scan(GIVEN, Arc::new(DefaultTableSource::new(Arc::new(table))), None)?.build()?;
    let placed = row.iter().zip(schema.fields()).map(|(expr, field)| {
        let placed = expr.clone().transform(|expr| {
            Ok(match expr {
                Expr::Placeholder(placeholder) => Transformed::yes(Expr::Column(Column::new(Some(GIVEN), placeholder.id))),
                other => Transformed::no(other),
            })
        })?;
        Ok(placed.data.alias(field.name()))
    });
    let values = LogicalPlan::Projection(Projection::try_new(placed.collect::<Result<Vec<_>>>()?, Arc::new(scan))?);
    let input = LogicalPlan::Projection(Projection::try_new(projection.expr.clone(), Arc::new(values))?);
    Ok(Some(LogicalPlan::Dml(DmlStatement::new(dml.table_name.clone(), dml.target.clone(), dml.op.clone(), Arc::new(input)))))
}

/// The parameters as rows of columns `$1`, `$2`, ….
fn given(parameters: &Schema, rows: &[Vec<ScalarValue>]) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (vec![], vec![]);
    for (at, parameter) in parameters.fields().iter().enumerate() {
        let values = rows.iter().map(|row| {
            let value =
                row.get(at).ok_or_else(|| Error::Invalid(format!("the statement has {} parameters, {} were given", parameters.fields().len(), row.len())))?;
            match parameter.data_type() {
                DataType::Null => Ok(value.clone()),
                known => Ok(value.cast_to(known)?),
            }
        });
        let column = ScalarValue::iter_to_array(values.collect::<Result<Vec<_>>>()?)?;
        fields.push(Field::new(parameter.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
