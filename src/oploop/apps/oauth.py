"""OAuth 2.0: access tokens that are had from a token endpoint, renewed when they expire, and kept, encrypted, between runs.

A `Grant` says how a token is asked for; `OAuth` is handed to a Transport as its `auth`:

    auth = OAuth(ClientCredentials(token_url, client_id, secret), runtime)
    Transport(base_url, runtime=runtime, auth=auth, policy=...)

The token goes to the transport's own origin, the client's secret to the token endpoint's, and neither into an error. A call
that the app refuses with a 401, as its token is no longer good, is made once more with a new one. What the runtime's vault
keeps is used by all processes of the project, and one of them at a time renews it: a refresh token that is replaced with
each use would be worth nothing to the second.

Sources: RFC 6749 (4.4, 5, 6), RFC 7523 (2.1), RFC 6750 (3).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote_plus, urlencode

import orjson
from pydantic import SecretStr

from oploop.apps.transport import (
    SECRET_FROM,
    Answer,
    ConnectError,
    CutError,
    NobodyThere,
    Request,
    Sender,
    check_origin,
)
from oploop.errors import FixConfig, RetryLater
from oploop.runtime import Runtime, Vault

#: A token is renewed so many seconds before it expires, or this share of its life, whichever is less.
EARLY, EARLY_SHARE = 60.0, 0.1
#: Seconds to wait while another process renews the token, and between two looks.
PATIENCE, LOOK = 60.0, 0.2
#: Seconds that the token endpoint has for its answer, where the account's settings do not say.
ANSWERED = 30.0
#: Seconds for which a signed assertion is good.
ASSERTED = 180.0
#: Seconds by which our clock may differ from the endpoint's without being the reason for which an assertion is refused.
CLOCK_OFF = 30.0
GOOGLE_TOKENS = "https://oauth2.googleapis.com/token"


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token endpoint gave. `expires_at`: seconds since 1970, if it said; `refresh`: what to ask with next time."""

    access: str
    expires_at: float | None = None
    refresh: str | None = None

    def good(self, now: float, refused: str | None) -> bool:
        return self.access != refused and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True)
class Grant(ABC):
    """How a token is asked for. `in_header`: the client says who it is by HTTP Basic, not in the form (RFC 6749 2.3.1);
    `as_json`: the endpoint wants JSON in place of a form."""

    token_url: str
    client_id: str
    client_secret: SecretStr | None = None
    scope: str | None = None
    in_header: bool = field(default=False, kw_only=True)
    as_json: bool = field(default=False, kw_only=True)
    #: The config keys that a refusal puts in doubt.
    credential: str = field(default="client_id and client_secret", kw_only=True)

    @abstractmethod
    def form(self, kept: Tokens | None, now: float) -> dict[str, str]:
        """What is asked, less who asks."""

    def secrets(self) -> list[str]:
        """What no message may repeat, and what tells one account from another."""
        return [self.client_secret.get_secret_value()] if self.client_secret is not None else []

    def request(self, kept: Tokens | None, now: float) -> Request:
        form = self.form(kept, now)
        kind = "application/json" if self.as_json else "application/x-www-form-urlencoded"
        headers = {"Accept": "application/json", "Content-Type": kind}
        secret = self.client_secret.get_secret_value() if self.client_secret is not None else None
        if self.in_header and secret is not None:
            pair = f"{quote_plus(self.client_id)}:{quote_plus(secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif "assertion" not in form:
            form |= {"client_id": self.client_id} | ({"client_secret": secret} if secret is not None else {})
        if self.scope is not None:
            form["scope"] = self.scope
        body = orjson.dumps(form) if self.as_json else urlencode(form).encode()
        return Request("POST", self.token_url, headers, body)


@dataclass(frozen=True)
class ClientCredentials(Grant):
    """A token for the client itself."""

    def form(self, kept: Tokens | None, now: float) -> dict[str, str]:
        return {"grant_type": "client_credentials"}


@dataclass(frozen=True)
class RefreshToken(Grant):
    """A token for the user who once consented. The endpoint may give a new refresh token with it; then the old one ends."""

    refresh_token: SecretStr = field(default=SecretStr(""), kw_only=True)
    credential: str = field(default="refresh_token, client_id and client_secret", kw_only=True)

    def form(self, kept: Tokens | None, now: float) -> dict[str, str]:
        refresh = kept.refresh if kept is not None else None
        return {"grant_type": "refresh_token", "refresh_token": refresh or self.refresh_token.get_secret_value()}

    def secrets(self) -> list[str]:
        return [*super().secrets(), self.refresh_token.get_secret_value()]


