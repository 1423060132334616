"""The bookshop before the suite."""

from __future__ import annotations

from typing import Any

from oploop_bookshop import BookshopApp
from oploop_bookshop.sandbox import BookshopSandbox

from oploop.apps.conformance import AppSuite, ObjectCase, StreamCase
from oploop.apps.sandbox import Sandbox
from oploop.runtime import Runtime


def change(sandbox: Any, key: int) -> None:
    sandbox.put(key, {"shelf": "cellar"})


def delete(sandbox: Any, key: int) -> None:
    sandbox.put(key, {"deleted": True})


def shelve(sandbox: Any, count: int) -> list[str]:
    sandbox.load("books", [{"id": i + 1} for i in range(count)])
    return [str(i + 1) for i in range(count)]


class TestBookshop(AppSuite):
    app_class = BookshopApp
    wrong_credentials = {"token": "nobodys"}
    streams = [
        StreamCase(
            "books",
            kind="books",
            record=lambda i: {"id": i + 1, "title": f"Büch {i} 📖", "shelf": None},
            calls="GET /books",
            change=change,
            delete=delete,
        )
    ]
    objects = [
        ObjectCase(
            "books",
            fields=lambda i: {"id": i + 1},
            changed=lambda i: {"title": f"it's {i}", "shelf": "front"},
            calls="PUT /books",
            key=("id",),
            existing=shelve,  # books are bought elsewhere
        )
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        return BookshopSandbox(runtime=runtime)
