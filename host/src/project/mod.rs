//! A plugin's project: made by `millstream new`, built by `millstream build`.
//!
//! | file | owns |
//! | --- | --- |
//! | `new` | a project that builds as it is, with no registry: it carries the SDK's sources |
//! | `files` | those sources, and the project's own files |
//! | `build` | cargo, the component, what it says of itself |

mod build;
mod files;
mod new;

use std::io;
use std::path::PathBuf;

use crate::plugin::PluginError;

pub use build::{BuildOptions, Built, Described, build_project};
pub use new::{Created, new_project};

/// Why a project was not made or built.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The name is no name for a plugin and its crate.
    #[error("`{name}` can't be a plugin's name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The directory for the new project is in use.
    #[error("{} exists already and is not empty", .0.display())]
    Exists(PathBuf),
    /// A file or directory could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to build.
    #[error(
        "{} holds no Cargo.toml: give a plugin's directory, or the .wasm file that another compiler made; `millstream new \
         NAME` makes a project",
        .0.display()
    )]
    NoProject(PathBuf),
    /// Cargo or the compiler can't be run.
    #[error("`{program}` can't be run ({source}): building a plugin takes Rust, see https://rustup.rs")]
    NoRust {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The compiler has no standard library for plugins.
    #[error("Rust's target {} is not installed: run `rustup target add {}` in {}", build::TARGET, build::TARGET, .0.display())]
    NoTarget(PathBuf),
    /// Cargo failed; it said why on standard error.
    #[error("cargo could not build {}", .0.display())]
    Cargo(PathBuf),
    /// The project is not that of one plugin.
    #[error("{}: {reason}", dir.display())]
    NotOnePlugin {
        /// The project's directory.
        dir: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// What was built is no plugin.
    #[error(transparent)]
    Plugin(#[from] PluginError),
}

impl ProjectError {
    fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.into(), source }
    }
}
