//! Promise: the listeners show and do what they should, turn everything else away with its status code, and nothing that
//! anybody sends them is noticed by the stream.

mod harness;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::http::{Answer, address, ask, await_some, get, raw, rest, value};
use harness::process::{Millstream, folder};

const JSON: &str = "Content-Type: application/json";

/// A stream without end, and its listeners.
struct Running {
    process: Millstream,
    observe: SocketAddr,
    admin: SocketAddr,
}

impl Running {
    fn start(name: &str, listeners: &str) -> Self {
        let folder = folder(&format!("admin-{name}"));
        let file = write_config(&folder, listeners);
        let process = Millstream::start(&folder, "run", &["run", &file]);
        let (observe, admin) = (address(&folder, "run", "observe"), address(&folder, "run", "admin"));
        await_some("readiness", || (ask(observe, "GET", "/readyz", &[], "").status == 200).then_some(()));
        Self { process, observe, admin }
    }

    fn records_in(&self) -> f64 {
        value(&get(self.observe, "/metrics"), "millstream_records_in_total", &[]).expect("it is there")
    }

    /// Waits until more records went through.
    fn await_progress(&self) {
        let before = self.records_in();
        await_some("another record", || (self.records_in() > before).then_some(()));
    }

    /// The stream goes on, nothing is off, and it ends in order.
    fn end(mut self) {
        assert!(self.process.is_running(), "{}", self.process.log());
        self.await_progress();
        assert_eq!(value(&get(self.observe, "/metrics"), "millstream_accounting_imbalance_records", &[]), Some(0.0));
        assert!(self.process.terminate().success());
    }
}

fn write_config(folder: &Path, listeners: &str) -> String {
    let text = format!(
        "pipeline: admin\nsource: {{generate: {{clickstream: {{records_per_second: 500}}}}}}\n\
         stages: [{{name: known, filter: {{field: /country, type: text, op: ne, value: XX}}}}]\n\
         outputs: {{main: {{discard: }}}}\ndead_letters: {{to: {{discard: }}}}\n{listeners}\n"
    );
    let file = folder.join("p.yaml");
    std::fs::write(&file, text).expect("a config file");
    file.to_string_lossy().into_owned()
}

const PORTS: &str = "observe: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}";

#[track_caller]
fn refused(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}\n{}", answer.head, answer.body);
    assert!(!answer.head.contains("access-control"), "no CORS headers: {}", answer.head);
}

#[test]
fn what_anybody_may_see_is_shown_and_nothing_else() {
    let running = Running::start("observe", PORTS);
    let observe = running.observe;
    assert_eq!(get(observe, "/livez"), "ok\n");
    let plain = ask(observe, "GET", "/metrics", &[], "");
    assert!(plain.head.contains("text/plain; version=0.0.4"), "{}", plain.head);
    let open = ask(observe, "GET", "/metrics", &["Accept: application/openmetrics-text; version=1.0.0"], "");
    assert!(open.head.contains("application/openmetrics-text") && open.body.ends_with("# EOF\n"), "{}", open.head);
    refused(&ask(observe, "GET", "/v1/status", &[], ""), 404);
    refused(&ask(observe, "POST", "/metrics", &[JSON], "{}"), 405);
    refused(&ask(running.admin, "GET", "/metrics", &[], ""), 404);
    running.end();
}

