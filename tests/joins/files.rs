//! Tables that are files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::harness::http::{address, await_some, get, value};
use crate::line::{Folder, Line, millstream};

const CITIES: [&str; 5] = ["Vienna", "Graz, Styria", "\"Linz\"", "", "St. Pölten"];

/// A row: id, city, age.
type Row = (u64, usize, Option<u64>);
/// What counts of each user: city and age.
type Users = BTreeMap<String, (Value, Value)>;

/// Rows of users, of whom many come more than once, and what a reader has to make of them.
fn users(dice: &mut Dice, count: u64) -> (Vec<Row>, Users) {
    let mut rows = Vec::new();
    let mut last = BTreeMap::new();
    for _ in 0..count {
        let (id, city) = (dice.roll(count / 2), dice.roll(CITIES.len() as u64) as usize);
        let age = Some(dice.roll(100)).filter(|age| age % 7 > 0);
        rows.push((id, city, age));
        last.insert(id.to_string(), (json!(CITIES[city]), json!(age)));
    }
    (rows, last)
}

fn csv(rows: &[Row]) -> String {
    let mut text = "age,user_id,city\n".to_owned();
    for (id, city, age) in rows {
        let age = age.map_or(String::new(), |age| age.to_string());
        let _ = writeln!(text, "{age},{id},\"{}\"", CITIES[*city].replace('"', "\"\""));
    }
    text
}

fn ndjson(rows: &[Row], dice: &mut Dice) -> String {
    let row = |(id, city, age): &Row| {
        // The key may be a number or a text, and what is not there may be null.
        let id = if dice.roll(2) == 0 { json!(id) } else { json!(id.to_string()) };
        let row = match age {
            None if dice.roll(2) == 0 => json!({"user_id": id, "at": {"city": CITIES[*city]}}),
            age => json!({"user_id": id, "at": {"city": CITIES[*city]}, "age": age}),
        };
        format!("{row}\n")
    };
    rows.iter().map(row).collect()
}

/// Records, and for each its key where it has one.
fn events(dice: &mut Dice, count: u64) -> Vec<(Value, Option<String>)> {
    let event = |number: u64| {
        let id = dice.roll(count);
        match dice.roll(12) {
            0 => (json!({"number": number}), None),
            1 => (json!({"number": number, "user": {"id": null}}), None),
            2..=5 => (json!({"number": number, "user": {"id": id.to_string(), "city": "old"}}), Some(id.to_string())),
            _ => (json!({"number": number, "user": {"id": id, "name": "x"}}), Some(id.to_string())),
        }
    };
    (0..count).map(event).collect()
}

#[test]
fn joined_records_are_what_a_map_gives() {
    for (seed, kind) in [(11, "csv"), (12, "ndjson")] {
        let folder = Folder::new(&format!("map-{kind}"));
        let mut dice = Dice(seed);
        let (rows, last) = users(&mut dice, 2_000);
        let text = if kind == "csv" { csv(&rows) } else { ndjson(&rows, &mut dice) };
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).expect("memory");
        folder.write("users.gz", gzip.finish().expect("memory"));
        let city = if kind == "csv" { "city" } else { "/at/city" };
        let tables = format!("  users: {{{kind}: {{path: users.gz, key: user_id}}, columns: {{age: int64}}}}");
        for no_match in ["null", "reject"] {
            let stages = format!(
                "  - {{name: add, join: {{table: users, on: /user/id, no_match: {no_match}, \
                 columns: {{{city}: /user/city, age: /age}}}}}}\n  \
                 - {{name: grown, filter: {{field: /age, type: int64, op: ne, value: 18}}}}"
            );
            let pipeline = folder.pipeline(&tables, &stages, "");
            let events = events(&mut dice, 3_000);
            let input: String = events.iter().map(|(event, _)| format!("{event}\n")).collect();
            let input = folder.write("in.ndjson", input);
            let (code, said) = millstream(&["run", &pipeline.to_string_lossy()], Some(&input));
            assert_eq!(code, 0, "{said}");
            let (out, dead) = expected(&events, &last, no_match);
            assert!(dead.is_empty() == (no_match == "null") && out.len() > 300);
            same(&folder.lines("out.ndjson"), &out);
            let rejected = |line: &Value| {
                assert_eq!(line["reason"]["code"], "no_match");
                serde_json::from_str(line["value"].as_str().expect("a record")).expect("JSON")
            };
            let found: Vec<Value> = folder.lines("dead.ndjson").iter().map(rejected).collect();
            same(&found, &dead);
        }
    }
}

