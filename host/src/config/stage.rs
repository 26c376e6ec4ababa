//! `stages:` — what a batch passes through, in order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Secret;
use super::error::ConfigError;
use super::json::to_json;
use super::table::JoinConfig;
use super::walk::{At, Fields, one_of};
use super::window::{AggregateConfig, WindowConfig};

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
    /// Aggregates records over windows of event time, lets each pass once, or makes pairs of them.
    Window(Box<WindowConfig>),
    /// Adds what a table says.
    Join(JoinConfig),
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
    /// As what the field is read; `None` for `exists`, which looks at no value.
    pub field_type: Option<FieldType>,
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

pub(super) const STAGE_KEYS: &[&str] =
    &["name", "plugin", "config", "limits", "select", "filter", "route", "window", "deduplicate", "join", "pair"];
pub(super) const LIMITS_KEYS: &[&str] = &["memory", "deadline_ms", "output"];
pub(super) const SELECT_KEYS: &[&str] = &["keep", "drop", "rename"];
pub(super) const FILTER_KEYS: &[&str] = &["field", "type", "op", "value"];
pub(super) const ROUTE_KEYS: &[&str] = &["field", "outputs", "default"];
pub(super) const AGGREGATE_PLUGIN_KEYS: &[&str] = &["plugin", "config", "limits"];
const KINDS: &[&str] = &["plugin", "select", "filter", "route", "window", "deduplicate", "join", "pair"];

/// Most stages of a pipeline.
const MAX_STAGES: usize = 64;

/// Reads all stages; their names are unique.
pub(super) fn read_stages(at: &At<'_>) -> Result<Vec<StageConfig>, ConfigError> {
    let items = at.list("a list of stages")?;
    if items.len() > MAX_STAGES {
        return Err(at.error(format!("expected at most {MAX_STAGES} stages, found {}", items.len())));
    }
    let mut stages: Vec<StageConfig> = Vec::new();
    for item in items {
        let fields = item.fields(STAGE_KEYS)?;
        let name_at = fields.required("name", "what the stage is called")?;
        let name = name_at.name()?;
        if stages.iter().any(|stage| stage.name == name) {
            return Err(name_at.error(format!("another stage is called `{name}` already")));
        }
        stages.push(StageConfig { name, kind: StageKind::read(&item)? });
    }
    Ok(stages)
}

impl StageKind {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(STAGE_KEYS)?;
        let given: Vec<&str> = KINDS.iter().copied().filter(|kind| fields.any(kind).is_some()).collect();
        let [kind] = given.as_slice() else {
            let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
            return Err(at.error(format!("expected exactly one of {}, found {found}", one_of(KINDS))));
        };
        if *kind != "plugin"
            && let Some(at) = fields.any("config").or_else(|| fields.any("limits"))
        {
            return Err(at.error(format!("is for plugins; a stage with `{kind}` has none")));
        }
        if *kind == "plugin" {
            return Ok(Self::Plugin(PluginConfig::of(&fields)?));
        }
        let at = fields.required(kind, "what the stage does")?;
        Ok(match *kind {
            "select" => Self::Select(SelectConfig::read(&at)?),
            "filter" => Self::Filter(FilterConfig::read(&at)?),
            "route" => Self::Route(RouteConfig::read(&at)?),
            "deduplicate" => Self::Window(Box::new(WindowConfig::read_deduplicate(&at)?)),
            "join" => Self::Join(JoinConfig::read(&at)?),
            "pair" => Self::Window(Box::new(WindowConfig::read_pair(&at)?)),
            _ => Self::Window(Box::new(WindowConfig::read(&at)?)),
        })
    }

    /// The plugin that it runs, if it runs one.
    pub fn plugin(&self) -> Option<&PluginConfig> {
        match self {
            Self::Plugin(plugin) => Some(plugin),
            Self::Window(window) => match &window.aggregate {
                AggregateConfig::Plugin(plugin) => Some(plugin),
                AggregateConfig::Functions(_) | AggregateConfig::Pairs(_) => None,
            },
            Self::Select(_) | Self::Filter(_) | Self::Route(_) | Self::Join(_) => None,
        }
    }
}

impl PluginConfig {
    /// Reads a map of nothing but a plugin.
    pub(super) fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        Self::of(&at.fields(AGGREGATE_PLUGIN_KEYS)?)
    }

    fn of(fields: &Fields<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            path: fields.required("plugin", "the component's file")?.file_path()?,
            config_json: Secret::new(fields.or("config", "{}".to_owned(), to_json)?),
            limits: fields.or("limits", LimitsConfig::default(), LimitsConfig::read)?,
        })
    }
}

