"""Calls to the servers of the operator's own settings: Stripe and the document service.

They go through the proxy that the environment names for them (HTTPS_PROXY, HTTP_PROXY, NO_PROXY). No redirect is
followed, and no .netrc is read.
"""

from __future__ import annotations

import base64
import functools
import ssl
import zlib
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import certifi
import requests
from requests.utils import requote_uri, select_proxy

from tasks.clients import url_policy
from tasks.clients.gzip_body import decompress
from tasks.clients.http_connection import NOT_IN_TARGET, Connection, Peer, Request, exchange
from tasks.clients.timed_socket import TimedSocket, TlsWithinTls, connect
from tasks.clients.url_policy import Address

READ_SECONDS = 25.0  # for each read
CHUNK_BYTES = 65536
CALL_ERRORS = (OSError, HTTPException, zlib.error, ValueError)  # of `call` and `read_body`


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, and the Proxy-Authorization that it wants; "" for none."""

    scheme: str
    host: str
    port: int
    authorization: str

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Proxy-Authorization": self.authorization} if self.authorization else {}


@dataclass(frozen=True, slots=True)
class Server:
    """A server, how to reach it, and a file or folder with the authorities that its certificate may come from."""

    address: Address  # its target is the path before that of each call
    proxy: Proxy | None
    authorities: str

    def connect(self, until: float) -> TimedSocket | TlsWithinTls:
        """A new connection, by `until` (time.monotonic()). Raises OSError and HTTPException."""
        at, proxy, context = self.address, self.proxy, _tls_context(self.authorities)
        sock = connect(proxy.host, proxy.port, until) if proxy else connect(at.host, at.port, until)
        sock.each_seconds = READ_SECONDS
        try:
            if proxy and proxy.scheme == "https":
                sock = sock.secure(context, proxy.host)
            if proxy and at.scheme == "https":
                _open_tunnel(sock, at, proxy)
            return sock.secure(context, at.host) if at.scheme == "https" else sock
        except BaseException:
            sock.close()
            raise

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Request:
        target = self.address.target.removesuffix("/") + path
        if NOT_IN_TARGET.search(target):
            target = requote_uri(target)
        headers = {"Host": self.address.authority, "Accept-Encoding": "gzip", **headers}
        if self.proxy and self.address.scheme == "http":
            return Request(method, self.address.base + target, {**headers, **self.proxy.headers}, body)
        return Request(method, target, headers, body)


@functools.lru_cache(maxsize=16)
def find_server(base: str, authorities: str = "") -> Server:
    """The server with this base URL. Without `authorities` the environment's REQUESTS_CA_BUNDLE, or certifi's, count.

    Raises PermanentError if the URL is invalid.
    """
    parts = urlsplit(base)
    address = url_policy.parse(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
    environment = requests.Session().merge_environment_settings(address.base, {}, None, None, None)
    verify = environment["verify"]
    found = authorities or (verify if isinstance(verify, str) else certifi.where())
    return Server(address, _proxy(select_proxy(address.base, environment["proxies"])), found)


def _proxy(url: str | None) -> Proxy | None:
    if not url:
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    login = "Basic " + base64.b64encode(user.encode()).decode() if user else ""
    return Proxy(parts.scheme, parts.hostname or "", parts.port or url_policy.DEFAULT_PORTS.get(parts.scheme, 0), login)


@contextmanager
def call(server: Server, request: Request, credentials: Hashable, until: float) -> Iterator[Connection]:
    """Send a request, as http_connection.exchange. Only calls with equal credentials share a connection."""
    peer = Peer(server.address.origin, (server.proxy, server.authorities), credentials, server.connect)
    with exchange(peer, request, until) as connection:
        yield connection


def read_body(response: HTTPResponse) -> Iterator[bytes]:
    """The body, decompressed, in chunks. Raises OSError, HTTPException or zlib.error if it is incomplete."""
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise HTTPException("a Content-Encoding that was not requested")
    return _read_raw(response) if encoding == "identity" else decompress(_read_raw(response))


def _read_raw(response: HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read(CHUNK_BYTES):
        yield chunk
    if response.length:  # http.client does not complain
        raise IncompleteRead(b"")


def _open_tunnel(sock: TimedSocket, to: Address, proxy: Proxy) -> None:
    """Let the proxy connect this connection to the server (CONNECT)."""
    sock.sendall(Request("CONNECT", f"{to.name}:{to.port}", {"Host": f"{to.name}:{to.port}", **proxy.headers}).encode())
    response = HTTPResponse(sock, method="CONNECT")
    response.begin()
    response.close()
    if response.status != 200:
        raise OSError(f"the proxy answered {response.status}")


@functools.lru_cache(maxsize=16)
def _tls_context(authorities: str) -> ssl.SSLContext:
    is_folder = Path(authorities).is_dir()
    context = ssl.create_default_context(
        cafile=None if is_folder else authorities, capath=authorities if is_folder else None
    )
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # or a cut connection would look like a complete body
    return context
