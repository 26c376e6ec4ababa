//! How long each part of a command took, said at its end.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Times the parts of a command.
pub(crate) struct Clock {
    started: Instant,
    parts: Vec<(String, Duration)>,
}

impl Clock {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), parts: Vec::new() }
    }

    /// Runs one part and notes its time, however it ends.
    pub(crate) fn part<T>(&mut self, name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("── {name}");
        let started = Instant::now();
        let result = run();
        self.parts.push((name.to_owned(), started.elapsed()));
        result
    }

    /// One line a part, and the whole.
    pub(crate) fn report(&self) -> String {
        let width = self.parts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(5);
        let line = |name: &str, time: Duration| format!("   {name:<width$}  {:>7.1} s\n", time.as_secs_f64());
        let parts: String = self.parts.iter().map(|(name, time)| line(name, *time)).collect();
        format!("── time\n{parts}{}", line("total", self.started.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fails_is_reported_too() {
        let mut clock = Clock::start();
        assert!(clock.part("good", || Ok(())).is_ok());
        assert!(clock.part("bad", || -> Result<()> { anyhow::bail!("no") }).is_err());
        let report = clock.report();
        assert!(report.contains("good") && report.contains("bad") && report.contains("total"), "{report}");
    }
}
