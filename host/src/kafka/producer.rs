//! A producer of whole columns of rows, in transactions or merely idempotent.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::config::ProducerSettings;
use super::error::{Detail, KafkaError, RawError, code};
use super::native::{Client, GroupMetadata, Side, Stop, TopicIndex, Undelivered};
use super::partitioner::partition_of;
use super::statistics;
use super::types::Position;
use crate::metrics::ClientFigures;
use crate::record::Rows;

/// What a record costs on the wire beside its bytes, at most.
const RECORD_OVERHEAD_BYTES: usize = 512;
const HEADER_OVERHEAD_BYTES: usize = 16;
/// How long a full queue is left alone before the next try.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Rows without a key change their partition every so many offsets: long enough for good batches.
const KEYLESS_RUN: i64 = 1024;

/// A topic that a producer made ready; stays valid when the producer is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicId(usize);

/// Which partition a row goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// All rows to one.
    Partition(i32),
    /// By the key, as Kafka's Java producer does it; rows without a key by their offset, so that a replay agrees.
    ByKey,
    /// Each row to its own; as many as there are rows.
    Each(Vec<i32>),
}

/// What became of rows given to [`Producer::produce`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number by which failures name these rows.
    pub batch: u32,
    /// Rows of this and earlier calls that wait for room in the queue; 0 where all were taken.
    pub waiting: usize,
}

/// A row that was not delivered.
#[derive(Clone, Debug)]
pub struct DeliveryFailure {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The number of [`Progress`].
    pub batch: u32,
    /// The row's index in the rows that were given.
    pub row: usize,
    /// Why.
    pub error: KafkaError,
}

struct Topic {
    name: String,
    index: TopicIndex,
    partitions: i32,
}

/// Rows on their way into the queue, grouped by partition: a run of rows for one partition costs half of what the same
/// rows cost in turns, because each partition's messages then lie side by side in memory.
struct Pending {
    held: usize,
    topic: TopicIndex,
    batch: u32,
    /// Row indexes in the order of sending; empty for the rows' own order.
    order: Vec<u32>,
    /// Partitions, each with its share of `order`.
    runs: VecDeque<(i32, Range<usize>)>,
}

impl Pending {
    fn left(&self) -> usize {
        self.runs.iter().map(|(_, run)| run.len()).sum()
    }
}

/// A producer. Rows belong to it until a flush, commit or abort; their buffers come back by [`Producer::spare_rows`].
pub struct Producer {
    client: Client,
    settings: ProducerSettings,
    topics: Vec<Topic>,
    pending: VecDeque<Pending>,
    failures: Vec<DeliveryFailure>,
    batches: u32,
    doubt: Option<Detail>,
}

impl Producer {
    /// Makes a producer. With a transactional id this waits for the broker to end what an earlier one of the same id
    /// left open, and puts that one off (at most `timeout`).
    pub fn new(settings: ProducerSettings, timeout: Duration) -> Result<Self, KafkaError> {
        let client = start(&settings, timeout)?;
        let (topics, pending, failures) = (Vec::new(), VecDeque::new(), Vec::new());
        Ok(Self { client, settings, topics, pending, failures, batches: 0, doubt: None })
    }

    /// True until a transactional request was not answered in time or the producer was fenced. From then on it takes
    /// nothing: the late request could end the *next* transaction. [`Producer::renew`] makes a new one in its place.
    pub fn is_usable(&self) -> bool {
        self.doubt.is_none()
    }

    /// Drops everything unsent and takes a new epoch from the broker, which ends a transaction that is open or in doubt
    /// and refuses late requests of the old epoch. Topics stay as they are.
    pub fn renew(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        let mut client = start(&self.settings, timeout)?;
        for topic in &mut self.topics {
            topic.index = client.add_topic(&topic.name)?;
        }
        self.pending.clear();
        self.failures.clear();
        self.client = client;
        self.doubt = None;
        Ok(())
    }

    /// Makes a topic ready and learns its number of partitions; fails where there is no such topic.
    pub fn topic(&mut self, name: &str, timeout: Duration) -> Result<TopicId, KafkaError> {
        if let Some(at) = self.topics.iter().position(|topic| topic.name == name) {
            return Ok(TopicId(at));
        }
        let index = self.client.add_topic(name)?;
        let partitions = self.client.partition_count(index, timeout)?;
        self.topics.push(Topic { name: name.to_owned(), index, partitions });
        Ok(TopicId(self.topics.len() - 1))
    }

