//! Insurance: every view against what plain code makes of the same files, with copies in other blocks, retries, disorder,
//! late users, and sessions that fall silent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use millstream::config::rfc3339_ms;
use millstream::source::{Insurance, InsuranceConfig};
use serde_json::json;

use super::{Place, shuffled};

const BLOCK_ROWS: usize = 900;
const DAY_MS: i64 = 86_400_000;
const HALF_HOUR_MS: i64 = 30 * 60_000;

#[derive(Clone)]
struct Event {
    id: String,
    user: u16,
    session: String,
    kind: String,
    channel: String,
    premium: u32,
    time_ms: i64,
}

#[derive(Clone)]
struct User {
    id: u16,
    age: u8,
    gender: String,
    city: String,
    device: String,
    registered_ms: i64,
}

/// The fields of a CSV line, of which some are quoted.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().expect("one").push(c),
        }
    }
    fields
}

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
    let user = |row: &Vec<String>| User {
        id: row[0].parse().expect("an id"),
        age: row[1].parse().expect("an age"),
        gender: row[2].clone(),
        city: row[3].clone(),
        device: row[4].clone(),
        registered_ms: rfc3339_ms(&row[5]).expect("a time"),
    };
    let event = |row: &Vec<String>| Event {
        id: row[0].clone(),
        user: row[1].parse().expect("an id"),
        session: row[2].clone(),
        kind: row[3].clone(),
        channel: row[4].clone(),
        premium: if row[5].is_empty() { 0 } else { row[5].parse().expect("a premium") },
        time_ms: rfc3339_ms(&row[6]).expect("a time"),
    };
    (lines(users).iter().map(user).collect(), lines(events).iter().map(event).collect())
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

fn insert_events(place: &Place, events: &[Event]) {
    let row = |event: &Event| {
        json!({"event_id": event.id, "user_id": event.user, "session_id": event.session, "event_type": event.kind,
               "channel": event.channel, "premium_amount": event.premium, "event_time": seconds(event.time_ms)})
    };
    insert_all(place, "processed_events", events.iter().map(row).collect());
}

/// A time as the server reads it from a text.
fn seconds(time_ms: i64) -> String {
    format!("{}.{:03}", time_ms.div_euclid(1_000), time_ms.rem_euclid(1_000))
}

/// The last of each id.
fn distinct(events: &[Event]) -> Vec<Event> {
    let last: BTreeMap<&str, &Event> = events.iter().map(|event| (event.id.as_str(), event)).collect();
    last.into_values().cloned().collect()
}

fn joined(users: &[User], events: &[Event]) -> String {
    let users: BTreeMap<u16, &User> = users.iter().map(|user| (user.id, user)).collect();
    let mut out = String::new();
    for event in events {
        let Event { id, user, session, kind, channel, premium, time_ms } = event;
        let _ = write!(out, "{id}\t{user}\t{session}\t{kind}\t{channel}\t{premium}\t{time_ms}\t");
        let _ = match users.get(user) {
            Some(User { age, gender, city, device, registered_ms, .. }) => {
                writeln!(out, "{age}\t{gender}\t{city}\t{device}\t{registered_ms}")
            }
            None => writeln!(out, "0\t\t\t\t0"),
        };
    }
    out
}

const JOINED: &str = "SELECT toString(event_id) AS id, user_id, toString(session_id), event_type, channel, premium_amount, \
    toUnixTimestamp64Milli(event_time), age, gender, city, device_type, toUnixTimestamp64Milli(registered_at) \
    FROM $.processed_events_storage ORDER BY id";

#[derive(Default)]
struct Day<'a> {
    events: u32,
    users: BTreeSet<u16>,
    sessions: BTreeSet<&'a str>,
    purchases: u32,
    premium: u64,
}

impl<'a> Day<'a> {
    fn add(&mut self, event: &'a Event) {
        self.events += 1;
        self.users.insert(event.user);
        self.sessions.insert(&event.session);
        self.purchases += u32::from(event.kind == "purchase");
        self.premium += u64::from(event.premium);
    }
}

fn per_type(events: &[Event]) -> String {
    let mut days: BTreeMap<(i64, &str), Day<'_>> = BTreeMap::new();
    events.iter().for_each(|event| days.entry((event.time_ms / DAY_MS, &event.kind)).or_default().add(event));
    let line = |((date, kind), day): (&(i64, &str), &Day<'_>)| {
        format!("{date}\t{kind}\t{}\t{}\t{}\t{}\n", day.events, day.users.len(), day.sessions.len(), day.premium)
    };
    days.iter().map(line).collect()
}

const PER_TYPE: &str = "SELECT toInt32(event_date) AS day, event_type, events, unique_users, sessions, premium_amount \
    FROM $.daily_event_metrics ORDER BY day, event_type";

fn per_day(events: &[Event]) -> String {
    let mut days: BTreeMap<i64, Day<'_>> = BTreeMap::new();
    events.iter().for_each(|event| days.entry(event.time_ms / DAY_MS).or_default().add(event));
    let line = |(date, day): (&i64, &Day<'_>)| {
        let Day { events, purchases, premium, .. } = day;
        format!("{date}\t{events}\t{}\t{}\t{purchases}\t{premium}\n", day.users.len(), day.sessions.len())
    };
    days.iter().map(line).collect()
}

const PER_DAY: &str = "SELECT toInt32(event_date) AS day, events, unique_users, sessions, purchases, revenue \
    FROM $.daily_aggregate_metrics ORDER BY day";

