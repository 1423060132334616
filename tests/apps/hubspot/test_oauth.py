"""An OAuth app's tokens: had with the refresh token, renewed when they are worn out."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from oploop.apps.hubspot.client import HubSpotConfig
from oploop.apps.hubspot.sandbox import CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN, TOKEN_SECONDS
from oploop.errors import FixConfig
from tests.apps.hubspot.support import calls, contact, new_sandbox, read, using

KEYS: dict[str, Any] = {
    "access_token": None, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN,
}  # fmt: skip


async def test_a_token_is_had_and_renewed() -> None:
    box = new_sandbox()
    box.load("contacts", [contact(1)])
    async with using(box, **KEYS) as app:
        await app.check()
        await read(app, "contacts")
        assert len(calls(box, "/oauth/v1/token")) == 1
        box.advance(TOKEN_SECONDS + 1)  # by HubSpot's clock, not by ours: it answers 401
        assert len((await read(app, "contacts"))[0]) == 1
    assert len(calls(box, "/oauth/v1/token")) == 2


@pytest.mark.parametrize("key", ["client_secret", "refresh_token"])
async def test_what_is_wrong_is_named_and_not_repeated(key: str) -> None:
    async with using(new_sandbox(), **{**KEYS, key: "somebody-elses-secret"}) as app:
        with pytest.raises(FixConfig) as refused:
            await app.check()
    assert key in str(refused.value)
    assert "somebody-elses-secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "needs access_token"),
        ({"client_id": "x", "refresh_token": "y"}, "needs access_token"),
        ({"access_token": "x", "refresh_token": "y"}, "give the one that is meant"),
    ],
)
def test_a_block_that_does_not_tell_who_we_are(keys: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        HubSpotConfig(**keys)
