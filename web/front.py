"""The front, as an ASGI application: webhooks in the event loop, everything else by Flask in threads.

A delivery that waits, for its own slow body or for the disk, holds no thread here (docs/decisions/0006).
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast
from urllib.parse import parse_qsl

from a2wsgi import WSGIMiddleware
from a2wsgi.asgi_typing import HTTPScope, Receive, ReceiveEvent, Scope, Send, SendEvent
from a2wsgi.wsgi_typing import Environ
from flask import Flask

import traces
from inbox.errors import BadPayload, StoreUnavailable
from inbox.store import Store
from settings import Settings
from web.body import Room, receive_body
from web.errors import Refused, told
from web.group_commit import GroupCommit
from web.receive import ANY_SOURCE, OK, PATHS, sender, take
from web.sources import Source
from web.tally import Tally

THREADS = 32  # for the API and the pages
ROOM_BYTES = 64 * 1024 * 1024
STORE_SECONDS = 1.8  # a sender hears 200 or 503 within 2 seconds
Answer = tuple[SendEvent, SendEvent]


def _answer(status: int, body: bytes, headers: Mapping[str, str]) -> Answer:
    """The two messages of an answer in JSON."""
    pairs = {"content-type": "application/json", **headers}
    head = [(name.lower().encode(), value.encode()) for name, value in pairs.items()]
    return (
        {"type": "http.response.start", "status": status, "headers": head},
        {"type": "http.response.body", "body": body},
    )


ACCEPTED = _answer(200, OK, {})


class Front:
    """Whatever is no webhook goes to `pages`."""

    def __init__(self, settings: Settings, sources: Mapping[str, Source], store: Store, pages: Flask) -> None:
        self._settings, self._sources = settings, sources
        self._group, self._room, self._tally = GroupCommit(store), Room(ROOM_BYTES), Tally(store)
        self._pages = _in_threads(pages, settings.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as https://asgi.readthedocs.io/en/latest/specs/www.html describes it."""
        if scope["type"] == "http" and (name := _source_name(scope)) is not None:
            for message in await self._outcome(name, scope, receive):
                await send(message)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await self._pages(scope, receive, send)

    async def _outcome(self, name: str, scope: HTTPScope, receive: Receive) -> Answer:
        try:
            await self._receive(name, _Request(scope), receive)
        except Exception as error:
            return _refusal(error)
        return ACCEPTED

    async def _receive(self, name: str, request: _Request, receive: Receive) -> None:
        """The steps of web/receive.py; the fourth in one round trip with whatever else arrives now."""
        limit, tolerance = self._settings.max_body_bytes, self._settings.signature_tolerance_seconds
        began = time.monotonic()
        with self._room.reserved() as reserve:
            try:
                source = sender(self._sources, name)
                raw = await receive_body(receive, request.length, limit, reserve)
                arrival = take(source, request, raw, time.time(), tolerance)
            except (Refused, BadPayload) as refused:
                if name in self._sources:
                    self._tally.refused(name, refused.reason)
                raise
            try:
                new = await self._group.record(arrival, STORE_SECONDS)
            except StoreUnavailable:
                self._tally.refused(name, "unavailable")
                raise
        seconds = time.monotonic() - began
        self._tally.acknowledged(seconds)
        event, theirs = arrival.event, request.headers.get("traceparent", "")
        traces.received(event.source, event.id, seconds, new=new, traceparent=theirs)


def _in_threads(pages: Flask, limit_bytes: int) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """a2wsgi, but a request gets a thread only with its whole body: one that comes slowly holds none."""

    def terminated(environ: Environ, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input_terminated"] = True  # type: ignore[typeddict-unknown-key]  # chunked bodies have an end too
        return pages(cast(dict[str, Any], environ), start_response)

    threads, room = WSGIMiddleware(terminated, workers=THREADS), Room(ROOM_BYTES)

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await threads(scope, receive, send)
            return
        with room.reserved() as reserve:
            try:
                raw = await receive_body(receive, _Request(scope).length, limit_bytes, reserve)
            except Refused as refused:
                for message in _refusal(refused):
                    await send(message)
                return

            async def whole() -> ReceiveEvent:
                return {"type": "http.request", "body": raw, "more_body": False}

            await threads(scope, whole, send)

    return asgi


async def _live(receive: Receive, send: Send) -> None:
    """https://asgi.readthedocs.io/en/latest/specs/lifespan.html"""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    traces.stop()
    await send({"type": "lifespan.shutdown.complete"})


class _Request:
    """What a delivery says beside its body."""

    def __init__(self, scope: HTTPScope) -> None:
        self.headers = _Headers(scope["headers"])
        self._query = scope["query_string"]

    @property
    def length(self) -> int:
        """As announced; 0 where it is not."""
        return int(self.headers.get("content-length", "0"))

    @property
    def args(self) -> Mapping[str, str]:
        return dict(parse_qsl(self._query.decode("latin-1")))


class _Headers:
    """A request's headers, found whatever their case."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._values = dict(pairs)  # ASGI has the names in lower case

    def get(self, name: str, default: str, /) -> str:
        value = self._values.get(name.lower().encode())
        return default if value is None else value.decode("latin-1")


def _refusal(error: Exception) -> Answer:
    status, words, headers = told(error)
    return _answer(status, json.dumps({"error": words}).encode(), headers)


def _source_name(scope: HTTPScope) -> str | None:
    """Whose webhook this is, or None for everything else."""
    if scope["method"] != "POST":
        return None
    path = scope["path"]
    return path.removeprefix(ANY_SOURCE) if path.startswith(ANY_SOURCE) else PATHS.get(path)
