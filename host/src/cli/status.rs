//! `millstream status`: where a running pipeline stands.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::admin::Admin;

const PATIENCE: Duration = Duration::from_secs(10);

/// Asks a running pipeline where it stands: versions, records, rates, lag.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    admin: Admin,
    /// Print the answer as it is
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let client = args.admin.client(PATIENCE)?;
    let answer = client.get("/v1/status")?;
    let mut out = std::io::stdout();
    if args.json {
        out.write_all(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status: Value = serde_json::from_slice(&answer).context("the answer is no JSON: is this a millstream?")?;
    out.write_all(describe(&status).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The status for people. What the other side calls things is shown without control characters.
fn describe(status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").escape_debug().to_string();
    let number = |value: &Value| value.as_f64().map_or("-".to_owned(), |number| format!("{number:.0}"));
    let mut out = String::new();
    let why = status["why"].as_str().map_or(String::new(), |why| format!(": {}", why.escape_debug()));
    // Writing to a string can't fail.
    let _ = writeln!(
        out,
        "{}: {}{why}, for {} s, {} workers, millstream {}",
        text(&status["pipeline"]),
        text(&status["state"]),
        number(&status["uptime_seconds"]),
        number(&status["workers"]),
        text(&status["version"])
    );
    let (records, rates) = (&status["records"], &status["rates"]);
    let names = ["in", "forwarded", "filtered", "dead_lettered", "emitted", "imbalance"];
    let counts: Vec<String> =
        names.iter().map(|name| format!("{} {}", name.replace('_', " "), number(&records[name]))).collect();
    let _ = writeln!(out, "records  {}", counts.join("  "));
    let p95 = status["latency_p95_seconds"].as_f64().map_or("-".to_owned(), |p95| format!("{:.0} ms", p95 * 1e3));
    let (into, out_of) = (number(&rates["in_per_second"]), number(&rates["out_per_second"]));
    let _ = writeln!(out, "rates    in {into}/s  out {out_of}/s  p95 {p95}");
    for stage in status["stages"].as_array().into_iter().flatten() {
        let digest = stage["digest"].as_str().and_then(|digest| digest.get(..12)).unwrap_or("built in");
        let counts = ["in", "forwarded", "filtered", "dead_lettered"].map(|name| number(&stage[name]));
        let [entered, forwarded, filtered, dead] = counts;
        let _ = writeln!(
            out,
            "stage    {:<20} {} {} ({digest})  in {entered}  forwarded {forwarded}  filtered {filtered}  dead letters {dead}",
            text(&stage["name"]),
            text(&stage["plugin"]),
            text(&stage["version"]),
            digest = digest.escape_debug()
        );
        stage["windows"].as_array().into_iter().flatten().for_each(|level| out += &describe_windows(level));
    }
    if let Some(left) = status["restoring"]["records_left"].as_u64() {
        let partitions = status["restoring"]["partitions"].as_array().map_or(0, Vec::len);
        let _ = writeln!(out, "restore  {left} records left, {partitions} partitions");
    }
    for partition in status["partitions"].as_array().into_iter().flatten() {
        let lag_seconds = partition["lag_seconds"].as_f64().map_or("-".to_owned(), |lag| format!("{lag:.1}"));
        let _ = writeln!(
            out,
            "{}/{}  committed {}  end {}  lag {} records, {lag_seconds} s",
            text(&partition["topic"]),
            number(&partition["partition"]),
            number(&partition["committed"]),
            number(&partition["end"]),
            number(&partition["lag_records"])
        );
    }
    status["lookup_tables"].as_array().into_iter().flatten().for_each(|table| out += &describe_lookup_table(table));
    status["tables"].as_array().into_iter().flatten().for_each(|table| out += &describe_table(table));
    out
}

/// What a stage holds on one level, and up to when its windows are closed.
fn describe_windows(level: &Value) -> String {
    let number = |name: &str| level[name].as_f64().map_or("-".to_owned(), |number| format!("{number:.0}"));
    let text = |name: &str| level[name].as_str().unwrap_or("-").escape_debug().to_string();
    let delay = level["watermark_delay_seconds"].as_f64().map_or(String::new(), |delay| format!(", {delay:.1} s ago"));
    format!(
        "  level {}  keys {}  bytes {}  late windows {}  unfinished {}  watermark {}{delay}\n",
        text("level"),
        number("keys"),
        number("bytes"),
        number("late_windows"),
        number("unfinished_windows"),
        text("watermark")
    )
}

/// A table that an output's records go into, with why it takes none where that is so.
fn describe_table(table: &Value) -> String {
    let number = |name: &str| table[name].as_f64().map_or("-".to_owned(), |number| format!("{number:.0}"));
    let text = |name: &str| table[name].as_str().unwrap_or("-").escape_debug().to_string();
    let why = table["why"].as_str().map_or(String::new(), |why| format!(": {}", why.escape_debug()));
    let lag = |partition: &Value| Some((partition["end"].as_i64()? - partition["committed"].as_i64()?).max(0));
    let lag: i64 = table["partitions"].as_array().into_iter().flatten().filter_map(lag).sum();
    format!(
        "table    {:<20} {}  in {}  rows {}  dead letters {}  blocks {}  retries {}  lag {lag} records{why}\n",
        text("output"),
        text("state"),
        number("records"),
        number("rows"),
        number("dead_lettered"),
        number("blocks"),
        number("retries")
    )
}

/// A table that records are looked up in, with why it is not current where that is so.
fn describe_lookup_table(table: &Value) -> String {
    let number = |name: &str| table[name].as_f64().map_or("-".to_owned(), |number| format!("{number:.0}"));
    let name = table["name"].as_str().unwrap_or("-").escape_debug().to_string();
    let why = table["why_stale"].as_str().map_or(String::new(), |why| format!("  not current: {}", why.escape_debug()));
    let mib = table["memory_bytes"].as_f64().map_or("-".to_owned(), |bytes| format!("{:.1}", bytes / (1 << 20) as f64));
    format!(
        "lookups  {name:<20} rows {}  {mib} MiB  hits {}  misses {}  loads {}  changes {}  bad rows {}  lag {} records{why}\n",
        number("rows"),
        number("hits"),
        number("misses"),
        number("loads"),
        number("changes"),
        number("bad_rows"),
        number("lag_records")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_told_in_lines_whatever_is_missing() {
        let status = json!({
            "pipeline": "p", "state": "running", "uptime_seconds": 5, "workers": 1, "version": "0.1.0",
            "records": {"in": 3, "forwarded": 2, "filtered": 1, "dead_lettered": 0, "emitted": 0, "imbalance": 0},
            "rates": {"in_per_second": 1.5, "out_per_second": 1.0}, "latency_p95_seconds": 0.012,
            "stages": [{"name": "a\u{1b}[31m", "plugin": "x", "version": "1", "digest": "", "in": 3, "windows": [
                {"level": "1", "keys": 7, "bytes": 900, "late_windows": 0, "unfinished_windows": 1, "watermark": null},
                {"level": "2", "keys": 2, "bytes": 90, "watermark": "2026-11-21T00:00:00Z", "watermark_delay_seconds": 4.25},
            ]}],
            "restoring": {"records_left": 12, "partitions": [{"topic": "t", "partition": 1, "records_left": 12}]},
            "tables": [{"output": "main", "state": "waiting", "why": "it is\u{1b} away", "records": 2, "rows": 2,
                "partitions": [{"committed": 2, "end": 7}]}],
            "lookup_tables": [{"name": "users", "rows": 5, "memory_bytes": 524_288, "why_stale": "u.csv\u{1b} is gone"}],
            "partitions": [{"topic": "t", "partition": 0, "committed": 3, "end": 4, "lag_records": 1, "lag_seconds": 0.25}],
        });
        let text = describe(&status);
        assert!(text.starts_with("p: running, for 5 s, 1 workers, millstream 0.1.0\nrecords  in 3"), "{text}");
        assert!(text.contains("p95 12 ms") && text.contains("t/0  committed 3  end 4  lag 1 records, 0.2 s"), "{text}");
        assert!(text.contains("main                 waiting  in 2  rows 2") && text.contains("lag 5 records: it is"));
        assert!(text.contains("users                rows 5  0.5 MiB  hits -"), "{text}");
        assert!(text.contains("not current: u.csv") && text.contains(" is gone\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.contains("  level 1  keys 7  bytes 900  late windows 0  unfinished 1  watermark -\n"), "{text}");
        assert!(text.contains("watermark 2026-11-21T00:00:00Z, 4.2 s ago\n"), "{text}");
        assert!(text.contains("restore  12 records left, 1 partitions\n"), "{text}");
        assert!(describe(&json!({})).contains("records"));
    }
}
