//! Golden cases: records in, records out byte for byte, and which are rejected why.
//!
//! Each case runs three times: all records at once, one at a time, and all at once in reverse. A plugin is a function of
//! the record, so the three agree; where they don't, it keeps something between records, and that is found here rather
//! than in a re-run after a crash. What windows and deduplication do depends on the order of records by nature, so
//! pipelines with such a stage are not run in reverse. All windows close behind the last record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::{
    AggregateConfig, CommitConfig, Config, ConfigError, DeadLettersConfig, Delivery, FileFormat, FilesSourceConfig,
    InputFile, LimitsConfig, LogsConfig, MAIN_OUTPUT, OutputConfig, PluginConfig, Secret, SinkConfig, SourceConfig,
    StageConfig, StageKind, StateConfig, SwapConfig, TableConfig, TableFile, TableKey, TableSource, TableTopic,
};
use crate::pipeline::{Flow, Run, Stage};
use crate::plugin::{Emitted, Limits, PluginError, Runtime, RuntimeConfig, StageError};
use crate::record::Rows;
use crate::run::{Prepared, RunError, load_file_tables};
use crate::sink::push_value;
use crate::source::{FilesSource, SourceError};

/// What a case is, for people.
pub const FORMAT: &str = "A case is a folder with
  in.ndjson        the records, one a line (or in.jsonl, in.csv; offsets are line numbers)
  out.ndjson       what leaves by the output `main`; out.NAME.ndjson for another output
  rejected.ndjson  an object a rejected record: {\"line\": 3, \"stage\": \"validate\", \"code\": \"no_price\"}; only the
                   members that it has are compared, of line, stage, code and detail
  table.NAME.ndjson  rows of the pipeline's table NAME, in place of its own (or table.NAME.csv); where a topic's rows are
                   found by the record's key, that stands in their member _key
and one of
  pipeline         the path of a pipeline's file, from the case's folder
  pipeline.yaml    a pipeline; its source and outputs are replaced by the case's files
  config.json      the configuration of the one plugin of the project around the case, built by `millstream build`";

/// Most bytes of a line of a case.
const MAX_LINE_BYTES: u64 = 16 << 20;
/// Most records of a case: golden cases are read by people.
const MAX_RECORDS: usize = 100_000;
/// How deep cases may lie in the folders that are searched.
const MAX_DEPTH: usize = 8;
/// Most lines of a difference that are shown.
const SHOWN_LINES: usize = 10;
/// Where a row of a case's table has the key of its record.
const RECORD_KEY: &str = "/_key";
const INPUTS: [&str; 3] = ["in.ndjson", "in.jsonl", "in.csv"];

/// Why a case can't be run.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A file or folder can't be read or written.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// The case is not as a case has to be.
    #[error("{}: {why}", folder.display())]
    Case {
        /// The case's folder.
        folder: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The pipeline's file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The pipeline can't be prepared.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The plugin of a case with a `config.json` can't be loaded.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The input can't be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The host could not run a stage.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Same {
        /// How many records went in.
        records: usize,
    },
    /// The named files were written anew.
    Updated {
        /// Files that had to change.
        files: Vec<String>,
    },
    /// Not as it should, or not the same each time.
    Different {
        /// The differences, for people.
        text: String,
    },
}

/// What came out of a run: each file's lines, by the file's name.
type Files = BTreeMap<String, Vec<String>>;

/// All cases in `folders`, in order; a folder without any is an error.
pub fn find(folders: &[PathBuf]) -> Result<Vec<PathBuf>, GoldenError> {
    let mut cases = Vec::new();
    for folder in folders {
        let before = cases.len();
        search(folder, MAX_DEPTH, &mut cases)?;
        if cases.len() == before {
            let why = format!("there is no case in it (a folder with {})", INPUTS.join(" or "));
            return Err(GoldenError::Case { folder: folder.clone(), why });
        }
    }
    Ok(cases)
}

fn search(folder: &Path, depth: usize, cases: &mut Vec<PathBuf>) -> Result<(), GoldenError> {
    if input(folder).is_some() {
        cases.push(folder.to_owned());
        return Ok(());
    }
    let fail = |why| GoldenError::File { path: folder.to_owned(), why };
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_type().map_err(fail)?.is_dir() && depth > 0 {
            entries.push(entry.path());
        }
    }
    entries.sort();
    entries.iter().try_for_each(|entry| search(entry, depth - 1, cases))
}

