//! The consumer's half: polling, assignments, positions, commits.

use std::ffi::CStr;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;

use super::list::{List, bytes, read_list};
use super::{Client, c_string, check, lock, millis, owned, take};
use crate::kafka::error::{KafkaError, RawError};
use crate::kafka::types::{Partition, Position};

/// A message as librdkafka holds it, valid until the visitor returns.
pub(in crate::kafka) struct Message<'a>(&'a sys::rd_kafka_message_t);

impl<'a> Message<'a> {
    /// Where the message comes from; cheap to compare, and the same as long as topic and partition are.
    pub(in crate::kafka) fn origin(&self) -> (usize, i32) {
        (self.0.rkt as usize, self.0.partition)
    }

    /// The topic's name; empty for an error that belongs to none.
    pub(in crate::kafka) fn topic(&self) -> &'a str {
        if self.0.rkt.is_null() {
            return "";
        }
        // SAFETY: the message keeps its topic, and a topic's name is legal ASCII that ends with NUL.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.0.rkt)) }.to_str().unwrap_or_default()
    }

    pub(in crate::kafka) fn partition(&self) -> i32 {
        self.0.partition
    }

    pub(in crate::kafka) fn offset(&self) -> i64 {
        self.0.offset
    }

    /// An error or event in place of a record: the code, and the text in the value.
    pub(in crate::kafka) fn failure(&self) -> Option<RawError> {
        check(self.0.err).err()
    }

    pub(in crate::kafka) fn timestamp_ms(&self) -> i64 {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid.
        unsafe { sys::rd_kafka_message_timestamp(self.0, &mut kind) }
    }

    pub(in crate::kafka) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: a non-null key has `key_len` bytes and lives as long as the message.
        unsafe { bytes(self.0.key, self.0.key_len) }
    }

    pub(in crate::kafka) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: a non-null payload has `len` bytes and lives as long as the message.
        unsafe { bytes(self.0.payload, self.0.len) }
    }

    /// Shows every header to `see`.
    pub(in crate::kafka) fn headers(&self, mut see: impl FnMut(&[u8], Option<&[u8]>)) {
        let mut headers = null_mut();
        // SAFETY: the headers, their names and values live as long as the message.
        unsafe {
            if sys::rd_kafka_message_headers(self.0, &mut headers) as i32 != 0 {
                return;
            }
            let (mut name, mut value, mut value_bytes) = (null(), null(), 0);
            for i in 0..sys::rd_kafka_header_cnt(headers) {
                if sys::rd_kafka_header_get_all(headers, i, &mut name, &mut value, &mut value_bytes) as i32 == 0 {
                    see(CStr::from_ptr(name).to_bytes(), bytes(value, value_bytes));
                }
            }
        }
    }
}

/// Frees the messages of a poll, also when the visitor panics.
struct Polled<'a>(&'a [*mut sys::rd_kafka_message_t]);

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        // SAFETY: each message is ours since the poll and is destroyed once.
        self.0.iter().for_each(|&message| unsafe { sys::rd_kafka_message_destroy(message) });
    }
}

/// The group, generation and member that a transaction's offsets are committed for; taken anew for each commit.
pub struct GroupMetadata(pub(super) *mut sys::rd_kafka_consumer_group_metadata_t);

// SAFETY: plain data of its own, with no tie to the consumer that it came from.
unsafe impl Send for GroupMetadata {}

impl GroupMetadata {
    /// The generation, or with KIP-848 the member's epoch; -1 outside of a group.
    pub fn generation(&self) -> i32 {
        // SAFETY: valid as long as `self`.
        unsafe { sys::rd_kafka_consumer_group_metadata_generation_id(self.0) }
    }

    /// The member's id; empty outside of a group.
    pub fn member(&self) -> String {
        // SAFETY: valid as long as `self`.
        unsafe { owned(sys::rd_kafka_consumer_group_metadata_member_id(self.0)) }
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0) }
    }
}

type Positions = Vec<(Position, Result<(), RawError>)>;

