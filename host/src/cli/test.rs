//! `millstream test`: golden cases.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::{DIFFERENT, logs};
use crate::golden::{self, Outcome};

/// Runs golden cases: records in, records out byte for byte, and which are rejected why.
#[derive(Debug, clap::Args)]
#[command(after_long_help = golden::FORMAT)]
pub(super) struct Args {
    /// Cases, or folders of cases
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// Write what came out into the cases, instead of comparing
    #[arg(long)]
    update: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    logs::start_quiet();
    let mut different = 0;
    let mut out = std::io::stdout().lock();
    let cases = golden::find(&args.folders)?;
    for case in &cases {
        let name = case.display();
        match golden::run(case, args.update)? {
            Outcome::Same { records } => writeln!(out, "ok       {name}: {records} records")?,
            Outcome::Updated { files } if files.is_empty() => writeln!(out, "ok       {name}: nothing to update")?,
            Outcome::Updated { files } => writeln!(out, "updated  {name}: {}", files.join(", "))?,
            Outcome::Different { text } => {
                different += 1;
                writeln!(out, "differs  {name}\n{text}")?;
            }
        }
    }
    writeln!(out, "{} cases, {different} differ", cases.len())?;
    Ok(if different > 0 { ExitCode::from(DIFFERENT) } else { ExitCode::SUCCESS })
}
