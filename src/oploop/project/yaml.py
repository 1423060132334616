"""YAML 1.2 with a place for each key and value, and a mend for each mistake that YAML makes easy.

Scalars are read strictly: only `true`, `false`, `null`, `~` and numbers as JSON writes them are no text. So `no` is a
word, `12:30` and `2025-01-01` are text, and `007` keeps its zeros.

Two parsers: libyaml, which is there in no time, for plain files without a mistake; for all others (`_APART`, and whatever libyaml
refuses) ruamel.yaml, which takes a tenth of a second to load, knows YAML 1.2 to the letter, and says best what is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from yaml import events as quick_events

from oploop.errors import FixConfig, Place

if TYPE_CHECKING:
    from ruamel.yaml.error import MarkedYAMLError

MAX_DEPTH = 60
MAX_NODES = 200_000  #: anchors count each time they are used, so that a small file cannot grow without bound

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,37})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
#: What the two parsers may take differently, being of YAML 1.1 and 1.2: characters other than these, anchors, `? `, block texts.
_APART = re.compile(
    r"[^\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\U00010000-\U0010ffff]|&|\?(?=[\s,}\]]|$)|[|>][-+0-9]*\s*(?:#[^\n]*)?$",
    re.MULTILINE,
)
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")  #: escapes can write them, but no file, database or app takes them
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Block(dict[str, Any]):
    """A map of the file. Keys are text, as written; `places` has the place of each key, `place` that of the map."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: dict[str, Place] = {}


