"""OAuth: when a token is asked for, what is kept of it, what a refusal says, and that no secret is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from oploop.apps.oauth import ClientCredentials, Grant, JwtBearer, OAuth, RefreshToken
from oploop.apps.transport import Answer, ConnectError, CutError, LostAnswer, NoAnswer, Policy, Request, Transport
from oploop.errors import FixConfig
from oploop.runtime import HttpWay, Runtime
from oploop.state import StateStore
from oploop.state.vault import StateVault
from tests.unit.activate.script import Clock

TOKEN_URL = "http://127.0.0.1:9/oauth/token"
API = "http://127.0.0.1:8/api"
SECRET = SecretStr("the-clients-secret")


@dataclass
class Vendor:
    """A token endpoint whose tokens are numbered and end after `life` seconds, and an API that takes only good ones."""

    clock: Clock = field(default_factory=Clock)
    life: int | None = 3600
    rotates: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)  #: of requests for a token
    good: dict[str, float] = field(default_factory=dict)
    refresh: str = "refresh-0"
    answer: Any = None  #: what the token endpoint answers, or raises, instead
    api: Any = None  #: what the API answers, or raises, instead

    async def __call__(self, request: Request) -> Answer:
        await asyncio.sleep(0)
        if request.url == TOKEN_URL:
            return self._token(request)
        self.calls.append(request.headers["Authorization"])
        if isinstance(self.api, Exception):
            raise self.api
        if self.api is not None:
            return Answer(*self.api, request)
        token = request.headers["Authorization"].removeprefix("Bearer ")
        fresh = self.good.get(token, -1.0) > self.clock.seconds
        return Answer(200 if fresh else 401, {}, b"{}", request)

    def _token(self, request: Request) -> Answer:
        form = {k: v[0] for k, v in parse_qs((request.body or b"").decode()).items()}
        self.asked.append(form)
        self.headers.append(dict(request.headers))
        self.timeouts.append(request.timeout)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return Answer(*self.answer, request)
        if form["grant_type"] == "refresh_token" and form["refresh_token"] != self.refresh:
            return Answer(400, {}, b'{"error": "invalid_grant", "error_description": "unknown refresh token"}', request)
        token = f"access-token-{len(self.asked)}"
        self.good[token] = self.clock.seconds + (self.life or 10**9)
        body: dict[str, Any] = {"access_token": token, "token_type": "Bearer"}
        if self.life is not None:
            body["expires_in"] = self.life
        if self.rotates:
            self.refresh = body["refresh_token"] = f"refresh-{len(self.asked)}"
        return Answer(200, {}, orjson.dumps(body), request)

    def transport(self, grant: Grant | None = None, runtime: Runtime | None = None) -> Transport:
        runtime = runtime or self.clock.runtime()
        auth = OAuth(grant or ClientCredentials(TOKEN_URL, "client", SECRET), runtime)
        return Transport(API, runtime=runtime, sender=self, auth=auth)


def refreshing() -> RefreshToken:
    return RefreshToken(TOKEN_URL, "client", SECRET, refresh_token=SecretStr("refresh-0"))


@pytest.fixture
def vault(tmp_path: Path) -> Any:
    """Makes vaults of one project, as several processes have them."""
    made: list[StateVault] = []

    def make(key: str | None = None) -> StateVault:
        folder = tmp_path / ".oploop"
        made.append(StateVault(lambda: StateStore(folder, Runtime()), folder, lambda: key))
        return made[-1]

    yield make
    for v in made:
        v.close()


async def test_a_token_is_asked_for_once_and_shared() -> None:
    vendor = Vendor()
    transport = vendor.transport()
    await asyncio.gather(*(transport.request("GET", "x") for _ in range(5)))
    assert vendor.asked == [
        {"grant_type": "client_credentials", "client_id": "client", "client_secret": "the-clients-secret"}
    ]
    assert vendor.calls == ["Bearer access-token-1"] * 5


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 30.0), (5.0, 5.0), (120.0, 120.0)])
async def test_a_token_may_take_as_long_as_the_account_says(timeout: float | None, seconds: float) -> None:
    vendor = Vendor()
    runtime = replace(vendor.clock.runtime(), http=HttpWay(timeout=timeout))
    await vendor.transport(runtime=runtime).request("GET", "x")
    assert vendor.timeouts == [seconds]


async def test_a_token_is_renewed_before_it_expires() -> None:
    vendor = Vendor()
    transport = vendor.transport()
    await transport.request("GET", "x")
    vendor.clock.seconds += 3600 - 59
    await transport.request("GET", "x")
    assert vendor.calls == ["Bearer access-token-1", "Bearer access-token-2"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_token_that_was_revoked_is_renewed_once_for_all_that_met_it(method: str) -> None:
    vendor = Vendor(life=None)
    transport = vendor.transport()
    await transport.request("GET", "x")
    vendor.good.clear()
    await asyncio.gather(*(transport.request(method, "x", idempotent=False) for _ in range(3)))
    assert len(vendor.asked) == 2
    assert vendor.calls[-3:] == ["Bearer access-token-2"] * 3


async def test_a_second_401_is_a_mistake_of_the_users() -> None:
    vendor = Vendor(api=(401, {}, b"{}"))
    with pytest.raises(FixConfig, match="refused the credentials"):
        await vendor.transport().request("GET", "x")
    assert len(vendor.calls) == 2


async def test_a_401_for_another_reason_is_no_reason_for_a_new_token() -> None:
    vendor = Vendor(api=(401, {"www-authenticate": 'Bearer error="insufficient_scope"'}, b"{}"))
    with pytest.raises(FixConfig):
        await vendor.transport().request("GET", "x")
    assert len(vendor.asked) == len(vendor.calls) == 1


async def test_a_refusal_names_the_keys_and_repeats_no_secret() -> None:
    said = b'{"error": "invalid_client", "error_description": "the-clients-secret is none"}'
    vendor = Vendor(answer=(401, {}, said))
    with pytest.raises(FixConfig) as e:
        await vendor.transport().request("GET", "x")
    assert str(e.value) == (
        f"{TOKEN_URL} refused the credentials (HTTP 401, invalid_client: … is none) — check client_id and client_secret"
    )
    assert vendor.calls == []


async def test_an_app_that_repeats_the_token_does_not_bring_it_into_a_message() -> None:
    class Wordy(Policy):
        def error(self, answer: Answer) -> tuple[str, str | None]:
            return answer.body.decode(), None

    vendor = Vendor(api=(400, {}, b"bad token access-token-1 of the-clients-secret"))
    transport = vendor.transport()
    transport.policy = Wordy()
    with pytest.raises(Exception, match="bad token … of …"):
        await transport.request("GET", "x")


@pytest.mark.parametrize("trouble", [ConnectError("refused"), CutError("reset"), (503, {}, b""), (429, {}, b"")])
async def test_a_token_endpoint_that_is_away_leaves_the_call_unmade(trouble: Any) -> None:
    vendor = Vendor(answer=trouble)
    with pytest.raises(NoAnswer, match=f"its token endpoint {TOKEN_URL}"):
        await vendor.transport().request("POST", "x", idempotent=False)
    assert vendor.calls == []


async def test_a_write_whose_answer_was_lost_stays_unknown_when_no_token_is_to_be_had() -> None:
    vendor = Vendor(life=100)
    transport = vendor.transport()
    await transport.request("GET", "x")
    vendor.api, vendor.answer = CutError("reset"), (400, {}, b'{"error": "invalid_client"}')
    vendor.clock.seconds += 89.9  # good for the first try, and not for the second
    with pytest.raises(LostAnswer, match="no further try"):
        await transport.request("POST", "x", idempotent=True)
    assert len(vendor.calls) == 2


async def test_tokens_are_kept_encrypted_and_used_by_the_next_process(
    vault: Callable[..., StateVault], tmp_path: Path
) -> None:
    vendor = Vendor()
    for _ in range(2):
        await vendor.transport(runtime=replace(vendor.clock.runtime(), vault=vault())).request("GET", "x")
    assert len(vendor.asked) == 1
    held = b"".join(p.read_bytes() for p in (tmp_path / ".oploop").iterdir())
    for secret in (b"access-token-1", b"the-clients-secret"):
        assert secret not in held
    assert (tmp_path / ".oploop" / "state.key").stat().st_mode & 0o777 == 0o600


async def test_a_replaced_refresh_token_is_the_one_that_is_used(vault: Callable[..., StateVault]) -> None:
    vendor = Vendor(life=100, rotates=True)
    for _ in range(3):
        await vendor.transport(refreshing(), replace(vendor.clock.runtime(), vault=vault())).request("GET", "x")
        vendor.clock.seconds += 100
    assert [a["refresh_token"] for a in vendor.asked] == ["refresh-0", "refresh-1", "refresh-2"]


async def test_processes_that_renew_at_once_ask_once(vault: Callable[..., StateVault]) -> None:
    vendor = Vendor(rotates=True)
    shared = vault()
    transports = [vendor.transport(refreshing(), replace(vendor.clock.runtime(), vault=shared)) for _ in range(4)]
    await asyncio.gather(*(t.request("GET", "x") for t in transports))
    assert len(vendor.asked) == 1


async def test_with_another_key_the_token_is_asked_for_anew(vault: Callable[..., StateVault]) -> None:
    vendor = Vendor(rotates=True)
    keys = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "aaaaMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]
    await vendor.transport(refreshing(), replace(vendor.clock.runtime(), vault=vault(keys[0]))).request("GET", "x")
    with pytest.raises(FixConfig, match="the newest was kept in a state, or under a key, that is not this one"):
        await vendor.transport(refreshing(), replace(vendor.clock.runtime(), vault=vault(keys[1]))).request("GET", "x")
    both = f"{keys[1]} {keys[0]}"  # the newer first: it encrypts, and both decrypt
    await vendor.transport(refreshing(), replace(vendor.clock.runtime(), vault=vault(both))).request("GET", "x")
    assert len(vendor.asked) == 2


@pytest.mark.parametrize("key", ["hunter2", "  "])
async def test_a_key_that_is_none_is_named(vault: Callable[..., StateVault], key: str) -> None:
    vendor = Vendor()
    with pytest.raises(FixConfig, match="OPLOOP_STATE_KEY is no key of 32 bytes in base64"):
        await vendor.transport(runtime=replace(vendor.clock.runtime(), vault=vault(key))).request("GET", "x")


def test_a_key_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.key").write_bytes(b"\xff\xfe")
    (tmp_path / "state.key").chmod(0o600)

    def no_store() -> StateStore:
        raise AssertionError("the key comes first")

    with pytest.raises(FixConfig, match=r"state\.key is no key of 32 bytes in base64"):
        StateVault(no_store, tmp_path, lambda: None).put("a", "b")


def private_key(key: rsa.RSAPrivateKey | None = None) -> SecretStr:
    key = key or rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return SecretStr(key.private_bytes(*form).decode())


async def test_an_assertion_is_signed_for_whom_it_names() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private_key(key)
    vendor = Vendor()
    await vendor.transport(JwtBearer(TOKEN_URL, "client", private_key=pem, claims={"sub": "ops@acme.example"})).request(
        "GET", "x"
    )
    [asked] = vendor.asked
    assert set(asked) == {"grant_type", "assertion"}
    told = jwt.decode(
        asked["assertion"], key.public_key(), algorithms=["RS256"], audience=TOKEN_URL,
        options={"verify_exp": False, "verify_iat": False},
    )  # fmt: skip
    assert (told["iss"], told["sub"], told["exp"] - told["iat"]) == ("client", "ops@acme.example", 180)
    with pytest.raises(FixConfig, match="private_key is no RSA key"):
        await vendor.transport(JwtBearer(TOKEN_URL, "client", private_key=SecretStr("none"))).request("GET", "x")


@dataclass
class Timed(Vendor):
    """A token endpoint that takes only assertions of now, by a clock that ours is so many seconds `ahead` of."""

    ahead: float = 0.0
    offs: list[float] = field(default_factory=list)

    def _token(self, request: Request) -> Answer:
        told = jwt.decode(parse_qs((request.body or b"").decode())["assertion"][0], options={"verify_signature": False})
        now = (self.clock.runtime().now() - timedelta(seconds=self.ahead)).replace(microsecond=0)
        self.offs.append(told["iat"] - now.timestamp())
        if abs(self.offs[-1]) > 60:
            headers = {"date": format_datetime(now, usegmt=True)}
            return Answer(400, headers, b'{"error": "invalid_grant", "error_description": "Invalid JWT"}', request)
        return super()._token(request)


@pytest.mark.parametrize("ahead", [-3600, 3600])
async def test_an_assertion_that_our_clock_spoils_is_signed_again_by_the_endpoints(ahead: int) -> None:
    vendor = Timed(ahead=ahead)
    await vendor.transport(JwtBearer(TOKEN_URL, "client", private_key=private_key())).request("GET", "x")
    assert vendor.offs == [ahead, 0]
    assert vendor.calls == ["Bearer access-token-1"]


async def test_a_client_may_say_who_it_is_in_the_header() -> None:
    vendor = Vendor()
    await vendor.transport(ClientCredentials(TOKEN_URL, "client", SECRET, "read write", in_header=True)).request(
        "GET", "x"
    )
    assert vendor.asked == [{"grant_type": "client_credentials", "scope": "read write"}]
    assert vendor.headers[0]["Authorization"].startswith("Basic ")
