//! More keys than memory has room for: the rows are right, the process lives, and a restore needs no more memory either.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use millstream::record::Rows;
use serde::Deserialize;

use crate::harness::broker::Broker;
use crate::harness::http::{address, get, value};
use crate::harness::process::{Millstream, folder, long};
use crate::harness::topics::{self, Filler};

const PORT: u16 = 19_860;
const PARTITIONS: i32 = 2;
/// The users who keep time going while the sessions of all others end.
const BUSY: usize = 64;
/// How far each of their records moves the time.
const STEP_MS: i64 = 2;

struct Size {
    keys: usize,
    /// What a key has beside its number, so that fewer keys fill the memory.
    padding: usize,
    /// What the process may take.
    mib: u64,
    /// What states may take of it; `None` for what they take by default.
    states_mib: Option<u64>,
    most: Duration,
}

impl Size {
    /// Nobody's session ends before everybody has come.
    fn gap_ms(&self) -> i64 {
        2 * self.keys as i64
    }
}

#[test]
fn more_keys_than_memory_has_room_for_are_right_and_alive() {
    let size = match long() {
        true => Size { keys: 5_000_000, padding: 0, mib: 512, states_mib: None, most: Duration::from_secs(1_800) },
        false => Size { keys: 200_000, padding: 100, mib: 256, states_mib: Some(4), most: Duration::from_secs(120) },
    };
    let broker = Broker::start(PORT);
    let place = Place { brokers: broker.address(), folder: folder("windows-many-keys") };
    topics::make(&place.brokers, &["m-in", "m-out"], PARTITIONS);
    let mut stream = Stream::new(&size);
    stream.fill(&place.brokers, Stream::come);
    let output = "{kafka: {topic: m-out}}";
    // A disk that is full stops it with a sentence, and nothing is lost by that: the next one goes on.
    let full = place.config("m", &size, (size.states_mib, ", disk: 16MiB"), output);
    let mut full = place.start("full", &full);
    full.watch((size.mib, size.most), |process| process.ended);
    assert!(full.log().contains("`state.disk` allows 16 MiB, and these are full"), "{}", full.log());
    assert!(full.log().contains("Nothing is lost: the changelog has all states"), "{}", full.log());

    let config = place.config("m", &size, (size.states_mib, ""), output);
    let started = Instant::now();
    let mut first = place.start("first", &config);
    first.watch((size.mib, size.most), |process| process.has_all(size.keys));
    let on_disk = first.value("millstream_window_keys_on_disk");
    assert!(on_disk > size.keys as f64 * 0.9, "only {on_disk} keys are on the disk");
    eprintln!("{} keys, {on_disk} of them on the disk, after {:.0?}: {first}", size.keys, started.elapsed());
    first.process.kill();
    assert_eq!(place.files(), Vec::<PathBuf>::new(), "files outlived the process");

    let started = Instant::now();
    let mut second = place.start("second", &config);
    second.watch((size.mib, size.most), |process| process.restores().len() == PARTITIONS as usize);
    eprintln!("restored {:.1?} after the start: {second}\n  {}", started.elapsed(), second.restores().join("\n  "));

    if long() {
        // Without the disk it does not fit: the test can fail. In the small size most of the memory is not the states'.
        let without = place.config("off", &size, (Some(1 << 20), ""), "{discard: }");
        let mut off = place.start("off", &without);
        off.watch((u64::MAX, size.most), |process| process.peak_mib >= size.mib || process.has_all(size.keys));
        assert!(off.peak_mib >= size.mib, "memory has room for all: {off}");
        eprintln!("without the disk: {off} and more");
        off.process.kill();
    }

    let started = Instant::now();
    stream.fill(&place.brokers, Stream::end);
    second.watch((size.mib, size.most), |process| process.value("millstream_window_keys") == BUSY as f64);
    eprintln!("all sessions have ended after {:.0?}: {second}", started.elapsed());
    assert!(second.process.terminate().success());
    stream.check(&topics::read(&place.brokers, "m-out", true));
}

/// The sessions that must come out, by the number of their user, and the time that the stream has reached.
struct Stream {
    padding: String,
    gap_ms: i64,
    now_ms: i64,
    sessions: Vec<Session>,
}

/// A user's only session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Session {
    events: u64,
    first_ms: i64,
    last_ms: i64,
}

/// A row of the output.
#[derive(Deserialize)]
struct Row<'a> {
    user: &'a str,
    window_start: &'a str,
    window_end: &'a str,
    n: u64,
}

