"""A stand-in for Google Sheets, its token endpoint included: spreadsheets with sheets of cells.

Sources: developers.google.com/workspace/sheets/api/reference/rest/v4, .../limits; see client.py.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson
from aiohttp import web

from oploop.apps.oauth import GOOGLE_TOKENS
from oploop.apps.sandbox import Sandbox, json_response
from oploop.apps.sheets import a1
from oploop.apps.sheets.sandbox_a1 import Range, parse

SPREADSHEET = "1oploopSandboxSpreadsheet"
EMAIL = "oploop@sandbox.iam.gserviceaccount.com"
SHEET = "Targets"
COLUMNS = {"Account": "text", "Target": "number", "Owner": "text", "Since": "date", "Active": "boolean"}
ROWS = 1000  #: of a new sheet
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
}

#: The changes of shape that the sandbox knows, and where in them the sheet is named.
_CHANGES = {"deleteDimension": "range", "appendDimension": "", "updateSheetProperties": "properties"}


@functools.cache
def private_key() -> str:
    """The sandbox account's key, made once a process: it opens nothing but sandboxes."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    return made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


class Tab:
    """A sheet: rows of cells, and how many rows it has room for."""

    def __init__(self, number: int, title: str, rows: int = ROWS, columns: int = 26) -> None:
        self.number, self.title, self.row_count, self.column_count = number, title, rows, columns
        self.rows: list[list[Any]] = []

    def properties(self, index: int) -> dict[str, Any]:
        size = {"rowCount": self.row_count, "columnCount": self.column_count}
        return {
            "sheetId": self.number,
            "title": self.title,
            "index": index,
            "sheetType": "GRID",
            "gridProperties": size,
        }

    def put(self, row: int, column: int, value: Any) -> None:
        if value is None:  # a null leaves the cell as it is
            return
        while len(self.rows) < row:
            self.rows.append([])
        cells = self.rows[row - 1]
        cells.extend([""] * (column - len(cells)))
        cells[column - 1] = value
        while self.rows and not any(c != "" for c in self.rows[-1]):
            self.rows.pop()

    def shown(self, at: Range) -> list[list[Any]]:
        """The cells of a range, without empty ends."""
        found = []
        for row in self.rows[(at.top or 1) - 1 : at.bottom]:
            cells = row[(at.left or 1) - 1 : at.right]
            while cells and cells[-1] == "":
                cells = cells[:-1]
            found.append(cells)
        while found and not found[-1]:
            found.pop()
        return found


#: What Google says to an assertion that is not of now.
OUT_OF_TIME = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
    "Check your iat and exp values in the JWT claim."
)
#: Seconds by which an assertion may have been signed in the future.
SLACK = 60


