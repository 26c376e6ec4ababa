//! The one folder where librdkafka is called directly: what the `rdkafka` crate does not wrap, or wraps at a price.
//!
//! - Delivery reports are events and only for failures, so that a flush or commit waits on a condition variable that
//!   the last delivered message signals; through callbacks it would sit in a poll that nothing wakes.
//! - Rows are consumed by the hundred, straight into the caller's buffers, and produced without copying the values:
//!   the rows belong to the client until a flush has seen the last of them delivered.
//! - The rebalance callback only notes what happened. The caller assigns and unassigns later, on the polling thread.
//!
//! Everything `unsafe` of the room is in this folder. A [`Client`] owns the handle, its queue, its topics and the rows in flight;
//! `Drop` ends them in the order that librdkafka asks for.
#![allow(unsafe_code)]

mod ask;
mod consume;
mod list;
mod produce;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::bindings as sys;

pub use self::ask::{GroupState, TopicInfo};
pub use self::consume::GroupMetadata;
pub(super) use self::consume::Message;
use self::list::{bytes, read_partitions};
pub(super) use self::produce::{Stop, TopicIndex, Undelivered};
use super::error::{KafkaError, RawError, code};
use super::types::Partition;
use crate::record::Rows;

const ERROR_TEXT_BYTES: usize = 512;
/// How many errors of the client itself are kept for the caller.
const KEPT_ERRORS: usize = 64;

/// Which side of the protocol a client plays.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Consumer,
    Producer,
}

/// What the group said; partitions only change hands when the caller assigns or unassigns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Assigned(Vec<Partition>),
    Revoked { partitions: Vec<Partition>, lost: bool },
}

/// What callbacks leave for the caller.
#[derive(Default)]
struct Shared {
    closing: AtomicBool,
    changes: Mutex<Vec<Change>>,
    errors: Mutex<Vec<RawError>>,
    statistics: Mutex<Option<String>>,
    /// The last failure that librdkafka logged: why it does not connect.
    failure: Mutex<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A librdkafka handle with everything that may not outlive it.
pub(super) struct Client {
    rk: *mut sys::rd_kafka_t,
    /// The consumer's queue, or the producer's events.
    queue: *mut sys::rd_kafka_queue_t,
    /// Answers to commits of offsets and to admin requests.
    answers: *mut sys::rd_kafka_queue_t,
    topics: Vec<*mut sys::rd_kafka_topic_t>,
    /// Rows whose values librdkafka points into.
    in_flight: Vec<Rows>,
    /// Rows that were delivered, emptied for further use.
    spare: Vec<Rows>,
    shared: Arc<Shared>,
    /// Ends without leaving the group.
    vanish: bool,
    /// False between a change of the group and the caller's answer to it.
    settled: bool,
    messages: Vec<*mut sys::rd_kafka_message_t>,
}

// SAFETY: librdkafka's handles may be used from any thread; the rest is plain data that `&mut self` guards.
unsafe impl Send for Client {}

fn c_string(text: &str, what: &str) -> Result<CString, KafkaError> {
    let nul = |_| KafkaError::Setting { name: what.to_owned(), text: "contains a NUL byte".to_owned() };
    CString::new(text).map_err(nul)
}

/// Copies a C string; empty for null.
///
/// # Safety
/// `text` is null or ends with NUL and stays valid during the call.
unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the rest is the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn raw(error: sys::rd_kafka_resp_err_t) -> RawError {
    // SAFETY: both return static strings for any code.
    let text = unsafe { owned(sys::rd_kafka_err2str(error)) };
    RawError { code: error as i32, text, ..RawError::default() }
}

fn check(error: sys::rd_kafka_resp_err_t) -> Result<(), RawError> {
    if error as i32 == 0 { Ok(()) } else { Err(raw(error)) }
}

/// Takes over and frees an error object; null is success.
fn take(error: *mut sys::rd_kafka_error_t) -> Result<(), RawError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null error is ours to read and to destroy, once.
    unsafe {
        let raw = read_error(error);
        sys::rd_kafka_error_destroy(error);
        Err(raw)
    }
}

/// # Safety
/// `error` is a valid error object.
unsafe fn read_error(error: *const sys::rd_kafka_error_t) -> RawError {
    // SAFETY: the caller's promise.
    unsafe {
        RawError {
            code: sys::rd_kafka_error_code(error) as i32,
            text: owned(sys::rd_kafka_error_string(error)),
            fatal: sys::rd_kafka_error_is_fatal(error) != 0,
            retriable: sys::rd_kafka_error_is_retriable(error) != 0,
            abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
        }
    }
}