    /// Asks again for the number of partitions of every topic.
    pub fn refresh_topics(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        for topic in &mut self.topics {
            topic.partitions = self.client.partition_count(topic.index, timeout)?;
        }
        Ok(())
    }

    /// The topic's number of partitions as last asked.
    pub fn partitions(&self, topic: TopicId) -> i32 {
        self.topics[topic.0].partitions
    }

    /// True where the row is small enough to be sent.
    pub fn fits(&self, rows: &Rows, row: usize) -> bool {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let header = |(name, value): (&[u8], _)| name.len() + length(value) + HEADER_OVERHEAD_BYTES;
        let headers: usize = rows.headers.get(row).map(header).sum();
        let bytes = length(rows.keys.get(row)) + length(rows.values.get(row)) + headers;
        bytes + RECORD_OVERHEAD_BYTES <= self.settings.message_max_bytes
    }

    /// Takes rows for a topic. What does not fit into the queue waits in the producer: call [`Producer::pump`] until
    /// nothing does. Fails before anything is sent where a row is too large; ask [`Producer::fits`] first.
    pub fn produce(&mut self, topic: TopicId, route: &Route, rows: Rows) -> Result<Progress, KafkaError> {
        if let Some(row) = (0..rows.len()).find(|&row| !self.fits(&rows, row)) {
            let text = format!("larger than {} bytes", self.settings.message_max_bytes);
            let detail = Detail { doing: "produce", code: code::MESSAGE_TOO_LARGE, text };
            return Err(KafkaError::TooLarge { row, detail });
        }
        let Topic { index, partitions, .. } = self.topics[topic.0];
        let (order, runs) = group(&rows, route, partitions)?;
        self.batches = self.batches.wrapping_add(1);
        let (held, batch) = (self.client.hold(rows), self.batches);
        self.pending.push_back(Pending { held, topic: index, batch, order, runs });
        self.fill()?;
        Ok(Progress { batch, waiting: self.waiting() })
    }

    /// Serves the client's events, and moves waiting rows into the queue as it empties, for at most `timeout`; returns how
    /// many still wait.
    pub fn pump(&mut self, timeout: Duration) -> Result<usize, KafkaError> {
        let deadline = Instant::now() + timeout;
        loop {
            self.fill()?;
            let (waiting, left) = (self.waiting(), deadline.saturating_duration_since(Instant::now()));
            if waiting == 0 || left.is_zero() {
                return Ok(waiting);
            }
            std::thread::sleep(FULL_PAUSE.min(left));
        }
    }

    /// Rows that wait for room in the queue.
    pub fn waiting(&self) -> usize {
        self.pending.iter().map(Pending::left).sum()
    }

    /// Messages in the queue or on the wire.
    pub fn outstanding(&self) -> usize {
        self.client.outstanding()
    }

    fn fill(&mut self) -> Result<(), KafkaError> {
        let failed = self.client.undelivered();
        self.note(failed);
        while let Some(pending) = self.pending.front_mut() {
            let Some((partition, run)) = pending.runs.front_mut() else {
                self.pending.pop_front();
                continue;
            };
            let (order, batch) = (&pending.order, (pending.batch as usize) << 32);
            let row_at = |at: usize| if order.is_empty() { at } else { order[at] as usize };
            let to = (pending.topic, *partition);
            let (taken, stop) = self.client.enqueue(pending.held, to, run.clone().map(row_at), |row| batch | row);
            run.start += taken;
            match stop {
                None => drop(pending.runs.pop_front()),
                Some(Stop::Full) => return Ok(()),
                Some(Stop::Row(row, error)) => return Err(refused(row, error)),
            }
        }
        Ok(())
    }

    fn note(&mut self, failed: Vec<Undelivered>) {
        self.failures.extend(failed.into_iter().map(|failed| DeliveryFailure {
            topic: failed.topic,
            partition: failed.partition,
            batch: (failed.tag >> 32) as u32,
            row: failed.tag & 0xffff_ffff,
            error: failed.error.sort("deliver a row"),
        }));
    }