fn input(case: &Path) -> Option<PathBuf> {
    INPUTS.iter().map(|name| case.join(name)).find(|path| path.is_file())
}

/// Runs the case in `folder`; with `update`, what comes out is written to its files.
pub fn run(folder: &Path, update: bool) -> Result<Outcome, GoldenError> {
    let rows = read_input(folder)?;
    let mut config = with_tables(folder, config(folder)?);
    // A case's tables do not catch up.
    for stage in &mut config.stages {
        if let StageKind::Join(join) = &mut stage.kind {
            join.wait_ms = 0;
        }
    }
    // The case's records are one file, so that windows have one level.
    config.source = SourceConfig::Files(FilesSourceConfig { files: Vec::new(), max_line_bytes: MAX_LINE_BYTES });
    forget_topics(folder, &mut config)?;
    let prepared = Prepared::new(&config)?;
    load_tables(folder, &config, &prepared)?;
    let forth: Vec<usize> = (0..rows.len()).collect();
    let whole = pass(&prepared, &rows, &[&forth])?;
    let single: Vec<&[usize]> = forth.chunks(1).collect();
    let back: Vec<usize> = forth.iter().rev().copied().collect();
    let ways = [("one at a time", single.as_slice()), ("in reverse", &[back.as_slice()])];
    let keeps_states = config.stages.iter().any(|stage| matches!(stage.kind, StageKind::Window(_)));
    for (way, cuts) in ways.into_iter().take(if keeps_states { 1 } else { 2 }) {
        let other = pass(&prepared, &rows, cuts)?;
        if let Some(text) = differences(&whole, &other) {
            let text = format!(
                "  the result depends on how the records are cut: a plugin keeps something between them\n  - all at once\n  \
                 + {way}\n{text}"
            );
            return Ok(Outcome::Different { text });
        }
    }
    compare(folder, whole, update, rows.len())
}

fn read_input(folder: &Path) -> Result<Rows, GoldenError> {
    let fail = |why: &str| GoldenError::Case { folder: folder.to_owned(), why: why.to_owned() };
    let path = input(folder).ok_or_else(|| fail("it has no in.ndjson"))?;
    let format = FileFormat::of_path(&path).unwrap_or(FileFormat::Ndjson);
    let config = FilesSourceConfig { files: vec![InputFile { path, format }], max_line_bytes: MAX_LINE_BYTES };
    let mut source = FilesSource::open(&config)?;
    let mut rows = Rows::default();
    while let Some(batch) = source.next(MAX_RECORDS + 1, usize::MAX)? {
        (0..batch.rows.len()).for_each(|row| rows.push_from(&batch.rows, row));
        if rows.len() > MAX_RECORDS {
            return Err(fail("it has more than 100000 records; a case is for people to read"));
        }
    }
    Ok(rows)
}

/// The case's pipeline.
fn config(folder: &Path) -> Result<Config, GoldenError> {
    let own = folder.join("pipeline.yaml");
    if own.is_file() {
        return Ok(Config::load(&own)?);
    }
    let pointer = folder.join("pipeline");
    if pointer.is_file() {
        let path = read(&pointer)?;
        return Ok(Config::load(&folder.join(path.trim()))?);
    }
    let settings = folder.join("config.json");
    if !settings.is_file() {
        let why = "it has none of pipeline, pipeline.yaml and config.json".to_owned();
        return Err(GoldenError::Case { folder: folder.to_owned(), why });
    }
    plugin_alone(&project_plugin(folder)?, &read(&settings)?, &settings)
}

