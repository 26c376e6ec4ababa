//! Promise: whatever fails, and wherever, windows hold every record once: the rows are those of a run in which nothing fails,
//! at one level and over two; and pairs are made once. The real worker runs against a model of Kafka; each of its rules, switched off, is caught.

#[path = "window_simulation/pairs.rs"]
mod pairs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use millstream::config::{Config, StageKind, WindowConfig};
use millstream::memory::{Chance, Faults, MemoryKafka, Visible};
use millstream::pipeline::{Pipeline, RowLimits, Stage, StageSpec};
use millstream::record::{Lanes, Rows};
use millstream::sink::{Delivery, MemoryDelivery};
use millstream::source::{MemorySource, MemoryStates, Source, StateSource};
use millstream::spill::{Spill, SpillFolder};
use millstream::task::DeadLetterLabels;
use millstream::window::{Aggregate, Role, WindowPlan, WindowStage};
use millstream::worker::{Chain, Chains, CommitPolicy, Rules, Shared, StageFactory, Step, Worker};
use serde_json::Value;

const PARTITIONS: usize = 3;
const RECORDS: usize = 60;
const WORKERS: usize = 2;
const ROUGH_ROUNDS: u64 = 150;
const CALM_ROUNDS: u64 = 4_000;
const SEEDS: u64 = 300;
const SEEDS_ON_DISK: u64 = 50;

const WINDOWS: &[&str] = &[
    "tumbling: 100ms",
    "hopping: {size: 90ms, every: 40ms}",
    "session: 30ms",
    "tumbling: 100ms, reopen: 60ms",
    "hopping: {size: 90ms, every: 40ms}, reopen: 60ms",
    "session: 30ms, reopen: 60ms",
    "within: 15ms",
];

