//! Pairs: each record of one side with each of the other that has its key and lies near enough in time; and, once the
//! watermark is past the bound, those that were in none.
//!
//! A record that lies behind the watermark of its own partition is late. No other is, and the watermark of the second level is
//! the least of all partitions': so whatever a record makes a pair with is still there when it comes, and the pairs are a
//! function of the records, whichever partition is faster.

use super::clock::Disbelief;
use super::halves::{Half, halves, push_with};
use super::pair_plan::SidePlan;
use super::plan::{LATE_OUTPUT, Late, ROWS_OUTPUT, Role};
use super::rows;
use super::shuffle::{self, Message};
use super::stage::{WindowStage, push_emitted, reject};
use crate::plugin::{StageError, StageInput, StageOutput, Verdict};
use crate::record::{Cell, Column, ColumnData};

/// The most halves of a key at a time, and the most bytes of them.
pub(super) const HALVES_MAX: usize = 1_000;
pub(super) const HALVES_BYTES_MAX: usize = 2 << 20;
/// The most bytes of all pairs that one record makes.
const PAIRS_BYTES_MAX: usize = 32 << 20;

/// When a half makes no pair any more: once the watermark is past every time that is near enough.
pub(super) fn over_us(time_us: i64, within_us: i64) -> i64 {
    time_us.saturating_add(within_us).saturating_add(1)
}

/// A record that was sent on between two levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
    /// The lane of the partition that it was read from.
    pub lane: u32,
    /// Its offset there.
    pub offset: i64,
}

/// A half without a pair, on its way out.
struct Lonely {
    over_us: i64,
    group: Vec<u8>,
    right: bool,
    origin: (u32, i64),
    key: Option<Vec<u8>>,
    value: Vec<u8>,
}

impl Lonely {
    fn order(&self) -> (i64, &[u8], bool, (u32, i64)) {
        (self.over_us, &self.group, self.right, self.origin)
    }
}

impl WindowStage {
    /// Goes through rows of a partition: what is of a side becomes a half.
    pub(super) fn pass_halves(
        &mut self,
        input: &StageInput<'_>,
        offsets: &[i64],
        within_us: i64,
        out: &mut StageOutput,
    ) -> Result<(), StageError> {
        let plan = self.plan.clone();
        for (row, &offset) in offsets.iter().enumerate() {
            let side = plan.sides.iter().position(|side| side.takes(&self.origin.topic, input, row));
            let Some(side) = side else {
                out.verdicts.push(if plan.forward { Verdict::Forward } else { Verdict::Drop });
                continue;
            };
            let time_us = match self.admit_half(&plan.sides[side], input, row) {
                Ok(time_us) => time_us,
                Err((code, detail)) => {
                    reject(out, row, code, detail);
                    continue;
                }
            };
            let half = Half {
                right: side == 1,
                matched: false,
                time_us,
                origin: (self.origin.lane, offset),
                key: input.keys.and_then(|keys| keys.get(row)),
                value: input.values.and_then(|values| values.get(row)).unwrap_or_default(),
            };
            if time_us < self.keyed.clock.watermark_us {
                self.late(time_us, input, row, out);
            } else {
                let taken = match plan.role {
                    Role::Partial => self.send_half(&half, &plan.sides[side]),
                    Role::Whole | Role::Merge => self.take_half(&half, within_us),
                };
                if let Err((code, detail)) = taken {
                    // As if it had not been there: its time counts for nothing either.
                    reject(out, row, code, detail);
                    continue;
                }
                out.verdicts.push(if plan.forward { Verdict::Forward } else { Verdict::Fold });
            }
            let before_us = self.keyed.clock.watermark_us;
            if self.keyed.clock.advance(time_us, &plan.spec) {
                self.moved(before_us)?;
            }
            self.emit(row as u32, 0, &mut out.emitted)?;
        }
        Ok(())
    }

