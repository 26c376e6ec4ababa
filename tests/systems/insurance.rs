//! Insurance: made-up files with copies, disorder and malformed rows, through topics into tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use millstream::config::rfc3339_ms;

use super::System;
use crate::harness::process::long;
use crate::harness::topics;
use crate::reference::compare;
use crate::reference::insurance::{
    Event, SESSIONS, User, distinct, event, fields, sessions, storage_share, user, views,
};

const KINDS: [&str; 7] = ["signup", "login", "search", "quote_view", "quote_compare", "checkout", "purchase"];

/// What the files say: good rows, and how many others there are of each pipeline and code.
#[derive(Default)]
struct Files {
    users: Vec<User>,
    events: Vec<Event>,
    dead: BTreeMap<(&'static str, &'static str), usize>,
}

impl Files {
    fn read(system: &System) -> Self {
        let mut files = Self::default();
        for line in lines(system, "users.csv") {
            match row(&line, 6).ok_or(("insurance-load-users", "unreadable")) {
                Ok(row) => match fault_of_user(&row) {
                    None => files.users.push(user(&row)),
                    Some(code) => files.count(("insurance-users", code)),
                },
                Err(fault) => files.count(fault),
            }
        }
        for line in lines(system, "user_events.csv") {
            match row(&line, 7).ok_or(("insurance-load-events", "unreadable")) {
                Ok(row) => match fault_of_event(&row) {
                    None => files.events.push(event(&row)),
                    Some(code) => files.count(("insurance", code)),
                },
                Err(fault) => files.count(fault),
            }
        }
        files
    }

    fn count(&mut self, fault: (&'static str, &'static str)) {
        *self.dead.entry(fault).or_default() += 1;
    }

    /// Dead letters of these pipelines.
    fn dead_of(&self, pipelines: [&str; 2]) -> usize {
        self.dead.iter().filter(|((pipeline, _), _)| pipelines.contains(pipeline)).map(|(_, count)| count).sum()
    }
}

/// Appends a session that falls silent, once for a millisecond too long; says how many events it has.
fn add_silences(system: &System) -> usize {
    let times = ["10:00:00.000", "10:29:59.999", "10:59:59.999", "11:00:59.999"];
    let path = system.folder.join("user_events.csv");
    let mut file = std::fs::read(&path).expect("a file");
    for (at, time) in times.iter().enumerate() {
        let (id, session) = ("018cc252-21b2-71a9-bc46-00000000000", "8ff75d0c-43ea-47c1-92e4-8267b379e700");
        file.extend(format!("{id}{at},1,{session},search,email,,2025-12-31T{time}Z\n").bytes());
    }
    std::fs::write(&path, file).expect("a file");
    times.len()
}

/// The lines of a file below its header.
fn lines(system: &System, name: &str) -> Vec<Vec<u8>> {
    let file = std::fs::read(system.folder.join(name)).expect("a file");
    let lines: Vec<Vec<u8>> = file.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    assert_eq!(lines.last(), Some(&Vec::new()), "{name} ends with a line's end");
    lines[1..lines.len() - 1].to_vec()
}

/// A line's fields, where it is a row.
fn row(line: &[u8], columns: usize) -> Option<Vec<String>> {
    let line = std::str::from_utf8(line).ok()?;
    let row = fields(line);
    (line.matches('"').count() % 2 == 0 && row.len() == columns).then_some(row)
}

fn fault_of_user(row: &[String]) -> Option<&'static str> {
    match row {
        // A time is looked at before the plugin sees the row.
        _ if rfc3339_ms(&row[5]).is_none() => Some("wrong_type"),
        _ if row[0].parse::<u16>().is_err() => Some("bad_user_id"),
        _ if row[1].parse::<u8>().is_err() => Some("bad_age"),
        _ => None,
    }
}

fn fault_of_event(row: &[String]) -> Option<&'static str> {
    match row {
        _ if rfc3339_ms(&row[6]).is_none() => Some("wrong_type"),
        _ if row[0].len() != 36 => Some("bad_event_id"),
        _ if row[1].parse::<u16>().is_err() => Some("bad_user_id"),
        _ if !KINDS.contains(&row[3].as_str()) => Some("unknown_event_type"),
        _ if !row[5].is_empty() && row[5].parse::<u32>().is_err() => Some("bad_premium"),
        _ => None,
    }
}

