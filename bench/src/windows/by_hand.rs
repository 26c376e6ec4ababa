//! Windows of one partition as one would count them by hand: hash maps, serde, and a list of what changed for the changelog.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{DISORDER_S, GAP_S, SIZE_S, Workload};
use crate::logic::rfc3339;

/// What is needed of a record.
#[derive(Deserialize)]
struct ByCountry<'a> {
    country: &'a str,
    timestamp: i64,
}

#[derive(Deserialize)]
struct ByUser {
    user_id: i64,
    timestamp: i64,
}

/// The row of a window that has closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Closed<'a> {
    /// Whose clicks: a country's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<&'a str>,
    /// Whose clicks: a user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<i64>,
    window_start: String,
    window_end: String,
    events: u64,
}

impl Closed<'_> {
    fn new((start_s, end_s): (i64, i64), events: u64) -> Self {
        let (window_start, window_end) = (rfc3339(start_s), rfc3339(end_s));
        Self { country: None, user_id: None, window_start, window_end, events }
    }
}

/// What the changelog has to say of a key: its state, or none where that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The state.
    pub value: Option<&'a [u8]>,
}

/// A count that the changelog may have to hear of.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    events: u64,
    /// It is in the list of what changed since the last commit.
    changed: bool,
    /// The changelog knows the key.
    logged: bool,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    start_s: i64,
    last_s: i64,
    events: u64,
}

#[derive(Debug, Default)]
struct User {
    /// Open sessions by time: one, but for those whom a gap and a click out of order gave two.
    sessions: Vec<Session>,
    changed: bool,
    logged: bool,
}

#[derive(Debug)]
enum Open {
    /// By start and country.
    Tumbling { windows: BTreeMap<i64, HashMap<String, Count>>, changed: Vec<(i64, String)> },
    /// By user; and when to look at whom, because a session may be over then.
    Session { users: HashMap<i64, User>, due: BTreeSet<(i64, i64)>, changed: Vec<i64> },
}

/// The windows of one partition.
#[derive(Debug)]
pub struct ByHand {
    open: Open,
    highest_s: i64,
    late: u64,
}

impl ByHand {
    /// No windows yet.
    pub fn new(workload: Workload) -> Self {
        let open = match workload {
            Workload::Tumbling => Open::Tumbling { windows: BTreeMap::new(), changed: Vec::new() },
            Workload::Session => Open::Session { users: HashMap::new(), due: BTreeSet::new(), changed: Vec::new() },
        };
        Self { open, highest_s: i64::MIN / 2, late: 0 }
    }

