//! `millstream swap` and `millstream rollback`: other plugins for a running pipeline.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::admin::Admin;
use super::{DIFFERENT, Mistake};
use crate::http::ClientError;
use crate::record::json::base64::encode;
use crate::run::COMPONENT_BYTES_MAX;

/// A component may take a minute to compile, and the workers ten seconds to follow.
const PATIENCE: Duration = Duration::from_secs(90);

/// Puts other plugins into stages of a running pipeline, between two records and as one.
#[derive(Debug, clap::Args)]
pub(super) struct SwapArgs {
    /// The stages and their new plugins: STAGE=FILE. A signature is taken from FILE.sig, if that is there
    #[arg(required = true, value_name = "STAGE=FILE")]
    plugins: Vec<String>,
    #[command(flatten)]
    admin: Admin,
}

/// Brings the plugins back that ran before the last swap.
#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    admin: Admin,
}

pub(super) fn swap(args: &SwapArgs) -> Result<ExitCode> {
    let mut components = serde_json::Map::new();
    for plugin in &args.plugins {
        let (stage, file) =
            plugin.split_once('=').ok_or_else(|| Mistake(format!("`{plugin}`: expected STAGE=FILE")))?;
        let bytes = std::fs::read(file).with_context(|| format!("can't read {file}"))?;
        if bytes.len() > COMPONENT_BYTES_MAX {
            return Err(
                Mistake(format!("{file}: {} bytes, and {COMPONENT_BYTES_MAX} are the most", bytes.len())).into()
            );
        }
        let mut component = json!({ "bytes": base64(&bytes) });
        if let Ok(signature) = std::fs::read(Path::new(file).with_added_extension("sig")) {
            component["signature"] = base64(&signature);
        }
        if components.insert(stage.to_owned(), component).is_some() {
            return Err(Mistake(format!("stage `{stage}` is given twice")).into());
        }
    }
    let body = json!({ "components": components }).to_string();
    let client = args.admin.client(PATIENCE)?;
    tell(client.send("PUT", "/v1/plugins", "application/json", body.as_bytes()), "swapped")
}

pub(super) fn rollback(args: &RollbackArgs) -> Result<ExitCode> {
    let client = args.admin.client(PATIENCE)?;
    tell(client.send("POST", "/v1/rollback", "application/json", b"{}"), "rolled back")
}

fn say(text: &str) -> std::io::Result<()> {
    std::io::stdout().write_all(text.as_bytes())
}

/// Says what came of it; a refusal has an exit code of its own.
fn tell(answer: Result<Vec<u8>, ClientError>, done: &str) -> Result<ExitCode> {
    let answer = match answer {
        Err(ClientError::Refused { status: status @ 400..=499, text }) => {
            let why: Value = serde_json::from_str(&text).unwrap_or_default();
            let why = why["error"].as_str().unwrap_or(&text).escape_debug().to_string();
            say(&format!("nothing changed ({status}): {why}\n"))?;
            return Ok(ExitCode::from(DIFFERENT));
        }
        answer => answer?,
    };
    let answer: Value = serde_json::from_slice(&answer).context("the answer is no JSON: is this a millstream?")?;
    if answer["changed"] == Value::Bool(false) {
        say("these plugins run already\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let workers = &answer["workers"];
    say(&format!("{done}: number {}, on {} of {} workers\n", answer["number"], workers[0], workers[1]))?;
    Ok(ExitCode::SUCCESS)
}

fn base64(bytes: &[u8]) -> Value {
    let mut text = Vec::new();
    encode(bytes, &mut text);
    // Base64 is ASCII.
    Value::String(String::from_utf8(text).unwrap_or_default())
}
