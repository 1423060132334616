"""What a database with an Engine takes steps by: rows into a temporary table, and a statement or two; see delivery.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from oploop.apps.columns import Columns
from oploop.apps.sql.columns import STEPS
from oploop.apps.sql.delivery import CHANGED, KEEP_DAYS, Answers, Target, Work, kept_answers, kept_text
from oploop.apps.sql.engine import Engine
from oploop.apps.sql.reader import as_read
from oploop.apps.sql.statements import Group, Statements, conditional, groups_of
from oploop.apps.sql.tables import Table, id_of
from oploop.records import ColumnType, Op, Step

ALL = "1 = 1"  #: the condition of all staged rows
CHUNK = 100  #: rows that are tried at once where some of a batch are bad, before each is tried alone


class EngineTarget(Target[Table, Group]):
    """See Target."""

    def __init__(self, engine: Engine) -> None:
        self._engine = self.faults = engine
        self.place = engine.place

    def ready(self) -> bool:
        with self._engine.connection() as connection:
            cursor = connection.cursor()
            cursor.execute(self._engine.make_steps())
            self._engine.begin(connection, write=True)
            old = self._engine.clock(connection) - KEEP_DAYS * 86_400_000_000
            cursor.execute(f"DELETE FROM {self._engine.steps} WHERE at < {self._engine.mark}", (old,))
            connection.commit()
        return True

    def groups(self, table: Table, step: Step) -> Sequence[Group]:
        groups = groups_of(self._engine, table, step.op, step.changes)
        return conditional(groups, step.changes) if step.conditional else groups

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        self._engine.calls += 1
        try:
            connection = self._engine.connect()
        except Exception as e:
            raise (self._engine.explain(e) if self._engine.is_database_error(e) else e) from None
        try:
            self._engine.begin(connection, write=True)
            yield connection
        finally:
            with contextlib.suppress(Exception):
                connection.close()

    def work(self, connection: Any, group: Group) -> Work:
        return _Work(self._engine, connection, group)

    def clock(self, connection: Any) -> int:
        return self._engine.clock(connection)

    def begin_step(self, connection: Any, name: tuple[str, int, int]) -> tuple[int, Answers | None]:
        cursor, m, now = connection.cursor(), self._engine.mark, self._engine.clock(connection)
        try:
            cursor.execute(
                f"INSERT INTO {self._engine.steps} (step_id, first, last, at) VALUES ({m}, {m}, {m}, {m})",
                (*name, now),
            )
            return now, None
        except Exception as e:
            if not self._engine.is_database_error(e) or not self._engine.is_done(e):
                raise
        cursor.execute(
            f"SELECT at, refused FROM {self._engine.steps} WHERE step_id = {m} AND first = {m} AND last = {m}",
            name,
        )
        at, refused = cursor.fetchone()
        return int(at), kept_answers(orjson.loads(refused or "{}"))

    def note_answers(self, connection: Any, name: tuple[str, int, int], answers: Answers) -> None:
        m = self._engine.mark
        connection.cursor().execute(
            f"UPDATE {self._engine.steps} SET refused = {m} WHERE step_id = {m} AND first = {m} AND last = {m}",
            (kept_text(answers), *name),
        )

    def said_of(self, groups: Sequence[Group], e: BaseException) -> str:
        return groups[0].named(self._engine.said(e))

    def given_id(self, table: Table, groups: Sequence[Group]) -> str | None:
        return _given_id(table, groups)

    def as_planned(self, step: Step, groups: Sequence[Group], given: str | None) -> bool:
        keyed = given is None or given in {c.name for c in groups[0].find}
        return isinstance(step.changes, Columns) and keyed


class _Reshaped(Exception):
    """A row that was put in does not stand there by its key; the text says so of one that is alone."""


class _Work(Work):
    """See Work."""

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
            if rows == ALL:
                return self._made_at_once()
            answers |= self._made(rows)
        return answers

    def _made_at_once(self) -> Answers:
        """All new rows; one by one, where a trigger makes something else of some."""
        self._run("SAVEPOINT oploop_all")
        try:
            self._made(ALL)
        except _Reshaped:
            self._run("ROLLBACK TO SAVEPOINT oploop_all")
            return self.carefully()
        return self.looked_up()

    def _made(self, rows: str) -> Answers:
        """Put new rows in. Raises _Reshaped where one does not stand there by its key, unless it is alone and was not made."""
        group = self._group
        self._run(self._sql.insert(rows, absent=group.op is Op.UPSERT))
        made = self._cursor.rowcount
        self._run(self._sql.missing(rows))
        lost = [n for (n,) in self._cursor.fetchall()]
        if lost and (made or rows == ALL):
            raise _Reshaped(
                f"a trigger of {group.table.name} changed the row's key, by which it could not be found again: it was taken back"
            )
        return dict.fromkeys(lost, (None, f"{group.table.name} did not take the row: a trigger kept it out"))

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
            if not isinstance(e, _Reshaped) and not self._engine.about_rows(e):
                raise
            self._run("ROLLBACK TO SAVEPOINT oploop_try")
            return str(e) if isinstance(e, _Reshaped) else self._engine.said(e)
        self._run("RELEASE SAVEPOINT oploop_try")
        return done if isinstance(done, dict) else None


def _given_id(table: Table, groups: Sequence[Group]) -> str | None:
    """The field whose value, as text, is the id of a new row; None where the database makes it."""
    if len(table.key) != 1:
        return None
    name = table.key[0]
    kind = table.by_name[name].kind
    if kind.rewritten or kind.column not in (ColumnType.TEXT, ColumnType.INTEGER):
        return None
    return name if all(name in {v.name for v in g.values} - g.partial for g in groups) else None


__all__ = ["STEPS", "EngineTarget"]
