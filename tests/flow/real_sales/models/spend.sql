MODEL (
  name mart.spend,
  kind FULL,
  description 'What each customer spent, in pence: charges less refunds, plus the balance (negative: credit for returns of things bought before).',
  audits (unique_values(columns := (customer_id)))
);

WITH refunded AS (
  SELECT charge, sum(amount) AS pence FROM raw_stripe.refunds WHERE status = 'succeeded' GROUP BY charge
), charged AS (
  SELECT c.customer, sum(c.amount - coalesce(r.pence, 0)) AS pence
  FROM raw_stripe.charges c LEFT JOIN refunded r ON r.charge = c.id
  WHERE c.status = 'succeeded' GROUP BY c.customer
)
SELECT
  coalesce(cu.id, 'guest') AS customer_id,
  cu.name AS customer_name,
  CAST(coalesce(ch.pence, 0) + coalesce(cu.balance, 0) AS BIGINT) AS spend_pence
FROM raw_stripe.customers cu FULL JOIN charged ch ON ch.customer = cu.id
