//! The thread that talks to ClickHouse, so that the drain's own goes on serving its group whatever the server does.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::step::{Found, Sent};
use super::{DrainError, wall_ms};
use crate::clickhouse::{
    CheckError, Client, ClientError, Connection, Encoder, Guarantee, Insert, InsertError, ServerSettings, Table,
    Verdict, check_exactly_once, check_replaces, count_blocks, look,
};
use crate::config::{ClickHouseConfig, Delivery};
use crate::record::Place;

/// Requests that may wait; a drain asks for one thing at a time and partition.
const QUEUE_MAX: usize = 4_096;
/// How old the count of blocks may be that a plan is made with.
const BLOCKS_AGE_MAX: Duration = Duration::from_secs(5);

/// Tells a question from others. Whoever asks keeps an [`Arc`] of it for as long as the answer is wanted.
pub(super) type Ticket = Weak<()>;

/// What is asked of the server.
pub(super) enum Ask {
    /// What the table is like.
    Describe,
    /// What it has of a block in doubt.
    Look { ticket: Ticket, place: Place, first: i64, last: i64, token: String },
    /// To take a block.
    Send { ticket: Ticket, target: Arc<Target>, bytes: Vec<u8>, token: String },
}

/// What came of it.
pub(super) enum Told {
    /// The table with an encoder of its rows, where it can be had and can keep its promise.
    Described(Result<(Arc<Target>, Box<Encoder>), Trouble>),
    /// What was found, or why the server does not say.
    Looked { ticket: Ticket, found: Result<Found, String> },
    /// What became of the block, whose bytes come back, and how long that took.
    Sent { ticket: Ticket, bytes: Vec<u8>, sent: Sent, time: Duration },
}

/// Why there is no table to insert into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It may come.
    Passing(String),
    /// It has to be changed.
    Wrong(String),
}

impl Trouble {
    /// What it is.
    pub fn text(&self) -> &str {
        let (Self::Passing(why) | Self::Wrong(why)) = self;
        why
    }
}

/// A table that rows can go into.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) table: Table,
    guarantee: Option<Guarantee>,
    insert: Insert,
}

/// The way to the thread.
pub(super) struct Sender {
    asks: SyncSender<Ask>,
    tells: Receiver<(Told, u64)>,
    /// The last count of blocks that was heard of.
    blocks: u64,
}

impl Sender {
    /// Starts the thread; it ends when this is dropped and what it does is done.
    pub(super) fn start(output: &str, config: &ClickHouseConfig) -> Result<Self, DrainError> {
        let (asks, receive) = mpsc::sync_channel(QUEUE_MAX);
        let (tell, tells) = mpsc::channel();
        let config = config.clone();
        let (ready, is_ready) = mpsc::channel();
        let body = move || match Connection::new(&config) {
            Ok(connection) => {
                let _ = ready.send(Ok(()));
                let mut clerk = Clerk { config, connection, target: None, blocks: (0, None) };
                while let Ok(ask) = receive.recv() {
                    let told = clerk.answer(ask);
                    if tell.send((told, clerk.blocks.0)).is_err() {
                        return;
                    }
                }
            }
            Err(why) => drop(ready.send(Err(why))),
        };
        let thread = std::thread::Builder::new().name(format!("table-{output}")).spawn(body);
        thread.map_err(|why| DrainError::Thread(why.to_string()))?;
        let gone = |_| Err(ClientError::Runtime("its thread is gone".to_owned()));
        is_ready.recv().unwrap_or_else(gone).map_err(|why| DrainError::Client(why.to_string()))?;
        Ok(Self { asks, tells, blocks: 0 })
    }

    /// Asks; the answer comes later.
    pub(super) fn ask(&self, ask: Ask) -> Result<(), DrainError> {
        self.asks.try_send(ask).map_err(|why| DrainError::Thread(why.to_string()))
    }

    /// The next answer, if one comes within `wait`.
    pub(super) fn told(&mut self, wait: Duration) -> Result<Option<Told>, DrainError> {
        match self.tells.recv_timeout(wait) {
            Ok((told, blocks)) => {
                self.blocks = blocks;
                Ok(Some(told))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(DrainError::Thread("it ended by itself".to_owned())),
        }
    }

    /// A count of the blocks that the table and those behind it have taken: now, or some time before.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }
}

/// The one who asks the server.
struct Clerk {
    config: ClickHouseConfig,
    connection: Connection,
    target: Option<Arc<Target>>,
    blocks: (u64, Option<Instant>),
}

impl Clerk {
    fn answer(&mut self, ask: Ask) -> Told {
        match ask {
            Ask::Describe => Told::Described(self.describe()),
            Ask::Look { ticket, place, first, last, token } => {
                Told::Looked { ticket, found: self.look(&place, (first, last), &token) }
            }
            Ask::Send { ticket, target, bytes, token } => {
                let started = Instant::now();
                // What was given up while it waited here is somebody else's by now.
                let sent = match ticket.strong_count() {
                    0 => Sent::NotYet("the partition was given up".to_owned()),
                    _ => insert(&self.connection, &target, &bytes, &token),
                };
                let time = started.elapsed();
                self.count_blocks();
                Told::Sent { ticket, bytes, sent, time }
            }
        }
    }

