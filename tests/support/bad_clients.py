"""Clients without a key that keep a receiver busy: `python -m tests.support.bad_clients <port> <link>`, until killed.

They send nothing but proper HTTP, slowly, in part, too often, or without reading the answers; only to a receiver of a
test, on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Awaitable, Callable

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

EACH = 35  # of every kind
MB = 1024 * 1024
PAUSE_SECONDS = 0.2


def delivery(length: int) -> bytes:
    """The head of a delivery that only its body can disprove."""
    stamp = f"Stripe-Signature: t={int(time.time())},v1={'0' * 64}"
    return f"POST /stripe-webhook HTTP/1.1\r\nHost: localhost\r\n{stamp}\r\nContent-Length: {length}\r\n\r\n".encode()


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    for byte in data:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(PAUSE_SECONDS)


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def slow_head(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await drip(writer, delivery(1000))


async def slow_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(delivery(1000))
    await drip(writer, b"x" * 1000)


async def unfinished_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(delivery(MB) + b"x" * (MB - 1))
    await writer.drain()
    await reader.read()
    await asyncio.sleep(10 * PAUSE_SECONDS)


async def unfinished_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As much as a proxy buffers; it passes on what is longer."""
    head = delivery(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    writer.write(head + b"%x\r\n" % MB + b"x" * MB + b"\r\n")
    await writer.drain()
    await reader.read()
    await asyncio.sleep(10 * PAUSE_SECONDS)


async def half_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(get("/console/sign-in") + delivery(10_000) + b"{")
    writer.write_eof()
    await reader.read()


async def pipelining(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(get("/console/sign-in") * 20_000)
    await reader.read()


async def not_reading(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(get("/api/docs"))
        await asyncio.sleep(PAUSE_SECONDS)


async def not_downloading(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(get(sys.argv[2]))
    await asyncio.sleep(5)


async def repeating(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    checks = ",".join(["store"] * 1000)
    wrong_key = get("/api/v1/stats", "Authorization: Bearer wrong")
    unsigned = b"POST /stripe-webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
    while True:
        for request in (get(f"/readyz?only={checks}"), get("/readyz"), wrong_key, unsigned, get("/console/sign-in")):
            writer.write(request)
            await reader.read(MB)
            await asyncio.sleep(PAUSE_SECONDS)


KINDS: list[Client] = [
    silent,
    slow_head,
    slow_body,
    unfinished_body,
    unfinished_chunks,  # with those above, more than there is memory for
    half_open,
    pipelining,
    not_reading,
    not_downloading,
    repeating,
]


async def keep_on(client: Client, port: int) -> None:
    """One client, which connects again whenever its connection ends."""
    while True:
        with contextlib.suppress(OSError):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
            try:
                await client(reader, writer)
            finally:
                writer.transport.abort()
        await asyncio.sleep(PAUSE_SECONDS)


async def main() -> None:
    await asyncio.gather(*(keep_on(kind, int(sys.argv[1])) for kind in KINDS for _ in range(EACH)))


if __name__ == "__main__":
    asyncio.run(main())
