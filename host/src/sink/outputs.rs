//! The pipeline's outputs as the configuration names them, with one commit over all of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::drain::DirectTable;
use crate::kafka::{KafkaError, Position, Producer, Route, TopicId};
use crate::metrics::ClientFigures;
use crate::pipeline::Flow;
use crate::record::{Place, Rows};
use crate::source::Source;
use crate::task::Output;
use crate::window::StateRows;

use super::files::FileSink;
use super::{DeliveryError, Progress};

/// How long a request of a transaction may take; beyond it its outcome is unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
/// A producer that is put off more often than this in the period has a twin; a broker's restart does it once or twice.
const FENCED_MAX: usize = 5;
const FENCED_PERIOD: Duration = Duration::from_secs(60);
/// How long to wait for room in a full queue before the transaction is given up.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(8);

/// Where one output's rows go.
#[derive(Debug)]
pub enum Target {
    /// A topic of the producer, by the records' keys.
    Topic(TopicId),
    /// One of the files.
    File(usize),
    /// One of the tables that no topic feeds.
    Table(usize),
    /// Nowhere.
    Discard,
}

/// All outputs and the dead letters of one worker.
pub struct Outputs {
    producer: Option<Producer>,
    files: Vec<FileSink>,
    tables: Vec<DirectTable>,
    targets: Vec<Target>,
    dead_letters: Target,
    exactly_once: bool,
    in_transaction: bool,
    /// When the producer was put off by another of its name, lately.
    fenced: Vec<Instant>,
    /// One output's rows, where a batch has several outputs.
    parts: Vec<Rows>,
    /// The topics of stages that keep states, by stage.
    states: BTreeMap<usize, TopicId>,
}

impl Outputs {
    /// Outputs in the pipeline's order. With `exactly_once` the producer is transactional and every target that is not
    /// discarded is a topic.
    pub fn new(
        producer: Option<Producer>,
        (files, tables): (Vec<FileSink>, Vec<DirectTable>),
        targets: Vec<Target>,
        dead_letters: Target,
        exactly_once: bool,
    ) -> Self {
        let parts = targets.iter().map(|_| Rows::default()).collect();
        let (in_transaction, fenced) = (false, Vec::new());
        let states = BTreeMap::new();
        Self { producer, files, tables, targets, dead_letters, exactly_once, in_transaction, fenced, parts, states }
    }

    /// Has the states of stages written to these topics, by stage.
    pub fn with_states(mut self, topics: BTreeMap<usize, TopicId>) -> Self {
        self.states = topics;
        self
    }

    pub(super) fn deliver_states(&mut self, lane: i32, states: &mut [StateRows]) -> Result<(), DeliveryError> {
        for (stage, state) in states.iter_mut().enumerate() {
            let Some(&topic) = self.states.get(&stage) else { continue };
            let route = if state.is_changelog { Route::Partition(lane) } else { Route::ByKey };
            let rows = self.take_rows(&mut state.rows);
            self.produce(topic, &route, rows)?;
            if !state.mark.is_empty() {
                let partitions = self.producer.as_ref().map_or(0, |producer| producer.partitions(topic));
                let mut rows = Rows::default();
                (0..partitions).for_each(|_| rows.push(0, -1, None, Some(&state.mark)));
                self.produce(topic, &Route::Each((0..partitions).collect()), rows)?;
            }
        }
        Ok(())
    }

    pub(super) fn deliver(&mut self, output: &mut Output) -> Result<(), DeliveryError> {
        let (flow, place) = (&mut output.flow, output.place.as_ref());
        let first = flow.routes.first().copied().unwrap_or_default();
        if flow.routes.iter().all(|&route| route == first) {
            let rows = self.take_rows(&mut flow.rows);
            self.send(Some(usize::from(first)), rows, place)?;
        } else {
            self.split(flow);
            for target in 0..self.targets.len() {
                let rows = std::mem::take(&mut self.parts[target]);
                self.send(Some(target), rows, place)?;
            }
        }
        let rows = self.take_rows(&mut output.dead_letters);
        self.send(None, rows, place)
    }

    /// Takes rows out of an output and leaves used buffers in their place.
    fn take_rows(&mut self, rows: &mut Rows) -> Rows {
        if rows.is_empty() {
            return Rows::default();
        }
        let spare = self.producer.as_mut().map(Producer::spare_rows).unwrap_or_default();
        std::mem::replace(rows, spare)
    }

    fn split(&mut self, flow: &Flow) {
        for (row, &route) in flow.routes.iter().enumerate() {
            self.parts[usize::from(route)].push_from(&flow.rows, row);
        }
    }

    /// Hands rows of `place` to an output, or to the dead letters where it is `None`.
    fn send(&mut self, output: Option<usize>, rows: Rows, place: Option<&Place>) -> Result<(), DeliveryError> {
        if rows.is_empty() {
            return Ok(());
        }
        match output.map_or(&self.dead_letters, |output| &self.targets[output]) {
            Target::Discard => Ok(()),
            Target::File(file) => {
                let (file, dead) = (&mut self.files[*file], output.is_none());
                file.write(&rows, dead).map_err(|error| DeliveryError::Fatal(error.to_string()))
            }
            Target::Table(table) => {
                let (table, Some(place)) = (*table, place) else { return Ok(()) };
                let dead = self.tables[table].take(place, rows).map_err(DeliveryError::Fatal)?;
                // What does not fit the table of dead letters is only counted, since it would come back for ever.
                if output.is_some() { self.send(None, dead, Some(place)) } else { Ok(()) }
            }
            Target::Topic(topic) => {
                let topic = *topic;
                self.produce(topic, &Route::ByKey, rows)
            }
        }
    }

