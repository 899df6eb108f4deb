//! Which librdkafka properties a declaration may set, how security is told, and whether that can work.

use std::collections::BTreeMap;

use super::{options::Options, syntax};
use crate::{
    catalog::OptionValue,
    error::{Error, Result},
};

/// Prefix of options that go to librdkafka as they are.
const PROPERTIES: &str = "properties.";

/// Beginnings of options about security, which need no `properties.` before them.
const SECURITY: [&str; 4] = ["security.", "sasl.", "ssl.", "https."];

/// All of them.
pub(super) const SECURITY_OPTIONS: [&str; 22] = [
    "security.protocol",
    "sasl.mechanism",
    "sasl.username",
    "sasl.password",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.method",
    "sasl.kerberos.service.name",
    "sasl.kerberos.principal",
    "sasl.kerberos.min.time.before.relogin",
    "ssl.ca.pem",
    "ssl.certificate.pem",
    "ssl.key.pem",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
    "ssl.cipher.suites",
    "ssl.curves.list",
    "ssl.sigalgs.list",
    "https.ca.pem",
    "sasl.mechanisms",
];

const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
const MECHANISMS: [&str; 5] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI"];

/// Whether GSSAPI is built in.
const GSSAPI: bool = cfg!(feature = "gssapi");

/// Whether an option says how brokers are reached: where they are, and who asks.
pub(super) fn is_place(key: &str) -> bool {
    let name = key.strip_prefix(PROPERTIES).unwrap_or(key);
    matches!(key, "connection" | "bootstrap.servers") || SECURITY.iter().any(|prefix| name.starts_with(prefix))
}

/// What a declaration says to librdkafka, by librdkafka's names.
pub(super) type Properties = BTreeMap<String, OptionValue>;

/// Takes all options that go to librdkafka, and checks what they say of security; beside a connection they may say nothing of that.
pub(super) fn take(owner: &str, options: &mut Options, connection: Option<&str>) -> Result<Properties> {
    let is_security = |key: &str| SECURITY.iter().any(|prefix| key.starts_with(prefix));
    let mut properties = Properties::new();
    let mut direct = vec![];
    for (key, value) in options.take_wanted(|key| key.starts_with(PROPERTIES) || is_security(key)) {
        let name = key.strip_prefix(PROPERTIES).unwrap_or(&key);
        check_name(owner, name)?;
        if name == key && !SECURITY_OPTIONS.contains(&name) {
            let advice = match syntax::nearest(name, SECURITY_OPTIONS) {
                Some(near) => format!("did you mean '{near}'?"),
                None => format!("known are {}; what else librdkafka knows is written 'properties.{name}'", SECURITY_OPTIONS[..21].join(", ")),
            };
            return Err(Error::Invalid(format!("{owner} has no option '{key}': {advice}")));
        }
        if let Some(connection) = connection.filter(|_| is_of_connection(name)) {
            return Err(Error::Invalid(format!(
                "{owner}: '{key}' is for connection {connection} to say, whose secrets must go nowhere else: ALTER CONNECTION {connection} SET ('{name}' = …), or leave it out"
            )));
        }
        let name = if name == "sasl.mechanism" { "sasl.mechanisms" } else { name };
        if name == key || key == "sasl.mechanism" {
            direct.push(key.clone());
        }
        if properties.insert(name.to_string(), value).is_some() {
            return Err(Error::Invalid(format!(
                "{owner}: the option '{name}' is given twice, with 'properties.' and without, or as a mechanism: leave one out"
            )));
        }
    }
    if connection.is_none() {
        check_security(owner, &mut properties, &direct)?;
    }
    Ok(properties)
}

