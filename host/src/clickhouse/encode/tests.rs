//! Records in, bytes out.

use std::collections::BTreeMap;

use super::*;
use crate::clickhouse::table::{Column, DefaultKind};
use crate::clickhouse::zone::Zone;
use crate::config::{ColumnRule, TimeUnit, UnknownFields};

const LINEAGE: Lineage<'_> = Lineage { topic: "t", partition: 3, offset: 700, timestamp_ms: 1_700_000_000_123 };

/// A table with these columns; a type may have ` DEFAULT`, ` MATERIALIZED` and so on behind it.
fn table(columns: &[(&str, &str)]) -> Table {
    let column = |(name, text): &(&str, &str)| {
        let (type_text, default) = match text.rsplit_once(' ') {
            Some((ty, "DEFAULT")) => (ty, DefaultKind::Default),
            Some((ty, "MATERIALIZED")) => (ty, DefaultKind::Materialized),
            Some((ty, "EPHEMERAL")) => (ty, DefaultKind::Ephemeral),
            _ => (*text, DefaultKind::None),
        };
        let ty = Type::parse(type_text).expect("a type");
        Column { name: (*name).to_owned(), ty, type_text: type_text.to_owned(), default }
    };
    Table {
        database: "d".into(),
        name: "t".into(),
        uuid: "u".into(),
        engine: "MergeTree".into(),
        is_undivided: true,
        columns: columns.iter().map(column).collect(),
        schema_digest: String::new(),
        zones: BTreeMap::from([("Berlin".to_owned(), Zone::fixed(3600))]),
    }
}

fn config() -> ClickHouseConfig {
    ClickHouseConfig::new("http://h:1", "d", "t")
}

fn rule(column: &str, rule: ColumnRule) -> ClickHouseConfig {
    let mut config = config();
    config.columns.insert(column.to_owned(), rule);
    config
}

fn encode(encoder: &mut Encoder, record: &str) -> Result<Vec<u8>, Misfit> {
    let mut out = b"kept".to_vec();
    let result = encoder.encode(record.as_bytes(), LINEAGE, &mut out);
    assert!(result.is_ok() || out == b"kept", "{record}: something was left");
    result.map(|()| out.split_off(4))
}

fn encoder(columns: &[(&str, &str)], config: &ClickHouseConfig) -> Encoder {
    Encoder::new(&table(columns), config).unwrap_or_else(|error| panic!("{error}"))
}

/// The bytes of `value` in a column of type `ty`.
fn bytes(ty: &str, value: &str) -> Result<Vec<u8>, Reason> {
    let mut encoder = encoder(&[("c", ty)], &config());
    encode(&mut encoder, &format!("{{\"c\":{value}}}")).map_err(|misfit| misfit.why)
}

#[track_caller]
fn is(ty: &str, value: &str, expected: &[u8]) {
    assert_eq!(bytes(ty, value).as_deref(), Ok(expected), "{ty} {value}");
}

#[track_caller]
fn misfits(ty: &str, why: Reason, values: &[&str]) {
    for value in values {
        assert_eq!(bytes(ty, value), Err(why), "{ty} {value}");
    }
}

#[test]
fn numbers_are_exact_or_refused() {
    is("UInt8", "255", &[255]);
    is("Int16", "-2", &[0xfe, 0xff]);
    is("UInt32", "4294967295", &[0xff; 4]);
    is("Int64", "\"-1\"", &[0xff; 8]);
    is("UInt64", "18446744073709551615", &[0xff; 8]);
    is("UInt16", "1e3", &[0xe8, 3]);
    is("Float64", "1", &1.0_f64.to_le_bytes());
    is("Float32", "0.1", &0.1_f32.to_le_bytes());
    is("Decimal(9, 2)", "1.5", &[150, 0, 0, 0]);
    is("Decimal(18, 2)", "\"-0.01\"", &[0xff; 8]);
    misfits("UInt8", Reason::Range, &["256", "-1", "1e3"]);
    misfits("Int64", Reason::Range, &["9223372036854775808", "\"99999999999999999999\""]);
    misfits("Int8", Reason::Fraction, &["1.5", "-0.1"]);
    misfits("Int32", Reason::Type, &["\"1\"", "true", "[]", "{}"]);
    misfits("Int64", Reason::Format, &["\"\"", "\"1 \"", "\"0x1\"", "\"+1\"", "\"nan\""]);
    misfits("Float32", Reason::Range, &["1e39", "-1e300"]);
    misfits("Float64", Reason::Type, &["\"1\"", "false"]);
    misfits("Decimal(9, 2)", Reason::Fraction, &["0.001"]);
    misfits("Decimal(9, 2)", Reason::Range, &["10000000"]);
    misfits("Decimal(9, 2)", Reason::Type, &["\"1.5\""]);
    misfits("Bool", Reason::Type, &["1", "\"true\""]);
}

