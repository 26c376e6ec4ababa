//! `plugin`: what the plugins' boundary costs a record, from memory, beside the same logic by serde in the same process.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use millstream::config::Config;
use millstream::pipeline::{Flow, Run, Stage};
use millstream::record::Rows;
use millstream::run::Prepared;

use super::report::{Row, median};
use crate::clickstream::Clickstream;
use crate::logic::{Depth, process_to};
use crate::{Args, usage};

const BENCH: &str = "plugin";
/// Records are about as large as those that the design was measured with: 319 bytes.
const PADDING: usize = 131;
/// Records that are made, to be passed over again and again.
const DISTINCT: usize = 100_000;
/// Records of a batch, and so of a plugin's instance: what a worker gets of a partition under load.
const BATCH: usize = 2_500;
const CHAINS: [(Depth, &str); 3] =
    [(Depth::Validate, "validate"), (Depth::Upcast, "validate, upcast"), (Depth::Enrich, "validate, upcast, enrich")];

pub(super) fn run(args: &Args) -> Result<Vec<Row>> {
    let records: usize = args.get("records", 1_000_000)?;
    let rounds: usize = args.get("rounds", 3)?;
    let batches = batches();
    let bytes: usize = batches.iter().map(Rows::bytes).sum();
    eprintln!("records of {} bytes on average", bytes / DISTINCT);
    let mut chains = Vec::new();
    for (count, _) in CHAINS.iter().enumerate() {
        chains.push(Chain::new(Path::new(&args.text("plugins")?), Path::new(&args.text("work")?), count + 1)?);
    }
    let (mut ours, mut native) = (vec![Vec::new(); CHAINS.len()], vec![Vec::new(); CHAINS.len()]);
    for round in 1..=rounds {
        for (at, (depth, name)) in CHAINS.iter().enumerate() {
            let (by_serde, forwarded_by_serde) = measure(records, &batches, |rows| Ok(by_serde(*depth, rows)))?;
            let (by_plugins, forwarded) = measure(records, &batches, |rows| chains[at].pass(rows))?;
            ensure!(forwarded == forwarded_by_serde, "{name}: {forwarded} forwarded, by serde {forwarded_by_serde}");
            eprintln!("round {round}: {name}: serde {by_serde:.0} ns, plugins {by_plugins:.0} ns");
            native[at].push(by_serde);
            ours[at].push(by_plugins);
        }
    }
    let mut rows = Vec::new();
    for ((_, name), (native, ours)) in CHAINS.iter().zip(native.into_iter().zip(ours)) {
        let row = |by: &str, ns| Row::new(BENCH, format!("{by}: {name}"), vec![("cpu_ns_per_record", ns)]);
        let (native, ours) = (median(native), median(ours));
        for mut row in [row("native serde", native), row("millstream", ours)] {
            row.compare(Some(native), "cpu_ns_per_record");
            rows.push(row);
        }
    }
    Ok(rows)
}

fn batches() -> Vec<Rows> {
    let (mut stream, mut record) = (Clickstream::padded(1, PADDING), Vec::new());
    let batch = |from: usize| {
        let mut rows = Rows::default();
        for offset in from..from + BATCH {
            stream.next(None, &mut record);
            rows.push(offset as i64, 0, None, Some(&record));
        }
        rows
    };
    (0..DISTINCT).step_by(BATCH).map(batch).collect()
}

/// Passes over batches until `records` are done; the CPU time of a record in nanoseconds, and how many went on.
fn measure(records: usize, batches: &[Rows], mut pass: impl FnMut(&Rows) -> Result<usize>) -> Result<(f64, usize)> {
    let cpu_s = || usage::cpu_s("self").context("no CPU time in /proc");
    let (start, mut done, mut forwarded) = (cpu_s()?, 0, 0);
    for rows in batches.iter().cycle() {
        forwarded += pass(rows)?;
        done += rows.len();
        if done >= records {
            break;
        }
    }
    Ok(((cpu_s()? - start) / done as f64 * 1e9, forwarded))
}

/// The logic by serde, with what goes on side by side in one buffer, as it also comes out of a chain.
fn by_serde(depth: Depth, rows: &Rows) -> usize {
    let (mut out, mut all, mut forwarded) = (Vec::new(), Vec::new(), 0);
    let mut reasons = Vec::new();
    for row in 0..rows.len() {
        let record = rows.values.get(row).unwrap_or_default();
        match process_to(depth, record, &mut out) {
            Ok(()) => {
                all.extend_from_slice(&out);
                forwarded += 1;
            }
            Err(reject) => reasons.push(reject),
        }
    }
    std::hint::black_box((all, reasons));
    forwarded
}

/// Plugins in their sandboxes, with what a task needs to run them.
struct Chain {
    prepared: Prepared,
    stages: Vec<Stage>,
    run: Run,
    out: Flow,
}

impl Chain {
    /// The first `count` plugins of the clickstream.
    fn new(plugins: &Path, work: &Path, count: usize) -> Result<Self> {
        let plugins = plugins.display();
        let stages: String = ["validate", "upcast", "enrich"][..count]
            .iter()
            .map(|name| {
                let config = if *name == "validate" { ", config: {blocked_countries: [XX, ZZ]}" } else { "" };
                format!("  - {{name: {name}, plugin: \"{plugins}/{name}.wasm\"{config}}}\n")
            })
            .collect();
        let text = format!(
            "pipeline: bench\nsource: {{stdin: {{format: ndjson}}}}\nstages:\n{stages}outputs: {{main: {{discard: {{}}}}}}\n\
             dead_letters: {{to: {{discard: {{}}}}}}\n"
        );
        std::fs::create_dir_all(work).context("can't make the folder for the runs")?;
        let file = work.join(format!("plugin-{count}.yaml"));
        std::fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
        let prepared = Prepared::new(&Config::load(&file)?)?;
        let stages = (prepared.factory())(0)?;
        Ok(Self { prepared, stages, run: Run::new(usize::MAX), out: Flow::default() })
    }

    /// One batch from extraction to splice, with instances of its own; returns how many records went on.
    fn pass(&mut self, rows: &Rows) -> Result<usize> {
        let passed = self.run.run(&self.prepared.pipeline, &mut self.stages, rows, &mut self.out);
        self.stages.iter_mut().for_each(Stage::end_block);
        passed.context("the chain")?;
        std::hint::black_box(self.run.dead());
        Ok(self.out.rows.len())
    }
}