    fn describe(&mut self) -> Result<(Arc<Target>, Box<Encoder>), Trouble> {
        let (target, encoder) = describe(&self.connection, &self.config)?;
        let target = Arc::new(target);
        self.target = Some(target.clone());
        self.blocks.1 = None;
        self.count_blocks();
        Ok((target, Box::new(encoder)))
    }

    fn look(&mut self, place: &Place, (first, last): (i64, i64), token: &str) -> Result<Found, String> {
        let Some(target) = self.target.clone() else { return Err("the table is not known yet".to_owned()) };
        let Some(guarantee) = &target.guarantee else { return Err("nothing is promised of it".to_owned()) };
        let of = (&*place.topic, place.partition);
        let evidence = self
            .connection
            .wait(async |client| look(client, (&target.table, guarantee), of, (first, last), token).await)
            .map_err(|why| why.to_string())?;
        self.blocks = (evidence.blocks, Some(Instant::now()));
        Ok(Found {
            rows: evidence.rows,
            atomic: target.table.is_undivided,
            blocks: evidence.blocks,
            window_blocks: guarantee.window_blocks,
            settle_ms: 2 * self.config.request_timeout.as_millis() as u64,
            token: token.to_owned(),
            window_ms: guarantee.window.map_or(u64::MAX, |window| window.as_millis() as u64),
            now_ms: wall_ms(),
            running: evidence.running,
        })
    }

    fn count_blocks(&mut self) {
        let Some(target) = self.target.clone() else { return };
        let (Some(guarantee), true) =
            (&target.guarantee, self.blocks.1.is_none_or(|counted| counted.elapsed() >= BLOCKS_AGE_MAX))
        else {
            return;
        };
        // An older count only means that the table is looked at sooner.
        if let Ok(blocks) = self.connection.wait(async |client| count_blocks(client, guarantee).await) {
            self.blocks = (blocks, Some(Instant::now()));
        }
    }
}

/// Whether rows can go into a table as the configuration says, with what an operator should know of it.
pub fn check_table(config: &ClickHouseConfig) -> Result<Vec<String>, Trouble> {
    let connection = Connection::new(config).map_err(|why| Trouble::Wrong(why.to_string()))?;
    describe(&connection, config).map(|(target, _)| target.notes())
}

/// Sends a block under its token.
pub(super) fn insert(connection: &Connection, target: &Target, bytes: &[u8], token: &str) -> Sent {
    let body = target.insert.block(bytes);
    match connection.wait(async |client: &Client| target.insert.send(client, &body, Some(token)).await) {
        Ok(()) => Sent::Done,
        Err(why) => sort(&why, target.table.is_undivided),
    }
}

/// Asks for the table, whether it can keep its promise, and what its rows are made of.
pub(super) fn describe(connection: &Connection, config: &ClickHouseConfig) -> Result<(Target, Encoder), Trouble> {
    let exactly_once = config.delivery == Delivery::ExactlyOnce;
    connection.wait(async |client: &Client| {
        let settings = ServerSettings::read(client).await.map_err(passing)?;
        let table = Table::describe(client, &config.database, &config.table).await.map_err(passing)?;
        let encoder = Encoder::new(&table, config).map_err(|why| Trouble::Wrong(why.to_string()))?;
        check_replaces(client, &table, config).await.map_err(unkept)?;
        let guarantee = match exactly_once {
            true => Some(check_exactly_once(client, &table, &settings).await.map_err(unkept)?),
            false => None,
        };
        let insert = Insert::new(&table, &encoder, &settings);
        Ok((Target { table, guarantee, insert }, encoder))
    })
}

impl Target {
    /// What an operator should know of the table.
    pub(super) fn notes(&self) -> Vec<String> {
        self.guarantee.as_ref().map(|guarantee| guarantee.notes.clone()).unwrap_or_default()
    }
}

fn passing(why: impl std::fmt::Display) -> Trouble {
    Trouble::Passing(why.to_string())
}

fn unkept(why: CheckError) -> Trouble {
    match why {
        CheckError::Request(why) => passing(why),
        CheckError::Refused(why) => Trouble::Wrong(why),
    }
}

/// What follows from an error; a block of a table that is not divided is written whole or not at all.
fn sort(why: &InsertError, undivided: bool) -> Sent {
    let text = why.to_string();
    match &why.verdict {
        Verdict::Retry => Sent::Unknown(text),
        Verdict::Access => Sent::NotYet(text),
        Verdict::Missing | Verdict::SchemaChanged => Sent::OtherTable(text),
        Verdict::Refused if undivided => Sent::Refused(text),
        Verdict::Refused => Sent::RefusedInPart(text),
        Verdict::Behind { .. } | Verdict::Unknown => Sent::Stuck(text),
    }
}
