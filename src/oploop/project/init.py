"""A new project's folder: small, commented, and valid as it stands."""

from __future__ import annotations

import json
import os
from pathlib import Path

from oploop.errors import FixConfig, Place
from oploop.project.config import project_name
from oploop.project.dbt import DbtProject

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

# Only prod writes to apps; elsewhere `oploop run` ends with the plan.
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

1. Add an app to `oploop.yml`, copy `.env.example` to `.env`, put the app's secret there, then run `oploop doctor`.
2. `oploop extract` fills the raw tables: `raw_<app>.<stream>`.
3. Write a model, like `models/mart/account_health.sql`:

       MODEL (name mart.account_health, kind FULL);
       SELECT id AS account_id, name FROM raw_stripe.customers

4. Write a sync, like `syncs/account_health.yml`:

       model: mart.account_health
       to: zendesk.organizations
       mode: update
       key: {{external_id: account_id}}
       fields: {{name: name}}

5. `oploop plan` shows what would be sent. `oploop run --env prod` sends it.
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

# Only prod writes to apps; elsewhere `oploop run` ends with the plan.
environments:
  prod: {{}}
"""


def init_project(folder: Path, name: str, manifest: DbtProject | None = None) -> list[Path]:
    """Write a new project into `folder`, which is made if need be; returns the files written, in order.

    `manifest`: a dbt project whose models it takes up. Raises FixConfig, with nothing written, when `name` is no
    project's name, one of the files is there already, or dbt's warehouse is none of oploop's.
    """
    project_name(name, Place("the project's name"), "name")
    root = Path(os.path.abspath(folder))
    files = {
        "oploop.yml": _OPLOOP_YML.format(name=json.dumps(name)) if manifest is None else _from_dbt(name, manifest),
        ".env.example": _ENV_EXAMPLE if manifest is None or manifest.warehouse == "duckdb" else "# WAREHOUSE_DSN=\n",
        ".gitignore": _GITIGNORE,
        "README.md": _README.format(name=name),
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


def _from_dbt(name: str, dbt: DbtProject) -> str:
    """`oploop.yml` of a project whose models dbt builds."""
    if dbt.warehouse not in _WAREHOUSES:
        raise FixConfig(
            f"dbt's warehouse is {dbt.warehouse}, and oploop has no such one yet",
            mend=f"it has: {', '.join(_WAREHOUSES)}",
        )
    models = [f"#   {m.table}" + (f"   {m.description[:80]}" if m.description else "") for m in dbt.models]
    sources = [f"#   {s.name}: {s.table}" + (f", loaded at {s.loaded_at}" if s.loaded_at else "") for s in dbt.sources]
    return _DBT_YML.format(
        dbt=dbt.name,
        name=json.dumps(name),
        warehouse=_WAREHOUSES[dbt.warehouse],
        models="\n".join(models) or "#   none",
        sources="\n".join(sources) or "#   none",
    )
