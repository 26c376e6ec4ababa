//! What is held for a key, as it is told to whoever asked.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::config::{Config, WindowKind};
use crate::http::Unwilling;
use crate::record::Place;
use crate::record::calendar::push_rfc3339;
use crate::window::{Role, keys_of};
use crate::worker::{AnsweredWindow, StateAnswer};

use super::Sight;
use super::states::{self, Level};

/// The most bytes of all rows of an answer.
const ROWS_BYTES_MAX: usize = 4 << 20;

/// The whole answer.
#[derive(Serialize)]
struct Told<'a> {
    stage: &'a str,
    key: &'a str,
    instance: &'a str,
    windows: Vec<Window>,
    /// True where there are more windows.
    more: bool,
    /// Where this instance has looked.
    partitions: Vec<At>,
    /// Partitions of it whose states are not there yet.
    restoring: Vec<At>,
    /// What stands against a whole answer; null where nothing does.
    why: Option<String>,
}

#[derive(Serialize)]
struct At {
    topic: String,
    partition: i32,
}

#[derive(Serialize)]
struct Window {
    window_start: String,
    window_end: String,
    open: bool,
    /// As it would be emitted now; null where that can't be.
    row: Option<Box<RawValue>>,
    why: Option<String>,
    state_bytes: usize,
    topic: String,
    partition: i32,
    position: i64,
    committed: i64,
}

/// What the instance holds for a key of a stage, as JSON.
pub(super) fn state(sight: &Sight, config: &Config, stage: &str, key: &str) -> Result<String, Unwilling> {
    let mut windows = states::windows(config).filter(|(.., of)| !matches!(of.kind, WindowKind::Duplicates { .. }));
    let found = windows.find(|(_, of, _)| of.name == stage);
    let (index, _, window) = found.ok_or_else(|| (404, format!("there is no stage `{stage}` with windows")))?;
    let keys = keys_of(key, window.key.len());
    if keys.is_empty() {
        let names: Vec<&str> = window.key.iter().map(|field| field.name.as_str()).collect();
        let wanted = match names.len() {
            0 => "windows without a key: leave `key` out".to_owned(),
            many => {
                format!("{many} fields as key ({}): give `key` as a JSON array of as many values", names.join(", "))
            }
        };
        return Err((400, format!("stage `{stage}` has {wanted}")));
    }
    // Rows come from where states are merged.
    let (level, stage_there) = match states::role(config, window) {
        Role::Partial | Role::Merge => (Level::Second(index), 0),
        Role::Whole => (Level::First, index),
    };
    let workers = sight.workers_of(level);
    if workers == 0 {
        return Err((503, "the workers have not started yet".to_owned()));
    }
    let answers = sight.questions().ask((level, workers), stage_there, keys);
    let answers = answers.ok_or_else(|| (503, "too many such questions wait already; ask again".to_owned()))?;
    let told = told(config, (stage, key), workers, answers);
    serde_json::to_string(&told).map_err(|why| (500, why.to_string()))
}

fn told<'a>(
    config: &'a Config,
    (stage, key): (&'a str, &'a str),
    workers: usize,
    answers: Vec<StateAnswer>,
) -> Told<'a> {
    let silent = workers - answers.len();
    let mut all = StateAnswer::default();
    for answer in answers {
        all.windows.extend(answer.windows);
        all.partitions.extend(answer.partitions);
        all.restoring.extend(answer.restoring);
        all.more |= answer.more;
        all.trouble = all.trouble.or(answer.trouble);
    }
    all.partitions.sort();
    all.windows.sort_by(|one, other| (one.window.end_us, &one.place).cmp(&(other.window.end_us, &other.place)));
    let mut bytes = 0;
    let found = all.windows.len();
    all.windows.retain(|of| {
        bytes += of.window.row.as_ref().map_or(0, Vec::len);
        bytes <= ROWS_BYTES_MAX
    });
    let instance = config.instance.as_str();
    let why = match (silent, all.trouble) {
        (0, None) if !all.restoring.is_empty() => Some("states are being restored".to_owned()),
        (0, None) if found == 0 => Some(format!(
            "instance `{instance}` holds no window for this key; another one may, which has other partitions than these"
        )),
        (0, why) => why,
        (silent, _) => Some(format!("{silent} of {workers} workers did not answer in time")),
    };
    Told {
        stage,
        key,
        instance,
        more: all.more || all.windows.len() < found,
        windows: all.windows.into_iter().map(Window::of).collect(),
        partitions: all.partitions.iter().map(At::of).collect(),
        restoring: all.restoring.iter().map(At::of).collect(),
        why,
    }
}

impl At {
    fn of(place: &Place) -> Self {
        Self { topic: place.topic.to_string(), partition: place.partition }
    }
}

impl Window {
    fn of(AnsweredWindow { place, position, committed, window }: AnsweredWindow) -> Self {
        let (row, why) = match window.row {
            Ok(row) => (String::from_utf8(row).ok().and_then(|row| RawValue::from_string(row).ok()), None),
            Err(why) => (None, Some(why)),
        };
        Self {
            window_start: rfc3339(window.start_us),
            window_end: rfc3339(window.end_us),
            open: window.open,
            row,
            why,
            state_bytes: window.state_bytes,
            topic: place.topic.to_string(),
            partition: place.partition,
            position,
            committed,
        }
    }
}

/// A time as rows have it.
fn rfc3339(us: i64) -> String {
    let mut text = Vec::new();
    push_rfc3339(&mut text, us);
    String::from_utf8(text).unwrap_or_default()
}
