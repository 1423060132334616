"""How the Google Sheets API behaves: a service account's tokens, 60 calls a minute, errors with a status.

Sources: developers.google.com/workspace/sheets/api: reference/rest/v4, limits, guides/values;
developers.google.com/identity/protocols/oauth2/service-account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr, field_validator, model_validator

from oploop.apps.base import AppConfig
from oploop.apps.declared import Part
from oploop.apps.oauth import OAuth, google_account
from oploop.apps.transport import Budget, LostAnswer, NotTheApi, Policy, Transport
from oploop.runtime import Runtime

SCOPE = "https://www.googleapis.com/auth/spreadsheets"
Kind = Literal["text", "integer", "number", "boolean", "date", "timestamp"]


class TableConfig(Part):
    """One table: a sheet (tab) of a spreadsheet. `key`: the column that tells its rows apart; `header`: the row of the names."""

    spreadsheet: str = Field(min_length=1)
    sheet: str = Field(min_length=1)
    key: str
    columns: dict[str, Kind]
    header: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _keyed(self) -> TableConfig:
        if self.columns.get(self.key) not in ("text", "integer"):
            raise ValueError(f"key: {self.key!r} must be one of columns, text or integer")
        return self


class SheetsConfig(AppConfig):
    """The keys of a block of `type: sheets`. `key`: the service account's JSON key, whole. `rate_limit`: calls a minute."""

    base_url: str = "https://sheets.googleapis.com"
    key: SecretStr = Field(description="of a service account, the whole JSON: @FILE")
    sheets: dict[str, TableConfig] = Field(
        min_length=1,
        description="{plan: {spreadsheet: ID, sheet: Sheet1, key: account, columns: {account: text, target: number}}}",
    )
    rate_limit: int = Field(default=60, ge=1)

    @field_validator("sheets")
    @classmethod
    def _named(cls, value: dict[str, TableConfig]) -> dict[str, TableConfig]:
        for name in value:
            if not name.isidentifier() or not name.islower():
                raise ValueError(f"{name!r} cannot be a table's name: use small letters, digits and _")
        return value


class SheetsPolicy(Policy):
    """Google's errors: `{"error": {"code", "message", "status"}}`. What to retry is as everywhere; there is no `Retry-After`."""

    credentials = "key, and that the spreadsheet is shared with its client_email as an editor"
    words, code = ("error.message",), "error.status"


class Client:
    """One service account's API."""

    def __init__(self, config: SheetsConfig, runtime: Runtime) -> None:
        grant = google_account(config.key, SCOPE)
        self.email = grant.client_id
        self.transport = Transport(
            config.base_url,
            runtime=runtime,
            auth=OAuth(grant, runtime),
            policy=SheetsPolicy(),
            budget=Budget(runtime, calls=config.rate_limit, window=60.0),
        )

    async def about(self, spreadsheet: str) -> dict[str, Any]:
        """Title and sheets of a spreadsheet, without its cells."""
        body = (await self.transport.request("GET", _path(spreadsheet))).json()
        return dict(body)

    async def rows(self, spreadsheet: str, sheet: str) -> tuple[list[list[Any]], int | None]:
        """All cells of a sheet as they are at one moment, and Google's clock. Empty ends of rows, and empty last rows, are left out."""
        asked = {
            "ranges": sheet,
            "valueRenderOption": "UNFORMATTED_VALUE",
            "dateTimeRenderOption": "SERIAL_NUMBER",
        }
        answer = await self.transport.request(
            "GET", _path(spreadsheet, "/values:batchGet"), params=asked, timeout=180.0
        )
        body = answer.json()
        if not isinstance(body, dict) or not isinstance(body.get("valueRanges"), list):
            raise NotTheApi(answer)
        return body["valueRanges"][0].get("values", []), answer.date_micros()

    async def put(self, spreadsheet: str, data: Sequence[Mapping[str, Any]]) -> int | None:
        """Write cells by their ranges, as they stand: a text that begins with `=` stays a text. All or nothing."""
        body = {"valueInputOption": "RAW", "data": list(data)}
        return await self._write(_path(spreadsheet, "/values:batchUpdate"), body, "responses", len(data))

    async def change(self, spreadsheet: str, requests: Sequence[Mapping[str, Any]]) -> int | None:
        """Change a spreadsheet's shape. All or nothing."""
        body = {"requests": list(requests)}
        return await self._write(_path(spreadsheet, ":batchUpdate"), body, "replies", len(requests))

    async def _write(self, path: str, body: Mapping[str, Any], told: str, count: int) -> int | None:
        """`told`: where the answer has a word, if an empty one, on each of the `count` things that were asked."""
        answer = await self.transport.request("POST", path, json=body, idempotent=False, timeout=180.0)
        words = answer.written(dict, told)[told]
        if len(words) != count:
            raise LostAnswer(f"Google answered {count} changes of cells with {len(words)} {told}")
        return answer.date_micros()


def _path(spreadsheet: str, rest: str = "") -> str:
    return f"v4/spreadsheets/{quote(spreadsheet, safe='')}{rest}"
