//! What a source's `WITH (…)` says of how payloads and keys are written.
//!
//! A key's options are those of a payload behind the prefix `key.`; where the registry is, is said once for both.

use std::{collections::BTreeMap, sync::Arc};

use super::{csv_options, options::Options, protobuf_options};
use crate::{
    catalog::{AvroDef, Format, KafkaDef, KeyFormat, OptionValue, RegistryDef, Subject},
    error::{Error, Result},
};

/// Names a subject of the registry.
const SUBJECT: &str = "schema.registry.subject";

/// Which bytes of a record are spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Value,
    Key,
}

impl Side {
    /// An option's name for these bytes.
    fn option(self, name: &str) -> String {
        match self {
            Side::Value => name.into(),
            Side::Key => format!("key.{name}"),
        }
    }
}

/// What a statement says of formats. A schema that it leaves to the registry is a [`SchemaWanted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Formats {
    /// How payloads are written.
    pub(super) value: Wanted,
    /// How keys are written, if that is said.
    pub(super) key: Option<KeyWanted>,
    /// Where the schema of payloads in JSON is, which is looked at for columns alone.
    pub(super) columns_at: Option<Subject>,
}

/// A format, or the schema that it lacks yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    Known(Format),
    Schema(SchemaWanted),
}

/// The same of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyWanted {
    Known(KeyFormat),
    Schema(SchemaWanted),
}

/// A schema that is to be looked up when the source is created, and then stands in its statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaWanted {
    /// Where its newest version is.
    pub subject: Subject,
    /// The option that is to hold it.
    pub option: String,
    /// The option that is to hold the subject's name, where the statement doesn't say it.
    pub subject_option: Option<String>,
}

/// What is said of a registry.
struct Said {
    options: BTreeMap<String, String>,
    /// Its address is given.
    is_named: bool,
    /// There is a connection, which may give it.
    may_be_connection_s: bool,
    /// Some format has use for it.
    used: bool,
}

impl Said {
    /// The subject of a topic: one that is named, or the one that a registry's clients take.
    fn subject(&self, topic: &str, side: Side, named: Option<String>) -> Subject {
        let suffix = if side == Side::Key { "key" } else { "value" };
        Subject { name: named.unwrap_or_else(|| format!("{topic}-{suffix}")), options: self.options.clone() }
    }
}

/// Takes the options of formats.
pub(super) fn parse(owner: &str, kafka: &mut KafkaDef, options: &mut Options) -> Result<Formats> {
    let mut registry = registry(owner, kafka, options)?;
    let topic = kafka.topic.clone();
    let said = options.require("format", "json")?;
    let value = format(owner, &topic, options, Side::Value, &said, &mut registry)?;
    let columns_at = match value {
        Wanted::Known(Format::RegistryJson) => {
            let named = options.take(SUBJECT);
            let has_registry = registry.is_named || registry.may_be_connection_s;
            if named.is_some() && !has_registry {
                return Err(Error::Invalid(format!("{owner}: '{SUBJECT}' has no effect without '{}': add that, or leave it out", RegistryDef::URL)));
            }
            has_registry.then(|| registry.subject(&topic, Side::Value, named))
        }
        _ => None,
    };
    let key = match options.take("key.format") {
        None => None,
        Some(said) => Some(match said.to_ascii_lowercase().as_str() {
            // A key is seldom behind a registry's header where its payload is, so that is said in full.
            "json" => KeyWanted::Known(KeyFormat::Json),
            "text" => KeyWanted::Known(KeyFormat::Text),
            _ => match format(owner, &topic, options, Side::Key, &said, &mut registry)? {
                Wanted::Known(format) => KeyWanted::Known(KeyFormat::As(format)),
                Wanted::Schema(wanted) => KeyWanted::Schema(wanted),
            },
        }),
    };
    if registry.is_named && !registry.used {
        return Err(Error::Invalid(format!("{owner}: '{}' has no effect on format '{}': leave it out", RegistryDef::URL, said.to_ascii_lowercase())));
    }
    Ok(Formats { value, key, columns_at })
}

fn format(owner: &str, topic: &str, options: &mut Options, side: Side, said: &str, registry: &mut Said) -> Result<Wanted> {
    let known = match said.to_ascii_lowercase().as_str() {
        "json" if !registry.is_named => Format::Json,
        "json" | "json_registry" => {
            registry.used = true;
            Format::RegistryJson
        }
        "avro" => return avro(owner, topic, options, side, registry),
        "protobuf" => return protobuf(owner, topic, options, side, registry),
        "csv" if side == Side::Value => Format::Csv(csv_options::parse(owner, options)?),
        "text" if side == Side::Value => Format::Text,
        "bytes" if side == Side::Value => Format::Bytes,
        "debezium_json" if side == Side::Value => Format::DebeziumJson,
        _ => {
            let (option, names) = match side {
                Side::Value => ("format", "'json', 'json_registry', 'avro', 'protobuf', 'csv', 'text', 'bytes' or 'debezium_json'"),
                Side::Key => ("key.format", "'json', 'json_registry', 'text', 'avro' or 'protobuf'"),
            };
            return Err(Error::Unsupported(format!("{owner}: the format '{said}' is unknown: '{option}' is {names}")));
        }
    };
    Ok(Wanted::Known(known))
}

