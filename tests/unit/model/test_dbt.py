"""dbt's words and artifacts, without dbt: what it says (as 1.11 said it) becomes one line with its place and a mend."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from oploop.errors import FixConfig, StopRun
from oploop.model import dbt_artifacts, dbt_faults, make_names
from oploop.model.base import ModelResult, ModelStatus
from oploop.model.dbt_artifacts import Event, Result
from oploop.model.dbt_process import Dbt
from oploop.project import load_project
from oploop.runtime import Runtime
from oploop.stages.reading import build
from oploop.workspace import Workspace

RANKED = "select id,\n  spendd\nfrom {{ ref('stage') }}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    models = tmp_path / "dbt" / "models"
    models.mkdir(parents=True)
    (models / "ranked.sql").write_text(RANKED)
    (models / "staged.sql").write_text("select 1 as id\n")
    (models / "schema.yml").write_text("models:\n  - name: ranked\n")
    (tmp_path / "dbt" / "dbt_project.yml").write_text("name: shop\nprofile: shop\n")
    return tmp_path


@pytest.mark.parametrize(
    ("said", "told", "kind"),
    [
        (
            "Compilation Error\n  Model 'model.shop.ranked' (models/ranked.sql) depends on a node named 'stage' which was not found",
            "dbt/models/ranked.sql:3: dbt finds no 'stage' — did you mean 'staged'?",
            FixConfig,
        ),
        (
            "Compilation Error in model ranked (models/ranked.sql)\n  unexpected '}'\n    line 2\n      spendd }",
            "dbt/models/ranked.sql:2: dbt: unexpected '}'",
            FixConfig,
        ),
        (
            "Parsing Error\n  Error reading shop: schema.yml - Runtime Error\n    Syntax error near line 11\n    -------\n    8  | x",
            "dbt/models/schema.yml:11: dbt: Syntax error near line 11",
            FixConfig,
        ),
        (
            "Error: No such option '--target-path'.",
            "this dbt is too old: Error: No such option '--target-path'.",
            FixConfig,
        ),
        (
            'IO Error: Could not set lock on file "w.duckdb": Conflicting lock is held in python (PID 12).',
            "dbt could not open the warehouse: another process has it — let it finish",
            StopRun,
        ),
        (
            "Runtime Error\n  The profile 'shop' does not have a target named 'dev'. The valid target names for this profile "
            "are:\n   - mine\n   - prod",
            "dbt's profile has no target 'dev' for environment prod — add it to profiles.yml, or name one of mine, prod under",
            FixConfig,
        ),
        ("Database Error\n  connection refused", "dbt: connection refused", StopRun),
        (
            "Runtime Error\n  Could not find profile named 'shop'",
            "dbt finds no profile named 'shop' — the profile: of dbt_project.yml and the name in profiles.yml must be the same",
            FixConfig,
        ),
        (
            "Error: Invalid value for '--profiles-dir': Path '/home/ann/.dbt' does not exist.",
            "dbt finds no profiles.yml: there is no folder /home/ann/.dbt — put one beside dbt_project.yml",
            FixConfig,
        ),
    ],
)
def test_what_dbt_refuses(root: Path, said: str, told: str, kind: type[Exception]) -> None:
    error = dbt_faults.refusal(f"Encountered an error:\n{said}", root / "dbt", root, "prod", ["ranked", "staged"])
    assert told in str(error)
    assert type(error) is kind


def test_the_line_of_the_file_is_told_not_that_of_the_compiled_statement(root: Path) -> None:
    said = (
        'Runtime Error in model ranked (models/ranked.sql)\n  Binder Error: Referenced column "spendd" not found!\n'
        '  Candidate bindings: "spend"\n  \n  LINE 6:   spendd from "w"."main"."x"\n            ^^^^^^'
    )
    told = dbt_faults.failure(said, root / "dbt", root)
    assert told == 'dbt/models/ranked.sql:2: Binder Error: Referenced column "spendd" not found!'


def refused(root: Path, models: str) -> FixConfig:
    """What is refused of a project's models block, when it is read or when its models are asked for."""
    (root / "oploop.yml").write_text(f"name: a\nmodels: {models}\n")

    def ask() -> None:
        p = load_project(root, {})
        make_names(p.models, "prod", p.root, p.state_dir).files()

    with pytest.raises(FixConfig) as told:
        ask()
    assert str(told.value).startswith("oploop.yml:2: ")
    return told.value


