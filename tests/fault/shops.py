"""Small projects on the real sandboxes, to be killed in the middle: what is sent, and how it is seen in the app.

Each has a model of people `code`, `name`, whose names move with the version, so that each run has something to do.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import orjson
import psycopg

from oploop.apps.http import HttpSandbox
from oploop.apps.sandbox import Logged, Sandbox
from oploop.apps.segment import SegmentSandbox
from oploop.apps.stripe.sandbox import StripeSandbox
from oploop.apps.zendesk.sandbox import ZendeskSandbox

WRITES = ("POST", "PUT", "PATCH", "DELETE")


def rests(sandbox: Sandbox) -> None:
    """Wait until a sandbox has done all that it got: no connection is open, and no job is at work."""
    loop = sandbox._loop
    assert loop is not None

    async def at_work() -> int:
        await asyncio.sleep(0.005)  # what has come is taken in the meantime
        return len(asyncio.all_tasks()) - len({"the server", "this"})

    for _ in range(3000):
        if asyncio.run_coroutine_threadsafe(at_work(), loop).result(10) == 0:
            return
    raise AssertionError("the sandbox never rests")


@dataclass(frozen=True)
class Shop:
    """A sandbox, the app's block for its address, and one sync."""

    sandbox: Callable[[], Sandbox]
    block: Callable[[str], dict[str, Any]]
    sync: str
    rows: int
    held: Callable[[Sandbox], dict[str, Any]]  #: what the app holds: name by code; who has several fails there
    made: Callable[[Sandbox], Counter[str]]  #: how often each code was made, by the app's own log or its records
    env: Mapping[str, str] = field(default_factory=dict)
    moves: bool = True  #: names are updated
    after_death: Callable[[Any], None] = lambda sandbox: None  #: waits until the app has done what it got
    rests: Callable[[Any], None] = rests  #: waits until the app has nothing to do
    at_once: bool = False  #: all goes in a step or two, which are seen when they are done
    leaves: bool = False  #: records of rows that leave are taken away
    is_question: Callable[[Logged], bool] = lambda e: False  #: whether a POST changes nothing
    may_stay_unknown: bool = False  #: nothing but a person can tell what became of a lost create


