//! `millstream build`: from a plugin's sources to a component.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::logs;
use crate::project::{BuildOptions, build_project};

/// Builds plugins' projects into components; a module that another compiler made is wrapped into one.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Projects, or .wasm files
    #[arg(default_value = ".")]
    paths: Vec<PathBuf>,
    /// Where the component goes; by default NAME.wasm in the project's folder
    #[arg(long, short)]
    out: Option<PathBuf>,
    /// A file with the stage's configuration as JSON, by which the plugin describes itself
    #[arg(long)]
    config: Option<PathBuf>,
    /// Forbid cargo the network
    #[arg(long)]
    offline: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    logs::start_quiet();
    if args.out.is_some() && args.paths.len() > 1 {
        return Err(super::Mistake("--out is for one project; build the others apart".to_owned()).into());
    }
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()));
    let config_json = args.config.as_ref().map(read).transpose()?;
    for path in &args.paths {
        let options = BuildOptions { config_json: config_json.clone(), out: args.out.clone(), offline: args.offline };
        let built = build_project(path, &options)?;
        writeln!(std::io::stdout(), "{built}")?;
    }
    Ok(ExitCode::SUCCESS)
}
