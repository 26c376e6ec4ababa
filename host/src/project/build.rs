//! `millstream build`: from a plugin's sources to the component that a pipeline runs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::ProjectError;
use crate::plugin::{
    AggregateDescriptor, Descriptor, JoinField, Limits, PluginError, ReadField, Runtime, RuntimeConfig, TableField,
    World, WriteField, wrap,
};
use crate::record::ColumnType;

/// What plugins are compiled for. It has no system interface, so there is nothing that a plugin could import but ours.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// Bytes of memory that a plugin may use to describe itself; an interpreter takes tens of megabytes.
const MEMORY_BYTES: u64 = 256 << 20;

/// How to build.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The stage's configuration, as JSON, to describe the plugin by; `{}` where there is none.
    pub config_json: Option<String>,
    /// Where the component goes. Where nothing is said: `NAME.wasm` in the project's directory; `FILE.component.wasm` beside
    /// a module; a component stays where it is.
    pub out: Option<PathBuf>,
    /// Forbids cargo the network.
    pub offline: bool,
}

/// A component that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its SHA-256, in hex: the name by which a swap knows it.
    pub digest: String,
    /// What it says of itself under the configuration; or why it doesn't accept that.
    pub described: Result<Described, String>,
}

/// What a component says of itself, by its world.
#[derive(Clone, Debug)]
pub enum Described {
    /// A stage's.
    Transform(Descriptor),
    /// A window's.
    Aggregate(AggregateDescriptor),
}

/// Builds a plugin: `path` is its project, or a module or component that another compiler made.
pub fn build_project(path: &Path, options: &BuildOptions) -> Result<Built, ProjectError> {
    let module = if path.is_file() { path.to_owned() } else { compile(path, options)? };
    let bytes = fs::read(&module).map_err(ProjectError::file(&module))?;
    let name = module.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let component = wrap(&bytes, &name)?;
    let (digest, described) = describe(&component, &name, options.config_json.as_deref().unwrap_or("{}"))?;
    let place = options.out.clone().unwrap_or_else(|| match path.is_file() {
        true if bytes == component => module,
        true => module.with_extension("component.wasm"),
        false => path.join(format!("{name}.wasm")),
    });
    fs::write(&place, &component).map_err(ProjectError::file(&place))?;
    Ok(Built { path: place, size_bytes: component.len() as u64, digest, described })
}

/// Digest and description. A configuration that the plugin refuses is no failure: it may need one that we don't have.
fn describe(component: &[u8], name: &str, config: &str) -> Result<(String, Result<Described, String>), PluginError> {
    let runtime = Runtime::new(RuntimeConfig { cache_dir: None, instances: 1, memory_bytes: MEMORY_BYTES })?;
    let plugin = runtime.load(component, name)?;
    let limits = Limits { memory_bytes: MEMORY_BYTES, ..Limits::default() };
    let described = match plugin.world() {
        World::Transform => plugin.describe(config, &limits).map(Described::Transform),
        World::Aggregate => plugin.describe_aggregate(config, &limits).map(Described::Aggregate),
    };
    let described = match described {
        Ok(described) => Ok(described),
        Err(PluginError::Config { message, .. }) => Err(message),
        Err(error) => return Err(error),
    };
    Ok((plugin.digest().to_owned(), described))
}

/// Has cargo compile the project, and returns the path of its module.
fn compile(dir: &Path, options: &BuildOptions) -> Result<PathBuf, ProjectError> {
    if !dir.join("Cargo.toml").is_file() {
        return Err(ProjectError::NoProject(dir.to_owned()));
    }
    check_target(dir)?;
    let mut cargo = program("CARGO", "cargo", dir);
    cargo.args(["build", "--lib", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    if has_guest_profile(dir)? {
        cargo.args(["--profile", "guest"]);
    } else {
        // A panic can't be caught in a sandbox, and what unwinding takes is most of a small plugin.
        cargo.args(["--release", "--config", "profile.release.panic=\"abort\""]);
    }
    if options.offline {
        cargo.arg("--offline");
    }
    let output = cargo.stderr(Stdio::inherit()).output().map_err(no_rust(&cargo))?;
    if !output.status.success() {
        return Err(ProjectError::Cargo(dir.to_owned()));
    }
    let not_one = |reason: String| ProjectError::NotOnePlugin { dir: dir.to_owned(), reason };
    match &modules(&output.stdout)[..] {
        [module] => Ok(module.clone()),
        [] => Err(not_one(
            "it makes no module: Cargo.toml wants `crate-type = [\"cdylib\", \"rlib\"]` under [lib]".into(),
        )),
        all => {
            Err(not_one(format!("it makes {} modules: build one plugin at a time, in its own directory", all.len())))
        }
    }
}

/// Paths of the modules that cargo says it made, of crates that are not dependencies.
fn modules(messages: &[u8]) -> Vec<PathBuf> {
    let artefacts = messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let files = artefacts
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| message["target"]["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == "cdylib")))
        .filter_map(|message| message["filenames"].as_array().cloned());
    files.flatten().filter_map(|file| file.as_str().filter(|f| f.ends_with(".wasm")).map(PathBuf::from)).collect()
}

/// Cargo's own words for a missing target do not name the remedy first.
fn check_target(dir: &Path) -> Result<(), ProjectError> {
    let mut rustc = program("RUSTC", "rustc", dir);
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    let output = rustc.stderr(Stdio::inherit()).output().map_err(no_rust(&rustc))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let library = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("libstd-");
    let installed = fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(library));
    if installed { Ok(()) } else { Err(ProjectError::NoTarget(dir.to_owned())) }
}

/// True where the project's workspace has a profile for plugins.
fn has_guest_profile(dir: &Path) -> Result<bool, ProjectError> {
    let mut cargo = program("CARGO", "cargo", dir);
    cargo.args(["locate-project", "--workspace", "--message-format", "plain"]);
    let output = cargo.stderr(Stdio::inherit()).output().map_err(no_rust(&cargo))?;
    if !output.status.success() {
        return Err(ProjectError::Cargo(dir.to_owned()));
    }
    let manifest = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let text = fs::read_to_string(&manifest).map_err(ProjectError::file(&manifest))?;
    Ok(text.lines().any(|line| line.trim() == "[profile.guest]"))
}

/// A program of Rust's, which the environment may name, to be run in that directory.
fn program(variable: &str, name: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::var_os(variable).unwrap_or_else(|| name.into()));
    command.current_dir(dir).stdin(Stdio::null());
    command
}

fn no_rust(command: &Command) -> impl FnOnce(std::io::Error) -> ProjectError {
    let program = command.get_program().to_string_lossy().into_owned();
    move |source| ProjectError::NoRust { program, source }
}

impl fmt::Display for Built {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}  {} bytes", self.path.display(), self.size_bytes)?;
        write!(out, "sha256 {}", self.digest)?;
        match &self.described {
            Ok(Described::Transform(plugin)) => transform_lines(plugin, out),
            Ok(Described::Aggregate(plugin)) => aggregate_lines(plugin, out),
            Err(message) => write!(out, "\nnot described, because it does not accept the configuration: {message}"),
        }
    }
}

