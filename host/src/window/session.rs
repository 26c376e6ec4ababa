//! The sessions of one key, as they lie in its state: one after the other, in the order of time.

use std::ops::Range;

/// Bytes before a session's state: first and last event, flags, the state's length.
const HEAD_BYTES: usize = 8 + 8 + 1 + 4;
const EMITTED: u8 = 1;

/// One session of a key; times in microseconds since 1970 UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Its first event.
    pub first_us: i64,
    /// Its last event.
    pub last_us: i64,
    /// True once its row was emitted as final.
    pub emitted: bool,
    /// Where its state lies in the entry's value.
    pub state: Range<usize>,
}

/// The sessions of one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sessions<'a> {
    value: &'a [u8],
}

impl<'a> Sessions<'a> {
    /// Sessions as an entry has them.
    pub(super) fn of(value: &'a [u8]) -> Self {
        Self { value }
    }

    /// All of them, in order.
    pub(super) fn iter(self) -> impl Iterator<Item = Session> + 'a {
        let mut at = 0;
        std::iter::from_fn(move || {
            let head = self.value.get(at..)?.first_chunk::<HEAD_BYTES>()?;
            let i64_at = |from: usize| head[from..].first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
            let bytes = head[17..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
            let start = at + HEAD_BYTES;
            at = start + bytes;
            Some(Session {
                first_us: i64_at(0),
                last_us: i64_at(8),
                emitted: head[16] & EMITTED != 0,
                state: start..at.min(self.value.len()),
            })
        })
    }

    /// When something is to be done about one of them: it closes, or it goes. `None` where there is none.
    pub(super) fn next_timer(self, gap_us: i64, reopen_us: i64) -> Option<i64> {
        let at = |session: Session| session.last_us + gap_us + if session.emitted { reopen_us } else { 0 };
        self.iter().map(at).min()
    }
}

impl Session {
    /// Appends it with a state.
    pub(super) fn push(&self, state: &[u8], to: &mut Vec<u8>) {
        to.extend(self.first_us.to_le_bytes());
        to.extend(self.last_us.to_le_bytes());
        to.push(if self.emitted { EMITTED } else { 0 });
        to.extend((state.len() as u32).to_le_bytes());
        to.extend_from_slice(state);
    }

    /// Moves the bounds of the session whose state begins at `state_start`, in place.
    pub(super) fn stretch(value: &mut [u8], state_start: usize, (first_us, last_us): (i64, i64)) {
        let head = &mut value[state_start - HEAD_BYTES..];
        head[..8].copy_from_slice(&first_us.to_le_bytes());
        head[8..16].copy_from_slice(&last_us.to_le_bytes());
    }
}
