//! The producer's half: enqueueing rows, waiting for their delivery, transactions.

use std::ffi::c_int;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_vtype_t as vtype;

use super::list::List;
use super::{Client, GroupMetadata, c_string, check, millis, owned, raw, take};
use crate::kafka::error::{KafkaError, RawError, code};
use crate::kafka::types::Position;
use crate::record::Rows;

/// Values above this many bytes are copied by librdkafka, which would otherwise refer to them from requests on the wire.
const COPY_ABOVE_BYTES: usize = 60_000;
/// How long a call of librdkafka may take before failed deliveries are looked at, which it would wait for.
const SLICE: Duration = Duration::from_millis(20);
/// Buffers that are kept for further use.
const SPARE_ROWS: usize = 8;

/// A message that could not be delivered.
#[derive(Clone, Debug)]
pub(in crate::kafka) struct Undelivered {
    pub(in crate::kafka) topic: String,
    pub(in crate::kafka) partition: i32,
    pub(in crate::kafka) tag: usize,
    pub(in crate::kafka) error: RawError,
}

/// A topic that this client made ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::kafka) struct TopicIndex(pub(in crate::kafka) usize);

/// Why a run of rows was not taken whole.
#[derive(Clone, Debug)]
pub(in crate::kafka) enum Stop {
    /// The client's queue is full; the rest may be tried again.
    Full,
    /// This row, by its index, was refused.
    Row(usize, RawError),
}

impl Client {
    /// Makes a topic ready for producing; it need not exist yet.
    pub(in crate::kafka) fn add_topic(&mut self, name: &str) -> Result<TopicIndex, KafkaError> {
        let c_name = c_string(name, "topic")?;
        // SAFETY: the name lives during the call; a null configuration means the default's copy.
        let topic = unsafe { sys::rd_kafka_topic_new(self.rk, c_name.as_ptr(), null_mut()) };
        if topic.is_null() {
            // SAFETY: reads this thread's last error.
            return Err(raw(unsafe { sys::rd_kafka_last_error() }).sort("open the topic"));
        }
        self.topics.push(topic);
        Ok(TopicIndex(self.topics.len() - 1))
    }

    /// Takes rows over until they are delivered; returns the number to produce them by.
    pub(in crate::kafka) fn hold(&mut self, rows: Rows) -> usize {
        self.in_flight.push(rows);
        self.in_flight.len() - 1
    }

    /// Enqueues the rows `indexes` of those held under `number`, in order; returns how many were taken, and why not all.
    /// Failures are reported later under `tag(index)`.
    pub(in crate::kafka) fn enqueue(
        &mut self,
        number: usize,
        (topic, partition): (TopicIndex, i32),
        indexes: impl Iterator<Item = usize>,
        tag: impl Fn(usize) -> usize,
    ) -> (usize, Option<Stop>) {
        let rows = &self.in_flight[number];
        let mut message = Outgoing::new(self.topics[topic.0], partition);
        let mut taken = 0;
        for index in indexes {
            // SAFETY: `rows` stays unchanged in `in_flight` until no message is outstanding, and its buffers do not move
            // when the vector of rows grows.
            if let Err(error) = unsafe { message.send(self.rk, rows, index, tag(index)) } {
                let full = error.code == code::QUEUE_FULL;
                return (taken, Some(if full { Stop::Full } else { Stop::Row(index, error) }));
            }
            taken += 1;
        }
        (taken, None)
    }

    /// Serves callbacks and returns messages that were not delivered.
    pub(in crate::kafka) fn undelivered(&mut self) -> Vec<Undelivered> {
        let mut failed = Vec::new();
        // SAFETY: an event is ours until it is destroyed, its messages live as long, and each is read before that.
        unsafe {
            loop {
                let event = sys::rd_kafka_queue_poll(self.queue, 0);
                if event.is_null() {
                    return failed;
                }
                loop {
                    let message = sys::rd_kafka_event_message_next(event);
                    if message.is_null() {
                        break;
                    }
                    let message = &*message;
                    if let Err(error) = check(message.err) {
                        let topic = owned(sys::rd_kafka_topic_name(message.rkt));
                        let tag = message._private as usize;
                        failed.push(Undelivered { topic, partition: message.partition, tag, error });
                    }
                }
                sys::rd_kafka_event_destroy(event);
            }
        }
    }

    /// Messages that are neither delivered nor reported as failed.
    pub(in crate::kafka) fn outstanding(&self) -> usize {
        // SAFETY: the handle is live.
        usize::try_from(unsafe { sys::rd_kafka_outq_len(self.rk) }).unwrap_or(0)
    }