def writing_dbt(root: Path, version: str, schema: int) -> Path:
    """A dbt that writes the manifest of another release, and no line of a log."""
    told = f"https://schemas.getdbt.com/dbt/manifest/v{schema}.json"
    meta = {"dbt_version": version, "dbt_schema_version": told, "adapter_type": "duckdb"}
    text = json.dumps({"metadata": meta, "nodes": {}})
    return program(
        root,
        "out = pathlib.Path(sys.argv[sys.argv.index('--target-path') + 1])\n"
        f"out.mkdir(parents=True, exist_ok=True)\n(out / 'manifest.json').write_text({text!r})\n",
    )


def program(root: Path, text: str) -> Path:
    path = root / "other-dbt"
    path.write_text(f"#!{sys.executable}\nimport pathlib, sys\n{text}")
    path.chmod(0o755)
    return path


def test_a_dbt_that_is_missing_or_too_old_is_told_with_what_to_do(root: Path) -> None:
    missing = refused(root, "{engine: dbt, project: ./dbt, command: ../no/dbt}")
    assert "there is no such file" in missing.message
    assert "command: ../dbt-env/bin/dbt" in str(missing)
    nowhere = refused(root, "{engine: dbt, project: ./dbt, command: dbt-of-nobody}")
    assert "dbt cannot be started: dbt-of-nobody: it is not on the PATH" in nowhere.message
    old = refused(root, f"{{engine: dbt, project: ./dbt, command: {writing_dbt(root, '1.7.19', 11)}}}")
    assert old.message == "dbt 1.7.19 is too old"
    assert (old.mend or "").startswith("use dbt-core 1.8 or a later 1.x: ")


#: As clap refuses a word, and what each kind of dbt says to `--version`.
UNKNOWN = "error: unexpected argument '--log-format' found\n\nFor more information, try '--help'.\n"
CORE = "Core:\n  - installed: 1.9.4\n  - latest:    1.11.2 - Update available!\n\nPlugins:\n  - duckdb: 1.9.1\n"


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("dbt-fusion 2.0.0-preview.219\n", "dbt-fusion 2.0.0-preview.219 is none that oploop works with"),
        ("dbt-core 2.0.1\n", "dbt-core 2.0.1 (Fusion) is none that oploop works with"),
        (
            "dbt Cloud CLI - 0.38.16 (9f8e1 2024)\n",
            "dbt Cloud CLI - 0.38.16 (9f8e1 2024) is none that oploop works with",
        ),
        (CORE.replace("1.9.4", "2.0.9"), "dbt 2.0.9 (Fusion) is none that oploop works with"),
        (CORE, "dbt: error: unexpected argument '--log-format' found"),
        ("", "dbt: error: unexpected argument '--log-format' found"),
    ],
)
def test_a_dbt_of_another_make_is_refused_by_its_name(root: Path, version: str, told: str) -> None:
    other = program(
        root, f"if '--version' in sys.argv: sys.exit(print({version!r}))\nsys.exit(print({UNKNOWN!r}) or 2)\n"
    )
    assert told in refused(root, f"{{engine: dbt, project: ./dbt, command: {other}}}").message


def test_a_dbt_2_that_does_as_it_is_told_is_refused_too_before_it_builds(root: Path) -> None:
    other = writing_dbt(root, "2.0.0-preview.219", 20)
    error = refused(root, f"{{engine: dbt, project: ./dbt, command: {other}}}")
    assert error.message == "dbt 2.0.0-preview.219 (Fusion) is none that oploop works with"
    assert "pip install 'dbt-core==1.11.*'" in (error.mend or "")