fn per_session(events: &[Event]) -> String {
    let mut sessions: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    events.iter().for_each(|event| sessions.entry(&event.session).or_default().push(event));
    let mut out = String::new();
    for (session, mut events) in sessions {
        events.sort_by_key(|event| (event.time_ms, event.id.clone()));
        let mut windows: Vec<Vec<&Event>> = Vec::new();
        for event in events {
            match windows.last_mut() {
                Some(last) if event.time_ms - last[last.len() - 1].time_ms <= HALF_HOUR_MS => last.push(event),
                _ => windows.push(vec![event]),
            }
        }
        for (number, window) in windows.iter().enumerate() {
            let (first, last) = (window[0], window[window.len() - 1]);
            let kinds: Vec<&str> = window.iter().map(|event| event.kind.as_str()).collect();
            let (bought, revenue) =
                (kinds.contains(&"purchase"), window.iter().map(|event| event.premium).sum::<u32>());
            let _ = writeln!(
                out,
                "{session}\t{number}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{revenue}",
                first.user,
                first.time_ms,
                last.time_ms,
                last.time_ms - first.time_ms,
                window.len(),
                kinds.join(","),
                first.channel,
                u8::from(bought),
            );
        }
    }
    out
}

const PER_SESSION: &str = "SELECT toString(session_id) AS id, window_number, user_id, \
    toUnixTimestamp64Milli(session_start), toUnixTimestamp64Milli(session_end), round(duration_s * 1000), events, \
    arrayStringConcat(event_sequence, ','), first_touch, toUInt8(has_purchase), revenue \
    FROM $.session_metrics ORDER BY id, window_number";

#[track_caller]
fn compare(place: &Place, sql: &str, expected: &str) {
    let found = place.sql(sql);
    let (found, expected): (Vec<&str>, Vec<&str>) = (found.lines().collect(), expected.lines().collect());
    let first = found.iter().zip(&expected).find(|(found, expected)| found != expected);
    assert_eq!((first, found.len()), (None, expected.len()), "{sql}");
    assert!(expected.len() >= 10, "{sql}");
}

#[test]
fn every_view_is_right_under_copies_retries_disorder_and_late_users() {
    let place = Place::shipped("insurance", "insurance_analytics");
    place.apply(&[]);
    let (mut users, mut events) = files();
    add_hard_ones(&mut users, &mut events);
    let distinct = distinct(&events);
    // Most users come after their events.
    insert_users(&place, &users[..1_000]);
    insert_events(&place, &events);
    compare(&place, JOINED, &joined(&users[..1_000], &distinct));
    // Under other offsets than before, as after a second load of the file.
    let all: Vec<User> = users[..1_000].iter().chain(&users).cloned().collect();
    place.sql("TRUNCATE TABLE $.users");
    insert_users(&place, &all);
    let expected = [
        (JOINED, joined(&all, &distinct)),
        (PER_TYPE, per_type(&distinct)),
        (PER_DAY, per_day(&distinct)),
        (PER_SESSION, per_session(&distinct)),
    ];
    expected.iter().for_each(|(sql, expected)| compare(&place, sql, expected));
    assert!(expected[0].1.contains("\tGraz\t") && expected[3].1.contains("8267b379e700\t2\t"));
    // Copies are really there until they are merged, and the views say the same when they are.
    assert!(place.sql("SELECT count() > uniqExact(event_id) FROM $.processed_events") == "1");
    place.sql("OPTIMIZE TABLE $.processed_events FINAL");
    place.sql("OPTIMIZE TABLE $.users FINAL");
    assert_eq!(place.sql("SELECT count() FROM $.processed_events"), distinct.len().to_string());
    expected.iter().for_each(|(sql, expected)| compare(&place, sql, expected));
}

#[test]
fn events_take_less_than_half_of_what_naive_types_take() {
    let place = Place::shipped("insurance", "insurance_analytics");
    place.apply(&[]);
    let (_, events) = files();
    insert_events(&place, &events);
    place.sql("OPTIMIZE TABLE $.processed_events FINAL");
    place.sql(
        "CREATE TABLE $.naive (event_id String, user_id Nullable(Int64), session_id String, event_type String, \
         channel String, premium_amount Nullable(Float64), event_time String) ENGINE = MergeTree ORDER BY event_id",
    );
    place.sql(
        "INSERT INTO $.naive SELECT toString(event_id), user_id, toString(session_id), event_type, channel, \
         nullIf(premium_amount, 0), toString(event_time) FROM $.processed_events FINAL",
    );
    place.sql("OPTIMIZE TABLE $.naive FINAL");
    let size = |table: &str, what: &str| -> f64 {
        let parts = "FROM system.parts WHERE active AND database = '$' AND table = ";
        place.sql(&format!("SELECT sum({what}) {parts}'{table}'")).parse().expect("a number")
    };
    let bytes = "data_compressed_bytes + secondary_indices_compressed_bytes";
    let (ours, naive) = (size("processed_events", bytes), size("naive", bytes));
    let raw = size("processed_events", "data_uncompressed_bytes") / size("naive", "data_uncompressed_bytes");
    eprintln!("{ours} bytes of {naive} ({:.0} %), {:.0} % before compression", ours / naive * 100.0, raw * 100.0);
    assert!(ours < naive * 0.6, "{ours} of {naive}");
}
