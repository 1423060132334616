"""TLS: an authority of a company's own is trusted by SSL_CERT_FILE, as everywhere; without it nobody else's server is."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CALL = """
import asyncio, sys
from oploop.apps.transport import Transport
from oploop.errors import OploopError
from oploop.runtime import Runtime

async def at_once(seconds):
    pass

async def main():
    transport = Transport(sys.argv[1], runtime=Runtime(sleep=at_once))
    try:
        print((await transport.request("GET", "x")).json())
    except OploopError as e:
        print(type(e).__name__, e)
    finally:
        await transport.aclose()

asyncio.run(main())
"""


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that vouches for itself, for this machine, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Acme's own")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "ca.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert, secret


@pytest.mark.parametrize("trusted", [True, False])
async def test_an_authority_of_ones_own_is_named_by_the_environment(tmp_path: Path, trusted: bool) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    app = web.Application()
    app.router.add_get("/x", _answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        env = {k: v for k, v in os.environ.items() if k != "SSL_CERT_FILE"}
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", CALL, f"https://127.0.0.1:{port}"],
            env=env | ({"SSL_CERT_FILE": str(cert)} if trusted else {}),
            capture_output=True,
            text=True,
        )
    finally:
        await runner.cleanup()
    if trusted:
        assert done.stdout.strip() == "{'ok': True}", done.stderr
    else:
        assert "NoAnswer cannot reach https://127.0.0.1" in done.stdout, done.stderr
        assert "certificate verify failed" in done.stdout.lower().replace("_", " ")
        assert f"(127.0.0.1:{port})" in done.stdout
        assert "ssl:" not in done.stdout


async def _answer(request: web.Request) -> web.Response:
    return web.json_response({"ok": True})
