//! What a source's `WITH (…)` says of how payloads and keys are written.
//!
//! A key's options are those of a payload behind the prefix `key.`; where the registry is, is said once for both.

use std::sync::Arc;

use super::{csv_options, options::Options, protobuf_options};
use crate::{
    catalog::{AvroDef, Format, KeyFormat, RegistryDef, Subject},
    error::{Error, Result},
};

/// A registry's address, user and password.
const URL: &str = "schema.registry.url";
const USER: &str = "schema.registry.username";
const PASSWORD: &str = "schema.registry.password";

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
}

/// Takes the options of formats.
pub(super) fn parse(owner: &str, topic: &str, options: &mut Options) -> Result<Formats> {
    let registry = registry(owner, options)?;
    let mut used = false;
    let said = options.require("format", "json")?;
    let value = format(owner, topic, options, Side::Value, &said, registry.as_ref(), &mut used)?;
    let key = match options.take("key.format") {
        None => None,
        Some(said) => Some(match said.to_ascii_lowercase().as_str() {
            // A key is seldom behind a registry's header where its payload is, so that is said in full.
            "json" => KeyWanted::Known(KeyFormat::Json),
            "text" => KeyWanted::Known(KeyFormat::Text),
            _ => match format(owner, topic, options, Side::Key, &said, registry.as_ref(), &mut used)? {
                Wanted::Known(format) => KeyWanted::Known(KeyFormat::As(format)),
                Wanted::Schema(wanted) => KeyWanted::Schema(wanted),
            },
        }),
    };
    if registry.is_some() && !used {
        return Err(Error::Invalid(format!("{owner}: '{URL}' has no effect on format '{}': leave it out", said.to_ascii_lowercase())));
    }
    Ok(Formats { value, key })
}

fn format(owner: &str, topic: &str, options: &mut Options, side: Side, said: &str, registry: Option<&RegistryDef>, used: &mut bool) -> Result<Wanted> {
    let known = match said.to_ascii_lowercase().as_str() {
        "json" if registry.is_some() => {
            *used = true;
            Format::RegistryJson
        }
        "json" => Format::Json,
        "json_registry" => {
            *used = true;
            Format::RegistryJson
        }
        "avro" => return avro(owner, topic, options, side, registry, used),
        "protobuf" => return protobuf(owner, topic, options, side, registry, used),
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

/// `'avro.schema'`, `'schema.registry.subject'`.
fn avro(owner: &str, topic: &str, options: &mut Options, side: Side, registry: Option<&RegistryDef>, used: &mut bool) -> Result<Wanted> {
    let option = side.option("avro.schema");
    let schema = options.take(&option);
    let subject_option = side.option("schema.registry.subject");
    let named = options.take(&subject_option);
    let Some(registry) = registry else {
        if named.is_some() {
            return Err(Error::Invalid(format!("{owner}: '{subject_option}' has no effect without '{URL}': add that, or leave it out")));
        }
        let Some(schema) = schema else {
            let example = "'{\"type\": \"record\", \"name\": \"event\", \"fields\": […]}'";
            return Err(Error::Invalid(format!("{owner}: Avro is read by its schema: add '{URL}' = 'http://localhost:8081', or '{option}' = {example}")));
        };
        return Ok(Wanted::Known(Format::Avro(Arc::new(AvroDef { schema, registry: None }))));
    };
    *used = true;
    let suffix = if side == Side::Key { "key" } else { "value" };
    let subject = Subject { registry: registry.clone(), name: named.unwrap_or_else(|| format!("{topic}-{suffix}")) };
    Ok(match schema {
        Some(schema) => Wanted::Known(Format::Avro(Arc::new(AvroDef { schema, registry: Some(subject) }))),
        None => Wanted::Schema(SchemaWanted { subject, option }),
    })
}

/// `'protobuf.…'`, `'schema.registry.subject'`.
fn protobuf(owner: &str, topic: &str, options: &mut Options, side: Side, registry: Option<&RegistryDef>, used: &mut bool) -> Result<Wanted> {
    let prefix = side.option("");
    let subject_option = side.option("schema.registry.subject");
    let named = options.take(&subject_option);
    let known = protobuf_options::parse(owner, &prefix, options, registry.is_some())?;
    let Some(registry) = registry else {
        return match (named, known) {
            (Some(_), _) => Err(Error::Invalid(format!("{owner}: '{subject_option}' has no effect without '{URL}': add that, or leave it out"))),
            (None, Some(format)) => Ok(Wanted::Known(format)),
            (None, None) => Err(Error::Internal(format!("{owner} has no Protobuf schema"))),
        };
    };
    *used = true;
    let suffix = if side == Side::Key { "key" } else { "value" };
    let subject = Subject { registry: registry.clone(), name: named.unwrap_or_else(|| format!("{topic}-{suffix}")) };
    Ok(match known {
        Some(format) => Wanted::Known(format),
        None => Wanted::Schema(SchemaWanted { subject, option: side.option("protobuf.schema") }),
    })
}

fn registry(owner: &str, options: &mut Options) -> Result<Option<RegistryDef>> {
    let (url, user, password) = (options.take(URL), options.take(USER), options.take(PASSWORD));
    let Some(url) = url else {
        return match (user, password) {
            (None, None) => Ok(None),
            _ => Err(Error::Invalid(format!("{owner}: '{USER}' and '{PASSWORD}' have no effect without '{URL}': add that, or leave them out"))),
        };
    };
    let url = url.trim().trim_end_matches('/').to_string();
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if !rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || c == '?' || c == '#')) {
        return Err(Error::Invalid(format!("{owner}: '{URL}' is an address like 'http://localhost:8081', not '{url}'")));
    }
    if rest.is_some_and(|rest| rest.split('/').next().unwrap_or_default().contains('@')) {
        return Err(Error::Invalid(format!("{owner}: '{URL}' holds a user, and addresses are shown: write '{USER}' and '{PASSWORD}' instead")));
    }
    if user.is_none() && password.is_some() {
        return Err(Error::Invalid(format!("{owner}: '{PASSWORD}' needs '{USER}': add that")));
    }
    Ok(Some(RegistryDef { url, user, password }))
}
