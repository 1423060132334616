"""A new project's folder: small, commented, and valid as it stands."""

from __future__ import annotations

import json
import os
from pathlib import Path

from oploop.errors import FixConfig, Place
from oploop.project.config import project_name
from oploop.project.dbt import Manifest

_OPLOOP_YML = """\
# yaml-language-server: $schema=.schema/oploop.json
# One file names the apps and the warehouse. All keys: docs/configuration.md of oploop.
name: {name}

warehouse: {{type: duckdb, database: warehouse.duckdb}}
models: {{engine: sqlmesh}}

# Each app is read from and written to with one login. `oploop apps` lists them.
# Secrets stay out of this file: ${{VAR}} comes from the environment or from .env.
apps:
#  stripe:
#    api_key: ${{STRIPE_API_KEY}}
#    read: [customers, charges, refunds, subscriptions]
#  zendesk:
#    subdomain: acme
#    email: ops@acme.example
#    api_token: ${{ZENDESK_API_TOKEN}}
#    read: {{tickets: {{since: 2025-01-01}}, users: {{}}}}
#    budget: {{share: 50%}}                      # of the account's quota; others use it too

# Only prod writes to apps; elsewhere `oploop run` ends with the plan, unless the app is a sandbox on this machine.
environments:
  prod: {{}}
"""

_ENV_EXAMPLE = """\
# Copy this file to .env, which git ignores, and fill it in.
# STRIPE_API_KEY=
# ZENDESK_API_TOKEN=
"""

_GITIGNORE = """\
.oploop/
.env
warehouse.duckdb
warehouse.duckdb.*
"""

_README = """\
# {name}

An oploop project: it reads apps into a warehouse, models the data there, and writes it back into the apps.

    oploop.yml    the apps and the warehouse
    models/       SQL models;  audits/  tests/  macros/ belong to them
    syncs/        what goes back: one file for each sync

Next:

1. `oploop connect APP` asks for an app's credentials, tries them, and writes its block into `oploop.yml`, secrets into `.env`. (By
   hand: copy `.env.example` to `.env`.) `oploop apps` lists the apps, `oploop doctor` says whether all is well.
2. `oploop extract` fills the raw tables: `raw_<app>.<stream>`.
3. Write a model, like `models/mart/account_health.sql`:

       MODEL (name mart.account_health, kind FULL);
       SELECT id AS account_id, name FROM raw_stripe.customers

4. `oploop build`, then `oploop new sync mart.account_health zendesk.organizations` drafts a sync. By hand,
   `syncs/account_health.yml`:

       model: mart.account_health
       to: zendesk.organizations
       mode: update
       key: {{external_id: account_id}}
       fields: {{name: name}}

5. `oploop plan` shows what would be sent. `oploop run --env prod` sends it.
"""

_README_DBT = """\
# {name}

An oploop project beside a dbt project: dbt builds the models, oploop writes them into the apps.

    oploop.yml    the apps, the warehouse, and a list of dbt's models
    syncs/        what goes back: one file for each sync

Next:

1. The warehouse in `oploop.yml` is to be the database that dbt writes; where it is named by `${{WAREHOUSE_DSN}}`, copy `.env.example` to
   `.env` and fill it in.
2. `oploop connect APP` asks for an app's credentials, tries them, and writes its block into `oploop.yml`, secrets into `.env`.
   `oploop apps` lists the apps, `oploop doctor` says whether all is well.
3. `oploop new sync MODEL APP.OBJECT` drafts a sync from one of dbt's models.
4. `oploop plan` shows what would be sent. `oploop run --env prod` sends it; run it after dbt.
"""

_FOLDERS = ("models", "syncs", "audits", "tests", "macros")


#: oploop's warehouses by dbt's adapters, and how each is named in `oploop.yml`.
_WAREHOUSES = {
    "duckdb": "{type: duckdb, database: warehouse.duckdb}   # the file that dbt's profile names",
    "postgres": "{type: postgres, dsn: ${WAREHOUSE_DSN}}   # as dbt's profile has it",
}

_DBT_YML = """\
# yaml-language-server: $schema=.schema/oploop.json
# Made from the manifest of the dbt project {dbt}. All keys: docs/configuration.md of oploop.
name: {name}

warehouse: {warehouse}
models: {{engine: none}}   # dbt builds them; a sync names any table or view

# `oploop connect zendesk` adds an app. Streams that another tool loads already are read from its tables:
#  salesforce:
#    tables:
#      Account: {{table: fivetran.account, key: id, version: _fivetran_synced, deleted: _fivetran_deleted}}
# Sources that dbt knows:
{sources}
apps: {{}}

# dbt's models. `oploop new sync MODEL APP.OBJECT` drafts a sync from one.
{models}

# Only prod writes to apps; elsewhere `oploop run` ends with the plan, unless the app is a sandbox on this machine.
environments:
  prod: {{}}
"""


def init_project(folder: Path, name: str, manifest: Manifest | None = None) -> list[Path]:
    """Write a new project into `folder`, which is made if need be; returns the files written, in order.

    `manifest`: a dbt project whose models it takes up. Raises FixConfig, with nothing written, when `name` is no
    project's name, one of the files is there already, or dbt's warehouse is none of oploop's.
    """
    project_name(name, Place("the project's name"), "name")
    root = Path(os.path.abspath(folder))
    files = {
        "oploop.yml": _OPLOOP_YML.format(name=json.dumps(name)) if manifest is None else _from_dbt(name, manifest),
        ".env.example": _ENV_EXAMPLE if manifest is None or manifest.adapter == "duckdb" else "# WAREHOUSE_DSN=\n",
        ".gitignore": _GITIGNORE,
        "README.md": (_README if manifest is None else _README_DBT).format(name=name),
        **{f"{each}/.gitkeep": "" for each in (_FOLDERS if manifest is None else ("syncs",))},
    }
    for path in files:
        if (root / path).exists():
            raise FixConfig(f"{root / path} is there already", mend="use an empty folder, or move the file away")
    written = []
    try:
        for path, content in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8") as out:
                out.write(content)
            written.append(target)
    except OSError as e:
        raise FixConfig(
            f"{root} cannot be written: {e.strerror}", mend="choose another folder, or mend its rights"
        ) from None
    return written


def _from_dbt(name: str, dbt: Manifest) -> str:
    """`oploop.yml` of a project whose models dbt builds."""
    if dbt.adapter not in _WAREHOUSES:
        raise FixConfig(
            f"dbt's warehouse is {dbt.adapter}, and oploop has no such one yet",
            mend=f"it has: {', '.join(_WAREHOUSES)}",
        )
    tables = [(_line(m.table), _line(m.description)[:80]) for m in dbt.standing()]
    models = [f"#   {table}" + (f"   {said}" if said else "") for table, said in tables]
    found = sorted(dbt.sources.values(), key=lambda s: s.table)
    sources = [
        f"#   {_line(s.name + ': ' + s.table)}" + (f", loaded at {_line(s.loaded_at)}" if s.loaded_at else "")
        for s in found
    ]
    return _DBT_YML.format(
        dbt=_line(dbt.name),
        name=json.dumps(name),
        warehouse=_WAREHOUSES[dbt.adapter],
        models="\n".join(models) or "#   none",
        sources="\n".join(sources) or "#   none",
    )


def _line(text: str) -> str:
    """A text as it may stand in a comment: one line, nothing that YAML refuses."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
