"""Deliver: the steps of a plan, several in flight, an intent in the journal before each call and a receipt after it.

One bad record never stops the others: a batch that is refused whole is halved until the bad ones stand alone. What
may have been done is sent again only where the object declares that this does no harm. What the plan does not list is
never sent: the plan table is the only source of changes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from oploop.activate.diff import stream_changes
from oploop.activate.journal import Journal
from oploop.activate.plan import SyncPlan, batches, operation_of
from oploop.apps.base import App
from oploop.apps.transport import LostAnswer, Refused
from oploop.errors import OploopError, RetryLater
from oploop.records import Change, Op, Operation, Outcome, Receipt, Replay, Step
from oploop.runtime import Runtime
from oploop.state import JournalStep
from oploop.warehouse.base import Warehouse

#: How often a change that failed for the moment is tried in one run.
TRIES = 3
#: Changes read from the plan table at once.
READ_ROWS = 5_000


@dataclass(slots=True)
class Delivery:
    """What became of a sync's changes. `failed`: not done, and tried again by the next run."""

    sync: str
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    calls: int = 0
    seconds: float = 0.0
    error: OploopError | None = None  #: why the rest was not begun
    errors: list[str] = field(default_factory=list)  #: the first few rejections, in the app's words

    @property
    def delivered(self) -> int:
        return self.outcomes[Outcome.OK]

    @property
    def rejected(self) -> int:
        return self.outcomes[Outcome.REJECTED]

    @property
    def unknown(self) -> int:
        return self.outcomes[Outcome.UNKNOWN]

    @property
    def failed(self) -> int:
        return self.outcomes[Outcome.RETRY]


