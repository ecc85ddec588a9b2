"""HTTP/1.1 requests over connections that are kept for the next request to the same peer, for the same credentials."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse, parse_headers
from ssl import SSLError
from typing import cast

from requests.structures import CaseInsensitiveDict

from tasks.clients.connection_pool import MAX_IDLE_SECONDS, ConnectionPool, is_young
from tasks.clients.timed_socket import TimedSocket, TlsWithinTls

# Servers close idle connections after 5 seconds and more. If that crosses a GET, the GET is repeated. A POST that is
# answered by a close may have been processed, so it is not sent over a connection that is about to be closed.
POST_IDLE_SECONDS = 4.0
DRAIN_BYTES, DRAIN_SECONDS = 65536, 0.5  # what is read of a body that the caller has not read, to keep the connection
INTERIM_STATUSES = frozenset(range(102, 200))  # 101 is final: it ends HTTP
SAFE_METHODS = frozenset({"GET", "HEAD"})  # they change nothing at the peer (RFC 9110, 9.2.1)
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
NOT_IN_TARGET = re.compile(r"[^\x21-\x7e]")
NOT_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a connection leads, how, and with which credentials. Only equal peers share connections.

    `connect` returns a new connection, by a time (time.monotonic()).
    """

    origin: tuple[str, str, int]
    route: Hashable
    credentials: Hashable
    connect: Callable[[float], TimedSocket | TlsWithinTls] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str  # as in the request line
    headers: Mapping[str, str]
    body: bytes | None = None

    def encode(self) -> bytes:
        """As it is sent. Raises ValueError if a part of it would break its frame."""
        length = {} if self.body is None else {"Content-Length": str(len(self.body))}
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        for name, value in {**self.headers, **length}.items():
            if not TOKEN.fullmatch(name) or NOT_IN_VALUE.search(value):
                raise ValueError("a header is malformed")
            lines.append(f"{name}: {value}")
        if not TOKEN.fullmatch(self.method) or NOT_IN_TARGET.search(self.target):
            raise ValueError("the request line is malformed")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (self.body or b"")


class Response(HTTPResponse):
    """http.client takes an interim response other than 100, such as 103 Early Hints, for the answer itself."""

    def _read_status(self) -> tuple[str, int, str]:
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        while found[1] in INTERIM_STATUSES:
            parse_headers(self.fp)
            found = super()._read_status()  # type: ignore[misc]
        return found


class Connection:
    """A connection, and the `response` to its latest request."""

    response: HTTPResponse

    def __init__(self, sock: TimedSocket | TlsWithinTls) -> None:
        self._sock, self._born = sock, time.monotonic()

    def send(self, request: bytes, until: float) -> None:
        """Raises Unsent if the peer cannot have got all of the request; TimeoutError."""
        self._sock.until = until
        try:
            self._sock.sendall(request)
        except TimeoutError:
            raise
        except OSError as error:
            raise Unsent from error

    def receive(self, method: str) -> None:
        """Read the head of the response."""
        self.response = Response(cast("TimedSocket", self._sock), method=method)  # it needs `makefile` only
        self.response.begin()

    def read_until(self, until: float) -> None:
        """Let the reading of the body go on until this time.monotonic()."""
        self._sock.until = until

    def disconnect(self) -> None:
        """Shut the connection down from another thread."""
        self._sock.disconnect()

    def is_usable(self) -> bool:
        return not self._sock.has_data() and is_young(self._born)

    def close(self) -> None:
        if hasattr(self, "response"):
            self.response.close()  # it has its own reference to the socket
        self._sock.close()

    end = close

    def finish(self) -> bool:
        """End the exchange. Returns whether the connection can be kept."""
        with suppress(OSError, HTTPException, ValueError):
            if _is_framed(self.response) and self._drain():
                self.response.close()
                return True
        return False

    def _drain(self) -> bool:
        """Read what is left of the body, if that is little and there already. Returns whether it is read."""
        response, left = self.response, DRAIN_BYTES
        if response.isclosed() or response.length == 0:
            return True
        self._sock.until = min(self._sock.until, time.monotonic() + DRAIN_SECONDS)
        while left > 0 and not response.isclosed() and response.length != 0:
            before = response.length
            data = response.read1(left)
            if not data and before:
                return False  # it ended too early
            left -= len(data)
        return response.isclosed() or response.length == 0


class Unsent(OSError):
    """The connection broke before all of the request was sent."""


connections: ConnectionPool[Connection] = ConnectionPool()


@contextmanager
def exchange(peer: Peer, request: Request, until: float) -> Iterator[Connection]:
    """Send a request; yield the connection when the head of the response is there, by `until` (time.monotonic()).

    At the end of the block the connection is kept, if the body has been read or little is left of it, and closed if
    the block raises. Raises OSError and HTTPException; ValueError for a malformed request.
    """
    encoded = request.encode()
    connection = _exchange_on_kept(peer, request, encoded, until) or _exchange_on_new(peer, request, encoded, until)
    try:
        yield connection
    except BaseException:
        connection.close()
        raise
    if connection.finish():
        connections.give(peer, connection)
    else:
        connection.close()


def _exchange_on_kept(peer: Peer, request: Request, encoded: bytes, until: float) -> Connection | None:
    """None if there is no kept connection, or it turns out to be closed and the request can be sent again."""
    is_safe = request.method in SAFE_METHODS
    connection = connections.take(peer, MAX_IDLE_SECONDS if is_safe else POST_IDLE_SECONDS)
    if connection is None:
        return None
    try:
        return _exchange(connection, request, encoded, until)
    except Unsent:
        return None
    except (ConnectionError, SSLError):  # RemoteDisconnected is a ConnectionError
        if is_safe:
            return None
        raise


def _exchange_on_new(peer: Peer, request: Request, encoded: bytes, until: float) -> Connection:
    return _exchange(Connection(peer.connect(until)), request, encoded, until)


def _exchange(connection: Connection, request: Request, encoded: bytes, until: float) -> Connection:
    try:
        connection.send(encoded, until)
        connection.receive(request.method)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_framed(response: HTTPResponse) -> bool:
    """Whether it is beyond doubt where the body ends, and the server keeps the connection open."""
    lengths = response.headers.get_all("Content-Length", [])
    encodings = response.headers.get_all("Transfer-Encoding", [])
    is_clear = not (lengths and encodings) and len(lengths) < 2 and all(length.isdigit() for length in lengths)
    return is_clear and not response.will_close and not response.headers.defects and response.status >= 200


def headers_of(response: HTTPResponse) -> Mapping[str, str]:
    """The headers; names are case-insensitive, repeated ones are joined by commas (RFC 9110, 5.3)."""
    found: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for name, value in response.getheaders():
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
