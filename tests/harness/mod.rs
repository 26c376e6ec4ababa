//! What the promises need to be tested against the real thing: a broker of their own, processes, guests.
//!
//! Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod broker;
pub mod clickhouse;
pub mod guests;
pub mod http;
pub mod process;
mod server;
pub mod topics;