/// `'avro.schema'`, `'schema.registry.subject'`. Records stand behind a registry's header where a registry or a subject is named, or no schema is given.
fn avro(owner: &str, topic: &str, options: &mut Options, side: Side, registry: &mut Said) -> Result<Wanted> {
    let option = side.option("avro.schema");
    let schema = options.take(&option);
    let subject_option = side.option(SUBJECT);
    let named = options.take(&subject_option);
    let is_framed = registry.is_named || (registry.may_be_connection_s && (named.is_some() || schema.is_none()));
    if !is_framed {
        if named.is_some() {
            return Err(Error::Invalid(format!("{owner}: '{subject_option}' has no effect without '{}': add that, or leave it out", RegistryDef::URL)));
        }
        let Some(schema) = schema else {
            let example = "'{\"type\": \"record\", \"name\": \"event\", \"fields\": […]}'";
            let url = RegistryDef::URL;
            return Err(Error::Invalid(format!("{owner}: Avro is read by its schema: add '{url}' = 'http://localhost:8081', or '{option}' = {example}")));
        };
        return Ok(Wanted::Known(Format::Avro(Arc::new(AvroDef { schema, registry: None }))));
    }
    registry.used = true;
    let is_default = named.is_none();
    let subject = registry.subject(topic, side, named);
    Ok(match schema {
        Some(schema) => Wanted::Known(Format::Avro(Arc::new(AvroDef { schema, registry: Some(subject) }))),
        None => Wanted::Schema(SchemaWanted { subject, option, subject_option: is_default.then_some(subject_option) }),
    })
}

/// `'protobuf.…'`, `'schema.registry.subject'`.
fn protobuf(owner: &str, topic: &str, options: &mut Options, side: Side, registry: &mut Said) -> Result<Wanted> {
    let prefix = side.option("");
    let subject_option = side.option(SUBJECT);
    let named = options.take(&subject_option);
    let is_framed = registry.is_named || (registry.may_be_connection_s && named.is_some());
    let known = protobuf_options::parse(owner, &prefix, options, is_framed)?;
    if !is_framed {
        return match (named, known) {
            (Some(_), _) => Err(Error::Invalid(format!("{owner}: '{subject_option}' has no effect without '{}': add that, or leave it out", RegistryDef::URL))),
            (None, Some(format)) => Ok(Wanted::Known(format)),
            (None, None) => Err(Error::Internal(format!("{owner} has no Protobuf schema"))),
        };
    }
    registry.used = true;
    let is_default = named.is_none();
    let subject = registry.subject(topic, side, named);
    let option = side.option("protobuf.schema");
    Ok(match known {
        Some(format) => Wanted::Known(format),
        None => Wanted::Schema(SchemaWanted { subject, option, subject_option: is_default.then_some(subject_option) }),
    })
}

/// What is said of the registry. Secrets stand beside those of the topic.
fn registry(owner: &str, kafka: &mut KafkaDef, options: &mut Options) -> Result<Said> {
    let mut said = BTreeMap::new();
    let wanted = [RegistryDef::URL, RegistryDef::USER, RegistryDef::PASSWORD, RegistryDef::BOTH];
    let given: BTreeMap<String, OptionValue> = options.take_wanted(|key| wanted.contains(&key)).into_iter().collect();
    let is_named = given.contains_key(RegistryDef::URL);
    if is_named {
        RegistryDef::check(&given).map_err(|why| Error::Invalid(format!("{owner}: {why}")))?;
    }
    for (option, value) in given {
        match value {
            OptionValue::Text(text) => drop(said.insert(option, text)),
            OptionValue::Secret(name) => drop(kafka.link.secrets.insert(option, name)),
        }
    }
    if !is_named && !said.is_empty() && kafka.link.connection.is_none() {
        let message = format!(
            "{owner}: '{}' and '{}' have no effect without '{}': add that, or leave them out",
            RegistryDef::USER,
            RegistryDef::PASSWORD,
            RegistryDef::URL
        );
        return Err(Error::Invalid(message));
    }
    Ok(Said { options: said, is_named, may_be_connection_s: kafka.link.connection.is_some(), used: false })
}
