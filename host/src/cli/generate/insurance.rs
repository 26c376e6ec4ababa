//! `millstream generate insurance`: the files of an insurance comparison site.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::source::{Insurance, InsuranceConfig, InsuranceCounts};

/// Users and their events of an insurance comparison site, as users.csv and user_events.csv in a folder.
///
/// Beside the good rows stand copies of some, malformed ones and ones that come too late, as in real files.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder to write to; made where it is missing
    #[arg(long)]
    out: PathBuf,
    /// Good rows of users.csv, each a user
    #[arg(long, default_value_t = InsuranceConfig::default().users, value_parser = clap::value_parser!(u16).range(..=60_000))]
    users: u16,
    /// Good rows of user_events.csv, each an event
    #[arg(long, default_value_t = InsuranceConfig::default().events, value_parser = clap::value_parser!(u32).range(..=20_000_000))]
    events: u32,
    /// What the files follow from
    #[arg(long, default_value_t = InsuranceConfig::default().seed)]
    seed: u64,
    /// The earliest time of an event, in seconds since 1970 UTC
    #[arg(long, default_value_t = InsuranceConfig::default().start_time_ms / 1_000,
          value_parser = clap::value_parser!(i64).range(0..=4_000_000_000))]
    start_time_s: i64,
    /// Over how many days the events go
    #[arg(long, default_value_t = InsuranceConfig::default().days, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: u32,
    /// Copies for a million good rows
    #[arg(long, default_value_t = InsuranceConfig::default().duplicates_per_million, value_parser = share())]
    duplicates_per_million: u32,
    /// Good rows of a million that stand up to 1000 rows too far down
    #[arg(long, default_value_t = InsuranceConfig::default().late_per_million, value_parser = share())]
    late_per_million: u32,
    /// Malformed rows for a million good ones
    #[arg(long, default_value_t = InsuranceConfig::default().malformed_per_million, value_parser = share())]
    malformed_per_million: u32,
    /// Sessions of a million whose user is not in users.csv
    #[arg(long, default_value_t = InsuranceConfig::default().unknown_users_per_million, value_parser = share())]
    unknown_users_per_million: u32,
}

fn share() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(..=1_000_000)
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let made = Insurance::new(InsuranceConfig {
        seed: args.seed,
        users: args.users,
        events: args.events,
        start_time_ms: args.start_time_s * 1_000,
        days: args.days,
        duplicates_per_million: args.duplicates_per_million,
        late_per_million: args.late_per_million,
        malformed_per_million: args.malformed_per_million,
        unknown_users_per_million: args.unknown_users_per_million,
    });
    std::fs::create_dir_all(&args.out).with_context(|| format!("can't make {}", args.out.display()))?;
    write(&args.out.join("users.csv"), |out| made.write_users(out))?;
    write(&args.out.join("user_events.csv"), |out| made.write_events(out))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes one file, and says what is in it.
fn write(path: &Path, rows: impl Fn(&mut BufWriter<File>) -> std::io::Result<InsuranceCounts>) -> Result<()> {
    let written = File::create(path).map(BufWriter::new).and_then(|mut out| {
        let counts = rows(&mut out)?;
        out.flush()?;
        Ok(counts)
    });
    let counts = written.with_context(|| format!("can't write {}", path.display()))?;
    let InsuranceCounts { good, duplicates, late, malformed } = counts;
    let line = format!("{}: {good} good ({late} late), {duplicates} duplicates, {malformed} malformed", path.display());
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
