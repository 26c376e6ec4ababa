//! Dead letters: the record as it came, byte for byte, with headers that say why it is here.

use crate::pipeline::{DeadRow, header_bytes};
use crate::record::{Place, Rows, decimal};

/// The most bytes of a reason that go into a header.
const DETAIL_BYTES_MAX: usize = 1024;

/// The most bytes of the headers that are added.
const OWN_HEADERS_BYTES_MAX: usize = 4096;

/// What the headers say that is the same for all dead letters of a pipeline.
#[derive(Clone, Debug)]
pub struct DeadLetterLabels {
    /// The pipeline's name.
    pub pipeline: String,
    /// Each stage's name and its plugin's digest (empty where the stage is no plugin).
    pub stages: Vec<(String, String)>,
}

impl DeadLetterLabels {
    /// Appends the dead letter of one row of a partition. The names are those of Kafka Connect for what these cover. A record
    /// that would be larger than `bytes_max` is cut, and says so; its coordinates lead to the whole.
    pub fn push(&self, to: &mut Rows, (place, rows, row): (&Place, &Rows, usize), dead: &DeadRow, bytes_max: usize) {
        let at = to.len();
        let room = bytes_max.saturating_sub(OWN_HEADERS_BYTES_MAX);
        let cut_bytes = push_original(to, rows, row, room);
        let (stage, digest) =
            self.stages.get(dead.stage).map_or(("output", ""), |(name, digest)| (name.as_str(), digest.as_str()));
        let mut digits = [0; 20];
        let headers = &mut to.headers;
        headers.push(at, b"__connect.errors.topic", Some(place.topic.as_bytes()));
        headers.push(at, b"__connect.errors.partition", Some(decimal(i64::from(place.partition), &mut digits)));
        headers.push(at, b"__connect.errors.offset", Some(decimal(rows.offsets[row], &mut digits)));
        headers.push(at, b"__connect.errors.exception.message", Some(cut(&dead.detail).as_bytes()));
        headers.push(at, b"millstream.dlq.pipeline", Some(self.pipeline.as_bytes()));
        headers.push(at, b"millstream.dlq.stage", Some(stage.as_bytes()));
        headers.push(at, b"millstream.dlq.code", Some(dead.code.as_bytes()));
        headers.push(at, b"millstream.dlq.attempt", Some(b"1"));
        if cut_bytes > 0 {
            headers.push(at, b"millstream.dlq.cut.bytes", Some(decimal(cut_bytes as i64, &mut digits)));
        }
        if !digest.is_empty() {
            headers.push(at, b"millstream.dlq.plugin", Some(digest.as_bytes()));
        }
    }
}

/// Appends a row as it came, or as much of it as `room` bytes hold: the key first, then the headers that fit, then the
/// value's beginning. Returns how many bytes are missing.
fn push_original(to: &mut Rows, from: &Rows, row: usize, room: usize) -> usize {
    let bytes = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let (key, value) = (from.keys.get(row), from.values.get(row));
    let headers = || from.headers.get(row);
    let whole = headers().map(header_bytes).sum::<usize>() + bytes(key) + bytes(value);
    if whole <= room {
        to.push_from(from, row);
        return 0;
    }
    let key_cut = key.map(|key| &key[..key.len().min(room)]);
    let mut left = room - bytes(key_cut);
    let (mut kept, mut missing) = (Vec::new(), bytes(key) - bytes(key_cut));
    for header in headers() {
        match left.checked_sub(header_bytes(header)) {
            Some(rest) => {
                left = rest;
                kept.push(header);
            }
            None => missing += header.0.len() + bytes(header.1),
        }
    }
    let value_cut = value.map(|value| &value[..value.len().min(left)]);
    missing += bytes(value) - bytes(value_cut);
    let at = to.len();
    to.push(from.offsets[row], from.timestamps_ms[row], key_cut, value_cut);
    kept.into_iter().for_each(|(name, value)| to.headers.push(at, name, value));
    missing
}

/// The longest prefix of `text` within the bound.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(DETAIL_BYTES_MAX)]
}
