"""A TCP proxy that stands for the network between two machines, and for an address that moves from one to another."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

Address = tuple[str, int] | Path  # a path is that of a unix socket
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


@dataclass
class Link:
    """One connection: the client's side and the server's."""

    client: socket.socket
    server: socket.socket
    lost: threading.Event = field(
        default_factory=threading.Event
    )  # nothing passes any more, and neither side gets an error


class TcpProxy:
    """Passes connections on to `to`, which may be changed: new connections go there, those that exist stay."""

    def __init__(self, to: Address) -> None:
        self.to = to
        self._links: list[Link] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for link in self._links:
            _close(link.client, link.server)

    def drop(self) -> int:
        """Lose everything that is sent on the connections that exist. Both sides stay open. Returns their number."""
        links = [link for link in self._links if not link.lost.is_set()]
        for link in links:
            link.lost.set()
        return len(links)

    def reset_clients(self) -> int:
        """End the connections that exist, but only on the client's side: the server's stays open. Returns how many."""
        links = [link for link in self._links if not link.lost.is_set()]
        self.drop()
        for link in links:
            with suppress(OSError):
                link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                link.client.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
            _close(link.client)
        return len(links)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            link = Link(client, _connected(self.to))
        except OSError:
            return _close(client)
        self._links.append(link)
        threading.Thread(target=_pass_on, args=(link, link.server, client), daemon=True).start()
        return _pass_on(link, client, link.server)


def _connected(to: Address) -> socket.socket:
    if not isinstance(to, Path):
        return socket.create_connection(to, timeout=None)
    server = socket.socket(socket.AF_UNIX)
    server.connect(str(to))
    return server


def _pass_on(link: Link, source: socket.socket, target: socket.socket) -> None:
    """Until one side ends; then the other side is closed, too, unless the link is lost."""
    with suppress(OSError):
        while data := source.recv(65536):
            if not link.lost.is_set():
                target.sendall(data)
    if not link.lost.is_set():
        _close(source, target)


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
