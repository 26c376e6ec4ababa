//! What a request to swap plugins carries.

use hyper::{HeaderMap, StatusCode};
use serde_json::Value;

use super::Sent;
use super::guard::Refusal;
use crate::record::json::base64::decode;

/// The header with the Ed25519 signature of a component, in base64.
const SIGNATURE: &str = "x-millstream-signature";

/// The signature that comes in the header, if one does.
pub(super) fn signature(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(text) = headers.get(SIGNATURE) else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = decode(text.as_bytes(), &mut bytes);
    if read { Ok(Some(bytes)) } else { Err((StatusCode::BAD_REQUEST, "x-millstream-signature must be base64")) }
}

/// Reads `{"components": {STAGE: {"bytes": BASE64, "signature": BASE64}}}`, where the signature may be absent.
pub(super) fn components(body: &[u8]) -> Result<Vec<Sent>, Refusal> {
    let wrong =
        (StatusCode::BAD_REQUEST, "expected {\"components\": {STAGE: {\"bytes\": BASE64, \"signature\": BASE64}}}");
    let value: Value = serde_json::from_slice(body).map_err(|_| wrong)?;
    let components = value["components"].as_object().ok_or(wrong)?;
    let bytes = |value: &Value| {
        let mut bytes = Vec::new();
        decode(value.as_str()?.as_bytes(), &mut bytes).then_some(bytes)
    };
    let component = |(stage, value): (&String, &Value)| {
        let signature = match &value["signature"] {
            Value::Null => None,
            text => Some(bytes(text).ok_or(wrong)?),
        };
        Ok(Sent { stage: stage.clone(), bytes: bytes(&value["bytes"]).ok_or(wrong)?, signature })
    };
    components.iter().map(component).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_read_and_nonsense_is_refused() {
        let sent = components(br#"{"components": {"a": {"bytes": "AAE="}, "b": {"bytes": "", "signature": "AA=="}}}"#);
        let sent = sent.expect("good");
        assert_eq!((sent[0].stage.as_str(), sent[0].bytes.as_slice(), &sent[0].signature), ("a", &[0, 1][..], &None));
        assert_eq!(sent[1].signature, Some(vec![0]));
        for wrong in ["", "[]", "{}", r#"{"components": {"a": 1}}"#, r#"{"components": {"a": {"bytes": "?"}}}"#] {
            components(wrong.as_bytes()).expect_err(wrong);
        }
    }
}
