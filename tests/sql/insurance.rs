//! Insurance: every view against what plain code makes of the same files, with copies in other blocks, retries, disorder,
//! and sessions that fall silent.

use std::collections::BTreeMap;

use millstream::source::{Insurance, InsuranceConfig};
use serde_json::json;

use super::{Place, shuffled};
use crate::reference::compare;
use crate::reference::insurance::{
    DAY_MS, Event, HALF_HOUR_MS, User, distinct, event, fields, storage_share, user, views,
};

const BLOCK_ROWS: usize = 900;

/// Both files' good rows, copies among them, as they come.
fn files() -> (Vec<User>, Vec<Event>) {
    let made = Insurance::new(InsuranceConfig {
        malformed_per_million: 0,
        duplicates_per_million: 100_000,
        late_per_million: 200_000,
        unknown_users_per_million: 20_000,
        ..InsuranceConfig::default()
    });
    let (mut users, mut events) = (Vec::new(), Vec::new());
    made.write_users(&mut users).expect("memory takes it");
    made.write_events(&mut events).expect("memory takes it");
    let lines = |file: Vec<u8>| String::from_utf8(file).expect("UTF-8").lines().skip(1).map(fields).collect::<Vec<_>>();
    (lines(users).iter().map(|row| user(row)).collect(), lines(events).iter().map(|row| event(row)).collect())
}

/// What files of this kind don't have: silence within a session, a corrected copy, a copy at another time, a changed user.
fn add_hard_ones(users: &mut Vec<User>, events: &mut Vec<Event>) {
    let first = events[0].clone();
    let silences = [0, HALF_HOUR_MS, HALF_HOUR_MS + 1, 60_000, 2 * HALF_HOUR_MS];
    let mut time_ms = first.time_ms + DAY_MS - HALF_HOUR_MS;
    for (at, silence) in silences.into_iter().enumerate() {
        time_ms += silence;
        events.push(Event {
            id: format!("018cc252-21b2-71a9-bc46-00000000000{at}"),
            session: "8ff75d0c-43ea-47c1-92e4-8267b379e700".to_owned(),
            channel: if at == 3 { "email".to_owned() } else { "social".to_owned() },
            kind: if at == 1 { "purchase".to_owned() } else { "search".to_owned() },
            premium: if at == 1 { 700 } else { 0 },
            time_ms,
            ..first.clone()
        });
    }
    for at in (0..events.len()).step_by(97) {
        let copy = Event { channel: "corrected".to_owned(), time_ms: events[at].time_ms + 1_000, ..events[at].clone() };
        events.push(copy);
    }
    let active = users.iter().find(|user| user.id == first.user).expect("the first event's user is known");
    users.push(User { city: "Graz".to_owned(), ..active.clone() });
    // An id of another version than 7 is as good.
    events.push(Event { id: "8ff75d0c-43ea-47c1-92e4-8267b379e745".to_owned(), ..first });
}

/// Inserts rows with their offsets in blocks, which come in disorder; some are retried, some come again as other blocks.
fn insert_all(place: &Place, table: &str, rows: Vec<serde_json::Value>) {
    let with_offset = rows.into_iter().enumerate().map(|(offset, mut row)| {
        row["_topic"] = json!(table);
        row["_partition"] = json!(0);
        row["_offset"] = json!(offset);
        row.to_string()
    });
    let rows: Vec<String> = with_offset.collect();
    let blocks: Vec<&[String]> = rows.chunks(BLOCK_ROWS).collect();
    for block in shuffled(blocks.len()) {
        place.insert(table, &format!("{block}"), blocks[block]);
        if block % 3 == 0 {
            place.insert(table, &format!("{block}"), blocks[block]);
        }
        if block % 4 == 0 {
            place.insert(table, &format!("{block} again"), blocks[block]);
        }
    }
}

fn insert_users(place: &Place, users: &[User]) {
    let row = |user: &User| {
        json!({"user_id": user.id, "age": user.age, "gender": user.gender, "city": user.city,
               "device_type": user.device, "registered_at": seconds(user.registered_ms)})
    };
    insert_all(place, "users", users.iter().map(row).collect());
}

/// Inserts events as the pipeline leaves them: with what the last row of their users says.
fn insert_events(place: &Place, users: &[User], events: &[Event]) {
    let users: BTreeMap<u16, &User> = users.iter().map(|user| (user.id, user)).collect();
    let row = |event: &Event| {
        let mut row = json!({"event_id": event.id, "user_id": event.user, "session_id": event.session,
               "event_type": event.kind, "channel": event.channel, "premium_amount": event.premium,
               "event_time": seconds(event.time_ms)});
        if let Some(user) = users.get(&event.user) {
            row["age"] = json!(user.age);
            row["gender"] = json!(user.gender);
            row["city"] = json!(user.city);
            row["device_type"] = json!(user.device);
            row["registered_at"] = json!(seconds(user.registered_ms));
        }
        row
    };
    insert_all(place, "processed_events_storage", events.iter().map(row).collect());
}

/// A time as the server reads it from a text.
fn seconds(time_ms: i64) -> String {
    format!("{}.{:03}", time_ms.div_euclid(1_000), time_ms.rem_euclid(1_000))
}

#[test]
fn every_view_is_right_under_copies_retries_and_disorder() {
    let place = Place::shipped("insurance", "insurance_analytics");
    place.apply(&[]);
    let (mut users, mut events) = files();
    add_hard_ones(&mut users, &mut events);
    let distinct = distinct(&events);
    // Under other offsets than before, as after a second load of the file.
    insert_users(&place, &users[..1_000]);
    let all: Vec<User> = users[..1_000].iter().chain(&users).cloned().collect();
    place.sql("TRUNCATE TABLE $.users");
    insert_users(&place, &all);
    insert_events(&place, &all, &events);
    let expected = views(&all, &distinct);
    expected.iter().for_each(|(sql, expected)| compare(sql, &place.sql(sql), expected));
    assert!(expected[1].1.contains("\tGraz\t"));
    // Copies are really there until they are merged, and the views say the same when they are.
    assert!(place.sql("SELECT count() > uniqExact(event_id) FROM $.processed_events_storage") == "1");
    place.sql("OPTIMIZE TABLE $.processed_events_storage FINAL");
    place.sql("OPTIMIZE TABLE $.users FINAL");
    assert_eq!(place.sql("SELECT count() FROM $.processed_events_storage"), distinct.len().to_string());
    expected.iter().for_each(|(sql, expected)| compare(sql, &place.sql(sql), expected));
}

#[test]
fn events_take_less_than_half_of_what_naive_types_take() {
    let place = Place::shipped("insurance", "insurance_analytics");
    place.apply(&[]);
    let (users, events) = files();
    insert_events(&place, &users, &events);
    let share = storage_share(|sql| place.sql(sql));
    assert!(share < 0.6, "{share}");
}
