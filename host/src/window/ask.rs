//! What a stage holds for one key, for whoever asks. Nothing is changed, and the work is bounded.

use std::collections::BTreeSet;

use super::fixed::merge_all;
use super::halves::halves;
use super::plan::Role;
use super::rows::{self, Due};
use super::session::Sessions;
use super::spec::{Ends, Kind};
use super::stage::WindowStage;
use crate::plugin::StageError;
use crate::state::Entry;

/// The most windows of an answer, and of one whose rows a plugin makes.
const WINDOWS_MAX: usize = 100;
const PLUGIN_WINDOWS_MAX: usize = 10;
/// The most entries that are looked for, and about how many states are merged.
const LOOKS_MAX: usize = 100_000;
const MERGES_MAX: usize = 1_000;

/// A window of a key, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldWindow {
    /// Where it begins, in microseconds since 1970 UTC.
    pub start_us: i64,
    /// Where it ends, as far as is known.
    pub end_us: i64,
    /// False where its row was emitted, and is corrected if a late record comes.
    pub open: bool,
    /// Bytes of its state.
    pub state_bytes: usize,
    /// The row as it would be emitted now, or why it can't be made.
    pub row: Result<Vec<u8>, String>,
}

/// What a stage holds for one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Its windows, the oldest first.
    pub windows: Vec<HeldWindow>,
    /// True where there are more.
    pub more: bool,
}

/// The keys of groups that a text may mean, where so many fields make a key: one field's text as it is, or a JSON array of
/// several. `7` may be a number or a text. Empty where it can be none.
pub fn keys_of(text: &str, fields: usize) -> Vec<Vec<u8>> {
    let scalar = |value: &serde_json::Value| {
        let is_scalar = !value.is_object() && !value.is_array();
        is_scalar.then(|| value.to_string().into_bytes())
    };
    let parsed = serde_json::from_str::<serde_json::Value>(text).ok();
    let mut keys = Vec::new();
    if let Some(values) = parsed.as_ref().and_then(|value| value.as_array()).filter(|values| values.len() == fields) {
        let values: Option<Vec<Vec<u8>>> = values.iter().map(scalar).collect();
        keys.extend(values.map(|values| rows::key_of(&values)));
    }
    match fields {
        0 if text.is_empty() => keys.push(Vec::new()),
        1 => {
            // As it stands: a number's text is its key, and `1.0` is not `1`.
            let number = parsed.as_ref().is_some_and(|value| value.is_number());
            keys.extend(number.then(|| rows::key_of(&[text.trim().as_bytes().to_vec()])));
            keys.extend(parsed.as_ref().and_then(scalar).map(|value| rows::key_of(&[value])));
            keys.extend(scalar(&text.into()).map(|value| rows::key_of(&[value])));
        }
        _ => {}
    }
    let mut seen = BTreeSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    keys
}

impl WindowStage {
    /// The windows that it holds for a key, as of a partition's next offset.
    pub fn ask(&mut self, key: &[u8], position: i64) -> Result<Held, StageError> {
        let mut due = Due::default();
        let gathered = match self.plan.spec.kind {
            Kind::Fixed { size_us, every_us, offset_us, .. } => {
                self.ask_fixed(key, (size_us, every_us, offset_us), &mut due)
            }
            Kind::Session { gap_us } => Ok(self.ask_sessions(key, gap_us, &mut due)),
            // Nothing but when its records came.
            Kind::Duplicates { .. } => Ok(false),
            Kind::Pairs { within_us } => return Ok(self.ask_halves(key, within_us)),
        };
        let held = gathered.and_then(|more| self.held(&due, position, more));
        // A plugin's instance must not outlive the answer.
        self.end_block();
        held
    }

    /// The halves of a key, each as long as it may make a pair.
    fn ask_halves(&self, key: &[u8], within_us: i64) -> Held {
        let store = &self.keyed.store;
        let mut held = Held::default();
        let state = store.find(0, key).map_or(&[][..], |entry| store.value(entry));
        for half in halves(state) {
            if held.windows.len() == WINDOWS_MAX {
                held.more = true;
                break;
            }
            let (start_us, end_us) = (half.time_us, half.time_us.saturating_add(within_us));
            let row = self.plan.half_row(&half);
            held.windows.push(HeldWindow { start_us, end_us, open: true, state_bytes: half.bytes(), row: Ok(row) });
        }
        held
    }

