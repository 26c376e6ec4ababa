//! The types of fields that Rust has no type for.

/// A moment, in microseconds since 1970 UTC; how it stands in the record is said at the field, as in
/// `#[field("/at", epoch_ms)]` (`rfc3339`, the default, `epoch_s`, `epoch_ms`, `epoch_us`, `epoch_ns`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    micros: i64,
}

impl Timestamp {
    /// From microseconds since 1970 UTC.
    pub const fn from_micros(micros: i64) -> Self {
        Self { micros }
    }

    /// From milliseconds since 1970 UTC; the nearest that there is where that is out of range.
    pub const fn from_millis(millis: i64) -> Self {
        Self { micros: millis.saturating_mul(1_000) }
    }

    /// From seconds since 1970 UTC; the nearest that there is where that is out of range.
    pub const fn from_secs(secs: i64) -> Self {
        Self { micros: secs.saturating_mul(1_000_000) }
    }

    /// Microseconds since 1970 UTC.
    pub const fn micros(self) -> i64 {
        self.micros
    }

    /// Whole milliseconds since 1970 UTC, rounded down.
    pub const fn millis(self) -> i64 {
        self.micros.div_euclid(1_000)
    }

    /// Whole seconds since 1970 UTC, rounded down.
    pub const fn secs(self) -> i64 {
        self.micros.div_euclid(1_000_000)
    }
}

/// A decimal number as its text: `Decimal<&str>` is read, `Decimal<T>` of anything that displays itself is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decimal<T>(pub T);

/// Any value as its JSON text: `Json<&str>` is read, `Json<T>` of anything that displays itself is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// Text that is written as `T` displays itself, without a `String` in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text<T>(pub T);
