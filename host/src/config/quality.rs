//! `quality:` — what is watched of the data on their way, and when that is an alarm. Nothing here changes a record.

use super::error::ConfigError;
use super::units;
use super::walk::At;

/// What is watched, and the thresholds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QualityConfig {
    /// One record in so many is looked at.
    pub sample: u32,
    /// Over how long shares and volumes are told.
    pub window_s: u64,
    /// Where a record says when it happened.
    pub event_time: Option<EventTime>,
    /// The most that 95 of 100 records may be late against their event time.
    pub freshness_p95_max_s: Option<u64>,
    /// How long no record may come.
    pub stall_after_s: Option<u64>,
    /// How far a window's records may be off its baseline, in millionths.
    pub volume_deviation_per_million: Option<u32>,
    /// Fields that should be there.
    pub fields: Vec<WatchedField>,
    /// Whether new, vanished and retyped fields are counted.
    pub drift: bool,
}

/// The field of a record's event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTime {
    /// A JSON Pointer.
    pub field: String,
    /// How it is written.
    pub encoding: TimeEncoding,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeEncoding {
    /// A string such as `2026-03-01T10:00:00Z`.
    Rfc3339,
    /// A number of this many to the second, since 1970 UTC.
    Epoch {
        /// 1 for seconds, 1,000 for milliseconds, and so on.
        per_second: u64,
    },
}

/// A field that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedField {
    /// A JSON Pointer.
    pub field: String,
    /// The largest share of records in which it may be null or missing, in millionths.
    pub null_per_million: u32,
}

pub(super) const QUALITY_KEYS: &[&str] = &[
    "sample",
    "window_s",
    "event_time",
    "freshness_p95_max_s",
    "stall_after_s",
    "volume_deviation",
    "fields",
    "drift",
];
pub(super) const EVENT_TIME_KEYS: &[&str] = &["field", "encoding"];

/// The most fields that are watched: each is a label's value.
const FIELDS_MAX: usize = 50;
const DAY_S: u64 = 86_400;

pub(super) const ENCODINGS: &[(&str, TimeEncoding)] = &[
    ("rfc3339", TimeEncoding::Rfc3339),
    ("epoch_s", TimeEncoding::Epoch { per_second: 1 }),
    ("epoch_ms", TimeEncoding::Epoch { per_second: 1_000 }),
    ("epoch_us", TimeEncoding::Epoch { per_second: 1_000_000 }),
    ("epoch_ns", TimeEncoding::Epoch { per_second: 1_000_000_000 }),
];

impl Default for QualityConfig {
    fn default() -> Self {
        Self {
            sample: 100,
            window_s: 60,
            event_time: None,
            freshness_p95_max_s: None,
            stall_after_s: None,
            volume_deviation_per_million: None,
            fields: Vec::new(),
            drift: true,
        }
    }
}

impl QualityConfig {
    pub(super) fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(QUALITY_KEYS)?;
        let default = Self::default();
        let seconds = |key: &str| fields.optional(key).map(|at| at.integer(1..=30 * DAY_S)).transpose();
        let freshness_p95_max_s = seconds("freshness_p95_max_s")?;
        let event_time = fields.optional("event_time").map(|at| EventTime::read(&at)).transpose()?;
        if freshness_p95_max_s.is_some() && event_time.is_none() {
            return Err(at.error("freshness_p95_max_s needs event_time: {field: …, encoding: …}"));
        }
        Ok(Self {
            sample: fields.or("sample", default.sample, |at| at.integer_u32(1..=1_000_000))?,
            window_s: fields.or("window_s", default.window_s, |at| at.integer(1..=DAY_S))?,
            event_time,
            freshness_p95_max_s,
            stall_after_s: seconds("stall_after_s")?,
            volume_deviation_per_million: fields.optional("volume_deviation").map(|at| share(&at)).transpose()?,
            fields: fields.or("fields", Vec::new(), watched)?,
            drift: fields.or("drift", default.drift, |at| at.boolean())?,
        })
    }
}

impl EventTime {
    pub(super) fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(EVENT_TIME_KEYS)?;
        Ok(Self {
            field: fields.required("field", "the field's JSON Pointer")?.pointer()?,
            encoding: fields.required("encoding", "how the time is written")?.choice(ENCODINGS)?,
        })
    }
}

fn share(at: &At<'_>) -> Result<u32, ConfigError> {
    at.parsed("a share such as 5%", units::per_million)
}

fn watched(at: &At<'_>) -> Result<Vec<WatchedField>, ConfigError> {
    let what = "a map from JSON Pointers to the share of records without them, such as {/user_id: 1%}";
    let mut fields = Vec::new();
    for (field, at) in at.open_map(what)? {
        if !units::is_pointer(field) {
            return Err(at.error(format!("expected {what}, found the key `{}`", field.escape_debug())));
        }
        fields.push(WatchedField { field: field.to_owned(), null_per_million: share(&at)? });
    }
    if fields.len() > FIELDS_MAX {
        return Err(at.error(format!("{} fields; at most {FIELDS_MAX} are watched", fields.len())));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn parse(quality: &str) -> Result<Option<QualityConfig>, String> {
        let text = format!(
            "pipeline: p\nsource: {{stdin: {{format: ndjson}}}}\noutputs: {{main: {{discard: }}}}\n\
             dead_letters: {{to: {{discard: }}}}\n{quality}"
        );
        let config = Config::parse(Path::new("p.yaml"), &text, &|_| None);
        config.map(|config| config.quality).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_watched_is_read_with_its_thresholds() {
        let text = "quality: {sample: 10, event_time: {field: /at, encoding: epoch_ms}, freshness_p95_max_s: 90, \
                    stall_after_s: 300, volume_deviation: 50%, fields: {/user_id: 1%, /a/b: 60%}, drift: false}";
        let expected = QualityConfig {
            sample: 10,
            window_s: 60,
            event_time: Some(EventTime {
                field: "/at".to_owned(),
                encoding: TimeEncoding::Epoch { per_second: 1_000 },
            }),
            freshness_p95_max_s: Some(90),
            stall_after_s: Some(300),
            volume_deviation_per_million: Some(500_000),
            fields: vec![
                WatchedField { field: "/user_id".to_owned(), null_per_million: 10_000 },
                WatchedField { field: "/a/b".to_owned(), null_per_million: 600_000 },
            ],
            drift: false,
        };
        assert_eq!(parse(text), Ok(Some(expected)));
        assert_eq!(parse("quality: {}"), Ok(Some(QualityConfig::default())));
        assert_eq!(parse(""), Ok(None));
    }

    #[test]
    fn mistakes_are_told() {
        for (text, words) in [
            ("quality: {freshness_p95_max_s: 9}", "needs event_time"),
            ("quality: {fields: {user_id: 1%}}", "JSON Pointers"),
            ("quality: {fields: {/a: 2}}", "a share such as 5%"),
            ("quality: {event_time: {field: /a, encoding: unix}}", "expected rfc3339, epoch_s"),
            ("quality: {sample: 0}", "an integer from 1 to 1000000"),
        ] {
            let error = parse(text).expect_err("must be refused");
            assert!(error.contains(words), "{error}");
        }
    }
}
