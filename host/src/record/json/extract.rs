//! From a record to cells: the text is scanned once along the plan, then each read is converted.

use std::sync::Arc;

use super::cells;
use super::error::{Fault, JsonError};
use super::keys::{Key, Keys};
use super::plan::Plan;
use super::scan::{Kind, Scanner, unescape};
use super::sites::{Site, Sites};
use super::span::Span;
use super::{LONGEST_RECORD, MAX_DEPTH};
use crate::record::Column;

/// Reads records along a plan; keeps what it learnt of their keys.
#[derive(Debug)]
pub struct Extractor {
    plan: Arc<Plan>,
    slots: Vec<Slot>,
    keys: Vec<ObjectKeys>,
    scratch: Vec<u8>,
}

/// What an object's first key was, and what followed another member.
#[derive(Debug, Default)]
struct ObjectKeys {
    first: Keys,
    next: Keys,
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

impl Slot {
    /// The whole of a text of `len` bytes.
    pub(super) fn whole(kind: Kind, len: usize) -> Self {
        Self { start: 0, end: len as u32, kind, site: 0 }
    }
}

impl Extractor {
    /// An extractor that follows `plan`.
    pub fn new(plan: Arc<Plan>) -> Self {
        let nodes = plan.nodes().len();
        let keys = (0..nodes).map(|_| ObjectKeys::default()).collect();
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
        if let Err(error) = self.walk(value, &mut sites.sites) {
            sites.sites.truncate(kept);
            return Err(error);
        }
        sites.end_row();
        for (read, column) in self.plan.reads_by_node().iter().zip(columns) {
            cells::push(column, read.ty, value, &self.slots[read.node as usize], &mut self.scratch);
        }
        Ok(())
    }

    /// Checks a whole record as [`Extractor::extract`] does, and keeps where the reads stand for [`Extractor::span`]; for
    /// those who convert values themselves. What the plan writes is of no account here.
    pub fn locate(&mut self, value: &[u8]) -> Result<(), JsonError> {
        self.walk(value, &mut Vec::new())
    }

    /// Where a read stands in the record that was located last.
    #[inline]
    pub fn span(&self, read: usize) -> Span {
        let slot = &self.slots[self.plan.reads_by_node()[read].node as usize];
        Span { kind: slot.kind, start: slot.start, end: slot.end }
    }

    #[inline(always)]
    fn walk(&mut self, value: &[u8], sites: &mut Vec<Site>) -> Result<(), JsonError> {
        self.slots.fill(Slot::default());
        let (plan, slots, keys, scratch) = (&self.plan, &mut self.slots, &mut self.keys, &mut self.scratch);
        Walk { plan, slots, keys, sites, scratch }.record(Scanner::new(value))
    }
}

/// The scan of one record.
struct Walk<'a> {
    plan: &'a Plan,
    slots: &'a mut [Slot],
    keys: &'a mut [ObjectKeys],
    sites: &'a mut Vec<Site>,
    scratch: &'a mut Vec<u8>,
}