fn field_lines(reads: &[ReadField], writes: &[WriteField], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    for field in reads {
        let optional = if field.required { "" } else { ", optional" };
        write!(out, "\n  reads  {} ({}{optional})", field.path, type_name(field.ty))?;
    }
    for field in writes {
        write!(out, "\n  writes {} ({})", field.path, type_name(field.ty))?;
    }
    Ok(())
}

fn aggregate_lines(plugin: &AggregateDescriptor, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(out, "\n{} {}, an aggregate", plugin.name, plugin.version)?;
    field_lines(&plugin.reads, &plugin.writes, out)?;
    write!(out, "\n  keeps  states of version {}", plugin.state_version)?;
    let older: Vec<String> = plugin.migrates_from.iter().map(u32::to_string).collect();
    if older.is_empty() { Ok(()) } else { write!(out, ", migrates {}", older.join(", ")) }
}

fn transform_lines(plugin: &Descriptor, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(out, "\n{} {}", plugin.name, plugin.version)?;
    field_lines(&plugin.reads, &plugin.writes, out)?;
    for (verb, parts) in [("reads ", plugin.raw_reads), ("writes", plugin.raw_writes)] {
        let named =
            [("key", parts.key), ("value", parts.value), ("headers", parts.headers), ("timestamp", parts.timestamp)];
        for (part, _) in named.into_iter().filter(|(_, wanted)| *wanted) {
            write!(out, "\n  {verb} the record's {part}")?;
        }
    }
    for JoinField { column, on, ty, required } in &plugin.joins {
        let (TableField { table, path }, optional) = (column, if *required { "" } else { ", optional" });
        write!(out, "\n  joins  {path} of the table {table}, by {on} ({}{optional})", type_name(*ty))?;
    }
    for TableField { table, path } in &plugin.lookups {
        write!(out, "\n  looks up {path} of the table {table}")?;
    }
    for output in &plugin.outputs {
        write!(out, "\n  output {output}")?;
    }
    if plugin.tombstones { write!(out, "\n  takes tombstones") } else { Ok(()) }
}

fn type_name(ty: ColumnType) -> String {
    match ty {
        ColumnType::Bool => "bool".into(),
        ColumnType::Int64 => "int64".into(),
        ColumnType::Float64 => "float64".into(),
        ColumnType::Text => "text".into(),
        ColumnType::Bytes => "bytes".into(),
        ColumnType::Decimal => "decimal".into(),
        ColumnType::Json => "json".into(),
        ColumnType::Timestamp(encoding) => {
            use crate::record::TimestampEncoding as E;
            let encoding = match encoding {
                E::Rfc3339 => "rfc3339",
                E::EpochS => "epoch_s",
                E::EpochMs => "epoch_ms",
                E::EpochUs => "epoch_us",
                E::EpochNs => "epoch_ns",
            };
            format!("timestamp {encoding}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_project_is_told_what_to_give() {
        let error = build_project(&std::env::temp_dir().join("no-such-plugin"), &BuildOptions::default());
        assert!(matches!(error, Err(ProjectError::NoProject(_))));
    }

    #[test]
    fn modules_are_those_of_cdylibs() {
        let messages = br#"{"reason":"compiler-artifact","target":{"kind":["lib"]},"filenames":["/t/libsdk.rlib"]}
{"reason":"compiler-artifact","target":{"kind":["cdylib","rlib"]},"filenames":["/t/p.wasm","/t/libp.rlib"]}
{"reason":"build-finished","success":true}
not json"#;
        assert_eq!(modules(messages), [PathBuf::from("/t/p.wasm")]);
    }
}
