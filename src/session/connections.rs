//! Connections and secrets: making, changing and listing them, and looking around where a connection leads.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray, TimestampMillisecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    record_batch::RecordBatch,
};

use super::engine::{Engine, blocking};
use crate::{
    access::{Caller, Who},
    catalog::{ClientSettings, ConnectionDef, Definition, Link, Object, ObjectKind, OptionValue, SecretDef},
    error::{Error, Result},
    source::kafka::{Sample, TopicInfo, check_connection, sample, topics},
    sql,
};

/// `DESCRIBE TOPIC` shows so many of the newest records of each partition.
const SAMPLES: i64 = 3;
/// And so many characters of a key or payload.
const PREVIEW: usize = 200;

impl Engine {
    /// Declares a connection; `validate`: the broker has to let us in first.
    pub(super) async fn create_connection(&self, caller: &Caller, def: ConnectionDef, if_not_exists: bool, validate: bool) -> Result<()> {
        let _declaring = self.declare().await;
        self.check_create(caller, &def.name)?;
        if self.is_taken_for(caller, &def.name, if_not_exists)? {
            return Ok(());
        }
        let reads = self.usable_links(caller, None, def.secrets())?;
        if validate {
            self.reach(&def).await?;
        }
        self.create_object(caller, Definition::Connection(Arc::new(def)), reads, BTreeMap::new())?;
        Ok(())
    }

    /// Changes options of a connection. What reads through it goes on with them where it is.
    pub(super) async fn alter_connection(&self, caller: &Caller, name: &str, set: &[(String, OptionValue)], reset: &[String], validate: bool) -> Result<()> {
        let _declaring = self.declare().await;
        let object = self.changeable(caller, name)?;
        let Some(Object { definition: Definition::Connection(def), .. }) = object else {
            return Err(Error::NotFound(format!("there is no connection {name}: nothing was changed")));
        };
        let altered = sql::altered_connection(&def, set, reset)?;
        // What it names already was asked for when it was named.
        let known = def.secrets();
        self.usable_links(caller, None, altered.secrets().into_iter().filter(|secret| !known.contains(secret)))?;
        if validate {
            self.reach(&altered).await?;
        }
        self.catalog.redefine(Definition::Connection(Arc::new(altered)))
    }

    /// Whether brokers let us in with what a connection says.
    async fn reach(&self, def: &ConnectionDef) -> Result<()> {
        let settings = def.settings(&self.catalog.link_asking(Link::default()))?;
        let (whose, name) = (format!("connection {}", def.name), def.name.clone());
        let reached = blocking(move || check_connection(&settings, &whose)).await?;
        reached.map_err(|error| match error {
            Error::External(why) => {
                Error::External(format!("{why}; nothing was changed of connection {name}, WITH (validate = false) does it without asking the broker"))
            }
            Error::Invalid(why) => Error::Invalid(format!("{why}; nothing was changed of connection {name}, WITH (validate = false) does it all the same")),
            other => other,
        })
    }

    /// Declares a secret.
    pub(super) async fn create_secret(&self, caller: &Caller, def: SecretDef, if_not_exists: bool) -> Result<()> {
        let _declaring = self.declare().await;
        self.check_create(caller, &def.name)?;
        if self.is_taken_for(caller, &def.name, if_not_exists)? {
            return Ok(());
        }
        self.create_object(caller, Definition::Secret(Arc::new(def)), vec![], BTreeMap::new())?;
        Ok(())
    }

    /// Gives a secret another value. What uses it goes on with that.
    pub(super) async fn alter_secret(&self, caller: &Caller, def: SecretDef) -> Result<()> {
        let _declaring = self.declare().await;
        let name = def.name.clone();
        match self.changeable(caller, &name)? {
            Some(Object { definition: Definition::Secret(_), .. }) => self.catalog.redefine(Definition::Secret(Arc::new(def))),
            _ => Err(Error::NotFound(format!("there is no secret {name}: nothing was changed"))),
        }
    }

    /// What a client of a connection that they may use is configured with.
    fn settings_of(&self, caller: &Caller, connection: &str) -> Result<ClientSettings> {
        match self.usable(caller, ObjectKind::Connection, connection)?.definition {
            Definition::Connection(def) => def.settings(&self.catalog.link_asking(Link::default())),
            other => Err(Error::Internal(format!("a {} was found for a connection", other.kind()))),
        }
    }

