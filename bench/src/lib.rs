//! What Millstream is measured against: programs that do the same by hand, and the tools that load, watch and compare.
//! `cargo xtask bench` builds and starts them.
//!
//! The contenders are meant to be beaten honestly: they use the rdkafka crate's safe interface and serde as their users
//! would, with the same settings of librdkafka as Millstream's.

mod args;
pub mod clickstream;
pub mod client;
mod digest;
pub mod logic;
mod random;
pub mod suite;
mod usage;
pub mod windows;

pub use args::Args;
pub use digest::digest;
pub use random::Random;
pub use usage::Usage;
