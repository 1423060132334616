"""The diff of a sync whose object holds nothing yet, as in a first load: each row makes a record, or a rule holds it.

Nothing has to be joined or compared then, and what is the same for all rows (nothing is held, nobody has changed anything) is put beside
them only after they were sorted, which takes the longest of all.
"""

from __future__ import annotations

from collections.abc import Sequence

from oploop.activate import sql
from oploop.activate.bound import BoundSync
from oploop.activate.rules import Rule, bad_of
from oploop.warehouse.base import Warehouse, quote_table


def is_fresh(bound: BoundSync, warehouse: Warehouse, known: sql.Known) -> bool:
    """Whether the app, as it was read, holds no record of the sync's object, and none is remembered."""
    if not warehouse.columnar or bound.appends:
        return False
    if any(f.in_place or f.ref is not None for f in bound.fields):  # what is wanted depends on more than its row
        return False
    if known.has_records or known.has_parked or known.has_removed:
        return False
    relations = [known.state] if known.has_state else []
    if not bound.blind:
        assert bound.raw_table is not None
        relations.append(quote_table(bound.raw_table))
    return not any(warehouse.rows(f"SELECT 1 FROM {relation} AS t LIMIT 1") for relation in relations)


def select(bound: BoundSync, warehouse: Warehouse, rules: Sequence[Rule]) -> str:
    """The statement, with the columns of `sql.diff_select`; of `b` only that it is NULL."""
    n, model = range(len(bound.fields)), sql.model_select(bound)
    befores = ", ".join(f"NULL::{warehouse.sql_type(bound.fields[i].field.type)} AS b{i}" for i in n)
    nothing = f"NULL::VARCHAR AS __remote, 0 AS __hits{', ' if befores else ''}{befores}"
    made = "create" if bound.create_op is not None else "missing"
    sorted_by = sql.order_of(bound, "k0" if sql.native_key(bound) is not None else "__key")
    rank = ", __rank" if bound.order else ""
    keys = ", ".join(f"k{i}" for i in range(len(bound.keys)))
    wanted = "".join(f", w{i}" for i in n)
    rows = (
        f"SELECT __key, {keys}, CASE WHEN __bad > 0 THEN 'held' ELSE '{made}' END AS __status, __bad, {sql.broken(rules)}, "
        f"__why{rank}{wanted} FROM judged"
    )
    ordered = (
        f"SELECT row_number() OVER () AS __n, * FROM (SELECT * FROM ({rows}) AS t ORDER BY __status, {sorted_by}) AS t"
    )
    cols = [
        f"COALESCE({sql.differs(f, i)}, FALSE) AS c{i}, FALSE AS d{i}, TRUE AS o{i}" for i, f in enumerate(bound.fields)
    ]
    cols += ["NULL::VARCHAR AS __stamp"] if bound.stamp is not None else []
    each = f"SELECT *, FALSE AS __left, CASE WHEN __status = 'create' THEN __n END AS __number, {', '.join(cols)} FROM (SELECT *, {nothing} FROM sorted) AS t"
    slim = f" REPLACE ({', '.join(f'NULL::INTEGER AS b{i}' for i in n)})" if befores else ""
    return (
        f"WITH twice AS ({sql.repeated(f'({model}) AS d')}), "  # of the model once more only what its key is made of
        f"base AS (SELECT m.*, twice.dkey IS NOT NULL AS __twice, {nothing} FROM ({model}) AS m LEFT JOIN twice ON twice.dkey = m.__join), "
        f"judged AS (SELECT *, {bad_of(rules)} AS __bad FROM base), sorted AS ({ordered}) "
        f"SELECT __number, {sql.plan_columns(bound, '__value')} FROM (SELECT *{slim} FROM ({each}) AS t) AS t"
    )
