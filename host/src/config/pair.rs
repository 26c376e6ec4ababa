//! `pair:` — a stage that joins records of two sides that have a key in common and lie near each other in time.

use super::error::ConfigError;
use super::key::{NamedField, read_key};
use super::quality::EventTime;
use super::stage::FilterConfig;
use super::units;
use super::walk::At;
use super::window::{
    AggregateConfig, LatePolicy, WindowConfig, WindowKind, duration_ms, duration_or_zero_ms, read_max_jump, read_time,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, StageKind};
    use super::*;

    const LEFT: &str = "{as: buy, topic: a, key: {id: /x/id, shop: /s}, time: record}";
    const RIGHT: &str = "{topic: b, key: [/id, /s], time: {field: /t, encoding: epoch_s}, unmatched: main}";

    fn parse(source: &str, left: &str, right: &str, more: &str) -> Result<WindowConfig, String> {
        let text = format!(
            "pipeline: p\nsource: {{{source}}}\noutputs: {{main: {{discard: }}}}\ndead_letters: {{to: {{discard: }}}}\n\
             stages: [{{name: both, pair: {{left: {left}, right: {right}, output: main, {more}}}}}]"
        );
        let config = Config::parse(Path::new("p.yaml"), &text, &|_| None).map_err(|error| error.to_string())?;
        match config.stages.into_iter().next().map(|stage| stage.kind) {
            Some(StageKind::Window(window)) => Ok(*window),
            other => panic!("{other:?}"),
        }
    }

    const TOPICS: &str = "kafka: {brokers: 'h:1', topics: [a, b]}";

    #[test]
    fn two_sides_are_read() {
        let pair = parse(TOPICS, LEFT, RIGHT, "within: 1h, idle: 5m").unwrap_or_else(|error| panic!("{error}"));
        let field = |name: &str, field: &str| NamedField { name: name.to_owned(), field: field.to_owned(), part: None };
        assert_eq!(pair.key, [field("id", "/x/id"), field("shop", "/s")]);
        assert_eq!((pair.kind, pair.idle_ms), (WindowKind::Pairs { within_ms: 3_600_000 }, 300_000));
        let sides = &pair.pairs().expect("sides").sides;
        assert_eq!(
            sides.each_ref().map(|side| (side.name.as_str(), side.topic.as_deref())),
            [("buy", Some("a")), ("right", Some("b"))]
        );
        assert_eq!(sides[1].key, [field("id", "/id"), field("s", "/s")]);
        assert_eq!(pair.outputs().collect::<Vec<_>>(), ["main", "main"]);
        // What is left is of the right side.
        let rest = RIGHT.replace("topic: b, ", "");
        parse(
            "stdin: {format: ndjson}",
            &LEFT.replace("topic: a", "when: {field: /b, op: exists}"),
            &rest,
            "within: 0s",
        )
        .unwrap_or_else(|error| panic!("{error}"));
    }

    #[test]
    fn mistakes_are_told() {
        let wrong = |source: &str, left: &str, right: &str, more: &str, words: &str| {
            let error = parse(source, left, right, more).expect_err(words);
            assert!(error.contains(words), "{error}");
        };
        let within = "within: 1h";
        wrong(TOPICS, LEFT, RIGHT, "forward: true", "within: is required: how far apart");
        wrong(TOPICS, &LEFT.replace("topic: a, ", ""), RIGHT, within, "say which records are of this side");
        wrong(TOPICS, LEFT, &RIGHT.replace("topic: b", "topic: a"), within, "leaves none for the other side");
        wrong(TOPICS, LEFT, &RIGHT.replace(", /s]", "]"), within, "has 1 fields as key, and the other side 2");
        wrong(TOPICS, LEFT, &RIGHT.replace("[/id, /s]", "[]"), within, "expected at least one field");
        wrong(TOPICS, LEFT, &RIGHT.replace("{topic", "{as: buy, topic"), within, "both sides are called `buy`");
        wrong(
            TOPICS,
            LEFT,
            &RIGHT.replace("{topic", "{as: shop, topic"),
            within,
            "`shop` is a field of the key already",
        );
        wrong(TOPICS, LEFT, &RIGHT.replace("{topic", "{as: a b, topic"), within, "can't be a column");
        wrong(
            TOPICS,
            LEFT,
            &RIGHT.replace("main}", "none}"),
            within,
            "sends records to the output `none`; there is main",
        );
        wrong(
            TOPICS,
            LEFT,
            &RIGHT.replace("topic: b", "topic: c"),
            within,
            "topic `c`, which the source does not read",
        );
        wrong("stdin: {format: ndjson}", LEFT, RIGHT, within, "topic `a`, which the source does not read");
        wrong(TOPICS, LEFT, RIGHT, "within: 1h, keyed_topic: true", "records of a key come from several topics");
        wrong(TOPICS, LEFT, RIGHT, "within: 1h, late: forward", "for a stage with `forward: true`");
        wrong(&TOPICS.replace("[a, b]", "[a, a]"), LEFT, RIGHT, within, "expected 1 to 64 topics, each once");
        wrong(&TOPICS.replace("topics:", "topic: c, topics:"), LEFT, RIGHT, within, "can't be given beside `topics`");
    }
}
