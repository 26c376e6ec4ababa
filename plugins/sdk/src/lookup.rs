//! Looking up columns of the pipeline's tables.

use crate::Json;
#[cfg(target_family = "wasm")]
use crate::bindings::millstream::plugin::types::Packed;
use crate::json::{self, Value};

/// A column of a table, to be asked for keys that the plugin finds itself. What stands in a field of the record is joined
/// more cheaply by `#[joined(…)]`.
///
/// ```
/// use millstream_sdk::prelude::*;
///
/// #[derive(Read)]
/// struct Basket<'a> {
///     #[field("/items")]
///     items: Json<&'a str>,
///     #[lookup("products", "/price")]
///     prices: Lookup<'a>,
/// }
///
/// # fn total(basket: Basket<'_>) -> f64 {
/// let items = ["apple", "pear"]; // from basket.items
/// basket.prices.all(&items).iter().flatten().filter_map(|price| price.0.parse::<f64>().ok()).sum()
/// # }
/// # assert_eq!(total(Basket { items: Json("[]"), prices: Lookup::of(&[("pear", "1.5"), ("apple", "2")]) }), 3.5);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a>(Rows<'a>);

#[derive(Clone, Copy, Debug)]
enum Rows<'a> {
    #[cfg_attr(not(target_family = "wasm"), allow(dead_code))]
    Host(u32),
    Test(&'a [(&'a str, &'a str)]),
}

impl<'a> Lookup<'a> {
    /// The descriptor's lookup of that number.
    pub fn host(number: u32) -> Self {
        Self(Rows::Host(number))
    }

    /// A column for a test: keys, and values as JSON text.
    pub fn of(rows: &'a [(&'a str, &'a str)]) -> Self {
        Self(Rows::Test(rows))
    }

    /// The value in the row of that key, as JSON text; none where there is no such row, or no value in it.
    pub fn get(&self, key: &str) -> Option<Json<String>> {
        self.all(&[key]).pop().flatten()
    }

    /// The text in the row of that key; none for any other value too.
    pub fn text(&self, key: &str) -> Option<String> {
        match json::parse(&self.get(key)?.0) {
            Ok(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The value for each key, which costs one call of the host for all of them.
    pub fn all(&self, keys: &[&str]) -> Vec<Option<Json<String>>> {
        match self.0 {
            Rows::Host(number) => ask(number, keys),
            Rows::Test(rows) => {
                let value = |key: &&str| rows.iter().rev().find(|row| row.0 == *key).map(|row| Json(row.1.to_owned()));
                keys.iter().map(value).collect()
            }
        }
    }
}

#[cfg(target_family = "wasm")]
fn ask(number: u32, keys: &[&str]) -> Vec<Option<Json<String>>> {
    let mut packed = Packed { ends: Vec::with_capacity(keys.len()), data: Vec::new() };
    for key in keys {
        packed.data.extend_from_slice(key.as_bytes());
        packed.ends.push(packed.data.len() as u32);
    }
    let found = crate::bindings::millstream::plugin::tables::lookup(number, &packed);
    let value = |row: usize| {
        let valid = found.valid.is_empty() || crate::read::bit(&found.valid, row);
        let bytes = &found.bytes.data[crate::read::range(&found.bytes.ends, row)];
        valid.then(|| Json(String::from_utf8_lossy(bytes).into_owned()))
    };
    (0..keys.len()).map(value).collect()
}

#[cfg(not(target_family = "wasm"))]
fn ask(_: u32, _: &[&str]) -> Vec<Option<Json<String>>> {
    panic!("there is no host here; a test gives a plugin `Lookup::of(…)`")
}
