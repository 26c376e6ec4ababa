//! Pipelines without servers: files to files is a rewrite, a run that was killed is visibly partial, and exit codes tell
//! scripts what happened.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

/// A folder of the test's own, with a pipeline in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millstream-test-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn has(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(args).stdin(Stdio::null());
    command
}

fn millstream(args: &[&str]) -> Output {
    command(args).output().expect("millstream runs")
}

#[track_caller]
fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Waits for something that happens soon.
#[track_caller]
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !happened() {
        assert!(Instant::now() < end, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const TWO_FILES: &str = "
pipeline: two
source: {files: {paths: [people.csv.gz, more.ndjson]}}
stages:
  - name: known
    filter: {field: /country, type: text, op: in, value: [DE, FR]}
  - name: split
    route: {field: /country, outputs: {FR: french}, default: main}
outputs:
  main: {file: {path: out/main.ndjson}}
  french: {file: {path: out/french.ndjson}}
dead_letters: {to: {file: {path: out/dead.ndjson}}}
";

#[test]
fn files_to_files_is_a_rewrite_that_counts_every_line() {
    let folder = Folder::new("rewrite");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(b"name,country\nAnna,DE\n\"Zo\xc3\xab \"\"Z\"\"\",FR\nBob,US\ntoo,many,columns\n").expect("memory");
    folder.write("people.csv.gz", gzip.finish().expect("memory"));
    folder.write("more.ndjson", "{ \"country\": \"DE\", \"n\": 1.50 }\r\n\nno json\n");
    let pipeline = folder.write("two.yaml", TWO_FILES);
    let mut results = Vec::new();
    for _ in 0..2 {
        let output = millstream(&["run", text(&pipeline), "--progress"]);
        assert_eq!(code(&output), 0, "{}", said(&output));
        let accounting = "records in 6 = forwarded 3 + dropped 1 + dead letters 2; made anew 0; imbalance 0";
        assert!(said(&output).contains(accounting), "{}", said(&output));
        results.push(["out/main.ndjson", "out/french.ndjson", "out/dead.ndjson"].map(|name| folder.read(name)));
    }
    assert_eq!(results[0], results[1], "the same bytes each time");
    let [main, french, dead] = &results[0];
    assert_eq!(main, "{\"name\":\"Anna\",\"country\":\"DE\"}\n{ \"country\": \"DE\", \"n\": 1.50 }\n");
    assert_eq!(french, "{\"name\":\"Zoë \\\"Z\\\"\",\"country\":\"FR\"}\n");
    let dead: Vec<serde_json::Value> =
        dead.lines().map(|line| serde_json::from_str(line).expect("dead letters are JSON")).collect();
    assert_eq!(dead[0]["value"], "too,many,columns");
    assert_eq!(dead[0]["reason"]["offset"], 4, "the number of its line");
    assert_eq!(dead[0]["reason"]["message"], "the row has 3 columns, the header has 2");
    assert_eq!((&dead[1]["value"], &dead[1]["reason"]["partition"]), (&"no json".into(), &1.into()));
}

#[test]
fn a_run_that_was_killed_leaves_nothing_that_looks_whole() {
    let folder = Folder::new("killed");
    let pipeline = folder.write(
        "endless.yaml",
        "pipeline: endless\nsource: {generate: {clickstream: {records_per_second: 1000}}}\n\
         outputs: {main: {file: {path: out.ndjson}}}\ndead_letters: {to: {discard: {}}}\n",
    );
    let mut child = command(&["run", text(&pipeline)]).stderr(Stdio::null()).spawn().expect("millstream starts");
    let written = || fs::metadata(folder.0.join("out.ndjson.partial")).is_ok_and(|file| file.len() > 0);
    until("records are written", written);
    child.kill().and_then(|()| child.wait()).expect("it can be killed");
    assert!(folder.has("out.ndjson.partial") && !folder.has("out.ndjson"));
}

#[test]
fn a_run_that_is_stopped_before_its_sources_end_leaves_nothing_that_looks_whole() {
    // What has no end is whole wherever it is stopped.
    for (name, end, whole) in [("stopped", ", records: 1000000", false), ("stopped-endless", "", true)] {
        let folder = Folder::new(name);
        let pipeline = folder.write(
            "slow.yaml",
            format!(
                "pipeline: slow\nsource: {{generate: {{clickstream: {{records_per_second: 1000{end}}}}}}}\n\
                 outputs: {{main: {{file: {{path: out.ndjson}}}}}}\ndead_letters: {{to: {{discard: {{}}}}}}\n"
            ),
        );
        let log = folder.0.join("log");
        let said = fs::File::create(&log).expect("a file");
        let mut child = command(&["run", text(&pipeline)]).stderr(said).spawn().expect("millstream starts");
        let written = || fs::metadata(folder.0.join("out.ndjson.partial")).is_ok_and(|file| file.len() > 0);
        until("records are written", written);
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
        assert!(status.success() && child.wait().expect("a child").success(), "{}", folder.read("log"));
        assert_eq!((folder.has("out.ndjson"), folder.has("out.ndjson.partial")), (whole, !whole));
        assert_eq!(folder.read("log").contains("out.ndjson.partial is a part of the output"), !whole);
    }
}

#[test]
fn a_quiet_pipe_keeps_nothing_from_ending_in_order() {
    let folder = Folder::new("quiet");
    let pipeline = folder.write(
        "pipe.yaml",
        "pipeline: pipe\nsource: {stdin: {format: ndjson}}\noutputs: {main: {file: {path: out.ndjson}}}\n\
         dead_letters: {to: {discard: {}}}\n",
    );
    let mut child = command(&["run", text(&pipeline)])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("millstream starts");
    // Held open: the pipe is quiet, not at its end.
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(b"{\"a\":1}\n").expect("a pipe");
    let written = || fs::metadata(folder.0.join("out.ndjson.partial")).is_ok_and(|file| file.len() > 0);
    until("the record is written while the pipe is open", written);
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
    let mut ended = None;
    until("it ends", || {
        ended = child.try_wait().expect("a child");
        ended.is_some()
    });
    assert!(ended.is_some_and(|status| status.success()));
    assert_eq!(folder.read("out.ndjson"), "{\"a\":1}\n");
}

#[test]
fn made_up_records_are_the_same_for_everyone() {
    let folder = Folder::new("generate");
    let out = folder.0.join("a/records.ndjson");
    let args = ["generate", "clickstream", "--records", "1000", "--seed", "7"];
    let printed = millstream(&args);
    assert_eq!(code(&printed), 0, "{}", said(&printed));
    let written = millstream(&[&args[..], &["--out", text(&out)]].concat());
    assert_eq!(code(&written), 0, "{}", said(&written));
    assert_eq!(fs::read(&out).expect("a file"), printed.stdout);
    assert_eq!(printed.stdout.iter().filter(|&&byte| byte == b'\n').count(), 1_000);
}

#[test]
fn exit_codes_tell_mistakes_failures_and_differences_apart() {
    let folder = Folder::new("codes");
    let schema = millstream(&["config-schema"]);
    assert_eq!(code(&schema), 0);
    serde_json::from_slice::<serde_json::Value>(&schema.stdout).expect("the schema is JSON");

    let pipeline = folder.write("bad.yaml", "pipeline: p\nsource: {stdin: {format: xml}}\n");
    for command in ["run", "validate"] {
        let output = millstream(&[command, text(&pipeline)]);
        let place =
            format!("error: {}:2:26: source.stdin.format: expected ndjson or csv, found `xml`\n", text(&pipeline));
        assert_eq!((code(&output), said(&output)), (2, place));
    }
    assert_eq!(code(&millstream(&["run"])), 2);
    assert_eq!(code(&millstream(&["offsets", "show", "/none.yaml"])), 2);

    let gone = TWO_FILES.replace("people.csv.gz, more.ndjson", "gone.ndjson");
    let output = millstream(&["run", text(&folder.write("gone.yaml", gone))]);
    assert_eq!(code(&output), 1, "{}", said(&output));
    assert!(said(&output).contains("gone.ndjson can't be read: No such file"), "{}", said(&output));

    folder.write("in.ndjson", "{\"country\":\"DE\"}\n");
    folder.write("pipeline", "two.yaml\n");
    folder.write("two.yaml", TWO_FILES);
    let output = millstream(&["test", text(&folder.0)]);
    assert_eq!(code(&output), 3, "{}", said(&output));
    let shown = "  out.ndjson\n  +     1  {\"country\":\"DE\"}\n";
    assert!(String::from_utf8_lossy(&output.stdout).contains(shown), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(code(&millstream(&["test", text(&folder.0), "--update"])), 0);
    assert_eq!(code(&millstream(&["test", text(&folder.0)])), 0);
}
