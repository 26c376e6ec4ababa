//! `--name value` arguments, no more.

use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow};

/// The arguments of one of the programs.
#[derive(Debug)]
pub struct Args(Vec<String>);

impl Args {
    /// Those that the process was started with.
    pub fn of_process() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// The value of `--name`.
    pub fn text(&self, name: &str) -> Result<String> {
        self.find(name).map(str::to_owned).ok_or_else(|| anyhow!("--{name} is missing"))
    }

    /// The value of `--name`, or `default`.
    pub fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        self.find(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("--{name} {text}")))
    }

    /// True where `--name` is among them.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|arg| arg.strip_prefix("--") == Some(name))
    }

    /// The first argument, where it is no option.
    pub fn command(&self) -> &str {
        self.0.first().filter(|first| !first.starts_with("--")).map_or("", String::as_str)
    }

    fn find(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|arg| arg.strip_prefix("--") == Some(name))?;
        self.0.get(at + 1).map(String::as_str)
    }
}