extern "C" fn on_rebalance(
    rk: *mut sys::rd_kafka_t,
    error: sys::rd_kafka_resp_err_t,
    list: *mut sys::rd_kafka_topic_partition_list_t,
    shared: *mut c_void,
) {
    // SAFETY: the opaque pointer is `Client::shared`, which outlives the handle; the list is valid during the call.
    unsafe {
        let shared = &*shared.cast::<Shared>();
        let closing = shared.closing.load(Ordering::Relaxed);
        match error as i32 {
            code::ASSIGN_PARTITIONS if !closing => lock(&shared.changes).push(Change::Assigned(read_partitions(list))),
            code::REVOKE_PARTITIONS if !closing => {
                let lost = sys::rd_kafka_assignment_lost(rk) != 0;
                lock(&shared.changes).push(Change::Revoked { partitions: read_partitions(list), lost });
            }
            failed => {
                if !closing && failed != code::REVOKE_PARTITIONS {
                    keep_error(shared, raw(error));
                }
                sys::rd_kafka_assign(rk, std::ptr::null());
            }
        }
        // So that the poll that served this returns at once.
        sys::rd_kafka_yield(rk);
    }
}

fn keep_error(shared: &Shared, error: RawError) {
    let mut errors = lock(&shared.errors);
    if errors.len() < KEPT_ERRORS {
        errors.push(error);
    }
}

extern "C" fn on_error(rk: *mut sys::rd_kafka_t, error: c_int, reason: *const c_char, shared: *mut c_void) {
    // SAFETY: as in `on_rebalance`; `reason` ends with NUL.
    unsafe {
        let mut kept = RawError { code: error, text: owned(reason), ..RawError::default() };
        if error == code::FATAL {
            let mut text = [0 as c_char; ERROR_TEXT_BYTES];
            kept.code = sys::rd_kafka_fatal_error(rk, text.as_mut_ptr(), text.len()) as i32;
            kept.text = owned(text.as_ptr());
            kept.fatal = true;
        }
        keep_error(&*shared.cast::<Shared>(), kept);
    }
}

extern "C" fn on_statistics(
    _: *mut sys::rd_kafka_t,
    json: *mut c_char,
    json_bytes: usize,
    shared: *mut c_void,
) -> c_int {
    // SAFETY: as in `on_rebalance`; `json` has `json_bytes` bytes. Returning 0 leaves it to librdkafka to free it.
    unsafe {
        let json = bytes(json.cast(), json_bytes).unwrap_or_default();
        *lock(&(*shared.cast::<Shared>()).statistics) = Some(String::from_utf8_lossy(json).into_owned());
    }
    0
}

extern "C" fn on_log(rk: *const sys::rd_kafka_t, level: c_int, facility: *const c_char, text: *const c_char) {
    // SAFETY: the strings end with NUL and live during the call; a null handle is not asked; the opaque pointer is as in
    // `on_rebalance`, and null before it is set.
    let (client, facility, text) = unsafe {
        let name = if rk.is_null() { String::new() } else { owned(sys::rd_kafka_name(rk)) };
        let (facility, text) = (owned(facility), owned(text));
        let shared = if rk.is_null() { std::ptr::null_mut() } else { sys::rd_kafka_opaque(rk) };
        if let Some(shared) = shared.cast::<Shared>().as_ref().filter(|_| level <= 3) {
            // librdkafka puts its thread's name in front.
            let text = text.split_once("]: ").map_or(&*text, |(_, text)| text);
            text.clone_into(&mut lock(&shared.failure));
        }
        (name, facility, text)
    };
    match level {
        0..=3 => tracing::error!(target: "kafka", client, facility, "{text}"),
        4 => tracing::warn!(target: "kafka", client, facility, "{text}"),
        5 | 6 => tracing::info!(target: "kafka", client, facility, "{text}"),
        _ => tracing::debug!(target: "kafka", client, facility, "{text}"),
    }
}

