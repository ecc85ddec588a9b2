"""An HTTP client for URLs that we are given (download URLs, agents' URLs), protected against SSRF.

Such a URL may point into our own network, and its server may be hostile. Therefore:

- only https on port 443, and only public addresses; the same at every redirect;
- the name is resolved once, and the connection goes to the address that was checked (no DNS rebinding);
- no proxy, no cookies, no .netrc;
- status and headers, after all redirects, must arrive within HEAD_SECONDS; http.client limits their size.

Hosts in CALL_OUT_ALLOWED_HOSTS ("host" or "host:port") are trusted: http, private addresses and any port are allowed.
"""

from __future__ import annotations

import functools
import http.client
import math
import ssl
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

import certifi

from inbox.errors import PermanentError
from settings import Settings
from tasks.clients import gzip_body, url_policy
from tasks.clients.http_connection import Connection, Peer, Request, exchange, headers_of
from tasks.clients.min_speed import MinSpeedGuard
from tasks.clients.responses import connection_errors, end_of_call
from tasks.clients.timed_socket import TimedSocket, connect
from tasks.clients.url_policy import Address
from telemetry import tracing

READ_SECONDS = 20.0  # for each read
CHUNK_BYTES = gzip_body.CHUNK_BYTES
HEAD_SECONDS = 40.0  # shorter than our lease, also if a server sends its header lines one by one
MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_decompress = gzip_body.decompress


@dataclass(frozen=True, slots=True)
class Response:
    """Status and headers of a response; header names are case-insensitive."""

    status_code: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stream:
    """A response whose body has not been read yet; header names are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    length: int | None  # of the body as it is sent; None if the server does not announce it
    _connection: Connection
    _host: str
    _settings: Settings
    _deadline: float

    @property
    def content_encoding(self) -> str:
        """The Content-Encoding in lower case; "" for none. We request none, but some servers store files compressed."""
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        return "" if encoding == "identity" else encoding

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, decompressed, in chunks of at most CHUNK_BYTES.

        Raises TransientError if the body is incomplete, too slow or not there by the deadline; PermanentError for an
        unknown Content-Encoding, and for more than MAX_DOCUMENT_BYTES as sent.
        """
        if self.content_encoding not in ("", "gzip", "x-gzip"):
            raise PermanentError(f"{self._host} sends a Content-Encoding that was not requested")
        with _connection_errors(self._host, self._deadline):
            yield from _decompress(self._raw_chunks()) if self.content_encoding else self._raw_chunks()

    def _raw_chunks(self) -> Iterator[bytes]:
        received, limit = 0, self._settings.max_document_bytes
        self._connection.read_until(self._deadline)
        guard = MinSpeedGuard(self._connection.disconnect, self._settings.document_min_bytes_per_second)
        for chunk in guard.read(lambda: self._connection.response.read1(CHUNK_BYTES)):
            received += len(chunk)
            if received > limit:
                raise PermanentError(f"the document is larger than {limit} bytes (MAX_DOCUMENT_BYTES)")
            yield chunk
        if self.length not in (None, received):
            raise http.client.IncompleteRead(b"")


@contextmanager
def get_stream(
    url: str,
    settings: Settings,
    bearer: str = "",
    bearer_for: str = "",
    headers: Mapping[str, str] | None = None,
    *,
    deadline: float = math.inf,
) -> Iterator[Stream]:
    """GET, following redirects. The token `bearer` is sent only to the scheme, host and port of the URL `bearer_for`.

    A response of any status is returned. Raises TransientError if there is none by the `deadline` of the attempt
    (time.monotonic()), PermanentError if a URL is invalid or not allowed, or if there are too many redirects.
    """
    bearer_origin = url_policy.parse(bearer_for).origin if bearer and bearer_for else None
    address = url_policy.parse(url)
    until = end_of_call(address.host, HEAD_SECONDS, deadline)
    for _ in range(MAX_REDIRECTS + 1):
        credentials = bearer if address.origin == bearer_origin else ""
        authorization = {"Authorization": f"Bearer {credentials}"} if credentials else {}
        request = _request("GET", address, {**(headers or {}), **authorization})
        peer = _peer(address, credentials, trusted=_is_trusted(address, settings))
        with _open_response(peer, address, request, until, deadline) as connection:
            response, found = connection.response, headers_of(connection.response)
            if response.status not in REDIRECTS or "Location" not in found:
                yield Stream(response.status, found, response.length, connection, address.host, settings, deadline)
                return
        address = address.redirected(found["Location"])
    raise PermanentError(f"{address.host} redirects too often")


def post_json(
    url: str,
    body: bytes,
    settings: Settings,
    headers: Mapping[str, str],
    *,
    trusted: bool = False,
    answer_seconds: float = HEAD_SECONDS,
    deadline: float = math.inf,
) -> Response:
    """POST `body`, without following redirects. Errors as in get_stream. The response's body is dropped; its headers
    must arrive within `answer_seconds`.

    A `trusted` URL comes from our own settings: http, private addresses and any port are allowed.
    """
    address = url_policy.parse(url)
    request = _request("POST", address, {"Content-Type": "application/json", **headers}, body)
    peer = _peer(address, "", trusted=trusted or _is_trusted(address, settings))
    until = end_of_call(address.host, answer_seconds, deadline)
    with _open_response(peer, address, request, until, deadline, traced=trusted) as connection:
        return Response(connection.response.status, headers_of(connection.response))


@contextmanager
def _open_response(
    peer: Peer, address: Address, request: Request, until: float, deadline: float, *, traced: bool = False
) -> Iterator[Connection]:
    """Send the request; yield the connection when the head of the response is there, by `until` (time.monotonic()).

    `traced`: send the headers of our trace, too.
    """
    with tracing.call(request.method, address.base) as span, ExitStack() as stack:
        if traced:
            request = replace(request, headers={**request.headers, **span.headers})
        with _connection_errors(address.host, deadline):
            connection = stack.enter_context(exchange(peer, request, until))
        span.answered(connection.response.status)
        yield connection


def _request(method: str, address: Address, headers: Mapping[str, str], body: bytes | None = None) -> Request:
    return Request(method, address.target, {"Host": address.authority, "Accept-Encoding": "identity", **headers}, body)


def _peer(address: Address, credentials: str, *, trusted: bool) -> Peer:
    """A connection that was opened to a trusted address is not used for one that must be public."""
    route = "trusted" if trusted else "public"
    return Peer(address.origin, route, credentials, lambda until: _connect(address, until, trusted=trusted))


def _is_trusted(address: Address, settings: Settings) -> bool:
    return url_policy.is_allowed(address, settings.call_out_allowed_hosts)


def _connect(address: Address, until: float, *, trusted: bool) -> TimedSocket:
    """Connect to an IP address that was checked, by `until` (time.monotonic()).

    Raises PermanentError if one of the host's is not public, or OSError.
    """

    def check(ips: Iterable[str]) -> None:
        if not trusted and not all(url_policy.is_public(ip) for ip in ips):
            raise PermanentError(f"{address.host} has a private address; CALL_OUT_ALLOWED_HOSTS can allow it")

    sock = connect(address.host, address.port, until, check)
    sock.each_seconds = READ_SECONDS
    try:
        return sock.secure(_tls_context(), address.host) if address.scheme == "https" else sock
    except BaseException:
        sock.close()
        raise


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Trusts Mozilla's root certificates, and the machine's, which may include a company's own."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # or a cut connection would look like a complete body
    return context


def _connection_errors(host: str, deadline: float) -> AbstractContextManager[None]:
    return connection_errors(host, http.client.HTTPException, OSError, zlib.error, ValueError, deadline=deadline)
