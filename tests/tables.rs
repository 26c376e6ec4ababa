//! Promise: what goes into a topic is in its ClickHouse table, every row there and none twice, whatever is killed and
//! whatever answer is lost; a record that does not fit costs that one record; and what can't be known stops and says so.
//!
//! A real broker and the real engine, with faults on its answers.

mod harness;

#[path = "tables/chaos.rs"]
mod chaos;
#[path = "tables/doubt.rs"]
mod doubt;
#[path = "tables/line.rs"]
mod line;

use std::time::{Duration, Instant};

use harness::http::{address, await_some, get, value};
use harness::process::{Millstream, folder};
use line::{LINEAGE, Line, WINDOW};
use millstream::metrics::{FAMILIES, Kind};

fn number(number: i64) -> String {
    format!("{{\"n\":{number}}}")
}

#[test]
fn records_that_do_not_fit_are_dead_letters_and_all_others_are_rows() {
    let mut line = Line::new("fit", 2, &format!("n UInt8, s Nullable(String), {LINEAGE}"));
    line.send(1_000, |number| match number % 10 {
        0 => format!("{{\"n\":{}}}", 256 + number),
        1 => "no json".to_owned(),
        2 => "{\"s\":\"there is no n\"}".to_owned(),
        _ => format!("{{\"n\":{},\"s\":\"text\",\"more\":1}}", number % 200),
    });
    line.finish("flush_rows: 64");
    assert_eq!(line.rows(), (700, 700));
    assert_eq!(line.dead().len(), 300);
    assert!(line.dead().windows(2).all(|pair| pair[0] != pair[1]), "a dead letter is there twice");
}

#[test]
fn a_lone_record_is_there_within_the_interval_and_every_metric_of_tables_moves() {
    let mut line = Line::new("lone", 1, &format!("n UInt64, {LINEAGE}"));
    let process = line.start("one", "run", "flush_interval: 300ms");
    let observe = address(&line.folder, "run", "observe");
    await_some("the table", || {
        (value(&get(observe, "/metrics"), "millstream_table_running", &[]) == Some(1.0)).then_some(())
    });
    let before = get(observe, "/metrics");
    let mut longest = Duration::ZERO;
    for count in 1..=5 {
        line.send(1, number);
        let sent = Instant::now();
        await_some("the row", || (line.rows().0 == count).then_some(()));
        longest = longest.max(sent.elapsed());
    }
    eprintln!("a lone record is queryable after {longest:?} at most, with a flush_interval of 300 ms");
    line.send(1, |_| "{}".to_owned());
    // A lost answer is a retry and a doubt.
    crate::harness::clickhouse::fault(&line.url, "mode=drop&count=1&match=lone");
    line.send(1, number);
    await_some("the doubt", || {
        (value(&get(observe, "/metrics"), "millstream_table_doubts_total", &[]) > Some(0.0)).then_some(())
    });
    await_some("all of it", || {
        (value(&get(observe, "/metrics"), "millstream_table_records_in_total", &[]) == Some(7.0)).then_some(())
    });
    let after = get(observe, "/metrics");
    let lines = |text: &str, name: &str| -> Vec<String> {
        let own = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        text.lines().filter(own).map(str::to_owned).collect()
    };
    for family in FAMILIES.iter().filter(|family| family.name.starts_with("millstream_table_")) {
        let name = match family.kind {
            Kind::Histogram => format!("{}_count", family.name),
            _ => family.sample_name(),
        };
        assert!(!lines(&after, &name).is_empty(), "{name} is not there");
        let still = ["running", "stopped", "imbalance", "tombstones", "lag"].iter().any(|part| name.contains(part));
        assert!(still || lines(&before, &name) != lines(&after, &name), "{name} does not move");
    }
    assert_eq!(value(&after, "millstream_table_imbalance_records", &[]), Some(0.0));
    assert_eq!(line.rows(), (6, 6));
    assert!(process.terminate().success());
}

#[test]
fn what_the_server_refuses_is_divided_down_to_the_rows_that_are_to_blame() {
    let mut line = Line::new("refused", 1, &format!("n UInt64, {LINEAGE}, CONSTRAINT small CHECK n % 100 != 7"));
    line.send(1_000, number);
    line.finish("");
    assert_eq!(line.rows(), (990, 990));
    let expected: Vec<(i32, i64)> = (0..10).map(|hundred| (0, hundred * 100 + 7)).collect();
    assert_eq!(line.dead(), expected);
}

