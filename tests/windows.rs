//! Promise: windows hold every record once, whatever is killed, at one level and over two, and records of two topics make every
//! pair once; what can't be believed or comes too late is a dead letter that says so.

mod harness;

#[path = "windows/ask.rs"]
mod ask;
#[path = "windows/bad.rs"]
mod bad;
#[path = "windows/chaos.rs"]
mod chaos;
#[path = "windows/many_keys.rs"]
mod many_keys;
#[path = "windows/open.rs"]
mod open;
#[path = "windows/pairs.rs"]
mod pairs;
#[path = "windows/plugin.rs"]
mod plugin;
#[path = "windows/quiet.rs"]
mod quiet;
#[path = "windows/swap.rs"]
mod swap;