#[test]
fn texts_are_taken_as_they_are() {
    is("String", r#""a\u00e9\n""#, "\u{4}a\u{e9}\n".as_bytes());
    is("LowCardinality(String)", "\"x\"", b"\x01x");
    is("FixedString(4)", "\"ab\"", b"ab\0\0");
    is(
        "UUID",
        "\"00112233-4455-6677-8899-aabbccddeeff\"",
        &[0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88],
    );
    is("IPv4", "\"1.2.3.4\"", &[4, 3, 2, 1]);
    is("IPv6", "\"1.2.3.4\"", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4]);
    is("Enum8('a' = -1, 'b' = 5)", "\"a\"", &[0xff]);
    is("Enum16('a' = -1, 'b' = 5)", "5", &[5, 0]);
    misfits("String", Reason::Type, &["1", "true", "{}", "[]"]);
    misfits("FixedString(1)", Reason::Length, &["\"ab\"", "\"\u{e9}\""]);
    misfits(
        "UUID",
        Reason::Format,
        &["\"\"", "\"00112233-4455-6677-8899-aabbccddeefg\"", "\"001122334455-66778899-aabbccddeeff00\""],
    );
    misfits("IPv4", Reason::Format, &["\"1.2.3\"", "\"::1\""]);
    misfits("Enum8('a' = -1)", Reason::Enum, &["\"b\"", "0", "1e0", "70000"]);
    misfits("Enum8('a' = -1)", Reason::Type, &["true"]);
}

#[test]
fn times_are_read_in_every_form() {
    let seconds = 1_700_000_000_u32.to_le_bytes();
    is("DateTime", "1700000000", &seconds);
    is("DateTime", "\"2023-11-14T22:13:20.9Z\"", &seconds);
    is("DateTime('Berlin')", "\"2023-11-14 23:13:20\"", &seconds);
    is("DateTime64(3)", "1700000000.5", &1_700_000_000_500_i64.to_le_bytes());
    is("DateTime64(3, 'Berlin')", "\"2023-11-14T23:13:20.5\"", &1_700_000_000_500_i64.to_le_bytes());
    is("Date", "\"1970-01-03\"", &[2, 0]);
    is("Date32", "\"1969-12-31\"", &[0xff; 4]);
    misfits("DateTime", Reason::Range, &["-1", "4294967296", "\"1969-12-31T23:59:59Z\""]);
    misfits("DateTime", Reason::Format, &["\"1700000000\"", "\"2023-11-14\""]);
    misfits("Date", Reason::Type, &["1"]);
    let millis = rule("c", ColumnRule { unit: Some(TimeUnit::Millis), ..ColumnRule::default() });
    let mut encoder = encoder(&[("c", "DateTime"), ("d", "Date")], &{
        let mut config = millis;
        let day = ColumnRule { from: Some("/c".into()), unit: Some(TimeUnit::Millis), ..ColumnRule::default() };
        config.columns.insert("d".into(), day);
        config
    });
    let expected = [&seconds[..], &19_675_u16.to_le_bytes()].concat();
    assert_eq!(encode(&mut encoder, "{\"c\":1700000000999}"), Ok(expected));
}

