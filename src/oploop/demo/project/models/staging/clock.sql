MODEL (
  name staging.clock,
  kind VIEW,
  description 'The day that "the last 7 days" and "the last 365 days" end with: one row.',
  column_descriptions (
    as_of = 'The newest day (UTC) on which Segment received an event'
  )
);

/* Not CURRENT_DATE: results change through data only, so a turn with nothing new sends nothing; and when Segment's
   feed stands still, customers do not look as if they had left. Received, not sent: a laptop with a wrong clock moves nothing. */
SELECT
  COALESCE(CAST(MAX(receivedAt AT TIME ZONE 'UTC') AS DATE), DATE '2000-01-01') AS as_of
FROM raw_segment.track
