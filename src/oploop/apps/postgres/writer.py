"""How Postgres takes steps: rows by `COPY` into a temporary table, and one set-based statement; see apps/sql/delivery.py."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from oploop.apps.columns import Columns
from oploop.apps.postgres import statements as sql
from oploop.apps.postgres.catalog import STEPS, Table
from oploop.apps.postgres.columns import csv_of, group_of
from oploop.apps.postgres.server import Server, says
from oploop.apps.postgres.staging import Group, groups_of, text_of
from oploop.apps.sql.delivery import CHANGED, KEEP_DAYS, Answers, Broken, Target, Work, kept_answers, kept_text
from oploop.errors import RetryLater
from oploop.records import Op, Step

if TYPE_CHECKING:
    import psycopg

QUICK_FROM = 500  #: rows from which on it is worth its while to try whether none of them is there yet
ANALYZE_FROM = 1_000  #: staged rows from which on the planner is told how many there are

_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::int8"
_NAMED = "step_id = %s AND first = %s AND last = %s"
_MAKE = (
    "CREATE SCHEMA IF NOT EXISTS oploop",
    f"CREATE TABLE IF NOT EXISTS {STEPS} (step_id text NOT NULL, first int8 NOT NULL, last int8 NOT NULL, "
    "at timestamptz NOT NULL DEFAULT now(), refused jsonb, PRIMARY KEY (step_id, first, last))",
    f"COMMENT ON TABLE {STEPS} IS 'Steps that oploop delivered here, kept {KEEP_DAYS} days, so that none is done twice'",
)


class PgTarget(Target[Table, Group]):
    """See Target."""

    def __init__(self, server: Server) -> None:
        self._server = self.faults = server
        self.place = server.place
        self.met: set[str] = set()  #: tables in which rows stood that were to be new
        self.staged_only: set[str] = set()  #: tables into which values did not go straight

    def ready(self) -> bool:
        """Without rights to make the table, and without the table, ids of steps are not kept."""
        import psycopg

        with self._server.short() as connection:
            if not _usable(connection):
                try:
                    with connection.transaction():
                        for statement in _MAKE:
                            connection.execute(statement)
                except (
                    psycopg.errors.InsufficientPrivilege,
                    psycopg.errors.UniqueViolation,
                    psycopg.errors.ReadOnlySqlTransaction,
                ):  # not allowed, or another run makes it right now
                    return _usable(connection)
                return True
            with contextlib.suppress(psycopg.Error):  # nobody's data depends on it
                connection.execute(f"DELETE FROM {STEPS} WHERE at < now() - interval '{KEEP_DAYS} days'")
        return True

    def connect(self) -> None:
        self._server.connect()

    def groups(self, table: Table, step: Step) -> Sequence[Group]:
        """From columns where that says the same."""
        if isinstance(step.changes, Columns):
            group = group_of(table, step.op, step.changes, conditional=step.conditional)
            if group is not None:
                csv_of(group, straight=self.straight(group) is not None)  # before a connection is held for it
                return [group]
        return groups_of(table, step.op, list(step.changes), conditional=step.conditional)

    def session(self) -> AbstractContextManager[Any]:
        self._server.calls += 1
        return self._server.session()

    def work(self, connection: Any, group: Group) -> Work:
        return _Work(connection, group, self)

    def clock(self, connection: Any) -> int:
        return int(connection.execute(f"SELECT {_CLOCK}").fetchone()[0])

    def begin_step(self, connection: Any, name: tuple[str, int, int]) -> tuple[int, Answers | None]:
        put = (
            f"INSERT INTO {STEPS} (step_id, first, last) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING {_CLOCK}"
        )
        if row := connection.execute(put, name).fetchone():
            return row[0], None
        known = f"SELECT (extract(epoch FROM at) * 1000000)::int8, refused FROM {STEPS} WHERE {_NAMED}"
        at, refused = connection.execute(known, name).fetchone()
        return at, kept_answers(refused or {})

    def note_answers(self, connection: Any, name: tuple[str, int, int], answers: Answers) -> None:
        connection.execute(f"UPDATE {STEPS} SET refused = %s::jsonb WHERE {_NAMED}", (kept_text(answers), *name))

    def given_id(self, table: Table, groups: Sequence[Group]) -> str | None:
        """Of a row whose id the database did not tell (see Shape.id_known)."""
        return table.key[0] if len(table.key) == 1 else None

    def as_planned(self, step: Step, groups: Sequence[Group], given: str | None) -> bool:
        if given is None:
            return True
        named = all(g.columns is not None and g.shape.find[0].name == given for g in groups)
        return isinstance(step.changes, Columns) and named

    def settled(self, connection: Any, e: BaseException) -> bool:
        return getattr(e, "sqlstate", None) is not None and not connection.broken and not connection.closed

    def cut(self, e: BaseException) -> BaseException:
        """There may have been no connection at all, for a reason that does not pass."""
        explained = self._server.explain(e)
        return Broken(self._server.said(e)) if isinstance(explained, RetryLater) else explained

    def straight(self, group: Group) -> str | None:
        """The statement that takes a group's values into the table itself, where that is worth a try."""
        name = group.shape.table.sql
        if group.columns is None or len(group.changes) < QUICK_FROM or name in self.met | self.staged_only:
            return None
        return sql.straight(group.shape)

    def id_text(self, value: Any) -> str | None:
        return text_of(value)


def _usable(connection: psycopg.Connection[Any]) -> bool:
    """Whether the user may do with the table of steps what has to be done."""
    rights = " AND ".join(f"has_table_privilege(t, '{right}')" for right in ("INSERT", "SELECT", "UPDATE"))
    row = connection.execute(f"SELECT COALESCE({rights}, false) FROM to_regclass(%s) AS t", (STEPS,)).fetchone()
    return bool(row and row[0])


