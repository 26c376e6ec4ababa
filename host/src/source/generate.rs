//! Made-up records: the same settings give the same bytes, on every machine.
//!
//! Record `i` is a function of the seed and `i` alone, so that partitions, restarts and a second process agree on every
//! record without having made those before it. Partition `p` of `n` holds the records with `i % n == p`, in order.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::random::{Random, Uuid};
use crate::config::{ClickstreamConfig, GenerateConfig};
use crate::record::{Batch, Place, Rows};

/// Records a second in event time where they are made at full speed, so that event time passes as in the original.
const EVENT_RATE: u64 = 10;
const COUNTRIES: [&str; 7] = ["US", "CA", "UK", "DE", "FR", "JP", "XX"];
const DEVICES: [&str; 3] = ["mobile", "desktop", "tablet"];

/// Made-up records in partitions, at the configured rate.
#[derive(Debug)]
pub struct GenerateSource {
    config: ClickstreamConfig,
    topic: Arc<str>,
    /// Each partition's next offset.
    next_offsets: Vec<u64>,
    started: Option<Instant>,
    value: Vec<u8>,
}

impl GenerateSource {
    /// Makes records from the first one on; the clock of the rate starts with the first call of [`Self::next`].
    pub fn new(config: &GenerateConfig) -> Self {
        let GenerateConfig::Clickstream(config) = config;
        let mut config = config.clone();
        config.partitions = config.partitions.max(1);
        let next_offsets = vec![0; config.partitions as usize];
        Self { config, topic: "clickstream".into(), next_offsets, started: None, value: Vec::new() }
    }

    /// The partitions.
    pub fn places(&self) -> Vec<Place> {
        (0..self.config.partitions).map(|p| Place { topic: self.topic.clone(), partition: p as i32 }).collect()
    }

    /// Goes on with `partition` at `offset`.
    pub fn seek(&mut self, partition: i32, offset: i64) {
        let next = usize::try_from(partition).ok().and_then(|partition| self.next_offsets.get_mut(partition));
        if let Some(next) = next {
            *next = u64::try_from(offset).unwrap_or(0);
        }
    }

    /// The next records of the partition that is furthest behind, `max_rows` at most; where none is due yet, it waits
    /// for one, `wait_ms` at most, and may return an empty batch; `None` at the end.
    pub fn next(&mut self, max_rows: usize, wait_ms: u64) -> Option<Batch> {
        let partition = self.furthest_behind()?;
        let elapsed = self.started.get_or_insert_with(Instant::now).elapsed();
        let wait = self.due(self.record_number(partition)).saturating_sub(elapsed).min(Duration::from_millis(wait_ms));
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        let elapsed = self.started.map_or(Duration::ZERO, |started| started.elapsed());
        Some(self.take(partition, max_rows, elapsed))
    }

    /// The partition whose next record has the lowest number; `None` where all records were made.
    fn furthest_behind(&self) -> Option<usize> {
        let partition = (0..self.next_offsets.len()).min_by_key(|&partition| self.record_number(partition))?;
        let is_left = self.config.records.is_none_or(|records| self.record_number(partition) < records);
        is_left.then_some(partition)
    }

    /// The number of the next record of `partition` among all records.
    fn record_number(&self, partition: usize) -> u64 {
        self.next_offsets[partition] * u64::from(self.config.partitions) + partition as u64
    }

    /// How long after the start a record is due.
    fn due(&self, record: u64) -> Duration {
        match u64::from(self.config.records_per_second) {
            0 => Duration::ZERO,
            rate => Duration::from_secs(record / rate) + Duration::from_secs(record % rate) / rate as u32,
        }
    }

