//! Against `serde_json`, on texts that are valid, nearly valid, and odd. `MILLSTREAM_CASES` sets how many.

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use serde_json::Value;

use super::*;
use crate::record::TimestampEncoding;

fn config() -> ProptestConfig {
    let cases = std::env::var("MILLSTREAM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000);
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(u64::from(cases)),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

/// Keys as they stand in a text, few of them, so that duplicates and paths meet.
const KEYS: &[&str] = &[
    "a",
    "b",
    "\\u0061",
    "c",
    "0",
    "1",
    "",
    "a\\/b",
    "é",
    "\\u00e9",
    "\\\"",
    "~",
    "a longer key than two blocks have room",
    "exactly_13_by",
    "exactly_fifteen",
    "twenty_nine_bytes_and_no_more",
    "\\ud83d\\ude00",
];
/// The same as they stand in paths, and `-`.
const TOKENS: &[&str] =
    &["a", "b", "c", "0", "1", "2", "", "a~1b", "é", "\"", "~0", "a longer key than two blocks have room", "-", "😀"];
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-1",
    "42",
    "1.5",
    "-0.0",
    "1e2",
    "1E-2",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "123456789012345678",
    "0.1",
    "12345.678901",
    "1.7976931348623157e308",
    "4.9e-324",
    "1e308",
    "0e999",
    "1700000000",
    "0.00001e300",
];
const BAD_NUMBERS: &[&str] = &[
    "1e999",
    "-1e309",
    "01",
    "-",
    "+1",
    ".5",
    "1.",
    "1.e2",
    "1e",
    "1e+",
    "--1",
    "1.7976931348623159e308",
    "0x1",
    "NaN",
    "1.8e308",
    "00",
    "-01",
    "1e99999999999",
    "0e99999999999",
    "1e-99999999999",
];
const STRINGS: &[&str] = &[
    "",
    "x",
    "plain text",
    "1.50",
    "-7e3",
    "Zm9v",
    "Zm8=",
    "2023-11-14T22:13:20Z",
    "1969-12-31T23:59:59.1234567+01:30",
    "\\n",
    "\\u0041\\u00e9",
    "\\ud83d\\ude00",
    "é😀",
    "a string that is longer than sixteen bytes \\\\ and \\\" goes on",
    "\\u0000",
    "12345678",
    "1234567\\t",
    "\u{7f}",
    "\\/Zm8",
];
const BAD_STRINGS: &[&str] =
    &["\\ud800", "\\udc00", "\\ud800\\u0041", "\\ud800x", "\\u12g4", "\\x", "\n", "\u{1f}", "\\u123", "\\"];

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just(""), 2 => Just(" "), 1 => select(vec!["\n", "\t", "\r", "  ", " \n\t\r "])]
}

fn quoted(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(texts).prop_map(|text| format!("\"{text}\""))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        select(NUMBERS).prop_map(str::to_owned),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| format!("{value:e}")),
        any::<f32>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| format!("{value}")),
    ]
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => select(&["null", "true", "false"][..]).prop_map(str::to_owned),
        3 => number(),
        3 => quoted(STRINGS),
        1 => any::<String>().prop_map(|text| Value::from(text).to_string()),
    ]
}

fn joined(open: char, items: Vec<(&str, String, &str)>, close: char) -> String {
    let items: Vec<String> = items.iter().map(|(before, item, after)| format!("{before}{item}{after}")).collect();
    format!("{open}{}{close}", items.join(","))
}

/// A valid text.
fn json() -> impl Strategy<Value = String> {
    scalar().prop_recursive(5, 40, 6, |inner| {
        let member = (quoted(KEYS), space(), space(), inner.clone())
            .prop_map(|(key, before, after, value)| format!("{key}{before}:{after}{value}"));
        let object = vec((space(), member, space()), 0..7).prop_map(|members| joined('{', members, '}'));
        let array = vec((space(), inner, space()), 0..4).prop_map(|items| joined('[', items, ']'));
        prop_oneof![3 => object, 1 => array]
    })
}

