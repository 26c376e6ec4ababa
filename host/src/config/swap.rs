//! `swap:` and `breaker:` — how plugins are replaced while the stream runs, and what is done when they fail.

use std::path::PathBuf;

use super::error::ConfigError;
use super::units;
use super::walk::At;

/// How plugins are replaced while the stream runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapConfig {
    /// Whether a plugin's file that changes is swapped in.
    pub watch_files: bool,
    /// Where components are kept that came by the API, so that a restart goes on with them; `None` for a folder of this
    /// user's cache.
    pub store: Option<PathBuf>,
    /// What may be swapped in; `None` for anything that comes by a file or over loopback.
    pub trust: Option<TrustConfig>,
    /// For how long a new version is watched, in milliseconds.
    pub window_ms: u64,
    /// The most dead letters of the swapped stages within the window…
    pub dead_letters: u64,
    /// …unless they are no larger a share of these stages' records than this, in millionths.
    pub rate_per_million: u32,
    /// The most records that may make the swapped stages fault within the window.
    pub faults: u64,
}

impl Default for SwapConfig {
    fn default() -> Self {
        Self {
            watch_files: true,
            store: None,
            trust: None,
            window_ms: 60_000,
            dead_letters: 100,
            rate_per_million: 10_000,
            faults: 10,
        }
    }
}

/// Which components may be swapped in: those of a digest, and those that a key has signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustConfig {
    /// SHA-256 digests in hex.
    pub digests: Vec<String>,
    /// Ed25519 public keys.
    pub keys: Vec<[u8; 32]>,
}

/// What many faults lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// The most records of a worker that may fault within a minute.
    pub faults_per_minute: u64,
    /// What more of them lead to.
    pub then: BreakerAction,
}

/// What an open breaker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerAction {
    /// Takes no more records until somebody says so.
    Pause,
    /// Brings the version before the last swap back; pauses where there was none.
    Rollback,
    /// Goes on making dead letters of them.
    Divert,
}

pub(super) const SWAP_KEYS: &[&str] = &["watch_files", "store", "trust", "window_ms", "dead_letters", "rate", "faults"];
pub(super) const TRUST_KEYS: &[&str] = &["digests", "keys"];
pub(super) const BREAKER_KEYS: &[&str] = &["faults_per_minute", "then"];
/// Most digests, and most keys.
const MAX_TRUSTED: usize = 1_000;

impl SwapConfig {
    pub(super) fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(SWAP_KEYS)?;
        let default = Self::default();
        let rate = |at: &At<'_>| at.parsed("a share such as 1%", units::per_million);
        Ok(Self {
            watch_files: fields.or("watch_files", default.watch_files, |at| at.boolean())?,
            store: fields.optional("store").map(|at| at.file_path()).transpose()?,
            trust: fields.optional("trust").map(|at| TrustConfig::read(&at)).transpose()?,
            window_ms: fields.or("window_ms", default.window_ms, |at| at.integer(0..=86_400_000))?,
            dead_letters: fields.or("dead_letters", default.dead_letters, |at| at.integer(0..=1_000_000_000))?,
            rate_per_million: fields.or("rate", default.rate_per_million, rate)?,
            faults: fields.or("faults", default.faults, |at| at.integer(0..=1_000_000_000))?,
        })
    }
}

impl TrustConfig {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(TRUST_KEYS)?;
        let list = |key: &str, what: &str| match fields.optional(key) {
            Some(at) => at.list(what),
            None => Ok(Vec::new()),
        };
        let digests = list("digests", "a list of SHA-256 digests in hex")?;
        let keys = list("keys", "a list of Ed25519 public keys in base64")?;
        if digests.len() > MAX_TRUSTED || keys.len() > MAX_TRUSTED {
            return Err(at.error(format!("expected at most {MAX_TRUSTED} digests and as many keys")));
        }
        if digests.is_empty() && keys.is_empty() {
            return Err(at.error("expected digests or keys; with neither, nothing could ever be swapped in"));
        }
        let digest = |at: &At<'_>| at.parsed("a SHA-256 digest of 64 hexadecimal digits", digest);
        let key = |at: &At<'_>| at.parsed("an Ed25519 public key: 32 bytes in base64", key);
        Ok(Self {
            digests: digests.iter().map(digest).collect::<Result<_, _>>()?,
            keys: keys.iter().map(key).collect::<Result<_, _>>()?,
        })
    }
}

impl BreakerConfig {
    pub(super) fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(BREAKER_KEYS)?;
        let then = fields.required("then", "what many faults lead to: pause, rollback or divert")?;
        Ok(Self {
            faults_per_minute: fields.or("faults_per_minute", 100, |at| at.integer(0..=1_000_000_000))?,
            then: then.choice(&[
                ("pause", BreakerAction::Pause),
                ("rollback", BreakerAction::Rollback),
                ("divert", BreakerAction::Divert),
            ])?,
        })
    }
}

fn digest(text: &str) -> Option<String> {
    (text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

/// 32 bytes of 44 characters of base64.
fn key(text: &str) -> Option<[u8; 32]> {
    let mut bytes = Vec::new();
    crate::record::json::base64::decode(text.as_bytes(), &mut bytes).then_some(())?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(more: &str) -> Result<Config, ConfigError> {
        let text = format!(
            "pipeline: p\nsource: {{stdin: {{format: ndjson}}}}\noutputs: {{main: {{stdout: {{}}}}}}\ndead_letters: {{to: {{discard: {{}}}}}}\n{more}"
        );
        Config::parse(std::path::Path::new("p.yaml"), &text, &|_| None)
    }

    #[test]
    fn what_is_given_is_read_and_the_rest_has_its_default() {
        let key = "MCowBQYDK2VwAyEAMCowBQYDK2VwAyEAMCowBQYDK2U=";
        let config = parse(&format!(
            "swap: {{window_ms: 5000, rate: 0.5%, trust: {{digests: [{}], keys: ['{key}']}}}}\nbreaker: {{then: pause}}",
            "AB".repeat(32)
        ));
        let config = config.expect("good");
        assert_eq!((config.swap.window_ms, config.swap.rate_per_million, config.swap.faults), (5_000, 5_000, 10));
        let trust = config.swap.trust.expect("given");
        assert_eq!((trust.digests, trust.keys.len()), (vec!["ab".repeat(32)], 1));
        assert_eq!(config.breaker.map(|breaker| breaker.faults_per_minute), Some(100));
    }

    #[test]
    fn what_can_not_be_meant_is_refused_with_its_place() {
        for (text, expected) in [
            ("swap: {trust: {}}", "expected digests or keys"),
            ("swap: {trust: {digests: [ab]}}", "expected a SHA-256 digest"),
            ("swap: {trust: {keys: ['c2hvcnQ=']}}", "expected an Ed25519 public key"),
            ("swap: {rate: 5}", "expected a share such as 1%"),
            ("breaker: {}", "then"),
        ] {
            let error = parse(text).expect_err("must be refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
