//! The quality of the data on their way: how fresh they are, what is missing in them, whether they come at all, and whether
//! they still look as they did. It looks at records and changes none.
//!
//! Each worker holds a [`Census`], which counts what a sample of its records looks like; it knows no clock, and its cost
//! is bounded by the sample. The run adds the counts of all workers up, and its [`Watch`] compares each window of time
//! with the thresholds and with the windows before.

mod census;
mod watch;

pub use census::{Census, Counts, FieldCounts};
pub use watch::{CHANGES, Verdict, Watch};
