//! `SHOW SINKS`, which is `system.sinks`.

use std::sync::{Arc, atomic::Ordering};

use arrow::{
    array::{Int64Array, StringArray},
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};

use super::State;
use crate::{
    access::Who,
    catalog::{Definition, Delivery, SinkTarget},
    error::Result,
    session::engine::Engine,
    stream::outbox::Lag,
};

/// The columns of `SHOW SINKS`.
pub fn columns() -> Vec<Field> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    vec![
        text("name"),
        text("reads"),
        text("into"),
        text("target"),
        text("delivery"),
        text("state"),
        number("epoch"),
        number("cursor"),
        number("lag_epochs"),
        number("lag_rows"),
        number("lag_bytes"),
        number("records"),
        number("bytes"),
        text("message"),
    ]
}

struct Row {
    name: String,
    reads: String,
    into: &'static str,
    target: String,
    delivery: &'static str,
    state: &'static str,
    lag: Option<Lag>,
    records: Option<u64>,
    bytes: Option<u64>,
    message: String,
}

/// The rows of `SHOW SINKS`.
pub fn rows(engine: &Arc<Engine>, who: &Who) -> Result<RecordBatch> {
    let mut rows = vec![];
    for object in engine.all_seen(who) {
        let Definition::Sink(def) = &object.definition else { continue };
        let (into, target, delivery) = match &def.target {
            SinkTarget::Kafka(sink) => {
                let delivery = match sink.delivery {
                    Delivery::AtLeastOnce => "at least once",
                    Delivery::ExactlyOnce => "exactly once",
                };
                ("kafka", sink.kafka.topic.clone(), delivery)
            }
            SinkTarget::Folder(sink) => ("folder", sink.path.clone(), "exactly once"),
        };
        let running = engine.sinks.get(object.id);
        let (state, message) = match running.as_ref().map(|running| running.state.lock().clone()) {
            _ if object.paused => {
                let failure = engine.outbox_of(&object).and_then(|(_, outbox)| outbox.failure());
                ("paused", failure.unwrap_or_else(|| format!("RESUME SINK {}", def.name)))
            }
            None => ("stopped", String::new()),
            Some(State::Starting) => ("starting", String::new()),
            Some(State::Running) => ("running", String::new()),
            Some(State::Retrying(reason)) => ("retrying", reason),
            Some(State::Failed(reason)) => ("failed", reason),
        };
        rows.push(Row {
            name: def.name.clone(),
            reads: object
                .reads
                .iter()
                .filter(|read| engine.catalog().get(read).is_some_and(|read| read.definition.has_rows()))
                .cloned()
                .collect::<Vec<_>>()
                .join(", "),
            into,
            target,
            delivery,
            state,
            lag: engine.lag_of(&object),
            records: running.as_ref().map(|running| running.records.load(Ordering::Relaxed)),
            bytes: running.as_ref().map(|running| running.bytes.load(Ordering::Relaxed)),
            message,
        });
    }
    let text = |of: fn(&Row) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(of)));
    let lag = |of: fn(&Lag) -> u64| Arc::new(Int64Array::from_iter(rows.iter().map(|row| Some(of(row.lag.as_ref()?) as i64))));
    let count = |of: fn(&Row) -> Option<u64>| Arc::new(Int64Array::from_iter(rows.iter().map(|row| Some(of(row)? as i64))));
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(columns())),
        vec![
            text(|row| &row.name),
            text(|row| &row.reads),
            text(|row| row.into),
            text(|row| &row.target),
            text(|row| row.delivery),
            text(|row| row.state),
            lag(|lag| lag.epoch),
            lag(|lag| lag.cursor),
            lag(|lag| lag.epochs),
            lag(|lag| lag.rows),
            lag(|lag| lag.bytes as u64),
            count(|row| row.records),
            count(|row| row.bytes),
            text(|row| &row.message),
        ],
    )?)
}
