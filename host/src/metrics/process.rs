//! What the kernel says of this process.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The kernel's clock for CPU times, which Linux fixes for programs at 100 a second.
const TICKS_PER_SECOND: f64 = 100.0;
/// The page size where the kernel does not say otherwise.
const PAGE_BYTES: f64 = 4096.0;

/// CPU, memory and files of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// CPU time, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub resident_bytes: f64,
    /// Virtual memory in bytes.
    pub virtual_bytes: f64,
    /// Open file descriptors.
    pub open_fds: f64,
    /// The most that may be open; infinite where there is no bound.
    pub max_fds: f64,
    /// When the process started, in seconds since 1970 UTC.
    pub start_time_seconds: f64,
}

impl ProcessUsage {
    /// Reads it from `/proc`; none where there is none.
    pub fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        // The listing's own descriptor is closed when this returns.
        let open_fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count).saturating_sub(1);
        Self::parse(&stat, &uptime, &limits, &status, now).map(|usage| Self { open_fds: open_fds as f64, ..usage })
    }

    fn parse(stat: &str, uptime: &str, limits: &str, status: &str, now: f64) -> Option<Self> {
        // The program's name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let max_fds = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            resident_bytes: kib("VmRSS:").map_or(field(24)? * PAGE_BYTES, |kib| kib * 1024.0),
            virtual_bytes: field(23)?,
            open_fds: 0.0,
            max_fds: max_fds.split_whitespace().next()?.parse().unwrap_or(f64::INFINITY),
            start_time_seconds: now - uptime + field(22)? / TICKS_PER_SECOND,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read_whatever_the_program_is_called() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 4 0 1000 123456 77 18446744073709551615";
        let limits =
            "Limit Soft Hard Units\nMax open files            1024                 4096                 files\n";
        let found = ProcessUsage::parse(stat, "100.5 3.0\n", limits, "VmRSS:\t  200 kB\n", 1_000_000.0);
        let expected = ProcessUsage {
            cpu_seconds: 2.0,
            resident_bytes: 204_800.0,
            virtual_bytes: 123_456.0,
            open_fds: 0.0,
            max_fds: 1024.0,
            start_time_seconds: 1_000_000.0 - 100.5 + 10.0,
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = ProcessUsage::read().expect("a /proc");
        assert!(usage.resident_bytes > 1e5 && usage.open_fds >= 3.0 && usage.start_time_seconds > 1.6e9, "{usage:?}");
    }
}
