"""HTTP to addresses that others have given us: download URLs, agents' URLs.

Such an address may point at our own network, and whoever answers may be hostile. So: https on port 443 only; public
addresses only, checked on the very address that is connected to (one look-up, no second that could answer otherwise),
at every redirect; no proxy, no cookie, no .netrc; the head of the answer, after all redirects, has to be here within
HEAD_SECONDS, and http.client bounds its size. Hosts in CALL_OUT_ALLOWED_HOSTS ("host" or "host:port") are trusted: they
may be http, private and on any port.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import certifi
from requests.structures import CaseInsensitiveDict

from inbox.errors import PermanentError, TransientError
from settings import Settings
from tasks.clients import url_policy
from tasks.clients.min_speed import MinSpeedGuard
from tasks.clients.url_policy import Address
from telemetry import tracing

CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0  # from one read to the next
HEAD_SECONDS = 40.0  # who trickles header lines must not outlast our lease
CHUNK_BYTES = 1024 * 1024
MAX_ADDRESSES = 4
MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
GZIP = 31  # the window of zlib.decompressobj
PACKED_BYTES = (
    16 * 1024
)  # at each member's end zlib copies what follows, so that many small ones cost the square of this


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer; its headers are found in any case."""

    status_code: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose body has not been read yet."""

    status: int
    headers: Mapping[str, str]
    length: int | None  # of the body as it is sent; None where the server does not say
    _response: http.client.HTTPResponse
    _host: str
    _cut: Callable[[], None]
    _settings: Settings

    @property
    def packing(self) -> str:
        """The Content-Encoding, usually none: we ask for none, but some servers keep their files packed."""
        named = self.headers.get("Content-Encoding", "").strip().lower()
        return "" if named == "identity" else named

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, unpacked, at most CHUNK_BYTES at a time.

        Raises TransientError if it breaks off or is too slow, PermanentError for a packing that we do not know, or
        more than MAX_DOCUMENT_BYTES as they are sent.
        """
        if self.packing not in ("", "gzip", "x-gzip"):
            raise PermanentError(f"{self._host} sends an encoding that was not asked for")
        with _named_errors(self._host):
            yield from _unpacked(self._sent()) if self.packing else self._sent()

    def _sent(self) -> Iterator[bytes]:
        received, most = 0, self._settings.max_document_bytes
        pace = MinSpeedGuard(self._cut, self._settings.document_min_bytes_per_second)
        for chunk in pace.kept(lambda: self._response.read1(CHUNK_BYTES)):
            received += len(chunk)
            if received > most:
                raise PermanentError(f"the document is bigger than {most} bytes (MAX_DOCUMENT_BYTES)")
            yield chunk
        if self.length not in (None, received):
            raise http.client.IncompleteRead(b"")


@contextmanager
def get_stream(
    url: str, settings: Settings, bearer: str = "", bearer_for: str = "", headers: Mapping[str, str] | None = None
) -> Iterator[Stream]:
    """GET, following redirects. `bearer` goes only to the scheme, host and port of the URL `bearer_for`.

    Raises TransientError if nobody answers, PermanentError for an address we do not call. Any status is returned.
    """
    end = time.monotonic() + HEAD_SECONDS
    ours = url_policy.parse(bearer_for).origin if bearer and bearer_for else None
    address = url_policy.parse(url)
    for _ in range(MAX_REDIRECTS + 1):
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        if address.origin == ours:
            sent["Authorization"] = f"Bearer {bearer}"
        connection = _Connection(address, _trusted(address, settings))
        with _response(connection, "GET", sent, end=end) as response:
            found = _headers(response)
            if response.status not in REDIRECTS or "Location" not in found:
                yield Stream(response.status, found, response.length, response, address.host, connection.cut, settings)
                return
        address = address.redirected(found["Location"])
    raise PermanentError(f"{address.host} redirects too often")