#[test]
fn a_table_that_is_gone_is_awaited_and_a_new_column_is_picked_up() {
    let mut line = Line::new("gone", 1, &format!("n UInt64, {LINEAGE}"));
    let process = line.start("one", "run", "flush_interval: 100ms");
    line.send(10, number);
    await_some("rows", || (line.rows().0 == 10).then_some(()));
    line.sql("ALTER TABLE $.t ADD COLUMN s Nullable(String)");
    await_some("the new column", || process.log().contains("the table has changed").then_some(()));
    line.send(10, |number| format!("{{\"n\":{number},\"s\":\"new\"}}"));
    await_some("rows with it", || (line.number("SELECT count() FROM $.t WHERE s = 'new'") == 10).then_some(()));
    line.sql("RENAME TABLE $.t TO $.away");
    line.send(10, number);
    let status = await_some("the complaint", || {
        let status = line.status("run");
        (status["tables"][0]["state"] == "waiting").then_some(status)
    });
    assert!(status["tables"][0]["why"].as_str().is_some_and(|why| why.contains("60")), "{status}");
    line.sql("RENAME TABLE $.away TO $.t");
    await_some("the rest", || (line.rows() == (30, 30)).then_some(()));
    assert!(process.terminate().success());
}

#[test]
fn a_file_goes_into_a_table_and_a_repeated_run_doubles_nothing() {
    let url = harness::clickhouse::shared_url();
    let sql = |sql: &str| harness::clickhouse::query(&url, sql);
    sql("CREATE DATABASE files");
    sql(&format!("CREATE TABLE files.t (n UInt16, {LINEAGE}) ENGINE = MergeTree ORDER BY n {WINDOW}"));
    sql(&format!(
        "CREATE TABLE files.dead (value String, reason String, {LINEAGE}) ENGINE = MergeTree ORDER BY () {WINDOW}"
    ));
    let folder = folder("tables-files");
    let lines: String = (0..5_000).map(|n| format!("{{\"n\":{}}}\n", if n % 100 == 99 { 70_000 } else { n })).collect();
    std::fs::write(folder.join("in.ndjson"), lines).expect("a file");
    let text = format!(
        "pipeline: files\nsource: {{files: {{paths: [in.ndjson]}}}}\n\
         outputs: {{main: {{clickhouse: {{url: \"{url}\", database: files, table: t, flush_rows: 700}}}}}}\n\
         dead_letters: {{to: {{clickhouse: {{url: \"{url}\", database: files, table: dead}}}}}}\n"
    );
    std::fs::write(folder.join("p.yaml"), text).expect("a config file");
    let config = folder.join("p.yaml").display().to_string();
    for run in ["first", "second"] {
        // The second time an answer is lost, too.
        let lost = if run == "second" { 1 } else { 0 };
        harness::clickhouse::fault(&url, &format!("mode=drop&count={lost}&match=INTO `files`"));
        let mut process = Millstream::start(&folder, run, &["run", &config, "--progress"]);
        let status = process.wait(Duration::from_secs(60));
        assert!(status.success(), "{}", process.log());
        assert!(process.log().contains("4950 rows in 8 blocks + 50 dead letters"), "{}", process.log());
        assert_eq!(sql("SELECT count(), uniqExact(_offset), sum(n) FROM files.t"), format!("4950\t4950\t{}", sum()));
        assert_eq!(sql("SELECT count(), uniqExact(_offset) FROM files.dead WHERE reason LIKE '%column n%'"), "50\t50");
    }
}

fn sum() -> u64 {
    (0..5_000).filter(|n| n % 100 != 99).sum()
}

#[test]
fn a_table_that_is_broken_holds_no_other_up() {
    let mut line = Line::new("other", 1, &format!("n UInt8, {LINEAGE}"));
    let config = line.config("one", "flush_interval: 100ms");
    let text = std::fs::read_to_string(&config).expect("the config");
    let (from, url) = ("dead_letters: {to: {kafka: {topic: tables-other-dead}}}", &line.url);
    let table = format!("clickhouse: {{url: \"{url}\", database: other, table: not_there_yet, flush_interval: 100ms}}");
    std::fs::write(
        &config,
        text.replace(from, &format!("dead_letters: {{to: {{kafka: {{topic: tables-other-dead}}, {table}}}}}")),
    )
    .expect("written");
    let process = Millstream::start(&line.folder, "run", &["run", &config]);
    line.send(300, number);
    await_some("rows", || (line.rows() == (256, 256)).then_some(()));
    let state = |output: &str| {
        let status = line.status("run");
        let tables = status["tables"].as_array().expect("tables").clone();
        tables.iter().find(|table| table["output"] == output).expect("the output")["state"].clone()
    };
    await_some("the complaint", || (state("dead_letters") == "waiting").then_some(()));
    assert_eq!(state("main"), "running");
    line.sql(&format!(
        "CREATE TABLE $.not_there_yet (value String, code String, {LINEAGE}) ENGINE = MergeTree ORDER BY () {WINDOW}"
    ));
    await_some("dead letters as rows", || {
        (line.number("SELECT count() FROM $.not_there_yet WHERE code = 'range'") == 44).then_some(())
    });
    assert!(process.terminate().success());
}
