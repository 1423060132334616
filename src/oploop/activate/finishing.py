"""Calls of a dead run that an app knows by their keys: they are made once more, under the same keys, before they count as unknown.

Only where nobody else could tell what became of them: the records cannot be read, so that the next run would have to ask a
person. What is sent is what the dead run's plan had, in the same steps; an app that knows a key does nothing a second time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta

import orjson

from oploop.activate import waiting
from oploop.activate.begun import Begun
from oploop.activate.bound import BoundSync
from oploop.activate.chunks import read_span
from oploop.activate.deliver import left_as
from oploop.activate.settling import answered
from oploop.activate.unknowns import known_by_keys
from oploop.apps.base import App
from oploop.apps.defects import defect
from oploop.apps.transport import MADE_BEFORE, REPEAT_UNTIL
from oploop.errors import OploopError
from oploop.project import Sync
from oploop.records import Outcome, Step
from oploop.runtime import Runtime
from oploop.state import JournalStep
from oploop.warehouse.base import Warehouse

#: The share of the time for which an app knows a key after which it counts as forgotten: the clock may have been set back since.
SURE = 0.5
#: How much work it is to guess what an account's name was made of.
ROUNDS = 20_000


def account_of(app: App, run_id: str) -> str:
    """A name for what an app's block says, its secrets too, by which a later run knows whether it speaks to the same account; a
    key means nothing in another. Another run's name for it is another, and a secret takes long to guess from it."""
    from pydantic import BaseModel, SecretBytes, SecretStr

    def plain(value: object) -> object:
        if isinstance(value, SecretStr | SecretBytes):
            return str(value.get_secret_value())
        return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)

    said = app.config.model_dump() if isinstance(app.config, BaseModel) else None
    text = orjson.dumps(said, default=plain, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.pbkdf2_hmac("sha256", text, run_id.encode(), ROUNDS).hex()


def could(sync: Sync | None, begun: Begun, warehouse: Warehouse, steps: Iterable[JournalStep], now: datetime) -> bool:
    """Whether calls of a delivery may still be made once more, as far as can be told without the app; `sync`: of its name."""
    spec = begun.spec
    if not spec.again or sync is None or not sync.enabled or (sync.app, sync.object) != (spec.app, spec.object):
        return False
    return spec.sync not in waiting.paused(warehouse) and any(
        _left(step, spec.again, first, now) > 0.0 for step, first in _unheard(steps)
    )


def may(bound: BoundSync, begun: Begun, warehouse: Warehouse, account: str) -> bool:
    """Whether a sync's calls may be made once more: its plan table is still that of the sync, no read could tell of them, and they go to
    the same account."""
    spec = begun.spec
    same = (
        spec.fields == [(f.field.name, warehouse.sql_type(f.field.type)) for f in bound.fields]
        and spec.keys == [k.field.name for k in bound.keys]
        and spec.key_fields == bound.key_names
        and (spec.app, spec.object, spec.account) == (bound.sync.app, bound.sync.object, account)
    )
    paused = bound.name in waiting.paused(warehouse) or not bound.sync.enabled
    return same and not paused and bool(spec.again)


async def finish(
    app: App,
    warehouse: Warehouse,
    bound: BoundSync,
    begun: Begun,
    steps: Iterable[JournalStep],
    runtime: Runtime,
    keep: Callable[[JournalStep], None],
) -> None:
    """Make the calls that have no receipt once more; `keep` gets each step whose answer came. The others stay as they are: unknown.

    Once the run is to end, no further call is made.
    """
    known = {op: min(ttl, begun.spec.again.get(op, 0.0)) for op, ttl in known_by_keys(bound).items()}
    for step, first in _unheard(steps):
        left = _left(step, known, first, runtime.now())
        if left <= 0.0:
            continue
        if runtime.stop.asked:
            return
        changes = read_span(bound, warehouse, begun.plan_table, step.first, step.last)
        tokens = REPEAT_UNTIL.set(runtime.monotonic() + left), MADE_BEFORE.set(True)
        try:
            receipts = await app.send(Step(step.step_id, step.sync, bound.object.name, step.op, changes))
        except OploopError:
            continue
        except Exception as e:  # as in a delivery: no further call is made, and the next run does not fail on it again
            step.ended_at, step.outcome, step.error = (
                runtime.now(),
                Outcome.UNKNOWN,
                str(defect(f"sending to {app.name}", e)),
            )
            keep(step)
            return
        finally:
            REPEAT_UNTIL.reset(tokens[0])
            MADE_BEFORE.reset(tokens[1])
        answered(step, changes, receipts, runtime.now(), lambda told: left_as(told, Outcome.UNKNOWN))
        keep(step)


def _unheard(steps: Iterable[JournalStep]) -> list[tuple[JournalStep, datetime]]:
    """The steps without a receipt, no more than were under way, and when each was begun for the first time: the app knows its key from
    then on. `steps` are gone through more than once."""
    unheard = [s for s in steps if s.ended_at is None]
    tries = _first_tries(steps, {s.step_id for s in unheard}) if unheard else {}
    return [(s, tries[s.step_id]) for s in unheard]


def _first_tries(steps: Iterable[JournalStep], ids: Collection[str]) -> dict[str, datetime]:
    found: dict[str, datetime] = {}
    for step in steps:
        if step.step_id in ids:
            found[step.step_id] = min(step.began_at, found.get(step.step_id, step.began_at))
    return found


def _left(step: JournalStep, known: dict[str, float], first_try: datetime, now: datetime) -> float:
    """For how many seconds a call without a receipt may still be made once more; 0 where it may not, or need not. `known`: for how
    long the app knows a key, by operation; of what it was told to do as a job it is asked instead."""
    if step.note is not None or step.op.value not in known:
        return 0.0
    age = now - first_try
    return known[step.op.value] * SURE - age.total_seconds() if age >= timedelta(0) else 0.0
