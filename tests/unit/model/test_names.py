"""What is told of models without starting an engine."""

from __future__ import annotations

from pathlib import Path

from oploop.model import make_names
from oploop.project import load_project


def test_models_of_sqlmesh_are_found_where_its_project_is(tmp_path: Path) -> None:
    (tmp_path / "analytics" / "models").mkdir(parents=True)
    (tmp_path / "analytics" / "models" / "a.sql").write_text("MODEL (name mart.a, kind FULL);\nSELECT 1 AS x, 2 AS y\n")
    (tmp_path / "oploop.yml").write_text("name: a\nmodels: {project: ./analytics}\n")
    p = load_project(tmp_path, {})
    names = make_names(p.models, "dev", p.root, p.state_dir)
    assert names.files() == {"mart.a": tmp_path / "analytics" / "models" / "a.sql"}
    assert names.table("mart.a") == "mart__dev.a"
    assert names.declared("mart.a") == ["x", "y"]
