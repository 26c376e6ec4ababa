//! Adds to click events what follows from them: the region of the country, whether the device is a mobile one, and the
//! time as text.

use millstream_sdk::prelude::*;

/// What the additions follow from.
#[derive(Read)]
pub struct Event<'a> {
    #[field("/country")]
    country: &'a str,
    #[field("/device_type")]
    device_type: Option<&'a str>,
    #[field("/timestamp", epoch_s)]
    timestamp: Timestamp,
}

/// What is added.
#[derive(Write, Debug, PartialEq)]
pub struct Added {
    #[field("/region")]
    region: &'static str,
    #[field("/is_mobile")]
    is_mobile: Set<bool>,
    #[field("/event_time", rfc3339)]
    event_time: Timestamp,
}

/// Where the device is not known, nothing is said of it.
#[plugin]
pub fn enrich(event: Event<'_>) -> Added {
    Added {
        region: region(event.country),
        is_mobile: event.device_type.map_or(Set::Keep, |device| Set::To(device == "mobile")),
        event_time: event.timestamp,
    }
}

fn region(country: &str) -> &'static str {
    match country {
        "US" | "CA" => "americas",
        "UK" | "DE" | "FR" => "europe",
        "JP" => "asia",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event<'a>(country: &'a str, device_type: Option<&'a str>) -> Event<'a> {
        Event { country, device_type, timestamp: Timestamp::from_secs(1_700_000_000) }
    }

    #[test]
    fn every_country_has_a_region() {
        let regions = [("US", "americas"), ("CA", "americas"), ("UK", "europe"), ("DE", "europe"), ("FR", "europe")];
        for (country, region) in regions.into_iter().chain([("JP", "asia"), ("BR", "other"), ("", "other")]) {
            assert_eq!(enrich(event(country, None)).region, region, "{country}");
        }
    }

    #[test]
    fn a_device_is_mobile_or_not_where_it_is_known() {
        assert_eq!(enrich(event("US", Some("mobile"))).is_mobile, Set::To(true));
        assert_eq!(enrich(event("US", Some("tablet"))).is_mobile, Set::To(false));
        assert_eq!(enrich(event("US", None)).is_mobile, Set::Keep);
    }

    #[test]
    fn the_event_time_is_the_timestamp() {
        assert_eq!(enrich(event("US", None)).event_time.micros(), 1_700_000_000_000_000);
    }
}
