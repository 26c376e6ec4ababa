//! Topics: made, filled, read back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream::kafka::{
    Admin, Connection, Consumer, ConsumerSettings, Partition, Polled, Position, Producer, ProducerSettings, Route,
    TopicPlan,
};
use millstream::record::Rows;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Makes topics with as many partitions, and waits until they are there.
pub fn make(brokers: &str, names: &[&str], partitions: i32) {
    // The records of a test may be of any age; none of them is to be cleaned away.
    make_with(brokers, names, partitions, &[("retention.ms", "-1")]);
}

/// The same, with a configuration.
pub fn make_with(brokers: &str, names: &[&str], partitions: i32, config: &[(&str, &str)]) {
    let mut admin = Admin::new(&Connection::new(brokers)).expect("an admin client");
    let config: BTreeMap<String, String> =
        config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let plan = |name: &&str| TopicPlan { name: (*name).to_owned(), partitions, replication: 1, config: config.clone() };
    let plans: Vec<TopicPlan> = names.iter().map(plan).collect();
    for answer in admin.create_topics(&plans, TIMEOUT).expect("the broker answers") {
        answer.expect("the topic is made");
    }
    let end = Instant::now() + TIMEOUT;
    while admin.describe_topics(names, TIMEOUT).is_ok_and(|topics| topics.iter().any(Result::is_err)) {
        assert!(Instant::now() < end, "the topics do not appear");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A producer without transactions, with one topic.
pub struct Filler {
    producer: Producer,
    topic: millstream::kafka::TopicId,
}

impl Filler {
    /// Connects.
    pub fn new(brokers: &str, topic: &str) -> Self {
        let mut producer =
            Producer::new(ProducerSettings::new(Connection::new(brokers), ""), TIMEOUT).expect("a producer");
        let topic = producer.topic(topic, TIMEOUT).expect("the topic is there");
        Self { producer, topic }
    }

    /// Sends rows by their keys and waits until they are written, through restarts of the broker.
    pub fn send(&mut self, rows: Rows) {
        self.producer.produce(self.topic, &Route::ByKey, rows).expect("rows are taken");
        self.producer.flush(Duration::from_secs(120)).expect("rows are written");
    }
}

/// Everything in a topic, partition by partition in order, as a reader sees it.
pub fn read(brokers: &str, topic: &str, read_committed: bool) -> Vec<Rows> {
    let mut admin = Admin::new(&Connection::new(brokers)).expect("an admin client");
    let info =
        admin.describe_topics(&[topic], TIMEOUT).expect("the broker answers").remove(0).expect("the topic is there");
    let mut settings = ConsumerSettings::new(Connection::new(brokers), "");
    settings.read_committed = read_committed;
    settings.report_ends = true;
    let mut consumer = Consumer::new(&settings).expect("a consumer");
    let places: Vec<Partition> = (0..info.partitions).map(|partition| Partition::new(topic, partition)).collect();
    let starts: Vec<_> = places.iter().map(|place| place.at(0)).collect();
    consumer.assign(&starts).expect("partitions are assigned");
    let mut all = vec![Rows::default(); info.partitions as usize];
    // A transaction that a crash left open hides what is committed behind it until it times out: the end is where a
    // reader of everything sees it.
    let end_of = |place: &Partition| admin.watermarks(place, TIMEOUT).expect("the end of a partition").1;
    let ends: Vec<i64> = places.iter().map(end_of).collect();
    let mut ended: Vec<bool> = ends.iter().map(|&end| end == 0).collect();
    let mut polled = Polled::default();
    let end = Instant::now() + Duration::from_secs(120);
    while ended.contains(&false) {
        assert!(Instant::now() < end, "the end of `{topic}` is never reached");
        consumer.poll(Duration::from_millis(100), 10_000, &mut polled);
        for batch in polled.batches.drain(..) {
            let rows = &mut all[batch.partition as usize];
            (0..batch.rows.len()).for_each(|row| rows.push_from(&batch.rows, row));
        }
        let reached = |end: &&Position| end.offset >= ends[end.partition as usize];
        polled.ends.iter().filter(reached).for_each(|end| ended[end.partition as usize] = true);
    }
    all
}

/// How far a topic is written, all partitions and what is not committed among it; 0 where it is not there.
pub fn written(brokers: &str, topic: &str) -> i64 {
    let mut admin = Admin::new(&Connection::new(brokers)).expect("an admin client");
    let Ok(info) = admin.describe_topics(&[topic], TIMEOUT).expect("the broker answers").remove(0) else { return 0 };
    let end = |partition| admin.watermarks(&Partition::new(topic, partition), TIMEOUT).map_or(0, |ends| ends.1);
    (0..info.partitions).map(end).sum()
}

/// Number of rows in all partitions.
pub fn count(partitions: &[Rows]) -> usize {
    partitions.iter().map(Rows::len).sum()
}