impl Stream {
    fn new(size: &Size) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Self {
            padding: "x".repeat(size.padding),
            gap_ms: size.gap_ms(),
            now_ms: now.as_millis() as i64 - 6 * 3_600_000,
            sessions: vec![Session::default(); size.keys],
        }
    }

    fn fill(&mut self, brokers: &str, part: impl FnOnce(&mut Self, &mut Chunks)) {
        let mut chunks = Chunks { filler: Filler::new(brokers, "m-in"), rows: Rows::default() };
        part(self, &mut chunks);
        chunks.send();
    }

    /// All users come once, in no order, and a fifth of them once more.
    fn come(&mut self, to: &mut Chunks) {
        let users = self.sessions.len();
        let scattered = (0..users).map(|at| at * 7_919 % users).chain((0..users / 5).map(|at| at * 104_729 % users));
        for user in scattered {
            self.now_ms += 1;
            let session = &mut self.sessions[user];
            let first_ms = if session.events == 0 { self.now_ms } else { session.first_ms };
            *session = Session { events: session.events + 1, first_ms, last_ms: self.now_ms };
            to.push(&format!("{user}-{}", self.padding), self.now_ms);
        }
    }

    /// Only the busy ones come, until the sessions of all others have ended.
    fn end(&mut self, to: &mut Chunks) {
        let end_ms = self.now_ms + self.gap_ms + 10_000;
        for at in 0.. {
            self.now_ms += STEP_MS;
            to.push(&format!("busy {}", at % BUSY), self.now_ms);
            if self.now_ms > end_ms && at % BUSY == 0 {
                break;
            }
        }
    }

    fn check(&self, found: &[Rows]) {
        let mut rows = vec![Session::default(); self.sessions.len()];
        for value in found.iter().flat_map(|rows| rows.values.iter()) {
            let row: Row<'_> = serde_json::from_slice(value.expect("a value")).expect("a row");
            let ms = |text| millstream::config::rfc3339_ms(text).expect("a time in RFC 3339");
            let user = row.user.strip_suffix(&self.padding).and_then(|user| user.strip_suffix('-'));
            let user: usize = user.and_then(|user| user.parse().ok()).expect("a user whose session has ended");
            assert_eq!(rows[user], Session::default(), "user {user} has two rows");
            let (first_ms, last_ms) = (ms(row.window_start), ms(row.window_end) - self.gap_ms);
            rows[user] = Session { events: row.n, first_ms, last_ms };
        }
        for (user, (found, expected)) in rows.iter().zip(&self.sessions).enumerate() {
            assert_eq!(found, expected, "user {user}");
        }
    }
}

/// Records on their way to the topic.
struct Chunks {
    filler: Filler,
    rows: Rows,
}

impl Chunks {
    fn push(&mut self, user: &str, t: i64) {
        let value = format!("{{\"user\":\"{user}\",\"t\":{t}}}");
        self.rows.push(0, -1, Some(user.as_bytes()), Some(value.as_bytes()));
        if self.rows.bytes() > 4 << 20 {
            self.send();
        }
    }

    fn send(&mut self) {
        self.filler.send(std::mem::take(&mut self.rows));
    }
}

/// Where the test takes place.
struct Place {
    brokers: String,
    folder: PathBuf,
}

impl Place {
    fn config(&self, pipeline: &str, size: &Size, (states_mib, disk): (Option<u64>, &str), output: &str) -> String {
        let (mib, gap_ms) = (size.mib, size.gap_ms());
        let memory = states_mib.map_or(String::new(), |mib| format!(", memory: {mib}MiB"));
        let text = format!(
            "pipeline: {pipeline}
workers: 1
memory_limit: {mib}MiB
source: {{kafka: {{brokers: \"{}\", topic: m-in, start: earliest, properties: {{session.timeout.ms: 6000}}}}}}
stages:
  - name: {pipeline}-sessions
    window:
      time: {{field: /t, encoding: epoch_ms}}
      key: [/user]
      session: {gap_ms}ms
      disorder: 1s
      keyed_topic: true
      aggregate: {{n: count}}
      output: main
outputs: {{main: {output}}}
dead_letters: {{to: {{discard: }}}}
state: {{dir: \"{}\"{memory}{disk}}}
observe: {{listen: '127.0.0.1:0'}}
admin: {{listen: '127.0.0.1:0'}}
",
            self.brokers,
            self.folder.join("states").display(),
        );
        let file = self.folder.join(format!("{pipeline}.yaml"));
        std::fs::write(&file, text).expect("a config file");
        file.to_string_lossy().into_owned()
    }

    fn start(&self, name: &'static str, config: &str) -> Running {
        let process = Millstream::start(&self.folder, name, &["run", config]);
        let observe = address(&self.folder, name, "observe");
        Running { process, log: self.folder.join(format!("{name}.log")), observe, peak_mib: 0, ended: false }
    }

    /// What lies in the folder of the states.
    fn files(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.folder.join("states")).expect("the folder of the states");
        files.map(|file| file.expect("a file").path()).collect()
    }
}

/// A process whose memory is watched.
struct Running {
    process: Millstream,
    log: PathBuf,
    observe: SocketAddr,
    /// The most memory that it has had so far.
    peak_mib: u64,
    ended: bool,
}

impl Running {
    /// Waits until `done`; fails where the process takes more memory than it may.
    #[track_caller]
    fn watch(&mut self, (mib, most): (u64, Duration), mut done: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + most;
        loop {
            self.peak_mib = self.process.peak_kib().map_or(self.peak_mib, |kib| kib >> 10);
            assert!(self.peak_mib < mib, "more than {mib} MiB: {self}\n{}", self.process.log());
            self.ended = !self.process.is_running();
            if done(self) {
                return;
            }
            assert!(!self.ended && Instant::now() < end, "it never comes so far:\n{}", self.process.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn has_all(&self, keys: usize) -> bool {
        self.value("millstream_window_keys") >= keys as f64 && self.value("millstream_consumer_lag_records") == 0.0
    }

    /// The sum of a metric.
    fn value(&self, name: &str) -> f64 {
        value(&get(self.observe, "/metrics"), name, &[]).unwrap_or(0.0)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("the log")
    }

    /// What it says of the partitions whose states are restored.
    fn restores(&self) -> Vec<String> {
        let log = self.log();
        let told = log.lines().filter_map(|line| Some(&line[line.find(": its states are restored: ")? + 2..]));
        told.map(str::to_owned).collect()
    }
}

impl std::fmt::Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "peak {} MiB", self.peak_mib)
    }
}
