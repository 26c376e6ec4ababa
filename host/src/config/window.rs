//! `window:` — a stage that aggregates records by key and event time.

use std::time::Duration;

use super::error::ConfigError;
use super::key::{NamedField, read_key};
use super::pair::PairConfig;
use super::quality::{ENCODINGS, EventTime};
use super::stage::PluginConfig;
use super::units;
use super::walk::At;

/// Windows over the event time of a key's records.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowConfig {
    /// Where a record says when it happened; `None` for the record's own timestamp.
    pub time: Option<EventTime>,
    /// What records are grouped by: the name in the rows and the field; one group where there is none.
    pub key: Vec<NamedField>,
    /// How windows lie.
    pub kind: WindowKind,
    /// How far an event may lie behind the latest one of its partition without being late.
    pub disorder_ms: u64,
    /// The farthest that an event may lie ahead of what is known of the present; `None` for any.
    pub max_jump_ms: Option<u64>,
    /// What becomes of a record that comes after its windows were closed.
    pub late: LatePolicy,
    /// For how long after its end a window takes late records and is corrected; 0 for not at all.
    pub reopen_ms: u64,
    /// How often, in event time, open windows show what they hold so far.
    pub early_ms: Option<u64>,
    /// After how long without a record a partition's open windows are closed; `None` for never.
    pub close_after_ms: Option<u64>,
    /// After how long without a record a partition does not hold the others back any more, where they are merged.
    pub idle_ms: u64,
    /// What is made of a window's records.
    pub aggregate: AggregateConfig,
    /// The output that the rows go to.
    pub output: String,
    /// True where records go on to the next stage, besides being aggregated.
    pub forward: bool,
    /// True where all records of a key are in one partition, so that nothing has to be merged.
    pub keyed_topic: bool,
}

/// How windows lie in time; in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// Of one size, one beginning every so often: back to back, or overlapping.
    Fixed {
        /// The size.
        size_ms: u64,
        /// How far apart they begin; no larger than the size.
        every_ms: u64,
        /// Where they begin, from midnight UTC of 1 January 1970 on.
        offset_ms: u64,
    },
    /// As long as a key's records lie no farther apart than the gap.
    Session {
        /// The gap.
        gap_ms: u64,
    },
    /// Not at all: records are looked at for duplicates.
    Duplicates {
        /// How far apart two records of one key lie, at least, that are none.
        within_ms: u64,
    },
    /// Not at all: records are looked at for others that they make a pair with.
    Pairs {
        /// How far apart the two lie, at most.
        within_ms: u64,
    },
}

/// What becomes of late records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LatePolicy {
    /// A dead letter with the code `late`.
    DeadLetter,
    /// An output of their own.
    Output(String),
    /// They go on like all others, of a stage that forwards its records, and are counted.
    Forward,
}

/// What is made of a window's records.
#[derive(Clone, Debug, PartialEq)]
pub enum AggregateConfig {
    /// Columns of built-in functions.
    Functions(Vec<(String, Function)>),
    /// A plugin of the world `aggregate`.
    Plugin(PluginConfig),
    /// Pairs of a record of the one side with one of the other.
    Pairs(Box<PairConfig>),
}

/// A built-in aggregate of a window's records of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// How many records.
    Count,
    /// How many records, for so many milliseconds of the window.
    Rate {
        /// For how long.
        per_ms: u64,
    },
    /// The sum of a field; exact.
    Sum(Measure),
    /// The mean of a field: the exact sum, divided once.
    Mean(Measure),
    /// The least value of a field.
    Min(Measure),
    /// The greatest value of a field.
    Max(Measure),
    /// How many different values a field has; exact.
    Distinct(String),
}

/// A field with numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// A JSON Pointer.
    pub field: String,
    /// Places behind the point that are kept of decimals; `None` for integers.
    pub decimals: Option<u8>,
}

