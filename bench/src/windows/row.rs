//! The row that says what a window held, as every contender writes it, and how it is read back.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::{Counts, Workload};

/// A closed window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Whose clicks.
    pub key: String,
    /// When it began.
    pub start_s: i64,
    /// When it ended; a session does so as long after its last click as nothing may follow.
    pub end_s: i64,
    /// How many there were.
    pub events: u64,
}

/// What there is in a row beside its key.
#[derive(Deserialize)]
struct Times {
    window_start: String,
    window_end: String,
    events: u64,
}

impl Row {
    /// Reads what a contender wrote.
    pub fn read(workload: Workload, text: &[u8]) -> Result<Self> {
        let row: Value = serde_json::from_slice(text).context("a row is no JSON")?;
        let times = Times::deserialize(&row).with_context(|| format!("not a window's row: {row}"))?;
        let key = match &row[workload.field()] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let seconds = |text: &str| epoch_s(text).with_context(|| format!("no time in UTC: {text:?}"));
        let (start_s, end_s) = (seconds(&times.window_start)?, seconds(&times.window_end)?);
        Ok(Self { key, start_s, end_s, events: times.events })
    }
}

/// Takes a row out of what has to come; one that was not to come, or comes again, is an error.
pub fn take(expected: &mut Counts, row: &Row) -> Result<()> {
    let known = expected.remove(&(row.key.clone(), row.start_s));
    ensure!(known == Some(row.events), "{row:?} is not among what has to come, which is {known:?}");
    Ok(())
}

/// Seconds since 1970 of `2023-11-14T22:13:20Z`, with or without a fraction, which is left out.
fn epoch_s(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, at: char| -> Option<[i64; 3]> {
        let parsed: Option<Vec<i64>> = text.split(at).map(|part| part.parse().ok()).collect();
        parsed?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time.split('.').next()?, ':')?;
    // Years begin in March here, so that the leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let day = days + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(day * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::rfc3339;

    #[test]
    fn times_are_read_as_they_are_written() {
        for seconds in [0, 951_782_399, 951_782_400, 1_709_251_199, 1_709_251_200, 1_700_000_000, -1] {
            assert_eq!(epoch_s(&rfc3339(seconds)), Some(seconds));
        }
        assert_eq!(epoch_s("1970-01-01T00:01:00.5Z"), Some(60));
        assert_eq!(epoch_s("1970-01-01"), None);
    }
}
