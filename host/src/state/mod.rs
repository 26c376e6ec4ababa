//! What a stage remembers of a partition: keys and their values, how they get into a changelog and out of it again.

mod changelog;
mod slots;
mod store;
mod undo;

pub use changelog::{Record, Sweep, decode, push_change, push_meta};
pub use store::{Change, Entry, KEY_BYTES_MAX, Store};

#[cfg(test)]
mod tests;
