//! `SHOW …`: what there is and how it is doing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{
    array::{BooleanArray, Int64Array, StringArray, TimestampMillisecondArray, TimestampNanosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    record_batch::RecordBatch,
};

use super::{
    connections,
    engine::{Engine, blocking},
};
use crate::{
    access::Who,
    catalog::{Definition, Emit, Object, ObjectKind},
    error::{Error, Result},
    source::{FeedState, kafka::reachable},
    sql::{self, Show},
};

/// How long `SHOW SOURCES` asks after a source that no view reads.
const LOOK: Duration = Duration::from_secs(2);

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn number(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

/// The columns of a `SHOW`.
pub fn schema(show: Show) -> SchemaRef {
    let fields = match show {
        Show::Sources => vec![
            text("name"),
            text("topic"),
            text("brokers"),
            text("state"),
            number("partitions"),
            number("lag"),
            number("rows"),
            number("errors"),
            number("new_fields"),
            number("missing_fields"),
            number("retyped_fields"),
            Field::new("watermark", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
            text("message"),
        ],
        Show::Views => vec![
            text("name"),
            text("kind"),
            text("emit"),
            text("state"),
            number("epoch"),
            number("rows"),
            number("late"),
            number("state_rows"),
            number("bytes"),
            text("message"),
        ],
        Show::Sinks => super::sinks::columns(),
        Show::Tables => vec![text("name"), text("kind")],
        Show::Queries => vec![
            number("id"),
            text("sql"),
            Field::new("started", DataType::Timestamp(TimeUnit::Millisecond, None), true),
            Field::new("unbounded", DataType::Boolean, true),
            text("user"),
        ],
        Show::Connections => return connections::connections_schema(),
        Show::Secrets => return connections::secrets_schema(),
    };
    Arc::new(Schema::new(fields))
}

/// The rows of a `SHOW`.
pub async fn rows(engine: &Arc<Engine>, who: &Who, show: Show) -> Result<RecordBatch> {
    match show {
        Show::Sources => sources(engine, who).await,
        Show::Views => views(engine, who),
        Show::Sinks => super::sinks::rows(engine, who),
        Show::Tables => tables(engine, who),
        Show::Queries => queries(engine, who),
        Show::Connections => engine.connections(who),
        Show::Secrets => engine.secrets(who),
    }
}

async fn sources(engine: &Arc<Engine>, who: &Who) -> Result<RecordBatch> {
    let mut rows = vec![];
    for object in engine.all_seen(who) {
        let Definition::Source(def) = object.definition else { continue };
        let Some(driver) = engine.pipeline(&def.name) else {
            if let Some(reason) = engine.broken(&def.name) {
                rows.push((def, "failed".to_string(), None, None, None, None, None, None, reason));
                continue;
            }
            let kafka = def.kafka.clone();
            let (state, message) = match blocking(move || reachable(&kafka, LOOK)).await? {
                Ok(()) => ("idle", "no view reads it".to_string()),
                Err(error) => ("unreachable", error.to_string()),
            };
            rows.push((def, state.to_string(), None, None, None, None, None, None, message));
            continue;
        };
        let status = driver.status();
        let published = driver.board().current();
        let source = published.sources.get(&def.name);
        let feed = status.feeds.get(&def.name);
        let (state, message) = match (&status.failure, feed.map(|f| &f.state)) {
            (Some(failure), _) => ("failed", failure.clone()),
            (None, Some(FeedState::Failed(reason))) => ("failed", reason.clone()),
            (None, Some(FeedState::Connecting(reason))) => ("connecting", reason.clone()),
            // What was lost, where the source's policy is to go on.
            (None, Some(FeedState::Running)) => {
                ("running", feed.map(|f| f.last_loss.iter().chain(&f.note).cloned().collect::<Vec<_>>().join("; ")).unwrap_or_default())
            }
            (None, None) => ("stopped", String::new()),
        };
        let partitions = feed.map(|f| f.partitions.len() as i64);
        let lag = feed.map(|f| f.partitions.values().filter_map(|p| Some((p.end? - p.position).max(0))).sum::<i64>());
        rows.push((
            def,
            state.to_string(),
            partitions,
            lag,
            source.map(|s| s.rows_total as i64),
            source.map(|s| s.errors_total as i64),
            source.map(|s| s.drift.totals()),
            source.and_then(|s| s.watermark),
            message,
        ));
    }
    Ok(RecordBatch::try_new(
        schema(Show::Sources),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.0.name))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.0.kafka.topic))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.0.kafka.place()))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.1))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.2))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.3))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.4))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.5))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.6.map(|drift| drift.new as i64)))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.6.map(|drift| drift.missing as i64)))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.6.map(|drift| drift.retyped as i64)))),
            Arc::new(TimestampNanosecondArray::from_iter(rows.iter().map(|r| r.7))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.8))),
        ],
    )?)
}

