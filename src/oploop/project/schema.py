"""JSON Schema of `oploop.yml` and of a sync's file, for editors that complete and check YAML.

Made from the very tables of keys that the files are read by, so that no key is in one and not in the other. A schema
tells what a key may look like; what fits together is told by `oploop doctor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oploop.project import alerts, config, models, syncs, values
from oploop.project.templates import template
from oploop.project.values import Read

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = ".schema"  #: in the project's folder; the first lines of new files name the files in it
PROJECT_FILE, SYNC_FILE = "oploop.json", "sync.json"

_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_SPAN: Schema = {"type": "string", "pattern": r"^(\d+(\.\d+)?[smhdw])+$"}
_SHARE: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?\s?%$"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_MAP: Schema = {"type": "object"}
_LIMIT: Schema = {"anyOf": [_SHARE, _COUNT, {"type": "array", "items": {"anyOf": [_SHARE, _COUNT]}}]}
_COLUMNS: Schema = {"anyOf": [_TEXT, {"type": "array"}, {"type": "object", "additionalProperties": _TEXT}]}


def _of(read: Read) -> Schema:
    """What a reader takes."""
    words = getattr(read, "words", None)
    if words is not None:
        return {"enum": list(words)}
    return _SIMPLE[read] if read in _SIMPLE else _nested(read)


_SIMPLE: dict[Read, Schema] = {
    values.text: _TEXT,
    values.texts: _TEXTS,
    values.flag: {"type": "boolean"},
    values.whole: _COUNT,
    values.duration: _SPAN,
    values.share: _SHARE,
    values.moment: _TEXT,
    values.a_map: _MAP,
    config.project_name: _TEXT,
    config.by_name: _MAP,
    config.column_names: {"type": "object", "additionalProperties": _TEXT},
    models.targets: {"type": "object", "additionalProperties": _TEXT},
    config.kept: {"anyOf": [_SPAN, {"const": "forever"}]},
    syncs.model_name: _TEXT,
    syncs.expression: _TEXT,
    syncs.columns: _COLUMNS,
    syncs.constant: {},
    syncs.words_map: {"type": "object", "minProperties": 1},
    syncs.limit: _LIMIT,
    syncs.part: _SHARE,
    syncs.when: _TEXT,
    syncs.order: _TEXTS,
    template: _TEXT,
    alerts.events: {
        "anyOf": [
            {"enum": [o.value for o in alerts.On]},
            {"type": "array", "items": {"enum": [o.value for o in alerts.On]}},
        ]
    },
}


def _nested(read: Read) -> Schema:
    """A reader of a map whose keys have readers of their own."""
    streams = _closed(config.STREAM_KEYS)
    if read is config.streams:
        named = {"type": "object", "additionalProperties": streams}
        return {"anyOf": [_TEXT, {"type": "array", "items": {"anyOf": [_TEXT, named]}}, named]}
    if read is syncs.fields:
        field = {"anyOf": [_TEXT, _closed(syncs.FIELD_KEYS)]}
        named = {"type": "object", "additionalProperties": field}
        return {"anyOf": [_TEXT, {"type": "array", "items": {"anyOf": [_TEXT, named]}}, named]}
    if read is syncs.checks:
        check = {"anyOf": [_TEXT, {**_closed(syncs.CHECK_KEYS), "required": ["sql"]}]}
        return {"anyOf": [check, {"type": "array", "items": check}]}
    if read is alerts.alerts:
        return {"type": "array", "items": {**_closed(alerts.ALERT_KEYS), "required": ["to", "channel"]}}
    one: dict[Read, Schema] = {
        config.environments: {"type": "object", "additionalProperties": _closed(config.ENVIRONMENT_KEYS)},
        config.retention: _closed(config.RETENTION_KEYS),
        config.budget: _closed(config.BUDGET_KEYS),
        config.http: _closed(config.HTTP_KEYS),
        config.tables: {
            "type": "object",
            "additionalProperties": {**_closed(config.TABLE_KEYS), "required": ["table", "key", "version"]},
        },
        syncs.limits: _closed(syncs.LIMIT_KEYS),
    }
    return one[read]


def _closed(keys: Mapping[str, Read]) -> Schema:
    """A map that takes these keys and no other; empty as YAML's null, too."""
    return {
        "type": ["object", "null"],
        "properties": {k: _of(r) for k, r in keys.items()},
        "additionalProperties": False,
    }


def sync_schema() -> Schema:
    """The schema of `syncs/*.yml`."""
    return {
        "$schema": DIALECT,
        "title": "a sync of oploop",
        **_closed(syncs.SYNC_KEYS),
        "type": "object",
        "required": ["model", "to"],
    }


def project_schema(apps: Mapping[str, Schema]) -> Schema:
    """The schema of `oploop.yml`. `apps`: by type, the JSON Schema of the app's own keys (pydantic's)."""
    schema = {**_closed(config.PROJECT_KEYS), "type": "object", "required": ["name"]}
    blocks: Schema = {}
    for name, own in sorted(apps.items()):
        blocks[f"app-{name}"] = _app(own)
    asked = [
        {"if": {"required": ["type"], "properties": {"type": {"const": name}}}, "then": {"$ref": f"#/$defs/app-{name}"}}
        for name in sorted(apps)
    ]
    any_app: Schema = {"type": ["object", "null"], "allOf": asked}
    named = {
        name: {"allOf": [any_app, {"if": {"not": {"required": ["type"]}}, "then": {"$ref": f"#/$defs/app-{name}"}}]}
        for name in sorted(apps)
    }
    schema["properties"] |= {
        "warehouse": _closed(config.WAREHOUSE_KEYS),
        "models": _closed(models.MODELS_KEYS),
        "apps": {"type": ["object", "null"], "properties": named, "additionalProperties": any_app},
    }
    return {"$schema": DIALECT, "title": "a project of oploop", **schema, "$defs": blocks}


def _app(own: Schema) -> Schema:
    """An app's block: its own keys, any of which may be given as `${VAR}`, and those of every app."""
    variable: Schema = {"type": "string", "pattern": r"\$\{\w+\}"}
    inner = own.get("$defs", {})
    keys = {k: {"anyOf": [_inlined(s, inner), variable]} for k, s in own.get("properties", {}).items()}
    common = {k: _of(r) for k, r in config.APP_KEYS.items()}
    return {"type": ["object", "null"], "properties": {**keys, **common}, "additionalProperties": False}


def _inlined(schema: Any, defs: Mapping[str, Any], depth: int = 0) -> Any:
    """A schema with its references to `defs` written out; one that goes round in a circle takes anything."""
    if isinstance(schema, list):
        return [_inlined(s, defs, depth) for s in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return {} if depth > 8 else _inlined(defs[name], defs, depth + 1)
    return {k: _inlined(v, defs, depth) for k, v in schema.items() if k != "discriminator"}


__all__ = ["FOLDER", "PROJECT_FILE", "SYNC_FILE", "project_schema", "sync_schema"]