@dataclass(frozen=True)
class JwtBearer(Grant):
    """A token for whom a signed assertion names. `private_key`: PEM; `claims`: `sub`, and what else the vendor wants
    (`iss` is the client, `aud` the token endpoint, unless they say otherwise)."""

    private_key: SecretStr = field(default=SecretStr(""), kw_only=True)
    claims: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    key_id: str | None = field(default=None, kw_only=True)
    credential: str = field(default="client_id, private_key and username", kw_only=True)

    def form(self, kept: Tokens | None, now: float) -> dict[str, str]:
        import jwt

        claims = {
            "iss": self.client_id,
            "aud": self.token_url,
            **self.claims,
            "iat": int(now),
            "exp": int(now + ASSERTED),
        }
        headers = {"kid": self.key_id} if self.key_id is not None else None
        try:
            made = jwt.encode(claims, self.private_key.get_secret_value(), algorithm="RS256", headers=headers)
        except (ValueError, TypeError, jwt.PyJWTError):
            raise FixConfig(
                "private_key is no RSA key in PEM form", mend="give the whole file, from -----BEGIN to -----END"
            ) from None
        return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": made}

    def secrets(self) -> list[str]:
        return [*super().secrets(), self.private_key.get_secret_value()]


def google_account(key: SecretStr, scope: str, *, credential: str = "key") -> JwtBearer:
    """The grant of one of Google's service accounts, by the whole JSON file that Google made for it; its `client_id` is the
    account's e-mail. FixConfig, with the config key `credential`, when it is no such file."""
    try:
        told = orjson.loads(key.get_secret_value())
        email, private = str(told["client_email"]), SecretStr(str(told["private_key"]))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        mend = "give the whole JSON file that Google made for the service account"
        raise FixConfig(f"{credential} is no service account's key", mend=mend) from None
    url, number = str(told.get("token_uri") or GOOGLE_TOKENS), told.get("private_key_id")
    claims = {"scope": scope}
    return JwtBearer(url, email, private_key=private, claims=claims, credential=credential, key_id=number)


def says_expired(answer: Answer) -> bool:
    """Whether a refusal says that the access token is no longer good: a 401, unless it names another error (RFC 6750 3.1)."""
    told = answer.headers.get("www-authenticate", "")
    return answer.status == 401 and ("error=" not in told or "invalid_token" in told)


