//! `cargo xtask demo --full`: a live clickstream from a topic into ClickHouse, exactly once, and what the tables answer.

use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::broker::Broker;
use crate::clickhouse::{self, ClickHouse};
use crate::clock::Clock;
use crate::demo::{INPUT_TOPIC, millstream};
use crate::test::{BROKERS, CLICKHOUSE};
use crate::workspace::{Workspace, run as run_command};

const PIPELINE: &str = "deploy/pipelines/clickstream-clickhouse.yaml";
const SQL: &str = "sql/clickstream";
/// Yesterday's records, which are there before the pipeline starts.
const BACKLOG: u64 = 20_000;
/// Today's records, which come while it runs: 20 seconds.
const LIVE: u64 = 40_000;
const LIVE_PER_SECOND: u64 = 2_000;
/// Records of a million that are no JSON.
const MALFORMED_PER_MILLION: u64 = 2_000;
/// How long the last records may take to their tables.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look whether they are there.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Rows of both tables, which are as many as the records.
const ROWS: &str = "SELECT (SELECT count() FROM events_db.events) + (SELECT count() FROM events_db.dlq_table)";
/// What is asked at the end.
const QUESTIONS: &[(&str, &str)] = &[
    (
        "rows of each table",
        "SELECT table, rows FROM (SELECT 'events' AS table, count() AS rows FROM events_db.events \
         UNION ALL SELECT 'dlq_table', count() FROM events_db.dlq_table) ORDER BY rows DESC",
    ),
    (
        "daily active users",
        "SELECT event_date, groupArray((country, dau)) AS users FROM \
         (SELECT * FROM events_db.daily_active_users_final ORDER BY event_date, country) \
         GROUP BY event_date ORDER BY event_date",
    ),
    (
        "events a minute, over the newest windows of 5 minutes",
        "SELECT window_start, window_end, groupArray((country, average_events)) AS averages FROM \
         (SELECT * FROM events_db.country_event_averages_raw FINAL ORDER BY country) \
         GROUP BY window_start, window_end ORDER BY window_end DESC LIMIT 3",
    ),
    (
        "top 5 pages",
        "SELECT page_url, count() AS events FROM events_db.events GROUP BY page_url ORDER BY events DESC, page_url LIMIT 5",
    ),
    (
        "dead letters by reason",
        "SELECT code, count() AS records, any(reason) AS such_as FROM events_db.dlq_table GROUP BY code ORDER BY records DESC",
    ),
];

/// A process that is ended where nobody waits for it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts both servers, runs the pipeline, asks the tables, and stops all.
pub(crate) fn run(workspace: &Workspace, clock: &mut Clock) -> Result<()> {
    clock.part("install ClickHouse (566 MB the first time)", || clickhouse::install(workspace))?;
    let broker = clock.part("start Kafka", || Broker::start(workspace))?;
    let engine = clock.part("start ClickHouse", || ClickHouse::start(workspace))?;
    let host = || {
        let mut host = millstream(workspace);
        host.env(BROKERS, broker.address()).env(CLICKHOUSE, engine.url());
        host
    };
    clock.part("make the tables", || run_command(host().args(["sql", "apply", SQL])))?;
    clock.part("fill the topic with yesterday's records", || {
        run_command(&mut generate(host(), broker.address(), BACKLOG, 0, days_ago(1)))
    })?;
    clock.part("run, while today's records come", || {
        let mut pipeline = Ended(host().args(["run", PIPELINE, "--progress"]).spawn().context("can't run millstream")?);
        run_command(&mut generate(host(), broker.address(), LIVE, LIVE_PER_SECOND, days_ago(0)))?;
        let rows = await_rows(&engine, &mut pipeline.0);
        terminate(&mut pipeline.0)?;
        rows
    })?;
    clock.part("ask the tables", || answers(&engine))?;
    clock.part("stop the servers", || {
        drop((engine, broker));
        Ok(())
    })
}

/// The command that brings made-up records into the topic; 0 a second is full speed.
fn generate(mut host: Command, brokers: &str, records: u64, per_second: u64, start_s: u64) -> Command {
    host.args(["generate", "clickstream", "--brokers", brokers, "--topic", INPUT_TOPIC]);
    let numbers = [
        ("--records", records),
        ("--records-per-second", per_second),
        ("--start-time-s", start_s),
        ("--malformed-per-million", MALFORMED_PER_MILLION),
        // Another second, other records.
        ("--seed", start_s),
    ];
    for (name, value) in numbers {
        host.args([name, &value.to_string()]);
    }
    host
}

fn days_ago(days: u64) -> u64 {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    now_s.saturating_sub(days * 86_400)
}

/// Waits until every record is a row.
fn await_rows(engine: &ClickHouse, pipeline: &mut Child) -> Result<()> {
    let (end, expected) = (Instant::now() + PATIENCE, (BACKLOG + LIVE).to_string());
    loop {
        let rows = engine.query(ROWS)?;
        if rows == expected {
            return Ok(());
        }
        if let Some(status) = pipeline.try_wait()? {
            bail!("the pipeline ended early ({status})");
        }
        if Instant::now() > end {
            bail!("the tables hold {rows} rows of {expected} records");
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Ends the pipeline in order, which prints its accounting.
fn terminate(pipeline: &mut Child) -> Result<()> {
    run_command(Command::new("kill").args(["-TERM", &pipeline.id().to_string()]))?;
    let status = pipeline.wait()?;
    if !status.success() {
        bail!("the pipeline fails ({status})");
    }
    Ok(())
}

fn answers(engine: &ClickHouse) -> Result<()> {
    for (title, sql) in QUESTIONS {
        println!("\n{title}:\n{}", engine.query(&format!("{sql} FORMAT PrettySpaceNoEscapes"))?);
    }
    println!("\n{} records in = {} rows in both tables", BACKLOG + LIVE, engine.query(ROWS)?);
    println!("the pipeline: {PIPELINE}; the tables: {SQL}");
    Ok(())
}
