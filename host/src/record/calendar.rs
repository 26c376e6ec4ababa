//! Dates and times: the days of the calendar, and timestamps as RFC 3339 has them.
//!
//! The calendar is the proleptic Gregorian one, by the formulas `days_from_civil` and `civil_from_days` of Howard
//! Hinnant's "chrono-Compatible Low-Level Date Algorithms" (howardhinnant.github.io/date_algorithms.html).

/// Seconds of a day.
pub(crate) const DAY_S: i64 = 86_400;
const SECOND: i64 = 1_000_000;
const DAY: i64 = DAY_S * SECOND;
/// 0000-01-01T00:00:00Z, the first that RFC 3339 can write.
const FIRST: i64 = -719_528 * DAY;
/// 10000-01-01T00:00:00Z, the first that it can't.
const END: i64 = 2_932_897 * DAY;

/// Microseconds since 1970 UTC of a timestamp. Its letters may be small and the T a space; digits beyond the microsecond
/// are cut off; a leap second (`:60`) is refused, because microseconds since 1970 have no place for it.
pub(crate) fn parse_rfc3339(text: &[u8]) -> Option<i64> {
    let (local, rest) = text.split_at_checked(19)?;
    let (nanos, zone) = fraction(rest, b".")?;
    let offset_s = match *zone {
        [b'Z' | b'z'] => 0,
        [sign, h1, h2, b':', m1, m2] => offset_s(sign, [h1, h2], [m1, m2])?,
        _ => return None,
    };
    Some((date_time(local)? - i64::from(offset_s)) * SECOND + i64::from(nanos / 1_000))
}

/// Appends microseconds since 1970 as a timestamp in UTC, with as many digits of a second's fraction as are not zero;
/// false, and nothing appended, where its year has not four digits.
pub(crate) fn push_rfc3339(out: &mut Vec<u8>, micros: i64) -> bool {
    if !(FIRST..END).contains(&micros) {
        return false;
    }
    let (year, month, day) = civil_from_days(micros.div_euclid(DAY));
    let of_day = micros.rem_euclid(DAY);
    let (seconds, fraction) = (of_day / SECOND, of_day % SECOND);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |at: usize, len: usize, mut value: i64| {
        for place in text[at..at + len].iter_mut().rev() {
            *place = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, seconds / 3600);
    put(14, 2, seconds / 60 % 60);
    put(17, 2, seconds % 60);
    put(20, 6, fraction);
    let zeros = text[20..26].iter().rev().take_while(|digit| **digit == b'0').count();
    out.extend_from_slice(&text[..if zeros == 6 { 19 } else { 26 - zeros }]);
    out.push(b'Z');
    true
}

/// Days since 1970-01-01 of `2026-03-01`.
pub(crate) fn date(text: &[u8]) -> Option<i64> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let (year, month, day) = (digits(&[y1, y2, y3, y4])?, digits(&[m1, m2])?, digits(&[d1, d2])?);
    let good = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    good.then(|| days_from_civil(year, month, day))
}

/// Seconds since 1970, by the clock that it was written by, of `2026-03-01T10:00:00`; the T may be small, or a space.
pub(crate) fn date_time(text: &[u8]) -> Option<i64> {
    let (day, clock) = text.split_at_checked(10)?;
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2] = *clock else { return None };
    let (hour, minute, second) = (digits(&[h1, h2])?, digits(&[m1, m2])?, digits(&[s1, s2])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(date(day)? * DAY_S + hour * 3600 + minute * 60 + second)
}