/// A text that is mostly not valid, by a small change.
fn broken() -> impl Strategy<Value = Vec<u8>> {
    let bytes = select(&b"\"\\{}[]:, \n\t\0\x1f\x7f\x80\xc3\xa9\xed\xff019-+.eEu/tn"[..]);
    let text = select([BAD_NUMBERS, BAD_STRINGS].concat());
    (json(), any::<prop::sample::Index>(), 0..6, bytes, text, any::<u8>()).prop_map(
        |(json, at, how, byte, text, bits)| {
            let mut bytes = json.into_bytes();
            let at = at.index(bytes.len());
            match how {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= bits,
                2 => bytes[at] = byte,
                3 => bytes.insert(at, byte),
                4 => drop(bytes.remove(at)),
                _ => drop(bytes.splice(at..at, text.bytes())),
            }
            bytes
        },
    )
}

/// A valid text with one value that is perhaps not.
fn odd() -> impl Strategy<Value = Vec<u8>> {
    let depth = prop_oneof![1 => Just(0_usize), 1 => 120..132_usize];
    let scalar = prop_oneof![
        select(BAD_NUMBERS).prop_map(str::to_owned),
        quoted(BAD_STRINGS),
        json(),
        (1..400_usize, -400..400_i32).prop_map(|(digits, exponent)| format!("{}e{exponent}", "7".repeat(digits))),
        (280..330_usize).prop_map(|digits| "1".repeat(digits)),
        (0..40_u32).prop_map(|last| format!("1.797693134862315{last:02}e308")),
        (0..400_usize, 0..800_u32).prop_map(|(zeros, exponent)| format!("0.{}17e{exponent}", "0".repeat(zeros))),
    ];
    (scalar, depth, any::<bool>(), quoted(KEYS)).prop_map(|(scalar, depth, objects, key)| {
        let (open, close) = if objects { (format!("{{{key}:"), "}") } else { ("[".to_owned(), "]") };
        format!("{}{scalar}{}", open.repeat(depth), close.repeat(depth)).into_bytes()
    })
}

fn pointer() -> impl Strategy<Value = String> {
    vec(select(TOKENS), 0..4).prop_map(|tokens| tokens.iter().map(|token| format!("/{token}")).collect())
}

const TYPES: [ColumnType; 12] = [
    ColumnType::Json,
    ColumnType::Bool,
    ColumnType::Int64,
    ColumnType::Float64,
    ColumnType::Text,
    ColumnType::Bytes,
    ColumnType::Decimal,
    ColumnType::Timestamp(TimestampEncoding::Rfc3339),
    ColumnType::Timestamp(TimestampEncoding::EpochS),
    ColumnType::Timestamp(TimestampEncoding::EpochMs),
    ColumnType::Timestamp(TimestampEncoding::EpochUs),
    ColumnType::Timestamp(TimestampEncoding::EpochNs),
];

/// Reads of every type at each of the paths.
fn all_types(paths: &[String]) -> Vec<Field> {
    paths.iter().flat_map(|path| TYPES.map(|ty| field(path, ty))).collect()
}

fn wrong(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(_) => Cell::WrongBool,
        Value::Number(_) => Cell::WrongNumber,
        Value::String(_) => Cell::WrongText,
        Value::Array(_) => Cell::WrongArray,
        Value::Object(_) => Cell::WrongObject,
    }
}

