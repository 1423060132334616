"""Delivering steps: rows by `COPY` into a temporary table, one set-based statement, and the step's id, in one commit.

A step whose id stands in `oploop.oploop_steps` was done, whatever became of its answer: it is answered from there. The
id is written first, so that a second try waits for the end of a first one that may still be under way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from oploop.apps.columns import Columns, Taken, span
from oploop.apps.postgres import statements as sql
from oploop.apps.postgres.catalog import STEPS, Table
from oploop.apps.postgres.columns import csv_of, group_of
from oploop.apps.postgres.server import SETTINGS, TRANSIENT, RowsRefused, Server, about_rows, one_line, says
from oploop.apps.postgres.staging import Group, groups_of, text_of
from oploop.apps.transport import LostAnswer
from oploop.errors import RetryLater
from oploop.records import Change, Op, Outcome, Receipt, Step
from oploop.runtime import Runtime

if TYPE_CHECKING:
    import psycopg

TRIES = 4
CHANGED = "changed in the table since it was read"  #: why a conditional update was not made
KEEP_DAYS = 30  #: how long the ids of steps are kept
LOCK_SECONDS = 60
QUICK_FROM = 500  #: rows from which on it is worth its while to try whether none of them is there yet
ANALYZE_FROM = 1_000  #: staged rows from which on the planner is told how many there are

_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::int8"
_MAKE = (
    "CREATE SCHEMA IF NOT EXISTS oploop",
    f"CREATE TABLE IF NOT EXISTS {STEPS} (step_id text NOT NULL, first int8 NOT NULL, last int8 NOT NULL, "
    "at timestamptz NOT NULL DEFAULT now(), refused jsonb, PRIMARY KEY (step_id, first, last))",
    f"COMMENT ON TABLE {STEPS} IS 'Steps that oploop delivered here, kept {KEEP_DAYS} days, so that none is done twice'",
)


class Broken(Exception):
    """The connection broke before the commit was sent: the server does nothing of it."""


class TableWriter:
    """Delivers steps to the tables of one database."""

    def __init__(self, server: Server, runtime: Runtime) -> None:
        self._server, self._runtime = server, runtime
        self._keeps: bool | None = None
        self._making = asyncio.Lock()
        self._met: set[str] = set()  #: tables in which rows stood that were to be new
        self._staged_only: set[str] = set()  #: tables into which values did not go straight

    async def send(self, table: Table, step: Step) -> Sequence[Receipt]:
        """See App.send. Raises RowsRefused when rows are bad and the server cannot tell which."""
        import psycopg

        groups = await asyncio.to_thread(self._groups, table, step)
        keeps = await self._keeps_steps()
        for attempt in range(1, TRIES + 1):
            try:
                return await self._try(table, step, groups, keeps, careful=False)
            except psycopg.Error as e:
                if about_rows(e.sqlstate):
                    if len(step.changes) == 1:
                        raise RowsRefused(table.label, one_line(e), e.sqlstate) from None
                    return await self._carefully(table, step, groups, keeps, e)
                if e.sqlstate not in TRANSIENT or attempt == TRIES:
                    raise self._server.explain(e) from None
            except Broken as e:
                if attempt == TRIES:
                    raise RetryLater(f"the connection to {self._server.place} keeps breaking: {e}") from None
            await self._runtime.sleep(self._runtime.random.uniform(0.05, 0.2 * 2**attempt))
        raise AssertionError("unreachable: the last try returns or raises")

    def _groups(self, table: Table, step: Step) -> list[Group]:
        """A step's changes as they are staged: from columns where that says the same."""
        if isinstance(step.changes, Columns):
            group = group_of(table, step.op, step.changes, conditional=step.conditional)
            if group is not None:
                csv_of(group, straight=self._straight(group) is not None)  # before a connection is held for it
                return [group]
        return groups_of(table, step.op, list(step.changes), conditional=step.conditional)

    async def _carefully(
        self, table: Table, step: Step, groups: Sequence[Group], keeps: bool, first: psycopg.Error
    ) -> Sequence[Receipt]:
        """Deliver a step of which some rows are bad, in chunks and then singly, within the server."""
        import psycopg

        try:
            return await self._try(table, step, groups, keeps, careful=True)
        except psycopg.Error as e:
            if e.sqlstate in TRANSIENT:
                raise RetryLater(f"{self._server.place} cannot do it now: {one_line(e)}") from None
            raise RowsRefused(
                table.label, one_line(first), first.sqlstate
            ) from None  # the batch is halved by the caller
        except Broken as e:
            raise RetryLater(f"the connection to {self._server.place} broke: {e}") from None

    async def _try(
        self, table: Table, step: Step, groups: Sequence[Group], keeps: bool, *, careful: bool
    ) -> Sequence[Receipt]:
        """One transaction for the whole step. Raises Broken, LostAnswer, or the server's error."""
        import psycopg

        self._server.calls += 1
        committing = False
        try:
            async with self._server.connection() as connection:
                try:
                    receipts = await self._transact(connection, table, step, groups, keeps, careful)
                    committing = True
                    await connection.commit()
                    return receipts
                except psycopg.Error as e:
                    if not connection.broken and not connection.closed:
                        committing = committing and e.sqlstate is None
                        await connection.rollback()
                    raise
        except (psycopg.OperationalError, OSError) as e:
            code = getattr(e, "sqlstate", None)
            if committing and (code is None or code[:2] in ("08", "57")):
                raise LostAnswer(
                    f"the connection to {self._server.place} broke while it committed: {one_line(e)}"
                ) from None
            if code is None or code[:2] in ("08", "57"):
                raise self._cut(e) from None
            raise

    def _cut(self, e: BaseException) -> Exception:
        """Whether there was no connection at all, and why, or it broke."""
        explained = self._server.explain(e)
        return Broken(one_line(e)) if isinstance(explained, RetryLater) else explained

    async def _transact(
        self,
        connection: psycopg.AsyncConnection[Any],
        table: Table,
        step: Step,
        groups: Sequence[Group],
        keeps: bool,
        careful: bool,
    ) -> Sequence[Receipt]:
        await connection.execute(
            f"{SETTINGS}; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; SET CONSTRAINTS ALL IMMEDIATE"
        )
        version, done = await self._begin_step(connection, step, keeps)
        answers: dict[int, tuple[str | None, str | None]] = {}  # number: (id made by the database, why it was refused)
        for group in groups:
            if done is None:
                answers |= {n: (None, why) for n, why in group.bad.items()}
            if group.changes and (done is not None or careful or not await self._straightly(connection, group)):
                await self._stage(connection, group)
                if done is not None or careful or not await self._quickly(connection, group):
                    answers |= await (_looked_up if done is not None else _careful if careful else _plain)(
                        connection, group
                    )
                await connection.execute(f"DROP TABLE {sql.STAGE}")
        if done is not None:
            answers |= {n: (None, why) for n, why in done.items()}
        elif keeps and (refused := {str(n): why for n, (_, why) in answers.items() if why is not None}):
            await connection.execute(
                f"UPDATE {STEPS} SET refused = %s::jsonb WHERE step_id = %s AND first = %s AND last = %s",
                (orjson.dumps(refused).decode(), *_name(step)),
            )
        given = _given_id(table) if step.op in (Op.CREATE, Op.UPSERT) else None
        if not answers and (given is None or _names_new(step, groups, given)):
            return Taken(step.changes, version, given)
        return [_receipt(c, answers.get(c.number), given, version) for c in step.changes]

    async def _begin_step(
        self, connection: psycopg.AsyncConnection[Any], step: Step, keeps: bool
    ) -> tuple[int, dict[int, str] | None]:
        """(the server's clock, None), or what a step that was done before refused."""
        if not keeps:
            row = await (await connection.execute(f"SELECT {_CLOCK}")).fetchone()
            return (row[0] if row else 0), None
        cursor = await connection.execute(
            f"INSERT INTO {STEPS} (step_id, first, last) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING {_CLOCK}",
            _name(step),
        )
        if row := await cursor.fetchone():
            return row[0], None
        cursor = await connection.execute(
            f"SELECT (extract(epoch FROM at) * 1000000)::int8, refused FROM {STEPS} WHERE step_id = %s AND first = %s AND last = %s",
            _name(step),
        )
        row = await cursor.fetchone()
        assert row is not None, "a row that was in the way is there"
        return row[0], {int(n): why for n, why in (row[1] or {}).items()}

    async def _quickly(self, connection: psycopg.AsyncConnection[Any], group: Group) -> bool:
        """Insert a large group as if no row of it stood in the table; False, with nothing done, if one did, or was not taken."""
        import psycopg

        statement = sql.quick(group.shape)
        if statement is None or len(group.changes) < QUICK_FROM or group.shape.table.sql in self._met:
            return False
        await connection.execute("SAVEPOINT oploop_quick")
        try:
            done = (await connection.execute(statement)).rowcount == len(group.changes)
        except psycopg.errors.UniqueViolation:
            done = False
        await connection.execute(f"{'RELEASE' if done else 'ROLLBACK TO'} SAVEPOINT oploop_quick")
        if not done:
            self._met.add(group.shape.table.sql)
        return done

    async def _straightly(self, connection: psycopg.AsyncConnection[Any], group: Group) -> bool:
        """The same without staging, where `COPY` into the table does just that; what keeps it from that is left to the other ways."""
        import psycopg

        statement = self._straight(group)
        if statement is None:
            return False
        rows = await asyncio.to_thread(csv_of, group, straight=True)
        await connection.execute("SAVEPOINT oploop_straight")
        done = False
        with contextlib.suppress(
            psycopg.errors.UniqueViolation, psycopg.errors.FeatureNotSupported
        ):  # such as row security
            async with connection.cursor() as cursor:
                async with cursor.copy(statement) as copy:
                    await copy.write(rows)
                done = cursor.rowcount == len(group.changes)
        await connection.execute(f"{'RELEASE' if done else 'ROLLBACK TO'} SAVEPOINT oploop_straight")
        if not done:
            self._staged_only.add(group.shape.table.sql)
        return done

    def _straight(self, group: Group) -> str | None:
        """The statement that takes a group's values into the table itself, where that is worth a try."""
        name = group.shape.table.sql
        if group.columns is None or len(group.changes) < QUICK_FROM or name in self._met or name in self._staged_only:
            return None
        return sql.straight(group.shape)

    async def _stage(self, connection: psycopg.AsyncConnection[Any], group: Group) -> None:
        await connection.execute(sql.make_stage(group.shape))
        if group.columns is not None:
            rows = await asyncio.to_thread(csv_of, group, straight=False)
            async with connection.cursor() as cursor, cursor.copy(sql.copy_csv()) as copy:
                await copy.write(rows)
            await self._analyze(connection, group)
            return
        async with connection.cursor() as cursor, cursor.copy(sql.copy_stage()) as copy:
            copy.set_types([kind for _, kind in group.shape.stage_columns()])
            for row in group.rows:
                await copy.write_row(row)
        await self._analyze(connection, group)

    async def _analyze(self, connection: psycopg.AsyncConnection[Any], group: Group) -> None:
        """Tell the planner how many rows are staged, where it has to find them in the table."""
        if len(group.changes) >= ANALYZE_FROM and group.shape.op in (Op.UPDATE, Op.REMOVE):
            keys = ", ".join(f"k{i}" for i in range(len(group.shape.find)))
            await connection.execute(f"ANALYZE {sql.STAGE} ({keys})")

    async def _keeps_steps(self) -> bool:
        """Whether ids of steps are kept here: the table is there, or could be made. Asked once."""
        import psycopg

        async with self._making:
            if self._keeps is None:
                try:
                    async with self._server.connection() as connection:
                        try:
                            self._keeps = await _make_steps(connection)
                        finally:
                            await connection.rollback()
                except (psycopg.Error, OSError) as e:
                    raise self._server.explain(e) from None
        return self._keeps


