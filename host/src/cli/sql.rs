//! `millstream sql`: brings the tables and views of a folder of numbered SQL files to a ClickHouse server, each file once.
//!
//! A table on the server remembers which files were applied, and what they were. ClickHouse has no transactions over DDL, so
//! a file that fails halfway is applied again from its beginning: its statements say IF NOT EXISTS.

mod split;
mod steps;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use self::steps::{Applied, State, Step};
use super::{DIFFERENT, Mistake, logs};
use crate::clickhouse::Connection;
use crate::config::{ClickHouseConfig, Config, Secret};

/// The table that remembers.
const TABLE: &str = "millstream_schema_steps";
/// Where the server is unless somebody says otherwise.
const DEFAULT_URL: &str = "http://localhost:8123";
/// The most characters of a statement that a plan shows.
const SHOWN_CHARS: usize = 100;

/// Brings the tables and views of numbered SQL files to a ClickHouse server.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Shows which files were applied and which would be; exit code 3 where any would
    Plan(Args),
    /// Applies, in order, the files that were not applied yet
    Apply(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the files, such as sql/clickstream
    dir: PathBuf,
    /// The server, as http://HOST:PORT or https://HOST:PORT; by default CLICKHOUSE_URL, or else http://localhost:8123
    #[arg(long, conflicts_with = "pipeline")]
    url: Option<String>,
    /// Who signs in; by default CLICKHOUSE_USER, or else the server's default user. The password is CLICKHOUSE_PASSWORD
    #[arg(long, conflicts_with = "pipeline")]
    user: Option<String>,
    /// A file that holds the password
    #[arg(long, conflicts_with = "pipeline")]
    password_file: Option<PathBuf>,
    /// Certificates to trust in place of the system's, PEM
    #[arg(long, conflicts_with = "pipeline")]
    ca: Option<PathBuf>,
    /// A pipeline's file with a ClickHouse output, to take server, user and password from
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
    /// The database of the table that remembers what was applied
    #[arg(long, default_value = "default")]
    database: String,
    /// Under which name the files are remembered; by default the folder's
    #[arg(long)]
    system: Option<String>,
    /// Seconds that a statement may take
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout_s: u64,
}

pub(super) fn run(command: &Command) -> Result<ExitCode> {
    logs::start_quiet();
    let (Command::Plan(args) | Command::Apply(args)) = command;
    let steps = steps::read(&args.dir).map_err(|why| Mistake(why.to_string()))?;
    let server = Server::new(args)?;
    let applied = server.applied()?;
    let states = steps::compare(&steps, &applied);
    let is_plan = matches!(command, Command::Plan(_));
    if is_plan {
        show(&steps, &states)?;
    }
    let obstacles: Vec<String> = states.iter().filter_map(|(name, state)| state.obstacle(name)).collect();
    if !obstacles.is_empty() {
        return Err(Mistake(format!("{}: {}", server.system, obstacles.join("; "))).into());
    }
    let pending = steps.iter().zip(&states).filter(|(_, (_, state))| *state == State::Pending).map(|(step, _)| step);
    let pending: Vec<&Step> = pending.collect();
    if is_plan {
        return Ok(if pending.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) });
    }
    for step in &pending {
        server.apply(step)?;
        let count = step.statements.len();
        writeln!(io::stdout(), "{}: applied, {count} {}", step.name, plural(count))?;
    }
    let before = steps.len() - pending.len();
    writeln!(io::stdout(), "{}: {} applied now, {before} before", server.system, pending.len())?;
    Ok(ExitCode::SUCCESS)
}

fn plural(statements: usize) -> &'static str {
    if statements == 1 { "statement" } else { "statements" }
}

/// Prints the state of each step, and what would be done by those that are to be applied.
fn show(steps: &[Step], states: &[(String, State)]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let width = states.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, state) in states {
        writeln!(out, "{name:width$}  {state}")?;
        let step = steps.iter().find(|step| step.name == *name && *state == State::Pending);
        for statement in step.iter().flat_map(|step| &step.statements) {
            let mut shown: String = statement.plain.chars().take(SHOWN_CHARS).collect();
            if shown.len() < statement.plain.len() {
                shown.push('…');
            }
            writeln!(out, "{:width$}    line {}: {shown}", "", statement.line)?;
        }
    }
    Ok(())
}

/// A server and the table on it that remembers.
struct Server {
    connection: Connection,
    database: String,
    system: String,
}

