//! Servers for as long as a command runs, each on a *leash*: a small process that holds the other end of a pipe and stops
//! the server when the pipe closes. That happens when the command ends, however it ends: by itself, by ctrl-c, or by
//! kill -9.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Waits for one line or the pipe's end, runs the script, and clears the data unless the line says `keep`.
const WATCH: &str = r#"
trap '' INT TERM HUP
read -r word || true
"$0"
[ "${word:-}" = keep ] || rm -rf -- "$1"
"#;

/// Holds a server, which is stopped when this is dropped.
pub(crate) struct Leash {
    watch: Child,
    pipe: Option<ChildStdin>,
    data: PathBuf,
    keep: bool,
}

impl Leash {
    /// Starts a server (`Kafka` or `ClickHouse`) with empty data on `port`, and waits until it answers; `settings` are
    /// more variables for its scripts.
    pub(crate) fn start(workspace: &Workspace, server: &str, port: u16, settings: &[(&str, String)]) -> Result<Self> {
        let (script, variable) = (server.to_lowercase(), server.to_uppercase());
        let data = workspace.infra_state().join(format!("{script}-{port}"));
        let with_settings = |mut command: Command| {
            command.env(format!("{variable}_PORT"), port.to_string()).env(format!("{variable}_DATA"), &data);
            command.env("INFRA_STATE", workspace.infra_state());
            command.envs(settings.iter().map(|(name, value)| (name, value)));
            command
        };
        let down = workspace.script(&format!("{script}-down.sh"));
        let leash = Self::hold(with_settings(workspace.command("bash")), &down, &data)?;
        // Out of reach of ctrl-c as well: a start that is cut in half leaves no pid to stop.
        let up = format!("{script}-up.sh");
        let mut command = with_settings(workspace.command(workspace.script(&up)));
        let started = command.arg("--fresh").process_group(0).stdin(Stdio::null()).status();
        if !started.with_context(|| format!("can't run {up}"))?.success() {
            bail!("{server} does not start on port {port}; `cargo xtask doctor` says what it needs");
        }
        Ok(leash)
    }

    /// Has `bash` run `down` and clear `data` once this is dropped.
    fn hold(mut bash: Command, down: &Path, data: &Path) -> Result<Self> {
        bash.args(["-c", WATCH]).args([down, data]).stdin(Stdio::piped()).process_group(0);
        let mut watch = bash.spawn().context("can't run bash")?;
        let pipe = watch.stdin.take();
        Ok(Self { watch, pipe, data: data.to_owned(), keep: false })
    }

    /// Where the server keeps its data and logs.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Leaves the server's data in place when it is stopped.
    pub(crate) fn keep_data(&mut self) {
        self.keep = true;
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take()
            && self.keep
        {
            // Without the word the data go, and nothing worse happens.
            let _ = pipe.write_all(b"keep\n");
        }
        let _ = self.watch.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds nothing until it is let go: whether a script was run then, and whether data are left.
    fn let_go(name: &str, keep: bool) -> (bool, bool) {
        let folder = std::env::temp_dir().join(format!("millstream-leash-{name}-{}", std::process::id()));
        let data = folder.join("data");
        std::fs::create_dir_all(&data).expect("a folder");
        let script = folder.join("down.sh");
        std::fs::write(&script, "#!/bin/sh\ntouch \"$(dirname \"$0\")/stopped\"\n").expect("a file");
        Command::new("chmod").arg("+x").arg(&script).status().expect("chmod runs");
        let mut leash = Leash::hold(Command::new("bash"), &script, &data).expect("bash runs");
        if keep {
            leash.keep_data();
        }
        assert!(!folder.join("stopped").exists() && data.exists());
        drop(leash);
        let found = (folder.join("stopped").exists(), data.exists());
        std::fs::remove_dir_all(&folder).expect("the folder goes");
        found
    }

    #[test]
    fn the_leash_acts_when_its_pipe_closes() {
        assert_eq!(let_go("clear", false), (true, false));
    }

    #[test]
    fn data_stay_where_they_are_wanted() {
        assert_eq!(let_go("keep", true), (true, true));
    }
}
