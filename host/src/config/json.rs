//! A plugin's `config` as JSON: what YAML 1.2's core schema makes of the values.

use super::error::ConfigError;
use super::node::{Content, Scalar};
use super::walk::At;

/// The JSON text of the value at `at`; numbers keep their digits where JSON can write them so.
pub(super) fn to_json(at: &At<'_>) -> Result<String, ConfigError> {
    let mut out = String::new();
    write(at, &mut out)?;
    Ok(out)
}

fn write(at: &At<'_>, out: &mut String) -> Result<(), ConfigError> {
    match &at.node().content {
        Content::Scalar(scalar) => {
            let json = scalar_json(scalar).ok_or_else(|| at.error("JSON has no infinite numbers and no NaN"))?;
            out.push_str(&json);
        }
        Content::List(_) => {
            out.push('[');
            for (i, item) in at.list("a list")?.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                write(item, out)?;
            }
            out.push(']');
        }
        Content::Map(_) => {
            out.push('{');
            for (i, (key, value)) in at.open_map("a map")?.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                out.push_str(&quoted(key));
                out.push(':');
                write(value, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `None` for infinity and NaN, which JSON can't write.
fn scalar_json(scalar: &Scalar) -> Option<String> {
    let text = scalar.text.as_str();
    if scalar.is_null() {
        return Some("null".to_owned());
    }
    if !scalar.plain {
        return Some(quoted(text));
    }
    match text {
        "true" | "True" | "TRUE" => return Some("true".to_owned()),
        "false" | "False" | "FALSE" => return Some("false".to_owned()),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return None;
    }
    number_json(text, unsigned).unwrap_or_else(|| Some(quoted(text)))
}

/// The outer `None` for what is no number, the inner one for a number that is none in JSON.
fn number_json(text: &str, unsigned: &str) -> Option<Option<String>> {
    let radix = |prefix: &str, radix: u32| {
        let digits = text.strip_prefix(prefix)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| char::from(byte).is_digit(radix));
        is_number.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Some(Some(number.to_string()));
    }
    let starts = unsigned.strip_prefix('.').unwrap_or(unsigned).starts_with(|c: char| c.is_ascii_digit());
    let allowed =
        unsigned.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+'));
    if !starts || !allowed {
        return None;
    }
    if serde_json::from_str::<serde_json::Number>(text).is_ok() {
        return Some(Some(text.to_owned()));
    }
    // What is left is a number in YAML only: `+5`, `007`, `.5`, `5.`.
    if let Ok(number) = text.parse::<i64>() {
        return Some(Some(number.to_string()));
    }
    let number: f64 = text.parse().ok()?;
    Some(serde_json::Number::from_f64(number).map(|number| number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::{expand, node};
    use super::*;

    fn json(yaml: &str) -> Result<String, String> {
        let mut node = node::parse("f", yaml).map_err(|error| error.to_string())?;
        let variables = |name: &str| (name == "MAX").then(|| "5".to_owned());
        expand::expand("f", &mut node, "", &variables).map_err(|error| error.to_string())?;
        to_json(&At::root("f", &node)).map_err(|error| error.to_string())
    }

    #[test]
    fn values_mean_what_yaml_1_2_says() {
        let cases = [
            ("[XX, NO, yes, on]", r#"["XX","NO","yes","on"]"#),
            ("[true, FALSE, 'true', null, ~, '']", r#"[true,false,"true",null,null,""]"#),
            ("[1, -2, 1.50, 1e3, '1']", r#"[1,-2,1.50,1e3,"1"]"#),
            ("[+5, 007, 0x1F, 0o17, .5, 5.]", r#"[5,7,31,15,0.5,5.0]"#),
            (
                "[12345678901234567890123, 1.2.3, 1-2, 2024-01-01, e5, '-']",
                r#"[12345678901234567890123,"1.2.3","1-2","2024-01-01","e5","-"]"#,
            ),
            ("{a: {b: [1, {c: \"q\\\"\\n\"}]}, d: }", r#"{"a":{"b":[1,{"c":"q\"\n"}]},"d":null}"#),
            ("- ${MAX}\n- '${MAX}'\n- '${NONE:-}'\n- ${NONE:-}\n", r#"[5,"5","",""]"#),
            ("|\n  a\n  b\n", r#""a\nb\n""#),
        ];
        for (yaml, expected) in cases {
            assert_eq!(json(yaml).as_deref(), Ok(expected), "{yaml}");
        }
    }

    #[test]
    fn what_json_lacks_is_refused_in_its_place() {
        assert_eq!(json("a: [1, .inf]"), Err("f:1:8: a[1]: JSON has no infinite numbers and no NaN".to_owned()));
        assert!(json("a: 1e999").is_err() || json("a: 1e999") == Ok(r#"{"a":1e999}"#.to_owned()));
    }
}
