"""What keeps a process quick: each in a process of its own, since it holds for a whole process."""

from __future__ import annotations

import subprocess
import sys
import tempfile

RECORDS = """
import sys
from datetime import UTC, datetime
from oploop.apps.arrow import table_from_records
from oploop.records import ColumnType, Stream
stream = Stream("s", ("id",), {"id": ColumnType.INTEGER})
table = table_from_records(stream, [{"id": 1}], versions=1, extracted_at=datetime.now(UTC))
"""


def said(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_rows_become_columns_without_pandas() -> None:
    assert said(RECORDS + "print(table.num_rows, 'pandas' in sys.modules)") == "1 False"


def test_the_warehouse_brings_no_pandas_either() -> None:
    assert (
        said("import oploop.warehouse.base, pyarrow, sys; pyarrow.array([1]); print('pandas' in sys.modules)")
        == "False"
    )


def test_who_asks_arrow_for_data_frames_later_has_them() -> None:
    code = """
import pandas as pd, pyarrow as pa
frame = table.to_pandas()
print(type(frame).__module__.split(".")[0], pa.table(frame).num_rows, pa.array(pd.Series([1, 2])).to_pylist())
"""
    assert said(RECORDS + code) == "pandas 1 [1, 2]"


def test_pandas_is_not_hidden_from_anybody_else() -> None:
    code = """
from oploop.lean import arrow_alone
arrow_alone()
import pandas
print(pandas.DataFrame({"a": [1]}).shape, [f for f in sys.meta_path if type(f).__name__ == "_Hidden"])
"""
    assert said("import sys" + code) == "(1, 1) []"


def test_arrow_looks_when_it_is_loaded_though_that_is_later() -> None:
    code = """
from oploop.lean import arrow_alone
arrow_alone(); arrow_alone()
print('pyarrow' in sys.modules, [type(f).__name__ for f in sys.meta_path].count("_Arrow"))
import pyarrow, pyarrow.compute, inspect
pyarrow.array([1])
print('pandas' in sys.modules, inspect.getsource(pyarrow)[:1], pyarrow.__spec__.origin == pyarrow.__file__)
"""
    assert said("import sys" + code) == "False 1\nFalse # True"


def test_a_warehouse_opens_and_answers_without_arrow_and_numpy() -> None:
    code = """
import sys
from pathlib import Path
from oploop.runtime import Runtime
from oploop.warehouse import open_warehouse
warehouse = open_warehouse(Path(sys.argv[1]) / "w.duckdb", read_only=False, runtime=Runtime())
warehouse.execute("CREATE TABLE t AS SELECT 1 AS a")
print(warehouse.rows("SELECT a FROM t"), warehouse.columns("t"))
print([m for m in ("numpy", "pandas", "pyarrow") if m in sys.modules])
print(warehouse.query("SELECT a FROM t").num_rows)
"""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True, text=True)
    assert done.stdout.split("\n")[:3] == ["[(1,)] {'a': 'INTEGER'}", "[]", "1"]


def test_a_process_that_ends_looks_for_no_cycles() -> None:
    code = """
import atexit, gc, sys
atexit.register(lambda: print(gc.get_freeze_count() > 10_000, file=sys.stderr))
from oploop.cli.main import main
sys.argv = ["oploop", "--help"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr.strip() == "True"


def test_arrow_does_without_numpy_where_it_is_told_to() -> None:
    code = """
import sys
from oploop.lean import arrow_alone, arrow_without_numpy, own_process
arrow_alone()
own_process()
arrow_without_numpy()
import pyarrow as pa, pyarrow.compute as pc, pyarrow.csv, adbc_driver_postgresql.dbapi, oploop.apps.arrow
print([m for m in ("numpy", "pandas") if m in sys.modules], pc.sum(pa.array([1, 2])))
"""
    columns = """
from datetime import UTC, datetime
from oploop.apps.jsonrows import Records
from oploop.records import ColumnType, Stream
stream = Stream("s", ("id",), {"id": ColumnType.INTEGER, "more": ColumnType.JSON, "at": ColumnType.TIMESTAMP})
rows = [{"id": 1, "more": {"a": [1]}, "at": "2026-01-02T03:04:05Z"}, {"id": 2, "other": "x"}]
table = oploop.apps.arrow.table_from_records(stream, rows, versions=1, extracted_at=datetime.now(UTC))
print(table.column("more").to_pylist(), table.column("other").to_pylist(), "numpy" in sys.modules)
import numpy
print(pa.Array.from_buffers(pa.int8(), 3, [None, pa.py_buffer(numpy.arange(3, dtype="i1"))]).to_pylist())
"""
    said_so = ["[] 3", """['{"a":[1]}', None] [None, '"x"'] False""", "[0, 1, 2]"]
    assert said(code + columns).split("\n") == said_so, "others may import it all the same"


def test_who_shares_the_process_with_others_leaves_numpy_to_them() -> None:
    code = """
from oploop.lean import arrow_alone, arrow_without_numpy
arrow_alone()
arrow_without_numpy()
import pyarrow as pa, numpy as np
print(pa.array(np.array([1, 2])).to_numpy().sum())
"""
    assert said(code) == "3"
