"""What the stand-in org holds, and the rules by which it takes a record or not.

Source: Object Reference, status codes; Help: field types, validation rules, external ids, 15- and 18-character ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from oploop.apps.salesforce.sandbox_schema import DEFAULTS, NAMES, PREFIXES, RULES, describe

INTEGRATION = "integration@acme.example"
_CHECKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Refusal(Exception):
    """A record that is not taken: a status code of the Object Reference, and Salesforce's words."""

    def __init__(self, code: str, message: str, *fields: str) -> None:
        super().__init__(message)
        self.code, self.message, self.fields = code, message, list(fields)

    def as_json(self, *, key: str = "statusCode") -> dict[str, Any]:
        return {key: self.code, "message": self.message, "fields": self.fields}


class Unreadable(Exception):
    """A body that cannot be taken at all, whatever its other records are: (code, message)."""


def long_id(text: str) -> str:
    """An id in its 18-character form; others are left as they are."""
    if len(text) != 15:
        return text
    checks = [sum(1 << i for i, c in enumerate(text[s : s + 5]) if "A" <= c <= "Z") for s in (0, 5, 10)]
    return text + "".join(_CHECKS[n] for n in checks)


def make_id(name: str, number: int) -> str:
    """The id of an object's record of this number."""
    digits = ""
    while number:
        number, rest = divmod(number, 62)
        digits = _DIGITS[rest] + digits
    return long_id(f"{PREFIXES[name]}5g{digits.rjust(10, '0')}")


