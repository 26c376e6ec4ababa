//! Clickstream: made-up records, malformed ones among them, through three plugins and three windows into topics and tables.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Instant;

use millstream::config::rfc3339_ms;
use millstream::record::Rows;
use serde_json::Value;

use super::System;
use crate::harness::process::long;
use crate::reference::clickstream::{
    AVERAGES, DAILY_ACTIVE_USERS, DAY_S, EVENTS, SESSIONS, WINDOW_AVERAGES, WINDOW_USERS, averages, daily_active_users,
    event, rows, sessions,
};
use crate::reference::compare;

/// The first record's time, such that the smallest size reaches over midnight.
const START_S: i64 = 1_700_005_000;
/// Made-up records a second, by their own time.
const RATE: i64 = 10;
/// Between the two halves: visits end there.
const PAUSE_S: i64 = 3_600;
/// Records that come when their visits and averages are closed, and their day is reopened.
const LATE: i64 = 1_000;

#[test]
fn clickstream_tables_are_what_the_input_says_through_a_kill() {
    let half = if long() { 500_000 } else { 20_000 };
    let mut system = System::new("clickstream", "events_db", &["validate", "upcast", "enrich"]);
    let pipeline = system.to_be_killed("clickstream-clickhouse.yaml");
    let second_s = START_S + half / RATE + PAUSE_S;
    generate(&system, "1", START_S, half);
    let started = Instant::now();
    let mut first = system.start("first", &["run", &pipeline]);
    first.await_that("a row", || system.number("SELECT count() FROM $.events") > 0);
    first.kill();
    // The other half comes while nobody is there.
    generate(&system, "2", second_s, half);
    system.finish("second", &["run", &pipeline, "--until-end"]);
    let in_time = Input::read(&system, 2 * half);
    assert_eq!(system.records("enriched_events"), in_time.events.len());
    // Nothing follows: what is open is restored, and closed.
    system.variables.extend([("IDLE", "2s".to_owned()), ("CLOSE_AFTER", "3s".to_owned())]);
    let mut third = system.start("third", &["run", &pipeline]);
    third.await_that("averages", || is_answer(&system, WINDOW_AVERAGES, &averages(&in_time.events)));
    third.await_that("visits", || is_answer(&system, SESSIONS, &sessions(&in_time.events)));
    let users = daily_active_users(&in_time.events);
    third.await_that("users of both days", || is_answer(&system, WINDOW_USERS, &users));
    eprintln!("clickstream: {} records and their windows through a kill in {:.1?}", 2 * half, started.elapsed());

    generate(&system, "3", (second_s + half / RATE) / DAY_S * DAY_S + 100, LATE);
    let all = Input::read(&system, 2 * half + LATE);
    let corrected = daily_active_users(&all.events);
    assert!(long() || corrected != users, "the late ones bring no user that was not there");
    third.await_that("a corrected day", || is_answer(&system, WINDOW_USERS, &corrected));
    third.await_that("the late events", || system.number("SELECT count() FROM $.events") == all.events.len());
    third.await_that("dead letters", || system.number("SELECT count() FROM $.dlq_table") == all.dead.len());
    assert!(third.terminate().success());
    check_events(&system, &all);
    check_windows(&system, &in_time.events, &corrected);
}

/// Brings so many records of a seed into the topic, the first of this time.
fn generate(system: &System, seed: &str, start_s: i64, records: i64) {
    let options = ["--malformed-per-million", "10000", "--start-time-s", &start_s.to_string()];
    let to = ["--brokers", &system.brokers, "--topic", "my_events", "--records", &records.to_string()];
    let args = [&["generate", "clickstream", "--seed", seed], options.as_slice(), to.as_slice()].concat();
    system.finish(&format!("generate-{seed}"), &args);
}

/// What the topic holds: events, and a line for each record that is to be a dead letter.
struct Input {
    events: Vec<Value>,
    dead: Vec<String>,
}

