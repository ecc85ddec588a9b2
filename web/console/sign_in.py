"""Console sessions: sign in with one of API_KEYS, for twelve hours.

The cookie is signed with a key derived from the API key that was entered, so every process accepts it, also after a
restart, and removing a key from API_KEYS ends its sessions immediately. The store holds only the sessions that a person
has ended (inbox/ended_sessions.py). A form token is an HMAC of the cookie, with another derived key.
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

from inbox.ended_sessions import EndedSessions
from inbox.store import Store
from settings import ApiKey, Settings
from tasks.derived_keys import derive_key
from web.auth import find_key, too_many_failures
from web.errors import HttpError

log = structlog.get_logger()

COOKIE = "holdfast_console"
SESSION_SECONDS = 12 * 3600


@dataclass(frozen=True, slots=True)
class Person:
    """The signed-in operator. `name` identifies the API key in the audit log, `session` the session in the store."""

    key: ApiKey
    session: str
    form_token: str

    @property
    def name(self) -> str:
        return self.key.name


def load_person(keys: Collection[ApiKey], ended: EndedSessions) -> bool:
    """Set `g.person` from the session cookie. False if there is no valid cookie of a current key, or it has signed out.

    Raises StoreUnavailable if it is not known whether it has.
    """
    person = _person(keys, request.cookies.get(COOKIE, ""))
    g.person = person if person and not ended.has(person.session) else None
    return g.person is not None


def has_session(keys: Collection[ApiKey], ended: EndedSessions, cookie: str) -> bool:
    """Whether this is the cookie of a session that has not ended, as far as this process knows; makes no query."""
    person = _person(keys, cookie)
    return person is not None and not ended.remembers(person.session)


def _person(keys: Collection[ApiKey], cookie: str) -> Person | None:
    for key in keys:
        try:
            secret = _signer(key).unsign(cookie, max_age=SESSION_SECONDS)
        except BadSignature:
            continue
        token = hmac.digest(derive_key(key.secret, "console form"), cookie.encode(), "sha256").hex()
        # Of the secret, not of the cookie: base64 can write one signature in several ways.
        return Person(key, hashlib.sha256(secret).hexdigest(), token)
    return None


def _signer(key: ApiKey) -> TimestampSigner:
    return TimestampSigner(
        derive_key(key.secret, "console session"), key_derivation="none", digest_method=hashlib.sha256
    )


def check_form() -> None:
    """Raises HttpError if the form comes from another site or has no valid token."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        raise HttpError("This form was sent from another site.", 403)
    person = g.get("person")
    if person and not compare_digest(request.form.get("form_token", "").encode(), person.form_token.encode()):
        raise HttpError("This form has expired. Go back, reload the page and try again.", 403)


def register(pages: Blueprint, settings: Settings, store: Store, ended: EndedSessions) -> None:
    """Sign in, sign out, and the template functions `form_token()` and `may(scope)`"""

    @pages.app_template_global()
    def form_token() -> Markup:
        return Markup('<input type="hidden" name="form_token" value="{}">').format(g.person.form_token)

    @pages.app_template_global()
    def may(scope: str) -> bool:
        return scope in g.person.key.scopes

    @pages.route("/sign-in", methods=["GET", "POST"], endpoint="sign_in")
    def sign_in() -> ResponseReturnValue:
        if request.method == "GET":
            return _form(settings, "", 200)
        key = find_key(settings.api_keys, request.form.get("key", "").strip().encode())
        if key is None and too_many_failures(store, str(request.remote_addr)):
            return _form(settings, "Too many wrong keys. Try again in a minute.", 429)
        if key is None:
            return _form(settings, "Wrong key. It must be one of API_KEYS.", 401)
        if "read" not in key.scopes:
            return _form(settings, "The console needs a key with the scope read.", 403)
        answer = redirect(console_url(request.form.get("next", "")))
        cookie = _signer(key).sign(secrets.token_hex(16)).decode()
        answer.set_cookie(COOKIE, cookie, SESSION_SECONDS, **_cookie_options())
        log.info("signed in", by=key.name)
        return answer

    @pages.post("/sign-out")
    def sign_out() -> ResponseReturnValue:
        ended.end(g.person.session, SESSION_SECONDS)
        log.info("signed out", by=g.person.name)
        answer = redirect(url_for("console.sign_in"))
        answer.delete_cookie(COOKIE, **_cookie_options())
        return answer


def _form(settings: Settings, error: str, status: int) -> ResponseReturnValue:
    next_url = request.values.get("next", "")
    return render_template("sign_in.html", error=error, next=next_url, closed=not settings.api_keys), status


def console_url(url: str) -> str:
    """`url` if it is a page of the console, otherwise the overview: no redirect leads to another site."""
    inside = url.startswith("/console/") and url.isprintable() and "\\" not in url
    return url if inside else url_for("console.overview")


def _cookie_options() -> dict[str, Any]:
    https = request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
    return {"path": "/console", "httponly": True, "samesite": "Strict", "secure": https}
