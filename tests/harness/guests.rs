//! Guests, built once for all tests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The core module of the workspace's guest crate `package`, as `cargo` builds it; it is wrapped at load.
pub(crate) fn guest(package: &str) -> Vec<u8> {
    static BUILT: OnceLock<Mutex<HashMap<String, Vec<u8>>>> = OnceLock::new();
    let mut built = BUILT.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(package.to_owned()).or_insert_with(|| build(package)).clone()
}

/// Cargo locks the directory, so that several test binaries may build at once.
fn build(package: &str) -> Vec<u8> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", package, "--profile", "guest"])
        .args(["--target", "wasm32-unknown-unknown", "--target-dir"])
        .arg(&target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the guest `{package}` does not build");
    let file = format!("{}.wasm", package.replace('-', "_"));
    let path: PathBuf = [target.as_path(), "wasm32-unknown-unknown/guest".as_ref(), file.as_ref()].iter().collect();
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
