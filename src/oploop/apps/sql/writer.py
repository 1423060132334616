"""Delivering steps: rows into a temporary table, one set-based statement, and the step's id, in one commit.

A step whose id stands in `oploop_steps` was done, whatever became of its answer: it is answered from there. The id is
written first, so that a second try waits for the end of a first one that may still be under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import orjson

from oploop.apps.columns import Columns, Taken, span
from oploop.apps.sql.engine import Engine, RowsRefused
from oploop.apps.sql.reader import as_read
from oploop.apps.sql.statements import Group, Statements, conditional, groups_of
from oploop.apps.sql.tables import STEPS, Table, id_of
from oploop.apps.transport import LostAnswer
from oploop.errors import RetryLater
from oploop.records import Change, ColumnType, Op, Outcome, Receipt, Step
from oploop.runtime import Runtime

TRIES = 4
KEEP_DAYS = 30  #: how long the ids of steps are kept
ALL = "1 = 1"  #: the condition of all staged rows
CHANGED = "changed in the table since it was read"  #: why a conditional update was not made
CHUNK = 100  #: rows that are tried at once where some of a batch are bad, before each is tried alone

Answers = dict[int, tuple[str | None, str | None]]  #: number: (its row's id, why it was refused)


class _Broken(Exception):
    """The connection broke before the commit was sent: the server does nothing of it."""


class TableWriter:
    """Delivers steps to the tables of one database."""

    def __init__(self, engine: Engine, runtime: Runtime) -> None:
        self._engine, self._runtime = engine, runtime
        self._made = False
        self._lock = threading.Lock()

    async def send(self, table: Table, step: Step) -> Sequence[Receipt]:
        """See App.send. A step of which some rows are bad is delivered again within the same call, bad rows left out."""
        groups = await asyncio.to_thread(groups_of, self._engine, table, step.op, step.changes)
        if step.conditional:
            groups = conditional(groups, step.changes)
        careful = False
        for attempt in range(1, TRIES + 1):
            try:
                return await asyncio.to_thread(self._try, table, step, groups, careful)
            except (LostAnswer, RetryLater):
                raise
            except _Broken as e:
                if attempt == TRIES:
                    raise RetryLater(f"the connection to {self._engine.place} keeps breaking: {e}") from None
            except Exception as e:
                if not self._engine.is_database_error(e):
                    raise
                if self._engine.about_rows(e) and not careful:
                    if len(step.changes) == 1:
                        raise RowsRefused(table.name, groups[0].named(self._engine.said(e))) from None
                    careful = True
                    continue
                if not self._engine.is_transient(e) or attempt == TRIES:
                    raise self._engine.explain(e) from None
            await self._runtime.sleep(self._runtime.random.uniform(0.05, 0.2 * 2**attempt))
        raise RetryLater(f"{self._engine.place} cannot do it now: tried {TRIES} times")

    def _try(self, table: Table, step: Step, groups: Sequence[Group], careful: bool) -> Sequence[Receipt]:
        """One transaction for the whole step. Raises LostAnswer, _Broken, or the driver's error."""
        self._engine.calls += 1
        committing = False
        connection = self._connected()
        try:
            self._engine.begin(connection, write=True)
            receipts = self._transact(connection, table, step, groups, careful)
            committing = True
            connection.commit()
            return receipts
        except Exception as e:
            if self._engine.is_broken(e):
                if committing:
                    raise LostAnswer(f"the connection to {self._engine.place} broke while it committed") from None
                raise _Broken(self._engine.said(e)) from None
            with contextlib.suppress(Exception):
                connection.rollback()
            raise
        finally:
            with contextlib.suppress(Exception):
                connection.close()

    def _connected(self) -> Any:
        """A new connection; before the first one the table of steps is made, and old steps are forgotten."""
        with self._lock:
            if not self._made:
                with self._engine.connection() as first:
                    cursor = first.cursor()
                    cursor.execute(self._engine.make_steps())
                    self._engine.begin(first, write=True)
                    old = self._engine.clock(first) - KEEP_DAYS * 86_400_000_000
                    cursor.execute(f"DELETE FROM {self._engine.steps} WHERE at < {self._engine.mark}", (old,))
                    first.commit()
                self._made = True
        try:
            return self._engine.connect()
        except Exception as e:
            raise (self._engine.explain(e) if self._engine.is_database_error(e) else e) from None

    def _transact(
        self, connection: Any, table: Table, step: Step, groups: Sequence[Group], careful: bool
    ) -> Sequence[Receipt]:
        version, done = self._begin_step(connection, step)
        answers: Answers = {}
        for group in groups:
            work = _Work(self._engine, connection, group)
            bad = work.stage(careful)
            if done is None:
                answers |= {n: (None, why) for n, why in bad.items()}
                answers |= work.leave_changed()
                answers |= work.carefully() if careful else work.at_once()
            else:
                answers |= work.looked_up()
            work.end()
        if done is not None:
            answers |= {n: (None, why) for n, why in done.items()}
        elif refused := {str(n): why for n, (_, why) in answers.items() if why is not None}:
            m = self._engine.mark
            connection.cursor().execute(
                f"UPDATE {self._engine.steps} SET refused = {m} WHERE step_id = {m} AND first = {m} AND last = {m}",
                (orjson.dumps(refused).decode(), *_name(step)),
            )
        given = _given_id(table, groups) if step.op in (Op.CREATE, Op.UPSERT) else None
        if not answers and isinstance(step.changes, Columns) and (given is None or given in groups[0].table.key):
            return Taken(step.changes, version, given)
        return [_receipt(c, answers.get(c.number), given, version) for c in step.changes]

    def _begin_step(self, connection: Any, step: Step) -> tuple[int, dict[int, str] | None]:
        """(the database's clock, None), or what a step that was done before refused."""
        cursor, m, now = connection.cursor(), self._engine.mark, self._engine.clock(connection)
        try:
            cursor.execute(
                f"INSERT INTO {self._engine.steps} (step_id, first, last, at) VALUES ({m}, {m}, {m}, {m})",
                (*_name(step), now),
            )
            return now, None
        except Exception as e:
            if not self._engine.is_database_error(e) or not self._engine.is_done(e):
                raise
        cursor.execute(
            f"SELECT at, refused FROM {self._engine.steps} WHERE step_id = {m} AND first = {m} AND last = {m}",
            _name(step),
        )
        at, refused = cursor.fetchone()
        return int(at), {int(n): why for n, why in orjson.loads(refused or "{}").items()}


