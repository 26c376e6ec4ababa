//! From a record and what was written to the record that goes out; what was not written stays as it is, byte for byte.
//!
//! The output is the input copied from left to right, with gaps: `copied` says up to where the input was dealt with.

use std::sync::Arc;

use super::error::JsonError;
use super::plan::Plan;
use super::scan::is_space;
use super::sites::{Site, Sites};
use super::write;
use crate::record::{Op, Written};

/// Why what was written does not go into a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct SpliceError {
    /// The write that does not fit, as an index into the plan's writes.
    pub write: usize,
    /// Why.
    pub fault: SpliceFault,
}

/// Why a write does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpliceFault {
    /// A parent of the path is null, a boolean, a number or a string.
    #[error("a parent of the path is no object")]
    Parent,
    /// The path leads to an array's element that does not exist.
    #[error("the array has no such element, and elements are not created")]
    NoElement,
    /// An array's element was to be removed, which would move those after it to other paths.
    #[error("an element cannot be removed from an array")]
    RemoveElement,
    /// The text is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// The JSON is not valid, or too deep for its place.
    #[error("the JSON is not valid: {0}")]
    Json(JsonError),
    /// The number is infinite or NaN.
    #[error("JSON has no number that is not finite")]
    NotFinite,
    /// The text is no number.
    #[error("the decimal is no number as JSON writes it")]
    NotDecimal,
    /// The timestamp is beyond what its encoding holds.
    #[error("the timestamp is beyond its encoding's range")]
    TimestampRange,
    /// The column is not of the shape that its type has.
    #[error("the column is of another shape than its type")]
    Shape,
}

/// Writes records along a plan.
#[derive(Debug)]
pub struct Splicer {
    plan: Arc<Plan>,
    /// For each node the last splice in which it was there.
    present: Vec<u64>,
    splices: u64,
}

impl Splicer {
    /// A splicer that follows `plan`.
    pub fn new(plan: Arc<Plan>) -> Self {
        let present = vec![0; plan.nodes().len()];
        Self { plan, present, splices: 0 }
    }

    /// Appends the record `value`, which has its paths where `row` of `sites` says, with `written_row` of `written` (one
    /// a write, in order) applied; on an error `out` is as before.
    pub fn splice(
        &mut self,
        value: &[u8],
        (sites, row): (&Sites, usize),
        (written, written_row): (&[&Written], usize),
        out: &mut Vec<u8>,
    ) -> Result<(), SpliceError> {
        debug_assert_eq!(written.len(), self.plan.writes().len());
        if written.iter().all(|written| written.ops[written_row] == Op::Keep) {
            out.extend_from_slice(value);
            return Ok(());
        }
        self.splices += 1;
        let kept = out.len();
        let mut splice = Splice {
            plan: &self.plan,
            present: &mut self.present,
            now: self.splices,
            value,
            sites: sites.row(row),
            written,
            row: written_row,
            copied: 0,
            out,
        };
        let result = splice.record();
        if result.is_err() {
            out.truncate(kept);
        }
        result
    }
}

/// The splice of one record.
struct Splice<'a> {
    plan: &'a Plan,
    present: &'a mut [u64],
    now: u64,
    value: &'a [u8],
    /// The sites that were not reached yet.
    sites: &'a [Site],
    written: &'a [&'a Written],
    row: usize,
    /// The input up to here is in `out`, or left out.
    copied: usize,
    out: &'a mut Vec<u8>,
}

type Spliced = Result<(), SpliceError>;

