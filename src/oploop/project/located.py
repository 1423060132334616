"""YAML 1.2 as plain data of which every part knows where it stands, and the mistakes that YAML makes easy, named.

Dates stay text, `no` is a word, `12:30` and `007` are text; keys stand once; there are no tags, merges or several
documents. Whatever the text is, only FixConfig is raised.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oploop.errors import FixConfig, Place

MAX_NODES = 100_000
MAX_DEPTH = 40
_CORE = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_QUOTE = 'quote the value: key: "..."'

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Located:
    """A file's data, and the place of each key and list item by its path: ("fields", "priority", "map")."""

    file: str
    data: Any
    places: Mapping[Path, Place] = field(default_factory=dict, repr=False)
    lines: tuple[str, ...] = field(default=(), repr=False)

    def place(self, *path: str | int) -> Place:
        """Where the path stands, or the nearest that leads to it."""
        for end in range(len(path), -1, -1):
            found = self.places.get(path[:end])
            if found is not None:
                return found
        return Place(self.file, 1)

    def line(self, *path: str | int) -> str:
        """The source line of a path, to look for what went wrong; never to be shown, as it may hold a secret."""
        number = self.place(*path).line or 1
        return self.lines[number - 1] if number <= len(self.lines) else ""


def read_yaml(text: str, file: str) -> Located:
    """Parse one document. An empty one is an empty map. Raises FixConfig with the place and how to mend it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    lines = tuple(text.splitlines())
    try:
        node = YAML(typ="safe", pure=True).compose(io.StringIO(text))
        converter = _Converter(file)
        data = {} if node is None else converter.convert(node, (), 0)
    except FixConfig:
        raise
    except MarkedYAMLError as e:
        raise _named(e, file, lines) from None
    except ReaderError as e:
        line = text.count("\n", 0, e.position) + 1 if isinstance(e.position, int) else None
        what = f"the character U+{ord(e.character):04X}" if isinstance(e.character, str) else "a character"
        raise FixConfig(f"{what} may not stand in YAML", mend="remove it", place=Place(file, line)) from None
    except RecursionError:
        raise FixConfig("it is nested too deeply", mend="make it flatter", place=Place(file, 1)) from None
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as e:
        # the parser's own slips over text that is far from YAML
        raise FixConfig(f"not YAML ({type(e).__name__})", mend="check the file", place=Place(file, 1)) from None
    return Located(file, data, converter.places, lines)


class _Converter:
    """Nodes to plain data, noting places."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[Path, Place] = {}
        self._nodes = 0

    def place(self, node: Any) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def convert(self, node: Any, path: Path, depth: int) -> Any:
        self._nodes += 1
        self.places.setdefault(path, self.place(node))
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise FixConfig(
                "too much for a config (aliases that repeat?)", mend="make it smaller", place=self.place(node)
            )
        tag = str(node.tag)
        if not tag.startswith(_CORE):
            raise FixConfig("a value that begins with ! is a tag to YAML", mend=_QUOTE, place=self.place(node))
        match tag.removeprefix(_CORE):
            case "map":
                return self._map(node, path, depth)
            case "seq":
                return [self._item(item, (*path, i), depth) for i, item in enumerate(node.value)]
            case kind:
                return self._scalar(node, kind)

    def _item(self, node: Any, path: Path, depth: int) -> Any:
        self.places[path] = self.place(node)
        return self.convert(node, path, depth + 1)

    def _map(self, node: Any, path: Path, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            place = self.place(key_node)
            if key in found:
                first = self.places[(*path, key)].line
                raise FixConfig(f"the key {key!r} stands twice (first in line {first})", mend="remove one", place=place)
            self.places[(*path, key)] = place
            found[key] = self.convert(value_node, (*path, key), depth + 1)
        return found

    def _key(self, node: Any) -> str:
        place = self.place(node)
        if not isinstance(node.value, str):
            raise FixConfig("a { that is not quoted begins a map, not a text like {{ x }}", mend=_QUOTE, place=place)
        if str(node.tag) == f"{_CORE}merge":
            raise FixConfig("<< is no part of YAML 1.2", mend="write the keys out", place=place)
        return str(node.value)

    def _scalar(self, node: Any, kind: str) -> Any:
        text = str(node.value)
        match kind:
            case "null":
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "int" if _INT.match(text) and len(text) < 40:
                return int(text)
            case "float" if "_" not in text and not text.lower().lstrip("+-").startswith("."):
                return float(text)
        return text


def _named(e: Any, file: str, lines: tuple[str, ...]) -> FixConfig:
    """The parser's complaint in words that name the mistake and its mend."""
    problem, mark = str(e.problem or e.context or "not YAML"), e.problem_mark or e.context_mark
    context = str(e.context or "")
    if "quoted scalar" in context or "flow" in context:
        mark = e.context_mark or mark  # where it began, not where the parser gave up
    number = min(mark.line + 1, max(1, len(lines))) if mark is not None else 1
    line = lines[number - 1] if number <= len(lines) else ""
    said, mend = _mistake(problem, context, line, mark.column if mark is not None else 0)
    return FixConfig(said, mend=mend, place=Place(file, number, (mark.column + 1) if mark is not None else None))


def _mistake(problem: str, context: str, line: str, column: int) -> tuple[str, str]:
    value = re.split(r":(?:\s+|$)", line.strip().removeprefix("- "), maxsplit=1)[-1]
    if "\\t" in problem:
        return "a tab; YAML takes only spaces there", "replace the tab by spaces"
    if "cannot start any token" in problem:
        return f"a value cannot begin with {line[column : column + 1]}", _QUOTE
    if "quoted scalar" in context:
        return "a quote is opened and not closed", "close it on its line"
    if value[:1] in ("'", '"') and ("block scalar" in context or "expected <block end>" in problem):
        return "something stands behind the closing quote", f"quote the whole value: {_other_quote(value)}"
    if "mapping values are not allowed" in problem:
        if re.search(r":\s", value):
            return "a second ': ' in one line", _QUOTE
        return "the indentation does not fit the line above", "indent as its neighbours are"
    if "undefined alias" in problem or "anchor" in context or "alias" in context:
        return "a value that begins with * or & is an alias to YAML", _QUOTE
    if "block scalar" in context:
        return "text stands behind | or >", "put the text on the next line, indented, or quote it"
    if "flow" in context:
        closing = "]" if "sequence" in context else "}"
        return f"a bracket is opened and not closed as it should: {closing} is missing", "close it, or quote the value"
    if "another document" in problem or "single document" in context:
        return "a second document begins (---)", "keep one document a file"
    if "expected <block end>" in problem or "sequence entries" in problem:
        return (
            "the indentation does not fit the lines above, or a list and a map are mixed",
            "indent as its neighbours are",
        )
    return f"not YAML: {_printable(problem)}", "check this line; quote values with special characters"


def _other_quote(value: str) -> str:
    return "\"'...' ...\"" if value.startswith("'") else "'\"...\" ...'"


def _printable(text: str) -> str:
    """The parser's words without what it quotes from the file."""
    return re.sub(r"'[^']{4,}'", "'...'", text.replace("\n", " "))[:80]


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a map"