    /// Rows that were not delivered since this was last asked; in a transaction each of them makes an abort necessary.
    pub fn take_failures(&mut self) -> Vec<DeliveryFailure> {
        std::mem::take(&mut self.failures)
    }

    /// Waits until everything is delivered, at most `timeout`; fails where a row was not.
    pub fn flush(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        let deadline = Instant::now() + timeout;
        self.pump(timeout)?;
        let mut failed = Vec::new();
        let result = self.client.flush(deadline.saturating_duration_since(Instant::now()), &mut failed);
        self.note(failed);
        result.map_err(|error| error.sort("deliver all rows"))?;
        self.release();
        self.failures.first().map_or(Ok(()), |failure| Err(failure.error.clone()))
    }

    /// Begins a transaction.
    pub fn begin(&mut self) -> Result<(), KafkaError> {
        self.usable("begin a transaction")?;
        let result = self.client.begin_transaction();
        self.judge(result.map_err(|error| error.sort("begin a transaction")))
    }

    /// Makes the group's offsets part of the transaction. `group` must be taken after the last rebalance was answered; a
    /// member that was put out is refused, but one that merely gave a partition up is not.
    pub fn send_offsets(
        &mut self,
        positions: &[Position],
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        self.usable("add offsets to the transaction")?;
        let timeout = self.bounded(timeout);
        let result = self.client.send_offsets(positions, group, timeout);
        self.judge(result)
    }

    /// Delivers everything and commits the transaction.
    pub fn commit(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        self.usable("commit the transaction")?;
        let timeout = self.bounded(timeout);
        let deadline = Instant::now() + timeout;
        if self.pump(timeout)? > 0 {
            let text = "rows still wait for room in the queue".to_owned();
            let detail = Detail { doing: "commit the transaction", code: code::TIMED_OUT, text };
            return Err(KafkaError::AbortRequired(detail));
        }
        let mut failed = Vec::new();
        let left = deadline.saturating_duration_since(Instant::now());
        let result = self.client.commit_transaction(left, &mut failed);
        self.note(failed);
        self.judge(result.map_err(|error| error.sort("commit the transaction")))?;
        self.release();
        Ok(())
    }

    /// Drops what was not sent and aborts the transaction.
    pub fn abort(&mut self, timeout: Duration) -> Result<(), KafkaError> {
        self.usable("abort the transaction")?;
        self.pending.clear();
        let (timeout, mut failed) = (self.bounded(timeout), Vec::new());
        let result = self.client.abort_transaction(timeout, &mut failed);
        self.judge(result.map_err(|error| error.sort("abort the transaction")))?;
        self.release();
        self.failures.clear();
        Ok(())
    }

    /// Drops what was not sent or not acknowledged; without transactions only.
    pub fn purge(&mut self) -> Result<(), KafkaError> {
        self.pending.clear();
        self.client.purge().map_err(|error| error.sort("drop what is unsent"))
    }

    /// Empty rows with used buffers, if there are any; otherwise new ones.
    pub fn spare_rows(&mut self) -> Rows {
        self.client.spare().unwrap_or_default()
    }

    /// What librdkafka's statistics say, if there are new ones. To be asked now and then where they are switched on: they
    /// wait in a queue that an idle producer does not look at.
    pub fn take_statistics(&mut self) -> Option<ClientFigures> {
        let failed = self.client.undelivered();
        self.note(failed);
        statistics::read(&self.client.take_statistics()?)
    }

    /// What went wrong in the client since this was last asked; it goes on by itself unless an error says fenced.
    pub fn take_errors(&self) -> Vec<KafkaError> {
        self.client.take_errors().into_iter().map(|error| error.sort("talk to the cluster")).collect()
    }

    fn release(&mut self) {
        if self.pending.is_empty() {
            self.client.release();
        }
    }

    /// Our time-out has to strike before librdkafka repeats a request of its own accord, so that we know of the doubt: a
    /// request there is given up shortly before the transaction's time-out.
    fn bounded(&self, timeout: Duration) -> Duration {
        timeout.min(self.settings.transaction_timeout * 4 / 5)
    }

