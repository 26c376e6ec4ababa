//! Millstream: stream processing without a cluster.
//!
//! Rooms, and the one direction in which they may use each other:
//! `cli → worker → {source, task, sink}`, `task → pipeline → plugin`, all → `record`.
//!
//! | room | owns |
//! | --- | --- |
//! | [`config`] | the pipeline's file, read into plain structs |
//! | [`kafka`] | consumer, producer and admin client; the only user of librdkafka |
//! | [`plugin`] | WebAssembly plugins in their sandbox; the only user of wasmtime |
//! | [`record`] | batches, columns, JSON extraction and splice |

pub mod config;
pub mod kafka;
pub mod plugin;
pub mod record;
