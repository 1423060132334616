"""The log files that Segment leaves in storage: finding them, and their lines sorted by call type.

Layout (segment.com/docs/connections/storage/catalog/aws-s3, "Data format"):

    segment-logs/{source-id}/{received-day}/filename.gz     gzip, one JSON event a line

`received-day` is the UTC day in milliseconds since 1970. Any fsspec filesystem holds them. Everything here blocks;
the reader calls it from threads.
"""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, BinaryIO

import orjson

from oploop.apps.segment.streams import STREAMS
from oploop.apps.storage import Store, fingerprint, stamps
from oploop.errors import OploopError, RetryLater

SUFFIXES = (".gz", ".json", ".jsonl", ".ndjson")
WHOLE_UP_TO = 8 * 2**20  #: files up to this size are fetched in one call
PIECE_BYTES = 8 * 2**20  #: unpacked bytes that are sorted at a time
MAX_LINE = 16 * 2**20  #: no event is near this long (32 KB is the limit): beyond it, it is no line-JSON
_BLOCK = 256 * 1024
_GZIP = b"\x1f\x8b"
_TOKENS = tuple((kind, b'"type":"%s"' % kind.encode()) for kind in STREAMS)

#: An event that is not parsed yet, or one that had to be parsed to be sorted.
Line = bytes | dict[str, Any]


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log file as listed. `folder` and `name` are relative to the root; `mark` changes when the file does.

    `modified` and `day` (its folder's, when that is a date) are seconds since 1970.
    """

    path: str
    folder: str
    name: str
    size: int
    mark: str
    modified: float | None = None
    day: int | None = None

    @property
    def source(self) -> str:
        """The folder above the day's: Segment's source id."""
        return self.folder.rpartition("/")[0]

    @property
    def shown(self) -> str:
        return f"{self.folder}/{self.name}" if self.folder else self.name


@dataclass(slots=True)
class Piece:
    """Some lines of a file by call type, with what was wrong between them (reason -> how many)."""

    lines: dict[str, list[Line]] = field(default_factory=lambda: {kind: [] for kind in STREAMS})
    trouble: Counter[str] = field(default_factory=Counter)
    size: int = 0  #: unpacked bytes


NO_JSON = "no JSON"
NOT_AN_EVENT = "no event (an object with type and messageId)"
TORN = "torn"


class Torn(Exception):
    """A gzip file that ends early or is damaged inside."""


class LogStore(Store):
    """The folder of logs: a path, or any URL that fsspec opens (s3://bucket/segment-logs)."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "logs")

    def logs(self) -> list[LogFile]:
        """All log files, oldest day first. FixConfig names `logs` when the folder is not there or closed to us."""
        files = [self._file(path, name, info) for path, name, info in self.found() if _is_log(path)]
        return sorted(files, key=lambda f: (f.day is None, f.day or 0, f.folder, f.name))

    def pieces(self, file: LogFile) -> Iterator[Piece]:
        """The file's lines, some megabytes at a time. FileNotFoundError when it has gone since it was listed."""
        try:
            fs = self.open()
            if file.size <= WHOLE_UP_TO:
                with io.BytesIO(fs.cat_file(file.path)) as source:
                    yield from split(source)
            else:
                with fs.open(file.path, "rb", block_size=WHOLE_UP_TO) as source:
                    yield from split(source)
        except (FileNotFoundError, OploopError):
            raise
        except OSError as e:
            raise RetryLater(f"cannot read {file.shown} in {self.shown}: {e}", mend="run again later") from e

    def _file(self, path: str, relative: str, info: dict[str, Any]) -> LogFile:
        folder, _, name = relative.rpartition("/")
        size = int(info.get("size") or 0)
        stamp, modified = stamps(info)
        return LogFile(path, folder, name, size, fingerprint(name, size, stamp), modified, day_of(folder))


def _is_log(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.endswith(SUFFIXES) and not name.startswith((".", "_"))


def day_of(folder: str) -> int | None:
    """The start of a day folder's day in seconds since 1970: from milliseconds (Segment), seconds, or 2025-01-31."""
    last = folder.rpartition("/")[2]
    if last.isascii() and last.isdigit() and 9 <= len(last) <= 14:
        seconds = int(last) // 1000 if len(last) >= 12 else int(last)
        return seconds // 86400 * 86400
    try:
        return int(datetime.combine(date.fromisoformat(last), datetime.min.time(), UTC).timestamp())
    except ValueError:
        return None


def split(source: BinaryIO) -> Iterator[Piece]:
    """A log's pieces from its bytes, packed or not. Lines before a tear are kept, and the tear is told."""
    rest, lines, size, torn = b"", list[bytes](), 0, False
    blocks = unpack(source)
    while True:
        try:
            block = next(blocks, None)
        except Torn:
            block, torn = None, True
        if block is None:
            break
        *whole, rest = (rest + block).split(b"\n")
        lines += whole
        size += len(block)
        if len(rest) > MAX_LINE:
            lines.append(b"{")  # counts as a line that is no JSON
            rest = b""
        if size >= PIECE_BYTES:
            yield sort_lines(lines, size)
            lines, size = [], 0
    if rest and not (torn and not _is_json(rest)):
        lines.append(rest)
    piece = sort_lines(lines, size)
    if torn:
        piece.trouble[TORN] += 1
    yield piece


def unpack(source: BinaryIO) -> Iterator[bytes]:
    """Blocks of the unpacked bytes; plain files pass as they are. Raises Torn after the last good block."""
    data = source.read(_BLOCK)
    if not data.startswith(_GZIP):
        while data:
            yield data
            data = source.read(_BLOCK)
        return
    engine = zlib.decompressobj(31)
    while data:
        before = engine.copy()
        try:
            yield engine.decompress(data, MAX_LINE)
        except zlib.error:
            yield _until_the_damage(before, data)
            raise Torn from None
        data = engine.unconsumed_tail or engine.unused_data or source.read(_BLOCK)
        if engine.eof and (data := data.lstrip(b"\0")):  # a further member; zeros are padding
            if not data.startswith(_GZIP[: len(data)]):
                raise Torn
            engine = zlib.decompressobj(31)
    yield engine.flush()
    if not engine.eof:
        raise Torn


def _until_the_damage(engine: Any, data: bytes) -> bytes:
    """What unpacks before the damaged place, found by feeding little at a time."""
    out = []
    for at in range(0, len(data), 256):
        try:
            out.append(engine.decompress(data[at : at + 256]))
        except zlib.error:
            break
    return b"".join(out)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def sort_lines(lines: list[bytes], size: int) -> Piece:
    """Lines by call type. Only a line in which `"type"` stands but once is sorted unparsed: the word may also be a
    property's or a device's."""
    piece = Piece(size=size)
    odd: list[bytes] = []
    buckets = [(token, piece.lines[kind].append) for kind, token in _TOKENS]
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
            _sort_parsed(line, piece)
    return piece


def _sort_parsed(line: bytes, piece: Piece) -> None:
    try:
        event = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        piece.trouble[NO_JSON] += 1
        return
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(kind, str):
        piece.trouble[NOT_AN_EVENT] += 1
    elif kind in piece.lines:
        piece.lines[kind].append(event)


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