    /// Waits until every message is delivered or reported as failed; the failed ones are added to `failed`.
    pub(in crate::kafka) fn flush(&mut self, timeout: Duration, failed: &mut Vec<Undelivered>) -> Result<(), RawError> {
        self.in_slices(timeout, failed, |rk, slice| {
            // SAFETY: the handle is live. With delivery reports as events this waits on a condition variable.
            check(unsafe { sys::rd_kafka_flush(rk, slice) })
        })
    }

    /// Calls `call` with short timeouts until it is done, and looks at failed deliveries in between: they hold up a flush
    /// until they are read. librdkafka resumes a flush or abort that is called again after a timeout.
    fn in_slices(
        &mut self,
        timeout: Duration,
        failed: &mut Vec<Undelivered>,
        mut call: impl FnMut(*mut sys::rd_kafka_t, c_int) -> Result<(), RawError>,
    ) -> Result<(), RawError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let result = call(self.rk, millis(left.min(SLICE)));
            failed.append(&mut self.undelivered());
            match result {
                Err(error) if error.code == code::TIMED_OUT && !error.fatal && !left.is_zero() => {}
                done => return done,
            }
        }
    }

    /// Empties the rows that are held, for further use; nothing happens while a message is outstanding.
    pub(in crate::kafka) fn release(&mut self) {
        if self.outstanding() > 0 {
            return;
        }
        for mut rows in self.in_flight.drain(..) {
            if self.spare.len() < SPARE_ROWS {
                rows.clear();
                self.spare.push(rows);
            }
        }
    }

    /// Empty rows with buffers that were used before, if there are any.
    pub(in crate::kafka) fn spare(&mut self) -> Option<Rows> {
        self.spare.pop()
    }

    pub(in crate::kafka) fn init_transactions(&mut self, timeout: Duration) -> Result<(), RawError> {
        // SAFETY: the handle is live.
        take(unsafe { sys::rd_kafka_init_transactions(self.rk, millis(timeout)) })
    }

    pub(in crate::kafka) fn begin_transaction(&mut self) -> Result<(), RawError> {
        // SAFETY: the handle is live.
        take(unsafe { sys::rd_kafka_begin_transaction(self.rk) })
    }

    pub(in crate::kafka) fn send_offsets(
        &mut self,
        positions: &[Position],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let list = List::new(positions)?;
        // SAFETY: list and metadata live during the call.
        take(unsafe { sys::rd_kafka_send_offsets_to_transaction(self.rk, list.0, group.0, millis(timeout)) })
            .map_err(|error| error.sort("add offsets to the transaction"))
    }

    pub(in crate::kafka) fn commit_transaction(
        &mut self,
        timeout: Duration,
        failed: &mut Vec<Undelivered>,
    ) -> Result<(), RawError> {
        // Not in slices: where the client's own thread gets no CPU for the length of one, the answer to the first step of a
        // slice that was given up is taken for that of a later step, and a commit that never was seems to have succeeded.
        let deadline = Instant::now() + timeout;
        self.flush(timeout, failed)?;
        let left = deadline.saturating_duration_since(Instant::now());
        // SAFETY: the handle is live.
        let result = take(unsafe { sys::rd_kafka_commit_transaction(self.rk, millis(left)) });
        failed.append(&mut self.undelivered());
        result
    }

    pub(in crate::kafka) fn abort_transaction(
        &mut self,
        timeout: Duration,
        failed: &mut Vec<Undelivered>,
    ) -> Result<(), RawError> {
        // SAFETY: the handle is live.
        let call = |rk, slice| take(unsafe { sys::rd_kafka_abort_transaction(rk, slice) });
        self.in_slices(timeout, failed, call)
    }

    /// Drops what was not sent yet, and what was but is not acknowledged; each is reported as failed.
    pub(in crate::kafka) fn purge(&mut self) -> Result<(), RawError> {
        let flags = sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT;
        // SAFETY: the handle is live.
        check(unsafe { sys::rd_kafka_purge(self.rk, flags) })
    }

    /// Partitions of a topic by the broker's metadata.
    pub(in crate::kafka) fn partition_count(&self, topic: TopicIndex, timeout: Duration) -> Result<i32, KafkaError> {
        let mut metadata = std::ptr::null();
        // SAFETY: on success the metadata is ours, with `topic_cnt` topics.
        unsafe {
            check(sys::rd_kafka_metadata(self.rk, 0, self.topics[topic.0], &mut metadata, millis(timeout)))
                .map_err(|error| error.sort("read the topic's metadata"))?;
            let result = match (*metadata).topic_cnt {
                1 => check((*(*metadata).topics).err).map(|()| (*(*metadata).topics).partition_cnt),
                _ => Ok(0),
            };
            sys::rd_kafka_metadata_destroy(metadata);
            result.map_err(|error| error.sort("read the topic's metadata"))
        }
    }
}

