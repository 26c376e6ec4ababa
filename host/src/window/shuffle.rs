//! What passes between the two levels: states of a partition's records, and marks of how far it has got.

use super::clock::Mark;
use super::halves::Half;

const PART: u8 = 0;
const MARK: u8 = 1;
const HALF: u8 = 2;

/// A record of the internal topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// The state of one key's records of one commit; the record's key is the group's.
    Part {
        /// The bucket in the state.
        bucket: i64,
        /// The end of the first window that it counts for; those before were closed where its records came from.
        first_end_us: i64,
        /// The state as an entry has it.
        value: &'a [u8],
    },
    /// A record that may be part of pairs; the message's key is what they have in common.
    Half(Half<'a>),
    /// How far a partition has got; sent to every partition of the topic.
    Mark {
        /// The source's partition.
        partition: u32,
        /// How many of these there are.
        partitions: u32,
        /// What it says.
        mark: Mark,
    },
}

/// Appends the value of a state's record.
pub(super) fn push_part(bucket: i64, first_end_us: i64, value: &[u8], to: &mut Vec<u8>) {
    to.push(PART);
    to.extend(bucket.to_le_bytes());
    to.extend(first_end_us.to_le_bytes());
    to.extend_from_slice(value);
}

/// Appends the value of a half's record.
pub(super) fn push_half(half: &Half<'_>, to: &mut Vec<u8>) {
    to.push(HALF);
    half.push(to);
}

/// The value of a mark's record.
pub(super) fn mark((partition, partitions): (u32, u32), mark: Mark) -> Vec<u8> {
    let mut to = vec![MARK];
    to.extend(partition.to_le_bytes());
    to.extend(partitions.to_le_bytes());
    to.extend(mark.watermark_us.to_le_bytes());
    to.push(u8::from(mark.idle));
    to
}

/// Reads a record's value; `None` where it is none of ours.
pub(super) fn read(value: &[u8]) -> Option<Message<'_>> {
    let (&kind, rest) = value.split_first()?;
    match kind {
        PART => {
            let (bucket, rest) = rest.split_first_chunk()?;
            let (first_end_us, value) = rest.split_first_chunk()?;
            let (bucket, first_end_us) = (i64::from_le_bytes(*bucket), i64::from_le_bytes(*first_end_us));
            Some(Message::Part { bucket, first_end_us, value })
        }
        MARK => {
            let (partition, rest) = rest.split_first_chunk()?;
            let (partitions, rest) = rest.split_first_chunk()?;
            let (watermark_us, rest) = rest.split_first_chunk()?;
            let &[idle] = rest else { return None };
            let mark = Mark { watermark_us: i64::from_le_bytes(*watermark_us), idle: idle == 1 };
            let (partition, partitions) = (u32::from_le_bytes(*partition), u32::from_le_bytes(*partitions));
            Some(Message::Mark { partition, partitions, mark })
        }
        HALF => Half::read(rest).filter(|(_, rest)| rest.is_empty()).map(|(half, _)| Message::Half(half)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_can_be_read_back_and_nothing_else() {
        let mut part = Vec::new();
        push_part(-7, 9, b"state", &mut part);
        assert_eq!(read(&part), Some(Message::Part { bucket: -7, first_end_us: 9, value: b"state" }));
        let said = Mark { watermark_us: i64::MIN, idle: true };
        let bytes = mark((3, 4), said);
        assert_eq!(read(&bytes), Some(Message::Mark { partition: 3, partitions: 4, mark: said }));
        (0..bytes.len()).for_each(|cut| assert_eq!(read(&bytes[..cut]).filter(|_| cut > 9), None));
        assert_eq!(read(b"\x07"), None);
    }
}
