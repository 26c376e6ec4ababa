//! Pairs under failures from a seed: at one level those of a run in which nothing fails, in their order; over two those of every
//! combination of records, looked at one by one.

use anyhow::{Context, Result, ensure};
use millstream::config::WindowConfig;
use millstream::memory::{Chance, Faults, MemoryKafka, Visible};
use millstream::record::Rows;
use millstream::spill::SpillFolder;
use millstream::window::Role;
use millstream::worker::Rules;
use serde_json::Value;

use super::{Folder, PARTITIONS, RECORDS, SEEDS, SEEDS_ON_DISK, faults, run_group, sent_on, stage, text};

const WITHIN: i64 = 30;
const DISORDER: i64 = 20;

#[test]
fn pairs_are_made_once_whatever_fails() {
    for seed in 0..SEEDS {
        one_level(seed, Rules::default(), None).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
}

#[test]
fn halves_meet_once_whatever_fails() {
    for seed in 0..SEEDS {
        two_levels(seed, Rules::default(), None).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
}

#[test]
fn they_do_where_all_that_waits_lies_on_the_disk_between_commits() {
    let dir = std::env::temp_dir().join(format!("millstream-pair-simulation-{}", std::process::id()));
    let folder = SpillFolder::new(dir, 0, None);
    for seed in 0..SEEDS_ON_DISK {
        one_level(seed, Rules::default(), Some(&folder)).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
        two_levels(seed, Rules::default(), Some(&folder)).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
    assert!(folder.files() > SEEDS_ON_DISK, "only {} files were needed", folder.files());
}

#[test]
fn k2_is_found_when_an_abort_leaves_halves_where_they_were() {
    let rules = Rules { restore_on_abort: false, ..Rules::default() };
    assert!((0..SEEDS).any(|seed| one_level(seed, rules, None).is_err()));
    assert!((0..SEEDS).any(|seed| two_levels(seed, rules, None).is_err()));
}

#[test]
fn it_is_found_when_halves_are_not_told_with_their_records() {
    let rules = Rules { tell_states: false, ..Rules::default() };
    assert!((0..SEEDS).any(|seed| one_level(seed, rules, None).is_err()));
    assert!((0..SEEDS).any(|seed| two_levels(seed, rules, None).is_err()));
}

fn pair() -> Result<WindowConfig> {
    let side = |name: &str| {
        format!(
            "{{as: {name}, when: {{field: /is, type: text, op: eq, value: {name}}}, key: [/k], time: {{field: /t, encoding: epoch_ms}}, unmatched: main}}"
        )
    };
    let (left, right) = (side("buy"), side("order"));
    stage(&format!("pair: {{left: {left}, right: {right}, within: {WITHIN}ms, disorder: {DISORDER}ms, output: main}}"))
}

/// Partitions of records of both sides that mostly move on in time; their keys are a partition's own, or those of all.
fn input(seed: u64, own_keys: bool) -> Vec<Rows> {
    let of = |partition: usize| {
        let mut chance = Chance::new(seed.wrapping_mul(37).wrapping_add(partition as u64));
        let (mut rows, mut now_ms) = (Rows::default(), 1_000);
        for offset in 0..RECORDS {
            now_ms += chance.below(20);
            let behind = if chance.below(8) == 0 { chance.below(150) } else { chance.below(15) };
            let (is, key) = (["buy", "order"][chance.below(2)], chance.below(4));
            let key = if own_keys { format!("p{partition}-{key}") } else { format!("all-{key}") };
            let value = format!(
                "{{\"n\":\"p{partition}-{offset}\",\"is\":\"{is}\",\"k\":\"{key}\",\"t\":{}}}",
                now_ms - behind
            );
            rows.push(offset as i64, -1, None, Some(value.as_bytes()));
        }
        rows
    };
    (0..PARTITIONS).map(of).collect()
}

fn one_level(seed: u64, rules: Rules, folder: Folder<'_>) -> Result<()> {
    let (pair, input) = (pair()?, input(seed, true));
    let rough = run_group(seed, (rules, folder), &pair, Role::Whole, &input, faults())?;
    let calm = run_group(seed, (rules, None), &pair, Role::Whole, &input, Faults::default())?;
    for partition in 0..PARTITIONS {
        for dead in [false, true] {
            let of = |kafka: &MemoryKafka| -> Vec<Visible> {
                let ours = |of: &Visible| text(of).contains(&format!("\"p{partition}-")) && of.output.is_none() == dead;
                kafka.visible().into_iter().filter(ours).collect()
            };
            let (rough, calm) = (of(&rough), of(&calm));
            ensure!(rough == calm, "partition {partition}, dead {dead}: {} for {}", rough.len(), calm.len());
            ensure!(dead || !calm.is_empty(), "nothing to compare");
        }
    }
    Ok(())
}

fn two_levels(seed: u64, rules: Rules, folder: Folder<'_>) -> Result<()> {
    let (pair, input) = (pair()?, input(seed, false));
    let first = run_group(seed, (rules, folder), &pair, Role::Partial, &input, faults())?;
    ensure!(
        first.visible().iter().all(|visible| visible.output.is_none()),
        "pairs are for those who know all partitions"
    );
    let second = run_group(!seed, (rules, folder), &pair, Role::Merge, &sent_on(&first), faults())?;
    let found = second.visible();
    ensure!(
        found.iter().all(|visible| visible.output.is_some()),
        "no half is late: all partitions wait for each other"
    );
    let mut found: Vec<String> = found.iter().map(text).collect();
    found.sort();
    let expected = every_combination(&input)?;
    ensure!(found == expected, "{} rows, {} expected\n{found:#?}\n{expected:#?}", found.len(), expected.len());
    ensure!(expected.len() > 20, "little to compare");
    Ok(())
}

struct Half {
    left: bool,
    key: String,
    time_ms: i64,
    text: String,
}

/// All pairs, and all that is in none and over, from the definition.
fn every_combination(input: &[Rows]) -> Result<Vec<String>> {
    let (mut all, mut watermark_ms) = (Vec::new(), i64::MAX);
    for rows in input {
        let mut latest_ms = i64::MIN / 2;
        for value in rows.values.iter() {
            let text = String::from_utf8(value.context("a value")?.to_vec())?;
            let record: Value = serde_json::from_str(&text)?;
            let time_ms = record["t"].as_i64().context("a time")?;
            if time_ms >= latest_ms - DISORDER {
                let key = record["k"].as_str().context("a key")?.to_owned();
                all.push(Half { left: record["is"] == "buy", key, time_ms, text });
            }
            latest_ms = latest_ms.max(time_ms);
        }
        watermark_ms = watermark_ms.min(latest_ms - DISORDER);
    }
    let mut out = Vec::new();
    for one in &all {
        let meets = |other: &&Half| {
            other.key == one.key && other.left != one.left && (other.time_ms - one.time_ms).abs() <= WITHIN
        };
        let others: Vec<&Half> = all.iter().filter(meets).collect();
        if others.is_empty() && one.time_ms + WITHIN < watermark_ms {
            out.push(one.text.clone());
        }
        let row = |other: &&Half| format!("{{\"k\":\"{}\",\"buy\":{},\"order\":{}}}", one.key, one.text, other.text);
        out.extend(others.iter().filter(|_| one.left).map(row));
    }
    out.sort();
    Ok(out)
}
