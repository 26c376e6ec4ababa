//! A client for those who wait: what it is asked for is done on the caller's thread.

use super::client::{Client, ClientError};
use crate::config::ClickHouseConfig;

/// A client with the runtime that it needs. It belongs to one thread.
pub struct Connection {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Connection {
    /// A client by the configuration; nothing is sent yet.
    pub fn new(config: &ClickHouseConfig) -> Result<Self, ClientError> {
        let client = Client::new(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(|why| ClientError::Runtime(why.to_string()))?;
        Ok(Self { runtime, client })
    }

    /// Does what `work` does with the client, and waits for it.
    pub fn wait<T>(&self, work: impl AsyncFnOnce(&Client) -> T) -> T {
        self.runtime.block_on(work(&self.client))
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.client.address())
    }
}
