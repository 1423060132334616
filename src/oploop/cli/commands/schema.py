"""`oploop schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oploop.cli.command import Cli
from oploop.cli.command import command as make
from oploop.cli.opening import load


@make("schema", example="oploop schema\noploop schema -o json")
def command(cli: Cli) -> int:
    """Write JSON Schemas of oploop.yml and of syncs, for editors.

    They hold the keys of all apps that are installed; run it again when that changes. Editors find them by the first
    line of the files that oploop writes: # yaml-language-server: $schema=.schema/oploop.json
    """
    from oploop.project.schema import FOLDER

    project = load(cli)
    files = write_schemas(project.root)
    cli.out.data({"files": files, **schemas()})
    cli.out.line(f"{cli.out.mark(True)} {FOLDER}: {', '.join(files)}")
    return 0


def schemas() -> dict[str, Any]:
    """Both schemas, with the apps that are installed."""
    from oploop.apps.registry import app_class, known_types
    from oploop.project.schema import project_schema, sync_schema

    own = {name: app_class(name).Config.model_json_schema() for name in known_types()}
    return {"project": project_schema(own), "sync": sync_schema()}


def write_schemas(root: Path) -> list[str]:
    """Write both into the project's folder; their names."""
    import orjson

    from oploop.errors import FixConfig
    from oploop.project.schema import FOLDER, PROJECT_FILE, SYNC_FILE

    made, folder = schemas(), root / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        for name, schema in ((PROJECT_FILE, made["project"]), (SYNC_FILE, made["sync"])):
            (folder / name).write_bytes(orjson.dumps(schema, option=orjson.OPT_INDENT_2) + b"\n")
    except OSError as e:
        raise FixConfig(f"{folder} cannot be written: {e.strerror}", mend="mend the folder's rights") from None
    return [PROJECT_FILE, SYNC_FILE]


__all__ = ["command", "schemas", "write_schemas"]
