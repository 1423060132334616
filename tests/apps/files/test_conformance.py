"""Files in a folder before the suite that every app must pass."""

from __future__ import annotations

from functools import partial
from tempfile import mkdtemp
from typing import Any

from oploop.apps.conformance import AppSuite, ObjectCase, StreamCase
from oploop.apps.files import FilesApp
from oploop.apps.sandbox import Sandbox
from oploop.runtime import Runtime
from tests.apps.files.boxes import FilesBox


def person(i: int) -> dict[str, Any]:
    return {"id": i + 1, "email": f"b{i}@acme.example", "note": f'it\'s "{i}", 🌻\n' if i % 3 else None}


def row(name: str, i: int) -> dict[str, Any]:
    return {"_file": name, "_row": i + 1, "note": f"Zeile {i} 🌻" if i % 2 else None, "n": i}


def change(name: str, sandbox: Sandbox, key: Any) -> None:
    assert isinstance(sandbox, FilesBox)
    rows = sandbox.get(name)
    at = key[1] - 1 if isinstance(key, tuple) else key - 1
    rows[at]["note"] = "geändert"
    sandbox.load(name, rows)


def fields(i: int) -> dict[str, Any]:
    return {
        "id": i,
        "email": f"neu{i}@x",
        "score": i / 2,
        "ok": i % 2 == 0,
        "at": None,
        "day": None,
        "tags": ["a", "b'c"],
        "more": {"n": i},
    }


def written(kind: str) -> ObjectCase:
    under = f"out/{kind}"
    key = ("id", "ok") if kind == "jsonl" else ("id",)  # whose files are parted by `ok`
    return ObjectCase(kind, fields=fields, calls=None, kind=under, key=key)


ROWS, FACTS = "rows/2026/a.jsonl", "facts/f.parquet"


class TestFiles(AppSuite):
    app_class = FilesApp
    http = False
    streams = [
        StreamCase("people", "people/p.csv", person, None, change=partial(change, "people/p.csv")),
        StreamCase("rows", ROWS, partial(row, ROWS), None, change=partial(change, ROWS)),
        StreamCase("facts", FACTS, partial(row, FACTS), None, change=partial(change, FACTS)),
    ]
    objects = [written("csv"), written("jsonl"), written("parquet")]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        box = FilesBox(mkdtemp(prefix="oploop-files-"), runtime=runtime)
        for kind in ("csv", "jsonl", "parquet"):
            box.fs.makedirs(f"{box.path}/out/{kind}")
        return box

    def config(self, sandbox: Sandbox) -> dict[str, Any]:
        assert isinstance(sandbox, FilesBox)
        return sandbox.block()
