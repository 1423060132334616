"""What stands in HubSpot, as data: records of a type, pairs of associated records, members of lists.

The properties of a type are described by the account (`described`); what stands here is what every account has.
Sources: developers.hubspot.com, API reference: properties, objects, associations v4 (default association types), lists.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from oploop.apps.declared import declared
from oploop.apps.hubspot.client import STANDARD, TYPE_ID
from oploop.apps.tables import FIELD_TYPES
from oploop.records import Canonical, Column, ColumnType, Field, FieldType, Object, Op, Operation, Stream

SAID = declared(__package__)
PAIRS = 1000  #: associations a call
COMPANY = "associations.company"
MAX_TEXT = 65_536

#: Which property tells the last change; what shows and sets a record's primary company.
CHANGED: Mapping[str, str] = {"contacts": "lastmodifieddate"}
PRIMARY_COMPANY: Mapping[str, tuple[str, int]] = {
    "contacts": ("associatedcompanyid", 1),
    "deals": ("hs_primary_associated_company", 5),
    "tickets": ("hs_primary_company_id", 26),
}
#: Properties that hold a record's id, which HubSpot types as numbers.
IDS = frozenset({"hs_object_id", *(name for name, _ in PRIMARY_COMPANY.values())})
#: What tells a record apart besides the properties that the account keeps unique.
IDENTIFYING: Mapping[str, tuple[str, ...]] = {"contacts": ("email",), "companies": ("domain",)}
REQUIRED: Mapping[str, frozenset[str]] = {
    "deals": frozenset({"dealname", "dealstage"}),
    "tickets": frozenset({"subject", "hs_pipeline_stage"}),
}

_RECORD = SAID.object("_record", stream="")
#: What a record has beside its properties, and the properties of all types.
META = {n: SAID.stream("_record").columns[n] for n in ("id", "createdAt", "updatedAt", "archived", "archivedAt")}


def _operations(unique: Iterable[str]) -> Mapping[Op, Operation]:
    """Of a record type: an upsert is there where the account keeps a property unique."""
    keys, known = tuple(unique), _RECORD.operations
    return {**known, Op.UPSERT: replace(known[Op.UPDATE], keys=keys)} if keys else known


def record_stream(name: str) -> Stream:
    said = f"{name}, archived ones too; a column a property"
    return SAID.stream(name if name in STANDARD else "_custom", name, said)


def record_object(name: str) -> Object:
    unique, columns = ("email",) if name == "contacts" else (), record_stream(name).columns
    fields = {f.name: f for f in _own_fields(name, columns)}
    fields |= {c: _field(name, c, FIELD_TYPES[k], unique=unique) for c, k in columns.items() if c not in META}
    base, known = SAID.object("_record", name, stream=name), _identities(fields.values())
    return replace(base, operations=_operations(unique), fields=fields, unique=known)


def _identities(fields: Iterable[Field]) -> tuple[frozenset[str], ...]:
    """Each key field identifies a record by itself: HubSpot looks records up by one property."""
    return tuple(frozenset({f.name}) for f in fields if f.key)


def pair_stream(name: str) -> Stream:
    return SAID.stream("_pair", name, f"associations, {name.replace('_to_', ' to ')}")


def pair_object(name: str) -> Object:
    return SAID.object("_pair", name, "associations: a record is there or not", stream=name)


# -- an account's own properties -----------------------------------------------------------------------------------------

_KINDS: Mapping[str, tuple[ColumnType, FieldType]] = {
    "number": (ColumnType.NUMBER, FieldType.NUMBER),
    "date": (ColumnType.DATE, FieldType.DATE),
    "datetime": (ColumnType.TIMESTAMP, FieldType.TIMESTAMP),
    "bool": (ColumnType.BOOLEAN, FieldType.BOOLEAN),
}


def changed_property(name: str) -> str:
    """The property that tells when a record of this type was last changed."""
    return CHANGED.get(name, "hs_lastmodifieddate")


def kind_of(p: Mapping[str, Any]) -> tuple[ColumnType, FieldType]:
    """A property's column and field types. Several checkboxes are a list; an id is a whole number."""
    if p["name"] in IDS:
        return ColumnType.INTEGER, FieldType.INTEGER
    if p.get("type") == "enumeration" and p.get("fieldType") == "checkbox":
        return ColumnType.JSON, FieldType.LIST
    return _KINDS.get(str(p.get("type")), (ColumnType.TEXT, FieldType.TEXT))


