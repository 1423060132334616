"""Postgres as a warehouse: a server that many processes may use; statements are translated from DuckDB's dialect."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.abc import Loader
from psycopg.pq import TransactionStatus
from psycopg.types.datetime import DateLoader, TimestampLoader, TimestamptzLoader
from psycopg.types.string import TextLoader

from oploop.errors import FixConfig, OploopError
from oploop.warehouse import postgres_copy, postgres_values
from oploop.warehouse.base import SqlError, quote
from oploop.warehouse.postgres_server import Address, connect, one_line, unreachable
from oploop.warehouse.postgres_sql import FUNCTIONS, Translated, short, translate
from oploop.warehouse.session import Session

#: What every session begins with. Our joins are over whole tables, by equality: hashing is right even where a temporary
#: table's size is guessed wrong, and sorting texts is slower. Compiling thousands of expressions (jit) takes seconds.
SETTINGS = (
    "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1; "
    "SET bytea_output = 'hex'; SET standard_conforming_strings = on; SET client_min_messages = warning; SET jit = off; "
    "SET enable_nestloop = off; SET enable_mergejoin = off; SET work_mem = '64MB'"
)
#: Statements kept translated, for all sessions of the process.
KEPT = 2_000
_translations: OrderedDict[str, Translated] = OrderedDict()
_keeping = threading.Lock()
#: Rows from which on a registered table is analysed.
ANALYSED = 10_000
OLDEST = 16


def _or_text(loader: type[Loader]) -> type[Loader]:
    """A loader that gives the text of what Python has no time for (infinity, the year 12000)."""

    class OrText(loader):  # type: ignore[misc, valid-type]
        def load(self, data: Any) -> Any:
            try:
                return super().load(data)
            except psycopg.DataError:
                return bytes(data).decode()

    return OrText


_TIMES = {
    kind: _or_text(loader)
    for kind, loader in (("date", DateLoader), ("timestamp", TimestampLoader), ("timestamptz", TimestamptzLoader))
}


class Columns(dict[str, str]):
    """A table's columns by name; a name that is too long for Postgres is found under its short form."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(short(name))

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(short(name))

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(short(name), default)


def named(table: str, database: str) -> str:
    """A table's quoted name; the first of three parts may be the database's."""
    parts = [short(p) for p in table.replace('"', "").split(".")]
    return ".".join(quote(p) for p in (parts[1:] if len(parts) == 3 and parts[0] == database else parts))