/// Refuses what can't work, where a broker would only hang up: each wrong combination in a sentence. `direct`: what was written without
/// `properties.`, and so is meant to have an effect.
fn check_security(owner: &str, properties: &mut Properties, direct: &[String]) -> Result<()> {
    let invalid = |what: String| Err(Error::Invalid(format!("{owner}: {what}")));
    let text = |properties: &Properties, name: &str| match properties.get(name) {
        Some(OptionValue::Text(text)) => Some(text.clone()),
        _ => None,
    };
    for name in ["ssl.ca.pem", "ssl.certificate.pem", "ssl.key.pem", "https.ca.pem"] {
        // In the place of a key that is not shown stands this.
        if text(properties, name).is_some_and(|text| !text.contains("-----BEGIN ") && text != "***") {
            return invalid(format!("'{name}' is the PEM text itself, which begins with -----BEGIN …-----, not a file's name or anything else"));
        }
    }
    let protocol = match text(properties, "security.protocol") {
        None => "PLAINTEXT".into(),
        Some(said) => match PROTOCOLS.iter().find(|known| known.eq_ignore_ascii_case(&said)) {
            Some(known) => known.to_string(),
            None => return invalid(format!("'security.protocol' is {}, not '{said}'", listed(&PROTOCOLS))),
        },
    };
    let (tls, sasl) = (protocol.ends_with("SSL"), protocol.starts_with("SASL"));
    let useless = |prefix: &str, needed: &str| match direct.iter().find(|key| key.starts_with(prefix)) {
        Some(key) => invalid(format!("'{key}' has no effect without 'security.protocol' = '{needed}': add that, or leave it out")),
        None => Ok(()),
    };
    if !sasl {
        useless("sasl.", if tls { "SASL_SSL" } else { "SASL_SSL' or 'SASL_PLAINTEXT" })?;
    }
    if !tls {
        useless("ssl.", if sasl { "SASL_SSL" } else { "SSL' or 'SASL_SSL" })?;
    }
    if tls {
        let has = |name: &str| properties.contains_key(name);
        if has("ssl.certificate.pem") != has("ssl.key.pem") && !has("ssl.keystore.location") {
            return invalid("'ssl.certificate.pem' and 'ssl.key.pem' belong together, the client's certificate and its key: give both".into());
        }
    }
    if !sasl {
        return Ok(());
    }
    let mechanism = match properties.get("sasl.mechanisms") {
        Some(OptionValue::Text(said)) => match MECHANISMS.iter().find(|known| known.eq_ignore_ascii_case(said)) {
            Some(known) => *known,
            None => return invalid(format!("'sasl.mechanism' is {}, not '{said}'", listed(&MECHANISMS))),
        },
        Some(OptionValue::Secret(_)) => return invalid("'sasl.mechanism' is no secret: write it in single quotes".into()),
        None => return invalid(format!("'security.protocol' = '{protocol}' needs 'sasl.mechanism' = {}: ask who runs the broker which", listed(&MECHANISMS))),
    };
    properties.insert("sasl.mechanisms".into(), OptionValue::Text(mechanism.into()));
    let lacks = |properties: &Properties, needed: &[&str]| needed.iter().find(|name| !properties.contains_key(**name)).map(|name| name.to_string());
    match mechanism {
        "GSSAPI" if !GSSAPI => invalid(
            "'sasl.mechanism' = 'GSSAPI' (Kerberos) is not built into this server: build it with `cargo build --release --features gssapi`, or use SCRAM-SHA-512 or OAUTHBEARER".into(),
        ),
        "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" => match lacks(properties, &["sasl.username", "sasl.password"]) {
            Some(name) => invalid(format!("'sasl.mechanism' = '{mechanism}' needs '{name}': add it (a password as SECRET name, after CREATE SECRET name AS '…')")),
            None => Ok(()),
        },
        "OAUTHBEARER" => {
            // The other method takes tokens from a program around the client, and there is none here.
            let method = properties.entry("sasl.oauthbearer.method".into()).or_insert_with(|| OptionValue::Text("oidc".into())).clone();
            if method != OptionValue::Text("oidc".into()) {
                return invalid("'sasl.oauthbearer.method' is 'oidc': tokens are fetched with OIDC's client credentials; leave it out".into());
            }
            match lacks(properties, &["sasl.oauthbearer.token.endpoint.url", "sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret"]) {
                Some(name) => invalid(format!("'sasl.mechanism' = 'OAUTHBEARER' needs '{name}': tokens are fetched with OIDC's client credentials")),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// Whether a property says how and as whom brokers are reached: where a connection says that, nothing beside it may, since its secrets
/// would go to whom they are not meant for.
pub(super) fn is_of_connection(name: &str) -> bool {
    SECURITY.iter().any(|prefix| name.starts_with(prefix))
        || ["enable.ssl", "enable.sasl", "broker.", "socket.", "client.dns", "resolve", "debug"].iter().any(|prefix| name.starts_with(prefix))
}

/// Refuses librdkafka properties that would break a promise of the engine, or reach from SQL into the server's machine.
fn check_name(owner: &str, name: &str) -> Result<()> {
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
        "enable.ssl.certificate.verification" => {
            "would send passwords to whoever answers: give the authority's certificate as 'ssl.ca.pem' instead, and if only the name differs write 'ssl.endpoint.identification.algorithm' = 'none'"
        }
        "plugin.library.paths" | "ssl.engine.location" | "ssl.engine.id" | "ssl.providers" => "would load a library into the server: SQL can't do that",
        "sasl.kerberos.kinit.cmd" => "would run a command on the server: SQL can't do that",
        "ssl.ca.location" => "names a file of the server, which SQL can't do: give the certificate itself as 'properties.ssl.ca.pem'",
        "ssl.certificate.location" => "names a file of the server, which SQL can't do: give the certificate itself as 'properties.ssl.certificate.pem'",
        "ssl.key.location" => "names a file of the server, which SQL can't do: give the key itself as 'properties.ssl.key.pem'",
        "sasl.jaas.config" => {
            "is of Java's client: write 'sasl.username' and 'sasl.password', or 'sasl.oauthbearer.client.id' and 'sasl.oauthbearer.client.secret'"
        }
        "sasl.oauthbearer.extensions" | "sasl.oauthbearer.grant.type" => "is not supported: tokens are fetched with OIDC's client credentials; leave it out",
        _ if name.starts_with("sasl.oauthbearer.assertion.") => "is not supported: tokens are fetched with OIDC's client credentials; leave it out",
        _ if name.starts_with("ssl.truststore.") => "is of Java's client: give the authority's certificate as 'ssl.ca.pem'",
        _ if name.starts_with("ssl.keystore.") => "names a file of the server, which SQL can't do: give 'ssl.certificate.pem' and 'ssl.key.pem'",
        _ if name.ends_with(".location") || name.ends_with(".file") || name.ends_with(".keytab") => "names a file of the server: SQL can't do that",
        _ if name.ends_with("_cb") => "is the client library's own: leave it out",
        _ => return Ok(()),
    };
    Err(Error::Invalid(format!("{owner}: the property '{name}' {reason}")))
}
