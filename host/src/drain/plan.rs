//! What is committed with the offset of a block's first record before the block is sent: enough for whoever comes next to
//! make the same block again, or to know that it can't.

use serde::{Deserialize, Serialize};

/// How plans are written.
pub(super) const PLAN_VERSION: u32 = 1;
/// Bytes of a plan as it is committed: the group's metadata holds 4,096, and other keys may come.
pub(super) const PLAN_BYTES_MAX: usize = 3_000;
/// What a plan takes beside the offsets that are set aside, with room to spare.
const FRAME_BYTES: usize = 500;
/// Bytes that the offsets set aside may take.
pub(super) const ASIDE_BYTES_MAX: usize = PLAN_BYTES_MAX - FRAME_BYTES;

/// A block that is about to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// How it is written; a version that does not know it must leave the block to one that does.
    #[serde(rename = "plan")]
    pub(super) version: u32,
    /// The offset of its last record, set aside or not; the first is the one that the plan is committed with.
    pub(super) last: i64,
    /// Rows that are sent.
    pub(super) rows: u64,
    /// A checksum of these rows, encoded.
    pub(super) sum: String,
    /// The beginning of the token under which they are sent.
    pub(super) token: String,
    /// Offsets that are set aside, see [`Aside`].
    pub(super) aside: String,
    /// When this was planned, in milliseconds since 1970 UTC.
    pub(super) at_ms: u64,
    /// A count of the blocks that the table and those behind it had taken at that time or before.
    pub(super) blocks: u64,
}

impl Plan {
    /// The plan as it is committed.
    pub(super) fn text(&self) -> String {
        // Strings and numbers always become JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The offsets that are set aside; `None` where they make no sense.
    pub(super) fn aside(&self, first: i64) -> Option<Vec<i64>> {
        Aside::read(&self.aside, first, self.last)
    }
}

/// What was committed with an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// No plan.
    None,
    /// A plan that may have been carried out.
    Plan(Plan),
    /// A plan that only another version understands.
    Foreign,
}

impl Promise {
    /// Reads what was committed.
    pub(super) fn read(text: &str) -> Self {
        match serde_json::from_str::<serde_json::Value>(text) {
            Ok(value) if value.get("plan").is_some() => match serde_json::from_value::<Plan>(value) {
                Ok(plan) if plan.version == PLAN_VERSION => Self::Plan(plan),
                _ => Self::Foreign,
            },
            _ => Self::None,
        }
    }
}

/// Rising offsets as text: the distance to the one before (or to the block's first), with `*n` for `n` in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Aside {
    text: String,
    /// The first of the last run, as its distance to the run before, and its length.
    run: Option<(i64, u64)>,
    /// After the last offset.
    next: i64,
}

impl Aside {
    /// No offset yet, of a block that begins at `first`.
    pub(super) fn new(first: i64) -> Self {
        Self { next: first, ..Self::default() }
    }

    /// Appends an offset that is larger than all before.
    pub(super) fn push(&mut self, offset: i64) {
        match &mut self.run {
            Some((_, length)) if offset == self.next => *length += 1,
            run => {
                let before = run.replace((offset - self.next, 1));
                write_run(&mut self.text, before);
            }
        }
        self.next = offset + 1;
    }

    /// Bytes of the text, at most.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + 44
    }

    /// The text.
    pub(super) fn text(&self) -> String {
        let mut text = self.text.clone();
        write_run(&mut text, self.run);
        text
    }

    fn read(text: &str, first: i64, last: i64) -> Option<Vec<i64>> {
        let (mut offsets, mut next) = (Vec::new(), first);
        for run in text.split(',').filter(|run| !run.is_empty()) {
            let (distance, length) = run.split_once('*').unwrap_or((run, "1"));
            let (distance, length): (i64, i64) = (distance.parse().ok()?, length.parse().ok()?);
            let start = next.checked_add(distance).filter(|start| distance >= 0 && *start <= last)?;
            next = start.checked_add(length).filter(|next| length > 0 && *next <= last + 1)?;
            offsets.extend(start..next);
        }
        Some(offsets)
    }
}

fn write_run(text: &mut String, run: Option<(i64, u64)>) {
    let Some((distance, length)) = run else { return };
    if !text.is_empty() {
        text.push(',');
    }
    *text += &distance.to_string();
    if length > 1 {
        *text += &format!("*{length}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Chance;

    #[test]
    fn offsets_set_aside_come_back() {
        let mut chance = Chance::new(7);
        for _ in 0..1_000 {
            let first = chance.below(1 << 40) as i64;
            let (mut aside, mut offsets, mut at) = (Aside::new(first), Vec::new(), first);
            for _ in 0..chance.below(50) {
                at += if chance.happens(500) { 0 } else { chance.below(1_000) as i64 };
                aside.push(at);
                offsets.push(at);
                at += 1;
            }
            let text = aside.text();
            assert!(text.len() <= aside.bytes());
            assert_eq!(Aside::read(&text, first, at), Some(offsets), "{text}");
        }
    }

    #[test]
    fn broken_offsets_are_none() {
        for text in ["x", "-1", "1*", "1*0", "5*7", "9223372036854775807", "1*9223372036854775807"] {
            assert_eq!(Aside::read(text, 10, 20), None, "{text}");
        }
        assert_eq!(Aside::read("", 10, 20), Some(Vec::new()));
    }

    #[test]
    fn a_full_plan_fits_the_groups_metadata() {
        let digits = "9".repeat(ASIDE_BYTES_MAX);
        let hex = "f".repeat(32);
        let plan = Plan {
            version: PLAN_VERSION,
            last: i64::MAX,
            rows: u64::MAX,
            sum: hex.clone(),
            token: hex,
            aside: digits,
            at_ms: u64::MAX,
            blocks: u64::MAX,
        };
        assert!(plan.text().len() <= PLAN_BYTES_MAX, "{}", plan.text().len());
        assert_eq!(Promise::read(&plan.text()), Promise::Plan(plan.clone()));
        assert_eq!(Promise::read("{\"since\":1,\"plugins\":{}}"), Promise::None);
        assert_eq!(Promise::read(""), Promise::None);
        let later = Plan { version: PLAN_VERSION + 1, ..plan };
        assert_eq!(Promise::read(&later.text()), Promise::Foreign);
    }
}