/// Nanoseconds of a second's fraction, further digits cut off, and what follows it. A fraction begins with one of
/// `marks`; without one it is zero, and one without digits is none.
pub(crate) fn fraction<'a>(text: &'a [u8], marks: &[u8]) -> Option<(u32, &'a [u8])> {
    let digits = match text {
        [mark, digits @ ..] if marks.contains(mark) => digits,
        _ => return Some((0, text)),
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let place = |i: usize| digits[..count].get(i).map_or(0, |digit| u32::from(digit - b'0'));
    Some(((0..9).fold(0, |nanos, i| nanos * 10 + place(i)), &digits[count..]))
}

/// Seconds by which a clock is ahead of UTC, of the parts of `+01:00`.
pub(crate) fn offset_s(sign: u8, hours: [u8; 2], minutes: [u8; 2]) -> Option<i32> {
    let (hours, minutes) = (digits(&hours)?, digits(&minutes)?);
    let seconds = (hours <= 23 && minutes <= 59).then_some((hours * 3600 + minutes * 60) as i32)?;
    match sign {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. Years are counted from March, so that the leap day is the last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a day since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(micros: i64) -> Option<String> {
        let mut out = Vec::new();
        push_rfc3339(&mut out, micros).then(|| String::from_utf8(out).expect("ASCII"))
    }

    #[test]
    fn known_moments_are_read_and_written() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1985-04-12T23:20:50.52Z", 482_196_050_520_000),
            ("2000-02-29T12:00:00.000001Z", 951_825_600_000_001),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000_000),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("0000-01-01T00:00:00Z", FIRST),
            ("9999-12-31T23:59:59.999999Z", END - 1),
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), Some(micros), "{text}");
            assert_eq!(formatted(micros).as_deref(), Some(text));
        }
    }

    #[test]
    fn offsets_fractions_and_letters_may_vary() {
        for (text, same) in [
            ("1996-12-19T16:39:57-08:00", "1996-12-20T00:39:57Z"),
            ("1990-12-31T15:59:59+23:59", "1990-12-30T16:00:59Z"),
            ("2024-03-01t00:30:00+01:00", "2024-02-29T23:30:00Z"),
            ("2024-01-01 00:00:00z", "2024-01-01T00:00:00Z"),
            ("2024-01-01T00:00:00-00:00", "2024-01-01T00:00:00Z"),
            ("2024-01-01T00:00:00.1234567899999Z", "2024-01-01T00:00:00.123456Z"),
            ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()).and_then(formatted).as_deref(), Some(same), "{text}");
        }
    }

    #[test]
    fn what_no_calendar_or_clock_shows_is_refused() {
        for text in [
            "",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00Z",
            "2024-1-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-04-31T00:00:00Z",
            "2024-01-00T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2016-12-31T23:59:60Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+1:00",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T00:00:00+00:60",
            "2024-01-01T00:00:00+0100",
            "2024-01-01T00:00:00Z ",
            " 2024-01-01T00:00:00Z",
            "2024/01/01T00:00:00Z",
            "2024-01-01X00:00:00Z",
            "+024-01-01T00:00:00Z",
            "12024-01-01T00:00:00Z",
            "2024-01-01T00:00:00,5Z",
            "2024-01-01T00:00:00é",
        ] {
            assert_eq!(parse_rfc3339(text.as_bytes()), None, "{text}");
        }
        assert_eq!(
            (formatted(FIRST - 1), formatted(END), formatted(i64::MAX), formatted(i64::MIN)),
            (None, None, None, None)
        );
    }

    /// Days of a year's months, without a formula.
    fn months(year: i64) -> [i64; 12] {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    }

    /// Days of the years from `from` to `to`, without a formula.
    fn days_of_years(from: i64, to: i64) -> i64 {
        (from..to).map(|year| months(year).iter().sum::<i64>()).sum()
    }

    /// What `push_rfc3339` writes, by counting years and months.
    fn counted(micros: i64) -> String {
        let (mut day, of_day) = ((micros - FIRST) / DAY, (micros - FIRST) % DAY);
        let (mut year, mut month) = (0, 0);
        while day >= months(year).iter().sum() {
            day -= months(year).iter().sum::<i64>();
            year += 1;
        }
        while day >= months(year)[month] {
            day -= months(year)[month];
            month += 1;
        }
        let (s, fraction) = (of_day / SECOND, format!("{:06}", of_day % SECOND));
        let fraction = match fraction.trim_end_matches('0') {
            "" => String::new(),
            digits => format!(".{digits}"),
        };
        let date = format!("{year:04}-{:02}-{:02}", month + 1, day + 1);
        format!("{date}T{:02}:{:02}:{:02}{fraction}Z", s / 3600, s / 60 % 60, s % 60)
    }

    #[test]
    fn moments_all_over_the_calendar_are_written_and_read_as_counting_has_it() {
        assert_eq!((-days_of_years(0, 1970) * DAY, days_of_years(1970, 10_000) * DAY), (FIRST, END));
        let span = (END - FIRST) as u64;
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        for round in 0..4_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let moment = FIRST + (random % span) as i64;
            // Of every kind some: to the microsecond, to the tenth, to the second, and a day's two ends.
            let micros = match round % 5 {
                0 => moment,
                1 => moment - moment.rem_euclid(100_000),
                2 => moment - moment.rem_euclid(SECOND),
                3 => moment - moment.rem_euclid(DAY),
                _ => moment - moment.rem_euclid(DAY) + DAY - 1,
            };
            let text = counted(micros);
            assert_eq!(formatted(micros).as_deref(), Some(text.as_str()), "{micros}");
            assert_eq!(parse_rfc3339(text.as_bytes()), Some(micros), "{text}");
        }
    }

    #[test]
    fn a_timestamp_is_appended_to_what_is_there() {
        let mut out = b"at ".to_vec();
        assert!(push_rfc3339(&mut out, 500_000) && !push_rfc3339(&mut out, END));
        assert_eq!(out, b"at 1970-01-01T00:00:00.5Z");
    }

    #[test]
    fn the_calendar_runs_day_by_day() {
        let mut expected = (0, 1, 1);
        for days in FIRST / DAY..END / DAY {
            assert_eq!(civil_from_days(days), expected);
            let (year, month, day) = expected;
            assert_eq!(days_from_civil(year, month, day), days);
            expected = match (day == days_in(year, month), month) {
                (false, _) => (year, month, day + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
        }
    }
}
