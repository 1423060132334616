"""The HTTP app before the suite that every app must pass."""

from __future__ import annotations

from typing import Any

import pytest

from oploop.apps.conformance import AppSuite, ObjectCase, StreamCase
from oploop.apps.http import HttpApp, HttpSandbox
from oploop.apps.sandbox import Sandbox
from oploop.records import Op
from oploop.runtime import Runtime


def record(i: int) -> dict[str, Any]:
    at = f"2026-01-01T00:{i // 120:02}:00.000+00:00"
    return {"id": 1000 + i, "name": f"Büro {i} 🌻", "email": f"b{i}@acme.example" if i % 4 else None, "updated_at": at}


def change(sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, HttpSandbox)
    sandbox.change(key, {"name": "geändert"})


def delete(sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, HttpSandbox)
    sandbox.change(key, {"deleted": True})


class TestHttp(AppSuite):
    app_class = HttpApp
    streams = [StreamCase("accounts", "accounts", record, "GET /accounts", change=change, delete=delete)]
    objects = [
        ObjectCase(
            "accounts",
            fields=lambda i: {"email": f"new{i}@acme.example", "name": f"Neu {i} 'n' Co 🌻", "tags": ["a", f"t{i}"]},
            changed=lambda i: {"name": f"Anders {i}", "plan": "pro", "tags": []},
            bad={"plan": "gold"},
            calls="POST /accounts",
            key=("email",),
            silent=(Op.CREATE, Op.UPDATE, Op.REMOVE),  # without `ok` the status alone tells
        ),
        ObjectCase(
            "imports",
            fields=lambda i: {"email": f"new{i}@acme.example", "name": f"Neu {i}"},
            bad={"plan": "gold"},
            calls="POST /accounts/batch",
            kind="accounts",
            key=("email",),
            nothing=('{"results": []}', '{"results": [{}, {}]}'),
        ),
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        return HttpSandbox(runtime=runtime)

    def test_a_wrong_token_is_named(self) -> None:
        """Credentials are nested here, so the suite's own test of them does not fit."""
        from oploop.apps.conformance.cases import run
        from oploop.errors import FixConfig

        async def work() -> None:
            async with self.bench(auth={"bearer": "nobodys"}) as bench:
                with pytest.raises(FixConfig, match=r"auth\.bearer") as e:
                    await bench.app.check()
                assert "nobodys" not in str(e.value)

        run(work)


class TestHttpCounted(AppSuite):
    """Pages by their numbers, of a list that is sorted by when its records were changed; more than two pages are of one instant,
    within which there is nothing but the numbers to go by."""

    app_class = HttpApp
    elsewhere = ("accounts", "imports")
    streams = [
        StreamCase(
            "accounts",
            "accounts",
            record,
            "GET /accounts",
            change=change,
            delete=delete,
        )
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        return HttpSandbox(runtime=runtime)

    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        block = HttpSandbox.default_config(sandbox.url)
        since = {**block["streams"]["accounts"]["since"], "sorted": True}
        counted = {"page": "page", "size": 50, "size_param": "per_page"}
        return {**block, "streams": {"accounts": {**block["streams"]["accounts"], "since": since, "paging": counted}}}


class TestHttpOffsets(TestHttpCounted):
    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        block = super().config(sandbox)
        block["streams"]["accounts"]["paging"] = {"offset": "offset", "size": 25, "size_param": "per_page"}
        return block


class TestHttpLinks(TestHttpCounted):
    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        block = super().config(sandbox)
        block["streams"]["accounts"]["paging"] = {"link": "next", "size": 50, "size_param": "per_page"}
        return block
