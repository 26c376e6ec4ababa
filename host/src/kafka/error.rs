//! What can go wrong between us and a broker, by what the caller has to do about it.

/// The code, name and text of an error as librdkafka gave it, and what we were doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// What was attempted, for the message: `commit the transaction`.
    pub doing: &'static str,
    /// librdkafka's code: negative for its own, positive for the broker's.
    pub code: i32,
    /// The text, with the code's name.
    pub text: String,
}

impl std::fmt::Display for Detail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "could not {}: {} ({})", self.doing, self.text, self.code)
    }
}

/// An error of Kafka or of its client, sorted by what has to be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// The same call may be made again.
    #[error("{0}")]
    Retriable(Detail),
    /// The transaction has to be aborted; its work may then be done again on the same producer.
    #[error("{0}; the transaction must be aborted")]
    AbortRequired(Detail),
    /// Another instance took this one's place (transactional id, group instance) or the client is otherwise dead: it
    /// must be dropped. Whether work goes on with a new one is for the group to say.
    #[error("{0}; this client is fenced or failed for good")]
    Fenced(Detail),
    /// No answer in time: the request may or may not have taken effect. If it belonged to a transaction the producer
    /// must be made anew, since the late request could hit the next transaction.
    #[error("{0}; no answer in time")]
    TimedOut(Detail),
    /// A row is larger than the producer's `message.max.bytes`; nothing of it was sent.
    #[error("{detail}; row {row} is too large")]
    TooLarge {
        /// Index of the row in the rows that were given.
        row: usize,
        /// What the client said.
        detail: Detail,
    },
    /// The broker refuses: missing ACL, or wrong user or password.
    #[error("{0}; not authorised")]
    Denied(Detail),
    /// A setting that the client does not know or does not take.
    #[error("kafka setting {name}: {text}")]
    Setting {
        /// The property's name, or empty where the combination is at fault.
        name: String,
        /// Why it was refused.
        text: String,
    },
    /// Anything else.
    #[error("{0}")]
    Other(Detail),
}

impl KafkaError {
    /// The detail, where the error has one.
    pub fn detail(&self) -> Option<&Detail> {
        match self {
            Self::Retriable(d) | Self::AbortRequired(d) | Self::Fenced(d) | Self::TimedOut(d) => Some(d),
            Self::Denied(d) | Self::Other(d) => Some(d),
            Self::TooLarge { detail, .. } => Some(detail),
            Self::Setting { .. } => None,
        }
    }

    /// True where the broker knows no such topic.
    pub fn is_unknown_topic(&self) -> bool {
        [code::UNKNOWN_TOPIC, code::UNKNOWN_TOPIC_HERE].contains(&self.code())
    }

    /// librdkafka's code, or 0 for a setting's error.
    pub fn code(&self) -> i32 {
        self.detail().map_or(0, |detail| detail.code)
    }
}

/// Codes that are told apart here; librdkafka's are negative, the protocol's positive.
pub(super) mod code {
    pub(crate) const BAD_MESSAGE: i32 = -199;
    pub(crate) const BAD_COMPRESSION: i32 = -198;
    pub(crate) const NOT_IMPLEMENTED: i32 = -170;
    pub(crate) const TIMED_OUT: i32 = -185;
    pub(crate) const TIMED_OUT_QUEUE: i32 = -166;
    pub(crate) const QUEUE_FULL: i32 = -184;
    pub(crate) const PARTITION_EOF: i32 = -191;
    pub(crate) const OUT_OF_RANGE: i32 = -140;
    pub(crate) const AUTHENTICATION: i32 = -169;
    pub(crate) const FATAL: i32 = -150;
    pub(crate) const FENCED: i32 = -144;
    pub(crate) const NO_OFFSET: i32 = -168;
    pub(crate) const STATE: i32 = -172;
    pub(crate) const ASSIGN_PARTITIONS: i32 = -175;
    pub(crate) const REVOKE_PARTITIONS: i32 = -174;
    pub(crate) const UNKNOWN_TOPIC: i32 = 3;
    pub(crate) const UNKNOWN_TOPIC_HERE: i32 = -188;
    pub(crate) const REQUEST_TIMED_OUT: i32 = 7;
    pub(crate) const MESSAGE_TOO_LARGE: i32 = 10;
    pub(crate) const TOPIC_DENIED: i32 = 29;
    pub(crate) const GROUP_DENIED: i32 = 30;
    pub(crate) const CLUSTER_DENIED: i32 = 31;
    pub(crate) const TOPIC_EXISTS: i32 = 36;
    pub(crate) const PRODUCER_EPOCH: i32 = 47;
    pub(crate) const TRANSACTIONAL_ID_DENIED: i32 = 53;
    pub(crate) const SASL_FAILED: i32 = 58;
    pub(crate) const GROUP_ID_NOT_FOUND: i32 = 69;
    pub(crate) const FENCED_INSTANCE: i32 = 82;
    pub(crate) const PRODUCER_FENCED: i32 = 90;
}

/// What librdkafka says of an error, before it is sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RawError {
    pub(super) code: i32,
    pub(super) text: String,
    pub(super) fatal: bool,
    pub(super) retriable: bool,
    pub(super) abort: bool,
}

impl RawError {
    /// Sorts the error by what the caller has to do.
    pub(super) fn sort(self, doing: &'static str) -> KafkaError {
        let Self { code, text, fatal, retriable, abort } = self;
        let detail = Detail { doing, code, text };
        match code {
            code::FENCED | code::PRODUCER_FENCED | code::PRODUCER_EPOCH | code::FENCED_INSTANCE | code::FATAL => {
                KafkaError::Fenced(detail)
            }
            code::TOPIC_DENIED
            | code::GROUP_DENIED
            | code::CLUSTER_DENIED
            | code::TRANSACTIONAL_ID_DENIED
            | code::SASL_FAILED
            | code::AUTHENTICATION => KafkaError::Denied(detail),
            _ if fatal => KafkaError::Fenced(detail),
            code::TIMED_OUT | code::TIMED_OUT_QUEUE | code::REQUEST_TIMED_OUT => KafkaError::TimedOut(detail),
            _ if abort => KafkaError::AbortRequired(detail),
            _ if retriable => KafkaError::Retriable(detail),
            _ => KafkaError::Other(detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(code: i32) -> RawError {
        RawError { code, text: "t".into(), ..RawError::default() }
    }

    #[test]
    fn an_error_is_sorted_by_what_has_to_be_done() {
        assert!(matches!(raw(code::PRODUCER_FENCED).sort("x"), KafkaError::Fenced(_)));
        assert!(matches!(RawError { fatal: true, ..raw(-1) }.sort("x"), KafkaError::Fenced(_)));
        assert!(matches!(RawError { retriable: true, ..raw(code::TIMED_OUT) }.sort("x"), KafkaError::TimedOut(_)));
        assert!(matches!(RawError { abort: true, retriable: true, ..raw(3) }.sort("x"), KafkaError::AbortRequired(_)));
        assert!(matches!(raw(code::TOPIC_DENIED).sort("x"), KafkaError::Denied(_)));
        assert!(matches!(RawError { retriable: true, ..raw(14) }.sort("x"), KafkaError::Retriable(_)));
        assert_eq!(raw(14).sort("do it").to_string(), "could not do it: t (14)");
    }
}
