-- What is asked of the events. All of it is computed when asked, from one row for each event_id.
--
-- Why nothing is counted while rows come in: a materialized view sees the rows of one insert. It can't know that an event_id
-- was there before, so that a copy in a later block counts twice, and a sum can't take that back. The sets that would
-- make it right (distinct event ids of each day and type, with their premiums) are as large as the events. Views over FINAL are
-- right at any moment, under copies, retries and late rows.

-- For each day and event type: events, users, sessions and premiums. The day is that of UTC.
CREATE VIEW IF NOT EXISTS insurance_analytics.daily_event_metrics AS
SELECT
    toDate32(event_time) AS event_date,
    event_type,
    count() AS events,
    uniqExact(user_id) AS unique_users,
    uniqExact(session_id) AS sessions,
    sum(premium_amount) AS premium_amount
FROM insurance_analytics.processed_events_storage FINAL
GROUP BY event_date, event_type;

-- For each day: users, sessions, purchases and their premiums. Users and sessions are distinct, so they are no sums of
-- those per event type.
CREATE VIEW IF NOT EXISTS insurance_analytics.daily_aggregate_metrics AS
SELECT
    toDate32(event_time) AS event_date,
    count() AS events,
    uniqExact(user_id) AS unique_users,
    uniqExact(session_id) AS sessions,
    countIf(event_type = 'purchase') AS purchases,
    sumIf(premium_amount, event_type = 'purchase') AS revenue
FROM insurance_analytics.processed_events_storage FINAL
GROUP BY event_date;
