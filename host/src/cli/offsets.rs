//! `millstream offsets`: where a pipeline's group stands, and setting it elsewhere.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::kafka::{TIMEOUT, source};
use super::{Mistake, logs};
use crate::config::{Config, Start, parse_start};
use crate::kafka::{Admin, Connection, Partition, Position};
use crate::run::{feeds, merging_groups};

/// Shows or moves the offsets of a pipeline's group.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Shows each partition's first, committed and last offset.
    Show {
        /// The pipeline's file
        file: PathBuf,
        /// The group that brings this output's records into its table, instead of the source's
        #[arg(long)]
        output: Option<String>,
    },
    /// Moves the group; it must be stopped. Without --execute nothing is changed, only shown.
    Reset {
        /// The pipeline's file
        file: PathBuf,
        /// earliest, latest, a time such as 2026-03-01T10:00:00Z, or an offset
        #[arg(long)]
        to: String,
        /// The group that brings this output's records into its table, instead of the source's
        #[arg(long)]
        output: Option<String>,
        /// A partition to move, instead of all; may be repeated
        #[arg(long)]
        partition: Vec<i32>,
        /// Do it
        #[arg(long)]
        execute: bool,
    },
}

/// Where a partition's group is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Start(Start),
    Offset(i64),
}

/// A group on one topic or several.
struct Group {
    connection: Connection,
    brokers: String,
    topics: Vec<String>,
    group: String,
}

impl Group {
    /// The source's, or the one that feeds the table of `output`.
    fn of(config: &Config, output: Option<&str>) -> Result<Self> {
        let Some(output) = output else {
            let (source, connection) = source(config)?;
            let (topics, group) = (source.topics.clone(), source.group.clone());
            return Ok(Self { connection, brokers: source.connection.brokers.clone(), topics, group });
        };
        let feeds = feeds(config);
        let Some(feed) = feeds.iter().find(|feed| feed.output == output) else {
            let known: Vec<&str> = feeds.iter().map(|feed| feed.output.as_str()).collect();
            let known = if known.is_empty() { "none has".to_owned() } else { known.join(", ") };
            return Err(Mistake(format!("--output {output}: it has no table; outputs with one: {known}")).into());
        };
        let connection = Connection::from(&feed.connection);
        let (topics, group) = (vec![feed.topic.clone()], feed.group.clone());
        Ok(Self { connection, brokers: feed.connection.brokers.clone(), topics, group })
    }
}

/// What is known of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    place: Partition,
    first: i64,
    committed: Option<i64>,
    end: i64,
}

