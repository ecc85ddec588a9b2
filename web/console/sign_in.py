"""Console sessions: sign in with one of API_KEYS, for twelve hours.

There is no session store. The cookie is signed with the API key that was entered, so every process accepts it, also
after a restart, and removing a key from API_KEYS ends its sessions immediately. A form token is an HMAC of the cookie
with the same key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

import structlog
from flask import Blueprint, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from itsdangerous import BadSignature, TimestampSigner
from markupsafe import Markup

from inbox.store import Store
from settings import Settings
from web.auth import find_key, key_name, too_many_failures
from web.errors import HttpError

log = structlog.get_logger()

COOKIE = "holdfast_console"
SESSION_SECONDS = 12 * 3600


@dataclass(frozen=True, slots=True)
class Person:
    """The signed-in operator. `name` identifies the API key in the audit log."""

    name: str
    form_token: str


def load_person(keys: Collection[str]) -> bool:
    """Set `g.person` from the session cookie. False if there is no valid cookie of a current key."""
    g.person = _person(keys, request.cookies.get(COOKIE, ""))
    return g.person is not None


def _person(keys: Collection[str], cookie: str) -> Person | None:
    for key in keys:
        try:
            _signer(key).unsign(cookie, max_age=SESSION_SECONDS)
        except BadSignature:
            continue
        token = hmac.digest(key.encode(), b"form " + cookie.encode(), "sha256").hex()
        return Person(key_name(key), token)
    return None


def _signer(key: str) -> TimestampSigner:
    return TimestampSigner(key, salt="holdfast console", key_derivation="hmac", digest_method=hashlib.sha256)


def check_form() -> None:
    """Raises HttpError if the form comes from another site or has no valid token."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise HttpError("This form was sent from another site.", 403)
    person = g.get("person")
    if person and not compare_digest(request.form.get("form_token", "").encode(), person.form_token.encode()):
        raise HttpError("This form has expired. Go back, reload the page and try again.", 403)


def register(pages: Blueprint, settings: Settings, store: Store) -> None:
    """Sign in, sign out, and the template function `form_token()`"""

    @pages.app_template_global()
    def form_token() -> Markup:
        return Markup('<input type="hidden" name="form_token" value="{}">').format(g.person.form_token)

    @pages.route("/sign-in", methods=["GET", "POST"], endpoint="sign_in")
    def sign_in() -> ResponseReturnValue:
        if request.method == "GET":
            return _form(settings, "", 200)
        key = find_key(settings.api_keys, request.form.get("key", "").strip().encode())
        if key is None and too_many_failures(store, str(request.remote_addr)):
            return _form(settings, "Too many wrong keys. Try again in a minute.", 429)
        if key is None:
            return _form(settings, "Wrong key. It must be one of API_KEYS.", 401)
        answer = redirect(console_url(request.form.get("next", "")))
        cookie = _signer(key).sign(secrets.token_hex(16)).decode()
        answer.set_cookie(COOKIE, cookie, SESSION_SECONDS, **_cookie_options())
        log.info("signed in", by=key_name(key))
        return answer

    @pages.post("/sign-out")
    def sign_out() -> ResponseReturnValue:
        answer = redirect(url_for("console.sign_in"))
        answer.delete_cookie(COOKIE, **_cookie_options())
        return answer


def _form(settings: Settings, error: str, status: int) -> ResponseReturnValue:
    next_url = request.values.get("next", "")
    return render_template("sign_in.html", error=error, next=next_url, closed=not settings.api_keys), status


def console_url(url: str) -> str:
    """`url` if it is a page of the console, otherwise the overview: no redirect leads to another site."""
    overview = url_for("console.overview")
    return url if url.startswith("/console/") and "\\" not in url else overview


def _cookie_options() -> dict[str, Any]:
    https = request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
    return {"path": "/console", "httponly": True, "samesite": "Strict", "secure": https}
