"""An OAuth client's tokens: its own, or had with a refresh token that is good for one use, and renewed when worn out."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from oploop.apps.zendesk.client import ZendeskConfig
from oploop.apps.zendesk.sandbox import CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN, TOKEN_SECONDS, ZendeskSandbox
from oploop.errors import FixConfig
from tests.apps.zendesk.conftest import make_app

CLIENT: dict[str, Any] = {"email": None, "api_token": None, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}


def asked(sandbox: ZendeskSandbox) -> int:
    """How often a token was asked for."""
    return sum(e.path == "/oauth/tokens" for e in sandbox.log)


@pytest.mark.parametrize("more", [{}, {"refresh_token": REFRESH_TOKEN}], ids=["client", "refresh"])
async def test_a_token_is_had_and_renewed(sandbox: ZendeskSandbox, more: dict[str, str]) -> None:
    app = make_app(sandbox.url, **CLIENT, **more)
    assert "admin" in (await app.check()).line
    await app.check()
    assert asked(sandbox) == 1
    for times in (2, 3):  # by Zendesk's clock, not by ours: it answers 401; each time with another refresh token
        sandbox.advance(TOKEN_SECONDS + 1)
        await app.check()
        assert asked(sandbox) == times
    await app.aclose()


@pytest.mark.parametrize("key", ["client_secret", "refresh_token"])
async def test_what_is_wrong_is_named_and_not_repeated(sandbox: ZendeskSandbox, key: str) -> None:
    keys = {**CLIENT, "refresh_token": REFRESH_TOKEN, key: "somebody-elses-secret"}
    app = make_app(sandbox.url, **keys)
    with pytest.raises(FixConfig) as refused:
        await app.check()
    await app.aclose()
    assert key in str(refused.value)
    assert "somebody-elses-secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"client_id": "x"}, "needs client_id and client_secret both"),
        ({"client_secret": "x", "refresh_token": "y"}, "needs client_id and client_secret both"),
        ({"client_id": "x", "client_secret": "y", "oauth_token": "z"}, "give the one that is meant"),
        (
            {"client_id": "x", "client_secret": "y", "email": "a@b.example", "api_token": "z"},
            "give the one that is meant",
        ),
    ],
)
def test_a_block_that_does_not_tell_who_we_are(keys: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ZendeskConfig(subdomain="acme", **keys)  # type: ignore[arg-type]
