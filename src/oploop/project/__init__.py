"""The user's folder as typed objects; the only reader of config. Loads no app, needs no secret, writes nothing."""

from __future__ import annotations

from oploop.project.block import secret_paths, validate_block, value_at, written_secrets
from oploop.project.config import (
    AppBlock,
    Budget,
    Environment,
    HttpBlock,
    Project,
    Retention,
    StreamBlock,
    TableBlock,
    WarehouseBlock,
    WarehouseType,
    find_project,
    load_project,
)
from oploop.project.dbt import read_manifest
from oploop.project.init import init_project
from oploop.project.lock import FILE as LOCK
from oploop.project.lock import FieldsLock, Locked, read_fields_lock, write_fields_lock
from oploop.project.models import Engine, ModelsBlock
from oploop.project.nouns import (
    Adopt,
    Check,
    Conflict,
    FieldMapping,
    Limit,
    Limits,
    Mode,
    OnDeleted,
    OnLeave,
    OnMiss,
    OnNull,
    Sync,
)
from oploop.project.sqltext import check_columns

__all__ = [
    "LOCK",
    "Adopt",
    "AppBlock",
    "Budget",
    "Check",
    "Conflict",
    "Engine",
    "Environment",
    "FieldMapping",
    "FieldsLock",
    "HttpBlock",
    "Limit",
    "Limits",
    "Locked",
    "Mode",
    "ModelsBlock",
    "OnDeleted",
    "OnLeave",
    "OnMiss",
    "OnNull",
    "Project",
    "Retention",
    "StreamBlock",
    "Sync",
    "TableBlock",
    "WarehouseBlock",
    "WarehouseType",
    "check_columns",
    "find_project",
    "init_project",
    "load_project",
    "read_fields_lock",
    "read_manifest",
    "secret_paths",
    "validate_block",
    "value_at",
    "write_fields_lock",
    "written_secrets",
]
