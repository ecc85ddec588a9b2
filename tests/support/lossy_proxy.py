"""A proxy to a real server that loses replies: the commands take effect, but the client gets no reply."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path


class LossyProxy:
    """A TCP proxy to a server at an address or unix socket. It loses the next `lose` replies: the script has run.

    Only replies to commands that contain `about` are lost, because the receiver also queries the store's memory at any
    time.
    """

    def __init__(self, to: tuple[str, int] | Path, about: bytes) -> None:
        self.lose = 0
        self._about, self._to = about, to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = self._connected()
            lost = threading.Event()
            threading.Thread(target=self._ask, args=(client, server, lost), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client, lost), daemon=True).start()

    def _connected(self) -> socket.socket:
        if not isinstance(self._to, Path):
            return socket.create_connection(self._to)
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._to))
        return server

    def _ask(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.lose and self._about in data:
                    self.lose -= 1
                    lost.set()
                server.sendall(data)
        server.close()

    def _answer(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while (data := server.recv(65536)) and not lost.is_set():
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
        client.close()
