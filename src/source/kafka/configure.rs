//! How every Kafka client is configured, consumer or producer.

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::token::TokenSource;
use crate::{
    catalog::ClientSettings,
    error::{Error, Result},
};

/// A configuration: what we would have, over it what was declared, and over that what the engine relies on.
///
/// OpenSSL is built in, and so knows no place of the system's where authorities are that everybody trusts. Where none were declared, the file
/// that `SSL_CERT_FILE` names is taken, or the usual places are tried.
pub(crate) fn configured(settings: &ClientSettings, usual: &[(&str, &str)], needed: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    // Its own log goes through `tracing`, which decides; what is below errors would be too much of it.
    config.set("bootstrap.servers", &settings.brokers).set("client.id", "tidegate").set("log_level", "3");
    for (name, value) in usual {
        config.set(*name, *value);
    }
    for (name, value) in TokenSource::of(settings).1 {
        config.set(name, value);
    }
    for (name, value) in needed {
        config.set(*name, *value);
    }
    let trusted = std::env::var("SSL_CERT_FILE").ok().filter(|file| !file.is_empty()).unwrap_or_else(|| "probe".into());
    let lacks = |names: &[&str]| names.iter().all(|name| config.get(name).is_none());
    let says = |name: &str, part: &str| config.get(name).is_some_and(|said| said.to_ascii_lowercase().contains(part));
    let tls = says("security.protocol", "ssl") && lacks(&["ssl.ca.location", "ssl.ca.pem"]);
    if tls {
        config.set("ssl.ca.location", &trusted);
    }
    config
}

/// Why a client could not be made.
pub(crate) fn not_made(settings: &ClientSettings, error: &KafkaError, whose: &str) -> Error {
    // The library's own error has the value in it, too.
    let why = match error {
        KafkaError::ClientConfig(_, why, name, _) if why.is_empty() => format!("the property '{name}' is not accepted"),
        KafkaError::ClientConfig(_, why, ..) => why.clone(),
        KafkaError::ClientCreation(why) => why.clone(),
        other => other.to_string(),
    };
    let why = settings.without_secrets(&why);
    Error::Invalid(format!("the Kafka client for {whose} can't be made: {}; check the 'properties.…' and what is said of security", why.trim_end_matches('.')))
}

/// Whether the library takes all properties; nothing is connected.
pub(crate) fn check(settings: &ClientSettings, whose: &str) -> Result<()> {
    let config = configured(settings, &[], &[]);
    config.create_native_config().map(drop).map_err(|error| not_made(settings, &error, whose))
}

/// Whether a code means that somebody has to change something first.
pub(crate) fn is_denied(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed
    )
}
