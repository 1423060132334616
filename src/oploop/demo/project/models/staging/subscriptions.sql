MODEL (
  name staging.subscriptions,
  kind VIEW,
  description 'The one subscription of each customer that counts: a running one before an ended one, then the newest.',
  column_descriptions (
    plan = 'The product''s name: Starter, Team, Enterprise',
    is_live = 'The customer has the product now'
  ),
  audits (
    unique_values(columns := (customer_id)),
    not_null(columns := (customer_id, plan)),
    accepted_values(column := state, is_in := (
      'active', 'trialing', 'past_due', 'canceled', 'unpaid', 'paused', 'incomplete', 'incomplete_expired'
    ))
  )
);

SELECT
  s.customer AS customer_id,
  s.id AS subscription_id,
  p.name AS plan,
  s.status AS state,
  s.status IN ('active', 'trialing', 'past_due') AS is_live
FROM raw_stripe.subscriptions AS s
LEFT JOIN raw_stripe.products AS p
  ON p.id = s.items ->> '$.data[0].price.product'
QUALIFY
  ROW_NUMBER() OVER (
    PARTITION BY s.customer
    ORDER BY s.status IN ('active', 'trialing', 'past_due') DESC, s.created DESC, s.id
  ) = 1
