//! What a JSON record says, as a number: the same whatever the order of its fields and the blanks between them.

use serde_json::Value;

/// The digest of a record; of its bytes where it is no JSON.
pub fn digest(record: &[u8]) -> u64 {
    match serde_json::from_slice::<Value>(record) {
        Ok(value) => of_value(&value),
        Err(_) => of_bytes(record, 1),
    }
}

fn of_value(value: &Value) -> u64 {
    match value {
        Value::Object(fields) => fields
            .iter()
            .fold(2, |sum: u64, (name, value)| sum.wrapping_add(of_bytes(name.as_bytes(), of_value(value)))),
        Value::Array(items) => items.iter().fold(3, |sum, item| mix(sum ^ of_value(item))),
        Value::String(text) => of_bytes(text.as_bytes(), 4),
        other => of_bytes(other.to_string().as_bytes(), 5),
    }
}

fn of_bytes(bytes: &[u8], seed: u64) -> u64 {
    bytes.chunks(8).fold(mix(seed ^ bytes.len() as u64), |sum, chunk| {
        let word = chunk.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        mix(sum ^ word)
    })
}

fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^ word >> 29
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_blanks_do_not_matter_and_everything_else_does() {
        let record = digest(br#"{"a": 1, "b": "x"}"#);
        assert_eq!(record, digest(br#"{"b":"x","a":1}"#));
        for other in [r#"{"b":"y","a":1}"#, r#"{"a":"x","b":1}"#, r#"{"a":1}"#, "{"] {
            assert_ne!(record, digest(other.as_bytes()), "{other}");
        }
    }
}
