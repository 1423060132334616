"""Paths and bodies as the user writes them, with places that a change fills. No code: a place is a name, nothing more.

In a path: `{id}` is the app's own id of the record, `{name}` a field or key; each is quoted for a URL.
In a body, a text that is just one of these becomes a value of its own type:
    $record   the fields that are sent, as an object     $records  of a batch: what `record` makes of each change
    $id       the app's own id                           $step     the id of the intent, the same at each try
    $key.name, $field.name                               one of the key's, or of the sent fields' values
An object with the key "..." takes in the members of what stands there: {id: $id, "...": $record}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

_PLACE = re.compile(r"\{([^{}]*)\}")
_BODY = re.compile(r"\$(record|records|id|step|key\.[^\s]+|field\.[^\s]+)")


@dataclass(frozen=True, slots=True)
class Filling:
    """What fills a template."""

    record: Mapping[str, Any]
    key: Mapping[str, Any]
    remote_id: str | None
    step: str
    whole_id: bool = False  #: the app's ids are whole numbers


class Missing(ValueError):
    """A path's place has no value for this record."""


def check_path(path: str) -> str:
    """A path template that can be filled; ValueError says what is wrong."""
    left = _PLACE.sub("", path)
    if "{" in left or "}" in left:
        raise ValueError(f"{path!r} has a brace too many; write places like {{id}}")
    if any(not name.strip() for name in _PLACE.findall(path)):
        raise ValueError(f"{path!r} has an empty place; write it like {{id}}")
    return path


def check_body(body: Any) -> Any:
    """A body template; ValueError for a place that is none."""
    if isinstance(body, dict):
        for value in body.values():
            check_body(value)
    elif isinstance(body, list):
        for value in body:
            check_body(value)
    elif isinstance(body, str) and body.startswith("$") and not body.startswith("$$") and not _BODY.fullmatch(body):
        raise ValueError(
            f"{body!r} is no place; there are $record, $records, $id, $step, $key.NAME, $field.NAME ($$ is a dollar sign)"
        )
    return body


def path_of(template: str, filling: Filling) -> str:
    """The path of one record; Missing when a place has no value."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        found = filling.remote_id if name == "id" else None
        if found is None:
            found = filling.key.get(name, filling.record.get(name))
        if found is None or found == "":
            raise Missing(f"{name} has no value, which the path {template!r} needs")
        if str(found) in (".", ".."):  # a step of its own in an address, quoted or not
            raise Missing(f"{name} is {found!r}, which cannot stand in the path {template!r}")
        return quote(str(plain(found)), safe="")

    return _PLACE.sub(value, template)


def body_of(template: Any, filling: Filling, records: Callable[[], Sequence[Any]] = tuple) -> Any:
    """A body with its places filled. `records`: what `$records` stands for."""
    if isinstance(template, dict):
        made: dict[str, Any] = {}
        for name, value in template.items():
            inner = body_of(value, filling, records)
            made.update(inner if name == "..." and isinstance(inner, dict) else {name: inner})
        return made
    if isinstance(template, list):
        return [body_of(v, filling, records) for v in template]
    if not isinstance(template, str) or not template.startswith("$"):
        return template
    if template.startswith("$$"):
        return template[1:]
    name, _, rest = template[1:].partition(".")
    match name:
        case "record":
            return {k: plain(v) for k, v in filling.record.items()}
        case "records":
            return list(records())
        case "id":
            given = filling.remote_id
            return int(given) if given is not None and filling.whole_id and given.lstrip("-").isdigit() else given
        case "step":
            return filling.step
        case "key":
            return plain(filling.key.get(rest))
        case _:
            return plain(filling.record.get(rest))


def plain(value: Any) -> Any:
    """A field's value as JSON has it."""
    match value:
        case datetime() | date():
            return value.isoformat()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case list() | tuple() | set() | frozenset():
            return [plain(v) for v in value]
        case _:
            return value


def at(document: Any, path: str) -> Any:
    """What stands at a dotted path of a document ("data.items", "rows.0.id"); the whole for "", None where nothing stands."""
    for step in path.split(".") if path else ():
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document
