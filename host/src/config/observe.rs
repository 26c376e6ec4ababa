//! `observe:` and `admin:` — the two listeners: what may be seen, and what may be done.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::Secret;
use super::error::ConfigError;
use super::walk::At;

/// The listener for metrics and health, which shows no data and asks for no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObserveConfig {
    /// Where it listens.
    pub listen: Listen,
    /// Whether lag is also shown under the names of kafka-lag-exporter.
    pub lag_exporter_names: bool,
}

/// The listener for status and control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens.
    pub listen: Listen,
    /// Names beside `localhost` and addresses by which clients may call it.
    pub hosts: Vec<String>,
    /// Who may do what; without any, everybody on this machine may do everything.
    pub tokens: Tokens,
    /// Encryption.
    pub tls: Option<TlsConfig>,
    /// Serve other machines without encryption.
    pub insecure: bool,
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; port 0 for any that is free.
    pub address: SocketAddr,
    /// True where the configuration does not say so: then the stream runs without the listener where the port is taken.
    pub by_default: bool,
}

/// One token a purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// May see the status.
    pub read: Option<Secret>,
    /// May see records.
    pub tap: Option<Secret>,
    /// May change what runs, and see the status.
    pub admin: Option<Secret>,
}

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate and its chain, PEM.
    pub cert: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

pub(super) const OBSERVE_KEYS: &[&str] = &["listen", "lag_exporter_names"];
pub(super) const ADMIN_KEYS: &[&str] = &["listen", "hosts", "tokens", "tls", "insecure"];
pub(super) const TOKENS_KEYS: &[&str] = &["read", "tap", "admin"];
pub(super) const TLS_KEYS: &[&str] = &["cert", "key"];

/// A shorter token can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

impl Default for ObserveConfig {
    fn default() -> Self {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9464);
        Self { listen: Listen { address, by_default: true }, lag_exporter_names: false }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9465);
        let listen = Listen { address, by_default: true };
        Self { listen, hosts: Vec::new(), tokens: Tokens::default(), tls: None, insecure: false }
    }
}

impl Tokens {
    /// True where nobody needs one.
    pub fn is_empty(&self) -> bool {
        self.read.is_none() && self.tap.is_none() && self.admin.is_none()
    }
}

/// `off`, which switches a listener off.
fn is_off(at: &At<'_>) -> bool {
    at.scalar("").is_ok_and(|scalar| scalar.text == "off")
}

fn listen(at: &At<'_>) -> Result<Listen, ConfigError> {
    let what = "an address and port such as 127.0.0.1:9465 (port 0 for any that is free)";
    let address = at.parsed(what, |text| text.parse().ok())?;
    Ok(Listen { address, by_default: false })
}

impl ObserveConfig {
    pub(super) fn read(at: Option<&At<'_>>) -> Result<Option<Self>, ConfigError> {
        let default = Self::default();
        let Some(at) = at else { return Ok(Some(default)) };
        if is_off(at) {
            return Ok(None);
        }
        let fields = at.fields(OBSERVE_KEYS)?;
        Ok(Some(Self {
            listen: fields.or("listen", default.listen, listen)?,
            lag_exporter_names: fields.or("lag_exporter_names", false, |at| at.boolean())?,
        }))
    }
}

impl AdminConfig {
    pub(super) fn read(at: Option<&At<'_>>) -> Result<Option<Self>, ConfigError> {
        let default = Self::default();
        let Some(at) = at else { return Ok(Some(default)) };
        if is_off(at) {
            return Ok(None);
        }
        let fields = at.fields(ADMIN_KEYS)?;
        let admin = Self {
            listen: fields.or("listen", default.listen, listen)?,
            hosts: fields.or("hosts", Vec::new(), hosts)?,
            tokens: fields.or("tokens", Tokens::default(), Tokens::read)?,
            tls: fields.optional("tls").map(|at| TlsConfig::read(&at)).transpose()?,
            insecure: fields.or("insecure", false, |at| at.boolean())?,
        };
        if !admin.listen.address.ip().is_loopback() {
            if admin.tokens.admin.is_none() && admin.tokens.read.is_none() {
                let text = "needs `tokens: {read: …, admin: …}` where other machines can reach it";
                return Err(at.error(text));
            }
            if admin.tls.is_none() && !admin.insecure {
                let text = "needs `tls: {cert: …, key: …}` where other machines can reach it; `insecure: true` sends \
                            tokens in plain text";
                return Err(at.error(text));
            }
        }
        Ok(Some(admin))
    }
}

fn hosts(at: &At<'_>) -> Result<Vec<String>, ConfigError> {
    let host =
        |at: At<'_>| at.parsed("a host's name without a port", |text| is_host(text).then(|| text.to_lowercase()));
    at.list("a list of host names")?.into_iter().map(host).collect()
}

fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=253).contains(&text.len()) && text.bytes().all(allowed)
}

impl Tokens {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(TOKENS_KEYS)?;
        let token = |key: &str| fields.optional(key).map(|at| token(&at)).transpose();
        let tokens = Self { read: token("read")?, tap: token("tap")?, admin: token("admin")? };
        let mut given: Vec<&str> =
            [&tokens.read, &tokens.tap, &tokens.admin].into_iter().flatten().map(Secret::expose).collect();
        let count = given.len();
        given.sort_unstable();
        given.dedup();
        if given.len() < count {
            return Err(at.error("two of the tokens are the same; each purpose needs its own"));
        }
        Ok(tokens)
    }
}

fn token(at: &At<'_>) -> Result<Secret, ConfigError> {
    let text = at.text("a token; keep it in a file, as ${file:/run/secrets/token}")?;
    let fits = text.len() >= TOKEN_BYTES_MIN && text.len() <= 1024 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits {
        let text = format!("a token has {TOKEN_BYTES_MIN} to 1024 visible ASCII characters and no spaces");
        return Err(at.error(text));
    }
    Ok(Secret::new(text))
}

impl TlsConfig {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(TLS_KEYS)?;
        Ok(Self {
            cert: fields.required("cert", "the certificate's PEM file")?.file_path()?,
            key: fields.required("key", "the key's PEM file")?.file_path()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    const PIPELINE: &str = "pipeline: p\nsource: {stdin: {format: ndjson}}\noutputs: {main: {discard: }}\n\
                            dead_letters: {to: {discard: }}\n";

    fn parse(text: &str) -> Result<Config, String> {
        let text = format!("{PIPELINE}{text}");
        Config::parse(Path::new("deploy/p.yaml"), &text, &|_| None).map_err(|error| error.to_string())
    }

    fn parsed(text: &str) -> Config {
        parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    fn refused(text: &str, words: &str) {
        let error = parse(text).expect_err("must be refused");
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn both_listeners_are_there_by_default_and_can_be_switched_off() {
        let config = parsed("");
        let observe = config.observe.expect("on");
        assert_eq!((observe.listen.address.to_string(), observe.listen.by_default), ("0.0.0.0:9464".to_owned(), true));
        let admin = config.admin.expect("on");
        assert_eq!((admin.listen.address.to_string(), admin.listen.by_default), ("127.0.0.1:9465".to_owned(), true));
        let off = parsed("observe: off\nadmin: off\n");
        assert!((off.observe.is_none(), off.admin.is_none(), off.is_observed()) == (true, true, false));
        let given = parsed("observe: {listen: '[::1]:0', lag_exporter_names: true}");
        assert_eq!(given.observe.map(|o| (o.listen.by_default, o.lag_exporter_names)), Some((false, true)));
        refused("observe: on", "expected a map with the keys listen, lag_exporter_names, found `on`");
        refused("observe: {listen: 9464}", "expected an address and port such as 127.0.0.1:9465");
    }

    #[test]
    fn an_admin_listener_that_others_reach_needs_tokens_and_encryption() {
        let tokens = "tokens: {read: aaaaaaaaaaaaaaaa, admin: bbbbbbbbbbbbbbbb}";
        refused("admin: {listen: 0.0.0.0:9465}", "admin: needs `tokens: {read: …, admin: …}`");
        refused(&format!("admin: {{listen: 0.0.0.0:9465, {tokens}}}"), "admin: needs `tls: {cert: …, key: …}`");
        let plain = parsed(&format!("admin: {{listen: 0.0.0.0:9465, {tokens}, insecure: true}}"));
        assert!(plain.admin.is_some_and(|admin| admin.insecure));
        let tls = parsed(&format!(
            "admin: {{listen: 0.0.0.0:9465, {tokens}, tls: {{cert: c.pem, key: /k.pem}}, hosts: [Mill]}}"
        ));
        let admin = tls.admin.expect("on");
        let cert = admin.tls.as_ref().map(|tls| (tls.cert.clone(), tls.key.clone()));
        assert_eq!(cert, Some(("deploy/c.pem".into(), "/k.pem".into())));
        assert_eq!(admin.hosts, ["mill"]);
        assert!(!format!("{admin:?}").contains("aaaa"), "tokens are never printed");
    }

    #[test]
    fn tokens_are_long_and_different() {
        refused("admin: {tokens: {read: short}}", "a token has 16 to 1024 visible ASCII characters");
        refused("admin: {tokens: {read: aaaaaaaaaaaaaaaa, tap: aaaaaaaaaaaaaaaa}}", "two of the tokens are the same");
        refused("admin: {hosts: ['a:1']}", "a host's name without a port");
    }
}
