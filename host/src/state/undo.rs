//! What entries were, so that they can be that again.

/// What an empty log keeps of its memory.
const KEPT_BYTES: usize = 256 << 10;

/// What entries were before they were first touched since the last commit, in the order of touching.
#[derive(Debug, Default)]
pub(super) struct Undo {
    pub data: Vec<u8>,
    pub touched: Vec<Touched>,
    pub dropped: Vec<Vec<u32>>,
}

/// How long the parts of the undo log are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saved {
    pub data: usize,
    pub touched: usize,
    pub dropped: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Touched {
    pub bucket: i64,
    /// Where its key begins in the log's data, and how long it is; the value follows.
    pub start: usize,
    pub key_bytes: u16,
    pub was: Was,
}

/// What was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Was {
    /// No such entry.
    Absent,
    /// A value of so many bytes.
    Value(u32),
    /// A whole bucket, whose entries are kept here.
    Bucket(usize),
}

impl Undo {
    pub(super) fn note(&mut self, bucket: i64, key: &[u8], value: Option<&[u8]>) {
        let start = self.data.len();
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value.unwrap_or_default());
        let was = value.map_or(Was::Absent, |value| Was::Value(value.len() as u32));
        self.touched.push(Touched { bucket, start, key_bytes: key.len() as u16, was });
    }

    pub(super) fn key(&self, touched: &Touched) -> &[u8] {
        &self.data[touched.start..][..usize::from(touched.key_bytes)]
    }

    pub(super) fn value(&self, touched: &Touched) -> Option<&[u8]> {
        let start = touched.start + usize::from(touched.key_bytes);
        match touched.was {
            Was::Value(bytes) => Some(&self.data[start..][..bytes as usize]),
            Was::Absent | Was::Bucket(_) => None,
        }
    }

    /// How much there is to be undone, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.data.len() + self.touched.len() * size_of::<Touched>()
    }

    /// Bytes of memory, used or not.
    pub(super) fn memory_bytes(&self) -> usize {
        self.data.capacity() + self.touched.capacity() * size_of::<Touched>()
    }

    pub(super) fn clear(&mut self) {
        self.data.clear();
        self.touched.clear();
        self.dropped.clear();
        // One large block should not take memory for good, in every partition.
        self.data.shrink_to(KEPT_BYTES);
        self.touched.shrink_to(KEPT_BYTES / size_of::<Touched>());
    }
}
