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
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

import certifi
from requests.structures import CaseInsensitiveDict

from inbox.errors import PermanentError
from settings import Settings
from tasks.clients import url_policy
from tasks.clients.min_speed import MinSpeedGuard
from tasks.clients.responses import connection_errors
from tasks.clients.url_policy import Address
from telemetry import tracing

CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0  # for each read
HEAD_SECONDS = 40.0  # shorter than our lease, also if a server sends its header lines one by one
CHUNK_BYTES = 1024 * 1024
MAX_ADDRESSES = 4
MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
GZIP = 31  # wbits of zlib.decompressobj
# At the end of each gzip member zlib copies the rest of its input: many small members cost the square of this size.
GZIP_INPUT_BYTES = 16 * 1024


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
    _response: http.client.HTTPResponse
    _host: str
    _disconnect: Callable[[], None]
    _settings: Settings

    @property
    def content_encoding(self) -> str:
        """The Content-Encoding in lower case; "" for none. We request none, but some servers store files compressed."""
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        return "" if encoding == "identity" else encoding

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, decompressed, in chunks of at most CHUNK_BYTES.

        Raises TransientError if the body is incomplete or too slow; PermanentError for an unknown Content-Encoding, and
        for more than MAX_DOCUMENT_BYTES as sent.
        """
        if self.content_encoding not in ("", "gzip", "x-gzip"):
            raise PermanentError(f"{self._host} sends a Content-Encoding that was not requested")
        with _connection_errors(self._host):
            yield from _decompress(self._raw_chunks()) if self.content_encoding else self._raw_chunks()

    def _raw_chunks(self) -> Iterator[bytes]:
        received, limit = 0, self._settings.max_document_bytes
        guard = MinSpeedGuard(self._disconnect, self._settings.document_min_bytes_per_second)
        for chunk in guard.read(lambda: self._response.read1(CHUNK_BYTES)):
            received += len(chunk)
            if received > limit:
                raise PermanentError(f"the document is larger than {limit} bytes (MAX_DOCUMENT_BYTES)")
            yield chunk
        if self.length not in (None, received):
            raise http.client.IncompleteRead(b"")


@contextmanager
def get_stream(
    url: str, settings: Settings, bearer: str = "", bearer_for: str = "", headers: Mapping[str, str] | None = None
) -> Iterator[Stream]:
    """GET, following redirects. The token `bearer` is sent only to the scheme, host and port of the URL `bearer_for`.

    A response of any status is returned. Raises TransientError if there is none, PermanentError if a URL is invalid or
    not allowed, or if there are too many redirects.
    """
    deadline = time.monotonic() + HEAD_SECONDS
    bearer_origin = url_policy.parse(bearer_for).origin if bearer and bearer_for else None
    address = url_policy.parse(url)
    for _ in range(MAX_REDIRECTS + 1):
        request_headers = {"Accept-Encoding": "identity", **(headers or {})}
        if address.origin == bearer_origin:
            request_headers["Authorization"] = f"Bearer {bearer}"
        connection = _Connection(address, _is_trusted(address, settings), deadline)
        with _open_response(connection, "GET", request_headers, deadline=deadline) as response:
            found = _headers(response)
            if response.status not in REDIRECTS or "Location" not in found:
                disconnect = connection.disconnect
                yield Stream(response.status, found, response.length, response, address.host, disconnect, settings)
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
) -> Response:
    """POST `body`, without following redirects. Errors as in get_stream. The response's body is not read; its headers
    must arrive within `answer_seconds`.

    A `trusted` URL comes from our own settings: http, private addresses and any port are allowed.
    """
    address = url_policy.parse(url)
    request_headers = {"Content-Type": "application/json", **headers}
    deadline = time.monotonic() + answer_seconds
    connection = _Connection(address, trusted or _is_trusted(address, settings), deadline)
    with _open_response(connection, "POST", request_headers, body, deadline=deadline, traced=trusted) as response:
        return Response(response.status, _headers(response))


@contextmanager
def _open_response(
    connection: _Connection,
    method: str,
    headers: dict[str, str],
    body: bytes | None = None,
    *,
    deadline: float,
    traced: bool = False,
) -> Iterator[http.client.HTTPResponse]:
    """Send the request; disconnect if the response's headers are not there by `deadline` (time.monotonic()).

    `traced`: send the headers of our trace, too.
    """
    timer = threading.Timer(max(deadline - time.monotonic(), 0), connection.disconnect)
    timer.daemon = True
    timer.start()
    try:
        with tracing.call(method, connection.address.base) as span:
            all_headers = {**headers, **span.headers} if traced else headers
            with _connection_errors(connection.host):
                connection.request(method, connection.address.target, body, all_headers)
                response = connection.getresponse()
            timer.cancel()
            span.answered(response.status)
            with response:
                yield response
    finally:
        timer.cancel()
        connection.close()


def _is_trusted(address: Address, settings: Settings) -> bool:
    return url_policy.is_allowed(address, settings.call_out_allowed_hosts)


class _Connection(http.client.HTTPConnection):
    """A connection for one request, to an IP address that was checked."""

    def __init__(self, address: Address, trusted: bool, deadline: float) -> None:
        super().__init__(address.host, address.port, timeout=READ_SECONDS)
        self.default_port = url_policy.DEFAULT_PORTS[address.scheme]  # which the Host header omits
        self.address, self._trusted, self._deadline, self._disconnected = address, trusted, deadline, False

    def connect(self) -> None:
        self.sock = _connect(self.address, self._trusted, self._deadline)
        self.sock.settimeout(READ_SECONDS)
        if self.address.scheme == "https":
            # Without a Content-Length the connection's end ends the body; only TLS proves that the server closed it.
            self.sock = _tls_context().wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
            self.sock.do_handshake()
        if self._disconnected:
            raise TimeoutError

    def disconnect(self) -> None:
        """Shut the connection down from another thread; a read that waits for it then fails or ends."""
        self._disconnected = True
        if self.sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # below TLS, which is not thread-safe


def _connect(address: Address, trusted: bool, deadline: float) -> socket.socket:
    """Connect to the first address that accepts, by `deadline` (time.monotonic()).

    Raises PermanentError if any of them is not public, or OSError.
    """
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    if not trusted and not all(url_policy.is_public(str(sockaddr[0])) for *_, sockaddr in found):
        raise PermanentError(f"{address.host} has a private address; CALL_OUT_ALLOWED_HOSTS can allow it")
    last: OSError | None = None
    for *_, sockaddr in found[:MAX_ADDRESSES]:
        seconds = min(CONNECT_SECONDS, deadline - time.monotonic())
        if seconds <= 0:
            raise TimeoutError
        try:
            return socket.create_connection((str(sockaddr[0]), address.port), seconds)  # not resolved again
        except OSError as error:
            last = error
    raise last or OSError("no address")


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Trusts Mozilla's root certificates, and the machine's, which may include a company's own."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # or a cut connection would look like a complete body
    return context


def _headers(response: http.client.HTTPResponse) -> Mapping[str, str]:
    """The headers; repeated ones are joined by commas (RFC 9110, 5.3)."""
    found: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for name, value in response.getheaders():
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _decompress(compressed: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress gzip of any number of members. A gzip bomb uses no more than CHUNK_BYTES of memory at a time.

    Raises zlib.error if the data is invalid or incomplete.
    """
    decompressor = zlib.decompressobj(GZIP)
    for piece in _slices(compressed):
        rest = piece
        while rest:
            decompressor = zlib.decompressobj(GZIP) if decompressor.eof else decompressor
            data = decompressor.decompress(rest, CHUNK_BYTES)
            rest = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
            if data or not rest:  # b"" is yielded, too: it lets the caller renew its lease
                yield data
    yield decompressor.flush()
    if not decompressor.eof:
        raise zlib.error("the compressed data is incomplete")


def _slices(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), GZIP_INPUT_BYTES):
            yield chunk[start : start + GZIP_INPUT_BYTES]


def _connection_errors(host: str) -> AbstractContextManager[None]:
    return connection_errors(host, http.client.HTTPException, OSError, zlib.error, UnicodeError)
