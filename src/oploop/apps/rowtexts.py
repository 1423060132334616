"""JSON text of many records made column by column, so that a call's body is a slice of one text.

What is sent of ten thousand rows is a dozen columns; an object for each row, and a value for each field of it, would take
most of the time of a delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from oploop.apps.jsonvalues import plain

if TYPE_CHECKING:
    import pyarrow as pa

#: What a text may not hold to stand between quotes as it is.
_ODD = '[\\x00-\\x1f"\\\\]'


class Member(NamedTuple):
    """A member of each row's object: its name, its values, and of which rows it is a member (None: of all).

    `as_json`: the values are JSON text already.
    """

    name: str
    values: pa.Array
    sent: pa.Array | None = None
    as_json: bool = False


class Rows:
    """JSON objects, one a row; `text(start, stop)` is a list of some of them."""

    def __init__(self, texts: pa.Array) -> None:
        """`texts`: each row's object, and a comma behind it."""
        _, offsets, data = texts.buffers()
        self._at = memoryview(offsets).cast("i")[texts.offset : texts.offset + len(texts) + 1]
        self._data = memoryview(data)

    def text(self, start: int, stop: int) -> bytes:
        """The JSON text of a list of the rows from `start` to before `stop`."""
        if start == stop:
            return b"[]"
        return b"".join((b"[", self._data[self._at[start] : self._at[stop] - 1], b"]"))


def rows_of(members: Sequence[Member]) -> Rows | None:
    """Objects of these members; None where the first is no member of some rows, so that commas could not be told."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not members or members[0].sent is not None:
        return None
    pieces: list[Any] = []
    for n, member in enumerate(members):
        name = f"{',' if n else '{'}{orjson.dumps(member.name).decode()}:"
        pieces += _pieces(name, member)
    texts = pc.binary_join_element_wise(*_merged([*pieces, "},"]), "")
    return Rows(texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts)


def _pieces(name: str, member: Member) -> list[Any]:
    """What a member's text is joined of: constants and arrays."""
    import pyarrow.compute as pc

    values = member.values
    if member.sent is None and not values.null_count and _stands_in_quotes(member):
        return [f'{name}"', values, '"']
    texts = _texts(member)
    if member.sent is None:
        return [name, texts]
    return [pc.if_else(member.sent, pc.binary_join_element_wise(name, texts, ""), "")]


def _texts(member: Member) -> pa.Array:
    """Each value's JSON text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values, kind = member.values, member.values.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        texts = pc.cast(values, pa.string())
    elif _stands_in_quotes(member):
        texts = pc.binary_join_element_wise('"', values, '"', "")
    else:
        listed = [orjson.loads(v) if member.as_json and v is not None else v for v in values.to_pylist()]
        texts = pa.array([orjson.dumps(v, default=plain).decode() for v in listed], pa.string())
    return pc.fill_null(texts, "null") if texts.null_count else texts


def _stands_in_quotes(member: Member) -> bool:
    """Whether the values are texts of which none needs an escape."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if member.as_json or not pa.types.is_string(member.values.type):
        return False
    return not pc.any(pc.match_substring_regex(member.values, _ODD)).as_py()


def _merged(pieces: Sequence[Any]) -> list[Any]:
    """The same pieces, constants that follow each other as one."""
    merged: list[Any] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


__all__ = ["Member", "Rows", "rows_of"]
