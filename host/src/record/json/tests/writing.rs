//! What is written where, and what stays.

use super::*;
use crate::record::Packed;
use crate::record::TimestampEncoding::{EpochMs, EpochNs, EpochS, EpochUs, Rfc3339};

const REMOVE: &str = "-";

/// Writes JSON texts to paths; `-` removes, the empty text keeps.
fn write(record: &str, writes: &[(&str, &str)]) -> Result<String, SpliceError> {
    let paths: Vec<&str> = writes.iter().map(|(path, _)| *path).collect();
    let written: Vec<Written> = writes.iter().map(|(_, text)| written(text)).collect();
    let out = Chain::new(&[], &paths).write(record.as_bytes(), &written)?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

fn written(text: &str) -> Written {
    match text {
        REMOVE => one(ColumnType::Json, Op::Remove, |_| ()),
        "" => one(ColumnType::Json, Op::Keep, |_| ()),
        "null" => one(ColumnType::Json, Op::Null, |_| ()),
        text => set(ColumnType::Json, text.as_bytes()),
    }
}

#[track_caller]
fn check(record: &str, writes: &[(&str, &str)], expected: &str) {
    assert_eq!(write(record, writes).as_deref(), Ok(expected), "{record} {writes:?}");
}

#[test]
fn what_is_there_is_replaced_in_its_place() {
    check(r#"{"a":1,"b":2}"#, &[("/a", "10")], r#"{"a":10,"b":2}"#);
    check(" { \"a\" : 1.0 , \"b\" : 2e0 } \n", &[("/b", "null")], " { \"a\" : 1.0 , \"b\" : null } \n");
    check(r#"{"b":2,"a":{"c":[1]}}"#, &[("/a/c", "3"), ("/b", "{}")], r#"{"b":{},"a":{"c":3}}"#);
    check(r#"{"\u0061":1}"#, &[("/a", "2")], r#"{"\u0061":2}"#);
    check(r#"{"a":1}"#, &[("/a", "")], r#"{"a":1}"#);
}

#[test]
fn what_is_missing_comes_at_the_end_in_the_order_of_the_writes() {
    check("{}", &[("/b", "1"), ("/a", "2")], r#"{"b":1,"a":2}"#);
    check(r#"{"z":0}"#, &[("/b", "1"), ("/a", "null")], r#"{"z":0,"b":1,"a":null}"#);
    check("{ \"z\" : 0 \n}", &[("/a", "1")], "{ \"z\" : 0,\"a\":1 \n}");
    check("{ }", &[("/a", "1")], "{\"a\":1 }");
    check(r#"{"z":0}"#, &[("/a", ""), ("/b", REMOVE)], r#"{"z":0}"#);
    check("{}", &[("/a\"\n~1~0é", "1")], "{\"a\\\"\\n/~é\":1}");
}

#[test]
fn missing_parents_are_made_once() {
    check(
        "{}",
        &[("/a/b/c", "1"), ("/x", "2"), ("/a/b/d", "3"), ("/a/e", "4")],
        r#"{"a":{"b":{"c":1,"d":3},"e":4},"x":2}"#,
    );
    check(r#"{"a":{}}"#, &[("/a/b/c", "1"), ("/a/b/d", "2")], r#"{"a":{"b":{"c":1,"d":2}}}"#);
    check("{}", &[("/a/b", ""), ("/a/c", "1"), ("/d/e", REMOVE), ("/f/g", "")], r#"{"a":{"c":1}}"#);
    check("{}", &[("/a/0", "1"), ("/a/-", "2")], r#"{"a":{"0":1,"-":2}}"#);
}

#[test]
fn a_parent_that_is_no_object_rejects_the_row() {
    for parent in ["null", "true", "1", "\"x\"", "[]", "[1]", "[{}]"] {
        for (path, fault) in [("/a/b", SpliceFault::Parent), ("/a/7/c", SpliceFault::NoElement)] {
            let record = format!("{{\"a\":{parent}}}");
            let fault = if parent.starts_with('[') { SpliceFault::NoElement } else { fault };
            let fault = if parent.starts_with('[') { fault } else { SpliceFault::Parent };
            for text in ["1", "null"] {
                let error = SpliceError { write: 1, fault };
                assert_eq!(write(&record, &[("/x", "1"), (path, text)]), Err(error), "{record} {path}");
            }
            for text in [REMOVE, ""] {
                check(&record, &[(path, text)], &record);
            }
        }
    }
    assert_eq!(write("[]", &[("/a", "1")]), Err(SpliceError { write: 0, fault: SpliceFault::NoElement }));
    assert_eq!(write("5", &[("/a", "1")]), Err(SpliceError { write: 0, fault: SpliceFault::Parent }));
}

#[test]
fn elements_are_replaced_but_neither_made_nor_removed() {
    let record = r#"{"a":[1, {"b":2} ,3]}"#;
    check(record, &[("/a/0", "9"), ("/a/1/b", REMOVE), ("/a/2", "null")], r#"{"a":[9, {} ,null]}"#);
    check(record, &[("/a/1/c", "4")], r#"{"a":[1, {"b":2,"c":4} ,3]}"#);
    check(record, &[("/a/3", REMOVE), ("/a/-", REMOVE)], record);
    let error = |fault| Err(SpliceError { write: 0, fault });
    assert_eq!(write(record, &[("/a/3", "1")]), error(SpliceFault::NoElement));
    assert_eq!(write(record, &[("/a/-", "1")]), error(SpliceFault::NoElement));
    assert_eq!(write(record, &[("/a/01", "1")]), error(SpliceFault::NoElement));
    assert_eq!(write(record, &[("/a/0", REMOVE)]), error(SpliceFault::RemoveElement));
}

#[test]
fn a_removed_member_goes_with_its_comma() {
    let record = r#"{ "a" : 1 , "b" : 2 , "c" : 3 }"#;
    for (paths, expected) in [
        (&["/a"][..], r#"{ "b" : 2 , "c" : 3 }"#),
        (&["/b"], r#"{ "a" : 1 , "c" : 3 }"#),
        (&["/c"], r#"{ "a" : 1 , "b" : 2 }"#),
        (&["/a", "/b"], r#"{ "c" : 3 }"#),
        (&["/c", "/b"], r#"{ "a" : 1 }"#),
        (&["/a", "/c"], r#"{ "b" : 2 }"#),
        (&["/a", "/b", "/c"], r#"{  }"#),
        (&["/d"], record),
    ] {
        let mut writes: Vec<(&str, &str)> = paths.iter().map(|path| (*path, REMOVE)).collect();
        check(record, &writes, expected);
        // A member that is added to what is left, even if nothing is.
        writes.insert(0, ("/n", "0"));
        let comma = if expected.contains(':') { "," } else { "" };
        let end = expected.trim_end_matches([' ', '}']).len();
        let trimmed = if comma.is_empty() { "{ " } else { &expected[..end] };
        let added = write(record, &writes).expect("a record");
        assert_eq!(added, format!("{trimmed}{comma}\"n\":0 }}"), "{writes:?}");
    }
}

#[test]
fn of_duplicates_one_is_left_and_none_after_a_removal() {
    let record = r#"{"a":1,"b":2,"a":3,"c":4,"\u0061":5}"#;
    check(record, &[("/a", "9")], r#"{"b":2,"c":4,"\u0061":9}"#);
    check(record, &[("/a", REMOVE)], r#"{"b":2,"c":4}"#);
    check(record, &[("/a", ""), ("/b", "0")], r#"{"a":1,"b":0,"a":3,"c":4,"\u0061":5}"#);
    check(r#"{"a":1,"a":2}"#, &[("/a", REMOVE), ("/b", "1")], r#"{"b":1}"#);
}

#[test]
fn what_a_duplicate_parent_held_goes_when_the_path_is_written() {
    let record = r#"{"p":{"secret":1},"x":0,"p":{"q":2}}"#;
    check(record, &[("/p/secret", REMOVE)], r#"{"x":0,"p":{"q":2}}"#);
    check(record, &[("/p/secret", "3")], r#"{"x":0,"p":{"q":2,"secret":3}}"#);
    check(record, &[("/p/secret", ""), ("/y", "1")], r#"{"p":{"secret":1},"x":0,"p":{"q":2},"y":1}"#);
    check(r#"{"p":{"secret":1},"p":null}"#, &[("/p/secret", REMOVE)], r#"{"p":null}"#);
    check(r#"{"p":null,"p":{"s":1}}"#, &[("/p/s", "2")], r#"{"p":{"s":2}}"#);
}

#[test]
fn each_type_is_written_as_it_is_read() {
    use ColumnType::{Bool, Bytes, Decimal, Float64, Int64, Json, Text, Timestamp};
    let float = |value| {
        one(Float64, Op::Set, |data| {
            if let ColumnData::Float64(to) = data {
                to.push(value)
            }
        })
    };
    let bool = |value| {
        one(Bool, Op::Set, |data| {
            if let ColumnData::Bool(to) = data {
                to.push(value)
            }
        })
    };
    for (written, expected) in [
        (bool(true), "true"),
        (bool(false), "false"),
        (set_int(Int64, i64::MIN), "-9223372036854775808"),
        (set_int(Int64, 0), "0"),
        (float(0.1), "0.1"),
        (float(1.0), "1.0"),
        (float(-0.0), "-0.0"),
        (float(1e16), "1e+16"),
        (float(1.5e300), "1.5e+300"),
        (float(5e-324), "5e-324"),
        (float(123_456_789.125), "123456789.125"),
        (
            set(Text, "plain, and much longer than one block\" of \\ text\u{7f}é😀".as_bytes()),
            "\"plain, and much longer than one block\\\" of \\\\ text\u{7f}é😀\"",
        ),
        (set(Text, b"\0\x01\x08\t\n\x0b\x0c\r\x1f"), r#""\u0000\u0001\b\t\n\u000b\f\r\u001f""#),
        (set(Bytes, b"fo"), "\"Zm8=\""),
        (set(Decimal, b"-1.500"), "\"-1.500\""),
        (set(Json, b" [1, {}] "), " [1, {}] "),
        (set_int(Timestamp(Rfc3339), 1_700_000_000_500_000), "\"2023-11-14T22:13:20.5Z\""),
        (set_int(Timestamp(EpochS), -1), "-1"),
        (set_int(Timestamp(EpochS), 1_700_000_000_999_999), "1700000000"),
        (set_int(Timestamp(EpochMs), 1_999), "1"),
        (set_int(Timestamp(EpochUs), 7), "7"),
        (set_int(Timestamp(EpochNs), -7), "-7000"),
    ] {
        let out = Chain::new(&[], &["/v"]).write(b"{}", std::slice::from_ref(&written)).expect("a record");
        assert_eq!(String::from_utf8_lossy(&out), format!("{{\"v\":{expected}}}"), "{written:?}");
    }
}

#[test]
fn what_json_cannot_hold_rejects_the_row() {
    use ColumnType::{Decimal, Float64, Json, Text, Timestamp};
    let float = |value| {
        one(Float64, Op::Set, |data| {
            if let ColumnData::Float64(to) = data {
                to.push(value)
            }
        })
    };
    let fault =
        |written: Written| Chain::new(&[], &["/v"]).write(b"{}", &[written]).expect_err("a row to reject").fault;
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(fault(float(value)), SpliceFault::NotFinite);
    }
    assert_eq!(fault(set(Text, b"\xff")), SpliceFault::NotUtf8);
    for text in ["", "1 ", "abc", "0x1", "\"1\"", "1,\"x\":2"] {
        assert_eq!(fault(set(Decimal, text.as_bytes())), SpliceFault::NotDecimal, "{text}");
    }
    for text in ["", "1,2", "{\"a\":1}}", "nul", "\"\u{1}\"", "1e999"] {
        assert!(matches!(fault(set(Json, text.as_bytes())), SpliceFault::Json(_)), "{text}");
    }
    assert_eq!(fault(set_int(Timestamp(Rfc3339), i64::MAX)), SpliceFault::TimestampRange);
    assert_eq!(fault(set_int(Timestamp(EpochNs), i64::MAX / 100)), SpliceFault::TimestampRange);
}

#[test]
fn json_is_not_written_deeper_than_it_can_be_read() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (path, room) in [("/a", 126), ("/a/b/c", 124)] {
        let out = write("{}", &[(path, &nested(room))]).expect("a record");
        assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok());
        assert!(write("{}", &[(path, &nested(room + 1))]).is_err());
    }
}

#[test]
fn rows_are_spliced_in_any_order_from_shared_columns() {
    let records = [r#"{"a":1,"b":[]}"#, r#"{"b":0}"#, r#"{"x":{},"a":"z"}"#];
    let mut chain = Chain::new(&[], &["/a"]);
    let (mut columns, mut sites) = (Vec::new(), Sites::default());
    for record in records {
        chain.extractor.extract(record.as_bytes(), &mut columns, &mut sites).expect("a record");
    }
    let mut written = Written::new(ColumnType::Int64);
    for (op, value) in [(Op::Set, 7), (Op::Remove, 0), (Op::Set, 9)] {
        written.ops.push(op);
        if let ColumnData::Int64(values) = &mut written.data {
            values.push(value);
        }
    }
    let mut out = Packed::default();
    for row in [2, 0, 1] {
        let record = records[row].as_bytes();
        chain.splicer.splice(record, (&sites, row), (&[&written], 2 - row), &mut out.data).expect("a row");
        out.end_row();
    }
    let rows: Vec<_> = out.iter().map(String::from_utf8_lossy).collect();
    assert_eq!(rows, [r#"{"x":{},"a":7}"#, r#"{"a":9,"b":[]}"#, r#"{"b":0}"#]);
}