fn views(engine: &Arc<Engine>, who: &Who) -> Result<RecordBatch> {
    struct Row {
        name: String,
        kind: &'static str,
        emit: Option<String>,
        state: &'static str,
        numbers: Option<[i64; 5]>,
        message: String,
    }
    let mut rows = vec![];
    for object in engine.all_seen(who) {
        match object.definition {
            Definition::Source(_) | Definition::Table(_) | Definition::Sink(_) | Definition::Connection(_) | Definition::Secret(_) => {}
            Definition::PlainView(def) => {
                rows.push(Row { name: def.name.clone(), kind: "plain", emit: None, state: "defined", numbers: None, message: String::new() })
            }
            Definition::View(def) => {
                let progress = || {
                    engine.trouble_of(&def.name).unwrap_or_else(|| match engine.progress_of(&def.name) {
                        Some((read, all)) => format!("has read {read} of {all} records"),
                        None => "begins to read what its source holds".into(),
                    })
                };
                let Some((board, catching_up)) = engine.board_of(&def.name) else {
                    // It is to be seen when it has what other views hold.
                    if engine.is_waiting(&def.name) {
                        rows.push(Row { name: def.name.clone(), kind: "continuous", emit: None, state: "catching up", numbers: None, message: progress() });
                        continue;
                    }
                    let below = engine.sources_below(&def.name);
                    let reason = std::iter::once(&def.name).chain(&below).find_map(|name| engine.broken(name)).unwrap_or_default();
                    rows.push(Row { name: def.name.clone(), kind: "continuous", emit: None, state: "stopped", numbers: None, message: reason });
                    continue;
                };
                let published = board.current();
                let Some(view) = published.views.get(&def.name) else { continue };
                let (state, message) = match (&view.failure, catching_up) {
                    (Some(failure), _) => {
                        let failed = format!("in epoch {}: {}", failure.epoch, failure.reason);
                        ("failed", std::iter::once(failed).chain(engine.replacement_of(&def.name)).collect::<Vec<_>>().join("; "))
                    }
                    (None, _) if engine.is_paused(&def.name) => {
                        let more = engine.stuck(&def.name).unwrap_or_else(|| format!("RESUME VIEW {}", def.name));
                        ("paused", format!("stands at epoch {}: {more}", published.epoch))
                    }
                    (None, true) => ("catching up", progress()),
                    (None, false) => match engine.sources_below(&def.name).iter().find_map(|source| Some(engine.pipeline(source)?.status())) {
                        Some(status) => match status.standstill() {
                            Some(reason) => ("failed", reason),
                            None => {
                                let replaced = engine.replacement_of(&def.name).or_else(|| engine.replaced.read().get(&def.name).cloned());
                                ("running", status.trouble.into_values().chain(replaced).collect::<Vec<_>>().join("; "))
                            }
                        },
                        None => ("running", String::new()),
                    },
                };
                let emit = match view.plan.emit {
                    Emit::Changes => "changes".to_string(),
                    Emit::OnWindowClose => "on window close".to_string(),
                    Emit::Every(interval) => format!("every {}", humantime::format_duration(interval)),
                };
                let numbers = [published.epoch as i64, view.contents.rows() as i64, view.late_total as i64, view.state_rows as i64, view.bytes as i64];
                rows.push(Row { name: def.name.clone(), kind: "continuous", emit: Some(emit), state, numbers: Some(numbers), message });
            }
        }
    }
    let number = |i: usize| Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.numbers.map(|n| n[i]))));
    Ok(RecordBatch::try_new(
        schema(Show::Views),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.name))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.kind))),
            Arc::new(StringArray::from_iter(rows.iter().map(|r| r.emit.as_deref()))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.state))),
            number(0),
            number(1),
            number(2),
            number(3),
            number(4),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.message))),
        ],
    )?)
}

fn tables(engine: &Arc<Engine>, who: &Who) -> Result<RecordBatch> {
    let objects: BTreeMap<String, &'static str> = engine
        .all_seen(who)
        .into_iter()
        .filter(|object| object.definition.has_rows())
        .map(|object| (object.definition.name().to_string(), object.definition.kind()))
        .collect();
    Ok(RecordBatch::try_new(
        schema(Show::Tables),
        vec![Arc::new(StringArray::from_iter_values(objects.keys())), Arc::new(StringArray::from_iter_values(objects.values()))],
    )?)
}

fn queries(engine: &Arc<Engine>, who: &Who) -> Result<RecordBatch> {
    let mut running = engine.queries.list();
    let is_admin = engine.access().is_admin(who);
    running.retain(|query| is_admin || query.caller.who == *who);
    Ok(RecordBatch::try_new(
        schema(Show::Queries),
        vec![
            Arc::new(Int64Array::from_iter_values(running.iter().map(|q| q.id as i64))),
            Arc::new(StringArray::from_iter_values(running.iter().map(|q| &q.sql))),
            Arc::new(TimestampMillisecondArray::from_iter_values(running.iter().map(|q| q.started_ms))),
            Arc::new(BooleanArray::from_iter(running.iter().map(|q| Some(q.unbounded)))),
            Arc::new(StringArray::from_iter(running.iter().map(|q| q.caller.who.name()))),
        ],
    )?)
}

/// The columns of `SHOW CREATE`.
pub fn create_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![text("name"), text("statement")]))
}

/// The statement that made an object.
pub fn create(engine: &Engine, who: &Who, kind: Option<ObjectKind>, name: &str) -> Result<RecordBatch> {
    let unknown = || {
        Error::NotFound(format!(
            "there is no {} {name}",
            match kind {
                Some(kind) => kind.words().0,
                None => "table, view, source or sink",
            }
        ))
    };
    let Object { definition, .. } = engine.seen(who, name).ok_or_else(unknown)?;
    let fits = kind.is_none_or(|kind| kind == definition.object_kind());
    if !fits {
        return Err(unknown());
    }
    Ok(RecordBatch::try_new(
        create_schema(),
        vec![Arc::new(StringArray::from_iter_values([name])), Arc::new(StringArray::from_iter_values([sql::redacted(definition.text())]))],
    )?)
}
