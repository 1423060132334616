"""libyaml reads the plain files; what it makes of them must be what ruamel.yaml makes of them, places included."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from oploop.errors import FixConfig
from oploop.project import yaml
from oploop.project.yaml import Block, Items, _load, _load_strictly, _Mask, parse_yaml

ROOT = Path(__file__).parents[3]
#: What is put into a text at random: all that means something in YAML, and what line breaks and blanks may look like.
PIECES = [
    *":#-?,[]{}&*!|>'\"%@`\\ \t\r\nab01~$.=<+_é\u2028\x85\ufeff\x7f\xa0",
    "\n  ",
    "\n- ",
    ": ",
    " #",
    "---\n",
    "...\n",
]
PIECES += [
    "? ",
    "| \n",
    ">-\n",
    "''",
    '""',
    "{a: b}",
    "[a, b]",
    "${A}",
    '"a": ',
    "\n    ",
    "&a ",
    "*a",
    "!!str ",
    "<<: ",
]


def texts() -> list[str]:
    """The configuration of the documentation, the examples and the demo, and of the tests what looks like it."""
    found = [m[1] for p in ROOT.glob("docs/**/*.md") for m in re.finditer(r"```yaml\n(.*?)```", p.read_text(), re.S)]
    found += [p.read_text() for folder in ("src", "examples") for p in (ROOT / folder).rglob("*.yml")]
    tests = (
        m[1] for p in ROOT.glob("tests/unit/project/*.py") for m in re.finditer(r'"((?:[^"\\\n]|\\.)*)"', p.read_text())
    )
    found += [t.replace("\\n", "\n").replace('\\"', '"') for t in tests if ": " in t]
    assert len(found) > 100
    return found


def flat(value: Any) -> Any:
    if isinstance(value, Block):
        return value.place, [(key, value.places[key], flat(v)) for key, v in value.items()]
    if isinstance(value, Items):
        return value.place, list(value.places), [flat(v) for v in value]
    return type(value), value


def outcome(load: Any, text: str) -> Any:
    try:
        return flat(load(text))
    except FixConfig as e:
        return str(e)


def mutated(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    start = chance.randrange(len(lines))
    letters = list("\n".join(lines[start : start + chance.randrange(1, 14)]))
    for _ in range(chance.choice((0, 1, 1, 2, 3, 5))):
        at = chance.randrange(len(letters) + 1)
        letters[at : at + chance.choice((0, 0, 1, 4))] = [chance.choice(PIECES)] if chance.random() < 0.8 else []
    return "".join(letters)


def test_both_parsers_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    chance, known, strictly = random.Random(1), texts(), 0

    def counted(text: str, shown: str, mask: _Mask) -> Any:
        nonlocal strictly
        strictly += 1
        return _load_strictly(text, shown, mask)

    monkeypatch.setattr(yaml, "_load_strictly", counted)
    tried = [*known, *(mutated(chance.choice(known), chance) for _ in range(2_000))]
    for text in tried:
        quick = outcome(lambda t: _load(t, "f"), text)
        assert quick == outcome(lambda t: _load_strictly(t, "f", _Mask(t)), text), text
    assert 250 < strictly < len(tried) - 500  # each parser had its share


@pytest.mark.parametrize(
    "text",
    [
        "a: b\t",
        "{? :,}",
        "apps: {? }",
        "? a\n: b",
        "&a: b",
        "a: |\n  b\n",
        "a: >-\n  b\n",
        "a: b\u2028c",
        "a: 'b\u0085'",
        "a: b\r\nc: d\r\n",
    ],
)
def test_what_they_may_take_differently_is_read_strictly(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("libyaml was asked")

    monkeypatch.setattr(yaml.yaml, "parse", never)
    outcome(lambda t: parse_yaml(t, "f"), text)


def test_without_libyaml_all_is_read_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml.yaml, "__with_libyaml__", False)
    monkeypatch.setattr(yaml.yaml, "parse", None)
    assert parse_yaml("a: [1, no]", "f") == {"a": [1, "no"]}
