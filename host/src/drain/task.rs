//! One partition on its way into a table: pure state, so that it can be simulated.
//!
//! A block is encoded, planned, sent, and committed; each step is asked for by [`Task::next`] and answered for by the
//! method that is named like it. What may have been sent before and is not known to have arrived is *in doubt*: then the
//! table is looked at first, where its memory of tokens may not reach back far enough.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::block::{Block, Limits};
use super::plan::{PLAN_VERSION, Plan, Promise};
use super::step::{Action, Encode, Encoded, Moment, Sent};
use crate::record::{Batch, Place};

/// Tries of what fails without a reason that passes: with the pauses between them, five minutes.
pub(super) const TRIES_MAX: u32 = 36;
/// Full blocks that may wait for the one that is being sent.
const SEALED_MAX: usize = 1;

/// A block between its plan and its commit.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) block: Block,
    pub(super) plan: Plan,
    pub(super) stage: Stage,
    /// A try, of this process or an earlier one, may have reached the table.
    pub(super) in_doubt: bool,
    /// True once the table was looked at since, and the next try may go.
    pub(super) looked: bool,
    /// Why the table refused it while it was in doubt.
    pub(super) refused: Option<String>,
    pub(super) tries: u32,
    /// Tries that failed behind the table, or for an unknown reason.
    pub(super) stuck: u32,
    pub(super) retry_at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// To be planned.
    Sealed,
    /// To be sent.
    Planned,
    /// In the table; to be committed.
    Sent,
}

/// One partition.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) place: Place,
    limits: Limits,
    exactly_once: bool,
    committed: i64,
    position: i64,
    /// A predecessor's plan, which its first block has to follow.
    promised: Option<Plan>,
    /// Offsets that a promised plan sets aside.
    promised_aside: BTreeSet<i64>,
    /// Offsets whose rows the server refused, and what it said.
    refused: BTreeMap<i64, String>,
    open: Block,
    sealed: VecDeque<Block>,
    pub(super) current: Option<Current>,
    /// True while an action is under way.
    pub(super) busy: bool,
    reread: bool,
    /// To begin again once the block that is in the table is committed.
    restart_after_commit: bool,
    /// When markers were last passed by.
    passed_ms: u64,
    stopped: Option<String>,
}

impl Task {
    /// A partition that begins at `offset`, with what was committed there.
    pub(super) fn new(place: Place, offset: i64, note: Option<&str>, limits: Limits, exactly_once: bool) -> Self {
        let mut task = Self {
            place,
            limits,
            exactly_once,
            committed: offset,
            position: offset,
            promised: None,
            promised_aside: BTreeSet::new(),
            refused: BTreeMap::new(),
            open: Block::new(offset),
            sealed: VecDeque::new(),
            current: None,
            busy: false,
            reread: false,
            restart_after_commit: false,
            passed_ms: 0,
            stopped: None,
        };
        match note.map_or(Promise::None, Promise::read) {
            Promise::None => task.restart(None),
            Promise::Plan(plan) => task.restart(Some(plan)),
            Promise::Foreign => task.stop(format!(
                "{}: the plan at offset {offset} was made by another version of Millstream: let that one finish its block",
                task.place
            )),
        }
        task.reread = false;
        task
    }

    /// The offset that is committed.
    pub(super) fn committed(&self) -> i64 {
        self.committed
    }

    /// Why nothing more is done, where that is so.
    pub(super) fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// True while an action is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// True where a block is in the table, and its end is to be committed.
    pub(super) fn is_sent(&self) -> bool {
        !self.busy && self.current.as_ref().is_some_and(|current| current.stage == Stage::Sent)
    }

    /// When there is something to do again, on the drain's clock.
    pub(super) fn due_ms(&self) -> Option<u64> {
        match &self.current {
            _ if self.busy || self.stopped.is_some() => None,
            Some(current) => Some(current.retry_at_ms),
            None if self.open.is_empty() => None,
            None => Some(self.open.since_ms + self.limits.interval_ms),
        }
    }