def shown(name: str, properties: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The properties that become columns: all but those that HubSpot itself hides."""
    needed = {*(record_stream(name).columns.keys() - META.keys()), *IDS, changed_property(name), "hs_merged_object_ids"}
    return [p for p in properties if not p.get("hidden") or not p.get("hubspotDefined") or p["name"] in needed]


def described(
    name: str, properties: Iterable[Mapping[str, Any]], schema: Mapping[str, Any] | None
) -> tuple[Stream, Object]:
    """A type's stream and object as the account describes them."""
    own = shown(name, properties)
    columns = {**record_stream(name).columns, **{p["name"]: kind_of(p)[0] for p in own if p["name"] not in META}}
    unique = [p["name"] for p in own if p.get("hasUniqueValue") and kind_of(p)[1] is FieldType.TEXT]
    unique += ["email"] if name == "contacts" and "email" not in unique else []
    required = REQUIRED.get(name, frozenset()) | frozenset((schema or {}).get("requiredProperties") or ())
    fields = {f.name: f for f in _own_fields(name, {p["name"] for p in own})}
    for p in own:
        fields[p["name"]] = replace(_property(name, p, unique), required=p["name"] in required)
    titles = Counter(f.title for f in fields.values() if f.title)
    custom = [fields[p["name"]] for p in own if not p.get("hubspotDefined")]
    by_title = {f.title: f for f in custom if f.title and titles[f.title] == 1}
    base = record_object(name)
    made = replace(
        base, fields={**by_title, **fields}, operations=_operations(unique), unique=_identities(fields.values())
    )
    return replace(record_stream(name), columns=columns), made


def _own_fields(name: str, properties: Iterable[str]) -> list[Field]:
    """The fields that are no properties."""
    found = [Field("id", FieldType.TEXT, source=Column("id"), key=True, read_only=True, nullable=False)]
    if name in PRIMARY_COMPANY:
        shows = PRIMARY_COMPANY[name][0]
        source = Column(shows) if shows in properties else None
        said = "the id of the primary company"
        found.append(Field(COMPANY, FieldType.TEXT, source=source, nullable=False, description=said))
    return found


def _property(name: str, p: Mapping[str, Any], unique: Iterable[str]) -> Field:
    kind = kind_of(p)[1]
    rules = p.get("modificationMetadata") or {}
    options = tuple(str(o["value"]) for o in p.get("options") or () if "value" in o)
    return replace(
        _field(name, p["name"], kind, unique=unique),
        title=p.get("label") or None,
        enum=options if options and p.get("type") == "enumeration" and not p.get("externalOptions") else None,
        read_only=bool(p.get("calculated") or rules.get("readOnlyValue") or p["name"] == "hs_object_id"),
        description=str(p.get("description") or ""),
        custom=not p.get("hubspotDefined"),
    )


def _field(name: str, column: str, kind: FieldType, *, unique: Iterable[str]) -> Field:
    identifies = column in unique or column in IDENTIFYING.get(name, ())
    folded = Canonical.LOWER if column in IDENTIFYING.get(name, ()) else Canonical.EXACT
    return Field(
        column,
        kind,
        source=Column(column),
        key=identifies,
        canonical=folded,
        max_length=MAX_TEXT if kind is FieldType.TEXT else None,
        read_only=column in ("createdate", "hs_object_id", "lastmodifieddate", "hs_lastmodifieddate"),
        required=column in REQUIRED.get(name, ()),
    )


# -- all of them ----------------------------------------------------------------------------------------------------------

PAIRED = ("contacts_to_companies", "deals_to_companies", "deals_to_contacts", "tickets_to_companies", "tickets_to_contacts")  # fmt: skip
MEMBERSHIPS, LISTS, OWNERS = "list_memberships", "lists", "owners"
STREAMS: Mapping[str, Stream] = {
    **{name: record_stream(name) for name in STANDARD},
    **{name: pair_stream(name) for name in PAIRED},
    **{name: SAID.streams[name] for name in (OWNERS, LISTS, MEMBERSHIPS)},
}
OBJECTS: Mapping[str, Object] = {
    **{name: record_object(name) for name in STANDARD},
    **{name: pair_object(name) for name in PAIRED},
    MEMBERSHIPS: SAID.objects[MEMBERSHIPS],
}
CUSTOM = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def pair_of(name: str) -> tuple[str, str] | None:
    """The two types of an association's name: `deals_to_contacts`."""
    left, to, right = name.partition("_to_")
    return (left, right) if to and left and right else None


def is_records(name: str) -> bool:
    """Whether a name is that of a type of records."""
    return name in STANDARD or (name not in (OWNERS, LISTS, MEMBERSHIPS) and pair_of(name) is None)


def stream_named(name: str) -> Stream | None:
    """The stream of a custom object or of an association; None for what can be no name of one."""
    return pair_stream(name) if pair_of(name) is not None else record_stream(name) if _may_be_custom(name) else None


def object_named(name: str) -> Object | None:
    """The same of an object."""
    return pair_object(name) if pair_of(name) is not None else record_object(name) if _may_be_custom(name) else None


def _may_be_custom(name: str) -> bool:
    return name not in STREAMS and bool(CUSTOM.fullmatch(name) or TYPE_ID.fullmatch(name))
