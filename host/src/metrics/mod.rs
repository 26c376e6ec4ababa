//! What is measured, and how it is said: the table of all metrics, plain counters and histograms, the text that
//! Prometheus reads.
//!
//! Counters belong to whoever counts: a worker adds to plain numbers, and copies of them are collected when somebody
//! asks. Nothing here is locked or atomic, and every label comes from the configuration or from a closed set.

mod client;
mod families;
mod histogram;
mod process;
mod table;
mod text;

pub use client::{ClientFigures, ClientTotals};
pub use families::{FAMILIES, Family, Kind, family};
pub use histogram::{Buckets, FRESHNESS, Histogram, LATENCY, RECORDS, STAGE_TIME, TIME};
pub use process::ProcessUsage;
pub use table::markdown;
pub use text::{Exposition, Format};
