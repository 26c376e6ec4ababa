//! `millstream run`: one pipeline until its source ends or somebody stops it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::logs;
use crate::config::Config;
use crate::run::{self, RunOptions};

/// Runs a pipeline until its source ends; SIGTERM and SIGINT end it in order, a second one at once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pipeline's file
    file: PathBuf,
    /// Show live progress, and the accounting at the end
    #[arg(long)]
    progress: bool,
    /// Stop once everything is committed that the source's topic holds at the start
    #[arg(long)]
    until_end: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let config = Config::load(&args.file)?;
    let log_switch = Some(logs::start(&config.logs));
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order, so that the second signal finds the flag set.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone()).context("can't handle signals")?;
        signal_hook::flag::register(signal, stop.clone()).context("can't handle signals")?;
    }
    let options = RunOptions { until_end: args.until_end, progress: args.progress, stop, log_switch };
    let report = run::run(&config, &options)?;
    if args.progress {
        report.print_accounting(&mut std::io::stderr()).context("can't print the accounting")?;
    }
    let ledger = &report.progress.ledger;
    tracing::info!(
        records_in = ledger.records_in,
        forwarded = ledger.forwarded(),
        filtered = ledger.filtered(),
        folded = ledger.folded(),
        late = ledger.late(),
        deduplicated = ledger.deduplicated(),
        dead_letters = ledger.dead_lettered(),
        imbalance = ledger.imbalance(),
        "ended"
    );
    Ok(ExitCode::SUCCESS)
}