class Items(list[Any]):
    """A list of the file; `places` has the place of each item, `place` that of the list."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.places: list[Place] = []


def locate(value: Any, path: tuple[str | int, ...]) -> Place | None:
    """The place of what stands at `path` under `value`; of the nearest known thing around it when there is no such.

    A step is a key, an index, or, in a list, the text of an item or a key of a one-key map in it.
    """
    place: Place | None = value.place if isinstance(value, (Block, Items)) else None
    for step in path:
        if isinstance(value, Block) and step in value:
            place, value = value.places[str(step)], value[str(step)]
        elif isinstance(value, Items):
            index = _index(value, step)
            if index is None:
                return place
            place = value.places[index]
            value = value[index]
            if isinstance(value, Block) and isinstance(step, str):
                value = value.get(step)
        else:
            return place
    return place


def _index(items: Items, step: str | int) -> int | None:
    if isinstance(step, int):
        return step if 0 <= step < len(items) else None
    return next((i for i, v in enumerate(items) if v == step or (isinstance(v, Block) and step in v)), None)


def read_yaml(path: Path, shown: str) -> Block:
    """The map in a YAML file. `shown` is the file's name in messages.

    Raises FixConfig, with file, line and mend, when it cannot be read, is not UTF-8, does not parse or is no map.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would never end
        raise FixConfig("is no regular file", mend="put a file in its place, or remove it", place=Place(shown))
    try:
        data = path.read_bytes()
    except OSError as e:
        raise FixConfig(
            f"cannot be read: {e.strerror}", mend="check that the file exists and may be read", place=Place(shown)
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise FixConfig("the file is not UTF-8", mend="save it as UTF-8", place=Place(shown, line)) from None
    return parse_yaml(text, shown)


def parse_yaml(text: str, shown: str) -> Block:
    """The map in a YAML text; see read_yaml."""
    value = _load(text, shown)
    if value is None:
        raise FixConfig("the file is empty", mend="write `key: value` lines, or remove the file", place=Place(shown))
    if not isinstance(value, Block):
        raise FixConfig(
            f"the file holds {kind(value)} where a map belongs",
            mend="write `key: value` lines, with a space after the colon",
            place=value.place if isinstance(value, Items) else Place(shown, 1),
        )
    return value


def kind(value: Any) -> str:
    """What a value is, in words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"{str(value).lower()} (a truth value)"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case dict():
            return "a map"
        case _:
            return "a list"


def _load(text: str, shown: str) -> Any:
    mask = _Mask(text)
    if not _APART.search(text) and yaml.__with_libyaml__:
        try:
            events = yaml.parse(mask.masked, Loader=yaml.CSafeLoader)
            return _Builder(events, quick_events, shown, text, mask).document()
        except (FixConfig, yaml.YAMLError, ValueError, OverflowError, RecursionError):
            pass  # the other parser says what is wrong, and whether anything is
    return _load_strictly(text, shown, mask)


def _load_strictly(text: str, shown: str, mask: _Mask) -> Any:
    from ruamel.yaml import YAML, events
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return _Builder(YAML(typ="safe", pure=True).parse(mask.masked), events, shown, text, mask).document()
    except FixConfig:
        raise
    except MarkedYAMLError as e:
        raise _explained(e, text, shown) from None
    except (YAMLError, ValueError, OverflowError, RecursionError) as e:
        raise _unreadable(e, text, shown) from None


class _Mask:
    """Hides the braces of `${VAR}` from the parser, which would open a map in `{dsn: ${CRM_DSN}}`. Columns stay."""

    _VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

    def __init__(self, text: str) -> None:
        private = (chr(c) for c in range(0xE000, 0xF8FF) if chr(c) not in text)
        self.left, self.right = next(private, "{"), next(private, "}")
        self.masked = self._VARIABLE.sub(rf"${self.left}\1{self.right}", text)

    def off(self, text: str) -> str:
        """What the user wrote."""
        return text.replace(self.left, "{").replace(self.right, "}")


class _Builder:
    """Builds Blocks and Items from a parser's events. `kinds`: the module that has their classes."""

    def __init__(self, events: Iterator[Any], kinds: Any, shown: str, text: str, mask: _Mask) -> None:
        self.events, self.kinds, self.shown, self.text, self.mask = events, kinds, shown, text, mask
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.nodes = 0

    def document(self) -> Any:
        value = None
        seen = False
        for event in self.events:
            if isinstance(event, self.kinds.DocumentStartEvent):
                if seen:
                    raise self.wrong(event, "a second document begins", "remove the `---` line, or split the file")
                seen = True
                value = self.value(next(self.events), 0)
            elif not isinstance(event, (self.kinds.StreamStartEvent, self.kinds.DocumentEndEvent)):
                break
        return value

    def place(self, event: Any) -> Place:
        return Place(self.shown, event.start_mark.line + 1, event.start_mark.column + 1)

    def line(self, event: Any) -> str:
        """The text of the line in which the event begins."""
        lines = self.text.splitlines()
        return lines[event.start_mark.line] if event.start_mark.line < len(lines) else ""

    def wrong(self, event: Any, message: str, mend: str) -> FixConfig:
        return FixConfig(message, mend=mend, place=self.place(event))

    def value(self, event: Any, depth: int) -> Any:
        before = self.nodes
        self.nodes += 1
        if depth > MAX_DEPTH:
            raise self.wrong(event, f"nested more than {MAX_DEPTH} deep", "flatten it")
        if isinstance(event, self.kinds.AliasEvent):
            value = self.alias(event)
        else:
            if event.tag is not None:
                raise self.wrong(
                    event,
                    "a value starts with !, which makes it a YAML tag",
                    quote_mend(self.text, self.place(event), "! in front"),
                )
            value = self.made(event, depth)
        if self.nodes > MAX_NODES:
            raise self.wrong(event, f"more than {MAX_NODES:,} values", "use fewer anchors, or split the file")
        if getattr(event, "anchor", None) and not isinstance(event, self.kinds.AliasEvent):
            self.anchors[event.anchor] = (value, self.nodes - before)
        return value

    def made(self, event: Any, depth: int) -> Any:
        if isinstance(event, self.kinds.ScalarEvent):
            written = self.mask.off(event.value)
            if _NO_TEXT.search(written):
                raise self.wrong(event, "a text holds a character that UTF-8 has not, or NUL", "remove that escape")
            return written if event.style else scalar(written)
        if isinstance(event, self.kinds.MappingStartEvent):
            return self.block(event, depth)
        assert isinstance(event, self.kinds.SequenceStartEvent)
        items = Items(self.place(event))
        while not isinstance(child := next(self.events), self.kinds.SequenceEndEvent):
            items.append(self.value(child, depth + 1))
            items.places.append(self.place(child))
        return items

    def alias(self, event: Any) -> Any:
        if event.anchor not in self.anchors:
            mend = quote_mend(self.text, self.place(event), "* in front")
            raise self.wrong(event, "a value starts with *, which refers to an anchor that is not there", mend)
        value, size = self.anchors[event.anchor]
        self.nodes += size
        return value

    def block(self, start: Any, depth: int) -> Block:
        block = Block(self.place(start))
        while not isinstance(event := next(self.events), self.kinds.MappingEndEvent):
            key = self.key(event)
            if key in block:
                first = block.places[key].line
                raise self.wrong(event, f"key {key!r} stands twice (first in line {first})", "remove one of them")
            block.places[key] = self.place(event)
            block[key] = self.value(next(self.events), depth + 1)
        return block

    def key(self, event: Any) -> str:
        if isinstance(event, self.kinds.ScalarEvent) and event.tag is None:
            if event.value == "<<" and not event.style:
                raise self.wrong(event, "merge keys (<<) are not part of YAML 1.2", "write the keys out")
            return self.mask.off(str(event.value))
        if isinstance(event, self.kinds.AliasEvent):
            raise self.wrong(event, "a key starts with *", "quote the key")
        if isinstance(event, self.kinds.ScalarEvent):
            raise self.wrong(event, "a key starts with !", "quote the key")
        if "{{" in self.line(event):
            mend = quote_mend(self.text, self.place(event), "{{ in front")
            raise self.wrong(event, "a value starts with {{, which opens two maps", mend)
        raise self.wrong(event, "a key is a map or a list", "quote this")


def scalar(text: str) -> Any:
    """A plain scalar's value: null, truth value, number (as JSON writes them) or text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


# -- mistakes, explained -------------------------------------------------------------------------------------------

_VALUE = re.compile(r"^\s*(?:- +)*(?P<key>[^\s:#'\"{\[][^:#]*?:\s+)?(?P<value>.*?)\s*$")
#: Keys whose values are never shown, in no message.
SECRET_KEY = re.compile(r"(?i)(_key|token|secret|password|passwd|passphrase|credential|dsn)s?$")


def quote_mend(text: str, place: Place, why: str | None = None) -> str:
    """The mend "quote this", with the value of that line in quotes where it may and can be shown."""
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line and place.line <= len(lines) else ""
    lead = f"a value with {why} must be quoted" if why else "quote this"
    found = _VALUE.match(line)
    value, key = (found["value"], found["key"] or "") if found else ("", "")
    hidden = SECRET_KEY.search(key.strip(" :")) or "${" in value or "://" in value
    in_flow = value[:1] in ("{", "[") and not value.startswith("{{")
    if hidden or in_flow or not 0 < len(value) <= 60 or value[0] in "'\"" or not value.isprintable():
        return lead
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    quoted = f"'{value}'" if '"' in value and "'" not in value else f'"{escaped}"'
    return f"{lead}: {quoted}"


def _explained(e: MarkedYAMLError, text: str, shown: str) -> FixConfig:
    mark = e.problem_mark or e.context_mark
    place = Place(shown, mark.line + 1, mark.column + 1) if mark is not None else Place(shown)
    problem, context = str(e.problem or ""), str(e.context or "")
    message, mend = _diagnosis(problem, context, text, place)
    opened = "end of stream" in problem if "quoted scalar" in context else "end" in problem and "flow" in context
    opened = opened or "expected ':'" in problem
    if opened and e.context_mark is not None:  # where it begins says more than where the parser gave up
        place = Place(shown, e.context_mark.line + 1, e.context_mark.column + 1)
    return FixConfig(message, mend=mend, place=place)


def _diagnosis(problem: str, context: str, text: str, place: Place) -> tuple[str, str]:
    """What is wrong, and the mend, for a parser's problem."""
    if "cannot start any token" in problem:
        if "\\t" in problem or "\t" in problem:
            return "a tab stands where spaces belong", "indent with spaces"
        found = re.search(r"character '(.)'", problem)
        char = found.group(1) if found else "this"
        return f"a value starts with {char}", quote_mend(text, place, f"{char} in front")
    if "mapping values are not allowed" in problem:
        lines = text.splitlines()
        found = _VALUE.match(lines[place.line - 1]) if place.line and place.line <= len(lines) else None
        if found is not None and ": " in f"{found['value']} ":
            return "a colon and a space stand inside a value", quote_mend(text, place)
        return "the indentation does not fit", "indent this line like those above it, with spaces"
    if "quoted scalar" in context:
        return (
            "a quote is not closed, or the text in it is broken",
            "close the quote; in double quotes write \\\\ for \\",
        )
    if "flow" in context:
        return (
            "a bracket is not closed, or a comma is missing",
            "close it with ] or }, and quote values that hold , [ ] { }",
        )
    if "could not find expected ':'" in problem:
        return "a line is no `key: value`", "put a colon and a space after the key"
    if "sequence entries are not allowed" in problem:
        return "a list begins behind its key", "put each `- item` on a line of its own, or write [a, b]"
    if "block mapping" in context and "scalar" in problem:
        return "text follows a quoted value", "put the whole value into one pair of quotes"
    if "block" in context:
        return "the indentation does not fit", "indent this line like those of its block, with spaces"
    if "anchor" in context or "alias" in context:
        return "a value starts with * or &", quote_mend(text, place, "* or & in front")
    if "tag" in context:
        return "a value starts with !", quote_mend(text, place, "! in front")
    return f"the YAML does not parse: {_short(problem or context)}", "quote this, or mend its indentation"


def _short(problem: str) -> str:
    line = problem.strip().splitlines()[0] if problem.strip() else "unknown problem"
    return line if line.isprintable() else repr(line)


def _unreadable(e: Exception, text: str, shown: str) -> FixConfig:
    position = getattr(e, "position", None)
    if isinstance(position, int):
        line = text.count("\n", 0, position) + 1
        return FixConfig("a control character stands in the file", mend="remove it", place=Place(shown, line))
    return FixConfig("the YAML does not parse", mend="check its quotes, brackets and indentation", place=Place(shown))