#[test]
fn windows_hold_every_record_once_whatever_fails() {
    for seed in 0..SEEDS {
        simulate(seed, Rules::default(), None).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
}

#[test]
fn k2_is_found_when_an_abort_leaves_the_states_where_they_were() {
    assert!(fails_for_some_seed(Rules { restore_on_abort: false, ..Rules::default() }));
}

#[test]
fn it_is_found_when_states_are_not_told_with_their_records() {
    assert!(fails_for_some_seed(Rules { tell_states: false, ..Rules::default() }));
}

#[test]
fn two_levels_hold_every_record_once_whatever_fails() {
    for seed in 0..SEEDS {
        two_levels(seed, WINDOWS[seed as usize % (WINDOWS.len() - 1)], None)
            .unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
}

#[test]
fn they_do_where_all_states_lie_on_the_disk_between_commits() {
    let dir = std::env::temp_dir().join(format!("millstream-window-simulation-{}", std::process::id()));
    let folder = SpillFolder::new(dir, 0, None);
    for seed in 0..SEEDS_ON_DISK {
        simulate(seed, Rules::default(), Some(&folder)).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
        let kind = WINDOWS[seed as usize % (WINDOWS.len() - 1)];
        two_levels(seed, kind, Some(&folder)).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
    assert!(folder.files() > SEEDS_ON_DISK * 10, "only {} files were needed", folder.files());
    assert_eq!(folder.used_bytes(), 0);
}

fn fails_for_some_seed(rules: Rules) -> bool {
    (0..SEEDS).any(|seed| simulate(seed, rules, None).is_err())
}

/// Where states go that find no room in memory.
type Folder<'a> = Option<&'a Arc<SpillFolder>>;

fn simulate(seed: u64, rules: Rules, folder: Folder<'_>) -> Result<()> {
    let window = window(WINDOWS[seed as usize % WINDOWS.len()])?;
    let input = input(seed);
    let rough = run_group(seed, (rules, folder), &window, Role::Whole, &input, faults())?;
    let calm = run_group(seed, (rules, None), &window, Role::Whole, &input, Faults::default())?;
    for partition in 0..PARTITIONS {
        // A group's key names its partition, and a late record's dead letter is the record.
        let of = |kafka: &MemoryKafka| -> Vec<Visible> {
            let mark = format!("p{partition}-");
            kafka.visible().into_iter().filter(|visible| text(visible).contains(&mark)).collect()
        };
        let (rough, calm) = (of(&rough), of(&calm));
        let outputs = |all: &[Visible], dead: bool| -> Vec<Visible> {
            all.iter().filter(|visible| visible.output.is_none() == dead).cloned().collect()
        };
        for dead in [false, true] {
            let (found, expected) = (outputs(&rough, dead), outputs(&calm, dead));
            ensure!(found == expected, "partition {partition}, dead {dead}: {} for {}", found.len(), expected.len());
        }
        ensure!(!calm.is_empty(), "nothing to compare");
    }
    Ok(())
}

fn two_levels(seed: u64, kind: &str, folder: Folder<'_>) -> Result<()> {
    let window = window(kind)?;
    let input = input(seed);
    let first = run_group(seed, (Rules::default(), folder), &window, Role::Partial, &input, faults())?;
    let between = sent_on(&first);
    ensure!(
        first.visible().iter().all(|visible| visible.output.is_none()),
        "rows are for those who know all partitions"
    );
    let second = run_group(!seed, (Rules::default(), folder), &window, Role::Merge, &between, faults())?;
    let found: Vec<Visible> = second.visible();
    ensure!(
        found.iter().all(|visible| visible.output.is_some()),
        "no state is late: all partitions wait for each other"
    );
    let (mut expected, open) = reference(&window, &input)?;
    let mut found = newest(found.iter().map(text).collect(), &open)?;
    found.sort();
    expected.sort();
    ensure!(found == expected, "{kind}: {} rows, {} expected\n{found:#?}\n{expected:#?}", found.len(), expected.len());
    ensure!(expected.len() > 5, "little to compare");
    Ok(())
}

/// What the first level has sent on, as the input of the second.
fn sent_on(first: &MemoryKafka) -> Vec<Rows> {
    let shuffled = first.states(0);
    let rows = |partition| {
        let mut rows = Rows::default();
        for (offset, (key, value)) in shuffled.get(&partition).into_iter().flatten().enumerate() {
            rows.push(offset as i64, -1, key.as_deref(), value.as_deref());
        }
        rows
    };
    (0..PARTITIONS as i32).map(rows).collect()
}

/// Where rows have versions, each window's newest, as a table that replaces has it: without the version, and none that was taken
/// back. Sessions that late records have opened again, and that are to come once more, are left out.
fn newest(rows: Vec<String>, open: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut plain = Vec::new();
    let mut newest: BTreeMap<String, (u64, bool, String)> = BTreeMap::new();
    for text in rows {
        let row: Value = serde_json::from_str(&text)?;
        let Some(version) = row["version"].as_u64() else {
            plain.push(text);
            continue;
        };
        let retracted = row["retracted"].as_bool().context("whether it is taken back")?;
        let without = text.replace(&format!(",\"version\":{version},\"retracted\":{retracted}"), "");
        let window = format!("{} {}", row["g"], row["window_start"]);
        // Of two that one state brought, the later one counts.
        if newest.get(&window).is_none_or(|(known, ..)| *known <= version) {
            newest.insert(window, (version, retracted, without));
        }
    }
    let stands = |(window, (_, retracted, row)): (String, (u64, bool, String))| {
        (!retracted && !open.contains(&window)).then_some(row)
    };
    plain.extend(newest.into_iter().filter_map(stands));
    Ok(plain)
}

/// The rows over all partitions, from the definition: what is late is late in its own partition, and a window closes once all
/// partitions are past its end. And which windows are still open.
fn reference(window: &WindowConfig, input: &[Rows]) -> Result<(Vec<String>, BTreeSet<String>)> {
    let mut taken: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut counted: BTreeMap<String, BTreeMap<(i64, i64), u64>> = BTreeMap::new();
    let mut closed_ms = i64::MAX;
    let gap = match window.kind {
        millstream::config::WindowKind::Session { gap_ms } => Some(gap_ms as i64),
        _ => None,
    };
    for rows in input {
        let (mut latest_ms, mut own): (i64, BTreeMap<String, Vec<i64>>) = (i64::MIN / 2, BTreeMap::new());
        for value in rows.values.iter() {
            let record: Value = serde_json::from_slice(value.context("a value")?)?;
            let (time_ms, key) =
                (record["t"].as_i64().context("a time")?, record["g"].as_str().context("a key")?.to_owned());
            // What ends up to here takes nothing any more.
            let watermark_ms = latest_ms - (window.disorder_ms + window.reopen_ms) as i64;
            let before = own.entry(key.clone()).or_default();
            let late = match gap {
                Some(_) => time_ms < watermark_ms,
                None => windows(window, time_ms).iter().all(|(_, end)| *end <= watermark_ms),
            };
            if !late {
                before.push(time_ms);
                // What is closed where the record comes from does not take it, even where others have it open.
                for open in windows(window, time_ms).into_iter().filter(|(_, end)| *end > watermark_ms) {
                    *counted.entry(key.clone()).or_default().entry(open).or_default() += 1;
                }
                taken.entry(key).or_default().push(time_ms);
            }
            latest_ms = latest_ms.max(time_ms);
        }
        closed_ms = closed_ms.min(latest_ms - window.disorder_ms as i64);
    }
    let (mut rows, mut still_open) = (Vec::new(), BTreeSet::new());
    for (key, mut times) in taken {
        times.sort_unstable();
        let mut counts: BTreeMap<(i64, i64), u64> = BTreeMap::new();
        match gap {
            None => counts = counted.remove(&key).unwrap_or_default(),
            Some(gap) => {
                for session in times.chunk_by(|one, other| other - one < gap) {
                    counts.insert((session[0], session[session.len() - 1] + gap), session.len() as u64);
                }
            }
        }
        for ((begin, end), count) in counts {
            let time = |ms: i64| format!("1970-01-01T00:00:{:02}.{:03}", ms / 1_000, ms % 1_000);
            let short = |ms: i64| time(ms).trim_end_matches('0').trim_end_matches('.').to_owned() + "Z";
            let short =
                |ms: i64| if ms % 1_000 == 0 { format!("1970-01-01T00:00:{:02}Z", ms / 1_000) } else { short(ms) };
            if end > closed_ms {
                still_open.insert(format!("\"{key}\" \"{}\"", short(begin)));
                continue;
            }
            rows.push(format!(
                "{{\"g\":\"{key}\",\"window_start\":\"{}\",\"window_end\":\"{}\",\"n\":{count}}}",
                short(begin),
                short(end)
            ));
        }
    }
    Ok((rows, still_open))
}

fn windows(window: &WindowConfig, time_ms: i64) -> Vec<(i64, i64)> {
    let millstream::config::WindowKind::Fixed { size_ms, every_ms, .. } = window.kind else { return Vec::new() };
    let begins = (0..=time_ms / every_ms as i64).map(|n| n * every_ms as i64);
    begins.map(|begin| (begin, begin + size_ms as i64)).filter(|(_, end)| time_ms < *end).collect()
}

fn faults() -> Faults {
    Faults { away: 30, polled_twice: 5, aborted: 30, timed_out: 60 }
}

fn window(kind: &str) -> Result<WindowConfig> {
    let common = format!("time: {{field: /t, encoding: epoch_ms}}, key: [/g], {kind}, disorder: 20ms");
    stage(&match kind.starts_with("within") {
        true => format!("deduplicate: {{{common}}}"),
        false => format!("window: {{{common}, aggregate: {{n: count}}, output: main, keyed_topic: true}}"),
    })
}

fn stage(stage: &str) -> Result<WindowConfig> {
    let text = format!(
        "pipeline: p\nsource: {{stdin: {{format: ndjson}}}}\noutputs: {{main: {{discard: }}}}\n\
         dead_letters: {{to: {{discard: }}}}\nstages: [{{name: w, {stage}}}]"
    );
    let config = Config::parse(Path::new("p.yaml"), &text, &|_| None)?;
    match config.stages.into_iter().next().map(|stage| stage.kind) {
        Some(StageKind::Window(window)) => Ok(*window),
        other => bail!("{other:?}"),
    }
}

/// Partitions of records that mostly move on in time. Groups are a partition's own, but for one that all share.
fn input(seed: u64) -> Vec<Rows> {
    let of = |partition: usize| {
        let mut chance = Chance::new(seed.wrapping_mul(31).wrapping_add(partition as u64));
        let (mut rows, mut now_ms) = (Rows::default(), 1_000);
        for offset in 0..RECORDS {
            now_ms += chance.below(20);
            let behind = if chance.below(8) == 0 { chance.below(150) } else { chance.below(15) };
            let group = ["a", "b"][chance.below(2)];
            let value = format!("{{\"t\":{},\"g\":\"p{partition}-{group}\"}}", now_ms - behind);
            rows.push(offset as i64, -1, None, Some(value.as_bytes()));
        }
        rows
    };
    (0..PARTITIONS).map(of).collect()
}

/// Runs a group of workers through failures from a seed, then without any to the end.
fn run_group(
    seed: u64,
    (rules, folder): (Rules, Folder<'_>),
    window: &WindowConfig,
    role: Role,
    input: &[Rows],
    faults: Faults,
) -> Result<MemoryKafka> {
    let kafka = MemoryKafka::new(input.to_vec(), seed, faults);
    let rough = faults.away > 0;
    let mut chance = Chance::new(!seed);
    let mut group = Group { kafka: kafka.clone(), rules, folder, window, role, workers: BTreeMap::new() };
    (0..WORKERS).try_for_each(|worker| group.start(worker))?;
    kafka.rebalance(true);
    let mut now_ms = 0;
    for _ in 0..if rough { ROUGH_ROUNDS } else { 0 } {
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
            return Ok(kafka);
        }
    }
    bail!("the group never gets to the end of its input")
}

struct Group<'a> {
    kafka: MemoryKafka,
    rules: Rules,
    folder: Folder<'a>,
    window: &'a WindowConfig,
    role: Role,
    workers: BTreeMap<usize, (u64, Worker)>,
}

impl Group<'_> {
    fn start(&mut self, worker: usize) -> Result<()> {
        let source = MemorySource::new(&self.kafka);
        let member = source.member();
        let delivery = MemoryDelivery::new(&self.kafka, &format!("worker-{worker}"));
        let (plan, descriptor) = WindowPlan::new(self.window, self.role, &[]);
        let spec = StageSpec::new("w", &descriptor, &["main".into()])?;
        let pipeline = Pipeline::new(vec![spec], vec!["main".into()], &[None])?;
        let functions = WindowPlan::functions(self.window).context("functions")?;
        let (plan, folder) = (Arc::new(plan), self.folder.cloned());
        let stages: StageFactory = Arc::new(move |_| {
            let aggregate = Aggregate::Functions(functions.clone());
            let mut stage = WindowStage::new(plan.clone(), aggregate);
            folder.iter().for_each(|folder| stage.set_spill(|| Spill::to(folder)));
            Ok(vec![Stage::Window(Box::new(stage))])
        });
        let states = StateSource::Memory(MemoryStates::new(&self.kafka));
        let made = Worker::new(shared(pipeline, stages), Source::Memory(source), Delivery::Memory(delivery));
        self.workers.insert(worker, (member, made.with_rules(self.rules).with_states(states)));
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

fn text(visible: &Visible) -> String {
    String::from_utf8_lossy(visible.value.as_deref().unwrap_or_default()).into_owned()
}

#[test]
fn the_groups_of_all_partitions_meet_at_the_second_level() {
    // What the other tests rest on: the input has late records, and each partition's groups are its own.
    let window = window(WINDOWS[0]).expect("a window");
    let groups: BTreeSet<String> =
        reference(&window, &input(1)).expect("rows").0.into_iter().map(|row| row[6..10].to_owned()).collect();
    assert!(groups.len() >= 2 * PARTITIONS, "{groups:?}");
}
