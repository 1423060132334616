"""What a right project is read as."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from oploop.errors import FixConfig
from oploop.project import (
    Budget,
    Check,
    FieldMapping,
    Limit,
    Limits,
    Locked,
    Retention,
    find_project,
    init_project,
    load_project,
    read_fields_lock,
    write_fields_lock,
)
from tests.unit.project.conftest import SYNC, Write

WHOLE = """\
name: acme
warehouse: {type: duckdb, database: data/w.duckdb}
models: {engine: none}
apps:
  zendesk:
    subdomain: acme
    read: {tickets: {since: 2025-01-01, exclude: [description]}, users: {}, organizations: {every: 1h30m}}
    budget: {share: 50%, keep_daily: 20%}
  crm: {type: postgres, dsn: ${CRM_DSN}, read: [public.accounts, {public.users: {since: "2025-01-01T02:00:00+02:00"}}]}
  salesforce:
environments:
  pr_1: {description: a try}
"""

HEALTH = """\
model: mart.account_health
to: salesforce.Account
owner: revops@acme.example
tags: [a, 2024]
enabled: false
mode: mirror
key: [Billing_Id__c, {Region__c: region}]
fields:
  Health_Score__c: health_score
  Health__c: {column: health, map: {low: At Risk, 1: High, no: 3}}
  ParentId: {ref: salesforce.Account, by: Billing_Id__c, column: parent_id, on_miss: clear}
  OwnerId: {column: csm, if_empty: true, conflict: hold, on_null: clear}
  LeadSource: {value: null, only: create}
  tags: {add: [vip], remove: [trial]}
  labels: {set: []}
  Text__c: {sql: "'score ' || health_score"}
where: tier <> 'free'
on_leave: archive
on_deleted: recreate
adopt: all
conflict: ours
limits: {changes: [10000, 20%], held: 5%, removes: 3}
checks:
  - health_score between 0 and 100
  - {sql: "regexp_matches(email, '@')", stop: true, name: mail}
