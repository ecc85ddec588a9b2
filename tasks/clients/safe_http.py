"""HTTP to addresses that others have given us: download URLs, agents' URLs.

Such an address may point at our own network. So: https only; no private, loopback, link-local or metadata address,
checked on the very address that is connected to (no second look-up that could answer otherwise), at every redirect.
Hosts in CALL_OUT_ALLOWED_HOSTS ("host" or "host:port") are trusted: they may be http and private.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
import urllib3
from requests_hardened import Config, HTTPSession
from requests_hardened.ip_filter import InvalidIPAddress

from inbox.errors import PermanentError, TransientError
from settings import Settings

TIMEOUT_SECONDS = (5.0, 20.0)  # to connect, between two reads
CHUNK_BYTES = 1024 * 1024
MOST_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose body has not been read yet."""

    status: int
    headers: Mapping[str, str]
    _response: requests.Response
    _parts: SplitResult

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, at most CHUNK_BYTES at a time. Raises TransientError if it breaks off."""
        with _named_errors(self._parts):
            while chunk := self._response.raw.read1(CHUNK_BYTES, decode_content=True):
                yield chunk


@contextmanager
def get_stream(url: str, settings: Settings, bearer: str = "", bearer_for: str = "") -> Iterator[Stream]:
    """GET, following redirects. `bearer` goes only to the scheme, host and port of the URL `bearer_for`.

    Raises TransientError if nobody answers, PermanentError for an address we do not call. Any status is returned.
    """
    for _ in range(MOST_REDIRECTS + 1):
        parts = _checked(url, settings)
        headers = {"Accept-Encoding": "identity"}
        if bearer and _origin(parts) == _origin(urlsplit(bearer_for)):
            headers["Authorization"] = f"Bearer {bearer}"
        with _session(parts, settings) as session, _request(session, "GET", url, headers) as response:
            if response.status_code not in REDIRECTS or "Location" not in response.headers:
                yield Stream(response.status_code, response.headers, response, parts)
                return
            url = urljoin(url, response.headers["Location"])
    raise PermanentError(f"{_checked(url, settings).hostname} redirects too often")


def post_json(
    url: str, body: bytes, settings: Settings, headers: Mapping[str, str], *, trusted: bool = False
) -> requests.Response:
    """POST JSON; redirects are not followed. Errors as get_stream; any status is returned, the answer's body unread.

    A `trusted` URL is our user's own: it may be http and private.
    """
    parts = _checked(url, settings, trusted=trusted)
    sent = {"Content-Type": "application/json", **headers}
    with _session(parts, settings, trusted=trusted) as session, _request(session, "POST", url, sent, body) as answer:
        return answer


def _request(
    session: requests.Session, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
) -> requests.Response:
    with _named_errors(urlsplit(url)):
        return session.request(
            method, url, data=body, headers=headers, stream=True, timeout=TIMEOUT_SECONDS, allow_redirects=False
        )


@contextmanager
def _named_errors(parts: SplitResult) -> Iterator[None]:
    """Our errors in place of the library's, which quote whole URLs with their signatures and tokens."""
    try:
        yield
    except InvalidIPAddress:
        raise PermanentError(f"{parts.hostname} has a private address; CALL_OUT_ALLOWED_HOSTS can allow it") from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, UnicodeError):
        raise PermanentError("the URL cannot be read") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise TransientError(f"{parts.hostname} did not answer ({type(error).__name__})") from None


def _checked(url: str, settings: Settings, *, trusted: bool = False) -> SplitResult:
    try:
        parts = urlsplit(url)
        _origin(parts)
    except ValueError:
        raise PermanentError("the URL cannot be read") from None
    if not parts.hostname or parts.scheme not in DEFAULT_PORTS or "@" in parts.netloc:
        raise PermanentError("the URL is no plain https:// address")
    if parts.scheme == "http" and not (trusted or _allowed(parts, settings)):
        raise PermanentError(f"{parts.hostname} is called by https only; CALL_OUT_ALLOWED_HOSTS can allow http")
    return parts


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)


def _allowed(parts: SplitResult, settings: Settings) -> bool:
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    return bool({host, f"{host}:{port}"} & {allowed.lower() for allowed in settings.call_out_allowed_hosts})


def _session(parts: SplitResult, settings: Settings, *, trusted: bool = False) -> requests.Session:
    if trusted or _allowed(parts, settings):
        session = requests.Session()
    else:
        session = HTTPSession(
            Config(
                ip_filter_enable=True,
                ip_filter_allow_loopback_ips=False,
                never_redirect=True,
                default_timeout=TIMEOUT_SECONDS,
            )
        )
    session.trust_env = False  # no .netrc: its passwords are for others; no proxy: it would look the name up itself
    return session
