//! Questions to the cluster that `rdkafka`'s admin client does not ask: topic ids, the state of a group.

use std::ffi::CString;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;

use super::{Client, c_string, check, millis, owned, read_error};
use crate::kafka::error::{KafkaError, RawError, code};

/// How long we wait for a connection before we look whether we were refused.
const CONNECT_SLICE: Duration = Duration::from_millis(500);

/// What the broker says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// The topic's name.
    pub name: String,
    /// The id that the broker gave the topic when it was made, in base64; a topic made anew has another.
    pub id: String,
    /// Number of partitions.
    pub partitions: i32,
}

/// What a consumer group is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// Kafka's name of the state: `Empty`, `Stable`, `PreparingRebalance`, `Dead`, …
    pub state: String,
    /// Number of members.
    pub members: usize,
}

impl GroupState {
    /// True when nobody is in the group, so that its offsets may be changed.
    pub fn is_empty(&self) -> bool {
        self.members == 0
    }
}

/// An admin request's answer.
struct Answer(*mut sys::rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.0) }
    }
}

impl Client {
    /// The cluster's id; `None` where the broker is not reached in time.
    pub(in crate::kafka) fn cluster_id(&self, timeout: Duration) -> Option<String> {
        // SAFETY: a result that is not null is ours to free by librdkafka's own allocator.
        unsafe {
            let id = sys::rd_kafka_clusterid(self.rk, millis(timeout));
            let text = owned(id);
            if !id.is_null() {
                sys::rd_kafka_mem_free(self.rk, id.cast());
            }
            (!text.is_empty()).then_some(text)
        }
    }

