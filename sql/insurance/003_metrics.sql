-- What is asked of the events. All of it is computed when asked, from one row for each event_id.
--
-- Why nothing is counted while rows come in: a materialized view sees the rows of one insert. It can't know that an event_id
-- was there before, so that a copy in a later block counts twice, and a sum can't take that back. The sets that would
-- make it right (distinct event ids of each day and type, with their premiums) are as large as the events. And a session
-- or a user may get rows days later. Views over FINAL are right at any moment, under copies, retries and late rows.

-- Events joined with their users. An event of a user that is not known (yet) is there with empty fields; when the user comes,
-- it has them, which a join at the time of the insert would miss.
CREATE VIEW IF NOT EXISTS insurance_analytics.processed_events_storage AS
SELECT
    events.event_id AS event_id,
    events.user_id AS user_id,
    events.session_id AS session_id,
    events.event_type AS event_type,
    events.channel AS channel,
    events.premium_amount AS premium_amount,
    events.event_time AS event_time,
    users.age AS age,
    users.gender AS gender,
    users.city AS city,
    users.device_type AS device_type,
    users.registered_at AS registered_at
FROM insurance_analytics.processed_events AS events FINAL
LEFT ANY JOIN insurance_analytics.users AS users FINAL ON events.user_id = users.user_id;

-- For each day and event type: events, users, sessions and premiums. The day is that of UTC.
CREATE VIEW IF NOT EXISTS insurance_analytics.daily_event_metrics AS
SELECT
    toDate32(event_time) AS event_date,
    event_type,
    count() AS events,
    uniqExact(user_id) AS unique_users,
    uniqExact(session_id) AS sessions,
    sum(premium_amount) AS premium_amount
FROM insurance_analytics.processed_events FINAL
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
FROM insurance_analytics.processed_events FINAL
GROUP BY event_date;

-- Session windows: the events of a session until it is silent for half an hour; what comes later under the same id is a
-- window of its own. Events of the same millisecond are in the order of their ids.
CREATE VIEW IF NOT EXISTS insurance_analytics.session_metrics AS
SELECT
    session_id,
    window_number,
    argMin(user_id, (event_time, event_id)) AS user_id,
    min(event_time) AS session_start,
    max(event_time) AS session_end,
    dateDiff('millisecond', session_start, session_end) / 1000 AS duration_s,
    count() AS events,
    arrayMap(event -> event.3, arraySort(groupArray((event_time, event_id, event_type)))) AS event_sequence,
    argMin(channel, (event_time, event_id)) AS first_touch,
    countIf(event_type = 'purchase') > 0 AS has_purchase,
    sumIf(premium_amount, event_type = 'purchase') AS revenue
FROM
(
    SELECT
        *,
        sum(is_new) OVER (PARTITION BY session_id ORDER BY event_time, event_id ROWS UNBOUNDED PRECEDING) AS window_number
    FROM
    (
        SELECT
            event_id, user_id, session_id, event_type, channel, premium_amount, event_time,
            lagInFrame(event_time, 1, event_time)
                OVER (PARTITION BY session_id ORDER BY event_time, event_id ROWS UNBOUNDED PRECEDING) AS time_before,
            event_time > time_before + INTERVAL 30 MINUTE AS is_new
        FROM insurance_analytics.processed_events FINAL
    )
)
GROUP BY session_id, window_number;
