//! What is checked before anything is promised, and how a block in doubt is settled.

use std::time::Duration;

use millstream::clickhouse::{
    CheckError, Guarantee, RangeCount, ServerSettings, check_exactly_once, check_replaces, count_range,
};
use millstream::config::VersionedRows;

use super::harness::clickhouse::ClickHouse;
use super::harness::process::folder;
use super::{Fixture, lineage, wait};

fn check(fixture: &Fixture) -> Result<Guarantee, String> {
    let settings = wait(ServerSettings::read(&fixture.client)).expect("settings");
    match wait(check_exactly_once(&fixture.client, &fixture.table(), &settings)) {
        Ok(guarantee) => Ok(guarantee),
        Err(CheckError::Refused(text)) => Err(text),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_table_that_remembers_its_blocks_passes() {
    let fixture = Fixture::new("id UInt8, _topic String, _partition Int32, _offset Int64");
    let guarantee = check(&fixture).unwrap_or_else(|error| panic!("{error}"));
    let tables = vec![(fixture.database.clone(), "t".to_owned())];
    let window = None::<Duration>;
    let expected = Guarantee { window_blocks: 1_000, window, has_lineage: true, notes: Vec::new(), tables };
    assert_eq!(guarantee, expected);

    let without = Fixture::new("id UInt8");
    without.sql("ALTER TABLE $.t MODIFY SETTING non_replicated_deduplication_window = 10");
    let guarantee = check(&without).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((guarantee.window_blocks, guarantee.has_lineage, guarantee.notes.len()), (10, false, 2));
    assert!(guarantee.notes[0].contains("_topic String, _partition Int32, _offset Int64"), "{:?}", guarantee.notes);
}

#[test]
fn everything_that_is_missing_is_said_at_once_and_can_be_pasted() {
    let fixture = Fixture::new("id UInt8");
    fixture.sql("ALTER TABLE $.t MODIFY SETTING non_replicated_deduplication_window = 0");
    fixture.sql("CREATE TABLE $.`odd name` (id UInt8) ENGINE = SummingMergeTree ORDER BY id");
    fixture.sql("CREATE MATERIALIZED VIEW $.a TO $.`odd name` AS SELECT id FROM $.t");
    fixture.sql("CREATE MATERIALIZED VIEW $.b ENGINE = MergeTree ORDER BY id AS SELECT id FROM $.t");
    fixture.sql("CREATE TABLE $.memory (id UInt8) ENGINE = Memory");
    fixture.sql("CREATE MATERIALIZED VIEW $.c TO $.memory AS SELECT id FROM $.`odd name`");
    let text = check(&fixture).expect_err("must be refused");
    let statements: Vec<String> =
        text.lines().filter_map(|line| line.split_once("run: ")).map(|(_, statement)| statement.to_owned()).collect();
    assert_eq!(statements.len(), 3, "{text}");
    assert!(text.contains(".memory has the engine Memory, which forgets"), "{text}");
    assert!(text.contains("delivery: at_least_once"), "{text}");

    fixture.sql("DROP VIEW $.c SYNC");
    statements.iter().for_each(|statement| drop(fixture.sql(statement)));
    assert_eq!(check(&fixture).map(|guarantee| guarantee.window_blocks), Ok(10_000));
}

#[test]
fn a_view_in_another_database_is_found() {
    let fixture = Fixture::new("id UInt8");
    let other = Fixture::new("id UInt8");
    other.sql("ALTER TABLE $.t MODIFY SETTING non_replicated_deduplication_window = 0");
    fixture
        .sql(&format!("CREATE MATERIALIZED VIEW {}.v TO {}.t AS SELECT id FROM $.t", other.database, other.database));
    let text = check(&fixture).expect_err("must be refused");
    assert!(text.contains(&format!("{}.t forgets which blocks it took", other.database)), "{text}");
    other.sql("DROP VIEW $.v SYNC");
    check(&fixture).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn tables_that_only_pass_rows_on_are_refused() {
    let fixture = Fixture::new("id UInt8");
    for engine in ["Null", "Memory", "Buffer('$', 'target', 1, 10, 100, 10, 100, 10, 100)"] {
        fixture.sql("DROP TABLE IF EXISTS $.t SYNC");
        fixture.sql("CREATE TABLE IF NOT EXISTS $.target (id UInt8) ENGINE = MergeTree ORDER BY id");
        fixture.sql(&format!("CREATE TABLE $.t (id UInt8) ENGINE = {engine}"));
        let text = check(&fixture).expect_err("must be refused");
        assert!(text.contains("has to be one of the MergeTree family"), "{text}");
    }
}

#[test]
fn a_profile_that_forbids_a_setting_is_found_at_start() {
    let server = ClickHouse::start_with(18_995, "--profile max_insert_block_size=3000 --const max_insert_block_size");
    let fixture = Fixture::on(&server.url(), "id UInt8");
    let text = check(&fixture).expect_err("must be refused");
    assert!(text.contains("profile forbids a setting") && text.contains("max_insert_block_size"), "{text}");
}

#[test]
fn a_range_of_records_is_counted() {
    let fixture = Fixture::new("id UInt8, _topic LowCardinality(String), _partition UInt32, _offset UInt64");
    let (mut encoder, insert) = fixture.writer();
    let mut out = Vec::new();
    for offset in [10, 11, 13, 13] {
        encoder.encode(b"{\"id\":1}", lineage(offset), &mut out).expect("it fits");
    }
    wait(insert.send(&fixture.client, &insert.block(&out), None)).expect("inserted");
    let table = fixture.table();
    assert!(table.has_lineage() && table.keeps_rows());
    let count = |topic, partition, first, last| {
        wait(count_range(&fixture.client, &table, topic, partition, first, last)).expect("counted")
    };
    assert_eq!(count("events", 0, 10, 12), RangeCount { rows: 2, offsets: 2 });
    assert_eq!(count("events", 0, 13, 20), RangeCount { rows: 2, offsets: 1 });
    assert_eq!(count("events", 1, 10, 20), RangeCount { rows: 0, offsets: 0 });
    assert_eq!(count("event's", 0, 10, 20), RangeCount { rows: 0, offsets: 0 });
}

#[test]
fn rows_in_versions_need_a_table_that_replaces_them() {
    let fixture = Fixture::new("id UInt8");
    let columns =
        "k String, window_start DateTime64(6), window_end DateTime64(6), version UInt64, retracted Bool, n UInt64";
    let check = |make: &str| {
        fixture.sql("DROP TABLE IF EXISTS $.t SYNC");
        fixture.sql(&format!("CREATE TABLE $.t ({columns}) ENGINE = {make}"));
        let mut config = fixture.config.clone();
        let rows = VersionedRows { stage: "per_minute".into(), key: vec!["k".into()], is_session: false };
        config.versioned = vec![rows];
        match wait(check_replaces(&fixture.client, &fixture.table(), &config)) {
            Ok(()) => Ok(()),
            Err(CheckError::Refused(text)) => Err(text),
            Err(error) => panic!("{error}"),
        }
    };
    let good = "ReplacingMergeTree(version) PARTITION BY toYYYYMM(window_start) ORDER BY (k, window_start)";
    assert_eq!(check(good), Ok(()));
    assert_eq!(check("ReplacingMergeTree(version) ORDER BY (window_start, `k`, window_end)"), Ok(()));
    let refused = |make: &str, words: &str| {
        let text = check(make).expect_err("must be refused");
        assert!(text.contains(words), "{text}");
        text
    };
    let text =
        refused("MergeTree ORDER BY (k, window_start)", "it has the engine MergeTree, which keeps every version");
    assert!(
        text.contains("stage `per_minute`") && text.contains("ReplacingMergeTree(version) ORDER BY (k, window_start)")
    );
    refused("ReplacingMergeTree ORDER BY (k, window_start)", "with the highest no column");
    refused("ReplacingMergeTree(n) ORDER BY (k, window_start)", "with the highest `n`");
    refused("ReplacingMergeTree(version) ORDER BY window_start", "lacks `k`");
    refused("ReplacingMergeTree(version) ORDER BY (k, toDate(window_start))", "lacks `window_start`");
    refused("ReplacingMergeTree(version) ORDER BY (k, window_start, n)", "has `n`, by which two versions");
    refused("ReplacingMergeTree(version) PARTITION BY n ORDER BY (k, window_start)", "its partition key (n) has `n`");
    // What was told can be pasted, and then it holds.
    fixture.sql("DROP TABLE $.t SYNC");
    let made =
        text.split("Make it ENGINE = ").nth(1).and_then(|rest| rest.split(", and read").next()).expect("an engine");
    assert_eq!(check(made), Ok(()));
}

#[test]
fn early_rows_are_kept_out_of_a_table_that_keeps_them_all() {
    let fixture = Fixture::new("k String, window_start DateTime64(6), version UInt64, n UInt64");
    let folder = folder("clickhouse-early");
    std::fs::write(folder.join("in.ndjson"), "{\"t\": 5, \"k\": \"a\"}\n").expect("records");
    let (url, database) = (&fixture.url, &fixture.database);
    let text = format!(
        "pipeline: early\nsource: {{files: {{paths: [in.ndjson]}}}}\nobserve: off\nadmin: off\n\
         stages: [{{name: w, window: {{time: {{field: /t, encoding: epoch_s}}, key: [/k], tumbling: 1m, early: 10s, \
         aggregate: {{n: count}}, output: main}}}}]\ndead_letters: {{to: {{discard: }}}}\n\
         outputs: {{main: {{clickhouse: {{url: '{url}', database: {database}, table: t, delivery: at_least_once}}}}}}\n"
    );
    let file = folder.join("p.yaml");
    std::fs::write(&file, text).expect("a config file");
    let millstream = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_millstream")).args(args).arg(&file).output();
        let output = output.expect("millstream runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for args in [&["validate", "--connect"][..], &["run"]] {
        let (done, said) = millstream(args);
        assert!(!done && said.contains("stage `w` have `early` or `reopen`"), "{args:?}: {said}");
    }
    fixture.sql("DROP TABLE $.t SYNC");
    fixture.sql(
        "CREATE TABLE $.t (k String, window_start DateTime64(6), version UInt64, n UInt64) \
         ENGINE = ReplacingMergeTree(version) ORDER BY (k, window_start)",
    );
    for args in [&["validate", "--connect"][..], &["run"]] {
        let (done, said) = millstream(args);
        assert!(done, "{args:?}: {said}");
    }
    assert_eq!(fixture.sql("SELECT k, n FROM $.t FINAL"), "a\t1");
}
