//! A block is one insert, one block, and there once.

use super::{Fixture, rows, wait};

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
