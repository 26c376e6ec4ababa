-- Click events, one row for each record of the topic `enriched_events`.
--
-- How these files are read: statements end at a `;` that is not within quotes, a comment or a heredoc; the files are
-- applied in the order of their names, each statement on its own, and a second time changes nothing. A file that was
-- applied is not edited: what is to change goes into a new file. See docs/clickhouse-sql.md.

CREATE DATABASE IF NOT EXISTS events_db;

-- Types
--   event_type, country, page_url, device_type, region  hold few values many times: LowCardinality stores each once
--               a part and compares numbers. Where page_url has more than 8192 values a part it falls back by itself.
--   user_id     UInt32: the rules let no negative one through, and exact counts of users (004) want a plain integer.
--   button_id   UUID: 16 bytes rather than 36.
--   timestamp   in UTC by its type, so that days and minutes don't depend on the server's time zone; 4 bytes, as the
--               events have whole seconds.
--   device_type, is_mobile  Nullable: events from before the schema's version 2 have none, for ever.
-- Lineage
--   _topic, _partition, _offset  are filled by Millstream. A block whose fate is unknown after an outage is settled by a
--               count over them. They compress to nearly nothing: within a part they go up by one.
-- Order: nearly every question names countries or groups by them, and a time range. Country first has few values, so that
--   the time still prunes, and rows of a country lie together, which compresses best.
-- No partitions: one record with a wild time must not make a block of more than 100 partitions, which the server refuses
--   as a whole, again and again. The order by time is enough to prune.
-- The window: the server remembers the tokens of that many blocks, over all writers, and drops a block that comes again.
--   It has to hold all blocks that other writers insert while one is retried. A writer inserts at most a block a second
--   when it flushes by time, and some ten a second at full speed: 10000 are 2 minutes of 8 partitions at full speed, 20
--   minutes at a block a second each. Beyond that the lineage columns settle it. An entry costs some 100 bytes: 1 MB.
CREATE TABLE IF NOT EXISTS events_db.events
(
    event_type     LowCardinality(String),
    user_id        UInt32,
    page_url       LowCardinality(String),
    button_id      UUID,
    timestamp      DateTime('UTC') CODEC(Delta, ZSTD),
    country        LowCardinality(String),
    device_type    LowCardinality(Nullable(String)),
    region         LowCardinality(String),
    is_mobile      Nullable(Bool),
    schema_version UInt8,
    _topic         LowCardinality(String),
    _partition     Int32,
    _offset        Int64 CODEC(Delta, ZSTD)
)
ENGINE = MergeTree
ORDER BY (country, timestamp)
SETTINGS non_replicated_deduplication_window = 10000;
