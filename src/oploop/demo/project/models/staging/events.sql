MODEL (
  name staging.events,
  kind INCREMENTAL_BY_UNIQUE_KEY (
    unique_key event_id
  ),
  start '2020-01-01',
  description 'What known customers did in the product, one row an event. Only what was extracted since the last build is looked at: events may come late, and in any order.',
  column_descriptions (
    happened_on = 'The day (UTC) by the event''s own time, as corrected by Segment',
    feature = 'NULL: a login'
  ),
  audits (
    unique_values(columns := (event_id)),
    not_null(columns := (event_id, customer_id, happened_on))
  )
);

SELECT
  messageId AS event_id,
  userId AS customer_id,
  CAST(timestamp AT TIME ZONE 'UTC' AS DATE) AS happened_on,
  CASE WHEN event <> 'Logged In' THEN event END AS feature
FROM raw_segment.track
WHERE
  userId IS NOT NULL
  AND _extracted_at BETWEEN @start_dt AND @end_dt