impl Splice<'_> {
    fn record(&mut self) -> Spliced {
        if let Some(root) = self.next_site(self.value.len()) {
            self.parent(root)?;
        }
        self.copy_to(self.value.len());
        Ok(())
    }

    /// Takes the next site if it begins before `end`.
    fn next_site(&mut self, end: usize) -> Option<Site> {
        let (site, rest) = self.sites.split_first()?;
        if site.start as usize >= end {
            return None;
        }
        self.sites = rest;
        Some(*site)
    }

    /// Passes over the sites within `site`.
    fn skip_below(&mut self, site: Site) {
        while self.next_site(site.end()).is_some() {}
    }

    fn op(&self, write: u32) -> Op {
        self.written[write as usize].ops[self.row]
    }

    /// The first write at or below `node` that puts something there.
    #[inline(always)]
    fn puts(&self, node: u32) -> Option<u32> {
        let puts = |write: &u32| matches!(self.op(*write), Op::Set | Op::Null);
        match self.plan.node(node).write {
            Some(write) => Some(write).filter(puts),
            None => self.plan.writes_below(node).iter().copied().find(puts),
        }
    }

    fn changes(&self, node: u32) -> bool {
        self.plan.writes_below(node).iter().any(|write| self.op(*write) != Op::Keep)
    }

    fn copy_to(&mut self, end: usize) {
        if self.copied < end {
            self.out.extend_from_slice(&self.value[self.copied..end]);
            self.copied = end;
        }
    }

    /// Deals with a value that is written, or that is a parent of such.
    fn site(&mut self, site: Site) -> Spliced {
        if site.is_superseded() {
            // It does not count, but who looks at the bytes must not find there what was removed or replaced.
            if self.changes(site.node) {
                self.remove_member(site);
            }
            self.skip_below(site);
            return Ok(());
        }
        self.present[site.node as usize] = self.now;
        let Some(write) = self.plan.node(site.node).write else { return self.parent(site) };
        match self.op(write) {
            Op::Keep => Ok(()),
            Op::Remove if site.is_element() => fail(write, SpliceFault::RemoveElement),
            Op::Remove => {
                self.remove_member(site);
                Ok(())
            }
            Op::Set | Op::Null => {
                self.copy_to(site.start as usize);
                self.copied = site.end();
                self.put_value(write)
            }
        }
    }

    /// Deals with a parent of what is written.
    fn parent(&mut self, site: Site) -> Spliced {
        if !self.changes(site.node) {
            self.skip_below(site);
            return Ok(());
        }
        let bracket = self.value[site.start as usize];
        if bracket != b'{' && bracket != b'[' {
            return self.puts(site.node).map_or(Ok(()), |write| fail(write, SpliceFault::Parent));
        }
        while let Some(below) = self.next_site(site.end()) {
            self.site(below)?;
        }
        if bracket == b'{' { self.append_missing(site) } else { self.refuse_missing(site) }
    }

    /// Appends the members that an object lacks.
    fn append_missing(&mut self, object: Site) -> Spliced {
        let plan = self.plan;
        let mut comma = None;
        for child in plan.node(object.node).written_children() {
            if self.present[child.node as usize] == self.now || self.puts(child.node).is_none() {
                continue;
            }
            if comma.is_none() {
                self.copy_to(self.last_before(object.end() - 1));
            }
            if comma.unwrap_or_else(|| self.out.iter().rev().find(|byte| !is_space(**byte)) != Some(&b'{')) {
                self.out.push(b',');
            }
            comma = Some(true);
            self.out.extend_from_slice(&child.key_json);
            self.put(child.node)?;
        }
        Ok(())
    }

    fn refuse_missing(&self, array: Site) -> Spliced {
        let children = self.plan.node(array.node).written_children().iter().map(|child| child.node);
        let mut missing = children.filter(|child| self.present[*child as usize] != self.now);
        match missing.find_map(|child| self.puts(child)) {
            Some(write) => fail(write, SpliceFault::NoElement),
            None => Ok(()),
        }
    }

    /// Appends the value of a node that was missing: what is written there, or an object of what is written below.
    fn put(&mut self, node: u32) -> Spliced {
        let plan = self.plan.node(node);
        if let Some(write) = plan.write {
            return self.put_value(write);
        }
        self.out.push(b'{');
        let mut first = true;
        for child in plan.written_children() {
            if self.puts(child.node).is_some() {
                if !first {
                    self.out.push(b',');
                }
                first = false;
                self.out.extend_from_slice(&child.key_json);
                self.put(child.node)?;
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn put_value(&mut self, write: u32) -> Spliced {
        let written = self.written[write as usize];
        if self.op(write) == Op::Null {
            self.out.extend_from_slice(b"null");
            return Ok(());
        }
        let path = &self.plan.writes()[write as usize];
        write::value(written.ty, &written.data, self.row, path, self.out)
            .map_err(|fault| SpliceError { write: write as usize, fault })
    }

    /// Leaves a member out, with the comma before it; with the one after it where nothing is left before it.
    fn remove_member(&mut self, site: Site) {
        let key = site.key as usize;
        let before = self.last_before(key);
        let is_first = self.value[before - 1] == b'{';
        // If the members before it went, their last comma went too, and the copy stands right here.
        if !is_first && self.copied != key {
            self.copy_to(self.last_before(before - 1));
            self.copied = site.end();
            return;
        }
        self.copy_to(key);
        let after = self.first_from(site.end());
        self.copied = if self.value[after] == b',' { self.first_from(after + 1) } else { site.end() };
    }

    /// The end of what stands before `pos`, white space left aside.
    fn last_before(&self, pos: usize) -> usize {
        self.value[..pos].iter().rposition(|byte| !is_space(*byte)).map_or(0, |last| last + 1)
    }

    /// Where what follows `pos` begins, white space left aside.
    fn first_from(&self, pos: usize) -> usize {
        self.value[pos..].iter().position(|byte| !is_space(*byte)).map_or(self.value.len(), |first| pos + first)
    }
}

fn fail(write: u32, fault: SpliceFault) -> Spliced {
    Err(SpliceError { write: write as usize, fault })
}
