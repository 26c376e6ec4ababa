//! Rejects click events that the rules do not allow.

use millstream_sdk::prelude::*;

/// Which countries are not served.
#[derive(Config)]
pub struct Config {
    blocked_countries: Vec<String>,
}

/// What the rules look at.
#[derive(Read)]
pub struct Event<'a> {
    #[field("/user_id")]
    user_id: i64,
    #[field("/country")]
    country: &'a str,
}

/// A user id below 0 marks a bot; a blocked country is one that the configuration names.
#[plugin]
pub fn validate(config: &Config, event: Event<'_>) -> Result<(), Reject> {
    if event.user_id < 0 {
        return Err(Reject::new("negative_user_id", format!("user_id is {}", event.user_id)));
    }
    if config.blocked_countries.iter().any(|blocked| blocked == event.country) {
        return Err(Reject::new("blocked_country", format!("country is {}", event.country)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(user_id: i64, country: &str) -> Option<&'static str> {
        let config = Config { blocked_countries: vec!["XX".into(), "ZZ".into()] };
        validate(&config, Event { user_id, country }).err().map(|why| why.code)
    }

    #[test]
    fn ordinary_events_pass() {
        assert_eq!(code(0, "US"), None);
        assert_eq!(code(1000, "JP"), None);
    }

    #[test]
    fn a_negative_user_id_is_rejected_before_the_country_is_looked_at() {
        assert_eq!(code(-1, "US"), Some("negative_user_id"));
        assert_eq!(code(i64::MIN, "ZZ"), Some("negative_user_id"));
    }

    #[test]
    fn blocked_countries_are_rejected_by_their_exact_name() {
        assert_eq!(code(1, "XX"), Some("blocked_country"));
        assert_eq!(code(1, "ZZ"), Some("blocked_country"));
        assert_eq!(code(1, "zz"), None);
        assert_eq!(code(1, ""), None);
    }
}
