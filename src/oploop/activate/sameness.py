"""Rows of the model that the app holds already: found by one join of model and app, before state, identities and the
rest are asked about them. Mostly they are nearly all.

What a row wants and the app holds is no change, whatever was sent before (design: §5.3), provided that what was read is
news to each acknowledgement (`sql.superseded`). Records that were acknowledged since the last complete read are left to
the diff, as are rows that a rule holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from oploop.activate import sql
from oploop.activate.bound import BoundSync
from oploop.activate.convert import key_form
from oploop.activate.rules import Rule, bad_of
from oploop.records import Canonical
from oploop.warehouse.base import Warehouse, quote_table

REST = "oploop_rest"
#: The first pass is worth its while if it can hope to find this share of the rows.
WORTH = 0.5
#: So many records for each row may the app hold at the most for all of them to be shown that no row meets.
MOST = 2


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
    once = _once(bound, warehouse, known)
    held = _count(warehouse, f"({sql.live(bound, known)})" if once else quote_table(bound.raw_table))
    recent = "TRUE" if known.vouched is None else f"NOT COALESCE({sql.vouched('acked_at', known.vouched)}, FALSE)"
    news = _count(warehouse, known.state, recent) if known.has_state else 0
    if held - news < WORTH * rows:
        return None
    unsure = f"SELECT DISTINCT remote_id FROM {known.state} AS s WHERE {recent}" if news else None
    select = partial(_select, bound, known, rules, unsure)
    if not (once and held <= MOST * rows and _paired(warehouse, select(paired=True), rows, held)):
        warehouse.execute(f"CREATE OR REPLACE TEMP TABLE {REST} AS {select()}")
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


def _count(warehouse: Warehouse, rows: str, where: str = "TRUE") -> int:
    return int(warehouse.rows(f"SELECT count(*) FROM {rows} AS s WHERE {where}")[0][0])


def _once(bound: BoundSync, warehouse: Warehouse, known: sql.Known) -> bool:
    """Whether no two of the app's records can have one key, and nobody else writes what several statements ask about."""
    if not (known.key_unique and warehouse.alone and len(bound.keys) == 1):
        return False
    return bound.keys[0].native is not None or key_form(bound.keys[0].field) is Canonical.EXACT


def _paired(warehouse: Warehouse, select: str, rows: int, held: int) -> bool:
    """Put the rows into REST without looking for keys that come twice; False where one has come twice in what the app holds.

    The app's `held` records have a key each, so of those that are met none is met twice if they are as many as the rows that
    meet them. Rows that meet none are all in REST, where keys that come twice are looked for later.
    """
    warehouse.execute(f"CREATE OR REPLACE TEMP TABLE {REST} AS {select}")
    absent = _count(warehouse, REST, "__in IS NULL")
    if absent:
        warehouse.execute(f"DELETE FROM {REST} WHERE __in IS NULL")
    return rows - _count(warehouse, REST, "a__remote IS NULL") == held - absent


def _select(
    bound: BoundSync, known: sql.Known, rules: Sequence[Rule], unsure: str | None, *, paired: bool = False
) -> str:
    """The model's rows that are not simply the same, with the columns of `sql.live` as a__remote, an0 ..

    `__fresh`: what was read is news to each acknowledgement. `paired`: rows of one key are not looked for, and the app's
    records that no row meets come too, `__in` being NULL.
    """
    model = f"({sql.model_select(bound, keys_as_text=False)})"
    app = ["__remote", *sql.held_columns(bound)]
    compared = unsure is not None or known.has_removed or not known.key_unique
    live = sql.live(bound, known, ids_as_text=compared)  # else ids are made texts of few rows, at the end
    joins, twice = f"JOIN ({live}) a ON a.__join = m.__join", "FALSE"
    if paired:
        joins = f"(SELECT *, TRUE AS __in FROM {model} AS d) m FULL {joins}"
    else:
        joins, twice = f"{model} m LEFT {joins}", "r.dkey IS NOT NULL"
        joins += f" LEFT JOIN ({sql.repeated(f'{model} AS d')}) r ON r.dkey = m.__join"
    fresh, taken = "TRUE", {c: f"a.{c}" for c in app}
    if unsure is None:  # each acknowledgement is older than what was read, so nobody asks when that was
        taken |= {"__version": "NULL::BIGINT AS __version", "__read_at": "NULL::TIMESTAMPTZ AS __read_at"}
    else:
        joins += f" LEFT JOIN ({unsure}) u ON u.remote_id = a.__remote"
        fresh = "u.remote_id IS NULL"
    beside = (
        f"SELECT m.*, {', '.join(taken.values())}, COALESCE(a.__hits, 0) AS __hits, {twice} AS __twice, "
        f"{fresh} AS __fresh FROM {joins}"
    )
    unlike = [f"NOT ({sql.differs(f, i, 'n')})" for i, f in enumerate(bound.fields)]
    same = " AND ".join([*(["__in"] if paired else []), "__hits > 0", "__fresh", *unlike, f"{bad_of(rules)} = 0"])
    hidden = ", ".join([*app, "__hits", "__twice"])
    named = ", ".join(f"CAST({c} AS VARCHAR) AS a{c}" if c == "__remote" else f"{c} AS a{c}" for c in [*app, "__hits"])
    texts = ", ".join(f"CAST({c} AS VARCHAR) AS {c}" for c in ("__key", "__p0"))  # of few rows, where they are numbers
    return (
        f"SELECT * EXCLUDE ({hidden}) REPLACE ({texts}), {named} FROM ({beside}) AS t WHERE NOT COALESCE({same}, FALSE)"
    )
