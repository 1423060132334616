"""The columns are those of the API's own schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oploop.apps.stripe.streams import RESOURCES
from oploop.records import ColumnType

SPEC = Path(__file__).parents[3] / "../shared/specs/stripe.json"


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    if not SPEC.exists():
        pytest.skip("needs ../shared: specs/stripe.json")
    found: dict[str, Any] = json.loads(SPEC.read_text())["components"]["schemas"]
    return found


def kind_of(schema: dict[str, Any]) -> ColumnType:
    """A field's type; what may be an id (text) or the whole object is an id here."""
    if "anyOf" in schema:
        text = any(one.get("type") == "string" for one in schema["anyOf"])
        return ColumnType.TEXT if text else ColumnType.JSON
    if schema.get("format") == "unix-time":
        return ColumnType.UNIX
    names = {
        "integer": ColumnType.INTEGER,
        "number": ColumnType.NUMBER,
        "boolean": ColumnType.BOOLEAN,
        "string": ColumnType.TEXT,
    }
    return names.get(schema.get("type", ""), ColumnType.JSON)


@pytest.mark.parametrize("name", list(RESOURCES))
def test_columns_and_required_fields_are_the_schemas(name: str, schemas: dict[str, Any]) -> None:
    resource = RESOURCES[name]
    schema = schemas[resource.object]
    assert dict(resource.stream.columns) == {field: kind_of(s) for field, s in schema["properties"].items()}
    assert resource.required == set(schema["required"])


@pytest.mark.parametrize("name", list(RESOURCES))
def test_no_stream_asks_for_more_types_of_events_than_the_api_takes(name: str) -> None:
    assert 0 < len(RESOURCES[name].types) <= 20
    assert RESOURCES[name].deletes <= RESOURCES[name].events
