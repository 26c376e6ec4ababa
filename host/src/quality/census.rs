//! What a sample of records looks like, in plain numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::config::{EventTime, QualityConfig, TimeEncoding, rfc3339_ms};
use crate::metrics::{FRESHNESS, Histogram};
use crate::record::Batch;

/// Larger values are passed over: the cost of a sample is bounded.
const VALUE_BYTES_MAX: usize = 256 << 10;
/// The most paths that are known, how deep they go, and the most bytes of one.
const PATHS_MAX: usize = 256;
const PATH_DEPTH_MAX: usize = 3;
const PATH_BYTES_MAX: usize = 128;

/// How often a watched field was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldCounts {
    /// With a value.
    pub present: u64,
    /// As null.
    pub null: u64,
    /// Not at all.
    pub missing: u64,
}

/// How often a path was seen with each type: null, bool, number, text, list, object.
pub(super) type Kinds = [u64; 6];

/// What was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Records that were looked at.
    pub samples: u64,
    /// Those of them that were no JSON object, or too large.
    pub unreadable: u64,
    /// Arrival less event time.
    pub freshness: Histogram,
    /// One for each watched field.
    pub fields: Vec<FieldCounts>,
    /// What objects hold, by path.
    pub(super) paths: BTreeMap<String, Kinds>,
}

impl Counts {
    /// Nothing yet, of so many watched fields.
    pub fn new(fields: usize) -> Self {
        Self {
            samples: 0,
            unreadable: 0,
            freshness: Histogram::new(&FRESHNESS),
            fields: vec![FieldCounts::default(); fields],
            paths: BTreeMap::new(),
        }
    }

    /// Adds what another census counted.
    pub fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.unreadable += other.unreadable;
        self.freshness.add(&other.freshness);
        for (own, other) in self.fields.iter_mut().zip(&other.fields) {
            own.present += other.present;
            own.null += other.null;
            own.missing += other.missing;
        }
        for (path, kinds) in &other.paths {
            if let Some(own) = slot(&mut self.paths, path) {
                own.iter_mut().zip(kinds).for_each(|(own, other)| *own += other);
            }
        }
    }

    fn look(&mut self, config: &QualityConfig, value: &[u8], arrival_ms: u64) {
        self.samples += 1;
        let parsed = if value.len() > VALUE_BYTES_MAX { None } else { serde_json::from_slice::<Value>(value).ok() };
        let Some(record) = parsed.filter(Value::is_object) else {
            self.unreadable += 1;
            return;
        };
        if let Some(event_ms) = config.event_time.as_ref().and_then(|field| event_ms(field, &record)) {
            let late_ms = i64::try_from(arrival_ms).unwrap_or(i64::MAX).saturating_sub(event_ms);
            self.freshness.record(u64::try_from(late_ms).unwrap_or(0), 1);
        }
        for (watched, counts) in config.fields.iter().zip(&mut self.fields) {
            match record.pointer(&watched.field) {
                None => counts.missing += 1,
                Some(Value::Null) => counts.null += 1,
                Some(_) => counts.present += 1,
            }
        }
        if config.drift {
            self.walk(&record, &mut String::new(), 1);
        }
    }

    fn walk(&mut self, value: &Value, path: &mut String, depth: usize) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let length = path.len();
            path.push('/');
            path.push_str(&name.replace('~', "~0").replace('/', "~1"));
            if path.len() <= PATH_BYTES_MAX {
                if let Some(kinds) = slot(&mut self.paths, path) {
                    kinds[kind(value)] += 1;
                }
                if depth < PATH_DEPTH_MAX {
                    self.walk(value, path, depth + 1);
                }
            }
            path.truncate(length);
        }
    }
}

/// The counts of a path; none where there are too many paths already.
fn slot<'a>(paths: &'a mut BTreeMap<String, Kinds>, path: &str) -> Option<&'a mut Kinds> {
    if !paths.contains_key(path) {
        if paths.len() >= PATHS_MAX {
            return None;
        }
        paths.insert(path.to_owned(), Kinds::default());
    }
    paths.get_mut(path)
}

