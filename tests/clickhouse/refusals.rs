//! What the server refuses is told for what it is: only a refusal that precedes every write may be split (C3).

use millstream::clickhouse::Verdict;

use super::blocks::with_two_views;
use super::{Fixture, rows, wait};

/// The verdict on an insert of these records.
fn verdict(fixture: &Fixture, records: &[&str]) -> Verdict {
    let (mut encoder, insert) = fixture.writer();
    let block = insert.block(&rows(&mut encoder, records.iter().copied()));
    let error = wait(insert.send(&fixture.client, &block, Some("token"))).expect_err("refused");
    error.verdict
}

fn count(fixture: &Fixture) -> String {
    fixture.sql("SELECT count() FROM $.t")
}

#[test]
fn a_constraint_of_the_table_refuses_before_anything_is_written() {
    let fixture = Fixture::new("id UInt8, CONSTRAINT small CHECK id < 100");
    assert_eq!(verdict(&fixture, &["{\"id\":1}", "{\"id\":120}"]), Verdict::Refused);
    assert_eq!(count(&fixture), "0");
}

#[test]
fn a_view_that_throws_is_named_and_nothing_may_be_split() {
    let fixture = Fixture::new("id UInt64, half UInt64");
    with_two_views(&fixture);
    let view =
        "CREATE MATERIALIZED VIEW $.checked TO $.second AS SELECT id, half FROM $.first WHERE throwIf(id = 7) = 0";
    fixture.sql(view);
    let records = ["{\"id\":1,\"half\":0}", "{\"id\":7,\"half\":3}"];
    let named = |view: &str| Verdict::Behind { view: Some(format!("{}.{view}", fixture.database)) };
    let found = verdict(&fixture, &records);
    assert!(found == named("checked") || found == named("to_first"), "{found:?}");
    // This is why: the table itself has the rows.
    assert_eq!(count(&fixture), "2");
}

#[test]
fn a_constraint_behind_a_view_is_none_of_the_tables() {
    let fixture = Fixture::new("id UInt8");
    fixture.sql("CREATE TABLE $.target (id UInt8, CONSTRAINT small CHECK id < 100) ENGINE = MergeTree ORDER BY id");
    fixture.sql("CREATE MATERIALIZED VIEW $.v TO $.target AS SELECT id FROM $.t");
    let named = Verdict::Behind { view: Some(format!("{}.v", fixture.database)) };
    assert_eq!(verdict(&fixture, &["{\"id\":120}"]), named);
}

#[test]
fn a_block_of_too_many_partitions_is_refused_before_anything_is_written() {
    let fixture = Fixture::new("id UInt16");
    fixture.sql("DROP TABLE $.t");
    fixture.sql("CREATE TABLE $.t (id UInt16) ENGINE = MergeTree PARTITION BY id ORDER BY id");
    let records: Vec<String> = (0..101).map(|id| format!("{{\"id\":{id}}}")).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    assert_eq!(verdict(&fixture, &records), Verdict::Refused);
    assert_eq!(count(&fixture), "0");
}

#[test]
fn a_table_that_goes_is_missing_until_it_is_back() {
    let fixture = Fixture::new("id UInt8");
    let (mut encoder, insert) = fixture.writer();
    let block = insert.block(&rows(&mut encoder, ["{\"id\":1}"]));
    fixture.sql("DROP TABLE $.t SYNC");
    let error = wait(insert.send(&fixture.client, &block, Some("token"))).expect_err("no table");
    assert_eq!(error.verdict, Verdict::Missing, "{error}");
    let described = wait(millstream::clickhouse::Table::describe(&fixture.client, &fixture.database, "t"));
    let error = described.expect_err("no table").to_string();
    assert!(error.contains("there is no table"), "{error}");
    fixture.sql("CREATE TABLE $.t (id UInt8) ENGINE = MergeTree ORDER BY id");
    wait(insert.send(&fixture.client, &block, Some("token"))).expect("it is back");
    assert_eq!(count(&fixture), "1");
}

/// C2: bytes that were encoded for one type must never be read as another, of the same width or not.
#[test]
fn a_column_that_changes_its_type_lets_nothing_in() {
    for with_default in ["", ", other String DEFAULT 'x'"] {
        for to in ["Int64", "UInt64", "String"] {
            let fixture = Fixture::new(&format!("id UInt8, n Int32{with_default}"));
            let (mut encoder, insert) = fixture.writer();
            let block = insert.block(&rows(&mut encoder, ["{\"id\":1,\"n\":-1}"]));
            let before = fixture.table().schema_digest;
            fixture.sql(&format!("ALTER TABLE $.t MODIFY COLUMN n {to}"));
            let error = wait(insert.send(&fixture.client, &block, Some("token"))).expect_err("another type");
            assert_eq!(error.verdict, Verdict::SchemaChanged, "{to}: {error}");
            assert_eq!(count(&fixture), "0");
            assert_ne!(fixture.table().schema_digest, before);
        }
    }
}

#[test]
fn a_column_that_is_dropped_or_added_is_seen() {
    let fixture = Fixture::new("id UInt8, n UInt8");
    let (mut encoder, insert) = fixture.writer();
    let block = insert.block(&rows(&mut encoder, ["{\"id\":1,\"n\":2}"]));
    // A new column has its default until the table is described anew.
    fixture.sql("ALTER TABLE $.t ADD COLUMN late String DEFAULT 'late'");
    wait(insert.send(&fixture.client, &block, Some("a"))).expect("inserted");
    assert_eq!(fixture.sql("SELECT * FROM $.t"), "1\t2\tlate");
    fixture.sql("ALTER TABLE $.t DROP COLUMN n");
    let error = wait(insert.send(&fixture.client, &block, Some("b"))).expect_err("a column is gone");
    assert_eq!(error.verdict, Verdict::SchemaChanged, "{error}");
}

#[test]
fn bytes_that_are_no_rows_are_refused() {
    let fixture = Fixture::new("id UInt64");
    let (_, insert) = fixture.writer();
    let error = wait(insert.send(&fixture.client, &insert.block(&[1, 2, 3]), Some("a"))).expect_err("no row");
    assert_eq!(error.verdict, Verdict::Refused, "{error}");
    assert_eq!(count(&fixture), "0");
}
