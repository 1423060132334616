"""How HubSpot takes and keeps the values of properties."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from oploop.apps.hubspot.sandbox_shapes import LOWERED, Refusal, iso

EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Wrong(Exception):
    """A value that a property does not take: HubSpot's code for it, and its words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def checked(definitions: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, str | None]:
    """The values as they are kept; Refusal (400) that lists all that are wrong."""
    kept: dict[str, str | None] = {}
    wrong: list[dict[str, Any]] = []
    for name, value in given.items():
        try:
            kept[name] = _kept(definitions.get(name), name, value)
        except Wrong as e:
            wrong.append({"isValid": False, "message": e.message, "error": e.code, "name": name})
    if wrong:
        errors = [
            {"message": w["message"], "code": w["error"], "context": {"propertyName": [w["name"]]}} for w in wrong
        ]
        raise Refusal(400, f"Property values were not valid: {orjson.dumps(wrong).decode()}", errors=errors)
    return kept


def _kept(definition: Mapping[str, Any] | None, name: str, value: Any) -> str | None:
    if definition is None or definition["archived"]:
        raise Wrong("PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
    if definition["modificationMetadata"]["readOnlyValue"]:
        raise Wrong("READ_ONLY_VALUE", f'"{name}" is a read only property; its value cannot be set.')
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise Wrong("INVALID_TYPE", f"{value!r} is no text")
    match definition["type"]:
        case "number":
            if not NUMBER.fullmatch(value.strip()):
                raise Wrong("INVALID_NUMBER", f"{value} was not a valid number.")
            return value.strip()
        case "date":
            return _date(value)
        case "datetime":
            return iso(_instant(value))
        case "bool":
            return _option(("true", "false"), value)
        case "enumeration":
            return _enumeration(definition, value)
        case _:
            return _text(name, value)


def _text(name: str, value: str) -> str:
    if len(value) > 65_536:
        raise Wrong("VALUE_TOO_LONG", f"{name} is longer than 65536 characters")
    if name == "email" and not EMAIL.fullmatch(value.strip()):
        raise Wrong("INVALID_EMAIL", f"Email address {value} is invalid")
    return value.strip().lower() if name in LOWERED else value


def _enumeration(definition: Mapping[str, Any], value: str) -> str:
    allowed = [o["value"] for o in definition["options"]]
    if definition["externalOptions"]:
        return value
    if definition["fieldType"] == "checkbox":
        return ";".join(_option(allowed, v) for v in value.strip(";").split(";"))
    return _option(allowed, value)


def _option(allowed: Any, value: str) -> str:
    if value not in allowed:
        raise Wrong("INVALID_OPTION", f"{value} was not one of the allowed options: [{', '.join(allowed)}]")
    return value


def _instant(value: str) -> datetime:
    try:
        if re.fullmatch(r"-?\d+", value):
            return EPOCH + timedelta(milliseconds=int(value))
        at = datetime.fromisoformat(value)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Wrong("INVALID_DATE", f"{value} was not a valid timestamp.") from None


def _date(value: str) -> str:
    at = _instant(value)
    if (at - EPOCH) % timedelta(days=1):
        raise Wrong("INVALID_DATE", f"{value} is at {at:%H:%M} UTC, not midnight!")
    return f"{at.astimezone(UTC):%Y-%m-%d}"
