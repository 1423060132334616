"""Both directions against Google's OpenAPI document: what the app sends, and what the sandbox answers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

from oploop.apps.sandbox import Fault, Logged
from oploop.records import Op
from tests.apps.sheets.support import bench, rows, step

SHARED = Path(__file__).parents[3] / "../shared"


@pytest.fixture(scope="module")
def contract() -> Any:
    tool, document = SHARED / "tools/oas_contract.py", SHARED / "specs/google-sheets.json"
    if not tool.exists() or not document.exists():
        pytest.skip("needs ../shared: tools/oas_contract.py and specs/google-sheets.json")
    spec = importlib.util.spec_from_file_location("oas_contract", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Contract(orjson.loads(document.read_bytes()))


def findings(contract: Any, log: Iterable[Logged]) -> list[Any]:
    """Errors and warnings of all requests and answers; the token endpoint is not of this document."""
    found: list[Any] = []
    for e in log:
        if e.path == "/token":
            continue
        said = contract.check_request(e.method, e.path, e.query, e.headers, e.body)
        said += contract.check_response(e.method, e.path, e.status, e.answer_headers, e.answer)
        found += [(f"{e.method} {e.path}", e.body.decode()[:200], f) for f in said]
    return found


async def test_requests_and_answers_keep_to_the_document(contract: Any) -> None:
    async with bench() as (box, app):
        await app.check()
        await app.send(
            step(Op.UPSERT, {"Account": "A", "Target": 5, "Active": True}, {"Account": "B", "Owner": "=1+1"})
        )
        box.tab.row_count = len(box.tab.rows)
        await app.send(step(Op.UPSERT, {"Account": "C", "Target": None}))
        await app.send(step(Op.UPDATE, {"Account": "A", "Target": 6.5, "Owner": None}))
        assert len(await rows(app)) == 3
        await app.fetch("targets", ["A"])
        await app.send(step(Op.REMOVE, {"Account": "A"}, {"Account": "C"}))
        assert findings(contract, box.log) == []
    book = "/v4/spreadsheets/{spreadsheetId}"
    assert {
        f"GET {book}",
        f"POST {book}:batchUpdate",
        f"GET {book}/values:batchGet",
        f"POST {book}/values:batchUpdate",
    } == set(contract.hits)


async def test_the_contract_would_notice(contract: Any) -> None:
    """The check can fail: an option that there is not, an answer of another type."""
    async with bench() as (box, app):
        body = {"valueInputOption": "MAYBE", "data": [{"range": "Targets!A1", "values": [["x"]]}]}
        await app.client._write("v4/spreadsheets/1oploopSandboxSpreadsheet/values:batchUpdate", body, "responses", 1)
        box.faults.append(Fault("values:batchGet", "status", status=200, body='{"valueRanges": [{"values": 5}]}'))
        with pytest.raises(Exception, match="int"):
            await rows(app)
        assert {f["kind"] for *_, f in findings(contract, box.log)} >= {"schema:enum", "schema:type"}
