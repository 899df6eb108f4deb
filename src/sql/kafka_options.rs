//! What a source's `WITH (…)` says of its topic.

use std::collections::BTreeMap;

use chrono::DateTime;

use super::{kafka_properties, options::Options};
use crate::{
    catalog::{DataLoss, KafkaDef, Link, OptionValue, Startup, Throttle},
    error::{Error, Result},
    units::Size,
};

/// Takes the topic's options.
pub(super) fn parse(owner: &str, options: &mut Options) -> Result<KafkaDef> {
    let topic = options.require("topic", "events")?;
    check_topic(owner, &topic)?;
    let (brokers, link, properties) = link(owner, options)?;
    let startup = startup(owner, options)?;
    let on_data_loss = on_data_loss(owner, options)?;
    let throttle = Throttle { records: rate(owner, options, "max.records.per.second")?, bytes: rate(owner, options, "max.bytes.per.second")? };
    Ok(KafkaDef { topic, brokers, startup, on_data_loss, properties, link, throttle })
}

/// Takes what says where the brokers are and how they are reached: `bootstrap.servers` or a connection, and librdkafka's properties.
pub(super) fn link(owner: &str, options: &mut Options) -> Result<(String, Link, BTreeMap<String, String>)> {
    let connection = options.take("connection");
    let brokers = match (&connection, options.take("bootstrap.servers")) {
        (None, None) => options.require("bootstrap.servers", "localhost:9092")?,
        (None, Some(brokers)) => brokers,
        (Some(_), None) => String::new(),
        (Some(name), Some(_)) => return Err(Error::Invalid(format!("{owner}: 'bootstrap.servers' is what connection {name} says: leave one of the two out"))),
    };
    if connection.is_none() {
        check_brokers(owner, &brokers)?;
    }
    let (mut properties, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for (property, value) in kafka_properties::take(owner, options, connection.as_deref())? {
        match value {
            OptionValue::Text(text) => drop(properties.insert(property, text)),
            OptionValue::Secret(name) => drop(secrets.insert(property, name)),
        }
    }
    Ok((brokers, Link::to(connection, secrets), properties))
}

/// A list of brokers.
pub(super) fn check_brokers(owner: &str, brokers: &str) -> Result<()> {
    match brokers.split(',').any(|broker| broker.trim().is_empty() || broker.trim().contains(char::is_whitespace)) {
        true => Err(Error::Invalid(format!("{owner}: 'bootstrap.servers' is a list like 'host:9092,other:9092', not '{brokers}'"))),
        false => Ok(()),
    }
}

fn rate(owner: &str, options: &mut Options, key: &str) -> Result<Option<u64>> {
    let Some(said) = options.take(key) else { return Ok(None) };
    let rate = if key.contains("bytes") { said.parse::<Size>().ok().map(|size| size.0 as u64) } else { said.parse().ok() };
    match rate {
        Some(rate) if rate > 0 => Ok(Some(rate)),
        _ if key.contains("bytes") => Err(Error::Invalid(format!("{owner}: '{key}' is a size like '5 MiB', not '{said}'"))),
        _ => Err(Error::Invalid(format!("{owner}: '{key}' is a whole number from 1, not '{said}'"))),
    }
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
pub(super) fn check_topic(owner: &str, topic: &str) -> Result<()> {
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
