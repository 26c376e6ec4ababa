//! Promise: the systems that are shipped work as a whole, with the files as they are shipped: Kafka in, tables out, kill -9
//! on the way, and each table is what plain code makes of the same input.
//!
//! The servers are these tests' own: topics and databases have the names that a user's servers may have.

mod harness;
mod reference;

#[path = "systems/clickstream.rs"]
mod clickstream;
#[path = "systems/insurance.rs"]
mod insurance;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use harness::broker::Broker;
use harness::clickhouse::ClickHouse;
use harness::guests::guest;
use harness::process::{Millstream, folder};
use harness::topics;
use millstream::record::Rows;

const BROKER_PORT: u16 = 19_800;
const CLICKHOUSE_PORT: u16 = 18_996;
/// How long a command may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The line of a pipeline under which its consumers get properties.
const BROKERS: &str = "    brokers: ${KAFKA_BROKERS:-localhost:9092}\n";

/// Broker and engine, for both systems.
fn servers() -> &'static (Broker, ClickHouse) {
    static SERVERS: OnceLock<(Broker, ClickHouse)> = OnceLock::new();
    SERVERS.get_or_init(|| {
        std::thread::scope(|scope| {
            let broker = scope.spawn(|| Broker::start(BROKER_PORT));
            let servers = (ClickHouse::start(CLICKHOUSE_PORT), broker);
            let servers = (servers.1.join().expect("a broker"), servers.0);
            servers.0.kill_at_exit();
            servers.1.kill_at_exit();
            servers
        })
    })
}

/// A system with its SQL applied and its plugins built.
struct System {
    database: &'static str,
    folder: PathBuf,
    brokers: String,
    variables: Vec<(&'static str, String)>,
}

impl System {
    /// The system of the folder sql/`name`.
    fn new(name: &str, database: &'static str, plugins: &[&str]) -> Self {
        let folder = folder(&format!("systems-{name}"));
        for plugin in plugins {
            std::fs::write(folder.join(plugin).with_extension("wasm"), guest(plugin)).expect("a file");
        }
        let (brokers, url) = (servers().0.address(), servers().1.url());
        let variables = vec![
            ("KAFKA_BROKERS", brokers.clone()),
            ("CLICKHOUSE_URL", url.clone()),
            ("MILLSTREAM_PLUGINS", folder.display().to_string()),
            ("INSURANCE_DATA", folder.display().to_string()),
        ];
        let system = Self { database, folder, brokers, variables };
        system.finish("apply", &["sql", "apply", &format!("{ROOT}/sql/{name}"), "--url", &url]);
        system
    }

    /// The answer to SQL in which `$` stands for the database.
    fn sql(&self, sql: &str) -> String {
        servers().1.query(&sql.replace('$', self.database))
    }

    /// A number that SQL answers with.
    fn number(&self, sql: &str) -> usize {
        self.sql(sql).parse().unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The shipped pipeline's file.
    fn shipped(file: &str) -> String {
        format!("{ROOT}/deploy/pipelines/{file}")
    }

    /// A copy of it whose consumers are missed soon after a kill -9, and not after half a minute.
    fn to_be_killed(&self, file: &str) -> String {
        let text = std::fs::read_to_string(Self::shipped(file)).expect("a pipeline");
        assert!(text.contains(BROKERS), "{file}");
        let text = text.replacen(BROKERS, &format!("{BROKERS}    properties: {{session.timeout.ms: 1500}}\n"), 1);
        let copy = self.folder.join(file);
        std::fs::write(&copy, text).expect("a pipeline");
        copy.display().to_string()
    }

    /// A process that a test may kill; `name` is that of its log.
    fn start(&self, name: &str, args: &[&str]) -> Millstream {
        Millstream::start_with(&self.folder, name, args, &self.variables)
    }

    /// Runs a command to its end.
    fn finish(&self, name: &str, args: &[&str]) {
        let mut process = self.start(name, args);
        let status = process.wait(PATIENCE);
        assert!(status.success(), "{args:?} fails:\n{}", process.log());
    }

    /// A topic's committed records, by partition.
    fn topic(&self, name: &str) -> Vec<Rows> {
        topics::read(&self.brokers, name, true)
    }

    /// How many there are.
    fn records(&self, topic: &str) -> usize {
        topics::count(&self.topic(topic))
    }
}
