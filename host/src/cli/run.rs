//! `millstream run`: one pipeline until its source ends or somebody stops it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::Config;
use crate::run::{self, RunOptions};

/// Runs a pipeline. SIGTERM and SIGINT end it in order; a second one ends it at once.
pub fn run(config: &Config, progress: bool, until_end: bool) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order, so that the second signal finds the flag set.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone()).context("can't handle signals")?;
        signal_hook::flag::register(signal, stop.clone()).context("can't handle signals")?;
    }
    let report = run::run(config, &RunOptions { until_end, progress, stop })?;
    if progress {
        report.print_accounting(&mut std::io::stderr()).context("can't print the accounting")?;
    }
    let ledger = &report.progress.ledger;
    tracing::info!(
        records_in = ledger.records_in,
        forwarded = ledger.forwarded(),
        filtered = ledger.filtered(),
        dead_letters = ledger.dead_lettered(),
        imbalance = ledger.imbalance(),
        "ended"
    );
    Ok(())
}
