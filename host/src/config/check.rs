//! What no single key can tell: whether the parts of a config fit together.

use super::error::ConfigError;
use super::walk::{At, one_of};
use super::{
    Delivery, OutputConfig, SinkConfig, SourceConfig, StageConfig, StageKind, TableConfig, TableSource, WindowKind,
};

/// Everything that is written to, each with its place in the file.
pub(super) struct Sinks<'s, 'a> {
    pub(super) outputs: &'s [(At<'a>, OutputConfig)],
    pub(super) dead_letters: (&'s At<'a>, &'s SinkConfig),
}

impl<'s, 'a> Sinks<'s, 'a> {
    fn all(&self) -> impl Iterator<Item = (&'s At<'a>, &'s SinkConfig)> {
        self.outputs.iter().map(|(at, output)| (at, &output.sink)).chain([self.dead_letters])
    }
}

/// Every output that a stage names is there.
pub(super) fn routes(
    at: &At<'_>,
    stages: &[StageConfig],
    outputs: &[(At<'_>, OutputConfig)],
) -> Result<(), ConfigError> {
    let names: Vec<&str> = outputs.iter().map(|output| output.1.name.as_str()).collect();
    for (stage, at) in stages.iter().zip(at.list("a list of stages")?) {
        let wanted: Vec<&str> = match &stage.kind {
            StageKind::Route(route) => route.outputs.values().chain([&route.default]).map(String::as_str).collect(),
            StageKind::Window(window) => window.outputs().collect(),
            StageKind::Plugin(_) | StageKind::Select(_) | StageKind::Filter(_) | StageKind::Join(_) => continue,
        };
        if let Some(missing) = wanted.into_iter().find(|name| !names.contains(name)) {
            let text = format!("`{}` sends records to the output `{missing}`; there is {}", stage.name, one_of(&names));
            return Err(at.error(text));
        }
    }
    Ok(())
}

/// States of windows are written with the offsets that they are as of: in one transaction, or not at all.
pub(super) fn states(
    at: &At<'_>,
    stages: &[StageConfig],
    source: &SourceConfig,
    delivery: Delivery,
) -> Result<(), ConfigError> {
    let lasting = matches!(source, SourceConfig::Kafka(_)) && delivery != Delivery::ExactlyOnce;
    for (stage, at) in stages.iter().zip(at.list("a list of stages")?) {
        if lasting && matches!(stage.kind, StageKind::Window(_)) {
            return Err(at.error(format!(
                "`{}` keeps states, which are written in one transaction with the outputs: from Kafka that needs \
                 `delivery: exactly_once`, and so outputs on the source's cluster",
                stage.name
            )));
        }
    }
    Ok(())
}

/// Every table that a `join` names is there, and one that waits has a source that can go back.
pub(super) fn joins(
    at: &At<'_>,
    stages: &[StageConfig],
    (tables, source): (&[TableConfig], &SourceConfig),
) -> Result<(), ConfigError> {
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    let is_in_parts = |table: &&TableConfig| matches!(&table.source, TableSource::Kafka(topic) if topic.co_partitioned);
    if let (SourceConfig::Kafka(kafka), Some(table)) = (source, tables.iter().find(is_in_parts))
        && kafka.topics.len() > 1
    {
        let text = format!("the table `{}` has `copy: partition`, which goes with one topic in the source", table.name);
        return Err(at.error(text));
    }
    for (stage, at) in stages.iter().zip(at.list("a list of stages")?) {
        let StageKind::Join(join) = &stage.kind else { continue };
        if !names.contains(&join.table.as_str()) {
            let there = if names.is_empty() { "none: add it under `tables`".to_owned() } else { one_of(&names) };
            return Err(at.error(format!("`{}` joins with the table `{}`; there is {there}", stage.name, join.table)));
        }
        if join.wait_ms > 0 && !matches!(source, SourceConfig::Kafka(_)) {
            let text =
                format!("`{}` may `wait` only for records of a Kafka topic, which can be read again", stage.name);
            return Err(at.error(text));
        }
    }
    Ok(())
}

/// The topics that pairs are made of are read, and all records of a key come to one place.
pub(super) fn pairs(at: &At<'_>, stages: &[StageConfig], source: &SourceConfig) -> Result<(), ConfigError> {
    for (stage, at) in stages.iter().zip(at.list("a list of stages")?) {
        let StageKind::Window(window) = &stage.kind else { continue };
        let several = matches!(source, SourceConfig::Kafka(kafka) if kafka.topics.len() > 1);
        // Copies of a record are of one topic.
        if several && window.keyed_topic && !matches!(window.kind, WindowKind::Duplicates { .. }) {
            return Err(at.error(format!(
                "`{}` has `keyed_topic`, but records of a key come from several topics, and no two of their partitions need be \
                 with one process: leave it out",
                stage.name
            )));
        }
        let Some(pairs) = window.pairs() else { continue };
        let read: &[String] = match source {
            SourceConfig::Kafka(kafka) => &kafka.topics,
            _ => &[],
        };
        let wanted = || pairs.sides.iter().filter_map(|side| side.topic.as_ref());
        if let Some(unread) = wanted().find(|topic| !read.contains(topic)) {
            let text =
                format!("`{}` takes records of the topic `{unread}`, which the source does not read", stage.name);
            return Err(at.error(text));
        }
    }
    Ok(())
}

/// No file is written twice or read and written, and no pipeline eats its own output.
pub(super) fn places(source: &SourceConfig, sinks: &Sinks<'_, '_>) -> Result<(), ConfigError> {
    let mut seen: Vec<&SinkConfig> = Vec::new();
    for (at, sink) in sinks.all() {
        match (sink, source) {
            (SinkConfig::File(file), SourceConfig::Files(files)) if files.files.iter().any(|f| f.path == file.path) => {
                return Err(at.error(format!("{} is read by the source", file.path.display())));
            }
            (SinkConfig::Kafka(to), SourceConfig::Kafka(from))
                if from.topics.contains(&to.topic) && to.connection.is_same_cluster(&from.connection) =>
            {
                return Err(at.error(format!("the topic {} is the source's: the pipeline would never end", to.topic)));
            }
            _ => {}
        }
        if matches!(sink, SinkConfig::File(_)) && seen.contains(&sink) {
            return Err(at.error("another output writes this file already"));
        }
        seen.push(sink);
    }
    Ok(())
}

/// What stands in the way of `exactly_once`: place and reason; `None` where nothing does.
fn obstacle(source: &SourceConfig, sinks: &Sinks<'_, '_>) -> Option<String> {
    let from = match source {
        SourceConfig::Kafka(kafka) => &kafka.connection,
        SourceConfig::Files(_) => return Some("the source reads files".to_owned()),
        SourceConfig::Stdin(_) => return Some("the source is standard input".to_owned()),
        SourceConfig::Generate(_) => return Some("the source makes its records up".to_owned()),
    };
    sinks.all().find_map(|(at, sink)| match sink {
        SinkConfig::Kafka(to) if to.connection.is_same_cluster(from) => None,
        SinkConfig::Kafka(_) => Some(format!("{} is on another cluster than the source", at.path)),
        SinkConfig::File(_) => Some(format!("{} is a file", at.path)),
        SinkConfig::Stdout => Some(format!("{} is standard output", at.path)),
        SinkConfig::Table(_) => Some(format!("{} is a table without a topic", at.path)),
        SinkConfig::Discard => None,
    })
}

/// The guarantee: what is asked for, if it can be held, or else what follows from source and `main`.
pub(super) fn delivery(
    asked: Option<&At<'_>>,
    root: &At<'_>,
    source: &SourceConfig,
    sinks: &Sinks<'_, '_>,
) -> Result<Delivery, ConfigError> {
    const NEEDS: &str = "exactly_once needs a Kafka source and Kafka outputs on the same cluster, so that one \
                         transaction holds outputs, dead letters and progress";
    let choices = [("exactly_once", Delivery::ExactlyOnce), ("at_least_once", Delivery::AtLeastOnce)];
    let obstacle = obstacle(source, sinks);
    if let Some(at) = asked {
        return match (at.choice(&choices)?, obstacle) {
            (Delivery::ExactlyOnce, Some(obstacle)) => {
                Err(at.error(format!("{NEEDS}; {obstacle}. {}", what_holds(source))))
            }
            (delivery, _) => Ok(delivery),
        };
    }
    let is_kafka_to_kafka = source.connection().is_some() && sinks.outputs[0].1.sink.connection().is_some();
    match obstacle {
        None => Ok(Delivery::ExactlyOnce),
        Some(_) if !is_kafka_to_kafka => Ok(Delivery::AtLeastOnce),
        // Kafka to Kafka promises exactly once; a second output must not take that away in silence.
        Some(obstacle) => {
            let text = format!("{NEEDS}; {obstacle}. Say `delivery: at_least_once` if that is enough");
            let mut error = root.error(text);
            error.key = "delivery".to_owned();
            Err(error)
        }
    }
}

/// What the user can have in place of `exactly_once`.
fn what_holds(source: &SourceConfig) -> &'static str {
    match source {
        SourceConfig::Kafka(_) => "Kafka to files is at_least_once: after a failure, lines may be there twice",
        _ => {
            "Without Kafka leave `delivery` out: a run that fails leaves .partial files only, and the next one writes \
             the same bytes anew"
        }
    }
}
