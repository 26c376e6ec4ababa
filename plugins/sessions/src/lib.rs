//! What a session came to: how long it was, its events in order, where it came from, whether it bought.
//!
//! Events may come in any order, and a session may be folded in parts that are merged later: the row is that of its events
//! in the order of their times, those of the same time in the order of their ids, and then of their types.

use std::fmt::{self, Display};

use millstream_sdk::json::{Quoted, Value};
use millstream_sdk::prelude::*;
use millstream_sdk::{AggregateDescriptor, ColumnType, ConfigValue, TimestampEncoding};

/// Events whose types are told in a row; of more, the first.
const SEQUENCE_MOST: usize = 256;
/// Bytes of what a state keeps of an event.
const EVENT_BYTES: usize = 200;
const ID_BYTES: usize = 64;
const TOUCH_BYTES: usize = 500;

/// Which fields of a record say what.
#[derive(Config)]
pub struct Sessions {
    /// What happened, as text.
    #[config(default = "/event_type".to_owned())]
    event: String,
    /// When it happened.
    #[config(default = "/event_time".to_owned())]
    time: String,
    #[config(default = Encoding(TimestampEncoding::Rfc3339))]
    time_encoding: Encoding,
    /// What tells events of the same time apart, where there is such a field, as text.
    #[config(default = "/event_id".to_owned())]
    id: String,
    /// Where it came from, or was: a channel, a page. Text; a record may be without it.
    #[config(default = "/channel".to_owned())]
    touch: String,
    /// The events that are purchases.
    #[config(default = vec!["purchase".to_owned()])]
    purchases: Vec<String>,
}

/// How a time stands in a record.
struct Encoding(TimestampEncoding);

impl ConfigValue for Encoding {
    fn from_json(value: &Value) -> Result<Self, String> {
        let encoding = match String::from_json(value)?.as_str() {
            "rfc3339" => TimestampEncoding::Rfc3339,
            "epoch_s" => TimestampEncoding::EpochS,
            "epoch_ms" => TimestampEncoding::EpochMs,
            "epoch_us" => TimestampEncoding::EpochUs,
            "epoch_ns" => TimestampEncoding::EpochNs,
            other => {
                return Err(format!("expected rfc3339, epoch_s, epoch_ms, epoch_us or epoch_ns, not {other}"));
            }
        };
        Ok(Self(encoding))
    }
}

/// An event of a session; the paths are those of an insurance site's events, unless the configuration has others.
#[derive(Read, Clone, Copy)]
pub struct Event<'a> {
    #[field("/event_type")]
    event: &'a str,
    #[field("/event_time")]
    time: Timestamp,
    #[field("/event_id")]
    id: Option<&'a str>,
    #[field("/channel")]
    touch: Option<&'a str>,
}

/// An event in its place. The order of the fields is the order of events.
#[derive(State, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    time: Timestamp,
    id: String,
    event: String,
}

/// Where the session was at a time. The order of the fields is that of touches.
#[derive(State, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Touch {
    time: Timestamp,
    id: String,
    touch: String,
}

/// What is known of a session.
#[derive(State, Default, Clone, Debug, PartialEq)]
pub struct Session {
    events: u64,
    last: Option<Timestamp>,
    /// The first events, in order.
    first: Vec<Seen>,
    first_touch: Option<Touch>,
    has_purchase: bool,
}

/// A session as version 1 kept it: without ids, so that events of the same time stood in the order of their types, and
/// without a touch.
#[derive(State)]
struct SessionOfVersion1 {
    events: u64,
    last: Option<Timestamp>,
    first: Vec<(Timestamp, String)>,
    has_purchase: bool,
}

/// What a session came to.
#[derive(Write, Debug, PartialEq)]
pub struct Row<'a> {
    /// From its first event to its last.
    #[field("/duration_s")]
    duration_s: f64,
    #[field("/events")]
    events: i64,
    /// The types of the first 256 events.
    #[field("/event_sequence")]
    event_sequence: Json<Sequence<'a>>,
    /// Where the first event was that was anywhere.
    #[field("/first_touch")]
    first_touch: Option<&'a str>,
    #[field("/has_purchase")]
    has_purchase: bool,
}

/// Types of events, as a JSON array.
#[derive(Debug, PartialEq)]
pub struct Sequence<'a>(&'a [Seen]);

impl Display for Sequence<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("[")?;
        for (index, seen) in self.0.iter().enumerate() {
            write!(out, "{}{}", if index == 0 { "" } else { "," }, Quoted(&seen.event))?;
        }
        out.write_str("]")
    }
}

