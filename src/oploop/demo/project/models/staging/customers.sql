MODEL (
  name staging.customers,
  kind VIEW,
  description 'Customers of Stripe, one row each.',
  audits (
    unique_values(columns := (customer_id)),
    not_null(columns := (customer_id))
  )
);

SELECT
  id AS customer_id,
  name,
  LOWER(TRIM(email)) AS email,
  CAST(created AT TIME ZONE 'UTC' AS DATE) AS since
FROM raw_stripe.customers
