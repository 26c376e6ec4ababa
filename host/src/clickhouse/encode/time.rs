//! Dates and times: ISO 8601 texts and counts since 1970, to what the date and time types hold.

use super::{Reason, number};
use crate::clickhouse::zone::Zone;
use crate::config::TimeUnit;
use crate::record::calendar::{self, DAY_S};

/// 1900-01-01 and 2300-01-01: what `Date32` and `DateTime64` can show.
const FIRST_DAY: i64 = -25_567;
const END_DAY: i64 = 120_530;
const NANOS: i128 = 1_000_000_000;

/// A time as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    /// Seconds since 1970 by the clock that it was written by.
    local_s: i64,
    /// Nanoseconds after that; further digits are cut off.
    nanos: u32,
    /// Seconds by which that clock is ahead of UTC; `None` where the text does not say.
    offset_s: Option<i32>,
}

/// Seconds since 1970 UTC of an ISO 8601 time; one without a zone is of `zone`.
pub(super) fn seconds(text: &[u8], zone: Option<&Zone>) -> Result<i64, Reason> {
    Ok(instant(written(text)?, zone))
}

/// The same in 10^-`digits` of a second; what is finer is cut off.
pub(super) fn ticks(text: &[u8], digits: u8, zone: Option<&Zone>) -> Result<i64, Reason> {
    let written = written(text)?;
    to_ticks(i128::from(instant(written, zone)) * NANOS + i128::from(written.nanos), digits)
}

fn instant(written: Written, zone: Option<&Zone>) -> i64 {
    match (written.offset_s, zone) {
        (Some(offset), _) => written.local_s - i64::from(offset),
        (None, Some(zone)) => zone.to_utc(written.local_s),
        (None, None) => written.local_s,
    }
}

/// Nanoseconds since 1970 UTC of a whole number that counts in `unit`.
pub(super) fn nanos_of_integer(number: i64, unit: TimeUnit) -> i128 {
    i128::from(number) * i128::from(10_i64.pow(u32::from(scale(unit))))
}

/// The same of any number.
pub(super) fn nanos_of_number(text: &[u8], unit: TimeUnit) -> Result<i128, Reason> {
    number::scaled_i128(text, scale(unit))
}

/// The power of ten of nanoseconds that a `unit` is.
fn scale(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Seconds => 9,
        TimeUnit::Millis => 6,
        TimeUnit::Micros => 3,
        TimeUnit::Nanos => 0,
    }
}

/// Seconds, as `DateTime` holds them; what is finer is cut off.
pub(super) fn to_seconds(nanos: i128) -> Result<i64, Reason> {
    i64::try_from(nanos.div_euclid(NANOS)).map_err(|_| Reason::Range)
}

/// 10^-`digits` of a second, as `DateTime64` holds them; what is finer is cut off.
pub(super) fn to_ticks(nanos: i128, digits: u8) -> Result<i64, Reason> {
    let per_day = i128::from(DAY_S) * NANOS;
    if !(i128::from(FIRST_DAY) * per_day..i128::from(END_DAY) * per_day).contains(&nanos) {
        return Err(Reason::Range);
    }
    let finer = 10_i128.pow(u32::from(9 - digits.min(9)));
    i64::try_from(nanos.div_euclid(finer)).map_err(|_| Reason::Range)
}

/// Days since 1970-01-01 of an ISO 8601 date; of a time, the day in UTC, or the one that it names where it has no zone.
pub(super) fn days(text: &[u8]) -> Result<i64, Reason> {
    if text.len() == 10 {
        return calendar::date(text).ok_or(Reason::Format);
    }
    Ok(instant(written(text)?, None).div_euclid(DAY_S))
}

/// Days since 1970-01-01 UTC.
pub(super) fn to_days(nanos: i128) -> Result<i64, Reason> {
    to_seconds(nanos).map(|seconds| seconds.div_euclid(DAY_S))
}

/// The day, if `Date` can hold it.
pub(super) fn date16(days: i64) -> Result<u16, Reason> {
    u16::try_from(days).map_err(|_| Reason::Range)
}

/// The day, if `Date32` can hold it.
pub(super) fn date32(days: i64) -> Result<i32, Reason> {
    if !(FIRST_DAY..END_DAY).contains(&days) {
        return Err(Reason::Range);
    }
    i32::try_from(days).map_err(|_| Reason::Range)
}

/// Reads `2026-03-01T10:00:00`, with a space in place of the `T`, a fraction, and a zone (`Z`, `+01`, `+0100`, `+01:00`).
fn written(text: &[u8]) -> Result<Written, Reason> {
    read(text).ok_or(Reason::Format)
}