impl Server {
    fn new(args: &Args) -> Result<Self> {
        let is_name = |text: &str| {
            !text.starts_with(|first: char| first.is_ascii_digit())
                && !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if !is_name(&args.database) {
            return Err(Mistake("--database is a name of letters, digits and _".to_owned()).into());
        }
        let mut config = connection(args)?;
        config.request_timeout = Duration::from_secs(args.timeout_s);
        let connection = Connection::new(&config).map_err(|why| Mistake(why.to_string()))?;
        Ok(Self { connection, database: args.database.clone(), system: system(args)? })
    }

    /// What the server answers to a query.
    fn query(&self, sql: &str, parameters: &[(&str, &str)]) -> Result<String> {
        let answer = self.connection.wait(async |client| client.query(sql, parameters).await);
        Ok(answer?.text())
    }

    /// What was applied under this name, by step.
    fn applied(&self) -> Result<BTreeMap<String, Applied>> {
        let Self { database, system, .. } = self;
        let exists = format!("SELECT count() FROM system.tables WHERE database = '{database}' AND name = '{TABLE}'");
        if self.query(&exists, &[])? == "0" {
            return Ok(BTreeMap::new());
        }
        // The order has the last one count, should two processes have applied a step at once.
        let select = format!(
            "SELECT step, checksum, formatDateTime(applied_at, '%FT%TZ', 'UTC') AS time FROM {database}.{TABLE} \
             WHERE system = {{system:String}} ORDER BY applied_at FORMAT JSONEachRow"
        );
        let mut applied = BTreeMap::new();
        for line in self.query(&select, &[("system", system.as_str())])?.lines() {
            let row: Value = serde_json::from_str(line).with_context(|| format!("{TABLE} can't be read"))?;
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            applied.insert(text("step"), Applied { checksum: text("checksum"), time: text("time") });
        }
        Ok(applied)
    }

    /// Runs the statements of a step and remembers it; an error names the file, the statement and what the server says.
    fn apply(&self, step: &Step) -> Result<()> {
        for (at, statement) in step.statements.iter().enumerate() {
            let place = || format!("{}, statement {} (line {})", step.path.display(), at + 1, statement.line);
            self.query(&statement.text, &[]).with_context(place)?;
        }
        let Self { database, .. } = self;
        // Somebody has to be able to tell who applied what; the types are those of a log, and there will be few rows.
        let create = format!(
            "CREATE TABLE IF NOT EXISTS {database}.{TABLE} (system String, step String, checksum String, \
             applied_at DateTime64(3, 'UTC') DEFAULT now64(3), applied_by String DEFAULT currentUser(), \
             version String) ENGINE = MergeTree ORDER BY (system, step, applied_at)"
        );
        let insert = format!(
            "INSERT INTO {database}.{TABLE} (system, step, checksum, version) SETTINGS async_insert = 0 \
             SELECT {{system:String}}, {{step:String}}, {{checksum:String}}, {{version:String}}"
        );
        let parameters = [
            ("system", self.system.as_str()),
            ("step", &step.name),
            ("checksum", &step.checksum),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        let remembered = self.query(&create, &[]).and_then(|_| self.query(&insert, &parameters));
        remembered.with_context(|| format!("{} was applied, but can't be remembered as such", step.path.display()))?;
        Ok(())
    }
}

/// The name under which the files are remembered.
fn system(args: &Args) -> Result<String> {
    let of_folder = || {
        let whole = args.dir.canonicalize().ok()?;
        Some(whole.file_name()?.to_str()?.to_owned())
    };
    let system = args.system.clone().or_else(of_folder);
    system.ok_or_else(|| Mistake("the folder has no name; give one by --system".to_owned()).into())
}

fn connection(args: &Args) -> Result<ClickHouseConfig> {
    if let Some(file) = &args.pipeline {
        let config = Config::load(file)?;
        let tables = config.outputs.iter().filter_map(|output| output.table.as_ref());
        let table = tables.chain(config.dead_letters.table.as_ref()).next().cloned();
        return table.ok_or_else(|| Mistake(format!("{}: no output of it is a table", file.display())).into());
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let url = args.url.clone().or_else(|| variable("CLICKHOUSE_URL")).unwrap_or_else(|| DEFAULT_URL.to_owned());
    let password = match &args.password_file {
        Some(file) => Some(read_password(file)?),
        None => variable("CLICKHOUSE_PASSWORD"),
    };
    Ok(ClickHouseConfig {
        user: args.user.clone().or_else(|| variable("CLICKHOUSE_USER")),
        password: password.as_deref().map(Secret::new),
        ca: args.ca.clone(),
        ..ClickHouseConfig::new(&url, "", "")
    })
}

fn read_password(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
