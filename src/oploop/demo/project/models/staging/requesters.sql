MODEL (
  name staging.requesters,
  kind VIEW,
  description 'Whom each Zendesk user writes for: the Stripe customer named by the user''s external id, else by the same e-mail, else by the external id of the user''s organization.',
  column_descriptions (
    customer_id = 'NULL: nobody''s customer, as far as we know'
  ),
  audits (
    unique_values(columns := (user_id)),
    not_null(columns := (user_id))
  )
);

SELECT
  u.id AS user_id,
  u.name,
  COALESCE(by_id.customer_id, by_mail.customer_id, by_firm.customer_id) AS customer_id
FROM raw_zendesk.users AS u
LEFT JOIN staging.customers AS by_id
  ON by_id.customer_id = u.external_id
LEFT JOIN (
  SELECT
    email,
    MIN(customer_id) AS customer_id
  FROM staging.customers
  GROUP BY
    email
  HAVING
    COUNT(*) = 1 /* an address of two customers tells nothing */
) AS by_mail
  ON by_mail.email = LOWER(TRIM(u.email))
LEFT JOIN raw_zendesk.organizations AS o
  ON o.id = u.organization_id
LEFT JOIN staging.customers AS by_firm
  ON by_firm.customer_id = o.external_id
