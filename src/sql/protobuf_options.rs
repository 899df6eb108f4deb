//! What a source's `WITH (…)` says of its Protobuf messages.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::options::Options;
use crate::{
    catalog::{Format, Framing, ProtobufDef, compile_proto, message_of, only_message, read_descriptor_set},
    error::{Error, Result},
};

/// Takes the options of Protobuf, whose names begin with `prefix`; `None` if they leave the schema to a registry. With a registry messages stand
/// behind its frame.
pub(super) fn parse(owner: &str, prefix: &str, options: &mut Options, registry: bool) -> Result<Option<Format>> {
    let option = |name: &str| format!("{prefix}protobuf.{name}");
    let (schema, descriptor, message) = (option("schema"), option("descriptor"), option("message"));
    let name = options.take(&message);
    let framing = framing(owner, &option("framing"), options, registry)?;
    let within = |error: Error| Error::Invalid(format!("{owner}: {error}"));
    let found = match (options.take(&schema), options.take(&descriptor)) {
        (Some(_), Some(_)) => {
            return Err(Error::Invalid(format!("{owner}: '{schema}' and '{descriptor}' both say what its messages are: leave one out")));
        }
        (Some(text), None) => {
            let file = compile_proto(&text, &BTreeMap::new()).map_err(within)?;
            match name {
                Some(name) => message_of(file.parent_pool(), &name),
                None => only_message(&file, &message),
            }
        }
        (None, Some(text)) => {
            let bytes = STANDARD.decode(text.split_whitespace().collect::<String>()).map_err(|error| {
                Error::Invalid(format!(
                    "{owner}: '{descriptor}' is a FileDescriptorSet in base64, as `protoc --include_imports --descriptor_set_out=/dev/stdout x.proto | base64` \
                     gives it: {error}"
                ))
            })?;
            let pool = read_descriptor_set(&bytes).map_err(within)?;
            match name {
                Some(name) => message_of(&pool, &name),
                None => Err(Error::Invalid(format!("'{descriptor}' needs '{message}' = 'package.Name', which says what the topic's messages are"))),
            }
        }
        (None, None) if registry => {
            // It is needed again once the schema is there; the statement keeps it.
            return Ok(None);
        }
        (None, None) => Err(Error::Invalid(format!(
            "Protobuf is read by its schema: add '{schema}' = 'syntax = \"proto3\"; message …', or '{descriptor}' with a FileDescriptorSet in base64"
        ))),
    };
    Ok(Some(Format::Protobuf(Arc::new(ProtobufDef::new(found.map_err(within)?, framing)))))
}

fn framing(owner: &str, option: &str, options: &mut Options, registry: bool) -> Result<Framing> {
    match options.take(option).map(|said| said.to_ascii_lowercase()).as_deref() {
        None if registry => Ok(Framing::Confluent),
        None | Some("none") => Ok(Framing::None),
        Some("confluent") => Ok(Framing::Confluent),
        Some(other) => Err(Error::Invalid(format!("{owner}: '{option}' is 'none' or 'confluent', not '{other}'"))),
    }
}