class Org:
    """Records by object and id; each with all its fields, times as ISO texts in UTC."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.described = {name: describe(name) for name in NAMES}
        self.fields = {n: {f["name"]: f for f in d["fields"]} for n, d in self.described.items()}
        self.records: dict[str, dict[str, dict[str, Any]]] = {n: {} for n in NAMES}
        self._made = dict.fromkeys(NAMES, 0)
        self._unique: dict[tuple[str, str, str], list[str]] = {}
        self.me = self._put("User", {"Username": INTEGRATION, "Email": INTEGRATION, "LastName": "Integration"})
        self._put("Organization", {"Name": "Sandbox Org", "OrganizationType": "Developer Edition", "IsSandbox": False})

    # -- filling and looking -----------------------------------------------------------------------------------------

    def load(self, name: str, record: Mapping[str, Any]) -> str:
        """Put a record in as it is, as if it had always been there."""
        if name not in self.records:
            raise LookupError(f"no object {name}")
        unknown = set(record) - set(self.fields[name])
        if unknown:
            raise ValueError(f"{name} has no field {min(unknown)}")
        return self._put(name, record)

    def _put(self, name: str, record: Mapping[str, Any]) -> str:
        self._made[name] += 1
        record_id = long_id(str(record.get("Id") or make_id(name, self._made[name])))
        stamp, blank = self.stamp(), dict.fromkeys(self.fields[name])
        flags = {f: False for f, t in self.fields[name].items() if t["type"] == "boolean"}
        me = getattr(self, "me", record_id)
        times = {"CreatedDate": stamp, "LastModifiedDate": stamp, "SystemModstamp": stamp}
        made = {**blank, **flags, **DEFAULTS.get(name, {}), **times, "CreatedById": me, "LastModifiedById": me}
        if name == "User":
            made["IsActive"] = True
        if "OwnerId" in self.fields[name]:
            made["OwnerId"] = me
        if "CaseNumber" in made:
            made["CaseNumber"] = f"{self._made[name]:08d}"
        self._store(name, record_id, {**made, **record, "Id": record_id})
        return record_id

    def _store(self, name: str, record_id: str, record: dict[str, Any]) -> None:
        if "FirstName" in record and "Name" in record:
            record["Name"] = " ".join(t for t in (record["FirstName"], record["LastName"]) if t)
        self._index(name, self.records[name].get(record_id), record)
        self.records[name][record_id] = record

    def _index(self, name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        for field in self.matching(name):
            for record, add in ((old, False), (new, True)):
                if record is None or record[field] is None or record.get("IsDeleted"):
                    continue
                held = self._unique.setdefault((name, field, str(record[field]).lower()), [])
                if add:
                    held.append(record["Id"])
                elif record["Id"] in held:
                    held.remove(record["Id"])

    def matching(self, name: str) -> list[str]:
        """Fields by which records are found, or may stand only once."""
        return [n for n, t in self.fields[name].items() if (t["externalId"] or t["unique"]) and n != "Id"]

    def found(self, name: str, field: str, value: Any) -> list[str]:
        """The ids of live records with an external id."""
        return list(self._unique.get((name, field, str(value).strip().lower()), ()))

    def stamp(self) -> str:
        return self._now().astimezone(UTC).replace(microsecond=0).isoformat()

    def live(self, name: str) -> list[dict[str, Any]]:
        return [r for r in self.records[name].values() if not r.get("IsDeleted")]

    # -- changes -----------------------------------------------------------------------------------------------------

    def insert(self, name: str, sent: Mapping[str, Any]) -> str:
        values = self.taken(name, sent, new=True)
        needed = [
            n
            for n, t in self.fields[name].items()
            if t["createable"] and not t["nillable"] and not t["defaultedOnCreate"]
        ]
        missing = [n for n in needed if values.get(n) is None]
        if missing:
            raise Refusal("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(missing)}]", *missing)
        self._prove(name, values, None)
        return self._put(name, values)

    def update(self, name: str, record_id: str, sent: Mapping[str, Any]) -> str:
        record = self.held(name, record_id)
        values = self.taken(name, sent, new=False)
        for field, value in values.items():
            if value is None and not self.fields[name][field]["nillable"]:
                raise Refusal("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{field}]", field)
        changed = {**record, **values}
        self._prove(name, changed, record["Id"])
        stamp = self.stamp()
        changed |= {"LastModifiedDate": stamp, "SystemModstamp": stamp, "LastModifiedById": self.me}
        self._store(name, record["Id"], changed)
        return str(record["Id"])

    def upsert(self, name: str, field: str, sent: Mapping[str, Any]) -> tuple[str, bool]:
        """(id, whether it was made)."""
        value = sent.get(field)
        if value in (None, ""):
            raise Refusal("MISSING_ARGUMENT", f"{field} not specified")
        ids = self.found(name, field, value)
        if len(ids) > 1:
            listed = ", ".join(ids)
            raise Refusal(
                "DUPLICATE_EXTERNAL_ID", f"{field}: more than one record found for external id field: [{listed}]", field
            )
        if ids:
            return self.update(name, ids[0], sent), False
        return self.insert(name, sent), True

    def delete(self, name: str, record_id: str) -> str:
        record = self.held(name, record_id)
        stamp = self.stamp()
        self._index(name, record, None)
        record.update({"IsDeleted": True, "SystemModstamp": stamp, "LastModifiedDate": stamp})
        return str(record["Id"])

    def held(self, name: str, record_id: Any) -> dict[str, Any]:
        text = long_id(str(record_id))
        if not re.fullmatch(r"[A-Za-z0-9]{18}", text):
            raise Refusal("MALFORMED_ID", f"{name} ID: id value of incorrect type: {record_id}", "Id")
        record = self.records[name].get(text)
        if record is None:
            raise Refusal("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
        if record.get("IsDeleted"):
            raise Refusal("ENTITY_IS_DELETED", "entity is deleted")
        return record

    # -- rules -------------------------------------------------------------------------------------------------------

    def known(self, name: str, sent: Mapping[str, Any]) -> None:
        """Unreadable when a field is none of the object's: then no record of the call is looked at."""
        for field in sent:
            if field.lower() not in ("id", "attributes") and field not in self.fields[name]:
                raise Unreadable("INVALID_FIELD", f"No such column '{field}' on sobject of type {name}")

    def taken(self, name: str, sent: Mapping[str, Any], *, new: bool) -> dict[str, Any]:
        """The values as they will be stored."""
        found, right = {}, "createable" if new else "updateable"
        for field, value in sent.items():
            if field.lower() in ("id", "attributes"):
                continue
            told = self.fields[name][field]
            if not told[right]:
                raise Refusal(
                    "INVALID_FIELD_FOR_INSERT_UPDATE",
                    f"Unable to create/update fields: {field}. Please check the security settings of this field and verify "
                    "that it is read/write for your profile or permission set.",
                    field,
                )
            found[field] = self._stored(told, value)
        return found

    def _stored(self, told: Mapping[str, Any], value: Any) -> Any:
        if value is None or value == "":
            return False if told["type"] == "boolean" else None
        match told["type"]:
            case "boolean":
                return _as_flag(told, value)
            case "int" | "double" | "currency" | "percent":
                return _as_number(told, value)
            case "date":
                return _as_time(told, value, lambda t: date.fromisoformat(t).isoformat())
            case "datetime":
                return _as_time(told, value, _instant)
            case "reference":
                return self._referred(told, value)
            case _:
                return _as_text(told, value)

    def _referred(self, told: Mapping[str, Any], value: Any) -> str:
        text = long_id(str(value))
        if not re.fullmatch(r"[A-Za-z0-9]{18}", text):
            raise Refusal("MALFORMED_ID", f"{told['label']}: id value of incorrect type: {value}", told["name"])
        for name in told["referenceTo"]:
            record = self.records[name].get(text)
            if record is not None and not record.get("IsDeleted"):
                if name == "User" and not record["IsActive"]:
                    raise Refusal(
                        "INACTIVE_OWNER_OR_USER", f"operation performed with inactive user [{text}] as owner of it"
                    )
                return text
        raise Refusal("INVALID_CROSS_REFERENCE_KEY", f"invalid cross reference id: {value}", told["name"])

    def _prove(self, name: str, record: Mapping[str, Any], record_id: str | None) -> None:
        for of, breaks, says in RULES:
            if of == name and breaks(record):
                raise Refusal("FIELD_CUSTOM_VALIDATION_EXCEPTION", says)
        for field in self.matching(name):
            if self.fields[name][field]["unique"] and record.get(field) is not None:
                others = [i for i in self.found(name, field, record[field]) if i != record_id]
                if others:
                    said = f"duplicate value found: {field} duplicates value on record with id: {others[0]}"
                    raise Refusal("DUPLICATE_VALUE", said)


