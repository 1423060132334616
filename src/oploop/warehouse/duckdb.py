"""DuckDB as a warehouse: one file, one process that writes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import orjson
from duckdb.func import FunctionNullHandling, PythonUDFType

from oploop.runtime import Runtime
from oploop.warehouse import duckdb_file, duckdb_values
from oploop.warehouse.base import NoRoom, SqlError, literal, quote_table
from oploop.warehouse.duckdb_params import written
from oploop.warehouse.session import Session

if TYPE_CHECKING:
    import pyarrow as pa


#: Rows that stand together, column by column: of a change of one of them its columns are written so far.
ROW_GROUP = 122_880
#: Each file that is closed has one more small row group in each table that was added to. From so many on they are joined, which
#: rewrites up to ROW_GROUP rows of each such table, however few are new.
PARTS = 8


class DuckDBWarehouse(Session[duckdb.DuckDBPyConnection]):
    """An open DuckDB file. Made by `open_duckdb`."""

    dialect = "duckdb"
    folds_case = False
    columnar = True
    alone = True
    values = duckdb_values

    identity_sql = "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        read_only: bool,
        label: str,
        again: Callable[[], duckdb.DuckDBPyConnection] | None = None,
    ) -> None:
        super().__init__(connection, read_only=read_only, label=label)
        self._again = again  #: opens the file once more; None of what stands in memory alone
        self._limit: str | None = None  #: of memory, as it is without a bound
        self._giver: duckdb.DuckDBPyConnection | None = None  #: holds our function, once a statement has called for it
        self._prepare()

    def _prepare(self) -> None:
        """Set a new connection as all ours are."""
        connection = self._connection
        connection.execute("SET GLOBAL TimeZone = 'UTC'")  # for the cursors that SQLMesh opens
        connection.execute("SET TimeZone = 'UTC'")
        if not self.read_only:
            # else a run that changes much writes whole tables out time and again, not once at its end
            connection.execute("SET checkpoint_threshold = '256MB'")
        # a table's name must never find a Python variable of ours; on other cursors SQLMesh lives by that
        connection.execute("SET python_enable_replacements = false")

    def session(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            self._give(duckdb_values.SORTED_JSON)
        return self._connection.cursor()

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        with self._run(sql, params) as done:
            if [column[0] for column in done.description or []] != ["Count"]:
                return -1
            row = done.fetchone()
            return int(row[0]) if row else -1

    def query(self, sql: str, params: Sequence[Any] = ()) -> pa.Table:
        with self._run(sql, params) as done:
            return done.to_arrow_table()

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._run(sql, params) as done:
            return done.fetchall()

    def stream(self, sql: str, params: Sequence[Any] = (), *, batch_rows: int = 10_000) -> Iterator[pa.RecordBatch]:
        with self._lock:
            self._give(sql)
        cursor = self._connection.cursor()
        try:
            with _signals_heard():
                cursor.execute("SET TimeZone = 'UTC'")
                _execute(cursor, sql, params)
                yield from cursor.to_arrow_reader(batch_rows)
        except duckdb.OutOfMemoryException as e:
            raise NoRoom(one_line(e)) from e
        except (duckdb.Error, OSError) as e:  # what fails between two batches comes as OSError, of Arrow's stream
            said = one_line(e)
            raise (NoRoom if said.startswith("Out of Memory") else SqlError)(said) from e
        finally:
            cursor.close()

    @contextlib.contextmanager
    def bulk(self, *, lasting: bool, ordered: bool = True) -> Iterator[None]:
        # looking for repeated texts takes longer than all else, and what it saves of ours is little beside FSST
        sets = {"disabled_compression_methods": f"'dictionary{'' if lasting else ',fsst,dict_fsst,zstd'}'"}
        if not ordered:  # under a bound of memory keeping the order takes as long again as writing
            sets["preserve_insertion_order"] = "false"
        for name, value in sets.items():
            self.execute(f"SET {name} = {value}")
        try:
            yield
        finally:
            for name in sets:
                with contextlib.suppress(SqlError):  # a database that a full disk has broken takes no statement
                    self.execute(f"RESET {name}")

    @contextlib.contextmanager
    def bounded(self, megabytes: int) -> Iterator[None]:
        if self._limit is None:
            [(self._limit,)] = self.rows("SELECT current_setting('memory_limit')")
        with contextlib.suppress(SqlError):  # more than that is held already, and cannot be let go of
            self.execute(f"SET memory_limit = '{megabytes}MB'")
        try:
            yield
        finally:
            self.unbound()

    def unbound(self) -> None:
        if self._limit is not None:
            with contextlib.suppress(SqlError):  # RESET changes what is shown, and nothing else
                self.execute(f"SET memory_limit = '{self._limit}'")

    def columns(self, table: str) -> dict[str, str]:
        with self._lock, contextlib.suppress(duckdb.CatalogException):  # a view, or nothing
            found = self._connection.table(quote_table(table))  # a twentieth of the time that DESCRIBE takes
            return dict(zip(found.columns, map(str, found.types), strict=True))
        try:
            return {name: kind for name, kind, *_ in self.rows(f"DESCRIBE {quote_table(table)}")}
        except SqlError as e:
            if isinstance(e.__cause__, duckdb.CatalogException) or _no_catalog(e.__cause__):
                return {}
            raise

    def few(self, table: str, where: str) -> str:
        rows = f"FROM {table} AS t WHERE {where}"
        with self._lock:
            placed = _placed(self._connection, table)
        if not placed:
            return f"(SELECT t.* {rows})"
        # only of what lies between the first and the last such row the other columns are read
        return f"(SELECT * FROM {table} WHERE rowid IN (SELECT t.rowid {rows}))"

    def apart(self, table: str, where: str) -> bool:
        with self._lock:
            placed = _placed(self._connection, table)
        if not placed:
            return False
        [(many, span)] = self.rows(f"SELECT count(*), max(t.rowid) - min(t.rowid) FROM {table} AS t WHERE {where}")
        return bool(many) and int(span) // ROW_GROUP > 1 + 4 * int(many) // ROW_GROUP

    def tables(self) -> list[str]:
        found = self.rows(
            "SELECT schema_name || '.' || table_name AS name FROM duckdb_tables() WHERE NOT internal AND NOT temporary "
            "AND database_name = current_database() UNION ALL "
            "SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE NOT internal AND NOT temporary "
            "AND database_name = current_database() ORDER BY 1"
        )
        return [name for (name,) in found]

    def depended_on(self, view: str) -> bool:
        return False

    def register(self, name: str, table: pa.Table) -> None:
        with self._lock:
            self._connection.register(name, table)

    def unregister(self, name: str) -> None:
        with self._lock:
            self._connection.unregister(name)

    def identity(self) -> str:
        return str(self.rows(self.identity_sql)[0][0])

    @contextlib.contextmanager
    def parted(self) -> Iterator[None]:
        if self._again is None:
            yield
            return
        with self._lock:
            self.close()
            try:
                yield
            finally:
                self._connection = self._again()
                self._prepare()

    def put_off(self, grown: str) -> None:
        groups = f"pragma_storage_info({literal(grown)}) WHERE column_id = 0 AND segment_type <> 'VALIDITY'"
        [(parts,)] = self.rows(f"SELECT count(DISTINCT row_group_id) FROM {groups}")
        with contextlib.suppress(SqlError):  # DuckDB before 1.5 has no such setting
            self.execute("SET max_vacuum_tasks = 0" if parts < PARTS else "RESET max_vacuum_tasks")

    def close(self) -> None:
        """Write everything into the file and let go of it. Safe to call twice."""
        with self._lock:
            if not self.read_only:
                with contextlib.suppress(duckdb.Error):  # see `bulk`: what is still in the log is written out now
                    self._connection.execute("SET disabled_compression_methods = 'dictionary'")
            if self._giver not in (None, self._connection):
                self._giver.close()
            self._giver = None
            self._connection.close()

    def _send(self, sql: str, params: Sequence[Any] = ()) -> int:
        return self.execute(sql, params)

    def _roll_back(self) -> None:
        with contextlib.suppress(duckdb.Error, SqlError):  # a failed commit has rolled back already
            self.execute("ROLLBACK")
        if self._giver is self._connection:  # our function was taken back too; from now on a cursor holds it
            self._giver = None
            with contextlib.suppress(duckdb.Error):
                self._give(duckdb_values.SORTED_JSON)

    def _give(self, sql: str) -> None:
        """Make our function, if a statement calls it and there is none yet: making one takes DuckDB to import numpy.

        On a cursor of its own, since a transaction that is taken back would take it along, and a connection cannot make it a
        second time. But one that is open already does not see what another makes; there it is the connection's own, and other
        cursors see it once that has ended.
        """
        if self._giver is None and duckdb_values.SORTED_JSON in sql:
            self._giver = self._connection if self._depth else self._connection.cursor()
            self._giver.create_function(
                duckdb_values.SORTED_JSON,
                _sorted_json,
                ["VARCHAR"],
                "VARCHAR",
                type=PythonUDFType.ARROW,
                null_handling=FunctionNullHandling.SPECIAL,  # it makes NULL of what DuckDB alone takes for JSON
            )

    @contextlib.contextmanager
    def _run(self, sql: str, params: Sequence[Any]) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._lock:
            try:
                with _signals_heard():
                    self._give(sql)
                    yield _execute(self._connection, sql, params)
            except duckdb.OutOfMemoryException as e:
                raise NoRoom(one_line(e)) from e
            except duckdb.Error as e:
                raise SqlError(one_line(e)) from e


def _placed(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether `rowid` tells a row's place in a quoted table: it is no view, and has no column of that name."""
    with contextlib.suppress(duckdb.CatalogException):
        return "rowid" not in map(str.lower, connection.table(table).columns)
    return False


