//! `system.settings`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringArray},
    datatypes::{Schema, SchemaRef},
};

use super::text;
use crate::{
    access::Who,
    session::{
        engine::{Engine, EngineConfig},
        limits::StatementLimits,
        settings::Settings,
    },
};

/// A setting of the server, as it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name in the configuration file.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What it would be if nobody said anything.
    pub default: String,
    /// What it is for.
    pub description: &'static str,
}

/// Columns of `system.settings`.
pub fn settings_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![text("name"), text("value"), text("default"), text("description")]))
}

/// Rows of `system.settings`: all for admins, for others those of the session.
pub fn settings(engine: &Engine, who: &Who, session: &Settings) -> Vec<ArrayRef> {
    let mut rows = if engine.access().is_admin(who) { engine.config().settings() } else { vec![] };
    rows.extend(session.list());
    rows.sort_by_key(|setting| setting.name);
    vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|s| s.name))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|s| &s.value))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|s| &s.default))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|s| s.description))),
    ]
}

impl EngineConfig {
    /// All settings, those of the programme around the engine among them.
    pub fn settings(&self) -> Vec<Setting> {
        let defaults = Self::new(self.data_dir.clone());
        let span = humantime::format_duration;
        let paths = self.allowed_paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
        let mut settings = self.around.clone();
        let mut add = |name, value: String, default: String, description| settings.push(Setting { name, value, default, description });
        add("allow_paths", paths, String::new(), "folders that SQL may read files below");
        add(
            "min_epoch_interval",
            span(self.min_epoch_interval).to_string(),
            span(defaults.min_epoch_interval).to_string(),
            "the shortest time between two epochs that have input",
        );
        add("max_epoch_bytes", self.max_epoch_bytes.to_string(), defaults.max_epoch_bytes.to_string(), "an epoch takes at most this many payload bytes");
        add("max_epoch_rows", self.max_epoch_rows.to_string(), defaults.max_epoch_rows.to_string(), "an epoch takes at most this many records");
        add(
            "checkpoint_interval",
            span(self.checkpoint_interval).to_string(),
            span(defaults.checkpoint_interval).to_string(),
            "how often state is checkpointed",
        );
        add("memory_limit", self.memory_limit.to_string(), defaults.memory_limit.to_string(), "bytes that all views and queries together may hold");
        let (limits, usual) = (&self.statements, StatementLimits::of(self.memory_limit));
        let never = |timeout: Option<std::time::Duration>| timeout.map_or("none".into(), |timeout| span(timeout).to_string());
        add("max_statements", limits.running.to_string(), usual.running.to_string(), "so many queries run at once; others wait");
        add("max_queued", limits.waiting.to_string(), usual.waiting.to_string(), "so many queries wait; others are refused");
        add("queue_timeout", span(limits.wait).to_string(), span(usual.wait).to_string(), "a query that has waited so long is refused");
        add("query_memory_limit", limits.memory.to_string(), usual.memory.to_string(), "bytes that one query may hold");
        add("spill_limit", limits.spill.to_string(), usual.spill.to_string(), "bytes that all queries together may put on disk");
        add("statement_timeout", never(limits.timeout), never(usual.timeout), "a query that takes longer ends with an error");
        let (clients, usual) = (&self.clients, super::super::clients::ClientLimits::of(self.memory_limit));
        add("max_connections", clients.connections.to_string(), usual.connections.to_string(), "so many connections are served at once");
        add(
            "handshake_timeout",
            span(clients.handshake_timeout).to_string(),
            span(usual.handshake_timeout).to_string(),
            "a connection that has said nothing sensible by then is closed",
        );
        add(
            "keepalive_interval",
            span(clients.keepalive_interval).to_string(),
            span(usual.keepalive_interval).to_string(),
            "a silent client is asked so often whether it is there; without an answer for as long it is gone",
        );
        add("max_sessions", clients.sessions.to_string(), usual.sessions.to_string(), "so many sessions are kept");
        add(
            "session_timeout",
            span(clients.session_timeout).to_string(),
            span(usual.session_timeout).to_string(),
            "a session or a prepared statement that nothing uses for so long is closed",
        );
        add("max_prepared_statements", clients.prepared.to_string(), usual.prepared.to_string(), "so many prepared statements a session has at once");
        add("max_message_size", clients.message.to_string(), usual.message.to_string(), "bytes of a message with rows from a client");
        add("max_header_size", clients.header.to_string(), usual.header.to_string(), "bytes of the headers of a client's call");
        add("device", self.device.to_string(), defaults.device.to_string(), "where records are decoded: auto, cpu or gpu");
        add("threads", self.threads.to_string(), defaults.threads.to_string(), "threads that decode and execute");
        settings
    }
}
