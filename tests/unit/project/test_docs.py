"""docs/configuration.md names every key that the reader takes, and no other; its examples are right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from oploop.project.alerts import ALERT_KEYS
from oploop.project.config import (
    APP_KEYS,
    BUDGET_KEYS,
    ENVIRONMENT_KEYS,
    HTTP_KEYS,
    PROJECT_KEYS,
    RETENTION_KEYS,
    STREAM_KEYS,
    TABLE_KEYS,
    WAREHOUSE_KEYS,
)
from oploop.project.models import MODELS_KEYS
from oploop.project.syncs import CHECK_KEYS, FIELD_KEYS, LIMIT_KEYS, SYNC_KEYS

PAGE = Path(__file__).parents[3] / "docs/configuration.md"
SECTIONS: dict[str, Mapping[str, object]] = {
    "oploop.yml": PROJECT_KEYS,
    "warehouse": WAREHOUSE_KEYS,
    "models": MODELS_KEYS,
    "apps": APP_KEYS,
    "read": STREAM_KEYS,
    "budget": BUDGET_KEYS,
    "http": HTTP_KEYS,
    "environments": ENVIRONMENT_KEYS,
    "retention": RETENTION_KEYS,
    "alerts": ALERT_KEYS,
    "tables": TABLE_KEYS,
    "syncs/*.yml": SYNC_KEYS,
    "fields": FIELD_KEYS,
    "limits": LIMIT_KEYS,
    "checks": CHECK_KEYS,
}


def _tables() -> dict[str, dict[str, str]]:
    """By section: key and the last cell of its row."""
    found: dict[str, dict[str, str]] = {}
    for part in re.split(r"(?m)^##+ ", PAGE.read_text(encoding="utf-8"))[1:]:
        title, _, body = part.partition("\n")
        rows = re.findall(r"(?m)^\| `(\w+)`(?: †)? \|(.*)\|$", body)
        if rows:
            found[title.strip()] = {key: re.split(r"(?<!\\)\|", rest)[-1].strip() for key, rest in rows}
    return found


def test_the_page_has_each_section() -> None:
    assert _tables().keys() == SECTIONS.keys()


@pytest.mark.parametrize("section", SECTIONS)
def test_keys(section: str) -> None:
    assert set(_tables()[section]) == set(SECTIONS[section])


@pytest.mark.parametrize("section", SECTIONS)
def test_each_key_has_an_example_that_is_right(section: str) -> None:
    """The last code in a row is its example; rows that have a section of their own need none."""
    from oploop.project.yaml import parse_yaml

    for key, cell in _tables()[section].items():
        if cell.endswith("see below") or key in SECTIONS:
            continue
        example = re.findall(r"`([^`]+)`", cell)[-1].replace("\\|", "|")
        block = parse_yaml(example, "docs")
        inner = block if key in block else next((v for v in block.values() if isinstance(v, dict) and key in v), None)
        assert inner is not None, example
        SECTIONS[section][key](inner[key], inner.places[key], key)  # type: ignore[operator]
