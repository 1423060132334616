"""The stand-in org's objects, described as sObject Describe does: standard ones with custom fields and rules of a company's own.

Source: Object Reference (Account, Contact, Lead, Opportunity, User, Case, Task, Organization); REST API guide, sObject Describe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: The first three characters of an object's ids.
PREFIXES = {
    "Account": "001", "Contact": "003", "User": "005", "Opportunity": "006", "Lead": "00Q", "Case": "500", "Task": "00T",
    "Organization": "00D",
}  # fmt: skip

_LENGTHS = {"id": 18, "reference": 18, "email": 80, "phone": 40, "url": 255, "picklist": 255, "multipicklist": 4099}


def field(name: str, kind: str = "string", /, **more: Any) -> dict[str, Any]:
    """A field's description; `values`: of a picklist, `system`: written by Salesforce alone."""
    values, system = more.pop("values", ()), more.pop("system", False)
    told = {
        "name": name,
        "label": name.removesuffix("__c").replace("_", " "),
        "type": kind,
        "length": _LENGTHS.get(kind, 255 if kind == "string" else 0),
        "precision": 18 if kind in ("double", "currency", "percent") else 0,
        "scale": 2 if kind in ("currency", "percent") else 0,
        "nillable": kind != "boolean",
        "createable": not system,
        "updateable": not system,
        "defaultedOnCreate": kind == "boolean" or system,
        "custom": name.endswith("__c"),
        "externalId": False,
        "unique": False,
        "caseSensitive": False,
        "idLookup": False,
        "nameField": False,
        "calculated": False,
        "restrictedPicklist": False,
        "filterable": True,
        "sortable": kind not in ("textarea", "multipicklist"),
        "inlineHelpText": None,
        "compoundFieldName": None,
        "referenceTo": [],
        "relationshipName": name.removesuffix("Id") if kind == "reference" else None,
        "picklistValues": [
            {"active": True, "defaultValue": False, "label": v, "validFor": None, "value": v} for v in values
        ],
    }
    return {**told, **more}


def _common(*, deletable: bool = True) -> list[dict[str, Any]]:
    return [
        field("Id", "id", system=True, nillable=False, idLookup=True),
        *([field("IsDeleted", "boolean", system=True)] if deletable else []),
        field("CreatedDate", "datetime", system=True, nillable=False),
        field("CreatedById", "reference", system=True, nillable=False, referenceTo=["User"]),
        field("LastModifiedDate", "datetime", system=True, nillable=False),
        field("LastModifiedById", "reference", system=True, nillable=False, referenceTo=["User"]),
        field("SystemModstamp", "datetime", system=True, nillable=False),
    ]


def _owner() -> dict[str, Any]:
    return field("OwnerId", "reference", nillable=False, defaultedOnCreate=True, referenceTo=["User"])


def _ref(name: str, *to: str, **more: Any) -> dict[str, Any]:
    return field(name, "reference", referenceTo=list(to), **more)


def _address(kind: str) -> list[dict[str, Any]]:
    parts = [
        field(f"{kind}{p}", compoundFieldName=f"{kind}Address") for p in ("Street", "City", "PostalCode", "Country")
    ]
    return [*parts, field(f"{kind}Address", "address", system=True)]


def _external(name: str, **more: Any) -> dict[str, Any]:
    return field(name, length=60, externalId=True, idLookup=True, **more)


