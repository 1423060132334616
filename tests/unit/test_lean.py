"""What keeps a process quick: each in a process of its own, since it holds for a whole process."""

from __future__ import annotations

import subprocess
import sys

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
print(pandas.DataFrame({"a": [1]}).shape, [f for f in sys.meta_path if type(f).__name__ == "_NoPandas"])
"""
    assert said("import sys" + code) == "(1, 1) []"
