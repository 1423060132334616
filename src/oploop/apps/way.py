"""How an account's requests go out, by the `http` key of its block: held to what can work before anything is sent."""

from __future__ import annotations

from urllib.parse import urlsplit

from oploop.apps.origin import is_loopback
from oploop.apps.sender import trusting
from oploop.apps.transport import Transport
from oploop.errors import FixConfig
from oploop.project import AppBlock
from oploop.runtime import HttpWay

MEND_PROXY = "write it like http://proxy.acme.example:3128"


def http_way(block: AppBlock) -> HttpWay:
    """What an app's block says of it. FixConfig for a proxy that is no address, a file that holds no certificates."""
    said = block.http
    if said is None:
        return HttpWay()
    proxy = said.proxy and block.variables.fill(said.proxy, said.places["proxy"], set())
    if proxy is not None:
        _check_proxy(proxy, block)
    ca = None if said.ca is None else block.root / block.variables.fill(said.ca, said.places["ca"], set())
    if ca is not None:
        try:
            trusting(ca)
        except OSError as e:  # ssl.SSLError is one
            why = "is not there" if isinstance(e, FileNotFoundError) else "holds no certificates in PEM"
            raise FixConfig(f"http.ca: {ca} {why}", mend="name the file", place=said.places["ca"]) from None
    return HttpWay(proxy, ca, said.timeout)


def _check_proxy(proxy: str, block: AppBlock) -> None:
    """An address of a proxy, whose password no message repeats."""
    assert block.http is not None
    place = block.http.places["proxy"]
    try:
        parts = urlsplit(proxy)
        named = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        named = False
    if not named:
        raise FixConfig("http.proxy is no address of a proxy", mend=MEND_PROXY, place=place)


def check_way(block: AppBlock, way: HttpWay, wire: object) -> None:
    """FixConfig where what a block says of HTTP cannot be: the app speaks none, or plain http would leave this machine."""
    if block.http is None:
        return
    if not isinstance(wire, Transport):
        raise FixConfig(
            f"{block.type} is not called over HTTP, so it takes no `http`", mend="remove it", place=block.place
        )
    if way.proxy is None:
        return
    if wire.base_url.startswith("http://") and not is_loopback(urlsplit(way.proxy).hostname or ""):
        raise FixConfig(
            "plain http, which is for this machine alone, would leave it through http.proxy",
            mend="use https, or no proxy",
            place=block.http.places["proxy"],
        )


__all__ = ["check_way", "http_way"]
