//! A real broker that a test may kill, and one that a file's tests share.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::server::{Server, given, state};

/// The variable by which a user names brokers of theirs.
const BROKERS: &str = "KAFKA_BROKERS";

/// One Kafka broker with its own data; stopped when it is dropped.
pub struct Broker {
    port: u16,
    server: Server,
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

    /// `controller`: `own` or `joint`, whether it is a process of its own, so that the broker alone can crash.
    fn start_by(script: &str, port: u16, controller: &str) -> Self {
        let variables = vec![("KAFKA_PORT", port.to_string()), ("KAFKA_CONTROLLER", controller.to_owned())];
        let broker = Self { port, server: Server::new("kafka", variables), frozen: false };
        broker.server.down(&["--kill"]);
        broker.server.script(script, &["--fresh"]);
        broker
    }

    /// Has the broker killed when this process ends, however it does: for one that lives in a static, which is never
    /// dropped.
    pub fn kill_at_exit(&self) {
        self.server.kill_at_exit();
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
        self.server.down(&["--crash"]);
        self.server.up(&[]);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.frozen {
            self.thaw();
        }
        if !std::thread::panicking() {
            self.server.down(&[]);
        }
    }
}

/// The brokers that all tests use: those that the user names, or else one that is started now on `port`.
pub fn shared(port: u16) -> String {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    let start = || {
        let broker = Broker::start(port);
        broker.kill_at_exit();
        broker
    };
    given(BROKERS).unwrap_or_else(|| SHARED.get_or_init(start).address())
}
