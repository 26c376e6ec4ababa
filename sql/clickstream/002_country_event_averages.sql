-- The rolling average of event counts per country: events a minute, over windows of 5 minutes.

-- What a windowed pipeline writes to the topic `country_event_averages`, as it comes.
--
-- Replacing by (country, window): a window that is emitted early, or again with a late event in it, stands for the same
-- window; its newest row counts, not their sum. "Newest" is by offset, which orders all rows of a country, since the
-- country is the topic's key. Until two rows are merged both are there: ask with FINAL.
-- DateTime in UTC and Float64 are what the topic promises. The window of tokens: see 001.
CREATE TABLE IF NOT EXISTS events_db.country_event_averages_raw
(
    country        LowCardinality(String),
    window_start   DateTime('UTC'),
    window_end     DateTime('UTC'),
    average_events Float64,
    _topic         LowCardinality(String),
    _partition     Int32,
    _offset        Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(_offset)
ORDER BY (country, window_start, window_end)
SETTINGS non_replicated_deduplication_window = 10000;

-- The same figures from the events themselves: a window of 5 minutes that moves on by one. It is computed when asked, so
-- that an event which comes late is in all five of its windows. A window without any event has no row.
CREATE VIEW IF NOT EXISTS events_db.country_event_averages AS
SELECT
    country,
    arrayJoin(arrayMap(i -> toStartOfMinute(timestamp) - i * 60, range(5))) AS window_start,
    window_start + 300 AS window_end,
    count() / 5 AS average_events
FROM events_db.events
GROUP BY country, window_start;
