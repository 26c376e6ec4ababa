//! Who is asking: a browser that was led here by another site is turned away, and so is who has no token.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{StatusCode, Uri};
use sha2::{Digest, Sha256};

use super::routes::Scope;
use crate::config::{AdminConfig, Secret};

/// Set by browsers: how the page that asks is related to what it asks for.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is turned away.
pub(super) type Refusal = (StatusCode, &'static str);

/// What is compared of a token, so that the time it takes tells nothing of it.
type Fingerprint = [u8; 32];

/// What the `admin` listener asks of a request.
pub(super) struct Guard {
    hosts: Vec<String>,
    scheme: &'static str,
    read: Option<Fingerprint>,
    tap: Option<Fingerprint>,
    admin: Option<Fingerprint>,
}

impl Guard {
    pub(super) fn new(config: &AdminConfig) -> Self {
        let fingerprint = |token: &Option<Secret>| token.as_ref().map(|token| fingerprint(token.expose()));
        Self {
            hosts: config.hosts.clone(),
            scheme: if config.tls.is_some() { "https" } else { "http" },
            read: fingerprint(&config.tokens.read),
            tap: fingerprint(&config.tokens.tap),
            admin: fingerprint(&config.tokens.admin),
        }
    }

    /// Refuses a request that a web page may have been tricked into: one to a name that is not ours (a page can make its
    /// own name lead to this address), or from another origin.
    pub(super) fn check_origin(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = single(headers, &HOST)?.ok_or((StatusCode::BAD_REQUEST, "the Host header is missing"))?;
        if uri.authority().is_some_and(|authority| authority.as_str() != host) {
            return Err((StatusCode::BAD_REQUEST, "the address and the Host header differ"));
        }
        let name = host_name(host).ok_or((StatusCode::BAD_REQUEST, "the Host header is no host"))?;
        if !self.is_ours(&name) {
            return Err((StatusCode::MISDIRECTED_REQUEST, "this host is not served here; add it to `admin.hosts`"));
        }
        let foreign = (StatusCode::FORBIDDEN, "pages of other sites may not ask");
        if single(headers, &ORIGIN)?.is_some_and(|origin| origin != format!("{}://{host}", self.scheme)) {
            return Err(foreign);
        }
        match single(headers, &SEC_FETCH_SITE)? {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) => Err(foreign),
        }
    }

    /// Addresses can't be made to lead elsewhere, unlike names.
    fn is_ours(&self, name: &str) -> bool {
        name == "localhost" || name.parse::<IpAddr>().is_ok() || self.hosts.iter().any(|host| host == name)
    }

    /// Refuses who has not the token that the scope needs. Without any token in the configuration nobody needs one.
    pub(super) fn check_token(&self, scope: Scope, headers: &HeaderMap) -> Result<(), Refusal> {
        let known = [&self.read, &self.tap, &self.admin];
        if known.iter().all(|token| token.is_none()) {
            return Ok(());
        }
        let given = single(headers, &AUTHORIZATION)?.and_then(|value| value.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let given = given.ok_or((StatusCode::UNAUTHORIZED, "a token is needed: `Authorization: Bearer …`"))?;
        let given = fingerprint(given);
        // All are compared, whichever it is.
        let [read, tap, admin] = known.map(|token| token.is_some_and(|token| openssl::memcmp::eq(&token, &given)));
        let allowed = match scope {
            Scope::Read => read || admin,
            Scope::Tap => tap || admin,
            Scope::Admin => admin,
        };
        match (allowed, read || tap || admin) {
            (true, _) => Ok(()),
            (false, true) => Err((StatusCode::FORBIDDEN, "this token is for something else")),
            (false, false) => Err((StatusCode::UNAUTHORIZED, "this token is not known")),
        }
    }
}

/// True where the body is of the type that a route takes.
pub(super) fn has_type(headers: &HeaderMap, expected: &str) -> bool {
    let found = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim();
    headers.get_all(CONTENT_TYPE).iter().count() == 1 && essence.eq_ignore_ascii_case(expected)
}

fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token.as_bytes()).into()
}

/// The only value of a header, if there is one; a second one is somebody's trick.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    match (first.map(|value| value.to_str()), second) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err((StatusCode::BAD_REQUEST, "a header is given twice or is no text")),
    }
}

