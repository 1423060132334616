MODEL (
  name mart.account_health,
  kind FULL,
  grain customer_id,
  description 'One row a customer: what it pays, what it uses, whether it stays, and a score of the three.',
  column_descriptions (
    plan = 'Of the subscription that counts; NULL: never had one',
    state = 'Of that subscription, as Stripe has it',
    health = '0 to 100: half spend (0 at nothing, full at $50,000 a year, by logarithm), 30 activity, 20 subscription'
  ),
  audits (
    unique_values(columns := (customer_id)),
    not_null(columns := (customer_id, health)),
    health_between_0_and_100
  )
);

/* Spend is on a fixed scale and no percentile: what one customer pays moves that customer and nobody else. By
   logarithm, as spend is skewed: from $100 to $1,000 is as far as from $1,000 to $10,000. */
SELECT
  c.customer_id,
  c.name,
  s.plan,
  s.state,
  COALESCE(s.is_live, FALSE) AS is_live,
  p.last_year,
  p.lifetime,
  a.active_days,
  a.logins,
  a.features,
  a.coefficient,
  CAST(ROUND(
    50 * LEAST(1, LN(1 + GREATEST(CAST(p.last_year AS DOUBLE), 0)) / LN(50001))
    + 30 * a.coefficient
    + CASE s.state WHEN 'active' THEN 20 WHEN 'trialing' THEN 14 WHEN 'past_due' THEN 8 ELSE 0 END
  ) AS INTEGER) AS health
FROM staging.customers AS c
JOIN mart.spend AS p
  ON p.customer_id = c.customer_id
JOIN mart.product_activity AS a
  ON a.customer_id = c.customer_id
LEFT JOIN staging.subscriptions AS s
  ON s.customer_id = c.customer_id
