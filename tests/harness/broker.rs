//! A real broker that a test may kill.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One Kafka broker with its own data; stopped when it is dropped.
pub struct Broker {
    port: u16,
    /// `own` or `joint`: whether the controller is a process of its own, so that the broker alone can crash.
    controller: &'static str,
    frozen: bool,
}

impl Broker {
    /// Starts a broker with empty data on `port` (and the one after it), which no other test uses.
    pub fn start(port: u16) -> Self {
        Self::start_by("kafka-up.sh", port, "own")
    }

    /// The same as one process for broker and controller, so that both freeze together.
    pub fn start_joint(port: u16) -> Self {
        Self::start_by("kafka-up.sh", port, "joint")
    }

    /// The same with two more listeners: SASL_SSL at `port` + 2, TLS with client certificates at `port` + 3.
    pub fn start_secured(port: u16) -> Self {
        Self::start_by("kafka-secure-up.sh", port, "joint")
    }

    fn start_by(script: &str, port: u16, controller: &'static str) -> Self {
        let broker = Self { port, controller, frozen: false };
        broker.script("kafka-down.sh", &["--kill"]);
        broker.script(script, &["--fresh"]);
        broker
    }

    /// Has the broker killed when this process ends, however it does: for one that lives in a static, which is never
    /// dropped.
    pub fn kill_at_exit(&self) {
        let down = format!("cat; exec {}/kafka-down.sh --kill", scripts().display());
        let watch = self.command("sh", &["-c", &down]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        // The pipe closes with this process.
        std::mem::forget(watch.expect("sh runs").stdin.take());
    }

    /// The folder of the secured broker's certificates: `ca.pem`, `client.crt`, `client.key`.
    pub fn certificates(&self) -> PathBuf {
        state().join(format!("kafka-{}-certs", self.port))
    }

    /// Stops the broker as it stands; it goes on with [`Broker::thaw`].
    pub fn freeze(&mut self) {
        self.signal("STOP");
        self.frozen = true;
    }

    /// Lets a frozen broker go on.
    pub fn thaw(&mut self) {
        self.signal("CONT");
        self.frozen = false;
    }

    fn signal(&self, name: &str) {
        let file = state().join(format!("kafka-{}/kafka.pid", self.port));
        let pid = std::fs::read_to_string(&file).expect("a broker that runs");
        let status = Command::new("kill").args([&format!("-{name}"), pid.trim()]).status().expect("kill runs");
        assert!(status.success());
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends the broker, but not the cluster's controller, as a power cut would, and starts it again on the same data
    /// once the controller has missed it.
    pub fn crash(&self) {
        self.script("kafka-down.sh", &["--crash"]);
        self.script("kafka-up.sh", &[]);
    }

    fn script(&self, name: &str, args: &[&str]) {
        let script = scripts().join(name);
        let output = self.command(&script.to_string_lossy(), args).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env("KAFKA_PORT", self.port.to_string()).env("INFRA_STATE", state());
        command.env("KAFKA_CONTROLLER", self.controller);
        command
    }
}

fn scripts() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../xtask/infra"))
}

/// Where the scripts keep data and logs.
fn state() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("infra")
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.frozen {
            self.thaw();
        }
        if !std::thread::panicking() {
            self.script("kafka-down.sh", &[]);
        }
    }
}
