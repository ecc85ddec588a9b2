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
from web.receiver import connections
from web.receiver.protocol import MAX_HEADERS, MAX_NON_BODY_BYTES

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


def plausible(start: bytes) -> bytes:
    """With a signature that only the body can disprove."""
    return start.replace(b"\r\n", b"\r\nStripe-Signature: t=%d,v1=00\r\n" % time.time(), 1)


def read_all(sock: socket.socket) -> bytes:
    """All until the other side closes."""
    answer = b""
    while part := sock.recv(65536):
        answer += part
    return answer


def read_until_closed(sock: socket.socket) -> bytes:
    """As `read_all`; a reset also ends it."""
    answer = b""
    try:
        while part := sock.recv(65536):
            answer += part
    except ConnectionResetError:
        pass
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(part[1:4]) for part in answer.split(b"HTTP/1.1")[1:]]


def exchange(server: Server, *parts: bytes) -> list[int]:
    """What is answered, until the connection is closed by the server."""
    with connected(server) as sock:
        for part in parts:
            sock.sendall(part)
        return statuses(read_all(sock))


def accepted(store: Store) -> int:
    return queries.stats(store)["accepted"]


def test_an_upgrade_is_ignored_and_the_body_is_taken(server: Server, real_store: Store) -> None:
    """Some HTTP clients offer HTTP/2 with each request, bodies and all: RFC 9110, section 7.8."""
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    head, body = delivery("evt_1", *upgrade)
    page = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    last = b"".join(delivery("evt_2", "Connection: close"))
    assert exchange(server, head + body + page, last) == [200, 200, 200]
    assert accepted(real_store) == 2


