"""A webhook on its way through the event loop, from its head to its answer: no thread, no task, no timer of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl

from inbox.errors import StoreUnavailable
from inbox.event import Event
from inbox.recorder import Recorder
from inbox.store import Store
from settings import Settings
from telemetry import tracing
from web.body import BUDGET_BYTES, BodyBudget, too_large
from web.errors import HttpError, error_response
from web.receiver.counters import BufferedCounters
from web.receiver.group_commit import GroupCommit
from web.receiver.sources import Source
from web.receiver.view import ANY_SOURCE, OK, PATHS, take

Pairs = Sequence[tuple[bytes, bytes]]


class RawResponse(NamedTuple):
    """What goes on the wire, but for the headers that every answer has. `head` ends with a line break."""

    head: bytes
    body: bytes


def json_response(status: int, body: bytes, headers: Mapping[str, str]) -> RawResponse:
    """An answer in JSON."""
    pairs = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in pairs.items())]
    return RawResponse("".join(f"{line}\r\n" for line in lines).encode(), body)


ACCEPTED = json_response(200, OK, {})


class Receiver:
    """What the deliveries of a process have in common. `addresses` are those of the sources that are configured."""

    def __init__(self, settings: Settings, sources: Mapping[str, Source], store: Store, recorder: Recorder) -> None:
        self.limit_bytes, self.tolerance_seconds = settings.max_body_bytes, settings.signature_tolerance_seconds
        self.group_commit, self.counters = GroupCommit(recorder), BufferedCounters(store)
        self.body_budget = BodyBudget(BUDGET_BYTES)
        by_name = {f"{ANY_SOURCE}{name}": source for name, source in sources.items()}
        own = {path: sources[name] for path, name in PATHS.items() if name in sources}
        self.addresses = {path.encode(): source for path, source in (by_name | own).items()}


class Connection(Protocol):
    """The connection that a delivery came by."""

    def reply(self, delivery: Delivery, response: RawResponse) -> None: ...


class Delivery:
    """One of them. It is answered when it is `whole` and in its turn: when no earlier request of its connection waits.

    For uvicorn, whose protocol it runs in, it is a RequestResponseCycle: hence `keep_alive`, `disconnected`,
    `response_complete` and `message_event`.
    """

    message_event = asyncio.Event()  # uvicorn sets it; nobody waits for it

    def __init__(
        self, receiver: Receiver, source: Source, sender: Connection, headers: Pairs, query: bytes, *, keep_alive: bool
    ) -> None:
        self.headers = Headers(headers)
        self.keep_alive = keep_alive
        self.whole = self.disconnected = self.response_complete = False
        self._receiver, self._source, self._sender, self._query = receiver, source, sender, query
        self._parts: list[bytes] = []
        self._size = 0
        self._turn = False
        self._refusal: RawResponse | None = None
        self._began = time.monotonic()
        if int(self.headers.get("content-length", "0")) > receiver.limit_bytes:
            self.refuse(too_large(receiver.limit_bytes))

    @property
    def refused(self) -> bool:
        return self._refusal is not None

    @property
    def args(self) -> Mapping[str, str]:
        return dict(parse_qsl(self._query.decode("latin-1")))

    def begin(self) -> None:
        """Its turn has come."""
        self._turn = True
        self._go_on()

    def part(self, data: bytes) -> None:
        """More of its body."""
        if self._refusal is not None:
            return
        try:
            self._receiver.body_budget.reserve(len(data))
        except HttpError as refused:
            self.refuse(refused)
            return
        self._size += len(data)
        self._parts.append(data)
        if self._size > self._receiver.limit_bytes:
            self.refuse(too_large(self._receiver.limit_bytes))

    def end(self) -> None:
        """Its body has come."""
        self.whole = True
        self._go_on()

    def refuse(self, error: Exception) -> None:
        """Answer with this error, in its turn, whatever else may come."""
        reason = "unavailable" if isinstance(error, StoreUnavailable) else getattr(error, "reason", "")
        if reason:
            self._receiver.counters.count_rejection(self._source.name, reason)
        self._refusal = json_response(*error_response(error))
        self._go_on()

    def gone(self) -> None:
        """Its connection is lost. What is being recorded is recorded."""
        self.disconnected = True
        if not self.whole and self._refusal is None:
            self._receiver.counters.count_rejection(self._source.name, "body")
        self._free()

    def _go_on(self) -> None:
        if not self._turn or self.response_complete or self.disconnected:
            return
        if self._refusal is not None:
            self._reply(self._refusal)
        elif self.whole:
            self._record()

    def _record(self) -> None:
        """The third and the fourth step of web/receiver/view.py, in one round trip with whatever else arrives now."""
        receiver = self._receiver
        try:
            arrival = take(self._source, self, b"".join(self._parts), time.time(), receiver.tolerance_seconds)
        except Exception as error:
            self.refuse(error)
            return
        receiver.group_commit.record(arrival).add_done_callback(partial(self._recorded, arrival.event))

    def _recorded(self, event: Event, outcome: asyncio.Future[bool]) -> None:
        try:
            new = outcome.result()
        except StoreUnavailable as error:
            self.refuse(error)
            return
        seconds = time.monotonic() - self._began
        self._receiver.counters.count_ack(seconds)
        theirs = self.headers.get("traceparent", "")
        tracing.record_delivery(event.source, event.id, seconds, new=new, traceparent=theirs)
        self._reply(ACCEPTED)

    def _reply(self, response: RawResponse) -> None:
        self._free()
        self.response_complete = True
        if not self.disconnected:
            self._sender.reply(self, response)

    def _free(self) -> None:
        self._receiver.body_budget.release(self._size)
        self._size = 0
        self._parts.clear()


class Headers:
    """A request's headers, found whatever their case."""

    def __init__(self, pairs: Pairs) -> None:
        self._values = dict(pairs)  # uvicorn has the names in lower case

    def get(self, name: str, default: str, /) -> str:
        value = self._values.get(name.lower().encode())
        return default if value is None else value.decode("latin-1")
