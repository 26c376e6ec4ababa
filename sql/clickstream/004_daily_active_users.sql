-- Distinct users per day and country, exactly.
--
-- Counting distinct users of each inserted block and adding the counts up is wrong as soon as a day spans two blocks: who
-- is in both counts twice. So what is stored is not a count but the set of users, and sets unite: it does not matter how
-- many blocks a day comes in, in which order, how late, or whether a user comes again.
--   groupBitmap  is exact (a compressed bitmap, not a sketch) and takes some bits a user rather than the 8 bytes that
--                uniqExact would; it needs an unsigned integer, which user_id is.
-- The parts of a day are united when they are merged, and by the view below for what is not merged yet.
-- The window of tokens: the server takes a retried block's rows apart from the events table's only where this table has a
--   window too (and the insert sets deduplicate_blocks_in_dependent_materialized_views, which Millstream does). A set
--   would stand a second copy, but a view's target without a window keeps Millstream from promising exactly once at all.
CREATE TABLE IF NOT EXISTS events_db.daily_active_users_states
(
    event_date Date,
    country    LowCardinality(String),
    users      AggregateFunction(groupBitmap, UInt32)
)
ENGINE = AggregatingMergeTree
ORDER BY (event_date, country)
SETTINGS non_replicated_deduplication_window = 10000;

-- The day is that of UTC.
CREATE MATERIALIZED VIEW IF NOT EXISTS events_db.daily_active_users_feed
TO events_db.daily_active_users_states AS
SELECT toDate(timestamp) AS event_date, country, groupBitmapState(user_id) AS users
FROM events_db.events
GROUP BY event_date, country;

-- What is to be read: one row for each day and country.
CREATE VIEW IF NOT EXISTS events_db.daily_active_users_final AS
SELECT event_date, country, groupBitmapMerge(users) AS dau
FROM events_db.daily_active_users_states
GROUP BY event_date, country;
