//! `EXPLAIN VIEW`: what a continuous view does once an epoch, and what bounds its state.

use std::sync::Arc;

use arrow::{
    array::StringArray,
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::physical_plan::displayable;

use crate::{catalog::Emit, error::Result, stream::plan::ViewPlan};

/// The columns of `EXPLAIN VIEW`.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("topic", DataType::Utf8, false), Field::new("text", DataType::Utf8, false)]))
}

/// A plan, told.
pub fn rows(plan: &ViewPlan) -> Result<RecordBatch> {
    let mut told: Vec<(&str, String)> = vec![];
    let columns: Vec<String> = plan.schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    told.push(("columns", columns.join(", ")));
    let key = plan.key.as_ref().map(|key| key.iter().map(|c| plan.schema.field(*c).name().clone()).collect::<Vec<_>>().join(", "));
    told.push(("key", key.unwrap_or_else(|| "none".into())));
    told.push((
        "emits",
        match plan.emit {
            Emit::Changes => "changes: each epoch the rows that changed".into(),
            Emit::OnWindowClose => "on window close: each row once, when the watermark has passed its window's end".into(),
            Emit::Every(interval) => format!("every {}: the rows that changed since the last time", humantime::format_duration(interval)),
        },
    ));
    for (input, columns) in &plan.inputs {
        told.push(("reads", format!("{input} ({})", columns.iter().cloned().collect::<Vec<_>>().join(", "))));
    }
    if plan.operators.is_empty() {
        told.push(("state", "none: each row is looked at once; the view keeps the rows it has".into()));
    }
    for operator in &plan.operators {
        told.push(("operator", format!("{}: {}", operator.id, operator.description)));
        told.push(("bounded by", operator.bound.clone()));
    }
    told.push(("device", "cpu".into()));
    told.push(("logical plan", plan.logical.display_indent().to_string()));
    told.push(("physical plan", displayable(plan.physical.as_ref()).indent(false).to_string().trim_end().to_string()));
    Ok(RecordBatch::try_new(
        schema(),
        vec![Arc::new(StringArray::from_iter_values(told.iter().map(|t| t.0))), Arc::new(StringArray::from_iter_values(told.iter().map(|t| &t.1)))],
    )?)
}
