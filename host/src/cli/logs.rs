//! Logs: to standard error, for people or as JSON.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogLevel, LogsConfig};

/// The variable that overrides the config's level; it also takes a level a module, as in `info,millstream::kafka=debug`.
const VARIABLE: &str = "MILLSTREAM_LOG";

/// Begins to log as the config says; a second call changes nothing.
pub(super) fn start(config: &LogsConfig) {
    let filter = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let filter = filter.and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(level(config.level)));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Another subscriber is in place already: then that one decides.
    let _ = match config.format {
        LogFormat::Human => logs.with_target(false).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
}

/// Begins to log what commands other than `run` have to say beside their output.
pub(super) fn start_quiet() {
    start(&LogsConfig { format: LogFormat::Human, level: LogLevel::Warn });
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}
