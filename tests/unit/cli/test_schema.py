"""`oploop schema`: what the reader takes, the schema takes; what the schema refuses, the reader refuses too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from oploop.cli.commands.schema import schemas
from oploop.demo import folder as demo
from oploop.project.yaml import parse_yaml
from tests.unit.cli.support import PROJECT, SYNC, run

SCHEMAS = schemas()
DOCS = Path(__file__).parents[3] / "docs"


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def problems(kind: str, text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(SCHEMAS[kind])
    return [e.message for e in validator.iter_errors(plain(parse_yaml(text, "x.yml")))]


def test_the_schemas_are_schemas() -> None:
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_init_writes_them_and_its_own_file_passes(tmp_path: Path) -> None:
    folder = tmp_path / "acme"
    assert run("init", str(folder)).code == 0
    assert json.loads((folder / ".schema" / "oploop.json").read_text()) == SCHEMAS["project"]
    assert json.loads((folder / ".schema" / "sync.json").read_text()) == SCHEMAS["sync"]
    text = (folder / "oploop.yml").read_text()
    assert text.startswith("# yaml-language-server: $schema=.schema/oploop.json\n")
    assert problems("project", text) == []
    again = run("schema", folder=folder)
    assert again.out == "✓ .schema: oploop.json, sync.json\n"


def test_the_demo_passes() -> None:
    root = Path(demo.__file__).parent
    texts = list(root.rglob("syncs/*.yml"))
    assert texts
    for path in texts:
        assert problems("sync", path.read_text()) == [], path
    assert problems("sync", SYNC) == []
    assert problems("project", PROJECT.format(engine="none", url="http://127.0.0.1:1")) == []


@pytest.mark.parametrize(
    "text",
    [
        "name: a\napps: {zendesk: {rate_limit: '${LIMIT}', read: {tickets: {since: '2025-01-01', every: 1h}}, budget: {share: 50%}}}",
        "name: a\napps: {crm: {type: postgres, dsn: '${DSN}', read: [public.accounts]}}",
        "name: a\napps: {salesforce: {tables: {Account: {table: f.a, key: id, version: v, columns: {X__c: x}, lag: 2h}}}}",
        "name: a\nretention: {changes: 400d, held: forever}\nenvironments: {prod: {}, qa: {description: x}}",
        "name: a\nwarehouse: {type: postgres, dsn: '${DSN}'}\nmodels: {engine: dbt, project: ./dbt}",
    ],
)
def test_what_is_right_passes(text: str) -> None:
    assert problems("project", text) == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("project", "nam: a"),
        ("project", "name: a\napps: {zendesk: {subdomian: a}}"),
        ("project", "name: a\napps: {desk: {type: zendesk, subdomian: a}}"),
        ("project", "name: a\napps: {zendesk: {budget: {share: 0.5}}}"),
        ("project", "name: a\napps: {zendesk: {tables: {tickets: {table: a.b}}}}"),
        ("project", "name: a\nmodels: {engine: dtb}"),
        ("project", "name: a\nalerts: [{to: slack}]"),
        ("sync", "model: a\nto: b.c\nmode: upsrt"),
        ("sync", "model: a\nto: b.c\nfields: {x: {colunm: y}}"),
        ("sync", "model: a"),
        ("sync", "model: a\nto: b.c\nlimits: {changes: 20.5}"),
        ("sync", "model: a\nto: b.c\nmax_read_age: 1"),
    ],
)
def test_what_is_wrong_is_marked(kind: str, text: str) -> None:
    assert problems(kind, text) != []


def test_the_examples_of_the_docs_pass() -> None:
    page = (DOCS / "configuration.md").read_text()
    examples = [part.partition("```")[0] for part in page.split("```yaml\n")[1:]]
    assert examples
    for text in examples:
        block = parse_yaml(text, "configuration.md")
        if "model" in block:
            assert problems("sync", text) == [], text
        elif "name" in block:
            assert problems("project", text) == [], text
