"""What the HubSpot sandbox's account has from the start: property definitions, pipelines, association types; how errors look."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

TYPE_IDS: Mapping[str, str] = {"contacts": "0-1", "companies": "0-2", "deals": "0-3", "tickets": "0-5"}
FIRST_CUSTOM = 100_001
PORTAL = 4_242_424

#: (from, to): (type id without a label, type id of the primary one).
LINKS: Mapping[tuple[str, str], tuple[int, int | None]] = {
    ("contacts", "companies"): (279, 1), ("companies", "contacts"): (280, 2),
    ("deals", "companies"): (341, 5), ("companies", "deals"): (342, 6),
    ("tickets", "companies"): (339, 26), ("companies", "tickets"): (340, 25),
    ("deals", "contacts"): (3, None), ("contacts", "deals"): (4, None),
    ("tickets", "contacts"): (16, None), ("contacts", "tickets"): (15, None),
    ("deals", "tickets"): (27, None), ("tickets", "deals"): (28, None),
}  # fmt: skip
#: The property that shows the primary company.
SHOWS_PRIMARY: Mapping[str, str] = {
    "contacts": "associatedcompanyid",
    "deals": "hs_primary_associated_company",
    "tickets": "hs_primary_company_id",
}

LIFECYCLE = ("subscriber", "lead", "marketingqualifiedlead", "salesqualifiedlead", "opportunity", "customer", "evangelist", "other")  # fmt: skip
STAGES = ("appointmentscheduled", "qualifiedtobuy", "contractsent", "closedwon", "closedlost")

#: name: (type, field type, label, more)
_COMMON: Mapping[str, tuple[Any, ...]] = {
    "createdate": ("datetime", "date", "Create Date", {"readonly": True}),
    "hs_object_id": ("number", "number", "Record ID", {"readonly": True}),
    "hubspot_owner_id": ("enumeration", "select", "Owner", {"externalOptions": True, "referencedObjectType": "OWNER"}),
    "hs_merged_object_ids": ("enumeration", "checkbox", "Merged record IDs", {"readonly": True, "hidden": True}),
    "hs_all_owner_ids": ("enumeration", "checkbox", "All owner IDs", {"readonly": True, "hidden": True}),
}
_CHANGED = ("datetime", "date", "Last Modified Date", {"readonly": True})
_OWN: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "contacts": {
        "email": ("string", "text", "Email", {}),
        "firstname": ("string", "text", "First Name", {}),
        "lastname": ("string", "text", "Last Name", {}),
        "phone": ("string", "phonenumber", "Phone Number", {}),
        "jobtitle": ("string", "text", "Job Title", {}),
        "company": ("string", "text", "Company Name", {}),
        "lifecyclestage": ("enumeration", "radio", "Lifecycle Stage", {"options": LIFECYCLE}),
        "hs_persona": ("enumeration", "radio", "Persona", {"options": ("persona_1", "persona_2")}),
        "associatedcompanyid": ("number", "number", "Primary Associated Company ID", {}),
        "num_associated_deals": ("number", "number", "Number of Associated Deals", {"calculated": True}),
        "lastmodifieddate": _CHANGED,
    },
    "companies": {
        "name": ("string", "text", "Company name", {}),
        "domain": ("string", "text", "Company Domain Name", {}),
        "industry": ("enumeration", "select", "Industry", {"options": ("COMPUTER_SOFTWARE", "RETAIL", "BANKING")}),
        "lifecyclestage": ("enumeration", "radio", "Lifecycle Stage", {"options": LIFECYCLE}),
        "numberofemployees": ("number", "number", "Number of Employees", {}),
        "hs_lastmodifieddate": _CHANGED,
    },
    "deals": {
        "dealname": ("string", "text", "Deal Name", {}),
        "dealstage": ("enumeration", "radio", "Deal Stage", {"options": STAGES}),
        "pipeline": ("enumeration", "select", "Pipeline", {"options": ("default",)}),
        "amount": ("number", "number", "Amount", {}),
        "closedate": ("datetime", "date", "Close Date", {}),
        "hs_primary_associated_company": ("number", "number", "Primary Associated Company", {"calculated": True}),
        "hs_lastmodifieddate": _CHANGED,
    },
    "tickets": {
        "subject": ("string", "text", "Ticket name", {}),
        "content": ("string", "textarea", "Ticket description", {}),
        "hs_pipeline": ("enumeration", "select", "Pipeline", {"options": ("0",)}),
        "hs_pipeline_stage": ("enumeration", "select", "Ticket status", {"options": ("1", "2", "3", "4")}),
        "hs_ticket_priority": ("enumeration", "select", "Priority", {"options": ("LOW", "MEDIUM", "HIGH")}),
        "hs_primary_company_id": ("number", "number", "Primary Company ID", {"calculated": True}),
        "hs_lastmodifieddate": _CHANGED,
    },
}  # fmt: skip
#: What a new record must have.
REQUIRED: Mapping[str, tuple[str, ...]] = {"deals": ("dealstage",), "tickets": ("hs_pipeline_stage",)}
DEFAULTS: Mapping[str, Mapping[str, str]] = {"deals": {"pipeline": "default"}, "tickets": {"hs_pipeline": "0"}}
LOWERED = frozenset({"email", "domain"})


def changed_name(kind: str) -> str:
    return "lastmodifieddate" if kind == "contacts" else "hs_lastmodifieddate"


def default_properties(kind: str) -> dict[str, dict[str, Any]]:
    """The definitions of the properties that HubSpot itself gives a type."""
    own = _OWN.get(kind, {"hs_lastmodifieddate": _CHANGED})
    return {
        name: definition({"name": name, "type": t, "fieldType": f, "label": label, "hubspotDefined": True, **more})
        for name, (t, f, label, more) in {**_COMMON, **own}.items()
    }


def definition(given: Mapping[str, Any]) -> dict[str, Any]:
    """A whole property definition. `readonly` says that its value cannot be set; options may be values alone."""
    more = dict(given)
    read_only = bool(more.pop("readonly", False) or more.get("calculated"))
    options = [
        o if isinstance(o, Mapping) else {"label": str(o).title(), "value": str(o), "displayOrder": i, "hidden": False}
        for i, o in enumerate(more.pop("options", ()))
    ]
    return {
        "label": more["name"],
        "type": "string",
        "fieldType": "text",
        "description": "",
        "groupName": "information",
        "displayOrder": -1,
        "calculated": False,
        "externalOptions": False,
        "hasUniqueValue": False,
        "hidden": False,
        "hubspotDefined": False,
        "archived": False,
        "formField": not read_only,
        "dataSensitivity": "non_sensitive",
        "modificationMetadata": {
            "archivable": not more.get("hubspotDefined", False),
            "readOnlyDefinition": bool(more.get("hubspotDefined", False)),
            "readOnlyValue": read_only,
        },
        **more,
        "options": options,
    }


def iso(at: datetime) -> str:
    """A time as HubSpot writes it: UTC, milliseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, category: str = "VALIDATION_ERROR", **more: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.category, self.more = status, message, category, more

    def body(self) -> dict[str, Any]:
        return {
            "status": "error",
            "message": self.message,
            "correlationId": str(uuid.UUID(int=abs(hash(self.message)) << 8)),
            "category": self.category,
            **self.more,
        }

    def in_batch(self, trace: str | None = None, ids: Sequence[str] = ()) -> dict[str, Any]:
        """The same as one of a batch's errors."""
        context = {"objectWriteTraceId": [trace]} if trace is not None else {"ids": list(ids)}
        return {
            "status": "error",
            "category": self.category,
            "message": self.message,
            "context": context,
            "errors": self.more.get("errors", []),
            "links": {},
        }