fn kind(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// When the record happened, in milliseconds since 1970 UTC; none where it does not say, or not so that it can be read.
fn event_ms(field: &EventTime, record: &Value) -> Option<i64> {
    let value = record.pointer(&field.field)?;
    match field.encoding {
        TimeEncoding::Rfc3339 => rfc3339_ms(value.as_str()?),
        TimeEncoding::Epoch { per_second } => {
            let ms = value.as_f64()? * 1e3 / per_second as f64;
            (ms.abs() < 1e15).then_some(ms as i64)
        }
    }
}

/// Counts what one worker's records look like.
#[derive(Debug)]
pub struct Census {
    config: Arc<QualityConfig>,
    counts: Counts,
    /// Records to pass over before the next sample.
    skip: usize,
}

impl Census {
    /// A census that has seen nothing.
    pub fn new(config: Arc<QualityConfig>) -> Self {
        let counts = Counts::new(config.fields.len());
        Self { config, counts, skip: 0 }
    }

    /// Looks at one in so many of a batch's records, which arrived at this time.
    pub fn observe(&mut self, batch: &Batch, arrival_ms: u64) {
        let every = self.config.sample.max(1) as usize;
        while self.skip < batch.rows.len() {
            // A tombstone holds nothing to look at.
            if let Some(value) = batch.rows.values.get(self.skip) {
                self.counts.look(&self.config, value, arrival_ms);
            }
            self.skip += every;
        }
        self.skip -= batch.rows.len();
    }

    /// What was counted so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WatchedField;
    use crate::record::Rows;

    fn batch(values: &[&str]) -> Batch {
        let mut rows = Rows::default();
        values.iter().for_each(|value| rows.push(0, 0, None, Some(value.as_bytes())));
        Batch { topic: "t".into(), partition: 0, first_offset: 0, next_offset: values.len() as i64, rows }
    }

    fn config(sample: u32) -> Arc<QualityConfig> {
        let event_time = EventTime { field: "/at".into(), encoding: TimeEncoding::Epoch { per_second: 1 } };
        let fields = vec![WatchedField { field: "/a/b".into(), null_per_million: 0 }];
        Arc::new(QualityConfig { sample, fields, event_time: Some(event_time), ..QualityConfig::default() })
    }

    #[test]
    fn fields_times_and_types_are_counted() {
        let mut census = Census::new(config(1));
        let values = [r#"{"at": 100, "a": {"b": 1}}"#, r#"{"at": 101.5, "a": {"b": null}}"#, r#"{"a": 7}"#, "[]", "{"];
        census.observe(&batch(&values), 102_000);
        let counts = census.counts();
        assert_eq!((counts.samples, counts.unreadable), (5, 2));
        assert_eq!(counts.fields, [FieldCounts { present: 1, null: 1, missing: 1 }]);
        assert_eq!((counts.freshness.count(), counts.freshness.sum()), (2, 2.5));
        assert_eq!(counts.paths["/a"], [0, 0, 1, 0, 0, 2]);
        assert_eq!(counts.paths["/a/b"], [1, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn one_in_so_many_is_looked_at_however_batches_are_cut() {
        let mut census = Census::new(config(10));
        for size in [1, 9, 25, 3, 2] {
            census.observe(&batch(&vec!["{}"; size]), 0);
        }
        assert_eq!(census.counts().samples, 4);
    }

    #[test]
    fn paths_are_bounded_whatever_the_records_hold() {
        let mut census = Census::new(config(1));
        let wide: Vec<String> =
            (0..1_000).map(|i| format!("{{\"k{i}\": {{\"x\": {{\"y\": {{\"z\": 1}}}}}}}}")).collect();
        census.observe(&batch(&wide.iter().map(String::as_str).collect::<Vec<_>>()), 0);
        census.observe(&batch(&[&format!("{{\"{}\": 1}}", "n".repeat(500))]), 0);
        assert_eq!(census.counts().paths.len(), PATHS_MAX);
        assert!(census.counts().paths.keys().all(|path| !path.contains('z') && path.len() <= PATH_BYTES_MAX));
    }
}