    /// Blocks are full at so many bytes from now on.
    pub(super) fn set_block_bytes(&mut self, bytes: usize) {
        self.limits.bytes = bytes;
    }

    /// True where nothing waits to be committed.
    pub(super) fn is_idle(&self) -> bool {
        self.current.is_none() && self.sealed.is_empty() && self.open.is_empty() && !self.busy
    }

    /// True where no more records should be read for now.
    pub(super) fn is_full(&self) -> bool {
        let waiting = self.sealed.len() + usize::from(self.current.is_some());
        self.stopped.is_some() || self.reread || self.restart_after_commit || waiting > SEALED_MAX
    }

    /// The block that is sent and committed.
    pub(super) fn block(&self) -> Option<&Block> {
        self.current.as_ref().map(|current| &current.block)
    }

    /// Begins again at the last commit: under a plan that may have been carried out, or free to make another.
    pub(super) fn restart(&mut self, promised: Option<Plan>) {
        self.position = self.committed;
        self.open = Block::new(self.committed);
        self.sealed.clear();
        self.current = None;
        self.busy = false;
        self.reread = true;
        self.restart_after_commit = false;
        self.promised_aside.clear();
        self.promised = None;
        let Some(plan) = promised.filter(|_| self.exactly_once) else { return };
        match plan.aside(self.committed) {
            Some(aside) if plan.last >= self.committed => {
                self.promised_aside = aside.into_iter().collect();
                self.promised = Some(plan);
            }
            _ => {
                let (place, offset) = (&self.place, self.committed);
                self.stop(format!("{place}: the plan at offset {offset} makes no sense: {}", plan.text()));
            }
        }
    }

    /// The consumer could not go back: that is to be tried again.
    pub(super) fn reread_later(&mut self) {
        self.reread = true;
    }

    /// Begins again with another encoder. What may have been sent keeps its plan.
    pub(super) fn restart_encoding(&mut self) {
        if self.is_sent() {
            // What is in is committed first: another block of these records would be there beside it.
            self.restart_after_commit = true;
            return;
        }
        let under_way = self.busy;
        let is_doubtful = |current: &Current| current.in_doubt || (under_way && current.stage == Stage::Planned);
        let doubtful = self.current.take().filter(is_doubtful);
        let promised = doubtful.map(|current| current.plan).or_else(|| self.promised.take());
        self.restart(promised);
    }

    /// Takes records on; those before the position are known already. False where the batch does not follow.
    pub(super) fn take(&mut self, batch: &Batch, now_ms: u64, encode: &mut impl Encode) -> bool {
        if self.reread || self.restart_after_commit || self.stopped.is_some() {
            return true;
        }
        if batch.first_offset > self.position {
            return false;
        }
        for row in 0..batch.rows.len() {
            let offset = batch.rows.offsets[row];
            if offset >= self.position {
                self.seal_before(offset);
                self.record(batch, row, now_ms, encode);
                self.position = offset + 1;
                self.open.next = offset + 1;
                if self.promised.is_none() && self.open.is_full(&self.limits) {
                    self.seal();
                }
            }
        }
        self.position = self.position.max(batch.next_offset);
        self.open.next = self.open.next.max(self.position);
        self.seal_before(self.position);
        true
    }

    /// Ends a promised block once all of its records are there.
    fn seal_before(&mut self, offset: i64) {
        let Some(plan) = self.promised.take_if(|plan| offset > plan.last) else { return };
        let next = plan.last + 1;
        let mut block = std::mem::replace(&mut self.open, Block::new(next));
        block.next = next;
        let current = Current { stage: Stage::Planned, in_doubt: true, ..Current::new(block, plan) };
        self.current = Some(current);
    }