class _Work(Work):
    """See Work. A group of which no row could be staged has nothing to do."""

    def __init__(self, connection: psycopg.Connection[Any], group: Group, target: PgTarget) -> None:
        self._connection, self._group, self._target = connection, group, target
        self._moved: set[int] = set()  #: new rows whose keys a trigger made others of

    @property
    def unfindable(self) -> Collection[int]:
        return self._moved

    def straight(self) -> bool:
        """Where `COPY` into the table does just that; what keeps it from that is left to the other ways."""
        import psycopg

        statement = self._target.straight(self._group)
        if statement is None:
            return False
        rows, done = csv_of(self._group, straight=True), False
        self._connection.execute("SAVEPOINT oploop_straight")
        # rows that are there already; what is not supported, such as row security
        passing = contextlib.suppress(psycopg.errors.UniqueViolation, psycopg.errors.FeatureNotSupported)
        with passing, self._connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                copy.write(rows)
            done = cursor.rowcount == len(self._group.changes)
        self._connection.execute(f"{'RELEASE' if done else 'ROLLBACK TO'} SAVEPOINT oploop_straight")
        if not done:
            self._target.staged_only.add(self._group.shape.table.sql)
        return done

    def stage(self, careful: bool) -> dict[int, str]:
        group, connection = self._group, self._connection
        if not group.changes:
            return group.bad
        connection.execute(sql.make_stage(group.shape))
        with (
            connection.cursor() as cursor,
            cursor.copy(sql.copy_stage() if group.columns is None else sql.copy_csv()) as copy,
        ):
            if group.columns is not None:
                copy.write(csv_of(group, straight=False))
            else:
                copy.set_types([kind for _, kind in group.shape.stage_columns()])
                for row in group.rows:
                    copy.write_row(row)
        if len(group.changes) >= ANALYZE_FROM and group.shape.op in (Op.UPDATE, Op.REMOVE):
            # tell the planner how many rows are staged, where it has to find them in the table
            keys = ", ".join(f"k{i}" for i in range(len(group.shape.find)))
            connection.execute(f"{sql.BY_INDEX}; ANALYZE {sql.STAGE} ({keys})")
        return group.bad

    def at_once(self) -> Answers:
        if not self._group.changes or self._quickly():
            return {}
        shape, execute = self._group.shape, self._connection.execute
        if not shape.reshaped:
            return _answers(self._group, execute(str(sql.statement(shape))).fetchall())
        execute("SAVEPOINT oploop_set")
        rows = execute(str(sql.statement(shape))).fetchall()
        if all(found for *_, found in rows):
            execute("RELEASE SAVEPOINT oploop_set")
            return _answers(self._group, [row[:3] for row in rows])
        execute("ROLLBACK TO SAVEPOINT oploop_set")  # which row became which is known only of one by itself
        return self.carefully()

    def _quickly(self) -> bool:
        """Insert a large group as if no row of it stood in the table; False, with nothing done, if one did, or was not taken."""
        import psycopg

        statement, table = sql.quick(self._group.shape), self._group.shape.table.sql
        if statement is None or len(self._group.changes) < QUICK_FROM or table in self._target.met:
            return False
        self._connection.execute("SAVEPOINT oploop_quick")
        try:
            done = self._connection.execute(statement).rowcount == len(self._group.changes) and self._as_staged()
        except psycopg.errors.UniqueViolation:
            done = False
        self._connection.execute(f"{'RELEASE' if done else 'ROLLBACK TO'} SAVEPOINT oploop_quick")
        if not done:
            self._target.met.add(table)
        return done

    def _as_staged(self) -> bool:
        """Whether all rows that were just inserted have the keys that were staged."""
        if not self._group.shape.reshaped:
            return True
        [(kept,)] = self._connection.execute(sql.kept(self._group.shape)).fetchall()
        return bool(kept == len(self._group.changes))

    def carefully(self) -> Answers:
        """The good rows in chunks, the bad ones found and left out, within the server."""
        group, execute = self._group, self._connection.execute
        if not group.changes:
            return {}
        execute(sql.make_careful())
        execute(sql.careful(group.shape, group.numbers))
        done = execute(f"SELECT n, id, taken FROM {sql.DONE}").fetchall()
        if group.shape.reshaped:
            self._moved.update(n for (n,) in execute(f"SELECT n FROM {sql.DONE} WHERE taken AND NOT found").fetchall())
        bad = execute(f"SELECT n, message, detail FROM {sql.BAD}").fetchall()
        execute(f"DROP TABLE {sql.DONE}, {sql.BAD}")
        return _answers(group, done) | {n: (None, says(message, detail)) for n, message, detail in bad}

    def looked_up(self) -> Answers:
        shape = self._group.shape
        told = shape.id_known and not shape.reshaped
        if shape.op not in (Op.CREATE, Op.UPSERT) or told or not shape.table.key or not self._group.changes:
            return {}
        return {n: (made, None) for n, made in self._connection.execute(sql.look_up(shape)).fetchall()}

    def end(self) -> None:
        if self._group.changes:
            self._connection.execute(f"DROP TABLE {sql.STAGE}")


def _answers(group: Group, rows: Sequence[tuple[int, str | None, bool]]) -> Answers:
    """{number: (id that the database made, why the row was not taken)} from a statement's answer."""
    return {
        n: (made, None) if taken else (None, CHANGED if made == sql.THERE else _untaken(group))
        for n, made, taken in rows
    }


def _untaken(group: Group) -> str:
    if group.shape.op is Op.UPDATE:
        return f"no such row in {group.shape.table.name}"
    return f"{group.shape.table.name} did not take the row: a trigger or a rule kept it out"
