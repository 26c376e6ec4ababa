//! Millstream: stream processing without a cluster.
//!
//! Rooms, and the one direction in which they may use each other:
//! `cli → worker → {source, task, sink}`, `task → pipeline → plugin`, all → `record`.
//!
//! | room | owns |
//! | --- | --- |
//! | [`record`] | batches, columns, JSON extraction and splice |

pub mod record;
