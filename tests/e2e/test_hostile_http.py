"""What no client library sends, over raw sockets to the real receiver: answered in 4xx or cut off, and it goes on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import psutil
import pytest
import requests

from dev.stack.servers import Valkey
from tests.support.signed_deliveries import API_KEY, signed_by_stripe, stripe_event
from tests.support.stack import Process, Stack

MB = 1024 * 1024
POST = b"POST /stripe-webhook HTTP/1.1\r\nHost: x\r\n"


SIGNED = b"Stripe-Signature: t=0000000000,v1=00\r\n"  # see fresh


def fresh(request: bytes) -> bytes:
    """The request with signatures that are plausible for the next minutes: this module may be minutes old."""
    return request.replace(b"t=0000000000,", b"t=%d," % (time.time() + 150))


CHUNKED = POST + SIGNED + b"Transfer-Encoding: chunked\r\n\r\n"
RAW = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "unknown method": b"BREW /stripe-webhook HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "lower-case method": b"post /stripe-webhook HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "no host": b"POST /stripe-webhook HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "HTTP/9": b"POST / HTTP/9.9\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "length of no number": POST + b"Content-Length: \xc2\xb2\r\n\r\n",
    "length beyond 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "length and chunked": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size of no number": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "negative chunk size": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": CHUNKED + b"fffffffffffffffffff\r\n{}\r\n",
    "chunk longer than it says": CHUNKED + b"1\r\n{}}}}}\r\n0\r\n\r\n",
    "huge header": POST + b"X: " + b"x" * MB + b"\r\n\r\n",
    "many headers": POST + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n",
    "header of control characters": POST + b"Stripe-Signature: \x01\x02\x7f\r\nContent-Length: 2\r\n\r\n{}",
    "header with NUL": POST + b"Stripe-Signature: t=1\x00\r\nContent-Length: 2\r\n\r\n{}",
    "header of no ASCII": POST
    + b"Stripe-Signature: t=\xff\xfe,v1=\xe9\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "two signatures": POST + SIGNED + SIGNED + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}",
    "folded header": POST + b"Stripe-Signature: t=1,\r\n v1=00\r\nContent-Length: 2\r\n\r\n{}",
    "long path": b"POST /hooks/" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "NUL in the path": b"POST /hooks/%00 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "path that climbs": b"POST /hooks/../../etc HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "path of no UTF-8": b"POST /hooks/%ff%fe HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "path of raw bytes": b"POST /hooks/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.fixture(scope="module")
def served(valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Process]]:
    stack = Stack(tmp_path_factory.mktemp("hostile"), {"REDIS_URL": valkey_server.url})
    try:
        yield stack, stack.receiver()
    finally:
        stack.end()


def connected(stack: Stack) -> socket.socket:
    return socket.create_connection(("127.0.0.1", stack.port), timeout=5)


def read_response(sock: socket.socket) -> bytes:
    """Whatever is answered until the connection is closed, or nothing more comes."""
    answer = b""
    try:
        while part := sock.recv(65536):
            answer += part
            if b'"error"' in answer:
                break
    except OSError:
        pass
    return answer


def good_event_seconds(stack: Stack) -> float:
    """How long a good sender waits."""
    body, headers = signed_by_stripe(stripe_event(f"evt_{time.monotonic_ns()}"))
    began = time.monotonic()
    assert requests.post(stack.url("/stripe-webhook"), data=body, headers=headers, timeout=20).status_code == 200
    return time.monotonic() - began


def memory(part: Process) -> float:
    return sum(p.memory_info().rss for p in [psutil.Process(part.process.pid), *part.children()]) / MB


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW.keys())
def test_what_is_no_proper_request_is_refused_or_cut_off(served: tuple[Stack, Process], raw: bytes) -> None:
    stack, _ = served
    with connected(stack) as sock:
        sock.settimeout(2)
        try:
            sock.sendall(fresh(raw))
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # cut off already
        answer = read_response(sock)
    assert answer == b"" or answer.split(b" ")[1].startswith(b"4"), answer[:200]
    good_event_seconds(stack)


def test_pipelined_requests_are_answered_each(served: tuple[Stack, Process]) -> None:
    stack, _ = served
    one = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(stack) as sock:
        sock.sendall(one * 19 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = b""
        while part := sock.recv(65536):
            answer += part
    assert answer.count(b"HTTP/1.1 200") == 20


@pytest.mark.parametrize("path", ["/stripe-webhook", "/api/v1/documents"])
@pytest.mark.parametrize("chunked", [True, False])
def test_an_endless_body_is_cut_off_in_bounded_memory(served: tuple[Stack, Process], path: str, chunked: bool) -> None:
    stack, receiver = served
    before = memory(receiver)
    how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 10000000000"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n".encode()
    piece = b"%x\r\n" % MB + b"x" * MB + b"\r\n" if chunked else b"x" * MB
    sent, most = 0, before
    with connected(stack) as sock:
        sock.sendall(head + fresh(SIGNED) + how + b"\r\n\r\n")
        try:
            while sent < 200:
                sock.sendall(piece)
                sent += 1
                most = max(most, memory(receiver))
        except OSError:
            pass  # cut off
        answer = read_response(sock)
    assert answer == b"" or answer.split(b" ")[1] == b"413", answer[:200]
    assert sent < 100
    assert most - before < 64, f"{most - before:.0f} MB more after {sent} MB"


@pytest.mark.parametrize("path", ["/stripe-webhook", "/api/v1/documents"])
def test_a_chunked_body_one_byte_over_the_limit_is_413(served: tuple[Stack, Process], path: str) -> None:
    stack, _ = served
    pieces = iter([b"x" * MB, b"x"])  # requests sends an iterator in chunks
    headers = {"Authorization": f"Bearer {API_KEY}", "Stripe-Signature": f"t={int(time.time())},v1=00"}
    answer = requests.post(stack.url(path), data=pieces, headers=headers, timeout=20)
    assert (answer.status_code, answer.json()) == (413, {"error": f"the body is larger than {MB} bytes"})


SLOW_BODY = b"Content-Length: 1000\r\n\r\n{"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
KEY = f"Authorization: Bearer {API_KEY}\r\n".encode()
SLOW = {
    "heads": POST,
    "bodies": POST + SIGNED + SLOW_BODY,
    "bodies for the API": b"POST /api/v1/documents HTTP/1.1\r\nHost: x\r\n" + KEY + SLOW_BODY,
    "sign-ins": b"POST /console/sign-in HTTP/1.1\r\nHost: x\r\n" + FORM + SLOW_BODY,
}


@pytest.mark.parametrize("started", SLOW.values(), ids=SLOW.keys())
def test_slow_senders_do_not_starve_a_good_one_nor_the_pages(served: tuple[Stack, Process], started: bytes) -> None:
    stack, _ = served
    slow = [connected(stack) for _ in range(400)]
    try:
        for sock in slow:
            sock.sendall(fresh(started))
        time.sleep(0.5)
        assert good_event_seconds(stack) < 2
        assert requests.get(stack.url("/livez"), timeout=2).ok
    finally:
        for sock in slow:
            sock.close()
    good_event_seconds(stack)
