//! What is checked before anything is promised, and how a block in doubt is settled.

use std::time::Duration;

use millstream::clickhouse::{CheckError, Guarantee, RangeCount, ServerSettings, check_exactly_once, count_range};

use super::harness::clickhouse::ClickHouse;
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
