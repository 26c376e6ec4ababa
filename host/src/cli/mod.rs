//! The command line: one small file a command, and what they share.
//!
//! Commands print their result to standard output and everything else to standard error. Exit codes: see [`AFTER_HELP`].

mod admin;
mod build;
mod doctor;
mod generate;
mod kafka;
mod logs;
mod new;
mod offsets;
mod run;
mod schema;
mod sql;
mod state;
mod status;
mod swap;
mod test;
mod validate;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigError;
use crate::golden::GoldenError;
use crate::run::RunError;

const AFTER_HELP: &str = "Exit codes:
  0  done
  1  a failure while running: a server, a file, a plugin's fault
  2  a mistake on the command line, in a config file, or in what its plugins need
  3  `test` found differences; `sql plan` found files to apply; `swap` or `rollback` was refused

MILLSTREAM_LOG sets the level of logs (error, warn, info, debug, trace) over the config file's.";

/// A run-time failure.
const FAILED: u8 = 1;
/// A mistake of the user's, which a second try does not mend.
const MISTAKE: u8 = 2;
/// Golden cases differ, or the tables on a server do.
const DIFFERENT: u8 = 3;

/// Stream processing without a cluster: sandboxed WASM plugins over Kafka, exactly once.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Validate(validate::Args),
    Test(test::Args),
    New(new::Args),
    Build(build::Args),
    Generate(generate::Args),
    #[command(subcommand)]
    Offsets(offsets::Command),
    #[command(subcommand)]
    Sql(sql::Command),
    State(state::Args),
    Status(status::Args),
    Swap(swap::SwapArgs),
    Rollback(swap::RollbackArgs),
    /// Prints the JSON Schema of a pipeline's file, for editors.
    ConfigSchema,
    /// Says what this machine offers to a pipeline, and what is missing.
    Doctor,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Test(args) => test::run(&args),
        Command::New(args) => new::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Offsets(command) => offsets::run(&command),
        Command::Sql(command) => sql::run(&command),
        Command::State(args) => state::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Swap(args) => swap::swap(&args),
        Command::Rollback(args) => swap::rollback(&args),
        Command::ConfigSchema => schema::run(),
        Command::Doctor => doctor::run(),
    };
    result.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // A reader that has seen enough (`… | head`) is no failure.
    let is_closed_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_closed_pipe) {
        return ExitCode::SUCCESS;
    }
    // Nobody is left to tell where standard error is closed.
    let _ = io::Write::write_all(&mut io::stderr(), format!("error: {error:#}\n").as_bytes());
    ExitCode::from(exit_code(error))
}

/// Whether the user has to change something first, or whether trying again may help.
fn exit_code(error: &anyhow::Error) -> u8 {
    let mistake = error.chain().any(|cause| {
        let run = match cause.downcast_ref::<GoldenError>() {
            Some(GoldenError::Case { .. } | GoldenError::Config(_)) => return true,
            Some(GoldenError::Run(error)) => Some(error),
            _ => cause.downcast_ref::<RunError>(),
        };
        cause.is::<ConfigError>() || cause.is::<Mistake>() || run.is_some_and(is_mistake_in_run)
    });
    if mistake { MISTAKE } else { FAILED }
}

/// True for what a pipeline's plugins and their settings make impossible.
fn is_mistake_in_run(error: &RunError) -> bool {
    matches!(error, RunError::PluginFile { .. } | RunError::Plugin { .. } | RunError::Setting(_) | RunError::Plan(_))
}

/// A mistake on the command line that its grammar can't see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Mistake(String);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exit_codes_tell_mistakes_from_failures() {
        let config = Config::load(std::path::Path::new("/none.yaml")).expect_err("it is not there");
        assert_eq!(exit_code(&config.into()), MISTAKE);
        assert_eq!(exit_code(&RunError::Setting("x".to_owned()).into()), MISTAKE);
        assert_eq!(exit_code(&RunError::Panicked.into()), FAILED);
        assert_eq!(exit_code(&io::Error::other("x").into()), FAILED);
        assert_eq!(exit_code(&anyhow::Error::from(Mistake("x".to_owned())).context("while reading")), MISTAKE);
    }
}