def test_another_dbt_at_the_same_place_is_asked_anew(root: Path) -> None:
    """What it wrote before is of no use: the next call would be a build."""
    acting_dbt(root).manifest()
    writes = json.loads((root / "manifest.json").read_text())
    writes["metadata"]["dbt_version"] = "2.0.0"
    (root / "manifest.json").write_text(json.dumps(writes))
    assert acting_dbt(root, again=False).manifest().version == "1.11.0"
    os.utime(root / "dbt.py", ns=(1, 1))
    with pytest.raises(FixConfig, match=r"dbt 2.0.0 \(Fusion\) is none"):
        acting_dbt(root, again=False).manifest()


#: Parts of a manifest that are of another kind than dbt writes.
ODD: dict[str, tuple[list[str], Any]] = {
    "name": (["nodes", "model.shop.a", "name"], 5),
    "schema": (["nodes", "model.shop.a", "schema"], None),
    "alias": (["nodes", "model.shop.a", "alias"], ["a"]),
    "file": (["nodes", "model.shop.a", "original_file_path"], {}),
    "parents": (["nodes", "model.shop.a", "depends_on"], {"nodes": [1]}),
    "circle": (["nodes", "model.shop.a", "depends_on"], {"nodes": ["model.shop.a"]}),
    "columns": (["nodes", "model.shop.a", "columns"], {"id": 5}),
    "types": (["nodes", "model.shop.a", "columns"], {"id": {"data_type": 5}}),
    "config": (["nodes", "model.shop.a", "config"], "table"),
    "node": (["nodes", "model.shop.a"], 5),
    "nodes": (["nodes"], []),
    "sources": (["sources"], [1]),
    "source": (["sources"], {"s": {"name": "s", "source_name": 4, "schema": "x"}}),
    "tests": (["unit_tests"], {"t": None}),
    "adapter": (["metadata", "adapter_type"], 1),
    "metadata": (["metadata"], None),
    "version": (["metadata", "dbt_version"], 1.11),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_manifest_with_something_of_another_kind_is_told_as_none(root: Path, odd: str) -> None:
    node = {
        "resource_type": "model",
        "name": "a",
        "schema": "mart",
        "package_name": "shop",
        "original_file_path": "a.sql",
    }
    dbt = acting_dbt(root)
    written = json.loads((root / "manifest.json").read_text())
    written["nodes"] = {"model.shop.a": node}
    path, value = ODD[odd]
    inner = written
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    (root / "manifest.json").write_text(json.dumps(written))
    with pytest.raises(FixConfig, match=r"oploop.yml:3: what dbt wrote is no manifest of dbt: .* — remove it"):
        dbt.manifest()


@pytest.mark.parametrize(
    "written",
    [
        "[]",
        '{"results": 5}',
        '{"results": [5, null, {}]}',
        '{"results": [{"unique_id": 5, "status": "success"}]}',
        '{"results": [{"unique_id": "a", "status": 5, "failures": "x", "execution_time": "long", "message": {}}]}',
    ],
)
def test_results_of_another_kind_are_no_results(tmp_path: Path, written: str) -> None:
    (tmp_path / "run_results.json").write_text(written)
    found = dbt_artifacts.results(tmp_path / "run_results.json")
    assert set(found.values()) <= {Result("")}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"info": {"name": "A", "level": "info", "msg": "m"}, "data": {}}', Event("A", "info", "m")),
        ('{"info": {"name": 5, "msg": {}}, "data": [1]}', Event("", "", "")),
        ('{"info": {}, "data": {"node_info": null, "compiled": 5}}', Event("", "", "")),
        ('{"info": []}', None),
        ("[5]", None),
        ("5", None),
    ],
)
def test_a_line_of_another_kind_tells_nothing(line: str, told: Event | None) -> None:
    assert dbt_artifacts.event(line) == told


