//! Sizes, shares, times and names as people write them.

use std::time::Duration;

use crate::record::calendar::parse_rfc3339;

/// Bytes of `64MiB`, `64 MiB`, `1.5GiB`, `500kB` or `1024`; `None` for anything else.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    scaled(number, factor)
}

/// The time of `500ms`, `1s`, `1.5 s`, `2m`, `24h` or `30d`; `None` for anything else.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    scaled(number, factor).map(Duration::from_millis)
}

/// Millionths of `5%`, `0.25%` or `100%`; `None` for anything else.
pub(super) fn per_million(text: &str) -> Option<u32> {
    let number = text.strip_suffix('%')?.trim_end();
    let share = scaled(number, 10_000)?;
    u32::try_from(share).ok().filter(|&share| share <= 1_000_000)
}

/// `number` (digits, at most one point) times `factor`; `None` where the result is no integer or too large.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let scale = 10_u64.pow(fraction.len() as u32);
    let fraction = fraction.parse::<u64>().ok()?.checked_mul(factor)?;
    if fraction % scale != 0 {
        return None;
    }
    whole.checked_add(fraction / scale)
}

/// Milliseconds since 1970 UTC of an RFC 3339 time such as `2026-03-01T10:00:00Z` or `2026-03-01T11:00:00.5+01:00`;
/// digits beyond the millisecond are cut.
pub fn rfc3339_ms(text: &str) -> Option<i64> {
    parse_rfc3339(text.as_bytes()).map(|micros| micros.div_euclid(1_000))
}

/// True for `[a-z0-9_-]{1,64}`: what pipelines, stages and outputs are called.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// True for what can be a column's name.
pub(super) fn is_column(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// True for what Kafka takes as a topic's name.
pub(super) fn is_topic(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != ".."
}

/// True for a JSON Pointer (RFC 6901) to something below the root.
pub(super) fn is_pointer(text: &str) -> bool {
    let escapes_are_whole = text.split('~').skip(1).all(|part| part.starts_with(['0', '1']));
    text.starts_with('/') && escapes_are_whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact_or_refused() {
        let cases = [
            ("64MiB", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("1.5GiB", Some(3 << 29)),
            ("500kB", Some(500_000)),
            ("1024", Some(1024)),
            ("0.3B", None),
            ("64 bananas", None),
            ("-1", None),
            ("", None),
            ("MiB", None),
            ("1..5MiB", None),
            ("99999999999999999999", None),
            ("99999999999GiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_exact_or_refused() {
        let millis = |text: &str| duration(text).map(|time| time.as_millis());
        let found = [millis("500ms"), millis("1.5 s"), millis("2m"), millis("1h"), millis("30d")];
        let expected = [500, 1_500, 120_000, 3_600_000, 30 * 86_400_000];
        assert_eq!(found, expected.map(Some));
        for text in ["", "1", "s", "1w", "-1s", "0.5ms", "1e3s"] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn shares_are_exact_in_millionths() {
        let cases = [
            ("5%", Some(50_000)),
            ("0.25 %", Some(2_500)),
            ("100%", Some(1_000_000)),
            ("0%", Some(0)),
            ("101%", None),
            ("5", None),
            ("0.00001%", None),
        ];
        for (text, expected) in cases {
            assert_eq!(per_million(text), expected, "{text}");
        }
    }

    #[test]
    fn times_with_zone_are_read_and_impossible_ones_refused() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000)),
            ("2024-02-29T23:59:59.9999Z", Some(1_709_251_199_999)),
            ("2024-03-01T01:00:00.5+01:30", Some(1_709_249_400_500)),
            ("1969-12-31T23:59:59Z", Some(-1_000)),
            ("1969-12-31T23:59:59.9999Z", Some(-1)),
            ("2000-01-01T00:00:00.1234567890123Z", Some(946_684_800_123)),
            ("2000-01-01 00:00:00-00:30", Some(946_686_600_000)),
            ("2023-02-29T00:00:00Z", None),
            ("2023-13-01T00:00:00Z", None),
            ("2023-01-01T24:00:00Z", None),
            ("2023-01-01T00:00:00", None),
            ("2023-01-01", None),
            ("2023-01-01T00:00:00.Z", None),
            ("2023-01-01T00:00:00+0100", None),
        ];
        for (text, expected) in cases {
            assert_eq!(rfc3339_ms(text), expected, "{text}");
        }
    }
}
