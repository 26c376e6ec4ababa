//! A partition, a table that forgets, and a group, under seeds with crashes and losses at every step.

use std::collections::{BTreeMap, VecDeque};

use super::block::Limits;
use super::step::{Action, Encode, Encoded, Found, Moment, Sent};
use super::task::Task;
use crate::memory::Chance;
use crate::record::{Batch, Place, Rows};

/// What a simulation may switch off, to show that it finds what the rule prevents.
#[derive(Clone, Copy)]
struct Rules {
    plan: bool,
    token: bool,
    lineage: bool,
    /// Blocks that the table remembers.
    window: u64,
    /// Columns are narrowed again, so that a record that was a row does not fit any more.
    narrows: bool,
    /// A block may be there in part.
    divided: bool,
}

const ALL: Rules = Rules { plan: true, token: true, lineage: true, window: 1_000, narrows: true, divided: false };

/// The records of the log, by offset; gaps are markers of transactions.
type Log = BTreeMap<i64, &'static [u8]>;

struct Table {
    /// Offsets of the rows, with how often each is there.
    rows: BTreeMap<i64, u64>,
    tokens: VecDeque<(i64, i64)>,
    /// Blocks of which the first row is there.
    parts: Vec<(i64, i64)>,
    blocks: u64,
    /// Rises when a column is widened: then more records fit.
    schema: u8,
    /// Inserts that the server still works at, each with the count of blocks when it came.
    running: Vec<((i64, i64), Vec<u8>, u64)>,
}

/// A row is its offset and the schema that it was encoded for.
const ROW_BYTES: usize = 9;

impl Table {
    fn insert(&mut self, token: (i64, i64), bytes: &[u8], rules: Rules) {
        if rules.token && self.tokens.contains(&token) {
            return;
        }
        self.tokens.push_back(token);
        while self.tokens.len() as u64 > rules.window {
            self.tokens.pop_front();
        }
        self.blocks += 1;
        let there = usize::from(self.parts.contains(&token));
        for row in bytes.chunks(ROW_BYTES).skip(there) {
            *self.rows.entry(offset_of(row)).or_default() += 1;
        }
    }

    /// A part of a block, of which the rest can still come.
    fn part(&mut self, token: (i64, i64), bytes: &[u8]) {
        if !self.parts.contains(&token) {
            self.parts.push(token);
            *self.rows.entry(offset_of(bytes)).or_default() += 1;
        }
    }

    /// What others write pushes tokens out.
    fn others(&mut self, blocks: usize, rules: Rules) {
        for _ in 0..blocks {
            self.insert((-1, self.blocks as i64), &[], rules);
        }
    }
}

fn offset_of(row: &[u8]) -> i64 {
    i64::from_le_bytes(row[..8].try_into().expect("eight bytes"))
}

struct Toy {
    schema: u8,
}

impl Encode for Toy {
    fn row(&mut self, batch: &Batch, row: usize, out: &mut Vec<u8>) -> Encoded {
        match batch.rows.values.get(row) {
            None => return Encoded::Tombstone,
            Some(b"bad") => return Encoded::Unfit { code: "bad", why: "never fits".into() },
            Some(b"wide") if self.schema == 0 => return Encoded::Unfit { code: "wide", why: "too wide".into() },
            Some(_) => {}
        }
        out.extend_from_slice(&batch.rows.offsets[row].to_le_bytes());
        out.push(self.schema);
        Encoded::Row
    }

    fn dead_letter(&mut self, batch: &Batch, row: usize, _: &'static str, _: &str, to: &mut Rows) {
        to.push_from(&batch.rows, row);
    }
}

struct World {
    rules: Rules,
    chance: Chance,
    log: Log,
    end: i64,
    table: Table,
    toy: Toy,
    group: (i64, String),
    dead: BTreeMap<i64, u64>,
    /// Where the consumer reads.
    position: i64,
    now_ms: u64,
    /// A part of each token, which an operator may change.
    epoch: u64,
}

fn log(chance: &mut Chance) -> (Log, i64) {
    let (mut log, mut offset) = (Log::new(), 0);
    for _ in 0..60 {
        offset += if chance.happens(150) { 2 } else { 1 };
        let value: &[u8] = match chance.below(20) {
            0 => b"bad",
            1 | 2 => b"wide",
            3 => b"poison",
            4 => b"",
            _ => b"good",
        };
        log.insert(offset, value);
    }
    (log, offset + 1)
}

