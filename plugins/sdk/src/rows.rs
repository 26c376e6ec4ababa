//! The rows of a batch, as the host sent them.

use crate::bindings::millstream::plugin::types::{self, Batch, OptionalBytes};
use crate::read::{bit, range};
use crate::{ReadValue, Timestamp};

/// The rows of a batch: a column for each field that the descriptor reads and each that it joins, and the parts that it asked
/// for.
#[derive(Debug)]
pub struct Rows {
    batch: Batch,
}

impl Rows {
    #[doc(hidden)]
    pub fn new(batch: Batch) -> Self {
        Self { batch }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.batch.rows as usize
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.batch.rows == 0
    }

    /// The column of the descriptor's read `field`, ready for [`ReadValue::at`]; its joins stand behind its reads.
    pub fn column<'a, T: ReadValue<'a>>(&'a self, field: usize) -> T::Column {
        T::column(&self.batch.columns[field])
    }

    /// The records' keys.
    pub fn keys(&self) -> Bytes<'_> {
        Bytes { bytes: asked(&self.batch.key) }
    }

    /// The records' values.
    pub fn values(&self) -> Bytes<'_> {
        Bytes { bytes: asked(&self.batch.value) }
    }

    /// The records' headers.
    pub fn headers(&self) -> AllHeaders<'_> {
        AllHeaders { headers: asked(&self.batch.headers) }
    }

    /// The records' timestamps.
    pub fn timestamps(&self) -> Timestamps<'_> {
        Timestamps { millis: asked::<Vec<i64>>(&self.batch.timestamps_ms) }
    }
}

fn asked<T>(part: &Option<T>) -> &T {
    match part {
        Some(part) => part,
        None => panic!("this part of the record is not among the descriptor's raw reads"),
    }
}

/// Keys or values of all rows.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    bytes: &'a OptionalBytes,
}

impl<'a> Bytes<'a> {
    /// The bytes of a row; none for null.
    #[inline]
    pub fn at(&self, row: usize) -> Option<&'a [u8]> {
        let valid = self.bytes.valid.is_empty() || bit(&self.bytes.valid, row);
        valid.then(|| &self.bytes.bytes.data[range(&self.bytes.bytes.ends, row)])
    }
}

/// Timestamps of all rows.
#[derive(Clone, Copy, Debug)]
pub struct Timestamps<'a> {
    millis: &'a [i64],
}

impl<'a> Timestamps<'a> {
    pub(crate) fn millis(&self) -> &'a [i64] {
        self.millis
    }

    /// The timestamp of a row, where it has one.
    #[inline]
    pub fn at(&self, row: usize) -> Option<Timestamp> {
        let millis = self.millis[row];
        (millis != -1).then(|| Timestamp::from_millis(millis))
    }
}

/// Headers of all rows.
#[derive(Clone, Copy, Debug)]
pub struct AllHeaders<'a> {
    headers: &'a types::Headers,
}

impl<'a> AllHeaders<'a> {
    /// The headers of a row.
    #[inline]
    pub fn at(&self, row: usize) -> Headers<'a> {
        Headers(Listed::Host { headers: self.headers, range: range(&self.headers.row_ends, row) })
    }
}

/// Headers to write: names and values.
pub type HeaderList<'a> = Vec<(&'a str, Option<&'a [u8]>)>;

/// The headers of a record, in their order.
#[derive(Clone, Debug)]
pub struct Headers<'a>(Listed<'a>);

#[derive(Clone, Debug)]
enum Listed<'a> {
    Host { headers: &'a types::Headers, range: std::ops::Range<usize> },
    Test(&'a [(&'a str, Option<&'a [u8]>)]),
}

impl<'a> Headers<'a> {
    /// Headers for a test.
    pub fn of(headers: &'a [(&'a str, Option<&'a [u8]>)]) -> Self {
        Self(Listed::Test(headers))
    }

    /// Number of headers.
    pub fn len(&self) -> usize {
        match &self.0 {
            Listed::Host { range, .. } => range.len(),
            Listed::Test(headers) => headers.len(),
        }
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name and value of each header.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let listed = self.0.clone();
        (0..self.len()).map(move |index| listed.at(index))
    }

    /// The value of the last header of that name.
    pub fn last(&self, name: &str) -> Option<&'a [u8]> {
        self.iter().rev().find(|(candidate, _)| *candidate == name)?.1
    }
}

impl<'a> Listed<'a> {
    fn at(&self, index: usize) -> (&'a str, Option<&'a [u8]>) {
        match self {
            Self::Test(headers) => headers[index],
            Self::Host { headers, range: all } => {
                let at = all.start + index;
                let name = &headers.names.data[range(&headers.names.ends, at)];
                // Kafka's header names are text; one that is not is no name that a plugin could ask for.
                (std::str::from_utf8(name).unwrap_or_default(), Bytes { bytes: &headers.values }.at(at))
            }
        }
    }
}
