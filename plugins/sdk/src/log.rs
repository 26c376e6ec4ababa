//! Lines for the host's log; in native tests they go to standard error.

use crate::bindings::millstream::plugin::host::Level;

/// Writes a line that only a developer wants.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Writes a line.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes a line that someone should see.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Writes a line that someone must see.
pub fn error(message: &str) {
    write(Level::Error, message);
}

#[cfg(target_family = "wasm")]
fn write(level: Level, message: &str) {
    crate::bindings::millstream::plugin::host::log(level, message);
}

#[cfg(not(target_family = "wasm"))]
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
