"""The HubSpot sandbox's records, and HubSpot's rules for them: unique values, archiving, merging, the search's lag."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from oploop.apps.hubspot.sandbox_shapes import (
    DEFAULTS,
    FIRST_CUSTOM,
    PORTAL,
    REQUIRED,
    TYPE_IDS,
    Refusal,
    changed_name,
    default_properties,
    definition,
    iso,
)
from oploop.apps.hubspot.sandbox_values import checked

Record = dict[str, Any]


@dataclass
class Kind:
    """A type of records. `seen`: what the search knows of each, as (from when, properties or None)."""

    name: str
    type_id: str
    properties: dict[str, dict[str, Any]]
    required: Sequence[str] = ()
    schema: Mapping[str, Any] | None = None
    records: dict[int, Record] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    seen: dict[int, list[tuple[datetime, dict[str, Any] | None]]] = field(default_factory=dict)
    unique: dict[tuple[str, str], int] = field(default_factory=dict)
    merged: dict[int, int] = field(default_factory=dict)

    def keeps_unique(self, name: str) -> bool:
        return (name == "email" and self.name == "contacts") or bool(
            self.properties.get(name, {}).get("hasUniqueValue")
        )


class Store:
    """All records. `lag`: seconds until the search shows a change."""

    def __init__(self, clock: Callable[[], datetime], lag: float) -> None:
        self.clock, self.lag = clock, lag
        self.clear()

    def clear(self) -> None:
        self.kinds = {n: Kind(n, t, default_properties(n), REQUIRED.get(n, ())) for n, t in TYPE_IDS.items()}
        self._next = 501

    # -- types ---------------------------------------------------------------------------------------------------------

    def kind(self, name: str) -> Kind:
        """A type by its name, type id, or (custom ones) full name; Refusal (400) when there is none."""
        for kind in self.kinds.values():
            if name in (kind.name, kind.type_id, (kind.schema or {}).get("fullyQualifiedName")):
                return kind
        raise Refusal(400, f"Unable to infer object type from: {name}")

    def add_schema(self, given: Mapping[str, Any]) -> None:
        """A custom object: {name, properties: [...], requiredProperties}."""
        name, number = str(given["name"]), FIRST_CUSTOM + len(self.kinds)
        properties = default_properties(name)
        properties |= {p["name"]: definition(p) for p in given.get("properties", ())}
        now = iso(self.clock())
        schema = {
            "id": str(number),
            "objectTypeId": f"2-{number}",
            "fullyQualifiedName": f"p{PORTAL}_{name}",
            "labels": {"singular": name.title(), "plural": f"{name.title()}s"},
            "requiredProperties": [],
            "searchableProperties": [],
            "secondaryDisplayProperties": [],
            "primaryDisplayProperty": None,
            "archived": False,
            "createdAt": now,
            "updatedAt": now,
            "associations": [],
            **{k: v for k, v in given.items() if k != "properties"},
        }
        self.kinds[name] = Kind(name, f"2-{number}", properties, schema["requiredProperties"], schema)

    def define(self, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add a property, or change its definition."""
        made = definition({"createdAt": iso(self.clock()), "updatedAt": iso(self.clock()), **given})
        self.kinds[kind].properties[made["name"]] = made
        return made

    # -- reading -------------------------------------------------------------------------------------------------------

    def page(self, kind: Kind, after: int, size: int, *, archived: bool) -> tuple[list[Record], int | None]:
        """Records behind an id, in the order of ids: (the page, the last one's id when there are more)."""
        found: list[Record] = []
        for number in kind.order[bisect_right(kind.order, after) :]:
            record = kind.records[number]
            if record["archived"] == archived:
                if len(found) == size:
                    return found, int(found[-1]["id"])
                found.append(record)
        return found, None

    def get(self, kind: Kind, number: str, unique: str | None = None, *, archived: bool = False) -> Record | None:
        """A record by its id (also one that it was merged from), or by a unique property's value."""
        if unique not in (None, "hs_object_id"):
            found = kind.unique.get((str(unique), number.strip().lower()))
        else:
            found = int(number) if number.isdigit() else None
            found = kind.merged.get(found, found) if found is not None else None
        record = kind.records.get(found) if found is not None else None
        return record if record is not None and record["archived"] == archived else None

    def indexed(self, kind: Kind, behind: int = 0) -> Iterator[tuple[Record, dict[str, Any]]]:
        """Records as the search knows them, behind an id: (the record, its properties then), by id."""
        now = self.clock()
        for number in kind.order[bisect_right(kind.order, behind) :]:
            known = [p for at, p in kind.seen.get(number, ()) if at <= now]
            if known and known[-1] is not None:
                yield kind.records[number], known[-1]

    # -- writing -------------------------------------------------------------------------------------------------------

    def load(self, kind: Kind, given: Mapping[str, Any]) -> Record:
        """Take a record as if it had always been there."""
        at = iso(self.clock() - timedelta(days=1))
        number = int(given.get("id") or self._next)
        record = {
            "id": str(number),
            "createdAt": given.get("createdAt", at),
            "updatedAt": given.get("updatedAt", given.get("createdAt", at)),
            "archived": False,
            "properties": {k: None if v is None else str(v) for k, v in (given.get("properties") or {}).items()},
        }
        self._keep(kind, record, seen=self.clock() - timedelta(days=1))
        return record

    def create(self, kind: Kind, properties: Mapping[str, Any]) -> Record:
        """A new record; Refusal (400, 409) when it breaks a rule."""
        values = {**DEFAULTS.get(kind.name, {}), **checked(kind.properties, properties)}
        missing = [n for n in kind.required if not values.get(n)]
        if missing or not any(values.values()):
            said = f"Error creating {kind.name}. Some required properties were not set."
            raise Refusal(400, said, errors=[{"message": said, "context": {"properties": missing}}])
        self._refuse_taken(kind, values, None)
        now = iso(self.clock())
        record = {"id": str(self._next), "createdAt": now, "updatedAt": now, "archived": False, "properties": values}
        self._keep(kind, record)
        return record

    def update(self, kind: Kind, record: Record, properties: Mapping[str, Any]) -> Record:
        """Change a record; Refusal when a value is wrong or taken. Also one that changes nothing moves its time."""
        values = checked(kind.properties, properties)
        self._refuse_taken(kind, values, int(record["id"]))
        return self.touch(kind, record, values)

    def touch(self, kind: Kind, record: Record, values: Mapping[str, Any]) -> Record:
        """Set values, without rules."""
        self._forget(kind, record)
        changed = {**record, "updatedAt": iso(self.clock()), "properties": {**record["properties"], **values}}
        self._keep(kind, changed)
        return changed

    def archive(self, kind: Kind, number: str) -> None:
        """Put a record into the recycle bin; nothing happens to one that is there, or nowhere."""
        record = self.get(kind, number)
        if record is None:
            return
        self._forget(kind, record)
        now = iso(self.clock())
        kind.records[int(record["id"])] = {**record, "archived": True, "archivedAt": now}
        self._index(kind, int(record["id"]), None, self.clock() + timedelta(seconds=self.lag))

    def merge(self, kind: Kind, primary: str, other: str) -> Record:
        """Merge a record into another, which takes over the values that it lacks."""
        winner, loser = self.get(kind, primary), self.get(kind, other)
        if winner is None or loser is None or winner is loser:
            raise Refusal(400, "Unable to merge: both records must be there")
        self._forget(kind, loser)
        gone = int(loser["id"])
        del kind.records[gone]
        kind.order.remove(gone)
        kind.seen.pop(gone, None)
        kind.merged |= {n: int(primary) for n, w in kind.merged.items() if w == gone} | {gone: int(primary)}
        ids = [i for i in (winner["properties"].get("hs_merged_object_ids") or "").split(";") if i]
        mine = {k: v for k, v in winner["properties"].items() if v}
        merged = ";".join([*ids, str(gone)])
        return self.touch(kind, winner, {**loser["properties"], **mine, "hs_merged_object_ids": merged})

    def _refuse_taken(self, kind: Kind, values: Mapping[str, Any], own: int | None) -> None:
        for name, value in values.items():
            if value and kind.keeps_unique(name):
                other = kind.unique.get((name, value.lower()))
                if other is not None and other != own:
                    said = f"{kind.name.rstrip('s').title()} already exists. Existing ID: {other}"
                    if own is not None or name != "email":
                        said = f"Cannot set {name} to {value}. {other} already has that value."
                    raise Refusal(409, said, "CONFLICT")

    def _keep(self, kind: Kind, record: Record, seen: datetime | None = None) -> None:
        number = int(record["id"])
        self._next = max(self._next, number + 1)
        if number not in kind.records:
            insort(kind.order, number)
        times = {"createdate": record["createdAt"], changed_name(kind.name): record["updatedAt"]}
        record["properties"] = {**record["properties"], **times, "hs_object_id": record["id"]}
        kind.records[number] = record
        for name, value in record["properties"].items():
            if value and kind.keeps_unique(name):
                kind.unique[name, value.lower()] = number
        self._index(kind, number, record["properties"], seen or self.clock() + timedelta(seconds=self.lag))

    def _index(self, kind: Kind, number: int, properties: dict[str, Any] | None, at: datetime) -> None:
        now = self.clock()
        states = kind.seen.get(number, [])
        old = [s for s in states if s[0] <= now][-1:]
        kind.seen[number] = [*old, *(s for s in states if s[0] > now), (at, properties)]

    def _forget(self, kind: Kind, record: Record) -> None:
        for name, value in record["properties"].items():
            if value and kind.unique.get((name, value.lower())) == int(record["id"]):
                del kind.unique[name, value.lower()]
