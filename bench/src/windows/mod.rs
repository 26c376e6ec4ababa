//! The windows that are measured: what goes in, what has to come out, and how one would count by hand.

mod by_hand;
mod input;
mod row;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use anyhow::{Result, bail};

pub use by_hand::{ByHand, Change, Closed};
pub use input::{Click, Clicks, closing, closing_s};
pub use row::{Row, take};

/// How long a tumbling window is.
pub const SIZE_S: i64 = 300;
/// A session ends where nothing follows for so long.
pub const GAP_S: i64 = 1_800;
/// How far a record may be behind the newest of its partition.
pub const DISORDER_S: i64 = 10;
/// Partitions of every topic.
pub const PARTITIONS: i32 = 4;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Clicks per country in windows of five minutes.
    Tumbling,
    /// Clicks per user in sessions that half an hour of silence ends.
    Session,
}

impl Workload {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tumbling, Self::Session];

    /// Its name in tables, topics and arguments.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tumbling => "tumbling",
            Self::Session => "session",
        }
    }

    /// The field that is grouped by; it is the record's key as well.
    pub fn field(self) -> &'static str {
        match self {
            Self::Tumbling => "country",
            Self::Session => "user_id",
        }
    }

    /// The key of a click.
    pub fn key(self, click: &Click) -> String {
        match self {
            Self::Tumbling => click.country.to_owned(),
            Self::Session => click.user.to_string(),
        }
    }
}

impl FromStr for Workload {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tumbling" => Ok(Self::Tumbling),
            "session" => Ok(Self::Session),
            other => bail!("there is no workload {other:?}: it is tumbling or session"),
        }
    }
}

/// Final counts by key and the window's start: every window that there is, for the closing records end them all.
pub type Counts = BTreeMap<(String, i64), u64>;

/// What has to come out, by the plainest way to it: all clicks of a key, sorted by time and cut.
pub fn expected(workload: Workload, clicks: impl Iterator<Item = Click>) -> Counts {
    let mut times: HashMap<String, Vec<i64>> = HashMap::new();
    for click in clicks {
        times.entry(workload.key(&click)).or_default().push(click.timestamp_s);
    }
    let mut counts = Counts::new();
    for (key, mut times) in times {
        times.sort_unstable();
        let mut before: Option<(i64, i64)> = None;
        for time in times {
            let start = match (workload, before) {
                (Workload::Tumbling, _) => time - time.rem_euclid(SIZE_S),
                (Workload::Session, Some((start, last))) if time - last <= GAP_S => start,
                (Workload::Session, _) => time,
            };
            before = Some((start, time));
            *counts.entry((key.clone(), start)).or_default() += 1;
        }
    }
    counts
}
