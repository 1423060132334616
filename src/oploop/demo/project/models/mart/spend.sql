MODEL (
  name mart.spend,
  kind FULL,
  grain customer_id,
  description 'What each customer paid, less refunds, in US dollars.',
  column_descriptions (
    last_year = 'In the 365 days that end with staging.clock, and since',
    lifetime = 'In all'
  ),
  audits (
    unique_values(columns := (customer_id)),
    not_null(columns := (customer_id, last_year, lifetime))
  )
);

SELECT
  c.customer_id,
  CAST(ROUND(COALESCE(SUM(p.net_usd) FILTER (WHERE p.paid_on > k.as_of - 365), 0), 2) AS DECIMAL(18, 2)) AS last_year,
  CAST(ROUND(COALESCE(SUM(p.net_usd), 0), 2) AS DECIMAL(18, 2)) AS lifetime
FROM staging.customers AS c
CROSS JOIN staging.clock AS k
LEFT JOIN staging.charges AS p
  ON p.customer_id = c.customer_id
GROUP BY
  c.customer_id
