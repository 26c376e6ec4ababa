//! Tables that plugins use: joined columns, and lookups.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::dice::Dice;
use crate::harness::guests::guest;
use crate::harness::http::{address, await_some, get, value};
use crate::line::{Folder, Line, millstream};

const TABLES: &str = "  users: {ndjson: {path: users.ndjson, key: id}, columns: {age: int64}}\n  \
                      products: {csv: {path: products.csv, key: name}, columns: {price: int64}}";
const STAGES: &str = "  - {name: add, plugin: tables.wasm}";

/// A pipeline with the plugin, and the tables' files.
fn folder(name: &str, users: &str, products: &str) -> Folder {
    let folder = Folder::new(name);
    folder.write("tables.wasm", guest("tables"));
    folder.write("users.ndjson", users);
    folder.write("products.csv", format!("name,price\n{products}"));
    folder
}

#[test]
fn what_a_plugin_joins_and_looks_up_is_what_maps_give() {
    let mut dice = Dice(5);
    let (mut users, mut ages) = (String::new(), BTreeMap::new());
    for id in (0..400).filter(|id| id % 3 > 0) {
        let city = [json!("Graz"), json!("St. Pölten"), Value::Null][dice.roll(3) as usize].clone();
        let age = if dice.roll(2) == 0 { Value::Null } else { json!(dice.roll(90)) };
        users += &format!("{}\n", json!({"id": id, "city": city, "age": age}));
        ages.insert(id.to_string(), (city, age));
    }
    let products: String =
        (0..50).map(|id| format!("item {id},{}\n", if id % 7 == 0 { String::new() } else { id.to_string() })).collect();
    let folder = folder("plugin", &users, &products);
    let (mut input, mut out, mut dead) = (String::new(), Vec::new(), Vec::new());
    for number in 0..3_000 {
        let person = |dice: &mut Dice| (dice.roll(500) as usize).to_string();
        let (user, friend) = (person(&mut dice), person(&mut dice));
        let items: Vec<u64> = (0..dice.roll(6)).map(|_| dice.roll(60)).collect();
        let names: Vec<String> = items.iter().map(|item| format!("item {item}")).collect();
        let mut record = Map::from_iter([("number".to_owned(), json!(number)), ("user".to_owned(), json!(user))]);
        match dice.roll(4) {
            0 => record["user"] = json!(user.parse::<u64>().expect("a number")),
            1 => _ = record.insert("friend".to_owned(), json!(friend)),
            _ => {}
        }
        if !items.is_empty() {
            record.insert("items".to_owned(), json!(names));
        }
        input += &format!("{}\n", Value::Object(record.clone()));
        let Some((city, age)) = ages.get(&user).filter(|(city, _)| city.is_string()) else {
            dead.push(number);
            continue;
        };
        let priced = |item: &&u64| **item < 50 && !item.is_multiple_of(7);
        let friend = record.get("friend").map(|_| ages.get(&friend).map(|(city, _)| city.as_str()));
        let friend_is = match friend.flatten() {
            Some(Some(city)) => format!("in {city}"),
            Some(None) => "somewhere".to_owned(),
            None => "nobody".to_owned(),
        };
        record.insert("city".to_owned(), city.clone());
        record.insert("age".to_owned(), age.clone());
        record.insert("total".to_owned(), json!(items.iter().filter(priced).sum::<u64>()));
        record.insert("unpriced".to_owned(), json!(items.iter().filter(|item| !priced(item)).count()));
        record.insert("friend_is".to_owned(), json!(friend_is));
        out.push(Value::Object(record));
    }
    let pipeline = folder.pipeline(TABLES, STAGES, "");
    let input = folder.write("in.ndjson", input);
    let (code, said) = millstream(&["run", &pipeline.to_string_lossy()], Some(&input));
    assert_eq!(code, 0, "{said}");
    let found = folder.lines("out.ndjson");
    let different = found.iter().zip(&out).find(|(found, expected)| found != expected);
    assert!(different.is_none() && found.len() == out.len() && out.len() > 500, "{different:?}");
    let rejected = |line: Value| {
        assert_eq!(line["reason"]["code"], "no_match", "{line}");
        let record: Value = serde_json::from_str(line["value"].as_str().expect("a record")).expect("JSON");
        record["number"].as_u64().expect("a number")
    };
    let found: Vec<u64> = folder.lines("dead.ndjson").into_iter().map(rejected).collect();
    assert_eq!(found, dead);
}

