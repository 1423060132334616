"""What stands where in documents, and how they stand in addresses and forms."""

from __future__ import annotations

from typing import Any

import pytest

from oploop.apps.documents import at, in_pairs, nested
from tests.unit.apps.wire import BASE, Wire


@pytest.mark.parametrize(
    ("path", "found"),
    [("", {"a": [{"b": 1}]}), ("a.0.b", 1), ("a.1.b", None), ("a.b", None), ("x.y", None)],
)
def test_what_stands_at_a_path(path: str, found: Any) -> None:
    assert at({"a": [{"b": 1}]}, path) == found


def test_dotted_names_are_objects_of_those_that_are_named() -> None:
    values = {"metadata.plan": "pro", "name": "x", "metadata.a.b": None, "other.y": 1, "metadata": "no"}
    assert nested(dict(list(values.items())[:4]), "metadata") == {
        "metadata": {"plan": "pro", "a.b": None},
        "name": "x",
        "other.y": 1,
    }
    assert nested({}, "metadata") == {}


def test_what_is_nested_is_written_with_brackets() -> None:
    params = {"metadata": {"plan": "pro", "gone": None}, "types": ["a", {"b": 1}], "ok": True, "no": False, "none": {}}
    assert list(in_pairs(params.items())) == [
        ("metadata[plan]", "pro"),
        ("metadata[gone]", ""),
        ("types[]", "a"),
        ("types[][b]", "1"),
        ("ok", "true"),
        ("no", "false"),
    ]


async def test_a_transport_writes_them_so_in_addresses_and_in_forms() -> None:
    wire = Wire([200])
    given = {"created": {"gte": 5}, "left": None, "types": ("a", "b")}
    await wire.transport().request("POST", "x", params=given, form=given)
    [(_, request)] = wire.requests
    assert request.url == f"{BASE}/x?created%5Bgte%5D=5&types%5B%5D=a&types%5B%5D=b"
    assert request.body == b"created%5Bgte%5D=5&left=&types%5B%5D=a&types%5B%5D=b"