    fn usable(&self, doing: &'static str) -> Result<(), KafkaError> {
        let Some(doubt) = &self.doubt else {
            return Ok(());
        };
        let text = format!("the producer must be renewed, since it {doubt}");
        Err(KafkaError::Fenced(Detail { doing, code: doubt.code, text }))
    }

    fn judge(&mut self, result: Result<(), KafkaError>) -> Result<(), KafkaError> {
        if let Err(KafkaError::TimedOut(detail) | KafkaError::Fenced(detail)) = &result {
            self.doubt = Some(detail.clone());
        }
        result
    }
}

fn start(settings: &ProducerSettings, timeout: Duration) -> Result<Client, KafkaError> {
    let mut client = Client::new(Side::Producer, &settings.properties()?)?;
    if !settings.transactional_id.is_empty() {
        client.connect(timeout)?;
        client.init_transactions(timeout).map_err(|error| error.sort("start with transactions"))?;
    }
    Ok(client)
}

fn refused(row: usize, error: RawError) -> KafkaError {
    match error.sort("produce") {
        KafkaError::Other(detail) if detail.code == code::MESSAGE_TOO_LARGE => KafkaError::TooLarge { row, detail },
        other => other,
    }
}

type Grouped = (Vec<u32>, VecDeque<(i32, Range<usize>)>);

/// Puts the rows of each partition together, in their order.
fn group(rows: &Rows, route: &Route, partitions: i32) -> Result<Grouped, KafkaError> {
    let keyless = |row: usize| (rows.offsets[row] / KEYLESS_RUN).rem_euclid(i64::from(partitions)) as i32;
    let by_key = |row| rows.keys.get(row).map_or_else(|| keyless(row), |key| partition_of(key, partitions));
    let of: Vec<i32> = match route {
        Route::Partition(partition) => return Ok((Vec::new(), VecDeque::from([(*partition, 0..rows.len())]))),
        Route::ByKey if partitions == 1 => return group(rows, &Route::Partition(0), 1),
        Route::ByKey if partitions > 0 => (0..rows.len()).map(by_key).collect(),
        Route::Each(each) if each.len() == rows.len() => each.clone(),
        Route::ByKey | Route::Each(_) => {
            let text = "no partitions for these rows".to_owned();
            return Err(KafkaError::Other(Detail { doing: "produce", code: code::STATE, text }));
        }
    };
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    order.sort_by_key(|&row| of[row as usize]);
    let mut runs = VecDeque::new();
    let mut start = 0;
    for run in order.chunk_by(|&a, &b| of[a as usize] == of[b as usize]) {
        runs.push_back((of[run[0] as usize], start..start + run.len()));
        start += run.len();
    }
    Ok((order, runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(keys: &[Option<&[u8]>]) -> Rows {
        let mut rows = Rows::default();
        keys.iter().enumerate().for_each(|(i, key)| rows.push(i as i64, -1, *key, Some(b"v")));
        rows
    }

    #[test]
    fn rows_of_a_partition_stay_in_order_and_together() {
        let rows = rows(&[Some(b"a"), Some(b"b"), Some(b"a"), None, Some(b"b")]);
        let (order, runs) = group(&rows, &Route::Each(vec![2, 0, 2, 1, 0]), 3).expect("valid");
        assert_eq!(order, [1, 4, 3, 0, 2]);
        assert_eq!(runs, [(0, 0..2), (1, 2..3), (2, 3..5)]);
    }

    #[test]
    fn keys_go_where_kafkas_own_partitioner_puts_them() {
        let rows = rows(&[Some(b"foobar"), None]);
        let (order, runs) = group(&rows, &Route::ByKey, 5).expect("valid");
        // 0 for the row without a key at offset 0; (-790332482 & 0x7fffffff) % 5 for the other.
        let expected = ((-790332482_i32) & 0x7fff_ffff) % 5;
        assert_eq!((order.len(), runs.iter().map(|(p, _)| *p).collect::<Vec<_>>()), (2, vec![0, expected]));
    }

    #[test]
    fn rows_without_a_partition_are_an_error() {
        assert!(group(&rows(&[None]), &Route::ByKey, 0).is_err());
        assert!(group(&rows(&[None]), &Route::Each(vec![]), 3).is_err());
    }
}
