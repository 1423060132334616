"""Google Sheets before the suite that every app must pass."""

from __future__ import annotations

from typing import Any

import orjson

from oploop.apps.conformance import AppSuite, ObjectCase, StreamCase
from oploop.apps.sandbox import Sandbox
from oploop.apps.sheets import SheetsApp
from oploop.apps.sheets.sandbox import EMAIL, SheetsSandbox
from oploop.runtime import Runtime

#: A key that is right in form, and nobody's.
NOBODYS = orjson.dumps(
    {"client_email": EMAIL, "private_key": "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----"}
).decode()


def _row(i: int) -> dict[str, Any]:
    return {
        "Account": f"Kündin {i} 🌻",
        "Target": i + 0.5,
        "Owner": None if i % 3 else "it's O'Hara",
        "Active": i % 2 == 0,
    }


def _find(sandbox: Any, key: str) -> int:
    return next(n for n, row in enumerate(sandbox.tab.rows, 1) if row and row[0] == key)


def _change(sandbox: Any, key: str) -> None:
    sandbox.tab.put(_find(sandbox, key), 3, "geändert")


def _delete(sandbox: Any, key: str) -> None:
    del sandbox.tab.rows[_find(sandbox, key) - 1]


class TestSheets(AppSuite):
    app_class = SheetsApp
    wrong_credentials = {"key": NOBODYS}
    streams = [StreamCase("targets", "targets", _row, "GET /v4/.*values", change=_change, delete=_delete)]
    objects = [
        ObjectCase(
            "targets",
            fields=lambda i: {
                "Account": f"Neu {i} 'n' Co",
                "Target": 1.5 * i,
                "Owner": f"=HYPERLINK({i})",
                "Active": True,
            },
            changed=lambda i: {"Target": 7.25, "Owner": None, "Active": False},
            calls="POST /v4/.*values:batchUpdate",
            key=("Account",),
            nothing=(
                '{"spreadsheetId": "s"}',
                '{"spreadsheetId": "s", "totalUpdatedCells": 0, "responses": [], "replies": []}',
            ),
        )
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        return SheetsSandbox(runtime=runtime, per_minute=None)

    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        return {**SheetsSandbox.default_config(sandbox.url), "rate_limit": 100_000}
