//! A server that our scripts start and stop, whichever it is, and how tests come to share one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The scripts of one server, and what they are told.
pub(super) struct Server {
    /// What the names of its scripts begin with.
    kind: &'static str,
    variables: Vec<(&'static str, String)>,
}

impl Server {
    /// The server of `KIND-up.sh` and `KIND-down.sh`, which see these variables.
    pub(super) fn new(kind: &'static str, variables: Vec<(&'static str, String)>) -> Self {
        Self { kind, variables }
    }

    /// Starts it.
    pub(super) fn up(&self, args: &[&str]) {
        self.script(&format!("{}-up.sh", self.kind), args);
    }

    /// Ends it.
    pub(super) fn down(&self, args: &[&str]) {
        self.script(&format!("{}-down.sh", self.kind), args);
    }

    /// Has it killed when this process ends, however it does: for one that lives in a static, which is never dropped.
    pub(super) fn kill_at_exit(&self) {
        let down = format!("cat; exec {}/{}-down.sh --kill", scripts().display(), self.kind);
        let watch = self.command("sh", &["-c", &down]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        // The pipe closes with this process.
        std::mem::forget(watch.expect("sh runs").stdin.take());
    }

    /// Runs one of its scripts.
    pub(super) fn script(&self, name: &str, args: &[&str]) {
        let output = self.command(&scripts().join(name).to_string_lossy(), args).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        let variables = self.variables.iter().map(|(name, value)| (name, value));
        command.args(args).envs(variables).env("INFRA_STATE", state());
        command
    }
}

/// What the user names by a variable.
pub(super) fn given(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

/// Where the scripts keep data, logs and engines.
pub(super) fn state() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("infra")
}

fn scripts() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../xtask/infra"))
}
