-- Users of the insurance comparison site, from the topic `insurance.users`: for questions about users. The events carry what
-- the users' file said of theirs when they came (002_events.sql), so that nothing is joined here.
--
-- How these files are read: see the first lines of sql/clickstream/001_events.sql, and docs/clickhouse-sql.md.

CREATE DATABASE IF NOT EXISTS insurance_analytics;

-- One row a user, the newest: files repeat users, and a file that is loaded again brings changed ones. Newest is by
-- offset, which orders all rows of a user, since the user is the topic's key. (Where the topic is made anew, offsets begin
-- again: truncate this table then.)
-- Types
--   user_id      UInt16: up to 65535 users, 2 bytes; a user beyond that becomes a dead letter, not a wrapped number.
--   age          UInt8.
--   gender, city, device_type  few values many times: LowCardinality.
--   registered_at  in UTC by its type; to the millisecond, as the files have it.
-- Order: looked up by id, and nothing else.
-- The window of tokens: see sql/clickstream/001_events.sql; files load in far fewer blocks, so that 1000 are enough for a
-- day of retries.
CREATE TABLE IF NOT EXISTS insurance_analytics.users
(
    user_id       UInt16,
    age           UInt8,
    gender        LowCardinality(String),
    city          LowCardinality(String),
    device_type   LowCardinality(String),
    registered_at DateTime64(3, 'UTC'),
    _topic        LowCardinality(String),
    _partition    Int32,
    _offset       Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(_offset)
ORDER BY user_id
SETTINGS non_replicated_deduplication_window = 1000;
