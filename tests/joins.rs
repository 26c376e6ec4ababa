//! Promise: a join writes what its table has and nothing else, a table is current or says that it is not, and rows that can't
//! be read are told with their place.

#[path = "joins/files.rs"]
mod files;
mod harness;

#[path = "joins/dice.rs"]
mod dice;
#[path = "joins/line.rs"]
mod line;
#[path = "joins/parts.rs"]
mod parts;
#[path = "joins/plugins.rs"]
mod plugins;
#[path = "joins/topics.rs"]
mod topics;