/// What a column of type `ty` shows of `value`, whose literal is `literal`; `None` where it does not fit.
fn expected(ty: ColumnType, value: &Value, literal: &str) -> Option<String> {
    // The exponent by itself, because a decimal may be beyond a double's range.
    let is_number = |text: &str| {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        mantissa.ends_with(|last: char| last.is_ascii_digit())
            && matches!(serde_json::from_str(mantissa), Ok(Value::Number(_)))
            && !text.contains(|letter: char| letter.is_ascii_whitespace())
            && !exponent.is_empty()
            && exponent.bytes().all(|byte| byte.is_ascii_digit())
    };
    let integer = value.as_i64().or((literal == "-0").then_some(0));
    match (ty, value) {
        (ColumnType::Json, value) => (!value.is_null()).then(|| literal.to_owned()),
        (ColumnType::Bool, value) => value.as_bool().map(|value| value.to_string()),
        (ColumnType::Int64, _) => integer.map(|value| value.to_string()),
        (ColumnType::Float64, Value::Number(_)) => {
            let value: f64 = literal.parse().expect("a number");
            value.is_finite().then(|| format!("{value:?}"))
        }
        (ColumnType::Text, value) => value.as_str().map(str::to_owned),
        (ColumnType::Bytes, Value::String(text)) => match text.as_str() {
            "" => Some(String::new()),
            "Zm9v" => Some("foo".to_owned()),
            "Zm8=" => Some("fo".to_owned()),
            "/Zm8" => Some(String::from_utf8_lossy(b"\xfc\x99\xbc").into_owned()),
            "12345678" => Some(String::from_utf8_lossy(&[0xd7, 0x6d, 0xf8, 0xe7, 0xae, 0xfc]).into_owned()),
            _ => None,
        },
        (ColumnType::Decimal, Value::Number(_)) => Some(literal.to_owned()),
        (ColumnType::Decimal, Value::String(text)) => is_number(text).then(|| text.clone()),
        (ColumnType::Timestamp(TimestampEncoding::Rfc3339), Value::String(text)) => match text.as_str() {
            "2023-11-14T22:13:20Z" => Some("1700000000000000".to_owned()),
            "1969-12-31T23:59:59.1234567+01:30" => Some("-5400876544".to_owned()),
            _ => None,
        },
        (ColumnType::Timestamp(encoding), _) => {
            let micros = match encoding {
                TimestampEncoding::Rfc3339 => None,
                TimestampEncoding::EpochS => integer.map(|value| i128::from(value) * 1_000_000),
                TimestampEncoding::EpochMs => integer.map(|value| i128::from(value) * 1_000),
                TimestampEncoding::EpochUs => integer.map(i128::from),
                TimestampEncoding::EpochNs => integer.map(|value| i128::from(value).div_euclid(1_000)),
            };
            micros.and_then(|micros| i64::try_from(micros).ok()).map(|micros| micros.to_string())
        }
        _ => None,
    }
}

/// True where `expected` knows no rule, only some of the texts that the generators use.
fn by_table(ty: ColumnType) -> bool {
    matches!(ty, ColumnType::Bytes | ColumnType::Timestamp(TimestampEncoding::Rfc3339))
}

fn check_columns(fields: &[Field], columns: &[Column], record: &Value) {
    let mut literal = String::new();
    for (field, column) in fields.iter().zip(columns) {
        let Some(value) = record.pointer(&field.path.to_string()) else {
            assert_eq!(column.cells, [Cell::Missing], "{field:?}");
            continue;
        };
        if value.is_null() {
            literal = "null".to_owned();
        } else if field.ty == ColumnType::Json {
            literal = shown(column);
            assert_eq!(&serde_json::from_str::<Value>(&literal).expect("JSON"), value);
        }
        let expected = match expected(field.ty, value, &literal) {
            Some(expected) => expected,
            None if by_table(field.ty) && value.as_str().is_some_and(|text| !STRINGS.contains(&text)) => continue,
            None => format!("{:?}", wrong(value)),
        };
        assert_eq!(shown(column), expected, "{field:?} of {literal}");
    }
}

