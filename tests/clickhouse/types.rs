//! Every type, against the engine: what the encoder makes of a JSON value is what the engine reads.
//!
//! Two ways show it. Random values go in as rows of ours, and next to them as `JSONEachRow`, which the engine parses by
//! itself; then the two tables have to be equal. Where the engine's own reading is another one, or looser, the value that
//! has to come back stands beside the one that goes in.

use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::harness::clickhouse as server;
use super::{Fixture, rows, wait};

/// Rows of each type.
const ROWS: usize = 200;

/// An integer of so many bits.
fn integer(bits: u32, signed: bool, quoted: bool) -> BoxedStrategy<String> {
    let text = (any::<[u64; 4]>(), 0..bits).prop_map(move |(words, shift)| {
        let digits = wide(words, bits - u32::from(signed), shift);
        if signed && words[0] & 1 == 1 && digits != "0" { format!("-{digits}") } else { digits }
    });
    if quoted {
        (text, any::<bool>()).prop_map(|(text, quote)| if quote { format!("\"{text}\"") } else { text }).boxed()
    } else {
        text.boxed()
    }
}

/// The decimal digits of a random number of at most `bits` - `shift` bits.
fn wide(words: [u64; 4], bits: u32, shift: u32) -> String {
    let kept = bits.saturating_sub(shift);
    let mut digits = vec![0_u8];
    for bit in (0..kept).rev() {
        let mut carry = (words[(bit / 64) as usize] >> (bit % 64) & 1) as u8;
        for digit in &mut digits {
            let sum = *digit * 2 + carry;
            (*digit, carry) = (sum % 10, sum / 10);
        }
        if carry > 0 {
            digits.push(carry);
        }
    }
    digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect()
}

fn decimal(precision: usize, scale: usize, quoted: bool) -> BoxedStrategy<String> {
    let whole = precision - scale;
    let digits = |count: usize| proptest::collection::vec(0..10_u8, 0..=count);
    (digits(whole), digits(scale), any::<bool>(), any::<bool>())
        .prop_map(move |(whole, fraction, negative, quote)| {
            let text = |digits: &[u8]| digits.iter().map(|digit| char::from(b'0' + digit)).collect::<String>();
            let whole = text(&whole);
            let whole = whole.trim_start_matches('0');
            let whole = if whole.is_empty() { "0" } else { whole };
            let point = if fraction.is_empty() { "" } else { "." };
            let sign = if negative { "-" } else { "" };
            let number = format!("{sign}{whole}{point}{}", text(&fraction));
            if quoted && quote { format!("\"{number}\"") } else { number }
        })
        .boxed()
}

/// A string with whatever a JSON string may hold.
fn text() -> BoxedStrategy<String> {
    let part = prop_oneof![
        4 => "[ -~]{0,8}".prop_map(|text| text.replace(['\\', '"'], "")),
        1 => "\\PC{0,4}".prop_map(|text| text.replace(['\\', '"'], "")),
        1 => Just("\\n".to_owned()),
        1 => Just("\\u00e9\\ud83d\\ude00".to_owned()),
        1 => Just("\\\"\\\\\\/".to_owned()),
        1 => Just("\\u0000".to_owned()),
    ];
    proptest::collection::vec(part, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat())).boxed()
}

fn ascii(length: usize) -> BoxedStrategy<String> {
    proptest::collection::vec("[a-zA-Z0-9_]", 0..=length).prop_map(|parts| format!("\"{}\"", parts.concat())).boxed()
}

