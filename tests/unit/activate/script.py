"""A scripted app and a simulated clock: what a delivery meets, call by call."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from oploop.apps.base import App
from oploop.apps.transport import Answer, LostAnswer, NoAnswer, Refused, Request
from oploop.errors import FixConfig, QuotaSpent, RetryLater, SkipRecord
from oploop.records import Op, Outcome, Receipt, Step
from oploop.runtime import Runtime
from tests.unit.activate.engine import T0, micros


@dataclass
class Clock:
    """Time that passes only by sleeping."""

    seconds: float = 0.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        for _ in range(3):
            await asyncio.sleep(0)

    def runtime(self) -> Runtime:
        numbers = itertools.count(1)
        return Runtime(
            now=lambda: T0 + timedelta(seconds=self.seconds),
            monotonic=lambda: self.seconds,
            sleep=self.sleep,
            new_id=lambda: f"s{next(numbers):04}",
            random=random.Random(7),
        )


def refused(message: str = "no") -> Refused:
    return Refused(Answer(422, {}, b"", Request("POST", "http://127.0.0.1/x")), message)


#: What one call meets: a word for the whole call, or an outcome for each of its records by turns. With "+" the app
#: did it although it says nothing, or does not say so.
Act = str | tuple[str, ...]


class ScriptedApp(App):
    """Does what a script says, one act a call (the last one for ever), and remembers what really happened."""

    type = "scripted"
    title = "Scripted"

    def __init__(self, script: Sequence[Act], runtime: Runtime, *, bad: frozenset[int] = frozenset()) -> None:
        super().__init__("crm", None, runtime)
        self.script, self.bad = list(script), bad
        self.steps: list[Step] = []
        self.done: Counter[int] = Counter()  #: how often each change was really done
        self.acked: set[int] = set()
        self.unsure: set[int] = set()  #: its answer was lost at least once
        self.sent_again: list[int] = []  #: sent after it had been acknowledged
        self.now_in_flight: Counter[Op] = Counter()
        self.most_in_flight: Counter[Op] = Counter()
        self.look: Callable[[Step], None] = lambda step: None

    async def check(self) -> Any: ...

    def read(self, stream: str, cursor: Any, options: Any) -> Any: ...

    async def send(self, step: Step) -> list[Receipt]:
        act = self.script[min(len(self.steps), len(self.script) - 1)]
        self.steps.append(step)
        self.sent_again += [c.number for c in step.changes if c.number in self.acked]
        self.look(step)
        self.now_in_flight[step.op] += 1
        self.most_in_flight[step.op] = max(self.most_in_flight[step.op], self.now_in_flight[step.op])
        try:
            for _ in range(len(self.steps) % 3):
                await asyncio.sleep(0)
            if act == "silent":
                await asyncio.Event().wait()
            return self._answer(step, act)
        finally:
            self.now_in_flight[step.op] -= 1

    def _answer(self, step: Step, act: Act) -> list[Receipt]:
        numbers = [c.number for c in step.changes]
        if self.bad & set(numbers):
            raise refused("one of them is bad")
        match act:
            case "refused":
                raise refused()
            case "skip":
                raise SkipRecord("it has no address")
            case "later":
                raise RetryLater("busy")
            case "spent":
                raise QuotaSpent("nobody may call for 8 hours", after=28800)
            case "away":
                raise NoAnswer("cannot reach http://127.0.0.1:9/")
            case "fix":
                raise FixConfig("the token was revoked")
            case "lost" | "lost+":
                self.unsure |= set(numbers)
                if act == "lost+":
                    self.done.update(numbers)
                raise LostAnswer("cut")
        acts = itertools.cycle([act] if isinstance(act, str) else act)
        receipts = [r for c, a in zip(step.changes, acts, strict=False) if (r := self._receipt(step.op, c.number, a))]
        return receipts[::-1]

    def _receipt(self, op: Op, number: int, act: str) -> Receipt | None:
        if act.endswith("+") or act == "ok":
            self.done[number] += 1
        match act.rstrip("+"):
            case "ok":
                self.acked.add(number)
                new = f"id{number}" if op is Op.CREATE else None
                return Receipt(number, Outcome.OK, new, version=micros(number))
            case "rejected":
                return Receipt(number, Outcome.REJECTED, error="bad value")
            case "retry":
                return Receipt(number, Outcome.RETRY, error="locked")
            case "unknown":
                self.unsure.add(number)
                return Receipt(number, Outcome.UNKNOWN, error="no word")
            case "missing":
                self.unsure.add(number)
                return None
        raise AssertionError(act)
