"""Rows of the model that the app holds already: found by one join of model and app, before state, identities and the
rest are asked about them. Mostly they are nearly all.

What a row wants and the app holds is no change, whatever was sent before (design: §5.3), provided that what was read is
news to each acknowledgement (`sql.superseded`). Records that were acknowledged since the last complete read are left to
the diff, as are rows that a rule holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from oploop.activate import sql
from oploop.activate.bound import BoundSync
from oploop.activate.rules import Rule, bad_of
from oploop.warehouse.base import Warehouse, quote_table

REST = "oploop_rest"
#: The first pass is worth its while if it can hope to find this share of the rows.
WORTH = 0.5


def rest(
    bound: BoundSync, warehouse: Warehouse, known: sql.Known, rules: Sequence[Rule], rows: int
) -> tuple[sql.Rest, sql.Known] | None:
    """Put the model's other rows beside the app's into the temporary table REST, for `sql.diff_select`; and what it need know.

    `rows`: of the model. None where it must be looked at whole: a wanted value depends on more than its row, or the app
    is not known to hold many of them.
    """
    if bound.blind or bound.appends or any(f.in_place or f.ref is not None for f in bound.fields):
        return None
    assert bound.raw_table is not None
    [(held,)] = warehouse.rows(f"SELECT count(*) FROM {quote_table(bound.raw_table)}")
    recent = "TRUE" if known.vouched is None else f"NOT COALESCE({sql.vouched('acked_at', known.vouched)}, FALSE)"
    news = 0
    if known.has_state:
        [(news,)] = warehouse.rows(f"SELECT count(*) FROM {known.state} AS s WHERE {recent}")
    if held - news < WORTH * rows:
        return None
    unsure = f"SELECT DISTINCT remote_id FROM {known.state} AS s WHERE {recent}" if news else None
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE {REST} AS {_select(bound, known, rules, unsure)}")
    n = range(len(bound.fields))
    beside = ", ".join(f"a{c} AS {c}" for c in ("__remote", *(f"n{i}" for i in n)))
    unlike = "".join(f", bool_or({sql.differs(f, i, 'n')})" for i, f in enumerate(bound.fields))
    [(found, in_app, fresh, *differ)] = warehouse.rows(
        f"SELECT count(*), count(__remote), count(*) FILTER (WHERE __fresh){unlike} FROM (SELECT *, {beside} FROM {REST}) AS t"
    )
    if found == in_app == fresh:  # what was sent of a field is asked only where a row differs in it
        names = frozenset(bound.fields[i].field.name for i in n if differ[i])
        known = replace(known, state_fields=known.state_fields & names)
    return sql.Rest(REST, found, missing=in_app < found), known


def _select(bound: BoundSync, known: sql.Known, rules: Sequence[Rule], unsure: str | None) -> str:
    """The model's rows that are not simply the same, with the columns of `sql.live` as a__remote, an0 ..

    `__dup`: the row's key is in another one too; `__fresh`: what was read is news to each acknowledgement.
    """
    model = f"({sql.model_select(bound)})"
    app = ["__remote", *sql.held_columns(bound)]
    joins = f"LEFT JOIN ({sql.live(bound, known)}) a ON a.__join = m.__join LEFT JOIN ({sql.repeated(f'{model} AS d')}) r ON r.dkey = m.__join"
    fresh, taken = "TRUE", {c: f"a.{c}" for c in app}
    if unsure is None:  # each acknowledgement is older than what was read, so nobody asks when that was
        taken |= {"__version": "NULL::BIGINT AS __version", "__read_at": "NULL::TIMESTAMPTZ AS __read_at"}
    else:
        joins += f" LEFT JOIN ({unsure}) u ON u.remote_id = a.__remote"
        fresh = "u.remote_id IS NULL"
    beside = (
        f"SELECT m.*, {', '.join(taken.values())}, COALESCE(a.__hits, 0) AS __hits, r.dkey IS NOT NULL AS __twice, "
        f"{fresh} AS __fresh FROM {model} m {joins}"
    )
    unlike = [f"NOT ({sql.differs(f, i, 'n')})" for i, f in enumerate(bound.fields)]
    same = " AND ".join(["__remote IS NOT NULL", "__fresh", *unlike, f"{bad_of(rules)} = 0"])
    hidden = ", ".join([*app, "__hits", "__twice"])
    named = ", ".join(f"{c} AS a{c}" for c in [*app, "__hits"])
    return f"SELECT * EXCLUDE ({hidden}), {named}, __twice AS __dup FROM ({beside}) AS t WHERE NOT ({same})"
