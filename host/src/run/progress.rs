//! What a run has done so far, for people.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::drain::DrainReadings;
use crate::task::Ledger;

use super::Prepared;

/// Upper bounds of the time between a record's arrival and its commit, in milliseconds; the last has none.
const LATENCY_BOUNDS_MS: [u64; 16] = [1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 500, 1_000, 5_000, u64::MAX];
/// How often progress is shown: on a terminal, and where it goes to a file.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(500);
const FILE_INTERVAL: Duration = Duration::from_secs(5);

/// Counters of a run, or of one of its workers.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The accounting of everything that is committed.
    pub ledger: Ledger,
    /// Committed transactions.
    pub commits: u64,
    latencies: [u64; LATENCY_BOUNDS_MS.len()],
}

impl Progress {
    /// Notes that `records` waited `latency_ms` from their arrival to their commit.
    pub fn note_latency(&mut self, latency_ms: u64, records: u64) {
        let bucket = LATENCY_BOUNDS_MS.iter().position(|&bound| latency_ms <= bound).unwrap_or(0);
        self.latencies[bucket] += records;
    }

    /// Adds what another counted.
    pub fn add(&mut self, other: &Self) {
        self.ledger.add(&other.ledger);
        self.commits += other.commits;
        self.latencies.iter_mut().zip(&other.latencies).for_each(|(own, other)| *own += other);
    }

    /// A bound, in milliseconds, within which 95 of 100 records were committed after their arrival.
    pub fn p95_ms(&self) -> Option<u64> {
        let total: u64 = self.latencies.iter().sum();
        let mut left = (total * 95).div_ceil(100);
        let within = |&(_, count): &(&u64, &u64)| {
            left = left.saturating_sub(*count);
            left == 0
        };
        if total == 0 {
            return None;
        }
        LATENCY_BOUNDS_MS.iter().zip(&self.latencies).find(within).map(|(bound, _)| *bound)
    }
}

/// Draws progress again and again: in place on a terminal, a line now and then elsewhere.
pub(super) struct Screen {
    stages: Vec<String>,
    in_place: bool,
    drawn_lines: usize,
    last: Option<(Instant, u64)>,
    started: Instant,
}

impl Screen {
    pub(super) fn new(prepared: &Prepared) -> Self {
        let stages = prepared.pipeline.stages.iter().map(|stage| stage.name.clone()).collect();
        let in_place = std::io::stderr().is_terminal();
        Self { stages, in_place, drawn_lines: 0, last: None, started: Instant::now() }
    }

    pub(super) fn draw(&mut self, progress: &Progress) {
        let interval = if self.in_place { TERMINAL_INTERVAL } else { FILE_INTERVAL };
        let records = progress.ledger.records_in;
        let now = Instant::now();
        let (since, before) = self.last.unwrap_or((self.started, 0));
        if self.last.is_some() && now - since < interval {
            return;
        }
        self.last = Some((now, records));
        let rate = (records - before) as f64 / (now - since).as_secs_f64().max(0.001);
        let mut text = format!(
            "{:>6.1} s  {records} records  {rate:.0}/s  {} dead letters  p95 {}  {} commits\n",
            self.started.elapsed().as_secs_f64(),
            progress.ledger.dead_lettered(),
            progress.p95_ms().map_or("-".to_owned(), |ms| format!("{ms} ms")),
            progress.commits,
        );
        if self.in_place {
            for (name, counts) in self.stages.iter().zip(&progress.ledger.stages) {
                text += &format!(
                    "          {name:<20} in {:>10}  forwarded {:>10}  dropped {:>8}  dead letters {:>8}\n",
                    counts.entered, counts.forwarded, counts.filtered, counts.dead_lettered
                );
            }
            let up = if self.drawn_lines > 0 { format!("\x1b[{}A\x1b[J", self.drawn_lines) } else { String::new() };
            self.drawn_lines = text.lines().count();
            text = up + &text;
        }
        // Progress that can't be shown is no reason to stop.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The counts of all workers together.
    pub progress: Progress,
    /// The stages' names.
    pub stages: Vec<String>,
    /// The outputs' names.
    pub outputs: Vec<String>,
    /// What each table's drain has done.
    pub tables: Vec<DrainReadings>,
}

impl Report {
    pub(super) fn new(prepared: &Prepared, progress: Progress, tables: Vec<DrainReadings>) -> Self {
        let pipeline = &prepared.pipeline;
        let stages = pipeline.stages.iter().map(|stage| stage.name.clone()).collect();
        Self { progress, stages, outputs: pipeline.outputs.clone(), tables }
    }

    /// Prints the accounting table: every record in, and what became of it.
    pub fn print_accounting(&self, out: &mut impl Write) -> std::io::Result<()> {
        let ledger = &self.progress.ledger;
        let names = self.stages.iter().map(String::as_str).chain(["output"]);
        writeln!(out)?;
        writeln!(
            out,
            "{:<20} {:>12} {:>12} {:>12} {:>12} {:>12}",
            "stage", "in", "forwarded", "dropped", "folded", "dead letters"
        )?;
        for (name, counts) in names.zip(&ledger.stages) {
            let [entered, forwarded, filtered, folded, dead] =
                [counts.entered, counts.forwarded, counts.filtered, counts.folded, counts.dead_lettered];
            writeln!(out, "{name:<20} {entered:>12} {forwarded:>12} {filtered:>12} {folded:>12} {dead:>12}")?;
        }
        for (name, records) in self.outputs.iter().zip(&ledger.outputs) {
            writeln!(out, "output {name:<13} {records:>12}")?;
        }
        for table in &self.tables {
            let (name, unfit) = (&table.output, table.unfit.values().sum::<u64>());
            writeln!(
                out,
                "table of {name:<11} {:>12} records = {} rows in {} blocks + {unfit} dead letters + {} without a value; imbalance {}",
                table.records,
                table.rows,
                table.blocks,
                table.tombstones,
                table.imbalance()
            )?;
        }
        let (forwarded, filtered, dead) = (ledger.forwarded(), ledger.filtered(), ledger.dead_lettered());
        let states = match (ledger.folded(), ledger.late(), ledger.deduplicated()) {
            (0, 0, 0) => String::new(),
            (folded, late, twice) => format!(" + folded {folded} + late {late} + deduplicated {twice}"),
        };
        writeln!(
            out,
            "records in {} = forwarded {forwarded} + dropped {filtered}{states} + dead letters {dead}; made anew {}; imbalance {}",
            ledger.records_in,
            ledger.emitted,
            ledger.imbalance()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_95th_percentile_is_the_bound_that_holds_for_95_of_100() {
        let mut progress = Progress::default();
        assert_eq!(progress.p95_ms(), None);
        progress.note_latency(4, 95);
        progress.note_latency(100, 5);
        assert_eq!(progress.p95_ms(), Some(5));
        progress.note_latency(100, 1);
        assert_eq!(progress.p95_ms(), Some(120));
    }
}
