MODEL (
  name mart.product_activity,
  kind FULL,
  grain customer_id,
  description 'The product activity coefficient: how much of the product a customer''s week is, from 0 (absent) to 1 (all of it).',
  column_descriptions (
    active_days = 'Days with any event, of the 7 that end with staging.clock',
    logins = 'Logins in those days',
    features = 'Different features used in those days',
    coefficient = '0.5 * active_days / 7 + 0.3 * min(features, 8) / 8 + 0.2 * min(logins, 14) / 14, 3 decimals'
  ),
  audits (
    unique_values(columns := (customer_id)),
    not_null(columns := (customer_id, coefficient)),
    coefficient_between_0_and_1
  )
);

/* Days weigh most: a habit cannot be made up by one busy afternoon. Features come second: who uses 8 of the 12 has made
   the product part of the work, and a ninth says little more. Logins come last, and stop counting at two a day, so that a
   script that logs in each minute is not our best customer. */
SELECT
  c.customer_id,
  COALESCE(a.active_days, 0) AS active_days,
  COALESCE(a.logins, 0) AS logins,
  COALESCE(a.features, 0) AS features,
  ROUND(
    0.5::DOUBLE * COALESCE(a.active_days, 0) / 7
    + 0.3::DOUBLE * LEAST(COALESCE(a.features, 0), 8) / 8
    + 0.2::DOUBLE * LEAST(COALESCE(a.logins, 0), 14) / 14,
    3
  ) AS coefficient
FROM staging.customers AS c
LEFT JOIN (
  SELECT
    e.customer_id,
    COUNT(DISTINCT e.happened_on) AS active_days,
    COUNT(*) FILTER (WHERE e.feature IS NULL) AS logins,
    COUNT(DISTINCT e.feature) AS features
  FROM staging.events AS e
  CROSS JOIN staging.clock AS k
  WHERE
    e.happened_on BETWEEN k.as_of - 6 AND k.as_of
  GROUP BY
    e.customer_id
) AS a
  ON a.customer_id = c.customer_id