#[test]
fn the_stream_pauses_and_goes_on_and_logs_as_it_is_told() {
    let running = Running::start("control", PORTS);
    let admin = running.admin;
    let status = || -> serde_json::Value { serde_json::from_str(&get(admin, "/v1/status")).expect("JSON") };
    running.await_progress();
    let first = status();
    assert_eq!((first["pipeline"].as_str(), first["state"].as_str()), (Some("admin"), Some("running")), "{first}");
    assert_eq!(first["stages"][0]["name"], "known");

    assert_eq!(ask(admin, "POST", "/v1/pause", &[JSON], "").status, 200);
    await_some("the pause", || (status()["state"] == "paused").then_some(()));
    // What was taken is committed; then nothing moves any more.
    let still = |running: &Running| {
        let before = running.records_in();
        std::thread::sleep(Duration::from_millis(400));
        (running.records_in() == before).then_some(())
    };
    await_some("a halt", || still(&running));
    assert_eq!(value(&get(running.observe, "/metrics"), "millstream_paused", &[]), Some(1.0));
    assert_eq!(ask(admin, "POST", "/v1/resume", &[JSON], "{}").status, 200);
    running.await_progress();

    let level = |level: &str| ask(admin, "PUT", "/v1/log-level", &[JSON], &format!("{{\"level\": \"{level}\"}}"));
    assert_eq!(level("debug").status, 200);
    refused(&level("loud"), 400);
    refused(&ask(admin, "PUT", "/v1/log-level", &[JSON], "[1"), 400);
    // A connection that breaks off is logged at this level only.
    TcpStream::connect(admin).and_then(|mut stream| stream.write_all(b"GET / HT")).expect("a connection");
    await_some("a debug line", || running.process.log().contains("DEBUG").then_some(()));

    let url = format!("http://{admin}");
    let said = millstream(&["status", "--admin", &url]);
    assert!(said.starts_with("admin: running"), "{said}");
    assert!(millstream(&["status", "--admin", &url, "--json"]).contains("\"partitions\""));
    running.end();
}

/// Runs the program to its end and returns what it prints.
fn millstream(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_millstream")).args(args).output().expect("millstream runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn tricks_that_web_pages_play_are_turned_away() {
    let running = Running::start("tricks", PORTS);
    let admin = running.admin;
    let with_host = |host: &str| raw(admin, format!("GET /v1/status HTTP/1.1\r\n{host}\r\n\r\n").as_bytes());
    refused(&with_host("Host: evil.example"), 421);
    refused(&with_host("X: y"), 400);
    refused(&with_host("Host: localhost\r\nHost: localhost"), 400);
    assert_eq!(with_host("Host: localhost:9465").status, 200);
    refused(&ask(admin, "GET", "/v1/status", &["Origin: http://evil.example"], ""), 403);
    refused(&ask(admin, "GET", "/v1/status", &["Origin: null"], ""), 403);
    refused(&ask(admin, "GET", "/v1/status", &["Sec-Fetch-Site: cross-site"], ""), 403);
    refused(&ask(admin, "OPTIONS", "/v1/pause", &["Access-Control-Request-Method: POST"], ""), 405);
    for form in ["Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded", "X: y"] {
        refused(&ask(admin, "POST", "/v1/pause", &[form], "{}"), 415);
    }
    refused(&ask(admin, "POST", "/v1/paus", &[JSON], "{}"), 404);
    refused(&ask(admin, "GET", "/v1/pause", &[], ""), 405);
    assert_eq!(
        value(&get(running.observe, "/metrics"), "millstream_paused", &[]),
        Some(0.0),
        "none of it had an effect"
    );
    running.end();
}

#[test]
fn what_is_too_large_too_slow_or_too_much_is_turned_away() {
    let running = Running::start("bounds", PORTS);
    let (observe, admin) = (running.observe, running.admin);
    let large = "x".repeat(64 * 1024 + 1);
    refused(&ask(admin, "POST", "/v1/pause", &[JSON], &large), 413);
    let head = format!("POST /v1/pause HTTP/1.1\r\nHost: {admin}\r\n{JSON}\r\n");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    refused(&raw(admin, chunked.as_bytes()), 413);
    let endless = format!("{head}Content-Length: 99999999999\r\n\r\n");
    refused(&raw(admin, endless.as_bytes()), 413);
    refused(&raw(admin, format!("GET /{} HTTP/1.1\r\nHost: {admin}\r\nX: {large}\r\n\r\n", "a").as_bytes()), 431);
    refused(&raw(admin, b"\x16\x03\x01 nonsense\r\n\r\n"), 400);

    // Two slow clients at once: one that never sends its body, one that never ends its head.
    let started = Instant::now();
    let open = |text: &str| {
        let mut stream = TcpStream::connect(admin).expect("a connection");
        stream.write_all(text.as_bytes()).expect("it is sent");
        stream
    };
    let (body, unfinished) = (open(&format!("{head}Content-Length: 10\r\n\r\n{{")), open(&head));
    refused(&rest(body), 408);
    assert_eq!(rest(unfinished).status, 0, "closed without a word");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());

    // More connections than are served: the next one is told so, and each listener has its own bound.
    let idle: Vec<TcpStream> = (0..64).map(|_| open("GET ")).collect();
    await_some("a refusal", || (ask(admin, "GET", "/v1/status", &[], "").status == 503).then_some(()));
    assert_eq!(get(observe, "/livez"), "ok\n");
    drop(idle);
    await_some("room again", || (ask(admin, "GET", "/v1/status", &[], "").status == 200).then_some(()));
    running.end();
}

