//! How a cluster is reached: brokers, and librdkafka's properties as they stand.

use std::collections::BTreeMap;
use std::fmt;

use super::Secret;

/// The value of a librdkafka property; secret where its name says so, or where it came from a `${file:…}`.
#[derive(Clone, PartialEq, Eq)]
pub enum PropertyValue {
    /// A value that may be printed.
    Plain(String),
    /// A value that may not.
    Secret(Secret),
}

impl PropertyValue {
    /// The text that librdkafka gets; it may be a secret.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(secret) => secret.expose(),
        }
    }
}

impl fmt::Debug for PropertyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => text.fmt(f),
            Self::Secret(secret) => secret.fmt(f),
        }
    }
}

/// librdkafka's properties by name, as the file gives them.
pub type Properties = BTreeMap<String, PropertyValue>;

/// A cluster and how to sign in to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConnection {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// Properties for the clients of this connection.
    pub properties: Properties,
}
