//! From a record to cells: the text is scanned once along the plan, then each read is converted.

use std::sync::Arc;

use super::cells;
use super::error::{Fault, JsonError};
use super::keys::Keys;
use super::plan::Plan;
use super::scan::{Kind, Scanner, unescape};
use super::sites::{Site, Sites};
use super::{LONGEST_RECORD, MAX_DEPTH};
use crate::record::Column;

/// Reads records along a plan; keeps what it learnt of their keys.
#[derive(Debug)]
pub struct Extractor {
    plan: Arc<Plan>,
    slots: Vec<Slot>,
    keys: Vec<Keys>,
    scratch: Vec<u8>,
}

/// What a record has at a node of the plan.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) kind: Kind,
    /// Its site, plus one; 0 where it has none.
    site: u32,
}

impl Extractor {
    /// An extractor that follows `plan`.
    pub fn new(plan: Arc<Plan>) -> Self {
        let nodes = plan.nodes().len();
        let keys = (0..nodes).map(|_| Keys::default()).collect();
        Self { plan, slots: vec![Slot::default(); nodes], keys, scratch: Vec::new() }
    }

    /// The plan that it follows.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Checks a whole record and appends a cell to each of `columns` (one a read, in order) and a row to `sites`; on an
    /// error nothing is appended.
    ///
    /// It accepts what `serde_json::Value` accepts, and nothing else.
    pub fn extract(&mut self, value: &[u8], columns: &mut [Column], sites: &mut Sites) -> Result<(), JsonError> {
        debug_assert_eq!(columns.len(), self.plan.reads().len());
        let kept = sites.sites.len();
        self.slots.fill(Slot::default());
        let mut walk = Walk {
            scanner: Scanner::new(value),
            plan: &self.plan,
            slots: &mut self.slots,
            keys: &mut self.keys,
            sites: &mut sites.sites,
            scratch: &mut self.scratch,
        };
        if let Err(error) = walk.record() {
            sites.sites.truncate(kept);
            return Err(error);
        }
        sites.end_row();
        for ((ty, node), column) in self.plan.read_slots().zip(columns) {
            cells::push(column, ty, value, self.slots[node], &mut self.scratch);
        }
        Ok(())
    }
}

/// The scan of one record.
struct Walk<'a> {
    scanner: Scanner<'a>,
    plan: &'a Plan,
    slots: &'a mut [Slot],
    keys: &'a mut [Keys],
    sites: &'a mut Vec<Site>,
    scratch: &'a mut Vec<u8>,
}

impl Walk<'_> {
    fn record(&mut self) -> Result<(), JsonError> {
        if self.scanner.bytes.len() > LONGEST_RECORD {
            return Err(JsonError { fault: Fault::TooLong, at: LONGEST_RECORD as u32 });
        }
        let start = self.scanner.skip_space(0);
        let end = self.node(0, start, start, 0)?;
        self.scanner.finish(end)
    }

    /// Scans the value that begins at `start`, whose key begins at `key`, and which is `node` of the plan.
    #[inline(always)]
    fn node(&mut self, node: u32, key: usize, start: usize, depth: usize) -> Result<usize, JsonError> {
        let plan = self.plan.node(node);
        if self.slots[node as usize].kind != Kind::Missing {
            self.forget(node);
        }
        let site = self.sites.len();
        if plan.is_written() {
            self.sites.push(Site::new(node, key, start));
            self.slots[node as usize].site = site as u32 + 1;
        }
        let (kind, mut end) = self.scanner.scalar(start)?;
        // Known before what is below is scanned, so that a duplicate of this member is seen as one.
        self.slots[node as usize].kind = kind;
        if matches!(kind, Kind::Object | Kind::Array) {
            end = match kind {
                _ if depth == MAX_DEPTH => return self.scanner.fail(Fault::Depth, start),
                _ if plan.children.is_empty() => self.scanner.value(start, depth)?.1,
                Kind::Object => self.object(node, end, depth + 1)?,
                _ => self.array(node, end, depth + 1)?,
            };
        }
        let slot = &mut self.slots[node as usize];
        slot.start = start as u32;
        slot.end = end as u32;
        if plan.is_written() {
            self.sites[site].end_at(end);
        }
        Ok(end)
    }

    /// Forgets what an earlier duplicate had at `node` and below.
    #[cold]
    fn forget(&mut self, node: u32) {
        let site = self.slots[node as usize].site;
        if site > 0 {
            self.sites[site as usize - 1].supersede();
        }
        let below = node as usize..self.plan.node(node).subtree_end as usize;
        self.slots[below].fill(Slot::default());
    }

    #[inline(never)]
    fn object(&mut self, node: u32, pos: usize, depth: usize) -> Result<usize, JsonError> {
        let mut pos = self.scanner.skip_space(pos);
        if self.scanner.byte(pos) == b'}' {
            return Ok(pos + 1);
        }
        let mut expected = 0;
        loop {
            let key = pos;
            let (child, value) = match self.keys[node as usize].guess(&self.scanner, key, &mut expected) {
                Some((child, length)) => (child, self.scanner.skip_space(key + length)),
                None => self.new_key(node, key, &mut expected)?,
            };
            let end = match child {
                Some(child) => self.node(child, key, value, depth)?,
                None => self.scanner.value(value, depth)?.1,
            };
            pos = self.scanner.skip_space(end);
            match self.scanner.byte(pos) {
                b',' => pos = self.scanner.skip_space(pos + 1),
                b'}' => return Ok(pos + 1),
                _ => return self.scanner.fail(Fault::Separator, pos),
            }
        }
    }

    /// Scans a key that was not guessed, with its colon, and learns it.
    #[inline(never)]
    fn new_key(&mut self, node: u32, key: usize, expected: &mut usize) -> Result<(Option<u32>, usize), JsonError> {
        if self.scanner.byte(key) != b'"' {
            return self.scanner.fail(Fault::Key, key);
        }
        let (end, escaped) = self.scanner.string(key + 1)?;
        let value = self.scanner.colon(end)?;
        let mut name = &self.scanner.bytes[key + 1..end - 1];
        if escaped {
            self.scratch.clear();
            unescape(name, self.scratch);
            name = self.scratch;
        }
        let child = self.plan.node(node).child_of_key(name);
        self.keys[node as usize].learn(&self.scanner.bytes[key..value], child, expected);
        Ok((child, value))
    }

    #[inline(never)]
    fn array(&mut self, node: u32, pos: usize, depth: usize) -> Result<usize, JsonError> {
        let mut pos = self.scanner.skip_space(pos);
        if self.scanner.byte(pos) == b']' {
            return Ok(pos + 1);
        }
        let plan = self.plan.node(node);
        for index in 0.. {
            let child = if Some(index) <= plan.max_index { plan.child_of_index(index) } else { None };
            let end = match child {
                Some(child) => self.node(child, pos, pos, depth)?,
                None => self.scanner.value(pos, depth)?.1,
            };
            pos = self.scanner.skip_space(end);
            match self.scanner.byte(pos) {
                b',' => pos = self.scanner.skip_space(pos + 1),
                b']' => return Ok(pos + 1),
                _ => break,
            }
        }
        self.scanner.fail(Fault::Separator, pos)
    }
}
