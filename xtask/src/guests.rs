//! `cargo xtask guests`: the guest plugins as WASM modules in `target/plugins`.
//!
//! They are core modules with their interface embedded; the host wraps them into components when it loads them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::workspace::{WASM_TARGET, Workspace, read, run as run_command};

/// Where crates of guests are looked for: those that ship, and those that the tests misuse.
const SHIPPED: &str = "plugins";
const HOSTILE: [&str; 2] = ["tests/hostile", "tests/hostile/aggregate"];

/// Builds all guests and says where they lie.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    for file in build(workspace)? {
        let size = fs::metadata(&file).map(|data| data.len()).unwrap_or(0);
        println!("{}  {} KiB", file.display(), size.div_ceil(1024));
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds all guests; the files, in the order of their names.
pub(crate) fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    ensure_target(workspace)?;
    let packages = packages(workspace.root())?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--profile", "guest", "--target", WASM_TARGET]);
    // Flags for the host's code (a coverage tool's, say) have no place in a sandbox.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    for package in &packages {
        cargo.args(["--package", package]);
    }
    run_command(&mut cargo)?;
    collect(workspace, &packages)
}

/// Copies what cargo built to `target/plugins/NAME.wasm`.
fn collect(workspace: &Workspace, packages: &[String]) -> Result<Vec<PathBuf>> {
    let built = workspace.target().join(WASM_TARGET).join("guest");
    let plugins = workspace.plugins();
    fs::create_dir_all(&plugins).with_context(|| format!("can't make {}", plugins.display()))?;
    let place = |package: &String| {
        let from = built.join(format!("{}.wasm", package.replace('-', "_")));
        let to = plugins.join(format!("{package}.wasm"));
        // Written aside and renamed: whoever loads the file at this moment sees the old one or the new one.
        let aside = plugins.join(format!("{package}.wasm.{}", std::process::id()));
        fs::copy(&from, &aside).with_context(|| format!("can't copy {}", from.display()))?;
        fs::rename(&aside, &to).with_context(|| format!("can't write {}", to.display()))?;
        Ok(to)
    };
    packages.iter().map(place).collect()
}

/// The packages of the workspace that make a guest: a `cdylib` in one of the guests' folders.
fn packages(root: &Path) -> Result<Vec<String>> {
    let mut manifests: Vec<PathBuf> = HOSTILE.iter().map(|folder| root.join(folder).join("Cargo.toml")).collect();
    for entry in fs::read_dir(root.join(SHIPPED)).context("can't list plugins/")? {
        manifests.push(entry?.path().join("Cargo.toml"));
    }
    let mut packages = Vec::new();
    for manifest in manifests.iter().filter(|manifest| manifest.is_file()) {
        let text = fs::read_to_string(manifest).with_context(|| format!("can't read {}", manifest.display()))?;
        packages.extend(guest_name(&text));
    }
    if packages.is_empty() {
        bail!("no guest crate lies in {SHIPPED}/");
    }
    packages.sort();
    Ok(packages)
}

/// The package's name, if its manifest says that it makes a `cdylib`.
fn guest_name(manifest: &str) -> Option<String> {
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \""))?.strip_suffix('"')?;
    manifest.lines().any(|line| line.starts_with("crate-type") && line.contains("\"cdylib\"")).then(|| name.to_owned())
}

/// Adds the WASM target where it is missing; rustup does not always do so by itself.
pub(crate) fn ensure_target(workspace: &Workspace) -> Result<()> {
    if has_target(workspace)? {
        return Ok(());
    }
    eprintln!("adding the target {WASM_TARGET}");
    let add = workspace.command("rustup").args(["target", "add", WASM_TARGET]).status();
    match add {
        Ok(status) if status.success() => Ok(()),
        _ => bail!("the target {WASM_TARGET} is missing and rustup can't add it: install it with your toolchain"),
    }
}

/// True where the toolchain in use has the standard library for WASM.
pub(crate) fn has_target(workspace: &Workspace) -> Result<bool> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let mut command: Command = workspace.command(rustc);
    let folder = read(command.args(["--print", "target-libdir", "--target", WASM_TARGET]))?;
    Ok(fs::read_dir(folder.trim()).is_ok_and(|mut entries| entries.next().is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_a_package_with_a_cdylib() {
        let guest = "[package]\nname = \"validate\"\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n";
        assert_eq!(guest_name(guest).as_deref(), Some("validate"));
        assert_eq!(guest_name("[package]\nname = \"millstream-sdk\"\n"), None);
        assert_eq!(guest_name("[lib]\ncrate-type = [\"cdylib\"]\n"), None);
    }

    #[test]
    fn the_guests_of_this_workspace_are_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
        let packages = packages(root).expect("plugins/ can be read");
        for name in ["enrich", "upcast", "validate"] {
            assert!(packages.iter().any(|package| package == name), "{name} is not among {packages:?}");
        }
    }
}
