//! Made-up files of an insurance comparison site: its users, and what they did, as CSV with the faults that real files
//! have. The same settings give the same bytes, on every machine.
//!
//! | file | columns |
//! | --- | --- |
//! | users | `user_id,age,gender,city,device_type,registered_at` |
//! | events | `event_id,user_id,session_id,event_type,channel,premium_amount,event_time` |
//!
//! Each file holds as many good rows as asked for, each id once. Beside them stand copies of some (byte for byte, up to
//! [`REACH`] rows further down) and malformed rows with ids of their own; some good rows come up to [`REACH`] rows too
//! late. So a count of distinct good ids is the number that was asked for, whatever the shares are.
//!
//! Events belong to sessions: some events of one user by one channel, minutes apart, with more than half an hour to the
//! same user's next session. Only a purchase has a premium, and it ends its session.

use std::io::{self, Write};

use super::random::{Random, Uuid};
use crate::record::calendar::push_rfc3339;

/// How many rows further down a copy or a late row may stand.
const REACH: u64 = 1_000;
/// Silence between two sessions of one user, at the least: 31 minutes.
const BETWEEN_SESSIONS_MS: i64 = 31 * 60 * 1_000;
/// The most between two events of a session: 12 minutes.
const WITHIN_SESSION_MS: u64 = 12 * 60 * 1_000;
const DAY_MS: i64 = 86_400_000;
/// How far back users registered who did so before the first event.
const REGISTERED_BEFORE_MS: u64 = 365 * DAY_MS as u64;
const SESSION_EVENTS: u64 = 12;

const EVENT_TYPES: [&str; 7] = ["signup", "login", "search", "quote_view", "quote_compare", "checkout", "purchase"];
const SIGNUP: u8 = 0;
const PURCHASE: u8 = 6;
const CHANNELS: [&str; 6] = ["direct", "organic", "paid_search", "social", "email", "affiliate"];
/// One has a comma, so that files need quotes.
const CITIES: [&str; 10] = [
    "Berlin",
    "Hamburg",
    "Munich",
    "Cologne",
    "\"Frankfurt, Main\"",
    "Leipzig",
    "Vienna",
    "Zurich",
    "Basel",
    "Düsseldorf",
];
const GENDERS: [&str; 3] = ["female", "male", "other"];
const DEVICES: [&str; 3] = ["mobile", "desktop", "tablet"];

/// What the files hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsuranceConfig {
    /// What everything follows from.
    pub seed: u64,
    /// Good rows of users; their ids are 1 to this.
    pub users: u16,
    /// Good rows of events.
    pub events: u32,
    /// The earliest time of an event, in milliseconds since 1970 UTC.
    pub start_time_ms: i64,
    /// Over how many days the sessions begin.
    pub days: u32,
    /// Copies for a million good rows.
    pub duplicates_per_million: u32,
    /// Good rows of a million that stand too far down.
    pub late_per_million: u32,
    /// Malformed rows for a million good rows.
    pub malformed_per_million: u32,
    /// Sessions of a million whose user is in no row of users.
    pub unknown_users_per_million: u32,
}

impl Default for InsuranceConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            users: 5_000,
            events: 20_000,
            // 2024-01-01T00:00:00Z.
            start_time_ms: 1_704_067_200_000,
            days: 30,
            duplicates_per_million: 20_000,
            late_per_million: 50_000,
            malformed_per_million: 5_000,
            unknown_users_per_million: 2_000,
        }
    }
}

/// How many rows of each kind a file got, its header not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InsuranceCounts {
    /// Good rows, each with an id of its own.
    pub good: u64,
    /// Copies of good rows.
    pub duplicates: u64,
    /// Good rows that stand further down than their time says.
    pub late: u64,
    /// Rows that no reader can take.
    pub malformed: u64,
}

/// Users and events that belong together.
#[derive(Debug)]
pub struct Insurance {
    config: InsuranceConfig,
    /// When each user registered, by id less one.
    registered_ms: Vec<i64>,
    /// By time.
    events: Vec<Event>,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    time_ms: i64,
    session: u32,
    user: u16,
    kind: u8,
    channel: u8,
    /// 0 for none.
    premium: u32,
}

/// Streams of random numbers that have nothing in common.
#[derive(Clone, Copy)]
enum Stream {
    Registration,
    Session,
    SessionId,
    EventId,
    User,
    EventRow,
    UserRow,
}

impl Insurance {
    /// Makes everything up; files are written afterwards.
    pub fn new(config: InsuranceConfig) -> Self {
        let mut made = Self { registered_ms: Vec::new(), events: Vec::new(), config };
        made.registered_ms = (0..u64::from(made.config.users))
            .map(|user| {
                let before = made.random(Stream::Registration, user).below(REGISTERED_BEFORE_MS);
                made.config.start_time_ms - 1 - before as i64
            })
            .collect();
        made.make_sessions();
        // A stable order: sessions begin in the order of their numbers.
        made.events.sort_by_key(|event| (event.time_ms, event.session));
        made
    }

