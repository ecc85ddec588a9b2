"""Stripe and the document service are called through the proxy of the environment, as with other HTTP clients."""

from __future__ import annotations

import base64
import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from dev.simulators.http import Response
from inbox.errors import TransientError
from tasks.clients.responses import DeadlineReached
from tests.support.keeping_peer import (
    CALLS,
    KeepingPeer,
    attempt_with,
    forget_environment,
    settings_for,
    trusted_authority,
)

OWN_PEERS = ["a fetch from Stripe", "a payment at Stripe", "the status of a document", "the start of a document"]
LOGIN = "Basic " + base64.b64encode(b"me:p w").decode()


class TunnelProxy:
    """An HTTP proxy that answers CONNECT, and passes bytes on. `heads` are those of the tunnels."""

    def __init__(self, status: bytes = b"200 OK", tls: ssl.SSLContext | None = None) -> None:
        self.status, self.heads, self.tls = status, list[bytes](), tls
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if tls else 'http'}://me:p%20w@127.0.0.1:{self.listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self.listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.tls:
            client = self.tls.wrap_socket(client, server_side=True)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.heads.append(head)
        client.sendall(b"HTTP/1.1 " + self.status + b"\r\n\r\n")
        if not self.status.startswith(b"2"):
            return client.close()
        host, _, port = head.split()[1].decode().rpartition(":")
        with client, socket.create_connection((host, int(port))) as server, suppress(OSError):
            while True:
                for ready in select.select([client, server], [], [])[0]:
                    data = ready.recv(65536)  # all that TLS has: no more is pending
                    if not data:
                        return None
                    (server if ready is client else client).sendall(data)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    forget_environment()


@pytest.mark.parametrize("call", OWN_PEERS)
def test_a_proxy_gets_the_whole_url_of_an_http_call(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with KeepingPeer() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:p%20w@{proxy.host}")
        for _ in range(2):
            CALLS[call](attempt_with(settings_for("http://peer.example")), "")
    assert proxy.connections == 1
    assert {request.headers["Proxy-Authorization"] for request in proxy.requests} == {LOGIN}
    assert all(request.path.startswith("http://peer.example:80/") for request in proxy.requests)
    assert {request.headers["Host"] for request in proxy.requests} == {"peer.example"}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("call", OWN_PEERS)
def test_an_https_call_goes_through_a_tunnel_in_which_the_certificate_is_checked(
    call: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        trusted_authority(tmp_path, monkeypatch) as context,
        TunnelProxy(tls=context if scheme == "https" else None) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        peer = KeepingPeer()
        peer.speak_tls(context)
        with peer:
            for _ in range(2):
                CALLS[call](attempt_with(settings_for(peer.base)), peer.base)
    (head,) = proxy.heads
    assert head.startswith(f"CONNECT {peer.host} HTTP/1.1\r\n".encode())
    assert f"Proxy-Authorization: {LOGIN}\r\n".encode() in head
    assert len(peer.requests) == 2
    assert not any("Proxy-Authorization" in request.headers for request in peer.requests)


def test_a_tunnel_to_a_server_with_another_certificate_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TunnelProxy() as proxy, trusted_authority(tmp_path, monkeypatch) as context:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        peer = KeepingPeer()
        peer.speak_tls(context)
        with peer, pytest.raises(TransientError, match="Stripe could not be reached"):
            base = peer.base.replace("127.0.0.1", "localhost")
            CALLS["a fetch from Stripe"](attempt_with(settings_for(base)), base)
    assert peer.requests == []


def test_a_proxy_with_the_certificate_of_an_unknown_authority_gets_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with (
        trusted_authority(other, monkeypatch) as stranger,
        trusted_authority(tmp_path, monkeypatch),
        TunnelProxy(tls=stranger) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(TransientError):
            CALLS["a fetch from Stripe"](attempt_with(settings_for("https://peer.example")), "")
    assert proxy.heads == []


def test_a_slow_server_behind_a_proxy_with_tls_is_waited_for_until_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trusted_authority(tmp_path, monkeypatch) as context, TunnelProxy(tls=context) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        peer = KeepingPeer(lambda _: time.sleep(16) or Response(200))  # type: ignore[func-returns-value]
        peer.speak_tls(context)
        with peer:
            began = time.monotonic()
            with pytest.raises(DeadlineReached):
                CALLS["a fetch from Stripe"](attempt_with(settings_for(peer.base), began + 0.8), peer.base)
            assert time.monotonic() - began < 15


@pytest.mark.parametrize("call", OWN_PEERS)
def test_a_proxy_that_refuses_is_transient(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with TunnelProxy(b"407 Proxy Authentication Required") as proxy, pytest.raises(TransientError):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        CALLS[call](attempt_with(settings_for("https://peer.example")), "")


@pytest.mark.parametrize("call", OWN_PEERS)
def test_a_host_in_no_proxy_is_called_directly(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with KeepingPeer() as proxy, KeepingPeer() as peer:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        CALLS[call](attempt_with(settings_for(peer.base)), peer.base)
    assert (len(proxy.requests), len(peer.requests)) == (0, 1)


def test_a_server_needs_a_certificate_of_an_authority_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with trusted_authority(other, monkeypatch) as stranger, trusted_authority(tmp_path, monkeypatch):
        peer = KeepingPeer()
        peer.speak_tls(stranger)
        with peer:
            for call in OWN_PEERS:
                with pytest.raises(TransientError):
                    CALLS[call](attempt_with(settings_for(peer.base)), peer.base)
    assert peer.requests == []
