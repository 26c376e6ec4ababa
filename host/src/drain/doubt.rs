//! A block in doubt: what follows from what the table says of it.

use super::step::Found;
use super::task::{Stage, Task, short};

impl Task {
    /// The table was looked at, or could not be: then it is tried again.
    pub(super) fn looked(&mut self, found: Option<Found>, now_ms: u64) {
        self.busy = false;
        let Some(current) = &mut self.current else { return };
        let Some(found) = found.filter(|found| !found.running) else { return current.back_off(now_ms) };
        if let Some(why) = current.refused.take() {
            return self.looked_at_refused(found, why);
        }
        let same = current.plan.sum == current.block.sum() && current.plan.rows == current.block.rows.len() as u64;
        // Under another token (another epoch, output, topic or table) the server would not know the block again.
        let same_token = current.plan.token == short(found.token.clone());
        let since_ms = found.now_ms.saturating_sub(current.plan.at_ms);
        let blocks = found.blocks.checked_sub(current.plan.blocks);
        // Half of the window is left to what others write until the block arrives.
        let remembered = same_token
            && blocks.is_some_and(|blocks| blocks < found.window_blocks / 2)
            && since_ms < found.window_ms / 2;
        // What may still be on its way to the server is waited out before other blocks are made of the same records.
        let may_arrive = since_ms < found.settle_ms;
        let rows = current.plan.rows;
        match found.rows {
            _ if same && remembered => current.looked = true,
            Some(0) if same => current.looked = true,
            Some(0) if may_arrive => current.back_off(now_ms),
            // Nothing is there: it may as well be made anew, from what the records are today.
            Some(0) => self.restart(None),
            Some(there) if same_token && (there >= rows || found.atomic) => {
                (current.stage, current.tries, current.retry_at_ms) = (Stage::Sent, 0, 0);
            }
            Some(there) => {
                let why = format!("the table has {there} of the {rows} rows");
                self.stop_in_doubt(&why, same);
            }
            None => self.stop_in_doubt("the table has no lineage columns to tell by", same),
        }
    }

    /// What was refused at last, and may have been taken at first.
    fn looked_at_refused(&mut self, found: Found, why: String) {
        let Some(current) = self.current.take() else { return };
        if found.rows == Some(0) {
            return self.refuse(current.block, why);
        }
        let (place, first, last) = (&self.place, current.block.first, current.plan.last);
        let why = format!(
            "{place}: the table refuses the block of offsets {first} to {last}, which it may have taken before: {why}"
        );
        self.current = Some(current);
        self.stop(why);
    }

    fn stop_in_doubt(&mut self, why: &str, same: bool) {
        let Some(current) = &self.current else { return };
        let (first, last, rows) = (current.block.first, current.plan.last, current.plan.rows);
        let reason = if same {
            "was sent so long ago that the server may have forgotten it"
        } else {
            "can't be made again as it was sent: the table, the config or Millstream has changed since"
        };
        let place = &self.place;
        self.stop(format!(
            "{place}: the block of offsets {first} to {last} ({rows} rows) {reason}, and {why}. Nothing more is inserted \
             from this partition. See whether the rows are there; then move the group to {} where they are, or to {first} \
             where they are not, with `millstream offsets reset --output`",
            last + 1
        ));
    }
}
