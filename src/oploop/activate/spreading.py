"""The journal of a delivery spread out over its changes, in memory that does not depend on how many steps it has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from oploop.records import Outcome
from oploop.state import JournalStep
from oploop.warehouse.base import SqlError, Warehouse, literal

if TYPE_CHECKING:
    import pyarrow as pa

#: Steps that are Python objects at once.
AT_ONCE = 2_000
#: Ledger statuses of the journal's outcomes.
STATUS = {
    Outcome.OK: "sent",
    Outcome.REJECTED: "rejected",
    Outcome.RETRY: "failed",
    Outcome.CHANGED: "failed",
    Outcome.DEFERRED: "deferred",
    Outcome.UNKNOWN: "unknown",
}
_STEPS = {
    "step": "int64",
    "first": "int64",
    "last": "int64",
    "status": "string",
    "error": "string",
    "attempts": "int32",
    "sent_at": "timestamp",
    "acked_at": "timestamp",
    "version": "int64",
    "ids_from": "string",
}
_EXCEPTIONS = {"step": "int64", "number": "int64", "status": "string", "error": "string"}
_IDS = {"step": "int64", "number": "int64", "new_id": "string"}


def spread(warehouse: Warehouse, steps: Iterable[JournalStep], keys: Sequence[str]) -> None:
    """The journal as the temporary table `oploop_outcomes`: one row for each change that was begun, its last try only.

    Only steps, exceptions and new ids pass through Python; the changes themselves are found by their numbers. `keys`: the
    key's fields, by position in the plan table; `named`: of which of them the value is the id of a new record (see `id_of`).
    """
    with _shown(warehouse, steps):
        last_try = (
            "QUALIFY row_number() OVER (PARTITION BY s.number ORDER BY s.step DESC) = 1"
            if _tried_again(warehouse)
            else ""
        )
        arms = " ".join(f"WHEN {literal(name)} THEN {i}" for i, name in enumerate(keys))
        named = f"CAST(CASE ids_from {arms} END AS SMALLINT)" if arms else "CAST(NULL AS SMALLINT)"
        warehouse.execute(
            "CREATE OR REPLACE TEMP TABLE oploop_outcomes AS SELECT s.number, "
            "CASE WHEN e.step IS NOT NULL THEN e.status ELSE s.status END AS status, "
            "CASE WHEN e.step IS NOT NULL THEN e.error ELSE s.error END AS error, s.attempts, i.new_id, s.named, s.sent_at, s.acked_at, "
            f"s.version FROM (SELECT unnest(generate_series(first, last)) AS number, *, {named} AS named FROM oploop_steps) s "
            "LEFT JOIN oploop_exceptions e ON e.step = s.step AND e.number = s.number "
            f"LEFT JOIN oploop_ids i ON i.step = s.step AND i.number = s.number {last_try}"
        )


def id_of(keys: Sequence[str]) -> str:
    """The id that the answer to a change told of its new record, over the plan table `p` and `oploop_outcomes` `o`; NULL where
    it told none. `keys`: as of `spread`."""
    if not keys:
        return "o.new_id"
    arms = " ".join(f"WHEN {i} THEN CAST(p.k{i} AS VARCHAR)" for i in range(len(keys)))
    named = "o.named IS NOT NULL AND o.status = 'sent' AND p.__remote IS NULL"
    return f"(CASE WHEN {named} THEN CASE o.named {arms} END ELSE o.new_id END)"


@contextlib.contextmanager
def _shown(warehouse: Warehouse, steps: Iterable[JournalStep]) -> Iterator[None]:
    """The journal as the temporary tables `oploop_steps`, `oploop_exceptions` and `oploop_ids`.

    A journal of few steps is shown as it stands in Arrow; of one with many a page at a time goes into the warehouse.
    """
    pages = _pages(steps)
    first, second = next(pages), next(pages, None)
    if second is None:
        with _registered(warehouse, first, ""):
            yield
        return
    names = list(first)
    try:
        with _registered(warehouse, first, "_page"):
            for name in names:
                warehouse.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM {name}_page")
        while second is not None:
            with _registered(warehouse, second, "_page"):
                for name in names:
                    if second[name].num_rows:
                        warehouse.execute(f"INSERT INTO {name} SELECT * FROM {name}_page")
            second = next(pages, None)
        yield
    finally:
        with contextlib.suppress(SqlError):  # of a transaction that failed
            for name in names:
                warehouse.execute(f"DROP TABLE IF EXISTS {name}")


@contextlib.contextmanager
def _registered(warehouse: Warehouse, tables: dict[str, pa.Table], suffix: str) -> Iterator[None]:
    for name, table in tables.items():
        warehouse.register(name + suffix, table)
    try:
        yield
    finally:
        for name in tables:
            warehouse.unregister(name + suffix)


def _pages(steps: Iterable[JournalStep]) -> Iterator[dict[str, pa.Table]]:
    """Tables of AT_ONCE steps each, at least one."""
    left, begun = iter(steps), 0
    while (some := list(islice(left, AT_ONCE))) or not begun:
        numbered = list(enumerate(some, begun))
        exceptions = [(n, number, STATUS[Outcome(o)], e) for n, s in numbered for number, o, e in s.exceptions]
        ids = [(n, number, new_id) for n, s in numbered for number, new_id in s.ids]
        yield {
            "oploop_steps": _table([_step_row(n, s) for n, s in numbered], _STEPS),
            "oploop_exceptions": _table(exceptions, _EXCEPTIONS),
            "oploop_ids": _table(ids, _IDS),
        }
        begun += max(1, len(some))


def _table(rows: Sequence[tuple[object, ...]], columns: Mapping[str, str]) -> pa.Table:
    import pyarrow as pa  # the names of its types are those of `columns`

    times = pa.timestamp("us", tz="UTC")
    types = [times if kind == "timestamp" else pa.type_for_alias(kind) for kind in columns.values()]
    return pa.table([pa.array([r[i] for r in rows], kind) for i, kind in enumerate(types)], names=list(columns))


def _step_row(n: int, s: JournalStep) -> tuple[object, ...]:
    status = STATUS[s.outcome] if s.outcome is not None else "unknown"
    error = s.error if s.outcome is not None else "the run died before the answer"
    at = s.began_at, s.ended_at or s.began_at
    return (n, s.first, s.last, status, error, s.attempt, *at, s.version, s.ids_from)


def _tried_again(warehouse: Warehouse) -> bool:
    """Whether some change stands in more than one step."""
    before = "lag(last) OVER (ORDER BY first, last) AS before"
    return bool(
        warehouse.rows(f"SELECT 1 FROM (SELECT first, {before} FROM oploop_steps) AS s WHERE first <= before LIMIT 1")
    )
