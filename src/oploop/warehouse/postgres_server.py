"""A Postgres server's address and the connection to it, with errors in words. No message quotes the address: it holds a password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import conninfo

from oploop.errors import FixConfig, OploopError, RetryLater

CONNECT_SECONDS = 10
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, and as whom. `conninfo` has the password."""

    host: str
    port: str
    user: str
    database: str
    conninfo: str = field(repr=False)

    @classmethod
    def of(cls, dsn: str) -> Address:
        try:
            given: Mapping[str, Any] = conninfo.conninfo_to_dict(dsn)
        except psycopg.Error:
            given = {}
        if not given:
            raise FixConfig(
                "warehouse.dsn is no address of a Postgres database", mend="postgres://USER:PASSWORD@HOST/DB"
            )
        params: dict[str, Any] = {
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "oploop",
            "keepalives_idle": 30,
        } | dict(given)
        host, user = str(given.get("host", "localhost")), str(given.get("user", ""))
        if not host.startswith("/") and host not in LOOPBACK:
            params.setdefault("sslmode", "require")  # libpq would fall back to plain text without a word
        return cls(
            host,
            str(given.get("port", "5432")),
            user,
            str(given.get("dbname", user)),
            conninfo.make_conninfo("", **params),
        )

    @property
    def place(self) -> str:
        """Database and host, as messages name them."""
        return f"{self.database} on {self.host}" + ("" if self.host.startswith("/") else f":{self.port}")


def connect(address: Address) -> psycopg.Connection[Any]:
    """A session; errors with a mend."""
    try:
        return psycopg.connect(address.conninfo, autocommit=True, prepare_threshold=None)
    except psycopg.Error as e:
        raise unreachable(address, e) from None


def unreachable(address: Address, error: BaseException) -> OploopError:
    """Why there is no session: which part of the address is wrong, by what libpq and the server say."""
    said = one_line(error)
    low = said.lower()
    if "password" in low or "authentication" in low or f'role "{address.user.lower()}' in low:
        return FixConfig(
            f"{address.place} refuses user {address.user!r}", mend="check user and password in warehouse.dsn"
        )
    if f'database "{address.database.lower()}' in low and "does not exist" in low:
        return FixConfig(
            f"there is no database {address.database!r} at {address.host}", mend="make it, or check warehouse.dsn"
        )
    if "pg_hba.conf" in low or "ssl" in low:
        return FixConfig(
            f"{address.place} lets nobody in from here: {said}", mend="check pg_hba.conf, and sslmode in warehouse.dsn"
        )
    if any(w in low for w in ("resolve", "translate host name", "name or service", "nodename")):
        return FixConfig(f"there is no host {address.host!r}", mend="check the host in warehouse.dsn")
    return RetryLater(f"cannot reach the warehouse {address.place}: {said}", mend="is it up? check warehouse.dsn")


def one_line(error: BaseException) -> str:
    """What a driver said, in one line of at most 300 characters, without the statement."""
    diag = getattr(error, "diag", None)
    text = getattr(diag, "message_primary", None)
    if text and diag is not None and diag.message_detail:
        text = f"{text}: {diag.message_detail}"
    if not text:
        text = re.split(r"\n(?:LINE \d|HINT:|Query was:)", re.sub(r"^[\s\S]*?ERROR: +", "", str(error)))[0]
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:299] + "…"