pub(super) const WINDOW_KEYS: &[&str] = &[
    "time",
    "key",
    "tumbling",
    "hopping",
    "session",
    "offset",
    "disorder",
    "max_jump",
    "late",
    "reopen",
    "early",
    "close_after",
    "idle",
    "aggregate",
    "output",
    "forward",
    "keyed_topic",
];
pub(super) const DEDUPLICATE_KEYS: &[&str] = &["time", "key", "within", "disorder", "max_jump", "late"];
pub(super) const HOPPING_KEYS: &[&str] = &["size", "every"];
pub(super) const LATE_KEYS: &[&str] = &["output"];

const KINDS: &[&str] = &["tumbling", "hopping", "session"];
/// A hopping window may be made of so many parts: each costs a merge when a window closes.
const PARTS_MAX: u64 = 1_440;
const FUNCTIONS_MAX: usize = 64;
const DAY_MS: u64 = 86_400_000;
const MOST: Duration = Duration::from_millis(400 * DAY_MS);
const LEAST: Duration = Duration::from_millis(1);
const FUNCTION: &str = "count, {rate: 1m}, or one of sum, mean, min, max and distinct with a field, such as {sum: /price} or {sum: /price, decimals: 2}";
/// Most places behind the point: what is left of 18 digits is in front of it.
const DECIMALS_MAX: u32 = 18;
/// Functions of numbers.
const MEASURES: &[&str] = &["sum", "mean", "min", "max"];
/// Names that the rows have already.
pub(super) const RESERVED: &[&str] = &["window_start", "window_end", "version", "retracted"];

impl WindowConfig {
    pub(super) fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(WINDOW_KEYS)?;
        let time_at = fields.required("time", "where a record says when it happened, or `record` for its timestamp")?;
        let kind = WindowKind::read(at)?;
        let optional = |key: &str| fields.optional(key).map(|at| duration_ms(&at)).transpose();
        let key = fields.or("key", Vec::new(), read_key)?;
        let aggregate =
            AggregateConfig::read(&fields.required("aggregate", "what is made of a window's records")?, &key)?;
        let reopen_ms = optional("reopen")?.unwrap_or(0);
        let forward = fields.or("forward", false, |at| at.boolean())?;
        let late = LatePolicy::of(fields.optional("late").as_ref(), forward)?;
        Ok(Self {
            time: read_time(&time_at)?,
            key,
            kind,
            disorder_ms: fields.or("disorder", 0, duration_or_zero_ms)?,
            max_jump_ms: read_max_jump(fields.optional("max_jump"))?,
            late,
            reopen_ms,
            early_ms: optional("early")?,
            close_after_ms: optional("close_after")?,
            idle_ms: optional("idle")?.unwrap_or(60_000),
            aggregate,
            output: fields.required("output", "the output that the rows go to")?.name()?,
            forward,
            keyed_topic: fields.or("keyed_topic", false, |at| at.boolean())?,
        })
    }

    /// A stage that lets a key's record pass once.
    pub(super) fn read_deduplicate(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(DEDUPLICATE_KEYS)?;
        let time_at = fields.required("time", "where a record says when it happened, or `record` for its timestamp")?;
        let key_at = fields.required("key", "the fields that duplicates have in common")?;
        let within_at = fields.required("within", "how far apart two records lie, at least, that are no duplicates")?;
        let key = read_key(&key_at)?;
        if key.is_empty() {
            return Err(key_at.error("expected at least one field"));
        }
        Ok(Self {
            time: read_time(&time_at)?,
            key,
            kind: WindowKind::Duplicates { within_ms: duration_ms(&within_at)? },
            disorder_ms: fields.or("disorder", 0, duration_or_zero_ms)?,
            max_jump_ms: read_max_jump(fields.optional("max_jump"))?,
            late: fields.or("late", LatePolicy::DeadLetter, LatePolicy::read)?,
            reopen_ms: 0,
            early_ms: None,
            close_after_ms: None,
            idle_ms: 60_000,
            aggregate: AggregateConfig::Functions(Vec::new()),
            output: super::MAIN_OUTPUT.to_owned(),
            forward: true,
            keyed_topic: true,
        })
    }

    /// The outputs that it names.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        let late = match &self.late {
            LatePolicy::Output(output) => Some(output.as_str()),
            LatePolicy::DeadLetter | LatePolicy::Forward => None,
        };
        let unmatched =
            self.pairs().into_iter().flat_map(|pairs| &pairs.sides).filter_map(|side| side.unmatched.as_deref());
        [self.output.as_str()].into_iter().chain(late).chain(unmatched)
    }

    /// The two sides, of a stage that makes pairs.
    pub fn pairs(&self) -> Option<&PairConfig> {
        match &self.aggregate {
            AggregateConfig::Pairs(pairs) => Some(pairs),
            AggregateConfig::Functions(_) | AggregateConfig::Plugin(_) => None,
        }
    }

    /// True where a window's row may come more than once, each replacing the one before.
    pub fn has_versions(&self) -> bool {
        self.early_ms.is_some() || self.reopen_ms > 0
    }
}

