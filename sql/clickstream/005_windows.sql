-- What windows over the events' own time say of a day's users and of a user's visits; docs/windows.md says how such rows are
-- to be read. The averages of 002 come from a window too.

-- Users of each day and country, as they come: a row for what is known so far every 5 minutes of event time, a final one when the
-- day is closed, and another for each late event up to an hour after that. Each stands for its day as a whole, so the newest
-- counts, not the sum: by `version`, which rises with every row of a country. A row with `retracted` takes its window back
-- (a day's never is). Until two rows are merged both are there: ask with FINAL, which leaves out what was taken back, too.
CREATE TABLE IF NOT EXISTS events_db.daily_active_users_raw
(
    country      LowCardinality(String),
    window_start DateTime('UTC'),
    window_end   DateTime('UTC'),
    dau          UInt32,
    version      UInt64,
    retracted    Bool,
    _topic       LowCardinality(String),
    _partition   Int32,
    _offset      Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(version, retracted)
ORDER BY (country, window_start)
SETTINGS non_replicated_deduplication_window = 10000;

-- The same columns as daily_active_users_final, which is made of the events themselves. That one is exact at all times,
-- also for events that come days late; this one costs no set of users in the server, and is what the topic says.
CREATE VIEW IF NOT EXISTS events_db.daily_active_users_windows AS
SELECT toDate(window_start) AS event_date, country, dau
FROM events_db.daily_active_users_raw FINAL;

-- Visits: a user's events that lie less than 30 minutes apart. One row each, when it is over.
-- Replacing by user and begin, for a topic that is read again after `millstream offsets reset`: the newest row counts.
CREATE TABLE IF NOT EXISTS events_db.user_sessions_raw
(
    user_id      UInt32,
    window_start DateTime('UTC'),
    window_end   DateTime('UTC'),
    events       UInt32,
    pages        UInt32,
    _topic       LowCardinality(String),
    _partition   Int32,
    _offset      Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(_offset)
ORDER BY (user_id, window_start)
SETTINGS non_replicated_deduplication_window = 10000;

-- A session window ends with the gap that closes it; the last event was 30 minutes before.
CREATE VIEW IF NOT EXISTS events_db.user_sessions AS
SELECT user_id, window_start AS started_at, window_end - 1800 AS ended_at, ended_at - started_at AS duration_s, events, pages
FROM events_db.user_sessions_raw FINAL;