#[aggregate(version = 2, migrates = [1])]
impl Aggregate for Sessions {
    type Event<'a> = Event<'a>;
    type State = Session;
    type Row<'a> = Row<'a>;

    fn describe(&self) -> AggregateDescriptor {
        AggregateDescriptor::of::<Self>()
            .field("/event_type", &self.event, None)
            .field("/event_time", &self.time, Some(ColumnType::Timestamp(self.time_encoding.0)))
            .field("/event_id", &self.id, None)
            .field("/channel", &self.touch, None)
    }

    fn fold(&self, session: &mut Session, event: Event<'_>) -> Result<(), Reject> {
        if event.event.len() > EVENT_BYTES {
            let detail = format!("its type has {} bytes, above {EVENT_BYTES}", event.event.len());
            return Err(Reject::new("long_event_type", detail));
        }
        let id = cut(event.id.unwrap_or_default(), ID_BYTES);
        session.see(Seen { time: event.time, id: id.clone(), event: event.event.to_owned() });
        if let Some(touch) = event.touch {
            session.touch(Touch { time: event.time, id, touch: cut(touch, TOUCH_BYTES) });
        }
        session.events += 1;
        session.last = session.last.max(Some(event.time));
        session.has_purchase |= self.purchases.iter().any(|purchase| purchase == event.event);
        Ok(())
    }

    fn merge(&self, left: &mut Session, right: Session) {
        right.first.into_iter().for_each(|seen| left.see(seen));
        right.first_touch.into_iter().for_each(|touch| left.touch(touch));
        left.events += right.events;
        left.last = left.last.max(right.last);
        left.has_purchase |= right.has_purchase;
    }

    fn finish<'a>(&self, _: &Window<'a>, session: &'a Session) -> Row<'a> {
        let (first, last) = (session.first.first().map(|seen| seen.time), session.last);
        let micros = |time: Option<Timestamp>| time.map_or(0, Timestamp::micros);
        Row {
            duration_s: micros(last).saturating_sub(micros(first)) as f64 / 1e6,
            events: session.events.cast_signed(),
            event_sequence: Json(Sequence(&session.first)),
            first_touch: session.first_touch.as_ref().map(|touch| touch.touch.as_str()),
            has_purchase: session.has_purchase,
        }
    }

    fn migrate(&self, _: u32, bytes: &[u8]) -> Result<Session, String> {
        let old = SessionOfVersion1::from_bytes(bytes)
            .ok_or_else(|| format!("{} bytes that are no session of version 1", bytes.len()))?;
        let seen = |(time, event)| Seen { time, id: String::new(), event };
        Ok(Session {
            events: old.events,
            last: old.last,
            first: old.first.into_iter().map(seen).collect(),
            first_touch: None,
            has_purchase: old.has_purchase,
        })
    }
}

impl Session {
    /// Puts an event in its place among the first.
    fn see(&mut self, seen: Seen) {
        let place = self.first.partition_point(|other| *other < seen);
        if place < SEQUENCE_MOST {
            self.first.truncate(SEQUENCE_MOST - 1);
            self.first.insert(place, seen);
        }
    }

    /// Keeps the first touch.
    fn touch(&mut self, touch: Touch) {
        if self.first_touch.as_ref().is_none_or(|first| touch < *first) {
            self.first_touch = Some(touch);
        }
    }
}