#[test]
fn tokens_and_tls_guard_what_others_reach() {
    let folder = folder("admin-certificate");
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=millstream", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &cert])
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let [read, tap, rule] = ["a-token-that-reads", "a-token-that-taps", "a-token-that-rules"];
    let tokens = format!("tokens: {{read: {read}, tap: {tap}, admin: {rule}}}");
    let plain = Running::start(
        "tokens",
        &format!("observe: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '0.0.0.0:0', {tokens}, insecure: true}}"),
    );
    let ask_as = |method: &str, path: &str, token: &str| {
        let token = format!("Authorization: Bearer {token}");
        ask(plain.admin, method, path, &[&token, JSON], "{}")
    };
    let bare = ask(plain.admin, "GET", "/v1/status", &[], "");
    refused(&bare, 401);
    assert!(bare.head.contains("www-authenticate: bearer"), "{}", bare.head);
    refused(&ask_as("GET", "/v1/status", "a-token-that-guesses"), 401);
    refused(&ask_as("GET", "/v1/status", tap), 403);
    refused(&ask_as("POST", "/v1/pause", read), 403);
    assert_eq!(ask_as("GET", "/v1/status", read).status, 200);
    assert_eq!(ask_as("GET", "/v1/status", rule).status, 200);
    plain.end();

    let tls = format!("admin: {{listen: '0.0.0.0:0', {tokens}, tls: {{cert: '{cert}', key: '{key}'}}}}");
    let secure = Running::start("tls", &format!("observe: {{listen: '127.0.0.1:0'}}\n{tls}"));
    let token_file = path("token");
    std::fs::write(&token_file, format!("{read}\n")).expect("a token's file");
    let url = format!("https://{}", secure.admin);
    let said = millstream(&["status", "--admin", &url, "--token-file", &token_file, "--ca-file", &cert]);
    assert!(said.starts_with("admin: running"), "{said}");
    let untrusted = Command::new(env!("CARGO_BIN_EXE_millstream")).args(["status", "--admin", &url]).output();
    assert!(!untrusted.expect("millstream runs").status.success(), "a certificate that nobody vouches for");
    let no_tls = ask(secure.admin, "GET", "/v1/status", &[], "");
    assert_eq!(no_tls.status, 0, "plain text on an encrypted port: {}", no_tls.head);
    secure.end();
}

#[test]
fn a_taken_port_stops_the_stream_only_where_it_was_asked_for() {
    // Taken by us, or by somebody else: either will do.
    let _taken = (TcpListener::bind("0.0.0.0:9464"), TcpListener::bind("127.0.0.1:9465"));
    let folder = folder("admin-ports");
    let file = write_config(&folder, "");
    let process = Millstream::start(&folder, "default", &["run", &file]);
    await_some("two warnings", || (process.log().matches("running without").count() == 2).then_some(()));
    await_some("the start", || process.log().contains("running, ").then_some(()));
    assert!(process.terminate().success());

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let file = write_config(&folder, &format!("admin: {{listen: '127.0.0.1:{port}'}}\nobserve: off"));
    let mut process = Millstream::start(&folder, "named", &["run", &file]);
    let status = process.wait(Duration::from_secs(30));
    assert_eq!(status.code(), Some(1), "{}", process.log());
    assert!(process.log().contains(&format!("`admin` can't listen on 127.0.0.1:{port}")), "{}", process.log());

    let file = write_config(&folder, "observe: off\nadmin: off");
    let process = Millstream::start(&folder, "off", &["run", &file]);
    await_some("the start", || process.log().contains("running, ").then_some(()));
    assert!(!process.log().contains("listening"), "{}", process.log());
    assert!(process.terminate().success());
}
