//! Rule K7: tables of which each process has the partitions that it reads of the source, and no others.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millstream::record::Rows;
use serde_json::{Value, json};

use crate::harness::broker::shared;
use crate::harness::http::{address, get, value};
use crate::harness::process::Millstream;
use crate::harness::topics::{self, Filler};
use crate::line::{Folder, millstream};

const PORT: u16 = 19_820;
const PARTITIONS: i32 = 6;
const USERS: u64 = 3_000;

struct Shop {
    brokers: String,
    name: String,
    folder: Folder,
}

impl Shop {
    fn new(name: &str, of_table: i32) -> Self {
        let (brokers, folder) = (shared(PORT), Folder::new(name));
        let name = format!("{name}-{}", std::process::id());
        let of = |part: &str| format!("{name}-{part}");
        topics::make(&brokers, &[&of("in"), &of("out"), &of("dead")], PARTITIONS);
        topics::make_with(&brokers, &[&of("users")], of_table, &[("cleanup.policy", "compact")]);
        Self { brokers, name, folder }
    }

    fn config(&self, instance: &str) -> PathBuf {
        let Self { brokers, name, .. } = self;
        let text = format!(
            "pipeline: {name}\ninstance: '{instance}'\n\
             source: {{kafka: {{brokers: '{brokers}', topic: {name}-in, start: earliest, properties: {{session.timeout.ms: 3000}}}}}}\n\
             tables: {{users: {{kafka: {{topic: {name}-users, key: record, copy: partition}}}}}}\n\
             stages: [{{name: add, join: {{table: users, on: /user, columns: {{city: /city}}, no_match: reject}}}}]\n\
             outputs: {{main: {{kafka: {{topic: {name}-out, key: /user}}}}}}\n\
             dead_letters: {{to: {{kafka: {{topic: {name}-dead}}}}}}\nobserve: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\nworkers: 2\n"
        );
        self.folder.write(&format!("{instance}.yaml"), text)
    }

    fn start(&self, instance: &str, run: &str) -> Millstream {
        Millstream::start(&self.folder.0, run, &["run", &self.config(instance).to_string_lossy()])
    }

    fn rows(&self, run: &str) -> f64 {
        let text = get(address(&self.folder.0, run, "observe"), "/metrics");
        value(&text, "millstream_lookup_table_rows", &["table=\"users\""]).unwrap_or_default()
    }

    fn send(&self, part: &str, of: impl Iterator<Item = (u64, Value)>) {
        let mut rows = Rows::default();
        of.for_each(|(user, row)| {
            let row = (!row.is_null()).then(|| row.to_string());
            rows.push(0, -1, Some(user.to_string().as_bytes()), row.as_ref().map(String::as_bytes));
        });
        Filler::new(&self.brokers, &format!("{}-{part}", self.name)).send(rows);
    }

    fn orders(&self, from: u64) {
        self.send(
            "in",
            (from..from + USERS).map(|number| (number % USERS, json!({"user": number % USERS, "n": number}))),
        );
    }

    fn written(&self) -> i64 {
        topics::count(&topics::read(&self.brokers, &format!("{}-out", self.name), true)) as i64
    }
}

fn city(user: u64) -> Value {
    json!({"city": format!("city of {user}")})
}

#[test]
fn each_process_has_the_rows_of_its_partitions_and_gets_those_of_a_dead_one() {
    let shop = Shop::new("joins-parts", PARTITIONS);
    // A row that was deleted is nowhere, also where its partition is read anew.
    shop.send(
        "users",
        (0..USERS).map(|user| (user, city(user))).chain([(USERS + 1, city(0)), (USERS + 1, Value::Null)]),
    );
    shop.orders(0);
    let (mut one, mut two) = (shop.start("one", "one"), shop.start("two", "two"));
    one.await_that("the first orders", || shop.written() == USERS as i64);
    let all = USERS as f64;
    two.await_that("that both have a part", || {
        let (first, second) = (shop.rows("one"), shop.rows("two"));
        first + second == all && first > 0.0 && second > 0.0
    });
    two.kill();
    // While nobody has those partitions, a user moves.
    shop.send("users", [(7, json!({"city": "Graz"}))].into_iter());
    shop.orders(USERS);
    one.await_that("the orders of the dead one's partitions", || shop.written() == 2 * USERS as i64);
    assert_eq!(shop.rows("one"), all);
    let mut two = shop.start("two", "again");
    two.await_that("that what is not needed is forgotten", || {
        let (first, second) = (shop.rows("one"), shop.rows("again"));
        first + second == all && first > 0.0 && second > 0.0
    });
    shop.orders(2 * USERS);
    one.await_that("the last orders", || shop.written() == 3 * USERS as i64);
    assert!(one.terminate().success() && two.terminate().success());

    assert_eq!(topics::written(&shop.brokers, &format!("{}-dead", shop.name)), 0, "every order waits for its user");
    let mut found: BTreeMap<u64, Value> = BTreeMap::new();
    for value in
        topics::read(&shop.brokers, &format!("{}-out", shop.name), true).iter().flat_map(|rows| rows.values.iter())
    {
        let row: Value = serde_json::from_slice(value.expect("a value")).expect("JSON");
        let twice = found.insert(row["n"].as_u64().expect("a number"), row["city"].clone());
        assert_eq!(twice, None, "{row}");
    }
    for (number, found) in found {
        let (user, moved) = (number % USERS, json!("Graz"));
        let good = found == city(user)["city"] || user == 7 && number >= USERS && found == moved;
        assert!(good, "{number}: {found}");
    }
}

#[test]
fn topics_of_different_size_do_not_go_together() {
    let shop = Shop::new("joins-uneven", PARTITIONS - 1);
    let config = shop.config("one");
    let why = "has 5 partitions, and the source's topic ";
    let (code, said) = millstream(&["validate", "--connect", &config.to_string_lossy()], None);
    assert!(code != 0 && said.contains(why) && said.contains("leave `copy` out for a full copy"), "{said}");
    let (code, said) = millstream(&["run", &config.to_string_lossy()], None);
    assert!(code != 0 && said.contains(why), "{said}");
}
