//! `host.log`: a plugin's lines in the host's log, few, short and harmless.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::abi::Level;

/// Lines a second that one stage may write.
const LINES_PER_SECOND: u64 = 50;
/// Bytes of a line.
pub(super) const LINE_BYTES: usize = 1024;

/// Counts one stage's lines; the instances of the stage share it.
#[derive(Debug)]
pub(super) struct LogGate {
    plugin: String,
    since: Instant,
    second: AtomicU64,
    lines: AtomicU64,
    suppressed: AtomicU64,
}

impl LogGate {
    pub(super) fn new(plugin: &str) -> Self {
        Self {
            plugin: plugin.to_owned(),
            since: Instant::now(),
            second: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// True where one more line may be written now.
    pub(super) fn admits(&self) -> bool {
        self.admits_at(self.since.elapsed().as_secs())
    }

    fn admits_at(&self, second: u64) -> bool {
        if self.second.swap(second, Relaxed) != second {
            self.lines.store(0, Relaxed);
        }
        let admitted = self.lines.fetch_add(1, Relaxed) < LINES_PER_SECOND;
        if !admitted {
            self.suppressed.fetch_add(1, Relaxed);
        }
        admitted
    }

    /// Writes a line that was admitted, and how many were not since the last.
    pub(super) fn write(&self, level: Level, message: &str) {
        let (plugin, line) = (self.plugin.as_str(), harmless(message));
        let suppressed = self.suppressed.swap(0, Relaxed);
        match level {
            Level::Debug => tracing::debug!(plugin, suppressed, "{line}"),
            Level::Info => tracing::info!(plugin, suppressed, "{line}"),
            Level::Warn => tracing::warn!(plugin, suppressed, "{line}"),
            Level::Error => tracing::error!(plugin, suppressed, "{line}"),
        }
    }
}

/// At most [`LINE_BYTES`] of `text`, control characters escaped.
pub(super) fn harmless(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_BYTES));
    for c in text.chars() {
        let before = line.len();
        if c.is_control() {
            // Writing to a String can't fail.
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
        if line.len() > LINE_BYTES {
            line.truncate(before);
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_and_its_control_characters_escaped() {
        assert_eq!(harmless("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(harmless(&"ä".repeat(2000)).len(), LINE_BYTES);
        assert!(harmless(&"\n".repeat(2000)).len() <= LINE_BYTES);
    }

    #[test]
    fn a_stage_writes_so_many_lines_a_second() {
        let gate = LogGate::new("p");
        let lines = (0..1000).filter(|_| gate.admits_at(7)).count();
        assert_eq!(lines as u64, LINES_PER_SECOND);
        assert!(gate.admits_at(8));
        assert_eq!(gate.suppressed.load(Relaxed), 1000 - LINES_PER_SECOND);
    }
}
