"""Calls of a dead run that an app knows by their keys: they are made once more, under the same keys, before they count as unknown.

Only where nobody else could tell what became of them: the records cannot be read, so that the next run would have to ask a
person. What is sent is what the dead run's plan had, in the same steps; an app that knows a key does nothing a second time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from oploop.activate import unknowns, waiting
from oploop.activate.begun import Begun
from oploop.activate.bound import BoundSync
from oploop.activate.chunks import read_span
from oploop.activate.deliver import left_as
from oploop.activate.settling import answered
from oploop.apps.base import App
from oploop.apps.transport import MADE_BEFORE, REPEAT_UNTIL
from oploop.errors import OploopError
from oploop.records import Operation, Outcome, Replay, Step
from oploop.runtime import Runtime
from oploop.state import JournalStep
from oploop.warehouse.base import Warehouse

#: The share of the time for which an app knows a key after which it counts as forgotten: the clock may have been set back since.
SURE = 0.5


def may(bound: BoundSync, begun: Begun, warehouse: Warehouse) -> bool:
    """Whether a sync's calls may be made once more: its plan table is still that of the sync, and no read could tell of them."""
    spec = begun.spec
    same = (
        spec.fields == [(f.field.name, warehouse.sql_type(f.field.type)) for f in bound.fields]
        and spec.keys == [k.field.name for k in bound.keys]
        and spec.key_fields == bound.key_names
        and (spec.app, spec.object) == (bound.sync.app, bound.sync.object)
    )
    paused = bound.name in waiting.paused(warehouse) or not bound.sync.enabled
    return same and not paused and not bound.sync.at_most_once and not spec.undoes and not unknowns.findable(bound)


async def finish(
    app: App, warehouse: Warehouse, bound: BoundSync, begun: Begun, steps: Iterable[JournalStep], runtime: Runtime
) -> list[JournalStep]:
    """Make the calls that have no receipt once more; the steps whose answers came. The others stay as they are: unknown.

    `steps` are gone through more than once.
    """
    found, unheard = [], [s for s in steps if s.ended_at is None]  # no more than were under way
    first_tries = _first_tries(steps, {s.step_id for s in unheard})
    for step in unheard:
        operation = bound.object.operations.get(step.op)
        left = _left(step, operation, first_tries[step.step_id], runtime) if operation is not None else 0.0
        if left <= 0.0:
            continue
        changes = read_span(bound, warehouse, begun.plan_table, step.first, step.last)
        tokens = REPEAT_UNTIL.set(runtime.monotonic() + left), MADE_BEFORE.set(True)
        try:
            receipts = await app.send(Step(step.step_id, step.sync, bound.object.name, step.op, changes))
        except OploopError:
            continue
        finally:
            REPEAT_UNTIL.reset(tokens[0])
            MADE_BEFORE.reset(tokens[1])
        answered(step, changes, receipts, runtime.now(), lambda told: left_as(told, Outcome.UNKNOWN))
        found.append(step)
    return found


def _first_tries(steps: Iterable[JournalStep], ids: Collection[str]) -> dict[str, datetime]:
    """When each of these steps was begun for the first time: the app knows its key from then on."""
    found: dict[str, datetime] = {}
    for step in steps:
        if step.step_id in ids:
            found[step.step_id] = min(step.began_at, found.get(step.step_id, step.began_at))
    return found


def _left(step: JournalStep, operation: Operation, first_try: datetime, runtime: Runtime) -> float:
    """For how many seconds a call without a receipt may still be made once more; 0 where it may not, or need not."""
    by_key = operation.replay is Replay.KEY and operation.finishes and not operation.by_a_later_run(step.op)
    if step.note is not None or not by_key or operation.ttl is None:
        return 0.0
    age = runtime.now() - first_try
    return operation.ttl * SURE - age.total_seconds() if age >= timedelta(0) else 0.0
