"""Whose address a URL is: credentials go to one origin, and over plain http only within this machine."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from oploop.errors import FixConfig


def check_origin(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) of a URL; FixConfig when it is no http(s) URL, or plain http to another machine."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port or an IPv6 address that is none
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FixConfig(f"{bare(url)!r} is no http(s) address", mend="base_url looks like https://host[:port][/path]")
    if parts.username is not None:
        raise FixConfig(f"{bare(url)!r} has a user's name or password in it", mend="give credentials by their own keys")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise FixConfig(
            f"plain http to {parts.hostname} would show the credentials to everyone between", mend="use https"
        )
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bare(url: str) -> str:
    """A URL without its query and without a password, which are nobody's business."""
    return re.sub(r"//[^/@]*@", "//", url.split("?", 1)[0].split("#", 1)[0])
