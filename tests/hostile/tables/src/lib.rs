//! Adds what tables say: the city and age of the record's user, and the sum of its items' prices.

#![allow(missing_docs)]

use millstream_sdk::json::{self, Value};
use millstream_sdk::prelude::*;

#[derive(Read)]
pub struct Order<'a> {
    #[joined("users", on = "/user", column = "/city")]
    city: &'a str,
    #[field("/items")]
    items: Option<Json<&'a str>>,
    #[joined("users", on = "/user", column = "/age")]
    age: Option<i64>,
    #[lookup("products", "/price")]
    prices: Lookup<'a>,
    #[joined("users", on = "/friend", column = "/city")]
    friends_city: Maybe<&'a str>,
}

#[derive(Write, Debug, PartialEq)]
pub struct Added<'a> {
    #[field("/city")]
    city: &'a str,
    #[field("/age")]
    age: Option<i64>,
    #[field("/total")]
    total: i64,
    #[field("/unpriced")]
    unpriced: i64,
    #[field("/friend_is")]
    friend_is: Text<String>,
}

#[plugin]
pub fn tables<'a>(order: Order<'a>) -> Added<'a> {
    let items = match order.items.map(|items| json::parse(items.0)) {
        Some(Ok(Value::Array(items))) => items,
        _ => Vec::new(),
    };
    let keys: Vec<&str> =
        items.iter().filter_map(|item| if let Value::String(key) = item { Some(&**key) } else { None }).collect();
    let prices = order.prices.all(&keys);
    let price = |price: &Json<String>| price.0.parse::<i64>().ok();
    Added {
        city: order.city,
        age: order.age,
        total: prices.iter().flatten().filter_map(price).sum(),
        unpriced: prices.iter().filter(|price| price.is_none()).count() as i64,
        friend_is: Text(match order.friends_city {
            Maybe::Value(city) => format!("in {city}"),
            Maybe::Null => "somewhere".to_owned(),
            Maybe::Missing => "nobody".to_owned(),
        }),
    }
}
