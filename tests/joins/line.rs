//! A pipeline that reads records from a pipe, so that a test knows what has been through it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use serde_json::Value;

use crate::harness::http::await_some;
use crate::harness::process::folder;

/// A folder with a pipeline in it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        Self(folder(&format!("joins-{name}")))
    }

    /// A pipeline from standard input to `out.ndjson` with these tables and stages; `more` are further lines.
    pub(crate) fn pipeline(&self, tables: &str, stages: &str, more: &str) -> PathBuf {
        let text = format!(
            "pipeline: joins\nsource: {{stdin: {{format: ndjson}}}}\ntables:\n{tables}\nstages:\n{stages}\n\
             outputs: {{main: {{file: {{path: out.ndjson}}}}}}\ndead_letters: {{to: {{file: {{path: dead.ndjson}}}}}}\n{more}\n"
        );
        self.write("p.yaml", text)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    /// As somebody writes who thinks of readers: aside, and then in the place of the other.
    pub(crate) fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let aside = self.write(&format!("{name}.aside"), content);
        fs::rename(aside, self.0.join(name)).expect("a file");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<Value> {
        self.read(name).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

/// Runs the program to its end.
pub(crate) fn millstream(args: &[&str], input: Option<&Path>) -> (i32, String) {
    let stdin = input.map_or(Stdio::null(), |path| fs::File::open(path).expect("a file").into());
    let output: Output =
        Command::new(env!("CARGO_BIN_EXE_millstream")).args(args).stdin(stdin).output().expect("millstream runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().expect("it ended by itself"), String::from_utf8_lossy(&said).into_owned())
}

/// A pipeline that runs.
pub(crate) struct Line {
    folder: PathBuf,
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Line {
    pub(crate) fn start(folder: &Folder, pipeline: &Path) -> Self {
        let log = fs::File::create(folder.0.join("run.log")).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .args(["run", &pipeline.to_string_lossy()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("millstream starts");
        let pipe = child.stdin.take();
        Self { folder: folder.0.clone(), child, pipe }
    }

    /// Sends a record and returns what came of it: by the output, or as a dead letter.
    #[track_caller]
    pub(crate) fn send(&mut self, record: &str) -> Value {
        let lines = |name: &str| fs::read_to_string(self.folder.join(format!("{name}.partial"))).unwrap_or_default();
        let count = || ["out.ndjson", "dead.ndjson"].map(|name| lines(name).lines().count());
        let before = count();
        self.pipe.as_mut().expect("a pipe").write_all(format!("{record}\n").as_bytes()).expect("it is read");
        let (name, line) = await_some(&format!("what became of {record}\n{}", self.log()), || {
            let after = count();
            let moved = (0..2).find(|&i| after[i] > before[i])?;
            Some((["out.ndjson", "dead.ndjson"][moved], before[moved]))
        });
        serde_json::from_str(lines(name).lines().nth(line).expect("a line")).expect("JSON")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("run.log")).unwrap_or_default()
    }

    /// Waits for its end, which it comes to by itself.
    pub(crate) fn wait(&mut self) -> i32 {
        await_some("its end", || self.child.try_wait().expect("a child")).code().expect("it ended by itself")
    }

    /// Closes the pipe and waits for the end.
    pub(crate) fn end(mut self) -> i32 {
        self.pipe = None;
        self.child.wait().expect("a child").code().expect("it ended by itself")
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
