//! Clickstream: made-up records, malformed ones among them, through three plugins into topics and tables.

use std::time::Instant;

use super::System;
use crate::harness::process::long;
use crate::reference::clickstream::{AVERAGES, DAILY_ACTIVE_USERS, EVENTS, averages, daily_active_users, event, rows};
use crate::reference::compare;

/// The first record's time, such that the smallest size reaches over midnight.
const START_S: u32 = 1_700_005_000;

#[test]
fn clickstream_tables_are_what_the_input_says_through_a_kill() {
    let half = if long() { 500_000 } else { 20_000 };
    let system = System::new("clickstream", "events_db", &["validate", "upcast", "enrich"]);
    let generate = |seed: &str| {
        let options = ["--malformed-per-million", "10000", "--start-time-s", &START_S.to_string()];
        let to = ["--brokers", &system.brokers, "--topic", "my_events", "--records", &half.to_string()];
        let args = [&["generate", "clickstream", "--seed", seed], options.as_slice(), to.as_slice()].concat();
        system.finish(&format!("generate-{seed}"), &args);
    };
    let pipeline = system.to_be_killed("clickstream-clickhouse.yaml");
    generate("1");
    let started = Instant::now();
    let mut first = system.start("first", &["run", &pipeline]);
    first.await_that("a row", || system.number("SELECT count() FROM $.events") > 0);
    first.kill();
    // The other half comes while nobody is there.
    generate("2");
    system.finish("second", &["run", &pipeline, "--until-end"]);
    eprintln!("clickstream: {} records through a kill in {:.1?}", 2 * half, started.elapsed());

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
    assert_eq!(events.len() + dead.len(), 2 * half);
    compare(EVENTS, &system.sql(EVENTS), &rows(&events));
    compare(DAILY_ACTIVE_USERS, &system.sql(DAILY_ACTIVE_USERS), &daily_active_users(&events));
    compare(AVERAGES, &system.sql(AVERAGES), &averages(&events));
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