#[test]
fn values_within_values_are_encoded() {
    is("Array(UInt8)", "[1, 2]", &[2, 1, 2]);
    is("Array(Nullable(UInt8))", "[null,7]", &[2, 1, 0, 7]);
    is("Map(String, UInt8)", r#"{"a":1}"#, &[1, 1, b'a', 1]);
    is("Map(UInt16, Array(Bool))", r#"{"5":[true]}"#, &[1, 5, 0, 1, 1]);
    is("Tuple(UInt8, String)", r#"[1,"x"]"#, b"\x01\x01x");
    is("Tuple(a UInt8, b Nullable(UInt8))", r#"{"c":0,"a":1,"a":2}"#, &[2, 1]);
    is("JSON", r#"{"a": {"b":1}}"#, b"\x0e{\"a\": {\"b\":1}}");
    is("Nested(a UInt8)", r#"[{"a":1},{"a":2}]"#, &[2, 1, 2]);
    misfits("Array(UInt8)", Reason::Null, &["null", "[null]"]);
    misfits("Array(UInt8)", Reason::Range, &["[1,256]"]);
    misfits("Array(UInt8)", Reason::Type, &["{}", "1"]);
    misfits("Map(String, UInt8)", Reason::DuplicateKey, &[r#"{"a":1,"\u0061":1}"#]);
    misfits("Map(UInt8, UInt8)", Reason::Format, &[r#"{"x":1}"#]);
    misfits("Tuple(UInt8, UInt8)", Reason::Length, &["[1]", "[1,2,3]"]);
    misfits("Tuple(UInt8, UInt8)", Reason::Type, &["{}"]);
    misfits("Tuple(a UInt8)", Reason::Missing, &["{}"]);
    misfits("JSON", Reason::Type, &["[]", "1", "\"{}\""]);
    misfits("JSON", Reason::DuplicateKey, &[r#"{"a.b":1,"a":{"b":2}}"#]);
}

#[test]
fn a_long_list_has_its_length_before_it() {
    for count in [127, 128, 300, 20_000] {
        let value = format!("[{}]", vec!["7"; count].join(","));
        let mut expected = Vec::new();
        value::put_length(count, &mut expected);
        expected.resize(expected.len() + count, 7);
        is("Array(UInt8)", &value, &expected);
    }
}

#[test]
fn what_is_missing_is_null_the_rules_default_or_the_servers() {
    let mut plain = encoder(&[("a", "Nullable(UInt8)"), ("b", "UInt8")], &config());
    assert_eq!(plain.format(), "RowBinaryWithNamesAndTypes");
    assert_eq!(encode(&mut plain, r#"{"b":1}"#), Ok(vec![1, 1]));
    assert_eq!(encode(&mut plain, r#"{"a":5,"b":1}"#), Ok(vec![0, 5, 1]));
    let misfit = encode(&mut plain, "{}").expect_err("b is missing");
    assert_eq!((misfit.column.as_str(), misfit.wanted.as_str(), misfit.why), ("b", "UInt8", Reason::Missing));
    assert_eq!(encode(&mut plain, r#"{"b":null}"#).map_err(|misfit| misfit.why), Err(Reason::Null));

    let mut marked = encoder(&[("a", "UInt8 DEFAULT"), ("b", "UInt8"), ("m", "UInt8 MATERIALIZED")], &config());
    assert_eq!((marked.format(), marked.columns().collect::<Vec<_>>()), ("RowBinaryWithDefaults", vec!["a", "b"]));
    assert_eq!(encode(&mut marked, r#"{"b":1}"#), Ok(vec![1, 0, 1]));
    assert_eq!(encode(&mut marked, r#"{"a":null,"b":1}"#), Ok(vec![1, 0, 1]));
    assert_eq!(encode(&mut marked, r#"{"a":2,"b":1}"#), Ok(vec![0, 2, 0, 1]));

    let nine = rule("b", ColumnRule { default: Some("9".into()), ..ColumnRule::default() });
    let mut ruled = encoder(&[("b", "UInt8 DEFAULT")], &nine);
    assert_eq!(ruled.format(), "RowBinaryWithNamesAndTypes");
    assert_eq!(encode(&mut ruled, "{}"), Ok(vec![9]));
    assert_eq!(encode(&mut ruled, r#"{"b":null}"#), Ok(vec![9]));
}

#[test]
fn rules_rename_and_fix() {
    let mut config = rule("a", ColumnRule { from: Some("/x/0/y".into()), ..ColumnRule::default() });
    config.columns.insert("b".into(), ColumnRule { constant: Some("\"c\"".into()), ..ColumnRule::default() });
    let mut encoder = encoder(&[("a", "UInt8"), ("b", "String"), ("odd/name~", "UInt8")], &config);
    assert_eq!(encode(&mut encoder, r#"{"x":[{"y":4}],"a":1,"odd/name~":2}"#), Ok(b"\x04\x01c\x02".to_vec()));
}

#[test]
fn fields_that_no_column_takes_are_ignored_refused_or_kept() {
    let record = r#"{"a":1, "z": [1, 2],"b\u00e9":"x"}"#;
    let columns = &[("a", "UInt8"), ("rest", "String")];
    let mut config = config();
    assert_eq!(encode(&mut encoder(&columns[..1], &config), record), Ok(vec![1]));

    config.unknown_fields = UnknownFields::Refuse;
    let misfit = encode(&mut encoder(&columns[..1], &config), record).expect_err("z is not known");
    assert_eq!((misfit.column.as_str(), misfit.why), ("z", Reason::UnknownField));
    assert_eq!(encode(&mut encoder(&columns[..1], &config), "{\"a\":1}"), Ok(vec![1]));

    config.unknown_fields = UnknownFields::Column("rest".into());
    let rest = r#"{"z":[1, 2],"b\u00e9":"x"}"#;
    let expected = [&[1, rest.len() as u8], rest.as_bytes()].concat();
    assert_eq!(encode(&mut encoder(columns, &config), record), Ok(expected));
    assert_eq!(encode(&mut encoder(columns, &config), "{\"a\":1}"), Ok(b"\x01\x02{}".to_vec()));
    let json = &[("a", "UInt8"), ("rest", "JSON")];
    let twice = encode(&mut encoder(json, &config), r#"{"a":1,"z":1,"z":2}"#).expect_err("z is there twice");
    assert_eq!((twice.column.as_str(), twice.why), ("rest", Reason::DuplicateKey));
}

#[test]
fn lineage_columns_say_where_a_record_was() {
    let columns = &[
        ("_topic", "LowCardinality(String)"),
        ("_partition", "Int32"),
        ("_offset", "UInt64"),
        ("_timestamp", "Nullable(DateTime64(3))"),
    ];
    let mut encoder = encoder(columns, &config());
    let mut expected = b"\x01t\x03\0\0\0\xbc\x02\0\0\0\0\0\0\0".to_vec();
    expected.extend_from_slice(&1_700_000_000_123_i64.to_le_bytes());
    assert_eq!(encode(&mut encoder, r#"{"_offset":1}"#), Ok(expected));
    let small = Encoder::new(&table(&[("_offset", "UInt32")]), &config());
    assert!(matches!(small, Err(EncoderError::LineageType { .. })));
    let ruled = Encoder::new(&table(columns), &rule("_topic", ColumnRule::default()));
    assert_eq!(ruled.err(), Some(EncoderError::Lineage("_topic".into())));
}

#[test]
fn what_is_no_object_is_told_apart() {
    let mut encoder = encoder(&[("a", "UInt8")], &config());
    for (record, why, found) in [
        ("", Reason::NotJson, "the text ends too early at byte 0"),
        ("{\"a\":1", Reason::NotJson, "the text ends too early at byte 6"),
        ("[1]", Reason::NotAnObject, "an array of 3 bytes"),
        ("null", Reason::NotAnObject, "null"),
    ] {
        let misfit = encode(&mut encoder, record).expect_err("no object");
        assert_eq!((misfit.why, misfit.found.as_str()), (why, found), "{record}");
    }
}

#[test]
fn a_misfit_names_column_type_and_length_but_no_value() {
    let mut encoder = encoder(&[("a", "Nullable(UInt8)")], &config());
    let misfit = encode(&mut encoder, r#"{"a":"secret"}"#).expect_err("no number");
    let text = "column a (Nullable(UInt8)): found a string of 6 bytes: the column does not take such a value";
    assert_eq!((misfit.to_string().as_str(), misfit.why.code()), (text, "type"));
}

#[test]
fn rules_that_cannot_hold_are_refused() {
    let refused = |columns: &[(&str, &str)], config: &ClickHouseConfig| {
        Encoder::new(&table(columns), config).err().map_or_else(String::new, |error| error.to_string())
    };
    let constant = |json: &str| ColumnRule { constant: Some(json.into()), ..ColumnRule::default() };
    assert!(refused(&[("a", "UInt8")], &rule("b", constant("1"))).contains("names b, which the table does not have"));
    assert!(refused(&[("a", "UInt8")], &rule("a", constant("300"))).contains("out of range"));
    assert!(refused(&[("a", "UInt8")], &rule("a", constant("{"))).contains("is no JSON"));
    assert!(refused(&[("a", "UInt8 MATERIALIZED")], &rule("a", constant("1"))).contains("computed by the server"));
    let state = refused(&[("a", "Array(AggregateFunction(uniq, UInt8))")], &config());
    assert!(state.contains("no JSON can be written into AggregateFunction(uniq, UInt8)"), "{state}");
    assert_eq!(refused(&[("a", "Dynamic DEFAULT"), ("b", "UInt8")], &config()), "");
    let mut rest = config();
    rest.unknown_fields = UnknownFields::Column("a".into());
    assert!(refused(&[("a", "UInt8")], &rest).contains("can't take the unknown fields"));
}
