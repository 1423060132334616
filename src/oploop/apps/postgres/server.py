"""One database's connections: made as its address says, pooled for writing, and their errors in words with a mend.

The address (`dsn`) holds a password, so no message quotes it, nor what a driver says of a malformed one.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from oploop.apps.sql.engine import Faults
from oploop.apps.transport import Budget, is_loopback
from oploop.errors import FixConfig, OploopError, RetryLater

if TYPE_CHECKING:
    import adbc_driver_manager.dbapi
    import psycopg

CONNECT_SECONDS = 10
LOCK_SECONDS = 60
#: So long a connection that is not used is taken to be there still.
KEPT_SECONDS = 20.0
#: So many of them stay open between reads, idle and in no transaction; more would take the places of others while models are built.
KEPT = 4
#: What every transaction of ours begins with: texts of values do not depend on the server's settings.
SETTINGS = (
    "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; "
    "SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL standard_conforming_strings = on"
)


def parse_dsn(dsn: str) -> dict[str, str]:
    """An address as libpq's parameters; ValueError, without the address in it, when it is none."""
    from psycopg import conninfo

    try:
        found = {k: str(v) for k, v in conninfo.conninfo_to_dict(dsn).items() if v is not None}
    except Exception:
        raise ValueError("dsn is no address of a Postgres database") from None
    if not found:
        raise ValueError("dsn is empty")
    return found


