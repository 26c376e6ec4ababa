//! What is wrong with a config file, and where.

use std::fmt;

/// Why a config can't be used: always with the file; with line, column and key wherever there is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file, as it was named by the user.
    pub file: String,
    /// Line and column, both from 1; `None` where the file as a whole is meant.
    pub mark: Option<Mark>,
    /// The key's path, such as `stages[0].limits.memory`; empty where there is none.
    pub key: String,
    /// What is wrong, and what was expected.
    pub text: String,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(Mark { line, column }) = self.mark {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.text)
    }
}