/// Records of a case are of no topic: the sides of pairs are told apart by `when` alone.
fn forget_topics(folder: &Path, config: &mut Config) -> Result<(), GoldenError> {
    for stage in &mut config.stages {
        let StageKind::Window(window) = &mut stage.kind else { continue };
        let AggregateConfig::Pairs(pairs) = &mut window.aggregate else { continue };
        for side in &mut pairs.sides {
            if side.topic.take().is_some() && side.when.is_none() {
                let name = &stage.name;
                let why = format!(
                    "stage `{name}` tells records of `{}` by their topic, and a case has one file: give that side `when`, too",
                    side.name
                );
                return Err(GoldenError::Case { folder: folder.to_owned(), why });
            }
        }
    }
    Ok(())
}

/// The pipeline with the case's own tables.
fn with_tables(folder: &Path, mut config: Config) -> Config {
    for table in &mut config.tables {
        let (key, max_line_bytes) = match &table.source {
            TableSource::File(file) => (file.key.clone(), file.max_line_bytes),
            TableSource::Kafka(TableTopic { key: TableKey::Field(path), .. }) => (path.clone(), MAX_LINE_BYTES),
            TableSource::Kafka(_) => (RECORD_KEY.to_owned(), MAX_LINE_BYTES),
        };
        for (ending, format) in [("csv", FileFormat::Csv), ("ndjson", FileFormat::Ndjson)] {
            let path = folder.join(format!("table.{}.{ending}", table.name));
            if path.is_file() {
                let key = key.clone();
                table.source = TableSource::File(TableFile { path, format, key, max_line_bytes });
            }
        }
    }
    config
}

/// Reads the case's tables; no case asks a server.
fn load_tables(folder: &Path, config: &Config, prepared: &Prepared) -> Result<(), GoldenError> {
    let is_topic = |table: &&TableConfig| matches!(table.source, TableSource::Kafka(_));
    let used = |table: &&TableConfig| prepared.tables().contains_key(&table.name);
    if let Some(table) = config.tables.iter().filter(is_topic).find(used) {
        let name = &table.name;
        let why = format!(
            "the table `{name}` is a topic; put its rows into table.{name}.ndjson, see `millstream test --help`"
        );
        return Err(GoldenError::Case { folder: folder.to_owned(), why });
    }
    Ok(load_file_tables(config, prepared.tables())?)
}

fn read(path: &Path) -> Result<String, GoldenError> {
    std::fs::read_to_string(path).map_err(|why| GoldenError::File { path: path.to_owned(), why })
}

/// The component in the project that the case lies in.
fn project_plugin(folder: &Path) -> Result<PathBuf, GoldenError> {
    let fail = |why: String| GoldenError::Case { folder: folder.to_owned(), why };
    let absolute = std::path::absolute(folder).map_err(|why| GoldenError::File { path: folder.to_owned(), why })?;
    let project = absolute.ancestors().skip(1).find(|folder| folder.join("Cargo.toml").is_file());
    let project =
        project.ok_or_else(|| fail("there is no project around it, so `config.json` is for no plugin".into()))?;
    let entries = std::fs::read_dir(project).map_err(|why| GoldenError::File { path: project.to_owned(), why })?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|ending| ending == "wasm")).collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(fail(format!("{} holds no .wasm file yet: run `millstream build` there", project.display()))),
        _ => Err(fail(format!("{} holds several .wasm files; say which by a `pipeline.yaml`", project.display()))),
    }
}

/// A pipeline of one plugin, with all the outputs that it names.
fn plugin_alone(plugin: &Path, config_json: &str, file: &Path) -> Result<Config, GoldenError> {
    let bytes = std::fs::read(plugin).map_err(|why| GoldenError::File { path: plugin.to_owned(), why })?;
    let runtime = Runtime::new(RuntimeConfig { cache_dir: None, instances: 1, ..RuntimeConfig::default() })?;
    let name = plugin.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let limits = LimitsConfig::default();
    let bounds = Limits::new(limits.memory_bytes, limits.deadline_ms, limits.output_bytes);
    let descriptor = runtime.load(&bytes, &name)?.describe(config_json, &bounds)?;
    let names = [MAIN_OUTPUT.to_owned()].into_iter().chain(descriptor.outputs);
    let kind =
        StageKind::Plugin(PluginConfig { path: plugin.to_owned(), config_json: Secret::new(config_json), limits });
    Ok(Config {
        file: file.to_owned(),
        pipeline: "case".to_owned(),
        source: SourceConfig::Files(FilesSourceConfig { files: Vec::new(), max_line_bytes: MAX_LINE_BYTES }),
        tables: Vec::new(),
        stages: vec![StageConfig { name, kind }],
        outputs: names.map(|name| OutputConfig { name, sink: SinkConfig::Discard, table: None }).collect(),
        dead_letters: DeadLettersConfig { to: SinkConfig::Discard, table: None, stop_above: None },
        delivery: Delivery::AtLeastOnce,
        commit: CommitConfig::default(),
        workers: None,
        memory_limit_bytes: None,
        create_topics: false,
        instance: "0".to_owned(),
        observe: None,
        admin: None,
        quality: None,
        logs: LogsConfig::default(),
        swap: SwapConfig::default(),
        state: StateConfig::default(),
        breaker: None,
        lineage: false,
    })
}