    /// Writes the users.
    pub fn write_users(&self, out: &mut impl Write) -> io::Result<InsuranceCounts> {
        out.write_all(b"user_id,age,gender,city,device_type,registered_at\n")?;
        self.write_rows(Stream::UserRow, self.registered_ms.len() as u64, out, |row, fault| self.user_row(row, fault))
    }

    /// Writes the events.
    pub fn write_events(&self, out: &mut impl Write) -> io::Result<InsuranceCounts> {
        out.write_all(b"event_id,user_id,session_id,event_type,channel,premium_amount,event_time\n")?;
        self.write_rows(Stream::EventRow, self.events.len() as u64, out, |row, fault| self.event_row(row, fault))
    }

    fn random(&self, stream: Stream, of: u64) -> Random {
        Random::of_record(self.config.seed, of << 3 | stream as u64)
    }

    fn make_sessions(&mut self) {
        let wanted = self.config.events as usize;
        let span_ms = i64::from(self.config.days) * DAY_MS;
        // Users with unknown ids come after the others.
        let mut free_from_ms = vec![i64::MIN; usize::from(u16::MAX) + 1];
        let mut session = 0;
        // Sessions begin evenly: more than enough for the events, since a session has six on average.
        let sessions = (self.config.events / 6).max(1);
        while self.events.len() < wanted {
            let mut random = self.random(Stream::Session, u64::from(session));
            let user = self.session_user(&mut random);
            let even_ms = span_ms * i64::from(session % sessions) / i64::from(sessions);
            let earliest_ms = self.config.start_time_ms + even_ms + random.below(60_000) as i64;
            let start_ms = earliest_ms.max(free_from_ms[usize::from(user)]);
            let is_first = free_from_ms[usize::from(user)] == i64::MIN;
            let end_ms = self.make_session(session, user, is_first, start_ms, &mut random);
            free_from_ms[usize::from(user)] = end_ms + BETWEEN_SESSIONS_MS;
            session += 1;
        }
        self.events.truncate(wanted);
    }

    fn session_user(&self, random: &mut Random) -> u16 {
        let known = u64::from(self.config.users);
        let unknown = u64::from(u16::MAX) - known;
        let is_unknown = random.happens(self.config.unknown_users_per_million);
        let picked = (random.below(known.max(1)) + 1, known + 1 + random.below(unknown.max(1)));
        (if is_unknown || known == 0 { picked.1 } else { picked.0 }).min(u64::from(u16::MAX)) as u16
    }

    /// Adds a session's events; returns the time of the last one.
    fn make_session(&mut self, session: u32, user: u16, is_first: bool, start_ms: i64, random: &mut Random) -> i64 {
        let channel = random.below(CHANNELS.len() as u64) as u8;
        let count = 1 + random.below(SESSION_EVENTS);
        // A third of the users comes to sign up; the others did so before.
        let signs_up = is_first && random.below(3) == 0;
        let buys = count >= 3 && random.below(4) == 0;
        let mut time_ms = start_ms;
        for at in 0..count {
            let kind = match at {
                0 if signs_up => SIGNUP,
                0 => 1 + random.below(2) as u8,
                _ if at + 1 == count && buys => PURCHASE,
                // Search, view, compare, checkout.
                _ => 2 + random.below(4) as u8,
            };
            // Small premiums are more frequent than large ones.
            let ceiling = 1 << (6 + random.below(6));
            let premium = if kind == PURCHASE { 100 + 10 * random.below(ceiling) as u32 } else { 0 };
            self.events.push(Event { time_ms, session, user, kind, channel, premium });
            if kind == SIGNUP
                && let Some(registered) = self.registered_ms.get_mut(usize::from(user) - 1)
            {
                *registered = time_ms;
            }
            time_ms += if at + 1 < count { 2_000 + random.below(WITHIN_SESSION_MS - 2_000) as i64 } else { 0 };
        }
        time_ms
    }

