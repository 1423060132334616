"""The HubSpot sandbox's associations and lists."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from oploop.apps.hubspot.sandbox_shapes import LINKS, SHOWS_PRIMARY, TYPE_IDS, Refusal, iso
from oploop.apps.hubspot.sandbox_store import Kind, Store


class Associations:
    """Which records are associated, in both directions, under which type ids."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.clear()

    def clear(self) -> None:
        self._links: dict[tuple[str, str], dict[int, dict[int, set[int]]]] = {}
        self._made: dict[tuple[str, str], int] = {}

    def state(self) -> Any:
        """What `set_state` brings back."""
        return copy.deepcopy(self._links)

    def set_state(self, state: Any) -> None:
        self._links = state

    def unlabelled(self, left: Kind, right: Kind) -> int:
        """The type id of two types' association without a label."""
        pair = (left.name, right.name)
        return LINKS[pair][0] if pair in LINKS else self._made.setdefault(pair, 1001 + len(self._made))

    def of(self, left: Kind, right: Kind, number: int) -> dict[int, set[int]]:
        """The live records that one is associated with, and the type ids."""
        found = self._links.get((left.name, right.name), {}).get(number, {})
        return {n: t for n, t in sorted(found.items()) if n in right.records and not right.records[n]["archived"]}

    def add(self, left: Kind, right: Kind, a: str, b: str, types: Iterable[int] = ()) -> None:
        """Associate two records; the first company becomes the primary one. Refusal (404) when one is not there."""
        for kind, number in ((left, a), (right, b)):
            if self._store.get(kind, number) is None:
                said = (
                    f"CONTACT={number} is not valid" if kind.name == "contacts" else f"{kind.name} {number} not found"
                )
                raise Refusal(404, said, "OBJECT_NOT_FOUND")
        pair, wanted = (left.name, right.name), {*types, self.unlabelled(left, right)}
        primary = LINKS.get(pair, (0, None))[1]
        has_one = any(primary in t for t in self.of(left, right, int(a)).values())
        if primary is not None and left.name in SHOWS_PRIMARY and not has_one:
            wanted.add(primary)
        if primary in wanted:
            for other in self._links.get(pair, {}).get(int(a), {}).values():
                other.discard(primary or 0)
        self._links.setdefault(pair, {}).setdefault(int(a), {}).setdefault(int(b), set()).update(wanted)
        back = self._links.setdefault((right.name, left.name), {}).setdefault(int(b), {})
        back.setdefault(int(a), set()).add(self.unlabelled(right, left))
        self._show_primary(left, right, a)

    def remove(self, left: Kind, right: Kind, a: str, b: str) -> None:
        """Take an association away; nothing happens where there is none."""
        for x, y, m, n in ((left, right, a, b), (right, left, b, a)):
            self._links.get((x.name, y.name), {}).get(int(m), {}).pop(int(n), None)
        self._show_primary(left, right, a)
        self._show_primary(right, left, b)

    def _show_primary(self, left: Kind, right: Kind, number: str) -> None:
        """A record's property shows its primary company, and so its time moves."""
        name, record = SHOWS_PRIMARY.get(left.name), self._store.get(left, number)
        if right.name != "companies" or name is None or record is None:
            return
        primary = LINKS[left.name, "companies"][1]
        shown = next((str(n) for n, t in self.of(left, right, int(number)).items() if primary in t), None)
        if record["properties"].get(name) != shown:
            self._store.touch(left, record, {name: shown})

    def dump(self, left: Kind, right: Kind) -> list[dict[str, Any]]:
        numbers = self._links.get((left.name, right.name), {})
        return [
            {"from_id": str(n), "to_id": str(to), "types": sorted(types)}
            for n in sorted(numbers)
            if n in left.records and not left.records[n]["archived"]
            for to, types in self.of(left, right, n).items()
        ]


class Lists:
    """Lists and their members."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.clear()

    def clear(self) -> None:
        self.lists: dict[int, dict[str, Any]] = {}
        self.members: dict[int, dict[int, str]] = {}

    def create(self, given: Mapping[str, Any]) -> dict[str, Any]:
        number, now = int(given.get("listId") or max(self.lists, default=0) + 1), iso(self._store.clock())
        self.lists[number] = {
            "listId": str(number),
            "listVersion": 1,
            "name": f"List {number}",
            "objectTypeId": TYPE_IDS["contacts"],
            "processingType": "MANUAL",
            "processingStatus": "COMPLETE",
            "createdAt": now,
            "updatedAt": now,
            "createdById": "1",
            "updatedById": "1",
            "filtersUpdatedAt": None,
            "additionalProperties": {},
            **given,
        }
        self.lists[number]["listId"] = str(number)
        self.members.setdefault(number, {})
        return self.lists[number]

    def get(self, number: str) -> dict[str, Any]:
        found = self.lists.get(int(number)) if number.isdigit() else None
        if found is None:
            raise Refusal(404, f"List does not exist with ID {number}.", "OBJECT_NOT_FOUND")
        return found

    def live(self, number: str) -> dict[int, str]:
        """A list's members: {record id: since when}; archived records are none."""
        kind = self._store.kind(self.get(number)["objectTypeId"])
        return {
            n: at for n, at in sorted(self.members[int(number)].items()) if self._store.get(kind, str(n)) is not None
        }

    def change(self, number: str, add: Sequence[str], remove: Sequence[str]) -> dict[str, list[str]]:
        """Add and remove members; records that are not there are named."""
        found = self.get(number)
        if found["processingType"] not in ("MANUAL", "SNAPSHOT"):
            raise Refusal(
                400, f"List {number} has processing type {found['processingType']}: its members cannot be set"
            )
        kind, members = self._store.kind(found["objectTypeId"]), self.members[int(number)]
        there = [i for i in add if self._store.get(kind, i) is not None]
        added = [i for i in there if int(i) not in members]
        gone = [i for i in remove if i.isdigit() and members.pop(int(i), None) is not None]
        members |= {int(i): iso(self._store.clock()) for i in added}
        return {
            "recordsIdsAdded": added,
            "recordIdsRemoved": gone,
            "recordIdsMissing": [i for i in add if i not in there],
        }