/// Runs the rows through the pipeline, cut as `cuts` say, with fresh instances for each cut; the lines come back in the
/// order of the input.
fn pass(prepared: &Prepared, rows: &Rows, cuts: &[&[usize]]) -> Result<Files, GoldenError> {
    let pipeline = &prepared.pipeline;
    let mut lines: Vec<(i64, String, String)> = Vec::new();
    let mut stages = prepared.factory()(0)?;
    let mut run = Run::new(usize::MAX);
    let mut flow = Flow::default();
    let mut part = Rows::default();
    for cut in cuts {
        part.clear();
        cut.iter().for_each(|&row| part.push_from(rows, row));
        let ran = run.run(pipeline, &mut stages, &part, &mut flow);
        stages.iter_mut().for_each(Stage::end_block);
        ran?;
        for row in 0..flow.rows.len() {
            let file = output_file(&pipeline.outputs[usize::from(flow.routes[row])]);
            let offset = part.offsets[flow.source_rows[row] as usize];
            lines.push((offset, file, line(flow.rows.values.get(row))));
        }
        for dead in run.dead() {
            let offset = part.offsets[dead.source_row as usize];
            let stage = pipeline.stages.get(dead.stage).map_or("output", |stage| stage.name.as_str());
            let members = [
                ("line", Value::from(offset + 1)),
                ("stage", Value::from(stage)),
                ("code", Value::from(&*dead.code)),
                ("detail", Value::from(dead.detail.as_str())),
            ];
            let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            lines.push((offset, REJECTED.to_owned(), format!("{{{}}}", members.join(", "))));
        }
    }
    let position = rows.offsets.last().map_or(0, |last| last + 1);
    for (index, stage) in stages.iter_mut().enumerate() {
        let Some(window) = stage.window() else { continue };
        let mut emitted = Emitted::default();
        window.close_all(position, &mut emitted)?;
        for row in 0..emitted.len() {
            let output = pipeline.stages[index].outputs[emitted.output[row] as usize];
            lines.push((position, output_file(&pipeline.outputs[usize::from(output)]), line(emitted.values.get(row))));
        }
        stage.end_block();
    }
    // Stable: what one record became stays in the order in which it was made.
    lines.sort_by_key(|line| line.0);
    let mut files: Files = pipeline.outputs.iter().map(|name| (output_file(name), Vec::new())).collect();
    files.insert(REJECTED.to_owned(), Vec::new());
    lines.into_iter().for_each(|(_, file, line)| files.entry(file).or_default().push(line));
    Ok(files)
}

/// A record's value as a line of a case.
fn line(value: Option<&[u8]>) -> String {
    let mut line = Vec::new();
    push_value(&mut line, value);
    String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()
}

const REJECTED: &str = "rejected.ndjson";

fn output_file(output: &str) -> String {
    if output == MAIN_OUTPUT { "out.ndjson".to_owned() } else { format!("out.{output}.ndjson") }
}