    fn take(&mut self, partition: usize, max_rows: usize, elapsed: Duration) -> Batch {
        let first_offset = self.next_offsets[partition];
        let mut rows = Rows::default();
        while rows.len() < max_rows {
            let record = self.record_number(partition);
            let ended = self.config.records.is_some_and(|records| record >= records);
            if ended || self.due(record) > elapsed {
                break;
            }
            self.value.clear();
            write_clickstream(&self.config, record, &mut self.value);
            // No timestamp beside the one in the value: a topic's retention would delete records of 2023 at once.
            rows.push(self.next_offsets[partition] as i64, -1, None, Some(&self.value));
            self.next_offsets[partition] += 1;
        }
        Batch {
            topic: self.topic.clone(),
            partition: partition as i32,
            first_offset: first_offset as i64,
            next_offset: self.next_offsets[partition] as i64,
            rows,
        }
    }
}

/// Appends record `i` of the clickstream to `out` and returns its event time in milliseconds since 1970 UTC.
pub fn write_clickstream(config: &ClickstreamConfig, i: u64, out: &mut Vec<u8>) -> i64 {
    let rate = if config.records_per_second == 0 { EVENT_RATE } else { u64::from(config.records_per_second) };
    let (elapsed_s, elapsed_ms) = (i / rate, (i % rate) * 1_000 / rate);
    let timestamp_s = config.start_time_s.saturating_add_unsigned(elapsed_s);
    let mut random = Random::of_record(config.seed, i);
    let event_type = if random.below(2) == 0 { "page_view" } else { "button_click" };
    let sign = if random.below(100) < 5 { "-" } else { "" };
    let user_id = 1 + random.below(1_000);
    let page = 1 + random.below(100);
    let (high, low) = (random.next(), random.next());
    let country = random.pick(&COUNTRIES);
    let country = if random.below(100) < 5 { "ZZ" } else { country };
    let device = random.pick(&DEVICES);
    let (cut, cut_at) = (random.happens(config.malformed_per_million), random.next());

    let start = out.len();
    let uuid = Uuid::v4(high, low);
    // Writing to a vector can't fail.
    let _ = write!(out, r#"{{"event_type":"{event_type}","user_id":{sign}{user_id},"page_url":"/page/{page}""#);
    let _ = write!(out, r#","button_id":"{uuid}","timestamp":{timestamp_s},"country":"{country}""#);
    if elapsed_s >= u64::from(config.schema_change_after_s) {
        let _ = write!(out, r#","device_type":"{device}""#);
    }
    out.push(b'}');
    if cut {
        // No object is whole before its last brace.
        let len = out.len() - start;
        out.truncate(start + 1 + (cut_at % (len as u64 - 1)) as usize);
    }
    timestamp_s.saturating_mul(1_000).saturating_add_unsigned(elapsed_ms)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    fn full_speed(records: u64, partitions: u32) -> ClickstreamConfig {
        ClickstreamConfig { records: Some(records), records_per_second: 0, partitions, ..ClickstreamConfig::default() }
    }

    fn values(config: &ClickstreamConfig) -> BTreeMap<u64, Vec<u8>> {
        let mut source = GenerateSource::new(&GenerateConfig::Clickstream(config.clone()));
        let mut values = BTreeMap::new();
        while let Some(batch) = source.next(100, 1_000) {
            for row in 0..batch.rows.len() {
                let record = batch.rows.offsets[row] as u64 * u64::from(config.partitions) + batch.partition as u64;
                let value = batch.rows.values.get(row).expect("no tombstones").to_vec();
                assert!(values.insert(record, value).is_none(), "record {record} came twice");
            }
        }
        values
    }

    #[test]
    fn the_same_seed_gives_the_same_records_however_they_are_partitioned() {
        let one = values(&full_speed(1_000, 1));
        assert_eq!(one.len(), 1_000);
        assert_eq!(one, values(&full_speed(1_000, 7)));
        assert_ne!(one, values(&ClickstreamConfig { seed: 2, ..full_speed(1_000, 1) }));
        // The bytes themselves are a promise: golden files are made of them.
        let first = String::from_utf8_lossy(&one[&0]).into_owned();
        assert_eq!(
            first,
            concat!(
                r#"{"event_type":"button_click","user_id":438,"page_url":"/page/29","#,
                r#""button_id":"fdbda434-0693-463c-bd22-c38957205c67","timestamp":1700000000,"country":"CA"}"#
            )
        );
    }

    #[test]
    fn a_partition_can_be_entered_at_any_offset() {
        let config = full_speed(1_000, 3);
        let mut source = GenerateSource::new(&GenerateConfig::Clickstream(config.clone()));
        (0..3).for_each(|partition| source.seek(partition, 333));
        let batch = source.next(100, 0).expect("one record is left");
        assert_eq!((batch.partition, batch.first_offset, batch.next_offset), (0, 333, 334));
        assert_eq!(batch.rows.values.get(0), values(&config).get(&999).map(Vec::as_slice));
        assert_eq!(source.next(100, 0), None);
    }

    #[test]
    fn shares_and_values_are_those_of_the_original() {
        let all = values(&full_speed(20_000, 2));
        let mut negative = 0;
        let mut countries: BTreeMap<String, u32> = BTreeMap::new();
        for (i, value) in &all {
            let value: Value = serde_json::from_slice(value).expect("valid JSON");
            let user_id = value["user_id"].as_i64().expect("an integer");
            assert!((1..=1_000).contains(&user_id.abs()));
            negative += u32::from(user_id < 0);
            let page = value["page_url"].as_str().and_then(|url| url.strip_prefix("/page/")).expect("a page");
            assert!((1..=100).contains(&page.parse().expect("a number")));
            assert!(["page_view", "button_click"].contains(&value["event_type"].as_str().expect("text")));
            let uuid = value["button_id"].as_str().expect("text");
            assert!(
                uuid.len() == 36 && uuid.as_bytes()[14] == b'4' && b"89ab".contains(&uuid.as_bytes()[19]),
                "{uuid}"
            );
            assert_eq!(value["timestamp"].as_i64(), Some(1_700_000_000 + (i / 10) as i64));
            let device = value.get("device_type").and_then(Value::as_str);
            assert_eq!(device.is_some(), *i >= 300, "device_type appears after 30 s");
            assert!(device.is_none_or(|device| DEVICES.contains(&device)));
            *countries.entry(value["country"].as_str().expect("text").to_owned()).or_default() += 1;
        }
        assert!((900..=1_100).contains(&negative), "about 5 % are negative: {negative}");
        assert!((900..=1_100).contains(&countries["ZZ"]), "about 5 % are ZZ: {countries:?}");
        for country in COUNTRIES {
            assert!((2_400..=3_000).contains(&countries[country]), "{countries:?}");
        }
    }

    #[test]
    fn malformed_records_are_no_json_and_as_many_as_asked_for() {
        let config = ClickstreamConfig { malformed_per_million: 100_000, ..full_speed(10_000, 1) };
        let broken = |value: &&Vec<u8>| serde_json::from_slice::<Value>(value).is_err();
        let count = values(&config).values().filter(broken).count();
        assert!((900..=1_100).contains(&count), "{count}");
    }

    #[test]
    fn records_come_at_their_rate_and_not_before() {
        let config = ClickstreamConfig { records_per_second: 100, ..full_speed(10, 2) };
        let mut source = GenerateSource::new(&GenerateConfig::Clickstream(config));
        let mut taken = |elapsed_ms: u64| {
            let mut count = 0;
            while let Some(partition) = source.furthest_behind() {
                let batch = source.take(partition, 100, Duration::from_millis(elapsed_ms));
                count += batch.rows.len();
                if batch.rows.is_empty() {
                    break;
                }
            }
            count
        };
        assert_eq!([taken(0), taken(9), taken(10), taken(49), taken(1_000), taken(2_000)], [1, 0, 1, 3, 5, 0]);
    }
}
