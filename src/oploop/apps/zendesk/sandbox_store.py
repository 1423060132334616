"""What the Zendesk sandbox holds, and Zendesk's rules for changing it. No HTTP here."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from oploop.apps.zendesk.objects import OBJECTS, PREFIXES
from oploop.apps.zendesk.sandbox_shapes import (
    DEFINITION_SHAPES,
    RULES,
    SYSTEM_TICKET_FIELDS,
    complete,
    field_template,
)

KINDS = ("tickets", "users", "organizations")
SINGULAR = {"tickets": "ticket", "users": "user", "organizations": "organization"}
WITHHELD = 60  #: seconds: the exports do not show what changed within the last minute
SAFE_UPDATE = (
    "Safe Update prevented the update due to outdated ticket data. Please fetch the latest ticket data and try again."
)
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
ENUMS: Mapping[str, tuple[str, ...]] = {
    name: field.enum for kind in ("tickets", "users") for name, field in OBJECTS[kind].fields.items() if field.enum
}


class Refusal(Exception):
    """Zendesk says no: the status and body of its answer. `details`: {field: [sentence]}."""

    def __init__(
        self, status: int, error: str, description: str, details: Mapping[str, list[str]] | None = None
    ) -> None:
        super().__init__(description)
        self.status, self.error, self.description, self.details = status, error, description, details or {}

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        body: dict[str, Any] = {"error": self.error, "description": self.description}
        if self.details:
            body["details"] = {
                name: [{"error": "InvalidValue", "description": text} for text in texts]
                for name, texts in self.details.items()
            }
        return body

    def sentence(self) -> str:
        """What the results of a job say of it."""
        return " ".join(t for texts in self.details.values() for t in texts) or self.description


def invalid(details: Mapping[str, list[str]]) -> Refusal:
    """A record that breaks rules."""
    return Refusal(422, "RecordInvalid", "Record validation errors", details)


def not_found() -> Refusal:
    """An address without a record."""
    return Refusal(404, "RecordNotFound", "Not found")


def iso(at: datetime) -> str:
    """A time as Zendesk writes it: whole seconds, UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """All records and field definitions of a sandbox. `clock` gives its time."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Empty it; a new account has the system ticket fields only."""
        self.records: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.definitions: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in DEFINITION_SHAPES}
        self._next = {"tickets": 1, "users": 900001, "organizations": 700001, "definitions": 360000000001}
        self._stamps: dict[str, dict[int, int]] = {kind: {} for kind in KINDS}
        self._orders: dict[str, list[tuple[int, int]] | None] = dict.fromkeys(KINDS)
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self._named: dict[str, dict[tuple[str, str], int]] = {kind: {} for kind in KINDS}
        for definition in SYSTEM_TICKET_FIELDS:
            self.define("ticket_fields", definition)

    def seconds(self) -> int:
        """The sandbox's clock, whole seconds since 1970."""
        return int(self._clock().timestamp())

    # -- looking -----------------------------------------------------------------------------------------------------

    def get(self, kind: str, number: int) -> dict[str, Any]:
        """A live record; Refusal (404) when there is none. Deleted users stay visible, as `active` false."""
        record = self.records[kind].get(number)
        if record is None or (kind != "users" and self.is_deleted(kind, record)):
            raise not_found()
        return record

    def live(self, kind: str) -> list[dict[str, Any]]:
        """All records that are not deleted, by id."""
        found = self.records[kind]
        return [found[n] for n in sorted(found) if not self.is_deleted(kind, found[n])]

    @staticmethod
    def is_deleted(kind: str, record: Mapping[str, Any]) -> bool:
        """Whether a record is deleted; it stays in the store, as the exports show it."""
        if kind == "tickets":
            return bool(record["status"] == "deleted")
        return record["active"] is False if kind == "users" else record["deleted_at"] is not None

    def find(self, kind: str, name: str, value: Any) -> dict[str, Any] | None:
        """The live record with this external_id, email or name, without regard to case."""
        number = self._named[kind].get((name, str(value).lower()))
        return None if number is None else self.records[kind][number]

    def show(self, kind: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record as the API shows it; tickets repeat their custom fields as `fields`."""
        if kind == "tickets":
            values = record["custom_fields"]
            shown = [{"id": n, "value": values.get(n)} for n in self._own_ticket_fields()]
            return {**record, "custom_fields": shown, "fields": shown}
        if kind == "organizations":
            return {k: v for k, v in record.items() if k != "deleted_at"}
        return dict(record)

    def exported(self, kind: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record as the exports show it: with what tells a deleted organization."""
        shown = self.show(kind, record)
        return {**shown, "deleted_at": record["deleted_at"]} if kind == "organizations" else shown

    def _own_ticket_fields(self) -> list[int]:
        return [n for n, d in self.definitions["ticket_fields"].items() if d["removable"]]

    def export(
        self, kind: str, after: tuple[int, int], size: int
    ) -> tuple[list[dict[str, Any]], tuple[int, int], bool]:
        """A page of an export: (records after this (second, id), the last one's (second, id), whether it is the end)."""
        order = self._orders[kind]
        if order is None:
            order = self._orders[kind] = sorted((stamp, n) for n, stamp in self._stamps[kind].items())
        first = bisect_right(order, after)
        until = bisect_right(order, (self.seconds() - WITHHELD, 1 << 62))
        page = order[first : min(first + size, until)]
        records = [self.exported(kind, self.records[kind][n]) for _, n in page]
        return records, page[-1] if page else after, first + size >= until

    # -- filling -----------------------------------------------------------------------------------------------------

    def load(self, kind: str, given: Iterable[Mapping[str, Any]]) -> None:
        """Take records as if they had always been there: completed, never validated."""
        yesterday = iso(self._clock() - timedelta(days=1))
        for source in given:
            number = int(source.get("id") or self._next[kind])
            record = complete(kind, number, source, yesterday)
            record["tags"] = sorted(record["tags"])
            if kind == "tickets":
                record["custom_fields"] = _custom_by_id(source.get("custom_fields"))
            if number in self.records[kind]:
                self._forget_names(kind, self.records[kind][number])
            self._keep(kind, record, _seconds(record))

    def define(self, kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add a field definition (ticket_fields, user_fields, organization_fields)."""
        number = int(given.get("id") or self._next["definitions"])
        self._next["definitions"] = max(self._next["definitions"], number + 1)
        if not given.get("title"):
            raise invalid({"title": ["Title: cannot be blank"]})
        if kind != "ticket_fields" and not given.get("key"):
            raise invalid({"key": ["Key: cannot be blank"]})
        definition = field_template(kind, number, given, iso(self._clock()))
        self.definitions[kind][number] = definition
        return definition

    def _keep(self, kind: str, record: dict[str, Any], stamp: int) -> None:
        number = record["id"]
        self.records[kind][number] = record
        self._next[kind] = max(self._next[kind], number + 1)
        self._stamps[kind][number] = stamp
        self._orders[kind] = None
        if kind == "tickets":
            record["generated_timestamp"] = stamp
        elif not self.is_deleted(kind, record):
            for name in ("external_id", "email" if kind == "users" else "name"):
                if record.get(name):
                    self._named[kind][(name, str(record[name]).lower())] = number

    # -- changing ----------------------------------------------------------------------------------------------------

    def create(self, kind: str, body: Mapping[str, Any], *, submitter: int) -> dict[str, Any]:
        """A new record; Refusal (422) when it breaks a rule."""
        now = iso(self._clock())
        record = complete(kind, self._next[kind], {}, now)
        if kind == "tickets":
            record.update(requester_id=submitter, submitter_id=submitter, custom_fields={})
        self._apply(kind, record, body, new=True)
        self._keep(kind, record, self.seconds())
        self._comment(kind, record, body)
        return record

    def update(self, kind: str, number: int, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change a record. A change that changes nothing moves no time."""
        old = self.get(kind, number)
        if kind == "tickets" and body.get("safe_update") and body.get("updated_stamp") != old["updated_at"]:
            raise Refusal(409, "UpdateConflict", SAFE_UPDATE)
        if kind == "tickets" and old["status"] == "closed":
            raise invalid({"status": ["Status: closed prevents ticket update"]})
        record = {**old, "custom_fields": dict(old["custom_fields"])} if kind == "tickets" else dict(old)
        self._apply(kind, record, body, new=False)
        if record == old and not body.get("comment"):
            return old
        self._forget_names(kind, old)
        record["updated_at"] = iso(self._clock())
        self._keep(kind, record, self.seconds())
        self._comment(kind, record, body)
        return record

    def _comment(self, kind: str, record: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        """Keep the comment that comes with a change of a ticket."""
        given = body.get("comment")
        if kind == "tickets" and given:
            told = given if isinstance(given, Mapping) else {"body": given}
            held = self.comments.setdefault(record["id"], [])
            number = sum(map(len, self.comments.values())) + 5_000_001
            held.append(
                {
                    "id": number,
                    "type": "Comment",
                    "author_id": told.get("author_id", record["submitter_id"]),
                    "body": told.get("body"),
                    "html_body": told.get("html_body") or f"<p>{told.get('body')}</p>",
                    "plain_body": told.get("body"),
                    "public": told.get("public", True),
                    "attachments": [],
                    "audit_id": record["id"] * 1000 + len(held),
                    "via": {"channel": "api", "source": {"from": {}, "to": {}, "rel": None}},
                    "created_at": iso(self._clock()),
                    "metadata": {},
                }
            )

    def upsert(self, kind: str, body: Mapping[str, Any], *, submitter: int) -> tuple[dict[str, Any], bool]:
        """(record, whether it is new): matched by id, external_id or (users) e-mail, never by an organization's name."""
        found: dict[str, Any] | None = None
        if body.get("id") is not None:
            found = self.get(kind, int(body["id"]))
        for name in ("external_id", "email") if kind == "users" else ("external_id",):
            if found is None and body.get(name):
                found = self.find(kind, name, body[name])
        if found is None:
            return self.create(kind, body, submitter=submitter), True
        return self.update(kind, found["id"], body), False

    def delete(self, kind: str, number: int) -> dict[str, Any]:
        """Delete a record; the exports go on showing it, as deleted."""
        record = self.get(kind, number)
        if self.is_deleted(kind, record):
            raise not_found()
        self._forget_names(kind, record)
        now = iso(self._clock())
        if kind == "tickets":
            record["status"] = "deleted"
        elif kind == "users":
            record.update(active=False, email=None)
        else:
            record.update(deleted_at=now, name=f"{number}_deleted_{record['name']}")
        record["updated_at"] = now
        self._keep(kind, record, self.seconds())
        return record

    def system_update(self, numbers: Iterable[int]) -> None:
        """What Zendesk does by itself: `generated_timestamp` moves, `updated_at` does not."""
        for number in numbers:
            self._keep("tickets", self.records["tickets"][number], self.seconds())

    def _forget_names(self, kind: str, record: Mapping[str, Any]) -> None:
        named = self._named[kind]
        for name in ("external_id", "email", "name"):
            key = (name, str(record.get(name)).lower())
            if named.get(key) == record["id"]:
                del named[key]

    def _apply(self, kind: str, record: dict[str, Any], body: Mapping[str, Any], *, new: bool) -> None:
        """Take over what the body has of known fields; what Zendesk does not know it ignores in silence."""
        wrong: dict[str, list[str]] = {}
        for name, rule in RULES[kind].items():
            if name in body and not (kind == "users" and name == "email" and record.get("email")):
                try:
                    record[name] = _value(name, rule, body[name])
                except ValueError:
                    wrong[name] = [f"{_label(name)}: {str(body[name])[:80]} is invalid"]
        wrong |= self._missing(kind, record, body, new) | self._clashes(kind, record, body)
        if kind == "tickets":
            wrong |= self._apply_custom(record, body)
            record["raw_subject"] = record["subject"]
            if new and "status" not in body and record["assignee_id"] is not None:
                record["status"] = "open"
        else:
            own = PREFIXES[kind].rstrip(".")
            known = {d["key"] for d in self.definitions[own].values()}
            record[own] = {**record[own], **{k: v for k, v in (body.get(own) or {}).items() if k in known}}
        if wrong:
            raise invalid(wrong)

    def _missing(self, kind: str, record: dict[str, Any], body: Mapping[str, Any], new: bool) -> dict[str, list[str]]:
        if kind != "tickets":
            return {} if record["name"] else {"name": ["Name: is too short (minimum one character)"]}
        wrong: dict[str, list[str]] = {}
        if new:
            comment = body.get("comment")
            text = comment.get("body") or comment.get("html_body") if isinstance(comment, Mapping) else comment
            text = text or body.get("description")  # not documented, but clients rely on it
            if not text:
                wrong["base"] = ["Description: cannot be blank"]
            record["description"] = text
            record["is_public"] = not isinstance(comment, Mapping) or comment.get("public", True)
        requester = record["requester_id"]
        if "requester_id" in body and requester not in self.records["users"]:
            wrong["requester_id"] = [f"Requester: {requester} is invalid"]
        return wrong

    def _clashes(self, kind: str, record: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, list[str]]:
        wrong: dict[str, list[str]] = {}
        for name in () if kind == "tickets" else ("external_id", "email" if kind == "users" else "name"):
            other = self.find(kind, name, record[name]) if body.get(name) and record.get(name) else None
            if other is not None and other["id"] != record["id"]:
                taken = "is already being used by another user" if name == "email" else "has already been taken"
                wrong[name] = [f"{_label(name)}: {body[name]} {taken}"]
        if kind == "users" and body.get("email") and not EMAIL.fullmatch(str(body["email"]).strip()):
            wrong["email"] = [f"Email: {body['email']} is not properly formatted"]
        return wrong

    def _apply_custom(self, record: dict[str, Any], body: Mapping[str, Any]) -> dict[str, list[str]]:
        """Custom fields of a ticket. A dropdown's value is also a tag, and goes when that tag is taken away."""
        wrong: dict[str, list[str]] = {}
        values, tags = record["custom_fields"], set(record["tags"])
        given = _custom_by_id(body.get("custom_fields"))
        for number, definition in self.definitions["ticket_fields"].items():
            if not definition["removable"]:
                continue
            options = {o["value"] for o in definition.get("custom_field_options") or ()}
            if number in given:
                try:
                    value = _custom_value(definition, options, given[number], values.get(number))
                except ValueError:
                    wrong["base"] = [*wrong.get("base", []), f"{definition['title']}: is invalid"]
                    continue
                tags = (tags - options) | (options & set(value if isinstance(value, list) else [value]))
                values[number] = value
            elif "tags" in body and definition["type"] == "tagger":
                values[number] = next((o for o in options if o in tags), None)
        record["tags"] = sorted(tags)
        return wrong


# -- values --------------------------------------------------------------------------------------------------------------


def _label(name: str) -> str:
    return name.removesuffix("_id").replace("_", " ").capitalize()


def _seconds(record: Mapping[str, Any]) -> int:
    generated = record.get("generated_timestamp")
    return int(generated) if generated is not None else int(datetime.fromisoformat(record["updated_at"]).timestamp())


def _custom_by_id(given: Any) -> dict[int, Any]:
    return {int(e["id"]): e.get("value") for e in given or () if str(e.get("id", "")).isdigit()}


def _value(name: str, rule: str, value: Any) -> Any:
    """A field's value as Zendesk keeps it; ValueError when it takes no such value."""
    if rule == "tags":  # lower case, split at blanks
        parts = value.split() if isinstance(value, str) else [t for v in value or () for t in str(v).split()]
        return sorted({p.lower() for p in parts})
    if value is None:
        return None
    if rule == "enum":
        if value not in ENUMS[name]:
            raise ValueError(value)
        return value
    if rule == "integer":
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
            raise ValueError(value)
        return int(value)
    if rule == "boolean":
        if value not in (True, False, "true", "false"):
            raise ValueError(value)
        return value in (True, "true")
    if rule == "time":
        at = datetime.fromisoformat(value)
        return iso(at if at.tzinfo else at.replace(tzinfo=UTC))
    if rule == "list":
        return [str(v) if name == "domain_names" else int(v) for v in value]
    if isinstance(value, dict | list):
        raise ValueError(value)
    return str(value).strip() if rule == "line" else str(value)


def _custom_value(definition: Mapping[str, Any], options: set[str], value: Any, old: Any) -> Any:
    kind = definition["type"]
    if value is None or value == "":
        return False if kind == "checkbox" else None
    if kind == "tagger":  # a value that is no option changes nothing, in silence
        return value if value in options else old
    if kind == "multiselect":
        return [v for v in value if v in options]
    if kind == "checkbox":
        return value in (True, "true", 1, "1")
    text = str(value).strip()
    patterns = {"integer": r"-?\d+", "decimal": r"-?\d+(\.\d+)?", "date": r"\d{4}-\d\d-\d\d"}
    pattern = patterns.get(kind) or (definition.get("regexp_for_validation") if kind == "regexp" else None)
    if pattern and not re.fullmatch(pattern, text):
        raise ValueError(value)
    return text
