"""Calls of a dead run of which the app kept a note: what became of them is asked before they count as unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from oploop.activate.begun import FoldSpec
from oploop.activate.deliver import version_of
from oploop.apps.base import App
from oploop.apps.defects import defect
from oploop.errors import OploopError
from oploop.records import Change, Outcome, Receipt
from oploop.state import JournalStep
from oploop.warehouse.base import Warehouse, quote_table


def noted(step: JournalStep) -> bool:
    """Whether the app may be asked about a step that has no receipt."""
    return step.note is not None and step.ended_at is None


async def settle(
    app: App,
    warehouse: Warehouse,
    spec: FoldSpec,
    table: str,
    steps: Iterable[JournalStep],
    now: datetime,
    told: Callable[[OploopError], None],
) -> list[JournalStep]:
    """Fill in the receipts of noted steps that have none; the steps that were filled in.

    An app that cannot be asked now, or fails by a mistake of its own, which is `told`, leaves them as they are: unknown.
    """
    found = []
    for step in filter(noted, steps):
        changes = _changes(warehouse, spec, table, step)
        try:
            receipts = await app.settle(spec.object, step.op, step.note or "", changes)
        except OploopError:
            continue
        except Exception as e:  # each run begins with this: a mistake of one app would end all of them
            told(defect(f"asking {app.name} after a job", e))
            continue
        if not receipts:
            continue
        answered(step, changes, receipts, now)
        found.append(step)
    return found


def answered(
    step: JournalStep,
    changes: Sequence[Change],
    receipts: Sequence[Receipt],
    now: datetime,
    stands: Callable[[Outcome], Outcome] = lambda told: told,
) -> None:
    """Fill in a step's receipt; `stands`: what an outcome that is told leaves a change as."""
    by_number = {r.number: r for r in receipts}
    step.ended_at, step.outcome, step.version = now, Outcome.OK, version_of(receipts)
    for change in changes:
        receipt = by_number.get(change.number)
        outcome = Outcome.UNKNOWN if receipt is None else stands(receipt.outcome)
        if receipt is None or outcome is not Outcome.OK:
            step.exceptions.append((change.number, outcome.value, receipt.error if receipt is not None else None))
        elif receipt.remote_id is not None and receipt.remote_id != change.remote_id:
            step.ids.append((change.number, receipt.remote_id))


def _changes(warehouse: Warehouse, spec: FoldSpec, table: str, step: JournalStep) -> list[Change]:
    """The changes of a step, by what tells their records apart."""
    columns = ", ".join(["__number", "__remote", *(f"k{i}" for i in range(len(spec.keys)))])
    rows = warehouse.rows(
        f"SELECT {columns} FROM {quote_table(table)} WHERE __number BETWEEN {step.first} AND {step.last} ORDER BY 1"
    )
    return [Change(r[0], step.op, dict(zip(spec.keys, r[2:], strict=True)), {}, r[1]) for r in rows]
