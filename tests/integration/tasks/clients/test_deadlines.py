"""No call goes on after the deadline of its attempt, however the peer behaves."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tasks import time_limit
from tasks.clients import http_connection
from tasks.clients.responses import DeadlineReached
from tests.support.keeping_peer import CALLS, KeepingPeer, attempt_with, settings_for

LEFT_SECONDS = 0.5
SOON_SECONDS = 15  # a machine with other work is slow; every other limit of a call is at least 20 seconds


def drip(text: bytes) -> Callable[[socket.socket], None]:
    """Sends a byte every 50 ms, without end: no timeout of a single read ends it."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(text)
        while True:
            connection.sendall(b"1")
            time.sleep(0.05)

    return talk


def be_silent(connection: socket.socket) -> None:
    connection.recv(65536)
    time.sleep(60)


PEERS: dict[str, Callable[[socket.socket], None]] = {
    "silent": be_silent,
    "with a head that does not end": drip(b"HTTP/1.1 200 OK\r\nX: "),
    "with a body that does not end": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
    "with a chunk that does not begin": drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
}

SLOW_BODIES = ["with a body that does not end", "with a chunk that does not begin"]


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads a request and then calls `talk`, for one connection at a time; its host and port."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def check_that_it_ends(call: str, base: str) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineReached, match="time limit"):
        CALLS[call](attempt_with(settings_for(base), began + LEFT_SECONDS), base)
    assert time.monotonic() - began < SOON_SECONDS


SLOW = [(call, peer) for call in CALLS for peer in PEERS if call != "a handoff" or peer not in SLOW_BODIES]


@pytest.mark.parametrize(("call", "peer"), SLOW)
def test_a_call_of_a_slow_peer_ends_at_the_deadline(call: str, peer: str) -> None:
    with talking(PEERS[peer]) as host:
        check_that_it_ends(call, f"http://{host}")


@pytest.mark.parametrize("peer", SLOW_BODIES)
def test_a_handoff_does_not_wait_for_the_body_of_the_answer(peer: str) -> None:
    with talking(PEERS[peer]) as host:
        began = time.monotonic()
        CALLS["a handoff"](attempt_with(settings_for(f"http://{host}")), f"http://{host}")
        assert time.monotonic() - began < SOON_SECONDS


@pytest.mark.parametrize("call", CALLS)
def test_a_tls_handshake_ends_at_the_deadline(call: str) -> None:
    with talking(lambda _: time.sleep(60)) as host:
        check_that_it_ends(call, f"https://{host}")


@pytest.mark.parametrize("call", CALLS)
def test_a_name_service_that_does_not_answer_is_not_waited_for(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: done.wait(60))
    check_that_it_ends(call, "http://127.0.0.1:9")
    done.set()


@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_sent_after_the_deadline(call: str) -> None:
    with KeepingPeer() as peer:
        settings, now = settings_for(peer.base), time.monotonic()
        CALLS[call](attempt_with(settings, now + 60), peer.base)
        with pytest.raises(DeadlineReached, match="before the call"):
            CALLS[call](attempt_with(settings, now), peer.base)  # not over the connection of the first, either
    assert len(peer.requests) == 1


@pytest.mark.parametrize("call", CALLS)
def test_the_deadline_of_one_call_does_not_end_the_next_on_its_connection(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "POST_IDLE_SECONDS", 30)
    with KeepingPeer() as peer:
        attempt = attempt_with(settings_for(peer.base), time.monotonic() + 60)
        CALLS[call](attempt, peer.base)
        *_, kept = http_connection.connections._idle[-1]
        kept.read_until(time.monotonic() - 1)
        CALLS[call](attempt, peer.base)
    assert (peer.connections, len(peer.requests)) == (1, 2)


def test_work_that_ends_in_time_gives_its_result_or_its_error() -> None:
    assert time_limit.run_until(time.monotonic() + 60, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        time_limit.run_until(time.monotonic() + 60, lambda: 1 // 0)
    with pytest.raises(TimeoutError):
        time_limit.run_until(time.monotonic() + 0.1, lambda: time.sleep(10))
