AUDIT (
  name coefficient_between_0_and_1,
  dialect duckdb
);

SELECT
  *
FROM @this_model
WHERE
  NOT coefficient BETWEEN 0 AND 1