impl World {
    fn new(seed: u64, rules: Rules) -> Self {
        let mut chance = Chance::new(seed);
        let (log, end) = log(&mut chance);
        let (rows, tokens, running) = (BTreeMap::new(), VecDeque::new(), Vec::new());
        let table = Table { rows, tokens, parts: Vec::new(), blocks: 0, schema: 0, running };
        let (group, dead) = ((0, String::new()), BTreeMap::new());
        let toy = Toy { schema: 0 };
        Self { rules, chance, log, end, table, toy, group, dead, position: 0, now_ms: 1, epoch: 0 }
    }

    fn start(&mut self) -> Task {
        let limits = Limits { rows: 5, bytes: 1_000, interval_ms: 20 };
        let place = Place { topic: "t".into(), partition: 0 };
        self.toy.schema = self.table.schema;
        self.position = self.group.0;
        Task::new(place, self.group.0, Some(&self.group.1), limits, self.rules.plan)
    }

    fn batch(&mut self) -> Batch {
        let mut rows = Rows::default();
        let end = (self.position + 1 + self.chance.below(6) as i64).min(self.end);
        for (&offset, value) in self.log.range(self.position..end) {
            rows.push(offset, 0, None, (!value.is_empty()).then_some(value));
        }
        let (first_offset, next_offset) = (self.position, end);
        self.position = end;
        Batch { topic: "t".into(), partition: 0, first_offset, next_offset, rows }
    }

    /// Runs until all is committed; an error says why it stopped.
    fn run(&mut self) -> Result<(), String> {
        let mut task = self.start();
        for _ in 0..20_000 {
            self.now_ms += self.chance.below(30) as u64;
            if self.chance.happens(5) {
                self.now_ms += 60_000;
            }
            if self.chance.happens(4) {
                self.table.schema = if self.rules.narrows && self.chance.happens(500) { 0 } else { 1 };
            }
            if self.rules.window < 10 && self.chance.happens(20) {
                self.table.others(3, self.rules);
            }
            if self.chance.happens(60) && !self.table.running.is_empty() {
                let (token, bytes, since) = self.table.running.remove(0);
                // An insert has a deadline, which is shorter than what the server remembers.
                if self.table.blocks - since < self.rules.window / 2 {
                    self.table.insert(token, &bytes, self.rules);
                }
            }
            if self.chance.happens(20) {
                task = self.start();
            }
            if !task.is_full() && self.position < self.end {
                let batch = self.batch();
                assert!(task.take(&batch, self.now_ms, &mut self.toy), "a gap");
            }
            let (now_ms, blocks, epoch) = (self.now_ms, self.table.blocks, self.epoch);
            let token = |first: i64, last: i64| format!("{epoch} {first} {last}");
            let moment = Moment { now_ms, wall_ms: now_ms, blocks, token: &token };
            if let Some(action) = task.next(self.chance.happens(100), &moment) {
                self.act(&mut task, action);
            }
            // The drain describes the table whenever it likes.
            if self.chance.happens(10) && self.toy.schema != self.table.schema {
                self.adopt(&mut task);
            }
            if let Some(why) = task.stopped() {
                return Err(why.to_owned());
            }
            let last = self.log.keys().next_back().expect("records");
            if self.group.0 > *last {
                return Ok(());
            }
        }
        panic!("it does not get on: {task:?}");
    }

    fn act(&mut self, task: &mut Task, action: Action) {
        match action {
            Action::Plan { first, plan } => {
                assert_eq!(first, self.group.0, "a plan belongs to the committed offset");
                assert!(plan.text().len() <= 4_096, "the group takes no more");
                // It takes effect or not, and that is heard or not.
                let (done, heard) = (!self.chance.happens(50), !self.chance.happens(50));
                if done {
                    self.group.1 = plan.text();
                }
                task.planned(done && heard, self.now_ms);
            }
            Action::Look { first, last } => {
                let found = (!self.chance.happens(100)).then(|| Found {
                    rows: self.rules.lineage.then(|| self.table.rows.range(first..=last).map(|(_, count)| count).sum()),
                    atomic: !self.rules.divided,
                    settle_ms: 0,
                    token: format!("{} {first} {last}", self.epoch),
                    blocks: self.table.blocks,
                    window_blocks: self.rules.window,
                    window_ms: u64::MAX,
                    now_ms: self.now_ms,
                    running: self.table.running.iter().any(|(token, ..)| token.0 == first),
                });
                task.looked(found, self.now_ms);
            }
            Action::Send { first, last, bytes } => {
                let sent = self.send((first, last + 1), &bytes);
                if task.sent(bytes, sent, self.now_ms) && self.toy.schema != self.table.schema {
                    self.adopt(task);
                }
            }
            Action::Commit => {
                if self.chance.happens(50) {
                    task.committed_end(false, self.now_ms);
                    return;
                }
                let block = task.committed_end(true, self.now_ms).expect("a block");
                self.group = (block.next, String::new());
                block.dead.offsets.iter().for_each(|offset| *self.dead.entry(*offset).or_default() += 1);
            }
            Action::Reread(offset) => self.position = offset,
        }
    }