class SheetsSandbox(Sandbox):
    """Google Sheets on loopback: one spreadsheet. `per_minute`: calls that it takes, None for any number."""

    title = "Google Sheets"

    def __init__(self, *, per_minute: int | None = 60, **more: Any) -> None:
        super().__init__(**more)
        self.per_minute = per_minute
        self.reset()

    @classmethod
    def default_config(cls, url: str) -> dict[str, Any]:
        """The app's block for this sandbox."""
        key = {
            "type": "service_account",
            "client_email": EMAIL,
            "private_key": private_key(),
            "token_uri": f"{url}/token",
        }
        table = {"spreadsheet": SPREADSHEET, "sheet": SHEET, "key": "Account", "columns": COLUMNS}
        return {"base_url": url, "key": orjson.dumps(key).decode(), "sheets": {"targets": table}}

    def reset(self) -> None:
        self.tabs = [Tab(0, SHEET)]
        self._tokens: set[str] = set()
        self._asked: deque[datetime] = deque()

    @property
    def tab(self) -> Tab:
        return self.tabs[0]

    def load(self, kind: str, records: list[dict[str, Any]]) -> None:
        """ "targets": rows by their columns' names; the header is written if there is none."""
        if kind != "targets":
            super().load(kind, records)
        if not self.tab.rows:
            self.tab.rows.append(list(COLUMNS))
        for record in records:
            at = len(self.tab.rows) + 1
            for column, name in enumerate(self.tab.rows[0], 1):
                value = record.get(name)
                self.tab.put(at, column, "" if value is None else value)
        self.tab.row_count = max(self.tab.row_count, len(self.tab.rows))

    def dump(self, kind: str) -> list[dict[str, Any]]:
        """ "targets": the rows by the names of their columns."""
        if kind != "targets":
            return super().dump(kind)
        names = self.tab.rows[0] if self.tab.rows else []
        return [dict(zip(names, [*row, *[""] * (len(names) - len(row))], strict=False)) for row in self.tab.rows[1:]]

    def routes(self) -> list[web.RouteDef]:
        book = "/v4/spreadsheets/{id:[^/:]+}"
        return [
            web.post("/token", self._token),
            web.get(book, self._about),
            web.post(book + ":batchUpdate", self._change),
            web.get(book + "/values:batchGet", self._batch_get),
            web.post(book + "/values:batchUpdate", self._batch_put),
            web.get(book + "/values/{range}", self._get),
            web.put(book + "/values/{range}", self._put_one),
        ]

    def not_found(self, status: int) -> web.Response:
        return _error(status, "Not found")

    # -- tokens ------------------------------------------------------------------------------------------------------

    async def _token(self, request: web.Request) -> web.Response:
        """A token for an assertion that the account's key has signed."""
        import jwt
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        form = {k: v[0] for k, v in parse_qs((await request.read()).decode()).items()}
        try:
            key = load_pem_private_key(private_key().encode(), None).public_key()
            where, by_own_clock = [f"{self.url}/token", GOOGLE_TOKENS], {"verify_iat": False, "verify_exp": False}
            claims = jwt.decode(form["assertion"], key, algorithms=["RS256"], audience=where, options=by_own_clock)  # type: ignore[arg-type]
            if claims["iss"] != EMAIL or "spreadsheets" not in claims["scope"]:
                raise KeyError("scope")
        except (jwt.PyJWTError, KeyError):
            return json_response({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, 400)
        if not claims["iat"] - SLACK <= self.now().timestamp() < claims["exp"]:
            return json_response({"error": "invalid_grant", "error_description": OUT_OF_TIME}, 400)
        token = f"ya29.{self._runtime.new_id()}"
        self._tokens.add(token)
        return json_response({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self._tokens:
            return _error(401, "Request had invalid authentication credentials.")
        if request.match_info["id"] != SPREADSHEET:
            return _error(404, "Requested entity was not found.")
        now = self.now()
        while self._asked and self._asked[0] <= now - timedelta(minutes=1):
            self._asked.popleft()
        if self.per_minute is not None and len(self._asked) >= self.per_minute:
            return _error(429, "Quota exceeded for quota metric 'Read requests' and limit 'per minute per user'.")
        self._asked.append(now)
        return None

    # -- cells -------------------------------------------------------------------------------------------------------

    async def _about(self, request: web.Request) -> web.Response:
        refused = self._refusal(request)
        sheets = [{"properties": t.properties(i)} for i, t in enumerate(self.tabs)]
        about = {"title": "Sandbox", "locale": "en_US", "timeZone": "Etc/GMT"}
        url = f"{self.url}/spreadsheets/d/{SPREADSHEET}/edit"
        body = {"spreadsheetId": SPREADSHEET, "properties": about, "sheets": sheets, "spreadsheetUrl": url}
        return refused or json_response(body)

    def _named(self, text: str) -> tuple[Tab, Range] | None:
        try:
            at = parse(text)
        except ValueError:
            return None
        tab = next((t for t in self.tabs if t.title == at.sheet), None)
        return (tab, at) if tab is not None else None

    async def _batch_get(self, request: web.Request) -> web.Response:
        refused = self._refusal(request)
        if refused is not None:
            return refused
        found = [self._value_range(r) for r in request.query.getall("ranges", [])]
        if None in found:
            return _error(400, "Unable to parse range")
        return json_response({"spreadsheetId": SPREADSHEET, "valueRanges": found})

    async def _get(self, request: web.Request) -> web.Response:
        found = self._value_range(unquote(request.match_info["range"]))
        return self._refusal(request) or (json_response(found) if found else _error(400, "Unable to parse range"))

    def _value_range(self, text: str) -> dict[str, Any] | None:
        named = self._named(text)
        if named is None:
            return None
        tab, at = named
        values = tab.shown(at)
        last = a1.letters(min(at.right or tab.column_count, tab.column_count))
        corner = f"{a1.letters(at.left or 1)}{at.top or 1}:{last}{min(at.bottom or tab.row_count, tab.row_count)}"
        found: dict[str, Any] = {"range": f"{a1.whole(tab.title)}!{corner}", "majorDimension": "ROWS"}
        return {**found, "values": values} if values else found

    async def _put_one(self, request: web.Request) -> web.Response:
        data = [{**orjson.loads(await request.read()), "range": unquote(request.match_info["range"])}]
        refused = self._refusal(request) or self._wrong(data)
        return refused or json_response(self._written(data, request.query.get("valueInputOption"))[0])

    async def _batch_put(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        refused = self._refusal(request) or self._wrong(body["data"])
        if refused is not None:
            return refused
        answers = self._written(body["data"], body.get("valueInputOption"))
        totals = {f"totalUpdated{n}": sum(a[f"updated{n}"] for a in answers) for n in ("Rows", "Columns", "Cells")}
        return json_response({"spreadsheetId": SPREADSHEET, **totals, "totalUpdatedSheets": 1, "responses": answers})

    def _wrong(self, data: Sequence[Mapping[str, Any]]) -> web.Response | None:
        """Why none of it is written: a range that is none, or beyond the sheet, or a cell that is too long."""
        for part in data:
            named = self._named(part["range"])
            if named is None:
                return _error(400, f"Unable to parse range: {part['range']}")
            tab, at = named
            if (at.top or 1) + len(part["values"]) - 1 > tab.row_count or (at.left or 1) > tab.column_count:
                return _error(400, f"Range ({part['range']}) exceeds grid limits. Max rows: {tab.row_count}")
            for cell in (c for row in part["values"] for c in row):
                if isinstance(cell, list | dict):
                    return _error(400, "Invalid values: list_value")
                if isinstance(cell, str) and len(cell) > 50_000:
                    return _error(
                        400, "Your input contains more than the maximum of 50000 characters in a single cell."
                    )
        return None

    def _written(self, data: Sequence[Mapping[str, Any]], option: str | None) -> list[dict[str, Any]]:
        answers = []
        for part in data:
            tab, at = self._named(part["range"])  # type: ignore[misc]
            for r, row in enumerate(part["values"], at.top or 1):
                for c, cell in enumerate(row, at.left or 1):
                    tab.put(r, c, cell if option == "RAW" else _entered(cell))
            rows, columns = len(part["values"]), max(map(len, part["values"]), default=0)
            size = {"updatedRows": rows, "updatedColumns": columns, "updatedCells": rows * columns}
            answers.append({"spreadsheetId": SPREADSHEET, "updatedRange": part["range"], **size})
        return answers

    # -- shape -------------------------------------------------------------------------------------------------------

    async def _change(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())["requests"]
        refused = self._refusal(request)
        if refused is not None:
            return refused
        if any(k not in _CHANGES for r in asked for k in r):
            return _error(400, "the sandbox does not know this request")
        for each in asked:
            [(kind, what)] = each.items()
            where = what[_CHANGES[kind]] if _CHANGES[kind] else what
            tab = next(t for t in self.tabs if t.number == where["sheetId"])
            if kind == "appendDimension":
                tab.row_count += what["length"]
            elif kind == "updateSheetProperties":
                tab.row_count = where.get("gridProperties", {}).get("rowCount", tab.row_count)
            else:
                del tab.rows[where["startIndex"] : where["endIndex"]]
                tab.row_count -= where["endIndex"] - where["startIndex"]
        return json_response({"spreadsheetId": SPREADSHEET, "replies": [{} for _ in asked]})


def _entered(cell: Any) -> Any:
    """What a person's typing would become: a formula is worked out, a number is a number."""
    if not isinstance(cell, str):
        return cell
    if cell.startswith("="):
        return "#worked out"
    try:
        return float(cell) if cell.strip() else cell
    except ValueError:
        try:
            return (date.fromisoformat(cell) - date(1899, 12, 30)).days
        except ValueError:
            return cell


def _error(code: int, message: str) -> web.Response:
    return json_response({"error": {"code": code, "message": message, "status": _STATUS.get(code, "INTERNAL")}}, code)
