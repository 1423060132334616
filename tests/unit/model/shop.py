"""A small project of each kind of model, and the raw table that it reads."""

from pathlib import Path

from oploop.warehouse.base import Warehouse

FILES = {
    "models/staging/charges.sql": """
MODEL (name staging.charges, kind VIEW);
SELECT id, amount / 100.0 AS amount, created, customerId AS customer, metadata ->> '$.plan' AS plan
FROM raw_shop.charges
WHERE status = 'succeeded'
""",
    "models/mart/spend.sql": """
MODEL (
  name mart.spend,
  kind FULL,
  description 'What each customer spent',
  audits (not_null(columns := (customer)), unique_values(columns := (customer)), positive, not_huge)
);
SELECT customer, sum(amount) AS total FROM staging.charges GROUP BY customer
""",
    "models/mart/by_key.sql": """
MODEL (name mart.by_key, kind INCREMENTAL_BY_UNIQUE_KEY (unique_key id));
SELECT id, amount, created FROM staging.charges
""",
    "models/mart/by_day.sql": """
MODEL (name mart.by_day, kind INCREMENTAL_BY_TIME_RANGE (time_column day));
SELECT CAST(created AS DATE) AS day, sum(amount) AS total
FROM staging.charges
WHERE CAST(created AS DATE) BETWEEN @start_date AND @end_date
GROUP BY 1
""",
    "models/mart/plans.sql": """
MODEL (name mart.plans, kind SEED (path '../../seeds/plans.csv'), columns (plan TEXT, price INT));
""",
    "models/mart/health.sql": """
MODEL (name mart.health, kind FULL, audits (not_null(columns := (plan), blocking := false)));
WITH spent AS (SELECT * FROM mart.spend)
SELECT s.customer, s.total, p.plan FROM spent AS s LEFT JOIN mart.plans AS p ON p.price = s.total
""",
    "models/mart/last.sql": """
MODEL (name mart.last, kind VIEW);
SELECT customer, total > 10 AS is_big FROM mart.health
""",
    "seeds/plans.csv": "plan,price\ngold,10\nsilver,5\n",
    "audits/positive.sql": """
AUDIT (name positive);
SELECT * FROM @this_model WHERE total < 0
""",
    "audits/not_huge.sql": """
AUDIT (name not_huge, blocking false);
SELECT * FROM @this_model WHERE total > 1000
""",
    "tests/test_spend.yaml": """
test_adds_up:
  model: mart.spend
  inputs:
    staging.charges:
      rows:
        - {customer: a, amount: 1.5}
        - {customer: a, amount: 2}
  outputs:
    query:
      rows:
        - {customer: a, total: 3.5}
test_is_wrong:
  model: mart.spend
  inputs:
    staging.charges:
      rows:
        - {customer: a, amount: 1}
  outputs:
    query:
      rows:
        - {customer: a, total: 2}
""",
}

MODELS = [
    "mart.plans", "staging.charges", "mart.by_day", "mart.by_key", "mart.spend", "mart.health", "mart.last",
]  # fmt: skip


def write(root: Path, files: dict[str, str] | None = None) -> None:
    """Write the project's files, or some others."""
    for name, text in (FILES if files is None else files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"))


def make_raw(warehouse: Warehouse) -> None:
    """The raw table, with one charge of 5 from each of the customers c0 to c3."""
    warehouse.execute("CREATE SCHEMA raw_shop")
    warehouse.execute(
        "CREATE TABLE raw_shop.charges__all AS SELECT 'ch_' || i AS id, 500 AS amount, "
        "TIMESTAMPTZ '2026-01-01' AS created, 'c' || i AS \"customerId\", 'succeeded' AS status, "
        'CAST(\'{"plan": "gold"}\' AS JSON) AS metadata, FALSE AS _deleted FROM range(4) AS r(i)'
    )
    warehouse.execute("CREATE VIEW raw_shop.charges AS SELECT * FROM raw_shop.charges__all WHERE NOT _deleted")


def charge(warehouse: Warehouse, name: str, customer: str | None, cents: int) -> None:
    """One more charge, of today."""
    warehouse.execute(
        'INSERT INTO raw_shop.charges__all (id, amount, created, "customerId", status, _deleted) '
        "VALUES (?, ?, now(), ?, 'succeeded', FALSE)",
        [name, cents, customer],
    )
