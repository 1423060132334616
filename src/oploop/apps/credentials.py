"""Credentials that stay as they are: in a header, or as a parameter of the address. Those that are renewed: `oauth`."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import quote, quote_plus, urlencode

from pydantic import SecretStr

from oploop.apps.policy import Answer, Request
from oploop.apps.sender import Sender
from oploop.errors import FixConfig


def bearer(token: SecretStr) -> dict[str, str]:
    """The header of a bearer token."""
    return {"Authorization": f"Bearer {token.get_secret_value()}"}


def basic(user: str, password: SecretStr | None = None) -> dict[str, str]:
    """The header of a user's name and password. FixConfig for one with a line break: it would be hidden in the header, and
    refused by the app as a wrong one (RFC 7617 allows no control characters)."""
    pair = f"{user}:{password.get_secret_value() if password is not None else ''}"
    if re.search(r"[\x00-\x1f\x7f]", pair):
        raise FixConfig(
            "a credential has a line break, or another control character, in it",
            mend="take it out; the last line end of a file often comes along",
        )
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


class QueryKey:
    """A credential that goes as a parameter of the address, put on each request on its way out, and nowhere else (see
    `transport.Auth`). The transport has seen to it that the address is the account's own."""

    def __init__(self, name: str, value: SecretStr) -> None:
        self._name, self._value = name, value.get_secret_value()

    def over(self, sender: Sender) -> Sender:
        """A sender that adds the parameter; an address that has it already (a paging link) keeps one."""
        pair = urlencode([(self._name, self._value)])
        hidden = tuple(self.secrets())

        async def sent(request: Request) -> Answer:
            url = request.url
            if pair not in url.partition("?")[2].split("&"):
                url += ("&" if "?" in url else "?") + pair
            return await sender(replace(request, url=url, hidden=hidden))

        return sent

    def account(self) -> str:
        """What the account is known by within this process; the transport makes a hash of it."""
        return f"{self._name}={self._value}"

    def secrets(self) -> Iterable[str]:
        """The value, also as it stands in an address."""
        return dict.fromkeys((self._value, quote_plus(self._value), quote(self._value, safe="")))


__all__ = ["QueryKey", "basic", "bearer"]
