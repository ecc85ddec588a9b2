"""A connection: uvicorn's, which takes webhooks past ASGI, and bounds what uvicorn does not.

It goes into the insides of uvicorn's HttpToolsProtocol, as of the version that pyproject.toml names.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from web.body import BODY_TIMEOUT_SECONDS, TIMEOUT_MESSAGE
from web.errors import HttpError, error_response
from web.receiver.asgi import AsgiApp
from web.receiver.delivery import Delivery, RawResponse, json_response

log = structlog.get_logger()

MAX_CONNECTIONS = 4096  # connections of a process; who comes beyond them is cut off, and tries again
MAX_NON_BODY_BYTES = 64 * 1024  # of a head, or of whatever else that is no body
MAX_DISCARDED_BYTES = 16 * 1024 * 1024  # read of a body after its answer, for a sender who listens only then
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"connection: close\r\n\r\n"


class WebhookProtocol(HttpToolsProtocol):
    """One of a process. Its requests are answered in the order they came in, as uvicorn sees to it."""

    app: AsgiApp
    cycle: RequestResponseCycle | Delivery  # type: ignore[assignment]  # None before the first

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._coming = self._in_head = self._upgrading = False  # of the request that came last
        self._spare = self._left = 0  # bytes that may come
        self._late: asyncio.TimerHandle | None = None

    # --- what asyncio tells ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        self.timeout_keep_alive_task = self.loop.call_later(BODY_TIMEOUT_SECONDS, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, Delivery):
                cycle.gone()
        self._unset_keepalive_if_required()
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._spare -= len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._ignore_upgrade(data[stop.args[0] :])
        except httptools.HttpParserError as error:
            self._cut_off(*_wrong(error))
        else:
            if self._coming:
                self._bound()

    # --- what the parser tells ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._coming = self._in_head = True
        self._spare, self._left = MAX_NON_BODY_BYTES, MAX_DISCARDED_BYTES

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._upgrading = self.parser.should_upgrade()
        if self._upgrading:
            return
        address, _, query = self.url.partition(b"?")
        source = self.app.receiver.addresses.get(address)
        if source is None or self.parser.get_method() != b"POST":
            super().on_headers_complete()
            return
        keep_alive = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        earlier = self.cycle
        self.cycle = delivery = Delivery(self.app.receiver, source, self, self.headers, query, keep_alive=keep_alive)
        if earlier is None or earlier.response_complete:
            if self.expect_100_continue and not delivery.refused:
                self.transport.write(CONTINUE)
            delivery.begin()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((delivery, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        self._spare = MAX_NON_BODY_BYTES
        cycle = self.cycle
        if cycle.response_complete:
            self._left -= len(body)
            if self._left < 0:
                self.transport.abort()
        elif isinstance(cycle, Delivery):
            cycle.part(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._coming = False
        self._in_time()
        cycle = self.cycle
        if not isinstance(cycle, Delivery):
            super().on_message_complete()
            return
        cycle.end()
        if cycle.response_complete and not cycle.keep_alive:  # it was refused before it was whole
            self.transport.close()

    # --- what a delivery and uvicorn ask -----------------------------------------------------------------------------

    def reply(self, delivery: Delivery, response: RawResponse) -> None:
        """Answer it. Its connection is closed after it where it must be; where it was refused before it was whole,
        once the rest has come: until then its sender may not listen, and a closed connection may cost it the answer."""
        if self.flow.write_paused:
            self.transport.abort()  # its sender does not listen at all
        if self.transport.is_closing():
            return
        delivery.keep_alive = delivery.keep_alive and delivery.whole
        date = [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        close = b"\r\n" if delivery.keep_alive else CLOSE
        self.transport.write(b"".join((response.head, *date, close, response.body)))
        if delivery.whole and not delivery.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle | Delivery, app: ASGI3Application) -> None:
        if isinstance(cycle, Delivery):
            self.loop.call_soon(cycle.begin)  # at once, a long pipeline would be a deep recursion
        else:
            super()._start_asgi_task(cycle, app)

    # --- bounds ------------------------------------------------------------------------------------------------------

    def _bound(self) -> None:
        """What is still coming may not come forever."""
        if self._spare < 0:
            self._cut_off(431, f"more than {MAX_NON_BODY_BYTES} bytes that are no body")
        elif self._late is None:
            self._late = self.loop.call_later(BODY_TIMEOUT_SECONDS, self._too_slow)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_slow(self) -> None:
        self._late = None
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        elif isinstance(self.cycle, Delivery):
            self._cut_off(408, TIMEOUT_MESSAGE)
        else:
            self._bound()  # web/body.py waits for it no longer than we do

    def _cut_off(self, status: int, words: str) -> None:
        """Say why, to whoever waits for an answer to just this, and close the connection."""
        cycle, refused = self.cycle, HttpError(words, status)
        if isinstance(cycle, Delivery) and not cycle.whole:
            cycle.refuse(refused)
        elif cycle is None or cycle.response_complete:
            head, body = json_response(*error_response(refused))
            self.transport.write(head + CLOSE + body)
        self.transport.close()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """As RFC 9110, section 7.8, allows. The parser stops at one, so another gets the head without it."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._cut_off(400, "this is no proxy")
            return
        kept = [b"%b: %b" % header for header in self.headers if header[0] not in (b"upgrade", b"connection")]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([b"%b %b HTTP/1.1" % (method, self.url), *kept, b"", rest]))


def _wrong(error: httptools.HttpParserError) -> tuple[int, str]:
    """Status and words for what the parser did not like, or what we threw while it called us."""
    thrown = error.__context__
    if thrown is None or isinstance(thrown, httptools.HttpParserError | ValueError):
        return 400, "the request is malformed"
    log.error("unexpected error", error=type(thrown).__name__, exc_info=thrown)
    return 500, "an unexpected error; it has been logged"