fn hex_id() -> BoxedStrategy<String> {
    any::<u128>()
        .prop_map(|bits| {
            let hex = format!("{bits:032x}");
            format!("\"{}-{}-{}-{}-{}\"", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
        })
        .boxed()
}

/// A date from `first` to `last` (years), at days that every month has.
fn date(first: u32, last: u32) -> BoxedStrategy<String> {
    (first..=last, 1..=12_u32, 1..=28_u32)
        .prop_map(|(year, month, day)| format!("{year:04}-{month:02}-{day:02}"))
        .boxed()
}

fn clock() -> BoxedStrategy<String> {
    (0..24_u32, 0..60_u32, 0..60_u32).prop_map(|(h, m, s)| format!("{h:02}:{m:02}:{s:02}")).boxed()
}

fn quoted(inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    inner.prop_map(|text| format!("\"{text}\"")).boxed()
}

fn time(first: u32, last: u32, fraction: usize, zones: bool) -> BoxedStrategy<String> {
    let digits = proptest::collection::vec(0..10_u8, 0..=fraction);
    let zone = prop_oneof![Just(""), Just("Z"), Just("+05:30"), Just("-08:00")];
    (date(first, last), clock(), digits, zone)
        .prop_map(move |(date, clock, digits, zone)| {
            let fraction: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
            let point = if fraction.is_empty() { "" } else { "." };
            format!("\"{date}T{clock}{point}{fraction}{}\"", if zones { zone } else { "Z" })
        })
        .boxed()
}

fn list(inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    prop_oneof![
        9 => proptest::collection::vec(inner.clone(), 0..5),
        1 => proptest::collection::vec(inner, 120..140),
    ]
    .prop_map(|items| format!("[{}]", items.join(", ")))
    .boxed()
}

fn or_null(inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    prop_oneof![3 => inner, 1 => Just("null".to_owned())].boxed()
}

fn object(key: BoxedStrategy<String>, inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    proptest::collection::btree_map(key, inner, 0..5)
        .prop_map(|members| {
            let members: Vec<String> = members.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
            format!("{{{}}}", members.join(","))
        })
        .boxed()
}

/// Objects as the JSON type takes them: all values of a path of one type, so that reading them back is plain.
fn json() -> BoxedStrategy<String> {
    (0..1_000_i64, ascii(5), list(integer(32, true, false)), any::<bool>())
        .prop_map(|(number, text, list, flag)| {
            format!("{{\"n\": {number}, \"o\": {{\"t\": {text}, \"f\": {flag}}}, \"l\": {list}}}")
        })
        .boxed()
}

/// Types with values that the engine's own JSON reader takes as we do.
fn types() -> Vec<(&'static str, BoxedStrategy<String>)> {
    let color =
        prop_oneof![Just("\"red\"".to_owned()), Just("\"it's, (x\"".to_owned()), Just("\"\"".to_owned())].boxed();
    let float =
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| format!("{value:e}")).boxed();
    let float32 =
        any::<f32>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| value.to_string()).boxed();
    let ipv4 = quoted(any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()).boxed());
    let ipv6 = quoted(any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string()).boxed());
    let boolean = any::<bool>().prop_map(|value| value.to_string()).boxed();
    let point = (float.clone(), float.clone()).prop_map(|(x, y)| format!("[{x},{y}]")).boxed();
    let named =
        (integer(8, false, false), or_null(text())).prop_map(|(a, b)| format!("{{\"b c\": {b}, \"a\": {a}}}")).boxed();
    vec![
        ("Int8", integer(8, true, false)),
        ("Int16", integer(16, true, false)),
        ("Int32", integer(32, true, false)),
        ("Int64", integer(64, true, true)),
        ("Int128", integer(128, true, true)),
        ("Int256", integer(256, true, true)),
        ("UInt8", integer(8, false, false)),
        ("UInt16", integer(16, false, false)),
        ("UInt32", integer(32, false, false)),
        ("UInt64", integer(64, false, true)),
        ("UInt128", integer(128, false, true)),
        ("UInt256", integer(256, false, true)),
        ("Float64", float.clone()),
        ("Float32", float32),
        ("Decimal(9, 2)", decimal(9, 2, false)),
        ("Decimal(18, 18)", decimal(18, 18, true)),
        ("Decimal(38, 10)", decimal(38, 10, true)),
        ("Decimal(76, 40)", decimal(76, 40, true)),
        ("Bool", boolean.clone()),
        ("String", text()),
        ("FixedString(8)", ascii(8)),
        ("LowCardinality(String)", ascii(2)),
        ("LowCardinality(Nullable(String))", or_null(ascii(2))),
        ("Nullable(Int32)", or_null(integer(32, true, false))),
        ("UUID", hex_id()),
        ("Date", quoted(date(1970, 2148))),
        ("Date32", quoted(date(1900, 2299))),
        ("DateTime", time(1970, 2105, 0, true)),
        ("DateTime('UTC')", time(1970, 2105, 0, true)),
        ("DateTime64(3)", time(1900, 2299, 3, true)),
        ("DateTime64(9, 'UTC')", time(1901, 2261, 9, true)),
        ("DateTime64(0, 'Asia/Kolkata')", time(1970, 2200, 0, true)),
        ("Nullable(DateTime64(6, 'Europe/Berlin'))", or_null(time(1970, 2200, 6, true))),
        ("Enum8('red' = -5, 'it\\'s, (x' = 7, '' = 0)", color.clone()),
        ("Enum16('red' = -500, 'it\\'s, (x' = 700, '' = 0)", color),
        ("IPv4", ipv4),
        ("IPv6", ipv6),
        ("Array(Nullable(Int16))", list(or_null(integer(16, true, false)))),
        ("Array(Array(String))", list(list(ascii(3)))),
        ("Array(LowCardinality(String))", list(ascii(3))),
        ("Map(String, UInt32)", object(ascii(3), integer(32, false, false))),
        ("Map(LowCardinality(String), Array(Bool))", object(ascii(3), list(boolean))),
        ("Map(UInt64, String)", object(quoted(integer(64, false, false)), text())),
        ("Tuple(Float64, Float64)", point.clone()),
        ("Point", point),
        ("Tuple(a UInt8, `b c` Nullable(String))", named.clone()),
        ("Array(Tuple(a UInt8, `b c` Nullable(String)))", list(named)),
        ("SimpleAggregateFunction(max, Int64)", integer(64, true, false)),
        ("JSON", json()),
    ]
}

