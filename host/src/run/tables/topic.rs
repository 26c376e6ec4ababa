//! A table that is a topic: read from its beginning to its end, and followed from there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::config::{TableConfig, TableKey, TableTopic};
use crate::kafka::{Admin, BEGINNING, Connection, Consumer, ConsumerSettings, KafkaError, Partition, Polled};
use crate::record::{Batch, Place};
use crate::table::{Accepts, KeyAt, RowReader, Table};

use super::super::RunError;
use super::{Ends, Intake, failed};

/// How long one question to the cluster may take, before the first record and after it.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the ends of the topic are asked for, and its progress is told while it is read.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long one poll waits; also how long it takes to hear that the run ends.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// The most rows that one poll takes.
const ROWS_PER_POLL_MAX: usize = 10_000;
/// What librdkafka fetches ahead.
const QUEUE_KIB: usize = 4 * 1024;

/// Partitions of a table's topic, and what is odd about it; the error says what is wrong with it.
pub(super) fn check(connection: &Connection, topic: &TableTopic) -> Result<(i32, Option<String>), String> {
    let mut admin = Admin::new(connection).map_err(|why| why.to_string())?;
    let partitions = describe(&mut admin, &topic.topic, START_TIMEOUT).map_err(|why| match why {
        why if why.is_unknown_topic() => format!("there is no topic `{}`; create it, compacted", topic.topic),
        KafkaError::Denied(detail) => format!("topic `{}`: not authorised ({detail}); ask for Read on it", topic.topic),
        why => why.to_string(),
    })?;
    let policy = admin.topic_config(&topic.topic, START_TIMEOUT).ok();
    let policy = policy.and_then(|config| config.get("cleanup.policy").cloned());
    let odd = policy.filter(|policy| policy != "compact").map(|policy| {
        format!(
            "topic {} has the cleanup.policy {policy}: rows that the broker deletes are missing after the next start; a \
             table's topic should be compacted",
            topic.topic
        )
    });
    Ok((partitions, odd))
}

/// Fails where a table's topic has not as many partitions as the source's; what can't be asked is no failure.
pub(super) fn compare_counts(
    (admin, topic): (&mut Admin, &str),
    (source_admin, source): (&mut Admin, &str),
    timeout: Duration,
) -> Result<(), String> {
    match (describe(admin, topic, timeout), describe(source_admin, source, timeout)) {
        (Ok(own), Ok(sources)) if own != sources => Err(format!(
            "topic {topic} has {own} partitions, and the source's topic {source} has {sources}: with `copy: partition` both have as \
             many, and the same keys in each; leave `copy` out for a full copy in each process"
        )),
        _ => Ok(()),
    }
}

fn describe(admin: &mut Admin, topic: &str, timeout: Duration) -> Result<i32, KafkaError> {
    let answer = admin.describe_topics(&[topic], timeout)?.pop();
    answer.map_or(Ok(0), |info| info.map(|info| info.partitions))
}

/// Keeps one table as its topic is.
pub(super) struct Follower {
    pub(super) config: TableConfig,
    topic: TableTopic,
    connection: Connection,
    source: Option<(Connection, String)>,
    pub(super) table: Arc<Table>,
    ends: Ends,
}

/// What reads the topic.
pub(super) struct Reader {
    pub(super) admin: Admin,
    /// To ask about the source's topic, where that matters.
    source: Option<Admin>,
    pub(super) consumer: Consumer,
    pub(super) polled: Polled,
    /// For each partition, the offset behind what was read.
    pub(super) positions: BTreeMap<i32, i64>,
    pub(super) looked: Instant,
}

impl Follower {
    pub(super) fn new(
        config: &TableConfig,
        (topic, connection): (&TableTopic, Connection),
        source: Option<(Connection, String)>,
        table: &Arc<Table>,
        ends: Ends,
    ) -> Self {
        Self { config: config.clone(), topic: topic.clone(), connection, source, table: table.clone(), ends }
    }

    /// Reads the topic, tells that it has, and follows it until the run ends or the table can't be kept any more, which
    /// ends the run.
    pub(super) fn run(self, tell: &Sender<()>) -> Result<(), RunError> {
        let result = self.keep(tell).map_err(|why| failed(&self.config, why));
        if result.is_err() {
            self.ends.stop.store(true, Ordering::Relaxed);
        }
        result
    }

