//! What a source's `WITH (…)` says of its topic, and which librdkafka properties a source may set.

use std::collections::BTreeMap;

use chrono::DateTime;

use super::options::Options;
use crate::{
    catalog::{DataLoss, KafkaDef, Startup},
    error::{Error, Result},
};

/// Prefix of options that go to librdkafka as they are.
const PROPERTIES: &str = "properties.";

/// Takes the topic's options.
pub(super) fn parse(owner: &str, options: &mut Options) -> Result<KafkaDef> {
    let topic = options.require("topic", "events")?;
    check_topic(owner, &topic)?;
    let brokers = options.require("bootstrap.servers", "localhost:9092")?;
    if brokers.split(',').any(|broker| broker.trim().is_empty() || broker.trim().contains(char::is_whitespace)) {
        return Err(Error::Invalid(format!("{owner}: 'bootstrap.servers' is a list like 'host:9092,other:9092', not '{brokers}'")));
    }
    let startup = startup(owner, options)?;
    let on_data_loss = on_data_loss(owner, options)?;
    let mut properties = BTreeMap::new();
    for (name, value) in options.take_prefixed(PROPERTIES) {
        check_property(owner, &name)?;
        properties.insert(name, value);
    }
    Ok(KafkaDef { topic, brokers, startup, on_data_loss, properties })
}

fn on_data_loss(owner: &str, options: &mut Options) -> Result<DataLoss> {
    let said = match (options.take("on.data.loss"), options.take("on_data_loss")) {
        (Some(_), Some(_)) => return Err(Error::Invalid(format!("{owner}: 'on.data.loss' and 'on_data_loss' are the same option: leave one out"))),
        (said, other) => said.or(other),
    };
    match said.map(|said| said.to_ascii_lowercase()).as_deref() {
        None | Some("fail") => Ok(DataLoss::Fail),
        Some("continue") => Ok(DataLoss::Continue),
        Some(other) => Err(Error::Invalid(format!("{owner}: 'on.data.loss' is 'fail' or 'continue', not '{other}'"))),
    }
}

/// Kafka's own rule for topic names. It also keeps out `^…`, which librdkafka takes for a regular expression.
fn check_topic(owner: &str, topic: &str) -> Result<()> {
    let legal =
        (1..=249).contains(&topic.len()) && topic != "." && topic != ".." && topic.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    match legal {
        true => Ok(()),
        false => Err(Error::Invalid(format!("{owner}: '{topic}' is no topic's name: Kafka allows up to 249 letters, digits, dots, - and _"))),
    }
}

fn startup(owner: &str, options: &mut Options) -> Result<Startup> {
    let mode = options.take("scan.startup.mode").map(|m| m.to_ascii_lowercase());
    let offsets = options.take("scan.startup.offsets");
    let timestamp = options.take("scan.startup.timestamp");
    let startup = match mode.as_deref() {
        None | Some("earliest") => Startup::Earliest,
        Some("latest") => Startup::Latest,
        Some("offsets") => match &offsets {
            Some(text) => Startup::Offsets(parse_offsets(owner, text)?),
            None => return Err(Error::Invalid(format!("{owner}: 'scan.startup.mode' = 'offsets' needs 'scan.startup.offsets' = '0:42,1:300'"))),
        },
        Some("timestamp") => match &timestamp {
            Some(text) => Startup::Timestamp(parse_timestamp(owner, text)?),
            None => {
                return Err(Error::Invalid(format!("{owner}: 'scan.startup.mode' = 'timestamp' needs 'scan.startup.timestamp' = '2024-01-01T00:00:00Z'")));
            }
        },
        Some(other) => {
            return Err(Error::Invalid(format!("{owner}: 'scan.startup.mode' is 'earliest', 'latest', 'offsets' or 'timestamp', not '{other}'")));
        }
    };
    if offsets.is_some() && !matches!(startup, Startup::Offsets(_)) {
        return Err(Error::Invalid(format!(
            "{owner}: 'scan.startup.offsets' has no effect without 'scan.startup.mode' = 'offsets': add that, or leave it out"
        )));
    }
    if timestamp.is_some() && !matches!(startup, Startup::Timestamp(_)) {
        return Err(Error::Invalid(format!(
            "{owner}: 'scan.startup.timestamp' has no effect without 'scan.startup.mode' = 'timestamp': add that, or leave it out"
        )));
    }
    Ok(startup)
}

