"""Lines out of files, however they are packed, and whatever happened to them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable, Generator
from typing import Any

import pytest

from oploop.apps import jsonlines
from oploop.apps.jsonlines import TOO_LONG, Torn, pieces, unpacked, values_in_turns
from oploop.apps.paging import at_once

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
_CHANCE = random.Random(1)
LINES = [b'{"n":%d,"noise":"%s"}' % (i, _CHANCE.randbytes(20).hex().encode()) for i in range(20_000)]


def lines_of(data: bytes) -> tuple[list[bytes], bool]:
    found = list(pieces(io.BytesIO(data)))
    assert not any(piece.torn for piece in found[:-1])
    return [line for piece in found for line in piece.lines], found[-1].torn


@pytest.mark.parametrize("how", PACKERS)
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_lines_are_the_same_however_they_are_packed(how: str, end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "PIECE_BYTES", 100_000)
    monkeypatch.setattr(jsonlines, "MAX_BLOCK", 30_000)
    data = PACKERS[how](b"\n".join(LINES) + end)
    assert lines_of(data) == (LINES, False)
    assert len(list(pieces(io.BytesIO(data)))) > 5


@pytest.mark.parametrize("how", ["gzip", "bzip2", "xz"])
def test_packed_parts_one_behind_the_other_are_one_file_and_zeros_behind_them_are_none_of_it(how: str) -> None:
    pack = PACKERS[how]
    assert lines_of(pack(b"1\n2\n") + pack(b"3\n") + b"\0" * 8) == ([b"1", b"2", b"3"], False)


@pytest.mark.parametrize("how", ["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("zeros", [1, jsonlines._BLOCK - 1, jsonlines._BLOCK, 4 * jsonlines._BLOCK])
def test_a_part_behind_padding_is_not_lost_however_much_padding_there_is(how: str, zeros: int) -> None:
    pack, padding = PACKERS[how], b"\0" * zeros
    assert lines_of(pack(b"1\n") + padding + pack(b"2\n") + padding) == ([b"1", b"2"], False)
    assert lines_of(pack(b"1\n") + padding + b"no member") == ([b"1"], True)
    assert unpacked(io.BytesIO(pack(b"1\n") + padding + pack(b"2\n"))).read() == b"1\n2\n"


@pytest.mark.parametrize("how", ["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("damage", ["cut off", "damaged"])
def test_what_stands_before_a_damaged_place_comes_and_the_damage_is_told(how: str, damage: str) -> None:
    data = PACKERS[how](b"\n".join(LINES * 3))
    half = len(data) // 2
    bad = data[:half] if damage == "cut off" else data[:half] + b"\xff" * 64 + data[half + 64 :]
    found, torn = lines_of(bad)
    assert torn
    if how == "gzip":
        assert len(found) > 20_000
        # what a damaged place unpacks to may be anything, until gzip notices
        found = found[:20_000] if damage == "damaged" else found
    assert found == (LINES * 3)[: len(found)], "the last line is whole, or none"


@pytest.mark.parametrize("how", PACKERS)
def test_nothing_is_no_line(how: str) -> None:
    assert lines_of(PACKERS[how](b"")) == ([], False)
    assert lines_of(b"") == ([], False)


def test_a_line_that_is_too_long_is_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "_BLOCK", 10)
    [piece] = pieces(io.BytesIO(b"1\n" + b"x" * 50 + b"\n2\n"), longest=20)
    assert piece.lines[0] == b"1"
    assert TOO_LONG in piece.lines
    assert piece.lines[-1] == b"2"


class Block(bytes):
    """Bytes that count what others are joined to them."""

    joined = 0

    def __radd__(self, before: bytes) -> Block:
        Block.joined += len(before)
        return Block(b"".join((before, self)))


def test_a_line_of_many_blocks_is_not_put_together_anew_with_each() -> None:
    line = b"[" + b"1," * 1_000_000 + b"1]"
    blocks = [Block(line[i : i + 10_000]) for i in range(0, len(line), 10_000)] + [Block(b"\n2\n")]

    class Source(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            return blocks.pop(0) if blocks else b""

    assert [found for piece in pieces(Source()) for found in piece.lines] == [line, b"2"]
    assert Block.joined <= len(line)


@pytest.mark.parametrize("how", PACKERS)
def test_as_a_file_it_is_what_was_packed(how: str) -> None:
    whole = b"\n".join(LINES)
    with unpacked(io.BytesIO(PACKERS[how](whole))) as found:
        assert found.read(10) == whole[:10]
        assert found.read() == whole[10:]
    if how != "plain":
        data = PACKERS[how](whole)
        with pytest.raises(Torn), unpacked(io.BytesIO(data[: len(data) // 2])) as found:
            found.read()


def test_lines_of_an_answer_become_the_values_of_each_field_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "TURN", 2)
    lines = [b'{"p":{"a":%d,"big":%d}}' % (n, 2**70 + n) for n in range(5)]
    turns: list[None] = []

    def counted() -> Generator[None, None, dict[str, list[Any]]]:
        work = values_in_turns(lines, ("a", "big"), lambda record: {**record["p"], "not": "asked for"})
        while True:
            try:
                turns.append(next(work))
                yield
            except StopIteration as e:
                found: dict[str, list[Any]] = e.value
                return found

    assert at_once(counted)() == {"a": [0, 1, 2, 3, 4], "big": [2**70 + n for n in range(5)]}
    assert len(turns) == 3
    with pytest.raises(ValueError, match="unexpected"):
        next(values_in_turns([b'{"a":1'], ("a",), dict))
