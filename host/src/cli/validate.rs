//! `millstream validate`: everything that can be known before a pipeline runs.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::logs;
use crate::config::{Config, Delivery, GenerateConfig, SinkConfig, SourceConfig, Start};
use crate::plugin::{Descriptor, TableField};
use crate::run::{ClusterReport, Prepared, check_cluster, check_table_topics, check_tables, feeds, load_file_tables};

/// Checks a pipeline's file, its plugins and that they fit each other; with --connect, the servers too.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Pipelines' files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Ask the servers too: topics, partitions, authorisation, the largest message; nothing is made
    #[arg(long)]
    connect: bool,
    /// Read the file only: plugins need not be built
    #[arg(long, conflicts_with = "connect")]
    config_only: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    logs::start_quiet();
    for file in &args.files {
        let config = Config::load(file)?;
        let mut text = summary(&config);
        if !args.config_only {
            let prepared = Prepared::new(&config)?;
            text += &stages(&config, &prepared);
            load_file_tables(&config, prepared.tables())?;
            text += &lookup_tables(&prepared);
            if args.connect {
                text += &cluster(&check_cluster(&config)?);
                for (table, found) in check_table_topics(&config, prepared.tables())? {
                    let _ = writeln!(text, "  table {table:<20}{found}");
                }
                text += &tables(&check_tables(&config)?);
            }
        }
        write!(std::io::stdout(), "{text}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(config: &Config) -> String {
    let mut text = format!("{} is valid\n", config.file.display());
    let delivery = match config.delivery {
        Delivery::ExactlyOnce => "exactly_once",
        Delivery::AtLeastOnce => "at_least_once",
    };
    let outputs = config.outputs.iter().map(|output| (output.name.as_str(), &output.sink));
    // Writing to a string can't fail.
    let _ = writeln!(text, "  {:<14}{}, {delivery}", "pipeline", config.pipeline);
    let _ = writeln!(text, "  {:<14}{}", "source", source(&config.source));
    for (name, sink) in outputs.chain([("dead letters", &config.dead_letters.to)]) {
        let _ = writeln!(text, "  {name:<14}{}", place(sink));
    }
    for feed in feeds(config) {
        let (output, topic, table) = (&feed.output, &feed.topic, &feed.table);
        let _ = writeln!(
            text,
            "  {output:<14}table {}.{} on {}, from topic {topic}",
            table.database, table.table, table.url
        );
    }
    text
}

fn tables(checked: &[(String, Vec<String>)]) -> String {
    let mut text = String::new();
    for (output, notes) in checked {
        let _ = writeln!(text, "  {output:<14}its table takes rows as configured");
        for note in notes {
            let _ = writeln!(text, "    note: {note}");
        }
    }
    text
}

fn source(source: &SourceConfig) -> String {
    match source {
        SourceConfig::Kafka(kafka) => {
            let start = match kafka.start {
                None => "its committed offsets, which it must have".to_owned(),
                Some(Start::Earliest) => "its committed offsets or the first record".to_owned(),
                Some(Start::Latest) => "its committed offsets or the end".to_owned(),
                Some(Start::TimestampMs(time_ms)) => format!("its committed offsets or {time_ms} ms since 1970"),
            };
            let brokers = &kafka.connection.brokers;
            let what = if kafka.topics.len() == 1 { "topic" } else { "topics" };
            format!("{what} {} on {brokers}, group {} from {start}", kafka.topics.join(", "), kafka.group)
        }
        SourceConfig::Files(files) => match files.files.as_slice() {
            [file] => file.path.display().to_string(),
            files => format!("{} files", files.len()),
        },
        SourceConfig::Stdin(_) => "standard input".to_owned(),
        SourceConfig::Generate(GenerateConfig::Clickstream(config)) => {
            let records = config.records.map_or("endless".to_owned(), |records| records.to_string());
            format!("{records} made-up clickstream records in {} partitions, seed {}", config.partitions, config.seed)
        }
    }
}

fn place(sink: &SinkConfig) -> String {
    match sink {
        SinkConfig::Kafka(kafka) => {
            let key = kafka.key.as_ref().map_or(String::new(), |key| format!(", keyed by {key}"));
            format!("topic {} on {}{key}", kafka.topic, kafka.connection.brokers)
        }
        SinkConfig::File(file) => file.path.display().to_string(),
        SinkConfig::Stdout => "standard output".to_owned(),
        SinkConfig::Table(table) => format!("table {}.{} on {}", table.database, table.table, table.url),
        SinkConfig::Discard => "nowhere".to_owned(),
    }
}

fn stages(config: &Config, prepared: &Prepared) -> String {
    let mut text = String::new();
    for (stage, (descriptor, digest)) in config.stages.iter().zip(prepared.descriptors()) {
        let digest = digest.get(..12).map_or("built in".to_owned(), |digest| format!("sha256 {digest}…"));
        let Descriptor { name, version, .. } = descriptor;
        let _ = writeln!(text, "  stage {:<20}{name} {version}, {digest}", stage.name);
        let reads = descriptor.reads.iter().map(|read| read.path.as_str()).collect::<Vec<_>>();
        let writes = descriptor.writes.iter().map(|write| write.path.as_str()).collect::<Vec<_>>();
        let column = |column: &TableField| format!("{}{}", column.table, column.path);
        let joined = descriptor.joins.iter().map(|join| &join.column).chain(&descriptor.lookups);
        let joined: Vec<String> = joined.map(column).collect();
        let joined = joined.iter().map(String::as_str).collect();
        for (verb, paths) in [("reads", reads), ("joins", joined), ("writes", writes)] {
            if !paths.is_empty() {
                let _ = writeln!(text, "    {verb:<7}{}", paths.join(" "));
            }
        }
    }
    let parses = match prepared.pipeline.parses() {
        0 => "not parsed".to_owned(),
        1 => "parsed once".to_owned(),
        more => format!("parsed {more} times"),
    };
    let _ = writeln!(text, "  a record is {parses}");
    text
}

fn lookup_tables(prepared: &Prepared) -> String {
    let mut text = String::new();
    for table in prepared.tables().values() {
        let reading = table.reading();
        let columns: Vec<&str> = table.columns().iter().map(|column| column.path.as_str()).collect();
        let (name, bytes) = (&reading.name, reading.bytes);
        let bad = if reading.bad_rows > 0 { format!(", {} left out", reading.bad_rows) } else { String::new() };
        let rows = match reading.loads {
            0 => String::new(),
            _ => format!(", {} rows in {bytes} bytes{bad}", reading.rows),
        };
        let _ = writeln!(text, "  table {name:<20}keeps {}{rows}", columns.join(" "));
    }
    text
}

fn cluster(report: &ClusterReport) -> String {
    if report.cluster_id.is_empty() {
        return "  no servers to ask\n".to_owned();
    }
    let mut text = format!("  {:<14}{}\n", "cluster", report.cluster_id);
    if report.source_partitions > 0 {
        let _ = writeln!(text, "  {:<14}{} partitions", "source", report.source_partitions);
    }
    for (topic, partitions) in &report.partitions {
        let bytes = report.message_bytes.get(topic).copied().unwrap_or_default();
        let _ = writeln!(text, "  topic {topic:<20}{partitions} partitions, records of at most {bytes} bytes");
    }
    for topic in &report.missing {
        let _ = writeln!(text, "  topic {topic:<20}is not there; a run makes it");
    }
    text
}
