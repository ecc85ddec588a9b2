"""Files are sent by the event loop: a chunk takes a thread for the moment of reading it, a slow reader takes none."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from a2wsgi.asgi_typing import Receive, Send

from web.errors import HttpError

CHUNK_BYTES = 128 * 1024
CHUNK_SECONDS = 30  # for a reader to take a chunk: about 4 KiB a second
THREADS = 4
MAX_DOWNLOADS, MAX_BY_LINKS = 128, 96  # at once; the difference is for readers with a key
MAX_PER_KEY, MAX_PER_LINK = 32, 24  # the 20 agents of a document may have the same link
RETRY_AFTER_SECONDS = 10


class Reader(NamedTuple):
    """The reader of a file: the name of a key, or a link."""

    name: str
    has_key: bool


class Downloads:
    """All downloads of a process. Used from one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "download")
        self._running: Counter[Reader] = Counter()

    def begin(self, reader: Reader) -> None:
        """Take a place until `end`. Raises HttpError: 429 if this reader has too many, 503 if all together have."""
        if self._running[reader] >= (MAX_PER_KEY if reader.has_key else MAX_PER_LINK):
            raise HttpError("too many downloads at once with this key or link", 429, RETRY_AFTER_SECONDS)
        by_links = sum(count for other, count in self._running.items() if not other.has_key)
        if self._running.total() >= MAX_DOWNLOADS or (not reader.has_key and by_links >= MAX_BY_LINKS):
            raise HttpError("too many downloads at once; try again", 503)
        self._running[reader] += 1

    def end(self, reader: Reader) -> None:
        self._running[reader] -= 1
        self._running += Counter()  # drops those without downloads

    async def send(self, file: Iterable[bytes], receive: Receive, send: Send) -> None:
        """Send the body of a response in chunks, as long as the client is there and takes each within CHUNK_SECONDS."""
        chunks, gone = iter(file), asyncio.create_task(_disconnected(receive))
        try:
            while (chunk := await self._next(chunks)) is not None and not gone.done():
                async with asyncio.timeout(CHUNK_SECONDS):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return  # without completing the response: the server closes the connection
        finally:
            gone.cancel()

    async def _next(self, chunks: Iterator[bytes]) -> bytes | None:
        return await asyncio.get_running_loop().run_in_executor(self._threads, next, chunks, None)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
