//! What stages hold that keep states, on both levels, and how far restores are: for metrics, the status and the log.
//!
//! Level 1 are the pipeline's own workers; level 2 those that merge what these send on, where a stage has them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::config::Config;
use crate::metrics::{ClientFigures, Exposition};
use crate::record::Place;
use crate::record::calendar::push_rfc3339;
use crate::window::{Role, Tally};
use crate::worker::{PartitionReading, Readings, RestoreReading};

use super::states;

/// What a stage holds on one level, over all partitions of this process.
#[derive(Clone, Debug)]
struct Holding {
    stage: usize,
    name: String,
    level: &'static str,
    keys: u64,
    keys_on_disk: u64,
    bytes: u64,
    tally: Tally,
    /// True where it makes pairs.
    pairs: bool,
    /// The watermark of each partition that has one, in microseconds since 1970 UTC.
    watermarks: Vec<(Place, i64)>,
}

/// What all stages hold that keep states.
#[derive(Clone, Debug)]
pub(super) struct Holdings {
    stages: Vec<Holding>,
    /// Records still to be read of each partition's changelogs; 0 once they are restored.
    restoring: BTreeMap<Place, u64>,
    /// Where the second levels stand in the topics that they read, with their groups.
    pub(super) merging: Vec<(String, Vec<PartitionReading>)>,
}

impl Holdings {
    /// From what the first level has read of itself, all workers together, and each worker of a second level, by its stage.
    pub(super) fn new(
        config: &Config,
        first: &Readings,
        second: &[(usize, Readings)],
        restoring: &[RestoreReading],
    ) -> Self {
        let mut stages = Vec::new();
        for (stage, of, window) in states::windows(config) {
            let name = of.name.clone();
            let empty = Holding {
                stage,
                name,
                level: "1",
                keys: 0,
                keys_on_disk: 0,
                bytes: 0,
                tally: Tally::default(),
                pairs: window.pairs().is_some(),
                watermarks: Vec::new(),
            };
            let mut own = empty.clone();
            own.add(first, stage);
            stages.push(own);
            if states::role(config, window) == Role::Partial {
                let mut merged = Holding { level: "2", ..empty };
                // A second level has one stage.
                second.iter().filter(|(of, _)| *of == stage).for_each(|(_, readings)| merged.add(readings, 0));
                stages.push(merged);
            }
        }
        let readings = || [first].into_iter().chain(second.iter().map(|(_, readings)| readings));
        let held = readings().flat_map(|readings| &readings.states).map(|state| (state.place.clone(), 0));
        let left = restoring.iter().map(|reading| (reading.place.clone(), reading.records_left));
        let merging = second.iter().map(|(stage, of)| (states::group(config, *stage), of.partitions.clone())).collect();
        Self { stages, restoring: held.chain(left).collect(), merging }
    }

    /// Shows all of it.
    pub(super) fn show(&self, out: &mut Exposition, now_ms: u64) {
        let mut each = |name, value: fn(&Holding) -> u64| {
            for of in &self.stages {
                out.sample(name, &[&of.name, of.level], value(of) as f64);
            }
        };
        each("millstream_window_keys", |of| of.keys);
        each("millstream_window_keys_on_disk", |of| of.keys_on_disk);
        each("millstream_window_state_bytes", |of| of.bytes);
        each("millstream_late_windows", |of| of.tally.late_windows);
        each("millstream_unfinished_windows", |of| of.tally.unfinished);
        self.show_pairs(out);
        for of in &self.stages {
            for (place, watermark_us) in &of.watermarks {
                let labels = [of.name.as_str(), of.level, &place.topic, &place.partition.to_string()];
                out.sample("millstream_window_watermark_delay_seconds", &labels, delay_seconds(*watermark_us, now_ms));
            }
        }
        for (place, left) in &self.restoring {
            let labels = [&*place.topic, &place.partition.to_string()];
            out.sample("millstream_restore_left_records", &labels, *left as f64);
        }
    }

    /// Shows what became of halves, where they meet.
    fn show_pairs(&self, out: &mut Exposition) {
        let last = |of: &&Holding| !self.stages.iter().any(|other| other.stage == of.stage && other.level > of.level);
        for of in self.stages.iter().filter(|of| of.pairs).filter(last) {
            out.sample("millstream_pairs", &[&of.name], of.tally.pairs as f64);
            for (side, count) in ["left", "right"].into_iter().zip(of.tally.unmatched) {
                out.sample("millstream_unmatched_records", &[&of.name, side], count as f64);
            }
        }
    }

    /// What a stage holds, for the status: an object for each level; null where it keeps no states.
    pub(super) fn status(&self, stage: usize, now_ms: u64) -> Value {
        let levels: Vec<Value> =
            self.stages.iter().filter(|of| of.stage == stage).map(|of| of.status(now_ms)).collect();
        if levels.is_empty() { Value::Null } else { levels.into() }
    }
}

impl Holding {
    fn add(&mut self, readings: &Readings, stage: usize) {
        for state in readings.states.iter().filter(|state| state.stage == stage) {
            self.keys += state.holds.keys;
            self.keys_on_disk += state.holds.keys_on_disk;
            self.bytes += state.holds.bytes;
            self.watermarks.extend(state.holds.watermark_us.map(|us| (state.place.clone(), us)));
        }
        self.tally.add(readings.windows.get(stage).copied().unwrap_or_default());
        self.watermarks.sort_unstable();
    }

    fn status(&self, now_ms: u64) -> Value {
        let least_us = self.watermarks.iter().map(|(_, us)| *us).min();
        let show = |us| {
            let mut text = Vec::new();
            push_rfc3339(&mut text, us);
            String::from_utf8(text).unwrap_or_default()
        };
        json!({
            "level": self.level, "keys": self.keys, "keys_on_disk": self.keys_on_disk, "bytes": self.bytes, "late_windows": self.tally.late_windows,
            "unfinished_windows": self.tally.unfinished,
            "watermark": least_us.map(show), "watermark_delay_seconds": least_us.map(|us| delay_seconds(us, now_ms)),
        })
    }
}

/// Restores under way, for the status; null where there is none.
pub(super) fn restore_status(restoring: &[RestoreReading]) -> Value {
    if restoring.is_empty() {
        return Value::Null;
    }
    let partition = |of: &RestoreReading| json!({"topic": &*of.place.topic, "partition": of.place.partition, "records_left": of.records_left});
    json!({
        "records_left": restoring.iter().map(|of| of.records_left).sum::<u64>(),
        "partitions": restoring.iter().map(partition).collect::<Vec<_>>(),
    })
}

/// Adds what the Kafka clients of second levels say of themselves to the others.
pub(super) fn add_clients(
    (consumer, producer): (&mut ClientFigures, &mut ClientFigures),
    second: &[(usize, Readings)],
) {
    for (_, readings) in second {
        consumer.add(&readings.consumer);
        producer.add(&readings.producer);
    }
}

/// The wall clock less a watermark; negative where the watermark lies ahead.
fn delay_seconds(watermark_us: i64, now_ms: u64) -> f64 {
    now_ms as f64 / 1e3 - watermark_us as f64 / 1e6
}
