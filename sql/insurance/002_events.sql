-- Validated events with what is known of their users, from the topic `insurance.processed_events`: one row for each event_id.

-- One row an event: a file repeats events, and a sender that got no answer sends one again. ReplacingMergeTree keeps one of
-- the rows with equal sorting keys, so the key is a function of event_id alone: with the event's time in it, a copy with
-- another time would stay. The copy that came last counts (by offset; copies of one event are of one user, and the user
-- is the topic's key, so that they share a partition). Until two copies are merged both are there: ask with FINAL, as the
-- views do.
-- Types
--   event_id, session_id  UUID: 16 bytes rather than 36.
--   user_id         UInt16: up to 65535 users.
--   premium_amount  UInt32: whole units, never negative. 0 is "none": only a purchase has one, and a Nullable would cost a
--                   byte a row to say what event_type says.
--   event_type, channel, gender, city, device_type  few values many times: LowCardinality.
--   age, gender, city, device_type, registered_at  of the user as the users' file had it when the event was processed; 0 and
--                   empty where it had none. What changes later does not change the events before: an event says what
--                   was so when it came.
--   event_time      in UTC by its type, to the millisecond, as the files have it.
-- Order: an event_id of version 7 begins with its time, so the first key puts events in the order of time, which makes
--   time ranges prune (index `times`), rows of a session lie together, and times, users and sessions compress. Ids of
--   another kind have 1970 there, and are as right, only slower to ask.
-- Indexes
--   times     min-max: see the order.
--   premiums  min-max: most granules of a quiet time have no large purchase.
--   sessions, users  bloom filters: one session or user is in few granules, and no order helps with both. 1 % of false
--             hits costs 10 bits a value.
-- TTL: a year after the load, not after the event. A file of last year's events would otherwise be gone as
--   soon as it is merged, and nobody told. Replacing is not for ever either: a copy that comes a year later is new.
-- No partitions: ReplacingMergeTree does not replace across them; and see sql/clickstream/001_events.sql.
-- The window of tokens: see 001.
CREATE TABLE IF NOT EXISTS insurance_analytics.processed_events_storage
(
    event_id       UUID,
    user_id        UInt16,
    session_id     UUID,
    event_type     LowCardinality(String),
    channel        LowCardinality(String),
    premium_amount UInt32,
    event_time     DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    age            UInt8,
    gender         LowCardinality(String),
    city           LowCardinality(String),
    device_type    LowCardinality(String),
    registered_at  DateTime64(3, 'UTC'),
    loaded_at      DateTime('UTC') MATERIALIZED now() CODEC(Delta, ZSTD),
    _topic         LowCardinality(String),
    _partition     Int32,
    _offset        Int64 CODEC(Delta, ZSTD),
    INDEX times event_time TYPE minmax GRANULARITY 1,
    INDEX premiums premium_amount TYPE minmax GRANULARITY 1,
    INDEX sessions session_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX users user_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(_offset)
ORDER BY (UUIDv7ToDateTime(event_id), event_id)
TTL loaded_at + INTERVAL 1 YEAR DELETE
SETTINGS non_replicated_deduplication_window = 1000;
