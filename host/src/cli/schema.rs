//! `millstream config-schema`: what editors want to know of a pipeline's file.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::config::SCHEMA_JSON;

pub(super) fn run() -> Result<ExitCode> {
    std::io::stdout().write_all(SCHEMA_JSON.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
