//! Session windows: a key's events that lie no farther apart than the gap.

use super::plan::Role;
use super::rows::Due;
use super::session::{Session, Sessions};
use super::spec::Kind;
use super::stage::{Fate, Piece, WindowStage};
use crate::plugin::{Rejection, StageError};
use crate::state::Entry;

impl WindowStage {
    /// Adds a piece whose events lie from the first to the second time to the session of `self.key` that it belongs to: one
    /// that is there, a new one, or several that it joins.
    pub(super) fn fold_session(
        &mut self,
        times_us: (i64, i64),
        gap_us: i64,
        piece: Piece<'_>,
    ) -> Result<Fate, StageError> {
        // Whether the session that it would belong to is still open where states are merged must not matter.
        let behind_us = self.keyed.clock.watermark_us.saturating_sub(self.plan.spec.reopen_us);
        if self.plan.role == Role::Partial && times_us.0 < behind_us {
            return Ok(Fate::Late);
        }
        let entry = self.keyed.store.find(0, &self.key);
        let Piece::Row(input, row) = piece else { return self.join(entry, times_us, gap_us, piece) };
        if let Some(entry) = entry
            && let Some(only) = self.only_open(entry, times_us, gap_us)
        {
            let bounds = (only.first_us.min(times_us.0), only.last_us.max(times_us.1));
            if let Some(plugin) = self.aggregate.plugin() {
                plugin.expect(row, entry);
                Session::stretch(self.keyed.store.value_mut(entry), only.state.start, bounds);
                return Ok(Fate::Folded);
            }
            if self.aggregate.is_fixed() {
                let value = self.keyed.store.value_mut(entry);
                self.aggregate.fold_state(&mut value[only.state.clone()], input.columns, row);
                Session::stretch(value, only.state.start, bounds);
                return Ok(Fate::Folded);
            }
        }
        let ends_later = times_us.1 + gap_us > self.keyed.clock.watermark_us;
        if entry.is_none()
            && ends_later
            && let Some(plugin) = self.aggregate.plugin()
        {
            // The first session of a key: it is there at once, and its state with the next call.
            self.value.clear();
            Session { first_us: times_us.0, last_us: times_us.1, emitted: false, state: 0..0 }
                .push(&[], &mut self.value);
            let entry = self.keyed.store.insert(0, &self.key, &self.value);
            plugin.expect(row, entry);
            self.expect(entry, gap_us);
            return Ok(Fate::Folded);
        }
        if let Some(why) = self.flush(input)?.into_iter().next() {
            return Ok(Fate::Rejected(why));
        }
        self.join(entry, times_us, gap_us, piece)
    }

    /// The only session of a key, where it is open and takes such events.
    fn only_open(&self, entry: Entry, (from_us, to_us): (i64, i64), gap_us: i64) -> Option<Session> {
        let mut sessions = Sessions::of(self.keyed.store.value(entry)).iter();
        let only = sessions.next().filter(|session| !session.emitted && takes(session, (from_us, to_us), gap_us))?;
        sessions.next().is_none().then_some(only)
    }

    /// Makes one session of the piece and all sessions that it belongs to.
    fn join(
        &mut self,
        entry: Option<Entry>,
        times_us: (i64, i64),
        gap_us: i64,
        piece: Piece<'_>,
    ) -> Result<Fate, StageError> {
        let old = entry.map(|entry| self.keyed.store.value(entry)).unwrap_or_default();
        let sessions: Vec<Session> = Sessions::of(old).iter().collect();
        let (joined, others): (Vec<&Session>, Vec<&Session>) =
            sessions.iter().partition(|session| takes(session, times_us, gap_us));
        let first_us = joined.iter().map(|session| session.first_us).chain([times_us.0]).min().unwrap_or(times_us.0);
        let last_us = joined.iter().map(|session| session.last_us).chain([times_us.1]).max().unwrap_or(times_us.1);
        let (end_us, watermark_us) = (last_us + gap_us, self.keyed.clock.watermark_us);
        if end_us.saturating_add(self.plan.spec.reopen_us) <= watermark_us {
            return Ok(Fate::Late);
        }
        let mut state = Vec::new();
        self.aggregate.push_empty(&mut state);
        for session in &joined {
            let mut merged = Vec::new();
            if let Err(why) = self.aggregate.merge(&state, &old[session.state.clone()], &mut merged)? {
                let row = if let Piece::Row(_, row) = piece { row } else { why.row };
                return Ok(Fate::Rejected(Rejection { row, ..why }));
            }
            state = merged;
        }
        let mut whole = Vec::new();
        let added = match piece {
            Piece::State(piece) => self.aggregate.merge(&state, piece, &mut whole)?,
            Piece::Row(input, row) => self.aggregate.fold(&state, (input, row), &mut whole)?,
        };
        if let Err(why) = added {
            return Ok(Fate::Rejected(why));
        }
        for session in joined.iter().filter(|session| session.emitted && session.first_us != first_us) {
            let bounds = (session.first_us, session.last_us + gap_us);
            self.due.push(bounds, &self.key, &old[session.state.clone()], true);
        }
        // Rows are the second level's, which knows the whole of a session.
        let emitted = end_us <= watermark_us && self.plan.role != Role::Partial;
        if emitted {
            self.due.push((first_us, end_us), &self.key, &whole, false);
        }
        self.value.clear();
        let session = Session { first_us, last_us, emitted, state: 0..0 };
        let before = |other: &&&Session| other.first_us < first_us;
        others.iter().take_while(before).for_each(|other| other.push(&old[other.state.clone()], &mut self.value));
        session.push(&whole, &mut self.value);
        others.iter().skip_while(before).for_each(|other| other.push(&old[other.state.clone()], &mut self.value));
        let entry = match entry {
            Some(entry) => {
                self.keyed.store.set(entry, &self.value);
                entry
            }
            None => self.keyed.store.insert(0, &self.key, &self.value),
        };
        self.expect(entry, gap_us);
        Ok(Fate::Folded)
    }