/// Checks one text, whatever it is, against `serde_json`, with what was learnt of other texts and without.
fn check_reading(text: &[u8], paths: &[String], writes: &[&str], kept: &RefCell<Chain>) {
    let fields = all_types(paths);
    let oracle = serde_json::from_slice::<Value>(text);
    let fresh = Chain::new(&fields, writes).read(text);
    let shown = String::from_utf8_lossy(text);
    assert_eq!(fresh.is_ok(), oracle.is_ok(), "{shown}: {fresh:?} {oracle:?}");
    let again = kept.borrow_mut().read(text);
    assert_eq!(again.is_ok(), oracle.is_ok(), "{shown}: {again:?}");
    if let (Ok((columns, _)), Ok((again, _)), Ok(record)) = (&fresh, &again, &oracle) {
        check_columns(&fields, columns, record);
        let fields = all_types(&KEPT_READS.map(str::to_owned));
        check_columns(&fields, again, record);
    }
}

/// What the chain that is kept from text to text reads.
const KEPT_READS: [&str; 6] = ["", "/a", "/a/b", "/b/0", "/é", "/a longer key than two blocks have room"];

fn kept_chain() -> RefCell<Chain> {
    RefCell::new(Chain::new(&all_types(&KEPT_READS.map(str::to_owned)), &["/a/c", "/c", "/b/1/a"]))
}

#[test]
fn what_serde_json_accepts_is_accepted_and_read_alike() {
    let kept = kept_chain();
    proptest!(config(), |(text in json(), paths in vec(pointer(), 0..4))| {
        check_reading(text.as_bytes(), &paths, &["/a", "/c/b"], &kept);
    });
}

#[test]
fn what_serde_json_refuses_is_refused() {
    let kept = kept_chain();
    proptest!(config(), |(text in broken(), paths in vec(pointer(), 0..3))| {
        check_reading(&text, &paths, &["/a/b"], &kept);
    });
}

#[test]
fn odd_numbers_strings_and_depths_are_judged_alike() {
    let kept = kept_chain();
    proptest!(config(), |(text in odd(), paths in vec(pointer(), 0..3))| {
        check_reading(&text, &paths, &[], &kept);
    });
}

#[test]
fn any_bytes_are_judged_alike() {
    let kept = kept_chain();
    let bytes = vec(prop_oneof![2 => select(&b"{}[]\",:\\0a1.e- \n"[..]), 1 => any::<u8>()], 0..24);
    proptest!(config(), |(text in bytes)| {
        check_reading(&text, &["/a".to_owned()], &[], &kept);
    });
}

/// A write: its op, the value, and the same for the reference.
fn a_write() -> impl Strategy<Value = (Written, Option<Value>)> {
    prop_oneof![
        2 => Just((one(ColumnType::Json, Op::Keep, |_| ()), None)),
        2 => Just((one(ColumnType::Text, Op::Remove, |_| ()), None)),
        1 => Just((one(ColumnType::Bool, Op::Null, |_| ()), Some(Value::Null))),
        1 => any::<i64>().prop_map(|value| (set_int(ColumnType::Int64, value), Some(value.into()))),
        1 => any::<String>().prop_map(|text| (set(ColumnType::Text, text.as_bytes()), Some(text.into()))),
        2 => json().prop_map(|text| {
            let value = serde_json::from_str(&text).expect("JSON");
            (set(ColumnType::Json, text.as_bytes()), Some(value))
        }),
    ]
}

/// Applies a write to a tree, plainly; false where the row is to be rejected.
fn apply(record: &mut Value, tokens: &[String], op: Op, value: Option<&Value>) -> bool {
    let Some((token, rest)) = tokens.split_first() else {
        *record = value.cloned().unwrap_or_default();
        return true;
    };
    match record {
        Value::Object(members) if op == Op::Remove && rest.is_empty() => {
            members.remove(token);
            true
        }
        Value::Object(members) => match members.get_mut(token) {
            Some(member) => apply(member, rest, op, value),
            None if op == Op::Remove => true,
            None => {
                let mut member = if rest.is_empty() { Value::Null } else { Value::Object(Default::default()) };
                let good = apply(&mut member, rest, op, value);
                members.insert(token.clone(), member);
                good
            }
        },
        Value::Array(items) => {
            match super::super::pointer::array_index(token).and_then(|i| items.get_mut(i as usize)) {
                Some(_) if op == Op::Remove && rest.is_empty() => false,
                Some(item) => apply(item, rest, op, value),
                None => op == Op::Remove,
            }
        }
        _ => op == Op::Remove,
    }
}

