"""Who is at the console: signed in with one of API_KEYS, for a working day.

There is no session store. The cookie is signed with the key that opened it, so that every process and every restart
agrees, and a key that is taken out of API_KEYS ends its sessions at once. A form's token is an HMAC of the cookie under
the same key.
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
from web.auth import matching, too_often, who
from web.errors import Refused

log = structlog.get_logger()

COOKIE = "holdfast_console"
SESSION_SECONDS = 12 * 3600


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in. `name` is what the audit trail shows."""

    name: str
    form_token: str


def recognised(keys: Collection[str]) -> bool:
    """True if the request's cookie was issued for a key that holds still; then `g.person` says who it is."""
    g.person = _person(keys, request.cookies.get(COOKIE, ""))
    return g.person is not None


def _person(keys: Collection[str], cookie: str) -> Person | None:
    for key in keys:
        try:
            _signer(key).unsign(cookie, max_age=SESSION_SECONDS)
        except BadSignature:
            continue
        token = hmac.digest(key.encode(), b"form " + cookie.encode(), "sha256").hex()
        return Person(who(key), token)
    return None


def _signer(key: str) -> TimestampSigner:
    return TimestampSigner(key, salt="holdfast console", key_derivation="hmac", digest_method=hashlib.sha256)


def check_form() -> None:
    """Raises Refused unless this form is one of ours, sent from a page of ours."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise Refused("This form was sent from another site.", 403)
    person = g.get("person")
    if person and not compare_digest(request.form.get("form_token", "").encode(), person.form_token.encode()):
        raise Refused("This form is too old. Go back, load the page again, and try once more.", 403)


def register(pages: Blueprint, settings: Settings, store: Store) -> None:
    """The way in, the way out, and `form_token()` for each form."""

    @pages.app_template_global()
    def form_token() -> Markup:
        return Markup('<input type="hidden" name="form_token" value="{}">').format(g.person.form_token)

    @pages.route("/sign-in", methods=["GET", "POST"], endpoint="sign_in")
    def sign_in() -> ResponseReturnValue:
        if request.method == "GET":
            return _form(settings, "", 200)
        key = matching(settings.api_keys, request.form.get("key", "").strip().encode())
        if key is None and too_often(store, str(request.remote_addr)):
            return _form(settings, "Too many tries. Wait a minute.", 429)
        if key is None:
            return _form(settings, "That is none of API_KEYS.", 401)
        answer = redirect(inside(request.form.get("next", "")))
        cookie = _signer(key).sign(secrets.token_hex(16)).decode()
        answer.set_cookie(COOKIE, cookie, SESSION_SECONDS, **_cookie_rules())
        log.info("signed in", by=who(key))
        return answer

    @pages.post("/sign-out")
    def sign_out() -> ResponseReturnValue:
        answer = redirect(url_for("console.sign_in"))
        answer.delete_cookie(COOKIE, **_cookie_rules())
        return answer


def _form(settings: Settings, words: str, status: int) -> ResponseReturnValue:
    there = request.values.get("next", "")
    return render_template("sign_in.html", words=words, next=there, closed=not settings.api_keys), status


def inside(there: str) -> str:
    """Where to go after signing in: a page of the console, never another site."""
    overview = url_for("console.overview")
    return there if there.startswith("/console/") and "\\" not in there else overview


def _cookie_rules() -> dict[str, Any]:
    https = request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
    return {"path": "/console", "httponly": True, "samesite": "Strict", "secure": https}