#[track_caller]
fn same(found: &[Value], expected: &[Value]) {
    let different = found.iter().zip(expected).find(|(found, expected)| found != expected);
    assert!(different.is_none(), "{different:?}");
    assert_eq!(found.len(), expected.len());
}

/// What goes on, and what is rejected.
fn expected(events: &[(Value, Option<String>)], last: &Users, no_match: &str) -> (Vec<Value>, Vec<Value>) {
    let (mut out, mut dead) = (Vec::new(), Vec::new());
    for (event, key) in events {
        let found = key.as_ref().and_then(|key| last.get(key));
        let (city, age) = match found {
            None if no_match == "reject" => {
                dead.push(event.clone());
                continue;
            }
            found => found.cloned().unwrap_or_default(),
        };
        if age == json!(18) {
            continue;
        }
        let mut event = event.clone();
        event["user"]["city"] = city;
        event["age"] = age;
        out.push(event);
    }
    (out, dead)
}

const USERS: &str = "user_id,city,age\n1,Vienna,30\n2,Graz,\n";
const JOIN: &str = "  - {name: add, join: {table: users, on: /id, no_match: null, columns: {city: /city}}}";

#[test]
fn rows_that_cannot_be_read_are_told_with_their_place() {
    let folder = Folder::new("bad");
    let table = |more: &str| {
        format!("  users: {{csv: {{path: users.csv, key: user_id, max_line: 1KiB}}, columns: {{age: int64}}{more}}}")
    };
    let pipeline = folder.pipeline(&table(""), JOIN, "");
    let run = |text: &str| {
        folder.write("users.csv", text);
        folder.write("in.ndjson", "{\"id\": 1}\n");
        let (code, said) = millstream(&["run", &pipeline.to_string_lossy()], Some(&folder.0.join("in.ndjson")));
        let validated = millstream(&["validate", &pipeline.to_string_lossy()], None);
        assert_eq!(validated.0, code, "{said}\n{}", validated.1);
        (code, said)
    };
    let huge = format!("3,{},1", "x".repeat(2_000));
    let rows = [
        ("3,Linz", "line 4: the row can't be read: the row has 2 columns, the header has 3;"),
        ("3,Linz,old", "line 4: the row can't be read: column /age: expected int64, found \"old\";"),
        (",Linz,40", "line 4: the row can't be read: its key /user_id is empty;"),
        ("3,\"Linz,40", "line 4: the row can't be read: a quoted field does not end;"),
        (&huge, "line 4: the row can't be read: the line has 2004 bytes, of which these are the first 1024;"),
    ];
    for (row, why) in rows {
        let (code, said) = run(&format!("{USERS}{row}\n"));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("table `users`: ") && said.contains(&format!("users.csv {why}")), "{said}");
    }
    let (code, said) = run("user_id,town,age\n1,Vienna,30\n");
    assert!(code == 1 && said.contains("has no column `city`; its header has user_id, town, age"), "{said}");
    std::fs::remove_file(folder.0.join("users.csv")).expect("a file");
    let (code, said) = millstream(&["validate", &pipeline.to_string_lossy()], None);
    assert!(code == 1 && said.contains("users.csv can't be read: No such file"), "{said}");

    let pipeline = folder.pipeline(&table(", bad_rows: skip"), JOIN, "");
    let all: String = rows.iter().filter(|(row, _)| !row.contains('"')).map(|(row, _)| format!("{row}\n")).collect();
    folder.write("users.csv", format!("{USERS}{all}1,Wels,31\n"));
    let (code, said) = millstream(&["run", &pipeline.to_string_lossy()], Some(&folder.0.join("in.ndjson")));
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("users.csv line 5: a row is left out: column /age") && said.contains("2 rows from"),
        "{said}"
    );
    assert_eq!(folder.lines("out.ndjson"), [json!({"id": 1, "city": "Wels"})]);
    let (code, said) = millstream(&["validate", &pipeline.to_string_lossy()], None);
    assert!(code == 0 && said.contains("keeps /age /city, 2 rows in ") && said.contains(", 4 left out"), "{said}");
}

#[test]
fn a_table_that_takes_more_memory_than_it_may_is_refused() {
    let folder = Folder::new("memory");
    let rows: String = (0..100_000).map(|id| format!("{id},city number {id},1\n")).collect();
    folder.write("users.csv", format!("{USERS}{rows}"));
    let table = "  users: {csv: {path: users.csv, key: user_id}, memory_limit: 1MiB}";
    let (code, said) = millstream(&["validate", &folder.pipeline(table, JOIN, "").to_string_lossy()], None);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("rows take more than `memory_limit` (1 MiB) already; raise it, or keep fewer columns"),
        "{said}"
    );
}

