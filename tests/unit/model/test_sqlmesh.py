"""SQLMesh behind our protocol, on a real warehouse. The tests of one life share a project and go on from each other."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oploop.errors import FixConfig
from oploop.model.base import CheckResult, ColumnSource, ModelResult, ModelStatus
from oploop.model.none import NoModeler
from oploop.model.sqlmesh import SqlmeshModeler
from oploop.runtime import Runtime
from oploop.warehouse import open_warehouse
from tests.unit.model.shop import FILES, MODELS, charge, make_raw, write

OK, FAILED, SKIPPED, UNCHANGED = ModelStatus.OK, ModelStatus.FAILED, ModelStatus.SKIPPED, ModelStatus.UNCHANGED


class Life:
    """A project with its warehouse."""

    def __init__(self, root: Path) -> None:
        self.root = root
        write(root)
        self.warehouse = open_warehouse(root / "w.duckdb", read_only=False, runtime=Runtime())
        make_raw(self.warehouse)
        self.modeler = SqlmeshModeler(root, self.warehouse, Runtime(), field_sql=self.field_sql)
        self.field = "metadata ->> '$.plan'"

    def field_sql(self, app_object: str, title: str) -> str:
        assert (app_object, title) == ("shop.charges", "The customer's plan")
        return self.field

    def build(self, environment: str = "prod", *select: str) -> dict[str, ModelResult]:
        results = self.modeler.build(environment, select=select)
        return {r.model: r for r in results}

    def status(self, environment: str = "prod") -> dict[str, str]:
        return {name: r.status.value for name, r in self.build(environment).items()}

    def one(self, sql: str) -> object:
        [(value,)] = self.warehouse.rows(sql)
        return value


@pytest.fixture
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    made = Life(tmp_path_factory.mktemp("project"))
    yield made
    made.warehouse.close()


def models_are_known_before_a_build(life: Life) -> None:
    infos = {m.name: m for m in life.modeler.models()}
    assert set(infos) == set(MODELS)
    names = list(infos)
    assert names.index("staging.charges") < names.index("mart.spend") < names.index("mart.health")
    spend = infos["mart.spend"]
    assert (spend.kind, spend.path, spend.description) == (
        "FULL",
        "models/mart/spend.sql",
        "What each customer spent",
    )
    assert spend.depends_on == ["staging.charges"]
    assert infos["staging.charges"].depends_on == ["raw_shop.charges"]
    assert infos["staging.charges"].columns["created"] == "TIMESTAMPTZ"
    assert list(infos["mart.health"].columns) == ["customer", "total", "plan"]
    assert "sqlmesh" not in {t.split(".")[0] for t in life.warehouse.tables()}  # nothing was written


def test_lineage_goes_back_to_the_raw_columns_in_their_spelling(life: Life) -> None:
    edges = life.modeler.lineage("mart.last", "is_big")
    assert edges == [
        ColumnSource("mart.last", "is_big", "mart.health", "total"),
        ColumnSource("mart.health", "total", "mart.spend", "total"),
        ColumnSource("mart.spend", "total", "staging.charges", "amount"),
        ColumnSource("staging.charges", "amount", "raw_shop.charges", "amount"),
    ]
    assert life.modeler.lineage("staging.charges", "customer")[-1].source_column == "customerId"
    assert life.modeler.lineage("mart.plans", "plan") == []
    with pytest.raises(FixConfig, match=r"mart\.last has no column 'is_bigg' — did you mean 'is_big'"):
        life.modeler.lineage("mart.last", "is_bigg")
    with pytest.raises(FixConfig, match=r"no model mart\.lst — did you mean 'mart\.last'"):
        life.modeler.lineage("mart.lst", "x")


def the_first_build_makes_everything(life: Life) -> None:
    said: list[str] = []
    results = life.modeler.build("prod", progress=said.append)
    assert [r.model for r in results] == [m.name for m in life.modeler.models()]
    assert {r.status for r in results} == {OK}
    assert set(said) == set(MODELS)
    spend = next(r for r in results if r.model == "mart.spend")
    assert spend.checks == [
        CheckResult("not_null", True),
        CheckResult("unique_values", True),
        CheckResult("positive", True),
        CheckResult("not_huge", True, blocking=False),
    ]
    assert life.one("SELECT count(*) FROM mart.last") == 4
    assert life.one("SELECT sum(total) FROM mart.by_day") == 20
    assert life.one("SELECT plan FROM mart.health LIMIT 1") == "silver"


def each_build_looks_at_new_data_even_in_the_same_minute(life: Life) -> None:
    for i in range(2):
        charge(life.warehouse, f"new_{i}", "c0", 1000)
        statuses = life.status()
        assert statuses.pop("mart.plans") == "unchanged"
        assert set(statuses.values()) == {"ok"}
        assert life.one("SELECT total FROM mart.spend WHERE customer = 'c0'") == 15 + 10 * i
        assert life.one("SELECT is_big FROM mart.last WHERE customer = 'c0'") is True
        assert life.one("SELECT count(*) FROM mart.by_key") == 5 + i
        assert life.one("SELECT sum(total) FROM mart.by_day") == 30 + 10 * i


def another_environment_has_tables_of_its_own_only_where_it_differs(life: Life) -> None:
    before = life.one("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'sqlmesh__mart'")
    life.build("dev")
    assert life.one("SELECT count(*) FROM mart__dev.last") == 4
    assert life.one("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'sqlmesh__mart'") == before


def test_unit_tests_run(life: Life) -> None:
    right, wrong = life.modeler.test()
    assert (right.name, right.ok) == ("test_adds_up", True)
    assert (wrong.name, wrong.ok) == ("test_is_wrong", False)
    assert wrong.message == "row 1: total should be 2.0, is 1.0"
    assert str(wrong.place) == "tests/test_spend.yaml:12"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("{customer: bee, total: 2}", "row 1: customer should be bee, is a"),
        (
            "{customer: a}",
            "total should be None, is 1.0 (the test does not name total: `partial: true` under `outputs`",
        ),
        ("{customer: a, total: 1}\n        - {customer: b, total: 1}", "no row with customer b, total 1"),
        (
            f"{{customer: {'a' * 90}1, total: 7}}",
            f"row 1: customer should be {'a' * 90}1, is a; row 1: total should be 7.0, is 1.0",
        ),
    ],
)
def test_what_a_failed_unit_test_says(life: Life, rows: str, said: str) -> None:
    path = life.root / "tests" / "test_spend.yaml"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("{customer: a, total: 2}", rows), encoding="utf-8")
    try:
        [message] = [r.message for r in life.modeler.test() if not r.ok]
    finally:
        path.write_text(before, encoding="utf-8")
    assert said in message


def a_failed_audit_that_does_not_block_is_told(life: Life) -> None:
    charge(life.warehouse, "huge", "whale", 900_000)
    results = life.build()
    assert results["mart.spend"].status is OK
    huge = next(c for c in results["mart.spend"].checks if c.name == "not_huge")
    assert (huge.ok, huge.blocking, huge.rows) == (False, False, 1)
    assert "1 row fails" in huge.message
    [plan] = results["mart.health"].checks
    assert (plan.ok, plan.blocking) == (False, False)  # the model's own `blocking := false`


def a_blocking_audit_fails_its_model_and_what_depends_on_it(life: Life) -> None:
    charge(life.warehouse, "bad", "debtor", -100)
    charge(life.warehouse, "orphan", None, 100)
    results = life.build()
    spend = results["mart.spend"]
    assert spend.status is FAILED
    assert [(c.name, c.ok, c.rows) for c in spend.checks] == [
        ("not_null", False, 1),
        ("unique_values", True, 0),
        ("positive", False, 1),
        ("not_huge", False, 1),
    ]
    assert "positive: 1 row fails" in spend.message
    assert results["mart.health"] == ModelResult("mart.health", SKIPPED, message="mart.spend failed")
    assert results["mart.last"].status is SKIPPED
    assert results["mart.by_key"].status is OK
    assert life.one("SELECT count(*) FROM mart.by_key WHERE id = 'bad'") == 1


def a_changed_model_that_fails_does_not_keep_the_others_from_changing(life: Life) -> None:
    write(
        life.root,
        {
            "models/mart/spend.sql": FILES["models/mart/spend.sql"].replace("AS total", "AS total, 1 AS one"),
            "models/mart/by_key.sql": FILES["models/mart/by_key.sql"].replace("created", "created, 2 AS two"),
        },
    )
    results = life.build()
    assert (results["mart.spend"].status, results["mart.last"].status) == (FAILED, SKIPPED)
    assert results["mart.by_key"].status is OK
    assert life.warehouse.columns("mart.by_key")["two"] == "INTEGER"
    assert "one" not in life.warehouse.columns("mart.spend")


def a_mended_model_is_built(life: Life) -> None:
    life.warehouse.execute("DELETE FROM raw_shop.charges__all WHERE id IN ('bad', 'orphan', 'huge')")
    assert set(life.status().values()) <= {"ok", "unchanged"}
    assert life.one("SELECT max(one) FROM mart.spend") == 1
    assert life.one("SELECT count(*) FROM mart.last") == 4


def test_selecting_builds_a_model_and_what_it_needs(life: Life) -> None:
    charge(life.warehouse, "more", "c1", 100)
    results = life.build("prod", "mart.spend")
    assert {n: r.status for n, r in results.items()} == {"staging.charges": OK, "mart.spend": OK}
    assert life.one("SELECT total FROM mart.spend WHERE customer = 'c1'") == 6
    with pytest.raises(FixConfig, match=r"no model mart\.spent — did you mean 'mart\.spend'"):
        life.build("prod", "mart.spent")


def a_new_raw_column_rebuilds_nothing_that_does_not_use_it(life: Life) -> None:
    before = set(life.warehouse.tables())
    life.warehouse.execute("ALTER TABLE raw_shop.charges__all ADD COLUMN extra JSON")
    life.warehouse.execute("CREATE OR REPLACE VIEW raw_shop.charges AS SELECT * FROM raw_shop.charges__all")
    assert set(life.status().values()) <= {"ok", "unchanged"}
    assert {t for t in set(life.warehouse.tables()) - before if t.startswith("sqlmesh__mart")} == set()


def test_the_life_of_a_project(life: Life) -> None:
    """Each of these goes on from what the one before left."""
    models_are_known_before_a_build(life)
    the_first_build_makes_everything(life)
    each_build_looks_at_new_data_even_in_the_same_minute(life)
    another_environment_has_tables_of_its_own_only_where_it_differs(life)
    a_failed_audit_that_does_not_block_is_told(life)
    a_blocking_audit_fails_its_model_and_what_depends_on_it(life)
    a_changed_model_that_fails_does_not_keep_the_others_from_changing(life)
    a_mended_model_is_built(life)
    a_new_raw_column_rebuilds_nothing_that_does_not_use_it(life)


def test_a_custom_field_is_read_by_its_title(life: Life) -> None:
    model = "MODEL (name mart.fields, kind FULL);\nSELECT id, @field(shop.charges, 'The customer''s plan') AS plan FROM raw_shop.charges"
    write(life.root, {"models/mart/fields.sql": model})
    life.build()
    assert life.one("SELECT plan FROM mart.fields WHERE id = 'ch_1'") == "gold"
    life.field = "'other field'"  # the same title, another field: the model's text is the same
    again = SqlmeshModeler(life.root, life.warehouse, Runtime(), field_sql=life.field_sql)
    again.build("prod")
    assert life.one("SELECT plan FROM mart.fields WHERE id = 'ch_1'") == "other field"
    (life.root / "models/mart/fields.sql").unlink()


def test_afterwards_the_file_is_let_go(life: Life) -> None:
    """Also of SQLMesh's own cursors: another process can open it as soon as ours has closed it."""
    life.build("dev")
    life.warehouse.close()
    code = "import duckdb, sys; print(duckdb.connect(sys.argv[1]).execute('SELECT count(*) FROM mart__dev.last').fetchall())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(life.root / "w.duckdb")], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[(4,)]\n", done.stderr
    life.warehouse = open_warehouse(life.root / "w.duckdb", read_only=True, runtime=Runtime())
    reader = SqlmeshModeler(life.root, life.warehouse, Runtime())
    assert len(reader.models()) == len(MODELS)  # a plan only looks
    assert reader.lineage("mart.last", "customer")


def test_without_an_engine_there_are_no_models() -> None:
    modeler = NoModeler()
    assert (list(modeler.models()), list(modeler.build("prod")), list(modeler.test())) == ([], [], [])
    assert list(modeler.lineage("a", "b")) == []
