//! A table against a plain map, and what rows say of themselves.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use super::*;

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

type Model = BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>;

fn columns(count: usize) -> Vec<TableColumn> {
    (0..count).map(|i| TableColumn { path: format!("/c{i}"), ty: ColumnType::Json }).collect()
}

fn values(row: Row<'_>) -> Vec<Option<Vec<u8>>> {
    row.values().map(|value| value.map(<[u8]>::to_vec)).collect()
}

#[track_caller]
fn same(snapshot: &Snapshot, model: &Model, keys: u64) {
    assert_eq!(snapshot.rows(), model.len() as u64);
    for key in (0..keys).map(key) {
        assert_eq!(snapshot.get(&key).map(values).as_ref(), model.get(&key), "{key:?}");
    }
}

/// Keys of all lengths, the empty one among them.
fn key(number: u64) -> Vec<u8> {
    let text = if number == 0 { String::new() } else { number.to_string().repeat(number as usize % 50 + 1) };
    text.into_bytes()
}

fn value(dice: &mut Dice) -> Option<Vec<u8>> {
    let len = match dice.roll(20) {
        0 => return None,
        1 => 20_000,
        more => more * 3,
    };
    Some((0..len).map(|_| dice.roll(256) as u8).collect())
}

#[test]
fn a_table_has_what_a_map_has_whatever_is_set_and_deleted() {
    for seed in 1..=20 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let width = dice.roll(5) as usize;
        let keys = 1 + dice.roll(400);
        let table = Arc::new(Table::new("t", columns(width)));
        let mut view = View::new(table.clone(), 0);
        let mut model = Model::new();
        for _ in 0..60 {
            let before = (view.clone(), model.clone());
            let mut changes = table.snapshot().changes();
            for _ in 0..dice.roll(keys * 2) {
                let key = key(dice.roll(keys));
                if dice.roll(3) == 0 {
                    changes.delete(&key).expect("there is room");
                    model.remove(&key);
                } else {
                    let row: Vec<_> = (0..width).map(|_| value(&mut dice)).collect();
                    changes.set(&key, row.iter().map(Option::as_deref)).expect("there is room");
                    model.insert(key, row);
                }
            }
            let next = table.snapshot().with(changes);
            same(&next, &model, keys);
            table.publish(next);
            // Who looks sees the same until they look anew.
            same(before.0.snapshot(), &before.1, keys);
            view.refresh();
        }
        same(view.snapshot(), &model, keys);
    }
}

#[test]
fn what_was_replaced_and_deleted_takes_no_memory_for_ever() {
    let table = Table::new("t", columns(1));
    let mut rows = table.empty().changes();
    let text = vec![b'x'; 1_000];
    for round in 0..200_u64 {
        (0..100_u64).for_each(|key| {
            let text = [text.as_slice(), &round.to_le_bytes()].concat();
            rows.set(&key.to_le_bytes(), [Some(text.as_slice())].into_iter()).expect("there is room");
        });
    }
    assert!(rows.bytes() < 120_000, "{}", rows.bytes());
    let mut snapshot = table.empty().with(rows);
    assert!(snapshot.bytes() < 120_000, "{}", snapshot.bytes());
    for round in 0..1_000_u64 {
        let mut changes = snapshot.changes();
        let text = [text.as_slice(), &round.to_le_bytes()].concat();
        changes.set(&(round % 100).to_le_bytes(), [Some(text.as_slice())].into_iter()).expect("there is room");
        snapshot = snapshot.with(changes);
        assert!(snapshot.bytes() < 200_000, "{}", snapshot.bytes());
    }
    let mut changes = snapshot.changes();
    (0..100_u64).for_each(|key| changes.delete(&key.to_le_bytes()).expect("there is room"));
    snapshot = snapshot.with(changes);
    assert_eq!(snapshot.rows(), 0);
    assert!(snapshot.bytes() < 100, "{}", snapshot.bytes());
}

/// The figure of docs/tables.md: `cargo test -p millstream --lib table::tests::a_million -- --nocapture` prints it.
#[test]
fn a_million_users_take_little_more_than_their_texts() {
    let names = ["/age", "/city", "/device_type", "/gender", "/registered_at"];
    let columns: Vec<_> = names.map(|path| TableColumn { path: path.to_owned(), ty: ColumnType::Json }).into();
    let table = Table::new("users", columns);
    let mut rows = table.empty().changes();
    let mut dice = Dice(7);
    let mut texts = 0;
    for user in 1..=1_000_000_u64 {
        let cities = ["\"Vienna\"", "\"Graz\"", "\"Innsbruck\"", "\"Klagenfurt\""];
        let row = [
            dice.roll(90).to_string(),
            cities[dice.roll(4) as usize].to_owned(),
            ["\"mobile\"", "\"desktop\""][dice.roll(2) as usize].to_owned(),
            ["\"female\"", "\"male\""][dice.roll(2) as usize].to_owned(),
            format!("\"2024-01-{:02}T10:11:12.{:03}Z\"", 1 + dice.roll(28), dice.roll(1_000)),
        ];
        let key = user.to_string();
        texts += key.len() + row.iter().map(String::len).sum::<usize>();
        rows.set(key.as_bytes(), row.iter().map(|text| Some(text.as_bytes()))).expect("there is room");
    }
    let snapshot = table.empty().with(rows);
    let (bytes, texts) = (snapshot.bytes() as f64 / 1e6, texts as f64 / 1e6);
    let line = format!("{bytes:.1} bytes a row, of which {texts:.1} are key and values\n");
    std::io::stdout().write_all(line.as_bytes()).expect("somebody listens");
    assert_eq!(snapshot.rows(), 1_000_000);
    assert!(bytes < texts + 18.0, "{bytes} bytes a row for texts of {texts}");
    let found: Vec<_> = snapshot.get(b"1000000").expect("the last").values().flatten().map(<[u8]>::len).collect();
    assert_eq!((found.len(), found[4]), (5, 26));
}