/// The host of `host`, `host:port`, `1.2.3.4:port` or `[::1]:port`, in lower case.
fn host_name(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']')?;
            name.parse::<std::net::Ipv6Addr>().ok()?;
            (name, rest.strip_prefix(':').or(rest.is_empty().then_some("0"))?)
        }
        None => host.split_once(':').unwrap_or((host, "0")),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let sound = !name.is_empty() && name.bytes().all(plain) && port.parse::<u16>().is_ok();
    sound.then(|| name.trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).expect("a header"));
        }
        headers
    }

    fn guard(tokens: [Option<&str>; 3]) -> Guard {
        let mut config = AdminConfig { hosts: vec!["mill.example".to_owned()], ..AdminConfig::default() };
        let [read, tap, admin] = tokens.map(|token| token.map(Secret::new));
        config.tokens = crate::config::Tokens { read, tap, admin };
        Guard::new(&config)
    }

    #[track_caller]
    fn origin(pairs: &[(HeaderName, &str)], expected: u16) {
        let uri: Uri = "/v1/status".parse().expect("a path");
        let found =
            guard([None; 3]).check_origin(&uri, &headers(pairs)).map_or_else(|(status, _)| status.as_u16(), |()| 200);
        assert_eq!(found, expected, "{pairs:?}");
    }

    #[test]
    fn only_names_that_are_ours_are_served() {
        for host in
            ["localhost:9465", "LOCALHOST", "127.0.0.1:1", "[::1]:9465", "[::1]", "10.1.2.3", "Mill.Example:9465"]
        {
            origin(&[(HOST, host)], 200);
        }
        for host in ["evil.example:9465", "localhost.evil.example", "mill.example.evil"] {
            origin(&[(HOST, host)], 421);
        }
        for host in ["", "a b", "localhost:x", "[::1", "localhost:99999"] {
            origin(&[(HOST, host)], 400);
        }
        origin(&[], 400);
        origin(&[(HOST, "localhost"), (HOST, "localhost")], 400);
    }

    #[test]
    fn pages_of_other_sites_are_turned_away() {
        let host = (HOST, "127.0.0.1:9465");
        origin(&[host.clone(), (ORIGIN, "http://127.0.0.1:9465")], 200);
        for foreign in ["http://evil.example", "null", "https://127.0.0.1:9465", "http://127.0.0.1:80"] {
            origin(&[host.clone(), (ORIGIN, foreign)], 403);
        }
        origin(&[host.clone(), (SEC_FETCH_SITE, "cross-site")], 403);
        origin(&[host.clone(), (SEC_FETCH_SITE, "same-site")], 403);
        origin(&[host, (SEC_FETCH_SITE, "none")], 200);
    }

    #[track_caller]
    fn token(tokens: [Option<&str>; 3], scope: Scope, given: Option<&str>, expected: u16) {
        let pairs: Vec<_> = given.iter().map(|given| (AUTHORIZATION, *given)).collect();
        let found =
            guard(tokens).check_token(scope, &headers(&pairs)).map_or_else(|(status, _)| status.as_u16(), |()| 200);
        assert_eq!(found, expected, "{given:?}");
    }

    #[test]
    fn each_token_opens_its_own_door() {
        let tokens = [Some("reads"), Some("taps"), Some("rules")];
        token([None; 3], Scope::Admin, None, 200);
        token(tokens, Scope::Read, None, 401);
        token(tokens, Scope::Read, Some("Basic reads"), 401);
        token(tokens, Scope::Read, Some("Bearer guess"), 401);
        token(tokens, Scope::Read, Some("Bearer reads"), 200);
        token(tokens, Scope::Read, Some("bearer rules"), 200);
        token(tokens, Scope::Read, Some("Bearer taps"), 403);
        token(tokens, Scope::Tap, Some("Bearer taps"), 200);
        token(tokens, Scope::Tap, Some("Bearer reads"), 403);
        token(tokens, Scope::Tap, Some("Bearer rules"), 200);
        token(tokens, Scope::Admin, Some("Bearer reads"), 403);
        token(tokens, Scope::Admin, Some("Bearer rules"), 200);
        token([Some("reads"), None, None], Scope::Admin, Some("Bearer "), 401);
    }

    #[test]
    fn a_form_is_no_json() {
        assert!(has_type(&headers(&[(CONTENT_TYPE, "application/json; charset=utf-8")]), "application/json"));
        for form in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain;application/json"]
        {
            assert!(!has_type(&headers(&[(CONTENT_TYPE, form)]), "application/json"), "{form}");
        }
        assert!(!has_type(&headers(&[]), "application/json"));
    }
}