    fn record(&mut self, batch: &Batch, row: usize, now_ms: u64, encode: &mut impl Encode) {
        let (offset, block) = (batch.rows.offsets[row], &mut self.open);
        if block.is_empty() {
            block.since_ms = now_ms;
        }
        block.oldest_ms = block.oldest_ms.min(batch.rows.timestamps_ms[row]);
        let start = block.bytes.len();
        let (code, why) = match self.refused.get(&offset) {
            Some(why) => ("table_refused", why.clone()),
            None => match encode.row(batch, row, &mut block.bytes) {
                // A record that is promised to be set aside has no row, whatever it would be today.
                Encoded::Row if self.promised_aside.contains(&offset) => {
                    block.bytes.truncate(start);
                    ("set_aside", "it did not fit the table when its block was planned".to_owned())
                }
                // One that had a row then, and would not today, may be in the table: it must not be a dead letter as well.
                Encoded::Unfit { .. } if self.promised.is_some() && !self.promised_aside.contains(&offset) => {
                    return block.rows.push((offset, start));
                }
                Encoded::Row => return block.rows.push((offset, block.bytes.len())),
                Encoded::Tombstone => return block.tombstones += 1,
                Encoded::Unfit { code, why } => (code, why),
            },
        };
        block.aside.push(offset);
        block.codes.push(code);
        encode.dead_letter(batch, row, code, &why, &mut block.dead);
    }

    fn seal(&mut self) {
        let next = self.open.next;
        self.sealed.push_back(std::mem::replace(&mut self.open, Block::new(next)));
    }

    /// What is to be done now; `all` where no more records will come for a while, so that nothing waits for the block to
    /// fill. It has to be answered for before the next.
    pub(super) fn next(&mut self, all: bool, moment: &Moment<'_>) -> Option<Action> {
        let now_ms = moment.now_ms;
        if self.busy || self.stopped.is_some() {
            return None;
        }
        if std::mem::take(&mut self.reread) {
            return Some(Action::Reread(self.committed));
        }
        if self.current.is_none() {
            let due = || self.promised.is_none() && (self.open.is_due(&self.limits, now_ms) || all);
            if self.sealed.is_empty() && due() && !self.open.is_empty() {
                self.seal();
            }
            match self.sealed.pop_front() {
                Some(block) => self.current = Some(self.sealed_block(block, moment)),
                None => self.pass_markers(now_ms, all),
            }
        }
        let current = self.current.as_mut()?;
        if now_ms < current.retry_at_ms {
            return None;
        }
        self.busy = true;
        Some(match current.stage {
            Stage::Sealed => Action::Plan { first: current.block.first, plan: current.plan.clone() },
            Stage::Planned if current.needs_look() => {
                Action::Look { first: current.block.first, last: current.plan.last }
            }
            Stage::Planned => Action::Send {
                first: current.block.first,
                last: current.plan.last,
                bytes: std::mem::take(&mut current.block.bytes),
            },
            Stage::Sent => Action::Commit,
        })
    }

    /// What is no record, such as a transaction's marker, is passed by now and then, so that nobody takes it for a lag.
    fn pass_markers(&mut self, now_ms: u64, all: bool) {
        let is_due = all || now_ms >= self.passed_ms + self.limits.interval_ms;
        if self.promised.is_some() || !self.open.is_empty() || self.position <= self.committed || !is_due {
            return;
        }
        self.passed_ms = now_ms;
        let mut block = std::mem::replace(&mut self.open, Block::new(self.position));
        block.next = self.position;
        self.current = Some(Current { stage: Stage::Sent, ..Current::new(block, Plan::default()) });
    }

    fn sealed_block(&self, block: Block, moment: &Moment<'_>) -> Current {
        let last = block.next - 1;
        let plan = Plan {
            version: PLAN_VERSION,
            last,
            rows: block.rows.len() as u64,
            sum: block.sum(),
            token: short((moment.token)(block.first, last)),
            aside: block.aside.text(),
            at_ms: moment.wall_ms,
            blocks: moment.blocks,
        };
        // Without rows there is nothing that could be sent twice.
        let stage = match (block.rows.is_empty(), self.exactly_once) {
            (true, _) => Stage::Sent,
            (false, true) => Stage::Sealed,
            (false, false) => Stage::Planned,
        };
        Current { stage, ..Current::new(block, plan) }
    }