    fn keep(&self, tell: &Sender<()>) -> Result<(), String> {
        let key = match &self.topic.key {
            TableKey::Record => KeyAt::Record,
            TableKey::Field(path) => KeyAt::Field(path.clone()),
        };
        let reader = RowReader::new(key, self.table.columns(), Accepts::Json, "").map_err(|why| why.to_string())?;
        let mut intake = Intake::new(&self.config, &self.table, reader);
        let (_, odd) = check(&self.connection, &self.topic)?;
        odd.into_iter().for_each(|odd| tracing::warn!("table `{}`: {odd}", self.config.name));
        let mut reader = self.open().map_err(|why| why.to_string())?;
        if self.topic.co_partitioned {
            self.check_counts(&mut reader, START_TIMEOUT)?;
            return if tell.send(()).is_ok() { self.keep_parts(&mut reader, &mut intake) } else { Ok(()) };
        }
        if !self.load(&mut reader, &mut intake)? || tell.send(()).is_err() {
            return Ok(());
        }
        while !self.is_over() {
            if reader.looked.elapsed() >= LOOK_INTERVAL {
                intake.bad = 0;
                self.look(&mut reader)?;
            }
            self.poll(&mut reader)?;
            self.apply(&mut reader, &mut intake)?;
        }
        Ok(())
    }

    /// Fails where topic and source have not as many partitions; what can't be asked now is asked again later.
    pub(super) fn check_counts(&self, reader: &mut Reader, timeout: Duration) -> Result<(), String> {
        let (Some(admin), Some((_, source))) = (&mut reader.source, &self.source) else { return Ok(()) };
        compare_counts((&mut reader.admin, &self.topic.topic), (admin, source), timeout)
    }

    pub(super) fn is_over(&self) -> bool {
        self.ends.done.load(Ordering::Relaxed) || self.ends.stop.load(Ordering::Relaxed)
    }

    pub(super) fn place(&self, partition: i32) -> Partition {
        Partition::new(self.topic.topic.as_str(), partition)
    }

    fn open(&self) -> Result<Reader, KafkaError> {
        let mut settings = ConsumerSettings::new(self.connection.clone(), "");
        settings.report_ends = true;
        settings.queue_kib = QUEUE_KIB;
        settings.offset_reset = "error".to_owned();
        let consumer = Consumer::new(&settings)?;
        consumer.connect(START_TIMEOUT)?;
        let (polled, positions) = (Polled::default(), BTreeMap::new());
        let source = self.source.as_ref().filter(|_| self.topic.co_partitioned);
        let source = source.map(|(connection, _)| Admin::new(connection)).transpose()?;
        Ok(Reader { admin: Admin::new(&self.connection)?, source, consumer, polled, positions, looked: Instant::now() })
    }

    /// Reads up to where the topic ends now; false where the run ended before.
    fn load(&self, reader: &mut Reader, intake: &mut Intake<'_>) -> Result<bool, String> {
        let started = Instant::now();
        let ends = self.begin(reader).map_err(|why| why.to_string())?;
        let is_behind = |reader: &Reader| ends.iter().find(|(partition, end)| reader.positions[partition] < **end);
        while let Some((partition, end)) = is_behind(reader) {
            if self.is_over() {
                return Ok(false);
            }
            if reader.looked.elapsed() >= LOOK_INTERVAL {
                reader.looked = Instant::now();
                let (name, place, at) = (&self.config.name, self.place(*partition), reader.positions[partition]);
                tracing::info!(
                    "table `{name}`: {} rows so far; {place} is read up to {at} of {end}",
                    intake.rows.rows()
                );
            }
            self.poll(reader)?;
            self.take(reader, intake)?;
            intake.check_memory(intake.rows.bytes() as u64, intake.rows.rows() as u64)?;
        }
        intake.tell(&self.table);
        let snapshot = self.table.empty().with(std::mem::replace(&mut intake.rows, self.table.empty().changes()));
        let (rows, bytes) = (snapshot.rows(), snapshot.bytes());
        tracing::info!(
            "table `{}`: {rows} rows from topic {} in {} ms, {} bytes a row",
            self.config.name,
            self.topic.topic,
            started.elapsed().as_millis(),
            bytes.checked_div(rows).unwrap_or(0)
        );
        self.table.publish(snapshot);
        self.table.note_load();
        Ok(true)
    }