def _execute(connection: duckdb.DuckDBPyConnection, sql: str, params: Sequence[Any]) -> duckdb.DuckDBPyConnection:
    text = written(sql, params) if params else sql
    return connection.execute(sql, list(params)) if text is None else connection.execute(text)


@contextlib.contextmanager
def _signals_heard() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM that come while a statement is at work be what they are: DuckDB makes an error of its own of them."""
    try:
        yield
    except RuntimeError as e:
        if isinstance(e.__cause__, KeyboardInterrupt):
            raise e.__cause__ from None
        raise


#: For so many seconds at least a file is waited for that was let go of in the middle of a command.
BACK = 60.0


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is opened, at first and once more. `holder`, `on_wait`: see `oploop.warehouse.open_warehouse`."""

    path: Path
    read_only: bool
    runtime: Runtime
    holder: Callable[[], str | None]
    on_wait: Callable[[str], None]

    def connect(self, wait: float | None) -> duckdb.DuckDBPyConnection:
        """DuckDB's connection with the file, waited for."""
        until = self.runtime.monotonic() + (wait or 0.0)
        told = False
        while True:
            try:
                return duckdb.connect(str(self.path), read_only=self.read_only)
            except duckdb.Error as e:
                reason = one_line(e)
                pid = duckdb_file.holding_process(reason)
                left = until - self.runtime.monotonic()
                if pid is None or left <= 0:
                    raise duckdb_file.explain(self.path, reason, holder=self.holder, waited=wait) from e
                if not told:
                    self.on_wait(
                        f"{self.path} is held by {self.holder() or duckdb_file.describe_process(pid)}, waiting up to {wait:g} s"
                    )
                    told = True
                self.runtime.nap(min(0.2, left))


