"""A wire between a client and a MySQL server that breaks when a COMMIT passes: before the server sees it, or after."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator


class Wire:
    """Cuts the next `times` connections that send a COMMIT; `seen`: it reaches the server, only the answer is lost."""

    def __init__(self, port: int, *, seen: bool, times: int = 1) -> None:
        self._target, self._seen, self.times = port, seen, times
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])

    @contextlib.contextmanager
    def running(self) -> Iterator[Wire]:
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, outward: bool) -> None:
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65536):
                if outward and data[4:].startswith(b"\x03COMMIT") and self.times > 0:
                    self.times -= 1
                    if self._seen:
                        # what the server answers must not get through: the way back is closed first
                        source.shutdown(socket.SHUT_RDWR)
                        target.sendall(data)
                        time.sleep(0.3)  # it commits
                    for end in (target, source):
                        with contextlib.suppress(OSError):
                            end.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)
