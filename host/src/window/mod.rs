//! Windows over event time: a stage that folds records into states by key and window, and emits rows when windows close.
//!
//! Everything here is a function of the records, in their order: which records are late, which windows close and with which
//! rows does not depend on how the records were cut into batches. The wall clock comes in at one place, [`WindowStage::quiet`].
//!
//! | file | owns |
//! | --- | --- |
//! | `spec`, `plan` | where windows lie; what the stage is to do |
//! | `clock` | event times, which of them are believed, and the watermark |
//! | `stage` | records in, rows out |
//! | `fixed`; `session`, `sessions` | windows of one size; windows as long as events follow each other |
//! | `duplicates` | records that came before |
//! | `pairs`, `pair_plan`, `halves` | records of two sides that belong together |
//! | `aggregate`, `functions`, `decimals`, `plugin` | what states are made of |
//! | `rows` | keys, and rows as JSON |
//! | `keyed`, `timers`, `log` | states and clock together; when sessions end; what a commit tells of them |
//! | `ask` | what is held for one key, for whoever asks |
//! | `away` | states that memory has no room for |
//! | `shuffle` | what passes between two levels |
//! | `quiet` | what happens when no records come |

mod aggregate;
mod ask;
mod away;
mod clock;
mod decimals;
mod duplicates;
mod fixed;
mod functions;
mod halves;
mod keyed;
mod log;
mod pair_plan;
mod pairs;
mod plan;
mod plugin;
mod quiet;
mod rows;
mod session;
mod sessions;
mod shuffle;
mod spec;
mod stage;
mod timers;

pub use aggregate::Aggregate;
pub use ask::{Held, HeldWindow, keys_of};
pub use clock::Clock;
pub use functions::Functions;
pub use log::{LoadError, Meta, Reading, StateRows, Tally};
pub use pair_plan::TaskPlace;
pub use pairs::Original;
pub use plan::{Late, Role, WindowPlan};
pub use plugin::PluginAggregate;
pub use spec::{Kind, WindowSpec};
pub use stage::WindowStage;

#[cfg(test)]
mod tests;
