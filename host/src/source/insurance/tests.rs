//! The files are as their table says, and the faults in them as many as asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn files(config: &InsuranceConfig) -> (Vec<u8>, Vec<u8>, InsuranceCounts, InsuranceCounts) {
    let made = Insurance::new(config.clone());
    let (mut users, mut events) = (Vec::new(), Vec::new());
    let user_counts = made.write_users(&mut users).expect("memory takes it");
    let event_counts = made.write_events(&mut events).expect("memory takes it");
    (users, events, user_counts, event_counts)
}

fn faultless() -> InsuranceConfig {
    InsuranceConfig {
        duplicates_per_million: 0,
        late_per_million: 0,
        malformed_per_million: 0,
        ..InsuranceConfig::default()
    }
}

/// The rows of a file without quoted fields, below its header.
fn rows(file: &[u8]) -> Vec<Vec<String>> {
    let text = std::str::from_utf8(file).expect("UTF-8");
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// Good rows have a whole id, a user's number, a known type, a premium that is empty or a number, a time of 24 letters.
fn is_good(row: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(row) else { return false };
    let fields: Vec<&str> = text.split(',').collect();
    let [event, user, session, kind, channel, premium, time] = fields[..] else { return false };
    event.len() == 36
        && user.parse::<u16>().is_ok()
        && session.len() == 36
        && EVENT_TYPES.contains(&kind)
        && CHANNELS.contains(&channel)
        && (premium.is_empty() || premium.parse::<u32>().is_ok())
        && time.len() == 24
        && !time.starts_with("2024-13")
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let config = InsuranceConfig { users: 200, events: 2_000, ..InsuranceConfig::default() };
    let (users, events, ..) = files(&config);
    let (again_users, again_events, ..) = files(&config);
    assert!(users == again_users && events == again_events);
    let (_, other, ..) = files(&InsuranceConfig { seed: 2, ..config });
    assert_ne!(events, other);
    // The bytes themselves are a promise: golden files are made of them.
    let first = |file: &[u8]| String::from_utf8_lossy(file).lines().nth(1).map(str::to_owned).expect("a row");
    assert_eq!(first(&users), "1,69,female,Düsseldorf,mobile,2023-01-19T21:59:23.002Z");
    assert_eq!(
        first(&events),
        concat!(
            "018cc252-21b2-71a9-bc46-1fb1db26076a,20,8ff75d0c-43ea-47c1-92e4-8267b379e745,",
            "signup,direct,,2024-01-01T00:00:11.698Z"
        )
    );
}

#[test]
fn good_rows_are_as_many_as_asked_for_each_with_an_id_of_its_own() {
    let config = InsuranceConfig::default();
    let (users, events, user_counts, event_counts) = files(&config);
    let good: Vec<&[u8]> = events.split(|byte| *byte == b'\n').skip(1).filter(|row| is_good(row)).collect();
    let ids: BTreeSet<&[u8]> = good.iter().map(|row| &row[..36]).collect();
    assert_eq!((ids.len(), event_counts.good), (20_000, 20_000));
    assert_eq!(good.len() as u64, event_counts.good + event_counts.duplicates);
    let all = events.iter().filter(|byte| **byte == b'\n').count() as u64 - 1;
    assert_eq!(all, event_counts.good + event_counts.duplicates + event_counts.malformed);
    let all = users.iter().filter(|byte| **byte == b'\n').count() as u64 - 1;
    assert_eq!(all, 5_000 + user_counts.duplicates + user_counts.malformed);
}

#[test]
fn shares_are_as_told() {
    let (.., counts) = files(&InsuranceConfig::default());
    let near = |count: u64, expected: u64| (expected * 8 / 10..=expected * 12 / 10).contains(&count);
    assert!(near(counts.duplicates, 400) && near(counts.late, 1_000) && near(counts.malformed, 100), "{counts:?}");
    let none = files(&faultless()).3;
    assert_eq!(none, InsuranceCounts { good: 20_000, ..InsuranceCounts::default() });
    let config = InsuranceConfig { malformed_per_million: 1_000_000, events: 1_000, ..faultless() };
    let (_, events, _, counts) = files(&config);
    let bad = events.split(|byte| *byte == b'\n').skip(1).filter(|row| !row.is_empty() && !is_good(row)).count();
    assert_eq!((counts.malformed, bad), (1_000, 1_000), "no malformed row is a good one by chance");
}

#[test]
fn late_rows_are_out_of_order_and_the_others_are_not() {
    let out_of_order = |config: &InsuranceConfig| {
        let (_, events, ..) = files(config);
        let mut newest = String::new();
        let mut count = 0;
        for row in rows(&events) {
            count += u64::from(row[6] < newest);
            newest = newest.max(row[6].clone());
        }
        count
    };
    assert_eq!(out_of_order(&faultless()), 0);
    let config = InsuranceConfig { late_per_million: 50_000, ..faultless() };
    assert!((700..=1_100).contains(&out_of_order(&config)), "{}", out_of_order(&config));
}

#[test]
fn sessions_are_one_users_by_one_channel_and_end_with_their_purchase() {
    let config = InsuranceConfig { unknown_users_per_million: 20_000, ..faultless() };
    let (users, events, ..) = files(&config);
    let mut sessions: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for row in rows(&events) {
        sessions.entry(row[2].clone()).or_default().push(row);
    }
    assert!((2_500..=3_700).contains(&sessions.len()), "{} sessions", sessions.len());
    let (mut purchases, mut unknown) = (0, 0);
    let mut ends: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
    let millis = |row: &[String]| crate::config::rfc3339_ms(&row[6]).expect("a time");
    for events in sessions.values() {
        assert!(events.iter().all(|row| row[1] == events[0][1] && row[4] == events[0][4]));
        for (at, row) in events.iter().enumerate() {
            assert_eq!(row[3] == "purchase", !row[5].is_empty(), "{row:?}");
            assert!(row[3] != "purchase" || at + 1 == events.len());
            purchases += u32::from(row[3] == "purchase");
        }
        let user: u32 = events[0][1].parse().expect("a number");
        unknown += u32::from(user > 5_000);
        ends.entry(&events[0][1]).or_default().push((millis(&events[0]), millis(&events[events.len() - 1])));
    }
    assert!(purchases > 300 && unknown > 20, "{purchases} {unknown}");
    for user in ends.values_mut() {
        user.sort_unstable();
        assert!(user.windows(2).all(|pair| pair[1].0 - pair[0].1 > 30 * 60_000), "{user:?}");
    }
    // A user registers before anything else, or by it.
    let text = String::from_utf8(users).expect("UTF-8");
    for line in text.lines().skip(1) {
        let (id, registered) = (line.split(',').next().expect("an id"), line.rsplit(',').next().expect("a time"));
        let registered = crate::config::rfc3339_ms(registered).expect("a time");
        assert!(ends.get(id).is_none_or(|sessions| registered <= sessions[0].0), "user {id}");
    }
}

#[test]
fn odd_sizes_are_taken() {
    for (users, events) in [(0, 0), (0, 10), (1, 50), (u16::MAX, 10), (10, 1)] {
        let (.., counts) = files(&InsuranceConfig { users, events, ..InsuranceConfig::default() });
        assert_eq!(counts.good, u64::from(events), "{users} users");
    }
}