    fn produce(&mut self, topic: TopicId, route: &Route, rows: Rows) -> Result<(), DeliveryError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.begin()?;
        let Some(producer) = &mut self.producer else { return Ok(()) };
        let progress = producer.produce(topic, route, rows).map_err(sort)?;
        if progress.waiting > 0 && producer.pump(QUEUE_TIMEOUT).map_err(sort)? > 0 {
            return Err(DeliveryError::Aborted("the brokers take no records".into()));
        }
        fail_on_loss(producer)
    }

    fn begin(&mut self) -> Result<(), DeliveryError> {
        if self.exactly_once && !self.in_transaction {
            if let Some(producer) = &mut self.producer {
                // Nothing is open by our books; where the client sees that otherwise, only a new one helps.
                producer.begin().map_err(|error| match sort(error) {
                    DeliveryError::Aborted(why) => DeliveryError::InDoubt(why),
                    other => other,
                })?;
            }
            self.in_transaction = true;
        }
        Ok(())
    }

    pub(super) fn commit(&mut self, progress: &[Progress], source: &mut Source) -> Result<(), DeliveryError> {
        for file in &mut self.files {
            file.flush().map_err(|error| DeliveryError::Fatal(error.to_string()))?;
        }
        for table in &mut self.tables {
            table.flush_if_due().map_err(DeliveryError::Fatal)?;
        }
        let offsets: Vec<Position> = progress.iter().map(position).collect();
        if !self.exactly_once {
            if let Some(producer) = &mut self.producer {
                producer.flush(REQUEST_TIMEOUT).map_err(sort_plain)?;
                fail_on_loss(producer)?;
            }
            return match source {
                Source::Kafka(source) => source.commit(&offsets).map_err(sort_plain),
                _ => Ok(()),
            };
        }
        self.begin()?;
        let (Some(producer), Source::Kafka(source)) = (&mut self.producer, source) else {
            return Err(DeliveryError::Fatal("exactly_once needs Kafka on both sides".into()));
        };
        // A member that was put out has no metadata any more; its work is not wanted.
        let Some(group) = source.group_metadata() else {
            return Err(DeliveryError::Aborted("not a member of the group".into()));
        };
        let sent = producer.send_offsets(&offsets, &group, REQUEST_TIMEOUT);
        let committed = sent.and_then(|()| producer.commit(REQUEST_TIMEOUT));
        if matches!(committed, Err(KafkaError::Fenced(_))) {
            self.fenced.push(Instant::now());
        }
        committed.map_err(sort)?;
        self.in_transaction = false;
        Ok(())
    }

    pub(super) fn abort(&mut self) -> Result<(), DeliveryError> {
        let Some(producer) = &mut self.producer else { return Ok(()) };
        if !self.exactly_once {
            producer.take_failures();
            return producer.purge().map_err(sort);
        }
        if self.in_transaction {
            producer.abort(REQUEST_TIMEOUT).map_err(sort)?;
            self.in_transaction = false;
        }
        Ok(())
    }

    pub(super) fn renew(&mut self) -> Result<(), DeliveryError> {
        self.in_transaction = false;
        let Some(producer) = &mut self.producer else { return Ok(()) };
        self.fenced.retain(|at| at.elapsed() < FENCED_PERIOD);
        if self.fenced.len() > FENCED_MAX {
            return Err(DeliveryError::Fatal(
                "another process uses the same transactional ids, and the two put each other off: give each process of \
                 this pipeline its own `instance`"
                    .into(),
            ));
        }
        producer.renew(REQUEST_TIMEOUT).map_err(|error| match error {
            KafkaError::Denied(_) | KafkaError::Setting { .. } => DeliveryError::Fatal(error.to_string()),
            error => DeliveryError::InDoubt(error.to_string()),
        })
    }

    pub(super) fn figures(&mut self) -> Option<ClientFigures> {
        self.producer.as_mut()?.take_statistics()
    }

    pub(super) fn close(&mut self, cut_short: bool) -> Result<(), DeliveryError> {
        self.abort()?;
        for mut table in self.tables.drain(..) {
            table.flush().map_err(DeliveryError::Fatal)?;
        }
        for file in self.files.drain(..) {
            let ended = if cut_short { file.leave() } else { file.finish() };
            ended.map_err(|error| DeliveryError::Fatal(error.to_string()))?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs").field("targets", &self.targets).finish_non_exhaustive()
    }
}

fn position(progress: &Progress) -> Position {
    let Place { topic, partition } = progress.place.clone();
    Position { topic, partition, offset: progress.next_offset, metadata: progress.note.clone() }
}

/// A row that the brokers did not take makes its transaction worthless.
fn fail_on_loss(producer: &mut Producer) -> Result<(), DeliveryError> {
    match producer.take_failures().first() {
        None => Ok(()),
        Some(lost) => Err(DeliveryError::Aborted(format!("{}[{}]: {}", lost.topic, lost.partition, lost.error))),
    }
}

/// What follows from an error within a transaction.
fn sort(error: KafkaError) -> DeliveryError {
    let text = error.to_string();
    match error {
        KafkaError::TimedOut(_) | KafkaError::Fenced(_) => DeliveryError::InDoubt(text),
        KafkaError::Denied(_) | KafkaError::Setting { .. } => DeliveryError::Fatal(text),
        KafkaError::Retriable(_)
        | KafkaError::AbortRequired(_)
        | KafkaError::TooLarge { .. }
        | KafkaError::Other(_) => DeliveryError::Aborted(text),
    }
}

/// What follows from an error without transactions: the records are processed again.
fn sort_plain(error: KafkaError) -> DeliveryError {
    match sort(error) {
        DeliveryError::InDoubt(text) => DeliveryError::Aborted(text),
        other => other,
    }
}
