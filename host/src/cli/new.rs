//! `millstream new`: a plugin's project that builds as it is.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::project::new_project;

/// Makes a plugin's project that builds as it is, offline, in any folder.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The plugin's name
    name: String,
    /// The folder that the project's own folder is made in
    #[arg(long, default_value = ".")]
    parent: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let created = new_project(&args.name, &args.parent)?;
    writeln!(std::io::stdout(), "{created}")?;
    Ok(ExitCode::SUCCESS)
}