impl LimitsConfig {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(LIMITS_KEYS)?;
        let default = Self::default();
        Ok(Self {
            memory_bytes: fields.or("memory", default.memory_bytes, |at| at.bytes(1 << 20..=4 << 30))?,
            deadline_ms: fields.or("deadline_ms", default.deadline_ms, |at| at.integer(1..=60_000))?,
            output_bytes: fields.or("output", default.output_bytes, |at| at.bytes(64 << 10..=128 << 20))?,
        })
    }
}

impl SelectConfig {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(SELECT_KEYS)?;
        let pointers = |at: &At<'_>| at.list("a list of JSON Pointers")?.iter().map(At::pointer).collect();
        let select = Self {
            keep: fields.or("keep", Vec::new(), pointers)?,
            drop: fields.or("drop", Vec::new(), pointers)?,
            rename: fields.or("rename", BTreeMap::new(), read_rename)?,
        };
        if select == Self::default() {
            return Err(at.error(format!("expected at least one of {}", one_of(SELECT_KEYS))));
        }
        Ok(select)
    }
}

fn read_rename(at: &At<'_>) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut rename = BTreeMap::new();
    for (from, to) in at.open_map("a map of JSON Pointers, from: to")? {
        if !super::units::is_pointer(from) {
            return Err(to.error(format!("expected a JSON Pointer such as /country as the key, found `{from}`")));
        }
        rename.insert(from.to_owned(), to.pointer()?);
    }
    Ok(rename)
}

impl FilterConfig {
    pub(super) fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(FILTER_KEYS)?;
        let field = fields.required("field", "the JSON Pointer of a field")?.pointer()?;
        let op = fields.required("op", "the comparison")?.choice(&[
            ("eq", FilterOp::Eq),
            ("ne", FilterOp::Ne),
            ("lt", FilterOp::Lt),
            ("le", FilterOp::Le),
            ("gt", FilterOp::Gt),
            ("ge", FilterOp::Ge),
            ("exists", FilterOp::Exists),
            ("in", FilterOp::In),
        ])?;
        if op == FilterOp::Exists {
            if let Some(at) = fields.any("value").or_else(|| fields.any("type")) {
                return Err(at.error("is not needed: `exists` looks at no value"));
            }
            return Ok(Self { field, field_type: None, op, values: Vec::new() });
        }
        let type_at = fields.required("type", "the field's type: bool, int64, float64 or text")?;
        let field_type = type_at.choice(&[
            ("bool", FieldType::Bool),
            ("int64", FieldType::Int64),
            ("float64", FieldType::Float64),
            ("text", FieldType::Text),
        ])?;
        if field_type == FieldType::Bool && !matches!(op, FilterOp::Eq | FilterOp::Ne | FilterOp::In) {
            return Err(type_at.error("bool has no order; use the op eq, ne or in"));
        }
        let value = fields.required("value", "what the field is compared with")?;
        let values = match op {
            FilterOp::In => {
                value.list("a list of values")?.iter().map(|at| field_type.read(at)).collect::<Result<_, _>>()?
            }
            _ => vec![field_type.read(&value)?],
        };
        Ok(Self { field, field_type: Some(field_type), op, values })
    }
}

impl FieldType {
    fn read(self, at: &At<'_>) -> Result<FieldValue, ConfigError> {
        Ok(match self {
            Self::Bool => FieldValue::Bool(at.boolean()?),
            Self::Int64 => FieldValue::Int64(at.parsed("an integer of 64 bits", |text| text.parse().ok())?),
            Self::Float64 => {
                let finite = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
                FieldValue::Float64(at.parsed("a number", finite)?)
            }
            // An empty string is a value like any other here.
            Self::Text => FieldValue::Text(at.scalar("a string")?.text.clone()),
        })
    }
}

impl RouteConfig {
    fn read(at: &At<'_>) -> Result<Self, ConfigError> {
        let fields = at.fields(ROUTE_KEYS)?;
        let mut outputs = BTreeMap::new();
        for (value, output) in fields.required("outputs", "a map, value: output")?.open_map("a map, value: output")? {
            outputs.insert(value.to_owned(), output.name()?);
        }
        Ok(Self {
            field: fields.required("field", "the JSON Pointer of a string")?.pointer()?,
            outputs,
            default: fields.required("default", "the output for all other records")?.name()?,
        })
    }
}