impl Walk<'_> {
    fn record(&mut self, text: Scanner) -> Result<(), JsonError> {
        if text.bytes.len() > LONGEST_RECORD {
            return Err(JsonError { fault: Fault::TooLong, at: LONGEST_RECORD as u32 });
        }
        text.check_utf8()?;
        let start = text.skip_space(0);
        let end = self.node(text, 0, start, start, 0)?;
        text.finish(end)
    }

    /// Scans the value that begins at `start`, whose key begins at `key`, and which is `node` of the plan.
    #[inline(never)]
    fn node(&mut self, text: Scanner, node: u32, key: u32, start: u32, depth: usize) -> Result<u32, JsonError> {
        let is_written = self.plan.node(node).is_written;
        let site = self.sites.len();
        if is_written {
            self.sites.push(Site::new(node, key, start));
        }
        let (kind, mut end) = text.scalar(start, text.byte(start))?;
        if matches!(kind, Kind::Object | Kind::Array) {
            end = self.container(text, node, kind, start, depth)?;
        }
        let slot = &mut self.slots[node as usize];
        *slot = Slot { start, end, kind, site: 0 };
        if is_written {
            slot.site = site as u32 + 1;
            self.sites[site].end_at(end);
        }
        Ok(end)
    }

    /// Scans the member that is `node` of the plan; the quick way for what is a leaf and only read.
    #[inline(always)]
    fn member(&mut self, text: Scanner, node: u32, key: u32, start: u32, depth: usize) -> Result<u32, JsonError> {
        if self.slots[node as usize].kind != Kind::Missing {
            self.forget(node);
        }
        let lead = text.byte(start);
        if lead == b'{' || lead == b'[' || self.plan.node(node).is_written {
            return self.node(text, node, key, start, depth);
        }
        let (kind, end) = text.scalar(start, lead)?;
        self.slots[node as usize] = Slot { start, end, kind, site: 0 };
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

    #[inline(always)]
    fn container(&mut self, text: Scanner, node: u32, kind: Kind, start: u32, depth: usize) -> Result<u32, JsonError> {
        if depth == MAX_DEPTH {
            return text.fail(Fault::Depth, start);
        }
        match kind {
            _ if self.plan.node(node).children.is_empty() => text.value(start, depth),
            Kind::Object => self.object(text, node, start + 1, depth + 1),
            _ => self.array(text, node, start + 1, depth + 1),
        }
    }

    /// Scans an object from behind its brace on.
    #[inline(never)]
    fn object(&mut self, text: Scanner, node: u32, start: u32, depth: usize) -> Result<u32, JsonError> {
        let mut end = start;
        let mut key = self.keys[node as usize].first.guess(text, text.block(end), end, &mut 0);
        let mut expected = 0;
        loop {
            let Key { child, at, len } = match key {
                Some(key) => key,
                None => match self.new_key(text, node, end, end == start, &mut expected)? {
                    Some(key) => key,
                    None => return Ok(text.skip_space(end) + 1),
                },
            };
            let value = text.skip_space(end + len);
            end = match child {
                Some(child) => self.member(text, child, end + at, value, depth)?,
                None => text.value(value, depth)?,
            };
            let block = text.block(end);
            if block as u8 == b'}' {
                return Ok(end + 1);
            }
            key = self.keys[node as usize].next.guess(text, block, end, &mut expected);
        }
    }

    /// Scans from the end of a value, or the opening brace, to the next value, and learns it; `None` where the object
    /// ends.
    #[inline(never)]
    fn new_key(
        &mut self,
        text: Scanner,
        node: u32,
        end: u32,
        first: bool,
        expected: &mut usize,
    ) -> Result<Option<Key>, JsonError> {
        let mut at = text.skip_space(end);
        match text.byte(at) {
            b'}' => return Ok(None),
            _ if first => {}
            b',' => at = text.skip_space(at + 1),
            _ => return text.fail(Fault::Separator, at),
        }
        if text.byte(at) != b'"' {
            return text.fail(Fault::Key, at);
        }
        let (key_end, escaped) = text.string(at + 1)?;
        let value = text.colon(key_end)?;
        let mut name = &text.bytes[at as usize + 1..key_end as usize - 1];
        if escaped {
            self.scratch.clear();
            unescape(name, self.scratch);
            name = self.scratch;
        }
        let key = Key { child: self.plan.node(node).child_of_key(name), at: at - end, len: value - end };
        let whole = &text.bytes[end as usize..value as usize];
        let keys = &mut self.keys[node as usize];
        if first {
            keys.first.learn(whole, key, &mut 0);
        } else {
            keys.next.learn(whole, key, expected);
        }
        Ok(Some(key))
    }

    fn array(&mut self, text: Scanner, node: u32, start: u32, depth: usize) -> Result<u32, JsonError> {
        let mut pos = text.skip_space(start);
        if text.byte(pos) == b']' {
            return Ok(pos + 1);
        }
        let plan = self.plan;
        let plan = plan.node(node);
        for index in 0.. {
            let child = if Some(index) <= plan.max_index { plan.child_of_index(index) } else { None };
            let end = match child {
                Some(child) => self.node(text, child, pos, pos, depth)?,
                None => text.value(pos, depth)?,
            };
            pos = text.skip_space(end);
            match text.byte(pos) {
                b',' => pos = text.skip_space(pos + 1),
                b']' => return Ok(pos + 1),
                _ => break,
            }
        }
        text.fail(Fault::Separator, pos)
    }
}