impl Client {
    /// Shows up to `max` messages to `see`: those that wait, or, where none does, what comes first within `timeout`.
    /// Returns at once when the group changes the assignment.
    pub(in crate::kafka) fn poll(&mut self, timeout: Duration, max: usize, mut see: impl FnMut(&Message<'_>)) -> usize {
        let mut messages = std::mem::take(&mut self.messages);
        messages.clear();
        messages.resize(max.max(1), null_mut());
        // SAFETY: the queue is live, and the buffer has as much room as we say. Each message is ours from here on.
        let polled = unsafe {
            let mut count = self.take_waiting(&mut messages);
            if count == 0 && lock(&self.shared.changes).is_empty() {
                let first = sys::rd_kafka_consumer_poll(self.rk, millis(timeout));
                if !first.is_null() {
                    messages[0] = first;
                    count = 1 + self.take_waiting(&mut messages[1..]);
                }
            }
            Polled(&messages[..count])
        };
        for &message in polled.0 {
            // SAFETY: valid until `polled` frees it.
            see(&Message(unsafe { &*message }));
        }
        let count = polled.0.len();
        drop(polled);
        self.messages = messages;
        count
    }

    /// # Safety
    /// The client is a consumer.
    unsafe fn take_waiting(&self, messages: &mut [*mut sys::rd_kafka_message_t]) -> usize {
        // SAFETY: as above. A negative count is an error that librdkafka reports again as a message.
        let count = unsafe { sys::rd_kafka_consume_batch_queue(self.queue, 0, messages.as_mut_ptr(), messages.len()) };
        usize::try_from(count).unwrap_or(0)
    }

    pub(in crate::kafka) fn subscribe(&mut self, topics: &[&str]) -> Result<(), KafkaError> {
        let partitions: Vec<_> = topics.iter().map(|&topic| Partition { topic: topic.into(), partition: -1 }).collect();
        let list = List::of(&partitions)?;
        // SAFETY: the list lives during the call.
        check(unsafe { sys::rd_kafka_subscribe(self.rk, list.0) }).map_err(|error| error.sort("subscribe"))
    }

    /// Adds partitions to the assignment, each from its offset; this is also the answer to the group.
    pub(in crate::kafka) fn assign(&mut self, positions: &[Position]) -> Result<(), KafkaError> {
        self.settled = true;
        let list = List::new(positions)?;
        // SAFETY: the list lives during the call.
        take(unsafe { sys::rd_kafka_incremental_assign(self.rk, list.0) }).map_err(|e| e.sort("assign partitions"))
    }

    /// Takes partitions out of the assignment; this is also the answer to the group.
    pub(in crate::kafka) fn unassign(&mut self, partitions: &[Partition]) -> Result<(), KafkaError> {
        self.settled = true;
        let list = List::of(partitions)?;
        // SAFETY: the list lives during the call.
        take(unsafe { sys::rd_kafka_incremental_unassign(self.rk, list.0) }).map_err(|e| e.sort("give up partitions"))
    }

    pub(in crate::kafka) fn assignment(&self) -> Result<Vec<Partition>, KafkaError> {
        let mut list = null_mut();
        // SAFETY: on success the list is ours.
        check(unsafe { sys::rd_kafka_assignment(self.rk, &mut list) }).map_err(|e| e.sort("read the assignment"))?;
        let positions = List(list).positions();
        Ok(positions.into_iter().map(|(p, _)| Partition { topic: p.topic, partition: p.partition }).collect())
    }

    pub(in crate::kafka) fn seek(&mut self, positions: &[Position], timeout: Duration) -> Result<(), KafkaError> {
        let list = List::new(positions)?;
        // SAFETY: the list lives during the call, which waits for the seek to be done.
        take(unsafe { sys::rd_kafka_seek_partitions(self.rk, list.0, millis(timeout)) })
            .and_then(|()| list.positions().into_iter().try_for_each(|(_, result)| result))
            .map_err(|error| error.sort("seek"))
    }

    pub(in crate::kafka) fn pause(&mut self, partitions: &[Partition], paused: bool) -> Result<(), KafkaError> {
        let list = List::of(partitions)?;
        let (result, doing) = if paused {
            // SAFETY: the list lives during the call.
            (unsafe { sys::rd_kafka_pause_partitions(self.rk, list.0) }, "pause partitions")
        } else {
            // SAFETY: as above.
            (unsafe { sys::rd_kafka_resume_partitions(self.rk, list.0) }, "resume partitions")
        };
        check(result)
            .and_then(|()| list.positions().into_iter().try_for_each(|(_, result)| result))
            .map_err(|error| error.sort(doing))
    }

    /// The group's committed offsets with their metadata; negative where there is none.
    pub(in crate::kafka) fn committed(&self, of: &[Partition], timeout: Duration) -> Result<Positions, KafkaError> {
        let list = List::of(of)?;
        // SAFETY: the list lives during the call, which fills in offsets, metadata and errors.
        check(unsafe { sys::rd_kafka_committed(self.rk, list.0, millis(timeout)) })
            .map_err(|error| error.sort("read committed offsets"))?;
        Ok(list.positions())
    }

    /// The offsets after the last record given out; negative where there was none.
    pub(in crate::kafka) fn positions(&self, of: &[Partition]) -> Result<Positions, KafkaError> {
        let list = List::of(of)?;
        // SAFETY: as above.
        check(unsafe { sys::rd_kafka_position(self.rk, list.0) }).map_err(|error| error.sort("read positions"))?;
        Ok(list.positions())
    }

    /// Sends offsets to the group; the answer comes by [`Client::commit_result`].
    pub(in crate::kafka) fn commit(&mut self, positions: &[Position]) -> Result<(), KafkaError> {
        let list = List::new(positions)?;
        // SAFETY: the list is copied; without a callback the answer is an event on our queue.
        check(unsafe { sys::rd_kafka_commit_queue(self.rk, list.0, self.answers, None, null_mut()) })
            .map_err(|error| error.sort("commit offsets"))
    }

    /// The answer to the oldest commit that is not answered yet, if it comes within `timeout`.
    pub(in crate::kafka) fn commit_result(&mut self, timeout: Duration) -> Option<(Result<(), RawError>, Positions)> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // SAFETY: an event is ours until it is destroyed, and its list lives as long.
            unsafe {
                let event = sys::rd_kafka_queue_poll(self.answers, millis(left));
                if event.is_null() {
                    return None;
                }
                let is_commit = sys::rd_kafka_event_type(event) == sys::RD_KAFKA_EVENT_OFFSET_COMMIT;
                let answer = is_commit.then(|| {
                    let result = check(sys::rd_kafka_event_error(event));
                    (result, read_list(sys::rd_kafka_event_topic_partition_list(event)))
                });
                sys::rd_kafka_event_destroy(event);
                if answer.is_some() {
                    return answer;
                }
            }
        }
    }

    /// Who we are in the group; `None` for a consumer without one.
    pub(in crate::kafka) fn group_metadata(&self) -> Option<GroupMetadata> {
        // SAFETY: the handle is live, and a result that is not null is ours.
        let metadata = unsafe { sys::rd_kafka_consumer_group_metadata(self.rk) };
        (!metadata.is_null()).then_some(GroupMetadata(metadata))
    }

    /// First and next offset of a partition as the broker has them now; the next offset is the high watermark, or for a
    /// read_committed client the last stable offset.
    pub(in crate::kafka) fn watermarks(&self, of: &Partition, timeout: Duration) -> Result<(i64, i64), KafkaError> {
        let topic = c_string(&of.topic, "topic")?;
        let (mut low, mut high) = (0, 0);
        // SAFETY: the pointers live during the call.
        let result = unsafe {
            sys::rd_kafka_query_watermark_offsets(
                self.rk,
                topic.as_ptr(),
                of.partition,
                &mut low,
                &mut high,
                millis(timeout),
            )
        };
        check(result).map_err(|error| error.sort("read watermark offsets"))?;
        Ok((low, high))
    }

    /// For each position, whose offset is a time in milliseconds since 1970, the first offset of that time or later; -1
    /// where there is none.
    pub(in crate::kafka) fn offsets_for_times(
        &self,
        times: &[Position],
        wait: Duration,
    ) -> Result<Positions, KafkaError> {
        let list = List::new(times)?;
        // SAFETY: the list lives during the call, which fills in offsets and errors.
        check(unsafe { sys::rd_kafka_offsets_for_times(self.rk, list.0, millis(wait)) })
            .map_err(|error| error.sort("find offsets by time"))?;
        Ok(list.positions())
    }

    /// First and next offset as the last fetch saw them; `None` before the first.
    pub(in crate::kafka) fn cached_watermarks(&self, of: &Partition) -> Option<(i64, i64)> {
        let topic = c_string(&of.topic, "topic").ok()?;
        let (mut low, mut high) = (0, 0);
        // SAFETY: the pointers live during the call.
        let result =
            unsafe { sys::rd_kafka_get_watermark_offsets(self.rk, topic.as_ptr(), of.partition, &mut low, &mut high) };
        (result as i32 == 0 && low >= 0 && high >= 0).then_some((low, high))
    }

    /// Ends the consumer without leaving the group, as a crash would.
    pub(in crate::kafka) fn vanish(&mut self) {
        self.vanish = true;
    }
}
