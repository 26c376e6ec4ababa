//! Turns an insurance site's events, as text from CSV, into typed ones, and rejects those that are none.
//!
//! A CSV row is an object of strings. Behind this stage `user_id` and `premium_amount` are numbers, and `premium_amount` is
//! missing where the row had none; everything else stays as it came.

use millstream_sdk::prelude::*;

/// The largest id of a user that tables hold.
const USER_ID_MAX: i64 = u16::MAX as i64;
/// The largest premium that tables hold.
const PREMIUM_MAX: i64 = u32::MAX as i64;

/// What there may be.
#[derive(Config)]
pub struct Config {
    event_types: Vec<String>,
}

/// What an event has; a row without one of these is rejected before it gets here, as is one whose time is none.
#[derive(Read)]
pub struct Event<'a> {
    #[field("/event_id")]
    event_id: &'a str,
    #[field("/user_id")]
    user_id: &'a str,
    #[field("/session_id")]
    session_id: &'a str,
    #[field("/event_type")]
    event_type: &'a str,
    #[field("/channel")]
    channel: &'a str,
    #[field("/premium_amount")]
    premium_amount: Option<&'a str>,
    #[field("/event_time", rfc3339)]
    _event_time: Timestamp,
}

/// What becomes a number.
#[derive(Write, Debug, PartialEq)]
pub struct Typed {
    #[field("/user_id")]
    user_id: i64,
    #[field("/premium_amount")]
    premium_amount: Set<i64>,
}

/// The first thing that is wrong is the one that is told.
#[plugin]
pub fn insurance_events(config: &Config, event: Event<'_>) -> Result<Typed, Reject> {
    for (code, id) in [("bad_event_id", event.event_id), ("bad_session_id", event.session_id)] {
        if !is_uuid(id) {
            return Err(Reject::new(code, format!("{id:?} is no UUID")));
        }
    }
    let user_id = integer(event.user_id).filter(|id| (1..=USER_ID_MAX).contains(id));
    let user_id = user_id.ok_or_else(|| {
        Reject::new("bad_user_id", format!("user_id is {:?}, not a number from 1 to {USER_ID_MAX}", event.user_id))
    })?;
    if !config.event_types.iter().any(|known| known == event.event_type) {
        return Err(Reject::new("unknown_event_type", format!("event_type is {:?}", event.event_type)));
    }
    if event.channel.is_empty() {
        return Err(Reject::new("no_channel", "channel is empty"));
    }
    let premium_amount = match event.premium_amount.unwrap_or_default() {
        "" if event.event_type == "purchase" => {
            return Err(Reject::new("no_premium", "a purchase without a premium_amount"));
        }
        "" => Set::Remove,
        text => match integer(text).filter(|amount| (0..=PREMIUM_MAX).contains(amount)) {
            Some(amount) => Set::To(amount),
            None => {
                let detail = format!("premium_amount is {text:?}, not a whole number from 0 to {PREMIUM_MAX}");
                return Err(Reject::new("bad_premium", detail));
            }
        },
    };
    Ok(Typed { user_id, premium_amount })
}

/// A whole number, also as `120.00`, which is how a spreadsheet exports a column that has empty cells.
fn integer(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_whole = !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0');
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if is_whole && is_number { whole.parse().ok() } else { None }
}

/// 36 characters, hexadecimal digits but for the four hyphens.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "018cc252-21b2-71a9-bc46-1fb1db26076a";

    fn event() -> Event<'static> {
        Event {
            event_id: ID,
            user_id: "477",
            session_id: ID,
            event_type: "purchase",
            channel: "direct",
            premium_amount: Some("1200"),
            _event_time: Timestamp::from_secs(1_704_067_200),
        }
    }

    fn check(event: Event<'_>) -> Result<Typed, &'static str> {
        let config = Config { event_types: vec!["search".into(), "purchase".into()] };
        insurance_events(&config, event).map_err(|why| why.code)
    }

    #[test]
    fn a_purchase_gets_its_numbers() {
        assert_eq!(check(event()), Ok(Typed { user_id: 477, premium_amount: Set::To(1_200) }));
        let exported = Event { premium_amount: Some("1200.00"), ..event() };
        assert_eq!(check(exported), Ok(Typed { user_id: 477, premium_amount: Set::To(1_200) }));
    }

    #[test]
    fn an_empty_premium_is_none_but_a_purchase_has_one() {
        for premium_amount in [None, Some("")] {
            let search = Event { event_type: "search", premium_amount, ..event() };
            assert_eq!(check(search), Ok(Typed { user_id: 477, premium_amount: Set::Remove }));
            assert_eq!(check(Event { premium_amount, ..event() }), Err("no_premium"));
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        for id in ["", "018cc252", "018cc252-21b2-71a9-bc46-1fb1db26076g", "018cc252021b2-71a9-bc46-1fb1db26076a"] {
            assert_eq!(check(Event { event_id: id, ..event() }), Err("bad_event_id"), "{id}");
            assert_eq!(check(Event { session_id: id, ..event() }), Err("bad_session_id"), "{id}");
        }
        for user_id in ["", "-1", "0", "65536", "user-12", "+5", "1.5", "1.", " 1", "99999999999999999999"] {
            assert_eq!(check(Event { user_id, ..event() }), Err("bad_user_id"), "{user_id}");
        }
        for premium in ["-1200", "1.50", "4294967296", "a", "-", "."] {
            assert_eq!(check(Event { premium_amount: Some(premium), ..event() }), Err("bad_premium"), "{premium}");
        }
        assert_eq!(check(Event { event_type: "qoute_view", ..event() }), Err("unknown_event_type"));
        assert_eq!(check(Event { channel: "", ..event() }), Err("no_channel"));
    }
}
