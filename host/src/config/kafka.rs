//! How a cluster is reached: brokers, and librdkafka's properties as they stand.

use std::collections::BTreeMap;
use std::fmt;

use super::Secret;
use super::error::ConfigError;
use super::walk::At;

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

/// Properties that we set ourselves, and what to say in their place.
const RESERVED: &[(&str, &str)] = &[
    ("acks", "writes always wait for all replicas"),
    ("auto.offset.reset", "use `start` and `on_out_of_range`"),
    ("bootstrap.servers", "use `brokers`"),
    ("delivery.report.only.error", "deliveries are counted by Millstream"),
    ("enable.auto.commit", "progress is committed by Millstream; see `commit`"),
    ("enable.auto.offset.store", "progress is committed by Millstream; see `commit`"),
    ("enable.gapless.guarantee", "Millstream relies on its own order"),
    ("enable.idempotence", "it is always on"),
    ("enable.partition.eof", "Millstream relies on it"),
    ("group.id", "use `group`"),
    ("group.instance.id", "use `instance`"),
    ("group.protocol", "use `protocol`"),
    ("group.remote.assignor", "use `protocol`"),
    ("isolation.level", "only committed records are read"),
    ("message.copy.max.bytes", "Millstream relies on it"),
    ("metadata.broker.list", "use `brokers`"),
    ("partition.assignment.strategy", "use `protocol`"),
    ("partitioner", "it is murmur2, as in the Java client"),
    ("request.required.acks", "writes always wait for all replicas"),
    ("transactional.id", "it is made of `pipeline`, `instance` and the worker"),
];

/// What the name of a property has to contain for its value to be a secret.
const SECRET_NAMES: &[&str] =
    &["password", "secret", "passphrase", "credential", "token", "key.pem", "jaas", "sasl.oauthbearer.config"];

/// The beginnings of properties that say how to reach a cluster and sign in, which hold for all clients alike.
const CONNECTION_PREFIXES: &[&str] = &[
    "security.",
    "sasl.",
    "ssl.",
    "enable.ssl.",
    "enable.sasl.",
    "broker.address.",
    "client.dns.",
    "client.rack",
    "https.",
    "socket.",
    "reconnect.",
];

impl KafkaConnection {
    /// How another client reaches the same cluster: `brokers` and the properties for signing in, without the tuning.
    pub(super) fn for_other_clients(&self) -> Self {
        let is_shared = |name: &String| CONNECTION_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let shared = self.properties.iter().filter(|(name, _)| is_shared(name));
        let properties = shared.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { brokers: self.brokers.clone(), properties }
    }

    /// True where both name the same brokers, in whatever order.
    pub(super) fn is_same_cluster(&self, other: &Self) -> bool {
        let sorted = |brokers: &str| {
            let mut list: Vec<String> = brokers.split(',').map(|broker| broker.trim().to_owned()).collect();
            list.sort();
            list
        };
        sorted(&self.brokers) == sorted(&other.brokers)
    }
}

/// `host:port,…`
pub(super) fn read_brokers(at: &At<'_>) -> Result<String, ConfigError> {
    let is_broker = |broker: &str| {
        let (host, port) = broker.trim().rsplit_once(':')?;
        (!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(())
    };
    at.parsed("brokers as host:port, comma-separated", |text| {
        text.split(',').try_for_each(|broker| is_broker(broker).ok_or(())).ok().map(|()| text.to_owned())
    })
}

/// librdkafka's properties; those that decide over correctness are refused.
pub(super) fn read_properties(at: &At<'_>) -> Result<Properties, ConfigError> {
    let mut properties = Properties::new();
    for (name, value) in at.open_map("a map of librdkafka's properties")? {
        if let Some((_, instead)) = RESERVED.iter().find(|reserved| reserved.0 == name) {
            return Err(value.error(format!("can't be set: {instead}")));
        }
        let scalar = value.scalar("a property's value")?;
        let named_secret = SECRET_NAMES.iter().any(|part| name.to_ascii_lowercase().contains(part));
        let value = if named_secret || scalar.secret {
            PropertyValue::Secret(Secret::new(&scalar.text))
        } else {
            PropertyValue::Plain(scalar.text.clone())
        };
        properties.insert(name.to_owned(), value);
    }
    Ok(properties)
}
