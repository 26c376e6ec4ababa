//! What a process used.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Clock ticks of `/proc` in a second, on every Linux that we run on.
const TICKS_PER_S: f64 = 100.0;

/// Follows the process that it is made in, from start to end.
#[derive(Debug)]
pub struct Usage {
    start: Instant,
    first: Option<Duration>,
}

impl Default for Usage {
    fn default() -> Self {
        Self { start: Instant::now(), first: None }
    }
}

impl Usage {
    /// Notes that the first record was delivered, if that is not noted yet.
    pub fn first_record(&mut self) {
        self.first.get_or_insert_with(|| self.start.elapsed());
    }

    /// The line that a contender ends with.
    pub fn report(&self, records: u64) -> Value {
        json!({
            "records": records,
            "wall_s": self.start.elapsed().as_secs_f64(),
            "cpu_s": cpu_s("self"),
            "peak_memory_mb": peak_memory_mb("self"),
            "first_record_ms": self.first.map(|first| first.as_secs_f64() * 1e3),
        })
    }
}

/// CPU time that process `id` has used, all its threads together.
pub(crate) fn cpu_s(id: &str) -> Option<f64> {
    // User and system time are the 12th and 13th fields after the name.
    let fields = stat(id)?;
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Some(ticks.sum::<f64>() / TICKS_PER_S)
}

/// `R`, `S`, …; `Z` for one that has ended and was not waited for.
pub(crate) fn state(id: &str) -> Option<char> {
    stat(id)?.trim_start().chars().next()
}

/// What `/proc` says of a process after its name, which stands in parentheses and may hold blanks.
fn stat(id: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.to_owned())
}

/// The most memory that process `id` held; none for one that has ended.
pub(crate) fn peak_memory_mb(id: &str) -> Option<f64> {
    memory_mb(id, "VmHWM:")
}

/// The memory that it holds now.
pub(crate) fn resident_mb(id: &str) -> Option<f64> {
    memory_mb(id, "VmRSS:")
}

fn memory_mb(id: &str, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok().map(|kib| kib / 1024.0)
}
