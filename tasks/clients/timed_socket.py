"""Sockets that end in time, and connecting them.

The timeout of an ordinary socket begins anew with every byte that arrives. A TimedSocket also has a time by which all
of its reads and writes must have ended, so that a peer which sends one byte at a time cannot occupy a worker.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast

from urllib3.util.ssltransport import SSLTransport

from tasks.time_limit import run_until, seconds_until

CONNECT_SECONDS = 5.0
MAX_ADDRESSES = 4


class TimedSocket(socket.socket):
    """Each read and write lasts `each_seconds` at most, and none goes on after `until` (time.monotonic())."""

    each_seconds = 20.0
    until = math.inf

    def recv_into(self, *args: Any) -> int:
        self._set_timeout()
        return super().recv_into(*args)

    def recv(self, *args: Any) -> bytes:
        self._set_timeout()
        return super().recv(*args)

    def send(self, *args: Any) -> int:
        self._set_timeout()
        return super().send(*args)

    def sendall(self, *args: Any) -> None:
        self._set_timeout()
        super().sendall(*args)

    def secure(self, context: ssl.SSLContext, host: str) -> TimedTlsSocket:
        """This connection with TLS, after the handshake. The certificate must be for `host`."""
        context.sslsocket_class = TimedTlsSocket
        self._set_timeout()
        # Without a Content-Length the connection's end ends the body; only TLS proves that the server closed it.
        secured = cast(
            "TimedTlsSocket",
            context.wrap_socket(self, server_hostname=host, do_handshake_on_connect=False, suppress_ragged_eofs=False),
        )
        secured.each_seconds, secured.until = self.each_seconds, self.until
        try:
            secured.do_handshake()
        except BaseException:
            secured.close()
            raise
        return secured

    def has_data(self) -> bool:
        """Whether something was received that has not been read yet."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return bool(poll.poll(0))

    def disconnect(self) -> None:
        """Shut the connection down from another thread; a read that waits for it then fails or ends."""
        with suppress(OSError):
            socket.socket.shutdown(self, socket.SHUT_RDWR)  # below TLS, which is not thread-safe

    def _set_timeout(self) -> None:
        self.settimeout(min(self.each_seconds, seconds_until(self.until)))


class TimedTlsSocket(TimedSocket, ssl.SSLSocket):
    """A TimedSocket with TLS; see TimedSocket.secure."""

    def has_data(self) -> bool:
        return bool(self.pending()) or super().has_data()

    def secure(self, context: ssl.SSLContext, host: str) -> TlsWithinTls:  # type: ignore[override]
        return TlsWithinTls(self, context, host, suppress_ragged_eofs=False)


class TlsWithinTls(SSLTransport):
    """TLS through a proxy that is itself reached by TLS. Its times are those of the connection to the proxy."""

    socket: TimedTlsSocket

    @property
    def until(self) -> float:
        return self.socket.until

    @until.setter
    def until(self, until: float) -> None:
        self.socket.until = until

    def has_data(self) -> bool:
        return bool(self.sslobj.pending()) or self.socket.has_data()

    def disconnect(self) -> None:
        self.socket.disconnect()


def connect(host: str, port: int, until: float, check: Callable[[Iterable[str]], None] | None = None) -> TimedSocket:
    """Connect to the first address of the host that accepts, by `until` (time.monotonic()).

    The name is resolved once. `check` is given all its IP addresses; what it raises is raised. Raises OSError, too.
    """
    found = run_until(until, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    addresses = [str(sockaddr[0]) for *_, sockaddr in found]
    if check:
        check(addresses)
    last: OSError | None = None
    for ip in addresses[:MAX_ADDRESSES]:
        seconds = min(CONNECT_SECONDS, seconds_until(until))
        try:
            plain = socket.create_connection((ip, port), seconds)  # not resolved again
        except OSError as error:
            last = error
        else:
            connected = TimedSocket(fileno=plain.detach())
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.until = until
            return connected
    raise last or OSError("no address")
