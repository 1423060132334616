"""Deliver: the steps of a plan, several in flight, an intent in the journal before each call and a receipt after it.

One bad record never stops the others: a batch that is refused whole is halved until the bad ones stand alone. What
may have been done is sent again only where the object declares that this does no harm. What the plan does not list is
never sent: the plan table is the only source of changes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from types import MappingProxyType

from oploop.activate.chunks import read_chunks
from oploop.activate.delivered import Delivery, few
from oploop.activate.journal import Journal
from oploop.activate.plan import SyncPlan, batches, call_kind, conditional, operation_of
from oploop.apps.base import App
from oploop.apps.columns import Taken, span
from oploop.apps.defects import defect
from oploop.apps.meter import METER, Meter
from oploop.apps.transport import MADE_BEFORE, REPEAT_UNTIL, LostAnswer, NoAnswer, Refused
from oploop.errors import OploopError, QuotaSpent, RetryLater, SkipRecord
from oploop.records import Change, Op, Operation, Outcome, Receipt, Replay, Step
from oploop.runtime import GRACE, Interrupted, Runtime
from oploop.state import JournalStep
from oploop.warehouse.base import Warehouse

#: How often a change that failed for the moment is tried in one run.
TRIES = 3
#: Seconds that a call may be on its way before it reaches the app.
ON_ITS_WAY = 60.0
#: Changes read from the plan table at once.
READ_ROWS = 5_000
#: No change is tried again.
NONE: Mapping[int, Outcome] = MappingProxyType({})


class Lane:
    """How many calls of an operation are made at once, and how many steps are begun for them.

    Of steps that a later run may send again as many as are under way wait with their intents on disk already, so that no call
    waits for the disk. Of others no intent is written before its call can be made: after a crash each is unknown.
    """

    def __init__(self, op: Op, operation: Operation) -> None:
        self.calls = asyncio.Semaphore(operation.in_flight)
        self.begun = asyncio.Semaphore(operation.in_flight * (2 if operation.by_a_later_run(op) else 1))


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
        self._spent: QuotaSpent | None = None  #: what is begun is within the day's quota; nothing more is
        self._operations: dict[Op, Operation] = {}
        self._conditional: set[Op] = set()
        self._under_way: dict[str, Lane] = {}  #: of each step whose call may still be made, or made again
        self._calling: set[str] = set()  #: those of them whose calls are being made
        self._tried_again: set[str] = set()  #: steps of which a part is sent again, in a call of its own
        self.result = Delivery(plan.bound.name)

    async def run(self) -> Delivery:
        """Send all steps; returns when nothing is in flight any more, also when it had to stop."""
        began, before = self._runtime.monotonic(), self._calls()
        lanes: dict[Op, Lane] = {}
        under_way: set[asyncio.Task[None]] = set()
        hurry = asyncio.create_task(self._hurry(under_way))
        async with asyncio.TaskGroup() as group:
            for step in self.steps():
                operation = self._operations[step.op]
                lane = lanes.setdefault(step.op, Lane(step.op, operation))
                await lane.begun.acquire()
                if self._ends() or self._day_is_spent(operation, len(self._under_way)):
                    break
                self._under_way[step.id] = lane
                task = group.create_task(self._deliver(step, operation, 1))
                under_way.add(task)
                task.add_done_callback(partial(self._over, under_way, step.id))
        hurry.cancel()
        self.result.error = self._stop or self._spent
        self.result.calls = self._calls() - before
        self.result.seconds = round(self._runtime.monotonic() - began, 3)
        return self.result

    def _over(self, under_way: set[asyncio.Task[None]], step_id: str, task: asyncio.Task[None]) -> None:
        under_way.discard(task)
        self._leave(step_id)

    def _leave(self, step_id: str) -> None:
        """Let another call go where a step's was; safe to call twice."""
        lane = self._under_way.pop(step_id, None)
        if lane is not None:
            lane.begun.release()
            if step_id in self._calling:
                self._calling.discard(step_id)
                lane.calls.release()

    async def _may_call(self, step_id: str) -> bool:
        """Wait until a step's call may be made; False if the delivery ends before it was."""
        lane = self._under_way.get(step_id)
        if lane is None or step_id in self._calling:  # it is a later try
            return True
        await lane.calls.acquire()
        self._calling.add(step_id)
        return not self._ends()

    def _ends(self) -> bool:
        """Whether nothing new may begin: something stopped the delivery, or the run is to end."""
        if self._runtime.stop.asked and self._stop is None:
            self._stop = Interrupted()
        return self._stop is not None

    def _day_is_spent(self, operation: Operation, under_way: int) -> bool:
        """Whether one more step, after those under way, would use what the day's quota keeps for others."""
        budget = self._app.transport.budget if self._app.transport is not None else None
        try:
            if budget is not None:
                budget.refuse_beyond_day((under_way + 1) * operation.calls)
        except QuotaSpent as e:
            self._spent = e
        return self._spent is not None

    async def _hurry(self, under_way: set[asyncio.Task[None]]) -> None:
        """Once the run is to end, give what is under way its time; what it does not use stays without a receipt."""
        await self._runtime.stop.wait()
        await self._runtime.sleep(GRACE)
        for task in tuple(under_way):
            task.cancel()

    def _calls(self) -> int:
        return self._app.transport.calls if self._app.transport is not None else 0

    def steps(self) -> Iterator[Step]:
        """The plan's steps in order: changes of one operation, as many as one call takes."""
        for op, changes in read_chunks(self._plan.bound, self._warehouse, self._table, self._chunk_rows):
            start = 0
            for size in batches(self._operations[op], len(changes)):
                part = changes[start : start + size]
                bound = self._plan.bound
                yield Step(self._runtime.new_id(), bound.name, bound.object.name, op, part, op in self._conditional)
                start += size

    def _chunk_rows(self, op: Op, records: int) -> int:
        """Changes of which full batches can be cut, READ_ROWS or a few more. The operation's way is chosen here, by how many
        there are in all."""
        bound, holding = self._plan.bound, self._plan.diff.holding
        self._operations[op] = operation_of(bound, op, records, holding=holding)
        if conditional(bound, op, records, holding=holding):
            self._conditional.add(op)
        batch = self._operations[op].batch
        return batch * -(-READ_ROWS // batch)

    async def _deliver(
        self, step: Step, operation: Operation, attempt: int, stands: Outcome | None = None, until: float = inf
    ) -> None:
        """One step to its end: sent, journalled, tried again or halved where that is right.

        `stands`: what the journal says of these changes already, if this is not their first try. UNKNOWN: an earlier
        try may have done them, which no later "not now" makes undone; then they are sent again only `until` the app
        may have forgotten that try.
        """
        now = self._runtime.monotonic()
        if stands is not Outcome.UNKNOWN:
            until = now + _remembered(operation)
        ends = self._ends() or (self._spent is not None and stands is not None)
        if ends or now > until:  # what was never journalled simply stays to be sent
            if stands is not None:
                self._count(Counter({stands: len(step.changes)}))
            return
        entry = await self._intend(step, attempt, stands)
        if entry is None:
            return
        undone = Outcome.UNKNOWN if stands is Outcome.UNKNOWN else Outcome.RETRY
        try:
            if not await self._may_call(step.id):
                await self._withdraw(entry)
                return
            receipts = await self._timed(replace(step, note=partial(self._note, entry)), until, undone, attempt)
        except asyncio.CancelledError:  # its time is over: the intent stays without a receipt
            self._stop = self._stop or Interrupted()
            self._count(Counter({Outcome.UNKNOWN: len(step.changes)}))
            raise
        except Exception as e:
            await self._failed(step, operation, entry, e, undone, until)
        else:
            await self._answered(step, operation, entry, receipts, undone, until)

    async def _intend(self, step: Step, attempt: int, stands: Outcome | None) -> JournalStep | None:
        """Write a call's intent; None where the disk refuses it: what is not in the journal is not sent."""
        first, last = span(step.changes)
        entry = JournalStep(
            run_id=self._run_id,
            sync=step.sync,
            step_id=step.id,
            first=first,
            last=last,
            attempt=attempt,
            op=step.op,
            began_at=self._runtime.now(),
        )
        try:
            await self._journal.record(entry)
        except OploopError as e:
            self._stop = self._stop or e
            self._count(Counter({stands: len(step.changes)} if stands is not None else ()))
            return None
        return entry

    async def _failed(
        self, step: Step, operation: Operation, entry: JournalStep, e: Exception, undone: Outcome, until: float
    ) -> None:
        """A call without receipts: tried again or halved where that is right, else closed with what it leaves its changes as."""
        stays, said = _noted(entry, undone), str(e)
        match e:
            case Refused() | SkipRecord():
                await self._refused(step, operation, entry, e, undone, until)
            case LostAnswer():
                await self._lost(step, operation, entry, e, until)
            case Interrupted():
                self._ends()
                await self._close(entry, stays, None)
            case QuotaSpent():  # what is left goes with a later run, in the order of the plan
                self._stop = self._stop or e
                await self._close(entry, Outcome.UNKNOWN if stays is Outcome.UNKNOWN else Outcome.DEFERRED, said)
            case RetryLater() if not isinstance(e, NoAnswer):
                await self._close(entry, stays, said)
            case OploopError():  # also NoAnswer, tried often enough already: the next step would not get through either
                self._stop = self._stop or e
                await self._close(entry, stays, said)
            case _:  # a defect: what it did by then nobody knows, and of the next step it would do the same
                found = defect(f"sending to {self._app.name}", e)
                self._stop = self._stop or found
                await self._close(entry, Outcome.UNKNOWN, str(found))

    async def _send(self, step: Step, until: float, undone: Outcome) -> Sequence[Receipt]:
        tokens = REPEAT_UNTIL.set(until), MADE_BEFORE.set(undone is Outcome.UNKNOWN)
        try:
            return await self._app.send(step)
        finally:
            REPEAT_UNTIL.reset(tokens[0])
            MADE_BEFORE.reset(tokens[1])

    async def _timed(self, step: Step, until: float, undone: Outcome, attempt: int) -> Sequence[Receipt]:
        """Send a step; note how long it took, and how many calls, if it is answered at its first try."""
        meter, began = Meter(), self._runtime.monotonic()
        token = METER.set(meter)
        try:
            receipts = await self._send(step, until, undone)
        finally:
            METER.reset(token)
        if attempt == 1:
            kind = call_kind(self._plan.bound, step.op, self._operations[step.op], len(step.changes))
            seconds = self._runtime.monotonic() - began - meter.waited
            self.result.took(step.op, kind, max(0.0, seconds), meter.calls)
        return receipts

    async def _note(self, entry: JournalStep, text: str) -> None:
        """Keep an app's word with the intent, before the app goes on."""
        entry.note = text
        await self._journal.record(entry)

    async def _answered(
        self,
        step: Step,
        operation: Operation,
        entry: JournalStep,
        receipts: Sequence[Receipt],
        undone: Outcome,
        until: float,
    ) -> None:
        if isinstance(receipts, Taken):
            entry.version, entry.ids_from = receipts.version, receipts.ids_from
            await self._close(entry, Outcome.OK, None)
            return
        by_number = {r.number: r for r in receipts}
        again: dict[int, Outcome] = {}
        entry.version = version_of(receipts)
        for change in step.changes:
            receipt = by_number.get(change.number) or Receipt(
                change.number, Outcome.UNKNOWN, error="the app's answer does not name it"
            )
            outcome = left_as(receipt.outcome, undone)
            if outcome is Outcome.CHANGED and change.remote_id is not None:
                self.result.changed.append(change.remote_id)
            lost = receipt.outcome is Outcome.UNKNOWN and _harmless(operation)
            may_repeat = receipt.outcome is Outcome.RETRY or lost
            if may_repeat and entry.attempt < TRIES:
                again[change.number] = outcome
            if outcome is not Outcome.OK:
                entry.exceptions.append((change.number, outcome.value, receipt.error))
            elif receipt.remote_id is not None and receipt.remote_id != change.remote_id:
                entry.ids.append((change.number, receipt.remote_id))
        await self._close(entry, Outcome.OK, None, again)
        if again:
            await self._runtime.sleep(0.5 * entry.attempt)
            for part in _runs([c for c in step.changes if c.number in again], again):
                follow = replace(step, changes=part)
                await self._deliver(follow, operation, entry.attempt + 1, again[part[0].number], until)

    async def _refused(
        self, step: Step, operation: Operation, entry: JournalStep, e: OploopError, undone: Outcome, until: float
    ) -> None:
        """The call as a whole was refused, nothing was done: halve it, until the bad record stands alone."""
        if len(step.changes) == 1:  # of a second try: what is refused now may have been done by the first
            outcome = Outcome.UNKNOWN if undone is Outcome.UNKNOWN else Outcome.REJECTED
            await self._close(entry, outcome, str(e))
            return
        await self._close(entry, undone, str(e), _all(step, undone))
        middle = len(step.changes) // 2
        for half in (step.changes[:middle], step.changes[middle:]):
            follow = replace(step, changes=half)
            await self._deliver(follow, operation, entry.attempt, undone, until)

    async def _lost(self, step: Step, operation: Operation, entry: JournalStep, e: LostAnswer, until: float) -> None:
        """The answer was lost: send again what may be sent twice; the rest is unknown and stays so, as is what a job may still
        be at: the next run asks after it."""
        if entry.attempt < TRIES and _harmless(operation) and entry.note is None:
            await self._close(entry, Outcome.UNKNOWN, str(e), _all(step, Outcome.UNKNOWN))
            await self._runtime.sleep(0.5 * entry.attempt)
            await self._deliver(step, operation, entry.attempt + 1, Outcome.UNKNOWN, until)
            return
        await self._close(entry, Outcome.UNKNOWN, str(e))

    async def _close(
        self, entry: JournalStep, outcome: Outcome, error: str | None, again: Mapping[int, Outcome] = NONE
    ) -> None:
        """Write the receipt, and count what is final: all but the changes that are tried `again`."""
        entry.ended_at, entry.outcome, entry.error = self._runtime.now(), outcome, error
        if again:
            self._tried_again.add(entry.step_id)
        elif entry.step_id not in self._tried_again:
            self._leave(entry.step_id)  # so that the next step's intent goes to disk with this receipt, not after it
        try:
            await self._journal.record(entry)
        except OploopError as e:  # the intent stands without a receipt, so that nobody will know
            self._stop = self._stop or e
            self._count(Counter({Outcome.UNKNOWN: entry.last - entry.first + 1 - len(again)}))
            return
        size, outcomes = entry.last - entry.first + 1, self.result.outcomes
        others = {n: (Outcome(o), e) for n, o, e in entry.exceptions if n not in again}
        for other, _ in others.values():
            outcomes[other] += 1
        outcomes[outcome] += size - len(others) - len(again)
        said = [e for other, e in others.values() if e and other is not Outcome.CHANGED]
        if error and not again:
            said.append(error)
        if said:
            self.result.errors = few(self.result.errors, said)
        self._progress(size - len(again))

    async def _withdraw(self, entry: JournalStep) -> None:
        """Take an intent back whose call was not made: its changes stay to be sent, as those that were never begun."""
        self._leave(entry.step_id)
        entry.ended_at, entry.withdrawn = self._runtime.now(), True
        try:
            await self._journal.record(entry)
        except OploopError:  # the intent stands, so that nobody will know
            self._count(Counter({Outcome.UNKNOWN: entry.last - entry.first + 1}))

    def _count(self, final: Counter[Outcome]) -> None:
        self.result.outcomes.update(final)
        self._progress(final.total())


def version_of(receipts: Sequence[Receipt]) -> int | None:
    """The earliest version that the receipts of a call tell."""
    return min((r.version for r in receipts if r.version is not None), default=None)


def left_as(told: Outcome, undone: Outcome) -> Outcome:
    """What an answer leaves a change as; `undone`: what it was before. After a try that may have done it, a record that was
    changed may have been changed by that."""
    if told is Outcome.RETRY or (told is Outcome.CHANGED and undone is Outcome.UNKNOWN):
        return undone
    return told


def _noted(entry: JournalStep, undone: Outcome) -> Outcome:
    """What a call that failed leaves its changes as: a job of which there is a note may go on without us."""
    return undone if entry.note is None else Outcome.UNKNOWN


def _all(step: Step, outcome: Outcome) -> dict[int, Outcome]:
    return {c.number: outcome for c in step.changes}


def _remembered(operation: Operation) -> float:
    """For how many seconds from its first try on a change may be sent again: while the app is sure to know its key."""
    if operation.replay is not Replay.KEY or operation.ttl is None:
        return inf
    return operation.ttl - min(ON_ITS_WAY, operation.ttl / 2)


def _harmless(operation: Operation) -> bool:
    """Whether a call that may have been done can be sent again at once, under the same step id."""
    return operation.replay in (Replay.SAFE, Replay.KEY)


def _runs(changes: Sequence[Change], stands: Mapping[int, Outcome]) -> Iterator[list[Change]]:
    """Changes of one standing in runs of consecutive numbers, since a journal row names its changes by first and last."""
    part: list[Change] = []
    for change in changes:
        last = part[-1].number if part else None
        if last is not None and (change.number != last + 1 or stands[change.number] is not stands[last]):
            yield part
            part = []
        part.append(change)
    if part:
        yield part
