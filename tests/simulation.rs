//! Promise: whatever fails, and wherever, every record is answered for exactly once, in order; and the same seed
//! fails in the same way. The real worker runs against a model of Kafka; each of its rules, switched off, is caught.

#[path = "harness/guests.rs"]
mod guests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Result, ensure};
use millstream::memory::{Chance, Faults, MemoryKafka, Visible};
use millstream::pipeline::{Joined, Pipeline, RowLimits, Stage, StageSpec};
use millstream::plugin::{Limits, Runtime, RuntimeConfig, StageInput, StageOutput, StageRunner};
use millstream::record::json::Pointer;
use millstream::record::{Cell, Column};
use millstream::record::{Lanes, Rows};
use millstream::sink::{Delivery, MemoryDelivery};
use millstream::source::{MemorySource, Source};
use millstream::task::DeadLetterLabels;
use millstream::worker::{Chain, Chains, CommitPolicy, Rules, Shared, StageFactory, Step, Worker};

const PARTITIONS: usize = 3;
const RECORDS: usize = 40;
const WORKERS: usize = 2;
/// Rounds with failures, and the most that it may take without them to finish.
const ROUGH_ROUNDS: u64 = 150;
const CALM_ROUNDS: u64 = 3_000;
const SEEDS: u64 = 1_000;

