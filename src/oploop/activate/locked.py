"""A sync's custom fields held against `fields.lock`: renamed ones stay the same, changed and deleted ones are held.

A custom field is named by its title, which people change in the app. What a name stood for when it was first used is
kept in the lock: by the app's own id the field is found again under any title.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from oploop.project import Locked
from oploop.records import Field


@dataclass(frozen=True, slots=True)
class Held:
    """What the lock makes of an account's fields."""

    fields: Mapping[str, Field]  #: as `describe` told, with locked names standing for the field of their id
    lost: dict[str, str] = field(default_factory=dict)  #: by name: why the field cannot be written as it was
    renamed: dict[str, str] = field(default_factory=dict)  #: by name: what the app calls the field now
    fresh: dict[str, Locked] = field(default_factory=dict)  #: names that are not in the lock yet


def hold(described: Mapping[str, Field], locked: Mapping[str, Locked], names: Iterable[str]) -> Held:
    """Hold the fields that a project names against its lock. Only custom fields are ever locked."""
    held = Held(dict(described))
    by_id = {f.name: f for f in described.values()}
    for name in names:
        entry, now = locked.get(name), described.get(name)
        if entry is None:
            if now is not None and now.custom:
                held.fresh[name] = Locked(now.name, now.type.value)
            continue
        _compare(held, name, entry, by_id.get(entry.id), now)
    return held


def _compare(held: Held, name: str, entry: Locked, same: Field | None, now: Field | None) -> None:
    """One locked name: `same` is the field of its id, `now` the one that bears the name."""
    if same is None:
        again = f"; another field, {now.name}, has its name" if now is not None else ""
        held.lost[name] = f"({entry.id}) is no longer in the app{again}"
    elif entry.type is not None and entry.type != same.type.value:
        held.lost[name] = f"was {entry.type} and is now {same.type.value} in the app"
    else:
        assert isinstance(held.fields, dict)
        held.fields[name] = same
        if now is None or now.name != same.name:
            held.renamed[name] = same.title or same.name


__all__ = ["Held", "hold"]
