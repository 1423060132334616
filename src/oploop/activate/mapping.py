"""What a sync's mapping makes of a row of its model: expressions over MODEL, in the types of the app's fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oploop.activate.convert import convert, shown, sure
from oploop.errors import FixConfig, did_you_mean
from oploop.project import FieldMapping, Sync
from oploop.project.templates import parts
from oploop.records import Canonical, Field, FieldType
from oploop.warehouse.base import SqlError, Warehouse, literal, quote, quote_table
from oploop.warehouse.forms import canonical

MODEL = "m"  #: alias of the model's table in all expressions of a BoundField's `wanted`


@dataclass(frozen=True, slots=True)
class Value:
    """A mapped value over MODEL; see the fields of the same names of `bind.BoundField`."""

    wanted: str
    source: str
    unmapped: str | None = None
    fits: bool = False


class Mapper:
    """The mappings of one sync, one at a time. `columns`: the model's, with their SQL types."""

    def __init__(self, sync: Sync, warehouse: Warehouse, model_table: str, columns: Mapping[str, str]) -> None:
        self.sync, self.warehouse = sync, warehouse
        self.model_table, self.columns = model_table, columns

    def column(self, column: str, *where: str) -> str:
        """The quoted model column of that name."""
        if column not in self.columns:
            raise FixConfig(
                f"model {self.sync.model} has no column {column!r}",
                mend=did_you_mean(column, self.columns),
                place=self.sync.place_of(*where),
            )
        return f"{MODEL}.{quote(column)}"

    def value(self, m: FieldMapping, field: Field) -> Value:
        """A mapping's value: converted, as it is shown, what its `map` could not translate, whether it fits."""
        if m.add or m.remove:
            return Value("NULL", "NULL", fits=True)
        if m.template is not None:
            return self._written(m, m.template, field)
        if m.column is None and m.sql is None:
            constant = self.constant(m.set_ if m.set_ is not None else m.value, m, field)
            return Value(constant, constant, fits=True)
        expr, kind = self.source(m)
        if m.map:
            return self._translated(m, field, self._word(expr, kind))
        wanted = f"({convert(expr, kind, field.type, self.warehouse)})"
        return Value(wanted, shown(expr, kind, self.warehouse), fits=sure(kind, field.type))

    def looked_up(self, m: FieldMapping) -> Value:
        """What a reference looks up, as text."""
        if m.map or (m.column is None and m.sql is None):
            return self.value(m, Field("", FieldType.TEXT))
        expr, kind = self.source(m)
        text = shown(expr, kind, self.warehouse)
        return Value(text, text)

    def source(self, m: FieldMapping) -> tuple[str, str]:
        """A mapping's column or SQL, and its SQL type."""
        if m.column is not None:
            return self.column(m.column, "fields", m.field), self.columns[m.column].upper()
        return f"({m.sql})", self.kind(f"({m.sql})")

    def _written(self, m: FieldMapping, template: str, field: Field) -> Value:
        """A template with the row's values in it, each written so that the app takes it for mere text; NULL is nothing."""
        pieces = ["''"]
        for part in parts(template):
            if not part.column:
                pieces.append(literal(part.text))
                continue
            expr = self.column(part.text, "fields", m.field, "template")
            word = f"CAST({shown(expr, self.columns[part.text].upper(), self.warehouse)} AS VARCHAR)"
            for plain, safe in field.escape:
                word = f"replace({word}, {literal(plain)}, {literal(safe)})"
            pieces.append(f"COALESCE({word}, '')")
        whole = f"({' || '.join(pieces)})"
        return Value(
            f"({convert(whole, 'VARCHAR', field.type, self.warehouse)})", whole, fits=sure("VARCHAR", field.type)
        )

    def _word(self, expr: str, kind: str) -> str:
        """A value as the text that a `map` translates: 1.0 is 1, and a JSON text has no quotes."""
        if kind in ("DOUBLE", "FLOAT") or kind.startswith("DECIMAL"):
            return canonical(expr, Canonical.NUMBER)
        return f"CAST({shown(expr, kind, self.warehouse)} AS VARCHAR)"

    def _translated(self, m: FieldMapping, field: Field, text: str) -> Value:
        """A value by the mapping's `map`."""
        assert m.map is not None
        arms = " ".join(f"WHEN {literal(str(k))} THEN {self.constant(v, m, field)}" for k, v in m.map.items())
        known = ", ".join(literal(str(k)) for k in m.map)
        unmapped = f"CASE WHEN {text} NOT IN ({known}) THEN {text} END"
        return Value(f"(CASE {text} {arms} END)", text, unmapped, fits=True)

    def constant(self, value: object, m: FieldMapping, field: Field) -> str:
        """A constant of the file in the field's type; FixConfig, with its place, when it is none."""
        expr = sql_value(list(value) if isinstance(value, tuple) else value)
        finite = not isinstance(value, float) or math.isfinite(value)
        if finite:
            kind = str(self.warehouse.rows(f"SELECT typeof({expr})")[0][0])
            typed = f"CAST({convert(expr, kind, field.type, self.warehouse)} AS {self.warehouse.sql_type(field.type)})"
            if value is None or self.warehouse.rows(f"SELECT {typed}")[0][0] is not None:
                return typed
        raise FixConfig(
            f"field {m.field!r}: {value!r} is no {field.type.value}",
            mend=f"give a value that is {'an' if field.type is FieldType.INTEGER else 'a'} {field.type.value}",
            place=self.sync.place_of("fields", m.field),
        )

    def kind(self, expr: str) -> str:
        """The SQL type of an expression over the model; empty before the model is built (`prove` finds its faults)."""
        try:
            return str(self.warehouse.rows(f"SELECT typeof({expr}) FROM {no_row(self.model_table)}")[0][0]).upper()
        except SqlError:
            return ""


def no_row(model_table: str) -> str:
    """The model without its rows, in one row of NULLs: expressions over it have a type, and cost nothing."""
    return f"(SELECT 1) LEFT JOIN (SELECT * FROM {quote_table(model_table)} LIMIT 0) AS {MODEL} ON TRUE"


def sql_value(value: object) -> str:
    """A constant of a sync file as SQL."""
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case int() | float():
            return repr(value)
        case list() | tuple():
            return sql_list([str(v) for v in value])
        case _:
            return literal(str(value))


def sql_list(values: Sequence[str]) -> str:
    """A list of texts as SQL."""
    return f"[{', '.join(literal(v) for v in values)}]::VARCHAR[]"