explain: [total_spend]
when: "*/15 * * * *"
order_by: spend desc, id
max_read_age: 30m
canary: 5
at_most_once: true
"""


def test_the_whole_of_oploop_yml(write: Write) -> None:
    root = write(WHOLE)
    project = load_project(root, {})
    assert (project.name, project.root, project.state_dir) == ("acme", root, root / ".oploop")
    assert (project.warehouse.type, project.warehouse.database) == ("duckdb", root / "data/w.duckdb")
    assert (project.models.engine, project.models.path) == ("none", root)
    assert set(project.environments) == {"dev", "prod", "pr_1"}
    assert project.environments["pr_1"].description == "a try"
    zendesk, crm, salesforce = (project.apps[n] for n in ("zendesk", "crm", "salesforce"))
    assert zendesk.options == {"subdomain": "acme"}
    assert zendesk.budget == Budget(0.5, 0.2)
    assert zendesk.read["tickets"].since == datetime(2025, 1, 1, tzinfo=UTC)
    assert zendesk.read["tickets"].exclude == ("description",)
    assert zendesk.read["organizations"].every == 5400
    assert zendesk.read["users"].place.line == 7
    assert (crm.type, crm.budget, crm.options) == ("postgres", Budget(1.0, 0.0), {"dsn": "${CRM_DSN}"})
    since = crm.read["public.users"].since
    assert since == datetime(2025, 1, 1, tzinfo=UTC)
    assert since.utcoffset() == timedelta(0)
    assert (salesforce.type, salesforce.options, salesforce.read) == ("salesforce", {}, {})


def test_a_server_is_named_by_its_address_whose_secrets_are_not_needed_to_load(write: Write) -> None:
    project = load_project(write("name: a\nwarehouse:\n  type: postgres\n  dsn: ${W}\n"), {})
    assert project.warehouse.server
    assert not project.warnings
    with pytest.raises(FixConfig, match=r"oploop.yml:4: environment variable W is not set"):
        project.warehouse.address()
    filled = load_project(project.root, {"W": "postgres://u:p4ss@h/d"}).warehouse
    assert filled.address() == "postgres://u:p4ss@h/d"
    assert "p4ss" not in repr(filled)
    written = load_project(write("name: a\nwarehouse: {type: postgres, dsn: 'postgres://u:p4ss@h/d'}\n"), {})
    assert len(written.warnings) == 1
    assert "p4ss" not in written.warnings[0] + repr(written.warehouse)


def test_defaults(write: Write) -> None:
    root = write(one=SYNC)
    project = load_project(root, {})
    assert project.warehouse.database == root / "warehouse.duckdb"
    assert (project.models.engine, project.models.path) == ("sqlmesh", root)
    assert set(project.environments) == {"dev", "prod"}
    sync = project.syncs["one"]
    assert (sync.name, sync.app, sync.object, sync.mode, sync.enabled) == ("one", "zendesk", "tickets", "upsert", True)
    assert sync.limits == Limits(Limit(0.2, 10_000), Limit(0.1, None), Limit(None, 0))
    assert (sync.on_null, sync.on_leave, sync.on_deleted, sync.adopt) == ("keep", "keep", "leave", "none")
    assert (sync.conflict, sync.when, sync.max_read_age, sync.canary, sync.at_most_once) == (
        "theirs",
        "models",
        3600,
        0,
        False,
    )
    assert sync.fields == (FieldMapping("priority", column="priority"),)


def test_the_whole_of_a_sync(write: Write) -> None:
    sync = load_project(write(WHOLE, health=HEALTH), {}).syncs["health"]
    fields = {f.field: f for f in sync.fields}
    assert sync.key == {"Billing_Id__c": "Billing_Id__c", "Region__c": "region"}
    assert (sync.owner, sync.tags, sync.enabled, sync.mode) == ("revops@acme.example", ("a", "2024"), False, "mirror")
    assert fields["Health__c"].map == {"low": "At Risk", "1": "High", "no": 3}
    parent = fields["ParentId"]
    assert (parent.ref, parent.by, parent.column, parent.on_miss) == (
        "salesforce.Account",
        "Billing_Id__c",
        "parent_id",
        "clear",
    )
    owner = fields["OwnerId"]
    assert (owner.if_empty, owner.conflict, owner.on_null) == (True, "hold", "clear")
    assert (fields["LeadSource"].source, fields["LeadSource"].value, fields["LeadSource"].only) == (
        "value",
        None,
        "create",
    )
    assert (fields["tags"].add, fields["tags"].remove, fields["tags"].source) == (("vip",), ("trial",), "add")
    assert (fields["labels"].set_, fields["labels"].source) == ((), "set")
    assert fields["Text__c"].sql == "'score ' || health_score"
    assert sync.limits == Limits(Limit(0.2, 10_000), Limit(0.05), Limit(None, 3))
    assert sync.checks == (
        Check("health_score between 0 and 100"),
        Check("regexp_matches(email, '@')", stop=True, name="mail"),
    )
    assert (sync.where, sync.when, sync.order_by) == ("tier <> 'free'", "*/15 * * * *", ("spend desc", "id"))
    assert (sync.max_read_age, sync.canary, sync.at_most_once) == (1800, 5, True)
    assert (sync.on_leave, sync.on_deleted, sync.adopt, sync.conflict) == ("archive", "recreate", "all", "ours")


def test_places(write: Write) -> None:
    sync = load_project(write(WHOLE, health=HEALTH), {}).syncs["health"]
    lines = HEALTH.splitlines()

    def line(*path: str | int) -> str:
        place = sync.place_of(*path)
        assert place.file == "syncs/health.yml"
        return lines[place.line - 1]

    assert line("to").startswith("to:")
    assert line("fields", "OwnerId").startswith("  OwnerId")
    assert line("fields", "nothing of the kind").startswith("fields:")
    assert line("key", "Region__c").startswith("key:")
    assert line("checks", 1).startswith("  - {sql")
    assert line("checks", 7).startswith("checks:")
    assert line("description") == lines[0]


@pytest.mark.parametrize(
    ("written", "key"),
    [("key: id", {"id": "id"}), ("key: [id, {a: b}]", {"id": "id", "a": "b"}), ("key: {id: x}", {"id": "x"})],
)
def test_keys_may_be_text_list_or_map(write: Write, written: str, key: dict[str, str]) -> None:
    sync = SYNC.replace("key: {id: ticket_id}", written)
    assert load_project(write(one=sync), {}).syncs["one"].key == key


def test_fields_as_a_list_know_their_lines(write: Write) -> None:
    sync = load_project(write(one=SYNC.replace("  priority: priority", "  - priority\n  - why: {value: 1}")), {}).syncs[
        "one"
    ]
    assert sync.fields == (FieldMapping("priority", column="priority"), FieldMapping("why", value=1))
    assert sync.place_of("fields", "priority").line == 5
    assert sync.place_of("fields", "why").line == 6


def test_words_and_times_are_text(write: Write) -> None:
    """YAML 1.1 would make false, 750 and 7 of them."""
    project = load_project(
        write("name: acme\napps:\n  x: {a: no, b: 12:30, c: 007, d: 2025-01-01, e: 1_000, f: 0x10, g: 12, h: 1.5}\n"),
        {},
    )
    assert project.apps["x"].options == {
        "a": "no", "b": "12:30", "c": "007", "d": "2025-01-01", "e": "1_000", "f": "0x10", "g": 12, "h": 1.5
    }  # fmt: skip


def test_models_in_another_folder(write: Write) -> None:
    root = write("name: a\nmodels: {engine: sqlmesh, project: ${WHERE}}\n")
    (root / "dbt").mkdir()
    assert load_project(root, {"WHERE": "./dbt"}).models.path == root / "dbt"


def test_files_that_are_no_syncs_are_warned_of(write: Write) -> None:
    root = write(one=SYNC)
    (root / "syncs/two.yaml").write_text(SYNC)
    (root / "syncs/deep").mkdir()
    (root / "syncs/deep/three.yml").write_text(SYNC)
    (root / "syncs/.four.yml").write_text("a: [")
    (root / "syncs/notes.md").write_text("notes")
    project = load_project(root, {})
    assert set(project.syncs) == {"one"}
    assert [w.split(":")[0] for w in sorted(project.warnings)] == ["syncs/deep", "syncs/two.yaml"]


def test_files_that_are_no_unit_tests_by_their_names_are_warned_of(write: Write) -> None:
    root = write("name: a\n")
    (root / "tests/deep").mkdir(parents=True)
    for name in ("test_a.yaml", "tests.yml", "deep/test_b.yaml", "deep/spend.yaml", "a_test.yml", "notes.md"):
        (root / "tests" / name).write_text("{}")
    says = "is not read — unit tests are in files called test_*.yaml"
    assert load_project(root, {}).warnings == [f"tests/a_test.yml: {says}", f"tests/deep/spend.yaml: {says}"]
    (root / "oploop.yml").write_text("name: a\nmodels: {engine: none}\n")
    assert load_project(root, {}).warnings == []


def test_a_project_by_another_ending_is_known(write: Write) -> None:
    root = write("name: a\n")
    (root / "oploop.yml").rename(root / "oploop.yaml")
    for look in (find_project, load_project):
        with pytest.raises(FixConfig, match=r"no oploop\.yml in .* — rename oploop\.yaml to oploop\.yml"):
            look(root)


def test_find_project_walks_up(write: Write) -> None:
    root = write()
    (root / "models/mart").mkdir(parents=True)
    assert find_project(root / "models/mart") == root
    assert find_project(root) == root


def test_no_project(tmp_path: Path) -> None:
    for call in (find_project, load_project):
        with pytest.raises(FixConfig, match=r"no oploop\.yml in .*`oploop init`.*`oploop demo`"):
            call(tmp_path)


def test_init_makes_a_valid_project(tmp_path: Path) -> None:
    written = init_project(tmp_path / "new" / "acme", "acme co")
    root = tmp_path / "new" / "acme"
    project = load_project(root, {})
    assert (project.name, project.apps, project.syncs, project.warnings) == ("acme co", {}, {}, [])
    names = {str(p.relative_to(root)) for p in written}
    folders = {f"{d}/.gitkeep" for d in ("models", "syncs", "audits", "tests", "macros")}
    assert names == {"oploop.yml", ".gitignore", ".env.example", "README.md"} | folders
    assert {".oploop/", ".env", "warehouse.duckdb"} <= set((root / ".gitignore").read_text().split())


def test_init_with_the_examples_taken_in(tmp_path: Path) -> None:
    """The commented apps are right once their # is removed."""
    init_project(tmp_path, "acme")
    path = tmp_path / "oploop.yml"
    path.write_text(re.sub(r"(?m)^#(?=  )", "", path.read_text()))
    project = load_project(tmp_path, {})
    assert set(project.apps) == {"stripe", "zendesk"}
    assert project.apps["zendesk"].budget == Budget(0.5, 0.0)
    assert project.warnings == []


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FixConfig, match=r"README\.md is there already"):
        init_project(tmp_path, "acme")
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]
    with pytest.raises(FixConfig, match="no project's name"):
        init_project(tmp_path / "other", "a: b\n")
    assert not (tmp_path / "other").exists()


