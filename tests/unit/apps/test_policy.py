"""What a vendor's rules say as data: words, limits, what to try again."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from oploop.apps.credentials import basic, bearer
from oploop.apps.documents import at
from oploop.apps.policy import Answer, LimitHeaders, Policy, Request
from oploop.apps.transport import Quota


def answer(status: int = 400, body: Any = None, **headers: str) -> Answer:
    named = {n.replace("_", "-"): v for n, v in headers.items()}
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    return Answer(status, named, text, Request("GET", "http://127.0.0.1:9"))


class Vendor(Policy):
    words, code = ("error.message", "error", "detail"), "error.code"
    limits = (LimitHeaders("x-limit", "x-left", "x-reset"), LimitHeaders("limit"))
    not_now = {423: 2.0, 409: None}
    failures = Policy.failures | {524}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "no", "code": 7}}, ("no", "7")),
        ({"error": "no"}, ("no", None)),
        ({"detail": ["a", "b"]}, ("['a', 'b']", None)),
        ({"detail": {"message": "deep"}}, ("deep", None)),
        ({}, ("HTTP 400", None)),
        ([], ("HTTP 400", None)),
        (b"<html>", ("HTTP 400", None)),
    ],
)
def test_words_stand_where_the_vendor_puts_them(body: Any, said: tuple[str, str | None]) -> None:
    assert Vendor().error(answer(body=body)) == said


def test_words_may_be_told_with_the_status() -> None:
    policy = Vendor()
    policy.with_status = True
    assert policy.error(answer(body={"error": "no"}))[0] == "HTTP 400: no"
    assert policy.error(answer(body={}))[0] == "HTTP 400"


def test_statuses_beside_the_usual_ones() -> None:
    verdict = Vendor().verdict
    locked, waited, conflict = verdict(answer(423)), verdict(answer(423, retry_after="9")), verdict(answer(409))
    assert (locked.retry, locked.done, locked.after) == (True, False, 2.0)
    assert waited.after == 9.0
    assert (conflict.retry, conflict.done, conflict.after) == (True, False, None)
    assert (verdict(answer(524)).retry, verdict(answer(524)).done) == (True, True)
    assert not Policy().verdict(answer(524)).retry
    assert not Policy().verdict(answer(423)).retry


def test_the_limit_is_told_by_the_first_headers_that_an_answer_has() -> None:
    quota = Vendor().quota
    assert quota(answer(x_limit="100, 100;w=60", x_left="7", x_reset="30")) == Quota(100, 7, 30.0)
    assert quota(answer(limit="50")) == Quota(50, None, None)
    assert quota(answer(x_left="0", x_reset="3")) == Quota(None, 0, 3.0)
    assert quota(answer(x_limit="many")) is None
    assert Policy().quota(answer(x_limit="5")) is None
    when = quota(answer(x_limit="1", x_reset="1738324860", date="Fri, 31 Jan 2025 12:00:00 GMT"))
    assert when == Quota(1, None, 60.0)


def test_credentials_in_headers() -> None:
    assert bearer(SecretStr("t")) == {"Authorization": "Bearer t"}
    assert basic("Aladdin", SecretStr("open sesame")) == {"Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="}
    assert basic("key") == {"Authorization": "Basic a2V5Og=="}


def test_what_stands_at_a_path() -> None:
    document = {"rows": [{"id": 1}], "a": {"b": None}}
    assert at(document, "rows.0.id") == 1
    assert at(document, "") is document
    assert [at(document, p) for p in ("rows.1", "rows.x", "a.b.c", "z")] == [None] * 4
