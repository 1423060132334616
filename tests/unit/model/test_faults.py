"""What is wrong with a model is one line with its file, line and a mend, and changes nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from oploop.errors import FixConfig, OploopError
from oploop.model.base import ModelStatus
from oploop.model.sqlmesh import SqlmeshModeler
from oploop.runtime import Runtime
from oploop.warehouse import Warehouse, open_warehouse
from tests.unit.model.shop import charge, make_raw, write


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    opened = open_warehouse(tmp_path_factory.mktemp("w") / "w.duckdb", read_only=False, runtime=Runtime())
    make_raw(opened)
    yield opened
    opened.close()


VIEW = "MODEL (\n  name mart.x,\n  kind VIEW\n);\n\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            VIEW + "SELECT id\nFROM raw_shop.charge",
            "models/x.sql:7: model mart.x reads raw_shop.charge, which does not exist — did you mean 'raw_shop.charges'?",
        ),
        (
            VIEW + "SELECT id FROM raw_other.things",
            "models/x.sql:6: model mart.x reads raw_other.things, which does not exist "
            "— oploop extract reads it, if `read` of other in oploop.yml names it",
        ),
        (  # as like charges as it is by the schema that they share
            VIEW + "SELECT id FROM raw_shop.refunds",
            "models/x.sql:6: model mart.x reads raw_shop.refunds, which does not exist "
            "— oploop extract reads it, if `read` of shop in oploop.yml names it",
        ),
        (
            VIEW + "SELECT id FROM raw_shp.charges",
            "models/x.sql:6: model mart.x reads raw_shp.charges, which does not exist — did you mean 'raw_shop.charges'?",
        ),
        (
            VIEW + "SELECT\n  id,\n  amont\nFROM raw_shop.charges",
            "models/x.sql:8: model mart.x reads column 'amont', which does not exist "
            "— did you mean 'amount' of raw_shop.charges?",
        ),
        (
            VIEW + "SELECT c.id\nFROM raw_shop.charges AS c\nWHERE c.statos = 'x'",
            "models/x.sql:8: model mart.x reads column 'statos', which does not exist "
            "— did you mean 'status' of raw_shop.charges?",
        ),
        (VIEW + "SELECT id\nFROM (SELECT 1 AS id", "models/x.sql:7: Expecting )"),
        (
            VIEW + "SELECT @field(shop.charges, 'Plan') FROM raw_shop.charges",
            "models/x.sql:6: @field(shop.charges, 'Plan')",
        ),
        (
            "MODEL (name mart.x, kind FULL, audits (nothing_like_it));\nSELECT 1 AS a",
            "models/x.sql:1: Audit 'nothing_like_it' is undefined — write audits/nothing_like_it.sql, or correct the name",
        ),
        ("MODEL (name mart.x, kind NOKIND);\nSELECT 1 AS a", "models/x.sql:1: Model kind"),
        (
            "MODEL (name mart.x, kynd FULL);\nSELECT 1 AS a",
            "models/x.sql:1: Invalid field name present in the MODEL block: 'kynd'. Did you mean 'kind'?",
        ),
        ("MODEL (name mart.x, kind FULL);\nSELECT @NOT_A_MACRO() AS a", "models/x.sql:2: Failed to resolve macros"),
        ("SELECT 1 AS a", "models/x.sql: Please add a MODEL block at the top of the file."),
    ],
)
def test_a_model_that_cannot_be(tmp_path: Path, warehouse: Warehouse, text: str, said: str) -> None:
    write(tmp_path, {"models/x.sql": text})
    before = warehouse.tables()
    with pytest.raises(OploopError) as caught:
        SqlmeshModeler(tmp_path, warehouse, Runtime()).build("prod")
    error = str(caught.value)
    assert isinstance(caught.value, FixConfig)
    assert error.startswith(said)
    assert "\n" not in error
    assert str(tmp_path) not in error
    assert warehouse.tables() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\tx: 1", "tests/test_x.yaml:1: found character '\\t' that cannot start any token — correct the YAML"),
        ("a: [", "tests/test_x.yaml:1: "),
        ("# later", "tests/test_x.yaml: what it holds is no unit test — write `test_name: {model: "),
        ("- a", "tests/test_x.yaml: what it holds is no unit test — write `test_name: {model: "),
        ("test_a: hi", "tests/test_x.yaml: what it holds is no unit test — write `test_name: {model: "),
        ("# caf\xe9", "tests/test_x.yaml: the file is not UTF-8 — save it as UTF-8"),
    ],
)
def test_a_file_that_holds_no_unit_tests(tmp_path: Path, warehouse: Warehouse, text: str, said: str) -> None:
    write(tmp_path, {"models/x.sql": VIEW + "SELECT 1 AS a"})
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(FixConfig) as caught:
        SqlmeshModeler(tmp_path, warehouse, Runtime()).test()
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("model: mart.xx\n  outputs: {query: [{a: 1}]}", "there is no model 'mart.xx' (did you mean 'mart.x'?)"),
        ("outputs: {query: [{a: 1}]}", "it names no model (`model: ...`)"),
        ("model: mart.x", "it has no `outputs`"),
    ],
)
def test_a_unit_test_of_nothing_fails_where_it_was_passed_over(
    tmp_path: Path, warehouse: Warehouse, test: str, said: str
) -> None:
    files = {"models/x.sql": VIEW + "SELECT 1 AS a", "tests/test_x.yaml": f"# first\ntest_it:\n  {test}\n"}
    write(tmp_path, files)
    [result] = SqlmeshModeler(tmp_path, warehouse, Runtime()).test()
    assert (result.name, result.ok, result.message) == ("test_it", False, said)
    assert str(result.place) == "tests/test_x.yaml:2"


def test_a_check_that_goes_on_failing_is_told_each_time(tmp_path: Path, warehouse: Warehouse) -> None:
    audits = "audits (not_null(columns := (b), blocking := false), positive)"
    files = {
        "models/x.sql": f"MODEL (name mart.x, kind FULL, {audits});\nSELECT 1 AS a, NULL AS b FROM raw_shop.charges",
        "audits/positive.sql": "AUDIT (name positive);\nSELECT * FROM @this_model WHERE a < 0",
    }
    write(tmp_path, files)
    [well] = SqlmeshModeler(tmp_path, warehouse, Runtime()).build("prod")
    assert [(c.name, c.rows) for c in well.checks] == [("not_null", 4), ("positive", 0)]
    write(tmp_path, {"audits/positive.sql": files["audits/positive.sql"].replace("< 0", "< 2")})
    for _ in range(2):  # the second one takes the model from SQLMesh's state
        [result] = SqlmeshModeler(tmp_path, warehouse, Runtime()).build("prod")
        assert result.status is ModelStatus.FAILED
        assert [(c.name, c.ok, c.rows) for c in result.checks] == [("not_null", False, 4), ("positive", False, 4)]


def test_two_models_of_one_name(tmp_path: Path, warehouse: Warehouse) -> None:
    write(tmp_path, {"models/x.sql": VIEW + "SELECT 1 AS a", "models/y.sql": VIEW + "SELECT 2 AS a"})
    with pytest.raises(FixConfig, match=r"models/[xy]\.sql: .*mart\.x"):
        SqlmeshModeler(tmp_path, warehouse, Runtime()).models()


def test_a_project_without_models(tmp_path: Path, warehouse: Warehouse) -> None:
    modeler = SqlmeshModeler(tmp_path, warehouse, Runtime())
    assert (list(modeler.models()), list(modeler.build("prod")), list(modeler.test())) == ([], [], [])


def test_a_query_that_fails_while_it_runs_fails_its_model_only(tmp_path: Path, warehouse: Warehouse) -> None:
    files = {
        "models/x.sql": "MODEL (name mart.bad, kind FULL);\nSELECT CAST(id AS BIGINT) AS a FROM raw_shop.charges",
        "models/y.sql": "MODEL (name mart.good, kind FULL);\nSELECT id FROM raw_shop.charges",
        "models/z.sql": "MODEL (name mart.after, kind FULL);\nSELECT a FROM mart.bad",
        "models/f.sql": "MODEL (name mart.unknown, kind VIEW);\nSELECT no_such_function(id) AS a FROM raw_shop.charges",
    }
    write(tmp_path, files)
    charge(warehouse, "text", "c", 1)
    results = {r.model: r for r in SqlmeshModeler(tmp_path, warehouse, Runtime()).build("prod")}
    assert results["mart.good"].status is ModelStatus.OK
    assert results["mart.after"].status is ModelStatus.SKIPPED
    assert results["mart.bad"].status is ModelStatus.FAILED
    assert "Could not convert string" in results["mart.bad"].message
    assert "\n" not in results["mart.bad"].message
    assert results["mart.unknown"].status is ModelStatus.FAILED
    assert "no_such_function does not exist" in results["mart.unknown"].message
    assert warehouse.rows("SELECT count(*) FROM mart.good") == [(5,)]
