"""What can be written in Zendesk, as `app.toml` says, and how an account's own fields are added to it.

Sources: developer.zendesk.com, API reference of ticket fields, user fields; the OpenAPI document (TicketFieldObject).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from oploop.apps.declared import declared
from oploop.records import Field, FieldType, JsonEntry, JsonPath, Object

#: Internal names of custom fields: prefix + stable id (tickets: the number, users and organizations: the key).
PREFIXES: Mapping[str, str] = {
    "tickets": "custom_fields.",
    "users": "user_fields.",
    "organizations": "organization_fields.",
}
CUSTOM_PREFIX = "custom_object_fields."  #: of custom objects' own fields
#: The lists that describe an object's fields.
FIELD_LISTS: Mapping[str, str] = {
    "tickets": "ticket_fields",
    "users": "user_fields",
    "organizations": "organization_fields",
}

COMMENTS = "ticket_comments"
SAID = declared(__package__)
OBJECTS = SAID.objects


def custom_object(name: str) -> Object:
    """A custom object's records, `custom_objects.KEY`; its own fields are described by the account."""
    return SAID.object("_custom", name, stream=name)


# -- an account's own fields ---------------------------------------------------------------------------------------------

_KINDS: Mapping[str, FieldType] = {
    "integer": FieldType.INTEGER,
    "decimal": FieldType.NUMBER,
    "checkbox": FieldType.BOOLEAN,
    "date": FieldType.DATE,
    "multiselect": FieldType.LIST,
}
#: Types of ticket fields that hold a custom value; the others stand for a ticket's system fields.
_CUSTOM_TICKET_TYPES = frozenset(
    {"text", "textarea", "integer", "decimal", "checkbox", "date", "tagger", "multiselect", "regexp", "lookup", "partialcreditcard"}
)  # fmt: skip
#: System fields whose values an account can narrow down: the field list's type for them.
_NARROWED = {"priority": "priority", "tickettype": "type"}


def describe(object_name: str, definitions: Iterable[Mapping[str, Any]]) -> dict[str, Field]:
    """An object's fields as this account has them, from its list of field definitions.

    System fields stand under their name; a custom field under its title and under its stable id (tickets: the number as
    text, others: the key). A title that two active fields share, or that is a system field's name, stands for nothing.
    """
    fields = dict((OBJECTS.get(object_name) or custom_object(object_name)).fields)
    own = [(d, _own_field(object_name, d)) for d in definitions if _is_own(object_name, d)]
    for definition in definitions:
        _narrow(object_name, fields, definition)
    titles = Counter(f.title for d, f in own if d.get("active", True))
    by_id: dict[str, Field] = {}
    by_title: dict[str, Field] = {}
    for definition, field in own:
        stable = field.name.removeprefix(PREFIXES.get(object_name, CUSTOM_PREFIX))
        by_id[field.name if stable in fields else stable] = field
        if definition.get("active", True) and field.title and titles[field.title] == 1:
            by_title[field.title] = field
    return {**by_title, **by_id, **fields}


def _is_own(object_name: str, definition: Mapping[str, Any]) -> bool:
    if object_name == "tickets":
        return definition.get("type") in _CUSTOM_TICKET_TYPES and definition.get("removable") is not False
    return not definition.get("system") and bool(definition.get("key"))


def _own_field(object_name: str, definition: Mapping[str, Any]) -> Field:
    kind = str(definition.get("type"))
    prefix = PREFIXES.get(object_name, CUSTOM_PREFIX)
    options = tuple(str(o["value"]) for o in definition.get("custom_field_options") or () if "value" in o)
    title = definition.get("title")
    field = Field(
        "",
        _KINDS.get(kind, FieldType.TEXT),
        title=None if title is None else str(title),
        enum=options or None,
        read_only=kind == "partialcreditcard",
        description=str(definition.get("description") or "") if definition.get("active", True) else "inactive",
        custom=True,
    )
    if object_name == "tickets":
        number = int(definition["id"])
        return replace(field, name=f"{prefix}{number}", source=JsonEntry("custom_fields", equals=number))
    key = str(definition["key"])
    return replace(field, name=f"{prefix}{key}", source=JsonPath(prefix.rstrip("."), (key,)))


def _narrow(object_name: str, fields: dict[str, Field], definition: Mapping[str, Any]) -> None:
    """Take over which priorities and types this account offers (it may have only normal and high)."""
    name = _NARROWED.get(str(definition.get("type")))
    offered = tuple(str(o["value"]) for o in definition.get("system_field_options") or () if o.get("value"))
    if object_name == "tickets" and name is not None and offered:
        fields[name] = replace(fields[name], enum=offered)
