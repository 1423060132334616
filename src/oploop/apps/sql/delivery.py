"""Delivering steps to tables: rows on a stage, one set-based statement, and the step's id, in one commit.

A step whose id is known was done, whatever became of its answer: it is answered from there. The id is written first, so that
a second try waits for the end of a first one that may still be under way. How a database stages rows, and by which statements
it takes them, its `Target` says.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any, Generic, TypeVar

import orjson

from oploop.apps.columns import Taken, span
from oploop.apps.sql.engine import Faults, RowsRefused
from oploop.apps.sql.tables import T
from oploop.apps.transport import LostAnswer
from oploop.errors import RetryLater
from oploop.records import Change, Op, Outcome, Receipt, Step
from oploop.runtime import Runtime

G = TypeVar("G")
TRIES = 4
KEEP_DAYS = 30  #: how long the ids of steps are kept
CHANGED = "changed in the table since it was read"  #: why a conditional update was not made

Answers = dict[int, tuple[str | None, str | None]]  #: number: (its row's id, why it was refused)


def kept_text(answers: Answers) -> str:
    """Answers as they are kept with a step: {number: why it was refused, or [the row's id]}, as JSON."""
    return orjson.dumps({str(n): [made] if why is None else why for n, (made, why) in answers.items()}).decode()


def kept_answers(kept: Mapping[str, str | list[str | None]]) -> Answers:
    """What `kept_text` says."""
    return {int(n): (a[0], None) if isinstance(a, list) else (None, a) for n, a in kept.items()}


class Broken(Exception):
    """The connection broke before the commit was sent: the server does nothing of it."""


class Work(ABC):
    """One group of changes within a transaction. The answers are for those that are not simply done, or whose ids the database
    made."""

    def straight(self) -> bool:
        """Take all rows without a stage, where that can be, and there is nothing to answer; False, with nothing done, where not."""
        return False

    @abstractmethod
    def stage(self, careful: bool) -> dict[int, str]:
        """Put the rows on the stage; those that cannot even be staged are left out, with the reason."""

    def leave_changed(self) -> Answers:
        """Take the rows off the stage that are no longer as they were read, where the statement does not see to it."""
        return {}

    @abstractmethod
    def at_once(self) -> Answers:
        """All staged rows."""

    @abstractmethod
    def carefully(self) -> Answers:
        """The good ones of the staged rows; the bad ones are found and refused."""

    @abstractmethod
    def looked_up(self) -> Answers:
        """The ids of rows that an earlier try made, where they are no staged values."""

    @property
    def unfindable(self) -> Collection[int]:
        """Numbers of new rows that `looked_up` could not find, so that their answers have to be kept."""
        return ()

    @abstractmethod
    def end(self) -> None:
        """Take the stage down."""


class Target(ABC, Generic[T, G]):
    """A database to which steps are delivered. Everything blocks; an error is the driver's, until `faults` makes it one of ours."""

    faults: Faults
    place: str  #: the database, as messages name it

    @abstractmethod
    def ready(self) -> bool:
        """Make the table of steps, unless it is there, and forget old ones; whether ids of steps can be kept at all."""

    def connect(self) -> None:
        """Connect for the first `session`, where connections are kept."""

    @abstractmethod
    def groups(self, table: T, step: Step) -> Sequence[G]:
        """A step's changes by the statements that deliver them."""

    @abstractmethod
    def session(self) -> AbstractContextManager[Any]:
        """A DBAPI connection within a transaction."""

    @abstractmethod
    def work(self, connection: Any, group: G) -> Work:
        """A group within the transaction."""

    @abstractmethod
    def clock(self, connection: Any) -> int:
        """The database's clock, in microseconds since 1970."""

    @abstractmethod
    def begin_step(self, connection: Any, name: tuple[str, int, int]) -> tuple[int, Answers | None]:
        """(the database's clock, None), or what was kept of a step of that name that was done before."""

    @abstractmethod
    def note_answers(self, connection: Any, name: tuple[str, int, int], answers: Answers) -> None:
        """Keep some of a step's answers with its id."""

    @abstractmethod
    def given_id(self, table: T, groups: Sequence[G]) -> str | None:
        """The field whose value is the id of a new row; None where the database makes it."""

    @abstractmethod
    def as_planned(self, step: Step, groups: Sequence[G], given: str | None) -> bool:
        """Whether the ids of new rows are known from the plan, so that no receipt has to say them."""

    def settled(self, connection: Any, e: BaseException) -> bool:
        """Whether an error at the commit is the server's own word that it did nothing."""
        return False

    def cut(self, e: BaseException) -> BaseException:
        """What a broken connection means before the commit: mostly that another one may do."""
        return Broken(self.faults.said(e))

    def said_of(self, groups: Sequence[G], e: BaseException) -> str:
        """What the database said of a row, by the names of the table's own columns."""
        return self.faults.said(e)

    def id_text(self, value: Any) -> str | None:
        """A value of a key as an id."""
        return None if value is None else str(value)


class TableWriter(Generic[T, G]):
    """Delivers steps to the tables of one database."""

    def __init__(self, target: Target[T, G], runtime: Runtime) -> None:
        self._target, self._runtime = target, runtime
        self._keeps: bool | None = None
        self._lock = Lock()

    def prepare(self) -> None:
        """What the first step would wait for."""
        self._begin()
        self._target.connect()

    def _begin(self) -> None:
        with self._lock:
            if self._keeps is None:
                self._keeps = self._target.ready()

    async def send(self, table: T, step: Step) -> Sequence[Receipt]:
        """See App.send. A step of which some rows are bad is delivered again within the same call, bad rows left out. Raises
        RowsRefused when the database cannot tell which they are: then the caller halves the step."""
        target, faults = self._target, self._target.faults
        groups = await asyncio.to_thread(target.groups, table, step)
        bad: BaseException | None = None
        for attempt in range(1, TRIES + 1):
            try:
                return await asyncio.to_thread(self._try, table, step, groups, bad is not None)
            except (LostAnswer, RetryLater):
                raise
            except Broken as e:
                if attempt == TRIES:
                    raise RetryLater(f"the connection to {target.place} keeps breaking: {e}") from None
            except Exception as e:
                if not faults.is_database_error(e):
                    raise
                explained = faults.explain(e)
                if bad is not None and not isinstance(explained, RetryLater):
                    raise RowsRefused(table.name, target.said_of(groups, bad)) from None
                if faults.about_rows(e):
                    if len(step.changes) == 1:
                        raise RowsRefused(table.name, target.said_of(groups, e)) from None
                    bad = e
                    continue
                if not faults.is_transient(e) or attempt == TRIES:
                    raise explained from None
            await self._runtime.sleep(self._runtime.random.uniform(0.05, 0.2 * 2**attempt))
        raise RetryLater(f"{target.place} cannot do it now: tried {TRIES} times")

    def _try(self, table: T, step: Step, groups: Sequence[G], careful: bool) -> Sequence[Receipt]:
        """One transaction for the whole step. Raises LostAnswer, Broken, or the driver's error."""
        target, committing = self._target, False
        self._begin()
        try:
            with target.session() as connection:
                try:
                    receipts = self._transact(connection, table, step, groups, careful)
                    committing = True
                    connection.commit()
                    return receipts
                except Exception as e:
                    committing = committing and not target.settled(connection, e)
                    with contextlib.suppress(Exception):
                        connection.rollback()
                    raise
        except Exception as e:
            if not target.faults.is_broken(e):
                raise
            if committing:
                said = f"the connection to {target.place} broke while it committed: {target.faults.said(e)}"
                raise LostAnswer(said) from None
            raise target.cut(e) from None

    def _transact(self, connection: Any, table: T, step: Step, groups: Sequence[G], careful: bool) -> Sequence[Receipt]:
        target, name, answers, keep = self._target, (step.id, *span(step.changes)), Answers(), set[int]()
        version, done = target.begin_step(connection, name) if self._keeps else (target.clock(connection), None)
        for group in groups:
            work = target.work(connection, group)
            if done is None and not careful and work.straight():
                continue
            bad = work.stage(careful)
            if done is None:
                answers |= {n: (None, why) for n, why in bad.items()}
                answers |= work.leave_changed()
                answers |= work.carefully() if careful else work.at_once()
                keep.update(work.unfindable)
            else:
                answers |= work.looked_up()
            work.end()
        if done is not None:
            answers |= done
        elif self._keeps and (kept := {n: a for n, a in answers.items() if a[1] is not None or n in keep}):
            target.note_answers(connection, name, kept)
        given = target.given_id(table, groups) if step.op in (Op.CREATE, Op.UPSERT) else None
        if not answers and target.as_planned(step, groups, given):
            return Taken(step.changes, version, given)
        return [self._receipt(c, answers.get(c.number), given, version) for c in step.changes]

    def _receipt(
        self, change: Change, answer: tuple[str | None, str | None] | None, given: str | None, version: int
    ) -> Receipt:
        remote = change.remote_id
        if answer is not None:
            made, why = answer
            if why is not None:
                outcome = Outcome.CHANGED if why == CHANGED else Outcome.REJECTED
                return Receipt(change.number, outcome, remote, why)
            remote = remote or made
        if remote is None and given is not None:
            remote = self._target.id_text(change.fields.get(given))
        return Receipt(change.number, Outcome.OK, remote, None, version)


__all__ = ["CHANGED", "KEEP_DAYS", "Answers", "TableWriter", "Target", "Work"]
