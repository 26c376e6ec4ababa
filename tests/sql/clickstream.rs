//! Clickstream: what is distinct stays distinct over blocks, and a late event is in each of its windows.

use std::collections::BTreeMap;

use millstream::config::ClickstreamConfig;
use millstream::source::write_clickstream;
use serde_json::{Value, json};

use super::{Place, shuffled};
use crate::reference::clickstream::{
    AVERAGES, DAILY_ACTIVE_USERS, DAY_S, SESSIONS, WINDOW_USERS, averages, daily_active_users,
};
use crate::reference::compare;

const RECORDS: usize = 20_000;
const BLOCK_ROWS: usize = 700;

/// Valid events of four days, each with what enriching adds.
fn events() -> Vec<Value> {
    let config = ClickstreamConfig::default();
    let mut events = Vec::new();
    for i in 0..RECORDS {
        let mut value = Vec::new();
        write_clickstream(&config, i as u64, &mut value);
        let mut event: Value = serde_json::from_slice(&value).expect("valid JSON");
        if event["user_id"].as_i64().is_some_and(|user| user < 0) {
            continue;
        }
        // Three days and a bit, in no order.
        event["timestamp"] = json!(config.start_time_s + (i as i64 * 7_919) % (3 * DAY_S + 1_000));
        event["region"] = json!("somewhere");
        event["schema_version"] = json!(2);
        event["is_mobile"] = json!(event["device_type"] == "mobile");
        event["_topic"] = json!("enriched_events");
        event["_partition"] = json!(0);
        event["_offset"] = json!(i);
        events.push(event);
    }
    events
}

/// Inserts all blocks in disorder; each third is retried at once, each fifth after all others.
fn insert_all(place: &Place, events: &[Value]) {
    let rows: Vec<String> = events.iter().map(Value::to_string).collect();
    let blocks: Vec<&[String]> = rows.chunks(BLOCK_ROWS).collect();
    let order = shuffled(blocks.len());
    let insert = |block: usize| place.insert("events", &format!("block {block}"), blocks[block]);
    for block in &order {
        insert(*block);
        if block % 3 == 0 {
            insert(*block);
        }
    }
    order.iter().filter(|block| *block % 5 == 0).for_each(|block| insert(*block));
}

#[test]
fn daily_active_users_and_averages_are_exact_over_blocks_retries_and_late_rows() {
    let place = Place::shipped("clickstream", "events_db");
    place.apply(&[]);
    place.sql("SYSTEM STOP MERGES $.daily_active_users_states");
    let events = events();
    insert_all(&place, &events);
    assert_eq!(place.sql("SELECT count() FROM $.events"), events.len().to_string());

    let expected = daily_active_users(&events);
    compare(DAILY_ACTIVE_USERS, &place.sql(DAILY_ACTIVE_USERS), &expected);
    let raw = "SELECT toInt32(toDate(timestamp)) AS day, country, uniqExact(user_id) FROM $.events \
               GROUP BY day, country ORDER BY day, country";
    compare(raw, &place.sql(raw), &expected);
    let sets = expected.lines().count().to_string();
    // The blocks are such that a count of each would be wrong.
    assert_ne!(place.sql("SELECT count() FROM $.daily_active_users_states"), sets);
    place.sql("SYSTEM START MERGES $.daily_active_users_states");
    place.sql("OPTIMIZE TABLE $.daily_active_users_states FINAL");
    assert_eq!(place.sql("SELECT count() FROM $.daily_active_users_states"), sets);
    compare(DAILY_ACTIVE_USERS, &place.sql(DAILY_ACTIVE_USERS), &expected);

    compare(AVERAGES, &place.sql(AVERAGES), &averages(&events));
}

#[test]
fn a_window_that_is_corrected_replaces_and_does_not_add() {
    let place = Place::shipped("clickstream", "events_db");
    place.apply(&[]);
    let row = |offset: u32, average: f64| {
        json!({"country": "US", "window_start": 1_700_000_000, "window_end": 1_700_000_300, "average_events": average,
               "_topic": "country_event_averages", "_partition": 0, "_offset": offset})
        .to_string()
    };
    place.insert("country_event_averages_raw", "late", &[row(9, 2.5)]);
    place.insert("country_event_averages_raw", "early", &[row(3, 1.5)]);
    assert_eq!(place.sql("SELECT average_events FROM $.country_event_averages_raw FINAL"), "2.5");
}

