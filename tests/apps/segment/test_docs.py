"""The page about Segment names what there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from oploop.apps.segment import SegmentApp

PAGE = (Path(__file__).parents[3] / "docs" / "apps" / "segment.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_key_has_its_row_and_every_row_its_key() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.split("\n## ")[0], re.M)) == set(SegmentApp.Config.model_fields)


def test_streams_are_those_that_are_named() -> None:
    first = section("Streams").split(":")[0]
    assert set(re.findall(r"`(\w+)`", first)) == set(SegmentApp.streams)


def test_objects_and_their_fields_are_those_of_the_table() -> None:
    rows = {r[0]: r for r in re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.*?) \| (.*?) \|$", section("Objects"), re.M)}
    assert rows.keys() == SegmentApp.objects.keys()
    for name, obj in SegmentApp.objects.items():
        _, mode, keys, fields = rows[name]
        assert [op.value for op in obj.operations] == [mode]
        said = set(re.findall(r"`([\w.]+)", keys + fields))
        assert said == {*obj.fields, *obj.dynamic}
        able = {n for n, f in {**obj.fields, **obj.dynamic}.items() if f.key}
        assert set(re.findall(r"`([\w.]+)", keys)) <= able
