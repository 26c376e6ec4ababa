//! Where the workspace and its target directory lie, and how to run cargo in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The target of the guest plugins.
pub(crate) const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// A checkout.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// The checkout that this program was built from, with the target directory that cargo reports.
    pub(crate) fn find() -> Result<Self> {
        // Cargo sets the variable when it runs us; the compiled-in value serves a binary that is started by hand.
        let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
        let root = Path::new(&manifest).parent().context("the xtask crate lies in no folder")?.to_owned();
        let output = Command::new(cargo_program())
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(&root)
            .stderr(Stdio::inherit())
            .output()
            .context("can't run cargo")?;
        if !output.status.success() {
            bail!("cargo can't read the workspace in {}", root.display());
        }
        let metadata = String::from_utf8(output.stdout).context("cargo metadata is not UTF-8")?;
        let target = json_text(&metadata, "target_directory").context("cargo metadata names no target directory")?;
        Ok(Self { root, target: PathBuf::from(target) })
    }

    /// The top folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Where the built plugins go: always in the checkout, because the pipelines in deploy/ name this folder.
    pub(crate) fn plugins(&self) -> PathBuf {
        self.root.join("target/plugins")
    }

    /// What servers that are started here write.
    pub(crate) fn infra_state(&self) -> PathBuf {
        self.target.join("infra")
    }

    /// One of the scripts that start and stop servers.
    pub(crate) fn script(&self, name: &str) -> PathBuf {
        self.root.join("xtask/infra").join(name)
    }

    /// The host's binary, as `cargo build` leaves it.
    pub(crate) fn host(&self) -> PathBuf {
        self.target.join("debug").join("millstream")
    }

    /// Where a program lies after a release build.
    pub(crate) fn released(&self, program: &str) -> PathBuf {
        self.target.join("release").join(program)
    }

    /// Cargo, in the top folder.
    pub(crate) fn cargo(&self) -> Command {
        self.command(cargo_program())
    }

    /// Any program, in the top folder.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }
}

fn cargo_program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Runs a command to its end; an exit code other than 0 is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("can't run {}", name(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", name(command));
    }
    Ok(())
}

/// The same, for what it writes to stdout; both its streams are part of the error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("can't run {}", name(command)))?;
    if !output.status.success() {
        bail!("{} failed ({}): {}", name(command), output.status, said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

fn name(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    format!("`{program} {}`", args.join(" "))
}

/// The text of the first member `key` of a JSON document; enough for what cargo prints, and no crate for it.
fn json_text(document: &str, key: &str) -> Option<String> {
    let start = document.find(&format!("\"{key}\":\""))? + key.len() + 4;
    let mut text = String::new();
    let mut rest = document[start..].chars();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\\' => text.push(match rest.next()? {
                'n' => '\n',
                't' => '\t',
                'u' => return None,
                plain => plain,
            }),
            plain => text.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_and_unescaped() {
        let document = r#"{"a":{"other":"x"},"target_directory":"/a \"b\"\\c","z":"y"}"#;
        assert_eq!(json_text(document, "target_directory").as_deref(), Some(r#"/a "b"\c"#));
        assert_eq!(json_text(document, "absent"), None);
        assert_eq!(json_text(r#"{"cut":"off"#, "cut"), None);
    }

    #[test]
    fn a_failed_command_is_named() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("it fails");
        assert!(error.to_string().contains("`sh -c exit 3` failed"), "{error}");
    }

    #[test]
    fn what_a_failed_command_said_is_in_the_error() {
        let error = read(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).expect_err("it fails");
        assert!(error.to_string().ends_with("why"), "{error}");
    }
}