#[test]
fn why_a_record_has_no_match_is_told_and_a_table_that_changes_is_seen() {
    let users = "{\"id\": 1, \"city\": \"Graz\"}\n{\"id\": 2, \"city\": null}\n{\"id\": 3, \"city\": 8010}\n";
    let folder = folder("reasons", users, "apple,3\n");
    let more = "observe: {listen: '127.0.0.1:0'}";
    let mut line = Line::start(&folder, &folder.pipeline(TABLES, STAGES, more));
    let good = json!({"user": 1, "items": ["apple", "pear"], "city": "Graz", "age": null, "total": 3, "unpriced": 1, "friend_is": "nobody"});
    assert_eq!(line.send(r#"{"user": 1, "items": ["apple", "pear"]}"#), good);
    for (record, code, why) in [
        (r#"{"user": 7}"#, "no_match", "table `users` has no row for the key \"7\""),
        (r#"{"user": 2}"#, "no_match", "table `users` has no `/city` for the key \"2\""),
        (r#"{"user": null}"#, "no_match", "table `users` has no row for a record without `/user`"),
        (r#"{"user": {}}"#, "wrong_type", "field `/user`: an object is no key"),
        (r#"{"user": 1, "friend": [2]}"#, "wrong_type", "field `/friend`: an array is no key"),
        (
            r#"{"user": 3}"#,
            "wrong_type",
            "column `/city` of table `users`, by `/user`: expected text, found a number of another form or range",
        ),
    ] {
        let reason = line.send(record)["reason"].clone();
        assert_eq!((&reason["code"], &reason["message"]), (&json!(code), &json!(why)), "{record}");
        assert_eq!(reason["stage"], "add");
    }
    let metric = |name: &str, labels: &[&str]| {
        value(&get(address(&folder.0, "run", "observe"), "/metrics"), name, labels).expect("it is there")
    };
    assert_eq!(metric("millstream_lookups_total", &["table=\"products\"", "result=\"hit\""]), 1.0);
    assert_eq!(metric("millstream_lookups_total", &["table=\"products\"", "result=\"miss\""]), 1.0);
    folder.replace("products.csv", "name,price\npear,5\n");
    folder.replace("users.ndjson", "{\"id\": 1, \"city\": \"Wels\", \"age\": 9}\n");
    for table in ["products", "users"] {
        let loads = || metric("millstream_lookup_table_loads_total", &[&format!("table=\"{table}\"")]) == 2.0;
        await_some("the second version", || loads().then_some(()));
    }
    let other = json!({"user": "1", "items": ["apple", "pear"], "city": "Wels", "age": 9, "total": 5, "unpriced": 1, "friend_is": "in Wels", "friend": 1});
    assert_eq!(line.send(r#"{"user": "1", "items": ["apple", "pear"], "friend": 1}"#), other);
    assert_eq!(line.end(), 0);
}

#[test]
fn a_pipeline_without_what_its_plugin_needs_is_refused() {
    let folder = folder("refused", "", "");
    let validate =
        |tables: &str| millstream(&["validate", &folder.pipeline(tables, STAGES, "").to_string_lossy()], None);
    let users = TABLES.lines().next().expect("users");
    let (code, said) = validate(users);
    let why =
        "stage `add` reads `/price` of the table `products`, which the pipeline does not have: add it under `tables`";
    assert!(code == 2 && said.contains(why), "{said}");
    let (code, said) = validate(&TABLES.replace("age: int64", "age: bool"));
    let why = "stage `add` reads `/age` of the table `users`, as int64, but it holds bool; give it another type";
    assert!(code == 2 && said.contains(why), "{said}");
    let (code, said) = validate(TABLES);
    assert!(code == 0 && said.contains("keeps /age /city, 0 rows"), "{said}");
}
