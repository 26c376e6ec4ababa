//! What a partition's task asks for, and what it is told.

use super::plan::Plan;
use crate::record::{Batch, Rows};

/// What to do next for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Commit this plan with the offset that the block begins at.
    Plan {
        /// The offset.
        first: i64,
        /// The plan.
        plan: Plan,
    },
    /// Look at the table: how many rows of these offsets it has, and how many blocks it has taken since.
    Look {
        /// The first offset.
        first: i64,
        /// The last.
        last: i64,
    },
    /// Send the block, whose bytes come back with the answer.
    Send {
        /// The first offset.
        first: i64,
        /// The last.
        last: i64,
        /// The rows.
        bytes: Vec<u8>,
    },
    /// Commit the block's end and its dead letters.
    Commit,
    /// Read again from this offset.
    Reread(i64),
}

/// What a record becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Encoded {
    /// A row, which was appended.
    Row,
    /// Nothing: it has no value.
    Tombstone,
    /// A dead letter.
    Unfit {
        /// Short name of the reason, for counters.
        code: &'static str,
        /// The reason, for people.
        why: String,
    },
}

/// Turns records into rows, and those that do not fit into dead letters.
pub(super) trait Encode {
    /// Appends one record's row to `out`, or says why there is none.
    fn row(&mut self, batch: &Batch, row: usize, out: &mut Vec<u8>) -> Encoded;
    /// Appends the dead letter of a record.
    fn dead_letter(&mut self, batch: &Batch, row: usize, code: &'static str, why: &str, to: &mut Rows);
}

/// What came of sending a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The rows are in the table.
    Done,
    /// The rows are in, or not; the same again.
    Unknown(String),
    /// The rows are not in; the same again.
    NotYet(String),
    /// The table may have the rows, and something behind it fails: the same again, but not for ever.
    Stuck(String),
    /// A row is refused, and nothing was written.
    Refused(String),
    /// A row is refused, and other parts of the block may have been written.
    RefusedInPart(String),
    /// The table is gone, or has other columns now; nothing was written.
    OtherTable(String),
}

/// When a step is taken, and what is known then.
pub(super) struct Moment<'a> {
    /// On the drain's clock.
    pub(super) now_ms: u64,
    /// The wall clock, in milliseconds since 1970 UTC.
    pub(super) wall_ms: u64,
    /// A count of the table's blocks, as of now or before.
    pub(super) blocks: u64,
    /// The token of a block by its first and last offset.
    pub(super) token: &'a dyn Fn(i64, i64) -> String,
}

/// What the table says of a block in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Rows with the block's coordinates; `None` where the table has no lineage columns.
    pub(super) rows: Option<u64>,
    /// True where all rows of a block become visible at once, so that one row vouches for all.
    pub(super) atomic: bool,
    /// The count of blocks now.
    pub(super) blocks: u64,
    /// How many blocks the server remembers, and for how long.
    pub(super) window_blocks: u64,
    /// See `window_blocks`.
    pub(super) window_ms: u64,
    /// The wall clock, in milliseconds since 1970 UTC.
    pub(super) now_ms: u64,
    /// For how long after the plan an insert may still be on its way to the server.
    pub(super) settle_ms: u64,
    /// The token that the block would be sent under now.
    pub(super) token: String,
    /// True while the server is still at work on an insert under the block's token.
    pub(super) running: bool,
}
