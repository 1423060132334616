"""The log files that Segment leaves in storage: which they are, and their lines sorted by call type.

Layout (segment.com/docs/connections/storage/catalog/aws-s3, "Data format"):

    segment-logs/{source-id}/{received-day}/filename.gz     gzip, one JSON event a line

`received-day` is the UTC day in milliseconds since 1970. Any fsspec filesystem holds them. Everything here blocks;
the reader calls it from threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import orjson

from oploop.apps.jsonlines import pieces
from oploop.apps.notes import TORN
from oploop.apps.segment.streams import STREAMS
from oploop.apps.storage import File, Store

SUFFIXES = (".gz", ".json", ".jsonl", ".ndjson")
MAX_LINE = 16 * 2**20  #: no event is near this long (32 KB is the limit): beyond it, it is no line-JSON
_TOKENS = tuple((kind, b'"type":"%s"' % kind.encode()) for kind in STREAMS)

#: An event that is not parsed yet, or one that had to be parsed to be sorted.
Line = bytes | dict[str, Any]

NO_JSON = "no JSON"
NOT_AN_EVENT = "no event (an object with type and messageId)"


@dataclass(slots=True)
class Sorted:
    """Some lines of a file by call type, with what was wrong between them (reason -> how many)."""

    size: int  #: unpacked bytes
    lines: dict[str, list[Line]] = field(default_factory=lambda: {kind: [] for kind in STREAMS})
    trouble: Counter[str] = field(default_factory=Counter)


def is_log(name: str) -> bool:
    """Whether a file is a log, by its name."""
    last = name.rpartition("/")[2]
    return last.endswith(SUFFIXES) and not last.startswith((".", "_"))


def read_sorted(store: Store, file: File) -> Generator[Sorted]:
    """A file's lines, some megabytes at a time. FileNotFoundError when it has gone since it was listed."""
    with store.opened(file) as source:
        for piece in pieces(source, MAX_LINE):
            found = sort_lines(piece.lines, piece.size)
            if piece.torn:
                found.trouble[TORN] += 1
            yield found


def sort_lines(lines: list[bytes], size: int) -> Sorted:
    """Lines by call type. Only a line in which `"type"` stands but once is sorted unparsed: the word may also be a
    property's or a device's."""
    found = Sorted(size)
    odd: list[bytes] = []
    buckets = [(token, found.lines[kind].append) for kind, token in _TOKENS]
    for line in lines:
        if line.count(b'"type"') == 1:
            for token, append in buckets:
                if token in line:
                    append(line)
                    break
            else:
                odd.append(line)
        else:
            odd.append(line)
    for line in odd:
        if line and not line.isspace():
            _sort_parsed(line, found)
    return found


def _sort_parsed(line: bytes, found: Sorted) -> None:
    try:
        event = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        found.trouble[NO_JSON] += 1
        return
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(kind, str):
        found.trouble[NOT_AN_EVENT] += 1
    elif kind in found.lines:
        found.lines[kind].append(event)


def parse(kind: str, lines: list[Line]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Events of one call type, and what was wrong. The source's write key, a credential, is left out."""
    events: list[dict[str, Any]] = []
    trouble: Counter[str] = Counter()
    for line in lines:
        if type(line) is bytes:
            try:
                event = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
            except orjson.JSONDecodeError:
                trouble[NO_JSON] += 1
                continue
        else:
            event = line
        if type(event) is dict and event.get("type") == kind and type(event.get("messageId")) is str:
            event.pop("writeKey", None)
            events.append(event)
        else:
            trouble[NOT_AN_EVENT] += 1
    return events, trouble
