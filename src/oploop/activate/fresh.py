"""The diff of a sync whose object holds nothing yet, as in a first load: each row makes a record, or a rule holds it.

Nothing has to be joined or compared then. What follows from the rest of a row, or is the same for all rows (nobody has changed
anything), is neither sorted nor written: in a plan that stays it is made when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oploop.activate import sql
from oploop.activate.bound import BoundField, BoundSync
from oploop.activate.rules import Rule, bad_of
from oploop.records import Canonical
from oploop.warehouse.base import Warehouse, quote_table

#: A view that is asked for the types of what is written.
_TYPES = "oploop_fresh"


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
    given, sent = _given(bound, warehouse), _sent(bound)
    rows = f"SELECT *, {_listed(given)} FROM ({_stored(bound, rules)}) AS t"
    if sent:
        rows = f"SELECT *, {_listed(sent)} FROM ({rows}) AS t"
    slim = ", ".join(f"NULL::INTEGER AS b{i}" for i in range(len(bound.fields)))
    if slim:
        rows = f"SELECT * REPLACE ({slim}) FROM ({rows}) AS t"
    return f"SELECT __number, {sql.plan_columns(bound, '__value')} FROM ({rows}) AS t"


def statements(
    bound: BoundSync,
    warehouse: Warehouse,
    rules: Sequence[Rule],
    table: str,
    nulls: Mapping[str, int],
    limit: int | None,
) -> list[str]:
    """What makes the same as the table `table`, to stay: what is not written of a row is made when it is read.

    `nulls`: how many rows of the model have no value for a field, by its label; `limit`: see `diff.diff`.
    """
    made = _given(bound, warehouse)
    every = [i for i, f in enumerate(bound.fields) if _always(f, nulls)]
    made |= {f"c{i}": ("BOOLEAN", "TRUE") for i in every}
    sent = {name: c for name, c in _sent(bound).items() if name not in made}
    written = "".join(f", {expr} AS {name}" for name, (_, expr) in sent.items())
    rows = _stored(bound, rules)
    if written:
        known = ["NULL::VARCHAR AS __remote", *(f"{made[f'b{name[1:]}'][1]} AS b{name[1:]}" for name in sent)]
        hidden = ", ".join(k.rpartition(" ")[2] for k in known)
        rows = f"SELECT * EXCLUDE ({hidden}){written} FROM (SELECT *, {', '.join(known)} FROM ({rows}) AS t) AS t"
    warehouse.execute(f"CREATE OR REPLACE TEMP VIEW {_TYPES} AS {rows}")
    kinds = warehouse.columns(_TYPES)
    warehouse.execute(f"DROP VIEW {_TYPES}")
    columns = []
    for name in ("__number", *sql.plan_columns(bound, "__value").split(", ")):
        kind, expr = (kinds[name], None) if name in kinds else made[name]
        columns.append(f"{name} {kind}" if expr is None else f"{name} {kind} GENERATED ALWAYS AS ({expr})")
    some = f" WHERE __number IS NULL OR __number <= {int(limit)}" if limit is not None else ""
    into, names = quote_table(table), ", ".join(kinds)
    return [
        f"CREATE OR REPLACE TABLE {into} ({', '.join(columns)})",
        f"INSERT INTO {into} ({names}) SELECT {names} FROM ({rows}) AS t{some}",
    ]


def _always(f: BoundField, nulls: Mapping[str, int]) -> bool:
    """Whether each row that is sent sends the field: it has a value in all, and none is as good as nothing."""
    return nulls.get(f.label) == 0 and f.fits and f.field.canonical is Canonical.EXACT


def _listed(columns: Mapping[str, tuple[str, str]]) -> str:
    return ", ".join(f"{expr} AS {name}" for name, (_, expr) in columns.items())


def _given(bound: BoundSync, warehouse: Warehouse) -> dict[str, tuple[str, str]]:
    """(type, expression) of the columns that are the same for all rows, and of those that follow from one other."""
    made = "create" if bound.create_op is not None else "missing"
    found = {"__remote": ("VARCHAR", "NULL::VARCHAR"), "__left": ("BOOLEAN", "FALSE")}
    found["__status"] = "VARCHAR", f"CASE WHEN __bad > 0 THEN 'held' ELSE '{made}' END"
    if sql.native_key(bound) is not None:  # a whole number, whose canonical text is just that
        found["__key"] = "VARCHAR", "CAST(k0 AS VARCHAR)"
    if not bound.explain:
        found["__why"] = "VARCHAR", "NULL::VARCHAR"
    if bound.stamp is not None:
        found["__stamp"] = "VARCHAR", "NULL::VARCHAR"
    for i, f in enumerate(bound.fields):
        kind = warehouse.sql_type(f.field.type)
        found |= {f"b{i}": (kind, f"NULL::{kind}"), f"d{i}": ("BOOLEAN", "FALSE"), f"o{i}": ("BOOLEAN", "TRUE")}
    return found


def _sent(bound: BoundSync) -> dict[str, tuple[str, str]]:
    """The same of whether a field is sent, over those."""
    return {f"c{i}": ("BOOLEAN", f"COALESCE({sql.differs(f, i)}, FALSE)") for i, f in enumerate(bound.fields)}


def _stored(bound: BoundSync, rules: Sequence[Rule]) -> str:
    """A select of what is to be written of each row, in the order of sending."""
    model, native = sql.model_select(bound), sql.native_key(bound) is not None
    cols = [*([] if native else ["__key"]), *(f"k{i}" for i in range(len(bound.keys))), "__bad", sql.broken(rules)]
    cols += [*(["__why"] if bound.explain else []), *(["__rank"] if bound.order else [])]
    cols += [f"w{i}" for i in range(len(bound.fields))]
    number = "CASE WHEN __bad = 0 THEN __n END" if bound.create_op is not None else "NULL::BIGINT"
    return (
        f"WITH twice AS ({sql.repeated(f'({model}) AS d')}), "  # of the model once more only what its key is made of
        "base AS (SELECT m.*, twice.dkey IS NOT NULL AS __twice, NULL::VARCHAR AS __remote, 0 AS __hits "
        f"FROM ({model}) AS m LEFT JOIN twice ON twice.dkey = m.__join), "
        f"judged AS (SELECT *, {bad_of(rules)} AS __bad FROM base), sorted AS (SELECT row_number() OVER () AS __n, * FROM "
        f"(SELECT {', '.join(cols)} FROM judged ORDER BY __bad > 0, {sql.order_of(bound, 'k0' if native else '__key', alike=True)}) AS t) "
        f"SELECT {number} AS __number, * EXCLUDE (__n) FROM sorted"
    )
