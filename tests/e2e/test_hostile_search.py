"""Inputs from hypothesis, sent over raw sockets to the real receiver: no 5xx, no hang, nothing half recorded."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dev.stack.servers import Valkey
from inbox import queries
from inbox.client import connect
from inbox.store import Store
from tests.support.signed_deliveries import signed_by_stripe, stripe_event
from tests.support.stack import Stack

WAIT_SECONDS = 10
SEARCH = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TOKEN = "abcdefghijklmnopqrstuvwxyz-"
NAMES = st.sampled_from(["Stripe-Signature", "Content-Type", "Content-Encoding", "webhook-id", "Expect", "Cookie"])
LINES = st.binary(max_size=60).map(lambda value: value.translate(None, b"\r\n"))
HEADERS = st.lists(st.tuples(NAMES | st.text(TOKEN, min_size=1, max_size=20), LINES), max_size=8)
PATHS = st.sampled_from(["/stripe-webhook", "/doc-status-webhook", "/hooks/stripe", "/hooks/nobody", "/"])
CHUNKS = st.lists(st.binary(min_size=1, max_size=200), max_size=6)


@pytest.fixture(scope="module")
def served(valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Store]]:
    stack = Stack(tmp_path_factory.mktemp("search"), {"REDIS_URL": valkey_server.url})
    connect(valkey_server.url, timeout_seconds=5).flushall()
    try:
        stack.receiver()
        yield stack, Store(connect(valkey_server.url, timeout_seconds=5))
    finally:
        stack.end()


def ask(stack: Stack, pieces: list[bytes]) -> bytes:
    """Everything received until the connection is closed. Raises TimeoutError if it hangs."""
    answer = b""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=WAIT_SECONDS) as sock:
        try:
            for piece in pieces:
                sock.sendall(piece)
            while part := sock.recv(65536):
                answer += part
        except ConnectionError:
            pass  # cut off
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(part[1:4]) for part in answer.split(b"HTTP/1.1")[1:]]


def request(path: str, headers: list[tuple[str, bytes]], body: list[bytes], *, chunked: bool) -> list[bytes]:
    lines = [f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()]
    lines += [name.encode() + b": " + value + b"\r\n" for name, value in headers]
    if chunked:
        pieces = [b"%x\r\n" % len(piece) + piece + b"\r\n" for piece in body] + [b"0\r\n\r\n"]
        return [*lines, b"Transfer-Encoding: chunked\r\n\r\n", *pieces]
    return [*lines, b"Content-Length: %d\r\n\r\n" % sum(map(len, body)), *body]


def whole(store: Store) -> int:
    """The number of events, after a check that each has its body and its jobs."""
    events, bodies = store.client.keys("{holdfast}:event:*"), store.client.keys("{holdfast}:body:*")
    assert len(events) == len(bodies) == queries.stats(store)["accepted"]
    return len(events)


@SEARCH
@given(path=PATHS, headers=HEADERS, body=CHUNKS, chunked=st.booleans())
def test_arbitrary_headers_and_bodies_in_any_chunks_are_refused_or_disconnected(
    served: tuple[Stack, Store], path: str, headers: list[tuple[str, bytes]], body: list[bytes], chunked: bool
) -> None:
    stack, store = served
    before = whole(store)
    answer = ask(stack, request(path, headers, body, chunked=chunked))
    assert all(400 <= status < 500 for status in statuses(answer) if status != 100), answer[:300]
    assert whole(store) == before


SCALARS = st.sampled_from(
    ["null", "-0", "1e308", "1e999", "NaN", "9" * 400, '"\\ud800"', '"\\u0000"', '""', "[[]]", "{}"]
)
DEEP = st.integers(1, 3000).map(lambda depth: "[" * depth + "]" * depth)
STRINGS = st.text(max_size=30).map(json.dumps)
FIELDS = st.sampled_from(["id", "type", "data", "object", "created", "account", "livemode", "x"]).map(json.dumps)
VALUES = st.recursive(
    SCALARS | DEEP | STRINGS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(FIELDS, inner).map(":".join), max_size=4).map(lambda pairs: f"{{{','.join(pairs)}}}")
    ),
    max_leaves=6,
)
PAIRS = st.tuples(FIELDS, VALUES).map(":".join)
MORE = st.lists(PAIRS, max_size=4)  # before and after the good fields: many of them twice
GOOD = st.sampled_from([[], [json.dumps(stripe_event("evt_good", "invoice.payment_failed"))[1:-1]]])
BODIES = st.builds(lambda before, good, after: "{" + ",".join([*before, *good, *after]) + "}", MORE, GOOD, MORE)
CUTS = st.lists(st.integers(1, 2000), max_size=4)


@SEARCH
@given(body=BODIES, cuts=CUTS, chunked=st.booleans())
def test_any_correctly_signed_json_is_recorded_completely_or_refused(
    served: tuple[Stack, Store], body: str, cuts: list[int], chunked: bool
) -> None:
    stack, store = served
    raw, headers = signed_by_stripe(body)
    edges = [0, *sorted({cut for cut in cuts if cut < len(raw)}), len(raw)]
    pieces = [raw[begin:end] for begin, end in pairwise(edges)]
    there, known = whole(store), queries.stats(store)["duplicates"]
    signed = [(name, value.encode()) for name, value in headers.items()]
    (status,) = statuses(ask(stack, request("/stripe-webhook", signed, pieces, chunked=chunked)))
    new, again = whole(store) - there, queries.stats(store)["duplicates"] - known
    assert (status, new + again) in {(200, 1), (400, 0)}


def test_pipelined_deliveries_are_recorded_except_the_invalid_one(served: tuple[Stack, Store]) -> None:
    stack, store = served
    before = whole(store)
    requests = []
    for number in range(7):
        raw, headers = signed_by_stripe(stripe_event(f"evt_pipeline_{number}"))
        body = raw.replace(b"obj_1", b"obj_2") if number == 3 else raw
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        last = "Connection: close\r\n" if number == 6 else ""
        head = f"POST /stripe-webhook HTTP/1.1\r\nHost: x\r\n{head}{last}Content-Length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)
    assert statuses(ask(stack, [b"".join(requests)])) == [200, 200, 200, 400, 200, 200, 200]
    assert whole(store) == before + 6
