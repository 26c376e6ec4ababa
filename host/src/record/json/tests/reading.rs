//! What each type reads, where paths lead, and which duplicate counts.

use super::*;
use crate::record::TimestampEncoding::{EpochMs, EpochNs, EpochS, EpochUs, Rfc3339};

/// What `path` reads as `ty` in `record`; twice, because the second time the keys are known.
fn read(record: &str, path: &str, ty: ColumnType) -> String {
    let mut chain = Chain::new(&[field(path, ty)], &[]);
    let first = shown(&chain.read(record.as_bytes()).expect(record).0[0]);
    let second = shown(&chain.read(record.as_bytes()).expect(record).0[0]);
    assert_eq!(first, second, "{record}");
    first
}

fn read_v(value: &str, ty: ColumnType) -> String {
    read(&format!("{{\"v\":{value}}}"), "/v", ty)
}

#[test]
fn each_type_takes_its_literals_and_no_others() {
    use ColumnType::{Bool, Bytes, Decimal, Float64, Int64, Json, Text, Timestamp};
    for (ty, value, expected) in [
        (Bool, "true", "true"),
        (Bool, "false", "false"),
        (Bool, "0", "WrongNumber"),
        (Bool, "\"true\"", "WrongText"),
        (Int64, "-9223372036854775808", "-9223372036854775808"),
        (Int64, "9223372036854775807", "9223372036854775807"),
        (Int64, "9223372036854775808", "WrongNumber"),
        (Int64, "-0", "0"),
        (Int64, "1.0", "WrongNumber"),
        (Int64, "1e2", "WrongNumber"),
        (Int64, "\"1\"", "WrongText"),
        (Float64, "1", "1.0"),
        (Float64, "-0", "-0.0"),
        (Float64, "0.1", "0.1"),
        (Float64, "123456789012345678901234567890", "1.2345678901234568e29"),
        (Float64, "1E4", "10000.0"),
        (Float64, "[]", "WrongArray"),
        (Text, "\"\"", ""),
        (Text, "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00é\"", "a\"\\/\u{8}\u{c}\n\r\té😀é"),
        (Text, "\"\\u0000\"", "\0"),
        (Text, "\"\\ud800\\udc00\\uD840\\uDC00\\udbff\\udfff\"", "\u{10000}\u{20000}\u{10ffff}"),
        (Text, "true", "WrongBool"),
        (Text, "{}", "WrongObject"),
        (Bytes, "\"Zm9v\"", "foo"),
        (Bytes, "\"Zm8=\"", "fo"),
        (Bytes, "\"\\u005am9v\"", "foo"),
        (Bytes, "\"Zm8\"", "WrongText"),
        (Decimal, "1.50", "1.50"),
        (Decimal, "-0e5", "-0e5"),
        (Decimal, "\"12345678901234567890.000\"", "12345678901234567890.000"),
        (Decimal, "\"1e999\"", "1e999"),
        (Decimal, "\"\\u0031\"", "1"),
        (Decimal, "\"\"", "WrongText"),
        (Decimal, "\"-\"", "WrongText"),
        (Decimal, "\"01\"", "WrongText"),
        (Decimal, "\"1.\"", "WrongText"),
        (Decimal, "\" 1\"", "WrongText"),
        (Decimal, "\"+1\"", "WrongText"),
        (Decimal, "\"1e\"", "WrongText"),
        (Decimal, "\"NaN\"", "WrongText"),
        (Decimal, "false", "WrongBool"),
        (Json, "{ \"x\" : [1, 2.0] }", "{ \"x\" : [1, 2.0] }"),
        (Json, "\"\\u0061\"", "\"\\u0061\""),
        (Json, "1.00", "1.00"),
        (Json, "null", "Null"),
        (Timestamp(Rfc3339), "\"2023-11-14T22:13:20.5+00:00\"", "1700000000500000"),
        (Timestamp(Rfc3339), "\"2023-11-14\\u005422:13:20Z\"", "1700000000000000"),
        (Timestamp(Rfc3339), "1700000000", "WrongNumber"),
        (Timestamp(Rfc3339), "\"2016-12-31T23:59:60Z\"", "WrongText"),
        (Timestamp(EpochS), "1700000000", "1700000000000000"),
        (Timestamp(EpochS), "9223372036855", "WrongNumber"),
        (Timestamp(EpochS), "1700000000.5", "WrongNumber"),
        (Timestamp(EpochS), "\"1700000000\"", "WrongText"),
        (Timestamp(EpochMs), "-1", "-1000"),
        (Timestamp(EpochMs), "9223372036854776", "WrongNumber"),
        (Timestamp(EpochUs), "9223372036854775807", "9223372036854775807"),
        (Timestamp(EpochNs), "1999", "1"),
        (Timestamp(EpochNs), "-1", "-1"),
        (Timestamp(EpochNs), "null", "Null"),
    ] {
        assert_eq!(read_v(value, ty), expected, "{value} as {ty:?}");
    }
}

