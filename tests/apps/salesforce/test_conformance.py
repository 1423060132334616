"""Salesforce before the suite that every app must pass."""

from __future__ import annotations

from typing import Any

from oploop.apps.conformance import AppSuite, ObjectCase, StreamCase
from oploop.apps.salesforce import SalesforceApp
from oploop.apps.salesforce.sandbox import SalesforceSandbox
from oploop.apps.salesforce.sandbox_org import make_id
from oploop.apps.sandbox import Sandbox
from oploop.runtime import Runtime

START = 1_000


def _account(i: int) -> dict[str, Any]:
    return {
        "Id": make_id("Account", START + i),
        "Name": f"Bäckerei {i} 🥐",
        "Health_Score__c": None if i % 3 else float(i % 100),
        "Segments__c": "SMB;Public" if i % 2 else None,
    }


def _user(i: int) -> dict[str, Any]:
    return {
        "Id": make_id("User", START + i),
        "LastName": f"Ünal {i}",
        "Username": f"u{i}@acme.example",
        "Email": f"u{i}@acme.example",
    }


def _change(name: str, field: str, sandbox: Any, key: str) -> None:
    sandbox.org.update(name, key, {field: "geändert"})


class TestSalesforce(AppSuite):
    app_class = SalesforceApp
    elsewhere = (
        "Contact",
        "Lead",
        "Opportunity",
        "Case",
        "Task",
        "User",
        "Organization",
    )  # read and written as Account is
    wrong_credentials = {"client_id": "nobodys-client", "client_secret": "nobodys-secret"}
    streams = [
        StreamCase(
            "Account",
            kind="Account",
            record=_account,
            calls="GET /services/data/v62.0/query",
            change=lambda box, key: _change("Account", "Description", box, key),
            delete=lambda box, key: box.org.delete("Account", key),
        ),
        StreamCase(
            "User",
            kind="User",
            record=_user,
            calls="GET /services/data/v62.0/query",
            change=lambda box, key: _change("User", "Department", box, key),
        ),
    ]
    objects = [
        ObjectCase(
            "Account",
            fields=lambda i: {
                "Billing_Id__c": f"b-{i}",
                "Name": f"Ein 'Haus' {i} 🏠",
                "Segments__c": ["Public", "SMB"],
            },
            changed=lambda i: {
                "Health_Score__c": 41.0,
                "Health__c": "At Risk",
                "Segments__c": None,
                "Name": f"Neu {i}",
            },
            bad={"Health__c": "Unknown"},
            calls="/services/data/v62.0/composite/sobjects",
            key=("Billing_Id__c",),
        ),
        ObjectCase(
            "Contact",
            fields=lambda i: {"Plan__c": f"p-{i}", "LastName": f"Ünal {i}", "Email": f"u{i}@acme.example"},
            changed=lambda i: {"Department": "Einkauf", "Email": None},
            bad={"Email": "nobody"},
            calls="/services/data/v62.0/composite/sobjects",
            key=("Plan__c",),
            nothing=("[]", "[{}, {}]", '[{"success": true}, null]'),
        ),
    ]

    def sandbox(self, runtime: Runtime) -> Sandbox:
        return SalesforceSandbox(runtime=runtime, page=100)
