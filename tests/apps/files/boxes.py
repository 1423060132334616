"""Folders of files, as the suite and the tests fill and look at them: local, on S3, behind SFTP."""

from __future__ import annotations

import csv
import io
from typing import Any

import fsspec
import orjson
import pyarrow as pa
from pyarrow import parquet

from oploop.apps.sandbox import Sandbox

FIELDS = {
    "id": "integer", "email": "text", "score": "number", "ok": "boolean", "at": "timestamp", "day": "date", "tags": "list",
    "more": "json",
}  # fmt: skip


class FilesBox(Sandbox):
    """A root that fsspec opens. A kind is a file's name."""

    title = "Files"

    def __init__(self, url: str, options: dict[str, Any] | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.root, self.options = url, options or {}
        self.fs, self.path = fsspec.url_to_fs(url, **self.options)

    def block(self, **more: Any) -> dict[str, Any]:
        return {
            "url": self.root,
            "options": self.options,
            "streams": {
                "people": {"files": "people/*.csv", "key": "id", "columns": {"id": "integer"}},
                "rows": {"files": "rows/**/*.jsonl*"},
                "facts": {"files": "facts/*.parquet"},
            },
            "objects": {
                "csv": {"path": "out/csv/{step}.csv", "fields": FIELDS},
                "jsonl": {"path": "out/jsonl/{ok}/{step}.jsonl.gz", "fields": FIELDS},
                "parquet": {"path": "out/parquet/{sync}/{step}.parquet", "fields": FIELDS, "rows": 500},
            },
            **more,
        }

    def put(self, name: str, data: bytes) -> None:
        self.fs.makedirs(f"{self.path}/{name}".rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(f"{self.path}/{name}", data)

    def get(self, name: str) -> list[dict[str, Any]]:
        """The rows of a file; JSON as it stands there."""
        data = self.fs.cat_file(f"{self.path}/{name}")
        if name.endswith(".parquet"):
            rows: list[dict[str, Any]] = parquet.read_table(io.BytesIO(data)).to_pylist()
            return rows
        if name.endswith(".gz"):
            import gzip

            data = gzip.decompress(data)
        if ".jsonl" in name:
            return [orjson.loads(line) for line in data.splitlines()]
        return list(csv.DictReader(io.StringIO(data.decode())))

    def names(self, under: str = "") -> list[str]:
        """The files' names."""
        self.fs.invalidate_cache()
        return sorted(p.removeprefix(self.path.rstrip("/")).strip("/") for p in self.fs.find(f"{self.path}/{under}"))

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        rows = [{k: v for k, v in r.items() if not k.startswith("_")} for r in records]
        self.put(kind, encoded(kind, rows))

    def dump(self, kind: str) -> list[dict[str, Any]]:
        return [row for name in self.names(kind) for row in self.get(name)]


def encoded(name: str, rows: list[dict[str, Any]]) -> bytes:
    """Rows as a file's bytes."""
    if name.endswith(".jsonl"):
        return b"".join(orjson.dumps(r) + b"\n" for r in rows)
    if name.endswith(".parquet"):
        sink = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(rows), sink)
        return sink.getvalue()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
