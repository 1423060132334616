"""SQLMesh on a server: models in its dialect, names in the case in which apps write them."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from oploop.errors import FixConfig
from oploop.model.base import ColumnSource, ModelStatus
from oploop.model.sqlmesh import SqlmeshModeler
from oploop.runtime import Runtime
from oploop.warehouse.postgres import open_postgres
from tests.postgres import Cluster
from tests.unit.model.shop import FILES, MODELS, charge, make_raw, write

IN_ITS_DIALECT = FILES | {
    "models/staging/charges.sql": """
MODEL (name staging.charges, kind VIEW);
SELECT id, (amount / 100.0)::double precision AS amount, created, "customerId" AS customer, metadata ->> 'plan' AS plan
FROM raw_shop.charges WHERE status ~ '^succ'
""",
}


def test_models_of_all_kinds_are_built_looked_at_anew_and_traced(tmp_path: Path, cluster: Cluster) -> None:
    write(tmp_path, IN_ITS_DIALECT)
    dsn = cluster.made("sqlmesh_models")
    warehouse = open_postgres(dsn, read_only=False)
    make_raw(warehouse)
    modeler = SqlmeshModeler(tmp_path, warehouse, Runtime())
    try:
        assert {m.name for m in modeler.models()} == set(MODELS)
        assert {r.model: r.status for r in modeler.build("prod")} == dict.fromkeys(MODELS, ModelStatus.OK)
        assert warehouse.rows("SELECT customer, total FROM mart.spend ORDER BY 1") == [(f"c{i}", 5.0) for i in range(4)]
        charge(warehouse, "ch_new", "c0", 2500)
        again = {r.model: r.status for r in modeler.build("prod")}
        assert again["mart.spend"] is ModelStatus.OK
        assert warehouse.rows("SELECT total FROM mart.spend WHERE customer = 'c0'") == [(30.0,)]
        assert warehouse.rows("SELECT count(*) FROM mart.by_key") == [(5,)]
        modeler.build("dev")
        assert warehouse.rows("SELECT count(*) FROM mart__dev.last") == [(4,)]
        assert modeler.lineage("mart.spend", "customer")[-1] == ColumnSource(
            "staging.charges", "customer", "raw_shop.charges", "customerId"
        )
        charge(warehouse, "ch_bad", None, 100)  # a blocking audit: no customer
        failed = {r.model: r.status for r in modeler.build("prod")}
        assert failed["mart.spend"] is ModelStatus.FAILED
        write(
            tmp_path, {"models/mart/last.sql": "MODEL (name mart.last, kind VIEW);\nSELECT custmer FROM mart.health\n"}
        )
        with pytest.raises(FixConfig, match="did you mean 'customer'"):
            modeler.build("prod")
    finally:
        warehouse.close()
    with psycopg.connect(dsn) as db:  # nothing was left open that holds a lock
        db.execute("SET lock_timeout = '2s'")
        db.execute("DROP SCHEMA sqlmesh, sqlmesh__mart CASCADE")
