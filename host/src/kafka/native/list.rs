//! Lists of partitions, as librdkafka takes and gives them.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use rdkafka::bindings as sys;

use super::{c_string, check, owned};
use crate::kafka::error::{KafkaError, RawError};
use crate::kafka::types::{Partition, Position};

/// An owned list of partitions, offsets and metadata.
pub(super) struct List(pub(super) *mut sys::rd_kafka_topic_partition_list_t);

impl List {
    pub(super) fn new(positions: &[Position]) -> Result<Self, KafkaError> {
        // SAFETY: a fresh list; `add` copies the name and returns an element that is valid until the next `add`.
        unsafe {
            let list = Self(sys::rd_kafka_topic_partition_list_new(positions.len() as c_int));
            for position in positions {
                let topic = c_string(&position.topic, "topic")?;
                let element = sys::rd_kafka_topic_partition_list_add(list.0, topic.as_ptr(), position.partition);
                (*element).offset = position.offset;
                if !position.metadata.is_empty() {
                    // librdkafka frees the element's metadata with libc's free, so it must come from its malloc.
                    let copy = sys::rd_kafka_mem_malloc(null_mut(), position.metadata.len());
                    std::ptr::copy_nonoverlapping(position.metadata.as_ptr(), copy.cast(), position.metadata.len());
                    (*element).metadata = copy;
                    (*element).metadata_size = position.metadata.len();
                }
            }
            Ok(list)
        }
    }

    pub(super) fn of(partitions: &[Partition]) -> Result<Self, KafkaError> {
        let positions: Vec<_> = partitions.iter().map(|p| p.at(sys::RD_KAFKA_OFFSET_INVALID.into())).collect();
        Self::new(&positions)
    }

    pub(super) fn positions(&self) -> Vec<(Position, Result<(), RawError>)> {
        // SAFETY: the list is valid as long as `self`.
        unsafe { read_list(self.0) }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0) }
    }
}

/// # Safety
/// `list` is null or a valid list.
pub(super) unsafe fn read_list(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> Vec<(Position, Result<(), RawError>)> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: `elems` holds `cnt` elements; metadata, where there is any, has `metadata_size` bytes.
    unsafe {
        let elements = (0..(*list).cnt as usize).map(|i| &*(*list).elems.add(i));
        let read = |element: &sys::rd_kafka_topic_partition_t| {
            let metadata = bytes(element.metadata, element.metadata_size).unwrap_or_default();
            let position = Position {
                topic: owned(element.topic).into(),
                partition: element.partition,
                offset: element.offset,
                metadata: String::from_utf8_lossy(metadata).into_owned(),
            };
            (position, check(element.err))
        };
        elements.map(read).collect()
    }
}

/// # Safety
/// `list` is null or a valid list.
pub(super) unsafe fn read_partitions(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Partition> {
    // SAFETY: the caller's promise.
    unsafe { read_list(list) }.into_iter().map(|(p, _)| Partition { topic: p.topic, partition: p.partition }).collect()
}

/// # Safety
/// `data` is null, or `len` bytes from it are valid for `'a`.
pub(super) unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast(), len) })
}