#[test]
fn paths_lead_through_objects_and_arrays() {
    let record = r#"{"a":{"0":"key","b":[10,{"c":"deep"},[true]]},"":{"":"empty"},"a/b":1,"m~n":2}"#;
    for (path, expected) in [
        ("/a/0", "\"key\""),
        ("/a/b/0", "10"),
        ("/a/b/1/c", "\"deep\""),
        ("/a/b/2/0", "true"),
        ("/a/b/3", "Missing"),
        ("/a/b/01", "Missing"),
        ("/a/b/-", "Missing"),
        ("/a/b/0/x", "Missing"),
        ("/a/b/c", "Missing"),
        ("//", "\"empty\""),
        ("/a~1b", "1"),
        ("/m~0n", "2"),
        ("", record),
    ] {
        assert_eq!(read(record, path, ColumnType::Json), expected, "{path}");
    }
    assert_eq!(read("[1,2]", "/1", ColumnType::Int64), "2");
    assert_eq!(read(" 5 ", "", ColumnType::Json), "5");
    assert_eq!(read("5", "/a", ColumnType::Json), "Missing");
}

#[test]
fn escaped_keys_are_the_keys_that_they_stand_for() {
    assert_eq!(read(r#"{"\u0061":1}"#, "/a", ColumnType::Int64), "1");
    assert_eq!(read(r#"{"\ud83d\ude00":1}"#, "/😀", ColumnType::Int64), "1");
    assert_eq!(read(r#"{"a\/b":{"\"":1}}"#, "/a~1b/\"", ColumnType::Int64), "1");
    assert_eq!(read(r#"{"\\u0061":1}"#, "/a", ColumnType::Int64), "Missing");
}

#[test]
fn of_duplicates_the_last_counts_with_all_that_it_lacks() {
    for (record, expected) in [
        (r#"{"a":{"b":1},"a":{"b":2}}"#, "2"),
        (r#"{"a":{"b":1},"a":{"c":2}}"#, "Missing"),
        (r#"{"a":{"b":1},"a":null}"#, "Missing"),
        (r#"{"a":{"b":1,"b":null}}"#, "Null"),
        (r#"{"a":{"b":1,"\u0062":"x"}}"#, "WrongText"),
        (r#"{"a":7,"a":{"b":1}}"#, "1"),
        (r#"{"a":[1],"a":{"b":1},"x":{"a":{"b":3}}}"#, "1"),
        (r#"{"a":{"b":1},"a":{}}"#, "Missing"),
    ] {
        assert_eq!(read(record, "/a/b", ColumnType::Int64), expected, "{record}");
    }
}

#[test]
fn keys_in_another_order_or_missing_are_found_all_the_same() {
    let reads: Vec<Field> = ["/a", "/b", "/c"].map(|path| field(path, ColumnType::Int64)).to_vec();
    let mut chain = Chain::new(&reads, &[]);
    for (record, expected) in [
        (r#"{"a":1,"b":2,"c":3}"#, ["1", "2", "3"]),
        (r#"{"c":3,"a":1,"b":2}"#, ["1", "2", "3"]),
        (r#"{"a":1,"c":3}"#, ["1", "Missing", "3"]),
        (r#"{"aa":9,"a" : 1, "b":2,"c": 3}"#, ["1", "2", "3"]),
        (r#"{"c":3}"#, ["Missing", "Missing", "3"]),
        (r#"{"a":1,"b":2,"c":3,"c":4}"#, ["1", "2", "4"]),
        (r#"{}"#, ["Missing", "Missing", "Missing"]),
    ] {
        let (columns, _) = chain.read(record.as_bytes()).expect(record);
        assert_eq!(columns.iter().map(shown).collect::<Vec<_>>(), expected, "{record}");
    }
}

#[test]
fn what_was_learnt_of_keys_lets_nothing_wrong_pass() {
    let mut chain = Chain::new(&[field("/a", ColumnType::Int64)], &["/b"]);
    for record in [r#"{"a":1,"b":2}"#, r#"{"b":1,"a":2}"#, r#"{ "a":1 , "b":2 }"#, r#"{ "b":1, "a" : 2}"#, "{}", "{ }"]
    {
        chain.read(record.as_bytes()).expect(record);
    }
    for record in [
        r#"{"a":1"b":2}"#,
        r#"{"a":1 "b":2}"#,
        r#"{ "a":1 "b":2}"#,
        r#"{,"a":1}"#,
        r#"{ , "b":1}"#,
        r#"{"a":1,,"b":2}"#,
        r#"{"a":1,}"#,
        r#"{"a":}"#,
        r#"{"a":,"b":2}"#,
        r#"{"a":1,"b":"#,
        r#"{"a":1,"b"#,
    ] {
        assert!(chain.read(record.as_bytes()).is_err(), "{record}");
    }
}

#[test]
fn many_keys_long_keys_and_keys_beyond_ascii_are_found() {
    let keys: Vec<String> = (0..400).map(|i| format!("k{i}{}", "é-".repeat(i % 20))).collect();
    let members: Vec<String> = keys.iter().enumerate().map(|(i, key)| format!("\"{key}\":{i}")).collect();
    let reads: Vec<Field> = keys.iter().map(|key| field(&format!("/{key}"), ColumnType::Int64)).collect();
    let mut chain = Chain::new(&reads, &[]);
    for turn in 0..3 {
        let mut members = members.clone();
        members.rotate_left(turn * 100);
        let (columns, _) = chain.read(format!("{{{}}}", members.join(",")).as_bytes()).expect("a record");
        assert!(columns.iter().enumerate().all(|(i, column)| shown(column) == i.to_string()));
    }
}

#[test]
fn brackets_must_match_where_nobody_looks_too() {
    let mut chain = Chain::new(&[field("/a/0", ColumnType::Int64)], &["/b/c"]);
    for inner in [
        "[1}",
        "{\"x\":1]",
        "[[1}]",
        "{\"x\":[]]",
        "[{}}",
        "[",
        "{",
        "[}",
        "{]",
        "[1,]",
        "[,1]",
        "{\"x\":1,}",
        "{\"x\"}",
    ] {
        for record in
            [inner.to_owned(), format!("{{\"a\":{inner}}}"), format!("{{\"b\":{inner}}}"), format!("{{\"z\":{inner}}}")]
        {
            assert!(chain.read(record.as_bytes()).is_err(), "{record}");
        }
    }
}

#[test]
fn depth_is_counted_along_the_paths_too() {
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let mut chain = Chain::new(&[field(&"/a".repeat(130), ColumnType::Int64)], &[]);
    for depth in 125..=130 {
        assert_eq!(chain.read(nested(depth).as_bytes()).is_ok(), depth <= 127, "{depth}");
    }
    let mut chain = Chain::new(&[field(&"/a".repeat(127), ColumnType::Int64)], &["/b"]);
    assert_eq!(shown(&chain.read(nested(127).as_bytes()).expect("a record").0[0]), "1");
}

#[test]
fn an_error_says_what_and_where() {
    let mut chain = Chain::new(&[field("/a", ColumnType::Int64)], &["/b"]);
    for (record, message) in [
        ("", "the text ends too early at byte 0"),
        ("{\"a\":1", "the text ends too early at byte 6"),
        ("{\"a\":tru}", "a value is expected at byte 8"),
        ("{\"a\" 1}", "':' is expected at byte 5"),
        ("{\"a\":1,}", "a key in quotes is expected at byte 7"),
        ("{\"a\":[1 2]}", "',' or the closing bracket is expected at byte 8"),
        ("{\"a\":01}", "a digit is missing or out of place at byte 6"),
        ("{\"a\":1e999}", "the number is out of range at byte 5"),
        ("{\"a\":\"\n\"}", "a control character must be escaped at byte 6"),
        ("{\"a\":\"\\x\"}", "this escape does not exist at byte 7"),
        ("{\"a\":\"\\udc00\"}", "a surrogate is without its partner at byte 6"),
        ("{\"a\":1}x", "nothing may follow the value at byte 7"),
        ("\u{feff}{}", "a value is expected at byte 0"),
    ] {
        assert_eq!(chain.read(record.as_bytes()).map(|_| ()).expect_err(record).to_string(), message, "{record}");
    }
    assert_eq!(chain.read(b"{\"a\":\"\xff\"}").map(|_| ()).expect_err("bad").to_string(), "not UTF-8 at byte 6");
    let deep = "[".repeat(128);
    assert_eq!(chain.read(deep.as_bytes()).map(|_| ()).expect_err("bad").to_string(), "nested too deeply at byte 127");
}

#[test]
fn an_error_takes_back_what_it_had_noted() {
    let mut chain = Chain::new(&[field("/a", ColumnType::Text)], &["/b"]);
    let mut columns = chain.extractor.plan().columns();
    let mut sites = Sites::default();
    let good: &[u8] = br#"{"a":"x","b":1}"#;
    chain.extractor.extract(good, &mut columns, &mut sites).expect("a record");
    let before = (columns.clone(), sites.clone());
    chain.extractor.extract(br#"{"a":"y","b":1"#, &mut columns, &mut sites).expect_err("no record");
    assert_eq!((columns, sites), before);
}