impl WindowKind {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(WINDOW_KEYS)?;
        let given: Vec<&str> = KINDS.iter().copied().filter(|kind| fields.any(kind).is_some()).collect();
        let [kind] = given.as_slice() else {
            let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
            return Err(at.error(format!("expected exactly one of tumbling, hopping or session, found {found}")));
        };
        let kind_at = fields.required(kind, "how long a window is")?;
        let offset_at = fields.optional("offset");
        if let ("session", Some(at)) = (*kind, &offset_at) {
            return Err(at.error("a session begins with its first record; it has no offset"));
        }
        let offset_ms = offset_at.map(|at| duration_ms(&at)).transpose()?.unwrap_or(0);
        let (size_ms, every_ms) = match *kind {
            "session" => return Ok(Self::Session { gap_ms: duration_ms(&kind_at)? }),
            "tumbling" => {
                let size_ms = duration_ms(&kind_at)?;
                (size_ms, size_ms)
            }
            _ => {
                let fields = kind_at.fields(HOPPING_KEYS)?;
                let size_ms = duration_ms(&fields.required("size", "how long a window is")?)?;
                let every_at = fields.required("every", "how far apart windows begin")?;
                let every_ms = duration_ms(&every_at)?;
                if every_ms > size_ms {
                    return Err(every_at.error("is larger than `size`: records between two windows would be in none"));
                }
                let parts = size_ms / gcd(size_ms, every_ms);
                if parts > PARTS_MAX {
                    return Err(every_at.error(format!(
                        "makes each window of {parts} parts, and at most {PARTS_MAX} are allowed; make `every` larger"
                    )));
                }
                (size_ms, every_ms)
            }
        };
        Ok(Self::Fixed { size_ms, every_ms, offset_ms })
    }
}

/// The greatest common divisor.
pub fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl LatePolicy {
    /// What is given, or else what loses nothing.
    pub(super) fn of(at: Option<&At<'_>>, forward: bool) -> Result<Self, ConfigError> {
        let Some(at) = at else { return Ok(if forward { Self::Forward } else { Self::DeadLetter }) };
        match Self::read(at)? {
            Self::Forward if !forward => {
                Err(at.error("is for a stage with `forward: true`: here records go no further"))
            }
            late => Ok(late),
        }
    }

    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        match at.entry("output") {
            Some(output) => at.fields(LATE_KEYS).and_then(|_| Ok(Self::Output(output.name()?))),
            None => at.parsed("dead_letter, forward or {output: NAME}", |text| match text {
                "dead_letter" => Some(Self::DeadLetter),
                "forward" => Some(Self::Forward),
                _ => None,
            }),
        }
    }
}