/// The arguments of one message, written once and changed from row to row.
struct Outgoing([sys::rd_kafka_vu_t; 8]);

const VALUE: usize = 3;
const KEY: usize = 4;
const TIMESTAMP: usize = 5;
const TAG: usize = 6;
const FLAGS: usize = 2;
const HEADERS: usize = 7;

impl Outgoing {
    fn new(topic: *mut sys::rd_kafka_topic_t, partition: i32) -> Self {
        // SAFETY: a union of integers and pointers, for which all bits zero is a value.
        let mut arguments: [sys::rd_kafka_vu_t; 8] = unsafe { std::mem::zeroed() };
        arguments[0].vtype = vtype::RD_KAFKA_VTYPE_RKT;
        arguments[0].u.rkt = topic;
        arguments[1].vtype = vtype::RD_KAFKA_VTYPE_PARTITION;
        arguments[1].u.i32_ = partition;
        arguments[FLAGS].vtype = vtype::RD_KAFKA_VTYPE_MSGFLAGS;
        arguments[VALUE].vtype = vtype::RD_KAFKA_VTYPE_VALUE;
        arguments[KEY].vtype = vtype::RD_KAFKA_VTYPE_KEY;
        arguments[TIMESTAMP].vtype = vtype::RD_KAFKA_VTYPE_TIMESTAMP;
        arguments[TAG].vtype = vtype::RD_KAFKA_VTYPE_OPAQUE;
        arguments[HEADERS].vtype = vtype::RD_KAFKA_VTYPE_HEADERS;
        Self(arguments)
    }

    /// # Safety
    /// `rk` is a live producer, and `rows` keeps its values where they are until the message is delivered.
    unsafe fn send(&mut self, rk: *mut sys::rd_kafka_t, rows: &Rows, index: usize, tag: usize) -> Result<(), RawError> {
        let value = rows.values.get(index);
        let copy = value.is_some_and(|value| value.len() > COPY_ABOVE_BYTES);
        self.0[FLAGS].u.i = if copy { sys::RD_KAFKA_MSG_F_COPY as c_int } else { 0 };
        self.0[VALUE].u.mem = memory(value);
        self.0[KEY].u.mem = memory(rows.keys.get(index));
        // 0 is librdkafka's word for now.
        self.0[TIMESTAMP].u.i64_ = rows.timestamps_ms[index].max(0);
        self.0[TAG].u.mem.ptr = tag as *mut _;
        // SAFETY: every argument is of the type that its tag says; headers belong to the message once it is taken.
        unsafe {
            let headers = if rows.headers.is_empty() { null_mut() } else { make_headers(rows, index) };
            self.0[HEADERS].u.headers = headers;
            let count = if headers.is_null() { HEADERS } else { HEADERS + 1 };
            let result = take(sys::rd_kafka_produceva(rk, self.0.as_ptr(), count));
            if result.is_err() && !headers.is_null() {
                sys::rd_kafka_headers_destroy(headers);
            }
            result
        }
    }
}

type Memory = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1;

fn memory(bytes: Option<&[u8]>) -> Memory {
    match bytes {
        Some(bytes) => Memory { ptr: bytes.as_ptr() as *mut _, size: bytes.len() },
        None => Memory { ptr: null_mut(), size: 0 },
    }
}

/// The row's headers as librdkafka's own copy; null where it has none.
fn make_headers(rows: &Rows, index: usize) -> *mut sys::rd_kafka_headers_t {
    let mut headers: *mut sys::rd_kafka_headers_t = null_mut();
    for (name, value) in rows.headers.get(index) {
        // SAFETY: names and values are copied by their lengths; a null value is a null header.
        unsafe {
            if headers.is_null() {
                headers = sys::rd_kafka_headers_new(8);
            }
            let value = memory(value);
            sys::rd_kafka_header_add(
                headers,
                name.as_ptr().cast(),
                name.len() as isize,
                value.ptr,
                value.size as isize,
            );
        }
    }
    headers
}