def post_json(
    url: str, body: bytes, settings: Settings, headers: Mapping[str, str], *, trusted: bool = False
) -> Answer:
    """POST JSON; redirects are not followed. Errors as get_stream; any status is returned, the answer's body unread.

    A `trusted` URL is our user's own: it may be http, private and on any port.
    """
    address = url_policy.parse(url)
    sent = {"Content-Type": "application/json", **headers}
    connection = _Connection(address, trusted or _trusted(address, settings))
    end = time.monotonic() + HEAD_SECONDS
    with _response(connection, "POST", sent, body, end=end, ours=trusted) as response:
        return Answer(response.status, _headers(response))


@contextmanager
def _response(
    connection: _Connection,
    method: str,
    headers: dict[str, str],
    body: bytes | None = None,
    *,
    end: float,
    ours: bool = False,
) -> Iterator[http.client.HTTPResponse]:
    watch = threading.Timer(max(end - time.monotonic(), 0), connection.cut)
    watch.daemon = True
    watch.start()
    try:
        with tracing.call(method, connection.address.base) as span:
            sent = {**headers, **span.headers} if ours else headers
            with _named_errors(connection.host):
                connection.request(method, connection.address.target, body, sent)
                response = connection.getresponse()
            watch.cancel()
            span.answered(response.status)
            with response:
                yield response
    finally:
        watch.cancel()
        connection.close()


def _trusted(address: Address, settings: Settings) -> bool:
    return url_policy.is_allowed(address, settings.call_out_allowed_hosts)


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was checked, for one request."""

    def __init__(self, address: Address, trusted: bool) -> None:
        super().__init__(address.host, address.port, timeout=READ_SECONDS)
        self.default_port = url_policy.DEFAULT_PORTS[address.scheme]  # it is left out of the Host header
        self.address, self._trusted, self._over = address, trusted, False

    def connect(self) -> None:
        self.sock = _connected(self.address, self._trusted)
        self.sock.settimeout(READ_SECONDS)
        if self.address.scheme == "https":
            # A body whose length nobody has told ends with the connection: it must not be ended by just anybody.
            self.sock = _tls().wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
            self.sock.do_handshake()
        if self._over:
            raise TimeoutError

    def cut(self) -> None:
        """End it under whoever waits for it, from another thread."""
        self._over = True
        if self.sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # below TLS, which is not for two threads


def _connected(address: Address, trusted: bool) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    if not trusted and not all(url_policy.is_public(str(sockaddr[0])) for *_, sockaddr in found):
        raise PermanentError(f"{address.host} has a private address; CALL_OUT_ALLOWED_HOSTS can allow it")
    last: OSError | None = None
    for *_, sockaddr in found[:MAX_ADDRESSES]:
        try:
            return socket.create_connection((str(sockaddr[0]), address.port), CONNECT_SECONDS)  # no second look-up
        except OSError as error:
            last = error
    raise last or OSError("no address")


@functools.cache
def _tls() -> ssl.SSLContext:
    """Mozilla's roots, and those of the machine, where a company's own may be."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # or who cuts a connection passes for the server that ends it
    return context


def _headers(response: http.client.HTTPResponse) -> Mapping[str, str]:
    """Those that come more than once as one, by commas (RFC 9110, 5.3)."""
    found: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for name, value in response.getheaders():
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _unpacked(packed: Iterable[bytes]) -> Iterator[bytes]:
    """Gzip, in as many members as there are. A bomb takes no more than CHUNK_BYTES of memory at a time."""
    unpacker = zlib.decompressobj(GZIP)
    for piece in _slices(packed):
        rest = piece
        while rest:
            unpacker = zlib.decompressobj(GZIP) if unpacker.eof else unpacker
            unpacked = unpacker.decompress(rest, CHUNK_BYTES)
            rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            if unpacked or not rest:  # nothing, too, is a sign of life: the caller keeps its lease
                yield unpacked
    yield unpacker.flush()
    if not unpacker.eof:
        raise zlib.error("it ends too early")


def _slices(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), PACKED_BYTES):
            yield chunk[start : start + PACKED_BYTES]


@contextmanager
def _named_errors(host: str) -> Iterator[None]:
    """Our errors in place of the library's, which may quote what the server says."""
    try:
        yield
    except (http.client.HTTPException, OSError, zlib.error, UnicodeError) as error:
        raise TransientError(f"{host} did not answer ({type(error).__name__})") from None
