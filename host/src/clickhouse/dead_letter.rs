//! A dead letter as a JSON record, so that it can become a row as any other record does.

/// What a dead letter's headers say of it, and under which field that goes into the record.
const FIELDS: &[(&[u8], &str, Form)] = &[
    (b"__connect.errors.exception.message", "reason", Form::Text),
    (b"millstream.dlq.code", "code", Form::Text),
    (b"millstream.dlq.stage", "stage", Form::Text),
    (b"millstream.dlq.pipeline", "pipeline", Form::Text),
    (b"millstream.dlq.plugin", "plugin", Form::Text),
    (b"millstream.dlq.attempt", "attempt", Form::Number),
    (b"millstream.dlq.cut.bytes", "cut_bytes", Form::Number),
    (b"__connect.errors.topic", "topic", Form::Text),
    (b"__connect.errors.partition", "partition", Form::Number),
    (b"__connect.errors.offset", "offset", Form::Number),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Number,
}

/// The record of a dead letter: `value` and `key` as they came, `timestamp` (milliseconds since 1970 UTC), and from the
/// headers `reason`, `code`, `stage`, `pipeline`, `plugin`, `attempt`, `cut_bytes`, and the coordinates `topic`, `partition`
/// and `offset` of the record that was rejected. What is not there is left out. Bytes that are no UTF-8 are shown with
/// U+FFFD in their place, and stand as they are in `value_base64` and `key_base64`.
pub fn dead_letter_json<'a>(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    timestamp_ms: i64,
) -> Vec<u8> {
    let mut record = Record { out: vec![b'{'] };
    record.bytes("value", "value_base64", value);
    record.bytes("key", "key_base64", key);
    if timestamp_ms >= 0 {
        record.member("timestamp", &serde_json::Value::from(timestamp_ms));
    }
    // A record that died twice has each header twice: the last one counts.
    let mut found: [Option<&[u8]>; FIELDS.len()] = [None; FIELDS.len()];
    for (name, value) in headers {
        if let Some(at) = FIELDS.iter().position(|field| field.0 == name) {
            found[at] = value;
        }
    }
    for ((_, name, form), value) in FIELDS.iter().zip(found) {
        let Some(text) = value.map(String::from_utf8_lossy) else { continue };
        match (form, text.parse::<i64>()) {
            (Form::Number, Ok(number)) => record.member(name, &serde_json::Value::from(number)),
            (Form::Number, Err(_)) => {}
            (Form::Text, _) => record.member(name, &serde_json::Value::from(text)),
        }
    }
    record.out.push(b'}');
    record.out
}

struct Record {
    out: Vec<u8>,
}

impl Record {
    fn bytes(&mut self, name: &str, base64: &str, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else { return };
        self.member(name, &serde_json::Value::from(String::from_utf8_lossy(bytes)));
        if std::str::from_utf8(bytes).is_err() {
            let mut text = Vec::new();
            crate::record::json::base64::encode(bytes, &mut text);
            self.member(base64, &serde_json::Value::from(String::from_utf8_lossy(&text)));
        }
    }

    fn member(&mut self, name: &str, value: &serde_json::Value) {
        if self.out.len() > 1 {
            self.out.push(b',');
        }
        // None of the names needs an escape.
        self.out.extend_from_slice(format!("\"{name}\":{value}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_is_a_record_of_what_its_headers_say() {
        let headers: Vec<(&[u8], Option<&[u8]>)> = vec![
            (b"trace", Some(b"x")),
            (b"__connect.errors.topic", Some(b"old")),
            (b"__connect.errors.topic", Some(b"events")),
            (b"__connect.errors.partition", Some(b"2")),
            (b"__connect.errors.offset", Some(b"77")),
            (b"__connect.errors.exception.message", Some(b"no \"country\"")),
            (b"millstream.dlq.stage", Some(b"validate")),
            (b"millstream.dlq.code", Some(b"bad_country")),
            (b"millstream.dlq.attempt", Some(b"one")),
        ];
        let json = dead_letter_json(None, Some(b"{\"a\":1}"), headers, 5);
        let expected = r#"{"value":"{\"a\":1}","timestamp":5,"reason":"no \"country\"","code":"bad_country","stage":"validate","topic":"events","partition":2,"offset":77}"#;
        assert_eq!(String::from_utf8_lossy(&json), expected);
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_in_base64() {
        let json = dead_letter_json(Some(b"k"), Some(b"a\xff"), [], -1);
        let expected = "{\"value\":\"a\u{fffd}\",\"value_base64\":\"Yf8=\",\"key\":\"k\"}";
        assert_eq!(String::from_utf8_lossy(&json), expected);
        assert_eq!(dead_letter_json(None, None, [], -1), b"{}");
    }
}
