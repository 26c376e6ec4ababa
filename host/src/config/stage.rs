//! `stages:` — what a batch passes through, in order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Secret;

/// One stage of the chain.
#[derive(Clone, Debug, PartialEq)]
pub struct StageConfig {
    /// Unique in the pipeline; `[a-z0-9_-]{1,64}`.
    pub name: String,
    /// What it does.
    pub kind: StageKind,
}

/// What a stage does.
#[derive(Clone, Debug, PartialEq)]
pub enum StageKind {
    /// Runs a WASM plugin.
    Plugin(PluginConfig),
    /// Keeps, drops and renames fields.
    Select(SelectConfig),
    /// Lets pass the records for which a comparison holds.
    Filter(FilterConfig),
    /// Sends records to outputs by a field's value.
    Route(RouteConfig),
}

/// A plugin and what it may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginConfig {
    /// The component, or a core module with embedded WIT; a relative path was taken from the config's folder.
    pub path: PathBuf,
    /// The stage's `config` as JSON text, `{}` where none is given; held as a secret, since it may hold one.
    pub config_json: Secret,
    /// What the plugin may use.
    pub limits: LimitsConfig,
}

/// The bounds of a plugin's stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Most memory of one instance, all its linear memories together.
    pub memory_bytes: u64,
    /// Wall-clock time of one call after which the plugin is suspected; the verdict on a record falls by fuel.
    pub deadline_ms: u64,
    /// Most bytes that one call may return.
    pub output_bytes: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { memory_bytes: 64 << 20, deadline_ms: 50, output_bytes: 32 << 20 }
    }
}

/// Fields to keep, drop and rename; fields are JSON Pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectConfig {
    /// The only fields to keep; empty for all.
    pub keep: Vec<String>,
    /// Fields to remove.
    pub drop: Vec<String>,
    /// Fields to move, from and to, after keeping and dropping.
    pub rename: BTreeMap<String, String>,
}

/// A comparison of one field; records for which it does not hold are filtered.
#[derive(Clone, Debug, PartialEq)]
pub struct FilterConfig {
    /// A JSON Pointer.
    pub field: String,
    /// As what the field is read.
    pub field_type: FieldType,
    /// The comparison.
    pub op: FilterOp,
    /// What the field is compared with: none for `exists`, one or more for `in`, one for the others.
    pub values: Vec<FieldValue>,
}

/// As what a built-in stage reads a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// `true` or `false`.
    Bool,
    /// An integer in the range of 64 bits.
    Int64,
    /// Any number.
    Float64,
    /// A string.
    Text,
}

/// A value of a [`FieldType`].
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// Of type `bool`.
    Bool(bool),
    /// Of type `int64`.
    Int64(i64),
    /// Of type `float64`; never NaN.
    Float64(f64),
    /// Of type `text`.
    Text(String),
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterOp {
    /// Equal.
    Eq,
    /// Not equal; also holds where the field is missing.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// There, and not null.
    Exists,
    /// Equal to one of the values.
    In,
}

/// Which output a record goes to, by the text of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// A JSON Pointer to a string.
    pub field: String,
    /// The output for each value of the field.
    pub outputs: BTreeMap<String, String>,
    /// The output for any other value, and where the field is missing.
    pub default: String,
}