    /// Good rows in their order, with copies, late ones and malformed ones among them.
    fn write_rows(
        &self,
        stream: Stream,
        rows: u64,
        out: &mut impl Write,
        row_text: impl Fn(u64, Option<u64>) -> Vec<u8>,
    ) -> io::Result<InsuranceCounts> {
        let mut counts = InsuranceCounts { good: rows, ..InsuranceCounts::default() };
        // Where each row stands, and its fault if it has one.
        let mut placed: Vec<(u64, u64, Option<u64>)> = Vec::with_capacity(rows as usize);
        for row in 0..rows {
            let mut random = self.random(stream, row);
            let is_late = random.happens(self.config.late_per_million);
            let place = if is_late { row + 2 + random.below(REACH - 1) } else { row };
            counts.late += u64::from(is_late);
            placed.push((place, row, None));
            if random.happens(self.config.duplicates_per_million) {
                counts.duplicates += 1;
                placed.push((place + random.below(REACH), row, None));
            }
            if random.happens(self.config.malformed_per_million) {
                counts.malformed += 1;
                placed.push((row, row, Some(random.next())));
            }
        }
        placed.sort_by_key(|(place, row, fault)| (*place, *row, *fault));
        for (_, row, fault) in placed {
            out.write_all(&row_text(row, fault))?;
        }
        Ok(counts)
    }

    fn user_row(&self, row: u64, fault: Option<u64>) -> Vec<u8> {
        let mut random = self.random(Stream::User, row);
        let (age, gender) = (18 + random.below(63), random.pick(&GENDERS));
        let (city, device) = (random.pick(&CITIES), random.pick(&DEVICES));
        let mut fields = [
            (row + 1).to_string(),
            age.to_string(),
            gender.to_owned(),
            city.to_owned(),
            device.to_owned(),
            time(self.registered_ms[row as usize]),
        ];
        let fault = fault.map(|fault| (fault, fault % 6));
        match fault {
            Some((_, 0)) => fields[0] = String::new(),
            Some((_, 1)) => fields[1] = "unknown".to_owned(),
            Some((_, 2)) => fields[5] = "31.01.2024".to_owned(),
            _ => {}
        }
        line(&fields, fault.and_then(|(random, kind)| Damage::of(kind.checked_sub(3)?, random)))
    }

    fn event_row(&self, row: u64, fault: Option<u64>) -> Vec<u8> {
        let event = self.events[row as usize];
        let mut ids = self.random(Stream::EventId, row);
        let mut sessions = self.random(Stream::SessionId, u64::from(event.session));
        // A malformed row has an id of its own, so that it never stands for a good one.
        let id_bits = (ids.next() ^ fault.unwrap_or(0), ids.next() ^ fault.unwrap_or(0));
        let mut fields = [
            Uuid::v7(event.time_ms, id_bits.0, id_bits.1).to_string(),
            event.user.to_string(),
            Uuid::v4(sessions.next(), sessions.next()).to_string(),
            EVENT_TYPES[usize::from(event.kind)].to_owned(),
            CHANNELS[usize::from(event.channel)].to_owned(),
            if event.premium > 0 { event.premium.to_string() } else { String::new() },
            time(event.time_ms),
        ];
        let fault = fault.map(|fault| (fault, fault % 9));
        match fault {
            Some((_, 0)) => fields[0] = String::new(),
            Some((_, 1)) => fields[1] = format!("user-{}", event.user),
            Some((_, 2)) => fields[1] = "-1".to_owned(),
            Some((_, 3)) => fields[3] = "qoute_view".to_owned(),
            Some((_, 4)) => (fields[3], fields[5]) = ("purchase".to_owned(), "-1200".to_owned()),
            Some((_, 5)) => fields[6] = "2024-13-45T10:11:12.000Z".to_owned(),
            _ => {}
        }
        line(&fields, fault.and_then(|(random, kind)| Damage::of(kind.checked_sub(6)?, random)))
    }
}

/// What happens to a whole row.
enum Damage {
    /// It is cut off, before its last comma.
    Cut(u64),
    /// A quote too many.
    Quote,
    /// A byte that no UTF-8 text has.
    Byte,
}

impl Damage {
    fn of(kind: u64, random: u64) -> Option<Self> {
        match kind {
            0 => Some(Self::Cut(random >> 8)),
            1 => Some(Self::Quote),
            2 => Some(Self::Byte),
            _ => None,
        }
    }
}

/// A row of these fields, each ready to stand in one.
fn line(fields: &[String], damage: Option<Damage>) -> Vec<u8> {
    let mut line = fields.join(",").into_bytes();
    let last_comma = line.iter().rposition(|byte| *byte == b',').unwrap_or(0);
    match damage {
        Some(Damage::Cut(at)) => line.truncate(1 + (at % last_comma.max(1) as u64) as usize),
        Some(Damage::Quote) => line.insert(last_comma + 1, b'"'),
        Some(Damage::Byte) => line.insert(last_comma, 0xff),
        None => {}
    }
    line.push(b'\n');
    line
}

/// A time in UTC with its milliseconds, also where they are zero.
fn time(time_ms: i64) -> String {
    let mut text = Vec::new();
    push_rfc3339(&mut text, time_ms.div_euclid(1_000).saturating_mul(1_000_000));
    text.pop();
    format!("{}.{:03}Z", String::from_utf8_lossy(&text), time_ms.rem_euclid(1_000))
}

#[cfg(test)]
mod tests;