async def _make_steps(connection: psycopg.AsyncConnection[Any]) -> bool:
    import psycopg

    async def usable() -> bool:
        row = await (
            await connection.execute(
                "SELECT COALESCE(has_table_privilege(to_regclass(%s), 'INSERT') AND has_table_privilege(to_regclass(%s), 'SELECT') "
                "AND has_table_privilege(to_regclass(%s), 'UPDATE'), false)",
                (STEPS, STEPS, STEPS),
            )
        ).fetchone()
        await connection.rollback()
        return bool(row and row[0])

    if not await usable():
        try:
            for statement in _MAKE:
                await connection.execute(statement)
            await connection.commit()
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.UniqueViolation,
            psycopg.errors.ReadOnlySqlTransaction,
        ):
            await connection.rollback()  # not allowed, or another run makes it right now
            return await usable()
        return True
    try:
        await connection.execute(f"DELETE FROM {STEPS} WHERE at < now() - interval '{KEEP_DAYS} days'")
        await connection.commit()
    except psycopg.Error:
        await connection.rollback()  # nobody's data depends on it
    return True


async def _plain(connection: psycopg.AsyncConnection[Any], group: Group) -> dict[int, tuple[str | None, str | None]]:
    """All rows in one statement."""
    cursor = await connection.execute(str(sql.statement(group.shape)))
    return _answers(group, await cursor.fetchall())


