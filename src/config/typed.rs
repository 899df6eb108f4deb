//! What was typed, by layer: nothing is checked yet beyond its form, and a key that was not given is `None`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::units::{Size, Span};

/// One layer of configuration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Typed {
    /// `HOST:PORT` to listen on.
    pub listen: Option<String>,
    /// `HOST:PORT` of metrics and health; not served if not given.
    pub http: Option<String>,
    /// Where the catalog, checkpoints and tables live.
    pub data_dir: Option<PathBuf>,
    /// Folders that SQL may read files below.
    pub allow_paths: Option<Vec<PathBuf>>,
    /// SQL scripts to run before listening.
    pub init: Option<Vec<PathBuf>>,
    /// The shortest time between two epochs that have input.
    pub min_epoch_interval: Option<Span>,
    /// An epoch takes at most this many payload bytes.
    pub max_epoch_bytes: Option<Size>,
    /// An epoch takes at most this many records.
    pub max_epoch_rows: Option<Size>,
    /// How often state is checkpointed.
    pub checkpoint_interval: Option<Span>,
    /// Where checkpoints live.
    pub checkpoint_url: Option<String>,
    /// Threads that decode and execute.
    pub threads: Option<Size>,
    /// Where records are decoded: auto, cpu or gpu.
    pub device: Option<String>,
    /// Bytes that all views and queries together may hold.
    pub memory_limit: Option<Size>,
    /// So many queries run at once.
    pub max_statements: Option<Size>,
    /// So many queries wait for others to end.
    pub max_queued: Option<Size>,
    /// A query that has waited so long is refused.
    pub queue_timeout: Option<Span>,
    /// Bytes that one query may hold.
    pub query_memory_limit: Option<Size>,
    /// Bytes that all queries together may put on disk.
    pub spill_limit: Option<Size>,
    /// A query that takes longer ends.
    pub statement_timeout: Option<Span>,
    /// So many connections are served at once.
    pub max_connections: Option<Size>,
    /// A connection that has said nothing sensible by then is closed.
    pub handshake_timeout: Option<Span>,
    /// A silent client is asked so often whether it is there.
    pub keepalive_interval: Option<Span>,
    /// So many sessions are kept.
    pub max_sessions: Option<Size>,
    /// A session that nothing uses for so long is closed.
    pub session_timeout: Option<Span>,
    /// So many prepared statements a session has.
    pub max_prepared_statements: Option<Size>,
    /// Bytes of a message with rows.
    pub max_message_size: Option<Size>,
    /// Bytes of the headers of a call.
    pub max_header_size: Option<Size>,
    /// How often a silent subscription sends an empty batch.
    pub heartbeat_interval: Option<Span>,
    /// The server's certificate for TLS, in PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// Who vouches for clients, which then have to show a certificate.
    pub tls_client_ca: Option<PathBuf>,
    /// Makes a certificate in the data directory.
    pub tls_self_signed: Option<bool>,
    /// Whoever reaches the port may be let in, wherever it is.
    pub insecure: Option<bool>,
    /// How long a token counts.
    pub token_lifetime: Option<Span>,
    /// A file with the key that secrets are encrypted with.
    pub secret_key_file: Option<PathBuf>,
    /// Who vouches for users.
    pub auth: Option<TypedAuth>,
    /// A level, or a filter in `tracing`'s syntax.
    pub log: Option<String>,
    /// Text or JSON.
    pub log_format: Option<LogFormat>,
}

/// `[auth]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypedAuth {
    /// `[auth.jwt]`.
    pub jwt: Option<TypedJwt>,
}

/// `[auth.jwt]`: an issuer whose tokens count.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypedJwt {
    /// What `iss` has to be.
    pub issuer: String,
    /// What `aud` has to be, or one of several.
    pub audience: Texts,
    /// A file, or an `http://` or `https://` address.
    pub jwks: String,
    /// The algorithms that are used; RS256 and ES256 if not given.
    pub algorithms: Option<Vec<String>>,
    /// The claim that names the user; `sub` if not given.
    pub user_claim: Option<String>,
    /// The claim that lists roles; `roles` if not given.
    pub role_claim: Option<String>,
}

/// One text or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Texts {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// All keys, for the environment's names and the message that lists them.
pub(super) const KEYS: [&str; 38] = [
    "listen",
    "http",
    "data_dir",
    "allow_paths",
    "init",
    "min_epoch_interval",
    "max_epoch_bytes",
    "max_epoch_rows",
    "checkpoint_interval",
    "checkpoint_url",
    "threads",
    "device",
    "memory_limit",
    "max_statements",
    "max_queued",
    "queue_timeout",
    "query_memory_limit",
    "spill_limit",
    "statement_timeout",
    "max_connections",
    "handshake_timeout",
    "keepalive_interval",
    "max_sessions",
    "session_timeout",
    "max_prepared_statements",
    "max_message_size",
    "max_header_size",
    "heartbeat_interval",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
    "tls_self_signed",
    "insecure",
    "token_lifetime",
    "secret_key_file",
    "auth",
    "log",
    "log_format",
];

/// Keys that hold a list; in the environment its items are separated as in PATH.
const LISTS: [&str; 2] = ["allow_paths", "init"];

/// Keys that are on or off; in the environment `true` or `false`.
const SWITCHES: [&str; 2] = ["tls_self_signed", "insecure"];

