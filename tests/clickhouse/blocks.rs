//! A block is one insert, one block, and there once.

use millstream::clickhouse::{Insert, ServerSettings};
use millstream::config::Secret;

use super::harness::clickhouse::ClickHouse;
use super::{Fixture, lineage, rows, wait};

#[test]
fn a_block_is_there_once_however_often_it_is_sent() {
    let fixture = Fixture::new("id UInt64, name String DEFAULT 'nobody'");
    let (mut encoder, insert) = fixture.writer();
    let block = insert.block(&rows(&mut encoder, [r#"{"id":1,"name":"a"}"#, r#"{"id":2}"#]));
    for _ in 0..3 {
        wait(insert.send(&fixture.client, &block, Some("token-1"))).expect("inserted");
    }
    assert_eq!(fixture.sql("SELECT id, name FROM $.t ORDER BY id"), "1\ta\n2\tnobody");
    wait(insert.send(&fixture.client, &block, Some("token-2"))).expect("inserted");
    wait(insert.send(&fixture.client, &block, None)).expect("inserted");
    assert_eq!(fixture.sql("SELECT count() FROM $.t"), "6");
}

/// C4: the same token is not the same block if the server cuts it differently.
#[test]
fn a_profile_that_cuts_blocks_smaller_changes_nothing() {
    let cutting = "--profile max_insert_block_size=3000 --profile min_insert_block_size_rows=1000 \
                   --profile min_insert_block_size_bytes=10000 --profile max_insert_block_size_bytes=100000 \
                   --profile use_strict_insert_block_limits=1 --profile input_format_max_block_size_bytes=50000 \
                   --profile min_insert_block_size_rows_for_materialized_views=500 --profile max_insert_threads=4 \
                   --profile async_insert=1 --profile insert_deduplicate=0 --profile deduplicate_insert=disable \
                   --profile deduplicate_blocks_in_dependent_materialized_views=0 --profile max_block_size=1000";
    let server = ClickHouse::start_with(18_991, cutting);
    let fixture = Fixture::on(&server.url(), "id UInt64, half UInt64, text String");
    with_two_views(&fixture);
    let (mut encoder, insert) = fixture.writer();
    let mut block = |count: i64| {
        let mut out = Vec::new();
        for id in 0..count {
            let record = format!("{{\"id\":{id},\"half\":{},\"text\":\"some text {id}\"}}", id / 2);
            encoder.encode(record.as_bytes(), lineage(id), &mut out).expect("it fits");
        }
        insert.block(&out)
    };
    let (small, block) = (block(10_000), block(300_000));
    for _ in 0..2 {
        wait(insert.send(&fixture.client, &block, Some("token"))).expect("inserted");
    }
    let counts = "SELECT (SELECT count() FROM $.t), (SELECT count() FROM $.first), (SELECT count() FROM $.second)";
    assert_eq!(fixture.sql(counts), "300000\t300000\t300000");
    let parts = "SELECT count(), sum(rows) FROM system.parts WHERE database = '$' AND table = 't' AND level = 0";
    assert_eq!(fixture.sql(parts), "1\t300000");

    // Without our settings the same token lets most of the rows in again.
    let (encoder, _) = fixture.writer();
    let unpinned = Insert::new(&fixture.table(), &encoder, &ServerSettings::default());
    wait(insert.send(&fixture.client, &small, Some("small"))).expect("inserted");
    wait(unpinned.send(&fixture.client, &small, Some("small"))).expect("inserted");
    let rows: u64 = fixture.sql("SELECT count() FROM $.t").parse().expect("a number");
    assert!(rows > 310_000, "{rows}: the profile cuts nothing, so that this test shows nothing");
}

/// Two views behind `t`, one after the other, whose targets remember tokens.
pub(super) fn with_two_views(fixture: &Fixture) {
    for (name, from) in [("first", "t"), ("second", "first")] {
        let columns = "id UInt64, half UInt64";
        fixture.sql(&format!("CREATE TABLE $.{name} ({columns}) ENGINE = MergeTree ORDER BY id {}", super::WINDOW));
        let select = format!("SELECT id, half FROM $.{from}");
        fixture.sql(&format!("CREATE MATERIALIZED VIEW $.to_{name} TO $.{name} AS {select}"));
    }
}

/// An answer that is lost after the commit, refusals and delays: whatever happens to a request, the block is there once.
#[test]
fn faults_neither_lose_nor_double_a_block() {
    let server = ClickHouse::start(18_992);
    let mut fixture = Fixture::on(&server.url(), "id UInt64, half UInt64");
    with_two_views(&fixture);
    fixture.config.request_timeout = std::time::Duration::from_secs(1);
    fixture.renew();
    let (mut encoder, insert) = fixture.writer();
    for (at, mode) in ["reject", "error", "drop", "delay", "none"].into_iter().enumerate() {
        match mode {
            "none" => {}
            "delay" => server.delay(std::time::Duration::from_millis(1_500), 1, "INSERT"),
            mode => server.fault(mode, 2, "INSERT"),
        }
        let record = format!("{{\"id\":{at},\"half\":{at}}}");
        let block = insert.block(&rows(&mut encoder, [record.as_str()]));
        let mut failures = 0;
        while let Err(error) = wait(insert.send(&fixture.client, &block, Some(mode))) {
            assert_eq!(error.verdict, millstream::clickhouse::Verdict::Retry, "{mode}: {error}");
            failures += 1;
            assert!(failures < 10, "{mode}: {error}");
        }
        assert_eq!(failures > 0, mode != "none", "{mode}");
    }
    // The one that was held back comes through, too, after its client has gone.
    std::thread::sleep(std::time::Duration::from_secs(2));
    for table in ["t", "first", "second"] {
        assert_eq!(fixture.sql(&format!("SELECT count(), uniq(id) FROM $.{table}")), "5\t5", "{table}");
    }
    server.heal();
}

/// A server that is killed is one that does not answer; what it took it still knows afterwards.
#[test]
fn a_server_that_is_killed_knows_its_tokens_when_it_is_back() {
    let server = ClickHouse::start(18_993);
    let fixture = Fixture::on(&server.url(), "id UInt64");
    let (mut encoder, insert) = fixture.writer();
    let block = insert.block(&rows(&mut encoder, ["{\"id\":1}"]));
    wait(insert.send(&fixture.client, &block, Some("token"))).expect("inserted");
    server.kill();
    let error = wait(insert.send(&fixture.client, &block, Some("token"))).expect_err("nobody is there");
    assert_eq!(error.verdict, millstream::clickhouse::Verdict::Retry, "{error}");
    server.restart();
    wait(insert.send(&fixture.client, &block, Some("token"))).expect("inserted");
    assert_eq!(fixture.sql("SELECT count() FROM $.t"), "1");
}

#[test]
fn a_password_is_asked_for_and_given() {
    let server = ClickHouse::start_with(18_994, "--user millstream:secret --user default:");
    let mut fixture = Fixture::on(&server.url(), "id UInt64");
    fixture.config.user = Some("millstream".into());
    fixture.config.password = Some(Secret::new("wrong"));
    fixture.renew();
    let error = wait(fixture.client.query("SELECT 1", &[])).expect_err("the password is wrong");
    assert_eq!(error.verdict("d", "t"), millstream::clickhouse::Verdict::Access, "{error}");
    assert!(!error.to_string().contains("secret") && !error.to_string().contains("wrong"), "{error}");
    fixture.config.password = Some(Secret::new("secret"));
    fixture.renew();
    assert_eq!(wait(fixture.client.query("SELECT 1", &[])).expect("it answers").text(), "1");
}
