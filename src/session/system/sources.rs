//! `system.partitions` and `system.errors`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray, TimestampNanosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};

use super::{event_time, flag, text, whole};
use crate::{
    access::{Privilege, Who},
    error::Result,
    session::engine::Engine,
    stream::side_rows::error_schema,
};

/// Columns of `system.partitions`.
pub fn partitions_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("source"),
        text("topic"),
        Field::new("partition", DataType::Int32, true),
        whole("offset"),
        whole("end_offset"),
        whole("lag"),
        event_time("watermark"),
        flag("idle"),
        whole("lost"),
    ]))
}

/// Rows of `system.partitions`.
pub fn partitions(engine: &Arc<Engine>, who: &Who) -> Vec<ArrayRef> {
    let overview = engine.overview_for(who);
    let rows: Vec<_> = overview.sources.iter().flat_map(|source| source.partitions.iter().map(move |partition| (source, partition))).collect();
    vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(source, _)| &source.name))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(source, _)| &source.topic))),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, p)| p.partition))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|(_, p)| p.offset))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|(_, p)| p.end))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|(_, p)| p.lag()))),
        Arc::new(TimestampNanosecondArray::from_iter(rows.iter().map(|(_, p)| p.watermark))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|(_, p)| Some(p.idle)))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, p)| p.lost as i64))),
    ]
}

/// Columns of `system.errors`: the source, then those of `<source>$errors`.
pub fn errors_schema() -> SchemaRef {
    let mut fields = vec![Arc::new(text("source"))];
    fields.extend(error_schema().fields().iter().cloned());
    Arc::new(Schema::new(fields))
}

/// Rows of `system.errors`.
pub fn errors(engine: &Arc<Engine>, who: &Who) -> Result<Vec<RecordBatch>> {
    let mut batches = vec![];
    for (_, driver) in engine.running_pipelines() {
        for (name, source) in &driver.board().current().sources {
            // They are what was in the topic.
            if !engine.catalog().get(name).is_some_and(|source| engine.may(who, Privilege::Select, &source)) {
                continue;
            }
            for rows in source.errors.batches() {
                let rows = rows?;
                let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from_iter_values(std::iter::repeat_n(name, rows.num_rows())))];
                columns.extend(rows.columns().iter().cloned());
                batches.push(RecordBatch::try_new(errors_schema(), columns)?);
            }
        }
    }
    Ok(batches)
}