#: A dbt that writes what dbt writes, as the test has it in `manifest.json` beside it, and in a build sleeps.
ACTING = """\
#!{python}
import pathlib, sys, time
here = pathlib.Path(__file__).parent
out = pathlib.Path(sys.argv[sys.argv.index('--target-path') + 1])
out.mkdir(parents=True, exist_ok=True)
(out / 'manifest.json').write_text((here / 'manifest.json').read_text())
(here / 'calls').open('a').write('x')
if 'build' in sys.argv:
    time.sleep(8)
    (here / 'done').touch()
"""


def acting_dbt(root: Path, *, again: bool = True) -> Dbt:
    """`again`: written anew, as the first time; else it stands as it is."""
    if again:
        write_acting_dbt(root)
    project = load_project(root)
    return Dbt(project.models, "dev", root, root / ".oploop")


def write_acting_dbt(root: Path) -> None:
    path = root / "dbt.py"
    path.write_text(ACTING.format(python=sys.executable))
    path.chmod(0o755)
    schema = "https://schemas.getdbt.com/dbt/manifest/v12.json"
    meta = {"dbt_version": "1.11.0", "dbt_schema_version": schema, "adapter_type": "duckdb"}
    (root / "manifest.json").write_text(json.dumps({"metadata": meta, "nodes": {}}))
    (root / "oploop.yml").write_text(
        "name: acme\nwarehouse: {type: duckdb, database: w.duckdb}\n"
        f"models: {{engine: dbt, project: ./dbt, command: {path}}}\n"
    )


def test_a_manifest_of_which_a_part_was_left_is_written_anew(root: Path) -> None:
    assert acting_dbt(root).manifest().version == "1.11.0"
    written = root / ".oploop" / "dbt" / "dev" / "manifest.json"
    written.write_text(written.read_text()[:40])
    assert acting_dbt(root, again=False).manifest().version == "1.11.0"
    assert acting_dbt(root, again=False).manifest().version == "1.11.0"
    assert (root / "calls").read_text() == "xx"
    dbt = acting_dbt(root, again=False)
    (root / "manifest.json").write_text("[")
    written.unlink()
    with pytest.raises(FixConfig, match="what dbt wrote is no JSON"):
        dbt.manifest()
    assert (root / "calls").read_text() == "xxx"


def test_ctrl_c_ends_a_build_at_once(root: Path) -> None:
    dbt = acting_dbt(root)

    def interrupt() -> None:
        while not (root / "calls").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    async def build() -> None:
        dbt.call("build")  # which blocks, as a command's only task

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(build())
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    time.sleep(0.1)
    assert not (root / "done").exists()


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ("{engine: sqlmesh, command: dbt}", "models.command is for engine: dbt"),
        ("{engine: dbt, project: ./dbt, targets: {prod: x, dev: x}}", "dev and prod both have dbt's target 'x'"),
        ("{engine: dbt, project: ./dbt, targets: {prod: dev}}", "prod and dev both have dbt's target 'dev'"),
        ("{engine: dbt, project: ./dbt, targets: {qa: x}}", "models.targets names 'qa', which is no environment"),
        ("{engine: dbt, project: ./dbt/models}", "is no dbt project"),
        ("{engine: dbt, project: ./dbt, profiles: ./nowhere}", "models.profiles is no folder"),
        ('{engine: dbt, project: ./dbt, command: "\'"}', "models.command is no command"),
    ],
)
def test_what_a_models_block_cannot_say(root: Path, models: str, told: str) -> None:
    assert told in str(refused(root, models))


def test_two_environments_may_change_their_targets(root: Path) -> None:
    (root / "oploop.yml").write_text(
        "name: a\nmodels: {engine: dbt, project: ./dbt, targets: {prod: dev, dev: mine}}\n"
    )
    block = load_project(root, {}).models
    assert (block.target("prod"), block.target("dev"), block.target("qa")) == ("dev", "mine", "qa")