def _unreadable(told: Mapping[str, Any], value: Any) -> Unreadable:
    kind = "VALUE_STRING" if isinstance(value, str) else "value"
    return Unreadable("JSON_PARSER_ERROR", f"Cannot deserialize instance of {told['type']} from {kind} value {value}")


def _as_flag(told: Mapping[str, Any], value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise _unreadable(told, value)


def _as_number(told: Mapping[str, Any], value: Any) -> int | float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise _unreadable(told, value) from None
    if told["type"] == "int":
        return int(number)
    if abs(number) >= 10.0 ** (told["precision"] - told["scale"]):
        raise Refusal(
            "NUMBER_OUTSIDE_VALID_RANGE",
            f"{told['label']}: value outside of valid range on numeric field: {value}",
            told["name"],
        )
    return round(number, int(told["scale"]))


def _as_time(told: Mapping[str, Any], value: Any, read: Callable[[str], str]) -> str:
    try:
        return read(str(value))
    except ValueError:
        raise _unreadable(told, value) from None


def _instant(text: str) -> str:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(text)
    return found.astimezone(UTC).replace(microsecond=0).isoformat()


def _as_text(told: Mapping[str, Any], value: Any) -> str | None:
    if isinstance(value, bool | dict | list):
        raise _unreadable(told, value)
    text, label, name = str(value).strip(), told["label"], told["name"]
    if told["length"] and len(text) > told["length"]:
        raise Refusal(
            "STRING_TOO_LONG", f"{label}: data value too large: {text[:80]} (max length={told['length']})", name
        )
    if told["restrictedPicklist"] and text not in [v["value"] for v in told["picklistValues"]]:
        raise Refusal(
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", f"{label}: bad value for restricted picklist field: {text}", name
        )
    if told["type"] == "multipicklist":
        order = [v["value"] for v in told["picklistValues"]]
        picked = list(dict.fromkeys(text.split(";")))
        text = ";".join(sorted(picked, key=lambda v: order.index(v) if v in order else len(order)))
    if told["type"] == "email":
        if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", text):
            raise Refusal("INVALID_EMAIL_ADDRESS", f"{label}: invalid email address: {text}", name)
        text = text.lower()
    return text or None