def test_a_connect_is_refused(server: Server) -> None:
    assert exchange(server, b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n") == [400]


def test_whoever_waits_for_leave_to_send_the_body_gets_it(server: Server) -> None:
    head, body = delivery("evt_1", "Expect: 100-continue", "Connection: close")
    with connected(server) as sock:
        sock.sendall(head)
        assert statuses(sock.recv(1000)) == [100]
        sock.sendall(body)
        assert statuses(read_all(sock)) == [200]


def test_whoever_would_send_too_large_a_body_is_told_before_it_is_sent(server: Server) -> None:
    head, _ = delivery("evt_1", "Expect: 100-continue", size=LIMIT)
    with connected(server) as sock:
        sock.sendall(head)
        answer = sock.recv(1000)
        assert statuses(answer) == [413]
        assert b"connection: close\r\n" in answer


def test_a_connection_is_used_again_after_a_refusal_and_closed_where_its_sender_says_so(server: Server) -> None:
    last = b"".join(delivery("evt_1", "Connection: close"))
    assert exchange(server, BAD, last + PAGE) == [400, 200]


def test_http_1_0_gets_one_answer(server: Server) -> None:
    old = b"".join(delivery("evt_1", "Connection: keep-alive")).replace(b"HTTP/1.1", b"HTTP/1.0")
    assert exchange(server, old) == [200]


def test_deliveries_and_pages_in_one_pipeline_are_answered_in_order(server: Server, real_store: Store) -> None:
    good = [b"".join(delivery(f"evt_{number}")) for number in range(3)]
    last = PAGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    missing = PAGE.replace(b"/livez", b"/nothing")
    pipeline = [good[0], missing, BAD, good[1], PAGE, BAD, good[2], missing, last]
    assert exchange(server, b"".join(pipeline)) == [200, 404, 400, 200, 200, 400, 200, 404, 200]
    assert accepted(real_store) == 3


def test_a_long_pipeline_of_refusals_is_answered_to_its_end(server: Server) -> None:
    assert exchange(server, BAD * 2000 + b"".join(delivery("evt_1", "Connection: close"))) == [400] * 2000 + [200]


def test_a_body_that_breaks_off_is_counted_and_its_room_is_given_back(server: Server, real_store: Store) -> None:
    head, body = delivery("evt_1", size=LIMIT // 2)
    for _ in range(150):  # together more than there is room for
        with connected(server) as sock:
            sock.sendall(head + body[:-1])
    wait_until(
        lambda: queries.delivery_counts(real_store).get("rejected:stripe:body") == 150, seconds=30, what="150 refusals"
    )
    assert exchange(server, b"".join(delivery("evt_2", "Connection: close", size=LIMIT // 2))) == [200]


def test_what_follows_the_last_request_of_a_connection_was_never_there(server: Server, real_store: Store) -> None:
    last, behind = b"".join(delivery("evt_1", "Connection: close")), b"".join(delivery("evt_2"))
    assert exchange(server, last + behind) == [200]
    time.sleep(1.2)  # refusals are written down once a second
    stats = queries.stats(real_store)
    assert (stats["accepted"], stats["rejected"]) == (1, 0)


def test_when_bodies_take_all_memory_the_oldest_unfinished_one_is_rejected(server: Server) -> None:
    head, body = delivery("evt_1", size=LIMIT * 9 // 10)
    socks = [connected(server) for _ in range(80)]
    try:
        for sock in socks:
            sock.sendall(head + body[:-1])
        answer = socks[0].recv(1000)
        assert statuses(answer) == [503]
        assert b"retry-after" in answer.lower()
        socks[-1].sendall(body[-1:])
        assert statuses(socks[-1].recv(1000)) == [200]
        assert exchange(server, b"".join(delivery("evt_2", "Connection: close"))) == [200]
    finally:
        for sock in socks:
            sock.close()


UNSIGNED = b"POST /stripe-webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n%b\r\n"


@pytest.mark.parametrize("stamp", [b"", b"Stripe-Signature: v1=00\r\n", b"Stripe-Signature: t=1,v1=00\r\n"])
def test_a_delivery_whose_head_cannot_be_right_is_rejected_before_its_body_arrives(
    server: Server, stamp: bytes
) -> None:
    with connected(server) as sock:
        sock.sendall(UNSIGNED % stamp + b"{")
        answer = sock.recv(1000)
        assert statuses(answer) == [400]
        assert b"connection: close\r\n" in answer


def test_trailers_of_a_chunked_body_are_read_over(server: Server) -> None:
    head, body = delivery("evt_1", "Connection: close", "Transfer-Encoding: chunked")
    head = head[: head.index(b"Content-Length")] + b"\r\n"
    chunks = b"%x\r\n" % len(body) + body + b"\r\n0\r\nStripe-Signature: t=1,v1=00\r\n\r\n"
    assert exchange(server, head, chunks) == [200]


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
        sock.sendall(plausible(start) if b"chunked" in start else start)
        for _ in range(10):
            sock.sendall(b"x" * (MAX_NON_BODY_BYTES // 8))
            time.sleep(0.01)
        assert statuses(sock.recv(1000)) == [431]


KEY = f"Authorization: Bearer {API_KEY}\r\n".encode()
SLOW = {
    "nothing": (b"", []),
    "head": (b"POST /stripe-webhook HTTP/1.1\r\nHost:", []),
    "body": (BAD[:-1], [408]),
    "chunk": (BAD.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked").replace(b"{}", b"2\r\n{"), [408]),
    "second request": (BAD + PAGE[:-2], [400]),
    "body of a page": (b"POST /api/v1/documents HTTP/1.1\r\n" + KEY + b"Content-Length: 2\r\n\r\n{", [408]),
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
    assert exchange(server, plausible(sent) if 408 in told else sent) == told
    assert time.monotonic() - began < 3


@pytest.mark.usefixtures("impatient")
def test_what_comes_steadily_may_take_its_time_between_requests(server: Server) -> None:
    with connected(server) as sock:
        for number in range(3):
            sock.sendall(b"".join(delivery(f"evt_{number}")))
            assert statuses(sock.recv(1000)) == [200]
            time.sleep(0.5)


def is_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_beyond_the_limit_the_oldest_connection_is_closed_on_which_no_delivery_was_accepted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    with connected(server) as sender, connected(server) as oldest, connected(server) as younger:
        sender.sendall(b"".join(delivery("evt_1")))
        assert statuses(sender.recv(1000)) == [200]
        oldest.sendall(PAGE)
        younger.sendall(PAGE)
        assert [statuses(sock.recv(1000)) for sock in (oldest, younger)] == [[200], [200]]
        with connected(server) as newcomer:
            assert is_closed(oldest)
            for sock in (newcomer, sender, younger):
                sock.sendall(b"".join(delivery("evt_2")))
                assert statuses(sock.recv(1000)) == [200]


def test_a_burst_of_pipelined_requests_is_answered_as_far_as_requests_may_wait(server: Server) -> None:
    """Each takes 2 KB of memory while it waits."""
    with connected(server) as sock:
        sock.sendall(PAGE * 30_000)
        answer = read_until_closed(sock)
    assert 0 < len(statuses(answer)) <= connections.MAX_WAITING + 1
    assert answer.count(b"connection: close") == 1


def test_requests_that_are_pipelined_in_small_groups_are_all_answered(server: Server) -> None:
    with connected(server) as sock:
        for _ in range(20):
            sock.sendall(PAGE * 40)
            answer = b""
            while answer.count(b"HTTP/1.1 200") < 40:
                answer += sock.recv(65536)


def test_requests_wait_on_so_many_connections_and_no_more(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_WAITED_ON", 0)
    assert exchange(server, PAGE * 3) == [200]


def test_a_head_may_have_so_many_headers_and_bytes_even_in_one_read(server: Server) -> None:
    many = b"GET /livez HTTP/1.1\r\n" + b"a:\r\n" * (MAX_HEADERS + 2)
    assert exchange(server, many) == [431]
    assert exchange(server, many + b"\r\n") == [431]
    assert exchange(server, b"GET /livez HTTP/1.1\r\nX: " + b"x" * MAX_NON_BODY_BYTES + b"\r\n\r\n") == [431]


def test_whoever_does_not_read_what_is_sent_when_the_connection_closes_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.1)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.config.port))
        docs = b"GET /api/docs HTTP/1.1\r\nHost: x\r\n\r\n"
        sock.sendall(docs * 60)
        wait_until(lambda: len(server.server_state.connections) == 1, seconds=10, what="the connection")
        wait_until(lambda: not server.server_state.connections, seconds=20, what="the end of it")


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
        assert read_all(idle) == b""
        valkey.resume()
        assert statuses(read_all(waiting)) == [200]
