//! A real ClickHouse that a test may kill, and one that all tests share.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::time::Duration;

use super::server::{Server, given};

/// The variable by which a user names a server of theirs.
const URL: &str = "CLICKHOUSE_URL";
/// Where the server listens that tests share when nobody names one.
const SHARED_PORT: u16 = 18_990;

/// ClickHouse's engine with its own data; stopped when it is dropped.
pub struct ClickHouse {
    port: u16,
    server: Server,
}

impl ClickHouse {
    /// Starts one with empty data on `port`, which no other test uses.
    pub fn start(port: u16) -> Self {
        Self::start_with(port, "")
    }

    /// The same with more arguments, such as `--user NAME:PASSWORD` or `--profile SETTING=VALUE`.
    pub fn start_with(port: u16, args: &str) -> Self {
        let variables = vec![("CLICKHOUSE_PORT", port.to_string()), ("CLICKHOUSE_ARGS", args.to_owned())];
        let server = Server::new("clickhouse", variables);
        server.down(&["--kill"]);
        server.up(&["--fresh"]);
        Self { port, server }
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it as a power cut would; its data stay.
    pub fn kill(&self) {
        self.server.down(&["--kill"]);
    }

    /// Starts it again on its data.
    pub fn restart(&self) {
        self.server.up(&[]);
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

    /// Has it killed when this process ends, however it does: for one that lives in a static, which is never dropped.
    pub fn kill_at_exit(&self) {
        self.server.kill_at_exit();
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.server.down(&[]);
        }
    }
}

/// The address of a server that all tests share: the one that the user names, or else one that is started now.
pub fn shared_url() -> String {
    static SHARED: OnceLock<ClickHouse> = OnceLock::new();
    let start = || {
        let engine = ClickHouse::start(SHARED_PORT);
        engine.kill_at_exit();
        engine
    };
    given(URL).unwrap_or_else(|| SHARED.get_or_init(start).url())
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
