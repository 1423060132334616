"""A real MariaDB server for the session of each test process, where one is installed; else its tests are skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tests.memory import in_memory
from tests.postgres import free_port

USER, PASSWORD = "oploop_test", "s3cret-Wort"
_TABLES = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
_SETTINGS = (
    "--no-defaults",
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
)


@dataclass(frozen=True)
class MySql:
    """A running server. The superuser comes through its socket; the tests' user with a password through TCP."""

    port: int
    socket: Path

    def dsn(self, database: str, **changed: Any) -> str:
        at = {"user": USER, "password": PASSWORD, "host": "127.0.0.1", "port": self.port} | changed
        return f"mysql://{at['user']}:{at['password']}@{at['host']}:{at['port']}/{database}"

    def admin(self, database: str | None = None) -> pymysql.Connection[Any]:
        return pymysql.connect(unix_socket=str(self.socket), user="root", database=database, autocommit=True)

    def made(self, name: str) -> None:
        """A new database that the tests' user may do anything in."""
        with self.admin() as admin, admin.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
            cursor.execute(f"GRANT ALL ON {name}.* TO '{USER}'@'%'")


@pytest.fixture(scope="session")
def mysql() -> Iterator[MySql]:
    server = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
    if server is None:
        pytest.skip("no MariaDB server is installed (Debian's package mariadb-server-core has one)")
    folder = Path(tempfile.mkdtemp(prefix="oploop-mysql-", dir=in_memory()))
    socket, port = folder / "s", free_port()
    command = [server, *_SETTINGS, f"--datadir={folder / 'data'}", *(["--user=root"] if os.geteuid() == 0 else [])]
    _bootstrap(command, folder / "data")
    command += [f"--socket={socket}", f"--port={port}", f"--pid-file={folder / 'pid'}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            found = MySql(port, socket)
            _wait(found)
            with found.admin() as admin, admin.cursor() as cursor:
                cursor.execute(f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'")
            yield found
        finally:
            process.terminate()
            process.wait(30)
            shutil.rmtree(folder, ignore_errors=True)


def _bootstrap(command: list[str], data: Path) -> None:
    """Make the system tables, as mariadb-install-db does (which wants the client's package too)."""
    data.mkdir()
    shared = next(p for p in map(Path, ("/usr/share/mysql", "/usr/share/mariadb")) if (p / _TABLES[0]).exists())
    sql = "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n"
    sql += "".join((shared / name).read_text() for name in _TABLES)
    subprocess.run([*command, "--bootstrap"], input=sql.encode(), check=True, capture_output=True)


def _wait(server: MySql) -> None:
    for _ in range(300):
        try:
            server.admin().close()
        except pymysql.Error:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("MariaDB did not come up in 30 s")