def open_duckdb(
    path: Path,
    *,
    read_only: bool,
    runtime: Runtime,
    wait: float | None,
    holder: Callable[[], str | None],
    on_wait: Callable[[str], None],
) -> DuckDBWarehouse:
    """See `oploop.warehouse.open_warehouse`."""
    duckdb_file.prepare(path, read_only=read_only)
    file = _File(path, read_only, runtime, holder, on_wait)
    again = partial(file.connect, max(wait or 0.0, BACK))  # somebody may have begun to look at it meanwhile
    return DuckDBWarehouse(file.connect(wait), read_only=read_only, label=str(path), again=again)


def _no_catalog(error: BaseException | None) -> bool:
    """Whether the first of a name's three parts is no database here. DuckDB has no class of its own for that."""
    return isinstance(error, duckdb.BinderException) and str(error).startswith('Binder Error: Catalog "')


def one_line(error: BaseException) -> str:
    """DuckDB's message without the statement that it repeats and without hints over several lines."""
    text = str(error).strip()
    for end in ("\n\nLINE ", "\n\n"):
        text = text.split(end)[0]
    return " ".join(text.split())


def _sorted_json(texts: Any) -> Any:  # DuckDB looks its annotations up, and would want Arrow for that
    """JSON texts with the keys of their objects in order, without blanks; what is no JSON becomes NULL."""
    import pyarrow as pa

    if texts.null_count == len(texts):
        return texts
    return pa.array([_sort_one(text) for text in texts.to_pylist()], pa.string())


def _sort_one(text: str | None) -> str | None:
    try:
        return None if text is None else orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        return None
