"""One app's sandbox in a process of its own, filled with so many records: `python -m bench.apps_serve hubspot 20000`.

Says one line of JSON when it is ready, the app's block for it, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from oploop.apps.registry import sandbox_class

MUCH = 10_000_000  #: a limit that nobody reaches: speed is measured here, not budgets
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    """A stream, its records in the sandbox, and the options without which a limit would be measured."""

    type: str
    stream: str
    kind: str
    record: Callable[[int], dict[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)  #: of the app's block
    sandbox: Mapping[str, Any] = field(default_factory=dict)
    query: str = ""  #: a pattern of what an answer names and the next request repeats, of the server's own making


def _charge(i: int) -> dict[str, Any]:
    at = round(START.timestamp()) - 31_000_000 + i * 1_000
    return {"id": f"ch_{i:08d}", "amount": 100 + i, "currency": "usd", "created": at}


def _ticket(i: int) -> dict[str, Any]:
    at = (START + timedelta(seconds=i)).isoformat().replace("+00:00", "Z")
    return {"id": i + 1, "subject": f"Frage {i}", "status": "open", "created_at": at, "updated_at": at}


def _contact(i: int) -> dict[str, Any]:
    at = (START + timedelta(seconds=i)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    values = {"email": f"k{i}@acme.example", "firstname": f"Kündin {i}", "lastname": "Ünal", "phone": f"+31 {i}"}
    return {"id": str(1000 + i), "createdAt": at, "updatedAt": at, "properties": values}


def _account(i: int) -> dict[str, Any]:
    return {"Name": f"Bäckerei {i}", "Description": "Brot", "Health_Score__c": float(i % 100)}


def _event(i: int) -> dict[str, Any]:
    at = round((START + timedelta(seconds=i * 40)).timestamp() * 1000)
    return {"event": "Signed Up", "time": at, "$insert_id": f"e-{i}", "distinct_id": f"u{i % 7}", "plan": "pro", "n": i}


def _row(i: int) -> dict[str, Any]:
    return {"Account": f"Kundin {i}", "Target": i + 0.5, "Owner": "O'Hara", "Active": i % 2 == 0}


def _user(i: int) -> dict[str, Any]:
    return {"id": f"U{i:09d}", "name": f"u{i}", "email": f"u{i}@acme.example"}


CASES = (
    Case("stripe", "charges", "charges", _charge, {"rate_limit": MUCH}),
    Case("zendesk", "tickets", "tickets", _ticket, {"rate_limit": MUCH}),
    Case("hubspot", "contacts", "contacts", _contact, {"rate_limit": MUCH}),
    Case("salesforce", "Account", "Account", _account, {"bulk_read_from": MUCH}, {"daily": MUCH}, r"01g\w+-\d+"),
    Case(
        "mixpanel", "events", "events", _event,
        {"queries_per_hour": MUCH, "exports_per_second": MUCH}, {"per_hour": MUCH},
    ),
    Case("sheets", "targets", "targets", _row, {"rate_limit": MUCH}, {"per_minute": MUCH}),
    Case("slack", "users", "users", _user, {"reads_per_minute": MUCH}, {"reads_per_minute": MUCH}),
)  # fmt: skip


def main() -> None:
    case = next(c for c in CASES if c.type == sys.argv[1])
    cls = sandbox_class(case.type)
    sandbox = cls(keep_log=False, **case.sandbox)
    sandbox.load(case.kind, [case.record(i) for i in range(int(sys.argv[2]))])
    asyncio.run(_serve(sandbox, case))


async def _serve(sandbox: Any, case: Case) -> None:
    def ready(url: str) -> None:
        sys.stdout.buffer.write(orjson.dumps({**sandbox.default_config(url), **case.options}) + b"\n")
        sys.stdout.flush()

    threading.Thread(target=_await_end, args=(sandbox,), daemon=True).start()
    await sandbox.serve(ready=ready)


def _await_end(sandbox: Any) -> None:
    while os.read(0, 4_096):
        pass
    sandbox.stop()


if __name__ == "__main__":
    main()
