//! That the input is what it says, and that counting by hand gives what the plainest computation does.

use std::collections::{BTreeMap, HashSet};

use super::*;

/// The partition of a click: any, so long as all of a key are in one.
fn partition(workload: Workload, click: &Click) -> usize {
    let number = match workload {
        Workload::Tumbling => click.country.len() + usize::from(click.country.as_bytes()[0]),
        Workload::Session => click.user as usize,
    };
    number % PARTITIONS as usize
}

type Log = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

/// Brings the changelog of a partition up to date.
fn tell(windows: &mut ByHand, at: usize, log: &mut Log) {
    let mut tell = |change: Change<'_>| {
        let key = (at, change.key.to_vec());
        match change.value {
            Some(value) => drop(log.insert(key, value.to_vec())),
            None => drop(log.remove(&key)),
        }
        Ok(())
    };
    windows.changes(&mut tell).expect("changes");
}

/// The rows that counting by hand gives, with the changelog told after every so many records; and what that then holds.
fn by_hand(workload: Workload, seed: u64, records: usize, tell_every: usize) -> (Vec<Row>, Log) {
    let mut partitions: Vec<_> = (0..PARTITIONS).map(|_| ByHand::new(workload)).collect();
    let (mut rows, mut log, mut record) = (Vec::new(), Log::new(), Vec::new());
    let mut fold = |windows: &mut ByHand, record: &[u8]| {
        let mut close = |closed: Closed<'_>| {
            rows.push(Row::read(workload, &serde_json::to_vec(&closed)?)?);
            Ok(())
        };
        windows.fold(record, &mut close).expect("a record");
        assert_eq!(windows.late(), 0);
    };
    let mut clicks = Clicks::new(seed);
    for number in 0..records {
        let click = clicks.next().expect("they do not end");
        clicks.record(&click, &mut record);
        let at = partition(workload, &click);
        fold(&mut partitions[at], &record);
        if number % tell_every == 0 {
            tell(&mut partitions[at], at, &mut log);
        }
    }
    let closing_s = closing_s(Clicks::new(seed).take(records));
    for (at, windows) in partitions.iter_mut().enumerate() {
        closing(workload, at as i32, closing_s, &mut record);
        fold(windows, &record);
        tell(windows, at, &mut log);
    }
    (rows, log)
}

#[test]
fn counting_by_hand_gives_what_the_plainest_computation_gives_and_leaves_no_state_behind() {
    for (workload, windows) in [(Workload::Tumbling, 16 * 4), (Workload::Session, 50_000)] {
        for tell_every in [1, 1_000] {
            let mut expected = expected(workload, Clicks::new(7).take(120_000));
            assert!(expected.len() > windows, "{} windows", expected.len());
            let (rows, log) = by_hand(workload, 7, 120_000, tell_every);
            rows.iter().for_each(|row| take(&mut expected, row).expect("an expected row"));
            assert!(expected.is_empty(), "{} windows did not come", expected.len());
            // The closing records' own windows are open.
            assert_eq!(log.len(), PARTITIONS as usize);
        }
    }
}

#[test]
fn clicks_are_the_same_for_a_seed_and_say_what_they_count() {
    let (mut one, mut other, mut record) = (Clicks::new(1), Clicks::new(1), Vec::new());
    for _ in 0..1_000 {
        let click = one.next().expect("they do not end");
        one.record(&click, &mut record);
        assert_eq!(other.next(), Some(click));
        let said: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
        assert_eq!(
            (said["user_id"].as_u64(), said["country"].as_str()),
            (Some(click.user.into()), Some(click.country))
        );
        assert_eq!(said["timestamp"].as_i64(), Some(click.timestamp_s));
    }
}

#[test]
fn there_is_a_user_for_every_other_click_and_disorder_stays_within_its_bound() {
    let (mut users, mut highest, mut disordered) = (HashSet::new(), 0, 0);
    for click in Clicks::new(3).take(400_000) {
        users.insert(click.user);
        assert!(highest - click.timestamp_s < DISORDER_S);
        disordered += usize::from(click.timestamp_s < highest);
        highest = highest.max(click.timestamp_s);
    }
    assert!((200_000..=250_000).contains(&users.len()), "{} users", users.len());
    assert!(disordered > 100_000, "{disordered} clicks out of order");
}

#[test]
fn a_row_that_was_not_to_come_is_found() {
    let row = Row { key: "US".to_owned(), start_s: 0, end_s: 300, events: 2 };
    let counts = |events| Counts::from([(("US".to_owned(), 0), events)]);
    take(&mut counts(2), &row).expect("it was to come");
    take(&mut counts(1), &row).expect_err("another count");
    take(&mut Counts::new(), &row).expect_err("it came before");
}
