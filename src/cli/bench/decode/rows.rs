//! Events with all their fields as columns: what writers that take Arrow's rows are given.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Fields, Schema, TimeUnit},
    json::ReaderBuilder,
};

use super::{BATCH, event::Event};

/// The events as rows.
pub(super) fn rows(events: &[Event]) -> anyhow::Result<Vec<RecordBatch>> {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, false);
    let open = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let record = |fields: Vec<Field>| DataType::Struct(Fields::from(fields));
    let named = || record(vec![field("id", DataType::Int32), field("name", DataType::Utf8)]);
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, false)));
    let schema = Arc::new(Schema::new(vec![
        field("id", DataType::Utf8),
        field("index", DataType::Int32),
        field("period", DataType::Int32),
        field("timestamp", DataType::Utf8),
        field("minute", DataType::Int32),
        field("second", DataType::Int32),
        field("type", named()),
        field("possession", DataType::Int32),
        field("possession_team", named()),
        field("play_pattern", named()),
        field("team", named()),
        open("player", named()),
        open("position", named()),
        open("location", list(DataType::Float64)),
        open("duration", DataType::Float64),
        open("related_events", list(DataType::Utf8)),
        open(
            "pass",
            record(vec![
                open("recipient", named()),
                field("length", DataType::Float64),
                field("angle", DataType::Float64),
                open("height", named()),
                field("end_location", list(DataType::Float64)),
            ]),
        ),
        open("shot", record(vec![field("statsbomb_xg", DataType::Float64), field("end_location", list(DataType::Float64)), open("outcome", named())])),
        field("match_id", DataType::Int64),
        field("home_team", DataType::Utf8),
        field("away_team", DataType::Utf8),
        field("event_time", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))),
    ]));
    let payloads = events.iter().map(serde_json::to_vec).collect::<Result<Vec<_>, _>>()?;
    let lines = payloads.join(&b'\n');
    Ok(ReaderBuilder::new(schema).with_batch_size(BATCH).build(lines.as_slice())?.collect::<Result<_, _>>()?)
}