async def _careful(connection: psycopg.AsyncConnection[Any], group: Group) -> dict[int, tuple[str | None, str | None]]:
    """The good rows in chunks, the bad ones found and left out."""
    await connection.execute(sql.make_careful())
    await connection.execute(sql.careful(group.shape, group.numbers))
    done = await (await connection.execute(f"SELECT n, id, taken FROM {sql.DONE}")).fetchall()
    bad = await (await connection.execute(f"SELECT n, message, detail FROM {sql.BAD}")).fetchall()
    await connection.execute(f"DROP TABLE {sql.DONE}, {sql.BAD}")
    return _answers(group, done) | {n: (None, says(message, detail)) for n, message, detail in bad}


async def _looked_up(
    connection: psycopg.AsyncConnection[Any], group: Group
) -> dict[int, tuple[str | None, str | None]]:
    """The ids of rows that an earlier try made."""
    if group.shape.op not in (Op.CREATE, Op.UPSERT) or group.shape.id_known or not group.shape.table.key:
        return {}
    cursor = await connection.execute(sql.look_up(group.shape))
    return {n: (made, None) for n, made in await cursor.fetchall()}


def _answers(group: Group, rows: Sequence[tuple[int, str | None, bool]]) -> dict[int, tuple[str | None, str | None]]:
    """{number: (id that the database made, why the row was not taken)} from a statement's answer."""
    return {
        n: (made, None) if taken else (None, CHANGED if made == sql.THERE else _untaken(group))
        for n, made, taken in rows
    }