    fn held(&mut self, due: &Due, position: i64, more: bool) -> Result<Held, StageError> {
        let failed = self.aggregate.finish(due)?;
        let version = self.plan.spec.has_versions.then_some(position.wrapping_mul(2));
        let window = |at: usize| {
            let row = match failed.iter().find(|why| why.row == at) {
                Some(why) => Err(why.detail.clone()),
                None => {
                    let mut row = Vec::new();
                    rows::push_head(&self.plan.key_names, due, at, version, &mut row);
                    self.aggregate.push_columns(due, at, &mut row);
                    row.push(b'}');
                    Ok(row)
                }
            };
            HeldWindow {
                start_us: due.starts_us[at],
                end_us: due.ends_us[at],
                open: due.ends_us[at] > self.keyed.clock.watermark_us,
                state_bytes: due.states.get(at).len(),
                row,
            }
        };
        Ok(Held { windows: (0..due.len()).map(window).collect(), more })
    }

    fn windows_max(&mut self) -> usize {
        if self.aggregate.plugin().is_some() { PLUGIN_WINDOWS_MAX } else { WINDOWS_MAX }
    }

    /// Gathers the windows of one size; true where there are more.
    fn ask_fixed(
        &mut self,
        key: &[u8],
        (size_us, every_us, offset_us): (i64, i64, i64),
        due: &mut Due,
    ) -> Result<bool, StageError> {
        let windows_max = self.windows_max();
        let (parts, seen_us) = self.parts_of(key, (size_us, every_us, offset_us));
        // What ends after a part that was not looked for is not known.
        let from_us = self.keyed.clock.watermark_us.saturating_sub(self.plan.spec.reopen_us);
        let of = |part_us| Ends::of((size_us, every_us), offset_us, part_us).between(from_us, seen_us);
        let ends: BTreeSet<i64> = parts.iter().flat_map(|(part_us, ..)| of(*part_us)).collect();
        let mut merges = 0;
        for &end_us in &ends {
            let in_it = |part: &&(i64, i64, Entry)| (end_us - size_us..end_us).contains(&part.0) && part.1 <= end_us;
            let states: Vec<&[u8]> = parts.iter().filter(in_it).map(|part| self.keyed.store.value(part.2)).collect();
            if states.is_empty() {
                continue;
            }
            merges += states.len();
            if due.len() == windows_max || (!due.is_empty() && merges > MERGES_MAX) {
                return Ok(true);
            }
            due.push((end_us - size_us, end_us), key, &merge_all(&mut self.aggregate, &states)?, false);
        }
        Ok(seen_us != i64::MAX)
    }

    /// The states of a key: part, end of the first window that it counts for, and entry; and the part that was not looked for
    /// any more.
    fn parts_of(&self, key: &[u8], (size_us, every_us, offset_us): (i64, i64, i64)) -> (Vec<(i64, i64, Entry)>, i64) {
        let store = &self.keyed.store;
        let (mut parts, mut later, mut looks) = (Vec::new(), Vec::new(), 0);
        for part_us in store.buckets() {
            if looks >= LOOKS_MAX {
                return (parts, part_us);
            }
            let ends = Ends::of((size_us, every_us), offset_us, part_us);
            parts.extend(store.find(part_us, key).map(|entry| (part_us, i64::MIN, entry)));
            looks += 1;
            if self.plan.role == Role::Whole {
                continue;
            }
            for first_us in ends.between(ends.first_us, i64::MAX) {
                later.clear();
                later.extend_from_slice(key);
                rows::push_later(&mut later, first_us);
                parts.extend(store.find(part_us, &later).map(|entry| (part_us, first_us, entry)));
                looks += 1;
            }
        }
        (parts, i64::MAX)
    }

    /// Gathers a key's sessions; true where there are more.
    fn ask_sessions(&mut self, key: &[u8], gap_us: i64, due: &mut Due) -> bool {
        let windows_max = self.windows_max();
        let Some(entry) = self.keyed.store.find(0, key) else { return false };
        let value = self.keyed.store.value(entry);
        for session in Sessions::of(value).iter() {
            if due.len() == windows_max {
                return true;
            }
            due.push((session.first_us, session.last_us + gap_us), key, &value[session.state], false);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_means_every_key_that_is_shown_as_it() {
        let of = |text: &str, fields| -> Vec<String> {
            keys_of(text, fields).into_iter().map(|key| String::from_utf8(key).expect("UTF-8")).collect()
        };
        assert_eq!(of("DE", 1), ["\"DE\"\0"]);
        assert_eq!(of("7", 1), ["7\0", "\"7\"\0"]);
        assert_eq!(of("1.50", 1), ["1.50\0", "1.5\0", "\"1.50\"\0"]);
        assert_eq!(of("\"7\"", 1), ["\"7\"\0", "\"\\\"7\\\"\"\0"]);
        assert_eq!(of("[\"DE\", 7]", 2), ["\"DE\"\x007\0"]);
        assert_eq!(of("[\"DE\"]", 2), [""; 0]);
        assert_eq!(of("DE", 2), [""; 0]);
        assert_eq!((of("", 0), of("x", 0)), (vec![String::new()], vec![]));
    }
}
