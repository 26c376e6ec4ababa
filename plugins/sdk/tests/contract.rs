//! What a plugin's structs and function say is what goes over the contract.

use millstream_sdk::bindings::millstream::plugin::types::{
    Batch, Column, ColumnData, Headers as AllHeaders, OptionalBytes, Packed, Processed,
};
use millstream_sdk::json::Quoted;
use millstream_sdk::prelude::*;
use millstream_sdk::{ColumnType, FromConfig, Parts, Rows, TimestampEncoding, Transform, guest};

fn packed(items: &[&str]) -> Packed {
    let mut all = Packed { ends: Vec::new(), data: Vec::new() };
    for item in items {
        all.data.extend_from_slice(item.as_bytes());
        all.ends.push(all.data.len() as u32);
    }
    all
}

fn all_valid(data: ColumnData) -> Column {
    Column { valid: Vec::new(), null: Vec::new(), data }
}

fn batch(rows: u32, columns: Vec<Column>) -> Batch {
    Batch { rows, columns, key: None, value: None, headers: None, timestamps_ms: None }
}

fn run<T: Transform>(config: &str, batch: Batch) -> Processed {
    let plugin = T::from_config(config).expect("a good configuration");
    guest::run(&plugin, &plugin.describe(), &Rows::new(batch))
}

fn texts(packed: &Packed) -> Vec<&str> {
    let text = std::str::from_utf8(&packed.data).expect("UTF-8");
    let starts = [0].into_iter().chain(packed.ends.iter().copied());
    starts.zip(&packed.ends).map(|(start, end)| &text[start as usize..*end as usize]).collect()
}

mod every_type {
    use super::*;

