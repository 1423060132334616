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
from typing import Any, TypeAlias
from urllib.parse import quote

import orjson

from oploop.apps.columns import Chunk, Columns, rows_of
from oploop.apps.jsonvalues import plain
from oploop.apps.rowtexts import Member, Rows
from oploop.apps.rowtexts import rows_of as rows_text

_PLACE = re.compile(r"\{([^{}]*)\}")
_BODY = re.compile(r"\$(record|records|id|step|key\.[^\s]+|field\.[^\s]+)")


@dataclass(slots=True)
class Filling:
    """What fills a template."""

    record: Mapping[str, Any]
    key: Mapping[str, Any]
    remote_id: str | None
    step: str
    whole_id: bool = False  #: the app's ids are whole numbers
    records: Sequence[Any] | orjson.Fragment = ()  #: of a batch: what `$records` stands for


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
    if "{" not in template:
        return template

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


#: Makes a body, or a part of one, of what fills its places. Values are those of the change; the transport writes them as JSON.
Maker: TypeAlias = Callable[[Filling], Any]


def maker(template: Any) -> Maker:
    """What makes bodies of a template, which is looked through once, and not for each change."""
    if isinstance(template, dict):
        return _object_maker({name: maker(value) for name, value in template.items()})
    if isinstance(template, list):
        made = [maker(v) for v in template]
        return lambda filling: [make(filling) for make in made]
    if not isinstance(template, str) or not template.startswith("$"):
        return lambda filling: template
    if template.startswith("$$"):
        return lambda filling: template[1:]
    name, _, rest = template[1:].partition(".")
    match name:
        case "record":
            return lambda filling: filling.record
        case "records":
            return lambda filling: filling.records
        case "id":
            return _id
        case "step":
            return lambda filling: filling.step
        case "key":
            return lambda filling: filling.key.get(rest)
        case _:
            return lambda filling: filling.record.get(rest)


def _object_maker(members: Mapping[str, Maker]) -> Maker:
    """An object of these members; those of one called "..." are taken in, if it is an object."""
    names = list(members.items())

    def make(filling: Filling) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, member in names:
            inner = member(filling)
            if name == "..." and isinstance(inner, Mapping):
                made.update(inner)
            else:
                made[name] = inner
        return made

    return make


def rows_places(template: Any) -> dict[str, str] | None:
    """The members of an object of plain places, of which `...` is the last if there is one; None for any other template."""
    if template == "$record":
        return {"...": "$record"}
    if not isinstance(template, dict) or "..." in list(template)[:-1] or template.get("...", "$record") != "$record":
        return None
    plain_places = (v for n, v in template.items() if n != "...")
    if not all(isinstance(v, str) and (v == "$id" or v.startswith("$key.")) for v in plain_places):
        return None
    return dict(template)


def rows_maker(template: Any) -> Callable[[Columns, bool], list[Any]] | None:
    """What makes the bodies of many changes at once, where a template is an object of plain places: {id: $id, "...": $record}.

    None for any other. It is called with the changes, and whether the app's ids are whole numbers.
    """
    if template == "$record":
        return lambda changes, _: changes.sent
    places = rows_places(template)
    if places is None:
        return None
    plain_places = {n: place for n, place in places.items() if n != "..."}

    def make(changes: Columns, whole_id: bool) -> list[Any]:
        columns = [(n, _column(place, changes, whole_id)) for n, place in plain_places.items()]
        made = rows_of(columns, len(changes))
        if "..." in places:
            for body, record in zip(made, changes.sent, strict=True):
                body.update(record)
        return made

    return make


def texts_maker(template: Any) -> Callable[[Columns, bool], orjson.Fragment | None]:
    """The same bodies, of changes that are alike, as the text of one JSON list; None where that cannot be made at once."""
    places = rows_places(template)

    def make(changes: Columns, whole_id: bool) -> orjson.Fragment | None:
        if places is None:
            return None
        by = (id(make), whole_id)
        text = changes.text(by, lambda chunk: _texts(chunk, places, whole_id))
        return None if text is None else orjson.Fragment(text)

    return make


def _texts(chunk: Chunk, places: Mapping[str, str], whole_id: bool) -> Rows | None:
    """What `places` makes of each change of a chunk."""
    if chunk.key_members is None or chunk.sent_members is None:
        return None
    found: dict[str, Member] = {}
    keys = {m.name: m for m in chunk.key_members(chunk.rows)}
    for name, place in places.items():
        if place == "$record":
            sent = chunk.sent_members(chunk.rows)
            if sent is None or any(m.name in found and m.sent is not None for m in sent):
                return None
            found |= {m.name: m for m in sent}
        elif place == "$id" and not whole_id:
            found[name] = Member(name, chunk.rows.column("__remote"))
        elif place.removeprefix("$key.") in keys:
            found[name] = keys[place.removeprefix("$key.")]._replace(name=name)
        else:
            return None
    return rows_text(sorted(found.values(), key=lambda m: m.sent is not None))  # those of all rows first


def _column(place: str, changes: Columns, whole_id: bool) -> list[Any]:
    """What stands at a place, for each of the changes."""
    if place == "$id":
        return [_id(Filling({}, {}, remote, "", whole_id)) for remote in changes.remotes]
    name = place.removeprefix("$key.")
    return changes.key(name) if name in changes.chunk.key_values else [None] * len(changes)


def _id(filling: Filling) -> Any:
    given = filling.remote_id
    return int(given) if given is not None and filling.whole_id and given.lstrip("-").isdigit() else given
