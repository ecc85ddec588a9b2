"""The fast path: uvicorn's HTTP protocol, which handles webhooks before ASGI and bounds what uvicorn does not bound.

It overrides private parts of uvicorn's HttpToolsProtocol, of the versions in telemetry/tested_versions.py. With any
other version `python -m web` serves the plain ASGI application of web/receiver/asgi.py instead.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from web.body import BODY_TIMEOUT_SECONDS, TIMEOUT_MESSAGE
from web.errors import HttpError, error_response
from web.receiver.asgi import MAX_CONNECTIONS, AsgiApp
from web.receiver.delivery import Delivery
from web.receiver.receiver import Response, json_response

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

log = structlog.get_logger()

MAX_NON_BODY_BYTES = 64 * 1024  # of a head, or of anything else that is not part of a body
MAX_DISCARDED_BYTES = 16 * 1024 * 1024  # of a body, read after the response for clients that read it only then
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"connection: close\r\n\r\n"


class WebhookProtocol(HttpToolsProtocol):
    """One connection. uvicorn answers its requests in the order they arrived."""

    app: AsgiApp
    cycle: RequestResponseCycle | Delivery  # type: ignore[assignment]  # None before the first request

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receiving = self._in_head = self._upgrading = False  # of the newest request
        self._non_body_left = self._discard_left = 0  # bytes that are still allowed
        self._deadline: asyncio.TimerHandle | None = None

    # --- called by asyncio -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        self.timeout_keep_alive_task = self.loop.call_later(BODY_TIMEOUT_SECONDS, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, Delivery):
                cycle.connection_lost()
        self._unset_keepalive_if_required()
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._non_body_left -= len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._ignore_upgrade(data[stop.args[0] :])
        except httptools.HttpParserError as error:
            self._abort_request(*_parser_error(error))
        else:
            if self._receiving:
                self._limit_request()

    # --- called by the parser ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._receiving = self._in_head = True
        self._non_body_left, self._discard_left = MAX_NON_BODY_BYTES, MAX_DISCARDED_BYTES

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._upgrading = self.parser.should_upgrade()
        if self._upgrading:
            return
        path, _, query = self.url.partition(b"?")
        source = self.app.receiver.sources_by_path.get(path)
        if source is None or self.parser.get_method() != b"POST":
            super().on_headers_complete()
            return
        keep_alive = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        earlier = self.cycle
        self.cycle = delivery = Delivery(self.app.receiver, source, self, self.headers, query, keep_alive=keep_alive)
        if earlier is None or earlier.response_complete:
            if self.expect_100_continue and not delivery.rejected:
                self.transport.write(CONTINUE)
            delivery.start()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((delivery, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        self._non_body_left = MAX_NON_BODY_BYTES
        cycle = self.cycle
        if cycle.response_complete:
            self._discard_left -= len(body)
            if self._discard_left < 0:
                self.transport.abort()
        elif isinstance(cycle, Delivery):
            cycle.add_chunk(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        self._receiving = False
        self._cancel_deadline()
        cycle = self.cycle
        if not isinstance(cycle, Delivery):
            super().on_message_complete()
            return
        cycle.end_body()
        if cycle.response_complete and not cycle.keep_alive:  # it was rejected before its body was complete
            self.transport.close()

    # --- called by a delivery and by uvicorn -------------------------------------------------------------------------

    def reply(self, delivery: Delivery, response: Response) -> None:
        """Send the response. A connection that must be closed is closed after it; but if the body is not complete, only
        after the rest of it: a client may read the response only then, and closing earlier may cost it the response."""
        if self.flow.write_paused:
            self.transport.abort()  # the client does not read its responses
        if self.transport.is_closing():
            return
        delivery.keep_alive = delivery.keep_alive and delivery.body_complete
        date = [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        end = b"\r\n" if delivery.keep_alive else CLOSE
        self.transport.write(b"".join((response.head, *date, end, response.body)))
        if delivery.body_complete and not delivery.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle | Delivery, app: ASGI3Application) -> None:
        if isinstance(cycle, Delivery):
            self.loop.call_soon(cycle.start)  # a direct call would recurse once per pipelined request
        else:
            super()._start_asgi_task(cycle, app)

    # --- limits ------------------------------------------------------------------------------------------------------

    def _limit_request(self) -> None:
        """The request is not complete: limit what may still arrive, and for how long."""
        if self._non_body_left < 0:
            self._abort_request(431, f"more than {MAX_NON_BODY_BYTES} bytes that are not part of the body")
        elif self._deadline is None:
            self._deadline = self.loop.call_later(BODY_TIMEOUT_SECONDS, self._time_out)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        self._deadline = None
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        elif isinstance(self.cycle, Delivery):
            self._abort_request(408, TIMEOUT_MESSAGE)
        else:
            self._limit_request()  # web/body.py has the same timeout for this body

    def _abort_request(self, status: int, message: str) -> None:
        """Answer with this error, if this request is the one to be answered next, and close the connection."""
        cycle, error = self.cycle, HttpError(message, status)
        if isinstance(cycle, Delivery) and not cycle.body_complete:
            cycle.reject(error)
        elif cycle is None or cycle.response_complete:
            response = json_response(*error_response(error))
            self.transport.write(response.head + CLOSE + response.body)
        self.transport.close()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """As RFC 9110, section 7.8, allows. The parser stops at an upgrade, so a new one gets the head without it."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._abort_request(400, "this server is not a proxy")
            return
        kept = [b"%b: %b" % header for header in self.headers if header[0] not in (b"upgrade", b"connection")]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([b"%b %b HTTP/1.1" % (method, self.url), *kept, b"", rest]))


def _parser_error(error: httptools.HttpParserError) -> tuple[int, str]:
    """Status and message for what the parser rejected, or for an error of ours that it passed on."""
    cause = error.__context__
    if cause is None or isinstance(cause, httptools.HttpParserError | ValueError):
        return 400, "the request is malformed"
    log.error("unexpected error", error=type(cause).__name__, exc_info=cause)
    return 500, "an unexpected error; it has been logged"