class Deliverer:
    """Sends one sync's kept plan table."""

    def __init__(
        self,
        plan: SyncPlan,
        app: App,
        *,
        run_id: str,
        table: str,
        warehouse: Warehouse,
        journal: Journal,
        runtime: Runtime,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._plan, self._app, self._run_id, self._table = plan, app, run_id, table
        self._warehouse, self._journal, self._runtime, self._progress = warehouse, journal, runtime, progress
        self._stop: OploopError | None = None
        self.result = Delivery(plan.bound.name)

    async def run(self) -> Delivery:
        """Send all steps; returns when nothing is in flight any more, also when it had to stop."""
        began, before = self._runtime.monotonic(), self._calls()
        slots: dict[Op, asyncio.Semaphore] = {}
        async with asyncio.TaskGroup() as group:
            for step in self.steps():
                operation = operation_of(self._plan.bound, step.op)
                slot = slots.setdefault(step.op, asyncio.Semaphore(operation.in_flight))
                await slot.acquire()
                if self._stop is not None:
                    slot.release()
                    break
                task = group.create_task(self._deliver(step, operation, 1))
                task.add_done_callback(lambda _, slot=slot: slot.release())  # type: ignore[misc]
        self.result.error = self._stop
        self.result.calls = self._calls() - before
        self.result.seconds = round(self._runtime.monotonic() - began, 3)
        return self.result

    def _calls(self) -> int:
        return self._app.transport.calls if self._app.transport is not None else 0

    def steps(self) -> Iterator[Step]:
        """The plan's steps in order: changes of one operation, as many as one call takes."""
        waiting: list[Change] = []
        for changes in stream_changes(self._plan.bound, self._warehouse, self._table, batch_rows=READ_ROWS):
            for change in changes:
                if waiting and waiting[-1].op is not change.op:
                    yield from self._cut(waiting, last=True)
                    waiting = []
                waiting.append(change)
            whole = len(waiting) - len(waiting) % operation_of(self._plan.bound, waiting[-1].op).batch
            yield from self._cut(waiting[:whole], last=False)
            waiting = waiting[whole:]
        yield from self._cut(waiting, last=True)

    def _cut(self, changes: Sequence[Change], *, last: bool) -> Iterator[Step]:
        if not changes:
            return
        start, op = 0, changes[0].op
        for size in batches(operation_of(self._plan.bound, op), len(changes)):
            part = changes[start : start + size]
            yield Step(self._runtime.new_id(), self._plan.bound.name, self._plan.bound.object.name, op, part)
            start += size

    async def _deliver(self, step: Step, operation: Operation, attempt: int) -> None:
        """One step to its end: sent, journalled, tried again or halved where that is right."""
        if self._stop is not None:
            return  # nothing was journalled, so the change simply stays to be sent
        entry = JournalStep(
            run_id=self._run_id,
            sync=step.sync,
            step_id=step.id,
            first=step.changes[0].number,
            last=step.changes[-1].number,
            attempt=attempt,
            op=step.op,
            began_at=self._runtime.now(),
        )
        await self._journal.record(entry)
        try:
            receipts = await self._app.send(step)
        except Refused as e:
            await self._refused(step, operation, entry, attempt, e)
        except LostAnswer as e:
            await self._lost(step, operation, entry, attempt, e)
        except RetryLater as e:
            await self._close(entry, Outcome.RETRY, str(e))
        except OploopError as e:
            self._stop = self._stop or e
            await self._close(entry, Outcome.RETRY, str(e))
        else:
            await self._answered(step, operation, entry, attempt, receipts)

    async def _answered(
        self, step: Step, operation: Operation, entry: JournalStep, attempt: int, receipts: Sequence[Receipt]
    ) -> None:
        by_number = {r.number: r for r in receipts}
        again: list[Change] = []
        versions = [r.version for r in receipts if r.version is not None]
        entry.version = min(versions) if versions else None
        for change in step.changes:
            receipt = by_number.get(change.number) or Receipt(
                change.number, Outcome.UNKNOWN, error="the app's answer does not name it"
            )
            outcome = receipt.outcome
            if outcome is Outcome.RETRY and attempt < TRIES:
                again.append(change)
            if outcome is Outcome.UNKNOWN and attempt < TRIES and _harmless(operation):
                outcome = Outcome.RETRY
                again.append(change)
            if outcome is not Outcome.OK:
                entry.exceptions.append((change.number, outcome.value, receipt.error))
            elif receipt.remote_id is not None and receipt.remote_id != change.remote_id:
                entry.ids.append((change.number, receipt.remote_id))
        await self._close(entry, Outcome.OK, None, retried=len(again))
        if again:
            await self._runtime.sleep(0.5 * attempt)
            for part in _runs(again):
                await self._deliver(Step(step.id, step.sync, step.object, step.op, part), operation, attempt + 1)

    async def _refused(self, step: Step, operation: Operation, entry: JournalStep, attempt: int, e: Refused) -> None:
        """The call as a whole was refused, nothing was done: halve it, until the bad record stands alone."""
        if len(step.changes) == 1:
            await self._close(entry, Outcome.REJECTED, str(e))
            return
        await self._close(entry, Outcome.RETRY, str(e), retried=len(step.changes))
        middle = len(step.changes) // 2
        for half in (step.changes[:middle], step.changes[middle:]):
            await self._deliver(Step(step.id, step.sync, step.object, step.op, half), operation, attempt)

    async def _lost(self, step: Step, operation: Operation, entry: JournalStep, attempt: int, e: LostAnswer) -> None:
        """The answer was lost: send again what may be sent twice; the rest is unknown and stays so."""
        if attempt < TRIES and _harmless(operation):
            await self._close(entry, Outcome.RETRY, str(e), retried=len(step.changes))
            await self._runtime.sleep(0.5 * attempt)
            await self._deliver(step, operation, attempt + 1)
            return
        await self._close(entry, Outcome.UNKNOWN, str(e))

    async def _close(self, entry: JournalStep, outcome: Outcome, error: str | None, *, retried: int = 0) -> None:
        """Write the receipt, and count what is final."""
        entry.ended_at, entry.outcome, entry.error = self._runtime.now(), outcome, error
        await self._journal.record(entry)
        counts = Counter(Outcome(o) for _, o, _ in entry.exceptions)
        counts[outcome] += entry.last - entry.first + 1 - len(entry.exceptions)
        counts[Outcome.RETRY] -= retried
        self.result.outcomes.update(counts)
        said = [e for _, o, e in entry.exceptions if e and o != Outcome.RETRY] + (
            [error] if error and not retried else []
        )
        self.result.errors += said[: max(0, 5 - len(self.result.errors))]
        self._progress(sum(counts.values()))


def _harmless(operation: Operation) -> bool:
    """Whether a call that may have been done can be sent again at once, under the same step id."""
    return operation.replay in (Replay.SAFE, Replay.KEY)


def _runs(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Changes in runs of consecutive numbers, since a journal row names its changes by first and last."""
    part: list[Change] = []
    for change in changes:
        if part and change.number != part[-1].number + 1:
            yield part
            part = []
        part.append(change)
    if part:
        yield part