    /// `SHOW TOPICS FROM CONNECTION`.
    pub(super) async fn show_topics(&self, caller: &Caller, connection: &str) -> Result<RecordBatch> {
        let settings = self.settings_of(caller, connection)?;
        let whose = format!("connection {connection}");
        let found: Vec<TopicInfo> = blocking(move || topics(&settings, &whose)).await??;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(found.iter().map(|topic| &topic.name))),
            Arc::new(Int32Array::from_iter_values(found.iter().map(|topic| topic.partitions as i32))),
            Arc::new(Int64Array::from_iter(found.iter().map(|topic| topic.records))),
            Arc::new(BooleanArray::from_iter(found.iter().map(|topic| Some(topic.internal)))),
        ];
        Ok(RecordBatch::try_new(topics_schema(), columns)?)
    }

    /// `DESCRIBE TOPIC … FROM CONNECTION`: a row for each of the newest records, and one for each partition without any.
    pub(super) async fn describe_topic(&self, caller: &Caller, topic: &str, connection: &str) -> Result<RecordBatch> {
        let settings = self.settings_of(caller, connection)?;
        let topic = topic.to_string();
        let sampled = blocking(move || sample(&settings, &topic, SAMPLES)).await??;
        let mut rows: Vec<(i32, i64, i64, Option<&Sample>)> = vec![];
        for partition in &sampled {
            let head = (partition.partition, partition.low, partition.end);
            if partition.records.is_empty() {
                rows.push((head.0, head.1, head.2, None));
            }
            rows.extend(partition.records.iter().map(|record| (head.0, head.1, head.2, Some(record))));
        }
        let of = |part: fn(&Sample) -> Option<String>| -> ArrayRef { Arc::new(StringArray::from_iter(rows.iter().map(|row| row.3.and_then(part)))) };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.3.map(|record| record.offset)))),
            Arc::new(TimestampMillisecondArray::from_iter(rows.iter().map(|row| row.3.and_then(|record| record.timestamp_ms)))),
            of(|record| record.key.as_deref().map(preview)),
            of(headers),
            of(|record| record.value.as_deref().map(preview)),
            Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.3.and_then(|record| Some(record.value.as_ref()?.len() as i64))))),
            of(|record| Some(guess(record.value.as_deref()))),
        ];
        Ok(RecordBatch::try_new(topic_schema(), columns)?)
    }

    /// `SHOW CONNECTIONS`.
    pub(super) fn connections(&self, who: &Who) -> Result<RecordBatch> {
        let mut rows: Vec<[Option<String>; 6]> = vec![];
        for object in self.all_seen(who) {
            let Definition::Connection(def) = &object.definition else { continue };
            let said = |property: &str| match def.properties.get(property) {
                Some(OptionValue::Text(text)) => Some(text.to_uppercase()),
                _ => None,
            };
            let security = std::iter::once(said("security.protocol").unwrap_or_else(|| "PLAINTEXT".into())).chain(said("sasl.mechanisms"));
            let registry = match def.registry.get("schema.registry.url") {
                Some(OptionValue::Text(url)) => Some(url.clone()),
                _ => None,
            };
            let users = self.catalog.list().into_iter().filter(|other| other.reads.contains(&def.name) && self.sees(who, other));
            let used_by: Vec<String> = users.map(|other| other.definition.name().to_string()).collect();
            rows.push([
                Some(def.name.clone()),
                Some("kafka".into()),
                Some(def.brokers.clone()),
                Some(security.collect::<Vec<_>>().join(" ")),
                registry,
                Some(used_by.join(", ")),
            ]);
        }
        let column = |at: usize| -> ArrayRef { Arc::new(StringArray::from_iter(rows.iter().map(|row| row[at].as_deref()))) };
        Ok(RecordBatch::try_new(connections_schema(), (0..6).map(column).collect())?)
    }

    /// `SHOW SECRETS`.
    pub(super) fn secrets(&self, who: &Who) -> Result<RecordBatch> {
        let names: Vec<String> =
            self.all_seen(who).into_iter().filter(|o| matches!(o.definition, Definition::Secret(_))).map(|o| o.definition.name().into()).collect();
        Ok(RecordBatch::try_new(secrets_schema(), vec![Arc::new(StringArray::from_iter_values(names))])?)
    }
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

/// The columns of `SHOW CONNECTIONS`.
pub(super) fn connections_schema() -> SchemaRef {
    Arc::new(Schema::new(["name", "kind", "brokers", "security", "schema_registry", "used_by"].map(text).to_vec()))
}

