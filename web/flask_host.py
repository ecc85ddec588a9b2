"""Flask behind ASGI: a request gets a thread only after its whole body has arrived, so a slow body occupies none.

The body of a file is sent after the thread has been given back (web/downloads.py).

Requests of strangers, with neither an API key nor the cookie of a console session, have a few threads and a little
memory of their own, and links to documents again a few: however many there are, requests with a key are served. Of
the bodies of strangers only the sign-in form is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from a2wsgi import WSGIMiddleware
from a2wsgi.asgi_typing import HTTPScope, Receive, ReceiveEvent, Send, SendEvent
from a2wsgi.wsgi_typing import Environ
from flask import Flask
from werkzeug.wsgi import FileWrapper

from tasks import signed_link
from web.body import BUDGET_BYTES, AsgiBody, BodyBudget
from web.downloads import CHUNK_BYTES, Downloads, Reader
from web.errors import HttpError, error_response
from web.responses import json_response, send_response

KNOWN_THREADS, STRANGERS_THREADS = 24, 4  # the fewer threads strangers have, the sooner the event loop runs
MAX_STRANGERS = 128  # of their requests at once; further ones get a 503. Links have as many threads and places again
KNOWN, READER, FILE = "holdfast.known", "holdfast.reader", "holdfast.file"  # in the ASGI scope
FORM_BYTES, FORM_BUDGET_BYTES = 16 * 1024, 1024 * 1024  # of one sign-in form, and of all at once


class FlaskHost:
    """`is_known` says whether a request has an API key or a session; `form_path` is where strangers may send a form."""

    def __init__(self, app: Flask, limit_bytes: int, is_known: Callable[[HTTPScope], bool], form_path: str) -> None:
        self._is_known, self._form_path, self._limit_bytes = is_known, form_path, limit_bytes
        self._known = WSGIMiddleware(_wsgi(app), workers=KNOWN_THREADS)
        self._strangers, self._links = _Strangers(app), _Strangers(app)  # a store of documents may keep links waiting
        self._budget, self._form_budget = BodyBudget(BUDGET_BYTES), BodyBudget(FORM_BUDGET_BYTES)
        self._downloads = Downloads()

    def reads_body(self, scope: HTTPScope) -> bool:
        """Whether the body of this request is read."""
        return scope["path"] == self._form_path or self._knows(scope)

    def _knows(self, scope: Any) -> bool:
        """Decided once for each request, however many parts its body has."""
        if KNOWN not in scope:
            scope[KNOWN] = self._is_known(scope)
        return bool(scope[KNOWN])

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        answer = _Answer(scope, send, self._downloads)
        try:
            if self._knows(scope):
                await self._serve(self._known, AsgiBody(self._budget, self._limit_bytes), scope, receive, answer.send)
            elif scope["path"] == self._form_path:
                form = AsgiBody(self._form_budget, FORM_BYTES)
                await self._serve(self._strangers, form, scope, receive, answer.send)
            else:
                strangers = self._links if scope["path"].startswith(signed_link.PATH) else self._strangers
                await strangers(scope, _receive_all(b""), answer.send)
            await answer.send_file(receive)
        except HttpError as error:
            await send_response(send, json_response(*error_response(error)))
        finally:
            answer.close()

    async def _serve(self, serve: Any, body: AsgiBody, scope: HTTPScope, receive: Receive, send: Send) -> None:
        try:
            raw = await body.receive(receive, _content_length(scope))
            await serve(scope, _receive_all(raw), send)
        finally:
            body.release()


class _Strangers:
    """Threads for strangers, and places for the requests that wait for one."""

    def __init__(self, app: Flask) -> None:
        self._threads, self._now = WSGIMiddleware(_wsgi(app), workers=STRANGERS_THREADS), 0

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """A place is taken until Flask has answered: a client that does not read the answer must not keep it."""
        if self._now >= MAX_STRANGERS:
            raise HttpError("too many requests at once; try again", 503)
        self._now += 1
        waiting = True

        def leave() -> None:
            nonlocal waiting
            self._now -= waiting
            waiting = False

        async def send_and_leave(message: SendEvent) -> None:
            leave()
            await send(message)

        try:
            await self._threads(scope, receive, send_and_leave)
        finally:
            leave()


def mark_as_file(environ: Mapping[str, Any], reader: Reader) -> None:
    """Called by a view: its response is a file for this reader. Without a FlaskHost, Flask sends it as any other."""
    environ.get("asgi.scope", {})[READER] = reader


class _Answer:
    """Passes on what Flask sends, except for the body of a file, which it keeps for `send_file`."""

    def __init__(self, scope: HTTPScope, send: Send, downloads: Downloads) -> None:
        self._scope: Any = scope
        self._send, self._downloads = send, downloads
        self._reader: Reader | None = None

    async def send(self, message: SendEvent) -> None:
        if READER not in self._scope:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self._downloads.begin(self._scope[READER])
            self._reader = self._scope[READER]
            await self._send(message)

    async def send_file(self, receive: Receive) -> None:
        if self._reader:
            await self._downloads.send(self._scope[FILE], receive, self._send)

    def close(self) -> None:
        if self._reader:
            self._downloads.end(self._reader)
        getattr(self._scope.get(FILE), "close", lambda: None)()


def _wsgi(app: Flask) -> Callable[[Environ, Any], Iterable[bytes]]:
    def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input_terminated"] = True  # also for chunked bodies
        environ["wsgi.file_wrapper"] = lambda file, _: FileWrapper(file, CHUNK_BYTES)
        body = app(environ, start_response)
        if READER not in environ["asgi.scope"]:
            return body
        environ["asgi.scope"][FILE] = body
        return ()

    return wsgi_app


def _receive_all(raw: bytes) -> Receive:
    async def receive() -> ReceiveEvent:
        return {"type": "http.request", "body": raw, "more_body": False}

    return receive


def _content_length(scope: HTTPScope) -> int:
    """0 if the request does not declare one."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