    /// The plan is committed, or not: then it is tried again.
    pub(super) fn planned(&mut self, done: bool, now_ms: u64) {
        self.busy = false;
        match &mut self.current {
            Some(current) if done => (current.stage, current.tries, current.retry_at_ms) = (Stage::Planned, 0, 0),
            Some(current) => current.back_off(now_ms),
            None => {}
        }
    }

    /// The end is committed, or not: then it is tried again. Returns the block that is done.
    pub(super) fn committed_end(&mut self, done: bool, now_ms: u64) -> Option<Block> {
        self.busy = false;
        let current = self.current.as_mut()?;
        if !done {
            current.back_off(now_ms);
            return None;
        }
        self.committed = current.block.next;
        self.refused = self.refused.split_off(&self.committed);
        self.promised_aside.clear();
        let block = self.current.take().map(|current| current.block);
        if self.restart_after_commit {
            self.restart(None);
        }
        block
    }

    /// The block was sent, and here are its bytes again. True where the table has to be described anew.
    pub(super) fn sent(&mut self, bytes: Vec<u8>, sent: Sent, now_ms: u64) -> bool {
        self.busy = false;
        let Some(mut current) = self.current.take() else { return false };
        current.block.bytes = bytes;
        match sent {
            Sent::Done => (current.stage, current.tries, current.retry_at_ms) = (Stage::Sent, 0, 0),
            Sent::Unknown(_) => {
                (current.in_doubt, current.looked) = (self.exactly_once, false);
                current.back_off(now_ms);
            }
            Sent::NotYet(_) => {
                current.looked = false;
                current.back_off(now_ms);
            }
            Sent::Stuck(why) if current.stuck >= TRIES_MAX => {
                let (place, first, last) = (&self.place, current.block.first, current.plan.last);
                let why = format!("{place}: the block of offsets {first} to {last} can't be inserted: {why}");
                self.stop(why);
            }
            Sent::Stuck(_) => {
                current.stuck += 1;
                (current.in_doubt, current.looked) = (self.exactly_once, false);
                current.back_off(now_ms);
            }
            Sent::OtherTable(_) => {
                current.back_off(now_ms);
                self.current = Some(current);
                return true;
            }
            // Halves under tokens of their own would be there beside a whole that has arrived after all.
            Sent::RefusedInPart(why) if self.exactly_once => {
                current.in_doubt = true;
                current.refused = Some(why);
                current.back_off(now_ms);
            }
            Sent::Refused(why) if current.in_doubt => {
                current.refused = Some(why);
                current.back_off(now_ms);
            }
            Sent::Refused(why) | Sent::RefusedInPart(why) => {
                self.refuse(current.block, why);
                return false;
            }
        }
        self.current = Some(current);
        false
    }

    /// Divides a block that was refused and is not in the table, down to the row that is to blame.
    pub(super) fn refuse(&mut self, block: Block, why: String) {
        if let [(offset, _)] = block.rows[..] {
            self.refused.insert(offset, why);
            return self.restart(None);
        }
        let (left, right) = block.split();
        self.sealed.push_front(right);
        self.sealed.push_front(left);
    }

    pub(super) fn stop(&mut self, why: String) {
        self.stopped = Some(why);
        self.busy = false;
    }
}

impl Current {
    fn new(block: Block, plan: Plan) -> Self {
        let (looked, refused, tries, stuck, retry_at_ms) = (false, None, 0, 0, 0);
        Self { block, plan, stage: Stage::Sealed, in_doubt: false, looked, refused, tries, stuck, retry_at_ms }
    }

    pub(super) fn back_off(&mut self, now_ms: u64) {
        self.retry_at_ms = now_ms + pause_ms(self.tries);
        self.tries += 1;
    }

    fn needs_look(&self) -> bool {
        self.refused.is_some() || (self.in_doubt && !self.looked)
    }
}

/// How long to wait after so many tries before this one: a tenth of a second at first, twice as long each time, ten seconds
/// at last.
pub(super) fn pause_ms(tries: u32) -> u64 {
    10_000.min(100 << tries.min(16))
}

/// So much of a token tells it from others.
pub(super) fn short(mut token: String) -> String {
    token.truncate(16);
    token
}