/// Holds what came out to the case's files.
fn compare(folder: &Path, found: Files, update: bool, records: usize) -> Result<Outcome, GoldenError> {
    let ending = if folder.join("in.jsonl").is_file() { "jsonl" } else { "ndjson" };
    let named = |name: &str| name.replace("ndjson", ending);
    let mut expected = Files::new();
    for name in found.keys() {
        let path = folder.join(named(name));
        let text = if path.exists() { read(&path)? } else { String::new() };
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        expected.insert(name.clone(), lines);
    }
    let mut found = found;
    if let (Some(found), Some(expected)) = (found.get_mut(REJECTED), expected.get(REJECTED)) {
        forgive(found, expected);
    }
    if !update {
        let text = differences(&expected, &found);
        return Ok(text.map_or(Outcome::Same { records }, |text| Outcome::Different {
            text: format!("  - expected\n  + found; `--update` takes it over\n{text}"),
        }));
    }
    let mut files = Vec::new();
    for (name, lines) in found.iter().filter(|(name, lines)| expected.get(*name) != Some(lines)) {
        let path = folder.join(named(name));
        let text: String = lines.iter().flat_map(|line| [without_detail(name, line), "\n".to_owned()]).collect();
        std::fs::write(&path, text).map_err(|why| GoldenError::File { path, why })?;
        files.push(named(name));
    }
    Ok(Outcome::Updated { files })
}

/// A reason is for people and may be worded better one day; a case that wants it word for word adds it by hand.
fn without_detail(file: &str, line: &str) -> String {
    match line.split_once(", \"detail\": ") {
        Some((line, _)) if file == REJECTED => format!("{line}}}"),
        _ => line.to_owned(),
    }
}

/// Puts the expected text in the place of found objects that have all its members.
fn forgive(found: &mut [String], expected: &[String]) {
    for (found, expected) in found.iter_mut().zip(expected) {
        let parse = |text: &str| serde_json::from_str::<serde_json::Map<String, Value>>(text).ok();
        let (Some(has), Some(wants)) = (parse(found), parse(expected)) else { continue };
        if !wants.is_empty() && wants.iter().all(|(name, value)| has.get(name) == Some(value)) {
            found.clone_from(expected);
        }
    }
}

