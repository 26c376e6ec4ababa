//! Millstream: stream processing without a cluster.
//!
//! Rooms, and the one direction in which they may use each other:
//! `cli → worker → {source, task, sink}`, `task → pipeline → {plugin, table, window}`, all → `record`.
//!
//! | room | owns |
//! | --- | --- |
//! | [`config`] | the pipeline's file, read into plain structs |
//! | [`kafka`] | consumer, producer and admin client; the only user of librdkafka |
//! | [`clickhouse`] | rows, blocks and checks of a table; the only user of ClickHouse's protocol |
//! | [`record`] | batches, columns, JSON extraction and splice |
//! | [`plugin`] | the sandbox: wasmtime, limits, faults, the cache of compiled code |
//! | [`pipeline`] | the chain: its static check, and a batch's way through it |
//! | [`window`] | records into states by key and event time, and rows when windows close |
//! | [`state`] | what a stage remembers of a partition, its way into a changelog and back |
//! | [`table`] | rows by key that records are looked up in |
//! | [`task`] | one partition: position, accounting, dead letters |
//! | [`worker`] | one thread: poll, process, deliver, commit, recover |
//! | [`source`], [`sink`] | where batches come from, and where outputs go with a commit |
//! | [`drain`] | a topic's records on their way into a ClickHouse table, each exactly once |
//! | [`run`] | one pipeline in one process: checks, threads, progress |
//! | [`http`] | the two listeners: metrics and health, status and control |
//! | [`project`] | a plugin's project: `millstream new`, `millstream build` |
//! | [`golden`] | golden cases: records in, records out, compared |
//! | [`metrics`] | the table of all metrics, counters and histograms, the text that Prometheus reads |
//! | [`quality`] | how fresh, whole and usual the data are on their way |
//! | [`memory`] | a model of Kafka for simulation |

pub mod cli;
pub mod clickhouse;
pub mod config;
pub mod drain;
pub mod golden;
pub mod http;
pub mod kafka;
pub mod memory;
pub mod metrics;
pub mod pipeline;
pub mod plugin;
pub mod project;
pub mod quality;
pub mod record;
pub mod run;
pub mod sink;
pub mod source;
pub mod spill;
pub mod state;
pub mod table;
pub mod task;
pub mod window;
pub mod worker;
