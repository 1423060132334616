"""What can be written in Zendesk, as data, and how an account's own fields are added to it.

Sources: developer.zendesk.com, API reference of tickets, users, organizations, ticket fields, user fields; the OpenAPI
document (TicketUpdateInput, UserForAdmin, OrganizationObject, TicketFieldObject).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from oploop.records import (
    Canonical,
    Column,
    Condition,
    Field,
    FieldType,
    JsonEntry,
    JsonPath,
    Object,
    Op,
    Operation,
    Replay,
)

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

PRIORITIES = ("low", "normal", "high", "urgent")
STATUSES = ("new", "open", "pending", "hold", "solved", "closed")
TYPES = ("problem", "incident", "question", "task")

#: A create whose answer was lost may still be queued as a job, and the export withholds a minute more.
CREATE_SETTLES = 300.0


#: Up to 100 records a job; a job costs two calls (submit, ask), so two records go as two single calls.
MANY_SAFE = Operation(batch=100, single_up_to=2, calls=2, in_flight=10, replay=Replay.SAFE)
#: A ticket's update can be made only while nobody has changed it since; in a job it cannot. Protecting against ticket update
#: collisions: developer.zendesk.com, managing tickets, creating and updating tickets.
SAFE_UPDATE = Condition("updated_at", Operation(batch=1, in_flight=10, replay=Replay.SAFE))
UPDATE_TICKETS = replace(MANY_SAFE, condition=SAFE_UPDATE)
MANY_LOOKUP = replace(MANY_SAFE, replay=Replay.LOOKUP, settle=CREATE_SETTLES)
UPSERT_USERS = replace(MANY_SAFE, keys=("email", "external_id"))
UPSERT_ORGANIZATION = Operation(batch=1, replay=Replay.SAFE, keys=("external_id",))  # Zendesk has no bulk call for it


def _field(name: str, kind: FieldType = FieldType.TEXT, **more: Any) -> Field:
    return Field(name, kind, source=Column(name), **more)


def _read_only(kind: FieldType, *names: str) -> list[Field]:
    return [_field(name, kind, read_only=True) for name in names]


def _by_name(*groups: Iterable[Field]) -> dict[str, Field]:
    return {f.name: f for group in groups for f in group}


_INTEGER, _BOOLEAN, _TIMESTAMP = FieldType.INTEGER, FieldType.BOOLEAN, FieldType.TIMESTAMP
_ID = _field("id", _INTEGER, key=True, read_only=True, nullable=False, description="Zendesk's own id")

TICKET_FIELDS = _by_name(
    [
        _ID,
        _field("external_id", key=True, description="your own id; Zendesk does not enforce that it is unique"),
        _field("subject"),
        _field(
            "description",
            required=True,
            nullable=False,
            description="the first comment; only when a ticket is created",
        ),
        _field("status", enum=STATUSES, nullable=False, description="a closed ticket takes no more changes"),
        _field("priority", enum=PRIORITIES),
        _field("type", enum=TYPES),
        _field("requester_id", _INTEGER, nullable=False),
        _field("submitter_id", _INTEGER, nullable=False, description="only when a ticket is created"),
        _field("assignee_id", _INTEGER),
        _field("group_id", _INTEGER),
        _field("organization_id", _INTEGER, description="one of the requester's organizations"),
        _field("brand_id", _INTEGER, nullable=False),
        _field("ticket_form_id", _INTEGER),
        _field("custom_status_id", _INTEGER, nullable=False),
        _field("problem_id", _INTEGER, description="the problem that an incident belongs to"),
        _field("recipient", description="only when a ticket is created"),
        _field("due_at", _TIMESTAMP, description="for tickets of type task"),
        _field("tags", FieldType.LIST, description="sent whole; Zendesk lower-cases tags and splits them at blanks"),
    ],
    _read_only(_TIMESTAMP, "created_at", "updated_at"),
    _read_only(_BOOLEAN, "has_incidents", "is_public", "allow_channelback", "allow_attachments"),
    _read_only(FieldType.JSON, "via", "satisfaction_rating", "followup_ids"),
    _read_only(FieldType.TEXT, "url"),
)

USER_FIELDS = _by_name(
    [
        _ID,
        _field(
            "email",
            key=True,
            canonical=Canonical.LOWER,
            description="an existing user's primary address cannot be changed here: Zendesk would add a second one",
        ),
        _field(
            "external_id",
            key=True,
            canonical=Canonical.LOWER,
            description="your own id; matched without regard to case, kept in the case last sent",
        ),
        _field("name", required=True, nullable=False),
        _field("role", enum=("end-user", "agent", "admin"), nullable=False),
        _field("alias"),
        _field("phone"),
        _field("shared_phone_number", _BOOLEAN),
        _field("organization_id", _INTEGER),
        _field("default_group_id", _INTEGER),
        _field("custom_role_id", _INTEGER),
        _field("locale", nullable=False),
        _field("locale_id", _INTEGER, nullable=False),
        _field("time_zone", nullable=False),
        _field("details"),
        _field("notes"),
        _field("signature", description="agents and admins only"),
        _field("moderator", _BOOLEAN, nullable=False),
        _field("only_private_comments", _BOOLEAN, nullable=False),
        _field("suspended", _BOOLEAN, nullable=False),
        _field("verified", _BOOLEAN, nullable=False),
        _field("ticket_restriction", enum=("organization", "groups", "assigned", "requested")),
        _field("tags", FieldType.LIST, description="sent whole; only where user tagging is enabled"),
    ],
    _read_only(
        _BOOLEAN, "active", "shared", "shared_agent", "chat_only", "restricted_agent", "two_factor_auth_enabled"
    ),
    _read_only(_INTEGER, "role_type"),
    _read_only(_TIMESTAMP, "created_at", "updated_at", "last_login_at"),
    _read_only(FieldType.TEXT, "iana_time_zone", "url"),
    _read_only(FieldType.JSON, "photo"),
)

ORGANIZATION_FIELDS = _by_name(
    [
        _ID,
        _field(
            "external_id",
            key=True,
            canonical=Canonical.LOWER,
            description="your own id; matched without regard to case",
        ),
        _field("name", key=True, required=True, nullable=False, description="unique in the account"),
        _field("details"),
        _field("notes"),
        _field("group_id", _INTEGER),
        _field("shared_tickets", _BOOLEAN, nullable=False),
        _field("shared_comments", _BOOLEAN, nullable=False),
        _field("domain_names", FieldType.LIST, description="sent whole"),
        _field("tags", FieldType.LIST, description="sent whole"),
    ],
    _read_only(_TIMESTAMP, "created_at", "updated_at", "deleted_at"),
    _read_only(FieldType.TEXT, "url"),
)

OBJECTS: Mapping[str, Object] = {
    "tickets": Object(
        "tickets",
        {Op.CREATE: MANY_LOOKUP, Op.UPDATE: UPDATE_TICKETS, Op.REMOVE: MANY_SAFE},
        stream="tickets",
        fields=TICKET_FIELDS,
        description="support tickets",
    ),
    "users": Object(
        "users",
        {Op.CREATE: MANY_LOOKUP, Op.UPDATE: MANY_SAFE, Op.UPSERT: UPSERT_USERS, Op.REMOVE: MANY_SAFE},
        stream="users",
        fields=USER_FIELDS,
        description="end users, agents and admins; an upsert matches by email or external_id",
    ),
    "organizations": Object(
        "organizations",
        {Op.CREATE: MANY_LOOKUP, Op.UPDATE: MANY_SAFE, Op.UPSERT: UPSERT_ORGANIZATION, Op.REMOVE: MANY_SAFE},
        stream="organizations",
        fields=ORGANIZATION_FIELDS,
        description="organizations; an upsert matches by external_id, never by name",
    ),
}


COMMENTS = "ticket_comments"
#: A comment cannot be told from another one, so one whose answer was lost is never sent again.
MANY_NEVER = replace(MANY_SAFE, replay=Replay.NEVER)
COMMENT_OBJECT = Object(
    COMMENTS,
    {Op.CREATE: MANY_NEVER},
    fields=_by_name(
        [
            Field("ticket_id", _INTEGER, required=True, nullable=False, description="the ticket to comment on"),
            Field("body", FieldType.TEXT, required=True, nullable=False, max_length=65_535),
            Field("public", _BOOLEAN, nullable=False, description="whether the requester sees it; true unless said"),
            Field("author_id", _INTEGER, nullable=False, description="an agent; whose token it is unless said"),
        ]
    ),
    description="comments on tickets that are there, each once (mode: append)",
)


def custom_object(name: str) -> Object:
    """A custom object's records, `custom_objects.KEY`; its own fields are described by the account."""
    fields = [
        Field("id", FieldType.TEXT, source=Column("id"), key=True, read_only=True, nullable=False),
        Field("external_id", FieldType.TEXT, source=Column("external_id"), key=True, description="your own id, unique"),
        Field("name", FieldType.TEXT, source=Column("name"), required=True, nullable=False, max_length=255),
        *_read_only(_TIMESTAMP, "created_at", "updated_at"),
    ]
    upsert = replace(MANY_SAFE, keys=("external_id",))
    return Object(
        name,
        {Op.CREATE: MANY_LOOKUP, Op.UPDATE: MANY_SAFE, Op.UPSERT: upsert, Op.REMOVE: MANY_SAFE},
        stream=name,
        fields=_by_name(fields),
        description="records of a custom object; an upsert matches by external_id",
    )


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
