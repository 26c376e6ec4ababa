//! Turns an insurance site's users, as text from CSV, into typed ones, and rejects those that are none.

use millstream_sdk::prelude::*;

/// The largest id that tables hold.
const USER_ID_MAX: i64 = u16::MAX as i64;
const AGE_MAX: i64 = 130;

/// What a user has; a row without one of these is rejected before it gets here, as is one whose time is none.
#[derive(Read)]
pub struct User<'a> {
    #[field("/user_id")]
    user_id: &'a str,
    #[field("/age")]
    age: &'a str,
    #[field("/gender")]
    gender: &'a str,
    #[field("/city")]
    city: &'a str,
    #[field("/device_type")]
    device_type: &'a str,
    #[field("/registered_at", rfc3339)]
    _registered_at: Timestamp,
}

/// What becomes a number.
#[derive(Write, Debug, PartialEq)]
pub struct Typed {
    #[field("/user_id")]
    user_id: i64,
    #[field("/age")]
    age: i64,
}

/// The first thing that is wrong is the one that is told.
#[plugin]
pub fn insurance_users(user: User<'_>) -> Result<Typed, Reject> {
    let typed = Typed {
        user_id: number("bad_user_id", "user_id", user.user_id, 1, USER_ID_MAX)?,
        age: number("bad_age", "age", user.age, 0, AGE_MAX)?,
    };
    for (code, text) in [("no_gender", user.gender), ("no_city", user.city), ("no_device_type", user.device_type)] {
        if text.is_empty() {
            return Err(Reject::new(code, format!("{} is empty", &code[3..])));
        }
    }
    Ok(typed)
}

fn number(code: &'static str, field: &str, text: &str, least: i64, most: i64) -> Result<i64, Reject> {
    let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok()).flatten().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| Reject::new(code, format!("{field} is {text:?}, not a number from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User<'static> {
        User {
            user_id: "1",
            age: "69",
            gender: "female",
            city: "Vienna",
            device_type: "mobile",
            _registered_at: Timestamp::from_secs(1_704_067_200),
        }
    }

    fn check(user: User<'_>) -> Result<Typed, &'static str> {
        insurance_users(user).map_err(|why| why.code)
    }

    #[test]
    fn a_user_gets_its_numbers() {
        assert_eq!(check(user()), Ok(Typed { user_id: 1, age: 69 }));
        assert_eq!(check(User { user_id: "65535", age: "0", ..user() }), Ok(Typed { user_id: 65_535, age: 0 }));
    }

    #[test]
    fn what_is_no_user_says_why() {
        for user_id in ["", "0", "-1", "65536", "one", "+1", "99999999999999999999"] {
            assert_eq!(check(User { user_id, ..user() }), Err("bad_user_id"), "{user_id}");
        }
        for age in ["", "unknown", "131", "-1"] {
            assert_eq!(check(User { age, ..user() }), Err("bad_age"), "{age}");
        }
        assert_eq!(check(User { gender: "", ..user() }), Err("no_gender"));
        assert_eq!(check(User { city: "", ..user() }), Err("no_city"));
        assert_eq!(check(User { device_type: "", ..user() }), Err("no_device_type"));
    }
}
