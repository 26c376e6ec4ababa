//! Insurance: users and events as the files have them, and every view.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use millstream::config::rfc3339_ms;

/// A day.
pub(crate) const DAY_MS: i64 = 86_400_000;
/// The silence that a session bears.
pub(crate) const HALF_HOUR_MS: i64 = 30 * 60_000;

/// An event that is good.
#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) user: u16,
    pub(crate) session: String,
    pub(crate) kind: String,
    pub(crate) channel: String,
    pub(crate) premium: u32,
    pub(crate) time_ms: i64,
}

/// A user that is good.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) id: u16,
    pub(crate) age: u8,
    pub(crate) gender: String,
    pub(crate) city: String,
    pub(crate) device: String,
    pub(crate) registered_ms: i64,
}

/// The fields of a CSV line, of which some are quoted.
pub(crate) fn fields(line: &str) -> Vec<String> {
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

/// A good row of the users' file.
pub(crate) fn user(row: &[String]) -> User {
    User {
        id: row[0].parse().expect("an id"),
        age: row[1].parse().expect("an age"),
        gender: row[2].clone(),
        city: row[3].clone(),
        device: row[4].clone(),
        registered_ms: rfc3339_ms(&row[5]).expect("a time"),
    }
}

/// A good row of the events' file.
pub(crate) fn event(row: &[String]) -> Event {
    Event {
        id: row[0].clone(),
        user: row[1].parse().expect("an id"),
        session: row[2].clone(),
        kind: row[3].clone(),
        channel: row[4].clone(),
        premium: if row[5].is_empty() { 0 } else { row[5].parse().expect("a premium") },
        time_ms: rfc3339_ms(&row[6]).expect("a time"),
    }
}

/// The last of each id.
pub(crate) fn distinct(events: &[Event]) -> Vec<Event> {
    let last: BTreeMap<&str, &Event> = events.iter().map(|event| (event.id.as_str(), event)).collect();
    last.into_values().cloned().collect()
}

/// The events with their users.
pub(crate) fn joined(users: &[User], events: &[Event]) -> String {
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

/// Asks for the events with their users.
pub(crate) const JOINED: &str = "SELECT toString(event_id) AS id, user_id, toString(session_id), event_type, channel, premium_amount, \
    toUnixTimestamp64Milli(event_time), age, gender, city, device_type, toUnixTimestamp64Milli(registered_at) \
    FROM $.processed_events_storage FINAL ORDER BY id";

/// The last row of each user.
pub(crate) fn last(users: &[User]) -> String {
    let users: BTreeMap<u16, &User> = users.iter().map(|user| (user.id, user)).collect();
    let line = |user: &&User| {
        let User { id, age, gender, city, device, registered_ms } = user;
        format!("{id}\t{age}\t{gender}\t{city}\t{device}\t{registered_ms}\n")
    };
    users.values().map(line).collect()
}

/// Asks for the users.
pub(crate) const USERS: &str = "SELECT user_id, age, gender, city, device_type, toUnixTimestamp64Milli(registered_at) \
    FROM $.users FINAL ORDER BY user_id";

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

/// What each session came to; each event once.
pub(crate) fn sessions(events: &[Event]) -> String {
    let mut sessions: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    events.iter().for_each(|event| sessions.entry(&event.session).or_default().push(event));
    let mut out = String::new();
    for (session, mut events) in sessions {
        events.sort_by_key(|event| (event.time_ms, event.id.clone()));
        let mut windows: Vec<Vec<&Event>> = Vec::new();
        for event in events {
            match windows.last_mut() {
                Some(last) if event.time_ms - last[last.len() - 1].time_ms < HALF_HOUR_MS => last.push(event),
                _ => windows.push(vec![event]),
            }
        }
        for window in windows {
            let (first, last) = (window[0], window[window.len() - 1]);
            let kinds: Vec<&str> = window.iter().map(|event| event.kind.as_str()).collect();
            let _ = writeln!(
                out,
                "{session}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
                first.user,
                first.time_ms,
                last.time_ms,
                last.time_ms - first.time_ms,
                window.len(),
                kinds.join(","),
                first.channel,
                u8::from(kinds.contains(&"purchase")),
            );
        }
    }
    out
}

/// Asks for the sessions.
pub(crate) const SESSIONS: &str = "SELECT toString(session_id) AS id, user_id, \
    toUnixTimestamp64Milli(session_start), toUnixTimestamp64Milli(session_end), round(duration_s * 1000), events, \
    arrayStringConcat(event_sequence, ','), first_touch, toUInt8(has_purchase) \
    FROM $.session_metrics ORDER BY id, session_start";

/// The question for each view and table, with `$` for the database, and its answer for these users and events, the last of
/// each id.
pub(crate) fn views(users: &[User], distinct: &[Event]) -> [(&'static str, String); 4] {
    [
        (USERS, last(users)),
        (JOINED, joined(users, distinct)),
        (PER_TYPE, per_type(distinct)),
        (PER_DAY, per_day(distinct)),
    ]
}

/// The share that the events' table takes of one with naive types, which is made beside it; printed. `sql` asks the server,
/// with `$` for the database.
pub(crate) fn storage_share(sql: impl Fn(&str) -> String) -> f64 {
    sql("OPTIMIZE TABLE $.processed_events_storage FINAL");
    sql("CREATE TABLE $.naive (event_id String, user_id Nullable(Int64), session_id String, event_type String, \
         channel String, premium_amount Nullable(Float64), event_time String, age Nullable(Int64), gender String, \
         city String, device_type String, registered_at String) ENGINE = MergeTree ORDER BY event_id");
    sql("INSERT INTO $.naive SELECT toString(event_id), user_id, toString(session_id), event_type, channel, \
         nullIf(premium_amount, 0), toString(event_time), nullIf(age, 0), gender, city, device_type, \
         toString(registered_at) FROM $.processed_events_storage FINAL");
    sql("OPTIMIZE TABLE $.naive FINAL");
    let size = |table: &str, what: &str| -> f64 {
        let parts = "FROM system.parts WHERE active AND database = '$' AND table = ";
        sql(&format!("SELECT sum({what}) {parts}'{table}'")).parse().expect("a number")
    };
    let bytes = "data_compressed_bytes + secondary_indices_compressed_bytes";
    let (ours, naive) = (size("processed_events_storage", bytes), size("naive", bytes));
    let raw = size("processed_events_storage", "data_uncompressed_bytes") / size("naive", "data_uncompressed_bytes");
    eprintln!(
        "events take {ours} bytes of the {naive} of naive types ({:.0} %), {:.0} % before compression",
        ours / naive * 100.0,
        raw * 100.0
    );
    ours / naive
}
