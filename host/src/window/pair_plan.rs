//! What a stage that makes pairs reads of each side, and the rows of pairs.

use std::ops::Range;
use std::sync::Arc;

use super::halves::Half;
use super::plan::{WindowPlan, column_type};
use super::rows;
use crate::config::{FilterConfig, PairSide, TextPart, WindowConfig};
use crate::plugin::{ReadField, StageInput};
use crate::record::ColumnType;

/// One of two sides.
#[derive(Clone, Debug)]
pub(super) struct SidePlan {
    name: String,
    topic: Option<String>,
    when: Option<(FilterConfig, usize)>,
    /// The columns of its key's fields.
    pub keys: Range<usize>,
    /// The fields that these are of.
    pub key_paths: Vec<String>,
    /// What is taken of each.
    pub key_parts: Vec<Option<TextPart>>,
    /// The field of its event time, with its column; `None` for the record's own timestamp.
    pub time: Option<(String, usize)>,
    /// The stage's output of what is in no pair.
    pub unmatched: Option<u32>,
}

impl SidePlan {
    /// Plans the sides of a stage's configuration; what they read goes to `reads`.
    pub(super) fn of(config: &WindowConfig, reads: &mut Vec<ReadField>) -> Vec<Self> {
        let Some(pairs) = config.pairs() else { return Vec::new() };
        let unmatched = pairs.sides.iter().filter(|side| side.unmatched.is_some()).count();
        // They stand behind all others.
        let mut next = (config.outputs().count() - unmatched) as u32;
        let mut plan = |side: &PairSide| {
            let mut read = |path: &str, ty| {
                reads.push(ReadField { path: path.to_owned(), ty, required: false });
                reads.len() - 1
            };
            let when = side.when.as_ref().map(|when| (when.clone(), read(&when.field, when.column_type())));
            let time = side.time.as_ref().map(|time| (time.field.clone(), read(&time.field, column_type(time))));
            let key_paths: Vec<String> = side.key.iter().map(|key| key.field.clone()).collect();
            for path in &key_paths {
                read(path, ColumnType::Json);
            }
            let keys = reads.len() - key_paths.len()..reads.len();
            let unmatched = side.unmatched.is_some().then_some(next);
            next += u32::from(unmatched.is_some());
            let key_parts = side.key.iter().map(|key| key.part.clone()).collect();
            let (name, topic) = (side.name.clone(), side.topic.clone());
            Self { name, topic, when, keys, key_paths, key_parts, time, unmatched }
        };
        pairs.sides.iter().map(&mut plan).collect()
    }

    /// True where a record of this topic is of the side.
    pub(super) fn takes(&self, topic: &str, input: &StageInput<'_>, row: usize) -> bool {
        self.topic.as_deref().is_none_or(|of| of == topic)
            && self.when.as_ref().is_none_or(|(when, column)| when.holds(input.columns[*column], row))
    }
}

/// What a stage knows of the task that it is part of.
#[derive(Clone, Debug)]
pub struct TaskPlace {
    /// The topic that its records come from.
    pub topic: Arc<str>,
    /// The number of its partition among all that the source reads.
    pub lane: u32,
    /// The most bytes of a record that each of the stage's outputs takes.
    pub limits: Vec<usize>,
}

impl Default for TaskPlace {
    fn default() -> Self {
        Self { topic: "".into(), lane: 0, limits: Vec::new() }
    }
}

impl TaskPlace {
    /// The most bytes of a record that one of the stage's outputs takes.
    pub(super) fn limit(&self, output: u32) -> usize {
        self.limits.get(output as usize).copied().unwrap_or(usize::MAX)
    }
}

impl WindowPlan {
    /// The bytes of a pair's row without the two records.
    pub(super) fn pair_bytes(&self, group: &[u8]) -> usize {
        let keys = self.key_names.iter().zip(rows::key_fields(group)).map(|(name, json)| name.len() + json.len());
        let names = keys.chain(self.sides.iter().map(|side| side.name.len()));
        // Each has two quotes, a colon, and a comma or a brace; one brace is left.
        names.map(|bytes| bytes + 4).sum::<usize>() + 1
    }

    /// Appends the row of a pair: the key's fields, then both records as they are.
    pub(super) fn push_pair(&self, group: &[u8], (left, right): (&Half<'_>, &Half<'_>), to: &mut Vec<u8>) {
        to.push(b'{');
        let keys = self.key_names.iter().map(String::as_str).zip(rows::key_fields(group));
        let records = self.sides.iter().map(|side| side.name.as_str()).zip([left.value, right.value]);
        for (index, (name, json)) in keys.chain(records).enumerate() {
            if index > 0 {
                to.push(b',');
            }
            to.push(b'"');
            to.extend_from_slice(name.as_bytes());
            to.extend_from_slice(b"\":");
            to.extend_from_slice(json);
        }
        to.push(b'}');
    }
    /// Appends what is told of a half to whoever asks: its record under its side's name, and whether it was in a pair.
    pub(super) fn half_row(&self, half: &Half<'_>) -> Vec<u8> {
        let name = &self.sides[usize::from(half.right)].name;
        let mut row = format!("{{\"matched\":{},\"{name}\":", half.matched).into_bytes();
        row.extend_from_slice(half.value);
        row.push(b'}');
        row
    }
}