def names(records: list[dict[str, Any]], code: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """name by code; two records with one code are a wrong of their own."""
    times = Counter(code(r) for r in records if code(r))
    assert set(times.values()) <= {1}, f"made twice: {[c for c, n in times.items() if n > 1]}"
    return {code(r): r["name"] for r in records if code(r)}


def zendesk(url: str) -> dict[str, Any]:
    return {"subdomain": "sandbox", "email": "ops@acme.example", "api_token": "${ZD}", "base_url": url}


def _zendesk(kind: str, label: str) -> Callable[[Sandbox], dict[str, Any]]:
    def held(sandbox: Sandbox) -> dict[str, Any]:
        live = [r for r in sandbox.dump(kind) if r.get("status") != "deleted" and r.get("active", True)]
        return names([{**r, "name": r[label]} for r in live], lambda r: r["external_id"])

    return held


def _by_records(kind: str) -> Callable[[Sandbox], Counter[str]]:
    return lambda sandbox: Counter(r["external_id"] for r in sandbox.dump(kind) if r["external_id"])


def stripe_made(sandbox: Sandbox) -> Counter[str]:
    """Customers by the log: answers that were saved under an idempotency key make nothing."""
    ids = {}
    for e in sandbox.log:
        if e.method == "POST" and e.path == "/v1/customers" and e.status == 200:
            [made] = re.findall(rb'"id": ?"(cus_[^"]+)"', e.answer[:60])  # it may have been cut off
            ids[made] = parse_qs(e.body.decode())["metadata[code]"][0]
    return Counter(ids.values())


def stripe_held(sandbox: Sandbox) -> dict[str, Any]:
    live = [c for c in sandbox.dump("customers") if not c.get("deleted")]
    return names(live, lambda c: c["metadata"].get("code"))


def segment_held(sandbox: Sandbox) -> dict[str, Any]:
    return names([e["properties"] for e in sandbox.dump("track")], lambda p: p["code"])


def http_block(url: str, replay: str | None) -> dict[str, Any]:
    block = orjson.loads(orjson.dumps(HttpSandbox.default_config(url)))
    block |= {"type": "http", "auth": {"bearer": "${HTTP}"}}
    if replay is not None:
        block["objects"]["accounts"]["create"] = {"path": "/accounts", "replay": replay}
    made: dict[str, Any] = block
    return made


def http_made(sandbox: Sandbox) -> Counter[str]:
    """Who was asked to be made, by calls that were not told to be the same by a key."""
    calls = {
        (e.headers.get("Idempotency-Key", n), json.loads(e.body)["email"])
        for n, e in enumerate(sandbox.log)
        if e.method == "POST" and e.path == "/accounts" and _reached(e)
    }
    return Counter(email for _, email in calls)


def _reached(e: Logged) -> bool:
    return e.status in (200, 201)


def http_held(sandbox: Sandbox) -> dict[str, Any]:
    return names(sandbox.dump("accounts"), lambda a: a["email"])


def _sync(to: str, mode: str, key: str, fields: str, more: str = "") -> str:
    limits = "{changes: 1000, removes: 1000, held: 1000, rows: 100%}"
    return (
        f"model: mart.people\nto: {to}\nmode: {mode}\nkey: {{{key}: code}}\nfields: {fields}\nlimits: {limits}\n{more}"
    )


ZD, STRIPE, SEGMENT, HTTP = (
    {"ZD": "zd_test_oploop"},
    {"STRIPE": "sk_test_oploop"},
    {"SEGMENT": "wk_test_oploop"},
    {"HTTP": "http_test_oploop"},
)

SHOPS: dict[str, Shop] = {
    "zendesk users": Shop(
        lambda: ZendeskSandbox(rate_limit=None, export_limit=None, job_seconds=0.02),
        zendesk,
        _sync("app.users", "upsert", "external_id", "{name: name}"),
        240,
        _zendesk("users", "name"),
        _by_records("users"),
        ZD,
    ),
    "zendesk tickets": Shop(
        lambda: ZendeskSandbox(rate_limit=None, export_limit=None, job_seconds=0.02),
        zendesk,
        _sync("app.tickets", "upsert", "external_id", "{subject: name, description: {column: name, only: create}}"),
        240,
        _zendesk("tickets", "subject"),
        _by_records("tickets"),
        ZD,
    ),
    "zendesk tickets at most once": Shop(
        lambda: ZendeskSandbox(rate_limit=None, export_limit=None, job_seconds=0.02),
        zendesk,
        _sync("app.tickets", "create", "external_id", "{subject: code, description: code}", "at_most_once: true\n"),
        240,
        _zendesk("tickets", "subject"),
        _by_records("tickets"),
        ZD,
        moves=False,
        may_stay_unknown=True,
    ),
    "stripe": Shop(
        StripeSandbox,
        lambda url: {"api_key": "${STRIPE}", "base_url": url, "rate_limit": 400},
        _sync("app.customers", "mirror", "metadata.code", "{name: name}"),
        16,
        stripe_held,
        stripe_made,
        STRIPE,
        leaves=True,
    ),
    "segment": Shop(
        SegmentSandbox,
        lambda url: {"write_key": "${SEGMENT}", "base_url": url},
        _sync("app.track", "append", "properties.code", "{event: {value: Made}, userId: code, properties.name: code}"),
        1500,
        segment_held,
        lambda sandbox: Counter(e["properties"]["code"] for e in sandbox.dump("track")),
        SEGMENT,
        moves=False,
        is_question=lambda e: not orjson.loads(e.body).get("batch"),
        may_stay_unknown=True,
    ),
    "http": Shop(
        HttpSandbox,
        lambda url: http_block(url, None),
        _sync("app.accounts", "mirror", "email", "{name: name}"),
        40,
        http_held,
        http_made,
        HTTP,
        leaves=True,
    ),
    "http never": Shop(
        HttpSandbox,
        lambda url: http_block(url, "never"),
        _sync("app.accounts", "upsert", "email", "{name: name}"),
        40,
        http_held,
        http_made,
        HTTP,
        may_stay_unknown=True,
    ),
}


def blind_block(url: str) -> dict[str, Any]:
    """Accounts that are made under an idempotency key, and that cannot be read."""
    block = http_block(url, None)
    del block["streams"]
    fields = {"email": {"key": True, "required": True, "nullable": False}, "name": "text"}
    create = {"path": "/accounts", "idempotency": "Idempotency-Key"}
    block["objects"] = {"accounts": {"fields": fields, "create": create}}
    return block


#: What is made is known by a key alone.
BY_KEY = replace(
    SHOPS["http"],
    block=blind_block,
    sync=_sync("app.accounts", "create", "email", "{name: code}"),
    rows=20,
    moves=False,
    leaves=False,
)
KINDS = {"postgres": "postgres", "zendesk": "zendesk", "stripe": "stripe", "segment": "segment", "http": "http"}


def write_project(shop: Shop, kind: str, folder: Path, url: str, warehouse: Mapping[str, str]) -> None:
    """The project's files."""
    block = {"type": KINDS[kind.split(" ")[0]], **shop.block(url)}
    config = {
        "name": "shop",
        "warehouse": warehouse,
        "models": {"engine": "none"},
        "apps": {"app": block},
    }
    (folder / "oploop.yml").write_bytes(orjson.dumps(config))
    (folder / "syncs").mkdir()
    (folder / "syncs" / "people.yml").write_text(shop.sync)


# -- a table of a Postgres ---------------------------------------------------------------------------------------------

TABLE = """
CREATE TABLE people (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text, name text);
CREATE TABLE journal (n bigint GENERATED ALWAYS AS IDENTITY, op text, code text);
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
  $$ BEGIN INSERT INTO journal (op, code) VALUES (TG_OP, COALESCE(NEW.code, OLD.code)); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON people FOR EACH ROW EXECUTE FUNCTION noted();
"""


@dataclass
class Row:
    """A row that was written, as the table's trigger noted it."""

    method: str
    code: str


class Table:
    """A table in the place of a sandbox, without anything that would forbid a row to stand there twice."""

    def __init__(self, dsn: str) -> None:
        self.dsn, self.faults = dsn, list[Any]()
        self._db = psycopg.connect(dsn, autocommit=True)
        self._db.execute(TABLE)

    @property
    def log(self) -> list[Row]:
        rows = self._db.execute("SELECT op, code FROM journal ORDER BY n").fetchall()
        return [Row({"INSERT": "POST", "UPDATE": "PUT"}.get(op, "DELETE"), code) for op, code in rows]

    def advance(self, seconds: float) -> None:
        """Its clock is of no account: it commits a step's id with the data."""

    def wait_until_alone(self) -> None:
        """Until the server has ended what a dead client sent: a read that began before it would not show it."""
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        for _ in range(3000):
            if self._db.execute(others).fetchone() == (0,):
                return
            time.sleep(0.01)
        raise AssertionError("the server never ends what a dead client sent")

    def dump(self) -> list[dict[str, Any]]:
        rows = self._db.execute("SELECT code, name FROM people").fetchall()
        return [{"code": code, "name": name} for code, name in rows]

    def close(self) -> None:
        self._db.close()


def table_shop(dsn: str) -> Shop:
    """A table to which each row of the model is added once."""
    return Shop(
        lambda: Table(dsn),  # type: ignore[arg-type,return-value]
        lambda url: {"type": "postgres", "dsn": "${DSN}"},
        _sync("app.public.people", "append", "code", "{name: code}"),
        400,
        lambda table: names(table.dump(), lambda r: r["code"]),  # type: ignore[call-arg]
        lambda table: Counter(e.code for e in table.log if e.method == "POST"),  # type: ignore[attr-defined]
        {"DSN": dsn},
        moves=False,
        after_death=Table.wait_until_alone,
        rests=Table.wait_until_alone,
        at_once=True,
    )