#[test]
fn insurance_tables_are_what_the_files_say_through_a_kill() {
    let count = if long() { 500_000 } else { 20_000 };
    let plugins = ["insurance-events", "insurance-users", "sessions"];
    let mut system = System::new("insurance", "insurance_analytics", &plugins);
    let shares = ["--duplicates-per-million", "50000", "--malformed-per-million", "20000"];
    let out = ["--out", &system.folder.display().to_string(), "--events", &count.to_string()];
    system.finish("generate", &[&["generate", "insurance"], out.as_slice(), shares.as_slice()].concat());
    let count = count + add_silences(&system);

    let started = Instant::now();
    system.finish("load-users", &["run", &System::shipped("insurance-load-users.yaml")]);
    system.finish("load-events", &["run", &System::shipped("insurance-load-events.yaml")]);
    let pipeline = system.to_be_killed("insurance.yaml");
    let mut first = system.start("first", &["run", &pipeline]);
    // Before the first block is full or due, so that the kill is in the middle.
    first.await_that("an event", || topics::written(&system.brokers, "insurance.processed_events") > 0);
    first.kill();
    let rows = system.number("SELECT count() FROM $.processed_events_storage");
    assert!(rows < count, "the kill came after all was done");
    system.finish("second", &["run", &pipeline, "--until-end"]);
    system.finish("users", &["run", &System::shipped("insurance-users.yaml"), "--until-end"]);
    eprintln!("insurance: {count} events from files to tables in {:.1?}, a kill after {rows} rows", started.elapsed());

    let files = Files::read(&system);
    let distinct = distinct(&files.events);
    assert_eq!(distinct.len(), count);
    assert_eq!(system.number("SELECT count() FROM $.processed_events_storage FINAL"), count);
    let mut longest = Duration::ZERO;
    for (sql, expected) in views(&files.users, &distinct) {
        let asked = Instant::now();
        let found = system.sql(sql);
        longest = longest.max(asked.elapsed());
        compare(sql, &found, &expected);
    }
    eprintln!("insurance: the slowest view answers in {longest:.1?}");
    // Nothing follows: the sessions that are open are restored, and closed.
    system.variables.push(("CLOSE_AFTER", "3s".to_owned()));
    let mut third = system.start("third", &["run", &pipeline]);
    let expected = sessions(&distinct);
    third.await_that("sessions", || system.sql(SESSIONS) == expected.trim_end());
    assert!(third.terminate().success());
    assert_eq!(system.number("SELECT count() FROM $.session_metrics_raw"), expected.lines().count());
    eprintln!("insurance: {} sessions", expected.lines().count());
    accounts(&system, &files, distinct.len());
    let share = storage_share(|sql| system.sql(sql));
    assert!(share < 0.6, "{share}");
}

/// Every line of the files is a row or a dead letter, at each step.
fn accounts(system: &System, files: &Files, distinct: usize) {
    let [users, events] = ["users.csv", "user_events.csv"].map(|name| lines(system, name).len());
    let dead = |pipelines: [&str; 2]| files.dead_of(pipelines);
    let of_users = dead(["insurance-load-users", "insurance-users"]);
    let of_events = dead(["insurance-load-events", "insurance"]);
    assert_eq!(users, files.users.len() + of_users);
    assert_eq!(events, files.events.len() + of_events);
    for (topic, records) in [
        ("insurance.users", users - dead(["insurance-load-users", ""])),
        ("insurance.raw_events", events - dead(["insurance-load-events", ""])),
        ("insurance.processed_users", files.users.len()),
        ("insurance.processed_events", distinct),
        ("insurance.users_dlq", of_users),
        ("insurance.dlq", of_events),
    ] {
        assert_eq!(system.records(topic), records, "{topic}");
    }
    let mut expected = String::new();
    for ((pipeline, code), count) in &files.dead {
        let _ = writeln!(expected, "{pipeline}\t{code}\t{count}");
    }
    let letters =
        "SELECT pipeline, code, count() FROM $.dlq_table GROUP BY pipeline, code ORDER BY pipeline, code".to_owned();
    compare(&letters, &system.sql(&letters), &expected);
    eprintln!("insurance: {events} lines of events = {} rows + {of_events} dead letters", files.events.len());
}
