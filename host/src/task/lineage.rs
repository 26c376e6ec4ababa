//! What an output says of where it comes from, in headers.

use std::io::Write as _;

use crate::record::{Batch, Headers, Rows};

/// The names of the headers.
const PIPELINE: &[u8] = b"millstream.pipeline";
const PLUGINS: &[u8] = b"millstream.plugins";
const SOURCE: &[u8] = b"millstream.source";

/// What the headers say that is the same for all outputs of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The pipeline's name.
    pub pipeline: String,
    /// `stage=version@digest`, comma-separated, in the chain's order.
    pub plugins: String,
}

impl Lineage {
    /// Adds to every row its pipeline, its plugins, and `topic/partition/offset` of the record that it came from. The rows'
    /// offsets are those of their source records. Headers of these names that came along are replaced.
    pub fn add(&self, rows: &mut Rows, batch: &Batch) {
        let old = std::mem::take(&mut rows.headers);
        let mut new = Headers::default();
        let mut source = format!("{}/{}/", batch.topic, batch.partition).into_bytes();
        let place = source.len();
        for row in 0..rows.offsets.len() {
            for (name, value) in old.get(row).filter(|(name, _)| ![PIPELINE, PLUGINS, SOURCE].contains(name)) {
                new.push(row, name, value);
            }
            source.truncate(place);
            // Writing to memory does not fail.
            let _ = write!(source, "{}", rows.offsets[row]);
            new.push(row, PIPELINE, Some(self.pipeline.as_bytes()));
            new.push(row, PLUGINS, Some(self.plugins.as_bytes()));
            new.push(row, SOURCE, Some(&source));
        }
        rows.headers = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_where_it_comes_from_and_keeps_its_own_headers() {
        let mut rows = Rows::default();
        rows.push(7, -1, None, Some(b"a"));
        rows.headers.push(0, b"own", None);
        rows.headers.push(0, SOURCE, Some(b"an older pipeline's"));
        rows.push(9, -1, None, Some(b"b"));
        let batch = Batch { topic: "t".into(), partition: 3, first_offset: 7, next_offset: 10, rows: Rows::default() };
        Lineage { pipeline: "p".into(), plugins: "s=1@ab".into() }.add(&mut rows, &batch);
        let found: Vec<_> = rows.headers.get(0).collect();
        let expected: [(&[u8], Option<&[u8]>); 4] =
            [(b"own", None), (PIPELINE, Some(b"p")), (PLUGINS, Some(b"s=1@ab")), (SOURCE, Some(b"t/3/7"))];
        assert_eq!(found, expected);
        assert_eq!(rows.headers.get(1).last(), Some((SOURCE, Some(&b"t/3/9"[..]))));
    }
}