    #[derive(Read)]
    struct In<'a> {
        #[field("/bool")]
        bool: bool,
        #[field("/int")]
        int: i64,
        #[field("/float")]
        float: f64,
        #[field("/text")]
        text: &'a str,
        #[field("/bytes")]
        bytes: &'a [u8],
        #[field("/at", epoch_ms)]
        at: Timestamp,
        #[field("/decimal")]
        decimal: Decimal<&'a str>,
        #[field("/json")]
        json: Json<&'a str>,
        #[field("/option")]
        option: Option<i64>,
        #[field("/maybe")]
        maybe: Maybe<&'a str>,
    }

    #[derive(Write)]
    struct Out<'a> {
        #[field("/out/bool")]
        bool: Set<bool>,
        #[field("/out/int")]
        int: Option<i64>,
        #[field("/out/float")]
        float: f64,
        #[field("/out/text")]
        text: &'a str,
        #[field("/out/bytes")]
        bytes: Set<&'a [u8]>,
        #[field("/out/at")]
        at: Timestamp,
        #[field("/out/decimal")]
        decimal: Decimal<i64>,
        #[field("/out/json")]
        json: Json<Quoted<'a>>,
        #[field("/out/shown")]
        shown: Text<String>,
        #[field("/out/untouched")]
        untouched: Set<String>,
    }

    #[plugin]
    fn copy<'a>(row: In<'a>) -> Out<'a> {
        Out {
            bool: if row.bool { Set::To(true) } else { Set::Remove },
            int: row.option.map(|option| option + row.int),
            float: row.float * 2.0,
            text: row.text,
            bytes: Set::To(row.bytes),
            at: row.at,
            decimal: Decimal(row.decimal.0.len() as i64),
            json: Json(Quoted(row.json.0)),
            shown: Text(format!("{:?}", row.maybe)),
            untouched: Set::Keep,
        }
    }

    fn rows() -> Batch {
        let columns = vec![
            all_valid(ColumnData::Booleans(vec![0b101])),
            all_valid(ColumnData::Int64s(vec![1, 2, i64::MIN])),
            all_valid(ColumnData::Float64s(vec![0.5, -1.0, 0.0])),
            all_valid(ColumnData::Packed(packed(&["", "é", "three"]))),
            all_valid(ColumnData::Packed(packed(&["a", "", "c"]))),
            all_valid(ColumnData::Int64s(vec![0, -1, 7])),
            all_valid(ColumnData::Packed(packed(&["1.50", "2", "-3"]))),
            all_valid(ColumnData::Packed(packed(&["[1]", "{}", "\"x\""]))),
            Column { valid: vec![0b010], null: vec![], data: ColumnData::Int64s(vec![0, 40, 0]) },
            Column { valid: vec![0b001], null: vec![0b010], data: ColumnData::Packed(packed(&["m", "", ""])) },
        ];
        batch(3, columns)
    }

    #[test]
    fn the_descriptor_says_what_the_structs_say() {
        let descriptor = CopyPlugin::from_config("").expect("no configuration").describe();
        assert_eq!((descriptor.name.as_str(), descriptor.version.as_str()), ("millstream-sdk", "0.1.0"));
        let read: Vec<_> = descriptor.reads.iter().map(|f| (f.path.as_str(), f.of_type, f.required)).collect();
        let expected = [
            ("/bool", ColumnType::Boolean, true),
            ("/int", ColumnType::Int64, true),
            ("/float", ColumnType::Float64, true),
            ("/text", ColumnType::Text, true),
            ("/bytes", ColumnType::Bytes, true),
            ("/at", ColumnType::Timestamp(TimestampEncoding::EpochMs), true),
            ("/decimal", ColumnType::Decimal, true),
            ("/json", ColumnType::Json, true),
            ("/option", ColumnType::Int64, false),
            ("/maybe", ColumnType::Text, false),
        ];
        assert_eq!(format!("{read:?}"), format!("{expected:?}"));
        let at = &descriptor.writes[5];
        assert_eq!(
            format!("{:?}", (&*at.path, at.of_type)),
            "(\"/out/at\", ColumnType::Timestamp(TimestampEncoding::Rfc3339))"
        );
        assert!(descriptor.outputs.is_empty() && !descriptor.tombstones);
        assert_eq!((descriptor.raw_reads, descriptor.raw_writes), (Parts::empty(), Parts::empty()));
    }

    #[test]
    fn values_come_and_go_by_their_columns() {
        let processed = run::<CopyPlugin>("", rows());
        assert!(processed.verdicts.is_empty(), "all forwarded");
        let fields: Vec<u32> = processed.writes.iter().map(|write| write.field).collect();
        assert_eq!(fields, (0..9).collect::<Vec<_>>(), "the field that every row keeps is not sent");
        let found: Vec<String> = processed.writes.iter().map(|w| format!("{:?} {}", w.ops, data(&w.data))).collect();
        let expected = [
            "[1, 3, 1] bits [5]",
            "[2, 1, 2] [0, 42, 0]",
            "[] [1.0, -2.0, 0.0]",
            r#"[] ["", "é", "three"]"#,
            r#"[] ["a", "", "c"]"#,
            "[] [0, -1, 7]",
            r#"[] ["4", "1", "2"]"#,
            r#"[] ["\"[1]\"", "\"{}\"", "\"\\\"x\\\"\""]"#,
            r#"[] ["Value(\"m\")", "Null", "Missing"]"#,
        ];
        assert_eq!(found, expected);
    }

    fn data(data: &ColumnData) -> String {
        match data {
            ColumnData::Booleans(bits) => format!("bits {bits:?}"),
            ColumnData::Int64s(values) => format!("{values:?}"),
            ColumnData::Float64s(values) => format!("{values:?}"),
            ColumnData::Packed(packed) => format!("{:?}", texts(packed)),
        }
    }
}

mod verdicts {
    use super::*;

    #[derive(Outputs)]
    enum Side {
        Late,
        #[output("far-away")]
        FarAway,
    }

    #[derive(Read)]
    struct In {
        #[field("/n")]
        n: i64,
    }

    #[derive(Write)]
    struct Out {
        #[field("/n")]
        n: i64,
    }

    #[derive(Config)]
    struct Limits {
        #[config(default = 10)]
        high: i64,
    }

