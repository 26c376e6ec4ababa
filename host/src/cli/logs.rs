//! Logs: to standard error, for people or as JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use crate::config::{LogFormat, LogLevel, LogsConfig};
use crate::run::LogSwitch;

/// The variable that overrides the config's level; it also takes a level a module, as in `info,millstream::kafka=debug`.
const VARIABLE: &str = "MILLSTREAM_LOG";

/// Begins to log as the config says, and returns what changes the level later; a second call changes nothing.
pub(super) fn start(config: &LogsConfig) -> LogSwitch {
    let filter = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let filter = filter.and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(config.level.name()));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Another subscriber is in place already: then that one decides.
    match config.format {
        LogFormat::Human => {
            let logs = logs.with_target(false).with_filter_reloading();
            let switch = switch(logs.reload_handle());
            let _ = logs.try_init();
            switch
        }
        LogFormat::Json => {
            let logs = logs.json().flatten_event(true).with_filter_reloading();
            let switch = switch(logs.reload_handle());
            let _ = logs.try_init();
            switch
        }
    }
}

fn switch<S: 'static>(handle: Handle<EnvFilter, S>) -> LogSwitch {
    LogSwitch::new(move |to| {
        let set = handle.reload(EnvFilter::new(to.name())).map_err(|why| why.to_string());
        tracing::info!(level = to.name(), "logging at another level from now on");
        set
    })
}

/// Begins to log what commands other than `run` have to say beside their output.
pub(super) fn start_quiet() {
    let _ = start(&LogsConfig { format: LogFormat::Human, level: LogLevel::Warn });
}
