//! What commands share that talk to a cluster.

use std::time::Duration;

use crate::config::{Config, KafkaSourceConfig, SourceConfig};
use crate::kafka::Connection;

use super::Mistake;

/// How long one question to the cluster may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// The pipeline's Kafka source, and how to reach its cluster.
pub(super) fn source(config: &Config) -> Result<(&KafkaSourceConfig, Connection), Mistake> {
    let SourceConfig::Kafka(source) = &config.source else {
        return Err(Mistake(format!("{}: the source is not Kafka, so it has no offsets", config.file.display())));
    };
    let mut connection = Connection::new(&source.connection.brokers);
    let properties = source.connection.properties.iter();
    connection.properties = properties.map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    Ok((source, connection))
}
