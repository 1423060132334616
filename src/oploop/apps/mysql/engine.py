"""How MySQL and MariaDB connect, describe their tables and type their values.

The driver is PyMySQL: pure Python, well kept, MIT; its executemany makes INSERTs of many rows. The address (`dsn`) holds a
password, so no message quotes it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from oploop.apps.sql.columns import STEPS, Described, Kind, SqlColumn
from oploop.apps.sql.engine import Engine
from oploop.apps.transport import is_loopback
from oploop.errors import FixConfig, OploopError, RetryLater
from oploop.records import Canonical, ColumnType

CONNECT_SECONDS = 10
LOCK_SECONDS = 60

#: Error numbers that lie in what rows hold: NULLs, doubles, foreign keys, ranges, lengths, formats, checks, triggers.
_ROWS = frozenset(
    {1048, 1062, 1169, 1216, 1217, 1264, 1265, 1292, 1364, 1366, 1367, 1406, 1411, 1425, 1441, 1451, 1452, 1526}
    | {1586, 1644, 1690, 1748, 3140, 3141, 3156, 3819, 4025, 1411, 1365}
)
_TRANSIENT = frozenset({1205, 1213, 3572})
_BROKEN = frozenset({2003, 2006, 2013, 2014, 2055, 1053, 1077, 1078, 1079, 1927})
_INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint", "year")
_TEXTS = ("char", "varchar", "tinytext", "text", "mediumtext", "longtext")
_BYTES = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob")
_LONG = "LONGTEXT CHARACTER SET utf8mb4"


@dataclass(frozen=True)
class Address:
    """Where a database is and who asks."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str
    options: Mapping[str, str] = field(default_factory=dict)


