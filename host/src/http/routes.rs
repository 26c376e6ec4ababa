//! Every path of the two listeners. A new one is a row here and an arm in `answer`.

use std::time::Duration;

use hyper::{Method, StatusCode};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Metrics,
    Live,
    Ready,
    Status,
    Pause,
    Resume,
    LogLevel,
    /// One component, as it is.
    SwapStage,
    /// Several as one.
    SwapAll,
    RollBack,
    Swaps,
    /// What is held for a key.
    State,
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Read,
    /// Of what records hold.
    Tap,
    Admin,
}

/// What a write may send. The content types are those that no form of a web page can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) content_type: &'static str,
    pub(super) bytes_max: usize,
    pub(super) timeout: Duration,
}

/// A path with what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) route: Route,
    pub(super) scope: Scope,
    /// None for reads, whose bodies are not looked at.
    pub(super) body: Option<Body>,
}

/// A command: a small JSON object, or nothing.
const JSON: Option<Body> =
    Some(Body { content_type: "application/json", bytes_max: 64 << 10, timeout: Duration::from_secs(10) });

/// A component: 64 MiB at most, from who may have a slow line.
const WASM: Option<Body> =
    Some(Body { content_type: "application/wasm", bytes_max: 64 << 20, timeout: Duration::from_secs(60) });
/// Several in base64.
const COMPONENTS: Option<Body> =
    Some(Body { content_type: "application/json", bytes_max: 96 << 20, timeout: Duration::from_secs(60) });

const fn rule(method: Method, path: &'static str, route: Route, scope: Scope, body: Option<Body>) -> Rule {
    Rule { method, path, route, scope, body }
}

/// What everybody may see who reaches the port.
pub(super) static OBSERVE: &[Rule] = &[
    rule(Method::GET, "/metrics", Route::Metrics, Scope::Read, None),
    rule(Method::GET, "/livez", Route::Live, Scope::Read, None),
    rule(Method::GET, "/readyz", Route::Ready, Scope::Read, None),
];

/// What is asked for by name.
pub(super) static ADMIN: &[Rule] = &[
    rule(Method::GET, "/v1/status", Route::Status, Scope::Read, None),
    rule(Method::POST, "/v1/pause", Route::Pause, Scope::Admin, JSON),
    rule(Method::POST, "/v1/resume", Route::Resume, Scope::Admin, JSON),
    rule(Method::PUT, "/v1/log-level", Route::LogLevel, Scope::Admin, JSON),
    rule(Method::PUT, "/v1/stages/{stage}/plugin", Route::SwapStage, Scope::Admin, WASM),
    rule(Method::PUT, "/v1/plugins", Route::SwapAll, Scope::Admin, COMPONENTS),
    rule(Method::POST, "/v1/rollback", Route::RollBack, Scope::Admin, JSON),
    rule(Method::GET, "/v1/swaps", Route::Swaps, Scope::Read, None),
    rule(Method::GET, "/v1/state/{stage}", Route::State, Scope::Tap, None),
];

/// The rule of a request: 404 for a path that is not there, 405 for another method.
pub(super) fn find(rules: &'static [Rule], method: &Method, path: &str) -> Result<&'static Rule, StatusCode> {
    let mut of_path = rules.iter().filter(|rule| parameter(rule.path, path).is_some()).peekable();
    if of_path.peek().is_none() {
        return Err(StatusCode::NOT_FOUND);
    }
    let asked = if method == Method::HEAD { &Method::GET } else { method };
    of_path.find(|rule| rule.method == *asked).ok_or(StatusCode::METHOD_NOT_ALLOWED)
}

/// What stands in `path` where `pattern` has a name in braces, or nothing where it has none; `None` where they differ.
pub(super) fn parameter<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, rest)) = pattern.split_once('{') else { return (pattern == path).then_some("") };
    let (_, after) = rest.split_once('}')?;
    let found = path.strip_prefix(before)?.strip_suffix(after)?;
    (!found.is_empty() && !found.contains('/')).then_some(found)
}

/// The value of a query's parameter, with its escapes resolved: `%` and two digits, and nothing else. Empty where it is not
/// there; `None` where it is no text.
pub(super) fn query(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, value)) = pairs.into_iter().find(|(key, _)| *key == name) else { return Some(String::new()) };
    let (mut bytes, mut rest) = (Vec::new(), value.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok().filter(|digits| !digits.starts_with('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A text as a part of a query.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_are_told_apart() {
        let route = |method, path| find(ADMIN, &method, path).map(|rule| rule.route);
        assert_eq!(route(Method::GET, "/v1/status"), Ok(Route::Status));
        assert_eq!(route(Method::HEAD, "/v1/status"), Ok(Route::Status));
        assert_eq!(route(Method::POST, "/v1/status"), Err(StatusCode::METHOD_NOT_ALLOWED));
        assert_eq!(route(Method::PUT, "/v1/stages/validate/plugin"), Ok(Route::SwapStage));
        assert_eq!(parameter("/v1/stages/{stage}/plugin", "/v1/stages/validate/plugin"), Some("validate"));
        for wrong in ["/v1/stages//plugin", "/v1/stages/a/b/plugin", "/v1/stages/plugin"] {
            assert_eq!(route(Method::PUT, wrong), Err(StatusCode::NOT_FOUND), "{wrong}");
        }
        assert_eq!(route(Method::GET, "/metrics"), Err(StatusCode::NOT_FOUND), "each listener has its own paths");
    }

    #[test]
    fn what_is_escaped_is_read_back_and_nonsense_is_none() {
        for text in ["", "DE", "[\"a b\",7]", "100%", "a+b&key=c", "Größe\0"] {
            assert_eq!(query(Some(&format!("a=1&key={}", escaped(text))), "key").as_deref(), Some(text));
        }
        assert_eq!(query(None, "key").as_deref(), Some(""));
        for wrong in ["key=%", "key=%4", "key=%+4", "key=%zz", "key=%ff"] {
            assert_eq!(query(Some(wrong), "key"), None, "{wrong}");
        }
    }

    #[test]
    fn every_write_has_a_bounded_body_of_a_type_that_no_form_sends_and_needs_the_admin() {
        for rule in OBSERVE.iter().chain(ADMIN) {
            let write = rule.method != Method::GET;
            assert_eq!(rule.body.is_some(), write, "{rule:?}");
            assert!(!write || rule.scope == Scope::Admin, "{rule:?}");
            let typed = |body: Body| ["application/json", "application/wasm"].contains(&body.content_type);
            assert!(rule.body.is_none_or(typed), "{rule:?}");
        }
        assert!(OBSERVE.iter().all(|rule| rule.method == Method::GET), "observe changes nothing");
    }
}