    /// The row's event time, with its key in `self.key`.
    fn admit_half(&mut self, side: &SidePlan, input: &StageInput<'_>, row: usize) -> Result<i64, Disbelief> {
        let stamp_ms = input.timestamps_ms.map_or(-1, |times| times[row]);
        let (time_us, stamp_ms) = match &side.time {
            None if stamp_ms < 0 => return Err(("no_event_time", "the record has no timestamp".to_owned())),
            None => (stamp_ms.saturating_mul(1_000), -1),
            Some((path, column)) => {
                there(path, input.columns[*column], row)?;
                match &input.columns[*column].data {
                    ColumnData::Int64(values) => (values[row], stamp_ms),
                    _ => (-1, stamp_ms),
                }
            }
        };
        for (path, column) in side.key_paths.iter().zip(side.keys.clone()) {
            there(path, input.columns[column], row)?;
        }
        self.keyed.clock.judge(time_us, stamp_ms, &self.plan.spec)?;
        self.key.clear();
        rows::push_key((&input.columns[side.keys.clone()], &side.key_parts), row, &mut self.key)?;
        Ok(time_us)
    }

    /// The record that a row between two levels stands for, where it stands for one.
    pub fn original<'a>(&self, value: &'a [u8]) -> Option<Original<'a>> {
        match shuffle::read(value).filter(|_| self.plan.role == Role::Merge) {
            Some(Message::Half(Half { key, value, origin: (lane, offset), .. })) => {
                Some(Original { key, value, lane, offset })
            }
            _ => None,
        }
    }

    /// Keeps a half for the next commit, which sends it to those who own its key.
    fn send_half(&mut self, half: &Half<'_>, side: &SidePlan) -> Result<(), Disbelief> {
        self.fits(half, side.unmatched)?;
        let sent = &mut self.log.sent;
        sent.keys.push(Some(&self.key));
        shuffle::push_half(half, &mut sent.values.packed.data);
        sent.values.end_row();
        sent.offsets.push(0);
        sent.timestamps_ms.push(-1);
        Ok(())
    }

    /// True where a half can be kept, and leave again as it is.
    fn fits(&self, half: &Half<'_>, unmatched: Option<u32>) -> Result<(), Disbelief> {
        let bytes = half.bytes();
        if bytes > HALVES_BYTES_MAX {
            let detail = format!("the record has {bytes} bytes; one of a pair may have {HALVES_BYTES_MAX}");
            return Err(("record_too_large", detail));
        }
        let (key, value) = (half.key.map_or(0, <[u8]>::len), half.value.len());
        let most = unmatched.map_or(usize::MAX, |output| self.origin.limit(output));
        if key + value > most {
            let detail = format!("the record has {} bytes; where it goes without a pair takes {most}", key + value);
            return Err(("record_too_large", detail));
        }
        Ok(())
    }

    /// Adds a half to those of the key in `self.key`, and makes its pairs due. On an error nothing has happened.
    pub(super) fn take_half(&mut self, half: &Half<'_>, within_us: i64) -> Result<(), Disbelief> {
        self.fits(half, self.plan.sides[usize::from(half.right)].unmatched)?;
        let entry = self.keyed.store.find(0, &self.key);
        let state = entry.map_or(&[][..], |entry| self.keyed.store.value(entry));
        let bytes = state.len() + half.bytes();
        if bytes > HALVES_BYTES_MAX {
            let detail =
                format!("the records of its key that wait would have {bytes} bytes; {HALVES_BYTES_MAX} are allowed");
            return Err(("state_too_large", detail));
        }
        if halves(state).count() >= HALVES_MAX {
            return Err(("too_many_halves", format!("{HALVES_MAX} records of its key wait already")));
        }
        let group = rows::record_key(&self.key);
        let others = || halves(state).filter(|other| half.meets(other, within_us));
        let (most, own) = (self.origin.limit(ROWS_OUTPUT), self.plan.pair_bytes(&self.key) + half.value.len());
        let own = own + group.as_ref().map_or(0, Vec::len);
        let mut sum = 0;
        for bytes in others().map(|other| own + other.value.len()) {
            sum += bytes;
            if bytes > most {
                let detail = format!("one of its pairs would have {bytes} bytes, and their topic takes {most}");
                return Err(("record_too_large", detail));
            }
        }
        if sum > PAIRS_BYTES_MAX {
            let detail = format!("its pairs would have {sum} bytes; {PAIRS_BYTES_MAX} are allowed");
            return Err(("too_many_pairs", detail));
        }
        for other in others() {
            let (left, right) = if half.right { (&other, half) } else { (half, &other) };
            self.plan.push_pair(&self.key, (left, right), &mut self.paired.values.packed.data);
            self.paired.values.end_row();
            self.paired.keys.push(group.as_deref());
            self.paired.output.push(ROWS_OUTPUT);
            self.log.counts.pairs += 1;
        }
        self.value.clear();
        push_with(state, half, within_us, &mut self.value);
        let entry = match entry {
            Some(entry) => {
                self.keyed.store.set(entry, &self.value);
                entry
            }
            None => self.keyed.store.insert(0, &self.key, &self.value),
        };
        let at_us = over_us(half.time_us, within_us);
        self.keyed.timers.push(at_us, entry);
        self.keyed.next_close_us = self.keyed.next_close_us.map(|known_us| known_us.min(at_us));
        Ok(())
    }

    /// Takes a half that came from a partition upstream, whose key is in `self.key`.
    pub(super) fn merge_half(&mut self, half: &Half<'_>, within_us: i64, row: usize, out: &mut StageOutput) {
        if half.time_us >= self.keyed.clock.watermark_us {
            match self.take_half(half, within_us) {
                Ok(()) => out.verdicts.push(Verdict::Fold),
                Err((code, detail)) => reject(out, row, code, detail),
            }
            return;
        }
        if self.plan.late == Late::Output {
            out.verdicts.push(Verdict::Late);
            push_emitted(&mut out.emitted, (LATE_OUTPUT, row as u32), half.key, Some(half.value));
            return;
        }
        let (event, watermark) = (super::clock::show(half.time_us), super::clock::show(self.keyed.clock.watermark_us));
        let detail =
            format!("it happened at {event}, and came from an idle partition when all before {watermark} was closed");
        reject(out, row, "late", detail);
    }

    /// Forgets what makes no pair any more; what was in none is due where somebody wants it.
    pub(super) fn part_halves(&mut self, within_us: i64) {
        let watermark_us = self.keyed.clock.watermark_us;
        let mut lonely: Vec<Lonely> = Vec::new();
        while let Some(entry) = self.keyed.timers.pop_due(watermark_us) {
            let Some((_, group)) = self.keyed.store.key(entry) else { continue };
            let state = self.keyed.store.value(entry);
            self.value.clear();
            for half in halves(state) {
                let over_us = over_us(half.time_us, within_us);
                if over_us > watermark_us {
                    half.push(&mut self.value);
                } else if !half.matched {
                    self.log.counts.unmatched[usize::from(half.right)] += 1;
                    let Half { right, origin, .. } = half;
                    let (key, value) = (half.key.map(<[u8]>::to_vec), half.value.to_vec());
                    lonely.push(Lonely { over_us, group: group.to_vec(), right, origin, key, value });
                }
            }
            if self.value.is_empty() {
                self.keyed.store.remove(entry);
            } else if self.value.len() < state.len() {
                self.keyed.store.set(entry, &self.value);
            }
            // Each of the halves that are left has a timer of its own.
        }
        self.keyed.next_close_us = None;
        // Timers know no order among those that are over at the same time.
        lonely.sort_unstable_by(|one, other| one.order().cmp(&other.order()));
        for half in lonely {
            let Some(output) = self.plan.sides[usize::from(half.right)].unmatched else { continue };
            self.paired.output.push(output);
            self.paired.keys.push(half.key.as_deref());
            self.paired.values.push(Some(&half.value));
        }
    }
}

/// A field that a side's record needs is there.
fn there(path: &str, column: &Column, row: usize) -> Result<(), Disbelief> {
    let (code, found) = match column.cells[row] {
        Cell::Valid => return Ok(()),
        Cell::Missing => ("missing_field", "is missing"),
        Cell::Null => ("null_field", "is null"),
        _ => ("wrong_type", "is of another type, or no time of its encoding"),
    };
    Err((code, format!("field `{path}` {found}")))
}
