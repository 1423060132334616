"""Objects and fields as the org describes them, asked when they are first named: streams and objects.

Source: REST API Developer Guide, sObject Describe; Object Reference, field types.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from oploop.apps import named
from oploop.apps.salesforce.client import Client
from oploop.apps.transport import Refused, Transport
from oploop.records import (
    Canonical,
    Column,
    ColumnType,
    Condition,
    Deletes,
    Field,
    FieldType,
    Object,
    Op,
    Operation,
    Replay,
    Stream,
)

T = TypeVar("T")

#: Records of one call, and of one bulk job; from how many records on a job takes fewer calls (create, upload, close, some
#: questions, two or three results).
BATCH, JOB, JOB_FROM, JOB_CALLS = 200, 50_000, 2_000, 8
#: Seconds that a job is taken to last until one has shown it.
JOB_SECONDS = 10.0
#: Seconds after which a job of which nothing is remembered, not even its id, counts as over.
JOB_SETTLES = 6 * 3600.0
#: Seconds after a write until a query that begins then shows it for sure.
LAG = 2.0
#: Fields of a record that stand for several others, or are files: not read and not written.
SKIPPED = frozenset({"address", "location", "base64", "complexvalue", "datacategorygroupreference"})
#: Tells whether a record was changed.
STAMP = "LastModifiedDate"
#: By which time of theirs records are read on, the first that an object has.
CLOCKS = ("SystemModstamp", "LastModifiedDate", "CreatedDate")

_TYPES: Mapping[str, tuple[ColumnType, FieldType]] = {
    "boolean": (ColumnType.BOOLEAN, FieldType.BOOLEAN),
    "int": (ColumnType.INTEGER, FieldType.INTEGER),
    "long": (ColumnType.INTEGER, FieldType.INTEGER),
    "double": (ColumnType.NUMBER, FieldType.NUMBER),
    "currency": (ColumnType.NUMBER, FieldType.NUMBER),
    "percent": (ColumnType.NUMBER, FieldType.NUMBER),
    "date": (ColumnType.DATE, FieldType.DATE),
    "datetime": (ColumnType.TIMESTAMP, FieldType.TIMESTAMP),
    "multipicklist": (ColumnType.JSON, FieldType.LIST),
}
_TEXT = (ColumnType.TEXT, FieldType.TEXT)


@dataclass(frozen=True)
class Table:
    """An object as the org describes it; `told`: its description, `fields`: of it, those that are read."""

    told: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.told["name"])

    @cached_property
    def fields(self) -> list[Mapping[str, Any]]:
        return [f for f in self.told["fields"] if f["type"] not in SKIPPED]

    @cached_property
    def names(self) -> list[str]:
        return [f["name"] for f in self.fields]

    @cached_property
    def lists(self) -> list[str]:
        """Fields whose texts hold several values: a;b."""
        return [f["name"] for f in self.fields if f["type"] == "multipicklist"]

    @cached_property
    def clock(self) -> str | None:
        return next((c for c in CLOCKS if c in self.names), None)

    @cached_property
    def external_ids(self) -> list[str]:
        return [f["name"] for f in self.fields if f.get("externalId")]

    @cached_property
    def create_only(self) -> frozenset[str]:
        return frozenset(f["name"] for f in self.fields if f.get("createable") and not f.get("updateable"))

    @cached_property
    def stream(self) -> Stream:
        deletes = Deletes.MARKED if "IsDeleted" in self.names else Deletes.NEVER
        return Stream(
            self.name,
            ("Id",),
            {f["name"]: _TYPES.get(f["type"], _TEXT)[0] for f in self.fields},
            incremental=self.clock is not None,
            deletes=deletes if self.clock is not None else Deletes.ABSENCE,
            lag=LAG,
            description=str(self.told.get("labelPlural") or self.told.get("label") or ""),
        )

    @cached_property
    def object(self) -> Object:
        fields = {f["name"]: field_of(f) for f in self.fields}
        return Object(
            self.name,
            _operations(self),
            stream=self.name if self.told.get("queryable", True) else None,
            id_column="Id",
            fields=fields,
            lookup_batch=2_000,
            description=self.stream.description,
            unique=tuple(frozenset({n}) for n, f in fields.items() if f.key),
        )


#: A record's update can be made only while nobody has changed it since; of a collection, or in a job, it cannot. REST API
#: Developer Guide, conditional request headers.
UNMODIFIED = Condition(STAMP, Operation(batch=1, in_flight=4, replay=Replay.SAFE))


def _operations(table: Table) -> dict[Op, Operation]:
    """What this user may do with the object. A create is found again by its key; an upsert by external id may be repeated."""
    told, again = table.told, _operation(Replay.SAFE)
    found: dict[Op, Operation] = {}
    if told.get("createable"):
        found[Op.CREATE] = _operation(Replay.LOOKUP, settle=LAG)
    if told.get("updateable"):
        found[Op.UPDATE] = _operation(Replay.SAFE, condition=UNMODIFIED)
    if told.get("createable") and told.get("updateable") and table.external_ids:
        found[Op.UPSERT] = _operation(Replay.SAFE, keys=tuple(table.external_ids))
    if told.get("deletable"):
        found[Op.REMOVE] = again
    return found


def _operation(replay: Replay, **more: Any) -> Operation:
    """Collections of 200, and jobs where these take fewer calls."""
    slower = {"settle": JOB_SETTLES} if "settle" in more else {}
    job = Operation(batch=JOB, calls=JOB_CALLS, in_flight=2, replay=replay, seconds=JOB_SECONDS, **(more | slower))
    return Operation(batch=BATCH, in_flight=4, replay=replay, large=job, large_from=JOB_FROM, **more)


def field_of(told: Mapping[str, Any]) -> Field:
    """A field of an object from its description."""
    name, kind = str(told["name"]), _TYPES.get(told["type"], _TEXT)[1]
    picked = [v["value"] for v in told.get("picklistValues") or () if v.get("active", True)]
    writable = bool(told.get("createable") or told.get("updateable"))
    return Field(
        name,
        kind,
        title=str(told.get("label") or name),
        source=Column(name),
        key=_is_key(told),
        required=bool(told.get("createable") and not told.get("nillable", True) and not told.get("defaultedOnCreate")),
        read_only=not writable,
        max_length=int(told["length"]) if kind is FieldType.TEXT and told.get("length") else None,
        enum=tuple(picked) if told.get("restrictedPicklist") and kind is FieldType.TEXT and picked else None,
        canonical=_canonical(told, kind),
        nullable=bool(told.get("nillable", True)) and kind is not FieldType.BOOLEAN,
        description=_described(told, picked),
        custom=bool(told.get("custom", name.endswith("__c"))),
    )


def _is_key(told: Mapping[str, Any]) -> bool:
    """Fields by which people know records: ids, unique ones, names and addresses, and texts and numbers of their own."""
    own = bool(told.get("custom")) and told["type"] in ("string", "double")
    return told["type"] in ("id", "email") or own or bool(told.get("nameField")) or _is_id(told)


def _is_id(told: Mapping[str, Any]) -> bool:
    return any(told.get(sign) for sign in ("externalId", "idLookup", "unique"))


def _canonical(told: Mapping[str, Any], kind: FieldType) -> Canonical:
    """What Salesforce takes for the same: ids of 15 and of 18 characters; case in addresses and in ids that do not heed it."""
    if told["type"] in ("id", "reference"):
        return Canonical.ID_15_18
    if kind is not FieldType.TEXT:
        return Canonical.EXACT
    if told["type"] == "email" or (_is_id(told) and not told.get("caseSensitive")):
        return Canonical.LOWER
    return Canonical.TRIM  # outer blanks are not kept


def _described(told: Mapping[str, Any], picked: list[str]) -> str:
    parts = [str(told.get("inlineHelpText") or "")]
    if told.get("referenceTo"):
        parts.append(f"refers to {', '.join(told['referenceTo'])}")
    if picked and not told.get("restrictedPicklist"):
        parts.append(f"usually one of {', '.join(picked[:12])}")
    if told.get("createable") and not told.get("updateable"):
        parts.append("only of a new record")
    return "; ".join(p for p in parts if p)


class Catalog(named.Catalog[Table]):
    """The objects of one org, by their API names. Each is asked for over a short connection of its own: names are asked for in
    the middle of other things."""

    lacks = "Salesforce has no object"

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._client = client

    def listed(self) -> Mapping[str, bool]:
        """All objects that can be read, and whether they can be written."""
        body = _apart(lambda: self._ask("sobjects"))
        return {
            o["name"]: bool(o.get("createable") or o.get("updateable")) for o in body["sobjects"] if o.get("queryable")
        }

    def describe(self, name: str) -> Table | None:
        """None when the org has none that this user may see."""
        body = _apart(lambda: self._ask(f"sobjects/{name}/describe")) if name.isidentifier() else None
        return Table(body) if body is not None and body["name"] == name else None

    async def _ask(self, rest: str) -> Any:
        transport: Transport = self._client.make_transport(counted=False)
        try:
            return (await transport.request("GET", self._client.path(rest))).json()
        except Refused as e:
            if e.status == 404:
                return None
            raise
        finally:
            self._client.transport.calls += transport.calls
            await transport.aclose()


def _apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do it in an event loop of its own, and wait for it."""
    with ThreadPoolExecutor(1, thread_name_prefix="salesforce") as thread:
        return thread.submit(lambda: asyncio.run(work())).result()
