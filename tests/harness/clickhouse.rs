//! A real ClickHouse that a test may kill, and one that all tests share.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// The variable by which a user names a server of theirs.
const URL: &str = "CLICKHOUSE_URL";
/// Where the server listens that tests share when nobody names one.
const SHARED_PORT: u16 = 18_990;

/// ClickHouse's engine with its own data; stopped when it is dropped.
pub struct ClickHouse {
    port: u16,
    args: String,
}

impl ClickHouse {
    /// Starts one with empty data on `port`, which no other test uses.
    pub fn start(port: u16) -> Self {
        Self::start_with(port, "")
    }

    /// The same with more arguments, such as `--user NAME:PASSWORD` or `--profile SETTING=VALUE`.
    pub fn start_with(port: u16, args: &str) -> Self {
        let server = Self { port, args: args.to_owned() };
        server.script("clickhouse-down.sh", &["--kill"]);
        server.script("clickhouse-up.sh", &["--fresh"]);
        server
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it as a power cut would; its data stay.
    pub fn kill(&self) {
        self.script("clickhouse-down.sh", &["--kill"]);
    }

    /// Starts it again on its data.
    pub fn restart(&self) {
        self.script("clickhouse-up.sh", &[]);
    }

    /// What it answers to a query, without the last line's end; panics where it refuses.
    pub fn query(&self, sql: &str) -> String {
        query(&self.url(), sql)
    }

    /// Has the next `count` requests with `with` in their SQL fail: `reject`, `delay`, `drop`, `error`; see the script.
    pub fn fault(&self, mode: &str, count: u32, with: &str) {
        fault(&self.url(), &format!("mode={mode}&count={count}&match={with}"));
    }

    /// Holds the next `count` requests with `with` in their SQL back for so long.
    pub fn delay(&self, by: Duration, count: u32, with: &str) {
        fault(&self.url(), &format!("mode=delay&seconds={}&count={count}&match={with}", by.as_secs_f64()));
    }

    /// No faults from now on.
    pub fn heal(&self) {
        fault(&self.url(), "mode=clear");
    }

    fn script(&self, name: &str, args: &[&str]) {
        let output = self.command(&scripts().join(name).to_string_lossy(), args).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("CLICKHOUSE_PORT", self.port.to_string()).env("INFRA_STATE", state());
        command.env("CLICKHOUSE_ARGS", &self.args);
        command
    }

    /// Has it ended when this process ends, however it does: for one that lives in a static, which is never dropped.
    pub fn kill_at_exit(&self) {
        let down = format!("cat; exec {}/clickhouse-down.sh --kill", scripts().display());
        let watch = self.command("sh", &["-c", &down]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        // The pipe closes with this process.
        std::mem::forget(watch.expect("sh runs").stdin.take());
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.script("clickhouse-down.sh", &[]);
        }
    }
}

/// The address of a server that all tests share: the one that the user names, or else one that is started now.
pub fn shared_url() -> String {
    static SHARED: OnceLock<ClickHouse> = OnceLock::new();
    if let Some(url) = std::env::var(URL).ok().filter(|url| !url.is_empty()) {
        return url;
    }
    let start = || {
        let server = ClickHouse::start(SHARED_PORT);
        server.kill_at_exit();
        server
    };
    SHARED.get_or_init(start).url()
}

/// What a server answers to a query, without the last line's end; panics where it refuses.
pub fn query(url: &str, sql: &str) -> String {
    try_query(url, sql).unwrap_or_else(|answer| panic!("{sql}: {answer}"))
}

/// What a server answers to a query, or says against it.
pub fn try_query(url: &str, sql: &str) -> Result<String, String> {
    let (status, body) = post(url, "/?wait_end_of_query=1", sql).map_err(|error| error.to_string())?;
    let text = body.trim_end_matches('\n').to_owned();
    if status == 200 { Ok(text) } else { Err(text) }
}

/// Has requests fail, or not any more: see the script.
pub fn fault(url: &str, query: &str) {
    let query = query.replace(' ', "%20").replace('`', "%60");
    let (status, _) = post(url, &format!("/_fault?{query}"), "").expect("the engine answers");
    assert_eq!(status, 200);
}

fn post(url: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

fn scripts() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../xtask/infra"))
}

/// Where the scripts keep data, logs and the engine.
fn state() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("infra")
}