fn read(text: &[u8]) -> Option<Written> {
    let (local, rest) = text.split_at_checked(19)?;
    let local_s = calendar::date_time(local)?;
    let (nanos, zone) = calendar::fraction(rest, b".,")?;
    Some(Written { local_s, nanos, offset_s: offset(zone)? })
}

/// The zone's offset; `Some(None)` where there is none.
fn offset(text: &[u8]) -> Option<Option<i32>> {
    match *text {
        [] => Some(None),
        [b'Z' | b'z'] => Some(Some(0)),
        [sign, h1, h2] => calendar::offset_s(sign, [h1, h2], *b"00").map(Some),
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => calendar::offset_s(sign, [h1, h2], [m1, m2]).map(Some),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_a_zone() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2023-11-14 22:13:20", 1_700_000_000),
            ("2023-11-14T23:13:20.999+01:00", 1_700_000_000),
            ("2023-11-14T23:13:20+0100", 1_700_000_000),
            ("2023-11-14t20:13:20-02", 1_700_000_000),
            ("1969-12-31T23:59:59Z", -1),
        ] {
            assert_eq!(seconds(text.as_bytes(), None), Ok(expected), "{text}");
        }
        let berlin = Zone::fixed(3600);
        assert_eq!(seconds(b"2023-11-14T23:13:20", Some(&berlin)), Ok(1_700_000_000));
        assert_eq!(seconds(b"2023-11-14T22:13:20Z", Some(&berlin)), Ok(1_700_000_000));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2023-11-14",
            "2023-02-29T00:00:00",
            "2023-11-14T24:00:00",
            "2023-11-14T00:00:60",
            "2023-11-14T00:00:00.",
            "2023-11-14T00:00:00+1",
            "2023-11-14T00:00:00+24:00",
            "2023-11-14T00:00:00 Z",
            "2023-11-14X00:00:00",
            "1700000000",
        ] {
            assert_eq!(seconds(text.as_bytes(), None), Err(Reason::Format), "{text}");
        }
    }

    #[test]
    fn ticks_are_cut_to_the_columns_precision() {
        let text = b"2023-11-14T22:13:20.1239999999Z";
        assert_eq!(ticks(text, 0, None), Ok(1_700_000_000));
        assert_eq!(ticks(text, 3, None), Ok(1_700_000_000_123));
        assert_eq!(ticks(text, 9, None), Ok(1_700_000_000_123_999_999));
        assert_eq!(ticks(b"1969-12-31T23:59:59.5Z", 1, None), Ok(-5));
        assert_eq!(ticks(b"1899-12-31T23:59:59Z", 3, None), Err(Reason::Range));
        assert_eq!(ticks(b"2299-12-31T23:59:59.999Z", 3, None), Ok(10_413_791_999_999));
        assert_eq!(ticks(b"2300-01-01T00:00:00Z", 3, None), Err(Reason::Range));
        assert_eq!(ticks(b"2263-01-01T00:00:00Z", 9, None), Err(Reason::Range));
    }

    #[test]
    fn numbers_count_in_their_unit() {
        let nanos = |text: &str, unit| nanos_of_number(text.as_bytes(), unit);
        assert_eq!(nanos("1700000000.5", TimeUnit::Seconds), Ok(1_700_000_000_500_000_000));
        assert_eq!(nanos("1700000000500", TimeUnit::Millis), Ok(1_700_000_000_500_000_000));
        assert_eq!(nanos("-1", TimeUnit::Micros), Ok(-1_000));
        assert_eq!(nanos("1.5", TimeUnit::Nanos), Err(Reason::Fraction));
        assert_eq!((to_seconds(-1), to_days(-1)), (Ok(-1), Ok(-1)));
        for unit in [TimeUnit::Seconds, TimeUnit::Millis, TimeUnit::Micros, TimeUnit::Nanos] {
            for number in [i64::MIN, -1, 0, 1_700_000_000, i64::MAX] {
                assert_eq!(nanos(&number.to_string(), unit), Ok(nanos_of_integer(number, unit)), "{number} {unit:?}");
            }
        }
    }

    #[test]
    fn days_are_read_from_dates_and_times() {
        assert_eq!(days(b"1970-01-02"), Ok(1));
        assert_eq!(days(b"1970-01-02T23:59:59"), Ok(1));
        assert_eq!(days(b"1970-01-02T23:30:00-01:00"), Ok(2));
        assert_eq!(days(b"1970-13-02"), Err(Reason::Format));
        assert_eq!((date16(65_535), date16(65_536), date16(-1)), (Ok(65_535), Err(Reason::Range), Err(Reason::Range)));
        assert_eq!((date32(-25_567), date32(-25_568), date32(120_529)), (Ok(-25_567), Err(Reason::Range), Ok(120_529)));
        assert_eq!(date32(120_530), Err(Reason::Range));
    }
}
