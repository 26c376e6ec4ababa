//! How the commands that talk to a running pipeline reach it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Mistake;
use crate::config::Secret;
use crate::http::Client;

/// Where a running pipeline listens, and by what right it is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Admin {
    /// Where its `admin` listener is
    #[arg(long, default_value = "http://127.0.0.1:9465")]
    admin: String,
    #[command(flatten)]
    access: Access,
}

/// By what right a running pipeline is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Access {
    /// A file with the token, where one is needed
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// A PEM file with the certificate that vouches for the server's, where the system knows none
    #[arg(long)]
    ca_file: Option<PathBuf>,
}

impl Admin {
    /// A client that waits at most `patience` for an answer.
    pub(super) fn client(&self, patience: Duration) -> Result<Client> {
        self.access.client(&self.admin, None, patience)
    }
}

impl Access {
    /// A client of the listener at `url`; `known` is the token where no file has one.
    pub(super) fn client(&self, url: &str, known: Option<Secret>, patience: Duration) -> Result<Client> {
        let token = self.token_file.as_deref().map(|path| {
            let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
            let token = text.trim();
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(Mistake(format!("{} holds no token", path.display())).into());
            }
            anyhow::Ok(Secret::new(token))
        });
        Ok(Client::new(url, token.transpose()?.or(known), self.ca_file.as_deref())?.with_patience(patience))
    }
}
