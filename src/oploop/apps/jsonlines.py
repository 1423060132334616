"""Lines of JSON out of files, packed (gzip, bzip2, xz) or not, some megabytes at a time. What stands before a damaged place is not
lost: it comes, and the damage is told.

    with store.opened(file) as source:
        for piece in pieces(source):
            ...piece.lines, each without its line break
            if piece.torn: ...                      the last piece, of a file that ends early or is damaged inside

How a file is packed is seen by its first bytes, whatever its name. Of lines that an API answers, `values_in_turns` makes columns.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from oploop.apps.jsonvalues import parsed

PIECE_BYTES = 8 * 2**20  #: unpacked bytes of a piece
MAX_BLOCK = 16 * 2**20  #: unpacked bytes that are made at once, however well they are packed
TURN = 200  #: lines that are parsed in one turn
_BLOCK = 256 * 1024
_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ"
#: With the mark of its first block, or of its end: a CSV file may begin with BZh too.
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P)")
#: Takes the place of a line that is longer than any should be: it is no JSON.
TOO_LONG = b"{"


class Torn(Exception):
    """A packed file that ends early or is damaged inside."""


@dataclass(slots=True)
class Piece:
    """Some lines of a file, and how many unpacked bytes they were; `torn`: nothing behind them could be unpacked."""

    lines: list[bytes]
    size: int
    torn: bool = False


def pieces(source: BinaryIO, longest: float = float("inf")) -> Iterator[Piece]:
    """A file's lines from its bytes, at least one piece. Instead of a line of more than `longest` bytes comes TOO_LONG. The last
    line of a torn file is one only if it is JSON."""
    begun, lines, size, torn = list[bytes](), list[bytes](), 0, False  # `begun`: of a line whose end has not come
    long = 0
    blocks = unpack(source)
    while True:
        try:
            block = next(blocks, None)
        except Torn:
            block, torn = None, True
        if block is None:
            break
        end, *more = block.split(b"\n")
        begun.append(end)
        long += len(end)
        if more:
            lines += [b"".join(begun), *more[:-1]]
            begun, long = more[-1:], len(more[-1])
        size += len(block)
        if long > longest:
            lines.append(TOO_LONG)
            begun, long = [], 0
        if size >= PIECE_BYTES:
            yield Piece(lines, size)
            lines, size = [], 0
    rest = b"".join(begun)
    if rest and not (torn and not _is_json(rest)):
        lines.append(rest)
    yield Piece(lines, size, torn)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def values_in_turns(
    lines: Sequence[bytes], names: Iterable[str], make: Callable[[Any], Mapping[str, Any]]
) -> Generator[None, None, dict[str, list[Any]]]:
    """Lines of JSON as the values of each of these fields, in turns (see `paging.meanwhile`, `arrow.columns_in_turns`), of what `make`
    makes of each parsed one. ValueError where a line is no JSON."""
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for start in range(0, len(lines), TURN):
        records = list(map(make, parsed(b"[" + b",".join(lines[start : start + TURN]) + b"]")))
        for name, values in columns.items():
            values += [record[name] for record in records]
        yield
    return columns


def unpack(source: BinaryIO) -> Iterator[bytes]:
    """Blocks of the unpacked bytes; plain files pass as they are. Raises Torn after the last good block."""
    data = source.read(_BLOCK)
    if data.startswith(_GZIP):
        yield from _gunzip(source, data)
    elif data.startswith(_XZ):
        yield from _decompress(source, data, lzma.LZMADecompressor)
    elif _BZIP2.match(data):
        yield from _decompress(source, data, bz2.BZ2Decompressor)
    else:
        while data:
            yield data
            data = source.read(_BLOCK)


def _gunzip(source: BinaryIO, data: bytes) -> Iterator[bytes]:
    engine = zlib.decompressobj(31)
    while data:
        before = engine.copy()
        try:
            yield engine.decompress(data, MAX_BLOCK)
        except zlib.error:
            yield _until_the_damage(before, data)
            raise Torn from None
        data = engine.unconsumed_tail or engine.unused_data or source.read(_BLOCK)
        if engine.eof and (data := _behind(source, data)):
            if not data.startswith(_GZIP[: len(data)]):
                raise Torn
            engine = zlib.decompressobj(31)
    yield engine.flush()
    if not engine.eof:
        raise Torn


def _behind(source: BinaryIO, data: bytes) -> bytes:
    """From what stands behind a member on, the beginning of a further one; zeros are padding, however many. Empty at the file's end."""
    while data and not (rest := data.lstrip(b"\0")):
        data = source.read(_BLOCK)
    return rest if data else b""


def _until_the_damage(engine: Any, data: bytes) -> bytes:
    """What unpacks before the damaged place, found by feeding little at a time."""
    out = []
    for at in range(0, len(data), 256):
        try:
            out.append(engine.decompress(data[at : at + 256]))
        except zlib.error:
            break
    return b"".join(out)


def _decompress(source: BinaryIO, data: bytes, make: Callable[[], Any]) -> Iterator[bytes]:
    engine = make()
    while True:
        try:
            yield engine.decompress(data, MAX_BLOCK)
        except (OSError, lzma.LZMAError):
            raise Torn from None
        data = b""
        if engine.eof:
            data = _behind(source, engine.unused_data or source.read(_BLOCK))
            if not data:
                return
            engine = make()  # a further stream behind the first
        elif engine.needs_input:
            data = source.read(_BLOCK)
            if not data:
                raise Torn


class Unpacked(io.RawIOBase):
    """Blocks of bytes as a file that is read from its beginning to its end."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._held = blocks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, as far as there is anything."""
        filled = 0
        while filled < len(buffer):
            if not self._held:
                block = next(self._blocks, None)
                if block is None:
                    break
                self._held = memoryview(block)
            part = self._held[: len(buffer) - filled]
            buffer[filled : filled + len(part)] = part
            filled, self._held = filled + len(part), self._held[len(part) :]
        return filled


def unpacked(source: BinaryIO) -> BinaryIO:
    """A file's bytes as they were before it was packed; a plain file itself. Reading raises Torn after the last good block."""
    head = source.read(10)
    source.seek(0)
    packed = head.startswith((_GZIP, _XZ)) or _BZIP2.match(head)
    return io.BufferedReader(Unpacked(unpack(source)), _BLOCK) if packed else source


__all__ = ["MAX_BLOCK", "TOO_LONG", "Piece", "Torn", "pieces", "unpack", "unpacked", "values_in_turns"]
