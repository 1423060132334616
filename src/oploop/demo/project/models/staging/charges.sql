MODEL (
  name staging.charges,
  kind VIEW,
  description 'Payments that were taken (not declined, pending or only reserved ones), with what was given back of each.',
  column_descriptions (
    minor = 'What was taken, in minor units of the currency',
    refunded_minor = 'What was given back of it, by the refunds themselves',
    stripe_refunded_minor = 'The same as the charge tells it',
    net_usd = 'What stayed, in US dollars'
  ),
  audits (
    unique_values(columns := (charge_id)),
    not_null(columns := (charge_id, net_usd)),
    refunds_match_charges
  )
);

SELECT
  c.id AS charge_id,
  c.customer AS customer_id,
  CAST(c.created AT TIME ZONE 'UTC' AS DATE) AS paid_on,
  c.currency,
  c.amount_captured AS minor,
  COALESCE(r.minor, 0) AS refunded_minor,
  c.amount_refunded AS stripe_refunded_minor,
  CAST(c.amount_captured - COALESCE(r.minor, 0) AS DECIMAL(18, 0)) * k.unit * k.usd AS net_usd
FROM raw_stripe.charges AS c
LEFT JOIN (
  SELECT
    charge,
    CAST(SUM(amount) AS BIGINT) AS minor
  FROM raw_stripe.refunds
  WHERE
    status IN ('succeeded', 'pending')
  GROUP BY
    charge
) AS r
  ON r.charge = c.id
LEFT JOIN staging.currencies AS k
  ON k.currency = c.currency
WHERE
  c.status = 'succeeded' AND c.captured
