//! Records that no window can take, and definitions that make no sense.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::process::folder;

fn run(folder: &Path, window: &str, records: &str) -> (bool, String) {
    run_stage(folder, &format!("window: {{{window}}}"), records)
}

fn run_stage(folder: &Path, stage: &str, records: &str) -> (bool, String) {
    let pipeline = format!(
        "pipeline: bad\nsource: {{files: {{paths: [in.ndjson]}}}}\n\
         stages: [{{name: w, {stage}}}]\n\
         outputs: {{main: {{file: {{path: out.ndjson}}}}, late: {{file: {{path: late.ndjson}}}}}}\n\
         dead_letters: {{to: {{file: {{path: dead.ndjson}}}}}}\n"
    );
    std::fs::write(folder.join("p.yaml"), pipeline).expect("a config");
    std::fs::write(folder.join("in.ndjson"), records).expect("records");
    let file = folder.join("p.yaml");
    let output = Command::new(env!("CARGO_BIN_EXE_millstream")).arg("run").arg(file).output().expect("millstream runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn lines(folder: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

const COUNTS: &str = "time: {field: /t, encoding: epoch_s}, key: [/k], tumbling: 1m, disorder: 5s, max_jump: 1d, \
                      aggregate: {n: count, sum: {sum: /v}}, output: main";

#[test]
fn what_no_window_can_take_is_a_dead_letter_that_says_why() {
    let folder = folder("windows-bad");
    let base = 1_700_000_000_i64;
    let records = [
        format!(r#"{{"t":{base},"k":"a","v":1}}"#),
        format!(r#"{{"t":{},"k":"a","v":2}}"#, base + 1),
        r#"{"k":"a","v":1}"#.to_owned(),
        r#"{"t":"yesterday","k":"a"}"#.to_owned(),
        r#"{"t":-5,"k":"a"}"#.to_owned(),
        format!(r#"{{"t":{},"k":"a"}}"#, base * 1_000),
        r#"{"t":4070908800,"k":"a"}"#.to_owned(),
        r#"{"t":9223372036854775807,"k":"a"}"#.to_owned(),
        format!(r#"{{"t":{},"k":"a"}}"#, base - 86_400),
        format!(r#"{{"t":{base},"k":{{"nested":1}}}}"#),
        format!(r#"{{"t":{base},"k":"{}"}}"#, "x".repeat(5_000)),
        format!(r#"{{"t":{base},"k":"a","v":"no number"}}"#),
        format!(r#"{{"t":{},"k":"a","v":4}}"#, base + 2),
    ];
    let (done, said) = run(&folder, COUNTS, &records.join("\n"));
    assert!(done, "{said}");
    let reason = |dead: &Value, name: &str| dead["reason"][name].as_str().unwrap_or_default().to_owned();
    let dead = lines(&folder, "dead.ndjson");
    let codes: Vec<String> = dead.iter().map(|dead| reason(dead, "code")).collect();
    let expected = [
        "missing_field",
        "wrong_type",
        "event_time_negative",
        "event_time_unit",
        "event_time_in_future",
        "wrong_type",
        "late",
        "key_not_scalar",
        "key_too_large",
        "wrong_type",
    ];
    assert_eq!(codes, expected, "{dead:#?}");
    let why = reason(&dead[3], "message");
    assert!(why.contains("a unit 1000 times as small"), "{why}");
    let rows = lines(&folder, "out.ndjson");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["n"], &rows[0]["sum"], &rows[0]["k"]), (&3.into(), &7.into(), &"a".into()));
    assert!(said.contains("folded=3"), "{said}");
}

/// Rule W4: what floats would add up to depends on the order of the records.
#[test]
fn decimals_add_up_exactly_in_any_order_and_one_that_does_not_fit_is_a_dead_letter() {
    let folder = folder("windows-decimals");
    let window = "time: {field: /t, encoding: epoch_s}, key: [/k], tumbling: 1m, output: main, aggregate: {sum: {sum: /v, \
                  decimals: 2}, mean: {mean: /v, decimals: 2}, least: {min: /v, decimals: 2}, whole: {max: /v, decimals: 0}}";
    let values = ["1e15", "0.1", "\"0.20\"", "3e-1", "-1e15", "null", "0.10", "-0.4", "12.345", "1e17", "\"a\"", "1.5"];
    let mut orders = [values.to_vec(), values.iter().rev().copied().collect()];
    orders[1].rotate_left(5);
    for values in orders {
        let record = |value: &&str| format!(r#"{{"t":1000,"k":"a","v":{value}}}"#);
        let records: Vec<String> = values.iter().map(record).collect();
        let two = window.replace(", whole: {max: /v, decimals: 0}", "");
        let (done, said) = run(&folder, &two, &records.join("\n"));
        assert!(done, "{said}");
        let row = std::fs::read_to_string(folder.join("out.ndjson")).expect("a row");
        // 1.80 from eight values: the two large ones, which floats would not forget, leave nothing behind.
        assert!(row.contains(r#""sum":1.80,"mean":0.225,"least":-1000000000000000.00}"#), "{row}");
        let dead = lines(&folder, "dead.ndjson");
        let mut codes: Vec<&str> = dead.iter().filter_map(|dead| dead["reason"]["code"].as_str()).collect();
        codes.sort_unstable();
        assert_eq!(codes, ["decimal_places", "decimal_range", "wrong_type"]);
        assert!(said.contains("folded=9"), "{said}");
    }
    let (done, said) = run(&folder, window, r#"{"t":1000,"k":"a","v":1.5}"#);
    assert!(done && said.contains("dead_letters=1"), "one place is too many for `whole`: {said}");
}

#[test]
fn records_are_grouped_by_parts_of_their_texts() {
    let folder = folder("windows-parts");
    let window = "time: {field: /t, encoding: epoch_s}, key: {domain: {field: /mail, after: \"@\", case: lower}, page: {field: \
                  /url, before: \"?\", first: 5}}, tumbling: 1m, aggregate: {n: count}, output: main";
    let record = |mail: &str, url: &str| format!(r#"{{"t":1000,"mail":{mail},"url":"{url}"}}"#);
    let records = [
        record("\"ann@Example.org\"", "/page?a"),
        record("\"bob@example.ORG\"", "/page"),
        record("\"bob@other.org\"", "/pages"),
        record("\"nobody\"", "/p?x?y"),
        record("7", "/page"),
    ];
    let (done, said) = run(&folder, window, &records.join("\n"));
    assert!(done, "{said}");
    let row = |row: &Value| (row["domain"].to_string(), row["page"].to_string(), row["n"].as_i64());
    let mut found: Vec<_> = lines(&folder, "out.ndjson").iter().map(row).collect();
    found.sort();
    let row = |domain: &str, page: &str, n| (format!("\"{domain}\""), format!("\"{page}\""), Some(n));
    assert_eq!(found, [row("example.org", "/page", 2), row("nobody", "/p", 1), row("other.org", "/page", 1)]);
    assert_eq!(lines(&folder, "dead.ndjson")[0]["reason"]["code"], "key_not_text");
    let (done, said) = run(&folder, &window.replace("first: 5", "first: 0"), "");
    assert!(!done && said.contains("first: expected"), "{said}");
}

#[test]
fn late_records_can_have_an_output_of_their_own() {
    let folder = folder("windows-late");
    let records = [r#"{"t":1000,"k":"a","v":1}"#, r#"{"t":2000,"k":"a","v":1}"#, r#"{"t":1001,"k":"a","v":9}"#];
    let (done, said) = run(&folder, &format!("{COUNTS}, late: {{output: late}}"), &records.join("\n"));
    assert!(done, "{said}");
    let late = lines(&folder, "late.ndjson");
    assert_eq!(late.len(), 1, "{late:?}");
    assert_eq!(late[0]["v"], 9);
    assert!(said.contains("late=1"), "{said}");
    assert_eq!(lines(&folder, "out.ndjson").len(), 2);
}

#[test]
fn a_record_that_goes_on_goes_on_late_as_well() {
    let folder = folder("windows-forward");
    let records = [r#"{"t":1000,"k":"a","v":1}"#, r#"{"t":2000,"k":"a","v":1}"#, r#"{"t":1001,"k":"a","v":9}"#];
    let window = COUNTS.replace("output: main", "output: late, forward: true");
    let (done, said) = run(&folder, &window, &records.join("\n"));
    assert!(done, "{said}");
    assert_eq!(lines(&folder, "out.ndjson").len(), 3, "every record");
    let counted: i64 = lines(&folder, "late.ndjson").iter().map(|row| row["n"].as_i64().expect("a number")).sum();
    assert_eq!(counted, 2, "the late one is in no window");
    assert_eq!(lines(&folder, "dead.ndjson").len(), 0);
}

#[test]
fn a_record_that_came_before_is_dropped_and_counted() {
    let folder = folder("windows-duplicates");
    let record = |t: i64, id: &str| format!(r#"{{"t":{t},"id":"{id}"}}"#);
    let records = [
        record(1_000, "a"),
        record(1_000, "a"),
        record(1_005, "b"),
        record(1_059, "a"),
        record(1_060, "a"),
        record(5_000, "b"),
        record(1_000, "c"),
    ];
    let stage = "deduplicate: {time: {field: /t, encoding: epoch_s}, key: [/id], within: 1m}";
    let (done, said) = run_stage(&folder, stage, &records.join("\n"));
    assert!(done, "{said}");
    let times: Vec<i64> = lines(&folder, "out.ndjson").iter().map(|row| row["t"].as_i64().expect("a time")).collect();
    assert_eq!(times, [1_000, 1_005, 1_060, 5_000]);
    assert!(said.contains("deduplicated=2") && said.contains("dead_letters=1"), "{said}");
}

#[test]
fn a_definition_that_makes_no_sense_is_refused_with_its_place() {
    let folder = folder("windows-refused");
    let refused: BTreeMap<&str, &str> = [
        (
            "time: {field: /t, encoding: epoch_s}, aggregate: {n: count}, output: main",
            "exactly one of tumbling, hopping or session",
        ),
        ("time: now, tumbling: 1m, aggregate: {n: count}, output: main", "`record`, or {field"),
        ("time: record, tumbling: 1m, aggregate: {}, output: main", "1 to 64 columns"),
        ("time: record, tumbling: 1m, aggregate: {window_end: count}, output: main", "can't be a column"),
        ("time: record, tumbling: 1m, aggregate: {n: median}, output: main", "expected count"),
        (
            "time: record, tumbling: 1m, aggregate: {n: {sum: /v, max: /v, decimals: 2}}, output: main",
            "exactly one of sum, mean, min and max beside `decimals`",
        ),
        ("time: record, tumbling: 1m, aggregate: {n: {sum: /v, decimals: 19}}, output: main", "from 0 to 18"),
        ("time: record, tumbling: 1m, aggregate: {n: {distinct: /v, decimals: 2}}, output: main", "decimals"),
        ("time: record, tumbling: 1m, aggregate: {n: count}, output: nowhere", "there is main or late"),
        ("time: record, hopping: {size: 1m, every: 2m}, aggregate: {n: count}, output: main", "would be in none"),
        ("time: record, hopping: {size: 30d, every: 1s}, aggregate: {n: count}, output: main", "at most 1440"),
        ("time: record, tumbling: 1m, late: forward, aggregate: {n: count}, output: main", "with `forward: true`"),
        ("time: record, session: 5m, offset: 1m, aggregate: {n: count}, output: main", "has no offset"),
        (
            "time: record, key: [/a/id, /b/id], tumbling: 1m, aggregate: {n: count}, output: main",
            "two fields are called `id`",
        ),
    ]
    .into();
    for (window, words) in refused {
        let (done, said) = run(&folder, window, "");
        assert!(!done && said.contains(words), "{window}: {said}");
    }
}
