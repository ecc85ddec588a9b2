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

from web.body import BODY_TIMEOUT_SECONDS, TIMEOUT_MESSAGE, allowed_seconds
from web.errors import HttpError, error_response
from web.receiver.asgi import AsgiApp
from web.receiver.delivery import Delivery
from web.receiver.receiver import ACCEPTED
from web.responses import Response, json_response

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

log = structlog.get_logger()

MAX_NON_BODY_BYTES = 32 * 1024  # of a head, or of anything else that is not part of a body
MAX_HEADERS = 100
MAX_DISCARDED_BYTES = 16 * 1024 * 1024  # of a body, read after the response for clients that read it only then
TOO_LONG = f"more than {MAX_NON_BODY_BYTES} bytes that are not part of the body"
TOO_MANY_HEADERS = f"more than {MAX_HEADERS} headers"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE = b"connection: close\r\n\r\n"


class WebhookProtocol(HttpToolsProtocol):
    """One connection. uvicorn answers its requests in the order they arrived."""

    app: AsgiApp
    cycle: RequestResponseCycle | Delivery  # type: ignore[assignment]  # None before the first request

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receiving = self._in_head = self._upgrading = False  # of the newest request
        self._trusted = False
        self._non_body_left = self._discard_left = 0  # bytes that are still allowed
        self._read_bytes = 0  # in the last read
        self._incomplete_since = 0.0
        self.stalled_since: float | None = None
        self._deadline: asyncio.TimerHandle | None = None

    # --- called by asyncio -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app.connections.add(self)
        self.timeout_keep_alive_task = self.loop.call_later(BODY_TIMEOUT_SECONDS, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        for cycle in (self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, Delivery):
                cycle.connection_lost()
        self.pipeline.clear()
        self.app.connections.remove(self)
        self._unset_keepalive_if_required()
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._non_body_left -= len(data)
        self._read_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._ignore_upgrade(data[stop.args[0] :])
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _PipelineFull):
                self._ignore_further_requests()
            else:
                self._abort_request(*_parser_error(error))
        else:
            if self._receiving:
                self._limit_request()

    def pause_writing(self) -> None:
        self.stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stalled_since = None
        super().resume_writing()

    # --- called by the parser ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not self.app.connections.may_wait(self):
            raise _PipelineFull
        super().on_message_begin()
        self._receiving = self._in_head = True
        self._non_body_left, self._discard_left = MAX_NON_BODY_BYTES, MAX_DISCARDED_BYTES

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.headers) > MAX_HEADERS or self._read_bytes > MAX_NON_BODY_BYTES:
            self._limit_head()
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
            if not delivery.rejected:
                if self.expect_100_continue:
                    self.transport.write(CONTINUE)
                delivery.start()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((delivery, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        self._non_body_left = MAX_NON_BODY_BYTES
        cycle = self.cycle
        if not cycle.response_complete and isinstance(cycle, Delivery):
            cycle.add_chunk(body)
        elif not cycle.response_complete and self.app.pages.reads_body(self.scope):  # type: ignore[arg-type]
            super().on_body(body)
        else:
            self._discard(len(body))

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
        if cycle.rejected:
            self._start_rejected()
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
        end = b"\r\n" if delivery.keep_alive else CLOSE
        self.transport.write(b"".join((response.head, self._default_lines(), end, response.body)))
        if response is ACCEPTED and not self._trusted:
            self._trusted = True
            self.app.connections.trust(self)
        if delivery.body_complete and not delivery.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _default_lines(self) -> bytes:
        """The date; uvicorn makes a new list of it each second."""
        headers, lines = self.app.default_headers
        if headers is not self.server_state.default_headers:
            headers = self.server_state.default_headers
            lines = b"".join(b"%b: %b\r\n" % header for header in headers)
            self.app.default_headers = headers, lines
        return lines

    def _start_rejected(self) -> None:
        """What was rejected by its head is answered after the rest that arrived with it: if that is all of the request,
        the connection can be used again."""
        cycle = self.cycle
        if isinstance(cycle, Delivery) and cycle.rejected and not self.pipeline:
            cycle.start()

    def _start_asgi_task(self, cycle: RequestResponseCycle | Delivery, app: ASGI3Application) -> None:
        if self.pipeline:
            self.flow.pause_reading()  # uvicorn resumes it after each response
        if isinstance(cycle, Delivery):
            self.loop.call_soon(cycle.start)  # a direct call would recurse once per pipelined request
        else:
            super()._start_asgi_task(cycle, app)

    def _discard(self, size_bytes: int) -> None:
        self._discard_left -= size_bytes
        if self._discard_left < 0:
            self.transport.abort()

    # --- limits ------------------------------------------------------------------------------------------------------

    def _limit_request(self) -> None:
        """The request is not complete: limit what may still arrive, and for how long."""
        if self._non_body_left < 0:
            self._abort_request(431, TOO_LONG)
            return
        if self._in_head and len(self.headers) > MAX_HEADERS:
            self._abort_request(431, TOO_MANY_HEADERS)
            return
        self._start_rejected()
        if isinstance(self.cycle, Delivery):
            self.cycle.await_rest()
        if self._deadline is None:
            self._incomplete_since = self.loop.time()
            self._deadline = self.loop.call_later(allowed_seconds(0), self._time_out)

    def _limit_head(self) -> None:
        """For a head that arrived in one large read, perhaps with other bytes. Raises HttpError."""
        if len(self.headers) > MAX_HEADERS:
            raise HttpError(TOO_MANY_HEADERS, 431)
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_NON_BODY_BYTES:
            raise HttpError(TOO_LONG, 431)

    def _ignore_further_requests(self) -> None:
        """Those that wait are answered; then the connection is closed."""
        self.cycle.keep_alive = self._receiving = False
        self._cancel_deadline()
        self.parser = _IgnoringParser()  # type: ignore[assignment]

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        left = self._incomplete_since + self._allowed_seconds() - self.loop.time()
        self._deadline = self.loop.call_later(left, self._time_out) if left > 0 else None
        if self._deadline is not None:
            return
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        elif isinstance(self.cycle, Delivery):
            self._abort_request(408, TIMEOUT_MESSAGE)
        else:
            self._limit_request()  # web/body.py has the same limits for this body

    def _allowed_seconds(self) -> float:
        cycle = self.cycle
        if isinstance(cycle, Delivery) and not self._in_head and not cycle.rejected:
            return allowed_seconds(cycle.size)
        return BODY_TIMEOUT_SECONDS

    def _abort_request(self, status: int, message: str) -> None:
        """Answer with this error, if this request is the one to be answered next, and close the connection."""
        cycle, error = self.cycle, HttpError(message, status)
        if isinstance(cycle, Delivery) and not cycle.body_complete:
            cycle.reject(error)
            self._start_rejected()
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
    if isinstance(cause, HttpError):
        return cause.status, str(cause)
    if cause is None or isinstance(cause, httptools.HttpParserError | ValueError):
        return 400, "the request is malformed"
    log.error("unexpected error", error=type(cause).__name__, exc_info=cause)
    return 500, "an unexpected error; it has been logged"


class _PipelineFull(Exception):
    """Too many requests wait for earlier ones of their connection."""


class _IgnoringParser:
    """Takes the place of a connection's parser when nothing more of it is answered."""

    def feed_data(self, data: bytes) -> None:
        pass
