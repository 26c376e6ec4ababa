-- Records that were rejected, one row for each record of the topic `insurance.dlq`.

-- Types
--   value, key   the record as it came; Nullable, since either may be missing.
--   value_base64, key_base64  the bytes themselves where they are no UTF-8; value and key then show them with U+FFFD.
--   reason       for people, differs from record to record: String.
--   stage, code, pipeline, plugin, topic  few values; stage and plugin are null where the host itself rejected.
--   timestamp    the record's own time, where it has one.
--   partition, offset  where the record stands in its topic; `_partition` and `_offset` say where the dead letter stands.
-- Order: one looks for the dead letters of a pipeline with a code, newest first. The time is that of the load, because the
--   record's own may be missing or wild, which may be why it is here.
-- Index: one record is looked up by its place; the min-max of offsets prunes that, since they go up within a part.
-- The window of tokens: see 001; dead letters come one by one and make blocks of their own, hence more of them.
CREATE TABLE IF NOT EXISTS insurance_analytics.dlq_table
(
    value      Nullable(String) CODEC(ZSTD(3)),
    key        Nullable(String),
    value_base64 Nullable(String),
    key_base64 Nullable(String),
    reason     String,
    stage      LowCardinality(Nullable(String)),
    code       LowCardinality(String),
    pipeline   LowCardinality(String),
    plugin     LowCardinality(Nullable(String)),
    topic      LowCardinality(String),
    partition  Int32,
    offset     Int64,
    timestamp  Nullable(DateTime64(3, 'UTC')),
    loaded_at  DateTime('UTC') MATERIALIZED now(),
    _topic     LowCardinality(String),
    _partition Int32,
    _offset    Int64 CODEC(Delta, ZSTD),
    INDEX place offset TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (pipeline, code, loaded_at)
SETTINGS non_replicated_deduplication_window = 10000;