_ACCOUNT = [
    field("Name", nillable=False, nameField=True),
    field("Type", "picklist", values=["Prospect", "Customer - Direct", "Customer - Channel", "Partner"]),
    _ref("ParentId", "Account"),
    *_address("Billing"),
    field("Phone", "phone"),
    field("Website", "url"),
    field("Industry", "picklist", values=["Banking", "Education", "Energy", "Technology"]),
    field("AnnualRevenue", "currency", scale=0),
    field("NumberOfEmployees", "int"),
    field("Description", "textarea", length=32000),
    field("AccountSource", "picklist", values=["Web", "Phone Inquiry", "Partner Referral", "Other"]),
    _owner(),
    _external("Billing_Id__c", unique=True),
    _external("Legacy_Key__c"),
    field("Health_Score__c", "double", precision=3),
    field("Health__c", "picklist", values=["Healthy", "At Risk"], restrictedPicklist=True),
    field("Segments__c", "multipicklist", values=["SMB", "Enterprise", "Public"]),
    field("MRR__c", "currency"),
    field("Churn_Risk__c", "percent", precision=5),
    field("Renewal_Date__c", "date"),
    field("Last_Seen__c", "datetime"),
    field("Is_Customer__c", "boolean"),
]
_PERSON = [
    field("FirstName", length=40, compoundFieldName="Name"),
    field("LastName", length=80, nillable=False, compoundFieldName="Name"),
    field("Name", length=121, system=True, nillable=False, nameField=True),
    field("Email", "email", idLookup=True),
    field("Phone", "phone"),
    field("Title", length=128),
]
_OBJECTS: Mapping[str, list[dict[str, Any]]] = {
    "Account": [*_common(), *_ACCOUNT],
    "Contact": [
        *_common(), *_PERSON, _ref("AccountId", "Account"), _owner(), field("Department", length=80),
        _external("External_Id__c", unique=True), field("Plan__c", length=40),
    ],
    "Lead": [
        *_common(), *_PERSON, field("Company", nillable=False), _owner(),
        field("Status", "picklist", nillable=False, defaultedOnCreate=True, values=["Open", "Working", "Closed"]),
        field("Rating", "picklist", values=["Hot", "Warm", "Cold"]),
        field("LeadSource", "picklist", values=["Web", "Phone Inquiry", "Other"]),
        _external("External_Id__c", unique=True), field("Score__c", "double", precision=3),
    ],
    "Opportunity": [
        *_common(), field("Name", length=120, nillable=False, nameField=True), _ref("AccountId", "Account"), _owner(),
        field("StageName", "picklist", nillable=False, values=["Prospecting", "Negotiation", "Closed Won", "Closed Lost"]),
        field("CloseDate", "date", nillable=False), field("Amount", "currency"), field("Probability", "percent", scale=0),
        field("LeadSource", "picklist", values=["Web", "Other"]), _external("External_Id__c", unique=True),
    ],
    "User": [
        *_common(deletable=False), field("Username", length=80, nillable=False, unique=True, idLookup=True),
        field("FirstName", length=40), field("LastName", length=80, nillable=False),
        field("Name", length=121, system=True, nillable=False, nameField=True),
        field("Email", "email", nillable=False), field("IsActive", "boolean"), field("Department", length=80),
    ],
    "Case": [
        *_common(), field("CaseNumber", length=30, system=True, nillable=False, nameField=True, idLookup=True),
        field("Subject"), field("Description", "textarea", length=32000), _ref("AccountId", "Account"),
        _ref("ContactId", "Contact"), _owner(),
        field("Status", "picklist", defaultedOnCreate=True, nillable=False, values=["New", "Working", "Escalated", "Closed"]),
        field("Priority", "picklist", values=["High", "Medium", "Low"]), field("Origin", "picklist", values=["Web", "Email"]),
        _external("External_Id__c", unique=True),
    ],
    "Task": [
        *_common(), field("Subject"), field("ActivityDate", "date"), _ref("WhoId", "Contact", "Lead"),
        _ref("WhatId", "Account", "Opportunity", "Case"), _owner(), field("Description", "textarea", length=32000),
        field("Status", "picklist", defaultedOnCreate=True, nillable=False, values=["Not Started", "In Progress", "Completed"]),
        field("Priority", "picklist", defaultedOnCreate=True, nillable=False, values=["High", "Normal", "Low"]),
        _external("External_Id__c", unique=True),
    ],
    "Organization": [
        *_common(deletable=False), field("Name", nillable=False, nameField=True),
        field("OrganizationType", "picklist", system=True), field("IsSandbox", "boolean", system=True),
    ],
}  # fmt: skip

#: What new records have that were not told otherwise.
DEFAULTS = {
    "Lead": {"Status": "Open"}, "Case": {"Status": "New"}, "Task": {"Status": "Not Started", "Priority": "Normal"},
}  # fmt: skip

#: Validation rules: (object, what must not be, what Salesforce then says).
Rule = tuple[str, Callable[[Mapping[str, Any]], bool], str]
RULES: list[Rule] = [
    ("Account", lambda r: not 0 <= (r.get("Health_Score__c") or 0) <= 100, "Health Score is from 0 to 100"),
    ("Opportunity", lambda r: r.get("StageName") == "Closed Won" and not r.get("Amount"), "A won deal has an amount"),
]


def describe(name: str) -> dict[str, Any]:
    """An object's description."""
    writable = name != "Organization"
    return {
        "name": name,
        "label": name,
        "labelPlural": f"{name[:-1]}ies" if name.endswith("y") else f"{name}s",
        "keyPrefix": PREFIXES[name],
        "custom": False,
        "queryable": True,
        "retrieveable": True,
        "searchable": True,
        "createable": writable,
        "updateable": writable,
        "deletable": writable and name != "User",
        "fields": _OBJECTS[name],
    }


NAMES = tuple(_OBJECTS)
