"""The app for dlt sources before the suite that every app must pass: dlt's own `rest_api` on the sandbox of a JSON API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from oploop.apps.conformance import AppSuite, StreamCase
from oploop.apps.dlt import DltApp
from oploop.apps.http.sandbox import TOKEN, HttpSandbox
from oploop.apps.sandbox import Sandbox
from oploop.runtime import Runtime
from tests.apps.http.test_conformance import change, delete, record


def rest(url: str, token: str = TOKEN) -> dict[str, Any]:
    """The arguments of `rest_api_source`, as they stand in `oploop.yml`: one list read on, one read whole."""
    endpoint = {
        "path": "accounts",
        "data_selector": "data.accounts",
        "params": {"per_page": 50},
        "paginator": {"type": "cursor", "cursor_path": "next_cursor", "cursor_param": "cursor"},
    }
    since = {"cursor_path": "updated_at", "start_param": "updated_since", "initial_value": "2020-01-01T00:00:00Z"}
    return {
        "config": {
            "client": {"base_url": url, "auth": {"type": "bearer", "token": token}},
            "resources": [
                {
                    "name": "accounts",
                    "primary_key": "id",
                    "write_disposition": "merge",
                    "columns": {"id": {"data_type": "bigint"}, "deleted": {"data_type": "bool", "hard_delete": True}},
                    "endpoint": {**endpoint, "incremental": since},
                },
                {
                    "name": "whole",
                    "primary_key": "id",
                    "columns": {"id": {"data_type": "bigint"}},
                    "write_disposition": "replace",
                    "endpoint": endpoint,
                },
            ],
        }
    }


@pytest.fixture(autouse=True)
def _dlt_waits_not(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """dlt's own client tries again by itself; here without waiting."""
    monkeypatch.setenv("RUNTIME__REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("RUNTIME__LOG_LEVEL", "CRITICAL")
    return


class TestDlt(AppSuite):
    app_class = DltApp
    streams = [
        StreamCase("accounts", "accounts", record, "GET /accounts", change=change, delete=delete),
        StreamCase("whole", "accounts", record, "GET /accounts", change=change, delete=delete),
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        return HttpSandbox(runtime=runtime)

    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        return {"source": "dlt.sources.rest_api.rest_api_source", "args": rest(sandbox.url)}