class OAuth:
    """An account's access token, as the `auth` of a Transport. `expired` tells which answers say that it is worn out."""

    def __init__(self, grant: Grant, runtime: Runtime, *, expired: Callable[[Answer], bool] = says_expired) -> None:
        check_origin(grant.token_url)
        self.grant, self._runtime, self._expired = grant, runtime, expired
        self._tokens: Tokens | None = None
        self._lock = asyncio.Lock()

    def account(self) -> str:
        """A name for the account that tells nothing of its credentials."""
        what = [type(self.grant).__name__, self.grant.token_url, self.grant.client_id, self.grant.scope or ""]
        told = [f"{k}={v}" for k, v in sorted(getattr(self.grant, "claims", {}).items())]
        return hashlib.sha256("\n".join([*what, *told, *self.grant.secrets()]).encode()).hexdigest()[:32]

    def secrets(self) -> Iterable[str]:
        """What no message may repeat."""
        held = self._tokens
        return [*self.grant.secrets(), *([held.access, held.refresh or ""] if held is not None else [])]

    def over(self, sender: Sender) -> Sender:
        """A sender that puts the token on each request, and makes a call once more that was refused for its token."""

        async def send(request: Request) -> Answer:
            token = await self._token(sender, None)
            answer = await sender(_bearing(request, token))
            if not self._expired(answer):
                return answer
            return await sender(_bearing(request, await self._token(sender, token)))

        return send

    async def _token(self, sender: Sender, refused: str | None) -> str:
        """An access token that is good as far as we know; `refused`: one that is not."""
        async with self._lock:  # callers of the account wait for one renewal together
            if self._tokens is None or not self._tokens.good(self._now(), refused):
                self._tokens = await self._renewed(sender, refused)
            return self._tokens.access

    async def _renewed(self, sender: Sender, refused: str | None) -> Tokens:
        vault = self._runtime.vault
        if vault is None:
            return await self._asked(sender, self._tokens)
        async with self._claimed(vault, refused) as kept:
            if kept is not None and kept.good(self._now(), refused):
                return kept
            tokens = await self._asked(sender, kept)
            vault.put(self.account(), orjson.dumps([tokens.access, tokens.expires_at, tokens.refresh]).decode())
            return tokens

    @asynccontextmanager
    async def _claimed(self, vault: Vault, refused: str | None) -> AsyncIterator[Tokens | None]:
        """What is kept; unless that is good it is ours alone to renew."""
        name, until = self.account(), self._runtime.monotonic() + PATIENCE
        while True:
            kept = _read(vault.get(name))
            if kept is not None and kept.good(self._now(), refused):
                yield kept
                return
            if vault.claim(name, "renewing a token"):
                break
            if self._runtime.monotonic() >= until:
                raise RetryLater(f"another process has been renewing the token of {self.grant.token_url} for long")
            await self._runtime.pause(LOOK)
        try:
            yield _read(vault.get(name))  # it may have been renewed just before we had the claim
        finally:
            vault.release(name)

    async def _asked(self, sender: Sender, kept: Tokens | None) -> Tokens:
        """Ask the token endpoint. While it cannot answer, the call that needs the token was certainly not made."""
        now, url = self._now(), self.grant.token_url
        answer = await self._answer(sender, kept, now)
        off = _ahead(answer, now)
        if answer.status in (400, 401) and isinstance(self.grant, JwtBearer) and abs(off) > CLOCK_OFF:
            answer = await self._answer(sender, kept, now - off)  # signed by the endpoint's clock in place of ours
        if answer.status in (408, 429) or answer.status >= 500:
            raise ConnectError(f"its token endpoint {url} answers HTTP {answer.status}")
        if 300 <= answer.status < 400:
            raise FixConfig(f"the token endpoint {url} is elsewhere (HTTP {answer.status})", mend="check its address")
        body = answer.json()
        access = body.get("access_token") if isinstance(body, dict) else None
        if answer.status >= 400 or not isinstance(access, str) or not access:
            raise self._refusal(answer, body if isinstance(body, dict) else {}, kept)
        life = body.get("expires_in")
        lasts = float(life) if isinstance(life, int | str) and str(life).isdigit() else None
        until = None if lasts is None else now + lasts - min(EARLY, lasts * EARLY_SHARE)
        refresh = body.get("refresh_token") or (kept.refresh if kept is not None else None)
        return Tokens(access, until, refresh)

    async def _answer(self, sender: Sender, kept: Tokens | None, now: float) -> Answer:
        seconds = self._runtime.http.timeout or ANSWERED
        try:
            return await sender(replace(self.grant.request(kept, now), timeout=seconds))
        except (ConnectError, CutError) as e:
            kind = NobodyThere if isinstance(e, NobodyThere) else ConnectError
            raise kind(f"its token endpoint {self.grant.token_url} cannot be reached: {e}") from None

    def _refusal(self, answer: Answer, body: Mapping[str, Any], kept: Tokens | None) -> FixConfig:
        said = (
            ": ".join(str(body[k]) for k in ("error", "error_description") if body.get(k)) or "no token in its answer"
        )
        for word in [*self.secrets(), *([kept.refresh or ""] if kept is not None else [])]:
            said = said.replace(word, "…") if len(word) >= SECRET_FROM else said
        mend = f"check {self.grant.credential}"
        if isinstance(self.grant, RefreshToken) and (kept is None or kept.refresh is None):
            mend += "; if the app replaces refresh tokens, the newest was kept in a state, or under a key, that is not this one"
        return FixConfig(
            f"{self.grant.token_url} refused the credentials (HTTP {answer.status}, {said[:300]})", mend=mend
        )

    def _now(self) -> float:
        return self._runtime.now().timestamp()


def _bearing(request: Request, token: str) -> Request:
    return replace(request, headers={**request.headers, "Authorization": f"Bearer {token}"})


def _ahead(answer: Answer, now: float) -> float:
    """Seconds by which our clock, which showed `now`, is ahead of the one that an answer tells; 0 where it tells none."""
    at = answer.date_micros()
    return 0.0 if at is None else now - at / 1e6


def _read(kept: str | None) -> Tokens | None:
    if kept is None:
        return None
    access, expires_at, refresh = orjson.loads(kept)
    return Tokens(access, expires_at, refresh)


__all__ = ["ClientCredentials", "Grant", "JwtBearer", "OAuth", "RefreshToken", "Tokens", "says_expired"]
