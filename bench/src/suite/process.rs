//! A process that is watched from outside.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use crate::usage;

/// How often a process that is to end is looked at; memory is read as often.
const STEP: Duration = Duration::from_millis(20);
/// How long after a contender's end its watcher may still need to see what it did.
const GRACE: Duration = Duration::from_secs(10);

/// A contender at work; killed when it is dropped before its end.
pub(super) struct Process {
    child: Child,
    log: String,
    started_unix_ms: f64,
    peak_memory_mb: f64,
}

/// What a process used from its start to its end.
pub(super) struct Used {
    pub(super) cpu_s: f64,
    pub(super) peak_memory_mb: f64,
}

impl Process {
    /// Starts `command` with its output in the file `log`.
    pub(super) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file);
        let started_unix_ms = unix_ms();
        let child = command.spawn().with_context(|| format!("can't start {command:?}"))?;
        Ok(Self { child, log: log.display().to_string(), started_unix_ms, peak_memory_mb: 0.0 })
    }

    /// When it was started.
    pub(super) fn started_unix_ms(&self) -> f64 {
        self.started_unix_ms
    }

    /// CPU time so far.
    pub(super) fn cpu_s(&self) -> Result<f64> {
        usage::cpu_s(&self.child.id().to_string()).context("the process is gone")
    }

    /// The memory that it holds.
    pub(super) fn memory_mb(&self) -> Result<f64> {
        usage::resident_mb(&self.child.id().to_string()).context("the process is gone")
    }

    /// Looks at its memory; true while it runs.
    pub(super) fn look(&mut self) -> Result<bool> {
        let id = self.child.id().to_string();
        if let Some(peak) = usage::peak_memory_mb(&id) {
            self.peak_memory_mb = self.peak_memory_mb.max(peak);
        }
        // One that has ended stays readable until somebody waits for it, and with it its CPU time.
        Ok(usage::state(&id).context("the process is gone")? != 'Z')
    }

    /// Asks it to end.
    pub(super) fn terminate(&mut self) -> Result<()> {
        self.look()?;
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        status.context("can't run kill").map(drop)
    }

    /// Waits for its end.
    pub(super) fn wait(mut self, timeout: Duration) -> Result<Used> {
        let start = Instant::now();
        while self.look()? {
            if start.elapsed() > timeout {
                bail!("it does not end within {timeout:?}; see {}", self.log);
            }
            std::thread::sleep(STEP);
        }
        let cpu_s = self.cpu_s()?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("it ended with {status}; see {}", self.log);
        }
        Ok(Used { cpu_s, peak_memory_mb: self.peak_memory_mb })
    }

    /// Waits until `other` has ended, and looks at the memory meanwhile. This process may end first, but not long before;
    /// it is left to [`Process::wait`] to ask how.
    pub(super) fn wait_for(&mut self, other: &mut Child) -> Result<()> {
        let mut running_at = Instant::now();
        loop {
            if self.look()? {
                running_at = Instant::now();
            }
            if let Some(status) = other.try_wait()? {
                return if status.success() { Ok(()) } else { bail!("the watcher failed") };
            }
            if running_at.elapsed() > GRACE {
                bail!("it ended too soon; see {}", self.log);
            }
            std::thread::sleep(STEP);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; then both fail, and nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unix_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3
}