class Server(Faults):
    """Where the database is, and the connections to it. `calls` counts steps sent, reads begun and fetches."""

    budget: Budget | None = None  #: a database of one's own has no quota

    def __init__(self, app: str, dsn: str) -> None:
        self.app = app
        self.calls = 0
        given = parse_dsn(dsn)
        self.host = given.get("host", "localhost")
        self.port = given.get("port", "5432")
        self.user = given.get("user", "")
        self.database = given.get("dbname", self.user)
        params = {
            "connect_timeout": str(CONNECT_SECONDS),
            "application_name": "oploop",
            "keepalives_idle": "30",
        } | given
        if not self.local:
            params.setdefault("sslmode", "require")  # libpq would fall back to plain text without a word
        self._params: Mapping[str, str] = params
        self._idle: list[psycopg.Connection[Any]] = []
        self._kept: list[tuple[adbc_driver_manager.dbapi.Connection, float]] = []
        self._meanwhile: list[threading.Thread] = []

    @property
    def local(self) -> bool:
        """Whether the database is on this machine."""
        return self.host.startswith("/") or is_loopback(self.host)

    @property
    def place(self) -> str:
        """Database and host, as messages name them."""
        return f"{self.database} on {self.host}" + ("" if self.host.startswith("/") else f":{self.port}")

    @property
    def base_url(self) -> str:
        """The address without user and password."""
        return f"postgresql://{'localhost' if self.host.startswith('/') else self.host}:{self.port}/{self.database}"

    # -- connections ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def short(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection for some questions of the catalog, each on its own."""
        import psycopg

        try:
            with psycopg.connect(self._conninfo(), autocommit=True) as connection:
                yield connection
        except psycopg.Error as e:
            raise self.explain(e) from None

    def meanwhile(self, work: Callable[[], None]) -> None:
        """Do in a thread what makes a connection, for who asks for one later and then finds what went wrong himself."""

        def quietly() -> None:
            with contextlib.suppress(Exception):
                work()

        thread = threading.Thread(target=quietly, name="postgres-meanwhile")
        thread.start()
        self._meanwhile = [*(t for t in self._meanwhile if t.is_alive()), thread]

    def _wait(self) -> None:
        """Wait for what is done `meanwhile`; several threads may at once."""
        for thread in self._meanwhile:
            thread.join()

    def connect(self) -> None:
        """Put a connection into the pool, unless one is there: each sync's delivery asks for one."""
        import psycopg

        if not self._idle:
            self._idle.append(psycopg.connect(self._conninfo()))

    def connected(self) -> adbc_driver_manager.dbapi.Connection:
        """A new connection that answers in Arrow."""
        from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

        opened: adbc_driver_manager.dbapi.Connection = dbapi.connect(self._conninfo())
        return opened

    def arrow(self, now: float) -> adbc_driver_manager.dbapi.Connection:
        """A connection that answers in Arrow, in a transaction that sees one moment; drivers raise their own errors (see `explain`).
        One that was kept if that was just before `now` (`Runtime.monotonic`): a new one asks the server for all its types."""
        from adbc_driver_postgresql import dbapi

        self._wait()
        while True:
            try:
                kept, since = self._kept.pop()
            except IndexError:  # also where another read, in a thread of its own, was quicker
                break
            with contextlib.suppress(dbapi.Error):  # it may have broken meanwhile
                if now - since < KEPT_SECONDS:
                    return _begun(kept)
                kept.close()
        return _begun(self.connected())

    def keep(self, connection: adbc_driver_manager.dbapi.Connection, now: float) -> None:
        """Keep a connection of `arrow` whose answers have all been taken, for the next who asks; one that has broken since is closed."""
        from adbc_driver_postgresql import dbapi

        try:
            connection.rollback()
        except dbapi.Error:  # all has been read
            connection.close()
            return
        if len(self._kept) < KEPT:
            self._kept.append((connection, now))
        else:
            connection.close()

    @contextlib.contextmanager
    def session(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection of the pool, within a transaction; one that broke, or is in the middle of something, does not go back."""
        import psycopg
        from psycopg.pq import TransactionStatus

        self._wait()
        connection = self._idle.pop() if self._idle else None
        if connection is None or connection.closed:
            connection = psycopg.connect(self._conninfo())
        try:
            connection.execute(f"{SETTINGS}; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; SET CONSTRAINTS ALL IMMEDIATE")
            yield connection
        finally:
            if connection.info.transaction_status == TransactionStatus.IDLE:
                self._idle.append(connection)
            else:
                connection.close()

    async def aclose(self) -> None:
        """Close all connections; safe to call twice."""
        self.close()

    def close(self) -> None:
        """See `aclose`."""
        self._wait()
        while self._kept:
            self._kept.pop()[0].close()
        while self._idle:
            self._idle.pop().close()

    def _conninfo(self) -> str:
        from psycopg import conninfo

        return conninfo.make_conninfo("", **self._params)

    # -- errors --------------------------------------------------------------------------------------------------------

    def is_database_error(self, e: BaseException) -> bool:
        import psycopg

        return isinstance(e, psycopg.Error)

    def about_rows(self, e: BaseException) -> bool:
        """Bad values, constraints, triggers, policies of row security."""
        code = _code(e)
        if code == "42501":
            return _refuses_rows(e)
        return code[:2] in ("22", "23", "44", "P0") or code in ("21000", "54000", "27000")

    def is_transient(self, e: BaseException) -> bool:
        return _code(e) in TRANSIENT

    def is_broken(self, e: BaseException) -> bool:
        import psycopg

        return isinstance(e, (psycopg.OperationalError, OSError)) and _code(e)[:2] in ("", "08", "57")

    def said(self, e: BaseException) -> str:
        return one_line(e)

    def explain(self, e: BaseException) -> OploopError:
        """A driver's error as ours, named by its remedy; never with the password."""
        said, code = one_line(e), getattr(e, "sqlstate", None)
        if not code:
            return self._unconnected(said)
        if code.startswith("28") or code == "3D000":
            return self._unconnected(said)
        if code == "42501":
            return FixConfig(f"{self.place}: {said}", mend=f"GRANT it to the user {self.user} of {self.app}.dsn")
        if code == "25006":
            return FixConfig(f"{self.place} takes no writes: {said}", mend="let dsn name the primary server")
        if code[:2] in ("08", "53", "57", "58") or code in TRANSIENT:
            return RetryLater(f"{self.place} cannot do it now: {said}")
        return FixConfig(f"{self.place} refused a statement: {said}", mend="was the table changed? run again")

    def _unconnected(self, said: str) -> OploopError:
        """Why there is no connection: which part of the address is wrong, by what libpq and the server say."""
        low = said.lower()
        if "password" in low:
            what = "has no password" if "no password" in low else "is refused: wrong user or password"
            return FixConfig(
                f"dsn: user {self.user!r} {what} ({self.place})", mend=f"check user and password in {self.app}.dsn"
            )
        if f'role "{self.user}' in said or "peer authentication" in low or "ident authentication" in low:
            return FixConfig(
                f"dsn: there is no user {self.user!r} at {self.host}", mend=f"check the user in {self.app}.dsn"
            )
        if f'database "{self.database}' in said and "does not exist" in low:
            return FixConfig(
                f"dsn: there is no database {self.database!r} at {self.host}",
                mend=f"check the database in {self.app}.dsn",
            )
        if "pg_hba.conf" in low:
            return FixConfig(
                f"dsn: the server lets {self.user!r} not in from here: {said}", mend="check pg_hba.conf, sslmode"
            )
        if any(w in low for w in ("resolve", "translate host name", "name or service", "nodename")):
            return FixConfig(f"dsn: there is no host {self.host!r}", mend=f"check the host in {self.app}.dsn")
        if "ssl" in low:
            return FixConfig(f"dsn: no encrypted connection to {self.place}: {said}", mend="set sslmode in the dsn")
        return RetryLater(
            f"cannot reach {self.place}: {said}", mend=f"is it up? are host and port in {self.app}.dsn right?"
        )


def _begun(connection: adbc_driver_manager.dbapi.Connection) -> adbc_driver_manager.dbapi.Connection:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    except BaseException:
        connection.close()
        raise
    return connection


#: Serialization failure, deadlock, lock not to be had in time: nothing was done, and the next try may succeed.
TRANSIENT = frozenset({"40001", "40P01", "55P03", "40003"})


def one_line(e: BaseException) -> str:
    """What a driver said, in one line of at most 300 characters, with the detail where there is one."""
    diag = getattr(e, "diag", None)
    primary = getattr(diag, "message_primary", None)
    if diag is not None and primary:
        text = says(primary, diag.message_detail)
    else:
        text = re.split(r"\n(?:LINE \d|HINT:|Query was:)|\. Query was:", re.sub(r"^[\s\S]*?ERROR: +", "", str(e)))[0]
        text = " ".join(text.split())
    return text if len(text) <= 300 else text[:299] + "…"


def says(message: str, detail: str | None) -> str:
    """A message and its detail as one text of at most 300 characters."""
    text = " ".join((f"{message}: {detail}" if detail else message).split())
    return text if len(text) <= 300 else text[:299] + "…"


#: Where the server says 42501 of a row, and not of what an account may do: policies of row security, triggers that raise it. Its
#: words may be of any language.
ROW_BY_ROW = frozenset({"ExecWithCheckOptions", "exec_stmt_raise"})


def _refuses_rows(e: BaseException) -> bool:
    diag = getattr(e, "diag", None)
    where, words = getattr(diag, "source_function", None), getattr(diag, "message_primary", None) or ""
    return where in ROW_BY_ROW or "row-level security policy" in words


def _code(e: BaseException) -> str:
    return getattr(e, "sqlstate", None) or ""


__all__ = [
    "SETTINGS",
    "TRANSIENT",
    "Server",
    "one_line",
    "parse_dsn",
    "says",
]