#[test]
fn every_record_is_answered_for_once_whatever_fails() {
    for seed in 0..SEEDS {
        simulate(seed, Rules::default()).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 0..50 {
        let visible = || simulate(seed, Rules::default()).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
        assert_eq!(visible(), visible(), "seed {seed}");
    }
}

#[test]
fn k1_is_found_when_offsets_of_revoked_partitions_are_still_committed() {
    assert!(fails_for_some_seed(Rules { forget_revoked: false, ..Rules::default() }));
}

#[test]
fn k2_is_found_when_an_abort_leaves_the_tasks_where_they_were() {
    assert!(fails_for_some_seed(Rules { restore_on_abort: false, ..Rules::default() }));
}

#[test]
fn k3_is_found_when_a_producer_in_doubt_is_used_again() {
    assert!(fails_for_some_seed(Rules { renew_in_doubt: false, ..Rules::default() }));
}

#[test]
fn a_plugin_that_gets_no_instance_holds_its_partitions_and_loses_nothing() {
    let runtime = Runtime::new(RuntimeConfig { instances: 1, ..RuntimeConfig::default() }).expect("a runtime");
    let plugin = runtime.load(&guests::guest("hostile"), "hostile").expect("it keeps the contract's letter");
    let limits = Limits::new(64 << 20, 1_000, 32 << 20);
    let runner = move || StageRunner::new(plugin.clone(), "{}", limits.clone());
    let mut other = runner().expect("the only instance");
    let spec = StageSpec::new("hostile", other.descriptor(), &["main".into()]).expect("a stage");
    let pipeline = Pipeline::new(vec![spec], vec!["main".into()], &[None]).expect("a pipeline");
    let stages: StageFactory = Arc::new(move |_| Ok(vec![Stage::Plugin(Box::new(runner()?), Joined::default())]));

    let input: Vec<Rows> = (0..PARTITIONS).map(|partition| partition_of(1, partition)).collect();
    let kafka = MemoryKafka::new(input, 1, Faults::default());
    let (source, delivery) = (MemorySource::new(&kafka), MemoryDelivery::new(&kafka, "worker"));
    let mut worker = Worker::new(shared(pipeline, stages), Source::Memory(source), Delivery::Memory(delivery));
    kafka.rebalance(true);
    let mut now_ms = 0;
    // The only instance is taken and given back again and again: before the tasks start, and later between their batches.
    for round in 0..400 {
        now_ms += 50;
        let taken = round % 20 < 10;
        if taken {
            take_instance(&mut other)
        } else {
            other.end_block()
        }
        let before = kafka.visible().len();
        worker.step(now_ms).expect("no trouble that ends a worker");
        // What was processed before is committed within 200 ms.
        let held = taken && round % 20 >= 5;
        assert!(!held || kafka.visible().len() == before, "what is committed came through no plugin");
    }
    assert!(kafka.all_committed());
    let id = |visible: &Visible| text(visible).split('"').nth(3).map(str::to_owned);
    let ids: BTreeSet<_> = kafka.visible().iter().map(id).collect();
    assert_eq!((ids.len(), kafka.visible().len()), (PARTITIONS * RECORDS, PARTITIONS * RECORDS), "each once");
}

/// Runs a row, after which the stage keeps its instance until its block ends.
fn take_instance(runner: &mut StageRunner) {
    let fields = runner.descriptor().reads.clone();
    let mut columns: Vec<Column> = fields.iter().map(|field| Column::new(field.ty)).collect();
    columns.iter_mut().for_each(|column| column.push_cell(Cell::Missing));
    let columns: Vec<&Column> = columns.iter().collect();
    let (keys, values, headers, timestamps_ms) = (None, None, None, None);
    let input = StageInput { rows: 1, columns: &columns, keys, values, headers, timestamps_ms };
    runner.run(&input, &mut StageOutput::default()).expect("it has the instance, or gets it");
}

fn fails_for_some_seed(rules: Rules) -> bool {
    (0..SEEDS).any(|seed| simulate(seed, rules).is_err())
}

/// Runs a group of workers through failures from a seed, then without any to the end, and compares what a reader of
/// committed records sees with what an obvious reference computes.
fn simulate(seed: u64, rules: Rules) -> Result<Vec<Visible>> {
    let faults = Faults { away: 30, polled_twice: 5, aborted: 30, timed_out: 60 };
    let input: Vec<Rows> = (0..PARTITIONS).map(|partition| partition_of(seed, partition)).collect();
    let kafka = MemoryKafka::new(input.clone(), seed, faults);
    let mut chance = Chance::new(!seed);
    let mut group = Group { kafka: kafka.clone(), rules, workers: BTreeMap::new() };
    (0..WORKERS).try_for_each(|worker| group.start(worker))?;
    kafka.rebalance(true);
    let mut now_ms = 0;
    for _ in 0..ROUGH_ROUNDS {
        now_ms += chance.below(30) as u64;
        let worker = chance.below(WORKERS);
        match chance.below(100) {
            0..=2 => group.crash(worker)?,
            3..=9 => kafka.rebalance(true),
            10..=11 => kafka.rebalance(false),
            _ => group.step(worker, now_ms)?,
        }
    }
    kafka.calm();
    for round in 0..CALM_ROUNDS {
        now_ms += 20;
        group.step(round as usize % WORKERS, now_ms)?;
        if kafka.all_committed() {
            break;
        }
    }
    ensure!(kafka.all_committed(), "the group never gets to the end of its input");
    let visible = kafka.visible();
    for (partition, rows) in input.iter().enumerate() {
        compare(partition, rows, &visible)?;
    }
    Ok(visible)
}

/// Compares one partition's outputs and dead letters, each in order, with the reference.
fn compare(partition: usize, rows: &Rows, visible: &[Visible]) -> Result<()> {
    let name = format!("p{partition}-");
    for (dead, what) in [(false, "outputs"), (true, "dead letters")] {
        let ours = |visible: &&Visible| text(visible).contains(&name) && visible.output.is_none() == dead;
        let found: Vec<&Visible> = visible.iter().filter(ours).collect();
        let expected = reference(rows, dead);
        let same = found.iter().copied().eq(expected.iter());
        ensure!(same, "partition {partition}, {what}: {} found, {} expected", found.len(), expected.len());
    }
    Ok(())
}

fn shared(pipeline: Pipeline, stages: StageFactory) -> Shared {
    let chain = Chain {
        number: 0,
        pipeline: Arc::new(pipeline),
        stages,
        labels: Arc::new(DeadLetterLabels { pipeline: "simulation".into(), stages: Vec::new() }),
        lineage: None,
        plugins: Arc::default(),
        watch: None,
        given_up: false,
        one_way: false,
    };
    Shared {
        chains: Arc::new(Chains::new(chain)),
        breaker: None,
        budget: None,
        row_limits: RowLimits::same(10_000),
        policy: CommitPolicy { min_interval_ms: 10, max_interval_ms: 200, records_max: 20, bytes_max: 1 << 20 },
        metered: true,
        quality: None,
        lanes: Lanes::new([("input".into(), PARTITIONS as u32)]),
    }
}

struct Group {
    kafka: MemoryKafka,
    rules: Rules,
    workers: BTreeMap<usize, (u64, Worker)>,
}

impl Group {
    fn start(&mut self, worker: usize) -> Result<()> {
        let source = MemorySource::new(&self.kafka);
        let member = source.member();
        let delivery = MemoryDelivery::new(&self.kafka, &format!("worker-{worker}"));
        let keys = [Some(Pointer::parse("/country")?)];
        let pipeline = Pipeline::new(Vec::new(), vec!["main".into()], &keys)?;
        let shared = shared(pipeline, Arc::new(|_| Ok(Vec::new())));
        let made = Worker::new(shared, Source::Memory(source), Delivery::Memory(delivery)).with_rules(self.rules);
        self.workers.insert(worker, (member, made));
        Ok(())
    }

    fn crash(&mut self, worker: usize) -> Result<()> {
        if let Some((member, dead)) = self.workers.remove(&worker) {
            drop(dead);
            self.kafka.crash(member);
        }
        self.start(worker)?;
        self.kafka.rebalance(true);
        Ok(())
    }

    /// One round of one worker; a worker that stops is started again, as a supervisor does.
    fn step(&mut self, worker: usize, now_ms: u64) -> Result<()> {
        let Some((_, running)) = self.workers.get_mut(&worker) else { return self.start(worker) };
        match running.step(now_ms) {
            Ok(Step::Worked(_) | Step::Finished) => {
                let ledger = running.ledger();
                ensure!(ledger.imbalance() == 0, "the ledger is off: {ledger:?}");
                Ok(())
            }
            Err(_) => self.crash(worker),
        }
    }
}

/// A partition's records: most are JSON with a country, some are broken.
fn partition_of(seed: u64, partition: usize) -> Rows {
    let mut chance = Chance::new(seed.wrapping_mul(31).wrapping_add(partition as u64));
    let mut rows = Rows::default();
    for offset in 0..RECORDS {
        let country = ["US", "DE", "JP"][chance.below(3)];
        let value = match chance.below(5) {
            0 => format!("{{\"id\":\"p{partition}-{offset}\""),
            _ => format!("{{\"id\":\"p{partition}-{offset}\",\"country\":\"{country}\"}}"),
        };
        rows.push(offset as i64, -1, None, Some(value.as_bytes()));
    }
    rows
}

/// What becomes of a partition's records, computed the plain way.
fn reference(rows: &Rows, dead: bool) -> Vec<Visible> {
    let answer = |offset: usize| {
        let value = rows.values.get(offset).map(<[u8]>::to_vec);
        let parsed: Option<serde_json::Value> = value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
        let key = parsed.as_ref().and_then(|json| json["country"].as_str()).map(|country| country.as_bytes().to_vec());
        let output = parsed.is_some().then_some(0);
        Visible { output, offset: offset as i64, key, value }
    };
    (0..rows.len()).map(answer).filter(|visible| visible.output.is_none() == dead).collect()
}

fn text(visible: &Visible) -> String {
    String::from_utf8_lossy(visible.value.as_deref().unwrap_or_default()).into_owned()
}