impl Input {
    fn read(system: &System, records: i64) -> Self {
        let (mut events, mut dead) = (Vec::new(), Vec::new());
        for (partition, records) in system.topic("my_events").iter().enumerate() {
            for (record, offset) in records.values.iter().zip(&records.offsets) {
                let record = record.expect("a value");
                match event(record) {
                    Ok(event) => events.push(event),
                    Err(code) => {
                        dead.push(format!("{partition}\t{offset}\t{code}\t{}\n", String::from_utf8_lossy(record)));
                    }
                }
            }
        }
        assert_eq!((events.len() + dead.len()) as i64, records);
        Self { events, dead }
    }
}

/// True once the answer is what it should be; what it should not be is told where the wait for it ends.
fn is_answer(system: &System, sql: &str, expected: &str) -> bool {
    system.sql(sql) == expected.trim_end()
}

/// Every record is an event or a dead letter, late or not, in topics and tables, and in the views over them.
fn check_events(system: &System, Input { events, dead }: &Input) {
    compare(EVENTS, &system.sql(EVENTS), &rows(events));
    compare(DAILY_ACTIVE_USERS, &system.sql(DAILY_ACTIVE_USERS), &daily_active_users(events));
    compare(AVERAGES, &system.sql(AVERAGES), &averages(events));
    let letters = "SELECT partition, offset, code, value FROM $.dlq_table \
                   WHERE topic = 'my_events' AND pipeline = 'clickstream' ORDER BY partition, offset";
    compare(letters, &system.sql(letters), &dead.concat());
    let codes = "SELECT groupUniqArray(code) AS codes FROM $.dlq_table ORDER BY codes";
    eprintln!("clickstream: {} events, {} dead letters of {}", events.len(), dead.len(), system.sql(codes));
    assert_eq!(system.number("SELECT uniqExact(code) FROM $.dlq_table"), 3);
    assert_eq!(system.number("SELECT count() FROM $.dlq_table"), dead.len());
    // The topics that the tables are fed from hold the same.
    assert_eq!((system.records("enriched_events"), system.records("dlq")), (events.len(), dead.len()));
}

/// Averages and visits are those of the events that came in time, `users` those of all; each in its topic, too.
fn check_windows(system: &System, in_time: &[Value], users: &str) {
    compare(WINDOW_AVERAGES, &system.sql(WINDOW_AVERAGES), &averages(in_time));
    let found = of_topic(&system.topic("country_event_averages"), &["average_events"]);
    compare("country_event_averages", &found, &averages(in_time));
    compare(SESSIONS, &system.sql(SESSIONS), &sessions(in_time));
    assert_eq!(system.number("SELECT count() FROM $.user_sessions_raw"), sessions(in_time).lines().count());
    compare(WINDOW_USERS, &system.sql(WINDOW_USERS), users);
    let versions = of_topic(&system.topic("daily_active_users"), &["dau", "version", "retracted"]);
    assert!(versions.lines().count() > users.lines().count(), "a day is shown before it ends, and corrected");
}

/// The rows of a topic that windows write, as lines: country, begin and end in seconds, and these columns, of which there
/// are no others.
fn of_topic(partitions: &[Rows], columns: &[&str]) -> String {
    let mut lines = BTreeSet::new();
    for value in partitions.iter().flat_map(|rows| rows.values.iter()) {
        let row: Value = serde_json::from_slice(value.expect("a value")).expect("a row is JSON");
        let seconds = |name: &str| rfc3339_ms(row[name].as_str().expect("a time")).expect("RFC 3339") / 1_000;
        let country = row["country"].as_str().expect("a country");
        let mut line = format!("{country}\t{}\t{}", seconds("window_start"), seconds("window_end"));
        for column in columns {
            let value = row[column].as_f64().map_or_else(|| row[column].to_string(), |number| number.to_string());
            let _ = write!(line, "\t{value}");
        }
        assert_eq!(row.as_object().map(serde_json::Map::len), Some(3 + columns.len()), "{row}");
        assert!(lines.insert(line), "twice: {row}");
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