class _Work:
    """One group within a transaction."""

    def __init__(self, engine: Engine, connection: Any, group: Group) -> None:
        self._engine, self._connection, self._group = engine, connection, group
        self._sql = Statements(engine, group)
        self._cursor = connection.cursor()

    def _run(self, sql: str) -> None:
        self._cursor.execute(sql, ())  # with parameters, as some drivers read %% only then

    def stage(self, careful: bool) -> dict[int, str]:
        """Put the rows into the temporary table; those that cannot even be staged are left out, with the reason."""
        self._run(self._engine.drop_stage())
        self._run(self._engine.make_stage(self._group.stage_columns()))
        if not careful:
            self._cursor.executemany(self._sql.put(), self._group.rows)
            return {}
        bad: dict[int, str] = {}
        for row in self._group.rows:
            why = self._attempt(lambda row=row: self._cursor.execute(self._sql.put(), row))
            if isinstance(why, str):
                bad[row[0]] = self._group.named(why)
        return bad

    def leave_changed(self) -> Answers:
        """Take the rows off the stage that are no longer as they were read."""
        guards = self._group.guards
        if not guards:
            return {}
        self._run(self._sql.present(guards))
        rows = self._cursor.fetchall()
        now = as_read(self._group.table, [row[1:] for row in rows], guards)
        for c in guards:
            if c.kind.column is ColumnType.JSON:  # by what it says, as there is no one text of it
                now[c.name] = [None if v is None else orjson.loads(v) for v in now[c.name]]
        held = self._group.held
        changed = [
            n
            for at, (n, *_) in enumerate(rows)
            if any(now[c.name][at] != held[n][c.name] for c in guards if c.name in held.get(n, {}))
        ]
        if changed:
            self._run(self._sql.forget(changed))
        return dict.fromkeys(changed, (None, CHANGED))

    def end(self) -> None:
        self._run(self._engine.drop_stage())

    def at_once(self, rows: str = ALL) -> Answers:
        """All staged rows; the answers are for those that are not simply done, or whose ids the database made."""
        group, answers = self._group, Answers()
        if group.op is Op.REMOVE:
            self._run(self._sql.remove(rows))
            return answers
        if group.op is Op.UPDATE:
            self._run(self._sql.missing(rows))
            answers = {n: (None, f"no such row in {group.table.name}") for (n,) in self._cursor.fetchall()}
        if group.op in (Op.UPDATE, Op.UPSERT) and (update := self._sql.update(rows)) is not None:
            self._run(update)
        if group.op in (Op.CREATE, Op.UPSERT):
            self._run(self._sql.insert(rows, absent=group.op is Op.UPSERT))
            if group.op is Op.UPSERT or rows != ALL or self._cursor.rowcount < len(group.rows):
                self._run(self._sql.missing(rows))
                kept_out = f"{group.table.name} did not take the row: a trigger kept it out, or changed its key"
                answers |= {n: (None, kept_out) for (n,) in self._cursor.fetchall()}
            if rows == ALL:
                answers |= self.looked_up()
        return answers

    def carefully(self) -> Answers:
        """The good rows in chunks; of a chunk that is refused each row alone."""
        numbers = [row[0] for row in self._group.rows]
        answers: Answers = {}
        for start in range(0, len(numbers), CHUNK):
            part = numbers[start : start + CHUNK]
            found = self._attempt(lambda p=part: self.at_once(f"s.n BETWEEN {p[0]} AND {p[-1]}"))
            if not isinstance(found, str):
                answers |= found or {}
                continue
            for n in part:
                found = self._attempt(lambda n=n: self.at_once(f"s.n = {n}"))
                answers |= {n: (None, found)} if isinstance(found, str) else found or {}
        return answers | {n: a for n, a in self.looked_up().items() if n not in answers}

    def looked_up(self) -> Answers:
        """The ids of new rows, where they are no staged values."""
        if (
            self._group.op not in (Op.CREATE, Op.UPSERT)
            or not self._group.table.key
            or _given_id(self._group.table, [self._group])
        ):
            return {}
        self._run(self._sql.ids())
        return {n: (id_of(key), None) for n, *key in self._cursor.fetchall()}

    def _attempt(self, work: Any) -> Any:
        """Do it within the transaction; a text, why not, when it lies in the rows: then nothing was done."""
        self._run("SAVEPOINT oploop_try")
        try:
            done = work()
        except Exception as e:
            if not self._engine.about_rows(e):
                raise
            self._run("ROLLBACK TO SAVEPOINT oploop_try")
            return self._engine.said(e)
        self._run("RELEASE SAVEPOINT oploop_try")
        return done if isinstance(done, dict) else None


def _name(step: Step) -> tuple[str, int, int]:
    return step.id, *span(step.changes)


def _given_id(table: Table, groups: Sequence[Group]) -> str | None:
    """The field whose value, as text, is the id of a new row; None where the database makes it."""
    if len(table.key) != 1 or table.by_name[table.key[0]].kind.column not in (ColumnType.TEXT, ColumnType.INTEGER):
        return None
    name = table.key[0]
    return name if all(name in {v.name for v in g.values} - g.partial for g in groups) else None


def _receipt(change: Change, answer: tuple[str | None, str | None] | None, given: str | None, version: int) -> Receipt:
    remote = change.remote_id
    if answer is not None:
        made, why = answer
        if why is not None:
            outcome = Outcome.CHANGED if why == CHANGED else Outcome.REJECTED
            return Receipt(change.number, outcome, remote, why)
        remote = remote or made
    if remote is None and given is not None:
        remote = str(change.fields[given])
    return Receipt(change.number, Outcome.OK, remote, None, version)


__all__ = ["STEPS", "TableWriter"]