#[test]
fn a_day_is_what_its_newest_version_says_and_a_visit_ends_with_its_last_event() {
    let place = Place::shipped("clickstream", "events_db");
    place.apply(&[]);
    let day = |country: &str, version: u32, dau: u32, retracted: bool| {
        json!({"country": country, "window_start": "2023-11-14T00:00:00Z", "window_end": "2023-11-15T00:00:00Z", "dau": dau,
               "version": version, "retracted": retracted, "_topic": "t", "_partition": 0, "_offset": 1})
        .to_string()
    };
    place.insert("daily_active_users_raw", "late", &[day("US", 19, 3, false), day("UK", 7, 1, false)]);
    place.insert("daily_active_users_raw", "early", &[day("US", 4, 2, false), day("UK", 8, 1, true)]);
    assert_eq!(place.sql(WINDOW_USERS), format!("{}\tUS\t3", 1_699_920_000 / DAY_S));
    let visit = json!({"user_id": 7, "window_start": "2023-11-14T10:00:00Z", "window_end": "2023-11-14T10:40:00Z",
        "events": 5, "pages": 2, "_topic": "t", "_partition": 0, "_offset": 1});
    ["once", "again"].iter().for_each(|token| place.insert("user_sessions_raw", token, &[visit.to_string()]));
    assert_eq!(place.sql(SESSIONS), "7\t1699956000\t600\t5\t2");
}

#[test]
fn events_of_every_age_and_dead_letters_of_every_kind_fit_their_tables() {
    let place = Place::shipped("clickstream", "events_db");
    place.apply(&[]);
    let old = json!({"event_type": "page_view", "user_id": 1, "page_url": "/page/1",
        "button_id": "fdbda434-0693-463c-bd22-c38957205c67", "timestamp": 1_700_000_000, "country": "US",
        "device_type": null, "region": "americas", "schema_version": 2, "_topic": "t", "_partition": 0, "_offset": 1});
    place.insert("events", "old", &[old.to_string()]);
    assert_eq!(
        place.sql("SELECT device_type, is_mobile, toString(timestamp) FROM $.events"),
        "\\N\t\\N\t2023-11-14 22:13:20"
    );
    let bare = json!({"reason": "not JSON", "code": "invalid_json", "pipeline": "clickstream", "topic": "my_events",
        "partition": 3, "offset": 5, "_topic": "dlq", "_partition": 0, "_offset": 1});
    place.insert("dlq_table", "bare", &[bare.to_string()]);
    let seen = "SELECT value, key, stage, plugin, timestamp, loaded_at > now() - 60 FROM $.dlq_table";
    assert_eq!(place.sql(seen), "\\N\t\\N\t\\N\t\\N\t\\N\t1");
}

/// What Grafana's data source makes of its macros, for the whole of the events' time.
fn expanded(sql: &str) -> String {
    let (from, to) = ("toDateTime(1699990000)", "toDateTime(1999990000)");
    let mut sql = sql.replace("$__fromTime", from).replace("$__toTime", to);
    for (macro_name, form) in [
        ("$__timeFilter(", format!("COLUMN >= {from} AND COLUMN <= {to}")),
        ("$__timeInterval(", "toStartOfInterval(toDateTime(COLUMN), INTERVAL 60 second)".to_owned()),
    ] {
        while let Some(start) = sql.find(macro_name) {
            let end = start + sql[start..].find(')').expect("its end");
            let column = sql[start + macro_name.len()..end].to_owned();
            sql.replace_range(start..=end, &form.replace("COLUMN", &column));
        }
    }
    assert!(!sql.contains("$__"), "{sql}");
    sql
}

#[test]
fn every_query_of_the_dashboard_has_an_answer() {
    let place = Place::shipped("clickstream", "events_db");
    place.apply(&[]);
    let events = events();
    insert_all(&place, &events[..5_000]);
    // Other figures than those that the events give, so that the panel shows where its own come from.
    place.sql(
        "INSERT INTO $.country_event_averages_raw (country, window_start, window_end, average_events) \
         SELECT country, window_start, window_end, average_events + 1 FROM $.country_event_averages",
    );
    let letter = json!({"reason": "not JSON", "code": "invalid_json", "pipeline": "clickstream", "topic": "my_events",
        "partition": 3, "offset": 5, "_topic": "dlq", "_partition": 0, "_offset": 1});
    place.insert("dlq_table", "letter", &[letter.to_string()]);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/grafana/clickstream.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("text")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert_eq!(panels.len(), 10);
    let mut answers = BTreeMap::new();
    for panel in panels {
        let sql = panel["targets"][0]["rawSql"].as_str().expect("SQL").replace("events_db.", "$.");
        let answer = place.sql(&expanded(&sql));
        assert!(!answer.is_empty() && answer != "0", "{panel}");
        answers.insert(panel["title"].as_str().expect("a title"), answer);
    }
    assert_eq!(answers["Top 5 pages"].lines().count(), 5);
    assert_eq!(answers["Event types"].lines().count(), 2);
    // The rolling average is that of the windows.
    let averages =
        "SELECT window_end AS time, country, average_events FROM $.country_event_averages_raw ORDER BY time, country";
    assert_eq!(answers["Rolling average per country"], place.sql(averages));
}