def parse_dsn(dsn: str) -> Address:
    """mysql://user:password@host:3306/database?ssl-ca=FILE; ValueError, without the address in it, when it is none."""
    parts = urlsplit(dsn)
    try:
        port = parts.port or 3306
    except ValueError:
        raise ValueError("dsn has a port that is no number") from None
    if parts.scheme not in ("mysql", "mariadb") or not parts.hostname:
        raise ValueError("dsn is no address of a MySQL database: mysql://user:password@host:3306/database")
    database = unquote(parts.path.strip("/"))
    if not database or "/" in database:
        raise ValueError("dsn names no database: mysql://user:password@host:3306/database")
    options = dict(parse_qsl(parts.query))
    unknown = options.keys() - {"ssl-ca", "ssl-mode"}
    if unknown:
        raise ValueError(f"dsn: {min(unknown)!r} is not known; ssl-ca and ssl-mode are")
    if options.get("ssl-mode", "REQUIRED").upper() not in ("DISABLED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"):
        raise ValueError("dsn: ssl-mode is one of DISABLED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Address(parts.hostname, port, user, password, database, options)


class MySqlEngine(Engine):
    """One database of a server."""

    mark = "%s"
    text = "CHAR"
    batch = 10_000
    in_flight = 2
    lock = " FOR UPDATE"
    counted_overlap = 10_000  # numbers are given before the commit

    def __init__(self, app: str, dsn: str) -> None:
        super().__init__(app)
        self._at = parse_dsn(dsn)

    @property
    def place(self) -> str:
        return f"{self._at.database} on {self._at.host}:{self._at.port}"

    @property
    def base_url(self) -> str:
        return f"mysql://{self._at.host}:{self._at.port}/{self._at.database}"

    def connect(self, *, stream: bool = False) -> Any:
        import pymysql
        from pymysql.cursors import Cursor, SSCursor

        connection = pymysql.connect(
            host=self._at.host,
            port=self._at.port,
            user=self._at.user,
            password=self._at.password,
            database=self._at.database,
            charset="utf8mb4",
            connect_timeout=CONNECT_SECONDS,
            autocommit=True,
            cursorclass=SSCursor if stream else Cursor,
            ssl=self._tls(),
        )
        with connection.cursor() as cursor:
            cursor.execute(
                f"SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
                f"innodb_lock_wait_timeout = {LOCK_SECONDS}"
            )
        return connection

    def _tls(self) -> ssl.SSLContext | None:
        """To another machine the connection is encrypted, unless the address says otherwise."""
        options = self._at.options
        default = "VERIFY_CA" if "ssl-ca" in options else "DISABLED" if is_loopback(self._at.host) else "REQUIRED"
        mode = options.get("ssl-mode", default).upper()
        if mode == "DISABLED":
            return None
        context = ssl.create_default_context(cafile=options.get("ssl-ca"))
        context.check_hostname = mode == "VERIFY_IDENTITY"
        if mode == "REQUIRED":
            context.verify_mode = ssl.CERT_NONE
        return context

    def begin(self, connection: Any, *, write: bool) -> None:
        with connection.cursor() as cursor:
            if write:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                cursor.execute("START TRANSACTION")
            else:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def clock(self, connection: Any) -> int:
        return int(self._row(connection, "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)")[0])

    def check(self, connection: Any) -> str:
        version, user, read_only = self._row(connection, "SELECT version(), current_user(), @@global.read_only")
        server = "MariaDB" if "mariadb" in version.lower() else "MySQL"
        said = f"{server} {version.split('-')[0]}, {self.place} as {user.split('@')[0]}"
        return said + (", a replica: it can only be read" if str(read_only) not in ("0", "OFF") else "")

    def _row(self, connection: Any, sql: str) -> tuple[Any, ...]:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return tuple(cursor.fetchone())

    # -- catalogue -----------------------------------------------------------------------------------------------------

    def names(self, connection: Any) -> Mapping[str, bool]:
        rows = self._rows(
            connection,
            "SELECT table_name, table_type = 'BASE TABLE' FROM information_schema.tables WHERE table_schema = DATABASE() "
            "AND table_type IN ('BASE TABLE', 'VIEW') ORDER BY table_name",
        )
        return {name: bool(real) for name, real in rows if name != STEPS}

    def _rows(self, connection: Any, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall())

    def describe(self, connection: Any, name: str, asked: Collection[str]) -> Described[SqlColumn] | None:
        head = self._rows(
            connection,
            "SELECT table_type, engine, table_comment FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND table_name = %s",
            name,
        )
        if not head:
            return None
        [(kind, storage, comment)] = head
        rows = self._rows(
            connection,
            "SELECT column_name, data_type, column_type, is_nullable, column_default, extra, character_maximum_length, "
            "numeric_precision, numeric_scale, collation_name, column_comment "
            "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s ORDER BY ordinal_position",
            name,
        )
        unique = self._unique(connection, name)
        columns = [_column(r) for r in rows]
        why = "it is a view" if kind != "BASE TABLE" else None
        if why is None and storage != "InnoDB":
            why = f"its engine {storage} has no transactions"
        primary = unique.get("PRIMARY", ())
        return Described(columns, list(dict.fromkeys(unique.values())), primary, why, comment if why is None else "")

    def _unique(self, connection: Any, name: str) -> dict[str, tuple[str, ...]]:
        """The unique indexes over whole columns, the primary key first."""
        rows = self._rows(
            connection,
            "SELECT index_name, column_name, sub_part FROM information_schema.statistics WHERE table_schema = DATABASE() "
            "AND table_name = %s AND non_unique = 0 ORDER BY index_name <> 'PRIMARY', index_name, seq_in_index",
            name,
        )
        found: dict[str, tuple[str, ...]] = {}
        for index, column, _ in rows:
            found[index] = (*found.get(index, ()), column)
        partly = {index for index, column, part in rows if part is not None or column is None}
        return {index: columns for index, columns in found.items() if index not in partly}

    def quote(self, name: str) -> str:
        return "`" + name.replace("`", "``").replace("%", "%%") + "`"

    # -- statements where they differ ----------------------------------------------------------------------------------

    def make_stage(self, columns: Sequence[tuple[str, SqlColumn | str]]) -> str:
        """A key has the type of its column, so that its index serves; a value is text until it is written."""
        kinds = [f"{n} {c if isinstance(c, str) else c.type} NULL" for n, c in columns]
        return f"CREATE TEMPORARY TABLE {self.stage} ({', '.join(kinds)})"

    def drop_stage(self) -> str:
        return f"DROP TEMPORARY TABLE IF EXISTS {self.stage}"

    def update(self, table: str, sets: Sequence[tuple[str, str]], same: str, rows: str) -> str:
        assigned = ", ".join(f"t.{name} = {value}" for name, value in sets)
        return f"UPDATE {table} AS t JOIN {self.stage} AS s ON {same} SET {assigned} WHERE {rows}"

    def remove(self, table: str, find: Sequence[str], same: str, rows: str) -> str:
        return f"DELETE t FROM {table} AS t JOIN {self.stage} AS s ON {same} WHERE {rows}"

    def make_steps(self) -> str:
        return (
            f"CREATE TABLE IF NOT EXISTS {self.steps} (step_id VARCHAR(64) CHARACTER SET ascii NOT NULL, first BIGINT NOT NULL, "
            "last BIGINT NOT NULL, at BIGINT NOT NULL, refused LONGTEXT CHARACTER SET utf8mb4, "
            "PRIMARY KEY (step_id, first, last)) ENGINE = InnoDB"
        )

    # -- errors --------------------------------------------------------------------------------------------------------

    def is_database_error(self, e: BaseException) -> bool:
        import pymysql

        return isinstance(e, (pymysql.Error, OSError))

    def about_rows(self, e: BaseException) -> bool:
        return _code(e) in _ROWS

    def is_done(self, e: BaseException) -> bool:
        return _code(e) == 1062

    def is_transient(self, e: BaseException) -> bool:
        return _code(e) in _TRANSIENT

    def is_broken(self, e: BaseException) -> bool:
        import pymysql

        return (
            isinstance(e, OSError) or _code(e) in _BROKEN or (isinstance(e, pymysql.InterfaceError) and _code(e) == 0)
        )

    def explain(self, e: BaseException) -> OploopError:
        said, code, at = self.said(e), _code(e), self._at
        if code in (1045, 1698, 1251, 2059):
            return FixConfig(
                f"dsn: user {at.user!r} is refused: wrong user or password ({self.place})",
                mend=f"check user and password in {self.app}.dsn",
            )
        if code in (1049, 1044):
            return FixConfig(
                f"dsn: there is no database {at.database!r} at {at.host} for {at.user!r}",
                mend=f"check the database in {self.app}.dsn",
            )
        if code in (1142, 1143, 1370, 1227):
            return FixConfig(f"{self.place}: {said}", mend=f"GRANT it to the user {at.user} of {self.app}.dsn")
        if code in (1290, 1792, 1836):
            return FixConfig(f"{self.place} takes no writes: {said}", mend="let dsn name the primary server")
        if code == 2003 and re.search(r"getaddrinfo|Name or service|nodename", said):
            return FixConfig(f"dsn: there is no host {at.host!r}", mend=f"check the host in {self.app}.dsn")
        if code in (1040, 1129, 1203, *_TRANSIENT, *_BROKEN) or isinstance(e, OSError):
            return RetryLater(
                f"cannot reach {self.place}: {said}", mend=f"is it up? are host and port in {self.app}.dsn right?"
            )
        return FixConfig(f"{self.place} refused a statement: {said}", mend="was the table changed? run again")


def _code(e: BaseException) -> int:
    return e.args[0] if e.args and isinstance(e.args[0], int) else 0


def _column(row: Sequence[Any]) -> SqlColumn:
    name, kind, whole, nullable, default, extra, length, precision, scale, collation, comment = row
    of = kind_of(kind, whole, length, precision, scale, collation)
    typed = f"{whole} CHARACTER SET {collation.split('_')[0]} COLLATE {collation}" if collation else whole
    extra = (extra or "").lower()
    return SqlColumn(
        name,
        of,
        typed,
        required=nullable == "NO",
        filled="auto_increment" in extra or (default is not None and str(default).upper() != "NULL"),
        made="generated" in extra.replace("default_generated", ""),
        comment=comment or "",
    )


def kind_of(
    kind: str, whole: str, length: int | None, precision: int | None, scale: int | None, collation: str | None
) -> Kind:
    """How values of a column travel; `%%` as statements go through the driver's own formatting."""
    if whole.startswith("tinyint(1)"):
        return Kind(ColumnType.BOOLEAN, stage="TINYINT")
    if kind in _INTEGERS:
        return Kind(ColumnType.INTEGER, stage=_LONG)
    if kind in ("float", "double"):
        return Kind(ColumnType.NUMBER, stage=_LONG)
    if kind == "decimal":
        return _decimal(precision or 10, scale or 0)
    if kind in ("datetime", "timestamp"):
        return Kind(ColumnType.TIMESTAMP, "DATE_FORMAT({}, '%%Y-%%m-%%dT%%H:%%i:%%s.%%fZ')", stage=_LONG)
    if kind == "date":
        return Kind(ColumnType.DATE, "DATE_FORMAT({}, '%%Y-%%m-%%d')", stage=_LONG)
    if kind == "json":
        return Kind(ColumnType.JSON, "CAST({} AS CHAR)", stage=_LONG)
    if kind == "bit":
        return Kind(ColumnType.INTEGER, "CAST({} AS UNSIGNED)", "CAST({} AS UNSIGNED)", stage=_LONG)
    if kind in _BYTES:
        return Kind(ColumnType.TEXT, r"REPLACE(TO_BASE64({}), '\n', '')", "FROM_BASE64({})", stage=_LONG)
    if kind == "enum":
        values = tuple(v.replace("''", "'") for v in re.findall(r"'((?:[^']|'')*)'", whole))
        return Kind(ColumnType.TEXT, stage=_LONG, enum=values)
    alike = Canonical.LOWER if collation and collation.endswith("_ci") else Canonical.EXACT
    if kind in _TEXTS:
        limit = length if kind in ("char", "varchar") else None
        return Kind(ColumnType.TEXT, stage=_LONG, canonical=alike, max_length=limit)
    return Kind(ColumnType.TEXT, "CAST({} AS CHAR)", stage=_LONG)


def _decimal(precision: int, scale: int) -> Kind:
    """A number where a number is exact, else text."""
    if scale == 0 and precision <= 18:
        return Kind(ColumnType.INTEGER, "CAST({} AS SIGNED)", stage=_LONG)
    if precision <= 15:
        return Kind(ColumnType.NUMBER, "({} + 0e0)", stage=_LONG)
    return Kind(ColumnType.TEXT, "CAST({} AS CHAR)", stage=_LONG, canonical=Canonical.NUMBER)