    /// 0 is dropped, negatives rejected, 1 stays where it is, 2 goes to `late`, what is high to `far-away`.
    #[plugin(tombstones)]
    fn sort(limits: &Limits, row: In, emit: &mut Emit<'_, Side>) -> Result<Option<Routed<Out, Side>>, Reject> {
        emit.to(Side::FarAway, None, Some(row.n.to_string().as_bytes()));
        emit.to_main(Some(b"key"), None);
        let write = Out { n: row.n * 10 };
        match row.n {
            0 => Ok(None),
            n if n < 0 => Err(Reject::new("negative", format!("n is {n}"))),
            2 => Ok(Some(Routed::to(Side::Late, write))),
            n if n > limits.high => Ok(Some(Routed::to(Side::FarAway, write))),
            _ => Ok(Some(Routed::on(write))),
        }
    }

    fn numbers(numbers: &[i64]) -> Batch {
        batch(numbers.len() as u32, vec![all_valid(ColumnData::Int64s(numbers.to_vec()))])
    }

    #[test]
    fn each_row_meets_its_fate() {
        let processed = run::<SortPlugin>(r#"{"high": 100}"#, numbers(&[1, 0, -5, 2, 101]));
        assert_eq!(processed.verdicts, [0, 1, 2, 0, 0]);
        assert_eq!(processed.routes, [u32::MAX, u32::MAX, u32::MAX, 0, 1]);
        let rejection = &processed.rejections[0];
        assert_eq!((rejection.row, &*rejection.code, &*rejection.detail), (2, "negative", "n is -5"));
        assert_eq!(processed.writes[0].ops, [1, 0, 0, 1, 1], "nothing is written to rows that go nowhere");
        let ColumnData::Int64s(values) = &processed.writes[0].data else { panic!("integers") };
        assert_eq!(values, &[10, 0, 0, 20, 1010]);
    }

    #[test]
    fn a_rejected_row_emits_nothing() {
        let emitted = run::<SortPlugin>("", numbers(&[1, -5, -6, 2])).emitted.expect("some");
        assert_eq!(emitted.row, [0, 0, 3, 3]);
        assert_eq!(emitted.output, [1, u32::MAX, 1, u32::MAX]);
        assert_eq!((texts(&emitted.keys.bytes), emitted.keys.valid), (vec!["", "key", "", "key"], vec![0b1010]));
        assert_eq!((texts(&emitted.values.bytes), emitted.values.valid), (vec!["1", "", "2", ""], vec![0b0101]));
        assert!(run::<SortPlugin>("", numbers(&[-1])).emitted.is_none());
    }

    #[test]
    fn the_descriptor_names_the_outputs() {
        let descriptor = SortPlugin::from_config("{}").expect("defaults").describe();
        assert_eq!(descriptor.outputs, ["late", "far-away"]);
        assert!(descriptor.tombstones);
    }
}

mod parts {
    use super::*;

    #[derive(Read)]
    struct In<'a> {
        #[key]
        key: Option<&'a [u8]>,
        #[value]
        value: Option<&'a [u8]>,
        #[headers]
        headers: Headers<'a>,
        #[timestamp]
        at: Option<Timestamp>,
    }

