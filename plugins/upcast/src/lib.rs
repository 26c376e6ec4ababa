//! Brings click events of every age to the newest version of their schema, so that nothing behind it knows the others.
//!
//! | version | what came with it |
//! | --- | --- |
//! | 1 | no `schema_version`, no `device_type` |
//! | 2 | `device_type`; null where nobody knows it |
//!
//! An event without a `schema_version` is of version 1, even if it has a `device_type`: producers learned the one before
//! the other. An event of version 2 or above passes as it is.

use millstream_sdk::prelude::*;

const NEWEST: i64 = 2;

/// What tells an event's age.
#[derive(Read)]
pub struct Event<'a> {
    #[field("/schema_version")]
    schema_version: Option<i64>,
    #[field("/device_type")]
    device_type: Maybe<&'a str>,
}

/// What the newest version has.
#[derive(Write, Debug, PartialEq)]
pub struct Newest {
    #[field("/schema_version")]
    schema_version: Set<i64>,
    #[field("/device_type")]
    device_type: Set<&'static str>,
}

/// Writes what is missing, and nothing else: an event of the newest version stays byte for byte what it was.
#[plugin]
pub fn upcast(event: Event<'_>) -> Newest {
    if event.schema_version.is_some_and(|version| version >= NEWEST) {
        return Newest { schema_version: Set::Keep, device_type: Set::Keep };
    }
    let device_type = if event.device_type == Maybe::Missing { Set::Null } else { Set::Keep };
    Newest { schema_version: Set::To(NEWEST), device_type }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_from_before_device_types_gets_a_null_one() {
        for schema_version in [None, Some(1)] {
            let newest = upcast(Event { schema_version, device_type: Maybe::Missing });
            assert_eq!(newest, Newest { schema_version: Set::To(2), device_type: Set::Null });
        }
    }

    #[test]
    fn a_device_type_that_is_there_is_kept() {
        for device_type in [Maybe::Value("tablet"), Maybe::Null] {
            let newest = upcast(Event { schema_version: None, device_type });
            assert_eq!(newest, Newest { schema_version: Set::To(2), device_type: Set::Keep });
        }
    }

    #[test]
    fn an_event_of_the_newest_version_or_a_later_one_is_not_touched() {
        for version in [2, 3] {
            let newest = upcast(Event { schema_version: Some(version), device_type: Maybe::Missing });
            assert_eq!(newest, Newest { schema_version: Set::Keep, device_type: Set::Keep });
        }
    }
}