    /// Closes the sessions that ended up to the watermark, in the order of their ends and keys, and drops those that take no
    /// late events any more.
    pub(super) fn close_sessions(&mut self, gap_us: i64) {
        let (watermark_us, reopen_us) = (self.keyed.clock.watermark_us, self.plan.spec.reopen_us);
        let mut closing = std::mem::take(&mut self.closing);
        while let Some(entry) = self.keyed.timers.pop_due(watermark_us) {
            let Some((_, key)) = self.keyed.store.key(entry) else { continue };
            let value = self.keyed.store.value(entry);
            self.value.clear();
            let mut changed = false;
            for mut session in Sessions::of(value).iter() {
                let end_us = session.last_us + gap_us;
                let closes = !session.emitted && end_us <= watermark_us;
                if closes {
                    closing.push((session.first_us, end_us), key, &value[session.state.clone()], false);
                    session.emitted = true;
                }
                let goes = session.emitted && end_us.saturating_add(reopen_us) <= watermark_us;
                changed |= closes || goes;
                if !goes {
                    session.push(&value[session.state.clone()], &mut self.value);
                }
            }
            if self.value.is_empty() {
                self.keyed.store.remove(entry);
                continue;
            }
            if changed {
                self.keyed.store.set(entry, &self.value);
            }
            self.expect(entry, gap_us);
        }
        self.keyed.next_close_us = None;
        self.sort_into_due(&mut closing);
        self.closing = closing;
    }

    /// Makes the rows of all open sessions due, as they are.
    pub(super) fn show_open_sessions(&mut self, gap_us: i64) {
        let mut open = std::mem::take(&mut self.closing);
        self.keyed.store.visit(|_, _, key, value| {
            for session in Sessions::of(value).iter().filter(|session| !session.emitted) {
                open.push((session.first_us, session.last_us + gap_us), key, &value[session.state.clone()], false);
            }
        });
        self.sort_into_due(&mut open);
        self.closing = open;
    }

    fn sort_into_due(&mut self, from: &mut Due) {
        let mut order: Vec<usize> = (0..from.len()).collect();
        order.sort_unstable_by_key(|&row| (from.ends_us[row], from.keys.get(row), from.starts_us[row]));
        for row in order {
            let bounds = (from.starts_us[row], from.ends_us[row]);
            self.due.push(bounds, from.keys.get(row), from.states.get(row), false);
        }
        from.clear();
    }

    /// Has the sessions of an entry looked at when something is to be done about one of them.
    fn expect(&mut self, entry: Entry, gap_us: i64) {
        let sessions = Sessions::of(self.keyed.store.value(entry));
        if let Some(at_us) = sessions.next_timer(gap_us, self.plan.spec.reopen_us) {
            self.keyed.timers.push(at_us, entry);
            self.keyed.next_close_us = self.keyed.next_close_us.map(|known_us| known_us.min(at_us));
        }
    }

    /// Closes what ended up to the watermark, which was at `before_us`.
    pub(super) fn close(&mut self, before_us: i64) -> Result<(), StageError> {
        match self.plan.spec.kind {
            Kind::Fixed { .. } => self.close_fixed(before_us)?,
            Kind::Session { gap_us } => self.close_sessions(gap_us),
            Kind::Duplicates { within_us } => self.forget_times(within_us),
            Kind::Pairs { within_us } => self.part_halves(within_us),
        }
        Ok(())
    }

    /// Makes the rows of all open windows due, as they are.
    pub(super) fn show_open(&mut self) -> Result<(), StageError> {
        match self.plan.spec.kind {
            Kind::Fixed { .. } => self.show_open_fixed()?,
            Kind::Session { gap_us } => self.show_open_sessions(gap_us),
            Kind::Duplicates { .. } | Kind::Pairs { .. } => {}
        }
        Ok(())
    }
}

/// True where events from the first to the second time belong to a session.
fn takes(session: &Session, (from_us, to_us): (i64, i64), gap_us: i64) -> bool {
    from_us < session.last_us + gap_us && session.first_us < to_us + gap_us
}
