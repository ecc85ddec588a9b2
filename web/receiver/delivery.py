"""One webhook request, handled inside the event loop: no thread, no task, no timer of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol
from urllib.parse import parse_qsl

from inbox.errors import StoreUnavailable
from inbox.event import Event
from web.body import too_large
from web.errors import HttpError
from web.receiver.receiver import Receiver
from web.receiver.sources import Source
from web.responses import Response

RawHeaders = Sequence[tuple[bytes, bytes]]


class Connection(Protocol):
    """The connection that a delivery arrived on."""

    def reply(self, delivery: Delivery, response: Response) -> None: ...


class Delivery:
    """A delivery is answered when its body is complete and all earlier requests of its connection are answered.

    It stands in for uvicorn's RequestResponseCycle in uvicorn's protocol: hence `keep_alive`, `disconnected`,
    `response_complete` and `message_event`.
    """

    message_event = asyncio.Event()  # uvicorn sets it; nothing waits for it

    def __init__(
        self,
        receiver: Receiver,
        source: Source,
        connection: Connection,
        headers: RawHeaders,
        query: bytes,
        *,
        keep_alive: bool,
    ) -> None:
        self.headers = Headers(headers)
        self.keep_alive = keep_alive
        self.body_complete = self.disconnected = self.response_complete = False
        self._receiver, self._source, self._connection, self._query = receiver, source, connection, query
        self._body: bytes | bytearray = b""
        self.size = 0  # bytes of the body that have arrived
        self._started = self._awaited = False
        self._rejection: Response | None = None
        self.rejected = False
        self._received_at = time.monotonic()
        try:
            if self.headers.content_length() > receiver.limit_bytes:
                raise too_large(receiver.limit_bytes)
            self._check = receiver.check_head(source, self)
        except HttpError as error:
            self._rejection, self.rejected = receiver.reject(source, error), True

    @property
    def args(self) -> Mapping[str, str]:
        return dict(parse_qsl(self._query.decode("latin-1")))

    def start(self) -> None:
        """Earlier pipelined requests are answered; process this one. May be called again."""
        self._started = True
        self._advance()

    def add_chunk(self, data: bytes) -> None:
        """A part of the body arrived."""
        if self._rejection is not None:
            return
        try:
            self._receiver.body_budget.reserve(self, len(data))
        except HttpError as error:
            self.reject(error)
            return
        if self.size == 0:
            self._body = data
        else:  # no list of chunks: a tiny one would take fifty times the memory that it is counted with
            self._body = self._body if isinstance(self._body, bytearray) else bytearray(self._body)
            self._body += data
        self.size += len(data)
        if self.size > self._receiver.limit_bytes:
            self.reject(too_large(self._receiver.limit_bytes))

    def await_rest(self) -> None:
        """More of its body is to come later."""
        if self.size and not self._awaited and not self.body_complete:
            self._awaited = True
            self._receiver.body_budget.await_rest(self)

    def end_body(self) -> None:
        """The body is complete."""
        self.body_complete = True
        if self._awaited:
            self._receiver.body_budget.complete(self)
        self._advance()

    def reject(self, error: Exception) -> None:
        """Answer with this error when it is this request's turn, whatever arrives later. The first one counts."""
        if self._rejection is None:
            self._rejection, self.rejected = self._receiver.reject(self._source, error), True
        self._free_body()
        self._advance()

    def connection_lost(self) -> None:
        """What is being recorded is recorded all the same."""
        self.disconnected = True
        if not self.body_complete and self._rejection is None:
            self._receiver.count_incomplete(self._source)
        self._free_body()

    def _advance(self) -> None:
        if not self._started or self.response_complete or self.disconnected:
            return
        if self._rejection is not None:
            self._reply(self._rejection)
        elif self.body_complete:
            self._record()

    def _record(self) -> None:
        try:
            arrival = self._receiver.verify(self._source, self, self._check, bytes(self._body))
        except Exception as error:
            self.reject(error)
            return
        self._receiver.record(arrival).add_done_callback(partial(self._recorded, arrival.event))

    def _recorded(self, event: Event, outcome: asyncio.Future[bool]) -> None:
        try:
            new = outcome.result()
        except StoreUnavailable as error:
            self.reject(error)
            return
        self._reply(self._receiver.acknowledge(event, self, time.monotonic() - self._received_at, new=new))

    def _reply(self, response: Response) -> None:
        self._free_body()
        self.response_complete = True
        if not self.disconnected:
            self._connection.reply(self, response)

    def _free_body(self) -> None:
        self._receiver.body_budget.release(self, self.size)
        self.size = 0
        self._body = b""


class Headers:
    """The headers of a request by name, in any case."""

    def __init__(self, pairs: RawHeaders) -> None:
        self._values = dict(pairs)  # ASGI servers give the names in lower case

    def content_length(self) -> int:
        """In bytes; 0 if it is not declared."""
        return int(self._values.get(b"content-length", 0))

    def get(self, name: str, default: str, /) -> str:
        value = self._values.get(name.lower().encode())
        return default if value is None else value.decode("latin-1")
