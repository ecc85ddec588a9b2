"""Connections are kept for the next call to the same peer with the same credentials, and for no other."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dev.simulators.http import Request, Response
from inbox.errors import TransientError
from tasks.clients import connection_pool, http_connection, safe_http, stripe, url_policy
from tasks.clients.connection_pool import ConnectionPool
from tasks.clients.http_connection import Connection, Unsent
from tasks.clients.timed_socket import TimedSocket
from tests.support.business import at_once
from tests.support.keeping_peer import (
    CALLS,
    GETS,
    POSTS,
    KeepingPeer,
    attempt_with,
    in_child,
    settings_for,
    trusted_authority,
)


@pytest.fixture(autouse=True)
def machine_with_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "POST_IDLE_SECONDS", 30.0)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_calls_to_one_peer_share_a_connection(
    call: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trusted_authority(tmp_path, monkeypatch) as context:
        peer = KeepingPeer()
        if scheme == "https":
            peer.speak_tls(context)
        with peer:
            attempt = attempt_with(settings_for(peer.base))
            for _ in range(3):
                CALLS[call](attempt, peer.base)
    assert (peer.connections, len(peer.requests)) == (1, 3)


@pytest.mark.parametrize("call", CALLS)
def test_a_connection_that_the_peer_has_closed_is_replaced(call: str) -> None:
    with KeepingPeer() as peer:
        attempt = attempt_with(settings_for(peer.base))
        CALLS[call](attempt, peer.base)
        peer.close_connections()
        CALLS[call](attempt, peer.base)
    assert (peer.connections, len(peer.requests)) == (2, 2)


@pytest.mark.parametrize("call", CALLS)
def test_a_forked_process_has_connections_of_its_own(call: str) -> None:
    with KeepingPeer() as peer:
        attempt = attempt_with(settings_for(peer.base))
        CALLS[call](attempt, peer.base)
        assert in_child(lambda: CALLS[call](attempt, peer.base)) == 0
        assert peer.connections == 2
        CALLS[call](attempt, peer.base)
    assert (peer.connections, len(peer.requests)) == (2, 3)


@pytest.mark.parametrize(
    "bodies", [(b'{"account": "acct_1"}', b'{"account": "acct_2"}'), (b'{"context": "a/b"}', b'{"context": "a/c"}')]
)
def test_two_stripe_accounts_share_no_connection(bodies: tuple[bytes, bytes]) -> None:
    with KeepingPeer() as peer:
        for body in (*bodies, *bodies):
            stripe.fetch_invoice(attempt_with(settings_for(peer.base), body=body), "in_1")
    assert (peer.connections, len(peer.requests)) == (2, 4)


@pytest.mark.parametrize("name", ["STRIPE_API_KEY", "DOC_SERVICE_API_KEY"])
def test_two_keys_share_no_connection(name: str) -> None:
    call = CALLS["a fetch from Stripe" if name == "STRIPE_API_KEY" else "the status of a document"]
    with KeepingPeer() as peer:
        for key in ("sk_test_1", "sk_test_2", "sk_test_1", "sk_test_2"):
            call(attempt_with(settings_for(peer.base, **{name: key})), peer.base)
    assert peer.connections == 2
    assert [request.headers["Authorization"] for request in peer.requests] == [
        "Bearer sk_test_1",
        "Bearer sk_test_2",
        "Bearer sk_test_1",
        "Bearer sk_test_2",
    ]


def test_a_download_with_our_token_shares_no_connection_with_one_without() -> None:
    with KeepingPeer() as peer:
        settings = settings_for(peer.base)
        for bearer in ("", "token-of-ours", ""):
            with safe_http.get_stream(peer.base, settings, bearer, peer.base) as stream:
                list(stream.chunks())
    assert [request.headers.get("Authorization") for request in peer.requests] == [None, "Bearer token-of-ours", None]
    assert peer.connections == 2


def test_a_connection_to_a_trusted_address_serves_no_call_that_must_be_public() -> None:
    """Both calls may reach this peer here, but only the first one because its URL is from our own settings."""
    with KeepingPeer() as peer:
        settings = settings_for(peer.base)
        address = url_policy.parse(peer.base)
        for trusted in (True, False):
            opened = safe_http._peer(address, "", trusted=trusted)
            assert http_connection.connections.take(opened) is None
            safe_http.post_json(peer.base, b"{}", settings, {}, trusted=True)


# --- a connection breaks ----------------------------------------------------------------------------------------------


class Forgetful(KeepingPeer):
    """Answers the first request of each connection, and ends the connection at the second."""

    def __init__(self) -> None:
        self.by_connection: list[int] = []
        super().__init__()

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        with suppress(OSError):
            _read_request(request)
            self.by_connection.append(1)
            body = b'{"id": "in_1", "object": "invoice", "task_id": "t"}'
            request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            _read_request(request)
            self.by_connection.append(2)


def _read_request(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65536)
        if not received:
            raise ConnectionError
        data += received
    head, _, rest = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(rest) < length:
        rest += connection.recv(65536)


@pytest.mark.parametrize("call", POSTS)
def test_a_post_that_may_have_been_processed_is_not_sent_again(call: str) -> None:
    with Forgetful() as peer:
        attempt = attempt_with(settings_for(peer.base))
        CALLS[call](attempt, peer.base)
        with pytest.raises(TransientError):
            CALLS[call](attempt, peer.base)
    assert peer.by_connection == [1, 2]


@pytest.mark.parametrize("call", GETS)
def test_a_get_whose_kept_connection_ends_is_sent_again_once(call: str) -> None:
    with Forgetful() as peer:
        attempt = attempt_with(settings_for(peer.base))
        for _ in range(2):
            CALLS[call](attempt, peer.base)
    assert peer.by_connection == [1, 2, 1]


def test_a_request_is_unsent_if_the_connection_was_reset_before() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = TimedSocket(fileno=socket.create_connection(listener.getsockname()).detach())
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        connection = Connection(sock)
        assert not connection.is_usable()
        with pytest.raises(Unsent):
            connection.send(b"POST / HTTP/1.1\r\n\r\n", float("inf"))
        connection.close()


@pytest.mark.parametrize("call", CALLS)
def test_a_post_uses_no_connection_that_may_be_closed_at_this_moment(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "POST_IDLE_SECONDS", 0.0)
    with KeepingPeer() as peer:
        for _ in range(2):
            CALLS[call](attempt_with(settings_for(peer.base)), peer.base)
    assert peer.connections == (2 if call in POSTS else 1)


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[int]]]:
    """A server that gives each request this answer and keeps the connection; its address, and the connections."""
    accepted: list[int] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while True:
                _read_request(connection)
                connection.sendall(answer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                accepted.append(1)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", accepted
        listener.shutdown(socket.SHUT_RDWR)


KEPT = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
]
NOT_KEPT = {
    "a body of unclear length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "a goodbye": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "an older version": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a long body that nobody reads": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
    "a body that does not come": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
}


@pytest.mark.parametrize("answer", KEPT)
def test_the_body_of_an_answer_is_dropped_to_keep_the_connection(answer: bytes) -> None:
    with answering(answer) as (url, accepted):
        for _ in range(3):
            assert safe_http.post_json(url, b"{}", settings_for(url), {}).status_code in (200, 204)
    assert len(accepted) == 1


@pytest.mark.parametrize("answer", NOT_KEPT.values(), ids=NOT_KEPT)
def test_a_connection_is_not_kept_after(answer: bytes) -> None:
    with answering(answer) as (url, accepted):
        for _ in range(2):
            safe_http.post_json(url, b"{}", settings_for(url), {})
    assert len(accepted) == 2


# --- how many ---------------------------------------------------------------------------------------------------------


class Held:
    """A connection of whose kind the pool knows nothing."""

    def __init__(self) -> None:
        self.closed = False

    def is_usable(self) -> bool:
        return not self.closed

    def close(self) -> None:
        self.closed = True

    end = close


def test_the_connections_that_were_used_longest_ago_are_closed_if_there_are_too_many() -> None:
    pool: ConnectionPool[Held] = ConnectionPool(size=2)
    held = {name: Held() for name in "abc"}
    for name, connection in held.items():
        pool.give(name, connection)
    assert [held[name].closed for name in "abc"] == [True, False, False]
    assert pool.take("b") is held["b"]
    pool.give("b", held["b"])
    pool.give("d", Held())
    assert [held[name].closed for name in "abc"] == [True, False, True]


def test_a_process_keeps_as_many_connections_as_its_threads_use_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_pool, "_most_idle", 0)
    connection_pool.keep_idle(200)
    pool: ConnectionPool[Held] = ConnectionPool()
    held = [Held() for _ in range(201)]
    for connection in held:
        pool.give("a", connection)
    assert [connection.closed for connection in held] == [True] + [False] * 200


def test_a_connection_is_in_the_hands_of_one_user() -> None:
    pool: ConnectionPool[Held] = ConnectionPool()
    connection = Held()
    pool.give("a", connection)
    assert [pool.take("a"), pool.take("a")] == [connection, None]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_threads_never_get_each_others_answers(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(request: Request) -> Response:
        return Response(200, body=json.dumps({"id": request.path.rpartition("/")[2], "object": "invoice"}).encode())

    threads, calls = 12, 15
    with trusted_authority(tmp_path, monkeypatch) as context:
        peer = KeepingPeer(reply)
        if scheme == "https":
            peer.speak_tls(context)
        with peer:
            attempt = attempt_with(settings_for(peer.base))

            def work(number: int) -> list[str]:
                return [stripe.fetch_invoice(attempt, f"in_{number}_{n}")["id"] for n in range(calls)]

            found = at_once(work, threads)
    assert found == [[f"in_{number}_{n}" for n in range(calls)] for number in range(threads)]
    assert peer.connections <= threads


# --- what stays as it was ---------------------------------------------------------------------------------------------


def test_stripe_is_not_followed_to_another_server() -> None:
    with (
        KeepingPeer() as other,
        KeepingPeer(lambda _: Response(302, {"Location": other.url})) as peer,
        pytest.raises(TransientError),
    ):
        stripe.fetch_invoice(attempt_with(settings_for(peer.base)), "in_1")
    assert other.requests == []
