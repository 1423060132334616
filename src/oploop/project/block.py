"""An app's own keys, checked against the app's config model when the app is made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from oploop.errors import FixConfig, Place, did_you_mean
from oploop.project.config import APP_KEYS, AppBlock
from oploop.project.secrets import variable_name
from oploop.project.yaml import Block, Items, locate

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo

M = TypeVar("M", bound="BaseModel")
_HIDDEN = "***"


def validate_block(model: type[M], block: AppBlock) -> M:
    """An app's config from its block: `${VAR}` filled in, paths made absolute, types checked by `model`.

    A field with `json_schema_extra={"path": True}` holds a path or URL; a path is taken from the project's folder.
    Raises FixConfig with file, line and mend. No value of a variable or of a SecretStr appears in it.
    """
    from pydantic import ValidationError

    used: set[str] = set()
    values = {k: _filled(v, block.options.places[k], block, used) for k, v in block.options.items()}
    for name, info in model.model_fields.items():
        key = info.alias or name
        extra = info.json_schema_extra
        if isinstance(extra, dict) and extra.get("path") and key in values:
            values[key] = _absolute(values[key], block.root)
    used |= {value_at(values, path) for path in secret_paths(model, values)}
    try:
        return model.model_validate(values)
    except ValidationError as e:
        raise _explained(e, model, block, used) from None


def _filled(value: Any, place: Place, block: AppBlock, used: set[str]) -> Any:
    """A plain copy with the variables filled in."""
    if isinstance(value, str):
        return block.variables.fill(value, place, used)
    if isinstance(value, Block):
        return {k: _filled(v, value.places[k], block, used) for k, v in value.items()}
    if isinstance(value, Items):
        return [_filled(v, p, block, used) for v, p in zip(value, value.places, strict=True)]
    return value


def _absolute(value: Any, root: Path) -> Any:
    if isinstance(value, list):
        return [_absolute(v, root) for v in value]
    if not isinstance(value, str) or "://" in value or not value:
        return value
    return os.path.normpath(root / os.path.expanduser(value))


def is_secret(info: FieldInfo) -> bool:
    """Whether an app's key is declared as a secret."""
    return _holds_secret(info.annotation)


def _holds_secret(annotation: Any) -> bool:
    """Whether a value of this type may be a secret, or hold one."""
    return _is_secret_type(annotation) or any(map(_holds_secret, get_args(annotation)))


def _is_secret_type(annotation: Any) -> bool:
    """Whether a type is one of pydantic's for secrets, or made from one."""
    from pydantic import Secret, SecretBytes, SecretStr

    own = get_origin(annotation) or annotation
    return isinstance(own, type) and issubclass(own, (Secret, SecretBytes, SecretStr))


def may_hold(annotation: Any, kind: type) -> bool:
    """Whether a key of this type takes such a value itself, not within another."""
    own = get_origin(annotation) or annotation
    if isinstance(own, type) and (issubclass(own, kind) or (kind is dict and hasattr(own, "model_fields"))):
        return own is not bool
    nested = own in (dict, list, tuple, set)
    return not nested and any(may_hold(arg, kind) for arg in get_args(annotation))


def _explained(e: ValidationError, model: type[BaseModel], block: AppBlock, used: set[str]) -> FixConfig:
    """The first of pydantic's errors in our words."""
    first = e.errors(include_url=False, include_input=False, include_context=False)[0]
    path = tuple(first["loc"])
    place = locate(block.options, path) if path and str(path[0]) in block.options else None
    name = ".".join(str(p) for p in path)
    where = f"{block.name}.{name}" if name else block.name
    message, mend = _message(first["type"], _hidden(first["msg"], used), where, path, model, block)
    return FixConfig(message, mend=mend, place=place or block.place)


def _message(
    kind: str, said: str, where: str, path: tuple[int | str, ...], model: type[BaseModel], block: AppBlock
) -> tuple[str, str | None]:
    said = said.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    said = (said[:1].lower() + said[1:]).replace("input should be", "must be", 1)
    key = str(path[-1]) if path else ""
    owner = _model_at(model, path[:-1])
    if kind == "extra_forbidden":
        known = {*_keys(owner), *APP_KEYS} if len(path) == 1 else _keys(owner)
        return f"unknown key {key!r} in {where.rpartition('.')[0]}", did_you_mean(key, known)
    if kind == "missing":
        secret = len(path) == 1 and is_secret(_info(model, key))
        hint = f"${{{variable_name(block.name, key)}}}" if secret else "..."
        return f"{block.name} has no {'.'.join(map(str, path))!r}", f"add `{key}: {hint}`"
    if kind == "string_type":
        return f"{where} must be text", "quote this"
    return f"{where} {said}" if not path or said.startswith("must ") else f"{where}: {said}", None


def _model_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    """The config model that stands at `path` under `model`; steps through lists and maps stay with their model."""
    for step in path:
        if step in _keys(model):
            model = _model_in(_info(model, str(step)).annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first config model in a type, `dict[str, Table] | None` for example."""
    if hasattr(annotation, "model_fields"):
        found: type[BaseModel] = annotation
        return found
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _info(model: type[BaseModel], key: str) -> FieldInfo:
    return next(i for n, i in model.model_fields.items() if key in (n, i.alias))


def _keys(model: type[BaseModel]) -> set[str]:
    return {i.alias or n for n, i in model.model_fields.items()}


def _hidden(text: str, used: set[str]) -> str:
    """The text without any of the values; of short ones only whole words, so that the text stays readable."""
    for value in sorted(filter(None, used), key=len, reverse=True):
        for form in {value, repr(value)[1:-1]}:
            whole = re.escape(form) if len(form) > 3 else rf"(?<!\w){re.escape(form)}(?!\w)"
            text = re.sub(whole, _HIDDEN, text)
    return text


def secret_paths(model: type[BaseModel], values: Mapping[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """Where in a block's values secrets stand that `model`, or a model within it, declares."""
    for key in sorted(_keys(model) & values.keys()):
        yield from _secrets_at(_info(model, key).annotation, values[key], (key,))


def _secrets_at(annotation: Any, value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    args = get_args(annotation)
    if hasattr(annotation, "model_fields"):
        if isinstance(value, Mapping):
            yield from ((*path, *rest) for rest in secret_paths(annotation, value))
    elif get_origin(annotation) is dict:
        for key, inner in value.items() if isinstance(value, Mapping) else ():
            yield from _secrets_at(args[1], inner, (*path, key))
    elif get_origin(annotation) in (list, tuple):
        for n, inner in enumerate(value) if isinstance(value, list) else ():
            yield from _secrets_at(args[0], inner, (*path, n))
    elif args and not _is_secret_type(annotation):  # of what it may be, or may be besides
        yield from dict.fromkeys(p for arg in args for p in _secrets_at(arg, value, path))
    elif isinstance(value, str) and _is_secret_type(annotation):
        yield path


def value_at(values: Any, path: tuple[str | int, ...]) -> Any:
    """What stands at a path of `secret_paths`."""
    for step in path:
        values = values[step]
    return values


def written_secrets(model: type[BaseModel], block: AppBlock) -> list[str]:
    """Warnings for what `model` declares as secrets and the file holds as they are. Never shows a value."""
    return [
        f"{locate(block.options, path)}: {'.'.join(map(str, (block.name, *path)))} is a secret written into the file"
        f" — put it into ${{{variable_name(block.name, '_'.join(map(str, path)))}}}"
        for path in secret_paths(model, block.options)
        if "${" not in value_at(block.options, path)
    ]
