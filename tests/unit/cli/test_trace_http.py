"""`--trace-http FILE`: what went over the wire, without a secret."""

from __future__ import annotations

import base64
import gzip
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oploop.apps.tracing import HIDDEN, MOST, clean_body, clean_headers, clean_url, secrets_of
from tests.unit.cli.support import run

TOKEN = "zd_test_oploop"


def test_requests_and_answers_are_written_and_the_token_is_not(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "wire.jsonl"
    done = run("extract", "--trace-http", str(file), folder=project)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    paths = [line["url"].partition("/api/v2/")[2].partition("?")[0] for line in lines]
    assert "users/me" in paths or "users/me.json" in paths or any(p.startswith("incremental") for p in paths)
    exports = [line for line in lines if "incremental/tickets" in line["url"]]
    assert exports[0]["status"] == 200
    assert "Cannot export" in exports[0]["answer"]["body"]
    assert exports[0]["request"]["headers"]["Authorization"] == HIDDEN
    whole = file.read_text()
    assert TOKEN not in whole
    assert base64.b64encode(f"ops@acme.example/token:{TOKEN}".encode()).decode() not in whole
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_is_said(project: Path) -> None:
    done = run("extract", "--trace-http", str(project / "no" / "wire"), folder=project)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "wire cannot be written" in done.err


@pytest.mark.parametrize(
    "body",
    [
        b'{"grant_type": "refresh_token", "refresh_token": "abcd\\"efgh", "n": 1}',
        b"grant_type=x&client_secret=abcd%22efgh&a=1",
        b'{"access_token":"abcd\\"efgh","expires_in":3600}',
        gzip.compress(b'{"token": "abcd\\"efgh"}', mtime=0),
    ],
    ids=["json", "form", "answer", "gzip"],
)
def test_secrets_of_bodies_are_taken_out(body: bytes) -> None:
    text = clean_body(body, set())
    assert text is not None
    assert "abcd" not in text
    assert "efgh" not in text
    assert HIDDEN in text


def test_addresses_headers_and_long_bodies() -> None:
    assert clean_url("https://a.example/x?api_key=abc&page=2") == f"https://a.example/x?api_key={HIDDEN}&page=2"
    assert clean_headers({"X-Api-Key": "abc", "Accept": "*/*"}) == {"X-Api-Key": HIDDEN, "Accept": "*/*"}
    assert clean_body(b"", set()) is None
    assert clean_body(b"\xff\x00\xff", set()) == "3 bytes"
    long = clean_body(b"x" * (MOST + 1), set())
    assert long == "x" * MOST + f"… ({MOST + 1:,} bytes)"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=5, max_size=40), st.text(max_size=20))
@settings(deadline=None)
def test_no_credential_that_an_app_repeats_is_written(secret: str, around: str) -> None:
    basic = base64.b64encode(f"someone:{secret}".encode()).decode()
    for headers in ({"Authorization": f"Bearer {secret}"}, {"authorization": f"Basic {basic}"}):
        text = clean_body(f"{around}{secret}{around}".encode(), secrets_of(headers)) or ""
        assert secret not in text or secret in around * 2 or secret in HIDDEN
