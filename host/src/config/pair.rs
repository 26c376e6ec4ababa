//! `pair:` — a stage that joins records of two sides that have a key in common and lie near each other in time.

use super::error::ConfigError;
use super::quality::EventTime;
use super::stage::FilterConfig;
use super::units;
use super::walk::At;
use super::window::{
    AggregateConfig, LatePolicy, NamedField, WindowConfig, WindowKind, duration_ms, duration_or_zero_ms, read_key,
    read_max_jump, read_time,
};

/// The two sides of a stage that makes pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct PairConfig {
    /// The left side and the right one. A record that is of both is of the left.
    pub sides: [PairSide; 2],
}

/// One of two sides.
#[derive(Clone, Debug, PartialEq)]
pub struct PairSide {
    /// What its record is called in the rows.
    pub name: String,
    /// The only topic that its records come from; `None` for any.
    pub topic: Option<String>,
    /// What holds for its records; `None` for nothing.
    pub when: Option<FilterConfig>,
    /// The fields that a pair has in common: as many on either side, in the same order.
    pub key: Vec<NamedField>,
    /// Where a record says when it happened; `None` for the record's own timestamp.
    pub time: Option<EventTime>,
    /// Where its records go that were in no pair when the bound had passed; nowhere where it is `None`.
    pub unmatched: Option<String>,
}

pub(super) const PAIR_KEYS: &[&str] = &[
    "left",
    "right",
    "within",
    "disorder",
    "max_jump",
    "late",
    "close_after",
    "idle",
    "output",
    "forward",
    "keyed_topic",
];
pub(super) const SIDE_KEYS: &[&str] = &["as", "topic", "when", "key", "time", "unmatched"];

impl WindowConfig {
    /// A stage that makes pairs.
    pub(super) fn read_pair(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(PAIR_KEYS)?;
        let left_at = fields.required("left", "one of the two sides: key, time and which records are of it")?;
        let right_at = fields.required("right", "the other side")?;
        let within_at = fields.required("within", "how far apart the records of a pair lie, at most")?;
        let sides = [PairSide::read(&left_at, "left")?, PairSide::read(&right_at, "right")?];
        check(&sides, (&left_at, &right_at))?;
        let optional = |key: &str| fields.optional(key).map(|at| duration_ms(&at)).transpose();
        let forward = fields.or("forward", false, |at| at.boolean())?;
        Ok(Self {
            time: None,
            key: sides[0].key.clone(),
            kind: WindowKind::Pairs { within_ms: duration_or_zero_ms(&within_at)? },
            disorder_ms: fields.or("disorder", 0, duration_or_zero_ms)?,
            max_jump_ms: read_max_jump(fields.optional("max_jump"))?,
            late: LatePolicy::of(fields.optional("late").as_ref(), forward)?,
            reopen_ms: 0,
            early_ms: None,
            close_after_ms: optional("close_after")?,
            idle_ms: optional("idle")?.unwrap_or(60_000),
            aggregate: AggregateConfig::Pairs(Box::new(PairConfig { sides })),
            output: fields.required("output", "the output that the pairs go to")?.name()?,
            forward,
            keyed_topic: fields.or("keyed_topic", false, |at| at.boolean())?,
        })
    }
}

impl PairSide {
    fn read(at: &At<'_>, name: &str) -> Result<Self, ConfigError> {
        let fields = at.fields(SIDE_KEYS)?;
        let time_at = fields.required("time", "where a record says when it happened, or `record` for its timestamp")?;
        let key_at = fields.required("key", "the fields that a pair has in common")?;
        let key = read_key(&key_at)?;
        if key.is_empty() {
            return Err(key_at.error("expected at least one field"));
        }
        let named = |at: &At<'_>| {
            let name = at.text("what the record is called in the rows")?.to_owned();
            match units::is_column(&name) {
                true => Ok(name),
                false => Err(at.error(format!("`{}` can't be a column", name.escape_debug()))),
            }
        };
        Ok(Self {
            name: fields.or("as", name.to_owned(), named)?,
            topic: fields.optional("topic").map(|at| at.topic()).transpose()?,
            when: fields.optional("when").map(|at| FilterConfig::read(&at)).transpose()?,
            key,
            time: read_time(&time_at)?,
            unmatched: fields.optional("unmatched").map(|at| at.name()).transpose()?,
        })
    }
}

/// The sides can be told apart, fit each other, and a row has room for both.
fn check(sides: &[PairSide; 2], (left_at, right_at): (&At<'_>, &At<'_>)) -> Result<(), ConfigError> {
    let [left, right] = sides;
    if left.topic.is_none() && left.when.is_none() {
        return Err(left_at.error("say which records are of this side: `topic`, or `when` with what a `filter` has"));
    }
    let apart = left.topic.is_some() && left.topic != right.topic;
    if !apart && left.when.is_none() {
        return Err(
            left_at.error("takes every record of its topic, and leaves none for the other side: give it `when`")
        );
    }
    if left.key.len() != right.key.len() {
        let (left, right) = (left.key.len(), right.key.len());
        return Err(right_at
            .error(format!("has {right} fields as key, and the other side {left}: they are compared one by one")));
    }
    if left.name == right.name {
        return Err(right_at.error(format!("both sides are called `{}` in the rows: name one with `as`", right.name)));
    }
    for (side, at) in [(left, left_at), (right, right_at)] {
        if left.key.iter().any(|key| key.name == side.name) {
            let text = format!(
                "`{}` is a field of the key already: name the side with `as`, or the field: {{name: /field}}",
                side.name
            );
            return Err(at.error(text));
        }
    }
    Ok(())
}