fn reader(key: &str, types: &[(&str, ColumnType)], accepts: Accepts) -> RowReader {
    let column = |(path, ty): &(&str, ColumnType)| TableColumn { path: (*path).to_owned(), ty: *ty };
    let columns: Vec<_> = types.iter().map(column).collect();
    RowReader::new(KeyAt::Field(key.to_owned()), &columns, accepts, "").expect("pointers")
}

fn row(reader: &mut RowReader, json: &str) -> Result<String, String> {
    reader.read(None, json.as_bytes()).map_err(|why| why.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let values: Vec<_> = reader.values().map(|value| value.map_or("-".to_owned(), text)).collect();
    Ok(format!("{}: {}", text(reader.key()), values.join(" ")))
}

#[test]
fn json_rows_keep_their_values_and_declared_types_are_held_to() {
    let types = [("/n", ColumnType::Int64), ("/t", ColumnType::Text), ("/a/b", ColumnType::Json)];
    let mut reader = reader("/id", &types, Accepts::Json);
    let mut check = |json: &str, expected: Result<&str, &str>| {
        let found = row(&mut reader, json);
        assert_eq!(found.as_ref().map(String::as_str).map_err(String::as_str), expected, "{json}");
    };
    check(r#"{"id": 1, "n": -5, "t": "x\ty", "a": {"b": [1, 2]}}"#, Ok(r#"1: -5 "x\ty" [1, 2]"#));
    check(r#"{"id": "1", "n": null}"#, Ok("1: - - -"));
    check(r#"{"id": "a\"b", "a": {"b": null}}"#, Ok("a\"b: - - -"));
    check(r#"{"id": ""}"#, Ok(": - - -"));
    check(r#"{"id": true, "id": 1.50}"#, Ok("1.50: - - -"));
    check(r#"{"n": 1}"#, Err("its key /id is missing; a key is a text, a number or a boolean"));
    check(r#"{"id": null}"#, Err("its key /id is null; a key is a text, a number or a boolean"));
    check(r#"{"id": [1]}"#, Err("its key /id is an array; a key is a text, a number or a boolean"));
    check(r#"{"id": 1, "n": "5"}"#, Err("column /n: expected int64, found \"5\""));
    check(r#"{"id": 1, "n": 9223372036854775808}"#, Err("column /n: expected int64, found 9223372036854775808"));
    check(r#"{"id": 1, "t": 5}"#, Err("column /t: expected text, found 5"));
    check(r#"[{"id": 1}]"#, Err("it is no JSON object"));
    assert!(row(&mut reader, r#"{"id": 1"#).expect_err("broken").starts_with("it is no JSON: "));
}

#[test]
fn texts_become_what_their_column_is_declared_to_be() {
    let types = [
        ("/n", ColumnType::Int64),
        ("/f", ColumnType::Float64),
        ("/b", ColumnType::Bool),
        ("/j", ColumnType::Json),
        ("/t", ColumnType::Text),
    ];
    let mut reader = reader("/id", &types, Accepts::Texts);
    let mut check = |[id, n, f, b, j, t]: [&str; 6], expected: Result<&str, &str>| {
        let json = serde_json::json!({"id": id, "n": n, "f": f, "b": b, "j": j, "t": t}).to_string();
        let found = row(&mut reader, &json);
        assert_eq!(found.as_ref().map(String::as_str).map_err(String::as_str), expected, "{json}");
    };
    check(["7", "42", "1.5", "true", " {\"x\": 1} ", "a"], Ok("7: 42 1.5 true {\"x\": 1} \"a\""));
    check(["7", "", "", "", "", ""], Ok("7: - - - - \"\""));
    check(["7", "1", "-1e3", "false", "null", "\""], Ok("7: 1 -1e3 false null \"\\\"\""));
    check(["", "1", "1", "true", "1", "a"], Err("its key /id is empty; a key is a text, a number or a boolean"));
    check(["7", "unknown", "1", "true", "1", "a"], Err("column /n: expected int64, found \"unknown\""));
    for (n, f, b, j) in [
        (" 1", "1", "true", "1"),
        ("1.0", "1", "true", "1"),
        ("null", "1", "true", "1"),
        ("9223372036854775808", "1", "true", "1"),
        ("1", "1e999", "true", "1"),
        ("1", "0x1", "true", "1"),
        ("1", "1", "yes", "1"),
        ("1", "1", "true", "{"),
        ("1", "1", "\"true\"", "1"),
    ] {
        let json = serde_json::json!({"id": "7", "n": n, "f": f, "b": b, "j": j, "t": ""}).to_string();
        assert!(row(&mut reader, &json).is_err_and(|why| why.starts_with("column /")), "{json}");
    }
    row(&mut reader, r#"{"id": "7", "n": "1"}"#).expect("readable");
    assert_eq!(reader.missing().collect::<Vec<_>>(), ["/f", "/b", "/j", "/t"]);
}

#[test]
fn numbers_and_texts_match_by_their_text() {
    let mut scratch = Vec::new();
    let mut text =
        |json: &str| key_text(json.as_bytes(), &mut scratch).map(|text| String::from_utf8_lossy(text).into_owned());
    assert_eq!(
        [text("1"), text("\"1\""), text("1.0"), text("true")],
        ["1", "1", "1.0", "true"].map(|t| Some(t.to_owned()))
    );
    assert_eq!(text(r#""\u0031\n""#).as_deref(), Some("1\n"));
    assert_eq!([text("null"), text("[1]"), text("{}"), text("")], [None, None, None, None]);
}
