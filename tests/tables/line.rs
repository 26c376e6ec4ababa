//! A topic on its way into a table: both of a test's own, on servers that tests share or not.

use std::path::PathBuf;
use std::time::Duration;

use millstream::record::Rows;

use crate::harness::broker::shared;
use crate::harness::clickhouse as server;
use crate::harness::http::address;
use crate::harness::process::{Millstream, folder};
use crate::harness::topics::{self, Filler};

/// Where a broker listens when nobody names one.
const PORT: u16 = 19_780;
/// How long a run to the end of a topic may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// Columns that every test's table has, so that a block in doubt can be settled.
pub(crate) const LINEAGE: &str = "_topic LowCardinality(String), _partition Int32, _offset Int64";
/// Table settings under which tokens are remembered.
pub(crate) const WINDOW: &str = "SETTINGS non_replicated_deduplication_window = 1000";

pub(crate) fn brokers() -> String {
    shared(PORT)
}

/// A pipeline without stages from the topic `tables-NAME-in` into the table `NAME.t`, with dead letters in
/// `tables-NAME-dead`; other files' tests may share the broker.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) folder: PathBuf,
    filler: Filler,
    sent: i64,
}

impl Line {
    /// Makes topics and table on the shared servers.
    pub(crate) fn new(name: &str, partitions: i32, columns: &str) -> Self {
        Self::on(&server::shared_url(), name, partitions, columns)
    }

    /// The same on this server.
    pub(crate) fn on(url: &str, name: &str, partitions: i32, columns: &str) -> Self {
        let (input, dead) = (format!("tables-{name}-in"), format!("tables-{name}-dead"));
        topics::make(&brokers(), &[&input, &dead], partitions);
        server::query(url, &format!("CREATE DATABASE {name}"));
        let line = Self {
            name: name.to_owned(),
            url: url.to_owned(),
            folder: folder(&format!("tables-{name}")),
            filler: Filler::new(&brokers(), &input),
            sent: 0,
        };
        line.sql(&format!("CREATE TABLE $.t ({columns}) ENGINE = MergeTree ORDER BY tuple() {WINDOW}"));
        line
    }

    /// The answer to SQL in which `$` stands for the database.
    pub(crate) fn sql(&self, sql: &str) -> String {
        server::query(&self.url, &sql.replace('$', &self.name))
    }

    /// A number that SQL answers with.
    pub(crate) fn number(&self, sql: &str) -> u64 {
        let answer = self.sql(sql);
        answer.parse().unwrap_or_else(|_| panic!("{sql}: {answer} is no number"))
    }

    /// Sends records `{"n": number}`, with more fields that `value` gives.
    pub(crate) fn send(&mut self, count: i64, value: impl Fn(i64) -> String) {
        let mut rows = Rows::default();
        for number in self.sent..self.sent + count {
            let key = format!("k{}", number % 97);
            rows.push(number, 1_700_000_000_000 + number, Some(key.as_bytes()), Some(value(number).as_bytes()));
        }
        self.sent += count;
        self.filler.send(rows);
    }

    /// The same, after its topic was made anew.
    pub(crate) fn again(self) -> Self {
        Self { filler: Filler::new(&brokers(), &format!("tables-{}-in", self.name)), ..self }
    }

    /// Records sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent as u64
    }

    /// The configuration's file, with `more` for the table.
    pub(crate) fn config(&self, instance: &str, more: &str) -> String {
        let (name, url, brokers) = (&self.name, &self.url, brokers());
        let text = format!(
            "pipeline: tables-{name}\ninstance: {instance}\n\
             source: {{kafka: {{brokers: \"{brokers}\", topic: tables-{name}-in, start: earliest, properties: {{session.timeout.ms: 1500}}}}}}\n\
             outputs: {{main: {{clickhouse: {{url: \"{url}\", database: {name}, table: t, {more}}}}}}}\n\
             dead_letters: {{to: {{kafka: {{topic: tables-{name}-dead}}}}}}\n\
             observe: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\n"
        );
        let file = self.folder.join(format!("{instance}.yaml"));
        std::fs::write(&file, text).expect("a config file");
        file.display().to_string()
    }

    /// A process that goes on until it is told to stop.
    pub(crate) fn start(&self, instance: &str, run: &str, more: &str) -> Millstream {
        Millstream::start(&self.folder, run, &["run", &self.config(instance, more)])
    }

    /// What a process says of itself.
    pub(crate) fn status(&self, run: &str) -> serde_json::Value {
        let admin = address(&self.folder, run, "admin");
        serde_json::from_str(&crate::harness::http::get(admin, "/v1/status")).expect("JSON")
    }

    /// Brings in all that is there, and ends.
    pub(crate) fn finish(&self, more: &str) {
        let mut last = Millstream::start(&self.folder, "last", &["run", &self.config("one", more), "--until-end"]);
        let status = last.wait(PATIENCE);
        assert!(status.success(), "the last run fails:\n{}", last.log());
    }

    /// Rows of the table, and different records among them.
    pub(crate) fn rows(&self) -> (u64, u64) {
        (self.number("SELECT count() FROM $.t"), self.number("SELECT uniqExact(_partition, _offset) FROM $.t"))
    }

    /// Offsets of the dead letters' records, by partition, as their headers say.
    pub(crate) fn dead(&self) -> Vec<(i32, i64)> {
        let mut found = Vec::new();
        for rows in topics::read(&brokers(), &format!("tables-{}-dead", self.name), true) {
            for row in 0..rows.len() {
                let header = |name: &str| {
                    let value = rows.headers.get(row).find(|header| header.0 == name.as_bytes()).and_then(|h| h.1);
                    String::from_utf8_lossy(value.unwrap_or_else(|| panic!("no header {name}"))).parse::<i64>()
                };
                let partition = header("__connect.errors.partition").expect("a number");
                found.push((partition as i32, header("__connect.errors.offset").expect("a number")));
            }
        }
        found.sort_unstable();
        found
    }
}