def _untaken(group: Group) -> str:
    if group.shape.op is Op.UPDATE:
        return f"no such row in {group.shape.table.label}"
    return f"{group.shape.table.label} did not take the row: a trigger or a rule kept it out"


def _name(step: Step) -> tuple[str, int, int]:
    return step.id, *span(step.changes)


def _names_new(step: Step, groups: Sequence[Group], given: str) -> bool:
    """Whether the ids of new rows are the values of a field of the sync's key, as they stand in the plan."""
    return isinstance(step.changes, Columns) and all(
        g.columns is not None and g.shape.find[0].name == given for g in groups
    )


def _receipt(change: Change, answer: tuple[str | None, str | None] | None, given: str | None, version: int) -> Receipt:
    """`given`: the field whose value is the id of a new row that the database did not tell (see Shape.id_known)."""
    remote = change.remote_id
    if answer is not None:
        made, why = answer
        if why is not None:
            outcome = Outcome.CHANGED if why == CHANGED else Outcome.REJECTED
            return Receipt(change.number, outcome, remote, why)
        remote = remote or made
    if remote is None and given is not None:
        remote = text_of(change.fields.get(given))
    return Receipt(change.number, Outcome.OK, remote, None, version)


def _given_id(table: Table) -> str | None:
    return table.key[0] if len(table.key) == 1 else None
