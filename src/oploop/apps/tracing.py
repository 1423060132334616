"""What goes over the wire, written to a file for people (`--trace-http FILE`), with every secret taken out."""

from __future__ import annotations

import base64
import binascii
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote, quote_plus

import orjson

from oploop.apps.policy import Answer, Request
from oploop.apps.sender import Sender
from oploop.errors import FixConfig
from oploop.runtime import Runtime

#: Headers, and keys of addresses and bodies, whose values are never written.
SECRET = r"authorization|cookie|token|secret|passw|api[-_]?key|private[-_]?key|assertion|signature|credential|write[-_]?key|client[-_]?id"
_NAME = re.compile(SECRET, re.IGNORECASE)
_PAIR = re.compile(rf"(?i)((?:^|[?&])[^=&\s]*(?:{SECRET})[^=&\s]*=)[^&\s]*")
_MEMBER = re.compile(rf'(?i)("[^"]*(?:{SECRET})[^"]*"\s*:\s*)("(?:[^"\\]|\\.)*"|[^,}}\]\s]+)')
HIDDEN = "***"
MOST = 4_000  #: characters of a body


class HttpTrace:
    """A file of JSON lines, one a request: time, method, address, status, seconds, headers and the begin of bodies."""

    def __init__(self, path: Path) -> None:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as e:
            raise FixConfig(
                f"{path} cannot be written: {(e.strerror or str(e)).lower()}", mend="name another file"
            ) from None
        self._out: IO[bytes] = os.fdopen(handle, "ab", buffering=0)

    def close(self) -> None:
        """Let go of the file."""
        self._out.close()

    def over(self, sender: Sender, runtime: Runtime) -> Sender:
        """The sender, with each request and what came of it written down."""

        async def traced(request: Request) -> Answer:
            began, at = runtime.monotonic(), runtime.now()
            known = secrets_of(request.headers) | set(request.hidden)
            url = _without(clean_url(request.url), known)
            line: dict[str, object] = {"at": at.isoformat(), "method": request.method, "url": url}
            try:
                answer = await sender(request)
            except BaseException as e:
                line["error"] = f"{type(e).__name__}: {_without(str(e), known)}"
                raise
            else:
                line["status"] = answer.status
                line["answer"] = {"headers": clean_headers(answer.headers), "body": clean_body(answer.body, known)}
                return answer
            finally:
                line["seconds"] = round(runtime.monotonic() - began, 4)
                line["request"] = {"headers": clean_headers(request.headers), "body": clean_body(request.body, known)}
                self._out.write(orjson.dumps(line) + b"\n")

        return traced


def secrets_of(headers: Mapping[str, str]) -> set[str]:
    """The credentials in a request's headers, in each form in which an app might repeat them."""
    found: set[str] = set()
    for name, value in headers.items():
        if _NAME.search(name):
            word = value.rpartition(" ")[2]
            found |= {value, word}
            try:
                plain = base64.b64decode(word, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                continue
            user, _, password = plain.partition(":")
            found |= {plain, user, password, password.rpartition(":")[2]}
    return {s for s in found if len(s) > 3}


def clean_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers, without the values of those that hold a secret."""
    return {n: HIDDEN if _NAME.search(n) else v for n, v in headers.items()}


def clean_url(url: str) -> str:
    """An address, without the secrets of its query."""
    return _PAIR.sub(rf"\g<1>{HIDDEN}", url)


def clean_body(body: bytes | None, known: set[str]) -> str | None:
    """The begin of a body as text, without secrets; None where there is none, the size where it is no text."""
    if not body:
        return None
    if body[:2] == b"\x1f\x8b":
        body = zlib.decompressobj(31).decompress(body, MOST * 8)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"{len(body):,} bytes"
    text = _without(_PAIR.sub(rf"\g<1>{HIDDEN}", _MEMBER.sub(rf'\g<1>"{HIDDEN}"', text[: MOST * 2])), known)
    return text if len(text) <= MOST else f"{text[:MOST]}… ({len(body):,} bytes)"


def _without(text: str, known: set[str]) -> str:
    for secret in sorted(known, key=len, reverse=True):
        for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
            text = text.replace(form, HIDDEN)
    return text


__all__ = ["HttpTrace", "clean_body", "clean_headers", "clean_url", "secrets_of"]
