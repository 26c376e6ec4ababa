//! A stage's configuration, from its JSON text.

use std::collections::{BTreeMap, BTreeSet};

use crate::json::{self, Value};

/// A configuration; `#[derive(Config)]` on a struct makes it. A name that the struct doesn't have is an error.
///
/// `#[config(default)]` and `#[config(default = expression)]` say what a missing one is; that of an `Option` is `None`.
pub trait FromConfig: Sized + Send + Sync + 'static {
    /// From JSON text; an error is shown to the person who wrote it. No text at all stands for `{}`.
    fn from_config(text: &str) -> Result<Self, String>;
}

/// A value in a configuration; `#[derive(Config)]` makes it of a struct.
#[diagnostic::on_unimplemented(
    message = "a configuration can't hold a `{Self}`",
    note = "use bool, i64, u64, f64, String, Option, Vec, BTreeMap or BTreeSet of those, or a struct that derives Config"
)]
pub trait ConfigValue: Sized {
    /// From JSON; an error says what was expected.
    fn from_json(value: &Value) -> Result<Self, String>;

    /// What a missing one is, if it may be missing.
    fn missing() -> Option<Self> {
        None
    }
}

impl<T: ConfigValue + Send + Sync + 'static> FromConfig for T {
    fn from_config(text: &str) -> Result<Self, String> {
        let value = if text.trim().is_empty() { Value::Object(Vec::new()) } else { json::parse(text)? };
        T::from_json(&value)
    }
}

/// The members of an object, none of which has another name than those.
#[doc(hidden)]
pub fn object<'v>(value: &'v Value, names: &[&str]) -> Result<&'v [(String, Value)], String> {
    let Value::Object(members) = value else { return Err(expected("an object", value)) };
    match members.iter().find(|(name, _)| !names.contains(&name.as_str())) {
        Some((name, _)) if names.is_empty() => Err(format!("{name}: this plugin takes no configuration")),
        Some((name, _)) => Err(format!("{name}: there is no such setting, only {}", names.join(", "))),
        None => Ok(members),
    }
}

/// A member of an object; where it is missing, the default if there is one.
#[doc(hidden)]
pub fn default_or_missing<T: ConfigValue>(
    members: &[(String, Value)],
    name: &str,
    default: Option<fn() -> T>,
) -> Result<T, String> {
    // The last of two counts, as it does in records.
    match members.iter().rev().find(|(candidate, _)| candidate == name) {
        Some((_, value)) => T::from_json(value).map_err(|problem| within(name, &problem)),
        None => default.map(|make| make()).or_else(T::missing).ok_or_else(|| format!("{name}: is missing")),
    }
}

fn within(name: &str, problem: &str) -> String {
    match problem.split_once(": ") {
        // The problem lies deeper: its path goes on from here.
        Some((path, rest)) if !path.contains(' ') => format!("{name}/{path}: {rest}"),
        _ => format!("{name}: {problem}"),
    }
}

fn expected(what: &str, found: &Value) -> String {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("expected {what}, not {found}")
}

impl ConfigValue for () {
    fn from_json(value: &Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(()),
            _ => object(value, &[]).map(|_| ()),
        }
    }
}

impl ConfigValue for bool {
    fn from_json(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(value) => Ok(*value),
            _ => Err(expected("a boolean", value)),
        }
    }
}

impl ConfigValue for String {
    fn from_json(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(text.clone()),
            _ => Err(expected("a string", value)),
        }
    }
}

/// A number of a type that parses itself.
macro_rules! number {
    ($($type:ty, $what:literal;)*) => {$(
        impl ConfigValue for $type {
            fn from_json(value: &Value) -> Result<Self, String> {
                match value {
                    Value::Number(text) => text.parse().map_err(|_| format!("expected {}, not {text}", $what)),
                    _ => Err(expected($what, value)),
                }
            }
        }
    )*};
}
number! {
    i64, "an integer of 64 bits";
    u64, "an integer of 64 bits that is not negative";
    u32, "an integer of 32 bits that is not negative";
    f64, "a number";
}

impl<T: ConfigValue> ConfigValue for Option<T> {
    fn from_json(value: &Value) -> Result<Self, String> {
        match value {
            Value::Null => Ok(None),
            _ => T::from_json(value).map(Some),
        }
    }

    fn missing() -> Option<Self> {
        Some(None)
    }
}

impl<T: ConfigValue> ConfigValue for Vec<T> {
    fn from_json(value: &Value) -> Result<Self, String> {
        let Value::Array(values) = value else { return Err(expected("a list", value)) };
        let item = |(index, value)| T::from_json(value).map_err(|problem| within(&format!("{index}"), &problem));
        values.iter().enumerate().map(item).collect()
    }
}

impl<T: ConfigValue + Ord> ConfigValue for BTreeSet<T> {
    fn from_json(value: &Value) -> Result<Self, String> {
        Vec::from_json(value).map(|values: Vec<T>| values.into_iter().collect())
    }
}

impl<T: ConfigValue> ConfigValue for BTreeMap<String, T> {
    fn from_json(value: &Value) -> Result<Self, String> {
        let Value::Object(members) = value else { return Err(expected("an object", value)) };
        let item = |(name, value): &(String, Value)| {
            let value = T::from_json(value).map_err(|problem| within(name, &problem))?;
            Ok((name.clone(), value))
        };
        members.iter().map(item).collect()
    }
}
