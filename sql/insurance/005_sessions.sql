-- Sessions: the events of a session that lie less than 30 minutes apart; what comes later under the same id is a session of its
-- own. From the topic `insurance.session_metrics`, one row each when it is over: docs/windows.md.
--
-- Replacing by session and begin, for a topic that is read again after `millstream offsets reset`: the newest row counts.
CREATE TABLE IF NOT EXISTS insurance_analytics.session_metrics_raw
(
    session_id     UUID,
    user_id        UInt16,
    window_start   DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    window_end     DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    duration_s     Float64,
    events         UInt32,
    event_sequence Array(LowCardinality(String)),
    first_touch    LowCardinality(String),
    has_purchase   Bool,
    _topic         LowCardinality(String),
    _partition     Int32,
    _offset        Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(_offset)
ORDER BY (window_start, session_id, user_id)
SETTINGS non_replicated_deduplication_window = 1000;

-- A session window ends with the gap that closes it; the last event was 30 minutes before. `event_sequence` has the types of
-- the first 256 events, in the order of their times, and of their ids where those are the same.
CREATE VIEW IF NOT EXISTS insurance_analytics.session_metrics AS
SELECT
    session_id,
    user_id,
    window_start AS session_start,
    window_end - INTERVAL 30 MINUTE AS session_end,
    duration_s,
    events,
    event_sequence,
    first_touch,
    has_purchase
FROM insurance_analytics.session_metrics_raw FINAL;
