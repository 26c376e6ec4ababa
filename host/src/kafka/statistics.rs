//! The few figures that are read out of librdkafka's statistics.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::metrics::ClientFigures;

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    msg_cnt: u64,
    #[serde(default)]
    msg_size: u64,
    #[serde(default)]
    brokers: BTreeMap<String, Broker>,
    #[serde(default)]
    topics: BTreeMap<String, Topic>,
}

#[derive(Deserialize)]
struct Broker {
    state: String,
    txerrs: u64,
    rxerrs: u64,
    req_timeouts: u64,
    disconnects: u64,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: BTreeMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    fetchq_cnt: u64,
    fetchq_size: u64,
}

/// Reads the JSON of librdkafka; none where it is not what its documentation says.
pub(super) fn read(json: &str) -> Option<ClientFigures> {
    let Statistics { msg_cnt, msg_size, brokers, topics } = serde_json::from_str(json).ok()?;
    let mut figures = ClientFigures { queue_records: msg_cnt, queue_bytes: msg_size, ..ClientFigures::default() };
    for broker in brokers.values() {
        figures.send_errors += broker.txerrs;
        figures.receive_errors += broker.rxerrs;
        figures.timeouts += broker.req_timeouts;
        figures.disconnects += broker.disconnects;
        figures.brokers_up += u64::from(broker.state == "UP");
    }
    for partition in topics.values().flat_map(|topic| topic.partitions.values()) {
        figures.queue_records += partition.fetchq_cnt;
        figures.queue_bytes += partition.fetchq_size;
    }
    Some(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_all_brokers_and_partitions_are_added() {
        let json = r#"{"name":"x","msg_cnt":2,"msg_size":20,"brokers":{
            "a":{"nodeid":1,"state":"UP","txerrs":1,"rxerrs":2,"req_timeouts":3,"disconnects":4,"rtt":{}},
            "b":{"nodeid":-1,"state":"UP","txerrs":1,"rxerrs":0,"req_timeouts":0,"disconnects":1}},
            "topics":{"t":{"partitions":{"0":{"fetchq_cnt":5,"fetchq_size":50},"-1":{"fetchq_cnt":0,"fetchq_size":0}}}}}"#;
        let expected = ClientFigures {
            send_errors: 2,
            receive_errors: 2,
            timeouts: 3,
            disconnects: 5,
            queue_records: 7,
            queue_bytes: 70,
            brokers_up: 2,
        };
        assert_eq!(read(json), Some(expected));
        assert_eq!(read("{"), None);
    }
}
