MODEL (
  name staging.currencies,
  kind VIEW,
  description 'What Stripe''s minor units are worth. The rates are fixed: made up for the demo, replace them with yours.',
  column_descriptions (
    currency = 'ISO code as Stripe writes it, lower case',
    unit = 'Money in one minor unit: a cent is 0.01, yen have no cents',
    usd = 'US dollars for one unit of money'
  )
);

SELECT
  currency,
  CAST(unit AS DECIMAL(3, 2)) AS unit,
  CAST(usd AS DECIMAL(10, 6)) AS usd
FROM (
  VALUES
    ('usd', 0.01, 1.0),
    ('eur', 0.01, 1.08),
    ('gbp', 0.01, 1.27),
    ('jpy', 1.00, 0.0067)
) AS t(currency, unit, usd)
