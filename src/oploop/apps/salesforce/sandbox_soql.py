"""A part of SOQL over the stand-in org: fields or COUNT() of one object, WHERE, ORDER BY, LIMIT, OFFSET.

Source: SOQL and SOSL Reference (SELECT, comparison operators, date formats, ORDER BY). Relationships, aggregates and date
literals (TODAY) are refused as MALFORMED_QUERY.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from oploop.apps.salesforce.sandbox_org import Org, long_id

Row = Mapping[str, Any]
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*')|(?P<time>\d{4}-\d\d-\d\d(?:T[\d:.]+(?:Z|[+-]\d\d:?\d\d))?)|(?P<number>[+-]?\d+(?:\.\d+)?)"
    r"|(?P<word>[A-Za-z_][\w.]*)|(?P<sign><=|>=|!=|<>|[=<>(),]))"
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class BadQuery(Exception):
    """(code, message) of a query that cannot be answered."""


@dataclass
class Answered:
    """The rows of a query; `count`: it asked only for their number."""

    name: str
    fields: list[str]
    rows: list[dict[str, Any]]
    count: bool


def run(org: Org, soql: str, *, all_rows: bool) -> Answered:
    """Answer a query; with `all_rows` deleted records are among the rows."""
    return _Parser(org, soql).answer(all_rows)


class _Parser:
    def __init__(self, org: Org, soql: str) -> None:
        self._org, self._soql = org, soql
        self._tokens = _tokens(soql)
        self._at = 0
        self._name = ""

    # -- words -------------------------------------------------------------------------------------------------------

    def _peek(self) -> tuple[str, Any]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, Any]:
        found = self._peek()
        self._at += 1
        return found

    def _is(self, *words: str) -> bool:
        """Whether the next words are these; then they are passed."""
        for i, word in enumerate(words):
            at = self._at + i
            if at >= len(self._tokens) or str(self._tokens[at][1]).upper() != word or self._tokens[at][0] == "text":
                return False
        self._at += len(words)
        return True

    def _need(self, word: str) -> None:
        if not self._is(word):
            raise BadQuery("MALFORMED_QUERY", f"unexpected token: '{self._peek()[1]}', expecting {word}")

    def _field(self) -> str:
        kind, word = self._next()
        name = str(word)
        if kind != "word":
            raise BadQuery("MALFORMED_QUERY", f"unexpected token: '{name}'")
        known = {f.lower(): f for f in self._org.fields[self._name]} if self._name else {}
        if self._name and name.lower() not in known:
            raise BadQuery("INVALID_FIELD", f"No such column '{name}' on entity '{self._name}'.")
        return str(known.get(name.lower(), name))

    # -- the query ---------------------------------------------------------------------------------------------------

    def answer(self, all_rows: bool) -> Answered:
        self._need("SELECT")
        count = self._is("COUNT", "(", ")")
        names = [] if count else self._list(self._field)
        self._need("FROM")
        name = str(self._next()[1])
        known = {n.lower(): n for n in self._org.records}
        if name.lower() not in known:
            raise BadQuery("INVALID_TYPE", f"sObject type '{name}' is not supported.")
        self._name = known[name.lower()]
        fields = [self._check(n) for n in names]
        keep = self._either() if self._is("WHERE") else lambda _: True
        held = self._org.records[self._name].values()
        rows = [r for r in held if (all_rows or not r.get("IsDeleted")) and keep(r)]
        self._ordered(rows)
        limit = int(self._next()[1]) if self._is("LIMIT") else len(rows)
        offset = int(self._next()[1]) if self._is("OFFSET") else 0
        self._is("ALL", "ROWS")
        if self._peek()[0] != "end":
            raise BadQuery("MALFORMED_QUERY", f"unexpected token: '{self._peek()[1]}'")
        return Answered(self._name, fields, [dict(r) for r in rows[offset : offset + limit]], count)

    def _check(self, name: str) -> str:
        known = {f.lower(): f for f in self._org.fields[self._name]}
        if name.lower() not in known:
            raise BadQuery("INVALID_FIELD", f"No such column '{name}' on entity '{self._name}'.")
        return str(known[name.lower()])

    def _list(self, one: Callable[[], Any]) -> list[Any]:
        found = [one()]
        while self._is(","):
            found.append(one())
        return found

    def _ordered(self, rows: list[dict[str, Any]]) -> None:
        if not self._is("ORDER", "BY"):
            return
        orders = []
        for field, down in self._list(lambda: (self._field(), self._is("DESC") or (self._is("ASC") and False))):
            last = self._is("NULLS", "LAST") or (self._is("NULLS", "FIRST") and False)
            orders.append((field, down, last))
        for field, down, last in reversed(orders):
            empty = [r for r in rows if r[field] is None]
            full = sorted((r for r in rows if r[field] is not None), key=lambda r: _key(r[field]), reverse=down)
            rows[:] = full + empty if last else empty + full

    # -- conditions --------------------------------------------------------------------------------------------------

    def _either(self) -> Callable[[Row], bool]:
        parts = [self._both()]
        while self._is("OR"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda r: any(p(r) for p in parts)

    def _both(self) -> Callable[[Row], bool]:
        parts = [self._one()]
        while self._is("AND"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda r: all(p(r) for p in parts)

    def _one(self) -> Callable[[Row], bool]:
        if self._is("NOT"):
            inner = self._one()
            return lambda r: not inner(r)
        if self._is("("):
            inner = self._either()
            self._need(")")
            return inner
        field = self._field()
        kind = self._org.fields[self._name][field]["type"]
        if self._is("NOT", "IN"):
            among = self._values(kind)
            return lambda r: _key(r[field]) not in among
        if self._is("IN"):
            among = self._values(kind)
            return lambda r: _key(r[field]) in among
        if self._is("LIKE"):
            pattern = re.escape(str(self._value("string"))).replace("%", ".*").replace("_", ".")
            found = re.compile(pattern, re.IGNORECASE | re.DOTALL)
            return lambda r: r[field] is not None and found.fullmatch(str(r[field])) is not None
        sign, value = self._next()[1], None
        value = self._value(kind)
        return lambda r: _compare(str(sign), r[field], value)

    def _values(self, kind: str) -> set[Any]:
        self._need("(")
        found = {_key(v) for v in self._list(lambda: self._value(kind))}
        self._need(")")
        return found

    def _value(self, kind: str) -> Any:
        how, value = self._next()
        if how == "word" and value.lower() in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[value.lower()]
        if how == "text":
            text = re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), value[1:-1])
            return long_id(text) if kind in ("id", "reference") else text
        if how == "number":
            return float(value)
        if how == "time":
            return datetime.fromisoformat(value).astimezone(UTC).isoformat() if "T" in value else value
        raise BadQuery("MALFORMED_QUERY", f"unexpected token: '{value}'")


def _tokens(soql: str) -> list[tuple[str, Any]]:
    found, at = [], 0
    text = soql.rstrip()
    while at < len(text):
        m = _TOKEN.match(text, at)
        if m is None or m.end() == at:
            raise BadQuery("MALFORMED_QUERY", f"unexpected token: '{text[at : at + 10].strip()}'")
        found.append((str(m.lastgroup), m[m.lastgroup or 0]))
        at = m.end()
    return found


def _key(value: Any) -> Any:
    """Texts without regard to case; whole numbers and others alike."""
    return value.lower() if isinstance(value, str) else value


def _compare(sign: str, held: Any, value: Any) -> bool:
    a, b = _key(held), _key(value)
    if sign in ("=", "!=", "<>"):
        return (a == b) is (sign == "=")
    if a is None or b is None:
        return False
    return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[sign] if sign in ("<", "<=", ">", ">=") else False
