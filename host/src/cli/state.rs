//! `millstream state`: what a running pipeline's windows hold for a key.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Mistake;
use super::admin::Access;
use crate::config::{AdminConfig, Config, Secret};

const PATIENCE: Duration = Duration::from_secs(10);

/// Asks a running pipeline what the windows of a stage hold for a key.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pipeline's file, whose `admin` listener is asked, or that listener's address, such as http://127.0.0.1:9465
    pipeline: String,
    /// The stage
    stage: String,
    /// The key: the text of its field, or a JSON array of several; nothing where the windows have no key
    #[arg(default_value = "")]
    key: String,
    #[command(flatten)]
    access: Access,
    /// Print the answer as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let (url, token) = listener(&args.pipeline)?;
    let client = args.access.client(&url, token, PATIENCE)?;
    if args.stage.is_empty() || !args.stage.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#%".contains(&byte)) {
        return Err(Mistake(format!("`{}` is no stage's name", args.stage.escape_debug())).into());
    }
    let answer = client.get_with(&format!("/v1/state/{}", args.stage), ("key", &args.key))?;
    let mut out = std::io::stdout();
    if args.json {
        out.write_all(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer: Value = serde_json::from_slice(&answer).context("the answer is no JSON: is this a millstream?")?;
    out.write_all(describe(&answer).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The address that was given, or that of a file's listener, with the token that the file has for it.
fn listener(pipeline: &str) -> Result<(String, Option<Secret>)> {
    if pipeline.contains("://") {
        return Ok((pipeline.to_owned(), None));
    }
    let config = Config::load(Path::new(pipeline))?;
    let admin = config.admin.ok_or_else(|| Mistake(format!("{pipeline} has `admin: off`: nobody can be asked")))?;
    let token = admin.tokens.tap.clone().or(admin.tokens.admin.clone());
    Ok((url(&admin), token))
}

/// Where a listener is reached on this machine.
fn url(admin: &AdminConfig) -> String {
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    let mut address = admin.listen.address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("{scheme}://{address}")
}

/// The answer for people. What the other side calls things is shown without control characters.
fn describe(answer: &Value) -> String {
    let mut out = String::new();
    for window in answer["windows"].as_array().into_iter().flatten() {
        let text = |name: &str| window[name].as_str().unwrap_or("-").escape_debug().to_string();
        let open = if window["open"] == true { "open" } else { "closed, can be corrected" };
        let row = match window["row"].is_null() {
            true => format!("no row: {}", text("why")),
            false => window["row"].to_string(),
        };
        // Writing to a string can't fail.
        let _ = writeln!(
            out,
            "{} to {}  {open}  {} bytes  {}/{} up to offset {}\n  {row}",
            text("window_start"),
            text("window_end"),
            window["state_bytes"],
            text("topic"),
            window["partition"],
            window["position"]
        );
    }
    if answer["more"] == true {
        out += "there are more windows\n";
    }
    if let Some(why) = answer["why"].as_str() {
        let _ = writeln!(out, "{}", why.escape_debug());
    }
    let looked = answer["partitions"].as_array().into_iter().flatten();
    let looked: Vec<String> = looked
        .map(|at| format!("{}/{}", at["topic"].as_str().unwrap_or("-").escape_debug(), at["partition"]))
        .collect();
    let _ = writeln!(out, "looked in {}", if looked.is_empty() { "no partition".to_owned() } else { looked.join(" ") });
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_told_in_lines_whatever_is_missing() {
        let answer = json!({
            "windows": [
                {"window_start": "a", "window_end": "b", "open": true, "row": {"n": 3}, "state_bytes": 8, "topic": "t",
                 "partition": 1, "position": 9},
                {"row": null, "why": "it\u{1b}fails"},
            ],
            "more": true, "why": "2 of 3 workers did not answer in time", "partitions": [{"topic": "t", "partition": 1}],
        });
        let text = describe(&answer);
        assert!(text.starts_with("a to b  open  8 bytes  t/1 up to offset 9\n  {\"n\":3}\n"), "{text}");
        assert!(text.contains("there are more windows\n2 of 3 workers") && text.ends_with("looked in t/1\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(describe(&json!({})), "looked in no partition\n");
    }
}