/// The columns of `SHOW SECRETS`.
pub(super) fn secrets_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![text("name")]))
}

/// The columns of `SHOW TOPICS`.
pub(super) fn topics_schema() -> SchemaRef {
    let fields = vec![
        text("topic"),
        Field::new("partitions", DataType::Int32, true),
        Field::new("records", DataType::Int64, true),
        Field::new("internal", DataType::Boolean, true),
    ];
    Arc::new(Schema::new(fields))
}

/// The columns of `DESCRIBE TOPIC`.
pub(super) fn topic_schema() -> SchemaRef {
    let number = |name| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![
        Field::new("partition", DataType::Int32, true),
        number("low_offset"),
        number("end_offset"),
        number("offset"),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        text("key"),
        text("headers"),
        text("payload"),
        number("bytes"),
        text("format"),
    ]))
}

/// The beginning of some bytes for people: as text, or in hex where they are none.
fn preview(bytes: &[u8]) -> String {
    let cut = |text: String, whole: bool| if whole { text } else { text + "…" };
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|c: char| c.is_control() && !c.is_whitespace()) => {
            cut(text.chars().take(PREVIEW).collect(), text.chars().nth(PREVIEW).is_none())
        }
        _ => {
            let shown = &bytes[..bytes.len().min(PREVIEW / 2)];
            cut(format!("\\x{}", shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>()), shown.len() == bytes.len())
        }
    }
}

/// The headers as a JSON object; one that stands there twice is shown once more.
fn headers(record: &Sample) -> Option<String> {
    let pairs: Vec<String> = record
        .headers
        .iter()
        .map(|header| {
            let value = header.value.as_deref().map_or(serde_json::Value::Null, |value| preview(value).into());
            format!("{}: {value}", serde_json::Value::from(header.key.as_str()))
        })
        .collect();
    (!pairs.is_empty()).then(|| format!("{{{}}}", pairs.join(", ")))
}

/// What a payload looks like.
fn guess(payload: Option<&[u8]>) -> String {
    let Some(payload) = payload else { return "tombstone".into() };
    // The registry's frame: a zero, the schema's number, the record.
    if let [0, a, b, c, d, _, ..] = payload {
        return format!("schema registry, schema {} (avro, protobuf or json)", u32::from_be_bytes([*a, *b, *c, *d]));
    }
    let Ok(text) = std::str::from_utf8(payload) else { return "bytes".into() };
    if text.trim().is_empty() {
        return "empty".into();
    }
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(object)) => {
            let change = object.get("payload").and_then(|inner| inner.as_object()).unwrap_or(&object);
            let is_change = change.contains_key("op") && (change.contains_key("before") || change.contains_key("after"));
            if is_change { "json (debezium)".into() } else { "json".into() }
        }
        Ok(serde_json::Value::Array(_)) => "json".into(),
        _ if text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|value| value.is_object())) => "json".into(),
        _ if text.contains(',') => "csv".into(),
        _ => "text".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_recognised() {
        for (payload, format) in [
            (&b"{\"a\": 1}"[..], "json"),
            (b"{\"a\": 1}\n{\"a\": 2}", "json"),
            (b"[{\"a\": 1}]", "json"),
            (b"{\"before\": null, \"after\": {}, \"op\": \"c\"}", "json (debezium)"),
            (b"{\"schema\": {}, \"payload\": {\"after\": {}, \"op\": \"c\"}}", "json (debezium)"),
            (b"\x00\x00\x00\x00\x07abc", "schema registry, schema 7 (avro, protobuf or json)"),
            (b"a,b,c", "csv"),
            (b"12", "text"),
            (b"plain words", "text"),
            (b"\xff\xfe", "bytes"),
            (b"", "empty"),
        ] {
            assert_eq!(guess(Some(payload)), format);
        }
        assert_eq!(guess(None), "tombstone");
    }

    #[test]
    fn previews_are_short_and_readable() {
        assert_eq!(preview("ñandú\n".as_bytes()), "ñandú\n");
        assert_eq!(preview(&[0, 255]), "\\x00ff");
        assert_eq!(preview("é".repeat(300).as_bytes()).chars().count(), PREVIEW + 1);
        assert_eq!(preview(&[0; 300]), format!("\\x{}…", "00".repeat(PREVIEW / 2)));
    }
}
