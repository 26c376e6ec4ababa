//! The clickstream rules in native Rust, as one would write them with serde: an owned struct in, a struct out. They are
//! those of the plugins `validate`, `upcast` and `enrich`.

use std::io::Write as _;

use serde::{Deserialize, Serialize};

/// The newest version of the schema.
const NEWEST: i64 = 2;

/// An event as it comes in.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// What happened.
    pub event_type: String,
    /// To whom.
    pub user_id: i64,
    /// Where.
    pub page_url: String,
    /// A UUID.
    pub button_id: String,
    /// Seconds since 1970 UTC.
    pub timestamp: i64,
    /// Two letters.
    pub country: String,
    /// Events of the first version have none.
    #[serde(default)]
    pub device_type: Option<String>,
    /// The first version does not say which it is.
    #[serde(default)]
    pub schema_version: Option<i64>,
}

/// An event as it goes out.
#[derive(Debug, Serialize)]
struct Enriched {
    event_type: String,
    user_id: i64,
    page_url: String,
    button_id: String,
    timestamp: i64,
    country: String,
    device_type: Option<String>,
    schema_version: i64,
    region: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_mobile: Option<bool>,
    event_time: String,
}

/// Why an event is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The stage that did it.
    pub stage: &'static str,
    /// Short name of the reason.
    pub code: &'static str,
    /// The reason, for people.
    pub detail: String,
}

impl Reject {
    fn by_rule(code: &'static str, detail: String) -> Self {
        Self { stage: "validate", code, detail }
    }
}

/// Which of the plugins' work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// `validate`.
    Validate,
    /// And `upcast`.
    Upcast,
    /// And `enrich`.
    Enrich,
}

/// Checks, upcasts and enriches one record, and writes what comes of it into `out`.
pub fn process(record: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
    write(&enrich(accept(record)?), out)
}

/// Checks one record: the event that goes on.
pub fn accept(record: &[u8]) -> Result<Event, Reject> {
    let event = parse(record)?;
    check(&event)?;
    Ok(event)
}

/// The work of some of the plugins: for comparing chains of different length.
pub fn process_to(depth: Depth, record: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
    let event = accept(record)?;
    match depth {
        Depth::Validate => {
            // Nothing was changed, so nothing needs to be written anew.
            out.clear();
            out.extend_from_slice(record);
            Ok(())
        }
        Depth::Upcast => write(&Upcast::from(event), out),
        Depth::Enrich => write(&enrich(event), out),
    }
}

fn parse(record: &[u8]) -> Result<Event, Reject> {
    serde_json::from_slice(record).map_err(|error| Reject {
        stage: "validate",
        code: "invalid_json",
        detail: error.to_string(),
    })
}

fn check(event: &Event) -> Result<(), Reject> {
    if event.user_id < 0 {
        return Err(Reject::by_rule("negative_user_id", format!("user_id is {}", event.user_id)));
    }
    if event.country == "XX" || event.country == "ZZ" {
        return Err(Reject::by_rule("blocked_country", format!("country is {}", event.country)));
    }
    Ok(())
}

fn enrich(event: Event) -> Enriched {
    Enriched {
        region: region(&event.country),
        is_mobile: event.device_type.as_ref().map(|device| device == "mobile"),
        event_time: rfc3339(event.timestamp),
        schema_version: newest(event.schema_version),
        event_type: event.event_type,
        user_id: event.user_id,
        page_url: event.page_url,
        button_id: event.button_id,
        timestamp: event.timestamp,
        country: event.country,
        device_type: event.device_type,
    }
}

/// An event of the newest version.
#[derive(Debug, Serialize)]
struct Upcast {
    event_type: String,
    user_id: i64,
    page_url: String,
    button_id: String,
    timestamp: i64,
    country: String,
    device_type: Option<String>,
    schema_version: i64,
}

impl From<Event> for Upcast {
    fn from(event: Event) -> Self {
        let Event { event_type, user_id, page_url, button_id, timestamp, country, device_type, schema_version } = event;
        let schema_version = newest(schema_version);
        Self { event_type, user_id, page_url, button_id, timestamp, country, device_type, schema_version }
    }
}

/// The version that an event has after all upcasts.
pub fn newest(version: Option<i64>) -> i64 {
    version.map_or(NEWEST, |version| version.max(NEWEST))
}

fn write(event: &impl Serialize, out: &mut Vec<u8>) -> Result<(), Reject> {
    out.clear();
    serde_json::to_writer(out, event).map_err(|error| Reject {
        stage: "output",
        code: "not_json",
        detail: error.to_string(),
    })
}

/// The part of the world that a country is in.
pub fn region(country: &str) -> &'static str {
    match country {
        "US" | "CA" => "americas",
        "UK" | "DE" | "FR" => "europe",
        "JP" => "asia",
        _ => "other",
    }
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years begin in March here, so that the leap day is a year's last; 719,468 days lie between 0000-03-01 and 1970.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let mut text = Vec::with_capacity(20);
    let _ = write!(text, "{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z");
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processed(record: &str) -> Result<String, &'static str> {
        let mut out = Vec::new();
        process(record.as_bytes(), &mut out).map_err(|reject| reject.code)?;
        Ok(String::from_utf8(out).expect("JSON is text"))
    }

    #[test]
    fn an_event_is_upcast_and_enriched() {
        let event = r#"{"event_type":"page_view","user_id":7,"page_url":"/page/1","button_id":"b","timestamp":1700000000,"country":"JP"}"#;
        let expected = r#"{"event_type":"page_view","user_id":7,"page_url":"/page/1","button_id":"b","timestamp":1700000000,"country":"JP","device_type":null,"schema_version":2,"region":"asia","event_time":"2023-11-14T22:13:20Z"}"#;
        assert_eq!(processed(event).as_deref(), Ok(expected));
    }

    #[test]
    fn what_the_rules_forbid_is_turned_away() {
        let event = |user: i64, country: &str| {
            format!(
                r#"{{"event_type":"e","user_id":{user},"page_url":"p","button_id":"b","timestamp":0,"country":"{country}"}}"#
            )
        };
        assert_eq!(processed(&event(-1, "ZZ")), Err("negative_user_id"));
        assert_eq!(processed(&event(1, "ZZ")), Err("blocked_country"));
        assert_eq!(processed("{"), Err("invalid_json"));
    }

    #[test]
    fn times_are_right_around_leap_days() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