def test_fields_lock_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_fields_lock(tmp_path) == {}
    mapping = {
        "zendesk.tickets": {
            "Priority: reason": Locked("360001", "text"),
            'a "b" \\ \x85\t': Locked("custom_fields.1", "number"),
            "Größe 😀": Locked("2"),
        },
        "zendesk.users": {"no": Locked("007")},
    }
    write_fields_lock(tmp_path, mapping)
    assert read_fields_lock(tmp_path) == mapping
    first = (tmp_path / "fields.lock").read_bytes()
    write_fields_lock(tmp_path, dict(reversed(mapping.items())))
    assert (tmp_path / "fields.lock").read_bytes() == first
    write_fields_lock(tmp_path, {})
    assert read_fields_lock(tmp_path) == {}
    assert [p.name for p in tmp_path.iterdir()] == ["fields.lock"]


def test_fields_lock_written_by_hand_may_tell_ids_alone(tmp_path: Path) -> None:
    (tmp_path / "fields.lock").write_text('"zendesk.tickets":\n  Spend: "360001"\n')
    assert read_fields_lock(tmp_path) == {"zendesk.tickets": {"Spend": Locked("360001")}}
    (tmp_path / "fields.lock").write_text('"zendesk.tickets":\n  Spend: {type: text}\n')
    with pytest.raises(FixConfig, match=r"^fields\.lock:2: .*id"):
        read_fields_lock(tmp_path)


