//! Log lines to standard error: standard output is for what a command answers.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts logging; the first call of the process counts.
pub fn start(config: &LogConfig) {
    // The filter was checked with the configuration.
    let filter = EnvFilter::builder().parse_lossy(&config.filter);
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}