impl AggregateConfig {
    fn read(at: &At<'_>, key: &[NamedField]) -> Result<Self, ConfigError> {
        if at.entry("plugin").is_some() {
            return Ok(Self::Plugin(PluginConfig::read(at)?));
        }
        let columns = at.open_map("a map, column: function, or a plugin: FILE")?;
        if columns.is_empty() || columns.len() > FUNCTIONS_MAX {
            return Err(at.error(format!("expected 1 to {FUNCTIONS_MAX} columns, found {}", columns.len())));
        }
        let mut functions = Vec::new();
        for (name, at) in columns {
            let taken = RESERVED.contains(&name) || key.iter().any(|key| key.name == name);
            if taken || !units::is_column(name) {
                return Err(at.error(format!("`{}` can't be a column: it is taken, or no name", name.escape_debug())));
            }
            functions.push((name.to_owned(), Function::read(&at)?));
        }
        Ok(Self::Functions(functions))
    }
}

impl Function {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        const WITH_FIELD: &[&str] = &["rate", "sum", "mean", "min", "max", "distinct"];
        if !WITH_FIELD.iter().any(|name| at.entry(name).is_some()) {
            return at.parsed(FUNCTION, |text| (text == "count").then_some(Self::Count));
        }
        let decimals = at.entry("decimals").map(|at| at.integer_u32(0..=DECIMALS_MAX)).transpose()?;
        let (name, at) = match decimals {
            None => at.variant(WITH_FIELD)?,
            Some(_) => {
                at.fields(&[MEASURES, &["decimals"]].concat())?;
                let mut given = MEASURES.iter().filter_map(|name| Some((*name, at.entry(name)?)));
                match (given.next(), given.next()) {
                    (Some(one), None) => one,
                    _ => return Err(at.error("expected exactly one of sum, mean, min and max beside `decimals`")),
                }
            }
        };
        let decimals = decimals.map(|decimals| decimals as u8);
        let measure = |at: &At<'_>| Ok::<_, ConfigError>(Measure { field: at.pointer()?, decimals });
        Ok(match name {
            "rate" => Self::Rate { per_ms: duration_ms(&at)? },
            "sum" => Self::Sum(measure(&at)?),
            "mean" => Self::Mean(measure(&at)?),
            "min" => Self::Min(measure(&at)?),
            "max" => Self::Max(measure(&at)?),
            _ => Self::Distinct(at.pointer()?),
        })
    }

    /// The field that it looks at.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Count | Self::Rate { .. } => None,
            Self::Sum(of) | Self::Mean(of) | Self::Min(of) | Self::Max(of) => Some(&of.field),
            Self::Distinct(field) => Some(field),
        }
    }

    /// The places behind the point that it keeps, where its field holds decimals.
    pub fn decimals(&self) -> Option<u8> {
        match self {
            Self::Sum(of) | Self::Mean(of) | Self::Min(of) | Self::Max(of) => of.decimals,
            Self::Count | Self::Rate { .. } | Self::Distinct(_) => None,
        }
    }
}

pub(super) fn read_time(at: &At<'_>) -> Result<Option<EventTime>, ConfigError> {
    if at.entry("field").is_some() {
        return EventTime::read(at).map(Some);
    }
    let encodings: Vec<&str> = ENCODINGS.iter().map(|encoding| encoding.0).collect();
    let what = format!("`record`, or {{field: /time, encoding: …}} with one of {}", encodings.join(", "));
    at.parsed(&what, |text| (text == "record").then_some(None))
}

pub(super) fn read_max_jump(at: Option<At<'_>>) -> Result<Option<u64>, ConfigError> {
    match at {
        Some(at) if at.scalar("a time or `off`")?.text == "off" => Ok(None),
        Some(at) => duration_ms(&at).map(Some),
        None => Ok(Some(DAY_MS)),
    }
}

pub(super) fn duration_ms(at: &At<'_>) -> Result<u64, ConfigError> {
    at.duration(LEAST..=MOST).map(|time| time.as_millis() as u64)
}

pub(super) fn duration_or_zero_ms(at: &At<'_>) -> Result<u64, ConfigError> {
    at.duration(Duration::ZERO..=MOST).map(|time| time.as_millis() as u64)
}