impl Client {
    /// Makes a client; later properties win over earlier ones.
    pub(super) fn new(side: Side, properties: &[(String, String)]) -> Result<Self, KafkaError> {
        let shared = Arc::new(Shared::default());
        let mut text = [0 as c_char; ERROR_TEXT_BYTES];
        // SAFETY: `conf` is ours until `rd_kafka_new` takes it; callbacks get `shared`, which `Client` keeps longer
        // than the handle; queues are made from the live handle and given back in `Drop`.
        unsafe {
            let conf = sys::rd_kafka_conf_new();
            if let Err(error) = set_properties(conf, properties) {
                sys::rd_kafka_conf_destroy(conf);
                return Err(error);
            }
            sys::rd_kafka_conf_set_opaque(conf, Arc::as_ptr(&shared) as *mut c_void);
            sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            sys::rd_kafka_conf_set_stats_cb(conf, Some(on_statistics));
            let kind = if side == Side::Consumer {
                sys::rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance));
                sys::rd_kafka_type_t::RD_KAFKA_CONSUMER
            } else {
                sys::rd_kafka_conf_set_events(conf, sys::RD_KAFKA_EVENT_DR);
                sys::rd_kafka_type_t::RD_KAFKA_PRODUCER
            };
            let rk = sys::rd_kafka_new(kind, conf, text.as_mut_ptr(), text.len());
            if rk.is_null() {
                sys::rd_kafka_conf_destroy(conf);
                return Err(KafkaError::Setting { name: String::new(), text: owned(text.as_ptr()) });
            }
            let mut queue = null_mut();
            if side == Side::Consumer {
                sys::rd_kafka_poll_set_consumer(rk);
                queue = sys::rd_kafka_queue_get_consumer(rk);
            }
            if queue.is_null() {
                queue = sys::rd_kafka_queue_get_main(rk);
            }
            let answers = sys::rd_kafka_queue_new(rk);
            Ok(Self {
                rk,
                queue,
                answers,
                topics: Vec::new(),
                in_flight: Vec::new(),
                spare: Vec::new(),
                shared,
                vanish: false,
                settled: true,
                messages: Vec::new(),
            })
        }
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let changes = std::mem::take(&mut *lock(&self.shared.changes));
        self.settled &= changes.is_empty();
        changes
    }

    pub(super) fn take_errors(&self) -> Vec<RawError> {
        std::mem::take(&mut *lock(&self.shared.errors))
    }

    /// The last failure that was logged; empty where there was none.
    fn last_failure(&self) -> String {
        lock(&self.shared.failure).clone()
    }

    pub(super) fn take_statistics(&self) -> Option<String> {
        lock(&self.shared.statistics).take()
    }
}

/// Milliseconds for librdkafka; what is too long for it waits as long as it can.
fn millis(timeout: Duration) -> c_int {
    timeout.as_millis().min(i32::MAX as u128) as c_int
}

/// # Safety
/// `conf` is a valid configuration.
unsafe fn set_properties(conf: *mut sys::rd_kafka_conf_t, properties: &[(String, String)]) -> Result<(), KafkaError> {
    let mut text = [0 as c_char; ERROR_TEXT_BYTES];
    for (name, value) in properties {
        let (c_name, c_value) = (c_string(name, name)?, c_string(value, name)?);
        // SAFETY: the strings end with NUL, and `text` is as long as we say.
        let result =
            unsafe { sys::rd_kafka_conf_set(conf, c_name.as_ptr(), c_value.as_ptr(), text.as_mut_ptr(), text.len()) };
        if result != sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
            // SAFETY: the client wrote a text that ends with NUL.
            let text = unsafe { owned(text.as_ptr()) };
            return Err(KafkaError::Setting { name: name.clone(), text });
        }
    }
    Ok(())
}

impl Drop for Client {
    /// Leaves the group, drops what was not sent, waits for librdkafka's threads, and only then frees the rows that
    /// they pointed into.
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        // SAFETY: all of these are ours and given back once, the handle after everything that refers to it.
        unsafe {
            if sys::rd_kafka_type(self.rk) == sys::rd_kafka_type_t::RD_KAFKA_PRODUCER {
                sys::rd_kafka_purge(self.rk, sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT);
            } else if !self.settled {
                // A change that the caller never answered would keep the group waiting for ever.
                sys::rd_kafka_assign(self.rk, std::ptr::null());
            }
            self.topics.drain(..).for_each(|topic| sys::rd_kafka_topic_destroy(topic));
            sys::rd_kafka_queue_destroy(self.answers);
            sys::rd_kafka_queue_destroy(self.queue);
            let flags = if self.vanish { sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE } else { 0 };
            sys::rd_kafka_destroy_flags(self.rk, flags);
        }
    }
}