#[test]
fn a_key_that_is_no_scalar_is_a_dead_letter_whatever_no_match_says() {
    let folder = Folder::new("keys");
    folder.write("users.csv", USERS);
    let pipeline = folder.pipeline("  users: {csv: {path: users.csv, key: user_id}}", JOIN, "");
    let mut line = Line::start(&folder, &pipeline);
    assert_eq!(line.send(r#"{"id": "\u0031"}"#), json!({"id": "1", "city": "Vienna"}));
    assert_eq!(line.send(r#"{"id": 1.0}"#), json!({"id": 1.0, "city": null}));
    let dead = line.send(r#"{"id": [1]}"#);
    assert_eq!((&dead["reason"]["code"], &dead["reason"]["stage"]), (&json!("wrong_type"), &json!("add")));
    assert_eq!(dead["reason"]["message"], "field `/id`: \"[1]\" is no key");
    assert_eq!(line.end(), 0);
}

#[test]
fn a_file_that_changes_is_read_again_and_one_that_cannot_be_read_is_not_taken() {
    let folder = Folder::new("reload");
    folder.write("users.csv", USERS);
    let pipeline = folder.pipeline(
        "  users: {csv: {path: users.csv, key: user_id}, columns: {age: int64}}",
        JOIN,
        "observe: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}",
    );
    let mut line = Line::start(&folder, &pipeline);
    let city = |line: &mut Line, id: u32| line.send(&json!({"id": id}).to_string())["city"].clone();
    assert_eq!([city(&mut line, 1), city(&mut line, 3)], [json!("Vienna"), Value::Null]);
    let observe = address(&folder.0, "run", "observe");
    let metric = |name: &str, labels: &[&str]| value(&get(observe, "/metrics"), name, labels).expect("it is there");
    let table = |name: &str| metric(&format!("millstream_lookup_table_{name}"), &["table=\"users\""]);
    let lookups = |result: &str| metric("millstream_lookups_total", &[&format!("result=\"{result}\"")]);
    assert_eq!([table("rows"), table("loads_total"), table("stale"), table("failures_total")], [2.0, 1.0, 0.0, 0.0]);
    assert_eq!([lookups("hit"), lookups("miss")], [1.0, 1.0]);
    let before = table("memory_bytes");

    folder.replace("users.csv", "user_id,city,age\n1,Wels,30\n3,Linz,5\n4,Steyr,6\n");
    await_some("the second version", || (table("loads_total") == 2.0).then_some(()));
    let cities = [1, 2, 3].map(|id| city(&mut line, id));
    assert_eq!(cities, [json!("Wels"), Value::Null, json!("Linz")], "what is gone is gone");
    assert!(table("rows") == 3.0 && table("memory_bytes") > before);

    folder.replace("users.csv", "user_id,city,age\n1,Bad Ischl,30\n5,Enns\n");
    await_some("the refusal", || (table("failures_total") == 1.0).then_some(()));
    assert_eq!([table("stale"), table("rows"), table("loads_total")], [1.0, 3.0, 2.0]);
    assert_eq!(city(&mut line, 1), "Wels", "it is as it was");
    assert!(line.log().contains("table `users` stays as it was: "), "{}", line.log());
    let admin = address(&folder.0, "run", "admin");
    let (_, status) = millstream(&["status", "--admin", &format!("http://{admin}")], None);
    assert!(status.contains("not current: ") && status.contains("users.csv line 3: the row can"), "{status}");

    std::fs::remove_file(folder.0.join("users.csv")).expect("a file");
    await_some("that it is gone", || (table("failures_total") == 2.0).then_some(()));
    assert_eq!(city(&mut line, 1), "Wels");
    folder.write("users.csv", "user_id,city,age\n1,Hallein,30\n");
    await_some("the third version", || (table("stale") == 0.0).then_some(()));
    assert_eq!([city(&mut line, 1), city(&mut line, 3)], [json!("Hallein"), Value::Null]);
    assert_eq!(line.end(), 0);
}

#[test]
fn left_out_rows_are_counted() {
    let folder = Folder::new("counted");
    folder.write("users.csv", format!("{USERS}x\n3,Linz\n"));
    let pipeline = folder.pipeline(
        "  users: {csv: {path: users.csv, key: user_id}, bad_rows: skip}",
        JOIN,
        "observe: {listen: '127.0.0.1:0'}",
    );
    let mut line = Line::start(&folder, &pipeline);
    line.send(r#"{"id": 1}"#);
    let text = get(address(&folder.0, "run", "observe"), "/metrics");
    assert_eq!(value(&text, "millstream_lookup_table_bad_rows_total", &["table=\"users\""]), Some(2.0));
    assert_eq!(line.end(), 0);
}
