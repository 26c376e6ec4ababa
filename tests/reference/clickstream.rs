//! Clickstream: which records are events and which are dead letters, daily active users, and rolling averages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

/// A day.
pub(crate) const DAY_S: i64 = 86_400;

/// What becomes of a record: an event with all that enriching adds, or the code under which it is rejected.
pub(crate) fn event(record: &[u8]) -> Result<Value, &'static str> {
    let mut event: Value = serde_json::from_slice(record).map_err(|_| "invalid_json")?;
    if event["user_id"].as_i64().is_some_and(|user| user < 0) {
        return Err("negative_user_id");
    }
    let region = match event["country"].as_str() {
        Some("XX" | "ZZ") => return Err("blocked_country"),
        Some("US" | "CA") => "americas",
        Some("UK" | "DE" | "FR") => "europe",
        _ => "asia",
    };
    event["region"] = json!(region);
    event["schema_version"] = json!(2);
    event["is_mobile"] = event["device_type"].as_str().map_or(Value::Null, |device| json!(device == "mobile"));
    Ok(event)
}

/// Asks for all events, one line each, in the order of these lines.
pub(crate) const EVENTS: &str = "SELECT toString(button_id) AS id, event_type, user_id, page_url, \
    toUnixTimestamp(timestamp), country, device_type, region, is_mobile, schema_version FROM $.events \
    ORDER BY id, user_id";

/// Each event as a line.
pub(crate) fn rows(events: &[Value]) -> String {
    let text = |value: &Value| match value {
        Value::Null => "\\N".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let names = "button_id event_type user_id page_url timestamp country device_type region is_mobile schema_version";
    let line = |event: &Value| names.split(' ').map(|name| text(&event[name])).collect::<Vec<_>>().join("\t") + "\n";
    let mut lines: Vec<String> = events.iter().map(line).collect();
    lines.sort_unstable();
    lines.concat()
}

/// Asks for the users of each day and country.
pub(crate) const DAILY_ACTIVE_USERS: &str =
    "SELECT toInt32(event_date) AS day, country, dau FROM $.daily_active_users_final ORDER BY day, country";

/// Distinct users of each day and country.
pub(crate) fn daily_active_users(events: &[Value]) -> String {
    let mut users: BTreeMap<(i64, &str), BTreeSet<i64>> = BTreeMap::new();
    for event in events {
        let (time, country) = time_and_country(event);
        users.entry((time / DAY_S, country)).or_default().insert(event["user_id"].as_i64().expect("an id"));
    }
    let mut expected = String::new();
    for ((day, country), users) in &users {
        let _ = writeln!(expected, "{day}\t{country}\t{}", users.len());
    }
    expected
}

/// Asks for the rolling averages that are computed from the events when they are asked for.
pub(crate) const AVERAGES: &str = "SELECT country, toUnixTimestamp(window_start) AS start, \
    toUnixTimestamp(window_end), average_events FROM $.country_event_averages ORDER BY country, start";

/// Events a minute of each country, over windows of five minutes that move on by one.
pub(crate) fn averages(events: &[Value]) -> String {
    let mut windows: BTreeMap<(&str, i64), u32> = BTreeMap::new();
    for event in events {
        let (time, country) = time_and_country(event);
        (0..5).for_each(|back| *windows.entry((country, time / 60 * 60 - back * 60)).or_default() += 1);
    }
    let mut expected = String::new();
    for ((country, start), count) in &windows {
        let _ = writeln!(expected, "{country}\t{start}\t{}\t{}", start + 300, f64::from(*count) / 5.0);
    }
    expected
}

/// Asks for the rolling averages that windows made, all rows that there are.
pub(crate) const WINDOW_AVERAGES: &str = "SELECT country, toUnixTimestamp(window_start) AS start, \
    toUnixTimestamp(window_end), average_events FROM $.country_event_averages_raw ORDER BY country, start";

/// Asks for the users of each day and country that windows made.
pub(crate) const WINDOW_USERS: &str =
    "SELECT toInt32(event_date) AS day, country, dau FROM $.daily_active_users_windows ORDER BY day, country";

/// Asks for visits.
pub(crate) const SESSIONS: &str = "SELECT user_id, toUnixTimestamp(started_at) AS start, duration_s, events, pages \
    FROM $.user_sessions ORDER BY user_id, start";

/// A user's visit is over when nothing comes for so long.
const GAP_S: i64 = 1_800;

/// Each user's visits: when they began, how long they were, how many events and different pages they have.
pub(crate) fn sessions(events: &[Value]) -> String {
    let mut users: BTreeMap<i64, Vec<(i64, &str)>> = BTreeMap::new();
    for event in events {
        let (time, _) = time_and_country(event);
        let page = event["page_url"].as_str().expect("text");
        users.entry(event["user_id"].as_i64().expect("an id")).or_default().push((time, page));
    }
    let mut expected = String::new();
    for (user, mut events) in users {
        events.sort_unstable();
        for visit in events.chunk_by(|one, other| other.0 - one.0 < GAP_S) {
            let (start, pages) = (visit[0].0, visit.iter().map(|event| event.1).collect::<BTreeSet<_>>().len());
            let duration = visit[visit.len() - 1].0 - start;
            let _ = writeln!(expected, "{user}\t{start}\t{duration}\t{}\t{pages}", visit.len());
        }
    }
    expected
}

fn time_and_country(event: &Value) -> (i64, &str) {
    (event["timestamp"].as_i64().expect("a time"), event["country"].as_str().expect("text"))
}
