"""Rows that wait for a record of the sync's own object which no run will make: they are held, with the reason.

A row waits only for one that is made in this run, or that waits itself and can be made once its own is there. What is left
refers in a circle, or to a row that makes no record, as it is held, parked or gone itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from oploop.activate import keys, references, sql
from oploop.activate.bound import BoundSync
from oploop.activate.rules import first_late
from oploop.activate.unknowns import waits_for_person
from oploop.warehouse.base import Warehouse, literal, quote_table

MADE = "oploop_made"
#: Rows that wait for one another in a longer line than this are not looked at: it takes as many runs to make them.
LEVELS = 100


def hold(bound: BoundSync, warehouse: Warehouse, known: sql.Known, table: str, rules: int, *, whole: bool) -> None:
    """Hold those of a plan table's waiting rows that wait in vain.

    `rules`: how many hold rows by their own values; `whole`: the table has all rows that are not the same.
    """
    own = references.own_waits(bound)
    plan = quote_table(table)
    if not own or not warehouse.rows(f"SELECT 1 FROM {plan} WHERE __status = 'waiting' LIMIT 1"):
        return
    warehouse.execute(
        f"CREATE OR REPLACE TEMP TABLE {MADE} AS {' UNION '.join(_made(bound, known, plan, own, whole=whole))}"
    )
    free = " AND ".join(f"(p.__q{i} IS NULL OR p.__q{i} IN (SELECT key FROM {MADE}))" for i in own)
    for _ in range(LEVELS):
        more = warehouse.execute(
            f"INSERT INTO {MADE} SELECT p.__key FROM {plan} p WHERE p.__status = 'waiting' AND {free} "
            f"AND p.__key NOT IN (SELECT key FROM {MADE})"
        )
        if not more:
            break
    else:
        return
    for n, i in enumerate(own):
        stuck = f"__status = 'waiting' AND __q{i} IS NOT NULL AND __q{i} NOT IN (SELECT key FROM {MADE})"
        in_turn = f"SELECT __key FROM {plan} WHERE __status = 'waiting'"
        bad = (
            f"CASE WHEN __q{i} IN ({in_turn}) THEN {first_late(rules) + 2 * n} ELSE {first_late(rules) + 2 * n + 1} END"
        )
        warehouse.execute(f"UPDATE {plan} SET __bad = {bad}, __value = __q{i} WHERE {stuck} AND __bad = 0")
    warehouse.execute(f"UPDATE {plan} SET __status = 'held' WHERE __status = 'waiting' AND __bad > 0")


def _made(bound: BoundSync, known: sql.Known, plan: str, own: Sequence[int], *, whole: bool) -> list[str]:
    """Keys of records that this run makes, or that a read has yet to show; selects of one column, `key`."""
    found = [f"SELECT __key AS key FROM {plan} WHERE __status IN ('create', 'seen')"]
    found += [f"SELECT __key FROM {maker}" for i in own for maker in known.refs[i].makers]
    if bound.appends or not whole:  # what was appended is no row of the plan any more; of a part nothing else is known
        listed = f"SELECT __key FROM {plan} WHERE __key IS NOT NULL"
        found += [f"SELECT __q{i} FROM {plan} WHERE __q{i} NOT IN ({listed})" for i in own]
    if known.has_parked and not waits_for_person(bound):
        names = ", ".join(map(literal, known.names))
        its = keys.in_form(bound, "key")
        found.append(f"SELECT {its} FROM oploop.parked WHERE reason = 'unknown' AND sync IN ({names})")
    return found
