"""What an account has, listed once and described when it is named."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from oploop.apps.named import Catalog
from oploop.errors import FixConfig


class Shelves(Catalog[str]):
    """Two rooms' shelves; what stands in the cellar cannot be written."""

    lacks = "the shop has no shelf"

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def full(self, name: str) -> str:
        return name if "." in name else f"shop.{name}"

    def listed(self) -> Mapping[str, bool]:
        self.asked.append("all")
        return {"shop.front": True, "shop.back": True, "cellar.wall": False}

    def describe(self, name: str) -> str | None:
        self.asked.append(name)
        return name.upper() if name in ("shop.front", "shop.back", "cellar.wall", "shop.hidden") else None


def test_each_is_described_once_when_it_is_named() -> None:
    shelves = Shelves()
    made = shelves.each(str.title)
    assert shelves.asked == []
    assert made["front"] == made["shop.front"] == "Shop.Front"
    assert shelves.asked == ["shop.front"]
    assert list(made) == ["shop.front", "shop.back", "cellar.wall"]
    assert len(made) == 3
    assert shelves.asked == ["shop.front", "all"]


def test_one_that_is_not_listed_may_be_there_all_the_same() -> None:
    made = Shelves().each(str.title)
    assert "hidden" in made
    assert made["hidden"] == "Shop.Hidden"
    assert "attic" not in made


def test_what_cannot_be_written_is_not_listed_among_what_can() -> None:
    assert list(Shelves().each(str, written=True)) == ["shop.front", "shop.back"]


def test_the_nearest_right_name_is_told() -> None:
    shelves = Shelves()
    with pytest.raises(FixConfig, match=r"the shop has no shelf 'shop\.frond'") as e:
        shelves.get("frond")
    assert "shop.front" in str(e.value.mend)
    with pytest.raises(FixConfig):
        shelves.get("frond")
    assert shelves.asked == ["shop.frond", "all"]
