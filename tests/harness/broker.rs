//! A real broker that a test may kill.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// One Kafka broker with its own data; stopped when it is dropped.
pub struct Broker {
    port: u16,
}

impl Broker {
    /// Starts a broker with empty data on `port` (and the one after it), which no other test uses.
    pub fn start(port: u16) -> Self {
        let broker = Self { port };
        broker.script("kafka-down.sh", &["--kill"]);
        broker.script("kafka-up.sh", &["--fresh"]);
        broker
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
        let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("infra");
        let output = Command::new(root.join("xtask/infra").join(name))
            .args(args)
            .env("KAFKA_PORT", self.port.to_string())
            .env("KAFKA_CONTROLLER", "own")
            .env("INFRA_STATE", target)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.script("kafka-down.sh", &[]);
        }
    }
}