    /// How many records came too late for their window.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Counts a record, and closes what its time closes.
    pub fn fold(&mut self, record: &[u8], close: &mut impl FnMut(Closed<'_>) -> Result<()>) -> Result<()> {
        let watermark_s = self.highest_s - DISORDER_S;
        let (timestamp_s, counted) = match &mut self.open {
            Open::Tumbling { windows, changed } => {
                let ByCountry { country, timestamp } = serde_json::from_slice(record).context("a record")?;
                (timestamp, count(windows, changed, (country, timestamp), watermark_s))
            }
            Open::Session { users, due, changed } => {
                let ByUser { user_id, timestamp } = serde_json::from_slice(record).context("a record")?;
                let user = users.entry(user_id).or_default();
                let mut look_at = |at| {
                    due.insert((at, user_id));
                };
                let counted = extend(user, timestamp, watermark_s, &mut look_at);
                if counted && !user.changed {
                    user.changed = true;
                    changed.push(user_id);
                }
                if user.sessions.is_empty() && !user.changed {
                    users.remove(&user_id);
                }
                (timestamp, counted)
            }
        };
        self.late += u64::from(!counted);
        if timestamp_s <= self.highest_s {
            return Ok(());
        }
        self.highest_s = timestamp_s;
        self.open.close(timestamp_s - DISORDER_S, close)
    }

    /// Tells what changed since this was asked last.
    pub fn changes(&mut self, tell: &mut impl FnMut(Change<'_>) -> Result<()>) -> Result<()> {
        match &mut self.open {
            Open::Tumbling { windows, changed } => {
                for (start_s, country) in changed.drain(..) {
                    let key = [&start_s.to_be_bytes(), country.as_bytes()].concat();
                    let open = windows.get_mut(&start_s).and_then(|window| window.get_mut(&country));
                    let events = open.map(|count| {
                        (count.changed, count.logged) = (false, true);
                        count.events.to_be_bytes()
                    });
                    tell(Change { key: &key, value: events.as_ref().map(|events| &events[..]) })?;
                }
            }
            Open::Session { users, changed, .. } => {
                let mut value = Vec::new();
                for id in changed.drain(..) {
                    let Some(user) = users.get_mut(&id) else { continue };
                    value.clear();
                    for session in &user.sessions {
                        let numbers = [session.start_s, session.last_s, session.events as i64];
                        value.extend(numbers.into_iter().flat_map(i64::to_be_bytes));
                    }
                    let (over, logged) = (user.sessions.is_empty(), user.logged);
                    (user.changed, user.logged) = (false, true);
                    if !over || logged {
                        tell(Change { key: &id.to_be_bytes(), value: (!over).then_some(&value[..]) })?;
                    }
                    if over {
                        users.remove(&id);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Adds one to a window's count; false where the window is closed.
fn count(
    windows: &mut BTreeMap<i64, HashMap<String, Count>>,
    changed: &mut Vec<(i64, String)>,
    (country, timestamp_s): (&str, i64),
    watermark_s: i64,
) -> bool {
    let start_s = timestamp_s - timestamp_s.rem_euclid(SIZE_S);
    if start_s + SIZE_S <= watermark_s {
        return false;
    }
    let window = windows.entry(start_s).or_default();
    if !window.contains_key(country) {
        window.insert(country.to_owned(), Count::default());
    }
    if let Some(count) = window.get_mut(country) {
        count.events += 1;
        if !std::mem::replace(&mut count.changed, true) {
            changed.push((start_s, country.to_owned()));
        }
    }
    true
}

/// Adds a click to a user's sessions, and joins those that it lies between; false where its session would be closed.
fn extend(user: &mut User, time_s: i64, watermark_s: i64, look_at: &mut impl FnMut(i64)) -> bool {
    let mut joined = Session { start_s: time_s, last_s: time_s, events: 1 };
    let mut known_due = false;
    user.sessions.retain(|session| {
        let near = session.start_s - GAP_S <= time_s && time_s <= session.last_s + GAP_S;
        if near {
            joined.start_s = joined.start_s.min(session.start_s);
            joined.last_s = joined.last_s.max(session.last_s);
            joined.events += session.events;
            // It is looked at when it would have been over, and then again.
            known_due = true;
        }
        !near
    });
    if joined.last_s + GAP_S <= watermark_s {
        return false;
    }
    if !known_due {
        look_at(joined.last_s + GAP_S);
    }
    let at = user.sessions.partition_point(|session| session.start_s < joined.start_s);
    user.sessions.insert(at, joined);
    true
}

impl Open {
    /// Closes what ends by `watermark_s`.
    fn close(&mut self, watermark_s: i64, close: &mut impl FnMut(Closed<'_>) -> Result<()>) -> Result<()> {
        match self {
            Self::Tumbling { windows, changed } => {
                while let Some(window) = windows.first_entry().filter(|first| first.key() + SIZE_S <= watermark_s) {
                    let (start_s, counts) = window.remove_entry();
                    for (country, count) in counts {
                        let row = Closed::new((start_s, start_s + SIZE_S), count.events);
                        close(Closed { country: Some(&country), ..row })?;
                        if count.logged && !count.changed {
                            changed.push((start_s, country));
                        }
                    }
                }
            }
            Self::Session { users, due, changed } => {
                while let Some(&(at, id)) = due.first().filter(|first| first.0 <= watermark_s) {
                    due.remove(&(at, id));
                    let Some(user) = users.get_mut(&id) else { continue };
                    let over = user.sessions.partition_point(|session| session.last_s + GAP_S <= watermark_s);
                    for Session { start_s, last_s, events } in user.sessions.drain(..over) {
                        close(Closed { user_id: Some(id), ..Closed::new((start_s, last_s + GAP_S), events) })?;
                    }
                    for session in &user.sessions {
                        due.insert((session.last_s + GAP_S, id));
                    }
                    if over > 0 && !user.changed {
                        user.changed = true;
                        changed.push(id);
                    }
                }
            }
        }
        Ok(())
    }
}