/// Paths of which none holds another.
fn apart(paths: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for text in paths.into_iter().filter(|text| !text.is_empty()) {
        let pointer = path(&text);
        if !kept.iter().map(|text| path(text)).any(|other| other.is_prefix_of(&pointer) || pointer.is_prefix_of(&other))
        {
            kept.push(text);
        }
    }
    kept
}

#[test]
fn what_is_written_is_what_the_tree_would_have() {
    let cases = (json(), vec((pointer(), a_write()), 1..6), vec(pointer(), 0..5));
    proptest!(config(), |((text, writes, reads) in cases)| {
        let paths = apart(writes.iter().map(|(path, _)| path.clone()).collect());
        let writes: Vec<&(Written, Option<Value>)> = paths
            .iter()
            .filter_map(|path| writes.iter().find(|(other, _)| other == path))
            .map(|(_, write)| write)
            .collect();
        let fields: Vec<Field> = reads.iter().map(|path| field(path, ColumnType::Json)).collect();
        let path_texts: Vec<&str> = paths.iter().map(String::as_str).collect();
        let mut chain = Chain::new(&fields, &path_texts);

        let mut tree: Value = serde_json::from_str(&text).expect("JSON");
        let mut good = true;
        for (text, (written, value)) in paths.iter().zip(&writes) {
            let op = written.ops[0];
            good &= op == Op::Keep || apply(&mut tree, path(text).tokens(), op, value.as_ref());
        }
        let written: Vec<Written> = writes.iter().map(|(written, _)| written.clone()).collect();
        let result = chain.write(text.as_bytes(), &written);
        prop_assert_eq!(result.is_ok(), good, "{:?}", result);
        if let Ok(out) = result {
            let out = String::from_utf8(out).expect("UTF-8");
            prop_assert_eq!(&serde_json::from_str::<Value>(&out).expect(&out), &tree, "{}", out);
            check_untouched(&mut chain, &text, &out, &paths, &written)?;
        }
    });
}

/// Sees that what no write touches has the same bytes before and after.
fn check_untouched(
    chain: &mut Chain,
    before: &str,
    after: &str,
    paths: &[String],
    written: &[Written],
) -> Result<(), TestCaseError> {
    let changed: Vec<Pointer> = paths
        .iter()
        .zip(written)
        .filter(|(_, written)| written.ops[0] != Op::Keep)
        .map(|(text, _)| path(text))
        .collect();
    if changed.is_empty() {
        prop_assert_eq!(before, after);
    }
    let fields = chain.extractor.plan().reads().to_vec();
    let (was, _) = chain.read(before.as_bytes()).expect("a record");
    let (is, _) = chain.read(after.as_bytes()).expect("a record");
    for ((field, was), is) in fields.iter().zip(&was).zip(&is) {
        if !changed.iter().any(|path| path.is_prefix_of(&field.path) || field.path.is_prefix_of(path)) {
            prop_assert_eq!(shown(was), shown(is), "{}", field.path);
        }
    }
    Ok(())
}

#[test]
fn doubles_come_back_to_the_last_bit() {
    let chain = RefCell::new(Chain::new(&[field("/v", ColumnType::Float64)], &["/v"]));
    proptest!(config(), |(value in any::<f64>().prop_filter("finite", |value| value.is_finite()))| {
        let written = one(ColumnType::Float64, Op::Set, |data| {
            if let ColumnData::Float64(values) = data {
                values.push(value);
            }
        });
        let out = chain.borrow_mut().write(b"{\"v\":0}", &[written]).expect("a record");
        let (columns, _) = chain.borrow_mut().read(&out).expect("a record");
        prop_assert_eq!(&columns[0].data, &ColumnData::Float64(vec![value]));
    });
}
