AUDIT (
  name refunds_match_charges,
  dialect duckdb,
  blocking false
);

/* The refunds that we have read should add up to what Stripe says of the charge. When they do not, a refund is still on
   its way: worth a look, no reason to stop. */
SELECT
  *
FROM @this_model
WHERE
  refunded_minor <> stripe_refunded_minor
