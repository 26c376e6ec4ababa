//! The JSON Schema of a config file, for editors.
//!
//! It is written by hand, since what helps in an editor (descriptions, patterns, variables in place of numbers) is not
//! what a struct's types say. A test holds its keys to the parser's.

/// The JSON Schema (draft 2020-12) of a config file, as JSON text.
pub const SCHEMA_JSON: &str = include_str!("schema.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::{
        COMMIT_KEYS, LOGS_KEYS, ROOT_KEYS, clickhouse, key, observe, output, pair, quality, source, stage, state, swap,
        table, window,
    };
    use super::*;

    /// Every map of the parser with keys of its own, and where the schema has it.
    const MAPS: &[(&str, &[&str])] = &[
        ("", ROOT_KEYS),
        ("/$defs/source", source::SOURCE_KEYS),
        ("/$defs/kafka_source", source::KAFKA_SOURCE_KEYS),
        ("/$defs/files", source::FILES_KEYS),
        ("/$defs/stdin", source::STDIN_KEYS),
        ("/$defs/generate", source::GENERATE_KEYS),
        ("/$defs/clickstream", source::CLICKSTREAM_KEYS),
        ("/$defs/stage", stage::STAGE_KEYS),
        ("/$defs/limits", stage::LIMITS_KEYS),
        ("/$defs/select", stage::SELECT_KEYS),
        ("/$defs/filter", stage::FILTER_KEYS),
        ("/$defs/route", stage::ROUTE_KEYS),
        ("/$defs/window", window::WINDOW_KEYS),
        ("/$defs/key_part", key::KEY_PART_KEYS),
        ("/$defs/deduplicate", window::DEDUPLICATE_KEYS),
        ("/$defs/pair", pair::PAIR_KEYS),
        ("/$defs/side", pair::SIDE_KEYS),
        ("/$defs/hopping", window::HOPPING_KEYS),
        ("/$defs/late", window::LATE_KEYS),
        ("/$defs/aggregate_plugin", stage::AGGREGATE_PLUGIN_KEYS),
        ("/$defs/join", table::JOIN_KEYS),
        ("/$defs/table", table::TABLE_KEYS),
        ("/$defs/table_file", table::TABLE_FILE_KEYS),
        ("/$defs/table_topic", table::TABLE_TOPIC_KEYS),
        ("/$defs/sink", output::SINK_KEYS),
        ("/$defs/kafka_sink", output::KAFKA_SINK_KEYS),
        ("/$defs/file_sink", output::FILE_SINK_KEYS),
        ("/$defs/clickhouse", clickhouse::CLICKHOUSE_KEYS),
        ("/$defs/column_rule", clickhouse::COLUMN_KEYS),
        ("/$defs/unknown_fields", clickhouse::UNKNOWN_KEYS),
        ("/$defs/dead_letters", output::DEAD_LETTERS_KEYS),
        ("/$defs/commit", COMMIT_KEYS),
        ("/$defs/logs", LOGS_KEYS),
        ("/$defs/state", state::STATE_KEYS),
        ("/$defs/swap", swap::SWAP_KEYS),
        ("/$defs/trust", swap::TRUST_KEYS),
        ("/$defs/breaker", swap::BREAKER_KEYS),
        ("/$defs/observe", observe::OBSERVE_KEYS),
        ("/$defs/admin", observe::ADMIN_KEYS),
        ("/$defs/tokens", observe::TOKENS_KEYS),
        ("/$defs/tls", observe::TLS_KEYS),
        ("/$defs/quality", quality::QUALITY_KEYS),
        ("/$defs/event_time", quality::EVENT_TIME_KEYS),
    ];

    #[test]
    fn schema_and_parser_know_the_same_keys() {
        let schema: Value = serde_json::from_str(SCHEMA_JSON).expect("the schema is JSON");
        for (place, keys) in MAPS {
            let map = schema.pointer(place).unwrap_or_else(|| panic!("{place} is missing"));
            let properties = map["properties"].as_object().unwrap_or_else(|| panic!("{place} has no properties"));
            let found: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            assert_eq!(found, keys.iter().copied().collect(), "{place}");
            assert_eq!(map["additionalProperties"], Value::Bool(false), "{place}");
        }
        // Nothing in the schema is unknown to this test.
        let closed = |def: &&Value| def["additionalProperties"] == Value::Bool(false);
        let count = schema["$defs"].as_object().map_or(0, |defs| defs.values().filter(closed).count());
        assert_eq!(count + 1, MAPS.len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let schema: Value = serde_json::from_str(SCHEMA_JSON).expect("the schema is JSON");
        let mut pending = vec![&schema];
        while let Some(value) = pending.pop() {
            match value {
                Value::Object(members) => pending.extend(members.values()),
                Value::Array(items) => pending.extend(items),
                Value::String(text) if text.starts_with("#/") => {
                    assert!(schema.pointer(&text[1..]).is_some(), "{text}");
                }
                _ => {}
            }
        }
    }
}