/// The prefix of the environment's names.
const PREFIX: &str = "TIDEGATE_";

/// Names with the prefix that are no settings of the server: which file to read, the first admin's password, the key for secrets, the client's address and credentials, and what test scripts use.
const OTHERS: [&str; 21] = [
    "CONFIG",
    "ADMIN_PASSWORD",
    "SECRET_KEY",
    "URL",
    "USER",
    "PASSWORD",
    "TOKEN",
    "BROKERS",
    "BIN",
    "CACHE",
    "STATSBOMB",
    "KAFKA_JARS",
    "JDBC_JARS",
    "CLIENTS_PYTHON",
    "ADBC_RUST",
    "FUZZ_ITERATIONS",
    "FUZZ_SEED",
    "FUZZ_BODY",
    "SEEDS",
    "FAILPOINT",
    "LONG",
];

impl Typed {
    /// Reads a TOML file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let invalid = |error: &dyn std::fmt::Display| Error::Invalid(format!("can't read the configuration '{}': {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| invalid(&error))?;
        toml::from_str(&text).map_err(|error| invalid(&error))
    }

    /// Reads the environment's `TIDEGATE_…`.
    pub fn from_environment(environment: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut typed = Self::default();
        for (name, value) in environment {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if OTHERS.contains(&rest) || rest.starts_with("TEST_") {
                continue;
            }
            let key = rest.to_ascii_lowercase();
            if !KEYS.contains(&key.as_str()) || rest != key.to_ascii_uppercase() {
                let known = KEYS.map(|key| format!("{PREFIX}{}", key.to_ascii_uppercase())).join(", ");
                return Err(Error::Invalid(format!("there is no setting for the environment's {name}; there are {known}")));
            }
            let value = if LISTS.contains(&key.as_str()) {
                toml::Value::Array(std::env::split_paths(&value).map(|path| path.to_string_lossy().into_owned().into()).collect())
            } else if SWITCHES.contains(&key.as_str()) && matches!(value.as_str(), "true" | "false") {
                toml::Value::Boolean(value == "true")
            } else {
                toml::Value::String(value)
            };
            let one = toml::Table::from_iter([(key, value)]);
            let layer: Self =
                one.try_into().map_err(|error: toml::de::Error| Error::Invalid(format!("the environment's {name} can't be read: {}", error.message())))?;
            typed = layer.over(typed);
        }
        Ok(typed)
    }

    /// This layer where it says something, else the one below.
    pub fn over(self, below: Self) -> Self {
        Self {
            listen: self.listen.or(below.listen),
            http: self.http.or(below.http),
            data_dir: self.data_dir.or(below.data_dir),
            allow_paths: self.allow_paths.or(below.allow_paths),
            init: self.init.or(below.init),
            min_epoch_interval: self.min_epoch_interval.or(below.min_epoch_interval),
            max_epoch_bytes: self.max_epoch_bytes.or(below.max_epoch_bytes),
            max_epoch_rows: self.max_epoch_rows.or(below.max_epoch_rows),
            checkpoint_interval: self.checkpoint_interval.or(below.checkpoint_interval),
            checkpoint_url: self.checkpoint_url.or(below.checkpoint_url),
            threads: self.threads.or(below.threads),
            device: self.device.or(below.device),
            memory_limit: self.memory_limit.or(below.memory_limit),
            max_statements: self.max_statements.or(below.max_statements),
            max_queued: self.max_queued.or(below.max_queued),
            queue_timeout: self.queue_timeout.or(below.queue_timeout),
            query_memory_limit: self.query_memory_limit.or(below.query_memory_limit),
            spill_limit: self.spill_limit.or(below.spill_limit),
            statement_timeout: self.statement_timeout.or(below.statement_timeout),
            max_connections: self.max_connections.or(below.max_connections),
            handshake_timeout: self.handshake_timeout.or(below.handshake_timeout),
            keepalive_interval: self.keepalive_interval.or(below.keepalive_interval),
            max_sessions: self.max_sessions.or(below.max_sessions),
            session_timeout: self.session_timeout.or(below.session_timeout),
            max_prepared_statements: self.max_prepared_statements.or(below.max_prepared_statements),
            max_message_size: self.max_message_size.or(below.max_message_size),
            max_header_size: self.max_header_size.or(below.max_header_size),
            heartbeat_interval: self.heartbeat_interval.or(below.heartbeat_interval),
            tls_cert: self.tls_cert.or(below.tls_cert),
            tls_key: self.tls_key.or(below.tls_key),
            tls_client_ca: self.tls_client_ca.or(below.tls_client_ca),
            tls_self_signed: self.tls_self_signed.or(below.tls_self_signed),
            insecure: self.insecure.or(below.insecure),
            token_lifetime: self.token_lifetime.or(below.token_lifetime),
            secret_key_file: self.secret_key_file.or(below.secret_key_file),
            auth: self.auth.or(below.auth),
            log: self.log.or(below.log),
            log_format: self.log_format.or(below.log_format),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_keys_is_complete() {
        let message = toml::from_str::<Typed>("nonsense = 1").expect_err("there is no such key").to_string();
        assert!(KEYS.iter().all(|key| message.contains(&format!("`{key}`"))), "{message}");
        assert_eq!(message.matches('`').count() / 2, KEYS.len() + 1, "{message}");
    }
}