/// Values of `strategy`; the same in every run.
fn values(strategy: &BoxedStrategy<String>, count: usize) -> Vec<String> {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    (0..count).map(|_| strategy.new_tree(&mut runner).expect("a value").current()).collect()
}

#[test]
fn random_values_of_every_type_are_what_the_engine_makes_of_them() {
    let types = types();
    let columns: Vec<String> = types.iter().enumerate().map(|(at, (ty, _))| format!("v{at} {ty}")).collect();
    let fixture = Fixture::new(&format!("id UInt32, {}", columns.join(", ")));
    fixture.sql("CREATE TABLE $.twin AS $.t");
    let values: Vec<Vec<String>> = types.iter().map(|(_, strategy)| values(strategy, ROWS)).collect();
    let record = |id: usize| {
        let members: Vec<String> =
            values.iter().enumerate().map(|(at, values)| format!("\"v{at}\":{}", values[id])).collect();
        format!("{{\"id\":{id},{}}}", members.join(","))
    };
    let records: Vec<String> = (0..ROWS).map(record).collect();
    let (mut encoder, insert) = fixture.writer();
    let block = insert.block(&rows(&mut encoder, records.iter().map(String::as_str)));
    wait(insert.send(&fixture.client, &block, None)).unwrap_or_else(|error| panic!("{error}"));
    let twin = "SETTINGS async_insert = 0, date_time_input_format = 'best_effort' FORMAT JSONEachRow";
    let sql = format!("INSERT INTO {}.twin {twin}\n{}", fixture.database, records.join("\n"));
    server::query(&fixture.url, &sql);
    for table in ["t", "twin"] {
        assert_eq!(fixture.sql(&format!("SELECT count(), uniq(id) FROM $.{table}")), format!("{ROWS}\t{ROWS}"));
    }
    let mut wrong = Vec::new();
    for (at, (ty, _)) in types.iter().enumerate() {
        // By text, because what prints alike is alike, and not every type can be compared.
        let differing = format!(
            "SELECT t.id, toString(t.v{at}), toString(w.v{at}) FROM $.t AS t JOIN $.twin AS w ON t.id = w.id \
             WHERE toString(t.v{at}) != toString(w.v{at}) ORDER BY t.id LIMIT 3"
        );
        let found = fixture.sql(&differing);
        if !found.is_empty() {
            let id: usize = found.split('\t').next().and_then(|id| id.parse().ok()).unwrap_or(0);
            wrong.push(format!("{ty}: {:.300} is {found:.900}", values[at][id]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a column of type `ty` holds after `value` went in, as the engine prints it.
fn stored(fixture_columns: &str, value: &str, shown: &str) -> String {
    let fixture = Fixture::new(&format!("v {fixture_columns}"));
    let (mut encoder, insert) = fixture.writer();
    let record = format!("{{\"v\":{value}}}");
    let block = insert.block(&rows(&mut encoder, [record.as_str()]));
    wait(insert.send(&fixture.client, &block, None)).unwrap_or_else(|error| panic!("{value}: {error}"));
    fixture.sql(&format!("SELECT {shown} FROM $.t"))
}

#[test]
fn values_that_we_read_in_our_own_way_are_what_we_say() {
    for (ty, value, shown) in [
        // Numbers count seconds unless a rule says otherwise; what is finer than the column is cut off.
        ("DateTime('UTC')", "1700000000.9", "2023-11-14 22:13:20"),
        ("DateTime64(3, 'UTC')", "1700000000.1239", "2023-11-14 22:13:20.123"),
        ("DateTime64(3, 'UTC')", "\"2023-11-14T22:13:20.1239+00\"", "2023-11-14 22:13:20.123"),
        ("DateTime64(1, 'UTC')", "-0.05", "1969-12-31 23:59:59.9"),
        // Without a zone a time is of the column's, over changes of the clocks as the engine has them.
        ("DateTime('Europe/Berlin')", "\"2023-11-14T23:13:20\"", "2023-11-14 23:13:20"),
        ("DateTime('Europe/Berlin')", "\"2023-07-01 12:00:00\"", "2023-07-01 12:00:00"),
        ("DateTime64(2, 'America/New_York')", "\"1955-07-01 12:00:00.25\"", "1955-07-01 12:00:00.25"),
        ("DateTime('UTC')", "\"2023-11-14T23:13:20\"", "2023-11-14 23:13:20"),
        // Dates of times.
        ("Date", "\"2024-02-29T23:30:00-01:00\"", "2024-03-01"),
        ("Date32", "\"1900-01-01\"", "1900-01-01"),
        // Exact whatever their form.
        ("UInt8", "2.55e2", "255"),
        ("Decimal(9, 2)", "1e-2", "0.01"),
        ("Enum8('a' = 1, 'b' = -2)", "-2", "b"),
        ("IPv6", "\"1.2.3.4\"", "::ffff:1.2.3.4"),
        ("UUID", "\"00112233445566778899AABBCCDDEEFF\"", "00112233-4455-6677-8899-aabbccddeeff"),
        ("FixedString(3)", "\"a\"", "a\\0\\0"),
        ("Map(UInt8, Enum8('x' = 1))", "{\"7\":\"x\"}", "{7:'x'}"),
    ] {
        assert_eq!(stored(ty, value, "v"), shown, "{ty} {value}");
    }
    let ambiguous = stored("DateTime('Europe/Berlin')", "\"2023-10-29 02:30:00\"", "toUnixTimestamp(v)");
    let skipped = stored("DateTime('Europe/Berlin')", "\"2023-03-26 02:30:00\"", "toUnixTimestamp(v)");
    let engine = |text: &str| {
        server::query(&server::shared_url(), &format!("SELECT toUnixTimestamp(toDateTime('{text}', 'Europe/Berlin'))"))
    };
    assert_eq!([ambiguous, skipped], [engine("2023-10-29 02:30:00"), engine("2023-03-26 02:30:00")]);
}

/// Each of these, sent as it is, would have the engine refuse the whole block or store something else; none is sent.
#[test]
fn what_does_not_fit_is_found_before_it_is_sent() {
    for (ty, value, code, found) in [
        ("UInt8", "256", "range", "an integer of 3 characters"),
        ("UInt8", "-1", "range", "an integer of 2 characters"),
        ("UInt8", "1.5", "fraction", "a number of 3 characters"),
        ("UInt8", "\"1\"", "type", "a string of 1 bytes"),
        ("UInt8", "null", "null", "null"),
        ("UInt8", "true", "type", "a boolean"),
        ("Int64", "\"1.5\"", "fraction", "a string of 3 bytes"),
        ("Float32", "1e300", "range", "a number of 5 characters"),
        ("Decimal(9, 2)", "0.001", "fraction", "a number of 5 characters"),
        ("Bool", "1", "type", "an integer of 1 characters"),
        ("String", "1", "type", "an integer of 1 characters"),
        ("FixedString(1)", "\"ab\"", "length", "a string of 2 bytes"),
        ("UUID", "\"x\"", "format", "a string of 1 bytes"),
        ("Date", "\"2149-06-07\"", "range", "a string of 10 bytes"),
        ("Date", "\"2023-02-30\"", "format", "a string of 10 bytes"),
        ("DateTime", "\"yesterday\"", "format", "a string of 9 bytes"),
        ("DateTime64(3)", "1e12", "range", "a number of 4 characters"),
        ("Enum8('a' = 1)", "\"b\"", "enum", "a string of 1 bytes"),
        ("IPv4", "\"256.1.1.1\"", "format", "a string of 9 bytes"),
        ("Array(UInt8)", "[1, 300]", "range", "an integer of 3 characters"),
        ("Array(UInt8)", "null", "null", "null"),
        ("Map(String, UInt8)", "[1]", "type", "an array of 3 bytes"),
        ("Tuple(a UInt8)", "{\"b\":1}", "missing", "nothing"),
        ("JSON", "[1]", "type", "an array of 3 bytes"),
        ("JSON", "{\"a.b\":1,\"a\":{\"b\":2}}", "duplicate_key", "an object of 21 bytes"),
    ] {
        let fixture = Fixture::new(&format!("v {ty}"));
        let (mut encoder, _) = fixture.writer();
        let mut out = Vec::new();
        let record = format!("{{\"v\":{value}}}");
        let misfit = encoder.encode(record.as_bytes(), super::lineage(0), &mut out).expect_err(value);
        let wanted = ty.to_owned();
        assert_eq!((misfit.column.as_str(), misfit.why.code()), ("v", code), "{ty} {value}: {misfit}");
        assert_eq!((misfit.found.as_str(), &misfit.wanted, out.len()), (found, &wanted, 0), "{ty} {value}");
    }
}

#[test]
fn defaults_of_the_server_and_what_it_computes_are_left_to_it() {
    let columns = "id UInt32, twice UInt64 DEFAULT id * 2, thrice UInt64 MATERIALIZED id * 3, four UInt64 ALIAS id * 4, \
                   raw String EPHEMERAL 'none', length UInt64 DEFAULT length(raw), state AggregateFunction(sum, UInt8) \
                   DEFAULT initializeAggregation('sumState', toUInt8(1)), gone Nullable(UInt8)";
    let fixture = Fixture::new(columns);
    let (mut encoder, insert) = fixture.writer();
    assert_eq!(encoder.columns().collect::<Vec<_>>(), ["id", "twice", "raw", "length", "gone"]);
    let records =
        ["{\"id\":1}", "{\"id\":2,\"twice\":7,\"raw\":\"abcdef\",\"gone\":9}", "{\"id\":3,\"length\":1,\"thrice\":1}"];
    let block = insert.block(&rows(&mut encoder, records));
    wait(insert.send(&fixture.client, &block, None)).expect("inserted");
    let shown =
        fixture.sql("SELECT id, twice, thrice, four, length, finalizeAggregation(state), gone FROM $.t ORDER BY id");
    assert_eq!(shown, "1\t2\t3\t4\t4\t1\t\\N\n2\t7\t6\t8\t6\t1\t9\n3\t6\t9\t12\t1\t1\t\\N");
}
