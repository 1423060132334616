"""`oploop init --from-dbt`: a dbt project's models taken up where they stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from oploop.apps.zendesk.sandbox import ZendeskSandbox
from oploop.project import load_project
from tests.unit.cli.support import run


def node(name: str, **more: Any) -> dict[str, Any]:
    """A model as dbt 1.10 writes it, with what is read of it."""
    config = {"materialized": more.pop("materialized", "table"), "enabled": more.pop("enabled", True)}
    return {
        "resource_type": "model",
        "name": name,
        "schema": "mart",
        "package_name": "shop",
        "original_file_path": f"models/{name}.sql",
        "config": config,
        "columns": {},
        **more,
    }


def manifest(folder: Path, adapter: str = "duckdb") -> Path:
    nodes = {
        "model.shop.ticket_priority": node(
            "ticket_priority", description="Which ticket\n first", columns={"ticket_id": {"name": "ticket_id"}}
        ),
        "model.shop.people": node("people_v2", alias="people", schema="core", materialized="view"),
        "model.shop.inner": node("inner", materialized="ephemeral"),
        "model.shop.off": node("off", enabled=False),
        "test.shop.unique": {
            "resource_type": "test",
            "name": "unique",
            "schema": "t",
            "config": {},
            "original_file_path": "models/schema.yml",
        },
    }
    source = {
        "source_name": "stripe",
        "name": "charges",
        "identifier": "charge",
        "schema": "fivetran",
        "loaded_at_field": "_fivetran_synced",
    }
    meta = {
        "dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json",
        "adapter_type": adapter,
        "project_name": "shop",
    }
    path = folder / "manifest.json"
    path.write_text(json.dumps({"metadata": meta, "nodes": nodes, "sources": {"source.shop.stripe.charges": source}}))
    return path


def test_a_dbt_project_becomes_one_that_plans(tmp_path: Path, zendesk: ZendeskSandbox) -> None:
    folder = tmp_path / "acme"
    done = run("init", str(folder), "--from-dbt", str(manifest(tmp_path)))
    assert done.code == 0, done.err
    assert "2 models of dbt's shop" in done.out
    text = (folder / "oploop.yml").read_text()
    assert "#   core.people\n#   mart.ticket_priority   Which ticket first\n" in text
    assert "#   stripe.charges: fivetran.charge, loaded at _fivetran_synced\n" in text
    assert "inner" not in text
    assert load_project(folder, {}).models.engine == "none"
    (folder / ".env").write_text("ZENDESK_API_TOKEN=zd_test_oploop\n")
    keys = ("--set", "subdomain=sandbox", "--set", "email=ops@acme.example", "--set", f"base_url={zendesk.url}")
    assert run("connect", "zendesk", *keys, folder=folder).code == 0
    with duckdb.connect(str(folder / "warehouse.duckdb")) as db:  # what dbt builds
        db.execute(
            "CREATE SCHEMA mart; CREATE TABLE mart.ticket_priority AS SELECT 101 AS ticket_id, 'urgent' AS priority"
        )
    assert run("new", "sync", "mart.ticket_priority", "zendesk.tickets", folder=folder).code == 0
    assert run("extract", folder=folder).code == 0
    plan = run("plan", folder=folder)
    assert "1 update" in plan.words, plan.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "manifest.json: cannot be read: no such file or directory — dbt parse writes target/manifest.json"),
        ("{", "manifest.json: is no JSON"),
        ("[]", "manifest.json: is no manifest of dbt"),
        ('{"metadata": {"adapter_type": "duckdb"}}', "manifest.json: is no manifest of dbt"),
        ('{"metadata": {"adapter_type": "duckdb"}, "nodes": {}, "sources": [1]}', "is no manifest of dbt"),
        ('{"metadata": {"adapter_type": "duckdb"}, "nodes": {"m": 5}}', "is no manifest of dbt"),
    ],
)
def test_what_is_no_manifest_is_said(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)
    done = run("init", str(tmp_path / "acme"), "--from-dbt", str(path))
    assert done.code == 2
    assert says in done.err
    assert not (tmp_path / "acme").exists()


def test_a_name_with_line_ends_stays_a_comment(tmp_path: Path) -> None:
    nodes = {"m": node("x\napps: {zendesk: {}}", description="red \x1b[31m\x00 text")}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"metadata": {"adapter_type": "duckdb", "project_name": "p\nq: 1"}, "nodes": nodes}))
    done = run("init", str(tmp_path / "acme"), "--from-dbt", str(path))
    assert done.code == 0, done.err
    assert load_project(tmp_path / "acme", {}).apps == {}


def test_a_warehouse_that_is_none_of_ours_is_said(tmp_path: Path) -> None:
    done = run("init", str(tmp_path / "acme"), "--from-dbt", str(manifest(tmp_path, "snowflake")))
    assert "dbt's warehouse is snowflake, and oploop has no such one yet — it has: duckdb, postgres" in done.err
    assert not (tmp_path / "acme").exists()
    ours = run("init", str(tmp_path / "acme"), "--from-dbt", str(manifest(tmp_path, "postgres")))
    assert ours.code == 0
    assert load_project(tmp_path / "acme", {"WAREHOUSE_DSN": "postgresql://127.0.0.1/x"}).warehouse.server