    /// Connects to any broker. librdkafka connects when it has something to ask, but what it asks before that it repeats
    /// half a second or a second later only; metadata is what it connects for at once.
    pub(in crate::kafka) fn connect(&self, timeout: Duration) -> Result<(), KafkaError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut metadata = null();
            // SAFETY: on success the metadata is ours.
            let result = unsafe {
                let slice = millis(left.min(CONNECT_SLICE));
                check(sys::rd_kafka_metadata(self.rk, 0, null_mut(), &mut metadata, slice))
                    .map(|()| sys::rd_kafka_metadata_destroy(metadata))
            };
            let Err(error) = result else {
                return Ok(());
            };
            let reason = self.last_failure();
            // A refusal is seen in the log only; nothing is won by waiting for another.
            let refused = reason.contains("uthentication");
            if refused || left.is_zero() {
                let code = if refused { code::AUTHENTICATION } else { code::TIMED_OUT };
                let text = if reason.is_empty() { error.text.clone() } else { reason };
                return Err(RawError { code, text, ..error }.sort("connect to the cluster"));
            }
        }
    }

    /// Names and partition counts of all topics that we may see.
    pub(in crate::kafka) fn list_topics(&self, timeout: Duration) -> Result<Vec<(String, i32)>, KafkaError> {
        let mut metadata = null();
        // SAFETY: on success the metadata is ours, with `topic_cnt` topics.
        unsafe {
            check(sys::rd_kafka_metadata(self.rk, 1, null_mut(), &mut metadata, millis(timeout)))
                .map_err(|error| error.sort("list the topics"))?;
            let topics = (0..(*metadata).topic_cnt as usize).map(|i| &*(*metadata).topics.add(i));
            let list = topics.map(|topic| (owned(topic.topic), topic.partition_cnt)).collect();
            sys::rd_kafka_metadata_destroy(metadata);
            Ok(list)
        }
    }

    /// What the broker says of each topic, in the order asked, or why it says nothing.
    pub(in crate::kafka) fn describe_topics(
        &mut self,
        names: &[&str],
        timeout: Duration,
    ) -> Result<Vec<Result<TopicInfo, KafkaError>>, KafkaError> {
        const DOING: &str = "describe the topics";
        let (_names, mut pointers) = c_strings(names, "topic")?;
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        // SAFETY: names, collection and options live during the request, which copies them.
        let answer = unsafe {
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            let options = sys::rd_kafka_AdminOptions_new(self.rk, operation);
            sys::rd_kafka_DescribeTopics(self.rk, topics, options, self.answers);
            sys::rd_kafka_AdminOptions_destroy(options);
            sys::rd_kafka_TopicCollection_destroy(topics);
            self.answer(sys::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT, timeout)
        }
        .map_err(|error| error.sort(DOING))?;
        // SAFETY: what the answer points to lives as long as the answer.
        unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_DescribeTopics_result(answer.0);
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            let describe = |topic| {
                read_result(sys::rd_kafka_TopicDescription_error(topic)).map_err(|error| error.sort(DOING))?;
                let mut partitions = 0;
                sys::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
                let id = sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(topic));
                let name = owned(sys::rd_kafka_TopicDescription_name(topic));
                Ok(TopicInfo { name, id: owned(id), partitions: partitions as i32 })
            };
            Ok((0..count).map(|i| describe(*topics.add(i))).collect())
        }
    }

    /// What a group is doing, be it of the classic protocol or of KIP-848; a group that the broker does not know is `Dead`.
    pub(in crate::kafka) fn describe_group(
        &mut self,
        group: &str,
        timeout: Duration,
    ) -> Result<GroupState, KafkaError> {
        const DOING: &str = "describe the group";
        let (_names, mut pointers) = c_strings(&[group], "group")?;
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
        // SAFETY: names and options live during the request, which copies them.
        let answer = unsafe {
            let options = sys::rd_kafka_AdminOptions_new(self.rk, operation);
            sys::rd_kafka_DescribeConsumerGroups(self.rk, pointers.as_mut_ptr(), 1, options, self.answers);
            sys::rd_kafka_AdminOptions_destroy(options);
            self.answer(sys::RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT, timeout)
        }
        .map_err(|error| error.sort(DOING))?;
        // SAFETY: what the answer points to lives as long as the answer; one group was asked for.
        unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(answer.0);
            let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
            if count == 0 {
                return Ok(GroupState { state: "Dead".to_owned(), members: 0 });
            }
            match read_result(sys::rd_kafka_ConsumerGroupDescription_error(*groups)) {
                Err(error) if error.code == code::GROUP_ID_NOT_FOUND => {
                    return Ok(GroupState { state: "Dead".to_owned(), members: 0 });
                }
                result => result.map_err(|error| error.sort(DOING))?,
            }
            let state = sys::rd_kafka_ConsumerGroupDescription_state(*groups);
            let state = owned(sys::rd_kafka_consumer_group_state_name(state));
            Ok(GroupState { state, members: sys::rd_kafka_ConsumerGroupDescription_member_count(*groups) })
        }
    }

    /// Waits for an answer of type `kind`; older ones that were given up are thrown away.
    fn answer(&mut self, kind: i32, timeout: Duration) -> Result<Answer, RawError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // SAFETY: an event that is not null is ours, and `Answer` destroys it.
            unsafe {
                let event = sys::rd_kafka_queue_poll(self.answers, millis(left));
                if event.is_null() {
                    let text = "no answer from the cluster".to_owned();
                    return Err(RawError { code: code::TIMED_OUT, text, ..RawError::default() });
                }
                let answer = Answer(event);
                if sys::rd_kafka_event_type(event) == kind {
                    check(sys::rd_kafka_event_error(event))
                        .map_err(|error| RawError { text: owned(sys::rd_kafka_event_error_string(event)), ..error })?;
                    return Ok(answer);
                }
            }
        }
    }
}

/// # Safety
/// `error` is null or a valid error object, which stays its owner's.
unsafe fn read_result(error: *const sys::rd_kafka_error_t) -> Result<(), RawError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    let raw = unsafe { read_error(error) };
    if raw.code == 0 { Ok(()) } else { Err(raw) }
}

fn c_strings(names: &[&str], what: &str) -> Result<(Vec<CString>, Vec<*const std::ffi::c_char>), KafkaError> {
    let names = names.iter().map(|name| c_string(name, what)).collect::<Result<Vec<_>, _>>()?;
    let pointers = names.iter().map(|name| name.as_ptr()).collect();
    Ok((names, pointers))
}
