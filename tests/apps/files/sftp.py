"""A real SFTP server on loopback, over a folder: paramiko's server with its plainest of file handles."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko

USER, PASSWORD = "oploop", "s3cret-Wort"


class _Login(paramiko.ServerInterface):
    def check_auth_password(self, username: str, password: str) -> int:
        good = (username, password) == (USER, PASSWORD)
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


def _answered(work: Any) -> Any:
    """Do it; an operating system's error as SFTP's."""
    try:
        done = work()
    except OSError as e:
        return paramiko.SFTPServer.convert_errno(e.errno or 0)
    return paramiko.SFTP_OK if done is None else done


def files_under(root: Path) -> type[paramiko.SFTPServerInterface]:
    """SFTP's operations on the files of a folder."""

    def at(path: str) -> Path:
        return root / path.lstrip("/")

    def told(path: Path) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(path.stat(), path.name)

    class Files(paramiko.SFTPServerInterface):
        def list_folder(self, path: str) -> Any:
            return _answered(lambda: [told(p) for p in at(path).iterdir()])

        def stat(self, path: str) -> Any:
            return _answered(lambda: told(at(path)))

        lstat = stat

        def open(self, path: str, flags: int, attr: Any) -> Any:
            def work() -> paramiko.SFTPHandle:
                descriptor = os.open(at(path), flags, 0o600)
                file = os.fdopen(descriptor, "wb" if flags & (os.O_WRONLY | os.O_RDWR) else "rb")
                handle = paramiko.SFTPHandle(flags)
                handle.filename, handle.readfile, handle.writefile = str(at(path)), file, file  # type: ignore[attr-defined]
                return handle

            return _answered(work)

        def remove(self, path: str) -> Any:
            return _answered(at(path).unlink)

        def rename(self, oldpath: str, newpath: str) -> Any:
            return _answered(lambda: os.rename(at(oldpath), at(newpath)))

        posix_rename = rename

        def mkdir(self, path: str, attr: Any) -> Any:
            return _answered(at(path).mkdir)

    return Files


@contextlib.contextmanager
def serving(root: Path) -> Iterator[int]:
    """Serve a folder; the port."""
    key, listening = paramiko.RSAKey.generate(2048), socket.create_server(("127.0.0.1", 0))
    transports: list[paramiko.Transport] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, files_under(root))
            transport.start_server(server=_Login(), event=threading.Event())
            transports.append(transport)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)
        for transport in transports:
            transport.close()
