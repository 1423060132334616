"""The shapes of the Zendesk sandbox's records: every key that the API shows, with what a new record has in it.

Source: the OpenAPI document (TicketObject, UserForAdmin, OrganizationObject, TicketFieldObject, CustomFieldObject).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oploop.apps.zendesk.objects import OBJECTS

ADDRESS = "https://sandbox.zendesk.com/api/v2"  #: of records, as they show it; links for paging have the real one

#: Fields that can be written -> how their values are checked and kept ("line": outer blanks are cut off).
RULES: Mapping[str, Mapping[str, str]] = {
    "tickets": {
        **dict.fromkeys(("status", "priority", "type"), "enum"),
        **dict.fromkeys(
            ("requester_id", "submitter_id", "assignee_id", "group_id", "organization_id", "brand_id", "problem_id",
             "ticket_form_id", "custom_status_id", "via_followup_source_id"), "integer"),
        **dict.fromkeys(("collaborator_ids", "email_cc_ids", "follower_ids", "sharing_agreement_ids"), "list"),
        "subject": "line", "external_id": "text", "recipient": "line", "due_at": "time", "tags": "tags",
    },
    "users": {
        **dict.fromkeys(("role", "ticket_restriction"), "enum"),
        **dict.fromkeys(("organization_id", "default_group_id", "custom_role_id", "locale_id"), "integer"),
        **dict.fromkeys(("moderator", "only_private_comments", "suspended", "verified", "shared_phone_number"), "boolean"),
        **dict.fromkeys(("name", "email", "alias", "phone", "locale", "time_zone"), "line"),
        **dict.fromkeys(("details", "notes", "signature", "external_id"), "text"), "tags": "tags",
    },
    "organizations": {
        "name": "line", "external_id": "text", "details": "text", "notes": "text", "group_id": "integer",
        "shared_tickets": "boolean", "shared_comments": "boolean", "domain_names": "list", "tags": "tags",
    },
}  # fmt: skip

_TICKET: Mapping[str, Any] = {
    "external_id": None, "via": {"channel": "api", "source": {"from": {}, "to": {}, "rel": None}}, "type": None,
    "subject": None, "raw_subject": None, "description": None, "priority": None, "status": "new", "recipient": None,
    "requester_id": None, "submitter_id": None, "assignee_id": None, "organization_id": None, "group_id": None,
    "collaborator_ids": [], "follower_ids": [], "email_cc_ids": [], "forum_topic_id": None, "problem_id": None,
    "has_incidents": False, "is_public": True, "due_at": None, "tags": [], "custom_fields": {},
    "satisfaction_rating": {"score": "unoffered"}, "sharing_agreement_ids": [], "custom_status_id": 1,
    "followup_ids": [], "ticket_form_id": 1, "brand_id": 1, "allow_channelback": False, "allow_attachments": True,
    "from_messaging_channel": False, "generated_timestamp": None,
}  # fmt: skip

_USER: Mapping[str, Any] = {
    "name": None, "email": None, "time_zone": "UTC", "iana_time_zone": "Etc/UTC", "phone": None,
    "shared_phone_number": None, "photo": None, "locale_id": 1, "locale": "en-US", "organization_id": None,
    "role": "end-user", "verified": False, "external_id": None, "tags": [], "alias": "", "active": True,
    "shared": False, "shared_agent": False, "last_login_at": None, "two_factor_auth_enabled": None, "signature": "",
    "details": "", "notes": "", "role_type": None, "custom_role_id": None, "moderator": False,
    "ticket_restriction": None, "only_private_comments": False, "restricted_agent": True, "suspended": False,
    "default_group_id": None, "report_csv": False, "user_fields": {}, "chat_only": False,
}  # fmt: skip

_ORGANIZATION: Mapping[str, Any] = {
    "name": None, "shared_tickets": False, "shared_comments": False, "external_id": None, "domain_names": [],
    "details": None, "notes": None, "group_id": None, "tags": [], "organization_fields": {}, "deleted_at": None,
}  # fmt: skip

_TEMPLATES = {"tickets": _TICKET, "users": _USER, "organizations": _ORGANIZATION}


def complete(kind: str, number: int, given: Mapping[str, Any], at: str) -> dict[str, Any]:
    """A record with every key that the API shows; `at` (ISO time) for what has no time of its own."""
    record = {
        "url": f"{ADDRESS}/{kind}/{number}.json",
        "id": number,
        **{k: v.copy() if isinstance(v, list | dict) else v for k, v in _TEMPLATES[kind].items()},
        "created_at": given.get("updated_at", at),
        "updated_at": given.get("created_at", at),  # each stands in for the other where only one is given
        **given,
    }
    if kind == "tickets" and "raw_subject" not in given:
        record["raw_subject"] = record["subject"]
    return record


# -- field definitions ---------------------------------------------------------------------------------------------------

_DEFINITION: Mapping[str, Any] = {
    "type": "text", "title": None, "description": "", "position": 9999, "active": True, "regexp_for_validation": None,
}  # fmt: skip

DEFINITION_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "ticket_fields": {
        **_DEFINITION, "required": False, "collapsed_for_agents": False, "title_in_portal": None,
        "visible_in_portal": False, "editable_in_portal": False, "required_in_portal": False, "tag": None,
        "removable": True, "agent_description": "",
    },
    "user_fields": {**_DEFINITION, "key": None, "system": False},
    "organization_fields": {**_DEFINITION, "key": None, "system": False},
}  # fmt: skip


def field_template(kind: str, number: int, given: Mapping[str, Any], now: str) -> dict[str, Any]:
    """A field definition with every key that the API shows."""
    shape = {**DEFINITION_SHAPES[kind], "created_at": now, "updated_at": now}
    field: dict[str, Any] = {"url": f"{ADDRESS}/{kind}/{number}.json", **shape, **given, "id": number}
    field["raw_title"], field["raw_description"] = field["title"], field["description"]
    if kind == "ticket_fields":
        field["title_in_portal"] = field["raw_title_in_portal"] = field["title_in_portal"] or field["title"]
    options = given.get("custom_field_options")
    if options is not None:
        field["custom_field_options"] = [
            {"id": number * 100 + i, "name": o.get("name", o["value"]), "raw_name": o.get("name", o["value"]), "value": o["value"]}
            for i, o in enumerate(options)
        ]  # fmt: skip
    return field


def _options(field: str) -> list[dict[str, str]]:
    return [{"name": v.capitalize(), "value": v} for v in OBJECTS["tickets"].fields[field].enum or ()]


#: What every account has.
SYSTEM_TICKET_FIELDS: tuple[Mapping[str, Any], ...] = (
    {"type": "subject", "title": "Subject", "removable": False},
    {"type": "description", "title": "Description", "removable": False},
    {"type": "status", "title": "Status", "removable": False, "system_field_options": _options("status")},
    {"type": "tickettype", "title": "Type", "removable": False, "system_field_options": _options("type")},
    {"type": "priority", "title": "Priority", "removable": False, "system_field_options": _options("priority")},
    {"type": "group", "title": "Group", "removable": False},
    {"type": "assignee", "title": "Assignee", "removable": False},
)
