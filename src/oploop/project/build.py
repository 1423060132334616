"""Located data into pydantic models; what does not fit becomes one FixConfig with its place and its mend."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from oploop.errors import FixConfig, did_you_mean
from oploop.project.located import Located, Path, kind_of

M = TypeVar("M", bound=BaseModel)

LATER = ("schedules", "alerts", "policies")


def build(model: type[M], data: Any, source: Located, path: Path, *, what: str, known: Iterable[str] = ()) -> M:
    """A model from the map at `path`. `what` names it in messages; `known` are further keys that may stand there."""
    data = as_map(data, source, path, what)
    try:
        return model.model_validate(data)
    except ValidationError as e:
        raise explain(e, model, source, path, what, known) from None


def as_map(data: Any, source: Located, path: Path, what: str) -> dict[str, Any]:
    """The data, if it is a map of keys."""
    if isinstance(data, dict):
        return data
    mend = "write `key: value` lines, without - before them" if isinstance(data, list) else "write `key: value` lines"
    raise FixConfig(f"{what} must be a map of keys, not {kind_of(data)}", mend=mend, place=source.place(*path))


def explain(
    e: ValidationError, model: type[BaseModel], source: Located, path: Path, what: str, known: Iterable[str] = ()
) -> FixConfig:
    """The first of pydantic's errors, by place, in our words. Values are shown only where they cannot be secret."""
    errors = e.errors(include_url=False, include_context=True)
    located = [(source.place(*path, *_file_path(error["loc"])), error) for error in errors]
    place, error = min(located, key=lambda pair: (pair[0].line or 0, pair[0].column or 0))
    loc = error["loc"]
    name = ".".join(str(part) for part in loc) or what
    message, mend = _words(error, model, name, source.line(*path, *_file_path(loc)), what, known)
    return FixConfig(message, mend=mend, place=place)


def _file_path(loc: tuple[Any, ...]) -> Path:
    return tuple(part for part in loc if isinstance(part, str | int))


def _words(
    error: Mapping[str, Any], model: type[BaseModel], name: str, line: str, what: str, known: Iterable[str]
) -> tuple[str, str | None]:
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        keys = {*key_names(_model_at(model, error["loc"][:-1])), *(known if len(error["loc"]) == 1 else ())}
        return f"{what} has no key {error['loc'][-1]!r}", did_you_mean(str(error["loc"][-1]), keys)
    if kind == "missing":
        return f"{what} lacks {name!r}", f"add `{name}: ...`"
    if value is None and "#" in line:
        return f"{name} has no value: a # begins a comment", 'quote the value: key: "#..."'
    if value is None:
        return f"{name} has no value", "give it one, or remove the key"
    if kind.startswith("bool") and isinstance(value, str):
        shown = f", not {value}" if value.lower() in ("yes", "no", "on", "off", "y", "n") else ""
        return f"{name} takes true or false{shown}", "YAML 1.2 knows only these two"
    if kind == "string_type" and isinstance(value, int | float):
        return f"{name} takes text, not {kind_of(value)}", 'quote the value: key: "..."'
    if kind in ("literal_error", "enum"):
        expected = str(error.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ").split(", ")
        shown = f" {value!r}" if isinstance(value, str) and not _is_secret(model, error["loc"]) else ""
        return f"{name} cannot be{shown}", f"use one of {', '.join(expected)}"
    if kind == "value_error":
        said = str(error["msg"]).removeprefix("Value error, ")
        return (f"{name} {said}" if error["loc"] else f"{what} {said}"), None
    return f"{name} takes {_wanted(kind)}, not {kind_of(value)}", None


def _wanted(kind: str) -> str:
    words = {
        "string_type": "text",
        "int_type": "a whole number",
        "int_parsing": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "float_parsing": "a number",
        "bool_type": "true or false",
        "bool_parsing": "true or false",
        "list_type": "a list",
        "tuple_type": "a list",
        "dict_type": "a map of keys",
        "model_type": "a map of keys",
        "string_too_short": "a value that is not empty",
    }
    return words.get(kind, f"another value ({kind.replace('_', ' ')})")


def key_names(model: type[BaseModel] | None) -> list[str]:
    """The keys of a model as they are written in a file."""
    if model is None:
        return []
    return [f.alias or name for name, f in model.model_fields.items() if f.alias or f.exclude is not True]


def _field_at(model: type[BaseModel] | None, name: Any) -> Any:
    if model is None:
        return None
    return next((f for n, f in model.model_fields.items() if name in (n, f.alias)), None)


def _model_at(model: type[BaseModel], loc: tuple[Any, ...]) -> type[BaseModel] | None:
    found: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, str):
            described = _field_at(found, part)
            found = _inner_model(described.annotation) if described is not None else found
    return found


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in typing.get_args(annotation) if (m := _inner_model(a)) is not None), None)


def _is_secret(model: type[BaseModel], loc: tuple[Any, ...]) -> bool:
    described = _field_at(model, loc[0]) if loc else None
    return described is not None and SecretStr in _types(described.annotation)


def _types(annotation: Any) -> set[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return {t for a in typing.get_args(annotation) for t in _types(a)}
    return {annotation}
