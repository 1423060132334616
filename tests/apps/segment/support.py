"""What the tests of Segment share: log files made by hand, and reading a stream to its end."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from oploop.apps.segment import SegmentApp
from oploop.records import Batch, Cursor, ReadOptions
from oploop.runtime import Runtime

DAY_MS = 86_400_000
FIRST_DAY = 20_400 * DAY_MS  # 2025-11-08


def event(number: int, kind: str = "track", **fields: Any) -> dict[str, Any]:
    """An event as Segment writes it to its logs."""
    at = f"2025-11-08T10:{number // 60 % 60:02d}:{number % 60:02d}.000Z"
    own = {"event": "Signed In", "properties": {"n": number}} if kind == "track" else {}
    return {
        "messageId": f"m{number}",
        "type": kind,
        "userId": f"u{number}",
        "timestamp": at,
        "receivedAt": at,
        **own,
        **fields,
    }


def packed(events: Sequence[dict[str, Any]]) -> bytes:
    return gzip.compress(b"".join(orjson.dumps(e) + b"\n" for e in events))


def put(root: Path, name: str, events: Sequence[dict[str, Any]], *, day: int = 0, source: str = "src1") -> Path:
    """A log file in Segment's layout; `day` counts from FIRST_DAY."""
    path = root / source / str(FIRST_DAY + day * DAY_MS) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(events))
    return path


@dataclass
class Read:
    """What one read of a stream gave."""

    batches: list[Batch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for b in self.batches for row in b.table.to_pylist()]

    @property
    def ids(self) -> list[str]:
        return sorted(r["messageId"] for r in self.rows)

    @property
    def cursor(self) -> Cursor:
        assert self.batches[-1].cursor is not None
        assert self.batches[-1].complete
        return self.batches[-1].cursor


def app(logs: Path | str | None = None, runtime: Runtime | None = None, **config: Any) -> SegmentApp:
    block = {**({"logs": str(logs)} if logs is not None else {}), **config}
    return SegmentApp("segment", SegmentApp.Config(**block), runtime or Runtime())


async def read(
    logs: Path | str, stream: str = "track", cursor: Cursor | None = None, options: ReadOptions | None = None
) -> Read:
    """Read a stream from a fresh app, as a run does."""
    segment = app(logs)
    found = Read()
    try:
        async for batch in segment.read(stream, cursor, options or ReadOptions()):
            found.batches.append(batch)
        found.notes = segment.notes
    finally:
        await segment.aclose()
    return found
