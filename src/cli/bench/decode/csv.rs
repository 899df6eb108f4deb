//! CSV, beside arrow-csv's reader of lines.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    csv::{ReaderBuilder, WriterBuilder},
    datatypes::{DataType, Field, Schema, TimeUnit},
};

use super::{BATCH, Contest, Layout, Rival, at, event::Event, path, rows::rows, source};
use crate::source::Records;

/// The cells of a line, in order: fields of an event, and parts of such.
const CELLS: [&[&str]; 18] = [
    &["id"],
    &["index"],
    &["period"],
    &["timestamp"],
    &["minute"],
    &["second"],
    &["type", "name"],
    &["possession"],
    &["possession_team", "name"],
    &["play_pattern", "name"],
    &["team", "name"],
    &["player", "name"],
    &["position", "name"],
    &["duration"],
    &["shot", "statsbomb_xg"],
    &["match_id"],
    &["home_team"],
    &["event_time"],
];
/// Those that are decoded, by their place in a line from 1.
const COLUMNS: &str =
    "minute INT PATH '$.5', second INT PATH '$.6', type_name TEXT PATH '$.7', team TEXT PATH '$.11', player TEXT PATH '$.12', xg DOUBLE PATH '$.15',
  match_id BIGINT PATH '$.16', event_time TIMESTAMP(3) PATH '$.18', WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds'";

pub(super) fn contest(events: &[Event]) -> anyhow::Result<Contest> {
    let mut writer = WriterBuilder::new().with_header(false).with_timestamp_tz_format("%Y-%m-%dT%H:%M:%S%.3fZ".into()).build(vec![]);
    for batch in rows(events)? {
        let cells = CELLS.iter().map(|path| Ok((path.join("."), at(&batch, path)?))).collect::<anyhow::Result<Vec<_>>>()?;
        writer.write(&RecordBatch::try_from_iter_with_nullable(cells.into_iter().map(|(name, cell)| (name, cell, true)))?)?;
    }
    let lines = writer.into_inner();
    let payloads = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
    let data_type = |path: &[&str]| match *path {
        ["index" | "period" | "minute" | "second" | "possession"] => DataType::Int32,
        ["match_id"] => DataType::Int64,
        ["duration"] | ["shot", _] => DataType::Float64,
        ["event_time"] => DataType::Timestamp(TimeUnit::Millisecond, None),
        _ => DataType::Utf8View,
    };
    let schema = Arc::new(Schema::new(CELLS.iter().map(|path| Field::new(path.join("."), data_type(path), true)).collect::<Vec<_>>()));
    let source = source(COLUMNS, "format = 'csv'")?;
    let needed = source.columns.iter().map(|column| Ok(path(column)?[0].parse::<usize>()? - 1)).collect::<anyhow::Result<Vec<_>>>()?;
    let read = move |_: &[Records]| {
        let reader = ReaderBuilder::new(schema.clone()).with_batch_size(BATCH).with_projection(needed.clone()).build(lines.as_slice())?;
        Ok(reader.collect::<Result<_, _>>()?)
    };
    let rivals = vec![Rival { name: "arrow-csv", read: Box::new(read), layout: Layout::Columns }];
    Ok(Contest { case: "csv", source, payloads, rivals })
}