    #[derive(Write)]
    struct Out<'a> {
        #[key]
        key: Set<&'a str>,
        #[value]
        value: Option<&'a [u8]>,
        #[headers]
        headers: Set<HeaderList<'a>>,
        #[timestamp]
        at: Set<Timestamp>,
    }

    /// A record with a trace gets it as its key, and loses its other headers.
    #[plugin]
    fn trace<'a>(row: In<'a>) -> Out<'a> {
        let trace = row.headers.last("trace").and_then(|trace| std::str::from_utf8(trace).ok());
        Out {
            key: trace.map_or(Set::Keep, Set::To),
            value: row.value.filter(|_| row.key.is_some()),
            headers: trace.map_or(Set::Keep, |trace| Set::To(vec![("trace", Some(trace.as_bytes())), ("seen", None)])),
            at: row.at.map_or(Set::To(Timestamp::from_millis(5)), |_| Set::Keep),
        }
    }

    fn rows() -> Batch {
        let values = OptionalBytes { valid: vec![0b011], bytes: packed(&["old", "new", ""]) };
        Batch {
            key: Some(OptionalBytes { valid: vec![0b01], bytes: packed(&["k", ""]) }),
            value: Some(OptionalBytes { valid: Vec::new(), bytes: packed(&["v", "w"]) }),
            headers: Some(AllHeaders { row_ends: vec![2, 3], names: packed(&["trace", "trace", "x"]), values }),
            timestamps_ms: Some(vec![-1, 7]),
            ..batch(2, Vec::new())
        }
    }

    #[test]
    fn the_parts_of_a_record_are_read_and_written() {
        let processed = run::<TracePlugin>("", rows());
        let key = processed.key.expect("a key");
        assert_eq!((key.ops, texts(&key.bytes)), (vec![1, 0], vec!["new", ""]));
        let value = processed.value.expect("a value");
        assert_eq!((value.ops, texts(&value.bytes)), (vec![1, 2], vec!["v", ""]));
        let headers = processed.headers.expect("headers");
        assert_eq!((headers.row_ends, texts(&headers.names)), (vec![2, 3], vec!["trace", "seen", "x"]));
        assert_eq!((texts(&headers.values.bytes), headers.values.valid), (vec!["new", "", ""], vec![0b001]));
        assert_eq!(processed.timestamps_ms, Some(vec![5, 7]));
    }

    #[derive(Write)]
    struct OnlyTime {
        #[timestamp]
        at: Timestamp,
    }

    #[derive(Read)]
    struct Nothing {}

    #[plugin]
    fn stamp(_: Nothing) -> Option<OnlyTime> {
        Some(OnlyTime { at: Timestamp::from_secs(1) })
    }

    #[test]
    fn timestamps_are_read_where_they_are_written_for_the_rows_that_keep_theirs() {
        let descriptor = StampPlugin::from_config("null").expect("nothing").describe();
        assert_eq!((descriptor.raw_reads, descriptor.raw_writes), (Parts::TIMESTAMP, Parts::TIMESTAMP));
        let processed = run::<StampPlugin>("", Batch { timestamps_ms: Some(vec![-1, 2]), ..batch(2, Vec::new()) });
        assert_eq!(processed.timestamps_ms, Some(vec![1000, 1000]));
    }
}

mod configuration {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[derive(Config, Debug, PartialEq)]
    struct Inner {
        path: String,
    }

    #[derive(Config, Debug, PartialEq)]
    struct Outer {
        names: Vec<String>,
        #[config(default = 0.5)]
        share: f64,
        #[config(default)]
        strict: bool,
        limit: Option<u64>,
        #[config(default)]
        inner: Vec<Inner>,
        #[config(default)]
        regions: BTreeMap<String, BTreeSet<i64>>,
    }

    fn problem(text: &str) -> String {
        Outer::from_config(text).expect_err(text)
    }

    #[test]
    fn what_is_missing_has_its_default() {
        let least = Outer::from_config(r#"{"names": []}"#).expect("enough");
        let expected =
            Outer { names: vec![], share: 0.5, strict: false, limit: None, inner: vec![], regions: BTreeMap::new() };
        assert_eq!(least, expected);
        let text = r#"{"names": ["a"], "share": 1, "limit": 3, "inner": [{"path": "/x"}], "regions": {"eu": [2, 1]}}"#;
        let most = Outer::from_config(text).expect("all");
        assert_eq!((most.share, most.limit, &*most.inner[0].path), (1.0, Some(3), "/x"));
        assert_eq!(most.regions["eu"].iter().copied().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_problem_is_told_by_its_place() {
        assert_eq!(problem("{}"), "names: is missing");
        assert_eq!(problem(r#"{"names": "a"}"#), "names: expected a list, not a string");
        assert_eq!(problem(r#"{"names": ["a", 1]}"#), "names/1: expected a string, not a number");
        assert_eq!(
            problem(r#"{"names": [], "inner": [{"path": 1}]}"#),
            "inner/0/path: expected a string, not a number"
        );
        assert_eq!(
            problem(r#"{"names": [], "limit": -1}"#),
            "limit: expected an integer of 64 bits that is not negative, not -1"
        );
        assert!(
            problem(r#"{"names": [], "shar": 1}"#).starts_with("shar: there is no such setting, only names, share")
        );
        assert_eq!(problem("[]"), "expected an object, not a list");
        assert!(problem("{").starts_with("the configuration is not JSON"));
    }
}