    fn adopt(&mut self, task: &mut Task) {
        self.toy.schema = self.table.schema;
        task.restart_encoding();
    }

    fn send(&mut self, token: (i64, i64), bytes: &[u8]) -> Sent {
        if self.chance.happens(100) {
            return Sent::NotYet("away".into());
        }
        if bytes.chunks(ROW_BYTES).any(|row| row[8] != self.table.schema) {
            return Sent::OtherTable("another column".into());
        }
        if bytes.chunks(ROW_BYTES).any(|row| self.log[&offset_of(row)] == b"poison") {
            return Sent::Refused("poison".into());
        }
        match self.chance.below(9) {
            0 => Sent::Unknown("lost on the way there".into()),
            3 => {
                self.table.insert(token, bytes, self.rules);
                Sent::Stuck("a view fails".into())
            }
            4 if self.rules.divided && bytes.len() > ROW_BYTES && !self.table.tokens.contains(&token) => {
                // One part of it is there; the same token brings the rest.
                self.table.part(token, &bytes[..ROW_BYTES]);
                Sent::Unknown("in part".into())
            }
            1 => {
                self.table.insert(token, bytes, self.rules);
                Sent::Unknown("lost on the way back".into())
            }
            2 => {
                let since = self.table.blocks;
                self.table.running.push((token, bytes.to_vec(), since));
                Sent::Unknown("takes its time".into())
            }
            _ => {
                self.table.insert(token, bytes, self.rules);
                Sent::Done
            }
        }
    }

    /// Every record is in the table or among the dead letters, once.
    fn check(&self) -> Result<(), String> {
        for (offset, value) in &self.log {
            let (rows, dead) = (self.table.rows.get(offset), self.dead.get(offset));
            let counts = (rows.copied().unwrap_or(0), dead.copied().unwrap_or(0));
            let expected: &[(u64, u64)] = match *value {
                b"" => &[(0, 0)],
                b"bad" | b"poison" => &[(0, 1)],
                b"wide" => &[(1, 0), (0, 1)],
                _ => &[(1, 0)],
            };
            if !expected.contains(&counts) {
                let value = String::from_utf8_lossy(value);
                return Err(format!("{offset} ({value}): {} rows and {} dead letters", counts.0, counts.1));
            }
        }
        Ok(())
    }
}

/// How many of the seeds end well, stop, and end badly; with an example of each of the latter two.
fn tally(rules: Rules, seeds: u64) -> (u64, u64, u64, String) {
    let (mut well, mut stopped, mut badly, mut example) = (0, 0, 0, String::new());
    for seed in 0..seeds {
        let mut world = World::new(seed, rules);
        match world.run().map(|()| world.check()) {
            Ok(Ok(())) => well += 1,
            Ok(Err(why)) => (badly, example) = (badly + 1, format!("seed {seed}: {why}")),
            Err(why) => (stopped, example) = (stopped + 1, format!("seed {seed}: {why}")),
        }
    }
    (well, stopped, badly, example)
}

#[test]
fn every_record_is_in_the_table_or_a_dead_letter_once() {
    let (well, stopped, badly, example) = tally(ALL, 2_000);
    assert_eq!((well, badly), (2_000 - stopped, 0), "{example}");
    assert!(stopped < 20, "{stopped} stopped: {example}");
}

#[test]
fn a_table_that_forgets_is_looked_at_and_one_that_can_not_tell_stops() {
    let forgets = Rules { window: 6, ..ALL };
    let (well, stopped, badly, example) = tally(forgets, 1_000);
    assert_eq!(badly, 0, "{example}");
    assert!(well > 900, "{stopped} stopped: {example}");
    let blind = Rules { lineage: false, ..forgets };
    let (_, stopped, badly, example) = tally(blind, 1_000);
    assert_eq!(badly, 0, "{example}");
    assert!(stopped > 100, "only {stopped} stopped");
}

#[test]
fn a_divided_table_may_have_a_part_of_a_block_and_gets_the_rest() {
    let (well, stopped, badly, example) = tally(Rules { divided: true, ..ALL }, 1_000);
    assert_eq!(badly, 0, "{example}");
    assert!(well > 800, "{stopped} stopped: {example}");
}

#[test]
fn without_the_plan_or_the_token_the_simulation_finds_an_error() {
    let (_, _, badly, _) = tally(Rules { plan: false, ..ALL }, 300);
    assert!(badly > 10, "{badly} without the plan");
    let (_, _, badly, _) = tally(Rules { token: false, ..ALL }, 300);
    assert!(badly > 10, "{badly} without the token");
}