def test_the_place_of_a_target_that_two_have_is_told(root: Path) -> None:
    text = "name: a\nmodels:\n  engine: dbt\n  project: ./dbt\n  targets: {prod: qa}\nenvironments: {qa: {}}\n"
    (root / "oploop.yml").write_text(text)
    with pytest.raises(FixConfig, match=r"^oploop.yml:5: models.targets: prod and qa both have dbt's target 'qa'"):
        load_project(root, {})


class Builds:
    """In place of dbt: knows one model, and notes what it is asked to build."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.results: list[ModelResult] | None = []

    def files(self) -> dict[str, Path]:
        return {"ranked": Path("ranked.sql")}

    def build(self, environment: str, *, select: Sequence[str], progress: Any) -> list[ModelResult]:
        self.asked.append(list(select))
        if self.results is None:
            raise KeyboardInterrupt
        return self.results


@pytest.mark.parametrize(
    ("models", "asked"),
    [(["ranked", "mart.others"], [["ranked"]]), (["mart.others"], []), ([], [[]])],
    ids=["one of dbt's", "none of dbt's", "no syncs"],
)
async def test_of_the_models_that_syncs_name_those_are_built_that_are_dbts(
    root: Path, models: list[str], asked: list[list[str]]
) -> None:
    """A sync may read a table that others keep, of which dbt knows nothing."""
    block = "{write_key: wk, base_url: 'http://127.0.0.1:9'}"
    (root / "oploop.yml").write_text(f"name: a\nmodels: {{engine: dbt, project: ./dbt}}\napps: {{segment: {block}}}\n")
    (root / "syncs").mkdir()
    for n, model in enumerate(models):
        text = f"model: {model}\nto: segment.identify\nmode: upsert\nkey: {{userId: id}}\nfields: {{traits.a: a}}\n"
        (root / "syncs" / f"s{n}.yml").write_text(text)
    builds = Builds()
    async with Workspace(load_project(root, {}), "prod", Runtime(), "test") as ws:
        vars(ws).update(names=builds, _modeler=builds)
        assert await build(ws, "r1") == []
    assert builds.asked == asked


async def test_a_build_that_is_broken_off_holds_its_models_until_one_is_whole(root: Path) -> None:
    """dbt replaces a table before its tests run."""
    block = "{write_key: wk, base_url: 'http://127.0.0.1:9'}"
    (root / "oploop.yml").write_text(f"name: a\nmodels: {{engine: dbt, project: ./dbt}}\napps: {{segment: {block}}}\n")
    (root / "syncs").mkdir()
    text = "model: ranked\nto: segment.identify\nmode: upsert\nkey: {userId: id}\nfields: {traits.a: a}\n"
    (root / "syncs" / "s.yml").write_text(text)
    builds = Builds()
    async with Workspace(load_project(root, {}), "prod", Runtime(), "test") as ws:
        vars(ws).update(names=builds, _modeler=builds)

        async def noted(results: list[ModelResult] | None) -> list[tuple[Any, ...]]:
            builds.results = results
            with contextlib.suppress(KeyboardInterrupt):
                await build(ws, "r1")
            return ws.warehouse.rows("SELECT model, status, message FROM oploop.models")

        broken = [("ranked", "failed", "its last build was broken off, maybe before its tests ran")]
        assert await noted(None) == broken
        assert await noted([ModelResult("ranked", ModelStatus.OK)]) == [("ranked", "ok", "")]
        assert await noted([]) == [("ranked", "ok", "")]  # others were built
        assert await noted(None) == broken


def test_a_folder_of_profiles_is_meant_from_dbts_own_folder_as_dbt_means_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBT_PROFILES_DIR", "profiles")
    profile = root / "dbt" / "profiles" / "profiles.yml"
    profile.parent.mkdir()
    profile.write_text("shop: {target: prod}\n")
    (root / "oploop.yml").write_text("name: acme\nmodels: {engine: dbt, project: ./dbt}\n")
    dbt = Dbt(load_project(root, {}).models, "prod", root, root / ".oploop")
    before = dbt.place()
    profile.write_text("shop: {target: elsewhere}\n")
    assert dbt.place() != before, "so that it is asked once more which database it is in"
