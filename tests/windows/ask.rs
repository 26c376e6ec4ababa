//! What windows hold for a key is told while the stream runs, at one level and over two, and nobody else is told.

use serde_json::Value;

use millstream::record::Rows;

use crate::harness::broker::shared;
use crate::harness::http::{address, ask, await_some, get};
use crate::harness::process::{Millstream, folder};
use crate::harness::topics::{self, Filler};

const PORT: u16 = 19_804;

fn state(admin: std::net::SocketAddr, stage: &str, key: &str) -> Value {
    serde_json::from_str(&get(admin, &format!("/v1/state/{stage}?key={key}"))).expect("JSON")
}

/// The counts of the windows of an answer, by their begin in seconds after `base_s`.
fn counts(answer: &Value, base_s: i64) -> Vec<(i64, i64)> {
    let begin = |window: &Value| {
        let text = window["window_start"].as_str().expect("a time");
        millstream::config::rfc3339_ms(text).expect("RFC 3339") / 1_000 - base_s
    };
    let windows = answer["windows"].as_array().expect("windows");
    windows.iter().map(|window| (begin(window), window["row"]["n"].as_i64().expect("a count"))).collect()
}

#[test]
fn states_are_told_to_who_may_ask() {
    let brokers = shared(PORT);
    let base_s = 1_790_000_000;
    let name = format!("ask-{}", std::process::id());
    topics::make(&brokers, &[&format!("{name}-in")], 2);
    let folder = folder("windows-ask");
    let text = format!(
        "pipeline: {name}\ninstance: here\nworkers: 2\n\
         source: {{kafka: {{brokers: '{brokers}', topic: {name}-in, start: earliest}}}}\n\
         stages:\n  - name: users\n    window: {{time: {{field: /t, encoding: epoch_s}}, key: [/user, /country], session: 10m, \
         keyed_topic: true, forward: true, aggregate: {{n: count}}, output: main}}\n  \
         - name: countries\n    window: {{time: {{field: /t, encoding: epoch_s}}, key: [/country], \
         hopping: {{size: 20s, every: 10s}}, aggregate: {{n: count}}, output: main}}\n\
         outputs: {{main: {{discard: }}}}\ndead_letters: {{to: {{discard: }}}}\nobserve: off\n\
         admin: {{listen: '127.0.0.1:0'}}\n"
    );
    let file = folder.join("p.yaml");
    std::fs::write(&file, text).expect("a config file");
    let mut process = Millstream::start(&folder, "run", &["run", &file.to_string_lossy()]);
    let admin = address(&folder, "run", "admin");
    let mut rows = Rows::default();
    for (i, time_s) in [5, 12, 17, 6].into_iter().enumerate() {
        let text = format!("{{\"t\": {}, \"user\": {}, \"country\": \"Côte d'Ivoire\"}}", base_s + time_s, i % 2);
        rows.push(i as i64, -1, Some(b"same"), Some(text.as_bytes()));
    }
    Filler::new(&brokers, &format!("{name}-in")).send(rows);
    // The last record was late for the window that ends at 10 s where it came in, and is not in it where states are merged.
    let country = "C%C3%B4te%20d'Ivoire";
    let answer = await_some("merged windows", || {
        let ready = ask(admin, "GET", &format!("/v1/state/countries?key={country}"), &[], "");
        let answer: Value = serde_json::from_str(&ready.body).ok().filter(|_| ready.status == 200)?;
        (counts(&answer, base_s) == [(-10, 1), (0, 4), (10, 2)]).then_some(answer)
    });
    assert_eq!(answer["windows"][0]["open"], true, "nothing is heard of the other partition: {answer}");
    assert_eq!(answer["windows"][0]["topic"], format!("{name}-countries-partials"), "{answer}");
    assert_eq!((&answer["why"], &answer["more"]), (&Value::Null, &false.into()), "{answer}");
    let users = state(admin, "users", "[0,%22C%C3%B4te%20d'Ivoire%22]");
    assert_eq!(counts(&users, base_s), [(5, 2)], "{users}");
    assert_eq!(
        (&users["windows"][0]["row"]["user"], &users["windows"][0]["position"]),
        (&0.into(), &4.into()),
        "{users}"
    );
    let nobody = state(admin, "countries", "XX");
    assert!(nobody["why"].as_str().is_some_and(|why| why.contains("instance `here` holds no window")), "{nobody}");
    assert_eq!(nobody["partitions"].as_array().map(Vec::len), Some(2), "{nobody}");
    for (path, status) in [("nothing?key=a", 404), ("users?key=7", 400), ("users", 400), ("countries?key=%ff", 400)] {
        assert_eq!(ask(admin, "GET", &format!("/v1/state/{path}"), &[], "").status, status, "{path}");
    }
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["state", &format!("http://{admin}"), "countries", "Côte d'Ivoire"])
        .output()
        .expect("millstream runs");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("open") && said.contains("\"n\":4") && said.contains("looked in"), "{said}");
    assert!(process.is_running(), "{}", process.log());
    assert!(process.terminate().success());
}