/// Each file's lines that differ; `None` where none does.
fn differences(expected: &Files, found: &Files) -> Option<String> {
    let none = Vec::new();
    let mut text = String::new();
    for (name, found) in found {
        let expected = expected.get(name).unwrap_or(&none);
        if expected != found {
            text += &format!("  {name}\n{}", difference(expected, found));
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The lines between what both begin and end with.
fn difference(expected: &[String], found: &[String]) -> String {
    let same = expected.iter().zip(found).take_while(|(expected, found)| expected == found).count();
    let (expected, found) = (&expected[same..], &found[same..]);
    let pairs = expected.iter().rev().zip(found.iter().rev());
    let tail = pairs.take_while(|(expected, found)| expected == found).count();
    let mut text = String::new();
    for (sign, lines) in [('-', &expected[..expected.len() - tail]), ('+', &found[..found.len() - tail])] {
        for (i, line) in lines.iter().take(SHOWN_LINES).enumerate() {
            text += &format!("  {sign} {:>5}  {line}\n", same + i + 1);
        }
        if lines.len() > SHOWN_LINES {
            text += &format!("  {sign}        and {} more\n", lines.len() - SHOWN_LINES);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A case in a folder of its own, with a pipeline of built-in stages.
    fn case(name: &str, stages: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("millstream-golden-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let pipeline = format!(
            "pipeline: p\nsource: {{stdin: {{format: ndjson}}}}\nstages: {stages}\n\
             outputs: {{main: {{discard: }}, b: {{discard: }}}}\ndead_letters: {{to: {{discard: }}}}\n"
        );
        for (name, text) in files.iter().chain([&("pipeline.yaml", pipeline.as_str())]) {
            std::fs::write(folder.join(name), text).expect("a file");
        }
        folder
    }

    const ROUTE: &str = "[{name: r, route: {field: /to, outputs: {b: b}, default: main}}]";
    const IN: &str = "{\"to\":\"a\"}\n{\"to\":\"b\"}\nbroken\n{\"to\":\"c\"}\n";

    #[test]
    fn a_case_is_the_same_or_says_where_it_is_not() {
        let folder = case(
            "same",
            ROUTE,
            &[
                ("in.ndjson", IN),
                ("out.ndjson", "{\"to\":\"a\"}\n{\"to\":\"c\"}\n"),
                ("out.b.ndjson", "{\"to\":\"b\"}\n"),
                ("rejected.ndjson", "{\"line\": 3}\n"),
            ],
        );
        assert_eq!(run(&folder, false).expect("it runs"), Outcome::Same { records: 4 });
        std::fs::write(folder.join("out.ndjson"), "{\"to\":\"a\"}\n{\"to\":\"x\"}\n").expect("a file");
        let Outcome::Different { text } = run(&folder, false).expect("it runs") else { panic!("it differs") };
        let shown = "  out.ndjson\n  -     2  {\"to\":\"x\"}\n  +     2  {\"to\":\"c\"}\n";
        assert!(text.ends_with(shown), "{text}");
        std::fs::remove_dir_all(&folder).expect("a folder");
    }

    #[test]
    fn an_update_makes_a_case_pass_and_leaves_what_passes() {
        let folder = case("update", ROUTE, &[("in.jsonl", IN), ("out.jsonl", "{\"to\":\"a\"}\n{\"to\":\"c\"}\n")]);
        let files = vec!["out.b.jsonl".to_owned(), "rejected.jsonl".to_owned()];
        assert_eq!(run(&folder, true).expect("it runs"), Outcome::Updated { files });
        let rejected = std::fs::read_to_string(folder.join("rejected.jsonl")).expect("a file");
        assert!(rejected.starts_with("{\"line\": 3, \"stage\": \"r\", \"code\": \""), "{rejected}");
        assert!(!rejected.contains("detail"), "{rejected}");
        assert_eq!(run(&folder, false).expect("it runs"), Outcome::Same { records: 4 });
        assert_eq!(run(&folder, true).expect("it runs"), Outcome::Updated { files: vec![] });
        assert_eq!(find(std::slice::from_ref(&folder)).expect("found"), std::slice::from_ref(&folder));
        std::fs::remove_dir_all(&folder).expect("a folder");
    }

    #[test]
    fn tables_of_a_case_stand_for_those_of_the_pipeline() {
        let join = "[{name: j, join: {table: users, on: /id, columns: {city: /city}, no_match: reject}}]\n\
                    tables: {users: {kafka: {topic: t, key: record, brokers: 'localhost:1'}}}";
        let input = ("in.ndjson", "{\"id\":1}\n{\"id\":2}\n");
        let folder = case("tables", join, &[input]);
        let why = run(&folder, false).expect_err("no rows").to_string();
        assert!(why.contains("the table `users` is a topic; put its rows into table.users.ndjson"), "{why}");
        let row = "{\"_key\":\"1\",\"city\":\"Graz\"}\n";
        let out = ("out.ndjson", "{\"id\":1,\"city\":\"Graz\"}\n");
        let rejected = ("rejected.ndjson", "{\"line\": 2, \"code\": \"no_match\"}\n");
        let folder = case("tables", join, &[input, ("table.users.ndjson", row), out, rejected]);
        assert_eq!(run(&folder, false).expect("it runs"), Outcome::Same { records: 2 });
        std::fs::remove_dir_all(&folder).expect("a folder");
    }

    #[test]
    fn a_folder_without_a_case_is_a_mistake() {
        let folder = std::env::temp_dir().join(format!("millstream-golden-none-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("a/b")).expect("a folder");
        let error = find(std::slice::from_ref(&folder)).expect_err("there is none").to_string();
        assert!(error.ends_with("there is no case in it (a folder with in.ndjson or in.jsonl or in.csv)"), "{error}");
        std::fs::remove_dir_all(&folder).expect("a folder");
    }

    #[test]
    fn long_differences_are_cut() {
        let lines = |range: std::ops::Range<u32>| range.map(|i| i.to_string()).collect::<Vec<_>>();
        let text = difference(&lines(0..100), &[lines(0..2), lines(50..100)].concat());
        assert_eq!(text.lines().count(), 11);
        assert!(text.starts_with("  -     3  2\n") && text.ends_with("  -        and 38 more\n"), "{text}");
    }
}