def test_fields_lock_that_is_broken(tmp_path: Path) -> None:
    (tmp_path / "fields.lock").write_text("<<<<<<< ours\na: {b: 1}\n")
    with pytest.raises(FixConfig, match=r"^fields\.lock:\d+: "):
        read_fields_lock(tmp_path)


def test_loading_writes_nothing(write: Write) -> None:
    root = write(WHOLE, health=HEALTH.replace("regexp_matches(email, '@')", "email is not null"))
    load_project(root, {})
    before = sorted(root.rglob("*"))
    load_project(root, {})
    assert sorted(root.rglob("*")) == before


def test_what_importing_loads() -> None:
    """pydantic, the SQL parser and the apps cost more than all the rest; reading a project needs none of them."""
    code = (
        "import sys, oploop.project; "
        "print([m for m in ('pydantic', 'sqlglot', 'duckdb', 'sqlmesh', 'dlt', 'ruamel.yaml', 'oploop.apps') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "[]"


def test_retention_is_for_ever_unless_it_is_said(write: Write) -> None:
    assert load_project(write("name: acme\n"), {}).retention == Retention()
    said = load_project(write("name: acme\nretention: {changes: 400d, held: 90d, runs: forever}\n"), {})
    assert said.retention == Retention(400 * 86400.0, 90 * 86400.0, None)
