"""Connections over raw sockets: what HTTP allows beside one plain request, and the bounds of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from uvicorn import Server

from dev.stack.servers import Valkey, free_port, wait_until
from inbox import queries
from inbox.store import Store
from settings import load
from tests.support.running_receiver import running_receiver
from tests.support.signed_deliveries import API_KEY, STRIPE_SECRET, signed_by_stripe, stripe_event
from web.receiver import protocol
from web.receiver.protocol import MAX_NON_BODY_BYTES

PAGE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
BAD = b"POST /stripe-webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
LIMIT = 1_000_000


@pytest.fixture
def server(valkey: Valkey, real_store: Store, tmp_path: object) -> Iterator[Server]:
    settings = load(
        {
            "REDIS_URL": valkey.url,
            "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
            "API_KEYS": API_KEY,
            "DATABASE_URL": f"sqlite:///{tmp_path}/x.db",
            "MAX_BODY_BYTES": str(LIMIT),
            "PORT": str(free_port()),
        }
    )
    with running_receiver(settings) as server:
        yield server
    valkey.resume()


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.config.port), timeout=10)


def delivery(name: str, *more: str, size: int = 0) -> tuple[bytes, bytes]:
    """Its head and its body."""
    body, headers = signed_by_stripe(stripe_event(name, pad="x" * size))
    lines = ["POST /stripe-webhook HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items())]
    return "".join(f"{line}\r\n" for line in [*lines, *more, f"Content-Length: {len(body)}", ""]).encode(), body


def heard(sock: socket.socket) -> bytes:
    """All until the other side closes."""
    answer = b""
    while part := sock.recv(65536):
        answer += part
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(part[1:4]) for part in answer.split(b"HTTP/1.1")[1:]]


def asked(server: Server, *parts: bytes) -> list[int]:
    """What is answered, until the connection is closed by the server."""
    with connected(server) as sock:
        for part in parts:
            sock.sendall(part)
        return statuses(heard(sock))


def accepted(store: Store) -> int:
    return queries.stats(store)["accepted"]


def test_an_upgrade_is_ignored_and_the_body_is_taken(server: Server, real_store: Store) -> None:
    """Some HTTP clients offer HTTP/2 with each request, bodies and all: RFC 9110, section 7.8."""
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    head, body = delivery("evt_1", *upgrade)
    page = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    last = b"".join(delivery("evt_2", "Connection: close"))
    assert asked(server, head + body + page, last) == [200, 200, 200]
    assert accepted(real_store) == 2


def test_a_connect_is_refused(server: Server) -> None:
    assert asked(server, b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n") == [400]


def test_whoever_waits_for_leave_to_send_the_body_gets_it(server: Server) -> None:
    head, body = delivery("evt_1", "Expect: 100-continue", "Connection: close")
    with connected(server) as sock:
        sock.sendall(head)
        assert statuses(sock.recv(1000)) == [100]
        sock.sendall(body)
        assert statuses(heard(sock)) == [200]


def test_whoever_would_send_too_large_a_body_is_told_before_it_is_sent(server: Server) -> None:
    head, _ = delivery("evt_1", "Expect: 100-continue", size=LIMIT)
    with connected(server) as sock:
        sock.sendall(head)
        answer = sock.recv(1000)
        assert statuses(answer) == [413]
        assert b"connection: close\r\n" in answer


def test_a_connection_is_used_again_after_a_refusal_and_closed_where_its_sender_says_so(server: Server) -> None:
    last = b"".join(delivery("evt_1", "Connection: close"))
    assert asked(server, BAD, last + PAGE) == [400, 200]


def test_http_1_0_gets_one_answer(server: Server) -> None:
    old = b"".join(delivery("evt_1", "Connection: keep-alive")).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert asked(server, old) == [200]


def test_deliveries_and_pages_in_one_pipeline_are_answered_in_order(server: Server, real_store: Store) -> None:
    good = [b"".join(delivery(f"evt_{number}")) for number in range(3)]
    last = PAGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    missing = PAGE.replace(b"/livez", b"/nothing")
    pipeline = [good[0], missing, BAD, good[1], PAGE, BAD, good[2], missing, last]
    assert asked(server, b"".join(pipeline)) == [200, 404, 400, 200, 200, 400, 200, 404, 200]
    assert accepted(real_store) == 3


def test_a_long_pipeline_of_refusals_is_answered_to_its_end(server: Server) -> None:
    assert asked(server, BAD * 2000 + b"".join(delivery("evt_1", "Connection: close"))) == [400] * 2000 + [200]


def test_a_body_that_breaks_off_is_counted_and_its_room_is_given_back(server: Server, real_store: Store) -> None:
    head, body = delivery("evt_1", size=LIMIT // 2)
    for _ in range(150):  # together more than there is room for
        with connected(server) as sock:
            sock.sendall(head + body[:-1])
    wait_until(
        lambda: queries.delivery_counts(real_store).get("rejected:stripe:body") == 150, seconds=30, what="150 refusals"
    )
    assert asked(server, b"".join(delivery("evt_2", "Connection: close", size=LIMIT // 2))) == [200]


def test_what_follows_the_last_request_of_a_connection_was_never_there(server: Server, real_store: Store) -> None:
    last, behind = b"".join(delivery("evt_1", "Connection: close")), b"".join(delivery("evt_2"))
    assert asked(server, last + behind) == [200]
    time.sleep(1.2)  # refusals are written down once a second
    stats = queries.stats(real_store)
    assert (stats["accepted"], stats["rejected"]) == (1, 0)


def test_bodies_on_their_way_have_so_much_room_and_no_more(server: Server) -> None:
    head, body = delivery("evt_1", size=LIMIT * 9 // 10)
    socks = [connected(server) for _ in range(80)]
    try:
        for sock in socks:
            sock.sendall(head + body[:-1])
        socks[-1].settimeout(10)
        answer = socks[-1].recv(1000)
        assert statuses(answer) == [503]
        assert b"retry-after" in answer.lower()
        socks[0].sendall(body[-1:])
        assert statuses(socks[0].recv(1000)) == [200]
    finally:
        for sock in socks:
            sock.close()


def test_trailers_of_a_chunked_body_are_read_over(server: Server) -> None:
    head, body = delivery("evt_1", "Connection: close", "Transfer-Encoding: chunked")
    head = head[: head.index(b"Content-Length")] + b"\r\n"
    chunks = b"%x\r\n" % len(body) + body + b"\r\n0\r\nStripe-Signature: t=1,v1=00\r\n\r\n"
    assert asked(server, head, chunks) == [200]


@pytest.mark.parametrize(
    "start",
    [
        b"POST /stripe-webhook HTTP/1.1\r\nX: ",
        b"GET /livez?",
        b"POST /stripe-webhook HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: ",
        b"POST /stripe-webhook HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x=",
    ],
    ids=["header", "address", "trailer", "chunk extension"],
)
def test_what_is_no_body_has_an_end(server: Server, start: bytes) -> None:
    with connected(server) as sock:
        sock.sendall(start)
        for _ in range(10):
            sock.sendall(b"x" * (MAX_NON_BODY_BYTES // 8))
            time.sleep(0.01)
        assert statuses(sock.recv(1000)) == [431]


SLOW = {
    "nothing": (b"", []),
    "head": (b"POST /stripe-webhook HTTP/1.1\r\nHost:", []),
    "body": (BAD[:-1], [408]),
    "chunk": (BAD.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked").replace(b"{}", b"2\r\n{"), [408]),
    "second request": (BAD + PAGE[:-2], [400]),
    "body of a page": (b"POST /api/v1/documents HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{", [408]),
    "body after its refusal": (b"POST /stripe-webhook HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n{", [413]),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.receiver.protocol.BODY_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr("web.body.BODY_TIMEOUT_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("sent", "told"), SLOW.values(), ids=SLOW)
def test_whoever_comes_too_slowly_is_told_so_where_a_body_lacks_and_cut_off(
    server: Server, sent: bytes, told: list[int]
) -> None:
    began = time.monotonic()
    assert asked(server, sent) == told
    assert time.monotonic() - began < 3


@pytest.mark.usefixtures("impatient")
def test_what_comes_steadily_may_take_its_time_between_requests(server: Server) -> None:
    with connected(server) as sock:
        for number in range(3):
            sock.sendall(b"".join(delivery(f"evt_{number}")))
            assert statuses(sock.recv(1000)) == [200]
            time.sleep(0.5)


def test_a_process_has_so_many_connections_and_no_more(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 2)
    socks = [connected(server) for _ in range(2)]
    with connected(server) as third:
        assert third.recv(1) == b""
    for sock in socks:
        sock.sendall(PAGE)
        assert statuses(sock.recv(1000)) == [200]
        sock.close()


def test_whoever_reads_no_answers_is_cut_off(server: Server) -> None:
    with connected(server) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(OSError):
            for _ in range(10_000):
                sock.sendall(BAD * 100)


def test_whoever_waits_for_the_store_when_the_server_is_to_stop_is_answered(server: Server, valkey: Valkey) -> None:
    with connected(server) as idle, connected(server) as waiting:
        valkey.freeze()
        waiting.sendall(b"".join(delivery("evt_1")))
        time.sleep(0.3)  # it is on its way to the store
        server.should_exit = True
        assert heard(idle) == b""
        valkey.resume()
        assert statuses(heard(waiting)) == [200]