fn parse_offsets(owner: &str, text: &str) -> Result<BTreeMap<i32, i64>> {
    let form = || Error::Invalid(format!("{owner}: 'scan.startup.offsets' is a list of partition:offset like '0:42,1:300', not '{text}'"));
    let mut offsets = BTreeMap::new();
    for pair in text.split(',') {
        let (partition, offset) = pair.split_once(':').ok_or_else(form)?;
        let (partition, offset) = (partition.trim().parse::<i32>().map_err(|_| form())?, offset.trim().parse::<i64>().map_err(|_| form())?);
        if partition < 0 || offset < 0 {
            return Err(form());
        }
        if offsets.insert(partition, offset).is_some() {
            return Err(Error::Invalid(format!("{owner}: 'scan.startup.offsets' names partition {partition} twice: leave one out")));
        }
    }
    Ok(offsets)
}

fn parse_timestamp(owner: &str, text: &str) -> Result<i64> {
    match text.trim().parse::<i64>() {
        Ok(milliseconds) if milliseconds >= 0 => Ok(milliseconds),
        _ => match DateTime::parse_from_rfc3339(text.trim()).map(|t| t.timestamp_millis()) {
            Ok(milliseconds) if milliseconds >= 0 => Ok(milliseconds),
            _ => Err(Error::Invalid(format!(
                "{owner}: 'scan.startup.timestamp' is an instant since 1970 like '2024-01-01T00:00:00Z', or milliseconds, not '{text}'"
            ))),
        },
    }
}

/// Refuses librdkafka properties that would break a promise of the engine, or reach from SQL into the server's machine.
fn check_property(owner: &str, name: &str) -> Result<()> {
    let reason = match name {
        "" => "has no name",
        "bootstrap.servers" | "metadata.broker.list" => "is given twice: write the option 'bootstrap.servers' alone",
        "auto.offset.reset" | "topic.auto.offset.reset" => {
            "would skip records after a gap without a word: write 'scan.startup.mode' = 'earliest' or 'latest' to say where reading starts"
        }
        "enable.auto.commit"
        | "auto.commit.enable"
        | "auto.commit.interval.ms"
        | "enable.auto.offset.store"
        | "offset.store.method"
        | "offset.store.path"
        | "offset.store.sync.interval.ms" => "is the engine's own: offsets are committed with each checkpoint; leave it out",
        "enable.partition.eof" => "is the engine's own: it tells a silent partition from a slow one; leave it out",
        "group.instance.id" | "group.protocol" | "group.protocol.type" | "group.remote.assignor" | "partition.assignment.strategy" => {
            "has no place here: a source reads all partitions itself and joins no group; leave it out"
        }
        "test.mock.num.brokers" | "test.mock.broker.rtt" => "would read from a mock cluster: start `tidegate broker` and name it in 'bootstrap.servers'",
        "topic.blacklist" => "would hide topics from the engine: leave it out",
        "log.queue" | "enabled_events" | "opaque" | "default_topic_conf" | "builtin.features" | "client.software.name" | "client.software.version" => {
            "is the client library's own: leave it out"
        }
        "plugin.library.paths" | "ssl.engine.location" | "ssl.engine.id" | "ssl.providers" => "would load a library into the server: SQL can't do that",
        "sasl.kerberos.kinit.cmd" => "would run a command on the server: SQL can't do that",
        "ssl.ca.location" => "names a file of the server, which SQL can't do: give the certificate itself as 'properties.ssl.ca.pem'",
        "ssl.certificate.location" => "names a file of the server, which SQL can't do: give the certificate itself as 'properties.ssl.certificate.pem'",
        "ssl.key.location" => "names a file of the server, which SQL can't do: give the key itself as 'properties.ssl.key.pem'",
        _ if name.ends_with(".location") || name.ends_with(".file") || name.ends_with(".keytab") => "names a file of the server: SQL can't do that",
        _ if name.ends_with("_cb") => "is the client library's own: leave it out",
        _ => return Ok(()),
    };
    Err(Error::Invalid(format!("{owner}: the property '{name}' {reason}")))
}
