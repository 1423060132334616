"""gspread, with Google's own authentication, takes the sandbox for Google Sheets."""

from __future__ import annotations

from collections.abc import Iterator

import gspread
import gspread.http_client
import gspread.spreadsheet
import orjson
import pytest
from google.oauth2.service_account import Credentials
from gspread.exceptions import APIError

from oploop.apps.sheets.client import SCOPE
from oploop.apps.sheets.sandbox import SPREADSHEET, SheetsSandbox


@pytest.fixture
def box() -> Iterator[SheetsSandbox]:
    sandbox = SheetsSandbox(per_minute=None)
    with sandbox.running():
        yield sandbox


@pytest.fixture
def sheet(box: SheetsSandbox, monkeypatch: pytest.MonkeyPatch) -> gspread.Worksheet:
    google = "https://sheets.googleapis.com"
    for module in (gspread.http_client, gspread.spreadsheet):
        for name in dir(module):
            value = getattr(module, name)
            if isinstance(value, str) and value.startswith(google):
                monkeypatch.setattr(module, name, value.replace(google, box.url))
    key = orjson.loads(SheetsSandbox.default_config(box.url)["key"])
    credentials = Credentials.from_service_account_info(key, scopes=[SCOPE])
    return gspread.Client(credentials).open_by_key(SPREADSHEET).worksheet("Targets")


def test_it_reads_what_was_loaded(box: SheetsSandbox, sheet: gspread.Worksheet) -> None:
    box.load("targets", [{"Account": "Zoë", "Target": 5, "Active": True}, {"Account": "B", "Owner": "x"}])
    assert [r["Account"] for r in sheet.get_all_records()] == ["Zoë", "B"]
    assert sheet.row_count == 1000


def test_it_writes_and_deletes(box: SheetsSandbox, sheet: gspread.Worksheet) -> None:
    sheet.update([["Account", "Target"], ["A", 5], ["B", "=1+1"]], "A1", raw=True)
    sheet.batch_update([{"range": "B2:B2", "values": [[7]]}], raw=True)
    assert box.tab.rows == [["Account", "Target"], ["A", 7], ["B", "=1+1"]]
    sheet.delete_rows(2)
    sheet.add_rows(5)
    assert (box.tab.rows, box.tab.row_count) == ([["Account", "Target"], ["B", "=1+1"]], 1004)
    sheet.update([["=1+1"]], "B2", raw=False)
    assert box.tab.rows[1][1] == "#worked out"


def test_what_is_wrong_is_said_in_its_terms(box: SheetsSandbox, sheet: gspread.Worksheet) -> None:
    with pytest.raises(APIError, match="exceeds grid limits"):
        sheet.update([["x"]], "A2000", raw=True)
