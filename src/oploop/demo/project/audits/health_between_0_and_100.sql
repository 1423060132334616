AUDIT (
  name health_between_0_and_100,
  dialect duckdb
);

SELECT
  *
FROM @this_model
WHERE
  NOT health BETWEEN 0 AND 100