    /// Has all partitions read from their beginning, and returns where each ends: committed or not, since a reader of
    /// committed records is told of an end that lies before a transaction that is still open.
    fn begin(&self, reader: &mut Reader) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let partitions = describe(&mut reader.admin, &self.topic.topic, START_TIMEOUT)?;
        let mut ends = BTreeMap::new();
        for partition in 0..partitions {
            let (first, end) = reader.admin.watermarks(&self.place(partition), START_TIMEOUT)?;
            ends.insert(partition, end);
            reader.positions.insert(partition, first);
        }
        let starts: Vec<_> = (0..partitions).map(|partition| self.place(partition).at(BEGINNING)).collect();
        reader.consumer.assign(&starts)?;
        Ok(ends)
    }

    /// Fetches what has come. What is wrong with the servers is noted and waited out; what is wrong with the topic ends
    /// the run.
    pub(super) fn poll(&self, reader: &mut Reader) -> Result<(), String> {
        reader.consumer.poll(POLL_WAIT, ROWS_PER_POLL_MAX, &mut reader.polled);
        let polled = &reader.polled;
        for batch in &polled.batches {
            reader.positions.insert(batch.partition, batch.next_offset);
        }
        for end in &polled.ends {
            let position = reader.positions.entry(end.partition).or_insert(end.offset);
            *position = end.offset.max(*position);
        }
        polled.errors.iter().for_each(|why| self.note_failure(&why.to_string()));
        if let Some(place) = polled.unreadable.first() {
            let at = format!("{} offset {}", place.place(), place.offset);
            return Err(format!("{at}: the client can't read on; it was built without zstd, or the record is broken"));
        }
        if let Some(place) = polled.out_of_range.first() {
            let at = reader.positions.get(&place.partition).copied().unwrap_or_default();
            return Err(format!("{place}: offset {at} is no longer in the topic; start again to read what there is"));
        }
        Ok(())
    }

    pub(super) fn note_failure(&self, why: &str) {
        if self.table.note_failure(why) {
            tracing::warn!("table `{}` stays as it is for now: {why}", self.config.name);
        }
    }

    /// Hands over what was fetched.
    fn take(&self, reader: &mut Reader, intake: &mut Intake<'_>) -> Result<u64, String> {
        let mut rows = 0;
        for batch in reader.polled.batches.drain(..) {
            rows += batch.rows.len() as u64;
            self.take_batch(&batch, intake)?;
            reader.consumer.recycle(batch.rows);
        }
        Ok(rows)
    }

    pub(super) fn take_batch(&self, batch: &Batch, intake: &mut Intake<'_>) -> Result<(), String> {
        for row in 0..batch.rows.len() {
            let place = || format!("{}[{}] offset {}", batch.topic, batch.partition, batch.rows.offsets[row]);
            match (&self.topic.key, batch.rows.keys.get(row), batch.rows.values.get(row)) {
                (_, key, Some(value)) => intake.take(key, value, place)?,
                (TableKey::Record, Some(key), None) => intake.rows.delete(key).map_err(|why| why.to_string())?,
                (TableKey::Record, None, None) => intake.refuse(&"it has neither key nor value", place)?,
                (TableKey::Field(path), _, None) => {
                    intake
                        .refuse(&format!("a tombstone has no {path}; `key: record` finds the row to delete"), place)?;
                }
            }
        }
        Ok(())
    }

    /// Puts what was fetched in force.
    fn apply(&self, reader: &mut Reader, intake: &mut Intake<'_>) -> Result<(), String> {
        if reader.polled.batches.iter().all(|batch| batch.rows.is_empty()) {
            return Ok(());
        }
        let (snapshot, bad) = (self.table.snapshot(), intake.bad);
        intake.rows = snapshot.changes();
        let rows = self.take(reader, intake)?;
        let next = snapshot.with(std::mem::replace(&mut intake.rows, snapshot.changes()));
        intake.check_memory(next.bytes(), next.rows())?;
        self.table.publish(next);
        self.table.note_changes(rows);
        self.table.note_bad_rows(intake.bad - bad);
        Ok(())
    }

    /// Asks where the topic ends: how far the table is behind it, and whether it is the topic that it was.
    fn look(&self, reader: &mut Reader) -> Result<(), String> {
        reader.looked = Instant::now();
        match self.ends(reader) {
            Err(why) => self.note_failure(&why.to_string()),
            Ok(ends) => {
                let mut lags = Vec::new();
                for (partition, end) in ends {
                    let place = self.place(partition);
                    let at = reader.positions.get(&partition).copied().unwrap_or_default();
                    if end < at {
                        return Err(format!(
                            "{place} ends at {end}, but was read up to {at}: the topic is another one"
                        ));
                    }
                    lags.push((Place { topic: place.topic, partition }, (end - at) as u64));
                }
                self.table.note_lags(lags);
                if self.table.note_current() {
                    tracing::info!("table `{}` is kept current again", self.config.name);
                }
            }
        }
        Ok(())
    }

    /// The end of each partition; those that are new are read too.
    fn ends(&self, reader: &mut Reader) -> Result<Vec<(i32, i64)>, KafkaError> {
        let partitions = describe(&mut reader.admin, &self.topic.topic, LOOK_TIMEOUT)?;
        let mut ends = Vec::new();
        for partition in 0..partitions {
            let place = self.place(partition);
            let (first, end) = reader.admin.watermarks(&place, LOOK_TIMEOUT)?;
            if !reader.positions.contains_key(&partition) {
                reader.consumer.assign(&[place.at(BEGINNING)])?;
                reader.positions.insert(partition, first);
                tracing::info!("table `{}`: {place} is new, and is read too", self.config.name);
            }
            ends.push((partition, end));
        }
        Ok(ends)
    }
}
