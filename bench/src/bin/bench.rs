//! Runs a bench against a broker: `bench end-to-end|latency|idle|metrics --brokers … --millstream … --plugins … --work …`.
//! `cargo xtask bench` builds everything, starts the broker and calls this.

use anyhow::Result;
use millstream_bench::Args;

fn main() -> Result<()> {
    millstream_bench::suite::run(&Args::of_process())
}