class PostgresWarehouse(Session[psycopg.Connection[Any]]):
    """A session with a Postgres database. Made by `open_postgres`."""

    dialect = "postgres"
    folds_case = True
    columnar = False
    alone = False
    values = postgres_values

    def __init__(self, connection: psycopg.Connection[Any], address: Address, *, read_only: bool) -> None:
        super().__init__(connection, read_only=read_only, label=address.place)
        self._address = address
        for kind in ("json", "jsonb"):
            connection.adapters.register_loader(kind, TextLoader)
        for kind, loader in _TIMES.items():
            connection.adapters.register_loader(kind, loader)
        connection.execute(SETTINGS)
        if read_only:
            connection.execute("SET default_transaction_read_only = on")

    #: also through a pooler, and under whatever name the server is reached
    identity_sql = (
        "SELECT current_database() || ', of the server that is up since ' || "
        "to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
    )

    def identity(self) -> str:
        with self._lock:
            return str(self._send(self.identity_sql, ()).fetchall()[0][0])

    def session(self) -> psycopg.Connection[Any]:
        """In transactions, with the settings of ours, but that nested loops are allowed."""
        made = psycopg.connect(self._address.conninfo, prepare_threshold=None)
        made.execute("SET timezone = 'UTC'")
        made.execute("SET client_min_messages = warning")
        made.commit()
        return made

    # -- statements --------------------------------------------------------------------------------------------------

    def execute(self, sql: str, params: Sequence[Any] = ()) -> int:
        with self._run(sql, params) as done:
            return done.rowcount

    def query(self, sql: str, params: Sequence[Any] = ()) -> pa.Table:
        with self._run(sql, params) as done:
            described = done.description or []
            return postgres_copy.arrow_of(
                [c.name for c in described], [c.type_code for c in described], done.fetchall()
            )

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._run(sql, params) as done:
            return done.fetchall()

    def stream(self, sql: str, params: Sequence[Any] = (), *, batch_rows: int = 10_000) -> Iterator[pa.RecordBatch]:
        """Over ADBC, which brings rows column by column as COPY gives them."""
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

        with self._lock:
            text = self._translated(sql).sql
        try:
            with dbapi.connect(self._address.conninfo, autocommit=True) as own, own.cursor() as cursor:
                cursor.execute("SET timezone = 'UTC'")
                cursor.execute(text, list(params) or None)
                yield from postgres_copy.slices(iter(cursor.fetch_record_batch()), batch_rows)
        except (Error, OSError) as e:  # once rows are on their way it comes through Arrow
            raise self._broken_off(e) from e

    def _broken_off(self, e: BaseException) -> OploopError:
        """Why a stream ends early: the server refused what it was to make of some row, or it is away."""
        answered = bool(getattr(e, "sqlstate", None)) or "PGRES_FATAL_ERROR" in str(e)
        gone = "FATAL:" in str(e) or "server closed the connection" in str(e)
        return SqlError(one_line(e)) if answered and not gone else unreachable(self._address, e)

    def bulk(self, *, lasting: bool, ordered: bool = True) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    # -- catalog -----------------------------------------------------------------------------------------------------

    def kept_name(self, name: str) -> str:
        return short(name)

    def columns(self, table: str) -> dict[str, str]:
        with self._lock:
            found = self._send(
                "SELECT a.attname, a.t FROM (SELECT attname, attnum, "
                f"{FUNCTIONS}.duckdb_name(format_type(atttypid, atttypmod)) AS t FROM pg_attribute "
                "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped) a ORDER BY a.attnum",
                (named(table, self._address.database),),
            ).fetchall()
        return Columns(found)

    def few(self, table: str, where: str) -> str:
        return f"(SELECT t.* FROM {table} AS t WHERE {where})"

    def apart(self, table: str, where: str) -> bool:
        return False

    def tables(self) -> list[str]:
        with self._lock:
            found = self._send(
                "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') "
                "AND n.nspname NOT LIKE 'pg\\_t%' ORDER BY 1",
                (),
            ).fetchall()
        return [name for (name,) in found]

    def depended_on(self, view: str) -> bool:
        with self._lock:
            found = self._send(
                "SELECT 1 FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid WHERE d.classid = 'pg_rewrite'::regclass "
                "AND d.refobjid = to_regclass($1) AND r.ev_class <> d.refobjid LIMIT 1",
                (named(view, self._address.database),),
            ).fetchall()
        return bool(found)

    def register(self, name: str, table: pa.Table) -> None:
        """As a temporary table, filled by COPY."""
        quoted = quote(short(name))
        made = f"DROP TABLE IF EXISTS pg_temp.{quoted}; {postgres_copy.made(quoted, table.schema)}"
        with self._lock:
            self._temporarily(made, ())
            try:
                postgres_copy.copy_in(self._connection, quoted, table)
            except psycopg.Error as e:
                raise self._refusal(e) from e
            if table.num_rows >= ANALYSED:
                self._temporarily(f"ANALYZE {quoted}", ())

    def unregister(self, name: str) -> None:
        with self._lock:
            if self._connection.info.transaction_status == TransactionStatus.INERROR:
                return  # what the transaction made goes with it
            self._temporarily(f"DROP TABLE IF EXISTS pg_temp.{quote(short(name))}", ())

    def close(self) -> None:
        """Let go of the session. Safe to call twice."""
        with self._lock:
            self._connection.close()

    # -- sending -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _run(self, sql: str, params: Sequence[Any]) -> Iterator[psycopg.Cursor[Any]]:
        with self._lock:
            found = self._translated(sql)
            send = self._temporarily if found.temporary else self._send
            try:
                yield send(found.sql, params)
            except psycopg.Error as e:  # while rows are fetched
                raise self._refusal(e) from e

    def _translated(self, sql: str) -> Translated:
        with _keeping:
            found = _translations.pop(sql, None)
        found = found or translate(sql, lambda table: list(self.columns(table)))
        if found.fixed:
            with _keeping:
                _translations[sql] = found  # the last to be used comes last
                while len(_translations) > KEPT:
                    _translations.popitem(last=False)
        return found

    def _roll_back(self) -> None:
        with contextlib.suppress(psycopg.Error):
            self._connection.rollback()

    def _send(self, sql: str, params: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        cursor = psycopg.RawCursor(self._connection)
        try:
            return cursor.execute(sql, [_kept(p) for p in params] or None, prepare=False)
        except psycopg.Error as e:
            raise self._refusal(e) from e

    def _refusal(self, e: psycopg.Error) -> OploopError:
        """Why a statement has no result: the server is away, or does not take it."""
        if self._connection.closed or self._connection.broken:
            return unreachable(self._address, e)
        return SqlError(one_line(e))

    def _temporarily(self, sql: str, params: Sequence[Any]) -> psycopg.Cursor[Any]:
        """Run what touches temporary tables only, also in a session that may write nothing else."""
        if not self.read_only or self._depth:
            return self._parts(sql, params)
        self._send("BEGIN READ WRITE", ())
        try:
            done = self._parts(sql, params)
            self._send("COMMIT", ())
            return done
        except BaseException:
            self._roll_back()
            raise

    def _parts(self, sql: str, params: Sequence[Any]) -> psycopg.Cursor[Any]:
        """Statements with parameters go one by one, as Postgres takes them."""
        if params and sql.startswith("DROP TABLE IF EXISTS "):
            drop, _, sql = sql.partition("; ")
            self._send(drop, ())
        return self._send(sql, params)


def _kept(value: Any) -> Any:
    """A parameter without U+0000, which no text of Postgres holds."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value


def open_postgres(dsn: str, *, read_only: bool) -> PostgresWarehouse:
    """See `oploop.warehouse.open_warehouse`."""
    address = Address.of(dsn)
    connection = connect(address)
    try:
        if connection.info.server_version < OLDEST * 10_000:
            raise FixConfig(
                f"{address.place} runs Postgres {connection.info.server_version // 10_000}",
                mend=f"a warehouse needs Postgres {OLDEST} or later",
            )
        _ensure_functions(connection, address, read_only=read_only)
        return PostgresWarehouse(connection, address, read_only=read_only)
    except psycopg.Error as e:
        if connection.broken:
            raise unreachable(address, e) from None
        connection.close()
        mend = "see warehouse.dsn in oploop.yml"
        if isinstance(e, psycopg.errors.InsufficientPrivilege):
            mend = f"GRANT CREATE, TEMPORARY ON DATABASE {address.database} TO {address.user}"
        raise FixConfig(f"{address.place}: {one_line(e)}", mend=mend) from None
    except BaseException:
        connection.close()
        raise


def _ensure_functions(connection: psycopg.Connection[Any], address: Address, *, read_only: bool) -> None:
    """Make our functions where they are missing or of another version; the schema's comment tells which it is."""
    import hashlib

    script = resources.files("oploop.warehouse").joinpath("postgres_functions.sql").read_text()
    version = hashlib.blake2b(script.encode(), digest_size=8).hexdigest()
    asked = "SELECT obj_description(to_regnamespace(%s)::oid, 'pg_namespace')"
    if _first(connection, asked, (FUNCTIONS,)) == version:
        return
    if read_only:
        raise FixConfig(f"no warehouse yet at {address.place}", mend="run oploop extract")
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('oploop functions'))")
        if _first(connection, asked, (FUNCTIONS,)) == version:
            return
        connection.execute("SET LOCAL check_function_bodies = off")
        connection.execute(f"DROP SCHEMA IF EXISTS {FUNCTIONS} CASCADE")
        connection.execute(f"CREATE SCHEMA {FUNCTIONS}")
        connection.execute(
            psycopg.sql.SQL(script.replace("{fn}", FUNCTIONS).replace("{", "{{").replace("}", "}}")).format()
        )
        connection.execute(f"COMMENT ON SCHEMA {FUNCTIONS} IS '{version}'")


def _first(connection: psycopg.Connection[Any], sql: Any, params: Sequence[Any]) -> Any:
    row = connection.execute(sql, params).fetchone()
    return row[0] if row else None


open_at = open_postgres  # by these names every server's engine is opened


def session_at(dsn: str) -> psycopg.Connection[Any]:
    """Another session, for the state that stands in the server."""
    return connect(Address.of(dsn))


__all__ = ["Columns", "PostgresWarehouse", "open_at", "open_postgres", "session_at"]