pub(super) fn run(command: &Command) -> Result<ExitCode> {
    logs::start_quiet();
    match command {
        Command::Show { file, output } => {
            let group = Group::of(&Config::load(file)?, output.as_deref())?;
            let lines = lines(&group, &mut Admin::new(&group.connection)?)?;
            show(&group, &lines, &[])?;
        }
        Command::Reset { file, to, output, partition, execute } => {
            let target = parse_target(to)?;
            let config = Config::load(file)?;
            let group = Group::of(&config, output.as_deref())?;
            let merging = if output.is_none() { merging_groups(&config) } else { Vec::new() };
            if !merging.is_empty() && !partition.is_empty() {
                let why = "--partition: the pipeline merges states of all partitions, so that all are moved or none";
                return Err(Mistake(why.to_owned()).into());
            }
            if group.topics.len() > 1 && !partition.is_empty() {
                let why = "--partition: the pipeline reads several topics, of which each has such a partition: all are moved or none";
                return Err(Mistake(why.to_owned()).into());
            }
            let merging = merging.into_iter().map(|(topic, name)| Group {
                connection: group.connection.clone(),
                brokers: group.brokers.clone(),
                topics: vec![topic],
                group: name,
            });
            // States begin anew with the records: what was sent on and is not merged yet would be there twice.
            let merging: Vec<Group> = merging.collect();
            reset(&group, target, partition, *execute)?;
            for group in merging.iter().filter(|group| is_there(group)) {
                reset(group, Target::Start(Start::Latest), &[], *execute)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// True where the group's topic was made already.
fn is_there(group: &Group) -> bool {
    let topics: Vec<&str> = group.topics.iter().map(String::as_str).collect();
    let describe = |mut admin: Admin| admin.describe_topics(&topics, TIMEOUT);
    Admin::new(&group.connection).and_then(describe).is_ok_and(|found| found.iter().all(Result::is_ok))
}

fn parse_target(text: &str) -> Result<Target, Mistake> {
    let offset = || text.parse().ok().filter(|offset| *offset >= 0).map(Target::Offset);
    parse_start(text).map(Target::Start).or_else(offset).ok_or_else(|| {
        Mistake(format!("--to {text}: expected earliest, latest, a time such as 2026-03-01T10:00:00Z, or an offset"))
    })
}

fn lines(of: &Group, admin: &mut Admin) -> Result<Vec<Line>> {
    let doing = || format!("can't read the topic {} on {}", of.topics.join(", "), of.brokers);
    admin.cluster_id(TIMEOUT).with_context(doing)?;
    let mut places: Vec<Partition> = Vec::new();
    for topic in &of.topics {
        let answer = admin.describe_topics(&[topic], TIMEOUT).with_context(doing)?.pop();
        let partitions = answer.transpose().with_context(doing)?.map_or(0, |info| info.partitions);
        places.extend((0..partitions).map(|partition| Partition::new(topic.as_str(), partition)));
    }
    let committed = admin.group_offsets(&of.group, &places, TIMEOUT).with_context(doing)?;
    let line = |(place, committed): (Partition, Option<Position>)| {
        let (first, end) = admin.watermarks(&place, TIMEOUT)?;
        Ok(Line { place, first, committed: committed.map(|position| position.offset), end })
    };
    places.into_iter().zip(committed).map(line).collect()
}

fn reset(of: &Group, target: Target, partitions: &[i32], execute: bool) -> Result<()> {
    let mut admin = Admin::new(&of.connection)?;
    let mut lines = lines(of, &mut admin)?;
    if let Some(missing) = partitions.iter().find(|wanted| !lines.iter().any(|line| line.place.partition == **wanted)) {
        return Err(Mistake(format!(
            "--partition {missing}: the topic {} has none of that number",
            of.topics.join(", ")
        ))
        .into());
    }
    lines.retain(|line| partitions.is_empty() || partitions.contains(&line.place.partition));
    let to = offsets(&admin, &lines, target)?;
    show(of, &lines, &to)?;
    let group = admin.group_state(&of.group, TIMEOUT)?;
    if !group.is_empty() {
        let (name, members, state) = (&of.group, group.members, &group.state);
        anyhow::bail!("the group {name} has {members} members ({state}): stop the pipeline first. Nothing was changed");
    }
    if !execute {
        writeln!(std::io::stdout(), "nothing was changed; add --execute to do it")?;
        return Ok(());
    }
    let positions: Vec<Position> = lines.iter().zip(&to).map(|(line, offset)| line.place.at(*offset)).collect();
    admin.set_group_offsets(&of.group, &positions, TIMEOUT)?;
    writeln!(std::io::stdout(), "the group {} was moved", of.group)?;
    Ok(())
}

/// The new offset of each partition; an offset that is not in the log is refused.
fn offsets(admin: &Admin, lines: &[Line], target: Target) -> Result<Vec<i64>> {
    match target {
        Target::Start(Start::Earliest) => Ok(lines.iter().map(|line| line.first).collect()),
        Target::Start(Start::Latest) => Ok(lines.iter().map(|line| line.end).collect()),
        Target::Start(Start::TimestampMs(time_ms)) => {
            let times: Vec<Position> = lines.iter().map(|line| line.place.at(time_ms)).collect();
            let found = admin.offsets_for_times(&times, TIMEOUT)?;
            // Where nothing is as young as that, the end is where such a record will come.
            let offset = |(line, found): (&Line, Option<Position>)| found.map_or(line.end, |position| position.offset);
            Ok(lines.iter().zip(found).map(offset).collect())
        }
        Target::Offset(offset) => {
            if let Some(line) = lines.iter().find(|line| !(line.first..=line.end).contains(&offset)) {
                let Line { place, first, end, .. } = line;
                return Err(Mistake(format!("--to {offset}: {place} holds the offsets {first} to {end}")).into());
            }
            Ok(vec![offset; lines.len()])
        }
    }
}

fn show(of: &Group, lines: &[Line], to: &[i64]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let new_head = if to.is_empty() { "" } else { "new" };
    let mut topic = "";
    for (i, Line { place, first, committed, end }) in lines.iter().enumerate() {
        if *place.topic != *topic {
            topic = &place.topic;
            writeln!(out, "group {} on topic {topic}", of.group)?;
            let heads = ["partition", "first", "committed", "end", "lag"];
            let [partition, first, committed, end, lag] = heads;
            writeln!(out, "{partition:>9} {first:>14} {committed:>14} {end:>14} {lag:>14} {new_head:>14}")?;
        }
        let lag = (end - committed.unwrap_or(*first).max(*first)).max(0);
        let committed = committed.map_or("-".to_owned(), |offset| offset.to_string());
        let new = to.get(i).map_or(String::new(), i64::to_string);
        writeln!(out, "{:>9} {first:>14} {committed:>14} {end:>14} {lag:>14} {new:>14}", place.partition)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_word_a_time_or_an_offset() {
        let parsed = |text: &str| parse_target(text).map_err(|error| error.to_string());
        assert_eq!(parsed("earliest"), Ok(Target::Start(Start::Earliest)));
        assert_eq!(parsed("42"), Ok(Target::Offset(42)));
        assert_eq!(parsed("1970-01-01T00:00:01Z"), Ok(Target::Start(Start::TimestampMs(1_000))));
        assert!(parsed("-1").is_err_and(|text| text.starts_with("--to -1: expected earliest")));
    }
}