/// At most so many bytes of a text.
fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        let config = millstream_sdk::json::parse("{}").expect("JSON");
        Sessions::from_json(&config).expect("all settings have defaults")
    }

    fn event<'a>(second: i64, event: &'a str, touch: &'a str) -> Event<'a> {
        let touch = (!touch.is_empty()).then_some(touch);
        Event { event, time: Timestamp::from_secs(second), id: None, touch }
    }

    fn folded<'a>(events: impl IntoIterator<Item = Event<'a>>) -> Session {
        let mut session = Session::default();
        for event in events {
            sessions().fold(&mut session, event).expect("short enough");
        }
        session
    }

    /// Numbers that look random.
    fn shuffled<T>(items: &mut [T], seed: u64) {
        let mut state = seed;
        for last in (1..items.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            items.swap(last, (state >> 33) as usize % (last + 1));
        }
    }

    #[test]
    fn a_session_is_told_in_the_order_of_its_events() {
        let session = folded([
            event(30, "purchase", "/pay"),
            event(10, "search", ""),
            event(12, "quote \"view\"", "/quotes"),
            event(12, "a", "/offers"),
        ]);
        let row = sessions().finish(&Window::default(), &session);
        assert_eq!(row.event_sequence.0.to_string(), r#"["search","a","quote \"view\"","purchase"]"#);
        assert_eq!((row.duration_s, row.events, row.has_purchase), (20.0, 4, true));
        assert_eq!(row.first_touch, Some("/offers"), "the first event that was anywhere, and then the first by name");
    }

    #[test]
    fn ids_come_before_types_where_times_are_the_same() {
        let with = |id, name| Event { id: Some(id), ..event(1, name, name) };
        let session = folded([with("2", "a"), with("1", "b")]);
        let row = sessions().finish(&Window::default(), &session);
        assert_eq!((row.event_sequence.0.to_string().as_str(), row.first_touch), (r#"["b","a"]"#, Some("b")));
    }

    /// Whatever the order, wherever it is cut, whichever part comes first.
    #[test]
    fn a_session_does_not_depend_on_the_order_of_arrival() {
        let names = ["search", "quote", "click", "purchase"];
        let ids: Vec<String> = (0..400).map(|row| (row % 11).to_string()).collect();
        let mut events: Vec<Event<'_>> = (0..400)
            .map(|row| Event {
                id: (row % 5 != 0).then_some(&ids[row]),
                ..event(row as i64 / 8, names[row % 4], names[row % 3])
            })
            .collect();
        let whole = folded(events.iter().copied());
        assert_eq!((whole.first.len(), whole.events), (SEQUENCE_MOST, 400));
        for seed in 0..50 {
            shuffled(&mut events, seed);
            assert_eq!(folded(events.iter().copied()), whole, "seed {seed}");
            let (left, right) = events.split_at(seed as usize * 8);
            let (left, right) = (folded(left.iter().copied()), folded(right.iter().copied()));
            for (mut one, other) in [(left.clone(), right.clone()), (right, left)] {
                sessions().merge(&mut one, other);
                assert_eq!(one, whole, "seed {seed}");
            }
        }
    }

    #[test]
    fn what_a_state_keeps_is_bounded() {
        let (long, touch) = ("x".repeat(EVENT_BYTES + 1), "ä".repeat(TOUCH_BYTES));
        let rejected = sessions().fold(&mut Session::default(), event(0, &long, ""));
        assert_eq!(rejected.expect_err("too long").code, "long_event_type");
        let events = (0..10_000).map(|row| Event { id: Some(&touch), ..event(row, &long[1..], &touch) });
        let session = folded(events);
        assert_eq!((session.events, session.first.len()), (10_000, SEQUENCE_MOST));
        assert!(session.to_bytes().len() < 80_000, "{} bytes", session.to_bytes().len());
    }

    #[test]
    fn a_session_of_version_1_goes_on() {
        let first =
            vec![(Timestamp::from_secs(1), "search".to_owned()), (Timestamp::from_secs(2), "purchase".to_owned())];
        let last = Some(Timestamp::from_secs(2));
        let old = SessionOfVersion1 { events: 2, last, first, has_purchase: true };
        let mut session = sessions().migrate(1, &old.to_bytes()).expect("a session");
        let new = folded([event(1, "search", ""), event(2, "purchase", "")]);
        assert_eq!(session, new);
        sessions().merge(&mut session, folded([event(5, "click", "/late")]));
        let row = sessions().finish(&Window::default(), &session);
        assert_eq!((row.duration_s, row.events, row.first_touch), (4.0, 3, Some("/late")));
        assert!(sessions().migrate(1, b"\xff").expect_err("none").contains("1 bytes"));
    }

    #[test]
    fn fields_are_where_the_configuration_says() {
        let config = r#"{"event": "/type", "time": "/at", "time_encoding": "epoch_s", "touch": "/page"}"#;
        let config = Sessions::from_json(&millstream_sdk::json::parse(config).expect("JSON")).expect("good");
        let paths: Vec<String> = config.describe().reads.into_iter().map(|field| field.path).collect();
        assert_eq!(paths, ["/type", "/at", "/event_id", "/page"]);
        let bad = millstream_sdk::json::parse(r#"{"time_encoding": "seconds"}"#).expect("JSON");
        assert!(
            Sessions::from_json(&bad).map(|_| ()).expect_err("none").starts_with("time_encoding: expected rfc3339")
        );
    }
}
